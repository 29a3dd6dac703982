"""How a program and its servers end together: real scripts, run by the Python that runs the tests."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

from test.conftest import TIMEOUT
from webshoes import libPath
from webshoes.pool import NO_LATE_THREADS

SIGNALS = [signal.SIGINT, signal.SIGTERM]

APP = """
import signal, sys, threading
import webshoes as ws

waits = {'waits': lambda ctx, q: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL}

def make():
    wsa = ws.WebShoesApp('127.0.0.1', 0, {'verbose': True}, limits=ws.Limits(slow_handler=None))
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {
        'ping': lambda ctx, q: 'pong',
        'thread': ws.threaded(lambda ctx, q: threading.current_thread().name),
        **waits,
        'stop': lambda ctx, q: ctx.wsa.stop(),
    })
    wsa.register('site', '', '', '', '', {'*': {'root': '.'}})
    return wsa

wsa = make()
"""


class Program:
    """A program that runs, its stderr read line by line as the log is written."""

    def __init__(self, *args: str, cwd: Path, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, *args],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._fuse = threading.Timer(3 * TIMEOUT, self.process.kill)
        self._fuse.start()
        self.log: list[str] = []

    def url(self) -> str:
        """The address of the next server that starts."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search('listening on (http.*)', line):
                return found[1]
        raise AssertionError(''.join(self.log))

    def wait(self, url: str | None = None) -> str:
        """Return when the main thread is at its end and waits for a signal, as the server at an address tells.

        Args:
            url: the address, `None` for that of the next server that starts; it is returned.
        """
        url = url or self.url()
        while get(url, 'cmd/waits') != 'true':
            pass
        return url

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self, number: signal.Signals | None = None) -> tuple[int, str]:
        """Send it a signal, where one is given; its exit code, and all that it logged."""
        if number is not None:
            self.send(number)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.log += self.process.stderr
        return self.process.wait(), ''.join(self.log)

    def close(self) -> None:
        """Clear it away."""
        self._fuse.cancel()
        self.process.kill()
        self.process.communicate()


