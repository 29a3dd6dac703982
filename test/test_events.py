"""Events over WebSocket: per event, in order, never a silent gap, and the newest value always arrives (section 6)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import pytest
from propertybag import Bag
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import webshoes as ws

from .conftest import TIMEOUT, OpenPeer, Peer, Serve
from .faces import Push, frame, open_stalled, read_message


def pushes(peer: Peer, count: int) -> list[tuple[int, Any]]:
    """The version and the value of the next pushes."""
    return [(push['ver'], push['r']) for push in (peer.receive() for _ in range(count))]


def is_quiet(peer: Peer) -> bool:
    """Whether nothing was on its way to a peer."""
    return peer.ask({'ping': 'quiet'}) == {'pong': 'quiet'}


def since(wsa: ws.WebShoesApp, event: str, ver: int) -> dict[str, Any]:
    return {'ver': ver, 'epoch': wsa.event(event).epoch}


# --- subscribing ---


async def ask_slowly(ctx: Any, event: str) -> None:
    await asyncio.sleep(0.002)


@ws.threaded
def ask_in_a_thread(ctx: Any, event: str) -> None:
    time.sleep(0.001)


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
@pytest.mark.parametrize('hook', [ask_slowly, ask_in_a_thread])
def test_mounts_of_strict_mode(serve: Serve, open_peer: OpenPeer, loop: str, hook: Any) -> None:
    """A page that subscribes, unsubscribes and subscribes again at once, 1,100 times, has the last subscription."""
    wsa = serve(loop=loop)
    wsa.on('subscribe')(hook)
    peer = open_peer(wsa)
    for number in range(1100):
        first, second = {'evt': 'heat', 'uid': f'a{number}'}, {'evt': 'heat', 'uid': f'b{number}'}
        peer.send({**first, 'tid': 'first'}, {**first, 'tid': 'end', 'off': True}, {**second, 'tid': 'second'})
        answers = {answer['tid']: answer['r']['status'] for answer in (peer.receive() for _ in range(3))}
        assert answers == {'first': 'Event added', 'end': 'Event removed', 'second': 'Event added'}
        peer.ask({**second, 'off': True} if number < 1099 else {'ping': 1})
    (conn,) = wsa.connections
    assert [it.uid for it in conn.subscriptions] == ['b1099']
    wsa.triggerEvent('heat', 1)
    assert (peer.receive()['uid'], is_quiet(peer)) == ('b1099', True)


def test_subscribing(serve: Serve, open_peer: OpenPeer) -> None:
    """The answer to a subscription has its uid, its status and its position, the `tid` and the time."""
    wsa = serve()
    before = time.time()
    answer = open_peer(wsa).ask({'evt': 'heat', 'uid': 'u', 'tid': 'x'})
    assert before <= answer.pop('t') <= time.time()
    position = {'ver': 0, 'epoch': wsa.event('heat').epoch}
    assert answer == {'r': {'uid': 'u', 'status': 'Event added', **position}, 'tid': 'x'}


def test_push(serve: Serve, open_peer: OpenPeer) -> None:
    """A push has the event, the uid, the version, the time of the trigger and the value, and nothing else."""
    wsa, before = serve(), time.time()
    peer = open_peer(wsa)
    peer.subscribe('heat', uid='u')
    wsa.triggerEvent('heat', {'a': [1, None]})
    push = peer.receive()
    assert before <= push.pop('t') <= time.time()
    assert push == {'evt': 'heat', 'uid': 'u', 'ver': 1, 'r': {'a': [1, None]}}


def test_uid_made_by_the_server(serve: Serve, open_peer: OpenPeer) -> None:
    """A uid that the client omits is made by the server, 32 hex digits, another each time."""
    peer = open_peer(serve())
    first, second = (peer.subscribe('heat')['uid'] for _ in range(2))
    assert (len(first), len(bytes.fromhex(first)), first == second) == (32, 16, False)


def test_value_that_is_there(serve: Serve, open_peer: OpenPeer) -> None:
    """Who subscribes gets the newest value at once, whatever its version, with the time of its trigger."""
    wsa = serve()
    for n in range(3):
        wsa.triggerEvent('heat', n)
    after = time.time()
    peer = open_peer(wsa)
    assert peer.subscribe('heat', uid='u')['ver'] == 3
    push = peer.receive()
    assert (push['ver'], push['r'], push['t'] <= after, set(push)) == (3, 2, True, {'evt', 'uid', 'ver', 't', 'r'})
    assert is_quiet(peer)


@pytest.mark.parametrize('value', [None, 0, '', False, {}, [], 'ü☃', 1.5, 2**70, {'a': Bag({'b': 1})}])
def test_values(serve: Serve, open_peer: OpenPeer, value: Any) -> None:
    """Whatever can be JSON can be an event's value, `None` too, and is read back as it was sent."""
    wsa = serve()
    peer = open_peer(wsa)
    peer.subscribe('heat')
    wsa.triggerEvent('heat', value)
    expected = {'a': {'b': 1}} if isinstance(value, dict) and value else value
    assert (peer.receive()['r'], wsa.event('heat').value) == (expected, expected)


