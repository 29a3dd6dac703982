"""HTTP: what reaches a handler, and what comes of its result (sections 2 and 3)."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pytest
import requests
from aiohttp import web
from propertybag import Bag

import webshoes as ws

from .conftest import TIMEOUT, Block, Clock, OpenPeer, Serve, echo, exchange

CRLF = b'\r\n'


class Size(msgspec.Struct):
    width: int
    unit: str = 'mm'
    tags: list[str] = []


@dataclass
class Shelf:
    width: int
    on: bool = False


class Cell(TypedDict):
    row: int
    weight: float


@ws.methods('POST')
def save(ctx: ws.Context, q: Bag) -> Any:
    return q


@ws.methods('PUT', 'POST')
def replace(ctx: ws.Context, q: Bag) -> Any:
    return q


def echo_size(ctx: ws.Context, q: Size) -> Size:
    return q


def echo_shelf(ctx: ws.Context, q: Shelf) -> Shelf:
    return q


def echo_cell(ctx: ws.Context, q: Cell) -> Cell:
    return q


def call(wsa: ws.WebShoesApp, method: str, path: str, **arguments: Any) -> requests.Response:
    return requests.request(method, wsa.url + path, timeout=TIMEOUT, allow_redirects=False, **arguments)


def answer(response: requests.Response) -> tuple[int, str]:
    """The code and the sentence of an error."""
    assert response.headers['Content-Type'] == 'application/json'
    assert response.json()['code'] == response.status_code
    return response.status_code, response.json()['error']


# --- arguments ---


@pytest.mark.parametrize(
    ('query', 'expected'),
    {
        '': {},
        'a=1': {'a': '1'},
        'a=1&a=2': {'a': '1'},
        'a=&b': {'a': '', 'b': ''},
        'a=x%20y+z': {'a': 'x y z'},
        'a=%E2%98%83': {'a': '☃'},
        'a=1%262': {'a': '1&2'},
        'a.b=1': {'a.b': '1'},
        '%ff=1': {'�': '1'},
    }.items(),
)
def test_query(serve: Serve, query: str, expected: dict[str, str]) -> None:
    """The query's parameters are decoded, and a repeated one gives its first value."""
    assert call(serve({'echo': echo}), 'GET', f'/cmd/echo?{query}').json() == expected


@pytest.mark.parametrize('method', ['POST', 'PUT', 'PATCH', 'DELETE'])
@pytest.mark.parametrize(
    'body',
    [{'data': {'a': ['1', '2'], 'b': 'ü'}}, {'files': [('a', (None, '1')), ('a', (None, '2')), ('b', (None, 'ü'))]}],
    ids=['form', 'multipart'],
)
def test_form(serve: Serve, method: str, body: dict[str, Any]) -> None:
    """A form's fields are parameters, and a repeated one gives its first value."""
    assert call(serve({'echo': echo}), method, '/cmd/echo', **body).json() == {'a': '1', 'b': 'ü'}


def test_form_in_its_charset(serve: Serve) -> None:
    """A form is decoded in the charset that it names."""
    kind = {'Content-Type': 'application/x-www-form-urlencoded; charset=latin-1'}
    assert call(serve({'echo': echo}), 'POST', '/cmd/echo', data=b'a=%FC', headers=kind).json() == {'a': 'ü'}


def post_form(wsa: ws.WebShoesApp, way: str, charset: str, value: bytes) -> requests.Response:
    """Send a form whose field `a` says that it is in a charset."""
    if way == 'form':
        kind, body = f'application/x-www-form-urlencoded; charset={charset}', b'a=' + value
    else:
        part = f'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: text/plain; charset={charset}'
        kind, body = 'multipart/form-data; boundary=x', part.encode() + CRLF * 2 + value + b'\r\n--x--\r\n'
    return call(wsa, 'POST', '/cmd/echo', data=body, headers={'Content-Type': kind})


@pytest.mark.parametrize('way', ['form', 'multipart'])
@pytest.mark.parametrize('charset', ['utf-8', 'UTF-8', 'latin-1', 'iso-8859-1', 'windows-1252'])
def test_charset(serve: Serve, way: str, charset: str) -> None:
    """A field is decoded in the charset that it names, if that is one of those that are sent."""
    assert post_form(serve({'echo': echo}), way, charset, 'ü'.encode(charset)).json() == {'a': 'ü'}


@pytest.mark.parametrize('way', ['form', 'multipart'])
@pytest.mark.parametrize('charset', ['punycode', 'utf-7', 'cp500'])
def test_charset_that_nobody_sends(serve: Serve, caplog: pytest.LogCaptureFixture, way: str, charset: str) -> None:
    """A field in a charset that nobody sends is refused and not decoded, which can take minutes."""
    code, sentence = answer(post_form(serve({'echo': echo}), way, charset, b'a' * 500_000 + b'-99'))
    assert (code, f"charset '{charset}'" in sentence, caplog.records) == (400, True, [])


@pytest.mark.parametrize('method', ['POST', 'PUT', 'GET'])
@pytest.mark.parametrize('kind', ['application/json', 'application/json; charset=utf-8', 'application/ld+json'])
def test_json_body(serve: Serve, method: str, kind: str) -> None:
    """A JSON object's members are parameters, with their types."""
    value = {'a': [1, None], 'b': {'c': 'ü'}}
    body = {'data': json.dumps(value), 'headers': {'Content-Type': kind}}
    assert call(serve({'echo': echo}), method, '/cmd/echo', **body).json() == value


