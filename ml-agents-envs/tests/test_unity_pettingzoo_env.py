"""A `BaseEnv` through PettingZoo's two interfaces."""

import re

import numpy as np
import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

import mlagents_envs.envs
from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
    DecisionSteps,
    TerminalSteps,
    vector_observation,
)
from mlagents_envs.envs.unity_aec_env import UnityAECEnv
from mlagents_envs.envs.unity_parallel_env import UnityParallelEnv
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.local_env import LocalEnv
from mlagents_envs.registry import default_registry

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CATS, DOGS = "Cat?team=0", "Dog?team=1"


class Yard(LocalEnv):
    """Cats and dogs that skip steps, end and come at random, and see a number that hangs on all actions so far."""

    SPECS = {
        CATS: BehaviorSpec([vector_observation(2, "")], ActionSpec.create_discrete((3, 2))),
        DOGS: BehaviorSpec(
            [vector_observation(1, "nose"), vector_observation(2, "ear")], ActionSpec.create_continuous(2)
        ),
    }

    def __init__(self, seed=0, going_on=True):
        super().__init__(self.SPECS, seed=seed)
        self.going_on = going_on
        self.sum = 0.0

    def _begin_episodes(self):
        self.sum = 0.0
        self.live = {CATS: [0, 1, 2], DOGS: [0, 1]}
        self.next_id = 3
        for name in self.SPECS:
            self.say(name, self.live[name], [])

    def _simulate(self):
        for name in self.SPECS:
            actions = self._actions_of(name)
            self.sum += float(actions.continuous.sum()) + float(actions.discrete.sum()) / 7
        if self.rng.random() < 0.1:
            self.live[CATS].append(self.next_id)
            self.next_id += 1
        for name in self.SPECS:
            fate = self.rng.random(len(self.live[name]))
            ends = [agent for agent, chance in zip(self.live[name], fate) if chance < 0.1]
            if not self.going_on:
                self.live[name] = [agent for agent in self.live[name] if agent not in ends]
            asks = [agent for agent in self.live[name] if self.rng.random() < 0.8]
            self.say(name, asks, ends)

    def say(self, name, asks, ends):
        def columns(agents):
            see = [[self.sum + agent * (1 + part) for part in range(3)] for agent in agents]
            table = np.array(see, np.float32).reshape(-1, 3)
            obs = [table[:, :2]] if name == CATS else [table[:, :1], table[:, 1:]]
            zeros = np.zeros(len(agents), np.int32)
            reward = np.array([self.sum / 10 + agent for agent in agents], np.float32)
            return obs, reward, np.array(agents, np.int32), zeros, zeros.astype(np.float32)

        obs, reward, ids, group, group_reward = columns(asks)
        masks = None
        if name == CATS:
            masks = [np.zeros((len(asks), size), bool) for size in (3, 2)]
            masks[0][:, int(self.sum) % 3] = True
        decisions = DecisionSteps(obs, reward, ids, masks, group, group_reward)
        obs, reward, ids, group, group_reward = columns(ends)
        cut = np.array([agent % 2 == 1 for agent in ends], bool)
        self._publish(name, decisions, TerminalSteps(obs, reward, cut, ids, group, group_reward))


def built_in(name):
    def make():
        if name == "3DBall":
            pytest.importorskip("mujoco")
        return default_registry[name].make(seed=3)

    return make


BUILT_IN = [pytest.param(built_in(name), id=name) for name in ("3DBall", "Basic", "GridWorld")]
YARDS = [pytest.param(Yard, id="Yard"), pytest.param(lambda: Yard(going_on=False), id="Yard that empties")]


@pytest.mark.parametrize("make", BUILT_IN + YARDS)
def test_pettingzoos_own_check_of_the_form_in_turns(make):
    api_test(UnityAECEnv(make()), num_cycles=200)


@pytest.mark.parametrize("make", BUILT_IN + YARDS)
def test_pettingzoos_own_check_of_the_parallel_form(make):
    if make not in [parameter.values[0] for parameter in BUILT_IN]:
        pytest.importorskip("pettingzoo", minversion="1.27")  # older ones know masks of a single branch only
    parallel_api_test(UnityParallelEnv(make()), num_cycles=200)


