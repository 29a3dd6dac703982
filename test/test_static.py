"""Folders and the package's own files (section 4): what is served, and that nothing else ever is."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

import webshoes as ws

from .conftest import TIMEOUT, OpenPeer, Serve, exchange

SECRET = b'a secret'


def call(wsa: ws.WebShoesApp, path: str, method: str = 'GET', **headers: str) -> requests.Response:
    return requests.request(method, wsa.url + path, headers=headers, timeout=TIMEOUT, allow_redirects=False)


def get_raw(wsa: ws.WebShoesApp, path: bytes) -> tuple[int, bytes]:
    """Ask for this very path; the status and the body."""
    received = exchange(wsa, b'GET ' + path + b' HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
    head, _, body = received.partition(b'\r\n\r\n')
    return int(head.split()[1]), body


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder to serve, and beside it what is not."""
    files = {
        'root/index.html': b'<p>home</p>',
        'root/a.txt': b'0123456789',
        'root/sub/index.html': b'<p>sub</p>',
        'root/sub/b.css': b'p {}',
        'root/bare/c.txt': b'c',
        'root/evil.example/index.html': b'<p>evil</p>',
        'root/a b ☃/index.html': b'<p>snow</p>',
        'root/..hidden': b'dots',
        'root/%2e%2e': b'percent',
        'root/empty.txt': b'',
        'secret.txt': SECRET,
        'root.txt': SECRET,
        'rooted/secret.txt': SECRET,
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / 'root'


@pytest.fixture
def site(serve: Serve, root: Path) -> ws.WebShoesApp:
    """The folder under `/site` and everywhere else, with default pages."""
    wsa = serve()
    folder = {'root': str(root), 'defpage': 'index.html'}
    wsa.register('site', '', '', '', '', {'*': folder})
    wsa.register('*', '', '', '', '', {'*': folder})
    return wsa


prefixes = pytest.mark.parametrize('prefix', ['', '/site'], ids=['everywhere', 'entry'])


# --- what is served ---


@prefixes
@pytest.mark.parametrize(
    ('path', 'content'),
    {
        '/a.txt': b'0123456789',
        '/sub/b.css': b'p {}',
        '/sub%2Fb.css': b'p {}',
        '//sub///b.css': b'p {}',
        '/sub/index.html': b'<p>sub</p>',
        '/a%20b%20%E2%98%83/index.html': b'<p>snow</p>',
        '/..hidden': b'dots',
        '/%252e%252e': b'percent',
        '/empty.txt': b'',
        '/a.txt?v=../secret': b'0123456789',
    }.items(),
)
def test_file(site: ws.WebShoesApp, prefix: str, path: str, content: bytes) -> None:
    """A path below the entry's prefix reads the file of that name below the root."""
    assert get_raw(site, (prefix + path).encode()) == (200, content)


@pytest.mark.parametrize(
    ('name', 'kind'),
    {
        'index.html': 'text/html; charset=utf-8',
        'sub/b.css': 'text/css; charset=utf-8',
        'a.txt': 'text/plain; charset=utf-8',
        '..hidden': 'application/octet-stream',
    }.items(),
)
def test_type(site: ws.WebShoesApp, name: str, kind: str) -> None:
    """A file has the type of its name, never to be guessed at by a browser."""
    headers = call(site, f'/{name}').headers
    assert (headers['Content-Type'], headers['X-Content-Type-Options']) == (kind, 'nosniff')


def test_head(site: ws.WebShoesApp) -> None:
    """HEAD has the headers of GET and no body."""
    received = exchange(site, b'HEAD /a.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
    assert received.startswith(b'HTTP/1.1 200 OK\r\n')
    assert b'\r\nContent-Length: 10\r\n' in received
    assert received.endswith(b'\r\n\r\n')


def test_etag(site: ws.WebShoesApp, root: Path) -> None:
    """A client that has the file is told 304, until the file changes."""
    etag = call(site, '/a.txt').headers['ETag']
    response = call(site, '/a.txt', **{'If-None-Match': etag})
    assert (response.status_code, response.content, response.headers['ETag']) == (304, b'', etag)
    (root / 'a.txt').write_text('changed')
    assert call(site, '/a.txt', **{'If-None-Match': etag}).text == 'changed'


def test_last_modified(site: ws.WebShoesApp, root: Path) -> None:
    """A client that has the file since its last change is told 304."""
    os.utime(root / 'a.txt', (1_000_000_000, 1_000_000_000))
    date = call(site, '/a.txt').headers['Last-Modified']
    assert date == 'Sun, 09 Sep 2001 01:46:40 GMT'
    assert call(site, '/a.txt', **{'If-Modified-Since': date}).status_code == 304
    assert call(site, '/a.txt', **{'If-Modified-Since': 'no date'}).status_code == 200


@pytest.mark.parametrize(
    ('asked', 'status', 'body'),
    [
        ('bytes=2-4', 206, '234'),
        ('bytes=7-', 206, '789'),
        ('bytes=-3', 206, '789'),
        ('bytes=5-500', 206, '56789'),
    ],
)
def test_range(site: ws.WebShoesApp, asked: str, status: int, body: str) -> None:
    """A range of a file is sent as 206."""
    response = call(site, '/a.txt', Range=asked)
    assert (response.status_code, response.text) == (status, body)


@pytest.mark.parametrize('asked', ['bytes=10-', 'bytes=5-4', 'bytes=a-b', 'lines=1-2', ''])
def test_range_that_cannot_be(site: ws.WebShoesApp, caplog: pytest.LogCaptureFixture, asked: str) -> None:
    """A range that makes no sense is 416 with the size, or the whole file, and no news for the log."""
    response = call(site, '/a.txt', Range=asked)
    if response.status_code == 416:
        assert response.headers['Content-Range'] == 'bytes */10'
    else:
        assert (response.status_code, response.text) == (200, '0123456789')
    assert caplog.records == []


@pytest.mark.parametrize('suffix', ['gz', 'br'])
def test_compressed_sibling(site: ws.WebShoesApp, root: Path, suffix: str) -> None:
    """A client that takes it gets the compressed file beside the one it asks for, told as such."""
    packed = gzip.compress(b'0123456789')
    (root / f'a.txt.{suffix}').write_bytes(packed)
    coding = {'gz': 'gzip', 'br': 'br'}[suffix]
    request = f'GET /a.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept-Encoding: {coding}\r\n\r\n'
    head, _, body = exchange(site, request.encode()).partition(b'\r\n\r\n')
    assert body == packed
    assert f'\r\nContent-Encoding: {coding}\r\n'.encode() in head
    assert b'\r\nContent-Type: text/plain; charset=utf-8\r\n' in head


def test_no_compressed_sibling_unasked(site: ws.WebShoesApp, root: Path) -> None:
    """A client that takes no compression gets the file itself."""
    (root / 'a.txt.gz').write_bytes(b'packed')
    assert call(site, '/a.txt', **{'Accept-Encoding': 'identity'}).text == '0123456789'


@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])
@pytest.mark.parametrize('path', ['/a.txt', '/sub/', '/webshoes.js', '/site/a.txt'])
def test_other_methods(site: ws.WebShoesApp, method: str, path: str) -> None:
    """A file takes GET and HEAD, and says so."""
    response = call(site, path, method)
    assert (response.status_code, response.json()['code']) == (405, 405)
    assert response.headers['Allow'] == 'GET, HEAD'


