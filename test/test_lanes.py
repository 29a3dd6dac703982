"""The quick ways: what is asked again, or comes over the fast lane, is answered as it is the slow way."""

from __future__ import annotations

import asyncio
import collections
import enum
import gc
import gzip
import inspect
import json
import logging
import random
import re
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp._websocket.reader import WebSocketReader
from propertybag import Bag

import webshoes as ws

from .conftest import TIMEOUT, Block, OpenPeer, Serve, echo, exchange
from .faces import dial, frame, raw_frame, read_frame, read_head, read_message, until, upgrade


class Client:
    """One connection over HTTP, which stays open."""

    def __init__(self, wsa: ws.WebShoesApp) -> None:
        self._socket = socket.create_connection(('127.0.0.1', wsa.port), timeout=TIMEOUT)
        self._stream = self._socket.makefile('rb')

    def send(self, data: bytes) -> None:
        """Send these very bytes."""
        self._socket.sendall(data)

    def receive(self, has_body: bool = True) -> tuple[str, list[str], bytes]:
        """The next answer: its status, its headers but for `Date`, its body; nothing where the connection has ended."""
        status = self._stream.readline().decode().strip()
        headers = []
        while line := self._stream.readline().decode().strip():
            if not line.startswith('Date: '):
                headers.append(line)
        sizes = [int(header[16:]) for header in headers if header.startswith('Content-Length: ')]
        return status, headers, self._stream.read(sizes[0]) if sizes and has_body else b''

    def ask(self, request: bytes) -> tuple[str, list[str], bytes]:
        """Send a request and read its answer."""
        self.send(request)
        return self.receive()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


class Peer:
    """A WebSocket on a raw socket, so that what is sent at once comes at once."""

    def __init__(self, wsa: ws.WebShoesApp, target: str, headers: Sequence[str], buffer: int | None) -> None:
        self._socket = dial(wsa.port, buffer)
        self._socket.sendall(upgrade(*headers, path=target))
        read_head(self._socket)
        self._stream = self._socket.makefile('rb')

    def raw(self, *frames: bytes) -> None:
        """Send frames, all of them at once."""
        self._socket.sendall(b''.join(frames))

    def frame(self) -> tuple[int, bytes] | None:
        """The first byte and the payload of the next frame, `None` at the end."""
        return read_frame(self._stream)

    def receive(self) -> Any:
        """The next message."""
        return read_message(self._stream)

    def ask(self, message: Any) -> Any:
        """Send a message and return the next one that comes."""
        self.raw(frame(message))
        return self.receive()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


LITTLE = 64 * 1024  # bytes that are on their way in the middle of a turn: older versions of uvloop tell of them
OpenLane = Callable[..., Peer]

lane = pytest.mark.parametrize('lane', ['fast', 'slow'])
on_loop = pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])


@pytest.fixture
def open_lane(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenLane]:
    """Open a WebSocket to an app, over one of the two lanes; it is closed after the test."""
    with ExitStack() as stack:

        def open_one(
            wsa: ws.WebShoesApp,
            lane: str,
            target: str = '/',
            headers: Sequence[str] = (),
            buffer: int | None = None,
        ) -> Peer:
            monkeypatch.setattr('webshoes.transports.websocket.HAS_WEBSOCKET_LANE', lane == 'fast')
            return stack.enter_context(closing(Peer(wsa, target, headers, buffer)))

        yield open_one


OpenClient = Callable[[ws.WebShoesApp], Client]


@pytest.fixture
def open_client() -> Iterator[OpenClient]:
    """Open a connection over HTTP to an app; it is closed after the test."""
    with ExitStack() as stack:
        yield lambda wsa: stack.enter_context(closing(Client(wsa)))


def head(target: str, method: str = 'GET', *headers: str) -> bytes:
    """The head of a request."""
    return '\r\n'.join([f'{method} {target} HTTP/1.1', 'Host: localhost', *headers, '', '']).encode()


def post(target: str, body: bytes, *headers: str) -> bytes:
    """A request with a body of JSON."""
    kind = () if any(header.startswith('Content-Type') for header in headers) else ('Content-Type: application/json',)
    return head(target, 'POST', f'Content-Length: {len(body)}', *kind, *headers) + body


# --- what is found again ---


def test_events_after_calls(serve: Serve, open_client: OpenClient) -> None:
    """A path where one was called asks for events all the same, where its query names one."""
    wsa = serve({'': lambda ctx, q: 'called'})
    wsa.triggerEvent('heat', 7)
    client = open_client(wsa)
    assert client.ask(post('/cmd/', b'{}'))[2] == b'called'
    before = client.ask(head('/cmd/?evt=heat'))
    assert b'"r":7' in before[2]


def test_connection_in_a_thread(serve: Serve, open_client: OpenClient) -> None:
    """A handler in a thread finds its connection, however often it was called before."""

    @ws.threaded
    def remote(ctx: ws.Context, q: Bag) -> Any:
        return [ctx.conn.remote]

    client = open_client(serve({'remote': remote}))
    assert [client.ask(head('/cmd/remote'))[2] for _ in range(3)] == [b'["127.0.0.1"]'] * 3


def test_close_from_a_thread(serve: Serve, open_client: OpenClient) -> None:
    """A handler in a thread may close its connection, however often it was called before."""

    @ws.threaded
    def close(ctx: ws.Context, q: Bag) -> Any:
        if q.now:
            ctx.conn.close()

    client = open_client(serve({'close': close}))
    assert [client.ask(head('/cmd/close'))[2] for _ in range(2)] == [b'null'] * 2
    assert client.ask(head('/cmd/close?now=1')) == ('', [], b'')


class Late(dict[str, Any]):
    """A dict in which something happens while it is first asked for a key, as it may in another thread."""

    def __init__(self, found: dict[str, Any], happens: Callable[[], None]) -> None:
        super().__init__(found)
        self._happens: Callable[[], None] | None = happens

    def __contains__(self, key: object) -> bool:
        happens, self._happens = self._happens, None
        if happens is not None:
            happens()
        return super().__contains__(key)


def old(ctx: ws.Context, q: Bag) -> str:
    return 'old'


def new(ctx: ws.Context, q: Bag) -> str:
    return 'new'


@pytest.mark.parametrize(('sub', 'key'), [('cmd', 'f'), ('*', 'other/f')])
def test_registered_while_it_is_looked_for(serve: Serve, open_client: OpenClient, sub: str, key: str) -> None:
    """What is registered while a request is on its way is served from the next one on."""
    wsa = serve()
    place = 'cmd' if sub == 'cmd' else 'other'
    late = Late({key: old}, lambda: wsa.register(place, 'cmd', 'q', 'evt', 'r', {'f': new}))
    wsa.register(sub, 'cmd', 'q', 'evt', 'r', late)
    client = open_client(wsa)
    assert [client.ask(head(f'/{place}/f'))[2] for _ in range(3)] == [b'old', b'new', b'new']


@pytest.mark.parametrize('command', ['cmd/f', 'f'])
def test_command_registered_while_it_is_looked_for(serve: Serve, open_peer: OpenPeer, command: str) -> None:
    """What is registered while a message is on its way is served from the next one on."""
    wsa = serve()
    late = Late({'f': old}, lambda: wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'f': new}))
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', late)
    peer = open_peer(wsa)
    assert [peer.ask({'cmd': command})['r'] for _ in range(3)] == ['old', 'new', 'new']


@pytest.mark.parametrize('command', ['cmd/f', 'f'])
def test_unregistered_while_it_is_looked_for(serve: Serve, open_peer: OpenPeer, command: str) -> None:
    """What is taken away while a message is on its way is served for the last time."""
    wsa = serve()
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', Late({'f': old}, lambda: wsa.unregister('cmd')))
    wsa.register('other', 'do', 'q', '', 'r', {})
    peer = open_peer(wsa)
    assert peer.ask({'cmd': command})['r'] == 'old'
    assert peer.ask({'cmd': command})['code'] == 400


def test_same_function_under_two_keys(serve: Serve, open_client: OpenClient) -> None:
    """A function that is taken away from one key, and stands under another, is found under that one alone."""
    wsa = serve()
    fm = {'': old, 'one': old}
    wsa.register('one', 'cmd', 'q', '', 'r', fm)
    client = open_client(wsa)
    assert [client.ask(head('/one'))[2] for _ in range(2)] == [b'old'] * 2
    del fm['']
    assert client.ask(head('/one'))[0] == 'HTTP/1.1 404 Not Found'


# --- HTTP: requests ---


class Lists(msgspec.Struct):
    a: list[str] = []
    none: list[str] = msgspec.field(default=[], name='')


def lists(ctx: ws.Context, q: Lists) -> Any:
    return {'a': q.a, 'none': q.none}


def tell(ctx: ws.Context, q: Bag) -> Any:
    """All that a handler is told."""
    seen, ctx.session.seen = bool(ctx.session.seen), True
    req, body = ctx.req, ctx.req.content
    return {
        'q': q.as_dict(),
        'ctx': [ctx.p, ctx.tid, ctx.method, ctx.user, ctx.ws, ctx.conn.user, str(ctx.opts), repr(ctx), seen],
        'conn': [
            ctx.conn.remote,
            ctx.conn.buffered < LITTLE,
            ctx.conn.subscriptions,
            abs(ctx.conn.opened - time.time()) < 60,
        ],
        'req': [req.method, req.path, req.raw_path, req.query_string, req.host, req.remote, req.version, req.secure],
        'head': [list(req.query.items()), list(req.headers.items()), req.keep_alive, req.content_type, req.charset],
        'body': [req.body_exists, req.can_read_body, body.is_eof(), body.total_bytes, req.content_length],
    }


END = head('/cmd/end', 'GET', 'Connection: close', 'User: Ann')
LAST_END = head('/last/end', 'GET', 'Connection: close')


def whole(wsa: ws.WebShoesApp, *requests: bytes) -> bytes:
    """All that comes back on a connection of their own, but for dates; and how many were connected."""
    return re.sub(rb'\r\nDate: [^\r]+ GMT', b'', exchange(wsa, b''.join(requests)))


def asked_again(wsa: ws.WebShoesApp, request: bytes, *more: bytes) -> list[bytes]:
    """What a request gets at first, and then twice more, when its path was called in the simplest ways."""
    first = whole(wsa, request, *more)
    target = request.split(b' ')[1].split(b'?')[0].decode('latin-1')
    for simple in (head(target, 'GET', 'Connection: close'), post(target, b'{}', 'Connection: close')):
        whole(wsa, simple)
    return [first, whole(wsa, request, *more), whole(wsa, request, *more)]


def check_again(wsa: ws.WebShoesApp, code: int, request: bytes, *more: bytes) -> None:
    """A request is answered with this code, and each time alike."""
    first, second, third = asked_again(wsa, request, *more)
    assert re.match(rb'HTTP/1[.][01] %d ' % code, first)
    assert first.endswith(b'the end') == bool(more)
    assert second == first
    assert third == first


