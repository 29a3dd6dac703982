"""Who may ask, decided from headers alone: hosts and origins (section 7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webshoes.core.access import Access, Asking, Host, check_public, is_loopback, parse_host, parse_origin

HOME, WIDE = True, False  # bound to loopback, and to all addresses


def access(origins: Any = (), hosts: Any = None, home: bool = WIDE) -> Access:
    return Access(origins, hosts, home)


# --- origin against host ---


@pytest.mark.parametrize(
    ('origin', 'host'),
    [
        ('http://rig:15801', 'rig:15801'),
        ('http://rig.example.com', 'rig.example.com'),
        ('http://rig', 'rig:80'),
        ('http://rig:80', 'rig'),
        ('https://rig', 'rig:443'),
        ('https://rig:443', 'rig'),
        ('https://rig', 'rig'),  # TLS ends at a proxy
        ('https://rig:8443', 'rig:8443'),
        ('ws://rig', 'rig:80'),
        ('wss://rig', 'rig:443'),
        ('HTTP://RIG.Example.COM:15801', 'rig.example.com:15801'),
        ('http://rig.example.com', 'RIG.EXAMPLE.COM.'),
        ('http://rig.example.com.', 'rig.example.com'),
        ('http://192.168.1.5:8000', '192.168.1.5:8000'),
        ('http://[2001:db8::1]:8000', '[2001:db8::1]:8000'),
        ('http://[2001:DB8:0:0:0:0:0:1]:8000', '[2001:db8::1]:8000'),
        ('http://[2001:0db8:0000::0001]', '[2001:db8::1]'),
        ('http://[2001:db8::1]', '[2001:db8::1]:80'),
        ('http://[::ffff:10.0.0.7]', '10.0.0.7'),
        ('http://[::ffff:a00:7]', '10.0.0.7'),
        ('http://localhost:15801', '127.0.0.1:15801'),
        ('http://127.0.0.1:15801', 'localhost:15801'),
        ('http://[::1]:15801', '127.0.0.1:15801'),
        ('http://[0:0:0:0:0:0:0:1]:15801', 'localhost:15801'),
        ('http://[::ffff:127.0.0.1]:15801', 'localhost:15801'),
        ('http://127.8.9.10:15801', 'localhost:15801'),
        ('http://app.localhost:15801', 'LOCALHOST.:15801'),
    ],
)
def test_own_origin(origin: str, host: str) -> None:
    """The server's own pages may ask, however their origin and the host are spelt."""
    for home in HOME, WIDE:
        assert access(home=home).is_own(Asking(host, origin))
        assert access(home=home).takes_origin(Asking(host, origin, 'cross-site'))


