"""`q`: a Bag whose missing keys are the client's fault, or a validated type."""

from __future__ import annotations

import bisect
import copy
import datetime
import heapq
import json
import math
import operator
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal, NewType, NotRequired, Required, TypedDict

import msgspec
import pytest
from propertybag import Bag

from webshoes.core import codec
from webshoes.core.binding import binder
from webshoes.core.errors import Error
from webshoes.core.params import Missing, Params

Use = Callable[[Any], Any]


def q(**values: Any) -> Params:
    return Params.of(values)


def use_in_with(missing: Any) -> None:
    with missing:
        pass


def walrus_items(missing: Any) -> Any:
    return {**missing}


def fail_naming(use: Use, value: Any, name: str) -> None:
    """Assert that this use of a value is error 400 that names the parameter, and nothing more."""
    with pytest.raises(Error) as caught:
        use(value)
    assert (caught.value.code, caught.value.message) == (400, f"Missing parameter '{name}'")


CONVERTED: list[Use] = [int, float, complex, str, bytes, round, math.floor, math.ceil, math.trunc, abs, os.fspath]
CONVERTED += [operator.index, operator.neg, operator.pos, operator.invert, range, hex, math.sqrt, '{:>8}'.format]
CONVERTED += [lambda m: f'{m}', lambda m: f'{m:.2f}', lambda m: '%s' % m, lambda m: '%d' % m, lambda m: [1, 2][m]]  # noqa: UP031
ITERATED: list[Use] = [iter, next, list, tuple, set, sorted, reversed, sum, max, any, dict, len, ''.join, enumerate]
ITERATED += [
    lambda m: 1 in m,
    lambda m: 'a' in m,
    lambda m: [*m],
    walrus_items,
    lambda m: print(*m),
    lambda m: dict(**m),
]
CALLED: list[Use] = [
    lambda m: m(),
    lambda m: m(1, a=2),
    lambda m: m.strip(),
    lambda m: m.split(','),
    lambda m: m['get'](1),
]
ENCODED: list[Use] = [
    codec.encode,
    codec.encode_sorted,
    lambda m: codec.encode({'a': [m]}),
    pickle.dumps,
    copy.copy,
    copy.deepcopy,
]
KEYED: list[Use] = [hash, lambda m: m in {'a', 'b'}, lambda m: {'a': 1}[m], lambda m: {m: 1}]
OTHER: list[Use] = [use_in_with, lambda m: m.__await__(), lambda m: m.__aiter__(), lambda m: m.__anext__()]
OPERATORS = [
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow),
    *(operator.matmul, operator.lshift, operator.rshift, operator.and_, operator.or_, operator.xor, divmod),
    operator.iadd,
]


@pytest.mark.parametrize('use', CONVERTED + ITERATED + CALLED + ENCODED + KEYED + OTHER)
def test_missing_is_needed(use: Use) -> None:
    """Whoever needs the value of a missing parameter gets error 400, which names the parameter."""
    fail_naming(use, q(b=1).a, 'a')


@pytest.mark.parametrize('operate', OPERATORS)
def test_missing_in_an_operation(operate: Callable[[Any, Any], Any]) -> None:
    """A missing parameter on either side of an operator is error 400."""
    for other in (1, 1.5, 'text %s', [1], (1,)):
        fail_naming(partial(operate, other), q().a, 'a')
        fail_naming(partial(lambda value, missing: operate(missing, value), other), q().a, 'a')


