"""Real python-socketio clients."""

import asyncio
import json
import threading

import httpx
import pytest
import socketio
from client import Client, post


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], ["polling", "websocket"]], ids="-".join)
def test_clients_stay_with_their_worker(start, transports):
    host = start("apps:socketio_app", "--no-access-log", workers=2)

    async def visit(number):
        client = socketio.AsyncClient(reconnection=False)
        await client.connect(host.url, transports=transports)
        answers = [await client.call("echo", {"n": n, "b": bytes(1000)}, timeout=10) for n in range(5)]
        assert client.transport() == transports[-1]
        await client.disconnect()
        assert [answer[1]["n"] for answer in answers] == list(range(5))
        (pid,) = {answer[0] for answer in answers}
        return pid

    async def visit_all():
        return await asyncio.gather(*map(visit, range(12)))

    pids = asyncio.run(visit_all())
    assert set(pids) == {worker.process.pid for worker in host.workers}
    # Every session was announced, once, and every end too.
    host.wait(lambda: not host.owners, 30)
    opened = [line["sid"] for worker in host.workers for line in worker.lines if line.get("type") == "sidetrack:opened"]
    assert len(opened) == len(set(opened)) == 12


@pytest.mark.parametrize(
    "transports, key, tagged",
    [(["polling"], "query:sid", True), (["websocket"], "query:sid", True), (["polling"], "header:X-Session", False)],
)
def test_ids_begin_with_the_tag_where_sidetrack_wants_that(start, transports, key, tagged):
    env = {"SIDETRACK_SID_TAG": "w0", "SIDETRACK_SESSION_KEY": key}
    host = start("apps:socketio_app", "--no-access-log", env=env)

    async def visit():
        client = socketio.AsyncClient(reconnection=False)
        await client.connect(host.url, transports=transports)
        sids = client.eio.sid, client.get_sid()
        assert (await client.call("echo", 1, timeout=10))[1] == 1
        await client.disconnect()
        return sids

    sid, in_namespace = asyncio.run(visit())
    assert sid.startswith("w0.") == tagged and sid.count(".") == tagged
    # That one is in no request.
    assert "." not in in_namespace
    if tagged:
        host.wait(lambda: sid in host.seen)


def handshake(client, url):
    answer = client.get(url + "/socket.io/?EIO=4&transport=polling")
    assert answer.status_code == 200
    return json.loads(answer.text[1:])


def test_many_polling_sessions_on_one_pooled_connection(start):
    host = start("apps:socketio_app", "--no-access-log", workers=2)
    with httpx.Client(limits=httpx.Limits(max_connections=1), timeout=20) as client:
        sids = [handshake(client, host.url)["sid"] for _ in range(6)]
        # So that both workers have some, which one connection alone does not see to.
        for _ in range(4):
            with httpx.Client() as other:
                sids.append(handshake(other, host.url)["sid"])
        assert len({host.owner(sid) for sid in sids}) == 2
        statuses = []
        for _ in range(3):
            for sid in sids:
                url = f"{host.url}/socket.io/?EIO=4&transport=polling&sid={sid}"
                statuses.append(client.post(url, content="40").status_code)
                statuses.append(client.get(url).status_code)
        assert set(statuses) == {200}, statuses
        # The largest post that python-engineio takes.
        for sid in sids:
            url = f"{host.url}/socket.io/?EIO=4&transport=polling&sid={sid}"
            packet = '42["echo","' + "x" * 999_900 + '"]'
            assert client.post(url, content=packet).status_code == 200
        assert host.handed_back > len(sids)


def test_a_session_may_be_used_as_soon_as_it_is_known(start):
    host = start("apps:socketio_app", "--no-access-log", workers=2)
    # No patience: it has to have been announced before the client was told.
    import host as module

    failed, finished = [], []

    def visit():
        for _ in range(50):
            with Client(host.connect()) as first, Client(host.connect()) as second:
                sid = json.loads(first.get("/socket.io/?EIO=4&transport=polling").body[1:])["sid"]
                second.send(post(f"/socket.io/?EIO=4&transport=polling&sid={sid}", b"40"))
                if second.read().status != 200:
                    failed.append(sid)
        finished.append(True)

    hold, module.HOLD = module.HOLD, 0.0
    try:
        threads = [threading.Thread(target=visit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        module.HOLD = hold
    assert not failed and len(finished) == 4


def test_an_unknown_session_gets_python_engineios_own_answer(start):
    host = start("apps:socketio_app", workers=2)
    with Client(host.connect()) as client:
        answer = client.get("/socket.io/?EIO=4&transport=polling&sid=unknown")
        assert (answer.status, answer.body) == (400, b'"Invalid session unknown"')


def test_an_abandoned_long_poll_does_not_keep_a_worker_alive(start):
    host = start("apps:socketio_app")
    worker = host.workers[0]
    with httpx.Client() as client:
        sid = handshake(client, host.url)["sid"]
    with Client(host.connect()) as client:
        client.send(f"GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        host.wait(lambda: worker.handed_off == 2)
        host.call(worker.disconnect)
    assert worker.process.wait(10) == 0
