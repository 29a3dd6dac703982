"""Behind a proxy: the snippets of docs/security.md, in real proxies."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

import webshoes as ws

from .conftest import TIMEOUT, OpenPeer, Serve
from .faces import dial, read_block, until
from .test_security import close_of, refused

PAGE = Path(__file__).resolve().parent.parent / 'docs' / 'security.md'
NAME = 'rig.example.com'
TOKEN = 'a-token_of.43~letters'
LOGIN = {'Authorization': f'Bearer {TOKEN}'}
PATH = os.pathsep.join((os.environ.get('PATH', ''), '/usr/sbin', '/usr/local/sbin'))
CADDY = """{
    admin off
    auto_https off
    default_sni rig.example.com
    servers {
        protocols h1 h2
    }
}
"""
FILES = ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi')


@dataclass
class Proxy:
    """A proxy that runs, and how it is reached."""

    port: int
    authority: str

    def ask(self, path: str, method: str = 'GET', **headers: str) -> requests.Response:
        """Ask as a browser does that knows the proxy by its name."""
        named = {'Host': f'{NAME}:{self.port}'} | LOGIN | headers
        url = f'https://127.0.0.1:{self.port}{path}'
        return requests.request(method, url, headers=named, verify=self.authority, timeout=TIMEOUT, stream=True)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f'https://{NAME}:{self.port}'

    @property
    def way(self) -> dict[str, Any]:
        """What a WebSocket needs beside that, as nobody else knows the name."""
        return {'sock': dial(self.port), 'ssl': ssl.create_default_context(cafile=self.authority)}


StartProxy = Callable[[ws.WebShoesApp], Proxy]


def snippet(language: str, number: int = 0) -> str:
    """A block of the page: the first is for a name of the program's own, the second for a path."""
    text: str = re.findall(rf'```{language}\n(.*?)```', PAGE.read_text(), re.DOTALL)[number]
    return text


def nginx(folder: Path, port: int, target: int) -> list[str]:
    """The command of nginx, with the snippet as a person would have it in `conf.d`, and all its files in a folder."""
    return _nginx(folder, port, target, snippet('nginx'))


def nginx_under_a_path(folder: Path, port: int, target: int) -> list[str]:
    """The same with the program under a path."""
    text = re.sub(r' *location / \{.*?\n    \}\n', lambda _: snippet('nginx', 1), snippet('nginx'), flags=re.DOTALL)
    return _nginx(folder, port, target, text)


def _nginx(folder: Path, port: int, target: int, text: str) -> list[str]:
    text = text.replace('443 ssl', f'127.0.0.1:{port} ssl').replace('15801', str(target))
    text = text.replace(f'/etc/ssl/{NAME}', str(folder / NAME))
    places = ''.join(f'{name}_temp_path {folder}/{name};\n' for name in FILES)
    head = f'daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;\nevents {{}}\n'
    (folder / 'conf').write_text(f'{head}http {{\naccess_log off;\n{places}{text}}}\n')
    return ['nginx', '-p', str(folder), '-c', str(folder / 'conf'), '-e', str(folder / 'log')]


def nginx_as_it_buffers(folder: Path, port: int, target: int) -> list[str]:
    """The same without the line on buffering, which event streams ask for themselves."""
    command, conf = nginx(folder, port, target), folder / 'conf'
    conf.write_text(conf.read_text().replace('proxy_buffering off;', ''))
    return command


def caddy(folder: Path, port: int, target: int) -> list[str]:
    """The command of Caddy; its certificate is one of files, as nobody would issue another."""
    return _caddy(folder, port, target, snippet('caddy'))


def caddy_under_a_path(folder: Path, port: int, target: int) -> list[str]:
    """The same with the program under a path."""
    return _caddy(folder, port, target, snippet('caddy', 1))


def _caddy(folder: Path, port: int, target: int, text: str) -> list[str]:
    text = text.replace('15801', str(target))
    lines = (f'https://{NAME}:{port} {{', '    bind 127.0.0.1', f'    tls {folder}/{NAME}.pem {folder}/{NAME}.key')
    text = text.replace(f'{NAME} {{', '\n'.join(lines))
    (folder / 'conf').write_text(CADDY + text)
    return ['caddy', 'run', '--adapter', 'caddyfile', '--config', str(folder / 'conf')]


