"""Which class provides which reward signal."""

from typing import Dict, Type

from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.settings import RewardSignalSettings, RewardSignalType
from mlagents.trainers.torch_entities.components.reward_providers.base_reward_provider import BaseRewardProvider
from mlagents.trainers.torch_entities.components.reward_providers.extrinsic_reward_provider import (
    ExtrinsicRewardProvider,
)
from mlagents_envs.base_env import BehaviorSpec

NAME_TO_CLASS: Dict[RewardSignalType, Type[BaseRewardProvider]] = {
    RewardSignalType.EXTRINSIC: ExtrinsicRewardProvider,
}


def create_reward_provider(
    name: RewardSignalType, specs: BehaviorSpec, settings: RewardSignalSettings
) -> BaseRewardProvider:
    """Make the provider of a reward signal.

    :raises UnityTrainerException: there is none of that name.
    """
    provider_class = NAME_TO_CLASS.get(name)
    if provider_class is None:
        raise UnityTrainerException(
            f"There is no reward provider for {name}; there are: {', '.join(key.value for key in NAME_TO_CLASS)}."
        )
    return provider_class(specs, settings)
