"""What a trainer does about updates that are not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlagents.torch_utils import torch
from mlagents.trainers.exception import NotFiniteError
from mlagents.trainers.model_saver.torch_model_saver import TorchModelSaver
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents_envs.logging_util import get_logger

if TYPE_CHECKING:
    from mlagents.trainers.trainer.rl_trainer import RLTrainer

logger = get_logger(__name__)

LEARNING_RATE = "Policy/Learning Rate"
MAX_IN_A_ROW = 3
"""So many updates in a row that are not finite, and the trainer goes back to its last checkpoint."""
MAX_ROLLBACKS = 2
"""So often in a session, and then the run ends."""
RATE_AFTER_ROLLBACK = 0.5
"""What the learning rate is multiplied by with each time."""


class Setbacks:
    """Counts what was not finite; after some in a row goes back to the last checkpoint, with half the learning rate.

    :param trainer: whose updates they are.
    :ivar in_a_row: the updates that were not finite since the last one that was.
    :ivar rollbacks: how often the run went back, in all its sessions.
    """

    def __init__(self, trainer: RLTrainer):
        self._trainer = trainer
        self.in_a_row = 0
        self.rollbacks = 0
        self._rollbacks_before = 0  # of earlier sessions: whoever resumes has a reason to hope

    def restore(self, rollbacks: int) -> None:
        """Go on from a session in which the run had gone back so often."""
        self.rollbacks = self._rollbacks_before = rollbacks
        if rollbacks:
            logger.warning(
                f"Behavior {self._trainer.brain_name} is trained on with {self.learning_rate_factor:g} times the "
                f"learning rate of its settings: it went back to an earlier checkpoint {rollbacks} times."
            )

    @property
    def learning_rate_factor(self) -> float:
        """What the learning rate is multiplied by."""
        return RATE_AFTER_ROLLBACK**self.rollbacks

    def refuse(self, error: NotFiniteError, was_applied: bool = False) -> None:
        """Take note of an update that was not finite.

        :param was_applied: whether that showed only after it was.
        :raises NotFiniteError: there were too many; the trainer is as at its last checkpoint.
        """
        self.in_a_row += 1
        what_was_done = "applied all the same" if was_applied else "left out"
        logger.warning(f"{self._place}: {error}. The update was {what_was_done} ({self.in_a_row} in a row).")
        if self.in_a_row >= MAX_IN_A_ROW:
            self.roll_back(error)

    def roll_back(self, error: NotFiniteError) -> None:
        """Go back to the last checkpoint, and go on from there with half the learning rate.

        :raises NotFiniteError: that was done too often.
        """
        self.in_a_row = 0
        is_restored = self.reload()
        folder = self._trainer.artifact_path
        if self.rollbacks - self._rollbacks_before >= MAX_ROLLBACKS:
            raise NotFiniteError(
                f"{self._place}: {error}. That did not get better after going back to the last checkpoint "
                f"{MAX_ROLLBACKS} times, each time with half the learning rate. The model that is exported is of the "
                f"last checkpoint in {folder}. Lower the learning rate, and look for a division or a logarithm that "
                f"can meet 0.",
                self._trainer.brain_name,
            ) from error
        self.rollbacks += 1
        for module in self._trainer.optimizer.get_modules().values():
            if isinstance(module, torch.optim.Optimizer):
                ModelUtils.scale_learning_rate(module, self.learning_rate_factor)
        whence = f"from the last checkpoint in {folder}" if is_restored else "from where it is, having no checkpoint"
        logger.warning(
            f"{self._place}: {error}. Training goes on {whence}, with {self.learning_rate_factor:g} times the learning "
            f"rate."
        )

    def reload(self) -> bool:
        """Restore the networks and optimizers of the last checkpoint; return whether there is one."""
        saver = self._trainer.model_saver
        return isinstance(saver, TorchModelSaver) and saver.reload()

    @property
    def _place(self) -> str:
        return f"Behavior {self._trainer.brain_name}, step {self._trainer.get_step}"