def test_other_method_on_nothing(site: ws.WebShoesApp) -> None:
    """What is not there is 404 for every method."""
    assert call(site, '/nothing', 'POST').status_code == 404


def test_functions_beside_a_folder(serve: Serve, root: Path) -> None:
    """A folder takes what the functions of its entry do not."""
    wsa = serve({'*': {'root': root}, 'a.txt': lambda ctx, q: 'a function'})
    assert (call(wsa, '/cmd/a.txt').text, call(wsa, '/cmd/sub/b.css').text) == ('a function', 'p {}')


def test_root_that_comes_later(serve: Serve, tmp_path: Path) -> None:
    """A root that does not exist holds nothing, until it does."""
    wsa = serve({'*': {'root': tmp_path / 'later'}})
    assert call(wsa, '/cmd/a.txt').status_code == 404
    (tmp_path / 'later').mkdir()
    (tmp_path / 'later/a.txt').write_text('here')
    assert call(wsa, '/cmd/a.txt').text == 'here'


def test_root_that_is_a_link(serve: Serve, root: Path, tmp_path: Path) -> None:
    """A root may be a link, and so may what stays inside."""
    (tmp_path / 'link').symlink_to(root)
    (root / 'inside').symlink_to(root / 'sub')
    assert call(serve({'*': {'root': tmp_path / 'link'}}), '/cmd/inside/b.css').text == 'p {}'


# --- default pages ---


