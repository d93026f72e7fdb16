"""The base of trainers that learn from a replay buffer: from what this policy and earlier ones did."""

from __future__ import annotations

import abc
import os
from collections import defaultdict
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, cast

import numpy as np

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers, GlobalAgentId
from mlagents.trainers.buffer import AgentBuffer, AgentBufferKey, BufferException, BufferKey, RewardSignalUtil
from mlagents.trainers.buffer_file import read_mark, write_mark
from mlagents.trainers.buffer_keys import key_to_text
from mlagents.trainers.files import Attempts, atomic_path
from mlagents.trainers.model_saver.checkpoints import ModelCheckpoint
from mlagents.trainers.policy import Policy
from mlagents.trainers.replay_buffer import ReplayBuffer
from mlagents.trainers.settings import OffPolicyHyperparamSettings, TrainerSettings
from mlagents.trainers.torch_entities.components.reward_providers.extrinsic_reward_provider import (
    ExtrinsicRewardProvider,
)
from mlagents.trainers.trainer.rl_trainer import RLTrainer
from mlagents.trainers.trajectory import ObsUtil, Trajectory
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

BUFFER_TRUNCATE_PERCENT = 0.8
"""How much of `buffer_size` is kept when the replay buffer is over it."""

REPLAY_BUFFER_NAME = "last_replay_buffer.hdf5"


