"""What agents of a recurrent policy remember: kept against a naive twin, and given to actors and taken from them."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlagents.torch_utils import nn
from mlagents.trainers.behavior_id_utils import GlobalAgentIds
from mlagents.trainers.policy.agent_memories import AgentMemories
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, vector_observation
from mlagents_envs.exception import UnityPolicyException

# `AgentMemories`.


def agents_of(*by_worker):
    """Return the ids of ``(worker id, its agents)``, ..."""
    return GlobalAgentIds(*((worker_id, np.array(agents, dtype=np.int32)) for worker_id, agents in by_worker))


class NaiveMemories:
    """A dictionary of vectors per worker, all of one size."""

    def __init__(self):
        self.workers = {}

    def get(self, worker_id, agent_ids, size):
        known = self.workers.get(worker_id, {})
        memories = [known.get(agent_id, []) for agent_id in agent_ids]
        return [[0.0] * size if len(memory) != size else memory for memory in memories]

    def set(self, worker_id, agent_ids, memories):
        known = self.workers.setdefault(worker_id, {})
        for agent_id in [a for a, memory in known.items() if len(memory) != len(memories[0])]:
            del known[agent_id]
        known.update(zip(agent_ids, memories))

    def forget(self, worker_id, agent_ids):
        for agent_id in agent_ids:
            self.workers.get(worker_id, {}).pop(agent_id, None)

    def clear(self):
        self.workers.clear()


AGENTS = st.lists(st.integers(0, 5), min_size=1, unique=True)
BY_WORKER = st.dictionaries(st.integers(0, 2), AGENTS, min_size=1).map(lambda by_worker: list(by_worker.items()))
SIZES = st.sampled_from([2, 2, 2, 2, 0, 3])
CALLS = st.one_of(
    st.tuples(st.just("decide"), BY_WORKER, SIZES),
    st.tuples(st.just("decide again")),
    st.tuples(st.just("forget"), st.integers(0, 2), AGENTS),
    st.tuples(st.just("clear")),
)


@given(st.lists(CALLS, max_size=40))
def test_any_sequence_of_calls_gives_what_the_naive_twin_gives(calls):
    memories, twin = AgentMemories(), NaiveMemories()
    by_worker, size = [(1, [4, 1])], 2
    for n_calls, (what, *where) in enumerate(calls):
        if what == "clear":
            memories.clear()
            twin.clear()
        elif what == "forget":
            memories.forget(where[0], np.array(where[1]))
            twin.forget(*where)
        else:
            if what == "decide":
                by_worker, size = where
            found = memories.get(agents_of(*by_worker), size)
            n_agents = sum(len(agents) for _, agents in by_worker)
            assert (found.shape, found.dtype) == ((n_agents, size), np.float32)
            assert found.tolist() == [memory for of_worker in by_worker for memory in twin.get(*of_worker, size)]
            new = [[100.0 * n_calls + 10 * row + i for i in range(size)] for row in range(n_agents)]
            memories.set(agents_of(*by_worker), np.array(new, dtype=np.float32))
            rows = iter(new)
            for worker_id, agents in by_worker:
                twin.set(worker_id, agents, [next(rows) for _ in agents])


def test_memories_are_those_of_the_moment():
    """Neither the arrays given nor those handed out are tied to what is kept."""
    memories = AgentMemories()
    ids, rows = np.array([7, 8], dtype=np.int32), np.array([[1.0], [2.0]], dtype=np.float32)
    memories.set(GlobalAgentIds((0, ids)), rows)
    ids += 1
    rows += 10
    both = agents_of((0, [7, 8]))
    first = memories.get(both, 1)
    assert first.tolist() == [[1], [2]]
    memories.set(both, rows)
    memories.forget(0, [7])
    assert first.tolist() == [[1], [2]]
    assert memories.get(both, 1).tolist() == [[0], [12]]
    with pytest.raises(ValueError, match="read-only"):
        first += 1


def test_the_same_agents_get_what_is_kept_without_a_copy():
    memories = AgentMemories()
    memories.set(agents_of((0, [3, 1])), np.ones((2, 4)))
    assert memories.get(agents_of((0, [3, 1])), 4) is memories.get(agents_of((0, [3, 1])), 4)


def test_agents_that_are_forgotten_leave_nothing_behind():
    memories = AgentMemories()
    sizes = set()
    for agent in range(1000, 1100):
        memories.set(agents_of((0, [agent, agent + 1])), np.zeros((2, 8)))
        memories.forget(0, [agent])
        sizes.add(len(pickle.dumps(memories)))
    assert len(sizes) == 1


# `TorchPolicy`.


class Counter(nn.Module):
    """Its agents remember how many decisions they have made, and ten times that, in the tensor that it was given.

    :param after: what it makes of that tensor before it gives it back.
    """

    def __init__(self, observation_specs, network_settings, action_spec, after=lambda memories: memories):
        super().__init__()
        self.after = after

    def get_action_and_stats(self, inputs, masks=None, memories=None):
        assert memories.dtype == torch.float32
        memories += torch.tensor([1.0, 10.0])[: memories.shape[-1]]
        action = AgentAction(torch.zeros(len(inputs[0]), 2), None)
        return action, {"env_action": action.to_action_tuple(clip=False)}, self.after(memories)


def make_policy(action_spec, actor_cls, actor_kwargs, memory_size=2, **settings):
    memory = NetworkSettings.MemorySettings(sequence_length=4, memory_size=memory_size)
    settings = NetworkSettings(memory=memory, hidden_units=8, **settings)
    return TorchPolicy(0, BehaviorSpec([vector_observation(3, "tilt")], action_spec), settings, actor_cls, actor_kwargs)


def counting_policy(**actor_kwargs):
    return make_policy(ActionSpec(2, ()), Counter, actor_kwargs)


def decisions(n_agents, seed=0):
    """Return the decision steps of agents 10, 11, ..."""
    zeros = np.zeros(n_agents, dtype=np.float32)
    obs = np.random.default_rng(seed).standard_normal((n_agents, 3)).astype(np.float32)
    ids = np.arange(10, 10 + n_agents, dtype=np.int32)
    return DecisionSteps([obs], zeros, ids, None, zeros.astype(np.int32), zeros)


def remembered(policy, n_agents, worker_id=0):
    """Decide for agents 10, 11, ...; return what they remembered before."""
    memory = policy.get_action(decisions(n_agents), worker_id).outputs["memory_in"]
    assert memory.dtype == np.float32
    return memory.tolist()


def test_agents_of_a_recurrent_policy_remember():
    policy = counting_policy()
    assert (policy.use_recurrent, policy.m_size, policy.sequence_length) == (True, 2, 4)
    assert remembered(policy, 2) == [[0, 0], [0, 0]]
    assert remembered(policy, 3) == [[1, 10], [1, 10], [0, 0]]
    assert remembered(policy, 1) == [[2, 20]]
    assert remembered(policy, 3) == [[3, 30], [2, 20], [1, 10]]


def test_the_same_id_in_another_worker_is_another_agent():
    policy = counting_policy()
    assert remembered(policy, 1, worker_id=0) == [[0, 0]]
    assert remembered(policy, 1, worker_id=1) == [[0, 0]]
    policy.end_episodes(0, np.array([10]))
    assert remembered(policy, 1, worker_id=1) == [[1, 10]]
    assert remembered(policy, 1, worker_id=0) == [[0, 0]]


def test_episodes_begin_without_memory():
    policy = counting_policy()
    remembered(policy, 3)
    policy.end_episodes(0, np.array([11, 99]))
    assert remembered(policy, 3) == [[1, 10], [0, 0], [1, 10]]
    policy.end_all_episodes()
    assert remembered(policy, 3) == [[0, 0]] * 3


@pytest.mark.filterwarnings("error")
def test_what_was_remembered_is_not_changed_by_what_comes_after():
    """Though this actor writes into the tensors that it gets, and gave last."""
    policy = counting_policy()
    given = [policy.get_action(decisions(1)).outputs for _ in range(3)]
    assert [outputs["memory_in"].tolist() for outputs in given] == [[[0, 0]], [[1, 10]], [[2, 20]]]
    assert [outputs["memory_out"].tolist() for outputs in given] == [[[1, 10]], [[2, 20]], [[3, 30]]]


def test_an_actor_may_give_no_memories():
    policy = counting_policy(after=lambda memories: None)
    for _ in range(2):
        assert remembered(policy, 2) == [[0, 0], [0, 0]]


def test_the_size_of_memories_may_be_reassigned_at_any_time():
    policy = counting_policy()
    remembered(policy, 1)
    assert remembered(policy, 1) == [[1, 10]]
    policy.m_size = 1
    assert remembered(policy, 1) == [[0]]
    assert remembered(policy, 1) == [[1]]


def test_a_policy_that_is_not_recurrent_has_no_memories():
    """Whatever its actor gives."""
    policy = make_policy(ActionSpec(2, ()), Counter, {})
    policy.use_recurrent = False
    given = []

    def act(inputs, masks, memories):
        given.append(memories)
        action = AgentAction(torch.zeros(len(inputs[0]), 2), None)
        return action, {"env_action": action.to_action_tuple(clip=False)}, torch.ones(1, len(inputs[0]), 2)

    policy.actor.get_action_and_stats = act
    for _ in range(2):
        assert policy.get_action(decisions(5)).outputs.keys() == {"action", "env_action"}
    assert given == [None, None]


@pytest.mark.parametrize(
    ("after", "shape"),
    [
        (lambda memories: memories[0], r"\(3, 2\)"),
        (lambda memories: memories[:, :2], r"\(1, 2, 2\)"),
        (lambda memories: torch.cat([memories, memories], dim=-1), r"\(1, 3, 4\)"),
    ],
)
def test_memories_of_a_wrong_shape_are_refused(after, shape):
    policy = counting_policy(after=after)
    with pytest.raises(UnityPolicyException, match=rf"of shape {shape} for 3 agents.*m_size 2 .* be \(1, 3, 2\)"):
        policy.get_action(decisions(3))


def test_a_memory_that_is_nan_raises():
    policy = counting_policy(after=lambda memories: memories / torch.tensor([1.0, 0.0]) * torch.tensor([1.0, 0.0]))
    with pytest.raises(UnityPolicyException, match="a memory that is NaN"):
        policy.get_action(decisions(5))


@pytest.mark.parametrize("action_spec", [ActionSpec(2, ()), ActionSpec(0, (3, 2)), ActionSpec(2, (3,))])
def test_deciding_step_by_step_gives_what_the_network_gives_for_the_sequence(action_spec):
    torch.manual_seed(0)
    policy = make_policy(action_spec, SimpleActor, {}, memory_size=6, deterministic=True)
    steps = [decisions(3, seed) for seed in range(4)]
    given = [policy.get_action(step) for step in steps]
    sequences = torch.from_numpy(np.stack([step.obs[0] for step in steps], axis=1).reshape(12, 3))
    with torch.no_grad():
        action, run_out, memories = policy.actor.get_action_and_stats(
            [sequences],
            masks=torch.ones(12, sum(action_spec.discrete_branches)),
            memories=torch.zeros(1, 3, 6),
            sequence_length=4,
        )
    actions = action.to_action_tuple()
    for t, decision in enumerate(given):
        np.testing.assert_allclose(decision.action.continuous, actions.continuous[t::4], atol=1e-6)
        np.testing.assert_array_equal(decision.action.discrete, actions.discrete[t::4])
        np.testing.assert_allclose(decision.outputs["entropy"], run_out["entropy"][t::4], atol=1e-6)
    np.testing.assert_array_equal(given[0].outputs["memory_in"], np.zeros((3, 6)))
    np.testing.assert_allclose(given[3].outputs["memory_out"], memories[0], atol=1e-6)
    assert np.abs(given[3].outputs["memory_out"]).min() > 1e-3
