"""How servers and the program around them end together.

| the main thread | the program |
|---|---|
| ends by an exception or `sys.exit` | ends, its servers stopped |
| reaches its last line after a Ctrl-C or SIGTERM, which it has handled itself | ends, its servers stopped |
| reaches its last line otherwise | serves on until SIGINT or SIGTERM, and says so on stderr |

Where the program has threads that Python waits for, the servers run until these have ended.
"""

from __future__ import annotations

import asyncio
import atexit
import dis
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

from webshoes import fork
from webshoes.signals import SignalNotes, in_main_thread

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds. A signal that comes in the very moment before a wait begins does not end it: its handler runs when it ends.
LOOK = 0.5
# Threads that end when their pools are told to, which happens after `_at_exit`: by the module that knows them.
POOL_THREADS = (('concurrent.futures.thread', '_threads_queues'), ('concurrent.futures.process', '_threads_wakeups'))


class Server(Protocol):
    """A server that can be running."""

    @property
    def url(self) -> str:
        """The server's address."""

    def stop(self) -> None:
        """Stop, within a bounded time."""


_running: dict[object, Server] = {}  # by run
_replaced: list[tuple[signal.Signals, Any]] = []  # handlers that ours stand for, the oldest first
_waiting: dict[queue.SimpleQueue[int], threading.Thread] = {}  # whom `wait` holds, by what it reads
_main: list[FrameType] = []
_notes = SignalNotes()


def prepare() -> None:
    """Note that the program has an app: from here on signals are noted."""
    if not hasattr(sys, 'ps1') and _notes.arm():
        atexit.register(_notes.leave)


def hold(run: object, server: Server) -> None:
    """Note that a run of a server begins."""
    if not _main:
        # ImportError: a system without semaphores. RuntimeError: the main thread has ended already.
        with suppress(ImportError, RuntimeError):
            import concurrent.futures.process  # noqa: F401  # registers its end before ours, to end after it
        atexit.register(_stop_all)
        # Before the standard pools close, which is before atexit: what is served meanwhile may need them.
        try:
            getattr(threading, '_register_atexit', atexit.register)(_at_exit)
        except RuntimeError:  # the main thread has ended already, and this is another one
            atexit.register(_at_exit)
    _main[:] = _outermost_frame()
    prepare()
    if not _running:
        _notes.forget(signal.SIGINT)  # a program may have gone on after it; after SIGTERM it means to end
    _running[run] = server
    in_main_thread(_handle_as_first_process)


def release(run: object) -> None:
    """Note that a run has ended."""
    _running.pop(run, None)
    for waiting in list(_waiting):
        waiting.put(0)


def watch(loop: asyncio.AbstractEventLoop) -> Callable[[], object]:
    """Have a loop read the notes of signals, so that there is room for more.

    Returns:
        What ends that.
    """
    number = _notes.fileno()
    if number < 0:
        return lambda: None
    try:
        loop.add_reader(number, _notes.drain)
    except NotImplementedError:  # pragma: no cover  # Windows
        return lambda: None
    return lambda: loop.remove_reader(number)


def wait(server: Server | None = None, is_last: bool = False) -> int:
    """Return on SIGINT or SIGTERM, or when a server (any server) runs no more.

    Signals reach the main thread alone; on another one this waits for the server.

    Args:
        server: the server, `None` for any.
        is_last: whether the program has ended, so that its own handlers of the signals are called too.

    Returns:
        The number of the signal, 0 if none came.

    Raises:
        What a handler of the program's raises.
    """
    # A SimpleQueue may be put to by a signal handler that interrupts it; an Event would deadlock.
    news: queue.SimpleQueue[int] = queue.SimpleQueue()
    _waiting[news] = threading.current_thread()
    before = len(_replaced)
    came: list[int] = []
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # by nohup, say; or somebody's in C
                    also = handler if is_last and _is_own(handler) else None
                    _replaced.append((number, handler))  # first, as another thread may fork
                    signal.signal(number, _handler(came, news, also))
        if is_last:
            came.extend(number for number in SIGNALS if _notes.came((number,)))
        while any(server in (None, running) for running in list(_running.values())) and not came:
            with suppress(queue.Empty):
                news.get(timeout=LOOK)
    finally:
        del _waiting[news]
        _restore(before)
    return came[0] if came else 0