@pytest.mark.parametrize(
    ('find', 'name'),
    [
        (lambda q: q.x, 'x'),
        (lambda q: q['x'], 'x'),
        (lambda q: q.a.b.c, 'a.b.c'),
        (lambda q: q.here.b, 'here.b'),
        (lambda q: q.here.deep.b.c, 'here.deep.b.c'),
        (lambda q: q['a'].b['c'], 'a.b.c'),
        (lambda q: q.a[0], 'a.0'),
        (lambda q: q[3], '3'),
        (lambda q: q.bag('here').b, 'here.b'),
        (lambda q: q.bag('here.deep').b, 'here.deep.b'),
        (lambda q: q.copy().here.b, 'here.b'),
        (lambda q: q.here.copy(deep=True).b, 'here.b'),
        (lambda q: copy.copy(q.here).b, 'here.b'),
        (lambda q: (q | {'here': {}}).here.b, 'here.b'),
        (lambda q: ({'other': {}} | q).other.b, 'other.b'),
        (lambda q: (Bag({'other': {}}) | q).other.b, 'other.b'),
        (lambda q: (Bag() | q).here.b, 'here.b'),
        (lambda q: dict(q)['here'].b, 'here.b'),
    ],
)
def test_missing_name(find: Use, name: str) -> None:
    """The name is the dotted path that the client would have to send, wherever in the bag one looks."""
    missing = find(q(here={'deep': {}}))
    assert type(missing) is Missing
    fail_naming(int, missing, name)
    fail_naming(list, missing, name)


def test_missing_is_not_changed_by_looking() -> None:
    """Walking deeper from a placeholder leaves it as it was."""
    missing = q().a
    _ = missing.b.c
    fail_naming(int, missing, 'a')


def test_missing_is_falsy() -> None:
    """A missing parameter is falsy, and seen as text by `repr` alone."""
    missing = q().a.b
    assert not missing
    assert (missing or 3) == 3
    assert repr(missing) == '<missing parameter a.b>'
    assert f'{missing!r}' == repr(missing)


OTHERS: list[Any] = [0, 1, '', 'a', False, True, [], {}, 1.5, (), None, {1}, Decimal(1)]


@pytest.mark.parametrize('compare', [operator.eq, operator.ne])
def test_missing_equals_no_value(compare: Callable[[Any, Any], bool]) -> None:
    """A missing parameter equals no value, as propertybag's own placeholder, but `None`."""
    for other in (other for other in OTHERS if other is not None):
        assert compare(q().a, other) is compare(Bag().a, other) is (compare is operator.ne)
        assert compare(other, q().a) is (compare is operator.ne)


@pytest.mark.parametrize('compare', [operator.lt, operator.le, operator.gt, operator.ge])
@pytest.mark.parametrize('other', [*OTHERS, q().b])
def test_missing_has_no_order(compare: Callable[[Any, Any], bool], other: Any) -> None:
    """Ordering a missing parameter, on either side, is error 400."""
    fail_naming(lambda missing: compare(missing, other), q(a={}).a.b.c, 'a.b.c')
    if type(other) is not Missing:
        fail_naming(lambda missing: compare(other, missing), q().a, 'a')


@pytest.mark.parametrize(
    'use',
    [
        lambda m: min(m, 3),
        lambda m: max(3, m),
        lambda m: sorted([1, m]),
        lambda m: sorted([m, 1], reverse=True),
        lambda m: 0 < m < 3,
        lambda m: [1, 2].sort(key=lambda _: m),
        lambda m: bisect.bisect([1, 2], m),
        lambda m: heapq.nsmallest(1, [1, m]),
        lambda m: (1, m) < (1, 2),
    ],
)
def test_missing_is_not_ordered(use: Use) -> None:
    """A function that orders values needs them all."""
    fail_naming(use, q().a, 'a')


def test_missing_is_none() -> None:
    """A missing parameter is equal to `None`, and found among values by equality alone."""
    assert q().a == None  # noqa: E711
    assert q().a not in ('a', 'b')


def test_missing_is_assigned_to() -> None:
    """Assigning below a missing parameter makes the dicts on the way."""
    values = q(here={'n': 1}, text='t')
    values.a.b.c = 1
    values.here.x['y'] = 2
    later = values.z.y
    values.z = {'y': {'d': 3}}
    later.e = 4
    assert values.as_dict() == {
        'here': {'n': 1, 'x': {'y': 2}},
        'text': 't',
        'a': {'b': {'c': 1}},
        'z': {'y': {'d': 3, 'e': 4}},
    }


@pytest.mark.parametrize('delete', [lambda m: delattr(m, 'b'), lambda m: operator.delitem(m, 'b')])
def test_missing_is_deleted_from(delete: Use) -> None:
    """Deleting below a missing parameter is error 400."""
    fail_naming(delete, q().a, 'a')


