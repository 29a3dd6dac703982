"""One WebSocket peer: messages in, messages out."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from webshoes.core import codec
from webshoes.core.registry import make_entry

from .driver import Gate
from .house import House, Peer, changed, decoded, refused

PING = {'ping': 1}
ANY_KIND: list[Any] = [None, True, [], {}, 'x' * 257]
FROM_1: dict[str, Any] = {'from': 1}


def added(uid: str = 'u', ver: int = 0, **more: Any) -> dict[str, Any]:
    """The answer to a subscription."""
    position = {'uid': uid, 'status': 'Event added', 'ver': ver, 'epoch': 'E1'}
    recovered = {'recovered': more.pop('recovered')} if 'recovered' in more else {}
    return {'r': position | recovered, 't': 5.0, **more}


def push(value: Any, ver: int = 1, /, uid: str = 'u', evt: str = 'e', **more: Any) -> dict[str, Any]:
    return {'evt': evt, 'uid': uid, 'ver': ver, **more, 't': 5.0, 'r': value}


# --- the forms ---


@pytest.mark.parametrize(
    ('message', 'answer'),
    [
        ({'cmd': 'cmd/echo', 'q': {'a': 1}}, {'r': {'a': 1}, 't': 5.0}),
        ({'cmd': 'echo', 'q': {'a': 1}, 'tid': 'x'}, {'r': {'a': 1}, 'tid': 'x', 't': 5.0}),
        ({'do': 'two/echo', 'with': {'a': 1}, 'tid': 2}, {'a': 1, 'tid': 2, 't': 5.0}),
        ({'evt': 'e', 'uid': 'u'}, added()),
        ({'evt': 'e', 'uid': 'u', 'tid': 'x'}, added(tid='x')),
        ({'evt': 'e', 'uid': 'u', 'off': False}, added()),
        ({'evt': 'e'}, added('uid0')),
        ({'watch': 'e', 'uid': 'u'}, {'uid': 'u', 'status': 'Event added', 'ver': 0, 'epoch': 'E1', 't': 5.0}),
        ({'cancel': 'x'}, {'cancel': 'x', 'found': False}),
        ({'cancel': 1.5}, {'cancel': 1.5, 'found': False}),
        ({'ping': 3}, {'pong': 3}),
        ({'ping': 'a'}, {'pong': 'a'}),
        ({'ping': 1, 'tid': 'x'}, {'pong': 1}),
    ],
)
def test_form(peer: Peer, message: Any, answer: Any) -> None:
    """Each form of section 5 has its answer."""
    assert peer.ask(message) == [answer]


@pytest.mark.parametrize(
    ('message', 'code', 'error'),
    [
        *((value, 400, 'A message is a JSON object') for value in (None, 0, 'text', True, 1.5)),
        ([], 400, 'An array of messages has at least one'),
        ({}, 400, 'Invalid command'),
        ({'frog': 1}, 400, 'Invalid command'),
        ({'off': True, 'uid': 'u'}, 400, 'Invalid command'),
        *(({'cmd': value}, 400, 'Invalid command') for value in ['', *ANY_KIND[:-1]]),
        ({'cmd': 'x' * 1025}, 400, 'A command has at most 1024 characters'),
        ({'cmd': 'x' * 1024}, 404, 'Unknown command'),
        ({'cmd': 'frog'}, 404, 'Unknown command'),
        ({'cmd': 'cmd/frog'}, 404, 'Unknown command'),
        ({'cmd': 'two/echo'}, 404, 'Unknown command'),
        ({'cmd': 'echo', 'q': []}, 400, "'q' is a JSON object"),
        ({'cmd': 'fail'}, 500, 'Server error'),
        ({'evt': ''}, 400, "'evt' has 1 to 256 characters"),
        ({'evt': 'x' * 257}, 400, "'evt' has 1 to 256 characters"),
        *(({'evt': value}, 400, "'evt' is a text") for value in (None, 3, True)),
        ({'watch': None}, 400, "'watch' is a text"),
        ({'evt': 'e', 'uid': ''}, 400, "'uid' has 1 to 256 characters"),
        *(({'evt': 'e', 'uid': value}, 400, "'uid' is a text") for value in (None, 3)),
        *(({'evt': 'e', 'off': value}, 400, "'off' is true or false") for value in (None, 1, 'true')),
        ({'evt': 'e', 'since': 3}, 400, '\'since\' is {"ver": number, "epoch": text}, or {"ver": 0}'),
        ({'evt': 'e', 'since': None}, 400, '\'since\' is {"ver": number, "epoch": text}, or {"ver": 0}'),
        ({'evt': 'e', 'off': True}, 404, 'No such subscription'),
        ({'evt': 'e', 'uid': 'u', 'off': True}, 404, 'No such subscription'),
        *(({'cancel': value}, 400, "'cancel' is a number, or a text of at most 256 characters") for value in ANY_KIND),
        *(({'ping': value}, 400, "'ping' is a number, or a text of at most 256 characters") for value in ANY_KIND),
    ],
)
def test_form_that_is_none(peer: Peer, message: Any, code: int, error: str) -> None:
    """What fits no form, or fits one badly, is answered by one error, and the connection goes on."""
    assert peer.ask(message) == refused(code, error)
    assert peer.ask(PING) == [{'pong': 1}]
    if isinstance(message, dict):
        assert peer.ask({**message, 'tid': 7}) == refused(code, error, tid=7)


@pytest.mark.parametrize(
    ('message', 'answer'),
    [
        ({'evt': 'e', 'cancel': 'x', 'ping': 1, 'uid': 'u'}, added()),
        ({'evt': 'e', 'cmd': 'echo', 'q': {'a': 1}, 'uid': 'u'}, {'r': {'a': 1}, 't': 5.0}),
        ({'watch': 'w', 'evt': 'e', 'off': True, 'cmd': 'echo', 'q': {}}, {'r': {}, 't': 5.0}),
        ({'watch': 'w', 'evt': 'e', 'uid': 'u'}, added()),
        ({'watch': None, 'evt': 'e', 'uid': 'u'}, added()),
        ({'do': 'echo', 'cmd': 'echo', 'q': {'a': 1}, 'cancel': 'x', 'ping': 1}, {'r': {'a': 1}, 't': 5.0}),
        ({'cancel': 'x', 'ping': 1}, {'cancel': 'x', 'found': False}),
        ({'evt': 'e', 'cmd': None}, refused(400, 'Invalid command')[0]),
        ({'cmd': None, 'ping': 1}, refused(400, 'Invalid command')[0]),
    ],
)
def test_several_forms_at_once(peer: Peer, message: Any, answer: Any) -> None:
    """The first of call, subscription, cancel and ping decides; entries are asked in order of registration."""
    assert peer.ask(message) == [answer]


@pytest.mark.parametrize('data', [b'', b'{', b'{"ping":NaN}', b"{'ping':1}", b'[' * 5000, b'{"ping":1}{"ping":2}'])
def test_no_json(peer: Peer, data: bytes) -> None:
    """What is not JSON is answered by error 400, and the connection goes on."""
    peer.session.receive(data)
    (answer,) = peer.take()
    assert (answer['code'], answer['error'][:8]) == (400, 'Not JSON')
    assert peer.session.close_code is None


def test_no_utf8(peer: Peer) -> None:
    """What is not UTF-8 fails the connection with 1007 (RFC 6455 section 8.1)."""
    peer.session.receive(b'{"ping":"\xff"}')
    assert (peer.session.close_code, peer.take()) == (1007, [])


def test_binary(peer: Peer) -> None:
    """A binary message is answered by error 400."""
    peer.session.receive_binary(b'x')
    assert peer.take() == refused(400, 'Messages are text frames of JSON, not binary')


# --- arrays ---


def test_array(peer: Peer) -> None:
    """The elements of an array are answered in order, in frames of their own; one that is bad spoils no other."""
    answers = peer.ask([PING, {'cmd': 'echo', 'q': {'a': 1}}, 3, [PING], {'evt': 'e', 'uid': 'u'}])
    assert [answer.get('code') for answer in answers] == [None, None, 400, 400, None]
    assert (answers[0], answers[1]['r'], answers[4]) == ({'pong': 1}, {'a': 1}, added())


@pytest.mark.parametrize(('limit', 'fits'), [(3, True), (2, False), (None, True)])
def test_array_that_is_too_long(limit: int | None, fits: bool) -> None:
    """An array of more messages than the limit is one error, and none of them is done."""
    answers = Peer(House(max_batch=limit)).ask([PING, PING, PING])
    assert answers == ([{'pong': 1}] * 3 if fits else refused(400, 'An array of messages has at most 2'))


# --- tid ---


@pytest.mark.parametrize('tid', ['x', '', 'é' * 256, 0, -1, 1.5, 2**70, 1e300])
def test_tid(peer: Peer, tid: Any) -> None:
    """A `tid` is a text or a number, echoed as it came, in errors too."""
    assert [answer['tid'] for answer in peer.ask({'cmd': 'echo', 'tid': tid}, {'cmd': 'frog', 'tid': tid})] == [
        tid,
        tid,
    ]


@pytest.mark.parametrize('tid', [None, True, False, [], {}, ['x'], 'x' * 257])
def test_tid_that_is_none(peer: Peer, tid: Any) -> None:
    """Any other `tid` is 400, in every form, and nothing is done; what identifies it comes back, cut."""
    forms = ({'cmd': 'echo'}, {'evt': 'e'}, {'ping': 1}, {'cancel': 'x'})
    echo = {} if tid is None else {'tid': tid[:256] if isinstance(tid, str) else tid}
    for form in forms:
        expected = refused(400, "'tid' is a number, or a text of at most 256 characters", **echo)
        assert peer.ask(form | {'tid': tid}) == peer.ask([form | {'tid': tid}]) == expected
    assert peer.ask({'evt': 'e', 'off': True}) == refused(404, 'No such subscription')


HALF = rb'{"cmd": "echo", "q": {"s": "\ud83d"}, "tid": 7}'
HALF_ERROR = r'Not JSON: \ud83d at byte 28 is half of a surrogate pair, as of an emoji cut in two'


def test_tid_of_what_is_not_json(peer: Peer) -> None:
    """A message that is not JSON is refused under the `tid` that it has on its top level."""
    peer.session.receive(HALF)
    assert peer.take() == refused(400, HALF_ERROR, tid=7)
    peer.session.receive(b'[{"cmd": "echo"}, %b, {"cmd": "echo", "tid": 8}]' % HALF)
    assert [(answer['code'], answer.get('tid')) for answer in peer.take()] == [(400, None), (400, 7), (400, 8)]
    peer.session.receive_binary(b'{"cmd": "echo", "tid": "x"}')
    assert peer.take() == refused(400, 'Messages are text frames of JSON, not binary', tid='x')
    peer.session.receive_binary(b'[{"tid": 1}, {"tid": 2}]')
    assert [answer['tid'] for answer in peer.take()] == [1, 2]


def test_what_is_not_json_overtakes(peer: Peer) -> None:
    """A message that is not JSON is answered at once if its `tid` is known, and in its turn if not."""
    assert not peer.ask({'cmd': 'wait', 'q': {'door': 'a'}})
    peer.session.receive(b'{"tid": 7, x}')
    peer.session.receive(b'{"id": 7, x}')
    assert [answer['tid'] for answer in peer.take()] == [7]


def test_tid_of_what_cannot_wait() -> None:
    """A refused message's `tid` comes back even if too many wait already."""
    peer = Peer(House(max_queued=1))
    assert not peer.ask({'cmd': 'wait', 'q': {'door': 'a'}}, {'cmd': 'echo'})
    answers = peer.ask({'cmd': 'echo', 'tid': 'x' * 300}, {'cmd': 'echo', 'tid': [1]}, 3)
    assert [(answer['code'], answer.get('tid')) for answer in answers] == [(429, 'x' * 256), (429, [1]), (429, None)]


