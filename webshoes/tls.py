"""TLS: what `ssl=` takes."""

from __future__ import annotations

import os
import ssl

StrPath = str | os.PathLike[str]


def tls_context(given: ssl.SSLContext | tuple[StrPath, StrPath] | None) -> ssl.SSLContext | None:
    """The context to serve with.

    Args:
        given: a context, or the paths of a certificate (its chain included) and of its key, in PEM.

    Raises:
        TypeError: it is neither.
        OSError: a file cannot be read; `ssl.SSLError`, one of them, where it is no certificate or key.
    """
    if given is None or isinstance(given, ssl.SSLContext):
        return given
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(f'ssl is an ssl.SSLContext or the two paths (certificate, key), not {given!r}')
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*given)
    return context
