"""Collection in columns against a naive twin: lists of Python objects per agent, on random streams of steps."""

import random
import sys
import tracemalloc
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.agent_processor import AgentManager, AgentManagerQueue, AgentProcessor, LostAgents
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.trajectory import LogProbsTuple
from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
    vector_observation,
)
from mlagents_envs.exception import UnityObservationException

BEHAVIOR = "Ball?team=0"
EPISODE_LENGTH = "Environment/Episode Length"
IMAGE = ObservationSpec((3, 4, 2), (DimensionProperty.NONE,) * 3, ObservationType.DEFAULT, "camera")
CONTINUOUS = BehaviorSpec([vector_observation(3, "tilt")], ActionSpec.create_continuous(2))
DISCRETE = BehaviorSpec([vector_observation(2, "place")], ActionSpec.create_discrete((3, 2)))
HYBRID = BehaviorSpec([vector_observation(2, "tilt"), IMAGE], ActionSpec.create_hybrid(1, (2, 3)))
SPECS = {"continuous": CONTINUOUS, "discrete": DISCRETE, "hybrid": HYBRID}
HUGE = sys.maxsize


@pytest.fixture(autouse=True)
def _no_statistics_left():
    StatsReporter.close_writers()
    yield
    StatsReporter.close_writers()


class FakeWorker:
    """A worker whose agents come and go as `chance` decides.

    `seen` counts the situations it has made, so that a test can tell that it met them.

    :param memory: the size of what its agents remember; None for no memory.
    """

    FATES = {"go on": 70, "skip": 10, "end": 6, "end and restart": 6, "end, then a new id": 6, "vanish": 2}

    def __init__(self, spec: BehaviorSpec, chance: random.Random, log_probs: bool = True, memory: int | None = None):
        self.spec = spec
        self.chance = chance
        self.values = np.random.default_rng(chance.randrange(2**32))
        self.log_probs = log_probs
        self.memory = memory
        self.live: list[int] = []
        self.gone: list[int] = []
        self.n_ids = 0
        self.last = DecisionSteps.empty(spec)
        self.seen: Counter[str] = Counter()

    def step(self):
        """Return the decisions on the last step, and what came of them."""
        decision = self.decide()
        waiting, ending = [], []
        for agent in list(self.live):
            fate = self.chance.choices(list(self.FATES), list(self.FATES.values()))[0]
            self.seen[fate] += 1
            if fate.startswith("end"):
                ending.append(agent)
            if fate in ("end", "end, then a new id", "vanish"):
                self.live.remove(agent)
                self.gone.append(agent)
            if fate in ("go on", "end and restart"):
                waiting.append(agent)
            if fate == "end, then a new id":
                waiting.append(self.appear())
        if len(self.live) < 5 and self.chance.random() < 0.3:
            waiting.append(self.appear())
        if self.gone and self.chance.random() < 0.05:
            stranger = self.chance.choice(self.gone)
            if stranger not in ending:
                self.seen["an agent that is not there ends"] += 1
                ending.append(stranger)
        if self.chance.random() < 0.2:
            self.chance.shuffle(waiting)
        self.seen["several end"] += len(ending) > 1
        self.last = self.decision_steps(waiting)
        return decision, self.last, self.terminal_steps(ending)

    def appear(self) -> int:
        if self.gone and self.chance.random() < 0.3:
            self.seen["an old id appears"] += 1
            agent = self.gone.pop(self.chance.randrange(len(self.gone)))
        else:
            self.seen["a new id appears"] += 1
            agent, self.n_ids = self.n_ids, self.n_ids + 1
        self.live.append(agent)
        return agent

    def decide(self) -> ActionInfo:
        """Return decisions for the agents of the last step; now and then only for some, or for nobody."""
        rows = list(range(len(self.last)))
        luck = self.chance.random()
        if luck < 0.04:
            rows = []
        elif luck < 0.1:
            self.chance.shuffle(rows)
            rows = rows[: self.chance.randint(0, len(rows))]
        self.seen["not all are decided for"] += len(rows) < len(self.last)
        if not rows:
            return ActionInfo.empty()
        n, action_spec = len(rows), self.spec.action_spec
        action = ActionTuple(
            self.floats(n, action_spec.continuous_size),
            np.stack([self.values.integers(size, size=n) for size in action_spec.discrete_branches], axis=1)
            if action_spec.discrete_size
            else None,
        )
        outputs = {}
        if self.log_probs:
            shapes = (n, action_spec.continuous_size), (n, action_spec.discrete_size)
            outputs["log_probs"] = LogProbsTuple(self.floats(*shapes[0]), self.floats(*shapes[1]))
        if self.memory is not None:
            outputs["memory_in"] = self.floats(n, self.memory)
        agent_ids = self.last.agent_id[rows]
        return ActionInfo(action, action, outputs, agent_ids if self.chance.random() < 0.5 else agent_ids.tolist())

    def decision_steps(self, agents) -> DecisionSteps:
        masks = None
        if self.spec.action_spec.discrete_size and self.chance.random() < 0.8:
            masks = [self.values.random((len(agents), n)) < 0.3 for n in self.spec.action_spec.discrete_branches]
            for forbidden in masks:
                forbidden[:, 0] &= ~forbidden.all(axis=1)
        obs, reward, agent_id, group_id, group_reward = self.common(agents)
        return DecisionSteps(obs, reward, agent_id, masks, group_id, group_reward)

    def terminal_steps(self, agents) -> TerminalSteps:
        obs, reward, agent_id, group_id, group_reward = self.common(agents)
        return TerminalSteps(obs, reward, self.values.random(len(agents)) < 0.5, agent_id, group_id, group_reward)

    def common(self, agents):
        n = len(agents)
        obs = [self.floats(n, *observation.shape) for observation in self.spec.observation_specs]
        return obs, self.floats(n), np.array(agents, dtype=np.int32), np.zeros(n, np.int32), self.floats(n)

    def floats(self, *shape) -> np.ndarray:
        return self.values.normal(size=shape).astype(np.float32)


