"""PPO on the built-in 3DBall as shipped, against its floor: the environment alone and the arithmetic in bare torch."""

from __future__ import annotations

import itertools
import statistics
from typing import Dict, NamedTuple, Tuple

import torch

from benchmarks.bare_ppo import OBS, BarePPO
from benchmarks.probe import ProbedBall
from benchmarks.tables import REPEATS, print_table, seconds_per_call
from benchmarks.training import count, seconds, train

MAX_STEPS = 48_000
AGENTS, BATCH_SIZE = 12, 64
CLAIM = 0.30


class Figures(NamedTuple):
    """One run of training beside its floor; times in seconds."""

    steps: int
    total: float
    environment: float
    parts: Dict[str, Tuple[float, float]]  # measured, floor

    @property
    def floor(self) -> float:
        """The environment's own time and the bare arithmetic."""
        return self.environment + sum(floor for _, floor in self.parts.values())

    @property
    def overhead(self) -> float:
        """What training takes beyond the floor, as a share of the floor."""
        return self.total / self.floor - 1.0


def measure() -> Figures:
    """Train once, then measure in the same process what its forwards and updates cost in bare torch."""
    tree = train(MAX_STEPS)
    decisions = ProbedBall.decisions
    steps = AGENTS * decisions
    trajectories = count(tree, "TorchOptimizer.get_trajectory_value_estimates")
    updates = count(tree, "TorchPPOOptimizer.update")
    act_s, values_s, update_s = bare_seconds(rows=steps // trajectories + 1)
    update_total = seconds(tree, "_update_policy")
    processing = seconds(tree, "process_trajectory")
    acting = seconds(tree, "TorchPolicy.evaluate")
    collecting = seconds(tree, "add_experiences")
    rest = tree["total"] - ProbedBall.seconds - acting - collecting - processing - update_total
    return Figures(
        steps=steps,
        total=tree["total"],
        environment=ProbedBall.seconds,
        parts={
            f"acting ({decisions} forwards)": (acting, decisions * act_s),
            "collecting": (collecting, 0.0),
            f"trajectories ({trajectories})": (processing, trajectories * values_s),
            f"updates ({updates} minibatches)": (update_total, updates * update_s),
            "the loop around them": (rest, 0.0),
        },
    )


def bare_seconds(rows: int) -> Tuple[float, float, float]:
    """Return the bare times of acting, of the values of a trajectory, and of an update, each at its best setting.

    :param rows: of a trajectory.
    """
    threads_before = torch.get_num_threads()
    acting, trajectory = torch.randn(AGENTS, OBS), torch.randn(rows, OBS)
    best = [float("inf")] * 3
    for n_threads, adam in itertools.product((1, 2), ("fused", "foreach")):
        torch.set_num_threads(n_threads)
        bare = BarePPO(adam, BATCH_SIZE)
        times = [
            seconds_per_call(lambda bare=bare: bare.act(acting)),  # type: ignore[misc]
            seconds_per_call(lambda bare=bare: bare.values(trajectory)),  # type: ignore[misc]
            seconds_per_call(bare.update),
        ]
        best = [min(pair) for pair in zip(best, times)]
    torch.set_num_threads(threads_before)
    return best[0], best[1], best[2]


def run() -> None:
    """Print the table: medians of five runs, the parts those of the run with the median overhead."""
    runs = sorted((measure() for _ in range(REPEATS)), key=lambda figures: figures.overhead)
    median = runs[len(runs) // 2]
    rows = [["environment", f"{median.environment:.2f}", f"{median.environment:.2f}"]]
    rows += [[name, f"{measured:.2f}", f"{floor:.2f}"] for name, (measured, floor) in median.parts.items()]
    rows += [["total", f"{median.total:.2f}", f"{median.floor:.2f}"]]
    rows += [["agent steps/s", f"{median.steps / median.total:.0f}", f"{median.steps / median.floor:.0f}"]]
    print_table(f"PPO on the built-in 3DBall, {median.steps} agent steps: seconds", ["part", "measured", "floor"], rows)
    speeds = [figures.steps / figures.total for figures in runs]
    print(f"  agent steps/s end to end: median {statistics.median(speeds):.0f} of {[round(s) for s in speeds]}")
    overheads = [f"{figures.overhead:.0%}" for figures in runs]
    print(f"  overhead over the floor: median {median.overhead:.0%} of {overheads} (claim: at most {CLAIM:.0%})")
