"""HTTP clients that read nothing of their answers, and those that read slowly."""

from __future__ import annotations

import asyncio
import gc
import select
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import web

import webshoes as ws

from .conftest import TIMEOUT, Serve
from .faces import dial, frame, read_head, until, upgrade
from .test_limits import LOOPS, limits
from .test_tls import Certificates

SMALL = 4096  # bytes that the system takes for a client that does not read
LARGE = 4_000_000  # bytes of an answer
STALL = 0.3  # seconds
TEXT = 'x' * LARGE


def get(path: str, *headers: str, version: str = '1.1', method: str = 'GET') -> bytes:
    return '\r\n'.join([f'{method} {path} HTTP/{version}', 'Host: localhost', *headers, '', '']).encode()


def post(path: str) -> bytes:
    return get(path, 'Content-Type: application/json', 'Content-Length: 2', method='POST') + b'{}'


class Handlers:
    """Functions with a large answer, in each way in which an answer comes to be."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def json(self, ctx: Any, q: Any) -> Any:
        return {'a': TEXT}

    async def later(self, ctx: Any, q: Any) -> Any:
        await asyncio.sleep(0)
        return {'a': TEXT}

    @ws.threaded
    def threaded(self, ctx: Any, q: Any) -> Any:
        return {'a': TEXT}

    def text(self, ctx: Any, q: Any) -> str:
        return TEXT

    def bytes(self, ctx: Any, q: Any) -> bytes:
        return TEXT.encode()

    def path(self, ctx: Any, q: Any) -> Path:
        return self._root / 'large.bin'

    def fail(self, ctx: Any, q: Any) -> Any:
        raise ws.Error(400, TEXT)

    def response(self, ctx: Any, q: Any) -> web.Response:
        return web.Response(text=TEXT)

    def file(self, ctx: Any, q: Any) -> web.FileResponse:
        return web.FileResponse(self._root / 'large.bin')

    async def stream(self, ctx: Any, q: Any) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(ctx.req)
        for _ in range(LARGE // 1000):
            await response.write(TEXT[:1000].encode())
        return response

    def left(self, ctx: Any, q: Any) -> Any:
        gc.collect()  # what failed holds on to its request until then
        return len(asyncio.all_tasks()), len([*Path('/proc/self/fd').iterdir()])

    def small(self, ctx: Any, q: Any) -> Any:
        return {'a': 'x' * 100}


def start(serve: Serve, root: Path, **settings: Any) -> ws.WebShoesApp:
    """An app with all these handlers and a folder with a large file, where a stall is noticed soon."""
    (root / 'large.bin').write_bytes(TEXT.encode())
    handlers = Handlers(root)
    fm = {name: getattr(handlers, name) for name in vars(Handlers) if name[0] != '_'}
    wsa = serve(fm, limits=limits(stall_timeout=STALL, history_bytes=2 * LARGE), **settings)
    wsa.register('s', '', '', '', '', {'*': {'root': str(root)}})
    wsa.triggerEvent('state', TEXT)
    return wsa


ANSWERS = {
    'JSON': get('/cmd/json'),
    'JSON to a POST': post('/cmd/json'),
    'JSON later': get('/cmd/later'),
    'JSON of a thread': get('/cmd/threaded'),
    'JSON over HTTP/1.0': get('/cmd/json', version='1.0'),
    'JSON, then the end': get('/cmd/json', 'Connection: close'),
    'text': get('/cmd/text'),
    'bytes': get('/cmd/bytes'),
    'path': get('/cmd/path'),
    'file': get('/s/large.bin'),
    'range of a file': get('/s/large.bin', 'Range: bytes=100-'),
    'error': get('/cmd/fail'),
    "aiohttp's response": get('/cmd/response'),
    "aiohttp's stream": get('/cmd/stream'),
    "aiohttp's file": get('/cmd/file'),
    'event as it stands': get('/cmd?evt=state'),
    'long poll': get('/cmd?evt=state&since=0&wait=60'),
}
MANY = {
    'small answers': get('/cmd/small') * 300,
    'small answers, after a slow one': get('/cmd/later?x=1') + get('/cmd/small') * 300,
    "the package's file": get('/webshoes.js') * 20,
    'answers without body': get('/cmd/small', method='HEAD') * 300,
    'files not modified': get('/webshoes.js', 'If-None-Match: *') * 300,
    'refusals': get('/nowhere') * 300,
    'methods that are refused': get('/s/large.bin', method='PUT') * 300,
    'preflights': get('/cmd/small', 'Origin: http://a.b', 'Access-Control-Request-Method: PUT', method='OPTIONS') * 300,
}
KINDS = pytest.mark.parametrize('request_', (ANSWERS | MANY).values(), ids=ANSWERS | MANY)


def read(connection: socket.socket, size: int) -> bytes:
    """So many bytes."""
    found = b''
    while len(found) < size:
        data = connection.recv(size - len(found))
        assert data
        found += data
    return found


def is_reset(connection: socket.socket) -> bool:
    """Return whether a connection is reset, sooner or later."""
    fate = select.poll()
    fate.register(connection, 0)
    ((_, seen),) = fate.poll(TIMEOUT * 1000)
    return bool(seen & select.POLLERR)


@LOOPS
@KINDS
def test_a_client_that_reads_nothing_is_given_up(serve: Serve, tmp_path: Path, loop: str, request_: bytes) -> None:
    """Whatever the answer is, a client that reads nothing of it for `stall_timeout` is reset, and counted."""
    wsa = start(serve, tmp_path, loop=loop)
    with dial(wsa.port, SMALL) as stalled:
        stalled.sendall(request_)
        assert is_reset(stalled)
    assert wsa.stats()['limits']['stall_timeout'] == 1


@LOOPS
@pytest.mark.parametrize('kind', ['JSON', 'text', 'file', "aiohttp's stream", 'small answers'])
def test_a_client_of_tls_that_reads_nothing_is_given_up(serve: Serve, tmp_path: Path, loop: str, kind: str) -> None:
    """So is one under TLS."""
    certificates = Certificates(tmp_path)
    wsa = start(serve, tmp_path, loop=loop, ssl=certificates.paths)
    trusting = ssl.create_default_context(cafile=certificates.authority)
    with trusting.wrap_socket(dial(wsa.port, SMALL), server_hostname='127.0.0.1') as stalled:
        stalled.sendall((ANSWERS | MANY)[kind])
        assert is_reset(stalled)
    assert wsa.stats()['limits']['stall_timeout'] == 1


@LOOPS
@pytest.mark.parametrize('kind', ['JSON', 'text', 'file', "aiohttp's stream", 'long poll'])
@pytest.mark.parametrize('is_kept_alive', [True, False])
def test_a_client_that_stops_in_the_middle(
    serve: Serve, tmp_path: Path, loop: str, kind: str, is_kept_alive: bool
) -> None:
    """One that has read some of the answer, or other answers before, is given up when it reads no more."""
    wsa = start(serve, tmp_path, loop=loop)
    with dial(wsa.port, SMALL) as stalled:
        if is_kept_alive:
            for _ in range(3):
                stalled.sendall(get('/cmd/small'))
                assert '200 OK' in read_head(stalled)
                read(stalled, len('{"a":""}') + 100)
        stalled.sendall(ANSWERS[kind])
        read(stalled, 200_000)
        assert is_reset(stalled)
    assert wsa.stats()['limits']['stall_timeout'] == 1


@LOOPS
@pytest.mark.parametrize(
    'kind', ['JSON', 'text', 'file', "aiohttp's stream", "aiohttp's file", 'small answers', 'long poll']
)
def test_a_slow_client_is_kept(serve: Serve, tmp_path: Path, loop: str, kind: str) -> None:
    """One that reads a little now and then is kept for much longer than `stall_timeout`, and gets all."""
    wsa = start(serve, tmp_path, loop=loop)
    with dial(wsa.port, SMALL) as slow:
        slow.sendall((ANSWERS | MANY)[kind])
        taken = len(read_head(slow))
        started = time.monotonic()
        while time.monotonic() - started < 5 * STALL:
            taken += len(slow.recv(2000))
            time.sleep(STALL / 5)  # this makes the reader slow
        while taken < (LARGE if kind in ANSWERS else 300 * 100):
            data = slow.recv(65536)
            assert data
            taken += len(data)
        assert wsa.stats()['limits']['stall_timeout'] == 0


@LOOPS
def test_a_client_that_waits_is_kept(serve: Serve, tmp_path: Path, loop: str) -> None:
    """A client that has read all, or whose answer takes long, is no stalled one."""

    async def slow(ctx: Any, q: Any) -> str:
        await asyncio.sleep(5 * STALL)
        return 'done'

    wsa = serve({'slow': slow, 'small': lambda ctx, q: 'x'}, loop=loop, limits=limits(stall_timeout=STALL))
    with dial(wsa.port) as idle, dial(wsa.port) as waiting:
        idle.sendall(get('/cmd/small'))
        waiting.sendall(get('/cmd/slow') + get('/cmd/small'))
        assert '200 OK' in read_head(waiting)
        assert read(waiting, 4) == b'done'
        assert '200 OK' in read_head(waiting)
        assert '200 OK' in read_head(idle)
        for connection in (idle, waiting):
            read(connection, 1)
            connection.sendall(get('/cmd/small'))
            assert '200 OK' in read_head(connection)
    assert wsa.stats()['limits']['stall_timeout'] == 0


@LOOPS
@pytest.mark.parametrize('kind', ['JSON', 'file', "aiohttp's file", "aiohttp's stream"])
def test_nothing_is_left_of_a_stalled_client(serve: Serve, tmp_path: Path, loop: str, kind: str) -> None:
    """When a stalled client was given up, neither a task nor an open file of it is left."""
    wsa = start(serve, tmp_path, loop=loop)

    def left() -> Any:
        return requests.get(f'{wsa.url}/cmd/left', timeout=TIMEOUT).json()

    left()  # the first one imports something
    before = left()
    for _ in range(3):
        with dial(wsa.port, SMALL) as stalled:
            stalled.sendall(ANSWERS[kind])
            assert is_reset(stalled)
    until(lambda: left() == before)


@LOOPS
@pytest.mark.parametrize('is_slow', [False, True])
@pytest.mark.parametrize('kind', ['JSON', 'file', "aiohttp's stream"])
def test_a_unix_domain_socket(tmp_path: Path, loop: str, is_slow: bool, kind: str) -> None:
    """Over a Unix domain socket the client that reads nothing is given up, and the slow one is kept."""
    path = f'{tmp_path}/s'

    def serve(fm: Any, **settings: Any) -> ws.WebShoesApp:
        wsa = ws.WebShoesApp(f'unix:{path}', 0, **settings)
        wsa.register('cmd', 'cmd', 'q', 'evt', 'r', fm)
        wsa.start()
        return wsa

    with start(serve, tmp_path, loop=loop) as wsa, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(path)
        client.sendall(ANSWERS[kind])
        if is_slow:
            read_slowly(client, 600_000, 400_000)
        else:
            until(lambda: wsa.stats()['limits']['stall_timeout'])
        assert wsa.stats()['limits']['stall_timeout'] == (not is_slow)


@LOOPS
def test_large_answers_to_requests_that_came_together(serve: Serve, loop: str) -> None:
    """Not all of them are made for a client that reads none; each is there when it reads."""
    made: list[int] = []

    def large(ctx: Any, q: Any) -> Any:
        made.append(int(q.n))
        return {'n': int(q.n), 'a': TEXT}

    wsa = serve({'large': large}, loop=loop, limits=limits())
    with dial(wsa.port, SMALL) as client:
        client.sendall(get('/cmd/large?n=0'))  # from the second one on they are answered where their bytes arrive
        assert '200 OK' in read_head(client)
        read(client, len('{"n":0,"a":""}') + LARGE)
        client.sendall(b''.join(get(f'/cmd/large?n={number}') for number in range(1, 10)))
        assert '200 OK' in read_head(client)
        assert len(made) < 4
        for number in range(1, 10):
            assert b'{"n":%d,' % number == read(client, len('{"n":0,"a":""}') + LARGE)[:7]
            if number < 9:
                assert '200 OK' in read_head(client)
        assert made == [*range(10)]


# --- WebSockets: the heartbeat ---


def read_slowly(connection: socket.socket, size: int, a_second: int) -> bytes:
    """So many bytes, at a rate."""
    found = b''
    while len(found) < size:
        data = connection.recv(min(a_second // 20, size - len(found)))
        assert data, len(found)
        found += data
        time.sleep(0.05)  # this makes the reader slow
    return found


@LOOPS
@pytest.mark.parametrize(('is_tls', 'size'), [(False, 60_000), (False, 400_000), (True, 400_000)])
def test_a_big_push_over_a_slow_line_arrives(serve: Serve, tmp_path: Path, loop: str, is_tls: bool, size: int) -> None:
    """A client that takes a push for longer than `ping_interval` and both timeouts gets it all, and answers then."""
    certificates = Certificates(tmp_path)
    beats = {'ping_interval': STALL, 'ping_timeout': STALL, 'stall_timeout': 2 * STALL}
    tls = {'ssl': certificates.paths} if is_tls else {}
    wsa = serve(loop=loop, limits=limits(send_buffer=8 * LARGE, **beats), **tls)  # all of the push waits at once
    connection = dial(wsa.port, SMALL)
    if is_tls:
        trusting = ssl.create_default_context(cafile=certificates.authority)
        connection = trusting.wrap_socket(connection, server_hostname='127.0.0.1')
    with connection as slow:
        slow.sendall(upgrade('Sec-WebSocket-Protocol: webshoes'))
        read_head(slow)
        until(lambda: wsa.connections)
        (conn,) = wsa.connections
        conn.push('heat', 'x' * size)
        received = read_slowly(slow, size, size // 5)
        assert received.count(b'x') > size * 0.99
        slow.sendall(frame({'ping': 1}))
        while b'"pong"' not in received:
            received = received[-10:] + read(slow, 1)
        assert wsa.connections == [conn]
    assert wsa.stats()['limits']['ping_timeout'] == wsa.stats()['limits']['stall_timeout'] == 0


@LOOPS
@pytest.mark.parametrize('is_pushed_to', [False, True])
def test_a_frozen_client_is_dropped(serve: Serve, loop: str, is_pushed_to: bool) -> None:
    """One that answers no ping is dropped, although its system acknowledges the ping and little pushes."""
    wsa = serve(loop=loop, limits=limits(ping_interval=STALL, ping_timeout=STALL))
    with dial(wsa.port) as frozen:
        frozen.sendall(upgrade())
        read_head(frozen)
        until(lambda: wsa.connections)
        (conn,) = wsa.connections
        while wsa.connections:
            if is_pushed_to:
                conn.push('heat', 1)
            time.sleep(STALL / 10)  # some bytes between two looks, and never a kilobyte
        assert is_reset(frozen)
    assert wsa.stats()['limits']['ping_timeout'] == 1
