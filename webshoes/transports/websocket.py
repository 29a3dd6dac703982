"""WebSocket: frames in, frames out (RFC 6455), on aiohttp's public API."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from webshoes.core import codec
from webshoes.core.auth import SUBPROTOCOL, offered_token
from webshoes.core.connection import Connection
from webshoes.core.context import Context, Scope
from webshoes.core.errors import Error
from webshoes.core.services import Services
from webshoes.core.session import Session
from webshoes.guard import Guard, asking_of
from webshoes.headers import HEADERS, JSON
from webshoes.log import log
from webshoes.loops import soon
from webshoes.outlet import HasOutlet, Outlet, Stalls

BATCH = 64 * 1024  # bytes that are sent in one go, before others have their turn
FLUSH = 0.5  # seconds in which a connection that is closed takes what it lacks
GIVE_UP = 2.0  # seconds in which its close is taken and answered
TRICKLE = 1024  # bytes, without a whole frame among them, that show that a peer is alive
LOGIN_CLOSES = {401: 4401, 403: 4403}
NEVER_SENT = (1005, 1006, 1015)  # codes of a close that no frame may carry (RFC 6455 section 7.4.1)
LAST = 4999  # code there is
PING = b'\x89\x00'

MakeScope = Callable[[web.BaseRequest, Connection, Any], Scope]
MakeSession = Callable[[Services, Context, Callable[[], None], Callable[[], None]], Session]

# It would log the subprotocols that a client offers, and one of them may be its token.
logging.getLogger('aiohttp.websocket').addFilter(lambda record: 'protocols' not in str(record.msg))


class WebSockets:
    """Serves WebSockets, on any path.

    Args:
        services: what all connections share.
        scope: makes what the contexts of one connection's calls share.
        guard: refuses who may not ask.
        stalls: finds the connections that take nothing.
        compress: whether to agree to permessage-deflate (RFC 7692).
        session: makes what speaks with one peer.
    """

    def __init__(
        self,
        services: Services,
        scope: MakeScope,
        guard: Guard,
        stalls: Stalls,
        compress: bool,
        session: MakeSession = Session,
    ) -> None:
        self._on = msgspec.structs.replace(services, unsendable=(*services.unsendable, web.StreamResponse))
        self._scope = scope
        self._guard = guard
        self._stalls = stalls
        self._compress = compress
        self._session = session
        self._peers: set[_Peer] = set()
        self._is_beating = False

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one WebSocket until it is closed; what is no handshake, or may not ask, is refused before."""
        ws = self._make_ws()
        connection = Connection(self._on.new_id(), request.remote, self._on.now())
        ctx = Context(self._scope(request, connection, ws), request.path, None, 'WS')
        by_message = self._guard.takes_message and not _has_token(request)
        refusal: Error | None = None
        try:
            asking = asking_of(request.headers)
            self._guard.check_host(asking)
            self._guard.check_origin(asking)
            if not by_message:
                refusal = await self._login(ctx)
            if refusal is not None and not (refusal.code in LOGIN_CLOSES and 'Origin' in request.headers):
                raise refusal
            await ws.prepare(request)
        except Error as exc:
            return self._refused(exc)
        except (web.HTTPBadRequest, ValueError) as exc:  # aiohttp does not expect a key that is not ASCII
            return self._refused(Error(400, f'Not a WebSocket handshake: {getattr(exc, "text", exc)}'))
        peer = _Peer(ws, request, self._on, self._stalls)
        peer.session = self._session(self._on, ctx, peer.wake, peer.wake_soon)
        if by_message:
            refusal = await self._login_by_message(peer, ctx)
        if refusal is None:
            await self._run(peer, ctx)
        else:  # a browser would learn of an answer no more than that there is no connection
            await peer.end(LOGIN_CLOSES.get(refusal.code, WSCloseCode.INTERNAL_ERROR), refusal.message)
        return ws

    def _make_ws(self) -> web.WebSocketResponse[Any]:
        limit = self._on.limits.max_ws_msg_size
        ws: web.WebSocketResponse[Any] = web.WebSocketResponse(
            compress=self._compress,
            protocols=(SUBPROTOCOL,),
            max_msg_size=limit + 1 if limit else 0,  # aiohttp's limit is exclusive, and 0 is none
            decode_text=False,
            writer_limit=0,  # where frames are compressed: look at the high-water mark after each
            autoping=False,  # to see pongs
            autoclose=False,  # to answer a close that may not be sent
        )
        ws.headers['Server'] = HEADERS['Server']
        return ws

    def _refused(self, error: Error) -> web.StreamResponse:
        headers = {**JSON, **(self._guard.challenge if error.code == 401 else {})}
        if error.code == 400:
            headers['Sec-WebSocket-Version'] = '13'  # RFC 6455 section 4.2.2
        return web.Response(status=error.code, body=codec.error(error), headers=headers)

    async def _login(self, ctx: Context) -> Error | None:
        """Why the handshake is refused, if it is."""
        try:
            await self._guard.authenticate(ctx)
        except Exception as exc:
            return self._on.dispatcher.error(exc, 'auth')
        return None

    async def _login_by_message(self, peer: _Peer, ctx: Context) -> Error | None:
        """The same, where the token is the first message."""
        try:
            async with asyncio.timeout(self._on.limits.auth_timeout):
                data = await peer.first_text()
        except TimeoutError:
            self._on.meter.met('auth_timeout')
            return Error(401, 'No login came in time')
        try:
            message = codec.decode(data) if data is not None else None
            await self._guard.authenticate_by_message(ctx, message.get('auth') if isinstance(message, dict) else None)
        except UnicodeDecodeError:
            return Error(401, 'The first message is no login')
        except Exception as exc:
            refusal = self._on.dispatcher.error(exc, 'auth')
            return refusal if refusal.code != 400 else Error(401, 'The first message is no login')
        return None

    async def _run(self, peer: _Peer, ctx: Context) -> None:
        connection = ctx.conn
        connection.become(connection.id, peer, peer.session.feed)
        self._peers.add(peer)
        self._on.connections[connection.id] = connection
        self._beat_later()
        log.debug('WebSocket %s opened from %s', connection.id, connection.remote)
        try:
            await self._on.teller.tell_in_turn('connect', ctx)
            await peer.run()
        finally:
            self._peers.discard(peer)
            del self._on.connections[connection.id]
            peer.session.close()
            self._on.teller.tell('disconnect', ctx)
            log.debug('WebSocket %s closed with %s', connection.id, ctx.ws.close_code)

    def _beat_later(self) -> None:
        """Look at all peers again and again, as long as there are any."""
        interval = self._on.limits.ping_interval
        if interval is not None and not self._is_beating and self._peers:
            self._is_beating = True
            delay = min(interval, self._on.limits.ping_timeout) / 4
            asyncio.get_running_loop().call_later(delay, self._beat, interval)

    def _beat(self, interval: float) -> None:
        for peer in self._peers:
            peer.beat(interval)
        self._is_beating = False
        self._beat_later()

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
        self, ws: web.WebSocketResponse[Any], request: web.BaseRequest, services: Services, stalls: Stalls
    ) -> None:
        assert request.transport is not None  # or the handshake had failed
        self._ws = ws
        self._on = services
        self._loop = asyncio.get_running_loop()
        self._outlet = Outlet(request.transport, services.limits.send_buffer, self, stalls)
        cast(HasOutlet, request.protocol).outlet = self._outlet
        self._is_taking = False
        self._is_due = False
        self._progress: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard = self._heard_before = 0  # frames
        self._is_read = False
        self._received_before = 0  # bytes
        self._silent_since = self._loop.time()
        self._pinged_at: float | None = None

    # --- in ---

    async def run(self) -> None:
        """Receive until the connection is closed; while it takes nothing, nothing is read from it."""
        self._is_read = True
        while (message := await self._next()) is not None:
            self._is_taking = True
            if message.type is WSMsgType.TEXT:
                self.session.receive(message.data)
            else:
                self.session.receive_binary(message.data)
            self._is_taking = False
            self.wake()
            while self.session.is_behind and not self._is_over:
                await self._wait_for_progress(None)
            if self.session.close_code is not None:
                await self.end(self.session.close_code, self.session.close_reason)

    async def first_text(self) -> bytes | None:
        """The first message if it is a text, `None` if it is not."""
        message = await self._next()
        return message.data if message is not None and message.type is WSMsgType.TEXT else None

    async def _next(self) -> Any:
        """The next message, `None` when there will be none; pings and a close are answered."""
        while True:
            message = await self._ws.receive()
            self._heard += 1
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                return message
            if message.type is WSMsgType.PING:
                self._outlet.passes(len(message.data) + 2)
                with contextlib.suppress(ConnectionError, RuntimeError):
                    await self._ws.pong(message.data)
            elif message.type is WSMsgType.CLOSE:
                code = message.data or WSCloseCode.OK
                if code in NEVER_SENT or code > LAST:
                    code = WSCloseCode.PROTOCOL_ERROR
                await self._ws.close(code=code, drain=False)
                return None
            elif message.type is not WSMsgType.PONG:
                if getattr(message.data, 'code', None) == WSCloseCode.MESSAGE_TOO_BIG:
                    self._on.meter.met('max_ws_msg_size')
                return None

    @property
    def _is_over(self) -> bool:
        return self._ws.closed or self._outlet.is_lost

    def beat(self, interval: float) -> None:
        """Ping a peer that is silent, and drop one that does not answer; not while it is we who do not read."""
        now = self._loop.time()
        received = self._outlet.received
        is_heard = self._heard != self._heard_before or received - self._received_before >= TRICKLE
        is_held_up = not self._is_read or self._outlet.is_paused or self.session.is_behind
        if is_heard or is_held_up or self._is_over:
            self._heard_before, self._received_before = self._heard, received
            self._silent_since, self._pinged_at = now, None
        elif self._pinged_at is None:
            if now - self._silent_since >= interval:
                self._pinged_at = now
                self._outlet.transport.write(PING)
        elif now - self._pinged_at >= self._on.limits.ping_timeout:
            self._on.meter.met('ping_timeout')
            self._outlet.abort()

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
                data = b''.join([part for message in messages for part in (_header(message), message)])
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
                    await self._ws.send_frame(bytes(message), _kind(message))
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
        self._on.meter.met('stall_timeout')
        self.session.close()
        self._spawn(self.end(WSCloseCode.TRY_AGAIN_LATER, 'Nothing was taken for too long'))

    # --- the end ---

    @property
    def buffered(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self._outlet.buffered

    def wake_soon(self) -> None:
        """Have `wake` called, from any thread."""
        soon(self._loop, self.wake)

    def close_soon(self, code: int, reason: str) -> None:
        """Send what there is and close, from any thread."""
        soon(self._loop, lambda: self._spawn(self.close(code, reason)))

    async def close(self, code: int, reason: str) -> None:
        """Send what there is, as long as `FLUSH` allows, and close."""
        deadline = self._loop.time() + FLUSH
        self.wake()
        while self.session.has_output and not self._is_over and (left := deadline - self._loop.time()) > 0:
            await self._wait_for_progress(left)
        await self.end(code, reason)

    async def end(self, code: int, reason: str) -> None:
        """Close now; what was written before is sent, as long as `GIVE_UP` allows."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP):
                await self._ws.close(code=code, message=_whole(reason))
                while not self._outlet.is_lost:
                    await self._wait_for_progress(None)
        self.abort()

    def abort(self) -> None:
        """End it now."""
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        if not self._outlet.is_lost:
            self._outlet.abort()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _has_token(request: web.BaseRequest) -> bool:
    """Whether a handshake brings a login with it."""
    return 'Authorization' in request.headers or offered_token(request.headers) is not None


def _whole(reason: str) -> bytes:
    """As much of a reason as a close may have (RFC 6455 section 5.5), to the end of a letter."""
    return reason.encode()[:123].decode(errors='ignore').encode()


def _kind(message: bytes | bytearray) -> WSMsgType:
    """A message is a text, but for a `bytearray`."""
    return WSMsgType.BINARY if isinstance(message, bytearray) else WSMsgType.TEXT


def _header(message: bytes | bytearray) -> bytes:
    """The header of a whole frame that is not masked (RFC 6455 section 5.2)."""
    size, kind = len(message), 0x80 | _kind(message)
    if size < 126:
        return bytes((kind, size))
    if size < 65536:
        return bytes((kind, 126)) + size.to_bytes(2, 'big')
    return bytes((kind, 127)) + size.to_bytes(8, 'big')
