"""Tests without sockets are run all the time, and are to be quick."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from .driver import DRIVERS
from .house import House, Peer


@pytest.fixture(scope='session')
def logger_as_it_was() -> None:
    """There is no app here that could change it."""


@pytest.fixture(autouse=True)
def drivers_end() -> Iterator[None]:
    """End what a test left running."""
    yield
    while DRIVERS:
        DRIVERS.pop().end()


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def peer(house: House) -> Peer:
    return Peer(house)


def pytest_collection_finish() -> None:
    """Have the garbage collector not look through all that was imported again and again."""
    gc.freeze()
