"""Saving what was learned when the disk of the results does not take it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Optional

from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.stop_request import StopRequest
from mlagents.trainers.trainer import Trainer
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

_RETRY_INTERVAL_S = 5.0


def rescue(trainer: Trainer, problem: OSError, stop: StopRequest) -> None:
    """Write a trainer's newest state into a folder for temporary files; if that fails, wait until there is space.

    Where the model could be saved in its own place after all, nothing is left to be said.

    :param problem: what kept the model from being saved.
    :param stop: by which the user may give up; what was requested before only brought us here.
    :raises UnityTrainerException: the state is elsewhere now, or lost; the message says which.
    """
    name, folder = trainer.brain_name, trainer.artifact_path
    logger.error(f"The model of {name} could not be written to {folder}: {problem}.")
    path = _write_elsewhere(trainer)
    if path is not None:
        raise UnityTrainerException(
            f"The model of {name} could not be written to {folder}: {problem}. What was learned is in {path}: copy it "
            f"to {folder} to resume the run."
        ) from problem
    logger.error(
        f"Nor can it be written elsewhere. Free some space: it is tried every {_RETRY_INTERVAL_S:.0f} s, until Ctrl-C."
    )
    was_requested = stop.requested
    stop.renew()
    while not stop.requested:
        time.sleep(_RETRY_INTERVAL_S)
        try:
            trainer.save_model()
        except OSError as error:
            problem = error
        else:
            stop.requested = was_requested
            return
    raise UnityTrainerException(
        f"The model of {name} could not be written to {folder}: {problem}. What was learned since its last checkpoint "
        f"is lost."
    ) from problem


def _write_elsewhere(trainer: Trainer) -> Optional[str]:
    try:
        folder = tempfile.mkdtemp(prefix=f"mlagents-{Path(trainer.brain_name).name}-")
    except OSError:
        return None
    path: Optional[str] = None
    with contextlib.suppress(OSError):
        path = trainer.save_state_to(folder)
    if path is None:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return path