class NaiveCollector:
    """What `AgentProcessor` must do, agent by agent and step by step.

    The action chosen for an observation earns the reward of the agent's next decision or terminal step; a trajectory
    closes with the episode or after `horizon` experiences, and what the agent sees then is its `next_obs`.
    """

    def __init__(self, spec: BehaviorSpec, horizon: int):
        self.spec = spec
        self.horizon = horizon
        self.agents = {}
        self.trajectories = defaultdict(list)
        self.episode_lengths = []

    def lose(self, worker_id):
        for who in [who for who in self.agents if who[0] == worker_id]:
            del self.agents[who]
            self.trajectories[f"agent_{who[0]}-{who[1]}"].append("lost")

    def add(self, decision_steps, terminal_steps, worker_id, decision):
        for row, agent_id in enumerate(decision.agent_ids):
            agent = self.agents.get((worker_id, int(agent_id)))
            if agent is not None:
                self.act(agent, decision, row)
        for agent_id, step in terminal_steps.items():
            agent = self.agents.pop((worker_id, int(agent_id)), None)
            if agent is not None and agent["action"] is not None:
                self.reward(agent, step, done=True, interrupted=bool(step.interrupted))
                self.close((worker_id, agent_id), agent, step)
                self.episode_lengths.append(agent["episode length"])
        for agent_id, step in decision_steps.items():
            blank = {"action": None, "previous": None, "steps": [], "episode length": 0}
            agent = self.agents.setdefault((worker_id, int(agent_id)), blank)
            if agent["action"] is not None:
                self.reward(agent, step, done=False, interrupted=False)
                if len(agent["steps"]) == self.horizon:
                    self.close((worker_id, agent_id), agent, step)
            agent["obs"] = [values.copy() for values in step.obs]
            agent["mask"] = step.action_mask and [mask.copy() for mask in step.action_mask]
            agent["action"] = None

    def act(self, agent, decision, row):
        log_probs = decision.outputs.get("log_probs")
        agent["action"] = decision.action.continuous[row].copy(), decision.action.discrete[row].copy()
        agent["log probs"] = log_probs and (log_probs.continuous[row].copy(), log_probs.discrete[row].copy())
        memory = decision.outputs.get("memory_in")
        agent["memory"] = None if memory is None else memory[row].copy()

    def reward(self, agent, step, done, interrupted):
        continuous, discrete = agent["action"]
        branches = self.spec.action_spec.discrete_branches
        nothing_forbidden = [np.zeros(n, dtype=bool) for n in branches]
        experience = {
            "obs": agent["obs"],
            "reward": step.reward,
            "group_reward": step.group_reward,
            "done": done,
            "interrupted": interrupted,
            "continuous": continuous,
            "discrete": discrete,
            "prev_discrete": np.zeros(len(branches), np.int32) if agent["previous"] is None else agent["previous"],
            "action_mask": np.concatenate([*(agent["mask"] or nothing_forbidden), np.zeros(0, dtype=bool)]),
        }
        if agent["log probs"] is not None:
            experience["continuous_log_probs"], experience["discrete_log_probs"] = agent["log probs"]
        if agent["memory"] is not None:
            experience["memory"] = agent["memory"]
        agent["steps"].append(experience)
        agent["episode length"] += 1
        agent["previous"] = discrete

    def close(self, who, agent, step):
        name = f"agent_{who[0]}-{who[1]}"
        self.trajectories[name].append((agent["steps"], [values.copy() for values in step.obs]))
        agent["steps"] = []