@pytest.mark.parametrize('value', [q(), q().a])
def test_protocols_are_no_parameters(value: Any) -> None:
    """A dunder name that Python asks for is not taken for a parameter."""
    with pytest.raises(AttributeError, match='__array__'):
        _ = value.__array__
    assert not hasattr(value, '__html__')


# --- the bag ---


def test_bag_gives() -> None:
    """A key is read as attribute and as item, nested dicts as bags that share their content."""
    values = q(n=1, a={'b': {'c': 2}}, items=[{'x': 1}])
    assert (values.n, values['n'], values.a.b.c, values['a']['b']['c']) == (1, 1, 2, 2)
    values.a.b.c = 3
    assert values.as_dict()['a'] == {'b': {'c': 3}}
    assert type(values.a.b) is Params


def test_bag_is_a_bag() -> None:
    """`q` is a propertybag Bag and a dict."""
    assert isinstance(q(), Bag)
    assert isinstance(q(), dict)


@pytest.mark.parametrize('name', ['sep', 'frozen', 'defstr', 'defval', 'prefix', '_', 'a.b', '__x', 'class', ''])
def test_keys_named_like_parts_of_a_bag(name: str) -> None:
    """A key that is named like a part of the Bag is read, written and found missing as any other."""
    assert getattr(q(**{name: 'sent'}), name) == 'sent'
    assert q(**{name: {'n': 1}})[name].n == 1
    values = q(n=1)
    assert type(getattr(values, name)) is Missing
    fail_naming(int, getattr(values, name), name)
    setattr(values, name, 2)
    assert values.as_dict() == {'n': 1, name: 2}
    assert values.get('n') == 1


@pytest.mark.parametrize(
    'name', ['pb', 'items', 'keys', 'values', 'get', 'set', 'copy', 'bag', 'update', 'pop', 'merge']
)
def test_keys_named_like_methods_of_a_bag(name: str) -> None:
    """A key that is named like a method is read as item and by `get`, the method stays."""
    values = q(**{name: 'sent', 'n': 1})
    assert values[name] == 'sent'
    assert values.get(name) == 'sent'
    assert set(values.items()) == {(name, 'sent'), ('n', 1)}


@pytest.mark.parametrize('content', [{}, {'a': 1}, {'a': {'b': 1}, 'c': None, '_': 2}])
def test_bag_as_a_dict(content: dict[str, Any]) -> None:
    """Length, iteration, search and equality are those of what was sent."""
    values = Params.of(dict(content))
    assert len(values) == len(content)
    assert bool(values) is bool(content)
    assert list(values) == list(values.keys()) == list(content)
    assert dict(values) == {**values} == content
    assert values == content
    assert list(values.items()) == list(content.items())
    assert all(key in values for key in content)
    assert 'z' not in values


@pytest.mark.parametrize('content', [{}, {'a': 1}, {'a': {'b': [1]}, '_': 2}])
@pytest.mark.parametrize('make', [Params.of, lambda c: Params.of(c).copy(), lambda c: copy.deepcopy(Params.of(c))])
def test_bag_is_encoded(make: Use, content: dict[str, Any]) -> None:
    """Our encoder, the standard library's and `str` write what was sent, of copies too."""
    assert json.loads(codec.encode(make(content))) == content
    assert json.loads(json.dumps(make(content))) == json.loads(json.dumps(make(content), indent=1)) == content
    assert json.loads(str(make(content))) == json.loads(f'{make(content)}') == content
    assert codec.encode({'q': make(content)}) == codec.encode({'q': content})


@pytest.mark.parametrize('make', [lambda q: q.copy(), copy.copy, lambda q: q | {}, lambda q: {} | q])
def test_copy(make: Use) -> None:
    """A copy is a bag of the same kind, equal, and what is set in it is not set in the original."""
    values = q(a={'b': 1})
    other = make(values)
    assert type(other) is Params
    assert other == values
    other.n = 2
    assert values.as_dict() == {'a': {'b': 1}}


