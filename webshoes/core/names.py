"""What may be the name of an event or a uid, and where a client says it was."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from webshoes.core.errors import Error
from webshoes.core.text import check_text


class Since(Struct, frozen=True):
    """Where a client says it was; `epoch` may be missing at version 0 alone."""

    ver: int
    epoch: str | None


def check_event(name: Any, max_name: int) -> None:
    """Check the name of an event that the program gives.

    Raises:
        TypeError: it is no text, or has a lone surrogate.
        ValueError: it is empty or longer than `max_name` characters.
    """
    if not isinstance(name, str):
        raise TypeError(f'an event is named by a text, not {name!r}')
    if not 0 < len(name) <= max_name:
        raise ValueError(f'the name of an event has 1 to {max_name} characters, not {len(name)}')
    if not name.isascii():
        check_text(name, 'an event')


def check_name(name: object, max_name: int, what: str = 'event') -> str:
    """An event's name or a uid, as a client sent it.

    Raises:
        Error: 400, it is no text, empty or longer than `max_name` characters.
    """
    if not isinstance(name, str):
        raise Error(400, f"'{what}' is a text")
    if not name or len(name) > max_name:
        raise Error(400, f"'{what}' has 1 to {max_name} characters")
    return name


def check_since(since: object) -> Since:
    """The `since` of a subscription (wire, section 5).

    Raises:
        Error: 400, it is no `{"ver": number, "epoch": text}`.
    """
    if isinstance(since, dict):
        ver, epoch = since.get('ver'), since.get('epoch')
        if type(ver) is int and ver >= 0 and (isinstance(epoch, str) or (ver == 0 and 'epoch' not in since)):
            return Since(ver, epoch)
    raise Error(400, '\'since\' is {"ver": number, "epoch": text}, or {"ver": 0}')


def read_cursors(text: str) -> list[Since]:
    """Where a client says it was, in one line: `kQzPmXaB:41`, and for several events `kQzPmXaB:41,7,12`.

    An epoch stands before the first version that belongs to it; `0` alone needs none.

    Raises:
        Error: 400, it is none.
    """
    found, epoch = [], None
    for part in text.split(','):
        before, colon, ver = part.rpartition(':')
        if colon:
            epoch = before
        is_number = ver.isascii() and ver.isdigit() and len(ver) < 20
        if not is_number or not _is_epoch(epoch) or (epoch is None and int(ver)):
            raise Error(400, "'since' is <epoch>:<ver>, or 0")
        found.append(Since(int(ver), epoch))
    return found


def _is_epoch(epoch: str | None) -> bool:
    letters = (epoch or '').replace('-', '').replace('_', '')
    return not letters or (len(letters) <= 64 and letters.isascii() and letters.isalnum())


def write_cursors(cursors: list[Since]) -> str:
    """The line that `read_cursors` reads."""
    parts, epoch = [], None
    for cursor in cursors:
        parts.append(str(cursor.ver) if cursor.epoch == epoch else f'{cursor.epoch}:{cursor.ver}')
        epoch = cursor.epoch
    return ','.join(parts)
