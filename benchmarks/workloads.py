"""Six whole trainings beside what cannot be avoided, and beside Stable-Baselines3.

The floor of a training is its environment's own time and the same number of forwards, value estimates and updates in
bare torch with autograd: on preallocated tensors, without modules, buffers, statistics or checks. A training whose
gradients are written out may be quicker than that. Each workload runs in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import statistics
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import gymnasium
import numpy as np
import torch

from benchmarks.bare_exchange import seconds_per_exchange
from benchmarks.bare_networks import BareGridPPO, BareRecurrentPPO
from benchmarks.bare_ppo import ROWS_PER_VALUE_PASS, BarePPO
from benchmarks.bare_sac import BareSAC
from benchmarks.floor import BareCalls
from benchmarks.probe import Probed, peak_memory_mib
from benchmarks.stable_baselines import train_ppo, train_sac
from benchmarks.tables import print_table
from benchmarks.training import TargetWriter, count, seconds, train
from benchmarks.wire import served
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.stats import StatsWriter
from mlagents_envs.builtin import gridworld

REPEATS = 3
BALLS = 12
MEMORY = NetworkSettings.MemorySettings(sequence_length=64, memory_size=128)


class Figures(NamedTuple):
    """One run; steps are those of agents. None where it does not apply."""

    steps_per_s: float
    overhead: Optional[float] = None
    """What it takes beyond its floor, as a share of the floor."""
    others_steps_per_s: Optional[float] = None
    """Stable-Baselines3's."""
    target_s: float = float("inf")
    peak_mib: float = 0.0
    note: str = ""


class _BareGym:
    """A Gymnasium environment's copies, which do the same at every step."""

    def __init__(self, env_id: str, num_copies: int):
        self._env = gymnasium.make_vec(env_id, num_copies)
        self._env.action_space.seed(0)
        self._env.reset(seed=0)
        self._actions = self._env.action_space.sample()

    def environment(self) -> None:
        """Step."""
        self._env.step(self._actions)


class _BareCartPole(BarePPO, _BareGym):
    def __init__(self, adam: str, num_copies: int):
        BarePPO.__init__(self, adam, n_agents=num_copies, obs_size=4, n_choices=2)
        _BareGym.__init__(self, "CartPole-v1", num_copies)


class _BarePendulum(BareSAC, _BareGym):
    def __init__(self, adam: str, num_copies: int):
        BareSAC.__init__(self, adam, 128, num_copies, obs_size=3, n_actions=1, hidden=64)
        _BareGym.__init__(self, "Pendulum-v1", num_copies)


class Workload(NamedTuple):
    """A training in this process, and the same arithmetic bare.

    :param target: of the mean reward, at which the time is taken.
    :param rows_per_value_pass: how many rows the bare `values` takes.
    :param claim: the largest overhead.
    :param others: trains with Stable-Baselines3 for as many steps, and returns steps per second.
    """

    env: str
    behavior: str
    max_steps: int
    n_agents: int
    target: float
    make_bare: Callable[[str], Any]
    claim: float
    algorithm: str = "ppo"
    num_areas: int = 1
    settings: Dict[str, Any] = {}
    rows_per_value_pass: int = ROWS_PER_VALUE_PASS
    others: Optional[Callable[[int], float]] = None
    others_claim: float = 0.0

    def train(self, writers: Sequence[StatsWriter] = ()) -> Dict[str, Any]:
        """Train once; return the timers of the training loop."""
        return train(
            self.max_steps,
            env=f"module:benchmarks.probe:{self.env}",
            behavior=self.behavior,
            algorithm=self.algorithm,
            num_areas=self.num_areas,
            writers=writers,
            **self.settings,
        )

    def measure(self) -> Figures:
        """Train once, and have the others train."""
        threads = torch.get_num_threads()
        bare = BareCalls(self.make_bare)
        Probed.interlude = bare.run
        reward = TargetWriter(self.target)
        tree = self.train([reward])
        steps = Probed.decisions * self.n_agents
        arithmetic = {"act": Probed.decisions, "update": _updates(tree), "values": steps / self.rows_per_value_pass}
        if self.algorithm == "sac":
            del arithmetic["values"]
        is_gym = hasattr(self.make_bare("fused"), "environment")
        environment = Probed.decisions * bare.mean("environment") if is_gym else Probed.seconds
        floor = environment + sum(number * bare.mean(name) for name, number in arithmetic.items())
        total = tree["total"] - Probed.interlude_seconds
        peak = peak_memory_mib()
        torch.set_num_threads(threads)  # training has set its own
        return Figures(
            steps / total,
            total / floor - 1.0,
            self.others(self.max_steps) if self.others else None,
            reward.reached_s * total / tree["total"],
            peak,
        )


