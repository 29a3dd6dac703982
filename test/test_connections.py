"""Who is there: connections, pushes to one of them, hooks; and those that take nothing of what is sent."""

from __future__ import annotations

import json
import logging
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed

import webshoes as ws

from .conftest import TIMEOUT, OpenPeer, Serve
from .faces import Push, dial, frame, open_stalled, read_frame, read_message, until
from .test_events import is_quiet, pushes, read_until

BIG = 'x' * 100_000


def open_stream(wsa: ws.WebShoesApp) -> socket.socket:
    """A stream of the event `heat` that reads no further than its first line, with a small buffer."""
    connection = dial(wsa.port, 4096)
    connection.sendall(b'GET /cmd?evt=heat HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n')
    received = b''
    while b'\nid: ' not in received:
        received += connection.recv(1)
    return connection


def read_stalled(connection: socket.socket, ver: int) -> list[Push]:
    """The pushes up to a version, as a client reads them that has not read for long."""
    with connection.makefile('rb') as stream:
        return [it for it in read_until(stream, ver) if 'evt' in it]


# --- who is there ---


def test_connections(serve: Serve, open_peer: OpenPeer) -> None:
    """WebSockets and event streams are listed as long as they are open, plain requests are not."""
    wsa = serve({'who': lambda ctx, q: [conn.id for conn in ctx.wsa.connections]})
    before = time.time()
    peer = open_peer(wsa)
    peer.ask({'ping': 1})
    (first,) = wsa.connections
    assert (first.remote, first.user, before <= first.opened <= time.time()) == ('127.0.0.1', None, True)
    assert repr(first) == f'<Connection {first.id} from 127.0.0.1>'
    stream = open_stream(wsa)
    second = wsa.connections[1]
    assert requests.get(f'{wsa.url}/cmd/who', timeout=TIMEOUT).json() == [first.id, second.id]
    assert ([it.event for it in second.subscriptions], second.buffered) == (['heat'], 0)
    stream.close()
    peer.connection.close()
    until(lambda: not wsa.connections)
    assert (first.subscriptions, second.subscriptions) == ([], [])


def test_connections_of_a_server_that_does_not_run(serve: Serve) -> None:
    """Where nothing runs, nobody is there."""
    wsa = ws.WebShoesApp('127.0.0.1', 0)
    assert (wsa.connections, wsa.subscribers('heat')) == ([], [])


def test_subscribers(serve: Serve, open_peer: OpenPeer) -> None:
    """The subscribers of an event are its connections, each once, and `lag` tells how far behind each is."""
    wsa = serve()
    peers = [open_peer(wsa) for _ in range(2)]
    for peer in peers:
        for uid in 'ab':
            peer.subscribe('heat', uid=uid)
    stream = open_stream(wsa)
    assert wsa.subscribers('heat') == wsa.connections
    assert len(wsa.connections) == 3
    wsa.triggerEvent('heat', 1)
    for peer in peers:
        assert pushes(peer, 2) == [(1, 1), (1, 1)]
    standing = {(it.uid, it.ver, it.lag) for it in wsa.connections[0].subscriptions}
    assert standing == {('a', 1, 0), ('b', 1, 0)}
    stream.close()
    peers[0].ask({'evt': 'heat', 'off': True})
    until(lambda: wsa.subscribers('heat') == [wsa.connections[1]])


