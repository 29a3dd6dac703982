"""A server without a socket, and who speaks to it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

from msgspec import structs

from webshoes.core import codec, frames
from webshoes.core.audience import Audiences
from webshoes.core.context import Context
from webshoes.core.events import Store
from webshoes.core.hooks import Hooks, Teller
from webshoes.core.limits import Limits
from webshoes.core.registry import Registry, make_entry
from webshoes.core.services import Services
from webshoes.core.session import Session

from .driver import Doors, Driver
from .link import new_scope


class House:
    """A server without a socket: entry `cmd`, entry `two` with fields of its own, and sessions."""

    def __init__(self, **limits: Any) -> None:
        self.doors = Doors()
        self.driver = Driver()
        self.failures: list[str] = []
        self.uids = iter(f'uid{number}' for number in range(10**6))
        self.registry = Registry()
        fm = {'echo': lambda ctx, q: q, 'wait': self.doors.wait, 'fail': lambda ctx, q: 1 / 0}
        self.registry.add(make_entry('cmd', 'cmd', 'q', 'evt', 'r', fm))
        self.registry.add(make_entry('two', 'do', 'with', 'watch', '', {'echo': lambda ctx, q: q}))
        self.limits = Limits(**limits)
        self.store = Store(self.limits, nullcontext(), 'E1')
        self.hooks = Hooks()
        shared = self.driver.services(
            self.limits,
            lambda fn, *args: fn(*args),
            lambda exc, where: self.failures.append(where),
        )
        self.services = Services(
            **structs.asdict(shared),
            registry=self.registry,
            store=self.store,
            teller=Teller(self.hooks, shared.dispatcher, self.driver.spawn),
            connections={},
            audiences=Audiences(),
            wake_soon=lambda wake: wake(),
            new_id=lambda: next(self.uids),
        )

    def trigger(self, name: str, value: Any) -> None:
        """Trigger an event, and tell those who subscribed."""
        self.store.trigger(name, codec.encode(value), 5.0)
        for changed, _ in self.store.take_news():
            audience = self.services.audiences.of(changed)
            for subscription in audience.apart if audience is not None else ():
                subscription.owner.mark_stale(subscription)


class Peer:
    """A session, spoken to in values."""

    def __init__(self, house: House) -> None:
        self.wakes = 0
        self.session = Session(house.services, Context(new_scope(), '/', None, 'WS'), self.wake)

    def wake(self) -> None:
        self.wakes += 1

    def ask(self, *messages: Any) -> list[Any]:
        """Send messages, each in a frame of its own, and take what there is."""
        for message in messages:
            self.session.receive(json.dumps(message).encode())
        return self.take()

    def take(self) -> list[Any]:
        return decoded(self.session.take(10**9))


def changed(store: Store) -> list[str]:
    """The events that somebody listens to and that were triggered since this was last asked."""
    return [name for name, _ in store.take_news()]


def decoded(sent: list[bytes]) -> list[Any]:
    """The messages in frames, each of which is a text."""
    found = [message for data in sent for message in frames.opened(data)]
    assert all(opcode == frames.TEXT for opcode, _ in found)
    return [codec.decode(message) for _, message in found]


def refused(code: int, message: str, **more: Any) -> list[Any]:
    return [{'error': message, 'code': code, **more}]
