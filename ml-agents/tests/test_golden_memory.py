"""What ML-Agents 1.1.0 computed with memory, from an image and a vector, our networks compute too.

5 agents; sequences of 8 steps.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.losses import masked_mean, trust_region_policy_loss, trust_region_value_loss
from mlagents.trainers.torch_entities.networks import SimpleActor, ValueNetwork
from mlagents_envs.base_env import (
    ActionSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    vector_observation,
)

ARRAYS = dict(np.load(Path(__file__).parent / "data" / "golden" / "ppo_image_lstm_hybrid.npz", allow_pickle=False))
SETTINGS = NetworkSettings(
    hidden_units=32, normalize=True, memory=NetworkSettings.MemorySettings(sequence_length=8, memory_size=16)
)
MOVES = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
IMAGE = ObservationSpec((3, 84, 84), (DimensionProperty.NONE, MOVES, MOVES), ObservationType.DEFAULT, "image")
OBSERVATIONS = [IMAGE, vector_observation(4, "vector")]
STEPS = pytest.mark.parametrize(("prefix", "sequence_length"), [("", 1), ("seq_", 8)], ids=["a step", "sequences"])


def given(name):
    return torch.from_numpy(ARRAYS[f"in/{name}"])


def close(ours, recorded):
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
    assert ours.shape == ARRAYS[recorded].shape
    np.testing.assert_allclose(ours, ARRAYS[recorded], rtol=1e-5, atol=1e-5)


def state(module):
    prefix = f"state/{module}/"
    return {key[len(prefix) :]: torch.from_numpy(value) for key, value in ARRAYS.items() if key.startswith(prefix)}


def loaded(network, module):
    """Load the recorded weights; keys and their order have to be the recorded ones."""
    recorded = state(module)
    assert list(network.state_dict()) == list(recorded)
    network.load_state_dict(recorded)
    return network


def obs(prefix=""):
    return [given(f"{prefix}obs_0"), given(f"{prefix}obs_1")]


@pytest.fixture
def actor():
    return loaded(SimpleActor(OBSERVATIONS, SETTINGS, ActionSpec(2, (3,))), "Policy")


@pytest.fixture
def critic():
    return loaded(ValueNetwork(["extrinsic"], OBSERVATIONS, SETTINGS), "Optimizer:critic")


@STEPS
def test_the_body_and_its_memory(actor, prefix, sequence_length):
    close(actor.network_body.observation_encoder(obs(prefix)), f"out/{prefix}observation_encoding")
    features, memories = actor.network_body(obs(prefix), memories=given("memory"), sequence_length=sequence_length)
    close(features, f"out/{prefix}encoding")
    close(memories, f"out/{prefix}memory")


@STEPS
def test_the_actor(actor, prefix, sequence_length):
    action = AgentAction(given(f"{prefix}continuous_action"), list(given(f"{prefix}discrete_action").unbind(1)))
    stats = actor.get_stats(
        obs(prefix),
        action,
        masks=given(f"{prefix}action_mask"),
        memories=given("memory"),
        sequence_length=sequence_length,
    )
    close(stats["log_probs"].flatten(), f"out/{prefix}log_prob_flat")
    close(stats["log_probs"].all_discrete_tensor, f"out/{prefix}all_log_prob_discrete")
    close(stats["entropy"], f"out/{prefix}entropy")


@STEPS
def test_the_critic(critic, prefix, sequence_length):
    values, memories = critic.critic_pass(obs(prefix), memories=given("critic_memory"), sequence_length=sequence_length)
    close(values["extrinsic"], f"out/{prefix}value/extrinsic")
    close(memories, f"out/{prefix}critic_memory")


def test_acting_passes_the_memory_on(actor):
    _, _, memories = actor.get_action_and_stats(obs(), masks=given("action_mask"), memories=given("memory"))
    close(memories, "out/memory")


def test_losses(actor, critic):
    action = AgentAction(given("continuous_action"), list(given("discrete_action").unbind(1)))
    stats = actor.get_stats(
        obs(),
        action,
        masks=given("action_mask"),
        memories=given("memory"),
    )
    values, _ = critic.critic_pass(obs(), memories=given("critic_memory"))
    mask = given("loss_mask")
    returns = {"extrinsic": given("return/extrinsic")}
    close(
        trust_region_value_loss(values, {"extrinsic": given("old_value/extrinsic")}, returns, 0.2, mask),
        "out/loss/value",
    )
    old_log_probs = given("old_log_prob_flat")
    close(
        trust_region_policy_loss(given("advantage"), stats["log_probs"].flatten(), old_log_probs, mask, 0.2),
        "out/loss/policy",
    )
    close(masked_mean(stats["entropy"], mask), "out/loss/entropy_mean")
