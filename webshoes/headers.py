"""Headers that every response has, and how headers of a request are read."""

from __future__ import annotations

from typing import Any

HEADERS = {
    'X-Content-Type-Options': 'nosniff',  # what is sent as text is not to be run as a script
    'Server': 'webshoes',  # and not the versions of what is inside
}
JSON = {**HEADERS, 'Content-Type': 'application/json'}

# Of the texts of a form. There are charsets that take minutes to decode, and that nobody sends.
CHARSETS = ('utf-8', 'utf8', 'us-ascii', 'ascii', 'iso-8859-1', 'latin-1', 'windows-1252')


def field(headers: Any, name: str) -> str | None:
    """Return a header's value, its lines joined to one list (RFC 9110 section 5.3), or `None`."""
    if name not in headers:
        return None
    is_joined = not hasattr(headers, 'getone')  # in aiohttp 4 they are no multidict
    return headers[name] if is_joined else ', '.join(headers.getall(name))