def test_events_of_their_own(serve: Serve, open_peer: OpenPeer) -> None:
    """Each event has versions of its own, and is pushed to its own subscribers."""
    wsa = serve()
    peer = open_peer(wsa)
    peer.subscribe('heat', uid='u')
    for event, value in (('cold', 1), ('heat', 2), ('cold', 3), ('heat', 4)):
        wsa.triggerEvent(event, value)
    assert pushes(peer, 2) == [(1, 2), (2, 4)]
    assert is_quiet(peer)
    assert wsa.event('cold').ver == 2


def test_uids_of_one_connection(serve: Serve, open_peer: OpenPeer) -> None:
    """Each subscription of a connection is pushed each version once, under its uid."""
    wsa = serve()
    peer = open_peer(wsa)
    for uid in 'ab':
        peer.subscribe('heat', uid=uid)
    wsa.triggerEvent('heat', 1)
    wsa.triggerEvent('heat', 2)
    received = [peer.receive() for _ in range(4)]
    assert sorted((push['uid'], push['ver']) for push in received) == [('a', 1), ('a', 2), ('b', 1), ('b', 2)]
    assert is_quiet(peer)


def test_uid_of_two_connections(serve: Serve, open_peer: OpenPeer) -> None:
    """The same uid on another connection is another subscription: one's end is not the other's."""
    wsa = serve()
    first, second = open_peer(wsa), open_peer(wsa)
    for peer in (first, second):
        peer.subscribe('heat', uid='u')
    assert first.ask({'evt': 'heat', 'uid': 'u', 'off': True})['r'] == {'uid': 'u', 'status': 'Event removed'}
    wsa.triggerEvent('heat', 1)
    assert pushes(second, 1) == [(1, 1)]
    assert is_quiet(first)


def test_uid_of_two_events(serve: Serve, open_peer: OpenPeer) -> None:
    """The same uid for another event is another subscription."""
    wsa = serve()
    peer = open_peer(wsa)
    for event in ('heat', 'cold'):
        peer.subscribe(event, uid='u')
    peer.ask({'evt': 'heat', 'uid': 'u', 'off': True})
    wsa.triggerEvent('heat', 1)
    wsa.triggerEvent('cold', 2)
    assert pushes(peer, 1) == [(1, 2)]
    assert is_quiet(peer)


def test_off_for_all(serve: Serve, open_peer: OpenPeer) -> None:
    """`off` without uid ends all of the connection's subscriptions of that event, and of no other."""
    wsa = serve()
    peer = open_peer(wsa)
    for event, uid in (('heat', 'a'), ('heat', 'b'), ('cold', 'a')):
        peer.subscribe(event, uid=uid)
    assert peer.ask({'evt': 'heat', 'off': True, 'tid': 1})['r'] == {'status': 'Event removed'}
    wsa.triggerEvent('heat', 1)
    wsa.triggerEvent('cold', 2)
    assert pushes(peer, 1) == [(1, 2)]
    assert is_quiet(peer)