@pytest.mark.parametrize('make', [lambda q: q.copy(deep=True), copy.deepcopy, lambda q: pickle.loads(pickle.dumps(q))])
def test_deep_copy(make: Use) -> None:
    """A deep copy, or one that went to another process, shares nothing with the original."""
    values = q(a={'b': 1})
    other = make(values)
    assert type(other) is Params
    assert other == values
    other.a.b = 2
    assert values.a.b == 1


@pytest.mark.parametrize('other', [{'a': 2, 'c': 3}, Bag(a=2, c=3), q(a=2, c=3)])
def test_merge(other: Any) -> None:
    """`|` takes the right side's values, whichever side `q` stands on, and changes neither."""
    values = q(a=1, b=1)
    assert (values | other).as_dict() == {'a': 2, 'b': 1, 'c': 3}
    assert (other | values).as_dict() == {'a': 1, 'c': 3, 'b': 1}
    assert type(values | other) is type(other | values) is Params
    assert values.as_dict() == {'a': 1, 'b': 1}


def test_merge_in_place() -> None:
    """`|=` takes the right side's values."""
    values: Any = q(a=1)
    values |= {'a': 2, 'b': 3}
    assert values.as_dict() == {'a': 2, 'b': 3}


def test_merge_with_no_dict() -> None:
    """`|` with what is no dict on the left is the TypeError that Python gives."""
    with pytest.raises(TypeError, match='unsupported operand'):
        _ = [] | q()


@pytest.mark.parametrize(
    ('args', 'kwargs', 'value'),
    [
        (('n',), {}, '3'),
        (('z',), {}, None),
        (('z', 5), {}, 5),
        (('n', 5), {'cast': int}, 3),
        (('z', 5), {'cast': int}, 5),
        (('z', None), {'cast': int}, None),
        (('z', 0), {'cast': str}, 0),
        (('a.z', None), {'cast': int}, None),
        (('z',), {'sep': '/'}, None),
        ((7,), {}, None),
        (('z', 'x'), {'cast': int}, 'x'),
        (('a.b',), {}, '1'),
        (('a.b',), {'cast': float}, 1.0),
        (('a/b',), {'sep': '/', 'cast': int}, 1),
        (('a.z', 9), {'cast': int}, 9),
        (('empty', 9), {'cast': int}, 9),
        (('empty', None), {'cast': float}, None),
        (('empty', 'x'), {'cast': str}, ''),
        (('n.deeper', 9), {}, 9),
    ],
)
def test_get(args: Any, kwargs: Any, value: Any) -> None:
    """`get` gives the value at a key or dotted path, cast where it is there, and the default where not."""
    assert q(n='3', a={'b': '1'}, empty='').get(*args, **kwargs) == value


@pytest.mark.parametrize(
    ('find', 'name'),
    [
        (lambda q: q.get('z', cast=int), 'z'),
        (lambda q: q.get('a.z', cast=int), 'a.z'),
        (lambda q: q.get('z.y', cast=float), 'z.y'),
        (lambda q: q.get('n.deeper', cast=int), 'n.deeper'),
        (lambda q: q.get('a/z', sep='/', cast=str), 'a.z'),
        (lambda q: q.get(7, cast=int), '7'),
        (lambda q: q.a.get('z', cast=bool), 'a.z'),
        (lambda q: q.z.get('y.x', cast=int), 'z.y.x'),
        (lambda q: q.z.get(7, cast=int), 'z.7'),
        (lambda q: q.bag('a').get('z', cast=int), 'a.z'),
    ],
)
def test_get_what_is_missing(find: Use, name: str) -> None:
    """`get` with `cast` and without a default needs the value: error 400 names the parameter."""
    fail_naming(find, q(n='3', a={'b': '1'}), name)


def test_get_of_a_bag_that_is_missing() -> None:
    """`get` of a bag that was not sent gives what it gives of an empty one."""
    assert (q().a.get('b'), q().a.get('b', 5), q().a.b.get('c', 5, cast=int), q().a.get('b', None, cast=int)) == (
        None,
        5,
        5,
        None,
    )


