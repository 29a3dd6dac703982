"""Notes which signals a program has received, whatever handlers it has and whenever it has set them."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import partial


class SignalNotes:
    """The signals that came, read from Python's wakeup descriptor (`signal.set_wakeup_fd`).

    A handler of our own would be replaced by the program's, and a program that asks for its handlers would see it.
    A loop of the program that handles signals takes the descriptor over (`loop.add_signal_handler` of asyncio does).
    """

    def __init__(self) -> None:
        self._reader: socket.socket | None = None
        self._writer: socket.socket | None = None
        self._numbers: set[int] = set()
        self._is_armed = False
        self._is_handled = False  # by a loop of the program that had the descriptor before

    def arm(self) -> bool:
        """Begin to note, if this is the main thread and nobody else has the descriptor.

        Returns:
            Whether descriptors were opened, which `leave` closes.
        """
        if threading.current_thread() is not threading.main_thread():
            return False
        is_new = self._writer is None
        if self._writer is None:
            self._reader, self._writer = socket.socketpair()
            self._reader.setblocking(False)
            self._writer.setblocking(False)
        before = _set_wakeup(self._writer.fileno())
        self._is_armed = before in (-1, self._writer.fileno())
        if not self._is_armed:
            _set_wakeup(before)
            self._is_handled = any(map(_is_handled, (signal.SIGINT, signal.SIGTERM)))
        return is_new

    def fileno(self) -> int:
        """Return the descriptor that is readable when signals came, -1 where none are noted."""
        return -1 if self._reader is None else self._reader.fileno()

    def drain(self) -> None:
        """Read what came; from any thread, and often enough that there is room for more."""
        with suppress(OSError):  # nothing more is there
            while self._reader is not None and (found := self._reader.recv(4096)):
                self._numbers.update(found)

    def clear(self) -> None:
        """Forget what came so far."""
        self.drain()
        self._numbers.clear()

    def came(self, numbers: Iterable[int]) -> bool:
        """Return whether one of these signals came."""
        self.drain()
        return not self._numbers.isdisjoint(numbers)

    def end(self) -> bool:
        """Note no more; whether the program has handled signals in a loop of its own, which had the descriptor."""
        if self._writer is None or not self._is_armed:
            return self._is_handled
        self._is_armed = False
        before = _set_wakeup(-1)
        if before not in (-1, self._writer.fileno()):
            _set_wakeup(before)
        return before != self._writer.fileno()

    def leave(self) -> None:
        """Let go of the descriptors: at the end, and in a forked child, whose signals are not the parent's."""
        with suppress(ValueError):  # not in the main interpreter
            self.end()
        for one in (self._reader, self._writer):
            if one is not None:
                one.close()
        self._reader = self._writer = None
        self._is_handled = False
        self._numbers.clear()


def _is_handled(number: signal.Signals) -> bool:
    """Return whether the program handles a signal. A partial does not count: `asyncio.run` handles Ctrl-C by one."""
    handler = signal.getsignal(number)
    return callable(handler) and handler is not signal.default_int_handler and not isinstance(handler, partial)


def _set_wakeup(number: int) -> int:
    return signal.set_wakeup_fd(number, warn_on_full_buffer=False)
