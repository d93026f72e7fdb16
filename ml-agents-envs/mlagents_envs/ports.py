"""Ports of this machine that trainers listen on: whether one is free, and who holds it."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Optional

import psutil

LOOPBACK = "127.0.0.1"
"""The only address that is listened on: no other machine reaches it."""

if sys.platform == "win32":
    _EXCLUSIVE = socket.SO_EXCLUSIVEADDRUSE
else:
    _EXCLUSIVE = socket.SO_REUSEADDR
"""What makes a bind fail exactly where somebody listens, and not where a closed connection lingers."""


def is_free(port: int) -> bool:
    """Return whether nobody listens on a port.

    :raises OSError: this process may not listen on it.
    :raises OverflowError: there is no such port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, _EXCLUSIVE, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a port, or on any free one for 0.

    :raises OSError: somebody else does, among other reasons.
    """
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, _EXCLUSIVE, 1)
        listener.bind((LOOPBACK, port))
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def holder_of(port: int) -> str:
    """Return who listens on a port, as well as it can be seen: ``process 812 (python train.py)``."""
    pid = _listening_pid(port)
    if pid == os.getpid():
        return "this very process, where another environment is still open"
    if pid is None:
        return "another process"
    try:
        return f"process {pid} ({' '.join(psutil.Process(pid).cmdline())})"
    except psutil.Error:
        return f"process {pid}"


def _listening_pid(port: int) -> Optional[int]:
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):  # macOS shows only its administrator the connections of others
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            pid: Optional[int] = connection.pid
            return pid
    return None
