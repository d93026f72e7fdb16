"""`VectorEnv`: what it adds to a simulator, checked on one whose every number tells agent, episode and age."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagents_envs import vector_env
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, vector_observation
from mlagents_envs.exception import UnityActionException, UnityEnvironmentException, UnityObservationException
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.vector_env import VectorEnv

NAME = "Ledger?team=0"
SPEC = BehaviorSpec(
    [vector_observation(3, "Ledger"), vector_observation(1, "Age")], ActionSpec.create_hybrid(1, (2, 3))
)


class LedgerEnv(VectorEnv):
    """Observes (agent, episode, age) and, once more, (age,). Rewards with 100 * agent + age.

    `ends` maps a step, counted from 1, to ({agents that terminate}, {agents that are truncated}).
    """

    def __init__(self, n_agents=3, ends=None, masked=False, **kwargs):
        super().__init__("Ledger", SPEC, n_agents, **kwargs)
        self.ends = ends or {}
        self.masked = masked
        self.agent = np.arange(n_agents)
        self.episode = np.zeros(n_agents, dtype=int)
        self.age = np.zeros(n_agents, dtype=int)
        self.state = np.zeros((n_agents, 3))
        self.steps = 0
        self.seen_actions = []

    def reset_agents(self, indices):
        self.episode[indices] += 1
        self.age[indices] = 0
        return [values[indices] for values in self.observation()]

    def step_agents(self, actions):
        self.steps += 1
        self.age += 1
        self.seen_actions.append((actions.continuous.copy(), actions.discrete.copy()))
        terminated, truncated = (np.isin(self.agent, list(who)) for who in self.ends.get(self.steps, ((), ())))
        return self.observation(), 100 * self.agent + self.age, terminated, truncated

    def observation(self):
        self.state[:] = np.stack([self.agent, self.episode, self.age], axis=1)
        return [self.state, self.age[:, None]]

    def action_masks(self):
        return [np.arange(2) == self.age[:, None] % 2, np.arange(3) == self.age[:, None] % 3] if self.masked else None


def test_the_worked_example_runs():
    results = doctest.testmod(vector_env)
    assert results.attempted >= 10
    assert results.failed == 0


def test_after_reset_all_agents_want_a_decision():
    env = LedgerEnv()
    env.reset()
    decisions, terminals = env.get_steps(NAME)
    np.testing.assert_array_equal(decisions.obs[0], [[0, 1, 0], [1, 1, 0], [2, 1, 0]])
    np.testing.assert_array_equal(decisions.obs[1], [[0], [0], [0]])
    np.testing.assert_array_equal(decisions.reward, [0, 0, 0])
    np.testing.assert_array_equal(decisions.agent_id, [0, 1, 2])
    np.testing.assert_array_equal(decisions.group_id, [0, 0, 0])
    np.testing.assert_array_equal(decisions.group_reward, [0, 0, 0])
    assert decisions.action_mask is None
    assert len(terminals) == 0
    assert terminals.obs[0].shape == (0, 3)


def test_an_end_gives_the_last_step_of_one_episode_and_the_first_of_the_next():
    env = LedgerEnv(n_agents=4, ends={2: ({3}, {1})})
    env.reset()
    env.step()
    assert len(env.get_steps(NAME)[1]) == 0
    env.step()
    decisions, terminals = env.get_steps(NAME)
    np.testing.assert_array_equal(terminals.agent_id, [1, 3])
    np.testing.assert_array_equal(terminals.interrupted, [True, False])
    np.testing.assert_array_equal(terminals.obs[0], [[1, 1, 2], [3, 1, 2]])
    np.testing.assert_array_equal(terminals.obs[1], [[2], [2]])
    np.testing.assert_array_equal(terminals.reward, [102, 302])
    np.testing.assert_array_equal(decisions.obs[0], [[0, 1, 2], [1, 2, 0], [2, 1, 2], [3, 2, 0]])
    np.testing.assert_array_equal(decisions.obs[1], [[2], [0], [2], [0]])
    np.testing.assert_array_equal(decisions.reward, [2, 0, 202, 0])


def test_an_episode_that_ends_and_is_cut_at_once_counts_as_ended():
    env = LedgerEnv(ends={1: ({0}, {0})})
    env.reset()
    env.step()
    np.testing.assert_array_equal(env.get_steps(NAME)[1].interrupted, [False])


def test_columns_have_the_types_of_the_interface():
    env = LedgerEnv(ends={1: ({0}, {1})}, masked=True)
    env.reset()
    env.step()
    for steps in env.get_steps(NAME):
        assert [obs.dtype for obs in steps.obs] == [np.float32, np.float32]
        assert all(obs.flags.c_contiguous for obs in steps.obs)
        assert steps.reward.dtype == steps.group_reward.dtype == np.float32
        assert steps.agent_id.dtype == steps.group_id.dtype == np.int32
    assert env.get_steps(NAME)[1].interrupted.dtype == np.bool_
    assert env.get_steps(NAME)[0].action_mask[0].dtype == np.bool_


@given(data=st.data())
def test_the_books_of_any_run_balance(data):
    """Agent by agent, episodes told apart by their number are whole, in order and correctly paid."""
    n_agents = data.draw(st.integers(1, 4))
    some_agents = st.sets(st.integers(0, n_agents - 1))
    ends = data.draw(st.dictionaries(st.integers(1, 12), st.tuples(some_agents, some_agents)))
    env = LedgerEnv(n_agents, ends)
    env.reset()
    episode, age = [1] * n_agents, [0] * n_agents
    for step in range(1, 13):
        env.step()
        decisions, terminals = env.get_steps(NAME)
        terminated, truncated = ends.get(step, (set(), set()))
        assert list(terminals) == sorted(terminated | truncated)
        for agent in range(n_agents):
            age[agent] += 1
            reward = 100 * agent + age[agent]
            if agent in terminals:
                terminal = terminals[agent]
                assert terminal.obs[0].tolist() == [agent, episode[agent], age[agent]]
                assert (terminal.reward, terminal.interrupted) == (reward, agent not in terminated)
                episode[agent], age[agent], reward = episode[agent] + 1, 0, 0
            assert decisions[agent].obs[0].tolist() == [agent, episode[agent], age[agent]]
            assert decisions[agent].reward == reward


def test_later_steps_leave_earlier_ones_alone():
    env = LedgerEnv(ends={2: ({0}, set())}, masked=True)
    env.reset()
    env.step()
    decisions, _ = env.get_steps(NAME)
    arrays = [*decisions.obs, decisions.reward, *decisions.action_mask]
    kept = [array.copy() for array in arrays]
    env.step()
    env.reset()
    for array, copy in zip(arrays, kept):
        np.testing.assert_array_equal(array, copy)


def test_columns_shared_between_steps_cannot_be_written():
    env = LedgerEnv()
    env.reset()
    decisions, _ = env.get_steps(NAME)
    for shared in (decisions.agent_id, decisions.group_id, decisions.group_reward):
        with pytest.raises(ValueError, match="read-only"):
            shared[0] = 7


def test_masks_follow_the_state_after_the_step():
    env = LedgerEnv(n_agents=2, ends={1: ({1}, set())}, masked=True)
    env.reset()
    env.step()
    first, second = env.get_steps(NAME)[0].action_mask
    np.testing.assert_array_equal(first, [[False, True], [True, False]])  # ages 1 and, begun anew, 0
    np.testing.assert_array_equal(second, [[False, True, False], [True, False, False]])


def test_actions_reach_the_simulator_once():
    env = LedgerEnv(n_agents=2)
    env.reset()
    env.set_actions(NAME, ActionTuple(np.array([[0.5], [-2.0]]), np.array([[1, 2], [0, 1]])))
    env.step()
    env.step()
    np.testing.assert_array_equal(env.seen_actions[0][0], [[0.5], [-2.0]])
    np.testing.assert_array_equal(env.seen_actions[0][1], [[1, 2], [0, 1]])
    np.testing.assert_array_equal(env.seen_actions[1][0], [[0], [0]])
    np.testing.assert_array_equal(env.seen_actions[1][1], [[0, 0], [0, 0]])


def test_an_agents_action_replaces_that_of_the_batch():
    env = LedgerEnv(n_agents=3)
    env.reset()
    batch = ActionTuple(np.ones((3, 1)), np.ones((3, 2)))
    env.set_actions(NAME, batch)
    env.set_action_for_agent(NAME, 1, ActionTuple(np.array([[0.25]]), np.array([[0, 2]])))
    env.step()
    np.testing.assert_array_equal(env.seen_actions[0][0], [[1], [0.25], [1]])
    np.testing.assert_array_equal(env.seen_actions[0][1], [[1, 1], [0, 2], [1, 1]])
    np.testing.assert_array_equal(batch.continuous, np.ones((3, 1)))


def test_actions_set_before_a_reset_are_forgotten():
    env = LedgerEnv(n_agents=1)
    env.reset()
    env.set_action_for_agent(NAME, 0, ActionTuple(np.array([[1.0]]), np.array([[1, 1]])))
    env.reset()
    env.step()
    np.testing.assert_array_equal(env.seen_actions[0][0], [[0]])


def test_environment_parameters_arrive_with_the_next_reset_or_step():
    channel = EnvironmentParametersChannel()
    env = LedgerEnv(side_channels=[channel])
    channel.set_float_parameter("gravity", 3.0)
    env.reset()
    assert env.parameters.get_with_default("gravity", 9.81) == 3.0
    channel.set_float_parameter("gravity", 4.0)
    env.step()
    assert env.parameters.get_with_default("gravity", 9.81) == 4.0


def test_randomness_comes_from_the_seed():
    first, same, other = LedgerEnv(seed=5), LedgerEnv(seed=5), LedgerEnv(seed=6)
    numbers = first.rng.random(4)
    np.testing.assert_array_equal(numbers, same.rng.random(4))
    assert not np.array_equal(numbers, other.rng.random(4))


def test_the_behavior_is_known_before_the_reset():
    assert dict(LedgerEnv().behavior_specs) == {NAME: SPEC}


GOOD_ROW = ActionTuple(np.zeros((1, 1)), np.zeros((1, 2)))


@pytest.mark.parametrize(
    "use",
    [
        lambda env: env.step(),
        lambda env: env.get_steps(NAME),
        lambda env: env.set_actions(NAME, SPEC.action_spec.empty_action(3)),
        lambda env: env.set_action_for_agent(NAME, 0, GOOD_ROW),
    ],
)
def test_use_before_the_reset_or_after_the_close_is_refused(use):
    env = LedgerEnv()
    with pytest.raises(UnityEnvironmentException, match=r"LedgerEnv has not started: call reset\(\) first"):
        use(env)
    env.reset()
    use(env)
    env.close()
    env.close()
    with pytest.raises(UnityEnvironmentException, match="LedgerEnv is closed"):
        use(env)
    with pytest.raises(UnityEnvironmentException, match="LedgerEnv is closed"):
        env.reset()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda env: env.get_steps("Ledger"), r"no behavior Ledger: its only one is Ledger\?team=0"),
        (lambda env: env.set_actions("Other", SPEC.action_spec.empty_action(3)), "no behavior Other"),
        (lambda env: env.set_action_for_agent("Other", 0, GOOD_ROW), "no behavior Other"),
        (lambda env: env.set_action_for_agent(NAME, 3, GOOD_ROW), "no agent 3 .* those that wait are 0, 1, 2"),
        (lambda env: env.set_action_for_agent(NAME, -1, GOOD_ROW), "no agent -1"),
        (lambda env: env.set_actions(NAME, SPEC.action_spec.empty_action(2)), r"\(3, 1\).*\(2, 1\)"),
        (lambda env: env.set_action_for_agent(NAME, 0, SPEC.action_spec.empty_action(2)), r"\(1, 1\).*\(2, 1\)"),
    ],
)
def test_actions_and_names_that_do_not_fit_are_refused(use, message):
    env = LedgerEnv()
    env.reset()
    with pytest.raises(UnityActionException, match=message):
        use(env)


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (([np.zeros((3, 3))], [0] * 3, [0] * 3, [0] * 3), UnityObservationException, "step_agents must return obs"),
        (([np.zeros((3, 4)), np.zeros((3, 1))], [0] * 3, [0] * 3, [0] * 3), UnityObservationException, r"\(3, 4\)"),
        (([np.zeros((3, 3)), np.zeros((3, 1))], [[0]] * 3, [0] * 3, [0] * 3), UnityEnvironmentException, "reward of"),
        (([np.zeros((3, 3)), np.zeros((3, 1))], [0] * 3, 0, [0] * 3), UnityEnvironmentException, "terminated of"),
        (([np.zeros((3, 3)), np.zeros((3, 1))], [0] * 3, [0] * 3, [0]), UnityEnvironmentException, "truncated of"),
    ],
)
def test_a_simulator_that_returns_wrong_shapes_is_named(returned, error, message):
    env = LedgerEnv()
    env.reset()
    env.step_agents = lambda actions: returned
    with pytest.raises(error, match=message):
        env.step()


def test_masks_of_wrong_shapes_are_named():
    env = LedgerEnv()
    env.action_masks = lambda: [np.zeros((3, 2))]
    with pytest.raises(UnityActionException, match=r"LedgerEnv\.action_masks must return masks"):
        env.reset()


def test_an_environment_needs_an_agent():
    with pytest.raises(UnityEnvironmentException, match="at least 1 agent but was given 0"):
        LedgerEnv(n_agents=0)
