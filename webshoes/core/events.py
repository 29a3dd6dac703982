"""The versioned store, and subscribers as cursors into it: section 6.

    log of an event, epoch 'kQzPmXaB'         41 ── 42 ── 43 ── 44 ── 45   the newest always stays
    a subscription that keeps up                                       ↑   cursor 45: nothing to send
    one that is behind                               ↑                     cursor 42: gets 43, 44, 45
    one that the log no longer reaches     ↑                               cursor 38: gets 41 with from 39, 42, ...

A trigger appends; a subscription moves its cursor when its connection takes the next version. So what a slow client
costs is one integer, whatever is triggered.

The store is used from any thread, and each of its methods holds the lock that it was given. It does not know of
connections: whoever sends asks `Store.take_news` for the events to look at.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, Protocol

from msgspec import Struct, field

from webshoes.core import codec
from webshoes.core.audience import Subscription
from webshoes.core.handler import Function
from webshoes.core.limits import Limits
from webshoes.core.names import Since

NEWS = 128  # versions of an event that are sent to all who lack them in one go
ENDED = 1 << 62  # a cursor that lacks nothing, whatever is triggered


class Later(Protocol):
    """Who is told of a version that comes to be later."""

    def resolve(self, result: int) -> None:
        """Take its number."""


_Trigger = tuple[str, bytes, float, bool, Later | None]


class Version(Struct, frozen=True, gc=False):
    """One trigger: its number, its Unix time in seconds, its data as JSON, and how many bytes there were up to it."""

    ver: int
    t: float
    data: bytes
    end: int

    @property
    def mark(self) -> bytes:
        """The version and the time as they stand in a push."""
        return b',"ver":%d,"t":%a' % (self.ver, self.t)


class Push(Struct, frozen=True):
    """A version on its way to one subscription: the first version it stands for, the epoch it opens, where needed."""

    version: Version
    start: int | None
    epoch: str | None


class Position(Struct, frozen=True):
    """Where a subscription begins. `recovered`: whether all that was missed follows; `None` where nothing was asked."""

    ver: int
    epoch: str
    recovered: bool | None


class _Event(Struct, eq=False):
    epoch: str
    history: int
    distinct: bool = False
    read: Function | None = None
    configured: bool = False
    log: deque[Version] = field(default_factory=deque)
    subscriptions: dict[Subscription[Any], None] = field(default_factory=dict)
    told: int = 0  # the newest version that was news

    @property
    def ver(self) -> int:
        return self.log[-1].ver if self.log else 0


class Store:
    """All events of one app.

    Args:
        limits: `history` and `history_bytes` are read.
        lock: held whenever an event is read or changed; reentrant, as a signal handler may trigger while its thread
            holds it. `contextlib.nullcontext()` where one thread is all there is.
        epoch: the name of the history that begins with this store, random.
        met: told of `history` or `history_bytes` for each version that goes.

    Attributes:
        lock: as given.
        events: the events that exist, by name; read without the lock, only whether one is there.
        wake: called, under the lock, when there is something to be asked of `take_news`; not again until it was.
    """

    def __init__(
        self,
        limits: Limits,
        lock: AbstractContextManager[Any],
        epoch: str,
        met: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.lock = lock
        self._is_triggering = False
        self._deferred: deque[_Trigger] = deque()
        self._history, self._history_bytes = limits.history, limits.history_bytes
        self._epoch = epoch
        self._met = met
        self.events: dict[str, _Event] = {}
        self._changed: dict[str, None] = {}

    def leave(self, lock: AbstractContextManager[Any]) -> None:
        """Go on alone in a forked child, with a lock that nobody holds."""
        self.lock, self.wake = lock, lambda: None

    def configure(
        self, name: str, history: int | None = None, distinct: bool | None = None, read: Function | None = None
    ) -> None:
        """Set how an event behaves; `None` leaves a setting as it is."""
        with self.lock:
            event = self._event(name)
            if history is not None:
                event.history = history
            if distinct is not None:
                event.distinct = distinct
            if read is not None:
                event.read = read
            event.configured = event.configured or (history, distinct, read) != (None, None, None)
            self._trim(event)
            self._forget_if_empty(name, event)

    def reader(self, name: str) -> Function | None:
        """What gives an event its first value, where it has none yet."""
        with self.lock:
            event = self.events.get(name)
            return None if event is None or event.ver else event.read

    def trigger(
        self, name: str, data: bytes, t: float, only_first: bool = False, later: Later | None = None
    ) -> int | None:
        """Append a version.

        Args:
            name: the event.
            data: its new value, JSON.
            t: Unix time in seconds.
            only_first: leave an event that has a value as it is.
            later: told of the number that this could not return.

        Returns:
            The newest version's number. `None` where a signal handler triggers while its thread is doing just that: the
            version is made when the handler has returned.
        """
        with self.lock:
            if self._is_triggering or self._deferred:
                if self._is_inside():
                    self._deferred.append((name, data, t, only_first, later))
                    return None
                self._catch_up()  # on what a trigger has left that an exception ended
            self._is_triggering = True
            ver = self._append(name, data, t, only_first)
            self._is_triggering = False
            if self._deferred:
                self._catch_up()
            return ver

    def _is_inside(self) -> bool:
        """Return whether a signal handler calls this while its thread, which has the lock, is triggering.

        The mark alone does not tell: it stays set when an exception ends a trigger, whose frame is on no stack then.
        """
        frame = sys._getframe(1).f_back
        while frame is not None and not (frame.f_code is _TRIGGER and frame.f_locals['self'] is self):
            frame = frame.f_back
        return frame is not None

    def _catch_up(self) -> None:
        while self._deferred:
            self._is_triggering = True
            name, data, t, only_first, later = self._deferred.popleft()
            ver = self._append(name, data, t, only_first)
            self._is_triggering = False
            if later is not None:
                later.resolve(ver)

    def _append(self, name: str, data: bytes, t: float, only_first: bool) -> int:
        """One step after which all is well, whatever exception a signal handler raises between any two of them."""
        event = self.events.get(name)
        if event is None:
            event = self._event(name)
        log, ver, end = event.log, 1, len(data)
        if log:
            last = log[-1]
            if only_first or (event.distinct and _is_same(data, last.data)):
                return last.ver
            ver, end = last.ver + 1, last.end + end
        if event.subscriptions:  # before the version is there: what is in the log is sure to be looked at
            if not self._changed:
                self.wake()
            self._changed[name] = None
        log.append(Version(ver, t, data, end))
        oldest = log[0]
        if len(log) > event.history or end - oldest.end + len(oldest.data) > self._history_bytes:
            self._trim(event)
        return ver

    def newest(self, name: str) -> tuple[str, Version | None]:
        """An event's epoch, and its newest version if it ever had one."""
        with self.lock:
            event = self.events.get(name)
            return (self._epoch, None) if event is None else (event.epoch, event.log[-1] if event.log else None)

    def subscribe(self, subscription: Subscription[Any], since: Since | None) -> Position:
        """Begin, or begin anew, at `since`: from here on nothing is lost and nothing doubled."""
        with self.lock:
            event = self._event(subscription.name)
            event.subscriptions[subscription] = None
            if since is None:
                subscription.cursor, recovered = max(event.ver - 1, 0), None
            elif since.epoch in (event.epoch, None) and since.ver <= event.ver:
                oldest = event.log[0].ver if event.log else 1
                subscription.cursor, recovered = since.ver, since.ver >= oldest - 1
            else:
                subscription.cursor, recovered = max(event.ver - 1, 0), False
                subscription.announce = True
            return Position(event.ver, event.epoch, recovered)

    def unsubscribe(self, subscription: Subscription[Any]) -> None:
        """End a subscription; an event without value and subscriber is forgotten."""
        with self.lock:
            event = self.events[subscription.name]
            del event.subscriptions[subscription]
            subscription.cursor = ENDED
            self._forget_if_empty(subscription.name, event)

    def next_push(self, subscription: Subscription[Any]) -> Push | None:
        """Move a cursor forward by one push, or say that it is at the newest version."""
        with self.lock:
            event = self.events[subscription.name]
            wanted = subscription.cursor + 1
            if wanted > event.ver:
                return None
            version = event.log[max(wanted - event.log[0].ver, 0)]
            epoch = event.epoch if subscription.announce else None
            start = wanted if wanted < version.ver and epoch is None else None
            subscription.cursor, subscription.announce = version.ver, False
            return Push(version, start, epoch)

    def lag(self, subscription: Subscription[Any]) -> int:
        """How many versions a subscription is behind."""
        with self.lock:
            event = self.events.get(subscription.name)
            return event.ver - subscription.cursor if event is not None else 0

    def subscribers(self, name: str) -> list[Any]:
        """The owners of an event's subscriptions, each once, the first to come first."""
        with self.lock:
            event = self.events.get(name)
            owners = (subscription.owner for subscription in event.subscriptions) if event is not None else ()
            return list(dict.fromkeys(owners))

    def take_news(self) -> list[tuple[str, list[Version]]]:
        """The events that were triggered since this was last asked.

        Returns:
            Of each its new versions; the newest, where they are many.
        """
        found = []
        with self.lock:
            changed, self._changed = self._changed, {}
            for name in changed:
                event = self.events.get(name)
                if event is not None and event.log:
                    newest = event.log[-1]
                    count, event.told = newest.ver - event.told, newest.ver
                    if count and event.subscriptions:  # no count where an exception ended the trigger
                        news = [newest] if count == 1 else [*islice(reversed(event.log), min(count, NEWS))][::-1]
                        found.append((name, news))
        return found

    def _event(self, name: str) -> _Event:
        event = self.events.get(name)
        if event is None:
            event = self.events[name] = _Event(self._epoch, self._history)
        return event

    def _trim(self, event: _Event) -> None:
        log = event.log
        while (count := len(log)) > 1:
            oldest = log[0]
            if count > event.history:
                limit = 'history'
            elif log[-1].end - oldest.end + len(oldest.data) > self._history_bytes:
                limit = 'history_bytes'
            else:
                return
            log.popleft()
            self._met(limit)

    def _forget_if_empty(self, name: str, event: _Event) -> None:
        if not (event.ver or event.subscriptions or event.configured):
            del self.events[name]


_TRIGGER = Store.trigger.__code__


class Event:
    """What `wsa.event(name)` gives: an event as it stands at the moment of asking.

    A command that hands out a state together with the position it belongs to reads the position first, then the
    state; a page subscribes from there and sees what came in between twice rather than never.
    """

    __slots__ = ('_store', 'name')

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.name = name

    def __repr__(self) -> str:
        return f'<Event {self.name!r}, version {self.ver}>'

    @property
    def ver(self) -> int:
        """The number of the newest version, 0 if the event was never triggered."""
        version = self._store.newest(self.name)[1]
        return version.ver if version else 0

    @property
    def epoch(self) -> str:
        """The name of the event's history."""
        return self._store.newest(self.name)[0]

    @property
    def value(self) -> Any:
        """The newest value, decoded anew each time, `None` if the event was never triggered."""
        version = self._store.newest(self.name)[1]
        return json.loads(version.data) if version else None


def _is_same(data: bytes, other: bytes) -> bool:
    """Return whether two JSON texts hold equal data, in whatever order their keys stand."""
    if len(data) != len(other):  # another order of keys has the same length
        return False
    return data == other or codec.encode_sorted(json.loads(data)) == codec.encode_sorted(json.loads(other))
