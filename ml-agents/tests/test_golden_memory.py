"""What ML-Agents 1.1.0 computed with memory, our networks compute too, given the encodings of its observations.

The recorded networks also see images. Their encoding stands in the file for the actor, and is computed here for the
critic, so that everything from the body on is the production code. 5 agents; sequences of 8 steps.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.losses import masked_mean, trust_region_policy_loss, trust_region_value_loss
from mlagents.trainers.torch_entities.networks import SimpleActor, ValueNetwork
from mlagents_envs.base_env import ActionSpec, vector_observation

ARRAYS = dict(np.load(Path(__file__).parent / "data" / "golden" / "ppo_image_lstm_hybrid.npz", allow_pickle=False))
SETTINGS = NetworkSettings(hidden_units=32, memory=NetworkSettings.MemorySettings(sequence_length=8, memory_size=16))
ENCODING = [vector_observation(36, "encoding")]
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
    """Load the recorded weights from the body on; keys and their order have to be the recorded ones."""
    recorded = {key: value for key, value in state(module).items() if "processors" not in key}
    assert list(network.state_dict()) == list(recorded)
    network.load_state_dict(recorded)
    return network


@pytest.fixture
def actor():
    return loaded(SimpleActor(ENCODING, SETTINGS, ActionSpec(2, (3,))), "Policy")


@pytest.fixture
def critic():
    return loaded(ValueNetwork(["extrinsic"], ENCODING, SETTINGS), "Optimizer:critic")


def critic_encoding(prefix):
    """Encode image and vector with the recorded weights of the critic's encoder (networks.md calls it `simple`)."""
    weights = state("Optimizer:critic")

    def parameters(name):
        key = f"network_body.processors.{name}"
        return weights[f"{key}.weight"], weights[f"{key}.bias"]

    image = functional.leaky_relu(functional.conv2d(given(f"{prefix}obs_0"), *parameters("0.conv_layers.0"), stride=4))
    image = functional.leaky_relu(functional.conv2d(image, *parameters("0.conv_layers.2"), stride=2))
    image = functional.leaky_relu(functional.linear(image.flatten(1), *parameters("0.dense.0")))
    normalizer = "network_body.processors.1.normalizer"
    variance = weights[f"{normalizer}.running_variance"] / weights[f"{normalizer}.normalization_steps"]
    vector = (given(f"{prefix}obs_1") - weights[f"{normalizer}.running_mean"]) / variance.sqrt()
    return torch.cat([image, vector.clamp(-5, 5)], dim=1)


@STEPS
def test_the_body_and_its_memory(actor, prefix, sequence_length):
    encoding = torch.from_numpy(ARRAYS[f"out/{prefix}observation_encoding"])
    features, memories = actor.network_body([encoding], memories=given("memory"), sequence_length=sequence_length)
    close(features, f"out/{prefix}encoding")
    close(memories, f"out/{prefix}memory")


@STEPS
def test_the_actor(actor, prefix, sequence_length):
    action = AgentAction(given(f"{prefix}continuous_action"), list(given(f"{prefix}discrete_action").unbind(1)))
    stats = actor.get_stats(
        [torch.from_numpy(ARRAYS[f"out/{prefix}observation_encoding"])],
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
    values, memories = critic.critic_pass(
        [critic_encoding(prefix)], memories=given("critic_memory"), sequence_length=sequence_length
    )
    close(values["extrinsic"], f"out/{prefix}value/extrinsic")
    close(memories, f"out/{prefix}critic_memory")


def test_acting_passes_the_memory_on(actor):
    encoding = torch.from_numpy(ARRAYS["out/observation_encoding"])
    _, _, memories = actor.get_action_and_stats([encoding], masks=given("action_mask"), memories=given("memory"))
    close(memories, "out/memory")


def test_losses(actor, critic):
    action = AgentAction(given("continuous_action"), list(given("discrete_action").unbind(1)))
    stats = actor.get_stats(
        [torch.from_numpy(ARRAYS["out/observation_encoding"])],
        action,
        masks=given("action_mask"),
        memories=given("memory"),
    )
    values, _ = critic.critic_pass([critic_encoding("")], memories=given("critic_memory"))
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
