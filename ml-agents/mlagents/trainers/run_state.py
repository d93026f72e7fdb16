"""What a run is beside its trainers: episodes under way, random numbers, statistics, restarts; and the file of it.

With the newest states of all trainers, which it belongs to, a resumed run goes on exactly where it was.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Protocol

import numpy as np

from mlagents.torch_utils import torch
from mlagents.trainers.model_saver.checkpoint_file import CheckpointError, read_checkpoint, write_checkpoint
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

RUN_STATE_NAME = "run_state.pt"
PREVIOUS_RUN_STATE_NAME = "run_state.previous.pt"

Checksums = Dict[str, str]
"""By behaviour name, the checksum of its trainer's newest state, where that has one."""


class Stateful(Protocol):
    """What has a state to save."""

    def state_dict(self) -> Dict[str, Any]:
        """Return plain data: arrays, numbers, text and containers of these."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class RandomState:
    """The global random numbers of Python, NumPy and torch, which trainers, buffers and networks draw from."""

    def state_dict(self) -> Dict[str, Any]:
        """Return where each of them is."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        numpy, python = np.random.get_state(), random.getstate()
        return {"python": python, "numpy": numpy, "torch": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let all go on from there."""
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
            torch.cuda.set_rng_state_all(state["cuda"])


def seed_everything(seed: int) -> None:
    """Seed the global random numbers of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class RunStateFile:
    """``run_state.pt`` in a run's folder, and the one before.

    :param folder: of the run.
    """

    def __init__(self, folder: Path):
        self._newest = folder / RUN_STATE_NAME
        self._previous = folder / PREVIOUS_RUN_STATE_NAME
        self._is_newest_of_use = True  # else the one before is not to make room for it

    def write(self, state: Dict[str, Any], checksums: Checksums) -> None:
        """Write what belongs to the states of trainers that have these checksums.

        :raises OSError: the file cannot be written; then the one before stays the newest.
        """
        previous = self._previous if self._is_newest_of_use else None
        write_checkpoint(self._newest, {"trainers": checksums, "state": state}, previous)
        self._is_newest_of_use = True

    def read(self, checksums: Checksums) -> Optional[Dict[str, Any]]:
        """Return what belongs to the states of trainers that have these checksums; None where nothing does."""
        for path in (self._newest, self._previous) if checksums else ():
            found = _read_if_whole(path)
            if found is not None and found.get("trainers") == checksums:
                self._is_newest_of_use = path == self._newest
                state: Dict[str, Any] = found["state"]
                return state
        return None


def _read_if_whole(path: Path) -> Optional[Dict[str, Any]]:
    if not path.exists():
        return None
    try:
        return read_checkpoint(path)
    except CheckpointError as error:
        logger.warning(f"{error}.")
        return None
