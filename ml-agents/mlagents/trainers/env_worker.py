"""The process around one environment; it knows nothing of training and never loads torch.

It does what the trainer's process asks, one request at a time, in order. Steps come back through shared memory. When
the environment fails, the worker says so and waits: the trainer decides whether it is to start anew.
"""

from __future__ import annotations

import contextlib
import enum
import marshal
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple, Union

import cloudpickle
import numpy as np
import psutil
from numpy.typing import NDArray

from mlagents.trainers.environment_host import EnvironmentHost
from mlagents.trainers.settings import EngineSettings
from mlagents_envs import exception, logging_util, timers
from mlagents_envs.base_env import ActionTuple, BehaviorName, BehaviorSpec
from mlagents_envs.exception import UnityException
from mlagents_envs.shared_steps import BehaviorSteps, SharedBatch, SharedSteps, StepsWriter
from mlagents_envs.side_channel.stats_side_channel import EnvironmentStats
from mlagents_envs.timers import hierarchical_timer

_GRACE_S = 10.0
"""How long a worker may take to close its environment when the trainer's process is gone."""


class EnvironmentCommand(enum.Enum):
    """What is asked, and what is answered."""

    STEP = 1
    ENVIRONMENT_PARAMETERS = 3
    RESET = 4
    CLOSE = 5
    ENV_EXITED = 6
    CLOSED = 7
    TRAINING_STARTED = 8
    RESTART = 9


class EnvironmentRequest(NamedTuple):
    """What the trainer asks of a worker.

    :param payload: of STEP the actions by behaviour id; of RESET, RESTART and ENVIRONMENT_PARAMETERS the samplers by
        name; of TRAINING_STARTED a message for the analytics channel.
    """

    cmd: EnvironmentCommand
    payload: Any = None


class EnvironmentResponse(NamedTuple):
    """What a worker answers.

    :param cmd: STEP, or RESET for RESTART as well, with a `StepResponse`; ENV_EXITED, instead of these, with a
        `Failure`; CLOSED with the worker's timers.
    """

    cmd: EnvironmentCommand
    worker_id: int
    payload: Any


def send(connection: Connection, message: Union[EnvironmentRequest, EnvironmentResponse]) -> None:
    """Send a message, for `receive` to return.

    Nearly all ask for a step or say where one is. These are put into simple types, which `marshal` writes in a fraction
    of the time that `pickle` takes for the classes: the other process waits for it.
    """
    payload = message.payload
    if message.cmd is not EnvironmentCommand.STEP:
        data = _ANYTHING + pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    elif isinstance(message, EnvironmentResponse) and not payload.environment_stats and not payload.new_specs:
        path, offset, batches = payload.all_step_result
        data = _STEP_TAKEN + marshal.dumps((message.worker_id, path, offset, [tuple(batch) for batch in batches]))
    elif isinstance(message, EnvironmentRequest):
        columns = [(name, *_as_bytes(of.continuous), *_as_bytes(of.discrete)) for name, of in payload.items()]
        data = _STEP_WANTED + marshal.dumps(columns)
    else:
        data = _ANYTHING + pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    connection.send_bytes(data)


def receive(connection: Connection) -> Any:
    """Return the next message.

    :raises OSError: the other process is gone; or EOFError.
    """
    data = connection.recv_bytes()
    kind, content = data[:1], data[1:]
    if kind == _STEP_TAKEN:
        worker_id, path, offset, batches = marshal.loads(content)
        shared = SharedSteps(path, offset, [SharedBatch(*batch) for batch in batches])
        return EnvironmentResponse(EnvironmentCommand.STEP, worker_id, StepResponse(shared, {}, {}))
    if kind == _STEP_WANTED:
        actions = {
            name: ActionTuple(
                np.frombuffer(continuous, np.float32).reshape(continuous_shape),
                np.frombuffer(discrete, np.int32).reshape(discrete_shape),
            )
            for name, continuous, continuous_shape, discrete, discrete_shape in marshal.loads(content)
        }
        return EnvironmentRequest(EnvironmentCommand.STEP, actions)
    return pickle.loads(content)


