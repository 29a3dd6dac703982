"""Calls that end before their handlers return: clients that leave, `cancel`, time limits, a server that stops."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import trustme
from aiohttp import web
from propertybag import Bag

import webshoes as ws

from .conftest import TIMEOUT, OpenPeer, Serve, echo
from .faces import dial, frame, read_head, until, upgrade

LOOPS = ['asyncio', 'uvloop']
JSON = ('Content-Type: application/json',)
KINDS = ['coroutine', 'threaded', 'awaitable']


class Work:
    """Handlers that run until they are cancelled or let go, and tell what they saw."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.ended = threading.Semaphore(0)
        self.seen: list[str] = []

    def fm(self) -> dict[str, Any]:
        """The handlers by name."""
        return {
            'coroutine': self.coroutine,
            'threaded': self.threaded,
            'awaitable': lambda ctx, q: self.coroutine(ctx, q),
            'shielded': ws.shielded(self.coroutine),
            'shielded_thread': ws.shielded(self.threaded),
            'echo': echo,
        }

    async def coroutine(self, ctx: ws.Context, q: Bag) -> str:
        self.entered.release()
        try:
            while not self.let_go.is_set():
                await asyncio.sleep(0.001)
            self.seen.append(f'done, {ctx.is_cancelled}')
        except asyncio.CancelledError:
            self.seen.append(f'CancelledError, {ctx.is_cancelled}')
            raise
        finally:
            self.ended.release()
        return 'done'

    @ws.threaded
    def threaded(self, ctx: ws.Context, q: Bag) -> str:
        self.entered.release()
        while not (ctx.is_cancelled or self.let_go.wait(0.001)):
            pass
        self.seen.append(f'returned, {ctx.is_cancelled}')
        self.ended.release()
        return 'done'

    def wait_for_entry(self) -> None:
        assert self.entered.acquire(timeout=TIMEOUT)

    def wait_for_end(self) -> str:
        """Return the outcome of the next handler that ends."""
        assert self.ended.acquire(timeout=TIMEOUT)
        return self.seen.pop(0)


CANCELLED = {
    'coroutine': 'CancelledError, True',
    'threaded': 'returned, True',
    'awaitable': 'CancelledError, True',
}
DONE = {'coroutine': 'done, False', 'threaded': 'returned, False', 'awaitable': 'done, False'}


@pytest.fixture
def work() -> Iterator[Work]:
    """Handlers that are let go after the test."""
    found = Work()
    yield found
    found.let_go.set()


def get(path: str, method: str = 'GET', *headers: str, body: bytes = b'') -> bytes:
    """The bytes of a request."""
    return '\r\n'.join([f'{method} {path} HTTP/1.1', 'Host: localhost', *headers, '', '']).encode() + body


def leave(connection: socket.socket, way: str) -> None:
    """Close a connection as a program does that ends, or at once."""
    if way == 'reset':
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    connection.close()


def read(connection: socket.socket, size: int) -> bytes:
    """The next so many bytes."""
    return b''.join(connection.recv(1) for _ in range(size))


def read_all(connection: socket.socket) -> bytes:
    return b''.join(iter(lambda: connection.recv(65536), b''))


