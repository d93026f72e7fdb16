"""What trainers by reinforcement learning share: counting steps, episodes' returns, summaries, checkpoints."""

from __future__ import annotations

import abc
import math
import threading
import time
from collections import defaultdict
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from mlagents.plugins.blame import place_of
from mlagents.trainers.agent_processor import LostAgents, TrajectoryQueue
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers, GlobalAgentId
from mlagents.trainers.buffer import AgentBuffer, BufferException, BufferKey, RewardSignalUtil
from mlagents.trainers.exception import NotFiniteError
from mlagents.trainers.files import Attempts
from mlagents.trainers.model_saver.about import ABOUT
from mlagents.trainers.model_saver.checkpoints import CheckpointHistory, ModelCheckpoint
from mlagents.trainers.model_saver.model_saver import BaseModelSaver
from mlagents.trainers.model_saver.torch_model_saver import TorchModelSaver
from mlagents.trainers.optimizer import Optimizer
from mlagents.trainers.optimizer.gradient_guard import guard_gradients
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy import Policy
from mlagents.trainers.settings import TrainerSettings
from mlagents.trainers.trainer.progress import TrainerAbout, TrainerProgress
from mlagents.trainers.trainer.setbacks import LEARNING_RATE, Setbacks
from mlagents.trainers.trainer.trainer import Trainer
from mlagents.trainers.trajectory import Trajectory
from mlagents_envs.logging_util import get_logger
from mlagents_envs.timers import hierarchical_timer, timed

logger = get_logger(__name__)

_saving = threading.Lock()
"""Held while a checkpoint is written: torch's exporter serves one thread at a time."""


def _as_text(value: float) -> str:
    return "NaN" if math.isnan(value) else str(value)


