"""The command `mlagents-inspect`: what a file is that training reads or writes.

A file is shown as rows of a label and a text; an empty label continues the row above.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np

from mlagents.trainers.demonstration_file import read_demonstration
from mlagents.trainers.exception import TrainerConfigError, TrainerError, UnityTrainerException
from mlagents.trainers.model_saver.about import ABOUT, About, read_about
from mlagents.trainers.model_saver.checkpoint_file import has_checksum, read_checkpoint
from mlagents.trainers.model_saver.contents import first_not_finite, tensors_in
from mlagents.trainers.model_saver.fitting import PARTS
from mlagents.trainers.model_saver.surroundings import (
    behavior_spec_beside,
    recorded_checkpoint,
    settings_beside,
)
from mlagents.trainers.onnx_file import read_onnx_file
from mlagents.trainers.report import (
    ODD_CONTENTS,
    Row,
    describe_actions,
    describe_observation,
    describe_odd_contents,
    labelled,
    print_rows,
    quiet_when_nobody_reads,
)
from mlagents_envs.base_env import ActionSpec


def inspect_file(path: Path) -> List[Row]:
    """Return what there is to say of a file.

    :raises UnityTrainerException: it is missing, damaged, or of no kind that is known.
    """
    inspectors: Dict[str, Callable[[Path], List[Row]]] = {
        ".pt": inspect_checkpoint,
        ".onnx": inspect_model,
        ".demo": inspect_demonstration,
    }
    if path.suffix not in inspectors:
        raise UnityTrainerException(f"{path} ends in none of: {', '.join(inspectors)}. Other files are not known here.")
    return inspectors[path.suffix](path)


def inspect_checkpoint(path: Path) -> List[Row]:
    """Return what there is to say of a checkpoint; what it does not say itself is looked for around it."""
    state = read_checkpoint(path)
    about = read_about(state, path)
    sizes = {name: [it.numel() for _, it in tensors_in(entry)] for name, entry in state.items() if name != ABOUT}
    width = max(map(len, sizes), default=0)
    end = labelled("holds", [f"{name:{width}}  {_count(sizes[name])}" for name in sizes])
    end.append(("checksum", "holds" if has_checksum(path) else "none; the archive's own (CRC-32) hold"))
    if about is None and "Policy" not in state:
        return [("kind", "not the checkpoint of a behavior: it holds no policy"), *end]
    # In the experience of other parts NaN may stand for what is not there.
    modules = {name: entry for name, entry in state.items() if name not in PARTS}
    rows = _rows_of_old(path, state) if about is None else _rows_of_about(about)
    return [*rows, ("finite", _finite(first_not_finite(modules))), *end]


def inspect_model(path: Path) -> List[Row]:
    """Return what there is to say of an exported model; steps and reward are what its run noted of it."""
    model = read_onnx_file(path)
    observations = [f"{name} {shape}" for name, shape in model.observations.items()]
    bad = [name for name, it in model.tensors.items() if it.dtype.kind == "f" and not np.isfinite(it).all()]
    return [
        ("kind", f"model of an agent, ONNX opset {model.opset}, written by {model.producer or 'an unknown exporter'}"),
        *_rows_of_record(path, None),
        *labelled("observations", observations),
        ("actions", describe_actions(ActionSpec(model.continuous_size, model.discrete_branches))),
        ("memory", f"{model.memory_size} numbers per agent" if model.memory_size else "none"),
        ("finite", _finite(bad[0] if bad else None)),
        ("holds", _count([tensor.size for tensor in model.tensors.values()])),
        ("checksum", "none: models have none"),
    ]


def inspect_demonstration(path: Path) -> List[Row]:
    """Return what there is to say of a demonstration."""
    demonstration = read_demonstration(path)
    return [
        ("kind", f"demonstration {demonstration.name!r}, version {demonstration.version}"),
        ("behavior", demonstration.behavior_name),
        ("steps", f"{demonstration.n_steps:,} in {_plural(demonstration.n_episodes, 'episode')}"),
        ("reward", f"{demonstration.mean_reward:.3f}, mean return of the episodes"),
        *labelled("observations", [describe_observation(it) for it in demonstration.behavior_spec.observation_specs]),
        ("actions", describe_actions(demonstration.behavior_spec.action_spec)),
        ("finite", _finite(demonstration.first_not_finite)),
        ("checksum", "none: demonstrations have none"),
    ]


def _rows_of_about(about: About) -> List[Row]:
    reward = _reward(about.mean_reward)
    if about.evaluated_reward is not None:
        reward = f"{about.evaluated_reward:.3f}, mean return of its evaluation, the best of its run"
    return [
        ("kind", f"checkpoint of mlagents {about.mlagents_version}"),
        ("behavior", about.behavior_name),
        ("steps", f"{about.step:,}"),
        ("reward", reward),
        ("trainer type", about.trainer_type),
        *labelled("observations", [describe_observation(it) for it in about.behavior_spec.observation_specs]),
        ("actions", describe_actions(about.behavior_spec.action_spec)),
    ]


def _rows_of_old(path: Path, state: Mapping[str, Any]) -> List[Row]:
    """Return what can be found out of a checkpoint that says nothing of itself, and why not where it cannot."""
    steps = [int(tensor) for _, tensor in tensors_in(state.get("global_step")) if tensor.numel() == 1]
    rows: List[Row] = [("kind", "checkpoint that does not describe itself, as those of ML-Agents 1.1.0")]
    rows += _rows_of_record(path, steps[0] if steps else None)
    try:
        rows.append(("trainer type", settings_beside(path).trainer_type))
    except (TrainerError, TrainerConfigError) as error:
        rows.append(("trainer type", _unknown(error)))
    try:
        spec = behavior_spec_beside(path, state)
    except TrainerError as error:
        return [*rows, ("observations", _unknown(error))]
    rows += labelled("observations", [describe_observation(it) for it in spec.observation_specs])
    return [*rows, ("actions", describe_actions(spec.action_spec))]


def _rows_of_record(path: Path, step: Optional[int]) -> List[Row]:
    """Return what a run noted of a file, behaviour, steps and reward; without that, the steps that the file says."""
    recorded = recorded_checkpoint(path, step)
    if recorded is not None:
        rows = [("behavior", recorded.behavior_name), ("steps", f"{recorded.step:,}")]
        return [*rows, ("reward", _reward(recorded.mean_reward))]
    return [] if step is None else [("steps", f"{step:,}")]


def _reward(mean_reward: Optional[float]) -> str:
    if mean_reward is None:
        return "unknown: no episode had ended since the last update"
    return f"{mean_reward:.3f}, mean return of the last episodes"


def _count(sizes: Sequence[int]) -> str:
    """Say how many numbers tensors of these sizes are."""
    return f"{_plural(sum(sizes), 'number')} in {_plural(len(sizes), 'tensor')}"


def _plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _finite(place: Optional[str]) -> str:
    return "every number" if place is None else f"NOT every number: {place}"


def _unknown(error: Exception) -> str:
    return f"unknown: {str(error).splitlines()[0]}"


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the command; a mistake, or a damaged file, is one message on stderr and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="mlagents-inspect",
        description="Print what a checkpoint (.pt), an exported model (.onnx) or a demonstration (.demo) is.",
    )
    parser.add_argument("file", metavar="FILE")
    args = parser.parse_args(argv)
    try:
        rows = inspect_file(Path(args.file))
    except TrainerError as error:
        sys.exit(f"mlagents-inspect: {error}")
    except ODD_CONTENTS as error:
        sys.exit(f"mlagents-inspect: {describe_odd_contents(args.file, error)}")
    with quiet_when_nobody_reads():
        print(args.file)
        print_rows(rows)


if __name__ == "__main__":
    main()
