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
    beside: dict[str, list[float]] = field(default_factory=dict)
    load: float = 0.0  # the most CPU time that the load has used, to that of the server

    def add(self, peer: str, sample: Sample) -> None:
        """One round of one peer."""
        self.values.setdefault(peer, []).append(sample.value)
        self.quantiles.setdefault(peer, []).append(sample.quantiles)
        self.beside.setdefault(peer, []).append(sample.beside)
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
    """What the title of the section tells, of one peer."""
    if peer in result.failed:
        return 'failed'
    if peer not in result.values:
        return ''
    if result.workload.section == 'latency':
        each = zip(*result.quantiles[peer], strict=True)
        late = ' / '.join(amount(statistics.median(rounds) * 1000) for rounds in each)
        beside = statistics.median(result.beside[peer])
        return f'{late}; {amount(beside)}' if beside else late
    value = amount(statistics.median(result.values[peer]))
    is_growth = result.workload.section == 'growth'
    if peer == result.workload.base:
        return value if is_growth else f'1 = {value} {result.workload.unit}'
    ratios = result.ratios(peer)
    ratio = f'{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})' if ratios else ''
    return f'{value}: {ratio}' if is_growth else ratio


TITLES = {
    'main': 'Ratios to raw aiohttp = 1, more is better where nothing else is said: '
    'the median of the rounds (and their spread)',
    'latency': 'Milliseconds to the answer, p50 / p99 / p99.9, less is better; '
    'and the events a second that were delivered meanwhile, more is better',
    'growth': 'Messages a CPU second of the server, more is better: '
    'the ratio to raw aiohttp at the same size (and the spread of the rounds)',
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
            parts += [f'{row.workload.title}: {peer} failed: {why}' for row in rows for peer, why in row.failed.items()]
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


class Book:
    """Where the results are written, after each workload, so that an interruption costs only the one it meets.

    What is not whole yet stands beside what was whole the last time.

    Args:
        folder: where.
        kind: `quick` or `full`, which is the name of the files.
        peers: in the order of the columns.
        environments: whose versions are told.
    """

    def __init__(self, folder: Path, kind: str, peers: Sequence[str], environments: Environments) -> None:
        self._folder = folder
        self._kind = kind
        self._peers = peers
        where = machine()
        self._where = (
            f'CPython {where["python"]}, {where["cores"]} cores, {where["processor"]}; '
            f'load average {where["load average"]:.1f} when it began.'
        )
        self._about = {
            'machine': where,
            'versions': environments.versions(),
            'left out': environments.missing,
        }
        self._written: list[Path] = []

    def __str__(self) -> str:
        return ', '.join(map(str, self._written)) or 'nothing'

    def write(self, results: Iterable[Result], is_done: bool) -> None:
        """The JSON, the tables and the plot, as `<kind>.json`, `.md` and `.svg`, or `<kind>-unfinished.*`."""
        results = list(results)
        self._folder.mkdir(exist_ok=True)
        before, name = self._written, self._kind if is_done else f'{self._kind}-unfinished'
        contents = {
            'json': json.dumps({**self._about, 'workloads': {r.workload.key: as_json(r) for r in results}}, indent=1),
            'md': f'{self._where}\n\n{tables(results, self._peers)}',
            'svg': plot.dots([row_of(r, self._peers) for r in results if r.workload.section == 'main']),
        }
        self._written = [self._folder / f'{name}.{kind}' for kind in contents]
        for path, text in zip(self._written, contents.values(), strict=True):
            path.write_text(text.rstrip() + '\n')
        for path in set(before) - set(self._written):
            path.unlink()


def as_json(result: Result) -> dict[str, Any]:
    """Every number of a workload."""
    work = result.workload
    is_latency = work.section == 'latency'
    return {
        'title': work.title,
        'unit': work.unit,
        'base': work.base,
        'less is better': work.is_cost,
        'values': result.values,
        'p50, p99, p99.9': result.quantiles if is_latency else {},
        'events a second meanwhile': result.beside if is_latency else {},
        'failed': result.failed,
        'load': round(result.load, 3),
    }


def row_of(result: Result, peers: Sequence[str]) -> tuple[str, dict[str, float]]:
    """A row of the plot: how many times better than the base each peer is."""
    medians = {peer: statistics.median(ratios) for peer in peers if (ratios := result.ratios(peer))}
    if result.workload.is_cost:
        medians = {peer: 1 / ratio for peer, ratio in medians.items()}
    base = '' if result.workload.base in peers else f' ({result.workload.base} = 1)'
    return result.workload.title + base, medians
