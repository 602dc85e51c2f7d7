"""Real workers under a fake sidetrack, on raw connections."""

import base64
import os
import random
import socket
import threading

import pytest
from client import Client, chunked, get, post
from host import PATIENCE

WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + base64.b64encode(b"0123456789abcdef").decode(),
)


def frame(text):
    """A client's text frame, masked with zeros."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def message(client):
    """A server's short text frame."""
    kind, size = client.file.read(2)
    assert kind == 0x81
    return client.file.read(size).decode()


def sessions(host, count):
    """So many sessions of each worker, by process id."""
    found = {worker.process.pid: [] for worker in host.workers}
    while any(len(sids) < count for sids in found.values()):
        with Client(host.connect()) as client:
            answer = client.get("/new")
            found[answer.pid].append(answer.body.decode())
    return found


def pairs(host, count):
    """(session, process) in turn between the workers."""
    found = sessions(host, count)
    columns = [[(sid, pid) for sid in sids[:count]] for pid, sids in found.items()]
    return [pair for row in zip(*columns) for pair in row]


def test_sessions_take_turns_on_one_connection(start):
    host = start(workers=2)
    turns = pairs(host, 3) * 10
    host.wait(lambda: all(worker.handed_off == worker.closed for worker in host.workers))
    before = [worker.descriptors_open() for worker in host.workers]
    with Client(host.connect()) as client:
        for sid, pid in turns:
            answer = client.get(f"/?sid={sid}")
            assert (answer.status, answer.pid) == (200, pid)
        assert host.handed_back >= len(turns) - 1
        host.wait(lambda: sum(worker.handed_off - worker.closed for worker in host.workers) == 1)
    host.wait(lambda: all(worker.handed_off == worker.closed for worker in host.workers))
    # A connection that was handed back or closed leaves nothing behind.
    assert [worker.descriptors_open() for worker in host.workers] == before


@pytest.mark.parametrize("seed", range(2))
def test_bodies_of_every_kind_and_size(start, seed):
    host = start(workers=2)
    numbers = random.Random(seed)
    turns = pairs(host, 1)
    with Client(host.connect()) as client:
        for size in (0, 1, 1000, 65_536, 300_000, 1_000_000):
            for sid, pid in turns:
                body = numbers.randbytes(size)
                for request in (
                    post(f"/?sid={sid}", body),
                    chunked(f"/?sid={sid}", body, iter(lambda: numbers.randrange(1, size + 1), 0)),
                ):
                    cuts = sorted(numbers.sample(range(len(request)), 4))
                    pieces = [request[a:b] for a, b in zip([0, *cuts], [*cuts, None])]
                    writing = threading.Thread(target=client.send, args=pieces)
                    writing.start()
                    answer = client.read()
                    writing.join()
                    assert (answer.status, answer.pid) == (200, pid)
                    assert answer.body == body


def test_a_head_that_drips(start):
    host = start(workers=2)
    (one, pid_one), (two, pid_two) = pairs(host, 1)
    with Client(host.connect()) as client:
        assert client.get(f"/?sid={one}").pid == pid_one
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.send(*[bytes([byte]) for byte in post(f"/?sid={two}", b"body")])
        answer = client.read()
        assert (answer.pid, answer.body) == (pid_two, b"body")


def test_pipelined_requests_of_several_sessions(start):
    host = start(workers=2)
    turns = pairs(host, 2) * 3
    with Client(host.connect()) as client:
        client.send(b"".join(post(f"/?sid={sid}", sid.encode() * 500) for sid, _ in turns))
        for sid, pid in turns:
            answer = client.read()
            assert (answer.status, answer.pid, answer.body) == (200, pid, sid.encode() * 500)


def test_a_misplaced_request_waits_for_the_response_before_it(start):
    host = start(workers=2)
    (one, pid_one), (two, pid_two) = pairs(host, 1)
    with Client(host.connect()) as client, Client(host.connect()) as other:
        client.send(get(f"/slow?sid={one}"), get(f"/?sid={two}"), get(f"/?sid={one}"))
        assert other.get(f"/go?sid={one}").status == 200
        assert [client.read().pid for _ in range(3)] == [pid_one, pid_two, pid_one]


