"""Events over plain HTTP: what is theirs alone, request by request and byte by byte (section 6)."""

from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import requests

import webshoes as ws

from .conftest import TIMEOUT, Block, Serve, exchange
from .faces import dial, http_client, read_block, until

STREAM = {'Accept': 'text/event-stream'}
HEARTBEAT = b':\n'


class EventStream:
    """A client of one stream."""

    def __init__(self, client: http.client.HTTPConnection, query: str, path: str, headers: dict[str, str]) -> None:
        client.request('GET', f'{path}?{query}', headers=STREAM | headers)
        self.socket: socket.socket = client.sock
        self.response = client.getresponse()
        assert self.response.status == 200
        self.place = self.block()['id']

    def block(self) -> dict[str, str]:
        """The next block."""
        return read_block(self.response)

    def next(self) -> tuple[str, str, int, Any]:
        """The cursors, the event, the version and the value of the next push."""
        block = self.block()
        push = json.loads(block['data'])
        return block['id'], push['evt'], push['ver'], push['r']

    def close(self) -> None:
        """Leave."""
        self.response.close()
        self.socket.close()


OpenStream = Callable[..., EventStream]


@pytest.fixture
def open_stream() -> Iterator[OpenStream]:
    """Open a stream (`open_stream(wsa, 'evt=a&evt=b', last='kQzPmXaB:1,2')`); it is closed after the test."""
    with ExitStack() as stack:

        def open_one(
            wsa: ws.WebShoesApp, query: str = 'evt=heat', path: str = '/cmd', last: str | None = None
        ) -> EventStream:
            client = http_client(dial(wsa.port))
            stream = EventStream(client, query, path, {} if last is None else {'Last-Event-ID': last})
            stack.callback(stream.close)
            return stream

        yield open_one


@pytest.fixture
def open_client() -> Iterator[Callable[[ws.WebShoesApp], http.client.HTTPConnection]]:
    """Open an HTTP connection, which is used again and again, or fails."""
    with ExitStack() as stack:

        def open_one(wsa: ws.WebShoesApp) -> http.client.HTTPConnection:
            client = http_client(dial(wsa.port))
            client.auto_open = 0
            stack.callback(client.close)
            return client

        yield open_one


OpenClient = Callable[[ws.WebShoesApp], http.client.HTTPConnection]


def get(wsa: ws.WebShoesApp, query: Any = 'evt=heat', method: str = 'GET', **headers: str) -> requests.Response:
    names = {name.replace('_', '-'): value for name, value in headers.items()}
    return requests.request(method, f'{wsa.url}/cmd', params=query, headers=names, timeout=TIMEOUT)


def watch(wsa: ws.WebShoesApp) -> list[str]:
    """What the app's hooks are told."""
    told = list[str]()
    for moment in ('connect', 'disconnect'):
        wsa.on(moment)(lambda ctx, moment=moment: told.append(moment))
    for moment in ('subscribe', 'unsubscribe'):
        wsa.on(moment)(lambda ctx, event, moment=moment: told.append(f'{moment} {event}'))  # type: ignore[arg-type]
    return told


# --- as it stands ---


def test_as_it_stands(serve: Serve) -> None:
    """An event is answered with its version, the time of its trigger, its epoch and its value."""
    wsa = serve()
    epoch = wsa.event('heat').epoch
    assert get(wsa).json() == {'evt': 'heat', 'ver': 0, 'epoch': epoch}
    for value in (1, None):
        wsa.triggerEvent('heat', value)
    answer = get(wsa)
    state = answer.json()
    assert state.pop('t') > 0
    assert state == {'evt': 'heat', 'ver': 2, 'epoch': epoch, 'r': None}
    assert (answer.headers['Content-Type'], answer.headers['ETag']) == ('application/json', f'"{epoch}:2"')
    assert (answer.headers['Cache-Control'], answer.headers['Vary']) == ('no-cache', 'Accept')


@pytest.mark.parametrize('ver', [0, 2])
@pytest.mark.parametrize(
    ('known', 'code'),
    [
        ('"{tag}"', 304),
        ('W/"{tag}"', 304),
        ('"x", W/"{tag}","y"', 304),
        ('*', 304),
        ('"x"', 200),
        ('"x", "y"', 200),
        ('"{epoch}:1"', 200),
        ('"other:2"', 200),
        ('{tag}', 200),
        ('"', 200),
        ('', 200),
    ],
)
@pytest.mark.parametrize('method', ['GET', 'HEAD'])
def test_etag(serve: Serve, ver: int, known: str, code: int, method: str) -> None:
    """`If-None-Match` spares the answer while the event is as the client knows it (RFC 9110 section 13.1.2)."""
    wsa = serve()
    for n in range(ver):
        wsa.triggerEvent('heat', n)
    epoch = wsa.event('heat').epoch
    tag = f'{epoch}:{ver}'
    answer = get(wsa, method=method, If_None_Match=known.format(tag=tag, epoch=epoch))
    assert (answer.status_code, answer.headers['ETag']) == (code, f'"{tag}"')
    assert (answer.headers['Cache-Control'], answer.headers['Vary']) == ('no-cache', 'Accept')
    assert bool(answer.content) == (code == 200 and method == 'GET')


