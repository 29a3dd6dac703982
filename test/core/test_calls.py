"""The calls of one WebSocket: whose turn it is, how many run, and one answer to each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pytest
from aiohttp import web
from propertybag import Bag

from webshoes.core import codec
from webshoes.core.calls import Calls, arguments
from webshoes.core.context import Context
from webshoes.core.errors import Error
from webshoes.core.handler import Handler, threaded
from webshoes.core.limits import Limits
from webshoes.core.registry import Registry, make_entry

from .driver import Cancelled, Doors, Driver, Gate, Task
from .link import new_scope


class Bench:
    """The parts that calls need, and what they said."""

    def __init__(self, fm: dict[str, Any], rep: str = 'r', q: str = 'q', **limits: Any) -> None:
        self.driver = Driver()
        self.failures: list[tuple[str, str]] = []
        self.sent: list[Any] = []
        self.resumed: list[Any] = []
        self.wakes = 0
        self.registry = Registry()
        self.registry.add(make_entry('cmd', 'cmd', q, 'evt', rep, fm))
        self.services = self.driver.services(
            Limits(**limits),
            self.in_thread,
            lambda exc, where: self.failures.append((type(exc).__name__, where)),
        )
        self.dispatcher = self.services.dispatcher
        self.scope = new_scope()
        self.size = 1  # bytes of a message
        self.room = 10**6  # answers
        self.begin()

    def begin(self, resume: Callable[[Any, int], None] | None = None, **services: Any) -> None:
        """Begin anew, with another `resume`, or others of the services."""
        changed = msgspec.structs.replace(self.services, **services)
        self.calls = Calls(changed, self.send, resume or self.resume, self.wake, self.has_room)

    async def in_thread(self, fn: Callable[..., Any], *args: Any) -> Any:
        return fn(*args)

    def send(self, data: bytes) -> None:
        self.sent.append(codec.decode(data))

    def resume(self, message: Any, size: int) -> None:
        self.resumed.append(message)

    def wake(self) -> None:
        self.wakes += 1

    def has_room(self) -> bool:
        return len(self.sent) < self.room

    def call(self, fn: str, tid: Any = None, **fields: Any) -> None:
        ctx = Context(self.scope, fn, tid, 'WS')
        match = self.registry.find_command('cmd', fn)
        values = arguments(match.entry, {'cmd': fn, **fields})
        run = partial(self.dispatcher.call, match, ctx, values, {})
        assert isinstance(match.target, Handler)
        self.calls.accept(run, match.target, match.entry.rep, tid, self.size)

    @property
    def told(self) -> list[Any]:
        """The answers so far: the results, and the codes of the errors, each with its `tid`."""
        return [(answer.get('tid'), answer.get('code', answer.get('r'))) for answer in self.sent]


@dataclass
class Point:
    x: int


class Struct(msgspec.Struct):
    x: int


@pytest.fixture
def doors() -> Doors:
    return Doors()


@pytest.fixture
def bench(doors: Doors) -> Bench:
    return Bench({'wait': doors.wait, 'now': lambda ctx, q: 'now'})


# --- results ---


@pytest.mark.parametrize(
    ('result', 'sent'),
    [
        *((None, None), ({}, {}), ([], []), (0, 0), (False, False), ('', ''), ('text', 'text'), (b'\x00', 'AA==')),
        *((Bag({'a': {'b': 1}}), {'a': {'b': 1}}), (Point(1), {'x': 1}), (Struct(1), {'x': 1}), (float('nan'), None)),
    ],
)
@pytest.mark.parametrize('tid', [None, 'x'])
def test_result(result: Any, sent: Any, tid: Any) -> None:
    """Every result is one reply, under `rep`, with the `tid` where there was one."""
    bench = Bench({'f': lambda ctx, q: result})
    bench.call('f', tid)
    assert bench.sent == [{'r': sent, 't': 5.0} | ({'tid': tid} if tid else {})]


@pytest.mark.parametrize(
    ('result', 'frame'), [({'a': 1, 'tid': 'mine'}, {'a': 1}), ([1], {'r': [1]}), (Point(1), {'r': {'x': 1}})]
)
def test_merged_result(result: Any, frame: Any) -> None:
    """Where `rep` is '' a dict is merged, and the server's `tid` wins."""
    bench = Bench({'f': lambda ctx, q: result}, rep='')
    bench.call('f', 'x')
    assert bench.sent == [{'tid': 'x', 't': 5.0} | frame]


