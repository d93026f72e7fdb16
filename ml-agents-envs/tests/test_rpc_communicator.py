"""The trainer's end of gRPC, against clients that speak gRPC as environments do."""

import contextlib
import select
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest

from mlagents_envs import ports
from mlagents_envs.communicator_objects.header_pb2 import HeaderProto
from mlagents_envs.communicator_objects.unity_input_pb2 import UnityInputProto
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.communicator_objects.unity_rl_initialization_input_pb2 import UnityRLInitializationInputProto
from mlagents_envs.communicator_objects.unity_rl_input_pb2 import UnityRLInputProto
from mlagents_envs.exception import UnityEnvironmentException, UnityTimeOutException, UnityWorkerInUseException
from mlagents_envs.rpc_communicator import RpcCommunicator
from mlagents_envs.wire.http2 import PREFACE

WAIT_S = 20
REQUESTS = [  # frames of the first two calls, with the message "ok"
    b"\x00\x00\x00\x01\x04\x00\x00\x00%c\x00\x00\x07\x00\x01\x00\x00\x00%c\x00\x00\x00\x00\x02ok" % (call, call)
    for call in (1, 3)
]


class Client:
    """An environment's end: `send` does not wait for the answer, which `result` of what it returns gives."""

    def __init__(self, port):
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(f"localhost:{port}", options=options)
        self._exchange = self.channel.unary_unary("/communicator_objects.UnityToExternalProto/Exchange")
        self._calls = []  # one that nobody holds is cancelled

    def send(self, message):
        self._calls.append(self._exchange.future(message, timeout=WAIT_S, wait_for_ready=True))
        return self._calls[-1]

    def close(self):
        self.channel.close()


@pytest.fixture
def communicator():
    """The trainer's end, on a port of its own."""
    made = RpcCommunicator(base_port=_free_port(), timeout_wait=WAIT_S, any_port=True)
    yield made
    made.close()


@pytest.fixture
def connect():
    """A function that returns a new client at a communicator's port."""
    clients = []

    def make(communicator):
        clients.append(Client(communicator.port))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def _free_port():
    with socket.socket() as probe:
        probe.bind((ports.LOOPBACK, 0))
        return probe.getsockname()[1]


def _message(status, **content):
    return UnityMessageProto(header=HeaderProto(status=status), **content).SerializeToString()


# Exchanges