Run = Callable[..., Program]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run a script: the app above, and then these lines."""
    with ExitStack() as stack:

        def start(lines: str, env: dict[str, str] | None = None) -> Program:
            script = tmp_path / 'script.py'
            script.write_text(APP + lines)
            program = Program(str(script), cwd=tmp_path, env=env)
            stack.callback(program.close)
            return program

        yield start


def get(url: str, path: str = 'cmd/ping') -> str:
    """What is answered over HTTP."""
    return requests.get(f'{url}/{path}', timeout=TIMEOUT).text


def is_clean(log: str) -> bool:
    """Whether a program logged nothing but what a server tells of its life."""
    return all(re.search(r'DEBUG +(listening on|stopped)|goes on serving', line) for line in log.splitlines())


# --- the last line starts a server ---

LAST_LINES = {
    'start': 'wsa.start()',
    'start in a function': 'def main():\n    wsa.start()\n\nmain()',
    'start under if': "if __name__ == '__main__':\n    wsa.start()",
    'start in a second thread': 'thread = threading.Thread(target=wsa.start)\nthread.start()\nthread.join()',
    'start in a coroutine': 'import asyncio\nasync def main():\n    wsa.start()\n\nasyncio.run(main())',
    'a loop after start': 'wsa.start()\nfor value in range(10):\n    wsa.triggerEvent("state", value)',
    'a caught exception after start': 'wsa.start()\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    pass',
    'run': 'wsa.run()',
    'run in a function': 'def main():\n    wsa.run()\n\nmain()',
}
if not NO_LATE_THREADS:
    LAST_LINES['start in a thread after the main one ended'] = (
        'threading.Thread(target=lambda: (threading.main_thread().join(), wsa.start())).start()'
    )
lines_that_serve = pytest.mark.parametrize('lines', LAST_LINES.values(), ids=LAST_LINES)


@lines_that_serve
@pytest.mark.parametrize('number', SIGNALS)
def test_a_script_serves_until_one_signal(run: Run, lines: str, number: signal.Signals) -> None:
    """A script that reaches its end with a server running serves until one signal, and then ends well."""
    program = run(lines)
    program.wait()
    code, log = program.end(number)
    assert code == 0
    assert 'stopped' in log
    assert is_clean(log)


@lines_that_serve
def test_everything_is_served_after_the_last_line(run: Run, lines: str) -> None:
    """Functions, threaded functions, files of a folder and those of the package are served after the last line."""
    program = run(lines)
    url = program.wait()
    assert get(url) == 'pong'
    assert get(url, 'cmd/thread') == 'webshoes-worker'
    assert get(url, 'site/script.py') == APP + lines
    assert requests.get(f'{url}/webshoes.js', timeout=TIMEOUT).content == Path(libPath('web/webshoes.js')).read_bytes()


@lines_that_serve
def test_a_handler_that_stops_the_server_ends_the_program(run: Run, lines: str) -> None:
    """A script that has reached its end ends well when its server is stopped."""
    program = run(lines)
    url = program.wait()
    get(url, 'cmd/stop')
    code, log = program.end()
    assert code == 0
    assert is_clean(log)


def test_a_pool_of_processes_works_after_the_last_line(run: Run) -> None:
    """A pool whose module is imported after `start` takes work as long as the server runs."""
    program = run(
        'wsa.start()\n'
        'import asyncio, multiprocessing\n'
        'from concurrent.futures import ProcessPoolExecutor\n'
        'pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))\n'
        'async def power(ctx, q): return await asyncio.wrap_future(pool.submit(pow, 2, 5))\n'
        'wsa.register("pool", "cmd", "q", "evt", "r", {"power": power})\n'
    )
    url = program.wait()
    assert get(url, 'pool/power') == '32'
    code, log = program.end(signal.SIGINT)
    assert code == 0
    assert is_clean(log)


def test_restarted_servers_serve_too(run: Run) -> None:
    """A script whose server was stopped and started before its end serves until a signal."""
    program = run('wsa.start()\nwsa.stop()\nwsa.start()\nwsa.start()')
    for _ in range(2):
        program.url()
    program.wait()
    assert program.end(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize('number', SIGNALS)
def test_one_signal_ends_two_apps(run: Run, number: signal.Signals) -> None:
    """One signal stops every server of a script."""
    program = run('other = make()\nwsa.start()\nother.start()')
    urls = [program.url(), program.url()]
    program.wait(urls[1])
    assert [get(url) for url in urls] == ['pong', 'pong']
    code, log = program.end(number)
    assert code == 0
    assert log.count('stopped') == 2


def test_two_apps_end_when_both_have_stopped(run: Run) -> None:
    """A script serves as long as one of its servers runs, and then ends well."""
    program = run('other = make()\nwsa.start()\nother.start()')
    urls = [program.url(), program.url()]
    program.wait(urls[1])
    get(urls[0], 'cmd/stop')
    assert get(urls[1]) == 'pong'
    get(urls[1], 'cmd/stop')
    assert program.end()[0] == 0


def test_a_command_line_program_serves(tmp_path: Path) -> None:
    """`python -c` serves after its last line as a script does."""
    with closing(Program('-c', APP + 'wsa.start()', cwd=tmp_path)) as program:
        program.wait()
        assert program.end(signal.SIGINT)[0] == 0


def test_a_module_serves(tmp_path: Path) -> None:
    """`python -m` serves after its last line as a script does."""
    (tmp_path / 'module.py').write_text(APP + 'wsa.start()')
    with closing(Program('-m', 'module', cwd=tmp_path)) as program:
        program.wait()
        assert program.end(signal.SIGINT)[0] == 0


def test_an_event_from_a_thread_is_pushed_after_the_last_line(run: Run) -> None:
    """Threads of the program go on triggering after its last line, and hold up nothing when it ends."""
    program = run(
        'started = threading.Event()\n'
        'def trigger():\n'
        '    started.wait()\n'
        '    while not threading.Event().wait(0.001): wsa.triggerEvent("state", 1)\n'
        'threading.Thread(target=trigger, daemon=True).start()\n'
        'wsa.register("go", "cmd", "q", "evt", "r", {"go": lambda ctx, q: started.set()})\n'
        'wsa.start()'
    )
    url = program.wait()
    with connect(url.replace('http', 'ws')) as client:
        client.send('{"evt": "state"}')
        client.recv(TIMEOUT)
        get(url, 'go/go')
        assert '"r":1}' in str(client.recv(TIMEOUT))
    code, log = program.end(signal.SIGINT)
    assert code == 0
    assert is_clean('\n'.join(line for line in log.splitlines() if 'WebSocket' not in line))


def test_a_signal_that_is_ignored_stays_ignored(run: Run) -> None:
    """A script that was started with SIGINT ignored, as by `nohup` or in the background, goes on serving after one."""
    program = run('signal.signal(signal.SIGINT, signal.SIG_IGN)\nwsa.start()')
    url = program.wait()
    program.send(signal.SIGINT)
    assert get(url) == 'pong'
    assert program.end(signal.SIGTERM)[0] == 0


def test_a_signal_that_another_thread_is_given(run: Run) -> None:
    """A signal that does not wake the main thread, as one that comes while it falls asleep, ends the script too."""
    program = run(
        'def kill(ctx, q): signal.pthread_kill(threading.get_ident(), signal.SIGINT)\n'
        'wsa.register("kill", "cmd", "q", "evt", "r", {"kill": kill})\n'
        'wsa.start()'
    )
    url = program.wait()
    get(url, 'kill/kill')
    code, log = program.end()
    assert code == 0
    assert is_clean(log)


def test_a_signal_handler_may_trigger(run: Run) -> None:
    """A signal handler that triggers in the middle of a trigger holds up nothing, and each trigger is a version."""
    program = run(
        'vers, alarms, go = [], [], threading.Event()\n'
        'def trigger(): vers.append(wsa.triggerEvent("state", 1))\n'
        'def alarm(number, frame):\n'
        '    alarms.append(1); trigger()\n'
        '    if len(alarms) < 200: signal.setitimer(signal.ITIMER_REAL, 0.0005)\n'
        'signal.signal(signal.SIGALRM, alarm)\n'
        'wsa.register("go", "cmd", "q", "evt", "r", {"go": lambda ctx, q: go.set()})\n'
        'wsa.start()\n'
        'go.wait()\n'
        'signal.setitimer(signal.ITIMER_REAL, 0.0005)\n'
        'while len(alarms) < 200: trigger()\n'
        'found = sorted(ver.result(0) for ver in vers)\n'
        'assert found == list(range(1, wsa.event("state").ver + 1))\n'
        'wsa.triggerEvent("end", len(found))',
        # Coverage has a lock of its own, which a signal handler that is measured cannot take twice.
        env={name: value for name, value in os.environ.items() if not name.startswith('COVERAGE')},
    )
    url = program.url()
    with connect(url.replace('http', 'ws')) as client:
        for event in ('state', 'end'):
            client.send(json.dumps({'evt': event}))
            assert 'Event added' in str(client.recv(TIMEOUT))
        get(url, 'go/go')
        newest: dict[str, Any] = {'state': {'ver': 0}}
        while 'end' not in newest or newest['state']['ver'] < newest['end']['r']:
            push = json.loads(client.recv(TIMEOUT))
            assert push.get('from', push['ver']) == newest.get(push['evt'], {'ver': 0})['ver'] + 1
            newest[push['evt']] = push
    program.wait(url)
    assert program.end(signal.SIGINT)[0] == 0


# --- a program that ends ---

ENDINGS = {
    'exception': ('1 / 0', 1, 'ZeroDivisionError'),
    'sys.exit': ('sys.exit()', 0, ''),
    'sys.exit with a code': ('sys.exit(3)', 3, ''),
    'sys.exit with a sentence': ("sys.exit('no camera')", 1, 'no camera'),
    'exception in a function': ('def main():\n    1 / 0\n\nmain()', 1, 'ZeroDivisionError'),
    'stop': ('wsa.stop()', 0, ''),
    'with': ('with wsa: pass', 0, ''),
}


@pytest.mark.parametrize(('line', 'code', 'said'), ENDINGS.values(), ids=ENDINGS)
def test_a_program_that_ends_ends(run: Run, line: str, code: int, said: str) -> None:
    """A program that ends by itself ends with a server running, which is stopped, and its exit code is its own."""
    ended, log = run(f'wsa.start()\n{line}').end()
    assert ended == code
    assert said in log
    assert 'DEBUG   stopped' in log


def test_ctrl_c_ends_the_program(run: Run) -> None:
    """Ctrl-C in the life of the program ends it as Python does, its server stopped."""
    program = run(
        'wsa.register("main", "cmd", "q", "evt", "r", {"lives": lambda ctx, q: lives.is_set()})\n'
        'lives = threading.Event()\n'
        'wsa.start()\n'
        'lives.set()\n'
        'threading.Event().wait()'
    )
    url = program.url()
    while get(url, 'main/lives') != 'true':
        pass
    code, log = program.end(signal.SIGINT)
    assert code == -signal.SIGINT
    assert 'KeyboardInterrupt' in log
    assert 'DEBUG   stopped' in log


def test_a_caught_ctrl_c_ends_the_program(run: Run) -> None:
    """A program that catches its Ctrl-C, stops its server and returns, ends well after that one signal."""
    program = run('try:\n    wsa.start()\n    threading.Event().wait()\nexcept KeyboardInterrupt:\n    wsa.stop()')
    program.url()
    code, log = program.end(signal.SIGINT)
    assert code == 0
    assert is_clean(log)


def test_a_handler_that_blocks_does_not_hold_up_the_end(run: Run) -> None:
    """A program whose server could not be stopped in time ends all the same, without another signal."""
    program = run(
        'wsa = ws.WebShoesApp("127.0.0.1", 0, {"verbose": True}, limits=ws.Limits(stop_timeout=0.2))\n'
        'entered = threading.Event()\n'
        'def block(ctx, q):\n'
        '    entered.set()\n'
        '    threading.Event().wait()\n'
        'wsa.register("cmd", "cmd", "q", "evt", "r", {"block": block})\n'
        'wsa.start()\n'
        'entered.wait()\n'
        'wsa.stop()'
    )
    with pytest.raises(requests.ConnectionError):
        get(program.url(), 'cmd/block')
    code, log = program.end()
    assert code == 0
    assert 'did not stop' in log


# --- run ---


@pytest.mark.parametrize('number', SIGNALS)
def test_run_returns_on_a_signal(run: Run, number: signal.Signals) -> None:
    """`run` returns on a signal with its server stopped, the program goes on, and signals mean what they did."""
    program = run(
        'wsa.run()\n'
        'print(wsa.port, signal.getsignal(signal.SIGINT) is signal.default_int_handler,'
        ' signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)'
    )
    program.wait()
    program.send(number)
    assert program.process.stdout is not None
    assert program.process.stdout.read() == '0 True True\n'
    assert program.end()[0] == 0


def test_run_of_an_app_that_runs(run: Run) -> None:
    """`run` after `start` serves on where the server listens, and does not start it anew."""
    program = run('wsa.start()\nwsa.run()')
    url = program.wait()
    assert get(url) == 'pong'
    code, log = program.end(signal.SIGTERM)
    assert (code, log.count('listening on')) == (0, 1)


def test_run_goes_on_when_another_thread_starts_anew(run: Run) -> None:
    """`start` from another thread while `run` serves starts anew, and `run` serves on until a signal."""
    program = run(
        'def again(ctx, q): threading.Thread(target=wsa.start).start()\n'
        'wsa.register("again", "cmd", "q", "evt", "r", {"again": again})\n'
        'wsa.run()'
    )
    url = program.wait()
    get(url, 'again/again')
    url = program.url()
    assert get(url) == 'pong'
    assert program.end(signal.SIGTERM)[0] == 0


# --- processes ---

CHILD = """
import multiprocessing, warnings
warnings.simplefilter('ignore', DeprecationWarning)  # 3.12 warns of a fork beside threads

