"""Between the store and the connections: one wake-up of the loop, however many triggers, from whatever thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain
from typing import Any

from webshoes.core.events import Store, Subscription
from webshoes.loops import soon

SLICE = 0.003  # seconds of fan-out before other work has its turn
CHUNK = 32  # subscriptions between two looks at the clock


class Fanout:
    """Wakes those whose events were triggered, a slice at a time; nobody waits for anybody.

    Args:
        store: whose changes are fanned out.
        loop: where the connections live.
    """

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._left: Iterator[Subscription[Any]] = iter(())
        self._is_running = False

    def request(self) -> None:
        """Have the loop fan out; from any thread, once for all triggers until it does."""
        soon(self._loop, self.flush)  # where the loop is closed, what is triggered waits for those who come

    def flush(self) -> None:
        """Wake the subscribers of all that was triggered."""
        if not self._is_running:
            self._is_running = True
            self._run()

    def finish(self) -> None:
        """Wake them in one go, however many: the connections are about to be closed."""
        for subscription in chain(self._left, self._store.take_changed()):
            subscription.owner.mark_stale(subscription)
            subscription.owner.wake()

    def _run(self) -> None:
        deadline = self._loop.time() + SLICE
        while True:
            for count, subscription in enumerate(self._left, 1):
                subscription.owner.mark_stale(subscription)
                subscription.owner.wake()
                if count % CHUNK == 0 and self._loop.time() > deadline:
                    break
            else:
                changed = self._store.take_changed()
                if not changed:
                    self._is_running = False
                    return
                self._left = iter(changed)
            if self._loop.time() > deadline:
                self._loop.call_soon(self._run)
                return
