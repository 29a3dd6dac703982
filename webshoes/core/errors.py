"""Every error a client can be told of, and the one gate where an exception becomes one.

    Exception
    └── Error(code, message)     the client is told both, on every transport

Whose fault it is follows from the code, as in HTTP (RFC 9110 section 15): 4xx the client's, 5xx ours. An exception
that is not an `Error` is nobody's business outside: the client reads `Server error`, the log reads the traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from webshoes.core.text import check_text

SERVER_ERROR = 'Server error'
STOPPING = 'The server is stopping'
# Types of the HTTP library's errors: each has a status, a reason and a text.
HTTP_ERRORS: list[type[BaseException]] = []


class Error(Exception):
    """What a handler raises to answer with an error of its own: `raise ws.Error(404, 'No such cell')`.

    Args:
        code: the HTTP status, 400 to 599 (499 `Cancelled` included). It is the answer's status over HTTP and its
            `code` over WebSocket.
        message: one sentence for the client.

    Raises:
        ValueError: `code` is not an error status.
        TypeError: the message has a lone surrogate, which cannot be sent.
    """

    def __init__(self, code: int, message: str) -> None:
        if not isinstance(code, int) or not 400 <= code <= 599:
            raise ValueError(f'an error code is an HTTP status from 400 to 599, not {code!r}')
        super().__init__(code, message)
        self.code = code
        self.message = str(message)
        check_text(self.message, "an error's message")

    def __str__(self) -> str:
        return self.message


def from_exception(exc: BaseException, on_failure: Callable[[BaseException], None]) -> Error:
    """The gate: any exception of a handler becomes the error its client is told.

    Args:
        exc: what was raised.
        on_failure: called with `exc` when it is a failure of the handler's own, to be logged.
    """
    if isinstance(exc, Error):
        exc.__context__ = None  # a constant (`raise NOT_FOUND`) would keep the frames of all calls that raised it
        return exc.with_traceback(None)
    if is_answer(exc):
        with suppress(Exception):  # one that was made wrongly is a failure like any other
            return _from_http(exc)
    on_failure(exc)
    return Error(500, SERVER_ERROR)


def is_answer(exc: BaseException) -> bool:
    """Return whether an exception is meant for the client, and no failure."""
    return isinstance(exc, (Error, *HTTP_ERRORS))


def _from_http(exc: Any) -> Error:
    default = f'{exc.status}: {exc.reason}'
    sentence = exc.reason if not exc.text or exc.text == default else exc.text
    return Error(exc.status if exc.status >= 400 else 406, sentence)
