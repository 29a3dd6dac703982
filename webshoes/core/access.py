"""Who may ask, as far as a browser tells: hosts and origins (design, section 7). Decisions alone, without I/O.

A page of another origin is known by `Origin` (RFC 6454), held against `Host`, and where there is none by
`Sec-Fetch-Site` (W3C Fetch Metadata). Who is no browser sends neither, and is let in. A page that had its own name
point to this machine (DNS rebinding) is known by `Host`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct

REMEMBERED = 256  # hosts and origins that need not be taken apart again
PORTS = {'http': 80, 'ws': 80, 'https': 443, 'wss': 443}
SCHEME = re.compile('[A-Za-z][A-Za-z0-9+.-]{0,99}')  # RFC 3986 section 3.1
ESCAPED = re.compile('%[0-9A-Fa-f]{2}')  # RFC 3986 section 2.1
LONGEST = 253  # letters of a domain name (RFC 1035 section 2.3.4)


class Host(Struct, frozen=True):
    """A host as it is compared: its name in lower case, an address in its shortest form; all of loopback is one."""

    name: str
    port: int | None


class Asking(Struct, frozen=True):
    """What a request tells of who asks: the headers of these names, `None` where they are absent."""

    host: str | None
    origin: str | None = None
    site: str | None = None  # Sec-Fetch-Site
    mode: str | None = None  # Sec-Fetch-Mode


class Access:
    """The rules of one app.

    Args:
        origins: the origins that are let in beside the server's own: `'https://example.com'`, `'null'`, or `'*'`.
        hosts: the names under which the server may be asked, beside those of loopback; `None` is any where it is bound
            wide, and none else where it is bound to loopback. `'*'` is any.
        is_loopback: whether the server is bound to loopback.

    Raises:
        TypeError, ValueError: an origin or a host is none.
    """

    def __init__(self, origins: Iterable[str], hosts: Iterable[str] | None, is_loopback: bool) -> None:
        self._origins = {check_origin(origin) for origin in _listed(origins, 'origins')}
        self._hosts = None if hosts is None else {check_host(host) for host in _listed(hosts, 'hosts')}
        self._is_loopback = is_loopback

    def takes_host(self, asking: Asking) -> bool:
        """Return whether the server may be asked under this name. Who names none is no browser."""
        if asking.host is None or self._hosts == {'*'}:
            return True
        host = parse_host(asking.host)
        if host is None:
            return False
        if host.name == 'localhost' or (self._hosts is not None and host.name in self._hosts):
            return True
        return self._hosts is None and not self._is_loopback

    def is_unlisted(self, asking: Asking) -> bool:
        """Return whether the name is a domain's that was let in though nobody listed it."""
        host = parse_host(asking.host or '')
        return self._hosts is None and host is not None and host.name != 'localhost' and _address(host.name) is None

    def takes_origin(self, asking: Asking, is_page: bool = False) -> bool:
        """Return whether a page that asks, if it is one, may.

        Args:
            asking: what the request tells.
            is_page: whether what is asked for may be opened by a link from anywhere.
        """
        if asking.origin is not None:
            return self.is_own(asking) or self.is_listed(asking.origin)
        if asking.site in (None, 'same-origin', 'none') or '*' in self._origins:
            return True
        return is_page and asking.mode == 'navigate'

    def is_own(self, asking: Asking) -> bool:
        """Return whether the origin is the server's own; the scheme aside, as TLS may end at a proxy."""
        origin = parse_origin(asking.origin or '')
        host = parse_host(asking.host or '')
        if origin is None or host is None:
            return False
        scheme, theirs = origin
        mine = host.port if host.port is not None else PORTS.get(scheme)
        return (theirs.name, theirs.port) == (host.name, mine)

    def is_listed(self, origin: str) -> bool:
        """Return whether an origin is among those that are let in."""
        return '*' in self._origins or _plain(origin) in self._origins

    @property
    def takes_all(self) -> bool:
        """Return whether all origins are let in."""
        return '*' in self._origins

    @property
    def has_origins(self) -> bool:
        """Return whether any other origin is let in, so that answers differ by it."""
        return bool(self._origins)


def _listed(given: Iterable[str], what: str) -> list[str]:
    if not isinstance(given, Iterable):
        raise TypeError(f'{what} is a list of texts, not {given!r}')
    found = [given] if isinstance(given, str) else list(given)
    for one in found:
        if not isinstance(one, str):
            raise TypeError(f'{what} is a list of texts, not of {one!r}')
    return found


def check_origin(origin: str) -> str:
    """An origin as it is compared.

    Raises:
        ValueError: it is none.
    """
    if origin in ('*', 'null'):
        return origin
    if parse_origin(origin) is None:
        raise ValueError(f"origins: an origin is 'https://example.com', 'null' or '*', not {origin!r}")
    return _plain(origin)


