"""Policies and networks: what plug-ins put in place of ours, and when that is read."""

import numpy as np
import onnxruntime
import pytest
import torch

from mlagents.torch_utils import nn
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.action_model import ActionModel
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.layers import linear_layer
from mlagents.trainers.torch_entities.model_serialization import ModelSerializer
from mlagents.trainers.torch_entities.networks import SharedActorCritic, SimpleActor
from mlagents_envs.base_env import DecisionSteps

N_AGENTS = 4


class BodyWithMethodsOnly(nn.Module):
    """Stands for a `NetworkBody`, of which it has the methods and the memory's size."""

    memory_size = 0

    def __init__(self, width):
        super().__init__()
        self.layer = linear_layer(5, width)
        self.n_passes = 0
        self.normalized = []

    def forward(self, inputs, actions=None, memories=None, sequence_length=1):
        self.n_passes += 1
        return torch.tanh(self.layer(torch.cat(inputs, dim=1))), memories

    def update_normalization(self, buffer):
        self.normalized.append(buffer)

    def copy_normalization(self, other_network):
        pass


class AlwaysTheSame(nn.Module):
    """Stands for an `ActionModel`, of which it is none: C = 1 is 0.9, of branches of 3 and 2 the last choices."""

    clip_action = False

    def __init__(self):
        super().__init__()
        self.entropies = nn.Parameter(torch.tensor(0.25))

    def choose(self, inputs):
        rows = len(inputs)
        return AgentAction(torch.full((rows, 1), 0.9), [torch.full((rows, 1), choice) for choice in (2, 1)])

    def forward(self, inputs, masks):
        return self.choose(inputs), *self.evaluate(inputs, masks, None)

    def evaluate(self, inputs, masks, actions):
        rows = len(inputs)
        log_probs = ActionLogProbs(torch.zeros(rows, 1), [torch.zeros(rows), torch.zeros(rows)], None)
        return log_probs, self.entropies.expand(rows)


@pytest.fixture
def policy(spec):
    torch.manual_seed(0)
    return TorchPolicy(3, spec, NetworkSettings(hidden_units=5, num_layers=1), SimpleActor, {"conditional_sigma": True})


@pytest.fixture
def requests(spec):
    steps = DecisionSteps.empty(spec)
    rng = np.random.default_rng(0)
    steps.obs = [rng.normal(size=(N_AGENTS, *seen.shape)).astype(np.float32) for seen in spec.observation_specs]
    steps.agent_id = np.arange(N_AGENTS, dtype=np.int32)
    steps.reward = steps.group_reward = np.zeros(N_AGENTS, dtype=np.float32)
    steps.group_id = np.zeros(N_AGENTS, dtype=np.int32)
    return steps


def actor_of(spec, **network):
    return SimpleActor(
        spec.observation_specs, NetworkSettings(hidden_units=5, num_layers=1, **network), spec.action_spec
    )


def test_a_policy_is_made_by_position(policy, spec):
    assert isinstance(policy.actor, SimpleActor)
    assert policy.behavior_spec is spec
    assert policy.seed == 3
    assert policy.actor.action_model._continuous_distribution.conditional_sigma


