"""Start, stop and what lies between them: section 2."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import requests
import uvloop
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import webshoes as ws
from test.conftest import TIMEOUT, Block, OpenPeer, Peer, Serve
from test.faces import open_stalled, upgrade
from webshoes.pool import DaemonPool
from webshoes.thread import Closing, LoopThread

from .faces import run_apart

LoopName = Literal['auto', 'uvloop', 'asyncio']

POLL = 0.001  # seconds between two looks, as each is a connection


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for what has to happen at once."""
    with ThreadPoolExecutor() as executor:
        yield executor


def make(port: int = 0, **settings: Any) -> ws.WebShoesApp:
    """An app that answers `cmd/ping` with `pong`."""
    wsa = ws.WebShoesApp('127.0.0.1', port, **settings)
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'ping': lambda ctx, q: 'pong'})
    return wsa


def get(wsa: ws.WebShoesApp, name: str = 'ping') -> str:
    """What a command answers over HTTP."""
    return requests.get(f'{wsa.url}/cmd/{name}', timeout=TIMEOUT).text


def is_open(port: int, host: str = '127.0.0.1') -> bool:
    """Whether anybody listens on a port."""
    try:
        socket.create_connection((host, port), timeout=TIMEOUT).close()
    except ConnectionError:
        return False
    return True


def wait_until_closed(port: int) -> None:
    """Return when nobody listens on a port any more."""
    while is_open(port):
        time.sleep(POLL)


def wait_until_open(port: int) -> None:
    """Return when somebody listens on a port."""
    while not is_open(port):
        time.sleep(POLL)


def servers() -> list[threading.Thread]:
    """The threads of all servers."""
    return [thread for thread in threading.enumerate() if thread.name == 'webshoes']


def join_servers(*others: threading.Thread) -> None:
    """Return when all servers have ended, but for those of others."""
    for thread in set(servers()) - set(others):
        thread.join(TIMEOUT)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def all_servers_end() -> Iterator[None]:
    """Wait for the end of every server of the test, after all else was cleared away."""
    before = servers()
    yield
    join_servers(*before)


# --- start ---


def test_start_returns_when_it_listens() -> None:
    """A client that connects right after `start` is answered."""
    wsa = make()
    wsa.start()
    try:
        assert get(wsa) == 'pong'
    finally:
        wsa.stop()


def test_start_while_another_has_the_port(serve: Serve) -> None:
    """A port in use is an OSError where `start` was called."""
    with pytest.raises(OSError, match='in use'):
        make(serve().port).start()


def test_start_at_an_address_that_is_not_ours() -> None:
    """An address that no interface has is an OSError where `start` was called."""
    with pytest.raises(OSError, match='assign'):
        ws.WebShoesApp('192.0.2.1', 0).start()


def test_the_app_is_usable_after_a_failed_start(serve: Serve) -> None:
    """An app whose port was in use starts once the port is free, and keeps what it was told meanwhile."""
    other = serve()
    wsa = make(other.port)
    with pytest.raises(OSError, match='in use'):
        wsa.start()
    wsa.triggerEvent('state', 1)
    other.stop()
    with wsa:
        assert get(wsa) == 'pong'
        assert wsa.event('state').value == 1


def test_a_failed_start_leaves_no_thread(serve: Serve) -> None:
    """After a failed start there are the servers that there were before."""
    other = serve()
    before = servers()
    with pytest.raises(OSError, match='in use'):
        make(other.port).start()
    assert servers() == before


def test_port_0_is_told_while_it_runs() -> None:
    """`port` is the one listened on, and what was asked for when nothing runs."""
    wsa = make()
    assert wsa.port == 0
    with wsa:
        assert is_open(wsa.port)
    assert wsa.port == 0


@pytest.mark.parametrize(
    ('addr', 'hosts'),
    [
        ('', ('127.0.0.1', '::1')),
        ('0.0.0.0', ('127.0.0.1',)),
        ('::', ('::1',)),
        ('::1', ('::1',)),
        ('localhost', tuple({str(info[4][0]) for info in socket.getaddrinfo('localhost', 0)})),
    ],
)
def test_one_port_serves_every_address(addr: str, hosts: tuple[str, ...]) -> None:
    """Port 0 is the same port on every address that is listened on, IPv4 and IPv6."""
    with ws.WebShoesApp(addr, 0) as wsa:
        assert all(is_open(wsa.port, host) for host in hosts)


