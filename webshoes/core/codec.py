"""Bytes <-> values: strict JSON (RFC 8259) both ways, and the frames of wire section 5.

orjson encodes where it is installed. It asks `_step` for what it would get wrong (a `Bag` is a `dict` whose
content is not in the dict itself) or does not know. What it refuses is copied by `jsonable.plain`, which knows all that
JSON can hold and the place of what it cannot; msgspec encodes the copy. Without orjson that is the only way. Decoding
is msgspec's, untyped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from propertybag import Bag

from webshoes.core.errors import Error
from webshoes.core.jsonable import Default, converter, of_numpy, plain
from webshoes.core.params import Params
from webshoes.core.text import HALF_OF_PAIR, UnsendableError

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

DecodeError = msgspec.DecodeError
SLOW = 0.001  # seconds
PLAIN = frozenset((dict, list, int, float, bool, type(None), Params))  # results that are JSON wherever they go

read = msgspec.json.Decoder().decode
"""One JSON value, as `decode` reads it when nothing is wrong."""


# Half of a surrogate pair, where no backslash is escaped: one without the other half behind it, or before it.
_HALF = re.compile(
    rb'\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}'
)


def decode(data: bytes) -> Any:
    """Return the value of one JSON text.

    Raises:
        UnicodeDecodeError: the bytes are not UTF-8 (RFC 6455 section 8.1: the connection is then failed).
        Error: 400, they are not JSON, nested too deep, or hold a number out of range or half of a surrogate pair.
    """
    try:
        return read(data)
    except UnicodeDecodeError:
        raise
    except msgspec.DecodeError as exc:
        data.decode()  # msgspec may stop at a malformed byte before it sees that the text is not UTF-8
        if (half := _HALF.search(data.replace(rb'\\', b'  '))) is not None:  # msgspec says 'truncated' of some
            raise Error(400, f'Not JSON: {half[0].decode()} at byte {half.start()} {HALF_OF_PAIR}') from None
        raise Error(400, f'Not JSON: {exc}') from None
    except RecursionError:
        raise Error(400, 'Not JSON that can be read: it is nested too deep') from None


def _step(value: Any) -> Any:
    """Take one step towards JSON for a value that orjson does not know; orjson goes on from there.

    The program's `default` is not asked: where orjson then refuses something else, `plain` would ask it a second time,
    and a generator that it has read is empty.
    """
    kind: Any = type(value)
    convert = converter(kind)
    if convert is of_numpy and value.dtype.kind in 'biuf':
        try:  # only now may orjson know numpy: it imports it as soon as it meets any type that it does not know
            return orjson.Fragment(orjson.dumps(value, None, orjson.OPT_SERIALIZE_NUMPY))
        except TypeError:
            pass  # an array that is not contiguous, a longdouble
    if convert is None:
        raise TypeError
    return convert(value)


def _refuse(value: Any, default: Any, options: int) -> bytes:
    raise TypeError


if orjson is None:
    _dumps: Callable[[Any, Any, int], bytes] = _refuse
    _OPTIONS = _SORTED = 0
else:
    _dumps = orjson.dumps
    # We take dataclasses apart: orjson does not see a field that has its default and stands on the class alone. And we
    # write dates and times: orjson 3.13 writes 0.01 seconds of a `time` as `.10000`, and offsets such as `+00:60`.
    _OPTIONS = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    _SORTED = _OPTIONS | orjson.OPT_SORT_KEYS

_msgspec, _msgspec_sorted = msgspec.json.Encoder(), msgspec.json.Encoder(order='sorted')


def _own_bytes(data: bytes) -> bytes:
    """The same in no more memory than it is long: encoders leave it in the buffer that they wrote into."""
    return b''.join((data, b''))


def _interrupt(refusal: TypeError) -> None:
    """Raise what ended the encoding, where it was no refusal: orjson hides even a Ctrl-C behind a TypeError."""
    if refusal.__cause__ is not None and not isinstance(refusal.__cause__, Exception):
        raise refusal.__cause__


def _ignore(seconds: float) -> None:
    """Do nothing."""


class Encoder:
    """Encodes what the program gives: results, data of events.

    Args:
        default: as the `default` of `json.dumps`, takes a value of a type that is not known here and gives one that is,
            or raises `TypeError`.
        clock: monotonic seconds.
        get_thread: returns the number of the current thread.
    """

    __slots__ = ('_clock', '_default', '_get_thread', '_on_slow', '_watched')

    def __init__(
        self,
        default: Default | None = None,
        clock: Callable[[], float] = lambda: 0.0,
        get_thread: Callable[[], int] = lambda: 0,
    ) -> None:
        self._default = default
        self._clock = clock
        self._get_thread = get_thread
        self._watched = -1  # the thread in which the data of events is timed; no thread has this number
        self._on_slow: Callable[[float], None] = _ignore

    def watch(self, on_slow: Callable[[float], None]) -> None:
        """Time the data of events that is encoded in this thread from now on, and in no other.

        Args:
            on_slow: called with the seconds that the data of an event took, where these are more than `SLOW`.
        """
        self._watched, self._on_slow = self._get_thread(), on_slow

    def unwatch(self) -> None:
        """Time nothing any more, unless another thread is watched by now."""
        if self._get_thread() == self._watched:
            self._watched, self._on_slow = -1, _ignore

    def encode(self, value: Any) -> bytes:
        """Return the JSON of a value; `NaN` and the infinities become `null`.

        Raises:
            UnsendableError: the value cannot be JSON; the message begins with the place of what cannot.
            Error: 400, a parameter that the client did not send is part of it.
        """
        try:
            return b''.join((_dumps(value, _step, _OPTIONS), b''))  # `_own_bytes`, written out: it saves a call
        except TypeError as exc:
            _interrupt(exc)
        return _own_bytes(_msgspec.encode(plain(value, self._default)))

    def encode_event(self, event: str, value: Any) -> bytes:
        """As `encode`, for the data of an event, which the message then names."""
        get_thread = self._get_thread  # before the call: Python 3.11 takes long to find a method that is none
        started = self._clock() if get_thread() == self._watched else None
        try:
            try:
                return b''.join((_dumps(value, _step, _OPTIONS), b''))  # `encode`, written out: it saves a call
            except TypeError as exc:
                _interrupt(exc)
            return _own_bytes(_msgspec.encode(plain(value, self._default)))
        except UnsendableError as exc:
            raise UnsendableError(f'event {event!r}: {exc}') from None
        finally:
            if started is not None and (seconds := self._clock() - started) > SLOW:
                self._on_slow(seconds)

    def reply(self, rep: str, value: Any, tid: Any, t: float) -> bytes:
        """Return a reply, or the answer to a subscription: `{"<rep>": value, "tid": tid, "t": t}`.

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
                return _dumps(frame, _step, _OPTIONS)  # `encode`, written out: it saves a call
            except TypeError as exc:
                _interrupt(exc)
            value = plain(value, self._default)
            return _msgspec.encode({rep: value, 't': t} if tid is None else {rep: value, 'tid': tid, 't': t})
        if isinstance(value, dict):
            frame = {'t': t} | (value.as_dict() if isinstance(value, Bag) else value)
            if tid is not None:
                frame['tid'] = tid
            return self.encode(frame)
        return self.reply('r', value, tid, t)


ENCODER = Encoder()
encode = ENCODER.encode
"""Encode what is the server's own, or came from a client."""


def encode_sorted(value: Any) -> bytes:
    """As `encode`, the keys sorted: equal data gives equal bytes.

    Raises:
        As `encode`.
    """
    try:
        return _dumps(value, _step, _SORTED)
    except TypeError as exc:
        _interrupt(exc)
    return _msgspec_sorted.encode(plain(value))


def error(exc: Error, tid: Any = None) -> bytes:
    """Return the message of an error: `{"error": "...", "code": 404, "tid": "x"}`."""
    frame = {'error': exc.message, 'code': exc.code}
    if tid is not None:
        frame['tid'] = tid
    return encode(frame)
