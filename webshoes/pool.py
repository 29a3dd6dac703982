"""Threads for work that blocks.

The standard pool's threads hold up the interpreter's exit until their work is done, and take no work once the main
thread has ended, which is when a script whose last line is `wsa.start()` begins to serve. These do neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar, TypeVarTuple, Unpack

P = ParamSpec('P')
T = TypeVar('T')
Args = TypeVarTuple('Args')

# Once the main thread has ended, these give no thread to anybody (gh-113964).
NO_LATE_THREADS = (3, 12) <= sys.version_info < (3, 12, 3)


LOOKUPS = (socket.getaddrinfo, socket.getnameinfo)  # the functions that asyncio's loop runs in its executor

_is_server_work = contextvars.ContextVar('is_server_work', default=False)


@contextlib.contextmanager
def server_work() -> Iterator[None]:
    """Have what is given to the loop's default executor in here run in the server's own threads."""
    token = _is_server_work.set(True)
    try:
        yield
    finally:
        _is_server_work.reset(token)


def in_server_thread(fn: Callable[[Unpack[Args]], T], *args: *Args) -> asyncio.Future[T]:
    """Run `fn(*args)` in one of the server's own threads; called on its loop."""
    with server_work():
        return asyncio.get_running_loop().run_in_executor(None, fn, *args)


class DaemonPool(ThreadPoolExecutor):
    """An executor of daemon threads, at most `max_threads` of them, made as they are needed.

    A ThreadPoolExecutor by name alone, since a loop's default executor has to be one. `on_wait` is called where work
    has to wait for a thread.
    """

    def __init__(self, max_threads: int, name: str, on_wait: Callable[[], None] = lambda: None) -> None:
        super().__init__(max_threads, name)
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._members: set[threading.Thread] = set()
        self._guard = threading.Lock()
        self._closed = False
        self._on_wait = on_wait
        for _ in range(max_threads if NO_LATE_THREADS else 0):  # pragma: no cover  # three Pythons alone
            self._add_thread()
            self._idle.release()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn(*args, **kwargs)` in a thread, in the caller's context.

        Raises:
            RuntimeError: the pool was shut down.
        """
        future: Future[T] = Future()
        calls = [partial(contextvars.copy_context().run, fn, *args, **kwargs)]
        # What is cancelled before its time holds on to nothing while it waits to be thrown away.
        future.add_done_callback(lambda _: calls.clear())

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(calls.pop()())
            except (StopIteration, GeneratorExit) as exc:  # which asyncio takes for something of its own
                name = type(exc).__name__
                future.set_exception(
                    RuntimeError(f'a call in a thread raised {name}').with_traceback(exc.__traceback__)
                )
            except BaseException as exc:
                future.set_exception(exc)

        with self._guard:
            if self._closed:
                raise RuntimeError('the pool was shut down')
            self._work.put(work)
            if not self._idle.acquire(blocking=False):
                if len(self._members) < self._max_workers:
                    self._add_thread()
                else:
                    self._on_wait()
        return future

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=self._thread_name_prefix, daemon=True)
        self._members.add(thread)  # first, for it may ask at once whether it is one
        try:
            thread.start()
        except BaseException:  # pragma: no cover  # the system has no thread left
            self._members.remove(thread)
            raise

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work
            self._idle.release()

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Take no more work and let idle threads end. Running work is never waited for: it may have no end."""
        with self._guard:
            self._closed = True
            for _ in self._members:
                self._work.put(None)

    def leave(self) -> None:
        """Be shut down in a forked child, where no thread is left but the caller: a worker then ends after its work."""
        self._guard, self._idle = threading.Lock(), threading.Semaphore(0)
        self._work = queue.SimpleQueue()
        self._closed = True
        self._work.put(None)

    def is_member(self, thread: threading.Thread) -> bool:
        """Return whether a thread is one of the pool's."""
        return thread in self._members


class DefaultPool(DaemonPool):
    """The default executor of the server's loop: the threads of `asyncio.to_thread`, which handlers may fill.

    Work of the server (`server_work`) and look-ups of names have threads of their own: they do not wait for handlers.

    Args:
        max_threads, name: as for `DaemonPool`.
        server: runs the work of the server.
        lookups: runs look-ups of names; uvloop has its own threads for them.
    """

    def __init__(self, max_threads: int, name: str, server: DaemonPool, lookups: DaemonPool) -> None:
        super().__init__(max_threads, name)
        self._server = server
        self._lookups = lookups

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn(*args, **kwargs)` in a thread, in the caller's context.

        Raises:
            RuntimeError: the pool was shut down.
        """
        if _is_server_work.get():
            return self._server.submit(fn, *args, **kwargs)
        run = self._lookups.submit if fn in LOOKUPS else super().submit
        return run(fn, *args, **kwargs)
