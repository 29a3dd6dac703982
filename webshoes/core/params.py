"""`q` as handlers get it without a type: a Bag whose missing keys are the client's fault."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from propertybag import Bag

from webshoes.core.errors import Error

Texts = Mapping[str, list[Any]]
"""The parameters that came as text (query, form, path), each with all its values."""
NOTHING: Any = msgspec.UNSET  # in place of a default that is not given


class Missing:
    """Placeholder for a parameter that the client did not send.

    It is falsy, equals `None` and nothing else, may be walked deeper (`q.a.b.c`) and assigned to. Code that needs its
    value, for a comparison of order too, gets error 400, which names it. (propertybag's own placeholder may be iterated
    for ever.)
    """

    __slots__ = ('__bag', '__path')
    __bag: Params
    __path: tuple[Any, ...]

    def __init__(self, bag: Params, path: tuple[Any, ...]) -> None:
        object.__setattr__(self, '_Missing__bag', bag)
        object.__setattr__(self, '_Missing__path', path)

    def __getattr__(self, key: str) -> Missing:
        if key.startswith('__') and key.endswith('__'):  # a protocol that Python asks for, no parameter
            raise AttributeError(key)
        return Missing(self.__bag, (*self.__path, key))

    def __getitem__(self, key: Any) -> Missing:
        return Missing(self.__bag, (*self.__path, key))

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        inner: Any = self.__bag
        for step in self.__path:
            if not isinstance(inner[step], dict):
                inner[step] = {}
            inner = inner[step]
        inner[key] = value

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None

    def get(
        self, ks: Any, defval: Any = NOTHING, sep: str | None = None, cast: Callable[[Any], Any] | None = None
    ) -> Any:
        """Return what `Params.get` would return for an empty bag here."""
        return _default(Missing(self.__bag, (*self.__path, *_steps(ks, sep))), defval, cast)

    def __repr__(self) -> str:
        return f'<missing parameter {missing_name(self)}>'

    def __needed(self, *args: Any, **kwargs: Any) -> typing.NoReturn:
        raise missing_error(self)

    def __called(self, *args: Any, **kwargs: Any) -> typing.NoReturn:
        raise missing_error(Missing(self.__bag, self.__path[:-1] or self.__path))  # `q.a.strip()` needs `a`

    __call__ = __called

    __lt__ = __le__ = __gt__ = __ge__ = __needed
    __int__ = __float__ = __complex__ = __index__ = __str__ = __format__ = __bytes__ = __needed
    __iter__ = __next__ = __reversed__ = __contains__ = __len__ = __delattr__ = __delitem__ = __needed
    __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __divmod__ = __pow__ = __matmul__ = __needed
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rdivmod__ = __rpow__ = __needed
    __lshift__ = __rshift__ = __and__ = __xor__ = __or__ = __rlshift__ = __rrshift__ = __rand__ = __rxor__ = __needed
    __ror__ = __rmatmul__ = __neg__ = __pos__ = __abs__ = __invert__ = __round__ = __trunc__ = __needed
    __floor__ = __ceil__ = __enter__ = __exit__ = __fspath__ = __await__ = __aiter__ = __anext__ = __needed
    __hash__ = __reduce_ex__ = __needed


def missing_name(missing: Missing) -> str:
    """Return the dotted name of a missing parameter, as the client would have to send it."""
    bag, path = missing._Missing__bag, missing._Missing__path
    return dotted(*bag.__dict__['prefix'], *path)


def missing_error(missing: Missing) -> Error:
    """Return error 400, which names a missing parameter."""
    return Error(400, f"Missing parameter '{missing_name(missing)}'")


def dotted(*steps: Any) -> str:
    """Return the keys that lead to a parameter as one name: `a.b`."""
    return '.'.join(map(str, steps))


def _steps(ks: Any, sep: str | None) -> Sequence[Any]:
    """Return the keys of a path."""
    return ks.split(sep or '.') if isinstance(ks, str) else (ks,)


def _default(missing: Missing, defval: Any, cast: Callable[[Any], Any] | None) -> Any:
    """Return what `get` gives for a parameter that was not sent.

    Raises:
        Error: 400, it was asked for as what `cast` makes of it, and there is no default.
    """
    if defval is not NOTHING:
        return defval
    if cast is None:
        return None
    raise missing_error(missing)


# What Bag's methods read of a bag beside its values, put there when one is called; `prefix` is ours.
_DEFAULTS = {'sep': '.', 'frozen': False, 'defstr': ValueError, 'defval': None, 'prefix': ()}
_attributes = Bag.__dict__['__dict__'].__get__
_inherited = object.__getattribute__
_new, _put, _look = dict.__new__, dict.__setitem__, dict.__getitem__


class Params(Bag):  # type: ignore[misc]  # propertybag carries no types
    """The Bag that handlers get as `q`: see `Missing` for the keys that are not there.

    A Bag has its values among its attributes, and in the dict that it is nothing but `{'_': '_'}`. Here they stand in
    the place of that text, until a method of Bag's is asked for: most bags are never given attributes.
    """

    @staticmethod
    def of(values: dict[str, Any], texts: Texts | None = None, prefix: tuple[Any, ...] = ()) -> Params:
        """Return a bag over this dict, without a copy and without Bag's constructor, which takes five times as long.

        Which of the values came as text does not matter to it.
        """
        params = _new(Params)
        _put(params, '_', values)
        if prefix:
            _attributes(params)['prefix'] = prefix
        return params

    def __getitem__(self, key: Any) -> Any:
        values: Any = _look(self, '_')
        if type(values) is not dict:
            values = _attributes(self)['pb']
        try:
            value = values[key]
        except KeyError:
            return Missing(self, (key,))
        return value if type(value) is not dict else Params.of(value, None, (*_prefix(self), key))

    def __getattribute__(self, key: str) -> Any:
        """A parameter, whatever a Bag keeps under its name; `__getattr__`, asked last, takes twice as long."""
        values: Any = _look(self, '_')
        if key in _METHODS:
            if type(values) is dict:
                attributes = _attributes(self)
                attributes.update({**_DEFAULTS, **attributes, 'pb': values})
                _put(self, '_', '_')
            return _inherited(self, key)
        if key[:2] == '__' and key[-2:] == '__':  # a protocol that Python asks for, no parameter
            raise AttributeError(key)
        if type(values) is dict and key in values and type(values[key]) is not dict:
            return values[key]
        return self[key]

    def __getattr__(self, key: str) -> Any:
        """Nothing: all that there is was found before this is asked."""
        raise AttributeError(key)

    def get(
        self, ks: Any, defval: Any = NOTHING, sep: str | None = None, cast: Callable[[Any], Any] | None = None
    ) -> Any:
        """Return the value at a key or dotted path.

        Args:
            ks: the key, or the path.
            defval: returned as it is where nothing was sent, or an empty text that `cast` does not take. Without it
                that is `None`, or with `cast` an error.
            sep: what stands between the keys of a path; `None` is a dot.
            cast: called with the value: `int`, say.

        Raises:
            Error: 400, `cast` does not take the value, or nothing was sent that it could take.
        """
        value = super().get(ks, NOTHING, sep)
        if value is NOTHING:
            return _default(Missing(self, tuple(_steps(ks, sep))), defval, cast)
        if cast is None:
            return value
        try:
            return cast(value)
        except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, msgspec.ValidationError):
            if value == '' and defval is not NOTHING:  # an input of a form that was left empty
                return defval
            kind = cast.__name__ if isinstance(cast, type) else 'value'
            name = dotted(*self.__dict__['prefix'], *_steps(ks, sep))
            raise Error(400, f"Parameter '{name}' is not a valid {kind}") from None

    def bag(self, ks: Any, defval: Any = NOTHING, sep: str | None = None) -> Any:
        """Return what `get` returns, a dict as a bag that shares its content."""
        value = self.get(ks, defval, sep)
        return Params.of(value, None, (*self.__dict__['prefix'], ks)) if type(value) is dict else value

    def copy(self, deep: bool = False) -> Params:
        """Return a copy; nested values are shared unless `deep`."""
        return Params.of(super().copy(deep).as_dict(), None, self.__dict__['prefix'])

    def __copy__(self) -> Params:
        return self.copy()

    def __reduce__(self) -> Any:
        return Params.of, (self.as_dict(), None, self.__dict__['prefix'])

    def __ror__(self, other: Any) -> Any:
        if not isinstance(other, dict):
            return NotImplemented
        return Params.of({**(other.as_dict() if isinstance(other, Bag) else other), **self.as_dict()})


def contents(params: Params) -> dict[str, Any]:
    """Return the dict that holds the values of a bag, not a copy."""
    values: Any = _look(params, '_')
    found: dict[str, Any] = values if type(values) is dict else _attributes(params)['pb']
    return found


def _prefix(params: Params) -> tuple[Any, ...]:
    prefix: tuple[Any, ...] = _attributes(params).get('prefix', ())
    return prefix


_METHODS = frozenset(dir(Params))
