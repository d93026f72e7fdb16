"""Reward signals: what a trajectory's rewards are to a trainer."""

from mlagents.trainers.torch_entities.components.reward_providers.base_reward_provider import BaseRewardProvider
from mlagents.trainers.torch_entities.components.reward_providers.extrinsic_reward_provider import (
    ExtrinsicRewardProvider,
)
from mlagents.trainers.torch_entities.components.reward_providers.reward_provider_factory import (
    create_reward_provider,
)

__all__ = ["BaseRewardProvider", "ExtrinsicRewardProvider", "create_reward_provider"]