def end(ctx: ws.Context, q: Bag) -> str:
    return 'the end'


SITE = {'tell': tell, 'lists': lists, 'echo': echo, 'end': end}

QUERIES = {
    '': 200,
    'a': 200,
    'a=': 200,
    '=': 200,
    '=a': 200,
    'a=1&b=2': 200,
    'a=1&b=2&a=3&a=1': 200,
    '&': 200,
    '&&': 200,
    '&a=1&&b=2&': 200,
    '=x&&a=1': 200,
    '&=&': 200,
    '=x&=y&&': 200,
    'a=1=2': 200,
    'a==&=b': 200,
    'a=1;b=2&c;d': 200,
    'a+b=c+d': 200,
    'a=%20&%61=b': 200,
    'a=%26b%3D&%3D=1': 200,
    'a=%C3%BC&a=%FF': 200,
    'a=%F0%9F%98%80': 200,
    'a=%ED%A0%BD': 400,
    '%ED%A0%BD=a': 400,
    'a=%&b=%z1&c=%1': 200,
    'a[]=1&b={}&c="&d=<>&e=\\&f=^`|': 200,
    'a=b?c=d': 200,
    '?': 200,
    'a=b#c&d=e': 200,
    '#a=b': 200,
    "a=~.-_,:/@!$'()*;?": 200,
    'sep=1&get=2&__class__=3&_=4&pb=5&a.b=6': 200,
    '&'.join(f'a{number}=1' for number in range(1000)): 200,
    '&'.join(f'a{number}=1' for number in range(1001)): 413,
    '&' * 999: 200,
    '&' * 1000: 413,
    'a=' + 'x' * 8000: 200,
}


@pytest.mark.parametrize('handler', ['tell', 'lists', 'echo'])
@pytest.mark.parametrize(('query', 'code'), QUERIES.items(), ids=(query[:30] for query in QUERIES))
def test_query(serve: Serve, handler: str, query: str, code: int) -> None:
    """Whatever a query is like, it is read alike each time."""
    check_again(serve(SITE), code, head(f'/cmd/{handler}?{query}'), END)


def chunked(body: bytes, *headers: str) -> bytes:
    """A request with a body of JSON, in two chunks."""
    parts = [b'%x\r\n%b\r\n' % (len(part), part) for part in (body[:2], body[2:]) if part]
    kind = 'Content-Type: application/json'
    return head('/cmd/tell', 'POST', 'Transfer-Encoding: chunked', kind, *headers) + b''.join(parts) + b'0\r\n\r\n'


JSON_BODIES = {
    b'': 200,
    b'{}': 200,
    b'null': 200,
    b'{"a": 1, "b": {"c": [1, null, "\xc3\xbc"]}, "a": 2}': 200,
    b' \r\n{"a":\t1} ': 200,
    b'{"sep": 1, "_": 2, "get": 3, "": 4}': 200,
    b'{"a": 1e400}': 400,
    b'{"a": 123456789012345678901234567890}': 200,
    b'[]': 400,
    b'0': 400,
    b'"a"': 400,
    b'{': 400,
    b'{} {}': 400,
    b'\xff': 400,
    b'{"a": "\xff"}': 400,
    b'\xef\xbb\xbf{}': 400,
    b'[' * 9000: 400,
    b'{"a": "%b"}' % (b'x' * 9992): 413,
    b'{"a": "%b"}' % (b'x' * 9980): 200,
}
POSTS = {
    'chunked': (chunked(b'{"a": 1}'), 200),
    'chunked and empty': (chunked(b''), 200),
    'chunked and too large': (chunked(b'{"a": "%b"}' % (b'x' * 10_000)), 413),
    'gzip': (post('/cmd/tell', gzip.compress(b'{"a": 1}', mtime=0), 'Content-Encoding: gzip'), 200),
    'gzip and too large': (post('/cmd/tell', gzip.compress(b' ' * 10_001, mtime=0), 'Content-Encoding: gzip'), 413),
    'deflate': (post('/cmd/tell', zlib.compress(b'{"a": 1}'), 'Content-Encoding: deflate'), 200),
    'charset': (post('/cmd/tell', b'{"a": 1}', 'Content-Type: application/json; charset=utf-8'), 200),
    'parameter': (post('/cmd/tell', b'{"a": 1}', 'Content-Type: application/json;'), 200),
    'capitals': (post('/cmd/tell', b'{"a": 1}', 'Content-Type: Application/JSON'), 200),
    'of a kind': (post('/cmd/tell', b'{"a": 1}', 'Content-Type: application/problem+json'), 200),
    'text': (post('/cmd/tell', b'{"a": 1}', 'Content-Type: text/plain'), 200),
    'no type': (head('/cmd/tell', 'POST', 'Content-Length: 8') + b'{"a": 1}', 200),
    'type is empty': (post('/cmd/tell', b'{"a": 1}', 'Content-Type:'), 200),
    'form': (post('/cmd/tell', b'a=1&a=2&b', 'Content-Type: application/x-www-form-urlencoded'), 200),
    'query and body': (post('/cmd/tell?a=1&b=2', b'{"b": 3}'), 200),
    'body of a GET': (post('/cmd/tell', b'{"a": 1}').replace(b'POST', b'GET'), 200),
    'query and no body': (head('/cmd/tell?a=1', 'POST'), 200),
    'no body': (head('/cmd/tell', 'POST', 'Content-Type: application/json'), 200),
    'goes on': (post('/cmd/tell', b'{"a": 1}', 'Expect: 100-continue'), 100),
    'typed': (post('/cmd/lists', b'{"a": ["1", "2"]}'), 200),
    'typed, of another kind': (post('/cmd/lists', b'{"a": [1]}'), 422),
    'PUT': (post('/cmd/tell', b'{"a": 1}').replace(b'POST', b'PUT'), 200),
    'PATCH': (post('/cmd/tell', b'{"a": 1}').replace(b'POST', b'PATCH'), 200),
    'DELETE': (post('/cmd/tell', b'{"a": 1}').replace(b'POST', b'DELETE'), 200),
}


@pytest.mark.parametrize(('body', 'code'), JSON_BODIES.items(), ids=(repr(body[:30]) for body in JSON_BODIES))
def test_json(serve: Serve, body: bytes, code: int) -> None:
    """Whatever is sent as JSON, it is read alike each time."""
    wsa = serve(SITE, limits=ws.Limits(max_body_size=10_000))
    check_again(wsa, code, post('/cmd/tell', body), END)


@pytest.mark.parametrize(('request_', 'code'), POSTS.values(), ids=POSTS)
def test_post(serve: Serve, request_: bytes, code: int) -> None:
    """However a body is sent, it is read alike each time."""
    check_again(serve(SITE, limits=ws.Limits(max_body_size=10_000)), code, request_, END)


HEADS = {
    'HEAD': (head('/cmd/tell?a=1', 'HEAD'), 200),
    'OPTIONS': (head('/cmd/tell', 'OPTIONS'), 204),
    'preflight': (head('/cmd/tell', 'OPTIONS', 'Access-Control-Request-Method: POST'), 204),
    'TRACE': (head('/cmd/tell', 'TRACE'), 405),
    'absolute': (head('http://localhost/cmd/tell?a=1'), 200),
    'slash': (head('/cmd/tell/'), 200),
    'two slashes': (head('//cmd/tell'), 404),
    'more': (head('/cmd/tell/more?a=1'), 200),
    'escaped': (head('/cmd/%74ell?a=1'), 200),
    'capitals': (head('/CMD/tell'), 404),
    'dots': (head('/cmd/../cmd/tell'), 404),
    'kept alive': (head('/cmd/tell', 'GET', 'Connection: keep-alive'), 200),
    'expects': (head('/cmd/tell', 'GET', 'Expect: 100-continue'), 100),
    'expects something else': (head('/cmd/tell', 'GET', 'Expect: nothing'), 200),
    'range': (head('/cmd/tell', 'GET', 'Range: bytes=0-1', 'If-None-Match: *'), 200),
    'accepts': (head('/cmd/tell', 'GET', 'Accept: text/event-stream', 'Accept-Encoding: gzip'), 200),
    'origin of its own': (head('/cmd/tell', 'GET', 'Origin: http://localhost'), 200),
    'origin': (head('/cmd/tell', 'GET', 'Origin: https://evil.example'), 403),
    'same site': (head('/cmd/tell', 'GET', 'Sec-Fetch-Site: same-site'), 403),
    'same origin': (head('/cmd/tell', 'GET', 'Sec-Fetch-Site: same-origin'), 200),
    'no site': (head('/cmd/tell', 'GET', 'Sec-Fetch-Site: none', 'Sec-Fetch-Mode: navigate'), 200),
    'from elsewhere': (head('/cmd/tell', 'GET', 'Sec-Fetch-Site: cross-site', 'Sec-Fetch-Mode: navigate'), 403),
    'another host': (head('/cmd/tell').replace(b'localhost', b'evil.example'), 403),
    'loopback': (head('/cmd/tell').replace(b'localhost', b'127.0.0.1:8080'), 200),
    'a host that is none': (head('/cmd/tell').replace(b'localhost', b'a b'), 403),
    'listed host': (head('/cmd/tell').replace(b'localhost', b'rig.example'), 200),
    'listed origin': (head('/cmd/tell', 'GET', 'Origin: https://good.example'), 200),
}
LAST_HEADS = {
    'close': (head('/cmd/tell', 'GET', 'Connection: close'), 200),
    'HTTP/1.0': (head('/cmd/tell').replace(b'HTTP/1.1', b'HTTP/1.0'), 200),
    'closed post': (post('/cmd/tell', b'{"a": 1}', 'Connection: close'), 200),
    'post of HTTP/1.0': (post('/cmd/tell', b'{"a": 1}').replace(b'HTTP/1.1', b'HTTP/1.0'), 200),
    'too long': (head('/cmd/tell?a=' + 'x' * 9000), 431),
    'not ASCII': (head('/cmd/tell?a=ü'), 400),
    'no method': (head('/cmd/tell', 'BR@W'), 400),
    'no host': (head('/cmd/tell').replace(b'Host: localhost\r\n', b''), 400),
    'no host of HTTP/1.0': (b'GET /cmd/tell HTTP/1.0\r\n\r\n', 200),
    'two types': (post('/cmd/tell', b'{}', 'Content-Type: application/json', 'Content-Type: text/plain'), 400),
    'upgrade': (head('/cmd/tell', 'GET', 'Connection: Upgrade, close', 'Upgrade: h2c'), 200),
}
OPEN = {'origins': ['https://good.example'], 'hosts': ['rig.example']}


@on_loop
@pytest.mark.parametrize(('request_', 'code'), HEADS.values(), ids=HEADS)
def test_head(serve: Serve, loop: str, request_: bytes, code: int) -> None:
    """Whatever the head of a request says, it is heard alike each time."""
    check_again(serve(SITE, loop=loop, **OPEN), code, request_, END)


