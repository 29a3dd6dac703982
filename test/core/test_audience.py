"""Those who keep up with an event are written to all at once, and the others on their own: nobody can tell which."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from webshoes.core import codec, frames
from webshoes.core.audience import Audience
from webshoes.core.context import Context
from webshoes.core.feed import BATCH
from webshoes.core.names import Since
from webshoes.core.session import Session
from webshoes.core.spread import Spread

from .driver import DRIVERS
from .house import House, decoded
from .link import new_scope

EVENTS = ('heat', 'cold')
HISTORY = 5
NEVER = 1 << 30


class Wire:
    """A transport, on which a peer reads what was written, until it is full or closed."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.at_write: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        self.at_write()
        self.frames.append(data)


class Secure(Wire):
    """One of another type."""


class Client:
    """A connection and what its client has got: one subscription to each event at most."""

    def __init__(self, house: House, wire: Wire, uid: str) -> None:
        self.house = house
        self.wire = wire
        self.uid = uid
        self.is_held = self.is_closed = self.is_failing = False
        self.at: dict[str, int] = {}
        self.told: list[Any] = []
        self.wanted: list[Any] = []  # replies and pushes to this connection alone
        self.sent_by_wake = 0
        self.session = Session(house.services, Context(new_scope(), '/', None, 'WS'), self.wake)
        self.session.feed.way = wire

    @property
    def received(self) -> int:
        return sum(map(len, self.wire.frames))

    def wake(self, size: int = NEVER) -> None:
        """As a connection does it: send what there is room for."""
        if self.is_held or self.is_closed:
            return
        if self.is_failing:
            self.session.take(size)
            return
        data = b''.join(self.session.take(size))
        if data:
            self.wire.write(data)
            self.sent_by_wake += len(data)

    def hold(self) -> None:
        """Nothing is taken any more."""
        self.is_held = True
        self.session.feed.shut()

    def let_go(self) -> None:
        """All that waits is taken."""
        self.is_held = False
        self.wake()
        if not (self.is_closed or self.is_held):
            self.session.feed.way = self.wire

    def read(self) -> None:
        """Look at what has come: of each event the next version, a range, or a new start that was asked for."""
        for message in decoded(split(b''.join(self.wire.frames))):
            if 'ver' not in message or 'r' not in message or 'uid' not in message or 'status' in str(message['r']):
                self.told.append(message)
                continue
            event, ver = message['evt'], message['ver']
            assert event in self.at, 'an event that was not asked for, or no more'
            assert (message['uid'], message['r']) == (self.uid, f'{event} {ver}')
            if 'epoch' not in message:
                assert message.get('from', ver) == self.at[event] + 1
            self.at[event] = ver
        self.sent_by_wake -= self.received
        self.wire.frames.clear()


def split(data: bytes) -> list[bytes]:
    """The frames in what was written."""
    found = []
    while data:
        extended = {126: 2, 127: 8}.get(data[1], 0)  # bytes of the size (RFC 6455 section 5.2)
        head = 2 + extended
        size = int.from_bytes(data[2:head], 'big') if extended else data[1]
        found.append(data[: head + size])
        data = data[head + size :]
    return found


CLIENTS = 6
INDEX = st.integers(0, CLIENTS - 1)
EVENT = st.sampled_from(EVENTS)


