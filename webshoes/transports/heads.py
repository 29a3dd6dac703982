"""Answers that are written at once, head and all: most of what aiohttp does for a head comes to the same each time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate


class Heads:
    """Makes answers with status 200 and the same headers, over HTTP/1.1, on a connection that goes on.

    The head is made anew each second (`Date`, RFC 9110 section 6.6.1).

    Args:
        headers: what all of them have.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        lines = [f'{name}: {value}' for name, value in headers.items()]
        self._lines = '\r\n'.join(['HTTP/1.1 200 OK', *lines])
        self._head = b''
        self._second = 0

    def answer(self, body: bytes) -> bytes:
        """An answer."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            date = formatdate(now, usegmt=True)
            self._head = f'{self._lines}\r\nDate: {date}\r\nContent-Length: '.encode()
        return b'%b%d\r\n\r\n%b' % (self._head, len(body), body)
