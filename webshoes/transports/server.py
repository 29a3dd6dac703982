"""The port: who listens on it, which face a request goes to, and how it all ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import Any, Protocol, cast

from aiohttp import BodyPartReader, HttpVersion11, MultipartReader, web
from aiohttp.http_exceptions import LineTooLong

from webshoes.core import codec
from webshoes.core.errors import SERVER_ERROR, Error
from webshoes.core.limits import Limits
from webshoes.headers import CHARSETS, JSON
from webshoes.log import log
from webshoes.outlet import Outlet, end, waiting_in

Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

POLL = 0.01  # seconds between two looks at whether the handlers are done
CLOSING = 2.0  # seconds in which WebSockets, and then HTTP connections, are closed


class Face(Protocol):
    """What the server needs of a face."""

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request."""

    def stop(self) -> None:
        """Refuse new work."""

    @property
    def is_busy(self) -> bool:
        """Whether a handler is running."""

    async def close(self, timeout: float) -> None:
        """End what runs and close its connections, in so many seconds."""


class Server:
    """One run on one port.

    Args:
        http: answers requests.
        websockets: serves those who ask to upgrade.
        limits: the app's.
    """

    def __init__(self, http: Face, websockets: Face, limits: Limits) -> None:
        self._http = http
        self._websockets = websockets
        self._limits = limits
        self._stopping = False
        self._server: _HttpServer
        self._listener: asyncio.Server

    async def open(self, addr: str, port: int, tls: SSLContext | None) -> int:
        """Listen.

        Args:
            addr: the address, `''` for all.
            port: the port, 0 for a free one.
            tls: how to encrypt, `None` for not at all.

        Returns:
            The port.

        Raises:
            OSError: the port is in use, or the address is not ours.
        """
        self._server = _HttpServer(
            self._serve, request_factory=self._request, access_log=None, logger=log, keepalive_timeout=75.0
        )
        ports = await self._listen(addr, port, tls)
        while len(ports) > 1:  # port 0 on several addresses gave each its own: ask for one of them on all
            self._listener.close()
            await self._listener.wait_closed()
            try:
                ports = await self._listen(addr, ports.pop(), tls)
            except OSError:  # pragma: no cover  # somebody took it on another address, this very moment
                ports = await self._listen(addr, port, tls)
        return ports.pop()

    async def _listen(self, addr: str, port: int, tls: SSLContext | None) -> set[int]:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server, addr or None, port, ssl=tls, backlog=1024)
        return {socket.getsockname()[1] for socket in self._listener.sockets}

    def _request(self, *args: object) -> web.BaseRequest:
        message, payload, protocol, writer, task = args
        return _Request(
            message,  # type: ignore[arg-type]
            payload,  # type: ignore[arg-type]
            protocol,  # type: ignore[arg-type]
            writer,  # type: ignore[arg-type]
            task,  # type: ignore[arg-type]
            asyncio.get_running_loop(),
            client_max_size=self._limits.max_body_size or 0,
            client_max_fields=self._limits.max_fields or 0,
        )

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._stopping:
            return _refusal(Error(503, 'The server is stopping'))
        if request.version >= HttpVersion11 and request.headers.get('Expect', '').lower() == '100-continue':
            await request.writer.write(b'HTTP/1.1 100 Continue\r\n\r\n')
            request.writer.output_size = 0  # the answer itself has not begun
        if request.method == 'GET' and request.headers.get('Upgrade', '').lower() == 'websocket':
            return await self._websockets.serve(request)
        return await self._http.serve(request)

    async def close(self, last: Callable[[], None]) -> None:
        """Take no new work, let handlers finish for half of `stop_timeout`, call `last`, close the connections."""
        self._stopping = True
        self._listener.close()
        faces = self._http, self._websockets
        for face in faces:
            face.stop()
        loop = asyncio.get_running_loop()
        grace = loop.time() + self._limits.stop_timeout / 2
        while any(face.is_busy for face in faces) and loop.time() < grace:
            await asyncio.sleep(POLL)
        last()
        eighth = min(CLOSING, self._limits.stop_timeout / 8)
        await asyncio.gather(*(face.close(2 * eighth) for face in faces))
        self._server.pre_shutdown()
        await self._server.shutdown(eighth / 2)  # aiohttp takes twice this: for the handlers, and for their tasks
        await self._end_connections(eighth)

    async def _end_connections(self, timeout: float) -> None:
        """Let connections send what they hold, end those that are left, and let the loop see it.

        Under TLS a connection that is ended waits for its peer to agree.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while any(map(waiting_in, self._server.transports)) and loop.time() < deadline:
            await asyncio.sleep(POLL)
        for transport, connection in self._server.transports.items():
            end(transport, connection)
        deadline = loop.time() + POLL * 50
        while self._server.transports and loop.time() < deadline:
            await asyncio.sleep(POLL)


class _Request(web.BaseRequest):
    """A request whose forms are read in charsets that are sent, each part of them."""

    async def multipart(self) -> MultipartReader:
        """The parts of the body."""
        reader = await super().multipart()
        reader.part_reader_cls = _Part
        return reader


class _Part(BodyPartReader):
    def get_charset(self, default: str) -> str:
        charset = super().get_charset(default)
        if charset.lower() not in CHARSETS:
            raise ValueError(f'a part in the charset {charset[:40]!r}')
        return charset


class _HttpServer(web.Server):
    """aiohttp's server, its connections ours, and known until they are really gone."""

    transports: dict[asyncio.Transport, Any]  # and their sockets

    def __init__(self, handler: Serve, **settings: Any) -> None:
        super().__init__(handler, **settings)
        self.transports = {}

    def __call__(self) -> _RequestHandler:
        """A new connection."""
        return _RequestHandler(self, loop=self._loop, **self._kwargs)


class _RequestHandler(web.RequestHandler):
    """One HTTP connection; what aiohttp would answer by itself, with an echo and a traceback, has our shape."""

    __slots__ = ('_known', '_transports', 'outlet')

    def __init__(self, server: _HttpServer, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._transports = server.transports
        self._known: asyncio.Transport
        self.outlet: Outlet | None = None  # of what lives long on this connection: a WebSocket, an event stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self._known = cast(asyncio.Transport, transport)
        self._transports[self._known] = transport.get_extra_info('socket')

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._transports.pop(self._known, None)
        super().connection_lost(exc)
        if self.outlet is not None:
            self.outlet.lose()

    def pause_writing(self) -> None:
        """The transport holds more than its high-water mark."""
        super().pause_writing()
        if self.outlet is not None:
            self.outlet.pause()

    def resume_writing(self) -> None:
        """The transport has room again."""
        super().resume_writing()
        if self.outlet is not None:
            self.outlet.resume()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that are no request, or to a failure that none of our own gates met."""
        if request.writer.output_size > 0:
            raise ConnectionError('a response has begun already, and cannot become an error')  # pragma: no cover
        if status >= 500:  # pragma: no cover  # as both: Http.serve answers what fails, so that nothing gets here
            log.error('a request failed', exc_info=exc)
            return _refusal(Error(500, SERVER_ERROR))
        log.debug('no request came from %s', request.remote, exc_info=exc)
        if isinstance(exc, LineTooLong):
            return _refusal(Error(431, 'The request line or a header is too long'))
        return _refusal(Error(400, 'Not an HTTP request'))


def _refusal(error: Error) -> web.Response:
    """An error that ends its connection."""
    response = web.Response(status=error.code, body=codec.error(error), headers=JSON)
    response.force_close()
    return response
