"""Forked children: they hold nothing of their parent's servers, and can serve with an app of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest
import requests
import trustme

import webshoes as ws
from test.conftest import TIMEOUT, OpenPeer, Serve
from test.faces import upgrade

LoopName = Literal['uvloop', 'asyncio']
FORK = multiprocessing.get_context('fork')

pytestmark = pytest.mark.filterwarnings('ignore:.*use of fork:DeprecationWarning')
loops = pytest.mark.parametrize('loop', ['uvloop', 'asyncio'])


class Child:
    """A forked child that runs a function, tells what it gave, and lives until it is let go."""

    def __init__(self, fn: Callable[[], Any]) -> None:
        reader, writer = os.pipe()
        self._gate, gate = os.pipe()[::-1]
        self.pid = os.fork()
        if not self.pid:
            signal.alarm(int(TIMEOUT))
            os.close(self._gate)
            with os.fdopen(writer, 'w') as answer:
                try:
                    json.dump(fn(), answer)
                except BaseException as exc:
                    json.dump(repr(exc), answer)
            os.read(gate, 1)
            os._exit(0)
        os.close(writer)
        os.close(gate)
        with os.fdopen(reader) as found:
            self.result = json.load(found)

    def close(self) -> None:
        """Let it go."""
        os.close(self._gate)
        os.waitpid(self.pid, 0)


@pytest.fixture
def fork() -> Iterator[Callable[[Callable[[], Any]], Child]]:
    """Fork a child that runs a function; it lives until the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(fn: Callable[[], Any]) -> Child:
            child = Child(fn)
            stack.callback(child.close)
            return child

        yield start


Fork = Callable[[Callable[[], Any]], Child]


def nothing() -> None:
    """Be a child that does nothing."""


def local_ports() -> list[int]:
    """The ports at this end of all sockets of this process."""
    found = []
    for entry in list(Path('/dev/fd').iterdir()):
        with contextlib.suppress(OSError):
            one = socket.socket(fileno=int(entry.name))
            found.append(one.getsockname()[1] if one.family in (socket.AF_INET, socket.AF_INET6) else 0)
            one.detach()
    return found


def sentence(fn: Callable[[], Any]) -> str:
    """Return the message of the RuntimeError that a function raises here."""
    try:
        fn()
    except RuntimeError as exc:
        return str(exc)
    return 'done'


@pytest.fixture(scope='module')
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    folder = tmp_path_factory.mktemp('tls')
    issued = trustme.CA().issue_cert('127.0.0.1')
    issued.private_key_pem.write_to_path(folder / 'key.pem')
    issued.cert_chain_pems[0].write_to_path(folder / 'cert.pem')
    return folder / 'cert.pem', folder / 'key.pem'


def connect(port: int, is_tls: bool) -> socket.socket:
    """A connection to an app."""
    plain = socket.create_connection(('127.0.0.1', port), timeout=TIMEOUT)
    if not is_tls:
        return plain
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain)


def read_to_the_end(client: socket.socket) -> None:
    """Return when the peer has ended a connection, and end it."""
    with client, contextlib.suppress(ConnectionError):
        while client.recv(4096):
            pass


# --- sockets ---


