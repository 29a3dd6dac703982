"""How servers and the program around them end together.

A program that ends by Ctrl-C, `sys.exit` or any other exception ends, its servers stopped. One whose last line is
reached with a server running goes on serving until SIGINT or SIGTERM.
"""

from __future__ import annotations

import atexit
import dis
import queue
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

from webshoes import fork

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds. A signal that comes in the very moment before a wait begins does not end it: its handler runs when it ends.
LOOK = 0.5


class Server(Protocol):
    """What can be running."""

    def stop(self) -> None:
        """Stop, within a bounded time."""


_running: dict[object, Server] = {}  # by run
_replaced: dict[signal.Signals, Any] = {}  # handlers that ours stand for
_waiting: list[queue.SimpleQueue[int]] = []
_main: list[FrameType] = []


def hold(run: object, server: Server) -> None:
    """Note that a run of a server begins."""
    if not _main:
        # Before the standard pools close, which is before atexit: what is served meanwhile may need them.
        try:
            getattr(threading, '_register_atexit', atexit.register)(_at_exit)
        except RuntimeError:  # the main thread has ended already, and this is another one
            atexit.register(_at_exit)
    _main[:] = _outermost_frame()
    _running[run] = server


def release(run: object) -> None:
    """Note that a run has ended."""
    _running.pop(run, None)
    for waiting in list(_waiting):
        waiting.put(0)


def wait(server: Server | None = None) -> None:
    """Return on SIGINT or SIGTERM, or when a server (any server) runs no more.

    Signals reach the main thread alone; on another one this waits for the server.
    """
    # A SimpleQueue may be put to by a signal handler that interrupts it; an Event would deadlock.
    news: queue.SimpleQueue[int] = queue.SimpleQueue()
    _waiting.append(news)
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # by nohup, say; or somebody's in C
                    _replaced[number] = signal.signal(number, lambda received, frame: news.put(received))
        is_told = False
        while any(server in (None, running) for running in list(_running.values())) and not is_told:
            with suppress(queue.Empty):
                is_told = news.get(timeout=LOOK) != 0
    finally:
        _waiting.remove(news)
        _restore()


def _restore() -> None:
    """Have signals handled as before."""
    while _replaced:
        signal.signal(*_replaced.popitem())


def _leave() -> None:
    """Forget the servers in a forked child, where they do not run, and have its signals handled as it expects."""
    _running.clear()
    _restore()


fork.in_child(_leave)


def _at_exit() -> None:
    try:
        if _main_returned() and not hasattr(sys, 'ps1'):
            wait()
    finally:
        for server in list(_running.values()):
            server.stop()


def _outermost_frame() -> list[FrameType]:
    """Where the main thread began: the code of the script."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return [frame] if frame is not None else []


def _main_returned() -> bool:
    """Whether the script's code ran to its end: whether a return was the last thing it did."""
    for frame in _main:
        return dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith('RETURN')
    return False  # pragma: no cover  # no frame was seen: the main thread had ended before the first start
