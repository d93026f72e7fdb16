"""The base of actor-critic trainers: advantages by GAE, so that a subclass supplies settings, networks and a loss."""

from __future__ import annotations

from typing import Any, ClassVar, Dict, List, Type

import numpy as np

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import ActorCriticSettings, TrainerSettings
from mlagents.trainers.torch_entities.networks import SharedActorCritic, SimpleActor
from mlagents.trainers.trainer.on_policy_trainer import OnPolicyTrainer
from mlagents.trainers.trainer.trainer_utils import get_gae
from mlagents.trainers.trajectory import Trajectory
from mlagents_envs.base_env import BehaviorSpec


class ActorCriticTrainer(OnPolicyTrainer):
    """An on-policy trainer that is complete but for its loss; see `OnPolicyTrainer` for the parameters.

    A subclass names its classes, and defines `get_trainer_name`:

    :cvar settings_class: of its `hyperparameters`.
    :cvar optimizer_class: made with (policy, trainer_settings); usually an `ActorCriticOptimizer`, which has the loss.
    :cvar actor_class: of the policy's network, made as `SimpleActor` is.
    :cvar shared_actor_class: the same where actor and critic share a body, made as `SharedActorCritic` is.
    """

    settings_class: ClassVar[Type[Any]] = ActorCriticSettings
    optimizer_class: ClassVar[Type[TorchOptimizer]]
    actor_class: ClassVar[Type[Any]] = SimpleActor
    shared_actor_class: ClassVar[Type[Any]] = SharedActorCritic

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
        self.shared_critic: bool = self.hyperparameters.shared_critic

    @classmethod
    def get_settings_type(cls) -> Type[Any]:
        """Return the class of the trainer's `hyperparameters`."""
        return cls.settings_class

    def create_policy(self, parsed_behavior_id: BehaviorIdentifiers, behavior_spec: BehaviorSpec) -> TorchPolicy:
        """Make the policy of a behaviour; with `shared_critic` its actor has the value heads too."""
        actor_class = self.actor_class
        actor_kwargs: Dict[str, Any] = {"conditional_sigma": False, "tanh_squash": False}
        if self.shared_critic:
            actor_class = self.shared_actor_class
            actor_kwargs["stream_names"] = [signal.value for signal in self.trainer_settings.reward_signals]
        return TorchPolicy(self.seed, behavior_spec, self.trainer_settings.network_settings, actor_class, actor_kwargs)

    def create_optimizer(self) -> TorchOptimizer:
        """Make the optimizer of `self.policy`."""
        return self.optimizer_class(self.policy, self.trainer_settings)

    def _process_trajectory(self, trajectory: Trajectory) -> None:
        """Estimate values, rewards and advantages of a trajectory and add it to the update buffer."""
        super()._process_trajectory(trajectory)
        buffer = trajectory.to_agentbuffer()
        self._warn_if_group_reward(buffer)
        self._update_normalization(buffer)
        next_values = self._evaluate_values(trajectory, buffer)
        self._evaluate_rewards(trajectory.agent_id, buffer)
        self._compute_advantages(buffer, next_values)
        self._append_to_update_buffer(buffer)
        if trajectory.done_reached:
            self._update_end_episode_stats(trajectory.agent_id, self.optimizer)

    def _evaluate_values(self, trajectory: Trajectory, buffer: AgentBuffer) -> Dict[str, float]:
        """Put the critic's values into `buffer`; return by reward signal the value of what came after."""
        done = trajectory.done_reached and not trajectory.interrupted
        estimates, next_values, memories = self.optimizer.get_trajectory_value_estimates(
            buffer, trajectory.next_obs, done
        )
        if memories is not None:
            buffer[BufferKey.CRITIC_MEMORY].set(memories)
        for name, values in estimates.items():
            buffer[RewardSignalUtil.value_estimates_key(name)].set(values)
            signal = self.optimizer.reward_signals[name].name.capitalize()
            self._stats_reporter.add_stat(f"Policy/{signal} Value Estimate", float(values.mean()))
        return dict(next_values)

    def _compute_advantages(self, buffer: AgentBuffer, next_values: Dict[str, float]) -> None:
        """Put advantages and returns of every reward signal into `buffer`, and their means over the signals."""
        all_advantages: List[np.ndarray] = []
        all_returns: List[np.ndarray] = []
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