def check_host(host: str) -> str:
    """The name of a host as it is compared.

    Raises:
        ValueError: it is none.
    """
    if host == '*':
        return host
    found = parse_host(host)
    if found is None or found.port is not None:
        raise ValueError(f"hosts: a host is a name such as 'rig.example.com', without a port, or '*', not {host!r}")
    return found.name


def check_public(paths: Iterable[str]) -> frozenset[str]:
    """Return the paths that need no login.

    Raises:
        TypeError, ValueError: one of them is not an exact path as it reads in `ctx.p`.
    """
    found = frozenset(_listed(paths, 'public'))
    for path in found:
        if (fault := _fault_of(path)) is not None:
            raise ValueError(fault)
    return found


def can_be_public(path: str) -> bool:
    """Return whether `public` can list a path."""
    return _fault_of(path) is None


def _fault_of(path: str) -> str | None:
    """Return why a path cannot be listed in `public`; `None` if it can."""
    if not path.startswith('/'):
        return f"public: a path begins with '/', as in '/login.html', not {path!r}"
    if ESCAPED.search(path):
        return f"public: write {path!r} without percent-encoding: '/a b', not '/a%20b'"
    if any(letter in path for letter in '*{}?#'):
        return f'public lists exact paths, without patterns and without a query, not {path!r}'
    if {'.', '..'} & set(path.split('/')):
        return f"public: no browser asks for a path with '.' or '..' in it: {path!r}"
    return None


def setting(name: str, value: str) -> str:
    """Return how a setting of the app is written that lists one value."""
    return f'WebShoesApp(..., {name}=[{value!r}])'


def host_setting(host: str) -> str | None:
    """Return the setting that lets in a `Host` header, or `None`."""
    found = parse_host(host)
    if found is None:
        return None
    return setting('hosts', f'[{found.name}]' if ':' in found.name else found.name)


def refused_page(asking: Asking, function: str | None) -> tuple[str, str | None]:
    """Describe a request that `takes_origin` refuses.

    Args:
        asking: what the request tells.
        function: the name of the function that it would call by GET, `None` where it is for anything else.

    Returns:
        A sentence, and the narrowest setting that lets such a request in, or `None`.
    """
    if asking.origin is not None:
        is_origin = asking.origin == 'null' or parse_origin(asking.origin) is not None
        return f'a page of origin {asking.origin!r} was refused', setting(
            'origins', asking.origin
        ) if is_origin else None
    if asking.mode == 'navigate' and function is not None:
        return f"a link from another site to '{function}' was refused", 'mark this function with @ws.page'
    if asking.mode == 'no-cors':
        return (
            'an image, a script or the like on a page of another origin, which the browser does not name, was refused',
            'add the attribute crossorigin to its tag, and list the origin of its page in '
            "WebShoesApp(..., origins=[...]); without the attribute only origins=['*'] lets it in",
        )
    return 'a page of another origin, which the browser does not name, was refused', setting('origins', '*')


def _plain(origin: str) -> str:
    """An origin with its port, by which equal ones are equal."""
    found = parse_origin(origin)
    if found is None:
        return origin
    scheme, host = found
    return f'{scheme}://{host.name}:{host.port}'


@lru_cache(REMEMBERED)
def parse_origin(origin: str) -> tuple[str, Host] | None:
    """Scheme and host of an origin, `None` where it is none (`null` too)."""
    scheme, mark, rest = origin.partition('://')
    host = parse_host(rest)
    if not mark or host is None or SCHEME.fullmatch(scheme) is None:
        return None
    scheme = scheme.lower()
    return scheme, Host(host.name, host.port if host.port is not None else PORTS.get(scheme))


@lru_cache(REMEMBERED)
def parse_host(text: str) -> Host | None:
    """The `Host` header (RFC 9110 section 7.2), `None` where it is none."""
    name, port = text, ''
    if text.startswith('['):
        name, bracket, port = text[1:].partition(']')
        if not bracket or ':' not in name or (port and port[0] != ':'):
            return None
        port = port[1:]
    elif ':' in text:
        name, _, port = text.partition(':')
    name = name.removesuffix('.')
    if not name.isascii() or len(name) > LONGEST or '' in name.split('.'):
        return None
    name = name.lower()  # not before: there are letters elsewhere whose lower case is ASCII
    if any(letter in '/?#@\\[] ,*' or not '!' <= letter <= '~' for letter in name):
        return None
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    return Host(_shortest(name), int(port) if port else None)


def _shortest(name: str) -> str:
    if name == 'localhost' or name.endswith('.localhost'):
        return 'localhost'
    address = _address(name)
    if address is None:
        return name
    mapped = getattr(address, 'ipv4_mapped', None) or address
    return 'localhost' if mapped.is_loopback else str(mapped)


@lru_cache(REMEMBERED)
def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def is_loopback(addr: str) -> bool:
    """Return whether an address to listen on is loopback's."""
    return bool(addr) and _shortest(addr.lower()) == 'localhost'