def test_tids_of_an_array_that_is_too_long() -> None:
    """Each message of it that has a `tid` is refused by itself, and all others together."""
    peer = Peer(House(max_batch=2))
    error = 'An array of messages has at most 2'
    answers = peer.ask([{'cmd': 'echo', 'tid': 1}, {'cmd': 'echo', 'tid': 'x' * 300}, {'tid': [1]}])
    assert answers == [*refused(400, error, tid=1), *refused(400, error, tid='x' * 256), *refused(400, error, tid=[1])]
    answers = peer.ask([PING, {'cmd': 'echo', 'tid': 1}, 3, {'cmd': 'echo', 'tid': 2}])
    assert answers == [*refused(400, error), *refused(400, error, tid=1), *refused(400, error, tid=2)]


def test_tid_in_flight(house: House, peer: Peer) -> None:
    """A `tid` that is in flight on this connection is 400; on another it is another."""
    waits = {'cmd': 'wait', 'q': {'door': 'a'}, 'tid': 'x'}
    assert peer.ask(waits, waits) == refused(400, '\'tid\' "x" is in flight already', tid='x')
    assert Peer(house).ask({'cmd': 'echo', 'q': {}, 'tid': 'x'}) == [{'r': {}, 'tid': 'x', 't': 5.0}]