@on_loop
@pytest.mark.parametrize(('request_', 'code'), LAST_HEADS.values(), ids=LAST_HEADS)
def test_last_head(serve: Serve, loop: str, request_: bytes, code: int) -> None:
    """A request that is its connection's last is answered alike each time."""
    check_again(serve(SITE, loop=loop), code, request_)


# --- HTTP: results ---


class Point(msgspec.Struct):
    x: int = 0


class Colour(enum.IntEnum):
    RED = 1


class Counted:
    """A value that becomes JSON as the number of times it was asked to."""

    def __init__(self) -> None:
        self.count = 0

    def tolist(self) -> int:
        self.count += 1
        return self.count


class Soon:
    """What can be awaited, and is no coroutine."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, Any]:
        yield
        return self._value


def gives(make: Callable[[], Any]) -> Callable[..., Any]:
    return lambda ctx, q: make()


def gives_later(make: Callable[[], Any]) -> Callable[..., Any]:
    async def handler(ctx: ws.Context, q: Bag) -> Any:
        await asyncio.sleep(0)
        return make()

    return handler


def raises(make: Callable[[], BaseException]) -> Callable[..., Any]:
    def handler(ctx: ws.Context, q: Bag) -> Any:
        raise make()

    return handler


def raises_later(make: Callable[[], BaseException]) -> Callable[..., Any]:
    async def handler(ctx: ws.Context, q: Bag) -> Any:
        await asyncio.sleep(0)
        raise make()

    return handler


def in_itself() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


def endless(ctx: ws.Context, q: Bag) -> Any:
    return endless(ctx, q)


async def reads(ctx: ws.Context, q: Bag) -> Any:
    req = ctx.req
    post = [*(await req.post()).items()]
    content = (await req.content.read()).decode()
    return [(await req.read()).decode(), await req.text(), post, content, req.can_read_body, req.content.at_eof()]


async def reads_whole(ctx: ws.Context, q: Bag) -> Any:
    return (await ctx.req.read()).decode()


async def reads_json(ctx: ws.Context, q: Bag) -> Any:
    return [await ctx.req.json(), q]


async def starts(ctx: ws.Context, q: Bag) -> Any:
    response = web.StreamResponse(headers={'Content-Length': '3'})
    await response.prepare(ctx.req)
    await response.write(b'abc')
    return response


@ws.methods('POST')
def saves(ctx: ws.Context, q: Bag) -> Any:
    return {'saved': q}


@ws.methods('GET')
def looks(ctx: ws.Context, q: Bag) -> Any:
    return {'looked': q}


@ws.page
def opens(ctx: ws.Context, q: Bag) -> Any:
    return {'opened': q}


@ws.threaded
def works(ctx: ws.Context, q: Bag) -> Any:
    return tell(ctx, q)


async def tells_later(ctx: ws.Context, q: Bag) -> Any:
    return tell(ctx, q)


def changes(ctx: ws.Context, q: Bag) -> Any:
    q.a, q.x.y, q['d'] = 1, 2, 3
    return q


RESULTS: dict[str, tuple[Callable[..., Any], int]] = {
    'empty': (gives(dict), 200),
    'dict': (gives(lambda: {'a': [1, None, True, 1.5, 'ü☃']}), 200),
    'dict of another kind': (gives(lambda: collections.OrderedDict(b=1, a=2)), 200),
    'number keys': (gives(lambda: {1: 'a', None: 'b'}), 200),
    'list': (gives(lambda: [1, 'a', {}]), 200),
    'tuple': (gives(lambda: (1, 2)), 200),
    'number': (gives(lambda: 1), 200),
    'large number': (gives(lambda: 2**70), 200),
    'float': (gives(lambda: 0.1), 200),
    'no number': (gives(lambda: float('nan')), 200),
    'True': (gives(lambda: True), 200),
    'None': (gives(lambda: None), 200),
    'enum': (gives(lambda: Colour.RED), 200),
    'str': (gives(lambda: 'snow ☃'), 200),
    'bytes': (gives(lambda: b'\0\xff'), 200),
    'Path': (gives(lambda: Path(__file__).with_name('__init__.py')), 200),
    'Path to nothing': (gives(lambda: Path(__file__).with_name('nothing')), 404),
    'Struct': (gives(Point), 200),
    'Bag': (gives(lambda: Bag({'a': {'b': 1}})), 200),
    'large': (gives(lambda: {'a': 'x' * 100_000}), 200),
    'very large': (gives(lambda: ['x' * 2_000_000]), 200),
    'made once': (gives(lambda: {'a': Counted(), 'b': 'x' * 100_000}), 200),
    'Response': (gives(lambda: web.Response(status=201, text='made', headers={'A': 'b'})), 201),
    'no content': (gives(lambda: web.Response(status=204)), 204),
    'cookie': (gives(lambda: web.json_response({}, headers={'Set-Cookie': 'a=b'})), 200),
    'stream': (starts, 200),
    'HTTPException returned': (gives(web.HTTPGone), 410),
    'redirect returned': (gives(lambda: web.HTTPFound('/elsewhere')), 302),
    'not JSON': (gives(object), 500),
    'not JSON inside': (gives(lambda: {'a': 1j}), 500),
    'in itself': (gives(in_itself), 500),
    'missing': (lambda ctx, q: q.nothing, 400),
    'missing inside': (lambda ctx, q: {'a': q.nothing}, 400),
    'later': (gives_later(lambda: {'a': 1}), 200),
    'later, not JSON': (gives_later(object), 500),
    'soon': (gives(lambda: Soon({'a': 1})), 200),
    'a coroutine of a plain def': (lambda ctx, q: gives_later(dict)(ctx, q), 200),
    'in a thread': (ws.threaded(gives(lambda: {'a': 1})), 200),
    'told': (tell, 200),
    'told later': (tells_later, 200),
    'told in a thread': (works, 200),
    'told in a thread of its own': (lambda ctx, q: asyncio.to_thread(tell, ctx, q), 200),
    'reads': (reads, 200),
    'changes': (changes, 200),
    'page': (opens, 200),
    'Error': (raises(lambda: ws.Error(409, 'Taken')), 409),
    'Error 401': (raises(lambda: ws.Error(401, 'Who?')), 401),
    'Error 405': (raises(lambda: ws.Error(405, 'Not so')), 405),
    'Error 499': (raises(lambda: ws.Error(499, 'Cancelled')), 499),
    'Error later': (raises_later(lambda: ws.Error(409, 'Taken')), 409),
    'Error in a thread': (ws.threaded(raises(lambda: ws.Error(507, 'Full'))), 507),
    'HTTPException': (raises(lambda: web.HTTPConflict(text='Taken', headers={'A': 'b'})), 409),
    'HTTPUnauthorized': (raises(lambda: web.HTTPUnauthorized(headers={'WWW-Authenticate': 'Basic'})), 401),
    'HTTPMethodNotAllowed': (raises(lambda: web.HTTPMethodNotAllowed('GET', ['PUT'])), 405),
    'redirect': (raises(lambda: web.HTTPSeeOther('/elsewhere?a=b', headers={'A': 'b'})), 303),
    'redirect later': (raises_later(lambda: web.HTTPSeeOther('/elsewhere')), 303),
    'ok raised': (raises(web.HTTPOk), 200),
    'failure': (raises(lambda: ValueError('secret')), 500),
    'failure later': (raises_later(lambda: ValueError('secret')), 500),
    'ConnectionError': (raises(lambda: ConnectionResetError('secret')), 500),
    'TimeoutError': (raises(TimeoutError), 500),
    'TimeoutError later': (raises_later(TimeoutError), 500),
    'CancelledError': (raises(asyncio.CancelledError), 500),
    'CancelledError later': (raises_later(asyncio.CancelledError), 500),
    'SystemExit': (raises(lambda: SystemExit(1)), 500),
    'KeyboardInterrupt': (raises(KeyboardInterrupt), 500),
    'StopIteration': (raises(StopIteration), 500),
    'GeneratorExit': (raises(GeneratorExit), 500),
    'RecursionError': (endless, 500),
    'MemoryError': (raises(MemoryError), 500),
    'group': (raises(lambda: ExceptionGroup('secret', [ValueError()])), 500),
}


@on_loop
@pytest.mark.parametrize(('fn', 'code'), RESULTS.values(), ids=RESULTS)
def test_result(serve: Serve, loop: str, fn: Callable[..., Any], code: int) -> None:
    """Whatever a handler gives or raises, it is answered alike each time."""
    wsa = serve({'case': fn, 'end': end}, loop=loop)
    check_again(wsa, code, head('/cmd/case?a=1&b=2'), END)
    check_again(wsa, code, post('/cmd/case', b'{"a": [1, {"b": 2}]}'), END)


@on_loop
@pytest.mark.parametrize(
    ('fn', 'request_', 'code'),
    [
        (saves, head('/cmd/case'), 405),
        (saves, post('/cmd/case', b'{"a": 1}'), 200),
        (looks, head('/cmd/case?a=1'), 200),
        (looks, head('/cmd/case?a=1', 'HEAD'), 200),
        (looks, post('/cmd/case', b'{}'), 405),
        (looks, head('/cmd/case', 'OPTIONS'), 204),
        (opens, head('/cmd/case', 'GET', 'Sec-Fetch-Site: cross-site', 'Sec-Fetch-Mode: navigate'), 200),
        (opens, head('/cmd/case', 'GET', 'Sec-Fetch-Site: cross-site', 'Sec-Fetch-Mode: no-cors'), 403),
        (opens, post('/cmd/case', b'{}', 'Origin: https://evil.example'), 403),
        (reads_json, post('/cmd/case', b'{"a": 1}'), 200),
        (reads_json, post('/cmd/case', b'{"a": 1}', 'Content-Type: application/json; charset=latin-1'), 200),
        (reads_json, head('/cmd/case'), 500),
    ],
)
def test_method(serve: Serve, loop: str, fn: Callable[..., Any], request_: bytes, code: int) -> None:
    """Which methods a handler takes, from whom and of which body, is the same each time."""
    check_again(serve({'case': fn, 'end': end}, loop=loop), code, request_, END)


def closes(ctx: ws.Context, q: Bag) -> Any:
    ctx.conn.close()
    return {'closed': True}


def drops(ctx: ws.Context, q: Bag) -> Any:
    ctx.req.transport.abort()
    return {'dropped': True}


async def closes_later(ctx: ws.Context, q: Bag) -> Any:
    closes(ctx, q)
    await asyncio.sleep(0)
    return {'closed': True}


@on_loop
@pytest.mark.parametrize('fn', [closes, drops, closes_later])
def test_connection_closed_by_a_handler(
    serve: Serve, loop: str, fn: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that closes its connection closes it alike each time, and nothing is logged."""
    wsa = serve({'case': fn, 'end': end}, loop=loop)
    for requests in ([head('/cmd/case')], [post('/cmd/case', b'{}')], [head('/cmd/case'), head('/cmd/end')]):
        first, second, third = asked_again(wsa, *requests)
        assert first == second == third
        assert b'the end' not in first
        assert (b'"closed"' in first) == (fn is closes)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@on_loop
