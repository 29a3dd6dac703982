"""webshoes, as this checkout has it."""

from __future__ import annotations

from typing import Any

from shared import add, arguments, echo, news

import webshoes as ws


def cmdAdd(ctx: ws.Context, q: Any) -> Any:
    """The function that is called."""
    return add(q)


def cmdEcho(ctx: ws.Context, q: Any) -> Any:
    """A reply as large as the call."""
    return echo(q)


def cmdFire(ctx: ws.Context, q: Any) -> None:
    """One fan-out."""
    for value in news(q):
        ctx.wsa.triggerEvent(q.event, value)


if __name__ == '__main__':
    args = arguments()
    functions = {'add': cmdAdd, 'echo': cmdEcho, 'fire': cmdFire}
    functions.update({f'f{number}': cmdAdd for number in range(args.functions)})
    wsa = ws.WebShoesApp('127.0.0.1', args.port, loop=args.loop, limits=ws.Limits(max_connections=None))
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', functions)
    for number in range(args.events):
        wsa.triggerEvent(f'e{number}', {'text': 'x' * 100})
    wsa.run()
