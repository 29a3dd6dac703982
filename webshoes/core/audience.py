"""Who listens to an event. Those who keep up stand in rows, as what is news to one is the same news to all of them:

    uid.join([header, version 41 + header, version 42 + header, version 43])

is what one of them gets, in one write, and nothing but the uid is its own. So a row is written to without a step of
Python for each: `map` has C call `join` and `write`.

    row      a  b  c | d  e       where `left` is 3; a, b and c lack what is being sent, d and e have it
    apart    f  g                 those who are behind, or are sent something else before: left to their owners

Rows are changed on the loop's thread alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from itertools import repeat
from typing import Any, Generic, Protocol, TypeVar

from webshoes.core import codec

_Shape = tuple[type, int, bytes]


class Way(Protocol):
    """The transport of a connection."""

    def write(self, data: bytes) -> None:
        """Send bytes."""


Owner = TypeVar('Owner')


class Subscription(Generic[Owner]):
    """One (connection, event, uid): a cursor.

    Args:
        owner: whose it is; the store does not look at it. A row adds to its `written` the bytes that it was sent, and
            an audience has it `mark_stale` what leaves a row before its turn.
        name: the event.
        uid: the client's name for it.
        evt, rep: the fields of a push that hold the event's name and its value.

    Attributes:
        announce: whether the next push has to tell the epoch, a history that is new to the client.
        stale: the owner's mark that it is to be looked at.
        head, key: how each of its pushes begins, and what stands before the value: JSON. The key of one `rep` is one
            object.
        row, place: where it stands while it keeps up.
        before: bytes that the row's members had been sent when it came.
    """

    __slots__ = (
        '_cursor',
        'announce',
        'before',
        'evt',
        'head',
        'key',
        'name',
        'owner',
        'place',
        'rep',
        'row',
        'stale',
        'uid',
    )

    def __init__(self, owner: Owner, name: str, uid: str, evt: str, rep: str) -> None:
        self.owner = owner
        self.name = name
        self.uid = uid
        self.evt = evt
        self.rep = rep
        self.announce = False
        self.stale = False
        self.head = codec.encode({evt: name, 'uid': uid})[:-1]
        self.key = _key(rep)
        self.row: Row | None = None
        self.place = self.before = 0
        self._cursor = 0

    @property
    def cursor(self) -> int:
        """The version that was last sent; `ENDED` when it has ended."""
        row = self.row
        return self._cursor if row is None else row.cursor(self.place)

    @cursor.setter
    def cursor(self, ver: int) -> None:
        self._cursor = ver


@lru_cache(64)
def _key(rep: str) -> bytes:
    return b',%b:' % codec.encode(rep or 'r')


class Row:
    """Subscriptions that are sent the same versions in the same bytes, but for heads of the same size.

    Args:
        shape: the type of their transports, the size of their heads, their key.
        ver: the newest version that they have.

    Attributes:
        members: the subscriptions.
        left: how many of them lack what is being sent; they come first.
    """

    __slots__ = (
        '_before',
        '_heads',
        '_parts',
        '_sent',
        '_size',
        '_taken',
        '_ver',
        '_ways',
        '_write',
        'left',
        'members',
        'shape',
    )

    def __init__(self, shape: _Shape, ver: int) -> None:
        self.shape = shape
        self.members: list[Subscription[Any]] = []
        self._ways: list[Way] = []
        self._taken: set[Way] = set()  # the same
        self._heads: list[bytes] = []
        self._write: Callable[[Any, bytes], None] = shape[0].write  # type: ignore[attr-defined]  # as a Way has it
        self._parts: list[bytes] = []
        self._ver = self._before = ver
        self._sent = self._size = 0  # bytes to each so far, and how many of these in the last go
        self.left = 0

    def has(self, way: Way) -> bool:
        """Return whether there is a member of this transport."""
        return way in self._taken

    def enter(self, subscription: Subscription[Any], way: Way) -> None:
        """Take in one that has the newest version, the only one of its transport."""
        subscription.row, subscription.place, subscription.before = self, len(self.members), self._sent
        self.members.append(subscription)
        self._ways.append(way)
        self._taken.add(way)
        self._heads.append(subscription.head)

    def leave(self, subscription: Subscription[Any]) -> None:
        """Let one go, with what it has got so far."""
        place = subscription.place
        self._taken.discard(self._ways[place])
        subscription.cursor = self.cursor(place)
        subscription.owner.written += self.sent(subscription)
        subscription.row = None
        if place < self.left:  # the last of those who lack something fills the gap, and leaves one behind
            self.left -= 1
            self._move(self.left, place)
            place = self.left
        self._move(len(self.members) - 1, place)
        del self.members[-1], self._ways[-1], self._heads[-1]

    def _move(self, source: int, target: int) -> None:
        if source != target:  # where they are one, whoever stood there has a new place already
            self.members[target], self._ways[target] = self.members[source], self._ways[source]
            self._heads[target] = self._heads[source]
            self.members[target].place = target

    def cursor(self, place: int) -> int:
        """The version that the member of a place has."""
        return self._ver if place >= self.left else self._before

    def sent(self, subscription: Subscription[Any]) -> int:
        """How many bytes a member was sent here."""
        return self._sent - subscription.before - (0 if subscription.place >= self.left else self._size)

    def begin(self, ver: int, parts: list[bytes], size: int) -> None:
        """Have all members lack what `parts` around their heads make: `size` bytes, up to a version."""
        self._before, self._ver = self._ver, ver
        self._parts, self._size = parts, size
        self._sent += size
        self.left = len(self.members)

    def send(self, count: int) -> None:
        """Send it to so many of those who lack it."""
        last, first = self.left, max(self.left - count, 0)
        ways, frames = iter(self._ways[first:last]), map(bytes.join, self._heads[first:last], repeat(self._parts))
        self.left = first  # before: one that is full leaves in the midst of it, and has got it
        while True:
            try:
                deque(map(self._write, ways, frames), 0)
                return
            except (RuntimeError, AttributeError):  # one that was closed a moment ago, as the loops tell it
                continue


class Audience:
    """All subscriptions of one event, on one loop.

    Args:
        ver: the newest version that was sent.

    Attributes:
        ver: as given, or the one that is being sent.
        rows: those who keep up, by what they have in common.
        apart: the others.
    """

    __slots__ = ('apart', 'rows', 'ver')

    def __init__(self, ver: int) -> None:
        self.ver = ver
        self.rows: dict[_Shape, Row] = {}
        self.apart: dict[Subscription[Any], None] = {}

    def seat(self, subscription: Subscription[Any], way: Way) -> None:
        """Have one that is apart be sent to in a row, where it keeps up; nothing else may wait to be sent to it.

        A row has one of each connection: were there more, all would be written to before the first finds it full.
        """
        if subscription.cursor != self.ver or subscription.announce:
            return
        shape = type(way), len(subscription.head), subscription.key
        row = self.rows.get(shape)
        if row is None:
            row = self.rows[shape] = Row(shape, self.ver)
        if not row.has(way):
            del self.apart[subscription]
            row.enter(subscription, way)

    def unseat(self, subscription: Subscription[Any]) -> None:
        """Leave one to its owner until it is seated again."""
        if self._take_out(subscription):
            self.apart[subscription] = None
            if subscription.cursor < self.ver:
                subscription.owner.mark_stale(subscription)

    def remove(self, subscription: Subscription[Any]) -> None:
        """One has ended."""
        if not self._take_out(subscription):
            del self.apart[subscription]

    def _take_out(self, subscription: Subscription[Any]) -> bool:
        """Have one leave its row, if it stands in any."""
        row = subscription.row
        if row is None:
            return False
        row.leave(subscription)
        if not row.members:
            del self.rows[row.shape]
        return True


class Audiences:
    """Who listens to the events of one app, on one loop."""

    def __init__(self) -> None:
        self._by_event: dict[str, Audience] = {}

    def of(self, name: str) -> Audience | None:
        """Who listens to an event, if anybody does."""
        return self._by_event.get(name)

    def add(self, subscription: Subscription[Any], ver: int) -> None:
        """A subscription begins. `ver`: the event's newest version."""
        audience = self._by_event.get(subscription.name)
        if audience is None:
            audience = self._by_event[subscription.name] = Audience(ver)
        audience.apart[subscription] = None

    def unseat(self, subscription: Subscription[Any]) -> None:
        """As `Audience.unseat`."""
        self._by_event[subscription.name].unseat(subscription)

    def remove(self, subscription: Subscription[Any]) -> None:
        """A subscription has ended."""
        audience = self._by_event[subscription.name]
        audience.remove(subscription)
        if not (audience.apart or audience.rows):
            del self._by_event[subscription.name]
