"""The newest versions of an event on their way to many: what all get alike is made once, and each uid joins it.

    uid.join([header, version 41 + header, version 42 + header, version 43])

is what one subscriber gets, in one write. It is for those who lack nothing else; others are left to their feeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

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

    def __init__(self, versions: Sequence[Version], subscriptions: Iterator[Subscription[Feed]]) -> None:
        self._versions = versions
        self._subscriptions = subscriptions

    def send(self, count: int) -> bool:
        """Send to so many of the subscribers; whether that was all."""
        newest = self._versions[-1].ver
        cursor, size, key, parts = -1, -1, b'', list[bytes]()
        left = count
        for subscription in islice(self._subscriptions, count):
            left -= 1
            feed = subscription.owner
            way = feed.way
            if way is None or feed.outbox or feed.stale or subscription.announce or not subscription.is_live:
                feed.mark_stale(subscription)
                feed.wake()
                continue
            if subscription.cursor != cursor or len(subscription.head) != size or subscription.key != key:
                cursor, size, key = subscription.cursor, len(subscription.head), subscription.key
                parts = self._parts(cursor, size, key)
            if parts:
                subscription.cursor = newest
                data = subscription.head.join(parts)
                try:
                    way.write(data)
                    if way.get_write_buffer_size():
                        feed.passes(len(data))
                except (RuntimeError, AttributeError):  # pragma: no cover  # closed a moment ago, as the loops tell it
                    feed.way = None
            elif cursor < newest:
                feed.mark_stale(subscription)
                feed.wake()
        return left > 0

    def _parts(self, cursor: int, size: int, key: bytes) -> list[bytes]:
        """What stands around each head of so many bytes; nothing where nothing is new, not all is here, or too much."""
        lacking = self._versions[max(cursor + 1 - self._versions[0].ver, 0) :]
        if not lacking or lacking[0].ver != cursor + 1:
            return []
        tails = [b''.join((version.mark, key, version.data, b'}')) for version in lacking]
        if sum(map(len, tails)) + size * len(tails) > BATCH:
            return []
        headers = [frames.header(frames.TEXT, size + len(tail)) for tail in tails]
        return [headers[0], *map(bytes.__add__, tails[:-1], headers[1:]), tails[-1]]
