"""The keys of a buffer's columns, and the text that stands for each in a file."""

from __future__ import annotations

import enum
from typing import Tuple, Union
from urllib.parse import quote, unquote


class _Key(enum.Enum):
    """An enum that is looked up often: its members are singletons, so that their identity serves as hash."""

    __hash__ = object.__hash__


class BufferKey(_Key):
    """The columns that are not one of several (observations and reward signals are)."""

    ACTION_MASK = "action_mask"
    NEXT_ACTION_MASK = "next_action_mask"  # not of every buffer: trainers that look ahead add it
    CONTINUOUS_ACTION = "continuous_action"
    NEXT_CONT_ACTION = "next_continuous_action"
    CONTINUOUS_LOG_PROBS = "continuous_log_probs"
    DISCRETE_ACTION = "discrete_action"
    NEXT_DISC_ACTION = "next_discrete_action"
    DISCRETE_LOG_PROBS = "discrete_log_probs"
    DONE = "done"
    ENVIRONMENT_REWARDS = "environment_rewards"
    MASKS = "masks"
    MEMORY = "memory"
    CRITIC_MEMORY = "critic_memory"
    BASELINE_MEMORY = "poca_baseline_memory"
    PREV_ACTION = "prev_action"
    ADVANTAGES = "advantages"
    DISCOUNTED_RETURNS = "discounted_returns"
    GROUP_DONES = "group_dones"
    GROUPMATE_REWARDS = "groupmate_reward"
    GROUP_REWARD = "group_reward"
    GROUP_CONTINUOUS_ACTION = "group_continuous_action"
    GROUP_DISCRETE_ACTION = "group_discrete_aaction"
    GROUP_NEXT_CONT_ACTION = "group_next_cont_action"
    GROUP_NEXT_DISC_ACTION = "group_next_disc_action"


class ObservationKeyPrefix(_Key):
    """The first half of an observation's key; the second is its index."""

    OBSERVATION = "obs"
    NEXT_OBSERVATION = "next_obs"
    GROUP_OBSERVATION = "group_obs"
    NEXT_GROUP_OBSERVATION = "next_group_obs"


class RewardSignalKeyPrefix(_Key):
    """The first half of a reward signal's key; the second is its name."""

    REWARDS = "rewards"
    VALUE_ESTIMATES = "value_estimates"
    RETURNS = "returns"
    ADVANTAGE = "advantage"
    BASELINES = "baselines"


AgentBufferKey = Union[BufferKey, Tuple[ObservationKeyPrefix, int], Tuple[RewardSignalKeyPrefix, str]]


def key_to_text(key: AgentBufferKey) -> str:
    """Return a key as text: ``done``, ``obs:0``, ``rewards:extrinsic``; it holds no slash."""
    if isinstance(key, BufferKey):
        return str(key.value)
    prefix, name = key
    return f"{prefix.value}:{quote(str(name), safe='')}"


def key_from_text(text: str) -> AgentBufferKey:
    """Return the key that `key_to_text` gave as `text`.

    :raises ValueError: it stands for none.
    """
    prefix, colon, name = text.partition(":")
    if not colon:
        return BufferKey(text)
    if prefix in {known.value for known in ObservationKeyPrefix}:
        return ObservationKeyPrefix(prefix), int(name)
    return RewardSignalKeyPrefix(prefix), unquote(name)


class RewardSignalUtil:
    """The keys of a reward signal's columns."""

    @staticmethod
    def rewards_key(name: str) -> AgentBufferKey:
        """Return the key of the rewards of signal `name`, after its strength."""
        return RewardSignalKeyPrefix.REWARDS, name

    @staticmethod
    def value_estimates_key(name: str) -> AgentBufferKey:
        """Return the key of the critic's values at the time of collection."""
        return RewardSignalKeyPrefix.VALUE_ESTIMATES, name

    @staticmethod
    def returns_key(name: str) -> AgentBufferKey:
        """Return the key of the critic's targets."""
        return RewardSignalKeyPrefix.RETURNS, name

    @staticmethod
    def advantage_key(name: str) -> AgentBufferKey:
        """Return the key of the advantages of signal `name` alone."""
        return RewardSignalKeyPrefix.ADVANTAGE, name

    @staticmethod
    def baseline_estimates_key(name: str) -> AgentBufferKey:
        """Return the key of the baselines of a multi-agent critic."""
        return RewardSignalKeyPrefix.BASELINES, name
