"""webshoes.js where the server asks for a login."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import webshoes as ws
from test.conftest import TIMEOUT

from .pages import NewPage, Site, wait_for


class Door:
    """The tokens that are good now; whoever came in with one that is not is put out."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = set(tokens)

    def check(self, token: str) -> str | None:
        return token if token in self.tokens else None

    def change(self, wsa: ws.WebShoesApp, *tokens: str) -> None:
        self.tokens = set(tokens)
        for conn in wsa.connections:
            conn.close(4401, 'Your login has ended')


@pytest.fixture
def door() -> Door:
    return Door('new')


@pytest.fixture
def api(serve: Any, door: Door) -> ws.WebShoesApp:
    """An app that asks for a token; pages come from another one."""
    wsa: ws.WebShoesApp = serve(
        {'add': lambda ctx, q: int(q.a) + int(q.b)}, auth=ws.bearer_auth(door.check), origins='*'
    )
    return wsa


def open_page(site: Site, new_page: NewPage, api: ws.WebShoesApp, token: str) -> Any:
    """A page whose client `api` gives these tokens, an expression of `asked`, the number of times it was asked."""
    page = new_page(site('cb: () => {}').url)
    page.evaluate(f"""
      globalThis.asked = 0;
      globalThis.api = WebShoes({{ url: '{api.url}', cb: tell, minDelay: 10, maxDelay: 50, token: {token} }});
    """)
    return page


CALL = "api.call('cmd/add', { a: 3, b: 4 }).catch(e => [e.code, e.message])"
NEXT = "++asked > 1 ? 'new' : 'old'"


@pytest.mark.parametrize(
    'token',
    [
        "'new'",
        "() => 'new'",
        "async () => 'new'",
        f'() => {NEXT}',
        f'async () => {NEXT}',
        "() => ++asked > 1 ? 'new' : null",
    ],
)
def test_tokens(site: Site, new_page: NewPage, api: ws.WebShoesApp, token: str) -> None:
    """A token may be a text or a function; one that is refused is asked for once more, and no call is lost."""
    page = open_page(site, new_page, api, token)
    assert page.evaluate(CALL) == 7
    assert page.evaluate("told.filter(([type]) => type === 'error')") == []


@pytest.mark.parametrize(
    ('token', 'asked'),
    [
        ('null', 0),
        ("'old'", 0),
        ("() => { asked++; return 'old'; }", 2),
        ("async () => { asked++; return 'old'; }", 2),
        ("() => 'old' + ++asked", 2),
        ("() => ++asked > 1 ? null : 'old'", 2),
        ("() => { if (++asked > 1) throw new Error('logged out'); return 'old'; }", 2),
        ('() => { asked++; }', 2),
    ],
)
def test_no_other_token(site: Site, new_page: NewPage, api: ws.WebShoesApp, token: str, asked: int) -> None:
    """Without another token, waiting calls end with 401, and the client is closed."""
    page = open_page(site, new_page, api, token)
    code, message = page.evaluate(CALL)
    assert code == 401
    assert 'The server wants a login' in message
    assert page.evaluate('[api.state, asked]') == ['closed', asked]


def test_token_function_that_fails(site: Site, new_page: NewPage, api: ws.WebShoesApp) -> None:
    """A token function that fails is told as an error and asked again, as an attempt that failed."""
    token = "async () => { if (++asked < 3) throw new Error('no network'); return 'new'; }"
    page = open_page(site, new_page, api, token)
    assert page.evaluate(CALL) == 7
    errors = page.evaluate("told.filter(([type]) => type === 'error').map(([, { code, message }]) => [code, message])")
    assert errors == [[401, "The setting 'token' failed: Error: no network"]] * 2


