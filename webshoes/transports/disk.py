"""Files on disk: which one a path names, and how it is opened so that no link leads out of its folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Opening a pipe must not wait for a writer.
READ = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0)
CAN_OPEN_BELOW = os.open in os.supports_dir_fd and hasattr(os, 'O_NOFOLLOW')  # Windows cannot


class LeadsOutError(Exception):
    """A link leads out of its folder.

    Attributes:
        link: the link.
    """

    def __init__(self, link: Path) -> None:
        super().__init__(f'{link} leads out of its folder')
        self.link = link


class OpenFile:
    """A file that is open: what is sent is what was checked, whatever stands at its path by now.

    It is closed when the last reference to it goes, so never while a thread reads it.

    Attributes:
        stat: its size and dates when it was opened.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self.stat = os.fstat(number)

    def read(self, start: int, size: int) -> bytes:
        """Return up to `size` bytes from `start` on; fewer only at the end of the file.

        Raises:
            OSError: the file cannot be read.
        """
        os.lseek(self._number, start, os.SEEK_SET)
        return os.read(self._number, size)

    def __del__(self) -> None:
        os.close(self._number)


def resolve(root: str, path: str, links: bool) -> Path | None:
    """Return the file or folder that a path names below a root, with all links followed, or `None`.

    Args:
        root: the folder.
        path: the decoded path below it, with slashes.
        links: whether links may lead out of the root.

    Raises:
        LeadsOutError: a link does.
    """
    parts = [part for part in path.split('/') if part]
    if any(part in ('.', '..') or '\\' in part or '\0' in part or os.path.splitdrive(part)[0] for part in parts):
        return None
    try:
        base = Path(root).resolve(strict=True)
        found = base.joinpath(*parts).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # not there, a circle of links, a name that no file system takes
        return None
    if links or found.is_relative_to(base):
        return found
    link = base
    for part in parts:
        link = link.resolve() / part
        if not link.resolve().is_relative_to(base):
            break
    raise LeadsOutError(link)


def open_file(path: Path, root: Path | None) -> OpenFile | None:
    """Open a plain file. Return `None` if it cannot be read.

    Args:
        path: the file.
        root: a folder above it, and no part of the path below that may be a link by now; `None`: links are followed.
    """
    try:
        if root is None or not CAN_OPEN_BELOW:
            number = os.open(path, READ)
        else:
            number = _open_below(root, path.relative_to(root))
    except (OSError, ValueError):
        return None
    file = OpenFile(number)
    return file if stat.S_ISREG(file.stat.st_mode) else None


def _open_below(root: Path, path: Path) -> int:
    """Open a file, following no link: a part of the path may have become one since it was resolved."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in path.parent.parts:
            outer, folder = folder, os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(outer)
        return os.open(path.name or '.', READ | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)
