"""The base of trainers that learn only from what the current policy did."""

from __future__ import annotations

import abc
from collections import defaultdict
from typing import Any, Dict, List

from mlagents.trainers.buffer import BufferKey
from mlagents.trainers.replay_buffer import RolloutBuffer
from mlagents.trainers.settings import TrainerSettings
from mlagents.trainers.trainer.rl_trainer import RLTrainer
from mlagents.trainers.trajectory import Trajectory

ADVANTAGE_EPSILON = 1e-10


class OnPolicyTrainer(RLTrainer):
    """Updates when the buffer holds more than `buffer_size` experiences, in `num_epoch` passes of minibatches.

    A subclass defines `_process_trajectory`, which puts advantages into the update buffer, `create_policy` and
    `create_optimizer`. `ActorCriticTrainer` has them all.

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
        self.update_buffer = RolloutBuffer()
        # Of a class of the plug-in's own, which has what is read here.
        self.hyperparameters: Any = trainer_settings.hyperparameters
        self.seed = seed

    @property
    def max_waiting_steps(self) -> int:
        """One update's worth, so that what is learned from lacks one update of the policy at most."""
        return int(self.hyperparameters.buffer_size)

    def _is_ready_update(self) -> bool:
        """Return whether the buffer holds more than `buffer_size` experiences."""
        return self.update_buffer.num_experiences > int(self.hyperparameters.buffer_size)

    @abc.abstractmethod
    def _process_trajectory(self, trajectory: Trajectory) -> None:
        """Turn a trajectory into training data; subclasses call this first."""
        super()._process_trajectory(trajectory)

    def _normalize_advantages(self) -> None:
        """Give the advantages of the whole update mean 0 and standard deviation 1; padding stays 0."""
        if BufferKey.ADVANTAGES not in self.update_buffer:
            return  # a trainer that does without
        advantages = self.update_buffer[BufferKey.ADVANTAGES].to_ndarray()
        is_valid = self.update_buffer[BufferKey.MASKS].to_ndarray() > 0
        valid = advantages[is_valid]
        normalized = (advantages - valid.mean()) / (valid.std() + ADVANTAGE_EPSILON)
        normalized[~is_valid] = 0
        self.update_buffer[BufferKey.ADVANTAGES].set(normalized)

    def _update_policy(self) -> bool:
        """Learn from the update buffer in `num_epoch` passes of shuffled minibatches, then empty it.

        A pass leaves out what is beyond its last whole minibatch.
        """
        self._prepare_update()  # is done where `advance` is the trainer's own
        self.cumulative_returns_since_policy_update.clear()
        sequence_length = self.policy.sequence_length
        n_experiences = self.update_buffer.num_experiences
        n_sequences = max(1, min(self.hyperparameters.batch_size, n_experiences) // sequence_length)
        batch_size = n_sequences * sequence_length
        self._normalize_advantages()
        collected_stats: Dict[str, List[float]] = defaultdict(list)
        rollbacks = self.setbacks.rollbacks
        for _ in range(self.hyperparameters.num_epoch):
            self.update_buffer.shuffle(sequence_length=sequence_length)
            in_this_order = self.update_buffer.make_mini_batch(0, n_experiences)
            for minibatch in in_this_order.parts([batch_size] * (n_experiences // batch_size)):
                update_stats = self._learn_from(minibatch, n_sequences)
                if self.setbacks.rollbacks > rollbacks:
                    break  # what is left is what another policy did
                update_stats.update(self.optimizer.update_reward_signals(minibatch))
                for name, value in update_stats.items():
                    collected_stats[name].append(value)
            if self.setbacks.rollbacks > rollbacks:
                break
        self._report_update_stats(collected_stats)
        self._clear_update_buffer()
        return True