@pytest.mark.parametrize('body', [b'', b'null', b'{}', b' { } '])
def test_json_body_of_nothing(serve: Serve, body: bytes) -> None:
    """A JSON body that says nothing leaves the query's parameters."""
    kind = {'Content-Type': 'application/json'}
    assert call(serve({'echo': echo}), 'POST', '/cmd/echo?a=1', data=body, headers=kind).json() == {'a': '1'}


@pytest.mark.parametrize(
    ('body', 'expected'),
    [({'json': {'a': 2}}, 2), ({'data': {'a': '2'}}, '2'), ({'files': {'a': (None, '2')}}, '2')],
    ids=['JSON', 'form', 'multipart'],
)
def test_body_wins(serve: Serve, body: dict[str, Any], expected: Any) -> None:
    """Query and body are merged, and the body wins."""
    response = call(serve({'echo': echo}), 'POST', '/cmd/echo?a=1&b=3', **body)
    assert response.json() == {'a': expected, 'b': '3'}


def test_path_wins(serve: Serve) -> None:
    """A parameter in the path wins over one of its name beside it."""
    response = call(serve({'thing/{id}': echo}), 'POST', '/cmd/thing/a%20b?id=1', json={'id': 2})
    assert response.json() == {'id': 'a b'}


def test_file(serve: Serve) -> None:
    """A file part arrives with its name, its type and a file to read."""

    def save(ctx: ws.Context, q: Bag) -> list[Any]:
        return [q.note, q.up.filename, q.up.content_type, q.up.file.read().decode()]

    files = {'up': ('my notes.txt', b'some text', 'text/x-notes'), 'note': (None, 'hello')}
    response = call(serve({'save': save}), 'POST', '/cmd/save', files=files)
    assert response.json() == ['hello', 'my notes.txt', 'text/x-notes', 'some text']


def test_file_read_in_a_thread(serve: Serve) -> None:
    """A large file can still be read by a handler that runs in a thread."""

    @ws.threaded
    def measure(ctx: ws.Context, q: Bag) -> int:
        return len(q.up.file.read())

    size = 3 * 1024 * 1024
    assert call(serve({'measure': measure}), 'POST', '/cmd/measure', files={'up': bytes(size)}).json() == size


def test_other_content(serve: Serve) -> None:
    """A body of another type is left to the handler."""

    async def size(ctx: ws.Context, q: Bag) -> Any:
        return {'q': q, 'read': len(await ctx.req.read())}

    kind = {'Content-Type': 'image/png'}
    response = call(serve({'size': size}), 'POST', '/cmd/size?a=1', data=b'12345', headers=kind)
    assert response.json() == {'q': {'a': '1'}, 'read': 5}


def test_compressed_body(serve: Serve) -> None:
    """A body that says that it is compressed is read as what it was."""
    headers = {'Content-Type': 'application/json', 'Content-Encoding': 'gzip'}
    response = call(serve({'echo': echo}), 'POST', '/cmd/echo', data=gzip.compress(b'{"a": 1}'), headers=headers)
    assert response.json() == {'a': 1}


def test_path_of_the_context(serve: Serve) -> None:
    """`ctx.p` is the decoded path without query, `ctx.method` the method, and there is no WebSocket."""

    def told(ctx: ws.Context, q: Bag) -> list[Any]:
        return [ctx.p, ctx.method, ctx.ws, ctx.tid]

    response = call(serve({'told': told}), 'PUT', '/cmd/told/a%20b/%E2%98%83?x=1')
    assert response.json() == ['/cmd/told/a b/☃', 'PUT', None, None]


# --- typed arguments ---


@pytest.mark.parametrize(
    ('path', 'expected'),
    {
        'size?width=3': {'width': 3, 'unit': 'mm', 'tags': []},
        'size?width=3&unit=4': {'width': 3, 'unit': '4', 'tags': []},
        'size?width=3&tags=a&tags=b': {'width': 3, 'unit': 'mm', 'tags': ['a', 'b']},
        'size?width=3&tags=a': {'width': 3, 'unit': 'mm', 'tags': ['a']},
        'size?width=3&unknown=1': {'width': 3, 'unit': 'mm', 'tags': []},
        'shelf?width=-3&on=true': {'width': -3, 'on': True},
        'shelf?width=3&on=0': {'width': 3, 'on': False},
        'cell?row=1&weight=2.5': {'row': 1, 'weight': 2.5},
    }.items(),
)
def test_typed_query(serve: Serve, path: str, expected: dict[str, Any]) -> None:
    """Text of a query becomes what the handler's type asks for."""
    wsa = serve({'size': echo_size, 'shelf': echo_shelf, 'cell': echo_cell})
    assert call(wsa, 'GET', f'/cmd/{path}').json() == expected


def test_typed_form(serve: Serve) -> None:
    """Text of a form becomes what the handler's type asks for."""
    response = call(serve({'size': echo_size}), 'POST', '/cmd/size', data={'width': '3', 'tags': ['a', 'b']})
    assert response.json() == {'width': 3, 'unit': 'mm', 'tags': ['a', 'b']}


def test_typed_query_beside_json(serve: Serve) -> None:
    """Beside a JSON body, the query's text is still converted."""
    response = call(serve({'size': echo_size}), 'POST', '/cmd/size?width=3&tags=a', json={'unit': 'km'})
    assert response.json() == {'width': 3, 'unit': 'km', 'tags': ['a']}


