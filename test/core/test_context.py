"""What a handler is told of the call it serves."""

from __future__ import annotations

import pytest
from propertybag import Bag

from webshoes.core.connection import Connection
from webshoes.core.context import Context, Scope

from .link import Link

Closed = list[tuple[int, str]]


@pytest.fixture
def closed() -> Closed:
    return []


@pytest.fixture
def conn(closed: Closed) -> Connection:
    link = Link()
    link.closed = closed
    return Connection('c1', '10.0.0.1', 5.0, link)


@pytest.fixture
def scope(conn: Connection) -> Scope:
    return Scope(req='req', opts=Bag(color='red'), wsa='wsa', ws='ws', conn=conn)


@pytest.mark.parametrize('name', ['req', 'opts', 'wsa', 'ws', 'session', 'conn'])
def test_shared_fields(scope: Scope, name: str) -> None:
    """What the calls of a connection share is the scope's, the very object."""
    ctx = Context(scope, 'cmd/add', 'x', 'WS')
    assert getattr(ctx, name) is getattr(scope, name)


def test_own_fields(scope: Scope) -> None:
    """Path, tid and method are the call's own."""
    ctx = Context(scope, 'cmd/add', 7, 'WS')
    assert (ctx.p, ctx.tid, ctx.method, ctx.is_cancelled) == ('cmd/add', 7, 'WS', False)


@pytest.mark.parametrize('name', ['req', 'opts', 'wsa', 'ws', 'user', 'session', 'conn', 'color'])
def test_nothing_else_is_set(scope: Scope, name: str) -> None:
    """A context takes no value under a name that is not its own: a state of one's own goes into `session`."""
    with pytest.raises(AttributeError):
        setattr(Context(scope, 'p', None, 'GET'), name, 1)


def test_session_lasts(scope: Scope) -> None:
    """What one call puts into the session the next one reads."""
    Context(scope, 'a', None, 'WS').session.count = 3
    assert Context(scope, 'b', None, 'WS').session.count == 3


def test_user_that_comes_later(scope: Scope) -> None:
    """A context made before the user is known tells it once it is."""
    ctx = Context(scope, 'a', None, 'WS')
    assert ctx.user is None
    scope.conn.user = 'ann'
    assert ctx.user == 'ann'


def test_connection_tells(conn: Connection) -> None:
    """A connection tells its id, the peer's address, and since when it is there."""
    assert (conn.id, conn.remote, conn.opened) == ('c1', '10.0.0.1', 5.0)


@pytest.mark.parametrize('code', [1000, 1001, 1007, 1008, 1014, 3000, 4401, 4999])
def test_close(conn: Connection, closed: Closed, code: int) -> None:
    """A code that may be sent is handed on with its reason."""
    conn.close(code, 'bye')
    assert closed == [(code, 'bye')]


def test_close_plainly(conn: Connection, closed: Closed) -> None:
    """`close()` is 1000 without a reason."""
    conn.close()
    assert closed == [(1000, '')]


@pytest.mark.parametrize('code', [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 10**6])
def test_close_code_that_cannot_be_sent(conn: Connection, closed: Closed, code: int) -> None:
    """A code that no endpoint may send (RFC 6455 section 7.4) is refused, and nothing is closed."""
    with pytest.raises(ValueError, match='a close code is one that may be sent'):
        conn.close(code)
    assert not closed


@pytest.mark.parametrize(('reason', 'fits'), [('x' * 123, True), ('x' * 124, False), ('é' * 62, False)])
def test_close_reason(conn: Connection, closed: Closed, reason: str, fits: bool) -> None:
    """A reason has at most 123 bytes of UTF-8 (RFC 6455 section 5.5)."""
    if fits:
        conn.close(1000, reason)
    else:
        with pytest.raises(ValueError, match='at most 123 bytes'):
            conn.close(1000, reason)
    assert closed == ([(1000, reason)] if fits else [])
