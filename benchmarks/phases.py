"""Where the time of whole trainings goes, by the timers of the training loop."""

from __future__ import annotations

import multiprocessing
from typing import Any, Dict, List

from benchmarks.probe import Probed
from benchmarks.tables import print_table
from benchmarks.training import seconds, train
from benchmarks.wire import served
from benchmarks.workloads import BALLS, WORKLOADS, WireWorkload, WorkersWorkload, Workload

PHASES = {
    "environment": ("simulate", "wait"),
    "deciding": ("EnvManager._decide",),
    "collecting": ("add_experiences",),
    "trajectories": ("process_trajectory", "_prepare_update"),
    "gradient steps": ("_update_policy",),
}
"""Blocks of the timers by what happens in them. Through the wire, the first is what is waited for."""


def _measure(name: str) -> Dict[str, float]:
    """Return microseconds per agent step: all, and by phase."""
    workload = WORKLOADS[name]
    if isinstance(workload, Workload):
        tree = workload.train()
        return _by_phase(tree, Probed.decisions * workload.n_agents)
    assert isinstance(workload, (WireWorkload, WorkersWorkload))
    settings = workload._asdict()
    how = {name: settings[name] for name in ("threaded", "num_envs") if name in settings}
    with served("3DBall", BALLS, settings.get("step_s", 0.0)) as executable:
        tree = train(workload.max_steps, env=str(executable.path), **how)
    return _by_phase(tree, workload.max_steps)


def _by_phase(tree: Dict[str, Any], n_steps: int) -> Dict[str, float]:
    found = {phase: sum(seconds(tree, block) for block in blocks) for phase, blocks in PHASES.items()}
    found["rest"] = tree["total"] - sum(found.values())
    return {phase: 1e6 * total_s / n_steps for phase, total_s in {"all": tree["total"], **found}.items()}


def run() -> None:
    """Print the table."""
    rows: List[List[str]] = []
    for name in WORKLOADS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            by_phase = pool.apply(_measure, (name,))
        rows.append([name, *(f"{microseconds:.1f}" for microseconds in by_phase.values())])
    print_table("Where the time goes: microseconds per agent step", ["", "all", *PHASES, "rest"], rows)
