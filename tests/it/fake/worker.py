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

What it serves, always with `Connection: close`:

    /pid              {"pid": ..., "slot": ...}
    /open/SID         the same, after announcing that session
    /close/SID        the same, after announcing its end
    /hold             the same, and keeps the connection until the client leaves
    anything else     the same as /pid, whatever the path
"""

import json
import os
import re
import socket
import sys
import threading
import time

SLOT = os.environ["SIDETRACK_SLOT"]
BAD = dict((word.split("=", 1) + [""])[:2] for word in sys.argv[1:]) if SLOT == "w0" else {}

channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
channel.setblocking(True)
saying = threading.Lock()
kept = []
serving = []


def say(message):
    say_bytes(json.dumps(message).encode() + b"\n")


def say_bytes(data, descriptors=()):
    with saying:
        try:
            if descriptors:
                socket.send_fds(channel, [data], descriptors)
            else:
                channel.sendall(data)
        except OSError:
            pass


def acknowledge():
    say({"cmd": "NODE_HANDLE_ACK"})


def serve(client):
    try:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.recv(65536)
            if not piece:
                return
            data += piece
        head, body = data.split(b"\r\n\r\n", 1)
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        missing = int(length.group(1)) - len(body) if length else 0
        while missing > 0:
            piece = client.recv(65536)
            if not piece:
                return
            missing -= len(piece)
        path = head.split(b" ")[1].decode().partition("?")[0]
        what, _, sid = path[1:].partition("/")
        if what == "open":
            say({"type": "sidetrack:opened", "sid": sid})
        elif what == "close":
            say({"type": "sidetrack:closed", "sid": sid})
        answer = json.dumps({"pid": os.getpid(), "slot": SLOT}).encode()
        client.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (len(answer), answer)
        )
        while what == "hold" and client.recv(65536):
            pass
    except OSError:
        pass
    finally:
        client.close()
        say({"type": "sidetrack:sockets-closed", "count": 1})


def take(descriptor):
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
    thread = threading.Thread(target=serve, args=(socket.socket(fileno=descriptor),), daemon=True)
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
                take(descriptors.pop(0))
            elif message.get("act") == "disconnect":
                return


say({"type": "sidetrack:ready"})
threading.Thread(target=misbehave, daemon=True).start()
if "reads-nothing" in BAD:
    threading.Event().wait()
listen()
for thread in serving:
    thread.join()
