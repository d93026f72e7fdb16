"""Reports of commands: rows of a label and a text, and what agents observe and do in words."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import List, Sequence, Tuple

from mlagents_envs.base_env import ActionSpec, DimensionProperty, ObservationSpec, ObservationType

ODD_CONTENTS = (TypeError, ValueError, RuntimeError, AttributeError, LookupError)
"""What reading a file that was put together otherwise than any of ours may raise."""

Row = Tuple[str, str]
"""A label, empty where the row goes on with the one above, and a text."""


def describe_odd_contents(path: str | os.PathLike[str], error: Exception) -> str:
    """Say that a file cannot be read, of which nothing more is known than one of `ODD_CONTENTS`."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{path} holds what is not known here ({reason})."


@contextlib.contextmanager
def quiet_when_nobody_reads() -> Iterator[None]:
    """Print within; exit with code 1 and no traceback where the reader, such as ``head``, has gone."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would fail again on flushing it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def print_rows(rows: Sequence[Row]) -> None:
    """Print rows, indented, their texts below each other."""
    for label, text in rows:
        print(f"  {label:12}  {text}")


def labelled(label: str, texts: Sequence[str]) -> List[Row]:
    """Return a row for each text, of which the first has the label; "none" where there is no text."""
    return [(label if index == 0 else "", text) for index, text in enumerate(texts or ["none"])]


def describe_observation(spec: ObservationSpec) -> str:
    """Return the name, the shape, and what is special about an observation."""
    text = f"{spec.name} {spec.shape}".lstrip()
    if spec.observation_type is ObservationType.GOAL_SIGNAL:
        text += ", a goal"
    if DimensionProperty.VARIABLE_SIZE in spec.dimension_property:
        text += ", of variable size"
    return text


def describe_actions(spec: ActionSpec) -> str:
    """Return how many actions of which kinds there are."""
    parts = [f"{spec.continuous_size} continuous"] if spec.continuous_size else []
    if spec.discrete_branches:
        parts.append(f"discrete with {' x '.join(map(str, spec.discrete_branches))} choices")
    return ", ".join(parts) or "none"
