"""The wire over a real WebSocket: messages in, replies out, and how connections end (sections 3 and 5)."""

from __future__ import annotations

import asyncio
import base64
import json
import queue
import random
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import web
from propertybag import Bag
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import webshoes as ws

from .conftest import TIMEOUT, Block, OpenPeer, Peer, Serve, echo
from .faces import HANDSHAKE, dial, frame, open_stalled, read_head, read_message, upgrade


class Gate:
    """A handler that waits until it is let go, without blocking the loop."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.count = 0
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._futures: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop

    async def __call__(self, ctx: ws.Context, q: Bag) -> Any:
        self._loop = asyncio.get_running_loop()
        future = self._loop.create_future()
        self._futures.append(future)
        self.count += 1
        self.entered.release()
        try:
            await future
        except asyncio.CancelledError:
            self.ended.put('cancelled')
            raise
        self.ended.put('done')
        return q

    def wait(self, calls: int = 1) -> None:
        """Return when so many calls more have come in."""
        for _ in range(calls):
            assert self.entered.acquire(timeout=TIMEOUT)

    def open(self) -> None:
        """Let go who waits."""
        for future in self._futures:
            self._loop.call_soon_threadsafe(release, future)


def release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def closed_with(peer: Peer) -> tuple[int | None, str | None]:
    """The code and the reason with which the server closes, whatever it sends before."""
    with suppress(ConnectionClosed):
        while True:
            peer.connection.recv(timeout=TIMEOUT)
    return peer.connection.close_code, peer.connection.close_reason


def errors(peer: Peer, *messages: Any) -> list[tuple[int, Any]]:
    """The code and the `tid` of the errors that answer these messages."""
    peer.send(*messages)
    answers = [peer.receive() for _ in messages]
    return [(answer['code'], answer.get('tid')) for answer in answers]


# --- forms of messages ---


def test_call(serve: Serve, open_peer: OpenPeer) -> None:
    """A call is answered under the entry's reply field, with its `tid` and the time."""
    before = time.time()
    reply = open_peer(serve({'echo': echo})).ask({'cmd': 'cmd/echo', 'q': {'a': 1}, 'tid': 'x'})
    assert before <= reply.pop('t') <= time.time()
    assert reply == {'r': {'a': 1}, 'tid': 'x'}


def test_call_without_tid(serve: Serve, open_peer: OpenPeer) -> None:
    """A call without `tid` is answered without one."""
    assert set(open_peer(serve({'echo': echo})).ask({'cmd': 'cmd/echo', 'q': {}})) == {'r', 't'}


@pytest.mark.parametrize('tid', ['x', '', 'ü☃', 'x' * 256, 0, 1, -1.5, 2**60])
def test_tid(serve: Serve, open_peer: OpenPeer, tid: Any) -> None:
    """A `tid` comes back as it was sent, with a result and with an error."""
    peer = open_peer(serve({'echo': echo}))
    replies = [peer.ask({'cmd': command, 'tid': tid}) for command in ('cmd/echo', 'cmd/nothing')]
    assert [(reply['tid'], type(reply['tid'])) for reply in replies] == [(tid, type(tid))] * 2


@pytest.mark.parametrize(
    ('tid', 'echoed'),
    [(None, None), (True, True), ([], []), ({}, {}), ('x' * 257, 'x' * 256), ([7] * 200, '[7,' + '7,' * 126 + '7')],
)
def test_tid_of_another_kind(serve: Serve, open_peer: OpenPeer, tid: Any, echoed: Any) -> None:
    """A `tid` that is none is 400, nothing is called, and what identifies the message comes back."""
    calls: list[int] = []
    peer = open_peer(serve({'count': lambda ctx, q: calls.append(1)}))
    assert errors(peer, {'cmd': 'cmd/count', 'tid': tid}) == [(400, echoed)]
    assert calls == []


@pytest.mark.parametrize(
    'message',
    [
        r'{"cmd": "cmd/count", "q": {"s": "\ud83d"}, "tid": 7}',
        r'{"cmd": "cmd/count", "q": {"\ude00": 1}, "tid": 7}',
        r'{"tid": 7, "cmd": "cmd/\ud83d"}',
        r'{"evt": "\ud83d", "tid": 7}',
        r'{"evt": "heat", "uid": "\ud83d", "tid": 7}',
        r'{"evt": "heat", "since": {"ver": 0, "epoch": "\ud83d"}, "tid": 7}',
        '{"cmd": "cmd/count", "q": ' + '[' * 100_000 + ']' * 100_000 + ', "tid": 7}',
        '{"cmd": "cmd/count", "q": NaN, "tid": 7}',
        b'{"cmd": "cmd/count", "tid": 7}',
    ],
)
def test_tid_of_what_cannot_be_read(serve: Serve, open_peer: OpenPeer, message: str | bytes) -> None:
    """A message that is not JSON, or binary, is 400 under its `tid`, so that nobody waits for its answer in vain."""
    calls: list[int] = []
    peer = open_peer(serve({'count': lambda ctx, q: calls.append(1)}))
    peer.connection.send(message)
    answer = peer.receive()
    assert (answer['code'], answer['tid']) == (400, 7)
    assert calls == []


