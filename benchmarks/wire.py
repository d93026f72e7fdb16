"""The wire: how many exchanges it makes with an environment in which nothing happens, and what decoding costs."""

from __future__ import annotations

import contextlib
import json
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np

from benchmarks.bare_exchange import seconds_per_exchange
from benchmarks.tables import print_table, seconds_per_call
from mlagents_envs.base_env import ActionTuple, DecisionSteps, TerminalSteps
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.wire.messages import read_environment_message
from mlagents_envs.wire.steps_decoder import StepsDecoder

SIZES = [("vector", 1), ("vector", 12), ("vector", 100), ("vector", 1000), ("image", 1), ("image", 12)]
SECONDS_PER_SIZE = 2.0


class Served:
    """An executable that serves an environment in a process of its own, and its report."""

    def __init__(self, folder: Path, name: str, n_agents: int, step_s: float = 0.0):
        self.path = folder / "served"
        self._report = folder / "report.json"
        root = str(Path(__file__).parent.parent)
        arguments = ["--report", str(self._report), "--step-s", str(step_s), name, str(n_agents)]
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
def served(name: str, n_agents: int, step_s: float = 0.0) -> Iterator[Served]:
    """Yield an executable, of which each step waits `step_s`."""
    with tempfile.TemporaryDirectory() as folder:
        yield Served(Path(folder), name, n_agents, step_s)


def measure_exchanges(name: str, n_agents: int) -> List[float]:
    """Return exchanges per second, those of bare gRPC, us to decode a message, and the share of that in the time."""
    with served(name, n_agents) as executable:
        env = UnityEnvironment(str(executable.path))
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
        report = executable.report()
    request = bytes.fromhex(report["request"])
    decoder = StepsDecoder(behavior_id, spec)

    def decode() -> tuple[DecisionSteps, TerminalSteps]:
        return decoder.decode(read_environment_message(request).agent_infos[behavior_id])

    decode_s = seconds_per_call(decode)
    bare_s = seconds_per_exchange(request, bytes.fromhex(report["answer"]))
    return [per_second, 1 / bare_s, 1e6 * decode_s, decode_s * per_second]


def run() -> None:
    """Print the table."""
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
