"""Bytes <-> values: strict JSON (RFC 8259) both ways, and the frames of wire section 5.

Encoding is orjson's, whose `default` learns what it would get wrong (a `Bag` is a `dict` whose content is not in the
dict itself) or does not know. What orjson refuses and JSON allows (integers past 64 bits, number keys, deep nesting)
takes the slow way round through the standard library. Decoding is msgspec's, untyped.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import orjson
from propertybag import Bag

from webshoes.core.errors import Error
from webshoes.core.params import Missing, Params, contents, missing_error

# Dataclasses are ours to take apart: orjson does not see a field that has its default and stands on the class alone.
_OPTIONS = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_SERIALIZE_NUMPY
_SORTED = _OPTIONS | orjson.OPT_SORT_KEYS
DecodeError = msgspec.DecodeError
PLAIN = frozenset((dict, list, int, float, bool, type(None), Params))  # results that are JSON wherever they go

read = msgspec.json.Decoder().decode
"""One JSON value, as `decode` reads it when nothing is wrong."""


def decode(data: bytes) -> Any:
    """One JSON value.

    Raises:
        UnicodeDecodeError: the bytes are not UTF-8 (RFC 6455 section 8.1: the connection is then failed).
        Error: 400, they are not JSON, nested too deep, or hold a number out of range.
    """
    try:
        return read(data)
    except UnicodeDecodeError:
        raise
    except msgspec.DecodeError as exc:
        data.decode()  # msgspec may stop at a malformed byte before it sees that the text is not UTF-8
        raise Error(400, f'Not JSON: {exc}') from None
    except RecursionError:
        raise Error(400, 'Not JSON that can be read: it is nested too deep') from None


def encode(value: Any) -> bytes:
    """The JSON of a value; `NaN` and the infinities become `null`.

    Raises:
        TypeError: the value cannot be JSON; the sentence names the type.
        Error: 400, a parameter that the client did not send is part of it.
    """
    try:
        # Joined, as orjson's own bytes hold on to the whole buffer that they were written into: 4 KiB for a number.
        return b''.join((orjson.dumps(value, _default, _OPTIONS), b''))
    except TypeError as exc:
        return _encode_slowly(value, _OPTIONS, exc)


def encode_sorted(value: Any) -> bytes:
    """As `encode`, the keys sorted: equal data gives equal bytes.

    Raises:
        As `encode`.
    """
    try:
        return orjson.dumps(value, _default, _SORTED)
    except TypeError as exc:
        return _encode_slowly(value, _SORTED, exc)


def _encode_slowly(value: Any, option: int, refusal: TypeError) -> bytes:
    if isinstance(refusal.__cause__, Error):
        raise refusal.__cause__ from None
    try:
        plain = _plain(value)
        return json.dumps(plain, separators=(',', ':'), sort_keys=option == _SORTED).encode()
    except RecursionError:
        raise TypeError('a value that contains itself, or is nested too deep, cannot be JSON') from None
    except ValueError as exc:  # an integer of more digits than Python writes
        raise TypeError(f'a value cannot be JSON: {exc}') from None


def _default(value: Any) -> Any:
    """One step towards JSON for what orjson does not know; orjson goes on from there."""
    for kinds, step in _STEPS:
        if isinstance(value, kinds):
            return step(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Missing):
        raise missing_error(value)
    tolist = getattr(value, 'tolist', None)  # array.array, and numpy's arrays where orjson refuses their layout
    if tolist is not None:
        return tolist()
    raise TypeError(f'{type(value).__qualname__} cannot be JSON')


def _struct(value: msgspec.Struct) -> Any:
    """The fields of a Struct under their encoded names; msgspec's own `to_builtins` would take a Bag for a dict."""
    names, attributes = value.__struct_encode_fields__, value.__struct_fields__
    config = value.__struct_config__
    items = [getattr(value, attribute) for attribute in attributes]
    tag = [] if config.tag is None else [config.tag]
    if config.array_like:
        return tag + items
    found = {str(config.tag_field): config.tag} if tag else {}
    return found | {name: item for name, item in zip(names, items, strict=True) if item is not msgspec.UNSET}


_STEPS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Params, contents),  # as the next one, which has it be given what is a Bag's
    (Bag, Bag.as_dict),
    (dict, dict),
    ((list, tuple), list),
    (str, str),
    (int, int),
    (float, float),
    ((bytes, bytearray, memoryview), lambda value: base64.b64encode(value).decode()),
    (msgspec.Struct, _struct),
)


def _plain(value: Any) -> Any:
    """A copy of `value` made of what the standard library's encoder takes."""
    if value is None or isinstance(value, bool) or type(value) in (str, int):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else None
    if type(value) is dict:
        return {_key(key): _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_plain(item) for item in value]
    with suppress(TypeError):
        return orjson.loads(orjson.dumps(value, option=_OPTIONS))
    return _plain(_default(value))


def _key(key: Any) -> str:
    """A key as the standard library writes it."""
    if key is None or isinstance(key, bool):
        return {None: 'null', True: 'true', False: 'false'}[key]
    for kind in (str, int, float):
        if isinstance(key, kind):
            return kind.__str__(key) if kind is str else kind.__repr__(key)  # whatever an enum shows of itself
    raise TypeError(f'{type(key).__qualname__} cannot be a key in JSON')


def reply(rep: str, value: Any, tid: Any, t: float) -> bytes:
    """A reply, or the answer to a subscription: `{"<rep>": value, "tid": tid, "t": t}`.

    Args:
        rep: the entry's reply field; `''` merges a dict into the reply, and puts anything else under `r`.
        value: the result.
        tid: as it came, or `None`.
        t: Unix time in seconds.

    Raises:
        As `encode`.
    """
    if rep:
        frame = {rep: value, 't': t} if tid is None else {rep: value, 'tid': tid, 't': t}
        try:
            return orjson.dumps(frame, _default, _OPTIONS)  # as `encode`, which is a call more
        except TypeError as exc:
            return _encode_slowly(frame, _OPTIONS, exc)
    if isinstance(value, dict):
        frame = {'t': t} | (value.as_dict() if isinstance(value, Bag) else value)
        if tid is not None:
            frame['tid'] = tid
        return encode(frame)
    return reply('r', value, tid, t)


def error(exc: Error, tid: Any = None) -> bytes:
    """An error: `{"error": "...", "code": 404, "tid": "x"}`."""
    frame = {'error': exc.message, 'code': exc.code}
    if tid is not None:
        frame['tid'] = tid
    return encode(frame)
