"""All agents of all environments as one vector environment of Gymnasium's."""

import sys

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
    DecisionSteps,
    TerminalSteps,
    image_observation,
    vector_observation,
)
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.envs.unity_gym_env import UnityToGymWrapper
from mlagents_envs.envs.unity_vector_env import UnityVectorEnv
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.gymnasium_env import GymnasiumEnv
from mlagents_envs.local_env import LocalEnv
from mlagents_envs.registry import default_registry
from mlagents_envs.vector_env import VectorEnv

HYBRID = ActionSpec.create_hybrid(2, (3, 2))


class Walk(VectorEnv):
    """Agents that end or are cut at random, and see what they did."""

    def __init__(self, n_agents=3, seed=0, action_spec=HYBRID):
        observations = [vector_observation(3, "place"), image_observation(1, 5, 5, "noise")]
        super().__init__("Walk", BehaviorSpec(observations, action_spec), n_agents, seed=seed)
        self.place = np.zeros((n_agents, 3))

    def reset_agents(self, indices):
        self.place[indices] = self.rng.normal(size=(len(indices), 3))
        return [part[indices] for part in self.see()]

    def step_agents(self, actions):
        self.place[:, 0] += actions.continuous.sum(axis=1)
        self.place[:, 1] += actions.discrete.sum(axis=1)
        ends, cuts = self.rng.random((2, self.n_agents)) < 0.15
        return self.see(), self.place.sum(axis=1), ends, cuts

    def see(self):
        return [self.place, self.rng.random((self.n_agents, 1, 5, 5))]

    def action_masks(self):
        return [np.arange(size) > self.place[:, :1] + 1 for size in self._spec.action_spec.discrete_branches]


def one_by_one(env, actions):
    """Step an environment agent by agent; return what `UnityVectorEnv` should say of it."""
    for agent, (continuous, discrete) in enumerate(actions):
        env.set_action_for_agent(env.behavior_name, agent, ActionTuple(continuous[None], discrete[None]))
    env.step()
    decisions, terminals = env.get_steps(env.behavior_name)
    said = []
    for agent in range(env.n_agents):
        now = decisions[agent]
        allowed = ~np.concatenate(now.action_mask)
        if agent in terminals:
            end = terminals[agent]
            said.append((now.obs, end.reward, not end.interrupted, end.interrupted, end.obs, allowed))
        else:
            said.append((now.obs, now.reward, False, False, None, allowed))
    return said


def test_it_says_what_its_agents_are_told_one_by_one():
    env = UnityVectorEnv([Walk(3, seed=1), Walk(2, seed=2), Walk(4, seed=3)])
    twins = [Walk(3, seed=1), Walk(2, seed=2), Walk(4, seed=3)]
    for walk in twins:
        walk.reset()
        walk.reset()  # as the vector environment did when it looked for the agents
    env.reset()
    env.action_space.seed(0)
    assert env.num_envs == 9
    n_ends = n_cuts = 0
    for _ in range(100):
        actions = env.action_space.sample()
        observations, rewards, terminated, truncated, infos = env.step(actions)
        rows = list(zip(*actions))
        said = one_by_one(twins[0], rows[:3]) + one_by_one(twins[1], rows[3:5]) + one_by_one(twins[2], rows[5:])
        for agent, (obs, reward, ended, cut, final, allowed) in enumerate(said):
            for part, column in zip(obs, observations):
                np.testing.assert_array_equal(column[agent], part)
            assert (rewards[agent], terminated[agent], truncated[agent]) == (reward, ended, cut)
            np.testing.assert_array_equal(infos["action_mask"][agent], allowed)
            n_ends, n_cuts = n_ends + ended, n_cuts + cut
            if final is not None:
                assert infos["_final_obs"][agent]
                for part, ours in zip(final, infos["final_obs"][agent]):
                    np.testing.assert_array_equal(ours, part)
            else:
                assert not infos.get("_final_obs", np.zeros(9))[agent]
    assert min(n_ends, n_cuts) > 50
    env.close()


def test_spaces_and_autoreset_mode_are_declared():
    env = UnityVectorEnv(Walk(3))
    observations, infos = env.reset(seed=1)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert observations in env.observation_space
    assert infos["action_mask"].shape == (3, 5)
    assert env.single_action_space.sample() in env.single_action_space
    for _ in range(20):
        observations, *_ = env.step(env.action_space.sample())
        assert observations in env.observation_space


