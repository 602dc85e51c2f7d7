"""A listener that has joined, from one sidetrack to the next; and when it tries to."""

import asyncio
import contextlib
import json
import os
import socket

import pytest

from descriptors import none_leak
from sidetrack import Listener, join, wire
from sidetrack.join import LONGEST, PROVEN_AFTER, SHORTEST, SLOT_PATIENCE, Join
from sidetrack.key import SessionKey
from sidetrack.lookout import Lookout
from sidetrack.session import IDLE
from sidetrack.settings import Settings
from test_listener import CONNECTION, DISCONNECT, PATIENCE

JOINED = {"type": "sidetrack:joined", "slot": "w4", "id": 5, "session_key": "query:sid", "keepalive": "hand-back"}


class Sidetrack:
    """One end of a channel, and lines that came over it."""

    def __init__(self, channel):
        self.channel = channel
        self.buffer = b""

    async def line(self):
        loop = asyncio.get_running_loop()
        while b"\n" not in self.buffer:
            try:
                data = await asyncio.wait_for(loop.sock_recv(self.channel, 65536), PATIENCE)
            except ConnectionResetError:
                # It was closed with lines of ours unread.
                return None
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line + b"\n"

    async def lines(self, count):
        return [await self.line() for _ in range(count)]

    def hand_over(self):
        """A client's end of a connection that is handed over."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
        with accepted:
            socket.send_fds(self.channel, [CONNECTION], [accepted.fileno()])
        return client


class Place:
    """Where workers join, a listener that has, and what it has heard of settings."""

    def __init__(self, folder, settings=Settings(slot="w4", keepalive="hand-back")):
        self.path = str(folder / "join.sock")
        self.kept = []
        here, there = socket.socketpair()
        here.setblocking(False)
        self.kept.append(here)
        self.first = Sidetrack(here)
        self.listener = Listener(there, settings, Join(self.path, settings.slot))
        self.heard = []
        self.listener.on_settings = self.heard.append

    def opened(self):
        """The door opens; a new file each time, as sidetrack makes it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        door = socket.socket(socket.AF_UNIX)
        door.bind(self.path)
        door.listen()
        door.setblocking(False)
        self.kept.append(door)
        return door

    async def welcome(self, door, answer=JOINED):
        """Lets one in: what it asked, and the channel."""
        accepted, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(door), PATIENCE)
        accepted.setblocking(False)
        self.kept.append(accepted)
        sidetrack = Sidetrack(accepted)
        asked = json.loads(await sidetrack.line())
        accepted.sendall(json.dumps(answer).encode() + b"\n")
        return asked, sidetrack

    def client(self, sidetrack):
        client = sidetrack.hand_over()
        self.kept.append(client)
        return client

    async def accept(self):
        return await asyncio.wait_for(self.listener.accept(), PATIENCE)

    def close(self):
        self.listener.close()
        self.listener.channel.hang_up()
        for sock in self.kept:
            sock.close()


def with_place(test):
    def run(tmp_path, monkeypatch):
        monkeypatch.setenv("SIDETRACK_SLOT", "w4")

        async def body():
            with none_leak():
                with contextlib.closing(Place(tmp_path)) as place:
                    await test(place)
                # One that was about to come back has been cancelled, and closes what it has.
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        asyncio.run(body())

    run.__name__ = test.__name__
    return run


@with_place
async def test_it_outlives_sidetrack_and_tells_the_next_one_everything(place):
    listener = place.listener
    client = place.client(place.first)
    old = await place.accept()
    listener.sessions.open("ends")
    listener.sessions.open("used", ends=False)
    assert await place.first.lines(4) == [
        wire.READY, wire.ACK, wire.opened("ends"), wire.opened("used", ends=False)]
    accepting = asyncio.create_task(listener.accept())
    place.first.channel.close()

    door = place.opened()
    asked, next_one = await place.welcome(door, {**JOINED, "slot": "w9"})
    assert asked == {"type": "sidetrack:join", "slot": "w4", "pid": os.getpid()}
    assert await next_one.lines(3) == [wire.READY, wire.opened("ends"), wire.opened("used", ends=False)]
    assert (listener.settings.slot, os.environ["SIDETRACK_SLOT"]) == ("w9", "w9")
    assert [settings.slot for settings in place.heard] == ["w9"]

    # The old connection goes on, and is no concern of the new sidetrack's when it closes.
    client.sendall(b"hello")
    assert await asyncio.get_running_loop().sock_recv(old.socket, 10) == b"hello"
    old.close()
    place.client(next_one)
    new = await asyncio.wait_for(accepting, PATIENCE)
    new.close()
    listener.sessions.close("ends")
    listener.sessions.open("late")
    assert await next_one.lines(4) == [
        wire.ACK, wire.closed("ends"), wire.opened("late"), wire.sockets_closed(1)]

    # And again.
    next_one.channel.close()
    asked, last = await place.welcome(place.opened())
    assert asked["slot"] == "w9"
    assert await last.lines(3) == [wire.READY, wire.opened("used", ends=False), wire.opened("late")]


