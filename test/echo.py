#!/usr/bin/env python3
"""An echo on the code that carries the library's WebSockets: `python3 test/echo.py 9001`.

It is what the Autobahn TestSuite is run against: `wstest -m fuzzingclient` with `{"url": "ws://127.0.0.1:9001"}`.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from unittest.mock import patch

from webshoes import Limits, WebShoesApp
from webshoes.core import frames
from webshoes.core.context import Context
from webshoes.core.feed import Feed
from webshoes.core.services import Services
from webshoes.transports.websocket import WebSockets

SIZE = 16 * 1024 * 1024  # bytes of the largest message


class Echo:
    """One peer, in the place of `webshoes.core.session.Session`: what it sends comes back."""

    is_busy = False

    def __init__(self, services: Services, ctx: Context, wake: Callable[[], None]) -> None:
        self.feed = Feed(services, ctx, wake)
        self._out: deque[bytes] = deque()
        self.close_code: int | None = None
        self.close_reason = ''

    def receive(self, data: bytes) -> None:
        """Take a text."""
        try:
            data.decode()
        except UnicodeDecodeError:
            self.close_code, self.close_reason = 1007, 'A text message that is not UTF-8'
        else:
            self._out.append(self.feed.frame(data))

    def receive_binary(self, data: bytes) -> None:
        """Take a binary message."""
        self._out.append(frames.header(frames.BINARY, len(data)) + data)

    @property
    def has_output(self) -> bool:
        """Whether `take` has something."""
        return bool(self._out)

    @property
    def is_dry(self) -> bool:
        """Whether `take` took all."""
        return not self._out

    @property
    def is_behind(self) -> bool:
        """Whether something is to be sent before more should be received."""
        return bool(self._out)

    def write_answers(self) -> bool:
        """Nothing, so that `take` is asked."""
        return False

    def take(self, size: int) -> list[bytes]:
        """The next frame."""
        return [self._out.popleft()] if self._out else []

    def stop(self) -> None:
        """There is no work to refuse."""

    def interrupt(self) -> None:
        """There is no work to end."""

    def close(self) -> None:
        """The peer is gone."""
        self._out.clear()
        self.feed.close()


class EchoApp(WebShoesApp):
    """An app whose WebSockets are echoes; settings as those of `WebShoesApp`."""

    def __init__(self, port: int, **settings: Any) -> None:
        limits = settings.pop('limits', Limits(max_ws_msg_size=SIZE))
        super().__init__('127.0.0.1', port, origins='*', hosts='*', limits=limits, **settings)

    def start(self) -> None:
        """Serve; returns when the server listens, its WebSockets being echoes."""
        with patch('webshoes.run.WebSockets', partial(WebSockets, session=cast(Any, Echo))):
            super().start()


def main() -> None:
    """Serve until Ctrl-C."""
    app = EchoApp(int(sys.argv[1]) if len(sys.argv) > 1 else 9001)
    app.start()
    print(f'echo on {app.url.replace("http", "ws", 1)}', flush=True)
    app.run()


if __name__ == '__main__':
    main()
