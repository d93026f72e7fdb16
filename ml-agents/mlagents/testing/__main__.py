"""Check a trainer from the command line: ``python -m mlagents.testing NAME``."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Dict, List, Optional

import yaml

from mlagents.testing.check import check_trainer
from mlagents.testing.report import CHECKS, TrainerCheckError
from mlagents.testing.tasks import TASKS
from mlagents.trainers.exception import TrainerConfigError


def main(argv: Optional[List[str]] = None) -> int:
    """Check a trainer and print the report; return 0 if it passed, else 1.

    :param argv: the arguments after the command; None for the process's own.
    """
    arguments = _parser().parse_args(argv)
    try:
        print(
            check_trainer(
                arguments.name,
                hyperparameters=arguments.hyperparameters,
                network_settings=arguments.network_settings,
                tasks=arguments.tasks,
                seed=arguments.seed,
                max_steps=arguments.max_steps,
            )
        )
    except TrainerCheckError as error:
        print(error)
        return 1
    except TrainerConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    tasks = "".join(f"\n  {task.name:<12} {task.capability}" for task in TASKS.values())
    checks = "".join(f"\n  {name:<12} {meaning}" for name, meaning in CHECKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m mlagents.testing",
        description="Train a trainer on small tasks, each of which asks for one capability, and say what goes wrong.",
        epilog=f"tasks:{tasks}\n\nchecks on each:{checks}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="trainer type: of an installed plug-in, or package.module:Class")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    parser.add_argument("--seed", type=int, default=1, help="of everything random; default: 1")
    parser.add_argument("--max-steps", type=int, help="agent steps of each training run; default: what the task gives")
    for option, example in (
        ("--hyperparameters", "{learning_rate: 0.01}"),
        ("--network-settings", "{hidden_units: 64, memory: {}}"),
    ):
        parser.add_argument(option, type=_mapping, metavar="YAML", help=f'as in a configuration: "{example}"')
    return parser


def _mapping(text: str) -> Dict[str, Any]:
    """Read the value of an option that is a mapping."""
    value = yaml.safe_load(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a mapping like {{learning_rate: 0.01}}")
    return value


if __name__ == "__main__":
    sys.exit(main())
