"""The log, and limits on how often a line is logged: `logging.getLogger('webshoes')`."""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from types import TracebackType

from webshoes.core.text import UnsendableError

log = logging.getLogger('webshoes')

PACKAGE = __name__.partition('.')[0]
REPEAT = 60.0  # seconds in which the same line is not logged again
REMEMBERED = 1000  # lines whose last time is known
REFUSALS = 100  # that are told within `REPEAT`: who makes origins up fills neither the disk nor the log for others


class Journal:
    """Logs each kind of trouble at most once a minute, and says how often it happened meanwhile; a refusal once.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._refusals: OrderedDict[str, None] = OrderedDict()  # that were told, the longest not met first
        self._refusals_since, self._refusals_told, self._refusals_untold = float('-inf'), 0, 0

    def failure(self, exc: BaseException, where: str) -> None:
        """A handler failed: log it with its traceback, once a minute for the same place in the same function.

        The traceback ends with the program's own code. What cannot be sent has none, as all of it would be ours.
        """
        if isinstance(exc, UnsendableError):
            if (times := self._due((where, UnsendableError))) is not None:
                log.error("'%s' failed%s: %s", where, times, exc)
            return
        _leave_out_ours(exc)
        last = exc.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        place = (last.tb_frame.f_code, last.tb_lineno) if last is not None else None
        if (times := self._due((where, type(exc), place))) is not None:
            log.error("'%s' failed%s", where, times, exc_info=exc)

    def slow(self, where: str, seconds: float) -> None:
        """A handler blocked the loop."""
        if (times := self._due(('slow', where))) is not None:
            log.warning(
                "'%s' blocked the loop for %.2f seconds, in which nobody else was served%s: "
                'use @ws.threaded for work that blocks',
                where,
                seconds,
                times,
            )

    def broken_off(self, method: str, path: str, why: str) -> None:
        """An answer could not be sent whole: log it, once a minute."""
        if (times := self._due('broken off')) is not None:
            log.warning(
                'the answer to %s %r broke off, so its connection was closed%s: %s', method, path[:300], times, why
            )

    def refusal(self, line: str) -> None:
        """Log a refusal once. If there were too many others within a minute, only count it."""
        if line in self._refusals:
            self._refusals.move_to_end(line)
            return
        now = self._clock()
        if now - self._refusals_since >= REPEAT:
            self._refusals_since, self._refusals_told = now, 0
        if self._refusals_told == REFUSALS:
            self._refusals_untold += 1
            return
        self._refusals_told += 1
        self._refusals[line] = None
        if len(self._refusals) > REMEMBERED:
            self._refusals.popitem(last=False)
        left_out, self._refusals_untold = self._refusals_untold, 0
        if left_out:
            line += f' ({left_out} refusals before it were not told)'
        if self._refusals_told == REFUSALS:
            line += f' (others that follow within {REPEAT:.0f} seconds are not told)'
        log.warning('%s', line)

    def _due(self, key: Hashable) -> str | None:
        """`None` if the line was logged within the minute, else what to say of the times it was left out."""
        now = self._clock()
        last, left_out = self._last.pop(key, (float('-inf'), 0))
        if now - last < REPEAT:
            self._last[key] = last, left_out + 1
            return None
        self._last[key] = now, 0
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        return f' ({left_out} times more since it was last told)' if left_out else ''


def _leave_out_ours(exc: BaseException) -> None:
    """End the tracebacks of an exception, and of those that it came of, with the program's own code."""
    seen = set[int]()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = _without_ours(link.__traceback__)
        link = link.__cause__ or link.__context__


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without this package's frames at its end; the whole, where there are no others."""
    frames, rest = [], trace
    while rest is not None:
        frames.append(rest)
        rest = rest.tb_next
    while frames and frames[-1].tb_frame.f_globals.get('__name__', '').partition('.')[0] == PACKAGE:
        frames.pop()
    found: TracebackType | None = None
    for frame in reversed(frames):
        found = TracebackType(found, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return found or trace


def log_to_stderr() -> None:
    """Show everything on stderr; asking twice shows it once."""
    log.setLevel(logging.DEBUG)
    if not any(isinstance(handler, _Stderr) for handler in log.handlers):
        handler = _Stderr(sys.stderr)
        handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)-7s %(message)s'))
        log.addHandler(handler)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Our own handler. It leaves out what a handler of the application shows on stdout or stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line, unless somebody else does."""
        if not any(_shows(handler, record) for handler in _handlers(logging.getLogger(record.name))):
            super().emit(record)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """The handlers that get the records of a logger."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _shows(handler: logging.Handler, record: logging.LogRecord) -> bool:
    """Return whether a handler of the application shows a record on stdout or stderr."""
    if isinstance(handler, _Stderr) or record.levelno < handler.level:
        return False
    target = getattr(handler, 'target', None)  # that of a MemoryHandler
    if isinstance(target, logging.Handler):
        return _shows(target, record)
    console = getattr(handler, 'console', None)  # that of rich's handler
    stream = getattr(handler, 'stream', getattr(console, 'file', None))
    return stream is not None and stream in (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
