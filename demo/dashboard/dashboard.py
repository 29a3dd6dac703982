#!/usr/bin/env python3
"""A training run that is busy with its own work, watched and steered live.

The loop at the end is the program; the server runs beside it, on a thread of its own.
"""

import argparse
import asyncio
import math
import random
import time
from pathlib import Path
from typing import Annotated

import msgspec

import webshoes as ws

WEB = Path(__file__).resolve().parent / 'web'
POINTS = [i / 32 - 1 for i in range(65)]


class Rate(msgspec.Struct):
    """How fast the network learns."""

    rate: Annotated[float, msgspec.Meta(gt=0, le=1)]


class Network:
    """One hidden layer of tanh, learning a noisy curve one point after another, in plain Python."""

    def __init__(self, hidden: int = 12) -> None:
        self.rate = 0.05
        self.step = 0
        self.target = [math.sin(4 * x) * (1 - 0.4 * x) + random.gauss(0, 0.08) for x in POINTS]
        self.reset(hidden)

    def reset(self, hidden: int = 12) -> None:
        """Forget all that was learned."""
        self.step = 0
        self.units = [[random.uniform(-4, 4), random.uniform(-2, 2), random.uniform(-0.5, 0.5)] for _ in range(hidden)]

    def predict(self, x: float) -> float:
        """What it says of a point."""
        return sum(out * math.tanh(weight * x + bias) for weight, bias, out in self.units)

    def learn(self) -> float:
        """Go over all points once; the mean squared error before."""
        total = 0.0
        for x, y in random.sample(list(zip(POINTS, self.target, strict=True)), len(POINTS)):
            error = self.predict(x) - y
            total += error * error
            for unit in self.units:
                weight, bias, out = unit
                lit = math.tanh(weight * x + bias)
                slope = self.rate * error * out * (1 - lit * lit)
                unit[:] = weight - slope * x, bias - slope, out - self.rate * error * lit
        self.step += 1
        return total / len(POINTS)


def make_app(host: str, port: int, network: Network) -> ws.WebShoesApp:
    """The app, not started."""
    wsa = ws.WebShoesApp(host, port)
    wsa.event('step', history=100)  # enough to fill a short gap; older steps are declared as gone

    @wsa.command('train/target')
    def target(ctx: ws.Context, q: object) -> dict[str, object]:
        return {'x': POINTS, 'y': network.target, 'rate': network.rate}

    @wsa.command('train/rate')
    def set_rate(ctx: ws.Context, q: Rate) -> float:
        network.rate = q.rate
        return network.rate

    @wsa.command('train/reset')
    def reset(ctx: ws.Context, q: object) -> None:
        network.reset()

    @wsa.command('train/nap')
    async def nap(ctx: ws.Context, q: object) -> None:
        await asyncio.sleep(5)  # what the stalled client waits for, taking nothing meanwhile

    wsa.register('site', '', '', '', '', {'*': {'root': WEB, 'defpage': 'dashboard.html'}})
    return wsa


def main() -> None:
    """Train until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--host', default='127.0.0.1', help='the address to listen on (%(default)s)')
    parser.add_argument('--port', default=12911, type=int, help='the port, 0 for any free one (%(default)s)')
    args = parser.parse_args()
    network = Network()
    with make_app(args.host, args.port, network) as wsa:
        print(f'{wsa.url}/site/dashboard.html', flush=True)
        due = 0.0
        while True:
            loss = network.learn()
            if time.monotonic() > due:  # a hundred times a second is more than anybody sees
                due = time.monotonic() + 0.01
                curve = [network.predict(x) for x in POINTS]
                wsa.triggerEvent('step', {'step': network.step, 'loss': loss, 'curve': curve})


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        print('stopped')
