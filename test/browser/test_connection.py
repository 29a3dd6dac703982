"""The address that webshoes.js connects to, and the times of its attempts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import webshoes as ws
from test.conftest import Serve

from .pages import NewPage, Site, add, wait_for

WEB = ws.libPath('web')
PAGE = '<!doctype html><link rel="icon" href="data:,">'
SCRIPT = '<script src="{0}webshoes.js"></script><script>globalThis.made = WebShoes</script>'
MODULE = '<script type="module">import WebShoes from "{0}webshoes.mjs"; globalThis.made = WebShoes</script>'
VISIBLE = "document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))"
SHOWN = "dispatchEvent(new Event('pageshow'))"
SOCKETS = """
  globalThis.urls = [];
  globalThis.WebSocket = class extends WebSocket { constructor(url, ...more) { super(url, ...more); urls.push(url); } };
"""


@pytest.mark.parametrize('load', [SCRIPT, MODULE], ids=['script', 'module'])
@pytest.mark.parametrize(('src', 'place'), [('../', '/'), ('../rig7/', '/rig7/')])
def test_server_of_the_script(serve: Serve, new_page: NewPage, tmp_path: Path, load: str, src: str, place: str) -> None:
    """The server is where the script came from, whatever path a proxy gives it, and wherever the page is."""
    wsa = serve({'add': add})
    wsa.register('rig7', '', '', '', '', {'*': {'root': WEB}})
    wsa.register('site', '', '', '', '', {'*': {'root': tmp_path}})
    (tmp_path / 'page.html').write_text(PAGE + load.format(src))
    page = new_page()
    page.add_init_script(SOCKETS)
    page.goto(f'{wsa.url}/site/page.html?x=1#y')
    wait_for(page, 'globalThis.made !== undefined')
    assert page.evaluate('made().call("cmd/add", { a: 3, b: 4 })') == {'result': 7}
    assert page.evaluate('[made.base, ...urls]') == [wsa.url + place, wsa.url.replace('http', 'ws') + place]


@pytest.mark.parametrize('load', [SCRIPT, MODULE, SCRIPT.format('../') + MODULE], ids=['script', 'module', 'both'])
def test_script_of_another_server(serve: Serve, new_page: NewPage, tmp_path: Path, load: str) -> None:
    """A script or module of another server connects to that one, also beside the script of the page's own."""
    own, other = (serve({'name': lambda ctx, q, name=name: name}, origins='*') for name in ('own', 'other'))
    own.register('site', '', '', '', '', {'*': {'root': tmp_path}})
    (tmp_path / 'page.html').write_text(
        PAGE + load.format(f'{other.url}/').replace('made = WebShoes<', 'script = WebShoes<')
    )
    (tmp_path / 'page.html').write_text(PAGE + load.format(f'{other.url}/'))
    page = new_page(f'{own.url}/site/page.html')
    wait_for(page, f"globalThis.made?.base === '{other.url}/'")
    assert page.evaluate('made().call("cmd/name")') == 'other'
    assert page.evaluate('made({ url: undefined, timeout: 5000 }).call("cmd/name")') == 'other'
    assert page.evaluate(f"made({{ url: '{own.url}' }}).call('cmd/name')") == 'own'
    if load.count('script src') and load.count('module'):
        assert page.evaluate('globalThis.WebShoes().call("cmd/name")') == 'own'


def test_script_in_the_page(site: Site, new_page: NewPage) -> None:
    """A script without an address of its own connects to the page's host."""
    script = (Path(WEB) / 'webshoes.js').read_text()
    page = new_page(site(html=f'{PAGE}<script>{script}</script>'.replace('%', '%%') + '<script>%s</script>').url)
    assert page.evaluate("wsc.call('cmd/add', { a: 3, b: 4 })") == {'result': 7}


NEAR = [
    *('127.0.0.1', 'localhost', 'a.localhost', '127.1', '[::1]', '0.0.0.0'),  # no server of ours
    *('10.0.0.1', '172.16.0.1', '172.31.0.1', '192.168.1.1', '169.254.1.1'),
    *('[fc12::1]', '[fd00::1]', '[fe80::1]', 'rig.local', 'RIG.LOCAL', 'rig.local.', 'localhost.'),
    *(f'[::ffff:{host}]' for host in ('127.0.0.1', '10.0.0.1', '172.31.0.1', '192.168.1.1', '169.254.1.1')),
]
FAR = [
    *('example.com', '8.8.8.8', '172.15.0.1', '172.32.0.1', '192.169.1.1', '11.0.0.1'),
    *('10.example.com', '127.example.com', 'localhost.example.com', 'thelocal'),
    *('[2001:db8::1]', '[fc::1]', '[fec0::1]', '[::ffff:8.8.8.8]', '[::ffff:172.32.0.1]', '[::ffff:0.10.0.1]'),
]