def test_a_seeded_reset_repeats_and_every_environment_has_a_seed_of_its_own():
    env = UnityVectorEnv([Walk(2), Walk(2)])
    first, _ = env.reset(seed=5)
    second, _ = env.reset()
    third, _ = env.reset(seed=5)
    np.testing.assert_array_equal(first[0], third[0])
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(first[0][:2], first[0][2:])
    assert env.action_space.sample()[0].tolist() == (env.reset(seed=5), env.action_space.sample()[0].tolist())[1]


class Scripted(LocalEnv):
    """Says what its script says, step by step: who asks and who ends, with (id, number) and (id, number, interrupted).

    An agent's observation is its number and its reward one hundredth of it. `heard` keeps each step's actions.
    """

    SPEC = BehaviorSpec([vector_observation(1, "number")], ActionSpec.create_continuous(1))

    def __init__(self, *script):
        super().__init__({"Cast?team=0": self.SPEC})
        self.script, self.heard = script, []

    def say(self):
        asks, ends = next(self.lines)
        n_asks, n_ends = len(asks), len(ends)
        decisions = DecisionSteps(
            [np.array([[number] for _, number in asks], np.float32).reshape(n_asks, 1)],
            np.array([number / 100 for _, number in asks], np.float32),
            np.array([agent for agent, _ in asks], np.int32),
            None,
            np.zeros(n_asks, np.int32),
            np.zeros(n_asks, np.float32),
        )
        terminals = TerminalSteps(
            [np.array([[number] for _, number, _ in ends], np.float32).reshape(n_ends, 1)],
            np.array([number / 100 for _, number, _ in ends], np.float32),
            np.array([cut for *_, cut in ends], bool),
            np.array([agent for agent, *_ in ends], np.int32),
            np.zeros(n_ends, np.int32),
            np.zeros(n_ends, np.float32),
        )
        self._publish("Cast?team=0", decisions, terminals)

    def _begin_episodes(self):
        self.lines = iter(self.script)
        self.heard = []
        self.say()

    def _simulate(self):
        decisions, _ = self.get_steps("Cast?team=0")
        actions = self._actions_of("Cast?team=0").continuous[:, 0]
        self.heard.append(dict(zip(decisions.agent_id.tolist(), np.asarray(actions, np.float64).round(2).tolist())))
        self.say()


START = ([(7, 0), (8, 0)], [])


def act(env, *actions):
    observations, rewards, terminated, truncated, infos = env.step(np.array(actions, np.float32)[:, None])
    finals = {place: float(obs[0]) for place, obs in enumerate(infos.get("final_obs", ())) if obs is not None}
    return (
        observations[:, 0].tolist(),
        np.asarray(rewards, np.float64).round(2).tolist(),
        terminated.tolist(),
        truncated.tolist(),
        finals,
    )


NOBODY = [False, False]


def test_who_asks_again_sooner_repeats_its_action_and_rewards_add_up():
    unity = Scripted(START, ([(7, 10)], []), ([(7, 20)], []), ([(7, 30), (8, 5)], []), ([(8, 9), (7, 40)], []))
    env = UnityVectorEnv(unity)
    env.reset()
    assert act(env, 0.1, 0.2) == ([30, 5], [0.6, 0.05], NOBODY, NOBODY, {})
    assert unity.heard == [{7: 0.1, 8: 0.2}, {7: 0.1}, {7: 0.1}]
    assert act(env, 0.3, 0.4)[0] == [40, 9]
    assert unity.heard[-1] == {7: 0.3, 8: 0.4}


def test_an_action_waits_until_its_agent_asks_for_it():
    unity = Scripted(START, ([(8, 1)], []), ([(7, 2)], []), ([(8, 3)], []), ([(7, 4)], []), ([(8, 5)], []))
    env = UnityVectorEnv(unity)
    env.reset()
    assert act(env, 0.1, 0.2)[0] == [2, 1]
    assert act(env, 0.3, 0.4)[:2] == ([4, 5], [0.04, 0.08])
    assert unity.heard == [{7: 0.1, 8: 0.2}, {8: 0.2}, {7: 0.3}, {8: 0.4}, {7: 0.3}]


