"""Sessions, what is learnt about them, and Engine.IO's."""

import json

import engineio
import pytest

from sidetrack import engine
from sidetrack.key import SessionKey
from sidetrack.learning import Learner, Request
from sidetrack.session import IDLE, REFRESH, Sessions


class Said:
    """A channel that remembers, and a clock that is turned by hand."""

    def __init__(self):
        self.now = 1000.0
        self.lines = []
        self.sessions = Sessions(lambda line: self.lines.append(json.loads(line)), None, lambda: self.now)

    def take(self):
        lines, self.lines = self.lines, []
        return [(line["type"].split(":")[1], line["sid"], line.get("ends", True)) for line in lines]


@pytest.fixture
def said():
    return Said()


def test_sessions_are_announced_once_and_in_order(said):
    sessions = said.sessions
    for _ in range(2):
        sessions.open("a")
    assert sessions.owns("a") and not sessions.owns("b") and len(sessions) == 1
    for _ in range(2):
        sessions.close("a")
    sessions.close("never opened")
    assert said.take() == [("opened", "a", True), ("closed", "a", True)]


def test_a_session_without_an_end_is_refreshed_while_used_and_forgotten_when_not(said):
    sessions = said.sessions
    sessions.open("a", ends=False)
    said.now += REFRESH - 1
    sessions.begin_request("a")
    sessions.end_request("a")
    assert said.take() == [("opened", "a", False)]
    said.now += 1
    sessions.begin_request("a")
    assert said.take() == [("opened", "a", False)]
    # A request that stays open, such as an event stream, keeps it.
    said.now += 2 * IDLE
    sessions.tidy()
    assert said.take() == [("opened", "a", False)]
    sessions.end_request("a")
    said.now += IDLE - 1
    sessions.tidy()
    assert said.take() == []
    said.now += 1
    sessions.tidy()
    assert said.take() == [("closed", "a", True)] and not sessions.owns("a")


def test_a_session_with_an_end_is_left_alone(said):
    said.sessions.open("a")
    said.now += 2 * IDLE
    said.sessions.begin_request("a")
    said.sessions.tidy()
    assert said.take() == [("opened", "a", True)]


def exchange(said, key, method, sid, status, headers=(), final=False):
    learner = Learner(SessionKey.parse(key), said.sessions)
    request = Request(method, sid, final)
    learner.begin(request)
    learner.respond(request, status, headers)
    learner.end(request)
    return said.take()


def test_a_header_session_begins_with_a_response_and_ends_with_delete_or_404(said):
    key = "header:Mcp-Session-Id"
    given = [(b"mcp-session-id", b"q")]
    assert exchange(said, key, "POST", None, 200, given) == [("opened", "q", False)]
    assert exchange(said, key, "POST", "q", 500) == []
    assert exchange(said, key, "DELETE", "q", 405) == []
    assert exchange(said, key, "DELETE", "q", 204) == [("closed", "q", True)]
    assert exchange(said, key, "POST", None, 200, given) == [("opened", "q", False)]
    assert exchange(said, key, "GET", "q", 404) == [("closed", "q", True)]
    assert exchange(said, key, "GET", "q", 404, final=True) == []


def test_a_cookie_session_ends_when_the_cookie_is_taken_away(said):
    key = "cookie:at"
    assert exchange(said, key, "GET", None, 200, [(b"set-cookie", b"at=q; Path=/")]) == [("opened", "q", False)]
    assert exchange(said, key, "GET", "q", 404) == []
    assert exchange(said, key, "DELETE", "q", 204) == []
    assert exchange(said, key, "GET", "q", 200, [(b"set-cookie", b"at=; Max-Age=0")]) == [("closed", "q", True)]


@pytest.mark.parametrize("key", ["path:3", "cookie:at", "header:X"])
def test_an_id_nobody_knows_belongs_to_who_serves_it(said, key):
    assert exchange(said, key, "GET", "s", 200) == []
    assert exchange(said, key, "GET", "s", 400, final=True) == []
    assert exchange(said, key, "GET", "s", 200, final=True) == [("opened", "s", False)]


def test_a_query_says_nothing_about_sessions(said):
    assert exchange(said, "query:sid", "GET", "s", 200, [(b"sid", b"t")], final=True) == []


def test_engine_io_sessions_are_announced_from_birth_to_end(said):
    class Server(engineio.AsyncServer):
        pass

    early = Server(async_mode="asgi")
    early.sockets["early"] = object()
    engine.announce_from(Server, said.sessions)
    late = Server(async_mode="asgi")
    assert "early" in early.sockets
    assert said.take() == [("opened", "early", True)]
    late.sockets["late"] = object()
    late.sockets["gone"] = object()
    del late.sockets["gone"]
    late.generate_id()
    assert said.take() == [("opened", "late", True), ("opened", "gone", True), ("closed", "gone", True)]
    late.sockets = {}
    early.sockets.clear()
    assert said.take() == [("closed", "late", True), ("closed", "early", True)]


def test_engine_io_is_not_needed(said):
    assert engine.announce_all(said.sessions, find=lambda name: None) is False
