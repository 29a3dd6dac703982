"""Who may ask: the rules of `webshoes.core.access` and the app's `auth`, applied to a request before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from webshoes.core.access import Access, Asking, host_setting, origin_setting
from webshoes.core.auth import REFUSED, BearerLogin, Login
from webshoes.core.context import Context
from webshoes.core.dispatch import Dispatcher, is_pending
from webshoes.core.errors import Error, is_answer
from webshoes.core.handler import Function
from webshoes.core.meter import Meter
from webshoes.log import Journal
from webshoes.loops import in_time

REMEMBERED = 1000  # hosts that need not be looked at again
PREFLIGHT_AGE = '600'  # seconds in which a browser need not ask again
TOO_SLOW = Error(408, 'The login took too long')


def asking_of(headers: Mapping[str, str]) -> Asking:
    """What the headers of a request tell of who asks."""
    get = headers.get
    return Asking(get('Host'), get('Origin'), get('Sec-Fetch-Site'), get('Sec-Fetch-Mode'))


class Guard:
    """Refuses requests.

    Args:
        access: which hosts and origins may ask.
        auth: finds the user; `None` lets everybody in.
        dispatcher, meter, journal: the app's.
    """

    def __init__(
        self, access: Access, auth: Function | None, dispatcher: Dispatcher, meter: Meter, journal: Journal
    ) -> None:
        self._access = access
        self._auth = auth
        self._dispatcher = dispatcher
        self._meter = meter
        self._journal = journal
        self._taken: set[str | None] = set()  # hosts that need not be looked at again

    # --- host and origin ---

    def check_host(self, asking: Asking) -> None:
        """Refuse what was meant for another host.

        Raises:
            Error: 403.
        """
        if not self._access.takes_host(asking):
            self._tell(f'host {asking.host!r} was refused', 'hosts', host_setting(asking.host or ''))
            raise Error(403, 'This host is not served')
        if not self._access.is_unlisted(asking):
            if len(self._taken) >= REMEMBERED:  # of somebody who makes them up: those of others come back at once
                self._taken.clear()
            self._taken.add(asking.host)
        else:
            self._tell(f'asked as host {asking.host!r}, which is not listed', 'hosts', host_setting(asking.host or ''))

    def passes(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers passes all that is here, as one of the same host did before."""
        if self._auth is not None or 'Origin' in headers or headers.get('Host') not in self._taken:
            return False
        return headers.get('Sec-Fetch-Site') in (None, 'same-origin', 'none')

    def check_origin(self, asking: Asking, is_page: bool = False) -> None:
        """Refuse a page of another origin.

        Raises:
            Error: 403.
        """
        if not self._access.takes_origin(asking, is_page):
            if asking.origin is not None:
                self._tell(f'a page of origin {asking.origin!r} was refused', 'origins', origin_setting(asking.origin))
            else:
                self._tell('a page of another origin, which the browser does not name, was refused', 'origins', '*')
            raise Error(403, 'Pages of this origin are not let in')

    def cors(self, asking: Asking) -> dict[str, str]:
        """The headers that let a page of another origin read the answer (Fetch standard, CORS protocol)."""
        if not self._access.has_origins:
            return {}
        if asking.origin is None or self._access.is_own(asking) or not self._access.is_listed(asking.origin):
            return {'Vary': 'Origin'}
        if self._access.takes_all:
            return {'Access-Control-Allow-Origin': '*'}
        return {
            'Access-Control-Allow-Origin': asking.origin,
            'Access-Control-Allow-Credentials': 'true',
            'Vary': 'Origin',
        }

    def preflight(self, asking: Asking, headers: Mapping[str, str], allow: str) -> dict[str, str]:
        """The headers of the answer to a preflight with these headers.

        Raises:
            Error: 403, the origin is not let in.
        """
        self.check_origin(asking)
        answer = {**self.cors(asking), 'Access-Control-Allow-Methods': allow, 'Access-Control-Max-Age': PREFLIGHT_AGE}
        if asked := headers.get('Access-Control-Request-Headers'):
            answer['Access-Control-Allow-Headers'] = asked
        return answer

    def _tell(self, what: str, setting: str, value: str | None) -> None:
        line = what[:300]
        if value is not None:
            line += f'; to let it in: WebShoesApp(..., {setting}=[{value!r}])'
        self._journal.refusal(line)

    # --- auth ---

    @property
    def challenge(self) -> dict[str, str]:
        """The header of a refusal with 401."""
        auth = self._auth.fn if self._auth is not None else None
        return {'WWW-Authenticate': auth.challenge} if isinstance(auth, Login) else {}

    @property
    def takes_message(self) -> bool:
        """Whether a WebSocket may send its token as its first message."""
        return self._auth is not None and isinstance(self._auth.fn, Login) and self._auth.fn.by_message

    async def authenticate(self, ctx: Context) -> None:
        """Find out who asks; `ctx.user` from here on.

        Raises:
            Error: 401, nobody who is let in; 408, `auth` took too long. Or whatever `auth` raises.
        """
        if self._auth is not None:
            await self._accept(ctx, lambda auth: self._dispatcher.run(auth, ctx))

    async def authenticate_by_message(self, ctx: Context, token: object) -> None:
        """As `authenticate`, with the token of a first message."""
        assert self._auth is not None
        login = self._auth.fn
        if not isinstance(login, BearerLogin) or not isinstance(token, str):
            raise REFUSED
        await self._accept(
            ctx, lambda auth: self._dispatcher.run(Function(login.user, auth.name, auth.threaded), token)
        )

    async def _accept(self, ctx: Context, ask: Callable[[Function], Any]) -> None:
        assert self._auth is not None
        try:
            user = ask(self._auth)
            if is_pending(user):
                user = await in_time(user, self._meter, 'auth_timeout', TOO_SLOW)
        except Exception as exc:
            if is_answer(exc):
                raise
            raise self._dispatcher.error(exc, self._auth.name) from None
        if user is None or user is False:
            raise REFUSED
        ctx.conn.user = user
