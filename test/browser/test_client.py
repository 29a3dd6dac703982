"""webshoes.js in a real browser, against a real server."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websockets

from test.conftest import TIMEOUT, Serve

from .pages import CLASSIC, SCRIPT, NewPage, Site, add, open_and_follow, wait_for

HERE = Path(__file__).resolve().parent
README = HERE.parent.parent / 'README.md'


def listen(connection: ServerConnection) -> None:
    """Take everything and say nothing."""
    for _ in connection:
        pass


# --- the README ---


def test_the_readme(serve: Serve, new_page: NewPage, tmp_path: Path) -> None:
    """The README's page prints what its comments say, and the event that is triggered."""
    page_text = re.findall(r'```html\n(.*?)```', README.read_text(), re.DOTALL)[0]
    (tmp_path / 'index.html').write_text('<link rel="icon" href="data:,">' + page_text)
    wsa = serve({'add': add})
    wsa.register('*', '', '', '', '', {'*': {'root': tmp_path, 'defpage': 'index.html'}})
    wsa.triggerEvent('sensorUpdate', {'temperature': 72.3})
    page = new_page()
    said: list[str] = []
    page.on('console', lambda message: said.append(message.text))
    with page.expect_console_message(lambda message: 'temperature' in message.text):
        page.goto(wsa.url)
    while said.count('7') < 2:
        with page.expect_console_message():  # an answer may come after the event
            pass
    assert said.count('7') == 2


# --- script and module ---


@pytest.mark.parametrize(
    'load',
    [
        '<script src="/webshoes.js"></script><script>globalThis.made = [WebShoes]</script>',
        '<script type="module">import W, { WebShoes } from "/webshoes.mjs"; globalThis.made = [W, WebShoes]</script>',
        '<script src="/webshoes.js"></script>'
        '<script type="module">import W from "/webshoes.mjs"; globalThis.made = [W, globalThis.WebShoes]</script>',
    ],
)
def test_script_and_module(site: Site, new_page: NewPage, load: str) -> None:
    """As a script, as a module and as both in one page it is one function, which finds the page's own host."""
    page = new_page(site(html=f'<!doctype html><link rel="icon" href="data:,">{load}').url)
    wait_for(page, 'globalThis.made !== undefined')
    assert page.evaluate('new Set(made).size') == 1
    assert page.evaluate('made[0]().call("cmd/add", { a: 3, b: 4 })') == {'result': 7}


# --- calls ---


def test_calls_right_after_the_start(site: Site, new_page: NewPage) -> None:
    """What is sent before the socket is open waits, and is answered: by callback, by promise, as value."""
    first = 'new Promise(r => wsc.msg({ cmd: "cmd/add", q: { a: 1, b: 2 } }, r))'
    asked = f'[{first}, wsc.msg({{ cmd: "add", a: 3, b: 4 }}), wsc.call("add", {{ a: 5, b: 6 }})]'
    page = new_page(site(html=CLASSIC.replace('%s', f'%s; const early = Promise.all({asked});')).url)
    by_callback, by_promise, value = page.evaluate('early')
    assert (by_callback['r'], by_promise['r'], value) == ({'result': 3}, {'result': 7}, {'result': 11})


@pytest.mark.parametrize(
    ('code', 'error'),
    [
        ("wsc.call('cmd/refuse')", [409, 'Not now']),
        ("wsc.call('cmd/nothing')", [404, 'Unknown command']),
        ("wsc.call('cmd/add', { a: 1 })", [400, "Missing parameter 'b'"]),
    ],
)
def test_errors(site: Site, new_page: NewPage, code: str, error: list[Any]) -> None:
    """A refused call rejects with an Error that has the server's code and sentence."""
    page = new_page(site().url)
    assert page.evaluate(f'{code}.catch(e => [e instanceof Error, e.code, e.message])') == [True, *error]


def test_error_by_callback(site: Site, new_page: NewPage) -> None:
    """A callback gets the whole error reply, and no rejection is left unhandled."""
    page = new_page(site().url)
    reply = page.evaluate("new Promise(r => wsc.msg({ cmd: 'cmd/refuse', tid: 'x' }, r))")
    assert reply == {'error': 'Not now', 'code': 409, 'tid': 'x'}


def test_connection_lost_before_the_reply(site: Site, new_page: NewPage) -> None:
    """A call whose connection is lost ends with an error that says so, and is not sent again."""
    page = new_page(site().url)
    error = page.evaluate("wsc.call('cmd/fall-silent').catch(e => [e.code, e.message])")
    assert error[0] == 503
    assert 'whether it was carried out is not known' in error[1]
    assert page.evaluate("wsc.call('cmd/add', { a: 1, b: 1 }, { retry: true })") == {'result': 2}


