"""The numbers the server enforces."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from webshoes.core.limits import Limits, over

NAMES = [limit.name for limit in fields(Limits)]
WITH_NONE = [limit.name for limit in fields(Limits) if limit.metadata['none']]


def limits(name: str, value: Any) -> Any:
    """The limit as it stands when it is set to a value."""
    return getattr(Limits(**{name: value}), name)


@pytest.mark.parametrize('limit', fields(Limits), ids=NAMES)
def test_every_limit_is_told(limit: Any) -> None:
    """Each limit has a unit, a reason and a default above 0."""
    assert limit.metadata['unit']
    assert limit.metadata['why']
    assert limit.default is None or limit.default > 0


@pytest.mark.parametrize('name', NAMES)
def test_what_is_no_limit(name: str) -> None:
    """What is not above 0 or no number, or a `None` without a meaning, is refused by name, for each limit."""
    for value in (0, -1):
        with pytest.raises(ValueError, match=rf'Limits\.{name} must be above 0'):
            limits(name, value)
    for kind in ('9', True, [1], *([None] if name not in WITH_NONE else [])):
        with pytest.raises(TypeError, match=rf'Limits\.{name} is a number of'):
            limits(name, kind)


def test_none() -> None:
    """`None` is taken where it has a meaning."""
    assert [limits(name, None) for name in WITH_NONE] == [None] * len(WITH_NONE)


def test_fractions() -> None:
    """Seconds may be fractions, counts may not."""
    assert [limits(name, 0.5) for name in ('slow_handler', 'stop_timeout')] == [0.5, 0.5]
    with pytest.raises(TypeError, match='max_batch is a number of messages or None'):
        limits('max_batch', 0.5)


def test_nan() -> None:
    """A limit that is not a number in the float's sense is refused."""
    with pytest.raises(ValueError, match='slow_handler'):
        Limits(slow_handler=float('nan'))


def test_unknown_limit() -> None:
    """An unknown limit is a TypeError as Python gives it."""
    with pytest.raises(TypeError, match='max_frog'):
        Limits(max_frog=1)  # type: ignore[call-arg]


def test_limits_stay() -> None:
    """Limits cannot be changed once they are made."""
    with pytest.raises(FrozenInstanceError):
        Limits().max_batch = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ('count', 'limit', 'is_over'), [(3, 3, False), (4, 3, True), (0, 1, False), (10**9, None, False)]
)
def test_over(count: int, limit: int | None, is_over: bool) -> None:
    """A limit is inclusive, and nothing is past `None`."""
    assert over(count, limit) is is_over