@pytest.mark.parametrize(
    ('message', 'expected'),
    [
        ({'cmd': 'cmd/echo', 'q': {'a': 1}, 'b': 2}, {'a': 1}),
        ({'cmd': 'cmd/echo', 'q': None, 'b': 2}, {}),
        ({'cmd': 'cmd/echo', 'q': {}, 'b': 2}, {}),
        ({'cmd': 'cmd/echo', 'b': 2}, {'cmd': 'cmd/echo', 'b': 2}),
        ({'cmd': 'echo', 'q': {'a': 1}}, {'a': 1}),
        ({'cmd': 'cmd/echo/more', 'q': {'a': 1}}, {'a': 1}),
    ],
)
def test_arguments(serve: Serve, open_peer: OpenPeer, message: Any, expected: Any) -> None:
    """`q` is the value of its field where the message has it, else the whole message."""
    assert open_peer(serve({'echo': echo})).ask(message)['r'] == expected


def test_arguments_of_the_whole_message(serve: Serve, open_peer: OpenPeer) -> None:
    """An entry whose `q` is `''` always takes the whole message."""
    wsa = serve()
    wsa.register('all', 'do', '', '', 'answer', {'echo': echo})
    message = {'do': 'all/echo', 'q': {'a': 1}, '': 5, 'tid': 7}
    assert open_peer(wsa).ask(message)['answer'] == message


@pytest.mark.parametrize('q', [1, 'a', [], [1], True])
def test_arguments_of_another_kind(serve: Serve, open_peer: OpenPeer, q: Any) -> None:
    """Arguments that are no object are 400."""
    assert errors(open_peer(serve({'echo': echo})), {'cmd': 'cmd/echo', 'q': q, 'tid': 1}) == [(400, 1)]


def test_custom_fields(serve: Serve, open_peer: OpenPeer) -> None:
    """An entry's own field names are used for commands, subscriptions, replies and pushes."""
    wsa = serve()
    wsa.register('lab', 'do', 'with', 'watch', 'got', {'echo': echo})
    wsa.triggerEvent('heat', 7)
    peer = open_peer(wsa)
    assert peer.ask({'do': 'lab/echo', 'with': {'a': 1}})['got'] == {'a': 1}
    answer, push = peer.ask({'watch': 'heat', 'uid': 'u'}), peer.receive()
    assert answer['got']['status'] == 'Event added'
    assert (push['watch'], push['uid'], push['got']) == ('heat', 'u', 7)
    assert 'r' not in push
    assert 'evt' not in push


def test_entry_without_commands_or_events(serve: Serve, open_peer: OpenPeer) -> None:
    """An entry with `cmd` and `evt` of `''` takes neither over WebSocket, but HTTP as ever."""
    wsa = serve()
    wsa.register('page', '', 'q', '', 'r', {'echo': echo})
    peer = open_peer(wsa)
    assert errors(peer, {'cmd': 'page/echo'}, {'': 'page/echo'}, {'': 'heat'}) == [
        (404, None),
        (400, None),
        (400, None),
    ]
    assert requests.get(f'{wsa.url}/page/echo?a=1', timeout=TIMEOUT).json() == {'a': '1'}


@pytest.mark.parametrize(
    ('result', 'expected'),
    [
        ({'a': 1}, {'a': 1, 'tid': 7}),
        ({}, {'tid': 7}),
        ({'tid': 1, 'a': 2}, {'a': 2, 'tid': 7}),
        (Bag({'a': {'b': 1}}), {'a': {'b': 1}, 'tid': 7}),
        ([1], {'r': [1], 'tid': 7}),
        (None, {'r': None, 'tid': 7}),
        ('text', {'r': 'text', 'tid': 7}),
    ],
)
def test_merged_reply(serve: Serve, open_peer: OpenPeer, result: Any, expected: Any) -> None:
    """Where `rep` is `''`, a dict is merged into the reply, in which the server's `tid` wins; else it is under `r`."""
    wsa = serve()
    wsa.register('all', 'do', 'q', '', '', {'give': lambda ctx, q: result})
    reply = open_peer(wsa).ask({'do': 'all/give', 'tid': 7})
    assert isinstance(reply.pop('t'), float)
    assert reply == expected


def test_merged_time(serve: Serve, open_peer: OpenPeer) -> None:
    """In a merged reply a handler's `t` stays."""
    wsa = serve()
    wsa.register('all', 'do', 'q', '', '', {'give': lambda ctx, q: {'t': 'mine'}})
    assert open_peer(wsa).ask({'do': 'all/give'}) == {'t': 'mine'}


@pytest.mark.parametrize('result', [{}, 0, [], None, '', False])
def test_one_reply(serve: Serve, open_peer: OpenPeer, result: Any) -> None:
    """Every call has exactly one reply, whatever it returns."""
    peer = open_peer(serve({'give': lambda ctx, q: result}))
    peer.send({'cmd': 'cmd/give'}, {'ping': 1})
    assert peer.receive()['r'] == result
    assert peer.receive() == {'pong': 1}


def test_bytes(serve: Serve, open_peer: OpenPeer) -> None:
    """Bytes are sent as a base64 string."""
    reply = open_peer(serve({'give': lambda ctx, q: b'\0\xff'})).ask({'cmd': 'cmd/give'})
    assert base64.b64decode(reply['r']) == b'\0\xff'


