#!/usr/bin/env python3
"""What one stalled client costs: `python3 bench/stall.py`.

Some readers take every version of an event, in a process of their own; rounds with and without one more client, which
subscribes and reads nothing, take turns. Printed are the rate of the readers in each, the ratio of the medians, what
the server holds for the stalled one, and what it gets when it reads on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import webshoes as ws

WINDOW = 2000  # versions that the readers may be behind before the next is triggered
PING, PONG = 0x89, b'\x8a\x80\0\0\0\0'
STEP = 100  # versions between two words of where they are
HANDSHAKE = (
    b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
    b'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
)


def frame(message: Any) -> bytes:
    """A short text frame of a client, masked with zeros."""
    data = json.dumps(message).encode()
    return bytes((0x81, 0x80 | len(data), 0, 0, 0, 0)) + data


class Reader(asyncio.Protocol):
    """A client that checks each version and keeps none."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.ver = 0
        self._rest = b''

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Subscribe."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        transport.write(HANDSHAKE + frame({'evt': 'e', 'uid': 'u', 'since': {'ver': 0}}))

    def data_received(self, data: bytes) -> None:
        """Go through the frames."""
        data, at = self._rest + data, 0
        if not self.ver and (end := data.find(b'\r\n\r\n')) >= 0 and data[:4] == b'HTTP':
            at = end + 4
        while len(data) >= at + 4:
            size, head = data[at + 1], 2
            if size == 126:
                size, head = int.from_bytes(data[at + 2 : at + 4], 'big'), 4
            if len(data) < at + head + size:
                break
            if data[at] == PING:
                self.transport.write(PONG)
            else:
                self._check(data[at + head : at + head + 60])
            at += head + size
        self._rest = data[at:]
        self.progress.tell()

    def _check(self, start: bytes) -> None:
        _, found, rest = start.partition(b'"u","ver":')
        if found and rest[:1].isdigit():
            ver = int(rest.partition(b',')[0])
            if ver != self.ver + 1 or b'"from"' in rest:
                sys.exit(f'version {ver} came after {self.ver}')
            self.ver = ver


class Progress:
    """Tells the server what the slowest reader has, so that it triggers no more than they can take."""

    def __init__(self) -> None:
        self.readers: list[Reader] = []
        self.told = 0

    def tell(self) -> None:
        """Look whether the slowest has come further."""
        slowest = min((reader.ver for reader in self.readers), default=0)
        if slowest // STEP > self.told // STEP:
            self.told = slowest
            self.readers[0].transport.write(frame({'cmd': 'cmd/reached', 'q': {'ver': slowest}}))


async def read(port: int, count: int) -> None:
    """Be all the readers, until the server goes."""
    progress = Progress()
    for _ in range(count):
        _, reader = await asyncio.get_running_loop().create_connection(lambda: Reader(progress), '127.0.0.1', port)
        progress.readers.append(reader)
    await asyncio.Event().wait()


class Bench:
    """The server, and the thread that triggers."""

    def __init__(self, size: int) -> None:
        self.wsa = ws.WebShoesApp('127.0.0.1', 0, limits=ws.Limits(history_bytes=1 << 30, stall_timeout=None))
        self.wsa.event('e', history=5 * WINDOW)
        self.wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'reached': self.reached})
        self.value = 'x' * size
        self.news = threading.Condition()
        self.slowest = 0

    def reached(self, ctx: ws.Context, q: Any) -> None:
        """The slowest reader has come so far."""
        with self.news:
            self.slowest = q.ver
            self.news.notify()

    def round(self, events: int) -> float:
        """Trigger so many, and wait for all readers: events a second."""
        started = time.perf_counter()
        first = self.wsa.event('e').ver
        for ver in range(first + 1, first + events + 1):
            self.wsa.triggerEvent('e', self.value)
            if ver % STEP == 0:
                self.wait(ver - WINDOW)
        self.wait(first + events)
        return events / (time.perf_counter() - started)

    def wait(self, ver: int) -> None:
        """Wait until the slowest reader has a version."""
        with self.news:
            self.news.wait_for(lambda: self.slowest >= ver)


def stalled(port: int) -> socket.socket:
    """A client that subscribes and reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(('127.0.0.1', port))
    client.sendall(HANDSHAKE + frame({'evt': 'e', 'uid': 's', 'since': {'ver': 0}}))
    return client


def catch_up(client: socket.socket, newest: int) -> tuple[int, int]:
    """Read on to the newest version: how many came, how many were declared gone; a gap in silence ends the program."""
    came = gone = ver = 0
    with client.makefile('rb') as stream:
        while stream.readline() != b'\r\n':
            pass
        while ver < newest:
            size = stream.read(2)[1]
            if size >= 126:
                size = int.from_bytes(stream.read(2 if size == 126 else 8), 'big')
            push = json.loads(stream.read(size))
            if 'evt' in push:
                if push.get('from', push['ver']) != ver + 1:
                    sys.exit(f'version {push["ver"]} came after {ver}, and no word of what is between')
                came, gone, ver = came + 1, gone + push['ver'] - ver - 1, push['ver']
    return came, gone


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--events', type=int, default=100_000, help='while one is stalled, in hundreds (%(default)s)')
    parser.add_argument('--readers', type=int, default=99, help='that take everything (%(default)s)')
    parser.add_argument('--size', type=int, default=1000, help='bytes of an event (%(default)s)')
    parser.add_argument('--rounds', type=int, default=5, help='of each kind (%(default)s)')
    parser.add_argument('--read', type=int, metavar='PORT', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        asyncio.run(read(args.read, args.readers))
    bench = Bench(args.size)
    rates: dict[str, list[float]] = {'without': [], 'with': []}
    with bench.wsa:
        command = [sys.executable, __file__, '--read', str(bench.wsa.port), '--readers', str(args.readers)]
        readers = subprocess.Popen(command)
        try:
            while len(bench.wsa.subscribers('e')) < args.readers:
                time.sleep(0.05)
            bench.round(WINDOW)  # to warm up
            for number in range(args.rounds):
                rates['without'].append(bench.round(args.events // args.rounds))
                client = stalled(bench.wsa.port)
                while len(bench.wsa.subscribers('e')) <= args.readers:
                    time.sleep(0.01)
                rates['with'].append(bench.round(args.events // args.rounds))
                conn = bench.wsa.subscribers('e')[-1]
                behind = conn.subscriptions[0].lag
                held = conn.buffered
                came, gone = catch_up(client, bench.wsa.event('e').ver)
                client.close()
                print(
                    f'round {number + 1}: {rates["without"][-1]:,.0f} events/s without, {rates["with"][-1]:,.0f} with; '
                    f'the stalled one was {behind:,} versions behind, for which the server held {held:,} bytes; '
                    f'then it got {came:,}, and {gone:,} were declared gone',
                    flush=True,
                )
        finally:
            readers.kill()
            readers.wait()
    ratios = [a / b for a, b in zip(rates['with'], rates['without'], strict=True)]
    ratio = statistics.median(rates['with']) / statistics.median(rates['without'])
    print(
        f'{args.readers} readers of {args.size} bytes: {ratio:.3f} of the rate while one is stalled '
        f'(rounds {min(ratios):.3f} to {max(ratios):.3f}); every reader got every version'
    )


if __name__ == '__main__':
    main()
