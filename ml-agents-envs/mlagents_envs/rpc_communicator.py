"""The wire over gRPC: the trainer is the server, the environment its one client."""

from __future__ import annotations

import contextlib
import errno
import math
import socket
import time
from typing import Optional

from mlagents_envs import ports
from mlagents_envs.communicator import Communicator, PollCallback
from mlagents_envs.communicator_objects.unity_to_external_pb2_grpc import UnityToExternalProtoServicer
from mlagents_envs.exception import (
    UnityEnvironmentException,
    UnityException,
    UnityTimeOutException,
    UnityWorkerInUseException,
)
from mlagents_envs.logging_util import get_logger
from mlagents_envs.wire.grpc_server import GrpcServer
from mlagents_envs.wire.messages import write_goodbye

logger = get_logger(__name__)

_POLL_INTERVAL_S = 0.1
_GOODBYE_TIMEOUT_S = 1.0
_LAST_STEP_TIMEOUT_S = 2.0


class UnityToExternalServicerImplementation(UnityToExternalProtoServicer):
    """The name under which 1.1.0 has its servicer. The server here, `GrpcServer`, needs none."""


class RpcCommunicator(Communicator):
    """Listens on this machine for one environment, on the port ``base_port + worker_id``.

    :param timeout_wait: how long the environment may take for a message, in seconds.
    :param any_port: take a free port where the wanted one is held: for an environment that can be told which.
    :param waits_for_user: the first message may take as long as it likes, since somebody has to press Play.
    :raises UnityWorkerInUseException: the port is held; the message names the process where it can be seen.
    :raises UnityEnvironmentException: it is no port that one may listen on.
    """

    def __init__(
        self,
        worker_id: int = 0,
        base_port: int = 5005,
        timeout_wait: float = 30,
        *,
        any_port: bool = False,
        waits_for_user: bool = False,
    ):
        super().__init__(worker_id, base_port)
        self.timeout_wait = timeout_wait
        self.is_open = False
        self._any_port = any_port
        self._waits_for_user = waits_for_user
        self._deadline_s: Optional[float] = None
        self._has_failed = False  # to answer in time, or its process ended
        self.create_server()

    def create_server(self) -> None:
        """Listen; `port` is then the port that was taken."""
        listener = self._take_port()
        self.port = listener.getsockname()[1]
        self.server = GrpcServer(listener)
        self.is_open = True

    def check_port(self, port: int) -> None:
        """Raise where one cannot listen on a port; see the class."""
        try:
            is_free = ports.is_free(port)
        except (OSError, OverflowError) as error:
            raise UnityEnvironmentException(
                f"Worker {self.worker_id} cannot listen on port {port}: {error}. Choose another base port."
            ) from None
        if not is_free:
            raise self._held(port)

    def _held(self, port: int) -> UnityWorkerInUseException:
        return UnityWorkerInUseException(self.worker_id, f"(Port {port} is held by {ports.holder_of(port)}.)")

    def _take_port(self) -> socket.socket:
        """Return a socket that listens on the wanted port, or on any free one where that is allowed."""
        try:
            self.check_port(self.port)
            return self._listen_on(self.port)
        except UnityWorkerInUseException:
            if not self._any_port:
                raise
        listener = self._listen_on(0)
        port = listener.getsockname()[1]
        logger.info(f"Port {self.port} of worker {self.worker_id} is held by somebody else: port {port} is used.")
        return listener

    def _listen_on(self, port: int) -> socket.socket:
        try:
            return ports.listen(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise self._held(port) from None

    def send_message(self, message: bytes) -> None:
        """Answer the environment's last message; see `Communicator`."""
        self.server.answer(message)

    def await_message(self, patience_s: float, poll_callback: Optional[PollCallback] = None) -> bool:
        """Wait for a time at most; see `Communicator`.

        :param poll_callback: called where nothing came in that time.
        :raises UnityTimeOutException: no message came within `timeout_wait` since it was first waited for. One that
            began to come while nobody listened has that time once more.
        """
        if self._has_failed:
            return True
        if self._deadline_s is None:
            patient = self._waits_for_user and not self.server.has_client
            self._deadline_s = math.inf if patient else time.monotonic() + self.timeout_wait
        n_bytes, left_s = self.server.n_bytes, self._deadline_s - time.monotonic()
        if self.server.await_message(max(0.0, min(patience_s, left_s))):
            self._deadline_s = None
            return True
        if left_s <= 0.0 and self.server.n_bytes > n_bytes:
            self._deadline_s = time.monotonic() + self.timeout_wait
        try:
            self._look_for_trouble(self._deadline_s, poll_callback)
        except BaseException:
            self._has_failed = True
            raise
        return False

    def _look_for_trouble(self, deadline_s: float, poll_callback: Optional[PollCallback]) -> None:
        """Find out why nothing comes."""
        if poll_callback is not None:
            poll_callback()
        if time.monotonic() >= deadline_s:
            raise UnityTimeOutException(
                f"The environment on port {self.port} sent no message within {self.timeout_wait:g} s."
            )

    def poll_for_timeout(self, poll_callback: Optional[PollCallback] = None) -> None:
        """Wait until the environment has sent a message or has gone.

        :param poll_callback: called several times a second.
        :raises UnityTimeOutException: neither happened within `timeout_wait`.
        """
        while not self.await_message(_POLL_INTERVAL_S, poll_callback):
            pass

    def receive_message(self, poll_callback: Optional[PollCallback] = None) -> Optional[bytes]:
        """Wait for a message; see `Communicator`."""
        self.poll_for_timeout(poll_callback)
        return self.server.message

    def close(self) -> None:
        """Say goodbye to the environment, once a step that is under way has been made, and give the port free."""
        if self.is_open:
            self.is_open = False
            try:
                if self.server.has_client:
                    with contextlib.suppress(UnityException):
                        self.await_message(_LAST_STEP_TIMEOUT_S)
            finally:
                self.server.close(write_goodbye(), _GOODBYE_TIMEOUT_S)
