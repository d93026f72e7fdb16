"""The base of optimizers of an actor and a critic: all of a gradient step but the loss."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

import numpy as np

from mlagents.plugins.blame import place_of
from mlagents.torch_utils import default_device, torch
from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.exception import NotFiniteError
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import TrainerSettings
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.array_learning import ArrayBatch, ArrayLearner, LossGradients
from mlagents.trainers.torch_entities.array_networks import ArrayCache
from mlagents.trainers.torch_entities.fused_adam import FusedAdam
from mlagents.trainers.torch_entities.networks import ValueNetwork
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.timers import timed

Metrics = Mapping[str, Union[torch.Tensor, float]]
"""Scalars by the names that statistics show them under."""


@dataclass
class ActorCriticBatch:
    """A minibatch of B rows as a loss needs it; A action dimensions, continuous ones first, then branches.

    What comes from the networks that learn carries gradients.
    """

    log_probs: torch.Tensor
    """(B, A), of the actions that were taken, by the actor as it is now."""
    old_log_probs: torch.Tensor
    """(B, A), by the actor that took them."""
    entropy: torch.Tensor
    """(B,)"""
    values: Dict[str, torch.Tensor]
    """(B,) by reward signal, by the critic as it is now."""
    old_values: Dict[str, torch.Tensor]
    """(B,) by reward signal, by the critic at the time of collection."""
    returns: Dict[str, torch.Tensor]
    """(B,) by reward signal: what the values should be."""
    advantages: torch.Tensor
    """(B,), normalised over the whole update."""
    masks: Optional[torch.Tensor]
    """(B,) bool, False for rows that pad a sequence; None without memory, where all rows count."""


class ActorCriticOptimizer(TorchOptimizer):
    """Improves actor and critic together with one Adam; a subclass defines `loss`.

    :param policy: whose actor is improved; with `shared_critic` it is the critic too.
    :param trainer_settings: with hyperparameters that have `learning_rate`, its schedule, and `shared_critic`.
    """

    def __init__(self, policy: TorchPolicy, trainer_settings: TrainerSettings):
        super().__init__(policy, trainer_settings)
        self.hyperparameters: Any = trainer_settings.hyperparameters
        self.stream_names = list(self.reward_signals)
        self.critic = self.create_critic()
        # Every parameter once; the actor's six constants are among them because checkpoints count them.
        parameters = list(dict.fromkeys([*policy.actor.parameters(), *self.critic.parameters()]))
        self.optimizer = self.create_torch_optimizer(parameters)
        self.decay_learning_rate = ModelUtils.DecayedValue(
            self.hyperparameters.learning_rate_schedule,
            self.hyperparameters.learning_rate,
            1e-10,
            trainer_settings.max_steps,
        )
        self._array_learner = ArrayCache(ArrayLearner)
        self.stats_name_to_update_name = {"Losses/Value Loss": "value_loss", "Losses/Policy Loss": "policy_loss"}

    def create_critic(self) -> Any:
        """Make the network that estimates values, a `Critic`; with `shared_critic` it is the actor."""
        if self.hyperparameters.shared_critic:
            return self.policy.actor
        observation_specs = self.policy.behavior_spec.observation_specs
        critic = ValueNetwork(self.stream_names, observation_specs, self.policy.network_settings)
        return critic.to(default_device())

    def create_torch_optimizer(self, parameters: List[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer of all parameters of actor and critic."""
        return FusedAdam(parameters, lr=self.hyperparameters.learning_rate)

    @abc.abstractmethod
    def loss(self, batch: ActorCriticBatch) -> Tuple[torch.Tensor, Metrics]:
        """Return what is to be minimised, a scalar, and what statistics shall show of it: numbers or scalar tensors."""

    def loss_in_arrays(self, batch: ArrayBatch) -> Tuple[float, LossGradients, Metrics]:
        """Return what `loss` is, its gradients written out, and its metrics as numbers.

        A class that defines `loss` may define this beside it: then the standard small networks learn without autograd,
        in a fraction of the time. Where a subclass has another `loss`, this one does not count.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss in arrays.")

    @timed
    def update(self, batch: AgentBuffer, num_sequences: int) -> Dict[str, float]:
        """Take a gradient step on a minibatch.

        :raises NotFiniteError: the loss is not finite, or a gradient; nothing was changed.
        """
        learning_rate = self.decay_learning_rate.get_value(self.policy.get_current_step())
        learner = self._find_learner()
        metrics = self._differentiate(batch) if learner is None else self._differentiate_in_arrays(batch, learner)
        numbers = {name: value.item() if isinstance(value, torch.Tensor) else value for name, value in metrics.items()}
        ModelUtils.update_learning_rate(self.optimizer, learning_rate)
        self.optimizer.step()
        return {**numbers, "Policy/Learning Rate": learning_rate}

    def _find_learner(self) -> Optional[ArrayLearner]:
        """Return what differentiates the networks without autograd, None where they or the loss are not known to it."""
        defines_loss = next(cls for cls in type(self).__mro__ if "loss" in vars(cls))
        if "loss_in_arrays" not in vars(defines_loss) or "loss" in vars(self):
            return None
        return self._array_learner.get(self.policy.actor, self.critic)

    def _differentiate(self, batch: AgentBuffer) -> Metrics:
        """Set the gradients of all parameters; return the loss's metrics."""
        loss, metrics = self.loss(self._evaluate(batch))
        self._check(loss.item())
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # in older torch
        return metrics

    def _differentiate_in_arrays(self, batch: AgentBuffer, learner: ArrayLearner) -> Metrics:
        """Do what `_differentiate` does, without autograd."""
        obs = ObsUtil.from_buffer(batch, len(self.policy.behavior_spec.observation_specs))
        continuous, discrete, old_log_probs = None, None, []
        if BufferKey.CONTINUOUS_ACTION in batch:
            continuous = batch[BufferKey.CONTINUOUS_ACTION].to_ndarray()
            old_log_probs.append(batch[BufferKey.CONTINUOUS_LOG_PROBS].to_ndarray())
        if BufferKey.DISCRETE_ACTION in batch:
            discrete = batch[BufferKey.DISCRETE_ACTION].to_ndarray()
            old_log_probs.append(batch[BufferKey.DISCRETE_LOG_PROBS].to_ndarray())
        log_probs, entropy, values = learner.forward(
            obs, continuous, discrete, batch[BufferKey.ACTION_MASK].to_ndarray()
        )
        loss, gradients, metrics = self.loss_in_arrays(
            ArrayBatch(
                log_probs=log_probs,
                old_log_probs=old_log_probs[0] if len(old_log_probs) == 1 else np.concatenate(old_log_probs, axis=1),
                entropy=entropy,
                values=values,
                old_values={name: batch[RewardSignalUtil.value_estimates_key(name)].to_ndarray() for name in values},
                returns={name: batch[RewardSignalUtil.returns_key(name)].to_ndarray() for name in values},
                advantages=batch[BufferKey.ADVANTAGES].to_ndarray(),
            )
        )
        self._check(loss)
        self.optimizer.zero_grad()
        learner.backward(gradients)
        return metrics

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            place = place_of(type(self).loss)
            raise NotFiniteError(f"{type(self).__name__}.loss ({place}) gave {str(loss).replace('nan', 'NaN')}")

    def _evaluate(self, batch: AgentBuffer) -> ActorCriticBatch:
        """Run actor and critic on a minibatch."""
        n_obs = len(self.policy.behavior_spec.observation_specs)
        obs = [ModelUtils.list_to_tensor(values) for values in ObsUtil.from_buffer(batch, n_obs)]
        sequence_length = self.policy.sequence_length
        run_out = self.policy.actor.get_stats(
            obs,
            AgentAction.from_buffer(batch),
            masks=ModelUtils.list_to_tensor(batch[BufferKey.ACTION_MASK]),
            memories=self.initial_memories(batch),
            sequence_length=sequence_length,
        )
        values, _ = self.critic.critic_pass(
            obs, memories=self.initial_memories(batch, BufferKey.CRITIC_MEMORY), sequence_length=sequence_length
        )
        old_values, returns = {}, {}
        for name in self.reward_signals:
            old_values[name] = ModelUtils.list_to_tensor(batch[RewardSignalUtil.value_estimates_key(name)])
            returns[name] = ModelUtils.list_to_tensor(batch[RewardSignalUtil.returns_key(name)])
        return ActorCriticBatch(
            log_probs=run_out["log_probs"].flatten(),
            old_log_probs=ActionLogProbs.from_buffer(batch).flatten(),
            entropy=run_out["entropy"],
            values=values,
            old_values=old_values,
            returns=returns,
            advantages=ModelUtils.list_to_tensor(batch[BufferKey.ADVANTAGES]),
            # Only sequences are padded.
            masks=ModelUtils.list_to_tensor(batch[BufferKey.MASKS], torch.bool) if sequence_length > 1 else None,
        )

    def get_modules(self) -> Dict[str, Any]:
        """Return what of the optimizer belongs into a checkpoint."""
        modules: Dict[str, Any] = {
            "Optimizer:value_optimizer": self.optimizer,
            "Optimizer:critic": self.critic,
        }
        modules.update(super().get_modules())
        return modules
