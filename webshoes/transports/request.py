"""Requests of HTTP, their bodies held to the limits and to the charsets that are sent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol, cast

from aiohttp import BodyPartReader, MultipartReader, web

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
    """A request whose forms are read in charsets that are sent, each part of them."""

    _was_counted = False  # among those over a limit
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
        """The fields of a form."""
        with self._counted():
            return await super().post()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a body that is over a limit, once: `post` may read it by `read`."""
        try:
            yield
        except web.HTTPRequestEntityTooLarge as exc:
            if not self._was_counted:
                self._was_counted = True
                limit = 'max_fields' if 'form fields' in (exc.text or '') else 'max_body_size'
                cast(HasMeter, self.protocol).meter.met(limit)
            raise

    async def multipart(self) -> MultipartReader:
        """The parts of the body."""
        reader = await super().multipart()
        reader.part_reader_cls = _Part
        return reader


class _Part(BodyPartReader):
    def get_charset(self, default: str) -> str:
        charset = super().get_charset(default)
        if charset.lower() not in CHARSETS:
            raise ValueError(f'a part in the charset {charset[:40]!r}')
        return charset
