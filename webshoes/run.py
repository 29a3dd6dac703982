"""One run of an app, from `start` to its end: the core and the faces, joined on the loop's thread."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial
from ssl import SSLContext
from typing import Any

from msgspec import Struct
from propertybag import Bag

from webshoes import fork, lifetime
from webshoes.core.access import Access
from webshoes.core.audience import Audiences
from webshoes.core.codec import Encoder
from webshoes.core.connection import Connection
from webshoes.core.context import MakesConnection, Scope
from webshoes.core.dispatch import Dispatcher
from webshoes.core.events import Store
from webshoes.core.feed import headroom
from webshoes.core.handler import Function
from webshoes.core.hooks import Hooks, Teller
from webshoes.core.limits import Limits
from webshoes.core.meter import Meter
from webshoes.core.registry import Registry
from webshoes.core.services import Services
from webshoes.fanout import Fanout
from webshoes.guard import Guard
from webshoes.log import Journal, log
from webshoes.loops import Turn, spawner
from webshoes.outlet import Stalls
from webshoes.paths import read_builtin
from webshoes.pool import DaemonPool, DefaultPool
from webshoes.thread import Closing, LoopThread
from webshoes.transports.http import Http
from webshoes.transports.server import Server
from webshoes.transports.sse import EventsOverHttp
from webshoes.transports.static import Static
from webshoes.transports.websocket import WebSockets

SERVER_THREADS = 8  # for files
LOOKUP_THREADS = 4  # for names
DEFAULT_THREADS = 32  # for `asyncio.to_thread` of handlers; the most that asyncio has


class Parts(Struct, frozen=True, kw_only=True):
    """The parts of an app, which all its runs share."""

    wsa: Any
    opts: Bag
    addr: str
    port: int
    limits: Limits
    meter: Meter
    access: Access
    auth: Function | None
    public: frozenset[str]
    compress: bool
    new_loop: Callable[[], asyncio.AbstractEventLoop]
    tls: SSLContext | None
    registry: Registry
    store: Store
    hooks: Hooks
    journal: Journal
    encoder: Encoder


class Run:
    """One run.

    Args:
        parts: what the app is made of.
        port: what to listen on, 0 for a free port.

    Attributes:
        wanted_port: what to listen on, as given.
        thread: where it runs.
        port: the port that is listened on, `None` while there is none.
        connections: the WebSockets and event streams that are open, by id.
    """

    def __init__(self, parts: Parts, port: int) -> None:
        self._parts = parts
        self.wanted_port = port
        self._pool = DaemonPool(parts.limits.max_threads, 'webshoes-worker', partial(parts.meter.met, 'max_threads'))
        server = DaemonPool(SERVER_THREADS, 'webshoes-server')  # handlers that block do not hold up these
        lookups = DaemonPool(LOOKUP_THREADS, 'webshoes-lookup')
        default = DefaultPool(DEFAULT_THREADS, 'webshoes-default', server, lookups)
        self.thread = LoopThread(self._open, parts.new_loop, self._pool, server, lookups, default)
        fork.add(self, Run.leave)
        self.port: int | None = None
        self.connections: dict[str, Connection] = {}
        self._fanout: Fanout | None = None
        self._unwatch: Callable[[], object] = lambda: None

    async def _open(self) -> Closing:
        parts, loop = self._parts, asyncio.get_running_loop()
        dispatcher = Dispatcher(
            clock=time.perf_counter,
            in_thread=partial(loop.run_in_executor, self._pool),
            on_failure=parts.journal.failure,
            on_slow=self._slow,
            slow=parts.limits.slow_handler,
        )
        parts.encoder.watch(dispatcher.leave_out)
        spawn, stalls, audiences = spawner(loop), Stalls(parts.limits.stall_timeout), Audiences()
        turn = Turn(stalls.look_at_all)
        fanout = Fanout(parts.store, loop, audiences, headroom(parts.limits.send_buffer), turn.end)
        guard = Guard(parts.access, parts.auth, parts.public, dispatcher, parts.meter, parts.journal)
        services = Services(
            dispatcher=dispatcher,
            limits=parts.limits,
            meter=parts.meter,
            now=time.time,
            spawn=spawn,
            later=loop.call_later,
            registry=parts.registry,
            store=parts.store,
            teller=Teller(parts.hooks, dispatcher, spawn),
            connections=self.connections,
            audiences=audiences,
            wake_soon=fanout.wake_soon,
            new_id=partial(secrets.token_hex, 16),
            encoder=parts.encoder,
        )
        files, events = Static(read_builtin(), parts.journal), EventsOverHttp(services, stalls)
        http = Http(parts.registry, dispatcher, parts.meter, self._scope, guard, files, events, parts.encoder)
        websockets = WebSockets(services, self._scope, guard, stalls, turn, parts.compress)
        server = Server(http, websockets, parts.meter, stalls, parts.journal)
        self.port = await server.open(parts.addr, self.wanted_port, parts.tls)
        self._fanout = fanout
        self._unwatch = lifetime.watch(loop)
        parts.store.wake = fanout.request
        fanout.flush()  # what was triggered while there was no loop
        return partial(self._close, server, dispatcher)

    def _slow(self, name: str, seconds: float) -> None:
        self._parts.meter.met('slow_handler')
        self._parts.journal.slow(name, seconds)

    def _scope(self, req: Any, conn: MakesConnection, ws: Any = None) -> Scope:
        return Scope(req=req, opts=self._parts.opts, wsa=self._parts.wsa, ws=ws, conn=conn)

    async def _close(self, server: Server, dispatcher: Dispatcher) -> None:
        self._unwatch()
        try:
            await server.close(partial(self._begin_to_end, dispatcher))
        finally:
            self._parts.encoder.unwatch()  # it holds on to the dispatcher, and so to all of this
            self.end()
            log.debug('stopped')

    def _begin_to_end(self, dispatcher: Dispatcher) -> None:
        """Push the last versions. From here on what still runs is cancelled."""
        dispatcher.is_ending = True
        if self._fanout is not None:  # a run that was given up leaves the changes to the one after it
            self._fanout.finish()

    def leave(self) -> None:
        """Let go of everything in a forked child: the run goes on in the parent alone."""
        self.thread.leave()
        for connection in self.connections.values():
            connection.leave()
        self.connections.clear()

    def end(self) -> None:
        """Note that it has ended, or was given up."""
        self._fanout = self.port = None
        lifetime.release(self)
