"""A plot in SVG."""

from __future__ import annotations

from collections.abc import Sequence


def bars(rows: Sequence[tuple[str, dict[str, float]]]) -> str:
    """Ratios as bars."""
    return f'<!-- {rows} -->'
