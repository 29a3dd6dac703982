"""The quick ways: what is asked again, or comes over the fast lane, is answered as it is the slow way."""

from __future__ import annotations

import asyncio
import collections
import enum
import gc
import gzip
import logging
import re
import socket
import time
import traceback
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp._websocket.reader import WebSocketReader
from propertybag import Bag

import webshoes as ws

from .conftest import TIMEOUT, OpenPeer, Serve, echo, exchange
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
            monkeypatch.setattr('webshoes.transports.websocket.IS_OPEN', lane == 'fast')
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
        'conn': [ctx.conn.remote, ctx.conn.buffered, ctx.conn.subscriptions, abs(ctx.conn.opened - time.time()) < 60],
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


@on_loop
@pytest.mark.parametrize('handler', ['tell', 'lists', 'echo'])
@pytest.mark.parametrize(('query', 'code'), QUERIES.items(), ids=(query[:30] for query in QUERIES))
def test_query(serve: Serve, loop: str, handler: str, query: str, code: int) -> None:
    """Whatever a query is like, it is read alike each time."""
    check_again(serve(SITE, loop=loop), code, head(f'/cmd/{handler}?{query}'), END)


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


@on_loop
@pytest.mark.parametrize(('body', 'code'), JSON_BODIES.items(), ids=(repr(body[:30]) for body in JSON_BODIES))
def test_json(serve: Serve, loop: str, body: bytes, code: int) -> None:
    """Whatever is sent as JSON, it is read alike each time."""
    wsa = serve(SITE, loop=loop, limits=ws.Limits(max_body_size=10_000))
    check_again(wsa, code, post('/cmd/tell', body), END)


@on_loop
@pytest.mark.parametrize(('request_', 'code'), POSTS.values(), ids=POSTS)
def test_post(serve: Serve, loop: str, request_: bytes, code: int) -> None:
    """However a body is sent, it is read alike each time."""
    check_again(serve(SITE, loop=loop, limits=ws.Limits(max_body_size=10_000)), code, request_, END)


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
    'no method': (head('/cmd/tell', 'BREW'), 400),
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
    '{}': (gives(dict), 200),
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
    'not JSON inside': (gives(lambda: {'a': {1, 2}}), 500),
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
    first, second, third = asked_again(serve({'case': fn, 'end': end}, loop=loop), head('/cmd/case'), head('/cmd/end'))
    assert first in (second, b'')
    assert first == second == third
    assert b'the end' not in first
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
    return [frame.f_code.co_name for frame, _ in traceback.walk_stack(None)]


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
    'an event of that field': lambda wsa, fm: wsa.register('x', '', '', 'cmd', 'r', {}),
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


# --- connections ---


CLOSE = raw_frame(b'\x03\xe8', 0x88)
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


@lane
@on_loop
def test_context_variables(serve: Serve, open_lane: OpenLane, lane: str, loop: str) -> None:
    """What `auth` sets in a context variable is there in all handlers of its connection, as is what these set."""

    def auth(ctx: ws.Context) -> str:
        who.set(ctx.req.query['user'])
        return who.get()

    def now(ctx: ws.Context, q: Bag) -> Any:
        return who.get(), ctx.user

    async def later(ctx: ws.Context, q: Bag) -> Any:
        return now(ctx, q)

    def become(ctx: ws.Context, q: Bag) -> None:
        who.set(q.user)

    wsa = serve({'now': now, 'later': later, 'become': become}, auth=auth, loop=loop)
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

    def auth(ctx: ws.Context) -> str:
        who.set(ctx.req.query['user'])
        return who.get()

    def large(ctx: ws.Context, q: Bag) -> Any:
        return who.get(), ctx.user, 'x' * 30_000

    wsa = serve({'large': large}, auth=auth, loop=loop, limits=ws.Limits(send_buffer=1000))
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
