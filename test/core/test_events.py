"""The versioned store and its cursors."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from webshoes.core import codec
from webshoes.core.audience import Subscription
from webshoes.core.errors import Error
from webshoes.core.events import NEWS, Event, Position, Store
from webshoes.core.feed import push_frame
from webshoes.core.limits import Limits
from webshoes.core.names import Since, check_name, check_since

from .house import changed

Pushes = list[tuple[int, int | None, str | None, Any]]


def new_store(epoch: str = 'E1', **limits: Any) -> Store:
    return Store(Limits(**limits), nullcontext(), epoch)


def trigger_one(store: Store, name: str, value: Any, t: float) -> tuple[int, bool]:
    """Trigger an event; the version, and whether the sender was woken."""
    woken: list[None] = []
    store.wake = lambda: woken.append(None)
    ver = store.trigger(name, codec.encode(value), t)
    assert ver is not None
    return ver, bool(woken)


def trigger(store: Store, *values: Any, name: str = 'e') -> list[int]:
    """Trigger an event with each of these values; the versions."""
    return [trigger_one(store, name, value, 5.0)[0] for value in values]


def subscription(name: str = 'e', uid: str = 'u', rep: str = 'r') -> Subscription[Any]:
    return Subscription(None, name, uid, 'evt', rep)


def subscribed(store: Store, ver: int | None = None, epoch: str | None = 'E1') -> Subscription[Any]:
    found = subscription()
    store.subscribe(found, None if ver is None else Since(ver, epoch))
    return found


def drain(store: Store, cursor: Subscription[Any]) -> Pushes:
    """All that a subscription lacks: version, `from`, epoch and value of each push."""
    pushes = []
    while (push := store.next_push(cursor)) is not None:
        pushes.append((push.version.ver, push.start, push.epoch, codec.decode(push.version.data)))
    return pushes


# --- triggering ---


def test_versions_count_from_one() -> None:
    """Each trigger is a new version of its own event, also of an equal value."""
    store = new_store()
    assert trigger(store, 'a', 'a', None) == [1, 2, 3]
    assert trigger(store, 'a', name='other') == [1]


def test_event_as_it_stands() -> None:
    """An event tells its newest version and value and the epoch of its history, decoded anew each time."""
    store = new_store()
    event = Event(store, 'e')
    assert (event.name, event.ver, event.epoch, event.value) == ('e', 0, 'E1', None)
    trigger(store, 1, {'a': 2})
    assert (event.ver, event.epoch, event.value) == (2, 'E1', {'a': 2})
    assert event.value is not event.value


def test_event_that_is_subscribed_and_never_triggered() -> None:
    """An event that has subscribers and no value is at version 0."""
    store = new_store()
    subscribed(store)
    assert (Event(store, 'e').ver, Event(store, 'e').value) == (0, None)


# --- the log ---


@pytest.mark.parametrize(
    ('limits', 'kept'),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({'history': 3}, [3, 4, 5]),
        ({'history': 1}, [5]),
        ({'history_bytes': 8}, [4, 5]),
        ({'history_bytes': 7}, [5]),
        ({'history_bytes': 1}, [5]),
        ({'history': 2, 'history_bytes': 12}, [4, 5]),
    ],
)
def test_log_is_bounded(limits: Any, kept: list[int]) -> None:
    """The log is bounded in count and bytes, and the newest version always stays."""
    store = new_store(**limits)
    trigger(store, *['ab'] * 5)
    assert [ver for ver, *_ in drain(store, subscribed(store, 0, None))] == kept


def test_history_of_one_event() -> None:
    """`history` is one event's own, cuts what is there and lasts."""
    store = new_store()
    trigger(store, *range(5))
    trigger(store, *range(5), name='other')
    store.configure('e', 2, None)
    trigger(store, 5)
    assert [ver for ver, *_ in drain(store, subscribed(store, 0, None))] == [5, 6]
    other = subscription('other')
    store.subscribe(other, Since(0, None))
    assert len(drain(store, other)) == 5


def test_settings_outlive_subscribers() -> None:
    """What was set of an event before its first trigger holds when all its subscribers have gone."""
    store = new_store()
    store.configure('e', 1, None)
    store.unsubscribe(subscribed(store))
    trigger(store, 1, 2)
    assert drain(store, subscribed(store, 0, None)) == [(2, 1, None, 2)]


def test_settings_that_set_nothing() -> None:
    """Setting nothing leaves nothing behind, and keeps what was set."""
    store = new_store()
    store.configure('e', None, None)
    assert not store.events
    store.configure('e', 1, True)
    store.configure('e', None, None)
    assert trigger(store, 1, 1, 2) == [1, 1, 2]
    assert len(drain(store, subscribed(store, 0, None))) == 1


def test_an_event_is_forgotten() -> None:
    """An event without value and subscriber costs nothing; one with a value stays."""
    store = new_store()
    store.unsubscribe(subscribed(store))
    assert not store.events
    trigger(store, 1)
    store.unsubscribe(subscribed(store))
    assert trigger(store, 2) == [2]


# --- distinct ---


@pytest.mark.parametrize(
    ('first', 'second', 'is_same'),
    [
        (1, 1, True),
        (1, 2, False),
        (None, None, True),
        ({'a': 1, 'b': [1]}, {'b': [1], 'a': 1}, True),
        ({'a': {'x': 1, 'y': 2}}, {'a': {'y': 2, 'x': 1}}, True),
        ([1, 2], [2, 1], False),
        ('1', 1, False),
        (True, 1, False),
        (2**70, 2**70, True),
        (2**70, 2**70 + 1, False),
        ({'a': 2**70, 'b': 1}, {'b': 1, 'a': 2**70}, True),
    ],
)
def test_distinct(first: Any, second: Any, is_same: bool) -> None:
    """Of a distinct event equal data makes no new version, and nobody is woken for it."""
    store = new_store()
    store.configure('e', None, True)
    subscribed(store)
    assert trigger(store, first) == [1]
    assert changed(store) == ['e']
    assert trigger_one(store, 'e', second, 6.0) == ((1, False) if is_same else (2, True))
    assert changed(store) == ([] if is_same else ['e'])


def test_distinct_is_of_the_newest() -> None:
    """Data is held against the newest value alone."""
    store = new_store()
    store.configure('e', None, True)
    assert trigger(store, 1, 2, 1, 1) == [1, 2, 3, 3]


def test_distinct_that_is_set_late() -> None:
    """The newest value is known whenever `distinct` is set, also after it was off for a while."""
    store = new_store()
    trigger(store, {'a': 1, 'b': 2})
    store.configure('e', None, True)
    assert trigger(store, {'b': 2, 'a': 1}, 'on') == [1, 2]
    store.configure('e', None, False)
    assert trigger(store, 'on', 'off') == [3, 4]
    store.configure('e', None, True)
    assert trigger(store, 'on', 'on') == [5, 5]


# --- subscribing ---


@pytest.mark.parametrize(
    ('since', 'position', 'pushes'),
    [
        (None, (5, 'E1', None), [(5, None, None, 50)]),
        (Since(5, 'E1'), (5, 'E1', True), []),
        (Since(4, 'E1'), (5, 'E1', True), [(5, None, None, 50)]),
        (Since(2, 'E1'), (5, 'E1', True), [(3, None, None, 30), (4, None, None, 40), (5, None, None, 50)]),
        (Since(1, 'E1'), (5, 'E1', False), [(3, 2, None, 30), (4, None, None, 40), (5, None, None, 50)]),
        (Since(0, 'E1'), (5, 'E1', False), [(3, 1, None, 30), (4, None, None, 40), (5, None, None, 50)]),
        (Since(0, None), (5, 'E1', False), [(3, 1, None, 30), (4, None, None, 40), (5, None, None, 50)]),
        (Since(3, 'E0'), (5, 'E1', False), [(5, None, 'E1', 50)]),
        (Since(0, 'E0'), (5, 'E1', False), [(5, None, 'E1', 50)]),
        (Since(9, 'E0'), (5, 'E1', False), [(5, None, 'E1', 50)]),
        (Since(6, 'E1'), (5, 'E1', False), [(5, None, 'E1', 50)]),
    ],
)
def test_subscribe(since: Since | None, position: Any, pushes: Pushes) -> None:
    """The answer tells the position; what follows begins where `since` says, gaps and new epochs declared."""
    store = new_store(history=3)
    trigger(store, 10, 20, 30, 40, 50)
    cursor = subscription()
    assert store.subscribe(cursor, since) == Position(*position)
    assert drain(store, cursor) == pushes
    trigger(store, 60)
    assert drain(store, cursor) == [(6, None, None, 60)]


