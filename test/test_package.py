"""What is installed: the wheel, its types, its public names, and what an import costs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import webshoes

ROOT = Path(__file__).resolve().parent.parent

PUBLIC = [
    'Connection',
    'Context',
    'Error',
    'Event',
    'Limits',
    'WebShoesApp',
    '__version__',
    'basic_auth',
    'bearer_auth',
    'libPath',
    'methods',
    'page',
    'shielded',
    'threaded',
]

MEMBERS = [
    'command', 'connections', 'event', 'handlers', 'on', 'opts', 'port', 'register',
    'run', 'start', 'stats', 'stop', 'subscribers', 'triggerEvent', 'unregister', 'url',
]  # fmt: skip

WEB = ['webshoes.d.ts', 'webshoes.js', 'webshoes.mjs']

PROGRAM = """
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import webshoes as ws


@dataclass
class Add:
    a: int
    b: int


def add(ctx: ws.Context, q: Add) -> dict[str, int]:
    connection: ws.Connection = ctx.conn
    if q.b < 0:
        connection.close(1008, ws.__version__)
        raise ws.Error(404, 'No such number')
    return {'result': q.a + q.b}


@ws.threaded
@ws.shielded
@ws.methods('POST')
def work(ctx: ws.Context, q: Any) -> str:
    return '' if ctx.is_cancelled else ws.libPath('web')


@ws.page
def front(ctx: ws.Context, q: Any) -> str:
    return f'Hello {ctx.user}'


wsa = ws.WebShoesApp(
    '127.0.0.1', 0, {'verbose': True}, limits=ws.Limits(max_in_flight=None), loop='asyncio',
    origins=['https://example.com'], hosts=['rig'], auth=ws.basic_auth({'ann': 'secret'}), public=['/in'],
)
other = ws.WebShoesApp('127.0.0.1', 0, auth=ws.bearer_auth(lambda token: 'ann', by_message=True))
wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'add': add, 'work': work})


@wsa.command('cmd/late')
async def late(ctx: ws.Context, q: Any) -> None:
    event: ws.Event = wsa.event('state', history=1, distinct=True)
    version: int = event.ver


with wsa:
    version: Future[int] = wsa.triggerEvent('state', wsa.url + str(wsa.port))
    wsa.unregister(wsa.handlers['cmd'].sub)
text: str = work(ws.Context.__new__(ws.Context), None)
"""

WRONG = """
import webshoes as ws

wsa = ws.WebShoesApp('127.0.0.1', '80')
wsa.register('cmd', 'cmd', 'q', 'evt', 'r', [])
wsa.triggerEvent(1, 1)
ws.WebShoesApp('127.0.0.1', 80, loop='trio')
ws.Limits(max_batches=1)
ws.Error('404', 'No such cell')
wsa.event('state', history='all')
wsa.trigger_event('state', 1)
"""


def python(*args: str | Path, cwd: Path, **env: str) -> str:
    """Run Python, and return what it printed; a failure shows all."""
    result = subprocess.run([sys.executable, *args], cwd=cwd, env=env or None, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# --- the wheel ---


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp('wheel')
    python('-m', 'build', '--wheel', '--no-isolation', '--outdir', folder, ROOT, cwd=folder)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it, and nothing else."""
    folder = tmp_path_factory.mktemp('site')
    python('-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--target', folder, wheel, cwd=folder)
    return folder


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    """Each file of webshoes/ is in the wheel, the browser client and py.typed among them."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'webshoes').rglob('*') if path.is_file()}
    files = {path for path in files if '__pycache__' not in path}
    assert files >= {'webshoes/py.typed', *(f'webshoes/web/{name}' for name in WEB)}
    assert files <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_has_nothing_else(wheel: Path) -> None:
    """The wheel installs one package: no tests, no demos."""
    top = {name.split('/')[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert top == {'webshoes', f'webshoes-{webshoes.__version__}.dist-info'}


def test_the_version_is_one(site: Path) -> None:
    """The wheel's version is the one that the installed package tells."""
    (found,) = importlib.metadata.distributions(name='webshoes', path=[str(site)])
    program = 'import webshoes; print(webshoes.__version__, webshoes.__file__)'
    version, file = python('-c', program, cwd=site, PYTHONPATH=str(site)).split()
    assert found.version == version == webshoes.__version__
    assert file.startswith(str(site))


