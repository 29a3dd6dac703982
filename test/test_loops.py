"""The turns of a loop, at whose end is sent what was answered in them."""

from __future__ import annotations

import asyncio

from webshoes.loops import MANY, Turn

from .faces import run_apart


class Sender:
    """Who notes when it is flushed."""

    def __init__(self, flushed: list[Sender]) -> None:
        self.flushed = flushed

    def flush(self) -> None:
        self.flushed.append(self)


def test_few_send_at_once() -> None:
    """Who is among few in a turn sends at once, and at the end of it what has come to be sent since."""

    async def run() -> None:
        turn, flushed = Turn(), list[Sender]()
        one, other, third = Sender(flushed), Sender(flushed), Sender(flushed)
        for _ in range(2):
            assert not turn.defer(one)
            assert not turn.defer(other)
            assert turn.defer(other)
            assert turn.defer(third)
            assert flushed == []
            await asyncio.sleep(0)
            assert flushed == [other, third]
            flushed.clear()

    run_apart(run())


def test_many_send_together() -> None:
    """Where many answered in the last turn, all wait for the end of this one; after one with few, nobody does."""

    async def run() -> None:
        turn, flushed = Turn(), list[Sender]()
        senders = [Sender(flushed) for _ in range(MANY)]
        for is_deferred, count in ((False, MANY), (True, MANY), (True, MANY - 1), (False, 1)):
            assert [turn.defer(sender) for sender in senders[:count]] == [is_deferred] * count
            await asyncio.sleep(0)
            assert flushed == (senders[:count] if is_deferred else [])
            flushed.clear()

    run_apart(run())


def test_end_of_a_turn_is_told() -> None:
    """What is to happen at the end of a turn does, whether anybody has waited for it or not."""

    async def run() -> None:
        flushed: list[Sender] = []
        ends: list[list[Sender]] = []
        turn, sender = Turn(lambda: ends.append([*flushed])), Sender(flushed)
        for _ in range(2):
            turn.defer(sender)
        await asyncio.sleep(0)
        assert ends == [[sender]]
        turn.defer(sender)
        await asyncio.sleep(0)
        assert len(ends) == 2

    run_apart(run())