# --- clients that leave ---


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('way', ['close', 'reset'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('times', [1, 2])
def test_client_that_leaves(
    serve: Serve, work: Work, caplog: pytest.LogCaptureFixture, loop: str, way: str, kind: str, times: int
) -> None:
    """A call whose client has left is cancelled, the first and the second of its path; nothing is logged."""
    wsa = serve(work.fm(), loop=loop)
    for _ in range(times):
        connection = dial(wsa.port)
        connection.sendall(get(f'/cmd/{kind}'))
        work.wait_for_entry()
        leave(connection, way)
        assert work.wait_for_end() == CANCELLED[kind]
    assert requests.get(f'{wsa.url}/cmd/echo?a=1', timeout=TIMEOUT).json() == {'a': '1'}
    wsa.stop()
    assert caplog.records == []


@pytest.mark.parametrize(
    'request_of',
    [
        pytest.param(lambda path: get(path, 'HEAD'), id='HEAD'),
        pytest.param(lambda path: get(path, 'POST', 'Content-Length: 2', body=b'{}'), id='POST'),
        pytest.param(lambda path: get(path, 'POST', 'Content-Length: 9', body=b'{}'), id='a body that breaks off'),
        pytest.param(lambda path: get(path) + get('/cmd/echo') + b'GET /cm', id='pipelined'),
        pytest.param(lambda path: get(path).replace(b'1.1', b'1.0'), id='HTTP/1.0'),
    ],
)
@pytest.mark.parametrize('loop', LOOPS)
def test_requests_of_clients_that_leave(serve: Serve, work: Work, loop: str, request_of: Any) -> None:
    """It is the same for each kind of request."""
    wsa = serve(work.fm(), loop=loop)
    with dial(wsa.port) as connection:
        connection.sendall(request_of('/cmd/coroutine'))
        work.wait_for_entry()
    assert work.wait_for_end() == 'CancelledError, True'


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('kind', ['coroutine', 'threaded'])
@pytest.mark.parametrize('is_polite', [True, False])
def test_client_that_leaves_over_tls(
    serve: Serve, work: Work, tmp_path: Any, loop: str, kind: str, is_polite: bool
) -> None:
    """It is the same over TLS, whether or not the client says that it closes."""
    authority = trustme.CA()
    issued = authority.issue_cert('127.0.0.1')
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / 'cert.pem'))
    wsa = serve(work.fm(), loop=loop, ssl=(tmp_path / 'cert.pem', tmp_path / 'cert.pem'))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    connection = trusting.wrap_socket(dial(wsa.port), server_hostname='127.0.0.1')
    connection.sendall(get(f'/cmd/{kind}'))
    work.wait_for_entry()
    if is_polite:
        connection.unwrap().close()
    else:
        connection.close()
    assert work.wait_for_end() == CANCELLED[kind]


def test_each_call_is_watched_alone(serve: Serve, work: Work) -> None:
    """On a kept connection, a client that leaves cancels the call that runs, and none that is done."""
    wsa = serve(work.fm())
    with dial(wsa.port) as connection:
        work.let_go.set()
        connection.sendall(get('/cmd/coroutine'))
        assert work.wait_for_end() == 'done, False'
        read_head(connection)
        work.let_go.clear()
        work.wait_for_entry()
        assert read(connection, 4) == b'done'
        connection.sendall(get('/cmd/coroutine'))
        work.wait_for_entry()
    assert work.wait_for_end() == 'CancelledError, True'
    assert work.seen == []


def test_a_thread_that_was_not_there_yet(serve: Serve, work: Work) -> None:
    """A call that waits for a thread, and whose client leaves, never begins."""
    limits = ws.Limits(max_threads=1, slow_handler=None)

    async def calls(ctx: ws.Context, q: Bag) -> int:
        names = [getattr(task.get_coro(), '__name__', '') for task in asyncio.all_tasks()]
        return names.count('_handle_request') - 1  # beside this one

    wsa = serve(work.fm() | {'calls': calls}, limits=limits)
    with dial(wsa.port) as first:
        first.sendall(get('/cmd/threaded'))
        work.wait_for_entry()
        with dial(wsa.port) as second:
            second.sendall(get('/cmd/threaded'))
            until(lambda: wsa.stats()['limits']['max_threads'])
        until(lambda: requests.get(f'{wsa.url}/cmd/calls', timeout=TIMEOUT).json() == 1)
        work.let_go.set()
        read_head(first)
    wsa.stop()
    assert work.seen == ['returned, False']


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('kind', ['shielded', 'shielded_thread'])
def test_shielded(serve: Serve, work: Work, loop: str, kind: str) -> None:
    """A shielded handler goes on when its client has left, and `stop` waits for it."""
    wsa = serve(work.fm(), loop=loop)
    with dial(wsa.port) as connection:
        connection.sendall(get(f'/cmd/{kind}'))
        work.wait_for_entry()
    assert requests.get(f'{wsa.url}/cmd/echo', timeout=TIMEOUT).json() == {}
    with ThreadPoolExecutor(1) as threads:
        stopping = threads.submit(wsa.stop)
        until(lambda: not is_listening(wsa))
        work.let_go.set()
        assert work.wait_for_end().endswith(', False')
        stopping.result(TIMEOUT)


