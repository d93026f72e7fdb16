"""The loss of A2C.

Source: Mnih et al., Asynchronous Methods for Deep Reinforcement Learning (2016), made synchronous.
"""

from __future__ import annotations

from typing import Tuple

import attr

from mlagents.torch_utils import torch
from mlagents.trainers.optimizer.actor_critic_optimizer import ActorCriticBatch, ActorCriticOptimizer, Metrics
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import ActorCriticSettings, ScheduleType, TrainerSettings, setting
from mlagents.trainers.settings.fields import NOT_NEGATIVE, POSITIVE
from mlagents.trainers.torch_entities.utils import ModelUtils

_FOLLOWS = attr.Factory(lambda settings: settings.learning_rate_schedule, takes_self=True)


@attr.s(auto_attribs=True)
class A2CSettings(ActorCriticSettings):
    """Hyperparameters of A2C."""

    beta: float = setting(1.0e-3, help="Weight of the entropy in the loss.", check=NOT_NEGATIVE)
    num_epoch: int = setting(1, help="Passes over the buffer; A2C's gradient is right for one alone.", check=POSITIVE)
    learning_rate_schedule: ScheduleType = setting(ScheduleType.LINEAR, help="How the learning rate falls.")
    beta_schedule: ScheduleType = setting(_FOLLOWS, help="How beta falls; default: like the learning rate.")


class A2COptimizer(ActorCriticOptimizer):
    """Improves actor and critic by the gradient of the policy and the squared error of the values.

    :param policy: whose actor is improved; with `shared_critic` it is the critic too.
    :param trainer_settings: with `A2CSettings` as hyperparameters.
    """

    def __init__(self, policy: TorchPolicy, trainer_settings: TrainerSettings):
        super().__init__(policy, trainer_settings)
        settings = self.hyperparameters
        max_steps = trainer_settings.max_steps
        self.decay_beta = ModelUtils.DecayedValue(settings.beta_schedule, settings.beta, 1e-5, max_steps)

    def loss(self, batch: ActorCriticBatch) -> Tuple[torch.Tensor, Metrics]:
        """Return policy + 0.5 value - beta * entropy (section 4 of the paper), each a mean over the valid rows.

        The policy's part is -log pi(a|s) * advantage, where the log-probability of an action is the sum over its
        dimensions; the values' is the squared error, averaged over reward signals.
        """
        beta = self.decay_beta.get_value(self.policy.get_current_step())
        policy_loss = -ModelUtils.masked_mean(batch.log_probs.sum(dim=1) * batch.advantages, batch.masks)
        errors = [(batch.returns[name] - values).square() for name, values in batch.values.items()]
        value_loss = ModelUtils.masked_mean(torch.stack(errors, dim=1), batch.masks)
        entropy = ModelUtils.masked_mean(batch.entropy, batch.masks)
        return policy_loss + 0.5 * value_loss - beta * entropy, {
            "Losses/Policy Loss": policy_loss.abs(),
            "Losses/Value Loss": value_loss,
            "Policy/Entropy": entropy,
            "Policy/Beta": beta,
        }
