"""An HTTP connection that has become a WebSocket (RFC 6455 section 4): the loop gives its bytes to what reads frames.

No step of Python stands between the two; all else that the loop tells goes to the connection as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

BROKEN = b'\xff\xff'  # no frame: the reader refuses it with 1002, as it should one that is not masked

Take = Callable[[bytes], object]


class EarlyFrames:
    """Keeps the frames that came right behind a handshake; aiohttp feeds them to its parser when it is given one."""

    def __init__(self, parser: Any) -> None:
        self.data = b''
        self.feed_eof = parser.feed_eof

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Keep bytes."""
        self.data += data
        return False, b''


class Upgraded(asyncio.BaseProtocol):
    """The protocol of a transport from here on.

    Args:
        connection: the protocol that it was.
        transport: of both.
        feed: takes the bytes of frames.
        before: bytes that came behind the handshake.

    Attributes:
        data_received: takes bytes.
    """

    __slots__ = ('_connection', '_is_counted', '_received', '_take', '_transport', '_within', 'data_received')

    def __init__(self, connection: asyncio.Protocol, transport: asyncio.Transport, feed: Take, before: bytes) -> None:
        self._connection = connection
        self._transport = transport
        self._within: Callable[..., object] | None = None  # where bytes are taken
        self._is_counted = False
        self._received = 0
        self._begin(feed, before)

    def _begin(self, feed: Take, data: bytes) -> None:
        """Refuse frames that are not masked (RFC 6455 section 5.1), which aiohttp does not: by the first one."""
        if len(data) < 2:
            self._take: Take = lambda more: self._begin(feed, data + more)
            self._listen()
            return
        self._take = feed
        self._listen()
        feed(data if data[1] & 0x80 else BROKEN)

    def _listen(self) -> None:
        take = self._take
        if self._within is not None:
            take = partial(self._within, take)
        if self._is_counted:
            take = partial(self._take_counted, take)
        self.data_received: Take = take
        if not self._transport.is_closing():
            self._transport.set_protocol(self)  # again, as uvloop looks up once what takes bytes

    def _take_counted(self, take: Take, data: bytes) -> None:
        self._received += len(data)
        take(data)

    def take_within(self, run: Callable[..., object]) -> None:
        """Have what comes from here on taken by `run(take, data)`."""
        self._within = run
        self._listen()

    def count(self, go_on: bool) -> int:
        """How many bytes came since this was last asked to go on counting, which takes a step of Python for each."""
        received, self._received = self._received, 0
        if go_on != self._is_counted:
            self._is_counted = go_on
            self._listen()
        return received

    def eof_received(self) -> bool | None:
        """The peer sends no more."""
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        """The transport holds more than its high-water mark."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._connection.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._connection.connection_lost(exc)  # type: ignore[arg-type]
