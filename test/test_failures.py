"""The log of a failure of the program's own code, wherever that is called from."""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import requests

import webshoes as ws

from .conftest import TIMEOUT, OpenPeer, Serve, exchange
from .faces import dial, frame, read_head, read_message, until, upgrade


class LapseError(Exception):
    """A failure of the program's own code."""


def fail(*args: Any) -> Any:
    raise LapseError


@ws.threaded
def fail_in_thread(*args: Any) -> Any:
    raise LapseError


async def fail_at_once(*args: Any) -> Any:
    raise LapseError


async def fail_later(*args: Any) -> Any:
    await asyncio.sleep(0)
    raise LapseError


FAILURES = {'plain': fail, 'threaded': fail_in_thread, 'at once': fail_at_once, 'later': fail_later}
on_lane = pytest.mark.parametrize('is_fast', [True, False], ids=['fast', 'slow'])
on_loop = pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])


@pytest.fixture(autouse=True)
def each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failure is logged, however often it happens."""
    monkeypatch.setattr('webshoes.log.REPEAT', 0.0)


def failures(caplog: pytest.LogCaptureFixture) -> list[BaseException]:
    """The failures that were logged."""
    found = [record.exc_info[1] for record in caplog.records if record.exc_info]
    return [exc for exc in found if exc is not None]


def check(caplog: pytest.LogCaptureFixture, count: int) -> None:
    """So many failures are logged, and each is one exception alone, which has nothing of ours before it."""
    until(lambda: len(failures(caplog)) >= count)
    for exc in failures(caplog):
        assert (type(exc), exc.__context__, exc.__cause__) == (LapseError, None, None), traceback.format_exception(exc)
    assert len(failures(caplog)) == count
    caplog.clear()


@on_lane
@on_loop
@pytest.mark.parametrize('fn', FAILURES.values(), ids=FAILURES)
def test_handlers_over_websocket(
    serve: Serve,
    open_peer: OpenPeer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    loop: str,
    is_fast: bool,
    fn: Callable[..., Any],
) -> None:
    """A call that fails is logged alone, the first of its command and later ones, by itself and after others."""
    monkeypatch.setattr('webshoes.transports.websocket.HAS_WEBSOCKET_LANE', is_fast)
    peer = open_peer(serve({'f': fn, 'thing/{id}': fn, 'later': lambda ctx, q: asyncio.sleep(0)}, loop=loop))
    messages: list[Any] = [
        {'cmd': 'cmd/f', 'q': {}, 'tid': 1},
        {'cmd': 'cmd/f', 'q': {}, 'tid': 1},
        {'cmd': 'f', 'q': {}},
        {'cmd': 'cmd/thing/7'},
        [{'cmd': 'cmd/f', 'q': {}}],
        [{'cmd': 'cmd/later'}, {'cmd': 'cmd/f', 'q': {}}],
    ]
    for message in messages:
        peer.send(message)
        answers = [peer.receive() for _ in (message if isinstance(message, list) else [message])]
        assert answers[-1]['code'] == 500
    check(caplog, len(messages))


@on_loop
@pytest.mark.parametrize('fn', FAILURES.values(), ids=FAILURES)
def test_handlers_after_what_is_not_json(
    serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, loop: str, fn: Callable[..., Any]
) -> None:
    """A message that cannot be read leaves nothing behind in the failures of the calls that waited before it."""
    peer = open_peer(serve({'f': fn, 'later': lambda ctx, q: asyncio.sleep(0)}, loop=loop))
    peer.send({'cmd': 'cmd/later'}, {'cmd': 'cmd/f', 'q': {}})
    peer.connection.send('{')
    assert sorted(peer.receive().get('code', 0) for _ in range(3)) == [0, 400, 500]
    check(caplog, 1)


@on_loop
@pytest.mark.parametrize('fn', FAILURES.values(), ids=FAILURES)
def test_handlers_over_http(serve: Serve, caplog: pytest.LogCaptureFixture, loop: str, fn: Callable[..., Any]) -> None:
    """A request that fails is logged alone, the first to its path and later ones."""
    wsa = serve({'f': fn, 'thing/{id}': fn}, loop=loop)
    with requests.Session() as session:
        for path in ('f', 'f', 'f', 'f/more', 'thing/7', 'f?a=%20'):
            assert session.get(f'{wsa.url}/cmd/{path}', timeout=TIMEOUT).status_code == 500
        for body in ({}, {'a': 1}):
            assert session.post(f'{wsa.url}/cmd/f', json=body, timeout=TIMEOUT).status_code == 500
    check(caplog, 8)


def open_stream(wsa: ws.WebShoesApp) -> Iterator[None]:
    """An event stream that is open until it is gone on with."""
    request = 'GET /cmd?evt=heat HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n'
    with dial(wsa.port) as connection:
        connection.sendall(request.encode())
        until(partial(wsa.subscribers, 'heat'))
        yield


def open_websocket(wsa: ws.WebShoesApp) -> Iterator[None]:
    """A WebSocket with a subscription."""
    with dial(wsa.port) as connection:
        connection.sendall(upgrade())
        read_head(connection)
        connection.sendall(frame({'evt': 'heat'}))
        until(partial(wsa.subscribers, 'heat'))
        yield


@on_loop
@pytest.mark.parametrize('opened', [open_stream, open_websocket])
@pytest.mark.parametrize('fn', FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize('moment', ['connect', 'disconnect', 'unsubscribe'])
def test_hooks(
    serve: Serve, caplog: pytest.LogCaptureFixture, loop: str, opened: Any, fn: Callable[..., Any], moment: Any
) -> None:
    """A hook that fails is logged alone, whatever ended the connection."""
    wsa = serve(loop=loop)
    wsa.on(moment)(fn)
    for _ in range(2):
        connection = opened(wsa)
        next(connection)
        wsa.triggerEvent('heat', 1)
        assert next(connection, None) is None
        until(lambda: not wsa.connections)
        check(caplog, 1)


@on_loop
@pytest.mark.parametrize('fn', FAILURES.values(), ids=FAILURES)
def test_hook_of_a_subscription_that_is_refused(
    serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, loop: str, fn: Callable[..., Any]
) -> None:
    """A hook that fails after a subscription was refused has not the refusal before it."""
    wsa = serve(loop=loop, limits=ws.Limits(max_subscriptions=1))
    wsa.on('subscribe')(lambda ctx, event: asyncio.sleep(0))
    wsa.on('unsubscribe')(fn)
    peer = open_peer(wsa)
    peer.send([{'evt': 'a', 'tid': 1}, {'evt': 'b', 'tid': 2}])
    assert sorted(peer.receive().get('code', 0) for _ in range(2)) == [0, 429]
    check(caplog, 1)


@on_loop
@pytest.mark.parametrize('fn', FAILURES.values(), ids=FAILURES)
def test_login(serve: Serve, caplog: pytest.LogCaptureFixture, loop: str, fn: Callable[..., Any]) -> None:
    """A login that fails is logged alone, for requests and for WebSockets."""
    wsa = serve({'f': lambda ctx, q: None}, auth=fn, loop=loop)
    for request in (
        b'GET /cmd/f HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
        upgrade('Connection: close'),
    ):
        assert exchange(wsa, request).startswith(b'HTTP/1.1 500 ')
        check(caplog, 1)


@on_loop
@pytest.mark.parametrize('fn', FAILURES.values(), ids=FAILURES)
def test_first_value(
    serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, loop: str, fn: Callable[..., Any]
) -> None:
    """A function that fails to read an event's first value is logged alone, and the event has none."""
    wsa = serve(loop=loop)
    wsa.event('heat', read=fn)
    assert open_peer(wsa).subscribe('heat')['ver'] == 0
    assert requests.get(f'{wsa.url}/cmd?evt=heat', timeout=TIMEOUT).json()['ver'] == 0
    check(caplog, 2)


