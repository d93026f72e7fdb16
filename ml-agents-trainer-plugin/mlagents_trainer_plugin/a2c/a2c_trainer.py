"""A2C's trainer: what becomes of a trajectory is `ActorCriticTrainer`'s, the loss is `A2COptimizer`'s."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from mlagents.trainers.trainer.actor_critic_trainer import ActorCriticTrainer
from mlagents_trainer_plugin.a2c.a2c_optimizer import A2COptimizer, A2CSettings

TRAINER_NAME = "a2c"


class A2CTrainer(ActorCriticTrainer):
    """Trains by advantage actor-critic; see `OnPolicyTrainer` for the parameters."""

    settings_class = A2CSettings
    optimizer_class = A2COptimizer

    @staticmethod
    def get_trainer_name() -> str:
        """Return "a2c"."""
        return TRAINER_NAME

    def _normalize_advantages(self) -> None:
        """Leave the advantages as they are: of a policy that does well they are mere noise, not to be scaled up."""


def get_type_and_setting() -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return the trainer and the class of its `hyperparameters`, by trainer type: the entry point of the plug-in."""
    return {TRAINER_NAME: A2CTrainer}, {TRAINER_NAME: A2CSettings}
