"""A worker that speaks sidetrack's channel by itself: newline-delimited JSON, descriptors beside it.

    worker.py [BEHAVIOUR...]

Without a behaviour, and in every slot but w0, it is a good worker. In slot w0:

    never-ack         takes connections and never says so
    slow-ack=MS       says so late
    nack              says that the descriptor was lost, each time
    nack=N            the same for the first N
    exit-before-ack   ends at its first connection, without a word
    reads-nothing     is ready and never reads its channel
    rubbish=N         says N lines that are not JSON, once it is ready
    rubbish           goes on doing so
    unearned=N        acknowledges N connections that it never got
    descriptors=N     sends N descriptors that nobody asked for
    handles=N         the same as messages, as Node sends a socket to its parent
    oversized         says a line that does not end

What it serves, with `Connection: close` unless the client asks for `keep-alive`:

    /pid              {"pid": ..., "slot": ...}
    /open/SID         the same, after announcing that session
    /close/SID        the same, after announcing its end
    /hold             the same, and keeps the connection until the client leaves
    /back/HOW         hands the connection back, in a wrong way:
                      not-base64, no-descriptor, unknown-key, not-a-socket or bad-head;
                      or with a part of the next head: half-a-head or half-a-line
    anything else     the same as /pid, with length and SHA-1 of the body

A request with `?sid=SID` of a session that was not opened here is handed back, unless it is the first
of a connection that stays (`final`).
"""

import base64
import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
from urllib.parse import parse_qsl

SLOT = os.environ["SIDETRACK_SLOT"]
BAD = dict((word.split("=", 1) + [""])[:2] for word in sys.argv[1:]) if SLOT == "w0" else {}

channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
channel.setblocking(True)
saying = threading.Lock()
kept = []
serving = []
sessions = set()


def say(message):
    say_bytes(json.dumps(message).encode() + b"\n")


def say_bytes(data, descriptors=()):
    with saying:
        try:
            sent = socket.send_fds(channel, [data], descriptors) if descriptors else 0
            channel.sendall(data[sent:])
        except OSError:
            pass


def acknowledge():
    say({"cmd": "NODE_HANDLE_ACK"})


def hand_back(client, read, **wrong):
    message = {"type": "sidetrack:hand-back", "data": base64.b64encode(read).decode()}
    message.update(wrong)
    line = json.dumps({"cmd": "NODE_HANDLE", "type": "net.Socket", "msg": message}).encode() + b"\n"
    say_bytes(line, [client] if client is not None else ())


def hand_back_wrongly(how, client, data):
    if how == "not-base64":
        hand_back(client.fileno(), data, data="%")
    elif how == "no-descriptor":
        hand_back(None, data)
    elif how == "unknown-key":
        hand_back(client.fileno(), data, key="nobody's")
    elif how == "not-a-socket":
        hand_back(1, data)
    elif how == "bad-head":
        hand_back(client.fileno(), b"this is not a request\r\n\r\n")
    elif how == "half-a-head":
        hand_back(client.fileno(), b"GET /pid HTTP/1.1\r\nConnection: keep-alive\r\n")
    elif how == "half-a-line":
        hand_back(client.fileno(), b"GET /pid HTTP/1.1\r\nConnection: keep-alive\r\nHo")


def serve(client, data, stays):
    """Serves a connection of which `data` has been read."""
    try:
        client.setblocking(True)
        while True:
            while b"\r\n\r\n" not in data:
                piece = client.recv(65536)
                if not piece:
                    return
                data += piece
            head, rest = data.split(b"\r\n\r\n", 1)
            path, _, query = head.split(b" ")[1].decode().partition("?")
            sids = {value for name, value in parse_qsl(query) if name == "sid" and "\ufffd" not in value}
            if len(sids) == 1 and not sids & sessions and not stays:
                return hand_back(client.fileno(), data)
            stays = False
            what, _, name = path[1:].partition("/")
            if what == "back":
                return hand_back_wrongly(name, client, data)
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            length = int(length.group(1)) if length else 0
            while len(rest) < length:
                piece = client.recv(65536)
                if not piece:
                    return
                rest += piece
            body, data = rest[:length], rest[length:]
            if what == "open":
                sessions.add(name)
                say({"type": "sidetrack:opened", "sid": name})
            elif what == "close":
                sessions.discard(name)
                say({"type": "sidetrack:closed", "sid": name})
            facts = {"pid": os.getpid(), "slot": SLOT, "bytes": length, "sha1": hashlib.sha1(body).hexdigest()}
            answer = json.dumps(facts).encode()
            keep = re.search(rb"(?i)connection: *keep-alive", head)
            client.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s"
                % (len(answer), b"keep-alive" if keep else b"close", answer)
            )
            while what == "hold" and client.recv(65536):
                pass
            if not keep:
                return
    except OSError:
        pass
    finally:
        client.close()
        say({"type": "sidetrack:sockets-closed", "count": 1})


def take(descriptor, luggage):
    if "exit-before-ack" in BAD:
        os._exit(7)
    if "never-ack" in BAD:
        kept.append(descriptor)
        return
    if "nack" in BAD and BAD["nack"] != "0":
        if BAD["nack"]:
            BAD["nack"] = str(int(BAD["nack"]) - 1)
        os.close(descriptor)
        say({"cmd": "NODE_HANDLE_NACK"})
        return
    if "slow-ack" in BAD:
        time.sleep(int(BAD["slow-ack"]) / 1000)
    acknowledge()
    arguments = (socket.socket(fileno=descriptor), base64.b64decode(luggage.get("data", "")), luggage.get("final", False))
    thread = threading.Thread(target=serve, args=arguments, daemon=True)
    serving.append(thread)
    thread.start()


def misbehave():
    for _ in range(int(BAD.get("unearned") or 0)):
        acknowledge()
    for _ in range(int(BAD.get("descriptors") or 0)):
        say_bytes(b'{"type":"here is something"}\n', [1])
    for _ in range(int(BAD.get("handles") or 0)):
        say_bytes(b'{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"mine":true}}\n', [1])
    for _ in range(int(BAD.get("rubbish") or 0)):
        say_bytes(b"this is not JSON\n")
    if "oversized" in BAD:
        for _ in range(17):
            say_bytes(b"x" * 1024 * 1024)
    if BAD.get("rubbish") == "":
        while True:
            say_bytes(b"this is not JSON\n" * 10)
            time.sleep(0.01)


def listen():
    buffer, descriptors = b"", []
    while True:
        data, received, _, _ = socket.recv_fds(channel, 65536, 16)
        if not data:
            return
        descriptors += received
        buffer += data
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            message = json.loads(line)
            if message.get("cmd") == "NODE_HANDLE":
                luggage = message["msg"].get("sidetrack", {})
                take(descriptors.pop(0), {} if luggage == "probe" else luggage)
            elif message.get("act") == "disconnect":
                return


say({"type": "sidetrack:ready", "replays": True})
threading.Thread(target=misbehave, daemon=True).start()
if "reads-nothing" in BAD:
    threading.Event().wait()
listen()
for thread in serving:
    thread.join()
