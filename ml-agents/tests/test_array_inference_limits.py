"""When NumPy stands in for torch and when it must not: changed, replaced and unknown parts of a network."""

import numpy as np
import pytest
import torch

from mlagents.torch_utils import nn
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.action_model import ActionModel
from mlagents.trainers.torch_entities.array_inference import ArrayActor, ArrayCritic
from mlagents.trainers.torch_entities.encoders import Normalizer, VectorInput
from mlagents.trainers.torch_entities.layers import LinearEncoder, Swish
from mlagents.trainers.torch_entities.networks import (
    NetworkBody,
    ObservationEncoder,
    SharedActorCritic,
    SimpleActor,
    ValueNetwork,
)
from mlagents_envs.base_env import (
    ActionSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    vector_observation,
)

SPECS = [vector_observation(4, "position"), vector_observation(3, "speed")]
SETTINGS = NetworkSettings(hidden_units=16, normalize=True, deterministic=True)
HYBRID = ActionSpec(2, (3, 2))
STREAMS = ["extrinsic", "curiosity"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    np.random.seed(0)


def make_network():
    """Return a network that is actor and critic, with statistics off their initial values."""
    network = SharedActorCritic(SPECS, SETTINGS, HYBRID, STREAMS)
    for processor in network.network_body.processors:
        processor.update_normalization(1.0 + 2.0 * torch.randn(9, len(processor.normalizer.running_mean)))
    return network


def body(network):
    return network.network_body


def layers(network):
    return body(network)._body_endoder.seq_layers


def gaussian(network):
    return network.action_model._continuous_distribution


def branches(network):
    return network.action_model._discrete_distribution.branches


def observations():
    rng = np.random.default_rng(3)
    return [rng.standard_normal((6, *spec.shape)).astype(np.float32) for spec in SPECS]


def assert_equals_torch(network, actor=None, critic=None):
    """Compare deterministic actions and values."""
    obs = observations()
    actor, critic = actor or ArrayActor.of(network), critic or ArrayCritic.of(network)
    decision, values = actor.act(obs, None), critic.values(obs)
    tensors = [torch.from_numpy(column) for column in obs]
    with torch.no_grad():
        best, run_out, _ = network.get_action_and_stats(tensors)
        expected, _ = network.critic_pass(tensors)
    best = best.to_action_tuple()
    np.testing.assert_allclose(decision.action.continuous, best.continuous, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(decision.env_action.continuous, run_out["env_action"].continuous, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(decision.action.discrete, best.discrete)
    for name in STREAMS:
        np.testing.assert_allclose(values[name], expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"conditional_sigma": True}, {"tanh_squash": True}])
def test_other_distributions_are_left_to_torch(arguments):
    assert ArrayActor.of(SimpleActor(SPECS, SETTINGS, HYBRID, **arguments)) is None


def test_subclasses_are_left_to_torch():
    class MyActor(SimpleActor):
        pass

    class MyValues(ValueNetwork):
        pass

    assert ArrayActor.of(MyActor(SPECS, SETTINGS, HYBRID)) is None
    assert ArrayCritic.of(MyValues(STREAMS, SPECS, SETTINGS)) is None


def test_other_things_are_left_to_torch():
    assert ArrayActor.of(nn.Linear(3, 2)) is None
    assert ArrayActor.of(object()) is None
    assert ArrayActor.of(ValueNetwork(STREAMS, SPECS, SETTINGS)) is None
    assert ArrayCritic.of(SimpleActor(SPECS, SETTINGS, HYBRID)) is None
    assert ArrayCritic.of(None) is None


def test_several_values_per_stream_are_left_to_torch():
    assert ArrayCritic.of(ValueNetwork(STREAMS, SPECS, SETTINGS, outputs_per_stream=3)) is None


class Tanh(nn.Module):
    def forward(self, data):
        return torch.tanh(data)


class MySwish(Swish):
    pass


class MyBody(NetworkBody):
    pass


class OtherEncoder(nn.Module):
    def forward(self, inputs):
        return 2 * inputs


def _set(owner, name, part):
    """Replace a part of a module, or of a container."""
    if isinstance(owner, (nn.ModuleList, nn.Sequential)):
        owner[name] = part
    else:
        setattr(owner, name, part)


UNKNOWN_PARTS = {
    "body": lambda net: setattr(net, "network_body", MyBody(SPECS, SETTINGS)),
    "action model": lambda net: setattr(net, "action_model", OtherEncoder()),
    "action model of another kind": lambda net: setattr(net, "action_model", nn.Linear(16, 2)),
    "value heads": lambda net: setattr(net, "value_heads", nn.Linear(16, 2)),
    "encoder": lambda net: _set(body(net).observation_encoder.processors, 0, OtherEncoder()),
    "activation": lambda net: _set(layers(net), 1, Tanh()),
    "activation of a subclass": lambda net: _set(layers(net), 3, MySwish()),
    "activation left out": lambda net: layers(net).pop(3),
    "two layers without an activation": lambda net: _set(layers(net), 1, nn.Linear(16, 16)),
    "layers": lambda net: setattr(body(net), "_body_endoder", nn.Sequential(nn.Linear(7, 16), Swish())),
    "layer without a bias": lambda net: _set(layers(net), 0, nn.Linear(7, 16, bias=False)),
    "mean": lambda net: setattr(gaussian(net), "mu", nn.Sequential(nn.Linear(16, 2))),
    "mean without a bias": lambda net: setattr(gaussian(net), "mu", nn.Linear(16, 2, bias=False)),
    "branch": lambda net: _set(branches(net), 1, nn.Sequential(nn.Linear(16, 2))),
    "hook": lambda net: layers(net)[0].register_forward_hook(lambda module, args, output: 2 * output),
    "hook before": lambda net: body(net).register_forward_pre_hook(lambda module, args: None),
    "method": lambda net: setattr(body(net), "forward", lambda *args, **kwargs: (torch.zeros(6, 16), None)),
    "its own methods": lambda net: (
        setattr(net, "get_action_and_stats", lambda *args, **kwargs: None),
        setattr(net, "critic_pass", lambda *args, **kwargs: None),
    ),
}
METHODS = ("method", "its own methods")
"""Looked for once, when the arrays are made: whoever replaces them does so on a new network."""


@pytest.mark.parametrize("part", UNKNOWN_PARTS)
def test_unknown_parts_are_left_to_torch(part):
    network = make_network()
    assert ArrayActor.of(network) is not None
    UNKNOWN_PARTS[part](network)
    assert ArrayActor.of(network) is None
    assert ArrayCritic.of(network) is None


KNOWN_PARTS = {
    "body": lambda net: setattr(net, "network_body", NetworkBody(SPECS, SETTINGS)),
    "body without normalisation": lambda net: setattr(
        net, "network_body", NetworkBody(SPECS, NetworkSettings(hidden_units=16))
    ),
    "observation encoder": lambda net: setattr(
        body(net), "observation_encoder", ObservationEncoder(SPECS, 16, SETTINGS.vis_encode_type, normalize=False)
    ),
    "processors": lambda net: setattr(
        body(net).observation_encoder, "processors", nn.ModuleList([VectorInput(4), VectorInput(3)])
    ),
    "processor": lambda net: _set(body(net).observation_encoder.processors, 0, VectorInput(4, normalize=True)),
    "normaliser": lambda net: setattr(body(net).processors[1], "normalizer", Normalizer(3)),
    "no normaliser": lambda net: setattr(body(net).processors[1], "normalizer", None),
    "layers": lambda net: setattr(body(net), "_body_endoder", LinearEncoder(7, 3, 16)),
    "layer": lambda net: _set(layers(net), 2, nn.Linear(16, 16)),
    "one more layer": lambda net: layers(net).extend([nn.Linear(16, 16), Swish()]),
    "action model": lambda net: setattr(net, "action_model", ActionModel(16, HYBRID, deterministic=True)),
    "mean": lambda net: setattr(gaussian(net), "mu", nn.Linear(16, 2)),
    "branch": lambda net: _set(branches(net), 0, nn.Linear(16, 3)),
    "value head": lambda net: net.value_heads.value_heads.update({"curiosity": nn.Linear(16, 1)}),
    "parameter": lambda net: setattr(gaussian(net), "log_sigma", nn.Parameter(torch.ones(1, 2))),
    "weight": lambda net: setattr(layers(net)[0], "weight", nn.Parameter(torch.randn(16, 7))),
    "data of a parameter": lambda net: setattr(layers(net)[0].weight, "data", torch.randn(16, 7)),
    "statistics": lambda net: setattr(body(net).processors[0].normalizer, "running_mean", torch.ones(4)),
    "state": lambda net: net.load_state_dict(
        SharedActorCritic(SPECS, SETTINGS, HYBRID, STREAMS).state_dict(), assign=True
    ),
}


@pytest.mark.parametrize("part", KNOWN_PARTS)
def test_an_exchanged_part_is_noticed_and_then_used(part):
    network = make_network()
    actor, critic = ArrayActor.of(network), ArrayCritic.of(network)
    assert actor.is_current(network)
    assert critic.is_current(network)
    assert_equals_torch(network, actor, critic)
    KNOWN_PARTS[part](network)
    assert not actor.is_current(network)
    assert not critic.is_current(network)
    if ArrayActor.of(network) is not None:  # where a part now stands beside its second name, torch may do it
        assert_equals_torch(network)


@pytest.mark.parametrize("part", ["body", "layer", "action model", "parameter", "state", "one more layer"])
def test_the_common_exchanges_stay_with_numpy(part):
    network = make_network()
    KNOWN_PARTS[part](network)
    assert ArrayActor.of(network) is not None
    assert ArrayCritic.of(network) is not None


@pytest.mark.parametrize("part", [part for part in UNKNOWN_PARTS if part not in METHODS])
def test_an_unknown_part_is_noticed_later_too(part):
    network = make_network()
    actor, critic = ArrayActor.of(network), ArrayCritic.of(network)
    UNKNOWN_PARTS[part](network)
    assert not actor.is_current(network)
    assert not critic.is_current(network)


def test_another_network_is_not_current():
    assert not ArrayActor.of(make_network()).is_current(make_network())


def _gradient_step(network):
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    tensors = [torch.from_numpy(values) for values in observations()]
    values, _ = network.critic_pass(tensors)
    _, run_out, _ = network.get_action_and_stats(tensors)
    (sum(value.sum() for value in values.values()) + run_out["log_probs"].flatten().sum()).backward()
    optimizer.step()


IN_PLACE = {
    "gradient step": _gradient_step,
    "loading a state": lambda net: net.load_state_dict(
        SharedActorCritic(SPECS, SETTINGS, HYBRID, STREAMS).state_dict()
    ),
    "normaliser": lambda net: body(net).processors[0].update_normalization(10 * torch.randn(20, 4)),
    "copied normaliser": lambda net: body(net).copy_normalization(NetworkBody(SPECS, SETTINGS)),
    "clip_action": lambda net: setattr(net.action_model, "clip_action", False),
}


@pytest.mark.parametrize("change", IN_PLACE)
def test_changes_in_place_are_seen_at_once(change):
    network = make_network()
    actor, critic = ArrayActor.of(network), ArrayCritic.of(network)
    before = actor.act(observations(), None)
    IN_PLACE[change](network)
    assert actor.is_current(network)
    assert critic.is_current(network)
    assert_equals_torch(network, actor, critic)
    after = actor.act(observations(), None)
    assert not np.array_equal(before.env_action.continuous, after.env_action.continuous)


def test_whether_actions_are_drawn_is_read_at_each_use():
    network = make_network()
    actor = ArrayActor.of(network)
    network.action_model._deterministic = False
    one, other = actor.act(observations(), None), actor.act(observations(), None)
    assert not np.array_equal(one.action.continuous, other.action.continuous)
    network.action_model._deterministic = True
    assert_equals_torch(network, actor)


@pytest.mark.parametrize(
    "spec",
    [
        ObservationSpec((3,), (DimensionProperty.NONE,), ObservationType.GOAL_SIGNAL, "goal"),
        ObservationSpec(
            (4, 2), (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE), ObservationType.DEFAULT, "entities"
        ),
    ],
    ids=["a goal", "entities"],
)
def test_goals_and_entities_are_left_to_torch(spec):
    assert ArrayActor.of(SimpleActor([*SPECS, spec], SETTINGS, HYBRID)) is None
    assert ArrayCritic.of(ValueNetwork(STREAMS, [*SPECS, spec], SETTINGS)) is None


def test_memories_of_other_kinds_and_those_of_critics_are_left_to_torch():
    settings = NetworkSettings(hidden_units=8, memory=NetworkSettings.MemorySettings(memory_size=6))
    actor = SimpleActor(SPECS, settings, HYBRID)
    assert ArrayActor.of(actor) is not None
    assert ArrayCritic.of(ValueNetwork(STREAMS, SPECS, settings)) is None
    for variant in ({"num_layers": 2}, {"bidirectional": True}, {"bias": False}):
        actor.network_body.lstm.lstm = nn.LSTM(8, 3, batch_first=True, **variant)
        assert ArrayActor.of(actor) is None