def test_an_action_waits_even_if_all_ask_at_once_then():
    unity = Scripted(START, ([(8, 1)], []), ([(7, 2)], []), ([(7, 3), (8, 4)], []), ([(7, 5), (8, 6)], []))
    env = UnityVectorEnv(unity)
    env.reset()
    assert act(env, 0.1, 0.2)[0] == [2, 1]
    assert act(env, 0.3, 0.4)[:2] == ([5, 6], [0.08, 0.1])
    assert unity.heard[2:] == [{7: 0.3}, {7: 0.3, 8: 0.4}]


def test_a_pause_between_episodes_is_waited_for():
    unity = Scripted(START, ([], [(7, 50, False)]), ([(8, 1)], []), ([(7, 3), (8, 2)], []))
    env = UnityVectorEnv(unity)
    env.reset()
    assert act(env, 0.1, 0.2) == ([3, 2], [0.5, 0.03], [True, False], NOBODY, {0: 50})


def test_an_agent_that_ends_while_others_are_waited_for_sees_its_next_episode():
    unity = Scripted(START, ([(8, 1)], [(7, 50, False)]), ([(7, 2)], [(8, 60, False)]), ([(7, 3), (8, 4)], []))
    env = UnityVectorEnv(unity)
    env.reset()
    assert act(env, 0.1, 0.2) == ([3, 4], [0.5, 0.61], [True, True], NOBODY, {0: 50, 1: 60})


class Renamed(Scripted):
    """Its agents have new ids after every reset."""

    def _begin_episodes(self):
        self.script = [([(agent + 10, number) for agent, number in asks], ends) for asks, ends in self.script]
        super()._begin_episodes()


def test_agents_may_have_other_ids_after_a_reset():
    env = UnityVectorEnv(Renamed(START, ([(7, 1), (8, 2)], [])))
    for _ in range(2):
        assert env.reset()[0].ravel().tolist() == [0, 0]
        assert act(env, 0.1, 0.2)[0] == [1, 2]


def test_a_new_agent_takes_the_place_of_one_that_is_gone():
    unity = Scripted(START, ([(8, 1), (9, 4)], [(7, 50, True)]), ([(9, 6), (8, 2)], []))
    env = UnityVectorEnv(unity)
    env.reset()
    assert act(env, 0.1, 0.2) == ([4, 1], [0.5, 0.01], NOBODY, [True, False], {0: 50})
    assert act(env, 0.3, 0.4) == ([6, 2], [0.06, 0.02], NOBODY, NOBODY, {})
    assert unity.heard[-1] == {8: 0.4, 9: 0.3}


def test_agents_beyond_the_places_act_with_zeros():
    unity = Scripted(START, ([(7, 1), (8, 1), (9, 1)], []), ([(7, 2), (8, 2), (9, 2)], []))
    env = UnityVectorEnv(unity)
    env.reset()
    act(env, 0.1, 0.2)
    assert act(env, 0.3, 0.4)[0] == [2, 2]
    assert unity.heard[-1] == {7: 0.3, 8: 0.4, 9: 0.0}


def test_a_place_that_stays_empty_is_named(monkeypatch):
    monkeypatch.setattr("mlagents_envs.envs.unity_vector_env.MAX_SILENT_STEPS", 5)
    env = UnityVectorEnv(Scripted(START, ([(8, 1)], [(7, 50, False)]), *[([(8, 1)], [])] * 9))
    env.reset()
    with pytest.raises(
        UnityEnvironmentException, match=r"agent 7 of Cast\?team=0 has asked for no decision in 5 steps"
    ):
        act(env, 0.1, 0.2)


@pytest.mark.parametrize(
    ("envs", "behavior", "message"),
    [
        ([], None, "at least one environment"),
        ([Walk(), Scripted(START)], None, r"environment 1 has Cast\?team=0, not Walk\?team=0"),
        ([Walk()], "Run?team=0", r"environment 0 has Walk\?team=0, not Run\?team=0"),
        ([Walk(), Walk(action_spec=ActionSpec.create_continuous(2))], None, "environment 1 observes or acts otherwise"),
        ([Scripted(([], []))], None, r"no agent of Cast\?team=0 asks for a decision at the start"),
    ],
    ids=["none", "mixed", "unknown", "different", "nobody"],
)
def test_environments_that_do_not_fit_are_named(envs, behavior, message):
    with pytest.raises(UnityEnvironmentException, match=message):
        UnityVectorEnv(envs, behavior)


