"""What goes out to one connection: pushes to it alone, subscriptions that hooks agree to, first values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from webshoes.core.context import Context
from webshoes.core.errors import Error
from webshoes.core.handler import compile_function
from webshoes.core.registry import make_entry

from .driver import Gate
from .house import House, Peer, refused

Told = list[tuple[Any, ...]]


def answers(found: list[Any]) -> list[Any]:
    """What was answered or pushed, in short: the status, the code of an error, or the value."""
    return [it.get('code') or (it['r']['status'] if isinstance(it['r'], dict) else it['r']) for it in found]


@pytest.fixture
def told(house: House) -> Told:
    """What the hooks were told, in order."""
    told: Told = []
    for moment in ('subscribe', 'unsubscribe'):
        house.hooks.add(moment, lambda ctx, event, moment=moment: told.append((moment, event)))
    return told


# --- pushes to one connection ---


def test_push(peer: Peer) -> None:
    """A push to one connection has the event, the time and the value, and neither `ver` nor `uid`."""
    peer.session.feed.push('hello', b'{"a":1}')
    assert peer.take() == [{'evt': 'hello', 't': 5.0, 'r': {'a': 1}}]
    assert not peer.session.has_output


def test_push_comes_in_its_turn(house: House, peer: Peer) -> None:
    """Replies and pushes to one connection come in the order in which they came to be, before what is subscribed to."""

    def work(ctx: Context, q: Any) -> str:
        peer.session.feed.push('progress', b'50')
        return 'done'

    house.registry.add(make_entry('job', 'cmd', 'q', 'evt', 'r', {'work': work}))
    house.trigger('heat', 7)
    assert answers(peer.ask({'evt': 'heat'}, {'cmd': 'job/work'})) == ['Event added', 50, 'done', 7]


def test_push_moves_no_cursor(house: House, peer: Peer) -> None:
    """A push to one connection is no version: the next trigger is the next version."""
    peer.ask({'evt': 'heat', 'uid': 'u'})
    peer.session.feed.push('heat', b'"mine"')
    house.trigger('heat', 'all')
    mine, everybodys = peer.take()
    assert (set(mine), mine['r'], everybodys['ver']) == ({'evt', 't', 'r'}, 'mine', 1)


@pytest.mark.parametrize(
    ('subscribed', 'frame'),
    [
        (None, {'evt': 'heat', 't': 5.0, 'r': 1}),
        ({'watch': 'cold'}, {'evt': 'heat', 't': 5.0, 'r': 1}),
        ({'watch': 'heat'}, {'watch': 'heat', 't': 5.0, 'r': 1}),
    ],
)
def test_fields_of_a_push(peer: Peer, subscribed: Any, frame: Any) -> None:
    """A push has the fields of the entry over which its event was subscribed to, else those of the first entry."""
    if subscribed:
        peer.ask(subscribed)
    peer.session.feed.push('heat', b'1')
    assert peer.take() == [frame]


def test_fields_of_a_push_without_entries(house: House, peer: Peer) -> None:
    """Where no entry takes subscriptions, they are `evt` and `r`."""
    house.registry.remove('cmd')
    house.registry.remove('two')
    peer.session.feed.push('heat', b'1')
    assert peer.take() == [{'evt': 'heat', 't': 5.0, 'r': 1}]


def test_push_to_one_that_is_behind() -> None:
    """Past `send_buffer` bytes that wait a push is refused with 429; one alone may be larger."""
    peer = Peer(House(send_buffer=10))
    feed = peer.session.feed
    feed.push('e', b'"' + b'x' * 20 + b'"')
    with pytest.raises(Error, match='22 bytes that were pushed to it wait') as caught:
        feed.push('e', b'1')
    assert caught.value.code == 429
    peer.take()
    for _ in range(10):
        feed.push('e', b'1')
    with pytest.raises(Error, match='too far behind'):
        feed.push('e', b'1')
    assert len(peer.take()) == 10


def test_push_wakes_once(peer: Peer) -> None:
    """Pushes that wait already wake nobody again."""
    for _ in range(3):
        peer.session.feed.push('e', b'1')
    assert peer.wakes == 1
    peer.take()
    peer.session.feed.push('e', b'1')
    assert peer.wakes == 2


def test_push_to_one_that_is_closed(peer: Peer) -> None:
    """A push to a connection that is closed is error 410."""
    peer.session.close()
    with pytest.raises(Error, match='closed') as caught:
        peer.session.feed.push('e', b'1')
    assert caught.value.code == 410


@pytest.mark.parametrize(('name', 'kind'), [('', ValueError), ('x' * 257, ValueError), (7, TypeError)])
def test_push_of_no_event(peer: Peer, name: Any, kind: type[Exception]) -> None:
    """A push is named as an event is."""
    with pytest.raises(kind):
        peer.session.feed.push(name, b'1')
    assert not peer.session.has_output


# --- hooks ---


def test_hooks_are_told(house: House, peer: Peer, told: Told) -> None:
    """Each subscription is told when it begins and when it ends, however it ends."""
    for message in (
        {'evt': 'a', 'uid': 'u'},
        {'evt': 'a', 'uid': 'u'},
        {'evt': 'b', 'uid': 'u'},
        {'evt': 'b', 'off': True},
    ):
        peer.ask(message)
        house.driver.run()
    peer.session.close()
    replaced = [('subscribe', 'a'), ('unsubscribe', 'a')]
    assert told == [('subscribe', 'a'), *replaced, ('subscribe', 'b'), ('unsubscribe', 'b'), ('unsubscribe', 'a')]


def agree(house: House, is_async: bool, answer: Callable[[Context, str], Any]) -> None:
    async def later(ctx: Context, event: str) -> Any:
        return answer(ctx, event)

    house.hooks.add('subscribe', later if is_async else answer)


@pytest.mark.parametrize('is_async', [False, True])
@pytest.mark.parametrize(
    ('raised', 'code', 'failures'),
    [
        (Error(403, 'No'), 403, []),
        (ValueError('secret'), 500, ["on('subscribe')"]),
        (SystemExit(), 500, ["on('subscribe')"]),
    ],
)
def test_a_hook_refuses(house: House, peer: Peer, is_async: bool, raised: Any, code: int, failures: Any) -> None:
    """What a hook raises is the answer, nothing is subscribed to, and what was before stays."""

    def refuse(ctx: Context, event: str) -> None:
        if event == 'secret':
            raise raised

    agree(house, is_async, refuse)
    house.trigger('secret', 1)
    peer.ask({'evt': 'open', 'uid': 'u'})
    house.driver.run()
    peer.take()
    peer.ask({'evt': 'secret', 'uid': 'u', 'tid': 'x'})
    house.driver.run()
    found = [it for it in peer.take() if it.get('tid') == 'x']
    assert (answers(found), house.failures) == ([code], failures)
    assert [it.event for it in peer.session.feed.subscribed()] == ['open']


def test_a_hook_that_waits(house: House, peer: Peer, told: Told) -> None:
    """While a hook waits, what came behind waits, what has a `tid` goes on, and nothing is pushed."""
    gate = Gate()

    async def ask(ctx: Context, event: str) -> None:
        await gate

    house.hooks.add('subscribe', ask)
    house.trigger('heat', 7)
    assert peer.ask({'evt': 'heat', 'uid': 'u'}, {'cmd': 'echo', 'q': {'n': 1}}) == []
    house.driver.run()
    assert [it['tid'] for it in peer.ask({'cmd': 'echo', 'tid': 2})] == [2]
    house.trigger('heat', 8)
    assert peer.take() == []
    gate.is_open = True
    house.driver.run()
    added, echo, *pushes = peer.take()
    assert (added['r']['ver'], echo['r'], [push['ver'] for push in pushes]) == (2, {'n': 1}, [2])


@pytest.mark.parametrize('end', ['close', 'cancel'])
def test_a_hook_that_waits_too_long(house: House, peer: Peer, told: Told, end: str) -> None:
    """A subscription whose connection has gone, or that was cancelled, while a hook waited, is none."""
    gate = Gate()

    async def ask(ctx: Context, event: str) -> None:
        await gate

    house.hooks.add('subscribe', ask)
    peer.ask({'evt': 'heat', 'tid': 'x'})
    house.driver.run()
    if end == 'close':
        peer.session.close()
    else:
        assert answers(peer.ask({'cancel': 'x'})) == [499]
    gate.is_open = True
    house.driver.run()
    assert not peer.session.feed.subscribed()
    assert not house.store.subscribers('heat')
    assert told == [('subscribe', 'heat')] + ([('unsubscribe', 'heat')] if end == 'close' else [])


def test_too_many_while_hooks_wait() -> None:
    """The limit of subscriptions holds however many are asked for at once."""
    house = House(max_subscriptions=2)
    told: Told = []
    agree(house, True, lambda ctx, event: None)
    house.hooks.add('unsubscribe', lambda ctx, event: told.append((event,)))
    peer = Peer(house)
    peer.ask(*({'evt': 'heat', 'uid': f'u{n}', 'tid': n} for n in range(4)))
    house.driver.run()
    assert answers(peer.take()) == ['Event added', 'Event added', 429, 429]
    assert told == [('heat',), ('heat',)]


def test_an_error_of_a_hook_that_only_hears(house: House, peer: Peer, told: Told) -> None:
    """An error of a hook that cannot refuse is logged, and the others are told."""

    def fail(ctx: Context, event: str) -> None:
        raise Error(400, 'nobody reads this')

    async def fail_later(ctx: Context, event: str) -> None:
        raise SystemExit

    house.hooks.add('unsubscribe', fail)
    house.hooks.add('unsubscribe', fail_later)
    house.hooks.add('unsubscribe', lambda ctx, event: told.append(('last', event)))
    peer.ask({'evt': 'heat', 'uid': 'u'})
    house.driver.run()
    assert answers(peer.ask({'evt': 'heat', 'off': True})) == ['Event added', 'Event removed']
    house.driver.run()
    assert told == [('subscribe', 'heat'), ('unsubscribe', 'heat'), ('last', 'heat')]
    assert [failure.split('<locals>.')[-1] for failure in house.failures] == ['fail', 'fail_later']


@pytest.mark.parametrize(
    ('moment', 'fn', 'kind', 'sentence'),
    [
        ('open', print, ValueError, "'connect', 'disconnect', 'subscribe', 'unsubscribe', not 'open'"),
        ('connect', 7, TypeError, r"on\('connect'\): a function fn\(ctx\) is needed, not 7"),
        ('connect', lambda: None, TypeError, r"on\('connect'\) cannot be called as fn\(ctx\): it is .*\(\)"),
        ('subscribe', lambda ctx: None, TypeError, r'cannot be called as fn\(ctx, event\): it is .*\(ctx\)'),
    ],
)  # fmt: skip
def test_a_hook_that_is_none(house: House, moment: str, fn: Any, kind: type[Exception], sentence: str) -> None:
    """What cannot be told is refused when it is registered, in a sentence that says why."""
    with pytest.raises(kind, match=sentence):
        house.hooks.add(moment, fn)


# --- first values ---


def reads(house: House, read: Callable[..., Any], name: str = 'stats') -> None:
    house.store.configure(name, read=compile_function(read, 'read:', ''))


@pytest.mark.parametrize('is_async', [False, True])
@pytest.mark.parametrize('since', [None, {'ver': 0}, {'ver': 7, 'epoch': 'E0'}])
def test_first_value(house: House, peer: Peer, is_async: bool, since: Any) -> None:
    """Where there is no value yet, a subscription reads one, which is version 1 for all."""
    calls = []

    async def later() -> Any:
        return now()

    def now() -> Any:
        calls.append(1)
        return {'load': len(calls)}

    reads(house, later if is_async else now)
    found = []
    for uid in 'ab':
        found += peer.ask({'evt': 'stats', 'uid': uid, **({'since': since} if since else {})})
        house.driver.run()
    found += peer.take()
    pushes = [(it['uid'], it['ver'], it['r']) for it in found if 'evt' in it]
    assert (pushes, calls) == ([('a', 1, {'load': 1}), ('b', 1, {'load': 1})], [1])


def test_first_value_that_comes_late(house: House, peer: Peer) -> None:
    """What is triggered while the first value is read comes first, and stays."""
    gate = Gate()

    async def read() -> Any:
        await gate
        return 'late'

    reads(house, read)
    peer.ask({'evt': 'stats', 'uid': 'u'})
    house.driver.run()
    house.trigger('stats', 'triggered')
    gate.is_open = True
    house.driver.run()
    _, push = peer.take()
    assert (push['ver'], push['r']) == (1, 'triggered')


@pytest.mark.parametrize('read', [lambda: 1 / 0, lambda: object(), lambda: {'a': 1}['b']])
def test_first_value_that_cannot_be_read(house: House, peer: Peer, read: Any) -> None:
    """A first value that cannot be read, or cannot be JSON, is a failure in the log, and there is none."""
    reads(house, read)
    peer.ask({'evt': 'stats', 'uid': 'u'})
    house.driver.run()
    (answer,) = peer.take()
    assert (answer['r']['status'], answer['r']['ver'], len(house.failures)) == ('Event added', 0, 1)
    house.trigger('stats', 5)
    assert [it['r'] for it in peer.take()] == [5]


def test_no_first_value_where_there_is_one(house: House, peer: Peer) -> None:
    """An event that has a value is not read."""
    reads(house, lambda: 1 / 0)
    house.trigger('stats', None)
    assert [it['r'] for it in peer.ask({'evt': 'stats', 'uid': 'u'})][1:] == [None]
    assert not house.failures


# --- how it stands ---


def test_subscriptions_as_they_stand(house: House, peer: Peer) -> None:
    """Each subscription tells the version that was last sent, and how many versions it is behind."""
    peer.ask({'evt': 'a', 'uid': 'u'}, {'evt': 'b', 'uid': 'v'})
    for n in range(3):
        house.trigger('a', n)
    standing = [(it.event, it.uid, it.ver, it.lag) for it in peer.session.feed.subscribed()]
    assert standing == [('a', 'u', 0, 3), ('b', 'v', 0, 0)]
    peer.take()
    assert [(it.ver, it.lag) for it in peer.session.feed.subscribed()] == [(3, 0), (0, 0)]


def test_subscribers(house: House, peer: Peer) -> None:
    """The subscribers of an event are told each once, in the order in which they came."""
    other = Peer(house)
    other.ask({'evt': 'a'}, {'evt': 'a'})
    peer.ask({'evt': 'a'})
    assert house.store.subscribers('a') == [other.session.feed, peer.session.feed]
    other.session.close()
    assert house.store.subscribers('a') == [peer.session.feed]
    assert house.store.subscribers('never') == []


def test_refused_here() -> None:
    """The limit of subscriptions is told with its number."""
    peer = Peer(House(max_subscriptions=1))
    peer.ask({'evt': 'a', 'uid': 'u'})
    assert peer.ask({'evt': 'b'}) == refused(429, 'This connection has 1 subscriptions already')