def is_listening(wsa: ws.WebShoesApp) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(('127.0.0.1', wsa.port)) == 0


# --- handlers that take it badly ---


class Reaction:
    """A handler that is cancelled and then does something else than end."""

    def __init__(self, reaction: Any) -> None:
        self.entered, self.ended = threading.Event(), threading.Event()
        self.reaction = reaction
        self.delay, self.is_whole = 0.01, False

    async def handler(self, ctx: ws.Context, q: Bag) -> Any:
        self.entered.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(self.delay)
            self.is_whole = True
            if isinstance(self.reaction, Exception):
                raise self.reaction from None
            return self.reaction
        finally:
            self.ended.set()


@pytest.mark.parametrize(
    ('reaction', 'logged'),
    [
        ('late', []),
        (ValueError('it broke'), ["'cmd/f' failed"]),
        (ws.Error(404, 'No such cell'), []),
        (ConnectionResetError('of something else'), []),
    ],
)
def test_reactions_to_a_client_that_leaves(
    serve: Serve, caplog: pytest.LogCaptureFixture, reaction: Any, logged: list[str]
) -> None:
    """Whatever a handler does when it is cancelled, the server goes on; a failure is logged."""
    seen = Reaction(reaction)
    wsa = serve({'f': seen.handler, 'echo': echo})
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/f'))
        assert seen.entered.wait(TIMEOUT)
    assert seen.ended.wait(TIMEOUT)
    assert requests.get(f'{wsa.url}/cmd/echo', timeout=TIMEOUT).json() == {}
    wsa.stop()
    assert [record.message for record in caplog.records] == logged


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('end', ['the client leaves', 'the time is over', 'the server stops'])
def test_an_answer_that_has_begun(serve: Serve, caplog: pytest.LogCaptureFixture, loop: str, end: str) -> None:
    """A call that is cancelled after its handler began the answer is cut off, which is nobody's failure."""
    entered, ended = threading.Event(), threading.Event()

    async def stream(ctx: ws.Context, q: Bag) -> Any:
        try:
            response = web.StreamResponse()
            await response.prepare(ctx.req)
            await response.write(b'one')
            entered.set()
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    limit = 0.3 if end == 'the time is over' else None
    wsa = serve({'stream': stream}, loop=loop, limits=ws.Limits(handler_timeout=limit, stop_timeout=1.0))
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/stream'))
        assert entered.wait(TIMEOUT)
        if end == 'the client leaves':
            leave(connection, 'reset')
        elif end == 'the server stops':
            wsa.stop()
        if end != 'the client leaves':
            received = read_all(connection)
            assert received.startswith(b'HTTP/1.1 200 OK\r\n')
            assert received.endswith(b'\r\n\r\n3\r\none\r\n')
        assert ended.wait(TIMEOUT)
    wsa.stop()
    assert caplog.records == []


def test_a_time_limit_of_a_call_that_is_cancelled(serve: Serve) -> None:
    """A handler that goes on after its client has left is not cancelled again when its time is over, nor counted."""
    seen = Reaction('late')
    wsa = serve({'f': seen.handler}, limits=ws.Limits(handler_timeout=0.2, slow_handler=None))
    seen.delay = 0.4
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/f'))
        assert seen.entered.wait(TIMEOUT)
        leave(connection, 'reset')
    assert seen.ended.wait(TIMEOUT)
    assert (seen.is_whole, wsa.stats()['limits']['handler_timeout']) == (True, 0)


