"""Entries, and where a request goes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
from propertybag import Bag

from webshoes.core.errors import Error
from webshoes.core.registry import Entry, Folder, Match, Registry, make_entry


def fn(ctx: Any, q: Any) -> Any:
    return q


def other(ctx: Any, q: Any) -> Any:
    return q


def entry(sub: str, *keys: str, cmd: str = 'cmd', evt: str = 'evt', fm: dict[str, Any] | None = None) -> Entry:
    """An entry whose keys all have a function."""
    return make_entry(sub, cmd, 'q', evt, 'r', dict.fromkeys(keys, fn) if fm is None else fm)


def registry(*entries: Entry) -> Registry:
    found = Registry()
    for each in entries:
        found.add(each)
    return found


def told(match: Match) -> str:
    """Where a match leads, with the parameters of its path: `cmd/thing/{id} id=7`."""
    return ' '.join([match.where, *(f'{name}={text[0]}' for name, text in match.params.items())])


# --- entries ---


def test_entry_is_read_both_ways() -> None:
    """Each of the six is readable as attribute and as item; `fm` is the very dict."""
    fm = {'add': fn}
    made = make_entry('s', 'c', 'q', 'e', 'r', fm)
    assert [made[name] for name in ('sub', 'cmd', 'q', 'evt', 'rep')] == ['s', 'c', 'q', 'e', 'r']
    assert [made.sub, made.cmd, made.q, made.evt, made.rep] == ['s', 'c', 'q', 'e', 'r']
    assert made.fm is made['fm'] is fm


@pytest.mark.parametrize('name', ['templates', '_checked', 'frog', ''])
def test_entry_has_six_items(name: str) -> None:
    """No other item is there."""
    with pytest.raises(KeyError, match=f"^'{name}'$"):
        _ = entry('cmd')[name]


@pytest.mark.parametrize('position', range(5))
def test_entry_of_wrong_kinds(position: int) -> None:
    """Each of the five names is a text, and the refusal says which is not."""
    names: list[Any] = ['s', 'c', 'q', 'e', 'r']
    names[position] = b'x'
    with pytest.raises(TypeError, match=f'register: {("sub", "cmd", "q", "evt", "rep")[position]} is a text'):
        make_entry(*names, {})  # type: ignore[call-arg]  # five of them


@pytest.mark.parametrize(
    ('args', 'kind', 'message'),
    [
        (('s', 'c', 'q', 'e', 'r', None), TypeError, 'fm is a dict'),
        (('s', 'c', 'q', 'e', 'r', [fn]), TypeError, 'fm is a dict'),
        (('a/b', 'c', 'q', 'e', 'r', {}), ValueError, 'sub is one segment'),
        (('s', 'c', 'q', 'tid', 'r', {}), ValueError, "evt cannot be 'tid'"),
        (('s', 'c', 'q', 'e', 'error', {}), ValueError, "rep cannot be 'error'"),
        (('s', 'c', 'q', 'e', 'coming', {}), ValueError, "rep cannot be 'coming'"),
        (('s', 'c', 'q', 'coming', 'r', {}), ValueError, "evt cannot be 'coming'"),
        (('s', 'c', 'q', 'off', 'r', {}), ValueError, "evt cannot be 'off'"),
        (('s', 'ping', 'q', 'e', 'r', {}), ValueError, "cmd cannot be 'ping'"),
        (('s', 'c', 'q', 'c', 'r', {}), ValueError, "cmd and evt cannot both be 'c'"),
        (('s', 'c', 'q', 'e', 'e', {}), ValueError, "evt and rep cannot both be 'e'"),
        (('s', 'c', 'q', 'r', '', {}), ValueError, "evt and rep cannot both be 'r'"),
        (('s', 'c', 'q', 'e', 'r', {3: fn}), TypeError, 'the keys of fm are texts, not 3'),
        (('s', 'c', 'q', 'e', 'r', {'f': 3}), TypeError, "'s/f' is 3"),
        (('s', 'c', 'q', 'e', 'r', {'f': lambda: 1}), TypeError, "'s/f' cannot be called"),
        (('s', 'c', 'q', 'e', 'r', {'f': {}}), ValueError, "folder 's/f': it needs 'root'"),
        (('s', 'c', 'q', 'e', 'r', {'f': {'root': '/', 'defpag': 1}}), ValueError, "unknown 'defpag'; there are"),
        (('s', 'c', 'q', 'e', 'r', {'f': {'root': 3}}), TypeError, "'root' is a path"),
        (('s', 'c', 'q', 'e', 'r', {'f': {'root': '/', 'defpage': 3}}), TypeError, "'defpage' the name of a file"),
    ],
)
def test_entry_that_cannot_be(args: Any, kind: type[Exception], message: str) -> None:
    """What cannot be served is refused at `register`, by a sentence that says what."""
    with pytest.raises(kind, match=message):
        make_entry(*args)


@pytest.mark.parametrize('key', ['{', '{}', '{1}', 'a{id}', '{id}b', '{a b}', '{id}/{id}', 'a/{id', '{a}{b}'])
def test_template_that_cannot_be(key: str) -> None:
    """A parameter is a whole segment with a name of its own, or the key is refused."""
    with pytest.raises(ValueError, match='each parameter is a whole segment'):
        entry('s', key)


@pytest.mark.parametrize(
    ('given', 'folder'),
    [
        ({'root': '/srv'}, Folder('/srv', '')),
        ({'root': '/srv', 'defpage': 'index.html'}, Folder('/srv', 'index.html')),
        ({'root': PurePosixPath('/srv'), 'defpage': None}, Folder('/srv', '')),
        (Bag(root='/srv', defpage='i'), Folder('/srv', 'i')),
    ],
)
def test_folder(given: Any, folder: Folder) -> None:
    """A dict as a key's value is a folder to serve."""
    match = registry(entry('*', fm={'*': given})).find_path('/a/b.css')
    assert match.target == folder
    assert match.where == '*/'


