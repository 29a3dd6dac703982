#!/usr/bin/env python3
"""Set up and run everything that is checked: `python3 test/check.py`.

It needs nothing but Python 3.11 or newer and a package index to install from, and leaves everything it makes in
`.check/`. Inside a virtual environment that has `pip install -e '.[test]'` it uses that one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import venv
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
OWN = HERE / '.check' / f'python-{sys.version_info.major}.{sys.version_info.minor}'
COVERAGE = '97'  # percent of the lines and branches of webshoes/

STEPS = {
    'format': ['ruff', 'format', '--check', '.'],
    'lint': ['ruff', 'check', '.'],
    'types': ['mypy'],
    'import laws': ['pytest', '-q', 'test/core/test_laws.py'],
    'tests': [
        'pytest',
        '-q',
        '-n',
        '2',
        'test',
        '--cov',
        '--cov-report=term:skip-covered',
        f'--cov-fail-under={COVERAGE}',
    ],
    'demos': ['pytest', '-q', 'test/test_demos.py'],
}


def main() -> int:
    """Run all steps, whatever the one before said; 0 if all are well."""
    if sys.version_info < (3, 11):  # noqa: UP036  # this runs before anything was installed
        print(f'webshoes needs Python 3.11 or newer, this is {sys.version.split()[0]}', file=sys.stderr)
        return 2
    started = time.monotonic()
    python = environment()
    print(f'\nwebshoes is checked with Python {sys.version.split()[0]} in {python.parent.parent}\n', flush=True)
    failed = [name for name, command in STEPS.items() if not passes(name, [str(python), '-m', *command])]
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
    pip = [str(python), '-m', 'pip', '--disable-pip-version-check', 'install', '--quiet', '--editable', '.[test]']
    subprocess.run(pip, cwd=HERE, check=True)
    stamp.write_text(wanted)
    return python


def is_installed_here() -> bool:
    """Whether the environment that runs this has webshoes from this very checkout, and pytest to test it with."""
    try:
        metadata.distribution('pytest-xdist')
        direct = metadata.distribution('webshoes').read_text('direct_url.json') or ''
    except metadata.PackageNotFoundError:
        return False
    return HERE.as_uri() in direct


def passes(name: str, command: list[str]) -> bool:
    """Run a step and tell of it: a line if it is well, all that it said if not."""
    started = time.monotonic()
    result = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    is_well = result.returncode == 0
    lines = [line for line in result.stdout.splitlines() if line.strip()] or ['']
    seconds = time.monotonic() - started
    print(f'{"✓" if is_well else "✗"} {name:12} {seconds:5.1f} s   {lines[-1] if is_well else ""}', flush=True)
    if not is_well:
        print('\n    ' + '\n    '.join(lines) + f'\n\n    again by hand: {" ".join(command)}\n', flush=True)
    return is_well


if __name__ == '__main__':
    sys.exit(main())
