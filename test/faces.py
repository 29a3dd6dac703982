"""Clients on raw sockets, which can stall and break: a subscription over each of the three faces, and its parts."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, ClassVar, TypeVar
from urllib.parse import urlencode

from webshoes import WebShoesApp

from .conftest import TIMEOUT

T = TypeVar('T')

HANDSHAKE = {  # RFC 6455 section 1.3
    'Connection': 'Upgrade',
    'Upgrade': 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
}

Push = dict[str, Any]


class RefusedError(Exception):
    """A subscription was answered with an error."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer)
        self.code: int = json.loads(answer)['code']


class Face:
    """One subscription. `cursor` is where it is, in the form `<epoch>:<ver>`, `None` before the first push.

    Args:
        wsa: whose event it is.
        buffer: bytes that the system takes for a client that does not read, `None` for the usual.
    """

    tells_epoch_always: ClassVar[bool] = False

    def __init__(self, wsa: WebShoesApp, buffer: int | None = None) -> None:
        self._buffer = buffer
        self._port = wsa.port
        self._event = ''
        self._socket: socket.socket | None = None
        self.cursor: str | None = None

    def open(self, event: str, since: str | None = None) -> None:
        """Subscribe; returns when the subscription is there."""
        self._event, self.cursor = event, since
        self._subscribe(self._dial())

    def resume(self, wsa: WebShoesApp) -> None:
        """Subscribe again, at the last cursor."""
        self._port = wsa.port
        self._subscribe(self._dial())

    def next(self) -> Push:
        """The next push."""
        raise NotImplementedError

    def lose(self) -> None:
        """Break the connection off, whatever is on its way."""
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self._close()
            self._socket.close()
            self._socket = None

    def send_no_more(self) -> None:
        """End the way to the server, and keep the way back."""
        assert self._socket is not None
        self._socket.shutdown(socket.SHUT_WR)

    def _dial(self) -> socket.socket:
        self._socket = dial(self._port, self._buffer)
        return self._socket

    def _subscribe(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


class WebSocket(Face):
    """`{"evt": name, "since": ...}`."""

    def _subscribe(self, connection: socket.socket) -> None:
        connection.sendall(upgrade())
        read_head(connection)
        self._stream = connection.makefile('rb')
        message: dict[str, Any] = {'evt': self._event}
        if self.cursor is not None:
            epoch, colon, ver = self.cursor.rpartition(':')
            message['since'] = {'ver': int(ver), 'epoch': epoch} if colon else {'ver': int(ver)}
        connection.sendall(frame(message))
        answer = self._message()
        if b'"error"' in answer:
            raise RefusedError(answer)
        self._epoch: str = json.loads(answer)['r']['epoch']

    def _message(self) -> bytes:
        found = read_frame(self._stream)
        assert found is not None
        assert found[0] == 0x81
        return found[1]

    def next(self) -> Push:
        """The next push."""
        push: Push = json.loads(self._message())
        self.cursor = f'{self._epoch}:{push["ver"]}'
        return push

    def _close(self) -> None:
        self._stream.close()


class Stream(Face):
    """Server-sent events. A stream that begins again names its place by `Last-Event-ID`, as browsers do."""

    _response: http.client.HTTPResponse

    def _subscribe(self, connection: socket.socket) -> None:
        client = http_client(connection)
        headers = {'Accept': 'text/event-stream'}
        query = {'evt': self._event}
        if self.cursor is not None and len(self.cursor) % 2:  # one or the other
            headers['Last-Event-ID'] = self.cursor
        elif self.cursor is not None:
            query['since'] = self.cursor
        client.request('GET', f'/cmd?{urlencode(query)}', headers=headers)
        self._response = client.getresponse()
        if self._response.status != 200:
            raise RefusedError(self._response.read())
        self.cursor = read_block(self._response)['id']

    def next(self) -> Push:
        """The next push."""
        block = read_block(self._response)
        push: Push = json.loads(block['data'])
        self.cursor = block['id']
        return push

    def _close(self) -> None:
        self._response.close()


class Poll(Face):
    """Long polls: the next one is under way before the answer of the last is looked at."""

    tells_epoch_always = True
    _first: Push | None = None

    def _subscribe(self, connection: socket.socket) -> None:
        self._client = http_client(connection)
        self._first = None
        if self.cursor is None:
            self._client.request('GET', f'/cmd?{urlencode({"evt": self._event})}')
            self._first = self._answer()
            self.cursor = f'{self._first["epoch"]}:{self._first["ver"]}'
            if 'r' not in self._first:
                self._first = None
        self._ask()

    def _ask(self) -> None:
        query = urlencode({'evt': self._event, 'since': self.cursor, 'wait': TIMEOUT})
        self._client.request('GET', f'/cmd?{query}')

    def _answer(self) -> Push:
        response = self._client.getresponse()
        data = response.read()
        if response.status != 200:
            raise RefusedError(data)
        push: Push = json.loads(data)
        return push

    def next(self) -> Push:
        """The next push."""
        if (push := self._first) is not None:
            self._first = None
            return push
        push = self._answer()
        self.cursor = f'{push["epoch"]}:{push["ver"]}'
        self._ask()
        return push

    def _close(self) -> None:
        self._client.close()


FACES: list[type[Face]] = [WebSocket, Stream, Poll]


def dial(port: int, buffer: int | None = None) -> socket.socket:
    """A connection; with `buffer`, the system takes no more than about that for who does not read."""
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(TIMEOUT)
    connection.connect(('127.0.0.1', port))
    return connection


def upgrade(*headers: str, path: str = '/', host: str = 'localhost') -> bytes:
    """The request that opens a WebSocket, with these lines besides."""
    lines = [f'{name}: {value}' for name, value in HANDSHAKE.items()]
    return '\r\n'.join([f'GET {path} HTTP/1.1', f'Host: {host}', *lines, *headers, '', '']).encode()


def open_stalled(wsa: WebShoesApp) -> socket.socket:
    """A WebSocket that reads nothing but the handshake, with a small buffer."""
    connection = dial(wsa.port, 4096)
    connection.sendall(upgrade())
    read_head(connection)
    return connection


def read_head(connection: socket.socket) -> str:
    """The head of an answer, and nothing of what follows it."""
    received = b''
    while not received.endswith(b'\r\n\r\n'):
        byte = connection.recv(1)
        assert byte, received
        received += byte
    return received.decode()


def raw_frame(data: bytes, first: int = 0x81) -> bytes:
    """A frame of a client, masked with zeros; `first` is its first byte, that of a whole text unless told."""
    size = len(data)
    if size < 126:
        return struct.pack('>BB4x', first, 0x80 | size) + data
    if size < 65536:
        return struct.pack('>BBH4x', first, 0xFE, size) + data
    return struct.pack('>BBQ4x', first, 0xFF, size) + data


def frame(message: Any) -> bytes:
    """The frame of a message."""
    return raw_frame(json.dumps(message).encode())


def read_frame(stream: BinaryIO) -> tuple[int, bytes] | None:
    """The first byte and the payload of the next frame of a server, `None` at the end."""
    head = stream.read(2)
    if len(head) < 2:
        return None
    size = head[1]
    if size >= 126:
        size = int.from_bytes(stream.read(2 if size == 126 else 8), 'big')
    return head[0], stream.read(size)


def read_message(stream: BinaryIO) -> Any:
    """The next message of a server."""
    found = read_frame(stream)
    assert found is not None
    return json.loads(found[1])


def http_client(connection: socket.socket) -> http.client.HTTPConnection:
    """HTTP over a connection that is there."""
    client = http.client.HTTPConnection('127.0.0.1')
    client.sock = connection
    return client


def read_block(stream: Any) -> dict[str, str]:
    """The next block of an event stream: its fields, comments left out.

    Raises:
        EOFError: the stream has ended.
    """
    block: dict[str, str] = {}
    while True:
        line = stream.readline()
        if not line:
            raise EOFError
        if line == b'\n' and block:
            return block
        name, _, value = line.decode().removesuffix('\n').partition(': ')
        if name and name != ':':
            assert name not in block
            block[name] = value


def until(condition: Callable[[], Any]) -> None:
    """Wait for a state."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, 'this never came to be'
        time.sleep(0.001)


def run_apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives on a thread of its own: where browsers are driven, this one has a loop already."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(asyncio.run, coroutine).result(TIMEOUT)