@with_place
async def test_what_begins_and_ends_without_sidetrack_is_told_to_the_next_one(place):
    place.listener.sessions.open("gone")
    place.first.channel.close()
    await asyncio.sleep(0.01)
    assert await place.listener.sessions.flushed() is False
    place.listener.sessions.open("new")
    place.listener.sessions.close("gone")
    _, sidetrack = await place.welcome(place.opened())
    # It was never ready, so that it is not now.
    assert await sidetrack.line() == wire.opened("new")


@with_place
async def test_sessions_come_first_where_clients_make_the_ids(place):
    place.listener.ready()
    place.listener.sessions.open("room", ends=False)
    place.first.channel.close()
    _, sidetrack = await place.welcome(place.opened(), {**JOINED, "session_key": "path:1"})
    assert await sidetrack.lines(2) == [wire.opened("room", ends=False), wire.READY]
    assert place.listener.settings.key == SessionKey("path", "1")


@with_place
async def test_the_idle_time_and_the_tag_are_those_of_the_next_sidetrack(place):
    sessions = place.listener.sessions
    assert (sessions.idle, sessions.tagged("a")) == (IDLE, "a")
    for more, idle, tagged in (
        ({"session_idle": 120, "sid_tag": "w4"}, 120, "w4.a"),
        ({"session_idle": "soon", "sid_tag": None}, IDLE, "a"),
    ):
        place.listener.channel.hang_up()
        _, sidetrack = await place.welcome(place.opened(), {**JOINED, **more})
        sessions.open(f"after {idle}")
        while await sidetrack.line() != wire.opened(f"after {idle}"):
            pass
        assert (sessions.idle, sessions.tagged("a")) == (idle, tagged)


@with_place
async def test_a_sidetrack_that_stops_gets_what_is_on_its_way_and_then_its_worker_goes(place):
    place.client(place.first)
    connection = await place.accept()
    giving = asyncio.create_task(connection.hand_back(b"GET"))
    assert (await place.first.lines(3))[2] == wire.hand_back(b"GET")
    place.client(place.first)
    place.first.channel.sendall(DISCONNECT)
    with await place.accept():
        assert await place.first.line() == wire.ACK
        accepting = asyncio.create_task(place.listener.accept())
        await asyncio.sleep(0.02)
        place.client(place.first)
        with await asyncio.wait_for(accepting, PATIENCE):
            assert await place.first.line() == wire.ACK
            accepting = asyncio.create_task(place.listener.accept())
            place.first.channel.sendall(b'{"cmd":"NODE_HANDLE_ACK"}\n')
            assert await giving is True
            rest = [line async for line in _until_the_end(place.first)]
            assert rest in ([], [wire.sockets_closed(1)])
            asked, sidetrack = await place.welcome(place.opened())
            assert asked["slot"] == "w4" and await sidetrack.line() == wire.READY
    assert not accepting.done()
    accepting.cancel()


async def _until_the_end(sidetrack):
    while (line := await sidetrack.line()) is not None:
        yield line


@with_place
async def test_a_connection_to_be_handed_back_waits_for_the_next_sidetrack(place):
    client = place.client(place.first)
    connection = await place.accept()
    place.client(place.first)
    other = await place.accept()
    place.first.channel.close()
    await asyncio.sleep(0.01)
    assert place.listener.channel.hung_up and place.listener.takes_back
    giving = [asyncio.create_task(connection.hand_back(b"GET")), asyncio.create_task(other.hand_back(b"PUT"))]
    await asyncio.sleep(0)
    # Its number may be somebody else's by then.
    other.close()
    _, sidetrack = await place.welcome(place.opened())
    assert await sidetrack.lines(2) == [wire.READY, wire.hand_back(b"GET")]
    sidetrack.channel.sendall(b'{"cmd":"NODE_HANDLE_ACK"}\n')
    assert [await given for given in giving] == [True, False]
    assert client.recv(1) == b""


@with_place
async def test_but_not_for_ever(place):
    from sidetrack import listener as module

    patience, module.PATIENCE = module.PATIENCE, 0.05
    try:
        place.client(place.first)
        with await place.accept() as connection:
            place.first.channel.close()
            await asyncio.sleep(0.01)
            assert await asyncio.wait_for(connection.hand_back(b"GET"), PATIENCE) is False
            assert not place.listener.takes_back
            assert await connection.hand_back(b"GET") is False
        # Which is no reason not to come back.
        _, sidetrack = await place.welcome(place.opened())
        assert await sidetrack.line() == wire.READY
        assert place.listener.takes_back
    finally:
        module.PATIENCE = patience


