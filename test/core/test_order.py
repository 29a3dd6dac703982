"""Subscriptions and their ends are handled in the order in which they were sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .driver import Gate
from .house import House, Peer, refused

REMOVED = 'Event removed'
ADDED = 'Event added'
NONE = refused(404, 'No such subscription')[0]


class Asked(House):
    """A server whose `subscribe` hook waits at a gate of its own each time."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(**limits)
        self.gates: list[Gate] = []
        self.ended: list[str] = []
        self.hooks.add('subscribe', self.ask)
        self.hooks.add('unsubscribe', lambda ctx, event: self.ended.append(event))

    async def ask(self, ctx: Any, event: str) -> None:
        gate = Gate()
        self.gates.append(gate)
        await gate

    def open(self, *numbers: int) -> None:
        """Open these gates, in this order, and let all go on as far as it can after each."""
        for number in numbers:
            self.gates[number].is_open = True
            self.driver.run()


def sub(uid: str = 'u', **fields: Any) -> dict[str, Any]:
    return {'evt': 'e', 'uid': uid, **fields}


def off(uid: str | None = 'u', **fields: Any) -> dict[str, Any]:
    return {'evt': 'e', 'off': True, **({} if uid is None else {'uid': uid}), **fields}


def told(answers: list[Any]) -> list[Any]:
    """Of each answer its tid, and its status or code."""
    return [(answer.get('tid'), answer['r']['status'] if 'r' in answer else answer['code']) for answer in answers]


def uids(peer: Peer) -> list[str]:
    return [it.uid for it in peer.session.feed.subscribed()]


@pytest.mark.parametrize('tids', [(1, 2), (1, None), (None, 2), (None, None)])
@pytest.mark.parametrize('uid', ['u', None])
@pytest.mark.parametrize('is_array', [False, True])
def test_off_while_the_hook_is_slow(tids: Any, uid: str | None, is_array: bool) -> None:
    """A subscription that is taken back while its hook is asked is answered, then its end is; nothing is pushed."""
    house = Asked()
    peer = Peer(house)
    house.trigger('e', 1)
    begin, end = ({} if tid is None else {'tid': tid} for tid in tids)
    messages = [sub(**begin), off(uid, **end)]
    assert peer.ask(messages) == [] if is_array else peer.ask(*messages) == []
    house.driver.run()
    house.open(0)
    assert told(peer.take()) == [(tids[0], ADDED), (tids[1], REMOVED)]
    house.driver.run()
    house.trigger('e', 2)
    assert (peer.take(), uids(peer), house.ended) == ([], [], ['e'])
    peer.ask(sub(tid=3))
    house.driver.run()
    house.open(1)
    assert [answer.get('tid') or answer['r'] for answer in peer.take()] == [3, 2]
    assert uids(peer) == ['u']


def test_a_later_subscription_of_the_same_uid_counts() -> None:
    """It is asked for when the end before it was answered, and stays."""
    house = Asked()
    peer = Peer(house)
    peer.ask(sub(tid=1), off(tid=2), sub(tid=3))
    house.driver.run()
    assert len(house.gates) == 1
    house.open(0)
    house.driver.run()
    house.open(1)
    assert told(peer.take()) == [(1, ADDED), (2, REMOVED), (3, ADDED)]
    assert uids(peer) == ['u']


def test_others_are_not_held_up() -> None:
    """Neither the end of another subscription waits, nor a subscription of another uid or event."""
    house = Asked()
    peer = Peer(house)
    peer.ask(sub('a', tid=1))
    house.driver.run()
    house.open(0)
    peer.take()
    assert peer.ask(sub('b', tid=2)) == []
    assert told(peer.ask(off('a', tid=3))) == [(3, REMOVED)]
    peer.ask(sub('c', tid=4), {'evt': 'other', 'uid': 'b', 'tid': 5})
    house.driver.run()
    assert len(house.gates) == 4


@pytest.mark.parametrize('tids', [(1, 2), (None, 2), (1, None), (None, None)])
def test_off_while_all_places_are_taken(tids: Any) -> None:
    """A subscription that waits for a place is taken back, too; what is there already is ended at once."""
    house = Asked(max_in_flight=2)
    peer = Peer(house)
    peer.ask({'evt': 'e', 'uid': 'old', 'tid': 0})
    house.driver.run()
    house.open(0)
    peer.take()
    peer.ask(*({'cmd': 'cmd/wait', 'q': {'door': door}, 'tid': door} for door in 'ab'))
    begin, end = ({} if tid is None else {'tid': tid} for tid in tids)
    assert peer.ask(sub(**begin), off(**end)) == []
    assert told(peer.ask(off('old', tid=9))) == [(9, REMOVED)]
    house.doors.open('a')
    house.driver.run()
    house.open(1)
    assert told([answer for answer in peer.take() if answer.get('tid') != 'a']) == [
        (tids[0], ADDED),
        (tids[1], REMOVED),
    ]
    assert uids(peer) == []


def test_off_needs_no_place() -> None:
    """An end whose subscription is answered comes before calls that wait for a place."""
    house = Asked(max_in_flight=2)
    peer = Peer(house)
    peer.ask({'cmd': 'cmd/wait', 'q': {'door': 'a'}, 'tid': 'a'}, sub(tid=1))
    house.driver.run()
    peer.ask({'cmd': 'cmd/wait', 'q': {'door': 'b'}, 'tid': 'b'}, off(tid=2))
    house.open(0)
    assert told(peer.take()) == [(1, ADDED), (2, REMOVED)]


