"""Events in a real browser's `EventSource`, without any script of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

import webshoes as ws
from test.faces import until

from .pages import NewPage

HTML = """<!doctype html><link rel="icon" href="data:,"><script>
const seen = [];
const follow = query => {
  globalThis.source = new EventSource('/cmd?' + query);
  source.onmessage = ({ data, lastEventId }) => seen.push({ ...JSON.parse(data), id: lastEventId });
  return new Promise(resolve => { source.onopen = () => resolve(); });
};
</script>"""

Site = Callable[[], ws.WebShoesApp]


@pytest.fixture
def site(tmp_path: Path, free_port: int) -> Iterator[Site]:
    """Start an app with a page, each time on the same port; it is stopped after the test."""
    (tmp_path / 'index.html').write_text(HTML)
    with ExitStack() as stack:

        def start() -> ws.WebShoesApp:
            wsa = ws.WebShoesApp('127.0.0.1', free_port)
            wsa.register('cmd', 'cmd', 'q', 'evt', 'r', {})
            wsa.register('*', '', '', '', '', {'*': {'root': tmp_path, 'defpage': 'index.html'}})
            return stack.enter_context(wsa)

        yield start


def open_and_follow(new_page: NewPage, wsa: ws.WebShoesApp, query: str) -> Page:
    """A page whose stream is open; it may meet errors, which the browser logs of each connection that is lost."""
    page = new_page(wsa.url, may_fail=True)
    page.evaluate(f"follow('{query}')")
    return page


def pushes(page: Page, count: int) -> list[dict[str, Any]]:
    """What the page has seen, when it is so many pushes."""
    page.wait_for_function(f'seen.length >= {count}')
    seen: list[dict[str, Any]] = page.evaluate('seen')
    assert len(seen) == count
    return seen


def test_versions(site: Site, new_page: NewPage) -> None:
    """A page sees each version once and in order, as they were triggered, and each tells its place."""
    wsa = site()
    wsa.event('heat', history=300)
    wsa.triggerEvent('heat', 'ü\n\r\u2028')
    page = open_and_follow(new_page, wsa, 'evt=heat')
    for n in range(2, 301):
        wsa.triggerEvent('heat', n)
    seen = pushes(page, 300)
    assert [push['ver'] for push in seen] == list(range(1, 301))
    assert [push['r'] for push in seen] == ['ü\n\r\u2028', *range(2, 301)]
    assert [push['id'] for push in seen] == [f'{wsa.event("heat").epoch}:{ver}' for ver in range(1, 301)]
    page.evaluate('source.close()')
    until(lambda: not wsa.subscribers('heat'))


@pytest.mark.parametrize(('way', 'before'), [('closed', 0), ('closed', 3), ('cut', 3), ('restarted', 3)])
def test_lost_and_resumed(site: Site, new_page: NewPage, way: str, before: int) -> None:
    """A browser comes back by itself, and sees what was triggered meanwhile, nothing twice."""
    wsa, requests = site(), list[Any]()
    wsa.on('connect')(lambda ctx: requests.append(ctx.req))
    page = open_and_follow(new_page, wsa, 'evt=heat')
    for n in range(before):
        wsa.triggerEvent('heat', n)
    pushes(page, before)
    if way == 'closed':
        wsa.connections[0].close()
    elif way == 'cut':
        transport = requests[0].transport
        requests[0].task.get_loop().call_soon_threadsafe(transport.abort)
    else:
        wsa.stop()
    until(lambda: not wsa.connections)
    for n in range(before, before + 3):
        wsa.triggerEvent('heat', n)
    if way == 'restarted':
        wsa.start()
    pushes(page, before + 3)
    wsa.triggerEvent('heat', before + 3)
    seen = pushes(page, before + 4)
    assert [(push['ver'], push['r']) for push in seen] == [(n + 1, n) for n in range(before + 4)]
    assert not any('from' in push or 'epoch' in push for push in seen)
    assert len(requests) == 2


def test_several_events(site: Site, new_page: NewPage) -> None:
    """Several events share one stream, which resumes each of them where it was."""
    wsa = site()
    for event, value in (('a', 1), ('a', 2), ('b', 'x')):
        wsa.triggerEvent(event, value)
    page = open_and_follow(new_page, wsa, 'evt=a&evt=b&evt=c&since=0,0,0')
    pushes(page, 3)
    wsa.connections[0].close()
    until(lambda: not wsa.connections)
    for event, value in (('c', 'first'), ('a', 3)):
        wsa.triggerEvent(event, value)
    seen = pushes(page, 5)
    assert sorted((push['evt'], push['ver'], push['r']) for push in seen) == [
        ('a', 1, 1),
        ('a', 2, 2),
        ('a', 3, 3),
        ('b', 1, 'x'),
        ('c', 1, 'first'),
    ]
    assert seen[-1]['id'] == f'{wsa.event("a").epoch}:3,1,1'


def test_new_app(site: Site, new_page: NewPage) -> None:
    """After a new program has come to the same port, each event's first push says that a new history began."""
    old = site()
    for event in ('a', 'b'):
        old.triggerEvent(event, 'old')
    page = open_and_follow(new_page, old, 'evt=a&evt=b')
    pushes(page, 2)
    old.stop()
    new = site()
    new.triggerEvent('a', 'new')
    pushes(page, 3)
    new.triggerEvent('b', 'new')
    pushes(page, 4)
    new.triggerEvent('a', 'newer')
    seen = pushes(page, 5)[2:]
    epoch = new.event('a').epoch
    told = [(push['evt'], push['ver'], push['r'], push.get('epoch')) for push in seen]
    assert told == [('a', 1, 'new', epoch), ('b', 1, 'new', epoch), ('a', 2, 'newer', None)]
    assert seen[-1]['id'] == f'{epoch}:2,1'


def test_refused(site: Site, new_page: NewPage) -> None:
    """A stream that is refused fails in the page, which does not ask again and again."""
    wsa = site()
    page = new_page(wsa.url, may_fail=True)
    page.evaluate("void follow('evt=heat&since=garbage')")
    page.wait_for_function('source.readyState === EventSource.CLOSED')
    assert wsa.connections == []