@pytest.mark.parametrize(
    ('path', 'body', 'field'),
    [
        ('size', {'width': '3'}, 'width'),
        ('size', {'width': 3, 'tags': [1]}, 'tags'),
        ('size?unit=km', {'width': '3'}, 'width'),
        ('size?width=1', {'width': '3'}, 'width'),
        ('size', {}, 'width'),
        ('size?width=abc', None, 'width'),
        ('size?width=abc', {'unit': 'km'}, 'width'),
        ('size?width=', None, 'width'),
        ('size', None, 'width'),
        ('shelf', {'width': 3, 'on': 'true'}, 'on'),
        ('shelf?width=3&on=maybe', None, 'on'),
        ('shelf?on=1', None, 'width'),
        ('cell?row=1.5&weight=1', None, 'row'),
        ('cell', {'row': 1}, 'weight'),
    ],
)
def test_typed_argument_that_does_not_fit(serve: Serve, path: str, body: Any, field: str) -> None:
    """What does not validate is 422, and the sentence names the field; JSON is not converted."""
    wsa = serve({'size': echo_size, 'shelf': echo_shelf, 'cell': echo_cell})
    code, sentence = answer(call(wsa, 'POST', f'/cmd/{path}', json=body))
    assert (code, field in sentence) == (422, True)


# --- results ---


@dataclass
class Sample:
    result: Any
    kind: str
    body: bytes


RESULTS = {
    'dict': Sample({'a': 1}, 'application/json', b'{"a":1}'),
    'None': Sample(None, 'application/json', b'null'),
    'bool': Sample(True, 'application/json', b'true'),
    'Bag': Sample(Bag({'a': {'b': 1}}), 'application/json', b'{"a":{"b":1}}'),
    'dataclass': Sample(Shelf(1), 'application/json', b'{"width":1,"on":false}'),
    'Struct': Sample(Size(1), 'application/json', b'{"width":1,"unit":"mm","tags":[]}'),
    'str': Sample('ü', 'text/plain; charset=utf-8', 'ü'.encode()),
    'bytes': Sample(b'\0\xff', 'application/octet-stream', b'\0\xff'),
    'memoryview': Sample(memoryview(b'\0\xff'), 'application/octet-stream', b'\0\xff'),
}


@pytest.mark.parametrize('sample', RESULTS.values(), ids=RESULTS)
@pytest.mark.parametrize('method', ['GET', 'POST'])
def test_result(serve: Serve, method: str, sample: Sample) -> None:
    """Each kind of result is sent as its type, never to be guessed at by a browser."""
    response = call(serve({'give': lambda ctx, q: sample.result}), method, '/cmd/give')
    assert (response.status_code, response.content) == (200, sample.body)
    assert response.headers['Content-Type'] == sample.kind
    assert response.headers['X-Content-Type-Options'] == 'nosniff'


@pytest.mark.parametrize('sample', RESULTS.values(), ids=RESULTS)
def test_head(serve: Serve, sample: Sample) -> None:
    """HEAD has the headers of GET and no body."""
    request = b'HEAD /cmd/give HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
    head, _, body = exchange(serve({'give': lambda ctx, q: sample.result}), request).partition(CRLF * 2)
    assert body == b''
    assert b'Content-Length: %d\r\n' % len(sample.body) in head + CRLF
    assert sample.kind.encode() in head


@pytest.mark.parametrize('method', ['GET', 'POST'])
def test_path(serve: Serve, tmp_path: Path, method: str) -> None:
    """A `Path` sends the file, with its type and an ETag, whatever the method."""
    (tmp_path / 'a.csv').write_text('1,2')
    response = call(serve({'give': lambda ctx, q: tmp_path / 'a.csv'}), method, '/cmd/give')
    assert (response.status_code, response.text) == (200, '1,2')
    assert response.headers['Content-Type'] == 'text/csv; charset=utf-8'
    assert 'ETag' in response.headers


def test_part_of_a_path(serve: Serve, tmp_path: Path) -> None:
    """A range of a `Path` is sent as 206."""
    (tmp_path / 'a.txt').write_text('0123456789')
    wsa = serve({'give': lambda ctx, q: tmp_path / 'a.txt'})
    response = call(wsa, 'GET', '/cmd/give', headers={'Range': 'bytes=2-4'})
    assert (response.status_code, response.text, response.headers['Content-Range']) == (206, '234', 'bytes 2-4/10')


@pytest.mark.parametrize('name', ['nothing.txt', '.', 'nothing/a.txt'])
def test_path_of_no_file(serve: Serve, tmp_path: Path, name: str) -> None:
    """A `Path` that is no file is 404, its name untold."""
    assert answer(call(serve({'give': lambda ctx, q: tmp_path / name}), 'GET', '/cmd/give')) == (404, 'Not found')


def test_response(serve: Serve) -> None:
    """An aiohttp response is sent as it is."""

    def give(ctx: ws.Context, q: Bag) -> web.Response:
        response = web.Response(status=201, body=b'<p>', content_type='text/html', headers={'X-A': 'b'})
        response.set_cookie('seen', 'yes')
        return response

    response = call(serve({'give': give}), 'GET', '/cmd/give')
    assert (response.status_code, response.text, response.headers['X-A']) == (201, '<p>', 'b')
    assert response.cookies['seen'] == 'yes'