@pytest.mark.parametrize(
    ('origin', 'host'),
    [
        ('http://evil.example', 'rig'),
        ('http://rig:15802', 'rig:15801'),
        ('http://rig:15801', 'rig'),
        ('http://rig', 'rig:15801'),
        ('https://rig', 'rig:80'),
        ('http://rig', 'rig:443'),
        ('http://www.rig.example.com', 'rig.example.com'),
        ('http://example.com', 'rig.example.com'),
        ('http://rig.example.com.evil.example', 'rig.example.com'),
        ('http://evilrig.example.com', 'rig.example.com'),
        ('http://localhost.evil.example', 'localhost'),
        ('http://127.0.0.1.evil.example', '127.0.0.1'),
        ('http://notlocalhost', 'localhost'),
        ('http://0.0.0.0:15801', '127.0.0.1:15801'),
        ('http://localhost:15802', 'localhost:15801'),
        ('http://10.0.0.8', '10.0.0.7'),
        ('http://[2001:db8::2]', '[2001:db8::1]'),
        ('http://[::2]', '[::1]'),
        ('null', 'rig'),
        ('null', 'null'),
        ('*', 'rig'),
        ('', 'rig'),
        ('', ''),
        ('rig', 'rig'),
        ('://rig', 'rig'),
        ('http:rig', 'rig'),
        ('http://', 'rig'),
        ('http:///', ''),
        ('http://rig/', 'rig'),
        ('http://rig/path', 'rig'),
        ('http://rig?', 'rig'),
        ('http://rig#', 'rig'),
        ('http://me@rig', 'rig'),
        ('1http://rig', 'rig'),
        ('h\u212a://rig:80', 'rig:80'),
        ('a' * 10_000 + '://rig:80', 'rig:80'),
        ('http://me:secret@rig', 'rig'),
        ('http://rig@evil.example', 'rig'),
        ('http://rig http://evil.example', 'rig'),
        ('http://rig,http://rig', 'rig'),
        ('http://rig\t', 'rig'),
        ('http://rig\0', 'rig'),
        ('http://rig\x7f', 'rig'),
        ('http://r\u0131g', 'rig'),
        ('http://rig:port', 'rig'),
        ('http://rig:-1', 'rig'),
        ('http://rig:\u0661', 'rig:1'),
        ('http://rig:123456', 'rig:123456'),
        ('http://[::1', '[::1'),
        ('http://[::1]x', '[::1]x'),
        ('http://' + 'a' * 100_000, 'a' * 100_000),
        ('http://rig', ''),
        ('http://rig', 'rig rig'),
    ],
)
def test_foreign_origin(origin: str, host: str) -> None:
    """A page of another origin, and one whose origin cannot be read, may not ask."""
    for home in HOME, WIDE:
        for site in None, 'same-origin', 'none':
            assert not access(home=home).takes_origin(Asking(host, origin, site))


def test_an_origin_without_a_host() -> None:
    """Where no host is named, no origin is its own."""
    assert not access().takes_origin(Asking(None, 'http://rig'))


# --- without an origin ---


@pytest.mark.parametrize('mode', [None, 'navigate', 'cors', 'no-cors', 'same-origin', 'websocket', ''])
@pytest.mark.parametrize('is_page', [False, True])
@pytest.mark.parametrize('site', [None, 'none', 'same-origin', 'same-site', 'cross-site', '', 'garbage', 'Same-Origin'])
def test_sec_fetch_site(site: str | None, mode: str | None, is_page: bool) -> None:
    """Without `Origin`, what the browser calls foreign is refused, but for a page that is gone to."""
    is_taken = site in (None, 'none', 'same-origin') or (is_page and mode == 'navigate')
    assert access().takes_origin(Asking('rig', None, site, mode), is_page) == is_taken
    assert access('*').takes_origin(Asking('rig', None, site, mode), is_page)


def test_a_page_with_an_origin() -> None:
    """A form that is sent from elsewhere names its origin, and opens no page."""
    assert not access().takes_origin(Asking('rig', 'http://evil.example', 'cross-site', 'navigate'), True)


# --- origins that are listed ---


@pytest.mark.parametrize(
    ('origins', 'taken', 'refused'),
    [
        (['https://a.example'], ['https://a.example', 'https://A.example:443'], ['http://a.example', 'null']),
        ('https://a.example', ['https://a.example'], ['https://b.a.example', 'https://a.example:8443']),
        (['http://a.example:8000', 'null'], ['http://a.example:8000', 'null'], ['http://a.example', 'Null']),
        (['http://localhost:3000'], ['http://127.0.0.1:3000', 'http://[::1]:3000'], ['http://localhost:3001']),
        (('http://[2001:db8::1]',), ['http://[2001:db8:0::1]:80'], ['http://[2001:db8::2]']),
        (['chrome-extension://abcdef'], ['chrome-extension://abcdef'], ['chrome-extension://abcdeg']),
        ('null', ['null'], ['http://a.example']),
        ('*', ['null', 'http://a.example', 'garbage', '*'], []),
        (iter(['*', 'null']), ['null', 'http://a.example'], []),
        ((), [], ['null', 'http://a.example', '*', 'garbage', '']),
    ],
)
def test_origins(origins: Any, taken: list[str], refused: list[str]) -> None:
    """`origins` lets in what it lists, in any spelling, and nothing else."""
    rules = access(origins)
    assert [it for it in taken + refused if rules.takes_origin(Asking('rig', it, 'cross-site'))] == taken
    assert (rules.has_origins, rules.takes_all) == (bool(taken), rules.is_listed('anything'))


