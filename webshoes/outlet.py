"""Flow control: room in the buffer of a long-lived connection, and detection of peers that stop reading."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, Protocol

from webshoes import tcp
from webshoes.core.feed import headroom

LOOKS = 4  # how often within `stall_timeout` a connection is looked at
GIVE_UP = 0.05  # seconds in which a file that is being sent notices that its connection is shut down


class Sender(Protocol):
    """The sender over an outlet; its methods are called on the loop."""

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
        self.transport = transport
        self._socket: Any = transport.get_extra_info('socket')
        tcp.keep_queue_short(self._socket)
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
        """Return whether nothing may be written until there is room again, or, on the way to its end, nothing ever."""
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
        """How much the peer has taken, a number that grows with each byte, and how many bytes wait.

        Under TLS the transport below holds some that no loop tells of: they count where the kernel has them.
        """
        if self.is_lost or not ((waiting := self.buffered) or self._is_tls):
            return 0, 0
        taken, unsent = self._taken(waiting)
        return taken, waiting + unsent if self._is_tls else waiting

    @property
    def taken(self) -> int:
        """How much the peer has taken, a number that grows with each byte."""
        return self._taken(self.buffered)[0]

    def _taken(self, waiting: int) -> tuple[int, int]:
        """Count what the peer's system has acknowledged; where the kernel does not say, what was sent."""
        acknowledged, unsent = tcp.delivery(self._socket)
        return acknowledged or self.passed + self.sender.written - waiting - unsent, unsent

    def stalled(self) -> None:
        """Tell the sender that its peer has taken nothing for `stall_timeout`."""
        self.sender.stalled()

    def passes(self, size: int) -> None:
        """So many bytes were written."""
        self.passed += size
        if self not in self._stalls.watched:
            self._stalls.watch(self)

    def abort(self) -> None:
        """End the connection now, so that the kernel does not go on trying to send what nobody takes."""
        tcp.reset_when_closed(self._socket)
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


def give_up(loop: asyncio.AbstractEventLoop, transport: asyncio.WriteTransport, connection: Any) -> None:
    """End a connection over which a file may be on its way, as `Outlet.abort` does.

    asyncio's `sendfile` waits for the socket itself. It would wait for ever if the transport closed that first; it is
    woken where the socket is shut down. uvloop has no `sendfile`, and its sockets have no `shutdown`.
    """
    tcp.reset_when_closed(connection)
    with suppress(OSError, TypeError):
        connection.shutdown(socket.SHUT_RDWR)
    loop.call_later(GIVE_UP, end, transport, connection)


class Watched(Protocol):
    """A connection whose peer may have stopped reading."""

    @property
    def progress(self) -> tuple[int, int]:
        """How much the peer has taken, a number that grows, and how many bytes wait; 0 of them: it is forgotten."""

    def stalled(self) -> None:
        """End the connection: the peer has taken nothing for `stall_timeout`."""


class Stalls:
    """Finds connections whose peer takes nothing, by one timer, which runs only while anything may wait to be taken.

    What is written to many outlets at once is noted for none of them: the next look is at all outlets.

    Args:
        timeout: seconds without any progress, `None` for never.

    Attributes:
        outlets: of all long-lived connections.
        watched: the connections that are looked at: how much each had taken, how much waited, and since when nothing
            more was taken.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self.outlets: set[Watched] = set()
        self.watched: dict[Watched, tuple[float, float, float]] = {}
        self._is_ticking = False
        self._is_for_all = False

    def watch(self, connection: Watched) -> None:
        """Look at a connection until its peer has taken all."""
        if self._timeout is None or connection in self.watched:
            return
        self.watched[connection] = -inf, inf, self._loop.time()  # what an earlier answer has left was not counted
        if not self._is_ticking:
            self._look_later(self._timeout)

    def look_at_all(self) -> None:
        """Look at all connections once, and at those whose peer has not taken all until it has."""
        self._is_for_all = True
        if self._timeout is not None and not self._is_ticking:
            self._look_later(self._timeout)

    def forget(self, connection: Watched) -> None:
        """Look at a connection no more."""
        self.outlets.discard(connection)
        self.watched.pop(connection, None)

    def _look_later(self, timeout: float) -> None:
        self._is_ticking = True
        self._loop.call_later(timeout / LOOKS, self._look)

    def _look(self) -> None:
        assert self._timeout is not None
        now = self._loop.time()
        connections, self._is_for_all = {*self.watched, *(self.outlets if self._is_for_all else ())}, False
        for connection in connections:
            most, least, since = self.watched.get(connection, (-inf, inf, now))
            taken, waiting = connection.progress
            if not waiting:
                self.watched.pop(connection, None)
            elif taken > most or waiting < least:
                self.watched[connection] = taken, waiting, now
            elif now - since >= self._timeout:
                del self.watched[connection]
                connection.stalled()
            else:
                self.watched[connection] = most, waiting, since
        self._is_ticking = False
        if self.watched or self._is_for_all:
            self._look_later(self._timeout)