@pytest.mark.parametrize('addr', ['', '0.0.0.0', '::', '::1', 'localhost', '127.0.0.1'])
def test_url_is_one_that_answers(addr: str) -> None:
    """A program on this machine reaches the server at `url`, whatever it listens on."""
    with ws.WebShoesApp(addr, 0) as wsa:
        assert requests.get(wsa.url, timeout=TIMEOUT).status_code == 404


def test_start_while_running_starts_anew(open_peer: OpenPeer) -> None:
    """`start` on a running app ends its connections and serves again, on the port that was asked for."""
    with make() as wsa:
        peer = open_peer(wsa)
        wsa.start()
        with pytest.raises(ConnectionClosed):
            peer.receive()
        assert get(wsa) == 'pong'
        assert len(servers()) == 1


@pytest.mark.parametrize('addr', ['127.0.0.1', '', '::'])
def test_start_while_running_keeps_a_free_port(addr: str, caplog: pytest.LogCaptureFixture) -> None:
    """A port that was picked for 0 stays while the app starts anew, the log warns of it, and after `stop` it is 0."""
    with ws.WebShoesApp(addr, 0) as wsa:
        url = wsa.url
        assert not caplog.records
        wsa.start()
        assert wsa.url == url
        assert [record.getMessage() for record in caplog.records if record.levelname == 'WARNING'] == [
            f'start() of an app that is running: it stops, and starts anew on {url}'
        ]
        assert requests.get(url, timeout=TIMEOUT).status_code == 404
    assert wsa.port == 0


def test_start_from_two_threads_at_once(threads: ThreadPoolExecutor) -> None:
    """Two threads that start the same app at once leave one server, which answers."""
    wsa = make()
    try:
        for starting in [threads.submit(wsa.start) for _ in range(2)]:
            starting.result(TIMEOUT)
        assert get(wsa) == 'pong'
        assert len(servers()) == 1
    finally:
        wsa.stop()


def start_sync(ctx: Any, q: Any) -> str:
    with pytest.raises(RuntimeError, match='from a handler'):
        ctx.wsa.start()
    return 'refused'


@pytest.mark.parametrize('start', [start_sync, ws.threaded(partial(start_sync))])
def test_start_from_a_handler_is_refused(serve: Serve, start: Any) -> None:
    """A handler that starts its own app gets a RuntimeError at once, and the app goes on serving."""
    wsa = serve({'start': start})
    assert get(wsa, 'start') == 'refused'
    assert get(wsa, 'start') == 'refused'


def test_a_handler_may_start_another_app(serve: Serve) -> None:
    """A handler may start and stop an app that is not the one it serves."""

    def other(ctx: Any, q: Any) -> str:
        with make() as wsa:
            return wsa.url

    assert get(serve({'other': other}, limits=ws.Limits(slow_handler=None)), 'other').startswith('http://127.0.0.1:')


def test_an_interrupted_start_leaves_no_server() -> None:
    """Ctrl-C while the server opens ends it, and reaches the caller as KeyboardInterrupt."""
    closed = threading.Event()

    async def opening() -> Closing:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)  # what opening takes when the system is slow
        return closing

    async def closing() -> None:
        closed.set()

    with pytest.raises(KeyboardInterrupt):
        LoopThread(opening, asyncio.new_event_loop, DaemonPool(1, 'worker')).open()
    assert closed.is_set()
    assert not servers()


# --- stop ---


def test_stop_before_start() -> None:
    """`stop` of an app that never ran does nothing, and it can start afterwards."""
    wsa = make()
    wsa.stop()
    with wsa:
        assert get(wsa) == 'pong'


def test_stop_twice(serve: Serve) -> None:
    """A second `stop` does nothing."""
    wsa = serve()
    wsa.stop()
    wsa.stop()
    assert not servers()


def test_stop_from_two_threads_at_once(serve: Serve, threads: ThreadPoolExecutor) -> None:
    """Two threads that stop the same app at once both return when it has stopped."""
    wsa = serve()
    port = wsa.port
    for stopping in [threads.submit(wsa.stop) for _ in range(2)]:
        stopping.result(TIMEOUT)
        assert not is_open(port)


