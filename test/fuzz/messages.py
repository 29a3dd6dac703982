"""Mutated messages over WebSocket."""

from __future__ import annotations

import random
from contextlib import suppress

from test.faces import raw_frame, upgrade
from test.fuzz.harness import Server, drain, mutate

EACH = 100  # messages of one connection
LAST = b'{"cmd":"fuzz/echo","q":{"r":"end of it"}}'  # which waits for its turn
ENDS = (b'"end of it"', b'that is not UTF-8')  # its answer, or the reason of a close
SEEDS = [
    b'{"cmd":"fuzz/echo","q":{"a":1,"b":[1,2,{"c":null}]},"tid":"x"}',
    b'{"cmd":"fuzz/wait","tid":7}',
    b'{"cmd":"fuzz/thread","q":null}',
    b'{"cmd":"fuzz/fail","tid":1.5}',
    b'{"cmd":"fuzz/trigger"}',
    b'{"evt":"heat","uid":"u","tid":"x","since":{"ver":1,"epoch":"kQzPmXaB"}}',
    b'{"evt":"heat","uid":"u","off":true}',
    b'{"evt":"heat","off":true}',
    b'{"cancel":7}',
    b'{"ping":1}',
    b'[{"ping":1},{"cmd":"fuzz/echo","q":{}},{"cancel":"x"}]',
]
ALPHABET = [
    *(
        b'{',
        b'}',
        b'[',
        b']',
        b'"',
        b':',
        b',',
        b'\\',
        b'\\u0000',
        b'\\ud800',
        b'null',
        b'true',
        b'NaN',
        b'1e999',
        b'-0',
    ),
    *(
        b'9' * 400,
        b'[' * 2000,
        b'{"a":' * 300,
        b'"__proto__"',
        b'"_"',
        b'"tid"',
        b'"q"',
        b'"as_dict"',
        b'\xff',
        b'\xc3\xa4',
    ),
    *(b'"' + b'x' * 300 + b'"', b'', b' ' * 50, b'\x00'),
]


def fuzz(server: Server, rng: random.Random, most: int) -> int:
    """Messages on one connection, which may end in any way."""
    count = min(EACH, most)
    messages = [mutate(rng, rng.choice(SEEDS), ALPHABET).decode(errors='replace').encode() for _ in range(count)]
    if rng.random() < 0.1:
        messages[-1] = b'\xff'
    with server.dial() as connection:
        frames = [raw_frame(it, 0x82 if rng.random() < 0.01 else 0x81) for it in messages]
        connection.sendall(upgrade() + b''.join(frames) + raw_frame(LAST))
        received = b''
        with suppress(ConnectionError):
            while not any(it in received for it in ENDS) and (chunk := connection.recv(65536)):
                received = received[-20:] + chunk
            connection.sendall(raw_frame(b'\x03\xe8', 0x88))
        drain(connection)
    return count
