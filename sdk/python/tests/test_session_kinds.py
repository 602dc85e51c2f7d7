"""Workers whose sessions are in headers, cookies and paths."""

import re

import pytest
from client import Client, get


def in_header(name):
    return lambda head: _find(rb"\r\n" + name + rb": *([^\r]+)", head)


def _find(pattern, head):
    found = re.search(pattern, head, re.IGNORECASE)
    return found[1].decode() if found else None


def test_a_header_session_from_its_first_response_to_its_delete(start):
    host = start("apps:header", workers=2, find=in_header(b"mcp-session-id"),
                 env={"SIDETRACK_SESSION_KEY": "header:Mcp-Session-Id"})
    with Client(host.connect()) as client:
        sids = {}
        while len(set(sids.values())) < 2:
            with Client(host.connect()) as other:
                answer = other.get("/")
                sids[answer.headers["mcp-session-id"]] = answer.pid
        for _ in range(5):
            for sid, pid in sids.items():
                # At once, on a connection that may be another worker's.
                answer = client.get("/", f"Mcp-Session-Id: {sid}")
                assert (answer.status, answer.pid) == (200, pid)
        sid, pid = next(iter(sids.items()))
        client.send(get("/", f"Mcp-Session-Id: {sid}").replace(b"GET", b"DELETE"))
        assert client.read().pid == pid
        host.wait(lambda: sid not in host.owners)
        assert client.get("/", f"Mcp-Session-Id: {sid}").status == 404
        assert sid not in host.owners


def test_a_cookie_session_until_the_cookie_is_taken_away(start):
    host = start("apps:cookie", workers=2, find=in_header(b"cookie: at="), env={"SIDETRACK_SESSION_KEY": "cookie:at"})
    host.find = lambda head: _find(rb"\r\ncookie: at=([^\r;]+)", head)
    cookies = {}
    while len(set(cookies.values())) < 2:
        with Client(host.connect()) as client:
            answer = client.get("/")
            cookies[answer.headers["set-cookie"].split(";")[0]] = answer.pid
    with Client(host.connect()) as client:
        for target in ("/", "/favicon.ico", "/") * 3:
            for cookie, pid in cookies.items():
                assert client.get(target, f"Cookie: {cookie}").pid == pid
        cookie, pid = next(iter(cookies.items()))
        client.get("/leave", f"Cookie: {cookie}")
        host.wait(lambda: cookie.removeprefix("at=") not in host.owners)


def test_a_path_session_belongs_to_who_serves_it_first(start):
    host = start("apps:path", workers=2, find=lambda head: _find(rb"^GET /\w+/\d+/(\w+)", head),
                 env={"SIDETRACK_SESSION_KEY": "path:3"})
    owners = {}
    with Client(host.connect()) as client:
        for _ in range(3):
            for sid in "abcd":
                answer = client.get(f"/echo/000/{sid}/xhr")
                assert answer.status == 200
                assert answer.pid == owners.setdefault(sid, answer.pid)
        assert len(set(owners.values())) == 2
        assert client.get("/echo/000/a/gone").pid == owners["a"]
        host.wait(lambda: "a" not in host.owners)


@pytest.mark.parametrize(
    "variable, value", [("SIDETRACK_SESSION_KEY", "nonsense"), ("SIDETRACK_KEEPALIVE", "perhaps")]
)
def test_nonsense_in_the_environment_is_named(tmp_path, variable, value):
    from host import Host

    host = Host(tmp_path, "apps:plain", env={variable: value})
    try:
        assert host.workers[0].process.wait(10) == 2
        assert variable in host.workers[0].log() and value in host.workers[0].log()
        assert host.workers[0].log().count("\n") == 1
    finally:
        host.thread.start()
        host.__exit__(None)