class Crowd(RuleBasedStateMachine):
    """Clients that come, go, fall behind and catch up in the midst of fan-outs."""

    @initialize()
    def open(self) -> None:
        self.house = House(history=HISTORY)
        self.versions = dict.fromkeys(EVENTS, 0)
        self.spreads: deque[Spread] = deque()
        self.clients = [self.new_client(index) for index in range(CLIENTS)]
        for index in range(CLIENTS):
            self.subscribe(index, 'heat', None)

    def new_client(self, index: int) -> Client:
        return Client(self.house, Secure() if index == 5 else Wire(), 'long' * 40 if index == 4 else f'uid{index}')

    def audience(self, name: str) -> Audience | None:
        return self.house.services.audiences.of(name)

    @rule(name=EVENT, count=st.sampled_from([1, 1, 1, 2, HISTORY + 2]))
    def trigger(self, name: str, count: int) -> None:
        for _ in range(count):
            self.versions[name] += 1
            self.house.store.trigger(name, codec.encode(f'{name} {self.versions[name]}'), 5.0)

    @rule(count=st.sampled_from([1, 1, 2, 9]))
    def fan_out(self, count: int) -> None:
        """One step of it: the next is begun only when the one before has ended."""
        if not self.spreads:
            for name, versions in self.house.store.take_news():
                if (audience := self.audience(name)) is not None:
                    self.spreads.append(Spread(versions, audience, BATCH))
        elif self.spreads[0].send(count):
            self.spreads.popleft()

    @rule(name=EVENT, count=st.sampled_from([1, 2]), steps=st.integers(1, CLIENTS - 1))
    def begin(self, name: str, count: int, steps: int) -> None:
        """A fan-out is on its way: what follows happens in the midst of it."""
        while self.spreads:
            self.fan_out(1)
        self.trigger(name, count)
        for _ in range(1 + steps):
            self.fan_out(1)

    @rule(name=EVENT, index=INDEX, steps=st.integers(1, CLIENTS - 1))
    def begin_and_hold(self, name: str, index: int, steps: int) -> None:
        """In the midst of it one takes nothing any more, and does again before it has ended, or after."""
        self.begin(name, 1, steps)
        self.hold(index)
        self.fan_out(1)

    @rule(index=INDEX, name=EVENT, since=st.sampled_from([None, 'own', 'zero', 'other']))
    def subscribe(self, index: int, name: str, since: str | None) -> None:
        client = self.clients[index]
        client.read()
        own = client.at.get(name, 0)
        asked = {
            None: None,
            'own': Since(own, 'E1'),
            'zero': Since(0, None),
            'other': Since(7, 'E0'),
        }[since]
        message: dict[str, Any] = {'evt': name, 'uid': client.uid}
        if asked is not None:
            message['since'] = {'ver': asked.ver, **({} if asked.epoch is None else {'epoch': asked.epoch})}
        client.session.receive(codec.encode(message))
        client.at[name] = max(self.versions[name] - 1, 0) if asked is None or asked.epoch == 'E0' else asked.ver
        client.wanted.append('Event added')
        client.wake()

    @rule(index=INDEX, name=EVENT)
    def unsubscribe(self, index: int, name: str) -> None:
        client = self.clients[index]
        client.let_go()
        client.read()
        client.session.receive(codec.encode({'evt': name, 'off': True}))
        client.wanted.append('Event removed' if name in client.at else 'No such subscription')
        client.at.pop(name, None)
        client.wake()

    @rule(index=INDEX, size=st.sampled_from([1, NEVER]))
    def call(self, index: int, size: int) -> None:
        """A call is answered, or its answer waits as there is no room, and so does what comes after."""
        client = self.clients[index]
        client.session.receive(b'{"cmd":"cmd/echo","q":{"a":1}}')
        client.session.receive(b'{"cmd":"cmd/echo","q":{"a":1}}')
        client.wanted += [{'a': 1}] * 2
        client.wake(size)

    @rule(index=INDEX)
    def push(self, index: int) -> None:
        self.clients[index].session.feed.push('note', b'"alone"')
        self.clients[index].wanted.append('alone')

    @rule(index=INDEX)
    def hold(self, index: int) -> None:
        self.clients[index].hold()

    @rule(index=INDEX)
    def let_go(self, index: int) -> None:
        self.clients[index].let_go()

    @rule(index=INDEX)
    def fill(self, index: int) -> None:
        """The next that is written there leaves no room for more."""
        client = self.clients[index]

        def full() -> None:
            client.wire.at_write = lambda: None
            client.hold()

        client.wire.at_write = full

    @rule(index=INDEX)
    def leave(self, index: int) -> None:
        self.clients[index].is_closed = True
        self.clients[index].session.close()
        self.clients[index] = self.new_client(index)

    @rule(index=INDEX, is_late=st.booleans())
    def fail(self, index: int, is_late: bool) -> None:
        """A transport that was closed, which is told later on: what is written there is lost, and nobody else's."""
        client = self.clients[index]

        def closed() -> None:
            raise RuntimeError

        if client.is_held or client.session.has_output:
            return
        client.is_failing = True
        client.wire.at_write = closed
        if is_late:
            self.begin('heat', 1, 0)
            self.fan_out(CLIENTS)
        self.leave(index)

    @precondition(lambda self: not self.spreads)
    @rule(name=EVENT)
    def much(self, name: str) -> None:
        """More than is sent in one go."""
        self.versions[name] += 1
        self.house.store.trigger(name, codec.encode(f'{name} {self.versions[name]}') + b' ' * (BATCH + 1), 5.0)

    @invariant()
    def is_in_order(self) -> None:
        """Each subscription stands in one place, with all that belongs to it."""
        for name in EVENTS:
            audience = self.audience(name)
            found = [] if audience is None else [*audience.apart]
            for row in [] if audience is None else audience.rows.values():
                assert row.members
                assert 0 <= row.left <= len(row.members)
                for place, member in enumerate(row.members):
                    assert (member.row, member.place) == (row, place)
                    assert not (member.stale)
                    assert not (member.announce)
                    assert not (member.owner.outbox)
                    assert member.owner.way is not None
                found += row.members
            wanted = [client for client in self.clients if name in client.at]
            assert {member.owner for member in found} == {client.session.feed for client in wanted}
            assert len(found) == len(wanted)

    @invariant()
    def is_counted(self) -> None:
        """What was written past the connection is what it got beside what it sent itself."""
        for client in self.clients:
            assert client.session.feed.written_at_once == client.received - client.sent_by_wake

    def teardown(self) -> None:
        for client in self.clients:
            client.wire.at_write = lambda: None
            client.let_go()
        for count in (0, 1, 1):
            for name in EVENTS:
                self.trigger(name, count)
            for _ in range(2):  # what is on its way, and what is new
                self.fan_out(1)
                while self.spreads:
                    self.fan_out(1)
            for client in self.clients:
                client.wake()
                client.read()
                assert client.at == {name: self.versions[name] for name in client.at}
        for name in EVENTS:
            audience = self.audience(name)
            assert audience is None or not audience.apart, 'who has caught up is written to with all others'
        for client in self.clients:
            found = [
                it.get('error') or (it['r'].get('status', it['r']) if isinstance(it['r'], dict) else it['r'])
                for it in client.told
            ]
            assert found == client.wanted
        while DRIVERS:
            DRIVERS.pop().end()


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=150, stateful_step_count=50, deadline=None, derandomize=True)


