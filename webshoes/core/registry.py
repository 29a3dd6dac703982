"""Entries, and the routing of requests and commands to their functions.

The first segment of a path names the entry. Within the entry, the first rule that finds a key wins:

    1. the rest of the path, exactly as it stands       'add', 'a/b'
    2. keys with parameters, the most literal first     'thing/{id}'
    3. the longest key that ends in '/*'                'files/*'
    4. the first segment of the rest alone              'add' for 'add/more'
    5. the key '*'

Entry '*' serves all paths whose first segment is no entry's name. It applies rules 1 to 4 to the whole path, then to
the path without its first segment, where they find functions only and no folders, then rule 5.

Names are looked up live in the dict that was registered; keys with parameters or '/*' are read at `register`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from webshoes.core.binding import Bind
from webshoes.core.errors import Error
from webshoes.core.handler import Handler, compile_handler, unknown_key
from webshoes.core.params import Texts
from webshoes.core.text import check_text

# Fields of the wire itself (section 5): what a client may send, and what the server sends.
SENT_BY_CLIENTS = frozenset(('tid', 'uid', 'off', 'since', 'cancel', 'ping'))
SENT_BY_SERVER = frozenset(('tid', 't', 'seq', 'more', 'error', 'code', 'uid', 'ver', 'from', 'epoch', 'coming'))
FOLDER_KEYS = frozenset(('root', 'defpage', 'links'))


class Folder(Struct, frozen=True):
    """A folder to serve: `{'root': path, 'defpage': file, 'links': whether links may lead out of it}`."""

    root: str
    defpage: str
    links: bool = False


class Template(Struct, frozen=True):
    """A key with parameters, cut at its slashes; a parameter stands for one whole segment."""

    key: str
    segments: tuple[str, ...]

    @property
    def literal(self) -> int:
        """How many characters of the key are no parameter's."""
        return sum(len(segment) for segment in self.segments if segment[:1] != '{')

    def match(self, segments: list[str]) -> dict[str, list[str]] | None:
        """The parameters' values where the path fits, else `None`."""
        if len(segments) != len(self.segments):
            return None
        values = {}
        for mine, theirs in zip(self.segments, segments, strict=True):
            if mine[:1] == '{' and theirs:
                values[mine[1:-1]] = [theirs]
            elif mine != theirs:
                return None
        return values


class Match(Struct, frozen=True):
    """Where a request goes."""

    entry: Entry
    target: Handler | Folder
    params: Texts

    @property
    def where(self) -> str:
        """The target's name, for the log."""
        return self.target.name if isinstance(self.target, Handler) else f'{self.entry.sub}/'


class Entry(Struct, frozen=True):
    """What `register` was told; each of the six is readable as `entry.sub` and as `entry['sub']`."""

    sub: str
    cmd: str
    q: str
    evt: str
    rep: str
    fm: dict[str, Any]
    templates: tuple[Template, ...] = ()
    prefixes: tuple[str, ...] = ()
    _checked: dict[str, Handler] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if name not in ('sub', 'cmd', 'q', 'evt', 'rep', 'fm'):
            raise KeyError(name)
        return getattr(self, name)

    def find(self, rest: str) -> Match | None:
        """Return the target of the rest of a path or command, by the rules at the module's head."""
        for key, params in self._candidates(rest):
            if key in self.fm:
                return Match(self, self.target(key), params)
        if self.sub == '*' and (match := self._find_below_prefix(rest)) is not None:
            return match
        return Match(self, self.target('*'), {}) if '*' in self.fm else None

    def _find_below_prefix(self, path: str) -> Match | None:
        """Find a function by a path without its first segment."""
        prefix, _, rest = path.partition('/')
        if prefix and rest:
            for key, params in self._candidates(rest):
                if key in self.fm and isinstance(target := self.target(key), Handler):
                    return Match(self, target, params)
        return None

    def _candidates(self, rest: str) -> Iterator[tuple[str, dict[str, list[str]]]]:
        if not _is_pattern(rest):
            yield rest, {}
        if self.templates:
            segments = rest.split('/')
            for template in self.templates:
                params = template.match(segments)
                if params is not None:
                    yield template.key, params
        for prefix in self.prefixes:
            if rest.startswith(prefix[:-1]):
                yield prefix, {}
        first = rest.partition('/')[0]
        if not _is_pattern(first):
            yield first, {}

    def has(self, key: str, handler: Handler) -> bool:
        """Return whether a key stands for this handler, and for itself alone, in a dict that makes nothing up."""
        return type(self.fm) is dict and not _is_pattern(key) and self.fm.get(key) is handler.fn

    def target(self, key: str) -> Handler | Folder:
        """What stands under a key, checked once for each function.

        Raises:
            TypeError: it is neither a function fn(ctx, q) nor a folder.
            ValueError: it is a folder whose keys are wrong.
        """
        fn = self.fm[key]
        where = f'{self.sub}/{key}'
        if isinstance(fn, dict):
            return _folder(fn, where)
        checked = self._checked.get(key)
        if checked is None or checked.fn is not fn:
            checked = self._checked[key] = compile_handler(fn, where)
        return checked


