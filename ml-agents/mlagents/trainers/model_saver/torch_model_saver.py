"""Checkpoints of torch modules: ``torch.save`` of {name: state dict}, and the model as ONNX beside it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from mlagents.torch_utils import torch
from mlagents.trainers.exception import NotFiniteError, UnityTrainerException
from mlagents.trainers.files import atomic_path
from mlagents.trainers.model_saver.about import ABOUT, EVALUATED_REWARD, read_about
from mlagents.trainers.model_saver.checkpoint_file import (
    CheckpointError,
    checksum_of,
    read_checkpoint,
    write_checkpoint,
)
from mlagents.trainers.model_saver.contents import first_not_finite
from mlagents.trainers.model_saver.fitting import Part, differences, load_what_fits, shown
from mlagents.trainers.model_saver.model_saver import BaseModelSaver
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import SerializationSettings, TrainerSettings
from mlagents.trainers.torch_entities.model_serialization import ModelSerializer
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

DEFAULT_CHECKPOINT_NAME = "checkpoint.pt"
PREVIOUS_CHECKPOINT_NAME = "checkpoint.previous.pt"
BEST_CHECKPOINT_NAME = "best.pt"

_NUMBERED = re.compile(r".*-\d+\.pt")


class TorchModelSaver(BaseModelSaver):
    """Saves what policies and optimizers register.

    :param trainer_settings: for `init_path`, a checkpoint to start from.
    :param model_path: the behaviour's folder.
    :param load: whether to go on from the folder's newest state.
    :ivar allow_partial_load: whether to take what fits of a checkpoint that does not fit as a whole.
    :ivar checksum: of the newest state, as it was written or read last; None where that has none.
    """

    def __init__(self, trainer_settings: TrainerSettings, model_path: str, load: bool = False):
        super().__init__()
        self.model_path = model_path
        self.initialize_path = trainer_settings.init_path
        self.load = load
        self.allow_partial_load = False
        self.checksum: Optional[str] = None
        self.policy: Optional[TorchPolicy] = None
        self.exporter: Optional[ModelSerializer] = None
        self.modules: Dict[str, Any] = {}
        self._is_newest_damaged = False  # then the one before is not to make room for it

    def register(self, module: Union[TorchPolicy, TorchOptimizer, Any]) -> None:
        """Add what `module.get_modules()` names to the state."""
        self.modules.update(module.get_modules())
        if self.policy is None and isinstance(module, TorchPolicy):
            self.policy = module
            self.exporter = ModelSerializer(module)

    # Writing

    def save_checkpoint(self, behavior_name: str, step: int) -> Tuple[str, List[str]]:
        """Write the newest state, then ``<behaviour>-<step>.pt`` and ``.onnx``.

        :returns: the path of the model and the other paths; without an export, that of the state.
        :raises NotFiniteError: a parameter is not finite: what is on the disk stays as it is.
        :raises OSError: a file cannot be written.
        """
        self.save_state(behavior_name)
        state_path = os.path.join(self.model_path, f"{Path(behavior_name).name}-{step}.pt")
        return self._write_to_keep(state_path, behavior_name, self._state(of_one_run=False))

    def save_best(self, behavior_name: str, reward: float) -> Tuple[str, List[str]]:
        """Write ``best.pt`` and ``best.onnx``.

        :param reward: by which it is the best; `best_evaluated` reads it back.
        :returns: the path of the model and the other paths; without an export, that of the state.
        :raises NotFiniteError: a parameter is not finite: what is on the disk stays as it is.
        :raises OSError: a file cannot be written.
        """
        self._check_finite(behavior_name)
        state = self._state(of_one_run=False)
        state[ABOUT] = {**state.get(ABOUT, {}), EVALUATED_REWARD: reward}
        return self._write_to_keep(os.path.join(self.model_path, BEST_CHECKPOINT_NAME), behavior_name, state)

    def best_evaluated(self) -> Tuple[Optional[float], int]:
        """Return the reward and the step of what `save_best` wrote last; None and 0 where that is not there."""
        path = Path(self.model_path, BEST_CHECKPOINT_NAME)
        try:
            about = read_about(read_checkpoint(path), path)
        except CheckpointError as error:
            logger.debug(f"No best policy is known: {error}")
            return None, 0
        return (None, 0) if about is None else (about.evaluated_reward, about.step)

    def _write_to_keep(self, state_path: str, behavior_name: str, state: Dict[str, Any]) -> Tuple[str, List[str]]:
        """Write a state and the model beside it; return the model's path and the others."""
        write_checkpoint(state_path, state)
        path = os.path.splitext(state_path)[0]
        model_path = f"{path}.onnx"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(model_path)  # of an earlier state, should the export fail
        self.export(path, behavior_name)
        if os.path.exists(model_path):
            return model_path, [state_path]
        return state_path, []

    def save_state(self, behavior_name: str) -> None:
        """Write the newest state; the one before is kept beside it.

        :raises NotFiniteError: a parameter is not finite: what is on the disk stays as it is.
        :raises OSError: the file cannot be written; then the one before stays the newest.
        """
        self._check_finite(behavior_name)
        folder = Path(self.model_path)
        previous = None if self._is_newest_damaged else folder / PREVIOUS_CHECKPOINT_NAME
        self.checksum = write_checkpoint(folder / DEFAULT_CHECKPOINT_NAME, self._state(of_one_run=True), previous)
        self._is_newest_damaged = False

    def _check_finite(self, behavior_name: str) -> None:
        place = self.place_of_not_finite()
        if place is not None:
            raise NotFiniteError(
                f"The state of behavior {behavior_name} was not saved: {place} is not finite. "
                f"What was saved before is in {self.model_path}",
                behavior_name,
            )

    def save_state_to(self, folder: str) -> str:
        """Write the newest state to another folder than the behaviour's; return its path.

        :raises OSError: the file cannot be written.
        """
        path = os.path.join(folder, DEFAULT_CHECKPOINT_NAME)
        write_checkpoint(path, self._state(of_one_run=True))
        return path

    def _state(self, of_one_run: bool) -> Dict[str, Any]:
        return {
            name: module.state_dict()
            for name, module in self.modules.items()
            if of_one_run or not _is_of_one_run(module)
        }

    def place_of_not_finite(self) -> Optional[str]:
        """Return the first module or optimizer, and its number, that is not finite; None if all are."""
        kinds = (torch.nn.Module, torch.optim.Optimizer)
        modules = self.modules.items()
        return first_not_finite({name: it.state_dict() for name, it in modules if isinstance(it, kinds)})

    def export(self, output_filepath: str, behavior_name: str) -> None:
        """Write ``output_filepath.onnx``; a failure is a warning, since the state holds all that is needed for it."""
        if self.exporter is None or not SerializationSettings.convert_to_onnx:
            return
        try:
            self.exporter.export_policy_model(output_filepath)
        except Exception as error:  # whatever a plug-in's network or torch's exporter raises, training goes on
            logger.warning(
                f"The model of behavior {behavior_name} could not be exported to {output_filepath}.onnx: "
                f"{type(error).__name__}: {error}. Its training state was saved and can be exported later."
            )

    def copy_final_model(self, source_nn_path: str) -> None:
        """Copy the exported model beside the behaviour's folder, where users look for it."""
        if source_nn_path.endswith(".onnx"):
            with atomic_path(f"{self.model_path}.onnx") as temporary:
                shutil.copyfile(source_nn_path, temporary)

    # Reading

    def initialize_or_load(self, policy: Optional[TorchPolicy] = None) -> None:
        """Read the newest state of this run when it resumes, else the one that the run starts from, if any.

        :raises UnityTrainerException: there is no such file, or what is in it does not fit.
        """
        if self.load:
            found = self._own_newest_whole()
            self._take(found, is_same_run=True)
            self.checksum = checksum_of(found.path)
            assert self.policy is not None
            logger.info(f"Resuming from step {self.policy.get_current_step()} of {found.path}.")
        elif self.initialize_path is not None:
            path = Path(self.initialize_path)
            path = path / DEFAULT_CHECKPOINT_NAME if path.is_dir() else path
            is_newest = path.name == DEFAULT_CHECKPOINT_NAME
            found = _newest_whole(path.parent) if is_newest else _Found(path, read_checkpoint(path))
            self._take(found, is_same_run=False)
            assert self.policy is not None
            self.policy.set_step(0)
            logger.info(f"Starting training from step 0, initialized from {found.path}.")

    def reload(self) -> bool:
        """Go back to the newest state that is whole, but for the count of steps; return whether there is one."""
        assert self.policy is not None
        step = self.policy.get_current_step()
        try:
            self._take(self._own_newest_whole(), is_same_run=False)
        except CheckpointError:
            return False
        finally:
            self.policy.set_step(step)
        return True

    def _own_newest_whole(self) -> _Found:
        found = _newest_whole(Path(self.model_path))
        self._is_newest_damaged = found.path.name != DEFAULT_CHECKPOINT_NAME
        return found

    def _take(self, found: _Found, is_same_run: bool) -> None:
        """Load a state, as a whole or not at all, unless `allow_partial_load` says otherwise."""
        wanted = {name: it for name, it in self.modules.items() if is_same_run or not _is_of_one_run(it)}
        state = {name: it for name, it in found.state.items() if name in wanted or name not in self.modules}
        lines = differences(wanted, state)
        if lines and not self.allow_partial_load:
            raise UnityTrainerException(
                f"{found.path} does not fit this run, and nothing of it was loaded:\n  {shown(lines)}\n"
                f"Use the settings that it was trained with, start anew with another --run-id, or take what fits by "
                f"--allow-partial-load."
            )
        if lines:
            wanted = {name: it for name, it in wanted.items() if not _is_of_one_run(it)}
            logger.warning(f"{found.path} does not fit this run; what fits of it is taken, but for:\n  {shown(lines)}")
        for name, module in wanted.items():
            if name in state:
                load_what_fits(module, state[name])
            elif getattr(module, "may_be_missing", None):
                logger.warning(f"{found.path} does not hold {name}. {module.may_be_missing}")


