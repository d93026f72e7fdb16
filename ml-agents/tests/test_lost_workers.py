"""Workers whose steps cannot be used: they are lost alone, and what they send afterwards is a new life."""

import numpy as np
import pytest

from mlagents.trainers.agent_processor import AgentManager, LostAgents
from mlagents.trainers.env_manager import EnvironmentStep, EnvManager
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, TerminalSteps, vector_observation
from mlagents_envs.exception import UnityObservationException
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod
from mlagents_envs.vector_env import VectorEnv

SPEC = BehaviorSpec([vector_observation(3, "worker, life and step")], ActionSpec(1, ()))
N_AGENTS, HORIZON = 2, 4
STATS = {"Score": [(1.0, StatsAggregationMethod.AVERAGE)]}


class Marked(VectorEnv):
    """Agents see which worker it is, its how manyth life, and the step of this life.

    :param bad_step: the step of its first life in which an agent sees NaN, if any.
    """

    def __init__(self, name, worker_id, bad_step=None):
        super().__init__(name, SPEC, N_AGENTS)
        self.mark = np.array([worker_id, -1.0, 0.0])
        self.bad_step = bad_step

    def reset_agents(self, indices):
        self.mark[1:] = self.mark[1] + 1, 0
        return [np.tile(self.mark, (len(indices), 1))]

    def step_agents(self, actions):
        self.mark[2] += 1
        observation = np.tile(self.mark, (N_AGENTS, 1))
        if self.mark[1] == 0 and self.mark[2] == self.bad_step:
            observation[1, 0] = np.nan
        never = np.zeros(N_AGENTS, dtype=bool)
        return [observation], np.full(N_AGENTS, self.mark[2]), never, never


class Workers(EnvManager):
    """Workers in this process, each with its environments; all of them step at once.

    :ivar refused: what `_step_refused` heard, where `restarts`.
    """

    def __init__(self, workers, restarts):
        super().__init__()
        self.workers = workers
        self.restarts = restarts
        self.refused = []

    def set_env_parameters(self, config=None):
        pass

    @property
    def training_behaviors(self):
        return {env.behavior_name: SPEC for envs in self.workers for env in envs}

    def close(self):
        pass

    def _reset_env(self, config=None):
        return [self._restart(worker_id) for worker_id in range(len(self.workers))]

    def _restart(self, worker_id):
        for env in self.workers[worker_id]:
            env.reset()
        return self._observe(worker_id, {})

    def _step(self):
        decided = self._decide(self.last)
        for envs, decisions in zip(self.workers, decided):
            for env in envs:
                if env.behavior_name in decisions:
                    env.set_actions(env.behavior_name, decisions[env.behavior_name].env_action)
                env.step()
        self.last = [self._observe(worker_id, decisions) for worker_id, decisions in enumerate(decided)]
        return self.last

    def _observe(self, worker_id, decisions):
        results = {env.behavior_name: env.get_steps(env.behavior_name) for env in self.workers[worker_id]}
        return EnvironmentStep(results, worker_id, decisions, STATS)

    def _step_refused(self, step, error):
        if not self.restarts:
            super()._step_refused(step, error)
        self.refused.append((step.worker_id, str(error)))
        self.last[step.worker_id] = self._restart(step.worker_id)
        self.process_steps([self.last[step.worker_id]])


def make_workers(bad_step=None, restarts=True, names=("Cat",)):
    """Return three workers, of which number 1 goes wrong in the last of its behaviours."""
    workers = [
        [Marked(name, worker_id, bad_step if (worker_id, name) == (1, names[-1]) else None) for name in names]
        for worker_id in range(3)
    ]
    manager = Workers(workers, restarts)
    manager.reset()
    manager.last = manager.first_step_infos
    for name in manager.training_behaviors:
        manager.set_policy(name, TorchPolicy(0, SPEC, NetworkSettings(hidden_units=4), SimpleActor, {}))
        manager.set_agent_manager(name, AgentManager(SPEC, name, StatsReporter(name), HORIZON))
    return manager


def collect(manager, behavior_id):
    queue = manager.agent_managers[behavior_id].trajectory_queue
    return [queue.get_nowait() for _ in range(queue.qsize())]


