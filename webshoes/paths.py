"""Where the package's own files are."""

from __future__ import annotations

from pathlib import Path

from webshoes.log import log

_PACKAGE = Path(__file__).resolve().parent
BUILTIN = ('webshoes.js', 'webshoes.mjs')


def libPath(name: str = '') -> str:
    """The path of a file or folder inside the package: `libPath('web')` is the folder of `webshoes.js`.

    Raises:
        FileNotFoundError: the package has no such file, or it is in a zip, where files have no path.
    """
    path = _PACKAGE / name
    if not _PACKAGE.is_dir():
        raise FileNotFoundError(f'webshoes has no file {name!r} with a path: it was imported from {_PACKAGE.parent}')
    if not path.exists():
        raise FileNotFoundError(
            f'webshoes has no file {name!r}; there are {sorted(p.name for p in _PACKAGE.iterdir())}'
        )
    return str(path)


def read_builtin() -> dict[str, bytes]:
    """Return the contents of the files that every server has, by the path of their URL.

    A program in a zip has them too. One that was frozen without its data goes without, and the log says so.
    """
    found = {}
    for name in BUILTIN:
        try:
            found[f'/{name}'] = _read(name)
        except Exception as exc:  # what the loaders of packers raise differs
            log.warning('/%s is not served: the file is missing in the package webshoes (%s)', name, exc)
    return found


def _read(name: str) -> bytes:
    path = _PACKAGE / 'web' / name
    if path.is_file():
        return path.read_bytes()
    from importlib.resources import files  # here, because its import is slow

    return files('webshoes').joinpath('web', name).read_bytes()