# --- order ---


def test_messages_without_tid_are_answered_in_order(house: House, peer: Peer) -> None:
    """Messages without `tid`, of whatever form, are answered one after another in the order sent."""
    assert not peer.ask(
        {'cmd': 'wait', 'q': {'door': 'a'}}, {'cmd': 'echo', 'q': {}}, 3, {'evt': 'e', 'uid': 'u'}, {'cmd': 'frog'}
    )
    peer.session.receive(b'{')
    peer.session.receive_binary(b'x')
    assert not peer.take()
    house.doors.open('a')
    house.driver.run()
    answers = peer.take()
    assert [answer.get('code', answer.get('r')) for answer in answers] == ['a', {}, 400, added()['r'], 404, 400, 400]
    assert peer.wakes == 1


@pytest.mark.parametrize(
    'message',
    [
        {'cmd': 'echo', 'tid': 'x'},
        {'evt': 'e', 'tid': 'x'},
        {'evt': 'e', 'off': True, 'tid': 'x'},
        {'cancel': 'x'},
        {'ping': 1},
        {'cancel': None},
    ],
)
def test_what_overtakes(peer: Peer, message: Any) -> None:
    """What has a `tid`, cancels or asks for a sign of life does not wait behind a call without `tid`."""
    assert len(peer.ask({'cmd': 'wait', 'q': {'door': 'a'}}, message)) == 1


