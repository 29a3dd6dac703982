"""Folders, single files and the package's own files over HTTP."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from webshoes.core.conditions import Validators
from webshoes.core.errors import Error
from webshoes.core.media_types import content_type
from webshoes.core.negotiation import choose_coding
from webshoes.core.registry import Folder
from webshoes.headers import HEADERS, field
from webshoes.log import Journal
from webshoes.pool import in_server_thread
from webshoes.transports.content import Content, respond
from webshoes.transports.disk import LeadsOutError, OpenFile, open_file, resolve

NOT_TAKEN = 'The client takes no coding that there is of this file'
SMALL = 64 * 1024  # bytes of a file that is read at once, by the thread that opens it
GZIP = 31  # zlib's number for its largest window in gzip's format
SIBLINGS = {'br': '.br', 'gzip': '.gz'}  # compressed files beside a file, the preferred ones first
UNRESERVED = "%:@!$&'()*+,;=~"  # what stands in a path segment as it is (RFC 3986 section 3.3), and percent codes
Found = tuple[Content, list[Path]]  # and links beside the file that lead out of its folder


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
        """Return whether the package has a file for a path."""
        return path in self._builtin

    def builtin(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the package's file for a request, compressed if the client takes that.

        Raises:
            Error: 406, the client takes it neither way; 412.
        """
        coding = choose_coding(field(request.headers, 'Accept-Encoding'), ('gzip',))
        if coding is None:
            raise Error(406, NOT_TAKEN)
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
        _check_method(method)

    async def has(self, folder: Folder, path: str) -> bool:
        """Return whether a folder has a file at a path."""
        try:
            return await in_server_thread(_has, folder, path)
        except LeadsOutError as exc:
            self._log_link(exc.link, folder.root)
            return False

    async def file(self, request: web.BaseRequest, path: Path) -> web.StreamResponse:
        """Return a file, or the compressed file beside it, with type, ETag, conditions and ranges.

        Raises:
            Error: 404, there is no file that can be read; 406, the client takes no coding that there is; 412.
        """
        found = await in_server_thread(_open, path, None, field(request.headers, 'Accept-Encoding'))
        return self._respond(request, found, '')

    async def folder(self, request: web.BaseRequest, folder: Folder, path: str) -> web.StreamResponse:
        """Return what a folder has at a path: a file, or a redirect to the default page of a folder in it.

        Raises:
            Error: 404, nothing that may be served; 405, the request does not only read; and as `file`.
        """
        accepted = field(request.headers, 'Accept-Encoding')
        try:
            found = await in_server_thread(_find, folder, path, request.method, accepted)
        except LeadsOutError as exc:
            self._log_link(exc.link, folder.root)
            raise _not_found() from None
        return _redirect(request, folder.defpage) if found is None else self._respond(request, found, folder.root)

    def _respond(self, request: web.BaseRequest, found: Found, root: str) -> web.StreamResponse:
        content, links = found
        for link in links:
            self._log_link(link, root)
        return respond(request, content)

    def _log_link(self, link: Path, root: str) -> None:
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


def _check_method(method: str) -> None:
    if method not in ('GET', 'HEAD'):
        raise Error(405, f'Method {method} is not taken here, only GET, HEAD')


def _not_found() -> Error:
    return Error(404, 'Not found')


def _has(folder: Folder, path: str) -> bool:
    found = resolve(folder.root, path, folder.links)
    return found is not None and found.is_file()


def _find(folder: Folder, path: str, method: str, accepted: str | None) -> Found | None:
    """Open what a folder has at a path; `None` if that is a folder with a default page."""
    found = resolve(folder.root, path, folder.links)
    if found is None:
        raise _not_found()
    _check_method(method)
    if folder.defpage and found.is_dir() and _has(folder, f'{path}/{folder.defpage}'):
        return None
    if path.endswith('/'):
        raise _not_found()
    return _open(found, None if folder.links else Path(folder.root).resolve(), accepted)


def _open(path: Path, root: Path | None, accepted: str | None) -> Found:
    """The content of a file in the coding that the client likes best, and links beside it that lead out of the root."""
    file = open_file(path, root)
    if file is None:
        raise _not_found()
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
        raise Error(406, NOT_TAKEN)
    file = siblings.get(chosen, file)
    stat = file.stat
    # The time of the last change of any kind is in it, as the time of modification may be set back.
    tag = f'"{stat.st_mtime_ns:x}-{stat.st_ctime_ns:x}-{stat.st_size:x}{chosen and "-"}{chosen}"'
    validators = Validators(tag, int(stat.st_mtime // 1))
    source = file.read(0, stat.st_size) if stat.st_size <= SMALL else file
    size = len(source) if isinstance(source, bytes) else stat.st_size
    return Content(source, size, content_type(path.name), chosen, validators, bool(siblings)), links


def _open_sibling(path: Path, root: Path | None) -> OpenFile | None:
    file = open_file(path, root)
    if file is None and root is not None and path.is_symlink():
        found = resolve(str(root), path.relative_to(root).as_posix(), links=False)
        return open_file(found, root) if found is not None else None
    return file
