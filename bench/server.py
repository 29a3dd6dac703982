"""One server under load: its process, its CPU time, its memory."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from peers import Peer

SERVERS = Path(__file__).resolve().parent / 'servers'
PATIENCE = 60.0  # seconds for a server to listen; 100,000 events take a while


def pin(core: int | None) -> None:
    """Keep this process on one core, where there are several, and let it have many connections."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port: int = probe.getsockname()[1]
        return port


class ServerError(Exception):
    """It did not come up, or went."""


class Server:
    """A running server.

    Args:
        peer: which.
        python: the interpreter of its environment.
        core: where it runs; `None` for anywhere.
        log: where what it says goes.
        options: of its command line.
    """

    def __init__(self, peer: Peer, python: Path, core: int | None, log: IO[bytes], options: Sequence[str] = ()) -> None:
        self.peer = peer
        self.port = free_port()
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [python, SERVERS / peer.script, str(self.port), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: pin(core),
        )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        while self.elapsed < PATIENCE:
            if self.process.poll() is not None:
                raise ServerError(f'{self.peer.name} ended with code {self.process.returncode}')
            with contextlib.suppress(OSError):
                socket.create_connection(('127.0.0.1', self.port)).close()
                return
            time.sleep(0.005)
        raise ServerError(f'{self.peer.name} does not listen')

    @property
    def cpu(self) -> float:
        """CPU seconds of the process so far, by the clock that Linux has for every process."""
        return time.clock_gettime(~self.process.pid << 3 | 2)

    @property
    def memory(self) -> int:
        """Bytes of memory that are its own."""
        for line in Path(f'/proc/{self.process.pid}/status').read_text().splitlines():
            if line.startswith('RssAnon:'):
                return int(line.split()[1]) * 1024
        raise ServerError(f'{self.peer.name} is gone')

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.perf_counter() - self.started

    def settle(self) -> None:
        """Wait until it has done with the connections of the last load."""
        for _ in range(100):
            before = self.cpu
            time.sleep(0.02)
            if self.cpu - before < 0.001:
                return

    def ask(self, path: str, body: str | None = None, kind: str = '') -> str:
        """The answer of one request of HTTP."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request('POST' if body else 'GET', path, body, {'Content-Type': kind} if body else {})
            return connection.getresponse().read().decode()

    def stop(self) -> None:
        """End it, at once: how it says goodbye is not measured."""
        self.process.kill()
        self.process.wait()
