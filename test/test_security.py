"""Who may ask, over real sockets: origins, hosts, logins; and what is refused runs nothing (section 7)."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import logging
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
import requests
from websockets.asyncio.client import connect as connect_alone
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import webshoes as ws
from webshoes.log import REFUSALS

from .conftest import TIMEOUT, OpenPeer, Peer, Serve, exchange
from .faces import dial, frame, read_head, run_apart, until, upgrade
from .test_events import is_quiet
from .test_tls import Certificates

FRIEND = 'https://friend.example'
EVIL = 'http://evil.example'
STREAM = {'Accept': 'text/event-stream'}
PREFLIGHT = {'Access-Control-Request-Method': 'POST'}
TOKEN = 'a-token_of.43~letters'


class Desk:
    """An app that notes all that it was made to do."""

    def __init__(self, serve: Serve, folder: Path, **settings: Any) -> None:
        self.done: list[str] = []
        fm = {'do': self.do, 'open': ws.page(self.open), 'post': ws.methods('POST')(self.do), 'who': self.who}
        self.wsa = wsa = serve(fm, **settings)
        (folder / 'sub').mkdir()
        (folder / 'sub' / 'index.html').write_text('a page')
        (folder / 'file.txt').write_text('a file')
        wsa.register('files', '', '', '', '', {'*': {'root': folder, 'defpage': 'index.html'}})
        wsa.on('connect')(lambda ctx: self.done.append('connect'))
        wsa.on('subscribe')(lambda ctx, event: self.done.append('subscribe'))
        wsa.event('heat', read=self.read)

    def do(self, ctx: ws.Context, q: Any) -> str:
        self.done.append('do')
        return 'done'

    def open(self, ctx: ws.Context, q: Any) -> str:
        self.done.append('open')
        return 'opened'

    def who(self, ctx: ws.Context, q: Any) -> Any:
        return ctx.user

    def read(self) -> int:
        self.done.append('read')
        return 1

    def ask(self, path: str, method: str = 'GET', body: Any = None, **headers: str) -> requests.Response:
        """Ask with these headers (`Sec_Fetch_Site='none'`), and no others that matter; redirects are not followed."""
        names = {name.replace('_', '-'): value for name, value in headers.items()}
        return requests.request(
            method, self.wsa.url + path, data=body, headers=names, timeout=TIMEOUT, allow_redirects=False, stream=True
        )


NewDesk = Callable[..., Desk]


@pytest.fixture
def new_desk(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> NewDesk:
    """An app that has commands, an event and a folder: `new_desk(origins=[...])`."""
    return lambda **settings: Desk(serve, tmp_path_factory.mktemp('folder'), **settings)


class Served(Protocol):
    @property
    def url(self) -> str:
        """Where something is served."""


def refused(wsa: Served, path: str = '/', **settings: Any) -> requests.Response:
    """The plain answer to a WebSocket that is refused before the upgrade."""
    with pytest.raises(InvalidStatus) as info, connect(wsa.url.replace('http', 'ws', 1) + path, **settings):
        pass
    found, answer = info.value.response, requests.Response()
    answer.status_code, answer._content = found.status_code, bytes(found.body)
    answer.headers.update(dict(found.headers.raw_items()))
    return answer


def close_of(peer: Peer) -> tuple[int, str]:
    """Code and reason of the close that is all that comes."""
    with pytest.raises(ConnectionClosed) as info:
        peer.receive()
    assert info.value.rcvd is not None
    return info.value.rcvd.code, info.value.rcvd.reason


def handshake(wsa: ws.WebShoesApp, *headers: str, path: str = '/') -> socket.socket:
    """A WebSocket whose handshake was sent, and nothing read."""
    connection = dial(wsa.port)
    connection.sendall(upgrade(*headers, path=path, host=f'localhost:{wsa.port}'))
    return connection


def has_answer(connection: socket.socket) -> bool:
    """Whether anything has come, or the end."""
    return bool(select.select([connection], [], [], 0)[0])


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == 'webshoes']


# --- pages of other origins ---

FOREIGN = [
    {'Origin': EVIL},
    {'Origin': 'null'},
    {'Origin': 'http://localhost:1'},
    {'Origin': 'http://0.0.0.0:{port}'},
    {'Origin': 'http://localhost.evil.example:{port}'},
    {'Origin': ''},
    {'Origin': EVIL, 'Sec-Fetch-Site': 'same-origin'},
    {'Sec-Fetch-Site': 'cross-site'},
    {'Sec-Fetch-Site': 'same-site', 'Sec-Fetch-Mode': 'navigate'},
]
OWN = [
    {},
    {'Origin': 'http://127.0.0.1:{port}'},
    {'Origin': 'http://localhost:{port}', 'Sec-Fetch-Site': 'cross-site'},
    {'Origin': 'https://[::1]:{port}'},
    {'Sec-Fetch-Site': 'same-origin'},
    {'Sec-Fetch-Site': 'none'},
]
CALLS: list[tuple[str, str, dict[str, str], str | None]] = [
    ('GET', '/cmd/do', {}, None),
    ('HEAD', '/cmd/do', {}, None),
    ('GET', '/cmd/do/more?a=1', {}, None),
    ('POST', '/cmd/do', {'Content-Type': 'application/json'}, '{"a": 1}'),
    ('POST', '/cmd/do', {'Content-Type': 'text/plain'}, '{"a": 1}'),
    ('POST', '/cmd/post', {'Content-Type': 'application/x-www-form-urlencoded'}, 'a=1'),
    ('DELETE', '/cmd/do', {}, None),
    ('GET', '/cmd?evt=heat', {}, None),
    ('HEAD', '/cmd?evt=heat', {}, None),
    ('GET', '/cmd/?evt=heat&since=0', {}, None),
    ('GET', '/cmd?evt=heat', STREAM, None),
    ('GET', '/cmd?evt=heat&evt=cold', STREAM, None),
]


def filled(headers: dict[str, str], wsa: ws.WebShoesApp) -> dict[str, str]:
    return {name: value.format(port=wsa.port) for name, value in headers.items()}


def send(desk: Desk, headers: dict[str, str]) -> list[requests.Response]:
    """All of `CALLS`, with these headers."""
    return [desk.ask(path, method, body, **more, **filled(headers, desk.wsa)) for method, path, more, body in CALLS]


@pytest.mark.parametrize('headers', FOREIGN)
def test_pages_of_other_origins(new_desk: NewDesk, headers: dict[str, str]) -> None:
    """They can neither call nor read events, whatever the method; and nothing is run for them."""
    desk = new_desk()
    for answer in send(desk, headers):
        assert answer.status_code == 403
        assert not {'Access-Control-Allow-Origin', 'WWW-Authenticate'} & set(answer.headers)
        if answer.request.method != 'HEAD':
            assert answer.json() == {'error': 'Pages of this origin are not let in', 'code': 403}
    assert (desk.done, desk.wsa.connections) == ([], [])


@pytest.mark.parametrize('headers', OWN)
def test_own_pages_and_programs(new_desk: NewDesk, headers: dict[str, str]) -> None:
    """The server's own pages, what a person types, and programs are let in."""
    desk = new_desk()
    assert {answer.status_code for answer in send(desk, headers)} == {200}
    assert {'do', 'subscribe', 'read', 'connect'} == set(desk.done)


