"""Subscriptions of webshoes.js: their beginning and end, refusals, and what a callback is given."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

import webshoes as ws
from test.conftest import TIMEOUT

from .pages import NewPage, Site, fake_server, open_and_follow, wait_for


class Hook:
    """A hook that lets nobody subscribe before it is opened."""

    def __init__(self, wsa: ws.WebShoesApp) -> None:
        self._gate = asyncio.Event()
        wsa.on('subscribe')(self.check)
        wsa.command('cmd/open')(self.open)

    async def check(self, ctx: ws.Context, event: str) -> None:
        await self._gate.wait()

    def open(self, ctx: ws.Context, q: Any) -> None:
        self._gate.set()


SETTLE = "await wsc.call('cmd/add', { a: 0, b: 0 })"  # what was sent before was handled, if nothing waits there


def run(page: Any, code: str) -> Any:
    """Run an async function's body in the page."""
    return page.evaluate(f'(async () => {{ {code} }})()')


# --- the end ---


@pytest.mark.parametrize('is_slow', [False, True])
def test_mount_unmount_mount(site: Site, new_page: NewPage, is_slow: bool) -> None:
    """A component that subscribes, ends that and subscribes again gets each version once."""
    wsa = site()
    Hook(wsa)
    page = new_page(wsa.url)
    wait_for(page, "wsc.state === 'open'")
    if not is_slow:
        run(page, "await wsc.call('cmd/open')")
    page.evaluate("wsc.onEvent('e', follow)(); globalThis.off = wsc.onEvent('e', follow); void 0")
    run(page, "await wsc.call('cmd/open')")
    wait_for(page, 'off.position')
    for value in range(3):
        wsa.triggerEvent('e', value)
    wait_for(page, 'seen.length >= 3')
    run(page, SETTLE)
    assert page.evaluate('seen.map(data => data.ver)') == [1, 2, 3]
    assert sum(len(conn.subscriptions) for conn in wsa.connections) == 1


@pytest.mark.parametrize('is_slow', [False, True])
@pytest.mark.parametrize('pause', ['', SETTLE])
def test_many_mounts(site: Site, new_page: NewPage, is_slow: bool, pause: str) -> None:
    """After 1,100 subscriptions that ended, sooner or later, none is left at the server."""
    wsa = site('maxPending: 10')
    Hook(wsa)
    page = new_page(wsa.url)
    wait_for(page, "wsc.state === 'open'")
    if not is_slow:
        run(page, "await wsc.call('cmd/open')")
    run(page, f"for (let i = 0; i < 1100; i++) {{ wsc.onEvent('e' + i % 3, follow)(); {pause} }}")
    run(page, f"await wsc.call('cmd/open'); globalThis.off = wsc.onEvent('last', follow); {SETTLE}")
    wait_for(page, 'off.position')
    wait_for(page, "wsc.call('cmd/subscriptions').then(names => names.length === 1)")
    assert page.evaluate("told.filter(([type]) => type === 'error' || type === 'warning')") == []


def test_off_before_a_connection(site: Site, new_page: NewPage) -> None:
    """A subscription that ended before there was a connection is never asked for."""
    wsa = site()
    page = new_page(wsa.url)
    run(
        page,
        "const early = WebShoes(); early.onEvent('e', follow)(); await early.call('cmd/add', { a: 0, b: 0 })",
    )
    assert wsa.subscribers('e') == []


def test_signal_of_a_subscription(site: Site, new_page: NewPage) -> None:
    """A signal ends a subscription; one that is aborted already begins none."""
    wsa = site()
    page = new_page(wsa.url)
    page.evaluate("""
      globalThis.controller = new AbortController();
      globalThis.off = wsc.onEvent('e', follow, { signal: controller.signal });
      void wsc.onEvent('f', follow, { signal: AbortSignal.abort() });
    """)
    wait_for(page, 'off.position')
    assert (len(wsa.subscribers('e')), len(wsa.subscribers('f'))) == (1, 0)
    run(page, f'controller.abort(); {SETTLE}')
    assert wsa.subscribers('e') == []


# --- refusals ---


@pytest.mark.parametrize('code', [408, 429, 503, 504])
def test_refusals_that_pass(site: Site, new_page: NewPage, code: int) -> None:
    """A subscription that is refused for now is asked for until it is granted, and each refusal is a warning."""
    wsa = site()
    refusals = [code] * 3

    @wsa.on('subscribe')
    def refuse(ctx: ws.Context, event: str) -> None:
        if refusals:
            raise ws.Error(refusals.pop(), 'Not now')

    page = open_and_follow(new_page, wsa)
    wsa.triggerEvent('e', 'at last')
    wait_for(page, 'seen.length === 1')
    assert page.evaluate("told.filter(([type]) => type === 'error')") == []
    warnings = page.evaluate("told.filter(([type]) => type === 'warning').map(([, { code, event }]) => [code, event])")
    assert warnings == [[code, 'e']] * 3


