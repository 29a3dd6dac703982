"""Framing of answers (RFC 9112): what a client reads as a body is the body, whatever files and handlers do."""

from __future__ import annotations

import io
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import webshoes as ws
from webshoes.core.conditions import Validators
from webshoes.transports.content import Content
from webshoes.transports.disk import OpenFile

from .conftest import Serve
from .faces import dial, run_apart
from .test_tls import Certificates, certificates

__all__ = ['certificates']  # a fixture

SIZE = 50_000_000
LOOPS = ['asyncio', 'uvloop']
NEXT = b'GET /cmd/next HTTP/1.1\r\nHost: localhost\r\n\r\n'

Open = Callable[[ws.WebShoesApp], socket.socket]


def after(ctx: ws.Context, q: Any) -> str:
    return 'the next answer'


def get(path: str, *headers: str, method: str = 'GET', version: str = '1.1') -> bytes:
    return '\r\n'.join((f'{method} {path} HTTP/{version}', 'Host: localhost', *headers, '', '')).encode()


def read_to_end(connection: socket.socket) -> bytes:
    received = []
    while chunk := connection.recv(1 << 20):
        received.append(chunk)
    return b''.join(received)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / 'big.bin'
    path.touch()
    os.truncate(path, SIZE)
    return path


@pytest.fixture(params=['plain', 'tls'])
def tls(request: pytest.FixtureRequest, certificates: Certificates) -> Certificates | None:
    return certificates if request.param == 'tls' else None


def connect(wsa: ws.WebShoesApp, tls: Certificates | None) -> socket.socket:
    connection = dial(wsa.port)
    if tls is None:
        return connection
    return ssl.create_default_context(cafile=tls.authority).wrap_socket(connection, server_hostname='127.0.0.1')


def settings(loop: str, tls: Certificates | None) -> dict[str, Any]:
    return {'loop': loop} | ({'ssl': tls.paths} if tls is not None else {})


def own_file_response(path: Path) -> Any:
    return web.FileResponse(path)


