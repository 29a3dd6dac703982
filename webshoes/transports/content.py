"""Answers with the content of a file: the whole, ranges of it, or only that it has not changed (RFC 9110)."""

from __future__ import annotations

import secrets
import time
from email.utils import formatdate
from functools import partial
from typing import Any

from aiohttp import web
from msgspec import Struct

from webshoes.core.conditions import Validators, allows_range, failed_condition
from webshoes.core.errors import Error
from webshoes.core.ranges import Span, read_ranges
from webshoes.headers import HEADERS, field
from webshoes.pool import in_server_thread
from webshoes.transports.disk import OpenFile
from webshoes.transports.refusals import answer

CHUNK = 256 * 1024  # bytes that are read and written at once

Piece = bytes | Span


class Content(Struct, frozen=True):
    """The content of a file, and what is said of it.

    Args:
        source: its bytes, or the file that has them.
        size: how many bytes it has.
        content_type: with the charset.
        coding: the content coding of the bytes; `''` for none.
        validators: the entity tag and the date of this very content, in this coding.
        varies: whether other clients get it in another coding.
        cache: the value of `Cache-Control`; `''` for none.
    """

    source: bytes | OpenFile
    size: int
    content_type: str
    coding: str
    validators: Validators
    varies: bool
    cache: str = ''

    async def read(self, start: int, size: int) -> bytes:
        """Return up to `size` bytes from `start` on; none where a file has become shorter, or cannot be read."""
        if isinstance(self.source, bytes):
            return self.source[start : start + size]
        try:
            return await in_server_thread(self.source.read, start, size)
        except OSError:
            return b''


def respond(request: web.BaseRequest, content: Content) -> web.StreamResponse:
    """Return the answer to a request for a content.

    Raises:
        Error: 412, the client expects another version.
    """
    now = time.time()
    get = partial(field, request.headers)
    headers = _headers(content, now)
    ended = failed_condition(request.method, get, content.validators)
    if ended == 412:
        raise Error(412, 'The file is not the version that the request expects')
    if ended:
        return web.StreamResponse(status=ended, headers=headers)
    headers['Accept-Ranges'] = 'bytes'
    spans = None
    asked = get('Range') if request.method == 'GET' else None
    if asked is not None and allows_range(get('If-Range'), content.validators, now):
        spans = read_ranges(asked, content.size)
    if spans == []:
        size = {'Content-Range': f'bytes */{content.size}'}
        return answer(Error(416, f'The file has no such bytes: its size is {content.size}'), size)
    if content.coding:
        headers['Content-Encoding'] = content.coding
    return _Sending(200 if spans is None else 206, headers, content, spans or [Span(0, content.size)])


def _headers(content: Content, now: float) -> dict[str, str]:
    validators = content.validators
    headers = {**HEADERS, 'ETag': validators.etag}
    if content.varies:
        headers['Vary'] = 'Accept-Encoding'
    if validators.modified is not None:
        headers['Last-Modified'] = formatdate(min(validators.modified, int(now)), usegmt=True)  # section 8.8.2.1
    if content.cache:
        headers['Cache-Control'] = content.cache
    return headers


class _Sending(web.StreamResponse):
    """An answer that sends spans of a content; more than one as parts of `multipart/byteranges` (section 14.6)."""

    def __init__(self, status: int, headers: dict[str, str], content: Content, spans: list[Span]) -> None:
        super().__init__(status=status, headers=headers)
        pieces: list[Piece] = [*spans]
        self.headers['Content-Type'] = content.content_type
        if len(spans) > 1:
            boundary = secrets.token_hex(16)
            self.headers['Content-Type'] = f'multipart/byteranges; boundary={boundary}'
            pieces = _parts(content, spans, boundary)
        elif status == 206:
            self.headers['Content-Range'] = spans[0].content_range(content.size)
        self.content_length = sum(piece.size if isinstance(piece, Span) else len(piece) for piece in pieces)
        self._content = content
        self._pieces = pieces

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Send the head."""
        if request.method == 'HEAD':
            self._pieces = []
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b'') -> None:
        """Send the body, up to where the content ends too early, and end the answer."""
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            if isinstance(piece, bytes):
                await self.write(piece)
            elif not await self._write_span(piece):
                break
        await super().write_eof(data)

    async def _write_span(self, span: Span) -> bool:
        """Send a span; whether it was all there."""
        start = span.start
        while start < span.stop:
            chunk = await self._content.read(start, min(CHUNK, span.stop - start))
            if not chunk:
                return False
            await self.write(chunk)
            start += len(chunk)
        return True


def _parts(content: Content, spans: list[Span], boundary: str) -> list[Piece]:
    pieces: list[Piece] = []
    for span in spans:
        lines = f'Content-Type: {content.content_type}', f'Content-Range: {span.content_range(content.size)}'
        pieces += ['\r\n'.join(('', f'--{boundary}', *lines, '', '')).encode(), span]
    return [*pieces, f'\r\n--{boundary}--\r\n'.encode()]
