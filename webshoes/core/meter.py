"""How often each limit was met: `wsa.stats()`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from webshoes.core.limits import Limits, over


class Meter:
    """The limits of one app, and how often each was met.

    Args:
        limits: the app's.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._met = dict.fromkeys((limit.name for limit in fields(Limits)), 0)

    def over(self, name: str, count: float) -> bool:
        """Return whether a count is past a limit; if it is, that is counted."""
        limit: Any = getattr(self.limits, name)
        if not over(count, limit):
            return False
        self.met(name)
        return True

    def met(self, name: str) -> None:
        """A limit was met."""
        self._met[name] += 1

    def read(self) -> dict[str, int]:
        """How often each limit was met so far."""
        return dict(self._met)
