"""SAC's trainer: what becomes of a trajectory; the losses are `TorchSACOptimizer`'s.

Source: Haarnoja et al., Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic
Actor (2018).
"""

from __future__ import annotations

from typing import Type

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import AgentBuffer, BufferKey
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.sac.optimizer_torch import SACSettings, TorchSACOptimizer
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents.trainers.trainer.off_policy_trainer import BUFFER_TRUNCATE_PERCENT, OffPolicyTrainer
from mlagents.trainers.trajectory import Trajectory
from mlagents_envs.base_env import BehaviorSpec

__all__ = ["BUFFER_TRUNCATE_PERCENT", "TRAINER_NAME", "SACSettings", "SACTrainer", "TorchSACOptimizer"]

TRAINER_NAME = "sac"


class SACTrainer(OffPolicyTrainer):
    """Trains by soft actor-critic; see `OffPolicyTrainer` for the parameters."""

    def create_policy(self, parsed_behavior_id: BehaviorIdentifiers, behavior_spec: BehaviorSpec) -> TorchPolicy:
        """Make a policy whose continuous actions are squashed by tanh, with deviations that depend on what is seen."""
        actor_kwargs = {"conditional_sigma": True, "tanh_squash": True}
        return TorchPolicy(self.seed, behavior_spec, self.trainer_settings.network_settings, SimpleActor, actor_kwargs)

    def create_optimizer(self) -> TorchSACOptimizer:
        """Make the optimizer of `self.policy`."""
        return TorchSACOptimizer(self.policy, self.trainer_settings)

    def _process_trajectory(self, trajectory: Trajectory) -> None:
        """Put the steps of a trajectory into the replay buffer."""
        super()._process_trajectory(trajectory)
        buffer = trajectory.to_agentbuffer()
        self._warn_if_group_reward(buffer)
        self._update_normalization(buffer)
        self._evaluate_rewards(trajectory.agent_id, buffer)
        self._evaluate_values(trajectory, buffer)
        if trajectory.interrupted:  # something would have come after
            buffer[BufferKey.DONE][-1] = False
        self._append_to_update_buffer(buffer)
        if trajectory.done_reached:
            self._update_end_episode_stats(trajectory.agent_id, self.optimizer)

    def _evaluate_values(self, trajectory: Trajectory, buffer: AgentBuffer) -> None:
        """Report the mean values; with memory, put into `buffer` what the value network remembers."""
        values, _, memories = self.optimizer.get_trajectory_value_estimates(
            buffer, trajectory.next_obs, trajectory.done_reached and not trajectory.interrupted
        )
        if memories is not None:
            buffer[BufferKey.CRITIC_MEMORY].set(memories)
        for name, of_stream in values.items():
            signal = self.optimizer.reward_signals[name].name.capitalize()
            self._stats_reporter.add_stat(f"Policy/{signal} Value", float(of_stream.mean()))

    @staticmethod
    def get_settings_type() -> Type[SACSettings]:
        """Return the class of the trainer's `hyperparameters`."""
        return SACSettings

    @staticmethod
    def get_trainer_name() -> str:
        """Return "sac"."""
        return TRAINER_NAME
