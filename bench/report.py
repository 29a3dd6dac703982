"""What was measured, as tables, JSON and a plot."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plot
from environment import Environments
from workloads import Sample, Workload


@dataclass
class Result:
    """All rounds of one workload."""

    workload: Workload
    values: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    quantiles: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    load: float = 0.0  # the most CPU time that the load has used, to that of the server

    def add(self, peer: str, sample: Sample) -> None:
        """One round of one peer."""
        self.values.setdefault(peer, []).append(sample.value)
        self.quantiles.setdefault(peer, []).append(sample.quantiles)
        self.load = max(self.load, sample.load)

    def ratios(self, peer: str) -> list[float]:
        """To the base of the same round; none where either failed."""
        pairs = zip(self.values.get(peer, ()), self.values.get(self.workload.base, ()), strict=False)
        return [value / base for value, base in pairs if base]


def amount(value: float) -> str:
    """A number of three digits or so."""
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def line(result: Result) -> str:
    """A workload as it is done: the medians, and what the load has used; below 100 % the server is the slower one."""
    medians = {peer: statistics.median(values) for peer, values in result.values.items()}
    parts = [f'{peer} {amount(value)}' for peer, value in medians.items()]
    parts += [f'{peer} FAILED ({why})' for peer, why in result.failed.items()]
    load = f'; the load took {result.load:.0%} of the CPU time of the server at most' if result.load else ''
    return f'{result.workload.title} ({result.workload.unit}): {", ".join(parts)}{load}'


def cell(result: Result, peer: str) -> str:
    """The median, and the spread of the rounds; of a latency p50, p99 and p99.9 in milliseconds."""
    if peer in result.failed:
        return 'failed'
    if result.workload.section == 'latency':
        each = zip(*result.quantiles.get(peer, ()), strict=True)
        return ' / '.join(f'{statistics.median(rounds) * 1000:.3g}' for rounds in each)
    ratios = result.ratios(peer)
    if not ratios:
        return ''
    ratio = f'{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})'
    return (
        f'{amount(statistics.median(result.values[peer]))}: {ratio}' if result.workload.section == 'growth' else ratio
    )


TITLES = {
    'main': 'Ratios: the median of the rounds (and their spread); raw aiohttp = 1',
    'latency': 'Milliseconds to the answer: p50 / p99 / p99.9',
    'growth': 'Messages a CPU second of the server, and the ratio to raw aiohttp of the same size',
}


def tables(results: Iterable[Result], peers: Sequence[str]) -> str:
    """All tables, in Markdown."""
    results = list(results)
    parts = []
    for section, title in TITLES.items():
        rows = [result for result in results if result.workload.section == section]
        measured = [peer for peer in peers if any(peer in row.values or peer in row.failed for row in rows)]
        if rows:
            parts.append(f'{title}.\n\n{table(rows, measured)}')
    return '\n\n'.join(parts)


def table(results: Sequence[Result], peers: Sequence[str]) -> str:
    """A row for each workload, a column for each peer."""
    rows = [['', *peers]]
    for result in results:
        work = result.workload
        notes = ['less is better'] * (work.is_cost and work.section == 'main') + [f'{work.base} = 1'] * (
            work.base not in peers
        )
        title = work.title + f' ({", ".join(notes)})' * bool(notes)
        rows.append([title, *(cell(result, peer) for peer in peers)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ['-' * width for width in widths])
    return '\n'.join(
        '| ' + ' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + ' |' for row in rows
    )


def machine() -> dict[str, Any]:
    """Where it was measured."""
    model = [
        text.partition(':')[2].strip()
        for text in Path('/proc/cpuinfo').read_text().splitlines()
        if text.startswith('model name')
    ]
    return {
        'python': platform.python_version(),
        'system': platform.platform(),
        'processor': model[0] if model else platform.processor(),
        'cores': len(os.sched_getaffinity(0)),
        'load average': os.getloadavg()[0],
    }


def write(folder: Path, kind: str, results: Iterable[Result], peers: Sequence[str], environments: Environments) -> None:
    """The JSON, the table and the plot, as `<kind>.json`, `.md` and `.svg`."""
    results = list(results)
    folder.mkdir(exist_ok=True)
    data = {
        'machine': machine(),
        'versions': environments.versions(),
        'left out': environments.missing,
        'workloads': {
            result.workload.key: {
                'title': result.workload.title,
                'unit': result.workload.unit,
                'base': result.workload.base,
                'less is better': result.workload.is_cost,
                'values': result.values,
                'p50, p99, p99.9': result.quantiles if result.workload.section == 'latency' else {},
                'failed': result.failed,
                'load': round(result.load, 3),
            }
            for result in results
        },
    }
    (folder / f'{kind}.json').write_text(json.dumps(data, indent=1) + '\n')
    (folder / f'{kind}.md').write_text(tables(results, peers) + '\n')
    (folder / f'{kind}.svg').write_text(plot.dots([row_of(r, peers) for r in results if r.workload.section == 'main']))
    print(f'written: {folder / kind}.json, .md, .svg')


def row_of(result: Result, peers: Sequence[str]) -> tuple[str, dict[str, float]]:
    """A row of the plot: how many times better than the base each peer is."""
    medians = {peer: statistics.median(ratios) for peer in peers if (ratios := result.ratios(peer))}
    if result.workload.is_cost:
        medians = {peer: 1 / ratio for peer, ratio in medians.items()}
    base = '' if result.workload.base in peers else f' ({result.workload.base} = 1)'
    return result.workload.title + base, medians
