"""A real browser: Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

import webshoes as ws
from test.conftest import TIMEOUT, Serve

from .pages import CLASSIC, SCRIPT, Gate, NewPage, Site, add, cut, fall_silent, hang_up, refuse, subscriptions

HERE = Path(__file__).resolve().parent
DEMOS = HERE.parent.parent / 'demo'
SHOTS = HERE.parent.parent / '.check' / 'screenshots'
NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-sync']

expect.set_options(timeout=TIMEOUT * 1000)


@pytest.fixture(scope='session')
def browser() -> Iterator[Browser]:
    """The browser on the PATH, else Playwright's own; where there is none, the tests are left out with this reason."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        if path is None and not Path(playwright.chromium.executable_path).exists():
            reason = 'no Chromium: apt-get install chromium, or python -m playwright install chromium'
            if os.environ.get('WEBSHOES_BROWSER') == 'required':
                pytest.fail(reason)
            pytest.skip(reason)
        with playwright.chromium.launch(executable_path=path, args=QUIET) as chromium:
            yield chromium


@pytest.fixture
def new_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[NewPage]:
    """Open a page, each in a window of its own; an error of the page's own fails the test.

    `new_page(url)`; `new_page(url, may_fail=True)` where the page is to meet errors. Screenshots of a test that failed
    are kept in `.check/screenshots`.
    """
    pages: list[Page] = []
    errors: list[str] = []
    with ExitStack() as stack:

        def open_page(url: str | None = None, *, may_fail: bool = False, **settings: Any) -> Page:
            context: BrowserContext = stack.enter_context(browser.new_context(**settings))
            context.set_default_timeout(TIMEOUT * 1000)
            page = context.new_page()
            pages.append(page)
            if not may_fail:
                page.on('pageerror', lambda error: errors.append(f'{page.url}: {error}'))
                page.on('console', lambda said: errors.append(said.text) if said.type == 'error' else None)
            if url is not None:
                page.goto(url)
            return page

        yield open_page
        failed = request.session.testsfailed
        if failed:
            SHOTS.mkdir(parents=True, exist_ok=True)
            for number, page in enumerate(page for page in pages if not page.is_closed()):
                page.screenshot(path=SHOTS / f'{request.node.name}-{number}.png')
    assert errors == []


@pytest.fixture
def site(serve: Serve, tmp_path: Path) -> Site:
    """An app with a page: `site(settings='', html=CLASSIC)`."""

    def start(settings: str = '', html: str = CLASSIC, **kwargs: Any) -> ws.WebShoesApp:
        gate = Gate()
        fm: dict[str, Any] = {
            'add': add,
            'refuse': refuse,
            'hang-up': hang_up,
            'fall-silent': fall_silent,
            'cut': cut,
            'subscriptions': subscriptions,
        }
        wsa = serve(fm | {'wait': gate.wait, 'waiting': gate.waiting, 'go': gate.go}, **kwargs)
        (tmp_path / 'index.html').write_text(html % (SCRIPT % settings) if '%s' in html else html)
        wsa.register('*', '', '', '', '', {'*': {'root': tmp_path, 'defpage': 'index.html'}})
        return wsa

    return start


class Demo:
    """A demo, running as its user runs it."""

    def __init__(self, path: str, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(DEMOS / path), *args], stdout=subprocess.PIPE, text=True, encoding='utf-8'
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def wait_for_handler(self, number: int) -> None:
        """Return when the demo is at its last line, and handles this signal."""
        while True:
            status = Path(f'/proc/{self._process.pid}/status').read_text()
            caught = next(line.split()[1] for line in status.splitlines() if line.startswith('SigCgt'))
            if int(caught, 16) >> (number - 1) & 1:
                return

    def end(self, number: int) -> int:
        """Send it a signal and return the code it ends with."""
        self._process.send_signal(number)
        return self._process.wait(timeout=TIMEOUT)
