"""One contract, three faces: what events promise (section 6) holds over WebSocket, event streams and long polls."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import requests

import webshoes as ws

from .conftest import TIMEOUT, Serve
from .faces import FACES, Face, Push, RefusedError, dial, frame, until, upgrade

OpenFace = Callable[..., Face]

on_each_loop = pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])


@pytest.fixture(params=FACES, ids=lambda face: face.__name__)
def open_face(request: pytest.FixtureRequest) -> Iterator[OpenFace]:
    """Subscribe over the face that the test is about; the connection is broken off after the test.

    `open_face(wsa)`, `open_face(wsa, 'event', since='kQzPmXaB:41', buffer=4096)`
    """
    opened: list[Face] = []

    def open_one(wsa: ws.WebShoesApp, event: str = 'heat', since: str | None = None, buffer: int | None = None) -> Face:
        opened.append(request.param(wsa, buffer))
        opened[-1].open(event, since)
        return opened[-1]

    yield open_one
    for face in opened:
        face.lose()


class Seen:
    """What a client has seen of an event: each push has to be the next version, or to declare what is gone.

    Args:
        cursor: where it began, `None` where its first push begins its history.
    """

    def __init__(self, cursor: str | None) -> None:
        self.vers: list[int] = []
        self.gone: list[int] = []
        self._next = None if cursor is None else int(cursor.rpartition(':')[2]) + 1

    def take(self, push: Push) -> Push:
        """Check the next push."""
        ver: int = push['ver']
        start: int = push.get('from', ver)
        assert 'from' not in push or start < ver
        assert start == (self._next or start)
        self.gone.extend(range(start, ver))
        self.vers.append(ver)
        self._next = ver + 1
        return push


@contextmanager
def triggering(wsa: ws.WebShoesApp, event: str = 'heat') -> Iterator[None]:
    """Have another thread trigger all the time; the value is the number of the version."""
    done = threading.Event()

    def trigger() -> None:
        ver: int = wsa.event(event).ver
        while not done.is_set():
            ver = wsa.triggerEvent(event, ver + 1).result()
            done.wait(0.0002)

    thread = threading.Thread(target=trigger)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


# --- where it begins ---


@dataclass
class Start:
    """What follows `since` when versions 1 to 10 were triggered and the log holds 6 to 10; `E` is their epoch."""

    since: str | None
    vers: list[int]
    start: int | None = None
    tells_epoch: bool = False


STARTS = {
    'nothing': Start(None, [10]),
    'all of it': Start('E:10', []),
    'one behind': Start('E:9', [10]),
    'as far back as the log goes': Start('E:5', [6, 7, 8, 9, 10]),
    'further back': Start('E:4', [6, 7, 8, 9, 10], start=5),
    'the start': Start('E:0', [6, 7, 8, 9, 10], start=1),
    'the start without epoch': Start('0', [6, 7, 8, 9, 10], start=1),
    'another epoch': Start('another:9', [10], tells_epoch=True),
    'another epoch further on': Start('another:99', [10], tells_epoch=True),
    'the start of another epoch': Start('another:0', [10], tells_epoch=True),
    'this epoch further on': Start('E:99', [10], tells_epoch=True),
}


@on_each_loop
@pytest.mark.parametrize('case', STARTS.values(), ids=STARTS)
def test_since(serve: Serve, open_face: OpenFace, case: Start, loop: str) -> None:
    """What was missed follows version by version, or what is gone is declared; then all that is triggered."""
    wsa = serve(loop=loop)
    wsa.event('heat', history=5)
    for n in range(1, 11):
        wsa.triggerEvent('heat', n)
    epoch = wsa.event('heat').epoch
    face = open_face(wsa, since=case.since and case.since.replace('E:', f'{epoch}:'))
    received = [face.next() for _ in case.vers]
    wsa.triggerEvent('heat', 11)
    received.append(face.next())
    assert [(push['ver'], push['r']) for push in received] == [(ver, ver) for ver in (*case.vers, 11)]
    assert [push.get('from') for push in received] == [case.start, *[None] * len(case.vers)]
    if face.tells_epoch_always:
        assert {push['epoch'] for push in received} == {epoch}
    else:
        told = epoch if case.tells_epoch else None
        assert [push.get('epoch') for push in received] == [told, *[None] * len(case.vers)]


@pytest.mark.parametrize('since', [None, '0', 'E:0', 'another:7', 'E:7'])
def test_never_triggered(serve: Serve, open_face: OpenFace, since: str | None) -> None:
    """An event that was never triggered gives nothing, and then its versions from the first on."""
    wsa = serve()
    epoch = wsa.event('heat').epoch
    face = open_face(wsa, since=since and since.replace('E:', f'{epoch}:'))
    received = []
    for n in (1, 2):
        wsa.triggerEvent('heat', n)
        received.append(face.next())
    assert [(push['ver'], push['r'], 'from' in push) for push in received] == [(1, 1, False), (2, 2, False)]
    is_new = since is not None and since.endswith('7')
    assert ('epoch' in received[0], 'epoch' in received[1]) == (
        (True, True) if face.tells_epoch_always else (is_new, False)
    )


def test_fields(serve: Serve, open_face: OpenFace) -> None:
    """A push has the name of its event, the version, the value and the time of its trigger, whoever reads it when."""
    wsa, before = serve(), time.time()
    wsa.triggerEvent('heat ☃', {'a': [1, None, 'ü\n']})
    after = time.time()
    first, again = (open_face(wsa, 'heat ☃').next() for _ in range(2))
    assert (first['evt'], first['ver'], first['r']) == ('heat ☃', 1, {'a': [1, None, 'ü\n']})
    assert before <= first['t'] == again['t'] <= after
    assert set(first) - {'uid', 'epoch'} == {'evt', 'ver', 't', 'r'}


@on_each_loop
def test_nothing_between_the_start_and_the_first_push(serve: Serve, open_face: OpenFace, loop: str) -> None:
    """Whenever a client comes while another thread triggers, nothing is lost and nothing doubled from there on."""
    wsa = serve(loop=loop)
    wsa.triggerEvent('heat', 1)
    with triggering(wsa):
        for since in (None, '0', None, 'now') * 2:
            event = wsa.event('heat')
            before = event.ver
            face = open_face(wsa, since=f'{event.epoch}:{before}' if since == 'now' else since)
            seen = Seen({None: None, '0': '0', 'now': f':{before}'}[since])
            for _ in range(20):
                push = seen.take(face.next())
                assert push['ver'] == push['r']
            assert since == '0' or seen.vers[0] >= before
            face.lose()


# --- lost and resumed ---


@on_each_loop
@pytest.mark.parametrize('history', [1000, 3])
def test_lost_and_resumed(serve: Serve, open_face: OpenFace, history: int, loop: str) -> None:
    """Over connections that break again and again, each version comes once, or is declared where the log was short."""
    wsa, total = serve(loop=loop), 150
    wsa.event('heat', history=history)
    face, seen = open_face(wsa, since='0'), Seen('0')

    def trigger() -> None:
        for n in range(1, total + 1):
            wsa.triggerEvent('heat', n)
            threading.Event().wait(0.0005)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(trigger)
        while total not in seen.vers:
            for _ in range(min(7, total - max(seen.vers, default=0))):
                push = seen.take(face.next())
                assert push['ver'] == push['r']
                if push['ver'] == total:
                    break
            face.lose()
            face.resume(wsa)
        done.result()
    assert sorted(seen.vers + seen.gone) == list(range(1, total + 1))
    assert history < total or seen.gone == []


def test_restart(serve: Serve, open_face: OpenFace) -> None:
    """An app that is started again goes on in its history, with what was triggered while it was stopped."""
    wsa = serve()
    face = open_face(wsa, since='0')
    wsa.triggerEvent('heat', 1)
    received = [face.next()]
    face.lose()
    epoch = wsa.event('heat').epoch
    wsa.stop()
    wsa.triggerEvent('heat', 2)
    wsa.start()
    wsa.triggerEvent('heat', 3)
    face.resume(wsa)
    received += [face.next(), face.next()]
    assert [(push['ver'], push['r'], 'from' in push) for push in received] == [(n, n, False) for n in (1, 2, 3)]
    assert {push.get('epoch') for push in received} == {epoch if face.tells_epoch_always else None}


@pytest.mark.parametrize('is_triggered', [True, False])
def test_new_app(serve: Serve, open_face: OpenFace, is_triggered: bool) -> None:
    """A new app's history is a new one, and its first push says so, also where that comes late."""
    old, new = serve(), serve()
    old.triggerEvent('heat', 'old')
    face = open_face(old)
    assert face.next()['r'] == 'old'
    face.lose()
    if is_triggered:
        new.triggerEvent('heat', 'new')
    face.resume(new)
    if not is_triggered:
        face.lose()
        face.resume(new)
        new.triggerEvent('heat', 'new')
    push = face.next()
    epoch = new.event('heat').epoch
    assert epoch != old.event('heat').epoch
    assert (push['ver'], push['r'], push['epoch']) == (1, 'new', epoch)
    face.lose()
    new.triggerEvent('heat', 'newer')
    face.resume(new)
    push = face.next()
    assert (push['ver'], push['r'], 'from' in push) == (2, 'newer', False)
    assert ('epoch' in push) == face.tells_epoch_always


