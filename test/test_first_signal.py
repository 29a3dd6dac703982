"""Programs that handle Ctrl-C or SIGTERM themselves end at the first one: real scripts, as in test_program_end."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from test.test_program_end import APP, Program, Run, get, run

__all__ = ['run']  # the fixture

INT, TERM = signal.SIGINT, signal.SIGTERM

LIVES = """
import asyncio, time
lives = threading.Event()
stopped = threading.Event()
wsa.register('main', 'cmd', 'q', 'evt', 'r', {'lives': lambda ctx, q: lives.is_set()})

def live():
    lives.set()
    while not stopped.is_set():
        time.sleep(0.01)

async def live_async(is_over=stopped.is_set):
    lives.set()
    while not is_over():
        await asyncio.sleep(0.01)

def stop(*args): stopped.set()
"""

CAUGHT = 'try:\n    live()\nexcept KeyboardInterrupt:\n    print("bye")\n'
SHAPES = {  # the lines, the signal, the exit code
    'caught Ctrl-C': ('wsa.start()\n' + CAUGHT, INT, 0),
    'caught Ctrl-C around start': (
        'try:\n    wsa.start()\n    live()\nexcept KeyboardInterrupt:\n    print("bye")\n',
        INT,
        0,
    ),
    'caught Ctrl-C in a function': (
        'def main():\n    wsa.start()\n    try: live()\n    except KeyboardInterrupt: pass\n\nmain()',
        INT,
        0,
    ),
    'finally': ('wsa.start()\ntry:\n    live()\nfinally:\n    print("bye")\n', INT, -INT),
    'handler of SIGTERM that sets an event, before start': (
        'signal.signal(signal.SIGTERM, stop)\nwsa.start()\nlive()',
        TERM,
        0,
    ),
    'handler of SIGTERM that sets an event, after start': (
        'wsa.start()\nsignal.signal(signal.SIGTERM, stop)\nlive()',
        TERM,
        0,
    ),
    'handler of SIGINT that sets an event': ('wsa.start()\nsignal.signal(signal.SIGINT, stop)\nlive()', INT, 0),
    'handler that exits': (
        'signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\nwsa.start()\nlive()',
        TERM,
        5,
    ),
    'handler that exits, caught': (
        'signal.signal(signal.SIGTERM, lambda *_: sys.exit())\nwsa.start()\ntry: live()\nexcept SystemExit: pass',
        TERM,
        0,
    ),
    'sigwait': (
        'signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})\nwsa.start()\nlives.set()\n'
        'signal.sigwait({signal.SIGINT, signal.SIGTERM})',
        TERM,
        0,
    ),
    'asyncio.run, Ctrl-C caught': (
        'wsa.start()\ntry: asyncio.run(live_async())\nexcept KeyboardInterrupt: print("bye")',
        INT,
        0,
    ),
    'start in asyncio.run, Ctrl-C caught': (
        'async def main():\n    wsa.start()\n    await live_async()\n'
        'try: asyncio.run(main())\nexcept KeyboardInterrupt: print("bye")',
        INT,
        0,
    ),
    'asyncio, add_signal_handler': (
        'async def main():\n    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)\n'
        '    await live_async()\nwsa.start()\nasyncio.run(main())',
        TERM,
        0,
    ),
    'asyncio, add_signal_handler before the app is made': (
        'async def main():\n    global wsa\n'
        '    signal.set_wakeup_fd(-1)\n'  # the app above has it
        '    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)\n'
        '    wsa.start()\n    await live_async()\nasyncio.run(main())',
        TERM,
        0,
    ),
    'an exception in the loop of the program': (
        'wsa.start()\ntry:\n    live()\nexcept KeyboardInterrupt:\n    1 / 0',
        INT,
        1,
    ),
    'many other signals before': (
        'count = 0\n'
        'def alarm(*args):\n    global count\n    count += 1\n'
        'signal.signal(signal.SIGALRM, alarm)\n'
        'wsa.start()\nsignal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)\n'
        'while count < 2000: time.sleep(0.01)\n'
        'signal.setitimer(signal.ITIMER_REAL, 0)\n' + CAUGHT,
        INT,
        0,
    ),
    'a thread that is told by the handler': (
        'signal.signal(signal.SIGTERM, stop)\nthreading.Thread(target=live).start()\nwsa.start()',
        TERM,
        0,
    ),
    'a thread that is never told': ('threading.Thread(target=live).start()\nwsa.start()', TERM, -TERM),
    'a thread that is never told, Ctrl-C': ('threading.Thread(target=live).start()\nwsa.start()', INT, 0),
    'a thread that is never told, a handler that exits': (
        'signal.signal(signal.SIGTERM, lambda *_: sys.exit())\nthreading.Thread(target=live).start()\nwsa.start()',
        TERM,
        0,
    ),
    'an idle pool of threads': (
        'from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor()\n'
        'pool.submit(lives.set).result()\nwsa.start()',
        TERM,
        0,
    ),
    'run in a thread that Python waits for': ('threading.Thread(target=wsa.run).start()\n' + CAUGHT, INT, 0),
    'run in a thread that Python waits for, an exception': (
        'threading.Thread(target=wsa.run).start()\ntry: live()\nexcept KeyboardInterrupt: 1 / 0',
        INT,
        1,
    ),
    'console script whose thread is told': (
        'signal.signal(signal.SIGTERM, stop)\n'
        'def main():\n    wsa.start()\n    threading.Thread(target=live).start()\n'
        'sys.exit(main())',
        TERM,
        0,
    ),
    'console script whose thread is never told': (
        'def main():\n    wsa.start()\n    threading.Thread(target=live).start()\nsys.exit(main())',
        INT,
        0,
    ),
}


@pytest.mark.parametrize(('lines', 'number', 'code'), SHAPES.values(), ids=SHAPES)
def test_a_program_ends_at_the_first_signal(run: Run, lines: str, number: signal.Signals, code: int) -> None:
    """A program that handles its signals, or leaves threads behind, serves until the first one, and ends by it."""
    program = run(LIVES + lines)
    url = program.url()
    while get(url, 'main/lives') != 'true':
        pass
    if 'Thread(target=live)' in lines:  # they live while the main thread goes on to its end
        assert program.process.stderr is not None
        assert 'goes on serving' in next(program.process.stderr)
    ended, log = program.end(number)
    assert ended == code, log
    if code != -TERM:  # SIGTERM ends a process without a word
        assert 'DEBUG   stopped' in log


def test_a_sigterm_before_start_ends_the_program(run: Run) -> None:
    """A SIGTERM that came while the program prepared, and that it has handled itself, ends it at its last line."""
    program = run(
        LIVES + 'signal.signal(signal.SIGTERM, stop)\nsignal.raise_signal(signal.SIGTERM)\nwsa.start()\nlive()'
    )
    code, log = program.end()
    assert code == 0
    assert 'goes on serving' not in log


def test_an_app_that_a_thread_makes(tmp_path: Path) -> None:
    """A program whose app is made and started in another thread ends at a Ctrl-C that its main thread handles."""
    (tmp_path / 'script.py').write_text(
        'import threading, time\n'
        'rounds = 0\n'
        'def serve():\n'
        '    import webshoes as ws\n'
        '    wsa = ws.WebShoesApp("127.0.0.1", 0, {"verbose": True})\n'
        '    wsa.command("cmd/rounds")(lambda ctx, q: rounds)\n'
        '    wsa.start()\n'
        'threading.Thread(target=serve).start()\n'
        'try:\n'
        '    while True:\n'
        '        time.sleep(0.01)\n'
        '        rounds += 1\n'
        'except KeyboardInterrupt: print("bye")\n'
    )
    with closing(Program('script.py', cwd=tmp_path)) as program:
        url = program.url()
        first = int(get(url, 'cmd/rounds'))
        while int(get(url, 'cmd/rounds')) < first + 2:  # the main thread has run since then
            pass
        code, log = program.end(INT)
    assert code == 0
    assert 'goes on serving' not in log
    assert 'DEBUG   stopped' in log


def test_a_ctrl_c_that_is_handled_ends_nothing(run: Run) -> None:
    """A program that handles a Ctrl-C and goes on, as a prompt does, goes on serving; and ends when its loop does."""
    program = run(
        LIVES + 'wsa.register("end", "cmd", "q", "evt", "r", {"end": stop})\n'
        'interrupts = []\n'
        'wsa.register("got", "cmd", "q", "evt", "r", {"got": lambda ctx, q: len(interrupts)})\n'
        'wsa.start()\n'
        'while not stopped.is_set():\n'
        '    try: live()\n'
        '    except KeyboardInterrupt: interrupts.append(1)\n'
    )
    url = program.url()
    while get(url, 'main/lives') != 'true':
        pass
    for count in (1, 2):
        program.send(INT)
        while get(url, 'got/got') != str(count):
            pass
    get(url, 'end/end')
    code, log = program.end()
    assert code == 0
    assert 'goes on serving' not in log


LAST = {
    'start': 'wsa.start()',
    'start in a coroutine': 'async def main(): wsa.start()\nasyncio.run(main())',
    'start in a coroutine of uvloop': 'import uvloop\nasync def main(): wsa.start()\nuvloop.run(main())',
    'a Ctrl-C before start': 'try: signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: pass\nwsa.start()',
    'a Ctrl-C in an earlier run': (
        'wsa.start()\ntry: signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: pass\nwsa.stop()\nwsa.start()'
    ),
    'a handler that exits': 'signal.signal(signal.SIGTERM, lambda *_: sys.exit())\nwsa.start()',
    'other signals': 'signal.signal(signal.SIGUSR1, stop)\nwsa.start()\nsignal.raise_signal(signal.SIGUSR1)',
}


@pytest.mark.parametrize('lines', LAST.values(), ids=LAST)
def test_a_program_that_goes_on_says_so(run: Run, lines: str) -> None:
    """A program that serves after its last line says so in one line on stderr, and ends at the first signal."""
    program = run(LIVES + lines)
    assert program.process.stderr is not None
    for line in program.process.stderr:
        if 'goes on serving' in line:
            break
    url = line.split('serving ')[1].split()[0]
    assert line == f'webshoes: the program goes on serving {url} until Ctrl-C or SIGTERM\n'
    program.wait(url)
    code, log = program.end(TERM)
    assert code == 0
    assert 'goes on' not in log  # once


def test_run_says_nothing(run: Run) -> None:
    """`wsa.run()` says nothing of its own on stderr."""
    program = run('wsa.run()')
    program.wait()
    assert 'goes on' not in program.end(TERM)[1]


def test_a_console_script_serves_as_long_as_its_threads_work(run: Run) -> None:
    """A script that ends by `sys.exit` while a thread works says so, serves on, and ends with the thread."""
    program = run(
        LIVES + 'wsa.register("end", "cmd", "q", "evt", "r", {"end": stop})\n'
        'def main():\n'
        '    wsa.start()\n'
        '    threading.Thread(target=live).start()\n'
        '    return 3\n'
        'sys.exit(main())'
    )
    url = program.url()
    assert program.process.stderr is not None
    assert 'goes on serving' in next(program.process.stderr)
    assert [get(url, path) for path in ('cmd/ping', 'cmd/thread')] == ['pong', 'webshoes-worker']
    get(url, 'end/end')
    code, log = program.end()
    assert code == 3
    assert 'DEBUG   stopped' in log


# --- process 1 ---

# A namespace of processes, where the system permits one; elsewhere the script takes itself for process 1.
UNSHARE = ('unshare', '--user', '--map-root-user', '--pid', '--fork', '--kill-child')


def can_unshare() -> bool:
    try:
        return subprocess.run([*UNSHARE, 'true'], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ('lines', 'code'),
    [
        ('wsa.start()\ntry: live()\nfinally: print("bye")', 143),
        ('threading.Thread(target=wsa.start).start()\ntry: live()\nfinally: print("bye")', 143),
        ('wsa.start()\nsignal.signal(signal.SIGTERM, stop)\nlive()', 0),
        ('wsa.start()', 0),
    ],
    ids=['its own loop', 'started by a thread', 'its own handler', 'the last line'],
)
def test_sigterm_ends_process_1(tmp_path: Path, lines: str, code: int) -> None:
    """SIGTERM ends a program that is process 1 of a container, where the kernel ignores signals without a handler."""
    is_real = can_unshare()
    script = APP + LIVES + ('' if is_real else 'import os\nos.getpid = lambda: 1\n') + lines
    (tmp_path / 'script.py').write_text(script)
    with closing(Program('script.py', cwd=tmp_path, prefix=UNSHARE if is_real else ())) as program:
        url = program.url()
        while 'live()' in lines and get(url, 'main/lives') != 'true':
            pass
        if 'live()' not in lines:
            assert program.process.stderr is not None
            assert 'goes on serving' in next(program.process.stderr)
        program.wait(url)  # the main thread handles SIGTERM only a moment after another thread has called `start`
        pid = program.process.pid
        if is_real:
            pid = int(Path(f'/proc/{pid}/task/{pid}/children').read_text())
        os.kill(pid, TERM)
        ended, log = program.end()
        assert ended == code
        assert 'DEBUG   stopped' in log


def test_children_of_process_1_end_by_sigterm(run: Run) -> None:
    """A forked child of process 1 does not inherit what ends its parent."""
    program = run(
        'import os\nos.getpid = lambda: 1\n'
        'import warnings\nwarnings.simplefilter("ignore", DeprecationWarning)\n'
        'wsa.start()\n'
        'reader, writer = os.pipe()\n'
        'if not (child := os.fork()):\n'
        '    os.write(writer, b"1")\n'
        '    signal.pause()\n'
        'os.read(reader, 1)\n'
        'os.kill(child, signal.SIGTERM)\n'
        'assert os.waitpid(child, 0)[1] == signal.SIGTERM\n'
        'sys.exit(7)'
    )
    assert program.end()[0] == 7
