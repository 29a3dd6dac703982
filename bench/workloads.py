"""What is measured: each workload gives one number of one peer in one round."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from check import check
from environment import Environments
from load import Load
from peers import BASE, OLD, OURS, Peer
from server import SERVERS, Server, pin

CONNECTIONS = 32
IN_FLIGHT = 16
EVENT_SIZE = 100  # bytes of text in an event
HELD = 500  # connections whose memory is measured, after a fifth as many that are not
IMPORTS = {BASE: 'aiohttp.web', OURS: 'webshoes', OLD: 'webshoes'}
TRIGGERERS = 'threadmsg', BASE, OURS, OLD
THREADMSG = Peer('threadmsg')  # no server: the base of triggers


@dataclass
class Sample:
    """One number, and what else the table tells of it.

    Args:
        value: the number.
        load: of a rate, the CPU time of the load to that of the server.
        quantiles: of a latency, p50, p99 and p99.9.
        beside: of a latency, the events that were delivered meanwhile, each second.
    """

    value: float
    load: float = 0.0
    quantiles: tuple[float, ...] = ()
    beside: float = 0.0


@dataclass
class Bench:
    """What the workloads work with.

    Args:
        environments: of the peers.
        load: makes load.
        core: of the servers; `None` for anywhere.
        log: where the servers write.
        warm, seconds: of the clock before a window, and of the server's CPU time in it.
    """

    environments: Environments
    load: Load
    core: int | None
    log: IO[bytes]
    warm: float
    seconds: float
    _running: dict[tuple[str, ...], Server] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def fresh(self, peer: Peer, *options: str) -> Server:
        """A new server, which the caller stops."""
        return Server(peer, self.environments.python(peer), self.core, self.log, options)

    def server(self, peer: Peer, *options: str) -> Server:
        """The running server of a peer, started where there is none."""
        key = peer.name, *options
        if key not in self._running:
            self._running[key] = self.fresh(peer, *options)
            check(self._running[key])
        self._running[key].settle()
        return self._running[key]

    def stop(self, peer: Peer | None = None) -> None:
        """End the servers, of one peer or all."""
        for key in list(self._running):
            if peer is None or key[0] == peer.name:
                self._running.pop(key).stop()

    def new_event(self) -> str:
        """An event that no server has heard of."""
        return f'tick{next(self._numbers)}'


Measure = Callable[[Bench, Peer], Sample]


@dataclass(frozen=True)
class Workload:
    """A row of the table.

    Args:
        key: for the command line.
        title: for people.
        unit: of the number; a rate is for each CPU second of the server.
        measure: gives the number.
        fits: whether it is measured of a peer.
        base: whose number is 1.
        is_cost: whether less is better.
        every: it is measured in one round of so many, as it takes long.
        is_quick: whether `--quick` has it: opening 5,000 connections takes some peers ten seconds.
        section: the table it is a row of; `--quick` has the main one alone.
    """

    key: str
    title: str
    unit: str
    measure: Measure
    fits: Callable[[Peer], bool]
    base: str = BASE
    is_cost: bool = False
    every: int = 1
    is_quick: bool = True
    section: str = 'main'

    def rounds(self, of: int) -> int:
        """In how many rounds of so many it is measured."""
        return -(-of // self.every)


def rate(result: dict[str, float]) -> Sample:
    """Messages for each CPU second of the server."""
    return Sample(result['messages'] / result['server_cpu'], result['load_cpu'] / result['server_cpu'])


def call_lines(peer: Peer, in_flight: int, name: str = 'add', q: object = None) -> list[str]:
    """The frames that a connection has in flight, each with a tid of its own."""
    return [f'call\t{peer.dialect.call(tid, name, q or {"a": 1, "b": 2})}' for tid in range(in_flight)]


def http(is_post: bool) -> Measure:
    """Requests of HTTP."""
    return lambda bench, peer: rate(bench.load.http(bench.server(peer), is_post, bench.warm, bench.seconds))


def calls(in_flight: int, *options: str) -> Measure:
    """Calls over WebSocket."""

    def measure(bench: Bench, peer: Peer) -> Sample:
        lines = call_lines(peer, in_flight)
        return rate(bench.load.run(bench.server(peer, *options), 'call', lines, CONNECTIONS, bench.warm, bench.seconds))

    return measure


def fan_lines(bench: Bench, peer: Peer, burst: int) -> list[str]:
    """A subscription of each connection, and what has the server trigger."""
    event = bench.new_event()
    return [f'subscribe\t{peer.dialect.subscribe(event)}', f'fire\t{peer.dialect.fire(event, burst, EVENT_SIZE)}']


def fan_out(subscribers: int, burst: int = 1) -> Measure:
    """Events; the next ones are triggered when every subscriber has the last."""

    def measure(bench: Bench, peer: Peer) -> Sample:
        lines = fan_lines(bench, peer, burst)
        return rate(bench.load.run(bench.server(peer), 'fan', lines, subscribers, bench.warm, bench.seconds))

    return measure


def memory(is_subscribed: bool) -> Measure:
    """Bytes of a connection, of a server that has had some before."""

    def measure(bench: Bench, peer: Peer) -> Sample:
        server = bench.fresh(peer)
        lines = [f'subscribe\t{peer.dialect.subscribe("tick")}'] if is_subscribed else []
        try:
            with bench.load.hold(server, lines, HELD // 5):
                server.settle()
                before = server.memory
                with bench.load.hold(server, lines, HELD):
                    server.settle()
                    return Sample((server.memory - before) / HELD)
        finally:
            server.stop()

    return measure


def run_python(bench: Bench, peer: Peer, *arguments: str | Path) -> str:
    """What a program of a peer's environment prints, on the core of the servers."""
    command = [bench.environments.python(peer), *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=bench.log, text=True, check=True, preexec_fn=lambda: pin(bench.core)
    )
    return done.stdout


