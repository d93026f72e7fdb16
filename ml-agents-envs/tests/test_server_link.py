"""The environment's connection to a trainer over real sockets, to gRPC's own server and to `RpcCommunicator`."""

import contextlib
import itertools
import select
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from mlagents_envs.exception import (
    UnityCommunicationException,
    UnityCommunicatorStoppedException,
    UnityTimeOutException,
)
from mlagents_envs.rpc_communicator import RpcCommunicator
from mlagents_envs.server import TrainerLink, link
from mlagents_envs.wire.messages import write_goodbye

WAIT_S = 20


@pytest.fixture
def communicator():
    """The trainer's end as this package has it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = RpcCommunicator(base_port=port, timeout_wait=WAIT_S, any_port=True)
    yield made
    made.close()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def linked(port):
    link = TrainerLink(port, WAIT_S)
    link.connect()
    return contextlib.closing(link)


@pytest.mark.parametrize("size", [0, 1, 20_000_000])
def test_bytes_arrive_as_they_were_sent(communicator, pool, size):
    there, back = b"\xff\x00a" * (size // 3), b"\x01" * size

    def environment():
        with linked(communicator.port) as link:
            return [link.exchange(there), link.exchange(b"next")]

    answers = pool.submit(environment)
    assert communicator.receive_message() == there
    assert communicator.exchange_message(back) == b"next"
    communicator.close()
    assert answers.result() == [back, write_goodbye()]


def test_messages_of_megabytes_pass_through_the_windows_of_grpcs_own_server(trainer):
    with linked(trainer.port) as link:
        for size in (5_000_000, 1, 5_000_000):
            trainer.part_with(b"\x02" * size)
            assert link.exchange(bytes(5_000_000)) == b"\x02" * size


def test_a_trainer_that_comes_later_is_waited_for(communicator, pool):
    communicator.close()
    answer = pool.submit(lambda: linked(communicator.port).thing.exchange(b"there you are"))
    with contextlib.closing(RpcCommunicator(base_port=communicator.port, timeout_wait=WAIT_S)) as late:
        assert late.receive_message() == b"there you are"
    assert answer.result() == write_goodbye()


def test_a_trainer_that_goes_while_it_is_waited_for(communicator, pool):
    def environment():
        with linked(communicator.port) as link:
            link.exchange(b"one")

    ended = pool.submit(environment)
    communicator.receive_message()
    communicator.server._client.socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(UnityCommunicatorStoppedException, match=f"trainer on port {communicator.port} has gone"):
        ended.result()


def test_a_trainer_that_went_while_the_environment_was_busy(communicator, pool):
    link = pool.submit(lambda: linked(communicator.port).thing)
    while not link.done():
        communicator.await_message(0.05)
    communicator.close()
    for _ in range(2):
        with pytest.raises(UnityCommunicatorStoppedException, match="has gone"):
            link.result().exchange(b"one")
    link.result().close()


def test_grpcs_own_server_that_goes(trainer, pool):
    with linked(trainer.port) as link:
        answer = pool.submit(link.exchange, b"")
        trainer.receive()
        trainer.close()
        with pytest.raises(UnityCommunicatorStoppedException, match="has gone"):
            answer.result()


def test_a_trainer_that_hung_up_during_a_long_step_is_called_again(pool):
    """As gRPC's own server does where pings are not answered, or, as here, when a connection has grown old."""
    server = grpc.server(pool, options=[("grpc.max_connection_age_ms", 300), ("grpc.max_connection_age_grace_ms", 1)])
    handlers = {"Exchange": grpc.unary_unary_rpc_method_handler(lambda request, context: request + b"!")}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("communicator_objects.UnityToExternalProto", handlers)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with linked(port) as trainer, pytest.MonkeyPatch.context() as patch:
        patch.setattr(link, "_SILENCE_S", 0.0)
        for message in (b"one", b"two"):
            assert trainer.exchange(message) == message + b"!"
            connection = trainer._socket
            assert select.select([connection], [], [], WAIT_S)[0]
        assert trainer.exchange(b"three") == b"three!"
        assert trainer._socket is not connection
    server.stop(None).wait()


@contextlib.contextmanager
def somebody(speak):
    """Listen, and let `speak` talk to who connects; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def answer():
            peer = listener.accept()[0]
            with peer, contextlib.suppress(ConnectionError):
                speak(peer)

        pool.submit(answer)
        yield listener.getsockname()[1]


def test_a_trainer_that_starts_to_speak_nonsense():
    def speak(peer):
        peer.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        received = b""
        while b"please" not in received:
            received += peer.recv(1000)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n")
        peer.recv(1000)

    with (
        somebody(speak) as port,
        linked(port) as trainer,
        pytest.raises(UnityCommunicationException, match=rf"The trainer on port {port} speaks nonsense: .*frame"),
    ):
        trainer.exchange(b"please")


def test_somebody_who_talks_and_talks_is_no_trainer():
    def speak(peer):
        peer.settimeout(0.01)
        for _ in itertools.count():
            peer.sendall(b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678")
            with contextlib.suppress(TimeoutError):
                peer.recv(1000)

    with somebody(speak) as port, pytest.raises(UnityTimeOutException):
        TrainerLink(port, 0.3).connect()


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH\r\n", b"", b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"])
def test_somebody_else_who_listens_is_no_trainer(greeting):
    def speak(peer):
        peer.sendall(greeting)
        while peer.recv(1000):
            pass

    with (
        somebody(speak) as port,
        pytest.raises(UnityTimeOutException, match=rf"No trainer listened on port {port} within 0\.3 s"),
    ):
        TrainerLink(port, 0.3).connect()
