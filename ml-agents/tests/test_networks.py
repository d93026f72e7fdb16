import copy

import numpy as np
import pytest
import torch

from mlagents.torch_utils import nn
from mlagents.trainers.buffer import AgentBuffer
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.action_model import ActionModel
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.networks import (
    Actor,
    Critic,
    GlobalSteps,
    LearningRate,
    NetworkBody,
    SharedActorCritic,
    SimpleActor,
    ValueNetwork,
)
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.base_env import (
    ActionSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    image_observation,
    vector_observation,
)

SPECS = [vector_observation(4, "position"), vector_observation(3, "speed")]
HYBRID = ActionSpec(2, (3,))
STREAMS = ["extrinsic", "curiosity"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def settings(**changes):
    return NetworkSettings(**{"hidden_units": 16, "num_layers": 2, **changes})


def observations(rows=6):
    return [torch.randn(rows, 4), torch.randn(rows, 3)]


def test_a_body_joins_its_observations_and_actions():
    body = NetworkBody(SPECS, settings(), encoded_act_size=2)
    obs, actions = observations(), torch.randn(6, 2)
    encoding, memories = body(obs, actions=actions)
    torch.testing.assert_close(encoding, body._body_endoder(torch.cat([*obs, actions], dim=1)))
    assert memories is None
    assert body.memory_size == 0


GOAL = ObservationSpec((2,), (DimensionProperty.NONE,), ObservationType.GOAL_SIGNAL, "goal")
ENTITIES = ObservationSpec(
    (3, 4), (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE), ObservationType.DEFAULT, "things"
)


@pytest.mark.parametrize(
    ("specs", "is_learned"),
    [
        (SPECS, False),
        ([*SPECS, GOAL], False),
        ([*SPECS, image_observation(3, 20, 20, "camera")], True),
        ([*SPECS, ENTITIES, GOAL], True),
    ],
    ids=["vectors", "goal", "image", "entities"],
)
def test_what_is_encoded_once_serves_several_calls(specs, is_learned):
    body = NetworkBody(specs, settings(normalize=True), encoded_act_size=2)
    obs = [torch.rand(6, *spec.shape) for spec in specs]
    seen = body.encode(obs)
    for actions in (torch.randn(6, 2), torch.randn(6, 2)):
        torch.testing.assert_close(body(seen, actions=actions)[0], body(obs, actions=actions)[0])
    assert body.observation_encoder.is_learned is is_learned


def test_num_layers_counts_layers():
    for layers in (1, 2, 3):
        body = NetworkBody(SPECS, settings(num_layers=layers))
        assert sum(isinstance(module, nn.Linear) for module in body.modules()) == layers


def remembering(memory_size=6):
    return settings(memory=NetworkSettings.MemorySettings(sequence_length=3, memory_size=memory_size))


def test_a_sequence_is_as_good_as_its_steps_one_by_one():
    body, obs = NetworkBody(SPECS, remembering()), observations(rows=6)
    start = torch.randn(1, 2, 6)
    features, after = body(obs, memories=start, sequence_length=3)
    memory = start
    for t in range(3):  # rows 0 and 3 begin the two sequences
        stepped, memory = body([values[[t, 3 + t]] for values in obs], memories=memory)
        torch.testing.assert_close(features[[t, 3 + t]], stepped)
    torch.testing.assert_close(after, memory)


def test_what_follows_a_memory_is_half_as_wide():
    actor, critic = SimpleActor(SPECS, remembering(), HYBRID), ValueNetwork(STREAMS, SPECS, remembering())
    assert actor.encoding_size == 3
    assert actor.memory_size_vector.tolist() == [6]
    assert actor.memory_size == critic.memory_size == 6
    assert actor.network_body.h_size == 16
    assert {head.in_features for head in critic.value_heads.value_heads.values()} == {3}


def test_a_network_with_memory_needs_memories():
    with pytest.raises(UnityTrainerException, match="without memories"):
        NetworkBody(SPECS, remembering())(observations())


def test_an_actor_acts_and_evaluates_alike():
    actor, obs, masks = SimpleActor(SPECS, settings(), HYBRID), observations(), torch.ones(6, 3)
    action, run_out, memories = actor.get_action_and_stats(obs, masks=masks)
    stats = actor.get_stats(obs, action, masks=masks)
    assert torch.equal(stats["log_probs"].flatten(), run_out["log_probs"].flatten())
    assert torch.equal(stats["entropy"], run_out["entropy"])
    assert stats["entropy"].shape == (6,)
    clipped = action.continuous_tensor.detach().clamp(-3, 3) / 3
    np.testing.assert_array_equal(run_out["env_action"].continuous, clipped)
    np.testing.assert_array_equal(run_out["env_action"].discrete[:, 0], action.discrete_list[0][:, 0])
    assert memories is None


def sampled(actor, masks):
    """Return the log-probabilities of the same actions, as an actor gives them for acting and for a loss."""
    obs = observations()
    torch.manual_seed(1)
    actions, run_out, _ = actor.get_action_and_stats(obs, masks=masks)
    torch.manual_seed(1)
    for_loss, log_probs = actor.sample_actions(obs, masks=masks)
    assert torch.equal(actions.continuous_tensor, for_loss.continuous_tensor)
    return run_out["log_probs"].flatten(), log_probs.flatten()


def test_actions_for_a_loss_are_those_that_would_be_taken():
    for_acting, for_loss = sampled(SimpleActor(SPECS, settings(), HYBRID), torch.ones(6, 3))
    assert torch.equal(for_acting, for_loss)
    assert for_loss.requires_grad


def test_actions_for_a_loss_come_from_an_actor_that_acts_otherwise():
    class Halving(SimpleActor):
        def get_action_and_stats(self, *args, **kwargs):
            action, run_out, memories = super().get_action_and_stats(*args, **kwargs)
            return action._replace(continuous_tensor=action.continuous_tensor / 2), run_out, memories

    class OwnActions(ActionModel):
        def forward(self, inputs, masks):
            action, log_probs, entropy = super().forward(inputs, masks)
            return action._replace(continuous_tensor=action.continuous_tensor / 2), log_probs, entropy

    replaced = SimpleActor(SPECS, settings(), HYBRID)
    replaced.action_model = OwnActions(16, HYBRID)
    for actor in (Halving(SPECS, settings(), HYBRID), replaced):
        for_acting, for_loss = sampled(actor, torch.ones(6, 3))
        assert torch.equal(for_acting, for_loss)


def test_squashed_actions_go_to_the_environment_as_they_are():
    actor = SimpleActor(SPECS, settings(), ActionSpec(2, ()), conditional_sigma=True, tanh_squash=True)
    action, run_out, _ = actor.get_action_and_stats(observations())
    np.testing.assert_array_equal(run_out["env_action"].continuous, action.continuous_tensor.detach())
    assert action.continuous_tensor.abs().max() < 1


def test_a_batch_of_nobody():
    action, run_out, _ = SimpleActor(SPECS, settings(), HYBRID).get_action_and_stats(observations(0))
    assert run_out["env_action"].continuous.shape == (0, 2)
    assert run_out["env_action"].discrete.shape == (0, 1)
    assert action.continuous_tensor.shape == (0, 2)


def test_parts_of_an_actor_may_be_replaced():
    """Plug-ins do; nothing of the old parts may stay in use."""

    class Blind(nn.Module):
        def forward(self, inputs, actions=None, memories=None, sequence_length=1):
            return torch.zeros(len(inputs[0]), 16), memories

    class Still(nn.Module):
        clip_action = False

        def forward(self, inputs, masks):
            return AgentAction(inputs[:, :2], None), None, inputs.sum(dim=1)

    actor = SimpleActor(SPECS, settings(), ActionSpec(2, ()))
    actor.network_body = Blind()
    encoded_nothing = actor.action_model._get_dists(torch.zeros(6, 16), None).continuous.mean
    stats = actor.get_stats(observations(), AgentAction(encoded_nothing, None))
    np.testing.assert_allclose(stats["log_probs"].flatten().detach(), -0.9189385, rtol=1e-6)
    actor.action_model = Still()
    _, run_out, _ = actor.get_action_and_stats(observations())
    assert run_out["env_action"].continuous.tolist() == [[0, 0]] * 6


def test_values_of_each_stream():
    values, memories = ValueNetwork(STREAMS, SPECS, settings()).critic_pass(observations())
    assert {stream: value.shape for stream, value in values.items()} == {"extrinsic": (6,), "curiosity": (6,)}
    assert memories is None


def test_a_value_network_of_actions():
    network = ValueNetwork(["q"], SPECS, settings(), encoded_act_size=2, outputs_per_stream=3)
    obs = observations()
    left, _ = network(obs, actions=torch.full((6, 2), -1.0))
    right, _ = network(obs, actions=torch.full((6, 2), 1.0))
    assert left["q"].shape == (6, 3)
    assert not torch.equal(left["q"], right["q"])


def test_a_shared_critic_values_the_encoding_that_the_actor_acts_on():
    actor, obs = SharedActorCritic(SPECS, settings(), HYBRID, STREAMS), observations()
    encoding, _ = actor.network_body(obs)
    values, _ = actor.critic_pass(obs)
    torch.testing.assert_close(values["curiosity"], actor.value_heads(encoding)["curiosity"])
    values["curiosity"].sum().backward()
    assert all(p.grad is not None for p in actor.network_body.parameters())
    assert isinstance(actor, Critic)


def test_normalisation_reaches_actor_and_critic_from_a_buffer():
    buffer = AgentBuffer()
    for index, obs in enumerate(observations(50)):
        buffer[ObsUtil.get_name_at(index)] = obs.numpy() * 4 + 2
    actor = SimpleActor(SPECS, settings(normalize=True), HYBRID)
    critic = ValueNetwork(STREAMS, SPECS, settings(normalize=True))
    actor.update_normalization(buffer)
    critic.update_normalization(buffer)
    for network in (actor, critic):
        for processor in network.network_body.processors:
            assert processor.normalizer.normalization_steps == 51
    other = NetworkBody(SPECS, settings(normalize=True))
    other.copy_normalization(actor.network_body)
    obs = observations()
    assert torch.equal(other.observation_encoder(obs), actor.network_body.observation_encoder(obs))


def test_constants_do_not_learn():
    actor = SimpleActor(SPECS, settings(), HYBRID)
    before = copy.deepcopy(actor.state_dict())
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.1)
    stats = actor.get_stats(observations(), AgentAction(torch.randn(6, 2), [torch.arange(6) % 2]))
    stats["log_probs"].flatten().sum().backward()
    optimizer.step()
    changed = {key for key, value in actor.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if key.startswith(("network_body", "action_model"))}


def test_abstract_actors_and_critics_say_what_they_lack():
    class Half(nn.Module, Actor, Critic):
        def update_normalization(self, buffer):
            """Nothing to normalise."""

        def forward(self, inputs, masks=None, memories=None):
            return ()

    with pytest.raises(NotImplementedError, match="Half"):
        Half().get_action_and_stats([])
    with pytest.raises(NotImplementedError, match="Half"):
        Half().get_stats([], AgentAction(None, None))
    with pytest.raises(NotImplementedError, match="Half"):
        Half().critic_pass([])


def test_global_steps_count_and_are_kept():
    steps = GlobalSteps()
    steps.increment(5)
    steps.increment(7)
    assert int(steps.current_step) == 12
    other = GlobalSteps()
    other.load_state_dict(steps.state_dict())
    assert other.current_step.dtype == torch.int64
    other.current_step = 3
    assert (int(other.current_step), int(steps.current_step)) == (3, 12)


def test_a_learning_rate_is_kept():
    assert LearningRate(3e-4).state_dict()["learning_rate"].tolist() == pytest.approx([3e-4])
