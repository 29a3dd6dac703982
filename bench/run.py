#!/usr/bin/env python3
"""webshoes beside its peers: `python3 bench/run.py`, in two minutes `python3 bench/run.py --quick`; see README.md here.

It makes its own environments below `bench/.env`, measures every workload of every peer in rounds that take turns, and
prints ratios of what the server does in a second of its own CPU time. Linux only: it reads the CPU clock of a process.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import report
from environment import Environments
from load import Load, LoadError
from peers import BASE, PEERS, Peer
from sections import GROWTH, LATENCY
from server import ServerError
from workloads import MAIN, THREADMSG, Bench, Workload

HERE = Path(__file__).resolve().parent
WORKLOADS = (*MAIN, *LATENCY, *GROWTH)
FULL = (9, 0.1, 0.5)  # rounds, seconds to warm up, CPU seconds of a window: many and short, as machines drift
QUICK = (2, 0.05, 0.1)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    keys = [*dict.fromkeys(workload.section for workload in WORKLOADS), *(workload.key for workload in WORKLOADS)]
    parser.add_argument('--quick', action='store_true', help='in two minutes: fewer and shorter rounds')
    parser.add_argument('--only', nargs='+', metavar='WORKLOAD', help=f'of {", ".join(keys)}')
    parser.add_argument(
        '--peers', nargs='+', metavar='PEER', help=f'beside {BASE}, of {", ".join(p.name for p in PEERS)}'
    )
    parser.add_argument('--rounds', type=int, help='of each workload')
    parser.add_argument('--seconds', type=float, help='of the CPU time of the server, in a window')
    parser.add_argument('--env', type=Path, default=HERE / '.env', help='where the environments are (%(default)s)')
    parser.add_argument('--results', type=Path, default=HERE / 'results', help='where the results go (%(default)s)')
    args = parser.parse_args()
    for given, known in ((args.only, keys), (args.peers, [p.name for p in PEERS])):
        unknown = set(given or ()) - set(known)
        if unknown:
            parser.error(f'{", ".join(sorted(unknown))}: not one of {", ".join(known)}')
    return args


def cores() -> tuple[int | None, int | None]:
    """One for the servers and another for the load, where there are two."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


class Run:
    """Measures, and keeps what came out."""

    def __init__(self, bench: Bench, peers: Sequence[Peer], rounds: int, is_quick: bool) -> None:
        self.bench = bench
        self.peers = peers
        self.rounds = rounds
        self.is_quick = is_quick
        self.results: dict[str, report.Result] = {}
        self.started = time.perf_counter()

    def measure(self, workload: Workload, place: str) -> None:
        """All rounds of a workload: in each the peers take turns, the base first."""
        result = report.Result(workload)
        peers = [peer for peer in self.peers if workload.fits(peer)]
        peers.sort(key=lambda peer: peer.name != workload.base)
        rounds = workload.rounds(self.rounds)
        for number in range(1, rounds + 1):
            for peer in peers:
                if peer.name not in result.failed:
                    self._tell(f'{place} {workload.title}, round {number} of {rounds}: {peer.name}')
                    self._once(result, peer)
        if not self.is_quick:
            self.bench.stop()
        self.results[workload.key] = result
        self._tell('')
        print(f'{time.perf_counter() - self.started:5.0f} s  {report.line(result)}', flush=True)

    def _once(self, result: report.Result, peer: Peer) -> None:
        try:
            result.add(peer.name, result.workload.measure(self.bench, peer))
        except Exception as error:  # whatever one peer does: the others are measured all the same
            result.failed[peer.name] = str(error) if isinstance(error, LoadError | ServerError) else repr(error)
            self.bench.stop(peer)

    def _tell(self, what: str) -> None:
        if sys.stderr.isatty():
            seconds = time.perf_counter() - self.started
            print(f'\r\033[K{seconds:4.0f} s  {what}' if what else '\r\033[K', end='', file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, and write."""
    args = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which stops the servers
    os.environ.pop('PYTHONDONTWRITEBYTECODE', None)  # or a checkout would be compiled at each import
    rounds, warm, seconds = QUICK if args.quick else FULL
    folder = args.env / f'python{sys.version_info[0]}.{sys.version_info[1]}'
    environments = Environments(folder)
    wanted = [peer for peer in PEERS if not args.peers or peer.name in (BASE, *args.peers)]
    environments.make(wanted)
    peers = [peer for peer in wanted if peer.name not in environments.missing] + [THREADMSG]
    server_core, load_core = cores()
    load = Load(folder, load_core)
    chosen = args.only or (['main'] if args.quick else ['main', 'latency', 'growth'])
    workloads = [
        workload
        for workload in WORKLOADS
        if workload.key in chosen or (workload.section in chosen and (workload.is_quick or not args.quick))
    ]
    names = [peer.name for peer in wanted]
    kind = 'quick' if args.quick else 'full'
    book = None if args.only or args.peers else report.Book(args.results, kind, names, environments)
    is_done = False
    with (folder / 'servers.log').open('wb') as log:
        bench = Bench(environments, load, server_core, log, warm, args.seconds or seconds)
        run = Run(bench, peers, args.rounds or rounds, is_quick=args.quick)
        where = 'on a core each' if load_core is not None else 'on ONE core: the load disturbs the servers'
        print(f'{load.describe}. Servers and load {where}. What the servers say: {log.name}')
        print(f'What else goes on here makes it inexact: load average {os.getloadavg()[0]:.1f}', flush=True)
        try:
            for number, workload in enumerate(workloads, 1):
                run.measure(workload, f'[{number}/{len(workloads)}]')
                if book is not None:
                    book.write(run.results.values(), is_done=number == len(workloads))
            is_done = True
        except KeyboardInterrupt:
            print(f'\ninterrupted: {len(run.results)} of {len(workloads)} workloads were measured')
        finally:
            bench.stop()
            load.close()
    print(f'\n{report.tables(run.results.values(), names)}\n\nin {time.perf_counter() - run.started:.0f} s')
    for name, why in environments.missing.items():
        print(f'left out: {name}: {why}')
    if book is not None:
        print(f'written: {book}')
    return 0 if is_done else 130  # as a shell tells of a program that was interrupted


if __name__ == '__main__':
    sys.exit(main())