@pytest.mark.parametrize(
    ('result', 'code', 'failures'),
    [
        (Path('/etc/passwd'), 406, []),
        (PurePosixPath('x'), 406, []),
        (object(), 500, [('UnsendableError', 'cmd/f')]),
        ({'a': 1j}, 500, [('UnsendableError', 'cmd/f')]),
    ],
)
def test_result_that_cannot_be_sent(result: Any, code: int, failures: Any) -> None:
    """A file is 406 over WebSocket; what cannot be JSON is a failure of the handler, of async ones too."""

    async def later(ctx: Any, q: Any) -> Any:
        return result

    bench = Bench({'f': lambda ctx, q: result, 'later': later})
    bench.call('f', 'x')
    bench.call('later', 'y')
    bench.driver.run()
    assert bench.told == [('x', code), ('y', code)]
    assert bench.failures == failures + [(kind, 'cmd/later') for kind, _ in failures]


class Leaves:
    """What ends the program when it is encoded."""

    def tolist(self) -> Any:
        raise SystemExit(1)


@pytest.mark.parametrize('is_async', [True, False])
def test_result_that_exits_when_it_is_encoded(is_async: bool) -> None:
    """A result whose encoding raises SystemExit is a failure of the handler, and the next call is answered."""

    async def later(ctx: Any, q: Any) -> Any:
        return Leaves()

    bench = Bench({'f': later if is_async else lambda ctx, q: Leaves(), 'now': lambda ctx, q: 'now'})
    bench.call('f', 'x')
    bench.driver.run()
    bench.call('now', 'y')
    assert (bench.told, bench.failures) == ([('x', 500), ('y', 'now')], [('SystemExit', 'cmd/f')])
    assert bench.calls.is_idle


def test_types_that_only_http_can_send() -> None:
    """What a face says it cannot send is 406, and an exception among it is as if it were raised."""
    bench = Bench({'plain': lambda ctx, q: web.Response(), 'gone': lambda ctx, q: web.HTTPGone()})
    bench.begin(unsendable=(web.StreamResponse,))
    bench.call('plain')
    bench.call('gone')
    assert bench.told == [(None, 406), (None, 410)]


@pytest.mark.parametrize(
    ('raised', 'code', 'message', 'failures'),
    [
        (Error(404, 'No such cell'), 404, 'No such cell', []),
        (web.HTTPForbidden(text='No'), 403, 'No', []),
        (ValueError('secret'), 500, 'Server error', [('ValueError', 'cmd/f')]),
        (SystemExit(1), 500, 'Server error', [('SystemExit', 'cmd/f')]),
        (Cancelled(), 500, 'Server error', [('Cancelled', 'cmd/f')]),
        (StopIteration(), 500, 'Server error', [('StopIteration', 'cmd/f')]),
    ],
)
def test_error(raised: BaseException, code: int, message: str, failures: Any) -> None:
    """What a handler raises is its answer; what is nobody's answer is 500, hidden and told."""

    def fn(ctx: Any, q: Any) -> Any:
        raise raised

    bench = Bench({'f': fn})
    bench.call('f', 'x')
    assert bench.sent == [{'error': message, 'code': code, 'tid': 'x'}]
    assert bench.failures == failures
    assert bench.calls.is_idle


@pytest.mark.parametrize('fn', [lambda ctx, q: int(q.a), lambda ctx, q: {'a': q.a}, lambda ctx, q: q.a])
def test_missing_parameter(fn: Any) -> None:
    """A parameter that was not sent is 400 naming it, whether it is used, sent back within a result or alone."""
    bench = Bench({'f': fn})
    bench.call('f', 'x')
    bench.driver.run()
    assert bench.sent == [{'error': "Missing parameter 'a'", 'code': 400, 'tid': 'x'}]
    assert not bench.failures


# --- arguments ---


