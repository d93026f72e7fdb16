"""The environment's own rewards."""

from typing import Dict

import numpy as np

from mlagents.trainers.buffer import AgentBuffer, BufferKey
from mlagents.trainers.settings import RewardSignalSettings
from mlagents.trainers.torch_entities.components.reward_providers.base_reward_provider import BaseRewardProvider
from mlagents_envs.base_env import BehaviorSpec


class ExtrinsicRewardProvider(BaseRewardProvider):
    """What the environment gave the agent, and what it gave the agent's group.

    :ivar add_groupmate_rewards: whether team-mates' own rewards count too.
    """

    def __init__(self, specs: BehaviorSpec, settings: RewardSignalSettings) -> None:
        super().__init__(specs, settings)
        self.add_groupmate_rewards = False

    def evaluate(self, mini_batch: AgentBuffer) -> np.ndarray:
        """Return the rewards (B,) of `mini_batch`, before `strength`."""
        rewards: np.ndarray = mini_batch[BufferKey.ENVIRONMENT_REWARDS].to_ndarray()
        if BufferKey.GROUP_REWARD in mini_batch:
            rewards = rewards + mini_batch[BufferKey.GROUP_REWARD].to_ndarray()
        if self.add_groupmate_rewards and BufferKey.GROUPMATE_REWARDS in mini_batch:
            rewards = rewards + np.array([sum(mates) for mates in mini_batch[BufferKey.GROUPMATE_REWARDS]])
        return rewards

    def update(self, mini_batch: AgentBuffer) -> Dict[str, np.ndarray]:
        """Nothing to learn."""
        return {}
