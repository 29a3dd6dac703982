"""One registered function, checked once."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypedDict

import msgspec
import pytest
from propertybag import Bag

from webshoes.core.errors import Error
from webshoes.core.handler import compile_handler, methods, page, shielded, threaded, unknown_key
from webshoes.core.params import Params


class Add(msgspec.Struct):
    a: int


class Sealed(msgspec.Struct, forbid_unknown_fields=True):
    a: int


class Circle(msgspec.Struct, tag=True):
    r: int


class Square(msgspec.Struct, tag=True):
    a: int


class Row(msgspec.Struct, array_like=True):
    a: int


class Named(TypedDict):
    name: str


def plain(ctx: Any, q: Any) -> Any:
    return q


async def coroutine(ctx: Any, q: Any) -> Any:
    return q


def generator(ctx: Any, q: Any) -> Iterator[int]:
    yield 1


async def async_generator(ctx: Any, q: Any) -> AsyncIterator[int]:
    yield 1


class Thing:
    def method(self, ctx: Any, q: Add) -> Any:
        return q

    def __call__(self, ctx: Any, q: Add) -> Any:
        return q


def three(ctx: Any, extra: Any, q: Any) -> Any:
    return q


def wrapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


@wrapped
def typed_and_wrapped(ctx: Any, q: Add) -> Any:
    return q


@pytest.mark.parametrize(
    'fn',
    [
        plain,
        coroutine,
        Thing().method,
        Thing(),
        lambda ctx, q: q,
        lambda *args: args,
        lambda ctx, q, more=1: q,
        lambda ctx, q, **more: q,
        functools.partial(three, 'ctx'),
        dict,
        max,
        zip,
    ],
)
def test_callable_as_fn_ctx_q(fn: Any) -> None:
    """Whatever can be called as `fn(ctx, q)` is taken, and called as it is."""
    assert compile_handler(fn, 'cmd/f').fn is fn


@pytest.mark.parametrize(
    'fn',
    [
        lambda: 1,
        lambda ctx: 1,
        three,
        lambda ctx, *, q: q,
        lambda ctx, q, *, more: q,
        Thing.method,
        functools.partial(plain, 1),
    ],
)
def test_not_callable_as_fn_ctx_q(fn: Any) -> None:
    """What cannot be called as `fn(ctx, q)` is refused by its place and signature."""
    with pytest.raises(TypeError, match=r"'cmd/f' cannot be called as fn\(ctx, q\): it is .*\("):
        compile_handler(fn, 'cmd/f')


@pytest.mark.parametrize('fn', [None, 3, 'plain', [plain]])
def test_no_function(fn: Any) -> None:
    """What is no function is refused by its place."""
    with pytest.raises(TypeError, match=r"'cmd/f' is .*: a function"):
        compile_handler(fn, 'cmd/f')


@pytest.mark.parametrize('fn', [generator, async_generator, functools.partial(generator)])
def test_generators_are_not_there_yet(fn: Any) -> None:
    """A generator is refused where it is registered, not where it is called."""
    with pytest.raises(TypeError, match="'cmd/f' is a generator"):
        compile_handler(fn, 'cmd/f')


# --- what q is ---


@pytest.mark.parametrize('fn', [Thing().method, Thing(), typed_and_wrapped, functools.partial(lambda x, ctx, q: q, 1)])
def test_values_are_bound(fn: Any) -> None:
    """`q` is of the type that the handler annotates, seen through methods, callable objects and wrappers."""
    q = compile_handler(fn, 'cmd/f').bind({'a': 1}, {})
    assert q == (Add(1) if not isinstance(fn, functools.partial) else Params.of({'a': 1}))


@pytest.mark.parametrize('annotation', [Any, Bag, Params, 'Any', 'Bag', 'Params'])
def test_a_bag_is_asked_for(annotation: Any) -> None:
    """`Any` and a Bag give the Bag that everybody gets."""

    def fn(ctx: Any, q: Any) -> Any:
        return q

    fn.__annotations__['q'] = annotation
    assert type(compile_handler(fn, 'cmd/f').bind({}, {})) is Params


def test_a_dict_is_asked_for() -> None:
    """`dict` gives a plain dict."""

    def fn(ctx: Any, q: dict) -> Any:  # type: ignore[type-arg]
        return q

    assert type(compile_handler(fn, 'cmd/f').bind({'a': 1}, {})) is dict


def test_annotation_that_is_nowhere() -> None:
    """An annotation that cannot be read is refused where the function is registered."""

    def fn(ctx: Any, q: Nowhere) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return q

    with pytest.raises(TypeError, match="'cmd/f' annotates q with 'Nowhere', which is not to be had"):
        compile_handler(fn, 'cmd/f')


def annotated(annotation: Any) -> Callable[..., Any]:
    """A handler that asks for this type."""

    def fn(ctx: Any, q: Any) -> Any:
        return q

    fn.__annotations__['q'] = annotation
    return fn


@pytest.mark.parametrize(
    'annotation', [int, str, list[int], int | None, Thing, Row, dict[int, str] | list[int] | set[int]]
)
def test_annotation_that_cannot_be_validated(annotation: Any) -> None:
    """An annotation that no object can be held against is refused where the function is registered."""
    with pytest.raises(TypeError, match=r"'cmd/f' annotates q with .* which cannot be validated: \w"):
        compile_handler(annotated(annotation), 'cmd/f')


@pytest.mark.parametrize(
    ('annotation', 'values', 'bound'),
    [
        (dict, {'a': 1}, {'a': 1}),
        (dict[str, int], {'a': 1}, {'a': 1}),
        (Add, {'a': 1}, Add(1)),
        (Add | None, {'a': 1}, Add(1)),
        (Named, {'name': 'Ann'}, {'name': 'Ann'}),
        (Circle | Square, {'type': 'Square', 'a': 1}, Square(1)),
        (Sealed, {'a': 1}, Sealed(1)),
    ],
)
def test_annotation_that_can_be_validated(annotation: Any, values: dict[str, Any], bound: Any) -> None:
    """A type that an object can be made of is taken, also one that asks for fields or a tag."""
    assert compile_handler(annotated(annotation), 'cmd/f').bind(values, {}) == bound


# --- marks ---


def test_threaded() -> None:
    """`@threaded` marks a plain def and gives it back; others are not marked."""
    fn = lambda ctx, q: q  # noqa: E731
    assert threaded(fn) is fn
    assert compile_handler(fn, 'cmd/f').threaded
    assert not compile_handler(plain, 'cmd/f').threaded


@pytest.mark.parametrize('fn', [coroutine, generator, async_generator])
def test_threaded_is_for_a_plain_def(fn: Any) -> None:
    """What would never run in the thread is refused by name."""
    with pytest.raises(TypeError, match=f"@threaded is for a plain def; '{fn.__name__}' is none"):
        threaded(fn)


@pytest.mark.parametrize(
    ('names', 'method', 'taken'),
    [
        (('POST',), 'POST', True),
        (('post',), 'POST', True),
        (('POST',), 'GET', False),
        (('GET',), 'HEAD', True),
        (('POST',), 'HEAD', False),
        (('PUT', 'DELETE'), 'DELETE', True),
    ],
)
def test_methods(names: tuple[str, ...], method: str, taken: bool) -> None:
    """The methods that are listed are taken, HEAD along with GET, and others are 405."""
    handler = compile_handler(methods(*names)(lambda ctx, q: q), 'cmd/f')
    if taken:
        handler.check_method(method)
    else:
        with pytest.raises(Error, match=f'Method {method} is not taken here, only {names[0]}') as caught:
            handler.check_method(method)
        assert caught.value.code == 405


@pytest.mark.parametrize('method', ['GET', 'POST', 'DELETE', 'PURGE'])
def test_all_methods(method: str) -> None:
    """A handler without `@methods` takes every method but those of HTTP itself."""
    compile_handler(plain, 'cmd/f').check_method(method)


@pytest.mark.parametrize('method', ['OPTIONS', 'TRACE', 'CONNECT'])
def test_methods_of_http_itself(method: str) -> None:
    """A method of HTTP itself is taken by a handler that names it, and by no other."""
    assert compile_handler(methods(method)(lambda ctx, q: q), 'cmd/f').takes(method)
    assert not compile_handler(plain, 'cmd/f').takes(method)


@pytest.mark.parametrize('names', [(), (plain,), (405,)])
def test_methods_without_a_name(names: Any) -> None:
    """`@methods` without a method, or without its parentheses, is refused."""
    with pytest.raises(TypeError, match='@methods takes the names of HTTP methods'):
        methods(*names)


def test_unknown_key() -> None:
    """The sentence names what is unknown and what there is, in order."""
    assert unknown_key(['z', 'b'], ['root', 'defpage']) == "unknown 'b', 'z'; there are 'defpage', 'root'"


def test_a_bound_method_can_be_marked() -> None:
    """What takes no mark of its own, such as a bound method, is marked all the same."""

    class Rig:
        def read(self, ctx: Any, q: Any) -> str:
            return 'read'

    handler = compile_handler(methods('POST')(threaded(Rig().read)), 'cmd/read')
    assert (handler.threaded, handler.methods, handler.fn(None, None)) == (True, frozenset({'POST'}), 'read')


def test_a_wrapped_function_keeps_its_marks() -> None:
    """A bound method has the marks of its function after it is marked once more."""

    class Rig:
        @threaded
        def read(self, ctx: Any, q: Any) -> str:
            return 'read'

    handler = compile_handler(shielded(page(Rig().read)), 'cmd/read')
    assert (handler.threaded, handler.is_page, handler.is_shielded) == (True, True, True)


def test_a_generator_cannot_be_shielded() -> None:
    """`@shielded` on a generator is refused."""

    def stream(ctx: Any, q: Any) -> Any:
        yield 1

    with pytest.raises(TypeError, match=r"@shielded is for a function that returns its result; '.*stream' is a gener"):
        shielded(stream)
