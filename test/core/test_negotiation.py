"""Content negotiation by RFC 9110 section 12."""

from __future__ import annotations

import pytest

from webshoes.core.media_types import TYPES, content_type
from webshoes.core.negotiation import choose_coding, weigh_type

BOTH = ('br', 'gzip')


@pytest.mark.parametrize(
    ('accept', 'chosen'),
    [
        (None, ''),
        ('', ''),
        ('gzip', 'gzip'),
        ('GZip', 'gzip'),
        ('x-gzip', 'gzip'),
        ('gzip, deflate, br, zstd', 'br'),
        ('gzip,br', 'br'),
        (' gzip ; q=0.5 ,br;q=0.4', 'gzip'),
        ('br;q=0.3, gzip;Q=0.3', 'br'),
        ('xgzip', ''),
        ('gzipped, brotli', ''),
        ('gzip;q=0', ''),
        ('gzip;q=0.000, br;q=0', ''),
        ('gzip ;q = 0', ''),
        ('gzip;q =\t0.5, br;q= 0', 'gzip'),
        ('br;q=0, gzip;q=0.001', 'gzip'),
        ('*', 'br'),
        ('*;q=0.1', 'br'),
        ('*;q=0', None),
        ('*;q=0, identity', ''),
        ('*;q=0, gzip', 'gzip'),
        ('br;q=0, *', 'gzip'),
        ('identity', ''),
        ('identity;q=0', None),
        ('identity;q=0, gzip', 'gzip'),
        ('identity;q=0, gzip;q=0, br;q=0', None),
        ('identity;q=1, gzip;q=0.5', ''),
        ('identity;q=0.5, gzip;q=0.5', 'gzip'),
        ('identity;q=0.4, *;q=0.3', ''),
        ('deflate', ''),
        ('deflate, identity;q=0', None),
        ('gzip;q=2', ''),
        ('gzip;q=-1', ''),
        ('gzip;q=', ''),
        ('gzip;q=0.1234', ''),
        ('gzip;q=1.001', ''),
        ('gzip;q=nan', ''),
        (',, ;q=1, gzip', 'gzip'),
        ('"gzip"', ''),
        ('x="a,gzip"', ''),
    ],
)
def test_choose_coding(accept: str | None, chosen: str | None) -> None:
    """A coding that the client refuses, or does not name, is not chosen; of the others the one that it likes best."""
    assert choose_coding(accept, BOTH) == chosen


def test_choose_coding_of_what_there_is() -> None:
    """A client gets the second best where there is no best, and nothing where it refuses what there is."""
    assert choose_coding('br, gzip;q=0.1', ['gzip']) == 'gzip'
    assert choose_coding('br, gzip', []) == ''
    assert choose_coding('br, identity;q=0', ['gzip']) is None


@pytest.mark.parametrize(
    ('accept', 'weight'),
    [
        ('text/event-stream', (1.0, True)),
        ('TEXT/Event-Stream;Q=0.2', (0.2, True)),
        ('text/event-stream; charset=utf-8', (1.0, True)),
        ('text/event-stream;q=0', (0.0, True)),
        ('text/event-stream;x="a;q=0,b";q=0.5', (0.5, True)),
        ('text/*;q=0.3, */*;q=0.1', (0.3, False)),
        ('text/*, text/event-stream;q=0', (0.0, True)),
        ('*/*', (1.0, False)),
        ('application/json', None),
        ('text/event-streams, xtext/event-stream', None),
        ('text/event-stream;q=no', None),
        ('', None),
    ],
)
def test_weigh_type(accept: str, weight: tuple[float, bool] | None) -> None:
    """The most specific range tells how much a client likes a type."""
    assert weigh_type(accept, 'text/event-stream') == weight


@pytest.mark.parametrize(
    ('name', 'found'),
    {
        'a.html': 'text/html; charset=utf-8',
        'A.HTML': 'text/html; charset=utf-8',
        'a.b.js': 'text/javascript; charset=utf-8',
        'a.mjs': 'text/javascript; charset=utf-8',
        'a.cjs': 'text/javascript; charset=utf-8',
        'a.css': 'text/css; charset=utf-8',
        'a.csv': 'text/csv; charset=utf-8',
        'a.md': 'text/markdown; charset=utf-8',
        'a.log': 'text/plain; charset=utf-8',
        'a.json': 'application/json',
        'a.js.map': 'application/json',
        'a.ipynb': 'application/x-ipynb+json',
        'a.json.gz': 'application/gzip',
        'a.tar.gz': 'application/gzip',
        'a.tgz': 'application/gzip',
        'a.txt.br': 'application/x-brotli',
        'a.webp': 'image/webp',
        'a.woff2': 'font/woff2',
        'a.ogg': 'audio/ogg',
        'a.flac': 'audio/flac',
        'a.m4a': 'audio/mp4',
        'a.glb': 'model/gltf-binary',
        'a.gltf': 'model/gltf+json',
        'a.yaml': 'application/yaml',
        'a.yml': 'application/yaml',
        'a.toml': 'application/toml',
        'a.wasm': 'application/wasm',
        'a.xml': 'application/xml',
        'a.svg': 'image/svg+xml',
        'a': 'application/octet-stream',
        'html': 'application/octet-stream',
        '.html': 'application/octet-stream',
        '..html': 'application/octet-stream',
        'a.': 'application/octet-stream',
        'a.nothing': 'application/octet-stream',
        '': 'application/octet-stream',
    }.items(),
)
def test_content_type(name: str, found: str) -> None:
    """The last ending of a name tells the type; texts are UTF-8."""
    assert content_type(name) == found


def test_table_of_types() -> None:
    """Each ending stands once in the table, in lower case."""
    assert all(ending == ending.lower() and '.' not in ending for ending in TYPES)
    assert all(media_type.count('/') == 1 for media_type in TYPES.values())
