"""RFC 6455 frame by frame, on raw sockets: the cases of groups 1 to 10 of the Autobahn TestSuite, against an echo."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest

from .echo import SIZE, EchoApp
from .faces import dial, read_frame, read_head, upgrade

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b'\x37\xfa\x21\x3d'

Frame = tuple[int, bytes]  # the first byte, and what it holds


def masked(data: bytes) -> bytes:
    """These bytes under `MASK`."""
    if not data:
        return b''
    key = (MASK * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, 'big') ^ int.from_bytes(key, 'big')).to_bytes(len(data), 'big')


def frame(opcode: int, data: bytes = b'', fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    """A frame of a client."""
    first, bit = 0x80 * fin | rsv << 4 | opcode, 0x80 * mask
    if len(data) < 126:
        head = struct.pack('>BB', first, bit | len(data))
    elif len(data) < 65536:
        head = struct.pack('>BBH', first, bit | 126, len(data))
    else:
        head = struct.pack('>BBQ', first, bit | 127, len(data))
    return head + (MASK + masked(data) if mask else data)


def parts(opcode: int, *pieces: bytes) -> list[bytes]:
    """The frames of a message in fragments."""
    last = len(pieces) - 1
    return [frame(0 if n else opcode, piece, n == last) for n, piece in enumerate(pieces)]


class Client:
    """A client of an echo that speaks in frames, and reads those of the server, which are whole and not masked."""

    def __init__(self, port: int) -> None:
        self.socket = dial(port)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(upgrade())
        assert read_head(self.socket).startswith('HTTP/1.1 101 ')
        self.stream = self.socket.makefile('rb')

    def send(self, *frames: bytes, chop: int = 0) -> None:
        """Send frames, in pieces of so many bytes; a server that has closed is sent nothing."""
        data = b''.join(frames)
        with suppress(ConnectionError):
            for at in range(0, len(data), chop or len(data)):
                self.socket.sendall(data[at : at + (chop or len(data))])

    def receive(self) -> Frame | None:
        """The next frame, `None` at the end."""
        with suppress(ConnectionError):
            return read_frame(self.stream)
        return None

    def rest(self) -> list[Frame]:
        """All frames until the server closes, whose close is answered."""
        found: list[Frame] = []
        while (received := self.receive()) is not None:
            found.append(received)
            if received[0] == 0x80 | CLOSE:
                self.send(frame(CLOSE, received[1]))
        return found

    def close(self) -> None:
        """End it, without a word."""
        self.stream.close()
        self.socket.close()


@pytest.fixture(scope='module', params=['asyncio', 'uvloop'])
def echo(request: pytest.FixtureRequest) -> Iterator[EchoApp]:
    """One echo for all."""
    with EchoApp(0, loop=request.param) as app:
        yield app


@pytest.fixture
def client(echo: EchoApp) -> Iterator[Client]:
    """A client of its own."""
    found = Client(echo.port)
    yield found
    found.close()


def closed(code: int, *before: Frame) -> tuple[list[Frame], int]:
    """What `outcome` gives where these frames come, and then a close with this code."""
    return [*before], code


def outcome(client: Client) -> tuple[list[Frame], int | None]:
    """All frames until the server closes, and the code of its close, which is the last of them."""
    *before, (opcode, data) = client.rest()
    assert opcode == 0x80 | CLOSE
    assert len(data) != 1
    data[2:].decode()
    return before, int.from_bytes(data[:2], 'big') if data else None


def refused(client: Client, *frames: bytes) -> tuple[list[Frame], int | None]:
    """The outcome of frames that break the rules, behind which a close comes that breaks none."""
    client.send(*frames, frame(CLOSE, b'\x03\xe8'))
    return outcome(client)


def goodbye(client: Client, *before: Frame) -> None:
    """Close as one should; these frames come before the answer, and nothing after it."""
    client.send(frame(CLOSE, b'\x03\xe8'))
    assert outcome(client) == closed(1000, *before)


def whole(opcode: int, data: bytes) -> Frame:
    """A frame of the server."""
    return 0x80 | opcode, data


# --- 1: sizes ---

SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('opcode', [TEXT, BINARY], ids=['text', 'binary'])
def test_size(client: Client, opcode: int, size: int) -> None:
    """A message of each size comes back, whole and in chops."""
    data = b'*' * size if opcode == TEXT else b'\xfe' * size
    for chop in (0, 997, *([1] if size < 1000 else [])):
        client.send(frame(opcode, data), chop=chop)
        assert client.receive() == whole(opcode, data)
    goodbye(client)


def test_size_that_is_not_written_the_short_way(client: Client) -> None:
    """A size in more bytes than it needs is read too."""
    client.send(struct.pack('>BBH', 0x81, 0xFE, 3) + MASK + masked(b'abc'))
    client.send(struct.pack('>BBQ', 0x81, 0xFF, 3) + MASK + masked(b'abc'))
    goodbye(client, whole(TEXT, b'abc'), whole(TEXT, b'abc'))


@pytest.mark.parametrize('size', [2**63 - 1, 2**63, 2**64 - 1, SIZE + 1])
def test_size_that_cannot_be(client: Client, size: int) -> None:
    """A size over the limit is 1009 before any of it was sent."""
    assert refused(client, struct.pack('>BBQ', 0x82, 0xFF, size) + MASK) == closed(1009)


# --- 2: pings ---


@pytest.mark.parametrize('data', [b'', b'Hello, world!', b'\x00\xff\xfe\xfd', b'\xfe' * 125])
@pytest.mark.parametrize('chop', [0, 1])
def test_ping(client: Client, data: bytes, chop: int) -> None:
    """A ping is answered with what it holds."""
    client.send(frame(PING, data), chop=chop)
    assert client.receive() == whole(PONG, data)
    goodbye(client)


def test_ping_that_is_too_large(client: Client) -> None:
    """A ping of 126 bytes is 1002."""
    assert refused(client, frame(PING, b'\xfe' * 126)) == closed(1002)


@pytest.mark.parametrize('data', [b'', b'unsolicited'])
def test_pong_that_nobody_asked_for(client: Client, data: bytes) -> None:
    """A pong is taken without an answer."""
    client.send(frame(PONG, data), frame(PING, b'after'))
    goodbye(client, whole(PONG, b'after'))


@pytest.mark.parametrize('chop', [0, 1])
def test_ten_pings(client: Client, chop: int) -> None:
    """Ten pings are answered in their order."""
    pings = [b'%d' % n for n in range(10)]
    client.send(*(frame(PING, data) for data in pings), chop=chop)
    goodbye(client, *(whole(PONG, data) for data in pings))


# --- 3 and 4: bits and opcodes that mean nothing ---


@pytest.mark.parametrize('opcode', [TEXT, BINARY, PING, CLOSE])
@pytest.mark.parametrize('rsv', range(1, 8))
def test_rsv(client: Client, rsv: int, opcode: int) -> None:
    """A reserved bit that was not agreed to is 1002; what came before is answered."""
    client.send(frame(TEXT, b'first'))
    assert client.receive() == whole(TEXT, b'first')
    assert refused(client, frame(opcode, b'', rsv=rsv)) == closed(1002)


@pytest.mark.parametrize('opcode', [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize('data', [b'', b'reserved'])
def test_reserved_opcode(client: Client, opcode: int, data: bytes) -> None:
    """An opcode that is not defined is 1002."""
    client.send(frame(TEXT, b'first'))
    assert client.receive() == whole(TEXT, b'first')
    assert refused(client, frame(opcode, data)) == closed(1002)


# --- 5: fragments ---


@pytest.mark.parametrize('opcode', [PING, PONG, CLOSE])
def test_control_frame_in_fragments(client: Client, opcode: int) -> None:
    """A control frame in fragments is 1002."""
    assert refused(client, frame(opcode, b'\x03', fin=False), frame(0, b'\xe8')) == closed(1002)


@pytest.mark.parametrize('chop', [0, 1])
@pytest.mark.parametrize('opcode', [TEXT, BINARY])
@pytest.mark.parametrize('pieces', [(b'a', b'b'), (b'', b'b'), (b'a', b''), (b'', b'', b''), (b'a', b'b', b'c', b'd')])
def test_fragments(client: Client, opcode: int, pieces: tuple[bytes, ...], chop: int) -> None:
    """Fragments, empty ones too, are one message."""
    client.send(*parts(opcode, *pieces), chop=chop)
    goodbye(client, whole(opcode, b''.join(pieces)))


@pytest.mark.parametrize('chop', [0, 1])
def test_ping_between_fragments(client: Client, chop: int) -> None:
    """Control frames between fragments are answered at once, and the message is whole."""
    first, second, third = parts(TEXT, b'one ', b'two ', b'three')
    client.send(first, frame(PING, b'1'), second, frame(PONG, b'x'), frame(PING, b'2'), third, chop=chop)
    goodbye(client, whole(PONG, b'1'), whole(PONG, b'2'), whole(TEXT, b'one two three'))


@pytest.mark.parametrize('fin', [True, False])
@pytest.mark.parametrize('data', [b'', b'x'])
def test_continuation_of_nothing(client: Client, fin: bool, data: bytes) -> None:
    """A continuation where nothing has begun is 1002, also behind a message that was whole."""
    client.send(frame(TEXT, b'first'))
    assert client.receive() == whole(TEXT, b'first')
    assert refused(client, frame(0, data, fin)) == closed(1002)


@pytest.mark.parametrize('fin', [True, False])
@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_message_within_a_message(client: Client, opcode: int, fin: bool) -> None:
    """A message that begins before the one before has ended is 1002."""
    assert refused(client, frame(TEXT, b'a', fin=False), frame(opcode, b'b', fin)) == closed(1002)


# --- 6: UTF-8 ---

VALID = [
    'Hello-µ@ßöäüàá-UTF-8!!',
    'κόσμε',
    '\x00',
    '\x80',
    '\u0800',
    '\U00010000',
    '\x7f',
    '\u07ff',
    '\uffff',
    '\U0010ffff',
    '\ud7ff',
    '\ue000',
    '\ufffd',
    '\ufffe',
    '\ufdd0',
    '\U0001fffe',
    '𝄞',
]
INVALID = [
    b'\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited',
    b'\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited',
    b'\x80',
    b'\xbf',
    b'\xff',
    b'\xfe\xfe\xff\xff',
    b'\xc0 \xc1',
    b'\xc0\xaf',
    b'\xe0\x80\xaf',
    b'\xf0\x80\x80\xaf',
    b'\xf8\x88\x80\x80\x80',
    b'\xfc\x84\x80\x80\x80\x80',
    b'\xce',
    b'\xe1\xbd',
    b'\xf0\x9d\x84',
    b'\xed\xa0\x80',
    b'\xed\xbf\xbf',
    b'\xed\xa0\xb4\xed\xb4\x9e',
    b'\xf4\x90\x80\x80',
    b'\xf7\xbf\xbf\xbf',
]


@pytest.mark.parametrize('text', VALID)
def test_valid_utf8(client: Client, text: str) -> None:
    """Text comes back, also where a character is split over fragments and over chops."""
    data = text.encode()
    client.send(frame(TEXT, data), *parts(TEXT, *(data[n : n + 1] for n in range(len(data)))), chop=1)
    goodbye(client, whole(TEXT, data), whole(TEXT, data))


@pytest.mark.parametrize('data', INVALID)
@pytest.mark.parametrize('kind', ['whole', 'chops', 'fragments'])
def test_invalid_utf8(client: Client, data: bytes, kind: str) -> None:
    """Text that is not UTF-8 is 1007; what came before is answered, nothing that comes after is."""
    frames = parts(TEXT, *(data[n : n + 1] for n in range(len(data)))) if kind == 'fragments' else [frame(TEXT, data)]
    client.send(frame(TEXT, b'first'), *frames, frame(TEXT, b'after'), chop=1 if kind == 'chops' else 0)
    assert outcome(client) == closed(1007, whole(TEXT, b'first'))


@pytest.mark.parametrize('data', INVALID)
def test_binary_need_not_be_utf8(client: Client, data: bytes) -> None:
    """A binary message holds any bytes."""
    client.send(frame(BINARY, data))
    goodbye(client, whole(BINARY, data))


# --- 7: closes ---


def code(number: int, reason: bytes = b'') -> bytes:
    """What a close holds."""
    return number.to_bytes(2, 'big') + reason


@pytest.mark.parametrize(
    'data', [b'', code(1000), code(1000, b'Hello'), code(1000, b'*' * 123), code(1000, b'\xc3\xb6')]
)
@pytest.mark.parametrize('chop', [0, 1])
def test_close(client: Client, data: bytes, chop: int) -> None:
    """A close is answered with 1000, and the server ends the connection."""
    client.send(frame(TEXT, b'Hello'), frame(CLOSE, data), chop=chop)
    assert outcome(client) == closed(1000, whole(TEXT, b'Hello'))


@pytest.mark.parametrize('after', [frame(CLOSE, b'\x03\xe8'), frame(PING, b'x'), frame(TEXT, b'x'), b'\xff\xff\xff'])
def test_what_comes_after_a_close(client: Client, after: bytes) -> None:
    """What comes after a close is not looked at."""
    client.send(frame(CLOSE, code(1000)), after)
    assert outcome(client) == closed(1000)


def test_close_within_a_message(client: Client) -> None:
    """A close in the middle of a message is a close, and what there was of the message is nothing."""
    client.send(frame(TEXT, b'begun', fin=False), frame(CLOSE, code(1000)), frame(0, b'ended'))
    assert outcome(client) == closed(1000)


@pytest.mark.parametrize('number', [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
@pytest.mark.parametrize('reason', [b'', b'why'])
def test_code(client: Client, number: int, reason: bytes) -> None:
    """A code that may be sent is sent back."""
    client.send(frame(CLOSE, code(number, reason)))
    assert outcome(client) == closed(number)


@pytest.mark.parametrize('number', [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 5001, 65535])
@pytest.mark.parametrize('reason', [b'', b'why'])
def test_code_that_may_not_be_sent(client: Client, number: int, reason: bytes) -> None:
    """A code that no close may have is 1002."""
    assert refused(client, frame(CLOSE, code(number, reason))) == closed(1002)


@pytest.mark.parametrize(
    ('data', 'answer'), [(b'\x03', 1002), (code(1000, b'*' * 124), 1002), (code(1000, b'\xce\xba\xed\xa0\x80'), 1007)]
)
def test_close_that_is_none(client: Client, data: bytes, answer: int) -> None:
    """A close of one byte, of too many, or whose reason is not UTF-8 is an error."""
    client.send(frame(CLOSE, data))
    assert outcome(client) == closed(answer)


# --- 9 and 10: large messages ---

KIB, MIB = 1024, 1024 * 1024


@pytest.mark.parametrize('size', [64 * KIB, MIB, 4 * MIB, SIZE])
@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_large_message(client: Client, opcode: int, size: int) -> None:
    """A large message comes back, the largest too."""
    data = bytes(size)
    client.send(frame(opcode, data), frame(PING))
    assert sorted([client.receive() or (0, b''), client.receive() or (0, b'')]) == [
        whole(opcode, data),
        whole(PONG, b''),
    ]
    goodbye(client)


@pytest.mark.parametrize(('size', 'piece'), [(64 * KIB, 64), (64 * KIB, 1300), (MIB, 4 * KIB), (4 * MIB, 64 * KIB)])
@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_large_message_in_fragments(client: Client, opcode: int, size: int, piece: int) -> None:
    """It does too where it was sent in fragments."""
    data = bytes(range(128)) * (size // 128)
    client.send(*parts(opcode, *(data[n : n + piece] for n in range(0, size, piece))))
    goodbye(client, whole(opcode, data))


@pytest.mark.parametrize('chop', [64, 1300])
def test_large_message_in_chops(client: Client, chop: int) -> None:
    """And where it comes in small pieces."""
    data = bytes(256 * KIB)
    client.send(frame(BINARY, data), chop=chop)
    goodbye(client, whole(BINARY, data))


def test_fragments_over_the_limit(client: Client) -> None:
    """Fragments that are over the limit together are 1009."""
    assert refused(client, *parts(BINARY, bytes(SIZE - 10), bytes(10), b'x')) == closed(1009)


@pytest.mark.parametrize('bad', [frame(TEXT, b'x', rsv=4), frame(3), frame(TEXT, bytes(SIZE + 1))[:14]])
def test_the_close_of_a_broken_connection_arrives(client: Client, bad: bytes) -> None:
    """Who sends on after a frame that breaks the rules is not reset, and reads the close."""
    client.socket.sendall(bad)
    assert client.socket.recv(1, socket.MSG_PEEK)  # it is on its way
    for _ in range(64):
        client.socket.sendall(bytes(65536))
    assert [head for head, _ in client.rest()] == [0x80 | CLOSE]


def test_a_client_that_does_not_mask(client: Client) -> None:
    """Frames that are not masked are refused (RFC 6455 section 5.1), by the first one."""
    assert refused(client, frame(TEXT, b'x', mask=False)) == closed(1002)
