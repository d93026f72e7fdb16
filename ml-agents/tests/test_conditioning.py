"""Goals: which observations are, and how they condition a network."""

import copy

import numpy as np
import pytest
import torch

from mlagents.torch_utils import nn
from mlagents.trainers.settings import ConditioningType, NetworkSettings
from mlagents.trainers.torch_entities import encoders
from mlagents.trainers.torch_entities.conditioning import ConditionalEncoder, HyperNetwork
from mlagents.trainers.torch_entities.encoders import register_encoder
from mlagents.trainers.torch_entities.fused_adam import FusedAdam
from mlagents.trainers.torch_entities.layers import LinearEncoder
from mlagents.trainers.torch_entities.networks import NetworkBody, ValueNetwork
from mlagents_envs.base_env import DimensionProperty, ObservationSpec, ObservationType, vector_observation

MOVES = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
PLANE = (MOVES, MOVES)


def goal_of(shape, properties):
    return ObservationSpec(shape, properties, ObservationType.GOAL_SIGNAL, "goal")


SEEN = vector_observation(4, "seen")
GOAL = goal_of((3,), (DimensionProperty.NONE,))
GOAL_IMAGE = goal_of((1, 20, 20), (DimensionProperty.NONE, MOVES, MOVES))
GOAL_ENTITIES = goal_of((2, 5), (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE))
GOAL_PLANE = goal_of((2, 3), PLANE)
GOAL_KINDS = pytest.mark.parametrize(
    ("goals", "size"),
    [
        ([GOAL], 3),
        ([GOAL_IMAGE], 8),
        ([GOAL_ENTITIES], 128),
        ([GOAL_PLANE], 6),
        ([GOAL_ENTITIES, GOAL_IMAGE, GOAL, GOAL_PLANE], 128 + 8 + 3 + 6),
    ],
    ids=["vector", "image", "entities", "of a plug-in", "all"],
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _plane_encoder(monkeypatch):
    """Register an encoder for planes, as a plug-in does, for one test."""
    monkeypatch.setattr(encoders, "_factories", dict(encoders._factories))
    register_encoder(PLANE)(lambda request: (nn.Flatten(), int(np.prod(request.observation_spec.shape))))


def body(*specs, **settings):
    return NetworkBody(list(specs), NetworkSettings(**{"hidden_units": 8, **settings}))


def random_observations(specs, n_rows=4):
    return [torch.rand(n_rows, *spec.shape) for spec in specs]


def draw_anew(module):
    """Give every parameter, biases too, a value that shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)


class Plain:
    """The formulas row by row, in double precision."""

    @staticmethod
    def swish(x):
        return x / (1 + np.exp(-x))

    @staticmethod
    def linear(layer, x):
        return layer.weight.detach().double().numpy() @ x + layer.bias.detach().double().numpy()

    @classmethod
    def generated(cls, layer, x, goal):
        """A `HyperNetwork`: hidden layers, their normalisation, and what makes weights of them."""
        *hidden_layers, generator = [part for part in layer.hypernet if isinstance(part, nn.Linear)]
        hidden = goal
        for part in hidden_layers:
            hidden = cls.swish(cls.linear(part, hidden))
        hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5)
        weights = cls.linear(generator, hidden).reshape(len(x), -1)
        return x @ weights + layer.bias.detach().double().numpy()

    @classmethod
    def conditional(cls, encoder, x, goal):
        for layer in encoder.layers:
            if isinstance(layer, HyperNetwork):
                x = cls.swish(cls.generated(layer, x, goal))
            elif isinstance(layer, nn.Linear):
                x = cls.swish(cls.linear(layer, x))
        return x


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_generated_layer_equals_its_plain_twin(num_layers):
    layer = HyperNetwork(3, 2, 4, 6, num_layers)
    draw_anew(layer)
    assert sum(isinstance(part, nn.Linear) for part in layer.hypernet) == num_layers + 1
    inputs, goals = torch.randn(5, 3), torch.randn(5, 4)
    expected = [Plain.generated(layer, *row) for row in zip(inputs.double().numpy(), goals.double().numpy())]
    np.testing.assert_allclose(layer(inputs, goals).detach().numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("num_layers", "num_conditional_layers"), [(1, 1), (2, 1), (3, 1), (3, 2)])
def test_a_conditional_encoder_equals_its_plain_twin(num_layers, num_conditional_layers):
    encoder = ConditionalEncoder(3, 4, 6, num_layers, num_conditional_layers)
    draw_anew(encoder)
    kinds = [type(layer) for layer in encoder.layers[::2]]
    assert kinds == [nn.Linear] * (num_layers - num_conditional_layers) + [HyperNetwork] * num_conditional_layers
    inputs, goals = torch.randn(5, 3), torch.randn(5, 4)
    expected = [Plain.conditional(encoder, *row) for row in zip(inputs.double().numpy(), goals.double().numpy())]
    np.testing.assert_allclose(encoder(inputs, goals).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_goals", [1, 3, 200])
def test_layers_that_rows_share_are_those_of_each_row(n_goals):
    layer = HyperNetwork(3, 2, 4, 6, 2)
    draw_anew(layer)
    inputs, goals = torch.randn(200, 3), torch.randn(n_goals, 4)[torch.randint(n_goals, (200,))]
    gradients = []
    for given in (goals, goals.clone().requires_grad_()):  # a goal that is learned is not looked for among others
        layer.zero_grad()
        outputs = layer(inputs, given)
        outputs.square().sum().backward()
        gradients.append([outputs.detach(), *(parameter.grad.clone() for parameter in layer.parameters())])
    for shared, own in zip(*gradients):
        torch.testing.assert_close(shared, own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("n_goals", "n_generated"), [(1, 1), (6, 6), (7, 50)])
def test_a_layer_is_generated_once_for_each_goal_where_goals_are_few(n_goals, n_generated):
    """Few: no more than the hidden units of what generates, here 6."""
    layer = HyperNetwork(3, 2, 4, 6, 2)
    generated = []
    layer.hypernet[0].register_forward_hook(lambda module, inputs, outputs: generated.append(len(outputs)))
    layer(torch.randn(50, 3), torch.randn(n_goals, 4)[torch.arange(50) % n_goals])
    assert generated == [n_generated]


def step_of_adam(layer):
    optimizer = FusedAdam(layer.hypernet[-1].parameters(), lr=0.1)
    layer(torch.ones(2, 3), torch.eye(4)[:2]).sum().backward()
    for _ in range(2):  # torch takes the first step
        optimizer.step()


def write_past_torch(layer):
    for parameter in layer.parameters():
        parameter.data.copy_(torch.randn_like(parameter))


@pytest.mark.parametrize(
    "change",
    [
        step_of_adam,
        write_past_torch,
        lambda layer: layer.load_state_dict({k: v + 1 for k, v in layer.state_dict().items()}),
        lambda layer: setattr(layer.hypernet[-1].weight, "data", layer.hypernet[-1].weight.data + 1),
        lambda layer: layer.double().float(),
    ],
    ids=["a step of Adam", "a write past torch's count", "a checkpoint", "other memory", "nothing, in the end"],
)
def test_what_was_generated_counts_until_the_weights_change(change):
    layer = HyperNetwork(3, 2, 4, 6, 2)
    draw_anew(layer)
    inputs, goals = torch.randn(5, 3), torch.eye(4)[torch.tensor([0, 1, 1, 0, 3])]
    with torch.no_grad():
        layer(inputs, goals)
        assert torch.equal(layer(inputs, goals), copy.deepcopy(layer)(inputs, goals))
    change(layer)
    with torch.no_grad():
        for given in (goals, goals.flip(0), torch.eye(4)[2].expand(5, 4), goals):
            assert torch.equal(layer(inputs, given), copy.deepcopy(layer)(inputs, given))


def test_where_nothing_has_changed_a_layer_is_not_generated_again():
    layer = HyperNetwork(3, 2, 4, 6, 2)
    inputs, goals = torch.randn(5, 3), torch.eye(4)[:1].expand(5, 4)
    with torch.no_grad():
        first = layer._generate(layer.hypernet[-1], goals[:, :1].expand(5, 6))
        assert layer._generate(layer.hypernet[-1], goals[:, :1].expand(5, 6)) is first
    layer(inputs, goals).sum().backward()
    assert layer.hypernet[-1].weight.grad.abs().sum() > 0


def test_generated_weights_start_small_enough():
    layer = HyperNetwork(50, 30, 4, 64, 2)
    generator = layer.hypernet[-1]
    assert generator.weight.abs().max().item() == pytest.approx(1 / np.sqrt(64 * 50), rel=0.01)
    assert generator.bias.abs().max() == layer.bias.abs().max() == 0


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_last_layer_is_generated_from_the_goal(num_layers):
    network = body(SEEN, GOAL, num_layers=num_layers)
    draw_anew(network)
    kinds = [type(layer) for layer in network._body_endoder.layers[::2]]
    assert kinds == [nn.Linear] * (num_layers - 1) + [HyperNetwork]
    seen, goals = torch.randn(5, 4), torch.randn(5, 3)
    features, _ = network([seen, goals])
    inputs = torch.cat([seen, goals], dim=1).double().numpy()
    expected = [Plain.conditional(network._body_endoder, *row) for row in zip(inputs, goals.double().numpy())]
    np.testing.assert_allclose(features.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_without_a_goal_the_body_is_plain():
    assert isinstance(body(SEEN)._body_endoder, LinearEncoder)


@GOAL_KINDS
def test_without_conditioning_a_goal_is_an_observation_like_others(goals, size):
    network = body(SEEN, *goals, goal_conditioning_type=ConditioningType.NONE)
    twins = [goal._replace(observation_type=ObservationType.DEFAULT) for goal in goals]
    twin = body(SEEN, *twins)
    assert isinstance(network._body_endoder, LinearEncoder)
    twin.load_state_dict(network.state_dict())
    observations = random_observations([SEEN, *goals])
    assert torch.equal(network(observations)[0], twin(observations)[0])


@GOAL_KINDS
def test_the_encodings_of_goals_of_any_kinds_are_joined(goals, size):
    """Those of entities, which come from attention, after the others."""
    specs = [goals[0], SEEN, *goals[1:]]
    network = body(*specs, normalize=True)
    encoder = network.observation_encoder
    assert encoder.total_goal_enc_size == size
    observations = random_observations(specs)
    encoding, goal_encoding = encoder.with_goals(observations)
    assert goal_encoding.shape == (4, size)
    torch.testing.assert_close(encoding, encoder(observations))
    torch.testing.assert_close(goal_encoding, encoder.get_goal_encoding(observations))
    parts = [
        processor(observation)
        for spec, processor, observation in zip(specs, encoder.processors, observations)
        if spec in goals and spec is not GOAL_ENTITIES
    ]
    attended = [encoding[:, -128:]] if GOAL_ENTITIES in goals else []
    torch.testing.assert_close(goal_encoding, torch.cat([*parts, *attended], dim=1))


@GOAL_KINDS
def test_every_goal_generates_and_every_encoder_of_goals_learns(goals, size):
    """The plain layers are made to ignore the goals: what is left of their influence is the generated layer."""
    specs = [SEEN, *goals]
    network = body(*specs, num_layers=2)
    with torch.no_grad():
        network._body_endoder.layers[0].weight[:, SEEN.shape[0] :] = 0
    observations = random_observations(specs)
    features, _ = network(observations)
    for index in range(1, len(specs)):
        changed = [*observations]
        changed[index] = 1 - observations[index]
        assert (network(changed)[0] - features).abs().max() > 1e-5
    features.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.processors.parameters())


@GOAL_KINDS
def test_a_batch_of_nobody(goals, size):
    assert body(SEEN, *goals)(random_observations([SEEN, *goals], n_rows=0))[0].shape == (0, 8)


def test_a_goal_is_normalised_like_other_vectors():
    network, twin = body(SEEN, GOAL, normalize=True), body(SEEN, GOAL, normalize=True)
    goals, seen = torch.randn(100, 3) * 5 + 2, torch.randn(100, 4)
    network.processors[1].update_normalization(goals)
    encoded_goals = network.observation_encoder.get_goal_encoding([seen, goals])
    assert encoded_goals.abs().mean() < 1.2
    twin.copy_normalization(network)
    assert torch.equal(twin.observation_encoder.get_goal_encoding([seen, goals]), encoded_goals)


def test_actions_join_what_the_generated_layer_takes():
    critic = ValueNetwork(["extrinsic"], [SEEN, GOAL], NetworkSettings(hidden_units=8, num_layers=1), 2)
    assert isinstance(critic.network_body._body_endoder, ConditionalEncoder)
    inputs = [torch.randn(3, 4), torch.randn(3, 3)]
    values, _ = critic(inputs, actions=torch.zeros(3, 2))
    others, _ = critic(inputs, actions=torch.ones(3, 2))
    assert values["extrinsic"].shape == (3,)
    assert (values["extrinsic"] - others["extrinsic"]).abs().max() > 1e-4