@pytest.mark.parametrize(
    'message', [{'evt': 'e', 'ping': 1}, {'do': 'echo', 'cancel': 'x'}, {'cmd': 'echo', 'tid': None}, {'frog': 1}, 3]
)
def test_what_does_not_overtake(peer: Peer, message: Any) -> None:
    """A message that is a call or subscription, or nothing, waits whatever other fields it has."""
    assert not peer.ask({'cmd': 'wait', 'q': {'door': 'a'}}, message)


def test_too_many_wait() -> None:
    """Past `max_queued` a message is answered by 429, at once and once."""
    house = House(max_queued=1)
    peer = Peer(house)
    waits = {'cmd': 'wait', 'q': {'door': 'a'}}
    assert peer.ask(waits, {'cmd': 'echo'}, 3) == refused(429, '1 messages of this connection are waiting already')


# --- cancel ---


def test_cancel(house: House, peer: Peer) -> None:
    """A cancel that finds its call is answered by 499 with that `tid` alone, and the handler ends."""
    peer.ask({'cmd': 'wait', 'q': {'door': 'a'}, 'tid': 'x'})
    house.driver.run()
    assert peer.ask({'cancel': 'x'}) == refused(499, 'Cancelled', tid='x')
    house.driver.run()
    assert (peer.take(), house.doors.ended, peer.session.is_busy) == ([], ['a'], False)
    assert peer.ask({'cancel': 'x'}) == [{'cancel': 'x', 'found': False}]


def test_cancel_of_another_connection(house: House, peer: Peer) -> None:
    """A call of one connection cannot be cancelled from another."""
    peer.ask({'cmd': 'wait', 'q': {'door': 'a'}, 'tid': 'x'})
    assert Peer(house).ask({'cancel': 'x'}) == [{'cancel': 'x', 'found': False}]


# --- subscriptions ---


def test_subscribe_and_be_pushed(house: House, peer: Peer) -> None:
    """The newest value follows the answer at once, then each version once."""
    house.trigger('e', 'old')
    house.trigger('e', 'new')
    assert peer.ask({'evt': 'e', 'uid': 'u'}) == [added(ver=2), push('new', 2)]
    house.trigger('e', 'newer')
    house.trigger('other', 'x')
    house.trigger('e', 'newer')
    assert peer.take() == [push('newer', 3), push('newer', 4)]


