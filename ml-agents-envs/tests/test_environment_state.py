"""Environments that are saved in the middle of their episodes go on, in another instance, bit for bit."""

import copy

import numpy as np
import pytest

from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, vector_observation
from mlagents_envs.env_resolver import LaunchOptions, resolve_env
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.vector_env import VectorEnv

BUILT_IN = ["3DBall", "Basic", "GridWorld", "Hallway", "Sorter"]


@pytest.fixture
def make():
    """Return a function that makes a built-in environment, with mass and scale drawn from distributions."""
    made = []

    def make(name, seed, num_areas=1, varies=False):
        if name == "3DBall":
            pytest.importorskip("mujoco")
        channel = EnvironmentParametersChannel()
        env = resolve_env(name, LaunchOptions()).make(
            worker_id=0, seed=seed, num_areas=num_areas, side_channels=[channel]
        )
        if varies:
            channel.set_uniform_sampler_parameters("mass", 0.5, 2.0, 7)
            channel.set_float_parameter("scale", 1.2)
        made.append(env)
        return env

    yield make
    for env in made:
        env.close()


def plain(value):
    """Copy plain data, and fail for what is something else."""
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    assert value is None or type(value) in (int, float, str, bool, np.ndarray), type(value)
    return copy.deepcopy(value)


def columns(steps):
    yield from steps.obs
    masks = getattr(steps, "action_mask", None)
    yield from masks or []
    for name in ("reward", "agent_id", "group_id", "group_reward", "interrupted"):
        if hasattr(steps, name):
            yield getattr(steps, name)


def observed(env):
    (name,) = env.behavior_specs
    return [np.array(column) for steps in env.get_steps(name) for column in columns(steps)]


def play(env, actions_rng, n_steps):
    """Take random steps; return all that was seen after each, and the number of episodes that ended."""
    (name,) = env.behavior_specs
    seen, n_ended = [], 0
    for _ in range(n_steps):
        n_agents = len(env.get_steps(name)[0])
        spec = env.behavior_specs[name].action_spec
        continuous = actions_rng.uniform(-1, 1, (n_agents, spec.continuous_size))
        discrete = actions_rng.integers(0, spec.discrete_branches, (n_agents, spec.discrete_size))
        env.set_actions(name, ActionTuple(continuous, discrete))
        env.step()
        seen.append(observed(env))
        n_ended += len(env.get_steps(name)[1])
    return seen, n_ended


def assert_equal(one, other):
    assert len(one) == len(other)
    for here, there in zip(one, other):
        assert len(here) == len(there)
        for column, other_column in zip(here, there):
            assert column.dtype == other_column.dtype
            np.testing.assert_array_equal(column, other_column)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("num_areas", [1, 3])
@pytest.mark.parametrize("n_steps_before", [0, 37])
def test_another_instance_goes_on_bit_for_bit(make, name, num_areas, n_steps_before):
    env = make(name, 1, num_areas, varies=True)
    env.reset()
    play(env, np.random.default_rng(2), n_steps_before)
    state = env.get_state()
    kept = plain(state)
    now = observed(env)
    expected, n_ended = play(env, np.random.default_rng(3), 300)
    assert n_ended > 3
    other = make(name, 99, num_areas)
    other.reset()
    play(other, np.random.default_rng(4), 11)
    other.set_state(kept)
    assert_equal([observed(other)], [now])
    assert_equal(play(other, np.random.default_rng(3), 300)[0], expected)
    assert_equal(
        [state["turns"][key]["decisions"]["obs"] for key in state["turns"]],
        [kept["turns"][key]["decisions"]["obs"] for key in kept["turns"]],
    )


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_instance_that_was_never_reset_goes_on(make, name):
    env, other = make(name, 1), make(name, 2)
    env.reset()
    play(env, np.random.default_rng(2), 5)
    other.set_state(env.get_state())
    assert_equal(play(other, np.random.default_rng(3), 40)[0], play(env, np.random.default_rng(3), 40)[0])


@pytest.mark.parametrize("name", BUILT_IN)
def test_saving_changes_nothing(make, name):
    env, twin = make(name, 1), make(name, 1)
    seen = []
    for each in (env, twin):
        each.reset()
        rng, steps = np.random.default_rng(3), []
        for _ in range(20):
            if each is env:
                each.get_state()
            steps += play(each, rng, 3)[0]
        seen.append(steps)
    assert_equal(*seen)


def test_actions_that_are_set_already_are_kept(make):
    env, other = make("Basic", 1), make("Basic", 2)
    env.reset()
    (name,) = env.behavior_specs
    action = env.behavior_specs[name].action_spec.empty_action(len(env.get_steps(name)[0]))
    action.discrete[:] = 2
    env.set_actions(name, action)
    other.set_state(env.get_state())
    for each in (env, other):
        each.step()
    assert_equal([observed(env)], [observed(other)])
    assert env.get_steps(name)[0].obs[0][0].argmax() == 11  # one to the right of the start


def test_a_state_of_another_environment_is_refused(make):
    hallway, basic, several = make("Hallway", 1), make("Basic", 1), make("Hallway", 1, num_areas=2)
    for env in (hallway, basic, several):
        env.reset()
    before = observed(hallway)
    for other in (basic, several):
        with pytest.raises(UnityEnvironmentException, match="is not of this environment"):
            hallway.set_state(other.get_state())
    assert_equal([observed(hallway)], [before])


class Walk(VectorEnv):
    """A random walk in one dimension."""

    def __init__(self, seed=0):
        super().__init__(
            "Walk", BehaviorSpec([vector_observation(1, "at")], ActionSpec.create_continuous(1)), 3, seed=seed
        )
        self.at = np.zeros(3)

    def reset_agents(self, indices):
        self.at[indices] = 0
        return [self.at[indices, None]]

    def step_agents(self, actions):
        self.at = self.at + self.rng.normal(size=3) + actions.continuous[:, 0]
        return [self.at[:, None]], self.at, np.abs(self.at) > 3, np.zeros(3, dtype=bool)


class SavedWalk(Walk):
    """The same, which can be saved."""

    state_arrays = ("at",)


def test_an_environment_of_ones_own_names_its_arrays():
    env, other = SavedWalk(1), SavedWalk(2)
    env.reset()
    play(env, np.random.default_rng(1), 10)
    other.set_state(plain(env.get_state()))
    assert_equal(play(env, np.random.default_rng(1), 50)[0], play(other, np.random.default_rng(1), 50)[0])


def test_a_number_is_named_as_an_array_is():
    class Counted(SavedWalk):
        state_arrays = ("at", "n_steps")
        n_steps = 0

        def step_agents(self, actions):
            self.n_steps += 1
            return super().step_agents(actions)

    env, other = Counted(1), Counted(2)
    env.reset()
    play(env, np.random.default_rng(1), 10)
    other.set_state(plain(env.get_state()))
    assert (other.n_steps, type(other.n_steps)) == (10, int)


def test_an_environment_that_names_none_cannot_be_saved():
    env = Walk()
    env.reset()
    assert env.get_state() is None
    saved = SavedWalk()
    saved.reset()
    with pytest.raises(UnityEnvironmentException, match="is not of this environment"):
        env.set_state(saved.get_state())