@pytest.mark.parametrize('name', WEB)
def test_an_installed_package_has_the_browser_client(site: Path, name: str) -> None:
    """`libPath` finds the browser client and its types where the wheel was installed."""
    program = f'import webshoes; print(open(webshoes.libPath("web/{name}")).read(), end="")'
    told = python('-c', program, cwd=site, PYTHONPATH=str(site), PYTHONIOENCODING='utf-8', PYTHONUTF8='1')
    assert told == (ROOT / 'webshoes/web' / name).read_text(encoding='utf-8')


def test_an_installed_package_serves(site: Path) -> None:
    """A program with the installed package starts, answers and stops."""
    program = (
        'import urllib.request, webshoes\n'
        'with webshoes.WebShoesApp("127.0.0.1", 0) as wsa:\n'
        '    print(urllib.request.urlopen(wsa.url + "/webshoes.js").status)'
    )
    assert python('-c', program, cwd=site, PYTHONPATH=str(site)) == '200\n'


# --- orjson, where it has wheels ---


@pytest.mark.parametrize(
    ('environment', 'is_needed'),
    [
        ({}, True),
        ({'python_version': '3.15', 'sys_platform': 'darwin', 'platform_machine': 'arm64'}, True),
        ({'sys_platform': 'win32', 'platform_machine': 'AMD64'}, True),
        ({'platform_machine': 'aarch64'}, True),
        ({'python_version': '3.15'}, False),
        ({'platform_python_implementation': 'PyPy'}, False),
        ({'platform_machine': 'riscv64'}, False),
    ],
)
def test_orjson_is_needed_where_it_has_wheels(environment: dict[str, str], is_needed: bool) -> None:
    """orjson is a dependency on the Pythons and processors that it has wheels for, and on no others."""
    usual = {
        'python_version': '3.13',
        'sys_platform': 'linux',
        'platform_machine': 'x86_64',
        'platform_python_implementation': 'CPython',
    }
    dependencies = map(Requirement, tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['dependencies'])
    (marker,) = (found.marker for found in dependencies if found.name == 'orjson')
    assert marker is not None
    assert marker.evaluate({**usual, **environment}) is is_needed


# --- python -m webshoes ---


def test_the_report_names_every_part(tmp_path: Path) -> None:
    """`python -m webshoes` prints a line with the version of each part that a bug report needs."""
    lines = python('-m', 'webshoes', cwd=tmp_path).splitlines()
    assert lines[0] == f'webshoes {webshoes.__version__}'
    assert lines[1].startswith(f'Python {platform.python_version()} ')
    assert lines[2] == f'platform {platform.platform()}'
    parts = ('aiohttp', 'msgspec', 'orjson', 'propertybag', 'threadmsg', 'uvloop')
    assert lines[3:] == [f'{part} {importlib.metadata.version(part)}' for part in parts]


@pytest.fixture
def without_uvloop(site: Path, tmp_path: Path) -> str:
    """A search path with all that is installed but uvloop."""
    for part in Path(sysconfig.get_path('platlib')).iterdir():
        if not part.name.startswith(('uvloop', 'webshoes')):
            (tmp_path / part.name).symlink_to(part)
    return f'{site}{os.pathsep}{tmp_path}'