def installed(*makes: Any) -> list[Any]:
    """Return the proxies: nginx, and Caddy if it is installed."""
    has_caddy = shutil.which('caddy', path=PATH) is not None
    return [make for make in makes if has_caddy or not make.__name__.startswith('caddy')]


@contextmanager
def running(make: Any, folder: Path, port: int, target: int) -> Iterator[Proxy]:
    """Run a proxy in front of a port; where it is not installed, the test is left out with this reason."""
    name = make.__name__.partition('_')[0]
    if shutil.which(name, path=PATH) is None:
        reason = f'no {name}: apt-get install nginx-light'
        if os.environ.get('WEBSHOES_PROXIES') == 'required':
            pytest.fail(reason)
        pytest.skip(reason)
    authority = trustme.CA()
    issued = authority.issue_cert(NAME, '127.0.0.1')
    authority.cert_pem.write_to_path(folder / 'ca.pem')
    (folder / f'{NAME}.pem').write_bytes(b''.join(blob.bytes() for blob in issued.cert_chain_pems))
    (folder / f'{NAME}.key').write_bytes(issued.private_key_pem.bytes())
    command = make(folder, port, target)
    environ = {'PATH': PATH, 'HOME': str(folder)}
    with (folder / 'out').open('wb') as out, subprocess.Popen(command, env=environ, stdout=out, stderr=out) as process:
        try:
            until(lambda: process.poll() is not None or listens(port))
            assert process.poll() is None, (folder / 'out').read_text()
            yield Proxy(port, str(folder / 'ca.pem'))
        finally:
            process.terminate()


@pytest.fixture(params=installed(nginx, nginx_as_it_buffers, caddy))
def start_proxy(request: pytest.FixtureRequest, tmp_path: Path, free_port: int) -> Iterator[StartProxy]:
    """Start a proxy in front of an app."""
    with ExitStack() as stack:
        yield lambda wsa: stack.enter_context(running(request.param, tmp_path, free_port, wsa.port))


@pytest.fixture(params=installed(nginx_under_a_path, caddy_under_a_path))
def start_proxy_under_a_path(request: pytest.FixtureRequest, tmp_path: Path, free_port: int) -> Iterator[StartProxy]:
    """Start a proxy that has an app under `/rig7/`."""
    with ExitStack() as stack:
        yield lambda wsa: stack.enter_context(running(request.param, tmp_path, free_port, wsa.port))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def test_the_snippets(serve: Serve, open_peer: OpenPeer, start_proxy: StartProxy) -> None:
    """Calls, uploads, files, WebSockets and event streams come through, of the user, for pages of the public name."""
    wsa = serve(
        {'who': lambda ctx, q: [ctx.user, ctx.method, q.get('a')]},
        hosts=[NAME],
        auth=ws.bearer_auth({TOKEN: 'ann'}),
    )
    proxy = start_proxy(wsa)
    assert proxy.ask('/cmd/who?a=1').json() == ['ann', 'GET', '1']
    assert proxy.ask('/cmd/who?a=2', 'POST', Origin=proxy.url).json() == ['ann', 'POST', '2']
    assert 'WebShoes' in proxy.ask('/webshoes.js').text
    size = ws.Limits().max_body_size
    assert size is not None
    for length, status in (size, 200), (size + 1, 413):
        answer = requests.post(
            f'https://127.0.0.1:{proxy.port}/cmd/who',
            data=b'{"a":"%b"}' % (b'x' * (length - 8)),
            headers={'Host': NAME, 'Content-Type': 'application/json', **LOGIN},
            verify=proxy.authority,
            timeout=TIMEOUT,
        )
        assert answer.status_code == status

    peer = open_peer(proxy, origin=proxy.url, subprotocols=['webshoes', TOKEN], **proxy.way)
    assert peer.connection.subprotocol == 'webshoes'
    assert peer.ask({'cmd': 'cmd/who', 'q': {'a': 3}})['r'] == ['ann', 'WS', 3]
    peer.subscribe('heat')
    with proxy.ask('/cmd?evt=heat', Accept='text/event-stream', Origin=proxy.url) as stream:
        assert read_block(stream.raw)['id']
        for n in range(3):
            wsa.triggerEvent('heat', n)
            assert peer.receive()['r'] == n
            assert f'"r":{n}' in read_block(stream.raw)['data']
        assert [conn.user for conn in wsa.connections] == ['ann', 'ann']