def test_etag_and_the_next_version(serve: Serve) -> None:
    """A trigger makes an ETag an old one, and a new app makes all of them so."""
    wsa, other = serve(), serve()
    for app in (wsa, other):
        app.triggerEvent('heat', 1)
    tag = get(wsa).headers['ETag']
    assert get(other, If_None_Match=tag).status_code == 200
    wsa.triggerEvent('heat', 1)
    assert get(wsa, If_None_Match=tag).json()['ver'] == 2


def test_etag_is_nothing_to_a_poll(serve: Serve) -> None:
    """Who asks for what is newer than `since` gets it, whatever it has."""
    wsa = serve()
    wsa.triggerEvent('heat', 1)
    assert get(wsa, 'evt=heat&since=0', If_None_Match='*').json()['ver'] == 1


# --- long polls ---


@pytest.mark.parametrize(
    ('query', 'code', 'ver'),
    [
        ('since=0', 200, 1),
        ('since=E:1', 200, 2),
        ('since=E:2', 204, None),
        ('since=E:2&wait=0', 204, None),
        ('since=E:2&wait=0.01', 204, None),
        ('since=E:2&wait=1e-300', 204, None),
        ('wait=20', 200, 2),
        ('wait=0', 200, 2),
        ('since=E:1&since=E:2', 200, 2),
    ],
)
def test_poll(serve: Serve, query: str, code: int, ver: int | None) -> None:
    """What is newer comes at once; where there is nothing and the time is over, it is 204."""
    wsa = serve()
    for n in (1, 2):
        wsa.triggerEvent('heat', n)
    answer = get(wsa, f'evt=heat&{query}'.replace('E:', f'{wsa.event("heat").epoch}:'))
    assert answer.status_code == code
    assert (answer.json()['ver'] if answer.content else None) == ver
    if code == 204:
        assert (answer.headers['Cache-Control'], answer.content) == ('no-store', b'')


@pytest.mark.parametrize('query', ['wait=20', 'since=0&wait=20', 'since=old:7&wait=20'])
def test_poll_that_waits(serve: Serve, query: str) -> None:
    """Who waits is answered by the trigger, and is subscribed no longer."""
    wsa = serve()
    told = watch(wsa)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(get, wsa, f'evt=heat&{query}')
        until(lambda: told)
        wsa.triggerEvent('heat', 'now')
        assert (answer.result().json()['ver'], answer.result().json()['r']) == (1, 'now')
    assert told == ['subscribe heat', 'unsubscribe heat']


@pytest.mark.parametrize('wait', ['1000', 'inf', '1e400', '0.02'])
def test_longest_wait(serve: Serve, wait: str) -> None:
    """Nobody waits longer than `Limits.max_wait`."""
    assert get(serve(limits=ws.Limits(max_wait=0.05)), {'evt': 'heat', 'wait': wait}).status_code == 204


@pytest.mark.parametrize('wait', ['nan', '-1', '-inf', '', 'x', '1,5', '0x10', '1\n2', '1 2', '9' * 5000 + 'x'])
def test_wait_that_is_none(serve: Serve, wait: str) -> None:
    """A `wait` that is no number of seconds is 400."""
    answer = get(serve(), {'evt': 'heat', 'since': '0', 'wait': wait})
    assert (answer.status_code, answer.json()['code']) == (400, 400)


@pytest.mark.parametrize('stream', [False, True])
@pytest.mark.parametrize(
    'since',
    [
        *('', ':', 'x', '5', '-1', 'nan', ',', '0,', 'E:', 'E:x', 'E:-1', 'E:+1', 'E:1.5', 'E:1e3', 'E: 1', 'E:1 '),
        *('E:1\n', 'E\n:1', 'E:1\r\nX-Evil: 1', 'E:1\0', 'E:' + '9' * 20, 'E:' + '9' * 5000, 'E:1,2', 'E:1:2', 'E!:1'),
        *('é:1', 'E:٣', 'E:²', 'E' * 65 + ':1', '{"ver": 0}'),
    ],
)
def test_since_that_is_none(serve: Serve, since: str, stream: bool) -> None:
    """A `since` that cannot be read, or that is for another number of events, is 400, and nothing of it is echoed."""
    answer = get(serve(), {'evt': 'heat', 'since': since}, **(STREAM if stream else {}))
    assert (answer.status_code, answer.json()['code'], 'X-Evil' in answer.headers) == (400, 400, False)