class _Found(NamedTuple):
    """A checkpoint that was read."""

    path: Path
    state: Dict[str, Any]

    @property
    def step(self) -> int:
        """At which it was written; -1 where it does not say."""
        steps = self.state.get("global_step")
        counts = list(steps.values()) if isinstance(steps, dict) else []
        is_count = counts and isinstance(counts[0], torch.Tensor) and counts[0].numel() == 1
        return int(counts[0]) if is_count and torch.isfinite(counts[0]).all() else -1


def _newest_whole(folder: Path) -> _Found:
    """Return the newest state in a folder; where its file is damaged, the newest one before, and say so.

    The one before is preferred to numbered ones, unless these are of a later step and were written later: a run that
    went back to an older state has numbered ones that it gave up.

    :raises CheckpointError: none can be read.
    """
    newest, previous = folder / DEFAULT_CHECKPOINT_NAME, folder / PREVIOUS_CHECKPOINT_NAME
    try:
        return _Found(newest, read_checkpoint(newest))
    except CheckpointError as error:
        problem = error
    found = _read_if_whole(previous)
    numbered = (_read_if_whole(path) for path in folder.glob("*.pt") if _is_numbered(path))
    for other in sorted((it for it in numbered if it is not None), key=lambda candidate: candidate.step):
        if found is None or (other.step > found.step and _written_at_ns(other) >= _written_at_ns(found)):
            found = other
    if found is None:
        raise problem
    logger.warning(f"{problem}. Instead the newest whole one is used: {found.path}, of step {found.step}.")
    return found


def holds_states(folder: str) -> bool:
    """Return whether there is any state in a folder that a run can go on from, whole or not."""
    known = (DEFAULT_CHECKPOINT_NAME, PREVIOUS_CHECKPOINT_NAME)
    return any(path.name in known or _is_numbered(path) for path in Path(folder).glob("*.pt"))


def _written_at_ns(found: _Found) -> int:
    return found.path.stat().st_mtime_ns


def _read_if_whole(path: Path) -> Optional[_Found]:
    try:
        return _Found(path, read_checkpoint(path))
    except CheckpointError as error:
        logger.debug(f"Not used: {error}")
        return None


def _is_of_one_run(module: Any) -> bool:
    return isinstance(module, Part) and module.is_of_one_run


def _is_numbered(path: Path) -> bool:
    return _NUMBERED.fullmatch(path.name) is not None