@pytest.mark.parametrize(
    ('kwargs', 'kind', 'message'),
    [
        ({'origins': ['https://a.example/']}, ValueError, "origins: .* not 'https://a.example/'"),
        ({'origins': ['https://a.example/path']}, ValueError, 'origins: .*path'),
        ({'origins': 'a.example'}, ValueError, "origins: .* not 'a.example'"),
        ({'origins': ['']}, ValueError, "origins: .* not ''"),
        ({'origins': ['https://*.example']}, ValueError, r"origins: .* not 'https://\*.example'"),
        ({'origins': [None]}, TypeError, 'origins is a list of texts, not of None'),
        ({'origins': [b'null']}, TypeError, "origins is a list of texts, not of b'null'"),
        ({'origins': None}, TypeError, 'origins is a list of texts, not None'),
        ({'origins': 1}, TypeError, 'origins is a list of texts, not 1'),
        ({'hosts': ['rig:80']}, ValueError, "hosts: .* not 'rig:80'"),
        ({'hosts': ['http://rig']}, ValueError, "hosts: .* not 'http://rig'"),
        ({'hosts': ['']}, ValueError, "hosts: .* not ''"),
        ({'hosts': ['*.example.com']}, ValueError, r"hosts: .* not '\*.example.com'"),
        ({'hosts': ['rig example']}, ValueError, "hosts: .* not 'rig example'"),
        ({'hosts': [1]}, TypeError, 'hosts is a list of texts, not of 1'),
        ({'hosts': 1}, TypeError, 'hosts is a list of texts, not 1'),
    ],
)
def test_wrong_settings(kwargs: Any, kind: type[Exception], message: str) -> None:
    """A setting that could never let anybody in is refused, and named."""
    with pytest.raises(kind, match=message):
        access(**kwargs)


# --- hosts ---

LOOPBACK = [
    'localhost',
    'LOCALHOST',
    'localhost.',
    'localhost:15801',
    'app.localhost',
    'a.b.localhost:1',
    '127.0.0.1',
    '127.0.0.1:15801',
    '127.255.255.254',
    '[::1]',
    '[::1]:15801',
    '[0:0:0:0:0:0:0:1]',
    '[::ffff:127.0.0.1]',
    '[::ffff:7f00:1]:80',
]
NAMED = [
    'evil.example',
    'evil.example:15801',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    'notlocalhost',
    '0.0.0.0',
    '0.0.0.0:15801',
    '[::]',
    '192.168.1.5',
    '10.0.0.7:15801',
    '[2001:db8::1]:15801',
    '[::ffff:10.0.0.7]',
    '0177.0.0.1',
    '2130706433',
    '127.1',
]
GARBAGE = [
    '',
    ':80',
    '.',
    '.localhost',
    'a..localhost',
    'localhost..',
    'rig:port',
    'rig:80:80',
    'rig:123456',
    'rig/path',
    'me@rig',
    'me@localhost',
    'localhost/',
    'localhost#',
    'local host',
    'localhost, evil.example',
    'localhost\\',
    'localhost\0',
    'localhost\x7f',
    'localhost\r\n',
    '\u212acalhost',
    'http://localhost',
    '[::1',
    '::1',
    '[]',
    '[::1]x',
    '[127.0.0.1]',
    '*',
    '*.localhost',
    'a' * 100_000,
]


