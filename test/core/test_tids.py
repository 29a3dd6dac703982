"""The `tid` in an error for a message that is refused."""

from __future__ import annotations

from time import process_time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webshoes.core import codec, tids
from webshoes.core.errors import Error

MOST = 8  # characters of a `tid`
BATCH = 4  # messages of an array


@pytest.mark.parametrize(
    ('value', 'echo'),
    [
        ('x', 'x'),
        ('x' * 8, 'x' * 8),
        ('x' * 9, 'x' * 8),
        ('é☃' * 9, 'é☃' * 4),
        (7, 7),
        (1.5, 1.5),
        (2**70, 2**70),
        (True, True),
        (False, False),
        (None, None),
        ([1, 2], [1, 2]),
        ({'a': 1}, {'a': 1}),
        ([1, 2, 3, 4], '[1,2,3,4'),
        ({'ab': 'cd'}, '{"ab":"c'),
    ],
)
def test_echo(value: Any, echo: Any) -> None:
    """A value comes back as it was sent, and no longer than the longest `tid`."""
    assert tids.echo(value, MOST) == echo


def test_echo_of_deep_nesting() -> None:
    """The beginning of an array with more levels than a reply may have."""
    assert tids.echo(codec.read(b'[' * 600 + b']' * 600), MOST) == '[' * 8


def test_echo_of_what_is_nested_too_deep() -> None:
    """An array that cannot be encoded names nothing."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert tids.echo(value, MOST) is None


KNOWN: dict[bytes, Any] = {
    rb'{"cmd": "cmd/echo", "q": {"s": "\ud83d"}, "tid": 7}': 7,
    rb'{"tid": 7, "cmd": "cmd/echo", "q": {"s": "\ud83d"}}': 7,
    rb'{"tid":"a","\ud83d":1}': 'a',
    rb'{"cmd":"\ude00","tid":"a"}': 'a',
    b'{"q":' + b'[' * 100_000 + b']' * 100_000 + b',"tid":7}': 7,
    b'{"q":' + b'{"a":' * 100_000 + b'1' + b'}' * 100_000 + b',"tid":7}': 7,
    b'{"q":' + b'[{"a":' * 50_000 + b'1' + b'}]' * 50_000 + b',"tid":7}': 7,
    rb'{"q":["\ud83d",' + b'"x",' * 100_000 + b'1],"tid":7}': 7,
    rb'{"q":"' + b'x' * 4_000_000 + rb'\ud83d","tid":7}': 7,
    b'{"q":NaN,"tid":-1.5}': -1.5,
    b'{"q":1e999,"tid":7}': 7,
    b'{\'q\':1,"tid":7}': 7,
    b'{"q":1,,"tid":7,}': 7,
    b'{q:1,"tid":7}': 7,
    b'{"q":"\n","tid":7}': 7,
    b'{"q":"\\x","tid":7}': 7,
    b'{"q":1,"tid":7} {"tid":8}': 7,
    b'{"tid":7,"q":"and no end': 7,
    b'{"tid":7,"q":{"a":[': 7,
    b'\xef\xbb\xbf{"tid":7}': 7,
    b' \r\n\t{ "tid" \n:\t7 \r,x}': 7,
    b'{"tid":1,"tid":2,x}': 2,  # the last one counts, like in valid JSON
    rb'{"a\\":"\"","\\\"tid\"":1,"tid":2,x}': 2,
    b'{"q":{"tid":1},"tid":2,x}': 2,
    b'{"tid":2,"q":{"tid":1},x}': 2,
    b'{"tid":2,"q":"tid",x}': 2,
    b'{"tid":"",x}': '',
    b'{"tid":true,x}': True,
    b'{"tid":"' + b'x' * 300 + b'",x}': 'x' * 8,
    rb'{"tid":"a\ud83d"}': 'a\ufffd',
    rb'{"tid":"\"\ud83d\ude00\ude00"}': '"\U0001f600\ufffd',
    rb'{"tid":"\x41"}': r'\x41',
    b'{"tid":"a\nb"}': 'a\nb',
    b'{"tid":1e999}': '1e999',
    b'{"tid":' + b'9' * 5000 + b'}': '9' * 8,
    b'{"tid":NaN}': 'NaN',
    b'{"tid":007}': '007',
    b'{"tid":seven}': 'seven',
}


@pytest.mark.parametrize(('data', 'tid'), KNOWN.items(), ids=range(len(KNOWN)))
def test_find(data: bytes, tid: Any) -> None:
    """A `tid` on the top level is found, whatever is wrong elsewhere; what cannot be read of it is shown as text."""
    with pytest.raises(Error, match='Not JSON'):
        codec.decode(data)
    [found] = tids.find(data, MOST, BATCH)
    assert (found, type(found)) == (tid, type(tid))


UNKNOWN = [
    b'',
    b'"tid":7',
    b'x{"tid":7}',
    b'["tid":7,]',
    b'[[{"tid":7},]]',
    b'"{\\"tid\\":7,',
    b'{"q":{"tid":7},x}',
    b'{"q":[{"tid":7}],x}',
    b'{"q":{"tid":7',
    b'{} {"tid":7}',
    b'{"q":1}},"tid":7}',
    b'{"q":"{\\"tid\\":7",x}',
    b'{"q":"no end,"tid":7}',
    b'{"tid":7',  # the number may go on
    b'{"tid":"x',
    b'{"tid":"x\\"',
    b'{"tid"',
    b'{"tid":',
    b'{"tid":}',
    b'{"tid" 7}',
    b'{"tid":[7],x}',
    b'{"tid":{"a":7},x}',
    b'{"tid":null,x}',
    b'{"ti\\u0064":7,x}',
    b"{'tid':7}",
    b'{tid:7}',
    b'{"tid":7]',
    b'{"q":[' + b'"",' * 300_000 + b'x],"tid":7}',
]


@pytest.mark.parametrize('data', UNKNOWN, ids=range(len(UNKNOWN)))
def test_find_nothing(data: bytes) -> None:
    """A `tid` that is not there, not whole, or not on the top level of an object is not known."""
    assert tids.find(data, MOST, BATCH) == [None]


ARRAYS: dict[bytes, list[Any]] = {
    rb'[{"cmd": "cmd/echo", "q": {"s": "\ud83d"}, "tid": 7}]': [7],
    rb'[{"tid":1},{"q":"\ud83d","tid":"b"},{"tid":3}]': [1, 'b', 3],
    rb'[{"q":"\ud83d"},{"tid":2},{}]': [None, 2],
    rb'[{"q":{"tid":1},"x":[{"tid":2}]},{"tid":3,"q":[{}]},x]': [None, 3],
    b'[{"tid":1,"tid":2},{"tid":3},]': [2, 3],
    b'[[{"tid":1}],{"tid":2},["tid":3],x]': [2],
    b'\xef\xbb\xbf [ {"tid":1} , {"tid":2}]': [1, 2],
    b'[{"tid":1},{"tid":2,"q":"and no end': [1, 2],
    b'[{"tid":1},{"tid":2': [None, 1],
    b'[{"tid":1}] [{"tid":2}]': [1],
    b'[' + b'{"tid":1},' * 5: [1] * 4,
    b'["tid":1,{"tid":2}]': [2],
}


@pytest.mark.parametrize(('data', 'known'), ARRAYS.items(), ids=range(len(ARRAYS)))
def test_find_in_an_array(data: bytes, known: list[Any]) -> None:
    """In an array each message's `tid` is found, up to as many as it may have; the others are `None` once."""
    assert tids.find(data, MOST, BATCH) == known


