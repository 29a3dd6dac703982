"""Files over HTTP (RFC 9110): conditions, ranges, codings and types, of folders, of handlers and of our own files."""

from __future__ import annotations

import email
import gzip
import os
import subprocess
import time
from collections.abc import Callable
from email.message import Message
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import requests

import webshoes as ws

from .conftest import TIMEOUT, Serve

OLD = 1_000_000_000
OLD_DATE = 'Sun, 09 Sep 2001 01:46:40 GMT'
CONTENT = bytes(range(256)) * 4
ENCODED = gzip.compress(CONTENT)

Ask = Callable[..., requests.Response]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / 'a.bin'
    path.write_bytes(CONTENT)
    os.utime(path, (OLD, OLD))
    return path


@pytest.fixture(params=['folder', 'handler'])
def ask(request: pytest.FixtureRequest, serve: Serve, path: Path) -> Ask:
    """Ask for the file, which a folder serves, or which a handler returns."""
    wsa = serve({'file': lambda ctx, q: path})
    wsa.register('s', '', '', '', '', {'*': {'root': path.parent}})
    url = wsa.url + {'folder': '/s/a.bin', 'handler': '/cmd/file'}[request.param]

    def ask_once(method: str = 'GET', **headers: str) -> requests.Response:
        named = {'Accept-Encoding': 'identity'} | {name.replace('_', '-'): value for name, value in headers.items()}
        answer = requests.request(method, url, headers=named, timeout=TIMEOUT, stream=True)
        answer._content = answer.raw.read(decode_content=False)
        return answer

    return ask_once


def parts(answer: requests.Response) -> list[Message]:
    kind = answer.headers['Content-Type']
    assert kind.startswith('multipart/byteranges; boundary=')
    message = email.message_from_bytes(f'Content-Type: {kind}\r\n\r\n'.encode() + answer.content)
    assert message.is_multipart()
    return message.get_payload()  # type: ignore[return-value]


# --- ranges ---


@pytest.mark.parametrize(
    ('asked', 'status', 'start', 'stop'),
    [
        ('bytes=0-0', 206, 0, 1),
        ('bytes=2-4', 206, 2, 5),
        ('bytes=1000-', 206, 1000, 1024),
        ('bytes=1000-5000', 206, 1000, 1024),
        ('bytes=-24', 206, 1000, 1024),
        ('bytes=-5000', 206, 0, 1024),
        ('BYTES=2-4', 206, 2, 5),
        ('bytes=2-4,5000-', 206, 2, 5),
        ('lines=2-4', 200, 0, 1024),
        ('bytes=4-2', 200, 0, 1024),
        ('bytes=0-,0-', 200, 0, 1024),
        ('bytes=' + '0-0,' * 100, 200, 0, 1024),
    ],
)
def test_one_range(ask: Ask, asked: str, status: int, start: int, stop: int) -> None:
    """A range is 206 with its bytes; a unit that is not known, and what is malformed or too much, is ignored."""
    answer = ask(Range=asked)
    assert (answer.status_code, answer.content) == (status, CONTENT[start:stop])
    assert answer.headers['Content-Length'] == str(stop - start)
    assert answer.headers.get('Content-Range') == (f'bytes {start}-{stop - 1}/1024' if status == 206 else None)
    assert answer.headers['Accept-Ranges'] == 'bytes'


@pytest.mark.parametrize('asked', ['bytes=1024-', 'bytes=-0', 'bytes=5000-,2000-3000'])
def test_range_that_is_not_there(ask: Ask, asked: str) -> None:
    """Ranges of which nothing is there are 416 with the size."""
    answer = ask(Range=asked)
    assert (answer.status_code, answer.headers['Content-Range']) == (416, 'bytes */1024')
    assert answer.json() == {'error': 'The file has no such bytes: its size is 1024', 'code': 416}


@pytest.mark.parametrize('spans', [[(0, 1), (1023, 1024)], [(700, 800), (2, 5), (600, 601)], [(0, 512), (512, 1024)]])
def test_several_ranges(ask: Ask, spans: list[tuple[int, int]]) -> None:
    """Several ranges are parts of one answer, in the order of the request, each with its place."""
    answer = ask(Range='bytes=' + ', '.join(f'{start}-{stop - 1}' for start, stop in spans))
    assert answer.status_code == 206
    assert 'Content-Range' not in answer.headers
    assert int(answer.headers['Content-Length']) == len(answer.content)
    found = parts(answer)
    assert [part['Content-Range'] for part in found] == [f'bytes {start}-{stop - 1}/1024' for start, stop in spans]
    assert {part['Content-Type'] for part in found} == {'application/octet-stream'}
    boundary = answer.headers['Content-Type'].partition('=')[2].encode()
    bodies = [piece.partition(b'\r\n\r\n')[2] for piece in answer.content.split(b'\r\n--' + boundary)[1:-1]]
    assert bodies == [CONTENT[start:stop] for start, stop in spans]


