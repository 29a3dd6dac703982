"""A page of another origin in a real browser can do nothing, unless it is listed; and how pages log in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

import webshoes as ws
from test.conftest import Serve
from test.faces import until

from .pages import NewPage

TOKEN = 'a-token_of.43~letters'
HTML = '<!doctype html><link rel="icon" href="data:,"><script src="/webshoes.js"></script>'

# Each gives what a page comes by: a value, or the word `nothing`.
ATTACKS = {
    'GET': "fetch(at + '/cmd/do').then(r => r.text(), () => 'nothing')",
    'POST': "fetch(at + '/cmd/do', { method: 'POST', body: 'a=1' }).then(r => r.text(), () => 'nothing')",
    'JSON': """fetch(at + '/cmd/do', { method: 'POST', body: '{}', headers: { 'Content-Type': 'application/json' } })
        .then(r => r.text(), () => 'nothing')""",
    'DELETE': "fetch(at + '/cmd/do', { method: 'DELETE' }).then(r => r.text(), () => 'nothing')",
    'cookies': "fetch(at + '/cmd/do', { credentials: 'include' }).then(r => r.text(), () => 'nothing')",
    'state': "fetch(at + '/cmd?evt=heat').then(r => r.json()).then(({ r }) => r, () => 'nothing')",
    'EventSource': """new Promise(resolve => {
        const source = new EventSource(at + '/cmd?evt=heat');
        source.onmessage = ({ data }) => { source.close(); resolve(JSON.parse(data).r); };
        source.onerror = () => { if (source.readyState === 2) resolve('nothing'); };
      })""",
    'WebSocket': """new Promise(resolve => {
        const socket = new WebSocket(at.replace('http', 'ws'));
        socket.onopen = () => socket.send('{"cmd": "cmd/do"}');
        socket.onmessage = ({ data }) => { socket.close(); resolve(JSON.parse(data).r); };
        socket.onclose = ({ code, reason }) => resolve(`${code} ${reason}`);
      })""",
    'webshoes.js': """new Promise(resolve => {
        const wsc = WebShoes({ url: at, cb: type => { if (type === 'close') resolve('nothing'); } });
        wsc.call('cmd/do').then(resolve).then(() => wsc.close());
      })""",
}
# What is sent without a question and never read; `load` and `error` tell no more than that an answer came.
BLIND = {
    'image': """new Promise(resolve => {
        const image = new Image();
        image.onload = image.onerror = () => resolve();
        image.src = at + '/cmd/do';
      })""",
    'script': """new Promise(resolve => {
        const script = document.createElement('script');
        script.onload = script.onerror = () => resolve();
        script.src = at + '/cmd/do';
        document.head.append(script);
      })""",
    'no-cors': "fetch(at + '/cmd/do', { method: 'POST', mode: 'no-cors' }).then(() => null, () => null)",
    'frame': """new Promise(resolve => {
        const frame = document.createElement('iframe');
        frame.onload = () => resolve();
        frame.src = at + '/cmd/do';
        document.body.append(frame);
      })""",
}


NewDesk = Callable[..., 'Desk']


class Desk:
    """An app with a page, that notes for whom something was done."""

    def __init__(self, serve: Serve, folder: Path, **settings: Any) -> None:
        self.done: list[Any] = []
        self.wsa = serve({'do': self.do, 'open': ws.page(self.do)}, **settings)
        (folder / 'index.html').write_text(HTML)
        self.wsa.register('*', '', '', '', '', {'*': {'root': folder, 'defpage': 'index.html'}})
        self.wsa.triggerEvent('heat', 'done')

    def do(self, ctx: ws.Context, q: Any) -> str:
        self.done.append(ctx.user)
        return 'done'


@pytest.fixture
def desk(serve: Serve, tmp_path: Path) -> NewDesk:
    return lambda **settings: Desk(serve, tmp_path, **settings)


def visit(new_page: NewPage, home: ws.WebShoesApp, target: ws.WebShoesApp, **settings: Any) -> Page:
    """A page of one app that knows where the other one is."""
    page = new_page(home.url, may_fail=home is not target, **settings)
    page.evaluate(f"globalThis.at = '{target.url}'")
    return page


def test_a_page_of_another_origin(desk: NewDesk, new_page: NewPage) -> None:
    """It comes by nothing and has nothing done, in whatever way it asks."""
    target, home = desk(), desk()
    page = visit(new_page, home.wsa, target.wsa)
    found = {name: page.evaluate(attack) for name, attack in ATTACKS.items()}
    refusal = {'WebSocket': '4403 Pages of this origin are not let in'}
    assert found == dict.fromkeys(ATTACKS, 'nothing') | refusal
    for attack in BLIND.values():
        page.evaluate(attack)
    assert (target.done, target.wsa.connections) == ([], [])


@pytest.mark.parametrize('origins', ['that', 'all'])
def test_a_page_of_a_listed_origin(desk: NewDesk, new_page: NewPage, origins: str) -> None:
    """It calls and reads as the server's own pages do; but with cookies only where it is listed by name."""
    home = desk()
    target = desk(origins=[home.wsa.url] if origins == 'that' else '*')
    page = visit(new_page, home.wsa, target.wsa)
    found = {name: page.evaluate(attack) for name, attack in ATTACKS.items()}
    assert found == dict.fromkeys(ATTACKS, 'done') | ({'cookies': 'nothing'} if origins == 'all' else {})
    del target.done[:]
    for attack in BLIND.values():
        page.evaluate(attack)
    assert len(target.done) == (len(BLIND) if origins == 'all' else 1)  # the others do not say where they come from


