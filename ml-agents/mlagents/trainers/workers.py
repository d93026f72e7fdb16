"""The trainer's ends of workers, each of which has an environment."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Type, cast

import psutil

from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.env_manager import AllStepResult, EnvironmentStep
from mlagents.trainers.env_worker import (
    EnvironmentCommand,
    EnvironmentRequest,
    EnvironmentResponse,
    Failure,
    StepResponse,
    WorkerOptions,
    kill_descendants,
    receive,
    send,
    start_worker,
)
from mlagents.trainers.environment_host import EnvironmentHost
from mlagents_envs import logging_util, timers
from mlagents_envs.base_env import BehaviorName, BehaviorSpec
from mlagents_envs.exception import UnityEnvironmentException, UnityException, UnityTimeOutException
from mlagents_envs.shared_steps import StepsReader

if TYPE_CHECKING:
    from mlagents_envs.environment import UnityEnvironment  # loads gRPC, which other environments do without

logger = logging_util.get_logger(__name__)

_END_S = 1.0
"""How long a process may take to end after its connection has closed."""


class EnvWorker(ABC):
    """One worker.

    :ivar waiting: whether an answer is awaited; else `previous_step` waits for a decision.
    :ivar is_starting: whether what is awaited is the first step of its environment, or the first after a reset.
    :ivar previous_step: the last step that came.
    """

    def __init__(self, worker_id: int):
        self.worker_id = worker_id
        self.waiting = False
        self.is_starting = False
        self.previous_step = EnvironmentStep.empty(worker_id)
        self.previous_all_action_info: Dict[BehaviorName, ActionInfo] = {}

    def ask(self, cmd: EnvironmentCommand, payload: Any, patience_s: Optional[float]) -> None:
        """Ask for a step, which `recv` is to return.

        :param patience_s: how long the answer may take; None for as long as it likes.
        """
        self.waiting, self.is_starting = True, cmd is not EnvironmentCommand.STEP
        self.send(cmd, payload)

    @abstractmethod
    def send(self, cmd: EnvironmentCommand, payload: Any) -> None:
        """Ask for something; what goes wrong is told by the next answer."""

    @staticmethod
    @abstractmethod
    def wait_for_any(workers: Sequence[Any], timeout_s: float) -> List[Any]:
        """Return those workers of one class that have answered, at once when there are any."""

    @abstractmethod
    def recv(self) -> EnvironmentResponse:
        """Return the next answer; that the worker is gone is one as well."""

    @abstractmethod
    def read(self, step: Any, specs: Mapping[BehaviorName, BehaviorSpec]) -> AllStepResult:
        """Return the step that an answer speaks of."""

    @property
    def is_late(self) -> bool:
        """Whether an answer should have come by now."""
        return False

    @abstractmethod
    def give_up(self) -> EnvironmentResponse:
        """End what is late; return that as its answer."""

    @property
    def has_ended(self) -> bool:
        """Whether another one has to take its place before there can be an environment again."""
        return False

    @abstractmethod
    def request_close(self) -> None:
        """Ask the worker to close its environment and to end; `end` comes next."""

    @abstractmethod
    def kill(self) -> None:
        """End the worker now; `end` comes next."""

    @abstractmethod
    def end(self, deadline_s: float) -> None:
        """Wait until the worker has ended, and let go of it.

        :param deadline_s: of `time.monotonic`; what takes longer is killed.
        """


class UnityEnvWorker(EnvWorker):
    """A worker in a process of its own, which is started here."""

    def __init__(self, options: WorkerOptions):
        super().__init__(options.worker_id)
        self.process, self.conn = start_worker(options)
        self._reader = StepsReader()
        self._patience_s: Optional[float] = None
        self._asked_s = 0.0

    def send(self, cmd: EnvironmentCommand, payload: Any = None) -> None:
        """See `EnvWorker`; where the process is gone, that shows when its answer is read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send(self.conn, EnvironmentRequest(cmd, payload))

    def ask(self, cmd: EnvironmentCommand, payload: Any, patience_s: Optional[float]) -> None:
        """See `EnvWorker`."""
        self._patience_s, self._asked_s = patience_s, time.monotonic()
        super().ask(cmd, payload, patience_s)

    @staticmethod
    def wait_for_any(workers: Sequence[UnityEnvWorker], timeout_s: float) -> List[UnityEnvWorker]:
        """See `EnvWorker`."""
        ready = wait([worker.conn for worker in workers], timeout_s)
        return [worker for worker in workers if worker.conn in ready]

    def recv(self) -> EnvironmentResponse:
        """See `EnvWorker`."""
        try:
            response: EnvironmentResponse = receive(self.conn)
        except (EOFError, ConnectionResetError, BrokenPipeError):
            return self._failure(UnityEnvironmentException, f"Its process {self._describe_end()}.")
        return response

    def read(self, step: Any, specs: Mapping[BehaviorName, BehaviorSpec]) -> AllStepResult:
        """Return a step from shared memory."""
        return self._reader.read(step, specs)

    @property
    def is_late(self) -> bool:
        """See `EnvWorker`."""
        return self.waiting and self._patience_s is not None and time.monotonic() > self._asked_s + self._patience_s

    def give_up(self) -> EnvironmentResponse:
        """See `EnvWorker`."""
        self.kill()
        return self._failure(
            UnityTimeOutException, f"It did not answer within {self._patience_s:.0f} s (timeout_wait and some more)."
        )

    def _failure(self, kind: Type[UnityException], message: str) -> EnvironmentResponse:
        return EnvironmentResponse(EnvironmentCommand.ENV_EXITED, self.worker_id, Failure(kind.__name__, message))

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None

    def _describe_end(self) -> str:
        try:
            code = self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its connection"
        if code >= 0:
            return f"ended with exit code {code}"
        numbers = {number.value: number.name for number in signal.Signals}
        return f"was killed by {numbers.get(-code, f'signal {-code}')}"

    def request_close(self) -> None:
        """See `EnvWorker`."""
        self.send(EnvironmentCommand.CLOSE)

    def kill(self) -> None:
        """End the process now, with all that it started."""
        kill_descendants(self.process.pid)
        self.process.kill()
        self.process.wait()

    def end(self, deadline_s: float) -> None:
        """See `EnvWorker`."""
        self._wait_for_end(deadline_s)
        self.conn.close()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def _wait_for_end(self, deadline_s: float) -> None:
        while self.conn.poll(max(0.0, deadline_s - time.monotonic())):
            response = self.recv()
            if response.cmd is EnvironmentCommand.CLOSED:
                timers.get_timer_root().merge(response.payload, f"worker{self.worker_id}")
                break
            if response.cmd is EnvironmentCommand.ENV_EXITED:
                if self.has_ended:
                    return
                logger.warning(f"Worker {self.worker_id} failed while it was closed: {response.payload.message}")
        try:
            self.process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.warning(f"Worker {self.worker_id} does not close, and is ended.")
            self.kill()


