"""The fast lane: a WebSocket's message is taken where its bytes arrive, and no task is woken for it.

It stands on `compat.MessageQueue`. Where that does not work, `SlowLane` carries everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Literal, Protocol

from aiohttp import EofStream, WSMessage, WSMsgType, web

from webshoes.transports.compat import MessageQueue, QueuedWebSocket

Take = Callable[[Any], bool]


class Speaker(Protocol):
    """The part of a WebSocket's peer that a lane needs."""

    async def wait_for_turn(self) -> None:
        """Wait until what is being answered is sent: a handler may have begun at once."""

    def close_lanes(self) -> None:
        """It begins to be closed."""


class SlowLane(web.WebSocketResponse[Literal[False]]):
    """A WebSocket on aiohttp's public API alone.

    Attributes:
        speaker: who speaks over it, once it is open.
        order: held by each sender where messages are compressed, because sending one may then take a while. Messages
            that are sent in one hold stay together.
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


class Lane(MessageQueue):
    """The message queue of one WebSocket. A message bypasses it if `take` accepts it and no earlier one is waiting.

    If somebody awaits `read`, a message goes to that reader directly, and the queue stays small.

    The message that was read last counts as queued until `read` is called again, because only then has it been handled.
    Inside `read`, aiohttp may parse bytes that it kept back. The messages in them must not overtake the one being read.

    Attributes:
        take: takes a message at once, or says that it cannot be.
    """

    __slots__ = ('_is_over', '_is_read', '_queued', '_reading', 'take')

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.take: Take | None = None
        self._reading: asyncio.Future[Any] | None = None  # of who waits for a message
        self._is_read = False  # whether a message was read that counts as queued
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
        self.put(message, size)

    def set_exception(self, exc: BaseException, *cause: Any) -> None:
        """Queue a malformed frame as the last message. As an exception it would make `receive` close in haste."""
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
            return self.get()
        if self._is_over:
            raise EofStream
        self._reading = self.loop.create_future()
        return self._reading


class FastLane(SlowLane, QueuedWebSocket):
    """A WebSocket whose messages go over a lane."""

    def make_queue(self, connection: Any) -> Lane:
        """Return the lane of a connection."""
        return Lane(connection)


def open_lane(ws: SlowLane, take: Take | None) -> None:
    """Have messages taken where their bytes arrive, if there is a lane; `None` ends that."""
    if isinstance(ws, FastLane) and ws.queue is not None:
        ws.queue.take = take