@pytest.mark.parametrize(
    ('since', 'recovered', 'pushes'),
    [
        ({'ver': 3, 'epoch': 'E1'}, True, []),
        ({'ver': 2, 'epoch': 'E1'}, True, [push(3, 3)]),
        ({'ver': 0}, False, [push(2, 2, **FROM_1), push(3, 3)]),
        ({'ver': 9, 'epoch': 'E0'}, False, [push(3, 3, epoch='E1')]),
    ],
)
def test_resume(since: Any, recovered: bool, pushes: Any) -> None:
    """With `since` what was missed follows the answer, gaps and new histories declared."""
    house = House(history=2)
    for value in (1, 2, 3):
        house.trigger('e', value)
    answers = Peer(house).ask({'evt': 'e', 'uid': 'u', 'since': since, 'tid': 'x'})
    assert answers == [added(ver=3, recovered=recovered, tid='x'), *pushes]


def test_pushes_of_an_entry_with_names_of_its_own(house: House, peer: Peer) -> None:
    """A push uses the entry's field names, `r` where `rep` is ''."""
    house.trigger('e', 1)
    assert peer.ask({'watch': 'e', 'uid': 'u'})[1] == {'watch': 'e', 'uid': 'u', 'ver': 1, 't': 5.0, 'r': 1}


@pytest.mark.parametrize(
    ('off', 'answer', 'left'),
    [
        ({'uid': 'a'}, {'uid': 'a', 'status': 'Event removed'}, ['b']),
        ({}, {'status': 'Event removed'}, []),
        ({'uid': 'a', 'tid': 'x'}, {'uid': 'a', 'status': 'Event removed'}, ['b']),
    ],
)
def test_unsubscribe(house: House, peer: Peer, off: Any, answer: Any, left: list[str]) -> None:
    """`off` ends the subscription of a uid, or all of the event; those of other events go on."""
    peer.ask({'evt': 'e', 'uid': 'a'}, {'evt': 'e', 'uid': 'b'}, {'evt': 'other', 'uid': 'a'})
    assert peer.ask({'evt': 'e', 'off': True, **off}) == [
        {'r': answer, 't': 5.0} | ({'tid': 'x'} if 'tid' in off else {})
    ]
    house.trigger('e', 1)
    house.trigger('other', 2)
    assert peer.take() == [*(push(1, uid=uid) for uid in left), push(2, uid='a', evt='other')]


def test_nothing_is_pushed_after_off(house: House, peer: Peer) -> None:
    """A push that had not been taken when the subscription ended is never sent."""
    peer.ask({'evt': 'e', 'uid': 'u'})
    house.trigger('e', 1)
    assert len(peer.ask({'evt': 'e', 'uid': 'u', 'off': True})) == 1


def test_subscribing_again(house: House, peer: Peer) -> None:
    """The same uid again replaces the subscription: one push a version, from the new position."""
    house.trigger('e', 1)
    peer.ask({'evt': 'e', 'uid': 'u'})
    house.trigger('e', 2)
    assert peer.ask({'evt': 'e', 'uid': 'u', 'since': {'ver': 2, 'epoch': 'E1'}}) == [added(ver=2, recovered=True)]
    house.trigger('e', 3)
    assert peer.take() == [push(3, 3)]


def test_subscribing_again_badly(house: House, peer: Peer) -> None:
    """A subscription that is refused leaves the one of the same uid as it was."""
    peer.ask({'evt': 'e', 'uid': 'u'})
    assert peer.ask({'evt': 'e', 'uid': 'u', 'since': 3})[0]['code'] == 400
    house.trigger('e', 1)
    assert peer.take() == [push(1)]


def test_connections_are_apart(house: House, peer: Peer) -> None:
    """The same uid on another connection is another subscription, and neither disturbs the other."""
    other = Peer(house)
    peer.ask({'evt': 'e', 'uid': 'u'})
    other.ask({'evt': 'e', 'uid': 'u'}, {'evt': 'e', 'uid': 'u', 'off': True})
    house.trigger('e', 1)
    assert (peer.take(), other.take()) == ([push(1)], [])


def test_a_stalled_connection_costs_nothing() -> None:
    """While one connection takes nothing, the others get all, and it holds no more than before."""
    house = House(history=3)
    stalled, quick = Peer(house), Peer(house)
    for each in (stalled, quick):
        each.ask({'evt': 'e', 'uid': 'u'})
    for value in range(1, 101):
        house.trigger('e', value)
        assert quick.take() == [push(value, value)]
    assert stalled.take() == [push(98, 98, **FROM_1), push(99, 99), push(100, 100)]


