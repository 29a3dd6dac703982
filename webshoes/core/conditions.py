"""Conditional requests (RFC 9110 section 13): whether a request goes on, by what its client knows of the file."""

from __future__ import annotations

import re
from calendar import monthrange, timegm
from collections.abc import Callable

from msgspec import Struct

Field = Callable[[str], str | None]  # a header's value, its lines joined by commas

_TAG = re.compile(r'(?:W/)?"[^"\s]*"')
_MONTHS = ('jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec')
_TIME = r'(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)'
_MONTH = rf'(?P<month>{"|".join(_MONTHS)})'
_DATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf'[a-z]{{3}}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT',
        rf'[a-z]{{6,9}}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT',  # RFC 850
        rf'[a-z]{{3}} {_MONTH} (?P<day>[0-9 ][0-9]) {_TIME} (?P<year>[0-9]{{4}})',  # asctime
    )
]
STRONG_AFTER = 1  # seconds after which a date of modification counts as strong (RFC 9110 section 8.8.2.2)


class Validators(Struct, frozen=True):
    """Validators of a representation: they tell its versions apart (RFC 9110 section 8.8).

    Args:
        etag: the entity tag, quotes included.
        modified: the date of modification in whole seconds since 1970; `None` if it is not known.
    """

    etag: str
    modified: int | None = None


def failed_condition(method: str, field: Field, current: Validators) -> int | None:
    """Return the status that ends a request, 412 or 304; `None` if it goes on. In the order of RFC 9110 section 13.2.2.

    Methods other than GET and HEAD have no conditions here: what they do was done before a file is sent.

    Args:
        method: the request's.
        field: gives a header's value.
        current: the validators of the representation that would be sent.
    """
    if method not in ('GET', 'HEAD'):
        return None
    if (tags := field('If-Match')) is not None:
        if not _lists(tags, current.etag, weak=False):
            return 412
    elif _is_newer(current, field('If-Unmodified-Since'), otherwise=False):
        return 412
    if (tags := field('If-None-Match')) is not None:
        return 304 if _lists(tags, current.etag, weak=True) else None
    return None if _is_newer(current, field('If-Modified-Since'), otherwise=True) else 304


def allows_range(if_range: str | None, current: Validators, now: float) -> bool:
    """Tell whether a request gets the range that it asks for (RFC 9110 section 13.1.5).

    A range is only joined to what the client has if that is surely of the same version. So a tag must be strong, and a
    date must be exact, and its second over: a file may change twice in a second.

    Args:
        if_range: the header's value.
        current: the validators of the representation.
        now: seconds since 1970.
    """
    if if_range is None:
        return True
    if '"' in if_range:
        return not if_range.startswith('W/') and if_range == current.etag
    date = read_date(if_range)
    return date is not None and date == current.modified and now - date >= STRONG_AFTER


def read_date(text: str) -> int | None:
    """Read a date in one of HTTP's three formats (RFC 9110 section 5.6.7).

    Returns:
        Seconds since 1970; `None` if it is not a date.
    """
    found = next(filter(None, (pattern.fullmatch(text.strip()) for pattern in _DATES)), None)
    if found is None:
        return None
    year, month, day = int(found['year']), _MONTHS.index(found['month'].lower()) + 1, int(found['day'])
    if len(found['year']) == 2:
        year += 1900 if year >= 70 else 2000
    if not (year and 1 <= day <= monthrange(year, month)[1]):
        return None
    return timegm((year, month, day, int(found['hour']), int(found['minute']), int(found['second'])))


def _lists(tags: str, etag: str, *, weak: bool) -> bool:
    """Return whether a list of entity tags has this one, by weak or by strong comparison (RFC 9110 section 8.8.3.2)."""
    if tags.strip() == '*':
        return True
    if weak:
        return etag.removeprefix('W/') in (tag.removeprefix('W/') for tag in _TAG.findall(tags))
    return not etag.startswith('W/') and etag in _TAG.findall(tags)


def _is_newer(current: Validators, date: str | None, *, otherwise: bool) -> bool:
    """Return whether the representation changed after a date; `otherwise` where one of the two dates is not known."""
    since = read_date(date) if date is not None else None
    return current.modified > since if current.modified is not None and since is not None else otherwise