def test_stop_while_it_starts(threads: ThreadPoolExecutor) -> None:
    """Whatever the order in which starts and stops of many threads come, the last stop leaves nothing running."""
    wsa = make()
    for running in [threads.submit(step) for _ in range(10) for step in (wsa.start, wsa.stop)]:
        running.result(TIMEOUT)
    wsa.stop()
    assert not servers()


def test_start_again_on_the_same_port(serve: Serve) -> None:
    """The port is free when `stop` returns, connections or not: the next app has it at once."""
    wsa = serve()
    port = wsa.port
    with requests.Session() as session, connect(f'ws://127.0.0.1:{port}/'):
        session.get(wsa.url, timeout=TIMEOUT)
        wsa.stop()
        with make(port) as again:
            assert get(again) == 'pong'


def stop_sync(ctx: Any, q: Any) -> str:
    ctx.wsa.stop()
    return 'stopping'


async def stop_async(ctx: Any, q: Any) -> str:
    ctx.wsa.stop()
    await asyncio.sleep(0)
    return 'stopping'


@ws.threaded
def stop_threaded(ctx: Any, q: Any) -> str:
    ctx.wsa.stop()
    return 'stopping'


async def stop_in_thread(ctx: Any, q: Any) -> str:
    await asyncio.to_thread(ctx.wsa.stop)
    return 'stopping'


STOPS = [stop_sync, stop_async, stop_threaded, stop_in_thread]


@pytest.mark.parametrize('stop', STOPS)
def test_stop_from_a_handler_over_http(serve: Serve, stop: Any) -> None:
    """A handler may stop its app over HTTP: its reply still arrives, then the server ends."""
    wsa = serve({'stop': stop})
    assert get(wsa, 'stop') == 'stopping'
    join_servers()


@pytest.mark.parametrize('stop', STOPS)
def test_stop_from_a_handler_over_websocket(serve: Serve, open_peer: OpenPeer, stop: Any) -> None:
    """A handler may stop its app over WebSocket: its reply still arrives, then the server ends."""
    peer = open_peer(serve({'stop': stop}))
    assert peer.ask({'cmd': 'cmd/stop'})['r'] == 'stopping'
    join_servers()


def test_start_after_a_stop_from_a_handler(serve: Serve) -> None:
    """An app that a handler stopped can be started right away."""
    wsa = serve({'stop': stop_sync, 'ping': lambda ctx, q: 'pong'})
    get(wsa, 'stop')
    wsa.start()
    assert get(wsa) == 'pong'


@pytest.mark.usefixtures('patience')
def test_stop_closes_websockets_with_1001(serve: Serve, open_peer: OpenPeer) -> None:
    """Every WebSocket is closed with 1001, going away (RFC 6455 section 7.4.1)."""
    wsa = serve()
    peers = [open_peer(wsa) for _ in range(3)]
    wsa.stop()
    for peer in peers:
        with pytest.raises(ConnectionClosed) as closed:
            peer.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


