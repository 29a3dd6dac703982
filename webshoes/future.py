"""The future that a trigger gives: nearly always done at once, and seldom asked."""

from __future__ import annotations

from concurrent.futures import Future
from threading import RLock
from typing import Any

from webshoes import fork

_MAKING = RLock()  # a signal handler may trigger while its thread holds it


def _make_anew() -> None:
    """Replace the lock in a forked child, where the thread that held it does not exist."""
    global _MAKING
    _MAKING = RLock()


fork.in_child(_make_anew)


class LazyFuture(Future[int]):
    """A future whose inside, a condition and all, is made when it is first asked for; a trigger would cost double.

    Attributes:
        known: the result of one that is done before anybody has it.
    """

    known: int | None = None
    __init__ = object.__init__  # nothing is made yet

    def resolve(self, result: int) -> None:
        """Be done."""
        with _MAKING:
            self.known = result
            is_made = '_condition' in self.__dict__
        if is_made:
            self.set_result(result)

    def __getattr__(self, name: str) -> Any:
        with _MAKING:
            if '_condition' in self.__dict__:  # another thread made it meanwhile, or there is no such attribute
                return self.__getattribute__(name)
            super().__init__()
            if self.known is not None:
                self.set_result(self.known)
            return self.__getattribute__(name)
