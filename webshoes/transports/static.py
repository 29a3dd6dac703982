"""Folders and files over HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack
from urllib.parse import quote

from aiohttp import web

from webshoes.core.errors import Error
from webshoes.core.registry import Folder
from webshoes.headers import HEADERS

T = TypeVar('T')
Args = TypeVarTuple('Args')

NOT_FOUND = Error(404, 'Not found')


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

    async def file(self, request: web.BaseRequest, path: Path) -> web.StreamResponse:
        """A file, with type, ETag and Range (RFC 9110 sections 8.3, 8.8.3 and 14).

        Raises:
            Error: 404, there is no such file, or it cannot be read.
        """
        if not await _in_thread(_is_readable, path):
            raise NOT_FOUND
        return web.FileResponse(path, headers=HEADERS)

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
        return await self.file(request, found)


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


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


async def _in_thread(fn: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, fn, *args)
