"""Triggers from a thread that is not the server's: prints how many of them, and the CPU seconds of the process.

Each way encodes the data in the calling thread, hands it to the loop, and keeps it there as the newest of its event;
nobody has subscribed. Each batch is waited for on the loop, except webshoes', whose value is set when the call returns.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

BATCH = 1000  # triggers between two looks at the clock; the loop is to have them all before the next batch
DATA = {'temperature': 72.3, 'ok': True, 'name': 'rig 4', 'at': [1.5, 2.5, 3.5]}


class Values:
    """The newest of each event, on the loop."""

    def __init__(self) -> None:
        self.newest: dict[str, bytes] = {}
        self.count = 0
        self.is_met = threading.Event()

    def keep(self, event: str, data: bytes) -> None:
        """One more came."""
        self.newest[event] = data
        self.count += 1
        if self.count % BATCH == 0:
            self.is_met.set()

    def wait(self) -> None:
        """Until a batch is there."""
        self.is_met.wait()
        self.is_met.clear()


def threadmsg_call() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """threadmsg's `call`, as its README has it."""
    import msgspec
    import threadmsg

    values = Values()

    async def take(ctx: Any) -> None:
        while message := ctx.getMsg():
            await ctx.mapMsgAsync(None, {'keep': values.keep}, message)

    thread = threadmsg.ThreadMsg(take, deffk='_fn')
    encode = msgspec.json.Encoder().encode
    return lambda: thread.call('keep', event='e', data=encode(DATA)), values.wait


def aiohttp_call() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What one writes by hand."""
    import msgspec
    import uvloop

    values, loop = Values(), uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    encode = msgspec.json.Encoder().encode
    return lambda: loop.call_soon_threadsafe(values.keep, 'e', encode(DATA)), values.wait


def webshoes_call() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """`triggerEvent`, of the webshoes that is installed."""
    import webshoes as ws

    wsa = ws.WebShoesApp('127.0.0.1', 0, {})
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {})
    wsa.start()
    number = iter(range(1 << 62))
    return lambda: wsa.triggerEvent('e', {**DATA, 'n': next(number)}), lambda: None


WAYS = {'threadmsg': threadmsg_call, 'aiohttp': aiohttp_call, 'webshoes': webshoes_call, 'webshoes1': webshoes_call}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('way', choices=WAYS)
    parser.add_argument('seconds', type=float)
    args = parser.parse_args()
    trigger, wait = WAYS[args.way]()
    messages, cpu, until = 0, 0.0, 0.0
    while not until or time.perf_counter() < until:
        for _ in range(BATCH):
            trigger()
        wait()
        if not until:  # the first batch warms up
            cpu, until = time.process_time(), time.perf_counter() + args.seconds
        else:
            messages += BATCH
    print(json.dumps({'messages': messages, 'server_cpu': time.process_time() - cpu}), flush=True)
    os._exit(0)  # without waiting for the loops of each way


if __name__ == '__main__':
    main()
