"""What `WebShoesApp` takes, refuses and tells: section 2."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from propertybag import Bag
from websockets.exceptions import ConnectionClosed

import webshoes as ws
from test.conftest import TIMEOUT, OpenPeer, Serve


def add(ctx: Any, q: Any) -> dict[str, int]:
    return {'result': int(q.a) + int(q.b)}


def get(wsa: ws.WebShoesApp, path: str) -> Any:
    """What is answered over HTTP, as JSON."""
    return requests.get(f'{wsa.url}/{path}', timeout=TIMEOUT).json()


@pytest.fixture
def wsa() -> ws.WebShoesApp:
    """An app that does not run."""
    return ws.WebShoesApp('127.0.0.1', 0)


# --- settings ---


@pytest.mark.parametrize(
    ('args', 'settings', 'error', 'sentence'),
    [
        ((None, 0), {}, TypeError, "addr is an address such as '127.0.0.1', not None"),
        ((('127.0.0.1', 0), 0), {}, TypeError, 'addr is an address'),
        (('127.0.0.1', -1), {}, ValueError, 'port is a number from 0 to 65535, not -1'),
        (('127.0.0.1', 65536), {}, ValueError, 'not 65536'),
        (('127.0.0.1', '80'), {}, ValueError, "not '80'"),
        (('127.0.0.1', None), {}, ValueError, 'not None'),
        (('127.0.0.1', True), {}, ValueError, 'not True'),
        (('127.0.0.1', 0), {'loop': 'trio'}, ValueError, "loop is 'auto', 'uvloop' or 'asyncio', not 'trio'"),
        (('127.0.0.1', 0), {'loop': None}, ValueError, 'not None'),
        (('127.0.0.1', 0, {'max_ws_msg_size': 0}), {}, ValueError, r'Limits\.max_ws_msg_size must be above 0 bytes'),
        (('127.0.0.1', 0, {'max_ws_msg_size': '1'}), {}, TypeError, r'Limits\.max_ws_msg_size is a number of bytes'),
        (('127.0.0.1', 0), {'origin': '*'}, TypeError, "unexpected keyword argument 'origin'"),
        (('127.0.0.1', 0, {}, None), {}, TypeError, 'positional'),
    ],
)
def test_arguments_are_checked(
    args: tuple[Any, ...], settings: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    """What cannot be used is refused when the app is made, by a sentence that names it."""
    with pytest.raises(error, match=sentence):
        ws.WebShoesApp(*args, **settings)


def test_opts_reach_handlers(serve: Serve) -> None:
    """`ctx.opts` is the application's own bag, with whatever stands in it."""
    wsa = serve({'name': lambda ctx, q: ctx.opts.name}, opts={'name': 'grid', 'port': object()})
    assert requests.get(wsa.url + '/cmd/name', timeout=TIMEOUT).text == 'grid'


def test_a_bag_of_opts_is_the_very_bag() -> None:
    """A Bag that is given as `opts` is used itself, so that the program can change it later."""
    opts = Bag({'name': 'grid'})
    assert ws.WebShoesApp('127.0.0.1', 0, opts).opts is opts


def test_a_dict_of_opts_is_not_changed() -> None:
    """A dict that is given as `opts` stays the program's own."""
    opts = {'name': 'grid'}
    ws.WebShoesApp('127.0.0.1', 0, opts).opts.name = 'other'
    assert opts == {'name': 'grid'}


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The library's logger, its handlers and level given back after the test."""
    log = logging.getLogger('webshoes')
    handlers, level = list(log.handlers), log.level
    yield log
    log.handlers[:] = handlers
    log.setLevel(level)


@pytest.mark.parametrize(('opts', 'said'), [({'verbose': True}, True), ({'verbose': False}, False), ({}, False)])
def test_verbose_shows_the_log(
    serve: Serve, capsys: pytest.CaptureFixture[str], logger: logging.Logger, opts: dict[str, Any], said: bool
) -> None:
    """`verbose` shows where the server listens on stderr; without it nothing is shown."""
    before = len(logger.handlers)
    wsa = serve(opts=opts)
    assert (f'listening on {wsa.url}' in capsys.readouterr().err) is said
    assert len(logger.handlers) == before + said


