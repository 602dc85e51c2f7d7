"""Sessions, what is learnt about them, and Engine.IO's."""

import asyncio
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


def test_sidetrack_may_say_how_long_a_session_is_remembered(said):
    said.sessions.idle = 120
    said.sessions.open("a", ends=False)
    said.now += 119
    said.sessions.tidy()
    assert said.sessions.owns("a")
    said.now += 1
    said.sessions.tidy()
    assert said.take() == [("opened", "a", False), ("closed", "a", True)]


def test_all_are_announced_again_as_what_they_are_but_for_the_forgotten(said):
    sessions = said.sessions
    sessions.open("ends")
    sessions.open("forgotten", ends=False)
    sessions.open("streaming", ends=False)
    sessions.begin_request("streaming")
    said.now += IDLE
    sessions.open("used", ends=False)
    said.take()
    sessions.repeat()
    assert said.take() == [("opened", "ends", True), ("opened", "streaming", False), ("opened", "used", False)]
    # Which counts as an announcement, and not as a use.
    said.now += REFRESH - 1
    sessions.begin_request("used")
    assert said.take() == []


def test_ids_are_tagged_once_and_only_where_that_is_wanted(said):
    assert said.sessions.tagged("a") == "a"
    said.sessions.tag = "w2"
    assert [said.sessions.tagged(sid) for sid in ("a", "w2.a", "w2a", "w2")] == ["w2.a", "w2.a", "w2.w2a", "w2.w2"]


def test_the_package_tags_with_the_workers_own_tag(said, monkeypatch):
    import sidetrack
    from sidetrack import session

    monkeypatch.setattr(session, "_of_this_process", None)
    assert sidetrack.tagged("a") == "a"
    said.sessions.tag = "w2"
    session.set_of_this_process(said.sessions)
    assert sidetrack.tagged("a") == "w2.a"


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


class Own:
    """An app's own ids, by a subclass."""

    def generate_id(self):
        return "own"


@pytest.mark.parametrize("bases", [(), (Own,)], ids=["its own ids", "the app's ids"])
def test_a_handshake_gets_a_tagged_id_and_nothing_else_does(said, bases):
    class Server(engineio.AsyncServer):
        pass

    class Derived(*bases, Server):
        pass

    engine.announce_from(Server, said.sessions, said.sessions.tagged)
    engine.announce_from(Server, said.sessions, said.sessions.tagged)
    server = Derived(async_mode="asgi")
    refused = Derived(async_mode="asgi")
    refused.on("connect", lambda sid, environ: False)
    refused.generate_id = lambda: "by instance"

    async def handshakes():
        for wanted in ("w2", None, "w3"):
            said.sessions.tag = wanted
            for one in (server, refused):
                one.start_service_task = False
                await one._handle_connect({}, "polling")
                # As python-socketio draws one for each namespace.
                assert not one.generate_id().startswith(("w2.", "w3."))
        assert refused.generate_id() == "by instance"
        assert "generate_id" not in server.__dict__
        for socket in server.sockets.values():
            await socket.close(wait=False)

    asyncio.run(handshakes())
    sids = [sid for kind, sid, _ in said.take() if kind == "opened"]
    assert [sid.split(".")[0] == wanted for sid, wanted in zip(sids, ["w2", "w2", None, None, "w3", "w3"])] == [
        True, True, False, False, True, True]
    assert sids[1::2] == ["w2.by instance", "by instance", "w3.by instance"]
    if bases:
        assert sids[0::2] == ["w2.own", "own", "w3.own"]


def test_engine_io_is_not_needed(said):
    assert engine.announce_all(said.sessions, find=lambda name: None) is False
