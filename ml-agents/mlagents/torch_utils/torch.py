"""Torch as the rest of the package imports it, and the device that a run computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import nn

from mlagents.torch_utils.cpu_utils import get_num_threads_for_images, get_num_threads_to_use

if TYPE_CHECKING:
    from mlagents.trainers.settings import TorchSettings

__all__ = ["default_device", "nn", "set_torch_config", "take_threads_for_images", "torch"]

_device: torch.device | None = None


def set_torch_config(torch_settings: TorchSettings) -> None:
    """Choose the device of the run, and the number of threads that torch and NumPy compute with.

    :param torch_settings: its `device` is a name as torch has it ("cpu", "cuda", "cuda:1", "mps", ...); None takes
        the GPU if there is one that speaks CUDA, else the CPU.
    :raises TrainerConfigError: there is no such device; lists those that there are.
    """
    global _device
    _device = _choose_device(torch_settings.device)
    torch.set_num_threads(get_num_threads_to_use())
    # NumPy computes with small networks only. For them a second thread gains little, and where other processes keep
    # the cores busy, each product waits for it a hundred times as long as it takes.
    threadpool_limits(limits=1, user_api="blas")
    # A default other than the CPU makes torch intercept every call, so the CPU, where calls are what costs, goes
    # without. On other devices plug-ins rely on it for the tensors that they make themselves.
    torch.set_default_device(None if _device.type == "cpu" else _device)


def take_threads_for_images() -> None:
    """Let torch compute with as many threads as networks that see images are worth."""
    torch.set_num_threads(get_num_threads_for_images())


def default_device() -> torch.device:
    """Return the device that networks and their inputs live on."""
    global _device
    if _device is None:
        _device = _choose_device(None)
    return _device


def _choose_device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = _devices_that_are_there()
    if name not in there:
        # Not needed unless a user errs, and nothing below `trainers` should load it just by being imported.
        from mlagents.trainers.exception import TrainerConfigError

        raise TrainerConfigError(
            f"There is no torch device '{name}' on this machine. There is: {', '.join(there)}. "
            "Choose one of these with --torch-device or torch_settings: device."
        )
    return torch.device(name)


def _devices_that_are_there() -> list[str]:
    """Return the names that a user may give, the general ones and those of single devices."""
    names = ["cpu"]
    for kind, backend in (("cuda", torch.cuda), ("xpu", torch.xpu)):
        if backend.is_available():
            names += [kind, *(f"{kind}:{index}" for index in range(backend.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names
