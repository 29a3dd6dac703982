#!/usr/bin/env python3
"""A canvas of 500 x 500 that everybody who looks at it draws on together."""

import argparse
from pathlib import Path
from typing import Annotated, Any

import msgspec

import webshoes as ws

SIZE = 500
MAX_POINTS = 1_000_000  # what the drawing may hold; a demo that is left open overnight should not fill the machine
WEB = Path(__file__).resolve().parent / 'web'

Coordinate = Annotated[float, msgspec.Meta(ge=-SIZE, le=2 * SIZE)]


class Piece(msgspec.Struct):
    """A piece of a stroke, sent while it is drawn: points are x, y, x, y, ..."""

    stroke: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    color: Annotated[str, msgspec.Meta(pattern='^#[0-9a-fA-F]{6}$')]
    width: Annotated[float, msgspec.Meta(gt=0, le=100)]
    points: Annotated[list[Coordinate], msgspec.Meta(min_length=2, max_length=4000)]
    at: Annotated[int, msgspec.Meta(ge=0)]  # how many numbers the stroke has before it, so that a repeat is known
    erase: bool = False


class Drawing:
    """All strokes, in the order they were begun."""

    def __init__(self) -> None:
        self.strokes: dict[str, Piece] = {}
        self.points = 0

    def add(self, piece: Piece) -> bool:
        """Add a piece to its stroke, or begin one; whether it is new."""
        stroke = self.strokes.get(piece.stroke)
        if stroke is not None and piece.at < len(stroke.points):
            return False
        if self.points + len(piece.points) > 2 * MAX_POINTS:
            raise ws.Error(429, 'The canvas is full: clear it to go on')
        self.points += len(piece.points)
        if stroke is None:
            self.strokes[piece.stroke] = piece
        else:
            stroke.points.extend(piece.points)
        return True

    def clear(self) -> None:
        """Begin anew."""
        self.strokes.clear()
        self.points = 0


def make_app(host: str, port: int) -> ws.WebShoesApp:
    """The app, not started."""
    drawing = Drawing()
    wsa = ws.WebShoesApp(host, port)

    @wsa.command('canvas/drawing')
    def all_strokes(ctx: ws.Context, q: Any) -> dict[str, Any]:
        position = wsa.event('canvas')  # first the position, then the state: nothing falls in between
        return {'ver': position.ver, 'epoch': position.epoch, 'strokes': list(drawing.strokes.values())}

    @wsa.command('canvas/draw')
    @ws.methods('POST')
    def draw(ctx: ws.Context, q: Piece) -> None:
        if drawing.add(q):
            wsa.triggerEvent('canvas', {'piece': q, 'strokes': len(drawing.strokes)})

    @wsa.command('canvas/clear')
    @ws.methods('POST')
    def clear(ctx: ws.Context, q: Any) -> None:
        drawing.clear()
        wsa.triggerEvent('canvas', {'clear': True, 'strokes': 0})

    wsa.register('site', '', '', '', '', {'*': {'root': WEB, 'defpage': 'canvas.html'}})
    return wsa


def main() -> None:
    """Start, and say where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--host', default='127.0.0.1', help='the address to listen on (%(default)s)')
    parser.add_argument('--port', default=12910, type=int, help='the port, 0 for any free one (%(default)s)')
    args = parser.parse_args()
    wsa = make_app(args.host, args.port)
    wsa.start()  # nothing comes after it, so the script goes on serving until Ctrl-C
    print(f'{wsa.url}/site/canvas.html', flush=True)


if __name__ == '__main__':
    main()
