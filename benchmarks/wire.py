"""The wire: what training through it costs, how many exchanges it makes, and what decoding costs of that."""

from __future__ import annotations

import contextlib
import itertools
import json
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import numpy as np
import torch

from benchmarks.bare_exchange import seconds_per_exchange
from benchmarks.bare_ppo import OBS, BarePPO
from benchmarks.end_to_end import AGENTS, BATCH_SIZE, ROWS_PER_VALUE_PASS
from benchmarks.tables import print_table, seconds_per_call
from benchmarks.training import count, seconds, train
from mlagents_envs.base_env import ActionTuple, DecisionSteps, TerminalSteps
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.wire.messages import read_environment_message
from mlagents_envs.wire.steps_decoder import StepsDecoder

MAX_STEPS = 200_000
TRAININGS = 3
CLAIM_MS = 0.6
PARTS = [
    "whole",
    "environment's process",
    "torch's arithmetic, bare",
    "bare exchange, back to back",
    "beyond these",
    "bare exchange, at the training's pace",
    "beyond these",
]
SIZES = [("vector", 1), ("vector", 12), ("vector", 100), ("vector", 1000), ("image", 1), ("image", 12)]
SECONDS_PER_SIZE = 2.0


class Served:
    """An executable that serves an environment in a process of its own, and its report."""

    def __init__(self, folder: Path, name: str, n_agents: int):
        self.path = folder / "served"
        self._report = folder / "report.json"
        root = str(Path(__file__).parent.parent)
        arguments = ["--report", str(self._report), name, str(n_agents)]
        self.path.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {root!r})\nsys.argv += {arguments!r}\n"
            "from benchmarks.served import main\nmain()\n"
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    def report(self) -> Dict[str, Any]:
        """Return what the process noted, which has ended."""
        report: Dict[str, Any] = json.loads(self._report.read_text(encoding="utf-8"))
        return report


@contextlib.contextmanager
def _served(name: str, n_agents: int) -> Iterator[Served]:
    with tempfile.TemporaryDirectory() as folder:
        yield Served(Path(folder), name, n_agents)


def _bare_arithmetic(counts: Dict[str, float]) -> float:
    """Return how long so many forwards, value estimates and updates take in bare torch, each at its best."""
    acting, collected = torch.randn(AGENTS, OBS), torch.randn(ROWS_PER_VALUE_PASS, OBS)
    best: Dict[str, float] = {}
    threads_before = torch.get_num_threads()
    for n_threads, adam in itertools.product((1, 2), ("fused", "foreach")):
        torch.set_num_threads(n_threads)
        bare = BarePPO(adam, BATCH_SIZE)
        calls: Dict[str, Callable[[], object]] = {
            "act": lambda bare=bare: bare.act(acting),  # type: ignore[misc]
            "values": lambda bare=bare: bare.values(collected),  # type: ignore[misc]
            "update": bare.update,
        }
        for kind, call in calls.items():
            best[kind] = min(best.get(kind, 1.0), seconds_per_call(call))
    torch.set_num_threads(threads_before)
    return sum(number * best[kind] for kind, number in counts.items())


def measure_training() -> List[float]:
    """Train through the wire; return what `PARTS` names, in ms per step of the environment."""
    with _served("3DBall", AGENTS) as served:
        tree = train(MAX_STEPS, env=str(served.path))
        report = served.report()
    steps = report["exchanges"]
    arithmetic = _bare_arithmetic(
        {
            "act": steps,
            "values": AGENTS * steps / ROWS_PER_VALUE_PASS,
            "update": count(tree, "ActorCriticOptimizer.update"),
        }
    )
    request, answer = bytes.fromhex(report["request"]), bytes.fromhex(report["answer"])
    exchange = seconds_per_exchange(request, answer)
    whole, own, arithmetic = tree["total"] / steps, report["own_s"] / steps, arithmetic / steps
    learns = seconds(tree, "_update_policy") / steps  # in between, and seldom
    paced = seconds_per_exchange(request, answer, own, whole - own - learns - exchange)
    beyond = whole - own - arithmetic
    return [1e3 * part for part in (whole, own, arithmetic, exchange, beyond - exchange, paced, beyond - paced)]


def measure_exchanges(name: str, n_agents: int) -> List[float]:
    """Return exchanges per second, those of bare gRPC, us to decode a message, and the share of that in the time."""
    with _served(name, n_agents) as served:
        env = UnityEnvironment(str(served.path))
        env.reset()
        (behavior_id,) = env.behavior_specs
        spec = env.behavior_specs[behavior_id]
        actions = ActionTuple(np.full((n_agents, 2), 0.5, dtype=np.float32))
        n_exchanges = 0
        start = time.perf_counter()
        while time.perf_counter() - start < SECONDS_PER_SIZE or n_exchanges < 60:
            env.set_actions(behavior_id, actions)
            env.step()
            env.get_steps(behavior_id)
            n_exchanges += 1
        per_second = n_exchanges / (time.perf_counter() - start)
        env.close()
        report = served.report()
    request = bytes.fromhex(report["request"])
    decoder = StepsDecoder(behavior_id, spec)

    def decode() -> tuple[DecisionSteps, TerminalSteps]:
        return decoder.decode(read_environment_message(request).agent_infos[behavior_id])

    decode_s = seconds_per_call(decode)
    bare_s = seconds_per_exchange(request, bytes.fromhex(report["answer"]))
    return [per_second, 1 / bare_s, 1e6 * decode_s, decode_s * per_second]


def run() -> None:
    """Print the tables."""
    runs = sorted((measure_training() for _ in range(TRAININGS)), key=lambda parts: parts[-1])
    print_table(
        f"PPO on 3DBall as shipped through the wire, {AGENTS} agents: ms per environment step, sorted by the last line "
        f"(claim: at most {CLAIM_MS} ms beyond)",
        ["part", *(f"run {index + 1}" for index in range(TRAININGS))],
        [[name, *(f"{part:.2f}" for part in column)] for name, column in zip(PARTS, zip(*runs))],
    )
    rows = []
    for name, n_agents in SIZES:
        per_second, bare_per_second, decode_us, share = measure_exchanges(name, n_agents)
        figures = [f"{per_second:.0f}", f"{bare_per_second:.0f}", f"{decode_us:.0f}", f"{share:.0%}"]
        rows.append([f"{n_agents} x {name}", *figures])
    print_table(
        "Exchanges with an environment in which nothing happens, and reading its messages",
        ["agents", "exchanges/s", "bare gRPC/s", "decode, us", "share"],
        rows,
    )
