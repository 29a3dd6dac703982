"""The fast lane: a WebSocket's message is taken where its bytes arrive, and no task is woken for it.

It stands on what aiohttp (3.14) does, and does not promise:

1. `aiohttp._websocket.reader.WebSocketReader(queue, ...)` hands each message to `queue.feed_data(message, size)`, be it
   compiled or not, also where that is overridden.
2. `WebSocketResponse.prepare` assigns a `WebSocketDataQueue` to `self._reader`, and gives what `self._reader` then is
   to the reader; `receive` and `close` read from it.

`IS_OPEN` tells whether the first holds, which is tried at import; where the second does not, the lane is never asked.
Either way the slow lane, aiohttp's public API, carries everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from aiohttp import WSMessage, WSMsgType, web

try:
    from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
except ImportError:  # pragma: no cover  # an aiohttp of another make
    WebSocketDataQueue = WebSocketReader = object  # type: ignore[assignment]

Take = Callable[[Any], bool]


class SlowLane(web.WebSocketResponse[Literal[False]]):
    """A WebSocket on aiohttp's public API alone.

    Attributes:
        turn: waits until what is being answered is sent: a handler that sends or closes may have begun at once.
        on_close: called when it begins to be closed.
    """

    turn: Callable[[], Awaitable[None]] | None = None
    on_close: Callable[[], None] | None = None

    async def send_str(self, data: str, compress: int | None = None) -> None:
        """Send a text."""
        if self.turn is not None:
            await self.turn()
        await super().send_str(data, compress)

    async def send_bytes(self, data: bytes, compress: int | None = None) -> None:
        """Send a binary message."""
        if self.turn is not None:
            await self.turn()
        await super().send_bytes(data, compress)

    async def close(self, *, code: int = 1000, message: bytes = b'', drain: bool = True) -> bool:
        """Close it."""
        if self.turn is not None:
            await self.turn()
        if self.on_close is not None:
            self.on_close()
        return await super().close(code=code, message=message, drain=drain)


class Lane(WebSocketDataQueue):
    """The queue of one WebSocket's messages, around which they go where nobody has to wait.

    Attributes:
        take: takes a message at once, or says that it cannot be.
    """

    __slots__ = ('_queued', '_way', 'take')

    def __init__(self, protocol: Any, limit: int, loop: Any) -> None:
        super().__init__(protocol, limit, loop=loop)
        self.take: Take | None = None
        self._way: Take | None = None  # the same, where nothing is queued
        self._queued = 0

    def open(self, take: Take | None) -> None:
        """Have messages taken."""
        self.take = take
        self._way = None if self._queued else take

    def feed_data(self, message: Any, size: int) -> None:
        """A message has come: what has to wait, and what comes after it, is queued."""
        way = self._way
        if way is None or not way(message):
            self._way = None
            self._queued += 1
            super().feed_data(message, size)

    def set_exception(self, exc: BaseException, *cause: Any) -> None:
        """What came is no frame: the last message. As an exception it would have `receive` close in haste."""
        self.feed_data(WSMessage(WSMsgType.ERROR, exc, None), 0)

    async def read(self) -> Any:
        """The next message of the queue."""
        message = await super().read()
        self._queued -= 1
        if not self._queued:
            self._way = self.take
        return message


class FastLane(SlowLane):
    """A WebSocket whose messages go over a lane."""

    lane: Lane | None = None

    @property
    def _reader(self) -> Any:
        return self.lane

    @_reader.setter
    def _reader(self, queue: Any) -> None:
        self.lane = Lane(queue._protocol, queue._limit // 2, asyncio.get_running_loop())


def open_lane(ws: SlowLane, take: Take | None) -> None:
    """Have messages taken where their bytes arrive, if there is a lane; `None` ends that."""
    if isinstance(ws, FastLane) and ws.lane is not None:
        ws.lane.open(take)


def _is_open() -> bool:
    """Whether a reader hands its messages to a lane."""
    taken: list[Any] = []
    try:
        lane = Lane(None, 0, None)
        lane.open(lambda message: not taken.append(message))  # type: ignore[func-returns-value]
        WebSocketReader(lane, 0, compress=False, decode_text=False).feed_data(b'\x81\x81\0\0\0\0a')
    except Exception:  # pragma: no cover  # as above
        return False
    return [(message.type, message.data) for message in taken] == [(WSMsgType.TEXT, b'a')]


IS_OPEN = _is_open()
