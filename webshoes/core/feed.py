"""What goes out to one connection, and in which order.

outbox           replies, and pushes to this connection alone, as they came to be
subscriptions    cursors into the store; those that may lack something take turns
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from webshoes.core import codec, frames
from webshoes.core.audience import Subscription, Way
from webshoes.core.calls import EMPTY
from webshoes.core.connection import Subscribed
from webshoes.core.context import Context
from webshoes.core.dispatch import is_pending
from webshoes.core.errors import Error
from webshoes.core.events import Position, Push
from webshoes.core.handler import Function
from webshoes.core.names import Since, check_event
from webshoes.core.services import Services

BATCH = 64 * 1024  # bytes that are sent in one go, before others have their turn


def headroom(send_buffer: int) -> int:
    """Bytes of a connection's buffer that are kept for what is written with no look at how much waits in it."""
    return min(BATCH, send_buffer // 4)


class _Notice(Struct, frozen=True):
    """A push to one connection alone."""

    name: str
    t: float
    data: bytes


class Feed:
    """The replies, pushes and subscriptions of one connection.

    Args:
        services: what all connections share.
        ctx: what hooks are told.
        wake: called on the loop when there may be something to send.

    Attributes:
        outbox: frames of replies, and pushes to this connection alone, that wait.
        unsent, noticed: bytes of these frames, and of these pushes.
        header: returns what stands before a text of so many bytes: `frames.text_header`, or `frames.announcing_header`
            for a client that knows the subprotocol.
        stale: subscriptions that may lack something.
        way: where whole frames may be written at once; `None` where they have to wait, or are none.
        written: bytes that were written there, but for those of the rows that its subscriptions stand in.
    """

    __slots__ = (
        '_is_closed',
        '_on',
        '_subscriptions',
        'ctx',
        'header',
        'noticed',
        'outbox',
        'stale',
        'unsent',
        'wake',
        'way',
        'written',
    )

    def __init__(self, services: Services, ctx: Context, wake: Callable[[], None]) -> None:
        self._on = services
        self.ctx = ctx
        self.wake = wake
        self.header: Callable[[int], bytes] = frames.text_header
        self.outbox: list[bytes | _Notice] = []
        self.unsent = 0
        self.noticed = 0
        self._subscriptions: dict[tuple[str, str], Subscription[Feed]] = {}
        self.stale: deque[Subscription[Feed]] = EMPTY
        self.way: Way | None = None
        self.written = 0
        self._is_closed = False

    # --- subscriptions ---

    def subscribe(self, subscription: Subscription[Feed], since: Since | None) -> Position | Awaitable[Position]:
        """Begin a subscription, which replaces the one of the same uid, when the hooks have agreed.

        Returns:
            Its position; an awaitable of it where there are hooks, or a first value is to be had.

        Raises:
            Error: 429, there are too many; or what a hook raises. The awaitable raises the same.
        """
        self._check_room(subscription)
        read = self._on.store.reader(subscription.name)
        if read is None and not self._on.teller.hooks.of('subscribe'):
            return self._begin(subscription, since)
        return self._ask_and_begin(subscription, since, read)

    async def _ask_and_begin(
        self, subscription: Subscription[Feed], since: Since | None, read: Function | None
    ) -> Position:
        await self._on.teller.ask('subscribe', self.ctx, subscription.name)
        failure: BaseException
        try:
            if read is not None:
                await self._read(subscription.name, read)
            self._check_room(subscription)
        except BaseException as exc:
            failure = exc
        else:
            return self._begin(subscription, since)
        self._on.teller.tell('unsubscribe', self.ctx, subscription.name)  # not above: what it raises is its own failure
        try:
            raise failure
        finally:
            del failure  # or it refers to this frame, and this frame to it

    async def _read(self, name: str, read: Function) -> None:
        """Have an event's first value read; if that fails, it has none."""
        try:
            value = self._on.dispatcher.run(read)
            value = await value if is_pending(value) else value
            data = self._on.encoder.encode_event(name, value)
            self._on.store.trigger(name, data, self._on.now(), only_first=True)
        except (Exception, SystemExit, KeyboardInterrupt) as exc:
            self._on.dispatcher.failed(exc, read.name)

    def _check_room(self, subscription: Subscription[Feed]) -> None:
        if self._is_closed:
            raise Error(410, 'The connection is closed')
        limit = self._on.limits.max_subscriptions
        is_new = (subscription.name, subscription.uid) not in self._subscriptions
        if is_new and self._on.meter.over('max_subscriptions', len(self._subscriptions) + 1):
            raise Error(429, f'This connection has {limit} subscriptions already')

    def _begin(self, subscription: Subscription[Feed], since: Since | None) -> Position:
        place = subscription.name, subscription.uid
        if place in self._subscriptions:
            self._drop(place)
        position = self._on.store.subscribe(subscription, since)
        self._on.audiences.add(subscription, position.ver)
        self._subscriptions[place] = subscription
        self.mark_stale(subscription)
        return position

    def unsubscribe(self, name: str, uid: str | None) -> None:
        """End a subscription, or without `uid` all of an event.

        Raises:
            Error: 404, there is none.
        """
        places = [place for place in self._subscriptions if place[0] == name and uid in (None, place[1])]
        if not places:
            raise Error(404, 'No such subscription')
        for place in places:
            self._drop(place)

    def _drop(self, place: tuple[str, str]) -> None:
        subscription = self._subscriptions.pop(place)
        self._on.audiences.remove(subscription)
        self._on.store.unsubscribe(subscription)
        self._on.teller.tell('unsubscribe', self.ctx, place[0])

    def subscribed(self) -> list[Subscribed]:
        """The subscriptions as they stand; from any thread."""
        lag = self._on.store.lag
        return [Subscribed(it.name, it.uid, it.cursor, lag(it)) for it in list(self._subscriptions.values())]

    # --- out ---

    def send(self, reply: bytes) -> None:
        """Send a reply."""
        frame = self.frame(reply)  # no later: orjson's bytes hold on to the 4 KiB that they were written into
        self.outbox.append(frame)
        self.unsent += len(frame)

    def frame(self, message: bytes) -> bytes:
        """Return the frame of a text."""
        size = len(message)
        return (frames.SHORT[size] if size < 126 else self.header(size)) + message

    def encode(self, name: str, value: Any) -> bytes:
        """Return the JSON of an event's data; raises as `Encoder.encode_event`."""
        return self._on.encoder.encode_event(name, value)

    def push(self, name: str, data: bytes) -> None:
        """Send JSON as an event to this connection alone; from any thread.

        Raises:
            TypeError, ValueError: the name is none.
            Error: 410, the connection is closed; 429, too much waits already.
        """
        check_event(name, self._on.limits.max_name)
        with self._on.store.lock:
            if self._is_closed:
                raise Error(410, 'The connection is closed')
            waiting = self.noticed
            if waiting and self._on.meter.over('send_buffer', waiting + len(data)):
                raise Error(429, f'The connection is too far behind: {waiting} bytes that were pushed to it wait')
            self.noticed += len(data)
            self.outbox.append(_Notice(name, self._on.now(), data))
        if not waiting:
            self._on.wake_soon(self.wake)

    def mark_stale(self, subscription: Subscription[Feed]) -> None:
        """Have a subscription looked at, whose event was triggered."""
        if not subscription.stale:
            subscription.stale = True
            self.stale = self.stale or deque()
            self.stale.append(subscription)

    @property
    def has_output(self) -> bool:
        """Return whether there may be something to send."""
        return bool(self.outbox or self.stale)

    def take(self, size: int, dress: Callable[[bytes], bytes]) -> tuple[list[bytes], int]:
        """The next replies, and pushes to this connection alone.

        Args:
            size: how many bytes, about.
            dress: makes what is sent of a push; replies are frames.

        Returns:
            They, and how many of the bytes are left.
        """
        outbox, found = self.outbox, []
        while outbox and size > 0:
            item = outbox.pop(0)  # of few, and a deque takes 760 bytes
            if isinstance(item, _Notice):
                item = dress(self._noticed_frame(item))
            else:
                self.unsent -= len(item)
            found.append(item)
            size -= len(item)
        if outbox:
            self._step_back()
        return found, size

    def _noticed_frame(self, notice: _Notice) -> bytes:
        with self._on.store.lock:
            self.noticed -= len(notice.data)
            if not self.outbox:  # also where a signal handler pushed in the middle of a push
                self.noticed = 0
        evt, rep = self._fields(notice.name)
        return notice_frame(evt, rep, notice.name, notice.t, notice.data)

    def _fields(self, name: str) -> tuple[str, str]:
        """The names of the fields of a push: as the client has subscribed to the event, else the first entry's."""
        for subscription in self._subscriptions.values():
            if subscription.name == name:
                return subscription.evt, subscription.rep
        for entry in self._on.registry.evt_entries.values():
            return entry.evt, entry.rep
        return 'evt', 'r'

    def take_push(self) -> tuple[Subscription[Feed], Push] | None:
        """The next version that a subscription lacks; they take turns."""
        while self.stale:
            subscription = self.stale[0]
            is_live = self._subscriptions.get((subscription.name, subscription.uid)) is subscription
            push = self._on.store.next_push(subscription) if is_live else None
            if push is not None:
                self.stale.rotate(-1)
                return subscription, push
            self.stale.popleft().stale = False
            self._seat(subscription)
        self.stale = EMPTY
        return None

    # --- events that are written at once ---

    def _seat(self, subscription: Subscription[Feed]) -> None:
        """Have a subscription that lacks nothing be written to with all others; one that has ended is nowhere."""
        audience = self._on.audiences.of(subscription.name)
        if audience is not None and self.way is not None:
            audience.seat(subscription, self.way)

    def shut(self) -> None:
        """Nothing may be written at once any more."""
        self.way = None
        self._step_back()

    def _step_back(self) -> None:
        """Have what subscriptions lack wait for what else there is to send."""
        for subscription in self._subscriptions.values():
            if subscription.row is not None:
                self._on.audiences.unseat(subscription)

    @property
    def written_at_once(self) -> int:
        """How many bytes of replies and events were written at once."""
        rows = ((subscription.row, subscription) for subscription in self._subscriptions.values())
        return self.written + sum(row.sent(subscription) for row, subscription in rows if row is not None)

    def close(self) -> None:
        """The connection is gone: end its subscriptions."""
        self.way = None
        with self._on.store.lock:
            self._is_closed = True
        for place in list(self._subscriptions):
            self._drop(place)


def push_frame(subscription: Subscription[Any], push: Push) -> bytes:
    """The push as it is sent (wire, section 5), spliced around data that was encoded when it was triggered."""
    version = push.version
    is_plain = push.start is None and push.epoch is None
    mark = version.mark if is_plain else _mark(push, push.epoch)
    return b''.join((subscription.head, mark, subscription.key, version.data, b'}'))


def _mark(push: Push, epoch: str | None) -> bytes:
    """What tells the place of a push that declares something."""
    mark: dict[str, Any] = {'ver': push.version.ver}
    if push.start is not None:
        mark['from'] = push.start
    if epoch is not None:
        mark['epoch'] = epoch
    return b',' + codec.encode({**mark, 't': push.version.t})[1:-1]


def notice_frame(evt: str, rep: str, name: str, t: float, data: bytes) -> bytes:
    """The push that is no version of an event, to one connection alone."""
    return b'%b,%b:%b}' % (codec.encode({evt: name, 't': t})[:-1], codec.encode(rep or 'r'), data)


def state_frame(subscription: Subscription[Any], epoch: str, push: Push | None) -> bytes:
    """An event as it is answered to a plain request: a push without `uid`, always with `epoch`."""
    head = {subscription.evt: subscription.name}
    if push is None:
        return codec.encode({**head, 'ver': 0, 'epoch': epoch})
    return b''.join((codec.encode(head)[:-1], _mark(push, epoch), subscription.key, push.version.data, b'}'))