def test_poll_of_several(serve: Serve) -> None:
    """Several events are had as a stream alone; one that is named twice is one."""
    wsa = serve()
    assert get(wsa, 'evt=a&evt=b').status_code == 400
    assert get(wsa, 'evt=a&evt=a&evt=').json()['evt'] == 'a'


# --- a stream, byte by byte ---

PUSH = r'data: {"evt":"heat","uid":"[0-9a-f]{32}","ver":%d,"t":[0-9.]+,"r":%s}'


def test_bytes_of_a_stream(serve: Serve) -> None:
    """A stream is its place, then blocks of an `id` and a `data` line; to HTTP/1.0 it comes as it is, to its end."""
    wsa = serve()
    for n in (1, 2):
        wsa.triggerEvent('heat', n)
    with dial(wsa.port) as connection, connection.makefile('rb') as received:
        connection.sendall(b'GET /cmd?evt=heat HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n')
        assert received.readline() == b'HTTP/1.0 200 OK\r\n'
        head = b''.join(iter(received.readline, b'\r\n'))
        body = b''.join(received.readline() for _ in range(5))
        wsa.triggerEvent('heat', 'three')
        wsa.connections[0].close()
        body += received.read()
    epoch = wsa.event('heat').epoch
    blocks = [
        f'id: {epoch}:1',
        f'id: {epoch}:2\n' + PUSH % (2, '2'),
        f'id: {epoch}:3\n' + PUSH % (3, '"three"'),
    ]
    assert re.fullmatch(''.join(f'{block}\n\n' for block in blocks), body.decode())
    assert b'chunked' not in head


@pytest.mark.parametrize('version', ['--http1.1', '--http1.0'])
def test_curl(serve: Serve, version: str) -> None:
    """What a shell sees of a stream."""
    wsa = serve()
    wsa.triggerEvent('heat', 'ü\n')
    command = ['curl', '-sN', version, '-H', 'Accept: text/event-stream', f'{wsa.url}/cmd?evt=heat']
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding='utf-8') as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        wsa.connections[0].close()
        assert process.stdout.read() == ''
    assert process.returncode == 0
    push = PUSH % (1, re.escape(r'"ü\n"'))
    epoch = wsa.event('heat').epoch
    assert re.fullmatch(f'id: {epoch}:0\n\nid: {epoch}:1\n{push}\n\n', ''.join(lines))


def test_headers_of_a_stream(serve: Serve, open_stream: OpenStream) -> None:
    """A stream is kept by nobody on its way, and held back by nobody."""
    headers = open_stream(serve()).response.headers
    expected = {'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store', 'Vary': 'Accept'}
    expected |= {'X-Accel-Buffering': 'no', 'X-Content-Type-Options': 'nosniff', 'Server': 'webshoes'}
    assert {name: headers[name] for name in expected} == expected
    assert 'Content-Length' not in headers


NAME = 'ü☃ a\n\r\nid: 7\u2028'
VALUES = ['ü☃', 'a\nb\r\nc\rd', '\n\n', 'data: x', '\u2028\u2029\x85\0', {'id: 9\n\n': ['\r']}]


@pytest.mark.parametrize('value', VALUES)
def test_names_and_values(serve: Serve, open_stream: OpenStream, value: Any) -> None:
    """Whatever the text of a name or a value, it stands in one line and is read back as it was."""
    wsa = serve()
    wsa.triggerEvent(NAME, value)
    query = requests.models.PreparedRequest()
    query.prepare_url('http://x/', {'evt': NAME})
    stream = open_stream(wsa, str(query.url).partition('?')[2])
    assert stream.next() == (f'{wsa.event(NAME).epoch}:1', NAME, 1, value)
    state = get(wsa, {'evt': NAME}).json()
    assert (state['evt'], state['r']) == (NAME, value)
    wsa.connections[0].close()
    assert stream.response.read() == b''


def test_lines_of_a_stream(serve: Serve) -> None:
    """The line ends that a browser knows (CR too) are those between the fields, and there are no other fields."""
    wsa = serve()
    for value in VALUES:
        wsa.triggerEvent('heat', value)
    with dial(wsa.port) as connection, connection.makefile('rb') as received:
        connection.sendall(b'GET /cmd?evt=heat&since=0 HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n')
        while received.readline() != b'\r\n':
            pass
        until(lambda: wsa.connections[0].subscriptions[0].lag == 0)
        wsa.connections[0].close()
        lines = re.split('\r\n|\r|\n', received.read().decode())
    assert [line.partition(': ')[0] for line in lines] == ['id', '', *['id', 'data', ''] * len(VALUES), '']


