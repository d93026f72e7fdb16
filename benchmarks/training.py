"""Training as shipped, for a number of steps, with a probed environment."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any, Dict

from benchmarks.probe import Probed
from mlagents.trainers import learn
from mlagents_envs import timers

CONFIGS = Path(__file__).parent.parent / "config" / "ppo"
PROBED_BALL = "module:benchmarks.probe:ProbedBall"


def train(
    max_steps: int, seed: int = 1, env: str = PROBED_BALL, behavior: str = "3DBall", **settings: Any
) -> Dict[str, Any]:
    """Train for `max_steps`, quietly; return the timers of the training loop, as `timers.json` has them.

    :param env: as ``--env`` takes it.
    :param behavior: whose configuration to take.
    :param settings: of the behaviour, where they are to be others than in the configuration.

    Schedules run over the whole training, so that a part of it has the cost and the course of the real one.
    """
    Probed.start_over()
    with tempfile.TemporaryDirectory() as results, contextlib.redirect_stdout(io.StringIO()):
        arguments = [str(CONFIGS / f"{behavior}.yaml"), "--env", env, "--seed", str(seed)]
        options = learn.parse_command_line([*arguments, "--results-dir", results, "--torch-device", "cpu"])
        for name, value in {"max_steps": max_steps, **settings}.items():
            setattr(options.behaviors[behavior], name, value)
        learn.run_cli(options)
    loop: Dict[str, Any] = _find(timers.get_timer_tree(), "TrainerController.advance")
    return loop


def seconds(tree: Dict[str, Any], name: str) -> float:
    """Return the total time of a block of the timers, 0 if it never ran."""
    block = _find(tree, name)
    return float(block.get("total", 0.0))


def count(tree: Dict[str, Any], name: str) -> int:
    """Return how often a block of the timers ran."""
    return int(_find(tree, name).get("count", 0))


def _find(tree: Dict[str, Any], name: str) -> Dict[str, Any]:
    children: Dict[str, Dict[str, Any]] = tree.get("children", {})
    for key, child in children.items():
        found = child if key == name else _find(child, name)
        if found:
            return found
    return {}
