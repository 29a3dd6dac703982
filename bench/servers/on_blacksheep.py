"""BlackSheep on uvicorn, its arguments typed."""

from dataclasses import dataclass

from asgi import answer, serve
from blacksheep import Application, FromJSON, Response, WebSocket, WebSocketDisconnectError, get, json, post, ws
from shared import Hub, arguments

hub = Hub()


@dataclass
class Add:
    """Arguments."""

    a: int
    b: int


@get('/cmd/add')
async def get_add(a: int, b: int) -> Response:
    """GET."""
    return json({'result': a + b})


@post('/cmd/add')
async def post_add(q: FromJSON[Add]) -> Response:
    """POST."""
    return json({'result': q.value.a + q.value.b})


@ws('/ws')
async def talk(websocket: WebSocket) -> None:
    """A WebSocket, until it ends."""
    await websocket.accept()
    try:
        while True:
            await answer(hub, websocket, await websocket.receive_text())
    except WebSocketDisconnectError:
        hub.leave(websocket)


if __name__ == '__main__':
    serve(Application(), arguments().port)