# --- pushes to one of them ---


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_push_from_any_thread(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """A push reaches its connection and no other, from many threads at once, each thread's in its order."""
    wsa, each = serve(loop=loop), 50
    peer, other = open_peer(wsa), open_peer(wsa)
    for one in (peer, other):
        one.subscribe('heat')

    def push(number: int) -> None:
        for n in range(each):
            wsa.connections[0].push('heat', [number, n])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(push, range(4)))
    received = [peer.receive() for _ in range(4 * each)]
    assert all(set(it) == {'evt', 't', 'r'} for it in received)
    for number in range(4):
        assert [it['r'][1] for it in received if it['r'][0] == number] == list(range(each))
    assert is_quiet(other)
    wsa.triggerEvent('heat', 'all')
    assert (pushes(peer, 1), pushes(other, 1)) == ([(1, 'all')], [(1, 'all')])


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_push_before_a_trigger(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """What is pushed to a connection comes before what the same thread triggers then, however busy the events are."""
    wsa, rounds, is_done = serve(loop=loop), 200, threading.Event()
    peer, others = open_peer(wsa), [open_peer(wsa) for _ in range(20)]
    peer.subscribe('step')
    (conn,) = wsa.subscribers('step')
    for other in others:
        other.subscribe('step')
        other.subscribe('noise')

    def make_noise() -> None:
        while not is_done.is_set():
            wsa.triggerEvent('noise', None).result()
            time.sleep(0)

    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(make_noise)
        for n in range(rounds):
            conn.push('about', n)
            wsa.triggerEvent('step', n)
        is_done.set()
    found = [(it['evt'], it['r']) for it in (peer.receive() for _ in range(2 * rounds))]
    assert [n for event, n in found if event == 'step'] == list(range(rounds))
    assert all(found.index(('about', n)) < found.index(('step', n)) for n in range(rounds))


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_reply_before_what_its_handler_triggered(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """A caller that has subscribed reads the reply first, then the event that its handler triggered."""

    def work(ctx: ws.Context, q: Any) -> int:
        ctx.wsa.triggerEvent('step', q.n)
        return int(q.n)

    wsa, calls = serve({'work': work}, loop=loop), 64
    peers = [open_peer(wsa) for _ in range(2)]
    for peer in peers:
        peer.subscribe('step')
    for first in range(0, calls, 8):
        for n in range(first, first + 8):
            peers[0].send({'cmd': 'cmd/work', 'q': {'n': n}, 'tid': n})
        found = [('evt' in it, it['r']) for it in (peers[0].receive() for _ in range(16))]
        for n in range(first, first + 8):
            assert found.index((False, n)) < found.index((True, n))
    assert pushes(peers[1], calls) == [(n + 1, n) for n in range(calls)]


def test_push_of_a_handler(serve: Serve, open_peer: OpenPeer) -> None:
    """What a handler pushes to its caller comes before its reply; a plain request cannot be pushed to: 406."""

    def work(ctx: ws.Context, q: Any) -> str:
        for percent in (50, 100):
            ctx.conn.push('progress', percent)
        return 'done'

    wsa = serve({'work': work})
    peer = open_peer(wsa)
    peer.send({'cmd': 'cmd/work'})
    assert [peer.receive()['r'] for _ in range(3)] == [50, 100, 'done']
    response = requests.get(f'{wsa.url}/cmd/work', timeout=TIMEOUT)
    assert (response.status_code, response.json()['code']) == (406, 406)


def test_push_that_cannot_be(serve: Serve, open_peer: OpenPeer) -> None:
    """Data that cannot be JSON is a TypeError in the caller's thread; a closed connection is error 410."""
    wsa = serve()
    peer = open_peer(wsa)
    peer.ask({'ping': 1})
    (conn,) = wsa.connections
    with pytest.raises(TypeError, match='cannot be JSON'):
        conn.push('heat', object())
    assert is_quiet(peer)
    peer.connection.close()
    until(lambda: not wsa.connections)
    with pytest.raises(ws.Error, match='closed') as caught:
        conn.push('heat', 1)
    assert caught.value.code == 410


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_push_to_one_that_is_behind(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """Pushes to a client that does not read are refused with 429 at some point; all that were not arrive, in order."""
    wsa = serve(loop=loop)
    with open_stalled(wsa) as stalled:
        until(lambda: wsa.connections)
        (conn,) = wsa.connections
        pushed = 0
        try:
            while pushed < 1000:
                conn.push('heat', [pushed, BIG])
                pushed += 1
        except ws.Error as exc:
            refused = exc
        assert (refused.code, 'too far behind' in str(refused), pushed >= 2) == (429, True, True)
        other = open_peer(wsa)
        assert is_quiet(other)
        stalled.sendall(frame({'evt': 'end', 'uid': 'u'}))
        wsa.triggerEvent('end', 1)
        received = read_stalled(stalled, 1)
    assert [push['r'][0] for push in received[:-1]] == list(range(pushed))


# --- hooks ---


def test_hooks(serve: Serve, open_peer: OpenPeer) -> None:
    """Hooks hear of each connection and subscription, of WebSockets and streams alike, in order."""
    wsa, told = serve(), list[tuple[str, ...]]()
    told_of_all = threading.Event()

    @wsa.on('connect')
    async def connected(ctx: ws.Context) -> None:
        ctx.session.name = ctx.method
        told.append(('connect', ctx.method))

    @wsa.on('disconnect')
    def disconnected(ctx: ws.Context) -> None:
        told.append(('disconnect', ctx.session.name))
        told_of_all.set()

    for moment in ('subscribe', 'unsubscribe'):

        @wsa.on(moment)
        def hook(ctx: ws.Context, event: str, moment: str = moment) -> None:
            told.append((moment, ctx.session.name, event, ctx.conn.id and ''))

    peer = open_peer(wsa)
    peer.subscribe('heat')
    peer.connection.close()
    assert told_of_all.wait(TIMEOUT)
    life = [('connect',), ('subscribe', 'heat', ''), ('unsubscribe', 'heat', ''), ('disconnect',)]
    assert told == [(moment, 'WS', *more) for moment, *more in life]
    told.clear()
    told_of_all.clear()
    open_stream(wsa).close()
    assert told_of_all.wait(TIMEOUT)
    assert told == [(moment, 'GET', *more) for moment, *more in life]


def test_a_hook_that_takes_its_time(serve: Serve, open_peer: OpenPeer) -> None:
    """Nothing of a connection is handled before its `connect` hooks are done, in a thread too; others go on."""
    go = threading.Event()
    wsa = serve({'name': lambda ctx, q: ctx.session.get('name', 'nobody')})

    @wsa.on('connect')
    @ws.threaded
    def connected(ctx: ws.Context) -> None:
        if ctx.p == '/slow':
            go.wait(TIMEOUT)
        ctx.session.name = ctx.p

    slow, quick = open_peer(wsa, '/slow'), open_peer(wsa, '/quick')
    slow.send({'cmd': 'cmd/name'})
    assert quick.ask({'cmd': 'cmd/name'})['r'] == '/quick'
    go.set()
    assert slow.receive()['r'] == '/slow'


def test_an_error_of_a_hook(serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture) -> None:
    """An error of a `connect` or `disconnect` hook is logged with its name, and harms nobody."""
    wsa, gone = serve(), threading.Event()

    @wsa.on('connect')
    def connected(ctx: ws.Context) -> None:
        raise ValueError('of the hook')

    @wsa.on('connect')
    async def connected_later(ctx: ws.Context) -> None:
        raise ws.Error(400, 'of the other hook')

    @wsa.on('disconnect')
    def disconnected(ctx: ws.Context) -> None:
        gone.set()
        raise ValueError

    with caplog.at_level(logging.ERROR, 'webshoes'):
        peer = open_peer(wsa)
        assert is_quiet(peer)
        peer.connection.close()
        assert gone.wait(TIMEOUT)
        assert is_quiet(open_peer(wsa))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split('<locals>.')[-1] for line in lines[:2]] == ["connected' failed", "connected_later' failed"]


def test_a_subscription_that_is_refused(serve: Serve, open_peer: OpenPeer) -> None:
    """What a `subscribe` hook raises is the answer on each transport, and nothing is told before."""
    wsa = serve()
    wsa.triggerEvent('secret', 'the value')

    @wsa.on('subscribe')
    async def ask(ctx: ws.Context, event: str) -> None:
        if event == 'secret':
            raise ws.Error(403, 'Not for you')

    refusal = {'error': 'Not for you', 'code': 403}
    assert open_peer(wsa).ask({'evt': 'secret'}) == refusal
    for headers in ({}, {'Accept': 'text/event-stream'}):
        for query in ('', '&since=0', '&evt=open'):
            response = requests.get(f'{wsa.url}/cmd?evt=secret{query}', headers=headers, timeout=TIMEOUT)
            is_plain_list = query == '&evt=open' and not headers
            assert is_plain_list or (response.status_code, response.json()) == (403, refusal)
            assert 'the value' not in response.text
    until(lambda: not wsa.subscribers('open') and not wsa.subscribers('secret'))


# --- those that take nothing ---


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_what_a_stalled_client_costs(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """A client that reads nothing costs its buffer; the others get every version meanwhile."""
    wsa, burst, total = serve(loop=loop, limits=ws.Limits(history=100)), 100, 3000
    peers = [open_peer(wsa) for _ in range(3)]
    for peer in peers:
        peer.subscribe('heat')
    with open_stalled(wsa) as stalled:
        stalled.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
        until(lambda: len(wsa.subscribers('heat')) == 4)
        conn = wsa.subscribers('heat')[-1]
        for first in range(0, total, burst):
            for n in range(first, first + burst):
                wsa.triggerEvent('heat', [n, BIG[:1000]])
            for peer in peers:
                assert [ver for ver, _ in pushes(peer, burst)] == list(range(first + 1, first + burst + 1))
        assert conn.buffered <= ws.Limits().send_buffer
        (standing,) = conn.subscriptions
        assert (standing.ver + standing.lag, standing.lag > 2 * burst) == (total, True)
        received = read_stalled(stalled, total)
    covered = [ver for push in received for ver in range(push.get('from') or push['ver'], push['ver'] + 1)]
    assert covered == list(range(1, total + 1))
    assert [push['ver'] for push in received[-burst:]] == list(range(total - burst + 1, total + 1))


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
@pytest.mark.parametrize('send_buffer', [ws.Limits().send_buffer, 20_000])
@pytest.mark.parametrize('uids', [1, 100])
def test_what_a_stalled_client_costs_in_bursts(
    serve: Serve, open_peer: OpenPeer, uids: int, send_buffer: int, loop: str
) -> None:
    """Versions that are triggered together are written together, and to who reads nothing no more than its buffer."""

    def burst(ctx: ws.Context, q: Any) -> Any:
        for _ in range(50):
            ctx.wsa.triggerEvent('heat', BIG[:1000])
        return max(conn.buffered for conn in ctx.wsa.connections)

    wsa = serve({'burst': burst}, loop=loop, limits=ws.Limits(send_buffer=send_buffer))
    peer = open_peer(wsa)
    with open_stalled(wsa) as stalled:
        stalled.sendall(b''.join(frame({'evt': 'heat', 'uid': f'slow{n:03}'}) for n in range(uids)))
        until(lambda: wsa.connections and len(wsa.connections[-1].subscriptions) == uids)
        waiting = [peer.ask({'cmd': 'cmd/burst', 'tid': n})['r'] for n in range(100)]
        assert send_buffer // 2 < max(waiting) <= send_buffer
        assert read_stalled(stalled, 5000)[-1]['ver'] == 5000


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
@pytest.mark.parametrize('send_buffer', [ws.Limits().send_buffer, 20_000])
def test_what_answers_that_are_not_taken_cost(serve: Serve, open_peer: OpenPeer, send_buffer: int, loop: str) -> None:
    """Who calls and reads nothing is answered as far as its buffer has room, and gets the rest when it reads."""
    count, functions = 100, {'large': lambda ctx, q: BIG[:2000]}
    wsa = serve(functions, loop=loop, limits=ws.Limits(send_buffer=send_buffer))
    wsa.command('cmd/waiting')(lambda ctx, q: max(conn.buffered for conn in ctx.wsa.connections))
    peer = open_peer(wsa)
    with open_stalled(wsa) as stalled, stalled.makefile('rb') as stream:
        for _ in range(4):
            stalled.sendall(frame([{'cmd': 'cmd/large'}] * count))
        waiting = [peer.ask({'cmd': 'cmd/waiting', 'tid': n})['r'] for n in range(200)]
        assert send_buffer // 2 < max(waiting) <= send_buffer
        assert [read_message(stream)['r'] for _ in range(4 * count)] == [BIG[:2000]] * (4 * count)


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_a_client_that_takes_nothing_is_closed(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """Who takes nothing for `stall_timeout` is closed with 1013 and a reason, and comes back where it was."""
    wsa = serve(loop=loop, limits=ws.Limits(stall_timeout=0.2))
    with open_stalled(wsa) as stalled:
        stalled.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
        until(lambda: wsa.subscribers('heat'))
        for n in range(1, 101):
            wsa.triggerEvent('heat', [n, BIG])
        until(lambda: not wsa.subscribers('heat'))
        with stalled.makefile('rb') as stream:
            messages = list(iter(partial(read_frame, stream), None))
    *received, (first, close) = messages
    assert (first & 15, int.from_bytes(close[:2], 'big'), close[2:]) == (8, 1013, b'Nothing was taken for too long')
    last = json.loads(received[-1][1])['ver']
    peer = open_peer(wsa)
    answer = peer.subscribe('heat', since={'ver': last, 'epoch': wsa.event('heat').epoch})
    push = peer.receive()
    assert (answer['ver'], push.get('from', push['ver'])) == (100, last + 1)


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
@pytest.mark.parametrize('kind', ['WebSocket', 'stream'])
def test_a_client_that_never_takes_anything_again(serve: Serve, loop: str, kind: str) -> None:
    """Who does not even take its close is cut off, WebSocket or stream; and costs nothing from then on."""
    wsa = serve(loop=loop, limits=ws.Limits(stall_timeout=0.2))
    with open_stalled(wsa) if kind == 'WebSocket' else open_stream(wsa) as stalled:
        if kind == 'WebSocket':
            stalled.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
        until(lambda: wsa.subscribers('heat'))
        for n in range(100):
            wsa.triggerEvent('heat', [n, BIG])
        until(lambda: not wsa.connections)
        assert not wsa.subscribers('heat')
        fate = select.poll()
        fate.register(stalled, 0)
        ((_, seen),) = fate.poll(TIMEOUT * 1000)
        assert seen & select.POLLERR  # it was reset


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_a_slow_client_is_not_a_dead_one(serve: Serve, loop: str) -> None:
    """A client that takes a little again and again is kept, far longer than `stall_timeout`."""
    wsa = serve(loop=loop, limits=ws.Limits(stall_timeout=1.0))
    with open_stalled(wsa) as slow:
        slow.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
        until(lambda: wsa.subscribers('heat'))
        (conn,) = wsa.connections
        for n in range(1, 201):
            wsa.triggerEvent('heat', [n, BIG])
        started, taken = time.monotonic(), 0
        while time.monotonic() - started < 2.5:
            taken += len(slow.recv(16384))
            time.sleep(0.02)  # which is what makes it slow
        assert wsa.connections == [conn]
        assert conn.buffered > 0


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_little_that_is_not_taken(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """Who takes nothing is closed, however little of `send_buffer` waits; the others, who take all, are kept."""
    wsa = serve(loop=loop, limits=ws.Limits(stall_timeout=0.2))
    peer = open_peer(wsa)
    peer.subscribe('heat')
    with open_stalled(wsa) as stalled:
        stalled.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
        until(lambda: len(wsa.connections) == len(wsa.subscribers('heat')) == 2)
        kept, conn = wsa.connections
        time.sleep(0.2)  # which is what has the answers to the subscriptions looked at no more
        while not conn.buffered:
            wsa.triggerEvent('heat', BIG[:1000])
            peer.receive()
        assert conn.buffered < ws.Limits().send_buffer // 2
        until(lambda: wsa.subscribers('heat') == [kept])
    limits = wsa.stats()['limits']
    assert (limits['stall_timeout'], limits['send_buffer']) == (1, 0)


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_a_client_that_is_always_a_little_behind(serve: Serve, loop: str) -> None:
    """A client for whom something waits at each moment, and who takes of it all the time, is kept."""
    wsa = serve(loop=loop, limits=ws.Limits(stall_timeout=0.2))
    with open_stalled(wsa) as slow:
        slow.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
        until(lambda: wsa.subscribers('heat'))
        (conn,) = wsa.connections
        started = time.monotonic()
        while time.monotonic() - started < 1.0:
            while conn.buffered < 50_000 and wsa.connections:
                wsa.triggerEvent('heat', BIG[:1000])
                time.sleep(0.0005)  # which is what lets each event be written by itself
            slow.recv(4096)
            assert wsa.connections == [conn]
    assert wsa.stats()['limits']['send_buffer'] == 0


def test_no_stall_timeout(serve: Serve, open_peer: OpenPeer) -> None:
    """With `None` a client that takes nothing is kept, and gets it all when it reads."""
    wsa = serve(limits=ws.Limits(stall_timeout=None))
    with open_stalled(wsa) as stalled:
        stalled.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
        until(lambda: wsa.subscribers('heat'))
        for n in range(1, 41):
            wsa.triggerEvent('heat', [n, BIG])
        assert read_stalled(stalled, 40)[-1]['ver'] == 40


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_what_an_earlier_answer_has_left(serve: Serve, loop: str) -> None:
    """A stream behind an answer that is not taken yet waits for room, where it held the processor."""

    def big(ctx: ws.Context, q: Any) -> str:
        ctx.req.transport.get_extra_info('socket').setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return BIG[:60_000]

    wsa = serve({'big': big}, loop=loop, limits=ws.Limits(send_buffer=1000, stall_timeout=None))
    wsa.triggerEvent('heat', BIG)
    with dial(wsa.port, 4096) as stalled:
        stalled.sendall(b'GET /cmd/big HTTP/1.1\r\nHost: localhost\r\n\r\n')
        stalled.sendall(b'GET /cmd?evt=heat HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n')
        until(lambda: wsa.subscribers('heat'))
        (conn,) = wsa.connections
        assert conn.buffered > 1000
        busy, started = time.process_time(), time.monotonic()
        while time.monotonic() - started < 0.5:
            time.sleep(0.1)  # which is what an idle program does
        assert time.process_time() - busy < 0.25
        received = b''
        while BIG.encode() not in received:
            received += stalled.recv(65536)


# --- subscriptions at once ---


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_off_and_on_at_once(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """Ending and beginning a subscription in one frame, again and again, loses and doubles nothing meanwhile."""
    wsa, done = serve(loop=loop), threading.Event()
    peer = open_peer(wsa)
    peer.subscribe('heat', uid='u')

    def trigger() -> None:
        n = 0
        while not done.is_set():
            n += 1
            wsa.triggerEvent('heat', n)
            time.sleep(0.0002)  # a rate that a client can follow

    thread = threading.Thread(target=trigger)
    thread.start()
    seen, epoch = 0, wsa.event('heat').epoch
    try:
        for _ in range(100):
            seen = late = check(peer.receive(), seen)
            since = {'ver': seen, 'epoch': epoch}
            frames = {'evt': 'heat', 'uid': 'u', 'off': True}, {'evt': 'heat', 'uid': 'u', 'since': since}
            peer.connection.send(json.dumps(frames))
            while 'ver' in (message := peer.receive()):
                late = check(message, late)  # it was on its way
            assert [message['r']['status'], peer.receive()['r']['status']] == ['Event removed', 'Event added']
    finally:
        done.set()
        thread.join()


def check(push: dict[str, Any], seen: int) -> int:
    """A push is the next version, or declares what is gone."""
    assert push.get('from', push['ver']) == seen + 1
    version: int = push['ver']
    return version


def test_a_close_is_told(serve: Serve, open_peer: OpenPeer) -> None:
    """`conn.close` from the program ends a WebSocket with its code and reason."""
    wsa = serve()
    peer = open_peer(wsa)
    peer.ask({'ping': 1})
    wsa.connections[0].close(4401, 'out')
    with pytest.raises(ConnectionClosed) as closed:
        peer.receive()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, 'out')


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_a_close_of_a_stream_that_is_behind(serve: Serve, loop: str) -> None:
    """`conn.close` ends an event stream soon, also one that takes nothing of what it lacks."""
    wsa = serve(loop=loop)
    with open_stream(wsa):
        for n in range(40):
            wsa.triggerEvent('heat', [n, BIG])
        (conn,) = wsa.connections
        until(lambda: conn.buffered)
        conn.close()
        until(lambda: not wsa.connections)
