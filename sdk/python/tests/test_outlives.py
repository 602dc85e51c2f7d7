"""Joined workers under the real program, which is killed, stopped and started again around them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from client import Client, get
from host import PATIENCE
from test_worker import WEBSOCKET, frame, message

TESTS = Path(__file__).parent
PROGRAM = Path(os.environ.get("SIDETRACK_BIN") or TESTS.parents[2] / "target/debug/sidetrack")

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists(), reason=f"{PROGRAM} is not there: build it with `cargo build`, or set SIDETRACK_BIN"
)


class Sidetrack:
    """One that starts no workers, and workers that join it. It keeps its address over its restarts."""

    def __init__(self, folder, *words):
        self.folder = folder
        self.socket = folder / "join.sock"
        self.ready_file = folder / "ready.json"
        self.words = words
        self.address = "127.0.0.1:0"
        self.log = open(folder / "log", "w+")
        self.workers = []

    def join(self, app, *options):
        program = [sys.executable, "-m", "sidetrack.asgi", "--log-level", "warning", *options, app]
        command = [PROGRAM, "join", "--socket", self.socket, "--", *program]
        self.workers.append(subprocess.Popen(command, cwd=TESTS, stdout=self.log, stderr=self.log))

    def start(self):
        """Starts it, and waits until all workers are there."""
        self.ready_file.unlink(missing_ok=True)
        command = [PROGRAM, "run", "--workers", "0", "--join-socket", self.socket, "--listen", self.address,
                   "--ready-file", self.ready_file, *self.words]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        found = eventually(self.all_there)
        (self.address,) = found["addresses"]

    def all_there(self):
        try:
            found = json.loads(self.ready_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return found if len(found["workers"]) == len(self.workers) else None

    def stop(self, number):
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def connect(self):
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=PATIENCE)

    @property
    def pids(self):
        return {worker.pid for worker in self.workers}

    def close(self):
        for process in (*self.workers, self.process):
            process.kill()
            process.wait()
        self.log.close()
        print(Path(self.log.name).read_text())


def eventually(check):
    deadline = time.monotonic() + PATIENCE
    while not (found := check()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return found


@pytest.fixture
def place(tmp_path):
    places = []

    def make(app, *words, options=()):
        sidetrack = Sidetrack(tmp_path, *words)
        places.append(sidetrack)
        for _ in range(2):
            sidetrack.join(app, *options)
        sidetrack.start()
        return sidetrack

    yield make
    for sidetrack in places:
        sidetrack.close()


def session_of_each(sidetrack, target, read):
    """A session of each worker: process id → session id."""
    found = {}
    while found.keys() != sidetrack.pids:
        with Client(sidetrack.connect()) as client:
            answer = client.get(target)
            assert answer.status == 200
            pid, sid = read(answer)
            found.setdefault(pid, sid)
    return found


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_connections_and_sessions_outlive_three_sidetracks(place, loop):
    sidetrack = place("apps:plain", options=["--timeout-keep-alive", "60", "--loop", loop])
    sids = session_of_each(sidetrack, "/new", lambda answer: (answer.pid, answer.body.decode()))
    (one, of_one), (two, of_two) = sids.items()
    with Client(sidetrack.connect()) as old, Client(sidetrack.connect()) as live:
        assert old.get(f"/?sid={of_one}").pid == one
        assert live.get(f"/?sid={of_two}", *WEBSOCKET).status == 101
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            assert sidetrack.stop(number) == (0 if number == signal.SIGTERM else -number)
            # Without it, what is here is served, and what belongs elsewhere waits.
            live.send(frame(b"alone"))
            assert message(live) == f"{two} alone"
            assert old.get(f"/?sid={of_one}").pid == one
            sidetrack.start()
            # At once, on new connections and on the old one, which changes hands.
            for pid, sid in (*sids.items(), *sids.items()):
                with Client(sidetrack.connect()) as client:
                    answer = client.get(f"/?sid={sid}")
                    assert (answer.status, answer.pid) == (200, pid)
                assert old.get(f"/?sid={sid}").pid == pid
            assert old.get(f"/?sid={of_one}").pid == one
            live.send(frame(b"after"))
            assert message(live) == f"{two} after"
            # New sessions, of which each worker gets some.
            session_of_each(sidetrack, "/new", lambda answer: (answer.pid, answer.body.decode()))
    assert [worker.poll() for worker in sidetrack.workers] == [None, None]


def test_a_request_for_another_worker_waits_for_the_next_sidetrack(place):
    sidetrack = place("apps:plain", options=["--timeout-keep-alive", "60"])
    sids = session_of_each(sidetrack, "/new", lambda answer: (answer.pid, answer.body.decode()))
    (one, of_one), (two, of_two) = sids.items()
    with Client(sidetrack.connect()) as client:
        assert client.get(f"/?sid={of_one}").pid == one
        sidetrack.stop(signal.SIGKILL)
        # What is on its way in that very moment goes with it.
        time.sleep(0.05)
        client.send(get(f"/?sid={of_two}"), get(f"/?sid={of_one}"))
        sidetrack.start()
        assert [client.read().pid, client.read().pid] == [two, one]


def test_engine_io_sessions_are_known_to_the_next_sidetrack(place):
    sidetrack = place("apps:socketio_app")
    handshake = "/socket.io/?EIO=4&transport=polling"
    sids = []
    for _ in range(8):
        with Client(sidetrack.connect()) as client:
            sids.append(json.loads(client.get(handshake).body[1:])["sid"])
    sidetrack.stop(signal.SIGKILL)
    sidetrack.start()
    for sid in sids:
        with Client(sidetrack.connect()) as client:
            client.send(f"POST {handshake}&sid={sid} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n40".encode())
            assert client.read().status == 200


def test_where_clients_make_the_ids_their_sessions_are_with_the_same_workers_again(place):
    sidetrack = place("apps:path", "--session-key", "path:3", "--policy", "round-robin")

    def owners():
        found = {}
        for room in "abcdefgh":
            with Client(sidetrack.connect()) as client:
                answer = client.get(f"/echo/000/{room}/xhr")
                assert answer.status == 200
                found[room] = answer.pid
        return found

    before = owners()
    assert set(before.values()) == sidetrack.pids
    sidetrack.stop(signal.SIGKILL)
    sidetrack.start()
    assert owners() == before


@pytest.mark.parametrize("there", [True, False], ids=["with sidetrack", "without"])
def test_a_worker_ends_when_it_is_told_to(place, there):
    sidetrack = place("apps:plain")
    with Client(sidetrack.connect()) as idle, Client(sidetrack.connect()) as slow:
        assert (idle.get("/").status, slow.get("/").status) == (200, 200)
        sidetrack.stop(signal.SIGTERM)
        if there:
            sidetrack.start()
        for worker in sidetrack.workers:
            worker.terminate()
        assert idle.closed() and slow.closed()
        assert [worker.wait(PATIENCE) for worker in sidetrack.workers] == [0, 0]