def test_an_error_that_is_raised_again_and_again(serve: Serve) -> None:
    """An error that is a constant holds on to nothing of the calls that raised it."""
    refusal = ws.Error(404, 'No such cell')

    def refuse(ctx: ws.Context, q: Any) -> None:
        try:
            fail()
        except LapseError:
            raise refusal  # noqa: B904  # so that it has a context

    wsa = serve({'refuse': refuse})
    for _ in range(3):
        assert requests.get(f'{wsa.url}/cmd/refuse', timeout=TIMEOUT).json()['error'] == 'No such cell'
    assert (refusal.__traceback__, refusal.__context__) == (None, None)


# --- functions that cancel the task they run in, or say so ---


def cancel(*args: Any) -> str:
    task = asyncio.current_task()
    if task is not None:  # the fast lanes have no task
        task.cancel()
    return 'done'


async def cancel_and_wait(*args: Any) -> None:
    cancel()
    await asyncio.sleep(0)


async def cancel_and_return(*args: Any) -> str:
    return cancel()


async def cancel_and_recover(*args: Any) -> str:
    for _ in range(2):
        try:
            await cancel_and_wait()
        except asyncio.CancelledError:
            continue
    return 'done'


async def say_cancelled(*args: Any) -> None:
    raise asyncio.CancelledError


