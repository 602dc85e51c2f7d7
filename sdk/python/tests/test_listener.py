"""The listener on one end of a socket pair, sidetrack's hand on the other."""

import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys

import pytest

from descriptors import none_leak
from sidetrack import Listener, wire

CONNECTION = b'{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"type":"sticky:connection","data":""}}\n'
PROBE = b'{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"sidetrack":"probe"}}\n'
DISCONNECT = b'{"cmd":"NODE_CLUSTER","act":"disconnect","seq":1}\n'
PATIENCE = 10


class Fake:
    def __init__(self):
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        self.listener = Listener(theirs)
        self.buffer = b""
        self.server = socket.create_server(("127.0.0.1", 0))
        self.kept = []

    def connect(self, line=CONNECTION):
        """A client's end of a connection that was handed over."""
        client = socket.create_connection(self.server.getsockname())
        accepted, _ = self.server.accept()
        with accepted:
            self.send(line, accepted.fileno())
        self.kept.append(client)
        return client

    def send(self, line, descriptor=None):
        if descriptor is None:
            self.channel.sendall(line)
        else:
            socket.send_fds(self.channel, [line], [descriptor])

    async def lines(self, count):
        """Waits for so many lines."""
        while self.buffer.count(b"\n") < count:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.channel, 65536), PATIENCE)
            assert data, self.buffer
            self.buffer += data
        *lines, self.buffer = self.buffer.split(b"\n", count)
        return [line + b"\n" for line in lines]

    async def accept(self):
        return await asyncio.wait_for(self.listener.accept(), PATIENCE)

    def close(self):
        self.listener.channel.hang_up()
        for sock in (self.channel, self.server, *self.kept):
            sock.close()


def with_fake(test):
    def run():
        async def body():
            with none_leak(), contextlib.closing(Fake()) as fake:
                await test(fake)

        asyncio.run(body())

    run.__name__ = test.__name__
    return run


@with_fake
async def test_a_connection_comes_with_its_bytes_unread_and_its_address(fake):
    client = fake.connect()
    client.sendall(b"hello")
    with await fake.accept() as connection:
        assert connection.peer == client.getsockname()
        assert (connection.data, connection.final) == (b"", False)
        assert not connection.socket.getblocking() and not connection.socket.get_inheritable()
        assert await fake.lines(2) == [wire.READY, wire.ACK]
        assert await asyncio.get_running_loop().sock_recv(connection.socket, 10) == b"hello"
    assert await fake.lines(1) == [wire.sockets_closed(1)]
    assert client.recv(1) == b""


@with_fake
async def test_a_replay_comes_along(fake):
    fake.connect(b'{"cmd":"NODE_HANDLE","msg":{"sidetrack":{"data":"R0VU","final":true}}}\n')
    with await fake.accept() as connection:
        assert (connection.data, connection.final) == (b"GET", True)


@with_fake
async def test_a_probe_is_a_connection_that_is_not_counted(fake):
    here, there = socket.socketpair()
    fake.send(PROBE, there.fileno())
    there.close()
    with here, await fake.accept() as connection:
        assert connection.peer is None
    fake.connect()
    (await fake.accept()).close()
    assert await fake.lines(4) == [wire.READY, wire.ACK, wire.ACK, wire.sockets_closed(1)]


@with_fake
async def test_messages_may_be_joined_or_cut_anywhere(fake):
    for cut in range(1, len(CONNECTION)):
        here, there = socket.socketpair()
        with here:
            here.sendall(bytes([cut % 256]))
            front, back = b'{"a":1}\n"text"\nrubbish\n' + CONNECTION[:cut], CONNECTION[cut:]
            # The descriptor may ride on either part.
            fake.send(front, there.fileno() if cut % 2 else None)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(fake.listener.accept(), 0.001)
            fake.send(back, None if cut % 2 else there.fileno())
            there.close()
            with await fake.accept() as connection:
                assert connection.socket.recv(1) == bytes([cut % 256])


@with_fake
async def test_what_is_no_connection_is_refused_and_accepting_goes_on(fake):
    fake.send(CONNECTION)
    reader, writer = os.pipe()
    fake.send(CONNECTION, reader)
    fake.send(b'{"cmd":"NODE_HANDLE","msg":{"sidetrack":{"data":"%"}}}\n', reader)
    os.close(reader)
    fake.connect()
    (await fake.accept()).close()
    assert await fake.lines(5) == [wire.READY, wire.NACK, wire.NACK, wire.NACK, wire.ACK]
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"nobody reads")
    os.close(writer)


@with_fake
async def test_a_descriptor_nobody_spoke_of_is_closed(fake):
    reader, writer = os.pipe()
    fake.send(b'{"type":"stray"}\n', writer)
    os.close(writer)
    fake.connect()
    (await fake.accept()).close()
    assert os.read(reader, 1) == b""
    os.close(reader)


@with_fake
async def test_at_the_limit_a_connection_is_refused_and_the_next_not_mistaken_for_it(fake):
    fake.listener.ready()
    here, there = socket.socketpair()
    lost, _other = socket.socketpair()
    # In two parts, so that the line of the lost descriptor ends in the read that brings the next.
    fake.send(CONNECTION[:10], lost.fileno())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(fake.listener.accept(), 0.05)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    fake.send(CONNECTION[10:])
    fake.send(CONNECTION, there.fileno())
    here.sendall(b"!")
    with await fake.accept() as connection:
        assert connection.socket.recv(1) == b"!"
    assert await fake.lines(3) == [wire.READY, wire.NACK, wire.ACK]
    for sock in (here, there, lost, _other):
        sock.close()


