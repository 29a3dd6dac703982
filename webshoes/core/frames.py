"""WebSocket frames as a server sends them: whole, and never masked (RFC 6455 section 5.2)."""

from __future__ import annotations

from collections.abc import Sequence

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SHORT = tuple(bytes((0x80 | TEXT, size)) for size in range(126))  # headers of texts, by their size


def kind(message: bytes | bytearray) -> int:
    """A message is a text, but for a `bytearray`."""
    return BINARY if isinstance(message, bytearray) else TEXT


def header(opcode: int, size: int) -> bytes:
    """The header of a frame."""
    if size < 126:
        return bytes((0x80 | opcode, size))
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, 'big')
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, 'big')


def frames(messages: Sequence[bytes | bytearray]) -> bytes:
    """Messages, each as one frame."""
    parts: list[bytes | bytearray] = []
    for message in messages:
        size = len(message)
        parts.append(SHORT[size] if size < 126 and type(message) is bytes else header(kind(message), size))
        parts.append(message)
    return b''.join(parts)


def whole(reason: str) -> bytes:
    """As much of a reason as a close may have (RFC 6455 section 5.5), to the end of a letter."""
    return reason.encode()[:123].decode(errors='ignore').encode()