_ANYTHING, _STEP_WANTED, _STEP_TAKEN = b"?", b">", b"<"
"""The first byte of a message: how the rest is written."""


def _as_bytes(actions: NDArray[Any]) -> Tuple[bytes, Tuple[int, ...]]:
    return actions.tobytes(), actions.shape


class StepResponse(NamedTuple):
    """An environment's step.

    :param all_step_result: where in shared memory it is, or where there is no process between, the step itself.
    :param new_specs: of the behaviours that appeared in this step.
    """

    all_step_result: Union[SharedSteps, Dict[BehaviorName, BehaviorSteps]]
    environment_stats: EnvironmentStats
    new_specs: Dict[BehaviorName, BehaviorSpec]


class Failure(NamedTuple):
    """What went wrong in a worker.

    :param kind: the exception's class, or the nearest one above it of `mlagents_envs.exception`.
    :param message: for the user; with the traceback where the error is not one of those.
    """

    kind: str
    message: str

    @staticmethod
    def of(error: BaseException) -> Failure:
        """Return what to tell of an error."""
        if isinstance(error, UnityException):
            known = next(base for base in type(error).__mro__ if hasattr(exception, base.__name__))
            return Failure(known.__name__, str(error))
        return Failure("", "".join(traceback.format_exception(type(error), error, error.__traceback__)))

    @property
    def is_foreseen(self) -> bool:
        """Whether the environment itself reported it, as opposed to a mistake in its code."""
        return bool(self.kind)

    def error(self, worker_id: int) -> UnityException:
        """Return the exception to raise for it."""
        if self.is_foreseen:
            kind: type = getattr(exception, self.kind)
            if kind is exception.UnityWorkerInUseException:
                kind = exception.UnityEnvironmentException  # it makes its own message
            error: UnityException = kind(self.message)
            return error
        return exception.UnityEnvironmentException(
            f"The environment of worker {worker_id} raised an error:\n{self.message.rstrip()}"
        )


class WorkerOptions(NamedTuple):
    """What a worker's process is started with.

    :param env_factory: pickled by cloudpickle, so that it may be any function.
    :param folder: for shared memory.
    """

    env_factory: bytes
    worker_id: int
    engine_settings: EngineSettings
    folder: str
    log_level: int


_PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from mlagents.trainers.env_worker import main; main()"
)


def start_worker(options: WorkerOptions) -> Tuple[subprocess.Popen[bytes], Connection]:
    """Start the process of a worker; return it with the connection to it.

    It is a Python of its own, and not of `multiprocessing`: that would import this process's main program again, with
    torch and all, and would not let the environment use `multiprocessing`.
    """
    command = [sys.executable, "-c", _PROGRAM]
    ours, theirs = socket.socketpair()
    link: Union[int, bytes]
    with theirs:
        # Ctrl-C in a terminal goes to all processes in the foreground; what it means is for the trainer to decide.
        if sys.platform == "win32":
            group = subprocess.CREATE_NEW_PROCESS_GROUP
            process = subprocess.Popen(command, stdin=subprocess.PIPE, creationflags=group)
            link = theirs.share(process.pid)
        else:
            link = theirs.fileno()
            process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, pass_fds=[link])
        assert process.stdin is not None  # it stays open: see `main`
        with contextlib.suppress(BrokenPipeError):  # that the process is gone shows when it is read from
            process.stdin.write(pickle.dumps(sys.path) + pickle.dumps((link, options)))
            process.stdin.flush()
    return process, Connection(ours.detach())