def test_a_misplaced_request_waits_until_a_large_response_has_left(start):
    host = start(workers=2)
    (one, pid_one), (two, pid_two) = pairs(host, 1)
    with Client(host.connect()) as client:
        # Nobody reads, so the response fills the buffers of kernel and transport.
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(get(f"/big?sid={one}"), get(f"/?sid={two}"))
        with Client(host.connect()) as other:
            assert other.get(f"/?sid={one}").pid == pid_one
        assert host.handed_back == 0
        big, small = client.read(), client.read()
        assert (big.pid, len(big.body), small.pid) == (pid_one, 16_000_000, pid_two)


@pytest.mark.parametrize("ws", ["websockets", "websockets-sansio", "wsproto"])
def test_an_upgrade_on_a_used_connection(start, ws):
    host = start("apps:plain", "--ws", ws, workers=2)
    (one, pid_one), (two, pid_two) = pairs(host, 1)
    for sid, pid in ((two, pid_two), (one, pid_one)):
        with Client(host.connect()) as client:
            assert client.get(f"/?sid={one}").pid == pid_one
            assert client.get(f"/?sid={sid}", *WEBSOCKET).status == 101
            # After that nothing is looked at any more.
            for text in ("hello", f"GET /?sid={two} HTTP/1.1\r\n\r\n"):
                client.send(frame(text.encode()))
                assert message(client) == f"{pid} {text}"
    host.wait(lambda: all(worker.handed_off == worker.closed for worker in host.workers))


# wsproto loses frames of a client that does not wait for the response to its upgrade.
@pytest.mark.parametrize("ws", ["websockets", "websockets-sansio"])
def test_an_upgrade_that_was_handed_back_in_one_piece_with_frames(start, ws):
    host = start("apps:plain", "--ws", ws, workers=2)
    (one, pid_one), (two, pid_two) = pairs(host, 1)
    with Client(host.connect()) as client:
        client.send(get(f"/?sid={one}"), get(f"/?sid={two}", *WEBSOCKET), frame(b"early"), frame(b"too"))
        assert client.read().pid == pid_one
        assert client.read().status == 101
        assert [message(client), message(client)] == [f"{pid_two} early", f"{pid_two} too"]


def test_an_upgrade_to_something_else_is_an_ordinary_request(start):
    host = start(workers=2)
    (one, pid_one), (two, pid_two) = pairs(host, 1)
    with Client(host.connect()) as client:
        answer = client.get(f"/?sid={one}", "Connection: Upgrade", "Upgrade: h2c")
        assert (answer.status, answer.pid) == (200, pid_one)
        assert client.get(f"/?sid={two}").pid == pid_two


def test_an_unknown_session_is_answered_as_the_app_answers_it(start):
    host = start(workers=2)
    ((one, pid_one), _) = pairs(host, 1)
    with Client(host.connect()) as client:
        answer = client.get("/?sid=unknown")
        assert (answer.status, answer.body) == (400, b"unknown")
        # Only the first request is final.
        assert client.get(f"/?sid={one}").pid == pid_one
        assert client.get("/?sid=unknown").status == 400
        assert client.get("/?sid=a&sid=b").status == 400


def test_a_connection_lost_on_its_way_back_is_served_here(start):
    host = start(workers=2)
    (one, pid_one), (two, _) = pairs(host, 1)
    worker = host.owner(one)
    with Client(host.connect()) as client:
        assert client.get(f"/?sid={one}").pid == pid_one
        worker.lose_next = 1
        client.send(get(f"/?sid={two}"), get(f"/?sid={one}"))
        first, second = client.read(), client.read()
        assert (first.status, first.pid, second.status, second.pid) == (400, pid_one, 200, pid_one)


def test_a_client_that_leaves_with_its_request(start):
    host = start(workers=2)
    (one, pid_one), (two, pid_two) = pairs(host, 1)
    for _ in range(5):
        with Client(host.connect()) as client:
            assert client.get(f"/?sid={one}").pid == pid_one
            client.send(get(f"/?sid={two}"))
            client.socket.shutdown(socket.SHUT_WR)
    host.wait(lambda: all(worker.handed_off == worker.closed for worker in host.workers))
    with Client(host.connect()) as client:
        assert client.get(f"/?sid={two}").pid == pid_two


def test_bytes_that_are_no_request_get_a_400(start):
    host = start()
    for rubbish in (
        b"rubbish\r\n\r\n",
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" + get("/"),
    ):
        with Client(host.connect()) as client:
            assert client.get("/").status == 200
            client.send(rubbish)
            # The last kind is served by one of the parsers, but nothing after it.
            answer = client.read()
            assert answer.status in (200, 400) and answer.headers["connection"] == "close"
            assert client.closed()
    host.wait(lambda: host.workers[0].handed_off == host.workers[0].closed)


