"""WebSocket: frames in, frames out (RFC 6455), on aiohttp's public API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from webshoes.core import codec
from webshoes.core.context import Connection, Scope
from webshoes.core.errors import Error
from webshoes.core.session import Services, Session
from webshoes.headers import HEADERS, JSON
from webshoes.log import log

BATCH = 64 * 1024  # bytes that are taken from a session in one go
FLUSH = 0.5  # seconds in which a connection that is closed takes what it lacks
PROTOCOLS = ('webshoes',)

MakeScope = Callable[[web.BaseRequest, Connection, Any], Scope]


class WebSockets:
    """Serves WebSockets, on any path.

    Args:
        services: what the sessions share.
        scope: makes what the contexts of one connection's calls share.
        compress: whether to agree to permessage-deflate (RFC 7692).
    """

    def __init__(self, services: Services, scope: MakeScope, compress: bool) -> None:
        self._services = msgspec.structs.replace(services, unsendable=(*services.unsendable, web.StreamResponse))
        self._scope = scope
        self._compress = compress
        self._peers: set[_Peer] = set()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one WebSocket until it is closed; a handshake that is none is answered with 400."""
        limits = self._services.limits
        ws: web.WebSocketResponse[Any] = web.WebSocketResponse(
            compress=self._compress,
            protocols=PROTOCOLS,
            # aiohttp's limit is exclusive, and 0 is none
            max_msg_size=limits.max_ws_msg_size + 1 if limits.max_ws_msg_size else 0,
            decode_text=False,
            writer_limit=0,  # look at the transport's high-water mark after each frame
        )
        ws.headers['Server'] = HEADERS['Server']
        try:
            await ws.prepare(request)
        except (web.HTTPBadRequest, ValueError) as exc:  # aiohttp does not expect a key that is not ASCII
            error = Error(400, f'Not a WebSocket handshake: {getattr(exc, "text", exc)}')
            headers = {**JSON, 'Sec-WebSocket-Version': '13'}  # RFC 6455 section 4.2.2
            return web.Response(status=400, body=codec.error(error), headers=headers)
        peer = _Peer(ws, request, limits.send_buffer, self._services.new_uid())
        peer.session = Session(self._services, self._scope(request, peer.connection, ws), peer.wake)
        self._peers.add(peer)
        log.debug('WebSocket %s opened from %s', peer.connection.id, request.remote)
        try:
            await peer.run()
        finally:
            self._peers.discard(peer)
            peer.session.close()
            log.debug('WebSocket %s closed with %s', peer.connection.id, ws.close_code)
        return ws

    @property
    def is_busy(self) -> bool:
        """Whether a handler of any connection is running."""
        return any(peer.session.is_busy for peer in self._peers)

    def stop(self) -> None:
        """Refuse new calls and subscriptions with 503."""
        for peer in self._peers:
            peer.session.stop()

    async def close(self, timeout: float) -> None:
        """End what runs, send what there is, and close all with 1001, in so many seconds."""
        for peer in self._peers:
            peer.session.interrupt()
        closing = [
            asyncio.ensure_future(peer.close(WSCloseCode.GOING_AWAY, 'The server is stopping')) for peer in self._peers
        ]
        if closing:
            await asyncio.wait(closing, timeout=timeout)
        for peer in self._peers:
            peer.abort()


class _Peer:
    """One connection: its session's messages on their way in and out."""

    session: Session

    def __init__(
        self, ws: web.WebSocketResponse[Any], request: web.BaseRequest, send_buffer: int, connection_id: str
    ) -> None:
        assert request.transport is not None  # or the handshake had failed
        request.transport.set_write_buffer_limits(high=send_buffer)
        self._transport = request.transport
        self._ws = ws
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self._is_receiving = False
        self._is_pumping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.connection = Connection(connection_id, request.remote, self._close_soon)

    async def run(self) -> None:
        """Receive until the connection is closed; while it takes nothing, nothing is read from it."""
        async for message in self._ws:
            self._is_receiving = True
            if message.type is WSMsgType.TEXT:
                self.session.receive(message.data)
            elif message.type is WSMsgType.BINARY:
                self.session.receive_binary()
            self._is_receiving = False
            await self._send(BATCH)
            while self.session.is_behind and not self._ws.closed:
                await asyncio.sleep(0)
                await self._send(BATCH)
            self.wake()
            if self.session.close_code is not None:
                await self._ws.close(code=self.session.close_code)

    def wake(self) -> None:
        """Send what there is, unless somebody is about to."""
        if not self._is_receiving and not self._is_pumping and self.session.has_output:
            self._is_pumping = True
            self._spawn(self._pump())

    async def _pump(self) -> None:
        """Send until there is nothing left, however long that is, and let others have their turn meanwhile."""
        try:
            while self.session.has_output and not self._ws.closed:
                await self._send(BATCH)
                await asyncio.sleep(0)
        finally:
            self._is_pumping = False

    async def _send(self, size: int) -> None:
        """Send about so many bytes; waits while the connection's buffer is above its high-water mark."""
        async with self._sending:
            with contextlib.suppress(ConnectionError, RuntimeError):  # closed meanwhile, as asyncio or uvloop tells it
                for message in self.session.take(size):
                    await self._ws.send_frame(message, WSMsgType.TEXT)

    async def close(self, code: int, reason: str) -> None:
        """Send what there is, as long as `FLUSH` allows, and close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH):
                while self.session.has_output:
                    await self._send(BATCH)
                    await asyncio.sleep(0)
        await self._ws.close(code=code, message=reason.encode())

    def abort(self) -> None:
        """End it now."""
        for task in self._tasks:
            task.cancel()
        self._transport.abort()

    def _close_soon(self, code: int, reason: str) -> None:
        self._loop.call_soon_threadsafe(lambda: self._spawn(self.close(code, reason)))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