def test_auto_is_asyncio_without_uvloop(without_uvloop: str, tmp_path: Path) -> None:
    """Where uvloop is not installed an app serves on asyncio's loop."""
    program = (
        'import asyncio, urllib.request, webshoes\n'
        'async def kind(ctx, q): return isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)\n'
        'wsa = webshoes.WebShoesApp("127.0.0.1", 0)\n'
        'wsa.command("cmd/kind")(kind)\n'
        'with wsa: print(urllib.request.urlopen(wsa.url + "/cmd/kind").read().decode())'
    )
    assert python('-S', '-c', program, cwd=tmp_path, PYTHONPATH=without_uvloop) == 'true\n'


def test_uvloop_that_is_missing_is_named(without_uvloop: str, tmp_path: Path) -> None:
    """Asking for uvloop where it is not installed is an ImportError that tells how to get it."""
    program = (
        'import webshoes\n'
        'try: webshoes.WebShoesApp("127.0.0.1", 0, loop="uvloop")\n'
        'except ImportError as exc: print(exc)'
    )
    assert 'webshoes[fast]' in python('-S', '-c', program, cwd=tmp_path, PYTHONPATH=without_uvloop)


def test_the_report_leaves_out_what_is_missing(without_uvloop: str, tmp_path: Path) -> None:
    """Where uvloop is not installed the report has no line of it."""
    lines = python('-S', '-m', 'webshoes', cwd=tmp_path, PYTHONPATH=without_uvloop).splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ['propertybag', 'threadmsg']


# --- types ---


@pytest.fixture(scope='module')
def typed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `mypy --strict` says of a user's two programs, one right and one wrong."""
    folder = tmp_path_factory.mktemp('typed')
    (folder / 'right.py').write_text(PROGRAM)
    (folder / 'wrong.py').write_text(WRONG)
    command = [sys.executable, '-m', 'mypy', '--strict', '--config-file=', 'right.py', 'wrong.py']
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


def test_a_users_program_is_typed(typed: str) -> None:
    """A program that uses every public name passes `mypy --strict`."""
    assert [line for line in typed.splitlines() if not line.startswith('wrong.py')][:-1] == []
    assert all(name == '__version__' or f'ws.{name}' in PROGRAM for name in webshoes.__all__)


@pytest.mark.parametrize('number', range(4, 12))
def test_a_wrong_use_is_found(typed: str, number: int) -> None:
    """Each wrong line of a program is an error of mypy's."""
    assert f'wrong.py:{number}: error' in typed


# --- shape ---


def test_public_names() -> None:
    """The public names are these: a new one is a promise, a missing one breaks programs."""
    assert sorted(webshoes.__all__) == sorted(PUBLIC)
    assert all(hasattr(webshoes, name) for name in PUBLIC)


def test_public_members() -> None:
    """The app's public members are these."""
    wsa = webshoes.WebShoesApp('127.0.0.1', 0)
    assert [name for name in dir(wsa) if not name.startswith('_')] == MEMBERS


def loaded(*modules: str) -> set[str]:
    """The modules that imports load."""
    return set(python('-c', f'import sys, {", ".join(modules)}; print(*sys.modules)', cwd=ROOT).split())


def test_an_import_loads_little_more_than_aiohttp() -> None:
    """`import webshoes` loads nothing beside what aiohttp and orjson do but itself, its dependencies and these."""
    others = loaded('aiohttp.web', 'orjson')  # an old orjson loads time zones
    beside = {module.partition('.')[0] for module in loaded('webshoes') - others}
    assert beside <= {
        'webshoes', 'msgspec', 'orjson', 'propertybag', 'threadmsg',
        '_decimal', '_pydecimal', '_queue', 'atexit', 'concurrent', 'contextvars', '_contextvars', 'dataclasses',
        'decimal', 'dis', 'hmac', 'numbers', 'queue', 'secrets', 'typing_extensions', 'uuid', '_uuid',
    }  # fmt: skip


def test_an_import_does_not_load_uvloop() -> None:
    """uvloop is loaded when an app is made that uses it, not by the import."""
    assert 'uvloop' not in loaded('webshoes')
