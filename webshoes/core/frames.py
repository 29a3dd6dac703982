"""WebSocket frames as a server sends them: whole, and never masked (RFC 6455 section 5.2)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

BIG = 64 * 1024  # bytes; a longer message is announced to clients that know the subprotocol
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SHORT = tuple(bytes((0x80 | TEXT, size)) for size in range(126))  # headers of texts, by their size


def header(opcode: int, size: int) -> bytes:
    """The header of a frame."""
    if size < 126:
        return bytes((0x80 | opcode, size))
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, 'big')
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, 'big')


text_header = partial(header, TEXT)
"""Return the header of a text of so many bytes."""


def announcing_header(size: int) -> bytes:
    """Return the header of a text of so many bytes; before that of a big one a text that announces it."""
    if size <= BIG:
        return header(TEXT, size)
    notice = b'{"coming":%d}' % size
    return SHORT[len(notice)] + notice + header(TEXT, size)


def opened(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the opcode and the message of each frame in `data`, which holds whole frames."""
    start = 0
    while start < len(data):
        size, begin = data[start + 1], start + 2
        if size >= 126:
            begin += 2 if size == 126 else 8
            size = int.from_bytes(data[start + 2 : begin], 'big')
        yield data[start] & 0x0F, data[begin : begin + size]
        start = begin + size


def whole(reason: str) -> bytes:
    """As much of a reason as a close may have (RFC 6455 section 5.5), to the end of a letter."""
    return reason.encode()[:123].decode(errors='ignore').encode()