@pytest.mark.parametrize(
    ('key', 'cast', 'kind'), [('n', int, 'int'), ('n', float, 'float'), ('null', int, 'int'), ('list', float, 'float')]
)
def test_get_what_does_not_convert(key: str, cast: Any, kind: str) -> None:
    """A value that `cast` does not take is error 400 naming parameter and kind."""
    with pytest.raises(Error, match=f"^Parameter '{key}' is not a valid {kind}$") as caught:
        q(n='abc', null=None, list=[1]).get(key, cast=cast)
    assert caught.value.code == 400


@pytest.mark.parametrize(
    'cast',
    [datetime.date.fromisoformat, lambda text: {}[text], lambda text: text.first, partial(msgspec.convert, type=int)],
)
def test_get_with_a_function_that_takes_no_such_value(cast: Any) -> None:
    """Whatever a function raises of a value that it does not take is error 400; its name tells a client nothing."""
    with pytest.raises(Error, match=r"^Parameter 'n' is not a valid value$") as caught:
        q(n='abc').get('n', 5, cast=cast)
    assert caught.value.code == 400


def test_get_names_the_whole_path() -> None:
    """In a nested bag the error names the path from the top, as a missing parameter does."""
    with pytest.raises(Error, match=r"Parameter 'a\.b\.n' is not a valid value"):
        q(a={'b': {'n': 'abc'}}).a.get('b.n', cast=Nothing())


class Nothing:
    """A cast without a name that takes nothing."""

    def __call__(self, value: Any) -> Any:
        raise ValueError(value)


def test_bag_of_a_key() -> None:
    """`bag` gives a nested bag that shares its content, or what else is there, or the default."""
    values = q(a={'b': {'c': 1}}, n=1)
    values.bag('a.b').c = 2
    assert values.a.b.c == 2
    assert type(values.bag('a')) is Params
    assert (values.bag('n'), values.bag('z'), values.bag('z', 5)) == (1, None, 5)


# --- types ---


class Add(msgspec.Struct):
    a: int
    b: int = 0


class Renamed(msgspec.Struct, rename='camel'):
    item_ids: list[int]


class Nested(msgspec.Struct):
    point: Add
    ids: list[int] = []


class Sealed(msgspec.Struct, forbid_unknown_fields=True):
    inner: Sealed | None = None


class Marked(msgspec.Struct):
    n: Annotated[int, msgspec.Meta(ge=1), {'a mark': ['of the application']}]
    ids: Annotated[list[int], msgspec.Meta(max_length=2)] = []


@dataclass
class Data:
    a: int
    ids: list[int] | None = None


class Typed(TypedDict):
    a: int
    ids: NotRequired[Sequence[int]]


def of_texts(annotation: Any, **texts: list[str]) -> Any:
    """`q` of a query string."""
    return binder(annotation)({name: text[0] for name, text in texts.items()}, texts)


@pytest.mark.parametrize(
    ('annotation', 'texts', 'value'),
    [
        (Add, {'a': ['1'], 'b': ['2']}, Add(1, 2)),
        (Add, {'a': ['1', '9']}, Add(1)),
        (Add, {'a': ['1'], 'more': ['x']}, Add(1)),
        (Renamed, {'itemIds': ['1', '2']}, Renamed([1, 2])),
        (Marked, {'n': ['3'], 'ids': ['1']}, Marked(3, [1])),
        (Data, {'a': ['1'], 'ids': ['1', '2']}, Data(1, [1, 2])),
        (Typed, {'a': ['1'], 'ids': ['1', '2']}, {'a': 1, 'ids': [1, 2]}),
        (dict[str, int], {'a': ['1']}, {'a': 1}),
        (dict, {'a': ['1']}, {'a': '1'}),
        (Add | None, {'a': ['1']}, Add(1)),
    ],
)
def test_types_of_texts(annotation: Any, texts: dict[str, list[str]], value: Any) -> None:
    """Text becomes numbers; a list field gets all values of its key, any other the first."""
    assert of_texts(annotation, **texts) == value