# --- where a stream begins ---


def test_several_events(serve: Serve, open_stream: OpenStream) -> None:
    """Several events share a stream; `id` holds a cursor for each, in the order of the request, and resumes all."""
    wsa = serve()
    epoch = wsa.event('a').epoch
    for event, value in (('a', 1), ('a', 2), ('b', 'x')):
        wsa.triggerEvent(event, value)
    stream = open_stream(wsa, 'evt=a&evt=b&evt=c&evt=&evt=a')
    assert stream.place == f'{epoch}:1,0,0'
    assert [stream.next(), stream.next()] == [(f'{epoch}:2,0,0', 'a', 2, 2), (f'{epoch}:2,1,0', 'b', 1, 'x')]
    stream.close()
    for event in ('c', 'a'):
        wsa.triggerEvent(event, 'more')
    stream = open_stream(wsa, 'evt=a&evt=b&evt=c', last=f'{epoch}:2,1,0')
    assert stream.place == f'{epoch}:2,1,0'
    assert [stream.next(), stream.next()] == [(f'{epoch}:3,1,0', 'a', 3, 'more'), (f'{epoch}:3,1,1', 'c', 1, 'more')]
    assert len({subscribed.uid for link in wsa.connections for subscribed in link.subscriptions}) >= 3


def test_place_of_two_histories(serve: Serve, open_stream: OpenStream) -> None:
    """In a new history each event is told by its own first push, over as many connections as it takes."""
    wsa = serve()
    epoch = wsa.event('a').epoch
    wsa.triggerEvent('a', 'new')
    stream = open_stream(wsa, 'evt=a&evt=b', last='old:5,7')
    assert stream.place == 'old:5,7'
    first = stream.block()
    assert (first['id'], json.loads(first['data'])['epoch']) == (f'{epoch}:1,old:7', epoch)
    stream.close()
    stream = open_stream(wsa, 'evt=a&evt=b', last=first['id'])
    assert stream.place == first['id']
    wsa.triggerEvent('b', 'new')
    wsa.triggerEvent('a', 'newer')
    blocks = [stream.block(), stream.block()]
    pushes = {push['evt']: push for push in (json.loads(block['data']) for block in blocks)}
    assert (pushes['b']['ver'], pushes['b']['epoch'], 'from' in pushes['b']) == (1, epoch, False)
    assert (pushes['a']['ver'], 'epoch' in pushes['a'], 'from' in pushes['a']) == (2, False, False)
    assert blocks[-1]['id'] == f'{epoch}:2,1'


@pytest.mark.parametrize('is_triggered', [True, False])
@pytest.mark.parametrize(
    'last',
    [
        *('x', '5', ':', ',', '-1', 'E', 'E:', 'E:x', 'E:1,2', 'E:1,2,3', 'E:1:2', 'E:99999999999999999999', 'E!:1'),
        *('nan', '{"ver": 1}', 'é:1', 'E:1; evil', 'a' * 4000, 'E' * 65 + ':1', '<b>:1', 'E:1\tdata: x'),
    ],
)
def test_last_event_id_that_is_none(serve: Serve, open_stream: OpenStream, last: str, is_triggered: bool) -> None:
    """A `Last-Event-ID` that is not ours is another server's: never an error, but a new history, told by its epoch."""
    wsa = serve()
    epoch = wsa.event('heat').epoch
    if is_triggered:
        wsa.triggerEvent('heat', 1)
    stream = open_stream(wsa, last=last)
    assert stream.place == ':0'
    if not is_triggered:
        stream.close()
        stream = open_stream(wsa, last=stream.place)
        wsa.triggerEvent('heat', 1)
    block = stream.block()
    push = json.loads(block['data'])
    assert (block['id'], push['ver'], push.get('from'), push['epoch']) == (f'{epoch}:1', 1, None, epoch)


def test_last_event_id_and_since(serve: Serve, open_stream: OpenStream) -> None:
    """`Last-Event-ID` comes before the `since` of the URL, where a browser began; an empty one is none."""
    wsa = serve()
    for n in (1, 2, 3):
        wsa.triggerEvent('heat', n)
    epoch = wsa.event('heat').epoch
    assert open_stream(wsa, f'evt=heat&since={epoch}:1').next()[2] == 2
    assert open_stream(wsa, f'evt=heat&since={epoch}:1', last=f'{epoch}:2').next()[2] == 3
    assert open_stream(wsa, f'evt=heat&since={epoch}:1', last='').next()[2] == 2
    assert open_stream(wsa, 'evt=heat&since=garbage', last=f'{epoch}:2').next()[2] == 3


# --- which requests these are ---


def named(name: str) -> Callable[..., dict[str, str]]:
    return lambda ctx, q: {'fm': name}


