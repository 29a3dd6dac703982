"""Ready-made logins: how they are read from headers, and what a check may be and give (RFC 7617, RFC 6750)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from propertybag import Bag

from webshoes.core.auth import BearerLogin, Login, basic_auth, bearer_auth
from webshoes.core.connection import Connection
from webshoes.core.context import Context, Scope
from webshoes.core.dispatch import is_pending
from webshoes.core.errors import Error
from webshoes.core.handler import is_threaded, threaded

USER = object()
TOKEN = 'dG9rZW4-_.~'


def context(method: str = 'GET', **headers: str) -> Context:
    request = SimpleNamespace(headers={name.replace('_', '-'): value for name, value in headers.items()})
    return Context(Scope(req=request, opts=Bag(), wsa=None, ws=None, conn=Connection('c', None, 0)), '/', None, method)


def basic(login: str | bytes, kind: str = 'Basic ') -> str:
    data = login.encode() if isinstance(login, str) else login
    return kind + base64.b64encode(data).decode()


def ask(login: Login, ctx: Context) -> Any:
    """The user, awaited if need be; or the code of the refusal."""
    try:
        user = login(ctx)
    except Error as error:
        return error.code

    async def later() -> Any:
        return await user

    with ThreadPoolExecutor(1) as beside:  # a loop that the browser tests leave behind on this one
        return beside.submit(asyncio.run, later()).result() if is_pending(user) else user


# --- basic ---


@pytest.mark.parametrize(
    ('header', 'seen'),
    [
        (basic('ann:pass'), ('ann', 'pass')),
        (basic('ann:pass', 'BASIC '), ('ann', 'pass')),
        (basic('ann:pass', 'basic   '), ('ann', 'pass')),
        ('  ' + basic('ann:pass') + '  ', ('ann', 'pass')),
        (basic('ann:pa:ss:'), ('ann', 'pa:ss:')),
        (basic('ann:'), ('ann', '')),
        (basic(':pass'), ('', 'pass')),
        (basic(':'), ('', '')),
        (basic('j\xf6rg:p\xe4ss \U0001f511'), ('j\xf6rg', 'p\xe4ss \U0001f511')),
        (basic(' ann : pass '), (' ann ', ' pass ')),
        (basic('ann:\0'), ('ann', '\0')),
        ('', None),
        ('Basic', None),
        ('Basic ', None),
        ('Basic ann:pass', None),
        ('Basic YW5uOnBhc3', None),
        ('Basic YW5uOnBhc3M', None),
        ('Basic YW5u OnBhc3M=', None),
        ('Basic YW5uOnBhc3M=, Basic YW5uOnBhc3M=', None),
        ('Basic \xe4\xf6', None),
        ('Basic \udcff', None),
        ('Basic' + basic('ann:pass', ''), None),
        (basic('ann'), None),
        (basic(''), None),
        (basic('j\xf6rg:pass'.encode('latin-1')), None),
        (basic('ann:pass', 'Bearer '), None),
        (basic('ann:pass', 'Digest '), None),
        (basic('ann:pass', ''), None),
    ],
)
def test_basic(header: str, seen: tuple[str, str] | None) -> None:
    """Name and password are read whole, and what is no such login is 401 without a question."""
    asked = []

    def check(name: str, password: str) -> bool:
        asked.append((name, password))
        return True

    assert ask(basic_auth(check), context(Authorization=header)) == (seen[0] if seen else 401)
    assert asked == ([seen] if seen else [])


@pytest.mark.parametrize(
    ('login', 'user'),
    [
        ('ann:pass', 'ann'),
        ('j\xf6rg:p\xe4ss', 'j\xf6rg'),
        ('bob:', 'bob'),
        ('ann:Pass', None),
        ('ann:pas', None),
        ('ann:passs', None),
        ('ann:', None),
        ('Ann:pass', None),
        ('nobody:pass', None),
        ('nobody:', None),
        (':', None),
    ],
)
def test_passwords_by_name(login: str, user: str | None) -> None:
    """A mapping lets in those whose password it has, and nobody else."""
    passwords = {'ann': 'pass', 'j\xf6rg': 'p\xe4ss', 'bob': ''}
    auth = basic_auth(passwords)
    assert ask(auth, context(Authorization=basic(login))) in ((user,) if user else (None, False))
    passwords.clear()
    assert not ask(auth, context(Authorization=basic(login)))


# --- bearer ---


@pytest.mark.parametrize(
    ('header', 'seen'),
    [
        (f'Bearer {TOKEN}', TOKEN),
        (f'bEARER   {TOKEN}  ', TOKEN),
        (f' Bearer {TOKEN}', TOKEN),
        ('Bearer a b', 'a b'),
        ('Bearer t\xf6k\u20acn', 't\xf6k\u20acn'),
        ('Bearer \udcff', '\udcff'),
        ('', None),
        (TOKEN, None),
        (f'Token {TOKEN}', None),
        (f'Bearer{TOKEN}', None),
        (basic('ann:pass'), None),
    ],
)
def test_bearer(header: str, seen: str | None) -> None:
    """The token is read whole, and where there is none it is 401 without a question."""
    asked = []

    def check(token: str) -> object:
        asked.append(token)
        return USER

    assert ask(bearer_auth(check), context(Authorization=header)) == (USER if seen else 401)
    assert asked == ([seen] if seen else [])


@pytest.mark.parametrize(
    ('method', 'offered', 'seen'),
    [
        ('WS', f'webshoes, {TOKEN}', [TOKEN]),
        ('WS', f'{TOKEN},webshoes', [TOKEN]),
        ('WS', f' ,, {TOKEN} ', [TOKEN]),
        ('WS', f'{TOKEN}, other', [TOKEN]),
        ('WS', 'webshoes', []),
        ('WS', '', []),
        ('WS', ', ,', []),
        ('GET', f'webshoes, {TOKEN}', []),
        ('POST', TOKEN, []),
    ],
)
def test_a_token_among_subprotocols(method: str, offered: str, seen: list[str]) -> None:
    """A WebSocket's first subprotocol that is not ours is its token; another request has none."""
    asked: list[str] = []
    ask(bearer_auth(asked.append), context(method, Sec_WebSocket_Protocol=offered))
    assert asked == seen


