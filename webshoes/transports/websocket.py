"""WebSocket: frames in, frames out (RFC 6455), on aiohttp's public API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from webshoes.core import codec
from webshoes.core.connection import Connection
from webshoes.core.context import Context, Scope
from webshoes.core.errors import Error
from webshoes.core.services import Services
from webshoes.core.session import Session
from webshoes.headers import HEADERS, JSON
from webshoes.log import log
from webshoes.outlet import HasOutlet, Outlet, Stalls

BATCH = 64 * 1024  # bytes that are sent in one go, before others have their turn
FLUSH = 0.5  # seconds in which a connection that is closed takes what it lacks
GIVE_UP = 2.0  # seconds in which one that took nothing may still take its close
PROTOCOLS = ('webshoes',)

MakeScope = Callable[[web.BaseRequest, Connection, Any], Scope]


class WebSockets:
    """Serves WebSockets, on any path.

    Args:
        services: what all connections share.
        scope: makes what the contexts of one connection's calls share.
        stalls: finds the connections that take nothing.
        compress: whether to agree to permessage-deflate (RFC 7692).
    """

    def __init__(self, services: Services, scope: MakeScope, stalls: Stalls, compress: bool) -> None:
        self._on = msgspec.structs.replace(services, unsendable=(*services.unsendable, web.StreamResponse))
        self._scope = scope
        self._stalls = stalls
        self._compress = compress
        self._peers: set[_Peer] = set()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one WebSocket until it is closed; a handshake that is none is answered with 400."""
        limits = self._on.limits
        ws: web.WebSocketResponse[Any] = web.WebSocketResponse(
            compress=self._compress,
            protocols=PROTOCOLS,
            # aiohttp's limit is exclusive, and 0 is none
            max_msg_size=limits.max_ws_msg_size + 1 if limits.max_ws_msg_size else 0,
            decode_text=False,
            writer_limit=0,  # where frames are compressed: look at the high-water mark after each
        )
        ws.headers['Server'] = HEADERS['Server']
        try:
            await ws.prepare(request)
        except (web.HTTPBadRequest, ValueError) as exc:  # aiohttp does not expect a key that is not ASCII
            error = Error(400, f'Not a WebSocket handshake: {getattr(exc, "text", exc)}')
            headers = {**JSON, 'Sec-WebSocket-Version': '13'}  # RFC 6455 section 4.2.2
            return web.Response(status=400, body=codec.error(error), headers=headers)
        peer = _Peer(ws, request, limits.send_buffer, self._stalls)
        connection = Connection(self._on.new_id(), request.remote, self._on.now(), peer)
        ctx = Context(self._scope(request, connection, ws), request.path, None, 'WS')
        peer.session = Session(self._on, ctx, peer.wake, peer.wake_soon)
        connection.feed(peer.session.feed)
        self._peers.add(peer)
        self._on.connections[connection.id] = connection
        log.debug('WebSocket %s opened from %s', connection.id, request.remote)
        try:
            await self._on.teller.tell_in_turn('connect', ctx)
            await peer.run()
        finally:
            self._peers.discard(peer)
            del self._on.connections[connection.id]
            peer.session.close()
            self._on.teller.tell('disconnect', ctx)
            log.debug('WebSocket %s closed with %s', connection.id, ws.close_code)
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

    def __init__(self, ws: web.WebSocketResponse[Any], request: web.BaseRequest, high: int, stalls: Stalls) -> None:
        assert request.transport is not None  # or the handshake had failed
        self._ws = ws
        self._loop = asyncio.get_running_loop()
        self._outlet = Outlet(request.transport, high, self, stalls)
        cast(HasOutlet, request.protocol).outlet = self._outlet
        self._is_taking = False
        self._is_due = False
        self._progress: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- in ---

    async def run(self) -> None:
        """Receive until the connection is closed; while it takes nothing, nothing is read from it."""
        async for message in self._ws:
            self._is_taking = True
            if message.type is WSMsgType.TEXT:
                self.session.receive(message.data)
            elif message.type is WSMsgType.BINARY:
                self.session.receive_binary()
            self._is_taking = False
            self.wake()
            while self.session.is_behind and not self._is_over:
                await self._wait_for_progress(None)
            if self.session.close_code is not None:
                await self._ws.close(code=self.session.close_code)

    @property
    def _is_over(self) -> bool:
        return self._ws.closed or self._outlet.is_lost

    # --- out ---

    def wake(self) -> None:
        """Send what there is room for, in one write; what is left follows when others had their turn."""
        if self._is_taking or self._is_due or self._is_over or not self.session.has_output:
            return
        if self._ws.compress:
            self._is_due = True
            self._spawn(self._send_compressed())
            return
        room = self._outlet.room
        if room:
            self._is_taking = True
            messages = self.session.take(min(room, BATCH))
            self._is_taking = False
            if messages:
                data = b''.join([part for message in messages for part in (_header(len(message)), message)])
                self._outlet.transport.write(data)
                self._outlet.passes(len(data))
        self._proceed()
        if self.session.has_output and not self._outlet.is_blocked:
            self._is_due = True
            self._loop.call_soon(self._again)

    def _again(self) -> None:
        self._is_due = False
        self.wake()

    async def _send_compressed(self) -> None:
        """As `wake`, where aiohttp is to compress each frame."""
        while self.session.has_output and not self._is_over:
            with contextlib.suppress(ConnectionError, RuntimeError):  # closed meanwhile, as asyncio or uvloop tells it
                for message in self.session.take(min(max(self._outlet.room, 1), BATCH)):
                    self._outlet.passes(len(message))  # first: the sending waits where there is no room
                    await self._ws.send_frame(message, WSMsgType.TEXT)
            self._proceed()
            await asyncio.sleep(0)
        self._is_due = False

    def _proceed(self) -> None:
        """Let those look who wait for something to be sent."""
        if self._progress is not None:
            self._progress.set_result(None)
            self._progress = None

    async def _wait_for_progress(self, timeout: float | None) -> None:
        """Wait until something was sent, or the connection is gone."""
        self._progress = self._progress or self._loop.create_future()
        await asyncio.wait((self._progress,), timeout=timeout)  # which, unlike an await, leaves it whole

    def writable(self) -> None:
        """There is room again."""
        self.wake()

    def lost(self) -> None:
        """The connection is gone."""
        self._proceed()

    def stalled(self) -> None:
        """The peer takes nothing."""
        self.session.close()
        self._spawn(self._give_up())

    async def _give_up(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP):
                await self._ws.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b'Nothing was taken for too long')
                while not self._outlet.is_lost:
                    await self._wait_for_progress(None)
        self.abort()

    # --- the end ---

    @property
    def buffered(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self._outlet.buffered

    def wake_soon(self) -> None:
        """Have `wake` called, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the connection with it
            self._loop.call_soon_threadsafe(self.wake)

    def close_soon(self, code: int, reason: str) -> None:
        """Send what there is and close, from any thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(lambda: self._spawn(self.close(code, reason)))

    async def close(self, code: int, reason: str) -> None:
        """Send what there is, as long as `FLUSH` allows, and close."""
        deadline = self._loop.time() + FLUSH
        self.wake()
        while self.session.has_output and not self._is_over and (left := deadline - self._loop.time()) > 0:
            await self._wait_for_progress(left)
        await self._ws.close(code=code, message=reason.encode())

    def abort(self) -> None:
        """End it now."""
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        self._outlet.abort()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _header(size: int) -> bytes:
    """The header of a whole text frame that is not masked (RFC 6455 section 5.2)."""
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return b'\x81\x7e' + size.to_bytes(2, 'big')
    return b'\x81\x7f' + size.to_bytes(8, 'big')
