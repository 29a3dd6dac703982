"""The demos, in two tabs at once."""

from __future__ import annotations

import io
import re
import signal
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import FloatRect, Page, Route, expect

from .conftest import Demo
from .pages import NewPage

PHONE: dict[str, Any] = {'viewport': {'width': 390, 'height': 844}, 'has_touch': True, 'is_mobile': True}
DEMOS = {'grid/grid.py': 'squares.html', 'canvas/canvas.py': 'canvas.html', 'dashboard/dashboard.py': 'dashboard.html'}


@pytest.fixture
def grid() -> Iterator[Demo]:
    with Demo('grid/grid.py', '--port', '0') as demo:
        yield demo


@pytest.fixture
def canvas() -> Iterator[Demo]:
    with Demo('canvas/canvas.py', '--port', '0') as demo:
        yield demo


@pytest.fixture
def dashboard() -> Iterator[Demo]:
    with Demo('dashboard/dashboard.py', '--port', '0') as demo:
        yield demo


def cell(page: Page, row: int, col: int) -> Any:
    return page.get_by_label(f'row {row}, column {col}', exact=True)


def box(page: Page) -> FloatRect:
    found = page.locator('#canvas').bounding_box()
    assert found is not None
    return found


def stroke(page: Page, *points: tuple[float, float], up: bool = True) -> None:
    """Draw with the mouse; points are in parts of the canvas."""
    area = box(page)
    at = [(area['x'] + x * area['width'], area['y'] + y * area['height']) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
        page.mouse.move(*point, steps=5)
    if up:
        page.mouse.up()


def ink(page: Page, x: float, y: float) -> bool:
    """Whether something is drawn at a point of the canvas."""
    code = '([x, y]) => canvas.getContext("2d").getImageData(x * 500 - 4, y * 500 - 4, 9, 9).data.some(v => v < 200)'
    found: bool = page.evaluate(code, [x, y])
    return found


def wait_for_ink(page: Page, x: float, y: float, *, there: bool = True) -> None:
    code = '([x, y, there]) => there === canvas.getContext("2d").getImageData(x * 500 - 4, y * 500 - 4, 9, 9)'
    page.wait_for_function(code + '.data.some(v => v < 200)', arg=[x, y, there])


@pytest.mark.parametrize('demo', DEMOS)
def test_demo_prints_its_url_and_ends(demo: str) -> None:
    """Each demo prints where its page is, and ends well on Ctrl-C."""
    with Demo(demo, '--port', '0', '--host', 'localhost') as running:
        assert re.fullmatch(rf'http://localhost:\d+/site/{DEMOS[demo]}', running.url)
        if 'dashboard' not in demo:  # which is in a loop of its own, and not at its end
            running.wait_for_handler(signal.SIGTERM)
        assert running.end(signal.SIGINT) == 0


def test_grid_is_shared(grid: Demo, new_page: NewPage) -> None:
    """A click counts a cell up in every tab; 9 goes back to 0."""
    one, two = new_page(grid.url), new_page(grid.url, **PHONE)
    for value in (*range(1, 10), 0):
        cell(one, 3, 4).click()
        expect(cell(two, 3, 4)).to_have_text(str(value))
    cell(two, 10, 10).tap()
    expect(cell(one, 10, 10)).to_have_text('1')


def test_grid_after_a_reload(grid: Demo, new_page: NewPage) -> None:
    """A page that is loaded anew shows what was clicked."""
    page = new_page(grid.url)
    cell(page, 1, 1).click()
    expect(cell(page, 1, 1)).to_have_text('1')
    page.reload()
    expect(cell(page, 1, 1)).to_have_text('1')


def test_grid_tells_its_state(grid: Demo, new_page: NewPage) -> None:
    """The page says that it is connected, and that it is not."""
    page = new_page(grid.url, may_fail=True)
    expect(page.locator('#state')).to_have_text('open')
    grid.kill()
    expect(page.locator('#state')).to_have_text('connecting')


def test_canvas_is_shared(canvas: Demo, new_page: NewPage) -> None:
    """A stroke is seen in another tab while it is drawn, and the strokes are counted."""
    one, two = new_page(canvas.url), new_page(canvas.url)
    expect(two.locator('#state')).to_have_text('open')
    stroke(one, (0.2, 0.2), (0.8, 0.2), up=False)
    wait_for_ink(two, 0.5, 0.2)
    one.mouse.up()
    expect(two.locator('#count')).to_have_text('1')


def test_canvas_for_a_late_joiner(canvas: Demo, new_page: NewPage) -> None:
    """Whoever comes later sees the whole drawing, however many pieces it has."""
    one = new_page(canvas.url)
    for line in range(40):
        stroke(one, (0.1, 0.02 * line + 0.1), (0.5, 0.02 * line + 0.1), (0.9, 0.02 * line + 0.1))
    expect(one.locator('#count')).to_have_text('40')
    late = new_page(canvas.url)
    expect(late.locator('#count')).to_have_text('40')
    assert all(ink(late, 0.7, 0.02 * line + 0.1) for line in range(40))


def test_canvas_eraser_and_clear(canvas: Demo, new_page: NewPage) -> None:
    """The eraser takes away what it goes over, and `Clear` everything, in every tab."""
    one, two = new_page(canvas.url), new_page(canvas.url)
    stroke(one, (0.2, 0.5), (0.8, 0.5))
    wait_for_ink(two, 0.5, 0.5)
    one.get_by_role('button', name='Eraser').click()
    stroke(one, (0.5, 0.4), (0.5, 0.6))
    wait_for_ink(two, 0.5, 0.5, there=False)
    assert ink(two, 0.25, 0.5)
    two.get_by_role('button', name='Clear').click()
    wait_for_ink(one, 0.25, 0.5, there=False)
    expect(one.locator('#count')).to_have_text('0')


def test_canvas_by_touch(canvas: Demo, new_page: NewPage) -> None:
    """A finger draws on a phone."""
    phone, other = new_page(canvas.url, **PHONE), new_page(canvas.url)
    area = box(phone)
    phone.touchscreen.tap(area['x'] + area['width'] / 2, area['y'] + area['height'] / 2)
    wait_for_ink(other, 0.5, 0.5)


def test_canvas_is_saved(canvas: Demo, new_page: NewPage) -> None:
    """`Save` gives a PNG."""
    page = new_page(canvas.url)
    with page.expect_download() as download:
        page.get_by_role('button', name='Save').click()
    assert io.BytesIO(download.value.path().read_bytes()).read(8) == b'\x89PNG\r\n\x1a\n'


@pytest.mark.parametrize('who', ['here', 'elsewhere'])
def test_canvas_while_offline(canvas: Demo, new_page: NewPage, who: str) -> None:
    """What is drawn while a tab is offline, there or elsewhere, is in every tab when it is back."""
    away, other = new_page(canvas.url, may_fail=True), new_page(canvas.url)
    expect(away.locator('#state')).to_have_text('open')
    away.context.set_offline(True)
    stroke(away if who == 'here' else other, (0.2, 0.7), (0.8, 0.7))
    away.context.set_offline(False)
    wait_for_ink(other, 0.5, 0.7)
    wait_for_ink(away, 0.5, 0.7)


def test_dashboard_shows_and_steers(dashboard: Demo, new_page: NewPage) -> None:
    """The dashboard follows the training, and its slider reaches the program."""
    page = new_page(dashboard.url)
    page.wait_for_function('mine.count > 20 && theirs.count > 20')
    page.locator('#slider').fill('-2')
    expect(page.locator('#rate')).to_have_text('0.010')


def test_dashboard_stalls_a_second_client(dashboard: Demo, new_page: NewPage) -> None:
    """While the second client takes nothing, this page misses nothing; then the second catches up, or is told."""
    page, naps = new_page(dashboard.url), deque[Route]()
    page.route(
        '**/train/nap', lambda route: naps.append(route)
    )  # the stall does not end before what is looked at was seen
    page.wait_for_function('theirs.count > 5')
    page.get_by_role('button', name='Stall').click()
    mine, stalled = page.wait_for_function('theirs.stalled && [mine, theirs]').json_value()
    later, still = page.wait_for_function(
        f'theirs.stalled && mine.ver > {mine["ver"] + 30} && [mine, theirs]'
    ).json_value()
    assert later['count'] - mine['count'] == later['ver'] - mine['ver']
    assert still == stalled
    while not naps:
        page.wait_for_timeout(10)
    naps.popleft().continue_()
    page.wait_for_function(f'theirs.ver > {mine["ver"] + 30}')
    caught_up = page.evaluate('theirs')
    received, gone, passed = (caught_up[key] - stalled[key] for key in ('count', 'gone', 'ver'))
    assert received + gone == passed
