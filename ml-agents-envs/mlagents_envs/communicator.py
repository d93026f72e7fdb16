"""What carries messages between a trainer and the environment at the other end of a wire."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Callable, Optional

from mlagents_envs.communicator_objects.header_pb2 import HeaderProto
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.wire.messages import OK

PollCallback = Callable[[], None]
"""Called now and then while the environment is awaited; what it raises ends the wait."""


class Communicator(ABC):
    """The trainer's end of a wire to one environment.

    The environment speaks first, and from then on the two take turns. A subclass moves whole messages, serialised
    `UnityMessageProto`, by `send_message` and `receive_message`; `initialize` and `exchange` are for those who hold
    message objects.

    :param worker_id: of the environment.
    :param base_port: the port of worker 0.
    """

    def __init__(self, worker_id: int = 0, base_port: int = 5005):
        self.worker_id = worker_id
        self.port = base_port + worker_id

    @abstractmethod
    def send_message(self, message: bytes) -> None:
        """Answer the environment's last message; that it has gone shows when the next one is received."""

    @abstractmethod
    def await_message(self, patience_s: float, poll_callback: Optional[PollCallback] = None) -> bool:
        """Wait for a time at most; return whether `receive_message` need not wait, be it that the environment has gone.

        :raises UnityTimeOutException: the environment has taken too long by now.
        """

    @abstractmethod
    def receive_message(self, poll_callback: Optional[PollCallback] = None) -> Optional[bytes]:
        """Wait for the environment's next message and return it; None when the environment has gone.

        :raises UnityTimeOutException: it took too long.
        """

    def exchange_message(self, message: bytes, poll_callback: Optional[PollCallback] = None) -> Optional[bytes]:
        """Answer the environment's last message and return its next one; None when the environment has gone.

        :raises UnityTimeOutException: it took too long.
        """
        self.send_message(message)
        return self.receive_message(poll_callback)

    @abstractmethod
    def close(self) -> None:
        """Say goodbye to the environment and end the communication; doing so again does nothing."""

    def initialize(self, inputs: Any, poll_callback: Optional[PollCallback] = None) -> Any:
        """Introduce the two ends to each other.

        :param inputs: a `UnityInputProto` with the trainer's `rl_initialization_input`.
        :returns: the environment's first `UnityOutputProto`; None when it has gone.
        """
        first = self.receive_message(poll_callback)
        if first is None or self.exchange_message(_wrap(inputs), poll_callback) is None:
            return None
        return _unwrap(first)

    def exchange(self, inputs: Any, poll_callback: Optional[PollCallback] = None) -> Any:
        """Answer the environment's last message.

        :param inputs: a `UnityInputProto` with the trainer's `rl_input`.
        :returns: the environment's next `UnityOutputProto`; None when it has said goodbye or has gone.
        """
        received = self.exchange_message(_wrap(inputs), poll_callback)
        return None if received is None else _unwrap(received)


def _wrap(inputs: Any) -> bytes:
    message = UnityMessageProto(header=HeaderProto(status=OK), unity_input=inputs)
    return bytes(message.SerializeToString())


def _unwrap(data: bytes) -> Any:
    message = UnityMessageProto.FromString(data)
    return message.unity_output if message.header.status == OK else None