@pytest.mark.parametrize(
    ('since', 'position', 'pushes'),
    [
        (None, (0, 'E1', None), [(1, None, None, 'a'), (2, None, None, 'b')]),
        (Since(0, None), (0, 'E1', True), [(1, None, None, 'a'), (2, None, None, 'b')]),
        (Since(0, 'E1'), (0, 'E1', True), [(1, None, None, 'a'), (2, None, None, 'b')]),
        (Since(3, 'E0'), (0, 'E1', False), [(1, None, 'E1', 'a'), (2, None, None, 'b')]),
    ],
)
def test_subscribe_to_what_was_never_triggered(since: Since | None, position: Any, pushes: Pushes) -> None:
    """An event never triggered is at version 0, pushes nothing, and its first versions follow."""
    store = new_store()
    cursor = subscription()
    assert store.subscribe(cursor, since) == Position(*position)
    assert drain(store, cursor) == []
    trigger(store, 'a', 'b')
    assert drain(store, cursor) == pushes


@pytest.mark.parametrize('since', [None, Since(2, 'E1'), Since(2, 'E0')])
def test_between_answer_and_first_push(since: Since | None) -> None:
    """What is triggered between the answer and the first push is neither lost nor doubled."""
    store = new_store()
    trigger(store, 'a', 'b')
    cursor = subscription()
    store.subscribe(cursor, since)
    trigger(store, 'c', 'd')
    vers = [ver for ver, *_ in drain(store, cursor)]
    assert vers == ([3, 4] if since == Since(2, 'E1') else [2, 3, 4])


def test_a_client_that_stalls() -> None:
    """A cursor that the log no longer reaches begins with the log's oldest, whose `from` declares what is gone."""
    store = new_store(history=2)
    trigger(store, 1)
    cursor = subscribed(store)
    assert drain(store, cursor) == [(1, None, None, 1)]
    trigger(store, *range(2, 8))
    assert drain(store, cursor) == [(6, 2, None, 6), (7, None, None, 7)]


def test_a_new_start_of_a_client_that_stalls() -> None:
    """A new start that is overtaken by the log is declared by its epoch alone."""
    store = new_store(history=2)
    trigger(store, 1)
    cursor = subscribed(store, 5, 'E0')
    trigger(store, 2, 3, 4)
    assert drain(store, cursor) == [(3, None, 'E1', 3), (4, None, None, 4)]


def test_cursors_are_apart() -> None:
    """Where one subscription is changes nothing for another."""
    store = new_store()
    first, second = subscribed(store), subscribed(store)
    trigger(store, 1)
    assert drain(store, first) == drain(store, second) == [(1, None, None, 1)]
    store.unsubscribe(first)
    trigger(store, 2)
    assert changed(store) == ['e']
    assert drain(store, second) == [(2, None, None, 2)]


# --- who is to be woken ---


def test_the_sender_is_woken_once() -> None:
    """Of a burst the first trigger wakes the sender, and the next one does after the changes were taken."""
    store = new_store()
    subscribed(store)
    assert [trigger_one(store, 'e', value, 5.0)[1] for value in 'abc'] == [True, False, False]
    assert changed(store) == ['e']
    assert changed(store) == []
    assert trigger_one(store, 'e', 'd', 5.0) == (4, True)


def test_nobody_is_woken_for_nobody() -> None:
    """An event without subscribers wakes nobody, and hides no change of another."""
    store = new_store()
    subscribed(store)
    assert trigger_one(store, 'lonely', 1, 5.0) == (1, False)
    assert trigger_one(store, 'e', 1, 5.0) == (1, True)
    assert changed(store) == ['e']


def test_a_change_of_what_is_gone() -> None:
    """A change whose subscribers have gone since is no one's."""
    store = new_store()
    cursor = subscribed(store)
    trigger(store, 1)
    store.unsubscribe(cursor)
    assert changed(store) == []


def news(store: Store) -> list[tuple[str, list[int]]]:
    """What is new: the versions of each event."""
    return [(name, [version.ver for version in versions]) for name, versions in store.take_news()]


def test_news() -> None:
    """News are the versions since the last ones, of what somebody listens to; the newest alone, of many."""
    store = new_store(history=1000)
    first = subscribed(store)
    trigger(store, 'a')
    subscribed(store)
    assert news(store) == [('e', [1])]
    assert news(store) == []
    trigger(store, 'b', 'c')
    store.unsubscribe(first)
    assert news(store) == [('e', [2, 3])]
    trigger(store, *range(NEWS + 10))
    trigger(store, 'lonely', name='other')
    assert news(store) == [('e', [*range(14, NEWS + 14)])]


