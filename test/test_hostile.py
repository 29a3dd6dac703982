"""What nobody sends who means well: a clear error or a closed connection, and a server that goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import threading
import zlib
from typing import Any

import pytest
import requests

import webshoes as ws

from .conftest import TIMEOUT, OpenPeer, Serve, echo
from .faces import dial, open_stalled, raw_frame, until, upgrade
from .test_events import is_quiet
from .test_limits import GET, answer, limits, met, post, rest

BAD_JSON: dict[str, bytes] = {
    'deep arrays': b'[' * 100_000,
    'deep objects': b'{"a":' * 100_000,
    'deep and whole': b'[' * 50_000 + b']' * 50_000,
    'NaN': b'{"a":NaN}',
    'infinity': b'{"a":-Infinity}',
    'out of range': b'{"a":1e999}',
    'a number': b'1',
    'a text': b'"x"',
    'a lone surrogate': b'{"a":"\\ud800"}',
    'half of a pair': b'{"a":"\\udc00x"}',
    'two values': b'{}{}',
    'a comma too many': b'{"a":1,}',
}


@pytest.mark.parametrize('data', BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_is_none(serve: Serve, open_peer: OpenPeer, data: bytes) -> None:
    """It is 400 over both faces, on connections that go on, and tells nothing of the inside."""
    wsa = serve({'echo': echo})
    peer = open_peer(wsa)
    peer.connection.send(data, text=True)
    response = requests.post(
        f'{wsa.url}/cmd/echo', data=data, headers={'Content-Type': 'application/json'}, timeout=TIMEOUT
    )
    for found in (peer.receive(), response.json()):
        assert (set(found), found['code']) == ({'error', 'code'}, 400)
        assert 'Traceback' not in found['error']
        assert '.py' not in found['error']
    assert is_quiet(peer)


FORM, PARTS = 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=X'
PART = b'--X\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n--X--\r\n'
HALF = b'\xed\xa0\xbd'  # half of an emoji
HALVES: dict[str, tuple[str, str | None, bytes]] = {  # the target, and the type of a body and the body
    'a path': ('/cmd/thing/%ED%A0%BD', None, b''),
    'the rest of a path': ('/cmd/echo/%ed%a0%bd', None, b''),
    'a query': ('/cmd/echo?s=%ED%A0%BD', None, b''),
    'a key of a query': ('/cmd/echo?%ED%B8%80=1', None, b''),
    'a query beside a body': ('/cmd/echo?s=%ED%A0%BD', 'application/json', b'{}'),
    'an event': ('/cmd?evt=%ED%A0%BD', None, b''),
    'a place': ('/cmd?evt=heat&since=%ED%A0%BD:1', None, b''),
    'JSON': ('/cmd/echo', 'application/json', rb'{"s": "\ud83d"}'),
    'a key of JSON': ('/cmd/echo', 'application/json', rb'{"\ude00": 1}'),
    'JSON in bytes': ('/cmd/echo', 'application/json', b'{"s": "%b"}' % HALF),
    'a form': ('/cmd/echo', FORM, b's=%ED%A0%BD'),
    'a key of a form': ('/cmd/echo', FORM, b'%ED%A0%BD=1'),
    'a form in bytes': ('/cmd/echo', FORM, b's=' + HALF),
    'a part': ('/cmd/echo', PARTS, PART % (b'name="s"', HALF)),
    'a name': ('/cmd/echo', PARTS, PART % (b'name="%b"' % HALF, b'a')),
    'a file name': ('/cmd/echo', PARTS, PART % (b'name="f"; filename="%b"' % HALF, b'a')),
}


@pytest.mark.parametrize(('target', 'kind', 'body'), HALVES.values(), ids=HALVES)
def test_half_of_an_emoji(serve: Serve, target: str, kind: str | None, body: bytes) -> None:
    """A text that UTF-8 cannot have is 400 wherever it comes, at first and later, and no handler gets it."""
    seen: list[Any] = []

    def take(ctx: ws.Context, q: Any) -> None:
        seen.append(q)

    wsa = serve({'echo': take, 'thing/{id}': take})
    headers = {} if kind is None else {'Content-Type': kind}
    with requests.Session() as session:
        for _ in range(3):
            request = requests.Request('GET' if kind is None else 'POST', wsa.url, headers, data=body).prepare()
            request.url = wsa.url + target
            response = session.send(request, timeout=TIMEOUT)
            assert (response.status_code, response.json()['code']) == (400, 400)
    assert seen == []


@pytest.mark.parametrize(
    ('kind', 'body', 'text'),
    [
        (FORM, b's=%C3%A9+%F0%9F%98%80+%ED%9F%BF', '\xe9 \U0001f600 \ud7ff'),
        (f'{FORM}; charset=iso-8859-1', b's=%E9+%ED%A0', '\xe9 \xed\xa0'),
        (f'{FORM}; charset=windows-1252', b's=%80+\xc1', '\u20ac \xc1'),
    ],
)
def test_text_of_a_form(serve: Serve, kind: str, body: bytes, text: str) -> None:
    """Text in the charset of a form is taken as such."""
    wsa = serve({'echo': echo})
    response = requests.post(f'{wsa.url}/cmd/echo', data=body, headers={'Content-Type': kind}, timeout=TIMEOUT)
    assert response.json() == {'s': text}


@pytest.mark.parametrize('key', ['__proto__', '_', '__class__', '__dict__', 'as_dict', 'get', 'exists', 'items', ''])
def test_odd_keys(serve: Serve, open_peer: OpenPeer, key: str) -> None:
    """A key that means something elsewhere is a key, and harms no call after it."""
    wsa = serve({'echo': echo})
    peer, value = open_peer(wsa), {key: {'a': 1, key: [2]}}
    assert peer.ask({'cmd': 'cmd/echo', 'q': value})['r'] == value
    assert requests.post(f'{wsa.url}/cmd/echo', json=value, timeout=TIMEOUT).json() == value
    assert peer.ask({'cmd': 'cmd/echo', 'q': {'b': 1}})['r'] == {'b': 1}


def test_many_fields_and_large_numbers(serve: Serve, open_peer: OpenPeer) -> None:
    """10,000 fields of JSON, and integers of any size that JSON has, come back; a key that comes twice is its last."""
    peer = open_peer(serve({'echo': echo}))
    value: dict[str, Any] = {f'f{n}': n for n in range(10_000)} | {'large': 2**64 - 1, 'small': -(2**63)}
    assert peer.ask({'cmd': 'cmd/echo', 'q': value})['r'] == value
    peer.connection.send('{"cmd":"cmd/echo","q":{"a":1,"a":2}}')
    assert peer.receive()['r'] == {'a': 2}


def test_number_of_many_digits(serve: Serve, open_peer: OpenPeer) -> None:
    """A number of 100,000 digits costs an answer and no time, whatever the answer is."""
    peer = open_peer(serve({'echo': echo}))
    peer.connection.send('{"cmd":"cmd/echo","q":{"a":' + '9' * 100_000 + '}}')
    assert set(peer.receive()) & {'r', 'error'}
    assert is_quiet(peer)


# --- forms ---


def test_multipart_of_many_parts(serve: Serve) -> None:
    """A form of too many parts is 413."""
    part = b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n\r\n'
    body = part * 5000 + b'--b--\r\n'
    with dial(serve({'save': echo}).port) as connection:
        connection.sendall(post(len(body), 'multipart/form-data; boundary=b') + body)
        assert answer(connection)[0] == 413


@pytest.mark.parametrize('endless', [b'X: y\r\n', b'x' * 1000])
def test_multipart_whose_headers_do_not_end(serve: Serve, endless: bytes) -> None:
    """The headers of a part that do not end are an error of the client's, long before they have come."""
    wsa = serve({'save': echo})
    with dial(wsa.port) as connection:
        connection.sendall(post(3_000_000, 'multipart/form-data; boundary=b') + b'--b\r\n' + endless * 3000)
        code, body = answer(connection)
    assert (code, json.loads(body)['code']) == (400, 400)
    assert b'.py' not in body


