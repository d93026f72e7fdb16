"""What optimizers of torch policies share: reward signals and the values of whole trajectories."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from mlagents.torch_utils import default_device, torch
from mlagents.trainers.buffer import AgentBuffer, AgentBufferField, BufferKey
from mlagents.trainers.optimizer.optimizer import Optimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import RewardSignalSettings, RewardSignalType, TrainerSettings
from mlagents.trainers.torch_entities.array_inference import ArrayCache, ArrayCritic
from mlagents.trainers.torch_entities.components.reward_providers.reward_provider_factory import (
    create_reward_provider,
)
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.timers import timed


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
            estimates = self._values(obs)
        next_values = {name: float(value[-1]) for name, value in estimates.items()}
        for name in next_values:
            if done and not self.reward_signals[name].ignore_done:
                next_values[name] = 0.0
        return {name: value[:-1] for name, value in estimates.items()}, next_values, memories

    def initial_memories(self, batch: AgentBuffer, key: BufferKey = BufferKey.MEMORY) -> Optional[torch.Tensor]:
        """Return what was remembered before the first step of each sequence of a minibatch, (1, S, M).

        :param key: whose memories: the actor's, or with `BufferKey.CRITIC_MEMORY` the critic's.
        :returns: None without memory.
        """
        if not self.policy.use_recurrent or key not in batch:
            return None
        return ModelUtils.list_to_tensor(batch[key].to_ndarray()[:: self.policy.sequence_length]).unsqueeze(0)

    def _values(self, obs: List[np.ndarray]) -> Dict[str, np.ndarray]:
        """Return the critic's values (B,) of consecutive observations (B, *shape), by signal."""
        arrays = self._array_critic.get(self.critic)
        if arrays is not None:
            return arrays.values(obs)
        values, _ = self._critic_pass([ModelUtils.list_to_tensor(observation) for observation in obs], None)
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
            values, memory = self._critic_pass([tensor[start : end + n_after] for tensor in tensors], memory)
            parts.append(values)
        if not batch.ends_episode:
            self.critic_memory_dict[agent_id] = memory
            parts.append(self._critic_pass([tensor[n_steps:] for tensor in tensors], memory)[0])
        estimates = {name: np.concatenate([values[name] for values in parts]) for name in parts[0]}
        return estimates, AgentBufferField.holding(memories)

    @torch.no_grad()
    def _critic_pass(self, obs: List[torch.Tensor], memory: Any) -> Tuple[Dict[str, np.ndarray], Any]:
        """Return the critic's values (B,) of consecutive observations by signal, and its memory after them."""
        values, new_memory = self.critic.critic_pass(obs, memories=memory, sequence_length=len(obs[0]))
        return {name: ModelUtils.to_numpy(value) for name, value in values.items()}, (
            memory if new_memory is None else new_memory
        )
