"""WebSocket frames as a server sends them: whole, and never masked (RFC 6455 section 5.2)."""

from __future__ import annotations

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SHORT = tuple(bytes((0x80 | TEXT, size)) for size in range(126))  # headers of texts, by their size


def header(opcode: int, size: int) -> bytes:
    """The header of a frame."""
    if size < 126:
        return bytes((0x80 | opcode, size))
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, 'big')
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, 'big')


def text(message: bytes) -> bytes:
    """A text as one frame."""
    size = len(message)
    return (SHORT[size] if size < 126 else header(TEXT, size)) + message


def opened(frame: bytes) -> tuple[int, bytes]:
    """The opcode and the message of a frame."""
    return frame[0] & 0x0F, frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def whole(reason: str) -> bytes:
    """As much of a reason as a close may have (RFC 6455 section 5.5), to the end of a letter."""
    return reason.encode()[:123].decode(errors='ignore').encode()
