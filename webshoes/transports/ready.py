"""Answers that are written at once, head and all: most of what aiohttp does for a head comes to the same each time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate

from aiohttp import web


class Ready(web.StreamResponse):
    """An answer to a request over HTTP/1.1 on a connection that goes on; aiohttp's server asks no more of it than this.

    Args:
        data: the answer as it is sent.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def keep_alive(self) -> bool:
        """Whether the connection goes on."""
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send it."""
        if request.transport is None:
            raise ConnectionResetError('the client has left')
        request.transport.write(self._data)
        if request.protocol.writing_paused:
            await request.writer.drain()

    async def write_eof(self, data: bytes = b'') -> None:
        """Nothing is left to send."""


class Heads:
    """Makes answers with status 200 and the same headers, made anew each second (`Date`, RFC 9110 section 6.6.1).

    Args:
        headers: what all of them have.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        lines = [f'{name}: {value}' for name, value in headers.items()]
        self._lines = '\r\n'.join(['HTTP/1.1 200 OK', *lines])
        self._head = b''
        self._second = 0

    def answer(self, body: bytes) -> Ready:
        """An answer."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            date = formatdate(now, usegmt=True)
            self._head = f'{self._lines}\r\nDate: {date}\r\nContent-Length: '.encode()
        return Ready(b'%b%d\r\n\r\n%b' % (self._head, len(body), body))