@pytest.mark.parametrize(
    ('options', 'outcome'),
    [
        ('{ timeout: 50 }', [408, 'No reply within 50 ms']),
        ('{ signal: AbortSignal.timeout(50) }', [23, 'signal timed out']),  # DOMException.TIMEOUT_ERR
        ('{ signal: AbortSignal.abort(new RangeError("stop")) }', [None, 'stop']),
    ],
)
def test_calls_that_are_given_up(site: Site, new_page: NewPage, options: str, outcome: list[Any]) -> None:
    """A call that timed out or was aborted is cancelled at the server, and no warning reports it."""
    page = new_page(site().url)
    wait_for(page, "wsc.state === 'open'")  # so that it is sent
    assert page.evaluate(f"wsc.call('cmd/wait', {{}}, {options}).catch(e => [e.code, e.message])") == outcome
    wait_for(page, "wsc.call('cmd/waiting').then(count => count === 0)")
    assert page.evaluate("told.filter(([type]) => type === 'error' || type === 'warning')") == []


def test_too_many_wait(site: Site, new_page: NewPage) -> None:
    """Past `maxPending` a call ends with 429 at once; those before it are answered."""
    page = new_page(site('maxPending: 2').url)
    codes = 'Array.from({ length: 3 }, () => wsc.call("cmd/add", { a: 1, b: 2 }).catch(e => e.code))'
    assert page.evaluate(f'Promise.all({codes})') == [{'result': 3}, {'result': 3}, 429]


def test_without_random_uuid(site: Site, new_page: NewPage) -> None:
    """It works where `crypto.randomUUID` is missing, as on plain http at a LAN address."""
    page = new_page()
    page.add_init_script('delete Crypto.prototype.randomUUID')
    page.goto(site().url)
    assert page.evaluate('[crypto.randomUUID === undefined, wsc.state]')[0]
    assert page.evaluate("wsc.call('cmd/add', { a: 1, b: 1 })") == {'result': 2}


# --- the forms of 1.0 ---


def test_calls_of_pages_written_for_1_0(site: Site, new_page: NewPage) -> None:
    """`msg(id, cmd, params, cb)` and `onEvent(id, evt, params, cb)` give `r` alone, while the element is there."""
    wsa = site(html='<!doctype html><link rel="icon" href="data:,"><div id="box"></div>' + CLASSIC[15:])
    wsa.triggerEvent('e', {'x': 1})
    page = new_page(wsa.url)
    assert page.evaluate("new Promise(r => wsc.msg('#box', 'cmd/add', { a: 3, b: 4 }, r))") == {'result': 7}
    assert page.evaluate("new Promise(r => wsc.onEvent('#box', 'e', {}, r))") == {'x': 1}
    page.evaluate("wsc.msg('#nowhere', 'cmd/add', { a: 1, b: 1 }, () => told.push('called'))")
    assert page.evaluate("wsc.call('cmd/add', { a: 1, b: 1 }).then(() => told.includes('called'))") is False


def test_names_of_other_registrations(site: Site, new_page: NewPage) -> None:
    """The field names are settings."""
    wsa = site("cmd: 'do', q: 'with', evt: 'watch', rep: 'out'")
    wsa.register('other', 'do', 'with', 'watch', 'out', {'add': add})
    wsa.triggerEvent('e', 5)
    page = new_page(wsa.url)
    assert page.evaluate("wsc.call('other/add', { a: 3, b: 4 })") == {'result': 7}
    assert page.evaluate("new Promise(r => wsc.onEvent('e', r))")['out'] == 5


# --- events ---


def test_events(site: Site, new_page: NewPage) -> None:
    """A callback sees each version once and in order, and none after `off`."""
    wsa = site()
    wsa.event('e', history=300)
    page = open_and_follow(new_page, wsa)
    for value in range(300):
        wsa.triggerEvent('e', value)
    wait_for(page, 'seen.length >= 300')
    assert page.evaluate('[seen.map(d => d.ver), seen.map(d => d.r)]') == [list(range(1, 301)), list(range(300))]
    page.evaluate("globalThis.off = wsc.onEvent('f', follow); off(); wsc.call('cmd/add', { a: 0, b: 0 })")
    wsa.triggerEvent('f', 1)
    page.evaluate("wsc.call('cmd/add', { a: 0, b: 0 })")
    assert page.evaluate('seen.length') == 300


