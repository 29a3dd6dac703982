#!/usr/bin/env python3
"""Which encoder: orjson with our `default`, orjson bare, msgspec, the standard library, on what webshoes sends.

Ratios of the medians of interleaved rounds; 1 is orjson with our `default`, which is what `webshoes.core.codec` uses.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec
import orjson

from webshoes.core import codec

ROUNDS = 31
CALLS = 2000

PAYLOADS: dict[str, Any] = {
    'a reply': {'r': {'result': 5}, 'tid': 'req-001', 't': 1763.2},
    'a sensor': {'temperature': 72.3, 'ok': True, 'name': 'rig 4', 'at': [1.5, 2.5, 3.5]},
    '1,000 floats': [i / 7 for i in range(1000)],
    '100 records': [{'id': i, 'name': f'cell {i}', 'value': i / 3} for i in range(100)],
}
ENCODERS: dict[str, Callable[[Any], Any]] = {
    'orjson, ours': codec.encode,
    'orjson, bare': orjson.dumps,
    'msgspec': msgspec.json.Encoder().encode,
    'json': lambda value: json.dumps(value, separators=(',', ':')).encode(),
}


def seconds(encode: Callable[[Any], Any], value: Any, calls: int) -> float:
    """How long one round takes."""
    started = time.perf_counter()
    for _ in range(calls):
        encode(value)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print the table."""
    print(f'{"":14}' + ''.join(f'{name:>16}' for name in ENCODERS))
    for title, value in PAYLOADS.items():
        calls = max(CALLS * 50 // len(codec.encode(value)), 20)
        rounds: dict[str, list[float]] = {name: [] for name in ENCODERS}
        for _ in range(ROUNDS):
            for name, encode in ENCODERS.items():
                rounds[name].append(seconds(encode, value, calls))
        base = statistics.median(rounds['orjson, ours'])
        cells = (base / statistics.median(times) for times in rounds.values())
        print(f'{title:14}' + ''.join(f'{cell:16.2f}' for cell in cells))


if __name__ == '__main__':
    main()