@pytest.mark.parametrize(
    ('method', 'path', 'answer'),
    [
        ('GET', '/cmd?evt=heat', {'r': 1}),
        ('GET', '/cmd/?evt=heat', {'r': 1}),
        ('GET', '/%63md?evt=heat', {'r': 1}),
        ('GET', '/cmd?a=1&evt=heat', {'r': 1}),
        ('GET', '/cmd?evt=&evt=heat', {'r': 1}),
        ('GET', '/cmd', {'fm': 'cmd'}),
        ('GET', '/cmd?evt=', {'fm': 'cmd'}),
        ('GET', '/cmd?evt', {'fm': 'cmd'}),
        ('GET', '/cmd/?evt=', {'fm': 'cmd'}),
        ('GET', '/cmd?EVT=heat', {'fm': 'cmd'}),
        ('GET', '/cmd?watch=heat', {'fm': 'cmd'}),
        ('GET', '/cmd/x?evt=heat', {'fm': 'x'}),
        ('POST', '/cmd?evt=heat', {'fm': 'cmd'}),
        ('PUT', '/cmd?evt=heat', {'fm': 'cmd'}),
        ('DELETE', '/cmd?evt=heat', {'fm': 'cmd'}),
        ('GET', '/mute?evt=heat', {'fm': 'mute'}),
        ('GET', '/mute?=heat', {'fm': 'mute'}),
        ('GET', '/?watch=heat', {'value': 1}),
        ('GET', '/?evt=heat', {'fm': '*'}),
        ('GET', '/any?watch=heat', {'fm': '*'}),
        ('GET', '/*?watch=heat', {'fm': '*'}),
        ('GET', '/any/?watch=heat', {'fm': '*'}),
        ('GET', '/merge?watch=heat', {'r': 1}),
    ],
)
@pytest.mark.parametrize('accept', ['*/*', 'text/event-stream'])
def test_routing(serve: Serve, method: str, path: str, answer: dict[str, Any], accept: str) -> None:
    """A GET of exactly `/<sub>` with a non-empty `<evt>` is for events; everything else asks the functions."""
    wsa = serve({'': named('cmd'), 'x': named('x')})
    wsa.register('mute', 'cmd', 'q', '', 'r', {'': named('mute')})
    wsa.register('*', 'do', 'q', 'watch', 'value', {'*': named('*'), '': named('*')})
    wsa.register('merge', 'do', '', 'watch', '', {})
    wsa.triggerEvent('heat', 1)
    headers = {'Accept': accept}
    with requests.request(method, wsa.url + path, headers=headers, timeout=TIMEOUT, stream=True) as found:
        if 'fm' in answer or accept == '*/*':
            assert found.json().items() >= answer.items()
        else:
            blocks = (read_block(found.raw) for _ in range(2))
            assert json.loads([*blocks][1]['data']).items() >= answer.items()


@pytest.mark.parametrize(
    ('accept', 'is_stream'),
    [
        ('text/event-stream', True),
        ('TEXT/Event-Stream', True),
        ('text/event-stream;q=0.9', True),
        ('text/event-stream ; charset=utf-8', True),
        ('application/json, text/event-stream', True),
        ('application/json;q=1,text/event-stream;q=0.1', True),
        ('', False),
        ('*/*', False),
        ('text/*', False),
        ('application/json', False),
        ('text/event-stream2', False),
        ('x-text/event-stream', False),
        ('text/event-stream;q=0', False),
        ('text/event-stream;q=0.0, */*', False),
        ('application/json;q=0.1, TEXT/event-stream; Q=0', False),
        ('text/event-stream;x="a,b;q=0"', True),
        ('x/y;z="text/event-stream"', False),
        ('*/*;q=0, text/event-stream;q=0.001', True),
        ('application/json;q=0, */*', True),
        ('application/json;q=0, text/*', True),
        ('text/html', False),
    ],
)
def test_accept(serve: Serve, accept: str, is_stream: bool) -> None:
    """A stream is for who names it; who takes anything gets the event as it stands."""
    kind = get(serve(), method='HEAD', Accept=accept).headers['Content-Type']
    assert kind == ('text/event-stream' if is_stream else 'application/json')


@pytest.mark.parametrize('accept', ['*/*;q=0', 'application/json;q=0', 'application/json;q=0, text/event-stream;q=0'])
def test_accept_of_neither(serve: Serve, accept: str) -> None:
    """A client that refuses both forms of an event gets neither."""
    answer = get(serve(), Accept=accept)
    assert (answer.status_code, answer.json()['code']) == (406, 406)


