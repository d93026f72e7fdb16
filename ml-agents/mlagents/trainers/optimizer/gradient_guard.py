"""Gradients that are not finite, or too large, are refused before a step along them ruins the parameters."""

from __future__ import annotations

import math
import operator
from itertools import repeat
from typing import Any, Dict, List, Mapping

import numpy as np

from mlagents.torch_utils import torch
from mlagents.trainers.exception import NotFiniteError

_TOO_LARGE = 1e18
"""Of gradients; optimizers such as Adam keep the squares, and those of larger ones are beyond what a float holds."""
_LARGE = 100_000
"""Elements of a gradient for which a second thread pays."""
_BASE_OF = operator.attrgetter("_base")


def guard_gradients(modules: Mapping[str, Any]) -> None:
    """Let every torch optimizer among `modules` refuse a step along a gradient that is not finite, or too large.

    Its `step` then raises `NotFiniteError`, which names the parameter, and changes nothing.

    :param modules: networks and their optimizers by name, as `get_modules` gives them.
    """
    guard = _Guard(modules)
    for optimizer in modules.values():
        if isinstance(optimizer, torch.optim.Optimizer):
            optimizer.register_step_pre_hook(guard.check)


class _Guard:
    def __init__(self, modules: Mapping[str, Any]):
        self._modules = modules

    def check(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [
            gradient
            for group in optimizer.param_groups
            for parameter in group["params"]
            if (gradient := parameter.grad) is not None
        ]
        if not gradients or _norm(gradients) < _TOO_LARGE:
            return
        gradients = _dense(gradients)
        for gradient in gradients:
            if not torch.isfinite(gradient).all():
                raise NotFiniteError(f"the gradient of {self._name_of(gradient)} is not finite")
        for gradient in gradients:
            norm = gradient.double().norm().item()
            if norm >= _TOO_LARGE / len(gradients):
                raise NotFiniteError(f"the gradient of {self._name_of(gradient)} is too large: its norm is {norm:.0e}")

    def _name_of(self, gradient: torch.Tensor) -> str:
        names: Dict[int, str] = {}
        for name, module in self._modules.items():
            if isinstance(module, torch.nn.Module):
                for key, parameter in module.named_parameters():
                    names.setdefault(id(parameter.grad), f"{name}, {key}")
        return names.get(id(gradient), "a parameter")


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.is_cpu and tensor.dtype is torch.float32 and not tensor.is_sparse


def _dense(gradients: List[torch.Tensor]) -> List[torch.Tensor]:
    return [it.coalesce().values() if it.is_sparse else it for it in gradients]


def _norm(gradients: List[torch.Tensor]) -> float:
    """Return a bound on the norm of all gradients together."""
    whole = gradients[0]._base
    if whole is not None and _is_plain(whole) and all(map(operator.is_, map(_BASE_OF, gradients), repeat(whole))):
        flat = whole.numpy()  # the parts of one tensor are looked at as one
        return math.sqrt(np.vdot(flat, flat))
    gradients = _dense(gradients)
    large = [it for it in gradients if it.numel() >= _LARGE and it.is_contiguous()]
    if not large:
        return float(torch.stack(torch._foreach_norm(gradients)).sum())
    # Products with themselves are computed by all threads, norms by one.
    squares = [torch.dot(flat, flat) for flat in (it.view(-1) for it in large)]
    others = [it for it in gradients if it.numel() < _LARGE or not it.is_contiguous()]
    norms = [square.sqrt() for square in squares] + list(torch._foreach_norm(others) if others else ())
    return float(torch.stack(norms).sum())
