"""webshoes on aiohttps whose inside is another: nothing that it promises depends on what aiohttp does not promise."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from test.altered import ALTERATIONS, rename
from webshoes.transports import compat

from .conftest import Serve

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize('name', ALTERATIONS)
def test_altered(name: str) -> None:
    """Every transport works with each part of aiohttp's inside altered; only these reliances do not work then."""
    command = [sys.executable, '-m', 'test.altered', name]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    lost, *others = result.stdout.splitlines() or ['']
    assert others == ['all is well'], result.stdout + result.stderr
    assert set(filter(None, lost.removeprefix('lost: ').split(', '))) == ALTERATIONS[name].lost


def test_every_private_name_is_altered() -> None:
    """Each private attribute of aiohttp's that compat.py names is one of those that are altered."""
    tree = ast.parse(Path(compat.__file__).read_bytes())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith('_')}
    methods = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith('_')}
    own = {'_connection', '_consumed', '_feed', '_is_initialized', '_take', '__init__'}
    renamed = [alteration.edits for alteration in ALTERATIONS.values()]
    foreign = (names | {name for name in methods if name == '_reader'}) - own
    assert [name for name in sorted(foreign) if rename(name) not in renamed] == []


def test_what_is_lost_is_logged(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server says what is slower with this aiohttp, once when it starts."""
    reliances = [compat.Reliance('release', False, 'A WebSocket holds 3 kB more.'), compat.RELIANCES[0]]
    monkeypatch.setattr('webshoes.transports.server.RELIANCES', reliances)
    with caplog.at_level('INFO', 'webshoes'):
        serve()
    version = metadata.version('aiohttp')
    assert caplog.messages == [f'aiohttp {version} is not one that webshoes knows. A WebSocket holds 3 kB more.']


def test_what_is_lost() -> None:
    """Everything works with the aiohttp that is installed; and what would be lost is said in a sentence each."""
    assert [it.name for it in compat.RELIANCES if not it.works] == []
    assert all(it.lost.endswith('.') and it.lost.count('.') == 1 for it in compat.RELIANCES)