def _updates(tree: Dict[str, Any]) -> int:
    return count(tree, "ActorCriticOptimizer.update") + count(tree, "TorchSACOptimizer.update")


class WireWorkload(NamedTuple):
    """3DBall through the wire, from processes of its own.

    :param threaded: whether updates are made beside collection.
    """

    max_steps: int
    threaded: bool
    claim: float = 0.25
    others_claim: float = 0.0

    def measure(self) -> Figures:
        """Train once; the floor is the environment's process, bare exchanges and the arithmetic in bare torch.

        With `threaded` it is the larger of updates and all else.
        """
        torch.set_num_threads(1)
        reward = TargetWriter(90.0)
        with served("3DBall", BALLS) as executable:
            tree = train(self.max_steps, env=str(executable.path), writers=[reward], threaded=self.threaded)
            report = executable.report()
        exchanges = report["exchanges"]
        bare = BareCalls(BarePPO)
        for _ in range(20):
            bare.run()
        updates = _updates(tree) * bare.mean("update")
        values = exchanges * BALLS / ROWS_PER_VALUE_PASS * bare.mean("values")
        whole, own = tree["total"] / exchanges, report["own_s"] / exchanges
        between = max(0.0, whole - own - seconds(tree, "_update_policy") / exchanges)
        exchange = seconds_per_exchange(bytes.fromhex(report["request"]), bytes.fromhex(report["answer"]), own, between)
        collecting = report["own_s"] + exchanges * (exchange + bare.mean("act"))
        learning = updates + values
        floor = max(collecting, learning) if self.threaded else collecting + learning
        steps_per_s = exchanges * BALLS / tree["total"]
        note = f"ms per step: {1e3 * whole:.2f}, process {1e3 * own:.2f}, bare exchange {1e3 * exchange:.2f}"
        return Figures(steps_per_s, tree["total"] / floor - 1.0, None, reward.reached_s, peak_memory_mib(), note)


class WorkersWorkload(NamedTuple):
    """Four workers beside one, where a step of the environment takes a while of its own."""

    max_steps: int
    step_s: float = 0.02
    num_envs: int = 4
    claim: float = 0.0
    others_claim: float = 3.0

    def measure(self) -> Figures:
        """Train with each; the one worker stands where the others do."""
        speeds = []
        for num_envs in (1, self.num_envs):
            with served("3DBall", BALLS, self.step_s) as executable:
                steps = self.max_steps * num_envs
                tree = train(steps, env=str(executable.path), num_envs=num_envs)
            speeds.append(steps / tree["total"])
        return Figures(speeds[1], None, speeds[0], peak_mib=peak_memory_mib())


def _cart_pole(copies: int, horizon: int) -> Workload:
    return Workload(
        "ProbedCartPole",
        "CartPole-v1",
        150_000,
        copies,
        475.0,
        lambda adam: _BareCartPole(adam, copies),
        claim=0.25,
        num_areas=copies,
        settings={"time_horizon": horizon},
        others=lambda steps: train_ppo(steps, copies, horizon)[0],
        others_claim=3.0,
    )


