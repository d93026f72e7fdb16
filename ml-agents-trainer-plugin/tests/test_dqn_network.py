"""DQN's network: how agents explore, what they never do, and the model that is exported."""

from itertools import pairwise, product

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.model_serialization import ModelSerializer
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, vector_observation
from mlagents_trainer_plugin.dqn.dqn_optimizer import QNetwork

# What Unity's importer is known to take.
OPERATORS = """
Add ArgMax Cast Clip Concat Constant Div Equal Exp Expand Flatten Gather Gemm Identity Less Log MatMul Mul Neg Pow
ReduceMean ReduceSum Relu Reshape Shape Sigmoid Slice Softmax Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where
"""


def make_policy(branches=(3,), streams=("extrinsic",), sizes=(4,), exploration=0.0, **network_settings):
    spec = BehaviorSpec(
        [vector_observation(size, f"vector {size}") for size in sizes], ActionSpec.create_discrete(branches)
    )
    settings = NetworkSettings(**{"hidden_units": 8, "num_layers": 1, **network_settings})
    policy = TorchPolicy(0, spec, settings, QNetwork, {"stream_names": list(streams)})
    policy.actor.exploration_rate = lambda: exploration
    return policy


def decisions(policy, n_agents, forbidden=None):
    """Requests of agents that all see the same, with what each branch forbids to each agent."""
    obs = [np.full((n_agents, spec.shape[0]), 0.3, dtype=np.float32) for spec in policy.behavior_spec.observation_specs]
    ids, nothing = np.arange(n_agents, dtype=np.int32), np.zeros(n_agents, dtype=np.float32)
    return DecisionSteps(obs, nothing, ids, forbidden, np.zeros(n_agents, dtype=np.int32), nothing)


def act(policy, n_agents, forbidden=None):
    info = policy.get_action(decisions(policy, n_agents, forbidden))
    np.testing.assert_array_equal(info.action.discrete, info.env_action.discrete)
    assert info.action.discrete.shape == (n_agents, len(policy.behavior_spec.action_spec.discrete_branches))
    return info.action.discrete


def test_without_exploration_all_agents_take_the_best():
    policy = make_policy(branches=(3, 4))
    obs = [torch.full((1, 4), 0.3)]
    (q_values,) = policy.actor.q_values(obs).values()
    best = [q_values[0, :3].argmax().item(), q_values[0, 3:].argmax().item()]
    assert (act(policy, 50) == best).all()


def test_each_agent_draws_for_itself():
    policy = make_policy(branches=(4,), exploration=0.4)
    (best,) = act(make_greedy(policy), 1)[0]
    counts = np.bincount(act(policy, 10_000)[:, 0], minlength=4)
    # A random action is the best one in a quarter of the cases; standard deviations are below 50.
    assert counts[best] == pytest.approx(7000, abs=200)
    for other in set(range(4)) - {best}:
        assert counts[other] == pytest.approx(1000, abs=150)


def make_greedy(policy):
    greedy = make_policy(policy.behavior_spec.action_spec.discrete_branches)
    greedy.actor.load_state_dict(policy.actor.state_dict())
    return greedy


def test_an_agent_that_explores_does_so_in_all_branches_at_once():
    policy = make_policy(branches=(10, 10), exploration=0.5)
    best = act(make_greedy(policy), 1)[0]
    is_best = act(policy, 10_000) == best
    # Both are best when the agent does not explore, or by chance (1 in 100); one alone only by chance.
    assert is_best.all(axis=1).mean() == pytest.approx(0.5 + 0.5 / 100, abs=0.02)
    assert (is_best[:, 0] & ~is_best[:, 1]).mean() == pytest.approx(0.5 * 0.1 * 0.9, abs=0.01)


@pytest.mark.parametrize("exploration", [0.0, 0.5, 1.0])
def test_what_is_forbidden_is_never_done(exploration):
    policy = make_policy(branches=(3, 4), exploration=exploration)
    random = np.random.default_rng(0)
    forbidden = [random.random((5000, size)) < 0.6 for size in (3, 4)]
    for branch in forbidden:
        branch[branch.all(axis=1), 1] = False
    chosen = act(policy, 5000, forbidden)
    for branch in range(2):
        assert not forbidden[branch][np.arange(5000), chosen[:, branch]].any()


def test_exploration_takes_all_that_is_allowed_alike():
    policy = make_policy(branches=(4,), exploration=1.0)
    forbidden = [np.tile([False, True, False, False], (9000, 1))]
    counts = np.bincount(act(policy, 9000, forbidden)[:, 0], minlength=4)
    assert counts[1] == 0
    assert counts[[0, 2, 3]] == pytest.approx([3000] * 3, abs=200)


def test_the_streams_act_by_their_sum():
    policy = make_policy(streams=("extrinsic", "rnd"))
    with torch.no_grad():
        for name, biases in [("extrinsic", [3.0, 2.0, 0.0]), ("rnd", [0.0, 2.0, 3.0])]:
            head = policy.actor.q_heads.value_heads[name]
            head.weight.zero_()
            head.bias.copy_(torch.tensor(biases))
    assert act(policy, 3).tolist() == [[1], [1], [1]]


@pytest.mark.parametrize("branches", [(3,), (2, 5), (1,)])
@pytest.mark.parametrize("streams", [("extrinsic",), ("extrinsic", "rnd")])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_exported_model_acts_like_the_network(tmp_path, branches, streams, normalize):
    policy = make_policy(branches, streams, sizes=(4, 2), normalize=normalize, exploration=1.0)
    path = tmp_path / "model.onnx"
    ModelSerializer(policy).export_policy_model(str(path))
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {node.op_type for node in model.graph.node} <= set(OPERATORS.split())

    random = np.random.default_rng(1)
    n_choices = sum(branches)
    masks = (random.random((200, n_choices)) < 0.7).astype(np.float32)
    for start, end in pairwise(np.cumsum([0, *branches])):
        masks[~masks[:, start:end].any(axis=1), start] = 1.0
    inputs = {f"obs_{i}": random.normal(size=(200, size)).astype(np.float32) for i, size in enumerate((4, 2))}
    session = onnxruntime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {**inputs, "action_masks": masks})))
    with torch.no_grad():
        expected = policy.actor([torch.tensor(values) for values in inputs.values()], torch.tensor(masks))[2].numpy()
    np.testing.assert_array_equal(outputs["deterministic_discrete_actions"], expected)
    np.testing.assert_array_equal(outputs["discrete_actions"], expected)
    assert outputs["discrete_actions"].dtype == np.int64
    np.testing.assert_array_equal(outputs["version_number"], [3])
    np.testing.assert_array_equal(outputs["memory_size"], [0])
    np.testing.assert_array_equal(outputs["discrete_action_output_shape"], [branches])
    if n_choices > 1:
        assert len(set(map(tuple, expected))) > 1  # not one action for all


def test_every_choice_is_valued():
    policy = make_policy(branches=(2, 3))
    values = policy.actor.q_values([torch.randn(7, 4)])
    assert {name: tuple(of_stream.shape) for name, of_stream in values.items()} == {"extrinsic": (7, 5)}
    combinations = {tuple(row) for row in act(make_policy(branches=(2, 3), exploration=1.0), 500).tolist()}
    assert combinations == set(product(range(2), range(3)))
