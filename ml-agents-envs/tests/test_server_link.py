"""The environment's connection to a trainer over real sockets, to gRPC's own server and to `RpcCommunicator`."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlagents_envs.exception import UnityCommunicatorStoppedException, UnityTimeOutException
from mlagents_envs.rpc_communicator import RpcCommunicator
from mlagents_envs.server import TrainerLink
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


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH\r\n", b"", b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"])
def test_somebody_else_who_listens_is_no_trainer(greeting):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def speak():
            peer = listener.accept()[0]
            peer.sendall(greeting)
            return peer

        with ThreadPoolExecutor(1) as pool:
            peer = pool.submit(speak)
            link = TrainerLink(port, 0.3)
            with pytest.raises(UnityTimeOutException, match=rf"No trainer listened on port {port} within 0\.3 s"):
                link.connect()
            link.close()
            peer.result().close()
