"""Plays systemd: opens sockets, passes them from number 3 on, and becomes a program.

    activate.py NAME=tcp:HOST:PORT NAME=unix:PATH ... -- PROGRAM ARGUMENT...

In the program's arguments {NAME} stands for the port of that socket. `udp:HOST:PORT` and `idle:HOST:PORT`, a
socket that does not listen, are what no service is passed on purpose.
"""

import os
import socket
import sys


def opened(address):
    kind, _, rest = address.partition(":")
    if kind == "unix":
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(rest)
        unix.listen()
        return unix
    host, _, port = rest.rpartition(":")
    inet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    inet.bind((host, int(port)))
    if kind == "tcp":
        inet.listen()
    return inet


split = sys.argv.index("--")
names, command = [], sys.argv[split + 1 :]
# Out of the way of the numbers they are to have.
high = 100
for spec in sys.argv[1:split]:
    name, _, address = spec.partition("=")
    one = opened(address)
    if one.family == socket.AF_INET:
        command = [word.replace("{%s}" % name, str(one.getsockname()[1])) for word in command]
    os.dup2(one.fileno(), high + len(names))
    one.close()
    names.append(name)
for place in range(len(names)):
    os.dup2(high + place, 3 + place)
    os.close(high + place)
    os.set_inheritable(3 + place, True)
os.environ.update(LISTEN_FDS=str(len(names)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=":".join(names))
os.execv(command[0], command)