def test_streamed_response(serve: Serve) -> None:
    """A handler may stream an aiohttp response of its own."""

    async def give(ctx: ws.Context, q: Bag) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(ctx.req)
        for part in (b'one ', b'two'):
            await response.write(part)
        return response

    assert call(serve({'give': give}), 'GET', '/cmd/give').text == 'one two'


# --- errors and redirects ---


@pytest.mark.parametrize('raised', [True, False])
@pytest.mark.parametrize('kind', [web.HTTPFound, web.HTTPSeeOther, web.HTTPPermanentRedirect])
def test_redirect(serve: Serve, kind: type[web.HTTPRedirection], raised: bool) -> None:
    """A redirect is one, raised or returned."""

    def go(ctx: ws.Context, q: Bag) -> Any:
        redirect = kind('/elsewhere?a=b%26c')  # type: ignore[arg-type,call-arg,unused-ignore]
        if raised:
            raise redirect
        return redirect

    response = call(serve({'go': go}), 'GET', '/cmd/go')
    assert (response.status_code, response.headers['Location']) == (kind.status_code, '/elsewhere?a=b%26c')


def test_http_exception(serve: Serve) -> None:
    """An `HTTPException` keeps its status, its sentence and its headers, and has the shape of every error."""

    def refuse(ctx: ws.Context, q: Bag) -> Any:
        raise web.HTTPUnauthorized(text='Who are you?', headers={'WWW-Authenticate': 'Basic', 'X-A': 'b'})

    response = call(serve({'refuse': refuse}), 'GET', '/cmd/refuse')
    assert answer(response) == (401, 'Who are you?')
    assert (response.headers['WWW-Authenticate'], response.headers['X-A']) == ('Basic', 'b')


def test_headers_that_are_repeated(serve: Serve) -> None:
    """An `HTTPException` keeps all values of a header that it has more than once."""

    def refuse(ctx: ws.Context, q: Bag) -> Any:
        raise web.HTTPUnauthorized(headers=[('WWW-Authenticate', 'Basic'), ('WWW-Authenticate', 'Bearer')])

    assert call(serve({'refuse': refuse}), 'GET', '/cmd/refuse').headers['WWW-Authenticate'] == 'Basic, Bearer'


def test_method(serve: Serve) -> None:
    """A method that the handler does not take is 405, and `Allow` tells which it does."""
    wsa = serve({'save': replace})
    response = call(wsa, 'GET', '/cmd/save')
    assert answer(response) == (405, 'Method GET is not taken here, only POST, PUT')
    assert response.headers['Allow'] == 'POST, PUT'
    assert call(wsa, 'PUT', '/cmd/save').status_code == 200


def test_method_that_is_not_asked_for(serve: Serve) -> None:
    """A handler is not run by a method that it does not take."""
    calls: list[str] = []
    wsa = serve({'save': ws.methods('POST')(lambda ctx, q: calls.append(ctx.method))})
    for method in ('GET', 'HEAD', 'DELETE', 'OPTIONS', 'POST'):
        call(wsa, method, '/cmd/save')
    assert calls == ['POST']


def test_method_of_the_handlers_own(serve: Serve) -> None:
    """`Allow` of a 405 that the handler itself raises is the handler's."""

    def refuse(ctx: ws.Context, q: Bag) -> Any:
        raise web.HTTPMethodNotAllowed(ctx.method, ['PUT', 'PATCH'])

    assert call(serve({'refuse': refuse}), 'POST', '/cmd/refuse').headers['Allow'] == 'PATCH,PUT'


@pytest.mark.parametrize(
    ('name', 'allow'),
    {'echo': 'DELETE, GET, HEAD, PATCH, POST, PUT', 'save': 'POST', 'replace': 'POST, PUT'}.items(),
)
def test_options(serve: Serve, name: str, allow: str) -> None:
    """OPTIONS is answered by the methods that a handler takes (RFC 9110 section 9.3.7)."""
    response = call(serve({'echo': echo, 'save': save, 'replace': replace}), 'OPTIONS', f'/cmd/{name}')
    assert (response.status_code, response.content, response.headers['Allow']) == (204, b'', allow)


def test_trace(serve: Serve) -> None:
    """TRACE is 405, whatever the handler."""
    response = call(serve({'echo': echo}), 'TRACE', '/cmd/echo')
    assert (answer(response)[0], 'TRACE' in response.headers['Allow']) == (405, False)


def test_methods_of_http_itself_run_nothing(serve: Serve) -> None:
    """A handler that names no methods is run neither by OPTIONS nor by TRACE."""
    calls: list[str] = []
    wsa = serve({'count': lambda ctx, q: calls.append(ctx.method)})
    for method in ('OPTIONS', 'TRACE', 'PURGE'):
        call(wsa, method, '/cmd/count')
    assert calls == ['PURGE']


def test_options_of_the_handlers_own(serve: Serve) -> None:
    """A handler that names OPTIONS answers it."""
    wsa = serve({'own': ws.methods('OPTIONS')(lambda ctx, q: ctx.method)})
    assert call(wsa, 'OPTIONS', '/cmd/own').text == 'OPTIONS'


KINDS = {
    'JSON': 'application/json',
    'form': 'application/x-www-form-urlencoded',
    'multipart': 'multipart/form-data; boundary=x',
}