@ws.threaded
def say_cancelled_in_thread(*args: Any) -> None:
    raise asyncio.CancelledError


CANCELLERS: dict[str, tuple[Callable[..., Any], bool]] = {  # and whether it fails
    'cancel': (cancel, False),
    'cancel and wait': (cancel_and_wait, True),
    'cancel and return': (cancel_and_return, False),
    'cancel and recover': (cancel_and_recover, False),
    'say so': (say_cancelled, True),
    'say so in a thread': (say_cancelled_in_thread, True),
}
canceller = pytest.mark.parametrize(('fn', 'fails'), CANCELLERS.values(), ids=CANCELLERS)


def cancelled(caplog: pytest.LogCaptureFixture) -> int:
    """How many failures were logged, all of them `CancelledError`."""
    assert {type(exc) for exc in failures(caplog)} <= {asyncio.CancelledError}
    return len(failures(caplog))


@canceller
@on_loop
def test_handlers_that_cancel_over_http(
    serve: Serve, caplog: pytest.LogCaptureFixture, loop: str, fn: Callable[..., Any], fails: bool
) -> None:
    """A request whose handler cancels its own task is answered, and so are those that follow on its connection."""
    wsa = serve({'f': fn, 'later': lambda ctx, q: asyncio.sleep(0, 'later')}, loop=loop)
    request = b'GET /cmd/%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n'
    paths = [b'f', b'later', b'f/more', b'f?a=%20', b'later']
    last = request % (b'later', b'Connection: close\r\n')
    told = exchange(wsa, b''.join(request % (path, b'') for path in paths) + last)
    codes = [int(code) for code in re.findall(rb'HTTP/1.1 (\d+)', told)]
    code = 500 if fails else 200
    assert codes == [code, 200, code, code, 200, 200]
    assert cancelled(caplog) == 3 * fails


@canceller
@on_loop
@on_lane
def test_handlers_that_cancel_over_websocket(
    serve: Serve,
    open_peer: OpenPeer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_fast: bool,
    loop: str,
    fn: Callable[..., Any],
    fails: bool,
) -> None:
    """A call whose handler cancels its own task is answered, and so are those that follow on its connection."""
    monkeypatch.setattr('webshoes.transports.websocket.HAS_WEBSOCKET_LANE', is_fast)
    peer = open_peer(serve({'f': fn, 'later': lambda ctx, q: asyncio.sleep(0, 'later')}, loop=loop))
    for message in ({'cmd': 'cmd/f', 'q': {}, 'tid': 1}, {'cmd': 'cmd/f', 'q': {}}, {'cmd': 'cmd/f/more'}):
        answer = peer.ask(message)
        assert answer.get('code', answer.get('r')) == (500 if fails else 'done')
        assert peer.ask({'cmd': 'cmd/later'})['r'] == 'later'
    assert cancelled(caplog) == 3 * fails


