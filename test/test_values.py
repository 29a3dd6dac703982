"""Values that go out, on every transport: what can be JSON, and how the rest is refused and logged."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import requests

import webshoes as ws

from .conftest import TIMEOUT, Clock, OpenPeer, Serve

LONE = '\ud83d'
SENTENCE = "text with the lone surrogate '\\ud83d' cannot be UTF-8"


class Kelvin:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


def as_degrees(value: Any) -> Any:
    """A `default` that knows one type."""
    if isinstance(value, Kelvin):
        return {'K': value.degrees}
    raise TypeError


def gives(result: Callable[[], Any]) -> dict[str, Any]:
    """Handlers of all kinds with the same result."""

    def plain(ctx: Any, q: Any) -> Any:
        return result()

    async def later(ctx: Any, q: Any) -> Any:
        await asyncio.sleep(0)
        return result()

    return {'plain': plain, 'later': later, 'threaded': ws.threaded(lambda ctx, q: result())}


class Asker:
    """Calls a function of an app over both transports, twice: the second call takes the fast lane."""

    def __init__(self, wsa: ws.WebShoesApp, open_peer: OpenPeer) -> None:
        self._wsa, self._peer = wsa, open_peer(wsa)

    def ask(self, name: str, **q: Any) -> list[Any]:
        """The results, or the errors, that are the same four times if all is well."""
        found = []
        for _ in range(2):
            answer = requests.get(f'{self._wsa.url}/cmd/{name}', params=q, timeout=TIMEOUT)
            found.append(answer.json() if 'json' in answer.headers['Content-Type'] else answer.text)
            message = self._peer.ask({'cmd': f'cmd/{name}', 'q': q, 'tid': 1})
            found.append(message['r'] if 'r' in message else {'error': message['error'], 'code': message['code']})
        return found


FAILED = [{'error': 'Server error', 'code': 500}] * 4


@pytest.mark.parametrize('kind', ['plain', 'later', 'threaded'])
@pytest.mark.parametrize(
    ('result', 'line'),
    [
        ({'rows': [{'price': 1j}]}, 'rows[0].price: complex cannot be JSON'),
        (object(), 'object cannot be JSON'),
        ({'name': [LONE]}, f'name[0]: {SENTENCE}'),
        ({LONE: 1}, "a key with the lone surrogate '\\ud83d' cannot be UTF-8"),
        ({b'a': 1}, 'bytes cannot be a key in JSON'),
        ([LONE], f'[0]: {SENTENCE}'),
        (LONE, SENTENCE),
    ],
    ids=range(7),
)
def test_a_result_that_cannot_be_sent(
    serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, kind: str, result: Any, line: str
) -> None:
    """It is 500 on every transport, and one line in the log that tells the place, without a traceback."""
    wsa = serve(gives(lambda: result))
    assert Asker(wsa, open_peer).ask(kind) == FAILED
    (record,) = caplog.records
    assert (record.getMessage(), record.exc_info) == (f"'cmd/{kind}' failed: {line}", None)


@pytest.mark.parametrize(
    ('fail', 'sentence'),
    [
        (
            lambda ctx: ctx.wsa.triggerEvent('rows', {'rows': [{'price': 1j}]}),
            "event 'rows': rows[0].price: complex cannot be JSON",
        ),
        (lambda ctx: ctx.wsa.triggerEvent('rows', [LONE]), f"event 'rows': [0]: {SENTENCE}"),
        (lambda ctx: ctx.wsa.triggerEvent(LONE, 1), "an event with the lone surrogate '\\ud83d' cannot be UTF-8"),
        (lambda ctx: ctx.wsa.event(LONE), "an event with the lone surrogate '\\ud83d' cannot be UTF-8"),
        (lambda ctx: ws.Error(404, LONE), "an error's message with the lone surrogate '\\ud83d' cannot be UTF-8"),
        (
            lambda ctx: ctx.conn.close(1000, LONE),
            "the reason of a close with the lone surrogate '\\ud83d' cannot be UTF-8",
        ),
    ],
    ids=range(6),
)
def test_the_traceback_ends_with_the_handler(
    serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, fail: Callable[[Any], Any], sentence: str
) -> None:
    """A value of a handler that is refused is a TypeError in the log, whose last line is the handler's own."""
    wsa = serve({'f': lambda ctx, q: fail(ctx)})
    assert Asker(wsa, open_peer).ask('f') == FAILED
    (record,) = caplog.records
    assert record.exc_info is not None
    kind, exc, trace = record.exc_info
    assert (kind, str(exc)) == (TypeError, sentence)
    assert traceback.extract_tb(trace)[-1].filename == __file__