def test_conditions(serve: Serve) -> None:
    """`If-Match` asks for a version, and an event has no date."""
    wsa = serve()
    etag = get(wsa).headers['ETag']
    assert [get(wsa, If_Match=tag).status_code for tag in (etag, '"x"', f'W/{etag}', '*')] == [200, 412, 412, 200]
    assert get(wsa, If_Modified_Since='Sun, 06 Nov 2094 08:49:37 GMT').status_code == 200


def test_accept_in_several_lines(serve: Serve) -> None:
    """`Accept` may come in several lines, which are one list."""
    lines = b'Accept: application/json\r\nAccept: text/event-stream\r\n'
    answer = exchange(serve(), b'HEAD /cmd?evt=heat HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n' + lines + b'\r\n')
    assert b'\r\nContent-Type: text/event-stream\r\n' in answer


# --- one connection, many requests ---


@pytest.mark.parametrize('version', [0, 1])
def test_connection_used_again(serve: Serve, open_client: OpenClient, version: int) -> None:
    """After each kind of answer the connection is there for the next request, and no byte is left over."""
    wsa = serve({'x': lambda ctx, q: 'x'})
    for _ in range(version):
        wsa.triggerEvent('heat', 1)
    epoch = wsa.event('heat').epoch
    client = open_client(wsa)
    for method, query, headers, code in (
        ('GET', 'evt=heat', {}, 200),
        ('HEAD', 'evt=heat', {}, 200),
        ('GET', 'evt=heat', {'If-None-Match': '*'}, 304),
        ('GET', f'evt=heat&since={epoch}:{version}&wait=0.01', {}, 204),
        ('HEAD', f'evt=heat&since={epoch}:{version}&wait=0.01', {}, 204),
        ('HEAD', 'evt=heat&since=0', {}, 200 if version else 204),
        ('HEAD', 'evt=heat', STREAM, 200),
        ('HEAD', 'evt=heat&evt=cold&since=0,0', STREAM, 200),
        ('GET', 'evt=heat&since=x', {}, 400),
        ('HEAD', 'evt=heat&since=x', STREAM, 400),
        ('GET', 'evt=heat&evt=cold', {}, 400),
    ):
        client.request(method, f'/cmd?{query}', headers=headers)
        answer = client.getresponse()
        assert (answer.status, bool(answer.read())) == (code, method == 'GET' and code in (200, 400))
        client.request('GET', '/cmd/x')
        assert client.getresponse().read() == b'x'
    assert wsa.connections == wsa.subscribers('heat') == []


def test_connection_of_a_stream_used_again(serve: Serve, open_client: OpenClient) -> None:
    """A stream that the program ended leaves its connection whole."""
    wsa = serve()
    wsa.triggerEvent('heat', 1)
    client = open_client(wsa)
    for _ in range(3):
        client.request('GET', '/cmd?evt=heat', headers=STREAM)
        answer = client.getresponse()
        assert [read_block(answer).keys() for _ in range(2)] == [{'id'}, {'id', 'data'}]
        wsa.connections[0].close()
        assert answer.read() == b''
        client.request('GET', '/cmd?evt=heat')
        assert json.loads(client.getresponse().read())['ver'] == 1


@pytest.mark.parametrize('headers', [{}, STREAM])
def test_head(serve: Serve, headers: dict[str, str]) -> None:
    """HEAD has the headers of GET, and ends; nobody is subscribed then."""
    wsa = serve()
    wsa.triggerEvent('heat', 1)
    told = watch(wsa)
    head = get(wsa, method='HEAD', **headers).headers
    assert told == ['subscribe heat', 'unsubscribe heat']
    with requests.get(f'{wsa.url}/cmd?evt=heat', headers=headers, stream=True, timeout=TIMEOUT) as answer:
        moving = {'Date', 'Transfer-Encoding', 'Connection'}
        assert {*head.items()} >= {pair for pair in answer.headers.items() if pair[0] not in moving}


def test_poll_of_http_1_0(serve: Serve) -> None:
    """A client of HTTP/1.0 is answered, and its connection is closed."""
    wsa = serve()
    wsa.triggerEvent('heat', 1)
    head, _, body = exchange(wsa, b'GET /cmd?evt=heat&since=0&wait=20 HTTP/1.0\r\n\r\n').partition(b'\r\n\r\n')
    assert (head.split()[1], json.loads(body)['ver']) == (b'200', 1)


# --- who is there, and who leaves ---


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
@pytest.mark.parametrize('is_reset', [False, True])
@pytest.mark.parametrize('headers', [b'', b'Accept: text/event-stream\r\n'], ids=['poll', 'stream'])
def test_client_that_leaves(serve: Serve, headers: bytes, is_reset: bool, loop: str) -> None:
    """Who leaves is subscribed no longer, at once, whether it says so or is cut off."""
    wsa = serve(loop=loop)
    told = watch(wsa)
    connection = dial(wsa.port)
    connection.sendall(b'GET /cmd?evt=heat&since=0&wait=60 HTTP/1.1\r\nHost: localhost\r\n' + headers + b'\r\n')
    until(lambda: 'subscribe heat' in told)
    if is_reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    connection.close()
    until(lambda: 'unsubscribe heat' in told)
    until(lambda: wsa.connections == [])
    assert wsa.subscribers('heat') == []
    until(lambda: told.count('connect') == told.count('disconnect'))


