"""Framing of answers: each has one head, and exactly the body that its head declares (RFC 9112 section 6)."""

from __future__ import annotations

import asyncio
from typing import Any

from webshoes.transports.compat import StreamWriter


class Writer(StreamWriter):
    """aiohttp's writer of one answer, which also cuts what is too long and knows what is missing.

    Args:
        protocol: the connection.
        loop: the server's loop.
        method: the request's.

    Attributes:
        has_begun: whether there is a head.
    """

    def __init__(self, protocol: Any, loop: asyncio.AbstractEventLoop, method: str) -> None:
        super().__init__(protocol, loop)
        self.has_begun = False
        self._is_empty = method == 'HEAD'

    async def write_headers(self, status_line: str, headers: Any) -> None:
        """Begin an answer.

        Raises:
            ConnectionError: another one has begun, so that the client would take this one for its body.
        """
        if self.has_begun:
            raise ConnectionResetError('an answer has begun already')
        self.has_begun = True
        status = status_line.split()[1]
        if self._is_empty or status[0] == '1' or status in ('204', '304'):
            self._is_empty, self.chunked, self.length = True, False, 0
        await super().write_headers(status_line, headers)

    async def write_eof(self, chunk: bytes = b'') -> None:
        """End the answer, with the last bytes of its body."""
        if self._is_empty:
            self.set_eof()
            return
        if self.length is not None:
            chunk = chunk[: self.length]
            self.length -= len(chunk)
        await super().write_eof(chunk)

    @property
    def owed(self) -> int | None:
        """Bytes of the body that the client still waits for; `None` if it waits for the end of the connection."""
        return 0 if self.chunked else self.length
