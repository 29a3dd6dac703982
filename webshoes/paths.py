"""Where the package's own files are."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
BUILTIN = ('webshoes.js', 'webshoes.mjs')


def libPath(name: str = '') -> str:
    """The path of a file or folder inside the package: `libPath('web')` is the folder of `webshoes.js`.

    Raises:
        FileNotFoundError: the package has no such file.
    """
    path = _PACKAGE / name
    if not path.exists():
        raise FileNotFoundError(
            f'webshoes has no file {name!r}; there are {sorted(p.name for p in _PACKAGE.iterdir())}'
        )
    return str(path)


def read_builtin() -> dict[str, bytes]:
    """Return the contents of the files that every server has, by the path of their URL."""
    return {f'/{name}': Path(libPath('web'), name).read_bytes() for name in BUILTIN}