@pytest.mark.parametrize(
    ('field', 'fields', 'values'),
    [
        ('q', {'q': {'a': 1}}, {'a': 1}),
        ('q', {'q': {'a': 1}, 'b': 2}, {'a': 1}),
        ('q', {'q': {}}, {}),
        ('q', {'q': None}, {}),
        ('q', {'a': 1}, {'cmd': 'f', 'a': 1}),
        ('', {'a': 1, 'q': {'b': 2}}, {'cmd': 'f', 'a': 1, 'q': {'b': 2}}),
        ('', {'': 1}, {'cmd': 'f', '': 1}),
    ],
)
def test_arguments(field: str, fields: dict[str, Any], values: Any) -> None:
    """`q` is what stands in the entry's `q` field where the message has it, else the whole message."""
    bench = Bench({'f': lambda ctx, q: q}, q=field)
    bench.call('f', **fields)
    assert bench.sent == [{'r': values, 't': 5.0}]


@pytest.mark.parametrize('value', [[], [1], 'a', 3, True, False, 0, ''])
def test_arguments_of_a_wrong_kind(value: Any) -> None:
    """A `q` field that holds no object is 400, naming the field."""
    bench = Bench({'f': lambda ctx, q: q})
    with pytest.raises(Error, match=r"^'q' is a JSON object$") as raised:
        bench.call('f', 'x', q=value)
    assert (raised.value.code, bench.sent) == (400, [])


def test_context(bench: Bench) -> None:
    """The context tells command and `tid` as they came, and the method WS."""
    seen: list[Context] = []
    bench.registry.entries['cmd'].fm['seen'] = lambda ctx, q: seen.append(ctx)
    bench.call('seen', 7)
    assert (seen[0].p, seen[0].tid, seen[0].method, seen[0].session) == ('seen', 7, 'WS', bench.scope.session)


# --- order ---


def test_a_plain_function_is_answered_at_once(bench: Bench) -> None:
    """A plain def is answered where it is called, and wakes nobody."""
    bench.call('now')
    assert bench.told == [(None, 'now')]
    assert (bench.wakes, not bench.calls.is_idle, bench.calls.turn_is_taken) == (0, False, False)


@pytest.mark.parametrize('fn', ['wait', 'thread'])
def test_what_is_answered_later_wakes(bench: Bench, doors: Doors, fn: str) -> None:
    """An answer that comes on its own wakes the sender."""
    bench.registry.entries['cmd'].fm['thread'] = threaded(lambda ctx, q: q.door)
    doors.open('a')
    bench.call(fn, 'x', q={'door': 'a'})
    assert (bench.told, not bench.calls.is_idle) == ([], True)
    bench.driver.run()
    assert (bench.told, bench.wakes, not bench.calls.is_idle) == ([('x', 'a')], 1, False)


def test_calls_with_tid_overtake(bench: Bench, doors: Doors) -> None:
    """A call with a `tid` holds up nobody, and answers when it is done."""
    bench.call('wait', 'slow', q={'door': 'a'})
    bench.call('wait', 'quick', q={'door': 'b'})
    bench.call('now', 'at once')
    bench.call('now')
    doors.open('b')
    bench.driver.run()
    assert bench.told == [('at once', 'now'), (None, 'now'), ('quick', 'b')]
    doors.open('a')
    bench.driver.run()
    assert bench.told[-1] == ('slow', 'a')


def test_a_call_without_tid_holds_the_turn(bench: Bench, doors: Doors) -> None:
    """What comes behind a call without `tid` comes back when it is answered, in order."""
    bench.call('wait', q={'door': 'a'})
    assert bench.calls.turn_is_taken
    bench.calls.wait_for_turn('second', 1)
    bench.calls.wait_for_turn('third', 1)
    bench.driver.run()
    assert not bench.resumed
    doors.open('a')
    bench.driver.run()
    assert (bench.told, bench.resumed) == ([(None, 'a')], ['second', 'third'])
    assert not bench.calls.turn_is_taken


def test_the_turn_is_taken_by_what_comes_back(bench: Bench, doors: Doors) -> None:
    """A message that comes back and takes the turn holds up those behind it."""
    bench.begin(lambda door, size: bench.call('wait', q={'door': door}))
    bench.call('wait', q={'door': 'a'})
    for door in 'bcd':
        bench.calls.wait_for_turn(door, 1)
    doors.open('a', 'b', 'd')
    bench.driver.run()
    assert (doors.begun, bench.told) == (['a', 'b', 'c'], [(None, 'a'), (None, 'b')])
    doors.open('c')
    bench.driver.run()
    assert bench.told == [(None, 'a'), (None, 'b'), (None, 'c'), (None, 'd')]