def lives_of(items, agent_id):
    """Return what an agent published, as (life, steps), with "lost" in between."""
    story = []
    for item in items:
        if isinstance(item, LostAgents):
            story += ["lost"] if agent_id in item.agent_ids else []
        elif item.agent_id == agent_id:
            observations = item.columns.obs[0]
            (life,) = set(observations[:, 1])
            steps = observations[:, 2].tolist()
            assert item.columns.reward.tolist() == [step + 1 for step in steps]
            story.append((int(life), steps))
    return story


@pytest.mark.parametrize("names", [("Cat",), ("Ant", "Cat")])
def test_a_worker_that_sends_nan_is_lost_alone(names):
    manager = make_workers(bad_step=7, names=names)
    counts = [manager.process_steps(manager.get_steps()) for _ in range(13)]
    assert counts == [3] * 6 + [2] + [3] * 6
    ((worker_id, message),) = manager.refused
    assert worker_id == 1
    assert "Cat?team=0, step 0, worker 1, agent 1, observation 'worker, life and step'[0]: nan" in message
    # Three trajectories of four steps each in the life of 13; of the one that was lost in step 7, one, and then one.
    whole = [(0, [0, 1, 2, 3]), (0, [4, 5, 6, 7]), (0, [8, 9, 10, 11])]
    interrupted = [(0, [0, 1, 2, 3]), "lost", (1, [0, 1, 2, 3])]
    for name in manager.training_behaviors:
        items = collect(manager, name)
        for agent in range(N_AGENTS):
            assert lives_of(items, f"agent_0-{agent}") == lives_of(items, f"agent_2-{agent}") == whole
            assert lives_of(items, f"agent_1-{agent}") == interrupted


def test_where_no_worker_can_be_restarted_a_refused_step_ends_the_run_in_order():
    manager = make_workers(bad_step=3, restarts=False)
    for _ in range(2):
        manager.process_steps(manager.get_steps())
    with pytest.raises(UnityObservationException, match="worker 1, agent 1"):
        manager.process_steps(manager.get_steps())
    (lost,) = collect(manager, "Cat?team=0")
    assert lost == LostAgents(["agent_1-0", "agent_1-1"])


def test_statistics_that_come_with_a_refused_step_are_not_reported():
    manager = make_workers(bad_step=2)
    for _ in range(2):
        manager.process_steps(manager.get_steps())
    # The steps after the reset, two steps of three workers without one, and the first of the new life.
    assert len(StatsReporter("Cat?team=0").get_stats_summaries("Score").values) == 3 + 6 - 1 + 1


def test_a_behavior_that_is_missing_for_a_step_goes_on_where_it_was():
    """Its agents get the reward for what they last did when they are there again."""
    manager = make_workers(restarts=False)
    name = "Cat?team=0"
    manager.process_steps(manager.get_steps())
    decisions = manager._decide(manager.last)[0]
    taken = decisions[name].action.continuous.copy()
    manager.process_steps([EnvironmentStep({}, 0, decisions, {})])
    nobody = TerminalSteps.empty(SPEC)
    seen, reward = np.zeros((N_AGENTS, 3), dtype=np.float32), np.array([5.0, 6.0], dtype=np.float32)
    ids, zeros = np.arange(N_AGENTS, dtype=np.int32), np.zeros(N_AGENTS, dtype=np.float32)
    again = DecisionSteps([seen], reward, ids, None, zeros.astype(np.int32), zeros)
    ended = TerminalSteps([seen], reward, zeros > 0, ids, zeros.astype(np.int32), zeros)
    manager.process_steps([EnvironmentStep({name: (again, nobody)}, 0, {}, {})])
    last = manager.policies[name].get_action(again, 0)
    manager.process_steps([EnvironmentStep({name: (DecisionSteps.empty(SPEC), ended)}, 0, {name: last}, {})])
    trajectories = collect(manager, name)
    assert [trajectory.agent_id for trajectory in trajectories] == ["agent_0-0", "agent_0-1"]
    for agent, trajectory in enumerate(trajectories):
        assert trajectory.columns.reward[1:].tolist() == [reward[agent]] * 2
        assert trajectory.columns.continuous[1] == taken[agent]


def test_a_lost_worker_without_agents_changes_nothing():
    manager = make_workers()
    manager._lose_worker(1)
    manager._lose_worker(99)
    for _ in range(HORIZON):
        manager.process_steps(manager.get_steps())
    items = collect(manager, "Cat?team=0")
    assert len(items) == 3 * N_AGENTS
    assert lives_of(items, "agent_1-0") == [(0, [0, 1, 2, 3])]
