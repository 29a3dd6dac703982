#!/usr/bin/env python3
"""One function, called over HTTP and over WebSocket."""

import asyncio
import json
from typing import Any

import requests
import websockets

import webshoes as ws


def cmdAdd(ctx: ws.Context, q: Any) -> dict[str, int]:
    """Add two numbers, whichever way they came."""
    return {'result': int(q.a) + int(q.b)}


def over_http(url: str) -> None:
    """Call it as any HTTP client does."""
    print('--- HTTP ---')
    reply = requests.get(f'{url}/cmd/add?a=2&b=3', timeout=10).json()
    print('GET /cmd/add?a=2&b=3 →', json.dumps(reply))
    reply = requests.post(f'{url}/cmd/add', data={'a': 10, 'b': 20}, timeout=10).json()
    print('POST /cmd/add {a:10, b:20} →', json.dumps(reply))


async def over_websocket(url: str) -> None:
    """Call it as any WebSocket client does."""
    print('--- WebSocket ---')
    async with websockets.connect(url.replace('http', 'ws', 1)) as connection:
        await connection.send(json.dumps({'cmd': 'cmd/add', 'q': {'a': 2, 'b': 3}}))
        print('cmd/add {a:2, b:3} →', json.loads(await connection.recv()))
        await connection.send(json.dumps({'cmd': 'cmd/add', 'q': {'a': 4, 'b': 5}, 'tid': 'req-001'}))
        print('cmd/add with tid →', json.loads(await connection.recv()))


def main() -> None:
    """Serve on a free port, call, stop."""
    wsa = ws.WebShoesApp('127.0.0.1', 0)
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'add': cmdAdd})
    with wsa:
        over_http(wsa.url)
        asyncio.run(over_websocket(wsa.url))


if __name__ == '__main__':
    main()