def test_callbacks_share_a_subscription(site: Site, new_page: NewPage) -> None:
    """Several callbacks on one event are one subscription; one that comes later gets the value that is known."""
    wsa = site()
    wsa.triggerEvent('e', 'first')
    page = new_page(wsa.url)
    page.evaluate("void wsc.onEvent('e', follow)")
    wait_for(page, 'seen.length === 1')
    page.evaluate("void wsc.onEvent('e', follow)")
    wait_for(page, 'seen.length === 2')
    wsa.triggerEvent('e', 'second')
    wait_for(page, 'seen.length === 4')
    assert page.evaluate('new Set(seen.map(d => d.uid)).size') == 1


def test_a_push_to_this_client_alone(site: Site, new_page: NewPage) -> None:
    """A push to one client reaches its callbacks without `ver`, moves no cursor, and no other client."""
    wsa = site()
    page, other = open_and_follow(new_page, wsa), open_and_follow(new_page, wsa)
    wsa.triggerEvent('e', 'first')
    for one in (page, other):
        wait_for(one, 'seen.length === 1')
    wsa.subscribers('e')[0].push('e', 'mine')
    wsa.triggerEvent('e', 'second')
    for one in (page, other):
        wait_for(one, "seen[seen.length - 1].r === 'second'")
    seen = sorted(
        (one.evaluate('seen.map(d => [d.r, d.ver ?? null, d.from ?? null])') for one in (page, other)), key=len
    )
    both = [['first', 1, None], ['second', 2, None]]
    assert seen == [both, [both[0], ['mine', None, None], both[1]]]


def test_reload(site: Site, new_page: NewPage) -> None:
    """A page that is loaded anew gets the newest value."""
    wsa = site()
    page = new_page(wsa.url)
    wsa.triggerEvent('e', 'newest')
    page.reload()
    assert page.evaluate("new Promise(r => wsc.onEvent('e', r))")['r'] == 'newest'


@pytest.mark.parametrize('is_cut', [False, True])
def test_offline_while_500_events_are_triggered(site: Site, new_page: NewPage, is_cut: bool) -> None:
    """Over an offline spell, with the connection stalled or cut, every version is seen once or declared."""
    wsa = site()
    wsa.event('e', history=100)
    page = open_and_follow(new_page, wsa, may_fail=True)
    wsa.triggerEvent('e', 'before')
    wait_for(page, 'seen.length === 1')
    page.context.set_offline(True)
    if is_cut:
        requests.get(f'{wsa.url}/cmd/cut', timeout=TIMEOUT)
        while wsa.subscribers('e'):  # or the first of what follows might still be on its way
            time.sleep(0.001)
    for value in range(500):
        wsa.triggerEvent('e', value)
    page.context.set_offline(False)
    wait_for(page, 'covered().length >= 501')
    assert page.evaluate('covered()') == list(range(1, 502))
    if is_cut:
        assert page.evaluate('seen[1].from') == 2


def test_many_lost_connections(site: Site, new_page: NewPage) -> None:
    """Through 20 connections lost while another thread triggers, every version is seen once or declared."""
    wsa = site()
    page = open_and_follow(new_page, wsa)
    done = threading.Event()

    def trigger() -> None:
        while not done.is_set():
            wsa.triggerEvent('e', 'x' * 100)
            done.wait(0.001)

    thread = threading.Thread(target=trigger)
    thread.start()
    try:
        for _ in range(20):
            page.evaluate("wsc.call('cmd/fall-silent', {}, { retry: false }).catch(() => {})")
            wait_for(page, "wsc.state === 'open'")
    finally:
        done.set()
        thread.join()
    last = wsa.event('e').ver
    wait_for(page, f'covered().at(-1) >= {last}')
    assert page.evaluate('covered()') == list(range(1, last + 1))


def test_stalled_tab(site: Site, new_page: NewPage) -> None:
    """A tab that is busy for long misses nothing in silence, and another one follows meanwhile."""
    wsa = site()
    stalled, other = open_and_follow(new_page, wsa), open_and_follow(new_page, wsa)
    stalled.evaluate('setTimeout(() => { const end = Date.now() + 3000; while (Date.now() < end); })')
    for value in range(2000):
        wsa.triggerEvent('e', [value, 'x' * 1000])
    wait_for(other, 'covered().length >= 2000')
    wait_for(stalled, 'covered().length >= 2000')
    assert other.evaluate('covered()') == stalled.evaluate('covered()') == list(range(1, 2001))


# --- the connection ---


@pytest.mark.parametrize('code', [1008, 4401, 4403])
def test_codes_that_mean_do_not_come_back(site: Site, new_page: NewPage, code: int) -> None:
    """A refusal ends the client, with an error that says so."""
    page = new_page(site().url)
    page.evaluate(f"wsc.call('cmd/hang-up', {{ code: {code} }}).catch(() => {{}})")
    wait_for(page, "told.some(([type]) => type === 'error')")
    assert page.evaluate("[wsc.state, told.find(([type]) => type === 'error')[1].code]") == ['closed', code]


