"""PPO with memory, and PPO on images, against their floors: the environment alone and the arithmetic in bare torch.

As in `end_to_end`, training pauses now and then, and the bare arithmetic is timed in between.
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any, Callable, Dict, List, NamedTuple, Tuple, Union

import torch

from benchmarks.bare_networks import BareGridPPO, BareRecurrentPPO
from benchmarks.probe import Probed
from benchmarks.tables import print_table, seconds_per_call
from benchmarks.training import count, train
from mlagents.trainers.settings import NetworkSettings
from mlagents_envs.builtin import gridworld

CLAIM = 0.30
RUNS = 3
SEQUENCE_LENGTH, MEMORY_SIZE = 64, 128
CALLS_PER_INTERLUDE = {"act": 30, "values": 10, "update": 10}

Bare = Union[BareRecurrentPPO, BareGridPPO]


class Workload(NamedTuple):
    """What is trained, and the same arithmetic bare.

    :param rows_per_value_pass: how many rows the bare `values` takes.
    """

    title: str
    env: str
    behavior: str
    max_steps: int
    n_agents: int
    rows_per_value_pass: int
    settings: Dict[str, Any]
    make_bare: Callable[[str], Bare]


WORKLOADS = [
    Workload(
        f"3DBall with memory (sequences of {SEQUENCE_LENGTH}, memory {MEMORY_SIZE})",
        "module:benchmarks.probe:ProbedBall",
        "3DBall",
        60_000,
        12,
        64,
        {
            "network_settings": NetworkSettings(
                normalize=True,
                memory=NetworkSettings.MemorySettings(sequence_length=SEQUENCE_LENGTH, memory_size=MEMORY_SIZE),
            )
        },
        lambda adam: BareRecurrentPPO(adam, 64, 12, SEQUENCE_LENGTH, MEMORY_SIZE),
    ),
    Workload(
        "GridWorld as shipped, 16 agents",
        "module:benchmarks.probe:ProbedGrid",
        "GridWorld",
        24_000,
        16,
        128,
        {},
        lambda adam: BareGridPPO(adam, 128, 16, 128, (3, gridworld.HEIGHT, gridworld.WIDTH)),
    ),
]


class BareCalls:
    """The bare calls, each with the setting of threads and Adam that is best for it, timed now and then."""

    def __init__(self, make_bare: Callable[[str], Bare]):
        best: Dict[str, Tuple[float, int, Bare]] = {}
        for n_threads, adam in itertools.product((1, 2), ("fused", "foreach")):
            torch.set_num_threads(n_threads)
            bare = make_bare(adam)
            for name in CALLS_PER_INTERLUDE:
                found = (seconds_per_call(getattr(bare, name), 0.1), n_threads, bare)
                best[name] = min(best.get(name, found), found, key=lambda entry: entry[0])
        self._best = {name: (n_threads, getattr(bare, name)) for name, (_, n_threads, bare) in best.items()}
        self._times: Dict[str, List[float]] = {name: [] for name in best}

    def run(self) -> None:
        """Time each of them."""
        threads_before = torch.get_num_threads()
        for name, (n_threads, call) in self._best.items():
            torch.set_num_threads(n_threads)
            for _ in range(CALLS_PER_INTERLUDE[name]):
                start = time.perf_counter()
                call()
                self._times[name].append(time.perf_counter() - start)
        torch.set_num_threads(threads_before)

    def mean(self, name: str) -> float:
        """Return the mean time of a call, over the whole training."""
        return statistics.fmean(self._times[name])


def measure(workload: Workload) -> Tuple[float, float]:
    """Train once; return the time that it takes and its floor, in seconds."""
    bare = BareCalls(workload.make_bare)
    Probed.interlude = bare.run
    tree = train(workload.max_steps, env=workload.env, behavior=workload.behavior, **workload.settings)
    rows = Probed.decisions * workload.n_agents
    floor = (
        Probed.seconds
        + Probed.decisions * bare.mean("act")
        + rows / workload.rows_per_value_pass * bare.mean("values")
        + count(tree, "ActorCriticOptimizer.update") * bare.mean("update")
    )
    return tree["total"] - Probed.interlude_seconds, floor


def run() -> None:
    """Print the table: the run with the median overhead of each workload."""
    rows = []
    for workload in WORKLOADS:
        runs = sorted((measure(workload) for _ in range(RUNS)), key=lambda figures: figures[0] / figures[1])
        total, floor = runs[len(runs) // 2]
        overheads = ", ".join(f"{own / bare - 1:.0%}" for own, bare in runs)
        rows.append([workload.title, f"{total:.1f}", f"{floor:.1f}", f"{total / floor - 1:.0%}", overheads])
    print_table(
        f"PPO with larger networks: seconds (claim: at most {CLAIM:.0%} over the floor)",
        ["", "measured", "floor", "overhead", "all runs"],
        rows,
    )