def test_refusal_while_nobody_listens(site: Site, new_page: NewPage) -> None:
    """A subscription that was refused for now is not asked for once nobody listens."""
    wsa = site('minDelay: 1e6, maxDelay: 1e6')
    asked = []

    @wsa.on('subscribe')
    def refuse(ctx: ws.Context, event: str) -> None:
        asked.append(event)
        if len(asked) == 1:
            raise ws.Error(503, 'Not now')

    page = new_page(wsa.url)
    page.evaluate("globalThis.off = wsc.onEvent('e', follow); void 0")
    wait_for(page, "told.some(([type]) => type === 'warning')")
    page.evaluate("off(); globalThis.again = wsc.onEvent('e', follow); void 0")  # asks at once, and alone
    wait_for(page, 'again.position')
    assert asked == ['e', 'e']


@pytest.mark.parametrize('code', [400, 403, 404])
def test_refusals_that_last(site: Site, new_page: NewPage, code: int) -> None:
    """Another refusal is an error that names the event; it is asked for again when a callback is added."""
    wsa = site()
    refusals = [code]

    @wsa.on('subscribe')
    def refuse(ctx: ws.Context, event: str) -> None:
        if refusals:
            raise ws.Error(refusals.pop(), 'Not for you')

    page = new_page(wsa.url)
    page.evaluate("void wsc.onEvent('e', follow)")
    wait_for(page, "told.some(([type]) => type === 'error')")
    error = page.evaluate("told.filter(([type]) => type === 'error').map(([, e]) => [e.code, e.event, e.message])")
    assert error == [[code, 'e', "Not subscribed to 'e': Not for you"]]
    page.evaluate("void wsc.onEvent('e', follow)")
    wsa.triggerEvent('e', 1)
    wait_for(page, 'seen.length === 2')


# --- what a callback is given ---


@pytest.mark.parametrize(
    ('pushes', 'told'),
    [
        ([{'ver': 1}, {'ver': 5, 'from': 2}], {'from': 2}),
        ([{'ver': 1}, {'ver': 5}], {'from': 2}),
        ([{'ver': 1, 'epoch': 'B'}], {'epoch': 'B'}),
    ],
)
def test_late_listeners(site: Site, new_page: NewPage, pushes: list[dict[str, Any]], told: dict[str, Any]) -> None:
    """A callback that comes late gets the newest value, without what was told to others with it."""

    def server(connection: ServerConnection) -> None:
        for text in connection:
            if 'evt' in (asked := json.loads(text)):
                answer = {'r': {'uid': asked['uid'], 'ver': 1, 'epoch': 'A'}, 'tid': asked['tid'], 't': 1}
                for message in (
                    answer,
                    *({'evt': 'e', 'uid': asked['uid'], **push, 't': 1, 'r': 7} for push in pushes),
                ):
                    connection.send(json.dumps(message))

    with fake_server(server) as url:
        page = new_page(site(f"url: '{url}', protocols: []").url)
        page.evaluate("void wsc.onEvent('e', follow)")
        wait_for(page, f'seen.length === {len(pushes)}')
        page.evaluate("void wsc.onEvent('e', follow)")
        wait_for(page, f'seen.length === {len(pushes) + 1}')
        first, late = page.evaluate('seen')[-2:]
        assert first == {**late, **told}
        assert not {'from', 'epoch'} & set(late)
        page.close()


def test_late_listener_at_a_new_history(site: Site, new_page: NewPage) -> None:
    """A callback that comes after a new history began, and before its first push, gets nothing of the old one."""
    answers: list[list[dict[str, Any]]] = [
        [{'r': {'ver': 5, 'epoch': 'A'}}, {'evt': 'e', 'ver': 5, 'r': 'old'}],
        [{'r': {'ver': 2, 'epoch': 'B'}}],
        [{'evt': 'e', 'ver': 2, 'epoch': 'B', 'r': 'new'}],
    ]

    def server(connection: ServerConnection) -> None:
        for text in connection:
            asked = json.loads(text)
            if asked.get('cmd') == 'close':
                connection.close(1001)
            elif {'evt', 'cmd'} & set(asked):
                for message in answers.pop(0):
                    tid = {} if 'evt' in message else {'tid': asked['tid']}
                    connection.send(json.dumps({'t': 1, 'uid': asked.get('uid', 'u1'), **tid, **message}))

    with fake_server(server) as url:
        page = new_page(site(f"url: '{url}', protocols: []").url)
        page.evaluate("globalThis.off = wsc.onEvent('e', follow); void 0")
        wait_for(page, 'seen.length === 1')
        page.evaluate("wsc.msg({ cmd: 'close' }).catch(() => {}); void 0")
        wait_for(page, "off.position?.epoch === 'B'")
        page.evaluate("globalThis.late = []; void wsc.onEvent('e', data => late.push(data.r))")
        page.evaluate("wsc.msg({ cmd: 'push' }).catch(() => {}); void 0")
        wait_for(page, 'late.length && seen.length === 2')
        assert page.evaluate('[late, seen[1].r, seen[1].epoch]') == [['new'], 'new', 'B']
        page.close()