@pytest.mark.parametrize('method', ['HEAD', 'POST'])
def test_range_of_another_method(serve: Serve, path: Path, method: str) -> None:
    """Only GET has ranges: with HEAD, and for the file that a POST gives, the field is ignored."""
    wsa = serve({'file': lambda ctx, q: path})
    headers = {'Range': 'bytes=2-4', 'If-None-Match': '*'} if method == 'POST' else {'Range': 'bytes=2-4'}
    answer = requests.request(method, f'{wsa.url}/cmd/file', headers=headers, timeout=TIMEOUT)
    assert (answer.status_code, answer.headers['Content-Length']) == (200, '1024')
    assert answer.content == (CONTENT if method == 'POST' else b'')


def test_empty_file(ask: Ask, path: Path) -> None:
    """An empty file has no first byte, and its last ones are nothing."""
    path.write_bytes(b'')
    answers = [ask(Range=asked) for asked in ('bytes=0-', 'bytes=-5')]
    assert [answer.status_code for answer in answers] == [416, 200]
    assert [ask().headers['Content-Length'], ask().content] == ['0', b'']


# --- conditions ---


@pytest.mark.parametrize(
    ('headers', 'status'),
    [
        ({'If_Match': '{etag}'}, 200),
        ({'If_Match': '"other", {etag}'}, 200),
        ({'If_Match': '*'}, 200),
        ({'If_Match': '"other"'}, 412),
        ({'If_Match': 'W/{etag}'}, 412),
        ({'If_Unmodified_Since': OLD_DATE}, 200),
        ({'If_Unmodified_Since': 'Sun, 09 Sep 2001 01:46:39 GMT'}, 412),
        ({'If_Unmodified_Since': 'yesterday'}, 200),
        ({'If_None_Match': '{etag}'}, 304),
        ({'If_None_Match': 'W/{etag}'}, 304),
        ({'If_None_Match': '"other"'}, 200),
        ({'If_None_Match': '*'}, 304),
        ({'If_None_Match': '"other"', 'If_Modified_Since': OLD_DATE}, 200),
        ({'If_Modified_Since': OLD_DATE}, 304),
        ({'If_Modified_Since': 'Sunday, 09-Sep-01 01:46:40 GMT'}, 304),
        ({'If_Modified_Since': 'Sun Sep  9 01:46:40 2001'}, 304),
        ({'If_Modified_Since': 'Sun, 09 Sep 2001 01:46:39 GMT'}, 200),
        ({'If_Match': '"other"', 'If_None_Match': '{etag}'}, 412),
        ({'If_Match': '{etag}', 'If_Unmodified_Since': 'Sun, 09 Sep 2001 01:46:39 GMT'}, 200),
        ({'If_None_Match': '{etag}', 'Range': 'bytes=0-1'}, 304),
        ({'If_Match': '"other"', 'Range': 'bytes=5000-'}, 412),
        ({'If_None_Match': '"other"', 'Range': 'bytes=5000-'}, 416),
    ],
)
def test_conditions(ask: Ask, headers: dict[str, str], status: int) -> None:
    """A request goes on, or ends with 304 or 412, by the version that its client knows."""
    etag = ask().headers['ETag']
    for method in ('GET', 'HEAD'):
        if method == 'HEAD' and status == 416:
            continue  # a HEAD request has no ranges
        answer = ask(method, **{name: value.format(etag=etag) for name, value in headers.items()})
        assert answer.status_code == status
        assert answer.content == b'' or (method, status) in (('GET', 200), ('GET', 412), ('GET', 416))
        if status in (200, 304):
            assert (answer.headers['ETag'], answer.headers['Last-Modified']) == (etag, OLD_DATE)
            assert 'Vary' not in answer.headers


