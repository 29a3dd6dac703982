"""The notice before a big message: who gets it, before what, and that nothing comes between the two."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

import webshoes as ws

from .conftest import TIMEOUT, OpenPeer, Peer, Serve

BIG = 64 * 1024  # bytes, past which a message is announced
TEXT = 'x' * BIG
AGREED = {'subprotocols': ['webshoes']}
LOOPS = ['uvloop', 'asyncio']


class Handlers:
    """Functions whose results are big, in each way in which a result comes to be."""

    def at_once(self, ctx: Any, q: Any) -> str:
        return TEXT

    async def later(self, ctx: Any, q: Any) -> str:
        await asyncio.sleep(0)
        return TEXT

    @ws.threaded
    def threaded(self, ctx: Any, q: Any) -> str:
        return TEXT

    def fail(self, ctx: Any, q: Any) -> str:
        raise ws.Error(400, TEXT)

    def push(self, ctx: Any, q: Any) -> None:
        ctx.conn.push('own', TEXT)

    def trigger(self, ctx: Any, q: Any) -> None:
        ctx.wsa.triggerEvent('heat', TEXT)

    def sized(self, ctx: Any, q: Any) -> str:
        return 'x' * int(q.size)


def functions() -> dict[str, Any]:
    handlers = Handlers()
    return {name: getattr(handlers, name) for name in vars(Handlers) if name[0] != '_'}


def receive_until(peer: Peer, is_last: Any) -> list[bytes]:
    """The texts that come, up to one of which `is_last(message)` is true."""
    found: list[bytes] = []
    while not found or not is_last(json.loads(found[-1])):
        text = peer.connection.recv(timeout=TIMEOUT)
        assert isinstance(text, str)
        found.append(text.encode())
    return found


def unannounced(texts: list[bytes]) -> list[bytes]:
    """The texts without the notices, each of which has to stand before a message of the size that it tells."""
    found: list[bytes] = []
    announced = None
    for text in texts:
        message = json.loads(text)
        assert announced in (None, len(text))
        if set(message) == {'coming'}:
            assert announced is None
            announced = message['coming']
            continue
        assert (announced is not None) is (len(text) > BIG)
        announced = None
        found.append(text)
    assert announced is None
    return found


WAYS = {
    'reply at once': {'cmd': 'cmd/at_once', 'tid': 1},
    'reply without tid': {'cmd': 'cmd/at_once'},
    'reply later': {'cmd': 'cmd/later', 'tid': 1},
    'reply of a thread': {'cmd': 'cmd/threaded', 'tid': 1},
    'merged reply': {'do': 'two/at_once', 'tid': 1},
    'error': {'cmd': 'cmd/fail', 'tid': 1},
    'push to this connection': {'cmd': 'cmd/push', 'tid': 1},
    'event': [{'evt': 'heat', 'uid': 'u'}, {'cmd': 'cmd/trigger', 'tid': 1}],
    'events of two subscriptions': [{'evt': 'heat'}, {'evt': 'heat'}, {'cmd': 'cmd/trigger', 'tid': 1}],
    'value that was there': {'evt': 'old', 'tid': 1},
    'array': [{'cmd': 'cmd/at_once', 'tid': 1}, {'ping': 1}, {'cmd': 'cmd/at_once', 'tid': 2}],
}


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('compress', [False, True])
@pytest.mark.parametrize('way', WAYS.values(), ids=WAYS)
def test_a_big_message_is_announced(serve: Serve, open_peer: OpenPeer, loop: str, compress: bool, way: Any) -> None:
    """Right before each message of more than 64 KiB a client of the subprotocol gets the number of its bytes."""
    wsa = serve(functions(), loop=loop, compress=compress)
    wsa.register('two', 'do', 'q', 'watch', '', functions())
    wsa.triggerEvent('old', TEXT)
    peer = open_peer(wsa, **AGREED)
    peer.send(way)
    count = 2 if way in (WAYS['events of two subscriptions'], WAYS['array']) else 1
    big = itertools.count(1)
    texts = receive_until(peer, lambda message: len(json.dumps(message)) > BIG and next(big) == count)
    assert len(texts) - len(unannounced(texts)) == count


@pytest.mark.parametrize('settings', [{}, {'subprotocols': ['other']}])
@pytest.mark.parametrize('compress', [False, True])
def test_no_other_client_gets_a_notice(
    serve: Serve, open_peer: OpenPeer, compress: bool, settings: dict[str, Any]
) -> None:
    """A client that has not agreed to the subprotocol gets the messages alone."""
    wsa = serve(functions(), compress=compress)
    peer = open_peer(wsa, **settings)
    peer.send(*({'cmd': f'cmd/{name}', 'tid': name} for name in ('at_once', 'later', 'threaded', 'fail', 'push')))
    peer.send({'evt': 'heat', 'tid': 's'}, {'cmd': 'cmd/trigger', 'tid': 't'})
    texts = receive_until(peer, lambda message: message.get('evt') == 'heat')
    assert not any(b'coming' in text for text in texts)
    assert sum(len(text) > BIG for text in texts) == 6


@pytest.mark.parametrize(('size', 'is_announced'), [(BIG, False), (BIG + 1, True)])
@pytest.mark.parametrize('tid', [1, None])
def test_where_big_begins(serve: Serve, open_peer: OpenPeer, size: int, is_announced: bool, tid: int | None) -> None:
    """A message of 64 KiB is not announced, one of a byte more is."""
    peer = open_peer(serve(functions()), **AGREED)
    call = {'cmd': 'cmd/sized', 'q': {'size': 0}} | ({} if tid is None else {'tid': tid})
    for _ in range(20):  # the time in a reply has more digits, or fewer
        peer.send(call)
        rest = len(receive_until(peer, lambda message: 'r' in message)[-1])
        peer.send({**call, 'q': {'size': size - rest}})
        texts = receive_until(peer, lambda message: 'r' in message)
        if len(texts[-1]) == size:
            break
    assert len(texts[-1]) == size
    assert texts[:-1] == ([b'{"coming":%d}' % size] if is_announced else [])


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('size', [100, BIG // 2, BIG - 60, BIG, 3 * BIG])
def test_fan_out_to_clients_of_both_kinds(serve: Serve, open_peer: OpenPeer, loop: str, size: int) -> None:
    """Of an event that goes to many, those of the subprotocol get the notice of each big push, and the others none."""
    wsa = serve(loop=loop, limits=ws.Limits(history_bytes=100 * BIG, stall_timeout=None))
    peers = [open_peer(wsa, **settings) for settings in (AGREED, {}) * 3]
    for peer in peers:
        peer.subscribe('heat', uid='u')
    for number in range(20):
        wsa.triggerEvent('heat', 'x' * (size if number % 2 else 1))
    for number, peer in enumerate(peers):
        texts = receive_until(peer, lambda message: message.get('ver') == 20)
        if number % 2:
            assert not any(b'coming' in text for text in texts)
        else:
            texts = unannounced(texts)
        assert [json.loads(text)['ver'] for text in texts] == [*range(1, 21)]


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('compress', [False, True])
def test_nothing_comes_between(serve: Serve, open_peer: OpenPeer, loop: str, compress: bool) -> None:
    """Neither another reply nor a message that a handler sends by itself comes between a notice and its message."""

    async def chatter(ctx: Any, q: Any) -> str:
        for number in range(100):
            await ctx.ws.send_str(json.dumps({'own': number, 'text': 'y' * (5_000 if number % 2 else 5)}))
            await asyncio.sleep(0)
        return 'done'

    wsa = serve({**functions(), 'chatter': chatter}, loop=loop, compress=compress)
    peer = open_peer(wsa, **AGREED)
    peer.send(*({'cmd': 'cmd/chatter', 'tid': f'c{number}'} for number in range(5)))
    peer.send(*({'cmd': 'cmd/later', 'tid': number} for number in range(20)))
    left = {f'c{number}' for number in range(5)} | set(range(20))

    def is_last(message: Any) -> bool:
        left.discard(message.get('tid'))
        return not left

    texts = unannounced(receive_until(peer, is_last))
    assert sum(b'"own"' in text for text in texts) == 500
    assert sum(len(text) > BIG for text in texts) == 20
