"""Goals: which observations are, and how they condition a network."""

import numpy as np
import pytest
import torch

from mlagents.trainers.settings import ConditioningType, NetworkSettings
from mlagents.trainers.torch_entities.conditioning import ConditionalEncoder, HyperNetwork
from mlagents.trainers.torch_entities.layers import LinearEncoder
from mlagents.trainers.torch_entities.networks import NetworkBody, ValueNetwork
from mlagents_envs.base_env import DimensionProperty, ObservationSpec, ObservationType, vector_observation

MOVES = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
GOAL = ObservationSpec((3,), (DimensionProperty.NONE,), ObservationType.GOAL_SIGNAL, "goal")
GOAL_IMAGE = ObservationSpec((1, 20, 20), (DimensionProperty.NONE, MOVES, MOVES), ObservationType.GOAL_SIGNAL, "image")
SEEN = vector_observation(4, "seen")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def body(*specs, **settings):
    return NetworkBody(list(specs), NetworkSettings(**{"hidden_units": 8, **settings}))


def test_a_generated_layer_is_one_of_its_own_for_each_row():
    layer = HyperNetwork(3, 2, 4, 6, 2)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -1.0]))
    inputs, goals = torch.randn(5, 3), torch.randn(5, 4)
    outputs = layer(inputs, goals).detach().numpy()
    for row in range(5):
        weights = layer.hypernet(goals[row : row + 1]).reshape(3, 2).detach().numpy()
        np.testing.assert_allclose(outputs[row], inputs[row].numpy() @ weights + [1, -1], rtol=1e-4, atol=1e-6)
    assert np.abs(layer(inputs, goals.roll(1, 0)).detach().numpy() - outputs).max() > 1e-3


@pytest.mark.parametrize("n_goals", [1, 3, 200])
def test_layers_that_rows_share_are_those_of_each_row(n_goals):
    layer = HyperNetwork(3, 2, 4, 6, 2)
    inputs, goals = torch.randn(200, 3), torch.randn(n_goals, 4)[torch.randint(n_goals, (200,))]
    gradients = []
    for given in (goals, goals.clone().requires_grad_()):  # a goal that is learned is not looked for among others
        layer.zero_grad()
        outputs = layer(inputs, given)
        outputs.square().sum().backward()
        gradients.append([outputs.detach(), *(parameter.grad.clone() for parameter in layer.parameters())])
    for shared, own in zip(*gradients):
        torch.testing.assert_close(shared, own, atol=1e-4, rtol=1e-4)


def test_generated_weights_start_small_enough():
    layer = HyperNetwork(50, 30, 4, 64, 2)
    generator = layer.hypernet[-1]
    assert generator.weight.abs().max().item() == pytest.approx(1 / np.sqrt(64 * 50), rel=0.01)
    assert generator.bias.abs().max() == layer.bias.abs().max() == 0


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_last_layer_is_generated_from_the_goal(num_layers):
    network = body(SEEN, GOAL, num_layers=num_layers)
    kinds = [type(layer) for layer in network._body_endoder.layers[::2]]
    assert kinds == [torch.nn.Linear] * (num_layers - 1) + [HyperNetwork]
    assert network._body_endoder.layers[-2].input_size == (7 if num_layers == 1 else 8)
    features, _ = network([torch.randn(5, 4), torch.randn(5, 3)])
    assert features.shape == (5, 8)


def test_without_a_goal_or_without_conditioning_the_body_is_plain():
    assert isinstance(body(SEEN)._body_endoder, LinearEncoder)
    plain = body(SEEN, GOAL, goal_conditioning_type=ConditioningType.NONE)
    assert isinstance(plain._body_endoder, LinearEncoder)
    assert plain([torch.randn(2, 4), torch.randn(2, 3)])[0].shape == (2, 8)


def test_a_goal_is_an_input_as_well_and_is_normalised_like_other_vectors():
    network = body(SEEN, GOAL, normalize=True)
    goals = torch.randn(100, 3) * 5 + 2
    network.processors[1].update_normalization(goals)
    seen = torch.randn(100, 4)
    encoding, encoded_goals = network.observation_encoder.with_goals([seen, goals])
    assert encoding.shape == (100, 7)
    torch.testing.assert_close(encoding[:, 4:], encoded_goals)
    assert encoded_goals.abs().mean() < 1.2
    torch.testing.assert_close(encoded_goals, network.observation_encoder.get_goal_encoding([seen, goals]))
    torch.testing.assert_close(encoding, network.observation_encoder([seen, goals]))


def test_an_image_may_be_the_goal():
    network = body(GOAL_IMAGE, SEEN)
    assert network.observation_encoder.total_goal_enc_size == 8
    image, seen = torch.rand(2, 1, 20, 20), torch.randn(2, 4)
    before, _ = network([image, seen])
    assert (network([1 - image, seen])[0] - before).abs().max() > 1e-4


def test_actions_join_what_the_generated_layer_takes():
    critic = ValueNetwork(["extrinsic"], [SEEN, GOAL], NetworkSettings(hidden_units=8, num_layers=1), 2)
    assert isinstance(critic.network_body._body_endoder, ConditionalEncoder)
    inputs = [torch.randn(3, 4), torch.randn(3, 3)]
    values, _ = critic(inputs, actions=torch.zeros(3, 2))
    others, _ = critic(inputs, actions=torch.ones(3, 2))
    assert values["extrinsic"].shape == (3,)
    assert (values["extrinsic"] - others["extrinsic"]).abs().max() > 1e-4