class TestAPartReplacedAfterTheFirstDecision:
    """Nothing of the old part is remembered."""

    def test_network_body(self, policy, requests, make_trajectory):
        policy.get_action(requests)
        policy.actor.network_body = body = BodyWithMethodsOnly(5)
        policy.get_action(requests)
        assert body.n_passes == 1
        buffer = make_trajectory(3).to_agentbuffer()
        policy.actor.update_normalization(buffer)
        assert body.normalized == [buffer]

    def test_network_body_and_encoding_size(self, policy, requests, spec):
        policy.get_action(requests)
        policy.actor.network_body = BodyWithMethodsOnly(9)
        policy.actor.encoding_size = 9
        policy.actor.action_model = ActionModel(policy.actor.encoding_size, spec.action_spec)
        assert policy.get_action(requests).env_action.continuous.shape == (N_AGENTS, 1)

    def test_action_model(self, policy, requests):
        policy.get_action(requests)
        policy.actor.action_model = AlwaysTheSame()
        decided = policy.get_action(requests)
        np.testing.assert_allclose(decided.env_action.continuous, 0.9)
        np.testing.assert_array_equal(decided.env_action.discrete, [[2, 1]] * N_AGENTS)
        np.testing.assert_allclose(decided.outputs["entropy"], 0.25)

    def test_actor(self, policy, requests, spec):
        policy.get_action(requests)
        policy.actor = actor_of(spec, deterministic=True)
        first, second = policy.get_action(requests), policy.get_action(requests)
        np.testing.assert_array_equal(first.action.continuous, second.action.continuous)

    def test_what_an_exported_model_says_of_itself(self, policy, tmp_path):
        policy.actor.network_body = BodyWithMethodsOnly(5)
        policy.actor.version_number = nn.Parameter(torch.Tensor([2.0]), requires_grad=False)
        policy.actor.memory_size_vector = nn.Parameter(torch.Tensor([6.0]), requires_grad=False)
        path = tmp_path / "model.onnx"
        ModelSerializer(policy).export_policy_model(str(path))
        session = onnxruntime.InferenceSession(str(path))
        obs = {f"obs_{i}": np.zeros((2, size), dtype=np.float32) for i, size in enumerate((2, 3))}
        masks = {"action_masks": np.ones((2, 5), dtype=np.float32)}
        assert [value.item() for value in session.run(["version_number", "memory_size"], {**obs, **masks})] == [2, 6]

    def test_the_body_of_a_shared_critic(self, spec):
        actor = SharedActorCritic(
            spec.observation_specs, NetworkSettings(hidden_units=5), spec.action_spec, ["extrinsic"]
        )
        actor.network_body = body = BodyWithMethodsOnly(5)
        values, _ = actor.critic_pass([torch.zeros(3, 2), torch.zeros(3, 3)])
        assert values["extrinsic"].shape == (3,)
        assert body.n_passes == 1

    def test_the_method_of_one_actor(self, policy, requests):
        policy.get_action(requests)
        calls = []
        original = policy.actor.get_action_and_stats

        def counting(*args, **kwargs):
            calls.append(kwargs)
            return original(*args, **kwargs)

        policy.actor.get_action_and_stats = counting
        policy.get_action(requests)
        assert len(calls) == 1


class Counter(nn.Module):
    """A plain module with an actor's methods, all of it: it counts decisions in a memory of `size`."""

    def __init__(self, observation_specs, network_settings, action_spec, size=1):
        super().__init__()
        self.size = size
        self.unused = nn.Parameter(torch.zeros(1))
        self.modes = []

    def get_action_and_stats(self, obs, masks=None, memories=None):
        rows = len(obs[0])
        self.modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
        self.kept = self.unused * obs[0]
        action = AgentAction(torch.zeros(rows, 1), [torch.zeros(rows, 1, dtype=torch.long)] * 2)
        after = None if memories is None else memories + 1
        return action, {"env_action": action.to_action_tuple()}, after


class TestAnActorThatIsAPlainModule:
    @pytest.fixture
    def policy(self, spec):
        return TorchPolicy(0, spec, NetworkSettings(), Counter, {})

    def test_run_out_may_lack_all_but_the_action(self, policy, requests):
        decided = policy.get_action(requests)
        assert "log_probs" not in decided.outputs
        assert "entropy" not in decided.outputs
        assert decided.env_action.discrete.shape == (N_AGENTS, 2)

    def test_it_acts_under_no_grad_and_not_in_inference_mode(self, policy, requests):
        policy.get_action(requests)
        assert policy.actor.modes == [(False, False)]
        weight = torch.ones(1, requires_grad=True)
        (policy.actor.kept * weight).sum().backward()  # of a tensor of inference mode it could not be asked
        assert weight.grad is not None

    def test_a_subclass_of_ours_is_treated_as_a_plugins_too(self, spec, requests):
        modes = []

        class Own(SimpleActor):
            def get_action_and_stats(self, *args, **kwargs):
                modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
                return super().get_action_and_stats(*args, **kwargs)

        TorchPolicy(0, spec, NetworkSettings(), Own, {}).get_action(requests)
        assert modes == [(False, False)]

    @pytest.mark.parametrize("size", [1, 3])
    def test_a_policy_may_become_recurrent_after_it_is_made(self, policy, requests, size):
        policy.get_action(requests)
        policy.use_recurrent = True
        policy.m_size = size
        before = [policy.get_action(requests).outputs["memory_in"] for _ in range(3)]
        for n_decisions, memories in enumerate(before):
            np.testing.assert_array_equal(memories, np.full((N_AGENTS, size), n_decisions))

    def test_and_stop_being_so(self, policy, requests):
        policy.use_recurrent, policy.m_size = True, 1
        policy.get_action(requests)
        policy.use_recurrent = False
        assert "memory_in" not in policy.get_action(requests).outputs

    def test_memories_reach_the_exported_model(self, policy):
        policy.use_recurrent, policy.m_size = True, 1
        serializer = ModelSerializer(policy)
        assert serializer.output_names[-1] == "recurrent_out"
        assert serializer.dummy_input[2].shape == (1, 1, 1)