@pytest.mark.parametrize(
    ('if_range', 'status'),
    [
        ('{etag}', 206),
        ('W/{etag}', 200),
        ('"other"', 200),
        (OLD_DATE, 206),
        ('Sun, 09 Sep 2001 01:46:39 GMT', 200),
        ('Sun, 09 Sep 2001 01:46:41 GMT', 200),
        ('nonsense', 200),
    ],
)
def test_if_range(ask: Ask, if_range: str, status: int) -> None:
    """A range is sent if the file is the one that the client has a part of, else the whole."""
    answer = ask(Range='bytes=1000-', If_Range=if_range.format(etag=ask().headers['ETag']))
    assert (answer.status_code, answer.content) == (status, CONTENT[1000:] if status == 206 else CONTENT)


def rewrite(path: Path, content: bytes) -> None:
    """Write other content of the same size, in place, and say that it is as old."""
    path.write_bytes(content)
    os.utime(path, (OLD, OLD))


def replace(path: Path, content: bytes) -> None:
    """Put another file of the same size and date in its place."""
    other = path.with_name('other')
    other.write_bytes(content)
    os.utime(other, (OLD, OLD))
    other.replace(path)


@pytest.mark.parametrize('change', [rewrite, replace])
def test_resume_after_a_change(ask: Ask, path: Path, change: Callable[[Path, bytes], None]) -> None:
    """A file of the same size and date is another version where its content may be another one."""
    etag = ask().headers['ETag']
    change(path, CONTENT[::-1])
    answer = ask(Range='bytes=1000-', If_Range=etag)
    assert (answer.status_code, answer.content) == (200, CONTENT[::-1])
    assert ask(If_None_Match=etag).status_code == 200
    assert ask(If_Match=etag).status_code == 412


def test_if_range_with_a_date_of_a_moment_ago(ask: Ask, path: Path) -> None:
    """A download is resumed by its date when the second in which the file changed is over."""
    changed = int(time.time()) - 2
    os.utime(path, (changed, changed))
    answer = ask(Range='bytes=1000-', If_Range=ask().headers['Last-Modified'])
    assert (answer.status_code, answer.content) == (206, CONTENT[1000:])


def test_if_range_with_the_date_of_this_second(ask: Ask, path: Path) -> None:
    """The date of a file that has just changed does not resume a download: it may change again without another date."""
    ahead = time.time() + 1  # so that the second is not over when the range is asked for
    os.utime(path, (ahead, ahead))
    assert ask(Range='bytes=1000-', If_Range=formatdate(int(ahead), usegmt=True)).status_code == 200


def test_file_of_the_future(ask: Ask, path: Path) -> None:
    """No date of modification is later than the answer."""
    os.utime(path, (4_000_000_000, 4_000_000_000))
    answer = ask()
    assert answer.headers['Last-Modified'] == answer.headers['Date']


def test_curl_resumes(serve: Serve, path: Path, tmp_path: Path) -> None:
    """`curl -C -` goes on where it was, and with the tag of its part it takes the whole once the file has changed."""
    wsa = serve({'file': lambda ctx, q: path})
    url, got = f'{wsa.url}/cmd/file', tmp_path / 'got'
    etag = requests.head(url, timeout=TIMEOUT).headers['ETag']

    def curl(*args: str) -> str:
        command = ['curl', '-sS', '-w', '%{http_code}', '-o', str(got), '-C', '-', url, *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT).stdout

    got.write_bytes(CONTENT[:100])
    assert (curl('-H', f'If-Range: {etag}'), got.read_bytes()) == ('206', CONTENT)
    path.write_bytes(CONTENT[::-1])
    got.write_bytes(CONTENT[:100])
    assert curl('-H', f'If-Range: {etag}') == '200'
    assert got.read_bytes() == CONTENT[:100]  # curl takes no whole for a part
    assert curl('-H', f'If-Match: {etag}') == '412'


# --- codings ---


@pytest.mark.parametrize(
    ('accept', 'coding'),
    [
        ('gzip', 'gzip'),
        ('GZIP;q=0.1', 'gzip'),
        ('x-gzip', 'gzip'),
        ('*', 'gzip'),
        ('br;q=1, gzip;q=0.5', 'gzip'),
        ('identity;q=0, *', 'gzip'),
        ('gzip;q=0', ''),
        ('gzip; q=0.0, identity', ''),
        ('xgzip', ''),
        ('gzipx', ''),
        ('*;q=0, identity', ''),
        ('identity', ''),
        ('', ''),
        ('identity, gzip;q=0.2', ''),
    ],
)
def test_compressed_sibling(ask: Ask, path: Path, accept: str, coding: str) -> None:
    """The compressed file beside a file is sent to who takes it, as another representation with a tag of its own."""
    path.with_name('a.bin.gz').write_bytes(ENCODED)
    plain = ask().headers['ETag']
    assert ask().headers['Vary'] == 'Accept-Encoding'
    answer = ask(Accept_Encoding=accept)
    assert answer.content == (ENCODED if coding else CONTENT)
    assert answer.headers.get('Content-Encoding', '') == coding
    assert answer.headers['Content-Type'] == 'application/octet-stream'
    assert answer.headers['Vary'] == 'Accept-Encoding'
    assert (answer.headers['ETag'] != plain) == bool(coding)
    assert ask(Accept_Encoding=accept, If_None_Match=answer.headers['ETag']).status_code == 304
    assert ask(Accept_Encoding=accept, If_None_Match=plain).status_code == (200 if coding else 304)