def test_thousands_that_waited(doors: Doors) -> None:
    """However many waited, they are let go one after another and not from within one another."""
    bench = Bench({'wait': doors.wait}, max_queued=5000)
    bench.call('wait', q={'door': 'a'})
    for number in range(5000):
        bench.calls.wait_for_turn(number, 1)
    doors.open('a')
    bench.driver.run()
    assert bench.resumed == list(range(5000))


def test_tid_in_flight(bench: Bench, doors: Doors) -> None:
    """A `tid` that is in flight is 400; once answered it can be used again."""
    bench.call('wait', 'x', q={'door': 'a'})
    with pytest.raises(Error, match='\'tid\' "x" is in flight already') as caught:
        bench.call('now', 'x')
    assert caught.value.code == 400
    doors.open('a')
    bench.driver.run()
    bench.call('now', 'x')
    assert bench.told == [('x', 'a'), ('x', 'now')]


# --- limits ---


def test_places(doors: Doors) -> None:
    """Past `max_in_flight` calls wait for a place, and begin in their order."""
    bench = Bench({'wait': doors.wait}, max_in_flight=2)
    for door in 'abcd':
        bench.call('wait', door, q={'door': door})
    bench.driver.run()
    assert doors.begun == ['a', 'b']
    doors.open('b')
    bench.driver.run()
    assert doors.begun == ['a', 'b', 'c']
    doors.open('a', 'c', 'd')
    bench.driver.run()
    assert (bench.told, not bench.calls.is_idle) == ([('b', 'b'), ('a', 'a'), ('c', 'c'), ('d', 'd')], False)


def test_a_call_without_tid_waits_for_a_place(doors: Doors) -> None:
    """A call without `tid` holds the turn while it waits for a place."""
    bench = Bench({'wait': doors.wait}, max_in_flight=1)
    bench.call('wait', 'x', q={'door': 'a'})
    bench.call('wait', q={'door': 'b'})
    assert bench.calls.turn_is_taken
    bench.calls.wait_for_turn('next', 1)
    doors.open('a', 'b')
    bench.driver.run()
    assert (bench.told, bench.resumed) == ([('x', 'a'), (None, 'b')], ['next'])


def test_tid_that_waits_for_a_place(doors: Doors) -> None:
    """The `tid` of a call that waits for a place is in flight."""
    bench = Bench({'wait': doors.wait}, max_in_flight=1)
    bench.call('wait', 'x', q={'door': 'a'})
    bench.call('wait', 'y', q={'door': 'b'})
    with pytest.raises(Error, match='in flight'):
        bench.call('wait', 'y', q={'door': 'c'})


def test_too_many_bytes_wait(doors: Doors) -> None:
    """Past `max_queued_bytes` a message is 429; a single one may always wait, and makes room when it goes on."""
    bench = Bench({'wait': doors.wait}, max_queued_bytes=10)
    bench.call('wait', q={'door': 'a'})
    bench.calls.wait_for_turn('large', 50)
    with pytest.raises(Error, match='50 bytes of messages of this connection are waiting already') as caught:
        bench.calls.wait_for_turn('small', 1)
    assert caught.value.code == 429
    doors.open('a')
    bench.driver.run()
    bench.call('wait', q={'door': 'b'})
    bench.calls.wait_for_turn('small', 10)
    assert bench.resumed == ['large']


@pytest.mark.parametrize('cancelled', [True, False])
def test_bytes_that_waited_for_a_place(doors: Doors, cancelled: bool) -> None:
    """What waited for a place no longer counts when it runs, or was cancelled."""
    bench = Bench({'wait': doors.wait}, max_in_flight=1, max_queued_bytes=10)
    bench.size = 10
    bench.call('wait', 'x', q={'door': 'a'})
    bench.call('wait', 'y', q={'door': 'b'})
    doors.open('a', 'b')
    if cancelled:
        bench.calls.cancel('y')
    bench.driver.run()
    bench.call('wait', 'x', q={'door': 'c'})
    bench.call('wait', 'y', q={'door': 'd'})
    bench.driver.run()
    assert doors.begun[-1] == 'c'