@pytest.mark.parametrize("size", [0, 1, 20_000_000])
def test_bytes_arrive_as_they_were_sent(communicator, connect, size):
    client = connect(communicator)
    there, back = b"\xff\x00a" * (size // 3), b"\x01" * size
    answer = client.send(there)
    assert communicator.receive_message() == there
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(communicator.exchange_message, back)
        assert answer.result() == back
        client.send(b"next")
        assert following.result() == b"next"


def test_messages_as_objects(communicator, connect):
    client = connect(communicator)
    introduction = UnityInputProto(rl_initialization_input=UnityRLInitializationInputProto(seed=7))
    order = UnityInputProto(rl_input=UnityRLInputProto(side_channel=b"abc"))
    first = _message(200)
    greeting = UnityMessageProto.FromString(first)
    greeting.unity_output.rl_initialization_output.name = "Scene"

    def environment():
        answers = [client.send(greeting.SerializeToString()).result(), client.send(first).result()]
        client.send(_message(400))
        return [UnityMessageProto.FromString(answer) for answer in answers]

    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(environment)
        assert communicator.initialize(introduction).rl_initialization_output.name == "Scene"
        assert communicator.exchange(order) is None
        assert [answer.unity_input for answer in answers.result()] == [introduction, order]
        assert {answer.header.status for answer in answers.result()} == {200}


def test_a_second_client_is_turned_away_and_the_first_goes_on(communicator, connect):
    first, second = connect(communicator), connect(communicator)
    answer = first.send(b"one")
    assert communicator.receive_message() == b"one"
    for refused in (second.send(b"two"), first.send(b"does not wait for its turn")):
        while not refused.done():
            assert communicator.receive_message() == b"one"
        assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert refused.details() == "Another environment uses this port of the trainer."
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(communicator.exchange_message, b"reply")
        assert answer.result() == b"reply"
        first.send(b"three")
        assert following.result() == b"three"


def test_who_only_connects_or_speaks_nonsense_is_not_the_environment(communicator, connect, capsys):
    address = (ports.LOOPBACK, communicator.port)
    with socket.create_connection(address), socket.create_connection(address) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client = connect(communicator)
        answer = client.send(b"one")
        assert communicator.receive_message() == b"one"
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(communicator.exchange_message, b"reply")
            browser.settimeout(WAIT_S)
            with contextlib.suppress(ConnectionResetError):
                while browser.recv(1000):  # until it is disconnected
                    pass
            assert answer.result() == b"reply"
            client.send(b"two")
            assert following.result() == b"two"
    assert "[WARNING] Somebody who connected to the trainer was disconnected: it does not speak HTTP/2." in (
        capsys.readouterr().out
    )


# Ends


def test_silence_is_a_time_out(communicator):
    communicator.timeout_wait = 0.05
    polls = []
    with pytest.raises(UnityTimeOutException, match=rf"on port {communicator.port} sent no message within 0\.05 s"):
        communicator.receive_message(lambda: polls.append(1))
    assert polls


def test_what_the_poll_callback_raises_ends_the_wait(communicator):
    with pytest.raises(ZeroDivisionError):
        communicator.receive_message(lambda: 1 / 0)


def test_a_user_may_take_any_time_to_press_play_but_not_to_answer(connect):
    communicator = RpcCommunicator(base_port=_free_port(), timeout_wait=0, waits_for_user=True)
    client = connect(communicator)
    polls = []

    def poll():
        polls.append(1)
        if len(polls) == 2:
            client.send(b"Play")

    try:
        assert communicator.receive_message(poll) == b"Play"
        assert len(polls) >= 2
        with pytest.raises(UnityTimeOutException):
            communicator.exchange_message(b"reply")
    finally:
        communicator.close()


def test_a_connection_that_drops_while_the_trainer_thinks_is_noticed(communicator, connect):
    client = connect(communicator)
    client.send(b"one")
    communicator.receive_message()
    client.close()
    assert communicator.exchange_message(b"reply") is None
    assert communicator.exchange_message(b"again") is None


def test_a_connection_that_drops_while_the_environment_simulates_is_noticed(communicator, connect):
    client = connect(communicator)
    answer = client.send(b"one")
    communicator.receive_message()
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(communicator.exchange_message, b"reply")
        assert answer.result() == b"reply"
        client.close()
        assert following.result(timeout=WAIT_S / 2) is None


def test_a_call_that_is_cancelled_while_the_trainer_thinks_is_noticed(communicator, connect):
    client = connect(communicator)
    call = client.send(b"one")
    communicator.receive_message()
    call.cancel()
    instead = client.send(b"instead")  # once this has been refused, what was sent before it has arrived
    while not instead.done():
        communicator.receive_message()
    assert communicator.exchange_message(b"reply") is None


def test_a_message_that_comes_with_the_end_of_the_connection_is_received(communicator):
    with socket.create_connection((ports.LOOPBACK, communicator.port)) as client:
        client.sendall(PREFACE + REQUESTS[0])
    assert communicator.receive_message() == b"ok"
    assert communicator.exchange_message(b"reply") is None


def test_a_message_before_nonsense_is_received(communicator):
    half_a_setting = b"\x00\x00\x02\x04\x00\x00\x00\x00\x00ab"
    with socket.create_connection((ports.LOOPBACK, communicator.port)) as client:
        client.sendall(PREFACE + REQUESTS[0] + half_a_setting)
        assert communicator.receive_message() == b"ok"
        assert communicator.exchange_message(b"reply") is None


@pytest.fixture
def half_a_message(communicator):
    """A client that has sent half a message while nobody listened, until the message was late."""
    with socket.create_connection((ports.LOOPBACK, communicator.port)) as client:
        client.sendall(PREFACE + REQUESTS[0])
        communicator.receive_message()
        communicator.send_message(b"reply")
        assert not communicator.await_message(0.0)
        communicator._deadline_s = 0.0  # long ago
        client.sendall(REQUESTS[1][:-5])
        assert select.select([communicator.server._client.socket], [], [], WAIT_S)[0]
        yield lambda: client.sendall(REQUESTS[1][-5:])


def test_a_message_that_began_to_come_while_nobody_listened_is_not_late(communicator, half_a_message):
    polls = iter([half_a_message])
    assert communicator.receive_message(lambda: next(polls)()) == b"ok"


def test_a_message_that_began_to_come_and_does_not_go_on_is_late_after_all(communicator, half_a_message):
    communicator.timeout_wait = 0.05
    with pytest.raises(UnityTimeOutException):
        communicator.receive_message()


def test_an_environment_that_does_not_hang_up_delays_the_end_by_a_second_at_most(communicator):
    with socket.create_connection((ports.LOOPBACK, communicator.port)) as client:
        client.sendall(PREFACE + REQUESTS[0])
        communicator.receive_message()
        communicator.close()
        received = b""
        while data := client.recv(1000):
            received += data
    assert received.endswith(b"\x00\x0bgrpc-status\x010")
    assert _message(400) in received


def test_closing_says_goodbye_and_gives_the_port_free(communicator, connect):
    client = connect(communicator)
    answer = client.send(b"one")
    communicator.receive_message()
    assert communicator.is_open
    communicator.close()
    communicator.close()
    assert not communicator.is_open
    assert answer.result() == _message(400)
    assert ports.is_free(communicator.port)


def test_closing_gives_the_port_free_even_if_it_is_interrupted(communicator, connect, monkeypatch):
    connect(communicator).send(b"one")
    communicator.receive_message()

    def interrupted(timeout_s):
        raise KeyboardInterrupt

    monkeypatch.setattr(communicator, "await_message", interrupted)
    with pytest.raises(KeyboardInterrupt):
        communicator.close()
    assert ports.is_free(communicator.port)


def test_an_interrupt_loses_no_message(communicator, connect, monkeypatch):
    client = connect(communicator)
    answer = client.send(b"one")
    communicator.receive_message()
    communicator.send_message(b"reply")
    assert answer.result() == b"reply"
    client.send(b"two")
    take_requests = communicator.server._take_requests

    def interrupted(peer):
        if peer.connection.requests:
            monkeypatch.setattr(communicator.server, "_take_requests", take_requests)
            raise KeyboardInterrupt

    monkeypatch.setattr(communicator.server, "_take_requests", interrupted)
    with pytest.raises(KeyboardInterrupt):
        communicator.receive_message()
    assert communicator.receive_message() == b"two"


def test_of_a_communicator_that_is_closed_no_message_comes(communicator):
    communicator.close()
    assert communicator.receive_message() is None


def test_an_open_communicator_does_not_keep_the_interpreter_from_ending():
    code = (
        "import grpc; from mlagents_envs.rpc_communicator import RpcCommunicator\n"
        "communicator = RpcCommunicator(any_port=True)\n"
        "channel = grpc.insecure_channel(f'localhost:{communicator.port}')\n"
        "call = channel.unary_unary('/communicator_objects.UnityToExternalProto/Exchange').future(b'one')\n"
        "print(communicator.receive_message())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout.splitlines()[-1:]) == (0, ["b'one'"])


def test_too_many_open_files_are_an_error_not_an_endless_wait():
    pytest.importorskip("resource")
    code = (
        "import os, resource, socket\n"
        "from mlagents_envs.exception import UnityEnvironmentException\n"
        "from mlagents_envs.rpc_communicator import RpcCommunicator\n"
        "communicator = RpcCommunicator(any_port=True)\n"
        "client = socket.create_connection(('127.0.0.1', communicator.port))\n"
        "limit = os.dup(0)\n"
        "os.close(limit)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))\n"
        "try:\n"
        "    communicator.receive_message()\n"
        "except UnityEnvironmentException as error:\n"
        "    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "Nobody can connect to the trainer: Too many open files." in result.stdout, result.stderr


# Ports


def test_the_port_counts_from_the_base_and_is_loopback_only():
    wanted = _free_port()
    communicator = RpcCommunicator(worker_id=3, base_port=wanted - 3)
    try:
        assert communicator.port == wanted
        connections = psutil.Process().net_connections("tcp")
        listening = {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN and c.laddr.port == wanted}
    finally:
        communicator.close()
    assert len(listening) == 1
    assert listening.pop().removeprefix("::ffff:") == "127.0.0.1"


def test_a_held_port_is_an_error_that_names_the_holder(communicator, capfd):
    with pytest.raises(
        UnityWorkerInUseException, match=rf"worker number 2 .*Port {communicator.port} .*this very proc"
    ):
        RpcCommunicator(worker_id=2, base_port=communicator.port - 2)
    assert capfd.readouterr().err == ""  # gRPC would write lines of its own


def test_where_any_port_will_do_a_free_one_is_taken(communicator, capsys):
    other = RpcCommunicator(worker_id=1, base_port=communicator.port - 1, any_port=True)
    other.close()
    assert other.port not in (0, communicator.port)
    assert f"[INFO] Port {communicator.port} of worker 1 is held by somebody else: port {other.port} is used." in (
        capsys.readouterr().out
    )


def test_ten_at_once_share_no_port():
    wanted = _free_port()
    with ThreadPoolExecutor(10) as pool:
        made = list(pool.map(lambda _: RpcCommunicator(base_port=wanted, any_port=True), range(10)))
    for communicator in made:
        communicator.close()
    assert len({communicator.port for communicator in made}) == 10


@pytest.mark.parametrize("any_port", [False, True])
def test_a_number_that_is_no_port_is_an_error(any_port):
    with pytest.raises(UnityEnvironmentException, match=r"Worker 40 cannot listen on port 65540: .*another base port"):
        RpcCommunicator(worker_id=40, base_port=65500, any_port=any_port)
