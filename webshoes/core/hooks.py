"""Functions of the program that are told who comes and goes: `@wsa.on('connect')`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct

from webshoes.core.dispatch import Dispatcher, is_pending
from webshoes.core.handler import Function, compile_function

MOMENTS = {'connect': 'ctx', 'disconnect': 'ctx', 'subscribe': 'ctx, event', 'unsubscribe': 'ctx, event'}


class Hooks:
    """The functions by moment, in order of registration. Reading needs no lock: each change makes a new table."""

    def __init__(self) -> None:
        self._functions: dict[str, tuple[Function, ...]] = dict.fromkeys(MOMENTS, ())

    def add(self, moment: str, fn: Any) -> None:
        """Have a function told.

        Raises:
            TypeError: it cannot be called with what the moment gives.
            ValueError: there is no such moment.
        """
        if moment not in MOMENTS:
            raise ValueError(f'on: a moment is one of {", ".join(map(repr, MOMENTS))}, not {moment!r}')
        function = compile_function(fn, f"on('{moment}')", MOMENTS[moment])
        self._functions = {**self._functions, moment: (*self._functions[moment], function)}

    def of(self, moment: str) -> tuple[Function, ...]:
        """The functions of a moment."""
        return self._functions[moment]


class Teller(Struct, frozen=True):
    """Tells the hooks of one app.

    Attributes:
        hooks, dispatcher: the app's.
        spawn: runs a coroutine beside everything else.
    """

    hooks: Hooks
    dispatcher: Dispatcher
    spawn: Callable[[Coroutine[Any, Any, None]], object]

    async def ask(self, moment: str, *args: Any) -> None:
        """Tell one after another, each when the one before is done.

        Raises:
            Whatever the first of them raises that objects.
        """
        for function in self.hooks.of(moment):
            result = self.dispatcher.run(function, *args)
            if is_pending(result):
                await result

    async def tell_in_turn(self, moment: str, *args: Any) -> None:
        """As `ask`, but an error is logged and keeps nobody else from being told."""
        for function in self.hooks.of(moment):
            pending = self._begin(function, args)
            if pending is not None:
                await self._end(function, pending)

    def tell(self, moment: str, *args: Any) -> None:
        """Tell all, now; what has to be waited for goes on beside everything else. An error is logged."""
        for function in self.hooks.of(moment):
            pending = self._begin(function, args)
            if pending is not None:
                self.spawn(self._end(function, pending))

    def _begin(self, function: Function, args: tuple[Any, ...]) -> Any:
        """Return an awaitable, or `None` if there is nothing to await."""
        try:
            result = self.dispatcher.run(function, *args)
        except BaseException as exc:
            self.dispatcher.failed(exc, function.name)
            return None
        return result if is_pending(result) else None

    async def _end(self, function: Function, pending: Any) -> None:
        try:
            await pending
        except BaseException as exc:
            if self.dispatcher.is_end(exc):
                raise
            self.dispatcher.failed(exc, function.name)