@pytest.mark.parametrize('target', ['/cmd/tell', '/cmd/tell?a=1', '/cmd/lists'])
def test_body_in_pieces(serve: Serve, open_client: OpenClient, loop: str, target: str) -> None:
    """A body that comes after its head is read as one that comes with it."""
    body = b'{"a": ["1"]}'
    request = post(target, body)
    client = open_client(serve(SITE, loop=loop))
    whole_at_once = client.ask(request)
    for cut in (len(request) - len(body), len(request) - 1):
        for _ in range(3):
            client.send(head('/cmd/end') + request[:cut])  # what is answered shows that the rest was read, too
            assert client.receive()[2] == b'the end'
            assert client.ask(request[cut:]) == whole_at_once


@on_loop
def test_pipeline(serve: Serve, loop: str) -> None:
    """Requests that come at once are answered one after another, whichever way each goes."""
    kinds = {'at_once': gives(dict), 'later': gives_later(list), 'thread': ws.threaded(gives(int)), 'text': gives(str)}
    wsa = serve({**kinds, 'fail': raises(ValueError), 'end': end, 'tell': tell}, loop=loop)
    requests = [head(f'/cmd/{name}') for name in (*kinds, 'fail', 'nothing')] + [post('/cmd/tell', b'{"a": 1}')]
    one_by_one = [whole(wsa, request, END) for request in requests]
    ends = whole(wsa, END)
    for _ in range(3):
        together = whole(wsa, *requests * 5, END)
        assert together == b''.join(answer.removesuffix(ends) for answer in one_by_one) * 5 + ends


# --- HTTP: who asks, and what is served ---


def named(ctx: ws.Context) -> Any:
    return ctx.req.headers.get('User')


async def named_later(ctx: ws.Context) -> Any:
    return named(ctx)


WHO: dict[str, tuple[dict[str, Any], bytes, int]] = {
    'a user': ({'auth': named}, head('/cmd/tell', 'GET', 'User: Ann'), 200),
    'nobody': ({'auth': named}, head('/cmd/tell'), 401),
    'nobody posts': ({'auth': named}, post('/cmd/tell', b'{}'), 401),
    'nobody looks for nothing': ({'auth': named}, head('/cmd/nothing'), 401),
    'a user, later': ({'auth': named_later}, post('/cmd/tell', b'{}', 'User: Ann'), 200),
    'any origin': ({'origins': '*'}, head('/cmd/tell', 'GET', 'Origin: https://any.example'), 200),
    'any origin, none told': ({'origins': '*'}, head('/cmd/tell'), 200),
    'any site': ({'origins': '*'}, post('/cmd/tell', b'{}', 'Sec-Fetch-Site: cross-site'), 200),
    'a file of another site': ({'origins': 'null'}, post('/cmd/tell', b'{}', 'Origin: null'), 200),
    'any origin, failing': ({'origins': '*'}, head('/cmd/fail', 'GET', 'Origin: https://any.example'), 500),
    'an origin, failing': ({'origins': 'https://good.example'}, head('/cmd/fail'), 500),
    'any host': ({'hosts': '*'}, head('/cmd/tell').replace(b'localhost', b'any.example'), 200),
    'another host': ({'hosts': 'rig.example'}, head('/cmd/tell').replace(b'localhost', b'any.example'), 403),
}


@on_loop
@pytest.mark.parametrize(('settings', 'request_', 'code'), WHO.values(), ids=WHO)
def test_who_asks(serve: Serve, loop: str, settings: dict[str, Any], request_: bytes, code: int) -> None:
    """Who may ask, and may read the answer, is decided alike each time."""
    check_again(serve({**SITE, 'fail': raises(ValueError)}, loop=loop, **settings), code, request_, END)


def ways() -> list[str]:
    """The names of the functions that are being called."""
    found, frame = [], inspect.currentframe()
    while frame is not None:
        found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found


def is_short(ctx: ws.Context, q: Any) -> Any:
    return {'way': 'serve_at_once' in ways()}


@pytest.mark.parametrize(
    ('request_', 'expected'),
    {
        head('/cmd/way'): True,
        head('/cmd/way?a=1&b=2'): True,
        head('/cmd/way?a=%20'): False,
        head('/cmd/way', 'GET', 'Sec-Fetch-Site: none'): True,
        head('/cmd/way', 'GET', 'Sec-Fetch-Site: cross-site', 'Sec-Fetch-Mode: navigate'): False,
        head('/cmd/way', 'GET', 'Origin: http://localhost'): False,
        head('/cmd/way/more'): False,
        head('/cmd/way').replace(b'1.1', b'1.0'): False,
        post('/cmd/way', b'{"a": 1}'): True,
        post('/cmd/way', b'a=1', 'Content-Type: application/x-www-form-urlencoded'): False,
        post('/cmd/way?a=1', b'{}'): False,
        post('/cmd/way', b'{}').replace(b'POST', b'PUT'): False,
    }.items(),
)
def test_way(serve: Serve, request_: bytes, expected: bool) -> None:
    """What is asked in the simplest ways goes the short way, from the second time on."""
    wsa = serve({'way': ws.page(is_short), 'end': end})
    found = [b'{"way":true}' in answer for answer in asked_again(wsa, request_, END)]
    assert found == [False, expected, expected]


def test_way_with_auth(serve: Serve) -> None:
    """Who has to log in never goes the short way."""
    request = head('/cmd/way', 'GET', 'User: Ann')
    last = head('/cmd/way', 'GET', 'User: Ann', 'Connection: close')
    wsa = serve({'way': is_short}, auth=named)
    assert whole(wsa, request, request, last).count(b'{"way":false}') == 3


@on_loop
def test_files(serve: Serve, tmp_path: Path, loop: str) -> None:
    """Files of folders and of the package are served alike each time, beside functions that are called."""
    (tmp_path / 'index.html').write_text('home')
    (tmp_path / 'a.txt').write_text('a')
    (tmp_path / 'b').write_text('b')
    (tmp_path / 'sub').mkdir()
    folder = {'root': str(tmp_path), 'defpage': 'index.html'}
    wsa = serve({'files/*': folder, 'end': end, 'call': tell, '*': tell}, loop=loop)
    wsa.register('*', 'cmd', 'q', 'evt', 'r', {'a.txt': tell, 'webshoes.js': tell, '*': folder, 'x/y': tell})
    targets = '/ /index.html /a.txt /b /sub /sub/ /nothing /webshoes.js /webshoes.mjs /x/y /cmd/files /cmd/files/b'
    requests = [
        request
        for target in [*targets.split(), '/cmd/files/nothing', '/cmd/call', '/cmd/', '/cmd']
        for request in (
            head(target),
            head(target, 'HEAD'),
            head(f'{target}?a=b'),
            head(target, 'GET', 'Origin: https://evil.example'),
            head(target, 'PUT'),
            post(target, b'{}'),
        )
    ]
    first, second, third = ([whole(wsa, request, END) for request in requests] for _ in range(3))
    assert first == second == third
    assert {answer[9:12] for answer in first} == {b'200', b'303', b'403', b'404', b'405'}


def test_file_that_comes_first(serve: Serve, tmp_path: Path) -> None:
    """A file that comes to be in a folder comes before the package's, however often that was asked for."""
    wsa = serve({'end': end})
    wsa.register('*', '', '', '', '', {'*': {'root': str(tmp_path)}})
    before = asked_again(wsa, head('/webshoes.js'), END)
    assert before[0] == before[1] == before[2]
    (tmp_path / 'webshoes.js').write_text('mine')
    assert b'mine' in whole(wsa, head('/webshoes.js'), END)
    assert b'mine' not in before[0]


@on_loop
def test_events_beside_calls(serve: Serve, loop: str) -> None:
    """Events are asked for where functions are called, alike each time."""
    wsa = serve({'': tell, 'cmd': tell, '*': tell, 'end': end}, loop=loop)
    wsa.register('*', 'cmd', 'q', 'watch', 'r', {'': tell, 'cmd/': tell})
    wsa.triggerEvent('heat', 7)
    targets = [f'/{path}{query}' for path in ('', 'cmd', 'cmd/', 'cmd/cmd') for query in EVENT_QUERIES]
    requests = [request for target in targets for request in (head(target), head(target, 'HEAD'), post(target, b'{}'))]
    first, second, third = ([whole(wsa, request, END) for request in requests] for _ in range(3))
    assert first == second == third
    assert sum(b'"r":7' in answer for answer in first) == 7


EVENT_QUERIES = ('', '?', '?evt=heat', '?watch=heat', '?evt=heat&a=1', '?evt=', '?evt=&evt=heat', '?a=1', '?evt=cold')


# --- what changes while it runs ---


def ask_all(wsa: ws.WebShoesApp, peer: Peer) -> list[Any]:
    """What all paths and commands answer."""
    told: list[Any] = []
    for target in (
        '/',
        '/cmd/f',
        '/cmd/f/more',
        '/cmd/thing/7',
        '/cmd/files/x',
        '/cmd',
        '/cmd/',
        '/other/f',
        '/f',
        '/cmd/g',
    ):
        for request in (head(target), head(f'{target}?evt=heat'), post(target, b'{}'), head(target, 'OPTIONS')):
            told.append((target, re.sub(rb'"epoch":[^,}]*|ETag: [^\r]*', b'', whole(wsa, request, LAST_END))))
    for command in ('cmd/f', 'f', 'cmd/f/more', 'cmd/thing/7', 'cmd/files/x', 'cmd', 'cmd/', 'other/f', 'cmd/g', 'g'):
        for message in ({'cmd': command, 'q': {'a': 1}}, {'cmd': command, 'a': 1}):
            answer = peer.ask(message)
            if 'status' in answer.get('r', ()):
                answer['r'].update(uid='', epoch='')
            told.append((message, {**answer, 't': 0}))
    return told


def says(text: str) -> Callable[..., Any]:
    return lambda ctx, q: [text, ctx.p, q]


def typed(ctx: ws.Context, q: Point) -> Any:
    return [q]


