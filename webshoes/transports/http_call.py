"""One call over HTTP while its result is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from webshoes.core.context import Context
from webshoes.core.errors import Error


class HttpCall:
    """A call that may end before its handler returns. It is made by the task that awaits the result.

    Args:
        ctx: the context of the call, which tells the handler that it is cancelled.
    """

    __slots__ = ('_ctx', '_error', '_task')

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._task: Any = asyncio.current_task()
        self._error: Error | None = None

    def cancel(self, error: Error) -> bool:
        """Cancel the handler, unless it was cancelled before, and return whether it was not.

        The answer is `error`, whatever the handler does then.
        """
        if self._error is not None:
            return False
        self._error = error
        self._ctx.is_cancelled = True
        self._task.cancel()
        return True

    async def result(self, pending: Awaitable[Any], on_failure: Callable[[Exception], None]) -> Any:
        """Await the result of the handler.

        Args:
            pending: the result.
            on_failure: called with what the handler raises after it was cancelled.

        Raises:
            Error: the one given to `cancel`. Or whatever the handler raises.
        """
        result = None
        try:
            result = await pending
        except asyncio.CancelledError:
            if self._error is None or self._task.cancelling() > 1:  # it is not only `cancel` that ends this task
                raise
        except Exception as exc:
            if self._error is None:
                raise
            on_failure(exc)
        finally:
            if self._error is not None:
                self._task.uncancel()
        if self._error is not None:
            raise Error(self._error.code, self._error.message)  # a new one: one that is raised holds on to its frames
        return result
