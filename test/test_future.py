"""The future that a trigger gives, whose inside is made when it is first asked for."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import pytest

from webshoes.future import LazyFuture

from .conftest import TIMEOUT


def test_done_before_it_is_asked() -> None:
    """It has its result, and waiting for it ends at once."""
    future = LazyFuture()
    future.resolve(7)
    assert (future.done(), future.result(0), future.exception(0)) == (True, 7, None)
    assert wait([future], TIMEOUT).done == {future}


def test_asked_before_it_is_done() -> None:
    """Who waits for it is told, be it by a callback or in another thread."""
    future, told = LazyFuture(), list[int]()
    future.add_done_callback(lambda done: told.append(done.result()))
    waiter = threading.Thread(target=lambda: told.append(future.result(TIMEOUT)))
    waiter.start()
    assert not future.done()
    future.resolve(7)
    waiter.join(TIMEOUT)
    assert told == [7, 7]


def test_what_a_future_has_not() -> None:
    """An attribute that there is not is none, before it is made and after."""
    for _ in range(2):
        future = LazyFuture()
        with pytest.raises(AttributeError, match='nothing'):
            _ = future.nothing
        with pytest.raises(AttributeError, match='nothing'):
            _ = future.nothing
