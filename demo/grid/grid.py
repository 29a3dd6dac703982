#!/usr/bin/env python3
"""A grid of 10 x 10 cells that everybody who looks at it shares: a click counts a cell up, 9 goes back to 0."""

import argparse
from pathlib import Path
from typing import Annotated

import msgspec

import webshoes as ws

SIZE = 10
WEB = Path(__file__).resolve().parent / 'web'

Index = Annotated[int, msgspec.Meta(ge=0, lt=SIZE)]


class Cell(msgspec.Struct):
    """Where a cell is; anything else is answered with error 422."""

    row: Index
    col: Index


def make_app(host: str, port: int) -> ws.WebShoesApp:
    """The app, not started."""
    cells = [[0] * SIZE for _ in range(SIZE)]
    wsa = ws.WebShoesApp(host, port)
    wsa.event('cells', history=1)  # each version is the whole grid: only the newest matters
    wsa.triggerEvent('cells', cells)

    @wsa.command('grid/increment')
    async def increment(ctx: ws.Context, q: Cell) -> int:
        cells[q.row][q.col] = (cells[q.row][q.col] + 1) % 10
        wsa.triggerEvent('cells', cells)
        return cells[q.row][q.col]

    wsa.register('site', '', '', '', '', {'*': {'root': WEB, 'defpage': 'squares.html'}})
    return wsa


def main() -> None:
    """Start, and say where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--host', default='127.0.0.1', help='the address to listen on (%(default)s)')
    parser.add_argument('--port', default=12909, type=int, help='the port, 0 for any free one (%(default)s)')
    args = parser.parse_args()
    wsa = make_app(args.host, args.port)
    wsa.start()  # nothing comes after it, so the script goes on serving until Ctrl-C
    print(f'{wsa.url}/site/squares.html', flush=True)


if __name__ == '__main__':
    main()
