"""The documentation says what is true: its examples run, and print what it says they print."""

from __future__ import annotations

import contextlib
import io
import re
import threading
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from webshoes import Limits, WebShoesApp

HERE = Path(__file__).resolve().parent.parent
PAGES = ['README.md', *sorted(str(page.relative_to(HERE)) for page in (HERE / 'docs').glob('*.md'))]
PRINTS = re.compile(r'^\s*print\(.*\)\s+# (.*)$', re.MULTILINE)


def examples(page: str, port: int) -> str:
    """The Python examples of a page, one after another, on a port that is free."""
    text = (HERE / page).read_text()
    return '\n'.join(re.findall(r'```python\n(.*?)```', text, re.DOTALL)).replace('15801', str(port))


@pytest.mark.parametrize('page', PAGES)
def test_examples_print_what_they_say(page: str, free_port: int) -> None:
    """Each `print(...)  # comment` in the Python examples prints its comment, `...` standing for anything."""
    code, printed, names = examples(page, free_port), io.StringIO(), dict[str, Any]()
    before = threading.enumerate()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, 'exec'), names)
    finally:
        for app in names.values():
            if isinstance(app, WebShoesApp):
                app.stop()
    assert [thread.name for thread in threading.enumerate() if thread not in before and thread.name == 'webshoes'] == []
    expected = PRINTS.findall(code)
    lines = printed.getvalue().splitlines()
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(re.escape(pattern).replace(r'\.\.\.', '.*'), line), f'{line!r} is not {pattern!r}'


def test_architecture_lists_every_module() -> None:
    """The tree in docs/architecture.md has each module of the package, in its folder, and no other."""
    tree = (HERE / 'docs/architecture.md').read_text().split('```')[1]
    listed, folder = [], ''
    for indent, name in re.findall(r'^( +)(\S+)', tree, re.MULTILINE):
        if len(indent) == 2:
            folder = name if name.endswith('/') else ''
        if name.endswith('.py'):
            listed.append(folder + name)
    package = HERE / 'webshoes'
    modules = [
        str(path.relative_to(package))
        for path in package.rglob('*.py')
        if path.parent == package or path.stem != '__init__'
    ]
    assert sorted(listed) == sorted(modules)


def test_each_change_is_listed_once() -> None:
    """The changelog has one style of bullets, and no entry begins twice with the same words."""
    text = (HERE / 'CHANGELOG.md').read_text()
    entries = re.findall(r'^ *[-*+] (.{1,40})', text, re.MULTILINE)
    assert len(entries) == len(set(entries)) == len(re.findall(r'^\* ', text, re.MULTILINE))


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Each relative link leads to a file, and each `#` link to a heading of its page."""
    text = (HERE / page).read_text()
    headings = {
        re.sub(r'[^\w\- ]', '', line.lower()).replace(' ', '-') for line in re.findall(r'^#+ (.*)$', text, re.M)
    }
    for link in re.findall(r'\]\(([^)]+)\)', text):
        if link.startswith('#'):
            assert link[1:] in headings, link
        elif '://' not in link:
            assert (HERE / page).parent.joinpath(link.partition('#')[0]).exists(), link


def default(limit: Field[Any]) -> str:
    unit = limit.metadata['unit']
    return f'none, of {unit}' if limit.default is None else f'{limit.default:,} {unit}'


def test_every_limit_is_documented() -> None:
    """The table of limits in docs/settings.md says what the code says."""
    rows = [
        f'| `{limit.name}` | {default(limit)} | {limit.metadata["none"] or "-"} | {limit.metadata["why"]} |'
        for limit in fields(Limits)
    ]
    table = re.findall(r'^\| `\w+` \| (?:[\d.,]+ |none, of).*$', (HERE / 'docs/settings.md').read_text(), re.MULTILINE)
    assert table == rows