def test_too_many_subscriptions() -> None:
    """Past the limit a subscription is 429; one that replaces another, or follows one that ended, is not."""
    peer = Peer(House(max_subscriptions=2))
    peer.ask({'evt': 'e', 'uid': 'a'}, {'evt': 'e', 'uid': 'b'})
    assert peer.ask({'evt': 'f', 'uid': 'a'}, {'evt': 'f'}) == 2 * refused(
        429, 'This connection has 2 subscriptions already'
    )
    assert peer.ask({'evt': 'e', 'uid': 'b'}) == [added('b')]
    peer.ask({'evt': 'e', 'uid': 'b', 'off': True})
    assert peer.ask({'evt': 'f', 'uid': 'a'}) == [added('a')]


def test_a_handler_that_triggers(house: House, peer: Peer) -> None:
    """What a handler triggers is pushed behind its answer."""
    house.registry.entries['cmd'].fm['tell'] = lambda ctx, q: house.trigger('e', 1)
    peer.ask({'evt': 'e', 'uid': 'u'})
    assert peer.ask({'cmd': 'tell'}) == [{'r': None, 't': 5.0}, push(1)]


# --- out ---


def test_events_of_a_connection_take_turns(house: House, peer: Peer) -> None:
    """One event that is far behind does not hold up another of the same connection."""
    peer.ask({'evt': 'e', 'uid': 'u'}, {'evt': 'f', 'uid': 'u'})
    for value in range(3):
        house.trigger('e', value)
    house.trigger('f', 'soon')
    assert [pushed['evt'] for pushed in peer.take()] == ['e', 'f', 'e', 'e']


def test_take_in_pieces(house: House, peer: Peer) -> None:
    """`take` gives about so many bytes at a time, and loses nothing between."""
    peer.ask({'evt': 'e', 'uid': 'u'})
    for value in range(5):
        house.trigger('e', value)
    peer.session.receive(b'{"ping":1}')
    taken = []
    while piece := peer.session.take(1):
        assert len(piece) == 1
        taken += piece
    assert decoded(taken) == [
        {'pong': 1},
        *(push(value, ver) for ver, value in enumerate(range(5), 1)),
    ]
    assert not peer.session.has_output


def test_has_output(house: House, peer: Peer) -> None:
    """A session tells when it may have something to send."""
    assert not peer.session.has_output
    peer.session.receive(b'{"evt":"e","uid":"u"}')
    assert peer.session.has_output
    peer.take()
    assert not peer.session.has_output
    house.trigger('e', 1)
    assert peer.session.has_output


def test_an_array_is_handled_as_far_as_there_is_room() -> None:
    """While `send_buffer` is full nothing more of an array is done; it goes on with each `take`, in order."""
    house = House(send_buffer=100)
    peer, done = Peer(house), []

    def give(ctx: Any, q: Any) -> str:
        done.append(q.n)
        return 'x' * 100

    house.registry.entries['cmd'].fm['give'] = give
    peer.session.receive(json.dumps([{'cmd': 'give', 'q': {'n': n}} for n in range(5)]).encode())
    assert (done, peer.session.is_behind) == ([0], True)
    assert [len(peer.take()) for _ in range(5)] == [1] * 5
    assert (done, peer.session.is_behind, peer.session.has_output) == ([0, 1, 2, 3, 4], False, False)


def test_frames_are_handled_as_far_as_there_is_room() -> None:
    """While `send_buffer` is full a frame that comes is not looked at; it is when there is room."""
    house = House(send_buffer=1)
    peer = Peer(house)
    for _ in range(3):
        peer.session.receive(b'{"evt":"e","uid":"u"}')
    house.trigger('e', 1)
    assert [len(peer.take()) for _ in range(3)] == [2, 2, 2]


def test_is_behind(house: House, peer: Peer) -> None:
    """A session is behind while an answer is not sent; versions that wait do not count."""
    peer.ask({'evt': 'e', 'uid': 'u'})
    house.trigger('e', 1)
    assert not peer.session.is_behind
    peer.session.receive(b'{"ping":1}')
    assert peer.session.is_behind
    peer.take()
    assert not peer.session.is_behind