def test_without_room_what_waits_goes_on_waiting(doors: Doors) -> None:
    """While there is no room for answers nothing that waited is run; it goes on when there is, in order."""
    bench = Bench({'wait': doors.wait})
    bench.call('wait', q={'door': 'a'})
    for number in range(3):
        bench.calls.wait_for_turn(number, 1)
    bench.room = 1
    doors.open('a')
    bench.driver.run()
    assert (bench.resumed, bench.calls.can_advance, bench.calls.turn_is_taken) == ([], True, True)
    bench.room = 10
    bench.calls.advance()
    assert (bench.resumed, bench.calls.can_advance, bench.calls.turn_is_taken) == ([0, 1, 2], False, False)


def test_what_waited_is_run_a_slice_at_a_time(doors: Doors) -> None:
    """However many waited, others have their turn after a slice of time."""
    bench = Bench({'wait': doors.wait})
    bench.call('wait', q={'door': 'a'})
    for number in range(10):
        bench.calls.wait_for_turn(number, 1)
    ticks = iter(range(1000))
    bench.dispatcher.clock = lambda: next(ticks) * 0.001
    doors.open('a')
    bench.driver.run()
    assert 0 < len(bench.resumed) < 10
    while bench.calls.can_advance:
        bench.calls.advance()
    assert bench.resumed == list(range(10))


def test_too_many_wait(doors: Doors) -> None:
    """Past `max_queued` a message is 429, whatever it waits for, and leaves no trace."""
    bench = Bench({'wait': doors.wait}, max_in_flight=1, max_queued=2)
    bench.call('wait', q={'door': 'a'})
    bench.call('wait', 'x', q={'door': 'b'})
    bench.calls.wait_for_turn('last', 1)
    with pytest.raises(Error, match='2 messages of this connection are waiting already') as caught:
        bench.calls.wait_for_turn('too many', 1)
    assert caught.value.code == 429
    with pytest.raises(Error, match='waiting already'):
        bench.call('wait', 'y', q={'door': 'c'})
    doors.open('a', 'b', 'c')
    bench.driver.run()
    bench.call('wait', 'y', q={'door': 'c'})
    bench.driver.run()
    assert (bench.told, bench.resumed) == ([(None, 'a'), ('x', 'b'), ('y', 'c')], ['last'])


# --- ends ---


def test_cancel(bench: Bench, doors: Doors) -> None:
    """A call that is cancelled is answered by 499, once, and the handler is interrupted where it waits."""
    bench.call('wait', 'x', q={'door': 'a'})
    bench.driver.run()
    assert bench.calls.cancel('x')
    assert bench.sent == [{'error': 'Cancelled', 'code': 499, 'tid': 'x'}]
    assert (doors.ended, not bench.calls.is_idle) == ([], True)
    bench.driver.run()
    assert (doors.ended, not bench.calls.is_idle, len(bench.sent), bench.failures) == (['a'], False, 1, [])


@pytest.mark.parametrize('tid', ['y', '', 0, None])
def test_cancel_what_is_not_there(bench: Bench, tid: Any) -> None:
    """A cancel that finds nothing says so."""
    bench.call('wait', 'x', q={'door': 'a'})
    assert not bench.calls.cancel(tid)
    assert not bench.sent


def test_cancel_what_is_answered(bench: Bench) -> None:
    """A call that is answered cannot be cancelled any more."""
    bench.call('now', 'x')
    assert not bench.calls.cancel('x')
    assert len(bench.sent) == 1


def test_cancel_before_it_begins(bench: Bench, doors: Doors) -> None:
    """A call that is cancelled before its handler has begun is answered once."""
    bench.call('wait', 'x', q={'door': 'a'})
    assert bench.calls.cancel('x')
    bench.driver.run()
    assert (bench.told, not bench.calls.is_idle) == ([('x', 499)], False)


def test_cancel_what_waits_for_a_place(doors: Doors) -> None:
    """A call that waits for a place and is cancelled never begins."""
    bench = Bench({'wait': doors.wait}, max_in_flight=1)
    for door in 'abc':
        bench.call('wait', door, q={'door': door})
    assert bench.calls.cancel('b')
    doors.open('a', 'c')
    bench.driver.run()
    assert (bench.told, doors.begun) == ([('b', 499), ('a', 'a'), ('c', 'c')], ['a', 'c'])


