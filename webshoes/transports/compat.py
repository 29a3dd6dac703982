"""Uses of aiohttp beyond its public interface: no other module names a private attribute of aiohttp's.

Each use is tried when this module is imported, on objects of aiohttp's own, without a socket or a running loop.
`RELIANCES` says which of them work, and what is lost without each. Where one does not work, aiohttp's public interface
carries everything. A connection, a request and a message look at no more than a flag.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from inspect import signature
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, cast

from aiohttp import EMPTY_PAYLOAD, HttpVersion11, WSMessage, WSMsgType, web

try:
    from aiohttp.http import StreamWriter as StreamWriter
except ImportError:  # tested in a process of its own, which coverage does not see
    StreamWriter = object  # type: ignore[assignment,misc]

try:
    from aiohttp.http import HttpProcessingError as HttpProcessingError
    from aiohttp.http_exceptions import LineTooLong as LineTooLong
except ImportError:  # a malformed request is then answered with 400, whatever is wrong with it

    class LineTooLong(Exception):  # type: ignore[no-redef]  # noqa: N818
        """Stands in for aiohttp's error; never raised."""

    HttpProcessingError = LineTooLong  # type: ignore[misc,assignment]

try:
    from aiohttp._websocket.reader import WebSocketDataQueue
except ImportError:  # tested in a process of its own, which coverage does not see
    WebSocketDataQueue = object  # type: ignore[assignment,misc]

PIPELINED = 16  # requests that are answered in one go; more of them take their turns
QUEUE_LIMIT = 256 * 1024  # bytes of queued messages, before no more frames are read


# Arguments of each `Request`, which counts the fields of forms by itself.
REQUEST_SETTINGS: dict[str, Any] = {}
if 'client_max_fields' in signature(web.BaseRequest.__init__).parameters:
    REQUEST_SETTINGS['client_max_fields'] = 0

Messages = list[tuple[Any, Any]]


def is_idle(connection: Any) -> bool:
    """Return whether the task of a connection waits for a request, or has not begun, and none is queued for it."""
    if connection._messages:
        return False
    waiter = connection._waiter
    return not connection._request_count if waiter is None else not waiter.done()


def queued_requests(connection: Any) -> Sequence[tuple[Any, Any]]:
    """The requests that a connection has received and not begun to serve, each with its body."""
    return connection._messages  # type: ignore[no-any-return]


def is_upgraded(connection: Any) -> bool:
    """Return whether a connection has received a request to speak another protocol."""
    return connection._upgraded  # type: ignore[no-any-return]


def close_idle(server: web.Server) -> None:
    """Close the connections that wait for a request, so that `shutdown` has not to wait for them."""
    close = getattr(server, 'pre_shutdown', None)
    if close is not None:
        close()


class HttpLane:
    """A parser in the place of a connection's own, which shows each request to `take` before aiohttp's task gets it.

    It is used only while that task waits for a request.

    Args:
        connection: the connection, whose parser is replaced; `idle_until` is when aiohttp is to close it, if nothing
            comes after what `take` has answered.
        take: answers requests, and returns those that it leaves to the task.
    """

    def __init__(self, connection: Any, take: Callable[[Messages], Messages]) -> None:
        self._connection = connection
        self._parser = parser = connection._parser
        self._feed = parser.feed_data
        self._consumed = parser.message_consumed
        self._take = take
        connection._parser = self

    def feed_data(self, data: bytes) -> tuple[Messages, bool, bytes]:
        """Parse bytes, and answer what can be answered at once."""
        messages, upgraded, tail = self._feed(data)
        if 0 < len(messages) <= PIPELINED and is_idle(self._connection):
            left = self._take(messages)
            for _ in messages[len(left) :]:  # as many as were answered
                self._consumed()
            if not left:
                self._connection._next_keepalive_close_time = self._connection.idle_until
            messages = left
        return messages, upgraded, tail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


def release(connection: Any) -> None:
    """Drop what only requests need, 3 kB, from a connection that has become a WebSocket, and may last."""
    if IS_RELEASED and connection._upgraded and not connection._messages:
        connection._parser, connection._messages = None, ()


