"""Which checkpoints a run has kept, and what `training_status.json` says of them."""

from __future__ import annotations

import contextlib
import os
from pathlib import PureWindowsPath
from typing import Any, Dict, List, Optional

import attr


@attr.s(auto_attribs=True)
class ModelCheckpoint:
    """One saved state of a behaviour.

    :param steps: experiences trained on so far.
    :param file_path: the exported model, or the training state where there is no export.
    :param reward: mean return of the episodes since the last update, or if none ended of the last ones; else None.
    :param creation_time: seconds since the epoch.
    :param auxillary_file_paths: the other files of this checkpoint.
    """

    steps: int
    file_path: str
    reward: Optional[float]
    creation_time: float
    auxillary_file_paths: List[str] = attr.ib(factory=list)

    def remove_files(self) -> None:
        """Delete the checkpoint's files; those that are gone already are no matter."""
        for path in [self.file_path, *self.auxillary_file_paths]:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


class CheckpointHistory:
    """A behaviour's newest checkpoints, at most `keep_checkpoints`, the final one, and the best by evaluation."""

    def __init__(self, keep_checkpoints: int):
        self.keep_checkpoints = keep_checkpoints
        self.checkpoints: List[ModelCheckpoint] = []
        self.final: Optional[ModelCheckpoint] = None
        self.best: Optional[ModelCheckpoint] = None

    def add(self, checkpoint: ModelCheckpoint) -> None:
        """Add the newest checkpoint, and delete the files of those beyond the number to keep."""
        self.checkpoints = [known for known in self.checkpoints if known.steps != checkpoint.steps]
        self.checkpoints.append(checkpoint)
        while len(self.checkpoints) > self.keep_checkpoints:
            self.checkpoints.pop(0).remove_files()

    def as_dict(self) -> Dict[str, Any]:
        """Return what `training_status.json` holds of the behaviour."""
        status: Dict[str, Any] = {"checkpoints": [attr.asdict(checkpoint) for checkpoint in self.checkpoints]}
        if self.final is not None:
            status["final_checkpoint"] = attr.asdict(self.final)
        if self.best is not None:
            status["best_checkpoint"] = attr.asdict(self.best)
        return status

    def restore(self, status: Any, folder: str | os.PathLike[str]) -> None:
        """Go on from what an earlier session of the run wrote; entries of another shape are passed over.

        :param folder: of the behaviour. The files are looked for there, wherever the run was when it wrote their paths:
            it may have been moved, or copied.
        """
        if not isinstance(status, dict):
            return
        entries = status.get("checkpoints")
        read = [_read_entry(entry, folder) for entry in entries] if isinstance(entries, list) else []
        self.checkpoints += [checkpoint for checkpoint in read if checkpoint is not None]
        self.best = _read_entry(status.get("best_checkpoint"), folder)


def _read_entry(entry: Any, folder: str | os.PathLike[str]) -> Optional[ModelCheckpoint]:
    if not isinstance(entry, dict):
        return None
    entry = {"reward": None, "creation_time": 0.0, "auxillary_file_paths": [], **entry}
    if entry.keys() != {field.name for field in attr.fields(ModelCheckpoint)}:
        return None
    paths = [entry["file_path"], *entry["auxillary_file_paths"]] if _is_list_of_text(entry) else []
    numbers = (entry["steps"], entry["creation_time"], entry["reward"] or 0.0)
    if not paths or not all(isinstance(number, (int, float)) for number in numbers):
        return None
    here = [os.path.join(folder, PureWindowsPath(path).name) for path in paths]  # it knows / and \
    return ModelCheckpoint(int(entry["steps"]), here[0], entry["reward"], entry["creation_time"], here[1:])


def _is_list_of_text(entry: Dict[str, Any]) -> bool:
    others = entry["auxillary_file_paths"]
    return isinstance(others, list) and all(isinstance(path, str) for path in [entry["file_path"], *others])