@loops
@pytest.mark.parametrize('is_tls', [False, True], ids=['plain', 'tls'])
def test_a_child_lets_go_of_all_sockets(
    loop: LoopName, is_tls: bool, tls: tuple[Path, Path], fork: Fork, serve: Serve
) -> None:
    """A child keeps no connection and no port: the parent serves on, and what it closes is closed."""
    wsa = serve({'ping': lambda ctx, q: 'pong'}, loop=loop, ssl=tls if is_tls else None)
    port = wsa.port
    with contextlib.ExitStack() as stack:
        kept, websocket = (stack.enter_context(connect(port, is_tls)) for _ in range(2))
        if loop == 'asyncio' or not is_tls:  # uvloop warns of a handshake of TLS that goes on when a loop is closed
            stack.enter_context(socket.create_connection(('127.0.0.1', port)))
        websocket.sendall(upgrade())
        assert websocket.recv(12) == b'HTTP/1.1 101'
        child = fork(local_ports)
        assert port not in child.result
        other = stack.enter_context(connect(port, is_tls))
        for client in (kept, other):
            client.sendall(b'GET /cmd/ping HTTP/1.1\r\nHost: localhost\r\n\r\n')
            assert client.recv(4096).endswith(b'pong')
        with ThreadPoolExecutor() as threads:
            ends = [threads.submit(read_to_the_end, client) for client in (kept, other, websocket)]
            wsa.stop()
            assert [end.result(TIMEOUT) for end in ends] == [None] * 3
        with ws.WebShoesApp('127.0.0.1', port):  # the port is free
            pass


@loops
def test_a_child_lets_go_of_a_unix_socket(loop: LoopName, tmp_path: Path, fork: Fork) -> None:
    """A client over a Unix domain socket sees the end while a child lives, and the child does not remove the file."""
    path = tmp_path / 's'
    with ws.WebShoesApp(f'unix:{path}', 0, loop=loop) as wsa, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(str(path))
        fork(wsa.stop)
        assert path.exists()
        wsa.stop()
        assert client.recv(1) == b''


def test_a_child_keeps_the_sockets_of_the_program(serve: Serve, fork: Fork) -> None:
    """Sockets that are not the server's stay open in a child, also one that is connected to the server."""
    wsa = serve()
    with socket.create_server(('127.0.0.1', 0)) as own, socket.create_connection(('127.0.0.1', wsa.port)) as client:
        ports = [own.getsockname()[1], client.getsockname()[1]]
        assert [port for port in ports if port in fork(local_ports).result] == ports


def test_a_port_of_the_past_is_the_programs(fork: Fork) -> None:
    """After the server has stopped, the program's own socket on its port stays open in a child."""
    with ws.WebShoesApp('127.0.0.1', 0) as wsa:
        port = wsa.port
    with socket.create_server(('127.0.0.1', port)):
        assert port in fork(local_ports).result


def handlers(forks: Callable[[], Any]) -> dict[str, Any]:
    async def coroutine(ctx: Any, q: Any) -> Any:
        return forks()

    return {
        'plain': lambda ctx, q: forks(),
        'coroutine': coroutine,
        'threaded': ws.threaded(lambda ctx, q: forks()),
        'to_thread': lambda ctx, q: asyncio.to_thread(forks),
        'ping': lambda ctx, q: 'pong',
    }


KINDS = ['plain', 'coroutine', 'threaded', 'to_thread']


@loops
@pytest.mark.parametrize('kind', KINDS)
def test_a_handler_forks(loop: LoopName, kind: str, serve: Serve, fork: Fork) -> None:
    """A child that a handler forks holds nothing either, and the handler goes on in the parent."""
    wsa = serve(handlers(lambda: fork(local_ports).result), loop=loop)
    for _ in range(2):  # the long lane, then the fast one
        assert wsa.port not in requests.get(f'{wsa.url}/cmd/{kind}', timeout=TIMEOUT).json()
    assert requests.get(f'{wsa.url}/cmd/ping', timeout=TIMEOUT).text == 'pong'


@loops
@pytest.mark.parametrize('kind', KINDS)
def test_a_handler_that_returns_in_the_child_too(loop: LoopName, kind: str, serve: Serve) -> None:
    """A child ends when the handler returns there, and the answer comes from the parent alone."""
    wsa = serve(handlers(os.fork), loop=loop)
    pid = requests.get(f'{wsa.url}/cmd/{kind}', timeout=TIMEOUT).json()
    assert os.waitpid(pid, 0) == (pid, 0)
    assert requests.get(f'{wsa.url}/cmd/ping', timeout=TIMEOUT).text == 'pong'