def main() -> None:
    """Be the process that `start_worker` starts."""
    link, options = pickle.load(sys.stdin.buffer)
    # Other than the connection, the pipe tells that the trainer is gone also to a worker whose environment hangs.
    threading.Thread(target=_end_with_trainer, args=(sys.stdin.fileno(), options.folder), daemon=True).start()
    if sys.platform == "win32":
        end = socket.fromshare(link)
    else:
        end = socket.socket(fileno=link)
    run_worker(Connection(end.detach()), options)
    kill_descendants(os.getpid())  # what the environment has left behind


def _end_with_trainer(lifeline: int, folder: str) -> None:
    """Wait until the trainer's process is gone, and clean up in its stead.

    This process, and what it started, is ended as well, unless it does so itself.
    """
    while os.read(lifeline, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    time.sleep(_GRACE_S)
    kill_descendants(os.getpid())
    os._exit(1)


def kill_descendants(pid: int) -> None:
    """End all that a process has started, and what these have."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def run_worker(connection: Connection, options: WorkerOptions) -> None:
    """Serve until told to close, or until the trainer's process is gone."""
    logging_util.set_log_level(options.log_level)
    worker = _Worker(connection, options)
    try:
        worker.serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the trainer's process is gone
        worker.host.abandon()


class _Worker:
    def __init__(self, connection: Connection, options: WorkerOptions):
        self._connection = connection
        self._worker_id = options.worker_id
        self._writer = StepsWriter(options.folder)
        self.host = EnvironmentHost(
            lambda *args: cloudpickle.loads(options.env_factory)(*args), options.worker_id, options.engine_settings
        )
        self._has_failed = False

    def serve(self) -> None:
        """Do what is asked until CLOSE; after a failure, only RESTART.

        :raises OSError: the trainer's process is gone; or EOFError.
        """
        is_closed = False
        while not is_closed:
            request: EnvironmentRequest = receive(self._connection)
            is_closed = request.cmd is EnvironmentCommand.CLOSE
            if self._has_failed and request.cmd is not EnvironmentCommand.RESTART and not is_closed:
                continue  # it was sent before the failure was known
            answer = self._answer_to(request)
            if answer is not None:
                send(self._connection, answer)
        send(self._connection, self._response(EnvironmentCommand.CLOSED, timers.get_timer_root()))

    def _answer_to(self, request: EnvironmentRequest) -> Optional[EnvironmentResponse]:
        try:
            return self._do(request)
        except Exception as error:
            self._has_failed = True
            return self._response(EnvironmentCommand.ENV_EXITED, Failure.of(error))

    def _do(self, request: EnvironmentRequest) -> Optional[EnvironmentResponse]:
        if request.cmd is EnvironmentCommand.STEP:
            return self._response(EnvironmentCommand.STEP, self._step(request.payload))
        if request.cmd is EnvironmentCommand.RESET:
            self.host.reset(request.payload)
            return self._response(EnvironmentCommand.RESET, self._observe())
        if request.cmd is EnvironmentCommand.RESTART:
            self._has_failed = False
            self.host.restart(request.payload)
            return self._response(EnvironmentCommand.RESET, self._observe())
        if request.cmd is EnvironmentCommand.ENVIRONMENT_PARAMETERS:
            self.host.set_parameters(request.payload)
        elif request.cmd is EnvironmentCommand.TRAINING_STARTED:
            self.host.send_analytics(request.payload)
        elif request.cmd is EnvironmentCommand.CLOSE:
            self.host.close()
        return None

    def _step(self, actions: Mapping[BehaviorName, ActionTuple]) -> StepResponse:
        self.host.set_actions(actions)
        assert self.host.env is not None  # the first request is a reset
        with hierarchical_timer("env_step"):
            self.host.env.step()
        return self._observe()

    def _observe(self) -> StepResponse:
        """Write where the trainer sees it what the environment says now."""
        with hierarchical_timer("share"):
            results, new_specs, stats = self.host.observe()
            return StepResponse(self._writer.write(results, self.host.specs), stats, new_specs)

    def _response(self, cmd: EnvironmentCommand, payload: Any) -> EnvironmentResponse:
        return EnvironmentResponse(cmd, self._worker_id, payload)