Change = Callable[[ws.WebShoesApp, dict[str, Any]], object]
CHANGES: dict[str, Change] = {
    'replaced': lambda wsa, fm: fm.update(f=says('new')),
    'by a text': lambda wsa, fm: fm.update(f=lambda ctx, q: 'text'),
    'by a typed one': lambda wsa, fm: fm.update(f=typed),
    'by an async one': lambda wsa, fm: fm.update(f=gives_later(lambda: 'later')),
    'by a threaded one': lambda wsa, fm: fm.update(f=ws.threaded(gives(dict))),
    'by one for POST': lambda wsa, fm: fm.update(f=saves),
    'by a folder': lambda wsa, fm: fm.update(f={'root': str(Path(__file__).parent)}),
    'by no function': lambda wsa, fm: fm.update(f=7),
    'by None': lambda wsa, fm: fm.update(f=None),
    'deleted': lambda wsa, fm: fm.pop('f'),
    'all deleted': lambda wsa, fm: fm.clear(),
    'wildcard replaced': lambda wsa, fm: fm.update({'*': says('new')}),
    'wildcard deleted': lambda wsa, fm: fm.pop('*'),
    'exact key': lambda wsa, fm: fm.update({'thing/7': says('seven')}),
    'longer key': lambda wsa, fm: fm.update({'f/more': says('more')}),
    'key of nothing': lambda wsa, fm: fm.update({'': says('nothing')}),
    'two keys swapped': lambda wsa, fm: fm.update(f=fm['g'], g=fm['f']),
    'registered anew': lambda wsa, fm: wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'f': says('new')}),
    'with other fields': lambda wsa, fm: wsa.register('cmd', 'cmd', '', 'watch', '', fm),
    'with no commands': lambda wsa, fm: wsa.register('cmd', '', 'q', 'evt', 'r', fm),
    'unregistered': lambda wsa, fm: wsa.unregister('cmd'),
    'all unregistered': lambda wsa, fm: list(map(wsa.unregister, list(wsa.handlers)[:-1])),
    'registered with no events': lambda wsa, fm: wsa.register('cmd', 'cmd', 'q', '', 'r', fm),
    'in front': lambda wsa, fm: wsa.register('other', 'cmd', 'q', 'evt', 'r', {'f': says('other')}),
    'of the name of a function': lambda wsa, fm: wsa.register('f', 'cmd', 'q', 'evt', 'r', {'*': says('f')}),
    'of no name': lambda wsa, fm: wsa.register('', 'cmd', 'q', 'evt', 'r', {'': says('none'), 'f': says('none/f')}),
    'commands of a field in front': lambda wsa, fm: wsa.register('before', 'a', 'q', 'evt', 'r', {}),
    'in the entry before': lambda wsa, fm: wsa.handlers['before'].fm.update(f=says('before')),
    'in the entry after': lambda wsa, fm: wsa.handlers['*'].fm.update({'other/f': says('new'), 'f': says('new')}),
    'by the decorator': lambda wsa, fm: wsa.command('cmd/f')(says('new')),
    'by the decorator, elsewhere': lambda wsa, fm: wsa.command('other/f')(says('new')),
}


@lane
@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_change(serve: Serve, open_lane: OpenLane, lane: str, change: Change) -> None:
    """What is changed while it runs is served as if it had been so from the beginning."""
    told = []
    for is_known in (True, False):
        fm = {'f': says('f'), 'g': says('g'), 'thing/{id}': says('thing'), 'files/*': says('files'), '*': says('*')}
        wsa = serve()
        wsa.unregister('cmd')
        wsa.register('before', 'cmd', 'q', 'evt', 'r', {})
        wsa.register('cmd', 'cmd', 'q', 'evt', 'r', fm)
        wsa.register('*', 'cmd', 'q', '', 'r', {'other/f': says('everywhere'), '*': says('everywhere')})
        wsa.register('last', '', '', '', '', {'end': end})
        peer = open_lane(wsa, lane)
        before = [ask_all(wsa, peer) for _ in range(2)] if is_known else []
        assert before[1:] == before[:1]
        change(wsa, fm)
        after = [ask_all(wsa, peer) for _ in range(2)]
        assert after[0] == after[1]
        assert after[0] not in before
        told.append(after)
    assert told[0] == told[1]


@lane
def test_any_prefix(serve: Serve, open_lane: OpenLane, open_client: OpenClient, lane: str) -> None:
    """Entry '*' finds a function behind any prefix, at first and later, until that is the name of an entry."""
    wsa = serve()
    fm = {'known': lambda ctx, q: 'known', '*': lambda ctx, q: 'any'}
    wsa.register('*', 'cmd', 'q', 'evt', 'r', fm)
    client, peer = open_client(wsa), open_lane(wsa, lane)

    def ask(path: str) -> list[Any]:
        return [
            client.ask(head(f'/{path}'))[2].decode(),
            client.ask(post(f'/{path}', b'{}'))[2].decode(),
            peer.ask({'cmd': path, 'q': {}, 'tid': 1})['r'],
        ]

    for _ in range(3):
        assert ask('some/known') == ask('other/known') == ['known'] * 3
        assert ask('some/else') == ['any'] * 3
    wsa.register('some', 'cmd', 'q', 'evt', 'r', {'known': lambda ctx, q: 'some'})
    assert ask('some/known') == ['some'] * 3
    assert ask('other/known') == ['known'] * 3


# --- WebSocket ---


def told_over_websocket(ctx: ws.Context, q: Bag) -> Any:
    """All that a handler is told."""
    seen = ctx.session.get('seen', 0)
    ctx.session.seen = seen + 1
    conn, known = ctx.conn, ctx.session.get('conn', ctx.conn)
    ctx.session.conn = conn
    return {
        'q': q.as_dict(),
        'ctx': [ctx.p, ctx.tid, ctx.method, ctx.user, str(ctx.opts), repr(ctx), seen, ctx.req.path],
        'same': [conn is known, conn in ctx.wsa.connections, ctx.req.headers['Host'], isinstance(ctx.ws, web.Response)],
        'conn': [
            conn.remote,
            conn.buffered < LITTLE,
            [it.uid for it in conn.subscriptions],
            ctx.ws.closed,
            ctx.ws.prepared,
        ],
    }


async def settle(ctx: ws.Context, q: Bag) -> str:
    """Give back when all else has had its turn."""
    for _ in range(100):
        await asyncio.sleep(0)
    return 'settled'


async def for_ever(ctx: ws.Context, q: Bag) -> None:
    await asyncio.get_running_loop().create_future()


def pushes(ctx: ws.Context, q: Bag) -> str:
    ctx.conn.push('note', 1)
    ctx.conn.push('note', 2)
    return 'pushed'


def triggers(ctx: ws.Context, q: Bag) -> str:
    ctx.wsa.triggerEvent('hot', 7)
    ctx.wsa.triggerEvent('hot', 8)
    return 'triggered'


async def triggers_later(ctx: ws.Context, q: Bag) -> str:
    await asyncio.sleep(0)
    return triggers(ctx, q)


def closes_with_a_reason(ctx: ws.Context, q: Bag) -> str:
    ctx.conn.close(4000, 'enough')
    return 'closed'


async def closes_the_websocket(ctx: ws.Context, q: Bag) -> str:
    await ctx.ws.close(code=4001, message=b'enough')
    return 'closed'


async def sends_by_itself(ctx: ws.Context, q: Bag) -> str:
    await ctx.ws.send_str('{"r": "by itself"}')
    return 'sent'


HALL = {name: fn for name, (fn, _) in RESULTS.items() if 'thread' not in name and name not in ('reads', 'stream')} | {
    'tell': told_over_websocket,
    'typed': typed,
    'lists': lists,
    'saves': saves,
    'echo': echo,
    'echo later': gives_later(lambda: 'later'),
    'settle': settle,
    'for ever': for_ever,
    'push': pushes,
    'trigger': triggers,
    'trigger later': triggers_later,
    'close': closes_with_a_reason,
    'close websocket': closes_the_websocket,
    'send': sends_by_itself,
    'thing/{id}': says('thing'),
}


def call(name: str, **fields: Any) -> bytes:
    """The frame of a call."""
    return frame({'cmd': f'cmd/{name}', **fields})


LAST_CALL = call('settle', tid='end')
TIDS = [None, True, False, 0, 1, -1, 1.0, 1.5, 2**63, 2**70, '', 'x', 'ü☃', 'x' * 256, 'x' * 257, [], {}, [1], {'a': 1}]
PING, PONG, CLOSE = raw_frame(b'ping', 0x89), raw_frame(b'pong', 0x8A), raw_frame(b'\x03\xe8', 0x88)
TEXTS = [b'', b'{', b'null', b'[]', b'[[]]', b'1', b'"a"', b'{}', b'{"a":1}', b'NaN', b'{"cmd":"cmd/tell"} {}', b'\0']
TEXTS += [
    rb'{"cmd":"cmd/tell","q":"\ud83d","tid":7}',
    b'{"cmd":"cmd/tell","tid":1e999}',
    b'{"tid":"x' + b'x' * 300 + b'",}',
]
NAMES = ['cmd/tell', 'tell', 'cmd/tell/more', 'cmd/nothing', 'nothing', 'cmd', 'cmd/', '/', '*', 'cmd/*', 'cmd/thing/7']
WRONG: list[Any] = ['', None, 1, True, [], {}, ['cmd/tell'], 'x' * 1024, 'x' * 1025, 'cmd/' + 'x' * 1021]
QS: list[Any] = [{}, {'a': 1}, None, [], 1, '', 'a', True, {'sep': 1, '_': 2, '': 3}]