def make_entry(sub: str, cmd: str, q: str, evt: str, rep: str, fm: dict[str, Any]) -> Entry:
    """An entry, everything in it checked.

    Raises:
        TypeError: an argument or something in `fm` is of the wrong kind, or a name has a lone surrogate.
        ValueError: a name or key cannot be used; the sentence says why.
    """
    _check_names(sub, cmd, q, evt, rep)
    if not isinstance(fm, dict):
        raise TypeError(f'register: fm is a dict of functions by name, not {fm!r}')
    keys = [key for key in fm if isinstance(key, str)]
    if len(keys) != len(fm):
        raise TypeError(f'register: the keys of fm are texts, not {next(key for key in fm if key not in keys)!r}')
    templates = sorted((_template(key) for key in keys if '{' in key), key=lambda found: -found.literal)
    prefixes = sorted((key for key in keys if key.endswith('/*')), key=len, reverse=True)
    entry = Entry(sub, cmd, q, evt, rep, fm, tuple(templates), tuple(prefixes))
    for key in keys:
        entry.target(key)
    return entry


def _check_names(sub: str, cmd: str, q: str, evt: str, rep: str) -> None:
    for name, value in (('sub', sub), ('cmd', cmd), ('q', q), ('evt', evt), ('rep', rep)):
        if not isinstance(value, str):
            raise TypeError(f'register: {name} is a text, not {value!r}')
        check_text(value, f'register: {name}')
    if '/' in sub:
        raise ValueError(f'register: sub is one segment of a path, without a slash, not {sub!r}')
    for name, value, reserved in (
        ('cmd', cmd, SENT_BY_CLIENTS),
        ('evt', evt, SENT_BY_CLIENTS | SENT_BY_SERVER),
        ('rep', rep, SENT_BY_SERVER),
    ):
        if value in reserved:
            raise ValueError(f'register: {name} cannot be {value!r}, a field of the wire itself')
    if evt and evt == cmd:
        raise ValueError(f'register: cmd and evt cannot both be {evt!r}, a message is one or the other')
    if evt and evt == (rep or 'r'):
        raise ValueError(f'register: evt and rep cannot both be {evt!r}, a push carries the two')


def _is_pattern(key: str) -> bool:
    return key == '*' or '{' in key or key.endswith('/*')


def _template(key: str) -> Template:
    segments = tuple(key.split('/'))
    names = [segment[1:-1] for segment in segments if '{' in segment or '}' in segment]
    whole = all(segment.startswith('{') and segment.endswith('}') for segment in segments if '{' in segment)
    if not whole or not all(name.isidentifier() for name in names) or len(set(names)) < len(names):
        raise ValueError(
            f"register: in {key!r} each parameter is a whole segment with a name of its own: 'thing/{{id}}'"
        )
    return Template(key, segments)


def _folder(given: dict[str, Any], where: str) -> Folder:
    unknown = given.keys() - FOLDER_KEYS
    if unknown or 'root' not in given:
        problem = unknown_key(unknown, FOLDER_KEYS) if unknown else "it needs 'root', the folder's path"
        raise ValueError(f"folder '{where}': {problem}")
    root, defpage, links = given['root'], given.get('defpage') or '', given.get('links', False)
    if not isinstance(root, (str, os.PathLike)) or not isinstance(defpage, str):
        raise TypeError(f"folder '{where}': 'root' is a path and 'defpage' the name of a file in it, not {given!r}")
    if not isinstance(links, bool):
        raise TypeError(f"folder '{where}': 'links' is True or False, not {links!r}")
    return Folder(os.fspath(root), defpage, links)


class Known(Struct, frozen=True):
    """Where a command goes, or a path with one of these methods, as long as `fm[key]` is the function of `handler`."""

    fm: dict[str, Any]
    key: str
    fn: Callable[..., Any]
    bind: Bind
    q: str
    rep: str
    handler: Handler
    match: Match
    methods: frozenset[str]

    @property
    def is_so(self) -> bool:
        """Return whether it still is."""
        return self.fm.get(self.key) is self.fn


def _known(key: str, handler: Handler, match: Match, methods: frozenset[str]) -> Known:
    entry = match.entry
    return Known(entry.fm, key, handler.fn, handler.bind, entry.q, entry.rep, handler, match, methods)


