"""Notes which signals a program has received, whatever handlers it has and whenever it has set them."""

from __future__ import annotations

import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

_pending: deque[Callable[[], object]] = deque()
_c_call: list[Any] = []  # the function for C, which must live on while it is pending


def in_main_thread(fn: Callable[[], object]) -> None:
    """Call a function in the main thread, which alone may set handlers and the wakeup descriptor.

    For another thread, CPython calls it when the main thread next runs Python code; a call that blocks puts it off.
    Other Pythons, and those without ctypes, do not call it then.
    """
    if threading.current_thread() is threading.main_thread():
        fn()
        return
    with suppress(ImportError, AttributeError):
        import ctypes

        if not _c_call:
            _c_call.append(ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_call_pending))
        _pending.append(fn)
        ctypes.pythonapi.Py_AddPendingCall(_c_call[0], None)


def _call_pending(_: object) -> int:
    while _pending:
        _pending.popleft()()
    return 0  # which tells C that all went well


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
        self._lock = threading.RLock()  # a signal handler may call what its thread is in

    def arm(self) -> bool:
        """Begin to note, unless somebody else has the descriptor.

        Returns:
            Whether descriptors were opened, which `leave` closes.
        """
        with self._lock:
            is_new = self._writer is None
            if is_new:
                self._reader, self._writer = socket.socketpair()
                self._reader.setblocking(False)
                self._writer.setblocking(False)
        in_main_thread(self._begin)
        return is_new

    def _begin(self) -> None:
        if self._writer is None:  # let go meanwhile
            return
        before = _set_wakeup(self._writer.fileno())
        self._is_armed = before in (-1, self._writer.fileno())
        if not self._is_armed:
            _set_wakeup(before)
            self._is_handled = any(map(_is_handled, (signal.SIGINT, signal.SIGTERM)))

    def fileno(self) -> int:
        """Return the descriptor that is readable when signals came, -1 where none are noted."""
        return -1 if self._reader is None else self._reader.fileno()

    def drain(self) -> None:
        """Read what came; from any thread, and often enough that there is room for more."""
        # With the lock, as a note that another thread has read and not kept yet would seem not to be there.
        with self._lock, suppress(OSError):  # nothing more is there
            while self._reader is not None and (found := self._reader.recv(4096)):
                self._numbers.update(found)

    def forget(self, number: int) -> None:
        """Forget that a signal came."""
        self.drain()
        self._numbers.discard(number)

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
        self._lock = threading.RLock()  # a fork copies one that another thread holds


def _is_handled(number: signal.Signals) -> bool:
    """Return whether the program handles a signal. A partial does not count: `asyncio.run` handles Ctrl-C by one."""
    handler = signal.getsignal(number)
    return callable(handler) and handler is not signal.default_int_handler and not isinstance(handler, partial)


def _set_wakeup(number: int) -> int:
    return signal.set_wakeup_fd(number, warn_on_full_buffer=False)
