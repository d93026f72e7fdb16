"""PPO on the built-in 3DBall as shipped, against its floor: the environment alone and the arithmetic in bare torch.

The machine's speed may drift within seconds. So the bare arithmetic is not timed before or after the training but in
between: every fifty decisions training pauses, and a few bare forwards and updates are timed.
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Callable, Dict, List, NamedTuple, Tuple

import torch

from benchmarks.bare_ppo import OBS, BarePPO
from benchmarks.probe import ProbedBall
from benchmarks.tables import REPEATS, print_table, seconds_per_call
from benchmarks.training import count, seconds, train

MAX_STEPS = 200_000
AGENTS, BATCH_SIZE = 12, 64
TRAJECTORY_ROWS = 100
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


class BareTimes:
    """Times bare forwards and updates, a few at a time, each with its best setting of threads and Adam."""

    def __init__(self) -> None:
        self._acting, self._trajectory = torch.randn(AGENTS, OBS), torch.randn(TRAJECTORY_ROWS, OBS)
        best: Dict[str, Tuple[float, int, BarePPO]] = {}
        for n_threads, adam in itertools.product((1, 2), ("fused", "foreach")):
            torch.set_num_threads(n_threads)
            bare = BarePPO(adam, BATCH_SIZE)
            for name, call in self._calls(bare).items():
                found = (seconds_per_call(call), n_threads, bare)
                best[name] = min(best.get(name, found), found, key=lambda entry: entry[0])
        self._best = {name: (n_threads, self._calls(bare)[name]) for name, (_, n_threads, bare) in best.items()}
        self._samples: Dict[str, List[float]] = {name: [] for name in best}

    def _calls(self, bare: BarePPO) -> Dict[str, Callable[[], object]]:
        return {
            "act": lambda: bare.act(self._acting),
            "values": lambda: bare.values(self._trajectory),
            "update": bare.update,
        }

    def sample(self) -> None:
        """Time some calls as they come in training: forwards one by one after a step, updates in a row."""
        threads_before = torch.get_num_threads()
        for name, (n_threads, call) in self._best.items():
            torch.set_num_threads(n_threads)
            n_calls = 1
            if name == "update":
                call()
                n_calls = 4
            start = time.perf_counter()
            for _ in range(n_calls):
                call()
            self._samples[name].append((time.perf_counter() - start) / n_calls)
        torch.set_num_threads(threads_before)

    def mean(self, name: str) -> float:
        """Return the mean time of a call, over the training."""
        return statistics.fmean(self._samples[name])


def measure() -> Figures:
    """Train once."""
    bare = BareTimes()
    ProbedBall.interlude = bare.sample
    tree = train(MAX_STEPS)
    decisions = ProbedBall.decisions
    trajectories = count(tree, "TorchOptimizer.get_trajectory_value_estimates")
    updates = count(tree, "TorchPPOOptimizer.update")
    measured = {
        "acting": seconds(tree, "TorchPolicy.evaluate"),
        "collecting": seconds(tree, "add_experiences"),
        "trajectories": seconds(tree, "process_trajectory"),
        "updates": seconds(tree, "_update_policy"),
    }
    total = tree["total"] - ProbedBall.interlude_seconds
    rest = total - ProbedBall.seconds - sum(measured.values())
    return Figures(
        steps=AGENTS * decisions,
        total=total,
        environment=ProbedBall.seconds,
        parts={
            f"acting ({decisions} forwards)": (measured["acting"], decisions * bare.mean("act")),
            "collecting": (measured["collecting"], 0.0),
            f"trajectories ({trajectories})": (measured["trajectories"], trajectories * bare.mean("values")),
            f"updates ({updates} minibatches)": (measured["updates"], updates * bare.mean("update")),
            "the loop around them": (rest, 0.0),
        },
    )


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
    overheads = ", ".join(f"{figures.overhead:.0%}" for figures in runs)
    print(f"  overhead over the floor: median {median.overhead:.0%} of {overheads} (claim: at most {CLAIM:.0%})")