@pytest.mark.parametrize('reaction', ['late', ValueError('it broke')])
@pytest.mark.parametrize('face', ['HTTP', 'WebSocket'])
def test_reactions_to_a_time_limit(
    serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, reaction: Any, face: str
) -> None:
    """A handler that goes on after its time is answered with 504 on both transports, and its failure is logged."""
    seen = Reaction(reaction)
    wsa = serve({'f': seen.handler}, limits=ws.Limits(handler_timeout=0.05, slow_handler=None))
    if face == 'HTTP':
        answer = requests.get(f'{wsa.url}/cmd/f', timeout=TIMEOUT).json()
    else:
        answer = open_peer(wsa).ask({'cmd': 'cmd/f'})
    assert answer == {'error': 'The handler took longer than its time limit', 'code': 504}
    assert seen.ended.wait(TIMEOUT)
    wsa.stop()
    assert [record.message for record in caplog.records] == (["'cmd/f' failed"] if reaction != 'late' else [])


# --- clients that send no more, and wait ---


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('times', [1, 2])
def test_client_that_sends_no_more(serve: Serve, work: Work, loop: str, kind: str, times: int) -> None:
    """A client that has shut down its way to the server is answered, however long that takes (as `nc -N` asks)."""
    wsa = serve(work.fm(), loop=loop)
    for _ in range(times):
        work.let_go.clear()
        with dial(wsa.port) as connection:
            connection.sendall(get(f'/cmd/{kind}'))
            connection.shutdown(socket.SHUT_WR)
            work.wait_for_entry()
            assert read(connection, 3) == b'HTT'  # the answer has begun, to see who is there
            work.let_go.set()
            received = read_all(connection)
        assert received.startswith(b'P/1.1 200 OK\r\n')
        assert received.endswith(b'\r\n\r\ndone')
        assert work.wait_for_end() == DONE[kind]


