"""The newest versions of an event on their way to many: what all get alike is made once, and each uid joins it.

    uid.join([header, version 41 + header, version 42 + header, version 43])

is what one subscriber gets, in one write. It is for those who lack nothing else; others are left to their feeds.
"""

from __future__ import annotations

from collections.abc import Sequence

from webshoes.core import frames
from webshoes.core.events import Subscription, Version
from webshoes.core.feed import Feed

BATCH = 64 * 1024  # bytes that are sent to one in one go, before others have their turn


class Spread:
    """Sends the newest versions of an event.

    Args:
        versions: they, in order, without a gap.
        subscriptions: who may lack them.
    """

    def __init__(self, versions: Sequence[Version], subscriptions: Sequence[Subscription[Feed]]) -> None:
        self._versions = versions
        self._subscriptions = subscriptions
        self._next = 0
        self._cursor, self._size, self._key, self._parts = -1, -1, b'', list[bytes]()  # of the last who got them

    def send(self, count: int) -> bool:
        """Send to so many of the subscribers; whether that was all."""
        newest = self._versions[-1].ver
        cursor, size, key, parts = self._cursor, self._size, self._key, self._parts
        total = _total(size, parts)
        first, self._next = self._next, self._next + count
        for subscription in self._subscriptions[first : self._next]:
            feed = subscription.owner
            way = feed.way
            if way is None or feed.outbox or feed.stale or subscription.announce:
                if subscription.cursor < newest:
                    feed.mark_stale(subscription)
                    feed.wake()
                continue
            head = subscription.head
            if subscription.cursor != cursor or len(head) != size or subscription.key is not key:
                cursor, size, key = subscription.cursor, len(head), subscription.key
                parts = self._around(cursor, size, key)
                total = _total(size, parts)
            if parts:
                subscription.cursor = newest
                try:
                    way.write(head.join(parts))
                    feed.written += total
                except (RuntimeError, AttributeError):  # pragma: no cover  # closed a moment ago, as the loops tell it
                    feed.way = None
            elif cursor < newest:
                feed.mark_stale(subscription)
                feed.wake()
        self._cursor, self._size, self._key, self._parts = cursor, size, key, parts
        return self._next >= len(self._subscriptions)

    def _around(self, cursor: int, size: int, key: bytes) -> list[bytes]:
        """What stands around each head of so many bytes; nothing where nothing is new, not all is here, or too much."""
        lacking = self._versions[max(cursor + 1 - self._versions[0].ver, 0) :]
        if not lacking or lacking[0].ver != cursor + 1:
            return []
        tails = [b''.join((version.mark, key, version.data, b'}')) for version in lacking]
        if sum(map(len, tails)) + size * len(tails) > BATCH:
            return []
        headers = [frames.header(frames.TEXT, size + len(tail)) for tail in tails]
        return [headers[0], *map(bytes.__add__, tails[:-1], headers[1:]), tails[-1]]


def _total(size: int, parts: Sequence[bytes]) -> int:
    """The bytes that one subscriber gets."""
    return sum(map(len, parts)) + size * (len(parts) - 1)