def test_what_the_page_is_told(site: Site, new_page: NewPage) -> None:
    """`cb` is told of each change of state; `close` is final, and what waits ends with an error."""
    page = new_page(site().url)
    wait_for(page, "wsc.state === 'open'")
    assert page.evaluate("[wsc.call('cmd/add').catch(e => e.code), wsc.close()][0]") == 503
    states = "told.filter(([type]) => type === 'state').map(([, state]) => state)"
    assert page.evaluate(states) == ['open', 'closed']


def test_try_again_later(site: Site, new_page: NewPage) -> None:
    """After 1013 the client waits longer than any other time; `online` ends the wait at once."""
    page = new_page(site('maxDelay: 100000').url)
    page.evaluate("wsc.call('cmd/hang-up', { code: 1013 }).catch(() => {})")
    wait_for(page, "told.some(([type]) => type === 'close')")
    assert page.evaluate("told.find(([type]) => type === 'close')[1].retryIn") >= 100_000
    page.evaluate("dispatchEvent(new Event('online'))")
    wait_for(page, "wsc.state === 'open'")


def test_dead_connection(site: Site, new_page: NewPage) -> None:
    """A server that says nothing is pinged, and given up when it does not answer."""
    with serve_websockets(listen, '127.0.0.1', 0) as silent:
        threading.Thread(target=silent.serve_forever).start()
        url = f'ws://127.0.0.1:{silent.socket.getsockname()[1]}'
        page = new_page(site(f"url: '{url}', protocols: [], pingAfter: 50, deadAfter: 1000").url, may_fail=True)
        reason = 'no answer to a ping in 1000 ms'
        wait_for(page, f"told.some(([type, data]) => type === 'close' && data.reason === '{reason}')")
        page.close()


def test_page_of_another_origin(site: Site, serve: Serve, new_page: NewPage) -> None:
    """A page that another server sent names the server it means."""
    api = serve({'add': add}, origins='*')
    page = new_page(site(f"url: '{api.url}'").url)
    assert page.evaluate("wsc.call('cmd/add', { a: 20, b: 22 })") == {'result': 42}


def test_wss(site: Site, new_page: NewPage, tmp_path: Path) -> None:
    """A page that came by https speaks wss."""
    issued = trustme.CA().issue_cert('127.0.0.1')
    paths = tmp_path / 'cert.pem', tmp_path / 'key.pem'
    paths[0].write_bytes(issued.cert_chain_pems[0].bytes())
    paths[1].write_bytes(issued.private_key_pem.bytes())
    page = new_page(site(ssl=paths).url, ignore_https_errors=True)
    assert page.url.startswith('https://')
    assert page.evaluate("wsc.call('cmd/add', { a: 3, b: 4 })") == {'result': 7}


# --- a server that is killed ---

SERVER = """
import sys, webshoes as ws
wsa = ws.WebShoesApp('127.0.0.1', int(sys.argv[1]))
wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'trigger': lambda ctx, q: wsa.triggerEvent('e', q.value).result()})
wsa.register('*', '', '', '', '', {'*': {'root': sys.argv[2], 'defpage': 'index.html'}})
wsa.start()
print('ready', flush=True)
"""


@pytest.fixture
def start_server(tmp_path: Path, free_port: int) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a server in a process of its own, each time on the same port; `start_server.url` is where."""
    (tmp_path / 'index.html').write_text(CLASSIC % (SCRIPT % ''))
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, '-c', SERVER, str(free_port), str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == 'ready\n'
        return process

    start.url = f'http://127.0.0.1:{free_port}'  # type: ignore[attr-defined]
    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_server_killed_and_started_again(start_server: Any, new_page: NewPage) -> None:
    """After SIGKILL and a new start the page is back by itself, and the first value says that a new history began."""
    process = start_server()
    page = new_page(start_server.url, may_fail=True)
    page.evaluate("void wsc.onEvent('e', follow)")
    page.evaluate("(async () => { for (const value of [1, 2, 3]) await wsc.call('cmd/trigger', { value }); })()")
    wait_for(page, 'seen.length === 3')
    process.kill()
    process.wait()
    wait_for(page, "wsc.state === 'connecting'")
    start_server()
    assert page.evaluate("wsc.call('cmd/trigger', { value: 'new' }, { retry: true })") == 1
    wait_for(page, 'seen.length === 4')
    first, *_, last = page.evaluate('seen')
    assert (last['r'], last['ver']) == ('new', 1)
    assert isinstance(last['epoch'], str)
    assert 'epoch' not in first