@pytest.mark.parametrize('message', [{'evt': 'heat', 'uid': 'b'}, {'evt': 'cold', 'uid': 'a'}, {'evt': 'cold'}])
def test_off_for_nothing(serve: Serve, open_peer: OpenPeer, message: dict[str, str]) -> None:
    """`off` where there is no such subscription is 404."""
    peer = open_peer(serve())
    peer.subscribe('heat', uid='a')
    answer = peer.ask({**message, 'off': True, 'tid': 1})
    assert (answer['code'], answer['tid']) == (404, 1)


def test_subscribing_again(serve: Serve, open_peer: OpenPeer) -> None:
    """Subscribing again with the same uid begins anew, and versions come once."""
    wsa = serve()
    wsa.triggerEvent('heat', 1)
    peer = open_peer(wsa)
    for _ in range(2):
        peer.subscribe('heat', uid='u')
        assert pushes(peer, 1) == [(1, 1)]
    wsa.triggerEvent('heat', 2)
    assert pushes(peer, 1) == [(2, 2)]
    assert is_quiet(peer)


def test_too_many_subscriptions(serve: Serve, open_peer: OpenPeer) -> None:
    """A connection's subscriptions are limited; replacing one is no new one."""
    peer = open_peer(serve(limits=ws.Limits(max_subscriptions=2)))
    for uid in 'aba':
        assert peer.subscribe('heat', uid=uid)['status'] == 'Event added'
    assert peer.ask({'evt': 'heat', 'uid': 'c'})['code'] == 429
    peer.ask({'evt': 'heat', 'uid': 'a', 'off': True})
    assert peer.subscribe('heat', uid='c')['status'] == 'Event added'


def test_subscriber_that_left(serve: Serve, open_peer: OpenPeer) -> None:
    """A connection that is closed is pushed nothing, and harms nobody."""
    wsa = serve()
    with connect(wsa.url.replace('http', 'ws', 1)) as connection:
        Peer(connection).subscribe('heat')
    peer = open_peer(wsa)
    peer.subscribe('heat')
    wsa.triggerEvent('heat', 1)
    assert pushes(peer, 1) == [(1, 1)]


# --- resuming ---


@dataclass
class Resume:
    """What follows a `since` when versions 1 to 10 were triggered and the log holds 6 to 10."""

    since: dict[str, Any] | None
    recovered: bool | None
    vers: list[int]
    start: int | None = None
    tells_epoch: bool = False


RESUMES = {
    'nothing': Resume(None, None, [10]),
    'all of it': Resume({'ver': 10}, True, []),
    'one behind': Resume({'ver': 9}, True, [10]),
    'as far back as the log goes': Resume({'ver': 5}, True, [6, 7, 8, 9, 10]),
    'further back': Resume({'ver': 4}, False, [6, 7, 8, 9, 10], start=5),
    'the start': Resume({'ver': 0}, False, [6, 7, 8, 9, 10], start=1),
    'the start without epoch': Resume({'ver': 0, 'epoch': None}, False, [6, 7, 8, 9, 10], start=1),
    'another epoch': Resume({'ver': 9, 'epoch': 'another'}, False, [10], tells_epoch=True),
    'the start of another epoch': Resume({'ver': 0, 'epoch': 'another'}, False, [10], tells_epoch=True),
    'another epoch far ahead': Resume({'ver': 99, 'epoch': 'another'}, False, [10], tells_epoch=True),
    'this epoch far ahead': Resume({'ver': 99}, False, [10], tells_epoch=True),
}


