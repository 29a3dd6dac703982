"""The work that every server of the benchmark does, apart from its framework: what is called, and who gets which event.

The frameworks differ in how bytes come in and go out, which each server writes in its own idiom.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

encode = msgspec.json.Encoder().encode


class Message(msgspec.Struct):
    """What comes over a WebSocket: a call, or a subscription."""

    cmd: str = ''
    q: dict[str, Any] = {}
    tid: str | int | None = None
    evt: str = ''
    uid: str = ''


decode = msgspec.json.Decoder(Message).decode
decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def add(q: Any) -> dict[str, int]:
    """The function that is called; over HTTP its arguments may be texts."""
    return {'result': int(q['a']) + int(q['b'])}


def echo(q: Any) -> Any:
    """A reply as large as the call."""
    return q


def news(q: Any) -> Iterator[dict[str, str]]:
    """The values of one fan-out; the load knows by the last that a subscriber has got them all."""
    for left in range(int(q['n']) - 1, -1, -1):
        yield {'mark': 'more' if left else 'last', 'text': 'x' * int(q['size'])}


class Hub:
    """Looks functions up, and keeps who subscribed to what. A subscriber is whatever the framework sends by."""

    def __init__(self, functions: int = 0, events: int = 0) -> None:
        self.functions: dict[str, Callable[[Any], Any]] = {
            'cmd/add': add,
            'cmd/echo': echo,
            'cmd/fire': lambda q: None,  # the server sends the pushes in its own way
        }
        self.functions.update({f'cmd/f{number}': add for number in range(functions)})
        self.subscribers: dict[str, dict[tuple[Any, str], bytes]] = {}
        self.subscriptions: dict[Any, list[tuple[str, str]]] = {}
        self.versions = {f'e{number}': 1 for number in range(events)}

    def answer(self, message: Message, subscriber: Any) -> bytes:
        """The reply to a message."""
        result: Any
        if message.evt:
            self.subscribers.setdefault(message.evt, {})[subscriber, message.uid] = encode(message.uid)
            self.subscriptions.setdefault(subscriber, []).append((message.evt, message.uid))
            result = {'uid': message.uid, 'status': 'Event added', 'ver': self.versions.get(message.evt, 0)}
        else:
            function = self.functions.get(message.cmd)
            if function is None:
                return encode({'error': 'Unknown command', 'code': 404, 'tid': message.tid})
            result = function(message.q)
        if message.tid is None:
            return encode({'r': result, 't': time.time()})
        return encode({'r': result, 'tid': message.tid, 't': time.time()})

    def pushes(self, q: dict[str, Any]) -> Iterator[tuple[Any, bytes]]:
        """What is to be sent to whom: each event is encoded once, and the uid of each subscriber put into it."""
        head = b'{"evt":%b,"uid":' % encode(q['event'])
        for tail in self._tails(q):
            for (subscriber, _), uid in self.subscribers.get(q['event'], {}).items():
                yield subscriber, head + uid + tail

    def broadcasts(self, q: dict[str, Any]) -> Iterator[tuple[list[Any], bytes]]:
        """What is to be sent to all of an event at once, without a uid."""
        head = b'{"evt":%b' % encode(q['event'])
        for tail in self._tails(q):
            yield [subscriber for subscriber, _ in self.subscribers.get(q['event'], {})], head + tail

    def _tails(self, q: dict[str, Any]) -> Iterator[bytes]:
        for value in news(q):
            self.versions[q['event']] = ver = self.versions.get(q['event'], 0) + 1
            yield b',"ver":%d,"t":%b,"r":%b}' % (ver, encode(time.time()), encode(value))

    def leave(self, subscriber: Any) -> None:
        """A connection is gone."""
        for event, uid in self.subscriptions.pop(subscriber, ()):
            self.subscribers[event].pop((subscriber, uid), None)


def arguments() -> argparse.Namespace:
    """What every server is started with."""
    parser = argparse.ArgumentParser()
    parser.add_argument('port', type=int)
    parser.add_argument('--loop', choices=('uvloop', 'asyncio'), default='uvloop')
    parser.add_argument('--functions', type=int, default=0, help='registered beside those that are called')
    parser.add_argument('--events', type=int, default=0, help='triggered before it listens')
    return parser.parse_args()


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop."""
    if name == 'asyncio':
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