def test_its_own_pages(desk: NewDesk, new_page: NewPage) -> None:
    """The server's own page does all of it without a setting."""
    home = desk()
    page = visit(new_page, home.wsa, home.wsa)
    assert {name: page.evaluate(attack) for name, attack in ATTACKS.items()} == dict.fromkeys(ATTACKS, 'done')


def test_a_page_by_another_name_of_loopback(desk: NewDesk, new_page: NewPage) -> None:
    """On one port `localhost` and `127.0.0.1` are one host: the page may call, and reads no more than was listed."""
    home = desk()
    page = new_page(f'http://localhost:{home.wsa.port}', may_fail=True)
    page.evaluate(f"globalThis.at = '{home.wsa.url}'")
    assert page.evaluate(ATTACKS['WebSocket']) == 'done'
    assert page.evaluate(ATTACKS['state']) == 'nothing'


@pytest.mark.parametrize(('path', 'done'), [('/cmd/open', [None]), ('/cmd/do', [])])
def test_a_link_from_elsewhere(desk: NewDesk, new_page: NewPage, path: str, done: list[Any]) -> None:
    """A link that is followed opens a handler that is a page, and no other."""
    target, home = desk(), desk()
    page = visit(new_page, home.wsa, target.wsa)
    page.evaluate(f"document.body.innerHTML = `<a href='${{at}}{path}'>go</a>`")
    with page.expect_navigation(url=f'{target.wsa.url}{path}') as navigation:
        page.click('a')
    assert navigation.value.status == (200 if done else 403)
    assert target.done == done


@pytest.mark.parametrize('path', ['/cmd/open', '/cmd/do'])
def test_a_form_from_elsewhere(desk: NewDesk, new_page: NewPage, path: str) -> None:
    """A form that is sent from elsewhere does nothing, be it to a page."""
    target, home = desk(), desk()
    page = visit(new_page, home.wsa, target.wsa)
    page.evaluate(f"document.body.innerHTML = `<form action='${{at}}{path}' method=post><button>go</form>`")
    with page.expect_navigation(url=f'{target.wsa.url}{path}') as navigation:
        page.click('button')
    assert (navigation.value.status, target.done) == (403, [])


# --- logins ---


def test_basic_auth(desk: NewDesk, new_page: NewPage) -> None:
    """A person logs in once, and the page, its calls, its events and its WebSocket all have the user."""
    home = desk(auth=ws.basic_auth({'ann': 'p\xe4ss'}))
    page = visit(new_page, home.wsa, home.wsa, http_credentials={'username': 'ann', 'password': 'p\xe4ss'})
    assert {name: page.evaluate(attack) for name, attack in ATTACKS.items()} == dict.fromkeys(ATTACKS, 'done')
    assert set(home.done) == {'ann'}


def test_a_token_among_subprotocols(desk: NewDesk, new_page: NewPage) -> None:
    """`protocols: ['webshoes', token]` logs webshoes.js in, and again when its connection was lost."""
    home = desk()
    shop = desk(auth=ws.bearer_auth({TOKEN: 'ann'}), origins=[home.wsa.url])
    page = visit(new_page, home.wsa, shop.wsa)
    page.evaluate(f"globalThis.wsc = WebShoes({{ url: at, protocols: ['webshoes', '{TOKEN}'], minDelay: 50 }})")
    assert page.evaluate("wsc.call('cmd/do')") == 'done'
    (conn,) = shop.wsa.connections
    conn.close(1001)
    until(lambda: conn not in shop.wsa.connections)
    page.wait_for_function("wsc.state === 'open'")
    assert page.evaluate("wsc.call('cmd/do', {}, { retry: true })") == 'done'
    assert set(shop.done) == {'ann'}


@pytest.mark.parametrize(('code', 'reason'), [(4401, 'A login is needed'), (4403, 'Not you')])
def test_a_login_that_is_refused(desk: NewDesk, new_page: NewPage, code: int, reason: str) -> None:
    """webshoes.js learns why its login was refused, and does not try again."""
    asked: list[str] = []

    def check(token: str) -> None:
        asked.append(token)
        if code == 4403:
            raise ws.Error(403, reason)

    home = desk()
    shop = desk(auth=ws.bearer_auth(check), origins=[home.wsa.url])
    page = visit(new_page, home.wsa, shop.wsa)
    told = page.evaluate(
        """new Promise(resolve => {
          WebShoes({ url: at, protocols: ['webshoes', 'wrong'], minDelay: 1,
                     cb: (type, data) => { if (type === 'close') resolve(data); } });
        })"""
    )
    assert told == {'code': code, 'reason': reason, 'retryIn': None}
    assert (asked, shop.done) == (['wrong'], [])


def test_a_login_by_message(desk: NewDesk, new_page: NewPage) -> None:
    """A page without webshoes.js sends its token as the first message."""
    home = desk()
    shop = desk(auth=ws.bearer_auth({TOKEN: 'ann'}, by_message=True), origins=[home.wsa.url])
    page = visit(new_page, home.wsa, shop.wsa)
    login = f'socket.onopen = () => {{ socket.send(\'{{"auth": "{TOKEN}"}}\'); '
    attack = ATTACKS['WebSocket'].replace('socket.onopen = () => ', login).replace('do"}\');', 'do"}\'); };')
    assert page.evaluate(attack) == 'done'
    assert shop.done == ['ann']