def fall_back(ctx: Any, q: Any) -> None:
    """A handler that fails while it handles a refusal of ours."""
    try:
        ctx.wsa.triggerEvent('e', 1j)
    except TypeError as exc:
        raise RuntimeError('of the program') from exc


def test_the_tracebacks_of_causes_end_with_the_handler(
    serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture
) -> None:
    """If a refusal is the cause of another error, the tracebacks of both end with lines of the handler."""
    wsa = serve({'f': fall_back})
    assert Asker(wsa, open_peer).ask('f') == FAILED
    (record,) = caplog.records
    assert record.exc_info is not None
    trace = ''.join(traceback.format_exception(*record.exc_info))
    ends = [part.rstrip().splitlines() for part in trace.split('The above exception was the direct cause')]
    lines = [[line for line in end if line.startswith('  File')][-1] for end in ends]
    assert all(f'"{__file__}"' in line and line.endswith('in fall_back') for line in lines)
    assert len(lines) == 2


def test_a_push_that_cannot_be_sent(serve: Serve, open_peer: OpenPeer) -> None:
    """`push` to one connection refuses as `triggerEvent` does, and the connection goes on."""
    wsa = serve()
    peer = open_peer(wsa)
    peer.subscribe('rows')
    (connection,) = wsa.connections
    for data, sentence in (({'a': 1j}, 'a: complex cannot be JSON'), ([LONE], f'[0]: {SENTENCE}')):
        with pytest.raises(TypeError) as caught:
            connection.push('rows', data)
        assert str(caught.value) == f"event 'rows': {sentence}"
    with pytest.raises(TypeError, match='an event with the lone surrogate'):
        connection.push(LONE, 1)
    connection.push('rows', 'whole')
    assert peer.receive()['r'] == 'whole'


@pytest.mark.parametrize(
    ('value', 'sentence'), [({'a': 1j}, 'a: complex cannot be JSON'), ([LONE], f'[0]: {SENTENCE}')]
)
def test_a_first_value_that_cannot_be_sent(
    serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, value: Any, sentence: str
) -> None:
    """A result of `read=` that cannot be JSON is refused with the event and the place, in one line."""
    wsa = serve()
    wsa.event('rows', read=lambda: value)
    assert open_peer(wsa).subscribe('rows')['ver'] == 0
    (record,) = caplog.records
    assert record.getMessage().endswith(f"failed: event 'rows': {sentence}")
    assert record.exc_info is None


@pytest.mark.parametrize('place', range(5))
def test_a_field_name_that_cannot_be_sent(serve: Serve, place: int) -> None:
    """The names of an entry's fields are text that can be sent."""
    names = ['a', 'b', 'c', 'd', 'e']
    names[place] = LONE
    sub, cmd, q, evt, rep = names
    with pytest.raises(TypeError, match='lone surrogate'):
        serve().register(sub, cmd, q, evt, rep, {})


# --- types of the program's own ---


@pytest.mark.parametrize('kind', ['plain', 'later', 'threaded'])
def test_default(serve: Serve, open_peer: OpenPeer, kind: str) -> None:
    """`default` adds a type to results on every transport."""
    wsa = serve(gives(lambda: {'t': [Kelvin(2)]}), default=as_degrees)
    assert Asker(wsa, open_peer).ask(kind) == [{'t': [{'K': 2}]}] * 4


