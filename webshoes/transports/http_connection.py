"""HTTP connections: aiohttp's, made ours: counted, known until they are really gone, and given up when too slow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from aiohttp import EMPTY_PAYLOAD, StreamReader, web

from webshoes import tcp
from webshoes.core.errors import SERVER_ERROR, Error
from webshoes.core.meter import Meter
from webshoes.core.rate import Rate
from webshoes.log import log
from webshoes.loops import Turn
from webshoes.outlet import Outlet, Stalls, give_up, waiting_in
from webshoes.transports.compat import (
    HAS_HTTP_LANE,
    HttpLane,
    LineTooLong,
    Messages,
    is_idle,
    is_upgraded,
    queued_requests,
    release,
)
from webshoes.transports.half_closed import Probe
from webshoes.transports.refusals import NO_REQUEST, LastAnswer, raw, refused
from webshoes.transports.request import Request, peer_address
from webshoes.transports.upgraded import EarlyFrames, Upgraded

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage

Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
AtOnce = Callable[['RawRequestMessage', StreamReader, Callable[[bytes | None], web.BaseRequest]], Any]

LOOKS = 4  # how often within the shortest patience the slow are looked at
LARGE = 64 * 1024  # bytes of an answer that does not wait for others to be sent with it
ANSWER = 1.0  # seconds in which a request that did not come is answered


class HttpConnections(web.Server):
    """aiohttp's server, its connections ours: counted, known until they are really gone, and given up when too slow."""

    def __init__(self, handler: Serve, at_once: AtOnce, meter: Meter, stalls: Stalls, **settings: Any) -> None:
        super().__init__(handler, **settings)
        settings.pop('request_factory')
        self._settings = settings  # arguments of each connection
        self.loop = asyncio.get_running_loop()
        self.at_once: AtOnce | None = at_once
        self.turn = Turn()
        self.meter = meter
        self.stalls = stalls
        self.transports: dict[asyncio.Transport, Any] = {}  # and their sockets
        self.addresses: dict[str, int] = {}  # connections of each
        self.heads: dict[HttpConnection, float] = {}  # since when the head of a request is awaited
        self.bodies: dict[HttpConnection, tuple[int, float]] = {}  # bytes so far, and since when no more came
        limits = meter.limits
        patience = limits.header_timeout, limits.body_timeout, limits.stall_timeout or limits.body_timeout
        self._look_after = min(patience) / LOOKS
        self._timer = self.loop.call_later(self._look_after, self._look)

    def __call__(self) -> HttpConnection:
        """A new connection."""
        return HttpConnection(self, loop=self.loop, **self._settings)

    def refusal(self, address: str) -> Error | None:
        """Why a connection from an address is not let in, if it is not."""
        if self.meter.over('max_connections', len(self.transports) + 1):
            return Error(503, 'The server has too many connections')
        if self.meter.over('max_connections_per_address', self.addresses.get(address, 0) + 1):
            return Error(429, 'This address has too many connections')
        return None

    def stop_answering(self) -> None:
        """Have all requests served by tasks."""
        self.at_once = None

    def stop_watching(self) -> None:
        """Stop the timer that looks for slow clients."""
        self._timer.cancel()

    def _look(self) -> None:
        limits, now = self.meter.limits, self.loop.time()
        for protocol, since in list(self.heads.items()):
            if now - since >= limits.header_timeout:
                self.meter.met('header_timeout')
                protocol.give_up_head()
        for protocol, (received, since) in list(self.bodies.items()):
            if protocol.has_body:
                del self.bodies[protocol]
            elif protocol.received != received or not protocol.is_reading:
                self.bodies[protocol] = protocol.received, now
            elif now - since >= limits.body_timeout:
                self.meter.met('body_timeout')
                protocol.give_up_body()
        for connection in cast('list[HttpConnection]', self.connections):
            if connection.may_be_sending:
                self.stalls.watch(connection)
        self._timer = self.loop.call_later(self._look_after, self._look)


