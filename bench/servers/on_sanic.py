"""Sanic with its own server, one process."""

from __future__ import annotations

from typing import Any

from sanic import HTTPResponse, Request, Sanic, json
from shared import Hub, add, arguments, decode

app = Sanic('bench')
hub = Hub()


@app.get('/cmd/add')
async def get_add(request: Request) -> HTTPResponse:
    """GET."""
    return json(add({'a': request.args.get('a'), 'b': request.args.get('b')}))


@app.post('/cmd/add')
async def post_add(request: Request) -> HTTPResponse:
    """POST."""
    return json(add(request.json))


@app.websocket('/ws')
async def talk(request: Request, ws: Any) -> None:
    """A WebSocket, until it ends."""
    try:
        async for text in ws:
            message = decode(text)
            if message.cmd == 'cmd/fire':
                for subscriber, push in hub.pushes(message.q):
                    await subscriber.send(push.decode())
            await ws.send(hub.answer(message, ws).decode())
    finally:
        hub.leave(ws)


if __name__ == '__main__':
    app.run('127.0.0.1', arguments().port, single_process=True, access_log=False, motd=False, backlog=4096)
