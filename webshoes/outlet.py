"""The way out of a connection that lives long: how much waits on it, and whether the peer takes any of it."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, Protocol

from webshoes.core.feed import headroom

NOTSENT = 16 * 1024  # bytes that the kernel holds unsent: with its usual megabytes a slow reader looks like a dead one
LOOKS = 4  # how often within `stall_timeout` it is looked at
TCP_INFO = struct.Struct('=120xQ16xI')  # Linux' tcp_info: bytes_acked, notsent_bytes


class Sender(Protocol):
    """Who sends over an outlet; called on the loop."""

    @property
    def written(self) -> int:
        """Bytes that were written, and that the outlet was not told of."""

    def full(self) -> None:
        """There is no room."""

    def writable(self) -> None:
        """There is room again."""

    def stalled(self) -> None:
        """The peer has taken nothing for `stall_timeout`."""

    def lost(self) -> None:
        """The connection is gone."""


class HasOutlet(Protocol):
    """The protocol of a connection that may live long, which tells its outlet what asyncio tells it."""

    outlet: Outlet | None
    is_half_closed: bool

    def take_frames_within(self, run: Callable[..., object]) -> None:
        """Have the bytes of frames that come from here on taken by `run(take, data)`."""

    def count_frame_bytes(self, go_on: bool) -> int:
        """How many bytes of frames came since this was last asked to go on."""


class Outlet:
    """One connection's way out. Its protocol tells it what asyncio tells a protocol (`pause`, `resume`, `lose`).

    Args:
        transport: what bytes are written to, by the sender.
        send_buffer: bytes that may wait in the transport; its `headroom` is kept free.
        sender: who sends.
        stalls: watches whether the peer takes anything.

    Attributes:
        on_half_close: called when the peer sends no more, if that matters to the sender.
    """

    __slots__ = (
        '_high',
        '_is_tls',
        '_socket',
        '_stalls',
        'is_lost',
        'is_paused',
        'on_half_close',
        'passed',
        'sender',
        'transport',
    )

    def __init__(self, transport: asyncio.WriteTransport, send_buffer: int, sender: Sender, stalls: Stalls) -> None:
        high = send_buffer - headroom(send_buffer)
        transport.set_write_buffer_limits(high=high)
        _keep_kernel_queue_short(transport)
        self.transport = transport
        self._socket: Any = transport.get_extra_info('socket')
        self._is_tls = transport.get_extra_info('ssl_object') is not None
        self.sender = sender
        self.is_paused = waiting_in(transport) > high  # which is what an earlier answer has left
        self.is_lost = False
        self.on_half_close: Callable[[], None] | None = None
        self.passed = 0  # bytes
        self._high = high
        self._stalls = stalls
        stalls.outlets.add(self)
        if self.is_paused:
            stalls.watch(self)

    @property
    def buffered(self) -> int:
        """Bytes that wait in the transport; from any thread."""
        return waiting_in(self.transport)

    @property
    def is_blocked(self) -> bool:
        """Whether nothing may be written until there is room again, or, on the way to its end, nothing ever."""
        return self.is_paused or self.is_lost or self.transport.is_closing()

    @property
    def room(self) -> int:
        """Bytes that may be written now: at least 1 where anything may."""
        if self.is_paused or self.is_lost or self.transport.is_closing():
            return 0
        room = self._high + 1 - self.transport.get_write_buffer_size()
        return room if room > 0 else 0

    @property
    def progress(self) -> tuple[int, int]:
        """How many bytes were taken, from whatever point on, and how many wait.

        Under TLS the transport below holds some that no loop tells of, and takes more only when it is nearly empty: so
        the kernel is asked, where it can be.
        """
        waiting = self.buffered
        if self._is_tls and sys.platform == 'linux':
            with suppress(OSError, ValueError, struct.error):  # it is gone already; the kernel is an old one
                info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
                taken, unsent = TCP_INFO.unpack(info)
                return taken, waiting + unsent
        return self.passed + self.sender.written - waiting, waiting

    def passes(self, size: int) -> None:
        """So many bytes were written."""
        self.passed += size
        if self not in self._stalls.watched:
            self._stalls.watch(self)

    def abort(self) -> None:
        """End the connection now, so that the kernel does not go on trying to send what nobody takes."""
        if self._socket is not None:
            with suppress(OSError, ValueError):  # it is gone already, as asyncio or uvloop tells it
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        end(self.transport, self._socket)

    def pause(self) -> None:
        """There is no room: what waits is to be taken, in whatever way it was written."""
        self.is_paused = True
        self.sender.full()
        self._stalls.watch(self)

    def leave(self) -> None:
        """The sender has done; what follows on the same connection is not counted here."""
        self._stalls.forget(self)

    def resume(self) -> None:
        """There is room again."""
        self.is_paused = False
        self.sender.writable()

    def lose(self) -> None:
        """The connection is gone."""
        self.is_lost = True
        self._stalls.forget(self)
        self.sender.lost()


def waiting_in(transport: asyncio.WriteTransport) -> int:
    """Bytes that wait in a transport; from any thread."""
    for _ in range(10):
        try:
            return transport.get_write_buffer_size()
        except RuntimeError:  # asyncio sums up a deque, which changes meanwhile on the loop's own thread
            continue
        except AttributeError:  # under TLS asyncio's has let go of what it holds when it was closed twice
            return 0
    return 0  # pragma: no cover  # it changed ten times in a row


def end(transport: asyncio.WriteTransport, connection: Any) -> None:
    """End a connection now; `connection` is its socket, for a transport that has let go of it."""
    try:
        transport.abort()
        transport.get_write_buffer_size()
    except AttributeError:  # as above: what is left of it goes on alone, unless it cannot
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _keep_kernel_queue_short(transport: asyncio.WriteTransport) -> None:
    option = getattr(socket, 'TCP_NOTSENT_LOWAT', None)  # Linux and macOS have it
    connection: Any = transport.get_extra_info('socket')
    if option is not None and connection is not None:
        with suppress(OSError):  # it is gone already
            connection.setsockopt(socket.IPPROTO_TCP, option, NOTSENT)


class Stalls:
    """Finds the connections whose peer takes nothing; one timer, which runs only while anything may wait to be taken.

    What is written to many at once is not noted of each: they are all looked at, the next time.

    Args:
        timeout: seconds without any progress, `None` for never.

    Attributes:
        outlets: all connections.
        watched: those that are looked at; the most that each had taken, and since when it is no more.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self.outlets: set[Outlet] = set()
        self.watched: dict[Outlet, tuple[float, float]] = {}
        self._is_ticking = False
        self._is_for_all = False

    def watch(self, outlet: Outlet) -> None:
        """Look at a connection until its peer has taken all."""
        if self._timeout is None or outlet in self.watched:
            return
        self.watched[outlet] = -inf, self._loop.time()  # what an earlier answer has left was not counted
        if not self._is_ticking:
            self._look_later(self._timeout)

    def look_at_all(self) -> None:
        """Look at all connections once, and at those whose peer has not taken all until it has."""
        self._is_for_all = True
        if self._timeout is not None and not self._is_ticking:
            self._look_later(self._timeout)

    def forget(self, outlet: Outlet) -> None:
        """Look at a connection no more."""
        self.outlets.discard(outlet)
        self.watched.pop(outlet, None)

    def _look_later(self, timeout: float) -> None:
        self._is_ticking = True
        self._loop.call_later(timeout / LOOKS, self._look)

    def _look(self) -> None:
        assert self._timeout is not None
        now = self._loop.time()
        outlets, self._is_for_all = [*(self.outlets if self._is_for_all else self.watched)], False
        for outlet in outlets:
            most, since = self.watched.get(outlet, (-inf, now))
            taken, waiting = (0, 0) if outlet.is_lost else outlet.progress
            if not waiting:
                self.watched.pop(outlet, None)
            elif taken > most:
                self.watched[outlet] = taken, now
            elif now - since >= self._timeout:
                del self.watched[outlet]
                outlet.sender.stalled()
        self._is_ticking = False
        if self.watched or self._is_for_all:
            self._look_later(self._timeout)
