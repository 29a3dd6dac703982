"""`ctx.conn`: the connection a call came over, and each of `wsa.connections`."""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct

from webshoes.core.errors import Error
from webshoes.core.text import UnsendableError, check_text


class Subscribed(Struct, frozen=True):
    """A subscription as it stands: the version that was last sent, and how many versions it is behind."""

    event: str
    uid: str
    ver: int
    lag: int


class Link(Protocol):
    """The transport of a connection; its methods may be called from any thread."""

    def close_soon(self, code: int, reason: str) -> None:
        """Close it."""

    @property
    def buffered(self) -> int:
        """Bytes that the peer has not taken yet."""


class Feeds(Protocol):
    """What goes out to a connection, as far as it is asked from any thread."""

    def encode(self, name: str, value: Any) -> bytes:
        """Return the JSON of an event's data."""

    def push(self, name: str, data: bytes) -> None:
        """Send a push to this connection alone."""

    def subscribed(self) -> list[Subscribed]:
        """The subscriptions as they stand."""


class _Elsewhere:
    """The feed of a connection that is the parent's, in a process that was forked from it."""

    def encode(self, name: str, value: Any) -> bytes:
        """Refuse."""
        raise RuntimeError('the connection is that of the process that this one was forked from: push there')

    def push(self, name: str, data: bytes) -> None:
        """Do nothing: `encode`, which comes before, has refused."""

    def subscribed(self) -> list[Subscribed]:
        """Return nothing, as nothing is known here."""
        return []


class Connection:
    """A connection; all of it is safe from any thread.

    Attributes:
        id: its name, unique in this process.
        remote: the peer's address, `None` where it is gone.
        opened: since when it is there, Unix time in seconds.
        user: who it is, as `auth` found; `None` without it.
    """

    __slots__ = ('_feed', '_link', 'id', 'opened', 'remote', 'user')

    def __init__(self, id: str, remote: str | None, opened: float, link: Link | None = None) -> None:
        self.id = id
        self.remote = remote
        self.opened = opened
        self.user: Any = None
        self._link = link
        self._feed: Feeds | None = None

    def __repr__(self) -> str:
        return f'<Connection {self.id} from {self.remote}>'

    def become(self, id: str, link: Link, feed: Feeds) -> None:
        """Be no plain request from here on, but a WebSocket or an event stream, that can be pushed to."""
        self.id = id
        self._link = link
        self._feed = feed

    def leave(self) -> None:
        """Let go of the transport, which is the parent's in a process that was forked from it."""
        self._link, self._feed = None, _Elsewhere()

    @property
    def subscriptions(self) -> list[Subscribed]:
        """The current subscriptions, each with `event`, `uid`, `ver` (last sent) and `lag` (versions behind)."""
        return [] if self._feed is None else self._feed.subscribed()

    @property
    def buffered(self) -> int:
        """Bytes that were sent and that the network has not taken yet."""
        return 0 if self._link is None else self._link.buffered

    def push(self, event: str, data: Any) -> None:
        """Send an event to this connection alone, subscribed or not.

        It is no version of the event: the push has neither `ver` nor `uid`, moves no cursor and is not kept.

        Args:
            event: its name, 1 to 256 characters.
            data: anything that can be JSON; encoded at once.

        Raises:
            TypeError: the data cannot be JSON, or the name is no text.
            ValueError: the name is empty or too long.
            Error: 406, this is a plain request, to which nothing can be pushed; 410, the connection is closed; 429, it
                is too far behind: more than `Limits.send_buffer` bytes of such pushes wait already.
        """
        if self._feed is None:
            raise Error(406, 'Only a WebSocket or an event stream can be pushed to')
        try:
            encoded = self._feed.encode(event, data)
        except UnsendableError as exc:
            raise TypeError(str(exc)) from None
        self._feed.push(event, encoded)

    def close(self, code: int = 1000, reason: str = '') -> None:
        """Close it. Over WebSocket the peer reads code and reason (RFC 6455 sections 5.5.1 and 7.4).

        Raises:
            ValueError: a code that no endpoint may send, or a reason of more than 123 bytes.
            TypeError: the reason has a lone surrogate.
        """
        check_text(reason, 'the reason of a close')
        if code not in (1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)):
            raise ValueError(f'a close code is one that may be sent (1000, 1008, 3000 to 4999, ...), not {code!r}')
        if len(reason.encode()) > 123:
            raise ValueError(f'the reason of a close has at most 123 bytes, not {len(reason.encode())}')
        if self._link is not None:  # there is something to close yet
            self._link.close_soon(code, reason)
