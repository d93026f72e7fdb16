"""Hallway: see a symbol once, remember it, act on it at the end. A task for memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, vector_observation
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.vector_env import VectorEnv

AGENTS_PER_AREA = 16
LENGTH = 5
"""Steps from the start to the doors."""
N_SYMBOLS = 2
DOOR_REWARD, STEP_REWARD = 1.0, -0.01
MAX_STEPS = 50
STAY, FORWARD, LEFT, RIGHT = range(4)


class HallwayEnv(VectorEnv):
    """Sixteen agents per area, each at the start of a hallway that is five steps long.

    An agent observes where it is, one-hot (6), and in the first moment of an episode, never again, which of two symbols
    it was shown, one-hot (2). Its one discrete branch is: 0 stay, 1 forward, 2 the left door, 3 the right one; the
    doors are at the end. Each decision costs 0.01. The door that matches the symbol ends the episode with 1, the other
    one with -1; it is cut after 50 decisions. Who remembers can reach 0.94, who does not -0.06 on average.

    :param seed: of the symbols.
    :param num_areas: how many times sixteen agents there are.
    :param side_channels: the trainer's ends of the side channels.
    """

    state_arrays = ("_position", "_symbol", "_age")

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        spec = BehaviorSpec([vector_observation(LENGTH + 1 + N_SYMBOLS, "Hallway")], ActionSpec.create_discrete((4,)))
        super().__init__("Hallway", spec, AGENTS_PER_AREA * num_areas, seed=seed, side_channels=side_channels)
        self._position = np.zeros(self.n_agents, dtype=np.intp)
        self._symbol = np.zeros(self.n_agents, dtype=np.intp)
        self._age = np.zeros(self.n_agents, dtype=np.intp)
        self._positions = np.eye(LENGTH + 1, LENGTH + 1 + N_SYMBOLS, dtype=np.float32)

    def reset_agents(self, indices: NDArray[np.intp]) -> list[NDArray[np.float32]]:
        """Put agents back to the start, and show them a symbol."""
        self._position[indices] = 0
        self._age[indices] = 0
        symbol = self._symbol[indices] = self.rng.integers(N_SYMBOLS, size=len(indices))
        obs = self._positions[self._position[indices]]
        obs[np.arange(len(indices)), LENGTH + 1 + symbol] = 1.0
        return [obs]

    def step_agents(
        self, actions: ActionTuple
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Walk, or open a door where there are any."""
        choice = actions.discrete[:, 0]
        opened = (self._position == LENGTH) & (choice >= LEFT)
        self._position = np.minimum(self._position + (choice == FORWARD), LENGTH)
        self._age += 1
        is_right = choice - LEFT == self._symbol
        reward = STEP_REWARD + DOOR_REWARD * np.where(is_right, 1.0, -1.0) * opened
        return [self._positions[self._position]], reward, opened, self._age >= MAX_STEPS
