"""The algorithm: its settings and its loss."""

from __future__ import annotations

import attr
from mlagents.torch_utils import torch
from mlagents.trainers.optimizer.actor_critic_optimizer import ActorCriticBatch, ActorCriticOptimizer, Metrics
from mlagents.trainers.settings import ActorCriticSettings, setting
from mlagents.trainers.torch_entities.utils import ModelUtils


@attr.s(auto_attribs=True)
class TemplateSettings(ActorCriticSettings):
    """What may stand under `hyperparameters` in a configuration, beside what `ActorCriticSettings` has.

    Add a field for each number of your loss: the optimizer reads it as ``self.hyperparameters.NAME``.
    """

    clip: float = setting(0.2, help="How far the probability of an action may move in an update.")
    entropy_weight: float = setting(1.0e-3, help="Weight of the entropy in the loss.")


class TemplateOptimizer(ActorCriticOptimizer):
    """Takes a gradient step on `loss` for every minibatch."""

    def loss(self, batch: ActorCriticBatch) -> tuple[torch.Tensor, Metrics]:
        """Return what is to be minimised, a scalar, and what statistics shall show of it.

        This is the algorithm, for you to change; `ActorCriticBatch` says what there is to compute with. It starts out
        as a policy gradient whose actions may not become too much more or less likely at once (Schulman et al., 2017,
        "Proximal policy optimization algorithms", equation 7).
        """
        # How much more likely each action has become, over all its dimensions: (B,).
        ratio = torch.exp((batch.log_probs - batch.old_log_probs).sum(dim=1))
        clipped_ratio = ratio.clamp(1 - self.hyperparameters.clip, 1 + self.hyperparameters.clip)
        gain = torch.minimum(ratio * batch.advantages, clipped_ratio * batch.advantages)

        # By how much the critic is wrong, for each reward signal: (B, signals).
        errors = torch.stack([batch.returns[name] - values for name, values in batch.values.items()], dim=1)

        # Means over the rows that count: with memory, sequences are padded.
        policy_loss = -ModelUtils.masked_mean(gain, batch.masks)
        value_loss = ModelUtils.masked_mean(errors.square(), batch.masks)
        entropy = ModelUtils.masked_mean(batch.entropy, batch.masks)
        loss = policy_loss + 0.5 * value_loss - self.hyperparameters.entropy_weight * entropy
        return loss, {
            "Losses/Policy Loss": policy_loss.detach(),
            "Losses/Value Loss": value_loss.detach(),
            "Policy/Entropy": entropy.detach(),
        }
