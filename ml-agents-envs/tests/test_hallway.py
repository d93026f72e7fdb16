"""Hallway: a symbol seen once; against a plain simulation of one hallway."""

import numpy as np
import pytest

from mlagents_envs.base_env import ActionTuple, DimensionProperty
from mlagents_envs.builtin.hallway import HallwayEnv

NAME = "Hallway?team=0"
STAY, FORWARD, LEFT, RIGHT = range(4)


class Hallway:
    """One agent's hallway, simulated in plain Python from its first observation on."""

    def __init__(self, first_obs):
        assert first_obs[:6].tolist() == [1, 0, 0, 0, 0, 0]
        assert sorted(first_obs[6:]) == [0, 1]
        self.door = LEFT if first_obs[6] else RIGHT
        self.position, self.age = 0, 0

    def step(self, choice):
        """Returns the reward, whether the episode has ended, and whether it was cut."""
        self.age += 1
        if self.position == 5 and choice in (LEFT, RIGHT):
            return (0.99 if choice == self.door else -1.01), True, False
        if self.position < 5 and choice == FORWARD:
            self.position += 1
        return -0.01, self.age == 50, self.age == 50

    def observation(self):
        return [float(i == self.position) for i in range(6)] + [0.0, 0.0]


def act(env, choices):
    env.set_actions(NAME, ActionTuple(discrete=np.reshape(choices, (-1, 1))))
    env.step()
    return env.get_steps(NAME)


def started(**kwargs):
    env = HallwayEnv(**kwargs)
    env.reset()
    return env


def test_what_it_offers():
    spec = HallwayEnv().behavior_specs[NAME]
    (observation,) = spec.observation_specs
    assert observation.shape == (8,)
    assert observation.dimension_property == (DimensionProperty.NONE,)
    assert spec.action_spec.discrete_branches == (4,)
    assert spec.action_spec.continuous_size == 0
    assert HallwayEnv().n_agents == 16
    assert HallwayEnv(num_areas=2).n_agents == 32


@pytest.mark.parametrize("odds", [[0.2, 0.4, 0.2, 0.2], [0.9, 0.1, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
def test_every_agent_lives_as_in_a_simulation_of_its_hallway_alone(odds):
    env, rng = started(seed=1), np.random.default_rng(2)
    decisions, _ = env.get_steps(NAME)
    hallways = [Hallway(obs) for obs in decisions.obs[0]]
    n_ended = 0
    for _ in range(120):
        choices = rng.choice(4, size=16, p=odds)
        decisions, ended = act(env, choices)
        for agent, (hallway, choice) in enumerate(zip(hallways, choices)):
            reward, is_over, is_cut = hallway.step(choice)
            assert (agent in ended) == is_over
            step = ended[agent] if is_over else decisions[agent]
            assert step.reward == pytest.approx(reward)
            np.testing.assert_array_equal(step.obs[0], hallway.observation())
            if is_over:
                assert step.interrupted == is_cut
                hallways[agent] = Hallway(decisions.obs[0][agent])
                n_ended += 1
    assert n_ended >= 32


def play_episode(env, choose_door):
    """Walk to the doors, then choose by the first observation, for all agents; return what each earned in all."""
    decisions, _ = env.get_steps(NAME)
    shown = decisions.obs[0][:, 6:].copy()
    earned = np.zeros(env.n_agents)
    for _ in range(5):
        decisions, _ = act(env, env.n_agents * [FORWARD])
        earned += decisions.reward
        assert not decisions.obs[0][:, 6:].any()
    _, ended = act(env, [choose_door(symbol) for symbol in shown])
    assert len(ended) == env.n_agents
    assert not ended.interrupted.any()
    return earned + ended.reward


def test_who_remembers_the_symbol_gets_the_best_return():
    returns = play_episode(started(seed=3), lambda symbol: LEFT if symbol[0] else RIGHT)
    np.testing.assert_allclose(returns, 0.94, atol=1e-6)


@pytest.mark.parametrize("door", [LEFT, RIGHT])
def test_who_does_not_remember_gets_nothing_on_average(door):
    returns = play_episode(started(seed=3, num_areas=100), lambda symbol: door)
    assert set(returns.round(6)) == {0.94, -1.06}
    assert returns.mean() == pytest.approx(-0.06, abs=0.1)


def test_a_seed_gives_the_same_symbols_again():
    columns = [started(seed=seed).get_steps(NAME)[0].obs[0] for seed in (5, 5, 6)]
    np.testing.assert_array_equal(columns[0], columns[1])
    assert not np.array_equal(columns[0], columns[2])
