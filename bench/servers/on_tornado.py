"""Tornado, on uvloop."""

from __future__ import annotations

import asyncio

from shared import Hub, add, arguments, decode, decode_object, encode, loop_factory
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

hub = Hub()


class AddHandler(RequestHandler):
    """HTTP."""

    def get(self) -> None:
        """GET."""
        self.reply({'a': self.get_query_argument('a'), 'b': self.get_query_argument('b')})

    def post(self) -> None:
        """POST."""
        self.reply(decode_object(self.request.body))

    def reply(self, q: object) -> None:
        """The result."""
        self.set_header('Content-Type', 'application/json')
        self.finish(encode(add(q)))


class TalkHandler(WebSocketHandler):
    """A WebSocket."""

    async def on_message(self, text: str | bytes) -> None:
        """Answer."""
        message = decode(text)
        if message.cmd == 'cmd/fire':
            for subscriber, push in hub.pushes(message.q):
                await subscriber.write_message(push)
        await self.write_message(hub.answer(message, self))

    def on_close(self) -> None:
        """It ends."""
        hub.leave(self)


async def main(port: int) -> None:
    """Serve until the process is ended."""
    app = Application([('/cmd/add', AddHandler), ('/ws', TalkHandler)], log_function=lambda handler: None)
    app.listen(port, '127.0.0.1', backlog=4096)
    await asyncio.Event().wait()


if __name__ == '__main__':
    args = arguments()
    with asyncio.Runner(loop_factory=loop_factory(args.loop)) as runner:
        runner.run(main(args.port))
