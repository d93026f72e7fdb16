"""The base of trainers that learn only from what the current policy did."""

from __future__ import annotations

import abc
from collections import defaultdict
from typing import Any, Dict, List

import numpy as np

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.policy import Policy
from mlagents.trainers.settings import OnPolicyHyperparamSettings, TrainerSettings
from mlagents.trainers.trainer.rl_trainer import RLTrainer
from mlagents.trainers.trajectory import Trajectory

ADVANTAGE_EPSILON = 1e-10


class OnPolicyTrainer(RLTrainer):
    """Updates when the buffer holds more than `buffer_size` experiences, in `num_epoch` passes of minibatches.

    A subclass defines `_process_trajectory`, which puts advantages into the update buffer, `create_policy` and
    `create_optimizer`.

    :param behavior_name: the behaviour's name, as it is configured.
    :param reward_buff_cap: how many of the last episodes' returns are kept.
    :param trainer_settings: the behaviour's settings.
    :param training: whether to learn, or only to act.
    :param load: whether to go on from the state in `artifact_path`.
    :param seed: of the run.
    :param artifact_path: the folder of the behaviour's files.
    """

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
        super().__init__(behavior_name, trainer_settings, training, load, artifact_path, reward_buff_cap)
        # A plug-in's settings class may be any; those of an on-policy trainer have what is read here.
        self.hyperparameters: Any = trainer_settings.hyperparameters
        assert isinstance(self.hyperparameters, OnPolicyHyperparamSettings)
        self.seed = seed

    def add_policy(self, parsed_behavior_id: BehaviorIdentifiers, policy: Policy) -> None:
        """Take on a policy to train; all teams of a behaviour share one."""
        self.policies[parsed_behavior_id.behavior_id] = policy
        if policy is self.policy:
            return
        self.policy = policy
        self.optimizer = self.create_optimizer()
        self.model_saver.register(self.policy)
        self.model_saver.register(self.optimizer)
        self.model_saver.initialize_or_load()
        self._step = self.policy.get_current_step()

    def get_policy(self, name_behavior_id: str) -> Policy:
        """Return the policy, the same for every team."""
        policy: Policy = self.policy
        return policy

    def _is_ready_update(self) -> bool:
        """Return whether the buffer holds more than `buffer_size` experiences."""
        return self.update_buffer.num_experiences > int(self.hyperparameters.buffer_size)

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

    def _evaluate_rewards(self, agent_id: str, buffer: AgentBuffer) -> None:
        """Put every signal's rewards into `buffer`, and count them towards the agent's episode."""
        environment_reward = float(buffer[BufferKey.ENVIRONMENT_REWARDS].to_ndarray().sum())
        self.collected_rewards["environment"][agent_id] += environment_reward
        for name, signal in self.optimizer.reward_signals.items():
            rewards = signal.evaluate(buffer) * signal.strength
            buffer[RewardSignalUtil.rewards_key(name)].set(rewards)
            self.collected_rewards[name][agent_id] += float(rewards.sum())

    @abc.abstractmethod
    def _process_trajectory(self, trajectory: Trajectory) -> None:
        """Turn a trajectory into training data; subclasses call this first."""
        super()._process_trajectory(trajectory)

    def _normalize_advantages(self) -> None:
        """Give the advantages of the whole update mean 0 and standard deviation 1."""
        advantages = self.update_buffer[BufferKey.ADVANTAGES].to_ndarray()
        centred = advantages - advantages.mean()
        self.update_buffer[BufferKey.ADVANTAGES].set(centred / (advantages.std() + ADVANTAGE_EPSILON))

    def _update_policy(self) -> bool:
        """Learn from the update buffer in `num_epoch` passes of shuffled minibatches, then empty it.

        A pass leaves out what is beyond its last whole minibatch.
        """
        self.cumulative_returns_since_policy_update.clear()
        self._normalize_advantages()
        sequence_length = self.policy.sequence_length
        n_experiences = self.update_buffer.num_experiences
        n_sequences = max(min(self.hyperparameters.batch_size, n_experiences) // sequence_length, 1)
        batch_size = n_sequences * sequence_length
        collected_stats: Dict[str, List[float]] = defaultdict(list)
        for _ in range(self.hyperparameters.num_epoch):
            self.update_buffer.shuffle(sequence_length=sequence_length)
            for start in range(0, n_experiences - batch_size + 1, batch_size):
                minibatch = self.update_buffer.make_mini_batch(start, start + batch_size)
                update_stats = self.optimizer.update(minibatch, n_sequences)
                update_stats.update(self.optimizer.update_reward_signals(minibatch))
                for name, value in update_stats.items():
                    collected_stats[name].append(value)
        for name, values in collected_stats.items():
            self._stats_reporter.add_stat(name, float(np.mean(values)))
        self._clear_update_buffer()
        return True
