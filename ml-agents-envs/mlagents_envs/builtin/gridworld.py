"""GridWorld: go to the goal that was asked for, seen from above. A task for images and goal signals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, goal_observation, image_observation
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.vector_env import VectorEnv

AGENTS_PER_AREA = 16
SIZE = 5
"""Cells along each side of the grid."""
CELL_HEIGHT, CELL_WIDTH, FRAME = 12, 16, 2
"""In pixels; a frame around the grid stands for its walls."""
HEIGHT, WIDTH = SIZE * CELL_HEIGHT + 2 * FRAME, SIZE * CELL_WIDTH + 2 * FRAME
GOAL_REWARD, STEP_REWARD = 1.0, -0.01
MAX_STEPS = 100
MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])
"""Rows and columns by choice: stay, up, down, left, right."""


def _draw_sprites() -> NDArray[np.float32]:
    """Return the pictures (3, CELL_HEIGHT, CELL_WIDTH) of nothing, a green plus, a red cross, and the blue agent."""
    y, x = np.mgrid[0:CELL_HEIGHT, 0:CELL_WIDTH]
    y, x = (y + 0.5) / CELL_HEIGHT - 0.5, (x + 0.5) / CELL_WIDTH - 0.5
    inside = np.maximum(np.abs(y), np.abs(x)) < 0.4
    plus = inside & ((np.abs(x) < 0.13) | (np.abs(y) < 0.13))
    cross = inside & (np.abs(np.abs(x) - np.abs(y)) < 0.13)
    sprites = np.zeros((4, 3, CELL_HEIGHT, CELL_WIDTH), dtype=np.float32)
    sprites[1, 1], sprites[2, 0], sprites[3, 2] = plus, cross, inside
    return sprites


NOTHING, PLUS, CROSS, AGENT = _draw_sprites()


class GridWorldEnv(VectorEnv):
    """Sixteen agents per area, each on a grid of its own of 5 x 5 cells with a green plus and a red cross.

    An agent observes its grid as an image (3, 64, 84), itself in blue, and which goal is asked for, one-hot: plus or
    cross. Its one discrete branch is: 0 stay, 1 up, 2 down, 3 left, 4 right; moves into the walls are forbidden. Each
    decision costs 0.01. The episode ends at the goal that was asked for with 1, at the other one with -1, and is cut
    after 100 decisions. Places and goals are random.

    :param seed: of places and goals.
    :param num_areas: how many times sixteen agents there are.
    :param side_channels: the trainer's ends of the side channels.
    """

    state_arrays = ("_images", "_place", "_goals", "_wanted", "_age")

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        observations = [image_observation(3, HEIGHT, WIDTH, "Camera"), goal_observation(2, "Goal")]
        spec = BehaviorSpec(observations, ActionSpec.create_discrete((len(MOVES),)))
        super().__init__("GridWorld", spec, AGENTS_PER_AREA * num_areas, seed=seed, side_channels=side_channels)
        self._images = np.ones((self.n_agents, 3, HEIGHT, WIDTH), dtype=np.float32)
        inner = self._images[:, :, FRAME:-FRAME, FRAME:-FRAME]
        # Of the same memory: agent, channel, row of cells, pixels in it, column of cells, pixels in it.
        self._cells = inner.reshape(self.n_agents, 3, SIZE, CELL_HEIGHT, SIZE, CELL_WIDTH)
        self._everyone = np.arange(self.n_agents)
        self._place = np.zeros((self.n_agents, 2), dtype=np.intp)
        self._goals = np.zeros((2, self.n_agents, 2), dtype=np.intp)
        self._wanted = np.zeros(self.n_agents, dtype=np.intp)
        self._age = np.zeros(self.n_agents, dtype=np.intp)

    def reset_agents(self, indices: NDArray[np.intp]) -> list[NDArray[np.float32]]:
        """Put agents and goals into random cells, each its own, and ask for one of the goals."""
        order = self.rng.random((len(indices), SIZE * SIZE)).argsort(axis=1)[:, :3]
        self._place[indices], *goals = (np.stack(np.divmod(cell, SIZE), axis=1) for cell in order.T)
        self._goals[:, indices] = goals
        self._wanted[indices] = self.rng.integers(2, size=len(indices))
        self._age[indices] = 0
        self._cells[indices] = 0.0
        for sprite, places in ((AGENT, self._place), (PLUS, self._goals[0]), (CROSS, self._goals[1])):
            self._draw(sprite, indices, places[indices])
        return [self._images[indices], np.eye(2, dtype=np.float32)[self._wanted[indices]]]

    def step_agents(
        self, actions: ActionTuple
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Move every agent, but not through walls."""
        self._draw(NOTHING, self._everyone, self._place)
        self._place = np.clip(self._place + MOVES[actions.discrete[:, 0]], 0, SIZE - 1)
        self._draw(AGENT, self._everyone, self._place)
        self._age += 1
        at_plus, at_cross = (self._goals == self._place).all(axis=2)
        arrived = at_plus | at_cross
        right = np.where(self._wanted == 0, at_plus, at_cross)
        reward = STEP_REWARD + np.where(right, GOAL_REWARD, -GOAL_REWARD * arrived)
        obs = [self._images, np.eye(2, dtype=np.float32)[self._wanted]]
        return obs, reward, arrived, self._age >= MAX_STEPS

    def action_masks(self) -> list[NDArray[np.bool_]]:
        """Forbid moves that lead into a wall."""
        after = self._place[:, None] + MOVES
        return [((after < 0) | (after >= SIZE)).any(axis=2)]

    def _draw(self, sprite: NDArray[np.float32], indices: NDArray[np.intp], places: NDArray[np.intp]) -> None:
        """Put a sprite into a cell of each of some agents' grids."""
        self._cells[indices, :, places[:, 0], :, places[:, 1], :] = sprite