def test_a_client_that_waits_for_long(serve: Serve, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is begun as far as all answers are the same, and no further."""
    monkeypatch.setattr('webshoes.transports.half_closed.FIRST', 0.001)
    monkeypatch.setattr('webshoes.transports.half_closed.SLOWER', 1)
    wsa = serve(work.fm())
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/coroutine'))
        connection.shutdown(socket.SHUT_WR)
        assert read(connection, 7) == b'HTTP/1.'
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(TIMEOUT)
        work.let_go.set()
        assert read_all(connection).startswith(b'1 200 OK\r\n')


@pytest.mark.parametrize('loop', LOOPS)
def test_answers_to_clients_that_send_no_more(serve: Serve, tmp_path: Any, loop: str) -> None:
    """Each of the requests that came before is answered, in one piece, whatever it asks for."""
    size = 3_000_000
    (tmp_path / 's').mkdir()
    (tmp_path / 's' / 'file.bin').write_bytes(b'x' * size)

    async def slow(ctx: ws.Context, q: Bag) -> Any:
        await asyncio.sleep(0.1)  # until the answer has begun
        return q

    async def large(ctx: ws.Context, q: Bag) -> Any:
        await asyncio.sleep(0.1)
        return b'y' * size

    wsa = serve({'slow': slow, 'large': large, 'echo': echo, 's': {'root': tmp_path}}, loop=loop)
    wsa.triggerEvent('news', 1)
    for _ in range(2):
        requested = [
            get('/cmd/echo?n=1'),
            get('/cmd/slow?n=2'),
            get('/cmd/slow?n=3', 'HEAD'),
            get('/cmd/slow', 'POST', 'Content-Type: application/json', 'Content-Length: 7', body=b'{"n":4}'),
            get('/cmd/large'),
            get('/cmd/s/file.bin'),
            get('/cmd?evt=news'),
            get('/nowhere'),
            get('/cmd/slow?n=9'),
        ]
        with dial(wsa.port) as connection:
            connection.sendall(b''.join(requested))
            connection.shutdown(socket.SHUT_WR)
            received = read_all(connection)
        assert received.count(b'HTTP/1.1 200 OK\r\n') == 8
        assert received.count(b'HTTP/1.1 404 Not Found\r\n') == 1
        assert received.count(b'x') >= size
        assert received.count(b'y') >= size
        assert [received.find(b'{"n":"%d"}' % n) > 0 for n in (1, 2, 3, 9)] == [True, True, False, True]
        assert received.endswith(b'{"n":"9"}')


def test_an_answer_written_in_pieces(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same where aiohttp writes head and body as two, as it does from Python 3.12.9 on."""
    monkeypatch.setattr('aiohttp.http_writer.SKIP_WRITELINES', False, raising=False)
    let_go = threading.Event()

    @ws.threaded
    def large(ctx: ws.Context, q: Bag) -> bytes:
        let_go.wait(TIMEOUT)
        return b'y' * 5000

    wsa = serve({'large': large})
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/large'))
        connection.shutdown(socket.SHUT_WR)
        assert read(connection, 1) == b'H'
        let_go.set()
        received = read_all(connection)
    assert received.startswith(b'TTP/1.1 200 OK\r\n')
    assert received.endswith(b'\r\n\r\n' + b'y' * 5000)


@pytest.mark.parametrize('loop', LOOPS)
def test_quick_answers_to_clients_that_send_no_more(serve: Serve, loop: str) -> None:
    """Immediate answers are sent before the connection is closed."""
    wsa = serve({'echo': echo}, loop=loop)
    for _ in range(20):
        with dial(wsa.port) as connection:
            connection.sendall(get('/cmd/echo?n=1') * 3)
            connection.shutdown(socket.SHUT_WR)
            assert read_all(connection).count(b'\r\n\r\n{"n":"1"}') == 3


@pytest.mark.parametrize('loop', LOOPS)
def test_a_body_that_ends_too_early(serve: Serve, loop: str) -> None:
    """A client that sends no more in the middle of a body has its connection closed, and is not waited for."""
    wsa = serve({'echo': echo}, loop=loop, limits=ws.Limits(body_timeout=0.3))
    for _ in range(20):
        with dial(wsa.port) as connection:
            connection.sendall(get('/cmd/echo', 'POST', 'Content-Length: 9', *JSON, body=b'{"a": 1}'))
            connection.shutdown(socket.SHUT_WR)
            assert read_all(connection) == b''
    assert wsa.stats()['limits'].get('body_timeout', 0) == 0


@pytest.mark.parametrize('loop', LOOPS)
def test_a_response_of_the_handlers_own(serve: Serve, loop: str) -> None:
    """A handler that writes its response itself is left alone."""

    async def stream(ctx: ws.Context, q: Bag) -> Any:
        response = web.StreamResponse()
        await response.prepare(ctx.req)
        await response.write(b'one')
        await asyncio.sleep(0.3)  # longer than until the first byte would be sent
        await response.write(b'two')
        return response

    wsa = serve({'stream': stream}, loop=loop)
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/stream'))
        connection.shutdown(socket.SHUT_WR)
        received = read_all(connection)
    assert received.startswith(b'HTTP/1.1 200 OK\r\n')
    assert received.endswith(b'3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n')


@pytest.mark.parametrize('loop', LOOPS)
def test_a_long_poll_that_sends_no_more(serve: Serve, loop: str) -> None:
    """A long poll is answered, too."""
    wsa = serve({}, loop=loop)
    with dial(wsa.port) as connection:
        connection.sendall(get(f'/cmd?evt=news&wait={TIMEOUT}'))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b'H'
        wsa.triggerEvent('news', 7)
        received = read_all(connection)
    assert received.startswith(b'TTP/1.1 200 OK\r\n')
    assert json.loads(received.partition(b'\r\n\r\n')[2])['r'] == 7


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('has_begun', [True, False])
def test_a_stream_that_sends_no_more(serve: Serve, loop: str, has_begun: bool) -> None:
    """An event stream of such a client has what there is, and ends."""
    wsa = serve({}, loop=loop)
    wsa.triggerEvent('news', 7)
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd?evt=news', 'GET', 'Accept: text/event-stream'))
        if has_begun:
            read_head(connection)
        connection.shutdown(socket.SHUT_WR)
        assert b'"r":7' in read_all(connection)
    until(lambda: wsa.connections == [])


# --- over WebSocket ---


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('times', [1, 2])
def test_cancel(serve: Serve, work: Work, open_peer: OpenPeer, loop: str, kind: str, times: int) -> None:
    """`{"cancel": tid}` cancels, which a thread can see as well."""
    peer = open_peer(serve(work.fm(), loop=loop))
    for _ in range(times):
        peer.send({'cmd': f'cmd/{kind}', 'tid': 1})
        work.wait_for_entry()
        assert peer.ask({'cancel': 1}) == {'error': 'Cancelled', 'code': 499, 'tid': 1}
        assert work.wait_for_end() == CANCELLED[kind]


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('face', ['HTTP', 'WebSocket'])
def test_time_limit(serve: Serve, work: Work, open_peer: OpenPeer, loop: str, kind: str, face: str) -> None:
    """`handler_timeout` cancels, which a thread can see as well; it is counted once."""
    wsa = serve(work.fm(), loop=loop, limits=ws.Limits(handler_timeout=0.05, slow_handler=None))
    if face == 'HTTP':
        answer = requests.get(f'{wsa.url}/cmd/{kind}', timeout=TIMEOUT).json()
    else:
        answer = open_peer(wsa).ask({'cmd': f'cmd/{kind}'})
    assert answer['code'] == 504
    assert work.wait_for_end() == CANCELLED[kind]
    assert wsa.stats()['limits']['handler_timeout'] == 1


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('kind', [*KINDS, 'shielded'])
@pytest.mark.parametrize('face', ['HTTP', 'WebSocket'])
def test_stop(serve: Serve, work: Work, open_peer: OpenPeer, loop: str, kind: str, face: str) -> None:
    """A server that has waited long enough cancels, answers 503, and a thread can see it."""
    wsa = serve(work.fm(), loop=loop, limits=ws.Limits(stop_timeout=1.0, slow_handler=None))
    with ThreadPoolExecutor(1) as threads:
        if face == 'HTTP':
            answer = threads.submit(lambda: requests.get(f'{wsa.url}/cmd/{kind}', timeout=TIMEOUT).json())
        else:
            peer = open_peer(wsa)
            answer = threads.submit(peer.ask, {'cmd': f'cmd/{kind}'})
        work.wait_for_entry()
        wsa.stop()
        assert answer.result(TIMEOUT) == {'error': 'The server is stopping', 'code': 503}
    assert work.wait_for_end() == CANCELLED.get(kind, 'CancelledError, True')


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('kind', ['coroutine', 'threaded', 'shielded', 'shielded_thread'])
def test_a_websocket_that_is_gone(serve: Serve, work: Work, loop: str, kind: str) -> None:
    """Over WebSocket a call goes on when the socket is gone: it is not cancelled."""
    left = threading.Event()
    wsa = serve(work.fm(), loop=loop)
    wsa.on('disconnect')(lambda ctx: left.set())
    with dial(wsa.port) as connection:
        connection.sendall(upgrade())
        read_head(connection)
        connection.sendall(frame({'cmd': f'cmd/{kind}'}))
        work.wait_for_entry()
    assert left.wait(TIMEOUT)
    work.let_go.set()
    assert work.wait_for_end().endswith(', False')


def test_a_shielded_call_that_waits_for_a_thread(serve: Serve, work: Work) -> None:
    """A shielded call begins although its WebSocket is gone; another that waits for a thread never does."""
    wsa = serve(work.fm(), limits=ws.Limits(max_threads=1, slow_handler=None))
    left = threading.Event()
    wsa.on('disconnect')(lambda ctx: left.set())
    with dial(wsa.port) as connection:
        connection.sendall(upgrade())
        read_head(connection)
        for tid, kind in enumerate(('threaded', 'threaded', 'shielded_thread')):
            connection.sendall(frame({'cmd': f'cmd/{kind}', 'tid': tid}))
        work.wait_for_entry()
        until(lambda: wsa.stats()['limits']['max_threads'] == 2)
    assert left.wait(TIMEOUT)
    assert requests.get(f'{wsa.url}/cmd/echo', timeout=TIMEOUT).json() == {}
    work.let_go.set()
    assert [work.wait_for_end(), work.wait_for_end()] == ['returned, False'] * 2
    wsa.stop()
    assert work.seen == []