# --- slow, and many ---


@on_each_loop
def test_stalled_reader(serve: Serve, open_face: OpenFace, loop: str) -> None:
    """Who reads nothing for a while then gets versions that follow each other, or declare a gap, up to the newest."""
    total, big = 100, 'x' * 100_000
    wsa = serve(loop=loop, limits=ws.Limits(stall_timeout=None, history_bytes=4 * len(big)))
    face, seen = open_face(wsa, since='0', buffer=4096), Seen('0')
    for n in range(1, total + 1):
        wsa.triggerEvent('heat', [n, big])
    while total not in seen.vers:
        push = seen.take(face.next())
        assert push['r'] == [push['ver'], big]
    assert sorted(seen.vers + seen.gone) == list(range(1, total + 1))
    assert seen.gone != []


def keeps_up(connection: ws.Connection) -> bool:
    return all(subscription.lag == 0 for subscription in connection.subscriptions)


@on_each_loop
def test_half_closed(serve: Serve, open_face: OpenFace, loop: str) -> None:
    """A client that reads nothing, and says that it will send no more, is left alone and holds up nobody."""
    wsa = serve({'add': lambda ctx, q: 5}, loop=loop)
    face = open_face(wsa, buffer=4096)
    for connection in wsa.connections:  # none is a plain request
        while connection.buffered < 50_000:
            wsa.triggerEvent('heat', 'x' * 10_000)
            until(partial(keeps_up, connection))
    face.send_no_more()
    for _ in range(20):
        wsa.triggerEvent('heat', 1)
        assert requests.get(f'{wsa.url}/cmd/add', timeout=TIMEOUT).json() == 5
    face.lose()
    until(lambda: not wsa.subscribers('heat'))