def test_the_table_of_entries() -> None:
    """Entries stand in order of registration; one of the same `sub` takes the place of the first."""
    found = registry(entry('a'), entry('b'), entry('a', 'new'))
    assert list(found.entries) == ['a', 'b']
    assert 'new' in found.entries['a'].fm


def test_remove() -> None:
    """A removed entry answers no more, and removing one that is not there is harmless."""
    found = registry(entry('a', 'x'), entry('b', 'x'))
    found.remove('a')
    found.remove('frog')
    assert list(found.entries) == ['b']
    assert told(found.find_command('cmd', 'x')) == 'b/x'
    with pytest.raises(Error, match='Not found'):
        found.find_path('/a/x')


def test_readers_keep_their_table() -> None:
    """Who reads the table while another thread registers reads on undisturbed."""
    found = registry(entry('a'))
    reading = iter(found.entries)
    found.add(entry('b'))
    assert list(reading) == ['a']


def test_fields_without_a_name() -> None:
    """An entry whose `cmd` or `evt` is '' owns no such field; the first owner of `evt` keeps it."""
    found = registry(entry('a', cmd='', evt='e'), entry('b', cmd='c', evt=''), entry('c', cmd='c', evt='e'))
    assert {field: owner.sub for field, owner in found.evt_entries.items()} == {'e': 'a'}
    assert {field: [owner.sub for owner in owners] for field, owners in found.cmd_entries.items()} == {'c': ['b', 'c']}


# --- within an entry: the table of the module's head ---

KEYS = ['add', 'a/b', 'a', '', 'thing/{id}', 'thing/new', '{kind}/{id}', 'files/*', 'files/deep/*', 'files/{name}', '*']


@pytest.mark.parametrize(
    ('rest', 'to'),
    [
        ('add', 'add'),
        ('a/b', 'a/b'),
        ('a/b/c', 'a'),
        ('a/c', '{kind}/{id} kind=a id=c'),
        ('add/more', '{kind}/{id} kind=add id=more'),
        ('add/more/still', 'add'),
        ('add//', 'add'),
        ('', ''),
        ('/x', ''),
        ('thing/new', 'thing/new'),
        ('thing/7', 'thing/{id} id=7'),
        ('thing/{id}', 'thing/{id} id={id}'),
        ('thing/', '*'),
        ('thing', '*'),
        ('thing/7/8', '*'),
        ('files/x', 'files/{name} name=x'),
        ('files/x/y', 'files/*'),
        ('files/', 'files/*'),
        ('files', '*'),
        ('files/deep/', 'files/deep/*'),
        ('files/deep/x/y', 'files/deep/*'),
        ('files/*', 'files/{name} name=*'),
        ('frog', '*'),
        ('ADD', '*'),
        ('*', '*'),
        ('{kind}', '*'),
    ],
)
def test_within_an_entry(rest: str, to: str) -> None:
    """The first rule that finds a key wins: exact, parameters, prefix, first segment, '*'."""
    assert told(registry(entry('cmd', *KEYS)).find_path(f'/cmd/{rest}')) == f'cmd/{to}'


