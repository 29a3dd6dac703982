"""One registration, every transport, one meaning: each case is asked over HTTP and over WebSocket, on both loops."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest
import requests
from aiohttp import web
from propertybag import Bag
from websockets.sync.client import connect

import webshoes as ws

from .conftest import TIMEOUT, Peer, Serve, echo

Result = tuple[int, Any]  # the code, and the result or the sentence of the error


class Pair(msgspec.Struct):
    a: int
    b: int = 1


@dataclass
class Point:
    x: float
    y: float


@dataclass
class Shelf:
    width: int
    on: bool = False


class Named(TypedDict):
    name: str


def add(ctx: ws.Context, q: Bag) -> dict[str, int]:
    return {'sum': int(q.a) + int(q.b)}


async def add_later(ctx: ws.Context, q: Bag) -> dict[str, int]:
    await asyncio.sleep(0)
    return add(ctx, q)


@ws.threaded
def add_elsewhere(ctx: ws.Context, q: Bag) -> dict[str, int]:
    return add(ctx, q)


def add_pair(ctx: ws.Context, q: Pair) -> int:
    return q.a + q.b


def add_point(ctx: ws.Context, q: Point) -> Point:
    return Point(q.x + 1, q.y + 1)


def echo_shelf(ctx: ws.Context, q: Shelf) -> list[Shelf]:
    return [q]


def greet(ctx: ws.Context, q: Named) -> str:
    return f'Hello {q["name"]}'


def gives(value: Any) -> Callable[[ws.Context, Bag], Any]:
    return lambda ctx, q: value


def raises(exc: BaseException) -> Callable[[ws.Context, Bag], Any]:
    def handler(ctx: ws.Context, q: Bag) -> Any:
        raise exc

    return handler


def raises_later(exc: BaseException) -> Callable[[ws.Context, Bag], Any]:
    async def handler(ctx: ws.Context, q: Bag) -> Any:
        await asyncio.sleep(0)
        raise exc

    return handler


def raises_elsewhere(exc: BaseException) -> Callable[[ws.Context, Bag], Any]:
    return ws.threaded(raises(exc))


Face = Callable[[ws.WebShoesApp, str, Any], Result]
HIDDEN = (500, 'Server error')
CASES: dict[str, tuple[Callable[..., Any], Any, Result]] = {
    # calling
    'plain': (add, {'a': 2, 'b': 3}, (200, {'sum': 5})),
    'async': (add_later, {'a': 2, 'b': 3}, (200, {'sum': 5})),
    'threaded': (add_elsewhere, {'a': 2, 'b': 3}, (200, {'sum': 5})),
    'Struct': (add_pair, {'a': 2}, (200, 3)),
    'dataclass': (add_point, {'x': 1, 'y': 2.5}, (200, {'x': 2.0, 'y': 3.5})),
    'dataclass with a default': (echo_shelf, {'width': 1}, (200, [{'width': 1, 'on': False}])),
    'TypedDict': (greet, {'name': 'Ann'}, (200, 'Hello Ann')),
    'q is null': (echo, None, (200, {})),
    'echo': (echo, {'a': {'b': [1, None, True, 'ü']}, '_': 0}, (200, {'a': {'b': [1, None, True, 'ü']}, '_': 0})),
    'default': (lambda ctx, q: q.get('n', 3), {}, (200, 3)),
    'default of a cast': (lambda ctx, q: q.get('a.n', 3, cast=int), {}, (200, 3)),
    'nothing to get': (lambda ctx, q: q.get('n'), {}, (200, None)),
    'cast': (lambda ctx, q: q.get('n', cast=int), {'n': '4'}, (200, 4)),
    # results
    '{}': (gives({}), {}, (200, {})),
    '[]': (gives([]), {}, (200, [])),
    '0': (gives(0), {}, (200, 0)),
    'False': (gives(False), {}, (200, False)),
    'None': (gives(None), {}, (200, None)),
    'empty str': (gives(''), {}, (200, '')),
    'str': (gives('snow ☃'), {}, (200, 'snow ☃')),
    'bytes': (gives(b'\0\xff'), {}, (200, base64.b64encode(b'\0\xff').decode())),
    'bytearray': (gives(bytearray(b'ab')), {}, (200, base64.b64encode(b'ab').decode())),
    'bytes inside': (gives({'a': b'\0\xff'}), {}, (200, {'a': base64.b64encode(b'\0\xff').decode()})),
    'Bag': (gives(Bag({'a': {'b': 1}})), {}, (200, {'a': {'b': 1}})),
    'Bags inside': (gives([{'a': Bag({'b': Bag({'c': 1})})}]), {}, (200, [{'a': {'b': {'c': 1}}}])),
    'a Struct': (gives(Pair(1)), {}, (200, {'a': 1, 'b': 1})),
    'dataclasses inside': (gives([Point(1, 2)]), {}, (200, [{'x': 1, 'y': 2}])),
    'tuple': (gives((1, 2)), {}, (200, [1, 2])),
    'large integer': (gives(2**70), {}, (200, 2**70)),
    'number keys': (gives({1: 'a'}), {}, (200, {'1': 'a'})),
    'no number': (gives([float('nan'), float('inf'), -float('inf')]), {}, (200, [None, None, None])),
    # the client's errors
    'missing': (add, {'a': 2}, (400, "Missing parameter 'b'")),
    'missing inside': (lambda ctx, q: int(q.a.b), {'a': {}}, (400, "Missing parameter 'a.b'")),
    'missing iterated': (lambda ctx, q: list(q.cells), {}, (400, "Missing parameter 'cells'")),
    'missing compared': (lambda ctx, q: q.a.n > 3, {'a': {}}, (400, "Missing parameter 'a.n'")),
    'missing sorted': (lambda ctx, q: min(3, q.n), {}, (400, "Missing parameter 'n'")),
    'missing to cast': (lambda ctx, q: q.get('a.n', cast=int), {'a': {}}, (400, "Missing parameter 'a.n'")),
    'missing returned': (lambda ctx, q: {'n': q.n}, {}, (400, "Missing parameter 'n'")),
    'missing awaited': (add_later, {'a': 2}, (400, "Missing parameter 'b'")),
    'missing elsewhere': (add_elsewhere, {'a': 2}, (400, "Missing parameter 'b'")),
    'not cast': (lambda ctx, q: q.get('n', cast=int), {'n': 'x'}, (400, "Parameter 'n' is not a valid int")),
    'Struct without field': (add_pair, {'b': 1}, (422, "Missing parameter 'a'")),
    'Struct of another kind': (add_pair, {'a': '2'}, (422, "Parameter 'a': expected `int`, got `str`")),
    'dataclass of another kind': (add_point, {'x': 1, 'y': None}, (422, "Parameter 'y': expected `float`, got `null`")),
    'TypedDict of another kind': (greet, {'name': 1}, (422, "Parameter 'name': expected `str`, got `int`")),
    # the handler's own errors
    'Error': (raises(ws.Error(404, 'No such cell')), {}, (404, 'No such cell')),
    'Error later': (raises_later(ws.Error(409, 'Taken')), {}, (409, 'Taken')),
    'Error elsewhere': (raises_elsewhere(ws.Error(507, 'Full')), {}, (507, 'Full')),
    'HTTPException': (raises(web.HTTPConflict(text='Taken')), {}, (409, 'Taken')),
    'HTTPException returned': (gives(web.HTTPGone()), {}, (410, 'Gone')),
    # what is nobody's business
    'failure': (raises(ValueError('secret')), {}, HIDDEN),
    'failure later': (raises_later(KeyError('secret')), {}, HIDDEN),
    'failure elsewhere': (raises_elsewhere(KeyError('secret')), {}, HIDDEN),
    'own conversion': (lambda ctx, q: int(q.n), {'n': 'abc'}, HIDDEN),
    'connection of its own': (raises(ConnectionRefusedError('secret')), {}, HIDDEN),
    'connection of its own later': (raises_later(ConnectionResetError('secret')), {}, HIDDEN),
    'timeout of its own': (raises_later(TimeoutError()), {}, HIDDEN),
    'CancelledError of its own': (raises_later(asyncio.CancelledError()), {}, HIDDEN),
    'CancelledError elsewhere': (raises_elsewhere(asyncio.CancelledError()), {}, HIDDEN),
    'StopIteration': (raises(StopIteration()), {}, HIDDEN),
    'StopIteration later': (raises_later(StopIteration()), {}, HIDDEN),
    'StopIteration elsewhere': (raises_elsewhere(StopIteration()), {}, HIDDEN),
    'SystemExit': (raises(SystemExit(1)), {}, HIDDEN),
    'SystemExit later': (raises_later(SystemExit(1)), {}, HIDDEN),
    'SystemExit elsewhere': (raises_elsewhere(SystemExit(1)), {}, HIDDEN),
    'not JSON': (gives(object()), {}, HIDDEN),
    'not JSON inside': (gives({'a': [threading.Lock()]}), {}, HIDDEN),
}


def over_http(wsa: ws.WebShoesApp, command: str, q: Any) -> Result:
    response = requests.post(f'{wsa.url}/{command}', json=q, timeout=TIMEOUT)
    kind = response.headers['Content-Type']
    if response.status_code >= 400:
        error = response.json()
        assert (kind, error['code'], set(error)) == ('application/json', response.status_code, {'error', 'code'})
        return error['code'], error['error']
    if kind == 'application/octet-stream':
        return 200, base64.b64encode(response.content).decode()
    return 200, response.json() if kind == 'application/json' else response.text


def over_websocket(wsa: ws.WebShoesApp, command: str, q: Any) -> Result:
    with connect(wsa.url.replace('http', 'ws', 1)) as connection:
        reply = Peer(connection).ask({'cmd': command, 'q': q, 'tid': 'x'})
    assert reply.pop('tid') == 'x'
    if 'error' in reply:
        assert set(reply) == {'error', 'code'}
        return reply['code'], reply['error']
    assert set(reply) == {'r', 't'}
    return 200, reply['r']


FACES = {'http': over_http, 'websocket': over_websocket}

face = pytest.mark.parametrize('face', FACES.values(), ids=FACES)
loop = pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])


@face
@loop
@pytest.mark.parametrize(('fn', 'q', 'expected'), CASES.values(), ids=CASES)
def test_case(serve: Serve, face: Face, loop: str, fn: Callable[..., Any], q: Any, expected: Result) -> None:
    """The same function with the same arguments gives the same result, the same sentence, the same code."""
    assert face(serve({'case': fn}, loop=loop), 'cmd/case', q) == expected


@face
@pytest.mark.parametrize(
    ('command', 'expected'),
    {
        'cmd/a': 'a',
        'cmd/a/b': 'a/b',
        'cmd/a/more': 'a',
        'cmd/thing/7': 'thing 7',
        'cmd/thing/new': 'thing/new',
        'cmd/files/x/y': 'files/*',
        'cmd/nothing': '*',
        'cmd': '*',
        'other/a': 'everywhere',
    }.items(),
)
def test_route(serve: Serve, face: Face, command: str, expected: str) -> None:
    """A path and a command lead to the same function."""
    fm: dict[str, Any] = {name: gives(name) for name in ('a', 'a/b', 'thing/new', 'files/*', '*')}
    wsa = serve({**fm, 'thing/{id}': lambda ctx, q: f'thing {q.id}'})
    wsa.register('*', 'cmd', 'q', 'evt', 'r', {'*': gives('everywhere')})
    assert face(wsa, command, {}) == (200, expected)


@face
@pytest.mark.parametrize('command', ['nothing', 'cmd/nothing', 'nothing/add', 'cmd', 'cmd/', 'cmd/*', '*', '*/add'])
def test_unknown(serve: Serve, face: Face, command: str) -> None:
    """What is not registered is not found, on whatever transport."""
    assert face(serve({'add': add}), command, {})[0] == 404


@face
def test_added_later(serve: Serve, face: Face) -> None:
    """A function added to the dict after it was registered is served."""
    fm: dict[str, Any] = {}
    wsa = serve(fm)
    fm['add'] = add
    assert face(wsa, 'cmd/add', {'a': 1, 'b': 2}) == (200, {'sum': 3})


@face
def test_replaced(serve: Serve, face: Face) -> None:
    """A later `register` of the same name replaces the entry, functions and all."""
    wsa = serve({'add': add, 'old': add})
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'add': gives('new')})
    assert (face(wsa, 'cmd/add', {}), face(wsa, 'cmd/old', {})[0]) == ((200, 'new'), 404)


@face
def test_unregistered(serve: Serve, face: Face) -> None:
    """An entry that was taken away is served no longer."""
    wsa = serve({'add': add})
    wsa.register('other', 'cmd', 'q', 'evt', 'r', {'add': add})
    wsa.unregister('cmd')
    assert (face(wsa, 'cmd/add', {})[0], face(wsa, 'other/add', {'a': 1, 'b': 2})[0]) == (404, 200)


@face
def test_what_the_context_tells(serve: Serve, face: Face) -> None:
    """A handler finds the app, its bag, the request, the peer's address and a fresh session, whoever calls."""

    def told(ctx: ws.Context, q: Bag) -> list[Any]:
        seen = bool(ctx.session.seen)
        ctx.session.seen = True
        return [ctx.wsa is wsa, ctx.opts.colour, ctx.req.headers['Host'], ctx.conn.remote, ctx.user, seen]

    wsa = serve({'told': told}, opts={'colour': 'red'})
    expected = [True, 'red', f'127.0.0.1:{wsa.port}', '127.0.0.1', None, False]
    assert [face(wsa, 'cmd/told', {}), face(wsa, 'cmd/told', {})] == [(200, expected)] * 2


@face
def test_what_the_handler_changes(serve: Serve, face: Face) -> None:
    """A handler may change and add parameters as it likes."""

    def change(ctx: ws.Context, q: Bag) -> Bag:
        q.n = q.n + 1
        q.a.b.c = 'deep'
        return q

    assert face(serve({'change': change}), 'cmd/change', {'n': 1}) == (200, {'n': 2, 'a': {'b': {'c': 'deep'}}})
