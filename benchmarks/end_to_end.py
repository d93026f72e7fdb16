"""PPO on the built-in 3DBall as shipped, against its floor: the environment alone and the arithmetic in bare torch.

The machine's speed may drift within seconds. So the bare arithmetic is not timed before or after the training but in
between: now and then training pauses, and a bare loop collects and updates for a while, in an environment of its own.
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any, Callable, Dict, NamedTuple, Tuple

import torch

from benchmarks.bare_ppo import OBS, BarePPO
from benchmarks.probe import Probed
from benchmarks.tables import REPEATS, print_table, seconds_per_call
from benchmarks.training import count, seconds, train
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.builtin.ball3d import Ball3DEnv

MAX_STEPS = 200_000
AGENTS, BATCH_SIZE = 12, 64
ROWS_PER_VALUE_PASS = 256
DECISIONS_PER_INTERLUDE, UPDATES_PER_INTERLUDE = 50, 30
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


class BareLoop:
    """Collecting and updating in bare torch, some decisions at a time; every call is timed where it would stand.

    Each kind of call has the setting of threads and Adam that is best for it.
    """

    def __init__(self) -> None:
        self._env = Ball3DEnv(seed=1)
        self._env.reset()
        self._collected = torch.randn(ROWS_PER_VALUE_PASS, OBS)
        acting = torch.randn(AGENTS, OBS)
        best: Dict[str, Tuple[float, int, BarePPO]] = {}
        for n_threads, adam in itertools.product((1, 2), ("fused", "foreach")):
            torch.set_num_threads(n_threads)
            bare = BarePPO(adam, BATCH_SIZE)
            calls: Dict[str, Callable[[], object]] = {
                "act": lambda bare=bare: bare.act(acting),  # type: ignore[misc]
                "values": lambda bare=bare: bare.values(self._collected),  # type: ignore[misc]
                "update": bare.update,
            }
            for name, call in calls.items():
                found = (seconds_per_call(call), n_threads, bare)
                best[name] = min(best.get(name, found), found, key=lambda entry: entry[0])
        self._best = {name: (n_threads, bare) for name, (_, n_threads, bare) in best.items()}
        self._seconds = dict.fromkeys(best, 0.0)
        self._calls = dict.fromkeys(best, 0)

    def run(self) -> None:
        """Act for some decisions with values now and then, then update."""
        threads_before = torch.get_num_threads()
        name = self._env.behavior_name
        acting, valuing, updating = (self._best[kind][1] for kind in ("act", "values", "update"))
        torch.set_num_threads(self._best["act"][0])
        for decision in range(DECISIONS_PER_INTERLUDE):
            obs = self._env.get_steps(name)[0].obs[0]
            _, env_actions, _ = self._timed("act", lambda obs=obs: acting.act(torch.from_numpy(obs)))  # type: ignore[misc]
            self._env.set_actions(name, ActionTuple(env_actions.numpy()))
            self._env.step()
            if decision % 10 == 0:
                self._timed("values", lambda: valuing.values(self._collected))
        torch.set_num_threads(self._best["update"][0])
        for _ in range(UPDATES_PER_INTERLUDE):
            self._timed("update", updating.update)
        torch.set_num_threads(threads_before)

    def _timed(self, kind: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        self._seconds[kind] += time.perf_counter() - start
        self._calls[kind] += 1
        return result

    def mean(self, kind: str) -> float:
        """Return the mean time of a call, over the whole training."""
        return self._seconds[kind] / self._calls[kind]


def measure() -> Figures:
    """Train once."""
    bare = BareLoop()
    Probed.interlude = bare.run
    tree = train(MAX_STEPS)
    decisions = Probed.decisions
    value_passes = AGENTS * decisions / ROWS_PER_VALUE_PASS
    updates = count(tree, "ActorCriticOptimizer.update")
    measured = {
        "acting": seconds(tree, "TorchPolicy.evaluate"),
        "collecting": seconds(tree, "add_experiences"),
        "trajectories": seconds(tree, "process_trajectory") + seconds(tree, "_prepare_update"),
        "updates": seconds(tree, "_update_policy"),
    }
    total = tree["total"] - Probed.interlude_seconds
    rest = total - Probed.seconds - sum(measured.values())
    return Figures(
        steps=AGENTS * decisions,
        total=total,
        environment=Probed.seconds,
        parts={
            f"acting ({decisions} forwards)": (measured["acting"], decisions * bare.mean("act")),
            "collecting": (measured["collecting"], 0.0),
            "trajectories": (measured["trajectories"], value_passes * bare.mean("values")),
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
