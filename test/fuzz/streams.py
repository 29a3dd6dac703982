"""Mutated bytes on raw sockets: HTTP and frames."""

from __future__ import annotations

import random
import socket
import struct
from contextlib import suppress

from test.faces import raw_frame, upgrade
from test.fuzz.harness import Server, drain, mutate

BODY = (
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="n"\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n'
)
HOST = b' HTTP/1.1\r\nHost: localhost\r\n'
SEEDS = [
    b'GET /fuzz/echo?a=1&b=2' + HOST + b'\r\n',
    b'GET /fuzz?evt=heat' + HOST + b'\r\n',
    b'GET /fuzz?evt=heat' + HOST + b'Accept: text/event-stream\r\nLast-Event-ID: a:1\r\n\r\n',
    b'HEAD /webshoes.js' + HOST + b'Range: bytes=1-5\r\n\r\n',
    b'POST /fuzz/echo' + HOST + b'Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}',
    b'POST /fuzz/echo' + HOST + b'Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\na=1&b=2',
    b'POST /fuzz/echo' + HOST + b'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n'
    b'7\r\n{"a":1}\r\n0\r\n\r\n',
    b'POST /fuzz/echo' + HOST + b'Content-Type: multipart/form-data; boundary=b\r\nContent-Length: '
    b'%d\r\n\r\n' % len(BODY) + BODY,
    b'OPTIONS /fuzz/echo' + HOST + b'Origin: http://a\r\nAccess-Control-Request-Method: GET\r\n\r\n',
    upgrade() + raw_frame(b'{"ping":1}') + raw_frame(b'', 0x89) + raw_frame(b'\x03\xe8', 0x88),
    upgrade()
    + raw_frame(b'{"cmd":"fu', 0x01)
    + raw_frame(b'ping', 0x89)
    + raw_frame(b'zz/echo"}', 0x80)
    + raw_frame(b'', 0x88),
]
ALPHABET = [
    *(b'\r\n', b'\r\n\r\n', b'\n', b'\r', b':', b' ', b'\x00', b'\xff', b'%', b'%00', b'%ff', b'../', b'?', b'&', b';'),
    *(
        b'-1',
        b'99999999999999999999',
        b'chunked',
        b'Content-Length: 5\r\n',
        b'Transfer-Encoding: gzip\r\n',
        b'a' * 9000,
    ),
    *(
        b'Expect: 100-continue\r\n',
        b'Content-Encoding: gzip\r\n',
        b'HTTP/9.9',
        b'X: y\r\n' * 200,
        b'\x88\x80',
        b'\xff' * 9,
    ),
]


def fuzz(server: Server, rng: random.Random, most: int) -> int:
    """One stream, whole or in two pieces, and then an end, a reset, or no more to come."""
    data = b''.join(mutate(rng, rng.choice(SEEDS), ALPHABET) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    with server.dial() as connection, suppress(OSError):  # it may be closed already
        cut = rng.randrange(len(data) + 1)
        connection.sendall(data[:cut])
        connection.sendall(data[cut:])
        kind = rng.randrange(4)
        if kind == 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        elif kind == 1:
            connection.settimeout(0.01)  # for a first answer, which need not come
            with suppress(TimeoutError):
                connection.recv(65536)
        elif kind == 2:
            connection.shutdown(socket.SHUT_WR)
            drain(connection)
    return 1