@pytest.mark.parametrize('make', [lambda: Path(__file__), lambda: web.Response(text='x')], ids=['Path', 'Response'])
@pytest.mark.parametrize('rep', ['r', ''])
def test_result_for_http_alone(serve: Serve, open_peer: OpenPeer, make: Callable[[], Any], rep: str) -> None:
    """What only HTTP can send is 406, and the connection goes on."""
    wsa = serve()
    wsa.register('lab', 'do', 'q', '', rep, {'give': lambda ctx, q: make()})
    assert errors(open_peer(wsa), {'do': 'lab/give', 'tid': 1}, {'do': 'lab/give', 'tid': 2}) == [(406, 1), (406, 2)]


def test_methods_do_not_matter(serve: Serve, open_peer: OpenPeer) -> None:
    """A handler that takes POST alone is called over WebSocket, and told so."""
    post = ws.methods('POST')(lambda ctx, q: [ctx.method, ctx.p, ctx.tid, ctx.ws is not None])
    reply = open_peer(serve({'post': post})).ask({'cmd': 'cmd/post/more', 'tid': 3})
    assert reply['r'] == ['WS', 'cmd/post/more', 3, True]


@pytest.mark.parametrize('path', ['/', '/cmd', '/any/where', '/nothing?a=b', '//x', '/webshoes.js'])
def test_any_path(serve: Serve, open_peer: OpenPeer, path: str) -> None:
    """A WebSocket may be opened on any path, and its commands mean the same."""
    wsa = serve({'echo': echo})
    assert open_peer(wsa, path).ask({'cmd': 'cmd/echo', 'q': {'a': 1}})['r'] == {'a': 1}


@pytest.mark.parametrize('ping', [0, 1.5, 'x'])
def test_ping(serve: Serve, open_peer: OpenPeer, ping: Any) -> None:
    """A ping is answered by its own number."""
    assert open_peer(serve()).ask({'ping': ping}) == {'pong': ping}


def test_array(serve: Serve, open_peer: OpenPeer) -> None:
    """The messages of an array are answered in frames of their own, errors among them."""
    peer = open_peer(serve({'echo': echo}))
    peer.send([{'cmd': 'cmd/echo', 'q': {'a': 1}}, {'nothing': 1}, 5, {'ping': 2}, {'evt': 'heat', 'uid': 'u'}])
    answers = [peer.receive() for _ in range(5)]
    assert [answers[0]['r'], answers[1]['code'], answers[2]['code'], answers[3]] == [{'a': 1}, 400, 400, {'pong': 2}]
    assert answers[4]['r']['status'] == 'Event added'


FORMS = {
    'subscription before call': ({'evt': 'heat', 'cmd': 'cmd/echo', 'uid': 'u'}, lambda a: a['r']['uid'] == 'u'),
    'call before cancel': ({'cmd': 'cmd/echo', 'q': {}, 'cancel': 'x', 'ping': 1}, lambda a: a['r'] == {}),
    'cancel before ping': ({'cancel': 'x', 'ping': 1}, lambda a: a == {'cancel': 'x', 'found': False}),
}


@pytest.mark.parametrize(('message', 'is_right'), FORMS.values(), ids=FORMS)
def test_first_form(serve: Serve, open_peer: OpenPeer, message: Any, is_right: Callable[[Any], bool]) -> None:
    """A message that fits several forms is the first of them, and answered once."""
    peer = open_peer(serve({'echo': echo}))
    assert is_right(peer.ask(message))
    assert peer.ask({'ping': 2}) == {'pong': 2}


BAD_TEXTS = {
    'not JSON': '{"cmd": ',
    'nothing': '',
    'NaN': '{"ping": NaN}',
    'Infinity': '{"ping": Infinity}',
    'number past range': '{"ping": 1e999}',
    'two values': '{} {}',
    'too deep': '[' * 100_000,
    'number': '1',
    'text': '"cmd/echo"',
    'null': 'null',
    'empty object': '{}',
    'empty array': '[]',
    'array in an array': '[[{"ping": 1}]]',
    'unknown form': '{"command": "cmd/echo"}',
    'empty command': '{"cmd": ""}',
    'command of another kind': '{"cmd": 5}',
    'command that is null': '{"cmd": null}',
    'long command': json.dumps({'cmd': 'c' * 1025}),
    'ping of another kind': '{"ping": {}}',
    'cancel of another kind': '{"cancel": null}',
    'event of another kind': '{"evt": 5}',
    'event without name': '{"evt": ""}',
    'long event': json.dumps({'evt': 'e' * 257}),
    'uid of another kind': '{"evt": "heat", "uid": 5}',
    'uid without name': '{"evt": "heat", "uid": ""}',
    'long uid': json.dumps({'evt': 'heat', 'uid': 'u' * 257}),
    'off of another kind': '{"evt": "heat", "off": 1}',
    'since of another kind': '{"evt": "heat", "since": 5}',
    'since without epoch': '{"evt": "heat", "since": {"ver": 5}}',
    'since before the start': '{"evt": "heat", "since": {"ver": -1, "epoch": "x"}}',
    'large array': json.dumps([{'ping': 1}] * 101),
}


