"""What is logged and how often, the clock handed in."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from webshoes.log import REFUSALS, REMEMBERED, REPEAT, Journal, log, log_to_stderr


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(clock: Clock) -> Journal:
    return Journal(clock)


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """Give the logger back its handlers and level."""
    handlers, level = list(log.handlers), log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)


def broken(divisor: int) -> Exception:
    """An exception from always the same place."""
    try:
        raise ValueError(f'{1 / divisor}')
    except (ValueError, ZeroDivisionError) as exc:
        return exc


def other() -> Exception:
    """An exception from another place."""
    try:
        raise KeyError('key')
    except KeyError as exc:
        return exc


def test_a_failure_has_its_traceback(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """A failure is an error that names the handler and shows the traceback."""
    journal.failure(other(), 'cmd/add')
    assert caplog.records[0].levelno == logging.ERROR
    assert caplog.messages == ["'cmd/add' failed"]
    assert "raise KeyError('key')" in caplog.text


@pytest.mark.parametrize(('seconds', 'lines'), [(0, 1), (59.9, 1), (60, 2), (3600, 2)])
def test_once_a_minute(
    journal: Journal, clock: Clock, caplog: pytest.LogCaptureFixture, seconds: float, lines: int
) -> None:
    """The same failure is logged again when a minute has passed, and not before."""
    journal.failure(broken(1), 'cmd/add')
    clock.now += seconds
    journal.failure(broken(1), 'cmd/add')
    assert len(caplog.records) == lines


def test_the_count_of_what_was_left_out(journal: Journal, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The line that comes after a minute tells how often the failure happened meanwhile, and counts anew."""
    for seconds in (0, 1, 1, 60, 60):
        clock.now += seconds
        journal.failure(broken(1), 'cmd/add')
    assert caplog.messages == [
        "'cmd/add' failed",
        "'cmd/add' failed (2 times more since it was last told)",
        "'cmd/add' failed",
    ]


