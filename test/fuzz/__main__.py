"""Fuzz one server with mutated messages and raw byte streams: it answers to the end, with the memory that it had.

    python3 -m test.fuzz                                                 as it is checked: 15 seconds
    python3 -m test.fuzz --loop asyncio --seed 7                         the other loop, other mutations
    python3 -m test.fuzz --messages 1000000 --streams 200000 --seed 7    two minutes
    python3 -m test.fuzz --messages 0 --streams 4000 --seed 7            streams alone

The two kinds take turns. Compared is the server after a tenth of them and after the last, when all clients are gone
and garbage was collected: the memory that the system has given it, and the blocks of it that Python has in use. The
first tenth has it take what it keeps for good: threads, caches of the libraries below, the log of an event, refusals
that are told once. A run that finds trouble finds it again with the same seed, counts and loop. It needs Linux,
and `pip install -e '.[test]'`.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from . import messages, streams
from .harness import PATIENCE, Server

WARM = 10  # of so many parts of all the first makes the server what it is compared with
GROWTH = {'rss': 1.1, 'blocks': 1.05}  # of its memory since then

Fuzz = Callable[[Server, random.Random, int], int]
KINDS: dict[str, Fuzz] = {'messages': messages.fuzz, 'streams': streams.fuzz}


def main() -> None:
    """Fuzz, and tell how it went."""
    parser = argparse.ArgumentParser(
        prog='python3 -m test.fuzz', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--messages', type=int, default=100_000)
    parser.add_argument('--streams', type=int, default=20_000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--loop', choices=('uvloop', 'asyncio'), default='uvloop')
    args = parser.parse_args()
    wanted = {kind: count for kind in KINDS if (count := getattr(args, kind))}
    told = ' and '.join(f'{count} {kind}' for kind, count in wanted.items())
    print(f'{told} on {args.loop}, seed {args.seed}', flush=True)
    started, server = time.monotonic(), Server(args.loop)
    tasks = server.tasks()
    rng, first = random.Random(args.seed), {kind: count // WARM for kind, count in wanted.items()}
    send(server, rng, first)
    warm = settle(server, tasks)
    send(server, rng, {kind: count - first[kind] for kind, count in wanted.items()})
    end = settle(server, tasks)
    found = troubles(warm, end, server.tasks() - tasks)
    server.close()
    print(*(f'  TROUBLE: {trouble}' for trouble in found), sep='\n', end='\n' if found else '')
    memory = f'from {mib(warm)} to {mib(end)} MiB, from {warm["blocks"]} to {end["blocks"]} blocks'
    verdict = 'again with the same seed' if found else 'the server is well'
    print(f'{told} on {args.loop} in {time.monotonic() - started:.0f} s, {memory}: {verdict}')
    sys.exit(bool(found))


def send(server: Server, rng: random.Random, wanted: dict[str, int]) -> None:
    """Send all, and tell how far it is."""
    done = dict.fromkeys(wanted, 0)
    started = told = time.monotonic()
    while kinds := [kind for kind in wanted if done[kind] < wanted[kind]]:
        kind = min(kinds, key=lambda it: done[it] / wanted[it])
        done[kind] += KINDS[kind](server, rng, wanted[kind] - done[kind])
        if (now := time.monotonic()) - told >= 1:
            told = now
            counts = ''.join(f'{count:9} {it}' for it, count in done.items())
            print(f'{now - started:5.0f} s{counts}   {mib(server.state())} MiB', flush=True)


def settle(server: Server, tasks: int) -> dict[str, Any]:
    """How the server stands when all clients are gone, which takes a moment."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and (server.state()['connections'] or server.tasks() > tasks):
        time.sleep(0.05)
    return server.state(collect=True)


def troubles(warm: dict[str, Any], end: dict[str, Any], tasks: int) -> list[str]:
    """What is wrong with a server that ends so, with so many tasks more."""
    found = list(end['errors'])
    if end['connections']:
        found.append(f'{end["connections"]} connections are left')
    if tasks > 0:
        found.append(f'{tasks} tasks are left')
    for what, growth in GROWTH.items():
        if end[what] > warm[what] * growth:
            found.append(f'its memory grew: {what}')
    return found


def mib(state: dict[str, Any]) -> str:
    """The memory of a process."""
    return f'{state["rss"] / 1024:.1f}'


if __name__ == '__main__':
    main()
