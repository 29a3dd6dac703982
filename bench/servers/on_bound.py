"""No peer: what is left of a fan-out, on uvloop, where a server works out nothing that it was asked before.

Frames that went out once go out again as they were, and C alone runs through the connections.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import deque
from typing import cast

from shared import Hub, arguments, decode, loop_factory

hub = Hub()
known: dict[bytes, tuple[list[asyncio.Transport], list[bytes], bytes]] = {}  # pushes, to whom, and the answer


def frame(text: bytes) -> bytes:
    """A text as a server sends it."""
    size = len(text)
    return bytes((0x81, size)) + text if size < 126 else b'\x81\x7e' + size.to_bytes(2, 'big') + text


def opened(data: bytes) -> tuple[bytes, bytes]:
    """The text of a client's first frame, of less than 64 KiB, and what comes after it."""
    start = 4 if data[1] & 0x7F == 126 else 2
    size = int.from_bytes(data[2:start], 'big') if start == 4 else data[1] & 0x7F
    end = start + 4 + size
    mask = data[start : start + 4] * (size // 4 + 1)
    return bytes(a ^ b for a, b in zip(data[start + 4 : end], mask, strict=False)), data[end:]


class Connection(asyncio.Protocol):
    """A WebSocket. Whatever it is sent comes whole: the load has one frame in flight."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins, with a handshake."""
        self.transport = cast(asyncio.Transport, transport)
        self.is_open = False

    def data_received(self, data: bytes) -> None:
        """Answer."""
        if data in known:
            ways, frames, answer = known[data]
            deque(map(type(self.transport).write, ways, frames), 0)
            self.transport.write(answer)
        elif self.is_open:
            while data:
                text, rest = opened(data)
                self.work_out(data[: len(data) - len(rest)], text)
                data = rest
        else:
            self.shake_hands(data)

    def work_out(self, data: bytes, text: bytes) -> None:
        """Answer what was not asked before."""
        message = decode(text)
        pushes = [*hub.pushes(message.q)] if message.cmd == 'cmd/fire' else []
        answer = frame(hub.answer(message, self.transport))
        if message.evt:
            known.clear()  # there is one more to send to
            self.transport.write(answer)
        else:
            known[data] = [way for way, _ in pushes], [frame(push) for _, push in pushes], answer
            self.data_received(data)

    def shake_hands(self, data: bytes) -> None:
        """Become a WebSocket."""
        headers = dict(line.split(b': ', 1) for line in data.split(b'\r\n')[1:] if line)
        key = headers[b'Sec-WebSocket-Key'] + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        accept = base64.b64encode(hashlib.sha1(key).digest())
        head = b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        self.transport.write(head + b'Sec-WebSocket-Accept: ' + accept + b'\r\n\r\n')
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """It ends."""
        hub.leave(self.transport)
        known.clear()


async def main(port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Connection, '127.0.0.1', port, backlog=4096)
    await server.serve_forever()


if __name__ == '__main__':
    args = arguments()
    with asyncio.Runner(loop_factory=loop_factory(args.loop)) as runner:
        runner.run(main(args.port))
