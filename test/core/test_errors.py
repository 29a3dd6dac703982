"""The gate where an exception becomes the error its client is told."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from aiohttp import web

from webshoes.core import codec
from webshoes.core.errors import Error, from_exception


def unheard(exc: BaseException) -> None:
    pytest.fail(f'{exc!r} is told as a failure')


@pytest.mark.parametrize('code', [400, 404, 499, 500, 599, HTTPStatus.NOT_FOUND])
def test_error_code(code: int) -> None:
    """An error keeps its code and sentence, and reads as the sentence."""
    error = Error(code, 'No such cell')
    assert (error.code, error.message, str(error)) == (code, 'No such cell', 'No such cell')


@pytest.mark.parametrize('code', [0, 200, 399, 600, '404', None, 404.0, True])
def test_error_code_that_is_none(code: Any) -> None:
    """A code that is no error status is refused where the error is made."""
    with pytest.raises(ValueError, match='an error code is an HTTP status from 400 to 599'):
        Error(code, 'x')


def test_error_of_a_named_status() -> None:
    """A code given as an HTTPStatus is sent as its number."""
    assert codec.decode(codec.error(Error(HTTPStatus.GONE, 'x'))) == {'error': 'x', 'code': 410}


def test_own_error_passes() -> None:
    """An Error passes the gate as it is, and is no failure."""
    error = Error(404, 'x')
    assert from_exception(error, unheard) is error


@pytest.mark.parametrize(
    ('exc', 'code', 'message'),
    [
        (web.HTTPNotFound(), 404, 'Not Found'),
        (web.HTTPNotFound(text='No such cell'), 404, 'No such cell'),
        (web.HTTPForbidden(reason='Members only'), 403, 'Members only'),
        (web.HTTPNotFound(text=''), 404, 'Not Found'),
        (web.HTTPServiceUnavailable(), 503, 'Service Unavailable'),
        (web.HTTPFound('/elsewhere'), 406, 'Found'),
    ],
)
def test_http_exception(exc: web.HTTPException, code: int, message: str) -> None:
    """An HTTPException keeps its status and text; one that is no error cannot be sent and is 406."""
    error = from_exception(exc, unheard)
    assert (error.code, error.message) == (code, message)


class Odd(web.HTTPException):
    """What has no status."""

    status_code = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    'exc',
    [
        *(ValueError('secret'), KeyError('secret'), SystemExit(3), KeyboardInterrupt()),
        *(web.HTTPNotFound.__new__(web.HTTPNotFound), Odd.__new__(Odd)),
    ],
)
def test_failure(exc: BaseException) -> None:
    """Anything else is 500 without any detail, and is told once."""
    told: list[BaseException] = []
    error = from_exception(exc, told.append)
    assert (error.code, error.message, told) == (500, 'Server error', [exc])


class HostileError(Exception):
    """What fails when it is asked for what it does not have."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)


def test_failure_that_is_hostile() -> None:
    """An exception that fails when it is looked at is a failure like any other."""
    told: list[str] = []
    error = from_exception(HostileError('secret'), lambda exc: told.append(type(exc).__name__))
    assert (error.code, error.message, told) == (500, 'Server error', ['HostileError'])
