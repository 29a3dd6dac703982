"""Tests without sockets are run all the time, and are to be quick."""

import gc


def pytest_collection_finish() -> None:
    """Have the garbage collector not look through all that was imported again and again."""
    gc.freeze()
