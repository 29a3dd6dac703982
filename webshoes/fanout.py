"""Between the store and the connections: one wake-up of the loop, however many triggers, from whatever thread."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from threading import get_ident

from webshoes.core.audience import Audiences
from webshoes.core.events import Store
from webshoes.core.spread import Spread
from webshoes.loops import soon

SLICE = 0.003  # seconds of fan-out before other work has its turn
CHUNK = 128  # subscriptions between two looks at the clock


class Fanout:
    """Wakes those whose events were triggered, a slice at a time; nobody waits for anybody.

    Args:
        store: whose changes are fanned out.
        loop: where the connections live.
        audiences: who lives there.
        limit: bytes that may be written to a connection in one go.
        before: has all that was answered sent, and stalls looked for.
    """

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        audiences: Audiences,
        limit: int,
        before: Callable[[], None],
    ) -> None:
        self._store = store
        self._loop = loop
        self._audiences = audiences
        self._limit = limit
        self._before = before
        self._wakes: deque[Callable[[], None]] = deque()
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

    def wake_soon(self, wake: Callable[[], None]) -> None:
        """Have somebody woken before what is triggered from here on is sent; from any thread."""
        self._wakes.append(wake)
        self.request()

    def flush(self) -> None:
        """Wake the subscribers of all that was triggered."""
        self._is_asked = True
        if not self._is_running:
            self._is_running = True
            self._run()

    def finish(self) -> None:
        """Wake them in one go, however many: the connections are about to be closed."""
        self._send_all()  # first: to the audience of an event one spread at a time
        self._take_news()
        self._send_all()

    def _send_all(self) -> None:
        while self._left:
            if self._left[0].send(sys.maxsize):
                self._left.popleft()

    def _take_news(self) -> None:
        for name, versions in self._store.take_news():
            audience = self._audiences.of(name)
            if audience is not None:  # or nobody listens on this loop, but on that of a run that was given up
                self._left.append(Spread(versions, audience, self._limit))
        self._tell_first()

    def _tell_first(self) -> None:
        """Send what was answered, or pushed to one connection alone, before what was triggered then."""
        self._before()
        while self._wakes:
            self._wakes.popleft()()

    def _run(self) -> None:
        left, deadline = self._left, self._loop.time() + SLICE
        if left:  # others had their turn
            self._tell_first()
        while left or self._is_asked:
            if not left:
                self._is_asked = False
                self._take_news()
            elif left[0].send(CHUNK):
                left.popleft()
            if left and self._loop.time() > deadline:
                self._loop.call_soon(self._run)
                return
        self._is_running = False
