"""`ctx`: what a handler is told of the call it serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from propertybag import Bag

from webshoes.core.connection import Connection

MakesConnection = Connection | Callable[[Any], Connection]
"""A connection, or what makes one of a request."""


class Later(Struct, frozen=True):
    """A value that is made when it is first needed, which is seldom."""

    make: Callable[[], Any]


class Scope:
    """Values that all calls of one connection share. Over plain HTTP each request has its own."""

    __slots__ = ('_conn', '_req', '_session', 'opts', 'ws', 'wsa')

    def __init__(self, *, req: Any, opts: Bag, wsa: Any, ws: Any, conn: MakesConnection) -> None:
        self._req = req
        self.opts = opts
        self.wsa = wsa
        self.ws = ws
        self._conn = conn
        self._session: Bag | None = None

    @property
    def req(self) -> Any:
        """The aiohttp request."""
        if type(self._req) is Later:
            self._req = self._req.make()
        return self._req

    @property
    def conn(self) -> Connection:
        """The connection."""
        if not isinstance(self._conn, Connection):
            self._conn = self._conn(self.req)
        return self._conn

    @property
    def user(self) -> Any:
        """Who calls, as `auth` found; `None` without it."""
        return self._conn.user if isinstance(self._conn, Connection) else None

    @property
    def session(self) -> Bag:
        """The bag of `ctx.session`, made when it is first asked for."""
        if self._session is None:
            self._session = Bag()
        return self._session


class Context(Struct, eq=False, weakref=True):
    """The first argument of every handler.

    Attributes:
        scope: what it shares with the other calls of its connection.
        p: the decoded HTTP path without query, or the WebSocket command as sent.
        tid: the message's transaction id, `None` where it had none and over HTTP.
        method: the HTTP method, `'WS'` over WebSocket.
        is_cancelled: whether the call was cancelled while it ran: its HTTP client has gone, it was told to by `cancel`,
            it took longer than `Limits.handler_timeout`, or the server has stopped waiting for it. A coroutine
            also gets `CancelledError`; a function in a thread has to look here. Nobody reads its result any more.
    """

    scope: Scope
    p: str
    tid: str | int | float | None
    method: str
    is_cancelled: bool = False

    def __repr__(self) -> str:
        return f'<Context of {self.method} {self.p!r}>'

    @property
    def req(self) -> Any:
        """The aiohttp request; over WebSocket the one that opened it."""
        return self.scope.req

    @property
    def opts(self) -> Bag:
        """The application's own bag, as given to `WebShoesApp`."""
        return self.scope.opts

    @property
    def wsa(self) -> Any:
        """The `WebShoesApp`."""
        return self.scope.wsa

    @property
    def ws(self) -> Any:
        """The aiohttp WebSocket, `None` over HTTP."""
        return self.scope.ws

    @property
    def user(self) -> Any:
        """Who calls, as `auth` found; `None` without it."""
        return self.scope.user

    @property
    def session(self) -> Bag:
        """A Bag that lasts as long as the WebSocket or event stream; over plain HTTP fresh for each request."""
        return self.scope.session

    @property
    def conn(self) -> Connection:
        """The connection."""
        return self.scope.conn