def test_has_output_while_calls_wait_for_room() -> None:
    """A session whose calls wait for nothing but room has something to send, when there is room again."""
    house = House(send_buffer=1)
    peer = Peer(house)
    peer.session.receive(b'{"cmd":"wait","q":{"door":"a"}}')
    peer.session.receive(b'{"cmd":"echo","q":{}}')
    house.doors.open('a')
    house.driver.run()
    assert [answer['r'] for answer in peer.take()] == ['a']
    assert (peer.session.is_behind, peer.session.has_output) == (False, True)
    assert [answer['r'] for answer in peer.take()] == [{}]
    assert not peer.session.has_output


# --- the end ---


@pytest.mark.parametrize(
    ('message', 'code'),
    [
        ({'cmd': 'echo'}, 503),
        ({'cmd': 'frog'}, 503),
        ({'evt': 'e'}, 503),
        ({'evt': 'e', 'uid': 'u', 'off': True}, None),
        ({'cancel': 'y'}, None),
        ({'ping': 1}, None),
    ],
)
def test_stop(peer: Peer, message: Any, code: int | None) -> None:
    """While the server stops new calls and subscriptions are 503, and the rest is answered as ever."""
    peer.ask({'evt': 'e', 'uid': 'u'})
    peer.session.stop()
    (answer,) = peer.ask(message)
    assert answer.get('code') == code


def test_stop_lets_calls_go_on(house: House, peer: Peer) -> None:
    """A call that was accepted before the stop goes on to its answer."""
    peer.ask({'cmd': 'wait', 'q': {'door': 'a'}})
    peer.session.stop()
    house.doors.open('a')
    house.driver.run()
    assert peer.take() == [{'r': 'a', 't': 5.0}]


def test_interrupt(house: House, peer: Peer) -> None:
    """What runs and what waits for its turn is answered by 503, each once."""
    peer.ask({'cmd': 'wait', 'q': {'door': 'a'}}, {'cmd': 'wait', 'q': {'door': 'b'}, 'tid': 'x'}, {'cmd': 'echo'})
    peer.session.interrupt()
    house.driver.run()
    answers = peer.take()
    assert [answer['code'] for answer in answers] == [503, 503, 503]
    assert sorted(answer.get('tid', '') for answer in answers) == ['', '', 'x']
    assert not peer.session.is_busy


def test_close(house: House, peer: Peer) -> None:
    """When the peer is gone its subscriptions end, what waits never begins, and what runs goes on unheard."""
    peer.ask({'evt': 'e', 'uid': 'u'}, {'cmd': 'wait', 'q': {'door': 'a'}}, {'cmd': 'wait', 'q': {'door': 'b'}})
    house.driver.run()
    peer.session.close()
    house.doors.open('a', 'b')
    house.driver.run()
    assert (house.doors.ended, peer.session.is_busy) == (['a'], False)
    assert not changed(house.store)
    house.trigger('e', 1)
    assert [answer.get('r') for answer in peer.take()] == ['a']


# --- whatever is sent ---

VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, 1, 'e', 'echo', 'wait', 'fail', 'cmd/echo', 'x', '', {}, [], {'ver': 0}]
)
MESSAGES = st.dictionaries(
    st.sampled_from(['cmd', 'q', 'evt', 'uid', 'tid', 'off', 'since', 'cancel', 'ping', 'do', 'with', 'watch']),
    VALUES,
    max_size=4,
)
FRAMES = st.one_of(
    MESSAGES.map(json.dumps).map(str.encode),
    st.lists(MESSAGES | VALUES, max_size=3).map(json.dumps).map(str.encode),
    st.binary(max_size=12),
    st.text('[]{}",:e1\\u\n', max_size=12).map(str.encode),
)


STEADY = [
    b'{"cmd":"wait"}',
    b'{"cmd":"wait","tid":"x"}',
    b'{"cancel":"x"}',
    b'{"evt":"e","uid":"x"}',
    b'{"cmd":"echo"}',
]