@pytest.mark.parametrize('case', RESUMES.values(), ids=RESUMES)
def test_since(serve: Serve, open_peer: OpenPeer, case: Resume) -> None:
    """`since` gives what was missed, or declares what is gone: the range by `from`, the new history by `epoch`."""
    wsa = serve()
    wsa.event('heat', history=5)
    for n in range(1, 11):
        wsa.triggerEvent('heat', n)
    epoch = wsa.event('heat').epoch
    asked = {'epoch': epoch} | (case.since or {})
    peer = open_peer(wsa)
    fields = {} if case.since is None else {'since': {k: v for k, v in asked.items() if v is not None}}
    answer = peer.subscribe('heat', uid='u', **fields)
    assert (answer['ver'], answer['epoch'], answer.get('recovered')) == (10, epoch, case.recovered)
    received = [peer.receive() for _ in case.vers]
    assert [(push['ver'], push['r']) for push in received] == [(ver, ver) for ver in case.vers]
    assert [push.get('from') for push in received[:1]] == [case.start] * len(received[:1])
    assert [push.get('epoch') for push in received[:1]] == [epoch if case.tells_epoch else None] * len(received[:1])
    assert not any('from' in push or 'epoch' in push for push in received[1:])
    assert is_quiet(peer)


def test_since_of_an_event_never_triggered(serve: Serve, open_peer: OpenPeer) -> None:
    """An event that was never triggered has a position too, and its first version comes from there."""
    wsa = serve()
    peer = open_peer(wsa)
    assert peer.subscribe('heat', since={'ver': 0})['recovered'] is True
    assert peer.subscribe('cold', since={'ver': 7, 'epoch': 'another'})['recovered'] is False
    wsa.triggerEvent('heat', 'a')
    first = peer.receive()
    wsa.triggerEvent('cold', 'b')
    second = peer.receive()
    assert (first['ver'], first.get('epoch')) == (1, None)
    assert (second['ver'], second.get('epoch')) == (1, wsa.event('cold').epoch)


def test_position_of_the_answer(serve: Serve, open_peer: OpenPeer) -> None:
    """The position that the answer tells is one to resume from."""
    wsa = serve()
    wsa.triggerEvent('heat', 1)
    first, second = open_peer(wsa), open_peer(wsa)
    answer = first.subscribe('heat')
    wsa.triggerEvent('heat', 2)
    assert second.subscribe('heat', since={name: answer[name] for name in ('ver', 'epoch')})['recovered'] is True
    assert pushes(second, 1) == [(2, 2)]


def test_reconnecting(serve: Serve, open_peer: OpenPeer) -> None:
    """A client that reconnects again and again while triggers go on has every version once."""
    wsa, seen, total = serve(), deque[int](), 200

    def trigger() -> None:
        for n in range(1, total + 1):
            wsa.triggerEvent('heat', n)

    wsa.event('heat', history=total)
    with ThreadPoolExecutor() as pool:
        done = pool.submit(trigger)
        while not seen or seen[-1] < total:
            with connect(wsa.url.replace('http', 'ws', 1), max_queue=None) as connection:
                peer = Peer(connection)
                peer.subscribe('heat', since=since(wsa, 'heat', seen[-1] if seen else 0))
                seen.extend(ver for ver, _ in pushes(peer, min(7, total - len(seen))))
        done.result()
    assert list(seen) == list(range(1, total + 1))


def test_nothing_between_answer_and_first_push(serve: Serve, open_peer: OpenPeer) -> None:
    """Whenever a client subscribes, its pushes go on from the first without gap or double."""
    wsa, stop = serve(limits=ws.Limits(history_bytes=2**30)), threading.Event()

    def trigger() -> None:
        while not stop.is_set():
            wsa.triggerEvent('heat', None).result()
            stop.wait(0.0001)

    wsa.event('heat', history=1_000_000)  # however late the server is, nothing is gone
    wsa.triggerEvent('heat', None)
    with ThreadPoolExecutor() as pool:
        done = pool.submit(trigger)
        try:
            for _ in range(10):
                peer = open_peer(wsa)
                ver = peer.subscribe('heat')['ver']
                vers = [ver for ver, _ in pushes(peer, 20)]
                assert vers == list(range(vers[0], vers[0] + 20))
                assert vers[0] >= ver
        finally:
            stop.set()
        done.result()


