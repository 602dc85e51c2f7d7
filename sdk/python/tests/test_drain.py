"""How a worker ends, and what it finishes before."""

import time

import pytest
from client import Client, get
from test_worker import WEBSOCKET, frame, message


def exit_code(worker):
    return worker.process.wait(10)


def ask(how, host, worker):
    if how == "disconnect":
        host.call(worker.disconnect)
    else:
        host.terminate(worker)


@pytest.mark.parametrize("how", ["disconnect", "SIGTERM"])
def test_open_requests_and_websockets_finish_first(start, how):
    host = start()
    worker = host.workers[0]
    with (
        Client(host.connect()) as idle,
        Client(host.connect()) as slow,
        Client(host.connect()) as socket,
    ):
        assert idle.get("/").status == 200
        assert socket.get("/", *WEBSOCKET).status == 101
        slow.send(get("/slow"))
        host.wait(lambda: worker.handed_off == 3)
        assert idle.get("/").status == 200
        ask(how, host, worker)
        # The idle one goes, the others do not.
        assert idle.closed()
        socket.send(frame(b"still"))
        assert message(socket) == f"{worker.process.pid} still"
        assert worker.process.poll() is None
        socket.close()
        # Nobody can ask for /go any more, so the request ends with its client.
    assert exit_code(worker) == 0
    host.wait(lambda: worker.closed == worker.handed_off == 3)
    leaving = [line for line in worker.lines if line.get("act") == "exitedAfterDisconnect"]
    assert len(leaving) == (how == "SIGTERM")


@pytest.mark.parametrize("how", ["disconnect", "SIGTERM"])
def test_a_response_under_way_is_finished_and_says_it_is_the_last(start, how):
    host = start()
    worker = host.workers[0]
    with Client(host.connect()) as slow, Client(host.connect()) as other:
        slow.send(get("/slow"))
        # Two of three heads are served after it has begun: a connection not yet used is not cut off.
        host.wait(lambda: worker.handed_off == 1)
        other.send(get("/go")[:-2])
        host.call(lambda: None)
        other.send(b"\r\n")
        host.wait(lambda: worker.handed_off == 2)
        ask(how, host, worker)
        for client in (slow, other):
            answer = client.read()
            assert answer.status == 200
            assert client.closed()
    assert exit_code(worker) == 0


def test_what_was_on_its_way_is_not_lost(start):
    host = start(workers=2)
    worker = host.workers[0]
    answers = []
    for number in range(40):
        if number == 10:
            host.terminate(worker)
        with Client(host.connect()) as client:
            answers.append(client.get("/"))
    assert [answer.status for answer in answers] == [200] * 40
    assert exit_code(worker) == 0
    assert {answer.pid for answer in answers[20:]} == {host.workers[1].process.pid}


def test_a_second_signal_says_goodbye_to_websockets(start):
    host = start()
    worker = host.workers[0]
    with Client(host.connect()) as client:
        assert client.get("/", *WEBSOCKET).status == 101
        host.terminate(worker)
        host.wait(lambda: not worker.taking)
        # The worker drains once it has the answer to its leave.
        deadline = time.monotonic() + 5
        while b"\x88" not in _read_some(client) and time.monotonic() < deadline:
            host.terminate(worker)
    assert exit_code(worker) == 0


def _read_some(client):
    client.socket.settimeout(0.3)
    try:
        return client.socket.recv(4)
    except TimeoutError:
        return b""


def test_the_time_for_grace_can_be_limited(start):
    host = start("apps:plain", "--timeout-graceful-shutdown", "1")
    worker = host.workers[0]
    with Client(host.connect()) as client:
        assert client.get("/", *WEBSOCKET).status == 101
        host.call(worker.disconnect)
        # 1012: service restart.
        assert client.file.read(4)[2:] == (1012).to_bytes(2, "big")
    assert exit_code(worker) == 0


def test_without_sidetrack_open_connections_go_on(start):
    host = start("apps:plain", "--timeout-keep-alive", "2")
    worker = host.workers[0]
    with Client(host.connect()) as idle, Client(host.connect()) as socket:
        assert idle.get("/").status == 200
        assert socket.get("/", *WEBSOCKET).status == 101
        host.wait(lambda: worker.handed_off == 2)
        host.call(worker.end)
        assert idle.get("/").status == 200
        # There is nobody to hand this back to.
        assert idle.get("/?sid=elsewhere").status == 400
        socket.send(frame(b"still"))
        assert message(socket) == f"{worker.process.pid} still"
        assert worker.process.poll() is None
    assert exit_code(worker) == 0


def test_a_worker_without_connections_ends_at_once(start):
    host = start()
    host.call(host.workers[0].disconnect)
    assert exit_code(host.workers[0]) == 0
