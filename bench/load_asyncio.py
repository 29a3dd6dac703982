#!/usr/bin/env python3
"""The load of `load.c`, which see for the arguments and what is printed, where there is no C compiler.

It takes more CPU time than some of the servers: what it prints of its own is to be looked at.
"""

from __future__ import annotations

import asyncio
import json
import math
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MASK = b'\x37\xfa\x21\x3d'
CONNECTING = 100  # handshakes at a time
PATIENCE = 20.0  # seconds without a word
FIRST = 20  # events that all have before a window of fan-outs begins: see load.c
PING, PONG, CLOSE = 0x89, 10, 0x88
HANDSHAKE = (
    'GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
    'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
)


def fail(why: str) -> None:
    """Tell why, and end."""
    print(json.dumps({'failed': why}), flush=True)
    sys.exit(1)


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """A masked frame."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    else:
        head = bytes((0x80 | opcode, 254 if size < 65536 else 255)) + size.to_bytes(2 if size < 65536 else 8, 'big')
    mask = MASK * (size // 4 + 1)
    masked = int.from_bytes(payload, 'big') ^ int.from_bytes(mask[:size], 'big')
    return head + MASK + masked.to_bytes(size, 'big')


@dataclass
class Script:
    """What is sent: greetings with what is expected of their answers, and frames or requests."""

    hello: list[tuple[bytes, bytes, bool]] = field(default_factory=list)
    calls: list[bytes] = field(default_factory=list)
    fire: bytes = b''

    @classmethod
    def read(cls, path: str, is_http: bool) -> Script:
        """Of a file."""
        script = cls()
        for line in Path(path).read_bytes().splitlines():
            kind, *rest = line.split(b'\t')
            if not rest:
                continue
            if kind == b'call':
                text = rest[0].replace(b'\\r', b'\r').replace(b'\\n', b'\n') if is_http else frame(rest[0])
                script.calls.append(text)
            elif kind == b'fire':
                script.fire = frame(rest[0])
            else:
                script.hello.append((rest[0], rest[1], kind == b'subscribe'))
        return script


class Window:
    """Counts, from the end of the warm-up on."""

    def __init__(self, warm: float, first: int, seconds: float, pid: int, is_rate: bool) -> None:
        self._clock = ~pid << 3 | 2
        self._warm, self._first, self._seconds = warm, first, seconds
        self._is_open, self._is_rate = False, is_rate
        self.heard = time.monotonic()
        self._started = self._own = self._server = 0.0
        self.messages = self.errors = self.fires = 0
        self.latencies: list[float] = []

    def start(self) -> None:
        """All are connected."""
        self._started = time.monotonic()
        print('ready', flush=True)

    def look(self) -> None:
        """Open it, or close it and report, when it is time."""
        passed = time.monotonic() - self._started
        if self._is_open:
            used = passed if self._is_rate else time.clock_gettime(self._clock) - self._server
            if used >= self._seconds:
                self.report()
        elif passed >= self._warm and self.messages >= self._first:
            self._is_open = True
            self.messages = self.errors = self.fires = 0
            self.latencies.clear()
            self._started, self._own = time.monotonic(), time.process_time()
            self._server = time.clock_gettime(self._clock)

    def report(self) -> None:
        """Tell what came, and end."""
        passed = time.monotonic() - self._started
        late = sorted(self.latencies)
        quantiles = {
            name: late[math.ceil(q * len(late)) - 1] if late else 0
            for name, q in (('p50', 0.5), ('p99', 0.99), ('p999', 0.999), ('max', 1))
        }
        done = {'messages': self.messages, 'seconds': passed, 'errors': self.errors, 'fires': self.fires}
        cpu = {
            'server_cpu': time.clock_gettime(self._clock) - self._server,
            'load_cpu': time.process_time() - self._own,
        }
        print(json.dumps({**done, **cpu, 'samples': len(late), **quantiles}), flush=True)
        sys.exit(0)


class Connection(asyncio.Protocol):
    """One connection; `got` is called with the beginning of each message."""

    def __init__(self, load: Load, number: int, is_control: bool) -> None:
        self.load, self.number = load, number
        self.hello = [entry for entry in load.script.hello if not (is_control and entry[2])]
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.got: Callable[[Connection, bytes], None] = lambda connection, start: None
        self.slot = self.turn = self.waiting = 0
        self.is_busy = self.got_last = False
        self._data = bytearray()
        self._read = self._read_answer if load.mode == 'http' else self._read_upgrade

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.load.mode == 'http':
            self.ready.set_result(None)
        else:
            transport.write(HANDSHAKE.format(self.load.path, self.load.port).encode())

    def connection_lost(self, exc: Exception | None) -> None:
        """The server is not to do that."""
        fail('the server closed a connection')

    def data_received(self, data: bytes) -> None:
        """Go through the messages that are whole."""
        self.load.window.heard = time.monotonic()
        self._data += data
        while self._read():
            pass

    def call(self) -> None:
        """Send the next of the calls."""
        self.transport.write(self.load.script.calls[self.slot])
        self.slot = (self.slot + 1) % len(self.load.script.calls)

    def _greet(self) -> None:
        if self.hello:
            self.transport.write(frame(self.hello[0][1].replace(b'@@@@@@', b'%06d' % self.number)))
        else:
            self.ready.set_result(None)

    def _read_upgrade(self) -> bool:
        head, found, rest = self._data.partition(b'\r\n\r\n')
        if found:
            if head[9:12] != b'101':
                fail('no upgrade')
            self._data, self._read = rest, self._read_frame
            self._greet()
        return bool(found)

    def _read_answer(self) -> bool:
        end = self._data.find(b'\r\n\r\n') + 4
        if end < 4:
            return False
        head = bytes(self._data[:end]).lower()
        _, found, rest = head.partition(b'\r\ncontent-length:')
        if not found:
            fail('an answer without Content-Length')
        size = int(rest.partition(b'\r')[0])
        if len(self._data) < end + size:
            return False
        start = bytes(self._data[end : end + min(size, 256)]) if head[9:12] == b'200' else b'"error"'
        del self._data[: end + size]
        self.got(self, start)
        return True

    def _read_frame(self) -> bool:
        data = self._data
        if len(data) < 2:
            return False
        opcode, size = data[0], data[1]
        head = {126: 4, 127: 10}.get(size, 2)
        if head > 2:
            size = int.from_bytes(data[2:head], 'big')
        if len(data) < head + size:
            return False
        start = bytes(data[head : head + min(size, 256)])
        del data[: head + size]
        self._got_frame(opcode, start)
        return True

    def _got_frame(self, opcode: int, start: bytes) -> None:
        if opcode == CLOSE:
            fail('the server said goodbye')
        elif opcode == PING:
            self.transport.write(frame(start, PONG))
        elif start == b'2':  # Engine.IO has pings of its own
            self.transport.write(frame(b'3'))
        elif self.ready.done():
            self.got(self, start)
        elif self.hello[0][0] in start:
            self.hello.pop(0)
            self._greet()


class Load:
    """All connections, and what they do."""

    def __init__(self, arguments: list[str]) -> None:
        port, self.path, self.mode, script, total, warm, seconds, pid, rate = arguments
        self.port, self.total, self.rate = int(port), int(total), float(rate)
        self.script = Script.read(script, self.mode == 'http')
        first = FIRST * int(total) if self.mode == 'fan' else 0
        self.window = Window(float(warm), first, float(seconds), int(pid), self.mode == 'rate')
        self.scheduled = self.last = 0

    async def _connect(self, number: int) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self, number, number == self.total), '127.0.0.1', self.port
        )
        await connection.ready
        return connection

    async def run(self) -> None:
        """Connect, and go on until the window ends the program."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.window.report)
        self.connections: list[Connection] = []
        wanted = self.total + (self.mode == 'fan')
        for first in range(0, wanted, CONNECTING):
            numbers = range(first, min(first + CONNECTING, wanted))
            async with asyncio.timeout(PATIENCE):
                self.connections += await asyncio.gather(*map(self._connect, numbers))
        self.window.start()
        if self.mode == 'hold':
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            return
        if self.mode == 'fan':
            self._fan()
        elif self.mode == 'rate':
            await self._rate()
        else:
            self._call()
        while True:
            await asyncio.sleep(0.01)
            if time.monotonic() - self.window.heard > PATIENCE:
                fail('silence')
            if self.mode != 'fan':
                self.window.look()

    def _count(self, start: bytes) -> None:
        self.window.messages += 1
        self.window.errors += b'"error"' in start[:64]

    def _call(self) -> None:
        def got(connection: Connection, start: bytes) -> None:
            self._count(start)
            connection.call()

        for connection in self.connections:
            connection.got = got
            for _ in self.script.calls:
                connection.call()

    def _fan(self) -> None:
        control = self.connections.pop()

        def fire() -> None:
            self.last = 0
            for connection in self.connections:
                connection.got_last = False
            self.fired = time.monotonic()
            control.transport.write(self.script.fire)

        def got(connection: Connection, start: bytes) -> None:
            self._count(start)
            if connection.got_last or b'"last"' not in start:
                return
            connection.got_last = True
            self.last += 1
            if self.last == self.total:
                self.window.latencies.append(time.monotonic() - self.fired)
                self.window.fires += 1
                self.window.look()  # a window begins and ends between two fan-outs
                fire()

        for connection in self.connections:
            connection.got = got
        fire()

    async def _rate(self) -> None:
        started = time.monotonic()

        def call_next(connection: Connection) -> None:
            if not connection.is_busy and connection.waiting:
                connection.waiting -= 1
                connection.is_busy = True
                connection.call()

        def got(connection: Connection, start: bytes) -> None:
            self._count(start)
            due = started + (connection.turn * self.total + connection.number) / self.rate
            self.window.latencies.append(time.monotonic() - due)
            connection.turn += 1
            connection.is_busy = False
            call_next(connection)

        for connection in self.connections:
            connection.got = got
        while True:
            while started + self.scheduled / self.rate <= time.monotonic():
                connection = self.connections[self.scheduled % self.total]
                connection.waiting += 1
                call_next(connection)
                self.scheduled += 1
            self.window.look()
            await asyncio.sleep(max(started + self.scheduled / self.rate - time.monotonic(), 0))


if __name__ == '__main__':
    asyncio.run(Load(sys.argv[1:]).run())
