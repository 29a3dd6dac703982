"""Programs that carry webshoes in a zip, or were packed without its data."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import webshoes
from test.conftest import TIMEOUT

PACKAGE = Path(webshoes.__file__).parent

PROGRAM = """
import requests
import webshoes as ws

with ws.WebShoesApp('127.0.0.1', 0) as wsa:
    wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {'where': lambda ctx, q: ws.__file__})
    print(requests.get(f'{wsa.url}/cmd/where').text)
    for name in ('webshoes.js', 'webshoes.mjs'):
        answer = requests.get(f'{wsa.url}/{name}')
        print(answer.status_code, len(answer.content))
try:
    ws.libPath('web')
except FileNotFoundError as exc:
    print(exc)
"""


def run(packed: Path) -> tuple[list[str], str]:
    """Run the program, which is packed with webshoes: the lines that it prints, and what it logs."""
    environment = {**os.environ, 'PYTHONPATH': str(packed)}
    done = subprocess.run(
        [sys.executable, str(packed)],
        cwd=packed.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize('has_data', [True, False])
def test_a_program_in_a_zip_serves(tmp_path: Path, has_data: bool) -> None:
    """A zipapp serves `/webshoes.js` from the zip; without the file it serves all else, and the log says so."""
    packed = tmp_path / 'program.pyz'
    with zipfile.ZipFile(packed, 'w') as archive:
        archive.writestr('__main__.py', PROGRAM)
        for file in PACKAGE.rglob('*'):
            if file.suffix == '.py' or (has_data and file.suffix in ('.js', '.mjs')):
                archive.write(file, Path('webshoes', file.relative_to(PACKAGE)))
    (where, script, module, no_path), log = run(packed)
    assert where.startswith(str(packed))
    assert no_path == f"webshoes has no file 'web' with a path: it was imported from {packed}"
    if has_data:
        sizes = [(PACKAGE / 'web' / name).stat().st_size for name in ('webshoes.js', 'webshoes.mjs')]
        assert [script, module] == [f'200 {size}' for size in sizes]
        assert log == ''
    else:
        assert script.startswith('404 ')
        assert '/webshoes.js is not served: the file is missing' in log
