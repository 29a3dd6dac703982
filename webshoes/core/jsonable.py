"""Values of Python -> values of JSON (RFC 8259): None, bool, int, float, str, list, and dict with text as keys.

`converter` and `ask` take one value one step further: an encoder goes on from there. `plain` copies a
whole value, and finds the place of what cannot be JSON.
"""

from __future__ import annotations

import base64
import dataclasses
from collections import UserString, abc
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from math import isfinite
from pathlib import PurePath
from typing import Any, NoReturn
from uuid import UUID

import msgspec
from propertybag import Bag

from webshoes.core.params import Missing, Params, contents, missing_error
from webshoes.core.text import UnsendableError, utf8

MAX_DEPTH = 500  # levels of values within values; Python's stack has room for about twice as many
MAX_PLACE = 100  # characters of a place that are shown

_ADDRESSES = (IPv4Address, IPv6Address, IPv4Network, IPv6Network)

Default = Callable[[Any], Any]
"""The program's own step for types that nothing here knows, as `default` of `json.dumps`."""


def step(value: Any, default: Default | None = None) -> Any:
    """Take a value one step towards JSON.

    Args:
        value: of a type that JSON does not have.
        default: asked where the type is not known here.

    Raises:
        UnsendableError: it cannot be JSON.
        Error: 400, it is a parameter that the client did not send.
    """
    kind: Any = type(value)
    convert = converter(kind)
    return ask(default, value) if convert is None else convert(value)


@lru_cache(1024)
def converter(kind: Any) -> Callable[[Any], Any] | None:
    """Find what takes a value of a type one step towards JSON; `None` if the type is not known here."""
    for kinds, convert in _STEPS:
        if issubclass(kind, kinds):
            return convert
    if kind.__module__.partition('.')[0] == 'numpy' and hasattr(kind, 'dtype'):
        return of_numpy
    if dataclasses.is_dataclass(kind):
        return partial(_fields, {field.name: field.name for field in dataclasses.fields(kind)})
    if hasattr(kind, '__attrs_attrs__'):
        return partial(_fields, {field.name: field.name for field in kind.__attrs_attrs__})
    if hasattr(kind, 'done') and hasattr(kind, 'result'):  # a Future, of asyncio or of concurrent.futures
        return _of_future
    return getattr(kind, 'tolist', None)


def ask(default: Default | None, value: Any) -> Any:
    """Have the program's own function take a value of an unknown type one step towards JSON.

    Raises:
        UnsendableError: `default` refuses the value, or is `None`.
    """
    sentence = f'{_kind(value)} cannot be JSON'
    if default is None:
        raise UnsendableError(sentence)
    try:
        return default(value)
    except TypeError as exc:
        raise UnsendableError(f'{sentence}: {exc}' if str(exc) else sentence) from None


def _kind(value: Any) -> str:
    """Return the name of a value's type for an error message."""
    return f'the class {value.__qualname__}' if isinstance(value, type) else type(value).__qualname__


def _fields(attributes: dict[str, str], value: Any) -> dict[str, Any]:
    """The attributes of an object by the names under which they are sent; those that are not set are left out."""
    found = {name: getattr(value, attribute, msgspec.UNSET) for name, attribute in attributes.items()}
    return {name: item for name, item in found.items() if item is not msgspec.UNSET}


def _of_struct(value: msgspec.Struct) -> Any:
    """The fields of a Struct under their encoded names; msgspec's own `to_builtins` would take a Bag for a dict."""
    config = value.__struct_config__
    if config.array_like:
        items = [getattr(value, attribute) for attribute in value.__struct_fields__]
        return items if config.tag is None else [config.tag, *items]
    attributes = dict(zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True))
    tag = {} if config.tag is None else {str(config.tag_field): config.tag}
    return tag | _fields(attributes, value)


def _of_datetime(value: datetime) -> str | None:
    """ISO 8601; the offset in whole minutes, as RFC 3339 has it. NaT of pandas, a datetime unlike itself, is null."""
    if value != value:
        return None
    offset = None if value.tzinfo is None else value.utcoffset()
    if offset is not None and offset.microseconds + offset.seconds % 60:
        value = value.replace(tzinfo=timezone(timedelta(minutes=round(offset.total_seconds() / 60))))
    return value.isoformat()


def _of_missing(value: Missing) -> NoReturn:
    raise missing_error(value)


def _of_set(value: abc.Set[Any]) -> list[Any]:
    """The items in their order, where they have one, so that equal sets are equal JSON."""
    items = list(value)
    try:
        return sorted(items)
    except TypeError:
        return items


def _of_future(value: Any) -> Any:
    if not value.done() or value.cancelled():
        raise UnsendableError(f'a Future that is {"cancelled" if value.done() else "not done"} cannot be JSON')
    return value.result()


def of_numpy(value: Any) -> Any:
    """The values of an array, or of a scalar."""
    kind, size = value.dtype.kind, value.dtype.itemsize
    if kind == 'f' and size < 8:  # its shortest text is 0.1, and its value as a float of Python 0.10000000149011612
        value = value.astype('f4')
        if not value.shape:
            return float(str(value))
        value = value.astype('U').astype('f8')
    elif kind == 'f' and size > 8:  # the list of a longdouble is itself
        return value.tolist() if value.shape else float(value)
    elif kind in 'mM':
        return _of_numpy_times(value, *_TIMES[kind])
    elif value.dtype.names is not None:  # a list of Python's own floats would show 0.1 as 0.10000000149011612
        return list(value[()])
    elif kind == 'c' and not value.shape:
        raise UnsendableError(f'{_kind(value)} cannot be JSON')  # the list of a clongdouble is itself
    return value.tolist()


