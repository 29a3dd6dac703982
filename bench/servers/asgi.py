"""What the servers on uvicorn have in common: uvicorn with uvloop and httptools, one process."""

from __future__ import annotations

from typing import Any

import uvicorn
from shared import Hub, decode


def serve(app: Any, port: int) -> None:
    """Serve until the process is ended."""
    uvicorn.run(
        app,
        host='127.0.0.1',
        port=port,
        loop='uvloop',
        http='httptools',
        ws='websockets-sansio',
        backlog=4096,
        log_level='warning',
        access_log=False,
    )


async def answer(hub: Hub, ws: Any, text: str) -> None:
    """Answer one message of a WebSocket that has `send_text`."""
    message = decode(text)
    if message.cmd == 'cmd/fire':
        for subscriber, push in hub.pushes(message.q):
            await subscriber.send_text(push.decode())
    await ws.send_text(hub.answer(message, ws).decode())