def take_all(queue) -> list:
    items = []
    while not queue.empty():
        items.append(queue.get_nowait())
    return items


def assert_same_trajectory(trajectory, steps, next_obs, spec):
    assert trajectory.behavior_id == BEHAVIOR
    assert len(trajectory) == len(steps)
    assert trajectory.done_reached == steps[-1]["done"]
    assert trajectory.interrupted == steps[-1]["interrupted"]
    columns = vars(trajectory.columns)
    assert columns["branches"] == spec.action_spec.discrete_branches
    for name in steps[0].keys() - {"obs"}:
        assert_same(columns[name], np.array([step[name] for step in steps]), name)
    if "continuous_log_probs" not in steps[0]:
        assert columns["continuous_log_probs"] is None
        assert columns["discrete_log_probs"] is None
    if "memory" not in steps[0]:
        assert columns["memory"] is None
    assert len(columns["obs"]) == len(trajectory.next_obs) == len(next_obs) == len(spec.observation_specs)
    for index, values in enumerate(columns["obs"]):
        assert_same(values, np.array([step["obs"][index] for step in steps]), f"observation {index}")
        assert_same(trajectory.next_obs[index], next_obs[index], f"next observation {index}")


def assert_same(mine, theirs, name):
    """The same as NumPy's own strict comparison, ten times as fast."""
    if mine.dtype != theirs.dtype or not np.array_equal(mine, theirs):
        np.testing.assert_array_equal(mine, theirs, err_msg=name, strict=True)


def decide_for_all(worker: FakeWorker) -> ActionInfo:
    """Return decisions for every agent of the last step."""
    while True:
        decision = worker.decide()
        if len(decision.agent_ids) == len(worker.last):
            return decision


