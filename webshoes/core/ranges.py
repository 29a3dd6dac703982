"""Range requests (RFC 9110 section 14): which bytes of a representation are asked for."""

from __future__ import annotations

import re

from msgspec import Struct

MAX_RANGES = 16  # ranges in one request; a client that asks for more gets the whole file
_SPEC = re.compile(r'(?P<first>[0-9]*)-(?P<last>[0-9]*)')
_DIGITS = 18  # no size has more; longer numbers are cut, and stay larger than every size


class Span(Struct, frozen=True):
    """Bytes of a representation, from `start` up to `stop`, which is not among them."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """Return the value of `Content-Range` (section 14.4), for a representation of this size."""
        return f'bytes {self.start}-{self.stop - 1}/{size}'


def read_ranges(field: str, size: int) -> list[Span] | None:
    """Read a `Range` field.

    It is ignored, as sections 14.1.1 and 14.2 allow, if its unit is not bytes, if it is malformed, or if it asks for
    many ranges, or for more bytes than there are: overlapping ranges would make a small request a large answer.

    Args:
        field: the header's value.
        size: the bytes of the representation.

    Returns:
        The ranges, in the order of the request. None of them if the representation has no such bytes, which is
        status 416; `None` if the field is ignored.
    """
    unit, _, specs = field.partition('=')
    members = [spec.strip() for spec in specs.split(',') if spec.strip()]
    if unit.strip().lower() != 'bytes' or not 0 < len(members) <= MAX_RANGES:
        return None
    spans = []
    for member in members:
        found = _SPEC.fullmatch(member)
        if found is None or member == '-':
            return None
        first, last = _number(found['first']), _number(found['last'])
        if first is not None and last is not None and last < first:
            return None
        spans.append(_span(first, last, size))
    satisfiable = [span for span in spans if span is not None]
    if size == 0 and any(_is_suffix(member) for member in members):
        return None  # satisfiable, but no `Content-Range` can say so
    return satisfiable if sum(span.size for span in satisfiable) <= size else None


def _number(digits: str) -> int | None:
    return int(digits.lstrip('0')[: _DIGITS + 1] or 0) if digits else None


def _is_suffix(member: str) -> bool:
    return member[0] == '-' and bool(member.strip('-0'))


def _span(first: int | None, last: int | None, size: int) -> Span | None:
    """The bytes of one range; `None` if there are none."""
    if first is None:
        start, stop = max(size - (last or 0), 0), size
    else:
        start, stop = first, size if last is None else min(last + 1, size)
    return Span(start, stop) if start < stop else None
