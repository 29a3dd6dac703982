"""The import laws of the house, read from the source: who may know whom."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import webshoes

ROOT = Path(webshoes.__file__).parent
PURE = frozenset(
    (
        '__future__',
        'base64',
        'collections',
        'contextlib',
        'dataclasses',
        'decimal',
        'enum',
        'functools',
        'inspect',
        'ipaddress',
        'itertools',
        'json',
        'math',
        're',
        'types',
        'typing',
    )
)
PURE_PARTS = {
    'datetime': {'date', 'datetime', 'time', 'timedelta', 'timezone'},
    'calendar': {'monthrange', 'timegm'},
    'sys': {'_getframe'},
    'os': {'PathLike', 'fspath'},
    'hmac': {'compare_digest'},
    'pathlib': {'PurePath'},
    'uuid': {'UUID'},
}  # of modules that also do I/O
LIBRARIES = frozenset(('msgspec', 'orjson', 'propertybag'))

PARTS = {
    'webshoes.transports.body': {'webshoes.transports.http'},
    'webshoes.transports.half_closed': {'webshoes.transports.http_connection'},
    'webshoes.transports.content': {'webshoes.transports.static'},
    'webshoes.transports.disk': {'webshoes.transports.static', 'webshoes.transports.content'},
    'webshoes.transports.heads': {'webshoes.transports.http'},
    'webshoes.transports.http_call': {'webshoes.transports.http'},
    'webshoes.transports.http_connection': {'webshoes.transports.server'},
    'webshoes.transports.http_lane': {'webshoes.transports.http_connection'},
    'webshoes.transports.lane': {'webshoes.transports.websocket', 'webshoes.transports.peer'},
    'webshoes.transports.peer': {'webshoes.transports.websocket'},
    'webshoes.transports.refusals': {
        'webshoes.transports.http_connection',
        'webshoes.transports.content',
        'webshoes.transports.server',
        'webshoes.transports.websocket',
    },
    'webshoes.transports.request': {'webshoes.transports.http_connection', 'webshoes.transports.server'},
    'webshoes.transports.upgraded': {'webshoes.transports.http_connection'},
    'webshoes.transports.writer': {'webshoes.transports.server'},
}  # of faces, and who may import each

Sources = dict[str, ast.Module]
Law = Callable[[Sources], Iterator[str]]


def module_name(path: Path) -> str:
    return '.'.join(path.relative_to(ROOT.parent).with_suffix('').parts).removesuffix('.__init__')


SOURCES: Sources = {module_name(path): ast.parse(path.read_bytes()) for path in sorted(ROOT.rglob('*.py'))}


def imports(sources: Sources, module: str) -> list[str]:
    """The modules that a module imports, wherever in it and even if for its types alone."""
    return read_imports(sources[module], module)


@cache
def read_imports(tree: ast.Module, module: str) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                base = '.'.join([*module.split('.')[: -node.level], *base.split('.')]).rstrip('.')
            for alias in node.names:
                inner = f'{base}.{alias.name}'
                found.append(inner if inner in SOURCES else base)
    return found


def parts_used(tree: ast.Module, module: str) -> set[str]:
    """What of a module is used: the attributes of its name, the names taken from it."""
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module:
            used.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module == module:
            used |= {alias.name for alias in node.names}
    return used


def core_is_pure(sources: Sources) -> Iterator[str]:
    """core/ imports itself, pure modules of the standard library, msgspec, orjson and propertybag."""
    for module in (name for name in sources if name.startswith('webshoes.core')):
        for imported in imports(sources, module):
            top = imported.partition('.')[0]
            if top in PURE_PARTS:
                if more := parts_used(sources[module], top) - PURE_PARTS[top]:
                    yield f'{module} uses {more} of {top}'
            elif not (imported.startswith('webshoes.core') or top in PURE | LIBRARIES):
                yield f'{module} imports {imported}'


def faces_are_apart(sources: Sources) -> Iterator[str]:
    """A face imports neither another face nor what is made of faces; a part of a face is imported by it alone."""
    for module in (name for name in sources if name.startswith('webshoes.transports.')):
        for imported in imports(sources, module):
            is_face = imported.startswith('webshoes.transports') and module not in PARTS.get(imported, ())
            if is_face or imported in ('webshoes.app', 'webshoes.run'):
                yield f'{module} imports {imported}'


def run_alone_knows_the_faces(sources: Sources) -> Iterator[str]:
    """Nobody but the run, which joins them, imports a face."""
    for module in (name for name in sources if name != 'webshoes.run'):
        for imported in imports(sources, module):
            if imported.startswith('webshoes.transports') and module not in PARTS.get(imported, ()):
                yield f'{module} imports {imported}'


def aiohttp_is_outside(sources: Sources) -> Iterator[str]:
    """aiohttp is imported in transports/ alone."""
    for module in (name for name in sources if not name.startswith('webshoes.transports.')):
        for imported in imports(sources, module):
            if imported.partition('.')[0] == 'aiohttp':
                yield f'{module} imports {imported}'


def the_front_is_for_others(sources: Sources) -> Iterator[str]:
    """Nobody inside imports what webshoes/__init__ shows; its modules are imported by their own names."""
    for module in sources:
        if 'webshoes' in imports(sources, module):
            yield f'{module} imports webshoes'


def no_circles(sources: Sources) -> Iterator[str]:
    """No module imports, over whatever others, itself."""
    graph = {module: set(imports(sources, module)) & sources.keys() for module in sources}
    for module in graph:
        reached: set[str] = set()
        ahead = list(graph[module])
        while ahead:
            following = ahead.pop()
            if following not in reached:
                reached.add(following)
                ahead += graph[following]
        if module in reached:
            yield f'{module} imports itself'


LAWS: list[Law] = [
    core_is_pure,
    faces_are_apart,
    run_alone_knows_the_faces,
    aiohttp_is_outside,
    the_front_is_for_others,
    no_circles,
]


@pytest.mark.parametrize('law', LAWS)
def test_law(law: Law) -> None:
    """The law holds in the source as it stands."""
    assert list(law(SOURCES)) == []


@pytest.mark.parametrize(
    ('law', 'module', 'line'),
    [
        (core_is_pure, 'core.codec', 'import asyncio'),
        (core_is_pure, 'core.codec', 'from time import time'),
        (core_is_pure, 'core.events', 'import webshoes.log'),
        (core_is_pure, 'core.events', 'from webshoes import log'),
        (core_is_pure, 'core.registry', 'os.listdir("/")'),
        (core_is_pure, 'core.calls', 'from pathlib import Path'),
        (core_is_pure, 'core.params', 'def f():\n    import socket'),
        (faces_are_apart, 'transports.http', 'from webshoes.transports.static import Static'),
        (faces_are_apart, 'transports.http', 'from .static import Static'),
        (faces_are_apart, 'transports.websocket', 'from webshoes import app'),
        (faces_are_apart, 'transports.websocket', 'from webshoes.app import WebShoesApp'),
        (run_alone_knows_the_faces, 'fanout', 'from webshoes.transports.http import Http'),
        (run_alone_knows_the_faces, 'core.session', 'import webshoes.transports.websocket'),
        (aiohttp_is_outside, 'app', 'from aiohttp import web'),
        (aiohttp_is_outside, 'core.errors', 'import aiohttp.web_exceptions'),
        (the_front_is_for_others, 'fanout', 'from webshoes import Error'),
        (the_front_is_for_others, 'core.calls', 'import webshoes'),
        (the_front_is_for_others, 'core.calls', 'from .. import Error'),
        (no_circles, 'core.errors', 'from webshoes.core import codec'),
        (no_circles, 'core.params', 'if TYPE_CHECKING:\n    from webshoes.core.registry import Match'),
    ],
)
def test_law_is_seen_to_be_broken(law: Law, module: str, line: str) -> None:
    """A copy of the source with one line that breaks the law is found out."""
    broken = f'webshoes.{module}'
    tree = ast.Module([*SOURCES[broken].body, *ast.parse(line).body], [])
    assert any(found.startswith(f'{broken} ') for found in law({**SOURCES, broken: tree}))
