"""GridWorld: what is drawn, where one may go, what it brings; against a plain simulation of one grid."""

import numpy as np
import pytest

from mlagents_envs.base_env import ActionTuple, DimensionProperty, ObservationType
from mlagents_envs.builtin.gridworld import GridWorldEnv

NAME = "GridWorld?team=0"
STAY, UP, DOWN, LEFT, RIGHT = range(5)
RED, GREEN, BLUE = range(3)

PICTURES = {
    GREEN: """
        ................
        ......####......
        ......####......
        ......####......
        ..############..
        ..############..
        ..############..
        ..############..
        ......####......
        ......####......
        ......####......
        ................
    """,
    RED: """
        ................
        ..##........##..
        ..###......###..
        ...####..####...
        ....########....
        .....######.....
        .....######.....
        ....########....
        ...####..####...
        ..###......###..
        ..##........##..
        ................
    """,
    BLUE: """
        ................
        ..############..
        ..############..
        ..############..
        ..############..
        ..############..
        ..############..
        ..############..
        ..############..
        ..############..
        ..############..
        ................
    """,
}


def draw(cells):
    """The image of what lies in which cell, by colour, pixel by pixel."""
    image = np.ones((3, 64, 84), dtype=np.float32)
    image[:, 2:62, 2:82] = 0.0
    for colour, (row, column) in cells.items():
        for y, line in enumerate(PICTURES[colour].split()):
            for x, pixel in enumerate(line):
                image[:, 2 + 12 * row + y, 2 + 16 * column + x] = 0.0
                image[colour, 2 + 12 * row + y, 2 + 16 * column + x] = pixel == "#"
    return image


