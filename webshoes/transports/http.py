"""HTTP: requests in, responses out (section 3's table of results)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiohttp import EMPTY_PAYLOAD, HttpVersion11, StreamReader, web
from msgspec import Struct

from webshoes.core import codec
from webshoes.core.access import Asking
from webshoes.core.calls import TOO_LONG
from webshoes.core.connection import Connection
from webshoes.core.context import Context, Later, MakesConnection, Scope
from webshoes.core.dispatch import Dispatcher, is_pending
from webshoes.core.errors import STOPPING, Error
from webshoes.core.handler import Handler
from webshoes.core.limits import over
from webshoes.core.meter import Meter
from webshoes.core.registry import Entry, Folder, Match, Registry
from webshoes.core.text import utf8
from webshoes.guard import Guard, asking_of
from webshoes.headers import HEADERS, JSON
from webshoes.loops import soon
from webshoes.transports.body import check_query, parameters, plain_parameters
from webshoes.transports.heads import Heads
from webshoes.transports.http_call import HttpCall
from webshoes.transports.refusals import redirection

GONE = Error(499, 'The client has gone')
ENDED = Error(503, STOPPING)

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage

Readable = Callable[[web.StreamResponse], web.StreamResponse]


class Files(Protocol):
    """The face that serves files, as far as this one needs it."""

    def has_builtin(self, path: str) -> bool:
        """Return whether the package has a file for a path."""

    def builtin(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the package's file for a request."""

    def check_method(self, method: str) -> None:
        """Raise error 405 where a file is to be changed."""

    async def has(self, folder: Folder, path: str) -> bool:
        """Return whether a folder has a file at a path."""

    async def file(self, request: web.BaseRequest, path: Path) -> web.StreamResponse:
        """A file."""

    async def folder(self, request: web.BaseRequest, folder: Folder, path: str) -> web.StreamResponse:
        """Return the answer with the file that a folder has at a path."""


class Events(Protocol):
    """The face that serves events, as far as this one needs it."""

    async def serve(
        self, request: web.BaseRequest, ctx: Context, entry: Entry, names: list[str], readable: Readable
    ) -> web.StreamResponse:
        """Events, for a request that asks for these; `readable` lets other origins read a stream."""

    def stop(self) -> None:
        """Refuse new work."""

    async def close(self, timeout: float) -> None:
        """End all streams, in so many seconds."""


class Client(Protocol):
    """The part of a connection that a call needs."""

    def when_gone(self, fn: Callable[[], object] | None) -> None:
        """Call a function once the client has gone, at once if it has; `None` takes it back."""

    def hang_up(self) -> None:
        """Close the connection."""


class Done(Struct, frozen=True):
    """A call that was run: where it went, its context, and what it gave or raised."""

    match: Match
    ctx: Context | None
    result: Any
    exc: BaseException | None


