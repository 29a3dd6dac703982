"""webshoes 1.0.0, as its README has it used. Its event loop is its own choice."""

from __future__ import annotations

import argparse
import threading
from typing import Any

import webshoes as ws


def cmdAdd(ctx: Any, q: Any) -> Any:
    """The function that is called."""
    return {'result': int(q.a) + int(q.b)}


def cmdEcho(ctx: Any, q: Any) -> Any:
    """A reply as large as the call."""
    return q.as_dict()


def cmdFire(ctx: Any, q: Any) -> Any:
    """One fan-out; without a result there would be no reply."""
    for left in range(int(q.n) - 1, -1, -1):
        value = {'mark': 'more' if left else 'last', 'text': 'x' * int(q.size), 'left': left}
        ctx.wsa.triggerEvent(q.event, value)
    return {'status': 'fired'}


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('port', type=int)
    parser.add_argument('--functions', type=int, default=0)
    parser.add_argument('--events', type=int, default=0)
    args = parser.parse_args()
    functions = {'add': cmdAdd, 'echo': cmdEcho, 'fire': cmdFire}
    functions.update({f'f{number}': cmdAdd for number in range(args.functions)})
    wsa = ws.WebShoesApp('127.0.0.1', args.port, {'verbose': False})
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', functions)
    for number in range(args.events):
        wsa.triggerEvent(f'e{number}', {'text': 'x' * 100})
    wsa.start()
    threading.Event().wait()
