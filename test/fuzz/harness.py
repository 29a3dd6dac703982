"""What the fuzzers share: a server in a process of its own, mutations, the pace, and the verdict."""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds in which a server that is well has answered, and let go of what has ended
GROWTH = 1.1  # of its memory after it was warm


class Server:
    """The server that is fuzzed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name('server.py'))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline() or sys.exit('the server has died')

    def state(self) -> dict[str, Any]:
        """How it stands."""
        assert self._process.stdin is not None
        self._process.stdin.write('\n')
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


def main(what: str, fuzz: Callable[[Server, random.Random, int], int]) -> None:
    """Fuzz, and tell how it went.

    Args:
        what: what is counted.
        fuzz: sends up to so many, and returns how many there were.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument('--count', type=int, default=2000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument(
        '--slack', type=int, default=0, help='MiB that memory may grow besides: a short run warms nothing'
    )
    args = parser.parse_args()
    rng, server, started = random.Random(args.seed), Server(), time.monotonic()
    done, told, warm = 0, started, 0
    tasks = server.tasks()
    print(f'{args.count} {what}, seed {args.seed}', flush=True)
    while done < args.count:
        done += fuzz(server, rng, args.count - done)
        if not warm and done >= args.count / 2:
            warm = server.state()['rss']
        if (now := time.monotonic()) - told >= 1:
            told = now
            print(f'  {done:7} {what}   {done / (now - started):6.0f} a second', flush=True)
    deadline = time.monotonic() + PATIENCE
    while (state := server.state())['connections'] or server.tasks() > tasks:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    left, state = server.tasks() - tasks, server.state()
    server.close()
    troubles = [
        *state['errors'],
        *([f'{state["connections"]} connections are left'] if state['connections'] else []),
        *([f'{left} tasks are left'] if left > 0 else []),
        *(
            [f'memory grew from {warm} to {state["rss"]} KiB']
            if state['rss'] > warm * GROWTH + args.slack * 1024
            else []
        ),
    ]
    seconds = time.monotonic() - started
    print(*(f'  TROUBLE: {trouble}' for trouble in troubles), sep='\n', end='\n' if troubles else '')
    verdict = 'again with the same seed' if troubles else 'the server is well'
    memory = f'{warm / 1024:.0f} MiB when warm, {state["rss"] / 1024:.0f} at the end'
    print(f'{done} {what} in {seconds:.0f} s, {memory}, nothing left: {verdict}' if not troubles else f'{verdict}')
    sys.exit(bool(troubles))
