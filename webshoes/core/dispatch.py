"""Handler + arguments -> result. The transports call a handler through here and nowhere else."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from webshoes.core.context import Context
from webshoes.core.errors import Error, from_exception
from webshoes.core.handler import Function
from webshoes.core.params import Texts
from webshoes.core.registry import Match


class Dispatcher:
    """Calls handlers.

    Args:
        clock: monotonic seconds.
        in_thread: runs `fn(ctx, q)` in a thread pool and gives an awaitable of its result.
        on_failure: told of an exception that is nobody's answer, with the handler's name.
        on_slow: told of a handler that blocked the loop, with its name and for how many seconds.
        slow: from how many seconds on it is told; `None` is never.

    Attributes:
        clock: as given.
        slow: as given, never being infinity.
        is_ending: whether the server cancels what still runs, because it stops.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        in_thread: Callable[..., Awaitable[Any]],
        on_failure: Callable[[BaseException, str], None],
        on_slow: Callable[[str, float], None],
        slow: float | None,
    ) -> None:
        self.clock = clock
        self._in_thread = in_thread
        self._on_failure = on_failure
        self._on_slow = on_slow
        self.slow = float('inf') if slow is None else slow
        self.is_ending = False
        self._left_out: deque[tuple[float, float]] = deque(maxlen=1000)  # when a time ended, and how long it was

    def call(self, match: Match, ctx: Context, values: dict[str, Any], texts: Texts) -> Any:
        """Call a handler.

        Args:
            match: where the request goes; the parameters in its path win over those sent beside it.
            ctx: the first argument.
            values: the parameters that were sent.
            texts: those among them that came as text.

        Returns:
            The result, or an awaitable of it (see `is_pending`).

        Raises:
            Whatever the handler raises; `error` tells what the client reads of it.
        """
        handler: Any = match.target
        if match.params:
            values = {**values, **{name: text[0] for name, text in match.params.items()}}
            texts = {**texts, **match.params}
        return self.run(handler, ctx, handler.bind(values, texts))

    def run(self, function: Function, *args: Any) -> Any:
        """Call a function of the program: its result, or an awaitable of it (see `is_pending`).

        Raises:
            Whatever the function raises.
        """
        if function.threaded:
            return self._in_thread(function.fn, *args)
        started = self.clock()
        try:
            result = function.fn(*args)
        finally:
            self.check_pace(started, function.name)
        return self.paced(result, function.name)

    def paced(self, result: Any, name: str) -> Any:
        """Wrap a coroutine so that every step between two awaits is timed. Return other results unchanged."""
        return result if type(result) is not types.CoroutineType else _Paced(result, name, self)

    def check_pace(self, started: float, name: str) -> None:
        """Tell of a handler that has held the loop for long since `started`."""
        seconds = self.clock() - started
        if seconds > self.slow:
            seconds -= sum(own for end, own in self._left_out if end > started)
            if seconds > self.slow:
                self._on_slow(name, seconds)

    def leave_out(self, seconds: float) -> None:
        """Subtract time that the server itself took, up to now, from the time of the running handler."""
        self._left_out.append((self.clock(), seconds))

    def error(self, exc: BaseException, where: str) -> Error:
        """Return the error that the client reads for an exception. Failures are handed to `on_failure`."""
        return from_exception(exc, lambda failure: self._on_failure(failure, where))

    def is_end(self, exc: BaseException) -> bool:
        """Return whether an exception ends the work of the server, and is not a failure of the program.

        Another `CancelledError` or `GeneratorExit` is one: a function of the program has raised it, or cancelled the
        task that it runs in.
        """
        return self.is_ending and not isinstance(exc, Exception)

    def failed(self, exc: BaseException, where: str) -> None:
        """Tell of an exception that has no client who could be told."""
        self._on_failure(exc, where)


class _Paced:
    """A coroutine, each stretch between two of its waits held against the clock."""

    __slots__ = ('_coroutine', '_dispatcher', '_name')

    def __init__(self, coroutine: types.CoroutineType[Any, Any, Any], name: str, dispatcher: Dispatcher) -> None:
        self._coroutine = coroutine
        self._name = name
        self._dispatcher = dispatcher

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[Any], Any] = self._coroutine.send
        sent: Any = None
        while True:
            started = self._dispatcher.clock()
            try:
                waits_for = resume(sent)
            except StopIteration as end:
                return end.value
            finally:
                self._dispatcher.check_pace(started, self._name)
            try:
                resume, sent = self._coroutine.send, (yield waits_for)
            except BaseException as exc:
                resume, sent = self._coroutine.throw, exc


def is_pending(result: Any) -> bool:
    """Return whether a handler's result is still to be awaited."""
    return hasattr(type(result), '__await__')