class RLTrainer(Trainer):
    """A trainer that collects trajectories in an update buffer.

    A subclass defines `_process_trajectory`, `_is_ready_update`, `_update_policy`, `create_policy` and
    `create_optimizer`.

    :ivar update_buffer: the data of the next update.
    :ivar collected_rewards: reward name to agent id to the sum of its episode so far.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.policy: Any = None
        self.optimizer: Any = None
        self.cumulative_returns_since_policy_update: List[float] = []
        self.collected_rewards: Dict[str, Dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.update_buffer = AgentBuffer()
        self._has_warned_group_rewards = False
        self._next_save_step = 0
        self._is_checkpoint_due = False
        self._writing = Attempts(f"The checkpoint of behavior {self.brain_name}")
        self._next_summary_step = 0
        self.checkpoints = CheckpointHistory(self.trainer_settings.keep_checkpoints)
        self.model_saver = self.create_model_saver(self.trainer_settings, self.artifact_path, self.load)
        self.setbacks = Setbacks(self)

    def add_policy(self, parsed_behavior_id: BehaviorIdentifiers, policy: Policy) -> None:
        """Take on a policy to train; all teams of a behaviour share one."""
        self.policies[parsed_behavior_id.behavior_id] = policy
        if policy is self.policy and self.optimizer is not None:
            return
        self.policy = policy
        self.optimizer = self.create_optimizer()
        self.model_saver.register(self.policy)
        self.model_saver.register(self.optimizer)
        if isinstance(self.model_saver, TorchModelSaver):
            self.model_saver.register(self)
            guard_gradients(self.model_saver.modules)
        self.model_saver.initialize_or_load()
        self._step = self.policy.get_current_step()

    def get_modules(self) -> Dict[str, Any]:
        """Return what of the trainer belongs into a checkpoint, beside what policy and optimizer name."""
        return {ABOUT: TrainerAbout(self), "trainer": TrainerProgress(self)}

    def progress(self) -> Dict[str, Any]:
        """Return what its own run needs to go on as if it had never stopped: counts, returns, experience.

        Plain data: arrays, numbers, text and containers of these. Subclasses add theirs, and take it in
        `restore_progress`.
        """
        progress = {
            "returns_since_update": list(self.cumulative_returns_since_policy_update),
            "recent_returns": list(self._reward_buffer),
            "collected_rewards": {name: dict(rewards) for name, rewards in self.collected_rewards.items()},
            "critic_memories": dict(self.optimizer.critic_memory_dict),
            "rollbacks": self.setbacks.rollbacks,
        }
        if self._saves_update_buffer:
            try:
                progress["update_buffer"] = self.update_buffer.state_dict()
            except BufferException as error:
                logger.debug(f"The experience of {self.brain_name} is not in its checkpoint: {error}")
        return progress

    def restore_progress(self, progress: Mapping[str, Any]) -> None:
        """Go on from what `progress` told."""
        self.cumulative_returns_since_policy_update = list(progress["returns_since_update"])
        self._reward_buffer.clear()
        self._reward_buffer.extend(progress["recent_returns"])
        for name, rewards in progress["collected_rewards"].items():
            self.collected_rewards[name].update(rewards)
        self.optimizer.critic_memory_dict.update(progress["critic_memories"])
        self.setbacks.restore(progress["rollbacks"])
        if "update_buffer" in progress:
            self.update_buffer.load_state_dict(progress["update_buffer"])

    @property
    def _saves_update_buffer(self) -> bool:
        """Whether the data of the next update are part of `progress`."""
        return self.is_training

    def get_policy(self, name_behavior_id: str) -> Policy:
        """Return the policy, the same for every team."""
        policy: Policy = self.policy
        return policy

    def end_episode(self) -> None:
        """Forget the returns and the critic's memories of the episodes under way."""
        for rewards in self.collected_rewards.values():
            rewards.clear()
        if self.optimizer is not None:
            self.optimizer.critic_memory_dict.clear()

    def _forget(self, agent_ids: Sequence[GlobalAgentId]) -> None:
        """Forget the returns and the critic's memories of the episodes under way of agents that are lost."""
        for agent_id in agent_ids:
            for rewards in self.collected_rewards.values():
                rewards.pop(agent_id, None)
            if self.optimizer is not None:
                self.optimizer.critic_memory_dict.pop(agent_id, None)

    def _update_end_episode_stats(self, agent_id: str, optimizer: Optimizer) -> None:
        """Report the returns of an agent's episode, which has ended."""
        for name, rewards in self.collected_rewards.items():
            total = rewards.pop(agent_id, 0.0)
            if name == "environment":
                self.reward_buffer.appendleft(total)
                self.cumulative_returns_since_policy_update.append(total)
                self._stats_reporter.add_stat("Environment/Cumulative Reward", total)
            else:
                signal = optimizer.reward_signals[name].name.capitalize()
                self._stats_reporter.add_stat(f"Policy/{signal} Reward", total)

    def _clear_update_buffer(self) -> None:
        """Drop the data of the next update."""
        self.update_buffer.reset_agent()

    def _drop_surplus(self) -> None:
        """Drop what was collected without being needed: nothing is learned any more, or was to be from the start."""
        self._clear_update_buffer()

    @abc.abstractmethod
    def _is_ready_update(self) -> bool:
        """Return whether there is enough in the update buffer."""

    @abc.abstractmethod
    def create_optimizer(self) -> TorchOptimizer:
        """Make the optimizer of `self.policy`."""

    @staticmethod
    def create_model_saver(trainer_settings: TrainerSettings, model_path: str, load: bool) -> BaseModelSaver:
        """Make what writes and reads the training state."""
        return TorchModelSaver(trainer_settings, model_path, load)

    @property
    def mean_return(self) -> Optional[float]:
        """The mean return of the episodes since the last update, or if none ended of the last ones; None before any."""
        return self._policy_mean_reward()

    def _policy_mean_reward(self) -> Optional[float]:
        returns = self.cumulative_returns_since_policy_update or self._reward_buffer
        return float(np.mean(returns)) if returns else None

    def checkpoint_if_due(self) -> None:
        """Write a checkpoint if the interval says so.

        Where it cannot be written, training goes on, and it is tried again now and then.
        """
        if self._is_checkpoint_due and self._writing.may_try():
            with self._writing:
                try:
                    self._checkpoint()
                except NotFiniteError as error:
                    self.setbacks.roll_back(error)
                self._is_checkpoint_due = False

    def save_state(self) -> Optional[str]:
        """Write the newest state, from which the run can go on, without a model; return its checksum if it has one.

        A state that is not finite is not saved: the trainer goes back to the last one that is, and on from there.

        :raises OSError: it cannot be written.
        :raises NotFiniteError: the trainer has gone back too often.
        """
        if isinstance(self.model_saver, TorchModelSaver):
            with _saving:
                try:
                    self.model_saver.save_state(self.brain_name)
                except NotFiniteError as error:
                    self.setbacks.roll_back(error)
                    self.model_saver.save_state(self.brain_name)
        return self.state_checksum

    def save_state_to(self, folder: str) -> Optional[str]:
        """Write the newest state to another folder; return its path."""
        if not isinstance(self.model_saver, TorchModelSaver):
            return None
        with _saving:
            return self.model_saver.save_state_to(folder)

    @property
    def best_evaluated(self) -> Tuple[Optional[float], int]:
        """The reward and the step of the policy that `save_best` wrote last; None and 0 where there is none."""
        if not isinstance(self.model_saver, TorchModelSaver):
            return None, 0
        return self.model_saver.best_evaluated()

    def save_best(self, reward: float) -> Optional[str]:
        """Write the policy, the best so far by evaluation, as ``best.pt`` and ``best.onnx``; return the model's path.

        :raises OSError: it cannot be written.
        :raises NotFiniteError: a parameter is not finite.
        """
        if not isinstance(self.model_saver, TorchModelSaver):
            return None
        with _saving:
            path, others = self.model_saver.save_best(self.brain_name, reward)
        self.checkpoints.best = ModelCheckpoint(self.get_step, path, reward, time.time(), others)
        return path

    @property
    def state_checksum(self) -> Optional[str]:
        """The checksum of the newest state, as it was written or read last; None where there is none."""
        return self.model_saver.checksum if isinstance(self.model_saver, TorchModelSaver) else None

    @timed
    def _checkpoint(self) -> ModelCheckpoint:
        """Write the state and the model, and forget the oldest checkpoint where there are too many."""
        with _saving:
            path, others = self.model_saver.save_checkpoint(self.brain_name, self.get_step)
        checkpoint = ModelCheckpoint(self.get_step, path, self._policy_mean_reward(), time.time(), others)
        self.checkpoints.add(checkpoint)
        return checkpoint

    def save_model(self) -> None:
        """Write the state and the final model."""
        if not self.policies:
            logger.warning(f"The trainer of {self.brain_name} has no policy; there is no model to save.")
            return
        try:
            checkpoint = self._checkpoint()
        except NotFiniteError:
            if not self.setbacks.reload():
                raise
            self._save_final(self._checkpoint())
            raise
        self._save_final(checkpoint)

    def _save_final(self, checkpoint: ModelCheckpoint) -> None:
        self.checkpoints.final = checkpoint
        if isinstance(self.model_saver, TorchModelSaver):
            self.model_saver.copy_final_model(checkpoint.file_path)

    def _prepare_update(self) -> None:
        """Do with the update buffer what is better done once than for each trajectory; by default nothing."""

    @abc.abstractmethod
    def _update_policy(self) -> bool:
        """Improve the policy on the update buffer; return whether it changed."""

    def _learn_from(self, minibatch: AgentBuffer, n_sequences: int) -> Dict[str, float]:
        """Let the optimizer take its step on a minibatch; return its statistics.

        There are none where the loss, a gradient or a statistic is not finite: see `Setbacks`.

        :raises NotFiniteError: that happens too often.
        """
        try:
            stats: Dict[str, float] = self.optimizer.update(minibatch, n_sequences)
        except NotFiniteError as error:
            self.setbacks.refuse(error)
            return {}
        for name, value in stats.items():
            if not math.isfinite(value):
                kind = type(self.optimizer)
                problem = f"{kind.__name__}.update ({place_of(kind.update)}) gave {name} = {_as_text(value)}"
                self.setbacks.refuse(NotFiniteError(problem), was_applied=True)
                return {}
        self.setbacks.in_a_row = 0
        if self.setbacks.learning_rate_factor != 1.0 and LEARNING_RATE in stats:
            stats[LEARNING_RATE] *= self.setbacks.learning_rate_factor
        return stats

    def _report_update_stats(self, collected: Mapping[str, Sequence[float]]) -> None:
        """Report the means of what the steps of one update gave."""
        for name, values in collected.items():
            self._stats_reporter.add_stat(name, float(np.mean(values)))

    def _increment_step(self, n_steps: int, name_behavior_id: str) -> None:
        """Count `n_steps` more steps."""
        self._step += n_steps
        self._next_summary_step = self._get_next_interval_step(self.summary_freq)
        self._next_save_step = self._get_next_interval_step(self.trainer_settings.checkpoint_interval)
        policy = self.get_policy(name_behavior_id)
        if policy:
            policy.increment_step(n_steps)
        self._stats_reporter.set_stat("Step", float(self.get_step))

    def _get_next_interval_step(self, interval: int) -> int:
        return self._step + (interval - self._step % interval)

    @abc.abstractmethod
    def _process_trajectory(self, trajectory: Trajectory) -> None:
        """Count a trajectory's steps; write a summary and a checkpoint where they are due. Subclasses call this first.

        :param trajectory: at least one step of one agent.
        """
        step_after = self.get_step + len(trajectory)
        self._maybe_write_summary(step_after)
        self._maybe_save_model(step_after)
        self._increment_step(len(trajectory), trajectory.behavior_id)

    def _maybe_write_summary(self, step_after_process: int) -> None:
        """Write a summary if `step_after_process` steps reach the next multiple of `summary_freq`."""
        if self._next_summary_step == 0:
            self._next_summary_step = self._get_next_interval_step(self.summary_freq)
        if step_after_process >= self._next_summary_step and self.get_step != 0:
            self._write_summary(self._next_summary_step)

    def _write_summary(self, step: int) -> None:
        self._stats_reporter.set_stat("Is Training", float(self.should_still_train))
        self._stats_reporter.write_stats(step)

    def _update_normalization(self, buffer: AgentBuffer) -> None:
        """Take a trajectory's observations into the statistics of actor and critic, each once."""
        if self.is_training:
            self.policy.actor.update_normalization(buffer)
            if self.optimizer.critic is not self.policy.actor:
                self.optimizer.critic.update_normalization(buffer)

    def _evaluate_rewards(self, agent_id: str, buffer: AgentBuffer) -> None:
        """Put every signal's rewards into `buffer`, and count them towards the agent's episode."""
        for name, rewards in self._put_rewards(buffer).items():
            total = float(rewards.sum())
            if name in self.optimizer.reward_signals and not math.isfinite(total):
                raise NotFiniteError(
                    f"Behavior {self.brain_name}, step {self.get_step}, agent {agent_id}: the reward signal {name} "
                    f"({type(self.optimizer.reward_signals[name]).__name__}) gave a reward that is not finite.",
                    self.brain_name,
                )
            self.collected_rewards[name][agent_id] += total

    def _put_rewards(self, buffer: AgentBuffer) -> Dict[str, np.ndarray]:
        """Put every signal's rewards into `buffer`; return them (T,) by name, and those of the environment."""
        found = {"environment": buffer[BufferKey.ENVIRONMENT_REWARDS].to_ndarray()}
        for name, signal in self.optimizer.reward_signals.items():
            found[name] = signal.evaluate(buffer) * signal.strength
            buffer[RewardSignalUtil.rewards_key(name)].set(found[name])
        return found

    def _append_to_update_buffer(self, agentbuffer_trajectory: AgentBuffer) -> None:
        """Add a trajectory, in padded sequences where there is memory, to the data of the next update."""
        agentbuffer_trajectory.resequence_and_append(self.update_buffer, training_length=self.policy.sequence_length)

    def _maybe_save_model(self, step_after_process: int) -> None:
        """Have a checkpoint written if `step_after_process` steps reach the next multiple of `checkpoint_interval`.

        That is done when what waits is taken in, so that it belongs to one moment of the whole run.
        """
        if self._next_save_step == 0:
            self._next_save_step = self._get_next_interval_step(self.trainer_settings.checkpoint_interval)
        if self.is_training and step_after_process >= self._next_save_step and self.get_step != 0:
            self._is_checkpoint_due = True

    def _warn_if_group_reward(self, buffer: AgentBuffer) -> None:
        """Warn, once, where agents get group rewards that this trainer takes for their own."""
        if not self._has_warned_group_rewards and np.any(buffer[BufferKey.GROUP_REWARD]):
            logger.warning(
                f"Agents of {self.brain_name} receive group rewards, which this trainer adds to each agent's own. "
                "A multi-agent trainer makes better use of them."
            )
            self._has_warned_group_rewards = True

    def advance(self) -> None:
        """Take in the trajectories that wait, and update where enough are there."""
        waiting = [queue for queue in self.trajectory_queues if not queue.empty()]
        if waiting:
            with hierarchical_timer("process_trajectory"):
                for queue in waiting:
                    self._take_in(queue)
        if not self.should_still_train:
            self._drop_surplus()
        elif self._is_ready_update():
            with hierarchical_timer("_prepare_update"):
                self._prepare_update()
            with hierarchical_timer("_update_policy"):
                updated = self._update_policy()
            if updated:
                for policy_queue in self.policy_queues:
                    policy_queue.put(self.get_policy(policy_queue.behavior_id))
        self.checkpoint_if_due()

    def _take_in(self, queue: TrajectoryQueue) -> None:
        trajectories: List[Trajectory] = []
        while not queue.empty():
            item = queue.get_nowait()
            if isinstance(item, LostAgents):
                self._process_trajectories(trajectories)
                trajectories = []
                self._forget(item.agent_ids)
            else:
                trajectories.append(item)
        self._process_trajectories(trajectories)

    def _process_trajectories(self, trajectories: Sequence[Trajectory]) -> None:
        """Process what came at the same time, one after the other."""
        for trajectory in trajectories:
            self._process_trajectory(trajectory)
