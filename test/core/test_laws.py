"""The import laws of the house, read from the source: who may know whom."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
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
    'webshoes.transports.lane': {'webshoes.transports.websocket', 'webshoes.transports.peer'},
    'webshoes.transports.peer': {'webshoes.transports.websocket'},
    'webshoes.transports.refusals': {
        'webshoes.transports.http',
        'webshoes.transports.http_connection',
        'webshoes.transports.content',
        'webshoes.transports.server',
        'webshoes.transports.websocket',
    },
    'webshoes.transports.request': {'webshoes.transports.http_connection', 'webshoes.transports.server'},
    'webshoes.transports.upgraded': {'webshoes.transports.http_connection'},
    'webshoes.transports.writer': {'webshoes.transports.server'},
}  # of faces, and who may import each

PRIVATE = {
    'webshoes.core.events': {'_getframe'},
    'webshoes.core.params': {'_Missing__bag', '_Missing__path'},  # our own, from outside of their class
    'webshoes.lifetime': {'_current_frames', '_register_atexit'},
    'webshoes.pool': {'_max_workers', '_thread_name_prefix'},
    'webshoes.thread': {'_exit'},
}  # names that begin with an underscore, of the standard library but where it says so

Sources = dict[str, ast.Module]
Law = Callable[[Sources], Iterator[str]]


def module_name(path: Path) -> str:
    return '.'.join(path.relative_to(ROOT.parent).with_suffix('').parts).removesuffix('.__init__')


SOURCES: Sources = {module_name(path): ast.parse(path.read_bytes()) for path in sorted(ROOT.rglob('*.py'))}
PARTS['webshoes.transports.compat'] = {name for name in SOURCES if name.startswith('webshoes.transports.')}


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


def compat_alone_knows_the_inside_of_aiohttp(sources: Sources) -> Iterator[str]:
    """Private attributes of other libraries' objects, and modules of aiohttp's inside, are named in compat.py alone.

    A private name is our own where the module that names it also defines it.
    """
    for module in sources:
        if module == 'webshoes.transports.compat':
            continue
        own = own_names(sources[module]) | PRIVATE.get(module, set())
        for node in ast.walk(sources[module]):
            for name in private_names(node):
                if name not in own:
                    yield f'{module} names {name}'
        for imported in imported_at_run_time(sources[module]):
            if imported.startswith('aiohttp.') and imported != 'aiohttp.web':
                yield f'{module} imports {imported}'


def private_names(node: ast.AST) -> Iterator[str]:
    """The private attributes that a node names: `x._y`, `getattr(x, '_y')`, `from x import _y`."""
    names: list[str] = []
    if isinstance(node, ast.Attribute):
        names = [node.attr]
    elif isinstance(node, ast.ImportFrom):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith('attr'):
        names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return (name for name in names if name.startswith('_') and not name.endswith('__'))


def own_names(tree: ast.Module) -> set[str]:
    """The private names that a module defines: functions, classes, attributes that are assigned to `self`, slots."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == 'self':
            names.add(node.attr)
    return names


def imported_at_run_time(tree: ast.Module) -> Iterator[str]:
    """The modules that a module imports, but for those that only its types need."""
    for node in tree.body:
        is_for_types = isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test)
        for inner in ast.walk(node) if not is_for_types else ():
            if isinstance(inner, ast.ImportFrom):
                yield inner.module or ''
            elif isinstance(inner, ast.Import):
                yield from (alias.name for alias in inner.names)


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
    compat_alone_knows_the_inside_of_aiohttp,
    the_front_is_for_others,
    no_circles,
]


def classes_of_ours() -> Iterator[type]:
    """The classes of transports/ but compat.py that are derived from other libraries' classes."""
    for name in SOURCES:
        if name.startswith('webshoes.transports.') and name != 'webshoes.transports.compat':
            module = importlib.import_module(name)
            for found in vars(module).values():
                if isinstance(found, type) and found.__module__ == name and any(foreign_bases(found)):
                    yield found


def foreign_bases(kind: type) -> Iterator[type]:
    return (base for base in kind.__mro__ if base.__module__.startswith('aiohttp'))


def private_attributes(kind: type) -> set[str]:
    """The private names that a class has or assigns, as its source says: a compiled class has a twin in Python."""
    module = importlib.import_module(kind.__module__.replace('.reader_c', '.reader_py'))
    source = inspect.getsource(getattr(module, kind.__name__))
    found = set(re.findall(r'\b_[a-z]\w*', source))
    return {name for name in found if f'self.{name}' in source or name in vars(kind)}


@pytest.mark.parametrize('kind', list(classes_of_ours()), ids=lambda kind: kind.__name__)
def test_no_private_name_of_a_base_is_used(kind: type) -> None:
    """A class outside compat.py neither uses nor hides a private attribute of the class of aiohttp below it."""
    inside = set().union(*map(private_attributes, foreign_bases(kind)))
    assert private_attributes(kind) & inside == set()


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
        (compat_alone_knows_the_inside_of_aiohttp, 'transports.http', 'request._message'),
        (compat_alone_knows_the_inside_of_aiohttp, 'transports.http', 'cast(Any, request)._payload = None'),
        (compat_alone_knows_the_inside_of_aiohttp, 'transports.http', 'request.protocol._messages.clear()'),
        (compat_alone_knows_the_inside_of_aiohttp, 'transports.server', "getattr(request, '_task', None)"),
        (compat_alone_knows_the_inside_of_aiohttp, 'outlet', 'transport._buffer'),
        (compat_alone_knows_the_inside_of_aiohttp, 'transports.peer', "hasattr(ws, '_reader')"),
        (compat_alone_knows_the_inside_of_aiohttp, 'transports.sse', 'from aiohttp.helpers import set_result'),
        (compat_alone_knows_the_inside_of_aiohttp, 'transports.sse', 'import aiohttp._websocket.reader'),
        (compat_alone_knows_the_inside_of_aiohttp, 'transports.sse', 'from aiohttp.web import _x'),
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