WORKLOADS: Dict[str, Any] = {
    "A  PPO 3DBall": Workload("ProbedBall", "3DBall", 200_000, BALLS, 90.0, BarePPO, claim=0.15),
    "B  A through the wire": WireWorkload(200_000, threaded=False),
    "B  with threaded": WireWorkload(200_000, threaded=True),
    "C  B, 4 workers, steps of 20 ms": WorkersWorkload(24_000),
    "D  PPO CartPole, 8 x 256": _cart_pole(8, 256),
    "D  PPO CartPole, 64 x 32": _cart_pole(64, 32),
    "E  SAC Pendulum": Workload(
        "ProbedPendulum",
        "Pendulum-v1",
        20_000,
        4,
        -200.0,
        lambda adam: _BarePendulum(adam, 4),
        claim=0.25,
        algorithm="sac",
        num_areas=4,
        others=lambda steps: train_sac(steps, 4)[0],
        others_claim=1.5,
    ),
    "F  PPO GridWorld, images": Workload(
        "ProbedGrid",
        "GridWorld",
        24_000,
        16,
        0.9,
        lambda adam: BareGridPPO(adam, 128, 16, 128, (3, gridworld.HEIGHT, gridworld.WIDTH)),
        claim=0.15,
        rows_per_value_pass=128,
    ),
    "A  with memory": Workload(
        "ProbedBall",
        "3DBall",
        60_000,
        BALLS,
        90.0,
        lambda adam: BareRecurrentPPO(adam, 64, BALLS, MEMORY.sequence_length, MEMORY.memory_size),
        claim=0.30,
        settings={"network_settings": NetworkSettings(normalize=True, memory=MEMORY)},
        rows_per_value_pass=64,
    ),
}


def _measure(name: str) -> Figures:
    figures: Figures = WORKLOADS[name].measure()
    return figures


def measure(name: str) -> List[Figures]:
    """Return the figures of `REPEATS` runs, each in a process of its own."""
    runs = []
    for _ in range(REPEATS):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            runs.append(pool.apply(_measure, (name,)))
    return runs


def medians(runs: List[Figures]) -> Tuple[float, Optional[float], Optional[float]]:
    """Return the medians of speed, of the ratio to the floor (1: as quick), and of that to Stable-Baselines3."""
    floors = [1.0 / (1.0 + run.overhead) for run in runs if run.overhead is not None]
    others = [run.steps_per_s / run.others_steps_per_s for run in runs if run.others_steps_per_s]
    return (
        statistics.median(run.steps_per_s for run in runs),
        statistics.median(floors) if floors else None,
        statistics.median(others) if others else None,
    )


def run() -> Dict[str, List[Figures]]:
    """Print the table; return the runs of each workload."""
    by_name = {name: measure(name) for name in WORKLOADS}
    rows, notes = [], []
    for name, runs in by_name.items():
        workload = WORKLOADS[name]
        speed, floor, others = medians(runs)
        target = statistics.median(run.target_s for run in runs)
        overheads = ", ".join(f"{run.overhead:+.0%}" for run in sorted(runs) if run.overhead is not None)
        rows.append(
            [
                name,
                f"{speed:,.0f}",
                "" if floor is None else f"{1 / floor - 1:+.0%}",
                f"{workload.claim:.0%}" if workload.claim else "",
                "" if others is None else f"{others:.2f}",
                f"{workload.others_claim:.1f}" if workload.others_claim else "",
                f"{statistics.median(run.peak_mib for run in runs):.0f}",
                f"{target:.1f}" if np.isfinite(target) else "",
                overheads,
            ]
        )
        notes += [f"  {name}: {run.note}" for run in runs if run.note]
    header = ["", "steps/s", "over floor", "claim", "x SB3", "claim", "MiB", "target, s", "over floor, all runs"]
    print_table(f"Trainings end to end: medians of {REPEATS} (C: beside one worker instead of SB3)", header, rows)
    print("\n".join(notes))
    return by_name
