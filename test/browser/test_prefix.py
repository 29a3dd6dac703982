"""The demos behind a proxy that has them under a path, in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from test.test_proxy import nginx_under_a_path, running

from .conftest import Demo
from .pages import NewPage

OpenDemo = Callable[[str], tuple[Page, Page]]


@pytest.fixture
def programs() -> Iterator[ExitStack]:
    """Programs that run until the pages are closed."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def open_demo(programs: ExitStack, new_page: NewPage, tmp_path: Path, free_port: int) -> OpenDemo:
    """Open a demo behind nginx, by the address of its folder, and beside it directly."""

    def open_one(path: str) -> tuple[Page, Page]:
        demo = programs.enter_context(Demo(path, '--port', '0'))
        port = urlsplit(demo.url).port
        assert port is not None
        proxy = programs.enter_context(running(nginx_under_a_path, tmp_path, free_port, port))
        page = new_page(f'https://127.0.0.1:{proxy.port}/rig7/site', ignore_https_errors=True)
        assert page.url == f'https://127.0.0.1:{proxy.port}/rig7/site/{demo.url.rpartition("/")[2]}'
        return page, new_page(demo.url)

    return open_one


def test_grid(open_demo: OpenDemo) -> None:
    """A click under the path counts the cell up for all."""
    page, other = open_demo('grid/grid.py')
    page.get_by_label('row 3, column 4', exact=True).click()
    expect(other.get_by_label('row 3, column 4', exact=True)).to_have_text('1')


def test_canvas(open_demo: OpenDemo) -> None:
    """A stroke under the path is seen by all."""
    page, other = open_demo('canvas/canvas.py')
    expect(page.locator('#state')).to_have_text('open')
    page.locator('#canvas').click()
    expect(other.locator('#count')).to_have_text('1')


def test_dashboard(open_demo: OpenDemo) -> None:
    """The dashboard under the path, its second client and its stall work."""
    page, _ = open_demo('dashboard/dashboard.py')
    page.wait_for_function('mine.count > 20 && theirs.count > 20')
    with page.expect_response('**/rig7/train/nap'):
        page.get_by_role('button', name='Stall').click()
    page.locator('#slider').fill('-2')
    expect(page.locator('#rate')).to_have_text('0.010')
