"""Errors as answers of HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from webshoes.core import codec
from webshoes.core.errors import Error
from webshoes.headers import JSON


def answer(error: Error, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error, with these headers too, on a connection that goes on."""
    return web.Response(status=error.code, body=codec.error(error), headers={**JSON, **(headers or {})})


def refused(error: Error) -> web.Response:
    """An error that ends its connection."""
    response = answer(error)
    response.force_close()
    return response


def raw(error: Error) -> bytes:
    """A refusal to a connection on which nothing is served."""
    body = codec.error(error)
    head = [f'HTTP/1.1 {error.code} {HTTPStatus(error.code).phrase}', *(f'{name}: {JSON[name]}' for name in JSON)]
    return '\r\n'.join([*head, f'Content-Length: {len(body)}', 'Connection: close', '', '']).encode() + body