def test_callbacks_share_no_object(site: Site, new_page: NewPage) -> None:
    """No other callback, no later one and not `cb` sees what a callback changes in its data."""
    wsa = site()
    page = new_page(wsa.url)
    page.evaluate("""
      globalThis.spoil = data => { follow(structuredClone(data)); data.r.list.push('spoilt'); data.ver = -1; };
      wsc.on('message', frame => { if (frame.r?.list) frame.r.list.push('spoilt'); });
      globalThis.offs = [wsc.onEvent('e', spoil), wsc.onEvent('e', spoil)];
    """)
    wait_for(page, 'offs[1].position')
    wsa.triggerEvent('e', {'list': []})
    wait_for(page, 'seen.length === 2')
    page.evaluate("void wsc.onEvent('e', spoil)")
    wait_for(page, 'seen.length === 3')
    assert page.evaluate('seen.map(({ ver, r }) => [ver, r])') == [[1, {'list': []}]] * 3


# --- positions ---


def test_position(site: Site, new_page: NewPage) -> None:
    """A subscription tells the version that was delivered last; another client goes on from there and misses none."""
    wsa = site()
    wsa.event('e', history=100)
    page = open_and_follow(new_page, wsa)
    asked = "globalThis.off = wsc.onEvent('none', follow); off.position === undefined"
    assert page.evaluate(asked)
    wait_for(page, 'off.position')
    epoch = wsa.event('e').epoch
    assert page.evaluate('off.position') == {'ver': 0, 'epoch': epoch}
    page.evaluate("globalThis.off = wsc.onEvent('e', follow); void 0")
    for value in range(3):
        wsa.triggerEvent('e', value)
    wait_for(page, 'seen.length >= 3 && off.position.ver === 3')
    assert page.evaluate('off.position') == {'ver': 3, 'epoch': epoch}
    page.evaluate('wsc.close(); off.position.ver = 7; seen.length = 0')
    for value in range(3, 8):
        wsa.triggerEvent('e', value).result(TIMEOUT)
    page.evaluate("void WebShoes().onEvent('e', follow, { since: off.position })")
    wait_for(page, 'seen.length === 5')
    assert page.evaluate('covered()') == [4, 5, 6, 7, 8]


# --- many at once ---


@pytest.mark.parametrize('max_batch', [100, 10])
def test_many_events_after_a_lost_connection(site: Site, new_page: NewPage, max_batch: int) -> None:
    """300 subscriptions are asked for in a few frames, or one by one where the server takes no such batches."""
    limits = ws.Limits(slow_handler=None, stall_timeout=None, stop_timeout=TIMEOUT, max_batch=max_batch)
    wsa = site('maxPending: 10, timeout: 1000', limits=limits)
    page = new_page()
    page.add_init_script("""
      globalThis.frames_ = [];
      const send = WebSocket.prototype.send;
      WebSocket.prototype.send = function (text) { frames_.push(text); send.call(this, text); };
    """)
    page.goto(wsa.url)
    page.evaluate("for (let i = 0; i < 300; i++) void wsc.onEvent('e' + i, follow)")
    wait_for(page, "wsc.state === 'open'")
    page.evaluate("frames_.length = 0; wsc.call('cmd/fall-silent').catch(() => {})")
    wait_for(page, "told.some(([type]) => type === 'close') && wsc.state === 'open'")
    wait_for(page, "wsc.call('cmd/subscriptions').then(names => names.length === 300)")
    count = page.evaluate('frames_.filter(text => text.includes(\'"evt"\')).length')
    assert count <= 10 if max_batch == 100 else count <= 310
    for number in range(300):
        wsa.triggerEvent(f'e{number}', number)
    wait_for(page, 'seen.length === 300')
    assert page.evaluate("told.filter(([type]) => type === 'error' || type === 'warning')") == []
