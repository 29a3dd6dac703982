"""Threads that handlers use and threads that the server needs are apart."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import web

import webshoes as ws
from test.conftest import TIMEOUT, Serve

CALLS = 40  # more than there are threads for `asyncio.to_thread`
LARGE = bytes(3 * 1024 * 1024)


class Crowd:
    """Handlers that fill all threads of a kind until they are let go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Event()

    def wait(self) -> None:
        self.entered.release()
        self.let_go.wait(TIMEOUT)

    async def to_thread(self, ctx: Any, q: Any) -> None:
        await asyncio.to_thread(self.wait)

    async def in_executor(self, ctx: Any, q: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.wait)

    @ws.threaded
    def threaded(self, ctx: Any, q: Any) -> None:
        self.wait()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """Handlers that block, let go after the test."""
    crowd = Crowd()
    yield crowd
    crowd.let_go.set()


async def look_up(ctx: Any, q: Any) -> bool:
    found = await asyncio.get_running_loop().getaddrinfo('localhost', 80)
    named = await asyncio.get_running_loop().getnameinfo(('127.0.0.1', 80), socket.NI_NUMERICHOST)
    return bool(found) and named[0] == '127.0.0.1'


@pytest.mark.parametrize('loop', ['uvloop', 'asyncio'])
@pytest.mark.parametrize('kind', ['to_thread', 'in_executor', 'threaded'])
def test_handlers_that_fill_their_threads_hold_up_nothing(
    serve: Serve, crowd: Crowd, tmp_path: Path, loop: str, kind: str
) -> None:
    """Files, uploads and look-ups of names go on while all threads that handlers may use are taken."""
    file = tmp_path / 'file.txt'
    file.write_bytes(LARGE)
    handlers = {
        'fill': getattr(crowd, kind),
        'path': lambda ctx, q: file,
        'response': lambda ctx, q: web.FileResponse(file),
        'upload': lambda ctx, q: len(q.file.file.read()),
        'names': look_up,
    }
    wsa = serve(handlers, loop=loop, limits=ws.Limits(stall_timeout=None, slow_handler=None))
    wsa.register('folder', '', '', '', '', {'*': {'root': tmp_path}})
    with requests.Session() as session:
        fills = [threading.Thread(target=requests.get, args=(f'{wsa.url}/cmd/fill',)) for _ in range(CALLS)]
        for fill in fills:
            fill.start()
        for _ in range(32):
            assert crowd.entered.acquire(timeout=TIMEOUT)
        for path in ('folder/file.txt', 'cmd/path', 'cmd/response'):
            assert session.get(f'{wsa.url}/{path}', timeout=TIMEOUT).content == LARGE
        assert session.get(f'{wsa.url}/webshoes.js', timeout=TIMEOUT).status_code == 200
        upload = session.post(f'{wsa.url}/cmd/upload', files={'file': ('a', LARGE)}, timeout=TIMEOUT)
        assert upload.text == str(len(LARGE))
        assert session.get(f'{wsa.url}/cmd/names', timeout=TIMEOUT).text == 'true'
        crowd.let_go.set()
        for fill in fills:
            fill.join(TIMEOUT)
            assert not fill.is_alive()
