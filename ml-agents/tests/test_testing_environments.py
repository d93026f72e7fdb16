"""The environments of `mlagents.testing`: what they pay the best and a random policy, and how their agents behave."""

from itertools import pairwise

import numpy as np
import pytest

from mlagents.testing.crowd import CrowdEnv
from mlagents.testing.environments import (
    ContinuousEnv,
    ForbiddenActionError,
    HybridEnv,
    InterruptedEnv,
    MasksEnv,
    MemoryEnv,
)
from mlagents.testing.runs import ScoringEnvManager
from mlagents.testing.tasks import TASKS, choose_tasks, small_hyperparameters
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings import HyperparamSettings, OffPolicyHyperparamSettings
from mlagents.trainers.stop_request import StopRequest
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.exception import UnityActionException

N_STEPS = 2000


def play(env, policy, n_steps=N_STEPS):
    """Let ``policy(decisions)`` act; return the returns of all episodes that ended."""
    env.reset()
    (behavior,) = env.behavior_specs
    running, returns = {}, []
    for _ in range(n_steps):
        decisions, terminals = env.get_steps(behavior)
        returns += [running.pop(agent, 0.0) + terminals[agent].reward for agent in terminals]
        for agent in decisions:
            running[agent] = running.get(agent, 0.0) + decisions[agent].reward
        env.set_actions(behavior, policy(decisions))
        env.step()
    return np.array(returns)


def random_policy(env):
    rng = np.random.default_rng(0)
    (spec,) = env.behavior_specs.values()

    def act(decisions):
        n_agents = len(decisions)
        continuous = rng.uniform(-1, 1, (n_agents, spec.action_spec.continuous_size))
        preferences = [rng.random((n_agents, size)) for size in spec.action_spec.discrete_branches]
        if decisions.action_mask is not None:
            preferences = [values - mask for values, mask in zip(preferences, decisions.action_mask)]
        discrete = [values.argmax(axis=1) for values in preferences]
        return ActionTuple(continuous, np.stack(discrete, axis=1) if discrete else None)

    return act


def choices(*branches):
    return ActionTuple(discrete=np.stack(branches, axis=1))


def shown(decisions, size):
    """What the first entries of the observation, one-hot, show."""
    return decisions.obs[0][:, :size].argmax(axis=1)


def continuous(decisions):
    return ActionTuple(continuous=ContinuousEnv.TARGETS[shown(decisions, 4)])


def branches(decisions):
    context = shown(decisions, 4)
    return choices(context % 2, (context + 1) % 3, (context + 2) % 4)


def hybrid(decisions):
    context = shown(decisions, 4)
    return ActionTuple(HybridEnv.TARGETS[context][:, None], context[:, None] % 3)


def masks(decisions):
    context, rows = shown(decisions, 4), np.arange(len(decisions))
    favourites = [context % size for size in (3, 4)]
    taken = [mask[rows, favourite] for mask, favourite in zip(decisions.action_mask, favourites)]
    return choices(*((context + forbidden) % size for size, forbidden in zip((3, 4), taken)))


def scales(decisions):
    first, second = decisions.obs[0].T
    return choices(first > 100, second > 0)


def repeat(decisions):
    return choices(shown(decisions, 3))


def walk(decisions):
    return choices(np.ones(len(decisions), dtype=int))


class Remember:
    """Repeats the last cue that was seen."""

    def __init__(self):
        self.cue = np.zeros(16, dtype=int)

    def __call__(self, decisions):
        is_shown = decisions.obs[0][:, :3].any(axis=1)
        self.cue[is_shown] = shown(decisions, 3)[is_shown]
        return choices(self.cue)


