"""The order of messages about the same subscription: each waits until those before it are answered.

{"evt": "x", "uid": "u"}                 its hook runs, or it waits for a place
{"evt": "x", "uid": "v"}                 waits for nobody
{"evt": "x", "uid": "u", "off": true}    waits for the first
{"evt": "x", "off": true}                waits for all of them
{"evt": "x", "uid": "u"}                 waits for the last
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct


class Subject(Struct, frozen=True):
    """The subscription that a message begins or ends; with `uid` `None` all of the event's. `is_end`: it ends them."""

    event: str
    uid: str | None
    is_end: bool = False


class Ordered(Struct, eq=False, kw_only=True):
    """A message that may have to wait for others.

    Attributes:
        subject: what it is about; `None`: nobody waits for it, and it waits for nobody.
        ahead: how many others it waits for.
        behind: those that wait for it.
    """

    subject: Subject | None = None
    ahead: int = 0
    behind: list[Ordered] | None = None


M = TypeVar('M', bound=Ordered)


class Order(Generic[M]):
    """The messages of one connection that are not answered yet, and are about subscriptions.

    A message waits for the last one before it about the same subscription, and for the last one about all of its
    event. These wait for the ones before them, so that each message waits for few, however many there are.

    Attributes:
        waiting: the messages that wait for others.
    """

    __slots__ = ('_last', 'waiting')

    def __init__(self) -> None:
        self._last: dict[str, dict[str | None, M]] = {}
        self.waiting: dict[M, None] = {}

    def ahead_of(self, subject: Subject) -> list[M]:
        """Return the messages that one about `subject` has to wait for."""
        last = self._last.get(subject.event, {})
        if subject.uid is None:
            return [*last.values()]
        return [last[uid] for uid in (subject.uid, None) if uid in last]

    def enter(self, message: M, ahead: list[M]) -> None:
        """Put a message behind those of `ahead`, and before those that come later."""
        assert message.subject is not None
        event, uid = message.subject.event, message.subject.uid
        if uid is None:
            self._last[event] = {None: message}  # who waits for it waits for all of these
        else:
            self._last.setdefault(event, {})[uid] = message
        message.ahead, message.behind = len(ahead), []
        for other in ahead:
            assert other.behind is not None
            other.behind.append(message)
        if ahead:
            self.waiting[message] = None

    def leave(self, message: M) -> list[M]:
        """Take out a message that is answered, and return those that wait for nobody any more."""
        if message.subject is None or message.behind is None:
            return []  # it was answered at once
        event, uid = message.subject.event, message.subject.uid
        last = self._last.get(event, {})
        if last.get(uid) is message:
            del last[uid]
            if not last:
                del self._last[event]
        behind, message.behind = message.behind, None
        free = []
        for other in behind:
            other.ahead -= 1
            if not other.ahead:
                free.append(other)
        for other in free:
            del self.waiting[other]  # type: ignore[arg-type]
        return free  # type: ignore[return-value]


class Line:
    """The subjects of messages that wait for their turn, so that none overtakes one with the same subject."""

    __slots__ = ('_counts',)

    def __init__(self) -> None:
        self._counts: dict[object, int] = {}

    def enter(self, subject: Subject) -> None:
        """Count a message that begins to wait."""
        for key in (subject.event, (subject.event, subject.uid)):
            self._counts[key] = self._counts.get(key, 0) + 1

    def leave(self, subject: Subject) -> None:
        """Count a message whose turn has come."""
        for key in (subject.event, (subject.event, subject.uid)):
            count = self._counts.pop(key, 1) - 1
            if count:
                self._counts[key] = count

    def has(self, subject: Subject) -> bool:
        """Return whether a message about the same subject waits."""
        event, uid = subject.event, subject.uid
        return (
            event in self._counts if uid is None else not self._counts.keys().isdisjoint(((event, uid), (event, None)))
        )