@pytest.mark.parametrize("make", BUILT_IN)
def test_pettingzoos_own_checks_of_seeds(make):
    parallel_seed_test(lambda: UnityParallelEnv(make()), num_cycles=30)
    seed_test(lambda: UnityAECEnv(make()), num_cycles=30)


class Twin:
    """Steps a raw environment with named actions, and keeps what an episode of PettingZoo's would show of it."""

    def __init__(self, env):
        self.env = env
        env.reset()
        env.reset()  # as the wrapper did when it was made
        self.here, self.was = {}, set()
        self.told = self.look(at_first=True)

    def look(self, at_first=False):
        told = {}
        self.asking = {}
        for behavior in (CATS, DOGS):
            decisions, terminals = self.env.get_steps(behavior)
            for agent_id in terminals:
                agent = f"{behavior}?agent_id={agent_id}"
                if agent in self.here:
                    step = terminals[agent_id]
                    told[agent] = (step.obs, step.reward, not step.interrupted, step.interrupted)
                    del self.here[agent]
            for agent_id in decisions:
                agent = f"{behavior}?agent_id={agent_id}"
                if at_first or agent not in self.was:
                    self.here[agent] = None
                    self.was.add(agent)
                if agent in self.here:
                    step = decisions[agent_id]
                    told[agent] = self.here[agent] = (step.obs, step.reward, False, False)
                    self.asking[agent] = behavior, int(agent_id)
        for agent, last in self.here.items():
            told.setdefault(agent, (last[0], 0.0, False, False))
        return told

    def step(self, actions):
        for agent, (behavior, agent_id) in self.asking.items():
            discrete = behavior == CATS
            row = np.asarray(actions[agent])[None]
            self.env.set_action_for_agent(
                behavior, agent_id, ActionTuple(**{"discrete" if discrete else "continuous": row})
            )
        before = set(self.here)
        self.env.step()
        while True:
            told = self.look()
            if self.asking or set(told) - set(self.here):
                return told
            assert before == set(self.here)
            self.env.step()


def sampled(env, agents, rng):
    actions = {}
    for agent in agents:
        if agent.startswith("Cat"):
            first, second = env.infos[agent]["action_mask"]
            actions[agent] = np.array([rng.choice(np.flatnonzero(first)), rng.choice(np.flatnonzero(second))], np.int32)
        else:
            actions[agent] = rng.uniform(-1, 1, 2).astype(np.float32)
    return actions


def assert_seen(observation, obs):
    if isinstance(observation, dict) and "action_mask" in observation:
        observation = observation["observation"]
    parts = list(observation.values()) if isinstance(observation, dict) else [observation]
    for part, expected in zip(parts, obs, strict=True):
        np.testing.assert_array_equal(part, expected)


def test_the_parallel_form_shows_what_the_agents_are_told():
    env = UnityParallelEnv(Yard(seed=2))
    rng = np.random.default_rng(0)
    observations, _ = env.reset()
    twin = Twin(Yard(seed=2))
    assert set(observations) == set(twin.told)
    n_steps = n_joined = n_ends = n_cuts = 0
    while env.agents and n_steps < 100:
        before = set(env.agents)
        actions = sampled(env, env.agents, rng)
        observations, rewards, terminations, truncations, infos = env.step(actions)
        told = twin.step(actions)
        assert set(observations) == set(rewards) == set(terminations) == set(infos) == set(told)
        for agent, (obs, reward, ended, cut) in told.items():
            assert_seen(observations[agent], obs)
            assert rewards[agent] == pytest.approx(float(reward))
            assert (terminations[agent], truncations[agent]) == (ended, cut)
            n_ends, n_cuts = n_ends + ended, n_cuts + cut
        n_joined += len(set(told) - before)
        n_steps += 1
    assert env.agents == []
    assert min(n_ends, n_cuts) >= 3
    assert n_joined >= 1
    observations, _ = env.reset()
    assert len(observations) == 5


