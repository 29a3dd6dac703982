"""WebSocket: the handshake, and all connections (RFC 6455)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, cast

import msgspec
from aiohttp import WSCloseCode, hdrs, web

from webshoes.core import codec, frames
from webshoes.core.access import Asking
from webshoes.core.auth import SUBPROTOCOL, offered_token
from webshoes.core.connection import Connection
from webshoes.core.context import Context, Scope
from webshoes.core.errors import STOPPING, Error
from webshoes.core.services import Services
from webshoes.core.session import Session
from webshoes.guard import Guard, asking_of
from webshoes.headers import HEADERS
from webshoes.log import log
from webshoes.loops import Turn
from webshoes.outlet import Stalls
from webshoes.transports.compat import HAS_WEBSOCKET_LANE
from webshoes.transports.lane import FastLane, SlowLane
from webshoes.transports.peer import Peer
from webshoes.transports.refusals import answer

CLOSES = {401: 4401, 403: 4403}  # codes of refusals that a browser reads

MakeScope = Callable[[web.BaseRequest, Connection, Any], Scope]
MakeSession = Callable[[Services, Context, Callable[[], None]], Session]


class HasHeaders(Protocol):
    """The part of a request that the handshake needs."""

    def hiding(self, name: str) -> AbstractContextManager[None]:
        """Have `headers` without one of them for a while."""


class WebSockets:
    """Serves WebSockets, on any path.

    Args:
        services: what all connections share.
        scope: makes what the contexts of one connection's calls share.
        guard: refuses who may not ask.
        stalls: finds the connections that take nothing.
        turn: of the loop, at whose end what was answered is sent.
        compress: whether to agree to permessage-deflate (RFC 7692).
        session: makes what speaks with one peer.
    """

    def __init__(
        self,
        services: Services,
        scope: MakeScope,
        guard: Guard,
        stalls: Stalls,
        turn: Turn,
        compress: bool,
        session: MakeSession = Session,
    ) -> None:
        self._on = msgspec.structs.replace(services, unsendable=(*services.unsendable, web.StreamResponse))
        self._scope = scope
        self._guard = guard
        self._stalls = stalls
        self._compress = compress
        self._session = session
        self._peers: set[Peer] = set()
        self._is_beating = False
        self._turn = turn

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one WebSocket until it is closed; what is no handshake, or may not ask, is refused before.

        What is awaited here for long holds on to little: it is most of what an idle connection takes.
        """
        answer, peer = await self._open(request)
        if peer is not None:
            failure = None
            try:
                await self._enter(peer)
                await peer.run()
            except BaseException as exc:
                failure = exc
            self._leave(peer)  # not above: what hooks raise is their own failure
            if failure is not None:
                try:
                    raise failure
                finally:
                    del failure  # or it refers to this frame, and this frame to it
        return answer

    async def _open(self, request: web.BaseRequest) -> tuple[web.StreamResponse, Peer | None]:
        """The answer to a handshake, and who is let in by it."""
        ws = self._make_ws()
        connection = Connection(self._on.new_id(), request.remote, self._on.now())
        ctx = Context(self._scope(request, connection, ws), request.path, None, 'WS')
        by_message = self._guard.takes_message and not _has_token(request)
        refusal: Error | None = None
        try:
            asking = asking_of(request.headers)
            self._guard.check_host(asking)
            refusal = await self._refusal(ctx, asking, by_message)
            if refusal is not None and not (refusal.code in CLOSES and 'Origin' in request.headers):
                raise refusal
            await _prepare(ws, request)
        except Error as exc:
            return self._refused(exc), None
        except (web.HTTPBadRequest, ValueError) as exc:  # aiohttp does not expect a key that is not ASCII
            error = Error(400, f'Not a WebSocket handshake: {getattr(exc, "text", exc)}')
            return self._refused(refusal or error), None
        peer = Peer(ws, request, self._on, self._stalls, self._turn)
        peer.session = self._session(self._on, ctx, peer.wake)
        if ws.ws_protocol == SUBPROTOCOL:
            peer.session.feed.header = frames.announcing_header
        if by_message and refusal is None:
            refusal = await self._login_by_message(peer, ctx)
        if refusal is None:
            return ws, peer
        # a page cannot read the answer to a handshake, but it can read why its WebSocket was closed
        await peer.end(CLOSES.get(refusal.code, WSCloseCode.INTERNAL_ERROR), refusal.message)
        return ws, None

    def _make_ws(self) -> SlowLane:
        limit = self._on.limits.max_ws_msg_size
        ws = (FastLane if HAS_WEBSOCKET_LANE else SlowLane)(
            compress=self._compress,
            protocols=(SUBPROTOCOL,),
            max_msg_size=limit + 1 if limit else 0,  # aiohttp's limit is exclusive, and 0 is none
            decode_text=False,
            writer_limit=0,  # where frames are compressed: look at the high-water mark after each
            autoping=False,  # to see pongs
            autoclose=False,  # to answer a close that may not be sent
        )
        ws.headers[hdrs.SERVER] = HEADERS['Server']
        return ws

    def _refused(self, error: Error) -> web.StreamResponse:
        headers = {400: {'Sec-WebSocket-Version': '13'}, 401: self._guard.challenge}  # RFC 6455 section 4.2.2
        return answer(error, headers.get(error.code))

    async def _refusal(self, ctx: Context, asking: Asking, by_message: bool) -> Error | None:
        """Return why a handshake is refused, `None` where it is not; a login by message is still to come."""
        try:
            self._guard.check_origin(asking)
            if not by_message:
                await self._guard.authenticate(ctx)
        except Exception as exc:
            return self._on.dispatcher.error(exc, 'auth')
        return None

    async def _login_by_message(self, peer: Peer, ctx: Context) -> Error | None:
        """The same, where the token is the first message."""
        try:
            async with asyncio.timeout(self._on.limits.auth_timeout):
                data = await peer.first_text()
        except TimeoutError:
            self._on.meter.met('auth_timeout')
            return self._no_login(ctx, 'No login came in time')
        try:
            message = codec.decode(data) if data is not None else None
            await self._guard.authenticate_by_message(ctx, message.get('auth') if isinstance(message, dict) else None)
        except UnicodeDecodeError:
            return self._no_login(ctx, 'The first message is no login')
        except Exception as exc:
            refusal = self._on.dispatcher.error(exc, 'auth')
            return refusal if refusal.code != 400 else self._no_login(ctx, 'The first message is no login')
        return None

    def _no_login(self, ctx: Context, message: str) -> Error:
        error = Error(401, message)
        self._guard.log_refusal(ctx, error.code, message)
        return error

    async def _enter(self, peer: Peer) -> None:
        ctx = peer.session.feed.ctx
        connection = ctx.conn
        connection.become(connection.id, peer, peer.session.feed)
        self._peers.add(peer)
        self._on.connections[connection.id] = connection
        self._beat_later()
        log.debug('WebSocket %s opened from %s', connection.id, connection.remote)
        await self._on.teller.tell_in_turn('connect', ctx)

    def _leave(self, peer: Peer) -> None:
        ctx = peer.session.feed.ctx
        self._peers.discard(peer)
        del self._on.connections[ctx.conn.id]
        peer.session.close()
        self._on.teller.tell('disconnect', ctx)
        log.debug('WebSocket %s closed with %s', ctx.conn.id, ctx.ws.close_code)

    def _beat_later(self) -> None:
        """Look at all peers again and again, as long as there are any."""
        interval = self._on.limits.ping_interval
        if interval is not None and not self._is_beating and self._peers:
            self._is_beating = True
            delay = min(interval, self._on.limits.ping_timeout) / 4
            asyncio.get_running_loop().call_later(delay, self._beat, interval)

    def _beat(self, interval: float) -> None:
        for peer in self._peers:
            peer.beat(interval)
        self._is_beating = False
        self._beat_later()

    @property
    def is_busy(self) -> bool:
        """Return whether a handler of any connection is running."""
        return any(peer.session.is_busy for peer in self._peers)

    def stop(self) -> None:
        """Refuse new calls and subscriptions with 503."""
        for peer in self._peers:
            peer.session.stop()

    async def close(self, timeout: float) -> None:
        """End what runs, send what there is, and close all with 1001, in so many seconds."""
        for peer in self._peers:
            peer.session.interrupt()
        closing = [asyncio.ensure_future(peer.close(WSCloseCode.GOING_AWAY, STOPPING)) for peer in self._peers]
        if closing:
            await asyncio.wait(closing, timeout=timeout)
        for peer in self._peers:
            peer.abort()


async def _prepare(ws: SlowLane, request: web.BaseRequest) -> None:
    """Answer a handshake. aiohttp logs subprotocols if it knows none of them, and one may be the client's token."""
    offered = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, '').split(',')  # what aiohttp reads: the first line
    is_known = SUBPROTOCOL in (name.strip() for name in offered)
    with nullcontext() if is_known else cast(HasHeaders, request).hiding(hdrs.SEC_WEBSOCKET_PROTOCOL):
        await ws.prepare(request)


def _has_token(request: web.BaseRequest) -> bool:
    """Return whether a handshake brings a login with it."""
    return 'Authorization' in request.headers or offered_token(request.headers) is not None
