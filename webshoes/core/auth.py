"""Ready-made `auth`: HTTP Basic (RFC 7617) and bearer tokens (RFC 6750)."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from typing import Any

from webshoes.core.context import Context
from webshoes.core.dispatch import is_pending
from webshoes.core.errors import Error
from webshoes.core.handler import is_threaded, threaded

SUBPROTOCOL = 'webshoes'
REFUSED = Error(401, 'A login is needed')


class Login:
    """What `basic_auth` and `bearer_auth` give: an `auth` of the app.

    Attributes:
        challenge: what a refusal says in `WWW-Authenticate` (RFC 9110 section 11.6.1).
        by_message: whether a WebSocket may send its token as its first message.
    """

    challenge: str
    by_message = False

    def __init__(self, check: Callable[..., Any]) -> None:
        self._check = check
        if is_threaded(check):
            threaded(self)

    def __call__(self, ctx: Context) -> Any:
        """The user, or an awaitable of it.

        Raises:
            Error: 401, there is no login in the request, or none of this kind.
        """
        raise NotImplementedError

    def _user(self, name: Any, *login: str) -> Any:
        found = self._check(*login)
        return _later(name, found) if is_pending(found) else _named(name, found)


class BasicLogin(Login):
    """HTTP Basic."""

    challenge = 'Basic realm="webshoes", charset="UTF-8"'

    def __call__(self, ctx: Context) -> Any:
        """The user of the `Authorization` header."""
        kind, given = _authorization(ctx)
        if kind != 'basic':
            raise REFUSED
        try:
            name, colon, password = base64.b64decode(given, validate=True).decode().partition(':')
        except ValueError:  # no base64, or no UTF-8
            raise REFUSED from None
        if not colon:
            raise REFUSED
        return self._user(name, name, password)


class BearerLogin(Login):
    """A bearer token."""

    challenge = 'Bearer realm="webshoes"'

    def __init__(self, check: Callable[..., Any], by_message: bool) -> None:
        super().__init__(check)
        self.by_message = by_message

    def __call__(self, ctx: Context) -> Any:
        """The user of the token in the `Authorization` header; of a WebSocket also among the subprotocols it offers."""
        kind, token = _authorization(ctx)
        if kind == 'bearer':
            return self.user(token)
        offered = offered_token(ctx.req.headers) if ctx.method == 'WS' else None
        if offered is None:
            raise REFUSED
        return self.user(offered)

    def user(self, token: str) -> Any:
        """The user of a token, or an awaitable of it."""
        return self._user(True, token)


def basic_auth(check: Mapping[str, str] | Callable[[str, str], Any]) -> Login:
    """An `auth` that asks for a name and a password, as browsers do: `auth=ws.basic_auth({'ann': '...'})`.

    Args:
        check: the passwords by name, or `check(name, password)`, which gives the user, `True` for the name itself, or
            `None` or `False` to refuse; a coroutine function or `@threaded` one too.
    """
    return BasicLogin(_passwords(check) if isinstance(check, Mapping) else _callable(check, 'basic_auth'))


def bearer_auth(check: str | Mapping[str, Any] | Callable[[str], Any], *, by_message: bool = False) -> Login:
    """An `auth` that asks for a token: `auth=ws.bearer_auth('...')`.

    A WebSocket of a browser can set no header; it offers a subprotocol: `new WebSocket(url, ['webshoes', token])`.

    Args:
        check: the token; or the users by token; or `check(token)`, as that of `basic_auth`.
        by_message: whether a WebSocket may instead send `{"auth": token}` as its very first message.

    Raises:
        ValueError: a token is empty.
    """
    if isinstance(check, str):
        check = {check: True}
    if isinstance(check, Mapping) and '' in check:  # of an environment variable that is not set, say
        raise ValueError('bearer_auth: the token is empty, so that everybody would be let in')
    return BearerLogin(_tokens(check) if isinstance(check, Mapping) else _callable(check, 'bearer_auth'), by_message)


def _passwords(passwords: Mapping[str, str]) -> Callable[[str, str], bool]:
    def check(name: str, password: str) -> bool:
        known = passwords.get(name)
        is_right = _is_same(password, known or '')
        return known is not None and is_right

    return check


def _tokens(users: Mapping[str, Any]) -> Callable[[str], Any]:
    def check(token: str) -> Any:
        found = None
        for known, user in users.items():  # all of them, so that the time tells nothing
            if _is_same(token, known):
                found = user
        return found

    return check


def _is_same(given: str, known: str) -> bool:
    return compare_digest(given.encode('utf-8', 'surrogatepass'), known.encode('utf-8', 'surrogatepass'))


def _callable(check: Any, name: str) -> Callable[..., Any]:
    if not callable(check):
        raise TypeError(f'{name}: a function or a dict is needed, not {check!r}')
    found: Callable[..., Any] = check
    return found


def offered_token(headers: Mapping[str, str]) -> str | None:
    """The token among the subprotocols that a handshake offers, if there is one."""
    offered = (it.strip() for it in headers.get('Sec-WebSocket-Protocol', '').split(','))
    return next((it for it in offered if it not in ('', SUBPROTOCOL)), None)


def _authorization(ctx: Context) -> tuple[str, str]:
    kind, _, rest = ctx.req.headers.get('Authorization', '').strip().partition(' ')
    return kind.lower(), rest.strip()


def _named(name: Any, found: Any) -> Any:
    return name if found is True else None if found is False else found


async def _later(name: Any, found: Awaitable[Any]) -> Any:
    return _named(name, await found)