def test_stream_is_a_connection(serve: Serve, open_stream: OpenStream) -> None:
    """A stream is among the app's connections, with its subscriptions as they stand, and hooks are told of it."""
    wsa = serve()
    told = watch(wsa)
    wsa.triggerEvent('a', 1)
    stream = open_stream(wsa, 'evt=a&evt=b')
    stream.next()
    (connection,) = wsa.connections
    assert wsa.subscribers('a') == wsa.subscribers('b') == [connection]
    assert [(it.event, it.ver, it.lag) for it in connection.subscriptions] == [('a', 1, 0), ('b', 0, 0)]
    assert told == ['connect', 'subscribe a', 'subscribe b']
    connection.close()
    with pytest.raises(EOFError):
        stream.block()
    until(lambda: 'disconnect' in told)
    assert (wsa.connections, sorted(told[3:])) == ([], ['disconnect', 'unsubscribe a', 'unsubscribe b'])


def test_push_to_a_stream(serve: Serve, open_stream: OpenStream) -> None:
    """What is pushed to one stream alone is data without `id`, version or uid, and moves no cursor."""
    wsa = serve()
    stream, other = open_stream(wsa), open_stream(wsa)
    wsa.connections[0].push('note', {'a': 'ü\n'})
    wsa.connections[0].push('heat', 2)
    for event, value in (('note', {'a': 'ü\n'}), ('heat', 2)):
        block = stream.block()
        push = json.loads(block['data'])
        assert ([*block], push.pop('t') > 0, push) == (['data'], True, {'evt': event, 'r': value})
    wsa.triggerEvent('heat', 1)
    assert stream.next() == other.next() == (f'{wsa.event("heat").epoch}:1', 'heat', 1, 1)


def test_push_by_the_hook(serve: Serve, open_stream: OpenStream) -> None:
    """What a hook pushes to a stream that comes follows its place."""
    wsa = serve()
    wsa.on('connect')(lambda ctx: ctx.conn.push('welcome', ctx.method))
    stream = open_stream(wsa)
    push = json.loads(stream.block()['data'])
    assert (stream.place, push['evt'], push['r']) == (f'{wsa.event("heat").epoch}:0', 'welcome', 'GET')


def test_close_sends_what_there_is(serve: Serve, open_stream: OpenStream) -> None:
    """A stream that is closed takes what was triggered before, and then ends as it should."""
    wsa = serve()
    stream = open_stream(wsa)
    for n in range(200):
        wsa.triggerEvent('heat', n)
    wsa.connections[0].close(1000, 'enough')
    assert [stream.next()[2] for _ in range(200)] == list(range(1, 201))
    assert stream.response.read() == b''


def test_closed_by_the_hook(serve: Serve, open_stream: OpenStream) -> None:
    """A stream that a hook closes ends at once, as it should, also where there is nothing to send."""
    wsa = serve(limits=ws.Limits(ping_interval=None))
    wsa.on('connect')(lambda ctx: ctx.conn.close())
    assert open_stream(wsa).response.read() == b''
    wsa.triggerEvent('heat', 1)
    stream = open_stream(wsa)
    assert stream.next()[2] == 1
    assert stream.response.read() == b''


@pytest.mark.parametrize('method', ['GET', 'HEAD'])
@pytest.mark.parametrize('headers', [{}, STREAM])
def test_refused_by_the_hook(serve: Serve, method: str, headers: dict[str, str]) -> None:
    """A hook that refuses one of the events refuses the request, with an error and no stream."""
    wsa = serve()

    @wsa.on('subscribe')
    def check(ctx: ws.Context, event: str) -> None:
        if event == 'secret':
            raise ws.Error(403, 'Not for you')

    answer = get(wsa, 'evt=heat&evt=secret' if headers else 'evt=secret', method, **headers)
    assert (answer.status_code, answer.headers['Content-Type']) == (403, 'application/json')
    assert method == 'HEAD' or answer.json() == {'error': 'Not for you', 'code': 403}
    assert wsa.connections == wsa.subscribers('heat') == []


def test_too_many_events(serve: Serve, open_stream: OpenStream) -> None:
    """A stream has as many subscriptions as a connection may have; past it the request is 429."""
    wsa = serve(limits=ws.Limits(max_subscriptions=2))
    answer = get(wsa, 'evt=a&evt=b&evt=c', **STREAM)
    assert (answer.status_code, answer.json()['code'], wsa.connections) == (429, 429, [])
    assert open_stream(wsa, 'evt=a&evt=b&evt=a').place.endswith(':0,0')


