"""The load: `load.c`, or `load_asyncio.py` where there is no compiler; and wrk for HTTP where it is installed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from server import Server, pin

HERE = Path(__file__).resolve().parent
HTTP_CONNECTIONS = 32
FOREVER = 1e6  # seconds
PATIENCE = 120.0  # seconds that a window may take longer than it is told to


class LoadError(Exception):
    """The load could not do its work; the reason is told."""


class Load:
    """Makes load.

    Args:
        folder: for the compiled program.
        core: where it runs; `None` for anywhere.
    """

    def __init__(self, folder: Path, core: int | None) -> None:
        self._core = core
        self._folder = Path(tempfile.mkdtemp(prefix='bench'))
        self._wrk = shutil.which('wrk')
        compiler = shutil.which('cc') or shutil.which('gcc') or shutil.which('clang')
        if compiler:
            program = folder / 'load'
            subprocess.run([compiler, '-O2', '-o', program, HERE / 'load.c', '-lm'], check=True)
            self._command = [str(program)]
        else:
            self._command = [sys.executable, str(HERE / 'load_asyncio.py')]
        self.describe = f'HTTP by {"wrk" if self._wrk else "the program of WebSocket"}; WebSocket by ' + (
            'load.c' if compiler else 'load_asyncio.py, as no C compiler is here: it may be the bottleneck'
        )

    def close(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._folder)

    def _arguments(self, server: Server, mode: str, lines: Sequence[str], numbers: Sequence[float]) -> list[str]:
        script = self._folder / f'{mode}.{time.monotonic_ns()}'
        script.write_text(
            '\n'.join([f'hello\t{line}' for line in server.peer.dialect.hello] * (mode != 'http') + [*lines]) + '\n'
        )
        connections, warm, seconds, rate = numbers
        tail = [str(connections), str(warm), str(seconds), str(server.process.pid), str(rate)]
        return [*self._command, str(server.port), server.peer.path, mode, str(script), *tail]

    def run(
        self,
        server: Server,
        mode: str,
        lines: Sequence[str],
        connections: int,
        warm: float,
        seconds: float,
        rate: float = 0,
    ) -> dict[str, float]:
        """What `load.c` tells of one window, as it is told at its head.

        Raises:
            LoadError: the server closed a connection, did not answer, or answered with errors.
        """
        command = self._arguments(server, mode, lines, (connections, warm, seconds, rate))
        with self._start(command) as process:
            return what_it_told(process, warm + seconds + PATIENCE)

    @contextlib.contextmanager
    def hold(
        self, server: Server, lines: Sequence[str], connections: int, mode: str = 'hold'
    ) -> Iterator[Callable[[], dict[str, float]]]:
        """Idle connections, or with mode `fan` a fan-out without end, as long as the block lasts.

        The block gets a function that ends a fan-out, and returns what it tells.

        Raises:
            LoadError: they were not all there until the end.
        """

        def end() -> dict[str, float]:
            process.terminate()
            return what_it_told(process, PATIENCE)

        with self._start(self._arguments(server, mode, lines, (connections, 0, FOREVER, 0)), nice=19) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            if said != 'ready\n':
                raise LoadError(said or 'the load ended')
            yield end
            if process.poll():
                raise LoadError(process.stdout.read() or 'the load ended')

    @contextlib.contextmanager
    def _start(self, command: Sequence[str], nice: int = 0) -> Iterator[subprocess.Popen[str]]:
        def prepare() -> None:
            pin(self._core)
            os.nice(nice)

        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=prepare
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def http(self, server: Server, is_post: bool, warm: float, seconds: float) -> dict[str, float]:
        """Requests over connections that are kept, one in flight on each."""
        kind, body = server.peer.post
        if self._wrk:
            return self._run_wrk(self._wrk, server, is_post, warm, seconds)
        head = f'HTTP/1.1\\r\\nHost: 127.0.0.1:{server.port}\\r\\n'
        line = f'call\tGET /cmd/add?a=1&b=2 {head}\\r\\n'
        if is_post:
            line = f'call\tPOST /cmd/add {head}Content-Type: {kind}\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}'
        return self.run(server, 'http', [line], HTTP_CONNECTIONS, warm, seconds)

    def _run_wrk(self, wrk: str, server: Server, is_post: bool, warm: float, seconds: float) -> dict[str, float]:
        command = [wrk, '-t1', f'-c{HTTP_CONNECTIONS}', '-d600s', f'http://127.0.0.1:{server.port}/cmd/add?a=1&b=2']
        if is_post:
            kind, body = server.peer.post
            script = self._folder / 'post.lua'
            script.write_text(f"wrk.method, wrk.body, wrk.headers['Content-Type'] = 'POST', '{body}', '{kind}'\n")
            command[-1] = command[-1].partition('?')[0]
            command += ['-s', str(script)]
        for duration in (warm, seconds):
            cpu, own, started = server.cpu, resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            with self._start(command) as process:
                while server.cpu - cpu < duration:
                    if time.perf_counter() - started > duration + PATIENCE:
                        raise LoadError('silence')
                    time.sleep(0.01)
                out = interrupt(process)
            took, cpu = time.perf_counter() - started, server.cpu - cpu
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = re.search(r'(\d+) requests in', out)
        if done is None or 'Non-2xx' in out or 'Socket errors' in out:
            raise LoadError(' '.join(out.split()))
        load_cpu = used.ru_utime - own.ru_utime + used.ru_stime - own.ru_stime
        return {'messages': float(done[1]), 'seconds': took, 'server_cpu': cpu, 'load_cpu': load_cpu}


def what_it_told(process: subprocess.Popen[str], timeout: float) -> dict[str, float]:
    """The last line of a load that ends within these seconds."""
    try:
        lines = process.communicate(timeout=timeout)[0].splitlines()
    except subprocess.TimeoutExpired:
        raise LoadError(f'nothing came of it within {timeout:.0f} seconds') from None
    if not lines:
        raise LoadError(f'the load ended with code {process.returncode}')
    result: dict[str, float] = json.loads(lines[-1])
    if 'failed' in result:
        raise LoadError(result['failed'])
    if result['errors']:
        raise LoadError(f'{result["errors"]} of {result["messages"]} were answered with errors')
    return result


def interrupt(process: subprocess.Popen[str]) -> str:
    """What wrk tells of what it has done so far; it does not listen until its threads run, so it is told again."""
    for _ in range(100):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=0.1)[0]
    process.kill()
    raise LoadError('wrk does not stop')