@pytest.mark.parametrize(
    'request_',
    [
        upgrade() + frame({'evt': 'heat'}),
        upgrade('Sec-WebSocket-Extensions: permessage-deflate') + frame({'evt': 'heat'}),
        b'GET /cmd?evt=heat HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n',
        b'GET /cmd?evt=heat HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n',
    ],
    ids=['WebSocket', 'compressed', 'stream', 'stream of HTTP/1.0'],
)
def test_one_value_that_is_not_taken(serve: Serve, request_: bytes) -> None:
    """Who takes nothing of a single large value is given up, in whatever way it was sent."""
    wsa = serve(compress=True, limits=ws.Limits(stall_timeout=0.1))
    with dial(wsa.port, 4096) as connection:
        connection.sendall(request_)
        until(lambda: wsa.subscribers('heat'))
        wsa.triggerEvent('heat', secrets.token_hex(5_000_000))
        until(lambda: not wsa.connections)
    assert wsa.subscribers('heat') == []


@on_each_loop
def test_many_threads(serve: Serve, open_face: OpenFace, loop: str) -> None:
    """Threads trigger one event and each its own, while clients come and go: versions in order, gaps told, the end."""
    wsa, threads, each = serve(loop=loop), 8, 25
    wsa.event('same', history=20)
    given: dict[str, dict[int, Any]] = {'same': {}, **{f'own {n}': {} for n in range(threads)}}
    barrier = threading.Barrier(threads)

    def trigger(number: int) -> None:
        barrier.wait(TIMEOUT)
        for n in range(each):
            for event in ('same', f'own {number}'):
                given[event][wsa.triggerEvent(event, [number, n]).result()] = [number, n]

    def follow(face: Face, stays: int | None) -> tuple[Seen, list[Push]]:
        """Read on to the end, leaving and coming again after so many pushes."""
        seen, received = Seen('0'), list[Push]()
        while not received or received[-1]['r'] != 'end':
            received.append(seen.take(face.next()))
            if stays is not None and len(received) % stays == 0:
                face.lose()
                face.resume(wsa)
        return seen, received

    readers = [('same', None), ('same', 3), ('same', 7), ('own 0', None), ('own 7', 3)]
    faces = [open_face(wsa, event, since='0') for event, _ in readers]
    with ThreadPoolExecutor(threads + len(readers)) as pool:
        followed = [pool.submit(follow, face, stays) for face, (_, stays) in zip(faces, readers, strict=True)]
        list(pool.map(trigger, range(threads)))
        for event, vers in given.items():
            assert sorted(vers) == list(range(1, each * (threads if event == 'same' else 1) + 1))
            vers[wsa.triggerEvent(event, 'end').result()] = 'end'
    for (event, _), future in zip(readers, followed, strict=True):
        seen, received = future.result()
        assert sorted(seen.vers + seen.gone) == sorted(given[event])
        assert {push['ver']: push['r'] for push in received}.items() <= given[event].items()
        assert event == 'same' or seen.gone == []


# --- how an event behaves ---


@pytest.mark.parametrize(
    ('history', 'history_bytes', 'size', 'kept'),
    [(1, 10_000, 1, 1), (3, 10_000, 1, 3), (50, 10_000, 1, 20), (50, 100, 30, 3), (50, 100, 500, 1)],
)
def test_history(serve: Serve, open_face: OpenFace, history: int, history_bytes: int, size: int, kept: int) -> None:
    """The log is bounded in versions and in bytes; the newest version stays, and what is gone is declared."""
    wsa = serve(limits=ws.Limits(history_bytes=history_bytes))
    wsa.event('heat', history=history)
    for _ in range(20):
        wsa.triggerEvent('heat', 'x' * (size - 2) if size > 1 else 1)
    face, seen = open_face(wsa, since='0'), Seen('0')
    for _ in range(kept):
        seen.take(face.next())
    assert (seen.vers, seen.gone) == (list(range(21 - kept, 21)), list(range(1, 21 - kept)))


def test_distinct(serve: Serve, open_face: OpenFace) -> None:
    """Of an event that is `distinct`, a trigger that changes nothing is no version."""
    wsa = serve()
    wsa.event('state', distinct=True)
    face = open_face(wsa, 'state')
    for value in (0, 0, {'a': 1, 'b': 2}, {'b': 2, 'a': 1}, 0):
        wsa.triggerEvent('state', value)
    assert [(push['ver'], push['r']) for push in (face.next() for _ in range(3))] == [
        (1, 0),
        (2, {'a': 1, 'b': 2}),
        (3, 0),
    ]


def reads(kind: str, calls: list[str]) -> Callable[[], Any]:
    """A `read=` of a kind."""

    def read() -> Any:
        calls.append(threading.current_thread().name)
        if kind == 'failing':
            raise ValueError('no sensor')
        return object() if kind == 'no JSON' else 'read'

    async def read_later() -> Any:
        return read()

    return {'async': read_later, 'threaded': ws.threaded(lambda: read())}.get(kind, read)


@pytest.mark.parametrize('kind', ['plain', 'async', 'threaded'])
@pytest.mark.parametrize('since', [None, '0', 'another:3'])
def test_first_value(serve: Serve, open_face: OpenFace, kind: str, since: str | None) -> None:
    """`read=` gives an event its first version when somebody comes, once."""
    wsa, calls = serve(), list[str]()
    wsa.event('heat', read=reads(kind, calls))
    for _ in range(2):
        face = open_face(wsa, since=since)
        push = face.next()
        assert (push['ver'], push['r']) == (1, 'read')
    wsa.triggerEvent('heat', 'next')
    assert (face.next()['ver'], len(calls)) == (2, 1)


@pytest.mark.parametrize('kind', ['failing', 'no JSON'])
def test_first_value_that_fails(serve: Serve, open_face: OpenFace, kind: str) -> None:
    """Where `read=` fails the event has no value yet, and the subscription is there all the same."""
    wsa, calls = serve(), list[str]()
    wsa.event('heat', read=reads(kind, calls))
    face = open_face(wsa)
    wsa.triggerEvent('heat', 'first')
    push = face.next()
    assert (push['ver'], push['r'], len(calls) > 0) == (1, 'first', True)


# --- refused ---


def test_subscribe_hook_that_refuses(serve: Serve, open_face: OpenFace) -> None:
    """What the hook raises is the answer, nobody is subscribed then, and other events are had."""
    wsa, left = serve(), list[str]()

    @wsa.on('subscribe')
    def check(ctx: ws.Context, event: str) -> None:
        if event == 'secret':
            raise ws.Error(403, 'Not for you')

    @wsa.on('unsubscribe')
    def tell(ctx: ws.Context, event: str) -> None:
        left.append(event)

    for event in ('secret', 'heat'):
        wsa.triggerEvent(event, event)
    with pytest.raises(RefusedError) as refused:
        open_face(wsa, 'secret')
    assert (refused.value.code, wsa.subscribers('secret'), left) == (403, [], [])
    assert open_face(wsa, 'heat').next()['r'] == 'heat'


def test_name_that_is_too_long(serve: Serve, open_face: OpenFace) -> None:
    """A name past the limit is 400, one that just fits is an event."""
    wsa = serve(limits=ws.Limits(max_name=300))
    with pytest.raises(RefusedError) as refused:
        open_face(wsa, 'ü' * 301)
    assert refused.value.code == 400
    wsa.triggerEvent('ü' * 300, 1)
    assert open_face(wsa, 'ü' * 300).next()['evt'] == 'ü' * 300