class HttpConnection(web.RequestHandler):
    """One HTTP connection; what aiohttp would answer by itself, with an echo and a traceback, has our shape."""

    __slots__ = (
        '_address',
        '_answers',
        '_body',
        '_client_end',
        '_delivered',
        '_done',
        '_frames',
        '_known',
        '_on_gone',
        '_probe',
        '_rate',
        '_request',
        '_server',
        'idle_until',
        'is_half_closed',
        'outlet',
        'received',
    )

    def __init__(self, server: HttpConnections, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._server = server
        self._address = ''
        self._known: asyncio.Transport | None = None  # as long as it is let in
        self._request: web.BaseRequest | None = None  # that is being served
        self._body: StreamReader = EMPTY_PAYLOAD  # of the last request
        self._rate: Rate | None = None  # of its requests, where they are limited
        if server.meter.limits.max_rate is not None:
            self._rate = Rate(server.meter, server.loop.time)
        self._answers: list[bytes] = []  # to be sent at the end of the turn
        self._done: Any = None  # what is left to do of the request that is served next
        self.is_half_closed = False  # the client sends no more, and waits for its answer
        self._client_end: asyncio.Future[None] | None = None  # done when the client ends; awaited after the last answer
        self._on_gone: Callable[[], object] | None = None  # cancels the call that runs
        self._probe: Probe | None = None
        self.idle_until = server.loop.time() + server.meter.limits.keepalive_timeout  # when aiohttp closes it
        if HAS_HTTP_LANE and self._rate is None:
            HttpLane(self, self._take_requests)
        self.received = 0  # bytes
        self._delivered = 0  # `received` when all answers had last been sent
        self.outlet: Outlet | None = None  # of what lives long on this connection: a WebSocket, an event stream
        self._frames: Upgraded | None = None  # what takes frames, as long as it is a WebSocket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, or refuse it."""
        known = cast(asyncio.Transport, transport)
        peer = known.get_extra_info('peername')
        self._address = peer_address(peer) if peer is not None else ''
        refusal = self._server.refusal(self._address)
        if refusal is not None:
            known.write(raw(refusal))
            known.close()
            return
        super().connection_made(transport)
        self._known = known
        self._server.transports[known] = connection = known.get_extra_info('socket')
        if connection is not None and tcp.is_unix(connection):
            tcp.keep_queue_short(connection)
        self._server.addresses[self._address] = self._server.addresses.get(self._address, 0) + 1
        self._server.heads[self] = self._server.loop.time()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection, and tell the call, the outlet and the probe."""
        if self._known is None:
            return
        self._server.transports.pop(self._known, None)
        self._server.addresses[self._address] -= 1
        if not self._server.addresses[self._address]:
            del self._server.addresses[self._address]
        self._server.heads.pop(self, None)
        self._server.bodies.pop(self, None)
        if self._request is None:
            self._body.feed_eof()  # or aiohttp waits for the rest of what no handler has read
        self._body = EMPTY_PAYLOAD  # which holds on to its connection
        super().connection_lost(exc)
        self._end_lingering()
        self._server.stalls.forget(self)
        if self._probe is not None:
            self._probe.stop()
        self.when_gone(self._on_gone)
        self._frames = None  # or what came of a message is held until Python looks for garbage
        if self.outlet is not None:
            self.outlet.lose()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        self.received += len(data)
        if self._known is None:
            return  # pragma: no cover  # it was refused, and is closing
        if data and self.outlet is None and self._request is None and self.has_body:  # aiohttp calls it without, too
            self._server.heads.setdefault(self, self._server.loop.time())
        super().data_received(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp never keeps one
        """Keep the connection of a client that sends no more until its whole requests are answered.

        TLS cannot be closed in one direction here, and a WebSocket does not go on. An event stream sends what there is.
        """
        self.flush()
        self._end_lingering()
        if (
            not HAS_HTTP_LANE
            or self._client_end is not None
            or self._known is None
            or is_upgraded(self)
            or is_idle(self)
        ):
            return None
        queued = queued_requests(self)
        last = queued[-1][1] if queued else self._body
        if not last.is_eof() or self._known.get_extra_info('ssl_object') is not None:
            return None
        self.is_half_closed = True
        if self.outlet is not None and self.outlet.on_half_close is not None:
            self.outlet.on_half_close()
        self._end_with_last_request()
        return True

    def _end_with_last_request(self) -> None:
        """Close a half-closed connection after the last request, and find out whether anybody waits for the answer."""
        if not queued_requests(self):
            self.close()
        if self._request is not None and self._probe is None:
            self._probe = Probe(self._server.loop, self, self._request.writer)

    def when_gone(self, fn: Callable[[], object] | None) -> None:
        """Call a function once the client has gone, at once if it has; `None` takes it back."""
        self._on_gone = fn
        if fn is not None and (self._known is None or self.transport is None):
            self._on_gone = None
            fn()

    def _take_requests(self, messages: Messages) -> Messages:
        """Answer requests where their bytes arrive, up to the first that takes longer. Return those that are left."""
        left: Messages = []
        serve, is_deferred = self._server.at_once, True
        if serve is None or self.writing_paused:
            return messages
        for number, (message, payload) in enumerate(messages):
            answer = serve(message, payload, partial(self._make_request, message, payload))
            if type(answer) is not bytes:
                if self._known is None or self._known.is_closing():  # by the handler itself
                    return []
                self._done = answer
                self.flush()  # before what is answered later
                return messages[number:]
            if not self._answers:
                is_deferred = self._server.turn.defer(self)
            self._answers.append(answer)
            if len(answer) > LARGE:
                self.flush()
                if self.writing_paused:
                    left = messages[number + 1 :]  # one after the other, as the client takes them
                    break
        self._server.heads.pop(self, None)
        self.idle_until = self._server.loop.time() + self._server.meter.limits.keepalive_timeout
        if not is_deferred:
            self.flush()
        return left

    def _make_request(self, message: RawRequestMessage, payload: StreamReader, data: bytes | None) -> web.BaseRequest:
        writer = task = cast(Any, None)  # the factory makes a writer, and no task serves it
        request = self._server.request_factory(message, payload, self, writer, task)
        cast(Request, request).whole = data
        return request

    def take_done(self) -> Any:
        """Return the rest of the work on the current request, or `None` if none of it was done yet."""
        done, self._done = self._done, None
        return done

    def flush(self) -> None:
        """Send what was answered."""
        if self._answers and self._known is not None and not self._known.is_closing():
            self._known.write(b''.join(self._answers))
        self._answers.clear()

    def go_on(self) -> None:
        """Ask for the body of a request (RFC 9110 section 15.2.1)."""
        if self._known is not None and not self._known.is_closing():
            self._known.write(b'HTTP/1.1 100 Continue\r\n\r\n')

    def hang_up(self) -> None:
        """Send the answers that are ready, then close the connection."""
        self.flush()
        if self._known is not None:
            self._known.close()

    def set_parser(self, parser: Any, data_received_cb: Any = None) -> None:
        """Hand the bytes that come from here on to a parser of frames."""
        early = EarlyFrames(parser)
        super().set_parser(early, data_received_cb)  # type: ignore[arg-type]
        release(self)
        assert self._known is not None  # or nothing had been read
        self._frames = Upgraded(self, self._known, parser.feed_data, early.data)

    def take_frames_within(self, run: Callable[..., object]) -> None:
        """Have the bytes of frames that come from here on taken by `run(take, data)`."""
        if self._frames is not None:  # or it is lost already
            self._frames.take_within(run)

    def count_frame_bytes(self, go_on: bool) -> int:
        """How many bytes of frames came since this was last asked to go on."""
        return self._frames.count(go_on) if self._frames is not None else 0

    def begin(self, request: web.BaseRequest) -> None:
        """Note that a request is being served from here on.

        Raises:
            Error: 429, there are too many.
        """
        self._server.heads.pop(self, None)
        self._request = request
        self._body = body = request.content
        if not body.is_eof():
            self._server.bodies[self] = self.received, self._server.loop.time()
        if self.is_half_closed:
            if not body.is_eof():
                self.hang_up()  # the client ended in the middle of it
            self._end_with_last_request()
        if self._rate is not None:
            self._rate.check(self.force_close)

    def end(self) -> None:
        """Note that the request was served."""
        self._request = None
        if self._probe is not None:
            self._probe.stop()
            self._probe = None
        self.idle_until = self._server.loop.time() + self.meter.limits.keepalive_timeout
        self._server.bodies.pop(self, None)

    @property
    def meter(self) -> Meter:
        """The app's."""
        return self._server.meter

    @property
    def has_body(self) -> bool:
        """Return whether the body of the last request has come."""
        return self._body.is_eof()

    @property
    def is_reading(self) -> bool:
        """Return whether bytes are taken, and it is not we who hold them up."""
        return self._known is not None and not self._known.is_closing() and self._known.is_reading()

    def force_close(self) -> None:
        """Close the connection now. aiohttp calls this too, when `keepalive_timeout` is over."""
        is_ending = self._known is None or self._known.is_closing() or self.outlet is not None
        is_idle = not is_ending and self._request is None
        if is_idle and self._server.loop.time() >= self.idle_until:
            self.meter.met('keepalive_timeout')
        super().force_close()

    def give_up_head(self) -> None:
        """The head of a request took too long."""
        self._server.heads.pop(self, None)
        if self._known is not None and self.received:
            self._known.write(raw(Error(408, 'The request took too long to come')))
        self.force_close()

    def give_up_body(self) -> None:
        """The body of a request took too long; who reads it is told so, and then has a moment to answer."""
        self._server.bodies.pop(self, None)
        if self._request is not None:
            self._body.set_exception(Error(408, 'The body took too long to come'))
        self._server.loop.call_later(ANSWER, self.force_close)

    @property
    def _is_idle(self) -> bool:
        """Return whether the connection waits for a request. False where aiohttp's inside is unknown."""
        return HAS_HTTP_LANE and is_idle(self)

    @property
    def may_be_sending(self) -> bool:
        """Return whether part of an answer may still be unsent, without asking the kernel."""
        if self._known is None or self.outlet is not None:
            return False
        return not self._is_idle or self.received != self._delivered

    @property
    def progress(self) -> tuple[int, int]:
        """How much the client has taken, a number that grows, and how many bytes wait: in the kernel too.

        The kernel holds megabytes of an answer, and all of a file that `sendfile` sends.
        """
        if self._known is None or not self.may_be_sending:
            return 0, 0
        taken, unsent = tcp.delivery(self._server.transports.get(self._known))
        waiting = unsent + waiting_in(self._known)
        if not waiting and self._is_idle:
            self._delivered = self.received
        return taken, waiting

    def stalled(self) -> None:
        """End the connection: the client has taken nothing for `stall_timeout`."""
        self.meter.met('stall_timeout')
        if self._known is not None:
            give_up(self._server.loop, self._known, self._server.transports.get(self._known))

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log a failure, unless a body did not come, or nobody read it and it is not compressed as it says."""
        known = isinstance(kw.get('exc_info'), (Error, web.RequestPayloadError))
        if not known:  # pragma: no cover  # what else fails was met before
            super().log_exception(*args, **kw)

    def pause_writing(self) -> None:
        """The transport holds more than its high-water mark."""
        super().pause_writing()
        if self.outlet is not None:
            self._server.meter.met('send_buffer')
            self.outlet.pause()

    def resume_writing(self) -> None:
        """The transport has room again."""
        super().resume_writing()
        if self.outlet is not None:
            self.outlet.resume()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that are no request, or to a failure that none of our own gates met."""
        if isinstance(exc, ConnectionError):
            raise exc  # nobody is there to be answered
        if request.writer.output_size > 0:
            raise ConnectionError('a response has begun already, and cannot become an error')  # pragma: no cover
        if status >= 500:  # pragma: no cover  # as both: Http.serve answers what fails, so that nothing gets here
            log.error('a request failed', exc_info=exc)
            return refused(Error(500, SERVER_ERROR))
        log.debug('no request came from %s', request.remote, exc_info=exc)
        return LastAnswer(self._refusal_of(exc), self.linger)

    def _refusal_of(self, exc: BaseException | None) -> Error:
        if isinstance(exc, LineTooLong):
            self.meter.met('max_header_size')
            limit = self.meter.limits.max_header_size
            return Error(431, f'The path with its query, or a header, is longer than {limit} bytes')
        if 'Too many headers' in str(exc):
            return Error(431, 'The request has too many headers')
        return Error(400, NO_REQUEST)

    async def linger(self) -> None:
        """Throw away what the client still sends, for a moment, so that it can read the answer.

        A connection that is closed with unread bytes is reset, and the answer may be lost (RFC 9112 section 9.6).
        """
        self.close()  # so that aiohttp does not parse it
        if self.is_half_closed or self._known is None or self._known.is_closing() or not self._known.can_write_eof():
            return  # nothing more comes; or it is TLS, which cannot be closed in one direction
        try:
            self._known.write_eof()
        except OSError:  # the client has reset the connection, which asyncio has not seen yet
            return
        self._client_end = self._server.loop.create_future()
        await asyncio.wait((self._client_end,), timeout=ANSWER)

    def _end_lingering(self) -> None:
        if self._client_end is not None and not self._client_end.done():
            self._client_end.set_result(None)
