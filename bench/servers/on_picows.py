"""picows, on uvloop."""

from __future__ import annotations

import asyncio

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server
from shared import Hub, arguments, decode, loop_factory

hub = Hub()


class Listener(WSListener):
    """A connection."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Answer."""
        if frame.msg_type != WSMsgType.TEXT:
            transport.disconnect()
            return
        message = decode(frame.get_payload_as_memoryview())
        if message.cmd == 'cmd/fire':
            for subscriber, push in hub.pushes(message.q):
                subscriber.send(WSMsgType.TEXT, push)
        transport.send(WSMsgType.TEXT, hub.answer(message, transport))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """It ends."""
        hub.leave(transport)


async def main(port: int) -> None:
    """Serve until the process is ended."""
    server = await ws_create_server(lambda request: Listener(), '127.0.0.1', port, backlog=4096)
    await server.serve_forever()


if __name__ == '__main__':
    args = arguments()
    with asyncio.Runner(loop_factory=loop_factory(args.loop)) as runner:
        runner.run(main(args.port))
