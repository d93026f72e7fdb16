"""PPO: what becomes of a trajectory, and which networks learn from it.

Source: Schulman et al., Proximal Policy Optimization Algorithms (2017), with generalized advantage estimation.
"""

from __future__ import annotations

from typing import Any, Dict, Type, Union, cast

import numpy as np

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.ppo.optimizer_torch import PPOSettings, TorchPPOOptimizer
from mlagents.trainers.settings import TrainerSettings
from mlagents.trainers.torch_entities.networks import SharedActorCritic, SimpleActor
from mlagents.trainers.trainer.on_policy_trainer import OnPolicyTrainer
from mlagents.trainers.trainer.trainer_utils import get_gae
from mlagents.trainers.trajectory import Trajectory
from mlagents_envs.base_env import BehaviorSpec

__all__ = ["TRAINER_NAME", "PPOSettings", "PPOTrainer", "TorchPPOOptimizer"]

TRAINER_NAME = "ppo"


class PPOTrainer(OnPolicyTrainer):
    """Trains with clipped policy updates; see `OnPolicyTrainer` for the parameters."""

    def __init__(
        self,
        behavior_name: str,
        reward_buff_cap: int,
        trainer_settings: TrainerSettings,
        training: bool,
        load: bool,
        seed: int,
        artifact_path: str,
    ):
        super().__init__(behavior_name, reward_buff_cap, trainer_settings, training, load, seed, artifact_path)
        self.hyperparameters: PPOSettings = cast(PPOSettings, trainer_settings.hyperparameters)
        self.shared_critic = self.hyperparameters.shared_critic

    def _process_trajectory(self, trajectory: Trajectory) -> None:
        """Estimate values, rewards and advantages of a trajectory and add it to the update buffer."""
        super()._process_trajectory(trajectory)
        buffer = trajectory.to_agentbuffer()
        self._warn_if_group_reward(buffer)
        if self.is_training:
            self.policy.actor.update_normalization(buffer)
            if self.optimizer.critic is not self.policy.actor:
                self.optimizer.critic.update_normalization(buffer)
        next_values = self._evaluate_values(trajectory, buffer)
        self._evaluate_rewards(trajectory.agent_id, buffer)
        self._compute_advantages(buffer, next_values)
        self._append_to_update_buffer(buffer)
        if trajectory.done_reached:
            self._update_end_episode_stats(trajectory.agent_id, self.optimizer)

    def _compute_advantages(self, buffer: AgentBuffer, next_values: Dict[str, float]) -> None:
        """Put advantages and returns of every reward signal into `buffer`, and their means over the signals."""
        all_advantages, all_returns = [], []
        for name, signal in self.optimizer.reward_signals.items():
            values = buffer[RewardSignalUtil.value_estimates_key(name)].to_ndarray()
            advantages = get_gae(
                rewards=buffer[RewardSignalUtil.rewards_key(name)].to_ndarray(),
                value_estimates=values,
                value_next=next_values[name],
                gamma=signal.gamma,
                lambd=self.hyperparameters.lambd,
            )
            returns = advantages + values
            buffer[RewardSignalUtil.advantage_key(name)].set(advantages)
            buffer[RewardSignalUtil.returns_key(name)].set(returns)
            all_advantages.append(advantages)
            all_returns.append(returns)
        buffer[BufferKey.ADVANTAGES].set(np.add.reduce(all_advantages) / len(all_advantages))
        buffer[BufferKey.DISCOUNTED_RETURNS].set(np.add.reduce(all_returns) / len(all_returns))

    def create_policy(self, parsed_behavior_id: BehaviorIdentifiers, behavior_spec: BehaviorSpec) -> TorchPolicy:
        """Make the policy of a behaviour; with `shared_critic` its actor has the value heads too."""
        actor_cls: Union[Type[SimpleActor], Type[SharedActorCritic]] = SimpleActor
        actor_kwargs: Dict[str, Any] = {"conditional_sigma": False, "tanh_squash": False}
        if self.shared_critic:
            actor_cls = SharedActorCritic
            actor_kwargs["stream_names"] = [signal.value for signal in self.trainer_settings.reward_signals]
        return TorchPolicy(self.seed, behavior_spec, self.trainer_settings.network_settings, actor_cls, actor_kwargs)

    def create_optimizer(self) -> TorchOptimizer:
        """Make the optimizer of `self.policy`."""
        return TorchPPOOptimizer(self.policy, self.trainer_settings)

    @staticmethod
    def get_trainer_name() -> str:
        """Return "ppo"."""
        return TRAINER_NAME
