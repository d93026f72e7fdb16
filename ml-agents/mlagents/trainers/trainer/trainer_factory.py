"""From a behaviour's settings to its trainer."""

from __future__ import annotations

import glob
import os
from typing import Any, Callable, Dict, Optional

import attr

from mlagents.plugins.trainer_type import get_trainer_class
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.model_saver.torch_model_saver import TorchModelSaver, holds_states
from mlagents.trainers.settings import TrainerSettings
from mlagents.trainers.trainer.trainer import Trainer
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

NOT_A_BEHAVIOR = ("run_logs", "inference")
"""Folders of a run that are not a behaviour's."""
REWARD_BUFFER_CAPACITY = 100
"""How many of the last episodes a trainer keeps the returns of, for the progress shown."""


class TrainerFactory:
    """Makes the trainers of a run.

    :param trainer_config: settings by behaviour name.
    :param output_path: the run's folder.
    :param train_model: whether trainers learn, or only act.
    :param load_model: whether they go on from the states in the run's folder.
    :param seed: of the run.
    :param status: what `training_status.json` held when the run resumes, by behaviour name.
    :param init_checkpoint: (behaviour name, its `init_path`) to the checkpoint that it starts from, if any.
    :param allow_partial_load: whether to take what fits of a checkpoint that does not fit as a whole.
    """

    def __init__(
        self,
        trainer_config: Dict[str, TrainerSettings],
        output_path: str,
        train_model: bool,
        load_model: bool,
        seed: int,
        status: Dict[str, Any],
        init_checkpoint: Callable[[str, Optional[str]], Optional[str]] = lambda behavior_name, init_path: init_path,
        allow_partial_load: bool = False,
    ):
        self.trainer_config = trainer_config
        self.output_path = output_path
        self.train_model = train_model
        self.load_model = load_model
        self.seed = seed
        self.status = status
        self.init_checkpoint = init_checkpoint
        self.allow_partial_load = allow_partial_load

    def generate(self, behavior_name: str) -> Trainer:
        """Make the trainer of a behaviour.

        :raises TrainerConfigError: the behaviour is not configured, or its name can be no folder's.
        """
        check_behavior_name(behavior_name)
        settings = self.trainer_config[behavior_name]
        init_path = self.init_checkpoint(behavior_name, settings.init_path)
        if init_path != settings.init_path:
            settings = attr.evolve(settings, init_path=init_path)
        folder = os.path.join(self.output_path, behavior_name)
        trainer_class = get_trainer_class(settings.trainer_type)
        trainer: Trainer = trainer_class(
            behavior_name,
            REWARD_BUFFER_CAPACITY,
            settings,
            self.train_model,
            self._loads(behavior_name, folder),
            self.seed,
            folder,
        )
        checkpoints = getattr(trainer, "checkpoints", None)
        if checkpoints is not None:
            checkpoints.restore(self.status.get(behavior_name), trainer.artifact_path)
        model_saver = getattr(trainer, "model_saver", None)
        if isinstance(model_saver, TorchModelSaver):
            model_saver.allow_partial_load = self.allow_partial_load
        return trainer

    def _loads(self, behavior_name: str, folder: str) -> bool:
        """Whether a behaviour goes on from its state: one that is new in a run that goes on has none."""
        if not self.load_model or not self.train_model or holds_states(folder):
            return self.load_model
        if not glob.glob(os.path.join(glob.escape(self.output_path), "**", "*.pt"), recursive=True):
            return True  # and be told that there is none
        logger.warning(f"There is no state of behavior {behavior_name} in {folder}; it begins anew.")
        return False


def check_behavior_name(behavior_name: str) -> None:
    """Raise `TrainerConfigError` for a name that would put a behaviour's files where others are."""
    parts = behavior_name.replace("\\", "/").split("/")
    if any(part in ("", ".", "..") for part in parts) or parts[0] in NOT_A_BEHAVIOR:
        raise TrainerConfigError(
            f"A behavior cannot be called {behavior_name!r}, as its files are in a folder of this name: call it "
            f"otherwise in the environment."
        )
