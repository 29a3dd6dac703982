"""Litestar on uvicorn, its arguments and results typed."""

from __future__ import annotations

import msgspec
from asgi import answer, serve
from litestar import Litestar, WebSocket, get, post, websocket
from litestar.exceptions import WebSocketDisconnect
from shared import Hub, arguments

hub = Hub()


class Add(msgspec.Struct):
    """Arguments."""

    a: int
    b: int


class Sum(msgspec.Struct):
    """A result."""

    result: int


@get('/cmd/add')
async def get_add(a: int, b: int) -> Sum:
    """GET."""
    return Sum(a + b)


@post('/cmd/add', status_code=200)
async def post_add(data: Add) -> Sum:
    """POST."""
    return Sum(data.a + data.b)


@websocket('/ws')
async def talk(socket: WebSocket) -> None:
    """A WebSocket, until it ends."""
    await socket.accept()
    try:
        while True:
            await answer(hub, socket, await socket.receive_text())
    except WebSocketDisconnect:
        hub.leave(socket)


if __name__ == '__main__':
    serve(Litestar([get_add, post_add, talk]), arguments().port)
