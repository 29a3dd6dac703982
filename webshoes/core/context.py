"""`ctx`: what a handler is told of the call it serves."""

from __future__ import annotations

from typing import Any

from propertybag import Bag

from webshoes.core.connection import Connection


class Scope:
    """What all calls of one connection share; over plain HTTP there is one for each request."""

    __slots__ = ('_session', 'conn', 'opts', 'req', 'ws', 'wsa')

    def __init__(self, *, req: Any, opts: Bag, wsa: Any, ws: Any, conn: Connection) -> None:
        self.req = req
        self.opts = opts
        self.wsa = wsa
        self.ws = ws
        self.conn = conn
        self._session: Bag | None = None

    @property
    def session(self) -> Bag:
        """The bag of `ctx.session`, made when it is first asked for."""
        if self._session is None:
            self._session = Bag()
        return self._session


class Context:
    """The first argument of every handler.

    Attributes:
        p: the decoded HTTP path without query, or the WebSocket command as sent.
        tid: the message's transaction id, `None` where it had none and over HTTP.
        method: the HTTP method, `'WS'` over WebSocket.
    """

    __slots__ = ('_scope', 'method', 'p', 'tid')

    def __init__(self, scope: Scope, p: str, tid: str | int | float | None, method: str) -> None:
        self._scope = scope
        self.p = p
        self.tid = tid
        self.method = method

    def for_call(self, p: str, tid: str | int | float | None) -> Context:
        """The context of one call over the same connection."""
        return Context(self._scope, p, tid, self.method)

    @property
    def req(self) -> Any:
        """The aiohttp request; over WebSocket the one that opened it."""
        return self._scope.req

    @property
    def opts(self) -> Bag:
        """The application's own bag, as given to `WebShoesApp`."""
        return self._scope.opts

    @property
    def wsa(self) -> Any:
        """The `WebShoesApp`."""
        return self._scope.wsa

    @property
    def ws(self) -> Any:
        """The aiohttp WebSocket, `None` over HTTP."""
        return self._scope.ws

    @property
    def user(self) -> Any:
        """Who calls, as `auth` found; `None` without it."""
        return self._scope.conn.user

    @property
    def session(self) -> Bag:
        """A Bag that lasts as long as the WebSocket or event stream; over plain HTTP fresh for each request."""
        return self._scope.session

    @property
    def conn(self) -> Connection:
        """The connection."""
        return self._scope.conn