@pytest.mark.parametrize('path', ['/', '/cmd', '/cmd/do', '/any/where', '/webshoes.js', '/files/file.txt'])
def test_websockets_of_other_origins(new_desk: NewDesk, open_peer: OpenPeer, path: str) -> None:
    """A page of another origin cannot use a WebSocket, on whatever path: it reads 4403 and why, and nothing is run."""
    desk = new_desk()
    for headers in FOREIGN:
        filled_in = filled(headers, desk.wsa)
        if 'Origin' in headers:
            with open_peer(desk.wsa, path, additional_headers=filled_in).connection as connection:
                assert close_of(Peer(connection)) == (4403, 'Pages of this origin are not let in')
        else:  # no browser asks like this
            answer = refused(desk.wsa, path, additional_headers=filled_in)
            assert (answer.status_code, answer.json()['code']) == (403, 403)
    assert (desk.done, desk.wsa.connections) == ([], [])
    for headers in OWN:
        assert is_quiet(open_peer(desk.wsa, path, additional_headers=filled(headers, desk.wsa)))
    assert desk.done == ['connect'] * len(OWN)


@pytest.mark.parametrize('headers', FOREIGN)
@pytest.mark.parametrize(
    ('path', 'status'),
    [
        ('/files/file.txt', 200),
        ('/files/sub', 303),
        ('/files/nothing', 404),
        ('/webshoes.js', 200),
        ('/webshoes.mjs', 200),
        ('/nowhere', 404),
        ('/cmd/nothing', 404),
        ('/', 404),
    ],
)
def test_files_are_open(new_desk: NewDesk, headers: dict[str, str], path: str, status: int) -> None:
    """Files may be linked to from anywhere, and read by no page elsewhere; where nothing is, nothing is refused."""
    desk = new_desk(origins=[FRIEND])
    answer = desk.ask(path, **filled(headers, desk.wsa))
    assert (answer.status_code, answer.headers.get('Access-Control-Allow-Origin')) == (status, None)


def test_an_entry_in_place_of_a_file(new_desk: NewDesk) -> None:
    """A function that is registered under the name of the package's file is no file."""
    desk = new_desk()
    assert desk.ask('/webshoes.js', Origin=EVIL).status_code == 200
    desk.wsa.register('webshoes.js', '', '', '', '', {'*': desk.do})
    assert desk.ask('/webshoes.js', Origin=EVIL).status_code == 403
    assert desk.done == []
    assert desk.ask('/webshoes.js').text == 'done'


