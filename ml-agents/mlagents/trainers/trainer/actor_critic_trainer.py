"""The base of actor-critic trainers: advantages by GAE, so that a subclass supplies settings, networks and a loss."""

from __future__ import annotations

from typing import Any, ClassVar, Dict, List, Mapping, Sequence, Type

import numpy as np

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import AgentBuffer, AgentBufferKey, BufferKey, RewardSignalUtil
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import ActorCriticSettings, TrainerSettings
from mlagents.trainers.torch_entities.networks import SharedActorCritic, SimpleActor
from mlagents.trainers.trainer.on_policy_trainer import OnPolicyTrainer
from mlagents.trainers.trainer.trainer_utils import get_gae
from mlagents.trainers.trajectory import Trajectory, TrajectoryEnding, can_be_joined, joined
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
        self._incomplete: List[TrajectoryEnding] = []  # of the last rows of the update buffer, which lack values

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

    def progress(self) -> Dict[str, Any]:
        """See `RLTrainer`; with the trajectories whose values are still to be estimated."""
        return {**super().progress(), "incomplete": [tuple(ending) for ending in self._incomplete]}

    def restore_progress(self, progress: Mapping[str, Any]) -> None:
        """Go on from what `progress` told."""
        super().restore_progress(progress)
        self._incomplete = [TrajectoryEnding(*ending) for ending in progress["incomplete"]]

    def _process_trajectory(self, trajectory: Trajectory) -> None:
        """Add a trajectory and its rewards to the update buffer.

        Values and advantages follow when the update is due, where they are the same then: the critic is asked about all
        that was collected at once rather than about each trajectory.
        """
        super()._process_trajectory(trajectory)
        buffer = trajectory.to_agentbuffer()
        self._warn_if_group_reward(buffer)
        self._update_normalization(buffer)
        self._evaluate_rewards(trajectory.agent_id, buffer)
        if self._values_can_wait:
            self._incomplete.append(trajectory.ending)
        else:
            self._complete(buffer, [trajectory.ending])
        self._append_to_update_buffer(buffer)
        if trajectory.done_reached:
            self._update_end_episode_stats(trajectory.agent_id, self.optimizer)

    def _process_trajectories(self, trajectories: Sequence[Trajectory]) -> None:
        """Process what came at the same time, all rows at once where nothing depends on whose they are."""
        if len(trajectories) < 2 or not self._takes_rows_of_all or not can_be_joined(trajectories):
            super()._process_trajectories(trajectories)
            return
        buffer = joined(trajectories)
        endings = [trajectory.ending for trajectory in trajectories]
        starts = np.cumsum([0, *(ending.n_steps for ending in endings[:-1])])
        returns = {name: np.add.reduceat(rewards, starts) for name, rewards in self._put_rewards(buffer).items()}
        if not all(np.isfinite(of_signal).all() for of_signal in returns.values()):
            super()._process_trajectories(trajectories)  # says whose it is
            return
        self._warn_if_group_reward(buffer)
        self._update_normalization(buffer)
        for index, trajectory in enumerate(trajectories):
            super()._process_trajectory(trajectory)
            for name, of_signal in returns.items():
                self.collected_rewards[name][trajectory.agent_id] += float(of_signal[index])
            if trajectory.done_reached:
                self._update_end_episode_stats(trajectory.agent_id, self.optimizer)
        self._incomplete += endings
        self._append_to_update_buffer(buffer)

    @property
    def _takes_rows_of_all(self) -> bool:
        """Whether rows of several trajectories may come at once: no subclass does anything with single ones.

        Images are not joined, which would copy them.
        """
        cls = type(self)
        return (
            cls._process_trajectory is ActorCriticTrainer._process_trajectory
            and cls._evaluate_rewards is ActorCriticTrainer._evaluate_rewards
            and self._values_can_wait
            and all(len(spec.shape) < 3 for spec in self.policy.behavior_spec.observation_specs)
        )

    @property
    def _values_can_wait(self) -> bool:
        """Whether the critic will say the same before the update, and the rows that it is asked about are there then.

        Normalised, observations look different to it with every trajectory. With memory, sequences go into the buffer
        with what it remembered at the start of each.
        """
        appends_all = type(self)._append_to_update_buffer is ActorCriticTrainer._append_to_update_buffer
        return appends_all and not self.policy.network_settings.normalize and not self.policy.use_recurrent

    def _prepare_update(self) -> None:
        """Estimate values and advantages of the trajectories that came since the last update."""
        if not self._incomplete:
            return
        n_rows = self.update_buffer.num_experiences
        n_complete = n_rows - sum(ending.n_steps for ending in self._incomplete)
        rows = self.update_buffer.make_mini_batch(n_complete, n_rows)
        for key in [key for key in rows if len(self.update_buffer[key]) == n_complete]:
            del rows[key]  # what the rows before have, and these are to get
        for key in self._complete(rows, self._incomplete):
            self.update_buffer[key].extend(rows[key])
        self._incomplete = []

    def _clear_update_buffer(self) -> None:
        """Drop the data of the next update."""
        super()._clear_update_buffer()
        self._incomplete = []

    def _complete(self, buffer: AgentBuffer, endings: Sequence[TrajectoryEnding]) -> List[AgentBufferKey]:
        """Add values and advantages to a buffer of trajectories; return the keys of the columns that are new."""
        known = set(buffer)
        all_next_values = self._evaluate_values(buffer, endings)
        parts = [*buffer.parts(ending.n_steps for ending in endings)]
        for part, next_values in zip(parts, all_next_values):
            self._compute_advantages(part, next_values)
        for key in [key for key in parts[0] if key not in buffer]:
            buffer[key].set(np.concatenate([part[key].to_ndarray() for part in parts]))
        return [key for key in buffer if key not in known]

    def _evaluate_values(self, buffer: AgentBuffer, endings: Sequence[TrajectoryEnding]) -> List[Dict[str, float]]:
        """Put the critic's values into `buffer`, whose rows are those of trajectories, one behind the other.

        :returns: for each trajectory, by reward signal, the value of what came after.
        """
        estimates, next_values, memories = self.optimizer.get_value_estimates(buffer, endings)
        if memories is not None:
            buffer[BufferKey.CRITIC_MEMORY].set(memories)
        for name, values in estimates.items():
            buffer[RewardSignalUtil.value_estimates_key(name)].set(values)
            signal = self.optimizer.reward_signals[name].name.capitalize()
            self._stats_reporter.add_stat(f"Policy/{signal} Value Estimate", float(values.mean()))
        return list(next_values)

    def _compute_advantages(self, buffer: AgentBuffer, next_values: Dict[str, float]) -> None:
        """Put advantages and returns of every reward signal, and their means over the signals, into `buffer`.

        :param buffer: a trajectory's rewards and values (T,) among its columns, to which others may be added.
        :param next_values: by reward signal the value of what came after.
        """
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