Script = list[bytes]
SCRIPTS: dict[str, Script] = {
    'tids': [call(name, tid=tid) for tid in TIDS for name in ('tell', 'later', 'failure', 'nothing')],
    'names': [frame({'cmd': name, 'q': {'a': 1}, 'tid': 1}) for name in NAMES + WRONG],
    'arguments': [call(name, q=q) for q in QS for name in ('echo', 'tell', 'typed', 'lists')],
    'typed': [call('typed', q={'x': value}, tid=1) for value in (1, '1', None, 1.5, True)],
    'fields of two': [frame({'evt': 'hot', 'cmd': 'cmd/tell', 'do': 'two/tell', 'cancel': 1, 'ping': 1})],
    'fields of others': [
        frame({field: f'{sub}/tell', 'q': {'a': 1}, 'with': {'b': 2}, 'tid': 1})
        for field in ('do', 'cmd')
        for sub in ('two', 'cmd', 'three')
    ],
    'merged': [frame({'do': f'three/{name}', 'tid': 1}) for name in ('tell', 'list', 'dict', 'None', 'Bag', 'str')],
    'no messages': [part for text in TEXTS for part in (raw_frame(text), call('tell'))],
    'binary': [call('tell'), raw_frame(b'{"cmd": "cmd/tell"}', 0x82), call('tell', tid=1), raw_frame(b'', 0x82)],
    'pings': [PING, call('tell'), PING, PING, call('later', tid=1), PING, call('later'), PING, call('tell'), PING],
    'pongs': [PONG, call('tell'), PONG, call('later'), PONG, call('tell'), call('tell', tid=1), PONG],
    'pieces': [raw_frame(call('tell')[6:][:9], 1), PING, raw_frame(call('tell')[6:][9:], 0x80), call('tell')],
    'batch': [frame([{'cmd': 'cmd/tell', 'tid': 1}, 7, {'cmd': 'cmd/failure', 'tid': 2}, [], {'ping': 1}, {}])] * 2,
    'batches': [frame([{'cmd': 'cmd/echo', 'n': n} for n in range(count)]) for count in (0, 1, 100, 101)],
    'batch in order': [
        frame([{'cmd': f'cmd/{name}'} for name in ('later', 'dict', 'echo later', 'list')]),
        call('empty'),
    ],
    'in order': [call(name) for name in ('echo later', 'dict', 'later', 'list', 'failure later', 'str', 'None')],
    'overtaking': [call('echo later', tid=1), call('dict'), call('later'), call('dict', tid=2), call('list')],
    'same tid': [call('echo later', tid=1), call('dict', tid=1), call('dict', tid=1.0), call('dict', tid='1')],
    'same tid again': [call('dict', tid=1)] * 3,
    'cancel': [call('for ever', tid=1), frame({'cancel': 1}), frame({'cancel': 1}), call('dict', tid=1)],
    'cancel nothing': [
        call('dict', tid=1),
        frame({'cancel': 1}),
        frame({'cancel': None}),
        frame({'cancel': 'x' * 257}),
    ],
    'ping': [call('later'), frame({'ping': 1}), frame({'ping': None}), call('dict'), frame({'ping': 'x'})],
    'many': [call('echo', n=n, tid=n) for n in range(500)] + [call('echo', n=n) for n in range(500)],
    'many large': [call('large', tid=n) for n in range(8)],
    'trigger': [frame({'evt': 'hot', 'uid': 'u'}), call('trigger'), call('dict'), call('trigger', tid=1)],
    'trigger later': [frame({'evt': 'hot', 'uid': 'u'}), call('trigger later'), call('dict'), call('dict', tid=1)],
    'subscribe': [
        call('trigger'),
        *[frame({'evt': name, 'uid': 'u', 'tid': 1, 'since': {'ver': 0}}) for name in ('hot', 'ice', '', 'x' * 257)],
        frame({'evt': 'hot', 'uid': 'v', 'since': {'ver': 1}}),
        call('tell'),
        frame({'evt': 'ice', 'uid': 'u', 'off': True}),
        frame({'evt': 'ice', 'uid': 'u', 'off': True, 'tid': 1}),
        call('trigger'),
    ],
    'close': [call('dict'), CLOSE, call('trigger'), call('dict')],
    'close before all': [CLOSE, call('dict')],
    'closed by a handler': [call('dict'), call('close'), call('dict'), call('dict', tid=1)],
    'closed by a handler, later': [call('dict'), call('close websocket', tid=1), call('dict'), call('later', tid=2)],
    'not UTF-8': [call('dict'), raw_frame(b'"\xff"'), call('trigger'), PING, call('dict')],
    'past every buffer': [call('dict', x='x' * 700_000), call('list'), call('tell'), call('str', tid=1)] * 3,
    'too large': [call('dict'), raw_frame(b'"%b"' % (b'x' * 2**20)), call('trigger'), PING, call('dict')],
    'no frame': [call('dict'), b'\xff\xff', call('trigger'), PING, call('dict')],
    'wrong close': [call('dict'), raw_frame(b'\x03\xed', 0x88), call('trigger')],
}
LIMITS: dict[str, dict[str, Any]] = {
    'one place': {'max_in_flight': 1},
    'few wait': {'max_queued': 2},
    'little waits': {'max_queued_bytes': 100},
    'short names': {'max_name': 3},
    'short batches': {'max_batch': 1},
    'few subscriptions': {'max_subscriptions': 1},
}


def hall(serve: Serve, loop: str, limits: dict[str, Any]) -> ws.WebShoesApp:
    """An app with all these handlers, in three entries."""
    usual = {'slow_handler': None, 'stall_timeout': None, 'max_ws_msg_size': 2**20}
    wsa = serve(HALL, loop=loop, limits=ws.Limits(**{**usual, **limits}))
    wsa.register('two', 'do', 'with', 'watch', 'got', HALL)
    wsa.register('three', 'do', '', '', '', HALL)
    return wsa


def transcript(peer: Peer, script: Script) -> list[list[Any]]:
    """All that comes of what is sent at once, up to the answer of the last call, or the end; but for time and chance.

    Answers are in one list and pushes in another, as neither waits for the other.
    """
    answers: list[Any] = []
    pushes: list[Any] = []
    peer.raw(*script, LAST_CALL)
    while (found := peer.frame()) is not None:
        first, data = found
        data = re.sub(rb'"t":[0-9.]+|"epoch":"[^"]*"|"uid":"[0-9a-f]{32}"', b'', data)
        (pushes if data.startswith((b'{"evt"', b'{"watch"')) else answers).append((first, data))
        if first == 0x88 or b'"tid":"end"' in data:
            break
    return [answers, pushes]


def is_left(wsa: ws.WebShoesApp) -> bool:
    """Whether all connections are closed."""
    return not wsa.connections


def check_lanes(serve: Serve, open_lane: OpenLane, loop: str, limits: dict[str, Any], scripts: list[Script]) -> None:
    """What these are answered is the same over both lanes, at first and later, and so is what was counted."""
    told, counted = [], []
    for lane in ('fast', 'slow'):
        wsa = hall(serve, loop, limits)
        heard = []
        for script in [script for script in scripts for _ in range(2)]:
            peer = open_lane(wsa, lane)
            heard.append(transcript(peer, script))
            peer.close()
        until(partial(is_left, wsa))  # what was met is counted by then
        told.append(heard)
        counted.append(({**wsa.stats()['limits'], 'send_buffer': 0}, wsa.event('hot').ver))
    for fast, slow in zip(*told, strict=True):
        assert fast == slow
    assert counted[0] == counted[1]


@on_loop
def test_results_over_websocket(serve: Serve, open_lane: OpenLane, loop: str) -> None:
    """Whatever a handler gives or raises is answered alike, with and without `tid`."""
    with_tid = [[call(name, q={'a': 1, 'b': 2}, tid=tid) for tid in (1, 'x')] for name in HALL]
    without = [[call(name, a=1, b=2)] * 2 for name in HALL if name != 'for ever']
    check_lanes(serve, open_lane, loop, {}, with_tid + without)


@on_loop
@pytest.mark.parametrize('script', SCRIPTS.values(), ids=SCRIPTS)
def test_script(serve: Serve, open_lane: OpenLane, loop: str, script: Script) -> None:
    """Whatever is sent is answered alike."""
    check_lanes(serve, open_lane, loop, {}, [script])


@on_loop
def test_rate(serve: Serve, open_lane: OpenLane, loop: str) -> None:
    """So many calls are refused as there are over the limit, however known the command is."""
    check_lanes(serve, open_lane, loop, {'max_rate': 3}, [[call('dict', tid=tid) for tid in range(6)]])


@pytest.mark.parametrize('limits', LIMITS.values(), ids=LIMITS)
def test_script_and_limits(serve: Serve, open_lane: OpenLane, limits: dict[str, Any]) -> None:
    """Limits hold alike."""
    for script in SCRIPTS.values():
        check_lanes(serve, open_lane, 'auto', limits, [script])


def lanes_taken(ctx: ws.Context, q: Bag) -> Any:
    """Whether the message came over the fast lane, and was answered at once."""
    return ['_take' in ways(), '_handle' not in ways()]


@on_loop
@pytest.mark.parametrize(
    ('message', 'expected'),
    [
        ({'cmd': 'cmd/way', 'q': {'a': 1}}, True),
        ({'cmd': 'cmd/way', 'q': {}, 'tid': 1}, True),
        ({'cmd': 'way', 'q': {}, 'tid': 'x'}, True),
        ({'do': 'two/way', 'a': 1}, True),
        ({'cmd': 'cmd/way'}, False),
        ({'cmd': 'cmd/way/more', 'q': {}}, False),
        ([{'cmd': 'cmd/way', 'q': {}}], False),
    ],
)
def test_lanes_taken(serve: Serve, open_lane: OpenLane, loop: str, message: Any, expected: bool) -> None:
    """A message comes over the fast lane where that is open, and one of the simplest kind is answered at once."""
    for lane in ('fast', 'slow'):
        wsa = serve({'way': lanes_taken}, loop=loop)
        wsa.register('two', 'do', '', '', 'r', {'way': lanes_taken})
        peer = open_lane(wsa, lane)
        answers = [peer.ask(message)['r'] for _ in range(3)]
        assert answers == [[lane == 'fast', at_once] for at_once in (False, expected, expected)]


@lane
@on_loop
def test_byte_by_byte(serve: Serve, open_lane: OpenLane, lane: str, loop: str) -> None:
    """Frames that come in pieces, of whatever size, are answered as those that come at once."""
    script = [*SCRIPTS['pings'], *SCRIPTS['arguments'][:8], *SCRIPTS['pieces'], *SCRIPTS['tids'][:8]]
    data = b''.join(script)
    answers = transcript(open_lane(hall(serve, loop, {}), lane), script)
    assert len(answers[0]) > 25
    for size in (1, 7, 100):
        peer = open_lane(hall(serve, loop, {}), lane)
        for start in range(0, len(data), size):
            peer.raw(data[start : start + size])
        assert sorted(transcript(peer, [])[0]) == sorted(answers[0])


@lane
@on_loop
@pytest.mark.parametrize('q', ['', 'q'])
def test_arguments_named_as_the_fields_of_a_subscription(
    serve: Serve, open_lane: OpenLane, lane: str, loop: str, q: str
) -> None:
    """A message with a command is a call, known before or not, whatever its arguments are called."""
    wsa = serve(loop=loop)
    wsa.register('flat', 'cmd', q, 'evt', 'r', {'echo': echo})
    peer = open_lane(wsa, lane)
    message = {'cmd': 'flat/echo', 'evt': 'heat', 'uid': 'u', 'off': True, 'since': 3}
    assert [peer.ask(message)['r'] for _ in range(3)] == [message] * 3
    assert peer.ask({'evt': 'heat', 'uid': 'u'})['r']['status'] == 'Event added'


# --- time, and the end ---


class Slow(msgspec.Struct):
    """Arguments that take long to be checked."""

    def __post_init__(self) -> None:
        time.sleep(0.02)


def takes_long(ctx: ws.Context, q: Bag) -> None:
    time.sleep(0.02)


def checked(ctx: ws.Context, q: Slow) -> None:
    return None


@lane
@pytest.mark.parametrize(('fn', 'slow'), [(takes_long, 1), (checked, 0)])
def test_slow_handlers(serve: Serve, open_lane: OpenLane, lane: str, fn: Callable[..., Any], slow: int) -> None:
    """A handler that blocks is counted each time, the time that its arguments take is not its own."""
    wsa = serve({'case': fn, 'end': end}, limits=ws.Limits(slow_handler=0.01))
    for request in (head('/cmd/case'), post('/cmd/case', b'{}')):
        asked_again(wsa, request, END)  # which makes five calls
    peer = open_lane(wsa, lane)
    for tid in range(3):
        peer.ask({'cmd': 'cmd/case', 'q': {}, 'tid': tid})
    assert wsa.stats()['limits']['slow_handler'] == 13 * slow