def test_off_with_tid_does_not_overtake_what_waits_for_its_turn() -> None:
    """A subscription without `tid` that waits behind a call is not overtaken by its end, which has one."""
    house = House()
    peer = Peer(house)
    peer.ask({'cmd': 'cmd/wait', 'q': {'door': 'a'}})
    assert peer.ask(sub(), off(tid=2), sub(tid=3)) == []
    assert told(peer.ask({'evt': 'other', 'uid': 'u', 'tid': 4}, sub('v', tid=5))) == [(4, ADDED), (5, ADDED)]
    assert told(peer.ask(off('v', tid=6))) == [(6, REMOVED)]
    assert peer.ask(off(None, tid=7)) == []
    house.doors.open('a')
    house.driver.run()
    assert told(peer.take()[1:]) == [(None, ADDED), (2, REMOVED), (3, ADDED), (7, REMOVED)]
    assert told(peer.ask(off(tid=8))) == [(8, 404)]


def test_a_subscription_that_is_refused_or_cancelled() -> None:
    """Its end finds nothing, and what comes later counts."""
    house = Asked()
    peer = Peer(house)
    assert told(peer.ask(sub(tid=1), off(tid=2), sub(tid=3), {'cancel': 1})) == [(1, 499)]
    house.driver.run()
    assert told(peer.take()) == [(2, 404)]
    house.driver.run()
    house.open(len(house.gates) - 1)
    assert told(peer.take()) == [(3, ADDED)]
    assert uids(peer) == ['u']


def test_an_end_that_is_cancelled() -> None:
    """It ends nothing, and what waited for it goes on waiting for what is before it."""
    house = Asked()
    peer = Peer(house)
    assert told(peer.ask(sub(tid=1), off(tid=2), sub(tid=3), {'cancel': 2})) == [(2, 499)]
    house.driver.run()
    assert len(house.gates) == 1
    house.open(0)
    house.driver.run()
    house.open(1)
    assert told(peer.take()) == [(1, ADDED), (3, ADDED)]
    assert uids(peer) == ['u']


def test_tid_in_flight() -> None:
    """The `tid` of an end that waits is in flight, and an end cannot have that of another message."""
    peer = Peer(Asked())
    answers = peer.ask(sub(tid=1), off(tid=1), off(tid=2), {'cmd': 'cmd/echo', 'tid': 2})
    assert told(answers) == [(1, 400), (2, 400)]


def test_ends_without_number() -> None:
    """They wait as other messages do, up to `max_queued`, and are then refused; each is answered once."""
    house = Asked(max_queued=100)
    peer = Peer(house)
    peer.ask(sub(tid='s'))
    house.driver.run()
    answers = [answer for number in range(10_000) for answer in peer.ask(off(tid=number))]
    assert told(answers) == [(number, 429) for number in range(100, 10_000)]
    house.open(0)
    assert told(peer.take()) == [('s', ADDED), (0, REMOVED), *((number, 404) for number in range(1, 100))]


def test_the_end_of_a_connection() -> None:
    """Waiting messages are dropped when the peer is gone: nothing is subscribed or answered when the hook returns."""
    house = Asked()
    peer = Peer(house)
    peer.ask(sub(tid=1), off(tid=2), sub(tid=3))
    house.driver.run()
    peer.session.close()
    house.open(0)
    house.driver.run()
    assert (len(house.gates), uids(peer), house.ended) == (1, [], ['e'])


def test_a_server_that_stops() -> None:
    """Each message that waits is answered with 503."""
    house = Asked()
    peer = Peer(house)
    peer.ask(sub(tid=1), off(tid=2), sub(tid=3), off(None, tid=4))
    house.driver.run()
    peer.session.interrupt()
    house.driver.run()
    assert sorted(told(peer.take())) == [(1, 503), (2, 503), (3, 503), (4, 503)]
    assert uids(peer) == []


MESSAGES = st.tuples(st.sampled_from(['sub', 'off']), st.sampled_from(['u', 'v', None]), st.booleans())


@settings(deadline=None, max_examples=300)
@given(st.lists(MESSAGES, max_size=12), st.lists(st.integers(0, 11), max_size=12), st.integers(1, 4))
def test_any_order(script: list[Any], opened: list[int], places: int) -> None:
    """Whatever hooks are slow, the answers and the subscriptions are those of messages handled one after another."""
    house = Asked(max_in_flight=places)
    peer = Peer(house)
    expected: list[tuple[Any, Any]] = []
    there: set[str] = set()
    answers: list[Any] = []
    for number, (kind, uid, has_tid) in enumerate(script):
        tid = {'tid': number} if has_tid else {}
        if kind == 'sub':
            uid = uid or f'new{number}'
            there.add(uid)
            expected.append((tid.get('tid'), ADDED))
            answers += peer.ask(sub(uid, **tid))
        else:
            ended = there & {uid} if uid is not None else {*there}
            there -= ended
            expected.append((tid.get('tid'), REMOVED if ended else 404))
            answers += peer.ask(off(uid, **tid))
        house.driver.run()
        if number < len(opened) and house.gates:
            house.open(opened[number] % len(house.gates))
    while not all(gate.is_open for gate in house.gates) or house.driver.tasks:
        house.open(*range(len(house.gates)))
        answers += peer.take()
    found = told([answer for answer in answers + peer.take() if 'evt' not in answer])
    assert [it for it in found if it[0] is None] == [it for it in expected if it[0] is None]
    assert sorted(it for it in found if it[0] is not None) == sorted(it for it in expected if it[0] is not None)
    assert set(uids(peer)) == there