def test_what_is_refused(serve: Serve, start_proxy: StartProxy, open_peer: OpenPeer) -> None:
    """Pages of other origins and those without a login are refused behind a proxy too, and so are other names."""
    wsa = serve({'who': lambda ctx, q: ctx.user}, hosts=[NAME], auth=ws.bearer_auth({TOKEN: 'ann'}))
    proxy = start_proxy(wsa)
    for headers, status in (
        ({'Origin': f'https://{NAME}'}, 403),
        ({'Origin': f'https://evil.{NAME}:{proxy.port}'}, 403),
        ({'Sec-Fetch-Site': 'cross-site'}, 403),
        ({'Authorization': 'Bearer wrong'}, 401),
        ({}, 200),
    ):
        assert proxy.ask('/cmd/who', **headers).status_code == status
    assert close_of(open_peer(proxy, origin='https://evil.example', **proxy.way))[0] == 4403
    assert refused(proxy, **proxy.way).status_code == 401


def test_a_name_that_is_not_listed(serve: Serve, start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    """Without `hosts` the name that the proxy forwards is refused, and the log says what to set."""
    wsa = serve({'who': lambda ctx, q: 'me'})
    proxy = start_proxy(wsa)
    assert proxy.ask('/cmd/who').status_code == 403
    assert f"WebShoesApp(..., hosts=['{NAME}'])" in caplog.text


def test_under_a_path(serve: Serve, open_peer: OpenPeer, start_proxy_under_a_path: StartProxy, tmp_path: Path) -> None:
    """Under a path everything is there: calls, WebSockets, events, files, and redirects that stay under it."""
    root = tmp_path / 'root'
    for name in ('index.html', 'sub/index.html', 'a b%/index.html', 'c:d/index.html', '\N{SNOWMAN}/index.html'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    wsa = serve({'who': lambda ctx, q: ctx.p}, hosts=[NAME])
    wsa.register('site', '', '', '', '', {'*': {'root': root, 'defpage': 'index.html'}})
    proxy = start_proxy_under_a_path(wsa)
    assert proxy.ask('/cmd/who').text != '/cmd/who'
    assert proxy.ask('/rig7/cmd/who', 'POST', Origin=proxy.url).text == '/cmd/who'
    assert 'WebShoes' in proxy.ask('/rig7/webshoes.js').text
    for path, name in {
        'site': 'index.html',
        'site/': 'index.html',
        'site?a=b': 'index.html',
        'site/sub': 'sub/index.html',
        'site/sub/?a=b%26': 'sub/index.html',
        'site//sub//': 'sub/index.html',
        'site/a%20b%25': 'a b%/index.html',
        'site/c:d': 'c:d/index.html',
        'site/c%3Ad/': 'c:d/index.html',
        'site/%E2%98%83': '\N{SNOWMAN}/index.html',
    }.items():
        answer = proxy.ask(f'/rig7/{path}')
        assert (answer.status_code, answer.content.decode()) == (200, name)
        assert answer.url.startswith(f'https://127.0.0.1:{proxy.port}/rig7/site/')
        assert answer.url.partition('?')[2] == path.partition('?')[2]
    peer = open_peer(proxy, '/rig7/', origin=proxy.url, **proxy.way)
    assert peer.ask({'cmd': 'cmd/who'})['r'] == 'cmd/who'
    with proxy.ask('/rig7/cmd?evt=heat', Accept='text/event-stream', Origin=proxy.url) as stream:
        assert read_block(stream.raw)['id']
        wsa.triggerEvent('heat', 1)
        assert '"r":1' in read_block(stream.raw)['data']
