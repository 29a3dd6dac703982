"""Refusals: what the log and the client read, and which paths need no login."""

from __future__ import annotations

import ast
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import web

import webshoes as ws
from webshoes.log import REFUSALS

from .conftest import TIMEOUT, OpenPeer, Serve, exchange
from .faces import dial, read_head, until, upgrade
from .test_security import EVIL, STREAM, TOKEN, Desk, NewDesk, close_of, lines, new_desk, refused

__all__ = ['new_desk']  # a fixture

LINK = {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate', 'Sec-Fetch-Dest': 'document'}
ALL = "; to let it in: WebShoesApp(..., origins=['*'])"
UNNAMED = 'a page of another origin, which the browser does not name, was refused' + ALL
IMAGE = (
    'an image, a script or the like on a page of another origin, which the browser does not name, was refused; '
    'to let it in: add the attribute crossorigin to its tag, '
    'and list the origin of its page in WebShoesApp(..., origins=[...]); '
    "without the attribute only origins=['*'] lets it in"
)


# --- the narrowest setting ---


@pytest.mark.parametrize(
    ('method', 'path', 'headers', 'line'),
    [
        ('GET', '/cmd/do', LINK, "a link from another site to 'cmd/do' was refused; to let it in: {page}"),
        ('HEAD', '/cmd/do', LINK, "a link from another site to 'cmd/do' was refused; to let it in: {page}"),
        ('GET', '/cmd/do/more?a=1', LINK, "a link from another site to 'cmd/do' was refused; to let it in: {page}"),
        (
            'GET',
            '/cmd/do',
            LINK | {'Sec-Fetch-Site': 'same-site', 'Sec-Fetch-Dest': 'iframe'},
            "a link from another site to 'cmd/do' was refused; to let it in: {page}",
        ),
        ('POST', '/cmd/do', LINK, UNNAMED),
        ('GET', '/cmd?evt=heat', LINK, UNNAMED),
        ('GET', '/cmd/do', {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'no-cors'}, IMAGE),
        ('GET', '/cmd/open', {'Sec-Fetch-Site': 'same-site', 'Sec-Fetch-Mode': 'no-cors'}, IMAGE),
        ('GET', '/cmd/do', {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'cors'}, UNNAMED),
        ('GET', '/cmd/do', {'Sec-Fetch-Site': 'cross-site'}, UNNAMED),
        ('GET', '/cmd/do', {'Origin': EVIL, 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'cors'}, '{origin}'),
        ('POST', '/cmd/do', {'Origin': EVIL, **LINK}, '{origin}'),
        ('GET', '/cmd/do', {'Origin': EVIL, **LINK}, '{origin}'),
        ('OPTIONS', '/cmd/do', {'Origin': EVIL, 'Access-Control-Request-Method': 'PUT'}, '{origin}'),
        ('GET', '/cmd?evt=heat', {'Origin': EVIL, **STREAM}, '{origin}'),
        ('GET', '/cmd/do', {'Origin': EVIL, 'Host': 'evil.example'}, "host 'evil.example' was refused{hosts}"),
    ],
)
def test_the_hint_is_the_narrowest_setting(
    new_desk: NewDesk, caplog: pytest.LogCaptureFixture, method: str, path: str, headers: dict[str, str], line: str
) -> None:
    """The log names the setting that lets in what was refused, and as little as possible beside it."""
    desk = new_desk()
    for _ in range(2):
        assert desk.ask(path, method, **headers).status_code == 403
    assert lines(caplog) == [
        line.format(
            page='mark this function with @ws.page',
            origin=f"a page of origin '{EVIL}' was refused; to let it in: WebShoesApp(..., origins=['{EVIL}'])",
            hosts="; to let it in: WebShoesApp(..., hosts=['evil.example'])",
        )
    ]
    assert desk.done == []


def test_a_link_is_let_in_by_the_hint(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """`@ws.page` lets in the link, as the log says, and not a form that claims to be one."""
    wsa = serve({'page': ws.page(lambda ctx, q: 'hello')})
    request = '{} /cmd/page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n'
    request += ''.join(f'{name}: {value}\r\n' for name, value in LINK.items()) + '\r\n'
    assert exchange(wsa, request.format('GET').encode()).endswith(b'hello')
    assert b' 403 ' in exchange(wsa, request.format('POST').encode())
    assert lines(caplog) == [UNNAMED]


# --- logins that are refused ---


@pytest.mark.parametrize(
    ('method', 'path', 'headers', 'line'),
    [
        ('GET', '/cmd/do', {}, 'GET {path} from 127.0.0.1 was refused with 401: {reason}; to let it in: {hint}'),
        ('POST', '/cmd/do', {}, 'POST {path} from 127.0.0.1 was refused with 401: {reason}; to let it in: {hint}'),
        ('GET', '/webshoes.js', {}, 'GET {path} from 127.0.0.1 was refused with 401: {reason}; to let it in: {hint}'),
        (
            'GET',
            '/files/file.txt',
            {},
            'GET {path} from 127.0.0.1 was refused with 401: {reason}; to let it in: {hint}',
        ),
        ('GET', '/cmd?evt=heat', {}, "GET '/cmd' from 127.0.0.1 was refused with 401: {reason}"),
        ('GET', '/files/a%2541', {}, "GET '/files/a%41' from 127.0.0.1 was refused with 401: {reason}"),
        ('GET', '/files/*', {}, 'GET {path} from 127.0.0.1 was refused with 401: {reason}'),
        ('GET', '/nowhere', {}, 'GET {path} from 127.0.0.1 was refused with 401: {reason}'),
        ('GET', '/cmd/do', {'Authorization': 'Bearer no'}, 'GET {path} from 127.0.0.1 was refused with 401: {reason}'),
        ('GET', '/cmd/do/' + 'x' * 200, {}, 'GET {short} from 127.0.0.1 was refused with 401: {reason}'),
    ],
)
def test_refused_logins_are_logged(
    new_desk: NewDesk, caplog: pytest.LogCaptureFixture, method: str, path: str, headers: dict[str, str], line: str
) -> None:
    """A login that is missing or wrong is logged once, without what was sent."""
    desk = new_desk(auth=ws.bearer_auth(TOKEN))
    for _ in range(3):
        assert desk.ask(path, method, **headers).status_code == 401
    hint = f"send a login, or serve this path without one: WebShoesApp(..., public=['{path}'])"
    filled = line.format(path=repr(path), reason="'A login is needed'", hint=hint, short=repr(path[:150]))
    assert lines(caplog) == [filled]


def test_websockets_that_are_refused_are_logged(
    new_desk: NewDesk, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture
) -> None:
    """A WebSocket without a login is logged, and nobody is told to make its path public."""
    desk = new_desk(auth=ws.bearer_auth(TOKEN))
    refused(desk.wsa, '/any')
    assert close_of(open_peer(desk.wsa, '/any', origin=desk.wsa.url)) == (4401, 'A login is needed')
    assert close_of(open_peer(desk.wsa, '/', origin=desk.wsa.url, subprotocols=['webshoes', 'wrong-one']))[0] == 4401
    told = "WebSocket '{}' from 127.0.0.1 was refused with 401: 'A login is needed'"
    assert lines(caplog) == [told.format('/any'), told.format('/')]


@pytest.mark.parametrize(
    ('first', 'reason'),
    [
        ({'auth': 'wrong'}, 'A login is needed'),
        ({'auth': 7}, 'A login is needed'),
        ({'cmd': 'cmd/do'}, 'A login is needed'),
        ('not JSON', 'The first message is no login'),
        (None, 'No login came in time'),
    ],
)
def test_refused_logins_by_message_are_logged(
    new_desk: NewDesk, open_peer: OpenPeer, caplog: pytest.LogCaptureFixture, first: Any, reason: str
) -> None:
    """A first message that is no login is logged, without what it says."""
    limits = ws.Limits(auth_timeout=0.05 if first is None else TIMEOUT)
    peer = open_peer(new_desk(auth=ws.bearer_auth(TOKEN, by_message=True), limits=limits).wsa)
    if isinstance(first, str):
        peer.connection.send(first)
    elif first is not None:
        peer.send(first)
    assert close_of(peer) == (4401, reason)
    assert lines(caplog) == [f"WebSocket '/' from 127.0.0.1 was refused with 401: {reason!r}"]


@pytest.mark.parametrize(
    ('error', 'status', 'logged'),
    [
        (ws.Error(403, 'Not\nyou'), 403, ["GET '/cmd/do' from 127.0.0.1 was refused with 403: 'Not\\nyou'"]),
        (web.HTTPForbidden(reason='No'), 403, ["GET '/cmd/do' from 127.0.0.1 was refused with 403: 'No'"]),
        (web.HTTPFound('/login'), 302, []),
        (ws.Error(503, 'Later'), 503, []),
    ],
)
def test_what_else_auth_raises(
    new_desk: NewDesk, caplog: pytest.LogCaptureFixture, error: Exception, status: int, logged: list[str]
) -> None:
    """Refusals of an `auth` of one's own are logged in one line each; a redirect to the login page is none."""

    def auth(ctx: ws.Context) -> None:
        raise error

    assert new_desk(auth=auth).ask('/cmd/do').status_code == status
    assert lines(caplog) == logged


def test_many_refused_logins(new_desk: NewDesk, caplog: pytest.LogCaptureFixture) -> None:
    """A client that asks for 1,000 paths without a login costs 100 lines; the others are counted."""
    desk, count = new_desk(auth=ws.bearer_auth(TOKEN)), 0
    request = b''.join(f'GET /cmd/do/{n} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode() for n in range(1000))
    with dial(desk.wsa.port) as connection, ThreadPoolExecutor(1) as threads:
        sent = threads.submit(connection.sendall, request)
        with connection.makefile('rb') as stream:
            while count < 1000:
                count += b'HTTP/1.1 401 ' in stream.readline()
        sent.result()
    assert len(lines(caplog)) == REFUSALS
    assert lines(caplog)[-1].endswith('(others that follow within 60 seconds are not told)')


# --- what needs no login ---

PUBLIC = ['/cmd/do', '/cmd', '/webshoes.js', '/files/file.txt', '/files/sub/index.html', '/cmd/ü b']


@pytest.fixture
def desk(new_desk: NewDesk) -> Desk:
    """An app with a login, and paths that need none."""
    return new_desk(auth=ws.bearer_auth(TOKEN), public=PUBLIC)


@pytest.mark.parametrize(
    ('method', 'path', 'status'),
    [
        ('GET', '/cmd/do', 200),
        ('HEAD', '/cmd/do', 200),
        ('POST', '/cmd/do', 200),
        ('GET', '/cmd/do?a=1', 200),
        ('GET', '/cmd/d%6F', 200),  # another spelling of the same path
        ('GET', '/webshoes.js', 200),
        ('GET', '/files/file.txt', 200),
        ('GET', '/files/sub/index.html', 200),
        ('GET', '/cmd/%C3%BC%20b', 404),
    ],
)
def test_a_public_path(desk: Desk, caplog: pytest.LogCaptureFixture, method: str, path: str, status: int) -> None:
    """A path in `public` is served without a login, by each method."""
    assert desk.ask(path, method).status_code == status
    assert lines(caplog) == []


@pytest.mark.parametrize(
    'path',
    [
        '/cmd/do/',
        '/cmd/do/more',
        '/cmd/do%2Fmore',
        '/cmd/do%00',
        '/cmd/do;a=1',
        '/cmd//do',
        '//cmd/do',
        '/cmd/DO',
        '/CMD/do',
        '/cmd/./do',
        '/x/../cmd/do',
        '/cmd/do/..%2fopen',
        '/cmd/open',
        '/cmd/who',
        '/webshoes.mjs',
        '/webshoes.js/',
        '/files/file.txt/',
        '/files/./file.txt',
        '/files/sub',
        '/files/sub/',
        '/files',
        '/cmd?evt=heat',
        '/cmd?evt=heat&since=0&wait=1',
        '/cmd/?evt=heat',
        '/cmd?x=1&evt=heat',
    ],
)
def test_a_path_that_is_not_public(desk: Desk, path: str) -> None:
    """A path beside, below or above a public one needs a login, and so do events at a public path."""
    with dial(desk.wsa.port) as connection:
        connection.sendall(f'GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode())
        assert read_head(connection).startswith('HTTP/1.1 401 ')
    assert desk.done == []


def test_a_stream_at_a_public_path(desk: Desk) -> None:
    """An event stream needs a login at a public path, too."""
    assert desk.ask('/cmd?evt=heat', **STREAM).status_code == 401
    assert desk.done == []


def test_a_websocket_at_a_public_path(desk: Desk, open_peer: OpenPeer) -> None:
    """A WebSocket always needs a login."""
    for path in '/cmd/do', '/cmd', '/webshoes.js':
        assert refused(desk.wsa, path).status_code == 401
        assert close_of(open_peer(desk.wsa, path, origin=desk.wsa.url))[0] == 4401
    assert desk.done == []


def test_public_is_of_logins_alone(desk: Desk) -> None:
    """Hosts and pages of other origins are refused at a public path too."""
    assert desk.ask('/cmd/do', Origin=EVIL).status_code == 403
    assert desk.ask('/cmd/do', Host='evil.example').status_code == 403
    assert desk.done == []


def test_nobody_is_asked_at_a_public_path(new_desk: NewDesk) -> None:
    """`auth` is not called for a public path, so that `ctx.user` is nobody, whatever login is sent."""
    asked: list[ws.Context] = []
    desk = new_desk(auth=asked.append, public=['/cmd/who'])
    assert desk.ask('/cmd/who', Authorization=f'Bearer {TOKEN}').text == 'null'
    assert asked == []


def test_the_hint_makes_a_path_public(new_desk: NewDesk, caplog: pytest.LogCaptureFixture) -> None:
    """The setting that the log names lets the request in, and no other."""
    assert new_desk(auth=ws.bearer_auth(TOKEN)).ask('/cmd/do').status_code == 401
    (value,) = re.findall(r'public=(\[.*\])\)$', lines(caplog)[0])
    desk = new_desk(auth=ws.bearer_auth(TOKEN), public=ast.literal_eval(value))
    assert [desk.ask(path).status_code for path in ('/cmd/do', '/cmd/who')] == [200, 401]


# --- heads that are too large ---


def ask_with(size: int, part: str) -> bytes:
    """A request, a part of whose head has so many bytes."""
    path, header, value = '/cmd/echo', 'Accept', '*/*'
    if part == 'query':
        path += '?a=' + 'x' * (size - len(path) - 3)
    elif part == 'header':
        value = 'x' * (size - len(header))
    else:
        header = 'X' * (size - len(value))
    return f'GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}: {value}\r\n\r\n'.encode()


@pytest.mark.parametrize('limit', [None, 300, 200_000])
@pytest.mark.parametrize('part', ['query', 'header', 'name'])
def test_max_header_size(serve: Serve, limit: int | None, part: str) -> None:
    """The path with its query, and each header, may have `max_header_size` bytes; past it: 431, which is counted."""
    limits = ws.Limits() if limit is None else ws.Limits(max_header_size=limit)
    wsa, most = serve({'echo': lambda ctx, q: 'done'}, limits=limits), limits.max_header_size
    for _ in range(2):
        assert exchange(wsa, ask_with(most - 20, part)).endswith(b'\r\n\r\ndone')
    assert wsa.stats()['limits']['max_header_size'] == 0
    for number, size in enumerate((most + 20, most + 1_000_000), 1):
        head, _, body = exchange(wsa, ask_with(size, part)).partition(b'\r\n\r\n')
        assert head.split()[1] == b'431'
        sentence = f'The path with its query, or a header, is longer than {most} bytes'
        assert json.loads(body) == {'error': sentence, 'code': 431}
        assert wsa.stats()['limits']['max_header_size'] == number


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_a_client_that_sends_on(serve: Serve, loop: str) -> None:
    """A client that goes on sending reads why it is refused, and is not kept for long."""
    wsa = serve(loop=loop)
    with dial(wsa.port) as connection:
        connection.sendall(b'rubbish\r\n\r\n' + b'x' * 100_000)
        with connection.makefile('rb') as stream:
            assert stream.read().endswith(b'{"error":"Not an HTTP request","code":400}')
        until(lambda: not goes_on(connection))


def goes_on(connection: socket.socket) -> bool:
    """Return whether a server still reads from its connection."""
    try:
        connection.sendall(b'x' * 1000)
    except OSError:
        return False
    return True


def test_max_header_size_of_a_handshake(serve: Serve) -> None:
    """A WebSocket's handshake is held to it, too."""
    wsa = serve(limits=ws.Limits(max_header_size=300))
    assert exchange(wsa, upgrade('Cookie: ' + 'x' * 400)).split()[1] == b'431'
    assert wsa.stats()['limits']['max_header_size'] == 1


def test_many_headers(serve: Serve) -> None:
    """Too many headers are 431, however small."""
    many = ''.join(f'X-{n}: 1\r\n' for n in range(200))
    received = exchange(serve(), f'GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n'.encode())
    assert received.split()[1] == b'431'
    assert b'The request has too many headers' in received