def test_ranges_of_a_compressed_sibling(ask: Ask, path: Path) -> None:
    """Ranges are of the bytes in their coding, and never join two codings."""
    path.with_name('a.bin.gz').write_bytes(ENCODED)
    etag = ask(Accept_Encoding='gzip').headers['ETag']
    answer = ask(Accept_Encoding='gzip', Range='bytes=10-', If_Range=etag)
    assert (answer.status_code, answer.content) == (206, ENCODED[10:])
    assert answer.headers['Content-Encoding'] == 'gzip'
    assert answer.headers['Content-Range'] == f'bytes 10-{len(ENCODED) - 1}/{len(ENCODED)}'
    answer = ask(Accept_Encoding='identity', Range='bytes=10-', If_Range=etag)
    assert (answer.status_code, answer.content) == (200, CONTENT)


@pytest.mark.parametrize('accept', ['identity;q=0', '*;q=0', 'gzip;q=0, *;q=0', 'deflate, identity;q=0'])
def test_no_coding_that_is_taken(ask: Ask, path: Path, accept: str) -> None:
    """A coding that the client refuses is not sent: if nothing else is there, it is 406."""
    answer = ask(Accept_Encoding=accept)
    assert (answer.status_code, answer.json()['code']) == (406, 406)


def test_a_compressed_file_itself(serve: Serve, tmp_path: Path) -> None:
    """A file that is compressed is asked for as such, and said to be one."""
    (tmp_path / 'a.json.gz').write_bytes(ENCODED)
    wsa = serve({'*': {'root': tmp_path}})
    answer = requests.get(f'{wsa.url}/cmd/a.json.gz', headers={'Accept-Encoding': 'gzip'}, timeout=TIMEOUT)
    assert (answer.headers['Content-Type'], answer.content) == ('application/gzip', ENCODED)
    assert 'Content-Encoding' not in answer.headers


def test_type_of_a_text(serve: Serve, tmp_path: Path) -> None:
    """A text says that it is UTF-8."""
    (tmp_path / 'a.md').write_text('Grüße', encoding='utf-8')
    wsa = serve({'*': {'root': tmp_path}})
    answer = requests.get(f'{wsa.url}/cmd/a.md', timeout=TIMEOUT)
    assert (answer.headers['Content-Type'], answer.text) == ('text/markdown; charset=utf-8', 'Grüße')


# --- the package's own files ---


@pytest.mark.parametrize('name', ['webshoes.js', 'webshoes.mjs'])
def test_own_files(serve: Serve, name: str) -> None:
    """The browser client is compressed for who takes that, and asked for anew with its tag."""
    url = f'{serve().url}/{name}'
    content = Path(ws.libPath(f'web/{name}')).read_bytes()

    def ask(**headers: Any) -> requests.Response:
        named = {key.replace('_', '-'): value for key, value in headers.items()}
        return requests.get(url, headers=named, timeout=TIMEOUT)

    packed, plain = ask(Accept_Encoding='br, gzip'), ask(Accept_Encoding='gzip;q=0')
    assert (packed.content, packed.headers['Content-Encoding']) == (content, 'gzip')
    assert int(packed.headers['Content-Length']) < len(content) or len(content) < 200
    assert (plain.content, plain.headers.get('Content-Encoding')) == (content, None)
    assert packed.headers['ETag'] != plain.headers['ETag']
    for answer, accept in (packed, 'gzip'), (plain, 'identity'):
        assert answer.headers['Cache-Control'] == 'no-cache'
        assert answer.headers['Vary'] == 'Accept-Encoding'
        again = ask(Accept_Encoding=accept, If_None_Match=answer.headers['ETag'])
        assert (again.status_code, again.headers['Cache-Control']) == (304, 'no-cache')
    assert ask(Accept_Encoding='identity', Range='bytes=3-9').content == content[3:10]
    assert ask(Accept_Encoding='identity;q=0, br').status_code == 406