def _handler(came: list[int], news: queue.SimpleQueue[int], also: Any) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        came.append(number)
        news.put(number)
        if also is not None:
            also(number, frame)

    return handle


def _is_own(handler: Any) -> bool:
    """Return whether a signal handler is the program's own."""
    return callable(handler) and handler not in (signal.default_int_handler, signal.SIG_DFL, signal.SIG_IGN, _exit)


def _restore(count: int = 0) -> None:
    """Have signals handled as when so many handlers were replaced."""
    while len(_replaced) > count:
        signal.signal(*_replaced[-1])
        _replaced.pop()


def _leave() -> None:
    """Forget the servers in a forked child, where they do not run, and have its signals handled as it expects."""
    _running.clear()
    _notes.leave()
    _restore()
    _unblock()


def _block() -> None:
    """Block the signals while a thread forks. One that reached the child before `_leave` would be lost."""
    if _replaced:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _unblock() -> None:
    """Let the signals of the thread that forked through again."""
    if (mask := _forking.__dict__.pop('mask', None)) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_forking = threading.local()
fork.around(_block, _unblock)
fork.in_child(_leave)


def _handle_as_first_process() -> None:
    """Have SIGTERM end the program as process 1 of a container, where the kernel ignores it without a handler."""
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        _replaced.append((signal.SIGTERM, signal.SIG_DFL))
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


# --- the end ---


def _at_exit() -> None:
    if _is_ending():
        if _threads():
            _say()
        else:
            _stop_all()
        return
    told = 0
    try:
        _say()
        told = wait(is_last=True)
    except SystemExit:  # a handler of the program raised it
        if _threads():
            raise
    finally:
        _stop_all()
    if told and _threads() and not _is_own(signal.getsignal(told)):
        signal.raise_signal(told)  # or Python would wait for threads that nobody has told to end


def _stop_all() -> None:
    for server in list(_running.values()):
        server.stop()


def _is_ending() -> bool:
    """Return whether the program ends now, instead of serving on after its last line."""
    if hasattr(sys, 'ps1') or not _main_returned():
        return True
    if threading.current_thread() is not threading.main_thread():
        return False  # pragma: no cover  # the hooks of Python's end run in the main thread
    is_taken = _notes.end()
    if not is_taken:
        _notes.arm()  # again, for what comes before `wait` handles it
    return is_taken or _notes.came(SIGNALS) or _are_blocked()


def _are_blocked() -> bool:
    """Return whether the program has blocked the signals, as programs that use `signal.sigwait` do."""
    ask = getattr(signal, 'pthread_sigmask', None)  # missing on Windows
    return ask is not None and not ask(signal.SIG_BLOCK, ()).isdisjoint(SIGNALS)


def _say() -> None:
    """Say on stderr that the program goes on, if a server runs."""
    if not _running:
        return
    urls = ', '.join(dict.fromkeys(server.url for server in list(_running.values())))
    with suppress(Exception):  # there is no stderr, or it is closed
        print(f'webshoes: the program goes on serving {urls} until Ctrl-C or SIGTERM', file=sys.stderr, flush=True)


def _threads() -> list[threading.Thread]:
    """The threads that Python waits for before the program ends, except those that only wait for a server."""
    known = [list(_waiting.values())] + [getattr(sys.modules.get(module), name, ()) for module, name in POOL_THREADS]
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    return [thread for thread in others if not (thread.daemon or any(thread in threads for threads in known))]


def _outermost_frame() -> list[FrameType]:
    """Where the main thread began: the code of the script."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return [frame] if frame is not None else []


def _main_returned() -> bool:
    """Return whether the script's code ran to its end: whether a return was the last thing it did."""
    for frame in _main:
        return dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith('RETURN')
    return False  # pragma: no cover  # no frame was seen: the main thread had ended before the first start
