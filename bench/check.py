"""Whether a server does the work that is measured: asked once, before the first round."""

from __future__ import annotations

import json
import socket
from typing import IO, Any

from peers import Peer
from server import Server, ServerError

KEY = 'dGhlIHNhbXBsZSBub25jZQ=='


class Client:
    """A WebSocket for short messages."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(('127.0.0.1', server.port), timeout=10)
        self._stream: IO[bytes] = self._socket.makefile('rb')
        head = (
            f'GET {server.peer.path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: Upgrade\r\n'
            f'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n'
        )
        self._socket.sendall(head.encode())
        while (line := self._stream.readline()) != b'\r\n':
            if not line:
                raise ServerError('it does not upgrade to a WebSocket')

    def send(self, text: str) -> None:
        """Send it."""
        data = text.encode()
        size = bytes((0x80 | len(data),)) if len(data) < 126 else b'\xfe' + len(data).to_bytes(2, 'big')
        self._socket.sendall(b'\x81' + size + b'\0\0\0\0' + data)

    def receive(self, part: str) -> str:
        """The next text that holds `part`."""
        for _ in range(10):
            head = self._stream.read(2)
            if len(head) < 2 or head[0] == 0x88:
                break
            size = head[1] if head[1] < 126 else int.from_bytes(self._stream.read(2), 'big')
            text = self._stream.read(size).decode()
            if part in text:
                return text
        raise ServerError(f'no message with {part}')

    def close(self) -> None:
        """Leave."""
        self._stream.close()
        self._socket.close()


def same(found: Any, wanted: Any) -> None:
    """Raise unless they are."""
    if found != wanted:
        raise ServerError(f'it answers {found!r} and not {wanted!r}')


def check(server: Server) -> None:
    """Raise `ServerError` where the work is not done."""
    peer = server.peer
    if peer.has_http:
        same(json.loads(server.ask('/cmd/add?a=1&b=2')), {'result': 3})
        kind, body = peer.post
        same(json.loads(server.ask('/cmd/add', body, kind)), {'result': 3})
    client = Client(server)
    try:
        for expected, text in (line.split('\t') for line in peer.dialect.hello):
            client.send(text)
            client.receive(expected)
        _check_messages(client, peer)
    finally:
        client.close()


def _check_messages(client: Client, peer: Peer) -> None:
    is_plain = not peer.dialect.hello
    client.send(peer.dialect.call(7, 'add', {'a': 1, 'b': 2}))
    reply = client.receive('result')
    if is_plain:
        found = json.loads(reply)
        same(({**found, 't': 0}, found['t'] > 1e9), ({'r': {'result': 3}, 'tid': 7, 't': 0}, True))
    else:
        same(reply, '437[{"result":3}]')
    expected, text = peer.dialect.subscribe('check').split('\t')
    client.send(text.replace('@@@@@@', '000042'))
    client.receive(expected)
    client.send(peer.dialect.fire('check', 2, 10))
    for mark in ('more', 'last'):
        push = client.receive(f'"{mark}"')
        if is_plain:
            found = json.loads(push)
            same((found['evt'], found['r']['text'], 'ver' in found, 't' in found), ('check', 'x' * 10, True, True))
        if peer.has_uid:
            same(found['uid'], '000042')
