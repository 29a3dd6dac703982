"""A connection without a socket."""

from __future__ import annotations

from propertybag import Bag

from webshoes.core.connection import Connection
from webshoes.core.context import Scope


class Link:
    """What a transport does for a connection: it keeps how it was closed."""

    def __init__(self) -> None:
        self.closed: list[tuple[int, str]] = []
        self.buffered = 0

    def close_soon(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


def new_scope() -> Scope:
    """What is said of a WebSocket that nobody looks at."""
    return Scope(req=None, opts=Bag(), wsa=None, ws=None, conn=Connection('c', None, 0.0, Link()))
