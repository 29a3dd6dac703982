"""The port: who listens on it, which face a request goes to, and how it all ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp import __version__ as aiohttp_version

from webshoes import fork
from webshoes.core.errors import STOPPING, Error
from webshoes.core.meter import Meter
from webshoes.log import Journal, log
from webshoes.loops import uncancel
from webshoes.outlet import Stalls, end, waiting_in
from webshoes.pool import server_work
from webshoes.sockets import BACKLOG, SocketFile, listen, unix_path
from webshoes.transports.compat import MAKES_REQUESTS, RELIANCES, REQUEST_SETTINGS, close_idle
from webshoes.transports.http_connection import HttpConnection, HttpConnections
from webshoes.transports.refusals import NO_REQUEST, answer, refused
from webshoes.transports.request import Request, adopted
from webshoes.transports.writer import Writer

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage

TURNS = 4  # of asyncio's loop in which an accepted connection comes to be
POLL = 0.01  # seconds between two looks at whether the handlers are done
CLOSING = 2.0  # seconds in which WebSockets, and then HTTP connections, are closed
TOO_SHORT = 'as a file became shorter or could not be read, or a handler sent less than it declared'
TWO_ANSWERS = 'a handler began an aiohttp response of its own, and then gave another answer'


class Face(Protocol):
    """A face, as far as the server needs it."""

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request."""

    def stop(self) -> None:
        """Refuse new work."""

    @property
    def is_busy(self) -> bool:
        """Return whether a handler is running."""

    async def close(self, timeout: float) -> None:
        """Cancel running work and close the connections of the face, within `timeout` seconds."""


class HttpFace(Face, Protocol):
    """The face that answers requests, as far as the server needs it."""

    def serve_at_once(
        self, message: RawRequestMessage, payload: StreamReader, request: Callable[[bytes | None], web.BaseRequest]
    ) -> Any:
        """Serve a request, if that is done in one step: the answer, what is left to do, or `None`."""

    async def finish(self, request: web.BaseRequest, done: Any) -> web.StreamResponse:
        """Do what was left to do."""


