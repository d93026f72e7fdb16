"""Whether a port is free, and who holds it."""

import socket
import subprocess
import sys

import pytest

from mlagents_envs import ports


@pytest.fixture
def listener():
    """A socket on which this process listens, set up as servers are."""
    with socket.socket() as server:
        if sys.platform != "win32":
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ports.LOOPBACK, 0))
        server.listen()
        yield server


def test_a_port_is_free_until_somebody_listens(listener):
    port = listener.getsockname()[1]
    assert not ports.is_free(port)
    listener.close()
    assert ports.is_free(port)


def test_a_port_is_free_while_a_closed_connection_lingers(listener):
    port = listener.getsockname()[1]
    client = socket.create_connection((ports.LOOPBACK, port))
    accepted, _ = listener.accept()
    accepted.close()  # the side that closes first keeps the port in TIME_WAIT
    client.close()
    listener.close()
    assert ports.is_free(port)


def test_no_port_at_all_is_an_overflow():
    with pytest.raises(OverflowError):
        ports.is_free(65536)


def test_the_holder_is_this_process(listener):
    assert ports.holder_of(listener.getsockname()[1]).startswith("this very process")


def test_the_holder_is_another_process():
    code = (
        "import socket, sys; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        port = int(holder.stdout.readline())
        found = ports.holder_of(port)
        holder.stdin.close()
    assert found.startswith(f"process {holder.pid} ({sys.executable} -c import socket")


def test_nobody_to_be_seen_is_another_process(listener):
    port = listener.getsockname()[1]
    listener.close()
    assert ports.holder_of(port) == "another process"