@on_loop
@pytest.mark.parametrize('compress', [False, True])
def test_handlers_that_cancel_after_they_waited(serve: Serve, open_peer: OpenPeer, loop: str, compress: bool) -> None:
    """Calls that wait until there is room, and cancel the task that sends, are answered to the last."""
    wsa = serve(
        {'f': lambda ctx, q: [cancel(), 'x' * 5000]}, loop=loop, compress=compress, limits=ws.Limits(send_buffer=1)
    )
    peer = open_peer(wsa)
    assert bool(peer.connection.protocol.extensions) is compress
    peer.send([{'cmd': 'cmd/f', 'q': {}, 'tid': n} for n in range(50)], {'cmd': 'cmd/f', 'q': {}, 'tid': 50})
    assert [peer.receive()['tid'] for _ in range(51)] == list(range(51))


@canceller
@on_loop
@pytest.mark.parametrize('moment', ['connect', 'subscribe', 'unsubscribe', 'disconnect'])
def test_hooks_that_cancel(
    serve: Serve,
    open_peer: OpenPeer,
    caplog: pytest.LogCaptureFixture,
    loop: str,
    fn: Callable[..., Any],
    fails: bool,
    moment: Any,
) -> None:
    """A hook that cancels its own task drops no connection; to do so is a failure like any other."""
    wsa = serve({'later': lambda ctx, q: asyncio.sleep(0, 'later')}, loop=loop)
    wsa.on(moment)(fn)
    peer = open_peer(wsa)
    assert peer.ask({'cmd': 'cmd/later'})['r'] == 'later'
    assert peer.ask({'evt': 'heat', 'tid': 1}).get('code') == (500 if fails and moment == 'subscribe' else None)
    peer.connection.close()
    until(lambda: not wsa.connections)
    until(lambda: cancelled(caplog) == fails)


@canceller
@on_loop
def test_logins_that_cancel(
    serve: Serve, caplog: pytest.LogCaptureFixture, loop: str, fn: Callable[..., Any], fails: bool
) -> None:
    """A login that cancels its own task is a login, or fails."""
    wsa = serve({'f': lambda ctx, q: asyncio.sleep(0, 'later')}, auth=fn, loop=loop)
    with requests.Session() as session:
        for _ in range(2):
            assert session.get(f'{wsa.url}/cmd/f', timeout=TIMEOUT).status_code == (500 if fails else 200)
    with dial(wsa.port) as connection:
        connection.sendall(upgrade())
        assert read_head(connection).startswith('HTTP/1.1 500' if fails else 'HTTP/1.1 101')
        connection.sendall(frame({'cmd': 'cmd/f'}))
        with connection.makefile('rb') as stream:
            assert fails or read_message(stream)['r'] == 'later'
    assert cancelled(caplog) == 3 * fails


@on_loop
def test_handlers_that_are_cancelled_as_the_server_stops(
    serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, loop: str
) -> None:
    """A handler that still runs when the server stops is cancelled, which is no failure."""
    began: list[Any] = []

    async def for_ever(ctx: ws.Context, q: Any) -> None:
        began.append(ctx)
        await asyncio.get_running_loop().create_future()

    wsa = serve({'f': for_ever}, loop=loop, limits=ws.Limits(stop_timeout=0.2))
    gone, peer = open_peer(wsa), open_peer(wsa)
    for each in gone, peer:
        each.send({'cmd': 'cmd/f'})
    with dial(wsa.port) as connection:
        connection.sendall(b'GET /cmd/f HTTP/1.1\r\nHost: localhost\r\n\r\n')
        until(lambda: len(began) == 3)
        gone.connection.close()
        until(lambda: len(wsa.connections) == 1)
        wsa.stop()
        assert peer.receive()['code'] == 503
    assert failures(caplog) == []
