"""Bytes <-> values."""

from __future__ import annotations

import array
import datetime
import enum
import json
import math
import tracemalloc
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from typing import Any

import msgspec
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


class Level(int, enum.Enum):
    LOW = 1


class Word(str):
    pass


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
        ('\ud800', '"\\ud800"'),
        (b'\x00\xff', '"AP8="'),
        (bytearray(b'a'), '"YQ=="'),
        (memoryview(b'a'), '"YQ=="'),
        ((1, 2), '[1,2]'),
        (Pair(1, 2), '[1,2]'),
        (Word('x'), '"x"'),
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
        (Bag({'a': {'b': 1}}), '{"a":{"b":1}}'),
        (Bag(), '{}'),
        (Params.of({'a': 1}), '{"a":1}'),
        ([Bag(a=Bag(b=1))], '[{"a":{"b":1}}]'),
        (Point(Struct(Bag(a=1))), '{"x":{"x":{"a":1}},"y":0}'),
        (datetime.date(2024, 1, 31), '"2024-01-31"'),
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
        (Word('x'), 'x'),
        (Level.LOW, '1'),
        (2**70, '1180591620717411303424'),
    ],
)
def test_keys(key: Any, text: str) -> None:
    """Keys that are no text are written as the standard library writes them."""
    assert (
        codec.decode(codec.encode({key: 'v', 7: 0})) == {text: 'v', '7': 0} == json.loads(json.dumps({key: 'v', 7: 0}))
    )


class Text(enum.StrEnum):
    RED = 'red'


def test_enum_key() -> None:
    """A key that is an enum's text is its value."""
    assert codec.encode({Text.RED: 1, 2: Text.RED}) == b'{"red":1,"2":"red"}'


def loop() -> list[Any]:
    """A list that contains itself."""
    inner: list[Any] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (object(), 'object cannot be JSON'),
        ({1, 2}, 'set cannot be JSON'),
        (1j, 'complex cannot be JSON'),
        (Struct, 'cannot be JSON'),
        ({'a': [{'b': object()}]}, 'object cannot be JSON'),
        ({1: object()}, 'object cannot be JSON'),
        ({(1, 2): 3}, 'tuple cannot be a key in JSON'),
        (loop(), 'contains itself'),
        pytest.param(10**5000, 'digits', id='huge'),
        pytest.param({10**5000: 1}, 'digits', id='huge-key'),
    ],
)
def test_cannot_be_json(value: Any, message: str) -> None:
    """What cannot be JSON is a TypeError that says why, sorted or not."""
    for encode in (codec.encode, codec.encode_sorted):
        with pytest.raises(TypeError, match=message):
            encode(value)


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
    assert codec.decode(codec.reply(rep, value, tid, 5.0)) == frame


def test_reply_changes_nothing() -> None:
    """Merging a result into the reply leaves the handler's own dict alone."""
    value = {'a': 1}
    codec.reply('', value, 'x', 5.0)
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
