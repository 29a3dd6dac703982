"""Starlette on uvicorn."""

from __future__ import annotations

from asgi import answer, serve
from shared import Hub, add, arguments
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

hub = Hub()


async def get_add(request: Request) -> JSONResponse:
    """GET."""
    return JSONResponse(add(request.query_params))


async def post_add(request: Request) -> JSONResponse:
    """POST."""
    return JSONResponse(add(await request.json()))


async def talk(ws: WebSocket) -> None:
    """A WebSocket, until it ends."""
    await ws.accept()
    try:
        async for text in ws.iter_text():
            await answer(hub, ws, text)
    finally:
        hub.leave(ws)


if __name__ == '__main__':
    routes = [
        Route('/cmd/add', get_add, methods=['GET']),
        Route('/cmd/add', post_add, methods=['POST']),
        WebSocketRoute('/ws', talk),
    ]
    serve(Starlette(routes=routes), arguments().port)