# --- triggering ---


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_triggers_from_many_threads(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """Triggers from many threads at once are each a version of its own, pushed once and in order to everyone."""
    wsa, threads, each = serve(loop=loop), 8, 100
    wsa.event('heat', history=threads * each)
    peers = [open_peer(wsa) for _ in range(3)]
    for peer in peers:
        peer.subscribe('heat')
    barrier = threading.Barrier(threads)

    def trigger(number: int) -> dict[int, list[int]]:
        barrier.wait(TIMEOUT)
        return {wsa.triggerEvent('heat', [number, n]).result(): [number, n] for n in range(each)}

    with ThreadPoolExecutor(threads) as pool:
        given = {ver: value for vers in pool.map(trigger, range(threads)) for ver, value in vers.items()}
    assert sorted(given) == list(range(1, threads * each + 1))
    for peer in peers:
        assert pushes(peer, len(given)) == sorted(given.items())


@pytest.mark.parametrize('kind', ['plain', 'async', 'threaded'])
def test_trigger_of_a_handler(serve: Serve, open_peer: OpenPeer, kind: str) -> None:
    """A handler may trigger; its caller, if it subscribed, is pushed to like everyone."""

    def trigger(ctx: ws.Context, q: Bag) -> int:
        return int(ctx.wsa.triggerEvent('heat', q.n).result())

    async def trigger_later(ctx: ws.Context, q: Bag) -> int:
        return trigger(ctx, q)

    handlers = {'plain': trigger, 'async': trigger_later, 'threaded': ws.threaded(lambda ctx, q: trigger(ctx, q))}
    wsa = serve({'trigger': handlers[kind]})
    caller, other = open_peer(wsa), open_peer(wsa)
    for peer in (caller, other):
        peer.subscribe('heat')
    caller.send({'cmd': 'cmd/trigger', 'q': {'n': 5}})
    received = [caller.receive() for _ in range(2)]
    assert [message['r'] for message in received if 'evt' in message] == [5]
    assert [message['r'] for message in received if 'evt' not in message] == [1]
    assert pushes(other, 1) == [(1, 5)]


def test_trigger_returns_its_version(serve: Serve) -> None:
    """A trigger's future is done on return, and is the version's number."""
    wsa = serve()
    futures = [wsa.triggerEvent('heat', n) for n in range(3)]
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [1, 2, 3]


def test_event_as_it_stands(serve: Serve) -> None:
    """`wsa.event` tells the version, the epoch and the value as they are when it is asked."""
    wsa = serve()
    event = wsa.event('heat')
    before = (event.ver, event.value, event.epoch)
    wsa.triggerEvent('heat', {'a': 1})
    assert before == (0, None, event.epoch)
    assert (event.ver, event.value, event.name) == (1, {'a': 1}, 'heat')


def test_value_that_is_changed(serve: Serve, open_peer: OpenPeer) -> None:
    """What the caller changes after the trigger is never seen, nor what a reader changes in a value."""
    wsa, data = serve(), {'a': [1], 'b': Bag({'c': 1})}
    wsa.triggerEvent('heat', data)
    data['a'].append(2)
    data['b'].c = 2
    wsa.event('heat').value['a'].append(3)
    peer = open_peer(wsa)
    peer.subscribe('heat')
    assert pushes(peer, 1) == [(1, {'a': [1], 'b': {'c': 1}})]
    assert wsa.event('heat').value == {'a': [1], 'b': {'c': 1}}


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    'make', [object, lambda: {'a': {1, 2}.__iter__()}, threading.Lock, lambda: {(1, 2): 3}, circle]
)
def test_data_that_cannot_be_json(serve: Serve, open_peer: OpenPeer, make: Callable[[], Any]) -> None:
    """Data that cannot be JSON is a `TypeError` in the caller's thread, and no version."""
    wsa = serve()
    peer = open_peer(wsa)
    peer.subscribe('heat')
    with pytest.raises(TypeError):
        wsa.triggerEvent('heat', make())
    assert wsa.event('heat').ver == 0
    wsa.triggerEvent('heat', 1)
    assert pushes(peer, 1) == [(1, 1)]