# Units and ranges that Python has room for: the years of a datetime, and the weeks that fill 63 bits of microseconds.
_TIMES = {'M': ('M8', 'Y', 1 - 1970, 9999 - 1970), 'm': ('m8', 'W', -15_250_284, 15_250_284)}


def _of_numpy_times(value: Any, kind: str, unit: str, least: int, most: int) -> Any:
    """A datetime64, a timedelta64, or an array of them, to the microsecond."""
    count = value.astype(f'{kind}[{unit}]').astype('i8')
    if ((value != value) | ((least <= count) & (count <= most))).all():  # NaT is not equal to itself
        return value.astype(f'{kind}[us]').tolist()
    if value.shape:
        return list(value)  # to find the place
    raise UnsendableError(f'{_kind(value)} out of the range of Python cannot be JSON')


_STEPS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Missing, _of_missing),
    (Params, contents),
    (Bag, Bag.as_dict),
    (Enum, lambda value: value.value),
    (dict, dict),
    ((list, tuple), list),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    ((bytes, bytearray, memoryview), lambda value: base64.b64encode(bytes(value)).decode()),
    (msgspec.Struct, _of_struct),
    (datetime, _of_datetime),
    ((date, time), lambda value: value.isoformat()),
    (timedelta, lambda value: msgspec.to_builtins(timedelta(value.days, value.seconds, value.microseconds))),
    ((UUID, Decimal, PurePath, UserString, *_ADDRESSES), str),
    ((abc.KeysView, abc.ValuesView, abc.ItemsView), list),
    (abc.Set, _of_set),
    (abc.Mapping, dict),
    (abc.Sequence, list),  # range, deque, array.array
)


def plain(value: Any, default: Default | None = None) -> Any:
    """Copy a value into what JSON has.

    Raises:
        UnsendableError: something in it cannot be JSON; the message begins with its place, as in `rows[0].price`.
        Error: 400, a parameter that the client did not send is part of it.
    """
    copier = _Copier(default)
    try:
        return copier.copy(value)
    except UnsendableError as exc:
        raise UnsendableError(copier.at(str(exc))) from None
    except RecursionError:
        raise UnsendableError(copier.at('a value that is nested too deep cannot be JSON')) from None


class _Copier:
    """One copy in the making.

    Args:
        default: asked for types that are not known here.
    """

    def __init__(self, default: Default | None) -> None:
        self._default = default
        self._path: list[str | int] = []  # keys and indexes that lead to the value in hand
        self._above: set[int] = set()  # the ids of the values that it is in

    def copy(self, value: Any) -> Any:
        """Copy a value; of one level only one frame is on the stack."""
        kind = type(value)
        if kind is str:
            if not value.isascii():
                utf8(value)
            return value
        if value is None or kind is bool or kind is float:
            return value
        if kind is int:
            return _whole(value)
        self._enter(value)
        path = self._path
        found: Any
        if kind is dict:
            found = {}
            for key, item in list(value.items()):  # another thread may change it meanwhile
                path.append(_key(key))
                found[path[-1]] = self.copy(item)
                path.pop()
        elif kind is list or kind is tuple:
            found = []
            for index, item in enumerate(value):
                path.append(index)
                found.append(self.copy(item))
                path.pop()
        else:
            following = step(value, self._default)
            if following is value:
                raise UnsendableError(f'{_kind(value)} cannot be JSON: it is converted to itself')
            found = self.copy(following)
        self._above.discard(id(value))
        return found

    def _enter(self, value: Any) -> None:
        if id(value) in self._above:
            raise UnsendableError(f'{_kind(value)} that contains itself cannot be JSON')
        if len(self._path) == MAX_DEPTH:
            raise UnsendableError(f'a value that is nested too deep, over {MAX_DEPTH} levels, cannot be JSON')
        self._above.add(id(value))

    def at(self, sentence: str) -> str:
        """The sentence, after the place of the value in hand."""
        place = _place(self._path)
        return f'{place}: {sentence}' if place else sentence


def _place(path: Iterable[str | int]) -> str:
    """A path as it would be written in Python: `rows[0].price`."""
    text = ''
    for part in path:
        if isinstance(part, str) and part.isidentifier():
            text += f'.{part}' if text else part
        else:
            text += f'[{part!r}]'
        if len(text) > MAX_PLACE:
            return f'{text[:MAX_PLACE]}...'
    return text


def _whole(value: int) -> int:
    """The integer, if Python writes it: it has a limit of digits (`sys.set_int_max_str_digits`)."""
    if value.bit_length() > 64:
        try:
            int.__repr__(value)
        except ValueError as exc:
            raise UnsendableError(f'an integer cannot be JSON: {exc}') from None
    return value


_KEYS = (Enum, date, time, timedelta, UUID, Decimal, PurePath, *_ADDRESSES)  # their JSON is a text, or what an Enum has


def _key(key: Any) -> str:
    """A key as text: that of its value; numbers and the like as the standard library writes them."""
    if isinstance(key, str) and not isinstance(key, Enum):
        utf8(key, 'a key')
        return str.__str__(key)
    if isinstance(key, _KEYS) or (type(key).__module__ == 'numpy' and not isinstance(key, (int, float, bytes))):
        return _key(step(key))
    if key is None or isinstance(key, bool):
        return 'null' if key is None else 'true' if key else 'false'
    if isinstance(key, int):
        return int.__repr__(_whole(key))
    if isinstance(key, float):
        if isfinite(key):
            return float.__repr__(key)
        return 'NaN' if key != key else 'Infinity' if key > 0 else '-Infinity'
    raise UnsendableError(f'{_kind(key)} cannot be a key in JSON')