class OffPolicyTrainer(RLTrainer):
    """Updates from random samples of a `ReplayBuffer`, which is the `update_buffer`.

    Once `buffer_init_steps` steps are made and the buffer holds `batch_size` experiences, there are as many updates as
    keep steps / updates at `steps_per_update`, and likewise for the reward signals. A subclass defines
    `_process_trajectory`, which puts a trajectory into the buffer, `create_policy` and `create_optimizer`.

    :param behavior_name: the behaviour's name, as it is configured.
    :param reward_buff_cap: how many of the last episodes' returns are kept.
    :param trainer_settings: the behaviour's settings; `hyperparameters` has what `OffPolicyHyperparamSettings` has.
    :param training: whether to learn, or only to act.
    :param load: whether to go on from the state in `artifact_path`.
    :param seed: of the run.
    :param artifact_path: the folder of the behaviour's files.
    :ivar update_steps: the updates of the policy so far, in this session.
    :ivar reward_signal_update_steps: the updates of the reward signals so far, in this session.
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
        self.update_buffer = ReplayBuffer()
        # Of any class of a plug-in's own, which has these fields.
        self.hyperparameters = cast(OffPolicyHyperparamSettings, trainer_settings.hyperparameters)
        self.seed = seed
        self.steps_per_update = self.hyperparameters.steps_per_update
        self.reward_signal_steps_per_update = self.hyperparameters.reward_signal_steps_per_update
        self.checkpoint_replay_buffer = self.hyperparameters.save_replay_buffer
        self.update_steps = 0
        self.reward_signal_update_steps = 0
        self._first_update_step = self.hyperparameters.buffer_init_steps
        self._counted: Optional[Tuple[int, int, int]] = None  # by the session that this one resumes
        self._writing_replay_buffer = Attempts(f"The replay buffer of behavior {self.brain_name}")
        self._waiting: Dict[str, AgentBuffer] = {}  # the last step of each agent whose next mask is not known yet

    def add_policy(self, parsed_behavior_id: BehaviorIdentifiers, policy: Policy) -> None:
        """Take on a policy to train, and on resume the replay buffer.

        Steps and updates are counted from here on; where there is nothing to replay, `buffer_init_steps` are gathered.
        """
        optimizer = self.optimizer
        super().add_policy(parsed_behavior_id, policy)
        if self.optimizer is optimizer:
            return  # another team of a policy that is known
        self.maybe_load_replay_buffer()
        if self._counted and self.update_buffer.num_experiences:
            self.update_steps, self.reward_signal_update_steps, self._first_update_step = self._counted
            return
        missing_steps = 0 if self.update_buffer.num_experiences else self.hyperparameters.buffer_init_steps
        self._first_update_step = self.get_step + missing_steps

    @property
    def _saves_update_buffer(self) -> bool:
        """The replay buffer has a file of its own."""
        return False

    def progress(self) -> Dict[str, Any]:
        """See `RLTrainer`; with the counts of updates, and the steps that wait for what comes next."""
        waiting = AgentBuffer()
        for buffer in self._waiting.values():
            buffer.resequence_and_append(waiting)
        return {
            **super().progress(),
            "counted": (self.update_steps, self.reward_signal_update_steps, self._first_update_step),
            "waiting_agents": list(self._waiting),
            "waiting": waiting.state_dict(),
        }

    def restore_progress(self, progress: Mapping[str, Any]) -> None:
        """Go on from what `progress` told; the counts of updates count only with the replay buffer they belong to."""
        super().restore_progress(progress)
        self._counted = progress["counted"]
        waiting = AgentBuffer()
        waiting.load_state_dict(progress["waiting"])
        for row, agent_id in enumerate(progress["waiting_agents"]):
            self._waiting[agent_id] = waiting.make_mini_batch(row, row + 1)

    @property
    def max_waiting_steps(self) -> int:
        """One batch: the updates that are due for what waits are made before agents act any better."""
        return int(self.hyperparameters.batch_size)

    def end_episode(self) -> None:
        """Forget the episodes under way."""
        super().end_episode()
        self._waiting.clear()

    def _forget(self, agent_ids: Sequence[GlobalAgentId]) -> None:
        """Forget the episodes under way of agents that are lost."""
        super()._forget(agent_ids)
        for agent_id in agent_ids:
            self._waiting.pop(agent_id, None)

    @property
    def _replay_buffer_path(self) -> str:
        return os.path.join(self.artifact_path, REPLAY_BUFFER_NAME)

    def _checkpoint(self) -> ModelCheckpoint:
        """Write the state and the model, and if `save_replay_buffer` is set the replay buffer."""
        checkpoint = super()._checkpoint()
        self._save_replay_buffer_if_set()
        return checkpoint

    def save_state(self) -> Optional[str]:
        """See `RLTrainer`; if `save_replay_buffer` is set with the replay buffer."""
        checksum = super().save_state()
        self._save_replay_buffer_if_set()
        return checksum

    def _save_replay_buffer_if_set(self) -> None:
        """Write the replay buffer, after the state, which may find room where it does not."""
        if self.checkpoint_replay_buffer and self._writing_replay_buffer.may_try():
            with self._writing_replay_buffer:
                self.save_replay_buffer()

    def save_replay_buffer(self) -> None:
        """Write the replay buffer into the behaviour's folder, in place of an earlier one.

        :raises OSError: it cannot be written; the earlier one stays.
        """
        with atomic_path(self._replay_buffer_path) as temporary:
            with open(temporary, "wb+") as file:
                self.update_buffer.save_to_file(file)
            write_mark(temporary, self.state_checksum or "")
        logger.info(f"Saved {self.update_buffer.num_experiences} experiences to {self._replay_buffer_path}")

    def load_replay_buffer(self) -> None:
        """Read the replay buffer in the behaviour's folder.

        :raises FileNotFoundError: there is none.
        :raises BufferException: it is damaged, or of agents that observe or act otherwise.
        """
        loaded = ReplayBuffer()
        with open(self._replay_buffer_path, "rb") as file:
            loaded.load_from_file(file)
        self._check_fits(loaded)
        self.update_buffer = loaded
        if read_mark(self._replay_buffer_path) not in ("", self.state_checksum):
            self._counted = None
            logger.warning(f"{self._replay_buffer_path} is of another moment than the checkpoint; it is used anyway.")
        logger.info(f"Loaded {loaded.num_experiences} experiences from {self._replay_buffer_path}")

    def maybe_load_replay_buffer(self) -> None:
        """Read the replay buffer if the run resumes with one; if that fails, say so and begin with an empty one.

        Before there is a policy it waits for `add_policy`, which calls it too.
        """
        if self.policy is None or not (self.load and self.is_training and self.checkpoint_replay_buffer):
            return
        try:
            self.load_replay_buffer()
        except (OSError, BufferException) as error:
            logger.warning(
                f"The replay buffer {self._replay_buffer_path} of behavior {self.brain_name} was not loaded: {error} "
                f"Training goes on with an empty one."
            )

    def _check_fits(self, loaded: AgentBuffer) -> None:
        """Raise `BufferException` unless the rows of a buffer are of this behaviour."""
        spec = self.policy.behavior_spec
        shapes: Dict[AgentBufferKey, Tuple[int, ...]] = {
            BufferKey.CONTINUOUS_ACTION: (spec.action_spec.continuous_size,),
            BufferKey.DISCRETE_ACTION: (spec.action_spec.discrete_size,),
        }
        for index, observation in enumerate(spec.observation_specs):
            shapes[ObsUtil.get_name_at(index)] = shapes[ObsUtil.get_name_at_next(index)] = observation.shape
        for key, shape in shapes.items():
            name = key_to_text(key)
            if key not in loaded or loaded[key].is_ragged:
                raise BufferException(f"It has no column {name} whose rows are of shape {shape}.")
            there = loaded[key].row_shape
            if there != shape:
                raise BufferException(f"Its column {name} has rows of shape {there}, while the agents' are {shape}.")
        if not loaded.check_length(list(loaded)):
            raise BufferException("Its columns are not of one length.")

    @abc.abstractmethod
    def _process_trajectory(self, trajectory: Trajectory) -> None:
        """Turn a trajectory into training data; subclasses call this first."""
        super()._process_trajectory(trajectory)

    def _transitions(self, trajectory: Trajectory, buffer: AgentBuffer) -> AgentBuffer:
        """Return the steps of a trajectory for a trainer that asks what the next state is worth.

        Their `DONE` says whether nothing comes after, which is not so where an episode was only interrupted; their
        `NEXT_ACTION_MASK` what is allowed in the next state. Where that is not known a step is held back or left out:
        the last one before the time horizon waits for the agent's next trajectory, which begins in that state. After
        an interruption nobody is asked for an action, so everything counts as allowed if the trajectory forbade
        nothing; else its last step is left out.

        :param buffer: the trajectory's, with the columns to keep.
        """
        waiting = self._waiting.pop(trajectory.agent_id, None)
        if waiting is not None:
            buffer.resequence_and_append(waiting)
            buffer = waiting
        allowed = buffer[BufferKey.ACTION_MASK].to_ndarray()
        buffer[BufferKey.NEXT_ACTION_MASK].set(np.append(allowed[1:], np.ones_like(allowed[:1]), axis=0))
        n_known = len(allowed)
        if not trajectory.done_reached:
            n_known -= 1
            self._waiting[trajectory.agent_id] = buffer.make_mini_batch(n_known, n_known + 1)
        elif trajectory.interrupted:
            buffer[BufferKey.DONE][-1] = False
            n_known -= not allowed.all()
        return buffer.make_mini_batch(0, n_known)

    def _append_to_update_buffer(self, agentbuffer_trajectory: AgentBuffer) -> None:
        """Add a trajectory to the replay buffer, and drop the oldest experiences where that makes it too long."""
        super()._append_to_update_buffer(agentbuffer_trajectory)
        buffer_size = self.hyperparameters.buffer_size
        if self.update_buffer.num_experiences > buffer_size:
            self.update_buffer.truncate(int(buffer_size * BUFFER_TRUNCATE_PERCENT), self.policy.sequence_length)

    def _drop_surplus(self) -> None:
        """Drop what will not be learned from, unlike a replay buffer that is still to be saved with the model."""
        if not self.is_training:
            super()._drop_surplus()

    def _is_ready_update(self) -> bool:
        """Return whether `buffer_init_steps` steps are made and the buffer holds a batch."""
        is_full_batch = self.update_buffer.num_experiences >= self.hyperparameters.batch_size
        return is_full_batch and self.get_step >= self._first_update_step

    def _update_policy(self) -> bool:
        """Make the updates that are due; return whether there were any."""
        steps = self.get_step - self._first_update_step
        updates_due = int(steps / self.steps_per_update) - self.update_steps
        collected_stats: Dict[str, List[float]] = defaultdict(list)
        n_sequences = max(1, self.hyperparameters.batch_size // self.policy.sequence_length)
        for _ in range(updates_due):
            batch = self._sample()
            for name, signal in self.optimizer.reward_signals.items():
                # What a signal learned since the experience was made changes what it pays for it.
                batch[RewardSignalUtil.rewards_key(name)].set(signal.evaluate(batch) * signal.strength)
            for name, value in self._learn_from(batch, n_sequences).items():
                collected_stats[name].append(value)
            self.update_steps += 1
        if updates_due > 0:
            self.cumulative_returns_since_policy_update.clear()
            self._report_update_stats(collected_stats)
        self._update_reward_signals()
        return updates_due > 0

    def _update_reward_signals(self) -> None:
        """Let the reward signals learn as often as it is due, if there are any that can."""
        if all(type(signal) is ExtrinsicRewardProvider for signal in self.optimizer.reward_signals.values()):
            return
        steps = self.get_step - self._first_update_step
        updates_due = int(steps / self.reward_signal_steps_per_update) - self.reward_signal_update_steps
        collected_stats: Dict[str, List[float]] = defaultdict(list)
        for _ in range(updates_due):
            for name, value in self.optimizer.update_reward_signals(self._sample()).items():
                collected_stats[name].append(value)
            self.reward_signal_update_steps += 1
        self._report_update_stats(collected_stats)

    def _sample(self) -> AgentBuffer:
        """Return a random batch, of whole sequences where there is memory."""
        return self.update_buffer.sample_mini_batch(self.hyperparameters.batch_size, self.policy.sequence_length)
