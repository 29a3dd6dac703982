"""One registered function, checked once: how it is called and what it takes."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from propertybag import Bag

from webshoes.core.binding import Bind, binder
from webshoes.core.errors import Error

F = TypeVar('F', bound=Callable[..., Any])

USUAL = ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE')
NOT_CALLS = frozenset(('OPTIONS', 'TRACE', 'CONNECT'))  # of HTTP itself: they call nothing unless a handler asks
_THREADED = '__webshoes_threaded__'
_METHODS = '__webshoes_methods__'
_PAGE = '__webshoes_page__'
_SHIELDED = '__webshoes_shielded__'
_MARKS = (_THREADED, _METHODS, _PAGE, _SHIELDED)


class Function(msgspec.Struct, frozen=True):
    """A function of the program, its name for the log, and whether it runs in the thread pool."""

    fn: Callable[..., Any]
    name: str
    threaded: bool


class Handler(Function, frozen=True):
    """A function that was found fit to be called as `fn(ctx, q)`."""

    bind: Bind
    methods: frozenset[str] | None
    is_page: bool
    is_shielded: bool  # goes on when its client has gone
    is_plain: bool  # runs at once and to its end: neither in a thread, nor as a coroutine

    def takes(self, method: str) -> bool:
        """Return whether the handler takes this HTTP method."""
        return method not in NOT_CALLS if self.methods is None else method in self.methods

    @property
    def allow(self) -> str:
        """The methods it takes, as in the `Allow` header (RFC 9110 section 10.2.1)."""
        return ', '.join(sorted(self.methods or USUAL))

    def check_method(self, method: str) -> None:
        """Raise error 405 where the handler does not take this HTTP method (RFC 9110 section 15.5.6)."""
        if not self.takes(method):
            raise Error(405, f'Method {method} is not taken here, only {self.allow}')


def threaded(fn: F) -> F:
    """Have a handler run in a thread pool, so that work that blocks holds up nobody: `@ws.threaded`.

    Raises:
        TypeError: the handler is no plain `def`.
    """
    if inspect.iscoroutinefunction(fn) or _is_generator(fn):
        raise TypeError(f"@threaded is for a plain def; '{_name(fn)}' is none and would never run in the thread")
    return _marked(fn, _THREADED, True)


def methods(*names: str) -> Callable[[F], F]:
    """Have a handler take these HTTP methods alone; others are answered with 405: `@ws.methods('POST')`.

    `GET` brings `HEAD` along. Calls over WebSocket are taken whatever is listed: no page of another origin can send
    one, which is what a method guards against.

    Raises:
        TypeError: no method is named, or one is no text.
    """
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError("@methods takes the names of HTTP methods: @methods('POST')")
    taken = frozenset(name.upper() for name in names)

    def mark(fn: F) -> F:
        return _marked(fn, _METHODS, taken | {'HEAD'} if 'GET' in taken else taken)

    return mark


def page(fn: F) -> F:
    """Have a handler be opened by a link from another site, as a page is: `@ws.page`.

    Without it, what a page of another origin asks for is refused, as far as the browser says that it is one; a link
    that a person follows is among that. Only going there is let in, by GET; reading the answer, or a form, is not.
    """
    return _marked(fn, _PAGE, True)


def shielded(fn: F) -> F:
    """Let a handler finish when its HTTP client has gone, instead of cancelling it: `@ws.shielded`.

    `cancel`, `Limits.handler_timeout` and the end of `stop`'s grace period cancel it as they do any other.

    Raises:
        TypeError: the handler is a generator.
    """
    if _is_generator(fn):
        raise TypeError(f"@shielded is for a function that returns its result; '{_name(fn)}' is a generator")
    return _marked(fn, _SHIELDED, True)


def _marked(fn: F, mark: str, value: Any) -> F:
    """Mark a handler; wrap one that takes no attributes, such as a bound method, and copy its marks."""
    try:
        setattr(fn, mark, value)
    except AttributeError:
        known = {name: getattr(fn, name) for name in _MARKS if hasattr(fn, name)}
        fn = typing.cast(F, functools.partial(fn))
        vars(fn).update(known)
        setattr(fn, mark, value)
    return fn


def compile_handler(fn: Any, where: str) -> Handler:
    """Check a function and learn how it is called.

    Args:
        fn: what was put into the dict.
        where: its place, for the error: `cmd/add`.

    Raises:
        TypeError: it cannot be called as `fn(ctx, q)`, is a generator, or asks for a type of `q` that is unknown.
    """
    if not callable(fn):
        raise TypeError(f"'{where}' is {fn!r}: a function fn(ctx, q) or a folder {{'root': path}} belongs there")
    if _is_generator(fn):
        raise TypeError(f"'{where}' is a generator: streaming is not there yet, return a list or trigger events")
    bind = binder(_annotation(fn, _parameters(fn, f"'{where}'", 'ctx, q'), where))
    methods, is_page, is_shielded = (
        getattr(fn, _METHODS, None),
        getattr(fn, _PAGE, False),
        getattr(fn, _SHIELDED, False),
    )
    is_plain = not is_threaded(fn) and not inspect.iscoroutinefunction(fn)
    return Handler(fn, where, is_threaded(fn), bind, methods, is_page, is_shielded, is_plain)


def compile_function(fn: Any, where: str, usage: str) -> Function:
    """Check a function that is no handler: a hook, say.

    Args:
        fn: what was given.
        where: its place, for the error: `on('connect')`.
        usage: its parameters, as in `'ctx, event'`.

    Raises:
        TypeError: it cannot be called with these.
    """
    if not callable(fn) or _is_generator(fn):
        raise TypeError(f'{where}: a function fn({usage}) is needed, not {fn!r}')
    _parameters(fn, where, usage)
    return Function(fn, f'{where} {_name(fn)}', is_threaded(fn))


def _parameters(fn: Callable[..., Any], where: str, usage: str) -> list[inspect.Parameter]:
    """The parameters of a function, which can be called with those of `usage`."""
    try:
        signature = inspect.signature(fn)
    except ValueError:  # a builtin that tells none
        return []
    try:
        signature.bind(*usage.split(', ') if usage else ())
    except TypeError:
        raise TypeError(f'{where} cannot be called as fn({usage}): it is {_name(fn)}{signature}') from None
    return list(signature.parameters.values())


def is_threaded(fn: Any) -> bool:
    """Return whether a function is marked to run in the thread pool."""
    return getattr(fn, _THREADED, False) is True


def _annotation(fn: Callable[..., Any], parameters: list[inspect.Parameter], where: str) -> Any:
    """Return the annotation of a handler's second parameter, or `None`."""
    if len(parameters) < 2 or parameters[1].annotation is inspect.Parameter.empty:
        return None
    annotation = parameters[1].annotation
    if isinstance(annotation, str):  # from __future__ import annotations
        code = inspect.unwrap(getattr(fn, 'func', fn))
        code = code if hasattr(code, '__globals__') else type(code).__call__  # an object that can be called
        try:
            scope = getattr(code, '__globals__', {})
            annotation = eval(annotation, scope)  # noqa: S307  # nosec B307  # as typing.get_type_hints does
        except Exception as exc:
            raise TypeError(
                f"'{where}' annotates q with {annotation!r}, which is not to be had where it stands: {exc}"
            ) from None
    if annotation in (Any, dict) or (isinstance(annotation, type) and issubclass(annotation, Bag)):
        return annotation
    try:
        msgspec.convert({}, annotation)
    except msgspec.ValidationError as exc:
        if ' - at `' in str(exc) or not str(exc).startswith('Expected '):
            return annotation  # it takes an object, if not an empty one
        reason = 'q is an object: a Struct, a dataclass, a TypedDict or a dict can be made of it'
    except Exception as exc:
        reason = str(exc)
    else:
        return annotation
    raise TypeError(f"'{where}' annotates q with {annotation!r}, which cannot be validated: {reason}")


def _is_generator(fn: Callable[..., Any]) -> bool:
    return inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, '__qualname__', type(fn).__qualname__)


def unknown_key(keys: Iterable[str], known: Iterable[str]) -> str:
    """The sentence that names keys nobody knows, and those there are."""
    return f'unknown {", ".join(map(repr, sorted(keys)))}; there are {", ".join(map(repr, sorted(known)))}'