@pytest.mark.parametrize(
    ('opts', 'limits'),
    [
        ({'max_ws_msg_size': 200}, None),
        ({'max_ws_msg_size': 200}, ws.Limits(max_ws_msg_size=100)),
        ({}, ws.Limits(max_ws_msg_size=200)),
    ],
)
def test_a_message_over_the_limit(
    serve: Serve, open_peer: OpenPeer, opts: dict[str, Any], limits: ws.Limits | None
) -> None:
    """`max_ws_msg_size`, in `opts` over `limits`, lets as many bytes in and closes with 1009 past them."""
    peer = open_peer(serve({'add': add}, opts=opts, limits=limits))
    message = json.dumps({'cmd': 'cmd/add', 'q': {'a': 1, 'b': 2, 'text': ''}})
    peer.connection.send(message.replace('""', '"' + 'x' * (200 - len(message)) + '"'))
    assert peer.receive()['r'] == {'result': 3}
    peer.connection.send(message.replace('""', '"' + 'x' * (201 - len(message)) + '"'))
    with pytest.raises(ConnectionClosed, match='1009'):
        peer.receive()


def test_no_limit_of_a_message(serve: Serve, open_peer: OpenPeer) -> None:
    """`max_ws_msg_size=None` in `opts` is no limit."""
    peer = open_peer(serve({'len': lambda ctx, q: len(q.text)}, opts={'max_ws_msg_size': None}))
    assert peer.ask({'cmd': 'cmd/len', 'q': {'text': 'x' * 5_000_000}})['r'] == 5_000_000


def test_limits_reach_the_server(serve: Serve, open_peer: OpenPeer) -> None:
    """A number in `limits` is the one that is enforced, over WebSocket and HTTP."""
    wsa = serve({'add': add}, limits=ws.Limits(max_subscriptions=1, max_body_size=100))
    peer = open_peer(wsa)
    peer.subscribe('first')
    assert peer.ask({'evt': 'second'})['code'] == 429
    assert requests.post(wsa.url + '/cmd/add', json={'text': 'x' * 101}, timeout=TIMEOUT).status_code == 413


@pytest.mark.parametrize(('settings', 'agreed'), [({}, None), ({'compress': True}, 'permessage-deflate')])
def test_compression_is_off_unless_asked(
    serve: Serve, open_peer: OpenPeer, settings: dict[str, Any], agreed: str | None
) -> None:
    """`compress` decides whether permessage-deflate (RFC 7692) is agreed to, which the client always offers."""
    response = open_peer(serve(**settings)).connection.response
    assert response is not None
    found = response.headers.get('Sec-WebSocket-Extensions')
    assert (found and found.split(';')[0]) == agreed


# --- registration ---


def test_an_entry_is_readable(wsa: ws.WebShoesApp) -> None:
    """`handlers` has each entry by `sub`, its six fields readable in both ways, `fm` being the dict itself."""
    fm = {'add': add}
    wsa.register('grid', 'cmd', 'q', 'evt', 'rep', fm)
    entry = wsa.handlers['grid']
    fields = ('sub', 'cmd', 'q', 'evt', 'rep')
    assert [getattr(entry, name) for name in fields] == ['grid', 'cmd', 'q', 'evt', 'rep']
    assert [entry[name] for name in fields] == ['grid', 'cmd', 'q', 'evt', 'rep']
    assert entry.fm is entry['fm'] is fm


def test_an_entry_has_no_other_keys(wsa: ws.WebShoesApp) -> None:
    """A key that is no field is a KeyError."""
    wsa.register('grid', 'cmd', 'q', 'evt', 'r', {})
    with pytest.raises(KeyError):
        wsa.handlers['grid']['find']


def test_a_function_added_later_is_served(serve: Serve) -> None:
    """A function that is put into the registered dict while the server runs is served, and one taken out is not."""
    fm: dict[str, Any] = {}
    wsa = serve(fm)
    assert get(wsa, 'cmd/add?a=1&b=2')['code'] == 404
    fm['add'] = add
    assert get(wsa, 'cmd/add?a=1&b=2') == {'result': 3}
    del fm['add']
    assert get(wsa, 'cmd/add?a=1&b=2')['code'] == 404