def test_news_of_a_trigger_that_was_interrupted() -> None:
    """A trigger that an exception ended before its version was there is no news."""
    store = new_store()
    subscribed(store)
    store.wake = raise_interrupted
    store.configure('e', 5)
    with pytest.raises(Interrupted):
        store.trigger('e', b'1', 5.0)
    assert news(store) == []
    assert trigger(store, 2) == [1]
    assert news(store) == [('e', [1])]


# --- the frame ---


@pytest.mark.parametrize(
    ('since', 'rep', 'frame'),
    [
        (Since(4, 'E1'), 'r', {'evt': 'e', 'uid': 'u', 'ver': 5, 't': 5.0, 'r': {'v': 5}}),
        (Since(1, 'E1'), 'r', {'evt': 'e', 'uid': 'u', 'ver': 3, 'from': 2, 't': 5.0, 'r': {'v': 3}}),
        (Since(1, 'E0'), 'out', {'evt': 'e', 'uid': 'u', 'ver': 5, 'epoch': 'E1', 't': 5.0, 'out': {'v': 5}}),
        (None, '', {'evt': 'e', 'uid': 'u', 'ver': 5, 't': 5.0, 'r': {'v': 5}}),
    ],
)
def test_push_frame(since: Since | None, rep: str, frame: dict[str, Any]) -> None:
    """A push has the fields of section 5 in their order, under the entry's names, `r` where `rep` is ''."""
    store = new_store(history=3)
    trigger(store, *({'v': number} for number in range(1, 6)))
    cursor = subscription(rep=rep)
    store.subscribe(cursor, since)
    push = store.next_push(cursor)
    assert push is not None
    decoded = codec.decode(push_frame(cursor, push))
    assert decoded == frame
    assert list(decoded) == list(frame)


@pytest.mark.parametrize('text', ['"', '\\', '\n', 'é', '\x00', '}'])
def test_push_frame_of_odd_names(text: str) -> None:
    """Names and uids of any characters come back as they are."""
    store = new_store()
    cursor = Subscription(None, text, text, f'evt{text}', f'rep{text}')
    store.subscribe(cursor, None)
    trigger(store, text, name=text)
    push = store.next_push(cursor)
    assert push is not None
    decoded = codec.decode(push_frame(cursor, push))
    assert (decoded[f'evt{text}'], decoded['uid'], decoded[f'rep{text}']) == (text, text, text)


# --- what clients send ---


@pytest.mark.parametrize('name', ['e', 'x' * 8, 'é' * 8, ' ', '*'])
def test_name(name: str) -> None:
    """A name is any text of at most so many characters."""
    assert check_name(name, 8) == name


@pytest.mark.parametrize('name', ['', 'x' * 9, None, 3, True, ['e'], {}])
def test_name_that_is_none(name: Any) -> None:
    """Anything else is 400, naming the field."""
    with pytest.raises(Error, match="'uid' ") as caught:
        check_name(name, 8, 'uid')
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ('since', 'read'),
    [
        ({'ver': 41, 'epoch': 'k'}, (41, 'k')),
        ({'ver': 0, 'epoch': 'k'}, (0, 'k')),
        ({'ver': 0}, (0, None)),
        ({'ver': 2**70, 'epoch': ''}, (2**70, '')),
        ({'ver': 0, 'more': 1}, (0, None)),
    ],
)
def test_since(since: Any, read: Any) -> None:
    """`since` is a version with its epoch, which version 0 alone does not need."""
    assert check_since(since) == Since(*read)


@pytest.mark.parametrize(
    'since',
    [
        *(None, 0, 3, 'E1:3', [], True, {}, {'ver': 3}, {'epoch': 'k'}, {'ver': -1, 'epoch': 'k'}),
        *({'ver': '3', 'epoch': 'k'}, {'ver': 1.0, 'epoch': 'k'}, {'ver': True, 'epoch': 'k'}, {'ver': False}),
        *({'ver': 0, 'epoch': None}, {'ver': 1, 'epoch': 3}, {'ver': None}),
    ],
)
def test_since_that_is_none(since: Any) -> None:
    """Anything else is 400."""
    with pytest.raises(Error, match="'since' is") as caught:
        check_since(since)
    assert caught.value.code == 400


# --- the promise ---


