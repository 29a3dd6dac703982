"""Finds out whether a client that sends no more still waits for its answer.

A client that has shut down its writing side (`nc -N`) and one that has gone look the same to TCP until something is
sent to them: the system of the second answers with a reset, and the next write fails. So the server begins the answer
early, a byte at a time. All answers begin with the same bytes (RFC 9112 section 4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

BEGINNING = b'HTTP/1.'
FIRST = 0.05  # seconds before the first byte is sent
SLOWER = 4  # times as long before each of the others


class Connection(Protocol):
    """An HTTP connection, whose answers are written to its `transport`."""

    transport: asyncio.Transport | None


class Probe:
    """Sends the first bytes of an answer. It is the connection's transport until the rest follows.

    Args:
        loop: of the connection.
        connection: whose client sends no more, and waits for an answer.
        writer: of that answer, which counts in `output_size` what it has written.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection, writer: Any) -> None:
        self._loop = loop
        self._connection = connection
        self._transport: Any = connection.transport
        self._writer = writer
        self._sent = 0
        self._timer = loop.call_later(FIRST, self._send, FIRST)

    def stop(self) -> None:
        """Send no more: the answer is about to be written."""
        self._timer.cancel()

    def _send(self, delay: float) -> None:
        if self._writer.output_size or self._connection.transport is None:
            return  # the handler writes its answer itself, and sees whether that fails; or the client has gone
        self._connection.transport = self  # type: ignore[assignment]
        self._transport.write(BEGINNING[self._sent : self._sent + 1])
        self._sent += 1
        if self._sent < len(BEGINNING):
            self._timer = self._loop.call_later(delay * SLOWER, self._send, delay * SLOWER)

    def write(self, data: bytes) -> None:
        """Write the answer, without the bytes that were sent."""
        self.stop()
        self._connection.transport = self._transport
        self._transport.write(bytes(data)[self._sent :])

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Write the answer, without the bytes that were sent."""
        self.write(b''.join(chunks))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
