"""https and wss."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from websockets.asyncio.client import connect

import webshoes as ws

from .conftest import TIMEOUT, Serve
from .faces import dial, frame, raw_frame, read_frame, read_head, run_apart, until, upgrade


class Certificates:
    """A certificate for 127.0.0.1, and the authority that signed it."""

    def __init__(self, folder: Path) -> None:
        authority, self.paths = trustme.CA(), (folder / 'cert.pem', folder / 'key.pem')
        issued = authority.issue_cert('127.0.0.1')
        self.authority = str(folder / 'ca.pem')
        authority.cert_pem.write_to_path(self.authority)
        self.paths[0].write_bytes(b''.join(blob.bytes() for blob in issued.cert_chain_pems))
        self.paths[1].write_bytes(issued.private_key_pem.bytes())


@pytest.fixture(scope='module')
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp('certificates'))


def context(certificates: Certificates) -> ssl.SSLContext:
    found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    found.load_cert_chain(*certificates.paths)
    return found


def add(ctx: ws.Context, q: Any) -> int:
    return int(q.a) + int(q.b)


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
@pytest.mark.parametrize('as_context', [True, False])
def test_calls_over_tls(serve: Serve, certificates: Certificates, loop: str, as_context: bool) -> None:
    """`ssl=` takes a context or two paths, and the same function answers https and wss."""
    wsa = serve({'add': add}, ssl=context(certificates) if as_context else certificates.paths, loop=loop)
    assert wsa.url == f'https://127.0.0.1:{wsa.port}'
    assert requests.get(f'{wsa.url}/cmd/add?a=1&b=2', verify=certificates.authority, timeout=TIMEOUT).json() == 3
    trusting = ssl.create_default_context(cafile=certificates.authority)

    async def call() -> Any:  # a client of one thread: two at once on one TLS connection, as OpenSSL forbids, may hang
        async with connect(wsa.url.replace('http', 'ws', 1), ssl=trusting) as connection:
            await connection.send(json.dumps({'cmd': 'cmd/add', 'q': {'a': 1, 'b': 2}}))
            return json.loads(await connection.recv())['r']

    assert run_apart(call()) == 3


def test_plain_text_on_a_tls_port(serve: Serve, certificates: Certificates) -> None:
    """Who speaks plain http to a TLS port gets no answer, and others are served on."""
    wsa = serve({'add': add}, ssl=certificates.paths)
    with pytest.raises(requests.ConnectionError):
        requests.get(f'http://127.0.0.1:{wsa.port}/cmd/add', timeout=TIMEOUT)
    assert requests.get(f'{wsa.url}/cmd/add?a=1&b=2', verify=certificates.authority, timeout=TIMEOUT).json() == 3


@pytest.mark.parametrize(
    ('given', 'kind', 'message'),
    [
        ('cert.pem', TypeError, r'ssl is an ssl.SSLContext or the two paths \(certificate, key\)'),
        (('nowhere.pem', 'nokey.pem'), OSError, 'No such file'),
    ],
)
def test_tls_that_cannot_be(given: Any, kind: type[Exception], message: str) -> None:
    """What is no certificate is refused when the app is made."""
    with pytest.raises(kind, match=message):
        ws.WebShoesApp('127.0.0.1', 0, ssl=given)


def open_stalled(wsa: ws.WebShoesApp, certificates: Certificates) -> socket.socket:
    """A WebSocket over TLS that listens to the event `heat`, and reads nothing but the handshake."""
    trusting = ssl.create_default_context(cafile=certificates.authority)
    connection = trusting.wrap_socket(dial(wsa.port, 4096), server_hostname='127.0.0.1')
    connection.sendall(upgrade())
    read_head(connection)
    connection.sendall(frame({'evt': 'heat', 'uid': 'slow'}))
    until(lambda: wsa.subscribers('heat'))
    return connection


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_one_that_closes_while_it_takes_nothing(serve: Serve, certificates: Certificates, loop: str) -> None:
    """Who says goodbye with something on its way, and reads nothing, does not end the watch over the others."""
    wsa = serve(ssl=certificates.paths, loop=loop, limits=ws.Limits(stall_timeout=0.5))
    with open_stalled(wsa, certificates) as leaving:
        (conn,) = wsa.connections
        for _ in range(2):
            wsa.triggerEvent('heat', 'x' * 200_000)
        until(lambda: conn.buffered)
        leaving.sendall(b'\x88\x82\0\0\0\0\x03\xe8')
        until(lambda: not wsa.connections)
        assert conn.buffered >= 0
        with open_stalled(wsa, certificates):
            for _ in range(40):
                wsa.triggerEvent('heat', 'x' * 200_000)
            until(lambda: not wsa.connections)
        wsa.stop()


@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere it is not known what the transport below TLS holds')
@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_a_slow_client_is_not_a_dead_one(serve: Serve, certificates: Certificates, loop: str) -> None:
    """Who takes a little again and again is kept, far longer than `stall_timeout`; who stops taking is given up."""
    wsa = serve(ssl=certificates.paths, loop=loop, limits=ws.Limits(stall_timeout=1.0))
    with open_stalled(wsa, certificates) as slow:
        for _ in range(3):
            wsa.triggerEvent('heat', 'x' * 1_000_000)
        (conn,) = wsa.connections
        started = time.monotonic()
        while time.monotonic() - started < 4:
            slow.recv(4096)
            time.sleep(0.02)  # which is what makes it slow
        assert wsa.connections == [conn]
        until(lambda: not wsa.connections)


@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere it is not known what the transport below TLS holds')
@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_one_value_that_is_not_taken(serve: Serve, certificates: Certificates, loop: str) -> None:
    """Who takes nothing of a single large value is given up too, though all of it has left the TLS layer."""
    wsa = serve(ssl=certificates.paths, loop=loop, limits=ws.Limits(stall_timeout=0.5))
    with open_stalled(wsa, certificates):
        wsa.triggerEvent('heat', 'x' * 6_000_000)
        until(lambda: not wsa.connections)


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
@pytest.mark.parametrize(('bad', 'code'), [(b'\xff\xff', 1002), (raw_frame(b'x' * 2000)[:8], 1009)])
def test_the_close_of_a_broken_connection_arrives(
    serve: Serve, certificates: Certificates, loop: str, bad: bytes, code: int
) -> None:
    """Who breaks the rules and sends on is not reset, though TLS cannot end one way alone, and reads the close."""
    wsa = serve(ssl=certificates.paths, loop=loop, limits=ws.Limits(max_ws_msg_size=1000))
    trusting = ssl.create_default_context(cafile=certificates.authority)
    with trusting.wrap_socket(dial(wsa.port), server_hostname='127.0.0.1') as connection:
        connection.sendall(upgrade())
        read_head(connection)
        connection.sendall(bad)
        for _ in range(64):
            connection.sendall(bytes(65536))
        with connection.makefile('rb') as stream:
            assert read_frame(stream) == (0x88, code.to_bytes(2, 'big'))
    until(lambda: not wsa.connections)
