"""Use every transport once, and each limit on it: `python -m test.everything` prints `all is well`, or fails.

For an aiohttp that is not the usual one. The other tests look closer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import requests
from aiohttp import web
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import webshoes as ws
from webshoes.transports import compat

LIMITS = ws.Limits(max_body_size=100_000, max_fields=5, max_ws_msg_size=100_000, header_timeout=0.3, body_timeout=0.3)
TIMEOUT = 20.0


def echo(ctx: ws.Context, q: Any) -> Any:
    """Give back what was sent."""
    return q


async def later(ctx: ws.Context, q: Any) -> Any:
    """Give back what was sent, after a while."""
    await asyncio.sleep(0.01)
    return q


@ws.threaded
def threaded(ctx: ws.Context, q: Any) -> Any:
    """Give back what was sent, from a thread."""
    return q


def method(ctx: ws.Context, q: Any) -> str:
    """Ask for the request itself."""
    return f'{ctx.req.method} {ctx.req.path} {ctx.req.remote}'


async def body(ctx: ws.Context, q: Any) -> str:
    """Read the body of the request."""
    return str(len(await ctx.req.read()))


def upload(ctx: ws.Context, q: Any) -> list[Any]:
    """Take a file in a form."""
    return [q.note, q.file.filename, q.file.file.read().decode()]


def fail(ctx: ws.Context, q: Any) -> None:
    """Fail."""
    raise KeyError('no')


def missing(ctx: ws.Context, q: Any) -> None:
    """Answer with an exception of aiohttp's."""
    raise web.HTTPGone(text='It is gone')


def elsewhere(ctx: ws.Context, q: Any) -> None:
    """Lead to another function."""
    raise web.HTTPSeeOther('/cmd/echo?a=1')


FUNCTIONS = {
    'missing': missing,
    'elsewhere': elsewhere,
    'echo': echo,
    'later': later,
    'threaded': threaded,
    'method': method,
    'body': body,
    'upload': upload,
    'fail': fail,
}


def use_http(url: str) -> None:
    """Call functions, by all kinds of requests."""
    with requests.Session() as session:
        for _ in range(3):
            for name in ('echo', 'later', 'threaded'):
                assert session.get(f'{url}/cmd/{name}?a=1&b=x').json() == {'a': '1', 'b': 'x'}
                assert session.post(f'{url}/cmd/{name}', json={'a': 1}).json() == {'a': 1}
                assert session.post(f'{url}/cmd/{name}?b=2', data={'a': 'ü'}).json() == {'a': 'ü', 'b': '2'}
            assert session.get(f'{url}/cmd/method').text == 'GET /cmd/method 127.0.0.1'
        assert session.head(f'{url}/cmd/echo').status_code == 200
        assert session.get(f'{url}/nowhere').status_code == 404
        assert session.get(f'{url}/cmd/fail').json() == {'error': 'Server error', 'code': 500}
        assert session.post(f'{url}/cmd/body', data=iter([b'1' * 1000] * 50)).text == '50000'  # in chunks
        assert session.get(f'{url}/cmd/elsewhere').json() == {'a': '1'}
        gone = session.get(f'{url}/cmd/missing')
        assert (gone.status_code, gone.json()) == (410, {'error': 'It is gone', 'code': 410})
        gzipped = zlib.compress(b'{"a": 1}', wbits=31)
        headers = {'Content-Type': 'application/json', 'Content-Encoding': 'gzip'}
        assert session.post(f'{url}/cmd/echo', data=gzipped, headers=headers).json() == {'a': 1}
        files = {'file': ('a.txt', b'text')}
        assert session.post(f'{url}/cmd/upload', data={'note': 'n'}, files=files).json() == ['n', 'a.txt', 'text']