class Http:
    """Answers HTTP requests.

    Args:
        registry, dispatcher, meter: the app's.
        scope: makes what the context of a request's call is made of.
        guard: refuses who may not ask.
        files: serves files.
        events: serves events.
        encoder: encodes results.
    """

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        meter: Meter,
        scope: Callable[[web.BaseRequest | Later, MakesConnection], Scope],
        guard: Guard,
        files: Files,
        events: Events,
        encoder: codec.Encoder,
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._limits = meter.limits
        self._meter = meter
        self._scope = scope
        self._guard = guard
        self._files = files
        self._events = events
        self._encoder = encoder
        self._loop = asyncio.get_running_loop()
        self._running = 0
        self._calls: set[HttpCall] = set()  # whose results are awaited
        self._heads = Heads({**JSON, **guard.cors(Asking(None))})

    @property
    def is_busy(self) -> bool:
        """Return whether a handler is running."""
        return self._running > 0

    def stop(self) -> None:
        """Refuse new event streams."""
        self._events.stop()

    async def close(self, timeout: float) -> None:
        """Cancel the calls that still run, which are answered with 503, and end the event streams."""
        for call in self._calls:
            call.cancel(ENDED)
        await self._events.close(timeout)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; what goes wrong is an answer too.

        Raises:
            web.HTTPException: a redirect.
        """
        match: Match | None = None
        asking = asking_of(request.headers)
        try:
            self._guard.check_host(asking)
            match = self._find(request.path)
            if request.method == 'OPTIONS' and 'Access-Control-Request-Method' in request.headers:
                allow = _allow(match.target if match is not None else None)
                headers = self._guard.preflight(asking, request.headers, allow)
                return web.Response(status=204, headers={**HEADERS, **headers})
            return self._readable(asking, await self._serve(request, asking, match))
        except BaseException as exc:
            return self._readable(asking, self._error(exc, match, request, asking))

    def serve_at_once(
        self, message: RawRequestMessage, payload: StreamReader, request: Callable[[bytes | None], web.BaseRequest]
    ) -> bytes | Done | None:
        """As `serve`, in one step instead of many, for what most requests come to.

        They go where one went before, and there is nothing about them that needs a closer look.

        Args:
            message: the head of the request.
            payload: its body.
            request: makes the whole request, of which the body was read.

        Returns:
            The answer; what is left to do, by `finish`; or `None` where nothing was done.
        """
        path, _, query = message.path.partition('?')
        known = self._registry.paths.get(path)
        if known is None or not known.is_so or message.method not in known.methods:
            return None
        if message.should_close or message.upgrade or message.version != HttpVersion11:
            return None
        ctx: Context | None = None
        data: bytes | None = None
        if 'Expect' in message.headers or not self._guard.passes(message.headers):
            return None
        if payload is not EMPTY_PAYLOAD:
            is_json = message.headers.get('Content-Type') == 'application/json' and not message.compression
            is_here = payload.is_eof() and not over(payload.total_bytes, self._limits.max_body_size)
            if query or not is_json or not is_here or payload.exception() is not None:
                return None
            data = payload.read_nowait()
        try:
            found = plain_parameters(query, data, self._limits)
            if found is None:
                return None
            ctx = Context(self._scope(Later(partial(request, data)), self._connection), path, None, message.method)
            result = copy_context().run(self._dispatcher.call, known.match, ctx, *found)  # as a task would
            if type(result) in codec.PLAIN:
                return self._heads.answer(self._encoder.encode(result))
        except BaseException as exc:
            return Done(known.match, ctx, None, exc)
        return Done(known.match, ctx, result, None)

    async def finish(self, request: web.BaseRequest, done: Done) -> web.StreamResponse:
        """What follows the call of a handler, where it could not be answered at once.

        Raises:
            web.HTTPException: a redirect.
        """
        asking = asking_of(request.headers)
        try:
            if done.exc is not None:
                raise done.exc
            return self._readable(asking, await self._rest(request, done.match, done.ctx, done.result))
        except BaseException as exc:
            return self._readable(asking, self._error(exc, done.match, request, asking))

    async def _serve(self, request: web.BaseRequest, asking: Asking, match: Match | None) -> web.StreamResponse:
        entry = self._registry.find_events(request.path) if request.method in ('GET', 'HEAD') else None
        names = self._event_names(request, entry) if entry is not None else []
        handler = match.target if match is not None and isinstance(match.target, Handler) else None
        is_named = match is not None and match.entry.sub == request.path[1:]  # which comes before a file of the package
        is_builtin = not is_named and self._files.has_builtin(request.path)
        if names or (handler is not None and not is_builtin):  # files may be linked to from anywhere
            is_link = request.method in ('GET', 'HEAD') and not names
            self._guard.check_origin(asking, handler if is_link else None)
        ctx = Context(self._scope(request, self._connection(request)), request.path, None, request.method)
        if names or not self._guard.is_public(request.path):
            await self._guard.authenticate(ctx, may_be_public=(match is not None or is_builtin) and not names)
        if entry is not None and names:
            return await self._events.serve(request, ctx, entry, names, partial(self._readable, asking))
        if is_builtin and not await self._comes_first(match, request.path):
            self._files.check_method(request.method)
            return self._files.builtin(request)
        if match is None:
            raise Error(404, 'Not found')
        if isinstance(match.target, Folder):
            return await self._files.folder(request, match.target, _below(match, request.path))
        if request.path == request.raw_path.partition('?')[0] and self._registry.find_events(request.path) is None:
            self._registry.remember_path(request.path)
        return await self._call(match, match.target, ctx, request)

    def _connection(self, request: web.BaseRequest) -> Connection:
        link = _Link(request.protocol, self._loop)  # not the running one: this may be in a thread
        return Connection(f'{id(request.protocol):x}', request.remote, time.time(), link)

    def _readable(self, asking: Asking, response: web.StreamResponse) -> web.StreamResponse:
        """An answer that a page of another origin may read, where that is let in."""
        if not response.prepared:
            for name, value in self._guard.cors(asking).items():
                if name == 'Vary' and name in response.headers:
                    value = f'{response.headers[name]}, {value}'
                response.headers[name] = value
        return response

    def _event_names(self, request: web.BaseRequest, entry: Entry) -> list[str]:
        if not request.query_string:
            return []
        check_query(request, self._meter)
        return [name for name in dict.fromkeys(request.query.getall(entry.evt, [])) if name]

    def _find(self, path: str) -> Match | None:
        try:
            return self._registry.find_path(path)
        except Error:  # nowhere; which is told to those alone who may ask
            return None

    async def _comes_first(self, match: Match | None, path: str) -> bool:
        """Return whether an existing file of a folder comes before a file of the package."""
        folder = match.target if match is not None else None
        return match is not None and isinstance(folder, Folder) and await self._files.has(folder, _below(match, path))

    async def _call(self, match: Match, handler: Handler, ctx: Context, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == 'OPTIONS' and not handler.takes('OPTIONS'):
            return web.Response(status=204, headers={**HEADERS, 'Allow': _allow(handler)})
        handler.check_method(request.method)
        self._running += 1
        try:
            values, texts = await parameters(request, self._meter)
            return await self._rest(request, match, ctx, self._dispatcher.call(match, ctx, values, texts))
        finally:
            self._running -= 1

    async def _rest(self, request: web.BaseRequest, match: Match, ctx: Any, result: Any) -> web.StreamResponse:
        """Answer with what a handler returned, once it is there."""
        self._running += 1
        try:
            if is_pending(result):
                result = await self._result(request, match, ctx, result)
            return await self._response(request, result)
        finally:
            self._running -= 1

    async def _result(self, request: web.BaseRequest, match: Match, ctx: Context, pending: Awaitable[Any]) -> Any:
        """Await a result as long as its client, `handler_timeout` and the end of the server let it."""
        call, handler, client = HttpCall(ctx), match.target, cast(Client, request.protocol)
        timeout = self._limits.handler_timeout
        timer = self._loop.call_later(timeout, self._time_out, call) if timeout is not None else None
        self._calls.add(call)
        if not (isinstance(handler, Handler) and handler.is_shielded):
            client.when_gone(partial(call.cancel, GONE))
        try:
            return await call.result(pending, partial(self._failed, request, match))
        except Error:
            if ctx.is_cancelled and _has_begun(request):
                client.hang_up()  # the answer that the handler began cannot become an error
                raise ConnectionResetError('the call was cancelled after its answer had begun') from None
            raise
        finally:
            client.when_gone(None)
            self._calls.discard(call)
            if timer is not None:
                timer.cancel()

    def _failed(self, request: web.BaseRequest, match: Match, exc: Exception) -> None:
        """Log the failure of a handler that was cancelled, unless it is that the client has gone."""
        if not (_is_gone(request) and (isinstance(exc, ConnectionError) or exc is request.content.exception())):
            self._dispatcher.error(exc, match.where)

    def _time_out(self, call: HttpCall) -> None:
        if call.cancel(TOO_LONG):
            self._meter.met('handler_timeout')

    async def _response(self, request: web.BaseRequest, result: Any) -> web.StreamResponse:
        if isinstance(result, web.HTTPException):
            raise result
        if isinstance(result, web.StreamResponse):
            result.headers.setdefault('Server', HEADERS['Server'])
            return result
        if isinstance(result, PurePath):
            return await self._files.file(request, Path(result))
        if isinstance(result, str):
            return web.Response(body=utf8(result), content_type='text/plain', charset='utf-8', headers=HEADERS)
        if isinstance(result, (bytes, bytearray, memoryview)):
            return web.Response(body=bytes(result), content_type='application/octet-stream', headers=HEADERS)
        return web.Response(body=self._encoder.encode(result), headers=JSON)

    def _error(
        self, exc: BaseException, match: Match | None, request: web.BaseRequest, asking: Asking
    ) -> web.StreamResponse:
        if isinstance(exc, web.HTTPException) and exc.status < 400:
            return redirection(exc)
        if exc is request.content.exception() and not isinstance(exc, Error):  # it came of the handler's own reading
            exc = Error(400, 'The body cannot be read: it is not what it says, or it broke off')
        elif self._dispatcher.is_end(exc):
            raise exc
        elif isinstance(exc, (ConnectionError, asyncio.CancelledError)) and _is_gone(request):
            raise exc  # nobody is there to be answered
        error = self._dispatcher.error(exc, match.where if match is not None else 'webshoes')
        response = web.Response(status=error.code, body=codec.error(error), headers=JSON)
        if error.code == 401 and 'WWW-Authenticate' not in response.headers:
            response.headers.update(self._guard.challenge)
        if isinstance(exc, web.HTTPException):
            response.headers.extend((name, value) for name, value in exc.headers.items() if name[:8] != 'Content-')
        if error.code == 405 and 'Allow' not in response.headers:
            response.headers['Allow'] = _allow(match.target if match is not None else None)
        return response


class _Link:
    """The connection of a plain request."""

    __slots__ = ('_loop', '_protocol')

    def __init__(self, protocol: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._protocol = protocol
        self._loop = loop

    def close_soon(self, code: int, reason: str) -> None:
        """Close the connection. HTTP has no close code or reason."""
        soon(self._loop, self._protocol.hang_up)

    @property
    def buffered(self) -> int:
        """Nothing is sent before the answer."""
        return 0


def _allow(target: Handler | Folder | None) -> str:
    """The `Allow` header (RFC 9110 section 10.2.1)."""
    return target.allow if isinstance(target, Handler) else 'GET, HEAD'


def _below(match: Match, path: str) -> str:
    """A path without the prefix of its entry; under `'*'` nothing is taken off."""
    return path[1:] if match.entry.sub == '*' else path[1:].removeprefix(match.entry.sub)


def _has_begun(request: web.BaseRequest) -> bool:
    """Return whether the handler has begun an answer of its own."""
    return bool(getattr(request.writer, 'has_begun', request.writer.output_size))


def _is_gone(request: web.BaseRequest) -> bool:
    """Return whether the client has left."""
    return request.transport is None or request.transport.is_closing()
