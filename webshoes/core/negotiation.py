"""Content negotiation (RFC 9110 section 12): which codings and media types a client takes, and how gladly."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

# List members, and the parameters of one member: commas and semicolons inside quotes do not separate.
_MEMBER = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_PARAMETER = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*")+')
_WEIGHT = re.compile(r'(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)')

ALIASES = {'x-gzip': 'gzip'}  # RFC 9110 section 8.4.1.3


def choose_coding(accept: str | None, available: Collection[str]) -> str | None:
    """Choose the content coding of an answer (RFC 9110 section 12.5.3).

    Args:
        accept: the `Accept-Encoding` field; `None` if the request has none.
        available: codings that the server has, the preferred ones first. The file as it is need not be listed.

    Returns:
        A coding; `''` for no coding; `None` if the client refuses everything that there is.
    """
    if accept is None:
        return ''  # any coding would do, but such a client rarely decodes one
    weights = {ALIASES.get(name, name): weight for name, weight in _read(accept)}
    others = weights.get('*')

    def weight_of(coding: str) -> float:
        return weights.get(coding, others if others is not None else 0.0)

    plain = weights.get('identity', others)  # unlisted, it is taken but liked least
    best = max(available, key=weight_of, default='')  # the first of equal ones
    if best and weight_of(best) > 0 and weight_of(best) >= (plain or 0.0):
        return best
    return None if plain == 0 else ''


def weigh_type(accept: str, media_type: str) -> tuple[float, bool] | None:
    """Weigh a media type by an `Accept` field (RFC 9110 section 12.5.1). The most specific range counts.

    Returns:
        The weight, 0 to 1, and whether the field names this very type; `None` if no range matches.
    """
    main = media_type.partition('/')[0]
    weights = dict(_read(accept))
    for media_range in (media_type, f'{main}/*', '*/*'):
        if media_range in weights:
            return weights[media_range], media_range == media_type
    return None


def _read(field: str) -> Iterator[tuple[str, float]]:
    """Read a list of weighted names, lower-cased. Members with a weight that is none are left out.

    Space around `=` is malformed, but `gzip;q = 0` refuses gzip all the same.
    """
    for member in _MEMBER.findall(field.lower()):
        name, *parameters = (part.strip() for part in _PARAMETER.findall(member))
        pairs = [part.partition('=') for part in parameters]
        weights = [value.strip() for key, _, value in pairs if key.strip() == 'q']
        if name and all(_WEIGHT.fullmatch(weight) for weight in weights):
            yield name, float(weights[0]) if weights else 1.0