def triggers(bench: Bench, peer: Peer) -> Sample:
    """Triggers a CPU second, from a thread that is not the server's."""
    result = json.loads(run_python(bench, peer, SERVERS / 'triggers.py', peer.name, str(bench.seconds)))
    return Sample(result['messages'] / result['server_cpu'])


def import_time(bench: Bench, peer: Peer) -> Sample:
    """CPU seconds of an import, of what is installed and not of what lies around (`-P`); the least of several."""
    code = f'import time; t = time.process_time(); import {IMPORTS[peer.name]}; print(time.process_time() - t)'
    return Sample(min(float(run_python(bench, peer, '-P', '-c', code)) for _ in range(3)))


def first_answer(bench: Bench, peer: Peer) -> Sample:
    """Seconds from the start of the program to its first answer."""
    server = bench.fresh(peer)
    try:
        server.ask('/cmd/add?a=1&b=2')
        return Sample(server.elapsed)
    finally:
        server.stop()


def has_http(peer: Peer) -> bool:
    """Whether it is measured over HTTP."""
    return peer.has_http and peer is not THREADMSG


def has_websocket(peer: Peer) -> bool:
    """Whether it is measured over WebSocket."""
    return has_events(peer) and peer.has_calls


def has_events(peer: Peer) -> bool:
    """Whether it is measured in fan-outs."""
    return peer is not THREADMSG


A_CPU_SECOND = 'a CPU second'
MAIN = (
    Workload('get', 'GET with a query', A_CPU_SECOND, http(is_post=False), has_http),
    Workload('post', 'JSON POST', A_CPU_SECOND, http(is_post=True), has_http),
    Workload('call', 'WebSocket call, 1 in flight', A_CPU_SECOND, calls(1), has_websocket),
    Workload('call16', 'WebSocket calls, 16 in flight', A_CPU_SECOND, calls(IN_FLIGHT), has_websocket),
    Workload(
        'asyncio',
        'the same on plain asyncio',
        A_CPU_SECOND,
        calls(IN_FLIGHT, '--loop', 'asyncio'),
        lambda peer: peer.has_loops,
    ),
    Workload('fan100', 'fan-out to 100, event by event', A_CPU_SECOND, fan_out(100), has_events),
    Workload('fan1000', 'fan-out to 1,000, event by event', A_CPU_SECOND, fan_out(1000), has_events, every=2),
    Workload(
        'fan5000',
        'fan-out to 5,000, event by event',
        A_CPU_SECOND,
        fan_out(5000),
        has_events,
        every=2,
        is_quick=False,
    ),
    Workload('burst', 'fan-out to 1,000, bursts of 80', A_CPU_SECOND, fan_out(1000, 80), has_events, every=2),
    Workload(
        'triggers', 'triggers from another thread', A_CPU_SECOND, triggers, lambda p: p.name in TRIGGERERS, 'threadmsg'
    ),
    Workload(
        'idle',
        'memory of an idle connection',
        'bytes',
        memory(is_subscribed=False),
        has_websocket,
        is_cost=True,
        every=2,
    ),
    Workload(
        'subscribed',
        'memory, with a subscription',
        'bytes',
        memory(is_subscribed=True),
        has_websocket,
        is_cost=True,
        every=2,
    ),
    Workload('import', 'import', 'CPU seconds', import_time, lambda peer: peer.name in IMPORTS, is_cost=True),
    Workload('first', 'start to first answer', 'seconds', first_answer, has_http, is_cost=True, every=2),
)
