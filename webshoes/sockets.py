"""Listening sockets: which of them an address stands for, and the file of a Unix domain socket."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

UNIX = 'unix:'
BACKLOG = 1024  # connections that the kernel holds until they are accepted
TRIES = 10  # to find a port that is free on every address


def unix_path(addr: str) -> str | None:
    """Return the path of the Unix domain socket that `addr` names (`unix:/run/rig.sock`), `None` if it names a host.

    Raises:
        ValueError: the path is missing, or this system has no Unix domain sockets.
    """
    if not addr.startswith(UNIX):
        return None
    if not hasattr(socket, 'AF_UNIX'):  # pragma: no cover  # Windows
        raise ValueError(f'addr is {addr!r}, but Python has no Unix domain sockets on this system')
    path = addr.removeprefix(UNIX)
    if not path or '\0' in path:
        raise ValueError(f"addr: a path is needed after 'unix:', as in 'unix:/run/rig.sock', not {addr!r}")
    return os.path.abspath(path)  # noqa: PTH100  # links stay as they are; the program may change its folder later


def url_of(addr: str, port: int, scheme: str) -> str:
    """Return where a program on this machine finds the server that listens there."""
    path = unix_path(addr)
    if path is not None:
        return f'{UNIX}{path}'
    # Every address may lack IPv6, which a system can do without.
    host = '127.0.0.1' if addr == '0.0.0.0' or _is_every_address(addr) else addr  # noqa: S104  # nosec B104
    return f'{scheme}://[{host}]:{port}' if ':' in host else f'{scheme}://{host}:{port}'


def listen(addr: str, port: int) -> list[socket.socket]:
    """Open the sockets of an address; they listen, and nothing is accepted yet.

    Args:
        addr: a host, `''` or `'::'` for every address of IPv4 and IPv6, or `'unix:/path.sock'`.
        port: the port, 0 for one that is free on all of them. A Unix domain socket has none.

    Raises:
        OSError: the address is in use or not ours; the sentence names it.
    """
    path = unix_path(addr)
    if path is not None:
        return [_listen_at(path)]
    host = None if _is_every_address(addr) else addr
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = list(dict.fromkeys((info[0], info[4]) for info in infos))
    for _ in range(TRIES):
        with contextlib.ExitStack() as stack:
            found = _bind_all(places, port, stack)
            if found is not None:
                stack.pop_all()
                return found
    raise OSError(errno.EADDRINUSE, f'no port is free on every address of {addr!r}')  # pragma: no cover  # unlikely


def _is_every_address(addr: str) -> bool:
    """Return whether an address stands for all of IPv4 and IPv6."""
    try:
        return not addr or ipaddress.IPv6Address(addr).is_unspecified
    except ValueError:
        return False


def _bind_all(places: Sequence[tuple[int, Any]], port: int, stack: contextlib.ExitStack) -> list[socket.socket] | None:
    """Listen at each place, on the same port; `None` if a free port of one place is in use at another."""
    found: list[socket.socket] = []
    failure: OSError | None = None
    for family, (host, _, *rest) in places:
        attempt = contextlib.ExitStack()
        try:
            one = attempt.enter_context(socket.socket(family, socket.SOCK_STREAM))
            if os.name == 'posix':  # elsewhere it would let others listen on the same port
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((host, found[0].getsockname()[1] if found else port, *rest))
            one.listen(BACKLOG)
        except OSError as exc:
            attempt.close()
            if exc.errno == errno.EADDRINUSE and found and not port:
                return None
            text = f'cannot listen on {host} port {port}: {os.strerror(exc.errno or 0)}'
            failure = OSError(exc.errno, text)
            if exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise failure from None
        else:
            found.append(stack.enter_context(one))
    if not found and failure is not None:
        raise failure
    return found


def _listen_at(path: str) -> socket.socket:
    """Listen at a path. A socket's file that nobody listens at any more is replaced, any other file stays."""
    with _alone_in(os.path.dirname(path)), contextlib.ExitStack() as stack:  # noqa: PTH120  # see unix_path
        _clear(path)
        one = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            one.bind(path)
        except OSError as exc:
            raise OSError(exc.errno, f'cannot listen at {path}: {exc.strerror or exc}') from None
        one.listen(BACKLOG)
        stack.pop_all()
        return one


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Hold a lock on a folder, so that no two programs find the same stale file and replace each other's."""
    import fcntl

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a folder that may not be read, a file system without locks
            number = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, number)
            fcntl.flock(number, fcntl.LOCK_EX)
        yield


def _clear(path: str) -> None:
    """Remove the file of a socket that nobody listens at.

    Raises:
        OSError: somebody listens there, or it is another kind of file.
    """
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, f'cannot listen at {path}: there is a file that is no socket; it is left alone')
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is a sign of life, too
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, f'cannot listen at {path}: Address already in use, another server listens there')


class SocketFile:
    """The file of a listening Unix domain socket, which has to be removed when nobody listens any more.

    Args:
        path: where it is.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = self._look()

    def remove(self) -> None:
        """Remove the file, unless another has taken its place."""
        if self._identity is not None and self._look() == self._identity:
            Path(self._path).unlink(missing_ok=True)

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino
