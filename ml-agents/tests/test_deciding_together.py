"""One forward for the agents of several workers: it decides as one forward per worker does."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from mlagents.torch_utils import nn
from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.env_manager import EnvironmentStep
from mlagents.trainers.policy.batching import split_decision
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.simple_env_manager import SimpleEnvManager
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents.trainers.trajectory import LogProbsTuple
from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
    DecisionSteps,
    TerminalSteps,
    vector_observation,
)
from mlagents_envs.exception import UnityPolicyException

OBSERVATIONS = [vector_observation(4, "position"), vector_observation(3, "speed")]
ACTION_SPECS = {
    "continuous": ActionSpec(2, ()),
    "discrete": ActionSpec(0, (3, 2)),
    "hybrid": ActionSpec(2, (3,)),
}
MEMORY = NetworkSettings.MemorySettings(sequence_length=4, memory_size=6)


@pytest.fixture(params=ACTION_SPECS)
def action_spec(request):
    return ACTION_SPECS[request.param]


def make_policy(action_spec, actor_cls=SimpleActor, policy_cls=TorchPolicy, memory=None, deterministic=True):
    """Return a policy; all that are made alike have the same parameters."""
    torch.manual_seed(0)
    settings = NetworkSettings(hidden_units=16, deterministic=deterministic, memory=memory)
    return policy_cls(0, BehaviorSpec(OBSERVATIONS, action_spec), settings, actor_cls, {})


def decisions(rng, agent_ids, masked_branches=()):
    """Return what agents see; they have masks where `masked_branches` has the branches' sizes."""
    n_agents = len(agent_ids)
    masks = [rng.random((n_agents, size)) < 0.5 for size in masked_branches]
    for mask in masks:
        mask[:, 1] = False  # a choice always remains
    return DecisionSteps(
        obs=[rng.normal(size=(n_agents, *spec.shape)).astype(np.float32) for spec in OBSERVATIONS],
        reward=rng.normal(size=n_agents).astype(np.float32),
        agent_id=np.array(agent_ids, dtype=np.int32),
        action_mask=masks or None,
        group_id=np.zeros(n_agents, dtype=np.int32),
        group_reward=np.zeros(n_agents, dtype=np.float32),
    )


def assert_same_decision(mine, theirs):
    assert list(mine.agent_ids) == list(theirs.agent_ids)
    assert mine.outputs.keys() == theirs.outputs.keys()
    pairs = [(mine.action, theirs.action), (mine.env_action, theirs.env_action)]
    pairs += [(mine.outputs[name], theirs.outputs[name]) for name in theirs.outputs]
    for one, other in pairs:
        if isinstance(other, (ActionTuple, LogProbsTuple)):
            assert type(one) is type(other)
            np.testing.assert_allclose(one.continuous, other.continuous, atol=1e-5, strict=True)
            np.testing.assert_allclose(one.discrete, other.discrete, atol=1e-5, strict=True)
        else:
            np.testing.assert_allclose(one, other, atol=1e-5, strict=True)


@pytest.mark.parametrize("memory", [None, MEMORY], ids=["without memory", "with memory"])
@pytest.mark.parametrize("in_torch", [False, True])
def test_deciding_for_all_workers_gives_what_deciding_for_each_gives(action_spec, memory, in_torch):
    """Round after round; workers are ready in any order, their agents have the same ids, come, go and begin anew."""
    together, apart = make_policy(action_spec, memory=memory), make_policy(action_spec, memory=memory)
    if in_torch:
        for policy in (together, apart):
            policy.actor.action_model.register_forward_hook(lambda module, args, output: None)
    rng = np.random.default_rng(1)
    n_joint_rounds = n_partly_masked = 0
    for _ in range(60):
        requests = []
        for worker_id in rng.permutation(4)[: rng.integers(0, 5)].tolist():
            agents = rng.permutation(6)[: rng.integers(0, 7)]
            branches = action_spec.discrete_branches if rng.random() < 0.5 else ()
            requests.append((worker_id, decisions(rng, agents, branches)))
        found = together.get_actions(requests)
        expected = [apart.get_action(steps, worker_id) for worker_id, steps in requests]
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected):
            assert_same_decision(mine, theirs)
        n_joint_rounds += sum(len(steps) > 0 for _, steps in requests) > 1
        n_partly_masked += len({steps.action_mask is None for _, steps in requests if len(steps)}) == 2
        if requests and rng.random() < 0.3:
            worker_id, steps = requests[0]
            for policy in (together, apart):
                policy.end_episodes(worker_id, steps.agent_id[:2])
    assert n_joint_rounds > 20
    assert n_partly_masked > 10 or not action_spec.discrete_size


class Recorder(nn.Module):
    """Does what it sees, and records it."""

    def __init__(self, observation_specs, network_settings, action_spec):
        super().__init__()
        self.calls = []

    def get_action_and_stats(self, inputs, masks=None, memories=None):
        self.calls.append((inputs[0].clone(), None if masks is None else masks.clone()))
        action = AgentAction(inputs[0][:, :2].clone(), None)
        return action, {"env_action": action.to_action_tuple(clip=False)}, memories


def two_workers(masked_branches=()):
    """Return the requests of worker 7, with agents 1 and 2, worker 5, with nobody, and worker 3, with agent 1."""
    rng = np.random.default_rng(0)
    return [(7, decisions(rng, [1, 2])), (5, decisions(rng, [])), (3, decisions(rng, [1], masked_branches))]


def test_the_actor_is_asked_once_and_everyone_gets_their_own():
    policy = make_policy(ACTION_SPECS["continuous"], Recorder)
    requests = two_workers()
    decided = policy.get_actions(requests)
    ((seen, _),) = policy.actor.calls
    assert seen.tolist() == [*requests[0][1].obs[0].tolist(), *requests[2][1].obs[0].tolist()]
    assert [list(decision.agent_ids) for decision in decided] == [[1, 2], [], [1]]
    for decision, (_, steps) in zip(decided, requests):
        if len(steps):
            assert decision.action.continuous.tolist() == steps.obs[0][:, :2].tolist()
            assert decision.env_action.continuous.tolist() == steps.obs[0][:, :2].tolist()


def test_workers_that_send_no_masks_forbid_nothing():
    policy = make_policy(ACTION_SPECS["discrete"], Recorder)
    requests = two_workers((3, 2))
    policy.get_actions(requests)
    ((_, allowed),) = policy.actor.calls
    forbidden = np.concatenate(requests[2][1].action_mask, axis=1)
    assert forbidden.any()
    np.testing.assert_array_equal(allowed, [[1] * 5, [1] * 5, *(~forbidden).astype(int)])


def test_nobody_waits_anywhere():
    policy = make_policy(ACTION_SPECS["continuous"], Recorder)
    rng = np.random.default_rng(0)
    decided = policy.get_actions([(0, decisions(rng, [])), (1, decisions(rng, []))])
    assert [len(decision.agent_ids) for decision in decided] == [0, 0]
    assert policy.get_actions([]) == []
    assert policy.actor.calls == []


def test_an_action_that_is_nan_is_refused_for_all():
    policy = make_policy(ACTION_SPECS["continuous"], Recorder)
    requests = two_workers()
    requests[2][1].obs[0][0, 0] = np.nan
    with pytest.raises(UnityPolicyException, match="NaN"):
        policy.get_actions(requests)


class OwnGetAction(TorchPolicy):
    """A plug-in's policy, with its own way to act."""

    def get_action(self, decision_requests, worker_id=0):
        decision = super().get_action(decision_requests, worker_id)
        return decision._replace(outputs={**decision.outputs, "worker": worker_id})


def test_a_policy_with_its_own_get_action_is_asked_worker_by_worker():
    policy = make_policy(ACTION_SPECS["continuous"], Recorder, OwnGetAction)
    decided = policy.get_actions(two_workers())
    assert [decision.outputs["worker"] for decision in decided] == [7, 5, 3]
    assert [len(seen) for seen, _ in policy.actor.calls] == [2, 1]


def test_a_get_action_that_was_put_on_the_policy_is_asked():
    policy = make_policy(ACTION_SPECS["continuous"], Recorder)
    asked = []
    policy.get_action = lambda decision_requests, worker_id=0: asked.append((worker_id, len(decision_requests)))
    policy.get_actions(two_workers())
    assert asked == [(7, 2), (5, 0), (3, 1)]


class OwnEvaluate(TorchPolicy):
    """A plug-in's policy, which looks at each agent and hands its ids on as a list."""

    def evaluate(self, decision_requests, global_agent_ids):
        self.seen = {
            name: decision_requests[agent_id].obs[0].tolist()
            for name, agent_id in zip(global_agent_ids, decision_requests)
        }
        return super().evaluate(decision_requests, list(global_agent_ids))


def test_a_policys_own_evaluate_is_told_whose_each_row_is():
    """Its memories are those of the agents, though it gives no more than their names."""
    policy = make_policy(ACTION_SPECS["continuous"], policy_cls=OwnEvaluate, memory=MEMORY)
    twin = make_policy(ACTION_SPECS["continuous"], memory=MEMORY)
    for _ in range(3):
        requests = two_workers()
        decided = policy.get_actions(requests)
        first, second, third = (*requests[0][1].obs[0].tolist(), *requests[2][1].obs[0].tolist())
        assert policy.seen == {"agent_7-1": first, "agent_7-2": second, "agent_3-1": third}
        for mine, (worker_id, steps) in zip(decided, requests):
            assert_same_decision(mine, twin.get_action(steps, worker_id))


class Extra(NamedTuple):
    """What some plug-in's actor gives beside its actions."""

    scores: torch.Tensor
    gain: float


def test_what_has_a_row_per_agent_is_split_and_the_rest_is_for_all():
    rng = np.random.default_rng(0)
    parts = [decisions(rng, [4, 9]), decisions(rng, [4])]
    rows = np.arange(6.0).reshape(3, 2)
    action = ActionTuple(rows, rows.astype(int))
    outputs = {
        "log_probs": LogProbsTuple(rows),
        "entropy": rows[:, 0],
        "tensor": torch.from_numpy(rows),
        "extra": Extra(torch.from_numpy(rows[:, 1]), 0.5),
        "probabilities": ActionLogProbs(torch.from_numpy(rows), [torch.from_numpy(rows)], None),
        "by name": {"left": [rows, rows[:, 1]], "right": None},
        "weights": np.ones(5),
        "sigma": np.array(0.3),
        "step": 12,
    }
    first, second = split_decision(ActionInfo(action, action, outputs, [0, 1, 2]), parts)
    for share, mine, agents in ((first, slice(0, 2), [4, 9]), (second, slice(2, 3), [4])):
        assert list(share.agent_ids) == agents
        for actions in (share.action, share.env_action):
            assert actions.continuous.tolist() == rows[mine].tolist()
            assert actions.discrete.tolist() == rows[mine].tolist()
        found = share.outputs
        assert found["log_probs"].continuous.tolist() == rows[mine].tolist()
        assert found["log_probs"].discrete.shape == (len(agents), 0)
        assert found["entropy"].tolist() == rows[mine, 0].tolist()
        assert found["tensor"].tolist() == rows[mine].tolist()
        assert found["extra"].scores.tolist() == rows[mine, 1].tolist()
        assert found["extra"].gain == 0.5
        assert found["probabilities"].continuous_tensor.tolist() == rows[mine].tolist()
        assert found["probabilities"].discrete_list[0].tolist() == rows[mine].tolist()
        assert [values.tolist() for values in found["by name"]["left"]] == [rows[mine].tolist(), rows[mine, 1].tolist()]
        assert found["by name"]["right"] is None
        for name in ("weights", "sigma", "step"):
            assert found[name] is outputs[name]


class ShoutingPolicy:
    """Records what it is asked, and answers with names."""

    def __init__(self, name):
        self.name = name
        self.asked = []

    def get_actions(self, requests):
        self.asked.append([(worker_id, steps.agent_id.tolist()) for worker_id, steps in requests])
        return [f"{self.name} in {worker_id}" for worker_id, _ in requests]


def test_a_manager_asks_each_policy_once_for_all_workers():
    manager = SimpleEnvManager(None, None)
    policies = {name: ShoutingPolicy(name) for name in ("Cat", "Dog")}
    for name, policy in policies.items():
        manager.set_policy(name, policy)
    rng = np.random.default_rng(0)
    nobody = TerminalSteps.empty(BehaviorSpec(OBSERVATIONS, ACTION_SPECS["continuous"]))

    def step(worker_id, **agents):
        return EnvironmentStep({name: (decisions(rng, ids), nobody) for name, ids in agents.items()}, worker_id, {}, {})

    steps = [step(2, Dog=[1], Cat=[2, 3]), step(0, Cat=[2]), step(1, Cow=[4]), EnvironmentStep.empty(3)]
    assert manager._decide(steps) == [{"Dog": "Dog in 2", "Cat": "Cat in 2"}, {"Cat": "Cat in 0"}, {}, {}]
    assert policies["Cat"].asked == [[(2, [2, 3]), (0, [2])]]
    assert policies["Dog"].asked == [[(2, [1])]]
