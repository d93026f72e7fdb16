"""The environment's connection to a trainer."""

from __future__ import annotations

from typing import Optional, Protocol

import grpc

from mlagents_envs.communicator_objects.unity_to_external_pb2_grpc import METHOD, SERVICE
from mlagents_envs.exception import (
    UnityCommunicationException,
    UnityCommunicatorStoppedException,
    UnityTimeOutException,
)

EDITOR_PORT = 5004
"""Where a trainer waits that started no executable."""

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Link(Protocol):
    """A way to a trainer."""

    def connect(self) -> None:
        """Find the trainer.

        :raises UnityTimeOutException: there is none.
        """

    def exchange(self, request: bytes) -> bytes:
        """Send a message and return the trainer's answer to it.

        :raises UnityCommunicatorStoppedException: the trainer has gone.
        """

    def close(self) -> None:
        """End the connection; without one, do nothing."""


class TrainerLink:
    """A `Link` over gRPC to a trainer on this machine.

    :param port: where the trainer listens.
    :param connect_timeout_s: how long to wait until it does.
    """

    def __init__(self, port: int = EDITOR_PORT, connect_timeout_s: float = 60.0):
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        self._channel: Optional[grpc.Channel] = None

    def connect(self) -> None:
        """See `Link`."""
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self._port}", options=_OPTIONS)
        self._call = self._channel.unary_unary(f"/{SERVICE}/{METHOD}")  # without serialisers it takes and returns bytes
        try:
            grpc.channel_ready_future(self._channel).result(self._connect_timeout_s)
        except grpc.FutureTimeoutError:
            raise UnityTimeOutException(
                f"No trainer listened on port {self._port} within {self._connect_timeout_s:g} s. Start mlagents-learn, "
                "then the environment; or give --mlagents-port the port of your trainer."
            ) from None

    def exchange(self, request: bytes) -> bytes:
        """See `Link`. It takes as long as the trainer takes.

        :raises UnityCommunicationException: the trainer refuses the message, say because it serves somebody else.
        """
        try:
            answer: bytes = self._call(request)
        except grpc.RpcError as error:
            if error.code() in _GONE:
                raise UnityCommunicatorStoppedException(f"The trainer on port {self._port} has gone.") from None
            raise UnityCommunicationException(
                f"The trainer on port {self._port} refuses this environment: {error.details()} ({error.code().name})."
            ) from None
        return answer

    def close(self) -> None:
        """See `Link`."""
        if self._channel is not None:
            self._channel.close()