@pytest.mark.parametrize(
    ('path', 'location'),
    {
        '/': 'index.html',
        '//': 'index.html',
        '/?a=b&c': 'index.html?a=b&c',
        '/?a=b%26c%3D%2B': 'index.html?a=b%26c%3D%2B',
        '/?a=%0D%0AX-Evil:%20b': 'index.html?a=%0D%0AX-Evil:%20b',
        '/?a=%E2%98%83': 'index.html?a=%E2%98%83',
        '/?a=/b/c?d': 'index.html?a=/b/c?d',
        '/sub': 'sub/index.html',
        '/sub/': 'index.html',
        '/sub//?x=1': 'index.html?x=1',
        '/sub%2F': 'sub%2F/index.html',
        '/sub%2F?x=1': 'sub%2F/index.html?x=1',
        '/site': 'site/index.html',
        '/site/': 'index.html',
        '/site/sub?a': 'sub/index.html?a',
        '/site%2Fsub': 'site%2Fsub/index.html',
        '/a%20b%20%E2%98%83': 'a%20b%20%E2%98%83/index.html',
        '/a%20b%20%e2%98%83/': 'index.html',
        '/100%25': '100%25/index.html',
        '/c:d': './c:d/index.html',
        '/c%3Ad': 'c%3Ad/index.html',
        '/c:d?e:f': './c:d/index.html?e:f',
        '/javascript:alert(1)': './javascript:alert(1)/index.html',
        '/c:d/': 'index.html',
        '/;a=b@c': ';a=b@c/index.html',
        '//evil.example/': 'index.html',
        '///evil.example/': 'index.html',
        '/%2Fevil.example/': 'index.html',
        '/%2Fevil.example': '%2Fevil.example/index.html',
        '//evil.example': 'evil.example/index.html',
        '/site//evil.example/': 'index.html',
        'http://localhost': 'index.html',
        'http://localhost/sub': 'sub/index.html',
    }.items(),
)
def test_default_page(site: ws.WebShoesApp, root: Path, path: str, location: str) -> None:
    """A folder leads to its default page, query and all, relative to what was asked: never to another site."""
    for name in ('c:d', '100%', 'javascript:alert(1)', ';a=b@c'):
        (root / name).mkdir()
        (root / name / 'index.html').touch()
    received = exchange(site, f'GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'.encode())
    lines = received.partition(b'\r\n\r\n')[0].decode().split('\r\n')
    assert lines[0] == 'HTTP/1.1 303 See Other'
    assert [line for line in lines if line.startswith(('Location', 'X-Evil'))] == [f'Location: {location}']
    target = urljoin(path if path[0] != '/' else f'http://localhost{path}', location)
    assert target.startswith('http://localhost/')
    assert get_raw(site, target.removeprefix('http://localhost').encode())[0] == 200


@pytest.mark.parametrize('name', ['start here.html', '1:2.html', 'ü%.html', 'sub/b.css'])
def test_name_of_a_default_page(serve: Serve, root: Path, name: str) -> None:
    """The name of a default page may be any."""
    (root / name).write_text('home')
    wsa = serve({'*': {'root': root, 'defpage': name}})
    assert requests.get(f'{wsa.url}/cmd?a=1', timeout=TIMEOUT).text == 'home'
    assert requests.get(f'{wsa.url}/cmd/', timeout=TIMEOUT).text == 'home'


def test_default_page_is_reached(site: ws.WebShoesApp) -> None:
    """A client that follows the redirect has the page."""
    assert requests.get(f'{site.url}/a b ☃', timeout=TIMEOUT).text == '<p>snow</p>'


@pytest.mark.parametrize('path', ['/bare', '/bare/', '/site/bare/', '/a.txt/', '/nothing/', '/sub/nothing.html'])
def test_no_default_page(site: ws.WebShoesApp, path: str) -> None:
    """A folder without its default page, like what is not there, is 404: nothing is listed."""
    response = call(site, path)
    assert (response.status_code, response.json()) == (404, {'error': 'Not found', 'code': 404})


def test_folder_without_default_page(serve: Serve, root: Path) -> None:
    """Where no default page is named, a folder is 404."""
    wsa = serve({'*': {'root': root}})
    assert [call(wsa, path).status_code for path in ('/cmd', '/cmd/', '/cmd/sub')] == [404] * 3


def test_default_page_that_leads_out(site: ws.WebShoesApp, root: Path) -> None:
    """A default page that is a link to the outside is none."""
    (root / 'bare/index.html').symlink_to(root.parent / 'secret.txt')
    assert call(site, '/bare/').status_code == 404