@with_fake
async def test_connections_closed_together_are_reported_together(fake):
    connections = []
    for _ in range(10):
        fake.connect()
        connections.append(await fake.accept())
    assert fake.listener.open == 10
    for connection in connections:
        connection.close()
        connection.close()
    assert fake.listener.open == 0
    assert (await fake.lines(12))[11:] == [wire.sockets_closed(10)]


@with_fake
async def test_a_full_channel_delays_connections_and_announcements_but_loses_none(fake):
    fake.listener.ready()
    sessions, count = fake.listener.sessions, 0
    while True:
        sessions.open(f"s{count}")
        count += 1
        try:
            await asyncio.wait_for(sessions.flushed(), 0.02)
        except asyncio.TimeoutError:
            break
    fake.connect()
    for _ in range(3):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(fake.listener.accept(), 0.005)
    connection, lines = await asyncio.gather(fake.accept(), fake.lines(count + 2))
    connection.close()
    assert [json.loads(line)["sid"] for line in lines[1:-1]] == [f"s{number}" for number in range(count)]
    assert lines[-1] == wire.ACK


@with_fake
async def test_the_iteration_ends_after_what_came_before(fake):
    fake.connect()
    fake.send(DISCONNECT)
    async with fake.listener as listener:
        connections = [connection async for connection in listener]
    assert len(connections) == 1
    listener.sessions.open("late")
    connections[0].close()
    assert await fake.lines(4) == [wire.READY, wire.ACK, wire.opened("late"), wire.sockets_closed(1)]


@with_fake
async def test_a_listener_that_leaves_takes_what_was_on_its_way(fake):
    fake.listener.ready()
    fake.listener.leave()
    fake.listener.leave()
    fake.connect()
    (await fake.accept()).close()
    fake.send(b'{"cmd":"NODE_CLUSTER","ack":0,"seq":5}\n')
    assert await fake.accept() is None
    fake.connect()
    assert await fake.lines(5) == [wire.READY, wire.LEAVING, wire.ACK, wire.NACK, wire.sockets_closed(1)]


@with_fake
async def test_a_closed_listener_says_so_and_gives_back_what_comes_late(fake):
    async with fake.listener as listener:
        listener.ready()
        fake.connect()
    assert await fake.lines(3) == [wire.READY, wire.LEAVING, wire.NACK]


@with_fake
async def test_the_end_of_sidetrack_is_the_end_of_connections(fake):
    client = fake.connect()
    fake.channel.close()
    # Its acknowledgement cannot leave any more, so it may be another worker's by now.
    assert await fake.accept() is None
    assert client.recv(1) == b""
    fake.listener.sessions.open("nobody listens")
    assert await fake.listener.sessions.flushed() is False


@with_fake
async def test_an_endless_line_is_an_end(fake):
    async def flood():
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.get_running_loop().sock_sendall(fake.channel, b"x" * 65536)

    flooding = asyncio.create_task(flood())
    assert await fake.accept() is None
    await flooding


@with_fake
async def test_a_connection_can_be_handed_back(fake):
    client = fake.connect()
    connection = await fake.accept()
    giving = asyncio.create_task(connection.hand_back(b"GET"))
    assert (await fake.lines(3))[2] == wire.hand_back(b"GET")
    assert not giving.done() and connection.socket.fileno() >= 0
    fake.send(b'{"cmd":"NODE_HANDLE_NACK"}\n')
    assert await giving is False and connection.socket.fileno() >= 0
    giving = asyncio.create_task(connection.hand_back())
    await fake.lines(1)
    fake.send(b'{"cmd":"NODE_HANDLE_ACK"}\n')
    assert await giving is True and connection.socket.fileno() == -1
    assert await fake.lines(1) == [wire.sockets_closed(1)]
    # Fake.lines reads without taking descriptors, so the copies in the messages are gone as well.
    assert client.recv(1) == b""


def from_env(fd, **more):
    code = "from sidetrack.listener import channel_from_env as c\nprint(c())\ntry: c()\nexcept Exception as e: print(e)"
    environment = {**os.environ, **({} if fd is None else {"NODE_CHANNEL_FD": str(fd)})}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, **more
    )


def test_the_channel_is_inherited_once():
    here, there = socket.socketpair()
    with here, there:
        ran = from_env(there.fileno(), pass_fds=[there.fileno()])
    assert ran.returncode == 0, ran.stderr
    assert "already in use" in ran.stdout


def test_a_program_without_a_channel_says_how_to_get_one():
    assert "sidetrack run --" in from_env(None).stderr
    assert "is not a descriptor number" in from_env("x").stderr
    assert "not open" in from_env(1_000_000).stderr
    with open("/dev/null") as file:
        assert "is /dev/null, not the channel" in from_env(file.fileno(), pass_fds=[file.fileno()]).stderr
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        assert "a socket of another kind" in from_env(tcp.fileno(), pass_fds=[tcp.fileno()]).stderr