def test_token_that_cannot_be_sent(site: Site, new_page: NewPage, api: ws.WebShoesApp) -> None:
    """A token that cannot be a subprotocol is told as an error."""
    page = open_page(site, new_page, api, "() => ++asked > 1 ? 'new' : 'a b'")
    assert page.evaluate(CALL) == 7
    assert "'token' failed: SyntaxError" in page.evaluate("told.find(([type]) => type === 'error')[1].message")


def test_logins_that_end(site: Site, new_page: NewPage, api: ws.WebShoesApp, door: Door) -> None:
    """Through logins that end and new ones the subscriptions go on, and every version is seen."""
    api.event('e', history=100)
    door.tokens = {'login0'}
    page = open_page(site, new_page, api, "() => 'login' + asked")
    page.evaluate("void api.onEvent('e', follow, { since: { ver: 0 } })")
    wait_for(page, "api.state === 'open'")
    for number in range(1, 5):
        page.evaluate(f'asked = {number}')
        door.change(api, f'login{number}')
        for value in range(5):
            api.triggerEvent('e', value).result(TIMEOUT)
        wait_for(page, f"told.filter(([type]) => type === 'open').length === {number + 1}")
        assert page.evaluate(CALL) == 7  # so that the new login was accepted before it ends
        wait_for(page, f'covered().length >= {5 * number}')
    assert page.evaluate('covered()') == list(range(1, 21))
    assert page.evaluate('seen.some(data => data.epoch || data.from)') is False


def test_login_elsewhere(site: Site, new_page: NewPage, api: ws.WebShoesApp, door: Door) -> None:
    """After a login that ended, another client goes on from the position of the first, and nothing is lost."""
    api.event('e', history=100)
    door.tokens = {'old'}
    page = open_page(site, new_page, api, "'old'")
    page.evaluate("globalThis.off = api.onEvent('e', follow, { since: { ver: 0 } }); void 0")
    for value in range(3):
        api.triggerEvent('e', value).result(TIMEOUT)
    wait_for(page, 'seen.length === 3')
    door.change(api, 'new')
    wait_for(page, "api.state === 'closed'")
    for value in range(5):
        api.triggerEvent('e', value).result(TIMEOUT)
    page.evaluate(
        f"void WebShoes({{ url: '{api.url}', token: 'new' }}).onEvent('e', follow, {{ since: off.position }})"
    )
    wait_for(page, 'seen.length === 8')
    assert page.evaluate('covered()') == list(range(1, 9))


def test_calls_that_were_sent(site: Site, new_page: NewPage, api: ws.WebShoesApp, door: Door) -> None:
    """A call that an ended login interrupts is not made again unless it may be; one that waits for a login is."""
    made = []

    @api.command('cmd/put-out')
    async def put_out(ctx: ws.Context, q: Any) -> None:
        made.append(q.name)
        if made.count(q.name) == 1:
            ctx.conn.close(4401, 'Your login has ended')
            while ctx.conn in api.connections:
                await asyncio.sleep(0.001)

    page = open_page(site, new_page, api, "() => 'new' + '.'.repeat(asked++ % 2)")
    door.tokens = {'new', 'new.'}
    wait_for(page, "api.state === 'open'")
    code = "api.call('cmd/put-out', { name: 'once' }).catch(e => e.code)"
    assert page.evaluate(code) == 503
    assert page.evaluate("api.call('cmd/put-out', { name: 'twice' }, { retry: true })") is None
    assert page.evaluate(CALL) == 7
    assert made == ['once', 'twice', 'twice']


def test_who_may_not(site: Site, serve: Any, new_page: NewPage) -> None:
    """If the server does not let a user in, waiting calls end with 403 and the reason."""

    def check(ctx: ws.Context) -> None:
        raise ws.Error(403, 'Not you')

    page = open_page(site, new_page, serve(auth=check, origins='*'), "() => 'x' + asked++")
    wait_for(page, "api.state === 'closed'")
    assert page.evaluate(CALL) == [403, 'The server does not let this user in (4403 Not you)']
    assert page.evaluate('[api.state, asked]') == ['closed', 1]
