"""Text that can be sent. UTF-8 has no form of a lone surrogate (RFC 3629 section 3), half of a pair in UTF-16."""

from __future__ import annotations

HALF_OF_PAIR = 'is half of a surrogate pair, as of an emoji cut in two'


class UnsendableError(TypeError):
    """A value that cannot be sent. The message names the place in it, the kind, and the reason."""


def utf8(text: str, what: str = 'text') -> bytes:
    """Return the UTF-8 of a text.

    Args:
        text: the text.
        what: what it is, for the error.

    Raises:
        UnsendableError: it has a lone surrogate.
    """
    try:
        return str.encode(text)
    except UnicodeEncodeError as exc:
        raise UnsendableError(f'{what} with the lone surrogate {text[exc.start]!r} cannot be UTF-8') from None


def check_text(text: str, what: str) -> None:
    """Check a text that the program gives, and that is sent later.

    Args:
        text: the text.
        what: what it is, for the error.

    Raises:
        TypeError: it has a lone surrogate.
    """
    try:
        utf8(text, what)
    except UnsendableError as exc:
        raise TypeError(str(exc)) from None
