"""The port: who listens on it, which face a request goes to, and how it all ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import HttpVersion11, web

from webshoes.core import codec
from webshoes.core.errors import Error
from webshoes.core.limits import Limits
from webshoes.log import log

Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

POLL = 0.01  # seconds between two looks at whether the handlers are done
CLOSING = 2.0  # seconds in which WebSockets, and then HTTP connections, are closed


class WebSocketFace(Protocol):
    """What the server needs of the WebSocket face."""

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one WebSocket until it is closed."""

    def stop(self) -> None:
        """Refuse new work."""

    @property
    def is_busy(self) -> bool:
        """Whether a handler is running."""

    async def close(self, timeout: float) -> None:
        """End what runs, and close all with 1001."""


class Server:
    """One run on one port.

    Args:
        http: answers an HTTP request.
        websockets: serves those who ask to upgrade.
        limits: the app's.
    """

    def __init__(self, http: Serve, websockets: WebSocketFace, limits: Limits) -> None:
        self._http = http
        self._websockets = websockets
        self._limits = limits
        self._in_flight = 0
        self._stopping = False
        self._server: web.Server
        self._listener: asyncio.AbstractServer

    async def open(self, addr: str, port: int) -> int:
        """Listen.

        Args:
            addr: the address, `''` for all.
            port: the port, 0 for a free one.

        Returns:
            The port.

        Raises:
            OSError: the port is in use, or the address is not ours.
        """
        self._server = web.Server(
            self._serve, request_factory=self._request, access_log=None, logger=log, keepalive_timeout=75.0
        )
        loop = asyncio.get_running_loop()
        while True:
            listener = await loop.create_server(self._server, addr or None, port, backlog=1024)
            ports = [socket.getsockname()[1] for socket in listener.sockets]
            if len(set(ports)) == 1:
                self._listener = listener
                return int(ports[0])
            listener.close()  # port 0 on several addresses gave each its own: ask for the first one's on all

            await listener.wait_closed()
            port = ports[0]

    def _request(self, *args: object) -> web.BaseRequest:
        message, payload, protocol, writer, task = args
        return web.BaseRequest(
            message,  # type: ignore[arg-type]
            payload,  # type: ignore[arg-type]
            protocol,  # type: ignore[arg-type]
            writer,  # type: ignore[arg-type]
            task,  # type: ignore[arg-type]
            asyncio.get_running_loop(),
            client_max_size=self._limits.max_body_size or 0,
            client_max_fields=self._limits.max_fields or 0,
        )

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._stopping:
            refusal = Error(503, 'The server is stopping')
            response = web.Response(status=503, body=codec.error(refusal), content_type='application/json')
            response.force_close()
            return response
        if request.version >= HttpVersion11 and request.headers.get('Expect', '').lower() == '100-continue':
            await request.writer.write(b'HTTP/1.1 100 Continue\r\n\r\n')
            request.writer.output_size = 0  # the answer itself has not begun
        if request.method == 'GET' and request.headers.get('Upgrade', '').lower() == 'websocket':
            return await self._websockets.serve(request)
        self._in_flight += 1
        try:
            return await self._http(request)
        finally:
            self._in_flight -= 1

    async def close(self, last: Callable[[], None]) -> None:
        """Take no new work, let handlers finish for half of `stop_timeout`, call `last`, close the connections."""
        self._stopping = True
        self._listener.close()
        self._websockets.stop()
        loop = asyncio.get_running_loop()
        grace = loop.time() + self._limits.stop_timeout / 2
        while (self._in_flight or self._websockets.is_busy) and loop.time() < grace:
            await asyncio.sleep(POLL)
        last()
        await self._websockets.close(min(CLOSING, self._limits.stop_timeout / 4))
        self._server.pre_shutdown()
        # aiohttp takes twice this: once for the handlers, once for their tasks.
        await self._server.shutdown(min(CLOSING, self._limits.stop_timeout / 4) / 2)
