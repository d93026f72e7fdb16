"""Sorter: tiles in ascending order; against a plain simulation of one circle of tiles."""

import math

import numpy as np
import pytest

from mlagents_envs.base_env import ActionTuple, DimensionProperty
from mlagents_envs.builtin.sorter import FlatSorterEnv, SorterEnv

NAME = "Sorter?team=0"


def tiles_of(entities):
    """The tiles, (sine, cosine, number) each, in no order; that other rows are zero is asserted."""
    there = entities[:, 0] == 1
    assert not entities[~there].any()
    tiles = {tuple(row[1:].tolist()) for row in entities[there]}
    assert len(tiles) == there.sum()
    return tiles


class Circle:
    """One agent's circle, simulated in plain Python from its first observation on."""

    def __init__(self, first_obs):
        self.tiles = tiles_of(first_obs)
        self.n_tiles = len(self.tiles)
        assert 2 <= self.n_tiles <= 6
        places = [math.degrees(math.atan2(sine, cosine)) % 360 / 45 for sine, cosine, _ in self.tiles]
        assert places == pytest.approx([round(place) for place in places], abs=1e-4)
        assert len({round(place) % 8 for place in places}) == self.n_tiles
        assert all(sine**2 + cosine**2 == pytest.approx(1) for sine, cosine, _ in self.tiles)
        numbers = {round(number, 6) for _, _, number in self.tiles}
        assert len(numbers) == self.n_tiles
        assert numbers <= {-1.0, -0.6, -0.2, 0.2, 0.6, 1.0}

    def step(self, sine, cosine):
        """Returns the reward and whether the episode has ended."""
        touched = max(self.tiles, key=lambda tile: tile[0] * sine + tile[1] * cosine)
        lowest = min(self.tiles, key=lambda tile: tile[2])
        self.tiles = self.tiles - {touched}
        if touched == lowest:
            return 1 / self.n_tiles, not self.tiles
        return -1 / self.n_tiles, True


def act(env, directions):
    env.set_actions(NAME, ActionTuple(np.array(directions, dtype=np.float32)))
    env.step()
    return env.get_steps(NAME)


def started(cls=SorterEnv, **kwargs):
    env = cls(**kwargs)
    env.reset()
    return env


def towards_rank(entities, rank):
    """The direction of each agent's tile of that rank, 0 for the lowest number, or of the last tile."""
    directions = []
    for tiles in map(tiles_of, entities):
        ordered = sorted(tiles, key=lambda tile: tile[2])
        directions.append(ordered[min(rank, len(ordered) - 1)][:2])
    return directions


def test_what_it_offers():
    spec = SorterEnv().behavior_specs[NAME]
    (tiles,) = spec.observation_specs
    assert tiles.shape == (6, 4)
    assert tiles.dimension_property == (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE)
    assert spec.action_spec.continuous_size == 2
    assert spec.action_spec.discrete_branches == ()
    assert SorterEnv().n_agents == 16
    assert SorterEnv(num_areas=2).n_agents == 32


@pytest.mark.parametrize("skill", [0.0, 0.9])
def test_every_agent_lives_as_in_a_simulation_of_its_circle_alone(skill):
    env, rng = started(seed=1), np.random.default_rng(2)
    decisions, _ = env.get_steps(NAME)
    circles = [Circle(obs) for obs in decisions.obs[0]]
    n_ended, n_finished = 0, 0
    for _ in range(100):
        directions = rng.uniform(-1, 1, (16, 2)).astype(np.float32)
        skilled = rng.random(16) < skill
        directions[skilled] = np.array(towards_rank(decisions.obs[0], 0))[skilled]
        decisions, ended = act(env, directions)
        for agent, (circle, direction) in enumerate(zip(circles, directions.tolist())):
            reward, is_over = circle.step(*direction)
            assert (agent in ended) == is_over
            step = ended[agent] if is_over else decisions[agent]
            assert step.reward == pytest.approx(reward)
            assert tiles_of(step.obs[0]) == circle.tiles
            if is_over:
                assert not step.interrupted
                n_ended += 1
                n_finished += reward > 0
                circles[agent] = Circle(decisions.obs[0][agent])
    assert n_ended > 200
    assert n_finished > 100 * skill


def test_ascending_order_scores_one():
    env = started(seed=3)
    decisions, _ = env.get_steps(NAME)
    n_tiles = (decisions.obs[0][:, :, 0] == 1).sum(axis=1)
    assert set(n_tiles) == {2, 3, 4, 5, 6}
    earned, n_touched = np.zeros(16), np.zeros(16, dtype=int)
    playing = np.ones(16, dtype=bool)
    while playing.any():
        decisions, ended = act(env, towards_rank(decisions.obs[0], 0))
        reward = decisions.reward.copy()
        reward[ended.agent_id] = ended.reward
        earned[playing] += reward[playing]
        n_touched[playing] += 1
        playing[ended.agent_id] = False
    np.testing.assert_allclose(earned, 1.0, atol=1e-6)
    np.testing.assert_array_equal(n_touched, n_tiles)


def test_a_tile_out_of_order_ends_the_episode():
    env = started(seed=3)
    decisions, _ = env.get_steps(NAME)
    n_tiles = (decisions.obs[0][:, :, 0] == 1).sum(axis=1)
    _, ended = act(env, towards_rank(decisions.obs[0], 1))
    assert len(ended) == 16
    assert not ended.interrupted.any()
    np.testing.assert_allclose(ended.reward, -1 / n_tiles, rtol=1e-6)


def test_tiles_lie_in_another_order_at_every_step():
    env = started(seed=4, num_areas=20)
    decisions, _ = env.get_steps(NAME)
    before = decisions.obs[0]
    after, ended = act(env, towards_rank(before, 0))
    n_kept, n_tiles = 0, 0
    for agent in set(range(env.n_agents)) - set(ended):
        for row, new_row in zip(before[agent], after.obs[0][agent]):
            n_kept += row[0] == 1 and np.array_equal(row, new_row)
        n_tiles += len(tiles_of(after.obs[0][agent]))
    assert 0.1 < n_kept / n_tiles < 0.25  # by chance one in six stays where it was
    assert (before[:, :, 0].mean(axis=0) > 0.5).all()  # tiles are as likely in any row: 4 of 6 on average


def test_the_flat_one_differs_in_the_shape_of_the_observation_only():
    entities, flat = started(seed=5), started(FlatSorterEnv, seed=5)
    (spec,) = flat.behavior_specs[NAME].observation_specs
    assert spec.shape == (24,)
    assert spec.dimension_property == (DimensionProperty.NONE,)
    directions = np.random.default_rng(6).uniform(-1, 1, (30, 16, 2))
    for direction in directions:
        (decisions, ended), (flat_decisions, flat_ended) = act(entities, direction), act(flat, direction)
        np.testing.assert_array_equal(decisions.obs[0].reshape(16, 24), flat_decisions.obs[0])
        np.testing.assert_array_equal(ended.obs[0].reshape(-1, 24), flat_ended.obs[0])
        np.testing.assert_array_equal(decisions.reward, flat_decisions.reward)
        np.testing.assert_array_equal(ended.reward, flat_ended.reward)


def test_a_seed_gives_the_same_tiles_again():
    columns = [started(seed=seed).get_steps(NAME)[0].obs[0] for seed in (7, 7, 8)]
    np.testing.assert_array_equal(columns[0], columns[1])
    assert not np.array_equal(columns[0], columns[2])