def test_a_client_that_reads_nothing_does_not_hold_up_stop(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """`stop` ends connections whose clients neither read nor answer the close."""
    monkeypatch.setattr('webshoes.transports.server.CLOSING', 0.1)
    wsa = serve(limits=ws.Limits(stop_timeout=9))  # less than an end that waits for the client would take
    with socket.create_connection(('127.0.0.1', wsa.port)) as client:
        client.sendall(upgrade())
        assert client.recv(12) == b'HTTP/1.1 101'
        wsa.stop()
    assert not servers()


@pytest.mark.parametrize('kind', ['coroutine', 'threaded'])
def test_a_running_handler_has_its_grace_over_http(
    serve: Serve, threads: ThreadPoolExecutor, block: Block, kind: str
) -> None:
    """A handler that runs while the app stops still answers its request."""
    wsa = serve({'slow': getattr(block, kind)})
    answer = threads.submit(get, wsa, 'slow')
    stopping = stop_meanwhile(wsa, threads, block)
    block.let_go.set()
    assert answer.result(TIMEOUT) == 'done'
    stopping.result(TIMEOUT)


@pytest.mark.parametrize('kind', ['coroutine', 'threaded'])
def test_a_running_handler_has_its_grace_over_websocket(
    serve: Serve, threads: ThreadPoolExecutor, open_peer: OpenPeer, block: Block, kind: str
) -> None:
    """A handler that runs while the app stops still answers its message."""
    wsa = serve({'slow': getattr(block, kind)})
    peer = open_peer(wsa)
    peer.send({'cmd': 'cmd/slow'})
    stopping = stop_meanwhile(wsa, threads, block)
    block.let_go.set()
    assert peer.receive()['r'] == 'done'
    stopping.result(TIMEOUT)


def stop_meanwhile(wsa: ws.WebShoesApp, threads: ThreadPoolExecutor, block: Block) -> Future[None]:
    """Stop an app while its handler runs; returns when it takes no more connections."""
    port = wsa.port
    assert block.entered.wait(TIMEOUT)
    stopping = threads.submit(wsa.stop)
    wait_until_closed(port)
    return stopping


def test_new_work_is_refused_while_it_stops(
    serve: Serve, threads: ThreadPoolExecutor, open_peer: OpenPeer, block: Block
) -> None:
    """A call that comes while handlers have their grace is answered with 503."""
    wsa = serve({'slow': block.threaded})
    peer = open_peer(wsa)
    peer.send({'cmd': 'cmd/slow', 'tid': 1})
    stopping = stop_meanwhile(wsa, threads, block)
    assert peer.ask({'cmd': 'cmd/slow', 'tid': 2})['code'] == 503
    block.let_go.set()
    stopping.result(TIMEOUT)


def test_a_request_on_a_kept_connection_is_refused_while_it_stops(
    serve: Serve, threads: ThreadPoolExecutor, block: Block
) -> None:
    """A request over a connection from before is answered with 503 while handlers have their grace."""
    wsa = serve({'slow': block.threaded})
    with requests.Session() as kept:
        kept.get(wsa.url, timeout=TIMEOUT)
        url, answer = wsa.url, threads.submit(get, wsa, 'slow')
        stopping = stop_meanwhile(wsa, threads, block)
        assert kept.get(url, timeout=TIMEOUT).status_code == 503
    block.let_go.set()
    stopping.result(TIMEOUT)
    assert answer.result(TIMEOUT) == 'done'


@pytest.mark.parametrize('kind', ['sync', 'coroutine', 'stubborn', 'threaded'])
def test_a_handler_without_end_does_not_hold_up_stop(
    serve: Serve, threads: ThreadPoolExecutor, open_peer: OpenPeer, block: Block, kind: str
) -> None:
    """`stop` returns while a handler that nothing can end still runs."""
    wsa = serve({'slow': getattr(block, kind)}, limits=ws.Limits(stop_timeout=0.4))
    open_peer(wsa).send({'cmd': 'cmd/slow'})
    assert block.entered.wait(TIMEOUT)
    wsa.stop()
    assert not block.let_go.is_set()


@pytest.mark.parametrize('kind', ['coroutine', 'threaded'])
def test_a_handler_that_can_be_left_is_left(serve: Serve, open_peer: OpenPeer, block: Block, kind: str) -> None:
    """Past its grace a handler that waits is answered for with 503, and the server's thread ends."""
    wsa = serve({'slow': getattr(block, kind)}, limits=ws.Limits(stop_timeout=1))
    peer = open_peer(wsa)
    peer.send({'cmd': 'cmd/slow'})
    assert block.entered.wait(TIMEOUT)
    wsa.stop()
    assert peer.receive()['code'] == 503
    join_servers()


def test_a_stop_that_took_too_long_is_logged(
    serve: Serve, open_peer: OpenPeer, block: Block, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a handler blocks the loop past the bound, the log says that the server did not stop."""
    wsa = serve({'slow': block.sync}, limits=ws.Limits(stop_timeout=0.1))
    open_peer(wsa).send({'cmd': 'cmd/slow'})
    assert block.entered.wait(TIMEOUT)
    wsa.stop()
    assert 'did not stop in 0.1 seconds' in caplog.text


def test_an_app_whose_stop_took_too_long_starts_anew(serve: Serve, open_peer: OpenPeer, block: Block) -> None:
    """The end of a run that came late does no harm to the run after it."""
    wsa = serve({'slow': block.sync, 'ping': lambda ctx, q: 'pong'}, limits=ws.Limits(stop_timeout=0.1))
    open_peer(wsa).send({'cmd': 'cmd/slow'})
    assert block.entered.wait(TIMEOUT)
    late = servers()
    wsa.stop()
    wsa.start()
    block.let_go.set()
    for thread in late:
        thread.join(TIMEOUT)
    assert get(wsa) == 'pong'
    assert open_peer(wsa).subscribe('state')['ver'] == 0


def test_an_app_whose_stop_took_too_long_has_no_port(serve: Serve, open_peer: OpenPeer, block: Block) -> None:
    """After `stop` nothing is told of the run that was given up."""
    wsa = serve({'slow': block.sync}, limits=ws.Limits(stop_timeout=0.1))
    open_peer(wsa).send({'cmd': 'cmd/slow'})
    assert block.entered.wait(TIMEOUT)
    wsa.stop()
    assert wsa.port == 0


def test_a_late_end_is_quiet(serve: Serve, open_peer: OpenPeer, block: Block) -> None:
    """A thread that ends after its app gave it up raises nothing, not even when it is collected."""
    wsa = serve({'slow': block.sync}, limits=ws.Limits(stop_timeout=0.1))
    open_peer(wsa).send({'cmd': 'cmd/slow'})
    assert block.entered.wait(TIMEOUT)
    wsa.stop()
    block.let_go.set()
    join_servers()


@pytest.mark.usefixtures('patience')
@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_sys_exit_on_the_loop_stops_the_server(serve: Serve, open_peer: OpenPeer, loop: LoopName) -> None:
    """SystemExit in a callback of a handler's own stops the server as `stop` does; `stop` has nothing left to do."""

    async def leave(ctx: Any, q: Any) -> None:
        asyncio.get_running_loop().call_soon(sys.exit)

    wsa = serve({'leave': leave}, loop=loop)
    peer = open_peer(wsa)
    peer.ask({'cmd': 'cmd/leave'})
    with pytest.raises(ConnectionClosed, match='1001'):
        peer.receive()
    join_servers()
    wsa.stop()


def test_a_loop_that_cannot_be_made() -> None:
    """What the loop's making raises, `open` raises."""

    def no_loop() -> asyncio.AbstractEventLoop:
        raise OSError('too many open files')

    async def opening() -> Closing:
        raise AssertionError

    with pytest.raises(OSError, match='too many open files'):
        LoopThread(opening, no_loop, DaemonPool(1, 'worker')).open()


def test_what_goes_wrong_at_the_end_is_logged(caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    """An exception on the way out is logged, not printed, and the thread ends."""

    async def opening() -> Closing:
        return closing

    async def closing() -> None:
        raise OSError('no way out')

    thread = LoopThread(opening, asyncio.new_event_loop, DaemonPool(1, 'worker'))
    thread.open()
    assert thread.close(TIMEOUT)
    assert 'no way out' in caplog.text
    assert capsys.readouterr().out == ''


# --- run, with ---


def test_run_serves_until_stop(threads: ThreadPoolExecutor, free_port: int) -> None:
    """`run` serves until somebody calls `stop`."""
    wsa = make(free_port)
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'stop': stop_sync})
    running = threads.submit(wsa.run)
    wait_until_open(free_port)
    assert get(wsa, 'stop') == 'stopping'
    running.result(TIMEOUT)
    assert not servers()


def test_run_goes_on_after_a_start_anew(threads: ThreadPoolExecutor, free_port: int) -> None:
    """`start` while `run` serves in another thread starts anew, and `run` serves on until `stop`."""
    wsa = make(free_port)
    running = threads.submit(wsa.run)
    wait_until_open(free_port)
    wsa.start()
    assert get(wsa) == 'pong'
    assert not running.done()
    wsa.stop()
    running.result(TIMEOUT)


def test_run_raises_what_start_raises(serve: Serve) -> None:
    """`run` raises OSError for a port in use."""
    with pytest.raises(OSError, match='in use'):
        make(serve().port).run()


def test_with_stops_after_an_exception() -> None:
    """`with wsa:` stops the server when its body raises, and lets the exception through."""
    with pytest.raises(ZeroDivisionError), make():
        raise ZeroDivisionError
    assert not servers()


# --- nothing is left behind ---


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_starts_and_stops_leak_nothing(loop: LoopName) -> None:
    """20 starts and stops, with a client each, leave neither a thread nor a descriptor."""
    wsa = make(loop=loop)
    wsa.register('pool', 'cmd', 'q', 'evt', 'r', {'ping': ws.threaded(lambda ctx, q: 'pong')})

    def use() -> None:
        with wsa:
            requests.get(wsa.url + '/pool/ping', timeout=TIMEOUT)
        for thread in threading.enumerate():
            if thread.name.startswith('webshoes'):
                thread.join(TIMEOUT)

    def count() -> tuple[int, int]:
        gc.collect()  # what earlier tests left is no part of it
        return threading.active_count(), sum(1 for _ in Path('/dev/fd').iterdir())

    use()
    before = count()
    for _ in range(20):
        use()
    assert count() == before


# --- the loop ---


@pytest.mark.parametrize(
    ('loop', 'expected'), [('asyncio', asyncio.SelectorEventLoop), ('uvloop', uvloop.Loop), ('auto', uvloop.Loop)]
)
def test_the_loop_is_the_one_asked_for(serve: Serve, loop: LoopName, expected: type) -> None:
    """`loop` picks the loop that handlers run on; `'auto'` is uvloop where it is installed."""

    async def kind(ctx: Any, q: Any) -> bool:
        return isinstance(asyncio.get_running_loop(), expected)

    assert get(serve({'kind': kind}, loop=loop), 'kind') == 'true'


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop', 'auto'])
def test_the_policy_stays_as_it_was(serve: Serve, loop: LoopName) -> None:
    """A running app changes nothing for other loops of the program."""
    serve(loop=loop)

    async def kind() -> type:
        return type(asyncio.get_running_loop())

    assert run_apart(kind()) is asyncio.SelectorEventLoop or os.name == 'nt'


def test_a_program_with_a_running_loop_may_start_and_stop() -> None:
    """`start` and `stop` work in a coroutine of the program's own loop."""

    async def main() -> str:
        with make() as wsa:
            return await asyncio.to_thread(get, wsa)

    assert run_apart(main()) == 'pong'


# --- events around a stop ---


@pytest.mark.usefixtures('patience')
def test_an_event_right_before_stop_arrives(serve: Serve, open_peer: OpenPeer) -> None:
    """What was triggered before `stop` was called reaches the subscribers before the close."""
    wsa = serve()
    peers = [open_peer(wsa) for _ in range(5)]
    for peer in peers:
        peer.subscribe('state')
    for value in range(100):
        wsa.triggerEvent('state', value)
    wsa.stop()
    for peer in peers:
        assert [peer.receive()['r'] for _ in range(100)] == list(range(100))


@pytest.mark.usefixtures('patience')
def test_an_event_of_a_handlers_last_moment_arrives(serve: Serve, open_peer: OpenPeer) -> None:
    """What a handler triggers in its grace reaches the subscribers before the close."""

    async def last(ctx: Any, q: Any) -> str:
        ctx.wsa.stop()
        await asyncio.sleep(0)
        ctx.wsa.triggerEvent('state', 'last')
        return 'stopping'

    wsa = serve({'last': last})
    peer = open_peer(wsa)
    peer.subscribe('state')
    get(wsa, 'last')
    assert peer.receive()['r'] == 'last'


@pytest.mark.usefixtures('patience')
def test_a_large_fan_out_is_finished_before_the_close(serve: Serve, open_peer: OpenPeer) -> None:
    """What was triggered right before `stop` reaches all of so many subscriptions that one turn is not enough."""
    count = 10_000
    wsa = serve(limits=ws.Limits(max_subscriptions=None, max_batch=None, stop_timeout=TIMEOUT))
    peer = open_peer(wsa)
    peer.send([{'evt': 'state', 'uid': str(number)} for number in range(count)])
    for _ in range(count):
        peer.receive()
    wsa.triggerEvent('state', 1)
    wsa.stop()
    assert {peer.receive()['uid'] for _ in range(count)} == {str(number) for number in range(count)}


def test_triggers_while_it_starts_and_stops(serve: Serve, open_peer: OpenPeer, threads: ThreadPoolExecutor) -> None:
    """A thread that triggers all the while is not disturbed by starts and stops, and no subscriber sees a gap."""
    wsa = serve()
    done = threading.Event()

    def trigger() -> int:
        count = 0
        while not done.is_set():
            count += 1
            assert wsa.triggerEvent('state', count).result() == count
        return count

    def read(peer: Peer, ver: int) -> int:
        with contextlib.suppress(ConnectionClosed):
            while push := peer.receive():
                assert (push.get('from', push['ver']), push['r']) == (ver + 1, push['ver'])
                ver = push['ver']
        return ver

    triggering = threads.submit(trigger)
    readings = []
    for _ in range(5):
        peer = open_peer(wsa)
        peer.subscribe('state')
        readings.append(threads.submit(read, peer, peer.receive()['ver']))
        wsa.start()
    done.set()
    assert triggering.result(TIMEOUT) == wsa.event('state').value
    assert all(reading.result(TIMEOUT) for reading in readings)


def test_a_trigger_that_no_run_has_told_of(serve: Serve, open_peer: OpenPeer, block: Block) -> None:
    """What was triggered in a run that was given up does not keep the next run from pushing."""
    wsa = serve({'slow': block.sync}, limits=ws.Limits(stop_timeout=0.1))
    stuck = open_peer(wsa)
    stuck.subscribe('state')
    stuck.send({'cmd': 'cmd/slow'})
    assert block.entered.wait(TIMEOUT)
    wsa.triggerEvent('state', 1)
    wsa.start()
    peer = open_peer(wsa)
    peer.subscribe('state')
    wsa.triggerEvent('state', 2)
    assert [peer.receive()['r'] for _ in range(2)] == [1, 2]


def test_a_value_from_before_start_waits_for_who_comes(serve: Serve, open_peer: OpenPeer) -> None:
    """What is triggered while nothing runs is the first push of those who come later, in the same history."""
    wsa = serve()
    epoch = wsa.event('state').epoch
    wsa.stop()
    wsa.triggerEvent('state', 1)
    wsa.start()
    peer = open_peer(wsa)
    assert peer.subscribe('state')['epoch'] == epoch
    assert peer.receive()['r'] == 1


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures('many_files', 'patience')
@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_stop_with_a_thousand_connections(serve: Serve, loop: str) -> None:
    """Of a thousand live connections each WebSocket is closed with 1001, each stream ends, and the port is free."""
    wsa, each = serve(loop=loop, limits=ws.Limits(stop_timeout=TIMEOUT)), 500
    port = wsa.port
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(open_stalled(wsa)) for _ in range(each)]
        streams = [stack.enter_context(socket.create_connection(('127.0.0.1', port), TIMEOUT)) for _ in range(each)]
        for stream in streams:
            stream.sendall(b'GET /cmd?evt=heat HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n')
        for stream in streams:
            stream.recv(1)
        assert len(wsa.connections) == 2 * each
        wsa.stop()
        assert wsa.connections == []
        assert [connection.recv(4) for connection in sockets] == [b'\x88\x18\x03\xe9'] * each
        for stream in streams:
            with stream.makefile('rb') as file:
                assert file.read().endswith(b'\r\n0\r\n\r\n')
        with socket.socket() as probe:
            assert probe.connect_ex(('127.0.0.1', port)) != 0


@pytest.mark.usefixtures('many_files')
def test_connections_that_come_while_it_stops(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is accepted in the moment of the stop is closed as well, not left to the garbage collector."""
    left: list[object] = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda unraisable: left.append(unraisable.exc_value))
    for _ in range(3):
        wsa, done = serve(loop='asyncio'), threading.Event()
        port, came = wsa.port, threading.Semaphore(0)

        def storm(port: int, done: threading.Event, came: threading.Semaphore) -> None:
            while not done.is_set():
                with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1):
                    came.release()

        threads = [threading.Thread(target=storm, args=(port, done, came)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            came.acquire()
        wsa.stop()
        done.set()
        for thread in threads:
            thread.join()
    gc.collect()
    assert left == []


def test_a_stopped_app_holds_on_to_no_run(serve: Serve) -> None:
    """An app that was stopped lets go of the server that it had."""
    wsa = serve({})
    run = weakref.ref(wsa._run)
    wsa.stop()
    gc.collect()
    assert run() is None