@given(
    st.dictionaries(st.text(max_size=3), st.recursive(st.text(max_size=5) | st.integers(), st.lists), max_size=4),
    st.text(max_size=8) | st.integers() | st.booleans(),
    st.integers(0, 4),
)
@example({}, 0, 0)
def test_find_in_any_object(fields: dict[str, Any], tid: Any, place: int) -> None:
    """A `tid` is found in any object at whose end something is wrong, wherever it stands."""
    items = [item for item in fields.items() if item[0] != 'tid']
    items.insert(place, ('tid', tid))
    assert tids.find(codec.encode(dict(items))[:-1] + b',}', MOST, BATCH) == [tid]


@given(st.binary(max_size=40) | st.text('{}[]":,\\tid7 ', max_size=40).map(str.encode))
def test_find_takes_any_bytes(data: bytes) -> None:
    """Any bytes name something that can be sent, or nothing."""
    assert len(codec.encode(tids.find(b'{"tid":' + data, MOST, BATCH))) < 100


HOSTILE = {
    'quotes': b'"',
    'escaped quotes': b'"\\"\\"',
    'backslashes': b'\\',
    'opened': b'[',
    'closed': b'[]',
    'opened twice': b'[{',
    'objects': b'[{"a":',
    'keys': b'"tid":',
    'keys and values': b'"tid":1,',
    'no keys': b'"tid"',
    'spaces': b'"tid"' + b' ' * 1000,
    'digits': b'"tid":' + b'1' * 1000,
    'commas': b',',
    'escapes': rb'"\\\ud83d\ude00',
}


@pytest.mark.parametrize('part', HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize('start', [b'{', b'[{'])
def test_find_is_linear(start: bytes, part: bytes) -> None:
    """A look at a megabyte takes some hundredths of a second, where one that is quadratic would take minutes."""
    began = process_time()
    tids.find(start + part * (1_000_000 // len(part)) + b',"tid":7}', MOST, BATCH)
    assert process_time() - began < 10
