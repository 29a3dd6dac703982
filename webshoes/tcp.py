"""How far the bytes of a connection have come, asked of the kernel, and socket options."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from typing import Any

NOTSENT = 16 * 1024  # bytes that the kernel holds unsent: with its usual megabytes a slow reader looks like a dead one
# Of Linux' `struct tcp_info`, which grows at its end: tcpi_bytes_acked (Linux 4.1) and tcpi_notsent_bytes (4.6).
_INFO = struct.Struct('=120xQ16xI')


def delivery(connection: Any) -> tuple[int, int]:
    """Return how far the bytes of a connection have come.

    Args:
        connection: its socket, as the transport has it, or `None`.

    Returns:
        How many bytes the peer's system has acknowledged, and how many wait in the kernel to be sent. Of a Unix domain
        socket 0, and how many the peer has not read. Both are 0 where the kernel does not say: on systems other than
        Linux, or of a socket that is closed.
    """
    if sys.platform == 'linux' and connection is not None:
        with suppress(OSError, ValueError, struct.error):
            if is_unix(connection):
                return 0, _unread(connection)
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            acknowledged, unsent = _INFO.unpack(info)
            return acknowledged, unsent
    return 0, 0


def _unread(connection: Any) -> int:
    from fcntl import ioctl  # here, so that an import of webshoes does not load what only Unix domain sockets need
    from termios import TIOCOUTQ

    return int.from_bytes(ioctl(connection.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)


def keep_queue_short(connection: Any) -> None:
    """Have the kernel hold at most `NOTSENT` unsent bytes of a connection."""
    option = getattr(socket, 'TCP_NOTSENT_LOWAT', None)  # Linux and macOS have it
    if connection is None:
        return
    with suppress(OSError):  # it is closed already
        if is_unix(connection):  # or what a slow reader takes is seen only every 100 kB
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NOTSENT)
        elif option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, NOTSENT)


def is_unix(connection: Any) -> bool:
    """Return whether a socket is a Unix domain socket."""
    return hasattr(socket, 'AF_UNIX') and connection.family == socket.AF_UNIX


def reset_when_closed(connection: Any) -> None:
    """Have the kernel drop what it has not sent when a connection is closed, instead of trying to send it."""
    if connection is not None:
        with suppress(OSError, ValueError):  # it is closed already, as asyncio or uvloop tells it
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
