import subprocess
import sys

import numpy as np
import pytest

from mlagents_envs.base_env import ActionTuple, DimensionProperty
from mlagents_envs.builtin.basic import BasicEnv

NAME = "Basic?team=0"
STAY, LEFT, RIGHT = 0, 1, 2


def act(env, *moves):
    env.set_actions(NAME, ActionTuple(discrete=np.array(moves)[:, None]))
    env.step()
    return env.get_steps(NAME)


def position(obs):
    """The one position of a one-hot observation."""
    assert sorted(obs) == [0.0] * 19 + [1.0]
    return int(np.argmax(obs))


@pytest.fixture
def env():
    env = BasicEnv()
    env.reset()
    return env


def test_what_it_offers(env):
    (spec,) = env.behavior_specs.values()
    assert list(env.behavior_specs) == [NAME]
    (observation,) = spec.observation_specs
    assert (observation.name, observation.shape) == ("BasicSensor", (20,))
    assert observation.dimension_property == (DimensionProperty.NONE,)
    assert spec.action_spec.discrete_branches == (3,)
    assert spec.action_spec.continuous_size == 0


def test_moves(env):
    assert position(env.get_steps(NAME)[0].obs[0][0]) == 10
    for move, expected in ((STAY, 10), (RIGHT, 11), (RIGHT, 12), (LEFT, 11), (STAY, 11)):
        decisions, terminals = act(env, move)
        assert position(decisions.obs[0][0]) == expected
        assert decisions.reward[0] == pytest.approx(-0.01)
        assert len(terminals) == 0


@pytest.mark.parametrize(
    ("move", "steps", "goal", "last_reward", "total"), [(RIGHT, 7, 17, 0.99, 0.93), (LEFT, 3, 7, 0.09, 0.07)]
)
def test_walking_to_a_goal(env, move, steps, goal, last_reward, total):
    earned = 0.0
    for _ in range(steps - 1):
        decisions, terminals = act(env, move)
        assert len(terminals) == 0
        earned += decisions.reward[0]
    decisions, terminals = act(env, move)
    assert position(terminals.obs[0][0]) == goal
    assert terminals.reward[0] == pytest.approx(last_reward)
    assert not terminals.interrupted[0]
    assert earned + terminals.reward[0] == pytest.approx(total)
    assert position(decisions.obs[0][0]) == 10
    assert decisions.reward[0] == 0.0


def test_areas_are_agents_that_move_apart():
    env = BasicEnv(num_areas=3)
    env.reset()
    for _ in range(3):
        decisions, terminals = act(env, LEFT, STAY, RIGHT)
    assert [position(obs) for obs in decisions.obs[0]] == [10, 10, 13]
    assert list(terminals) == [0]


def test_it_needs_no_physics():
    code = "import mlagents_envs.builtin.basic, sys; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