def child(own):
    if own:
        make().start()
    elif wsa.port:
        wsa.stop()
        wsa.stop()

if __name__ == '__main__':
    wsa.start()
    process = multiprocessing.get_context({method!r}).Process(target=child, args=({own},))
    process.start()
    process.join()
    assert process.exitcode == 0
"""


@pytest.mark.parametrize('own', [False, True], ids=['of the parent', 'of its own'])
@pytest.mark.parametrize('method', multiprocessing.get_all_start_methods())
def test_a_child_process_ends_and_the_parent_serves_on(run: Run, method: str, own: bool) -> None:
    """A multiprocessing child ends, whatever app it started or stopped, and does not touch its parent's server."""
    program = run(CHILD.format(method=method, own=own))
    url = program.wait()
    assert get(url) == 'pong'
    assert program.end(signal.SIGINT)[0] == 0


def test_a_forked_child_that_reaches_the_end_of_the_script_ends(run: Run) -> None:
    """A child made by `os.fork` does not wait for its parent's server."""
    program = run(
        'import os, warnings\n'
        'warnings.simplefilter("ignore", DeprecationWarning)\n'
        'wsa.start()\n'
        'if child := os.fork():\n'
        '    assert os.waitpid(child, 0)[1] == 0'
    )
    program.wait()
    assert program.end(signal.SIGTERM)[0] == 0


CHILD_OF_A_HANDLER = """
import multiprocessing, os, time, warnings
warnings.simplefilter('ignore', DeprecationWarning)
workers = []

def work():
    time.sleep(1000)

def begin(ctx, q):
    workers.append(multiprocessing.get_context('fork').Process(target=work))
    workers[0].start()
    return workers[0].pid

def end(ctx, q):
    workers[0].terminate()
    workers[0].join()
    return workers[0].exitcode

threaded = ws.threaded(lambda ctx, q: begin(ctx, q))
wsa.register('work', 'cmd', 'q', 'evt', 'r', {'begin': begin, 'begin_threaded': threaded, 'end': end})
"""


@pytest.mark.parametrize('name', ['begin', 'begin_threaded'])
@pytest.mark.parametrize('last', ['wsa.start()', 'wsa.run()'])
def test_terminate_ends_a_child_that_a_handler_forked(run: Run, name: str, last: str) -> None:
    """A child does not inherit the signal handlers of a program that waits for the end: SIGTERM ends it."""
    program = run(CHILD_OF_A_HANDLER + last)
    url = program.wait()
    get(url, f'work/{name}')
    assert get(url, 'work/end') == str(-signal.SIGTERM)
    assert program.end(signal.SIGTERM)[0] == 0