class LocalEnvWorker(EnvWorker):
    """A worker whose environment, a `UnityEnvironment`, has a process of its own and is spoken to from this one.

    That saves the way through another process at every step. It starts in a thread, since that may take until somebody
    presses Play; steps are sent and read in the thread that asks for them. The environment has time-outs of its own.
    """

    def __init__(self, host: EnvironmentHost, worker_id: int):
        super().__init__(worker_id)
        self._host = host
        self._start: Optional[threading.Thread] = None
        self._error: Optional[Exception] = None
        self._is_given_up = False
        self._children: List[psutil.Process] = []  # of this process, before the environment started its own

    def send(self, cmd: EnvironmentCommand, payload: Any) -> None:
        """See `EnvWorker`."""
        if cmd is EnvironmentCommand.STEP:
            self._step(payload)
        elif cmd in (EnvironmentCommand.RESET, EnvironmentCommand.RESTART):
            self._error = None
            self._children = psutil.Process().children()
            self._start = threading.Thread(target=self._begin, args=(cmd, payload), daemon=True)
            self._start.start()
        elif cmd is EnvironmentCommand.ENVIRONMENT_PARAMETERS:
            self._host.set_parameters(payload)
        elif cmd is EnvironmentCommand.TRAINING_STARTED:
            self._host.send_analytics(payload)

    def _begin(self, cmd: EnvironmentCommand, samplers: Mapping[str, Any]) -> None:
        try:
            if cmd is EnvironmentCommand.RESET:
                self._host.reset(samplers)
            else:
                self._host.restart(samplers)
        except Exception as error:
            self._error = error
        if self._is_given_up:
            self._host.abandon()

    @property
    def _env(self) -> UnityEnvironment:
        return cast("UnityEnvironment", self._host.env)

    def _step(self, actions: Mapping[BehaviorName, Any]) -> None:
        try:
            self._host.set_actions(actions)
            self._env.step_async()
        except Exception as error:
            self._error = error

    @staticmethod
    def wait_for_any(workers: Sequence[LocalEnvWorker], timeout_s: float) -> List[LocalEnvWorker]:
        """See `EnvWorker`; there is but one."""
        return [worker for worker in workers if worker._has_answered(timeout_s)]

    def _has_answered(self, timeout_s: float) -> bool:
        if self._start is not None:
            self._start.join(timeout_s)
            return not self._start.is_alive()
        try:
            return self._error is not None or self._env.is_step_over(timeout_s)
        except Exception as error:
            self._error = error
            return True

    def recv(self) -> EnvironmentResponse:
        """See `EnvWorker`."""
        cmd = EnvironmentCommand.STEP if self._start is None else EnvironmentCommand.RESET
        try:
            if self._error is not None:
                raise self._error
            if self._start is None:
                self._env.step_wait()
            results, new_specs, stats = self._host.observe()
        except Exception as error:
            return EnvironmentResponse(EnvironmentCommand.ENV_EXITED, self.worker_id, Failure.of(error))
        finally:
            self._start = self._error = None
        return EnvironmentResponse(cmd, self.worker_id, StepResponse(results, stats, new_specs))

    def read(self, step: Any, specs: Mapping[BehaviorName, BehaviorSpec]) -> AllStepResult:
        """Return the step, which is here already."""
        result: AllStepResult = step
        return result

    def give_up(self) -> EnvironmentResponse:
        """Nothing is late here."""
        raise NotImplementedError

    def request_close(self) -> None:
        """Nothing to prepare."""

    def kill(self) -> None:
        """End the process of an environment that is starting; if it has none, being the Editor, nobody waits for it."""
        self._is_given_up = True
        for process in set(psutil.Process().children()).difference(self._children):
            kill_descendants(process.pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def end(self, deadline_s: float) -> None:
        """Close the environment, which ends its process within a time of its own."""
        if self._start is not None:
            self._start.join(_END_S if self._is_given_up else None)
            if self._start.is_alive():
                return
        try:
            self._host.close()
        except Exception as error:
            logger.warning(f"Worker {self.worker_id} failed while it was closed: {error}")