class Registry:
    """The entries. Reading needs no lock: each change makes new tables.

    Attributes:
        entries: all of them by `sub`, in order of registration.
        evt_entries, cmd_entries: by the field of a message that subscribes, or calls.
        fields: these fields, in the order in which a message is tested for them. Calls come first (entry `None`), so
            that an argument may have the name of a field that subscribes.
        commands: the same fields, with the commands that were found before; never empty.
        paths: those of requests that were found before.
    """

    def __init__(self) -> None:
        self.entries: Mapping[str, Entry] = {}
        self.evt_entries: Mapping[str, Entry] = {}
        self.cmd_entries: Mapping[str, tuple[Entry, ...]] = {}
        self.fields: tuple[tuple[str, Entry | None], ...] = ()
        self.commands: tuple[tuple[str, dict[str, Known]], ...] = (('', {}),)
        self.paths: dict[str, Known] = {}

    def add(self, entry: Entry) -> None:
        """Add an entry; one of the same `sub` is replaced in its place."""
        self._set({**self.entries, entry.sub: entry})

    def add_function(self, sub: str, key: str, fn: Any) -> None:
        """Add one function to an entry, which is made with the field names `cmd q evt r` if need be."""
        entry = self.entries.get(sub) or make_entry(sub, 'cmd', 'q', 'evt', 'r', {})
        names = entry.cmd, entry.q, entry.evt, entry.rep
        make_entry(sub, *names, {key: fn})  # to check it before it is there
        entry.fm[key] = fn
        self.add(make_entry(sub, *names, entry.fm))

    def remove(self, sub: str) -> None:
        """Remove an entry, if it is there."""
        self._set({name: entry for name, entry in self.entries.items() if name != sub})

    def _set(self, entries: dict[str, Entry]) -> None:
        evt: dict[str, Entry] = {}
        cmd: dict[str, tuple[Entry, ...]] = {}
        for entry in entries.values():
            if entry.evt:
                evt.setdefault(entry.evt, entry)
            if entry.cmd:
                cmd[entry.cmd] = (*cmd.get(entry.cmd, ()), entry)
        self.entries, self.evt_entries, self.cmd_entries = entries, evt, cmd
        self.paths = {}
        self.fields = (*((name, None) for name in cmd), *evt.items())
        self.commands = tuple((name, {}) for name, _ in self.fields) or (('', {}),)

    def find_path(self, path: str) -> Match:
        """Where an HTTP request goes.

        Args:
            path: the decoded path, without query: `/cmd/add`.

        Raises:
            Error: 404, nowhere.
        """
        match = self._find(path)
        if match is None:
            raise Error(404, 'Not found')
        return match

    def _find(self, path: str) -> Match | None:
        first, _, rest = path[1:].partition('/')
        entry = self.entries.get(first)
        if entry is None or first == '*':
            entry, rest = self.entries.get('*'), path[1:]
        return entry.find(rest) if entry is not None else None

    def remember_path(self, path: str) -> None:
        """Know a path from now on, if it is a key of an entry as it stands; there are at most two for each key."""
        paths = self.paths  # before it is looked for: these are left behind where another thread changes the entries
        match = self._find(path)
        if match is None or not isinstance(match.target, Handler):
            return  # pragma: no cover  # another thread has taken it away this very moment
        entry, handler = match.entry, match.target
        key = path[1:] if entry.sub == '*' else path[1:].partition('/')[2]
        if handler.is_plain and entry.has(key, handler):
            methods = frozenset(method for method in ('GET', 'POST') if handler.takes(method))
            paths[path] = _known(key, handler, match, methods)

    def find_events(self, path: str) -> Entry | None:
        """The entry whose events an HTTP request may ask for: at `/<sub>`, `/<sub>/`, and `/` where that is `'*'`."""
        sub = path[1:].removesuffix('/')
        entry = self.entries.get(sub) or (self.entries.get('*') if path == '/' else None)
        return entry if entry is not None and entry.evt and sub != '*' else None

    def find_command(self, field: str, command: object) -> Match:
        """Where a WebSocket command goes.

        Args:
            field: the message's field that holds the command, one of `cmd_entries`.
            command: `cmd/add` or `add`.

        Raises:
            Error: 400, the command is no text or empty; 404, nowhere.
        """
        if not isinstance(command, str) or not command:
            raise Error(400, 'Invalid command')
        known = self.commands  # before it is looked for: they are left behind where another thread changes the entries
        for match in self._command_matches(field, command):
            if match is not None and isinstance(match.target, Handler):
                key, handler = self._key(field, command, match.entry), match.target
                if key is not None and not handler.threaded and match.entry.has(key, handler):
                    dict(known).get(field, {})[command] = _known(key, handler, match, frozenset())
                return match
        raise Error(404, 'Unknown command')

    def _key(self, field: str, command: str, entry: Entry) -> str | None:
        """The key of an entry that a command is, as it stands, after the entry's own name or not.

        There are at most two such commands for each key, and nothing comes before it as long as it holds what it does.
        """
        first, slash, rest = command.partition('/')
        if slash and first == entry.sub != '*':
            return rest
        if not slash and first not in self.entries and entry is next(iter(self.cmd_entries.get(field, ())), None):
            return command
        return None

    def _command_matches(self, field: str, command: str) -> Iterator[Match | None]:
        owners = self.cmd_entries.get(field, ())
        named = {entry.sub: entry for entry in owners}
        first, slash, rest = command.partition('/')
        catch_all = named.get('*')
        if first in self.entries and first != '*':
            if first in named:
                yield named[first].find(rest)
            if slash:
                return
        if not slash:
            for entry in owners:
                if command in entry.fm and not _is_pattern(command):
                    yield Match(entry, entry.target(command), {})
            for entry in owners:
                if '*' in entry.fm:
                    yield Match(entry, entry.target('*'), {})
        if catch_all is not None:
            yield catch_all.find(command)