@pytest.mark.parametrize('host', LOOPBACK)
def test_loopback_hosts(host: str) -> None:
    """Under the names of loopback the server may always be asked."""
    for rules in access(home=HOME), access(home=WIDE), access(hosts=[]), access(hosts=['rig'], home=HOME):
        assert rules.takes_host(Asking(host))
        assert not rules.is_unlisted(Asking(host))


@pytest.mark.parametrize('host', NAMED)
def test_rebound_hosts(host: str) -> None:
    """Bound to loopback, another name is refused: somebody had it point here. Bound wide, it may be the server's."""
    assert not access(home=HOME).takes_host(Asking(host))
    assert not access(hosts=['rig']).takes_host(Asking(host))
    assert access(home=WIDE).takes_host(Asking(host))
    assert access(hosts='*', home=HOME).takes_host(Asking(host))


@pytest.mark.parametrize('host', GARBAGE)
def test_hosts_that_are_none(host: str) -> None:
    """What is no host is not served, bound to whatever; unless all are."""
    assert parse_host(host) is None
    for home in HOME, WIDE:
        assert not access(home=home).takes_host(Asking(host))
        assert access(hosts='*', home=home).takes_host(Asking(host))


def test_no_host() -> None:
    """Who names no host is no browser."""
    assert access(hosts=[], home=HOME).takes_host(Asking(None))


@pytest.mark.parametrize(
    ('hosts', 'taken', 'refused'),
    [
        (['rig.example.com'], ['rig.example.com', 'RIG.example.com.:8443'], ['www.rig.example.com', 'example.com']),
        ('rig', ['rig', 'rig:1'], ['rig2', 'r']),
        (('10.0.0.7',), ['10.0.0.7:80', '[::ffff:10.0.0.7]'], ['10.0.0.8']),
        (['[2001:db8::1]'], ['[2001:DB8:0::1]:80'], ['[2001:db8::2]']),
        ([], [], ['rig']),
    ],
)
def test_hosts(hosts: Any, taken: list[str], refused: list[str]) -> None:
    """`hosts` lets in what it lists, in any spelling, on any port, and nothing else."""
    for home in HOME, WIDE:
        rules = access(hosts=hosts, home=home)
        assert [host for host in taken + refused if rules.takes_host(Asking(host))] == taken


@pytest.mark.parametrize(
    ('host', 'is_told'),
    [('rig', True), ('rig.example.com:80', True), ('10.0.0.7', False), ('[2001:db8::1]:80', False), ('rig rig', False)],
)
def test_unlisted_names(host: str, is_told: bool) -> None:
    """Bound wide, a domain name that nobody listed is told; an address cannot be rebound."""
    assert access().is_unlisted(Asking(host)) == is_told
    assert not access(hosts=['other']).is_unlisted(Asking(host))
    assert not access(hosts='*').is_unlisted(Asking(host))


@pytest.mark.parametrize(
    ('addr', 'is_home'),
    [
        ('127.0.0.1', True),
        ('127.1.2.3', True),
        ('::1', True),
        ('localhost', True),
        ('LocalHost', True),
        ('', False),
        ('0.0.0.0', False),
        ('::', False),
        ('192.168.1.5', False),
        ('rig', False),
    ],
)
def test_addresses_to_listen_on(addr: str, is_home: bool) -> None:
    """Loopback's addresses are known; all addresses are not loopback's."""
    assert is_loopback(addr) == is_home


# --- whatever comes ---

LETTERS = 'ab19.:/[]@-%*?# ,\\\0\x7f\xe4\u0131\ud800'
TEXT = st.one_of(st.text(LETTERS, max_size=20), st.text(max_size=20))
SCHEMES = st.sampled_from(['http://', 'https://', 'ws://', 'app://', '://', ''])
PORTS = st.sampled_from(['', ':', ':80', ':443', ':15801', ':99999', ':x'])