def test_a_failure_that_never_pauses_is_still_told_each_minute(
    journal: Journal, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A minute is counted from the last line, not from the last failure."""
    for _ in range(121):
        journal.failure(broken(1), 'cmd/add')
        clock.now += 1
    assert len(caplog.records) == 3


def test_handlers_that_share_a_place_are_told_each(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that fails where another one did, in a function they share, is told too."""
    for where in ('cmd/add', 'cmd/sub', 'cmd/add'):
        journal.failure(broken(1), where)
    assert caplog.messages == ["'cmd/add' failed", "'cmd/sub' failed"]


@pytest.mark.parametrize('second', [other, lambda: KeyError('never raised')])
def test_other_places_are_told_each(journal: Journal, caplog: pytest.LogCaptureFixture, second: type) -> None:
    """A failure at another place is logged at once, and one without a place too."""
    journal.failure(broken(1), 'cmd/add')
    journal.failure(second(), 'cmd/add')
    assert len(caplog.records) == 2


def test_exceptions_without_a_place_are_told_by_handler(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that was never raised is told once for each type and handler."""
    for where in ('cmd/add', 'cmd/add', 'cmd/sub'):
        journal.failure(KeyError(), where)
    assert caplog.messages == ["'cmd/add' failed", "'cmd/sub' failed"]


def test_a_slow_handler_is_named(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that blocked the loop is a warning with its name, its seconds and the remedy, once a minute."""
    journal.slow('cmd/add', 1.234)
    journal.slow('cmd/add', 2.0)
    journal.slow('cmd/sub', 0.5)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert caplog.messages[0].startswith("'cmd/add' blocked the loop for 1.23 seconds")
    assert '@ws.threaded' in caplog.messages[0]


def test_what_is_remembered_is_bounded(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """Past so many kinds of trouble the one that was told longest ago is forgotten, and told again."""
    for number in range(REMEMBERED + 1):
        journal.slow(f'cmd/{number}', 1)
    caplog.clear()
    journal.slow('cmd/1', 1)
    journal.slow('cmd/0', 1)
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith("'cmd/0' blocked")


def test_a_refusal_is_told_once(journal: Journal, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever is refused again, an hour later too, is in the log already."""
    for line in 'evil was refused', 'other was refused', 'evil was refused':
        journal.refusal(line)
        clock.now += 3600
    assert caplog.messages == ['evil was refused', 'other was refused']


def test_many_refusals_do_not_mute_the_log(journal: Journal, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Who makes origins up costs so many lines a minute; then another is told, and how many were left out."""
    for number in range(5000):
        journal.refusal(f'{number} was refused')
    journal.refusal('honest was refused')
    assert len(caplog.messages) == REFUSALS
    assert caplog.messages[-1] == '99 was refused (others that follow within 60 seconds are not told)'
    clock.now += REPEAT
    caplog.clear()
    journal.refusal('honest was refused')
    journal.refusal('next was refused')
    assert caplog.messages == ['honest was refused (4901 refusals before it were not told)', 'next was refused']


def test_the_refusals_that_are_remembered_are_bounded(
    journal: Journal, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Past so many the one that was met longest ago is forgotten, and told again."""
    for number in range(REMEMBERED):
        journal.refusal(f'{number} was refused')
        clock.now += REPEAT
    journal.refusal('0 was refused')
    journal.refusal('new was refused')
    clock.now += REPEAT
    caplog.clear()
    journal.refusal('0 was refused')
    journal.refusal('1 was refused')
    assert caplog.messages == ['1 was refused']


@pytest.mark.usefixtures('as_it_was')
def test_verbose_twice_shows_a_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Two verbose apps show each line once, on stderr, from DEBUG on."""
    log_to_stderr()
    log_to_stderr()
    log.debug('a line')
    shown = capsys.readouterr()
    assert shown.err.count('a line') == 1
    assert 'DEBUG' in shown.err
    assert shown.out == ''


@pytest.mark.usefixtures('as_it_was')
def test_verbose_keeps_the_handlers_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    """A program that collects the log by a handler of its own still gets every line."""
    mine = logging.NullHandler()
    log.addHandler(mine)
    log_to_stderr()
    assert mine in log.handlers


VERBOSE = """
import logging, sys, webshoes
def configure(): {configure}
{before}
with webshoes.WebShoesApp('127.0.0.1', 0, {{'verbose': True}}): pass
{after}
with webshoes.WebShoesApp('127.0.0.1', 0): pass
"""
CONFIGURATIONS = {
    'none': ('pass', 2),
    'basic': ('logging.basicConfig()', 2),
    'basic, of another level': ('logging.basicConfig(level=logging.ERROR)', 2),
    'on stdout': ('logging.basicConfig(stream=sys.stdout, level=logging.INFO)', 2),
    'on the logger': ("logging.getLogger('webshoes').addHandler(logging.StreamHandler())", 2),
    'on both': ("logging.basicConfig(); logging.getLogger('webshoes').addHandler(logging.StreamHandler())", 4),
    'a handler for errors': ('logging.basicConfig(); logging.getLogger().handlers[0].setLevel(logging.ERROR)', 2),
    'not propagated': ("logging.basicConfig(); logging.getLogger('webshoes').propagate = False", 2),
    'a buffer before stderr': (
        'from logging.handlers import MemoryHandler as Buffer; to = logging.StreamHandler(); '
        'logging.getLogger().addHandler(Buffer(1, target=to))',
        2,
    ),
    'a buffer before nothing': ('import logging.handlers as h; logging.getLogger().addHandler(h.MemoryHandler(9))', 2),
    'a file': ('logging.basicConfig(filename="/dev/null")', 2),
    'elsewhere': ('import io; logging.basicConfig(stream=io.StringIO())', 2),
}


@pytest.mark.parametrize('is_first', [True, False])
@pytest.mark.parametrize(('configure', 'lines'), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_verbose_beside_the_application(is_first: bool, configure: str, lines: int) -> None:
    """Each line is shown once, by `verbose` or by the application, whenever and however that configures its log."""
    calls = ('configure()', '') if is_first else ('', 'configure()')
    program = VERBOSE.format(configure=configure, before=calls[0], after=calls[1])
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert (result.stdout + result.stderr).count('listening on') == (lines if is_first else 1 + lines // 2)


def test_the_library_is_silent_unless_asked() -> None:
    """Importing and using webshoes adds no handler and sets no level: that is the application's."""
    program = (
        'import logging, webshoes\n'
        'with webshoes.WebShoesApp("127.0.0.1", 0): pass\n'
        'log = logging.getLogger("webshoes")\n'
        'print(log.handlers, log.level, logging.getLogger().handlers)\n'
        'other = logging.root.manager.loggerDict.values()\n'
        'print([found for found in other if isinstance(found, logging.Logger) and (found.filters or found.handlers)])'
    )
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ('[] 0 []\n[]\n', '')
