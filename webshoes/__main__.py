"""`python -m webshoes`: one line for each part that takes part, for a bug report."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from webshoes.version import __version__

PARTS = ('aiohttp', 'msgspec', 'orjson', 'propertybag', 'threadmsg', 'uvloop')


def report() -> Iterator[str]:
    """The lines; a part that is not installed has none."""
    yield f'webshoes {__version__}'
    yield f'Python {platform.python_version()} ({platform.python_implementation()})'
    yield f'platform {platform.platform()}'
    for part in PARTS:
        try:
            yield f'{part} {metadata.version(part)}'
        except metadata.PackageNotFoundError:  # pragma: no cover  # all parts are here where tests run
            continue


if __name__ == '__main__':
    print(*report(), sep='\n')