class Comparison:
    """An `AgentManager` and its naive twin, fed with the same steps of several workers."""

    def __init__(self, spec, horizon, chance, n_workers=3, log_probs=True, memory=None):
        self.spec = spec
        self.chance = chance
        self.manager = AgentManager(spec, BEHAVIOR, StatsReporter("collection"), horizon)
        self.twin = NaiveCollector(spec, horizon)
        self.workers = [FakeWorker(spec, chance, log_probs, memory) for _ in range(n_workers)]

    def step(self):
        worker_id = self.chance.randrange(len(self.workers))
        decision, decision_steps, terminal_steps = self.workers[worker_id].step()
        self.feed(decision_steps, terminal_steps, worker_id, decision)

    def feed(self, decision_steps, terminal_steps, worker_id, decision):
        self.twin.add(decision_steps, terminal_steps, worker_id, decision)
        self.manager.add_experiences(decision_steps, terminal_steps, worker_id, decision)
        # An environment may write its next step into the same arrays.
        for steps in (decision_steps, terminal_steps):
            for values in [*steps.obs, steps.reward, steps.group_reward]:
                values.fill(-1e6)
        for mask in decision_steps.action_mask or []:
            mask.fill(True)

    def end_episode(self):
        self.manager.end_episode()
        self.twin.agents.clear()
        for worker in self.workers:
            worker.live.clear()
            worker.last = DecisionSteps.empty(self.spec)

    def lose(self, worker_id):
        """Let a worker be lost; the one in its place begins with the same ids."""
        live = {agent_id for worker, agent_id in self.twin.agents if worker == worker_id}
        self.twin.lose(worker_id)
        assert set(self.manager.drop_worker(worker_id).tolist()) == live
        worker = self.workers[worker_id]
        self.workers[worker_id] = FakeWorker(self.spec, self.chance, worker.log_probs, worker.memory)

    def check(self):
        by_agent = defaultdict(list)
        for item in take_all(self.manager.trajectory_queue):
            if isinstance(item, LostAgents):
                for agent_id in item.agent_ids:
                    by_agent[agent_id].append("lost")
            else:
                by_agent[item.agent_id].append(item)
        assert by_agent.keys() == self.twin.trajectories.keys()
        for agent_id, expected in self.twin.trajectories.items():
            assert len(by_agent[agent_id]) == len(expected)
            for found, wanted in zip(by_agent[agent_id], expected):
                if "lost" in (found, wanted):
                    assert found == wanted
                else:
                    assert_same_trajectory(found, *wanted, self.spec)
        assert StatsReporter.stats_dict["collection"][EPISODE_LENGTH] == self.twin.episode_lengths


@pytest.mark.parametrize("horizon", [1, 3, 7, HUGE])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_a_thousand_random_episodes_are_collected_as_the_naive_twin_does(spec, horizon):
    comparison = Comparison(spec, horizon, random.Random(horizon % 1000), memory=4)
    while len(comparison.twin.episode_lengths) < 1000:
        comparison.step()
    comparison.check()
    seen = sum((worker.seen for worker in comparison.workers), Counter())
    assert len(seen) == len(FakeWorker.FATES) + 5
    assert min(seen.values()) >= 20


@settings(deadline=None)
@given(
    chance=st.randoms(use_true_random=False),
    spec=st.sampled_from(list(SPECS.values())),
    horizon=st.sampled_from([1, 2, 3, 7, HUGE]),
    n_workers=st.integers(1, 3),
    log_probs=st.booleans(),
    memory=st.sampled_from([None, 0, 1, 6]),
    n_steps=st.integers(1, 60),
)
def test_any_stream_is_collected_as_the_naive_twin_does(chance, spec, horizon, n_workers, log_probs, memory, n_steps):
    StatsReporter.close_writers()
    comparison = Comparison(spec, horizon, chance, n_workers, log_probs, memory)
    for _ in range(n_steps):
        luck = chance.random()
        if luck < 0.02:
            comparison.end_episode()
        elif luck < 0.07:
            comparison.lose(chance.randrange(n_workers))
        comparison.step()
    comparison.check()


def test_a_lost_workers_episodes_are_dropped_and_the_others_stay_whole():
    comparison = Comparison(HYBRID, 3, random.Random(16), memory=2)
    n_dropped = 0
    for step in range(2000):
        if step % 20 == 19:
            worker_id = comparison.chance.randrange(3)
            n_dropped += sum(
                len(agent["steps"]) for who, agent in comparison.twin.agents.items() if who[0] == worker_id
            )
            comparison.lose(worker_id)
        comparison.step()
    assert n_dropped > 100
    assert len(comparison.twin.episode_lengths) > 200
    comparison.check()


