"""One WebSocket connection: its session's messages on their way in and out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any, cast

from aiohttp import WSCloseCode, WSMsgType, web

from webshoes.core import frames
from webshoes.core.feed import BATCH
from webshoes.core.services import Services
from webshoes.core.session import Session
from webshoes.loops import Turn, soon, uncancel
from webshoes.outlet import HasOutlet, Outlet, Stalls
from webshoes.transports.lane import SlowLane, open_lane

TEXT, BINARY, PING, PONG = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG  # an enum is slow to ask
FLUSH = 0.5  # seconds in which a connection that is closed takes what it lacks
GIVE_UP = 2.0  # seconds in which its close is taken and answered
TRICKLE = 1024  # bytes that show that a peer is alive: received without a whole frame among them, or acknowledged
NEVER_SENT = (1005, 1006, 1015)  # codes of a close that no frame may carry (RFC 6455 section 7.4.1)
LAST = 4999  # code there is


class Peer:
    """One connection: its session's messages on their way in and out.

    Args:
        ws: the WebSocket.
        request: what opened it.
        services: what all connections share.
        stalls: finds the connections that take nothing.
        turn: of the loop, at whose end what was answered is sent.

    Attributes:
        session: what speaks with the peer; to be set before anything is received.
    """

    session: Session

    def __init__(self, ws: SlowLane, request: web.BaseRequest, services: Services, stalls: Stalls, turn: Turn) -> None:
        assert request.transport is not None  # or the handshake had failed
        self._ws = ws
        self._is_compressed = bool(ws.compress)
        self._on = services
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._within = copy_context().run  # where handlers are called: whatever runs when it is their turn
        self._outlet = Outlet(request.transport, services.limits.send_buffer, self, stalls)
        self._protocol = cast(HasOutlet, request.protocol)
        self._protocol.outlet = self._outlet
        ws.speaker = self
        if self._is_compressed:
            ws.order = asyncio.Lock()
        self._is_taking = False
        self._is_due = False
        self._is_closing = False
        self._is_held = False  # what came is to be answered, or sent, before more is taken
        self._is_resting = False
        self._progress: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] | None = None  # none was needed yet
        self._is_read = False
        self._is_heard = False  # a frame, since the last beat
        self._silent_since = self._loop.time()
        self._taken: int | None = None  # by the peer, when it had been silent for a while, or was pinged
        self._pinged_at: float | None = None

    # --- in ---

    async def run(self) -> None:
        """Receive until the connection is closed; while it takes nothing, nothing is read from it."""
        self._is_read = True
        self._within = copy_context().run  # with what a login by message, or a hook, has set
        self._protocol.take_frames_within(self._within)
        open_lane(self._ws, self._take)
        self._open_way()
        try:
            is_open = True
            while is_open:
                try:
                    is_open = await self._answer(await self._ws.receive())
                except asyncio.CancelledError as exc:
                    if self._on.dispatcher.is_end(exc) or self._is_over:
                        raise
                    await uncancel()  # a handler has cancelled the task that it was called in
        finally:
            self.close_lanes()

    async def _answer(self, message: Any) -> bool:
        """Answer a message; whether there may be more."""
        self._is_heard = True
        if message.type not in (TEXT, BINARY):
            return await self._control(message)
        if self.session.close_code is None:
            self._is_taking = True
            if message.type is TEXT:
                self._within(self.session.receive, message.data)
            else:
                self.session.receive_binary(message.data)
            self.flush()
        while self.session.is_behind and not self._is_over:
            await self._wait_for_progress(None)
        if self.session.close_code is not None:
            await self._rest()
            await self.end(self.session.close_code, self.session.close_reason)
        return True

    def _open_way(self) -> None:
        """Let events be written at once."""
        if self._is_read and not self._is_over and not self._is_compressed and not self._outlet.is_blocked:
            self.session.feed.way = self._outlet.transport

    async def wait_for_turn(self) -> None:
        """Wait until what is being answered is sent."""
        while self._is_taking:
            await asyncio.sleep(0)

    def close_lanes(self) -> None:
        """Nothing is taken or sent from here on, but a close."""
        self._is_closing = True
        self._is_read = False
        self.session.feed.shut()
        open_lane(self._ws, None)

    def _take(self, message: Any) -> bool:
        """Take a message where its bytes arrive, unless something is to be waited for."""
        session, is_deferred = self.session, True
        if self._is_held or session.feed.unsent > BATCH:  # which are sent first: what comes now waits as it came
            return False
        if message[0] is not TEXT:
            return self._take_control(message)
        if not self._is_taking:
            self._is_taking = True  # until `flush`
            is_deferred = self._turn.defer(self)
        session.receive(message[1])
        if not is_deferred:
            self._flush_at_once()
        return session.close_code is None  # or `run` has it too, and closes

    def _take_control(self, message: Any) -> bool:
        is_ahead = self.session.is_behind or self._outlet.is_blocked
        is_taken = message[0] is PONG or (message[0] is PING and not is_ahead)
        if is_taken:
            self._is_heard = True
            if message[0] is PING:
                data = frames.header(frames.PONG, len(message[1])) + message[1]
                self._outlet.transport.write(data)
                self._outlet.passes(len(data))
        return is_taken

    def _flush_at_once(self) -> None:
        """Send what was answered, or, where there is more to it, do so at the end of the turn."""
        if self._progress is not None or not self.session.write_answers():
            self._turn.defer(self)
        else:
            self._is_heard = True
            self._is_taking = False

    def flush(self) -> None:
        """Send what was answered."""
        self._is_heard = True
        self._is_taking = False
        if self._progress is not None or not self.session.write_answers():
            self.wake()

    async def first_text(self) -> bytes | None:
        """The first message if it is a text, `None` if it is not."""
        while (message := await self._ws.receive()).type not in (TEXT, BINARY):
            if not await self._control(message):
                return None
        self._is_heard = True
        return message.data if message.type is TEXT else None

    async def _control(self, message: Any) -> bool:
        """Answer a ping or a close; whether there may be more messages."""
        if message.type is PING:
            await self._rest()
            self._outlet.passes(len(message.data) + 2)
            with contextlib.suppress(ConnectionError, RuntimeError):
                await self._ws.pong(message.data)
        elif message.type is WSMsgType.CLOSE:
            await self._rest()
            code = message.data or WSCloseCode.OK
            if code in NEVER_SENT or code > LAST:
                code = WSCloseCode.PROTOCOL_ERROR
            await self._ws.close(code=code, drain=False)
            return False
        elif message.type is not PONG:
            code = getattr(message.data, 'code', None)
            if code == WSCloseCode.MESSAGE_TOO_BIG:
                self._on.meter.met('max_ws_msg_size')
            if code is not None and not self._is_over:
                await self._break_off(code)
            return False
        return True

    async def _rest(self) -> None:
        """Wait until all that was taken is answered, and the answers are sent; nothing overtakes meanwhile."""
        self._is_resting = self._is_held = True
        while self.session.is_behind and not self._is_over:
            await self._wait_for_progress(None)
        if self._is_compressed and self._is_due and not self._is_over:
            await self._wait_for_progress(None)  # for what is being compressed
        self._is_resting = False
        self._is_held = self.session.is_behind

    @property
    def _is_over(self) -> bool:
        return self._ws.closed or self._outlet.is_lost

    def beat(self, interval: float) -> None:
        """Ping a peer that is silent, and drop one that does not answer; not while it is we who do not read.

        The answer to a ping comes after all that the peer has to receive before. So a peer that acknowledges bytes is
        alive. The kernel is asked only where nothing else was heard for half of the interval.
        """
        now = self._loop.time()
        is_heard, self._is_heard = self._is_heard, False
        received = self._protocol.count_frame_bytes(not is_heard)
        is_held_up = not self._is_read or self._is_due or self._outlet.is_paused or self.session.is_behind
        if is_heard or received >= TRICKLE or is_held_up or self._is_over:
            self._silent_since, self._pinged_at, self._taken = now, None, None
        elif self._pinged_at is None:
            silence = now - self._silent_since
            if silence >= interval and not self._takes():
                self._pinged_at = now
                self._on.meter.met('ping_interval')
                self._outlet.transport.write(frames.header(frames.PING, 0))
            elif silence >= interval / 2 and self._taken is None:
                self._taken = self._outlet.taken
        elif now - self._pinged_at >= self._on.limits.ping_timeout and not self._takes():
            self._on.meter.met('ping_timeout')
            self._outlet.abort()

    def _takes(self) -> bool:
        """Look whether the peer has taken something since the last look; then its silence begins anew."""
        before, self._taken = self._taken, self._outlet.taken
        if before is None or self._taken - before < TRICKLE:
            return False
        self._silent_since = self._loop.time()
        self._pinged_at = None
        return True

    # --- out ---

    def wake(self) -> None:
        """Send what there is room for, in one write; what is left follows when others had their turn."""
        if self._is_taking or self._is_due or self._is_closing:
            return
        session, outlet = self.session, self._outlet
        if self._is_compressed:
            if session.has_output:
                self._is_due = self._is_held = True
                self._spawn(self._send_compressed())
            return
        if room := outlet.room:
            self._is_taking = True
            data = b''.join(self._within(session.take, room if room < BATCH else BATCH))
            self._is_taking = False
            if data:
                outlet.transport.write(data)
                outlet.passes(len(data))
            if session.is_dry and self._progress is None:
                self._is_held = self._is_resting
                return
        self._proceed()
        self._is_held = session.is_behind or self._is_resting
        if session.has_output and not outlet.is_blocked:
            self._is_due = True
            self._loop.call_soon(self._again)

    def _again(self) -> None:
        self._is_due = False
        self.wake()

    async def _send_compressed(self) -> None:
        """As `wake`, where aiohttp is to compress each frame."""
        while self.session.has_output and not self._is_over:
            with contextlib.suppress(ConnectionError, RuntimeError):  # closed meanwhile, as asyncio or uvloop tells it
                found = self._within(self.session.take, min(max(self._outlet.room, 1), BATCH))
                await uncancel()  # a handler that waited until now may have cancelled the task that it was called in
                for data in found:
                    async with self._ws.order:  # so that nothing comes between a big message and its notice
                        for opcode, message in frames.opened(data):
                            self._outlet.passes(len(message))  # first: the sending waits where there is no room
                            await self._ws.send_frame(message, WSMsgType(opcode))
            self._proceed()
            await asyncio.sleep(0)
        self._is_due, self._is_held = False, self._is_resting
        self._proceed()

    def _proceed(self) -> None:
        """Let go on what waits for something to be sent."""
        if self._progress is not None:
            self._progress.set_result(None)
            self._progress = None

    async def _wait_for_progress(self, timeout: float | None) -> None:
        """Wait until something was sent, or the connection is gone."""
        self._progress = self._progress or self._loop.create_future()
        await asyncio.wait((self._progress,), timeout=timeout)  # which, unlike an await, leaves it whole

    @property
    def written(self) -> int:
        """Bytes of answers and events that were written at once."""
        return self.session.feed.written_at_once

    def full(self) -> None:
        """There is no room."""
        self.session.feed.shut()

    def writable(self) -> None:
        """There is room again."""
        self.wake()
        self._open_way()

    def lost(self) -> None:
        """The connection is gone."""
        self.close_lanes()
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
                await self._ws.close(code=code, message=frames.whole(reason))
                while not self._outlet.is_lost:
                    await self._wait_for_progress(None)
        self.abort()

    async def _break_off(self, code: int) -> None:
        """Close, where what the peer sends is read no more: it is taken all the same, or its system would be reset."""
        open_lane(self._ws, None)
        await self._rest()
        transport = self._outlet.transport
        if transport.is_closing() or not transport.can_write_eof():  # TLS cannot
            await self.end(code, '')  # which takes what the peer sends until it goes, or the time is over
            return
        self.close_lanes()
        transport.write(frames.header(frames.CLOSE, 2) + code.to_bytes(2, 'big'))
        transport.write_eof()
        deadline = self._loop.time() + GIVE_UP
        while not self._outlet.is_lost and (left := deadline - self._loop.time()) > 0:
            await self._wait_for_progress(left)
        self.abort()

    def abort(self) -> None:
        """End it now."""
        self.close_lanes()
        for task in (self._tasks or set()) - {asyncio.current_task()}:
            task.cancel()
        if not self._outlet.is_lost:
            self._outlet.abort()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks = self._tasks or set()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
