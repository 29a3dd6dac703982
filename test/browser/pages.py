"""Pages of the tests, the server behind them, and helpers that look at them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page
from websockets.sync.server import ServerConnection, serve

import webshoes as ws

NewPage = Callable[..., Page]

# Keeps what the page is told; `covered` is the versions that were seen or declared as gone, in order.
SCRIPT = """
  const told = [], seen = [];
  const tell = (type, data) => { if (type !== 'message') told.push([type, data]); };
  const wsc = WebShoes({ cb: tell, minDelay: 50, maxDelay: 200, %s });
  const follow = data => seen.push(data);
  const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const covered = () => seen.flatMap(({ ver, from = ver }) => range(from, ver));
"""
CLASSIC = '<!doctype html><link rel="icon" href="data:,"><script src="/webshoes.js"></script><script>%s</script>'

Site = Callable[..., ws.WebShoesApp]

VISITORS: list[ws.Context] = []


def add(ctx: ws.Context, q: Any) -> dict[str, int]:
    VISITORS.append(ctx)
    return {'result': int(q.a) + int(q.b)}


def refuse(ctx: ws.Context, q: Any) -> None:
    raise ws.Error(409, 'Not now')


def hang_up(ctx: ws.Context, q: Any) -> None:
    ctx.conn.close(q.code)


def fall_silent(ctx: ws.Context, q: Any) -> None:
    ctx.req.transport.abort()


def cut(ctx: ws.Context, q: Any) -> None:
    VISITORS[-1].req.transport.abort()


def subscriptions(ctx: ws.Context, q: Any) -> list[str]:
    return [subscription.event for subscription in ctx.conn.subscriptions]


class Gate:
    """A call that waits for another one, whichever is the first."""

    def __init__(self) -> None:
        self._gone = asyncio.Semaphore(0)
        self._waiting = 0

    async def wait(self, ctx: ws.Context, q: Any) -> None:
        self._waiting += 1
        try:
            await self._gone.acquire()
        finally:
            self._waiting -= 1

    def waiting(self, ctx: ws.Context, q: Any) -> int:
        return self._waiting

    def go(self, ctx: ws.Context, q: Any) -> None:
        self._gone.release()


def open_and_follow(new_page: NewPage, wsa: ws.WebShoesApp, event: str = 'e', **settings: Any) -> Page:
    """A page that follows an event, from version 0 on."""
    page = new_page(wsa.url, **settings)
    page.evaluate(f"wsc.onEvent('{event}', follow, {{ since: {{ ver: 0 }} }}); wsc.call('cmd/add', {{ a: 0, b: 0 }})")
    return page


def wait_for(page: Page, condition: str) -> None:
    page.wait_for_function(condition)


@contextmanager
def fake_server(handler: Callable[[ServerConnection], None]) -> Iterator[str]:
    """A WebSocket server that does what no webshoes server does; its address."""
    with serve(handler, '127.0.0.1', 0, max_size=None, ping_interval=None, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f'ws://127.0.0.1:{server.socket.getsockname()[1]}'
    thread.join()
