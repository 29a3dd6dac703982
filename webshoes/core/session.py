"""One WebSocket peer: messages in, messages out, no socket.

receive(bytes) ──► told apart by its fields (section 5) ──► subscription, call, cancel, ping
take(size)     ◄── replies in the order they came to be, then what the subscriptions lack
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from webshoes.core import codec
from webshoes.core.calls import Calls, CallServices, Message, Tid
from webshoes.core.context import Scope
from webshoes.core.errors import Error
from webshoes.core.events import Store, Subscription, check_name, check_since, push_frame
from webshoes.core.limits import over
from webshoes.core.registry import Entry, Registry

_STOPPING = Error(503, 'The server is stopping')


class Services(CallServices, frozen=True, kw_only=True):
    """What the sessions of one app share.

    Attributes:
        registry, store: the app's.
        new_uid: makes the uid of a subscription whose client named none.
    """

    registry: Registry
    store: Store
    new_uid: Callable[[], str]


class Session:
    """One peer.

    Args:
        services: what the sessions of one app share.
        scope: what the contexts of its calls share.
        wake: called when there may be something to `take` that did not come of a `receive`.
    """

    def __init__(self, services: Services, scope: Scope, wake: Callable[[], None]) -> None:
        self._on = services
        self._limits = services.limits
        self.wake = wake
        self._arrived: deque[tuple[Any, int]] = deque()  # messages of a frame that are not looked at yet
        self._replies: deque[bytes] = deque()
        self._unsent = 0  # bytes of replies
        self._calls = Calls(services, scope, self._send, self._handle, wake, self._has_room)
        self._subscriptions: dict[tuple[str, str], Subscription[Session]] = {}
        self._stale: deque[Subscription[Session]] = deque()
        self._stopping = False
        self.close_code: int | None = None

    # --- in ---

    def receive(self, data: bytes) -> None:
        """Take a text message. Whatever it is, it is answered, and no exception leaves here.

        One that is not UTF-8 sets `close_code` to 1007 (RFC 6455 section 8.1).
        """
        try:
            message = codec.decode(data)
        except UnicodeDecodeError:
            self.close_code = 1007
        except Error as exc:
            self._arrived.append((exc, 0))
        else:
            if isinstance(message, list):
                self._receive_batch(message, len(data))
            else:
                self._arrived.append((message, len(data)))
        self._proceed()

    def receive_binary(self) -> None:
        """Take a binary message: error 400."""
        self._arrived.append((Error(400, 'Messages are text frames of JSON, not binary'), 0))
        self._proceed()

    def _receive_batch(self, messages: list[Any], size: int) -> None:
        limit = self._limits.max_batch
        if not messages:
            messages = [Error(400, 'An array of messages has at least one')]
        elif over(len(messages), limit):
            messages = [Error(400, f'An array of messages has at most {limit}')]
        self._arrived.extend((message, size // len(messages)) for message in messages)

    def _has_room(self) -> bool:
        return self._unsent <= self._limits.send_buffer

    def _proceed(self) -> None:
        """Do what is to be done, as far as there is room for the answers."""
        self._calls.advance()
        while self._arrived and self._has_room():
            self._in_turn(*self._arrived.popleft())

    def _in_turn(self, message: Any, size: int) -> None:
        """Handle a message now, or after the one without `tid` that is being answered."""
        if not self._calls.turn_is_taken or self._overtakes(message):
            self._handle(message, size)
            return
        try:
            self._calls.wait_for_turn(message, size)
        except Error as exc:
            self._send(codec.error(exc))

    def _send(self, reply: bytes) -> None:
        self._replies.append(reply)
        self._unsent += len(reply)

    def _overtakes(self, message: Any) -> bool:
        if not isinstance(message, dict):
            return False
        if 'tid' in message:
            return self._is_tid(message['tid'])
        registry = self._on.registry
        named = any(field in message for field in (*registry.evt_entries, *registry.cmd_entries))
        return not named and ('cancel' in message or 'ping' in message)

    def _handle(self, message: Any, size: int) -> None:
        tid: Tid = None
        try:
            if isinstance(message, Error):
                raise message
            if not isinstance(message, dict):
                raise Error(400, 'A message is a JSON object')
            if 'tid' in message:
                tid = self._check_tid(message, 'tid')
            self._dispatch(message, tid, size)
        except BaseException as exc:
            self._send(codec.error(self._on.dispatcher.error(exc, 'webshoes'), tid))

    def _dispatch(self, message: Message, tid: Tid, size: int) -> None:
        """Do what a message asks for: it is the first of these whose field it has."""
        registry = self._on.registry
        for field, entry in registry.evt_entries.items():
            if field in message:
                return self._subscription(entry, message, tid)
        for field in registry.cmd_entries:
            if field in message:
                return self._call(field, message, tid, size)
        if 'cancel' in message:
            return self._cancel(self._check_tid(message, 'cancel'))
        if 'ping' in message:
            return self._send(codec.encode({'pong': self._check_tid(message, 'ping')}))
        raise Error(400, 'Invalid command')

    def _is_tid(self, tid: Any) -> bool:
        if isinstance(tid, str):
            return len(tid) <= self._limits.max_name
        return isinstance(tid, (int, float)) and not isinstance(tid, bool)

    def _check_tid(self, message: Message, field: str) -> Tid:
        tid: Tid = message[field]
        if not self._is_tid(tid):
            raise Error(400, f"'{field}' is a number, or a text of at most {self._limits.max_name} characters")
        return tid

    # --- calls ---

    def _call(self, field: str, message: Message, tid: Tid, size: int) -> None:
        if self._stopping:
            raise _STOPPING
        command = message[field]
        if isinstance(command, str) and len(command) > 4 * self._limits.max_name:
            raise Error(400, f'A command has at most {4 * self._limits.max_name} characters')
        self._calls.accept(self._on.registry.find_command(field, command), command, message, tid, size)

    def _cancel(self, tid: Tid) -> None:
        if not self._calls.cancel(tid):
            self._send(codec.encode({'cancel': tid, 'found': False}))

    # --- subscriptions ---

    def _subscription(self, entry: Entry, message: Message, tid: Tid) -> None:
        name = check_name(message[entry.evt], self._limits.max_name, entry.evt)
        uid = check_name(message['uid'], self._limits.max_name, 'uid') if 'uid' in message else None
        off = message.get('off', False)
        if not isinstance(off, bool):
            raise Error(400, "'off' is true or false")
        answer = self._unsubscribe(name, uid) if off else self._subscribe(entry, message, name, uid)
        self._send(codec.reply(entry.rep, answer, tid, self._on.now()))

    def _subscribe(self, entry: Entry, message: Message, name: str, uid: str | None) -> Message:
        if self._stopping:
            raise _STOPPING
        since = check_since(message['since']) if 'since' in message else None
        limit = self._limits.max_subscriptions
        if (name, uid) not in self._subscriptions and over(len(self._subscriptions) + 1, limit):
            raise Error(429, f'This connection has {limit} subscriptions already')
        uid = uid or self._on.new_uid()
        if (name, uid) in self._subscriptions:
            self._drop(name, uid)
        subscription = Subscription(self, name, uid, entry.evt, entry.rep)
        position = self._on.store.subscribe(subscription, since)
        self._subscriptions[name, uid] = subscription
        self.mark_stale(subscription)
        answer = {'uid': uid, 'status': 'Event added', 'ver': position.ver, 'epoch': position.epoch}
        return answer if position.recovered is None else {**answer, 'recovered': position.recovered}

    def _unsubscribe(self, name: str, uid: str | None) -> Message:
        uids = [mine for event, mine in self._subscriptions if event == name and uid in (None, mine)]
        if not uids:
            raise Error(404, 'No such subscription')
        for mine in uids:
            self._drop(name, mine)
        return {'status': 'Event removed'} if uid is None else {'uid': uid, 'status': 'Event removed'}

    def _drop(self, name: str, uid: str) -> None:
        self._on.store.unsubscribe(self._subscriptions.pop((name, uid)))

    # --- out ---

    def mark_stale(self, subscription: Subscription[Session]) -> None:
        """Have `take` look at a subscription, whose event was triggered."""
        if not subscription.stale:
            subscription.stale = True
            self._stale.append(subscription)

    @property
    def has_output(self) -> bool:
        """Whether `take` may have something."""
        return bool(self.is_behind or self._stale or self._calls.can_advance)

    @property
    def is_behind(self) -> bool:
        """Whether something of what was received is to be answered, or sent, before more should be received."""
        return bool(self._replies or self._arrived)

    def take(self, size: int) -> list[bytes]:
        """The next messages to send, about `size` bytes of them; none when there is nothing to send."""
        self._proceed()
        messages: list[bytes] = []
        while size > 0 and (message := self._next_message()) is not None:
            messages.append(message)
            size -= len(message)
        return messages

    def _next_message(self) -> bytes | None:
        if self._replies:
            reply = self._replies.popleft()
            self._unsent -= len(reply)
            return reply
        while self._stale:
            subscription = self._stale[0]
            is_live = self._subscriptions.get((subscription.name, subscription.uid)) is subscription
            push = self._on.store.next_push(subscription) if is_live else None
            if push is not None:
                self._stale.rotate(-1)  # the others have their turn before its next version
                return push_frame(subscription, push)
            self._stale.popleft().stale = False
        return None

    # --- the end ---

    @property
    def is_busy(self) -> bool:
        """Whether a call is running or waiting."""
        return self._calls.is_busy

    def stop(self) -> None:
        """Refuse new calls and subscriptions with 503; those that were accepted go on."""
        self._stopping = True

    def interrupt(self) -> None:
        """As `stop`, and answer the calls that were accepted with 503 and end them."""
        self.stop()
        self._calls.interrupt(_STOPPING)

    def close(self) -> None:
        """The peer is gone: end its subscriptions and what waits. Calls that run go on to their end, unheard."""
        self.stop()
        self._arrived.clear()
        self._calls.abandon()
        for name, uid in list(self._subscriptions):
            self._drop(name, uid)
