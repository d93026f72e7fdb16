"""What optimizers of torch policies share: reward signals and the values of whole trajectories."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from mlagents.torch_utils import default_device, torch
from mlagents.trainers.buffer import AgentBuffer, AgentBufferField, BufferKey
from mlagents.trainers.optimizer.optimizer import Optimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import RewardSignalSettings, RewardSignalType, TrainerSettings
from mlagents.trainers.torch_entities.array_inference import ArrayCritic
from mlagents.trainers.torch_entities.array_networks import ArrayCache
from mlagents.trainers.torch_entities.components.reward_providers.reward_provider_factory import (
    create_reward_provider,
)
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil, TrajectoryEnding
from mlagents_envs.timers import timed

_ROWS_PER_PASS = 256
"""Of the critic: beyond that a pass takes more memory, but no less time per row."""


class TorchOptimizer(Optimizer):
    """The base of optimizers of a `TorchPolicy`.

    A subclass defines `critic`, as attribute or property, and `update`.
    """

    def __init__(self, policy: TorchPolicy, trainer_settings: TrainerSettings):
        super().__init__()
        self.policy = policy
        self.trainer_settings = trainer_settings
        self.update_dict: Dict[str, torch.Tensor] = {}
        self.value_heads: Dict[str, torch.Tensor] = {}
        self.memory_in: Optional[torch.Tensor] = None
        self.memory_out: Optional[torch.Tensor] = None
        self.m_size: int = 0
        self.global_step = torch.tensor(0)
        self.bc_module: Optional[Any] = None
        self.critic_memory_dict: Dict[str, torch.Tensor] = {}
        self._critic: Any = None
        self._array_critic = ArrayCache(ArrayCritic)
        self.create_reward_signals(trainer_settings.reward_signals)

    @property
    def critic(self) -> Any:
        """The value network, a `Critic`; a subclass sets or overrides it."""
        if self._critic is None:
            raise NotImplementedError(f"{type(self).__name__} defines no critic.")
        return self._critic

    @critic.setter
    def critic(self, critic: Any) -> None:
        self._critic = critic

    def update(self, batch: AgentBuffer, num_sequences: int) -> Dict[str, float]:
        """Take a gradient step on `batch` and return statistics by name."""
        raise NotImplementedError(f"{type(self).__name__} defines no update.")

    def create_reward_signals(self, reward_signal_configs: Dict[RewardSignalType, RewardSignalSettings]) -> None:
        """Make the providers of the configured reward signals."""
        for reward_signal, settings in reward_signal_configs.items():
            name = reward_signal.value
            self.reward_signals[name] = create_reward_provider(reward_signal, self.policy.behavior_spec, settings)

    def update_reward_signals(self, batch: AgentBuffer) -> Dict[str, float]:
        """Let every reward signal learn from `batch`, and return their statistics by name."""
        stats: Dict[str, Any] = {}
        for signal in self.reward_signals.values():
            stats.update(signal.update(batch))
        return stats

    def get_modules(self) -> Dict[str, Any]:
        """Return what of the optimizer belongs into a checkpoint; subclasses add theirs."""
        modules: Dict[str, Any] = {}
        for signal in self.reward_signals.values():
            modules.update(signal.get_modules())
        return modules

    @timed
    def get_trajectory_value_estimates(
        self, batch: AgentBuffer, next_obs: List[np.ndarray], done: bool, agent_id: str = ""
    ) -> Tuple[Dict[str, np.ndarray], Dict[str, float], Optional[AgentBufferField]]:
        """Estimate the values of a trajectory of T steps and of what came after.

        A critic with memory goes on from what it remembers of the agent, until the agent's episode ends.

        :param next_obs: what was seen after the last step, each (*shape).
        :param done: whether the episode is over for good: then what came after is worth 0 to all signals that do
            not ignore it.
        :param agent_id: unused: `batch` knows whose it is.
        :returns: values (T,) by signal, the next value by signal, and what the critic remembered at the start of the
            training sequence that each step belongs to, (T, M); None without memory.
        """
        n_obs = len(self.policy.behavior_spec.observation_specs)
        obs = [
            np.concatenate([column, np.asarray(last, dtype=column.dtype)[None]])
            for column, last in zip(ObsUtil.from_buffer(batch, n_obs), next_obs)
        ]
        memories = None
        if self.policy.use_recurrent:
            estimates, memories = self._values_by_sequence(obs, batch)
        else:
            estimates = self._values(obs, len(obs[0]))
        next_values = {name: float(value[-1]) for name, value in estimates.items()}
        for name in next_values:
            if done and not self.reward_signals[name].ignore_done:
                next_values[name] = 0.0
        return {name: value[:-1] for name, value in estimates.items()}, next_values, memories

    @timed
    def get_value_estimates(
        self, buffer: AgentBuffer, endings: Sequence[TrajectoryEnding]
    ) -> Tuple[Dict[str, np.ndarray], List[Dict[str, float]], Optional[AgentBufferField]]:
        """Estimate the values of trajectories that stand in a buffer one behind the other, B rows in all.

        The critic sees many rows at once, unless it has a memory, or `get_trajectory_value_estimates` was overridden.

        :returns: as `get_trajectory_value_estimates` does: values (B,) by signal, for each trajectory the next value by
            signal, and the critic's memories (B, M) or None.
        """
        overridden = type(self).get_trajectory_value_estimates is not TorchOptimizer.get_trajectory_value_estimates
        if overridden or self.policy.use_recurrent or len(endings) == 1:
            return self._value_estimates_one_by_one(buffer, endings)
        indices = range(len(self.policy.behavior_spec.observation_specs))
        lasts = np.cumsum([ending.n_steps for ending in endings]) - 1
        is_final = np.array([ending.is_final for ending in endings])
        values = self._values_of_rows([buffer[ObsUtil.get_name_at(index)] for index in indices])
        after = self._values_of_rows([buffer[ObsUtil.get_name_at_next(index)].take(lasts) for index in indices])
        for name, next_values in after.items():
            if not self.reward_signals[name].ignore_done:
                next_values[is_final] = 0.0
        by_trajectory = [
            {name: float(next_values[row]) for name, next_values in after.items()} for row in range(len(endings))
        ]
        return values, by_trajectory, None

    def _value_estimates_one_by_one(
        self, buffer: AgentBuffer, endings: Sequence[TrajectoryEnding]
    ) -> Tuple[Dict[str, np.ndarray], List[Dict[str, float]], Optional[AgentBufferField]]:
        all_values, all_next_values, all_memories = [], [], []
        for ending, part in zip(endings, buffer.parts(ending.n_steps for ending in endings)):
            part.agent_id, part.ends_episode = ending.agent_id, ending.done_reached
            n_obs = len(self.policy.behavior_spec.observation_specs)
            next_obs = [rows[-1] for rows in ObsUtil.from_buffer_next(part, n_obs)]
            values, next_values, memories = self.get_trajectory_value_estimates(part, next_obs, ending.is_final)
            all_values.append(values)
            all_next_values.append(next_values)
            all_memories.append(memories)
        joined = {name: np.concatenate([values[name] for values in all_values]) for name in all_values[0]}
        if all_memories[0] is None:
            return joined, all_next_values, None
        memories = AgentBufferField.holding(np.concatenate([np.asarray(it) for it in all_memories]))
        return joined, all_next_values, memories

    def _values_of_rows(self, obs: List[AgentBufferField]) -> Dict[str, np.ndarray]:
        """Return the critic's values (B,) of columns of observations by signal, not all rows at once."""
        parts = [
            self._values([column.part(start, start + _ROWS_PER_PASS).to_ndarray() for column in obs], sequence_length=1)
            for start in range(0, len(obs[0]), _ROWS_PER_PASS)
        ]
        return {name: np.concatenate([values[name] for values in parts]) for name in parts[0]}

    def initial_memories(self, batch: AgentBuffer, key: BufferKey = BufferKey.MEMORY) -> Optional[torch.Tensor]:
        """Return what was remembered before the first step of each sequence of a minibatch, (1, S, M).

        :param key: whose memories: the actor's, or with `BufferKey.CRITIC_MEMORY` the critic's.
        :returns: None without memory.
        """
        if not self.policy.use_recurrent or key not in batch:
            return None
        return ModelUtils.list_to_tensor(batch[key].to_ndarray()[:: self.policy.sequence_length]).unsqueeze(0)

    def _values(self, obs: List[np.ndarray], sequence_length: int) -> Dict[str, np.ndarray]:
        """Return the values (B,) that a critic without memory gives observations (B, *shape), by signal."""
        arrays = self._array_critic.get(self.critic)
        if arrays is not None:
            return arrays.values(obs)
        tensors = [ModelUtils.list_to_tensor(observation) for observation in obs]
        values, _ = self._critic_pass(tensors, None, sequence_length)
        return values

    def _values_by_sequence(
        self, obs: List[np.ndarray], batch: AgentBuffer
    ) -> Tuple[Dict[str, np.ndarray], AgentBufferField]:
        """Return the values (T + 1,) of a trajectory's observations by signal, and the critic's memories (T, M).

        The passes end where training sequences do, since the memory is needed there.
        """
        agent_id = batch.agent_id or ""
        n_steps, length = len(obs[0]) - 1, self.policy.sequence_length
        tensors = [ModelUtils.list_to_tensor(observation) for observation in obs]
        memory = self.critic_memory_dict.pop(agent_id, None)
        if memory is None:
            memory = torch.zeros(1, 1, self.critic.memory_size, device=default_device())
        memories = np.empty((n_steps, memory.shape[-1]), dtype=np.float32)
        parts = []
        for start in range(0, n_steps, length):
            end = min(start + length, n_steps)
            memories[start:end] = ModelUtils.to_numpy(memory[0])
            # What came after an episode's last step is valued with it: nobody asks for the memory in between.
            n_after = int(batch.ends_episode and end == n_steps)
            rows = [tensor[start : end + n_after] for tensor in tensors]
            values, memory = self._critic_pass(rows, memory, len(rows[0]))
            parts.append(values)
        if not batch.ends_episode:
            self.critic_memory_dict[agent_id] = memory
            parts.append(self._critic_pass([tensor[n_steps:] for tensor in tensors], memory, 1)[0])
        estimates = {name: np.concatenate([values[name] for values in parts]) for name in parts[0]}
        return estimates, AgentBufferField.holding(memories)

    @torch.no_grad()
    def _critic_pass(
        self, obs: List[torch.Tensor], memory: Any, sequence_length: int
    ) -> Tuple[Dict[str, np.ndarray], Any]:
        """Return the critic's values (B,) of observations by signal, and its memory after them."""
        values, new_memory = self.critic.critic_pass(obs, memories=memory, sequence_length=sequence_length)
        return {name: ModelUtils.to_numpy(value) for name, value in values.items()}, (
            memory if new_memory is None else new_memory
        )
