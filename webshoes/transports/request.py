"""Requests of HTTP, their bodies held to the limits and to the charsets that are sent."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Protocol, cast

from aiohttp import MultipartReader, web

from webshoes.core.errors import Error
from webshoes.core.meter import Meter
from webshoes.headers import CHARSETS


def peer_address(peer: Any) -> str:
    """Return the address of a peer, given what its transport has as `peername`."""
    return str(peer[0]) if isinstance(peer, (tuple, list)) else 'unix:'


class HasMeter(Protocol):
    """The protocol of a connection."""

    @property
    def meter(self) -> Meter:
        """The app's limits, counted."""


class Request(web.BaseRequest):
    """A request whose forms have at most `Limits.max_fields` fields, each in one of `CHARSETS`."""

    _was_counted = False  # among those over a limit
    _parts = 0  # of its form, so far
    whole: bytes | None = None  # the body, where it was read before this was made

    @property
    def remote(self) -> str | None:
        """The peer's address, `unix:` if it has connected to a Unix domain socket; `None` if it is gone."""
        peer = self.protocol.peername
        return peer_address(peer) if isinstance(peer, (str, bytes)) else super().remote

    async def read(self) -> bytes:
        """The body."""
        if self.whole is not None:
            return self.whole
        with self._counted():
            return await super().read()

    async def post(self) -> Any:
        """The fields of a form.

        Raises:
            Error: 413, there are too many.
        """
        with self._counted():
            if self.content_type == 'application/x-www-form-urlencoded':
                self._check_fields((await super().read()).count(b'&') + 1)
            return await super().post()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a body that is over a limit, once: `post` may read it by `read`."""
        try:
            yield
        except web.HTTPRequestEntityTooLarge:
            if not self._was_counted:
                self._was_counted = True
                cast(HasMeter, self.protocol).meter.met('max_body_size')
            raise

    def _check_fields(self, count: int) -> None:
        meter = cast(HasMeter, self.protocol).meter
        if meter.over('max_fields', count):
            raise Error(413, f'A form has at most {meter.limits.max_fields} fields')

    async def multipart(self) -> MultipartReader:
        """The parts of the body."""
        reader = await super().multipart()
        reader.next = partial(self._next_part, reader.next)  # type: ignore[method-assign]
        return reader

    async def _next_part(self, following: Callable[[], Awaitable[Any]]) -> Any:
        part = await following()
        if part is not None:
            self._parts += 1
            self._check_fields(self._parts)
            if not isinstance(part, MultipartReader):
                part.get_charset = partial(_known_charset, part.get_charset)
        return part


def adopted(request: web.BaseRequest, max_size: int) -> Request:
    """Make a request of aiohttp's one of ours, by its public interface alone."""
    own = request.clone(client_max_size=max_size)
    own.__class__ = Request
    return cast(Request, own)


def _known_charset(get_charset: Callable[[str], str], default: str) -> str:
    """The charset of a part of a form.

    Raises:
        ValueError: it is none of `CHARSETS`: some of the others take minutes to decode.
    """
    charset = get_charset(default)
    if charset.lower() not in CHARSETS:
        raise ValueError(f'a part in the charset {charset[:40]!r}')
    return charset
