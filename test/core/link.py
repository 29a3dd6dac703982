"""A connection without a socket."""

from __future__ import annotations


class Link:
    """What a transport does for a connection: it keeps how it was closed."""

    def __init__(self) -> None:
        self.closed: list[tuple[int, str]] = []
        self.buffered = 0

    def close_soon(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))
