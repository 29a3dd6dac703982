"""Every number the server enforces: name, unit, default, reason."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any

KiB = 1024
MiB = 1024 * KiB


def _limit(default: float | None, unit: str, why: str, none: str = '') -> Any:
    """One number. `none` says what `None` means; a limit without it takes no `None`."""
    return field(default=default, metadata={'unit': unit, 'why': why, 'none': none})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may cost. Each field takes a number above 0, or `None` where that has a meaning.

    Raises:
        TypeError: a value that is no number, or a `None` that has no meaning.
        ValueError: a number that is not above 0.
    """

    max_ws_msg_size: int | None = _limit(
        4 * MiB, 'bytes', 'a WebSocket message is held whole before it is read; past it: close 1009', 'no limit'
    )
    max_body_size: int | None = _limit(
        4 * MiB, 'bytes', 'an HTTP body is held whole before it is read; past it: 413', 'no limit'
    )
    max_fields: int | None = _limit(
        1000, 'fields', 'fields of a query, a form or a multipart body; past it: 413', 'no limit'
    )
    max_header_size: int = _limit(
        8190,
        'bytes',
        "a request's path with its query, and each of its headers; past it: 431, and the connection is closed",
    )
    header_timeout: float = _limit(
        15.0,
        'seconds',
        'for the head of a request, and the handshake of TLS; past it: 408, and the connection is closed',
    )
    body_timeout: float = _limit(30.0, 'seconds', 'without a byte of a body that is being read; past it: 408')
    auth_timeout: float = _limit(10.0, 'seconds', '`auth`, and the first message of a WebSocket; past it: 408, or 4401')
    keepalive_timeout: float = _limit(
        75.0, 'seconds', 'an idle connection waits for its next request; then it is closed'
    )
    max_connections: int | None = _limit(
        10_000, 'connections', 'all of them, whatever they do; past it: 503, and nothing is read', 'no limit'
    )
    max_connections_per_address: int | None = _limit(
        None, 'connections', 'behind a proxy all have one address; past it: 429, and nothing is read', 'no limit'
    )
    max_rate: float | None = _limit(
        None, 'calls a second', 'of one connection; past it: 429, and close 1013 where that goes on', 'no limit'
    )
    handler_timeout: float | None = _limit(
        None, 'seconds', 'an async handler, or a threaded one, may take; past it: 504, and it is cancelled', 'no limit'
    )
    max_batch: int | None = _limit(100, 'messages', 'one array frame is worked off in one go; past it: 400', 'no limit')
    max_name: int = _limit(
        256, 'characters', 'event names, uid and tid are remembered; a command may have four times that; past it: 400'
    )
    max_subscriptions: int | None = _limit(
        1000, 'subscriptions', 'what one connection may have the server remember; past it: 429', 'no limit'
    )
    max_in_flight: int | None = _limit(
        64, 'calls', 'calls of one connection that run at once; past it they wait', 'no limit'
    )
    max_queued: int | None = _limit(
        1000, 'messages', 'messages of one connection that wait for their turn; past it: 429', 'no limit'
    )
    max_queued_bytes: int | None = _limit(
        1 * MiB,
        'bytes',
        'their text, of which they take many times the memory; one may always wait; past it: 429',
        'no limit',
    )
    send_buffer: int = _limit(
        256 * KiB, 'bytes', 'unsent bytes of one connection; when it is nearly full events wait and nothing is read'
    )
    stall_timeout: float | None = _limit(
        10.0,
        'seconds',
        'for a peer that takes nothing of what is sent to it; past it: close 1013 of a WebSocket, others are reset',
        'it is kept',
    )
    ping_interval: float | None = _limit(
        25.0, 'seconds', 'of silence, before a WebSocket is pinged and an event stream sends a comment', 'no pings'
    )
    ping_timeout: float = _limit(12.5, 'seconds', 'for the answer to a ping; past it the connection is dropped')
    max_wait: float = _limit(60.0, 'seconds', 'a long poll waits no longer, whatever it asks for; past it: 204')
    history: int = _limit(256, 'versions', "an event's log, unless the event says otherwise; older versions go")
    history_bytes: int = _limit(1 * MiB, 'bytes', "an event's log in bytes of JSON; the newest version always stays")
    slow_handler: float | None = _limit(
        0.1, 'seconds', 'a handler that blocks the loop this long is named in a warning', 'no warning'
    )
    max_threads: int = _limit(32, 'threads', '`@threaded` handlers that run at once; past it they wait')
    stop_timeout: float = _limit(10.0, 'seconds', 'all of `stop()`: half of it is the grace of running handlers')

    def __post_init__(self) -> None:
        for limit in fields(self):
            _check(limit, getattr(self, limit.name))


def _check(limit: Field[Any], value: Any) -> None:
    if value is None and limit.metadata['none']:
        return
    kinds = (int, float) if 'second' in limit.metadata['unit'] else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(
            f'Limits.{limit.name} is a number of {limit.metadata["unit"]}'
            f'{" or None" if limit.metadata["none"] else ""}, not {value!r}'
        )
    if not value > 0:
        raise ValueError(f'Limits.{limit.name} must be above 0 {limit.metadata["unit"]}, not {value!r}')


def over(count: float, limit: float | None) -> bool:
    """Return whether `count` is past `limit`; nothing is past `None`."""
    return limit is not None and count > limit