@lane
def test_time_limit(serve: Serve, open_lane: OpenLane, lane: str) -> None:
    """A handler that takes too long is given up each time, and counted."""
    wsa = serve({'case': for_ever, 'end': end}, limits=ws.Limits(handler_timeout=0.01, slow_handler=None))
    assert [whole(wsa, request, END)[:12] for request in (head('/cmd/case'), post('/cmd/case', b'{}')) * 3] == [
        b'HTTP/1.1 504'
    ] * 6
    peer = open_lane(wsa, lane)
    assert [peer.ask({'cmd': 'cmd/case', 'q': {}, 'tid': tid})['code'] for tid in range(3)] == [504] * 3
    assert wsa.stats()['limits']['handler_timeout'] == 9


@pytest.mark.parametrize(
    ('limit', 'request_'),
    [
        ('max_fields', head('/cmd/tell?a=1&b=2&c=3')),
        ('max_body_size', post('/cmd/tell', b'{"a": 1}')),
        ('max_body_size', post('/cmd/tell', b'{"a": 1}', 'Content-Type: text/plain')),
    ],
)
def test_limit_of_a_request(serve: Serve, limit: str, request_: bytes) -> None:
    """What is over a limit is counted each time, and what is not over it never."""
    wsa = serve({**SITE, 'tell': reads_whole}, limits=ws.Limits(**{limit: 2}))
    answers = asked_again(wsa, request_, END)
    assert [answer[:12] for answer in answers] == [b'HTTP/1.1 413'] * 3
    assert wsa.stats()['limits'][limit] == 3


@on_loop
def test_rate_of_requests(serve: Serve, loop: str) -> None:
    """Requests on one connection are refused from the same one on, however known the path is."""
    wsa = serve({'f': gives(dict)}, loop=loop, limits=ws.Limits(max_rate=3))
    last = head('/cmd/f', 'GET', 'Connection: close')
    for _ in range(3):
        answers = whole(wsa, *[head('/cmd/f')] * 4, last)
        assert re.findall(rb'HTTP/1.1 (\d+)', answers) == [b'200'] * 3 + [b'429'] * 2


@lane
@on_loop
def test_stop(serve: Serve, open_lane: OpenLane, open_client: OpenClient, lane: str, loop: str, block: Block) -> None:
    """While the server stops, what was known is refused like the rest, and what runs is answered."""
    wsa = serve({'f': gives(dict), 'block': block.coroutine}, loop=loop)
    client, running = open_client(wsa), open_client(wsa)
    assert [client.ask(head('/cmd/f'))[0] for _ in range(2)] == ['HTTP/1.1 200 OK'] * 2
    peer = open_lane(wsa, lane)
    assert [peer.ask({'cmd': 'cmd/f', 'q': {}, 'tid': 1})['r'] for _ in range(2)] == [{}] * 2
    running.send(head('/cmd/block'))
    assert block.entered.wait(TIMEOUT)
    stopping = threading.Thread(target=wsa.stop)
    stopping.start()
    until(lambda: peer.ask({'cmd': 'cmd/f', 'q': {}, 'tid': 1}).get('code') == 503)
    status, headers, body = client.ask(head('/cmd/f'))
    assert (status, body) == ('HTTP/1.1 503 Service Unavailable', b'{"error":"The server is stopping","code":503}')
    assert 'Connection: close' in headers
    block.let_go.set()
    assert running.receive()[2] == b'done'
    stopping.join(TIMEOUT)
    assert peer.frame() is not None


# --- many at once ---


@lane
@on_loop
@pytest.mark.parametrize('buffer', [None, 4096], ids=['quick', 'slow to read'])
def test_calls_and_events(serve: Serve, open_lane: OpenLane, lane: str, loop: str, buffer: int | None) -> None:
    """Whoever calls while events are triggered is answered in order, and gets each version in order to the last."""
    count, limits = 1000, ws.Limits(history=10_000, stall_timeout=None, slow_handler=None)
    wsa = serve({'echo': echo, 'f': gives(dict)}, loop=loop, limits=limits)
    peers = [open_lane(wsa, lane, buffer=buffer) for _ in range(3)]
    for peer in peers:
        peer.ask({'evt': 'heat'})
    calls = [frame({'cmd': 'cmd/echo', 'q': {'n': n, 'x': 'x' * 50}, 'tid': n}) for n in range(count)]

    def trigger() -> None:
        for n in range(count):
            wsa.triggerEvent('heat', n)

    def ask(peer: Peer) -> None:
        for start in range(0, count, 50):
            peer.raw(*calls[start : start + 50])

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(trigger), *(pool.submit(ask, peer) for peer in peers)]
        for peer in peers:
            told = [peer.receive() for _ in range(2 * count)]
            assert [message['tid'] for message in told if 'tid' in message] == list(range(count))
            assert [message['ver'] for message in told if 'evt' in message] == list(range(1, count + 1))
        assert [task.result(TIMEOUT) for task in done] == [None] * 4


@lane
@on_loop
def test_who_does_not_read(serve: Serve, open_lane: OpenLane, lane: str, loop: str) -> None:
    """Who sends a lot before it reads is read no further than there is room for, and then answered in order."""
    called: list[int] = []

    def large(ctx: ws.Context, q: Bag) -> Any:
        called.append(q.n)
        return ['x' * 10_000]

    limits = ws.Limits(send_buffer=50_000, stall_timeout=None, slow_handler=None)
    wsa = serve({'large': large}, loop=loop, limits=limits)
    peer = open_lane(wsa, lane, buffer=4096)
    count = 1000
    peer.raw(*[frame({'cmd': 'cmd/large', 'q': {'n': n}, 'tid': n}) for n in range(count)])
    peer.raw(*[PING] * 3)
    until(lambda: called)
    assert [peer.receive()['tid'] for _ in range(count)] == list(range(count))
    assert called == list(range(count))
    assert [peer.frame() for _ in range(3)] == [(0x8A, b'ping')] * 3


# aiohttp's reader holds at most 512 KiB, in its queue and beside it: messages over, at and below that.
SIZES = {
    'one large': [700_000, *[0] * 6],
    'large and small': [3_000_000, 0, 0, 700_000, 0, 700_000, *[0] * 100],
    'all large': [700_000] * 6,
    'all small': [400] * 1500,
    'on the edge': [524_288 - 128 - size for size in (50, 0, -50)] * 2 + [0] * 6,
}


def packed(messages: list[Any], pack: Callable[[bytes], bytes], first: int) -> list[bytes]:
    """One frame for each message."""
    return [raw_frame(pack(json.dumps(message).encode()), first) for message in messages]


def packed_in_pieces(messages: list[Any], pack: Callable[[bytes], bytes], first: int) -> list[bytes]:
    """Three frames for each message, and a ping between them."""
    found = []
    for message in messages:
        data = pack(json.dumps(message).encode())
        third = len(data) // 3
        pieces = (
            raw_frame(data[:third], first & 0x7F),
            PING,
            raw_frame(data[third:-third], 0),
            raw_frame(data[-third:], 0x80),
        )
        found.append(b''.join(pieces))
    return found


def packed_in_arrays(messages: list[Any], pack: Callable[[bytes], bytes], first: int) -> list[bytes]:
    """One frame for three messages."""
    return packed([messages[start : start + 3] for start in range(0, len(messages), 3)], pack, first)


def deflate(data: bytes) -> bytes:
    """A message as permessage-deflate has it (RFC 7692 section 7.2.1)."""
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def send_while_it_takes(peer: Peer, data: bytes, is_full: threading.Event) -> None:
    """Send, and tell when the system takes no more of it, or it is sent."""
    connection = peer._socket
    while data and select.select([], [connection], [], 0)[1]:
        data = data[connection.send(data[:65_536]) :]
    is_full.set()
    connection.sendall(data)


@lane
@on_loop
@pytest.mark.parametrize('is_packed', [False, True], ids=['plain', 'deflate'])
@pytest.mark.parametrize('form', [packed, packed_in_pieces, packed_in_arrays])
@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES)
def test_order_past_every_buffer(
    serve: Serve, open_lane: OpenLane, lane: str, loop: str, is_packed: bool, form: Any, sizes: list[int]
) -> None:
    """Calls are made in the order sent, however much comes while the client reads nothing, and a close comes last."""
    called: list[Any] = []
    transports: list[asyncio.Transport] = []
    is_full = threading.Event()

    def note(ctx: ws.Context, q: Bag) -> None:
        called.append((q.n, ctx.tid))

    async def note_later(ctx: ws.Context, q: Bag) -> None:
        called.append((q.n, ctx.tid))
        await asyncio.sleep(0)

    def fill(ctx: ws.Context, q: Bag) -> str:
        transports.append(ctx.req.transport)
        assert is_full.wait(TIMEOUT)
        return random_text

    random_text = random.Random(7).randbytes(100_000).hex()
    limits = ws.Limits(
        max_ws_msg_size=16 * 2**20,
        send_buffer=50_000,
        stall_timeout=None,
        slow_handler=None,
        max_queued=None,
        max_queued_bytes=None,
    )
    wsa = serve({'note': note, 'note later': note_later, 'fill': fill}, loop=loop, limits=limits, compress=is_packed)
    headers = ('Sec-WebSocket-Extensions: permessage-deflate',) if is_packed else ()
    pack, first = (deflate, 0xC1) if is_packed else (bytes, 0x81)
    for name, tids in (('note', False), ('note', True), ('note later', False)):
        messages = [
            {'cmd': f'cmd/{name}', 'q': {'n': n, 'pad': 'x' * size}, **({'tid': n} if tids else {})}
            for n, size in enumerate(sizes)
        ]
        called.clear()
        is_full.clear()
        peer = open_lane(wsa, lane, headers=headers, buffer=4096)
        end = CLOSE if name == 'note' else b''  # whose answers are there before it
        data = call('fill') * 2 + b''.join(form(messages, pack, first)) + end
        with ThreadPoolExecutor(1) as sending:
            sent = sending.submit(send_while_it_takes, peer, data, is_full)
            until(lambda: transports and not transports[-1].is_reading())
            texts = 0
            while texts < len(sizes) + 2 and (found := peer.frame()) is not None:
                texts += found[0] & 0xF == 1
            sent.result(TIMEOUT)
        assert called == [(n, n if tids else None) for n in range(len(sizes))]
        assert texts == len(sizes) + 2
        transports.clear()


@lane
@on_loop
def test_memory_of_what_waits(serve: Serve, open_lane: OpenLane, lane: str, loop: str, block: Block) -> None:
    """What comes faster than it can be answered waits as the bytes that came, and not as what they mean."""
    read: list[int] = []

    def large(ctx: ws.Context, q: Bag) -> Any:
        if q.n == 300:
            read.append(sum(type(found) is dict and 'of those' in found for found in gc.get_objects()))
        return ['x' * 1000]

    wsa = serve({'large': large, 'block': block.sync}, loop=loop)
    peer, count = open_lane(wsa, lane), 5000
    peer.raw(call('block'))
    assert block.entered.wait(TIMEOUT)
    peer.raw(*[call('large', q={'n': n, 'of those': []}) for n in range(count)])
    block.let_go.set()
    assert peer.receive()['r'] == 'done'
    assert [peer.receive()['r'] for _ in range(count)] == [['x' * 1000]] * count
    assert read[0] < 100


