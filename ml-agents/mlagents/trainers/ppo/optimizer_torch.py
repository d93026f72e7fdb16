"""The loss of PPO and its gradient step.

Source: Schulman et al., Proximal Policy Optimization Algorithms (2017).
"""

from __future__ import annotations

from typing import Any, Dict, cast

import attr

from mlagents.torch_utils import default_device, torch
from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import OnPolicyHyperparamSettings, ScheduleType, TrainerSettings, setting
from mlagents.trainers.settings.fields import FRACTION, NOT_NEGATIVE, POSITIVE, Range
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.fused_adam import FusedAdam
from mlagents.trainers.torch_entities.networks import ValueNetwork
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.timers import timed

_FOLLOWS = attr.Factory(lambda settings: settings.learning_rate_schedule, takes_self=True)


@attr.s(auto_attribs=True)
class PPOSettings(OnPolicyHyperparamSettings):
    """Hyperparameters of PPO."""

    beta: float = setting(5.0e-3, help="Weight of the entropy in the loss.", check=NOT_NEGATIVE)
    epsilon: float = setting(0.2, help="How far one update may move policy and values.", check=Range(above=0))
    lambd: float = setting(0.95, help="Lambda of the generalized advantage estimation.", check=FRACTION)
    num_epoch: int = setting(3, help="Passes over the buffer per update.", check=POSITIVE)
    shared_critic: bool = setting(False, help="Whether actor and critic share a body.")
    learning_rate_schedule: ScheduleType = setting(ScheduleType.LINEAR, help="How the learning rate falls.")
    beta_schedule: ScheduleType = setting(_FOLLOWS, help="How beta falls; default: like the learning rate.")
    epsilon_schedule: ScheduleType = setting(_FOLLOWS, help="How epsilon falls; default: like the learning rate.")


class TorchPPOOptimizer(TorchOptimizer):
    """Improves actor and critic together with one Adam.

    :param policy: whose actor is improved; with `shared_critic` it is the critic too.
    :param trainer_settings: with `PPOSettings` as hyperparameters.
    """

    def __init__(self, policy: TorchPolicy, trainer_settings: TrainerSettings):
        super().__init__(policy, trainer_settings)
        self.hyperparameters = cast(PPOSettings, trainer_settings.hyperparameters)
        self.stream_names = list(self.reward_signals)
        if self.hyperparameters.shared_critic:
            self._critic: Any = policy.actor
        else:
            self._critic = ValueNetwork(
                self.stream_names, policy.behavior_spec.observation_specs, policy.network_settings
            )
            self._critic.to(default_device())
        # Every parameter once; the actor's six constants are among them because checkpoints count them.
        parameters = list(dict.fromkeys([*policy.actor.parameters(), *self._critic.parameters()]))
        settings, max_steps = self.hyperparameters, trainer_settings.max_steps
        self.decay_learning_rate = ModelUtils.DecayedValue(
            settings.learning_rate_schedule, settings.learning_rate, 1e-10, max_steps
        )
        self.decay_epsilon = ModelUtils.DecayedValue(settings.epsilon_schedule, settings.epsilon, 0.1, max_steps)
        self.decay_beta = ModelUtils.DecayedValue(settings.beta_schedule, settings.beta, 1e-5, max_steps)
        self.optimizer = FusedAdam(parameters, lr=settings.learning_rate)
        self.stats_name_to_update_name = {"Losses/Value Loss": "value_loss", "Losses/Policy Loss": "policy_loss"}

    @property
    def critic(self) -> Any:
        """The value network."""
        return self._critic

    @timed
    def update(self, batch: AgentBuffer, num_sequences: int) -> Dict[str, float]:
        """Take a gradient step on a minibatch of B rows.

        loss = policy + 0.5 value - beta * entropy (equation 9 of the paper), each a mean over the valid rows.
        """
        step = self.policy.get_current_step()
        learning_rate = self.decay_learning_rate.get_value(step)
        epsilon = self.decay_epsilon.get_value(step)
        beta = self.decay_beta.get_value(step)

        obs = [
            ModelUtils.list_to_tensor(values)
            for values in ObsUtil.from_buffer(batch, len(self.policy.behavior_spec.observation_specs))
        ]
        sequence_length = self.policy.sequence_length
        run_out = self.policy.actor.get_stats(
            obs,
            AgentAction.from_buffer(batch),
            masks=ModelUtils.list_to_tensor(batch[BufferKey.ACTION_MASK]),
            memories=None,
            sequence_length=sequence_length,
        )
        values, _ = self.critic.critic_pass(obs, memories=None, sequence_length=sequence_length)
        old_values, returns = {}, {}
        for name in self.reward_signals:
            old_values[name] = ModelUtils.list_to_tensor(batch[RewardSignalUtil.value_estimates_key(name)])
            returns[name] = ModelUtils.list_to_tensor(batch[RewardSignalUtil.returns_key(name)])
        # Only sequences are padded.
        loss_masks = ModelUtils.list_to_tensor(batch[BufferKey.MASKS], torch.bool) if sequence_length > 1 else None

        value_loss = ModelUtils.trust_region_value_loss(values, old_values, returns, epsilon, loss_masks)
        policy_loss = ModelUtils.trust_region_policy_loss(
            ModelUtils.list_to_tensor(batch[BufferKey.ADVANTAGES]),
            run_out["log_probs"].flatten(),
            ActionLogProbs.from_buffer(batch).flatten(),
            loss_masks,
            epsilon,
        )
        entropy = ModelUtils.masked_mean(run_out["entropy"], loss_masks)
        loss = torch.sub(torch.add(policy_loss, value_loss, alpha=0.5), entropy, alpha=beta)

        ModelUtils.update_learning_rate(self.optimizer, learning_rate)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # in older torch
        self.optimizer.step()
        return {
            "Losses/Policy Loss": abs(policy_loss.item()),
            "Losses/Value Loss": value_loss.item(),
            "Policy/Entropy": entropy.item(),
            "Policy/Learning Rate": learning_rate,
            "Policy/Epsilon": epsilon,
            "Policy/Beta": beta,
        }

    def get_modules(self) -> Dict[str, Any]:
        """Return what of the optimizer belongs into a checkpoint."""
        modules: Dict[str, Any] = {
            "Optimizer:value_optimizer": self.optimizer,
            "Optimizer:critic": self._critic,
        }
        modules.update(super().get_modules())
        return modules
