"""Built-in environments that measure themselves while they are trained on."""

from __future__ import annotations

import resource
import sys
import time
from typing import Callable, ClassVar, List, Tuple

from mlagents_envs.base_env import ActionTuple, BehaviorName, DecisionSteps, TerminalSteps
from mlagents_envs.builtin.ball3d import Ball3DEnv
from mlagents_envs.builtin.gridworld import GridWorldEnv
from mlagents_envs.external.gymnasium_env import GymnasiumEnv
from mlagents_envs.external.gymnasium_ids import make_vector_env
from mlagents_envs.local_env import LocalEnv

INTERVAL = 500


class Probed(LocalEnv):
    """Keeps, per process, the number of decisions and the process's peak memory.

    Every `INTERVAL` decisions it also calls `interlude`, whose time it keeps apart.
    """

    decisions: ClassVar[int] = 0
    seconds: ClassVar[float] = 0.0
    interlude_seconds: ClassVar[float] = 0.0
    interlude: ClassVar[Callable[[], object]] = staticmethod(lambda: None)
    peak_mib: ClassVar[List[float]] = []

    @staticmethod
    def start_over() -> None:
        """Forget what was measured."""
        Probed.decisions, Probed.seconds, Probed.interlude_seconds, Probed.peak_mib = 0, 0.0, 0.0, []

    def step(self) -> None:
        """Step, and count."""
        super().step()
        Probed.decisions += 1
        if Probed.decisions % INTERVAL == 0:
            start = time.perf_counter()
            Probed.peak_mib.append(peak_memory_mib())
            Probed.interlude()
            Probed.interlude_seconds += time.perf_counter() - start


class Timed(LocalEnv):
    """Adds the environment's own time to `Probed.seconds`."""

    def step(self) -> None:
        """Step, and measure."""
        start = time.perf_counter()
        super().step()
        Probed.seconds += time.perf_counter() - start

    def set_actions(self, behavior_name: BehaviorName, action: ActionTuple) -> None:
        """Set the actions, and measure."""
        start = time.perf_counter()
        super().set_actions(behavior_name, action)
        Probed.seconds += time.perf_counter() - start

    def get_steps(self, behavior_name: BehaviorName) -> Tuple[DecisionSteps, TerminalSteps]:
        """Return the steps, and measure."""
        start = time.perf_counter()
        steps = super().get_steps(behavior_name)
        Probed.seconds += time.perf_counter() - start
        return steps


class ProbedBall(Probed, Timed, Ball3DEnv):
    """The built-in 3DBall."""


class ProbedGrid(Probed, Timed, GridWorldEnv):
    """The built-in GridWorld."""


class ProbedCartPole(Probed, GymnasiumEnv):
    """Gymnasium's CartPole-v1, whose time is measured apart."""

    def __init__(self, seed: int = 0, num_areas: int = 1):
        super().__init__(make_vector_env("CartPole-v1", num_areas, {}), "CartPole-v1", seed=seed)


class ProbedPendulum(Probed, GymnasiumEnv):
    """Gymnasium's Pendulum-v1, whose time is measured apart."""

    def __init__(self, seed: int = 0, num_areas: int = 1):
        super().__init__(make_vector_env("Pendulum-v1", num_areas, {}), "Pendulum-v1", seed=seed)


def peak_memory_mib() -> float:
    """Return the largest memory that the process has had resident so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024
