"""What a client may cost: each limit over real sockets, and that it is counted (`Limits`)."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed

import webshoes as ws

from .conftest import TIMEOUT, OpenPeer, Serve, echo
from .faces import dial, frame, open_stalled, read_head, until, upgrade
from .test_connections import open_stream
from .test_events import is_quiet, read_until
from .test_tls import Certificates
from .test_websocket import Gate, closed_with, errors

SHORT = 0.2  # seconds of a limit that is to be met
LOOPS = pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
GET = b'GET /cmd/echo HTTP/1.1\r\nHost: localhost\r\n\r\n'


def limits(**settings: Any) -> ws.Limits:
    """These limits, and none that a slow machine would meet besides."""
    usual: dict[str, Any] = {'slow_handler': None, 'stall_timeout': None, 'stop_timeout': TIMEOUT}
    return ws.Limits(**(usual | settings))


def met(wsa: ws.WebShoesApp) -> dict[str, int]:
    """The limits that were met, and how often."""
    return {name: count for name, count in wsa.stats()['limits'].items() if count}


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes, in whatever way."""
    received = b''
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """The status and the body of one answer, the connection left open."""
    head = read_head(connection).lower()
    size = int(head.partition('content-length: ')[2].partition('\r\n')[0])
    body = b''
    while len(body) < size:
        chunk = connection.recv(size - len(body))
        assert chunk, body
        body += chunk
    return int(head.split()[1]), body


def trickle(connection: socket.socket, pause: float = 0.02) -> bytes:
    """Send a byte again and again, until the server has something to say; all it says."""
    while not select.select([connection], [], [], pause)[0]:
        with suppress(ConnectionError):
            connection.send(b'a')
    return rest(connection)


def is_refused(received: bytes, code: int) -> bool:
    """Whether this is one error in our shape, which ends its connection."""
    head, _, body = received.partition(b'\r\n\r\n')
    return (
        head.startswith(b'HTTP/1.1 %d ' % code)
        and b'\r\nConnection: close' in head
        and json.loads(body)['code'] == code
    )


def pass_time(wsa: ws.WebShoesApp, start: bytes = b'') -> None:
    """Return when another connection, which began just now and is dead, was given up."""
    with dial(wsa.port) as dead:
        dead.sendall(start)
        rest(dead)


def post(size: int, kind: str = 'application/octet-stream', path: str = '/cmd/save') -> bytes:
    """The head of a request whose body has this size."""
    lines = [f'POST {path} HTTP/1.1', 'Host: localhost', f'Content-Type: {kind}', f'Content-Length: {size}', '', '']
    return '\r\n'.join(lines).encode()


# --- the head ---


@LOOPS
def test_head_that_trickles(serve: Serve, loop: str) -> None:
    """A head that comes byte by byte is answered 408 when its time is over, and others are served meanwhile."""
    wsa = serve({'echo': echo}, limits=limits(header_timeout=SHORT), loop=loop)
    with dial(wsa.port) as slow:
        slow.sendall(b'GET / HTTP/1.1\r\nX: ')
        assert requests.get(f'{wsa.url}/cmd/echo?a=1', timeout=TIMEOUT).json() == {'a': '1'}
        assert is_refused(trickle(slow), 408)
    assert met(wsa) == {'header_timeout': 1}


@LOOPS
def test_nothing_sent(serve: Serve, loop: str) -> None:
    """A connection that says nothing is closed without a word."""
    wsa = serve(limits=limits(header_timeout=SHORT), loop=loop)
    with dial(wsa.port) as silent:
        assert rest(silent) == b''
    assert met(wsa) == {'header_timeout': 1}