class MessageQueue(WebSocketDataQueue):
    """aiohttp's queue of a WebSocket's messages, initialized when it first holds one: that takes a kilobyte.

    aiohttp's reader calls `feed_data` for each message, also where that is overridden. Of a queue that holds nothing it
    reads only `_size` and `_limit`. Both are 0, so the queue never counts as full.
    """

    __slots__ = ('_is_initialized', 'loop')

    _size = _limit = 0  # until it is initialized; where the class is compiled, they are 0 by themselves

    def __init__(self, connection: Any) -> None:
        self._protocol = connection
        self.loop: asyncio.AbstractEventLoop = connection._loop
        self._is_initialized = False

    def put(self, message: Any, size: int) -> None:
        """Hold a message."""
        if not self._is_initialized:
            self._is_initialized = True
            super().__init__(self._protocol, QUEUE_LIMIT, loop=self.loop)
        super().feed_data(message, size)

    def get(self) -> Coroutine[Any, Any, Any]:
        """Return the next message, to be awaited."""
        return super().read()


class QueuedWebSocket(web.WebSocketResponse[Literal[False]]):
    """A WebSocket with a queue of ours: `prepare` assigns one to `_reader`, and `receive` and `close` read from it.

    Attributes:
        queue: the queue, once the WebSocket is open.
    """

    queue: Any = None

    def make_queue(self, connection: Any) -> Any:
        """Return the queue of a connection."""
        return MessageQueue(connection)

    @property
    def _reader(self) -> Any:
        return self.queue

    @_reader.setter
    def _reader(self, queue: Any) -> None:
        self.queue = self.make_queue(queue._protocol)


# --- whether it works ---

GET = b'GET /a?b=1 HTTP/1.1\r\nHost: a\r\n\r\n'
POST = b'POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}'
UPGRADE = (
    b'GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n'
    b'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n'
)
FRAME = b'\x81\x81\0\0\0\0a'
MANY = 40  # requests, more than aiohttp's parser gives to a task that takes none


class _Given(Exception):  # noqa: N818  # no error: it ends aiohttp's task
    """The arguments that aiohttp gives to what makes a request."""


class _Connection(web.RequestHandler):
    """A connection of aiohttp's, on which the uses are tried; its transport takes everything.

    As on a connection of ours, an attribute that aiohttp does not know cannot be set.
    """

    __slots__ = ()

    idle_until = 7.0

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        def give(*args: Any) -> Any:
            raise _Given(*args)

        manager = SimpleNamespace(
            request_handler=give,
            request_factory=give,
            requests_count=0,
            handler_cancellation=False,
            connection_lost=lambda *_: None,
        )
        super().__init__(cast(Any, manager), loop=loop, access_log=cast(Any, None))
        written: list[bytes] = []
        names = ('get_extra_info', 'is_closing', 'close', 'pause_reading', 'resume_reading')
        nothing = dict.fromkeys(names, lambda *_: None)
        writes = {'write': written.append, 'writelines': written.extend}
        self.transport = cast(Any, SimpleNamespace(written=written, **writes, **nothing))


def _given(loop: asyncio.AbstractEventLoop, data: bytes) -> tuple[Any, ...]:
    """The arguments that aiohttp gives to what makes a request, when its bytes have come."""
    connection = _Connection(loop)
    task = connection.start()
    task.send(None)
    connection.data_received(data)
    try:
        task.send(None)
    except _Given as given:
        return given.args
    raise RuntimeError('no request is made')


def _makes_requests(loop: asyncio.AbstractEventLoop) -> bool:
    message, payload, protocol, writer, task = _given(loop, POST)
    request = web.BaseRequest(message, payload, protocol, writer, task, loop, **REQUEST_SETTINGS, client_max_size=7)
    is_ours = request.client_max_size == 7 and request.method == 'POST' and request.protocol is protocol
    own = StreamWriter(protocol, loop)
    own.length = 2
    _finish(own.write_headers('HTTP/1.1 200 OK', message.headers))
    _finish(own.write_eof(b'{}'))
    written = b''.join(protocol.transport.written)
    return (
        is_ours
        and not own.chunked
        and own.output_size == len(written)
        and written.startswith(b'HTTP/1.1 200 OK\r\n')
        and written.endswith(b'\r\n\r\n{}')
    )