class Server:
    """One run on one port.

    Args:
        http: answers requests.
        websockets: serves those who ask to upgrade.
        meter, journal: the app's.
        stalls: finds the connections that take nothing.
    """

    def __init__(self, http: HttpFace, websockets: Face, meter: Meter, stalls: Stalls, journal: Journal) -> None:
        self._http = http
        self._websockets = websockets
        self._limits = meter.limits
        self._meter = meter
        self._journal = journal
        self._stalls = stalls
        self._stopping = False
        self._server: HttpConnections
        self._listeners: list[asyncio.Server] = []
        self._file: SocketFile | None = None
        self._loop: asyncio.AbstractEventLoop

    async def open(self, addr: str, port: int, tls: SSLContext | None) -> int:
        """Listen.

        Args:
            addr: the address, `''` for all, `unix:` and a path for a Unix domain socket.
            port: the port, 0 for a free one.
            tls: how to encrypt, `None` for not at all.

        Returns:
            The port, 0 for a Unix domain socket.

        Raises:
            OSError: the port is in use, or the address is not ours.
        """
        for reliance in RELIANCES:
            if not reliance.works:
                log.info('aiohttp %s is not one that webshoes knows. %s', aiohttp_version, reliance.lost)
        self._loop = asyncio.get_running_loop()
        self._server = self._make_server()
        sockets = listen(addr, port)
        fork.note_sockets(self, sockets)
        path = unix_path(addr)
        self._file = None if path is None else SocketFile(path)
        try:
            for one in sockets:
                self._listeners.append(await self._accept(one, tls))
        except BaseException:
            self._let_go_of_address()
            for one in sockets:
                one.close()
            fork.forget_sockets(self)
            raise
        return 0 if path is not None else int(sockets[0].getsockname()[1])

    def _make_server(self) -> HttpConnections:
        return HttpConnections(
            self._serve if MAKES_REQUESTS else self._serve_adopted,
            self._http.serve_at_once,
            self._meter,
            self._stalls,
            request_factory=self._request if MAKES_REQUESTS else None,
            access_log=None,
            logger=log,
            keepalive_timeout=self._limits.keepalive_timeout,
            max_line_size=self._limits.max_header_size,
            max_field_size=self._limits.max_header_size,
        )

    async def _accept(self, listening: socket.socket, tls: SSLContext | None) -> asyncio.Server:
        """Accept the connections of a socket from here on."""
        patience = self._limits.header_timeout if tls is not None else None
        create: Any = self._loop.create_server
        if self._file is not None:
            create = self._loop.create_unix_server
        accepting: asyncio.Server = await create(
            self._server, sock=listening, ssl=tls, backlog=BACKLOG, ssl_handshake_timeout=patience
        )
        return accepting

    def _request(self, *args: Any) -> web.BaseRequest:
        message, payload, protocol, _, task = args
        return cast(Any, Request)(  # type: ignore[no-any-return]
            message,
            payload,
            protocol,
            Writer(protocol, self._loop, message.method),
            task,
            self._loop,  # not the running one: it may be asked for in a thread
            client_max_size=self._limits.max_body_size or 0,
            **REQUEST_SETTINGS,
        )

    async def _serve_adopted(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request that aiohttp has made."""
        malformed = getattr(request, 'pre_handler_error', None)  # aiohttp 4 hands these to the handler
        if malformed is not None:
            return cast(HttpConnection, request.protocol).handle_error(request, 400, malformed.__cause__)
        return await self._serve(adopted(request, self._limits.max_body_size or 0))

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._answer(request)
        except web.HTTPException as exc:
            await self._send(request, exc)
            raise
        await self._send(request, response)
        return _Sent() if isinstance(response, web.FileResponse) else response

    async def _send(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Send an answer. The connection ends with one that its head does not delimit, or that breaks off.

        Raises:
            ConnectionError: the client has gone, or cannot get this answer any more; the connection is closed.
        """
        if not self._stopping:
            await uncancel()  # what a handler has done to the task is not to drop its connection
        writer = request.writer if isinstance(request.writer, Writer) else None
        if writer is not None and writer.has_begun and not response.prepared:
            self._journal.broken_off(request.method, request.path, TWO_ANSWERS)
            raise ConnectionResetError(TWO_ANSWERS)
        # aiohttp may have the kernel write a file, which does not tell how much; and its own writer counts no streams.
        is_counted = not isinstance(response, web.FileResponse) if writer else isinstance(response, web.Response)
        if not is_counted:
            response.force_close()
        try:
            with server_work():  # aiohttp reads a `FileResponse` of a handler in threads
                await response.prepare(request)
                await response.write_eof()
        except Exception as exc:
            is_gone = request.transport is None or request.transport.is_closing()
            is_file = isinstance(response, web.FileResponse)  # whose sending may see it before the connection does
            if isinstance(exc, ConnectionError) and (is_gone or is_file):
                raise
            self._journal.failure(exc, f'{request.method} {request.path}')
            raise ConnectionResetError('the body of an answer failed') from exc
        owed = writer.owed if writer is not None else 0
        if owed != 0:
            response.force_close()
        if owed and is_counted:
            why = f'it ended {owed} bytes before its Content-Length, {TOO_SHORT}'
            self._journal.broken_off(request.method, request.path, why)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._stopping:
            return refused(Error(503, STOPPING))
        if not request.raw_path.isascii():  # only aiohttp's parser in Python lets it through (RFC 9112 section 3.2)
            return refused(Error(400, NO_REQUEST))
        protocol = cast(HttpConnection, request.protocol)
        headers = request.headers
        try:
            protocol.begin(request)
            if 'Expect' in headers and request.version >= HttpVersion11 and headers['Expect'].lower() == '100-continue':
                protocol.go_on()
            if 'Upgrade' in headers and request.method == 'GET' and headers['Upgrade'].lower() == 'websocket':
                return await self._websockets.serve(request)
            done = protocol.take_done()
            return await (self._http.serve(request) if done is None else self._http.finish(request, done))
        except Error as exc:  # on a connection that goes on: a new one might have what this one may not
            return answer(exc)
        finally:
            protocol.end()

    async def close(self, last: Callable[[], None]) -> None:
        """Take no new work, let handlers finish for half of `stop_timeout`, call `last`, close the connections."""
        try:
            await self._close(last)
        finally:
            fork.forget_sockets(self)

    async def _close(self, last: Callable[[], None]) -> None:
        self._stopping = True
        self._server.stop_answering()
        await self._stop_accepting()
        faces = self._http, self._websockets
        for face in faces:
            face.stop()
        loop = asyncio.get_running_loop()
        grace = loop.time() + self._limits.stop_timeout / 2
        while any(face.is_busy for face in faces) and loop.time() < grace:
            await asyncio.sleep(POLL)
        if any(face.is_busy for face in faces):
            self._meter.met('stop_timeout')
        last()
        eighth = min(CLOSING, self._limits.stop_timeout / 8)
        await asyncio.gather(*(face.close(2 * eighth) for face in faces))
        self._server.stop_watching()
        close_idle(self._server)
        await self._server.shutdown(eighth / 2)  # aiohttp takes twice this: for the handlers, and for their tasks
        await self._end_connections(eighth)

    async def _stop_accepting(self) -> None:
        """Listen no more, when what was accepted has come to be: asyncio would fall over its server that is closed."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, asyncio.SelectorEventLoop):
            for listener in self._listeners:
                for listening in listener.sockets:
                    loop.remove_reader(listening.fileno())
            for _ in range(TURNS):
                await asyncio.sleep(0)
        self._let_go_of_address()

    def _let_go_of_address(self) -> None:
        if self._file is not None:
            self._file.remove()
        for listener in self._listeners:
            listener.close()

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


class _Sent(web.StreamResponse):
    """Stands for a `FileResponse` that was sent. aiohttp prepares what it is given again, and this one would fail."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send nothing."""

    async def write_eof(self, data: bytes = b'') -> None:
        """Send nothing."""