# --- one by one ---


def subscribe(client: Client, name: str = 'heat') -> None:
    client.session.receive(codec.encode({'evt': name, 'uid': client.uid}))
    client.wake()
    client.wire.frames.clear()


def spread(house: House) -> list[bool]:
    """Send all news; of each, whether anybody was apart."""
    found = []
    for name, versions in house.store.take_news():
        audience = house.services.audiences.of(name)
        assert audience is not None
        news = Spread(versions, audience, BATCH)
        found.append(bool(audience.apart))
        while not news.send(1):
            pass
    return found


def versions_of(client: Client) -> list[int]:
    """The versions that came since this was last asked."""
    found = [it['ver'] for it in decoded(split(b''.join(client.wire.frames)))]
    client.wire.frames.clear()
    return found


@pytest.mark.parametrize('size', [1, 60, 125, 126, 200])
def test_frames_of_a_row(size: int) -> None:
    """Two versions come in one write, as whole frames, whatever the size of the uid."""
    house = House()
    client = Client(house, Wire(), 'u' * size)
    subscribe(client)
    house.store.trigger('heat', b'"x"', 5.0)
    house.store.trigger('heat', b'"%b"' % (b'y' * 300), 5.0)
    assert spread(house) == [False]
    (data,) = client.wire.frames
    assert all(frame[0] == 0x80 | frames.TEXT for frame in split(data))
    first, second = decoded(split(data))
    assert first == {'evt': 'heat', 'uid': client.uid, 'ver': 1, 't': 5.0, 'r': 'x'}
    assert second == {'evt': 'heat', 'uid': client.uid, 'ver': 2, 't': 5.0, 'r': 'y' * 300}


@pytest.mark.parametrize('more', [0, 1])
def test_news_that_a_row_has(more: int) -> None:
    """Who comes between a trigger and its fan-out has what was triggered before, and gets what came after."""
    house = House()
    first, second = Client(house, Wire(), 'a'), Client(house, Wire(), 'b')
    subscribe(first)
    house.store.trigger('heat', b'1', 5.0)
    first.session.close()
    subscribe(second)
    for _ in range(more):
        house.store.trigger('heat', b'2', 5.0)
    assert spread(house) == [False]
    assert versions_of(second) == [2] * more


def test_two_subscriptions_of_a_connection() -> None:
    """One of them stands in a row, and the other gets the same; it follows when the first has ended."""
    house = House()
    others = [Client(house, Wire(), uid) for uid in 'abc']
    client = Client(house, Wire(), 'x')
    for one in (others[0], client, *others[1:]):
        subscribe(one)
    client.session.receive(codec.encode({'evt': 'heat', 'uid': 'y'}))
    client.wake()
    client.wire.frames.clear()
    for ver in (1, 2):
        house.store.trigger('heat', b'1', 5.0)
        assert spread(house) == [True]
        assert versions_of(client) == [ver] * 2
    client.session.receive(codec.encode({'evt': 'heat', 'uid': 'x', 'off': True}))
    client.wake()
    for ver, is_apart in ((3, True), (4, False)):
        client.wire.frames.clear()
        house.store.trigger('heat', b'1', 5.0)
        assert spread(house) == [is_apart]
        assert versions_of(client) == [ver]
    assert [versions_of(other) for other in others] == [[1, 2, 3, 4]] * 3


@pytest.mark.parametrize(('size', 'is_much'), [(BATCH // 2, False), (BATCH, True)])
def test_much_at_once(size: int, is_much: bool) -> None:
    """More than is sent in one go is left to each connection, and what comes next is written to all at once again."""
    house = House()
    client = Client(house, Wire(), 'a')
    subscribe(client)
    house.store.trigger('heat', b'"%b"' % (b'x' * size), 5.0)
    assert (spread(house), versions_of(client)) == ([is_much], [1])
    house.store.trigger('heat', b'2', 5.0)
    assert (spread(house), versions_of(client)) == ([False], [2])


def test_closed_transport() -> None:
    """One whose transport was closed a moment ago keeps nobody from getting what it cannot get."""
    house = House()
    clients = [Client(house, Wire(), uid) for uid in 'abc']
    for client in clients:
        subscribe(client)
    clients[1].wire.at_write = raise_closed
    house.store.trigger('heat', b'1', 5.0)
    assert spread(house) == [False]
    assert [versions_of(client) for client in clients] == [[1], [], [1]]


def raise_closed() -> None:
    """What a loop has to say of a transport that is closed."""
    raise RuntimeError('closed')
