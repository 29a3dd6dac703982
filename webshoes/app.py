"""`WebShoesApp`: settings, registration, events and lifecycle."""

from __future__ import annotations

import dataclasses
import inspect
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from ssl import SSLContext
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from propertybag import Bag

from webshoes import fork, lifetime
from webshoes.core.access import Access, check_public, is_loopback
from webshoes.core.codec import Encoder
from webshoes.core.connection import Connection
from webshoes.core.context import Context
from webshoes.core.events import Event, Store
from webshoes.core.handler import compile_function
from webshoes.core.hooks import Hooks
from webshoes.core.limits import Limits
from webshoes.core.meter import Meter
from webshoes.core.names import check_event
from webshoes.core.registry import Entry, Registry, make_entry
from webshoes.core.text import UnsendableError
from webshoes.future import LazyFuture
from webshoes.log import Journal, log, log_to_stderr
from webshoes.loops import loop_factory
from webshoes.run import Parts, Run
from webshoes.sockets import unix_path, url_of
from webshoes.tls import StrPath, tls_context

F = TypeVar('F', bound=Callable[..., Any])


class WebShoesApp:
    """A live API for a program that has a life of its own.

    Args:
        addr: the address to listen on; `''` and `'::'` are all of them, IPv4 and IPv6. `'unix:/run/rig.sock'` is a
            Unix domain socket.
        port: the port; 0 picks a free one, which `port` tells once the server listens. A Unix domain socket has none.
        opts: the application's own bag, handed to handlers as `ctx.opts`. Two keys mean something to the server:
            `verbose` (log everything to stderr, except what log handlers of the application show there or on stdout),
            and `max_ws_msg_size` (bytes, over `limits`).
        origins: the origins whose pages may call, subscribe and read, beside the server's own: `'https://example.com'`,
            `'null'` for pages from files, `'*'` for all.
        hosts: the host names under which the server may be asked, beside those of this machine. `None`: bound to
            loopback, none; bound wide, or to a Unix domain socket, any. `'*'` is any.
        auth: `auth(ctx)` gives the user, `ctx.user` from then on, or raises `Error(401, ...)`; `None` is 401 too. Asked
            once for each HTTP request and WebSocket, before anything runs. A coroutine function or `@threaded` will
            do; see `basic_auth` and `bearer_auth`. Without it everybody is let in.
        public: the HTTP paths that need no login, exactly as they read in `ctx.p`: `['/login.html', '/webshoes.js']`.
            Events and WebSockets always need it.
        limits: every number the server enforces; `None` is the defaults of `Limits`.
        compress: whether WebSocket messages are compressed (RFC 7692) where the client offers it. Off, because it
            costs about 100 KiB of memory a connection and a third of the speed.
        loop: `'auto'` is uvloop where it is installed and asyncio where not; `'uvloop'` and `'asyncio'` ask for one.
        ssl: serve https and wss: an `ssl.SSLContext`, or the paths of a certificate (its chain included) and its key,
            in PEM. `None` is http and ws.
        default: adds types to what can be JSON, as the `default` of `json.dumps` does: it takes a value of a type that
            is not known, and returns one that is or raises `TypeError`. It is asked in the thread that encodes.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range; the sentence says which.
        ImportError: `loop='uvloop'`, and it is not installed.
        OSError: the certificate or its key cannot be read (`ssl.SSLError` where it is none).
    """

    def __init__(
        self,
        addr: str,
        port: int,
        opts: Mapping[str, Any] | None = None,
        *,
        origins: Iterable[str] = (),
        hosts: Iterable[str] | None = None,
        auth: Callable[[Context], Any] | None = None,
        public: Iterable[str] = (),
        limits: Limits | None = None,
        compress: bool = False,
        loop: Literal['auto', 'uvloop', 'asyncio'] = 'auto',
        ssl: SSLContext | tuple[StrPath, StrPath] | None = None,
        default: Callable[[Any], Any] | None = None,
    ) -> None:
        _check_arguments(addr, port, default)
        self.opts = opts if isinstance(opts, Bag) else Bag(dict(opts or {}))
        limits = limits or Limits()
        if self.opts.exists('max_ws_msg_size'):
            limits = dataclasses.replace(limits, max_ws_msg_size=self.opts.get('max_ws_msg_size'))
        if self.opts.get('verbose'):
            log_to_stderr()
        if (path := unix_path(addr)) is not None:
            addr, port = f'unix:{path}', 0
            hosts = '*' if hosts is None else hosts  # no browser connects there, and a proxy knows its own names
        meter = Meter(limits)
        self._parts = Parts(
            wsa=self,
            opts=self.opts,
            addr=addr,
            port=port,
            limits=limits,
            meter=meter,
            access=Access(origins, hosts, is_loopback(addr)),
            auth=None if auth is None else compile_function(auth, 'auth', 'ctx'),
            public=check_public(public),
            compress=compress,
            new_loop=loop_factory(loop),
            tls=tls_context(ssl),
            registry=Registry(),
            store=Store(limits, threading.RLock(), secrets.token_urlsafe(6), meter.met),
            hooks=Hooks(),
            journal=Journal(time.monotonic),
            encoder=Encoder(default, time.perf_counter, threading.get_ident),
        )
        self._encoder = self._parts.encoder
        self._max_name, self._events = limits.max_name, self._parts.store.events
        self._trigger: Callable[..., int | None] = self._parts.store.trigger
        self._registering = threading.Lock()
        self._lifecycle = threading.RLock()
        self._run: Run | None = None
        self._left_port: int | None = None  # the server's port, in a process forked from the one that runs it
        fork.add(self, WebShoesApp._leave)
        lifetime.prepare()

    def __repr__(self) -> str:
        return f'<WebShoesApp {self.url}, {"running" if self._is_running else "stopped"}>'

    # --- registration ---

    def register(self, sub: str, cmd: str, q: str, evt: str, rep: str, fm: dict[str, Any]) -> None:
        """Serve the functions of a dict. A later `register` of the same `sub` replaces the entry.

        Args:
            sub: the first segment of the HTTP path. Entry `'*'` serves any first segment that no other entry has,
                with and without a function's name behind it: `/known` and `/anything/known`.
            cmd: the field of a WebSocket message that holds the command; `''` takes none.
            q: the field with the arguments; `''` is the whole message.
            evt: the field that subscribes to an event; `''` takes no subscriptions.
            rep: the field of the reply with the result; `''` merges a dict into the reply.
            fm: functions `fn(ctx, q)`, or folders `{'root': path, 'defpage': file}`, by name. A name may have
                parameters (`'thing/{id}'`), end in `/*`, or be `'*'`.

        Raises:
            TypeError, ValueError: something of it cannot be served; the sentence says what.
        """
        entry = make_entry(sub, cmd, q, evt, rep, fm)
        for key, found in fm.items():
            if isinstance(found, dict) and not Path(found['root']).is_dir():
                log.warning("folder '%s/%s': there is no folder %s", sub, key, found['root'])
        with self._registering:
            self._parts.registry.add(entry)

    def unregister(self, sub: str) -> None:
        """Serve an entry no longer, if there is one."""
        with self._registering:
            self._parts.registry.remove(sub)

    def command(self, path: str) -> Callable[[F], F]:
        """Register one function: `@wsa.command('cmd/add')`.

        It goes into the entry of the first segment, which is made with the field names `cmd q evt r` if need be.

        Raises:
            TypeError, ValueError: as `register`.
        """
        if not isinstance(path, str):
            raise TypeError(f"command: @wsa.command('cmd/add'), with a path, not {path!r}")
        sub, slash, key = path.partition('/')
        if not (sub and slash and key):
            raise ValueError(f"command: a path such as 'cmd/add' is needed, not {path!r}")

        def add(fn: F) -> F:
            with self._registering:
                self._parts.registry.add_function(sub, key, fn)
            return fn

        return add

    @property
    def handlers(self) -> Mapping[str, Entry]:
        """The entries by `sub`; each field is readable as `entry.sub` and as `entry['sub']`."""
        return self._parts.registry.entries

    # --- events ---

    def triggerEvent(self, event: str, data: Any) -> Future[int]:
        """Make `data` the next version of an event and push it to whoever subscribed; from any thread.

        Args:
            event: its name, 1 to 256 characters.
            data: anything that can be JSON. It is encoded at once: what is changed in it later is never seen.

        Returns:
            A future of the version's number, done already. (Only where a signal handler triggers while its thread is
            triggering, it is done when the handler has returned.)

        Raises:
            TypeError: the data cannot be JSON, or the name is no text.
            ValueError: the name is empty or too long.
            RuntimeError: this process was forked from the one whose app this is.
        """
        if type(event) is not str or event not in self._events:  # the name of one that exists was checked
            check_event(event, self._max_name)
        ver: LazyFuture = LazyFuture()
        try:
            encoded = self._encoder.encode_event(event, data)
        except UnsendableError as exc:
            raise TypeError(str(exc)) from None
        trigger = self._trigger  # before the call: Python 3.11 takes long to find a method that is none
        ver.known = trigger(event, encoded, time.time(), False, ver)
        return ver

    def event(
        self,
        name: str,
        *,
        history: int | None = None,
        distinct: bool | None = None,
        read: Callable[[], Any] | None = None,
    ) -> Event:
        """An event as it stands (`ver`, `epoch`, `value`), and how it behaves.

        Args:
            name: the event.
            history: how many versions its log keeps for those who are behind; 1: only the newest value matters.
                `None` leaves it as it is, at first `Limits.history`.
            distinct: whether a trigger whose data equals the newest value makes no new version. `None` leaves it.
            read: gives the first value, when somebody subscribes and there is none yet; a plain function, a coroutine
                function, or one marked `@threaded`. `None` leaves it.

        Raises:
            TypeError, ValueError: the name, `history` or `read` cannot be used.
        """
        check_event(name, self._parts.limits.max_name)
        if history is not None and (not isinstance(history, int) or history < 1):
            raise ValueError(f'history is a number of versions, at least 1, not {history!r}')
        function = None if read is None else compile_function(read, f"event('{name}'), read:", '')
        self._parts.store.configure(name, history, distinct, function)
        return Event(self._parts.store, name)

    # --- who is there ---

    @property
    def connections(self) -> list[Connection]:
        """The WebSockets and event streams that are open; from any thread."""
        run = self._run
        return [] if run is None else list(run.connections.values())

    def subscribers(self, event: str) -> list[Connection]:
        """Those of `connections` that are subscribed to an event, each once; from any thread."""
        there = set(self.connections)
        return [feed.ctx.conn for feed in self._parts.store.subscribers(event) if feed.ctx.conn in there]

    def stats(self) -> dict[str, Any]:
        """How the server stands: `connections` that are open, and how often each of the `limits` was met so far."""
        return {'connections': len(self.connections), 'limits': self._parts.meter.read()}

    def on(self, moment: Literal['connect', 'disconnect', 'subscribe', 'unsubscribe']) -> Callable[[F], F]:
        """Have a function told who comes and goes: `@wsa.on('connect')`.

        It is called as `fn(ctx)`, and for `subscribe` and `unsubscribe` as `fn(ctx, event)`; it may be a coroutine
        function, or `@threaded`. What `subscribe` raises refuses the subscription, as an error of a handler's; errors
        of the others are logged.

        Raises:
            TypeError: the function cannot be called so.
            ValueError: there is no such moment.
        """

        def add(fn: F) -> F:
            with self._registering:
                self._parts.hooks.add(moment, fn)
            return fn

        return add

    # --- lifecycle ---

    @property
    def port(self) -> int:
        """The port: the one listened on, before `start` the one asked for; 0 for a Unix domain socket."""
        port = self._left_port if (run := self._run) is None else run.port
        return self._parts.port if port is None else port

    @property
    def url(self) -> str:
        """The server's address for programs on this machine: `http://127.0.0.1:15801`, or `unix:/run/rig.sock`."""
        return url_of(self._parts.addr, self.port, 'http' if self._parts.tls is None else 'https')

    @property
    def _is_running(self) -> bool:
        return self._run is not None and self._run.port is not None

    def start(self) -> None:
        """Serve on a thread of our own; returns when the server listens.

        An app that is running stops and starts anew, on the same port, and the log warns of it.

        Raises:
            OSError: the port is in use, or the address is not ours.
            RuntimeError: called by a handler of the running app, which would wait for itself; or by a process that was
                forked from the one that runs the app.
        """
        if (current := self._run) is not None and current.thread.is_inside():
            raise RuntimeError(
                'start() cannot be called from a handler of the app that is running: it waits for its end'
            )
        if self._left_port is not None:
            raise RuntimeError(
                'this app runs in the process that this one was forked from: make an app of its own to serve here'
            )
        with self._lifecycle:
            before = self._run
            if self._is_running:
                log.warning('start() of an app that is running: it stops, and starts anew on %s', self.url)
            run = Run(self._parts, self.port)  # the same port, even one that was picked: open pages go on using it
            self._trigger = self._parts.store.trigger  # `_leave` replaced it in a forked child
            try:
                lifetime.hold(run, self)  # before the run that ends, if there is one: `run` goes on
                self.stop()
                if before is not None and before.thread.is_running():  # it was given up, and keeps its port
                    run.wanted_port = self._parts.port
                self._run = run  # from here on a handler may stop it
                run.thread.open()
            except BaseException:
                if self._run is run:
                    self._run = None
                run.end()
                raise
        log.debug('listening on %s', self.url)

    def stop(self) -> None:
        """Stop serving, within `Limits.stop_timeout`; harmless when nothing runs.

        New work is refused, running handlers get half of that time, WebSockets are closed with 1001, the port is free.
        From a handler it returns at once, and the server stops when the handler is done.
        """
        run = self._run
        if run is None:
            return
        if run.thread.is_inside():
            run.thread.stop()
            return
        with self._lifecycle:
            if self._run is not run:  # it was stopped while this waited
                return
            if not run.thread.close(self._parts.limits.stop_timeout):
                self._parts.meter.met('stop_timeout')
                log.error(
                    'the server did not stop in %g seconds: a handler blocks its loop', self._parts.limits.stop_timeout
                )
            self._run = None
            run.end()

    def _leave(self) -> None:
        """Let go of the server in a forked child."""
        self._registering, self._lifecycle = threading.Lock(), threading.RLock()
        self._parts.store.leave(threading.RLock())
        self._trigger = _refuse_trigger
        if self._run is not None:
            self._left_port = self.port
            self._run = None

    def run(self) -> None:
        """Serve in the foreground until SIGINT or SIGTERM, or until somebody calls `stop`; it may be running already.

        Raises:
            OSError: as `start`.
        """
        if not self._is_running:
            self.start()
        try:
            lifetime.wait(self)
        finally:
            self.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _check_arguments(addr: object, port: object, default: object) -> None:
    if not isinstance(addr, str):
        raise TypeError(f"addr is an address such as '127.0.0.1', not {addr!r}")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise ValueError(f'port is a number from 0 to 65535, not {port!r}')
    if default is not None and (not callable(default) or inspect.iscoroutinefunction(default)):
        raise TypeError(f'default is a plain function of one value, as that of json.dumps, not {default!r}')


def _refuse_trigger(*trigger: object) -> int:
    """Stand for the store's `trigger` in a forked child."""
    raise RuntimeError(
        'this process was forked from the one whose app this is, so that nobody would see the event: trigger it there '
        '(hand the data over by a queue, say), or make and start an app here'
    )