def double(number: int) -> int:
    return 2 * number


@loops
def test_pools_of_processes_work(loop: LoopName, serve: Serve) -> None:
    """Pools of forked processes, made beside a server and by its handlers, work, and hold no port."""

    def crunch(ctx: Any = None, q: Any = None) -> list[int]:
        with FORK.Pool(2) as pool, ProcessPoolExecutor(2, FORK) as executor:
            return [*pool.map(double, range(3)), *executor.map(double, range(3))]

    wsa = serve({'crunch': crunch, 'threaded': ws.threaded(lambda ctx, q: crunch())}, loop=loop)
    for name in ('crunch', 'threaded'):
        assert requests.get(f'{wsa.url}/cmd/{name}', timeout=TIMEOUT).json() == [0, 2, 4, 0, 2, 4]
    with ProcessPoolExecutor(2, FORK) as executor:
        assert list(executor.map(double, range(3))) == [0, 2, 4]
        port = wsa.port
        wsa.stop()
        with ws.WebShoesApp('127.0.0.1', port):  # while the workers live
            pass


def test_other_ways_to_make_processes_go_on(serve: Serve) -> None:
    """Programs that are started, with code in between or not, and spawned children are as without a server."""
    serve()
    for settings in ({}, {'close_fds': False}, {'preexec_fn': nothing}):
        run: Any = subprocess.run
        assert run([sys.executable, '-c', ''], timeout=TIMEOUT, **settings).returncode == 0
    for method in ('spawn', 'forkserver'):
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as executor:
            assert executor.submit(abs, -1).result(TIMEOUT) == 1


# --- what an app does in a child ---


def test_an_app_of_the_parent_in_a_child(serve: Serve, open_peer: OpenPeer, fork: Fork) -> None:
    """In a child of a running app triggers and starts say what is wrong, reads answer, and `stop` does nothing."""
    wsa, other = serve(), serve()
    peer = open_peer(wsa)
    peer.subscribe('state')
    wsa.triggerEvent('state', {'a': 1})
    assert peer.receive()['r'] == {'a': 1}
    conn = wsa.connections[0]

    def use() -> list[Any]:
        wsa.stop()
        said = [sentence(fn) for fn in (lambda: wsa.triggerEvent('state', 2), wsa.start, wsa.run, wsa.__enter__)]
        said += [sentence(lambda: conn.push('state', 2)), sentence(lambda: other.triggerEvent('state', 2))]
        conn.close()
        counts = [wsa.stats()['connections'], len(wsa.connections), len(wsa.subscribers('state'))]
        return [*said, wsa.event('state').value, wsa.event('state').ver, *counts, wsa.url, len(conn.subscriptions)]

    *said, value, ver, connections, listed, subscribers, url, subscriptions = fork(use).result
    triggered, *started, pushed, other_triggered = said
    assert 'forked' in triggered
    assert 'trigger it there' in triggered
    assert 'trigger it there' in other_triggered
    assert all('forked' in text and 'make an app of its own' in text for text in started)
    assert 'forked' in pushed
    assert (value, ver, url) == ({'a': 1}, 1, wsa.url)
    assert (connections, listed, subscribers, subscriptions) == (0, 0, 0, 0)
    assert wsa.triggerEvent('state', 3).result() == 2
    assert peer.receive()['r'] == 3  # nothing came of the child


def test_a_context_manager_ends_in_a_child(fork: Fork) -> None:
    """The end of a `with` block does nothing in a child that was forked inside."""
    with ws.WebShoesApp('127.0.0.1', 0) as wsa:
        assert fork(lambda: wsa.__exit__(None, None, None)).result is None
        assert requests.get(wsa.url, timeout=TIMEOUT).status_code == 404


