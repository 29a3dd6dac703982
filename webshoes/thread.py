"""The server's loop, on a background thread kept by `threadmsg.ThreadMsg`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from threadmsg import ThreadMsg

from webshoes.pool import DaemonPool


class LoopThread(ThreadMsg):  # type: ignore[misc]  # threadmsg carries no types
    """One run of a server: `opening` at its beginning, `closing` at its end, the loop in between.

    ThreadMsg calls `_turn` once when the thread begins, whenever it is notified, and once more after `run` is false.

    Args:
        opening: awaited first; what it raises, `open` raises.
        closing: awaited last, if `opening` succeeded.
        loop_factory: makes the loop.
        pool: the loop's default executor; its threads count as inside.
    """

    def __init__(
        self,
        opening: Callable[[], Awaitable[None]],
        closing: Callable[[], Awaitable[None]],
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
        pool: DaemonPool,
    ) -> None:
        super().__init__(self._turn, start=False)
        self.thread.name = 'webshoes'
        self.thread.daemon = True  # so that the interpreter can end; webshoes.lifetime sees to it that we end first
        self._opening = opening
        self._closing = closing
        self._loop_factory = loop_factory
        self._pool = pool
        self._opened: Future[None] = Future()

    def open(self) -> None:
        """Start the thread, and return when `opening` is done.

        Raises:
            Whatever `opening` raises.
        """
        self.start()
        try:
            self._opened.result()
        except BaseException:
            self.thread.join()
            raise

    def close(self, timeout: float) -> bool:
        """Have the thread end; whether it did within so many seconds. From inside, it is only told to."""
        self.stop()
        if not self.is_inside():
            self.thread.join(timeout)
        return not self.thread.is_alive()

    def is_inside(self) -> bool:
        """Whether the caller runs on the loop's thread or in one of the pool's: waiting would be for itself."""
        current = threading.current_thread()
        return current is self.thread or self._pool.is_member(current)

    def threadLoop(self, f: object, p: object) -> None:
        """Run the loop; an `asyncio.Runner` also cancels the tasks that are left over."""
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                self.loop = runner.get_loop()
                self.loop.set_default_executor(self._pool)
                runner.run(self.threadRun(self, f, p))
        except BaseException as exc:
            if self._opened.done():
                raise
            self._opened.set_exception(exc)

    async def _turn(self, _: ThreadMsg) -> None:
        if not self._opened.done():
            try:
                await self._opening()
            except BaseException as exc:
                self.run = False
                self._opened.set_exception(exc)
            else:
                self._opened.set_result(None)
        elif not self.wantRun() and self._opened.exception() is None:
            await self._closing()
