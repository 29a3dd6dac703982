"""How the `q` of a handler is made: a `Params`, or the type that the handler annotates it with."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections import abc
from collections.abc import Callable
from dataclasses import MISSING, is_dataclass
from datetime import datetime, time
from typing import Any

import msgspec
from propertybag import Bag

from webshoes.core.errors import Error
from webshoes.core.params import NOTHING, Params, Texts, dotted

_BOOLS = {'on': 'true', 'off': 'false'}  # beside those that msgspec reads: true, false, 1, 0
_MINUTES = re.compile(r'(.*T)?\d\d:\d\d')  # an input of type `time` or `datetime-local` leaves out seconds that are 0
_SEQUENCES = (list, set, frozenset, tuple, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Set, abc.MutableSet)

Bind = Callable[[dict[str, Any], Texts], Any]
"""Makes the `q` of one call, given all values and those among them that came as text."""


def binder(annotation: Any) -> Bind:
    """Return the function that makes the `q` of each call of a handler.

    Args:
        annotation: the handler's annotation of `q`. Without one (`None`), with `Any` or a `Bag`, `q` is a `Params`. Any
            type that `msgspec.convert` knows (Struct, dataclass, TypedDict, dict) is validated and converted: text
            becomes numbers, dates and so on, and JSON stays strict.
    """
    if annotation in (None, Any) or (isinstance(annotation, type) and issubclass(annotation, Bag)):
        return Params.of
    fields = _fields(annotation)

    def bind(values: dict[str, Any], texts: Texts) -> Any:
        texts = {name: text for name, text in texts.items() if name in values}
        for name in texts.keys() & fields.keys():
            values[name] = fields[name].read(texts[name])
            if values[name] is NOTHING:
                del values[name], texts[name]
        if len(texts) == len(values):
            return _convert(values, annotation, strict=False)
        for name in texts.keys() & fields.keys():
            values[name] = _convert(values[name], fields[name].hint, strict=False, name=name)
        return _convert(values, annotation, strict=True)

    return bind


class _Field:
    """A field of a typed `q`, and how the texts of a query or a form are read for it.

    Args:
        hint: its type.
        has_default: whether it may be missing.
    """

    def __init__(self, hint: Any, has_default: bool) -> None:
        self.hint = hint
        self._has_default = has_default
        kinds = _kinds(hint)
        sequences = [kind for kind in kinds if (typing.get_origin(kind) or kind) in _SEQUENCES]
        items = [item for sequence in sequences for arg in typing.get_args(sequence) for item in _kinds(arg)]
        self._is_sequence = bool(sequences)
        self._is_text = str in (items or kinds)
        self._is_bool = bool in (items or kinds)
        self._is_time = time in (items or kinds) or datetime in (items or kinds)
        self._has_gaps = type(None) in items
        self._takes_none = type(None) in kinds
        self._takes_empty = self._is_text or _fits([''] if sequences else '', hint)

    def read(self, texts: list[Any]) -> Any:
        """Return the value of texts, all of a repeated key or the first; `NOTHING` if they stand for none.

        A browser sends an input without a number, or a date, as an empty text, a checkbox as `on`, and times without
        their seconds.
        """
        is_empty = not any(texts) if self._is_sequence else texts[0] == ''
        if is_empty and not self._takes_empty and (self._has_default or self._takes_none):
            return NOTHING if self._has_default else None
        if not self._is_text:
            texts = [self._read_one(text) if isinstance(text, str) else text for text in texts]
        return texts if self._is_sequence else texts[0]

    def _read_one(self, text: str) -> str | None:
        if self._is_bool:
            text = _BOOLS.get(text.lower(), text)
        if self._is_time and _MINUTES.fullmatch(text):
            text += ':00'
        return None if self._has_gaps and not text else text


def _fields(annotation: Any) -> dict[str, _Field]:
    """Return the fields of a typed `q`, by the name under which they are sent."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return {
            found.encode_name: _Field(found.type, not found.required) for found in msgspec.structs.fields(annotation)
        }
    if is_dataclass(annotation):
        optional = {
            found.name
            for found in dataclasses.fields(annotation)
            if found.default is not MISSING or found.default_factory is not MISSING
        }
    elif typing.is_typeddict(annotation):
        optional = annotation.__optional_keys__
    else:
        kinds = [kind for kind in _kinds(annotation) if kind is not type(None)]
        return _fields(kinds[0]) if len(kinds) == 1 and kinds[0] is not annotation else {}
    hints = typing.get_type_hints(annotation, include_extras=True)
    return {name: _field(hint, name in optional) for name, hint in hints.items()}


def _field(hint: Any, is_optional: bool) -> _Field:
    """Make a field. Where annotations are text, only the mark of a TypedDict tells whether the field is optional."""
    origin = typing.get_origin(hint)
    if origin in (typing.Required, typing.NotRequired):
        return _Field(typing.get_args(hint)[0], origin is typing.NotRequired)
    return _Field(hint, is_optional)


def _kinds(hint: Any) -> list[Any]:
    """Return the members of a union, without `Annotated` and aliases; of another type, itself."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _kinds(hint.__origin__)
    if origin in (typing.Union, types.UnionType):
        return [kind for arg in typing.get_args(hint) for kind in _kinds(arg)]
    inner = getattr(hint, '__supertype__', getattr(hint, '__value__', None))  # NewType, TypeAliasType
    return [hint] if inner is None else _kinds(inner)


def _fits(value: Any, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint, strict=False)
    except Exception:  # the type itself is wrong, which registration reports
        return False
    return True


def _convert(value: Any, kind: Any, *, strict: bool, name: str = '') -> Any:
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as exc:
        raise Error(422, _sentence(str(exc), name)) from None


def _sentence(message: str, name: str) -> str:
    """Return msgspec's message with the name of the parameter in place of a JSON path."""
    text, _, path = message.partition(' - at `')
    if found := re.fullmatch('Object (missing required|contains unknown) field `(.*)`', text):
        kind = 'Missing' if found[1] == 'missing required' else 'Unknown'
        inner = re.sub(r'^\$\.?|`$', '', path)
        return f"{kind} parameter '{dotted(*(part for part in (name, inner, found[2]) if part))}'"
    place = '.'.join(part for part in (name, re.sub(r'^\$\.?|`$', '', path)) if part).replace('.[', '[')
    return f"Parameter '{place}': {text[0].lower()}{text[1:]}" if place else text