@pytest.mark.parametrize('rest', ['frog', '*', 'thing', 'files', 'add2', 'thing/{id}/x', ''])
def test_nowhere_within_an_entry(rest: str) -> None:
    """What no rule finds is 404; there is no '*' to fall back on but the entry's own."""
    found = registry(entry('cmd', 'add', 'thing/{id}', 'files/*'), entry('*', '*'))
    with pytest.raises(Error, match='Not found') as caught:
        found.find_path(f'/cmd/{rest}')
    assert caught.value.code == 404


@pytest.mark.parametrize('keys', [('{x}/b', 'aaa/{y}', '{x}/{y}'), ('{x}/{y}', 'aaa/{y}', '{x}/b')])
def test_the_most_literal_first(keys: tuple[str, ...]) -> None:
    """Of keys with parameters the most literal wins, in whatever order they were given."""
    found = registry(entry('cmd', *keys))
    assert told(found.find_path('/cmd/aaa/b')) == 'cmd/aaa/{y} y=b'
    assert told(found.find_path('/cmd/z/b')) == 'cmd/{x}/b x=z'
    assert told(found.find_path('/cmd/z/z')) == 'cmd/{x}/{y} x=z y=z'


# --- live ---


def test_a_function_that_is_added_later() -> None:
    """A function put into the dict after `register` is served, one taken out no more."""
    fm: dict[str, Any] = {}
    found = registry(entry('cmd', fm=fm))
    fm['late'] = fn
    assert told(found.find_path('/cmd/late')) == 'cmd/late'
    assert told(found.find_command('cmd', 'late')) == 'cmd/late'
    del fm['late']
    with pytest.raises(Error, match='Not found'):
        found.find_path('/cmd/late')


def test_a_function_that_is_replaced() -> None:
    """The function that stands in the dict is the one that is served; it is checked once."""
    fm = {'f': fn}
    found = registry(entry('cmd', fm=fm))
    first = found.find_path('/cmd/f').target
    assert found.find_path('/cmd/f').target is first
    fm['f'] = other
    assert getattr(found.find_path('/cmd/f').target, 'fn', None) is other


def test_a_bad_function_that_is_added_later() -> None:
    """A function put in later is checked at its first use."""
    fm: dict[str, Any] = {}
    found = registry(entry('cmd', fm=fm))
    fm['late'] = 3
    with pytest.raises(TypeError, match="'cmd/late' is 3"):
        found.find_path('/cmd/late')


@pytest.mark.parametrize('key', ['thing/{id}', 'files/*'])
def test_patterns_are_read_at_register(key: str) -> None:
    """A key with parameters or '/*' that is added later is not served, one that is deleted no more."""
    fm: dict[str, Any] = {}
    found = registry(entry('cmd', fm=fm))
    fm[key] = fn
    with pytest.raises(Error, match='Not found'):
        found.find_path('/cmd/thing/7')
    found = registry(entry('cmd', fm=fm))
    path = f'/cmd/{key.replace("{id}", "7")}'
    assert found.find_path(path).where == f'cmd/{key}'
    del fm[key]
    with pytest.raises(Error, match='Not found'):
        found.find_path(path)


# --- HTTP ---


@pytest.mark.parametrize(
    ('path', 'to'),
    [
        ('/cmd/add', 'cmd/add'),
        ('/cmd/add/more', 'cmd/add'),
        ('/cmd', 'cmd/'),
        ('/cmd/', 'cmd/'),
        ('/other', '*/*'),
        ('/', '*/*'),
        ('/*/x', '*/*'),
        ('/wild', '*/wild'),
        ('/wild/more', '*/wild'),
        ('/quiet/say', 'quiet/say'),
    ],
)
def test_find_path(path: str, to: str) -> None:
    """The first segment names the entry, else entry '*'; what entry '*' looks up is the whole path."""
    found = registry(entry('cmd', 'add', ''), entry('quiet', 'say', cmd='', evt=''), entry('*', 'wild', '*'))
    assert told(found.find_path(path)) == to


