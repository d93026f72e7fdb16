"""The environment's connection to a trainer."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Optional, Protocol

from mlagents_envs.communicator_objects.unity_to_external_pb2_grpc import METHOD, SERVICE
from mlagents_envs.exception import (
    UnityCommunicationException,
    UnityCommunicatorStoppedException,
    UnityTimeOutException,
)
from mlagents_envs.ports import LOOPBACK
from mlagents_envs.wire.grpc_connection import GrpcClientConnection, Response, Status
from mlagents_envs.wire.http2 import ProtocolError

EDITOR_PORT = 5004
"""Where a trainer waits that started no executable."""

_RETRY_S = 0.1
_SILENCE_S = 5.0
_REPLY_S = 5.0
_RECEIVE_SIZE = 2**18
_GONE = (Status.UNAVAILABLE, Status.CANCELLED)


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
        self._socket: Optional[socket.socket] = None
        self._heard_s = 0.0  # when the trainer last said something
        self._room = memoryview(bytearray(_RECEIVE_SIZE))

    def connect(self) -> None:
        """See `Link`."""
        deadline_s = time.monotonic() + self._connect_timeout_s
        while not self._reach(deadline_s):
            if time.monotonic() >= deadline_s:
                raise UnityTimeOutException(
                    f"No trainer listened on port {self._port} within {self._connect_timeout_s:g} s. Start "
                    "mlagents-learn, then the environment; or give --mlagents-port the port of your trainer."
                )
            time.sleep(_RETRY_S)

    def _reach(self, deadline_s: float) -> bool:
        """Connect to whoever listens; return whether it is a trainer."""
        self._hang_up()
        self._connection = GrpcClientConnection(f"{LOOPBACK}:{self._port}", f"/{SERVICE}/{METHOD}")
        try:
            self._socket = made = socket.create_connection((LOOPBACK, self._port), _RETRY_S)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._connection.has_server:
                made.settimeout(max(deadline_s - time.monotonic(), _RETRY_S))
                self._talk(made)
                if time.monotonic() >= deadline_s and not self._connection.has_server:
                    raise TimeoutError
        except (OSError, ProtocolError):
            self._hang_up()
            return False
        made.settimeout(None)
        return True

    def _talk(self, trainer: socket.socket) -> None:
        """Send what there is to send, and wait for something to come.

        :raises OSError: the trainer has gone.
        :raises ProtocolError: it speaks nonsense.
        """
        if self._connection.outgoing:
            trainer.sendall(self._connection.outgoing)
            self._connection.outgoing.clear()
        size = trainer.recv_into(self._room)
        if not size:
            raise ConnectionResetError
        self._heard_s = time.monotonic()
        self._connection.receive(self._room[:size])

    def exchange(self, request: bytes) -> bytes:
        """See `Link`. It takes as long as the trainer takes.

        :raises UnityCommunicationException: the trainer refuses the message, say because it serves somebody else, or
            speaks nonsense.
        """
        try:
            response = self._exchange(request)
        except OSError:
            response = Response(Status.UNAVAILABLE)
        except ProtocolError as error:
            raise UnityCommunicationException(f"The trainer on port {self._port} speaks nonsense: {error}.") from None
        if response.status is Status.OK:
            return response.message
        if response.status in _GONE:
            raise UnityCommunicatorStoppedException(f"The trainer on port {self._port} has gone.")
        raise UnityCommunicationException(
            f"The trainer on port {self._port} refuses this environment: {response.reason} ({response.status.name})."
        )

    def _exchange(self, request: bytes) -> Response:
        if time.monotonic() - self._heard_s > _SILENCE_S or self._connection.is_ending:
            self._catch_up()
        if self._socket is None:
            raise ConnectionResetError
        self._connection.call(request)
        while self._connection.response is None:
            self._talk(self._socket)
        return self._connection.response

    def _catch_up(self) -> None:
        """Hear what was said during a long step; where the trainer has hung up, connect once more.

        gRPC's own server takes a client for dead that does not answer a ping for a minute.
        """
        with contextlib.suppress(OSError, ProtocolError):
            if self._socket is not None and not self._connection.is_ending:
                self._socket.settimeout(0.0)
                try:
                    while not self._connection.is_ending:
                        self._talk(self._socket)
                except BlockingIOError:  # that was all
                    self._socket.settimeout(None)
                    return
        if not self._reach(time.monotonic() + _REPLY_S):
            raise ConnectionResetError

    def close(self) -> None:
        """See `Link`."""
        self._hang_up()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
