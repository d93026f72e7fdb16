"""Sorter: point at numbered tiles in ascending order. A task for entities of variable number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
    ObservationSpec,
    entities_observation,
    vector_observation,
)
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.vector_env import VectorEnv

AGENTS_PER_AREA = 16
MIN_TILES, MAX_TILES = 2, 6
N_PLACES = 8
"""Places around an agent where a tile may lie."""
NUMBERS = np.linspace(-1, 1, MAX_TILES)
TILE_SIZE = 4


class SorterEnv(VectorEnv):
    """Sixteen agents per area, each amid a circle of two to six tiles in eight places, with different numbers.

    An agent observes its tiles as entities (6, 4), in random order anew at every decision: 1 for a tile, the sine and
    cosine of where it lies, and its number, one of six between -1 and 1; rows beyond are zero. With two continuous
    actions it points in a direction, sine and cosine, and touches the tile nearest to it. If that has the lowest number
    the agent earns 1 divided by how many tiles there were, and the tile is gone; else it loses as much and the episode
    ends. A perfect episode scores 1.

    :param seed: of the tiles.
    :param num_areas: how many times sixteen agents there are.
    :param side_channels: the trainer's ends of the side channels.
    """

    tiles_spec: ObservationSpec = entities_observation(MAX_TILES, TILE_SIZE, "Tiles")

    state_arrays = ("_place", "_number", "_is_there", "_n_tiles")

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        spec = BehaviorSpec([self.tiles_spec], ActionSpec.create_continuous(2))
        super().__init__("Sorter", spec, AGENTS_PER_AREA * num_areas, seed=seed, side_channels=side_channels)
        angle = 2 * np.pi * np.arange(N_PLACES) / N_PLACES
        self._directions = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        self._place = np.zeros((self.n_agents, MAX_TILES), dtype=np.intp)
        self._number = np.zeros((self.n_agents, MAX_TILES))
        self._is_there = np.zeros((self.n_agents, MAX_TILES), dtype=np.bool_)
        self._n_tiles = np.zeros(self.n_agents, dtype=np.intp)
        self._everyone = np.arange(self.n_agents)

    def reset_agents(self, indices: NDArray[np.intp]) -> list[NDArray[np.float32]]:
        """Lay out new tiles."""
        n = len(indices)
        self._n_tiles[indices] = self.rng.integers(MIN_TILES, MAX_TILES + 1, size=n)
        self._place[indices] = self.rng.random((n, N_PLACES)).argsort(axis=1)[:, :MAX_TILES]
        self._number[indices] = NUMBERS[self.rng.random((n, MAX_TILES)).argsort(axis=1)]
        self._is_there[indices] = np.arange(MAX_TILES) < self._n_tiles[indices, None]
        return [self._observe(indices)]

    def step_agents(
        self, actions: ActionTuple
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Touch a tile each."""
        nearness = (self._directions[self._place] * actions.continuous[:, None]).sum(axis=2)
        touched = np.where(self._is_there, nearness, -np.inf).argmax(axis=1)
        lowest = np.where(self._is_there, self._number, np.inf).argmin(axis=1)
        is_right = touched == lowest
        self._is_there[self._everyone, touched] = False
        reward = np.where(is_right, 1.0, -1.0) / self._n_tiles
        ended = ~is_right | ~self._is_there.any(axis=1)
        return [self._observe(self._everyone)], reward, ended, np.zeros(self.n_agents, dtype=np.bool_)

    def _observe(self, indices: NDArray[np.intp]) -> NDArray[np.float32]:
        rows = self._directions[self._place[indices]]
        tiles = np.concatenate([np.ones_like(rows[:, :, :1]), rows, self._number[indices, :, None]], axis=2)
        tiles[~self._is_there[indices]] = 0.0
        order = self.rng.random((len(indices), MAX_TILES)).argsort(axis=1)
        shuffled = np.take_along_axis(tiles, order[:, :, None], axis=1)
        return shuffled.reshape(len(indices), *self.tiles_spec.shape).astype(np.float32)


class FlatSorterEnv(SorterEnv):
    """The same, with all tiles in one vector: for comparison with networks that have no attention."""

    tiles_spec = vector_observation(MAX_TILES * TILE_SIZE, "Tiles")