# --- what is not served ---


@prefixes
@pytest.mark.parametrize(
    'path',
    [
        '/../secret.txt',
        '/sub/../../secret.txt',
        '/sub/../a.txt',
        '/./a.txt',
        '/%2e%2e/secret.txt',
        '/%2E%2e/secret.txt',
        '/.%2e/secret.txt',
        '/..%2fsecret.txt',
        '/%2e%2e%2fsecret.txt',
        '/%252e%252e/secret.txt',
        '/%252e%252e%252fsecret.txt',
        '/%c0%ae%c0%ae/secret.txt',
        '/%uff0e%uff0e/secret.txt',
        '/..\\secret.txt',
        '/..%5csecret.txt',
        '/sub%5cb.css',
        '/%5c%5cevil.example%5cshare',
        '/\\evil.example/',
        '/%00',
        '/a.txt%00',
        '/a.txt%00.html',
        '/sub%00/b.css',
        '/...//secret.txt',
        '/..;/secret.txt',
        '/C:/secret.txt',
        '/a.txt/../../secret.txt',
        '/nothing/../../secret.txt',
        '/a.txt%20',
        '/%ff%fe',
        '/~root',
        '/' + 'n' * 300,
        '/' + 'n/' * 2500,
        '/circle',
        '/circle/a.txt',
        '/dangling',
        '/dangling/a.txt',
        '/fifo',
    ],
    ids=lambda path: path[:40],
)
def test_path_trick(site: ws.WebShoesApp, root: Path, caplog: pytest.LogCaptureFixture, prefix: str, path: str) -> None:
    """What lies outside the root or is no plain file is 404 like what does not exist, and no news for the log."""
    (root / 'circle').symlink_to('circle')
    (root / 'dangling').symlink_to(root.parent / 'nothing')
    os.mkfifo(root / 'fifo')
    assert get_raw(site, (prefix + path).encode()) == (404, b'{"error":"Not found","code":404}')
    assert caplog.records == []