@loops
def test_a_new_app_serves_in_a_child(loop: LoopName, serve: Serve, fork: Fork) -> None:
    """A child serves with an app that it makes, or that was made before the fork and ran nowhere."""
    serve(loop=loop)
    idle = ws.WebShoesApp('127.0.0.1', 0, loop=loop)

    def use() -> list[Any]:
        assert 'start an app here' in sentence(lambda: idle.triggerEvent('state', 1))
        new = ws.WebShoesApp('127.0.0.1', 0, loop=loop)
        for wsa in (new, idle):
            wsa.start()
            wsa.triggerEvent('state', 1)
            wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'pid': lambda ctx, q: os.getpid()})
        return [new.url, idle.url]

    child = fork(use)
    assert [requests.get(f'{url}/cmd/pid', timeout=TIMEOUT).json() for url in child.result] == [child.pid] * 2
    idle.triggerEvent('state', 1)  # it is the parent's as well


def test_a_stopped_app_starts_in_a_child(fork: Fork) -> None:
    """An app that has stopped before the fork can be started in the child."""
    with ws.WebShoesApp('127.0.0.1', 0) as wsa:
        pass

    def use() -> int:
        with wsa:
            return requests.get(wsa.url, timeout=TIMEOUT).status_code

    assert fork(use).result == 404


def test_a_child_of_a_child(serve: Serve, fork: Fork) -> None:
    """A child's own app is the parent's for its children in turn."""
    wsa = serve()

    def use() -> list[Any]:
        with ws.WebShoesApp('127.0.0.1', 0) as own:
            inner = Child(lambda: [*map(sentence, (wsa.start, own.start)), own.port in local_ports()])
            inner.close()
            return [*inner.result, requests.get(own.url, timeout=TIMEOUT).status_code]

    *said, is_held, status = fork(use).result
    assert all('forked' in text for text in said)
    assert (is_held, status) == (False, 404)


# --- locks, logs and signals ---


def test_a_fork_while_another_thread_has_the_locks(serve: Serve, fork: Fork) -> None:
    """Whatever lock another thread holds when a child is forked, nothing there waits for it."""
    wsa = serve()
    ready, done = threading.Event(), threading.Event()
    handler = logging.StreamHandler()
    logging.getLogger('webshoes').addHandler(handler)
    run: Any = wsa._run
    pools = run.thread._pools

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            locks = [wsa._parts.store.lock, wsa._lifecycle, wsa._registering, run.thread.lock, handler.lock]
            for lock in (*locks, *(pool._guard for pool in pools)):
                assert lock is not None
                stack.enter_context(lock)
            ready.set()
            done.wait(TIMEOUT)

    holder = threading.Thread(target=hold)
    holder.start()
    ready.wait(TIMEOUT)

    def use() -> list[Any]:
        logging.getLogger('webshoes').warning('from a child')
        wsa.register('more', 'cmd', 'q', 'evt', 'r', {})
        wsa.stop()
        said = [sentence(lambda: wsa.triggerEvent('state', 1)), sentence(wsa.start)]
        return [*said, wsa.event('state').value, wsa.stats()['connections'], wsa.connections]

    try:
        *said, value, connections, listed = fork(use).result
    finally:
        done.set()
        holder.join(TIMEOUT)
    assert all('forked' in text for text in said)
    assert (value, connections, listed) == (None, 0, [])


def test_forks_while_other_threads_trigger(serve: Serve, fork: Fork) -> None:
    """Children that are forked in the middle of triggers read events all the same."""
    wsa, done = serve(), threading.Event()

    def trigger() -> None:
        while not done.is_set():
            wsa.triggerEvent('state', 1).result(TIMEOUT)

    threads = [threading.Thread(target=trigger) for _ in range(2)]
    wsa.triggerEvent('state', 1)
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            child = Child(lambda: [wsa.event('state').value, sentence(lambda: wsa.triggerEvent('state', 1))])
            child.close()
            assert child.result[0] == 1
            assert 'forked' in child.result[1]
    finally:
        done.set()
        for thread in threads:
            thread.join(TIMEOUT)
