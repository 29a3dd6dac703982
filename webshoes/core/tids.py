"""Transaction ids: which values a `tid` may have, and what an error carries to name the message that it refuses.

A message that is refused because of its `tid`, or because it is not JSON, is still named where that is possible: the
client would wait for its answer in vain otherwise. The look at a text that is not JSON is linear in its length, and
bounded, because hostile clients send such texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from webshoes.core import codec

Tid = str | int | float | None

LOOK = 300_000  # strings and runs of brackets that are looked at, which takes about as long as reading valid JSON
START = re.compile(rb'(?:\xef\xbb\xbf)?[ \t\r\n]*([{[])')  # a byte order mark may be why it is not JSON
# Each match ends behind the next: 1. key `tid`, or any other string, 2. run of opening, 3. of closing brackets.
TOKEN = re.compile(rb'[^][{}"]*(?:("tid"[ \t\r\n]*:)|"[^"]*"?|([\[{]+)|([\]}]+)|\Z)')
KEY, OPEN, CLOSE = 1, 2, 3
VALUE = re.compile(rb'[ \t\r\n]*("[^"]*"|[^][{}",:\s]+(?=[\s,}]))')
LONE_SURROGATES = re.compile('[\ud800-\udfff]')


def is_tid(value: Any, max_name: int) -> bool:
    """Return whether a value may be a `tid`: a number, or a text of at most `max_name` characters."""
    if isinstance(value, str):
        return len(value) <= max_name
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def echo(value: Any, max_name: int) -> Any:
    """Return what an error carries as `tid` for a message with this value in that field.

    Args:
        value: the value, a valid `tid` or not.
        max_name: characters that are echoed at most.

    Returns:
        The value as it came. A text that is too long is cut, and an array or object whose JSON is too long is the
        beginning of that JSON, as a text.
    """
    if isinstance(value, str):
        return value[:max_name]
    if isinstance(value, (list, dict)):
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(',', ':'))  # knows more levels than our encoder
        except RecursionError:
            return None
        return value if len(text) <= max_name else text[:max_name]
    return value


def find(data: bytes, max_name: int, most: int | None) -> list[Any]:
    """Return what the errors carry as `tid` for a text that is not valid JSON, an array of messages or one.

    It is known if a message is an object with a key `"tid"` on its top level, and a complete string, number, `true` or
    `false` behind it; the last such key counts, as in valid JSON. What cannot be read of the value is echoed as a text:
    half of a surrogate pair as U+FFFD, anything else as it stands. `None` stands first, once for all messages
    whose `tid` is not known.

    Args:
        data: one message, or an array of messages.
        max_name: characters that are echoed at most.
        most: messages of an array that are looked at; `None`: all.
    """
    start = START.match(data) if b'"tid"' in data else None
    if start is None:
        return [None]
    plain = data.replace(rb'\\', b'  ').replace(rb'\"', b'  ')  # so that each quote begins or ends a string
    tids, is_known = list[Any](), True
    for place in islice(_places(plain, 1 if start[1] == b'{' else 2), most):
        found = VALUE.match(plain, place) if place is not None else None
        if found is None:
            is_known = False
        else:
            tids.append(echo(_read(data[found.start(1) : found.end(1)]), max_name))
    return tids if tids and is_known else [None, *tids]


def _places(plain: bytes, level: int) -> Iterator[int | None]:
    """Yield where each object at this depth has the value of its last `tid`, or `None` where it has none."""
    depth, is_object, place = 0, False, None
    for token in islice(TOKEN.finditer(plain), LOOK):
        kind = token.lastindex
        if kind == KEY:
            place = token.end() if depth == level and is_object else place
        elif kind == OPEN:
            start, size = token.start(OPEN), token.end() - token.start(OPEN)
            if depth < level <= depth + size:
                is_object, place = plain[start + level - depth - 1] == ord('{'), None
            depth += size
        elif kind == CLOSE:
            before, depth = depth, depth - (token.end() - token.start(CLOSE))
            if depth < level <= before and is_object:
                yield place
                is_object = False
            if depth < 1:
                return
    if is_object:
        yield place


def _read(text: bytes) -> Any:
    """Read a string or a number, which may be invalid."""
    try:
        return codec.read(text)
    except (ValueError, codec.DecodeError):  # older versions of msgspec raise one that is no ValueError
        pass
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        value = None
    if not isinstance(value, str):
        value = text.decode(errors='replace').strip('"')
    return LONE_SURROGATES.sub('\ufffd', value)
