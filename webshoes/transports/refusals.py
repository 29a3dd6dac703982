"""Errors and redirects as answers of HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from aiohttp import web

from webshoes.core import codec
from webshoes.core.errors import HTTP_ERRORS, Error
from webshoes.headers import HEADERS, JSON

NO_REQUEST = 'Not an HTTP request'
HTTP_ERRORS.append(web.HTTPException)


def answer(error: Error, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error, with these headers too, on a connection that goes on."""
    return web.Response(status=error.code, body=codec.error(error), headers={**JSON, **(headers or {})})


def refused(error: Error) -> web.Response:
    """An error that ends its connection."""
    response = answer(error)
    response.force_close()
    return response


class LastAnswer(web.Response):
    """An error after which nothing more is read from the connection."""

    def __init__(self, error: Error, linger: Callable[[], Awaitable[None]]) -> None:
        super().__init__(status=error.code, body=codec.error(error), headers=JSON)
        self.force_close()
        self._linger = linger

    async def write_eof(self, data: bytes = b'') -> None:
        """Send the answer, and wait a moment for the client to read it."""
        await super().write_eof(data)
        await self._linger()


def redirection(exc: web.HTTPException) -> web.Response:
    """A redirect as an answer. In aiohttp 3 the exception is one, in aiohttp 4 it is not."""
    response = web.Response(status=exc.status, reason=exc.reason, text=exc.text, headers=exc.headers)
    response.headers['Server'] = HEADERS['Server']
    for cookie in exc.cookies.values():
        response.headers.add('Set-Cookie', cookie.OutputString())
    return response


def raw(error: Error) -> bytes:
    """A refusal to a connection on which nothing is served."""
    body = codec.error(error)
    head = [f'HTTP/1.1 {error.code} {HTTPStatus(error.code).phrase}', *(f'{name}: {JSON[name]}' for name in JSON)]
    return '\r\n'.join([*head, f'Content-Length: {len(body)}', 'Connection: close', '', '']).encode() + body
