"""What a trainer has learned: taking a copy of it, and comparing two."""

from __future__ import annotations

import copy
from typing import Any, Dict, List

from mlagents.torch_utils import torch
from mlagents.trainers.trainer import Trainer

State = Dict[str, Any]
"""``owner.attribute`` to a state dict, and the step."""


def state_of(trainer: Trainer) -> State:
    """Return a copy of every network and torch optimizer that is an attribute of the trainer, its policy or optimizer.

    Found by looking, rather than asked of `get_modules`: what that forgets is to be noticed.
    """
    owners = {"trainer": trainer, **{name: getattr(trainer, name, None) for name in ("policy", "optimizer")}}
    state: State = {"step": trainer.get_step}
    for owner_name, owner in owners.items():
        for name, value in getattr(owner, "__dict__", {}).items():
            if isinstance(value, (torch.nn.Module, torch.optim.Optimizer)):
                state[f"{owner_name}.{name}"] = copy.deepcopy(value.state_dict())
    return state


def without_steps(state: State) -> State:
    """Return what is in a state but for the counts of steps, which go on where a trainer only acts."""
    return {name: value for name, value in state.items() if name not in ("step", "policy.global_step")}


def differences(here: Any, there: Any, name: str = "") -> List[str]:
    """Say where two states differ, a line each."""
    if isinstance(here, torch.Tensor) and isinstance(there, torch.Tensor):
        return _tensor_differences(here, there, name)
    if isinstance(here, (list, tuple)) and isinstance(there, (list, tuple)):
        here, there = dict(enumerate(here)), dict(enumerate(there))
    if not (isinstance(here, dict) and isinstance(there, dict)):
        return [] if here == there else [f"{name}: {here} and {there}"]
    lines = []
    for key in {**here, **there}:
        place = f"{name}, {key}" if name else str(key)
        if key in here and key in there:
            lines += differences(here[key], there[key], place)
        else:
            lines.append(f"{place}: only in the {'first' if key in here else 'second'}")
    return lines


def _tensor_differences(here: torch.Tensor, there: torch.Tensor, name: str) -> List[str]:
    if here.shape != there.shape:
        return [f"{name}: shape {tuple(here.shape)} and {tuple(there.shape)}"]
    if torch.equal(here, there):
        return []
    return [f"{name}: up to {(here.double() - there.double()).abs().max().item():.2g} apart"]
