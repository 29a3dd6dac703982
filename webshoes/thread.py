"""The server's loop, on a background thread kept by `threadmsg.ThreadMsg`."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress

from threadmsg import ThreadMsg

from webshoes.log import log
from webshoes.pool import NO_LATE_THREADS, DaemonPool

Closing = Callable[[], Awaitable[None]]


class LoopThread(ThreadMsg):  # type: ignore[misc]  # threadmsg carries no types
    """One run of a server: `opening` at its beginning, what it gives at its end, the loop in between.

    ThreadMsg calls `_turn` once when the thread begins, whenever it is notified, and once more after `run` is false.

    Args:
        opening: awaited first, gives what is awaited last; what it raises, `open` raises.
        loop_factory: makes the loop.
        pools: whose threads count as inside; the last is the loop's default executor.
    """

    def __init__(
        self,
        opening: Callable[[], Awaitable[Closing]],
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
        *pools: DaemonPool,
    ) -> None:
        super().__init__(self._turn, start=False)
        self.thread.name = 'webshoes'
        self.thread.daemon = True  # so that the interpreter can end; webshoes.lifetime sees to it that we end first
        self.on_threadmsg_error = lambda exc: log.error('the server did not end well', exc_info=exc)
        self._opening = opening
        self._closing: Closing
        self._loop_factory = loop_factory
        self._pools = pools
        self._opened: Future[None] = Future()

    def __del__(self) -> None:
        """There is nothing to join: as long as the thread runs it holds on to this, and may be the last to let go."""

    def open(self) -> None:
        """Start the thread, and return when `opening` is done.

        Raises:
            Whatever `opening` raises.
        """
        try:
            self.start()
            self._opened.result()
        except BaseException:
            self.join(True)  # where it was Ctrl-C that ended the wait, it has to be told
            raise

    def close(self, timeout: float) -> bool:
        """Have the thread end; whether it did within so many seconds. From inside, it is only told to."""
        self.stop()
        if not self.is_inside():
            self.thread.join(timeout)
        return not self.is_running()

    def is_running(self) -> bool:
        """Return whether the thread has not ended."""
        return bool(self.thread.is_alive())

    def is_inside(self) -> bool:
        """Return whether the caller runs on the loop's thread or in one of the pool's: waiting would be for itself."""
        current = threading.current_thread()
        return current is self.thread or any(pool.is_member(current) for pool in self._pools)

    def leave(self) -> None:
        """Let go of the loop in a forked child. Where a handler on the loop forked, the child ends when it returns."""
        for pool in self._pools:
            pool.leave()
        if threading.current_thread() is self.thread:
            self.loop.call_soon(_end_child)

    def threadLoop(self, f: object, p: object) -> None:
        """Run the loop; an `asyncio.Runner` also cancels the tasks that are left over."""
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                self.loop = runner.get_loop()
                self.loop.set_default_executor(self._pools[-1])
                task = self.loop.create_task(self.threadRun(self, f, p))
                while not task.done():
                    try:
                        self.loop.run_until_complete(task)
                    except (SystemExit, KeyboardInterrupt):  # in a task of a handler's own; both end a loop at once
                        self.stop()
                for pool in self._pools:
                    pool.shutdown()
                with self.lock:
                    self.event = None  # or `notify` would ask a loop that is closed
        except BaseException as exc:
            if not self._opened.done():
                self._opened.set_exception(exc)
            elif not (NO_LATE_THREADS and isinstance(exc, RuntimeError)):  # the Runner wants one to end the pool
                raise

    async def _turn(self, _: ThreadMsg) -> None:
        if not self._opened.done():
            try:
                self._closing = await self._opening()
            except BaseException as exc:
                self.run = False
                self._opened.set_exception(exc)
            else:
                self._opened.set_result(None)
        elif not self.wantRun() and self._opened.exception() is None:
            await self._closing()


def _end_child() -> None:  # pragma: no cover  # the process ends before coverage can write
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(0)
