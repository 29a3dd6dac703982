"""The fast lane: a WebSocket's message is taken where its bytes arrive, and no task is woken for it.

It stands on what aiohttp (3.14) does, and does not promise:

1. `aiohttp._websocket.reader.WebSocketReader(queue, ...)` hands each message to `queue.feed_data(message, size)`, be it
   compiled or not, also where that is overridden, and its end to `queue.feed_eof()`.
2. It asks nothing of a queue that was not initialized but whether it holds too much, and that it does not.
3. `WebSocketResponse.prepare` assigns a `WebSocketDataQueue` to `self._reader`, and gives what `self._reader` then is
   to the reader; `receive` and `close` await `self._reader.read()`, one at a time.

`IS_OPEN` tells whether the first two hold, which is tried at import; where the third does not, the lane is never asked.
Either way the slow lane, aiohttp's public API, carries everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Literal, Protocol

from aiohttp import EofStream, WSMessage, WSMsgType, web

try:
    from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
except ImportError:  # pragma: no cover  # an aiohttp of another make
    WebSocketDataQueue = WebSocketReader = object  # type: ignore[assignment]

LIMIT = 256 * 1024  # bytes of queued messages, before no more frames are read

Take = Callable[[Any], bool]


class Speaker(Protocol):
    """Who speaks over a WebSocket, beside the handlers that send or close."""

    async def wait_for_turn(self) -> None:
        """Wait until what is being answered is sent: a handler may have begun at once."""

    def close_lanes(self) -> None:
        """It begins to be closed."""


class SlowLane(web.WebSocketResponse[Literal[False]]):
    """A WebSocket on aiohttp's public API alone.

    Attributes:
        speaker: who speaks over it, once it is open.
        order: is held by whoever sends, where messages are compressed and sending one may take a while. What is sent in
            one hold stays together.
    """

    speaker: Speaker | None = None
    order: AbstractAsyncContextManager[None] = nullcontext()

    async def send_str(self, data: str, compress: int | None = None) -> None:
        """Send a text."""
        if self.speaker is not None:
            await self.speaker.wait_for_turn()
        async with self.order:
            await super().send_str(data, compress)

    async def send_bytes(self, data: bytes, compress: int | None = None) -> None:
        """Send a binary message."""
        if self.speaker is not None:
            await self.speaker.wait_for_turn()
        async with self.order:
            await super().send_bytes(data, compress)

    async def close(self, *, code: int = 1000, message: bytes = b'', drain: bool = True) -> bool:
        """Close it."""
        if self.speaker is not None:
            await self.speaker.wait_for_turn()
            self.speaker.close_lanes()
        return await super().close(code=code, message=message, drain=drain)


class Lane(WebSocketDataQueue):
    """The message queue of one WebSocket. A message bypasses it if `take` accepts it and no earlier one is waiting.

    The queue is initialized when it first queues something, because that takes a kilobyte. If somebody awaits `read`,
    the message goes to that reader directly.

    The message that was read last counts as queued until `read` is called again, because only then has it been handled.
    Inside `read`, aiohttp may parse bytes that it kept back. The messages in them must not overtake the one being read.

    Attributes:
        take: takes a message at once, or says that it cannot be.
    """

    __slots__ = ('_is_over', '_is_queue', '_is_read', '_queued', '_reading', 'take')

    _size = _limit = 0  # until it is initialized; compiled, they are so by themselves

    def __init__(self, protocol: Any) -> None:
        self.take: Take | None = None
        self._protocol = protocol
        self._reading: asyncio.Future[Any] | None = None  # of who waits for a message
        self._is_read = False  # whether a message was read that counts as queued
        self._is_queue = False
        self._is_over = False
        self._queued = 0  # messages, with the one that was read last

    def feed_data(self, message: Any, size: int) -> None:
        """Hand a message to `take`, or queue it if `take` refuses it or earlier messages wait."""
        take = self.take
        if take is None or self._queued or not take(message):
            self._put(message, size)

    def _put(self, message: Any, size: int) -> None:
        self._queued += 1
        reading, self._reading = self._reading, None
        if reading is not None and not reading.done():
            self._is_read = True
            reading.set_result(message)
            return
        if not self._is_queue:
            self._is_queue = True
            super().__init__(self._protocol, LIMIT, loop=asyncio.get_running_loop())
        super().feed_data(message, size)

    def set_exception(self, exc: BaseException, *cause: Any) -> None:
        """What came is no frame: the last message. As an exception it would have `receive` close in haste."""
        self.feed_data(WSMessage(WSMsgType.ERROR, exc, None), 0)

    def feed_eof(self) -> None:
        """Nothing comes any more."""
        self._is_over = True
        reading, self._reading = self._reading, None
        if reading is not None and not reading.done():
            reading.set_exception(EofStream())

    def read(self) -> Any:
        """The next message, to be awaited."""
        if self._is_read:
            self._is_read = False
            self._queued -= 1
        if self._queued:
            self._is_read = True
            return super().read()
        if self._is_over:
            raise EofStream
        self._reading = asyncio.get_running_loop().create_future()
        return self._reading


class FastLane(SlowLane):
    """A WebSocket whose messages go over a lane."""

    lane: Lane | None = None

    @property
    def _reader(self) -> Any:
        return self.lane

    @_reader.setter
    def _reader(self, queue: Any) -> None:
        self.lane = Lane(queue._protocol)


def open_lane(ws: SlowLane, take: Take | None) -> None:
    """Have messages taken where their bytes arrive, if there is a lane; `None` ends that."""
    if isinstance(ws, FastLane) and ws.lane is not None:
        ws.lane.take = take


def _is_open() -> bool:
    """Whether a reader hands its messages to a lane."""
    taken: list[Any] = []
    try:
        lane = Lane(None)
        lane.take = lambda message: not taken.append(message)  # type: ignore[func-returns-value]
        reader = WebSocketReader(lane, 0, compress=False, decode_text=False)
        reader.feed_data(b'\x81\x81\0\0\0\0a')
        reader.feed_eof()
    except Exception:  # pragma: no cover  # as above
        return False
    return lane._is_over and [(message.type, message.data) for message in taken] == [(WSMsgType.TEXT, b'a')]


IS_OPEN = _is_open()
