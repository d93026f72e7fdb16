"""Environments in processes of their own, any number of them, which simulate beside each other and beside training."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Type

import cloudpickle

from mlagents.trainers.env_manager import EnvironmentStep, EnvManager
from mlagents.trainers.env_worker import (
    EnvironmentCommand,
    EnvironmentResponse,
    Failure,
    StepResponse,
    WorkerOptions,
)
from mlagents.trainers.environment_host import EnvFactory, EnvironmentHost
from mlagents.trainers.restart_limits import RestartLimits
from mlagents.trainers.settings import RunOptions, TrainerSettings
from mlagents.trainers.training_analytics_side_channel import TrainingAnalyticsSideChannel
from mlagents.trainers.workers import EnvWorker, LocalEnvWorker, UnityEnvWorker
from mlagents_envs import logging_util
from mlagents_envs.base_env import BehaviorName, BehaviorSpec
from mlagents_envs.exception import (
    UnityCommunicatorStoppedException,
    UnityEnvironmentException,
    UnityException,
    UnityObservationException,
    UnityTimeOutException,
)
from mlagents_envs.shared_steps import make_shared_folder
from mlagents_envs.timers import hierarchical_timer

logger = logging_util.get_logger(__name__)

WORKER_SHUTDOWN_TIMEOUT_S = 10
_STOP_CHECK_INTERVAL_S = 0.25
_STEP_GRACE_S, _START_GRACE_S = 10.0, 60.0
"""How much longer than its environment's own time-out a worker is waited for, to step and to start."""