def read(image):
    """The cell of the one thing of each colour; that nothing else is in the image is asserted."""
    cells = {}
    for colour in (RED, GREEN, BLUE):
        ys, xs = image[colour, 2:62, 2:82].nonzero()
        ((row, column),) = set(zip((ys // 12).tolist(), (xs // 16).tolist()))
        cells[colour] = row, column
    np.testing.assert_array_equal(image, draw(cells))
    return cells


def forbidden(cell):
    """The masks at a cell."""
    row, column = cell
    return [False, row == 0, row == 4, column == 0, column == 4]


class Grid:
    """One agent's grid, simulated in plain Python from its first observation on."""

    def __init__(self, image, goal):
        cells = read(image)
        assert len(set(cells.values())) == 3
        assert sorted(goal) == [0.0, 1.0]
        self.goals = {cells[GREEN]: goal[0], cells[RED]: goal[1]}
        self.first_cells, self.at, self.age = cells, cells[BLUE], 0

    def step(self, choice):
        """Returns the reward, whether the episode has ended, and whether it was cut."""
        row, column = self.at
        if choice == UP and row > 0:
            row -= 1
        if choice == DOWN and row < 4:
            row += 1
        if choice == LEFT and column > 0:
            column -= 1
        if choice == RIGHT and column < 4:
            column += 1
        self.at = row, column
        self.age += 1
        if self.at in self.goals:
            return (0.99 if self.goals[self.at] else -1.01), True, False
        return -0.01, self.age == 100, self.age == 100

    def image(self):
        return draw({**self.first_cells, BLUE: self.at})


def act(env, choices):
    env.set_actions(NAME, ActionTuple(discrete=np.reshape(choices, (-1, 1))))
    env.step()
    return env.get_steps(NAME)


def started(**kwargs):
    env = GridWorldEnv(**kwargs)
    env.reset()
    return env


def test_what_it_offers():
    spec = GridWorldEnv().behavior_specs[NAME]
    camera, goal = spec.observation_specs
    moves = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
    assert camera.shape == (3, 64, 84)
    assert camera.dimension_property == (DimensionProperty.NONE, moves, moves)
    assert camera.observation_type == ObservationType.DEFAULT
    assert goal.shape == (2,)
    assert goal.observation_type == ObservationType.GOAL_SIGNAL
    assert spec.action_spec.discrete_branches == (5,)
    assert spec.action_spec.continuous_size == 0
    assert GridWorldEnv().n_agents == 16
    assert GridWorldEnv(num_areas=3).n_agents == 48


@pytest.mark.parametrize("respect_masks", [True, False])
def test_every_agent_lives_as_in_a_simulation_of_its_grid_alone(respect_masks):
    env, rng = started(seed=1), np.random.default_rng(2)
    decisions, _ = env.get_steps(NAME)
    grids = [Grid(*obs) for obs in zip(*decisions.obs)]
    n_ended = 0
    for _ in range(150):
        (masks,) = decisions.action_mask
        np.testing.assert_array_equal(masks, [forbidden(grid.at) for grid in grids])
        likings = rng.random((16, 5)) - (2 * masks if respect_masks else 0)
        choices = likings.argmax(axis=1)
        decisions, ended = act(env, choices)
        for agent, (grid, choice) in enumerate(zip(grids, choices)):
            reward, is_over, is_cut = grid.step(choice)
            assert (agent in ended) == is_over
            step = ended[agent] if is_over else decisions[agent]
            assert step.reward == pytest.approx(reward)
            np.testing.assert_array_equal(step.obs[0], grid.image())
            if is_over:
                assert step.interrupted == is_cut
                grids[agent] = Grid(decisions.obs[0][agent], decisions.obs[1][agent])
                n_ended += 1
    assert n_ended > 20


def walk(start, end):
    """The choices that lead from cell to cell, first along the column."""
    (row, column), (to_row, to_column) = start, end
    vertical = [UP if to_row < row else DOWN] * abs(to_row - row)
    return vertical + [LEFT if to_column < column else RIGHT] * abs(to_column - column)


@pytest.mark.parametrize(("asked_for", "last_reward"), [(True, 0.99), (False, -1.01)])
def test_walking_to_a_goal(asked_for, last_reward):
    for seed in range(100):
        env = started(seed=seed)
        decisions, _ = env.get_steps(NAME)
        cells, goal = read(decisions.obs[0][0]), decisions.obs[1][0]
        wanted = GREEN if goal[0] else RED
        target = wanted if asked_for else RED + GREEN - wanted
        choices = walk(cells[BLUE], cells[target])
        if len(choices) > 3 and cells[RED + GREEN - target][1] != cells[BLUE][1]:
            break
    for choice in choices[:-1]:
        decisions, ended = act(env, [choice] + 15 * [STAY])
        assert decisions.reward[0] == pytest.approx(-0.01)
        assert len(ended) == 0
    decisions, ended = act(env, [choices[-1]] + 15 * [STAY])
    assert list(ended) == [0]
    assert ended.reward[0] == pytest.approx(last_reward)
    assert not ended.interrupted[0]
    np.testing.assert_array_equal(ended.obs[0][0], draw({**cells, BLUE: cells[target]}))
    np.testing.assert_array_equal(ended.obs[1][0], goal)
    read(decisions.obs[0][0])


def test_who_stays_is_cut_after_a_hundred_steps():
    env = started(seed=3)
    for _ in range(99):
        _, ended = act(env, 16 * [STAY])
        assert len(ended) == 0
    _, ended = act(env, 16 * [STAY])
    assert len(ended) == 16
    assert ended.interrupted.all()
    np.testing.assert_allclose(ended.reward, -0.01)


def test_places_and_goals_are_drawn_evenly():
    decisions, _ = started(seed=4, num_areas=50).get_steps(NAME)
    cells = [read(image) for image in decisions.obs[0]]
    for colour in (RED, GREEN, BLUE):
        assert {cell[colour] for cell in cells} == {(row, column) for row in range(5) for column in range(5)}
    assert 0.4 < decisions.obs[1][:, 0].mean() < 0.6


def test_a_seed_gives_the_same_grids_again():
    first, again, other = started(seed=5), started(seed=5), started(seed=6)
    differs = False
    for choice in (UP, UP, LEFT, LEFT, DOWN, DOWN, DOWN, RIGHT, RIGHT, RIGHT):
        steps, same_steps, other_steps = (act(env, 16 * [choice])[0] for env in (first, again, other))
        for column, same, different in zip(steps.obs, same_steps.obs, other_steps.obs):
            np.testing.assert_array_equal(column, same)
            differs |= not np.array_equal(column, different)
    assert differs
