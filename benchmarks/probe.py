"""3DBall that measures itself while it is trained on."""

from __future__ import annotations

import resource
import sys
import time
from typing import Callable, ClassVar, List, Tuple

from mlagents_envs.base_env import ActionTuple, BehaviorName, DecisionSteps, TerminalSteps
from mlagents_envs.builtin.ball3d import Ball3DEnv

INTERVAL = 500


class ProbedBall(Ball3DEnv):
    """The built-in 3DBall; keeps, per process, its own time and the process's peak memory.

    Every `INTERVAL` decisions it also calls `interlude`, whose time it keeps apart.
    """

    decisions: ClassVar[int] = 0
    seconds: ClassVar[float] = 0.0
    interlude_seconds: ClassVar[float] = 0.0
    interlude: ClassVar[Callable[[], object]] = staticmethod(lambda: None)
    peak_mib: ClassVar[List[float]] = []

    @classmethod
    def start_over(cls) -> None:
        """Forget what was measured."""
        cls.decisions, cls.seconds, cls.interlude_seconds, cls.peak_mib = 0, 0.0, 0.0, []

    def step(self) -> None:
        """Step, and measure."""
        start = time.perf_counter()
        super().step()
        ProbedBall.seconds += time.perf_counter() - start
        ProbedBall.decisions += 1
        if ProbedBall.decisions % INTERVAL == 0:
            start = time.perf_counter()
            ProbedBall.peak_mib.append(peak_memory_mib())
            ProbedBall.interlude()
            ProbedBall.interlude_seconds += time.perf_counter() - start

    def set_actions(self, behavior_name: BehaviorName, action: ActionTuple) -> None:
        """Set the actions, and measure."""
        start = time.perf_counter()
        super().set_actions(behavior_name, action)
        ProbedBall.seconds += time.perf_counter() - start

    def get_steps(self, behavior_name: BehaviorName) -> Tuple[DecisionSteps, TerminalSteps]:
        """Return the steps, and measure."""
        start = time.perf_counter()
        steps = super().get_steps(behavior_name)
        ProbedBall.seconds += time.perf_counter() - start
        return steps


def peak_memory_mib() -> float:
    """Return the largest memory that the process has had resident so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024
