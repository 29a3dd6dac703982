"""Forms as browsers send them: files and inputs that are left empty, parts of every type."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest
import requests
from propertybag import Bag

import webshoes as ws

from .conftest import TIMEOUT, Serve

FILE = 'application/octet-stream'


def describe(value: Any) -> Any:
    """A field as the handler sees it."""
    return value if isinstance(value, str) else [value.filename, value.content_type, value.file.read().decode()]


def show(ctx: ws.Context, q: Bag) -> Any:
    """All fields."""
    return {name: describe(value) for name, value in q.as_dict().items()}


def upload(ctx: ws.Context, q: Bag) -> Any:
    """The handler of the README."""
    return {'name': q.picture.filename, 'size': len(q.picture.file.read())}


def post(wsa: ws.WebShoesApp, name: str, *parts: tuple[str, str]) -> requests.Response:
    """Post a form of these parts, each its head after `form-data; name=` and its content."""
    body = ''.join(f'--x\r\nContent-Disposition: form-data; name={head}\r\n\r\n{text}\r\n' for head, text in parts)
    headers = {'Content-Type': 'multipart/form-data; boundary=x'}
    return requests.post(f'{wsa.url}/cmd/{name}', f'{body}--x--\r\n'.encode(), headers=headers, timeout=TIMEOUT)


@pytest.mark.parametrize(
    ('head', 'text', 'field'),
    [
        ('"a"', 'text', 'text'),
        ('"a"', '', ''),
        ('"a"\r\nContent-Type: text/plain', 'ü', 'ü'),
        ('"a"\r\nContent-Type: Text/Plain; charset=utf-8', 'ü', 'ü'),
        ('"a"\r\nContent-Type: application/json', '{"ü": 1}', '{"ü": 1}'),
        ('"a"\r\nContent-Type: application/ld+json; charset=utf-8', '[1]', '[1]'),
        ('"a"\r\nContent-Type: image/png', 'pixels', ['', 'image/png', 'pixels']),
        ('"a"\r\nContent-Type: application/octet-stream', '', ['', FILE, '']),
        ('"a"; filename="b.png"\r\nContent-Type: image/png', 'pixels', ['b.png', 'image/png', 'pixels']),
        ('"a"; filename="b.txt"\r\nContent-Type: text/plain', 'lines', ['b.txt', 'text/plain', 'lines']),
        ('"a"; filename="b.txt"', '', ['b.txt', FILE, '']),
        ('"a"; filename=""\r\nContent-Type: image/png', 'pixels', ['', 'image/png', 'pixels']),
        ('"a"; filename=""\r\nContent-Type: text/plain', 'lines', 'lines'),
    ],
)
def test_a_part(serve: Serve, head: str, text: str, field: Any) -> None:
    """A part without a filename is text if its type is text or JSON, or if it has none; all others are files."""
    wsa = serve({'show': show})
    assert post(wsa, 'show', ('"before"', '1'), (head, text), ('"after"', '2')).json() == {
        'before': '1',
        'a': field,
        'after': '2',
    }


@pytest.mark.parametrize('more', ['', '\r\nContent-Type: application/octet-stream', '\r\nContent-Type: text/plain'])
def test_a_file_input_without_a_file(serve: Serve, more: str) -> None:
    """A file input in which no file was chosen is a missing parameter."""
    wsa = serve({'show': show, 'upload': upload})
    empty = (f'"picture"; filename=""{more}', '')
    assert post(wsa, 'show', empty, ('"name"', 'Ann')).json() == {'name': 'Ann'}
    assert post(wsa, 'upload', empty).json() == {'error': "Missing parameter 'picture.file'", 'code': 400}
    chosen = ('"picture"; filename="a.png"', '1234')
    assert post(wsa, 'upload', empty, chosen, empty).json() == {'name': 'a.png', 'size': 4}


def test_a_part_that_is_no_utf8(serve: Serve) -> None:
    """A part of JSON that is no text in its charset is 400."""
    head = '"a"\r\nContent-Type: application/json; charset=us-ascii'
    assert post(serve({'show': show}), 'show', (head, 'ü')).status_code == 400


@pytest.mark.parametrize(
    'head', [b'"\xff"', b'"a"; filename="\xff.png"', b'"a"; filename="b"\r\nContent-Type: image/\xff']
)
def test_a_head_that_is_no_utf8(serve: Serve, head: bytes) -> None:
    """A part whose name, filename or type is not UTF-8 is 400."""
    body = b'--x\r\nContent-Disposition: form-data; name=%b\r\n\r\n1\r\n--x--\r\n' % head
    headers = {'Content-Type': 'multipart/form-data; boundary=x'}
    response = requests.post(f'{serve({"show": show}).url}/cmd/show', body, headers=headers, timeout=TIMEOUT)
    assert response.json() == {'error': 'The body cannot be read: the head of a part is not UTF-8', 'code': 400}


def test_the_form_of_the_request(serve: Serve) -> None:
    """`ctx.req.post()` gives the same fields, however often it is called."""

    async def read(ctx: ws.Context, q: Bag) -> Any:
        forms = [await ctx.req.post() for _ in range(2)]
        return [[name, describe(value)] for name, value in forms[0].items()] + [forms[0] is forms[1]]

    parts = [('"b"', '1'), ('"a"; filename=""', ''), ('"b"\r\nContent-Type: application/json', '2')]
    assert post(serve({'read': read}), 'read', *parts).json() == [['b', '1'], ['b', '2'], True]


def test_a_form_of_a_get(serve: Serve) -> None:
    """A form beside a GET is none."""
    headers = {'Content-Type': 'multipart/form-data; boundary=x'}
    wsa = serve({'show': show})
    body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
    assert requests.get(f'{wsa.url}/cmd/show?b=2', data=body, headers=headers, timeout=TIMEOUT).json() == {'b': '2'}


@pytest.mark.parametrize('way', ['form', 'multipart'])
def test_a_field_of_the_name_charset(serve: Serve, way: str) -> None:
    """A field `_charset_`, which browsers fill in (RFC 7578 section 4.6), is a parameter like others."""
    wsa = serve({'show': show})
    for names in (['_charset_'], ['_charset_', 'a'], ['a', '_charset_', 'b']):
        fields = dict.fromkeys(names, 'utf-8' * 20)
        arguments: Any = {'data': fields} if way == 'form' else {'files': {n: (None, t) for n, t in fields.items()}}
        assert requests.post(f'{wsa.url}/cmd/show', **arguments, timeout=TIMEOUT).json() == fields


# --- typed ---


class Person(msgspec.Struct):
    name: str
    age: int | None = None
    height: float = 1.7
    agree: bool = False
    ids: list[int] = []
    marks: list[int | None] = []
    wakes: datetime.time | None = None
    since: datetime.datetime | None = None
    naps: list[datetime.time] = []


def person(ctx: ws.Context, q: Person) -> Person:
    return q


SENT = {
    'empty': ({'name': '', 'age': '', 'height': '', 'ids': ''}, Person('')),
    'checked': ({'name': 'Ann', 'age': '7', 'agree': 'on', 'ids': ['1', '2']}, Person('Ann', 7, 1.7, True, [1, 2])),
    'gaps': ({'name': 'Ann', 'marks': ['', '3', '']}, Person('Ann', marks=[None, 3, None])),
    'times': (
        {'name': '07:30', 'wakes': '07:30', 'since': '2024-01-31T05:00', 'naps': ['12:00', '13:00:01']},
        Person(
            '07:30',
            wakes=datetime.time(7, 30),
            since=datetime.datetime(2024, 1, 31, 5),
            naps=[datetime.time(12), datetime.time(13, 0, 1)],
        ),
    ),
}


@pytest.mark.parametrize(('sent', 'expected'), SENT.values(), ids=SENT)
@pytest.mark.parametrize('way', ['query', 'form', 'multipart'])
def test_a_typed_form(serve: Serve, way: str, sent: dict[str, Any], expected: Person) -> None:
    """Inputs that were left empty have their defaults, a checked checkbox is true, and times need no seconds."""
    wsa = serve({'person': person})
    fields = [(name, text) for name, texts in sent.items() for text in (texts if isinstance(texts, list) else [texts])]
    arguments: dict[str, Any] = {
        'query': {'params': fields},
        'form': {'data': fields},
        'multipart': {'files': [(name, (None, text)) for name, text in fields]},
    }[way]
    response = requests.post(f'{wsa.url}/cmd/person', **arguments, timeout=TIMEOUT)
    assert response.json() == msgspec.to_builtins(expected)
