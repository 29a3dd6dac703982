"""websockets, on uvloop. A fan-out is its `broadcast`, as its documentation advises: one message for everybody."""

from __future__ import annotations

import asyncio

from shared import Hub, arguments, decode, loop_factory
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

hub = Hub()


async def talk(ws: ServerConnection) -> None:
    """A connection, until it ends."""
    try:
        while True:
            message = decode(await ws.recv(decode=False))
            if message.cmd == 'cmd/fire':
                for subscribers, push in hub.broadcasts(message.q):
                    broadcast(subscribers, push.decode())
            await ws.send(hub.answer(message, ws), text=True)
    except ConnectionClosed:
        hub.leave(ws)


async def main(port: int) -> None:
    """Serve until the process is ended."""
    async with serve(talk, '127.0.0.1', port, compression=None, backlog=4096):
        await asyncio.Event().wait()


if __name__ == '__main__':
    args = arguments()
    with asyncio.Runner(loop_factory=loop_factory(args.loop)) as runner:
        runner.run(main(args.port))