# --- floods and bombs ---


def test_compressed_bomb(serve: Serve) -> None:
    """A small frame that unpacks to 100 MB is closed with 1009 before it is unpacked."""
    wsa = serve(compress=True)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(100_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
    with dial(wsa.port) as connection:
        connection.sendall(upgrade('Sec-WebSocket-Extensions: permessage-deflate'))
        connection.sendall(raw_frame(bomb[:-4], 0xC1))
        assert rest(connection).endswith(b'\x88\x02\x03\xf1')
    assert met(wsa) == {'max_ws_msg_size': 1}


@pytest.mark.parametrize('flood', [b'X: y\r\n' * 100_000, b'X: ' + b'y' * 1_000_000])
def test_header_flood(serve: Serve, flood: bytes) -> None:
    """Headers without end are refused, or broken off, and others are served."""
    wsa = serve({'echo': echo})
    with dial(wsa.port) as connection:
        try:
            connection.sendall(GET[:-2] + flood)
        except ConnectionError:
            received = b''
        else:
            received = rest(connection)
    assert received[9:12] in (b'', b'400', b'431')
    assert requests.get(f'{wsa.url}/cmd/echo?a=1', timeout=TIMEOUT).json() == {'a': '1'}


def test_flood_of_pings(serve: Serve) -> None:
    """65 kB of pings in one go are answered one by one."""
    wsa, count = serve(), 10_000
    with open_stalled(wsa) as connection:
        connection.sendall(b'\x89\x80\0\0\0\0' * count)
        with connection.makefile('rb') as stream:
            assert stream.read(2 * count) == b'\x8a\x00' * count


# --- connections that end oddly ---


def test_half_closed(serve: Serve) -> None:
    """Who ends his own way at once has his connection ended, and nothing is left."""
    wsa = serve({'echo': echo})
    with dial(wsa.port) as connection:
        connection.sendall(GET)
        connection.shutdown(socket.SHUT_WR)
        assert rest(connection)[:12] in (b'', b'HTTP/1.1 200')
    with open_stalled(wsa) as connection:
        connection.shutdown(socket.SHUT_WR)
        rest(connection)
    until(lambda: not wsa.connections)


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_reset_in_the_middle_of_an_answer(serve: Serve, caplog: pytest.LogCaptureFixture, loop: str) -> None:
    """A connection that is reset while a large answer is sent is no news for the log."""
    wsa = serve({'large': lambda ctx, q: 'x' * 20_000_000, 'echo': echo}, loop=loop)
    with dial(wsa.port, 4096) as connection:
        connection.sendall(GET.replace(b'echo', b'large'))
        connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    assert requests.get(f'{wsa.url}/cmd/echo?a=1', timeout=TIMEOUT).json() == {'a': '1'}
    wsa.stop()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_stream_whose_client_left_before(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Who leaves while it is found out who he is, and asked for a stream, is no news for the log."""
    entered, go, asked = threading.Event(), threading.Event(), list[ws.Context]()

    async def auth(ctx: ws.Context) -> str:
        asked.append(ctx)
        entered.set()
        await asyncio.to_thread(go.wait, TIMEOUT)
        return 'somebody'

    wsa = serve(auth=auth, limits=limits(auth_timeout=TIMEOUT))
    with dial(wsa.port) as connection:
        connection.sendall(GET.replace(b'/echo', b'?evt=heat'))
        assert entered.wait(TIMEOUT)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    until(lambda: asked[0].req.transport is None)
    go.set()
    wsa.stop()
    assert caplog.records == []