BEST = {
    "continuous": continuous,
    "branches": branches,
    "hybrid": hybrid,
    "masks": masks,
    "scales": scales,
    "delayed": repeat,
    "interrupted": walk,
    "crowd": repeat,
    "memory": Remember(),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_random_actions_earn_what_is_documented(task):
    env = task.make_env(seed=1)
    returns = play(env, random_policy(env))
    standard_error = returns.std() / np.sqrt(len(returns))
    assert standard_error < 0.01
    assert returns.mean() == pytest.approx(task.random_return, abs=4 * standard_error)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_best_policy_earns_what_is_documented(task):
    returns = play(task.make_env(seed=1), BEST[task.name])
    if task.name == "interrupted":  # which return an episode has is a matter of luck
        assert returns.mean() == pytest.approx(task.best_return, abs=0.01)
    else:
        assert returns == pytest.approx(task.best_return)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_thresholds_ask_for_more_than_half_of_what_there_is_to_learn(task):
    assert (task.random_return + task.best_return) / 2 < task.threshold < task.best_return


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_seed_decides_everything(task):
    def record(seed):
        env = task.make_env(seed=seed)
        seen = []

        def act(decisions):
            seen.append((decisions.agent_id, decisions.obs[0], decisions.reward))
            return walk(decisions) if task.name == "interrupted" else policy(decisions)

        policy = random_policy(env)
        returns = play(env, act, n_steps=40)
        return [np.concatenate(columns).tolist() for columns in zip(*seen)], returns.tolist()

    assert record(3) == record(3)
    assert record(3) != record(4)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_areas_bring_more_agents(task):
    (behavior,) = task.make_env().behavior_specs
    assert behavior == f"{task.name.capitalize()}?team=0"
    agents = []
    for num_areas in (1, 3):
        env = task.make_env(seed=1, num_areas=num_areas)
        agents.append(set())
        policy = random_policy(env)

        def act(decisions, seen=agents[-1], policy=policy):
            seen.update(decisions.agent_id.tolist())
            return policy(decisions)

        play(env, act, n_steps=6)
    assert len(agents[1]) == 3 * len(agents[0])


def test_what_is_forbidden_raises():
    env = MasksEnv(seed=1)
    env.reset()
    decisions, _ = env.get_steps(env.behavior_name)
    of_three, of_four = decisions.action_mask
    assert not of_three.all(axis=1).any()
    assert not of_four.all(axis=1).any()
    assert 0 < of_four.any(axis=1).sum() < len(decisions)  # of some agents
    actions = masks(decisions)
    agent = int(of_four.any(axis=1).argmax())
    actions.discrete[agent, 1] = of_four[agent].argmax()
    env.set_actions(env.behavior_name, actions)
    with pytest.raises(ForbiddenActionError, match=rf"Agent {agent} took choice \d of branch 1"):
        env.step()


def test_an_interrupted_walk_goes_on_from_where_it_was():
    env = InterruptedEnv(seed=1)
    env.reset()
    name = env.behavior_name
    for _ in range(200):
        before = env.get_steps(name)[0].obs[0].argmax(axis=1)
        env.set_actions(name, walk(before))
        env.step()
        decisions, terminals = env.get_steps(name)
        after = decisions.obs[0].argmax(axis=1)
        arrived = set(terminals.agent_id[~terminals.interrupted])
        assert arrived == set((before == 2).nonzero()[0])
        assert terminals.reward.tolist() == (~terminals.interrupted).tolist()
        np.testing.assert_array_equal(after, (before + 1) % 3)
        np.testing.assert_array_equal(terminals.obs[0], decisions.obs[0][terminals.agent_id])


def test_giving_up_ends_a_walk_for_good_and_a_reset_every_walk():
    env = InterruptedEnv(seed=1)
    env.reset()
    name = env.behavior_name
    env.set_actions(name, walk(np.zeros(16)))
    env.step()
    assert (env.get_steps(name)[0].obs[0].argmax(axis=1) == 1).all()
    env.set_actions(name, choices(np.zeros(16, dtype=int)))
    env.step()
    decisions, terminals = env.get_steps(name)
    assert len(terminals) == 16
    assert not terminals.interrupted.any()
    assert terminals.reward.tolist() == pytest.approx([0.3] * 16)
    assert (decisions.obs[0].argmax(axis=1) == 0).all()
    env.set_actions(name, walk(decisions))
    env.step()
    env.reset()
    assert (env.get_steps(name)[0].obs[0].argmax(axis=1) == 0).all()


def test_the_cue_is_seen_once():
    env = MemoryEnv(seed=1)
    env.reset()
    seen = []
    for _ in range(4):
        decisions, _ = env.get_steps(env.behavior_name)
        seen.append(decisions.obs[0])
        env.step()
    cues, asked = np.stack(seen)[:, :, :3], np.stack(seen)[:, :, 3]
    assert cues.sum(axis=2).tolist() == [[1] * 16, [0] * 16, [0] * 16, [0] * 16]
    assert asked.tolist() == [[0] * 16, [0] * 16, [0] * 16, [1] * 16]


def test_a_crowd_comes_and_goes():
    env = CrowdEnv(seed=1)
    env.reset()
    decided, ended, interrupted, sizes, times = {}, [], [], [], {}
    for time in range(120):  # ten waves
        decisions, terminals = env.get_steps(env.behavior_name)
        for agent in terminals:
            assert agent in decided
            ended.append(agent)
            interrupted.append(bool(terminals[agent].interrupted))
        for agent in decisions:
            assert agent not in ended
            decided[agent] = decided.get(agent, 0) + 1
            times.setdefault(agent, []).append(time)
        sizes.append(len(decisions))
        env.set_actions(env.behavior_name, repeat(decisions))
        env.step()
    assert len(set(ended)) == len(ended) == 320  # every one of them, once
    assert set(decided) == set(ended)
    assert set(decided.values()) == {1, 2, 3, 4}
    assert 0.4 < np.mean(interrupted) < 0.6
    assert len(set(sizes)) > 5
    assert 0 in sizes
    assert {later - earlier for when in times.values() for earlier, later in pairwise(when)} == {1, 2}


def test_agents_of_a_crowd_can_act_one_by_one():
    together, apart = CrowdEnv(seed=1), CrowdEnv(seed=1)
    for env in (together, apart):
        env.reset()
    for _ in range(5):
        decisions, _ = together.get_steps(together.behavior_name)
        actions = random_policy(together)(decisions)
        together.set_actions(together.behavior_name, actions)
        for row, agent in enumerate(decisions.agent_id):
            apart.set_action_for_agent(
                apart.behavior_name, int(agent), ActionTuple(discrete=actions.discrete[row : row + 1])
            )
        for env in (together, apart):
            env.step()
        for one, other in zip(together.get_steps(together.behavior_name), apart.get_steps(apart.behavior_name)):
            assert one.agent_id.tolist() == other.agent_id.tolist()
            assert one.reward.tolist() == other.reward.tolist()


def test_a_crowd_takes_no_wrong_actions():
    env = CrowdEnv(seed=1)
    env.reset()
    decisions, _ = env.get_steps(env.behavior_name)
    with pytest.raises(UnityActionException, match="only one is Crowd"):
        env.get_steps("Crwod")
    with pytest.raises(UnityActionException, match="needs continuous actions of shape"):
        env.set_actions(env.behavior_name, choices(np.zeros(len(decisions) + 1, dtype=int)))
    with pytest.raises(UnityActionException, match=r"Agent 99 of .* does not wait"):
        env.set_action_for_agent(env.behavior_name, 99, choices(np.zeros(1, dtype=int)))


def test_tasks_are_chosen_by_name():
    assert [task.name for task in choose_tasks(["masks", "crowd"])] == ["masks", "crowd"]
    assert [task.name for task in choose_tasks(None)] == list(TASKS)
    with pytest.raises(TrainerConfigError, match=r"no task maks\. Did you mean 'masks'"):
        choose_tasks(["maks"])


def test_small_runs_fit_the_family_of_a_trainer():
    class Settings(OffPolicyHyperparamSettings):
        pass

    small = small_hyperparameters(Settings, has_memory=False)
    assert set(small) >= {"steps_per_update", "buffer_init_steps", "learning_rate"}
    with_memory = small_hyperparameters(Settings, has_memory=True)
    assert with_memory == {**small, "learning_rate": small["learning_rate"] / 2}
    assert small_hyperparameters(HyperparamSettings, has_memory=False) == {}


def test_returns_are_counted_as_the_environment_pays_them():
    env = CrowdEnv(seed=1)
    stop = StopRequest()
    manager = ScoringEnvManager(env, stop)
    manager.max_episodes = 100
    manager.reset()
    running, expected = {}, []
    while not stop.requested:
        for step in manager.get_steps():
            manager.process_steps([step])
            for decisions, terminals in step.current_all_step_result.values():
                expected += [running.pop(agent, 0.0) + terminals[agent].reward for agent in terminals]
                running.update({agent: running.get(agent, 0.0) + decisions[agent].reward for agent in decisions})
    assert 100 <= len(manager.returns) < 132
    assert manager.returns == pytest.approx(expected)
    assert 0.2 < np.mean(manager.returns) < 0.5