def use_http_limits(url: str, port: int) -> None:
    """Send what is too much, too slow, or not HTTP."""
    for send in {'json': 'x' * 100_001}, {'data': {'a': 'x' * 100_001}}, {'data': dict.fromkeys('abcdef', '1')}:
        assert requests.post(f'{url}/cmd/echo', timeout=TIMEOUT, **send).status_code == 413
    parts = dict.fromkeys('abcdef', (None, '1'))
    assert requests.post(f'{url}/cmd/echo', files=parts, timeout=TIMEOUT).status_code == 413
    strange = {'a': (None, b'1', 'text/plain; charset=utf-7')}
    assert requests.post(f'{url}/cmd/echo', files=strange, timeout=TIMEOUT).status_code == 400
    assert b' 400 ' in exchange(port, b'nonsense\r\n\r\n')[:16]
    assert exchange(port, b'GET / HTTP/1.1\r\nA: ' + b'a' * 20_000 + b'\r\n\r\n')[9:10] == b'4'
    assert b' 408 ' in exchange(port, b'GET /cmd/echo HTTP/1.1\r\nHost')
    head = b'POST /cmd/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n'
    assert b' 408 ' in exchange(port, head + b'\r\n{')
    expecting = head + b'Expect: 100-continue\r\nConnection: close\r\n\r\n{"a": 12}'
    assert exchange(port, expecting).startswith(b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n')
    get = b'GET /cmd/echo?n=%d HTTP/1.1\r\nHost: localhost\r\n\r\n'
    last = head + b'Connection: close\r\n\r\n{"n": 60}'
    answers = exchange(port, b''.join(get % n for n in range(60)) + last)
    found = [answers.find(b'{"n":"%d"}' % n) for n in range(60)]
    assert -1 not in found
    assert found == sorted(found)
    assert answers.count(b'HTTP/1.1 200 OK') == 61


def exchange(port: int, data: bytes) -> bytes:
    """Send these bytes, and return all that comes until the server closes the connection."""
    with socket.create_connection(('127.0.0.1', port), timeout=TIMEOUT) as connection:
        connection.sendall(data)
        return b''.join(iter(lambda: connection.recv(65536), b''))


def use_websocket(wsa: ws.WebShoesApp, url: str, **settings: Any) -> None:
    """Call functions and subscribe over a WebSocket."""
    with connect(url, max_size=None, **settings) as connection:

        def ask(message: Any) -> Any:
            connection.send(json.dumps(message))
            return json.loads(connection.recv(timeout=TIMEOUT))

        for name in ('echo', 'later', 'threaded', 'echo'):
            assert ask({'cmd': f'cmd/{name}', 'q': {'a': 1}, 'tid': 7})['r'] == {'a': 1}
        names = ['echo', 'later', 'threaded'] * 20
        for n, name in enumerate(names):
            connection.send(json.dumps({'cmd': f'cmd/{name}', 'q': {'n': n, 'text': 'x' * (n % 7 * 1000)}}))
        found = [json.loads(connection.recv(timeout=TIMEOUT))['r']['n'] for _ in names]
        assert found == list(range(len(names)))
        assert ask({'cmd': 'cmd/fail'})['code'] == 500
        assert ask({'cmd': 'cmd/method'})['r'].startswith('GET / ')
        assert ask({'cmd': 'cmd/missing'})['code'] == 410
        assert ask({'ping': 1}) == {'pong': 1}
        assert connection.ping().wait(TIMEOUT)
        connection.send(b'binary')
        assert json.loads(connection.recv(timeout=TIMEOUT))['code'] == 400
        assert ask({'evt': 'heat', 'uid': 'u'})['r']['status'] == 'Event added'
        first = wsa.event('heat').ver
        for n in range(100):
            wsa.triggerEvent('heat', n)
        seen, push = first, {}
        while seen < first + 100:
            push = json.loads(connection.recv(timeout=TIMEOUT))
            assert push.get('from', push['ver']) in (seen, seen + 1)
            seen = push['ver']
        assert push['r'] == 99
        connection.send('x' * 101_000)
        assert close_code(connection) == 1009


def close_code(connection: Any) -> int | None:
    """Receive until the connection is closed, and return with which code."""
    try:
        while True:
            connection.recv(timeout=TIMEOUT)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd is not None else None


def use_events(wsa: ws.WebShoesApp, url: str) -> None:
    """Read events over HTTP: as they stand, by a long poll, and as a stream."""
    wsa.triggerEvent('light', 1)
    state = requests.get(f'{url}/cmd?evt=light', timeout=TIMEOUT).json()
    since = f'{state["epoch"]}:{state["ver"]}'
    assert requests.get(f'{url}/cmd?evt=light&since={since}&wait=0.05', timeout=TIMEOUT).status_code == 204
    headers = {'Accept': 'text/event-stream'}
    with requests.get(f'{url}/cmd?evt=light', headers=headers, stream=True, timeout=TIMEOUT) as stream:
        lines = stream.iter_lines()
        for n in range(1, 4):
            if n > 1:
                wsa.triggerEvent('light', n)
            data = next(line for line in lines if line.startswith(b'data:'))
            assert json.loads(data[5:])['r'] == n


def use_files(url: str, size: int) -> None:
    """Read files: the whole, a part, and whether they have changed."""
    with requests.Session() as session:
        whole = session.get(f'{url}/files/big')
        assert len(whole.content) == size
        assert session.get(f'{url}/files/big', headers={'Range': 'bytes=1-3'}).content == b'bcd'
        assert session.get(f'{url}/files/big', headers={'If-None-Match': whole.headers['ETag']}).status_code == 304
        assert session.get(f'{url}/files/none').status_code == 404
        assert 'WebShoes' in session.get(f'{url}/webshoes.js').text


def use_stop(wsa: ws.WebShoesApp) -> None:
    """Stop with connections of all kinds open, and start again on the same port."""
    idle = socket.create_connection(('127.0.0.1', wsa.port), timeout=TIMEOUT)
    stream = requests.get(
        f'{wsa.url}/cmd?evt=dark', headers={'Accept': 'text/event-stream'}, stream=True, timeout=TIMEOUT
    )
    with idle, stream, connect(wsa.url.replace('http', 'ws')) as connection:
        connection.send(json.dumps({'ping': 1}))
        assert json.loads(connection.recv(timeout=TIMEOUT)) == {'pong': 1}
        started = time.monotonic()
        port = wsa.port
        wsa.stop()
        assert time.monotonic() - started < 10
        assert close_code(connection) == 1001
        assert idle.recv(1) == b''
    again = ws.WebShoesApp('127.0.0.1', port)
    again.start()
    again.stop()


def main() -> None:
    """Use everything, and print which reliances on aiohttp do not work."""
    logging.disable()
    print('lost:', ', '.join(it.name for it in compat.RELIANCES if not it.works), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        content = b'abcdefgh' * 100_000
        (Path(folder) / 'big').write_bytes(content)
        for settings in {'loop': 'uvloop'}, {'loop': 'asyncio', 'compress': True}:
            wsa = ws.WebShoesApp('127.0.0.1', 0, limits=LIMITS, **settings)
            wsa.register('cmd', 'cmd', 'q', 'evt', 'r', FUNCTIONS)
            wsa.register('files', '', '', '', '', {'*': {'root': folder}})
            wsa.start()
            use_http(wsa.url)
            use_websocket(wsa, wsa.url.replace('http', 'ws'))
            use_websocket(wsa, wsa.url.replace('http', 'ws'), compression=None)
            use_events(wsa, wsa.url)
            use_files(wsa.url, len(content))
            if 'compress' not in settings:
                use_http_limits(wsa.url, wsa.port)
            use_stop(wsa)
    print('all is well')


if __name__ == '__main__':
    main()