def test_default_of_events(serve: Serve, open_peer: OpenPeer) -> None:
    """`default` adds a type to what is triggered, pushed to one connection, and read at first."""
    wsa = serve(default=as_degrees)
    wsa.event('read', read=lambda: Kelvin(1))
    peer = open_peer(wsa)
    peer.subscribe('read')
    assert peer.receive()['r'] == {'K': 1}
    wsa.triggerEvent('read', Kelvin(2))
    assert peer.receive()['r'] == {'K': 2}
    wsa.connections[0].push('read', Kelvin(3))
    assert peer.receive()['r'] == {'K': 3}
    assert wsa.event('read').value == {'K': 2}


async def as_degrees_later(value: Any) -> Any:
    return as_degrees(value)


@pytest.mark.parametrize('default', ['str', as_degrees_later])
def test_default_that_is_no_plain_function(default: Any) -> None:
    """A `default` that is not a function, or a coroutine function, is refused when the app is made."""
    with pytest.raises(TypeError, match='default is a plain function of one value'):
        ws.WebShoesApp('127.0.0.1', 0, default=default)


# --- futures ---


@pytest.mark.parametrize('kind', ['plain', 'later', 'threaded'])
def test_a_version_as_a_result(serve: Serve, open_peer: OpenPeer, kind: str) -> None:
    """The future of `triggerEvent`, as a result or in one, is the number of the version."""
    wsa = serve()
    wsa.event('e', distinct=True)
    wsa.triggerEvent('e', 1)
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', gives(lambda: wsa.triggerEvent('e', 1)))
    assert Asker(wsa, open_peer).ask(kind) == [1] * 4
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', gives(lambda: {'ver': [wsa.triggerEvent('e', 1)]}))
    assert Asker(wsa, open_peer).ask(kind) == [{'ver': [1]}] * 4


# --- the handler's own time ---


@pytest.mark.parametrize('is_async', [True, False])
@pytest.mark.parametrize(('own', 'told'), [(0.0, []), (0.03, ["'cmd/f' blocked the loop for 0.03 seconds"])])
def test_the_time_of_encoding_is_not_the_handlers(
    serve: Serve,
    open_peer: OpenPeer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    is_async: bool,
    own: float,
    told: list[str],
) -> None:
    """A handler is named for what it took itself, not for the encoding of what it triggers, pushes and returns."""

    def take_long(value: Any) -> Any:
        clock.go_on(0.05)
        return as_degrees(value)

    def trigger(ctx: Any, q: Any) -> Any:
        clock.go_on(own)
        ctx.wsa.triggerEvent('e', Kelvin(1))
        ctx.wsa.triggerEvent('e', {'a': Kelvin(2), 1: 2})
        if ctx.method == 'WS':
            ctx.conn.push('e', Kelvin(3))
        return [Kelvin(4)]

    async def trigger_later(ctx: Any, q: Any) -> Any:
        await asyncio.sleep(0)
        return trigger(ctx, q)

    fm = {'f': trigger_later if is_async else trigger}
    wsa = serve(fm, default=take_long, limits=ws.Limits(slow_handler=0.02))
    assert requests.get(f'{wsa.url}/cmd/f', timeout=TIMEOUT).json() == [{'K': 4}]
    open_peer(wsa).ask({'cmd': 'cmd/f'})
    assert [record.getMessage().partition(',')[0] for record in caplog.records] == told


def test_the_time_of_encoding_elsewhere_is_not_left_out(
    serve: Serve, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The time in which another thread encodes is not taken off the time of the running handler."""

    def take_long(value: Any) -> Any:
        clock.go_on(0.05)
        return as_degrees(value)

    def block(ctx: Any, q: Any) -> None:
        thread = threading.Thread(target=ctx.wsa.triggerEvent, args=('e', Kelvin(1)))
        thread.start()
        thread.join(TIMEOUT)

    wsa = serve({'f': block}, default=take_long, limits=ws.Limits(slow_handler=0.02))
    assert requests.get(f'{wsa.url}/cmd/f', timeout=TIMEOUT).json() is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_decimal(serve: Serve, open_peer: OpenPeer) -> None:
    """A type that Python has and JSON lacks means the same on every transport."""
    wsa = serve(gives(lambda: {'price': Decimal('1.10'), 'seen': {2, 1}}))
    assert Asker(wsa, open_peer).ask('plain') == [{'price': '1.10', 'seen': [1, 2]}] * 4
