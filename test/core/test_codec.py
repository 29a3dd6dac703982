"""Bytes <-> values."""

from __future__ import annotations

import array
import dataclasses
import datetime
import enum
import ipaddress
import json
import math
import sys
import tracemalloc
import uuid
from collections import (
    ChainMap,
    Counter,
    OrderedDict,
    UserDict,
    UserList,
    UserString,
    defaultdict,
    deque,
    namedtuple,
)
from concurrent.futures import Future
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import attrs
import msgspec
import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from propertybag import Bag

from webshoes.core import codec
from webshoes.core.errors import Error
from webshoes.core.params import Params

QUICK = settings(max_examples=15, deadline=None, derandomize=True)

TEXT = st.text(st.characters(exclude_categories=['Cs']), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@dataclass
class Point:
    x: Any
    y: Any = 0


class Struct(msgspec.Struct):
    x: Any
    gone: Any = msgspec.UNSET


class Renamed(msgspec.Struct, rename='camel', tag='kind', tag_field='type'):
    first_name: str


class Row(msgspec.Struct, array_like=True, tag=True):
    x: int
    y: int


class Color(enum.Enum):
    RED = 'red'
    PAIR = (1, {'n': Decimal(2)})


class Level(int, enum.Enum):
    LOW = 1


class Word(str, enum.Enum):  # noqa: UP042  # whose own text is not its value
    BLUE = 'blue'


class Pretender(str):
    def __str__(self) -> str:
        return 'another'


class Moment(datetime.datetime):
    pass


class NoTime(datetime.datetime):
    """As NaT of pandas."""

    def __ne__(self, other: object) -> bool:
        return True


@attrs.define
class Attrs:
    x: Any
    y: Any = 0


@dataclass
class Hollow:
    x: int
    never_set: int = dataclasses.field(init=False)


ODD = datetime.timedelta(hours=1, seconds=50)


def done(result: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future


def failed(exc: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(exc)
    return future


def cancelled() -> Future[Any]:
    future: Future[Any] = Future()
    future.cancel()
    return future


Pair = namedtuple('Pair', 'a b')


@QUICK
@given(JSON)
@example(2**64)
@example(-(2**200))
@example(-0.0)
@example(5e-324)
@example({'': {'_': '_'}})
def test_round_trip(value: Any) -> None:
    """What is encoded is decoded to an equal value, also the slow way, on which a number as a key sends it."""
    assert codec.decode(codec.encode(value)) == value
    assert codec.decode(codec.encode({1: value})) == {'1': value}


@QUICK
@given(st.binary(max_size=30) | st.text('[]{},:"\\u0dE9-.1 \n', max_size=12).map(str.encode))
@example(b'')
@example(b'"\\ud800"')
@example(b'1' * 5000)
@example(b'[' * 10000)
@example(b'{"a":' * 10000)
@example(b'\xff')
@example(b'[\xff')
@example(b'\xef\xbb\xbf{}')
@example(b'NaN')
@example(b'1e999')
def test_any_bytes(data: bytes) -> None:
    """Any bytes are a value, our own error or no UTF-8, and nothing else."""
    try:
        codec.decode(data)
    except Error:
        return
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            data.decode()


@pytest.mark.parametrize(
    'data', ['NaN', 'Infinity', '-Infinity', '[1,]', "{'a':1}", '1 2', '01', '"\t"', '', '\ufeff1']
)
def test_strict(data: str) -> None:
    """What RFC 8259 does not know is refused with 400."""
    with pytest.raises(Error, match=r'^Not JSON') as caught:
        codec.decode(data.encode())
    assert caught.value.code == 400


@pytest.mark.parametrize('data', [b'\xff', b'"\xff"', b'{"a":"\xc3\x28"}', b'!\xff', b'{"a":1}\xff'])
def test_no_utf8(data: bytes) -> None:
    """What is not UTF-8 is told from what is not JSON, wherever the malformed byte stands."""
    with pytest.raises(UnicodeDecodeError):
        codec.decode(data)


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (None, 'null'),
        (True, 'true'),
        (0, '0'),
        (2**70, '1180591620717411303424'),
        (1.5, '1.5'),
        (math.nan, 'null'),
        (-math.inf, 'null'),
        ('é', '"é"'),
        (b'\x00\xff', '"AP8="'),
        (bytearray(b'a'), '"YQ=="'),
        (memoryview(b'a'), '"YQ=="'),
        ((1, 2), '[1,2]'),
        (Pair(1, 2), '[1,2]'),
        (Color.RED, '"red"'),
        (Level.LOW, '1'),
        (array.array('i', [1, 2]), '[1,2]'),
        (OrderedDict(a=1), '{"a":1}'),
        (defaultdict(int, a=1), '{"a":1}'),
        (Point(1, b'a'), '{"x":1,"y":"YQ=="}'),
        (msgspec.convert({'x': 1}, Point), '{"x":1,"y":0}'),
        (Point(msgspec.convert({'x': 1}, Point)), '{"x":{"x":1,"y":0},"y":0}'),
        (Struct(1), '{"x":1}'),
        (Renamed('Ann'), '{"type":"kind","firstName":"Ann"}'),
        (Row(1, 2), '["Row",1,2]'),
        (Attrs(1), '{"x":1,"y":0}'),
        (Bag({'a': {'b': 1}}), '{"a":{"b":1}}'),
        (Bag(), '{}'),
        (Params.of({'a': 1}), '{"a":1}'),
        ([Bag(a=Bag(b=1))], '[{"a":{"b":1}}]'),
        (Point(Struct(Bag(a=1))), '{"x":{"x":{"a":1}},"y":0}'),
        (datetime.date(2024, 1, 31), '"2024-01-31"'),
        (datetime.time(1, 2, 3, 10_000), '"01:02:03.010000"'),
        (datetime.time(1, 2, tzinfo=datetime.UTC), '"01:02:00+00:00"'),
        (datetime.datetime(2024, 1, 31, 5, 6, 7), '"2024-01-31T05:06:07"'),
        (datetime.datetime(2024, 1, 31, 5, 6, 7, tzinfo=datetime.UTC), '"2024-01-31T05:06:07+00:00"'),
        (datetime.datetime(1900, 1, 1, tzinfo=datetime.timezone(-ODD)), '"1900-01-01T00:00:00-01:01"'),
        (datetime.datetime(1900, 1, 1, tzinfo=datetime.timezone(ODD)), '"1900-01-01T00:00:00+01:01"'),
        (Moment(2024, 1, 31), '"2024-01-31T00:00:00"'),
        (NoTime(1, 1, 1), 'null'),
        ([ipaddress.ip_address('10.0.0.1'), ipaddress.ip_interface('::1/64')], '["10.0.0.1","::1/64"]'),
        (ipaddress.ip_network('10.0.0.0/8'), '"10.0.0.0/8"'),
        (datetime.timedelta(days=1, seconds=3.5), '"P1DT3.5S"'),
        (-datetime.timedelta(seconds=5), '"-PT5S"'),
        (datetime.timedelta(), '"P0D"'),
        (Decimal('1.10'), '"1.10"'),
        ({3, 1, 2}, '[1,2,3]'),
        (frozenset('ba'), '["a","b"]'),
        ({1, 'a'} - {'a'}, '[1]'),
        (deque([2, 1]), '[2,1]'),
        (range(3), '[0,1,2]'),
        ({'b': 1, 'a': 2}.keys(), '["b","a"]'),
        ({'b': 1, 'a': 2}.values(), '[1,2]'),
        ({'b': 1, 'a': 2}.items(), '[["b",1],["a",2]]'),
        (MappingProxyType({'a': {1}}), '{"a":[1]}'),
        (ChainMap({'a': 1}, {'a': 2}), '{"a":1}'),
        (Counter('aa'), '{"a":2}'),
        (UserDict(a=1), '{"a":1}'),
        (UserList([1, Decimal(2)]), '[1,"2"]'),
        (UserString('a'), '"a"'),
        (PurePosixPath('/a/b'), '"/a/b"'),
        (memoryview(b'abcd')[::2], '"YWM="'),
        (Color.PAIR, '[1,{"n":"2"}]'),
        (Word.BLUE, '"blue"'),
        (done(7), '7'),
        (done({'a': Decimal(1)}), '{"a":"1"}'),
        (Hollow(1), '{"x":1}'),
        (Struct(msgspec.UNSET), '{}'),
        (Pretender('x'), '"x"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    ],
)
def test_encode(value: Any, text: str) -> None:
    """Each kind of value has its one JSON, wherever in another it stands, also beside what goes the slow way."""
    assert codec.encode(value).decode() == text
    assert codec.encode({'v': [value]}).decode() == f'{{"v":[{text}]}}'
    assert json.loads(codec.encode([value, 2**70])) == [json.loads(text), 2**70]


@pytest.mark.parametrize(
    ('key', 'text'),
    [
        (1, '1'),
        (1.5, '1.5'),
        (None, 'null'),
        (True, 'true'),
        (False, 'false'),
        (Pretender('x'), 'x'),
        (Level.LOW, '1'),
        (2**70, '1180591620717411303424'),
        (math.nan, 'NaN'),
        (-math.inf, '-Infinity'),
    ],
)
def test_keys(key: Any, text: str) -> None:
    """Keys that are no text are written as the standard library writes them."""
    assert (
        codec.decode(codec.encode({key: 'v', 7: 0})) == {text: 'v', '7': 0} == json.loads(json.dumps({key: 'v', 7: 0}))
    )


@pytest.mark.parametrize(
    ('key', 'text'),
    [
        (Color.RED, 'red'),
        (Word.BLUE, 'blue'),
        (datetime.date(2024, 1, 31), '2024-01-31'),
        (datetime.datetime(2024, 1, 31, 5), '2024-01-31T05:00:00'),
        (datetime.time(5), '05:00:00'),
        (datetime.timedelta(seconds=1), 'PT1S'),
        (uuid.UUID(int=1), '00000000-0000-0000-0000-000000000001'),
        (Decimal('1.10'), '1.10'),
        (PurePosixPath('/a'), '/a'),
        (ipaddress.ip_address('::1'), '::1'),
        (numpy.int64(5), '5'),
        (numpy.uint8(5), '5'),
        (numpy.float32(0.1), '0.1'),
        (numpy.float64(0.1), '0.1'),
        (numpy.bool_(True), 'true'),
        (numpy.str_('a'), 'a'),
        (numpy.datetime64('2024-01-31'), '2024-01-31T00:00:00'),
    ],
)
def test_keys_that_are_values(key: Any, text: str) -> None:
    """A key may be whatever is a text or a number in JSON."""
    assert codec.decode(codec.encode({'a': [{key: 1}]})) == {'a': [{text: 1}]}


class Text(enum.StrEnum):
    RED = 'red'


def test_enum_key() -> None:
    """A key that is an enum's text is its value."""
    assert codec.encode({Text.RED: 1, 2: Text.RED}) == b'{"red":1,"2":"red"}'


TOO_MANY = (
    'Exceeds the limit (4300 digits) for integer string conversion; '
    'use sys.set_int_max_str_digits() to increase the limit'
)


class Itself:
    """A value that is its own `tolist()`, as some arrays are."""

    def tolist(self) -> Any:
        return self


def deep(levels: int) -> list[Any]:
    """A list in a list, and so on."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def loop() -> list[Any]:
    """A list that contains itself."""
    inner: list[Any] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (object(), 'object cannot be JSON'),
        (1j, 'complex cannot be JSON'),
        (Struct, 'the class Struct cannot be JSON'),
        (len, 'builtin_function_or_method cannot be JSON'),
        ((n for n in [1]), 'generator cannot be JSON'),
        (iter([1]), 'list_iterator cannot be JSON'),
        (ValueError('x'), 'ValueError cannot be JSON'),
        (Future(), 'a Future that is not done cannot be JSON'),
        (cancelled(), 'a Future that is cancelled cannot be JSON'),
        ({'a': [{'b': object()}]}, 'a[0].b: object cannot be JSON'),
        ({'rows': [{'price': 1j}]}, 'rows[0].price: complex cannot be JSON'),
        ([[0], [0, 1j]], '[1][1]: complex cannot be JSON'),
        ({1: object()}, "['1']: object cannot be JSON"),
        ({'a b': {'': 1j}}, "['a b']['']: complex cannot be JSON"),
        (Point(Struct(Bag(a={'b': 1j}))), 'x.x.a.b: complex cannot be JSON'),
        (
            Row(1, [1j]),  # type: ignore[arg-type]
            '[2][0]: complex cannot be JSON',
        ),
        ({'s': {1, 2j}}, 's[1]: complex cannot be JSON'),
        ({'x' * 200: 1j}, 'x' * 100 + '...: complex cannot be JSON'),
        ({'a': {(1, 2): 3}}, 'a: tuple cannot be a key in JSON'),
        ({b'a': 3}, 'bytes cannot be a key in JSON'),
        ({done(1): 3}, 'Future cannot be a key in JSON'),
        (loop(), '[0]: list that contains itself cannot be JSON'),
        ({'a': Point(loop())}, 'a.x[0]: list that contains itself cannot be JSON'),
        (deep(600), '[0]' * 33 + '[...: a value that is nested too deep, over 500 levels, cannot be JSON'),
        ('\ud800', "text with the lone surrogate '\\ud800' cannot be UTF-8"),
        ({'a': ['x\udfffy']}, "a[0]: text with the lone surrogate '\\udfff' cannot be UTF-8"),
        ({'a': {'\ud800': 1}}, "a: a key with the lone surrogate '\\ud800' cannot be UTF-8"),
        ([Pretender('\ud800')], "[0]: text with the lone surrogate '\\ud800' cannot be UTF-8"),
        (PurePosixPath('\udcff'), "text with the lone surrogate '\\udcff' cannot be UTF-8"),
        (numpy.complex128(1), 'complex128 cannot be JSON'),
        (numpy.clongdouble(1), 'clongdouble cannot be JSON'),
        ([numpy.array([1, 2j])], '[0][0]: complex cannot be JSON'),
        (numpy.datetime64(2**62, 's'), 'datetime64 out of the range of Python cannot be JSON'),
        (numpy.timedelta64(-(2**62), 's'), 'timedelta64 out of the range of Python cannot be JSON'),
        ({'t': numpy.array([[0, -(2**55)]], 'M8[s]')}, 't[0][1]: datetime64 out of the range of Python cannot be JSON'),
        (Itself(), 'Itself cannot be JSON: it is converted to itself'),
        ({'a': [10**5000]}, f'a[0]: an integer cannot be JSON: {TOO_MANY}'),
        ({'a': {10**5000: 1}}, f'a: an integer cannot be JSON: {TOO_MANY}'),
    ],
    ids=range(38),
)
def test_cannot_be_json(value: Any, message: str) -> None:
    """A value that cannot be JSON is a TypeError that tells the place and why, sorted or not."""
    for encode in (codec.encode, codec.encode_sorted):
        with pytest.raises(TypeError) as caught:
            encode(value)
        assert str(caught.value) == message


def test_a_value_that_is_nested_deeper_than_the_stack_goes() -> None:
    """If Python's own stack ends first, the error is the same."""

    def at(level: int) -> bytes:
        return codec.encode(deep(450)) if level == 0 else at(level - 1)

    with pytest.raises(TypeError, match='a value that is nested too deep cannot be JSON'):
        at(sys.getrecursionlimit() - 300)


def test_a_future_that_failed() -> None:
    """A Future that failed raises what it failed with."""
    with pytest.raises(KeyError, match='sensor'):
        codec.encode({'a': failed(KeyError('sensor'))})


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (numpy.float64(0.1), '0.1'),
        (numpy.float32(0.1), '0.1'),
        (numpy.float16(0.1), '0.099975586'),
        (numpy.longdouble('0.1'), '0.1'),
        (numpy.float64('nan'), 'null'),
        (numpy.int8(-5), '-5'),
        (numpy.uint64(2**64 - 1), '18446744073709551615'),
        (numpy.bool_(True), 'true'),
        (numpy.str_('a'), '"a"'),
        (numpy.bytes_(b'a'), '"YQ=="'),
        (numpy.datetime64('2024-01-31T01:02:03.123456789'), '"2024-01-31T01:02:03.123456"'),
        (numpy.datetime64('NaT', 's'), 'null'),
        (numpy.timedelta64(1500, 'ms'), '"PT1.5S"'),
        (numpy.array(5), '5'),
        (numpy.array([[1, 2], [3, 4]]), '[[1,2],[3,4]]'),
        (numpy.array([0.1, numpy.nan], 'f4'), '[0.1,null]'),
        (numpy.array([0.1], 'f2'), '[0.099975586]'),
        (numpy.array([[0.1, 0.2], [0.3, 0.4]], 'f4').T, '[[0.1,0.3],[0.2,0.4]]'),
        (numpy.array([0.1, 0.2, 0.3], 'f4')[::2], '[0.1,0.3]'),
        (numpy.array([1, 2], '>i4'), '[1,2]'),
        (numpy.array([0.5], 'g'), '[0.5]'),
        (numpy.array(['2024', 'NaT'], 'M8[Y]'), '["2024-01-01T00:00:00",null]'),
        (numpy.array([1], 'm8[s]'), '["PT1S"]'),
        (numpy.array(['a']), '["a"]'),
        (numpy.array([1, None, Decimal(1)]), '[1,null,"1"]'),
        (numpy.ma.array([1, 2], mask=[False, True]), '[1,null]'),
        (numpy.ma.array([0.1, 0.2], 'f4', mask=[False, True]), '[0.1,null]'),
        (numpy.zeros(1, [('a', 'i4'), ('b', '?')]), '[[0,false]]'),
        (numpy.array([(1, 0.1)], [('a', 'i4'), ('b', 'f4')]), '[[1,0.1]]'),
        (numpy.array((1, 0.1), [('a', 'i4'), ('b', 'f4')]), '[1,0.1]'),
        (numpy.longdouble('1e400'), 'null'),
        (numpy.array(['1e400'], 'g'), '[null]'),
        (numpy.datetime64('0001-01-01', 's'), '"0001-01-01T00:00:00"'),
        (numpy.datetime64('9999-12-31T23:59:59', 's'), '"9999-12-31T23:59:59"'),
        (numpy.timedelta64(-100_000_000, 'D'), '"-P100000000D"'),
        (numpy.zeros((0, 3)), '[]'),
        (numpy.array([True]), '[true]'),
    ],
)
def test_numpy(value: Any, text: str) -> None:
    """Scalars and arrays of numpy are the numbers that they show, however an array lies in memory."""
    assert codec.encode(value).decode() == text
    assert json.loads(codec.encode({'v': [value, 2**70]})) == {'v': [json.loads(text), 2**70]}


# --- types of the program's own ---


class Kelvin:
    def __init__(self, degrees: Any) -> None:
        self.degrees = degrees


def as_degrees(value: Any) -> Any:
    """A `default` as of json.dumps."""
    if isinstance(value, Kelvin):
        return {'K': value.degrees}
    raise TypeError(f'no {type(value).__name__} here')


@pytest.mark.parametrize('wrap', [lambda v: v, lambda v: {'a': [v]}, lambda v: {1: v}, lambda v: Point(v, 2**70)])
def test_default(wrap: Any) -> None:
    """`default` gives what a type of the program's own is, which is encoded like anything else."""
    encoder = codec.Encoder(as_degrees)
    assert codec.decode(encoder.encode(wrap(Kelvin({2})))) == codec.decode(codec.encode(wrap({'K': [2]})))
    assert codec.decode(encoder.reply('r', wrap(Kelvin(2)), 7, 5.0))['r'] == codec.decode(codec.encode(wrap({'K': 2})))


@pytest.mark.parametrize(
    ('default', 'value', 'message'),
    [
        (as_degrees, 1j, 'complex cannot be JSON: no complex here'),
        (as_degrees, {'t': Kelvin(1j)}, 't.K: complex cannot be JSON: no complex here'),
        (lambda value: value, {'t': 1j}, 't: complex cannot be JSON: it is converted to itself'),
        (lambda value: [value], {'t': 1j}, 't[0]: complex that contains itself cannot be JSON'),
        (lambda value: Kelvin(1), [1j], '[0]: a value that is nested too deep cannot be JSON'),
    ],
)
def test_default_that_refuses(default: Any, value: Any, message: str) -> None:
    """A value that `default` refuses, or never makes JSON of, is refused with the place."""
    with pytest.raises(TypeError) as caught:
        codec.Encoder(default).encode(value)
    assert str(caught.value) == message


@pytest.mark.parametrize('more', [{}, {1: 2}, {'a': 2**70}, {'a': {1}}])
def test_default_is_asked_once(more: Any) -> None:
    """`default` may empty what it is given: it is asked once for each value, whatever else there is."""
    encoder = codec.Encoder(list)
    for encode in (encoder.encode, partial(encoder.encode_event, 'e'), lambda value: encoder.reply('r', value, 1, 0.0)):
        assert b'"g":[0,1]' in encode({'g': (number for number in range(2)), 'more': more})


def test_nested_objects() -> None:
    """Each object is one level."""
    value = Point(None)
    for _ in range(300):
        value = Point(value)
    assert codec.encode(value).count(b'x') == 301


def test_default_is_not_asked_for_what_is_known() -> None:
    """`default` is asked for types that are not known, and for no others."""
    known = [{1}, Bag(a=1), Point(1), Struct(1), Decimal(1), b'a', Color.RED, done(1), numpy.float32(1)]
    assert codec.Encoder(as_degrees).encode(known) == codec.encode(known)


@pytest.mark.parametrize('kind', [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_default_that_fails(kind: type[BaseException]) -> None:
    """An error of `default`, or a signal that comes while it runs, goes to the caller as it is."""

    def fail(value: Any) -> Any:
        raise kind('of the program')

    with pytest.raises(kind, match='of the program'):
        codec.Encoder(fail).encode([1j])


def test_the_data_of_an_event_that_cannot_be_json() -> None:
    """The event is named before the place."""
    with pytest.raises(TypeError) as caught:
        codec.ENCODER.encode_event('rows', {'rows': [{'price': 1j}]})
    assert str(caught.value) == "event 'rows': rows[0].price: complex cannot be JSON"


@pytest.mark.parametrize('rep', ['r', ''])
def test_a_reply_that_cannot_be_json(rep: str) -> None:
    """The place is that in the result, not in the reply."""
    with pytest.raises(TypeError) as caught:
        codec.ENCODER.reply(rep, {'a': 1j}, 'x', 5.0)
    assert str(caught.value) == 'a: complex cannot be JSON'


@pytest.mark.parametrize('wrap', [lambda q: q.n, lambda q: {'a': [q.n]}, lambda q: Bag(a=q.n), lambda q: {1: q.n}])
def test_missing_parameter(wrap: Any) -> None:
    """A parameter that the client did not send is error 400 wherever in a value it stands."""
    with pytest.raises(Error, match="Missing parameter 'n'") as caught:
        codec.encode(wrap(Params.of({})))
    assert caught.value.code == 400


@settings(QUICK, max_examples=10)
@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_sorted(value: dict[str, Any]) -> None:
    """Equal data gives equal bytes, in whatever order its keys stand."""
    backwards = dict(reversed(value.items()))
    assert codec.encode_sorted(backwards) == codec.encode_sorted(value)
    assert codec.decode(codec.encode_sorted(value)) == value


def test_nested_deeper_than_orjson_goes() -> None:
    """300 levels are encoded."""
    text = b'[' * 300 + b']' * 300
    assert codec.encode(codec.decode(text)) == text


def test_no_bytes_of_the_caller_are_shared() -> None:
    """What is changed after it was encoded is not seen."""
    value = {'a': [1]}
    data = codec.encode(value)
    value['a'].append(2)
    assert data == b'{"a":[1]}'


@pytest.mark.parametrize('value', [1, 'x' * 100, 'x' * 10_000, [1] * 10_000], ids=['number', 'text', 'long', 'list'])
def test_memory(value: Any) -> None:
    """What is encoded, and may be kept for long, takes as much memory as it is long."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [codec.encode(value) for _ in range(100)]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / len(kept) < len(kept[0]) + 200


# --- frames ---


@pytest.mark.parametrize(
    ('rep', 'value', 'tid', 'frame'),
    [
        ('r', 1, None, {'r': 1, 't': 5.0}),
        ('r', 1, 'x', {'r': 1, 'tid': 'x', 't': 5.0}),
        ('r', None, 0, {'r': None, 'tid': 0, 't': 5.0}),
        ('r', {}, '', {'r': {}, 'tid': '', 't': 5.0}),
        ('out', {'t': 1}, 'x', {'out': {'t': 1}, 'tid': 'x', 't': 5.0}),
        ('', {'a': 1}, 'x', {'a': 1, 'tid': 'x', 't': 5.0}),
        ('', {'t': 1, 'tid': 'mine'}, 'x', {'t': 1, 'tid': 'x'}),
        ('', {}, None, {'t': 5.0}),
        ('', Bag({'a': {'b': 1}}), 'x', {'a': {'b': 1}, 'tid': 'x', 't': 5.0}),
        ('', OrderedDict(a=1), None, {'a': 1, 't': 5.0}),
        ('', [1], 'x', {'r': [1], 'tid': 'x', 't': 5.0}),
        ('', 'text', None, {'r': 'text', 't': 5.0}),
        ('', None, None, {'r': None, 't': 5.0}),
        ('', Point(1), None, {'r': {'x': 1, 'y': 0}, 't': 5.0}),
        ('r', b'\x00', None, {'r': 'AA==', 't': 5.0}),
    ],
)
def test_reply(rep: str, value: Any, tid: Any, frame: Any) -> None:
    """A reply stands under `rep`; where `rep` is '' a dict is merged and anything else stands under `r`."""
    assert codec.decode(codec.ENCODER.reply(rep, value, tid, 5.0)) == frame


def test_reply_changes_nothing() -> None:
    """Merging a result into the reply leaves the handler's own dict alone."""
    value = {'a': 1}
    codec.ENCODER.reply('', value, 'x', 5.0)
    assert value == {'a': 1}


@pytest.mark.parametrize(
    ('tid', 'frame'),
    [
        (None, {'error': 'No', 'code': 404}),
        ('x', {'error': 'No', 'code': 404, 'tid': 'x'}),
        (0, {'error': 'No', 'code': 404, 'tid': 0}),
        ('', {'error': 'No', 'code': 404, 'tid': ''}),
    ],
)
def test_error(tid: Any, frame: Any) -> None:
    """An error has one shape, with the `tid` where there was one, a falsy one too."""
    assert codec.decode(codec.error(Error(404, 'No'), tid)) == frame
