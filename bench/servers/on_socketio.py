"""python-socketio on aiohttp and uvloop, with msgspec for its JSON: events, acknowledgements and rooms."""

from __future__ import annotations

from typing import Any

import msgspec
import socketio
from aiohttp import web
from shared import add, arguments, echo, loop_factory, news


class Json:
    """The JSON that python-socketio is told to use."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        """Encode."""
        return msgspec.json.encode(value).decode()

    @staticmethod
    def loads(text: str, **_: Any) -> Any:
        """Decode."""
        return msgspec.json.decode(text)


sio = socketio.AsyncServer(async_mode='aiohttp', transports=['websocket'], json=Json, cors_allowed_origins='*')


@sio.on('add')
async def on_add(sid: str, q: Any) -> Any:
    """The function that is called."""
    return add(q)


@sio.on('echo')
async def on_echo(sid: str, q: Any) -> Any:
    """A reply as large as the call."""
    return echo(q)


@sio.on('subscribe')
async def on_subscribe(sid: str, event: str) -> bool:
    """A room is an event."""
    await sio.enter_room(sid, event)
    return True


@sio.on('fire')
async def on_fire(sid: str, q: Any) -> None:
    """One fan-out."""
    for value in news(q):
        await sio.emit(q['event'], value, room=q['event'])


if __name__ == '__main__':
    args = arguments()
    app = web.Application()
    sio.attach(app)
    loop = loop_factory(args.loop)()
    web.run_app(app, host='127.0.0.1', port=args.port, loop=loop, access_log=None, print=None, backlog=4096)
