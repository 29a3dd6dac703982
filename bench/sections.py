"""The workloads beside the main table: how late an answer comes, and how the numbers grow."""

from __future__ import annotations

from dataclasses import replace

from peers import BASE, OLD, OURS, Peer
from workloads import A_CPU_SECOND, Bench, Measure, Sample, Workload, call_lines, fan_lines, has_websocket, rate

CALLS_A_SECOND = 2000  # a tenth of what the slowest can do
FEW = 500  # where the server has other work
CALLS = 2000  # so that the thousandth that is the latest is not one call
CALLERS = 100
CROWD = 5000  # subscribers of the fan-out that goes on meanwhile
SWEEP = 0.0003  # CPU seconds for each connection
MOST = 1_000_000  # bytes of the largest payload


def latency(subscribers: int = 0) -> Measure:
    """From when a call was due to its answer; with subscribers, while events are fanned out to them without a break."""

    def measure(bench: Bench, peer: Peer) -> Sample:
        server, lines = bench.server(peer), call_lines(peer, 1)

        def run() -> Sample:
            calls_a_second = FEW if subscribers else CALLS_A_SECOND
            seconds = max(bench.seconds * 3, CALLS / calls_a_second)
            result = bench.load.run(server, 'rate', lines, CALLERS, bench.warm, seconds, calls_a_second)
            quantiles = tuple(result[key] for key in ('p50', 'p99', 'p999'))
            return Sample(quantiles[1], quantiles=quantiles)

        if not subscribers:
            return run()
        with bench.load.hold(server, fan_lines(bench, peer, 1), subscribers, 'fan') as end:
            sample = run()
            told = end()
            return replace(sample, beside=told['messages'] / told['seconds'])

    return measure


def connections(count: int) -> Measure:
    """Calls, one in flight on each of so many connections."""

    def measure(bench: Bench, peer: Peer) -> Sample:
        seconds = max(bench.seconds, count * SWEEP)  # of many, each is to have several turns
        return rate(bench.load.run(bench.server(peer), 'call', call_lines(peer, 1), count, bench.warm, seconds))

    return measure


def payload(size: int) -> Measure:
    """Calls that send so many bytes and get them back."""

    def measure(bench: Bench, peer: Peer) -> Sample:
        lines = call_lines(peer, 1, 'echo', {'text': 'x' * size})
        return rate(bench.load.run(bench.server(peer), 'call', lines, 8, bench.warm, bench.seconds))

    return measure


def functions(count: int) -> Measure:
    """Calls of the last of so many functions."""

    def measure(bench: Bench, peer: Peer) -> Sample:
        lines = call_lines(peer, 1, f'f{count - 1}')
        server = bench.server(peer, '--functions', str(count))
        return rate(bench.load.run(server, 'call', lines, 32, bench.warm, bench.seconds))

    return measure


def events(count: int) -> Measure:
    """A fan-out to 100 of one event, beside so many others that have values."""

    def measure(bench: Bench, peer: Peer) -> Sample:
        server = bench.server(peer, '--events', str(count))
        return rate(bench.load.run(server, 'fan', fan_lines(bench, peer, 1), 100, bench.warm, bench.seconds))

    return measure


LATENCY = (
    Workload(
        'latency-call',
        f'at {CALLS_A_SECOND:,} calls a second',
        'seconds, p99',
        latency(),
        has_websocket,
        is_cost=True,
        every=2,
        section='latency',
    ),
    Workload(
        'latency-fan',
        f'at {FEW:,}, while a fan-out to {CROWD:,} goes on',
        'seconds, p99',
        latency(CROWD),
        has_websocket,
        is_cost=True,
        every=4,
        section='latency',
    ),
)

GROWTH = tuple(
    Workload(
        f'{name}-{size}',
        f'{size:,} {title}',
        A_CPU_SECOND,
        measure(size),
        lambda peer: peer.name in (BASE, OURS, OLD),
        every=3,
        section='growth',
    )
    for name, title, measure, sizes in (
        ('connections', 'connections, a call in flight on each', connections, (10, 100, 1000, 10_000)),
        ('payload', 'bytes there and back', payload, (100, 1000, 10_000, 100_000, MOST)),
        ('functions', 'functions registered', functions, (1, 10, 100, 1000, 10_000)),
        ('events', 'events, one of them fanned out to 100', events, (1, 10, 100, 1000, 10_000, 100_000)),
    )
    for size in sizes
)
