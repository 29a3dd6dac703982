"""The base of every ratio: aiohttp's low-level server, by hand, with uvloop and msgspec."""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, web
from shared import Hub, arguments, decode, decode_object, encode, loop_factory


class Server:
    """One handler for everything that comes."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """A request of HTTP, or the handshake of a WebSocket."""
        if request.path == '/ws':
            return await self.talk(request)
        function = self.hub.functions.get(request.path[1:])
        if function is None:
            return web.Response(status=404)
        q = decode_object(await request.read()) if request.method == 'POST' else request.query
        return web.Response(body=encode(function(q)), content_type='application/json')

    async def talk(self, request: web.BaseRequest) -> web.WebSocketResponse:
        """A WebSocket, until it ends."""
        ws = web.WebSocketResponse(compress=False, decode_text=False)
        await ws.prepare(request)
        try:
            async for frame in ws:
                message = decode(frame.data)
                if message.cmd == 'cmd/fire':
                    for subscriber, push in self.hub.pushes(message.q):
                        await subscriber.send_frame(push, WSMsgType.TEXT)
                await ws.send_frame(self.hub.answer(message, ws), WSMsgType.TEXT)
        except ConnectionResetError:
            pass  # the load has gone
        finally:
            self.hub.leave(ws)
        return ws


async def main(port: int, hub: Hub) -> None:
    """Serve until the process is ended."""
    runner = web.ServerRunner(web.Server(Server(hub).handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == '__main__':
    args = arguments()
    with asyncio.Runner(loop_factory=loop_factory(args.loop)) as runner:
        runner.run(main(args.port, Hub(args.functions, args.events)))
