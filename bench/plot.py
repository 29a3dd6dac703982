"""The main table as a plot, in SVG: a row for each workload, a dot for each peer, to the right what is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from peers import OLD, OURS

WIDTH, LEFT, RIGHT = 560, 24, 84  # narrow, and large letters: it is to be read on a phone too
TOP, ROW = 116, 48
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
STYLE = """
.paper { fill: #ffffff; }
text { font: 16px system-ui, sans-serif; fill: #1f2328; stroke: #ffffff; stroke-width: 4px; paint-order: stroke; }
.small { font-size: 14px; fill: #59636e; }
.strong { font-weight: 600; }
.grid { stroke: #d1d9e0; }
.one { stroke: #59636e; stroke-width: 1.5; }
.span { stroke: #d1d9e0; stroke-width: 5; stroke-linecap: round; }
.peer { fill: #818b98; }
.old { fill: #ffffff; stroke: #0969da; stroke-width: 2; }
.ours { fill: #0969da; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117; }
  text { fill: #f0f6fc; stroke: #0d1117; }
  .small { fill: #9198a1; }
  .grid, .span { stroke: #3d444d; }
  .one { stroke: #9198a1; }
  .peer { fill: #9198a1; }
  .old { fill: #0d1117; stroke: #4493f8; }
  .ours { fill: #4493f8; }
}
"""


class Axis:
    """A logarithmic axis from the least to the most."""

    def __init__(self, values: Sequence[float]) -> None:
        self._low = math.log(min(values, default=0.5) * 0.85)
        self._high = math.log(max(values, default=2.0) * 1.15)

    def x(self, value: float) -> float:
        """Where it is."""
        part = (math.log(value) - self._low) / (self._high - self._low)
        return round(LEFT + part * (WIDTH - LEFT - RIGHT), 1)

    @property
    def ticks(self) -> list[float]:
        """The round numbers on it."""
        return [tick for tick in TICKS if self._low <= math.log(tick) <= self._high]


def text(x: float, y: float, content: str, kind: str = '', anchor: str = 'start') -> str:
    """A text."""
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def dot(x: float, y: float, peer: str, value: float) -> str:
    """A peer; its name is shown where the pointer rests on it."""
    kind, radius = {OURS: ('ours', 7), OLD: ('old', 5)}.get(peer, ('peer', 4))
    return f'<circle cx="{x}" cy="{y}" r="{radius}" class="{kind}"><title>{escape(peer)}: {value:.2f}</title></circle>'


def row(axis: Axis, y: float, title: str, values: dict[str, float]) -> list[str]:
    """A workload: its title, and below it the dots."""
    parts = [text(LEFT, y - 14, title)]
    if not values:
        return parts
    least, most = min(values, key=lambda p: values[p]), max(values, key=lambda p: values[p])
    parts.append(f'<line x1="{axis.x(values[least])}" x2="{axis.x(values[most])}" y1="{y}" y2="{y}" class="span"/>')
    shown = sorted((peer for peer in values if values[peer] != 1), key=lambda peer: (peer == OURS, peer == OLD))
    parts += [dot(axis.x(values[peer]), y, peer, values[peer]) for peer in shown]
    if OURS in values:
        parts.append(text(WIDTH - LEFT, y - 14, f'{values[OURS]:.2f}', 'strong', 'end'))
    if values[most] > 1 and most not in (OURS, OLD):
        parts.append(text(axis.x(values[most]) + 9, y + 4, most, 'small'))
    return parts


def legend() -> list[str]:
    """What the dots are."""
    places = ((0, OURS, 'webshoes'), (120, OLD, 'webshoes 1.0.0'), (280, '', 'other peers'))
    parts = [text(LEFT, 24, 'Times better than raw aiohttp (= 1)', 'strong')]
    for x, peer, name in places:
        parts += [dot(LEFT + x + 8, 67, peer or 'a peer', 1), text(LEFT + x + 22, 72, name)]
    return [*parts, text(LEFT, 46, 'to the right is better; memory, import and start: times less', 'small')]


def dots(rows: Sequence[tuple[str, dict[str, float]]]) -> str:
    """The plot of these titles and times."""
    axis = Axis([value for _, values in rows for value in (1.0, *values.values())])
    height = TOP + ROW * len(rows) + 16
    parts = [f'<rect width="{WIDTH}" height="{height}" class="paper"/>', *legend()]
    for tick in axis.ticks:
        x = axis.x(tick)
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{height - 16}" class="{"one" if tick == 1 else "grid"}"/>'
        )
        parts.append(text(x, TOP - 14, f'{tick:g}', 'small', 'middle'))
    for number, (title, values) in enumerate(rows):
        parts += row(axis, TOP + ROW * (number + 0.7), title, values)
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    body = '\n'.join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<style>{STYLE}</style>\n{body}\n</svg>\n'
