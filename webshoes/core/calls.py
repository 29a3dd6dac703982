"""The calls of one WebSocket: whose turn it is, how many run, and one answer to each.

accepted ─┬──────────────────► running ──► answered    a call without `tid` holds the turn until it is answered:
          ├──► for a place ──────┘                     messages without `tid` that come meanwhile wait behind it
          └──► for others ─┘                           (subscriptions and their ends, see `order.py`)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from math import inf
from pathlib import PurePath
from typing import Any, Protocol

from msgspec import Struct

from webshoes.core import codec
from webshoes.core.context import Context
from webshoes.core.dispatch import Dispatcher, is_pending
from webshoes.core.errors import Error
from webshoes.core.handler import Function, Handler
from webshoes.core.limits import Limits
from webshoes.core.meter import Meter
from webshoes.core.order import Order, Ordered, Subject
from webshoes.core.registry import Entry
from webshoes.core.tids import Tid

Message = dict[str, Any]
Run = Callable[[], Any]
"""Does what a call is to do: its result, or an awaitable of it."""

TOO_LONG = Error(504, 'The handler took longer than its time limit')
# In the place of the queues that nearly no connection needs: an empty one takes 760 bytes.
EMPTY: deque[Any] = deque()
SLICE = 0.003  # seconds in which calls that waited are run before others have their turn


class Task(Protocol):
    """The result of `spawn` and `later`."""

    def cancel(self) -> object:
        """Interrupt it, once it has begun; or have it not happen."""


class CallServices(Struct, frozen=True, kw_only=True):
    """What the calls of one app share.

    Attributes:
        dispatcher, limits, meter: the app's.
        now: Unix time in seconds.
        spawn: runs a coroutine beside everything else.
        later: calls a function after so many seconds.
        encoder: encodes results and the data of events.
        unsendable: types of results that only HTTP can send.
    """

    dispatcher: Dispatcher
    limits: Limits
    meter: Meter
    now: Callable[[], float]
    spawn: Callable[[Coroutine[Any, Any, None]], Task]
    later: Callable[[float, Callable[[], None]], Task]
    encoder: codec.Encoder = codec.ENCODER
    unsendable: tuple[type, ...] = (PurePath,)


def arguments(entry: Entry, message: Message) -> dict[str, Any]:
    """The arguments in a message: what is in the entry's `q` field, if that is there, else all of it."""
    values = message.get(entry.q, message) if entry.q else message
    if values is not None and not isinstance(values, dict):
        raise Error(400, f"'{entry.q}' is a JSON object")
    return values or {}


def _nothing() -> None:
    """Do nothing: stands for `run` in a call that has run already."""


class _Call(Ordered, eq=False):
    run: Run
    function: Function
    rep: str
    tid: Tid
    size: int
    ctx: Context | None
    task: Task | None = None
    timer: Task | None = None
    answered: bool = False

    @property
    def needs_place(self) -> bool:
        """Return whether it needs a place among those that run. Answered calls and ends of subscriptions do not."""
        return not self.answered and not (self.subject is not None and self.subject.is_end)


