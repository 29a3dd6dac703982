"""The newest versions of an event on their way to many: what all get alike is made once, and each uid joins it.

    uid.join([header, version 41 + header, version 42 + header, version 43])

is what one subscriber gets, in one write. It is for those who lack nothing else; others are left to their feeds.
"""

from __future__ import annotations

from collections.abc import Sequence

from webshoes.core import frames
from webshoes.core.events import Subscription, Version
from webshoes.core.feed import BATCH, Feed

_Last = tuple[int, int, bytes, list[bytes], int]
_NOBODY: _Last = (-1, -1, b'', [], 0)


class Spread:
    """Sends the newest versions of an event.

    Args:
        versions: they, in order, without a gap.
        subscriptions: who may lack them.
    """

    __slots__ = ('_last', '_next', '_subscriptions', '_versions')

    def __init__(self, versions: Sequence[Version], subscriptions: Sequence[Subscription[Feed]]) -> None:
        self._versions = versions
        self._subscriptions = subscriptions
        self._next = 0
        self._last = _NOBODY

    def send(self, count: int) -> bool:
        """Send to so many of the subscribers; whether that was all."""
        newest = self._versions[-1].ver
        cursor, size, key, parts, total = self._last
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
                parts, total = self._around(cursor, size, key)
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
        self._last = cursor, size, key, parts, total
        return self._next >= len(self._subscriptions)

    def _around(self, cursor: int, size: int, key: bytes) -> tuple[list[bytes], int]:
        """What stands around each head of so many bytes, and how many it is with these.

        Nothing where nothing is new, not all of it is here, or it is too much.
        """
        lacking = self._versions
        if lacking[0].ver <= cursor:
            lacking = lacking[cursor + 1 - lacking[0].ver :]
        if not lacking or lacking[0].ver != cursor + 1:
            return [], 0
        parts, before, total = list[bytes](), b'', 0
        for version in lacking:
            tail = b'%b%b%b}' % (version.mark, key, version.data)
            header = frames.header(frames.TEXT, size + len(tail))
            parts.append(before + header)
            total += len(header) + size + len(tail)
            before = tail
        parts.append(before)
        return (parts, total) if total <= BATCH else ([], 0)