def test_delays(site: Site, new_page: NewPage) -> None:
    """The delay before an attempt is at most 3 s where the server is near, else 20 s, and what was set if it was."""
    page = new_page()
    page.add_init_script("""
      Math.random = () => 1;
      globalThis.WebSocket = class {
        constructor() { queueMicrotask(() => this.onclose({ code: 1006, reason: '' })); }
        close() {}
      };
      const { setTimeout } = globalThis;
      globalThis.setTimeout = (step, delay) => setTimeout(step, delay > 1e6 ? delay : 0);
      globalThis.longest = (host, more) => new Promise(resolve => {
        const found = [];
        const client = WebShoes({ url: `http://${host}/`, cb: () => {}, deadAfter: 1e9, ...more });
        client.on('close', ({ retryIn }) => {
          found.push(retryIn);
          if (found.length === 8) resolve(Math.max(...found));
        });
      });
    """)
    page.goto(site('cb: () => {}, deadAfter: 1e9').url)
    page.evaluate('wsc.close()')
    longest = 'hosts => Promise.all(hosts.map(host => longest(host, {})))'
    assert page.evaluate(longest, NEAR) == [3000] * len(NEAR)
    assert page.evaluate(longest, FAR) == [20000] * len(FAR)
    assert page.evaluate("longest('localhost', { maxDelay: 7000 })") == 7000
    page.close()


@pytest.mark.parametrize('event', [VISIBLE, SHOWN])
def test_page_that_is_seen_again(site: Site, new_page: NewPage, event: str) -> None:
    """A page that is seen again looks at once whether its connection lives, and does not wait for the next attempt."""
    page = new_page()
    page.add_init_script("""
      globalThis.sent = [];
      const send = WebSocket.prototype.send;
      WebSocket.prototype.send = function (text) { sent.push(text); send.call(this, text); };
      globalThis.visibility = 'visible';
      Object.defineProperty(Document.prototype, 'visibilityState', { get: () => visibility });
    """)
    page.goto(site('minDelay: 1e6, maxDelay: 1e6').url)
    wait_for(page, "wsc.state === 'open'")
    pings = "sent.filter(text => text.includes('ping')).length"
    page.evaluate(f"visibility = 'hidden'; {event}")
    assert page.evaluate(pings) == 0
    page.evaluate(f"visibility = 'visible'; {event}; {event}")
    assert page.evaluate(pings) == 1
    page.evaluate("wsc.call('cmd/fall-silent').catch(() => {})")
    wait_for(page, "wsc.state === 'connecting'")
    page.evaluate(event)
    wait_for(page, "wsc.state === 'open'")
    page.evaluate(f'wsc.close(); {event}')
    assert page.evaluate('wsc.state') == 'closed'


def test_attempt_under_way(site: Site, new_page: NewPage) -> None:
    """A page that is seen again does not begin an attempt anew that is under way; another network does."""
    page = new_page()
    page.add_init_script("""
      globalThis.made = 0;
      globalThis.WebSocket = class { close() {} constructor() { made++; } };
    """)
    page.goto(site().url)
    page.evaluate(f'{SHOWN}; {VISIBLE}')
    assert page.evaluate('made') == 1
    page.evaluate("dispatchEvent(new Event('online'))")
    assert page.evaluate('made') == 2


def test_a_script_of_1_0(site: Site, new_page: NewPage) -> None:
    """A `WebShoes` of another version that is there already is replaced."""
    old = '<script>globalThis.WebShoes = function () {}</script>'
    html = f'{PAGE}{old}<script src="/webshoes.js"></script><script>%s</script>'
    page = new_page(site(html=html).url)
    assert page.evaluate("wsc.call('cmd/add', { a: 3, b: 4 })") == {'result': 7}


def test_types_of_settings(site: Site, new_page: NewPage) -> None:
    """A setting that cannot be is an error that says what it can be."""
    page = new_page(site().url)
    wrong = ['{ tokens: 1 }', '{ token: 5 }', '{ timeout: 0 }', '{ url: 5 }', "{ url: 'ftp://x' }", '{ cb: null }']
    code = '[{}].map(settings => {{ try {{ WebShoes(settings); }} catch (e) {{ return e.message; }} }})'
    messages: Any = page.evaluate(code.format(', '.join(wrong)))
    assert all(re.match('WebShoes: (no setting|setting|no WebSocket)', message) for message in messages)
