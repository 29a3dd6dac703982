"""`ctx`: what a handler is told of the call it serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from propertybag import Bag


class Connection:
    """The connection a call came over.

    Attributes:
        id: its name, unique in this process.
        remote: the peer's address, `None` where it is gone.
    """

    __slots__ = ('_close', 'id', 'remote')

    def __init__(self, id: str, remote: str | None, close: Callable[[int, str], None]) -> None:
        self.id = id
        self.remote = remote
        self._close = close

    def close(self, code: int = 1000, reason: str = '') -> None:
        """Close it, from any thread. Over WebSocket the peer reads code and reason (RFC 6455 sections 5.5.1 and 7.4).

        Raises:
            ValueError: a code that no endpoint may send, or a reason of more than 123 bytes.
        """
        if code not in (1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)):
            raise ValueError(f'a close code is one that may be sent (1000, 1008, 3000 to 4999, ...), not {code!r}')
        if len(reason.encode()) > 123:
            raise ValueError(f'the reason of a close has at most 123 bytes, not {len(reason.encode())}')
        self._close(code, reason)


class Scope:
    """What all calls of one WebSocket share; over plain HTTP there is one for each request."""

    __slots__ = ('_session', 'conn', 'opts', 'req', 'user', 'ws', 'wsa')

    def __init__(self, *, req: Any, opts: Bag, wsa: Any, ws: Any, conn: Connection) -> None:
        self.req = req
        self.opts = opts
        self.wsa = wsa
        self.ws = ws
        self.conn = conn
        self.user: Any = None
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
        return self._scope.user

    @property
    def session(self) -> Bag:
        """A Bag that lasts as long as the WebSocket; over plain HTTP fresh for each request."""
        return self._scope.session

    @property
    def conn(self) -> Connection:
        """The connection."""
        return self._scope.conn
