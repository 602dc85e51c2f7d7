import pytest

from sidetrack import head
from sidetrack.key import SessionKey


def find(key, target, headers=""):
    parsed = head.parse(bytearray(f"GET {target} HTTP/1.1\r\n{headers}\r\n".encode("latin-1")))
    return SessionKey.parse(key).find(parsed)


def test_the_query_is_parsed_not_scanned():
    assert find("query:sid", "/socket.io/?EIO=4&sid=abc") == "abc"
    assert find("query:sid", "/?foo_sid=decoy&sid=abc") == "abc"
    assert find("query:sid", "/?foo_sid=decoy") is None
    assert find("query:sid", "/sid=abc?x=sid%3Dabc") is None
    assert find("query:sid", "/?SID=abc") is None
    assert find("query:sid", "/?sid=") is None
    assert find("query:sid", "http://host/?sid=a") == "a"
    assert find("query:sid", "http://host?sid=a#sid=b") == "a"


def test_both_sides_are_decoded():
    assert find("query:sid", "/?%73id=a%2Db") == "a-b"
    assert find("query:sid", "/?sid=a+b") == "a b"
    assert find("query:sid", "/?sid=%zz") == "%zz"


def test_doubt_is_not_guessed_away():
    assert find("query:sid", "/?sid=a&sid=b") is None
    assert find("query:sid", "/?sid=a&sid=a") == "a"
    assert find("query:sid", "/?sid=%ff%fe") is None
    assert find("query:sid", "/?sid=" + "x" * 257) is None
    assert find("query:sid", "/?sid=" + "x" * 256) == "x" * 256


def test_the_other_kinds():
    assert find("cookie:io", "/", "Cookie: a=1; io=x%20y; b=2\r\n") == "x y"
    assert find("cookie:io", "/", "Cookie: xio=1\r\n") is None
    assert find("header:Mcp-Session-Id", "/", "mcp-session-id: q7\r\n") == "q7"
    assert find("header:Mcp-Session-Id", "/", "mcp-session-id: \xff\r\n") is None
    assert find("path:3", "/echo/000/s1/xhr") == "s1"
    assert find("path:3", "/echo/000/s%2F1/xhr") == "s/1"
    assert find("path:3", "/echo") is None


def test_what_a_response_gives():
    cookie = SessionKey.parse("cookie:io")
    headers = [(b"Set-Cookie", b"io=a%20b; Path=/"), (b"set-cookie", b"other=1"), (b"io", b"x")]
    assert list(cookie.learn(headers)) == ["a b"]
    assert list(cookie.learn([(b"set-cookie", b"io=; Path=/")])) == [""]
    assert list(cookie.learn([(b"set-cookie", b'io="null"; Max-Age=0')])) == [""]
    header = SessionKey.parse("header:Mcp-Session-Id")
    assert list(header.learn([(b"mcp-session-id", b"q7"), (b"set-cookie", b"a=b")])) == ["q7"]
    assert list(SessionKey.parse("query:sid").learn(headers)) == []


@pytest.mark.parametrize("wrong", ["sid", "query:", "path:0", "path:x", "body:sid"])
def test_settings_that_are_no_keys_say_what_would_be(wrong):
    with pytest.raises(ValueError, match="expected query:NAME"):
        SessionKey.parse(wrong)


@pytest.mark.parametrize("right", ["query:sid", "cookie:io", "header:X", "path:2"])
def test_settings_that_are(right):
    assert str(SessionKey.parse(right)) == right