def test_lost_agents_are_told_of_between_what_was_published_before_and_after():
    manager = AgentManager(CONTINUOUS, BEHAVIOR, StatsReporter("collection"), 1)
    worker = FakeWorker(CONTINUOUS, random.Random(17))
    nobody = TerminalSteps.empty(CONTINUOUS)

    def live(n_steps):
        for _ in range(n_steps):
            decision = decide_for_all(worker)
            worker.last = worker.decision_steps([3, 8])
            manager.add_experiences(worker.last, nobody, 1, decision)

    live(2)
    assert manager.drop_worker(1).tolist() == [3, 8]
    assert manager.drop_worker(1).tolist() == []  # nothing of it is left
    assert manager.drop_worker(0).tolist() == []
    # Actions that were still on their way when the worker was lost are for nobody, though the ids are the same.
    live(2)
    kinds = [getattr(item, "agent_id", None) or item.agent_ids for item in take_all(manager.trajectory_queue)]
    both = ["agent_1-3", "agent_1-8"]
    assert kinds == [*both, both, *both]


def test_memory_does_not_grow_with_workers_that_are_lost():
    manager = AgentManager(CONTINUOUS, BEHAVIOR, StatsReporter("collection"), 5)
    worker = FakeWorker(CONTINUOUS, random.Random(18))
    nobody = TerminalSteps.empty(CONTINUOUS)

    def lose_often(n_times):
        for n in range(n_times):
            agents = worker.decision_steps(range(10 * n, 10 * n + 10))
            manager.add_experiences(agents, nobody, n % 3, ActionInfo.empty())
            manager.drop_worker(n % 3)
        take_all(manager.trajectory_queue)

    lose_often(10)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        lose_often(500)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000  # bytes; 5000 agents' columns would be half a million


def test_many_agents_and_long_episodes_outgrow_the_first_columns():
    worker = FakeWorker(DISCRETE, random.Random(1), memory=2)
    comparison = Comparison(DISCRETE, HUGE, random.Random(2))
    nobody = TerminalSteps.empty(DISCRETE)
    for step in range(150):
        decision = worker.decide()
        worker.last = worker.decision_steps(list(range(3 + step)))
        comparison.feed(worker.last, nobody, 0, decision)
    decision = worker.decide()
    comparison.feed(DecisionSteps.empty(DISCRETE), worker.terminal_steps(list(range(152))), 0, decision)
    assert max(comparison.twin.episode_lengths) > 100
    assert len(comparison.twin.trajectories) > 100
    comparison.check()


def test_an_agent_that_comes_back_does_not_get_the_place_that_another_has_taken():
    comparison = Comparison(CONTINUOUS, 3, random.Random(11))
    first, second = (FakeWorker(CONTINUOUS, random.Random(seed)) for seed in (12, 13))
    # Worker, the agents that wait, those that end: agent 0 of the first worker ends, and comes back a step later.
    script = [(0, [0], []), (0, [0], []), (0, [], [0]), (1, [0], []), (0, [0], []), (1, [0], []), (0, [0], [])]
    script += [(1, [0], []), (0, [], [0]), (1, [], [0])]
    for worker_id, waiting, ending in script:
        worker = (first, second)[worker_id]
        decision = decide_for_all(worker)
        worker.last = worker.decision_steps(waiting)
        comparison.feed(worker.last, worker.terminal_steps(ending), worker_id, decision)
    assert comparison.twin.episode_lengths == [2, 2, 3]
    comparison.check()


def test_an_actor_without_log_probabilities_leaves_none():
    comparison = Comparison(HYBRID, 3, random.Random(3), log_probs=False)
    for _ in range(100):
        comparison.step()
    trajectories = [t for ts in comparison.twin.trajectories.values() for t in ts]
    assert len(trajectories) > 20
    comparison.check()


def test_log_probabilities_that_were_never_given_are_nan():
    worker = FakeWorker(CONTINUOUS, random.Random(4), log_probs=False)
    manager = AgentManager(CONTINUOUS, BEHAVIOR, StatsReporter("collection"), 2)
    for log_probs in (False, False, True):
        worker.log_probs = log_probs
        decision = decide_for_all(worker)
        worker.last = worker.decision_steps([0])
        manager.add_experiences(worker.last, TerminalSteps.empty(CONTINUOUS), 0, decision)
    columns = manager.trajectory_queue.get_nowait().columns
    np.testing.assert_array_equal(np.isnan(columns.continuous_log_probs), [[True, True], [False, False]])


