"""FastAPI on uvicorn, its arguments and results typed, as its tutorial has them."""

from __future__ import annotations

from asgi import answer, serve
from fastapi import FastAPI, WebSocket
from pydantic import BaseModel
from shared import Hub, arguments

app = FastAPI()
hub = Hub()


class Add(BaseModel):
    """Arguments."""

    a: int
    b: int


class Sum(BaseModel):
    """A result."""

    result: int


@app.get('/cmd/add')
async def get_add(a: int, b: int) -> Sum:
    """GET."""
    return Sum(result=a + b)


@app.post('/cmd/add')
async def post_add(q: Add) -> Sum:
    """POST."""
    return Sum(result=q.a + q.b)


@app.websocket('/ws')
async def talk(ws: WebSocket) -> None:
    """A WebSocket, until it ends."""
    await ws.accept()
    try:
        async for text in ws.iter_text():
            await answer(hub, ws, text)
    finally:
        hub.leave(ws)


if __name__ == '__main__':
    serve(app, arguments().port)