def test_a_later_register_replaces(serve: Serve) -> None:
    """`register` of a `sub` that is there replaces the entry, while the server runs too."""
    wsa = serve({'old': lambda ctx, q: 1})
    wsa.register('cmd', 'c', 'q', 'e', 'r', {'new': lambda ctx, q: 2})
    assert get(wsa, 'cmd/old')['code'] == 404
    assert get(wsa, 'cmd/new') == 2
    assert len(wsa.handlers) == 1


def test_unregister(serve: Serve) -> None:
    """An entry that was unregistered is served no longer; one that is not there is no error."""
    wsa = serve({'add': add})
    wsa.unregister('cmd')
    wsa.unregister('cmd')
    assert get(wsa, 'cmd/add?a=1&b=2')['code'] == 404
    assert not wsa.handlers


@pytest.mark.parametrize(
    ('args', 'error', 'sentence'),
    [
        ((1, 'cmd', 'q', 'evt', 'r', {}), TypeError, 'register: sub is a text, not 1'),
        (('sub', 'cmd', 'q', 'evt', 'r', [add]), TypeError, 'register: fm is a dict'),
        (('a/b', 'cmd', 'q', 'evt', 'r', {}), ValueError, 'register: sub is one segment'),
        (('sub', 'cmd', 'q', 'evt', 'tid', {}), ValueError, "rep cannot be 'tid'"),
        (('sub', 'cmd', 'q', 'evt', 'r', {'add': 1}), TypeError, "'sub/add' is 1"),
        (('sub', 'cmd', 'q', 'evt', 'r', {'add': lambda ctx: 1}), TypeError, "'sub/add' cannot be called"),
    ],
)
def test_register_checks(wsa: ws.WebShoesApp, args: tuple[Any, ...], error: type[Exception], sentence: str) -> None:
    """What cannot be served is refused at `register`, and nothing is registered."""
    with pytest.raises(error, match=sentence):
        wsa.register(*args)
    assert not wsa.handlers


def test_command_makes_an_entry(wsa: ws.WebShoesApp) -> None:
    """`@wsa.command` makes an entry with the default field names, and gives the function back."""
    assert wsa.command('grid/add')(add) is add
    entry = wsa.handlers['grid']
    assert (entry.cmd, entry.q, entry.evt, entry.rep, entry.fm) == ('cmd', 'q', 'evt', 'r', {'add': add})


def test_command_is_served(serve: Serve, open_peer: OpenPeer) -> None:
    """A function registered by `@wsa.command` answers over both transports, patterns in its key included."""
    wsa = serve()

    @wsa.command('grid/cell/{id}')
    def cell(ctx: ws.Context, q: Any) -> str:
        return f'cell {q.id}'

    assert requests.get(wsa.url + '/grid/cell/7', timeout=TIMEOUT).text == 'cell 7'
    assert open_peer(wsa).ask({'cmd': 'grid/cell/8'})['r'] == 'cell 8'


def test_command_goes_into_the_dict_that_was_registered(wsa: ws.WebShoesApp) -> None:
    """A command of an entry that is there goes into its dict, and its field names stay."""
    fm: dict[str, Any] = {}
    wsa.register('grid', 'c', 'args', 'e', 'rep', fm)
    wsa.command('grid/add')(add)
    assert wsa.handlers['grid'].fm is fm
    assert fm == {'add': add}
    assert wsa.handlers['grid'].cmd == 'c'


@pytest.mark.parametrize('path', ['add', '/add', 'grid/', '/', ''])
def test_command_needs_entry_and_name(wsa: ws.WebShoesApp, path: str) -> None:
    """A path that lacks the entry or the name is a ValueError that shows the right form."""
    with pytest.raises(ValueError, match=r"such as 'cmd/add' is needed"):
        wsa.command(path)


@pytest.mark.parametrize('path', [add, None, 1])
def test_command_without_a_path(wsa: ws.WebShoesApp, path: Any) -> None:
    """`@wsa.command` without its parentheses is a TypeError that shows the right form, and nothing is registered."""
    with pytest.raises(TypeError, match=r"command: @wsa\.command\('cmd/add'\), with a path, not"):
        wsa.command(path)
    assert not wsa.handlers


