"""Conditional requests by RFC 9110 section 13."""

from __future__ import annotations

from typing import Any

import pytest

from webshoes.core.conditions import Validators, allows_range, failed_condition, read_date

DATE = 784_111_777
AT = 'Sun, 06 Nov 1994 08:49:37 GMT'
EARLIER = 'Sun, 06 Nov 1994 08:49:36 GMT'
LATER = 'Sun, 06 Nov 1994 08:49:38 GMT'
CURRENT = Validators('"a"', DATE)
WEAK = Validators('W/"a"', DATE)


def status(method: str = 'GET', current: Any = CURRENT, **fields: Any) -> int | None:
    named = {name.replace('_', '-'): value for name, value in fields.items()}
    return failed_condition(method, named.get, current)


@pytest.mark.parametrize(
    ('tags', 'strong', 'weak'),
    [
        ('"a"', True, True),
        ('W/"a"', False, True),
        ('"b"', False, False),
        ('"b", "a"', True, True),
        ('"b","c" , W/"a"', False, True),
        ('*', True, True),
        ('"a', False, False),
        ('a', False, False),
        ('', False, False),
        ('"*"', False, False),
        ('w/"a"', True, True),  # a malformed member; what is quoted in it is a tag
        ('"A"', False, False),
        ('"a b"', False, False),
    ],
)
def test_lists_of_tags(tags: str, strong: bool, weak: bool) -> None:
    """If-Match compares strongly, If-None-Match weakly."""
    assert status(If_Match=tags) == (None if strong else 412)
    assert status(If_None_Match=tags) == (304 if weak else None)


def test_weak_tag_of_the_representation() -> None:
    """A weak tag never matches strongly."""
    assert status(current=WEAK, If_Match='W/"a", "a"') == 412
    assert status(current=WEAK, If_None_Match='"a"') == 304
    assert not allows_range('W/"a"', WEAK, DATE + 100)
    assert not allows_range('"a"', WEAK, DATE + 100)


@pytest.mark.parametrize(
    ('date', 'modified', 'unmodified'),
    [
        (EARLIER, None, 412),
        (AT, 304, None),
        (LATER, 304, None),
        ('no date', None, None),
        (f'{AT}, {AT}', None, None),
        ('', None, None),
    ],
)
def test_dates(date: str, modified: int | None, unmodified: int | None) -> None:
    """A file unchanged since a date is 304 or goes on, and the other way round; invalid dates are ignored."""
    assert status(If_Modified_Since=date) == modified
    assert status(If_Unmodified_Since=date) == unmodified
    assert status(current=Validators('"a"'), If_Modified_Since=date) is None
    assert status(current=Validators('"a"'), If_Unmodified_Since=date) is None


@pytest.mark.parametrize(
    ('fields', 'found'),
    [
        ({'If_Match': '"a"', 'If_Unmodified_Since': EARLIER}, None),
        ({'If_Match': '"b"', 'If_Unmodified_Since': LATER}, 412),
        ({'If_None_Match': '"b"', 'If_Modified_Since': LATER}, None),
        ({'If_None_Match': '"a"', 'If_Modified_Since': EARLIER}, 304),
        ({'If_Match': '"b"', 'If_None_Match': '"a"'}, 412),
        ({'If_Match': '"a"', 'If_None_Match': '"a"'}, 304),
        ({'If_Unmodified_Since': EARLIER, 'If_None_Match': '"a"'}, 412),
        ({'If_Unmodified_Since': LATER, 'If_Modified_Since': LATER}, 304),
        ({}, None),
    ],
)
def test_precedence(fields: dict[str, str], found: int | None) -> None:
    """Tags win over dates, and what expects a version over what asks for a new one (section 13.2.2)."""
    assert status(**fields) == found
    assert status('HEAD', **fields) == found
    assert status('POST', **fields) is None


@pytest.mark.parametrize(
    ('if_range', 'allowed'),
    [
        (None, True),
        ('"a"', True),
        ('"b"', False),
        ('W/"a"', False),
        ('"b", "a"', False),
        ('a', False),
        ('*', False),
        (AT, True),
        (EARLIER, False),
        (LATER, False),
        ('', False),
    ],
)
def test_if_range(if_range: str | None, allowed: bool) -> None:
    """A range is sent only of the very version that the client has a part of."""
    assert allows_range(if_range, CURRENT, now=DATE + 100) == allowed


@pytest.mark.parametrize(('age', 'allowed'), [(-1, False), (0, False), (0.99, False), (1, True), (60, True)])
def test_if_range_with_a_date_that_is_new(age: float, allowed: bool) -> None:
    """A date is strong when its second is over: until then the file may change again without another date."""
    assert allows_range(AT, CURRENT, now=DATE + age) == allowed


@pytest.mark.parametrize(
    ('text', 'seconds'),
    [
        (AT, DATE),
        ('Sunday, 06-Nov-94 08:49:37 GMT', DATE),
        ('Sun Nov  6 08:49:37 1994', DATE),
        ('Sun Nov 16 08:49:37 1994', DATE + 864_000),
        ('Thu, 01 Jan 1970 00:00:00 GMT', 0),
        ('Friday, 01-Jan-27 00:00:00 GMT', 1_798_761_600),
        ('Thu, 29 Feb 2024 00:00:00 GMT', 1_709_164_800),
        ('Wed, 29 Feb 2023 00:00:00 GMT', None),
        ('Sun, 00 Nov 1994 08:49:37 GMT', None),
        ('Sun, 06 Nov 1994 24:49:37 GMT', None),
        ('Sun, 06 Nov 0000 08:49:37 GMT', None),
        ('Sun, 06 Nov 1994 08:49:37', None),
        ('Sun, 06 Nov 1994 08:49:37 +0100', None),
        ('1994-11-06', None),
        ('784111777', None),
    ],
)
def test_read_date(text: str, seconds: int | None) -> None:
    """The three formats of HTTP are read, and nothing else is."""
    assert read_date(text) == seconds