@pytest.mark.parametrize(
    ('name', 'kind'), [('', ValueError), ('e' * 257, ValueError), (5, TypeError), (None, TypeError)]
)
def test_name_that_is_none(serve: Serve, name: Any, kind: type[Exception]) -> None:
    """An event is named by 1 to 256 characters, for whoever triggers or asks."""
    wsa = serve()
    for use in (lambda: wsa.triggerEvent(name, 1), lambda: wsa.event(name)):
        with pytest.raises(kind):
            use()


@pytest.mark.parametrize(('history', 'kind'), [(0, ValueError), (-1, ValueError), ('5', ValueError), (1.5, ValueError)])
def test_history_that_is_none(serve: Serve, history: Any, kind: type[Exception]) -> None:
    """A history is a number of versions, at least one."""
    with pytest.raises(kind):
        serve().event('heat', history=history)


# --- history and distinct ---


@pytest.mark.parametrize(('history', 'kept'), [(1, 1), (3, 3), (50, 20)])
def test_history(serve: Serve, open_peer: OpenPeer, history: int, kept: int) -> None:
    """`history` is how many versions are kept for those who come late."""
    wsa = serve()
    wsa.event('heat', history=history)
    for n in range(1, 21):
        wsa.triggerEvent('heat', n)
    peer = open_peer(wsa)
    peer.subscribe('heat', since={'ver': 0})
    assert [ver for ver, _ in pushes(peer, kept)] == list(range(21 - kept, 21))
    assert is_quiet(peer)


def test_history_in_bytes(serve: Serve, open_peer: OpenPeer) -> None:
    """The log is bounded in bytes too; the newest version stays, however large."""
    wsa = serve(limits=ws.Limits(history_bytes=100))
    for value in ('a' * 40, 'b' * 40, 'c' * 500):
        wsa.triggerEvent('heat', value)
    peer = open_peer(wsa)
    peer.subscribe('heat', since={'ver': 0})
    push = peer.receive()
    assert (push['ver'], push['from'], push['r']) == (3, 1, 'c' * 500)


def test_distinct(serve: Serve, open_peer: OpenPeer) -> None:
    """Of an event that is `distinct`, a trigger that changes nothing is no new version."""
    wsa = serve()
    wsa.event('state', distinct=True)
    peer = open_peer(wsa)
    peer.subscribe('state')
    vers = [wsa.triggerEvent('state', value).result() for value in (0, 0, {'a': 1, 'b': 2}, {'b': 2, 'a': 1}, 0)]
    assert vers == [1, 1, 2, 2, 3]
    assert pushes(peer, 3) == [(1, 0), (2, {'a': 1, 'b': 2}), (3, 0)]
    assert is_quiet(peer)


def test_distinct_of_none(serve: Serve) -> None:
    """The first trigger of a `distinct` event is a version, also with `None`."""
    wsa = serve()
    wsa.event('state', distinct=True)
    assert [wsa.triggerEvent('state', None).result() for _ in range(2)] == [1, 1]


def test_distinct_told_late(serve: Serve) -> None:
    """An event told to be `distinct` after it was triggered is so at once."""
    wsa = serve()
    wsa.triggerEvent('state', {'b': 1, 'a': 2})
    wsa.event('state', distinct=True)
    assert [wsa.triggerEvent('state', value).result() for value in ({'a': 2, 'b': 1}, 1)] == [1, 2]


