"""Folders, single files and the package's own files over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack
from urllib.parse import quote

from aiohttp import web

from webshoes.core.conditions import Validators
from webshoes.core.errors import Error
from webshoes.core.media_types import content_type
from webshoes.core.negotiation import choose_coding
from webshoes.core.registry import Folder
from webshoes.headers import HEADERS, field
from webshoes.log import Journal
from webshoes.transports.content import Content, respond
from webshoes.transports.disk import LeadsOutError, OpenFile, open_file, resolve

T = TypeVar('T')
Args = TypeVarTuple('Args')

NOT_FOUND = Error(404, 'Not found')
NOT_TAKEN = Error(406, 'The client takes no coding that there is of this file')
GZIP = 31  # zlib's number for its largest window in gzip's format
SIBLINGS = {'br': '.br', 'gzip': '.gz'}  # compressed files beside a file, the preferred ones first
UNRESERVED = "%:@!$&'()*+,;=~"  # what stands in a path segment as it is (RFC 3986 section 3.3), and percent codes


class Static:
    """Serves folders, single files and the files that come with the package.

    Args:
        builtin: contents of the package's files by their path, `/webshoes.js`.
        journal: the app's log.
    """

    def __init__(self, builtin: Mapping[str, bytes], journal: Journal) -> None:
        self._builtin = builtin
        self._compressed: dict[str, bytes] = {}
        self._journal = journal

    def has_builtin(self, path: str) -> bool:
        """Whether the package has a file for a path."""
        return path in self._builtin

    def builtin(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the package's file for a request, compressed if the client takes that.

        Raises:
            Error: 406, the client takes it neither way; 412.
        """
        coding = choose_coding(field(request.headers, 'Accept-Encoding'), ('gzip',))
        if coding is None:
            raise NOT_TAKEN
        path = request.path
        data = self._builtin[path]
        tag = hashlib.sha256(data).hexdigest()[:16]
        if coding:
            if path not in self._compressed:
                packer = zlib.compressobj(wbits=GZIP)
                self._compressed[path] = packer.compress(data) + packer.flush()
            data, tag = self._compressed[path], f'{tag}-{coding}'
        return respond(
            request, Content(data, len(data), content_type(path), coding, Validators(f'"{tag}"'), True, 'no-cache')
        )

    def check_method(self, method: str) -> None:
        """Check that a request reads a file.

        Raises:
            Error: 405.
        """
        if method not in ('GET', 'HEAD'):
            raise Error(405, f'Method {method} is not taken here, only GET, HEAD')

    async def has(self, folder: Folder, path: str) -> bool:
        """Whether a folder has a file at a path."""
        found = await self._resolve(folder, path)
        return found is not None and found.is_file()

    async def file(self, request: web.BaseRequest, path: Path, root: Path | None = None) -> web.StreamResponse:
        """Return a file, or the compressed file beside it, with type, ETag, conditions and ranges.

        Args:
            request: what asks for it.
            path: the file.
            root: a folder below which no link is followed; `None`: all are.

        Raises:
            Error: 404, there is no file that can be read; 406, the client takes no coding that there is; 412.
        """
        content, links = await _in_thread(_open, path, root, field(request.headers, 'Accept-Encoding'))
        for link in links:
            self._tell_of(link, str(root))
        return respond(request, content)

    async def folder(self, request: web.BaseRequest, folder: Folder, path: str) -> web.StreamResponse:
        """Return what a folder has at a path: a file, or a redirect to the default page of a folder in it.

        Raises:
            Error: 404, nothing that may be served; 405, the request does not only read; and as `file`.
        """
        found = await self._resolve(folder, path)
        if found is None:
            raise NOT_FOUND
        self.check_method(request.method)
        if found.is_dir() and folder.defpage:
            page = await self._resolve(folder, f'{path}/{folder.defpage}')
            if page is not None and page.is_file():
                return _redirect(request, folder.defpage)
        if path.endswith('/'):
            raise NOT_FOUND
        root = None if folder.links else await _in_thread(Path(folder.root).resolve)
        return await self.file(request, found, root)

    async def _resolve(self, folder: Folder, path: str) -> Path | None:
        try:
            return await _in_thread(resolve, folder.root, path, folder.links)
        except LeadsOutError as exc:
            self._tell_of(exc.link, folder.root)
            return None

    def _tell_of(self, link: Path, root: str) -> None:
        settings = {'root': root, 'links': True}
        self._journal.refusal(f'{link} leads out of its folder and was not followed; to let it: {settings}')


def _redirect(request: web.BaseRequest, page: str) -> web.Response:
    """Return a redirect to the default page of the folder that a request names.

    The reference is relative (RFC 3986 section 4.2) to what the client asked for, so that it holds behind a proxy that
    takes a prefix off the path.
    """
    raw = request.rel_url.raw_path
    segment = quote(raw.rpartition('/')[2], safe=UNRESERVED, errors='surrogateescape')
    location = f'{segment}/{quote(page)}' if segment else quote(page)
    if ':' in segment:
        location = f'./{location}'  # or it would be taken for a scheme
    if query := request.rel_url.raw_query_string:
        location += f'?{query}'
    return web.Response(status=303, text='303: See Other', headers={**HEADERS, 'Location': location})


def _open(path: Path, root: Path | None, accepted: str | None) -> tuple[Content, list[Path]]:
    """The content of a file in the coding that the client likes best, and links beside it that lead out of the root."""
    file = open_file(path, root)
    if file is None:
        raise NOT_FOUND
    siblings: dict[str, OpenFile] = {}
    links = []
    for coding, ending in SIBLINGS.items():
        try:
            sibling = _open_sibling(path.with_name(path.name + ending), root)
        except LeadsOutError as exc:
            links.append(exc.link)
        else:
            if sibling is not None:
                siblings[coding] = sibling
    chosen = choose_coding(accepted, siblings)
    if chosen is None:
        raise NOT_TAKEN
    file = siblings.get(chosen, file)
    stat = file.stat
    # The time of the last change of any kind is in it, as the time of modification may be set back.
    tag = f'"{stat.st_mtime_ns:x}-{stat.st_ctime_ns:x}-{stat.st_size:x}{chosen and "-"}{chosen}"'
    validators = Validators(tag, int(stat.st_mtime // 1))
    return Content(file, stat.st_size, content_type(path.name), chosen, validators, bool(siblings)), links


def _open_sibling(path: Path, root: Path | None) -> OpenFile | None:
    file = open_file(path, root)
    if file is None and root is not None and path.is_symlink():
        found = resolve(str(root), path.relative_to(root).as_posix(), links=False)
        return open_file(found, root) if found is not None else None
    return file


async def _in_thread(fn: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, fn, *args)
