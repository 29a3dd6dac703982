"""What the tests share: apps on free ports, and real clients."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from propertybag import Bag

from webshoes import Context, Limits, WebShoesApp, threaded

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

# Where tests run in the background it is ignored, and so it would be in the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

TIMEOUT = 60.0  # seconds after which a test that hangs fails; no test waits for it

Serve = Callable[..., WebShoesApp]


class Peer:
    """A WebSocket client that speaks JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, *messages: Any) -> None:
        """Send messages, each in a frame of its own."""
        for message in messages:
            self.connection.send(json.dumps(message))

    def receive(self) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(self.connection.recv(timeout=TIMEOUT))
        return message

    def ask(self, message: Any) -> dict[str, Any]:
        """Send a message and return the next one that comes."""
        self.send(message)
        return self.receive()

    def subscribe(self, event: str, **fields: Any) -> dict[str, Any]:
        """Subscribe and return the answer's value."""
        answer: dict[str, Any] = self.ask({'evt': event, **fields})['r']
        return answer


OpenPeer = Callable[..., Peer]


class Clock:
    """Seconds that pass when told to, whatever else the machine does meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def go_on(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock in the place of the one that times handlers."""
    clock = Clock()
    monkeypatch.setattr(time, 'perf_counter', clock.perf_counter)
    return clock


def echo(ctx: Context, q: Bag) -> Any:
    """A handler that gives back what it is sent."""
    return q


class Block:
    """A handler that tells when it runs and holds on until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def wait(self) -> str:
        self.entered.set()
        assert self.let_go.wait(TIMEOUT)
        return 'done'

    def sync(self, ctx: Any, q: Any) -> str:
        return self.wait()

    @threaded
    def threaded(self, ctx: Any, q: Any) -> str:
        return self.wait()

    async def coroutine(self, ctx: Any, q: Any) -> str:
        return await asyncio.to_thread(self.wait)

    async def stubborn(self, ctx: Any, q: Any) -> str:
        while not self.let_go.is_set():
            try:
                await self.coroutine(ctx, q)
            except asyncio.CancelledError:
                continue
        return 'done'


def exchange(wsa: WebShoesApp, request: bytes) -> bytes:
    """Send these very bytes, and return all that comes until the server closes the connection."""
    with socket.create_connection(('127.0.0.1', wsa.port), timeout=TIMEOUT) as connection:
        connection.sendall(request)
        received = b''
        while chunk := connection.recv(65536):
            received += chunk
        return received


@pytest.fixture(autouse=True)
def logger_as_it_was() -> Iterator[None]:
    """Undo what an app with `verbose` does to the logger that all apps share."""
    log = logging.getLogger('webshoes')
    level, handlers = log.level, log.handlers[:]
    yield
    log.setLevel(level)
    log.handlers[:] = handlers


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start an app on a free port with these functions in entry `cmd`; it is stopped after the test.

    `serve({'add': add}, opts={...}, limits=Limits(...), loop='asyncio')`; without `limits` the machine may be slow: no
    handler is named for it, no client is closed for it, and handlers that run while the app stops have long.
    """
    with ExitStack() as stack:

        def start(
            fm: dict[str, Any] | None = None, *, opts: dict[str, Any] | None = None, **settings: Any
        ) -> WebShoesApp:
            limits = settings.pop('limits', Limits(slow_handler=None, stall_timeout=None, stop_timeout=TIMEOUT))
            wsa = WebShoesApp('127.0.0.1', 0, opts, limits=limits, **settings)
            wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {} if fm is None else fm)
            return stack.enter_context(wsa)

        yield start


@pytest.fixture
def block() -> Iterator[Block]:
    """A handler that is let go after the test."""
    block = Block()
    yield block
    block.let_go.set()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that stop have long to send what is left, and to close, however slow the machine is."""
    monkeypatch.setattr('webshoes.transports.peer.FLUSH', TIMEOUT)
    monkeypatch.setattr('webshoes.transports.sse.FLUSH', TIMEOUT)
    monkeypatch.setattr('webshoes.transports.server.CLOSING', TIMEOUT)


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that nobody listens on, and (on Linux) nobody else is given before the test has ended."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers have it: so one may listen there
        holder.bind(('127.0.0.1', 0))
        port: int = holder.getsockname()[1]
        if sys.platform != 'linux':
            holder.close()
        yield port


@pytest.fixture
def open_peer() -> Iterator[OpenPeer]:
    """Open a WebSocket to an app (`open_peer(wsa)`, `open_peer(wsa, '/any/path')`); it is closed after the test."""
    from websockets.sync.client import connect  # here, so that tests without sockets do not wait for it

    with ExitStack() as stack:

        def open_one(wsa: WebShoesApp, path: str = '/', **settings: Any) -> Peer:
            url = wsa.url.replace('http', 'ws', 1) + path
            return Peer(
                stack.enter_context(connect(url, max_size=None, max_queue=None, open_timeout=TIMEOUT, **settings))
            )

        yield open_one
