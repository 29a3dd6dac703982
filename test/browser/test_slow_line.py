"""webshoes.js on a slow line, and on a dead one: big messages arrive, and their time is given to nothing else."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Page
from websockets.sync.server import ServerConnection

import webshoes as ws
from test.conftest import TIMEOUT

from .pages import NewPage, Site, fake_server, wait_for

BUFFER = 16 * 1024  # bytes that the line holds in each direction, beside what the browser's own socket does
PIECE = 4096
SIZE = 250_000  # characters, for which the line needs 3 seconds or more
HASTY = 'pingAfter: 200, deadAfter: 1500, timeout: 1500'


class Line:
    """A TCP line to a port that carries so many bytes a second in each direction."""

    def __init__(self, port: int, rate: float) -> None:
        self._target = port
        self._rate = rate
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._listener = socket.create_server(('127.0.0.1', 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)  # its accepted sockets inherit it
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Line:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(TIMEOUT)
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._carry, sock=self._listener, limit=PIECE)

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = socket.socket()
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        there.setblocking(False)
        await self._loop.sock_connect(there, ('127.0.0.1', self._target))
        back_reader, back_writer = await asyncio.open_connection(sock=there, limit=PIECE)
        try:
            await asyncio.gather(self._copy(reader, back_writer), self._copy(back_reader, writer))
        finally:
            writer.transport.abort()
            back_writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(len(piece) / self._rate)
        raise ConnectionResetError


@pytest.fixture
def slow_page(site: Site, new_page: NewPage) -> Iterator[Callable[..., tuple[ws.WebShoesApp, Page]]]:
    """An app and a page that speaks with it over a slow line: `slow_page(rate)`, bytes a second."""
    with ExitStack() as stack:

        def open_one(rate: float = 80_000, settings: str = HASTY, **kwargs: Any) -> tuple[ws.WebShoesApp, Page]:
            wsa = site('cb: () => {}', **kwargs)
            line = stack.enter_context(Line(wsa.port, rate))
            page = new_page(wsa.url)
            page.evaluate(f"""
              wsc.close();
              globalThis.slow = WebShoes({{ url: 'ws://127.0.0.1:{line.port}', cb: tell, {settings} }});
            """)
            wait_for(page, "slow.state === 'open'")
            stack.callback(page.close)
            return wsa, page

        yield open_one


def ends(page: Page) -> list[Any]:
    """The reasons why connections of a page ended."""
    reasons: list[Any] = page.evaluate("told.filter(([type]) => type === 'close').map(([, { reason }]) => reason)")
    return reasons


SlowPage = Callable[..., tuple[ws.WebShoesApp, Page]]
OTHER_ORIGIN = {'origins': '*'}


@pytest.mark.parametrize('letter', ['x', 'ü', '☃'])
def test_big_push(slow_page: SlowPage, letter: str) -> None:
    """A push that takes many times `deadAfter` arrives, and calls beside it are answered behind it."""
    wsa, page = slow_page(**OTHER_ORIGIN)
    page.evaluate("globalThis.off = slow.onEvent('e', ({ r }) => seen.push(r.length)); void 0")
    wait_for(page, 'off.position')
    wsa.triggerEvent('e', letter * SIZE)
    answer = page.evaluate("(async () => [await slow.call('cmd/add', { a: 1, b: 2 }), seen[0]])()")
    assert answer[0] == {'result': 3}
    wait_for(page, f'seen[0] === {SIZE}')
    assert ends(page) == []


def test_big_reply(slow_page: SlowPage) -> None:
    """A reply that takes many times `timeout` arrives, and does not let other calls time out."""
    wsa, page = slow_page(**OTHER_ORIGIN)

    @wsa.command('cmd/big')
    def big(ctx: ws.Context, q: Any) -> str:
        return 'x' * SIZE

    calls = "Promise.all([slow.call('cmd/big'), slow.call('cmd/add', { a: 1, b: 2 }), slow.call('cmd/big')])"
    assert page.evaluate(f'{calls}.then(([a, b, c]) => [a.length, b, c.length])') == [SIZE, {'result': 3}, SIZE]
    assert ends(page) == []


@pytest.mark.parametrize('letter', ['x', 'ü', '☃'])
def test_big_call(slow_page: SlowPage, letter: str) -> None:
    """A call that takes many times `timeout` and `deadAfter` to send is answered, and so are those behind it."""
    wsa, page = slow_page(**OTHER_ORIGIN)

    @wsa.command('cmd/size')
    def size(ctx: ws.Context, q: Any) -> int:
        return len(q.text)

    code = f"[slow.call('cmd/size', {{ text: '{letter}'.repeat({SIZE}) }}), slow.call('cmd/add', {{ a: 1, b: 2 }})]"
    assert page.evaluate(f'Promise.all({code})') == [SIZE, {'result': 3}]
    assert ends(page) == []


def test_timeout_after_a_big_call(slow_page: SlowPage) -> None:
    """A big call that is not answered times out once it has arrived."""
    _, page = slow_page(rate=1e6, settings='timeout: 200', **OTHER_ORIGIN)
    code = "slow.call('cmd/wait', { text: 'x'.repeat(4_000_000) }).catch(error => error.code)"
    assert page.evaluate(code) == 408  # at 8 kB/s it would take 500 s to arrive


# --- a dead line ---


def serve_for_a_while(connection: ServerConnection) -> None:
    """Answer pings until a message says that this is all; then tell of a message of 80 MB and send another one."""
    for text in connection:
        message = json.loads(text)
        if 'ping' in message:
            connection.send(json.dumps({'pong': message['ping']}))
        elif message['q'].get('end'):
            connection.send(json.dumps({'coming': 80_000_000}))
            connection.send(json.dumps({'r': None, 'tid': message['tid'], 't': 1}))
            break
    for _ in connection:
        pass


@pytest.mark.parametrize('size', [0, 4_000_000])
def test_dead_after_big_messages(site: Site, new_page: NewPage, size: int) -> None:
    """A line that is dead after big messages have arrived is given up as soon as any other."""
    with fake_server(serve_for_a_while) as url:
        page = new_page(site(f"url: '{url}', protocols: [], pingAfter: 100, deadAfter: 500").url, may_fail=True)
        page.evaluate(f"void wsc.msg({{ q: {{ text: 'x'.repeat({size}) }} }}).catch(() => {{}})")
        page.evaluate('wsc.msg({ q: { end: true } })')
        wait_for(page, "told.some(([type, data]) => type === 'close' && /no answer to a ping/.test(data.reason))")
        page.close()


def test_many_calls_on_a_dead_line(site: Site, new_page: NewPage) -> None:
    """Calls that go on and on keep no dead line alive."""

    def listen(connection: ServerConnection) -> None:
        for _ in connection:
            pass

    with fake_server(listen) as url:
        page = new_page(site(f"url: '{url}', protocols: [], pingAfter: 100, deadAfter: 500").url, may_fail=True)
        page.evaluate("""
          setInterval(() => wsc.call('move', { text: 'x'.repeat(1000) }, { queue: false }).catch(() => {}), 10);
        """)
        wait_for(page, "told.some(([type, data]) => type === 'close' && /no answer to a ping/.test(data.reason))")
        page.close()


def test_buffer_that_falls(site: Site, new_page: NewPage) -> None:
    """As long as bytes leave its buffer, a page does not take the line for dead, however slow it is."""
    arrived = []

    def listen(connection: ServerConnection) -> None:
        connection.send('{"pong": 1e12}')  # so that the page does not wait for bytes that are on their way
        for text in connection:
            if len(text) > 1000:
                arrived.append(len(text))
                connection.send(json.dumps({'r': 'arrived', 'tid': json.loads(text)['tid'], 't': 1}))

    with fake_server(listen) as url, Line(int(url.rpartition(':')[2]), 4e6) as line:
        settings = f"url: 'ws://127.0.0.1:{line.port}', protocols: [], pingAfter: 1000, deadAfter: 1000, timeout: 1e6"
        page = new_page(site(settings).url)
        wait_for(page, "wsc.state === 'open'")
        assert page.evaluate("wsc.call('x', { text: 'x'.repeat(16e6) })") == 'arrived'
        assert ends(page) == []
        page.close()
