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
    load: float = 0.0  # the most of its core that the load has used

    def add(self, peer: str, sample: Sample) -> None:
        """One round of one peer."""
        self.values.setdefault(peer, []).append(sample.value)
        self.load = max(self.load, sample.load)

    def ratios(self, peer: str) -> list[float]:
        """To the base of the same round; none where either failed."""
        pairs = zip(self.values.get(peer, ()), self.values.get(self.workload.base, ()), strict=False)
        return [value / base for value, base in pairs if base]


def amount(value: float) -> str:
    """A number of three digits or so."""
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def line(result: Result) -> str:
    """A workload as it is done: the medians themselves, and what the load has used."""
    medians = {peer: statistics.median(values) for peer, values in result.values.items()}
    parts = [f'{peer} {amount(value)}' for peer, value in medians.items()]
    parts += [f'{peer} FAILED ({why})' for peer, why in result.failed.items()]
    load = f'; the load took {result.load:.0%} of its core at most' if result.load else ''
    return f'{result.workload.title} ({result.workload.unit}): {", ".join(parts)}{load}'


def cell(ratios: Sequence[float], failed: str) -> str:
    """The median, and the spread of the rounds."""
    if failed:
        return 'failed'
    if not ratios:
        return ''
    return f'{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})'


def table(results: Iterable[Result], peers: Sequence[str]) -> str:
    """The ratios in Markdown: a row for each workload, a column for each peer."""
    rows = [['', *peers]]
    for result in results:
        base = '' if result.workload.base in peers else f' ({result.workload.base} = 1)'
        title = result.workload.title + base + (', less is better' if result.workload.is_cost else '')
        rows.append([title, *(cell(result.ratios(peer), result.failed.get(peer, '')) for peer in peers)])
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
                'failed': result.failed,
                'load': round(result.load, 3),
            }
            for result in results
        },
    }
    (folder / f'{kind}.json').write_text(json.dumps(data, indent=1) + '\n')
    (folder / f'{kind}.md').write_text(table(results, peers) + '\n')
    (folder / f'{kind}.svg').write_text(plot.bars([(r.workload.title, ratios_of(r, peers)) for r in results]))
    print(f'written: {folder / kind}.json, .md, .svg')


def ratios_of(result: Result, peers: Sequence[str]) -> dict[str, float]:
    """The median of each peer."""
    return {peer: statistics.median(ratios) for peer in peers if (ratios := result.ratios(peer))}
