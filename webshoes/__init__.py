"""A live API for a Python program that has a life of its own: one function serves HTTP and WebSocket alike."""

from webshoes.app import WebShoesApp
from webshoes.core.auth import basic_auth, bearer_auth
from webshoes.core.connection import Connection
from webshoes.core.context import Context
from webshoes.core.errors import Error
from webshoes.core.events import Event
from webshoes.core.handler import methods, page, shielded, threaded
from webshoes.core.limits import Limits
from webshoes.paths import libPath
from webshoes.version import __version__

__all__ = [
    'Connection',
    'Context',
    'Error',
    'Event',
    'Limits',
    'WebShoesApp',
    '__version__',
    'basic_auth',
    'bearer_auth',
    'libPath',
    'methods',
    'page',
    'shielded',
    'threaded',
]