def test_distinct_for_a_while(serve: Serve) -> None:
    """A value that differs from the newest is a version, whatever was newest when the event was last `distinct`."""
    wsa = serve()
    wsa.event('state', distinct=True)
    wsa.triggerEvent('state', 'a')
    wsa.event('state', distinct=False)
    wsa.triggerEvent('state', 'b')
    wsa.event('state', distinct=True)
    assert (wsa.triggerEvent('state', 'a').result(), wsa.event('state').value) == (3, 'a')


def test_not_distinct(serve: Serve, open_peer: OpenPeer) -> None:
    """Each trigger of any other event is a version, whatever its data."""
    wsa = serve()
    peer = open_peer(wsa)
    peer.subscribe('heat')
    for _ in range(3):
        wsa.triggerEvent('heat', 1)
    assert pushes(peer, 3) == [(1, 1), (2, 1), (3, 1)]


# --- before, between and after ---


def test_trigger_before_start(open_peer: OpenPeer) -> None:
    """What is triggered before `start` is there for those who come."""
    wsa = ws.WebShoesApp('127.0.0.1', 0)
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {})
    for n in (1, 2):
        wsa.triggerEvent('heat', n)
    with wsa:
        peer = open_peer(wsa)
        peer.subscribe('heat', since={'ver': 0})
        assert pushes(peer, 2) == [(1, 1), (2, 2)]


@pytest.mark.usefixtures('patience')
def test_trigger_before_the_stop(serve: Serve, open_peer: OpenPeer) -> None:
    """What was triggered before `stop` still arrives."""
    wsa = serve()
    peer = open_peer(wsa)
    peer.subscribe('heat')
    for n in range(100):
        wsa.triggerEvent('heat', n)
    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(wsa.stop)
        assert pushes(peer, 100) == [(n + 1, n) for n in range(100)]
        peer.connection.close()
        stopping.result()


def test_restart(serve: Serve, open_peer: OpenPeer) -> None:
    """An app that is started again goes on in its history: nothing is lost, and what came meanwhile follows."""
    wsa = serve()
    first = open_peer(wsa)
    epoch = first.subscribe('heat')['epoch']
    wsa.triggerEvent('heat', 1)
    assert pushes(first, 1) == [(1, 1)]
    wsa.stop()
    wsa.triggerEvent('heat', 2)
    wsa.start()
    second = open_peer(wsa)
    answer = second.subscribe('heat', since={'ver': 1, 'epoch': epoch})
    assert (answer['ver'], answer['epoch'], answer['recovered']) == (2, epoch, True)
    wsa.triggerEvent('heat', 3)
    assert pushes(second, 2) == [(2, 2), (3, 3)]


def test_new_app(serve: Serve, open_peer: OpenPeer) -> None:
    """A new app has a new epoch, and a client of the old one is told so with its first push."""
    old, new = serve(), serve()
    old.triggerEvent('heat', 'old')
    new.triggerEvent('heat', 'new')
    assert old.event('heat').epoch != new.event('heat').epoch
    peer = open_peer(new)
    answer = peer.subscribe('heat', since=since(old, 'heat', 1))
    push = peer.receive()
    assert (answer['recovered'], push['ver'], push['r'], push['epoch']) == (False, 1, 'new', new.event('heat').epoch)


def test_state_and_position(serve: Serve, open_peer: OpenPeer) -> None:
    """A page that subscribes from the position a command gave it has every change after its state."""
    state = {'n': 0}

    def load(ctx: ws.Context, q: Bag) -> dict[str, Any]:
        event = ctx.wsa.event('state')
        return {'since': {'ver': event.ver, 'epoch': event.epoch}, 'state': dict(state)}

    wsa = serve({'load': load})
    for n in (1, 2, 3):
        state['n'] = n
        wsa.triggerEvent('state', n)
        if n == 1:
            peer = open_peer(wsa)
            loaded = peer.ask({'cmd': 'cmd/load'})['r']
    assert loaded['state'] == {'n': 1}
    peer.subscribe('state', since=loaded['since'])
    assert pushes(peer, 2) == [(2, 2), (3, 3)]


# --- those who are slow ---

