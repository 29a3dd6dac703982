"""The parameters in the query and the body of a request."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from aiohttp import web

from webshoes.core import codec
from webshoes.core.errors import Error
from webshoes.core.limits import Limits, over
from webshoes.core.meter import Meter
from webshoes.core.text import HALF_OF_PAIR
from webshoes.headers import CHARSETS
from webshoes.transports.compat import HttpProcessingError

FORMS = ('application/x-www-form-urlencoded', 'multipart/form-data')
PLAIN = re.compile(r"[A-Za-z0-9_.~&=,:/@!$'()*;?-]*").fullmatch  # a query in which nothing is escaped
HALF = re.compile(rb'\xed[\xa0-\xbf][\x80-\xbf]?').search  # half of a surrogate pair, as if UTF-8 had a form for it


Parameters = tuple[dict[str, Any], dict[str, list[Any]]]
"""The parameters, and those among them that came as text with all their values."""


def check_query(request: web.BaseRequest, meter: Meter) -> None:
    """Refuse a query of too many fields, or one with half of a surrogate pair.

    Raises:
        Error: 400, 413.
    """
    if request.query_string and meter.over('max_fields', request.query_string.count('&') + 1):
        raise Error(413, f'A query has at most {meter.limits.max_fields} fields')
    _check_escapes(_bytes(request.raw_path.partition('?')[2]), 'The query')


def _bytes(text: str) -> bytes:
    """Return what was sent of the head of a request."""
    return text.encode(errors='surrogateescape')


def _check_escapes(text: bytes, what: str) -> None:
    """Refuse escaped halves of surrogate pairs, which UTF-8 does not have (RFC 3629 section 3).

    Args:
        text: the text with its escapes (RFC 3986 section 2.1).
        what: what it is, for the error.

    Raises:
        Error: 400, it has one.
    """
    if b'%' in text and (half := HALF(unquote_to_bytes(text))) is not None:
        found = ''.join(f'%{byte:02X}' for byte in half[0])
        raise Error(400, f'{what} is not UTF-8: {found} {HALF_OF_PAIR}')


async def parameters(request: web.BaseRequest, meter: Meter) -> Parameters:
    """The parameters of a request: the query's, and over them the body's.

    Raises:
        Error: 400, the path, the query or the body is not what it says; 408, the body did not come; 413, there are too
            many fields.
        web.HTTPRequestEntityTooLarge: the body is too large.
    """
    _check_escapes(_bytes(request.raw_path.partition('?')[0]), 'The path')
    check_query(request, meter)
    texts: dict[str, list[Any]] = {}
    for name in request.query:
        texts[name] = request.query.getall(name)
    body: dict[str, Any] = {}
    if request.body_exists:
        kind = request.content_type
        if kind == 'application/json' or kind.endswith('+json'):
            body = _object(await _read(request.read))
            texts = {name: text for name, text in texts.items() if name not in body}
        elif kind in FORMS:
            texts |= await _form(request)
    return {**{name: text[0] for name, text in texts.items()}, **body}, texts


def plain_parameters(query: str, data: bytes | None, limits: Limits) -> Parameters | None:
    """The parameters of a plain query, or of a JSON body; `None` where it takes more to read them.

    Args:
        query: as it was sent.
        data: the body, `None` where there is none.
        limits: the app's.

    Raises:
        Error: 400, the body is not what it says.
    """
    if data is not None:
        return None if query else (_object(data), {})
    if not query:
        return {}, {}
    if PLAIN(query) is None or over(query.count('&') + 1, limits.max_fields):
        return None
    return _plain_query(query)


def _plain_query(query: str) -> Parameters:
    texts: dict[str, list[Any]] = {}
    for field in query.split('&'):
        name, _, value = field.partition('=')
        if name not in texts:
            if field:
                texts[name] = [value]
        elif field:  # what is nothing, between two `&`, has no name
            texts[name].append(value)
    return {name: text[0] for name, text in texts.items()}, texts


def _check_charset(charset: str | None) -> None:
    """Refuse the texts of a form in a charset that nobody sends: some of them take minutes to decode.

    Raises:
        Error: 400, the charset is none of `CHARSETS`.
    """
    if charset is not None and charset.lower() not in CHARSETS:
        raise Error(400, f'A form in the charset {charset[:40]!r} is not read, only {", ".join(CHARSETS)}')


def _object(data: bytes) -> dict[str, Any]:
    """The object of a JSON body; none is an empty one."""
    try:
        body = codec.decode(data) if data else {}
    except UnicodeDecodeError:
        raise Error(400, 'Not JSON: it is not UTF-8') from None
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise Error(400, 'A JSON body is an object')
    return body


async def _form(request: web.BaseRequest) -> dict[str, list[Any]]:
    _check_charset(request.charset)
    form = await _read(request.post)
    if request.content_type == FORMS[0] and (request.charset or 'utf-8').lower() in ('utf-8', 'utf8'):
        _check_escapes(await request.read(), 'The form')
    return {name: form.getall(name) for name in form}


async def _read(reader: Callable[[], Any]) -> Any:
    """Read a body, in whatever way."""
    try:
        return await reader()
    except web.HTTPRequestEntityTooLarge:
        raise
    except ConnectionError:  # pragma: no cover  # tested, but whether it is seen is a matter of time
        raise Error(400, 'The connection was lost before the body was whole') from None
    except (ValueError, LookupError, RuntimeError, web.RequestPayloadError, HttpProcessingError) as exc:
        sentence = ' '.join(str(getattr(exc, 'message', exc)).split())
        raise Error(400, f'The body cannot be read: {sentence}') from None
