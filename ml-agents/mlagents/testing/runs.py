"""Runs of the trainer under test, made of the parts that `mlagents-learn` is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from mlagents.plugins.trainer_type import get_settings_class
from mlagents.testing.tasks import SMALL_MEMORY, SMALL_NETWORK, Task, small_hyperparameters
from mlagents.torch_utils import default_device, set_torch_config, torch
from mlagents.trainers.env_manager import EnvironmentStep
from mlagents.trainers.run_directory import RunDirectory
from mlagents.trainers.run_state import RandomState, seed_everything
from mlagents.trainers.settings import RunOptions, TorchSettings
from mlagents.trainers.simple_env_manager import SimpleEnvManager
from mlagents.trainers.stats import StatsReporter, StatsSummary, StatsWriter
from mlagents.trainers.stop_request import StopRequest
from mlagents.trainers.terminal import ProgressDisplay
from mlagents.trainers.trainer import TrainerFactory
from mlagents.trainers.trainer_controller import TrainerController
from mlagents_envs import logging_util
from mlagents_envs.base_env import BaseEnv
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel

N_SUMMARIES = 4
"""Per run."""


class ScoringEnvManager(SimpleEnvManager):
    """Steps an environment, counts what it pays, whatever the trainer makes of that, and asks to stop at a limit.

    :param stop: what is asked.
    :ivar max_decisions: of all agents together.
    :ivar max_episodes: of all agents together.
    :ivar returns: of the episodes that ended, in the order of their ends.
    """

    def __init__(self, env: BaseEnv, stop: StopRequest):
        super().__init__(env, EnvironmentParametersChannel())
        self.stop = stop
        self.max_decisions = math.inf
        self.max_episodes = math.inf
        self.n_decisions = 0
        self.returns: List[float] = []
        self._earned = np.zeros(0)
        """By agent id, in the episode under way."""

    def process_steps(self, new_step_infos: List[EnvironmentStep]) -> int:
        """Count, and hand the experience on."""
        for step_info in new_step_infos:
            for decisions, terminals in step_info.current_all_step_result.values():
                self._pay(terminals.agent_id, terminals.reward)
                self.returns += self._earned[terminals.agent_id].tolist()
                self._earned[terminals.agent_id] = 0.0
                self._pay(decisions.agent_id, decisions.reward)
                self.n_decisions += len(decisions)
        if self.n_decisions >= self.max_decisions or len(self.returns) >= self.max_episodes:
            self.stop.requested = True
        return super().process_steps(new_step_infos)

    def _pay(self, agent_ids: np.ndarray, rewards: np.ndarray) -> None:
        if agent_ids.size and agent_ids.max() >= len(self._earned):
            self._earned = np.pad(self._earned, (0, agent_ids.max() + 1 - len(self._earned)))
        self._earned[agent_ids] += rewards


class StatisticsWatch(StatsWriter):
    """Notes what is wrong with the statistics that a trainer reports.

    :ivar n_summaries: how many were written.
    :ivar not_finite: the first value of each statistic that was NaN or infinite.
    """

    def __init__(self) -> None:
        self.n_summaries = 0
        self.not_finite: Dict[str, float] = {}

    def write_stats(self, category: str, values: Dict[str, StatsSummary], step: int) -> None:
        """Look at all values since the last summary."""
        self.n_summaries += 1
        for key, summary in values.items():
            wrong = summary.values[~np.isfinite(summary.values)]
            if wrong.size:
                self.not_finite.setdefault(key, float(wrong[0]))


@dataclass(frozen=True)
class Subject:
    """The trainer under test, and what all of its runs share.

    :param trainer_type: as configurations name it.
    :param hyperparameters: on top of those for small runs.
    :param network_settings: on top of a small network, and under `memory` of a small memory.
    :param max_steps: agent steps of a training run; None for what the task gives.
    :param folder: of the runs, one for each task.
    """

    trainer_type: str
    hyperparameters: Mapping[str, Any]
    network_settings: Mapping[str, Any]
    seed: int
    max_steps: Optional[int]
    folder: Path

    @property
    def has_memory(self) -> bool:
        """Whether its networks are to have a memory."""
        return self.network_settings.get("memory") is not None

    def options(self, task: Task, max_steps: Optional[int] = None, **checkpoint_settings: Any) -> RunOptions:
        """Return what `mlagents-learn` would read from a configuration for a task.

        :param max_steps: instead of those of a whole training run.
        :raises TrainerConfigError: there is no such trainer type, or a setting is not one of its own.
        """
        small_run = small_hyperparameters(get_settings_class(self.trainer_type), self.has_memory)
        max_steps = max_steps or self.max_steps or task.max_steps
        network_settings = {**SMALL_NETWORK, "normalize": task.normalize, **self.network_settings}
        if self.has_memory:
            network_settings["memory"] = {**SMALL_MEMORY, **self.network_settings["memory"]}
        behavior = {
            "trainer_type": self.trainer_type,
            "hyperparameters": {**small_run, **self.hyperparameters},
            "network_settings": network_settings,
            "reward_signals": {"extrinsic": {"gamma": task.gamma}},
            "max_steps": max_steps,
            "summary_freq": max(1, max_steps // N_SUMMARIES),
        }
        checkpoint_settings = {"results_dir": str(self.folder), "run_id": task.name, **checkpoint_settings}
        return RunOptions.from_dict({"default_settings": behavior, "checkpoint_settings": checkpoint_settings})


class Run:
    """A trainer and its environment, ready to begin.

    :param options: with the trainer under test for every behaviour.
    :param seed: of everything random.
    :ivar path: the run's folder.
    :raises TrainerConfigError: the trainer refuses the task.
    """

    def __init__(self, task: Task, options: RunOptions, seed: int):
        settings = options.checkpoint_settings
        self.path = Path(settings.write_path)
        self.statistics = StatisticsWatch()
        self._stop = StopRequest()
        self._env_manager = ScoringEnvManager(task.make_env(seed=seed), self._stop)
        seed_everything(seed)
        factory = TrainerFactory(
            trainer_config=options.behaviors,
            output_path=str(self.path),
            train_model=not settings.inference,
            load_model=RunDirectory(settings).loads_own_state,
            seed=seed,
            status={},
        )
        self._controller = TrainerController(factory, {}, not settings.inference, self._stop, ProgressDisplay())
        self._controller.reset(self._env_manager)
        (self.trainer,) = self._controller.trainers.values()

    @property
    def returns(self) -> List[float]:
        """The returns of the episodes that ended, as the environment paid them."""
        return self._env_manager.returns

    def go(self, max_decisions: float = math.inf, max_episodes: float = math.inf) -> bool:
        """Train and save, or only act, until done or at a limit; return whether it was done.

        :param max_decisions: of all agents together.
        :param max_episodes: of all agents together.
        """
        self._env_manager.max_decisions, self._env_manager.max_episodes = max_decisions, max_episodes
        StatsReporter.add_writer(self.statistics)
        try:
            self._controller.start_learning(self._env_manager)
        finally:
            StatsReporter.close_writers()
        return not self._stop.requested


@contextmanager
def process_left_as_it_was() -> Iterator[None]:
    """Run on one thread of the CPU and log only warnings; afterwards the settings of the process are as before."""
    log_level = logging_util.root_logger().level
    n_threads, device = torch.get_num_threads(), str(default_device())
    random_state = RandomState()
    before = random_state.state_dict()
    writers = list(StatsReporter.writers)
    StatsReporter.writers.clear()
    logging_util.set_log_level(logging_util.WARNING)
    set_torch_config(TorchSettings(device="cpu"))
    torch.set_num_threads(1)
    try:
        yield
    finally:
        set_torch_config(TorchSettings(device=device))
        torch.set_num_threads(n_threads)
        logging_util.set_log_level(log_level)
        StatsReporter.writers.extend(writers)
        random_state.load_state_dict(before)
