"""Shapes, as plug-ins count on them. B rows, C = 1 continuous action, branches of 3 and 2 (D = 2), A = 3."""

import numpy as np
import pytest
import torch

from mlagents.torch_utils import nn
from mlagents.trainers.buffer import BufferKey
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.networks import SharedActorCritic, SimpleActor, ValueNetwork
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents_envs.base_env import DecisionSteps

B, A, M = 5, 3, 6


@pytest.fixture(params=[False, True], ids=["", "memory"])
def network_settings(request):
    memory = NetworkSettings.MemorySettings(sequence_length=4, memory_size=M) if request.param else None
    return NetworkSettings(hidden_units=7, num_layers=1, memory=memory)


@pytest.fixture
def memories(network_settings):
    return None if network_settings.memory is None else torch.zeros(1, B, M)


@pytest.fixture
def actor(spec, network_settings):
    torch.manual_seed(0)
    return SharedActorCritic(spec.observation_specs, network_settings, spec.action_spec, ["extrinsic", "own"])


@pytest.fixture
def obs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, size, generator=generator) for size in (2, 3)]


def test_acting(actor, obs, memories):
    action, run_out, after = actor.get_action_and_stats(obs, masks=torch.ones(B, 5), memories=memories)
    assert action.continuous_tensor.shape == (B, 1)
    assert [(choice.shape, choice.dtype) for choice in action.discrete_list] == [((B, 1), torch.int64)] * 2
    assert run_out["env_action"].continuous.shape == (B, 1)
    assert run_out["env_action"].discrete.shape == (B, 2)
    assert run_out["log_probs"].flatten().shape == (B, A)
    assert run_out["entropy"].shape == (B,)
    assert (None if after is None else after.shape) == (None if memories is None else (1, B, M))


def test_values_and_evaluated_actions(actor, obs, memories, spec, network_settings):
    critic = ValueNetwork(["extrinsic", "own"], spec.observation_specs, network_settings)
    for values, after in (actor.critic_pass(obs, memories=memories), critic.critic_pass(obs, memories=memories)):
        assert {name: value.shape for name, value in values.items()} == {"extrinsic": (B,), "own": (B,)}
        assert (None if after is None else after.shape) == (None if memories is None else (1, B, M))
    for shape in ((B,), (B, 1)):
        choices = [torch.zeros(shape, dtype=torch.long)] * 2
        stats = actor.get_stats(obs, AgentAction(torch.zeros(B, 1), choices), masks=torch.ones(B, 5), memories=memories)
        assert stats["log_probs"].flatten().shape == (B, A)
        assert stats["entropy"].shape == (B,)


def test_memories_are_one_per_sequence(spec):
    settings = NetworkSettings(memory=NetworkSettings.MemorySettings(sequence_length=4, memory_size=M))
    actor = SimpleActor(spec.observation_specs, settings, spec.action_spec)
    rows = 3 * 4
    obs = [torch.zeros(rows, 2), torch.zeros(rows, 3)]
    _, _, after = actor.get_action_and_stats(obs, torch.ones(rows, 5), memories=torch.zeros(1, 3, M), sequence_length=4)
    assert after.shape == (1, 3, M)


def test_actions_from_a_buffer_are_flat_and_both_forms_become_an_action_tuple(make_trajectory):
    buffer = make_trajectory(B).to_agentbuffer()
    stored = AgentAction.from_buffer(buffer)
    assert stored.continuous_tensor.shape == (B, 1)
    assert [choice.shape for choice in stored.discrete_list] == [(B,), (B,)]
    sampled = AgentAction(stored.continuous_tensor, [choice.unsqueeze(1) for choice in stored.discrete_list])
    for action in (stored, sampled):
        as_tuple = action.to_action_tuple()
        np.testing.assert_array_equal(as_tuple.continuous, buffer[BufferKey.CONTINUOUS_ACTION])
        np.testing.assert_array_equal(as_tuple.discrete, buffer[BufferKey.DISCRETE_ACTION])
    assert ActionLogProbs.from_buffer(buffer).flatten().shape == (B, A)


def test_the_ratio_is_per_action_dimension():
    """Of the dimensions one doubles its probability, clipped to 1.2, and one halves it, clipped to 0.8.

    For an advantage of 1 the smaller of ratio and clipped ratio counts: 1.2 and 0.5, on average 0.85. For -1 it is
    -2 and -0.8, on average -1.4. The loss is minus the mean of the two rows, 0.275. One ratio per row, 2 * 0.5,
    would give 0.
    """
    new = torch.log(torch.tensor([[2.0, 0.5], [2.0, 0.5]]))
    loss = ModelUtils.trust_region_policy_loss(
        torch.tensor([1.0, -1.0]), new, torch.zeros(2, 2), torch.ones(2, dtype=torch.bool), 0.2
    )
    assert loss.item() == pytest.approx(0.275)


class MaskRecorder(nn.Module):
    def __init__(self, observation_specs, network_settings, action_spec):
        super().__init__()
        self.masks = []

    def get_action_and_stats(self, obs, masks, memories):
        self.masks.append(masks.numpy())
        action = AgentAction(torch.zeros(len(masks), 1), [torch.zeros(len(masks), 1, dtype=torch.long)] * 2)
        return action, {"env_action": action.to_action_tuple()}, memories


def test_masks_forbid_in_steps_and_allow_in_networks_and_buffers(spec, make_trajectory):
    steps = DecisionSteps.empty(spec)
    steps.obs = [np.zeros((2, 2), dtype=np.float32), np.zeros((2, 3), dtype=np.float32)]
    steps.agent_id = np.arange(2, dtype=np.int32)
    steps.action_mask = [np.array([[True, False, False]] * 2), np.array([[False, True]] * 2)]
    policy = TorchPolicy(0, spec, NetworkSettings(), MaskRecorder, {})
    policy.get_action(steps)
    steps.action_mask = None
    policy.get_action(steps)
    with_mask, without = policy.actor.masks
    np.testing.assert_array_equal(with_mask, [[0, 1, 1, 1, 0]] * 2)
    np.testing.assert_array_equal(without, np.ones((2, 5)))

    lived = make_trajectory(2)
    lived.steps[1].action_mask[0][2] = True
    again = type(lived)(steps=lived.steps, next_obs=lived.next_obs, next_group_obs=[], agent_id="a", behavior_id="b")
    buffer = again.to_agentbuffer()
    np.testing.assert_array_equal(buffer[BufferKey.ACTION_MASK], [[1, 1, 1, 1, 1], [1, 1, 0, 1, 1]])


def test_a_masked_choice_is_never_made(actor, obs, memories):
    masks = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]] * B)
    for _ in range(10):
        action, _, _ = actor.get_action_and_stats(obs, masks=masks, memories=memories)
        assert (action.discrete_tensor.reshape(B, 2) == torch.tensor([2, 0])).all()
