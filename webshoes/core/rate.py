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
    """

    __slots__ = ('_at', '_clock', '_left', '_meter', '_refused')

    def __init__(self, meter: Meter, clock: Callable[[], float]) -> None:
        self._meter = meter
        self._clock = clock
        self._left = float('inf')
        self._at = 0.0
        self._refused = (0.0, 0.0)  # since when, and when last

    def check(self, give_up: Callable[[], None]) -> None:
        """Take a call out of the bucket.

        Args:
            give_up: called when the connection went on for `PATIENCE`. It is not kept: a connection that its own
                bucket holds on to would be let go of by the garbage collector only.

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
            give_up()
        raise Error(429, f'This connection may make {rate:g} calls a second')