@pytest.fixture
def linked(root: Path) -> Path:
    """The folder with links of all kinds."""
    links: dict[str, str | Path] = {
        'out': root.parent,
        'secret-link': root.parent / 'secret.txt',
        'beside': '../rooted',
        'sub/deep': '../../rooted',
        'inside': 'sub',
        'file-inside': 'a.txt',
        'self': '.',
        'self-absolute': root,
        'circle': 'circle',
        'dangling': root.parent / 'nothing',
        'back': '../root',
        'back-through-out': root.parent / 'root' / 'a.txt',
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    return root


INSIDE = [
    'inside/b.css',
    'file-inside',
    'self/a.txt',
    'self/self/a.txt',
    'self-absolute/sub/b.css',
    'back/a.txt',
    'back-through-out',
    'inside/../a.txt',
]
OUTSIDE = {
    'out/secret.txt': 'out',
    'out/root/a.txt': None,
    'secret-link': 'secret-link',
    'beside/secret.txt': 'beside',
    'sub/deep/secret.txt': 'sub/deep',
    'inside/deep/secret.txt': 'sub/deep',
    'self/out/secret.txt': 'out',
    'out': 'out',
    'out/': 'out',
}


def test_links_inside(serve: Serve, linked: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Links are followed as long as they end inside the folder."""
    wsa = serve({'*': {'root': linked, 'defpage': 'index.html'}})
    for path in INSIDE:
        assert call(wsa, f'/cmd/{path}').status_code == 200, path
    assert requests.get(f'{wsa.url}/cmd/self', timeout=TIMEOUT).text == '<p>home</p>'
    assert [call(wsa, f'/cmd/{path}').status_code for path in ('circle', 'dangling', 'dangling/a')] == [404] * 3
    assert caplog.records == []


@pytest.mark.parametrize(('path', 'link'), OUTSIDE.items())
def test_links_that_lead_out(
    serve: Serve, linked: Path, caplog: pytest.LogCaptureFixture, path: str, link: str | None
) -> None:
    """A link that leads out is like what is not there; the log names it once, and says how to follow it."""
    wsa = serve({'*': {'root': linked, 'defpage': 'index.html'}})
    if link is None:  # through the outside back in again
        assert call(wsa, f'/cmd/{path}').status_code == 200
        return
    for _ in range(3):
        assert (call(wsa, f'/cmd/{path}').status_code, call(wsa, f'/cmd/{path}/nothing').status_code) == (404, 404)
    (line,) = caplog.messages
    assert line.startswith(f'{linked / link} leads out of its folder and was not followed')
    assert line.endswith(f"{{'root': '{linked}', 'links': True}}")


def test_links_that_may_lead_out(serve: Serve, linked: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With `links` links are followed wherever they lead, and paths lead out no more than before."""
    wsa = serve({'*': {'root': linked, 'defpage': 'index.html', 'links': True}})
    for path in OUTSIDE:
        if not path.startswith('out') or path.endswith('.txt'):
            assert call(wsa, f'/cmd/{path}').status_code == 200, path
    assert call(wsa, '/cmd/secret-link').content == SECRET
    assert [call(wsa, f'/cmd/{path}').status_code for path in ('circle', 'dangling', 'out', 'out/')] == [404] * 4
    for path in (
        '/cmd/../secret.txt',
        '/cmd/%2e%2e/secret.txt',
        '/cmd/sub/..%2f..%2fsecret.txt',
        '/cmd/..%5csecret.txt',
    ):
        assert get_raw(wsa, path.encode())[0] == 404
    (linked / 'a.txt.gz').symlink_to(linked.parent / 'secret.txt')
    head = b'GET /cmd/a.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n'
    assert exchange(wsa, head).endswith(b'\r\n\r\n' + SECRET)
    assert caplog.records == []


def test_link_to_the_default_page(serve: Serve, linked: Path) -> None:
    """A default page that is a link to the outside is one where links may lead out."""
    (linked / 'bare/index.html').symlink_to(linked.parent / 'secret.txt')
    wsa = serve({'*': {'root': linked, 'defpage': 'index.html', 'links': True}})
    assert requests.get(f'{wsa.url}/cmd/bare', timeout=TIMEOUT).content == SECRET


@pytest.mark.parametrize('links', ['yes', 1, None])
def test_links_is_true_or_false(serve: Serve, root: Path, links: Any) -> None:
    """Anything else for `links` fails where it is registered."""
    with pytest.raises(TypeError, match="folder 'cmd/\\*': 'links' is True or False, not "):
        serve({'*': {'root': root, 'links': links}})


@pytest.mark.parametrize(
    'target', ['../secret.txt', '/../secret.txt', 'http://x/../secret.txt', 'http://x/site/../../secret.txt']
)
def test_target_that_is_no_path(site: ws.WebShoesApp, target: str) -> None:
    """A request target of another form leads out no more than a path does."""
    status, body = get_raw(site, target.encode())
    assert status in (400, 404)
    assert SECRET not in body


@pytest.mark.parametrize('suffix', ['gz', 'br'])
def test_compressed_sibling_that_is_a_link(
    site: ws.WebShoesApp, root: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    """A compressed sibling that is a link is followed inside the folder. If it leads out, the log says so."""
    link = root / f'a.txt.{suffix}'
    request = b'GET /a.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept-Encoding: gzip, br\r\n\r\n'
    for target, content in (('sub/b.css', b'p {}'), ('nothing', b'0123456789'), (link.name, b'0123456789')):
        link.symlink_to(target)
        assert exchange(site, request).endswith(b'\r\n\r\n' + content)
        link.unlink()
    assert caplog.records == []
    link.symlink_to(root.parent / 'secret.txt')
    assert exchange(site, request).endswith(b'\r\n\r\n0123456789')
    assert [line.startswith(f'{link} leads out of its folder and was not followed') for line in caplog.messages] == [
        True
    ]


# --- the package's own files ---


builtins = pytest.mark.parametrize('name', ['webshoes.js', 'webshoes.mjs'])


@builtins
def test_built_in(serve: Serve, name: str) -> None:
    """The browser client is served whatever is registered, as a script."""
    response = call(serve(), f'/{name}')
    assert response.content == Path(ws.libPath(f'web/{name}')).read_bytes()
    assert response.headers['Content-Type'] == 'text/javascript; charset=utf-8'
    assert response.headers['X-Content-Type-Options'] == 'nosniff'


@builtins
@pytest.mark.parametrize('taker', ['function', 'folder'])
def test_built_in_beside_a_taker_of_all(serve: Serve, root: Path, name: str, taker: str) -> None:
    """Neither a function under `'*'` nor a folder without such a file comes before the browser client."""
    wsa = serve()
    takers: dict[str, Any] = {'function': lambda ctx, q: 'mine', 'folder': {'root': root, 'defpage': 'index.html'}}
    wsa.register('*', '', '', '', '', {'*': takers[taker]})
    assert call(wsa, f'/{name}').content == Path(ws.libPath(f'web/{name}')).read_bytes()


@builtins
def test_built_in_of_the_folder(site: ws.WebShoesApp, root: Path, name: str) -> None:
    """A file of that name in the folder that claims the path comes first."""
    (root / name).write_text('mine')
    assert call(site, f'/{name}').text == 'mine'


@builtins
def test_built_in_of_a_link_that_leads_out(site: ws.WebShoesApp, root: Path, name: str) -> None:
    """A link of that name that leads out of the folder does not come first."""
    (root / name).symlink_to(root.parent / 'secret.txt')
    assert call(site, f'/{name}').content == Path(ws.libPath(f'web/{name}')).read_bytes()


@builtins
def test_built_in_of_an_entry(serve: Serve, name: str) -> None:
    """An entry of that name comes first."""
    wsa = serve()
    wsa.register(name, 'cmd', 'q', 'evt', 'r', {'*': lambda ctx, q: 'mine'})
    assert call(wsa, f'/{name}').text == 'mine'


@pytest.mark.parametrize(
    'path', ['/webshoes.js/', '/cmd/webshoes.js', '/webshoes.d.ts', '/web/webshoes.js', '/__init__.py']
)
def test_built_in_alone(serve: Serve, path: str) -> None:
    """Nothing else of the package is served, and it nowhere else."""
    assert call(serve(), path).status_code == 404


def test_files_beside_threads_that_are_busy(serve: Serve, open_peer: OpenPeer, root: Path) -> None:
    """However many `@threaded` handlers block or wait for a thread, files are served."""
    entered, gate = threading.Semaphore(0), threading.Event()

    @ws.threaded
    def block(ctx: ws.Context, q: Any) -> bool:
        entered.release()
        return gate.wait(TIMEOUT)

    wsa = serve({'block': block}, limits=ws.Limits(max_threads=2))
    wsa.register('site', '', '', '', '', {'*': {'root': root}})
    peer = open_peer(wsa)
    peer.send(*({'cmd': 'cmd/block', 'tid': tid} for tid in range(64)))
    assert all(entered.acquire(timeout=TIMEOUT) for _ in range(2))
    assert [call(wsa, path).status_code for path in ('/webshoes.js', '/site/a.txt')] == [200, 200]
    gate.set()
    assert [peer.receive()['r'] for _ in range(64)] == [True] * 64


def test_a_file_that_becomes_a_link(site: ws.WebShoesApp, root: Path, tmp_path: Path) -> None:
    """A file that is replaced by a link out, at whatever moment of a request, is not followed; nor is a folder."""
    done = threading.Event()
    inside, link, folder_link = tmp_path / 'inside', tmp_path / 'link', tmp_path / 'folder-link'

    def swap() -> None:
        while not done.is_set():
            inside.write_bytes(b'inside')
            inside.replace(root / 'a.txt')
            link.symlink_to(tmp_path / 'secret.txt')
            link.replace(root / 'a.txt')
            (root / 'bare').rename(tmp_path / 'aside')
            folder_link.symlink_to(tmp_path / 'rooted')
            folder_link.rename(root / 'bare')
            (root / 'bare').unlink()
            (tmp_path / 'aside').rename(root / 'bare')

    (root / 'bare' / 'secret.txt').write_bytes(b'inside')
    thread = threading.Thread(target=swap)
    thread.start()
    found = set()
    try:
        with requests.Session() as session:
            for _ in range(400):
                for path in ('a.txt', 'bare/secret.txt'):
                    found.add(session.get(f'{site.url}/site/{path}', timeout=TIMEOUT).content)
    finally:
        done.set()
        thread.join()
    assert SECRET not in found
    assert b'inside' in found


def test_files_are_closed(site: ws.WebShoesApp) -> None:
    """Files that were served, asked about by HEAD, or found unchanged are open no more."""
    tag = call(site, '/site/a.txt').headers['ETag']
    before = len(list(Path('/proc/self/fd').iterdir()))
    for _ in range(30):
        call(site, '/site/a.txt')
        call(site, '/site/a.txt', 'HEAD')
        assert call(site, '/site/a.txt', **{'If-None-Match': tag}).status_code == 304
    assert len(list(Path('/proc/self/fd').iterdir())) < before + 30
