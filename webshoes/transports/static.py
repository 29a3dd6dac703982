"""Folders and files over HTTP."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, Unpack
from urllib.parse import quote

from aiohttp import web

from webshoes.core.errors import Error
from webshoes.core.registry import Folder
from webshoes.headers import HEADERS

T = TypeVar('T')
Args = TypeVarTuple('Args')

NOT_FOUND = Error(404, 'Not found')
READ = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0)  # a pipe that nobody writes would be waited for
# Where a file that is open has a path; there is none on Windows.
OPEN_FILES = next((path for path in ('/proc/self/fd', '/dev/fd') if Path(path).is_dir()), '')
SIBLINGS = {'br': '.br', 'gzip': '.gz'}
TYPES = mimetypes.MimeTypes()


class Static:
    """Serves folders, single files and the files that come with the package.

    Args:
        builtin: files of the package by the path that has them, `/webshoes.js`.
    """

    def __init__(self, builtin: Mapping[str, Path]) -> None:
        self._builtin = builtin

    def builtin(self, path: str) -> Path | None:
        """The package's file for a path."""
        return self._builtin.get(path)

    def check_method(self, method: str) -> None:
        """Raise error 405 where a file is to be changed."""
        if method not in ('GET', 'HEAD'):
            raise Error(405, f'Method {method} is not taken here, only GET, HEAD')

    async def has(self, folder: Folder, path: str) -> bool:
        """Whether a folder has a file at a path."""
        found = await _in_thread(resolve, folder.root, path)
        return found is not None and found.is_file()

    async def file(self, request: web.BaseRequest, path: Path, root: str | None = None) -> web.StreamResponse:
        """A file, with type, ETag and Range (RFC 9110 sections 8.3, 8.8.3 and 14), or its sibling that is compressed.

        Raises:
            Error: 404, there is no such file below the folder `root`, or it cannot be read.
        """
        if not OPEN_FILES:  # pragma: no cover  # Windows, where links are for administrators
            if not await _in_thread(path.is_file):
                raise NOT_FOUND
            return web.FileResponse(path, headers=HEADERS)
        accepted = request.headers.get('Accept-Encoding', '').lower()
        found = await _in_thread(_open, path, root, tuple(coding for coding in SIBLINGS if coding in accepted))
        if found is None:
            raise NOT_FOUND
        file, coding = found
        headers = {**HEADERS, 'Content-Type': TYPES.guess_type(path.name)[0] or 'application/octet-stream'}
        if coding:
            headers |= {'Content-Encoding': coding, 'Vary': 'Accept-Encoding'}
        return _File(file, headers)

    async def folder(self, request: web.BaseRequest, folder: Folder, path: str) -> web.StreamResponse:
        """What a folder has at a path: a file, or the way to the default page of a folder in it.

        Raises:
            Error: 404, nothing that may be served; 405, it is to be changed.
            web.HTTPSeeOther: to the default page.
        """
        found = await _in_thread(resolve, folder.root, path)
        if found is None:
            raise NOT_FOUND
        self.check_method(request.method)
        if found.is_dir() and folder.defpage:
            page = await _in_thread(resolve, folder.root, f'{path}/{folder.defpage}')
            if page is not None and page.is_file():
                # One slash in front: "//host/" would lead to another site (RFC 3986 section 4.2).
                location = f'/{quote(request.path.strip("/"))}/{quote(folder.defpage)}'.replace('//', '/', 1)
                query = f'?{request.rel_url.raw_query_string}' if request.query_string else ''
                raise web.HTTPSeeOther(location + query, headers=HEADERS)
        if path.endswith('/'):
            raise NOT_FOUND
        return await self.file(request, found, folder.root)


def resolve(root: str, path: str) -> Path | None:
    """The file or folder that a path names below `root`, links followed; `None` if there is none or it lies outside.

    Args:
        root: the folder.
        path: the decoded path below it, with slashes.
    """
    parts = [part for part in path.split('/') if part]
    if any(part in ('.', '..') or '\\' in part or '\0' in part or os.path.splitdrive(part)[0] for part in parts):
        return None
    try:
        base = Path(root).resolve(strict=True)
        found = base.joinpath(*parts).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # not there, a circle of links, a name no file system takes
        return None
    return found if found.is_relative_to(base) else None


class _Open:
    """An open file, closed when nobody needs it any more."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class _File(web.FileResponse):
    """A file that is open: what is sent is what was checked, whatever stands at its path by now."""

    def __init__(self, file: _Open, headers: Mapping[str, str]) -> None:
        super().__init__(f'{OPEN_FILES}/{file.number}', headers=headers)
        self._file: _Open | None = file

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Send it."""
        try:
            return await super().prepare(request)
        finally:
            self._file = None


def _open(path: Path, root: str | None, codings: tuple[str, ...]) -> tuple[_Open, str] | None:
    """A file, or its sibling in one of these codings, and that coding; `None` where there is no file to read."""
    base = None if root is None else Path(root).resolve()
    for coding in codings:
        sibling = _open_one(path.with_name(path.name + SIBLINGS[coding]), base)
        if sibling is not None:
            return sibling, coding
    file = _open_one(path, base)
    return None if file is None else (file, '')


def _open_one(path: Path, root: Path | None) -> _Open | None:
    try:
        file = _Open(os.open(path, READ) if root is None else _open_below(root, path.relative_to(root)))
    except (OSError, ValueError):
        return None
    return file if stat.S_ISREG(os.fstat(file.number).st_mode) else None


def _open_below(root: Path, path: Path) -> int:
    """Open a file no part of whose path is a link: one that has become one since it was looked at is not followed."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in path.parent.parts:
            outer, folder = folder, os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(outer)
        return os.open(path.name or '.', READ | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


async def _in_thread(fn: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, fn, *args)
