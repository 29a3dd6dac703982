"""The server that is fuzzed: it tells its port, and for each line that it reads, how it stands.

`collect` has its garbage collected before.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import webshoes as ws

FAILS = "'fuzz/fail' failed"  # which is the handler's own


class Errors(logging.Handler):
    """Keeps what is logged as an error and is none of a handler's own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        line = record.getMessage()
        if not line.startswith(FAILS):
            self.lines.append(f'{record.name}: {line} {record.exc_info[1]!r}' if record.exc_info else line)


def echo(ctx: ws.Context, q: Any) -> Any:
    return q if ctx.method == 'WS' else str(q.as_dict())  # there may be files


def fail(ctx: ws.Context, q: Any) -> None:
    raise ValueError('on purpose')


async def wait(ctx: ws.Context, q: Any) -> str:
    await asyncio.sleep(0.001)
    return 'waited'


@ws.threaded
def thread(ctx: ws.Context, q: Any) -> str:
    return 'of a thread'


def trigger(ctx: ws.Context, q: Any) -> int:
    return ctx.wsa.triggerEvent('heat', 'x' * 100).result()  # type: ignore[no-any-return]


async def tasks(ctx: ws.Context, q: Any) -> int:
    gc.collect()
    return len(asyncio.all_tasks())


def resident() -> int:
    """The memory of this process in KiB."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmRSS'))


def main() -> None:
    """Serve, on the loop that is asked for, until there are no more lines."""
    warnings.simplefilter('ignore')  # aiohttp's, of headers that are odd
    errors = Errors()
    logging.getLogger().addHandler(errors)
    logging.getLogger('webshoes').addHandler(logging.NullHandler())
    limits = ws.Limits(header_timeout=2.0, body_timeout=2.0, slow_handler=None, max_ws_msg_size=100_000)
    wsa = ws.WebShoesApp('127.0.0.1', 0, limits=limits, loop=sys.argv[1])  # type: ignore[arg-type]
    fm = {'echo': echo, 'fail': fail, 'wait': wait, 'thread': thread, 'trigger': trigger, 'tasks': tasks}
    wsa.register('fuzz', 'cmd', 'q', 'evt', 'r', fm)
    with wsa:
        print(wsa.port, flush=True)
        for line in sys.stdin:
            if line.strip() == 'collect':
                gc.collect()
            state = {
                'rss': resident(),
                'blocks': sys.getallocatedblocks(),
                'connections': len(wsa.connections),
                'errors': errors.lines[:10],
            }
            print(json.dumps(state), flush=True)


if __name__ == '__main__':
    main()
