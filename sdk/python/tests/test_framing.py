import random

import pytest

from sidetrack.framing import Framer
from sidetrack.head import LONGEST_HEAD

GET = b"GET /a?sid=1 HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /c HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n"
    b'5;name="value"\r\nhello\r\nA\r\n0123\r\n4567\r\n0\r\nTrailer: t\r\nOther: u\r\n\r\n'
)
EMPTY = b"POST /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


def split(pieces):
    """The requests that come out, each with all its bytes, and the framer."""
    framer = Framer()
    requests = []
    for piece in pieces:
        framer.push(piece)
        while True:
            if framer.in_body:
                body = framer.take_body()
                requests[-1][1] += body
                if not body and framer.in_body:
                    break
            elif (head := framer.head()) is not None:
                requests.append([head.target, framer.take_head()])
            else:
                break
    return [tuple(request) for request in requests], framer


EXPECTED = [("/a?sid=1", GET), ("/b", POST), ("/c", CHUNKED), ("/d", EMPTY), ("/a?sid=1", GET)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_pipelined_requests_come_apart_byte_for_byte(size):
    stream = GET + POST + CHUNKED + EMPTY + GET
    requests, framer = split(stream[at : at + size] for at in range(0, len(stream), size))
    assert requests == EXPECTED
    assert not framer.doubtful and not framer.held


def test_every_cut_in_two_gives_the_same():
    stream = GET + POST + CHUNKED + EMPTY + GET
    for cut in range(len(stream)):
        assert split([stream[:cut], stream[cut:]])[0] == EXPECTED, cut


def test_random_bodies_in_random_pieces():
    numbers = random.Random(7)
    for _ in range(50):
        expected = []
        for number in range(numbers.randrange(1, 6)):
            content = numbers.randbytes(numbers.randrange(0, 2000))
            if numbers.random() < 0.5:
                head = b"PUT /%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (number, len(content))
                expected.append((f"/{number}", head + content))
            else:
                bytes_ = b"PUT /%d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" % number
                while content:
                    size = numbers.randrange(1, len(content) + 1)
                    bytes_ += b"%x\r\n" % size + content[:size] + b"\r\n"
                    content = content[size:]
                expected.append((f"/{number}", bytes_ + b"0\r\n\r\n"))
        stream = b"".join(bytes_ for _, bytes_ in expected)
        pieces = []
        while stream:
            size = numbers.randrange(1, 300)
            pieces.append(stream[:size])
            stream = stream[size:]
        assert split(pieces)[0] == expected


def test_looking_at_a_head_takes_nothing():
    framer = Framer()
    framer.push(POST + GET)
    assert framer.head().target == "/b"
    assert framer.peek_rest() == POST + GET
    assert framer.rest() == POST + GET
    assert framer.head() is None and framer.held == 0


def test_empty_lines_before_a_request_are_ignored():
    assert split([b"\r", b"\n\r\n" + GET])[0] == [("/a?sid=1", GET)]


@pytest.mark.parametrize(
    "stream",
    [
        b"sidetrack probe\r\n\r\n",
        b"\x16\x03\x01\x02",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\nHost",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /" + b"x" * LONGEST_HEAD,
    ],
)
def test_what_servers_may_read_in_different_ways_is_left_to_the_server(stream):
    requests, framer = split([stream])
    assert framer.doubtful and requests == []
    framer.push(b"more")
    assert framer.rest() == stream + b"more"


@pytest.mark.parametrize("body", [b"x\r\n", b"5 5\r\n", b"1\r\nab\r\n", b"1\nx", b"1;" + b"e" * 20_000, b"0\r\n\n"])
def test_a_broken_chunked_body_too(body):
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    requests, framer = split([head, body])
    assert framer.doubtful and requests == [("/", head)]
    assert framer.rest() == body


def test_trailers_have_a_limit():
    framer = Framer()
    framer.push(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
    framer.head()
    framer.take_head()
    framer.push(b"A: %s\r\n" % (b"b" * 10_000) * 7)
    assert framer.take_body() == b"" and framer.doubtful