@pytest.mark.parametrize('text', BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_bad_message(serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Bad input gets error 400, just one, is no news for the log, and the connection goes on."""
    peer = open_peer(serve({'echo': echo}))
    peer.connection.send(text)
    error = peer.receive()
    assert (error['code'], set(error)) == (400, {'error', 'code'})
    assert peer.ask({'ping': 1}) == {'pong': 1}
    assert caplog.records == []


def test_array_of_the_largest_size(serve: Serve, open_peer: OpenPeer) -> None:
    """An array of just as many messages as there may be is worked off."""
    peer = open_peer(serve({'echo': echo}))
    peer.send([{'ping': n} for n in range(100)])
    assert [peer.receive()['pong'] for _ in range(100)] == list(range(100))


def test_binary(serve: Serve, open_peer: OpenPeer) -> None:
    """A binary frame is answered with error 400, and the connection goes on."""
    peer = open_peer(serve({'echo': echo}))
    peer.connection.send(b'{"cmd": "cmd/echo"}')
    assert peer.receive()['code'] == 400
    assert peer.ask({'ping': 1}) == {'pong': 1}


def test_fragments(serve: Serve, open_peer: OpenPeer) -> None:
    """A message may come in fragments, cut inside a character."""
    peer = open_peer(serve({'echo': echo}))
    text = json.dumps({'cmd': 'cmd/echo', 'q': {'a': 'ü☃'}}, ensure_ascii=False).encode()
    peer.connection.send([text[n : n + 1] for n in range(len(text))], text=True)
    assert peer.receive()['r'] == {'a': 'ü☃'}


def test_unknown_command(serve: Serve, open_peer: OpenPeer) -> None:
    """A command that nobody takes is 404."""
    error = open_peer(serve()).ask({'cmd': 'cmd/nothing', 'tid': 'x'})
    assert error == {'error': 'Unknown command', 'code': 404, 'tid': 'x'}


# --- order ---


def test_order(serve: Serve, open_peer: OpenPeer) -> None:
    """Messages without `tid` are handled one after another in the order sent, however long each takes."""
    gate, order = Gate(), list(range(20))
    peer = open_peer(serve({'wait': gate, 'echo': echo, 'work': ws.threaded(echo_in_thread)}))
    commands = ['cmd/wait', 'cmd/work', 'cmd/echo', 'cmd/nothing']
    peer.send(*({'cmd': commands[n % 4], 'q': {'n': n}} for n in order))
    answers = []
    for n in order:
        if n % 4 == 0:
            gate.wait()
            gate.open()
        answer = peer.receive()
        answers.append(answer['r']['n'] if 'r' in answer else n)
    assert answers == order


def echo_in_thread(ctx: ws.Context, q: Bag) -> Any:
    return q


def test_order_of_one_after_another(serve: Serve, open_peer: OpenPeer) -> None:
    """A message without `tid` is not begun before the one before it is answered."""
    gate = Gate()
    peer = open_peer(serve({'wait': gate}))
    peer.send({'cmd': 'cmd/wait', 'q': {'n': 1}}, {'cmd': 'cmd/wait', 'q': {'n': 2}}, {'ping': 1})
    gate.wait()
    assert peer.receive() == {'pong': 1}
    assert gate.count == 1
    gate.open()
    assert peer.receive()['r'] == {'n': 1}
    gate.wait()
    gate.open()
    assert peer.receive()['r'] == {'n': 2}


def test_order_of_errors_and_subscriptions(serve: Serve, open_peer: OpenPeer) -> None:
    """What needs no handler waits for its turn too, where it has no `tid`."""
    gate = Gate()
    peer = open_peer(serve({'wait': gate}))
    peer.send({'cmd': 'cmd/wait', 'q': {}}, {'nothing': 1}, {'evt': 'heat', 'uid': 'u'}, [])
    gate.wait()
    gate.open()
    first, second, third, fourth = (peer.receive() for _ in range(4))
    assert (first['r'], second['code'], third['r']['uid'], fourth['code']) == ({}, 400, 'u', 400)


@pytest.mark.parametrize('slow', [{'tid': 'slow'}, {}], ids=['with tid', 'without'])
def test_overtaking(serve: Serve, open_peer: OpenPeer, slow: dict[str, Any]) -> None:
    """A call with a `tid` overtakes a slow one."""
    gate = Gate()
    peer = open_peer(serve({'wait': gate, 'echo': echo}))
    peer.send({'cmd': 'cmd/wait', 'q': {'n': 1}, **slow}, {'cmd': 'cmd/echo', 'q': {'n': 2}, 'tid': 'fast'})
    assert peer.receive()['tid'] == 'fast'
    gate.wait()
    gate.open()
    assert peer.receive()['r'] == {'n': 1}


def test_tid_in_flight(serve: Serve, open_peer: OpenPeer) -> None:
    """A `tid` that is in flight is 400; once it is answered it may be used again."""
    gate = Gate()
    peer = open_peer(serve({'wait': gate, 'echo': echo}))
    peer.send({'cmd': 'cmd/wait', 'q': {}, 'tid': 1})
    assert errors(peer, {'cmd': 'cmd/echo', 'tid': 1}) == [(400, 1)]
    gate.wait()
    gate.open()
    assert peer.receive()['r'] == {}
    assert peer.ask({'cmd': 'cmd/echo', 'q': {'a': 1}, 'tid': 1})['r'] == {'a': 1}


def test_tid_of_another_connection(serve: Serve, open_peer: OpenPeer) -> None:
    """The same `tid` on another connection is another call."""
    gate = Gate()
    wsa = serve({'wait': gate})
    peers = [open_peer(wsa), open_peer(wsa)]
    for n, peer in enumerate(peers):
        peer.send({'cmd': 'cmd/wait', 'q': {'n': n}, 'tid': 1})
    gate.wait(2)
    gate.open()
    assert [peer.receive()['r']['n'] for peer in peers] == [0, 1]


def test_connections_do_not_wait_for_each_other(serve: Serve, open_peer: OpenPeer) -> None:
    """A connection whose turn is taken holds up no other."""
    gate = Gate()
    wsa = serve({'wait': gate, 'echo': echo})
    slow, fast = open_peer(wsa), open_peer(wsa)
    slow.send({'cmd': 'cmd/wait', 'q': {}})
    gate.wait()
    assert fast.ask({'cmd': 'cmd/echo', 'q': {}})['r'] == {}
    gate.open()
    assert slow.receive()['r'] == {}


def test_in_flight(serve: Serve, open_peer: OpenPeer) -> None:
    """Of many calls 64 run at once; the others wait, and run when there is a place."""
    gate = Gate()
    peer = open_peer(serve({'wait': gate}))
    peer.send(*({'cmd': 'cmd/wait', 'q': {}, 'tid': n} for n in range(66)), {'ping': 1})
    assert peer.receive() == {'pong': 1}
    gate.wait(64)
    assert peer.ask({'ping': 2}) == {'pong': 2}
    assert gate.count == 64
    gate.open()
    answered = [peer.receive()['tid'] for _ in range(64)]
    gate.wait(2)
    gate.open()
    assert sorted(answered + [peer.receive()['tid'] for _ in range(2)]) == list(range(66))


@pytest.mark.parametrize('tids', [True, False])
def test_queue(serve: Serve, open_peer: OpenPeer, tids: bool) -> None:
    """What would wait past the limit is 429 at once, and what was accepted is answered."""
    gate = Gate()
    limits = ws.Limits(max_in_flight=2 if tids else 64, max_queued=3)
    peer = open_peer(serve({'wait': gate}, limits=limits))
    accepted = 5 if tids else 4
    messages = [{'cmd': 'cmd/wait', 'q': {'n': n}} | ({'tid': n} if tids else {}) for n in range(accepted + 2)]
    peer.send(*messages)
    assert [peer.receive()['code'] for _ in range(2)] == [429, 429]
    answered: list[int] = []
    while len(answered) < accepted:
        gate.wait()
        gate.open()
        answered.append(peer.receive()['r']['n'])
    assert sorted(answered) == list(range(accepted))


# --- cancel ---


def test_cancel(serve: Serve, open_peer: OpenPeer) -> None:
    """A cancelled call is answered with 499, once, and its handler is interrupted."""
    gate = Gate()
    peer = open_peer(serve({'wait': gate}))
    peer.send({'cmd': 'cmd/wait', 'q': {}, 'tid': 'x'})
    gate.wait()
    assert peer.ask({'cancel': 'x'}) == {'error': 'Cancelled', 'code': 499, 'tid': 'x'}
    assert peer.ask({'cancel': 'x'}) == {'cancel': 'x', 'found': False}
    assert gate.ended.get(timeout=TIMEOUT) == 'cancelled'


def test_cancel_in_the_same_frame(serve: Serve, open_peer: OpenPeer) -> None:
    """A call that is cancelled before it has begun is answered once."""
    peer = open_peer(serve({'wait': Gate()}))
    peer.send([{'cmd': 'cmd/wait', 'q': {}, 'tid': 'x'}, {'cancel': 'x'}, {'ping': 1}])
    assert [peer.receive().get('code'), peer.receive()] == [499, {'pong': 1}]


def test_cancel_of_one_that_waits(serve: Serve, open_peer: OpenPeer) -> None:
    """A call that waits for a place can be cancelled, and is never run."""
    gate = Gate()
    peer = open_peer(serve({'wait': gate}, limits=ws.Limits(max_in_flight=1)))
    peer.send(*({'cmd': 'cmd/wait', 'q': {}, 'tid': tid} for tid in 'ab'), {'cancel': 'b'})
    assert peer.receive() == {'error': 'Cancelled', 'code': 499, 'tid': 'b'}
    gate.wait()
    gate.open()
    assert peer.receive()['tid'] == 'a'
    assert peer.ask({'ping': 1}) == {'pong': 1}
    assert gate.count == 1


def test_cancel_of_a_thread(serve: Serve, open_peer: OpenPeer, block: Block) -> None:
    """A cancelled call in a thread is answered with 499; its result is thrown away."""
    peer = open_peer(serve({'block': block.threaded}))
    peer.send({'cmd': 'cmd/block', 'tid': 1})
    assert block.entered.wait(TIMEOUT)
    assert peer.ask({'cancel': 1})['code'] == 499
    block.let_go.set()
    assert peer.ask({'ping': 1}) == {'pong': 1}


def test_cancel_that_is_ignored(serve: Serve, open_peer: OpenPeer) -> None:
    """A handler that will not be interrupted does so unheard, and its `tid` is free."""
    gate = Gate()

    async def stubborn(ctx: ws.Context, q: Bag) -> str:
        try:
            await gate(ctx, q)
        except asyncio.CancelledError:
            return 'still here'
        return 'done'

    peer = open_peer(serve({'stubborn': stubborn, 'echo': echo}))
    peer.send({'cmd': 'cmd/stubborn', 'tid': 1})
    gate.wait()
    assert peer.ask({'cancel': 1})['code'] == 499
    assert peer.ask({'cmd': 'cmd/echo', 'q': {}, 'tid': 1})['r'] == {}


# --- the handshake ---

BAD_HANDSHAKES: dict[str, tuple[str, str | None]] = {
    'no version': ('Sec-WebSocket-Version', None),
    'unknown version': ('Sec-WebSocket-Version', '99'),
    'no key': ('Sec-WebSocket-Key', None),
    'empty key': ('Sec-WebSocket-Key', ''),
    'short key': ('Sec-WebSocket-Key', 'AAAA'),
    'no base64': ('Sec-WebSocket-Key', '!'),
    'no ASCII': ('Sec-WebSocket-Key', 'ü'),
    'no connection': ('Connection', 'keep-alive'),
}


@pytest.mark.parametrize(('name', 'value'), BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
def test_bad_handshake(serve: Serve, caplog: pytest.LogCaptureFixture, name: str, value: str | None) -> None:
    """A handshake that is none is 400 in the shape of every error, and no news for the log."""
    headers: Any = HANDSHAKE | {name: value}
    response = requests.get(serve().url, headers=headers, timeout=TIMEOUT)
    assert (response.status_code, response.headers['Content-Type']) == (400, 'application/json')
    assert response.json()['error'].startswith('Not a WebSocket handshake')
    assert caplog.records == []


def test_good_handshake(serve: Serve) -> None:
    """A handshake in the letter of RFC 6455 section 1.3 is accepted."""
    with dial(serve().port) as connection:
        connection.sendall(upgrade())
        head = read_head(connection)
    assert head.startswith('HTTP/1.1 101 ')
    assert '\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=' in head


def test_subprotocol(serve: Serve, open_peer: OpenPeer) -> None:
    """The subprotocol `webshoes` is agreed to."""
    assert open_peer(serve(), subprotocols=['other', 'webshoes']).connection.subprotocol == 'webshoes'


@pytest.mark.parametrize('compress', [True, False])
def test_compression(serve: Serve, open_peer: OpenPeer, compress: bool) -> None:
    """Compression is agreed to where it was asked for, and messages mean the same."""
    peer = open_peer(serve({'echo': echo}, compress=compress))
    text = 'compressible ' * 5000
    assert peer.ask({'cmd': 'cmd/echo', 'q': {'a': text}})['r'] == {'a': text}
    assert bool(peer.connection.protocol.extensions) is compress


# --- the end of connections ---


def test_large_message(serve: Serve, open_peer: OpenPeer) -> None:
    """A message over the limit closes with 1009; another connection is served on."""
    wsa = serve({'echo': echo}, limits=ws.Limits(max_ws_msg_size=1000))
    peer, other = open_peer(wsa), open_peer(wsa)
    peer.connection.send('[' + ' ' * 1000)
    assert closed_with(peer)[0] == 1009
    assert other.ask({'ping': 1}) == {'pong': 1}


@pytest.mark.parametrize('size', [1000, 1001])
def test_largest_message(serve: Serve, open_peer: OpenPeer, size: int) -> None:
    """`opts` may set the limit, and a message of just that size is taken."""
    peer = open_peer(serve(opts={'max_ws_msg_size': 1000}))
    peer.connection.send('{"ping": 1}'.ljust(size))
    if size == 1000:
        assert peer.receive() == {'pong': 1}
    else:
        assert closed_with(peer)[0] == 1009


def test_large_message_in_fragments(serve: Serve, open_peer: OpenPeer) -> None:
    """The limit holds for all fragments of a message together."""
    peer = open_peer(serve(limits=ws.Limits(max_ws_msg_size=1000)))
    with suppress(ConnectionClosed):  # it may be closed before the message's end was sent
        peer.connection.send([' ' * 600] * 2)
    assert closed_with(peer)[0] == 1009


def test_large_message_when_it_is_unpacked(serve: Serve, open_peer: OpenPeer) -> None:
    """A small message that unpacks to one over the limit closes with 1009."""
    peer = open_peer(serve(limits=ws.Limits(max_ws_msg_size=1000), compress=True))
    peer.connection.send('[' + ' ' * 100_000)
    assert closed_with(peer)[0] == 1009


@pytest.mark.parametrize('data', [b'\xff', b'{"a": "\xc3"}', b'"\xed\xa0\x80"', b'{"cmd": 1} \xff'])
def test_invalid_utf8(serve: Serve, open_peer: OpenPeer, data: bytes) -> None:
    """Text that is not UTF-8 closes with 1007 (RFC 6455 section 8.1)."""
    peer = open_peer(serve())
    peer.connection.send(data, text=True)
    assert closed_with(peer)[0] == 1007


@pytest.mark.parametrize('frame', [b'\x83\x80\0\0\0\0', b'\xc1\x80\0\0\0\0', b'\x89\xfe\x00\x7e\0\0\0\0' + bytes(126)])
def test_broken_frame(serve: Serve, caplog: pytest.LogCaptureFixture, frame: bytes) -> None:
    """A frame that breaks RFC 6455 closes with 1002, and is no news for the log."""
    wsa = serve()
    with connect(wsa.url.replace('http', 'ws', 1)) as connection:
        connection.socket.sendall(frame)
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=TIMEOUT)
        assert connection.close_code == 1002
    assert caplog.records == []


def test_ping_frame(serve: Serve, open_peer: OpenPeer) -> None:
    """A ping frame is answered by a pong frame, while a call without `tid` runs too."""
    gate = Gate()
    peer = open_peer(serve({'wait': gate}))
    peer.send({'cmd': 'cmd/wait', 'q': {}})
    gate.wait()
    assert peer.connection.ping().wait(TIMEOUT)
    gate.open()
    assert peer.receive()['r'] == {}


def test_close_by_a_handler(serve: Serve, open_peer: OpenPeer) -> None:
    """`ctx.conn.close` closes with its code and reason, after the reply."""
    peer = open_peer(serve({'bye': lambda ctx, q: ctx.conn.close(4000, 'Enough')}))
    assert peer.ask({'cmd': 'cmd/bye'})['r'] is None
    assert closed_with(peer) == (4000, 'Enough')


def test_close_from_a_thread(serve: Serve, open_peer: OpenPeer) -> None:
    """`ctx.conn.close` may be called from any thread, for any connection."""
    connections: list[ws.Connection] = []
    peer = open_peer(serve({'hello': lambda ctx, q: connections.append(ctx.conn)}))
    peer.ask({'cmd': 'cmd/hello'})
    connections[0].close(1000, 'bye')
    assert closed_with(peer) == (1000, 'bye')


def test_session(serve: Serve, open_peer: OpenPeer) -> None:
    """`ctx.session` lasts as long as the WebSocket, and is its own."""

    def count(ctx: ws.Context, q: Bag) -> int:
        ctx.session.n = ctx.session.get('n', 0) + 1
        return int(ctx.session.n)

    wsa = serve({'count': count})
    peer = open_peer(wsa)
    assert [peer.ask({'cmd': 'cmd/count'})['r'] for _ in range(3)] == [1, 2, 3]
    assert open_peer(wsa).ask({'cmd': 'cmd/count'})['r'] == 1


def test_connection_ids(serve: Serve, open_peer: OpenPeer) -> None:
    """`ctx.conn.id` is the same for the calls of one connection, and another for another."""
    wsa = serve({'id': lambda ctx, q: ctx.conn.id})
    first, second = open_peer(wsa), open_peer(wsa)
    ids = [peer.ask({'cmd': 'cmd/id'})['r'] for peer in (first, first, second)]
    assert (ids[0] == ids[1], ids[0] == ids[2]) == (True, False)


@pytest.mark.parametrize('how', ['close', 'reset', 'silence'])
@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_client_that_vanishes(
    serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, how: str, loop: str
) -> None:
    """A client that vanishes in the middle of its calls leaves the server serving, and is no news for the log."""
    gate = Gate()
    wsa = serve({'wait': gate, 'echo': echo}, loop=loop)
    gone, other = open_peer(wsa), open_peer(wsa)
    gone.subscribe('heat')
    gone.send({'cmd': 'cmd/wait', 'q': {}, 'tid': 1}, {'cmd': 'cmd/wait', 'q': {}}, {'cmd': 'cmd/wait', 'q': {}})
    gate.wait(2)
    if how == 'close':
        gone.connection.close()
    elif how == 'reset':
        gone.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        gone.connection.socket.close()
    wsa.triggerEvent('heat', 1)
    gate.open()
    assert other.ask({'cmd': 'cmd/echo', 'q': {'a': 1}})['r'] == {'a': 1}
    assert caplog.records == []


@pytest.mark.parametrize('calls', [1, 3], ids=['in a thread', 'before a thread'])
def test_client_that_vanishes_while_threads_work(
    serve: Serve, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, block: Block, calls: int
) -> None:
    """A client that leaves its calls to threads is no news for the log, whether a thread has begun them or not."""
    wsa = serve({'block': block.threaded}, limits=ws.Limits(max_threads=1))
    peer = open_peer(wsa)
    peer.send(*({'cmd': 'cmd/block', 'tid': tid} for tid in range(calls)))
    assert block.entered.wait(TIMEOUT)
    peer.connection.close()
    wsa.stop()
    block.let_go.set()
    assert caplog.records == []


def test_handler_of_a_client_that_is_gone(serve: Serve, open_peer: OpenPeer) -> None:
    """A call that runs goes on to its end when its client is gone; one that waits for its turn is never run."""
    gate, ended = Gate(), threading.Event()

    async def watched(ctx: ws.Context, q: Bag) -> None:
        await gate(ctx, q)
        ended.set()

    peer = open_peer(serve({'watched': watched}))
    peer.send({'cmd': 'cmd/watched', 'q': {}}, {'cmd': 'cmd/watched', 'q': {}})
    gate.wait()
    peer.connection.close()
    gate.open()
    assert ended.wait(TIMEOUT)
    assert (gate.count, gate.ended.get(timeout=TIMEOUT)) == (1, 'done')


def test_many_connections(serve: Serve, open_peer: OpenPeer) -> None:
    """Many connections call at once, and each has its own answers."""
    wsa = serve({'echo': echo, 'work': ws.threaded(echo_in_thread)})

    def talk(number: int) -> bool:
        peer = open_peer(wsa)
        answers = [peer.ask({'cmd': f'cmd/{name}', 'q': {'n': number}})['r'] for name in ('echo', 'work') * 5]
        return answers == [{'n': number}] * 10

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(talk, range(32)))


def test_large_reply(serve: Serve, open_peer: OpenPeer) -> None:
    """A reply of many megabytes arrives whole, and what follows it in order."""
    peer = open_peer(serve({'give': lambda ctx, q: 'x' * 5_000_000}))
    peer.send({'cmd': 'cmd/give'}, {'cmd': 'cmd/give'}, {'ping': 1})
    received = [peer.receive() for _ in range(3)]
    assert [len(reply['r']) for reply in received if 'r' in reply] == [5_000_000] * 2
    assert {'pong': 1} in received


def test_random_bytes(serve: Serve, open_peer: OpenPeer) -> None:
    """Whatever bytes come, the server goes on serving others."""
    wsa = serve({'echo': echo})
    for seed in range(20):
        with connect(wsa.url.replace('http', 'ws', 1)) as connection:
            connection.socket.sendall(random.Random(seed).randbytes(500))
    assert open_peer(wsa).ask({'ping': 1}) == {'pong': 1}


# --- backpressure ---

FLOOD = 64 * 1024 * 1024  # bytes, many times what the buffers of both ends hold


@pytest.mark.parametrize('batch', [1, 20], ids=['calls', 'arrays'])
@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_client_that_sends_and_does_not_read(serve: Serve, open_peer: OpenPeer, batch: int, loop: str) -> None:
    """Who takes no answers is read no further, which holds up nobody; when he reads, each call is answered in order."""
    wsa = serve({'echo': echo}, loop=loop)
    peer = open_peer(wsa)
    with open_stalled(wsa) as stalled, ThreadPoolExecutor() as threads:
        calls, rest = flood(stalled, batch)
        assert peer.ask({'cmd': 'cmd/echo', 'q': {'a': 1}})['r'] == {'a': 1}
        sending = threads.submit(stalled.sendall, rest)
        with stalled.makefile('rb') as stream:
            assert [read_message(stream)['r']['n'] for _ in range(calls)] == list(range(calls))
        sending.result(TIMEOUT)


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_small_calls_with_large_answers(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """Of an array whose answers are not taken only so many calls are run; the others are when they are taken."""
    ran: list[int] = []
    entered = threading.Event()

    def give(ctx: ws.Context, q: Bag) -> Any:
        ran.append(q.n)
        entered.set()
        return {'n': q.n, 'pad': 'x' * 500_000}

    wsa = serve({'give': give}, loop=loop)
    with open_stalled(wsa) as stalled, stalled.makefile('rb') as stream:
        stalled.sendall(frame([{'cmd': 'cmd/give', 'q': {'n': n}} for n in range(40)]))
        assert entered.wait(TIMEOUT)
        assert open_peer(wsa).ask({'ping': 1}) == {'pong': 1}
        assert len(ran) < 30
        assert [read_message(stream)['r']['n'] for _ in range(40)] == list(range(40))


def flood(connection: socket.socket, batch: int) -> tuple[int, bytes]:
    """Send large calls, so many a frame, until they are not taken; how many, and what of the last was not taken."""
    connection.setblocking(False)
    calls = sent = 0
    while True:
        messages = [{'cmd': 'cmd/echo', 'q': {'n': calls + n, 'pad': 'x' * 30_000}} for n in range(batch)]
        calls, left = calls + batch, frame(messages if batch > 1 else messages[0])
        while left:
            if not select.select([], [connection], [], 0.5)[1]:
                connection.settimeout(TIMEOUT)
                return calls, left
            count = connection.send(left)
            left, sent = left[count:], sent + count
            assert sent < FLOOD


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_a_coroutine_that_waits_for_nothing(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """From Python 3.12 on it is answered in its turn; before, others are answered while it has not begun."""

    async def slow(ctx: ws.Context, q: Any) -> str:
        return 'slow'

    peer = open_peer(serve({'slow': slow, 'quick': lambda ctx, q: 'quick'}, loop=loop))
    peer.send([{'cmd': 'cmd/slow', 'tid': 1}, {'cmd': 'cmd/quick', 'tid': 2}])
    answers = [peer.receive()['r'], peer.receive()['r']]
    assert answers == (['slow', 'quick'] if sys.version_info >= (3, 12) else ['quick', 'slow'])