@settings(deadline=None)
@given(TEXT, st.tuples(SCHEMES, TEXT).map(''.join), TEXT, TEXT, st.booleans())
def test_nothing_raises(host: str, origin: str, site: str, mode: str, is_page: bool) -> None:
    """Whatever the headers are, the answer is yes or no."""
    for rules in access(home=HOME), access(['http://a'], ['b']), access('*', '*'):
        asking = Asking(host, origin, site, mode)
        assert {rules.takes_host(asking), rules.is_unlisted(asking), rules.is_own(asking)} <= {True, False}
        assert {rules.takes_origin(asking, is_page), rules.is_listed(origin)} <= {True, False}
        assert rules.takes_origin(Asking(host, None, site, mode), is_page) in (True, False)


LABEL = st.text('abcdefghijklmnopqrstuvwxyz0123456789', min_size=1, max_size=8)
BELOW = st.lists(LABEL, max_size=3).map(lambda labels: ''.join(f'{label}.' for label in labels))


@settings(deadline=None)
@given(SCHEMES, BELOW, PORTS, BELOW, PORTS)
def test_a_foreign_domain_is_never_own(scheme: str, below: str, port: str, own: str, own_port: str) -> None:
    """Nothing below a domain that is not the server's is the server's own, whatever is put in front of it."""
    for mine in (f'{own}rig.example', 'localhost', '127.0.0.1', '[::1]', f'{own}localhost'):
        for theirs in (f'{below}evil.example', f'{below}localhost.evil.example', f'{mine}.evil.example'):
            asking = Asking(mine + own_port, scheme + theirs + port)
            assert not access().takes_origin(asking)
            assert not access().takes_origin(asking, True)


@given(TEXT)
def test_what_is_parsed_is_in_one_form(text: str) -> None:
    """A host that was parsed is parsed again to the same."""
    found = parse_host(text)
    if found is not None:
        name = f'[{found.name}]' if ':' in found.name else found.name
        port = '' if found.port is None else f':{found.port}'
        assert parse_host(name + port) == found
        assert parse_origin(f'app://{name}{port}') == ('app', Host(found.name, found.port))


def test_public_paths() -> None:
    """Paths are listed as they read; a single text is one of them."""
    assert check_public(['/', '/login.html', '/\xfc b', '/100%']) == {'/', '/login.html', '/\xfc b', '/100%'}
    assert check_public('/login.html') == {'/login.html'}


@pytest.mark.parametrize(
    ('paths', 'kind', 'message'),
    [
        (7, TypeError, 'public is a list of texts, not 7'),
        ([b'/login'], TypeError, "public is a list of texts, not of b'/login'"),
        (['login.html'], ValueError, "public: a path begins with '/', as in '/login.html', not 'login.html'"),
        ([''], ValueError, "public: a path begins with '/', as in '/login.html', not ''"),
        (
            ['http://rig/login'],
            ValueError,
            "public: a path begins with '/', as in '/login.html', not 'http://rig/login'",
        ),
        (['/a%20b'], ValueError, "public: write '/a%20b' without percent-encoding: '/a b', not '/a%20b'"),
        (['/site/*'], ValueError, "public lists exact paths, without patterns and without a query, not '/site/*'"),
        (
            ['/thing/{id}'],
            ValueError,
            "public lists exact paths, without patterns and without a query, not '/thing/{id}'",
        ),
        (['/a?b=1'], ValueError, "public lists exact paths, without patterns and without a query, not '/a?b=1'"),
        (['/a#b'], ValueError, "public lists exact paths, without patterns and without a query, not '/a#b'"),
        (['/a/../b'], ValueError, "public: no browser asks for a path with '.' or '..' in it: '/a/../b'"),
    ],
)
def test_what_is_no_public_path(paths: Any, kind: type[Exception], message: str) -> None:
    """A path that is not exact is refused with a sentence that says what to write."""
    with pytest.raises(kind) as caught:
        check_public(paths)
    assert str(caught.value) == message
