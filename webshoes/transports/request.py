"""Requests of HTTP, their bodies held to the limits and to the charsets that are sent."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from io import BufferedReader, BytesIO
from typing import Any, Protocol, cast

from aiohttp import BodyPartReader, MultipartReader, web
from multidict import CIMultiDict, CIMultiDictProxy

from webshoes.core.errors import Error
from webshoes.core.meter import Meter
from webshoes.headers import CHARSETS
from webshoes.pool import server_work


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
    _fields: Any = None  # the form's fields, once it was read
    _parts: list[BodyPartReader] | None = None  # the form's parts, so far
    _shown: CIMultiDictProxy[str] | None = None  # its headers, while some are hidden
    _hidden_head: CIMultiDictProxy[str] | None = None  # of a part, while aiohttp looks at it
    whole: bytes | None = None  # the body, where it was read before this was made

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers."""
        return super().headers if self._shown is None else self._shown

    @contextlib.contextmanager
    def hiding(self, name: str) -> Iterator[None]:
        """Have `headers` without one of them for a while."""
        shown = CIMultiDict(self.headers)
        shown.popall(name, None)
        self._shown = CIMultiDictProxy(shown)
        try:
            yield
        finally:
            self._shown = None

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
        """Return the fields of a form (RFC 7578): text, and files as `web.FileField`.

        A file input without a file is no field. A part without a filename is text if its type is text or JSON, else a
        file without a name.

        Raises:
            Error: 413, there are too many.
        """
        if self._fields is None:
            with self._counted():
                if self.content_type == 'application/x-www-form-urlencoded':
                    self._check_fields((await super().read()).count(b'&') + 1)
                with server_work():  # files of a form are written to the disk
                    form = await super().post()
            self._fields = form.copy()  # a MultiDict
            if self._parts:
                self._fields.clear()
                for part, (name, value) in zip(self._parts, form.items(), strict=True):
                    if (field := _field(part, name, value)) is not None:
                        self._fields.add(name, field)
        return self._fields

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
        reader.fetch_next_part = partial(self._fetch_part, reader.fetch_next_part)  # type: ignore[method-assign]
        return reader

    async def _fetch_part(self, fetch: Callable[[], Awaitable[Any]]) -> Any:
        part = await fetch()
        if isinstance(part, BodyPartReader) and part.name == '_charset_':  # aiohttp fails to read on after one
            self._hidden_head, part.headers = part.headers, CIMultiDictProxy(CIMultiDict())
        return part

    async def _next_part(self, following: Callable[[], Awaitable[Any]]) -> Any:
        part = await following()
        if self._hidden_head is not None:
            part.headers, self._hidden_head = self._hidden_head, None
        if part is not None:
            self._parts = self._parts or []
            self._parts.append(part)
            self._check_fields(len(self._parts))
            _check_head(part)
            if not isinstance(part, MultipartReader):
                part.get_charset = partial(_known_charset, part.get_charset)
        return part


def _field(part: BodyPartReader, name: str, value: Any) -> Any:
    """Return a field's value, or `None`, given the value that aiohttp makes of its part."""
    if part.filename is not None and not isinstance(value, web.FileField) and not value:
        return None  # what a browser sends for a file input without a file
    if not isinstance(value, bytearray):
        return value
    content_type = part.headers['Content-Type']
    kind = content_type.partition(';')[0].strip().lower()
    if kind.startswith('text/') or kind == 'application/json' or kind.endswith('+json'):
        return value.decode(part.get_charset('utf-8'))
    return web.FileField(name, '', cast(BufferedReader, BytesIO(value)), content_type, part.headers)


def adopted(request: web.BaseRequest, max_size: int) -> Request:
    """Make a request of aiohttp's one of ours, by its public interface alone."""
    with contextlib.suppress(TypeError):  # then its limit is that of aiohttp
        request = request.clone(client_max_size=max_size)
    request.__class__ = Request
    return cast(Request, request)


def _check_head(part: BodyPartReader | MultipartReader) -> None:
    """Refuse a name that is not UTF-8: aiohttp would read it as text with lone surrogates.

    Raises:
        ValueError: the head of the part is not UTF-8.
    """
    try:
        ''.join(part.headers.values()).encode()
    except UnicodeEncodeError:
        raise ValueError('the head of a part is not UTF-8') from None


def _known_charset(get_charset: Callable[[str], str], default: str) -> str:
    """Return the charset of a part of a form.

    Raises:
        ValueError: it is none of `CHARSETS`: some of the others take minutes to decode.
    """
    charset = get_charset(default)
    if charset.lower() not in CHARSETS:
        raise ValueError(f'a part in the charset {charset[:40]!r}')
    return charset
