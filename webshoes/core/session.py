"""One WebSocket peer: messages in, messages out, no socket.

receive(bytes) ──► told apart by its fields (section 5) ──► subscription, call, cancel, ping
take(size)     ◄── replies in the order they came to be, then what the subscriptions lack
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from webshoes.core import codec, frames, tids
from webshoes.core.audience import Subscription
from webshoes.core.calls import EMPTY, Calls, Message, arguments
from webshoes.core.context import Context
from webshoes.core.errors import STOPPING, Error
from webshoes.core.events import Position
from webshoes.core.feed import Feed, headroom, push_frame
from webshoes.core.handler import Function
from webshoes.core.names import Since, check_since
from webshoes.core.order import Line, Subject
from webshoes.core.params import Texts
from webshoes.core.rate import Rate
from webshoes.core.registry import Entry, Match
from webshoes.core.services import Services
from webshoes.core.tids import Tid, is_tid

_STOPPING = Error(503, STOPPING)
_SUBSCRIBE = Function(Feed.subscribe, "on('subscribe')", threaded=False)
_UNSUBSCRIBE = Function(Feed.unsubscribe, "'off'", threaded=False)
NO_TEXTS: Texts = {}
PLAIN = codec.PLAIN | {str}  # types of results that are sent as they are
_BROKEN: Any = object()  # in the place of a message that cannot be read
_UNKNOWN: Any = _SUBSCRIBE  # in the place of a command that is not known: its `fn` is no handler's


class Refused(Struct, frozen=True):
    """A message that is refused as it came: the error, and the `tid` that the answer carries."""

    error: Error
    tid: Any = None


class Session:
    """One peer.

    Args:
        services: what all connections share.
        ctx: what the contexts of its calls are made of, and hooks are told.
        wake: called when there may be something to `take` that did not come of a `receive`.

    Attributes:
        feed: what goes out.
        is_dry: whether the last `take` took all that there was.
        close_code, close_reason: with what the connection is to be closed, once there is a code.
    """

    __slots__ = (
        '_arrived',
        '_calls',
        '_dispatcher',
        '_headroom',
        '_high',
        '_is_open',
        '_limits',
        '_line',
        '_now',
        '_on',
        '_rate',
        '_registry',
        '_reply',
        '_scope',
        '_stopping',
        'close_code',
        'close_reason',
        'feed',
        'is_dry',
    )

    def __init__(self, services: Services, ctx: Context, wake: Callable[[], None]) -> None:
        self._on = services
        self._limits = services.limits
        self._high = services.limits.send_buffer
        self._headroom = headroom(self._high)
        self._registry = services.registry
        self._dispatcher = services.dispatcher
        self._now = services.now
        self._reply = services.encoder.reply
        self._scope = ctx.scope
        self._is_open = services.limits.max_rate is None  # to calls that are answered in one step, as no other waits
        self.feed = Feed(services, ctx, wake)
        self._arrived: deque[tuple[Any, int]] = EMPTY  # messages of a frame that are not looked at yet
        self._calls = Calls(services, self.feed.send, self._resume, wake, self._has_room)
        self._line: Line | None = None  # made when the first message about an event waits for its turn
        self._rate = None if self._is_open else Rate(services.meter, services.dispatcher.clock)
        self._stopping = False
        self.is_dry = True
        self.close_code: int | None = None
        self.close_reason = ''

    # --- in ---

    def receive(self, data: bytes) -> None:
        """Take a text message. Whatever it is, it is answered, and no exception leaves here.

        Nearly every message is a call that goes where one went before and waits for nothing. It is answered here, as
        `_handle`, `Calls.accept` and `Dispatcher.call` would do it; what may be otherwise is left to these, before
        anything has run. One that is not UTF-8 sets `close_code` to 1007 (RFC 6455 section 8.1).
        """
        # No handler is called inside these `except` blocks: the exception would become the context of its own ones.
        try:
            message = codec.read(data)
        except (ValueError, RecursionError, codec.DecodeError):
            message = _BROKEN
        try:
            for field, commands in self._registry.commands:  # noqa: B007  # they are used below
                if field in message:
                    break
            command = message[field]
            known = commands[command]
            fn, values = known.fm[known.key], message[known.q] if known.q else message
            tid = message['tid'] if 'tid' in message else None  # noqa: SIM401  # `get` takes twice as long
        except (LookupError, TypeError):
            fn, known = None, _UNKNOWN
        calls, feed = self._calls, self.feed
        if (
            fn is not known.fn
            or type(values) is not dict
            or (type(tid) is not int and 'tid' in message and not is_tid(tid, self._limits.max_name))
            or not (calls.is_idle or calls.can_run(tid))
            or not self._is_open
            or feed.unsent > self._high
        ):
            return self._receive_value(message, len(data)) if message is not _BROKEN else self._receive_broken(data)
        dispatcher, bind, now = self._dispatcher, known.bind, self._now
        clock = dispatcher.clock  # what is local is called more quickly
        try:
            q = bind(values, NO_TEXTS)
            started = clock()
            try:
                result = fn(ctx := Context(self._scope, command, tid, 'WS'), q)
            finally:
                if clock() - started > dispatcher.slow:
                    dispatcher.check_pace(started, known.handler.name)
            if type(result) is dict or type(result) in PLAIN:
                del ctx  # it takes no memory while the reply is encoded
                reply = self._reply(known.rep, result, tid, now())
                size = len(reply)
                frame = (frames.SHORT[size] if size < 126 else feed.header(size)) + reply  # `Feed.frame`
                feed.outbox.append(frame)
                feed.unsent += len(frame)
            else:
                result = dispatcher.paced(result, known.handler.name)
                calls.settle(result, known.handler, known.rep, tid, len(data), ctx)
        except BaseException as exc:
            feed.send(codec.error(dispatcher.error(exc, known.handler.name), tid))

    def _receive_broken(self, data: bytes) -> None:
        error = None
        try:
            codec.decode(data)
        except UnicodeDecodeError:
            self.close_code, self.close_reason = 1007, 'A text message that is not UTF-8'
        except Error as exc:
            error = exc
        if error is not None:
            self._refuse(error, data)

    def _refuse(self, error: Error, data: bytes) -> None:
        """Refuse a message that is not read, or all messages of an array."""
        found = tids.find(data, self._limits.max_name, self._limits.max_batch)
        self._arrive([Refused(error, tid) for tid in found], len(data) // len(found))
        self._proceed()

    def _receive_value(self, message: Any, size: int) -> None:
        if type(message) is dict and not self._arrived and self._calls.is_quiet and self._has_room():
            self._handle(message, size)  # as `_proceed` would
            return
        if isinstance(message, list):
            self._receive_batch(message, size)
        else:
            self._arrive((message,), size)
        self._proceed()

    def receive_binary(self, data: bytes) -> None:
        """Answer a binary message with error 400."""
        self._refuse(Error(400, 'Messages are text frames of JSON, not binary'), data)

    def _receive_batch(self, messages: list[Any], size: int) -> None:
        if not messages:
            messages = [Refused(Error(400, 'An array of messages has at least one'))]
        elif self._on.meter.over('max_batch', len(messages)):
            messages = self._refused_batch(messages)
        self._arrive(messages, size // len(messages))

    def _refused_batch(self, messages: list[Any]) -> list[Refused]:
        """Refuse an array that is too long: one error for each message with a `tid`, and one for all others."""
        error = Error(400, f'An array of messages has at most {self._limits.max_batch}')
        named = [message for message in messages if type(message) is dict and 'tid' in message]
        refused = [Refused(error, tids.echo(message['tid'], self._limits.max_name)) for message in named]
        return refused if len(named) == len(messages) else [Refused(error), *refused]

    def _arrive(self, messages: Sequence[Any], size: int) -> None:
        """Have messages of so many bytes each looked at, after those that came before."""
        self._is_open = False  # until they were
        self._arrived = self._arrived or deque()
        self._arrived.extend((message, size) for message in messages)

    def _too_fast(self) -> None:
        self.close_code, self.close_reason = 1013, 'Too many calls for too long'

    def _has_room(self) -> bool:
        return self.feed.unsent <= self._high

    def _proceed(self) -> None:
        """Do what is to be done, as far as there is room for the answers."""
        self._calls.advance()
        while self._arrived and self._has_room():
            self._in_turn(*self._arrived.popleft())
        if not self._arrived:
            self._arrived = EMPTY
            self._is_open = self._rate is None and not self._stopping

    def _in_turn(self, message: Any, size: int) -> None:
        """Handle a message now, or after the one without `tid` that is being answered."""
        if not self._calls.turn_is_taken or (self._overtakes(message) and not self._is_in_line(message)):
            self._handle(message, size)
            return
        try:
            self._calls.wait_for_turn(message, size)
        except Error as exc:
            tid = message.get('tid') if type(message) is dict else None
            self.feed.send(codec.error(exc, tids.echo(tid, self._limits.max_name)))
            return
        if (subject := self._subject(message)) is not None:
            self._line = self._line or Line()
            self._line.enter(subject)

    def _resume(self, message: Any, size: int) -> None:
        """Handle a message whose turn has come."""
        if self._line is not None and (subject := self._subject(message)) is not None:
            self._line.leave(subject)
        self._handle(message, size)

    def _is_in_line(self, message: Any) -> bool:
        """Return whether a message about the same subscription waits for its turn, so that this one waits, too."""
        subject = self._subject(message) if self._line is not None else None
        return self._line is not None and subject is not None and self._line.has(subject)

    def _subject(self, message: Any) -> Subject | None:
        """Return what a message that was not checked yet is about, if it is about an event."""
        if type(message) is dict:
            for field, entry in self._registry.fields:
                if field in message:
                    event, uid, is_end = message[field], message.get('uid'), message.get('off') is True
                    if entry is None or type(event) is not str:
                        return None
                    return Subject(event, uid if type(uid) is str else None if is_end else '', is_end)  # '': a new one
        return None

    def _overtakes(self, message: Any) -> bool:
        if type(message) is Refused:
            return message.tid is not None
        if type(message) is not dict:
            return False
        if 'tid' in message:
            return is_tid(message['tid'], self._limits.max_name)
        named = any(field in message for field, _ in self._registry.fields)
        return not named and ('cancel' in message or 'ping' in message)

    def _handle(self, message: Any, size: int) -> None:
        if type(message) is Refused:
            self.feed.send(codec.error(message.error, message.tid))
            return
        tid: Tid = None
        try:
            if type(message) is not dict:
                raise Error(400, 'A message is a JSON object')
            if 'tid' in message:
                tid = message['tid']
                if type(tid) is not int:
                    tid = tids.echo(tid, self._limits.max_name)
                    self._check_tid(message, 'tid')
            for field, entry in self._registry.fields:
                if field in message:
                    if entry is None:
                        self._call(field, message, tid, size)
                    else:
                        self._subscription(entry, message, tid, size)
                    return
            self._control(message)
        except BaseException as exc:
            self.feed.send(codec.error(self._on.dispatcher.error(exc, 'webshoes'), tid))

    def _control(self, message: Message) -> None:
        """Do what a message asks for that neither calls nor subscribes."""
        if 'cancel' in message:
            self._cancel(self._check_tid(message, 'cancel'))
        elif 'ping' in message:
            self.feed.send(codec.encode({'pong': self._check_tid(message, 'ping')}))
        else:
            raise Error(400, 'Invalid command')

    def _check_tid(self, message: Message, field: str) -> Tid:
        tid: Tid = message[field]
        if not is_tid(tid, self._limits.max_name):
            if isinstance(tid, str):
                self._on.meter.met('max_name')
            raise Error(400, f"'{field}' is a number, or a text of at most {self._limits.max_name} characters")
        return tid

    # --- calls ---

    def _call(self, field: str, message: Message, tid: Tid, size: int) -> None:
        if self._stopping:
            raise _STOPPING
        if self._rate is not None:
            self._rate.check(self._too_fast)
        command = message[field]
        match = self._find(field, command)
        q = match.entry.q
        values = message.get(q) if q else None
        if type(values) is not dict:
            values = arguments(match.entry, message)
        ctx = Context(self._scope, command, tid, 'WS')
        run = partial(self._dispatcher.call, match, ctx, values, NO_TEXTS)
        handler: Any = match.target  # as a command never goes to a folder
        self._calls.accept(run, handler, match.entry.rep, tid, size, ctx)

    def _find(self, field: str, command: object) -> Match:
        if isinstance(command, str) and len(command) > 4 * self._limits.max_name:
            self._on.meter.met('max_name')
            raise Error(400, f'A command has at most {4 * self._limits.max_name} characters')
        return self._registry.find_command(field, command)

    def _cancel(self, tid: Tid) -> None:
        if not self._calls.cancel(tid):
            self.feed.send(codec.encode({'cancel': tid, 'found': False}))

    # --- subscriptions ---

    def _subscription(self, entry: Entry, message: Message, tid: Tid, size: int) -> None:
        name = self._on.check_name(message[entry.evt], entry.evt)
        uid = self._on.check_name(message['uid'], 'uid') if 'uid' in message else None
        off = message.get('off', False)
        if not isinstance(off, bool):
            raise Error(400, "'off' is true or false")
        if off:
            end = partial(_unsubscribe, self.feed, name, uid)
            subject = Subject(name, uid, is_end=True)
            return self._calls.accept(end, _UNSUBSCRIBE, entry.rep, tid, size, subject=subject)
        if self._stopping:
            raise _STOPPING
        since = check_since(message['since']) if 'since' in message else None
        subscription = Subscription(self.feed, name, uid or self._on.new_id(), entry.evt, entry.rep)
        begin = partial(_subscribe, subscription, since)
        subject = Subject(name, subscription.uid)
        return self._calls.accept(begin, _SUBSCRIBE, entry.rep, tid, size, subject=subject)

    # --- out ---

    @property
    def has_output(self) -> bool:
        """Return whether `take` may have something."""
        feed, calls = self.feed, self._calls
        return bool(feed.outbox or feed.stale or self._arrived or calls.can_advance)

    @property
    def is_behind(self) -> bool:
        """Return whether something of what was received is to be answered, or sent, before more should be received."""
        return bool(self._arrived or self.feed.outbox)

    def write_answers(self) -> bool:
        """Write all replies that wait at once, if there are few and a way, and nothing else to send or to be done."""
        feed, calls = self.feed, self._calls
        way, size = feed.way, feed.unsent
        outbox: list[Any] = feed.outbox
        count = len(outbox)  # before all else: another thread may push meanwhile
        if way is None or feed.stale or feed.noticed or self._arrived or not (calls.is_idle or calls.is_quiet):
            return False
        if size > self._headroom:
            return False
        feed.written += size
        feed.unsent = 0
        write = way.write  # a call of what is local is quicker
        try:
            if count == 1:
                write(outbox.pop(0))
            elif count:
                found = outbox[:count]
                del outbox[:count]
                write(b''.join(found))
        except (RuntimeError, AttributeError):  # closed a moment ago, as the loops tell it
            feed.shut()
        return True

    def take(self, size: int) -> list[bytes]:
        """The next frames to send, about `size` bytes of them; none when there is nothing to send."""
        if not (is_quiet := self._calls.is_quiet and not self._arrived):
            self._proceed()
        found, left = self.feed.take(size, self.feed.frame)
        while left > 0 and self.feed.stale and (push := self.feed.take_push()) is not None:
            frame = self.feed.frame(push_frame(*push))
            found.append(frame)
            left -= len(frame)
        self.is_dry = is_quiet and left > 0
        return found

    # --- the end ---

    @property
    def is_busy(self) -> bool:
        """Return whether a call is running or waiting."""
        return not self._calls.is_idle

    def stop(self) -> None:
        """Refuse new calls and subscriptions with 503; those that were accepted go on."""
        self._stopping = True
        self._is_open = False

    def interrupt(self) -> None:
        """As `stop`, and answer the calls that were accepted with 503 and end them."""
        self.stop()
        self._calls.interrupt(_STOPPING)

    def close(self) -> None:
        """The peer is gone: end its subscriptions and what waits. Calls that run go on to their end, unheard."""
        self.stop()
        self._arrived.clear()
        self._calls.abandon()
        self.feed.close()


def _subscribe(subscription: Subscription[Feed], since: Since | None) -> Message | Awaitable[Message]:
    position = subscription.owner.subscribe(subscription, since)
    return _answer(subscription, position) if isinstance(position, Position) else _answer_later(subscription, position)


def _unsubscribe(feed: Feed, name: str, uid: str | None) -> Message:
    feed.unsubscribe(name, uid)
    return {'status': 'Event removed'} if uid is None else {'uid': uid, 'status': 'Event removed'}


def _answer(subscription: Subscription[Any], position: Position) -> Message:
    answer = {'uid': subscription.uid, 'status': 'Event added', 'ver': position.ver, 'epoch': position.epoch}
    return answer if position.recovered is None else {**answer, 'recovered': position.recovered}


async def _answer_later(subscription: Subscription[Any], position: Awaitable[Position]) -> Message:
    return _answer(subscription, await position)
