"""Range requests by RFC 9110 section 14."""

from __future__ import annotations

import pytest

from webshoes.core.ranges import MAX_RANGES, Span, read_ranges


@pytest.mark.parametrize(
    ('field', 'spans'),
    [
        ('bytes=0-0', [(0, 1)]),
        ('bytes=2-4', [(2, 5)]),
        ('bytes=7-', [(7, 10)]),
        ('bytes=0-', [(0, 10)]),
        ('bytes=5-500', [(5, 10)]),
        ('bytes=-3', [(7, 10)]),
        ('bytes=-300', [(0, 10)]),
        ('Bytes=2-4', [(2, 5)]),
        ('bytes=002-004', [(2, 5)]),
        ('bytes= 2-4 , , 6-7 ,', [(2, 5), (6, 8)]),
        ('bytes=6-7,2-4', [(6, 8), (2, 5)]),
        ('bytes=0-1,-2', [(0, 2), (8, 10)]),
        ('bytes=2-4,10-20', [(2, 5)]),
        ('bytes=0-4,5-9', [(0, 5), (5, 10)]),
        ('bytes=0-' + '9' * 5000, [(0, 10)]),
        ('bytes=-' + '9' * 5000, [(0, 10)]),
    ],
)
def test_satisfiable(field: str, spans: list[tuple[int, int]]) -> None:
    """The bytes that there are of the ranges, in the order of the request."""
    assert read_ranges(field, 10) == [Span(*span) for span in spans]


@pytest.mark.parametrize(
    'field', ['bytes=10-', 'bytes=10-20', 'bytes=-0', 'bytes=20-30,-0,40-', 'bytes=' + '9' * 5000 + '-']
)
def test_not_satisfiable(field: str) -> None:
    """Ranges of which nothing is there, which is 416."""
    assert read_ranges(field, 10) == []


@pytest.mark.parametrize(
    'field',
    [
        '',
        'bytes',
        'bytes=',
        'bytes=,',
        'bytes=-',
        'bytes=5-4',
        'bytes=0-1,5-4',
        'bytes=a-b',
        'bytes=1-b',
        'bytes=1',
        'bytes=--1',
        'bytes=1-2-3',
        'bytes=0x1-2',
        'bytes=1 - 2',
        'bytes=+1-2',
        'bytes=\u0661-\u0662',
        'bytes=0-1, bytes=2-3',
        'lines=1-2',
        'bytes 1-2',
        'bytes:1-2',
        'xbytes=1-2',
        'bytes=' + ','.join('0-0' for _ in range(MAX_RANGES + 1)),
        'bytes=0-,0-',
        'bytes=0-5,4-9',
        'bytes=-9,-9',
    ],
)
def test_ignored(field: str) -> None:
    """Unknown units, what is malformed, and what asks for more than there is, are ignored."""
    assert read_ranges(field, 10) is None


def test_empty_representation() -> None:
    """Of nothing there is no first byte; its last ones are nothing, which only the whole can say."""
    assert read_ranges('bytes=0-', 0) == []
    assert read_ranges('bytes=-0', 0) == []
    assert read_ranges('bytes=-5', 0) is None


def test_content_range() -> None:
    """`Content-Range` counts the last byte in."""
    assert Span(2, 5).content_range(10) == 'bytes 2-4/10'