BIG = 'x' * 200_000


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_stalled_client(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """A client that does not read keeps nobody from every version; when it reads, gaps are declared to the newest."""
    wsa, total = serve(loop=loop), 120
    stalled, reading = open_stalled(wsa), open_peer(wsa)
    with stalled, stalled.makefile('rb') as stream:
        stalled.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
        assert read_message(stream)['r']['uid'] == 'slow'
        reading.subscribe('heat')
        for n in range(1, total + 1):
            wsa.triggerEvent('heat', [n, BIG])
            assert reading.receive()['ver'] == n
        received = read_until(stream, total)
    covered = [ver for push in received for ver in range(push.get('from') or push['ver'], push['ver'] + 1)]
    assert covered == list(range(1, total + 1))
    assert 0 < len(received) < total
    assert all(push['r'][0] == push['ver'] for push in received)


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_triggers_without_end(serve: Serve, open_peer: OpenPeer, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    """A client that gets pushes without end is answered all the same, and `stop` ends it with 1001."""
    monkeypatch.setattr('webshoes.transports.server.CLOSING', TIMEOUT)  # it has much to read before the close
    wsa, done = serve(loop=loop), threading.Event()
    peer = open_peer(wsa)
    peer.subscribe('heat')

    def trigger() -> None:
        while not done.is_set():
            wsa.triggerEvent('heat', BIG[:200])

    thread = threading.Thread(target=trigger)
    thread.start()
    try:
        peer.send({'ping': 1})
        while 'pong' not in peer.receive():
            pass
        threading.Thread(target=wsa.stop).start()
        with pytest.raises(ConnectionClosed) as closed:
            deque(iter(peer.receive, None))
    finally:
        done.set()
        thread.join()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


def test_stalled_client_and_the_stop(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read does not hold up `stop`: the server's thread has ended."""
    monkeypatch.setattr('webshoes.transports.server.CLOSING', 0.1)
    before = threading.enumerate()
    wsa = serve(limits=ws.Limits(stop_timeout=9))  # less than an end that waits for the client would take
    with open_stalled(wsa) as stalled, stalled.makefile('rb') as stream:
        stalled.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
        assert read_message(stream)['r']['uid'] == 'slow'
        wsa.triggerEvent('heat', BIG * 100)
        wsa.stop()
        assert not any(thread.name == 'webshoes' for thread in threading.enumerate() if thread not in before)


def read_until(stream: BinaryIO, ver: int) -> list[Push]:
    """The pushes up to a version."""
    received: list[Push] = []
    while not received or received[-1].get('ver', 0) < ver:
        received.append(read_message(stream))
    return received


def test_many_subscribers(serve: Serve, open_peer: OpenPeer) -> None:
    """A burst reaches each of many subscribers whole and in order, while calls are answered in between."""
    wsa, burst = serve({'echo': lambda ctx, q: q}), 50
    peers = [open_peer(wsa) for _ in range(40)]
    for peer in peers:
        peer.subscribe('heat')
    caller = open_peer(wsa)
    for n in range(burst):
        wsa.triggerEvent('heat', n)
    assert caller.ask({'cmd': 'cmd/echo', 'q': {'a': 1}})['r'] == {'a': 1}
    for peer in peers:
        assert pushes(peer, burst) == [(n + 1, n) for n in range(burst)]


def test_many_subscriptions_of_one_connection(serve: Serve, open_peer: OpenPeer) -> None:
    """A connection with many subscriptions is pushed all of them, and may end any at any time."""
    wsa = serve()
    peer = open_peer(wsa)
    for n in range(300):
        peer.subscribe(f'event {n}', uid='u')
    for n in range(0, 300, 2):
        peer.ask({'evt': f'event {n}', 'uid': 'u', 'off': True})
    for n in range(300):
        wsa.triggerEvent(f'event {n}', n)
    assert [peer.receive()['r'] for _ in range(150)] == list(range(1, 300, 2))
    assert is_quiet(peer)