@pytest.mark.parametrize('path', ['/', '/other', '/cmd/frog', '/cmd', '/CMD/add', '//cmd/add'])
def test_find_path_nowhere(path: str) -> None:
    """Without an entry '*' what no entry has is 404."""
    with pytest.raises(Error, match='Not found') as caught:
        registry(entry('cmd', 'add')).find_path(path)
    assert caught.value.code == 404


# Under entry '*' any first segment that is no entry's name is a prefix.
UNDER_ANY_PREFIX = [
    ('known', 'known'),
    ('any/known', 'known'),
    ('*/known', 'known'),
    ('any/known/more', 'known'),
    ('any/a/b', 'a/b'),
    ('any/thing/7', 'thing/{id} id=7'),
    ('any/thing', '*'),
    ('any/files/x/y', 'files/*'),
    ('a/b', 'a/b'),
    ('a/b/c', '*'),
    ('known/a/b', 'known'),
    ('known/known', 'known'),
    ('thing/known', 'thing/{id} id=known'),
    ('any/other/known', '*'),
    ('any', '*'),
    ('any/', '*'),
    ('any/*', '*'),
    ('any/{id}', '*'),
    ('any/files/*', 'files/*'),
    ('/known', '*'),
    ('any//known', '*'),
    ('any/KNOWN', '*'),
    ('any/site', '*'),
    ('any/site/x', '*'),
    ('any/deep/x', '*'),
    ('site/known', 'site'),
    ('deep/known', 'deep/*'),
]
ANY = [*['known', 'a/b', 'thing/{id}', 'files/*', '*'], *['site', 'deep/*']]  # the last two are folders


@pytest.mark.parametrize(('rest', 'to'), UNDER_ANY_PREFIX)
@pytest.mark.parametrize('has_rest', [True, False])
def test_under_any_prefix(rest: str, to: str, has_rest: bool) -> None:
    """The whole path first, then the path without its first segment, then '*'; under folders nothing is taken off."""
    keys = [key for key in ANY if has_rest or key != '*']
    fm = {key: {'root': '/srv'} if key in ('site', 'deep/*') else fn for key in keys}
    found = registry(entry('cmd', 'known'), entry('*', fm=fm))
    if to == '*' and not has_rest:
        with pytest.raises(Error, match='Not found'):
            found.find_path(f'/{rest}')
    elif to in ('site', 'deep/*'):
        assert isinstance(found.find_path(f'/{rest}').target, Folder)
    else:
        assert told(found.find_path(f'/{rest}')) == f'*/{to}'
        if '/' in rest:
            assert told(found.find_command('cmd', rest)) == f'*/{to}'


def test_a_prefix_before_nothing() -> None:
    """The key '' is for the path '/' alone, not for a prefix with nothing behind it."""
    found = registry(entry('*', '', '*'))
    assert [told(found.find_path(path)) for path in ('/', '/any', '/any/')] == ['*/', '*/*', '*/*']


@pytest.mark.parametrize('path', ['cmd/known', 'mute/known', 'two/known'])
def test_a_prefix_that_an_entry_has(path: str) -> None:
    """A name of an entry is no prefix for entry '*', whatever fields that entry has."""
    found = registry(entry('cmd'), entry('mute', cmd='', evt=''), entry('two', cmd='do'), entry('*', 'known', '*'))
    with pytest.raises(Error, match='Not found'):
        found.find_path(f'/{path}')
    with pytest.raises(Error, match='Unknown command'):
        found.find_command('cmd', path)


def test_no_function_under_a_prefix_but_in_entry_any() -> None:
    """Other entries take their own name off, and nothing else."""
    found = registry(entry('cmd', 'known', '*'))
    assert told(found.find_path('/cmd/any/known')) == 'cmd/*'


# --- WebSocket ---


