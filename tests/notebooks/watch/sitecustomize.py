"""With this folder on $PYTHONPATH, every Python process of a run writes down in $WATCH_LOG what it connects to and what
it writes, and connections beyond this machine are refused. One line each: kind, tab, address or path."""

import os
import socket
import sys

_log = os.open(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_HERE = (socket.AF_UNIX, getattr(socket, "AF_NETLINK", None))
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _note(kind, what):
    os.write(_log, f"{kind}\t{what}\n".encode())


def _path(path):
    return os.path.abspath(os.fsdecode(path))


def _network(kind, host):
    host = host.decode() if isinstance(host, bytes) else host
    loopback = host in (None, "", "localhost", "::1") or str(host).startswith("127.")
    _note("loopback" if loopback else "beyond", f"{kind} {host}")
    if not loopback:
        raise ConnectionRefusedError(f"{kind} {host}: refused by the test")


def _watch(event, values):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
        if values[0].family not in _HERE and values[1] is not None:
            _network(event, values[1][0])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        _network(event, values[0])
    elif event == "open":
        if values[2] & _WRITES and not isinstance(values[0], int):
            _note("write", _path(values[0]))
    elif event in ("os.mkdir", "sqlite3.connect"):
        if values[0] != ":memory:":
            _note("write", _path(values[0]))
    elif event in ("os.rename", "os.link", "os.symlink"):
        _note("write", _path(values[1]))


sys.addaudithook(_watch)
_note("process", " ".join(sys.orig_argv))