class Calls:
    """The calls of one connection.

    Args:
        services: what the calls of one app share.
        send: takes an answer.
        resume: takes a message that was told to wait, when its turn comes.
        wake: called when an answer was sent that did not come of a message being taken.
        has_room: whether there is room for more answers; what waits goes on waiting while there is none.

    Attributes:
        is_idle: whether nothing runs or waits.
    """

    __slots__ = (
        '_advancing',
        '_by_tid',
        '_for_place',
        '_for_turn',
        '_has_room',
        '_limits',
        '_now',
        '_on',
        '_order',
        '_places',
        '_resume',
        '_running',
        '_send',
        '_turn',
        '_waiting_bytes',
        '_wake',
        'is_idle',
    )

    def __init__(
        self,
        services: CallServices,
        send: Callable[[bytes], None],
        resume: Callable[[Any, int], None],
        wake: Callable[[], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._on = services
        self._limits = services.limits
        self._now = services.now
        self._places = inf if services.limits.max_in_flight is None else services.limits.max_in_flight
        self._send = send
        self._resume = resume
        self._wake = wake
        self._has_room = has_room
        self._running: dict[_Call, None] = {}
        self._by_tid: dict[Tid, _Call] = {}
        self._order: Order[_Call] | None = None  # where subscriptions wait, or had to
        self._turn: _Call | None = None
        self._for_turn: deque[tuple[Any, int]] = EMPTY
        self._for_place: deque[_Call] = EMPTY
        self._waiting_bytes = 0
        self._advancing = False
        self.is_idle = True

    @property
    def turn_is_taken(self) -> bool:
        """Return whether a message without `tid` has to wait."""
        return self._turn is not None or bool(self._for_turn)

    @property
    def is_quiet(self) -> bool:
        """Return whether nothing waits, nor has to."""
        return self._turn is None and not self._for_turn and not self._for_place

    def can_run(self, tid: Tid) -> bool:
        """Return whether a call would neither wait nor be refused."""
        return self.is_quiet and tid not in self._by_tid and self._has_place()

    @property
    def can_advance(self) -> bool:
        """Return whether something waits for nothing but room or time."""
        return self._can_begin or bool(self._for_turn and self._turn is None)

    @property
    def _can_begin(self) -> bool:
        """Return whether there is a place for the first of the calls that wait for one."""
        return bool(self._for_place) and (self._has_place() or not self._for_place[0].needs_place)

    def wait_for_turn(self, message: Any, size: int) -> None:
        """Have a message come back through `resume` when its turn comes.

        Args:
            message: the message.
            size: how many bytes of text it was.

        Raises:
            Error: 429, too many wait already.
        """
        self._check_queue(size)
        self._for_turn = self._for_turn or deque()
        self._for_turn.append((message, size))
        self.is_idle = False

    def accept(
        self,
        run: Run,
        function: Function,
        rep: str,
        tid: Tid,
        size: int,
        ctx: Context | None = None,
        subject: Subject | None = None,
    ) -> None:
        """Run a call, at once, or when those that it waits for are answered and there is a place for it.

        Args:
            run: does it.
            function: whose name stands in the log, and whether it runs in a thread.
            rep: the field of the reply with the result.
            tid: its tid, `None` if it has none.
            size: how many bytes of text its message was.
            ctx: its own context, where it has one: it tells when the call is cancelled.
            subject: the subscription that it begins or ends.

        Raises:
            Error: 400, its tid is in flight; 429, too many wait already.
        """
        if tid in self._by_tid:
            raise Error(400, f"'tid' {codec.encode(tid).decode()} is in flight already")
        call = _Call(run, function, rep, tid, size, ctx, subject=subject)
        ahead = self._order.ahead_of(subject) if self._order is not None and subject is not None else []
        if ahead:
            self._check_queue(size)
            self._note(call)
        elif call.needs_place and not self._has_place():
            self._on.meter.met('max_in_flight')
            self._check_queue(size)
            self._note(call)
            self._wait_for_place(call)
        else:
            self._begin(call)
        if subject is not None and not call.answered:
            self._order = self._order or Order()
            self._order.enter(call, ahead)

    def cancel(self, tid: Tid) -> bool:
        """Answer a call with 499 and end it; whether there was one. A thread goes on, its result is thrown away."""
        call = self._by_tid.get(tid)
        if call is not None:
            self._interrupt(call, Error(499, 'Cancelled'))
        return call is not None

    def interrupt(self, exc: Error) -> None:
        """Answer all calls with an error and end them; what waits for its turn comes back, to be refused."""
        for call in [*self._running, *self._for_place, *(self._order.waiting if self._order is not None else ())]:
            if not call.answered:
                self._interrupt(call, exc)

    def abandon(self) -> None:
        """The peer is gone: drop calls that wait, for a thread too. The results of those that run are dropped."""
        self._for_turn.clear()
        self._for_place.clear()
        self._order = None
        self._waiting_bytes = 0
        self.is_idle = not self._running
        for call in self._running:
            is_shielded = isinstance(call.function, Handler) and call.function.is_shielded
            if call.task is not None and call.function.threaded and not is_shielded:
                call.answered = True  # being left is no failure
                call.task.cancel()

    def _has_place(self) -> bool:
        return len(self._running) < self._places

    def _check_queue(self, size: int) -> None:
        count = (
            len(self._for_turn) + len(self._for_place) + (len(self._order.waiting) if self._order is not None else 0)
        )
        if self._on.meter.over('max_queued', count + 1):
            raise Error(429, f'{count} messages of this connection are waiting already')
        if count and self._on.meter.over('max_queued_bytes', self._waiting_bytes + size):
            raise Error(429, f'{self._waiting_bytes} bytes of messages of this connection are waiting already')
        self._waiting_bytes += size

    def _note(self, call: _Call) -> None:
        if call.tid is None:
            self._turn = call
        else:
            self._by_tid[call.tid] = call

    def _begin(self, call: _Call) -> None:
        try:
            self._settle(call, call.run())
        except BaseException as exc:
            self._answer(call, self._error(call.function, exc, call.tid))
        if call.answered:
            self._release(call)

    def _release(self, call: _Call) -> None:
        """Have the calls that waited for this one wait for a place."""
        for other in self._order.leave(call) if self._order is not None else ():
            self._wait_for_place(other)

    def _wait_for_place(self, call: _Call) -> None:
        """Put a call behind those that wait for a place, or before them if it needs none."""
        self._for_place = self._for_place or deque()
        if call.needs_place:
            self._for_place.append(call)
        else:
            self._for_place.appendleft(call)
        self.is_idle = False

    def settle(self, result: Any, function: Function, rep: str, tid: Tid, size: int, ctx: Context) -> None:
        """Answer a call that was run already, now or when its result is there.

        Args:
            result: what it gave.
            function, rep, tid, size, ctx: as of `accept`.

        Raises:
            Exception: the result cannot be sent.
        """
        self._settle(_Call(_nothing, function, rep, tid, size, ctx), result)

    def _settle(self, call: _Call, result: Any) -> None:
        if is_pending(result):
            self._follow(call, result)
        else:
            self._answer(call, self._reply(call.rep, result, call.tid))

    def _follow(self, call: _Call, result: Awaitable[Any]) -> None:
        """Wait for the result of a call."""
        self._note(call)
        self._running[call] = None
        self.is_idle = False
        task = self._on.spawn(self._await(call, result))
        if call in self._running:
            call.task = task
            if (timeout := self._limits.handler_timeout) is not None:
                call.timer = self._on.later(timeout, partial(self._time_out, call))

    async def _await(self, call: _Call, result: Awaitable[Any]) -> None:
        try:
            reply = self._reply(call.rep, await result, call.tid)
        except BaseException as exc:  # a cancelled call is answered already, and goes no further than this
            call.answered |= self._on.dispatcher.is_end(exc)
            is_end = call.answered and not isinstance(exc, Exception)  # what else it raises is a failure to be logged
            reply = b'' if is_end else self._error(call.function, exc, call.tid)
        self._finish(call, reply)
        self._wake()

    def _time_out(self, call: _Call) -> None:
        if not call.answered:
            self._on.meter.met('handler_timeout')
            self._interrupt(call, TOO_LONG)
            self._wake()

    def _finish(self, call: _Call, reply: bytes) -> None:
        self._running.pop(call, None)
        if call.timer is not None:
            call.timer.cancel()
        if not call.answered:
            self._answer(call, reply)
        self._release(call)
        self.advance()

    def _answer(self, call: _Call, reply: bytes) -> None:
        call.answered = True
        self._send(reply)
        if call.tid is not None:
            self._by_tid.pop(call.tid, None)  # where it was never in flight, it is not there
        else:
            self._turn = None

    def advance(self) -> None:
        """Let go on what waited, as far as there is room, and for a slice of time; `can_advance` tells of the rest.

        It is a loop, and not one call from within the other, however many wait.
        """
        if self._advancing:
            return
        self._advancing = True
        clock = self._on.dispatcher.clock
        deadline = clock() + SLICE
        try:
            while self.can_advance and self._has_room() and clock() < deadline:
                if self._can_begin:
                    call = self._for_place.popleft()
                    self._waiting_bytes -= call.size
                    if call.answered:  # it was cancelled while it waited for others: those behind it waited, too
                        self._release(call)
                    else:
                        self._begin(call)
                else:
                    message, size = self._for_turn.popleft()
                    self._waiting_bytes -= size
                    self._resume(message, size)
        finally:
            self._advancing = False
            self.is_idle = not (self._running or self._for_place or self._for_turn)

    def _interrupt(self, call: _Call, exc: Error) -> None:
        self._answer(call, codec.error(exc, call.tid))
        if call in self._for_place:
            self._for_place.remove(call)
            self._waiting_bytes -= call.size
            self._release(call)
        if call.ctx is not None:
            call.ctx.is_cancelled = True
        if call.task is not None:
            call.task.cancel()
        self.advance()

    def _reply(self, rep: str, value: Any, tid: Tid) -> bytes:
        if isinstance(value, self._on.unsendable):
            if isinstance(value, Exception):  # aiohttp's HTTPException is a response too: returned is as raised
                raise value
            raise Error(406, 'This result can be had over HTTP only')
        return self._on.encoder.reply(rep, value, tid, self._now())

    def _error(self, function: Function, exc: BaseException, tid: Tid) -> bytes:
        return codec.error(self._on.dispatcher.error(exc, function.name), tid)
