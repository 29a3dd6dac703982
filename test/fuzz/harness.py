"""What the fuzzers share: a server in a process of its own, and mutations."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds in which a server that is well has answered, and let go of what has ended


class Server:
    """The server that is fuzzed.

    Args:
        loop: `'asyncio'` or `'uvloop'`.
    """

    def __init__(self, loop: str) -> None:
        # asyncio reads into 256 KiB at a time. Once such a buffer was freed, glibc takes the next ones from its heap,
        # where what is left of each makes holes: it grows, while nothing is held. Set, this limit stays as it is.
        environ = {**os.environ, 'MALLOC_MMAP_THRESHOLD_': '131072'} if loop == 'asyncio' else None
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'test.fuzz.server', loop],
            cwd=Path(__file__).parent.parent.parent,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline() or sys.exit('the server has died')

    def state(self, collect: bool = False) -> dict[str, Any]:
        """How it stands, if need be after its garbage was collected."""
        assert self._process.stdin is not None
        self._process.stdin.write('collect\n' if collect else '\n')
        self._process.stdin.flush()
        return json.loads(self._line())  # type: ignore[no-any-return]

    def dial(self) -> socket.socket:
        """A connection."""
        connection = socket.create_connection(('127.0.0.1', self.port), timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def tasks(self) -> int:
        """How many tasks it has, as a plain request is told."""
        client = http.client.HTTPConnection('127.0.0.1', self.port, timeout=PATIENCE)
        client.request('GET', '/fuzz/tasks')
        count = int(client.getresponse().read())
        client.close()
        return count

    def close(self) -> None:
        """Have it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def mutate(rng: random.Random, data: bytes, alphabet: list[bytes]) -> bytes:
    """A few places of some bytes changed: bits flipped, parts cut out, doubled, or replaced by something telling."""
    found = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 4, 8))):
        at = rng.randrange(len(found) + 1)
        until = min(at + rng.choice((1, 1, 2, 5, 20)), len(found))
        kind = rng.randrange(4)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del found[at:until]
        elif kind == 2:
            found[at:at] = found[at:until] * rng.choice((1, 1, 3, 50))
        else:
            found[at:until] = rng.choice(alphabet)
    return bytes(found)


def drain(connection: socket.socket) -> None:
    """Read until the server closes."""
    with suppress(ConnectionError):
        while connection.recv(65536):
            pass