@pytest.mark.parametrize(
    ('kind', 'body'),
    [
        ('application/json', b'{"a": '),
        ('application/json', b'{"a": NaN}'),
        ('application/json', b"{'a': 1}"),
        ('application/json', b'[1]'),
        ('application/json', b'"a"'),
        ('application/json', b'1'),
        ('application/json', b'{"a": "\xff"}'),
        ('application/json', b'[' * 100_000),
        ('application/json; charset=utf-16', '{"a": 1}'.encode('utf-16')),
        ('application/x-www-form-urlencoded', b'a=\xff'),
        ('application/x-www-form-urlencoded; charset=nothing', b'a=1'),
        ('application/x-www-form-urlencoded; charset=nothing', b'a=%FC'),
        ('multipart/form-data', b'--x\r\n'),
        ('multipart/form-data; boundary=x', b'no boundary'),
        ('multipart/form-data; boundary=x', b'--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n'),
        ('multipart/form-data; boundary=x', b'--x\r\nno header\r\n\r\n1\r\n--x--\r\n'),
        ('multipart/form-data; boundary=x', b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1'),
        (
            'multipart/form-data; boundary=x',
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--\r\n',
        ),
        (
            'multipart/form-data; boundary=x',
            b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: text/plain; charset=nothing\r\n\r\n1'
            b'\r\n--x--\r\n',
        ),
        (
            'multipart/form-data; boundary=x',
            b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: foo\r\n\r\n1\r\n--x--\r\n',
        ),
    ],
)
def test_body_that_cannot_be_read(serve: Serve, caplog: pytest.LogCaptureFixture, kind: str, body: bytes) -> None:
    """A body that is not what it says is 400, is no news for the log, and the next request is answered."""
    wsa = serve({'echo': echo})
    assert answer(call(wsa, 'POST', '/cmd/echo', data=body, headers={'Content-Type': kind}))[0] == 400
    assert caplog.records == []
    assert call(wsa, 'GET', '/cmd/echo?a=1').json() == {'a': '1'}


def test_body_that_is_not_compressed(serve: Serve) -> None:
    """A body that is not compressed as it says is 400, in one line."""
    headers = {'Content-Type': 'application/json', 'Content-Encoding': 'gzip'}
    code, sentence = answer(call(serve({'echo': echo}), 'POST', '/cmd/echo', data=b'{"a": 1}', headers=headers))
    assert (code, len(sentence.splitlines())) == (400, 1)


def test_unread_body_that_is_not_compressed(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody reads such a body, it is nobody's failure either: nothing is logged."""
    wsa = serve()
    with socket.create_connection(('127.0.0.1', wsa.port), timeout=TIMEOUT) as connection:
        connection.sendall(b'POST /cmd/none HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 5')
        connection.sendall(CRLF * 2)
        assert connection.recv(65536).startswith(b'HTTP/1.1 404')
        connection.sendall(b'plain')
        while connection.recv(65536):
            pass
    assert caplog.records == []


@pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)
def test_large_body(serve: Serve, kind: str) -> None:
    """A body over the limit is 413, whatever it is."""
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' if 'multipart' in kind else b'"a='
    wsa = serve({'echo': echo}, limits=ws.Limits(max_body_size=1000))
    assert answer(call(wsa, 'POST', '/cmd/echo', data=part + b'1' * 1000, headers={'Content-Type': kind}))[0] == 413


def test_large_body_when_it_is_unpacked(serve: Serve) -> None:
    """A small body that unpacks to one over the limit is 413."""
    wsa = serve({'echo': echo}, limits=ws.Limits(max_body_size=1000))
    headers = {'Content-Type': 'application/json', 'Content-Encoding': 'gzip'}
    assert answer(call(wsa, 'POST', '/cmd/echo', data=gzip.compress(b' ' * 100_000), headers=headers))[0] == 413


def test_large_body_of_the_handlers_own_reading(serve: Serve) -> None:
    """The limit also holds where the handler reads the body itself."""

    async def read(ctx: ws.Context, q: Bag) -> int:
        return len(await ctx.req.read())

    wsa = serve({'read': read}, limits=ws.Limits(max_body_size=1000))
    assert answer(call(wsa, 'POST', '/cmd/read', data=b'1' * 1001))[0] == 413


def test_body_of_the_largest_size(serve: Serve) -> None:
    """A body of just the limit is taken."""
    body = b'{"a":"%b"}' % (b'1' * 992)
    wsa = serve({'echo': echo}, limits=ws.Limits(max_body_size=len(body)))
    assert call(wsa, 'POST', '/cmd/echo', data=body, headers={'Content-Type': 'application/json'}).content == body


@pytest.mark.parametrize('count', [10, 11])
@pytest.mark.parametrize('way', ['query', 'form', 'multipart'])
def test_fields(serve: Serve, way: str, count: int) -> None:
    """So many fields are taken, and one more is 413."""
    fields = [('a', str(n)) for n in range(count)]
    arguments: dict[str, dict[str, Any]] = {
        'query': {'params': fields},
        'form': {'data': fields},
        'multipart': {'files': [(name, (None, value)) for name, value in fields]},
    }
    wsa = serve({'echo': echo}, limits=ws.Limits(max_fields=10))
    assert call(wsa, 'POST', '/cmd/echo', **arguments[way]).status_code == (200 if count == 10 else 413)


@pytest.mark.parametrize('way', ['params', 'data'])
def test_no_limits(serve: Serve, way: str) -> None:
    """Without limits everything is taken."""
    wsa = serve({'echo': echo}, limits=ws.Limits(max_fields=None, max_body_size=None))
    arguments: dict[str, Any] = {way: [('n', '1')] * 1200}
    assert call(wsa, 'POST', '/cmd/echo', **arguments).json() == {'n': '1'}


def test_large_text_that_has_ampersands(serve: Serve) -> None:
    """An ampersand inside a value makes no field."""
    wsa = serve({'echo': echo}, limits=ws.Limits(max_fields=10))
    assert call(wsa, 'GET', '/cmd/echo', params={'a': '&' * 20}).json() == {'a': '&' * 20}


# --- failures, and what is logged ---


def fail(ctx: ws.Context, q: Bag) -> Any:
    password = 'hunter2'
    raise ValueError(f'the password is {password}')


@pytest.mark.parametrize('accept', ['*/*', 'text/html', 'application/json'])
def test_failure_hides_everything(serve: Serve, accept: str) -> None:
    """A failure tells its client no more than that it is one."""
    response = call(serve({'fail': fail}), 'GET', '/cmd/fail', headers={'Accept': accept})
    assert (response.status_code, response.content) == (500, b'{"error":"Server error","code":500}')


def test_failure_is_logged_once(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The same failure is logged once a minute, with its traceback, whatever the transport."""
    wsa = serve({'fail': fail})
    for _ in range(5):
        call(wsa, 'GET', '/cmd/fail')
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ('webshoes', logging.ERROR, "'cmd/fail' failed")
    assert record.exc_info is not None
    assert 'hunter2' in str(record.exc_info[1])


def test_each_failure_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Failures at two places in a handler are two lines of the log."""

    def fail_somewhere(ctx: ws.Context, q: Bag) -> Any:
        if q.n == '1':
            raise ValueError('one')
        raise ValueError('two')

    wsa = serve({'fail': fail_somewhere})
    for n in '1212':
        call(wsa, 'GET', f'/cmd/fail?n={n}')
    assert len(caplog.records) == 2


def test_client_errors_are_not_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """What is the client's fault is no news for the log."""
    wsa = serve({'need': lambda ctx, q: int(q.n), 'size': echo_size, 'save': save})
    codes = [call(wsa, 'GET', path).status_code for path in ('/cmd/need', '/cmd/size', '/cmd/save', '/nothing')]
    assert (codes, caplog.records) == ([400, 422, 405, 404], [])


@pytest.mark.parametrize('is_async', [True, False])
def test_slow_handler(serve: Serve, clock: Clock, caplog: pytest.LogCaptureFixture, is_async: bool) -> None:
    """A handler that blocks the loop is named in a warning, which tells the way out."""

    def block(ctx: ws.Context, q: Bag) -> None:
        clock.go_on(0.02)

    async def block_later(ctx: ws.Context, q: Bag) -> None:
        await asyncio.sleep(0)
        block(ctx, q)

    wsa = serve({'block': block_later if is_async else block}, limits=ws.Limits(slow_handler=0.01))
    call(wsa, 'GET', '/cmd/block')
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("'cmd/block' blocked the loop for 0.02 seconds")
    assert '@ws.threaded' in record.getMessage()


def test_patient_handler(serve: Serve, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that only waits, or works in a thread, blocks nobody and is not named."""

    async def wait(ctx: ws.Context, q: Bag) -> None:
        asyncio.get_running_loop().call_soon(clock.go_on, 0.05)
        await asyncio.sleep(0)

    wsa = serve(
        {'wait': wait, 'work': ws.threaded(lambda ctx, q: clock.go_on(0.05))},
        limits=ws.Limits(slow_handler=0.04),
    )
    assert [call(wsa, 'GET', f'/cmd/{name}').json() for name in ('wait', 'work')] == [None, None]
    assert clock.now == 0.1
    assert caplog.records == []


# --- connections ---


def test_threaded_runs_elsewhere(serve: Serve) -> None:
    """A `@threaded` handler runs on a thread that is not the loop's."""

    def where(ctx: ws.Context, q: Bag) -> int:
        return threading.get_ident()

    wsa = serve({'here': where, 'there': ws.threaded(lambda ctx, q: where(ctx, q))})
    here, there = (call(wsa, 'GET', f'/cmd/{name}').json() for name in ('here', 'there'))
    assert len({here, there, threading.get_ident()}) == 3


def test_threaded_blocks_nobody(serve: Serve, block: Block) -> None:
    """While a `@threaded` handler blocks, others are served, over HTTP and over WebSocket."""
    wsa = serve({'block': block.threaded, 'echo': echo})
    with ThreadPoolExecutor() as pool:
        blocked = pool.submit(call, wsa, 'GET', '/cmd/block')
        assert block.entered.wait(TIMEOUT)
        assert call(wsa, 'GET', '/cmd/echo?a=1').json() == {'a': '1'}
        assert not blocked.done()
        block.let_go.set()
        assert blocked.result().text == 'done'


def test_threaded_handlers_run_side_by_side(serve: Serve) -> None:
    """As many `@threaded` handlers as there may be threads run at once."""
    barrier = threading.Barrier(8)
    meet = ws.threaded(lambda ctx, q: barrier.wait(TIMEOUT))
    wsa = serve({'meet': meet}, limits=ws.Limits(max_threads=8))
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: call(wsa, 'GET', '/cmd/meet').json(), range(8))
        assert sorted(answers) == list(range(8))


def test_requests_side_by_side(serve: Serve) -> None:
    """Async handlers of many requests wait at the same time."""
    waiting: list[asyncio.Future[None]] = []

    async def meet(ctx: ws.Context, q: Bag) -> Any:
        waiting.append(asyncio.get_running_loop().create_future())
        if len(waiting) == 20:
            for future in waiting:
                future.set_result(None)
        await waiting[-1]
        return int(q.n)

    wsa = serve({'meet': meet})
    with ThreadPoolExecutor(20) as pool:
        answers = pool.map(lambda n: call(wsa, 'GET', f'/cmd/meet?n={n}').json(), range(20))
        assert list(answers) == list(range(20))


@pytest.mark.parametrize('path', ['/cmd/echo', '/nothing', '/cmd/fail', '/cmd/save', '/webshoes.js'])
def test_keep_alive(serve: Serve, path: str) -> None:
    """A connection is kept for the next request, after an error too."""
    wsa = serve({'echo': echo, 'fail': fail, 'save': save, 'port': port_of_the_peer})
    with requests.Session() as session:
        ports = set()
        for _ in range(3):
            session.get(wsa.url + path, timeout=TIMEOUT)
            ports.add(session.get(f'{wsa.url}/cmd/port', timeout=TIMEOUT).json())
    assert len(ports) == 1


def port_of_the_peer(ctx: ws.Context, q: Bag) -> int:
    return int(ctx.req.transport.get_extra_info('peername')[1])


def test_keep_alive_after_a_bad_body(serve: Serve) -> None:
    """A connection is kept after a body that could not be read."""
    wsa = serve({'echo': echo, 'port': port_of_the_peer})
    with requests.Session() as session:
        before = session.get(f'{wsa.url}/cmd/port', timeout=TIMEOUT).json()
        session.post(f'{wsa.url}/cmd/echo', data='{', headers={'Content-Type': 'application/json'}, timeout=TIMEOUT)
        assert session.get(f'{wsa.url}/cmd/port', timeout=TIMEOUT).json() == before


def test_session_of_a_request(serve: Serve) -> None:
    """Requests on one connection do not share a session, for a proxy shares connections among users."""

    def seen(ctx: ws.Context, q: Bag) -> bool:
        before, ctx.session.seen = bool(ctx.session.seen), True
        return before

    wsa = serve({'seen': seen})
    with requests.Session() as session:
        assert [session.get(f'{wsa.url}/cmd/seen', timeout=TIMEOUT).json() for _ in range(2)] == [False, False]


def test_pipelined_requests(serve: Serve) -> None:
    """Requests sent in one go are answered in their order."""
    one = b'GET /cmd/echo?n=%d HTTP/1.1\r\nHost: localhost\r\n%b\r\n'
    received = exchange(serve({'echo': echo}), one % (1, b'') + one % (2, b'Connection: close\r\n'))
    assert 0 < received.find(b'{"n":"1"}') < received.find(b'{"n":"2"}')


def test_expect_continue(serve: Serve) -> None:
    """A client that asks whether to send its body is told to go on (RFC 9110 section 10.1.1)."""
    head = b'POST /cmd/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 7\r\n'
    with socket.create_connection(('127.0.0.1', serve({'echo': echo}).port), timeout=TIMEOUT) as connection:
        connection.sendall(head + b'Expect: 100-continue\r\nConnection: close\r\n\r\n')
        assert connection.recv(1000) == b'HTTP/1.1 100 Continue\r\n\r\n'
        connection.sendall(b'{"a":1}')
        received = b''.join(iter(lambda: connection.recv(1000), b''))
    assert received.startswith(b'HTTP/1.1 200 OK\r\n')
    assert received.endswith(b'{"a":1}')


def test_client_that_leaves_while_it_sends(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes away in the middle of its body is no news for the log."""
    entered = threading.Event()

    async def read(ctx: ws.Context, q: Bag) -> None:
        entered.set()
        await ctx.req.read()

    wsa = serve({'read': read})
    with socket.create_connection(('127.0.0.1', wsa.port)) as connection:
        connection.sendall(b'POST /cmd/read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{')
        assert entered.wait(TIMEOUT)
    wsa.stop()
    assert caplog.records == []


def test_client_that_leaves_while_it_waits(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes away before its answer neither stops the handler nor the server."""
    entered, gate, done = threading.Event(), threading.Event(), threading.Event()

    @ws.threaded
    def work(ctx: ws.Context, q: Bag) -> None:
        entered.set()
        gate.wait(TIMEOUT)
        done.set()

    wsa = serve({'work': work, 'echo': echo})
    with socket.create_connection(('127.0.0.1', wsa.port)) as connection:
        connection.sendall(b'GET /cmd/work HTTP/1.1\r\nHost: localhost\r\n\r\n')
        assert entered.wait(TIMEOUT)
    gate.set()
    assert done.wait(TIMEOUT)
    assert call(wsa, 'GET', '/cmd/echo?a=1').json() == {'a': '1'}
    assert caplog.records == []


def test_close_of_the_connection(serve: Serve) -> None:
    """`ctx.conn.close()` ends an HTTP connection that would have been kept."""
    wsa = serve({'bye': lambda ctx, q: ctx.conn.close()})
    assert exchange(wsa, b'GET /cmd/bye HTTP/1.1\r\nHost: localhost\r\n\r\n').count(b'HTTP/1.1') <= 1


def test_stopping(serve: Serve, open_peer: OpenPeer, block: Block) -> None:
    """While a handler has its grace period, a new request on a connection that is open is 503."""
    wsa = serve({'block': block.threaded, 'echo': echo})
    peer = open_peer(wsa)
    with requests.Session() as session, ThreadPoolExecutor() as pool:
        session.get(f'{wsa.url}/cmd/echo', timeout=TIMEOUT)
        url, blocked = wsa.url, pool.submit(call, wsa, 'GET', '/cmd/block')
        assert block.entered.wait(TIMEOUT)
        stopping = pool.submit(wsa.stop)
        while 'error' not in peer.ask({'cmd': 'cmd/echo'}):
            pass
        assert answer(session.get(f'{url}/cmd/echo', timeout=TIMEOUT)) == (503, 'The server is stopping')
        block.let_go.set()
        assert blocked.result().text == 'done'
        stopping.result()


@pytest.mark.parametrize(
    'line',
    [b'OPTIONS * HTTP/1.1', b'CONNECT x:443 HTTP/1.1', b'GET /cmd/%00 HTTP/1.1'],
)
def test_odd_request(serve: Serve, line: bytes) -> None:
    """A request that leads nowhere is 404 in the shape of every error, however odd."""
    received = exchange(serve(), line + b'\r\nHost: localhost\r\nConnection: close\r\n\r\n')
    assert received.startswith(b'HTTP/1.1 404 ')
    assert received.endswith(b'\r\n\r\n{"error":"Not found","code":404}')


def test_absolute_form(serve: Serve) -> None:
    """A request target with scheme and host is taken (RFC 9112 section 3.2.2)."""
    request = b'GET http://x/cmd/echo?a=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
    assert exchange(serve({'echo': echo}), request).endswith(b'{"a":"1"}')


# --- what aiohttp would answer by itself ---


@pytest.mark.parametrize(
    ('request_bytes', 'status', 'error'),
    [
        (b'rubbish\r\n\r\n', 400, 'Not an HTTP request'),
        (b'GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n', 400, 'Not an HTTP request'),
        (
            b'GET /cmd HTTP/1.1\r\nHost: localhost\r\nX: ' + b'y' * 9000 + b'\r\n\r\n',
            431,
            'The path with its query, or a header, is longer than 8190 bytes',
        ),
        (
            b'GET /' + b'y' * 9000 + b' HTTP/1.1\r\nHost: localhost\r\n\r\n',
            431,
            'The path with its query, or a header, is longer than 8190 bytes',
        ),
    ],
)
def test_bytes_that_are_no_request(
    serve: Serve, caplog: pytest.LogCaptureFixture, request_bytes: bytes, status: int, error: str
) -> None:
    """Bytes that are no HTTP request get our error, without an echo of them and without a line in the log."""
    wsa = serve({'echo': echo})
    head, _, body = exchange(wsa, request_bytes).partition(b'\r\n\r\n')
    assert head.split()[1] == str(status).encode()
    assert error in json.loads(body)['error']
    assert b'yyy' not in body
    assert caplog.records == []
    assert call(wsa, 'GET', '/cmd/echo?a=1').json() == {'a': '1'}


def go(ctx: ws.Context, q: Bag) -> None:
    raise web.HTTPFound('/elsewhere')


@pytest.mark.parametrize('path', ['/cmd/echo', '/cmd/fail', '/nowhere', '/webshoes.js', '/cmd/own', '/cmd/go'])
def test_the_server_header_tells_nothing(serve: Serve, path: str) -> None:
    """No response tells the versions of what is inside."""
    fm = {'echo': echo, 'fail': lambda ctx, q: 1 / 0, 'own': lambda ctx, q: web.Response(text='own'), 'go': go}
    wsa = serve(fm)
    assert call(wsa, 'GET', path).headers['Server'] == 'webshoes'


# --- clients that leave, calls that stay ---


def test_client_that_leaves_in_the_middle_of_a_body(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A body that breaks off with its connection is nobody's failure: nothing is logged, others are served."""
    wsa = serve({'echo': echo})
    head = b'POST /cmd/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: '
    with socket.create_connection(('127.0.0.1', wsa.port), timeout=TIMEOUT) as connection:
        connection.sendall(head + b'2\r\n\r\n{}')
        assert connection.recv(65536).startswith(b'HTTP/1.1 200')
        connection.sendall(head + b'100\r\n\r\n{"a"')
    assert call(wsa, 'GET', '/cmd/echo?a=1').json() == {'a': '1'}
    wsa.stop()
    assert caplog.records == []


def test_call_that_does_not_end(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A call that outlasts the grace of `stop` is answered with 503, which is nobody's failure."""
    entered = threading.Event()

    async def wait(ctx: ws.Context, q: Bag) -> None:
        entered.set()
        await asyncio.get_running_loop().create_future()

    before = threading.enumerate()
    fm = {'wait': wait, 'stop': lambda ctx, q: ctx.wsa.stop()}  # which only begins it, and sets no time for its end
    wsa = serve(fm, limits=ws.Limits(stop_timeout=1.0, slow_handler=None))
    with ThreadPoolExecutor() as threads:
        lost = threads.submit(call, wsa, 'GET', '/cmd/wait')
        assert entered.wait(TIMEOUT)
        call(wsa, 'GET', '/cmd/stop')
        assert answer(lost.result(TIMEOUT)) == (503, 'The server is stopping')
    for thread in threading.enumerate():
        if thread.name == 'webshoes' and thread not in before:
            thread.join(TIMEOUT)
    assert caplog.records == []