@LOOPS
@pytest.mark.parametrize('hello', [b'', b'\x16\x03\x01\x02\x00\x01'], ids=['nothing', 'half'])
def test_handshake_of_tls_that_does_not_end(serve: Serve, tmp_path: Path, loop: str, hello: bytes) -> None:
    """A handshake of TLS that is not ended in the time of a head is closed; others are served."""
    certificates = Certificates(tmp_path)
    wsa = serve({'echo': echo}, limits=limits(header_timeout=SHORT * 5), loop=loop, ssl=certificates.paths)
    trusting = ssl.create_default_context(cafile=certificates.authority)
    with dial(wsa.port) as slow, dial(wsa.port) as plain:
        slow.sendall(hello)
        with trusting.wrap_socket(plain, server_hostname='127.0.0.1') as quick:
            quick.sendall(GET)
            assert answer(quick) == (200, b'{}')
        assert rest(slow) == b''


def test_head_behind_a_request(serve: Serve) -> None:
    """The head of the next request has its time too, and ends no later for what came of it with the one before."""
    wsa = serve({'echo': echo}, limits=limits(header_timeout=SHORT))
    with dial(wsa.port) as slow:
        slow.sendall(GET + GET[:10])
        assert answer(slow) == (200, b'{}')
        assert is_refused(trickle(slow), 408)
    assert met(wsa) == {'header_timeout': 1}


@LOOPS
@pytest.mark.parametrize('more', [b'', GET[:10]], ids=['nothing', 'half a head'])
def test_keep_alive_that_is_over(serve: Serve, loop: str, more: bytes) -> None:
    """A connection that was served and sends no whole request more is closed, without a word."""
    wsa = serve({'echo': echo}, limits=limits(keepalive_timeout=SHORT), loop=loop)
    with dial(wsa.port) as idle:
        idle.sendall(GET + more)
        assert answer(idle) == (200, b'{}')
        assert rest(idle) == b''
    assert met(wsa) == {'keepalive_timeout': 1}


def test_keep_alive_that_lasts(serve: Serve) -> None:
    """An idle connection has the time of its own, and not that of a head."""
    wsa = serve({'echo': echo}, limits=limits(header_timeout=SHORT))
    with dial(wsa.port) as idle:
        for _ in range(2):
            idle.sendall(GET)
            assert answer(idle) == (200, b'{}')
            pass_time(wsa)


def test_body_behind_its_answer(serve: Serve) -> None:
    """A body that comes when its request was answered already is no head that begins."""
    wsa = serve({'echo': echo}, limits=limits(header_timeout=SHORT))
    with dial(wsa.port) as connection:
        connection.sendall(post(5, path='/nowhere'))
        assert answer(connection)[0] == 404
        connection.sendall(b'12345')
        for _ in range(2):
            pass_time(wsa)
        connection.sendall(GET)
        assert answer(connection) == (200, b'{}')


# --- the body ---


@LOOPS
@pytest.mark.parametrize('kind', ['application/json', 'application/x-www-form-urlencoded', 'application/octet-stream'])
def test_slow_body(serve: Serve, caplog: pytest.LogCaptureFixture, loop: str, kind: str) -> None:
    """A body that stays away is 408, and the connection is closed; whoever reads it, and without a word in the log."""

    async def save(ctx: ws.Context, q: Any) -> int:
        return len(await ctx.req.read())

    wsa = serve({'save': save}, limits=limits(body_timeout=SHORT), loop=loop)
    with dial(wsa.port) as slow:
        slow.sendall(post(10, kind) + b'{"a')
        received = rest(slow)
    assert received.startswith(b'HTTP/1.1 408 ')
    assert json.loads(received.partition(b'\r\n\r\n')[2])['code'] == 408
    assert met(wsa) == {'body_timeout': 1}
    assert caplog.records == []


def test_body_that_trickles(serve: Serve) -> None:
    """A body of which something comes again and again is waited for."""
    wsa = serve({'echo': echo}, limits=limits(body_timeout=1.0))
    with dial(wsa.port) as slow:
        slow.sendall(post(12, 'application/json', '/cmd/echo'))
        for byte in b'{"a": 12345}':
            slow.sendall(bytes([byte]))
            select.select([slow], [], [], 0.1)
        assert answer(slow) == (200, b'{"a":12345}')