def test_a_header_comes_before_subprotocols() -> None:
    """Where a WebSocket has both, the header's token is the one."""
    asked: list[str] = []
    ask(bearer_auth(asked.append), context('WS', Authorization='Bearer a', Sec_WebSocket_Protocol='webshoes, b'))
    assert asked == ['a']


@pytest.mark.parametrize(
    ('token', 'is_right'),
    [(TOKEN, True), (TOKEN[:-1], False), (TOKEN + 'x', False), (TOKEN.upper(), False), ('\udcff', False), ('x', False)],
)
def test_one_token(token: str, is_right: bool) -> None:
    """A text is the token that all have who are let in."""
    user = ask(bearer_auth(TOKEN), context(Authorization=f'Bearer {token}'))
    assert user is True if is_right else user in (None, False)


def test_users_by_token() -> None:
    """A mapping gives the user of each token, as it is."""
    users = {'a': 'ann', 'b': {'name': 'bob'}, 't\xf6k': 3, '\udcff': 'odd'}
    auth = bearer_auth(users)
    for token, user in users.items():
        assert ask(auth, context(Authorization=f'Bearer {token}')) == user
    assert ask(auth, context(Authorization='Bearer c')) is None


# --- what checks may be, and give ---


@pytest.mark.parametrize(
    ('given', 'name', 'token'),
    [
        (True, 'ann', True),
        (None, None, None),
        (False, None, None),
        (USER, USER, USER),
        ('bob', 'bob', 'bob'),
        (0, 0, 0),
        (1, 1, 1),
        ('', '', ''),
        ({}, {}, {}),
    ],
)
@pytest.mark.parametrize('kind', ['plain', 'async', 'threaded', 'future'])
def test_what_a_check_gives(given: Any, name: Any, token: Any, kind: str) -> None:
    """`True` is the name itself, `None` and `False` refuse, and all else is the user; however the check is written."""

    def plain(*login: str) -> Any:
        return given

    async def later(*login: str) -> Any:
        await asyncio.sleep(0)
        return given

    class Promise:
        def __await__(self) -> Any:
            yield
            return given

    checks: dict[str, Callable[..., Any]] = {
        'plain': plain,
        'async': later,
        'threaded': threaded(lambda *login: given),
        'future': lambda *login: Promise(),
    }
    for auth, header, user in (
        (basic_auth(checks[kind]), basic('ann:x'), name),
        (bearer_auth(checks[kind]), 'Bearer x', token),
    ):
        found = ask(auth, context(Authorization=header))
        assert (found, type(found)) == (user, type(user))
        assert is_threaded(auth) == (kind == 'threaded')


@pytest.mark.parametrize('make', [basic_auth, bearer_auth])
@pytest.mark.parametrize('check', [None, 3, ['ann'], b'token'])
def test_what_is_no_check(make: Callable[[Any], Login], check: Any) -> None:
    """What cannot be asked is refused when the app is made, by its name."""
    with pytest.raises(TypeError, match=f'{make.__name__}: a function or a dict is needed'):
        make(check)


def test_challenges() -> None:
    """A refusal says what kind of login is needed (RFC 9110 section 11.6.1)."""
    assert basic_auth({}).challenge == 'Basic realm="webshoes", charset="UTF-8"'
    assert bearer_auth({}).challenge == 'Bearer realm="webshoes"'


def test_first_messages_are_asked_for() -> None:
    """A token in a first message is taken where that is enabled alone, and means what it means in a header."""
    assert not bearer_auth(TOKEN).by_message
    assert not basic_auth({}).by_message
    auth = bearer_auth({TOKEN: USER}, by_message=True)
    assert isinstance(auth, BearerLogin)
    assert (auth.by_message, auth.user(TOKEN), auth.user('x')) == (True, USER, None)


@pytest.mark.parametrize('check', ['', {'': 'ann'}, {'a': 'ann', '': 'bob'}])
def test_an_empty_token(check: Any) -> None:
    """An empty token, as of an environment variable that is not set, is refused when the app is made."""
    with pytest.raises(ValueError, match='the token is empty'):
        bearer_auth(check)