def asked(data: bytes) -> int:
    """How many answers a frame is to have."""
    try:
        message = codec.decode(data)
    except UnicodeDecodeError:
        return 0
    except Exception:
        return 1
    return len(message) or 1 if isinstance(message, list) else 1


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(FRAMES | st.sampled_from(STEADY), max_size=5))
@example([b'{"cmd":"wait","tid":1}', b'{"cancel":1}'])
@example([b'{"cmd":"wait"}', b'[]', b'\xff', b'{}'])
def test_whatever_is_sent(frames: list[bytes]) -> None:
    """Any bytes leave every message answered exactly once, or the connection failed with 1007, and raise nothing."""
    house = House()
    gate = Gate()

    async def wait(ctx: Any, q: Any) -> None:
        await gate

    house.registry.entries['cmd'].fm['wait'] = wait
    peer = Peer(house)
    for frame in frames:
        peer.session.receive(frame)
        house.driver.run()
    assert (peer.session.close_code == 1007) is (0 in map(asked, frames))
    gate.is_open = True
    while peer.session.is_busy:
        house.driver.run()
    answers = peer.take()
    cancels = sum(answer.get('code') == 499 for answer in answers)  # which answer the cancel and the call in one
    assert len(answers) == sum(map(asked, frames)) - cancels
    assert not peer.session.is_busy
    assert not peer.session.has_output


def test_long_array_takes_its_time_and_no_more() -> None:
    """Where there is no limit, an array that is fifteen times as long takes about fifteen times as long."""

    def seconds(count: int) -> float:
        peer = Peer(House(max_batch=None))
        started = time.process_time()
        peer.session.receive(b'[%b0]' % (b'0,' * (count - 1)))
        taken = 0
        while peer.session.has_output:
            taken += len(peer.session.take(64 * 1024))
        assert taken == count
        return time.process_time() - started

    assert seconds(300_000) < 40 * seconds(20_000)


class Kept:
    """A transport's way that keeps what is written."""

    data = b''

    def write(self, data: bytes) -> None:
        self.data += data


def test_room_comes_back(peer: Peer) -> None:
    """All that was sent is counted off again, whether it was taken or written; what is written there is counted too."""
    feed, way = peer.session.feed, Kept()
    for is_written in (False, True):
        for message in ({'cmd': 'cmd/echo', 'q': {'a': 'x' * 200}}, {'ping': 1}, {'cmd': 'cmd/echo', 'q': {}}):
            peer.session.receive(codec.encode(message))
        assert feed.unsent > 200
        assert not peer.session.write_answers()  # as there is no way
        if is_written:
            feed.way = way
            assert peer.session.write_answers()
            assert way.data.count(b'"t":') == 2
            assert feed.written == len(way.data)
        else:
            assert peer.session.take(10**9)
        assert feed.unsent == 0
        assert not feed.outbox


class Gone:
    """A transport's way that was closed a moment ago."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def write(self, data: bytes) -> None:
        raise self.error


@pytest.mark.parametrize('error', [RuntimeError, AttributeError])
def test_answers_to_who_has_gone(peer: Peer, error: type[Exception]) -> None:
    """An answer to a connection that is gone, as uvloop or asyncio tells it, is lost, and no more are written."""
    feed = peer.session.feed
    feed.way = Gone(error)
    peer.session.receive(b'{"ping":1}')
    assert peer.session.write_answers()
    assert [feed.way, feed.outbox, feed.unsent] == [None, [], 0]


def test_answers_that_wait_hold_what_they_are(peer: Peer) -> None:
    """Answers that nobody takes hold no more memory than their bytes, and a little each."""
    call = codec.encode({'cmd': 'cmd/echo', 'q': {'a': 1}, 'tid': 7})
    peer.ask({'cmd': 'cmd/echo', 'q': {}})
    tracemalloc.start()
    for _ in range(500):
        peer.session.receive(call)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 * peer.session.feed.unsent + 500 * 50


class Strict(dict[str, Any]):
    """A dict of functions that has ways of its own."""

    def __missing__(self, key: str) -> Any:
        raise RuntimeError(key)


def test_dict_with_ways_of_its_own(house: House, peer: Peer) -> None:
    """A function taken out of such a dict is served no more, as if it were a plain one."""
    fm = Strict(echo=lambda ctx, q: q)
    house.registry.add(make_entry('cmd', 'cmd', 'q', 'evt', 'r', fm))
    for _ in range(3):
        assert peer.ask({'cmd': 'cmd/echo', 'q': {'a': 1}}) == [{'r': {'a': 1}, 't': 5.0}]
    del fm['echo']
    assert peer.ask({'cmd': 'cmd/echo', 'q': {'a': 1}}) == refused(404, 'Unknown command')
