"""Between the store and the connections: one wake-up of the loop, however many triggers, from whatever thread."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from threading import get_ident

from webshoes.core.events import Store
from webshoes.core.spread import Spread
from webshoes.loops import soon

SLICE = 0.003  # seconds of fan-out before other work has its turn
CHUNK = 64  # subscriptions between two looks at the clock


class Fanout:
    """Wakes those whose events were triggered, a slice at a time; nobody waits for anybody.

    Args:
        store: whose changes are fanned out.
        loop: where the connections live.
        wrote: called when bytes were written to many.
    """

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, wrote: Callable[[], None]) -> None:
        self._store = store
        self._loop = loop
        self._wrote = wrote
        self._left: deque[Spread] = deque()
        self._is_asked = False
        self._is_running = False
        self._thread = get_ident()

    def request(self) -> None:
        """Have the loop fan out; from any thread, once for all triggers until it does."""
        if get_ident() == self._thread:  # a handler's trigger: the loop need not be woken
            self._loop.call_soon(self.flush)
        else:
            soon(self._loop, self.flush)  # where the loop is closed, what is triggered waits for those who come

    def flush(self) -> None:
        """Wake the subscribers of all that was triggered."""
        self._is_asked = True
        if not self._is_running:
            self._is_running = True
            self._run()

    def finish(self) -> None:
        """Wake them in one go, however many: the connections are about to be closed."""
        self._left.extend(self._news())
        while self._left:
            self._left.popleft().send(sys.maxsize)

    def _news(self) -> list[Spread]:
        return [Spread(versions, subscriptions) for versions, subscriptions in self._store.take_news()]

    def _run(self) -> None:
        self._wrote()
        deadline = self._loop.time() + SLICE
        while self._left or self._is_asked:
            if not self._left:
                self._is_asked = False
                self._left.extend(self._news())
            elif self._left[0].send(CHUNK):
                self._left.popleft()
            elif self._loop.time() > deadline:
                self._loop.call_soon(self._run)
                return
        self._is_running = False