# --- before and after ---


@lane
@on_loop
def test_login_by_message(serve: Serve, open_lane: OpenLane, lane: str, loop: str) -> None:
    """Nothing is called before the login that is the first message, whatever comes with it at once."""
    order: list[str] = []

    async def user(token: str) -> str | None:
        for _ in range(10):
            await asyncio.sleep(0)
        order.append(f'asked for {token}')
        return token if token == 'right' else None

    def called(ctx: ws.Context, q: Bag) -> Any:
        order.append(f'called by {ctx.user}')
        return ctx.user

    wsa = serve({'called': called}, loop=loop, auth=ws.bearer_auth(user, by_message=True))
    for _ in range(2):
        peer = open_lane(wsa, lane)
        peer.raw(frame({'auth': 'right'}), *[call('called', q={})] * 3)
        assert [peer.receive()['r'] for _ in range(3)] == ['right'] * 3
        peer = open_lane(wsa, lane)
        peer.raw(frame({'auth': 'wrong'}), *[call('called', q={})] * 3)
        found = peer.frame()
        assert found is not None
        assert (found[0], found[1][:2]) == (0x88, (4401).to_bytes(2, 'big'))
    assert order == ['asked for right', *['called by right'] * 3, 'asked for wrong'] * 2


@lane
@on_loop
def test_lost_before_it_is_let_in(
    serve: Serve, open_lane: OpenLane, open_client: OpenClient, lane: str, loop: str, block: Block
) -> None:
    """A connection that is lost while its login is looked at comes, and goes at once."""

    async def user(token: str) -> str:
        await block.coroutine(None, None)
        return token

    wsa = serve(loop=loop, auth=ws.bearer_auth(user, by_message=True))
    gone = threading.Event()
    wsa.on('disconnect')(lambda ctx: gone.set())
    peer = open_lane(wsa, lane)
    peer.raw(frame({'auth': 'right'}))
    assert block.entered.wait(TIMEOUT)
    peer.close()
    client = open_client(wsa)
    for _ in range(2):  # turns of the loop, in which it is seen
        client.ask(head('/'))
    block.let_go.set()
    assert gone.wait(TIMEOUT)


@lane
@on_loop
def test_hook_that_waits(serve: Serve, open_lane: OpenLane, lane: str, loop: str, block: Block) -> None:
    """Nothing is called before the hook that is told of the connection has done, and then all in order."""
    wsa = serve({'echo': echo}, loop=loop)
    calls = [call('echo', q={'n': n}) for n in range(10)]
    wsa.on('connect')(lambda ctx: block.coroutine(ctx, None))
    peer = open_lane(wsa, lane)
    assert block.entered.wait(TIMEOUT)
    peer.raw(*calls[:5])
    peer.raw(*calls[5:8])
    assert wsa.stats()['connections'] == 1
    block.let_go.set()
    peer.raw(*calls[8:])
    assert [peer.receive()['r'] for _ in range(10)] == [{'n': n} for n in range(10)]


@lane
@on_loop
def test_frames_with_the_handshake(serve: Serve, monkeypatch: pytest.MonkeyPatch, lane: str, loop: str) -> None:
    """Frames that come with the handshake, before it is answered, are answered in order, too."""
    monkeypatch.setattr('webshoes.transports.websocket.HAS_WEBSOCKET_LANE', lane == 'fast')
    wsa = serve({'echo': echo}, loop=loop)
    with dial(wsa.port) as connection, connection.makefile('rb') as stream:
        calls = [call('echo', q={'n': n}) for n in range(5)]
        connection.sendall(upgrade() + b''.join(calls[:3]) + calls[3][:9])
        read_head(connection)
        connection.sendall(calls[3][9:] + calls[4])
        assert [read_message(stream)['r'] for _ in range(5)] == [{'n': n} for n in range(5)]


@lane
@on_loop
@pytest.mark.parametrize('body', [b'', b'{}'], ids=['missing', 'here'])
def test_handshake_with_a_body(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, lane: str, loop: str, body: bytes
) -> None:
    """A handshake that announces a body is answered, and so are the frames after it."""
    monkeypatch.setattr('webshoes.transports.websocket.HAS_WEBSOCKET_LANE', lane == 'fast')
    wsa = serve({'echo': echo}, loop=loop)
    with dial(wsa.port) as connection, connection.makefile('rb') as stream:
        connection.sendall(upgrade('Content-Length: 2') + body)
        read_head(connection)
        for n in range(3):
            connection.sendall(call('echo', q={'n': n}))
            assert read_message(stream)['r'] == {'n': n}


@on_loop
def test_frames_with_the_handshake_that_are_not_masked(serve: Serve, loop: str) -> None:
    """The first frame is to be masked, also where it comes with the handshake."""
    wsa = serve({'echo': echo}, loop=loop)
    for cut in (0, 1, 2, 9):
        data = b'\x81\x0a{"ping":1}'
        with dial(wsa.port) as connection, connection.makefile('rb') as stream:
            connection.sendall(upgrade() + data[:cut])
            read_head(connection)
            connection.sendall(data[cut:])
            found = read_frame(stream)
            assert found is not None
            assert (found[0], found[1][:2]) == (0x88, (1002).to_bytes(2, 'big'))


@lane
@on_loop
def test_stop_from_a_handler(serve: Serve, open_lane: OpenLane, open_client: OpenClient, lane: str, loop: str) -> None:
    """A handler that stops the server is answered, however often it was called before."""

    def stop(ctx: ws.Context, q: Bag) -> Any:
        if q.now:
            ctx.wsa.stop()
        return {'now': bool(q.now)}

    for is_http in (True, False):
        wsa = serve({'stop': stop}, loop=loop)
        client, peer = open_client(wsa), open_lane(wsa, lane)
        for _ in range(3):
            assert client.ask(head('/cmd/stop'))[2] == b'{"now":false}'
            assert peer.ask({'cmd': 'cmd/stop', 'q': {}, 'tid': 1})['r'] == {'now': False}
        if is_http:
            assert client.ask(head('/cmd/stop?now=1'))[2] == b'{"now":true}'
        else:
            assert peer.ask({'cmd': 'cmd/stop', 'q': {'now': 1}, 'tid': 1})['r'] == {'now': True}
        found = peer.frame()
        assert found is not None
        assert (found[0], found[1][:2]) == (0x88, (1001).to_bytes(2, 'big'))


# --- connections ---


LAST = {  # what ends a connection, and the code with which it is answered
    'close': (CLOSE, 1000),
    'close after a ping': (raw_frame(b'', 0x89) + CLOSE, 1000),
    'close after a pong': (raw_frame(b'', 0x8A) + CLOSE, 1000),
    'too large': (raw_frame(b'x' * 2000), 1009),
    'no frame': (b'\xff\xff', 1002),
    'not UTF-8': (raw_frame(b'\xff'), 1007),
    'pieces of two': (raw_frame(b'{', 0x01) + raw_frame(b'{'), 1002),
}


@lane
@on_loop
@pytest.mark.parametrize('headers', [(), ('Sec-WebSocket-Extensions: permessage-deflate',)], ids=['plain', 'deflate'])
@pytest.mark.parametrize('buffer', [None, 4096], ids=['quick', 'slow to read'])
@pytest.mark.parametrize(('last', 'code'), LAST.values(), ids=LAST)
def test_all_is_answered_before_the_end(
    serve: Serve,
    open_lane: OpenLane,
    lane: str,
    loop: str,
    headers: tuple[str, ...],
    buffer: int | None,
    last: bytes,
    code: int,
) -> None:
    """What came before the frame that ends a connection is answered, however much that is."""
    limits = ws.Limits(max_ws_msg_size=1000, send_buffer=100_000, stall_timeout=None)
    wsa = serve({'large': lambda ctx, q: 'x' * 30_000}, loop=loop, limits=limits, compress=True)
    peer = open_lane(wsa, lane, headers=headers, buffer=buffer)
    peer.raw(*[frame({'cmd': 'cmd/large'})] * 9, last)
    answers = 0
    while (found := peer.frame()) is not None and found[0] & 0xF != 8:
        answers += found[0] & 0xF == 1
    assert found is not None
    assert (answers, int.from_bytes(found[1][:2], 'big')) == (9, code)


who: ContextVar[str] = ContextVar('who', default='nobody')


def set_who(ctx: ws.Context) -> str:
    who.set(ctx.req.query['user'])
    return who.get()


@lane
@on_loop
def test_context_variables(serve: Serve, open_lane: OpenLane, lane: str, loop: str) -> None:
    """What `auth` sets in a context variable is there in all handlers of its connection, as is what these set."""

    def now(ctx: ws.Context, q: Bag) -> Any:
        return who.get(), ctx.user

    async def later(ctx: ws.Context, q: Bag) -> Any:
        return now(ctx, q)

    def become(ctx: ws.Context, q: Bag) -> None:
        who.set(q.user)

    wsa = serve({'now': now, 'later': later, 'become': become}, auth=set_who, loop=loop)
    for user in ('Ann', 'Bob'):
        peer = open_lane(wsa, lane, f'/?user={user}')
        for name in ('now', 'now', 'later'):
            assert peer.ask({'cmd': f'cmd/{name}'})['r'] == [user, user]
        peer.ask({'cmd': 'cmd/become', 'q': {'user': 'Eve'}})
        for name in ('now', 'later'):
            assert peer.ask({'cmd': f'cmd/{name}'})['r'] == ['Eve', user]


@lane
@on_loop
def test_context_of_a_call_that_waits(serve: Serve, open_lane: OpenLane, lane: str, loop: str) -> None:
    """Calls that wait for room, and are run when there is some, are run as their own connection's."""

    def large(ctx: ws.Context, q: Bag) -> Any:
        return who.get(), ctx.user, 'x' * 30_000

    wsa = serve({'large': large}, auth=set_who, loop=loop, limits=ws.Limits(send_buffer=1000))
    peers = [open_lane(wsa, lane, f'/?user={user}') for user in ('Ann', 'Bob')]
    for peer in peers:
        peer.raw(*[frame({'cmd': 'cmd/large'})] * 5)
    wsa.triggerEvent('heat', 7)
    for peer, user in zip(peers, ('Ann', 'Bob'), strict=True):
        assert [peer.receive()['r'][:2] for _ in range(5)] == [[user, user]] * 5


@on_loop
def test_memory_of_a_broken_message(serve: Serve, loop: str) -> None:
    """What came of a message that broke off is let go at once, and not when Python next looks for garbage."""

    def readers() -> int:
        return sum(type(found) is WebSocketReader for found in gc.get_objects())

    wsa = serve(loop=loop)
    gc.collect()
    gc.disable()
    try:
        before = readers()
        with dial(wsa.port) as connection:
            connection.sendall(upgrade())
            read_head(connection)
            connection.sendall(raw_frame(b'x' * 100_000)[:-1])
            until(lambda: readers() == before + 1)
        until(lambda: readers() == before)
    finally:
        gc.enable()
