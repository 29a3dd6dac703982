"""Threads for work that blocks."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from test.conftest import TIMEOUT
from webshoes.pool import NO_LATE_THREADS, DaemonPool

from .faces import run_apart

variable: contextvars.ContextVar[str] = contextvars.ContextVar('variable', default='none')


@pytest.fixture
def pool() -> Iterator[DaemonPool]:
    """A pool of at most two threads, all of them gone after the test."""
    pool = DaemonPool(2, 'worker')
    yield pool
    pool.shutdown()
    for thread in members(pool):
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def members(pool: DaemonPool) -> list[threading.Thread]:
    """The threads of a pool."""
    return [thread for thread in threading.enumerate() if pool.is_member(thread)]


class Gate:
    """Work that holds on until it is let through."""

    def __init__(self) -> None:
        self.entered: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
        self.open = threading.Event()

    def __call__(self) -> threading.Thread:
        self.entered.put(threading.current_thread())
        assert self.open.wait(TIMEOUT)
        return threading.current_thread()


def test_work_is_done_in_a_daemon_thread_of_the_pool(pool: DaemonPool) -> None:
    """Work runs in a thread that does not hold up the program's end and bears the pool's name."""
    thread = pool.submit(threading.current_thread).result(TIMEOUT)
    assert pool.is_member(thread)
    assert thread.daemon
    assert thread.name == 'worker'


def test_arguments_and_result(pool: DaemonPool) -> None:
    """Arguments arrive as given, keywords too, and the future has what the function returned."""
    assert pool.submit(divmod, 7, 2).result(TIMEOUT) == (3, 1)
    assert pool.submit(int, 'ff', base=16).result(TIMEOUT) == 255


@pytest.mark.parametrize('raised', [ValueError, SystemExit, KeyboardInterrupt])
def test_an_exception_is_the_futures(pool: DaemonPool, raised: type[BaseException]) -> None:
    """Whatever work raises, its future raises, and the pool works on."""

    def fail() -> None:
        raise raised

    for _ in range(3):
        assert isinstance(pool.submit(fail).exception(TIMEOUT), raised)
    assert pool.submit(int).result(TIMEOUT) == 0


@pytest.mark.parametrize('raised', [StopIteration, GeneratorExit])
def test_what_asyncio_takes_for_its_own(pool: DaemonPool, raised: type[BaseException]) -> None:
    """StopIteration and GeneratorExit, which asyncio takes for something of its own, end the wait as RuntimeError."""

    def fail() -> None:
        raise raised

    async def main() -> None:
        await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(pool, fail), TIMEOUT)

    with pytest.raises(RuntimeError, match=raised.__name__):
        run_apart(main())


def test_work_sees_the_context_of_who_submits(pool: DaemonPool) -> None:
    """Context variables have the submitter's values, and what work sets stays with it."""

    def work() -> str:
        before = variable.get()
        variable.set('changed')
        return before

    token = variable.set('mine')
    assert [pool.submit(work).result(TIMEOUT) for _ in range(2)] == ['mine', 'mine']
    variable.reset(token)


def test_no_thread_before_there_is_work(pool: DaemonPool) -> None:
    """A pool that was never used has no thread, unless this Python would give none later."""
    assert len(members(pool)) == (2 if NO_LATE_THREADS else 0)


def test_at_most_so_many_threads(pool: DaemonPool) -> None:
    """What is more than the threads waits, and is done in the end."""
    gate = Gate()
    futures = [pool.submit(gate) for _ in range(5)]
    running = {gate.entered.get(timeout=TIMEOUT) for _ in range(2)}
    assert set(members(pool)) == running
    assert len(running) == 2
    gate.open.set()
    assert {future.result(TIMEOUT) for future in futures} == running


def test_an_idle_thread_takes_the_next_work(pool: DaemonPool) -> None:
    """Work that comes one after another is done by no more threads than worked at once."""
    for _ in range(50):
        pool.submit(int).result(TIMEOUT)
    assert len(members(pool)) <= 2


def test_a_busy_thread_holds_up_no_other_work(pool: DaemonPool) -> None:
    """While one thread is busy another does what comes."""
    gate = Gate()
    pool.submit(gate)
    for _ in range(20):
        assert pool.submit(int).result(TIMEOUT) == 0
    gate.open.set()


def test_cancelled_work_never_runs(pool: DaemonPool) -> None:
    """Work that is cancelled while it waits is left out, and what comes after it is done."""
    gate = Gate()
    busy = [pool.submit(gate) for _ in range(2)]
    ran: list[int] = []
    left_out, after = pool.submit(ran.append, 1), pool.submit(ran.append, 2)
    assert left_out.cancel()
    gate.open.set()
    after.result(TIMEOUT)
    assert ran == [2]
    assert all(future.result(TIMEOUT) for future in busy)


def test_cancelled_work_lets_go_of_its_arguments(pool: DaemonPool) -> None:
    """Work that is cancelled while it waits holds on to nothing, though no thread has come to it yet."""
    gate, thing = Gate(), threading.Event()
    busy = [pool.submit(gate) for _ in range(2)]
    future, held = pool.submit(thing.wait), weakref.ref(thing)
    assert future.cancel()
    del thing
    assert held() is None
    gate.open.set()
    assert all(future.result(TIMEOUT) for future in busy)


def test_no_work_after_shutdown(pool: DaemonPool) -> None:
    """A pool that was shut down refuses work, however often it was."""
    pool.shutdown()
    pool.shutdown()
    with pytest.raises(RuntimeError, match='shut down'):
        pool.submit(int)


@pytest.mark.parametrize('wait', [False, True])
def test_shutdown_does_not_wait(pool: DaemonPool, wait: bool) -> None:
    """`shutdown` returns while work runs, even when asked to wait: work may have no end."""
    gate = Gate()
    future = pool.submit(gate)
    pool.shutdown(wait=wait)
    assert not future.done()
    gate.open.set()
    future.result(TIMEOUT)


def test_what_was_accepted_is_done_after_shutdown(pool: DaemonPool) -> None:
    """Work that was accepted before `shutdown` is done, and then the threads end."""
    gate = Gate()
    futures = [pool.submit(gate) for _ in range(4)]
    pool.shutdown()
    gate.open.set()
    assert all(future.result(TIMEOUT) for future in futures)


def test_many_threads_submit(pool: DaemonPool) -> None:
    """Submitting from many threads at once loses nothing and makes no thread too many."""
    results: queue.SimpleQueue[int] = queue.SimpleQueue()

    def submit() -> None:
        for number in range(100):
            results.put(pool.submit(abs, number).result(TIMEOUT))

    run_all([submit] * 8)
    assert sorted(results.get_nowait() for _ in range(800)) == sorted(list(range(100)) * 8)
    assert len(members(pool)) == 2


def run_all(functions: list[Callable[[], Any]]) -> None:
    """Run functions in threads of their own, all to their end."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)


def test_others_are_no_members(pool: DaemonPool) -> None:
    """The thread that submits is no member, nor is one of another pool."""
    other = DaemonPool(1, 'other')
    thread = other.submit(threading.current_thread).result(TIMEOUT)
    assert not pool.is_member(thread)
    assert not pool.is_member(threading.current_thread())
    other.shutdown()
