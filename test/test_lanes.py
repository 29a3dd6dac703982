"""The quick ways: what is asked again, or comes over the fast lane, is answered as it is the slow way."""

from __future__ import annotations

import gc
import socket
from typing import Any

import pytest
from aiohttp._websocket.reader import WebSocketReader
from propertybag import Bag

import webshoes as ws

from .conftest import TIMEOUT, Serve
from .faces import dial, raw_frame, read_head, until, upgrade


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


def head(target: str, method: str = 'GET', *headers: str) -> bytes:
    """The head of a request."""
    return '\r\n'.join([f'{method} {target} HTTP/1.1', 'Host: localhost', *headers, '', '']).encode()


def post(target: str, body: bytes, *headers: str) -> bytes:
    """A request with a body of JSON."""
    kind = () if any(header.startswith('Content-Type') for header in headers) else ('Content-Type: application/json',)
    return head(target, 'POST', f'Content-Length: {len(body)}', *kind, *headers) + body


# --- what is found again ---


def test_events_after_calls(serve: Serve) -> None:
    """A path where one was called asks for events all the same, where its query names one."""
    wsa = serve({'': lambda ctx, q: 'called'})
    wsa.triggerEvent('heat', 7)
    client = Client(wsa)
    assert client.ask(post('/cmd/', b'{}'))[2] == b'called'
    before = client.ask(head('/cmd/?evt=heat'))
    assert b'"r":7' in before[2]
    client.close()


def test_connection_in_a_thread(serve: Serve) -> None:
    """A handler in a thread finds its connection, however often it was called before."""

    @ws.threaded
    def remote(ctx: ws.Context, q: Bag) -> Any:
        return [ctx.conn.remote]

    client = Client(serve({'remote': remote}))
    assert [client.ask(head('/cmd/remote'))[2] for _ in range(3)] == [b'["127.0.0.1"]'] * 3
    client.close()


def test_close_from_a_thread(serve: Serve) -> None:
    """A handler in a thread may close its connection, however often it was called before."""

    @ws.threaded
    def close(ctx: ws.Context, q: Bag) -> Any:
        if q.now:
            ctx.conn.close()

    client = Client(serve({'close': close}))
    assert [client.ask(head('/cmd/close'))[2] for _ in range(2)] == [b'null'] * 2
    assert client.ask(head('/cmd/close?now=1')) == ('', [], b'')
    client.close()


# --- connections ---


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
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