@pytest.mark.parametrize(
    ('annotation', 'values', 'value'),
    [
        (Add, {'a': 1}, Add(1)),
        (Data, {'a': 1, 'ids': [1]}, Data(1, [1])),
        (Typed, {'a': 1}, {'a': 1}),
        (dict, {'a': 1}, {'a': 1}),
        (Nested, {'point': {'a': 1}}, Nested(Add(1))),
    ],
)
def test_types_of_json(annotation: Any, values: dict[str, Any], value: Any) -> None:
    """Values that came as JSON are validated as they are."""
    assert binder(annotation)(values, {}) == value


Count = NewType('Count', int)


class Form(msgspec.Struct):
    """A form with text inputs, which a browser sends empty if nothing was put in."""

    count: int | None = None
    size: float = 1.5
    day: datetime.date | None = None
    agree: bool = False
    maybe: bool | None = None
    either: bool | str = False
    color: Literal['red', 'blue'] = 'red'
    aged: Count = Count(18)
    low: Annotated[int, msgspec.Meta(ge=1)] | None = None
    name: str = 'nobody'
    title: Annotated[str, msgspec.Meta(min_length=1)] = 'none'
    ids: list[int] = []
    flags: list[bool] = []
    names: list[str] = []
    picture: Any = None


@dataclass
class DataForm:
    count: int = 3
    low: Annotated[int, msgspec.Meta(ge=1)] = 5
    agree: bool = False


class TypedForm(TypedDict):
    count: NotRequired[int]
    agree: NotRequired[bool]
    day: datetime.date | None


class LooseForm(TypedDict, total=False):
    count: int
    day: Required[datetime.date | None]


@pytest.mark.parametrize(
    ('name', 'texts', 'value'),
    [
        *((name, [''], getattr(Form(), name)) for name in ('count', 'size', 'day', 'agree', 'maybe', 'color', 'aged')),
        *((name, [''], getattr(Form(), name)) for name in ('low', 'ids', 'flags')),
        *((name, ['', ''], getattr(Form(), name)) for name in ('count', 'size')),
        ('count', ['7'], 7),
        ('day', ['2026-01-31'], datetime.date(2026, 1, 31)),
        ('agree', ['on'], True),
        ('agree', ['On'], True),
        ('agree', ['off'], False),
        ('agree', ['true'], True),
        ('agree', ['0'], False),
        ('maybe', ['on'], True),
        ('either', ['on'], 'on'),
        ('either', [''], ''),
        ('name', [''], ''),
        ('name', ['on'], 'on'),
        ('ids', ['1', '2'], [1, 2]),
        ('flags', ['on', 'off'], [True, False]),
        ('names', [''], ['']),
        ('names', ['on'], ['on']),
        ('picture', [''], ''),
    ],
)
@pytest.mark.parametrize('annotation', [Form, Form | None, Annotated[Form, 'a mark']])
def test_texts_of_a_form(annotation: Any, name: str, texts: list[str], value: Any) -> None:
    """An empty text for what is optional and no text is its default, and `on` is true."""
    assert getattr(of_texts(annotation, **{name: texts}), name) == value
    bound = binder(annotation)({'name': 'Ann', name: texts[0]}, {name: texts})  # beside JSON
    assert getattr(bound, name) == value


@pytest.mark.parametrize(
    ('annotation', 'texts', 'value'),
    [
        (DataForm, {'count': [''], 'low': [''], 'agree': ['on']}, DataForm(3, 5, True)),
        (TypedForm, {'count': [''], 'agree': ['on'], 'day': ['']}, {'agree': True, 'day': None}),
        (Data, {'a': ['1'], 'ids': ['']}, Data(1)),
        (LooseForm, {'count': [''], 'day': ['']}, {'day': None}),
    ],
)
def test_texts_of_a_form_of_another_kind(annotation: Any, texts: dict[str, list[str]], value: Any) -> None:
    """Dataclasses and TypedDicts read texts as Structs do."""
    assert of_texts(annotation, **texts) == value


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('a', '', "Parameter 'a': expected `int`, got `str`"),
        ('b', 'on', "Parameter 'b': expected `int`, got `str`"),
    ],
)
def test_texts_that_stand_for_nothing_else(name: str, text: str, message: str) -> None:
    """An empty text for a number that has to be there is 422, and `on` is no number."""
    with pytest.raises(Error) as caught:
        of_texts(Add, **{'a': ['1'], name: [text]})
    assert (caught.value.code, caught.value.message) == (422, message)


