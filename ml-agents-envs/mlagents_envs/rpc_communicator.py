"""The wire over gRPC: the trainer is the server, the environment its one client."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from queue import Empty, SimpleQueue
from typing import Optional

import grpc

from mlagents_envs import ports
from mlagents_envs.communicator import Communicator, PollCallback
from mlagents_envs.communicator_objects.unity_to_external_pb2_grpc import (
    METHOD,
    SERVICE,
    UnityToExternalProtoServicer,
)
from mlagents_envs.daemon_executor import DaemonExecutor
from mlagents_envs.exception import UnityEnvironmentException, UnityTimeOutException, UnityWorkerInUseException
from mlagents_envs.logging_util import get_logger
from mlagents_envs.wire.messages import write_goodbye

logger = get_logger(__name__)

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # or two trainers could share a port, and the environments between them
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
_N_THREADS = 4  # one waits with the environment's call, the others turn second clients away
_POLL_INTERVAL_S = 0.1
_CONNECTION_CHECK_INTERVAL_S = 1.0
_GOODBYE_TIMEOUT_S = 1.0
_LAST_STEP_TIMEOUT_S = 2.0


class _Call:
    """A call of the environment, which waits for its answer in a thread of gRPC."""

    __slots__ = ("_answers", "_is_over", "has_ended", "request")

    def __init__(self, request: bytes):
        self.request = request
        self.has_ended = False
        self._answers: SimpleQueue[bytes] = SimpleQueue()
        self._is_over = threading.Event()

    def answer(self, reply: bytes) -> None:
        """End the call; only the first answer counts."""
        self.has_ended = True
        self._answers.put(reply)

    def finish(self) -> None:
        """Note that the answer has been sent, or that nobody is there any more to hear one: no thread waits then."""
        self.answer(b"")
        self._is_over.set()

    def wait_until_over(self, timeout_s: float) -> None:
        """Return when the answer has been sent, or the caller has gone, or after the timeout."""
        self._is_over.wait(timeout_s)

    def wait_for_answer(self) -> bytes:
        """Return what the call is answered with."""
        return self._answers.get()


class UnityToExternalServicerImplementation(UnityToExternalProtoServicer):
    """Queues what the environment sends until the trainer answers. Messages are bytes here, in both directions.

    The first client is the environment; any other one is turned away.
    """

    def __init__(self) -> None:
        self.calls: SimpleQueue[_Call] = SimpleQueue()
        self.peer: Optional[str] = None
        self._current: Optional[_Call] = None
        self._closed = False
        self._lock = threading.Lock()

    def Initialize(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Take the environment's first message, which is exchanged like every other."""
        return self.Exchange(request, context)

    def Exchange(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Hand the environment's message to the trainer and wait for the answer; goodbye after the close."""
        call = _Call(request)
        with self._lock:
            if self._closed:
                return write_goodbye()
            accepted = self._accepts(context.peer())
            if accepted:
                self._current, self.peer = call, context.peer()
        if not accepted:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "Another environment uses this port of the trainer.")
        if not context.add_callback(call.finish):
            call.finish()
        self.calls.put(call)
        return call.wait_for_answer()

    def _accepts(self, peer: str) -> bool:
        return self.peer in (None, peer) and (self._current is None or self._current.has_ended)

    def close(self) -> None:
        """Answer the waiting environment, and whoever still comes, with a goodbye; return once it has been sent."""
        with self._lock:
            self._closed = True
        if self._current is not None:
            self._current.answer(write_goodbye())
            self._current.wait_until_over(_GOODBYE_TIMEOUT_S)


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
        self._call: Optional[_Call] = None  # the environment's last message, until it is answered
        self._has_gone = False
        self._deadline_s: Optional[float] = None
        self._next_check_s = 0.0
        self.create_server()

    def create_server(self) -> None:
        """Listen; `port` is then the port that was taken."""
        self.unity_to_external = UnityToExternalServicerImplementation()
        self._threads = DaemonExecutor(_N_THREADS, f"rpc_communicator_{self.worker_id}")
        self.server = grpc.server(self._threads, options=_OPTIONS)
        handler = grpc.unary_unary_rpc_method_handler(self.unity_to_external.Exchange)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        try:
            self.port = self._take_port()
        except BaseException:
            self._threads.shutdown()
            raise
        self.server.start()
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
            raise UnityWorkerInUseException(self.worker_id, f"(Port {port} is held by {ports.holder_of(port)}.)")

    def _take_port(self) -> int:
        """Bind to the wanted port, or to any free one where that is allowed, and return which."""
        try:
            self.check_port(self.port)  # first, since gRPC writes errors of its own to the terminal
            return self._bind(self.port)
        except UnityWorkerInUseException:
            if not self._any_port:
                raise
        port = self._bind(0)
        logger.info(f"Port {self.port} of worker {self.worker_id} is held by somebody else: port {port} is used.")
        return port

    def _bind(self, port: int) -> int:
        try:
            bound: int = self.server.add_insecure_port(f"{ports.LOOPBACK}:{port}")
        except RuntimeError:
            bound = 0
        if not bound:  # of older versions of gRPC
            raise UnityWorkerInUseException(self.worker_id, f"(Port {port} is held by {ports.holder_of(port)}.)")
        return bound

    def send_message(self, message: bytes) -> None:
        """Answer the environment's last message; see `Communicator`."""
        call, self._call = self._call, None
        if call is None or call.has_ended:
            self._has_gone = True
            return
        call.answer(message)

    def await_message(self, patience_s: float, poll_callback: Optional[PollCallback] = None) -> bool:
        """Wait for a time at most; see `Communicator`.

        :param poll_callback: called where nothing came in that time.
        :raises UnityTimeOutException: nothing came within `timeout_wait` since it was first waited for.
        """
        if self._has_gone or self._call is not None:
            return True
        now, deadline_s = time.monotonic(), self._deadline_s
        if deadline_s is None:
            patient = self._waits_for_user and self.unity_to_external.peer is None
            deadline_s = math.inf if patient else now + self.timeout_wait
            self._deadline_s, self._next_check_s = deadline_s, now + _CONNECTION_CHECK_INTERVAL_S
        try:
            self._call = self.unity_to_external.calls.get(timeout=max(0.0, min(patience_s, deadline_s - now)))
            self._deadline_s = None
        except Empty:
            try:
                self._look_for_trouble(deadline_s, poll_callback)
            except BaseException:
                self._has_gone = True
                raise
        return self._has_gone or self._call is not None

    def _look_for_trouble(self, deadline_s: float, poll_callback: Optional[PollCallback]) -> None:
        """Find out why nothing comes."""
        now = time.monotonic()
        if poll_callback is not None:
            poll_callback()
        if now >= self._next_check_s:
            self._has_gone = self._connection_is_lost()
            self._next_check_s = now + _CONNECTION_CHECK_INTERVAL_S
        if now >= deadline_s and not self._has_gone:
            raise UnityTimeOutException(
                f"The environment on port {self.port} sent no message within {self.timeout_wait:g} s."
            )

    def _connection_is_lost(self) -> bool:
        """Return whether the environment was connected and is no longer; gRPC itself tells only during a call."""
        peer_port = (self.unity_to_external.peer or "").rpartition(":")[2]
        return peer_port.isdecimal() and not ports.is_connected(self.port, int(peer_port))

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
        return None if self._call is None else self._call.request

    def close(self) -> None:
        """Say goodbye to the environment, once a step that is under way has been made, and give the port free."""
        if self.is_open:
            self.is_open = False
            if self.unity_to_external.peer is not None:
                with contextlib.suppress(UnityTimeOutException):
                    self.await_message(_LAST_STEP_TIMEOUT_S)
            self.unity_to_external.close()
            self.server.stop(None)  # a grace needs a new thread, which Python 3.12 refuses when the interpreter ends
            self._threads.shutdown()
