"""test/check.py: what it installs and runs, what it leaves out, and what it says about it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from test import check

CHECK = Path(check.__file__)
PROJECT = tomllib.loads((CHECK.parent.parent / 'pyproject.toml').read_text(encoding='utf-8'))['project']
PYTHON = Path(sys.executable)


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as a person does."""
    return subprocess.run([sys.executable, CHECK, *arguments], capture_output=True, text=True, encoding='utf-8')


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of Debian's, used by root, with neither browser nor proxy."""
    monkeypatch.setattr(check, 'PATH', str(tmp_path))
    monkeypatch.setattr(check, 'is_debian_root', lambda: True)


def parts_of(*names: str, may_install_system: bool) -> tuple[dict[str, check.Part], list[check.Step]]:
    steps = [step for step in check.all_steps(PYTHON) if step.name in names]
    return check.needed_parts(PYTHON, steps, may_install_system), steps


def said(*names: str, may_install_system: bool) -> str:
    return '\n'.join(check.plan(PYTHON, *parts_of(*names, may_install_system=may_install_system)))


@pytest.mark.parametrize('argument', ['--bogus', 'bogus', '--no-instal=1'])
def test_a_wrong_argument_is_an_error(argument: str) -> None:
    """An unknown option or step ends it with code 2 before anything is installed or run."""
    result = called(argument)
    assert result.returncode == 2
    assert 'error:' in result.stderr
    assert result.stdout == ''


def test_the_list_names_every_package() -> None:
    """The list that comes first has all that pip, npm and apt-get may install, and where."""
    printed = called('--dry-run').stdout
    folded = ' '.join(printed.split())
    for package in (*check.NODE, *check.NPM, *check.DEBIAN.values(), *check.lowest_versions()):
        assert package in folded
    for place in ('.check/node', '.check/lowest-', 'system-wide'):
        assert place in printed


def test_system_packages_are_announced(bare: None) -> None:
    """Before Debian packages are installed, the list says so, and how to prevent it."""
    printed = said('proxies', 'browser', may_install_system=True)
    assert printed.count('to be installed  Debian') == 2
    assert '--no-install leaves these out' in printed


def test_no_install(bare: None, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--no-install` no Debian package is installed, and a step that needs one is left out, not passed."""
    parts, steps = parts_of('proxies', 'browser', may_install_system=False)
    assert {name: part.bring for name, part in parts.items() if part.source == 'Debian'} == dict.fromkeys(check.DEBIAN)
    printed = said('proxies', 'browser', may_install_system=False)
    assert 'Left out, because nginx is missing, and --no-install is given: proxies' in printed
    assert 'Nothing is installed outside .check/.' in printed
    assert [check.run(step, parts) for step in steps] == ['skipped', 'skipped']
    assert check.summary(['passed', 'skipped', 'skipped'], 1.0) == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'steps: 1 passed, 0 failed, 2 skipped'


def test_an_installation_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """A part that cannot be installed fails the steps that need it, and the installer's output is shown."""

    def fail() -> None:
        check.call([PYTHON, '-c', 'import sys; sys.exit("no network")'])

    parts = {'nginx': check.Part('nginx', 'Debian', 'nginx-light', 'here', is_there=False, bring=fail)}
    assert check.all_brought(parts)
    assert 'no network' in capsys.readouterr().err
    assert check.run(check.Step('proxies', ['true'], ('nginx',)), parts) == 'failed'


@pytest.mark.parametrize(('code', 'expected'), [(0, 'passed'), (3, 'failed')])
def test_a_step(code: int, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A step that fails shows all that it printed, one that passes its last line."""
    command = [sys.executable, '-c', f'import sys; print("one"); print("two"); sys.exit({code})']
    assert check.run(check.Step('lint', command, ()), {}) == expected
    printed = capsys.readouterr().out
    assert 'two' in printed
    assert ('one\n' in printed) == (code != 0)


def test_the_lowest_versions_are_those_of_the_project() -> None:
    """Each dependency of webshoes has a lowest version, which is the one that is tested."""
    extras = PROJECT['optional-dependencies']
    named = dict(check.bounds([*PROJECT['dependencies'], *extras['fast'], *extras['demo']]))
    assert len(named) == len(PROJECT['dependencies']) + len(extras['fast']) + len(extras['demo'])
    assert {f'{name}=={version}' for name, version in named.items()} <= set(check.lowest_versions())
    assert len(check.lowest_versions()) == len({*named, *check.LOWEST_TOOLS})