class Client:
    """What a client knows: where it is, and how its next push may begin."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.at: tuple[int, str] | None = None
        self.cursor: Subscription[Client] | None = None
        self.may_begin_anywhere = False
        self.needs_epoch = False

    def take(self, frame: dict[str, Any], epoch: str) -> None:
        """Take a push: it is the next version, a declared range or a declared new start."""
        ver = frame['ver']
        if self.needs_epoch or 'epoch' in frame:
            assert (self.needs_epoch, frame['epoch'], 'from' in frame) == (True, epoch, False)
        elif not self.may_begin_anywhere:
            assert self.at is not None
            assert frame.get('from', ver) == self.at[0] + 1
            assert frame.get('from', 0) < ver
        self.may_begin_anywhere = self.needs_epoch = False
        self.at = ver, epoch


INDEX = st.sampled_from([0, 1])
SINCE = st.sampled_from(['none', 'own', 'zero', 'past', 'future', 'foreign'])


class Promise(RuleBasedStateMachine):
    """Per event, in order, never a silent gap, and the newest value always arrives."""

    HISTORY = 3

    @initialize(count=st.integers(0, HISTORY + 2), index=INDEX, since=SINCE, data=st.data())
    def start(self, count: int, index: int, since: str, data: st.DataObject) -> None:
        self.epochs = 1
        self.clients = [Client('a'), Client('b')]
        self.history = self.HISTORY
        self.begin()
        self.trigger(count)
        self.subscribe(index, since, data)

    def begin(self) -> None:
        self.epoch = f'E{self.epochs}'
        self.store = new_store(self.epoch, history=self.history)
        self.values: list[Any] = [None]
        self.kept = 0
        self.stale: set[Client] = set()
        self.is_woken = False
        for client in self.clients:
            client.cursor = None

    @property
    def newest(self) -> int:
        return len(self.values) - 1

    @rule(count=st.integers(1, HISTORY + 2))
    def trigger(self, count: int) -> None:
        for _ in range(count):
            value = f'{self.epoch}:{self.newest + 1}'
            self.values.append(value)
            self.kept = min(self.kept + 1, self.history)
            ver, wake = trigger_one(self.store, 'e', value, 5.0)
            self.is_woken = self.is_woken or wake
            assert ver == self.newest

    @rule(history=st.integers(1, HISTORY + 1))
    def configure(self, history: int) -> None:
        """The log is made shorter or longer while subscribers are anywhere in it."""
        self.store.configure('e', history)
        self.history, self.kept = history, min(self.kept, history)

    @rule()
    def fan_out(self) -> None:
        """The sender looks for changes only when it was woken."""
        if self.is_woken:
            for name in changed(self.store):
                self.stale |= set(self.store.subscribers(name))
        self.is_woken = False

    @rule(index=INDEX, since=SINCE, data=st.data())
    def subscribe(self, index: int, since: str, data: st.DataObject) -> None:
        client = self.clients[index]
        if client.cursor is not None:
            self.store.unsubscribe(client.cursor)
        asked = {
            'none': None,
            'own': Since(*client.at) if client.at else None,
            'zero': Since(0, None),
            'past': Since(data.draw(st.integers(0, self.newest), label='ver'), self.epoch),
            'future': Since(self.newest + 1, self.epoch),
            'foreign': Since(data.draw(st.integers(0, 9), label='ver'), 'other'),
        }[since]
        client.cursor = Subscription(client, 'e', client.uid, 'evt', 'r')
        position = self.store.subscribe(client.cursor, asked)
        is_here = asked is not None and asked.epoch in (None, self.epoch) and asked.ver <= self.newest
        reaches = is_here and asked is not None and self.newest - asked.ver <= self.kept
        assert position == Position(self.newest, self.epoch, None if asked is None else reaches)
        client.may_begin_anywhere, client.needs_epoch = asked is None, asked is not None and not is_here
        client.at = (asked.ver, self.epoch) if asked is not None and is_here else client.at
        self.stale.add(client)

    @rule(index=INDEX)
    def unsubscribe(self, index: int) -> None:
        client = self.clients[index]
        if client.cursor is not None:
            self.store.unsubscribe(client.cursor)
            client.cursor = None

    @rule(index=INDEX, count=st.integers(1, 3))
    def send(self, index: int, count: int) -> None:
        """A connection that takes some of what it lacks, and then stalls."""
        client = self.clients[index]
        for _ in range(count):
            if client in self.stale and not self.push(client):
                self.stale.discard(client)

    @rule()
    def drain(self) -> None:
        """All connections drain: each client is at the newest version."""
        self.fan_out()
        for client in self.stale:
            while self.push(client):
                pass
        self.stale.clear()
        for client in self.clients:
            if client.cursor is not None and self.newest:
                assert client.at == (self.newest, self.epoch)

    @precondition(lambda self: self.newest > 0)
    @rule()
    def restart(self) -> None:
        """The server begins anew: another history, and nobody connected."""
        self.epochs += 1
        self.begin()

    def push(self, client: Client) -> bool:
        push = self.store.next_push(client.cursor) if client.cursor is not None else None
        if client.cursor is None or push is None:
            return False
        frame = codec.decode(push_frame(client.cursor, push))
        assert frame['r'] == self.values[frame['ver']]
        assert 'from' not in frame or frame['ver'] == self.newest - self.kept + 1
        client.take(frame, self.epoch)
        return True

    def teardown(self) -> None:
        for count in (0, 2, self.HISTORY + 1):
            self.trigger(count)
            self.drain()


TestPromise = Promise.TestCase
TestPromise.settings = settings(max_examples=15, stateful_step_count=12, deadline=None, derandomize=True)


class Interrupted(BaseException):
    """What a signal handler raises."""


def interrupt(step: int, do: Callable[[], object], handler: Callable[[], object]) -> bool:
    """Do something, in which a signal handler is called before the given step of its code; whether it was."""
    left = step

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            sys.settrace(None)
            handler()
        return trace

    before = sys.gettrace()
    gc.disable()  # what Python calls when it collects, be it another library's, is no step of this code
    sys.settrace(trace)
    try:
        do()
    except Interrupted:
        pass
    finally:
        sys.settrace(before)
        gc.enable()
    return left <= 0


def raise_interrupted() -> None:
    """What a signal handler may do."""
    raise Interrupted


def test_a_trigger_that_is_interrupted() -> None:
    """Wherever a signal handler interrupts a trigger: what is in the log is looked at, and the next leaves no gap."""
    for step in itertools.count(1):
        store = new_store(history=2)
        cursor = subscribed(store)
        trigger(store, 'a', 'b')
        drain(store, cursor)
        changed(store)
        was_interrupted = interrupt(step, partial(store.trigger, 'e', b'"c"', 5.0), raise_interrupted)
        looked_at, (_, newest) = changed(store), store.newest('e')
        assert looked_at == ['e'] or (newest is not None and newest.ver == 2)
        ver, is_woken = trigger_one(store, 'e', 'd', 5.0)
        assert is_woken
        pushes = drain(store, cursor)
        assert [push[0] for push in pushes] == list(range(3, ver + 1))
        assert pushes[-1][3] == 'd'
        if not was_interrupted:
            break
    assert step > 20


class Told:
    """Who is told of versions that come to be later."""

    def __init__(self) -> None:
        self.versions: list[int] = []

    def resolve(self, result: int) -> None:
        """One more."""
        self.versions.append(result)


def test_a_trigger_within_a_trigger() -> None:
    """Wherever a signal handler triggers within a trigger: each is a version, and each is told its own."""
    places = set[tuple[int, ...]]()
    for step in itertools.count(1):
        store, made, told = new_store(history=2), dict[str, int | None](), Told()
        cursor = subscribed(store)
        trigger(store, 'a', 'b')
        drain(store, cursor)

        def make(name: str) -> None:
            made[name] = store.trigger('e', codec.encode(name), 5.0, False, told)  # noqa: B023  # of this turn

        was_within = interrupt(step, partial(make, 'outer'), partial(make, 'inner'))
        pushes = {push[3]: push[0] for push in drain(store, cursor)}
        for name, ver in made.items():
            assert pushes[name] == (told.versions[0] if ver is None else ver)
        assert sorted(pushes.values()) == list(range(3, 3 + len(made)))
        assert len(told.versions) == list(made.values()).count(None)
        if not was_within:
            break
        places.add((pushes['outer'], pushes['inner'], len(told.versions)))
    assert places == {(3, 4, 0), (3, 4, 1), (4, 3, 0)}  # after, within, and before


def test_a_trigger_within_a_trigger_that_ends_by_an_exception() -> None:
    """What a signal handler triggers before another one's exception ends the outer trigger comes with the next one."""
    store, told = new_store(), Told()
    cursor = subscribed(store)

    def wake() -> None:
        assert store.trigger('e', b'"inner"', 5.0, False, told) is None
        raise Interrupted

    store.wake = wake
    with pytest.raises(Interrupted):
        store.trigger('e', b'"outer"', 5.0)
    assert trigger(store, 'next') == [2]
    assert told.versions == [1]
    assert [push[3] for push in drain(store, cursor)] == ['inner', 'next']
