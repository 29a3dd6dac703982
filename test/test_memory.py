"""What clients leave behind when they are gone: nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from aiohttp import web
from aiohttp.http import HttpRequestParser

import webshoes as ws
from webshoes.outlet import Outlet
from webshoes.transports.lane import Lane

from .conftest import TIMEOUT, OpenPeer, Serve, echo
from .faces import dial, until
from .test_limits import GET, LOOPS, answer, limits, post

LONG = 100 * TIMEOUT  # seconds that no test waits


def count(kind: type) -> int:
    """How many there are, and be it for the garbage collector alone."""
    return sum(issubclass(type(it), kind) for it in gc.get_objects())


def lanes() -> list[Lane]:
    """Those there are."""
    return [it for it in gc.get_objects() if type(it) is Lane]


def outlets() -> int:
    """How many WebSockets are not let go of."""
    gc.collect()
    return count(Outlet)


@pytest.fixture
def without_collector() -> Iterator[None]:
    """What goes, goes by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count_tasks(ctx: ws.Context, q: Any) -> int:
    return len(asyncio.all_tasks())


@LOOPS
def test_websocket(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """A WebSocket is let go of when it is closed, and not only when its last answer would have stalled."""
    wsa = serve({'echo': echo}, limits=limits(stall_timeout=LONG), loop=loop)
    before = outlets()
    for _ in range(3):
        peer = open_peer(wsa)
        assert peer.ask({'cmd': 'cmd/echo', 'q': {'a': 1}})['r'] == {'a': 1}
        peer.connection.close()
    until(lambda: outlets() <= before)


@LOOPS
def test_idle_websocket(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """A WebSocket on which nothing waits holds neither what requests need, nor queues."""
    wsa = serve({'echo': echo}, loop=loop)
    gc.collect()
    before, others = count(HttpRequestParser), lanes()
    peers = [open_peer(wsa) for _ in range(3)]
    for peer in peers:
        peer.connection.pong()
        assert peer.connection.ping().wait(TIMEOUT)
        assert peer.ask({'cmd': 'cmd/echo', 'q': {'a': 1}})['r'] == {'a': 1}
    ours = [lane for lane in lanes() if lane not in others]
    assert len(ours) == len(peers)
    assert not any(type(held) is deque for lane in ours for held in gc.get_referents(lane))
    gc.collect()
    assert count(HttpRequestParser) == before


@LOOPS
def test_websocket_whose_calls_run(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """So is one that is closed in the middle of calls, as soon as they end."""
    go_on = threading.Event()

    @ws.threaded
    def wait(ctx: ws.Context, q: Any) -> None:
        go_on.wait(TIMEOUT)

    wsa = serve({'wait': wait, 'echo': echo}, limits=limits(max_in_flight=2, stall_timeout=LONG), loop=loop)
    before = outlets()
    for _ in range(3):
        peer = open_peer(wsa)
        peer.send({'cmd': 'cmd/wait'}, *({'cmd': 'cmd/wait', 'tid': tid} for tid in range(4)), {'ping': 1})
        assert peer.receive() == {'pong': 1}
        peer.connection.close()
    go_on.set()
    until(lambda: outlets() <= before)


@LOOPS
@pytest.mark.parametrize('head', [GET, post(2), post(2, path='/none')], ids=['GET', 'POST', 'unread'])
@pytest.mark.usefixtures('without_collector')
def test_connection(serve: Serve, loop: str, head: bytes) -> None:
    """A connection of HTTP is let go of at its end, without the garbage collector."""
    wsa = serve({'echo': echo, 'save': echo}, loop=loop)
    before = count(web.RequestHandler)
    for _ in range(3):
        with dial(wsa.port) as connection:
            connection.sendall(head + b'{}' * (b'POST' in head))
            answer(connection)
    until(lambda: count(web.RequestHandler) <= before)


@LOOPS
def test_body_that_nobody_reads(serve: Serve, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    """The rest of a body that no handler reads is not waited for when its connection is gone."""
    defaults = web.RequestHandler.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, 'lingering_time', LONG)
    wsa = serve({'tasks': count_tasks}, loop=loop)

    def tasks() -> int:
        return int(requests.get(f'{wsa.url}/cmd/tasks', timeout=TIMEOUT).text)

    before = tasks()
    with dial(wsa.port) as connection:
        connection.sendall(post(2, path='/none'))
        assert answer(connection)[0] == 404
    until(lambda: tasks() <= before)
