"""Tests without sockets are run all the time, and are to be quick."""

import gc

import pytest


@pytest.fixture(scope='session')
def logger_as_it_was() -> None:
    """There is no app here that could change it."""


def pytest_collection_finish() -> None:
    """Have the garbage collector not look through all that was imported again and again."""
    gc.freeze()
