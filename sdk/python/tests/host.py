"""sidetrack's side of the channel, for tests: accepts, peeks, routes, hands off and takes back.

Runs an event loop in a thread of its own, so that tests can be written from the client's point of
view. Written against ``docs/workers.md`` alone; it uses nothing of the package under test.
"""

from __future__ import annotations

import array
import asyncio
import base64
import collections
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

TESTS = Path(__file__).parent
PATIENCE = 15.0
HOLD = 0.3


class Worker:
    """A worker process and this end of its channel."""

    def __init__(self, host: Host, number: int, command: list[str], env: dict[str, str]) -> None:
        self.host = host
        self.slot = f"w{number}"
        self.lines: list[dict] = []
        self.ready = False
        self.taking = True
        self.hung_up = False
        self.sent_unacknowledged: collections.deque = collections.deque()
        self.handed_off = 0
        self.handed_back = 0
        self.closed = 0
        self.nacks = 0
        self.lose_next = 0
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        self.buffer = b""
        self.descriptors: collections.deque = collections.deque()
        self.output = open(host.folder / f"{self.slot}.log", "w+")
        self.process = subprocess.Popen(
            command,
            cwd=TESTS,
            env={**os.environ, **env, "NODE_CHANNEL_FD": str(theirs.fileno()), "SIDETRACK_SLOT": self.slot},
            pass_fds=[theirs.fileno()],
            stdout=self.output,
            stderr=self.output,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()

    def log(self) -> str:
        return Path(self.output.name).read_text()

    def descriptors_open(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    # --- Within the host's loop ----------------------------------------------------------------

    def readable(self) -> None:
        if self.hung_up:
            return
        try:
            data, control, flags, _ = self.channel.recvmsg(65536, socket.CMSG_SPACE(64), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data, control, flags = b"", [], 0
        for level, kind, content in control:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            numbers = array.array("i", content)
            assert len(numbers) == 1, "one descriptor for each message"
            self.descriptors.extend(numbers)
        if not data:
            self.end()
            return
        self.buffer += data
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            self.hear(json.loads(line))
        self.host.stir()
        self.readable()

    def hear(self, line: dict) -> None:
        self.lines.append(line)
        kind = line.get("type")
        if line.get("cmd") == "NODE_HANDLE_ACK":
            self.sent_unacknowledged.popleft().close()
            self.handed_off += 1
        elif line.get("cmd") == "NODE_HANDLE_NACK":
            self.nacks += 1
            self.host.route(self.sent_unacknowledged.popleft(), avoid=self)
        elif line.get("cmd") == "NODE_HANDLE":
            self.take_back(line["msg"])
        elif line.get("act") == "exitedAfterDisconnect":
            self.taking = False
            self.say({"cmd": "NODE_CLUSTER", "ack": line["seq"], "seq": 1})
        elif kind == "sidetrack:ready":
            assert len(self.lines) == 1 and line["replays"] is True
            self.ready = True
        elif kind == "sidetrack:opened":
            self.host.owners.setdefault(line["sid"], self)
            self.host.seen.add(line["sid"])
        elif kind == "sidetrack:closed":
            if self.host.owners.get(line["sid"]) is self:
                del self.host.owners[line["sid"]]
        elif kind == "sidetrack:sockets-closed":
            self.closed += line["count"]

    def take_back(self, message: dict) -> None:
        assert message["type"] == "sidetrack:hand-back" and "key" not in message
        client = socket.socket(fileno=self.descriptors.popleft())
        if self.lose_next:
            self.lose_next -= 1
            client.close()
            self.say({"cmd": "NODE_HANDLE_NACK"})
            return
        self.handed_back += 1
        self.say({"cmd": "NODE_HANDLE_ACK"})
        self.host.loop.create_task(self.host.serve(client, base64.b64decode(message["data"], validate=True)))

    def say(self, line: dict, descriptor: socket.socket | None = None) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        # A test's channel never fills, but for a large replay.
        while data:
            try:
                if descriptor is not None:
                    sent = socket.send_fds(self.channel, [data], [descriptor.fileno()])
                    descriptor = None
                else:
                    sent = self.channel.send(data)
                data = data[sent:]
            except BlockingIOError:
                time.sleep(0.001)

    def hand_off(self, client: socket.socket, data: bytes = b"", final: bool = False) -> None:
        message: dict = {"type": "sticky:connection", "data": ""}
        if data or final:
            message["sidetrack"] = {"data": base64.b64encode(data).decode(), "final": final}
        self.sent_unacknowledged.append(client)
        self.say({"cmd": "NODE_HANDLE", "type": "net.Socket", "msg": message}, client)

    def probe(self, client: socket.socket) -> None:
        message = {"type": "sticky:connection", "data": "", "sidetrack": "probe"}
        self.sent_unacknowledged.append(client)
        self.say({"cmd": "NODE_HANDLE", "type": "net.Socket", "msg": message}, client)

    def disconnect(self) -> None:
        self.taking = False
        self.say({"cmd": "NODE_CLUSTER", "act": "disconnect", "seq": 1})

    def end(self) -> None:
        if not self.hung_up:
            self.hung_up = True
            self.taking = False
            self.host.loop.remove_reader(self.channel)
            self.channel.close()
            for sid in [sid for sid, owner in self.host.owners.items() if owner is self]:
                del self.host.owners[sid]
            self.host.stir()


class Host:
    """Use as a context manager. ``find`` tells the session id of a request head."""

    def __init__(self, folder: Path, app: str, *options: str, workers: int = 1, find=None, env=None) -> None:
        self.folder = folder
        self.owners: dict[str, Worker] = {}
        self.seen: set[str] = set()
        self.find = find or (lambda head: _first(re.search(rb"[?&]sid=([^& ]+)", head.split(b"\r\n")[0])))
        self.stirred = threading.Condition()
        self.turn = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "sidetrack.asgi", *options, app]
        env = {"SIDETRACK_KEEPALIVE": "hand-back", "SIDETRACK_SESSION_KEY": "query:sid", **(env or {})}
        self.workers = [Worker(self, number, command, env) for number in range(workers)]

    def __enter__(self) -> Host:
        self.thread.start()
        for worker in self.workers:
            self.call(self.loop.add_reader, worker.channel, worker.readable)
        self.call(lambda: self.loop.create_task(self.accept()))
        self.wait(lambda: all(worker.ready or worker.hung_up for worker in self.workers))
        if not all(worker.ready for worker in self.workers):
            logs = [worker.log() for worker in self.workers]
            # Nobody else would: the block is not entered.
            self.__exit__(None)
            raise AssertionError(logs)
        return self

    def __exit__(self, kind, *_) -> None:
        if self.loop.is_closed():
            return
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()
            if kind is not None:
                print(f"--- {worker.slot} (exit {worker.process.returncode})\n{worker.log()}")
            worker.output.close()
        self.call(self.stop)
        self.thread.join()
        self.loop.close()
        self.listener.close()

    def stop(self) -> None:
        for worker in self.workers:
            worker.end()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.call_soon(self.loop.stop)

    # --- For tests -----------------------------------------------------------------------------

    def call(self, function, *arguments):
        """Runs a function within the loop and returns what it returns."""
        done: dict = {}
        event = threading.Event()

        def run() -> None:
            try:
                done["value"] = function(*arguments)
            except BaseException as error:
                done["error"] = error
            event.set()

        self.loop.call_soon_threadsafe(run)
        assert event.wait(PATIENCE)
        if "error" in done:
            raise done["error"]
        return done["value"]

    def wait(self, condition, patience: float = PATIENCE) -> None:
        """Waits until something is true that a line from a worker can make true."""
        with self.stirred:
            assert self.stirred.wait_for(condition, patience), "waited in vain"

    def stir(self) -> None:
        with self.stirred:
            self.stirred.notify_all()

    def owner(self, sid: str) -> Worker:
        """Who has announced a session; what was announced before an answer may be read after it."""
        self.wait(lambda: sid in self.owners)
        return self.owners[sid]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    @property
    def handed_back(self) -> int:
        return sum(worker.handed_back for worker in self.workers)

    def terminate(self, worker: Worker) -> None:
        worker.process.send_signal(signal.SIGTERM)

    # --- Routing -------------------------------------------------------------------------------

    async def accept(self) -> None:
        while True:
            client, _ = await self.loop.sock_accept(self.listener)
            self.loop.create_task(self.serve(client, b""))

    async def serve(self, client: socket.socket, data: bytes) -> None:
        """Peeks until the head is there, then hands the connection off with what came back with it."""
        client.setblocking(False)
        while True:
            try:
                peeked = client.recv(65536, socket.MSG_PEEK)
            except BlockingIOError:
                peeked = None
            except ConnectionResetError:
                client.close()
                return
            head = data + (peeked or b"")
            if b"\r\n\r\n" in head or peeked == b"":
                break
            await asyncio.sleep(0.001)
        sid = self.find(head.split(b"\r\n\r\n")[0])
        deadline = self.loop.time() + HOLD
        # What a worker has said is read before anything is decided.
        for worker in self.workers:
            worker.readable()
        while sid is not None and sid not in self.owners and sid not in self.seen and self.loop.time() < deadline:
            await asyncio.sleep(0.005)
        self.route(client, data, sid)

    def route(self, client: socket.socket, data: bytes = b"", sid: str | None = None, avoid=None) -> None:
        owner = self.owners.get(sid) if sid is not None else None
        if owner is not None:
            owner.hand_off(client, data)
            return
        ready = [worker for worker in self.workers if worker.taking and worker is not avoid]
        if not ready:
            client.close()
            return
        self.turn += 1
        ready[self.turn % len(ready)].hand_off(client, data, final=sid is not None)


def _first(match) -> str | None:
    return match[1].decode() if match else None
