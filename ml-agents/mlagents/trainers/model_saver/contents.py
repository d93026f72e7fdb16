"""Looking through the tensors of a state, whatever it is made of."""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, Optional, Tuple

import numpy as np

from mlagents.torch_utils import torch


def tensors_in(state: Any, place: str = "") -> Iterator[Tuple[str, torch.Tensor]]:
    """Yield the tensors and arrays of a state and their places in it, each once, also where two names share one."""
    seen = set()
    for name, tensor in _named_tensors(state, [place] if place else []):
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if not tensor.numel() or identity not in seen:
            seen.add(identity)
            yield name, tensor


def first_not_finite(state: Mapping[str, Any]) -> Optional[str]:
    """Return the place of the first tensor with a value that is not finite, ``module, key``; None if all are."""
    for name, tensor in tensors_in(state):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return name
    return None


def _named_tensors(value: Any, path: List[str]) -> Iterator[Tuple[str, torch.Tensor]]:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, torch.Tensor):
        yield ", ".join(path), value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _named_tensors(entry, [*path, str(key)])
    elif isinstance(value, (list, tuple)):
        for index, entry in enumerate(value):
            yield from _named_tensors(entry, [*path, str(index)])
