"""Forked children: a child process lets go of the sockets and locks that it inherits from the servers of its parent.

`os.fork` copies the memory and the descriptors of a process, but only the thread that calls it. So a child has the
objects of each server without its thread, locks that nobody will release, and a second descriptor of each connection.
As long as that is open, no client sees the end of a connection and the port stays in use. What the child does here,
right after the fork, changes nothing for the parent and its peers: no loop and no connection is asked to do anything.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

Heir = TypeVar('Heir')

DESCRIPTORS = '/dev/fd'  # this process's descriptors; on Linux a link to /proc/self/fd

EVERY_ADDRESS = ('0.0.0.0', '::')  # noqa: S104  # nosec B104

_addresses: dict[object, list[Any]] = {}  # that sockets listen on


_heirs: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def in_child(forget: Callable[[], None]) -> None:
    """Have a function called in each child, right after the fork."""
    if hasattr(os, 'register_at_fork'):  # pragma: no branch  # all but Windows
        os.register_at_fork(after_in_child=forget)


def around(before: Callable[[], None], in_parent: Callable[[], None]) -> None:
    """Have functions called in the parent, right before and right after each fork."""
    if hasattr(os, 'register_at_fork'):  # pragma: no branch  # all but Windows
        os.register_at_fork(before=before, after_in_parent=in_parent)


def add(heir: Heir, leave: Callable[[Heir], None]) -> None:
    """Have `leave(heir)` called in each child, as long as the object lives: it lets go of what a child must not use."""
    _heirs[heir] = leave


def note_sockets(owner: object, listening: Iterable[socket.socket]) -> None:
    """Note where an owner listens: children let go of these sockets, and of all connections that come in by them."""
    _addresses[owner] = [one.getsockname() for one in listening]


def forget_sockets(owner: object) -> None:
    """Note that an owner listens no more, and has no connection left."""
    _addresses.pop(owner, None)


def _leave_all() -> None:
    if _addresses:
        with contextlib.suppress(OSError):
            _close_sockets([address for addresses in _addresses.values() for address in addresses])
        _addresses.clear()
    for heir, leave in list(_heirs.items()):
        leave(heir)


def _close_sockets(addresses: list[Any]) -> None:
    """Let go of all sockets with one of these addresses on this end.

    The descriptors are not closed but lead to the null device: Python objects still hold their numbers, and would later
    close whatever has got the same number by then.
    """
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for number in sorted(int(entry.name) for entry in Path(DESCRIPTORS).iterdir()):
            with contextlib.suppress(OSError):  # the descriptor of the folder itself
                if stat.S_ISSOCK(os.fstat(number).st_mode) and _is_one_of(_address_of(number), addresses):
                    os.dup2(null, number, inheritable=False)
    finally:
        os.close(null)


def _address_of(number: int) -> Any:
    found = socket.socket(fileno=number)
    try:
        return found.getsockname()
    finally:
        found.detach()


def _is_one_of(address: Any, addresses: list[Any]) -> bool:
    if not isinstance(address, tuple):
        return address in addresses
    hosts = (address[0], *EVERY_ADDRESS)
    return any(one[1] == address[1] and one[0] in hosts for one in addresses if isinstance(one, tuple))


in_child(_leave_all)