def test_steps_taken_before_the_memory_had_its_size_remember_nothing():
    worker = FakeWorker(CONTINUOUS, random.Random(14))
    manager = AgentManager(CONTINUOUS, BEHAVIOR, StatsReporter("collection"), 4)
    given = []
    for memory in (None, None, 2, 3, 3):
        worker.memory = memory
        decision = decide_for_all(worker)
        given.append(decision.outputs.get("memory_in"))
        worker.last = worker.decision_steps([0])
        manager.add_experiences(worker.last, TerminalSteps.empty(CONTINUOUS), 0, decision)
    memory = manager.trajectory_queue.get_nowait().columns.memory
    np.testing.assert_array_equal(memory, [[0, 0, 0], [0, 0, 0], *given[3], *given[4]])


def test_the_end_of_all_episodes_drops_what_is_under_way():
    comparison = Comparison(HYBRID, 7, random.Random(5))
    for _ in range(200):
        comparison.step()
    n_under_way = sum(len(agent["steps"]) for agent in comparison.twin.agents.values())
    assert n_under_way > 5
    comparison.end_episode()
    for _ in range(200):
        comparison.step()
    comparison.check()


def test_every_queue_gets_every_trajectory():
    processor = AgentProcessor(CONTINUOUS, BEHAVIOR, StatsReporter("collection"), 2)
    queues = [AgentManagerQueue(BEHAVIOR), AgentManagerQueue(BEHAVIOR)]
    for queue in queues:
        processor.publish_trajectory_queue(queue)
    worker = FakeWorker(CONTINUOUS, random.Random(6))
    for _ in range(5):
        decision = decide_for_all(worker)
        worker.last = worker.decision_steps([4, 9])
        processor.add_experiences(worker.last, TerminalSteps.empty(CONTINUOUS), 1, decision)
    first, second = map(take_all, queues)
    assert [trajectory.agent_id for trajectory in first] == ["agent_1-4", "agent_1-9"] * 2
    assert first == second


BAD_STEPS = {
    "a decision's observation": ("decision", lambda steps: steps.obs[0], (1, 1), np.nan, "observation 'tilt'[1]: nan"),
    "a decision's image": ("decision", lambda steps: steps.obs[1], (0, 2, 3, 1), np.inf, "'camera'[2, 3, 1]: inf"),
    "a decision's reward": ("decision", lambda steps: steps.reward, (1,), np.nan, ", reward: nan"),
    "a decision's group reward": ("decision", lambda steps: steps.group_reward, (1,), -np.inf, ", group reward: -inf"),
    "a reward without a group's": (
        "decision",
        lambda steps: steps.group_reward.fill(0) or steps.reward,
        (0,),
        np.inf,
        ", reward: inf",
    ),
    "a group's without a reward": (
        "terminal",
        lambda steps: steps.reward.fill(0) or steps.group_reward,
        (1,),
        np.nan,
        ", group reward: nan",
    ),
    "a terminal observation": ("terminal", lambda steps: steps.obs[0], (1, 0), -np.inf, "observation 'tilt'[0]: -inf"),
    "a terminal reward": ("terminal", lambda steps: steps.reward, (0,), np.inf, ", reward: inf"),
}


@pytest.mark.parametrize(("kind", "column", "place", "value", "what"), BAD_STEPS.values(), ids=BAD_STEPS.keys())
def test_what_is_not_finite_is_refused_before_anything_is_stored(kind, column, place, value, what):
    worker = FakeWorker(HYBRID, random.Random(7))
    comparison = Comparison(HYBRID, 3, random.Random(8))
    for agents in ([5, 6, 7, 8], [5, 6, 7, 8], [7, 8]):
        decision = decide_for_all(worker)
        worker.last = worker.decision_steps(agents)
        steps = {"decision": worker.last, "terminal": worker.terminal_steps([5, 6] if len(agents) == 2 else [])}
        if len(agents) == 2:
            values = column(steps[kind])
            good, values[place] = values[place], value
            with pytest.raises(UnityObservationException) as failure:
                comparison.manager.add_experiences(steps["decision"], steps["terminal"], 2, decision)
            values[place] = good
        comparison.feed(steps["decision"], steps["terminal"], 2, decision)
    agent = int(steps[kind].agent_id[place[0]])
    for part in (f"behavior {BEHAVIOR}", "worker 2", f"agent {agent},", what):
        assert part in str(failure.value)
    assert len(comparison.twin.episode_lengths) == 2
    comparison.check()


