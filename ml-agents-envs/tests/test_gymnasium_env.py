"""Gymnasium's environments as ours, compared with stepping each copy by itself."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector import VectorEnv as GymnasiumVectorEnv

from mlagents_envs.base_env import ActionTuple
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.gymnasium_env import GymnasiumEnv

N_COPIES = 5
NAME = "Walk?team=0"


class Walk(gymnasium.Env):
    """A random walk that ends or is cut at random; its observations remember seed, actions and age."""

    observation_space = spaces.Dict(place=spaces.Box(-np.inf, np.inf, (2,), np.float64), age=spaces.Discrete(50))
    action_space = spaces.Tuple((spaces.Box(-2, 2, (1,)), spaces.Discrete(3)))

    def __init__(self, masks_in_info=False):
        self.masks_in_info = masks_in_info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=2)
        self.age = 0
        return self.observe()

    def step(self, action):
        push, choice = action
        self.place = self.place + [push[0], choice] + self.np_random.normal(size=2)
        self.age += 1
        ends, is_cut = self.np_random.random(2) < (0.1, 0.15)
        observation, info = self.observe()
        return observation, float(self.place.sum()), bool(ends), bool(is_cut or self.age == 40), info

    def observe(self):
        # every third moment says nothing of masks
        info = {"action_mask": self.mask()} if self.masks_in_info and self.age % 3 != 2 else {}
        return {"place": self.place, "age": self.age}, info

    def mask(self):
        return np.array([1, self.place[0] > 0, self.place[1] > 0], dtype=np.int8)


class Twin:
    """Copies of `Walk`, each stepped by itself.

    :param late: whether a copy that has ended begins anew in the next step only.
    """

    def __init__(self, seed, late, **kwargs):
        first = int(np.random.default_rng(seed).integers(2**31))
        self.copies = [Walk(**kwargs) for _ in range(N_COPIES)]
        self.late = late
        self.waiting = set()
        self.seen = {agent: (copy.reset(seed=first + agent), 0.0) for agent, copy in enumerate(self.copies)}
        self.ended = {}

    def step(self, actions):
        """Step with the actions of the agents that decide, by agent."""
        self.ended, begins, self.waiting = {}, self.waiting, set()
        self.seen = {agent: (self.copies[agent].reset(), 0.0) for agent in begins}
        for agent, action in actions.items():
            observation, reward, terminated, truncated, info = self.copies[agent].step(action)
            if not (terminated or truncated):
                self.seen[agent] = ((observation, info), reward)
                continue
            self.ended[agent] = (observation, reward, not terminated)
            if self.late:
                self.waiting.add(agent)
            else:
                self.seen[agent] = (self.copies[agent].reset(), 0.0)


def vector_env(mode, **kwargs):
    return SyncVectorEnv([lambda: Walk(**kwargs)] * N_COPIES, autoreset_mode=mode)


def assert_observed(step, observation):
    place, age = step.obs
    np.testing.assert_array_equal(place, observation["place"].astype(np.float32))
    np.testing.assert_array_equal(age, np.eye(50, dtype=np.float32)[observation["age"]])


@pytest.mark.parametrize("masks_in_info", [False, True], ids=["", "masks"])
@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_every_autoreset_mode_gives_the_episodes_of_the_copies(mode, masks_in_info):
    env = GymnasiumEnv(vector_env(mode, masks_in_info=masks_in_info), "Walk", seed=3)
    twin = Twin(3, mode is AutoresetMode.NEXT_STEP, masks_in_info=masks_in_info)
    rng = np.random.default_rng(0)
    env.reset()
    n_ended = n_cut = n_masked = 0
    for _ in range(200):
        decisions, terminals = env.get_steps(NAME)
        assert sorted(decisions) == sorted(twin.seen)
        assert sorted(terminals) == sorted(twin.ended)
        for agent, ((observation, info), reward) in twin.seen.items():
            step = decisions[agent]
            assert_observed(step, observation)
            assert step.reward == np.float32(reward)
            if step.action_mask is not None:
                allowed = info.get("action_mask", np.ones(3))
                assert step.action_mask[0].tolist() == (allowed == 0).tolist()
                n_masked += int((allowed == 0).sum())
            else:
                assert not info
        for agent, (observation, reward, interrupted) in twin.ended.items():
            step = terminals[agent]
            assert_observed(step, observation)
            assert (step.reward, step.interrupted) == (np.float32(reward), interrupted)
            n_ended, n_cut = n_ended + 1, n_cut + interrupted
        push = rng.uniform(-1.2, 1.2, (len(decisions), 1)).astype(np.float32)
        choice = rng.integers(0, 3, (len(decisions), 1), dtype=np.int32)
        env.set_actions(NAME, ActionTuple(push, choice))
        env.step()
        stretched = np.clip(2 * push.astype(np.float64), -2, 2).astype(np.float32)
        twin.step({agent: (stretched[row], choice[row, 0]) for row, agent in enumerate(decisions)})
    assert n_ended > 150
    assert 50 < n_cut < n_ended - 50
    assert (n_masked > 100) == masks_in_info
    env.close()


def episodes(env, n_steps=60):
    """Everything that the environment says in a number of steps, with actions that hang on what it said."""
    env.reset()
    said = []
    for _ in range(n_steps):
        decisions, terminals = env.get_steps(env.behavior_name)
        said += [*decisions.obs, decisions.reward, *terminals.obs, terminals.reward, terminals.interrupted]
        spec = env.behavior_specs[env.behavior_name].action_spec
        if spec.discrete_branches:
            actions = ActionTuple(discrete=(np.abs(decisions.obs[0][:, :1]) * 100 % 2).astype(np.int32))
        else:
            actions = ActionTuple(continuous=np.sin(100 * decisions.obs[0][:, :1]))
        env.set_actions(env.behavior_name, actions)
        env.step()
    return np.concatenate([np.ravel(array) for array in said])


@pytest.mark.parametrize(
    ("env_id", "mode"), [("CartPole-v1", "sync"), ("CartPole-v1", "vector_entry_point"), ("Pendulum-v1", "sync")]
)
def test_equal_seeds_give_equal_episodes_also_when_seeded_again(env_id, mode):
    make = lambda seed: GymnasiumEnv(gymnasium.make_vec(env_id, 3, mode), "Env", seed=seed)  # noqa: E731
    env, same, other = make(1), make(1), make(2)
    first = episodes(env)
    np.testing.assert_array_equal(first, episodes(same))
    assert not np.array_equal(first[:9], episodes(other)[:9])
    assert not np.array_equal(first[:9], episodes(env)[:9])  # the next reset is another one
    env.seed(1)
    np.testing.assert_array_equal(first, episodes(env))


class Board(gymnasium.Env):
    """One of its four actions is taken at each step, and forbidden then: as a dict with a mask."""

    observation_space = spaces.Dict(observation=spaces.Box(0, 1, (4,)), action_mask=spaces.Box(0, 1, (4,), np.int8))
    action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.free = np.ones(4, dtype=np.int8)
        return self.observe(), {}

    def step(self, action):
        assert self.free[action], "the action is forbidden"
        self.free[action] = 0
        return self.observe(), 1.0, not self.free.any(), False, {}

    def observe(self):
        return {"observation": self.free.astype(np.float32), "action_mask": self.free.copy()}


def test_masks_in_observations_keep_a_player_from_forbidden_actions():
    env = GymnasiumEnv(SyncVectorEnv([Board] * 3, autoreset_mode="SameStep"), "Board")
    env.reset()
    rng = np.random.default_rng(1)
    n_episodes = 0
    for _ in range(16):
        decisions, terminals = env.get_steps("Board?team=0")
        n_episodes += len(terminals)
        (forbidden,) = decisions.action_mask
        np.testing.assert_array_equal(forbidden, decisions.obs[0] == 0)
        choices = [[rng.choice(np.flatnonzero(~row))] for row in forbidden]
        env.set_actions("Board?team=0", ActionTuple(discrete=np.array(choices, dtype=np.int32)))
        env.step()
    assert n_episodes == 9  # of four steps each


class Batched(GymnasiumVectorEnv):
    """It ends every copy's episode at once, and gives the last observations as a batch."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
    single_observation_space = spaces.Box(-9, 9, (1,))
    single_action_space = spaces.Discrete(2)
    num_envs = 2

    def __init__(self, with_last=True):
        self.with_last = with_last

    def reset(self, *, seed=None, options=None):
        return np.zeros((2, 1), np.float32), {}

    def step(self, actions):
        infos = {"final_obs": np.array([[5.0], [6.0]])} if self.with_last else {}
        return np.ones((2, 1)), np.array([1, 2]), np.array([True, False]), np.array([True, True]), infos


def test_last_observations_may_come_as_a_batch():
    env = GymnasiumEnv(Batched(), "Batched")
    env.reset()
    env.step()
    decisions, terminals = env.get_steps("Batched?team=0")
    assert terminals.obs[0].tolist() == [[5], [6]]
    assert terminals.interrupted.tolist() == [False, True]
    assert decisions.obs[0].tolist() == [[1], [1]]
    assert decisions.reward.tolist() == [0, 0]


def test_a_vector_environment_without_last_observations_is_named():
    env = GymnasiumEnv(Batched(with_last=False), "Batched")
    env.reset()
    with pytest.raises(UnityEnvironmentException, match=r"Batched says .* no last observation in infos"):
        env.step()


def test_closing_closes_the_vector_environment():
    inner = vector_env(AutoresetMode.NEXT_STEP)
    env = GymnasiumEnv(inner, "Walk")
    env.close()
    env.close()
    assert inner.closed
