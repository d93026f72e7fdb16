"""PPO's trainer: what becomes of a trajectory is `ActorCriticTrainer`'s, the loss is `TorchPPOOptimizer`'s.

Source: Schulman et al., Proximal Policy Optimization Algorithms (2017), with generalized advantage estimation.
"""

from __future__ import annotations

from mlagents.trainers.ppo.optimizer_torch import PPOSettings, TorchPPOOptimizer
from mlagents.trainers.trainer.actor_critic_trainer import ActorCriticTrainer

__all__ = ["TRAINER_NAME", "PPOSettings", "PPOTrainer", "TorchPPOOptimizer"]

TRAINER_NAME = "ppo"


class PPOTrainer(ActorCriticTrainer):
    """Trains with clipped policy updates; see `OnPolicyTrainer` for the parameters."""

    settings_class = PPOSettings
    optimizer_class = TorchPPOOptimizer

    @staticmethod
    def get_trainer_name() -> str:
        """Return "ppo"."""
        return TRAINER_NAME
