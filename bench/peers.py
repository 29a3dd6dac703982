"""Who is measured, and how each is talked to."""

from __future__ import annotations

import json
from dataclasses import dataclass


def compact(value: object) -> str:
    """JSON without blanks."""
    return json.dumps(value, separators=(',', ':'))


class Plain:
    """The messages of webshoes: all servers but Socket.IO's are made to speak them."""

    hello: tuple[str, ...] = ()

    def call(self, tid: int, name: str, q: object) -> str:
        """A call."""
        return compact({'cmd': f'cmd/{name}', 'tid': tid, 'q': q})

    def subscribe(self, event: str) -> str:
        """What is expected, and the subscription; the load puts its number in."""
        return '"uid"\t' + compact({'evt': event, 'uid': '@@@@@@'})

    def fire(self, event: str, count: int, size: int) -> str:
        """Have the server trigger so many."""
        return compact({'cmd': 'cmd/fire', 'q': {'event': event, 'n': count, 'size': size}})


class SocketIO(Plain):
    """The same in Socket.IO's packets: an event with an acknowledgement is a call, a room is an event."""

    hello = ('40{\t40',)

    def call(self, tid: int, name: str, q: object) -> str:
        """A call."""
        return f'42{tid}' + compact([name, q])

    def subscribe(self, event: str) -> str:
        """What is expected, and the subscription."""
        return '430[\t420' + compact(['subscribe', event])

    def fire(self, event: str, count: int, size: int) -> str:
        """Have the server emit so many."""
        return '421' + compact(['fire', {'event': event, 'n': count, 'size': size}])


PLAIN = Plain()


@dataclass(frozen=True)
class Peer:
    """A server of the benchmark.

    Args:
        name: as the tables have it; `servers/on_<name>.py` is its program.
        requires: what pip installs for it; for this checkout, what it asks for itself.
        has_http: whether it is measured there.
        has_calls: whether it is measured over WebSocket, and not in fan-outs alone.
        has_loops: whether it can be run on plain asyncio too.
        has_uid: whether a push tells each subscriber's own uid.
        path: of its WebSocket.
        post: what the body of its POST is.
    """

    name: str
    requires: tuple[str, ...] = ()
    has_http: bool = True
    has_calls: bool = True
    has_loops: bool = False
    has_uid: bool = True
    path: str = '/ws'
    post: tuple[str, str] = ('application/json', '{"a":1,"b":2}')
    dialect: Plain = PLAIN

    @property
    def script(self) -> str:
        """The file of its program."""
        return f'on_{self.name}.py'

    @property
    def environment(self) -> str:
        """The virtual environment it runs in."""
        return 'webshoes1' if self.name == OLD else 'peers'


BASE, OURS, OLD = 'aiohttp', 'webshoes', 'webshoes1'
UVICORN = ('uvicorn', 'httptools', 'websockets', 'uvloop')
PEERS = (
    Peer(BASE, ('aiohttp', 'uvloop', 'msgspec'), has_loops=True),
    Peer(OURS, has_loops=True),
    Peer(
        OLD,
        ('webshoes==1.0.0', 'propertybag==0.1.9'),
        post=('application/x-www-form-urlencoded', 'a=1&b=2'),
    ),
    Peer(
        'socketio',
        ('python-socketio', 'aiohttp', 'uvloop', 'msgspec'),
        has_http=False,
        has_uid=False,
        path='/socket.io/?EIO=4&transport=websocket',
        dialect=SocketIO(),
    ),
    Peer('starlette', ('starlette', *UVICORN, 'msgspec')),
    Peer('fastapi', ('fastapi', *UVICORN, 'msgspec')),
    Peer('litestar', ('litestar', *UVICORN, 'msgspec')),
    Peer('blacksheep', ('blacksheep', *UVICORN, 'msgspec')),
    Peer('sanic', ('sanic', 'uvloop', 'msgspec')),
    Peer('tornado', ('tornado', 'uvloop', 'msgspec')),
    Peer('websockets', ('websockets', 'uvloop', 'msgspec'), has_http=False, has_loops=True, has_uid=False),
    Peer('picows', ('picows', 'uvloop', 'msgspec'), has_http=False, has_loops=True),
    Peer('bound', ('uvloop', 'msgspec'), has_http=False, has_calls=False),
)
