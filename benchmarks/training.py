"""Training as shipped, for a number of steps, with a probed environment."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Sequence

from benchmarks.probe import Probed
from mlagents.trainers import learn
from mlagents.trainers.stats import StatsReporter, StatsSummary, StatsWriter
from mlagents_envs import timers

CONFIGS = Path(__file__).parent.parent / "config"
PROBED_BALL = "module:benchmarks.probe:ProbedBall"


class TargetWriter(StatsWriter):
    """Notes when the mean reward of the episodes between two summaries first reaches a target, in seconds."""

    def __init__(self, target: float):
        self._target, self._started = target, time.perf_counter()
        self.reached_s = math.inf

    def write_stats(self, category: str, values: Dict[str, StatsSummary], step: int) -> None:
        """Look at the reward."""
        reward = values.get("Environment/Cumulative Reward")
        if reward is not None and reward.mean >= self._target and math.isinf(self.reached_s):
            self.reached_s = time.perf_counter() - self._started


def train(
    max_steps: int,
    seed: int = 1,
    env: str = PROBED_BALL,
    behavior: str = "3DBall",
    *,
    algorithm: str = "ppo",
    num_areas: int = 1,
    num_envs: int = 1,
    writers: Sequence[StatsWriter] = (),
    **settings: Any,
) -> Dict[str, Any]:
    """Train for `max_steps`, quietly; return the timers of the training loop, as `timers.json` has them.

    :param env: as ``--env`` takes it.
    :param behavior: whose configuration to take.
    :param algorithm: the folder of the configuration.
    :param writers: of statistics, besides the run's own.
    :param settings: of the behaviour, where they are to be others than in the configuration.

    Schedules run over the whole training, so that a part of it has the cost and the course of the real one.
    """
    Probed.start_over()
    with tempfile.TemporaryDirectory() as results, contextlib.redirect_stdout(io.StringIO()):
        arguments = [str(CONFIGS / algorithm / f"{behavior}.yaml"), "--env", env, "--seed", str(seed)]
        options = learn.parse_command_line([*arguments, "--results-dir", results, "--torch-device", "cpu"])
        options.env_settings.num_areas, options.env_settings.num_envs = num_areas, num_envs
        for name, value in {"max_steps": max_steps, **settings}.items():
            setattr(options.behaviors[behavior], name, value)
        for writer in writers:
            StatsReporter.add_writer(writer)
        learn.run_cli(options)
    loop: Dict[str, Any] = _find(timers.get_timer_tree(), "TrainerController.advance")
    return loop


def seconds(tree: Dict[str, Any], name: str) -> float:
    """Return the total time of a block of the timers, 0 if it never ran."""
    block = _find(tree, name)
    return float(block.get("total", 0.0))


def count(tree: Dict[str, Any], name: str) -> int:
    """Return how often a block of the timers ran."""
    return int(_find(tree, name).get("count", 0))


def _find(tree: Dict[str, Any], name: str) -> Dict[str, Any]:
    children: Dict[str, Dict[str, Any]] = tree.get("children", {})
    for key, child in children.items():
        found = child if key == name else _find(child, name)
        if found:
            return found
    return {}
