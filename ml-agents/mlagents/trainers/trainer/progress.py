"""What of a trainer itself is in its checkpoints: what they are of, and what it has counted and collected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict

from mlagents.trainers.buffer import BufferException
from mlagents.trainers.model_saver.about import make_about
from mlagents.trainers.model_saver.fitting import Part
from mlagents_envs.logging_util import get_logger

if TYPE_CHECKING:
    from mlagents.trainers.trainer.rl_trainer import RLTrainer

logger = get_logger(__name__)


class TrainerAbout(Part):
    """What a checkpoint says of itself: see `about`."""

    may_be_missing = ""

    def __init__(self, trainer: RLTrainer):
        self._trainer = trainer

    def state_dict(self) -> Dict[str, Any]:
        """Return what is to be said."""
        trainer = self._trainer
        return make_about(
            trainer.brain_name,
            trainer.policy.behavior_spec,
            trainer.trainer_settings,
            trainer.get_step,
            trainer.mean_return,
        )

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """There is nothing to take over."""


class TrainerProgress(Part):
    """What `RLTrainer.progress` gives, as a part of the newest state."""

    may_be_missing = ""
    is_of_one_run = True

    def __init__(self, trainer: RLTrainer):
        self._trainer = trainer

    def state_dict(self) -> Dict[str, Any]:
        """Return the progress."""
        return self._trainer.progress()

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Let the trainer go on from it, if it is to learn; progress of another version of its code is left out."""
        if not self._trainer.is_training:
            return
        try:
            self._trainer.restore_progress(state)
        except (KeyError, TypeError, ValueError, AttributeError, BufferException) as error:
            logger.warning(
                f"What behavior {self._trainer.brain_name} had counted and collected cannot be read "
                f"({type(error).__name__}: {error}), and begins anew; what it has learned is there."
            )
