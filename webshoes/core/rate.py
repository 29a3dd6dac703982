"""How many calls a second one connection may make: a token bucket."""

from __future__ import annotations

from collections.abc import Callable

from webshoes.core.errors import Error
from webshoes.core.meter import Meter

PATIENCE = 10.0  # seconds of going on after which a connection is closed
PAUSE = 1.0  # seconds without a refusal that end it


class Rate:
    """The bucket of one connection: it holds a second's calls, and fills as time goes.

    Args:
        meter: the limits.
        clock: monotonic seconds.
        give_up: called when a connection went on for `PATIENCE`.
    """

    __slots__ = ('_at', '_clock', '_give_up', '_left', '_meter', '_refused')

    def __init__(self, meter: Meter, clock: Callable[[], float], give_up: Callable[[], None]) -> None:
        self._meter = meter
        self._clock = clock
        self._give_up = give_up
        self._left = float('inf')
        self._at = 0.0
        self._refused = (0.0, 0.0)  # since when, and when last

    def check(self) -> None:
        """Take a call out of the bucket.

        Raises:
            Error: 429, it is empty.
        """
        rate = self._meter.limits.max_rate
        if rate is None:
            return
        now = self._clock()
        size = max(rate, 1.0)
        self._left = min(size, self._left + (now - self._at) * rate)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return
        self._meter.met('max_rate')
        since, last = self._refused
        since = now if now - last > PAUSE or not last else since
        self._refused = since, now
        if now - since >= PATIENCE:
            self._give_up()
        raise Error(429, f'This connection may make {rate:g} calls a second')