def by_command() -> Registry:
    return registry(
        entry('one', 'f', 'x', 'both', 'thing/{id}'),
        entry('two', 'f', 'g', 'both', '*'),
        entry('far', 'h', cmd='do'),
        entry('mute', 'm', cmd=''),
        entry('three', '', 'two', 'f'),
        entry('four', '*'),
        entry('*', 'wild', 'deep/er', '{any}/thing'),
    )


@pytest.mark.parametrize(
    ('command', 'to'),
    [
        ('one/f', 'one/f'),
        ('one/f/more', 'one/f'),
        ('one/thing/7', 'one/thing/{id} id=7'),
        ('two/f', 'two/f'),
        ('two/frog', 'two/*'),
        ('three', 'three/'),
        ('three/', 'three/'),
        ('two', 'two/*'),
        ('f', 'one/f'),
        ('g', 'two/g'),
        ('both', 'one/both'),
        ('frog', 'two/*'),
        ('wild', '*/wild'),
        ('deep/er', '*/deep/er'),
        ('some/thing', '*/{any}/thing any=some'),
        ('*', 'two/*'),
        ('wild/x', '*/wild'),
    ],
)
def test_find_command(command: str, to: str) -> None:
    """First segment as entry; without a slash then exact names, then wildcards, in order of registration; then '*'."""
    assert told(by_command().find_command('cmd', command)) == to


@pytest.mark.parametrize(
    'command',
    ['one/frog', 'one/', 'h', 'm', 'mute/m', 'mute/thing', 'far/h', 'far/thing', 'a/b/c', '{any}/{any}', 'thing/7'],
)
def test_find_command_nowhere(command: str) -> None:
    """What no entry of the field has is 404, and no function of another field is reached."""
    found = by_command()
    found.remove('two')
    found.remove('four')
    with pytest.raises(Error, match='Unknown command') as caught:
        found.find_command('cmd', command)
    assert caught.value.code == 404


def test_find_command_by_its_field() -> None:
    """A command is looked for in the entries that own the message's field."""
    assert told(by_command().find_command('do', 'far/h')) == 'far/h'
    assert told(by_command().find_command('do', 'h')) == 'far/h'
    with pytest.raises(Error, match='Unknown command'):
        by_command().find_command('do', 'one/f')


@pytest.mark.parametrize('command', [None, '', 3, True, ['one/f'], {'a': 1}])
def test_find_command_that_is_none(command: Any) -> None:
    """A command that is no text, or empty, is 400."""
    with pytest.raises(Error, match='Invalid command') as caught:
        by_command().find_command('cmd', command)
    assert caught.value.code == 400


@pytest.mark.parametrize('command', ['site', 'site/a.css', 'a.css', '*'])
def test_folders_take_no_commands(command: str) -> None:
    """A folder is served over HTTP alone."""
    with pytest.raises(Error, match='Unknown command'):
        registry(entry('site', fm={'*': {'root': '/srv'}})).find_command('cmd', command)


def test_a_folder_does_not_hide_a_function() -> None:
    """A command that meets a folder first goes on to the next function."""
    found = registry(entry('site', fm={'*': {'root': '/srv'}, 'f': {'root': '/srv'}}), entry('cmd', 'f'))
    assert told(found.find_command('cmd', 'f')) == 'cmd/f'


def test_one_function_into_an_entry() -> None:
    """A function goes into the entry of its name, with that one's fields, or into one with the default fields."""
    found = Registry()
    found.add(make_entry('old', 'do', 'with', 'watch', '', {'f': fn}))
    found.add_function('old', 'thing/{id}', fn)
    found.add_function('new', 'g', fn)
    assert [(entry.sub, entry.cmd, list(entry.fm)) for entry in found.entries.values()] == [
        ('old', 'do', ['f', 'thing/{id}']),
        ('new', 'cmd', ['g']),
    ]
    assert told(found.find_command('do', 'old/thing/7')) == 'old/thing/{id} id=7'


def test_one_function_that_cannot_be() -> None:
    """A function that cannot be called is not put into the dict."""
    found = Registry()
    fm = {'f': fn}
    found.add(make_entry('old', 'cmd', 'q', 'evt', 'r', fm))
    with pytest.raises(TypeError, match="'old/g' is 3"):
        found.add_function('old', 'g', 3)
    assert list(fm) == ['f']