def test_a_folder_that_is_not_there(wsa: ws.WebShoesApp, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder that is not there is warned of by name when it is registered; one that is there is not."""
    (tmp_path / 'some').mkdir()
    wsa.register('site', '', '', '', '', {'a': {'root': tmp_path / 'some'}, 'b': {'root': str(tmp_path / 'none')}})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"folder 'site/b': there is no folder {tmp_path / 'none'}"


def test_a_refused_command_changes_nothing(wsa: ws.WebShoesApp) -> None:
    """What cannot be a handler is refused by `@wsa.command` and does not stay in the dict."""
    fm: dict[str, Any] = {}
    wsa.register('grid', 'cmd', 'q', 'evt', 'r', fm)
    with pytest.raises(TypeError, match="'grid/add' cannot be called"):
        wsa.command('grid/add')(lambda: 1)
    assert fm == {}


def test_many_threads_register(wsa: ws.WebShoesApp) -> None:
    """Registering from many threads at once loses nothing."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: wsa.command(f'grid/{number}')(add), range(200)))
        list(threads.map(lambda number: wsa.register(f's{number}', '', '', '', '', {}), range(200)))
    assert len(wsa.handlers['grid'].fm) == 200
    assert len(wsa.handlers) == 201


# --- events ---


def test_trigger_returns_the_version(wsa: ws.WebShoesApp) -> None:
    """`triggerEvent` gives a future that is done, with the version's number."""
    futures = [wsa.triggerEvent('state', value) for value in 'abc']
    assert all(isinstance(future, Future) and future.done() for future in futures)
    assert [future.result() for future in futures] == [1, 2, 3]


def test_data_is_encoded_at_once(serve: Serve, open_peer: OpenPeer) -> None:
    """What the caller changes in the data after `triggerEvent` is never seen."""
    wsa, data = serve(), {'value': 1}
    wsa.triggerEvent('state', data)
    data['value'] = 2
    peer = open_peer(wsa)
    peer.subscribe('state')
    assert peer.receive()['r'] == {'value': 1}


@pytest.mark.parametrize(
    ('event', 'data', 'error', 'sentence'),
    [
        ('state', object(), TypeError, 'object'),
        (1, 1, TypeError, 'an event is named by a text, not 1'),
        ('', 1, ValueError, 'the name of an event has 1 to 256 characters, not 0'),
        ('x' * 257, 1, ValueError, 'not 257'),
    ],
)
def test_trigger_checks(wsa: ws.WebShoesApp, event: Any, data: Any, error: type[Exception], sentence: str) -> None:
    """A name or data that cannot be used is refused in the caller's thread, and is no version."""
    with pytest.raises(error, match=sentence):
        wsa.triggerEvent(event, data)
    assert wsa.event('state').ver == 0


def test_an_event_tells_how_it_stands(wsa: ws.WebShoesApp) -> None:
    """`event` gives version, epoch and value as they are when they are asked for."""
    event = wsa.event('state')
    assert (event.ver, event.value) == (0, None)
    wsa.triggerEvent('state', {'a': [1]})
    assert (event.ver, event.value, event.epoch) == (1, {'a': [1]}, wsa.event('other').epoch)


def test_two_apps_have_two_histories() -> None:
    """The epoch is the history's own: another app, or the same program run again, has another."""
    assert len({ws.WebShoesApp('127.0.0.1', 0).event('state').epoch for _ in range(10)}) == 10


@pytest.mark.parametrize('history', [0, -1, 1.5, '10'])
def test_history_is_checked(wsa: ws.WebShoesApp, history: Any) -> None:
    """A history that is no number of versions is a ValueError."""
    with pytest.raises(ValueError, match='at least 1, not'):
        wsa.event('state', history=history)


@pytest.mark.parametrize('name', [1, None, '', 'x' * 257])
def test_the_name_of_an_event_is_checked(wsa: ws.WebShoesApp, name: Any) -> None:
    """`event` refuses the names that `triggerEvent` refuses."""
    with pytest.raises((TypeError, ValueError)):
        wsa.event(name)


def test_a_history_of_one_keeps_the_newest(serve: Serve, open_peer: OpenPeer) -> None:
    """`history=1` keeps the newest version only, which declares what is gone."""
    wsa = serve()
    wsa.event('state', history=1)
    for value in range(5):
        wsa.triggerEvent('state', value)
    peer = open_peer(wsa)
    peer.subscribe('state', since={'ver': 0})
    push = peer.receive()
    assert (push['from'], push['ver'], push['r']) == (1, 5, 4)


def test_distinct_makes_no_equal_version(wsa: ws.WebShoesApp) -> None:
    """`distinct` makes a trigger with equal data no new version, whatever the order of keys; asked again, it stays."""
    wsa.event('state', distinct=True)
    wsa.event('state')
    versions = [wsa.triggerEvent('state', data).result() for data in ({'a': 1, 'b': 2}, {'b': 2, 'a': 1}, {'a': 1})]
    assert versions == [1, 1, 2]


def test_triggers_of_many_threads_are_all_versions(serve: Serve, open_peer: OpenPeer) -> None:
    """Threads that trigger at once make a version each, and a subscriber sees them in order without a gap."""
    wsa = serve(limits=ws.Limits(history=1000))
    peer = open_peer(wsa)
    peer.subscribe('state')
    threads = [threading.Thread(target=lambda: [wsa.triggerEvent('state', 0) for _ in range(100)]) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert [peer.receive()['ver'] for _ in range(500)] == list(range(1, 501))
    for thread in threads:
        thread.join(TIMEOUT)


def test_a_handler_may_trigger(serve: Serve, open_peer: OpenPeer) -> None:
    """An event triggered by a handler, plain or threaded, reaches subscribers."""

    def trigger(ctx: ws.Context, q: Any) -> int:
        version: int = ctx.wsa.triggerEvent('state', 'here').result()
        return version

    wsa = serve({'plain': trigger, 'thread': ws.threaded(lambda ctx, q: trigger(ctx, q))})
    peer = open_peer(wsa)
    peer.subscribe('state')
    assert [get(wsa, 'cmd/plain'), get(wsa, 'cmd/thread')] == [1, 2]
    assert [peer.receive()['ver'] for _ in range(2)] == [1, 2]


def test_an_event_shows_how_it_stands(wsa: ws.WebShoesApp) -> None:
    """The repr of an event has its name and version."""
    wsa.triggerEvent('state', 1)
    assert repr(wsa.event('state')) == "<Event 'state', version 1>"


# --- url ---


@pytest.mark.parametrize(
    ('addr', 'url'),
    [
        ('127.0.0.1', 'http://127.0.0.1:15801'),
        ('', 'http://127.0.0.1:15801'),
        ('0.0.0.0', 'http://127.0.0.1:15801'),
        ('::', 'http://127.0.0.1:15801'),
        ('::1', 'http://[::1]:15801'),
        ('localhost', 'http://localhost:15801'),
        ('lab.example', 'http://lab.example:15801'),
    ],
)
def test_url(addr: str, url: str) -> None:
    """`url` is where a program on this machine finds the server, IPv6 in brackets (RFC 3986 section 3.2.2)."""
    assert ws.WebShoesApp(addr, 15801).url == url


def test_an_app_shows_where_it_is(serve: Serve) -> None:
    """The repr of an app has its address, and whether it runs."""
    wsa = serve()
    assert repr(wsa) == f'<WebShoesApp http://127.0.0.1:{wsa.port}, running>'
    wsa.stop()
    assert repr(wsa) == '<WebShoesApp http://127.0.0.1:0, stopped>'


@pytest.mark.parametrize('name', ['', 'web', 'py.typed'])
def test_lib_path(name: str) -> None:
    """`libPath` is the path of what the package has."""
    assert ws.libPath(name).endswith(f'webshoes/{name}'.rstrip('/'))


def test_lib_path_of_nothing() -> None:
    """A file that the package does not have is an error that names those it has."""
    with pytest.raises(FileNotFoundError, match=r"no file 'none'; there are .*'web'"):
        ws.libPath('none')