def test_the_form_in_turns_shows_the_same():
    env = UnityAECEnv(Yard(seed=2))
    parallel = UnityParallelEnv(Yard(seed=2))
    env.reset()
    parallel.reset()
    rng = np.random.default_rng(0)
    expected = {agent: (parallel._seen[agent], 0.0, False, False) for agent in parallel.agents}
    rewards = dict.fromkeys(parallel.agents, 0.0)
    n_ends = 0
    while parallel.agents:
        asking = list(parallel._waiting)
        actions = sampled(parallel, asking, rng)
        # first the dead leave, then all that ask take their turn
        while env.dones[env.agent_selection]:
            agent = env.agent_selection
            observation, reward, ended, cut, _ = env.last()
            assert (ended, cut) == expected[agent][2:]
            assert reward == pytest.approx(rewards[agent])
            n_ends += 1
            env.step(None)
        for agent in asking:
            assert env.agent_selection == agent
            observation, reward, ended, cut, _ = env.last()
            np.testing.assert_equal(observation, expected[agent][0])
            assert reward == pytest.approx(rewards[agent])
            assert (ended, cut) == (False, False)
            rewards[agent] = 0.0
            env.step(actions[agent])
        observations, earned, terminations, truncations, _ = parallel.step(actions)
        for agent, observation in observations.items():
            expected[agent] = observation, earned[agent], terminations[agent], truncations[agent]
            rewards[agent] = rewards.get(agent, 0.0) + earned[agent]
    assert n_ends >= 4
    assert all(env.dones.values())


def whole_episode(env):
    """All that the agents of a parallel environment are told in one episode."""
    rng = np.random.default_rng(1)
    observations, _ = env.reset(seed=6)
    told = [observations]
    while env.agents:
        *said, _ = env.step(sampled(env, env.agents, rng))
        told.append(said)
    return told


def whole_episode_in_turns(env):
    """All that the agents are told at their turns in one episode."""
    rng = np.random.default_rng(1)
    env.reset(seed=6)
    told = []
    for agent in env.agent_iter():
        told.append((agent, *env.last()))
        env.step(None if env.dones[agent] else sampled(env, [agent], rng)[agent])
    return told


@pytest.mark.parametrize(
    ("form", "play"),
    [(UnityParallelEnv, whole_episode), (UnityAECEnv, whole_episode_in_turns)],
    ids=["parallel", "turns"],
)
def test_a_seeded_episode_repeats_with_the_agents_that_join_in_it(form, play):
    env = form(Yard(seed=1))
    first = play(env)
    assert len(env.possible_agents) > 5
    np.testing.assert_equal(play(env), first)


def test_masks_are_in_observations_and_infos_and_can_be_sampled_by():
    env = UnityParallelEnv(Yard())
    observations, infos = env.reset()
    agent = f"{CATS}?agent_id=1"
    first, second = infos[agent]["action_mask"]
    assert (first.tolist(), second.tolist()) == ([0, 1, 1], [1, 1])
    assert observations[agent] in env.observation_space(agent)
    np.testing.assert_equal(observations[agent]["action_mask"], infos[agent]["action_mask"])
    assert 0 not in [env.action_space(agent).sample((first, second))[0] for _ in range(20)]


def test_spaces_are_the_same_objects_and_known_by_the_behavior_too():
    env = UnityParallelEnv(Yard())
    agent = f"{DOGS}?agent_id=1"
    assert env.action_space(agent) is env.action_space(DOGS) is env.action_spaces[agent]
    assert env.observation_space(agent) is env.observation_space(DOGS) is env.observation_spaces[agent]
    assert set(env.observation_space(DOGS)) == {"nose", "ear"}


def test_nobody_at_the_start_is_an_error(monkeypatch):
    monkeypatch.setattr("mlagents_envs.envs.unity_pettingzoo_base_env.MAX_SILENT_STEPS", 3)

    class Empty(Yard):
        def say(self, name, asks, ends):
            super().say(name, [], [])

    with pytest.raises(UnityEnvironmentException, match=re.escape("No agent has asked for a decision in 3 steps")):
        UnityParallelEnv(Empty())


@pytest.mark.parametrize("factory", ["PettingZooEnvFactory", "Basic"])
def test_the_factory_makes_an_environment_of_the_registry(factory):
    found = getattr(mlagents_envs.envs, factory)
    env = (found("Basic") if factory == "PettingZooEnvFactory" else found).env(seed=4)
    env.reset()
    assert env.agents == ["Basic?team=0?agent_id=0"]
    env.close()
