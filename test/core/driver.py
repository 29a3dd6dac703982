"""Tasks that go on by hand, without a loop, and handlers that wait until a test lets them go on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from webshoes.core.calls import CallServices
from webshoes.core.context import Context
from webshoes.core.dispatch import Dispatcher
from webshoes.core.limits import Limits
from webshoes.core.meter import Meter

DRIVERS: list[Driver] = []


class Cancelled(BaseException):
    """What the driver throws into a task that is cancelled."""


class Gate:
    """What a handler waits for until the test opens it."""

    def __init__(self) -> None:
        self.is_open = False

    def __await__(self) -> Generator[Any, Any, None]:
        while not self.is_open:
            yield


class Task:
    """A coroutine on its way; it is cancelled once it has begun."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.coroutine = coroutine
        self.is_cancelled = self.has_begun = self.is_done = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def step(self) -> None:
        """Go on to the next wait."""
        try:
            if self.has_begun and self.is_cancelled:
                self.is_cancelled = False
                self.coroutine.throw(Cancelled())
            else:
                self.has_begun = True
                self.coroutine.send(None)
        except StopIteration:
            self.is_done = True


@dataclass
class Timer:
    """What is to happen after so many seconds."""

    delay: float
    fn: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Driver:
    """Runs what is spawned, by hand."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.timers: list[Timer] = []
        DRIVERS.append(self)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> Task:
        task = Task(coroutine)
        self.tasks.append(task)
        return task

    def later(self, delay: float, fn: Callable[[], None]) -> Timer:
        timer = Timer(delay, fn)
        self.timers.append(timer)
        return timer

    def services(
        self, limits: Limits, in_thread: Callable[..., Any], on_failure: Callable[[BaseException, str], None]
    ) -> CallServices:
        """What calls need, at a time that stands still."""
        dispatcher = Dispatcher(
            clock=lambda: 0.0,
            in_thread=in_thread,
            on_failure=on_failure,
            on_slow=lambda name, seconds: None,
            slow=None,
        )
        return CallServices(
            dispatcher=dispatcher,
            limits=limits,
            meter=Meter(limits),
            now=lambda: 5.0,
            spawn=self.spawn,
            later=self.later,
        )

    def run(self) -> None:
        """Let each task go on as far as it can."""
        for _ in range(2):
            for task in self.tasks:  # which grows meanwhile
                task.step()
            self.tasks = [task for task in self.tasks if not task.is_done]

    def end(self) -> None:
        """Cancel what is left: a coroutine that is never awaited is a warning, which is an error."""
        while self.tasks:
            for task in self.tasks:
                task.cancel()
            self.run()


class Doors:
    """Handlers that wait, each at the gate of the door it is told."""

    def __init__(self) -> None:
        self.gates: dict[str, Gate] = {}
        self.begun: list[str] = []
        self.ended: list[str] = []

    async def wait(self, ctx: Context, q: Any) -> Any:
        self.begun.append(q.door)
        try:
            await self.gates.setdefault(q.door, Gate())
        finally:
            self.ended.append(q.door)
        return q.door

    def open(self, *doors: str) -> None:
        for door in doors:
            self.gates.setdefault(door, Gate()).is_open = True