def test_a_head_without_end_is_not_kept(start):
    host = start()
    with Client(host.connect()) as client:
        assert client.get("/").status == 200
        client.send(get("/")[:-2], b"A: %s\r\n" % (b"a" * 100_000), b"\r\n", get("/"))
        answer = client.read()
        assert answer.status in (200, 400) and answer.headers["connection"] == "close"


def test_a_response_before_the_body(start):
    host = start(workers=2)
    (one, pid_one), (two, pid_two) = pairs(host, 1)
    with Client(host.connect()) as client:
        request = post(f"/early?sid={one}", b"GET / HTTP/1.1\r\n\r\n" * 10_000)
        client.send(request[:1000])
        assert client.read().body == b"early"
        client.send(request[1000:])
        assert client.get(f"/?sid={two}").pid == pid_two


def test_a_failing_app_ends_its_connection_only(start):
    host = start()
    with Client(host.connect()) as client:
        answer = client.get("/crash")
        assert answer.status == 500 and client.closed()
    with Client(host.connect()) as client:
        assert client.get("/").status == 200


def test_http_1_0_and_close_end_the_connection(start):
    host = start()
    for request in (get("/", "Connection: close"), b"GET / HTTP/1.0\r\n\r\n"):
        with Client(host.connect()) as client:
            client.send(request)
            assert client.read().status == 200 and client.closed()


def test_expect_100_continue(start):
    host = start()
    with Client(host.connect()) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.file.readline().startswith(b"HTTP/1.1 100") and client.file.readline() == b"\r\n"
        client.send(b"body")
        assert client.read().body == b"body"


def test_the_app_sees_the_client_itself(start):
    host = start()
    with Client(host.connect()) as client:
        assert client.get("/client").body == repr(client.socket.getsockname()).encode()


def test_probes_are_answered_and_not_counted(start):
    host = start()
    worker = host.workers[0]
    here, there = socket.socketpair()
    host.call(worker.probe, there)
    with here:
        here.settimeout(PATIENCE)
        here.sendall(b"sidetrack probe\r\n\r\n")
        assert b" 400 " in here.makefile("rb").read()
    with Client(host.connect()) as client:
        client.get("/")
    host.wait(lambda: worker.closed == 1)
    assert worker.handed_off == 2


def test_keepalive_close_ends_each_connection(start):
    host = start(env={"SIDETRACK_KEEPALIVE": "close"})
    with Client(host.connect()) as client:
        answer = client.get("/")
        assert (answer.status, answer.headers["connection"]) == (200, "close") and client.closed()


def test_keepalive_worker_leaves_connections_alone(start):
    host = start(workers=2, env={"SIDETRACK_KEEPALIVE": "worker"})
    (one, pid_one), (two, _) = pairs(host, 1)
    with Client(host.connect()) as client:
        assert client.get(f"/?sid={one}").pid == pid_one
        assert client.get(f"/?sid={two}").status == 400
        assert client.get(f"/?sid={one}").pid == pid_one
    assert host.handed_back == 0


def test_idle_connections_close(start):
    host = start("apps:plain", "--timeout-keep-alive", "1")
    with Client(host.connect()) as client:
        assert client.get("/").status == 200 and client.closed()
    host.wait(lambda: host.workers[0].closed == 1)


def test_many_connections_at_once(start):
    host = start(workers=2)
    turns = pairs(host, 2)
    failed = []

    def visit(number):
        order = random.Random(number).sample(turns * 5, len(turns) * 5)
        with Client(host.connect()) as client:
            for sid, pid in order:
                answer = client.get(f"/?sid={sid}")
                if (answer.status, answer.pid) != (200, pid):
                    failed.append(answer)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    host.wait(lambda: all(worker.handed_off == worker.closed for worker in host.workers))
    for worker in host.workers:
        clients = [f for f in os.listdir(f"/proc/{worker.process.pid}/fd") if _is_tcp(worker, f)]
        assert clients == []


def _is_tcp(worker, number):
    with open(f"/proc/{worker.process.pid}/net/tcp") as table:
        inodes = {line.split()[9] for line in table.read().splitlines()[1:]}
    try:
        target = os.readlink(f"/proc/{worker.process.pid}/fd/{number}")
    except FileNotFoundError:
        return False
    return target.removeprefix("socket:[").removesuffix("]") in inodes