class SubprocessEnvManager(EnvManager):
    """Steps `n_env` environments, each in its own process.

    A step takes in whatever workers have answered and hands out the next actions, of one decision for all of them: none
    waits for a slower one, and all simulate while the trainer collects and learns.

    A worker that fails is started anew within the limits of `env_settings` while the others go on; its episodes under
    way are dropped. That the Editor stops is no failure but a pause, which lasts until it plays again.

    :param env_factory: called in the worker's process, with its id and side channels.
    :param stop_requested: asked now and then while nothing comes; then a step returns without any.
    :param on_pause: called when the Editor stops.
    :param has_own_process: environments are `UnityEnvironment`s, whose simulation is another process anyway. A single
        one needs no worker's process between: it is spoken to from this one.
    """

    def __init__(
        self,
        env_factory: EnvFactory,
        run_options: RunOptions,
        n_env: int = 1,
        stop_requested: Callable[[], bool] = lambda: False,
        on_pause: Callable[[], None] = lambda: None,
        has_own_process: bool = False,
    ):
        super().__init__()
        self.run_options = run_options
        self.env_parameters: Dict[str, Any] = {}
        self.limits = RestartLimits(run_options.env_settings)
        self._stop_requested = stop_requested
        self._on_pause = on_pause
        self._is_editor = run_options.env_settings.env_path is None
        self._env_factory = env_factory
        self._worker_kind: Type[EnvWorker] = LocalEnvWorker if has_own_process and n_env == 1 else UnityEnvWorker
        self._folder = make_shared_folder()
        self._specs: Dict[BehaviorName, BehaviorSpec] = {}
        self._has_begun = False
        self._analytics: Optional[TrainingAnalyticsSideChannel] = None
        self.env_workers: List[EnvWorker] = []
        try:
            for worker_id in range(n_env):
                self.env_workers.append(self._start_worker(worker_id))
        except BaseException:
            self.close()
            raise
        if self._is_editor:
            self._analytics = TrainingAnalyticsSideChannel()
            self._analytics.environment_initialized(run_options)
            self._send_analytics()

    def _start_worker(self, worker_id: int) -> EnvWorker:
        engine_settings = self.run_options.engine_settings
        if self._worker_kind is LocalEnvWorker:
            return LocalEnvWorker(EnvironmentHost(self._env_factory, worker_id, engine_settings), worker_id)
        return UnityEnvWorker(
            WorkerOptions(
                cloudpickle.dumps(self._env_factory),
                worker_id,
                engine_settings,
                self._folder.name,
                logging_util.root_logger().level,
            )
        )

    # Steps

    def _step(self) -> List[EnvironmentStep]:
        idle = [worker for worker in self.env_workers if not worker.waiting]
        if idle:
            self._hand_out(idle)
        steps: List[EnvironmentStep] = []
        while not steps and not self._stop_requested():
            steps = self._take_in(self._answers())
        # Before the steps are collected and learned from, so that their workers simulate meanwhile.
        self._hand_out([self.env_workers[step.worker_id] for step in steps if self._can_be_decided(step)])
        return steps

    def _hand_out(self, workers: List[EnvWorker]) -> None:
        """Decide on the last steps of some workers, and let them go on."""
        for worker, decisions in zip(workers, self._decide([worker.previous_step for worker in workers])):
            worker.previous_all_action_info = decisions
            actions = {name: of.env_action for name, of in decisions.items() if len(of.agent_ids)}
            self._ask(worker, EnvironmentCommand.STEP, actions)

    def _can_be_decided(self, step: EnvironmentStep) -> bool:
        """Return whether all behaviours have a policy, and no value keeps the step from being used."""
        managers = [self.agent_managers.get(name) for name in step.name_behavior_ids if name in self.policies]
        results = step.current_all_step_result.values()
        return len(managers) == len(results) and all(
            manager is None or manager.approve(*batches) for manager, batches in zip(managers, results)
        )

    def _reset_env(self, config: Optional[Mapping[str, Any]] = None) -> List[EnvironmentStep]:
        """See `EnvManager`.

        :raises KeyboardInterrupt: to stop is requested before all have started.
        """
        self.env_parameters.update(config or {})
        for worker in self.env_workers:
            self._ask(worker, EnvironmentCommand.RESET, self.env_parameters)
        while any(worker.waiting for worker in self.env_workers):
            if self._stop_requested():
                raise KeyboardInterrupt
            # Steps that were under way when the reset came are read, since memory may be announced with them.
            self._take_in(self._answers())
        self._has_begun = True
        return [worker.previous_step for worker in self.env_workers]

    def _ask(self, worker: EnvWorker, cmd: EnvironmentCommand, payload: Any) -> None:
        patience_s: float = self.run_options.env_settings.timeout_wait
        if cmd is EnvironmentCommand.STEP:
            patience_s += _STEP_GRACE_S
        else:  # the environment may wait its time-out for its executable, and again for the first step
            patience_s += patience_s + _START_GRACE_S
        worker.ask(cmd, payload, None if self._is_editor else patience_s)

    def _answers(self) -> List[EnvironmentResponse]:
        """Return what the workers have to say; wait for one, but not for long."""
        waiting = [worker for worker in self.env_workers if worker.waiting]
        with hierarchical_timer("wait"):
            ready = self._worker_kind.wait_for_any(waiting, _STOP_CHECK_INTERVAL_S)
        answers = []
        for worker in waiting:
            if worker in ready:
                answers.append(worker.recv())
            elif worker.is_late:
                answers.append(worker.give_up())
        return answers

    def _take_in(self, answers: List[EnvironmentResponse]) -> List[EnvironmentStep]:
        """Return the steps among the answers; restart workers that have failed instead."""
        steps = []
        for answer in answers:
            worker = self.env_workers[answer.worker_id]
            if answer.cmd is EnvironmentCommand.ENV_EXITED:
                self._lose_worker(worker.worker_id)
                self._restart(worker, answer.payload)
            else:
                steps.append(self._read_step(worker, answer.cmd, answer.payload))
        return steps

    def _read_step(self, worker: EnvWorker, cmd: EnvironmentCommand, response: StepResponse) -> EnvironmentStep:
        if cmd is EnvironmentCommand.RESET:
            worker.is_starting = False
            worker.previous_all_action_info = {}
        worker.waiting = worker.is_starting  # else this is a step that was under way when the reset came
        for name, spec in response.new_specs.items():
            self._check_spec(worker, name, spec)
        worker.previous_step = EnvironmentStep(
            worker.read(response.all_step_result, self._specs),
            worker.worker_id,
            worker.previous_all_action_info,
            response.environment_stats,
        )
        return worker.previous_step

    def _check_spec(self, worker: EnvWorker, name: BehaviorName, spec: BehaviorSpec) -> None:
        known = self._specs.setdefault(name, spec)
        if spec != known:
            raise UnityEnvironmentException(
                f"Worker {worker.worker_id}: behavior {name} is not what it was when it was first seen in this run: "
                f"{spec}, where it was {known}. A run keeps to one specification; start another one for the new."
            )

    # Restarting

    def _restart(self, worker: EnvWorker, failure: Failure) -> None:
        """Let a worker whose environment failed start anew.

        :raises UnityException: it may not; the error says why.
        """
        error = failure.error(worker.worker_id)
        if not self._has_begun or not failure.is_foreseen:
            raise error
        if self._is_editor:
            self._pause(worker, error)
        else:
            self._count_restart(worker.worker_id, error)
        if worker.has_ended:
            worker.end(deadline_s=0.0)
            worker = self.env_workers[worker.worker_id] = self._start_worker(worker.worker_id)
        self._ask(worker, EnvironmentCommand.RESTART, self.env_parameters)

    def _pause(self, worker: EnvWorker, error: UnityException) -> None:
        """Save and say that the Editor is waited for; while that lasts, its time-outs are no news."""
        if worker.is_starting:
            if not isinstance(error, UnityTimeOutException):
                raise error
            return
        self._on_pause()
        cause = "" if isinstance(error, UnityCommunicatorStoppedException) else f" What happened: {error}"
        logger.info(
            f"The Editor stopped. What was learned is saved; press Play to go on, or Ctrl-C to end the run.{cause}"
        )

    def _count_restart(self, worker_id: int, error: UnityException) -> None:
        reason = self.limits.count(worker_id)
        if reason is not None:
            raise type(error)(f"Worker {worker_id} failed and is not started again: {reason}. What happened: {error}")
        logger.warning(
            f"Worker {worker_id} failed and starts anew (restart {self.limits.counts[worker_id]}); the others go "
            f"on. What happened: {error}"
        )

    def _step_refused(self, step: EnvironmentStep, error: UnityObservationException) -> None:
        """Restart the worker whose step cannot be used."""
        self._restart(self.env_workers[step.worker_id], Failure.of(error))

    # What else workers are told

    def set_env_parameters(self, config: Optional[Mapping[str, Any]] = None) -> None:
        """Send environment parameters, name to sampler, to all environments."""
        self.env_parameters.update(config or {})
        for worker in self.env_workers:
            worker.send(EnvironmentCommand.ENVIRONMENT_PARAMETERS, dict(config or {}))

    def on_training_started(self, behavior_name: str, trainer_settings: TrainerSettings) -> None:
        """Tell the Editor, for its statistics, how a behaviour is trained."""
        if self._analytics is not None:
            self._analytics.training_started(behavior_name, trainer_settings)
            self._send_analytics()

    def _send_analytics(self) -> None:
        if self._analytics is not None:
            for message in self._analytics.message_queue:
                self.env_workers[0].send(EnvironmentCommand.TRAINING_STARTED, bytes(message))
            self._analytics.message_queue.clear()

    @property
    def training_behaviors(self) -> Dict[BehaviorName, BehaviorSpec]:
        """The behaviours seen so far in any environment, by id."""
        return dict(self._specs)

    def state_dict(self) -> Dict[str, Any]:
        """Return how often workers were started anew: their episodes under way cannot be saved."""
        return {"restarts": self.limits.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """See `EnvManager`."""
        if "restarts" in state:
            self.limits.load_state_dict(state["restarts"])
        return False

    def close(self) -> None:
        """Close all environments; a worker that takes too long is ended, and one that is only starting at once."""
        for worker in self.env_workers:
            if worker.is_starting:
                worker.kill()
            else:
                worker.request_close()
        deadline_s = time.monotonic() + WORKER_SHUTDOWN_TIMEOUT_S
        for worker in self.env_workers:
            worker.end(deadline_s)
        self.env_workers = []
        self._folder.cleanup()
