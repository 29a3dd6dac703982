"""The newest versions of an event on their way to all who listen."""

from __future__ import annotations

from collections.abc import Sequence

from webshoes.core import frames
from webshoes.core.audience import Audience, Row
from webshoes.core.events import Version


class Spread:
    """Sends the newest versions of an event: to the rows of its audience, and then has the others look for themselves.

    Args:
        versions: they, in order, without a gap.
        audience: who may lack them. Another spread to it begins when this has ended.
        limit: bytes that may be written to one of them in one go; at most `frames.BIG`, so that nothing is written here
            that has to be announced.
    """

    __slots__ = ('_apart', '_limit', '_newest', '_rows', '_versions')

    def __init__(self, versions: Sequence[Version], audience: Audience, limit: int) -> None:
        self._versions = versions
        self._limit = limit
        self._newest = versions[-1].ver
        before, audience.ver = audience.ver, max(self._newest, audience.ver)
        self._rows: list[Row] = []
        for row in [*audience.rows.values()] if before < self._newest else ():
            parts, size = self._around(before, *row.shape[1:])
            if parts:
                row.begin(self._newest, parts, size)
                self._rows.append(row)
            else:
                for subscription in [*row.members]:
                    audience.unseat(subscription)
        self._apart = [*audience.apart]

    def send(self, count: int) -> bool:
        """Send to so many; whether that was all."""
        if self._rows:
            row = self._rows[-1]
            row.send(count)
            if not row.left:
                self._rows.pop()
        else:
            for subscription in self._apart[-count:]:
                if subscription.cursor < self._newest:
                    subscription.owner.mark_stale(subscription)
                    subscription.owner.wake()
            del self._apart[-count:]
        return not (self._rows or self._apart)

    def _around(self, cursor: int, size: int, key: bytes) -> tuple[list[bytes], int]:
        """What stands around each head of so many bytes, and how many it is with these.

        Nothing where not all of what is lacking is here, or it is too much.
        """
        lacking = self._versions
        if lacking[0].ver <= cursor:
            lacking = lacking[cursor + 1 - lacking[0].ver :]
        if lacking[0].ver != cursor + 1:
            return [], 0
        parts, before, total = list[bytes](), b'', 0
        for version in lacking:
            tail = b'%b%b%b}' % (version.mark, key, version.data)
            header = frames.header(frames.TEXT, size + len(tail))
            parts.append(before + header)
            total += len(header) + size + len(tail)
            before = tail
        parts.append(before)
        return (parts, total) if total <= self._limit else ([], 0)
