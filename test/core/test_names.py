"""Names of events, and where a client says it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webshoes.core.errors import Error
from webshoes.core.names import Since, check_event, read_cursors, write_cursors

EPOCH = st.text('abcXYZ019-_', max_size=9)


@pytest.mark.parametrize(
    ('text', 'cursors'),
    [
        ('0', [Since(0, None)]),
        ('E1:41', [Since(41, 'E1')]),
        ('a-b_C:0', [Since(0, 'a-b_C')]),
        ('E1:41,7,12', [Since(41, 'E1'), Since(7, 'E1'), Since(12, 'E1')]),
        ('E1:4,E0:7,3,E1:9', [Since(4, 'E1'), Since(7, 'E0'), Since(3, 'E0'), Since(9, 'E1')]),
        ('0,E1:2', [Since(0, None), Since(2, 'E1')]),
        (':5', [Since(5, '')]),
    ],
)
def test_cursors(text: str, cursors: list[Since]) -> None:
    """A line of cursors has an epoch where it changes."""
    assert read_cursors(text) == cursors


@pytest.mark.parametrize(
    'text',
    [
        '', '1', 'E1', 'E1:', 'E1:-1', 'E1:1.5', 'E1:x', 'E1:1,', ',1', 'E1:٣', 'E 1:1', 'E1\n:1', 'É:1', 'a:b:1',
        'E1:1e3', 'E1: 1', '0,1', 'E1:' + '9' * 20, 'E' * 65 + ':1',
    ],
)  # fmt: skip
def test_cursors_that_are_none(text: str) -> None:
    """What is no line of cursors is error 400."""
    with pytest.raises(Error, match="'since' is <epoch>:<ver>, or 0") as caught:
        read_cursors(text)
    assert caught.value.code == 400


@settings(max_examples=50, deadline=None)
@given(st.lists(st.builds(Since, st.integers(0, 10**18), EPOCH), min_size=1, max_size=6))
def test_cursors_come_back(cursors: list[Since]) -> None:
    """What is written is read as it was."""
    assert read_cursors(write_cursors(cursors)) == cursors


def test_cursors_are_short() -> None:
    """An epoch that holds for many stands once."""
    assert write_cursors([Since(4, 'E1'), Since(7, 'E1'), Since(1, 'E0'), Since(2, 'E0')]) == 'E1:4,7,E0:1,2'


@pytest.mark.parametrize(
    ('name', 'kind'), [('', ValueError), ('x' * 9, ValueError), (None, TypeError), (b'x', TypeError)]
)
def test_events_of_the_program(name: Any, kind: type[Exception]) -> None:
    """A name that the program gives and that is none is an error of Python's."""
    check_event('x' * 8, 8)
    with pytest.raises(kind, match='event'):
        check_event(name, 8)
