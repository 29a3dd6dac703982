"""Listening: on every address, and on Unix domain sockets."""

from __future__ import annotations

import http.client
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from websockets.sync.client import unix_connect

import webshoes as ws
from test.conftest import TIMEOUT

LoopName = Literal['uvloop', 'asyncio']

loops = pytest.mark.parametrize('loop', ['uvloop', 'asyncio'])


class UnixHttp(http.client.HTTPConnection):
    """An HTTP connection over a Unix domain socket."""

    def __init__(self, path: Path) -> None:
        super().__init__('rig.example.com')
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def make(path: Path, **settings: Any) -> ws.WebShoesApp:
    """An app on a Unix domain socket that tells what it knows of who asks."""
    wsa = ws.WebShoesApp(f'unix:{path}', 0, **settings)
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'who': lambda ctx, q: [ctx.conn.remote, ctx.req.remote]})
    return wsa


def get(path: Path, target: str = '/cmd/who') -> bytes:
    """Return the answer over a Unix domain socket."""
    connection = UnixHttp(path)
    connection.request('GET', target)
    answer = connection.getresponse().read()
    connection.close()
    return answer


def leave_stale(path: Path) -> None:
    """Leave the file of a socket that nobody listens at any more, as a program that is killed does."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for a socket; short, as the system takes about a hundred bytes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / 's'


@pytest.mark.parametrize('addr', ['', '::', '0::0'])
@loops
def test_every_address_is_that_of_both_families(addr: str, loop: LoopName) -> None:
    """`''` and `'::'` listen on IPv4 and IPv6, on the same port."""
    with ws.WebShoesApp(addr, 0, loop=loop) as wsa:
        for host in ('127.0.0.1', '::1'):
            socket.create_connection((host, wsa.port), timeout=TIMEOUT).close()


@pytest.mark.parametrize('addr', ['', '::'])
def test_a_port_that_one_family_has_in_use(addr: str) -> None:
    """A port that another program has on one family is in use."""
    with socket.create_server(('::1', 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match='in use'):
            ws.WebShoesApp(addr, port).start()
        with ws.WebShoesApp('127.0.0.1', port):  # nothing is left of the one that failed
            pass


@loops
def test_a_unix_socket_serves_http_and_websocket(path: Path, loop: LoopName) -> None:
    """Both transports work over a Unix domain socket; `port` is 0, `url` has the path, peers are `unix:`."""
    with make(path, loop=loop) as wsa:
        assert (wsa.port, wsa.url) == (0, f'unix:{path}')
        assert stat.S_ISSOCK(path.lstat().st_mode)
        assert [get(path) for _ in range(2)] == [b'["unix:","unix:"]'] * 2  # the long lane, then the fast one
        with unix_connect(str(path), 'ws://localhost/') as client:
            client.send('{"cmd": "cmd/who"}')
            assert '"r":["unix:","unix:"]' in str(client.recv(TIMEOUT))
            client.send('{"evt": "state"}')
            assert 'Event added' in str(client.recv(TIMEOUT))
            assert [conn.remote for conn in wsa.connections] == ['unix:']
            wsa.triggerEvent('state', 7)
            assert '"r":7' in str(client.recv(TIMEOUT))
    assert not path.exists()


def test_a_client_that_has_a_path_of_its_own(path: Path) -> None:
    """A peer whose socket is bound is `unix:` too."""
    with make(path), socket.socket(socket.AF_UNIX) as client:
        client.bind(str(path.with_name('client')))
        client.settimeout(TIMEOUT)
        client.connect(str(path))
        client.sendall(b'GET /cmd/who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
        assert b''.join(iter(lambda: client.recv(4096), b'')).endswith(b'["unix:","unix:"]')


def test_hosts_of_a_unix_socket(path: Path) -> None:
    """Behind a Unix domain socket any host is served, unless `hosts` lists some."""
    with make(path):
        assert get(path) == b'["unix:","unix:"]'
    with make(path, hosts=['other.example.com']):
        assert b'"code":403' in get(path)


@loops
def test_a_stale_socket_is_replaced(path: Path, loop: LoopName) -> None:
    """The file that a killed program has left is replaced."""
    leave_stale(path)
    with make(path, loop=loop):
        assert get(path) == b'["unix:","unix:"]'
    assert not path.exists()


def test_a_live_socket_is_in_use(path: Path) -> None:
    """A socket at which another server listens is in use, and goes on serving."""
    with make(path):
        with pytest.raises(OSError, match='another server listens there'):
            make(path).start()
        assert get(path) == b'["unix:","unix:"]'


def test_a_socket_of_another_kind_is_in_use(path: Path) -> None:
    """A datagram socket that is open is left alone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(OSError, match='in use'):
            make(path).start()
        assert path.exists()


def link_to_stale(path: Path) -> None:
    leave_stale(path.with_name('t'))
    path.symlink_to(path.with_name('t'))


def link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name('t'))


@pytest.mark.parametrize('leave', [Path.touch, Path.mkdir, os.mkfifo, link_to_stale, link_to_nowhere])
def test_what_is_no_socket_is_never_removed(path: Path, leave: Callable[[Path], None]) -> None:
    """A file that is no socket is left alone, a link to a stale socket included."""
    leave(path)
    before = path.lstat()
    with pytest.raises(OSError, match='no socket'):
        make(path).start()
    assert path.lstat().st_ino == before.st_ino


def test_a_folder_that_is_not_there(path: Path) -> None:
    """The error of a path that cannot be used names it."""
    with pytest.raises(OSError, match=f'cannot listen at {path}/a: No such file'):
        make(path / 'a').start()


def test_a_path_that_is_too_long(path: Path) -> None:
    """The error of a path that is too long names it."""
    with pytest.raises(OSError, match=f'cannot listen at {path}x*: .*too long'):
        make(path.with_name(path.name + 'x' * 200)).start()


@pytest.mark.parametrize('addr', ['unix:', 'unix:a\0b'])
def test_a_unix_address_without_a_path(addr: str) -> None:
    """`unix:` without a usable path is refused when the app is made."""
    with pytest.raises(ValueError, match='a path is needed'):
        ws.WebShoesApp(addr, 0)


def test_start_anew_on_a_unix_socket(path: Path) -> None:
    """`start` on a running app serves again at the same path."""
    with make(path) as wsa:
        wsa.start()
        assert get(path) == b'["unix:","unix:"]'
    assert not path.exists()


def test_a_relative_path_is_that_of_the_folder_at_the_time(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is removed though the program has changed its folder meanwhile."""
    wsa = ws.WebShoesApp('unix:s', 0)
    with wsa:
        assert path.exists()
        monkeypatch.chdir(tmp_path_factory.mktemp('elsewhere'))
        assert wsa.url == f'unix:{path}'
    assert not path.exists()


def test_the_file_of_another_is_not_removed(path: Path) -> None:
    """A file that has taken the place of the socket stays when the server stops."""
    with make(path):
        path.unlink()
        path.write_text('mine')
    assert path.read_text() == 'mine'


def test_a_start_that_fails_later_leaves_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the loop cannot accept, the file is removed and the path is free again."""

    async def fail(*args: Any, **settings: Any) -> None:
        raise OSError('no more descriptors')

    monkeypatch.setattr('asyncio.unix_events._UnixSelectorEventLoop.create_unix_server', fail)
    with pytest.raises(OSError, match='no more descriptors'):
        make(path, loop='asyncio').start()
    assert not path.exists()
