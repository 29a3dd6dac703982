"""Events over plain HTTP: as they stand, as a long poll, and as a stream of server-sent events.

A stream speaks the format of https://html.spec.whatwg.org/multipage/server-sent-events.html. Its `id` lines hold the
cursors of all its events, so that `Last-Event-ID` resumes; it begins with one that has no data, so that a client knows
its place before anything was triggered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import cast

from aiohttp import web

from webshoes.core.audience import Subscription
from webshoes.core.conditions import Validators, failed_condition
from webshoes.core.context import Context
from webshoes.core.errors import STOPPING, Error
from webshoes.core.events import Position, Push
from webshoes.core.feed import BATCH, Feed, push_frame, state_frame
from webshoes.core.names import Since, read_cursors, write_cursors
from webshoes.core.negotiation import weigh_type
from webshoes.core.registry import Entry
from webshoes.core.services import Services
from webshoes.headers import HEADERS, JSON, field
from webshoes.log import log
from webshoes.loops import followed_by, soon
from webshoes.outlet import HasOutlet, Outlet, Stalls

FLUSH = 0.5  # seconds in which a stream that is closed takes what it lacks
POLL = 0.01  # seconds between two looks at whether all have ended
STREAM = {
    **HEADERS,
    'Content-Type': 'text/event-stream',
    'Cache-Control': 'no-store',
    'Vary': 'Accept',
    'X-Accel-Buffering': 'no',  # nginx would hold it back
}
STATE = {**JSON, 'Cache-Control': 'no-cache', 'Vary': 'Accept'}  # it may be kept, and asked for with its ETag
FOREIGN = Since(0, '')  # a place in a history that is not ours

Readable = Callable[[web.StreamResponse], web.StreamResponse]


class EventsOverHttp:
    """Serves events to plain requests.

    Args:
        services: what all connections share.
        stalls: finds the connections that take nothing.
    """

    def __init__(self, services: Services, stalls: Stalls) -> None:
        self._on = services
        self._stalls = stalls
        self._open: set[_Client] = set()
        self._stopping = False

    async def serve(
        self, request: web.BaseRequest, ctx: Context, entry: Entry, names: list[str], readable: Readable
    ) -> web.StreamResponse:
        """Events, for a request that asks for these; `readable` lets other origins read a stream.

        Raises:
            Error: the request cannot be answered, or a hook refuses.
        """
        if self._stopping:
            raise Error(503, STOPPING)
        for name in names:
            self._on.check_name(name, entry.evt)
        is_stream = _wants_stream(request)
        if not is_stream and len(names) > 1:
            raise Error(400, 'Several events need a stream: Accept: text/event-stream')
        client = _Client(request, ctx, self._on, self._stalls)
        self._open.add(client)
        work = client.stream(entry, names, readable) if is_stream else client.answer(entry, names[0])
        return await followed_by(work, partial(self._leave, client))

    def _leave(self, client: _Client) -> None:
        self._open.discard(client)
        client.leave()

    def stop(self) -> None:
        """Refuse new work."""
        self._stopping = True

    async def close(self, timeout: float) -> None:
        """End the polls with 503, and the streams when they have taken what they lack, in so many seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(FLUSH, timeout)
        for client in self._open:
            client.end()
        while self._open and loop.time() < deadline:
            await asyncio.sleep(POLL)
        for client in self._open:
            client.abort()


