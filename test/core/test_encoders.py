"""The two encoders: orjson where it is installed, and msgspec alone, mean the same."""

from __future__ import annotations

import datetime
import enum
import json
import subprocess
import sys
from collections import OrderedDict, deque
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from propertybag import Bag

from webshoes.core import codec
from webshoes.core.jsonable import plain
from webshoes.core.params import Params
from webshoes.core.text import UnsendableError

ROOT = Path(__file__).parents[2]
WITHOUT_ORJSON = "import sys; sys.modules['orjson'] = None; "
RUN_TESTS = WITHOUT_ORJSON + "import pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))"
TYPES = [numpy.dtype(name) for name in ('f2', 'f4', 'f8', 'i1', 'i8', 'u8', '?', 'M8[s]', 'm8[ms]', '>f4', 'g')]


class Number(enum.IntEnum):
    ONE = 1


class Color(enum.Enum):
    RED = 'red'


class Struct(msgspec.Struct):
    x: Any


@dataclass
class Point:
    x: Any


TEXT = st.text(max_size=4)  # lone surrogates among them
ZONES = (
    st.none()
    | st.timezones()
    | st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)).map(datetime.timezone)
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.binary(max_size=4), st.complex_numbers(),
    st.sampled_from([*Number, *Color, object, len]),
    st.dates(), st.times(), st.datetimes(timezones=ZONES), st.timedeltas(), st.uuids(), st.decimals(),
    st.builds(PurePosixPath, TEXT.filter(lambda text: '\0' not in text)),
    st.floats(width=32).map(numpy.float32), st.floats(width=16).map(numpy.float16), st.floats().map(numpy.longdouble),
    st.integers(-128, 127).map(numpy.int8),
)  # fmt: skip
ARRAYS = st.builds(
    lambda values, kind, step: numpy.array(values).astype(kind)[::step],
    st.lists(st.integers(0, 100), max_size=4), st.sampled_from(TYPES), st.sampled_from([1, 2]),
)  # fmt: skip
KEYS = st.one_of(TEXT, st.integers(), st.floats(), st.booleans(), st.none(), st.dates(), st.uuids(), st.binary())
VALUES = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.lists(inner, max_size=3).map(deque),
        st.dictionaries(KEYS, inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3).map(OrderedDict),
        st.dictionaries(TEXT, inner, max_size=3).map(Bag), st.dictionaries(TEXT, inner, max_size=3).map(Params.of),
        st.sets(st.integers()), st.frozensets(TEXT), inner.map(Struct), inner.map(Point),
    ),
    max_leaves=6,
)  # fmt: skip


def outcome(encode: Any, value: Any) -> Any:
    """The JSON of a value, or why it has none."""
    try:
        return json.loads(encode(value), parse_constant=lambda name: pytest.fail(name))
    except UnsendableError as exc:
        return str(exc)


def by_msgspec(value: Any) -> bytes:
    return msgspec.json.encode(plain(value))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(VALUES)
def test_both_encoders_mean_the_same(value: Any) -> None:
    """Any value is the same JSON by either encoder, or refused for the same reason at the same place."""
    assert outcome(codec.encode, value) == outcome(by_msgspec, value)


@pytest.mark.parametrize(
    'file', ['core/test_codec.py', 'core/test_dispatch.py', 'core/test_params.py', 'test_contract.py', 'test_faces.py']
)
def test_the_tests_pass_without_orjson(file: str) -> None:
    """If orjson cannot be imported, msgspec encodes, and the tests of what is encoded pass."""
    command = [sys.executable, '-c', RUN_TESTS, '-x', '-n0', str(ROOT / 'test' / file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


ENCODE = """
import msgspec, sys, {modules}
from dataclasses import dataclass
from webshoes.core import codec
class Struct(msgspec.Struct):
    x: int
@dataclass
class Point:
    x: int
for value in (Struct(1), Point(1), {{1}}, b'', object):
    try: codec.encode([value])
    except TypeError: pass
print('numpy' in sys.modules)
"""


@pytest.mark.parametrize('first', ['', WITHOUT_ORJSON])
@pytest.mark.parametrize(('modules', 'is_loaded'), [('json', 'False'), ('numpy', 'True')])
def test_numpy_is_not_loaded(first: str, modules: str, is_loaded: str) -> None:
    """Encoding loads numpy for nobody: a program has it that has imported it."""
    program = first + ENCODE.format(modules=modules)
    assert subprocess.run([sys.executable, '-c', program], capture_output=True, text=True).stdout == f'{is_loaded}\n'
