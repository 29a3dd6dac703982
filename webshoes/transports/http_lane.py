"""The fast lane of HTTP: what can be answered at once is answered where its bytes arrive, and no task is woken for it.

aiohttp's parser reads it, as it does all else. The lane stands on what aiohttp (3.14) does, and does not promise:

1. `RequestHandler.data_received` gives bytes to `self._parser.feed_data`, which returns `messages, upgraded, tail`; its
   task then serves these messages. A message that is not among them is served by nobody.
2. Of each message that was served, `self._parser.message_consumed` is told.
3. While the task waits for a message, `self._messages` is empty, and `self._waiter` a future that is not done, or
   `self._request_count` 0, as it has not begun.
4. `self._next_keepalive_close_time` is when a connection on which nothing comes is closed.
5. A message has `method`, `path`, `version`, `headers`, `should_close`, `compression` and `upgrade`.
6. Where `self._upgraded`, and `set_parser` was called, `self._parser` is not used again, and may be `None`, as it is
   when the connection is gone; and `self._messages` is empty, and stays so.

`IS_OPEN` tells whether all these names are there; without them aiohttp's own way carries everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http import HttpRequestParser, RawRequestMessage

PIPELINED = 16  # requests that are answered in one go; more of them take their turns

Messages = list[tuple[Any, Any]]

NAMES = (
    (
        web.RequestHandler,
        ('_parser', '_upgraded', '_waiter', '_messages', '_request_count', '_next_keepalive_close_time'),
    ),
    (HttpRequestParser, ('feed_data', 'message_consumed')),
    (RawRequestMessage, ('method', 'path', 'version', 'headers', 'should_close', 'compression', 'upgrade')),
)
IS_OPEN = all(hasattr(owner, name) for owner, names in NAMES for name in names)


class Lane:
    """A parser whose messages are looked at first.

    Args:
        parser: aiohttp's.
        take: takes messages; what it leaves goes on.
    """

    def __init__(self, parser: Any, take: Callable[[Messages], Messages]) -> None:
        self._parser = parser
        self._feed = parser.feed_data
        self._take = take
        self.message_consumed = parser.message_consumed

    def feed_data(self, data: bytes) -> tuple[Messages, bool, bytes]:
        """Parse bytes."""
        messages, upgraded, tail = self._feed(data)
        if 0 < len(messages) <= PIPELINED:
            messages = self._take(messages)
        return messages, upgraded, tail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


def let_go(connection: Any) -> None:
    """Let go of what only requests need, 3 kB, as a WebSocket has taken over the connection, which may last."""
    if IS_OPEN and connection._upgraded and not connection._messages:
        connection._parser, connection._messages = None, ()
