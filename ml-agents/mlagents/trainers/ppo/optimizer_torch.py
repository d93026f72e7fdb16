"""The loss of PPO.

Source: Schulman et al., Proximal Policy Optimization Algorithms (2017).
"""

from __future__ import annotations

from typing import Any, Tuple

import attr
import numpy as np

from mlagents.torch_utils import torch
from mlagents.trainers.optimizer.actor_critic_optimizer import ActorCriticBatch, ActorCriticOptimizer, Metrics
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import ActorCriticSettings, ScheduleType, TrainerSettings, setting
from mlagents.trainers.settings.fields import NOT_NEGATIVE, Range
from mlagents.trainers.torch_entities.array_learning import ArrayBatch, LossGradients
from mlagents.trainers.torch_entities.array_losses import trust_region_policy_gradient, trust_region_value_gradient
from mlagents.trainers.torch_entities.utils import ModelUtils

_FOLLOWS = attr.Factory(lambda settings: settings.learning_rate_schedule, takes_self=True)


@attr.s(auto_attribs=True)
class PPOSettings(ActorCriticSettings):
    """Hyperparameters of PPO."""

    beta: float = setting(5.0e-3, help="Weight of the entropy in the loss.", check=NOT_NEGATIVE)
    epsilon: float = setting(0.2, help="How far one update may move policy and values.", check=Range(above=0))
    learning_rate_schedule: ScheduleType = setting(ScheduleType.LINEAR, help="How the learning rate falls.")
    beta_schedule: ScheduleType = setting(_FOLLOWS, help="How beta falls; default: like the learning rate.")
    epsilon_schedule: ScheduleType = setting(_FOLLOWS, help="How epsilon falls; default: like the learning rate.")


class TorchPPOOptimizer(ActorCriticOptimizer):
    """Improves actor and critic by PPO's clipped losses.

    :param policy: whose actor is improved; with `shared_critic` it is the critic too.
    :param trainer_settings: with `PPOSettings` as hyperparameters.
    """

    def __init__(self, policy: TorchPolicy, trainer_settings: TrainerSettings):
        super().__init__(policy, trainer_settings)
        settings, max_steps = self.hyperparameters, trainer_settings.max_steps
        self.decay_epsilon = ModelUtils.DecayedValue(settings.epsilon_schedule, settings.epsilon, 0.1, max_steps)
        self.decay_beta = ModelUtils.DecayedValue(settings.beta_schedule, settings.beta, 1e-5, max_steps)

    def loss(self, batch: ActorCriticBatch) -> Tuple[torch.Tensor, Metrics]:
        """Return policy + 0.5 value - beta * entropy (equation 9 of the paper), each a mean over the valid rows."""
        step = self.policy.get_current_step()
        epsilon, beta = self.decay_epsilon.get_value(step), self.decay_beta.get_value(step)
        policy_loss = ModelUtils.trust_region_policy_loss(
            batch.advantages, batch.log_probs, batch.old_log_probs, batch.masks, epsilon
        )
        value_loss = ModelUtils.trust_region_value_loss(
            batch.values, batch.old_values, batch.returns, epsilon, batch.masks
        )
        entropy = ModelUtils.masked_mean(batch.entropy, batch.masks)
        loss = torch.sub(torch.add(policy_loss, value_loss, alpha=0.5), entropy, alpha=beta)
        return loss, self._metrics(policy_loss, value_loss, entropy, epsilon, beta)

    def loss_in_arrays(self, batch: ArrayBatch) -> Tuple[float, LossGradients, Metrics]:
        """See `ActorCriticOptimizer`."""
        step = self.policy.get_current_step()
        epsilon, beta = self.decay_epsilon.get_value(step), self.decay_beta.get_value(step)
        policy_loss, of_log_probs = trust_region_policy_gradient(
            batch.advantages, batch.log_probs, batch.old_log_probs, epsilon
        )
        value_loss, of_values = trust_region_value_gradient(batch.values, batch.old_values, batch.returns, epsilon)
        entropy = float(np.add.reduce(batch.entropy)) / len(batch.entropy)
        loss = policy_loss + 0.5 * value_loss - beta * entropy
        for gradient in of_values.values():
            gradient *= 0.5
        gradients = LossGradients(of_log_probs, -beta / len(batch.entropy), of_values)
        return loss, gradients, self._metrics(policy_loss, value_loss, entropy, epsilon, beta)

    @staticmethod
    def _metrics(policy_loss: Any, value_loss: Any, entropy: Any, epsilon: float, beta: float) -> Metrics:
        return {
            "Losses/Policy Loss": abs(policy_loss),
            "Losses/Value Loss": value_loss,
            "Policy/Entropy": entropy,
            "Policy/Epsilon": epsilon,
            "Policy/Beta": beta,
        }