@pytest.mark.parametrize(('name', 'text'), [('title', ''), ('color', 'green'), ('low', '0'), ('agree', 'yes')])
def test_texts_that_do_not_fit(name: str, text: str) -> None:
    """An input that breaks a rule is 422, even if there is a default."""
    with pytest.raises(Error, match=f"^Parameter '{name}'"):
        of_texts(Form, **{name: [text]})


@pytest.mark.parametrize('value', ['', 'on'])
def test_json_is_strict(value: str) -> None:
    """The same texts in JSON are no number and no bool."""
    for name in ('count', 'agree'):
        with pytest.raises(Error, match=f"^Parameter '{name}': expected `.*`, got `str`"):
            binder(Form)({name: value}, {})


def test_texts_beside_json() -> None:
    """Texts of the path are converted beside a JSON body, which stays strict."""
    bind = binder(Nested)
    assert bind({'point': {'a': 1}, 'ids': '1'}, {'ids': ['1', '2']}) == Nested(Add(1), [1, 2])
    with pytest.raises(Error, match=r"Parameter 'point\.a': expected `int`, got `str`"):
        bind({'point': {'a': '1'}, 'ids': '1'}, {'ids': ['1', '2']})


@pytest.mark.parametrize(
    ('annotation', 'values', 'texts', 'message'),
    [
        (Add, {}, {}, "Missing parameter 'a'"),
        (Data, {}, {}, "Missing parameter 'a'"),
        (Typed, {}, {}, "Missing parameter 'a'"),
        (Add, {'a': '1'}, {}, "Parameter 'a': expected `int`, got `str`"),
        (Add, {'a': 'x'}, {'a': ['x']}, "Parameter 'a': expected `int`, got `str`"),
        (Add, {'a': 'x', 'b': 1}, {'a': ['x']}, "Parameter 'a': expected `int`, got `str`"),
        (Marked, {'n': 0}, {}, "Parameter 'n': expected `int` >= 1"),
        (Marked, {'n': '0', 'ids': []}, {'n': ['0']}, "Parameter 'n': expected `int` >= 1"),
        (Nested, {'point': {}}, {}, "Missing parameter 'point.a'"),
        (Sealed, {'x': 1}, {}, "Unknown parameter 'x'"),
        (Sealed, {'x': '1'}, {'x': ['1']}, "Unknown parameter 'x'"),
        (Sealed, {'inner': {'x': 1}}, {}, "Unknown parameter 'inner.x'"),
        (Nested, {'point': {'a': 1}, 'ids': ['x']}, {}, "Parameter 'ids[0]': expected `int`, got `str`"),
        (Nested, {'point': {'a': 1}, 'ids': 'x'}, {'ids': ['x']}, "Parameter 'ids[0]': expected `int`, got `str`"),
    ],
)
def test_types_that_do_not_fit(annotation: Any, values: Any, texts: Any, message: str) -> None:
    """What is missing or does not fit is error 422, whose sentence names the field."""
    with pytest.raises(Error) as caught:
        binder(annotation)(values, texts)
    assert (caught.value.code, caught.value.message) == (422, message)


def test_texts_that_the_body_replaced() -> None:
    """A text whose name is not among the values any more is not looked at."""
    assert binder(Add)({'a': 1}, {'b': ['x']}) == Add(1)


@pytest.mark.parametrize('annotation', [None, Any, Bag, Params])
def test_no_type(annotation: Any) -> None:
    """Without a type `q` is a Params over the very values."""
    values = {'a': 1}
    bound = binder(annotation)(values, {})
    assert type(bound) is Params
    assert bound.as_dict() is values
