"""The event loop: which one, tasks on it, time limits, and the way to it from other threads."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from webshoes.core.errors import Error
from webshoes.core.meter import Meter

T = TypeVar('T')


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop of our thread; no global policy is touched.

    Args:
        name: `'auto'`, `'uvloop'` or `'asyncio'`.

    Raises:
        ImportError: uvloop is asked for and not installed.
        ValueError: the name is none of the three.
    """
    if name not in ('auto', 'uvloop', 'asyncio'):
        raise ValueError(f"loop is 'auto', 'uvloop' or 'asyncio', not {name!r}")
    if name == 'asyncio':
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:  # pragma: no cover  # tested where uvloop is not installed, and coverage neither
        if name == 'auto':
            return asyncio.new_event_loop
        raise ImportError("loop='uvloop' needs uvloop: pip install 'webshoes[fast]'") from None
    return uvloop.new_event_loop


def spawner(loop: asyncio.AbstractEventLoop) -> Callable[[Coroutine[Any, Any, None]], Deferred]:
    """What runs coroutines on a loop, and holds on to them until they are done, as the loop itself does not.

    From Python 3.12 on they begin at once, and those that wait for nothing are done then and there.
    """
    tasks: set[asyncio.Task[None]] = set()
    make: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = loop.create_task
    if sys.version_info >= (3, 12):  # pragma: no cover  # nor is it on 3.11
        make = partial(asyncio.Task, loop=loop, eager_start=True)

    def spawn(coroutine: Coroutine[Any, Any, None]) -> Deferred:
        task = make(coroutine)
        if not task.done():
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return Deferred(task)

    return spawn


def soon(loop: asyncio.AbstractEventLoop, fn: Callable[[], object]) -> None:
    """Have a function called on a loop, from any thread; not where the loop is closed, and all that lived on it."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(fn)


async def in_time(result: Awaitable[Any], meter: Meter, limit: str, past: Error) -> Any:
    """What an awaitable gives, if it does so within a limit.

    Args:
        result: the awaitable.
        meter: the app's limits.
        limit: the name of the one that holds, in seconds.
        past: what is raised, and counted, past it.

    Raises:
        Error: `past`. Or whatever the awaitable raises.
    """
    try:
        async with asyncio.timeout(getattr(meter.limits, limit)) as timeout:
            return await result
    except TimeoutError:
        if not timeout.expired():  # it was raised by what is waited for
            raise
        meter.met(limit)
        raise past from None


async def uncancel() -> None:
    """Undo that the current task was cancelled, as by a handler that it has called."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # where it is raised, if it was not yet
        while task.uncancel():
            pass


async def followed_by(work: Awaitable[T], last: Callable[[], object]) -> T:
    """Await some work, and call `last` when it is done or has failed.

    A `finally` would do the same, but whatever a function of the program raises in it has our exception for a context.

    Returns:
        The result of the work.

    Raises:
        Whatever the work raises.
    """
    try:
        result = await work
    except BaseException as exc:
        failure = exc
    else:
        last()
        return result
    last()
    try:
        raise failure
    finally:
        del failure  # or it refers to this frame, and this frame to it


MANY = 8  # who answer in one turn of the loop


class Flushes(Protocol):
    """A sender that may hold something back until `flush`."""

    def flush(self) -> None:
        """Send it."""


class Turn:
    """Those who have something to send at the end of a turn of the loop: they all do it then.

    Where many answer in a turn, their answers are written together, as each write may wake whoever waits for it, which
    costs more than the write. Where few do, waiting for the others has both sides sleep in turns: they had better
    write at once, and what is left at the end.

    Args:
        then: called when they have.
    """

    def __init__(self, then: Callable[[], object] | None = None) -> None:
        self._then = then
        self._begin = partial(asyncio.get_running_loop().call_soon, self.end)
        self._due: list[Flushes] = []
        self._is_small = True  # as the last one was
        self._early = 0  # who have sent at once
        self._last: Flushes | None = None  # of these

    def defer(self, sender: Flushes) -> bool:
        """Have somebody flushed at the end, unless it had better do it at once: its first answer, of a few.

        Where somebody is deferred, all are who come later in the turn.

        Returns:
            Whether it is deferred.
        """
        due = self._due
        if not due:
            if not self._early:
                begin = self._begin  # a call of what is local is quicker
                begin()
            if self._is_small and self._last is not sender:
                self._early += 1
                self._last = sender
                return False
        due.append(sender)
        return True

    def end(self) -> None:
        """Have them do it now."""
        due = self._due
        self._is_small = len(due) + self._early < MANY
        self._early, self._last = 0, None
        if due:
            self._due = []
            for sender in due:
                sender.flush()
        if self._then is not None:
            self._then()


class Deferred:
    """A task that is cancelled no sooner than it has begun: one that never began could not tell that it ended."""

    __slots__ = ('_task',)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """Interrupt it."""
        self._task.get_loop().call_soon(self._task.cancel)