def test_it_resets_as_gymnasiums_own_vector_environments_do():
    one = lambda: default_registry["Basic"].make()  # noqa: E731  # in which nothing is random
    ours = UnityVectorEnv([one() for _ in range(3)])
    theirs = SyncVectorEnv([lambda: UnityToGymWrapper(one())] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    np.testing.assert_array_equal(ours.reset(seed=1)[0], theirs.reset(seed=1)[0])
    rng = np.random.default_rng(0)
    n_ends = 0
    for _ in range(300):
        actions = rng.choice(3, size=3, p=[0.2, 0.3, 0.5])
        one_step, other_step = ours.step(actions), theirs.step(actions)
        for mine, expected in zip(one_step[:4], other_step[:4]):
            np.testing.assert_allclose(mine, expected, rtol=1e-6)
        infos, expected = one_step[4], other_step[4]
        assert ("final_obs" in infos) == ("final_obs" in expected)
        np.testing.assert_array_equal(infos["action_mask"], expected["action_mask"])
        if "final_obs" in infos:
            np.testing.assert_array_equal(infos["_final_obs"], expected["_final_obs"])
            for agent in np.flatnonzero(infos["_final_obs"]):
                np.testing.assert_array_equal(infos["final_obs"][agent], expected["final_obs"][agent])
                n_ends += 1
    assert n_ends > 30


def test_gymnasiums_wrappers_take_it():
    env = RecordEpisodeStatistics(UnityVectorEnv(default_registry["Basic"].make()))
    env.reset(seed=1)
    returns = []
    for _ in range(30):
        *_, infos = env.step(np.array([2]))
        returns += infos["episode"]["r"][infos["_episode"]].tolist() if "episode" in infos else []
    assert returns == [pytest.approx(0.93, abs=0.011)] * 4  # of seven steps; old ones take one for the next episode's


def test_there_and_back_again_is_the_same_environment():
    def told(env):
        env.reset()
        everything = []
        rng = np.random.default_rng(5)
        for _ in range(50):
            decisions, terminals = env.get_steps("Walk?team=0")
            for steps in (decisions, terminals):
                everything += [*steps.obs, steps.reward, steps.agent_id]
            everything += [*decisions.action_mask, terminals.interrupted]
            continuous = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
            discrete = np.zeros((3, 2), np.int32)
            env.set_actions("Walk?team=0", ActionTuple(continuous, discrete))
            env.step()
        return everything

    walk = Walk(3, seed=9)
    there_and_back = GymnasiumEnv(UnityVectorEnv(Walk(3)), "Walk", seed=9)
    # its reset is seeded by a number that it draws
    walk.seed(int(np.random.default_rng(9).integers(2**31)))
    for mine, expected in zip(told(there_and_back), told(walk), strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.skipif(sys.platform == "win32", reason="the executable of this test is a shell script")
def test_executables_simulate_at_the_same_time_and_say_what_environments_of_this_process_say(tmp_path):
    command = tmp_path / "mlagents-env"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlagents_envs.server Basic "$@"\n')
    command.chmod(0o755)
    executables = [UnityEnvironment(file_name=str(command), worker_id=70 + number) for number in range(2)]
    ours, theirs = UnityVectorEnv(executables), UnityVectorEnv([default_registry["Basic"].make() for _ in range(2)])
    np.testing.assert_array_equal(ours.reset()[0], theirs.reset()[0])
    rng = np.random.default_rng(0)
    n_ends = 0
    for _ in range(100):
        actions = rng.choice(3, size=2, p=[0.2, 0.2, 0.6])
        for mine, expected in zip(ours.step(actions)[:4], theirs.step(actions)[:4]):
            np.testing.assert_array_equal(mine, expected)
            n_ends += mine.dtype == bool and mine.any()
    assert n_ends > 8
    ours.close()
    with pytest.raises(UnityEnvironmentException, match="closed"):
        executables[1].step()
