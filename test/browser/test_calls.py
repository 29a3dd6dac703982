"""Calls of webshoes.js: what is sent, what is given up, and what waits for a connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import webshoes as ws
from test.conftest import echo

from .pages import NewPage, Site, add, wait_for

# --- arguments ---


@pytest.mark.parametrize(
    ('value', 'sent'),
    [
        ("new Map([['a', 1], [2, new Map([['b', new Set([3])]])]])", {'a': 1, '2': {'b': [3]}}),
        ('new Set([1, [2], new Set()])', [1, [2], []]),
        ('new Float32Array([1.5, 2])', [1.5, 2]),
        ('new Uint8Array(2)', [0, 0]),
        ('new Date(0)', '1970-01-01T00:00:00.000Z'),
        ("[new String('x'), new Number(1), new Boolean(false)]", ['x', 1, False]),
        ('[{}, [], Object.create(null), new class Foo {}, new class Foo { a = 1 }]', [{}, [], {}, {}, {'a': 1}]),
        ("new URL('http://a/')", 'http://a/'),
        ('[null, undefined, NaN, () => 1]', [None] * 4),
        ("Object.assign(Object.create(null), { [Symbol.toStringTag]: 'Module', a: 1 })", {'a': 1}),
    ],
)
def test_arguments(site: Site, new_page: NewPage, value: str, sent: Any) -> None:
    """A `Map` is an object, a `Set` or typed array an array, all else what JSON has for it."""
    wsa = site()
    wsa.command('cmd/echo')(echo)
    page = new_page(wsa.url)
    assert page.evaluate(f"wsc.call('cmd/echo', {{ a: {value} }})") == {'a': sent}
    if isinstance(sent, dict):
        assert page.evaluate(f"wsc.call('cmd/echo', {value})") == sent


@pytest.mark.parametrize(
    'value',
    [
        'new ArrayBuffer(4)',
        'new DataView(new ArrayBuffer(4))',
        "new Blob(['x'])",
        'Promise.resolve()',
        '/x/',
        'new WeakMap()',
        'document.body',
        'new Map([[{}, 1]])',
        'new FormData()',
        "new Headers({ a: 'b' })",
        '(function* () {})()',
        "Object.assign(Object.create(null), { [Symbol.toStringTag]: 'Module' })",
        '10n',
    ],
)
def test_arguments_that_cannot_be_sent(site: Site, new_page: NewPage, value: str) -> None:
    """A value that would be sent as `{}` is an error that names its key, and nothing is sent."""
    page = new_page(site().url)
    code = f"wsc.call('cmd/add', {{ list: [{{ key: {value} }}] }}).catch(e => [e.name, e.message])"
    name, message = page.evaluate(code)
    assert (name, message[:7]) == ('TypeError', "'key': ")
    assert 'cannot be JSON' in message


@pytest.mark.parametrize('args', ['() => 1', "Symbol('x')"])
def test_arguments_that_json_leaves_out(site: Site, new_page: NewPage, args: str) -> None:
    """Arguments that JSON would leave out, so that the call had none, are an error."""
    page = new_page(site().url)
    assert page.evaluate(f"wsc.call('cmd/add', {args}).catch(e => e.name)") == 'TypeError'


@pytest.mark.parametrize('fields', ["q: ''", ''])
def test_arguments_named_as_fields(site: Site, new_page: NewPage, fields: str) -> None:
    """Arguments may have the names of the fields that subscribe, and of others of the wire."""
    wsa = site(fields)
    wsa.register('flat', 'cmd', '' if fields else 'q', 'evt', 'r', {'echo': echo})
    page = new_page(wsa.url)
    args = {'evt': 'e', 'uid': 'u', 'off': True, 'since': 3, 'cancel': 'x', 'ping': 1}
    sent = page.evaluate('args => wsc.call("flat/echo", args)', args)
    assert {key: sent[key] for key in args} == args


@pytest.mark.parametrize('args', ['{ cmd: 1 }', '[1]', "new Set(['a'])", '7'])
def test_arguments_that_are_no_message(site: Site, new_page: NewPage, args: str) -> None:
    """If the whole message holds the arguments, they are an object that leaves the command its field."""
    page = new_page(site("q: ''").url)
    assert page.evaluate(f"wsc.call('cmd/add', {args}).catch(e => e.name)") == 'TypeError'


# --- too big ---


def test_call_that_is_too_big(site: Site, new_page: NewPage) -> None:
    """Of the calls that wait, the one that is too big for the server ends with 413; those that may be repeated are."""
    made = []
    wsa = site(limits=ws.Limits(slow_handler=None, stall_timeout=None, max_ws_msg_size=100_000))

    @wsa.command('cmd/slow')
    async def slow(ctx: ws.Context, q: Any) -> Any:
        made.append(q.name)
        while made.count('before') == 1 and ctx.conn in wsa.connections:  # the calls of the first connection
            await asyncio.sleep(0.001)
        return q.name

    page = new_page(wsa.url)
    wait_for(page, "wsc.state === 'open'")
    calls = """
      wsc.call('cmd/slow', { name: 'before', x: 'x'.repeat(90_000) }, { retry: true }),
      wsc.call('cmd/add', { x: '☃'.repeat(40_000) }, { retry: true }).catch(e => [e.code, e.message]),
      wsc.call('cmd/slow', { name: 'once' }).catch(e => e.code),
      wsc.call('cmd/slow', { name: 'behind', x: 'x'.repeat(90_000) }, { retry: true }),
    """
    before, too_big, once, behind = page.evaluate(f'Promise.all([{calls}])')
    assert (before, once, behind) == ('before', 503, 'behind')
    assert too_big[0] == 413
    assert 'bytes is too big for the server' in too_big[1]
    assert page.evaluate("told.filter(([type]) => type === 'close').length") == 1


# --- connections that are not there ---


@pytest.mark.parametrize('options', ['{ queue: false }', '{ queue: false, retry: true }'])
def test_calls_that_do_not_wait(site: Site, new_page: NewPage, options: str) -> None:
    """With `queue: false` a call is sent now or fails at once, and is never made later."""
    wsa = site('minDelay: 1e6, maxDelay: 1e6')
    made = []

    @wsa.command('cmd/stop')
    async def stop(ctx: ws.Context, q: Any) -> str:
        made.append(q.name)
        if q.name == 'lost':
            ctx.req.transport.abort()
        return 'stopped'

    page = new_page(wsa.url)
    call = f"wsc.call('cmd/stop', {{ name: %r }}, {options}).catch(e => [e.code, e.message])"
    wait_for(page, "wsc.state === 'open'")
    assert page.evaluate(call % 'now') == 'stopped'
    assert page.evaluate(call % 'lost')[0] == 503
    wait_for(page, "wsc.state === 'connecting'")
    assert page.evaluate(call % 'down') == [503, 'Not connected; it was not sent']
    page.evaluate("dispatchEvent(new Event('online'))")
    assert page.evaluate("wsc.call('cmd/stop', { name: 'again' })") == 'stopped'
    assert made == ['now', 'lost', 'again']


def test_subscriptions_beside_calls(site: Site, new_page: NewPage) -> None:
    """Subscriptions that wait for their answers take no place of calls, and have no time limit."""
    wsa = site('maxPending: 3, timeout: 300')
    gate = asyncio.Event()
    wsa.on('subscribe')(lambda ctx, event: gate.wait())
    wsa.command('cmd/open')(lambda ctx, q: gate.set())
    page = new_page(wsa.url)
    wait_for(page, "wsc.state === 'open'")
    page.evaluate("for (let i = 0; i < 20; i++) void wsc.onEvent('e' + i, follow)")
    calls = 'Array.from({ length: 3 }, () => wsc.call("cmd/add", { a: 1, b: 2 }))'
    assert page.evaluate(f'Promise.all({calls})') == [{'result': 3}] * 3
    assert page.evaluate("wsc.call('cmd/wait').catch(e => e.code)") == 408  # and so is more time than `timeout` over
    page.evaluate("wsc.call('cmd/open')")
    for number in range(20):
        wsa.triggerEvent(f'e{number}', number)
    wait_for(page, 'seen.length === 20')
    assert page.evaluate("told.filter(([type]) => type === 'error' || type === 'warning')") == []


def test_calls_after_a_refusal(site: Site, serve: Any, new_page: NewPage) -> None:
    """A page whose origin is not let in reads 403 and the reason for each call, whenever it is made."""
    api = serve({'add': add})
    page = new_page(site('cb: () => {}').url)
    page.evaluate(f"globalThis.api = WebShoes({{ url: '{api.url}', cb: tell }})")
    for _ in range(2):
        code, message = page.evaluate("api.call('cmd/add', { a: 1, b: 2 }).catch(e => [e.code, e.message])")
        assert code == 403
        assert '4403' in message
        wait_for(page, "api.state === 'closed'")


# --- being told ---


def test_on(site: Site, new_page: NewPage) -> None:
    """`on` calls functions beside `cb` until they are ended; an error in one disturbs no other."""
    page = new_page(site().url, may_fail=True)
    wait_for(page, "wsc.state === 'open'")
    page.evaluate("""
      globalThis.heard = [];
      globalThis.ends = ['close', 'state', 'open', 'message', 'error', 'warning'].map(type => [
        wsc.on(type, () => { throw new Error('in a listener') }),
        wsc.on(type, data => heard.push([type, data])),
      ]).flat();
      void wsc.call('cmd/fall-silent').catch(() => {});
    """)
    wait_for(page, "wsc.state === 'open' && heard.length >= 4")
    kinds = page.evaluate("heard.map(([type, data]) => type === 'state' ? data : type)")
    assert kinds[:4] == ['close', 'connecting', 'open', 'open']
    page.evaluate("ends.forEach(end => end()); heard.length = 0; void wsc.call('cmd/add', { a: 1, b: 2 })")
    assert page.evaluate("wsc.call('cmd/add', { a: 1, b: 2 }).then(() => heard)") == []
    assert page.evaluate("(() => { try { wsc.on('opened', follow) } catch (e) { return e.message } })()") == (
        "on: no event 'opened', only open, close, state, message, error, warning"
    )


def test_end_within_a_listener(site: Site, new_page: NewPage) -> None:
    """A client that is closed by a listener tells nothing after 'closed'."""
    page = new_page(site("cb: (type, data) => { told.push([type, data]); if (type === 'open') wsc.close(); }").url)
    wait_for(page, "wsc.state === 'closed'")
    assert page.evaluate("told.filter(([type]) => type === 'state').map(([, state]) => state)") == ['closed']
