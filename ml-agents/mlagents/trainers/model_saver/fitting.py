"""Whether a checkpoint fits a run, and taking over of it what does."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from mlagents.torch_utils import torch
from mlagents.trainers.model_saver.about import ABOUT

_EXECUTION_OPTIONS = ("foreach", "fused", "capturable", "differentiable")
"""Options of a torch optimizer that say how a step is computed, not what it is: this run's own, never the file's."""


class Part:
    """What is in a checkpoint beside torch modules and optimizers: a base for classes of such parts.

    :cvar may_be_missing: what to say where a file does not hold it, being of ML-Agents 1.1.0; "" for nothing. None is
        an error.
    :cvar is_of_one_run: whether only the run that it was saved in goes on with it, not one that starts from there. It
        is kept in the newest state alone.
    """

    may_be_missing: Optional[str] = None
    is_of_one_run = False

    def state_dict(self) -> Dict[str, Any]:
        """Return plain data: arrays, numbers, text and containers of these."""
        raise NotImplementedError

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        raise NotImplementedError


PARTS = (ABOUT, "trainer")
"""The names of parts of our own. In a file they are no matter where a run has no use for them."""


def differences(modules: Dict[str, Any], state: Dict[str, Any]) -> List[str]:
    """Say what stands between the state in a file and `modules`, a line each."""
    missing = [name for name in modules if name not in state]
    lines = [f"{name}: not in the file" for name in missing if getattr(modules[name], "may_be_missing", None) is None]
    lines += [
        f"{name}: in the file, but not in this run" for name in state if name not in modules and name not in PARTS
    ]
    for name, module in modules.items():
        if name not in state or isinstance(module, Part):
            continue
        if not isinstance(state[name], dict):
            lines.append(f"{name}: a {type(state[name]).__name__} in the file, not a dictionary")
        elif isinstance(module, torch.optim.Optimizer):
            lines += _optimizer_differences(name, module, state[name])
        else:
            lines += _tensor_differences(name, module.state_dict(), state[name])
    return lines


def shown(lines: List[str]) -> str:
    """Return differences one below the other, not too many of them."""
    return "\n  ".join(lines[:20] + ["..."] * (len(lines) > 20))


def load_what_fits(module: Any, state: Any) -> None:
    """Load a state into a module, an optimizer or a part; where it differs, those of its tensors that do not.

    An optimizer takes all or nothing, since what it keeps belongs together.
    """
    if isinstance(module, torch.optim.Optimizer):
        if isinstance(state, dict) and not _optimizer_differences("", module, state):
            module.load_state_dict(state)
            for group in module.param_groups:
                group.update({key: module.defaults[key] for key in _EXECUTION_OPTIONS if key in module.defaults})
        return
    if isinstance(module, torch.nn.Module) and isinstance(state, dict):
        own = module.state_dict()
        state = {**own, **{key: value for key, value in state.items() if _fits(own.get(key), value)}}
    if isinstance(state, dict):
        module.load_state_dict(state)


def _fits(own: Any, value: Any) -> bool:
    if isinstance(own, torch.Tensor):
        return isinstance(value, torch.Tensor) and own.shape == value.shape
    return own is not None


def _tensor_differences(name: str, here: Dict[str, Any], there: Dict[str, Any]) -> List[str]:
    lines = [f"{name}, {key}: not in the file" for key in here if key not in there]
    lines += [f"{name}, {key}: in the file, but not in this run" for key in there if key not in here]
    for key, own in here.items():
        if key not in there or not isinstance(own, torch.Tensor):
            continue
        shape = tuple(there[key].shape) if isinstance(there[key], torch.Tensor) else type(there[key]).__name__
        if tuple(own.shape) != shape:
            lines.append(f"{name}, {key}: {tuple(own.shape)} here, {shape} in the file")
    return lines


def _optimizer_differences(name: str, optimizer: torch.optim.Optimizer, there: Dict[str, Any]) -> List[str]:
    """Compare what a torch optimizer keeps per parameter with the parameters it would be kept for."""
    try:
        return _differences_of_kept(name, optimizer, there)
    except (KeyError, IndexError, TypeError, AttributeError):
        return [f"{name}: in the file it is not the state of an optimizer"]


def _differences_of_kept(name: str, optimizer: torch.optim.Optimizer, there: Dict[str, Any]) -> List[str]:
    groups_here = [len(group["params"]) for group in optimizer.param_groups]
    groups_there = [len(group["params"]) for group in there["param_groups"]]
    if groups_here != groups_there:
        return [f"{name}: {groups_here} parameters here, {groups_there} in the file"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    lines = []
    for index, kept in there["state"].items():
        for key, value in kept.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameters[index].shape:
                lines.append(
                    f"{name}, {key} of parameter {index}: {tuple(parameters[index].shape)} here, "
                    f"{tuple(value.shape)} in the file"
                )
    return lines
