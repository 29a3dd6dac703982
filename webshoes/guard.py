"""Who may ask: the rules of `webshoes.core.access` and the app's `auth`, applied to a request before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from webshoes.core.access import Access, Asking, can_be_public, host_setting, refused_page, setting
from webshoes.core.auth import REFUSED, Login
from webshoes.core.context import Context
from webshoes.core.dispatch import Dispatcher, is_pending
from webshoes.core.errors import Error, is_answer
from webshoes.core.handler import Function, Handler
from webshoes.core.meter import Meter
from webshoes.log import Journal
from webshoes.loops import in_time, uncancel

REMEMBERED = 1000  # hosts that need not be looked at again
PREFLIGHT_AGE = '600'  # seconds in which a browser need not ask again
SHOWN = 150  # letters of a path in the log
TOO_SLOW = Error(408, 'The login took too long')


def asking_of(headers: Mapping[str, str]) -> Asking:
    """Read the headers that tell who asks."""
    get = headers.get
    return Asking(get('Host'), get('Origin'), get('Sec-Fetch-Site'), get('Sec-Fetch-Mode'))


class Guard:
    """Refuses requests.

    Args:
        access: which hosts and origins may ask.
        auth: finds the user; `None` lets everybody in.
        public: the HTTP paths that need no login.
        dispatcher, meter, journal: the app's.
    """

    def __init__(
        self,
        access: Access,
        auth: Function | None,
        public: frozenset[str],
        dispatcher: Dispatcher,
        meter: Meter,
        journal: Journal,
    ) -> None:
        self._access = access
        self._auth = auth
        self._public = public
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
            self._tell(f'host {asking.host!r} was refused', host_setting(asking.host or ''))
            raise Error(403, 'This host is not served')
        if not self._access.is_unlisted(asking):
            if len(self._taken) >= REMEMBERED:  # of somebody who makes them up: those of others come back at once
                self._taken.clear()
            self._taken.add(asking.host)
        else:
            self._tell(f'asked as host {asking.host!r}, which is not listed', host_setting(asking.host or ''))

    def passes(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request with these headers passes all that is here, as one of the same host did before."""
        if self._auth is not None or 'Origin' in headers or headers.get('Host') not in self._taken:
            return False
        return headers.get('Sec-Fetch-Site') in (None, 'same-origin', 'none')

    def check_origin(self, asking: Asking, handler: Handler | None = None) -> None:
        """Refuse a page of another origin.

        Args:
            asking: what the request tells.
            handler: what the request would call by GET; a link may open it if it is marked `@ws.page`.

        Raises:
            Error: 403.
        """
        if not self._access.takes_origin(asking, handler is not None and handler.is_page):
            self._tell(*refused_page(asking, handler.name if handler is not None else None))
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

    def _tell(self, what: str, remedy: str | None) -> None:
        self._journal.refusal(what[:300] if remedy is None else f'{what[:300]}; to let it in: {remedy}')

    # --- auth ---

    @property
    def challenge(self) -> dict[str, str]:
        """The header of a refusal with 401."""
        auth = self._auth.fn if self._auth is not None else None
        return {'WWW-Authenticate': auth.challenge} if isinstance(auth, Login) else {}

    @property
    def takes_message(self) -> bool:
        """Return whether a WebSocket may send its token as its first message."""
        return self._auth is not None and isinstance(self._auth.fn, Login) and self._auth.fn.by_message

    def is_public(self, path: str) -> bool:
        """Return whether the decoded path of a plain HTTP request needs no login."""
        return path in self._public

    async def authenticate(self, ctx: Context, may_be_public: bool = False) -> None:
        """Find out who asks; `ctx.user` from here on.

        Args:
            ctx: the context of the request.
            may_be_public: whether the path could be listed in `public`, which the log then says.

        Raises:
            Error: 401, nobody who is let in; 408, `auth` took too long. Or whatever `auth` raises.
        """
        if self._auth is not None:
            await self._accept(ctx, lambda auth: self._dispatcher.run(auth, ctx), may_be_public)

    async def authenticate_by_message(self, ctx: Context, token: object) -> None:
        """As `authenticate`, with the token of a first message."""
        assert self._auth is not None
        login: Any = self._auth.fn  # a BearerLogin, as `takes_message` says

        def ask(auth: Function) -> Any:
            if not isinstance(token, str):
                return None
            return self._dispatcher.run(Function(login.user, auth.name, auth.threaded), token)

        await self._accept(ctx, ask)

    async def _accept(self, ctx: Context, ask: Callable[[Function], Any], may_be_public: bool = False) -> None:
        assert self._auth is not None
        try:
            user = ask(self._auth)
            if is_pending(user):
                user = await in_time(user, self._meter, 'auth_timeout', TOO_SLOW)
            if not self._dispatcher.is_ending:
                await uncancel()  # what `auth` has done to the task is not to end what follows
            if user is None or user is False:
                raise REFUSED
        except BaseException as exc:
            if self._dispatcher.is_end(exc):
                raise
            if not is_answer(exc):
                raise self._dispatcher.error(exc, self._auth.name) from None
            known: Any = exc  # an Error, or an HTTPException of aiohttp
            is_ours = isinstance(known, Error)
            code, message = (known.code, known.message) if is_ours else (known.status, known.reason)
            self.log_refusal(ctx, code, message, may_be_public)
            raise
        ctx.conn.user = user

    def log_refusal(self, ctx: Context, code: int, message: str, may_be_public: bool = False) -> None:
        """Log that a login was refused; a redirect to where one logs in is no refusal."""
        if not 400 <= code < 500:
            return
        kind = 'WebSocket' if ctx.method == 'WS' else ctx.method
        remedy = None
        is_named = may_be_public and len(ctx.p) <= SHOWN and can_be_public(ctx.p)
        if is_named and code == 401 and 'Authorization' not in ctx.req.headers:
            remedy = f'send a login, or serve this path without one: {setting("public", ctx.p)}'
        address = f' from {ctx.conn.remote}' if ctx.conn.remote else ''  # a Unix domain socket has none
        self._tell(f'{kind} {ctx.p[:SHOWN]!r}{address} was refused with {code}: {message!r}', remedy)
