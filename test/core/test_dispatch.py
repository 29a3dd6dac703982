"""Handler + arguments -> result."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

import msgspec
import pytest

from webshoes.core.context import Context
from webshoes.core.dispatch import Dispatcher, is_pending
from webshoes.core.errors import Error
from webshoes.core.handler import threaded
from webshoes.core.params import Params
from webshoes.core.registry import Registry, make_entry

from .link import new_scope


class Desk:
    """A dispatcher whose clock is set by hand, and what it told."""

    def __init__(self, slow: float | None = 0.1) -> None:
        self.time = 0.0
        self.failures: list[tuple[BaseException, str]] = []
        self.slow: list[tuple[str, float]] = []
        self.threads: list[Any] = []
        self.dispatcher = Dispatcher(
            clock=lambda: self.time,
            in_thread=self.in_thread,
            on_failure=lambda exc, where: self.failures.append((exc, where)),
            on_slow=lambda name, seconds: self.slow.append((name, seconds)),
            slow=slow,
        )

    async def in_thread(self, fn: Callable[..., Any], *args: Any) -> Any:
        self.threads.append(fn)
        return fn(*args)

    def call(self, fn: Any, key: str = 'f', path: str = 'f', values: Any = None, texts: Any = None) -> Any:
        registry = Registry()
        registry.add(make_entry('cmd', 'cmd', 'q', 'evt', 'r', {key: fn}))
        ctx = Context(new_scope(), f'cmd/{path}', None, 'WS')
        return self.dispatcher.call(registry.find_command('cmd', f'cmd/{path}'), ctx, values or {}, texts or {})

    def hold(self, seconds: float) -> None:
        """Hold the loop."""
        self.time += seconds


@pytest.fixture
def desk() -> Desk:
    return Desk()


class Waits:
    """What a coroutine awaits: yields itself once, and gives what it is sent."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)


def drive(awaitable: Any) -> Generator[Any, Any, Any]:
    """An awaitable as a generator, to be driven by `send` and `throw`."""
    return (yield from awaitable.__await__())


def finish(awaitable: Any) -> Any:
    """What an awaitable that waits for nothing gives."""
    with pytest.raises(StopIteration) as stopped:
        drive(awaitable).send(None)
    return stopped.value.value


def test_a_plain_function(desk: Desk) -> None:
    """A plain def is called with `ctx` and `q`, and its result is the result."""
    ctx, q = desk.call(lambda ctx, q: (ctx, q), values={'a': 1})
    assert (ctx.p, q) == ('cmd/f', {'a': 1})
    assert type(q) is Params


def test_a_coroutine(desk: Desk) -> None:
    """A coroutine function's result is awaited, what it awaits reaches the loop, and the answer comes back."""

    async def fn(ctx: Any, q: Any) -> Any:
        return [await Waits(), await Waits()]

    driven = drive(desk.call(fn))
    assert isinstance(driven.send(None), Waits)
    assert isinstance(driven.send(1), Waits)
    with pytest.raises(StopIteration) as stopped:
        driven.send(2)
    assert stopped.value.value == [1, 2]


def test_a_coroutine_is_thrown_at(desk: Desk) -> None:
    """What is thrown into the wait is raised in the handler, which may go on."""

    async def fn(ctx: Any, q: Any) -> Any:
        try:
            await Waits()
        except KeyError:
            return await Waits()

    driven = drive(desk.call(fn))
    driven.send(None)
    assert isinstance(driven.throw(KeyError('x')), Waits)
    with pytest.raises(StopIteration) as stopped:
        driven.send('on')
    assert stopped.value.value == 'on'


def test_a_coroutine_that_raises(desk: Desk) -> None:
    """What the handler raises is raised to whoever awaits."""

    async def fn(ctx: Any, q: Any) -> Any:
        raise Error(404, 'No such cell')

    with pytest.raises(Error, match='No such cell'):
        drive(desk.call(fn)).send(None)


def test_a_coroutine_that_is_closed(desk: Desk) -> None:
    """A handler whose wait is closed runs its `finally`."""
    ended = []

    async def fn(ctx: Any, q: Any) -> Any:
        try:
            await Waits()
        finally:
            ended.append(True)

    driven = drive(desk.call(fn))
    driven.send(None)
    driven.close()
    assert ended == [True]


def test_a_threaded_function(desk: Desk) -> None:
    """A handler marked `@threaded` is run by the pool, with the same arguments."""
    fn = threaded(lambda ctx, q: (ctx.p, q.a))
    result = desk.call(fn, values={'a': 1})
    assert is_pending(result)
    assert finish(result) == ('cmd/f', 1)
    assert desk.threads == [fn]


def test_a_plain_function_that_gives_a_coroutine(desk: Desk) -> None:
    """What a plain def returns may itself have to be awaited."""

    async def inner() -> int:
        return 3

    assert finish(desk.call(lambda ctx, q: inner())) == 3


