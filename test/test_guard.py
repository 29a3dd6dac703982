"""What the guard remembers, which is bounded."""

from __future__ import annotations

import asyncio
import time

import webshoes as ws
from webshoes.core.access import Access, Asking
from webshoes.core.dispatch import Dispatcher
from webshoes.core.meter import Meter
from webshoes.guard import REMEMBERED, Guard
from webshoes.log import Journal


def test_hosts_that_are_made_up_take_the_short_way_from_nobody() -> None:
    """Past so many hosts all are forgotten; one that asks again is known again, and others are not."""
    journal = Journal(time.monotonic)
    dispatcher = Dispatcher(
        clock=time.monotonic, in_thread=asyncio.to_thread, on_failure=journal.failure, on_slow=journal.slow, slow=None
    )
    guard = Guard(Access((), None, is_loopback=True), None, frozenset(), dispatcher, Meter(ws.Limits()), journal)
    for number in range(REMEMBERED):
        guard.check_host(Asking(f'localhost:{number}'))
    assert guard.passes({'Host': 'localhost:0'})
    guard.check_host(Asking('localhost:5000'))
    assert [guard.passes({'Host': f'localhost:{port}'}) for port in (0, 1, 5000)] == [False, False, True]
    guard.check_host(Asking('localhost:0'))
    assert [guard.passes({'Host': f'localhost:{port}'}) for port in (0, 1, 5000)] == [True, False, True]