class _Client:
    """One request for events: answered at once, later, or on and on."""

    def __init__(self, request: web.BaseRequest, ctx: Context, services: Services, stalls: Stalls) -> None:
        if request.transport is None:
            raise ConnectionError('the client has left')
        self._request = request
        self._on = services
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._is_ending = False
        self._cut: asyncio.TimerHandle | None = None
        self._outlet = Outlet(request.transport, services.limits.send_buffer, self, stalls)
        self._protocol = cast(HasOutlet, request.protocol)
        self._protocol.outlet = self._outlet
        self._ctx = ctx
        self._feed = Feed(services, ctx, self._news.set)

    def leave(self) -> None:
        """End what is subscribed to."""
        self._protocol.outlet = None
        self._outlet.leave()
        self._feed.close()
        if self._cut is not None:
            self._cut.cancel()

    async def _subscribe(self, subscription: Subscription[Feed], since: Since | None) -> Position:
        position = self._feed.subscribe(subscription, since)
        return position if isinstance(position, Position) else await position

    @property
    def _is_over(self) -> bool:
        return self._is_ending or self._outlet.is_lost

    # --- one answer ---

    async def answer(self, entry: Entry, name: str) -> web.StreamResponse:
        """An event as it stands, or the next version after `since`, for which it waits."""
        query = self._request.query
        since = _cursors(query['since'], 1)[0] if 'since' in query else None
        wait = self._wait(query['wait']) if 'wait' in query else 0.0
        subscription = Subscription(self._feed, name, 'http', entry.evt, entry.rep)
        position = await self._subscribe(subscription, since)
        push = await self._next_push(wait)
        if push is None and (since is not None or wait):
            if self._is_ending:
                raise Error(503, STOPPING)
            return web.Response(status=204, headers={**HEADERS, 'Cache-Control': 'no-store'})
        tag = f'{position.epoch}:{push.version.ver if push is not None else 0}'
        headers = {**STATE, 'ETag': f'"{tag}"'}
        if since is None and (ended := self._ended(headers['ETag'])):
            return web.Response(status=ended, headers=headers)
        return web.Response(body=state_frame(subscription, position.epoch, push), headers=headers)

    def _ended(self, tag: str) -> int | None:
        """The status by which a condition of the request ends it; 412 is an error."""
        ended = failed_condition(self._request.method, partial(field, self._request.headers), Validators(tag))
        if ended == 412:
            raise Error(412, 'The event is not at the version that the request expects')
        return ended

    async def _next_push(self, wait: float) -> Push | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while (found := self._feed.take_push()) is None and wait and not self._is_over:
                    self._news.clear()
                    await self._news.wait()
                return found[1] if found is not None else None
        return None

    def _wait(self, text: str) -> float:
        try:
            wait = float(text)
        except ValueError:
            wait = -1.0
        if not wait >= 0:  # which is also what is no number
            raise Error(400, "'wait' is a number of seconds, 0 or more")
        return self._on.limits.max_wait if self._on.meter.over('max_wait', wait) else wait

    # --- a stream ---

    async def stream(self, entry: Entry, names: list[str], readable: Readable) -> web.StreamResponse:
        """All versions of some events, on and on."""
        cursors = self._begin_at(len(names))
        response = web.StreamResponse(headers=STREAM)
        subscriptions = [Subscription(self._feed, name, self._on.new_id(), entry.evt, entry.rep) for name in names]
        if self._request.method == 'HEAD':
            for subscription in subscriptions:
                await self._subscribe(subscription, None)
            return response
        connection = self._ctx.conn
        connection.become(self._on.new_id(), self, self._feed)
        self._on.connections[connection.id] = connection
        log.debug('event stream %s opened from %s', connection.id, connection.remote)
        await followed_by(self._run(readable(response), subscriptions, cursors), self._close_connection)
        return response

    async def _run(
        self, response: web.StreamResponse, subscriptions: list[Subscription[Feed]], cursors: list[Since | None]
    ) -> None:
        """Subscribe, and send what there is until the stream ends."""
        await self._on.teller.tell_in_turn('connect', self._ctx)
        epoch = ''
        for subscription, since in zip(subscriptions, cursors, strict=True):
            epoch = (await self._subscribe(subscription, since)).epoch
        await response.prepare(self._request)
        self._outlet.on_half_close = self.end  # it would not be seen whether the client is there
        if self._protocol.is_half_closed:
            self.end()
        await self._send(response, _Places(subscriptions, cursors, epoch))

    def _close_connection(self) -> None:
        connection = self._ctx.conn
        del self._on.connections[connection.id]
        self._feed.close()
        self._on.teller.tell('disconnect', self._ctx)
        log.debug('event stream %s closed', connection.id)

    def _begin_at(self, count: int) -> list[Since | None]:
        """Where the client says it was, event by event; what cannot be read is of another server: a foreign place."""
        if last := self._request.headers.get('Last-Event-ID'):
            try:
                return [*_cursors(last, count)]
            except Error:
                return [FOREIGN] * count
        since = self._request.query.get('since')
        return [None] * count if since is None else [*_cursors(since, count)]

    async def _send(self, response: web.StreamResponse, places: _Places) -> None:
        await self._write(response, b'id: %b\n\n' % places.line())
        while True:
            self._news.clear()  # before anything is looked at
            if self._outlet.is_lost:
                return
            if data := self._take(places):
                await self._write(response, data)
            elif self._feed.has_output and not self._outlet.is_blocked:
                await asyncio.sleep(0)
            elif self._is_ending and not self._feed.has_output:
                return
            elif not await self._something_new() and not self._outlet.is_blocked:
                self._on.meter.met('ping_interval')
                await self._write(response, b':\n\n')  # a comment, which shows that the stream lives

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        self._outlet.passes(len(data))  # first: the write waits where there is no room
        await response.write(data)
        await asyncio.sleep(0)

    def _take(self, places: _Places) -> bytes:
        """What there is to send, as far as there is room."""
        blocks, room = self._feed.take(min(self._outlet.room, BATCH), lambda notice: b'data: %b\n\n' % notice)
        while room > 0 and (found := self._feed.take_push()) is not None:
            frame = push_frame(*found)
            blocks.append(b'id: %b\ndata: %b\n\n' % (places.line(), frame))
            room -= len(blocks[-1])
        return b''.join(blocks)

    async def _something_new(self) -> bool:
        """Wait for something to look at, as long as a stream may be silent; whether there is anything."""
        try:
            async with asyncio.timeout(self._on.limits.ping_interval):
                return await self._news.wait()
        except TimeoutError:
            return False

    # --- what happens to it ---

    @property
    def written(self) -> int:
        """An event stream writes nothing past its outlet."""
        return 0

    def full(self) -> None:
        """There is no room."""

    def writable(self) -> None:
        """There is room again."""
        self._news.set()

    def lost(self) -> None:
        """The connection is gone."""
        self._news.set()

    def stalled(self) -> None:
        """The peer takes nothing: an event stream has no other word for it."""
        self._on.meter.met('stall_timeout')
        self.abort()

    def abort(self) -> None:
        """End it now."""
        self._outlet.abort()

    def end(self) -> None:
        """Answer what waits, and end a stream when it has taken what it lacks."""
        self._is_ending = True
        self._news.set()

    @property
    def buffered(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self._outlet.buffered

    def close_soon(self, code: int, reason: str) -> None:
        """Send what there is and end it; a stream has no close codes."""
        soon(self._loop, self._close)

    def _close(self) -> None:
        self.end()
        self._cut = self._cut or self._loop.call_later(FLUSH, self._outlet.abort)


class _Places:
    """Where a stream is in each of its events.

    Args:
        subscriptions: of the stream, in the order of the request.
        asked: where each of them was to begin.
        epoch: of the history as it is.
    """

    def __init__(self, subscriptions: list[Subscription[Feed]], asked: list[Since | None], epoch: str) -> None:
        self._subscriptions = list(zip(subscriptions, asked, strict=True))
        self._epoch = epoch

    def line(self) -> bytes:
        """The value of an `id` line. Until a new history is told, the place is the one that the client asked for."""
        return write_cursors(
            [
                asked if subscription.announce and asked is not None else Since(subscription.cursor, self._epoch)
                for subscription, asked in self._subscriptions
            ]
        ).encode()


def _cursors(text: str, count: int) -> list[Since]:
    cursors = read_cursors(text)
    if len(cursors) != count:
        raise Error(400, f"'since' has a version for each event: {count}, not {len(cursors)}")
    return cursors


def _wants_stream(request: web.BaseRequest) -> bool:
    """Return whether `Accept` (RFC 9110 section 12.5.1) asks for an event stream: by name, or because it refuses JSON.

    Raises:
        Error: 406, it refuses both.
    """
    accept = field(request.headers, 'Accept') or ''
    stream, is_named = weigh_type(accept, 'text/event-stream') or (0.0, False)
    json, _ = weigh_type(accept, 'application/json') or (1.0, False)  # unless it is refused, it is what there is
    if not stream and not json:
        raise Error(406, 'Events are sent as application/json or text/event-stream, and Accept refuses both')
    return stream > 0 and (is_named or not json)