def test_a_cancelled_call_keeps_its_place_until_it_ends(doors: Doors) -> None:
    """A handler that is cancelled and still at work holds its place: the limit is of handlers, not of answers."""
    bench = Bench({'wait': doors.wait}, max_in_flight=1)
    bench.call('wait', 'x', q={'door': 'a'})
    bench.driver.run()
    bench.calls.cancel('x')
    bench.call('wait', 'y', q={'door': 'b'})
    assert doors.begun == ['a']
    bench.driver.run()
    assert doors.begun == ['a', 'b']


def test_a_handler_that_will_not_be_cancelled(bench: Bench, doors: Doors) -> None:
    """A handler that goes on after it was cancelled is not answered twice; its `tid` is free meanwhile."""

    async def stubborn(ctx: Any, q: Any) -> Any:
        try:
            await doors.wait(ctx, q)
        except Cancelled:
            await doors.gates.setdefault('b', Gate())
        return 'done all the same'

    bench.registry.entries['cmd'].fm['stubborn'] = stubborn
    bench.call('stubborn', 'x', q={'door': 'a'})
    bench.driver.run()
    bench.calls.cancel('x')
    bench.driver.run()
    bench.call('now', 'x')
    doors.open('b')
    bench.driver.run()
    assert (bench.told, not bench.calls.is_idle) == ([('x', 499), ('x', 'now')], False)


@pytest.mark.parametrize('limit', [1, 2, None])
def test_interrupt(doors: Doors, limit: int | None) -> None:
    """All calls are answered with the error, those that wait for a place too, and each but once."""
    bench = Bench({'wait': doors.wait}, max_in_flight=limit)
    for door in 'abc':
        bench.call('wait', door, q={'door': door})
    bench.driver.run()
    bench.calls.cancel('a')
    bench.calls.interrupt(Error(503, 'stopping'))
    bench.driver.run()
    assert sorted(bench.told) == [('a', 499), ('b', 503), ('c', 503)]
    assert (not bench.calls.is_idle, sorted(doors.ended)) == (False, sorted(doors.begun))


def test_interrupt_lets_go_what_waits_for_its_turn(bench: Bench, doors: Doors) -> None:
    """What waits for its turn comes back, for whoever takes it to refuse: nothing is swallowed."""
    bench.call('wait', q={'door': 'a'})
    bench.calls.wait_for_turn('second', 1)
    bench.calls.interrupt(Error(503, 'stopping'))
    assert (bench.told, bench.resumed) == ([(None, 503)], ['second'])


def test_abandon(doors: Doors) -> None:
    """When nobody listens any more what waits never begins, and what runs goes on to its end."""
    bench = Bench({'wait': doors.wait}, max_in_flight=1)
    bench.call('wait', q={'door': 'a'})
    bench.calls.wait_for_turn('second', 1)
    bench.call('wait', 'x', q={'door': 'b'})
    bench.calls.abandon()
    assert not bench.calls.is_idle
    doors.open('a', 'b')
    bench.driver.run()
    assert (doors.ended, bench.resumed, not bench.calls.is_idle) == (['a'], [], False)


class Crowded(Bench):
    """Whose threads are all busy, until the gate opens."""

    def __init__(self, fm: dict[str, Any]) -> None:
        self.gate = Gate()
        super().__init__(fm)

    async def in_thread(self, fn: Callable[..., Any], *args: Any) -> Any:
        await self.gate
        return fn(*args)


def test_abandon_of_what_waits_for_a_thread(doors: Doors) -> None:
    """When nobody listens any more, a call that no thread has begun is never run, and async handlers go on."""
    ran: list[int] = []
    bench = Crowded({'thread': threaded(lambda ctx, q: ran.append(1)), 'wait': doors.wait})
    bench.call('thread', 'x')
    bench.call('wait', 'y', q={'door': 'a'})
    bench.driver.run()
    bench.calls.abandon()
    bench.gate.is_open = True
    bench.driver.run()
    assert (ran, doors.begun, doors.ended, bench.failures) == ([], ['a'], [], [])


def test_a_task_that_is_done_where_it_is_spawned(doors: Doors) -> None:
    """A loop that runs a task at once, before it gives the task, disturbs nothing."""
    bench = Bench({'wait': doors.wait})

    def spawn(coroutine: Coroutine[Any, Any, None]) -> Task:
        task = Task(coroutine)
        task.step()
        return task

    bench.begin(spawn=spawn)
    doors.open('a')
    bench.call('wait', 'x', q={'door': 'a'})
    assert (bench.told, not bench.calls.is_idle) == ([('x', 'a')], False)