def test_an_agent_without_any_choice_in_a_branch_is_refused_before_anything_is_stored():
    worker = FakeWorker(HYBRID, random.Random(7))
    comparison = Comparison(HYBRID, 3, random.Random(8))
    nobody = TerminalSteps.empty(HYBRID)
    for _ in range(3):
        decision = decide_for_all(worker)
        worker.last = steps = worker.decision_steps([5, 6, 7])
        sizes = HYBRID.action_spec.discrete_branches
        given = steps.action_mask
        steps.action_mask = [np.zeros((3, size), dtype=bool) for size in sizes]
        steps.action_mask[0][:, 1:] = True  # one choice is enough
        assert comparison.manager.is_usable(steps, nobody)
        steps.action_mask[-1][1] = True
        with pytest.raises(UnityObservationException) as failure:
            comparison.manager.add_experiences(steps, nobody, 2, decision)
        steps.action_mask = given
        comparison.feed(steps, nobody, 2, decision)
    place = f"behavior {BEHAVIOR}, step 0, worker 2, agent 6, branch {len(sizes) - 1}, of {sizes[-1]} choices"
    assert place in str(failure.value)
    comparison.check()


def test_steps_that_were_approved_are_not_looked_at_again():
    worker = FakeWorker(CONTINUOUS, random.Random(9))
    manager = AgentManager(CONTINUOUS, BEHAVIOR, StatsReporter("collection"), 1)
    nobody = TerminalSteps.empty(CONTINUOUS)
    looked = []
    look = manager.is_usable
    manager.is_usable = lambda *steps: looked.append(steps) or look(*steps)
    steps = worker.decision_steps([0, 1])
    assert manager.approve(steps, nobody)
    manager.add_experiences(steps, nobody, 0, ActionInfo.empty())
    assert len(looked) == 1
    steps.reward[1] = np.nan  # by an environment that reuses its memory
    with pytest.raises(UnityObservationException):
        manager.add_experiences(steps, nobody, 0, ActionInfo.empty())
    assert not manager.approve(steps, nobody)
    with pytest.raises(UnityObservationException):
        manager.add_experiences(steps, nobody, 0, ActionInfo.empty())


@pytest.mark.filterwarnings("error")
def test_huge_finite_values_are_taken():
    worker = FakeWorker(CONTINUOUS, random.Random(9))
    manager = AgentManager(CONTINUOUS, BEHAVIOR, StatsReporter("collection"), 1)
    for _ in range(2):
        decision = decide_for_all(worker)
        worker.last = worker.decision_steps([0, 1])
        worker.last.obs[0].fill(np.finfo(np.float32).max)  # whose sum is infinite
        manager.add_experiences(worker.last, TerminalSteps.empty(CONTINUOUS), 0, decision)
    assert len(take_all(manager.trajectory_queue)) == 2


def test_memory_does_not_grow_with_episodes_of_ever_new_ids():
    worker = FakeWorker(HYBRID, random.Random(10))
    manager = AgentManager(HYBRID, BEHAVIOR, StatsReporter("collection"), 5)

    def live(first_id, n_episodes):
        for agent in range(first_id, first_id + n_episodes):
            decision = worker.decide()
            ended = worker.last.agent_id.tolist()[:1]
            worker.last = worker.decision_steps([agent, agent + 1, agent + 2])
            manager.add_experiences(worker.last, worker.terminal_steps(ended), 0, decision)
        n_trajectories = len(take_all(manager.trajectory_queue))
        StatsReporter.stats_dict.clear()
        return n_trajectories

    live(0, 50)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        assert live(50, 2000) > 1500
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000  # bytes; a slot's columns alone are 700, so leaking them would make over a million