def _shows_requests(loop: asyncio.AbstractEventLoop) -> bool:
    connection, shown = _Connection(loop), Messages()
    is_left = False

    def take(messages: Messages) -> Messages:
        shown.extend(messages)
        return messages if is_left else []

    HttpLane(connection, take)
    connection.data_received(GET)  # before the task has begun
    task = connection.start()
    waiter = task.send(None)  # now it waits
    for _ in range(MANY):
        connection.data_received(POST)
    is_kept_from_task = not waiter.done() and is_idle(connection) and len(shown) == 1 + MANY
    is_left = True
    connection.data_received(GET)
    is_given_to_task = waiter.done() and not is_idle(connection) and len(queued_requests(connection)) == 1
    connection.data_received(GET)
    is_left_in_order = len(queued_requests(connection)) == 2 and len(shown) == 2 + MANY
    task.close()
    (get, nothing), (post, body) = shown[:2]
    return (
        is_kept_from_task
        and is_given_to_task
        and is_left_in_order
        and connection._next_keepalive_close_time == connection.idle_until
        and not (connection.writing_paused or is_upgraded(connection))
        and (get.method, get.path, get.version, get.headers['Host']) == ('GET', '/a?b=1', HttpVersion11, 'a')
        and (get.should_close, get.compression, get.upgrade, nothing) == (False, None, False, EMPTY_PAYLOAD)
        and (post.method, body.is_eof(), body.exception(), body.total_bytes) == ('POST', True, None, 2)
        and body.read_nowait() == b'{}'
    )


def _is_released(loop: asyncio.AbstractEventLoop) -> bool:
    connection = _given(loop, UPGRADE)[2]
    if not connection._upgraded or connection._messages or connection._parser is None:
        return False
    connection._parser, connection._messages = None, cast(Any, ())
    connection.set_parser(cast(Any, SimpleNamespace(feed_data=lambda data: (False, b''), feed_eof=lambda: None)))
    connection.data_received(FRAME)
    connection.pause_reading()
    connection.resume_reading()
    connection.connection_lost(None)
    return True


class _Queue(MessageQueue):
    """A queue that notes what it is fed, and is read from as ours is."""

    __slots__ = ('fed', 'reading')

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.fed: list[Any] = []
        self.reading = self.loop.create_future()

    def feed_data(self, message: Any, size: int) -> None:
        self.fed.append(message)

    def feed_eof(self) -> None:
        self.fed.append(None)

    def set_exception(self, exc: BaseException, *cause: Any) -> None:
        self.fed.append(exc)

    def read(self) -> Any:
        return self.reading


class _WebSocket(QueuedWebSocket):
    def make_queue(self, connection: Any) -> Any:
        return _Queue(connection)


def _queues_messages(loop: asyncio.AbstractEventLoop) -> bool:
    message, payload, connection, *others = _given(loop, UPGRADE)
    request = cast(Any, web.BaseRequest)(message, payload, connection, *others[:2], loop)
    ws = _WebSocket(decode_text=False, autoping=False, autoclose=False)
    _finish(ws.prepare(request))
    connection.data_received(FRAME + FRAME)
    first, second = ws.queue.fed
    receiving = ws.receive()
    is_awaited = receiving.send(None) is ws.queue.reading
    ws.queue.reading.set_result(first)
    is_received = _finish(receiving) is first
    ws.queue.put(second, 1)
    is_queued = _finish(ws.queue.get()) is second
    connection.data_received(b'\xff\xff')  # no frame
    connection.connection_lost(None)
    _, _, error, end = ws.queue.fed
    own = cast(Any, WSMessage)(WSMsgType.ERROR, error, None)
    return (
        is_awaited
        and is_received
        and is_queued
        and (first[0] is WSMsgType.TEXT, first[1], first.type, first.data) == (True, b'a', WSMsgType.TEXT, b'a')
        and (isinstance(error, Exception), end, own.type, own.data) == (True, None, WSMsgType.ERROR, error)
    )


def _finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    finally:
        coroutine.close()
    raise RuntimeError('it waits')


class Reliance(NamedTuple):
    """A use of aiohttp beyond its public interface."""

    name: str
    works: bool
    lost: str


def _tried(name: str, use: Callable[[asyncio.AbstractEventLoop], bool], lost: str) -> Reliance:
    loop = asyncio.new_event_loop()  # it never runs: another one may, on this thread
    try:
        return Reliance(name, use(loop), lost)
    except Exception:  # whatever has changed
        return Reliance(name, False, lost)
    finally:
        loop.close()


RELIANCES = [
    _tried(
        'requests',
        _makes_requests,
        'Each request is made twice, a task is woken for it, and a connection ends after an answer in several pieces.',
    ),
    _tried(
        'http lane',
        _shows_requests,
        'A task is woken for every HTTP request, and a client that shuts down its writing side gets no answer.',
    ),
    _tried('release', _is_released, 'A WebSocket holds 3 kB more.'),
    _tried('websocket lane', _queues_messages, 'A task is woken for every WebSocket message.'),
]
MAKES_REQUESTS, HAS_HTTP_LANE, IS_RELEASED, HAS_WEBSOCKET_LANE = (it.works for it in RELIANCES)
HAS_HTTP_LANE = HAS_HTTP_LANE and MAKES_REQUESTS  # a handler may ask for the request