def test_too_many_fields(serve: Serve) -> None:
    """A query has as many fields as any; past it the request is 413."""
    wsa = serve(limits=ws.Limits(max_fields=3))
    assert get(wsa, 'evt=a&evt=a&evt=a').status_code == 200
    for headers in ({}, STREAM):
        assert get(wsa, 'evt=a&evt=b&evt=c&evt=d', **headers).status_code == 413


# --- silence ---


def test_heartbeat(serve: Serve, open_stream: OpenStream) -> None:
    """In silence comments show that a stream lives; with `None` there are none."""
    lively, silent = serve(limits=ws.Limits(ping_interval=0.01)), serve(limits=ws.Limits(ping_interval=None))
    stream, quiet = open_stream(lively), open_stream(silent)
    for _ in range(5):
        assert [stream.response.readline(), stream.response.readline()] == [HEARTBEAT, b'\n']
    assert lively.stats()['limits']['ping_interval'] >= 5
    for wsa in (lively, silent):
        wsa.triggerEvent('heat', 1)
    assert stream.next()[2] == 1
    assert quiet.response.readline() == f'id: {silent.event("heat").epoch}:1\n'.encode()


# --- the stop ---


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_stop(serve: Serve, open_stream: OpenStream, loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """`stop` ends streams when they have what was triggered, as they should end, and answers polls with 503."""
    wsa = serve(loop=loop)
    told = watch(wsa)
    streams = [open_stream(wsa) for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        polls = [pool.submit(get, wsa, 'evt=cold&wait=60') for _ in range(3)]
        until(lambda: told.count('subscribe cold') == 3)
        for n in range(100):
            wsa.triggerEvent('heat', n)
        stopping = pool.submit(wsa.stop)
        for stream in streams:
            assert [stream.next()[2] for _ in range(100)] == list(range(1, 101))
            assert stream.response.read() == b''
        for poll in polls:
            answer = poll.result()
            assert (answer.status_code, answer.json()['code']) == (503, 503)
        stopping.result()
    assert sorted(told.count(moment) for moment in {*told}) == [3] * 6
    assert caplog.records == []


def test_stop_and_a_stream_that_takes_nothing(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A client that does not read does not hold up `stop`."""
    wsa = serve(limits=ws.Limits(stall_timeout=None))
    with dial(wsa.port, 4096) as connection:
        connection.sendall(b'GET /cmd?evt=heat HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n')
        until(lambda: wsa.subscribers('heat'))
        wsa.triggerEvent('heat', 'x' * 20_000_000)
        wsa.stop()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert wsa.subscribers('heat') == []


def test_stalled_stream_that_is_lost(serve: Serve) -> None:
    """A client that is lost while a large value waits to be taken is subscribed no longer."""
    wsa = serve(limits=ws.Limits(stall_timeout=None, ping_interval=None))
    with dial(wsa.port, 4096) as connection:
        connection.sendall(b'GET /cmd?evt=heat HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n')
        until(lambda: wsa.subscribers('heat'))
        wsa.triggerEvent('heat', 'x' * 20_000_000)
        until(lambda: wsa.connections[0].buffered)
    until(lambda: not wsa.connections)
    assert wsa.subscribers('heat') == []


def test_refused_while_it_stops(serve: Serve, open_client: OpenClient, block: Block) -> None:
    """While `stop` waits for a handler, new polls and streams are refused with 503."""
    wsa = serve({'block': block.threaded}, limits=ws.Limits(stop_timeout=2 * TIMEOUT))
    clients = [open_client(wsa) for _ in range(4)]

    def ask(client: http.client.HTTPConnection, query: str, headers: dict[str, str]) -> int:
        client.request('GET', f'/cmd?{query}', headers=headers)
        answer = client.getresponse()
        return answer.status if answer.read() else 0

    with ThreadPoolExecutor(2) as pool:
        try:
            for client in clients:
                assert ask(client, 'evt=heat', {}) == 200
            handled = pool.submit(requests.get, f'{wsa.url}/cmd/block', timeout=TIMEOUT)
            assert block.entered.wait(TIMEOUT)
            stopping = pool.submit(wsa.stop)
            until(lambda: ask(clients[0], 'evt=heat', {}) == 503)
            assert ask(clients[1], 'evt=heat&wait=20', {}) == 503
            assert ask(clients[2], 'evt=heat', STREAM) == 503
            assert ask(clients[3], 'evt=heat&since=0', {}) == 503
        finally:
            block.let_go.set()
        assert handled.result().text == 'done'
        stopping.result()
