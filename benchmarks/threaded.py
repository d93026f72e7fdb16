"""`threaded: true` against `false`: N steps of PPO on 3DBall as shipped, with their updates, from end to end.

Where a step of the environment waits for 5 ms, as for an engine, and where it computes in this process. The settings
take turns, for the machine's speed may drift. The most that threads can gain is that the shorter of collection and
updates costs nothing.
"""

from __future__ import annotations

import statistics
import time
from typing import Callable, ClassVar, Dict, List, NamedTuple

from benchmarks.tables import print_table
from benchmarks.training import seconds, train
from mlagents.trainers.trainer import update_thread
from mlagents_envs import timers
from mlagents_envs.builtin.ball3d import Ball3DEnv

REPEATS = 3
STEP_S = 0.005
CLAIM = 1.2


class SleepingBall(Ball3DEnv):
    """3DBall whose steps wait."""

    num_areas: ClassVar[int] = 1

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed=seed, num_areas=self.num_areas)

    def step(self) -> None:
        """Wait, and step."""
        time.sleep(STEP_S)
        super().step()


class FourSleepingAreas(SleepingBall):
    """The same with 48 agents."""

    num_areas = 4


class Figures(NamedTuple):
    """One run, in seconds."""

    total: float
    updates: float


class Case(NamedTuple):
    """An environment, as ``--env`` takes it, and for how many agent steps it is trained on."""

    title: str
    env: str
    max_steps: int


CASES = [
    Case("12 agents, steps wait 5 ms", "module:benchmarks.threaded:SleepingBall", 36_000),
    Case("48 agents, steps wait 5 ms", "module:benchmarks.threaded:FourSleepingAreas", 60_000),
    Case("12 agents, steps compute", "3DBall", 60_000),
]


def measure(case: Case, threaded: bool) -> Figures:
    """Train once."""
    loop = train(case.max_steps, env=case.env, threaded=threaded)
    return Figures(float(loop["total"]), seconds(timers.get_timer_tree(), "_update_policy"))


def measure_always_beside(case: Case) -> Figures:
    """Train once with updates beside collection even where that computes."""
    usual = update_thread.MIN_WAITING_SHARE
    update_thread.MIN_WAITING_SHARE = -1.0
    try:
        return measure(case, threaded=True)
    finally:
        update_thread.MIN_WAITING_SHARE = usual


SETTINGS: Dict[str, Callable[[Case], Figures]] = {
    "false": lambda case: measure(case, False),
    "true": lambda case: measure(case, True),
    "true, always beside": measure_always_beside,
}


def run() -> None:
    """Print the table: medians of three runs; the gain is that of runs next to each other."""
    rows: List[List[str]] = []
    for case in CASES:
        runs: Dict[str, List[Figures]] = {name: [] for name in SETTINGS}
        for _ in range(REPEATS):
            for name, measure_setting in SETTINGS.items():
                runs[name].append(measure_setting(case))
        for name, figures in runs.items():
            total, updates = (statistics.median(column) for column in zip(*figures))
            gain = statistics.median(plain.total / this.total for plain, this in zip(runs["false"], figures))
            bound = statistics.median(
                plain.total / max(plain.total - plain.updates, plain.updates) for plain in runs["false"]
            )
            rows.append([f"{case.title}: {name}", f"{total:.2f}", f"{updates:.2f}", f"{gain:.2f}", f"{bound:.2f}"])
    print_table(
        f"3DBall, threaded (claim: a gain of {CLAIM} where steps wait and updates take long enough, 1.0 elsewhere)",
        ["", "seconds", "of updates", "gain", "at most"],
        rows,
    )
