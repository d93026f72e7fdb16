"""Basic: walk along a line to the larger of two rewards. The smallest task that needs planning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, vector_observation
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.vector_env import VectorEnv

N_POSITIONS = 20
START = 10
SMALL_GOAL, LARGE_GOAL = 7, 17
SMALL_REWARD, LARGE_REWARD, STEP_REWARD = 0.1, 1.0, -0.01
MOVES = np.array([0, -1, 1])
"""Stay, left, right."""


class BasicEnv(VectorEnv):
    """One agent per area on a line of 20 positions, which it observes one-hot; it starts at 10.

    Its one discrete branch is: 0 stay, 1 left, 2 right. Each decision costs 0.01. The episode ends at position 7 with
    0.1 and at position 17 with 1, so that the best return is 0.93. Nothing is random.

    :param seed: unused, since nothing is random.
    :param num_areas: number of agents.
    :param side_channels: the trainer's ends of the side channels.
    """

    state_arrays = ("_position",)

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        spec = BehaviorSpec([vector_observation(N_POSITIONS, "BasicSensor")], ActionSpec.create_discrete((len(MOVES),)))
        super().__init__("Basic", spec, num_areas, seed=seed, side_channels=side_channels)
        self._one_hot = np.eye(N_POSITIONS, dtype=np.float32)
        self._position = np.full(self.n_agents, START)

    def reset_agents(self, indices: NDArray[np.intp]) -> list[NDArray[np.float32]]:
        """Put agents back to the start."""
        self._position[indices] = START
        return [self._one_hot[self._position[indices]]]

    def step_agents(
        self, actions: ActionTuple
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Move every agent; both ends of the line lie beyond a goal, so that nobody reaches them."""
        self._position += MOVES[actions.discrete[:, 0]]
        at_small, at_large = self._position == SMALL_GOAL, self._position == LARGE_GOAL
        reward = STEP_REWARD + SMALL_REWARD * at_small + LARGE_REWARD * at_large
        return [self._one_hot[self._position]], reward, at_small | at_large, np.zeros(self.n_agents, dtype=np.bool_)