@LOOPS
def test_body_that_the_handler_does_not_read(serve: Serve, loop: str) -> None:
    """A body that stands because the handler does not read it is not given up."""
    gate, size = threading.Event(), 20_000_000

    async def save(ctx: ws.Context, q: Any) -> int:
        await asyncio.to_thread(gate.wait, TIMEOUT)
        return len(await ctx.req.read())

    wsa = serve({'save': save}, limits=limits(body_timeout=SHORT, max_body_size=None), loop=loop)
    with dial(wsa.port) as connection, ThreadPoolExecutor() as threads:
        sending = threads.submit(connection.sendall, post(size) + bytes(size))
        for _ in range(2):
            pass_time(wsa, post(5, 'application/json', '/cmd/save'))
        gate.set()
        assert answer(connection) == (200, b'%d' % size)
        sending.result(TIMEOUT)
    assert met(wsa) == {'body_timeout': 2}


@LOOPS
def test_handler_that_goes_on_after_the_body(serve: Serve, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that has come is no slow body, however long the handler goes on."""
    monkeypatch.setattr('webshoes.transports.http_connection.ANSWER', SHORT / 10)
    gate, entered = threading.Event(), threading.Event()

    async def save(ctx: ws.Context, q: Any) -> int:
        entered.set()
        size = len(await ctx.req.read())
        await asyncio.to_thread(gate.wait, TIMEOUT)
        return size

    wsa = serve({'save': save}, limits=limits(body_timeout=SHORT), loop=loop)
    with dial(wsa.port) as connection:
        connection.sendall(post(5))
        assert entered.wait(TIMEOUT)
        connection.sendall(b'12345')
        for _ in range(2):
            pass_time(wsa, post(5, 'application/json', '/cmd/save'))
        gate.set()
        assert answer(connection) == (200, b'5')
    assert met(wsa) == {'body_timeout': 2}


# --- connections ---


@LOOPS
def test_connections_over_the_limit(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """One connection too many is told 503 before it said anything; the others go on, and one that ends makes room."""
    wsa = serve({'echo': echo}, limits=limits(max_connections=2), loop=loop)
    peer = open_peer(wsa)
    with dial(wsa.port) as second:
        second.sendall(GET)
        assert answer(second) == (200, b'{}')
        with dial(wsa.port) as third:
            assert is_refused(rest(third), 503)
        assert met(wsa) == {'max_connections': 1}
        second.sendall(GET)
        assert answer(second) == (200, b'{}')
        assert is_quiet(peer)

    def is_served() -> bool:
        with dial(wsa.port) as another, suppress(ConnectionError):
            another.sendall(GET)
            return answer(another)[0] == 200
        return False

    until(is_served)


def test_connections_of_one_address(serve: Serve) -> None:
    """An address with too many connections is told 429, another one is let in."""
    wsa = serve({'echo': echo}, limits=limits(max_connections_per_address=1))
    elsewhere = socket.create_connection(('127.0.0.1', wsa.port), TIMEOUT, ('127.0.0.2', 0))
    with dial(wsa.port) as first, elsewhere:
        for _ in range(2):
            with dial(wsa.port) as another:
                assert is_refused(rest(another), 429)
        for connection in (first, elsewhere):
            connection.sendall(GET)
            assert answer(connection) == (200, b'{}')
    assert met(wsa) == {'max_connections_per_address': 2}


# --- calls a second ---


def test_rate_of_a_websocket(serve: Serve, open_peer: OpenPeer) -> None:
    """A call too many is 429 and not run; pings, and other connections, are none."""
    ran: list[int] = []
    wsa = serve({'run': lambda ctx, q: ran.append(q.n)}, limits=limits(max_rate=0.001))
    peer, other = open_peer(wsa), open_peer(wsa)
    assert is_quiet(peer)
    for n, one in enumerate((peer, other)):
        assert one.ask({'cmd': 'cmd/run', 'q': {'n': n}})['r'] is None
    assert errors(peer, {'cmd': 'cmd/run', 'q': {'n': 5}, 'tid': 't'}) == [(429, 't')]
    assert is_quiet(peer)
    assert ran == [0, 1]
    assert met(wsa) == {'max_rate': 1}


@LOOPS
def test_rate_of_a_websocket_that_goes_on(
    serve: Serve, open_peer: OpenPeer, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who goes on for long is closed with 1013."""
    monkeypatch.setattr('webshoes.core.rate.PATIENCE', SHORT)
    peer = open_peer(serve({'echo': echo}, limits=limits(max_rate=0.001), loop=loop))
    assert 'r' in peer.ask({'cmd': 'cmd/echo', 'q': {}})
    with suppress(ConnectionClosed):
        while True:
            assert peer.ask({'cmd': 'cmd/echo', 'q': {}})['code'] == 429
    assert closed_with(peer)[0] == 1013


def test_rate_that_is_kept(serve: Serve, open_peer: OpenPeer) -> None:
    """A second's calls may come at once, and there is a next second."""
    peer = open_peer(serve({'echo': echo}, limits=limits(max_rate=50)))
    for _ in range(50):
        assert 'r' in peer.ask({'cmd': 'cmd/echo', 'q': {}})
    until(lambda: 'r' in peer.ask({'cmd': 'cmd/echo', 'q': {}}))


@LOOPS
def test_rate_of_http(serve: Serve, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request too many is 429 on a connection that goes on, or its next one would be free; for long it does not."""
    wsa = serve({'echo': echo}, limits=limits(max_rate=0.001), loop=loop)
    with dial(wsa.port) as connection:
        for code in (200, 429, 429):
            connection.sendall(GET)
            assert answer(connection)[0] == code
        assert met(wsa) == {'max_rate': 2}
        monkeypatch.setattr('webshoes.core.rate.PATIENCE', SHORT)
        with suppress(ConnectionError, IndexError):
            for _ in iter(int, 1):
                connection.sendall(GET)
                if not select.select([connection], [], [], TIMEOUT)[0] or not connection.recv(65536):
                    break
        assert rest(connection) == b''


# --- the time of a handler ---


@ws.threaded
def block(ctx: ws.Context, q: Any) -> str:
    """A handler in a thread that takes as long as its event is not set."""
    ctx.opts.go.wait(TIMEOUT)
    return 'late'


@LOOPS
def test_time_of_a_handler_over_http(serve: Serve, loop: str) -> None:
    """A coroutine that takes too long is cancelled, a thread is left; both are 504, and others are served meanwhile."""
    gate, go = Gate(), threading.Event()
    fm = {'wait': gate, 'block': block, 'echo': echo}
    wsa = serve(fm, opts={'go': go}, limits=limits(handler_timeout=SHORT), loop=loop)
    try:
        for count, name in enumerate(('wait', 'block'), 1):
            with ThreadPoolExecutor() as threads:
                waiting = threads.submit(requests.get, f'{wsa.url}/cmd/{name}', timeout=TIMEOUT)
                assert requests.get(f'{wsa.url}/cmd/echo?a=1', timeout=TIMEOUT).json() == {'a': '1'}
                response = waiting.result(TIMEOUT)
            assert (response.status_code, response.json()['code']) == (504, 504)
            assert met(wsa) == {'handler_timeout': count}
        assert gate.ended.get(timeout=TIMEOUT) == 'cancelled'
    finally:
        go.set()


@LOOPS
def test_time_of_a_handler_over_websocket(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """The same, where the turn is given on to what waits for it."""
    gate, go = Gate(), threading.Event()
    fm = {'wait': gate, 'block': block, 'echo': echo}
    wsa = serve(fm, opts={'go': go}, limits=limits(handler_timeout=SHORT), loop=loop)
    peer = open_peer(wsa)
    try:
        for count, name in enumerate(('wait', 'block'), 1):
            peer.send({'cmd': f'cmd/{name}', 'q': {}}, {'cmd': 'cmd/echo', 'q': {'n': 1}})
            assert peer.ask({'cmd': 'cmd/echo', 'q': {'n': 2}, 'tid': 2})['r'] == {'n': 2}
            assert (peer.receive()['code'], peer.receive()['r']) == (504, {'n': 1})
            assert met(wsa) == {'handler_timeout': count}
        assert gate.ended.get(timeout=TIMEOUT) == 'cancelled'
    finally:
        go.set()
    assert is_quiet(peer)


def test_time_of_a_stubborn_handler(serve: Serve, open_peer: OpenPeer) -> None:
    """Over WebSocket a coroutine that will not be cancelled is answered for too, once."""

    async def stubborn(ctx: ws.Context, q: Any) -> str:
        go = asyncio.get_running_loop().create_future()
        with suppress(asyncio.CancelledError):
            await go
        return 'after all'

    peer = open_peer(serve({'stubborn': stubborn}, limits=limits(handler_timeout=SHORT)))
    assert peer.ask({'cmd': 'cmd/stubborn', 'tid': 1})['code'] == 504
    assert is_quiet(peer)


def test_time_limit_of_the_handlers_own(serve: Serve, open_peer: OpenPeer) -> None:
    """A TimeoutError of a handler's own is a failure of the handler as any other."""

    async def fail(ctx: ws.Context, q: Any) -> None:
        raise TimeoutError

    wsa = serve({'fail': fail}, limits=limits(handler_timeout=TIMEOUT))
    assert requests.get(f'{wsa.url}/cmd/fail', timeout=TIMEOUT).status_code == 500
    assert open_peer(wsa).ask({'cmd': 'cmd/fail'})['code'] == 500
    assert met(wsa) == {}


# --- who is still there ---

BEAT = {'ping_interval': SHORT, 'ping_timeout': SHORT}


@LOOPS
@pytest.mark.parametrize('begun', [b'', b'\x81\xfe\x01\x00\0\0\0\0{"ping', b'\x01\x81\0\0\0\0{'])
def test_dead_peer(serve: Serve, loop: str, begun: bytes) -> None:
    """A peer that does not answer a ping is dropped, when it is idle and in the middle of a message."""
    wsa = serve(limits=limits(**BEAT), loop=loop)
    with open_stalled(wsa) as dead:
        dead.sendall(begun)
        assert rest(dead) == b'\x89\x00'
    until(lambda: not wsa.connections)
    assert met(wsa) == {'ping_interval': 1, 'ping_timeout': 1}


@LOOPS
def test_peer_that_trickles(serve: Serve, loop: str) -> None:
    """A peer that sends a byte now and then is not alive."""
    wsa = serve(limits=limits(**BEAT), loop=loop)
    with open_stalled(wsa) as slow:
        slow.sendall(b'\x81\xff\0\0\0\0\0\0\xff\xff\0\0\0\0')
        received = b''
        while True:
            if select.select([slow], [], [], 0.02)[0]:
                try:
                    chunk = slow.recv(100)
                except ConnectionResetError:
                    break
                received += chunk
                if not chunk:
                    break
            with suppress(ConnectionError):
                slow.send(b'a')
    assert received == b'\x89\x00'
    assert met(wsa) == {'ping_interval': 1, 'ping_timeout': 1}


@LOOPS
def test_live_peer(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """A peer that answers pings stays, and one that sends other frames instead."""
    wsa = serve(limits=limits(ping_interval=SHORT, ping_timeout=1.0), loop=loop)
    peer = open_peer(wsa)
    with open_stalled(wsa) as other:
        for _ in range(2):
            pass_time_of_a_ping(wsa, other)
        assert is_quiet(peer)
        until(lambda: len(wsa.connections) == 2)  # who is answered may be so before the dead are gone
    counted = met(wsa)
    assert counted.pop('ping_interval') >= 4  # of the dead, and of the one that answers
    assert counted == {'ping_timeout': 2}


def pass_time_of_a_ping(wsa: ws.WebShoesApp, talking: socket.socket) -> None:
    """Return when another peer, which is dead, was dropped; until then one talks."""
    with dial(wsa.port) as dead:
        dead.sendall(upgrade())
        while not select.select([dead], [], [], 0.05)[0] or b'\x89' not in dead.recv(1000):
            talking.sendall(b'\x8a\x80\0\0\0\0')
        while not select.select([dead], [], [], 0.05)[0]:
            talking.sendall(b'\x8a\x80\0\0\0\0')
        rest(dead)


@LOOPS
def test_peer_that_is_not_read(serve: Serve, loop: str) -> None:
    """A peer that reads slowly, so that we do not read it, is not taken for dead."""
    wsa = serve({'echo': echo}, limits=limits(**BEAT), loop=loop)
    with open_stalled(wsa) as slow:
        slow.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
        until(lambda: wsa.subscribers('heat'))
        for _ in range(40):
            wsa.triggerEvent('heat', 'x' * 100_000)
        (conn,) = wsa.connections
        until(lambda: conn.buffered)
        for _ in range(2):
            pass_time(wsa, upgrade())
        assert conn in wsa.connections
        with slow.makefile('rb') as stream:
            assert read_until(stream, 40)[-1]['ver'] == 40
    assert met(wsa)['ping_timeout'] == 2


def test_peer_whose_hook_takes_long(serve: Serve, open_peer: OpenPeer) -> None:
    """A peer that is not read yet, as its `connect` hook goes on, is not taken for dead."""
    wsa, go = serve({'echo': echo}, limits=limits(**BEAT)), threading.Event()

    @wsa.on('connect')
    @ws.threaded
    def connected(ctx: ws.Context) -> None:
        if ctx.p == '/slow':
            go.wait(TIMEOUT)

    try:
        peer = open_peer(wsa, '/slow')
        for _ in range(2):
            pass_time(wsa, upgrade())
    finally:
        go.set()
    assert is_quiet(peer)


def test_pings_of_the_client(serve: Serve) -> None:
    """Pings are answered with what they hold, in their order."""
    wsa = serve()
    pings = [b'', *(bytes([n]) * 125 for n in range(10))]
    with open_stalled(wsa) as connection:
        connection.sendall(b''.join(bytes((0x89, 0x80 | len(data), 0, 0, 0, 0)) + data for data in pings))
        with connection.makefile('rb') as stream:
            for data in pings:
                assert stream.read(2 + len(data)) == bytes((0x8A, len(data))) + data


# --- each is counted, once ---

Act = Callable[[ws.WebShoesApp, OpenPeer], object]
JSON = {'Content-Type': 'application/json'}
PARTS = {f'f{n}': (None, b'content') for n in range(3)}


def ask(*messages: Any) -> Act:
    """Send messages, each of which is answered."""

    def act(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
        peer = open_peer(wsa)
        for message in messages:
            peer.ask(message)

    return act


def too_long(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
    peer = open_peer(wsa)
    peer.connection.send(' ' * 2000)
    assert closed_with(peer)[0] == 1009


def send_post(code: int, **settings: Any) -> Act:
    """POST this, which is refused."""

    def act(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
        assert requests.post(f'{wsa.url}/cmd/echo', timeout=TIMEOUT, **settings).status_code == code

    return act


def send_get(query: str, code: int = 200) -> Act:
    """GET this."""

    def act(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
        assert requests.get(f'{wsa.url}/cmd{query}', timeout=TIMEOUT).status_code == code

    return act


def trigger(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
    for _ in range(5):
        wsa.triggerEvent('heat', 'x' * 100)


def trigger_one_of_its_own(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
    trigger(wsa, open_peer)
    wsa.event('heat', history=1)


def fall_behind(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
    with open_stalled(wsa) as slow:
        slow.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
        until(lambda: wsa.subscribers('heat'))
        for _ in range(20):
            wsa.triggerEvent('heat', 'x' * 1_000_000)
        until(lambda: met(wsa).get('send_buffer'))


def take_nothing(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
    with open_stream(wsa):
        for _ in range(40):
            wsa.triggerEvent('heat', 'x' * 100_000)
        until(lambda: not wsa.connections)


def be_slow(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
    open_peer(wsa).ask({'cmd': 'cmd/slow'})


def call_three(waiting: int) -> Act:
    """Three calls at once, of which so many have to wait."""

    def act(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
        peer = open_peer(wsa)
        peer.send(*({'cmd': 'cmd/block', 'tid': n} for n in range(3)))
        until(lambda: sum(met(wsa).values()) == waiting)
        wsa.opts.go.set()
        for _ in range(3):
            assert peer.receive()['r'] == 'late'

    return act


def queue_many(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
    peer = open_peer(wsa)
    peer.send(*({'cmd': 'cmd/block', 'q': {'pad': 'x' * 100}} for _ in range(4)))
    assert [peer.receive()['code'] for _ in range(2)] == [429, 429]
    wsa.opts.go.set()
    for _ in range(2):
        assert peer.receive()['r'] == 'late'


def stop_while_it_runs(wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
    peer = open_peer(wsa)
    peer.send({'cmd': 'cmd/sleep', 'tid': 1})
    until(lambda: wsa.opts.entered.is_set())
    wsa.stop()
    assert peer.receive()['code'] == 503


NAME = 'x' * 300
COUNTED: dict[str, tuple[dict[str, Any], Act, dict[str, int]]] = {
    'message': ({'max_ws_msg_size': 1000}, too_long, {'max_ws_msg_size': 1}),
    'JSON': ({'max_body_size': 100}, send_post(413, data=b' ' * 200, headers=JSON), {'max_body_size': 1}),
    'form': ({'max_body_size': 100}, send_post(413, data={'a': 'x' * 200}), {'max_body_size': 1}),
    'multipart': ({'max_body_size': 100}, send_post(413, files={'a': b'x' * 200}), {'max_body_size': 1}),
    'fields of a query': ({'max_fields': 2}, send_get('/echo?a=1&b=2&c=3', 413), {'max_fields': 1}),
    'fields of a form': ({'max_fields': 2}, send_post(413, data={'a': '1', 'b': '2', 'c': '3'}), {'max_fields': 1}),
    'fields of a multipart': ({'max_fields': 2}, send_post(413, files=PARTS), {'max_fields': 1}),
    'event': ({}, ask({'evt': NAME}), {'max_name': 1}),
    'event over HTTP': ({}, send_get(f'?evt={NAME}', 400), {'max_name': 1}),
    'uid': ({}, ask({'evt': 'heat', 'uid': NAME}), {'max_name': 1}),
    'tid': ({}, ask({'cmd': 'cmd/echo', 'tid': NAME}), {'max_name': 1}),
    'cancel': ({}, ask({'cancel': NAME}), {'max_name': 1}),
    'command': ({}, ask({'cmd': NAME * 4}), {'max_name': 1}),
    'no name': ({}, ask({'evt': ''}, {'evt': 5}, {'evt': 'heat', 'tid': None}), {}),
    'wait': ({'max_wait': SHORT}, send_get('?evt=heat&since=0&wait=inf', 204), {'max_wait': 1}),
    'history': ({'history': 2}, trigger, {'history': 3}),
    'history of its own': ({'history': 5}, trigger_one_of_its_own, {'history': 4}),
    'bytes of history': ({'history_bytes': 250}, trigger, {'history_bytes': 3}),
    'send buffer': ({}, fall_behind, {'send_buffer': 1, 'history_bytes': 19}),
    'stall': ({'stall_timeout': SHORT, 'history': 40, 'history_bytes': 10**7}, take_nothing, {'stall_timeout': 1}),
    'slow handler': ({'slow_handler': 0.001}, be_slow, {'slow_handler': 1}),
    'threads': ({'max_threads': 2}, call_three(1), {'max_threads': 1}),
    'in flight': ({'max_in_flight': 1}, call_three(2), {'max_in_flight': 2}),
    'queue': ({'max_queued': 1}, queue_many, {'max_queued': 2}),
    'bytes of the queue': ({'max_queued_bytes': 200}, queue_many, {'max_queued_bytes': 2}),
    'batch': ({'max_batch': 2}, ask([{'ping': 1}] * 3), {'max_batch': 1}),
    'subscriptions': ({'max_subscriptions': 1}, ask({'evt': 'a'}, {'evt': 'b'}), {'max_subscriptions': 1}),
    'stop': ({'stop_timeout': 2 * SHORT}, stop_while_it_runs, {'stop_timeout': 1}),
}


@pytest.mark.parametrize(('settings', 'act', 'counted'), COUNTED.values(), ids=COUNTED)
def test_counters(
    serve: Serve, open_peer: OpenPeer, settings: dict[str, Any], act: Act, counted: dict[str, int]
) -> None:
    """Each limit that is met is counted, once, and no other."""
    opts: dict[str, Any] = {'go': threading.Event(), 'entered': threading.Event()}

    async def sleep(ctx: ws.Context, q: Any) -> None:
        ctx.opts.entered.set()
        await asyncio.sleep(TIMEOUT)

    def slow(ctx: ws.Context, q: Any) -> None:
        time.sleep(0.01)  # which is what blocks the loop

    wsa = serve({'echo': echo, 'block': block, 'sleep': sleep, 'slow': slow}, opts=opts, limits=limits(**settings))
    act(wsa, open_peer)
    found = met(wsa)
    found.update({'send_buffer': 1} if 'send_buffer' in counted else {})  # how often it filled is the system's affair
    if 'stall_timeout' in counted:
        del found['send_buffer']
    assert found == counted


@pytest.mark.parametrize('by_message', [True, False])
def test_counter_of_the_login(serve: Serve, open_peer: OpenPeer, by_message: bool) -> None:
    """A login that takes too long is refused, and counted, once; one that is refused at once is not."""

    async def find(token: str) -> str | None:
        if token == 'slow':
            await asyncio.sleep(TIMEOUT)
        return None

    auth = ws.bearer_auth(find, by_message=by_message)
    wsa = serve(auth=auth, limits=limits(auth_timeout=SHORT))
    response = requests.get(f'{wsa.url}/cmd', headers={'Authorization': 'Bearer slow'}, timeout=TIMEOUT)
    assert response.status_code == 408
    assert met(wsa) == {'auth_timeout': 1}
    if by_message:
        assert closed_with(open_peer(wsa))[0] == 4401
        assert met(wsa) == {'auth_timeout': 2}
        peer = open_peer(wsa)
        peer.connection.send(b'\xff', text=True)
        assert closed_with(peer)[0] == 4401
        peer = open_peer(wsa)
        peer.send({'auth': 'nobody'})
        assert closed_with(peer)[0] == 4401
        assert met(wsa) == {'auth_timeout': 2}


def test_every_limit_has_a_counter(serve: Serve) -> None:
    """There is one for each, which begins with 0."""
    found = serve().stats()
    assert found['connections'] == 0
    names = set(ws.Limits.__dataclass_fields__)
    assert set(found['limits']) == names
    assert set(found['limits'].values()) == {0}


def test_counters_over_all_runs(serve: Serve, open_peer: OpenPeer) -> None:
    """Counters go on when the app starts anew."""
    wsa = serve(limits=limits(max_batch=1))
    for count in (1, 2):
        assert errors(open_peer(wsa), [{'ping': 1}] * 2) == [(400, None)]
        assert met(wsa) == {'max_batch': count}
        wsa.stop()
        wsa.start()