@pytest.mark.parametrize(
    ('method', 'path', 'headers', 'status'),
    [
        ('GET', '/cmd/open', {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate'}, 200),
        ('GET', '/cmd/open', {'Sec-Fetch-Site': 'same-site', 'Sec-Fetch-Mode': 'navigate'}, 200),
        ('GET', '/cmd/open', {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'no-cors'}, 403),
        ('GET', '/cmd/open', {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'cors'}, 403),
        ('GET', '/cmd/open', {'Sec-Fetch-Site': 'cross-site'}, 403),
        ('GET', '/cmd/open', {'Origin': EVIL}, 403),
        ('POST', '/cmd/open', {'Origin': EVIL, 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate'}, 403),
        ('POST', '/cmd/open', {'Origin': 'null', 'Sec-Fetch-Mode': 'navigate'}, 403),
        ('GET', '/cmd/do', {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate'}, 403),
        ('GET', '/cmd?evt=heat', {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate'}, 403),
    ],
)
def test_pages(new_desk: NewDesk, method: str, path: str, headers: dict[str, str], status: int) -> None:
    """`@ws.page` lets a person follow a link from elsewhere, and lets a page elsewhere do nothing else."""
    desk = new_desk()
    assert desk.ask(path, method, **headers).status_code == status
    assert desk.done == (['open'] if status == 200 else [])


def test_a_page_that_has_events(new_desk: NewDesk) -> None:
    """A handler that may be linked to does not open the events at its path."""
    desk, elsewhere = new_desk(), {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate'}
    desk.wsa.register('mixed', 'cmd', 'q', 'evt', 'r', {'*': ws.page(desk.open)})
    assert desk.ask('/mixed', **elsewhere).text == 'opened'
    assert desk.ask('/mixed?evt=heat', **elsewhere).status_code == 403
    assert desk.done == ['open']


# --- origins that are let in ---


def vary(answer: requests.Response) -> set[str]:
    return {name.strip() for name in answer.headers.get('Vary', '').split(',')} - {''}


ANSWERS = [
    ('GET', '/cmd/do', {}, 200),
    ('POST', '/cmd/post', {}, 200),
    ('GET', '/cmd/post', {}, 405),
    ('GET', '/cmd/nothing', {}, 404),
    ('GET', '/cmd?evt=heat', {}, 200),
    ('GET', '/cmd?evt=cold&since=0', {}, 204),
    ('GET', '/cmd?evt=heat', {'If-None-Match': '*'}, 304),
    ('GET', '/cmd?evt=heat&since=x', {}, 400),
    ('GET', '/cmd?evt=heat', STREAM, 200),
    ('HEAD', '/cmd?evt=heat', STREAM, 200),
    ('GET', '/files/file.txt', {}, 200),
    ('GET', '/files/file.txt', {'Range': 'bytes=1-2'}, 206),
    ('POST', '/files/file.txt', {}, 405),
    ('GET', '/files/sub', {}, 303),
    ('GET', '/webshoes.js', {}, 200),
    ('GET', '/nowhere', {}, 404),
]


@pytest.mark.parametrize(('method', 'path', 'headers', 'status'), ANSWERS)
def test_an_origin_that_is_listed(
    new_desk: NewDesk, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """Its pages read every kind of answer, cookies and logins included; others do not, and caches know it."""
    desk = new_desk(origins=[FRIEND, 'http://other.example'])
    answer = desk.ask(path, method, Origin=FRIEND, **headers)
    assert answer.status_code == status
    assert answer.headers['Access-Control-Allow-Origin'] == FRIEND
    assert answer.headers['Access-Control-Allow-Credentials'] == 'true'
    own, evil = desk.ask(path, method, **headers), desk.ask(path, method, Origin=EVIL, **headers)
    assert (own.status_code, evil.status_code) == (status, 403 if path.startswith('/cmd') and status != 404 else status)
    for plain in own, evil:
        assert not [name for name in plain.headers if name.lower().startswith('access-control-')]
    chosen = {'Accept'} if '?evt=' in path and status in (200, 304) else set()
    chosen |= {'Accept-Encoding'} if path == '/webshoes.js' else set()
    assert vary(answer) == vary(own) == chosen | {'Origin'}
    assert 'Origin' in vary(evil)


@pytest.mark.parametrize(('method', 'path', 'headers', 'status'), ANSWERS)
def test_all_origins(new_desk: NewDesk, method: str, path: str, headers: dict[str, str], status: int) -> None:
    """`origins='*'` lets all pages read, and none of them with the visitor's cookies or login."""
    desk = new_desk(origins='*')
    for origin in FRIEND, EVIL, 'null':
        answer = desk.ask(path, method, Origin=origin, **headers)
        assert (answer.status_code, answer.headers['Access-Control-Allow-Origin']) == (status, '*')
        assert 'Access-Control-Allow-Credentials' not in answer.headers


def test_no_origins(new_desk: NewDesk) -> None:
    """Where no other origin is let in, no answer differs by it."""
    desk = new_desk()
    for method, path, headers, _ in ANSWERS:
        for origin in {}, {'Origin': desk.wsa.url}:
            answer = desk.ask(path, method, **headers, **origin)
            assert vary(answer) <= {'Accept', 'Accept-Encoding'}
            assert 'Access-Control-Allow-Origin' not in answer.headers


@pytest.mark.parametrize(
    ('origins', 'origin'),
    [([FRIEND], FRIEND), ('null', 'null'), (['http://localhost:3000'], 'http://127.0.0.1:3000'), ('*', EVIL)],
)
def test_websockets_of_listed_origins(new_desk: NewDesk, open_peer: OpenPeer, origins: Any, origin: str) -> None:
    """A page of a listed origin opens a WebSocket and calls; one of another does not."""
    desk = new_desk(origins=origins)
    assert open_peer(desk.wsa, '/', origin=origin).ask({'cmd': 'cmd/do'})['r'] == 'done'
    if origins != '*':
        assert close_of(open_peer(desk.wsa, origin='http://other.example'))[0] == 4403


# --- preflights ---


@pytest.mark.parametrize(
    ('path', 'methods'),
    [
        ('/cmd/do', {'GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'}),
        ('/cmd/post', {'POST'}),
        ('/cmd?evt=heat', {'GET', 'HEAD'}),
        ('/files/file.txt', {'GET', 'HEAD'}),
        ('/nowhere', {'GET', 'HEAD'}),
    ],
)
def test_preflight(new_desk: NewDesk, path: str, methods: set[str]) -> None:
    """A listed origin learns what it may send, without a login, and nothing is run (Fetch standard, CORS protocol)."""
    asked: list[ws.Context] = []
    desk = new_desk(origins=[FRIEND], auth=asked.append)
    wanted = {**PREFLIGHT, 'Access-Control-Request-Headers': 'authorization,content-type,x-mine'}
    answer = desk.ask(path, 'OPTIONS', Origin=FRIEND, **wanted)
    assert (answer.status_code, answer.content) == (204, b'')
    assert set(answer.headers['Access-Control-Allow-Methods'].split(', ')) == methods
    assert answer.headers['Access-Control-Allow-Headers'] == 'authorization,content-type,x-mine'
    assert answer.headers['Access-Control-Max-Age'] == '600'
    assert answer.headers['Access-Control-Allow-Origin'] == FRIEND
    assert answer.headers['Access-Control-Allow-Credentials'] == 'true'
    assert 'Origin' in vary(answer)
    assert 'Access-Control-Allow-Headers' not in desk.ask(path, 'OPTIONS', Origin=FRIEND, **PREFLIGHT).headers
    for origin in EVIL, 'null':
        refusal = desk.ask(path, 'OPTIONS', Origin=origin, **wanted)
        assert refusal.status_code == 403
        assert not [name for name in refusal.headers if name.lower().startswith('access-control-')]
    assert (asked, desk.done) == ([], [])


def test_preflight_of_all_origins(new_desk: NewDesk) -> None:
    """`origins='*'` answers every preflight, and without credentials."""
    answer = new_desk(origins='*').ask('/cmd/do', 'OPTIONS', Origin=EVIL, **PREFLIGHT)
    assert (answer.status_code, answer.headers['Access-Control-Allow-Origin']) == (204, '*')
    assert 'Access-Control-Allow-Credentials' not in answer.headers


def test_options_that_are_no_preflight(new_desk: NewDesk) -> None:
    """`OPTIONS` alone is a request like any other: of an origin that may ask, and with a login."""
    desk = new_desk(auth=ws.bearer_auth(TOKEN))
    assert desk.ask('/cmd/do', 'OPTIONS', Origin=EVIL).status_code == 403
    assert desk.ask('/cmd/do', 'OPTIONS').status_code == 401
    answer = desk.ask('/cmd/do', 'OPTIONS', Authorization=f'Bearer {TOKEN}')
    assert (answer.status_code, 'POST' in answer.headers['Allow']) == (204, True)
    assert desk.done == []


# --- hosts ---


@pytest.mark.parametrize('path', ['/cmd/do', '/cmd?evt=heat', '/files/file.txt', '/files/sub', '/webshoes.js', '/no'])
@pytest.mark.parametrize('host', ['evil.example', 'evil.example:{port}', '0.0.0.0:{port}', '192.168.1.5', 'a b', ''])
def test_rebound_hosts(new_desk: NewDesk, path: str, host: str) -> None:
    """Bound to loopback, nothing is served under another name: no command, event, file, WebSocket or preflight."""
    desk = new_desk(origins='*')
    name = host.format(port=desk.wsa.port)
    head = f'HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n'
    for request in (
        f'GET {path} {head}\r\n',
        f'POST {path} {head}Content-Length: 0\r\n\r\n',
        f'GET {path} {head}Origin: http://{name}\r\nSec-Fetch-Site: same-origin\r\n\r\n',
        f'GET {path} {head}Accept: text/event-stream\r\n\r\n',
        f'OPTIONS {path} {head}Origin: http://{name}\r\nAccess-Control-Request-Method: GET\r\n\r\n',
        upgrade(path=path, host=name).decode(),
    ):
        answer = exchange_once(desk.wsa, request.encode())
        assert answer.startswith(b'HTTP/1.1 403 ')
        assert answer.endswith(b'{"error":"This host is not served","code":403}')
    assert desk.done == []


def exchange_once(wsa: ws.WebShoesApp, request: bytes) -> bytes:
    """The one answer to a request, whether the connection goes on or not."""
    with dial(wsa.port) as connection:
        connection.sendall(request)
        head = read_head(connection)
        size = int(re.findall(r'(?i)content-length: (\d+)', head)[0])
        with connection.makefile('rb') as stream:
            return head.encode() + stream.read(size)


@pytest.mark.parametrize(
    ('hosts', 'host', 'status'),
    [
        (['rig.example.com'], 'rig.example.com', 200),
        (['rig.example.com'], 'RIG.example.com.:8443', 200),
        (['rig.example.com'], 'localhost', 200),
        (['rig.example.com'], '[::1]:{port}', 200),
        (['rig.example.com'], 'www.rig.example.com', 403),
        ([], 'rig.example.com', 403),
        ('*', 'rig.example.com', 200),
    ],
)
def test_hosts(new_desk: NewDesk, hosts: Any, host: str, status: int) -> None:
    """`hosts` serves the names that it lists, beside this machine's."""
    desk = new_desk(hosts=hosts)
    answer = desk.ask('/cmd/do', Host=host.format(port=desk.wsa.port))
    assert (answer.status_code, desk.done) == (status, ['do'] if status == 200 else [])


def test_a_proxy_in_front(new_desk: NewDesk, open_peer: OpenPeer) -> None:
    """A proxy that ends TLS and forwards the name it was asked by: pages of that name are the server's own."""
    desk = new_desk(hosts=['rig.example.com'])
    own = {'Host': 'rig.example.com', 'Origin': 'https://rig.example.com', 'X-Forwarded-Proto': 'https'}
    assert desk.ask('/cmd/do', 'POST', **own).text == 'done'
    assert desk.ask('/cmd/do', **own | {'Origin': 'https://example.com'}).status_code == 403
    assert desk.ask('/cmd/do', **own | {'X-Forwarded-Host': 'evil.example', 'Origin': EVIL}).status_code == 403
    with handshake(desk.wsa, 'Origin: https://rig.example.com') as connection:
        read_head(connection)
        assert connection.recv(4) == b'\x88\x25\x11\x33'  # a close with 4403, because the name was not forwarded


def test_http_1_0_without_a_host(new_desk: NewDesk) -> None:
    """Who names no host is a program of old, and is let in."""
    desk = new_desk(hosts=[])
    assert exchange(desk.wsa, b'GET /cmd/do HTTP/1.0\r\n\r\n').endswith(b'\r\n\r\ndone')
    assert b' 403 ' in exchange(desk.wsa, f'GET /cmd/do HTTP/1.0\r\nOrigin: {EVIL}\r\n\r\n'.encode())


# --- what is told ---

SETTING = re.compile(r'; to let it in: WebShoesApp\(\.\.\., (\w+)=(\[.*\])\)$')


@pytest.mark.parametrize(
    ('headers', 'name'),
    [
        ({'Origin': EVIL}, 'origins'),
        ({'Origin': 'null'}, 'origins'),
        ({'Origin': 'https://[2001:db8::1]:8443'}, 'origins'),
        ({'Sec-Fetch-Site': 'cross-site'}, 'origins'),
        ({'Host': 'rig.example.com'}, 'hosts'),
        ({'Host': 'rig.example.com:8443'}, 'hosts'),
        ({'Host': '[2001:db8::1]'}, 'hosts'),
        ({'Host': '[2001:db8::1]:8443'}, 'hosts'),
        ({'Host': '10.0.0.7:80'}, 'hosts'),
    ],
)
def test_a_refusal_tells_the_setting(
    new_desk: NewDesk, caplog: pytest.LogCaptureFixture, headers: dict[str, str], name: str
) -> None:
    """Each refusal is told once, with the setting that lets it in; which it does."""
    desk = new_desk()
    for _ in range(3):
        assert desk.ask('/cmd/do', **headers).status_code == 403
    (line,) = lines(caplog)
    ((setting, value),) = SETTING.findall(line)
    assert setting == name
    assert new_desk(**{setting: ast.literal_eval(value)}).ask('/cmd/do', **headers).text == 'done'


@pytest.mark.parametrize(
    'headers',
    [{'Origin': 'garbage'}, {'Origin': 'x' * 300 + '://rig'}, {'Origin': '*'}, {'Host': 'a b'}, {'Host': '*'}],
)
def test_a_refusal_that_no_setting_helps(
    new_desk: NewDesk, caplog: pytest.LogCaptureFixture, headers: dict[str, str]
) -> None:
    """What is no origin and no host is told once too, and nobody is advised to let in all for it."""
    desk = new_desk()
    for _ in range(2):
        assert desk.ask('/cmd/do', **headers).status_code == 403
    (line,) = lines(caplog)
    assert repr(*headers.values())[:250] in line
    assert 'to let it in' not in line


def test_refused_websockets_are_told(new_desk: NewDesk, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture) -> None:
    """A WebSocket and a preflight that are refused are told as any request, and once for all of them."""
    desk = new_desk()
    assert close_of(open_peer(desk.wsa, origin=EVIL))[0] == 4403
    desk.ask('/cmd/do', 'OPTIONS', Origin=EVIL, **PREFLIGHT)
    desk.ask('/cmd?evt=heat', Origin=EVIL)
    assert [SETTING.findall(line) for line in lines(caplog)] == [[('origins', f"['{EVIL}']")]]


def test_unlisted_names_bound_wide(caplog: pytest.LogCaptureFixture) -> None:
    """Bound wide, a name that nobody listed is let in, and told once with the setting that lists it."""
    with ws.WebShoesApp('0.0.0.0', 0) as wsa:
        wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'hi': lambda ctx, q: 'hello'})
        for host in 'rig.example.com:8443', 'rig.example.com:8443', '192.168.1.5:80', 'localhost:1':
            assert requests.get(f'{wsa.url}/cmd/hi', headers={'Host': host}, timeout=TIMEOUT).text == 'hello'
    (line,) = lines(caplog)
    ((setting, value),) = SETTING.findall(line)
    with ws.WebShoesApp('0.0.0.0', 0, hosts=ast.literal_eval(value)) as wsa:
        wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'hi': lambda ctx, q: 'hello'})
        for host, status in ('rig.example.com:8443', 200), ('other.example.com', 403), ('192.168.1.5:80', 403):
            assert requests.get(f'{wsa.url}/cmd/hi', headers={'Host': host}, timeout=TIMEOUT).status_code == status
    assert setting == 'hosts'


def test_many_origins(new_desk: NewDesk, caplog: pytest.LogCaptureFixture) -> None:
    """5,000 origins at once cost 100 short lines, and all are refused, those that are not told too."""
    desk, count = new_desk(), 0
    for first in range(0, 5000, 500):
        request = b''.join(
            f'GET /cmd/do HTTP/1.1\r\nHost: localhost\r\nOrigin: http://{n}.{"a" * (n % 2000)}.example\r\n\r\n'.encode()
            for n in range(first, first + 500)
        )
        with dial(desk.wsa.port) as connection, ThreadPoolExecutor(1) as pool:
            sent = pool.submit(connection.sendall, request)
            with connection.makefile('rb') as stream:
                for line in stream:
                    count += b'HTTP/1.1 403 ' in line  # it follows a body without a line's end
                    if count == first + 500:
                        break
            sent.result()
    assert (count, desk.done) == (5000, [])
    assert (len(lines(caplog)), max(map(len, lines(caplog))) < 1000) == (REFUSALS, True)


# --- logins: what comes before ---

LOGINS: list[tuple[Any, str | None, dict[str, str]]] = [
    (
        ws.basic_auth({'ann': 'pass'}),
        'Basic realm="webshoes", charset="UTF-8"',
        {'Authorization': 'Basic ' + base64.b64encode(b'ann:pass').decode()},
    ),
    (ws.bearer_auth(TOKEN), 'Bearer realm="webshoes"', {'Authorization': f'Bearer {TOKEN}'}),
    (lambda ctx: ctx.req.headers.get('X-Key'), None, {'X-Key': 'mine'}),
]
PLACES = [*CALLS, *((method, path, {}, None) for method, path, headers, status in ANSWERS), ('GET', '/', {}, None)]


@pytest.mark.parametrize(('auth', 'challenge', 'login'), LOGINS)
def test_nothing_without_a_login(
    new_desk: NewDesk, open_peer: OpenPeer, auth: Any, challenge: str | None, login: dict[str, str]
) -> None:
    """Commands, events, files and what is nowhere are 401 alike, and nothing is run; with a login all are served."""
    desk = new_desk(auth=auth)
    for method, path, headers, body in PLACES:
        answer = desk.ask(path, method, body, **headers)
        assert (answer.status_code, answer.headers.get('WWW-Authenticate')) == (401, challenge)
        if method != 'HEAD':
            assert answer.json() == {'error': 'A login is needed', 'code': 401}
    for path in '/', '/cmd/do', '/nowhere':
        answer = refused(desk.wsa, path)
        assert (answer.status_code, answer.headers.get('WWW-Authenticate')) == (401, challenge)
    assert (desk.done, desk.wsa.connections) == ([], [])
    for method, path, headers, body in PLACES:
        assert desk.ask(path, method, body, **headers, **login).status_code != 401
    assert open_peer(desk.wsa, additional_headers=login).ask({'cmd': 'cmd/do'})['r'] == 'done'


def test_hosts_and_origins_come_before_logins(new_desk: NewDesk, open_peer: OpenPeer) -> None:
    """Nobody is asked to log in who may not ask at all."""
    asked: list[ws.Context] = []
    desk = new_desk(auth=asked.append)
    for headers in {'Origin': EVIL}, {'Host': 'evil.example'}, {'Sec-Fetch-Site': 'cross-site'}:
        assert {answer.status_code for answer in send(desk, headers)} == {403}
    for origin in EVIL, 'null':
        assert close_of(open_peer(desk.wsa, origin=origin))[0] == 4403
    with dial(desk.wsa.port) as connection:
        connection.sendall(upgrade(f'Origin: {EVIL}', host='evil.example'))
        assert read_head(connection).startswith('HTTP/1.1 403 ')
    assert asked == []


def test_an_origin_comes_before_a_login_by_message(door: NewDesk, open_peer: OpenPeer) -> None:
    """A page of another origin is refused before it can send its login."""
    desk = door(limits=ws.Limits(auth_timeout=TIMEOUT))
    assert close_of(open_peer(desk.wsa, origin=EVIL)) == (4403, 'Pages of this origin are not let in')


@pytest.mark.parametrize('settings', [{}, {'auth': ws.bearer_auth(TOKEN), 'origins': [EVIL]}])
def test_a_refusal_of_what_is_no_handshake(new_desk: NewDesk, settings: Any) -> None:
    """A page that sends what is no WebSocket handshake reads that it is refused, not what is wrong with it."""
    desk = new_desk(**settings)
    answer = exchange_once(
        desk.wsa, f'GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nOrigin: {EVIL}\r\n\r\n'.encode()
    )
    assert answer.startswith(b'HTTP/1.1 401' if settings else b'HTTP/1.1 403')


def test_a_refusal_is_readable_where_it_may_be(new_desk: NewDesk) -> None:
    """A page of a listed origin reads that a login is needed."""
    answer = new_desk(origins=[FRIEND], auth=ws.bearer_auth(TOKEN)).ask('/cmd/do', Origin=FRIEND)
    assert (answer.status_code, answer.headers['Access-Control-Allow-Origin']) == (401, FRIEND)


# --- logins: what they find ---


def test_the_user(new_desk: NewDesk, open_peer: OpenPeer) -> None:
    """`ctx.user` is what `auth` found: in handlers, in hooks and in `wsa.connections`, over each transport."""
    desk = new_desk(auth=ws.bearer_auth({'a': 'ann', 'b': {'name': 'bob'}}))
    told: list[Any] = []
    desk.wsa.on('connect')(lambda ctx: told.append(('connect', ctx.user)))
    desk.wsa.on('disconnect')(lambda ctx: told.append(('disconnect', ctx.user)))
    desk.wsa.on('subscribe')(lambda ctx, event: told.append(('subscribe', ctx.user)))
    desk.wsa.on('unsubscribe')(lambda ctx, event: told.append(('unsubscribe', ctx.user)))
    assert desk.ask('/cmd/who', Authorization='Bearer a').text == 'ann'
    assert desk.ask('/cmd/who', Authorization='Bearer b').json() == {'name': 'bob'}
    peer = open_peer(desk.wsa, additional_headers={'Authorization': 'Bearer b'})
    assert peer.ask({'cmd': 'cmd/who'})['r'] == {'name': 'bob'}
    stream = desk.ask('/cmd?evt=heat', Authorization='Bearer a', **STREAM)
    until(lambda: desk.wsa.subscribers('heat'))
    assert [conn.user for conn in desk.wsa.connections] == [{'name': 'bob'}, 'ann']
    stream.close()
    until(lambda: len(desk.wsa.connections) == 1)
    peer.connection.close()
    until(lambda: len(told) == 6)
    assert [user for moment, user in told if moment == 'connect'] == [{'name': 'bob'}, 'ann']
    assert {moment for moment, user in told if user == 'ann'} == {'connect', 'disconnect', 'subscribe', 'unsubscribe'}


def test_without_auth_there_is_no_user(new_desk: NewDesk) -> None:
    """Where nobody logs in, a login that is sent means nothing."""
    assert new_desk().ask('/cmd/who', Authorization='Basic YW5uOnBhc3M=').json() is None


def test_how_often_auth_is_asked(new_desk: NewDesk, open_peer: OpenPeer) -> None:
    """Once for each HTTP request of a connection, once for a WebSocket and a stream, whatever is called over it."""
    asked: list[str] = []

    def auth(ctx: ws.Context) -> str:
        asked.append(ctx.method)
        return 'ann'

    desk = new_desk(auth=auth)
    with requests.Session() as session:
        for path in '/cmd/who', '/cmd/who', '/cmd?evt=cold', '/nowhere':
            session.get(desk.wsa.url + path, timeout=TIMEOUT)
        session.post(f'{desk.wsa.url}/cmd/who', timeout=TIMEOUT)
    peer = open_peer(desk.wsa)
    for _ in range(3):
        assert peer.ask({'cmd': 'cmd/who'})['r'] == 'ann'
    peer.subscribe('heat')
    with desk.ask('/cmd?evt=heat&evt=cold', **STREAM):
        pass
    assert asked == ['GET'] * 4 + ['POST', 'WS', 'GET']


class Gate:
    """An `auth` that waits to be told whom to let in."""

    def __init__(self, is_async: bool) -> None:
        self.entered = threading.Semaphore(0)
        self.left = threading.Semaphore(0)
        self.user: Any = None
        self._go = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._going: asyncio.Event | None = None
        self.auth = self._later if is_async else ws.threaded(self._blocking)

    async def _later(self, ctx: ws.Context) -> Any:
        self._loop, self._going = asyncio.get_running_loop(), self._going or asyncio.Event()
        self.entered.release()
        try:
            await self._going.wait()
        finally:
            self.left.release()
        return self.user

    def _blocking(self, ctx: ws.Context) -> Any:
        self.entered.release()
        self._go.wait(TIMEOUT)
        return self.user

    def open(self, user: Any) -> None:
        """Let all through, as this user."""
        self.user = user
        self._go.set()
        if self._loop is not None and self._going is not None:
            self._loop.call_soon_threadsafe(self._going.set)


@pytest.mark.parametrize('is_async', [True, False])
@pytest.mark.parametrize('user', ['ann', None])
@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_a_slow_login(new_desk: NewDesk, is_async: bool, user: str | None, loop: str) -> None:
    """While `auth` takes its time nothing is run and nothing delivered; others are served, and then it counts."""
    gate = Gate(is_async)
    desk = new_desk(auth=gate.auth, loop=loop)
    head = 'HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n'
    with dial(desk.wsa.port) as post, dial(desk.wsa.port) as stream, handshake(desk.wsa) as peer:
        post.sendall(f'POST /cmd/do {head}Content-Length: 0\r\n\r\n'.encode())
        stream.sendall(f'GET /cmd?evt=heat {head}Accept: text/event-stream\r\n\r\n'.encode())
        peer.sendall(frame({'cmd': 'cmd/do'}) + frame({'evt': 'heat'}))
        for _ in range(3):
            assert gate.entered.acquire(timeout=TIMEOUT)
        desk.wsa.triggerEvent('heat', 'secret')
        assert desk.ask('/cmd/do', Origin=EVIL).status_code == 403  # a whole request, meanwhile
        assert not any(map(has_answer, (post, stream, peer)))
        assert (desk.done, desk.wsa.connections) == ([], [])
        gate.open(user)
        codes = [read_head(connection).split()[1] for connection in (post, stream, peer)]
    if user is None:
        assert (codes, desk.done) == (['401'] * 3, [])
    else:
        assert codes == ['200', '200', '101']
        until(lambda: {'do', 'connect', 'subscribe'} <= set(desk.done))


@pytest.mark.parametrize('is_async', [True, False])
def test_auth_timeout(new_desk: NewDesk, is_async: bool) -> None:
    """A login that takes too long is 408 on each transport, and counted."""
    gate = Gate(is_async)
    desk = new_desk(auth=gate.auth, limits=ws.Limits(auth_timeout=0.01, slow_handler=None))
    for answer in desk.ask('/cmd/do'), desk.ask('/files/file.txt'), desk.ask('/cmd?evt=heat', **STREAM):
        assert (answer.status_code, answer.json()['error']) == (408, 'The login took too long')
    assert refused(desk.wsa).status_code == 408
    assert desk.done == []
    assert desk.wsa.stats()['limits']['auth_timeout'] == 4
    gate.open('ann')


@pytest.mark.parametrize('error', [ValueError('inside'), TimeoutError('inside'), ConnectionError('inside')])
@pytest.mark.parametrize('is_async', [True, False])
def test_auth_that_fails(new_desk: NewDesk, caplog: pytest.LogCaptureFixture, error: Exception, is_async: bool) -> None:
    """An error of `auth` lets nobody in: 500 on each transport, told by the name of `auth`, and nothing of it leaks."""

    async def check_later(ctx: ws.Context) -> None:
        raise error

    def check(ctx: ws.Context) -> None:
        raise error

    desk = new_desk(auth=check_later if is_async else check)
    for answer in desk.ask('/cmd/do'), desk.ask('/files/file.txt'), desk.ask('/nowhere'), refused(desk.wsa):
        assert (answer.status_code, answer.json()) == (500, {'error': 'Server error', 'code': 500})
    assert refused(desk.wsa, origin=desk.wsa.url).status_code == 500
    name = 'check_later' if is_async else 'check'
    (line,) = lines(caplog)  # the same place, once a minute
    assert re.fullmatch(rf"'auth .*\.{name}' failed", line)
    assert desk.done == []


@pytest.mark.parametrize(('code', 'message'), [(401, 'Who are you?'), (403, 'Not you'), (429, 'Later')])
def test_what_auth_raises(new_desk: NewDesk, code: int, message: str) -> None:
    """`auth` refuses with an error of its own, which the client reads."""

    async def auth(ctx: ws.Context) -> None:
        raise ws.Error(code, message)

    desk = new_desk(auth=auth)
    for answer in desk.ask('/cmd/do'), desk.ask('/cmd?evt=heat'), desk.ask('/files/file.txt'), refused(desk.wsa):
        assert (answer.status_code, answer.json()) == (code, {'error': message, 'code': code})
    assert desk.done == []


# --- logins of WebSockets ---


@pytest.mark.parametrize(
    ('headers', 'protocol'),
    [
        ([f'Authorization: Bearer {TOKEN}'], None),
        ([f'Authorization: Bearer {TOKEN}', 'Sec-WebSocket-Protocol: webshoes'], 'webshoes'),
        ([f'Sec-WebSocket-Protocol: webshoes, {TOKEN}'], 'webshoes'),
        ([f'Sec-WebSocket-Protocol: {TOKEN}, webshoes'], 'webshoes'),
        ([f'Sec-WebSocket-Protocol: {TOKEN}'], None),
        ([f'Sec-WebSocket-Protocol: {TOKEN}', 'Sec-WebSocket-Protocol: webshoes'], None),
        (
            ['Sec-WebSocket-Protocol: webshoes', f'Sec-WebSocket-Protocol: {TOKEN}', f'Authorization: Bearer {TOKEN}'],
            'webshoes',
        ),
        (['Sec-WebSocket-Protocol: webshoes, wrong-token'], 401),
        (['Sec-WebSocket-Protocol: webshoes'], 401),
        (['Sec-WebSocket-Protocol: wrong-token'], 401),
        (['Authorization: Bearer wrong-token'], 401),
    ],
)
@pytest.mark.parametrize('by_message', [False, True])
def test_tokens_are_not_repeated(
    new_desk: NewDesk, caplog: pytest.LogCaptureFixture, headers: list[str], protocol: Any, by_message: bool
) -> None:
    """A token is neither echoed nor logged by any logger, at any level, whether it is right or wrong."""
    caplog.set_level(logging.DEBUG)
    desk = new_desk(auth=ws.bearer_auth(TOKEN, by_message=by_message), opts={'verbose': True})
    with handshake(desk.wsa, *headers, f'Origin: {desk.wsa.url}') as connection:
        head = read_head(connection)
        if protocol == 401 and not (by_message and headers == ['Sec-WebSocket-Protocol: webshoes']):
            with connection.makefile('rb') as stream:
                assert stream.read(4)[2:] == (4401).to_bytes(2, 'big')
    found = dict(line.split(': ') for line in head.splitlines()[1:-1])
    assert found.get('Sec-WebSocket-Protocol') == (protocol if protocol != 401 else found.get('Sec-WebSocket-Protocol'))
    desk.wsa.stop()
    assert caplog.records
    for text in head, caplog.text:
        assert TOKEN not in text
        assert 'wrong-token' not in text


def test_other_subprotocols(new_desk: NewDesk, open_peer: OpenPeer) -> None:
    """Without a login too, `webshoes` alone is agreed to."""
    desk = new_desk()
    for offered, agreed in (['webshoes'], 'webshoes'), (['other', 'webshoes'], 'webshoes'), (['other'], None):
        peer = open_peer(desk.wsa, subprotocols=offered)
        assert (peer.connection.subprotocol, is_quiet(peer)) == (agreed, True)


@pytest.mark.parametrize(('code', 'message'), [(401, 'Who are you?'), (403, 'Not you:' + '\xfc' * 100)])
def test_browsers_read_why(new_desk: NewDesk, open_peer: OpenPeer, code: int, message: str) -> None:
    """A browser is upgraded and closed with 4401 or 4403 and the reason; who is none reads it; nothing is run."""

    def auth(ctx: ws.Context) -> None:
        raise ws.Error(code, message)

    desk = new_desk(auth=auth, origins=[FRIEND])
    for origin in desk.wsa.url, FRIEND:
        peer = open_peer(desk.wsa, origin=origin)
        found, reason = close_of(peer)
        assert (found, message.startswith(reason), len(reason.encode()) > min(121, len(message) - 1)) == (
            4000 + code,
            True,
            True,
        )
    answer = refused(desk.wsa)
    assert (answer.status_code, answer.json()['error']) == (code, message)
    assert (desk.done, desk.wsa.connections) == ([], [])


def test_a_browser_that_sends_at_once(new_desk: NewDesk) -> None:
    """What a browser sends that is being closed is not carried out."""
    desk = new_desk(auth=ws.bearer_auth(TOKEN))
    with handshake(desk.wsa, f'Origin: {desk.wsa.url}') as connection:
        connection.sendall(frame({'cmd': 'cmd/do'}) + frame({'evt': 'heat'}) + b'\x88\x82\0\0\0\0\x03\xe8')
        read_head(connection)
        with connection.makefile('rb') as stream:
            assert stream.read()[:4] == b'\x88\x13\x11\x31'  # a close with 4401 and 17 bytes, and nothing before
    assert desk.done == []


# --- a login by message ---


@pytest.fixture
def door(new_desk: NewDesk) -> NewDesk:
    """An app whose WebSockets may log in by message: `door(limits=...)`."""
    return lambda **settings: new_desk(auth=ws.bearer_auth({TOKEN: 'ann'}, by_message=True), **settings)


@pytest.mark.parametrize('origin', [None, 'own'])
def test_a_login_by_message(door: NewDesk, open_peer: OpenPeer, origin: str | None) -> None:
    """The first message logs in, has no answer, and what follows is served; a later one is no message."""
    desk = door()
    peer = open_peer(desk.wsa, origin=desk.wsa.url if origin else None)
    peer.connection.ping().wait(TIMEOUT)  # it is alive, and nobody yet
    assert (desk.done, desk.wsa.connections) == ([], [])
    peer.send({'auth': TOKEN}, {'cmd': 'cmd/who'})
    assert peer.receive()['r'] == 'ann'
    assert (desk.done, [conn.user for conn in desk.wsa.connections]) == (['connect'], ['ann'])
    assert peer.ask({'auth': TOKEN})['code'] == 400


@pytest.mark.parametrize(
    'first',
    [
        {'auth': 'wrong'},
        {'auth': ''},
        {'auth': None},
        {'auth': 7},
        {'auth': [TOKEN]},
        {'auth': {'token': TOKEN}},
        {'token': TOKEN},
        {'cmd': 'cmd/do'},
        {'evt': 'heat'},
        {'ping': 1},
        [{'auth': TOKEN}],
        TOKEN,
        None,
        {},
    ],
)
def test_a_first_message_that_is_no_login(door: NewDesk, open_peer: OpenPeer, first: Any) -> None:
    """Whatever else comes first closes with 4401, and nothing that follows is carried out."""
    desk = door()
    peer = open_peer(desk.wsa)
    peer.send(first)
    code, reason = close_of(peer)
    assert (code, bool(reason)) == (4401, True)
    assert (desk.done, desk.wsa.connections) == ([], [])


@pytest.mark.parametrize(
    'first',
    [b'\x00', json.dumps({'auth': TOKEN}).encode(), 'no JSON', '', '{"auth"', '[' * 100_000, '{"auth": "\\ud800"}'],
)
def test_a_first_frame_that_is_no_message(door: NewDesk, open_peer: OpenPeer, first: str | bytes) -> None:
    """A binary frame, and what is no JSON, close with 4401, and count as no timeout."""
    desk = door()
    peer = open_peer(desk.wsa)
    peer.connection.send(first)
    assert close_of(peer)[0] == 4401
    assert (desk.done, desk.wsa.stats()['limits']['auth_timeout']) == ([], 0)


def test_a_first_message_that_is_no_text(door: NewDesk) -> None:
    """A text that is no UTF-8 closes with 4401, and counts as no timeout."""
    desk = door()
    with handshake(desk.wsa) as connection, connection.makefile('rb') as stream:
        read_head(connection)
        connection.sendall(b'\x81\x82\0\0\0\0\xff\xfe')
        assert stream.read(4)[2:] == (4401).to_bytes(2, 'big')
    assert desk.wsa.stats()['limits']['auth_timeout'] == 0


def test_a_first_message_that_is_too_large(door: NewDesk, open_peer: OpenPeer) -> None:
    """Past the limit of a message it closes as any message does (RFC 6455 section 7.4.1)."""
    desk = door(limits=ws.Limits(max_ws_msg_size=1000))
    peer = open_peer(desk.wsa)
    peer.send({'auth': TOKEN, 'more': 'x' * 1000})
    assert close_of(peer)[0] == 1009
    assert desk.done == []


def test_a_first_message_that_is_late(door: NewDesk, open_peer: OpenPeer) -> None:
    """Who does not log in within `auth_timeout` is closed with 4401, pings or not, and counted."""
    desk = door(limits=ws.Limits(auth_timeout=0.05))
    peer = open_peer(desk.wsa)
    peer.connection.ping()
    assert close_of(peer) == (4401, 'No login came in time')
    assert (desk.done, desk.wsa.stats()['limits']['auth_timeout']) == ([], 1)


def test_one_who_leaves_before_the_login(door: NewDesk, open_peer: OpenPeer) -> None:
    """A close before the login is answered, is no timeout, and others are let in."""
    desk = door()
    peer = open_peer(desk.wsa)
    peer.connection.close(4000, 'bye')
    assert peer.connection.close_code == 4000
    handshake(desk.wsa).close()
    other = open_peer(desk.wsa)
    other.send({'auth': TOKEN})
    assert is_quiet(other)
    assert (desk.done, desk.wsa.stats()['limits']['auth_timeout']) == (['connect'], 0)


def test_a_message_where_it_is_not_enabled(new_desk: NewDesk, open_peer: OpenPeer) -> None:
    """Without `by_message` a WebSocket without a token is refused before any message."""
    desk = new_desk(auth=ws.bearer_auth(TOKEN))
    assert refused(desk.wsa).status_code == 401
    assert close_of(open_peer(desk.wsa, origin=desk.wsa.url)) == (4401, 'A login is needed')


def test_a_wrong_token_in_the_handshake(door: NewDesk) -> None:
    """Who brings a token is judged by it, and gets no second try by message."""
    desk = door()
    assert refused(desk.wsa, additional_headers={'Authorization': 'Bearer wrong'}).status_code == 401
    assert refused(desk.wsa, subprotocols=['webshoes', 'wrong']).status_code == 401


@pytest.mark.parametrize('error', [ValueError('inside'), TimeoutError('inside')])
def test_a_check_that_fails_by_message(
    new_desk: NewDesk, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """An error of the check lets nobody in, closes with 1011, is told by its name, and is no timeout."""

    def check(token: str) -> None:
        raise error

    desk = new_desk(auth=ws.bearer_auth(check, by_message=True))
    peer = open_peer(desk.wsa)
    peer.send({'auth': TOKEN})
    assert close_of(peer) == (1011, 'Server error')
    assert lines(caplog) == ["'auth BearerLogin' failed"]
    assert (desk.done, desk.wsa.stats()['limits']['auth_timeout']) == ([], 0)


@pytest.mark.parametrize('kind', ['async', 'threaded'])
def test_slow_checks_by_message(new_desk: NewDesk, open_peer: OpenPeer, kind: str) -> None:
    """What follows the token waits until a slow check has accepted it."""
    go, entered = threading.Event(), threading.Event()

    @ws.threaded
    def check(token: str) -> str:
        entered.set()
        go.wait(TIMEOUT)
        return 'ann'

    async def check_later(token: str) -> str:
        return await asyncio.to_thread(check, token)

    desk = new_desk(auth=ws.bearer_auth(check if kind == 'threaded' else check_later, by_message=True))
    peer = open_peer(desk.wsa)
    peer.send({'auth': 'any'}, {'cmd': 'cmd/do'}, {'cmd': 'cmd/who'})
    assert entered.wait(TIMEOUT)
    assert desk.ask('/cmd/do', Origin=EVIL).status_code == 403
    assert (desk.done, desk.wsa.connections) == ([], [])
    go.set()
    assert [peer.receive()['r'] for _ in range(2)] == ['done', 'ann']


# --- the end ---


def test_a_user_who_is_put_out(new_desk: NewDesk, open_peer: OpenPeer) -> None:
    """`conn.close(4401)` puts out the one whose login has ended, and nobody else."""
    desk = new_desk(auth=ws.bearer_auth({'a': 'ann', 'b': 'bob'}))
    ann, bob = (open_peer(desk.wsa, additional_headers={'Authorization': f'Bearer {token}'}) for token in 'ab')
    assert is_quiet(ann)
    assert is_quiet(bob)
    for conn in desk.wsa.connections:
        if conn.user == 'ann':
            conn.close(4401, 'Your login has ended')
    assert close_of(ann) == (4401, 'Your login has ended')
    assert is_quiet(bob)
    assert [conn.user for conn in desk.wsa.connections] == ['bob']


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_stop_while_logins_are_pending(new_desk: NewDesk, loop: str) -> None:
    """`stop()` ends logins that wait, nothing is run for them, and the app starts again."""
    gate = Gate(is_async=True)
    desk = new_desk(auth=gate.auth, loop=loop, limits=ws.Limits(stop_timeout=1.0, auth_timeout=TIMEOUT))
    with dial(desk.wsa.port) as post, handshake(desk.wsa) as peer:
        post.sendall(b'POST /cmd/do HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n')
        for _ in range(2):
            assert gate.entered.acquire(timeout=TIMEOUT)
        desk.wsa.stop()
        for connection in post, peer:
            assert not received(connection).startswith((b'HTTP/1.1 200', b'HTTP/1.1 101'))
        for _ in range(2):
            assert gate.left.acquire(timeout=TIMEOUT)
    assert desk.done == []
    desk.wsa.start()
    assert desk.ask('/cmd/do', Origin=EVIL).status_code == 403


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_stop_while_a_first_message_is_awaited(door: NewDesk, loop: str) -> None:
    """`stop()` ends a WebSocket that has not logged in."""
    desk = door(loop=loop, limits=ws.Limits(stop_timeout=1.0, auth_timeout=TIMEOUT))
    with handshake(desk.wsa) as peer:
        assert read_head(peer).startswith('HTTP/1.1 101 ')
        desk.wsa.stop()
        received(peer)
    assert desk.done == []


def received(connection: socket.socket) -> bytes:
    """All that comes until the connection ends, in whatever way."""
    found = b''
    try:
        while chunk := connection.recv(65536):
            found += chunk
    except ConnectionResetError:
        pass
    return found


# --- https and wss ---


@pytest.fixture(scope='module')
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp('certificates'))


@pytest.mark.parametrize('as_context', [True, False])
def test_origins_and_logins_over_tls(new_desk: NewDesk, certificates: Certificates, as_context: bool) -> None:
    """Over https and wss the same rules hold, whether TLS is given as a context or as two paths."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*certificates.paths)
    desk = new_desk(
        ssl=server if as_context else certificates.paths, auth=ws.bearer_auth({TOKEN: 'ann'}), origins=[FRIEND]
    )
    login = {'Authorization': f'Bearer {TOKEN}'}
    trusting = ssl.create_default_context(cafile=certificates.authority)
    trust: dict[str, Any] = {'verify': certificates.authority, 'timeout': TIMEOUT}
    with requests.Session() as session:
        for origin, status in (desk.wsa.url, 200), (FRIEND, 200), (EVIL, 403), ('https://127.0.0.1', 403):
            answer = session.get(f'{desk.wsa.url}/cmd/who', headers={**login, 'Origin': origin}, **trust)
            assert answer.status_code == status
        assert session.get(f'{desk.wsa.url}/cmd/who', **trust).status_code == 401
    own: Any = desk.wsa.url
    dial_in = partial(connect_alone, own.replace('http', 'ws', 1), ssl=trusting)

    async def shake_hands() -> None:  # with a client of one thread: two at once on one TLS connection may hang
        async with dial_in(origin=own, subprotocols=cast(Any, ['webshoes', TOKEN])) as connection:
            await connection.send(json.dumps({'cmd': 'cmd/who'}))
            assert (json.loads(await connection.recv())['r'], connection.subprotocol) == ('ann', 'webshoes')
        with pytest.raises(InvalidStatus) as refusal:
            await dial_in()
        assert refusal.value.response.status_code == 401
        for origin, code in (EVIL, 4403), (own, 4401):
            async with dial_in(origin=cast(Any, origin)) as connection:
                with pytest.raises(ConnectionClosed) as closed:
                    await connection.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == code

    run_apart(shake_hands())


def test_an_auth_that_gives_false(serve: Serve) -> None:
    """A function that says `False` of who asks refuses, as one that gives no user."""
    wsa = serve({'a': lambda ctx, q: ctx.user}, auth=lambda ctx: ctx.req.headers.get('Key') == 'right')
    answers = [requests.get(f'{wsa.url}/cmd/a', headers={'Key': key}, timeout=TIMEOUT) for key in ('wrong', 'right')]
    assert [(answer.status_code, answer.json() is True) for answer in answers] == [(401, False), (200, True)]