@with_place
async def test_one_that_leaves_does_not_come_back(place):
    door = place.opened()
    place.listener.ready()
    place.listener.leave()
    place.first.channel.close()
    assert await place.accept() is None
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.get_running_loop().sock_accept(door), 3 * SHORTEST)


@with_place
async def test_one_may_leave_while_there_is_no_sidetrack(place):
    place.listener.ready()
    place.client(place.first)
    with await place.accept() as connection:
        place.first.channel.close()
        accepting = asyncio.create_task(place.listener.accept())
        await asyncio.sleep(0.01)
        giving = asyncio.create_task(connection.hand_back(b"GET"))
        await asyncio.sleep(0)
        place.listener.leave()
        assert await asyncio.wait_for(accepting, PATIENCE) is None
        # Nobody will take it: to be served here.
        assert await giving is False


@with_place
async def test_what_does_not_answer_as_sidetrack_does_is_asked_again(place):
    place.listener.ready()
    place.first.channel.close()
    door = place.opened()
    for answer in (
        {"type": "sidetrack:refused", "reason": "the slot w4 is taken"},
        {"type": "else"},
        ["sidetrack:joined"],
        {**JOINED, "session_key": "nonsense"},
        {**JOINED, "keepalive": "sometimes"},
        {**JOINED, "slot": "x" * 5000},
    ):
        asked, strange = await place.welcome(door, answer)
        assert asked["slot"] == "w4"
        assert await strange.line() is None
        # The pauses would grow.
        place.listener._join._attempts = 0
    assert place.heard == []
    _, sidetrack = await place.welcome(door)
    assert await sidetrack.line() == wire.READY


def test_what_stands_in_the_way_is_said_once(tmp_path, caplog):
    async def refused_twice():
        with contextlib.closing(Place(tmp_path)) as place:
            place.first.channel.close()
            door = place.opened()
            for _ in range(2):
                await place.welcome(door, {"type": "sidetrack:refused", "reason": "user 7 may not join"})
            await place.welcome(door)

    asyncio.run(refused_twice())
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "user 7 may not join" in record.getMessage()


def test_pauses_grow_and_begin_anew_after_a_channel_that_has_lasted(tmp_path, monkeypatch):
    now = 1000.0
    joining = Join(str(tmp_path / "none"), "w4", clock=lambda: now)
    pauses, news = [], []

    class Told:
        def __init__(self, path):
            pass

        async def wait(self, seconds):
            pauses.append(seconds)
            return news.pop(0)

    async def attempt(slot):
        if news:
            raise ConnectionRefusedError
        return object(), Settings(slot="w4")

    monkeypatch.setattr(join, "Lookout", Told)
    monkeypatch.setattr(joining, "_attempt", attempt)

    def pauses_of(*told):
        pauses.clear()
        news[:] = told
        asyncio.run(joining.again())
        return list(pauses)

    doubling = [SHORTEST * 2**n for n in range(6)]
    assert pauses_of(*[False] * 8) == [*doubling, LONGEST, LONGEST]
    now += PROVEN_AFTER
    assert pauses_of(False, False) == doubling[:2]
    # The channel has ended soon.
    now += PROVEN_AFTER / 2
    assert pauses_of(False) == doubling[2:3]
    assert pauses_of(True, False) == [doubling[3], doubling[0]]


def test_a_slot_that_was_given_is_let_go_after_a_while_and_one_that_was_chosen_never():
    now = 0.0
    for slot, in_the_end in (("w4", None), ("web-1", "web-1"), (None, None)):
        joining = Join("/nowhere", slot, clock=lambda: now)
        now = 0.0
        assert joining.wish(None) == slot
        assert joining.wish(0.0) == slot
        now = SLOT_PATIENCE + 1
        assert joining.wish(0.0) == in_the_end
        assert joining.wish(now) == slot


def test_a_file_that_comes_or_changes_is_noticed_at_once(tmp_path):
    file = tmp_path / "folder" / "join.sock"

    async def watch():
        lookout = Lookout(str(file))
        loop = asyncio.get_running_loop()
        assert await lookout.wait(0.01) is False
        for act in (lambda: (file.parent.mkdir(), file.touch()), lambda: file.chmod(0o600), file.unlink):
            start = loop.time()
            loop.call_later(0.01, act)
            assert await lookout.wait(PATIENCE) is True
            assert loop.time() - start < PATIENCE / 4
        assert await lookout.wait(0.01) is False

    asyncio.run(watch())
