"""What one WebSocket call costs, in functions, calls and bytecodes: the same in each run, whatever the machine does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from threading import get_ident
from types import CodeType, FrameType
from typing import Any

import pytest

from .conftest import OpenPeer, Serve
from .faces import frame

CALL = {'cmd': 'cmd/add', 'tid': 7, 'q': {'a': 1, 'b': 2}}
TOOL = 4  # of those that `sys.monitoring` leaves to anybody
BUDGET = {
    (3, 11): {'uvloop': (25, 54, 814), 'asyncio': (28, 60, 864)},
    (3, 12): {'uvloop': (25, 54, 759), 'asyncio': (28, 60, 809)},
    (3, 13): {'uvloop': (25, 54, 782), 'asyncio': (28, 60, 838)},
}  # Python's functions, all calls, bytecodes; from the bytes of a frame to those of the answer


def calls(act: Callable[[], None]) -> tuple[int, int]:
    """Python's functions that run in an act on this thread, and all calls."""
    events: list[str] = []
    sys.setprofile(lambda frame, event, arg: events.append(event))
    act()
    sys.setprofile(None)
    return events.count('call'), events.count('call') + events.count('c_call')


def bytecodes(act: Callable[[], None]) -> int:
    """Bytecodes that run in an act on this thread."""
    count, thread = 0, get_ident()
    if sys.version_info >= (3, 12):
        monitoring, instruction = sys.monitoring, sys.monitoring.events.INSTRUCTION

        def step(code: CodeType, offset: int) -> None:
            nonlocal count
            count += get_ident() == thread

        monitoring.use_tool_id(TOOL, 'budget')
        monitoring.register_callback(TOOL, instruction, step)
        monitoring.set_events(TOOL, instruction)
        act()
        monitoring.set_events(TOOL, 0)
        monitoring.free_tool_id(TOOL)
        return count

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == 'opcode'
        return trace

    tracer = sys.gettrace()  # which is coverage's
    sys.settrace(trace)
    act()
    sys.settrace(tracer)
    return count


def measure(protocol: Any, peer: Any) -> tuple[int, int, int]:
    """What one call costs, when it was made a few times before."""
    data = frame(CALL)

    def act() -> None:
        protocol.data_received(data)
        peer.flush()

    for _ in range(20):
        act()
    return *calls(act), bytecodes(act)


@pytest.mark.parametrize('loop', ['uvloop', 'asyncio'])
def test_a_call_costs_no_more_than_it_did(serve: Serve, open_peer: OpenPeer, loop: str) -> None:
    """A WebSocket call takes as many functions, calls and bytecodes as its budget has, or fewer."""
    found: list[Any] = []

    async def meet(ctx: Any, q: Any) -> list[int]:
        protocol, peer = ctx.req.protocol, ctx.conn._link
        asyncio.get_running_loop().call_soon(lambda: found.append(measure(protocol, peer)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return list(found[0])

    wsa = serve({'add': lambda ctx, q: {'sum': q.a + q.b}, 'meet': meet}, loop=loop)
    peer = open_peer(wsa)
    peer.send({'cmd': 'cmd/meet', 'tid': 1})
    cost = next(answer['r'] for answer in iter(peer.receive, None) if answer['tid'] == 1)
    ceiling = BUDGET[sys.version_info[:2]][loop]
    assert all(now <= then for now, then in zip(cost, ceiling, strict=True)), (cost, ceiling)