def own_payload(path: Path) -> Any:
    return web.Response(body=path.open('rb'))


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('way', [Path, own_file_response, own_payload, 'folder', 'range', 'ranges'])
def test_file_that_becomes_shorter(
    serve: Serve, big: Path, tls: Certificates | None, loop: str, way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is truncated while it is sent ends the connection: the next answer is not taken for its content."""
    wsa = serve({'big': lambda ctx, q: way(big), 'next': after}, **settings(loop, tls))
    wsa.register('s', '', '', '', '', {'*': {'root': big.parent}})
    asked = {
        'folder': get('/s/big.bin'),
        'range': get('/s/big.bin', 'Range: bytes=10-'),
        'ranges': get('/s/big.bin', 'Range: bytes=0-9,20-'),
    }.get(way if isinstance(way, str) else '', get('/cmd/big'))
    with connect(wsa, tls) as connection:
        connection.sendall(asked + NEXT)
        received = connection.recv(100_000)
        os.truncate(big, 1_000_000)
        received += read_to_end(connection)
    assert received.startswith((b'HTTP/1.1 200 OK\r\n', b'HTTP/1.1 206 Partial Content\r\n'))
    assert received.count(b'HTTP/1.1 ') == 1
    assert len(received) < SIZE
    if way in (Path, 'folder', 'range', 'ranges'):
        assert 'broke off, so its connection was closed: it ended ' in caplog.text


@pytest.mark.parametrize('loop', LOOPS)
def test_file_that_is_replaced(serve: Serve, big: Path, tls: Certificates | None, loop: str) -> None:
    """A file that another one replaces while it is sent is sent to its end, and the connection goes on."""
    wsa = serve({'big': lambda ctx, q: big, 'next': after}, **settings(loop, tls))
    (big.parent / 'other').write_bytes(b'short')
    with connect(wsa, tls) as connection:
        connection.sendall(get('/cmd/big') + NEXT.replace(b'\r\n\r\n', b'\r\nConnection: close\r\n\r\n'))
        received = connection.recv(100_000)
        (big.parent / 'other').replace(big)
        received += read_to_end(connection)
    assert received.endswith(b'\r\n\r\nthe next answer')
    assert received.count(b'\0') == SIZE


def test_file_that_cannot_be_read(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A small file is read before its head is sent: its size may be wrong, and where reading fails it is 500."""
    wsa = serve({'short': lambda ctx, q: Path('/sys/class/net/lo/mtu'), 'next': after})
    wsa.register('s', '', '', '', '', {'*': {'root': '/sys/class/net/lo/'}})
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/short') + get('/s/speed') + get('/cmd/next', 'Connection: close'))
        received = read_to_end(connection)
    mtu = Path('/sys/class/net/lo/mtu').read_bytes()
    assert b'\r\nContent-Length: %d\r\n' % len(mtu) in received
    assert received.count(b'\r\n\r\n' + mtu + b'HTTP/1.1 500 ') == 1
    assert received.endswith(b'\r\n\r\nthe next answer')
    assert "'s/' failed" in caplog.text


def test_content_that_cannot_be_read(tmp_path: Path) -> None:
    """Content ends where the file cannot be read any more."""
    unreadable = OpenFile(os.open(tmp_path, os.O_RDONLY))
    content = Content(unreadable, SIZE, 'text/plain', '', Validators('"a"'), False)
    assert run_apart(content.read(0, 10)) == b''


async def short(ctx: ws.Context, q: Any) -> web.StreamResponse:
    response = web.StreamResponse(headers={'Content-Length': '10'})
    await response.prepare(ctx.req)
    await response.write(b'12345')
    return response


def short_text(ctx: ws.Context, q: Any) -> web.Response:
    return web.Response(text='12345', headers={'Content-Length': '10'})


async def short_and_fails(ctx: ws.Context, q: Any) -> web.StreamResponse:
    await short(ctx, q)
    raise ValueError


async def short_and_refuses(ctx: ws.Context, q: Any) -> web.StreamResponse:
    await short(ctx, q)
    raise ws.Error(404, 'too late')


async def short_and_redirects(ctx: ws.Context, q: Any) -> web.StreamResponse:
    await short(ctx, q)
    raise web.HTTPFound('/')


async def short_and_another(ctx: ws.Context, q: Any) -> str:
    await short(ctx, q)
    return 'another'


async def short_and_a_second_head(ctx: ws.Context, q: Any) -> web.StreamResponse:
    await short(ctx, q)
    return await short(ctx, q)


async def chunks_and_fails(ctx: ws.Context, q: Any) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(ctx.req)
    await response.write(b'12345')
    raise ValueError


async def loses_another_connection(ctx: ws.Context, q: Any) -> web.Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b'12345'
        raise ConnectionError

    return web.Response(body=parts())


async def fails_in_its_body(ctx: ws.Context, q: Any) -> web.Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b'12345'
        raise ValueError

    return web.Response(body=parts())


def short_stream(ctx: ws.Context, q: Any) -> web.Response:
    return web.Response(body=io.BytesIO(b'12345'), headers={'Content-Length': '10'})


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize(
    'handler',
    [
        short,
        short_text,
        short_stream,
        short_and_fails,
        short_and_refuses,
        short_and_redirects,
        short_and_another,
        short_and_a_second_head,
        chunks_and_fails,
        fails_in_its_body,
        loses_another_connection,
    ],
)
def test_handler_that_sends_less_than_it_declares(
    serve: Serve, loop: str, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer of a handler's own that breaks off ends the connection, and no other answer follows in its body."""
    wsa = serve({'own': handler, 'next': after}, loop=loop)
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/own') + NEXT)
        received = read_to_end(connection)
    assert received.count(b'HTTP/1.1 ') == 1
    assert received.endswith((b'\r\n\r\n12345', b'\r\n\r\n5\r\n12345\r\n'))
    assert caplog.messages


async def long(ctx: ws.Context, q: Any) -> web.StreamResponse:
    response = web.StreamResponse(headers={'Content-Length': '5'})
    await response.prepare(ctx.req)
    await response.write(b'1234')
    await response.write_eof(b'5678')
    return response


def long_text(ctx: ws.Context, q: Any) -> web.Response:
    return web.Response(text='12345678', headers={'Content-Length': '5'})


@pytest.mark.parametrize('handler', [long, long_text])
def test_handler_that_sends_more_than_it_declares(serve: Serve, handler: Any) -> None:
    """The server cuts a body off where its Content-Length ends, so that no client reads the rest as the next answer."""
    wsa = serve({'own': handler, 'next': after})
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/own') + get('/cmd/next', 'Connection: close'))
        received = read_to_end(connection)
    _, _, rest = received.partition(b'\r\n\r\n')
    assert rest.startswith(b'12345HTTP/1.1 200 OK\r\n')
    assert received.endswith(b'\r\n\r\nthe next answer')


async def stream(ctx: ws.Context, q: Any) -> web.StreamResponse:
    response = web.StreamResponse(status=int(q.get('status', 200)))
    if q.get('compress'):
        response.enable_compression()
    await response.prepare(ctx.req)
    await response.write(b'12345')
    return response


@pytest.mark.parametrize(
    ('method', 'query'), [('HEAD', ''), ('HEAD', 'compress=1'), ('GET', 'status=204'), ('GET', 'status=304&compress=1')]
)
def test_handler_that_sends_a_body_where_none_may_be(serve: Serve, method: str, query: str) -> None:
    """A handler that writes a body to HEAD, or with a status that has none, sends none."""
    wsa = serve({'own': stream, 'next': after})
    with dial(wsa.port) as connection:
        asked = get(f'/cmd/own?{query}', 'Accept-Encoding: gzip', method=method)
        connection.sendall(asked + get('/cmd/next', 'Connection: close'))
        received = read_to_end(connection)
    assert received.partition(b'\r\n\r\n')[2].startswith(b'HTTP/1.1 200 OK\r\n')


def test_body_that_the_end_of_the_connection_delimits(serve: Serve) -> None:
    """A body of unknown length ends with its connection for an HTTP/1.0 client that asked to keep it."""
    wsa = serve({'own': stream})
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/own', 'Connection: keep-alive', version='1.0'))
        _, _, body = read_to_end(connection).partition(b'\r\n\r\n')
    assert body == b'12345'


def test_own_file_response(serve: Serve, big: Path) -> None:
    """A whole `aiohttp.web.FileResponse` arrives whole, and says that the connection ends."""
    wsa = serve({'own': lambda ctx, q: web.FileResponse(big)}, loop='asyncio')
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/own'))
        head, _, body = read_to_end(connection).partition(b'\r\n\r\n')
    assert b'\r\nConnection: close' in head
    assert len(body) == SIZE


@pytest.mark.parametrize('loop', LOOPS)
def test_own_file_response_to_clients_that_leave(
    serve: Serve, big: Path, caplog: pytest.LogCaptureFixture, loop: str
) -> None:
    """It is no failure of the handler that its client does not read to the end."""
    wsa = serve({'own': lambda ctx, q: web.FileResponse(big)}, loop=loop)
    for _ in range(5):
        with dial(wsa.port) as connection:
            connection.sendall(get('/cmd/own'))
            assert connection.recv(1000)
    wsa.stop()
    assert caplog.messages == []


@pytest.mark.parametrize('headers', [(), ('Range: bytes=0-5',), ('Range: bytes=999999999-',), ('If-None-Match: *',)])
@pytest.mark.parametrize('method', ['GET', 'HEAD', 'POST'])
@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('name', ['big.bin', 'nothing'])
def test_own_file_response_is_no_failure(
    serve: Serve, big: Path, caplog: pytest.LogCaptureFixture, name: str, loop: str, method: str, headers: tuple[str]
) -> None:
    """Nothing is logged where a `FileResponse` was sent, whatever was asked of it."""
    wsa = serve({'own': lambda ctx, q: web.FileResponse(big.with_name(name))}, loop=loop)
    os.truncate(big, 100_000)
    with dial(wsa.port) as connection:
        connection.sendall(get('/cmd/own', *headers, method=method))
        assert read_to_end(connection).startswith(b'HTTP/1.1 ')
    wsa.stop()
    assert caplog.messages == []


@pytest.mark.parametrize('version', ['1.0', '1.1'])
@pytest.mark.parametrize('path', ['/cmd/next', '/s/big.bin', '/s/nothing', '/s', '/webshoes.js', '/cmd?evt=e'])
def test_connection_goes_on(serve: Serve, tmp_path: Path, path: str, version: str) -> None:
    """Whole answers keep the connection."""
    (tmp_path / 'big.bin').write_bytes(b'not so big')
    (tmp_path / 'index.html').touch()
    wsa = serve({'next': after})
    wsa.register('s', '', '', '', '', {'*': {'root': tmp_path, 'defpage': 'index.html'}})
    with dial(wsa.port) as connection:
        for method in ('GET', 'HEAD'):
            connection.sendall(get(path, 'Connection: keep-alive', method=method, version=version))
        connection.sendall(get('/cmd/next', 'Connection: close'))
        received = read_to_end(connection)
    assert received.count(b'HTTP/1.') == 3
    assert received.endswith(b'\r\n\r\nthe next answer')