@pytest.mark.parametrize(
    ('result', 'pending'), [(Waits(), True), (1, False), (None, False), ([Waits()], False), (Waits, False)]
)
def test_is_pending(result: Any, pending: bool) -> None:
    """What can be awaited is pending."""
    assert is_pending(result) is pending


@pytest.mark.parametrize(
    ('values', 'texts', 'id'), [({}, {}, '7'), ({'id': 1}, {}, '7'), ({'id': '1'}, {'id': ['1', '2']}, '7')]
)
def test_parameters_of_the_path(desk: Desk, values: Any, texts: Any, id: str) -> None:
    """A parameter of the path goes into `q`, over one of that name that was sent."""
    q = desk.call(lambda ctx, q: q, 'thing/{id}', 'thing/7', {**values, 'b': 2}, texts)
    assert q == {'id': id, 'b': 2}


class Thing(msgspec.Struct):
    id: int
    n: int = 0


def by_id(ctx: Any, q: Thing) -> Any:
    return q


def test_typed_parameters_of_the_path(desk: Desk) -> None:
    """A parameter of the path is text, and becomes a number beside strict JSON."""
    assert desk.call(by_id, 'thing/{id}', 'thing/7', {'n': 1}) == Thing(7, 1)
    with pytest.raises(Error, match="Parameter 'n'"):
        desk.call(by_id, 'thing/{id}', 'thing/7', {'n': '1'})
    with pytest.raises(Error, match="Parameter 'id'") as caught:
        desk.call(by_id, 'thing/{id}', 'thing/x', {'n': 1})
    assert caught.value.code == 422


def test_values_of_the_caller_stay(desk: Desk) -> None:
    """Parameters of the path do not find their way into the dict that was handed in."""
    values = {'n': 1}
    desk.call(lambda ctx, q: q, 'thing/{id}', 'thing/7', values)
    assert values == {'n': 1}


# --- pace ---


@pytest.mark.parametrize(
    ('limit', 'seconds', 'told'), [(0.1, 0.25, [('cmd/f', 0.25)]), (0.1, 0.1, []), (None, 1e6, []), (0.3, 0.25, [])]
)
def test_slow_function(limit: float | None, seconds: float, told: Any) -> None:
    """A handler that holds the loop for longer than the limit is told, with its name and time."""
    desk = Desk(limit)
    desk.call(lambda ctx, q: desk.hold(seconds))
    assert desk.slow == told


def test_slow_function_that_fails(desk: Desk) -> None:
    """A handler that holds the loop and then fails is told too."""

    def fn(ctx: Any, q: Any) -> None:
        desk.hold(0.5)
        raise KeyError

    with pytest.raises(KeyError):
        desk.call(fn)
    assert desk.slow == [('cmd/f', 0.5)]


def stretches(desk: Desk, *seconds: float) -> Callable[[Any, Any], Coroutine[Any, Any, None]]:
    """A handler that holds the loop for so long before each of its waits, and fails at its end."""

    async def fn(ctx: Any, q: Any) -> None:
        for each in seconds:
            desk.hold(each)
            await Waits()
        desk.hold(0.5)
        raise KeyError

    return fn


def test_slow_coroutine(desk: Desk) -> None:
    """Of a coroutine each stretch between two waits is held against the limit, and waiting is not."""
    driven = drive(desk.call(stretches(desk, 0.25, 0.05, 0.05)))
    for _step in range(3):
        driven.send(None)
        desk.time += 100
    with pytest.raises(KeyError):
        driven.send(None)
    assert [(name, round(seconds, 9)) for name, seconds in desk.slow] == [('cmd/f', 0.25), ('cmd/f', 0.5)]


def test_threads_may_take_their_time(desk: Desk) -> None:
    """A handler in a thread holds up nobody and is never told."""
    finish(desk.call(threaded(lambda ctx, q: desk.hold(10))))
    assert not desk.slow


# --- errors ---


def test_error_of_ones_own(desk: Desk) -> None:
    """An Error is what the client reads, and no failure."""
    error = Error(404, 'x')
    assert desk.dispatcher.error(error, 'cmd/f') is error
    assert not desk.failures


def test_failure(desk: Desk) -> None:
    """Anything else is 500, and told with the handler's name."""
    failure = ValueError('secret')
    error = desk.dispatcher.error(failure, 'cmd/f')
    assert (error.code, error.message, desk.failures) == (500, 'Server error', [(failure, 'cmd/f')])


def test_missing_parameter_as_result(desk: Desk) -> None:
    """A missing parameter that is returned is error 400 once it is awaited as other results are."""
    result = desk.call(lambda ctx, q: q.a)
    with pytest.raises(Error, match="Missing parameter 'a'"):
        finish(result)
