"""Services that all connections of one run share."""

from __future__ import annotations

from collections.abc import Callable

from webshoes.core.audience import Audiences
from webshoes.core.calls import CallServices
from webshoes.core.connection import Connection
from webshoes.core.events import Store
from webshoes.core.hooks import Teller
from webshoes.core.names import check_name
from webshoes.core.registry import Registry


class Services(CallServices, frozen=True, kw_only=True):
    """What all connections of one run share.

    Attributes:
        registry, store: the app's.
        teller: tells the app's hooks.
        connections: the WebSockets and event streams that are open, by id.
        audiences: who listens to the events, on the run's loop.
        wake_soon: has a function called on the loop, from any thread, before what is triggered later is sent.
        new_id: makes the name of a connection, and the uid of a subscription whose client named none.
    """

    registry: Registry
    store: Store
    teller: Teller
    connections: dict[str, Connection]
    audiences: Audiences
    wake_soon: Callable[[Callable[[], None]], None]
    new_id: Callable[[], str]

    def check_name(self, name: object, what: str) -> str:
        """An event's name or a uid, as a client sent it.

        Raises:
            Error: 400, it is no text, empty or too long.
        """
        if isinstance(name, str):
            self.meter.over('max_name', len(name))
        return check_name(name, self.limits.max_name, what)
