"""What ML-Agents 1.1.0 computed from its own weights, our networks compute from them too.

`data/golden` holds weights, inputs (`in/`) and recorded outputs (`out/`); B = 5 rows.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from mlagents.trainers.settings import EncoderType, NetworkSettings
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.encoders import Normalizer
from mlagents.trainers.torch_entities.losses import masked_mean, trust_region_policy_loss, trust_region_value_loss
from mlagents.trainers.torch_entities.networks import GlobalSteps, SharedActorCritic, SimpleActor, ValueNetwork
from mlagents_envs.base_env import (
    ActionSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    vector_observation,
)

GOLDEN = Path(__file__).parent / "data" / "golden"
EPSILON, BETA = 0.2, 0.005


def close(ours, recorded):
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
    assert ours.shape == recorded.shape
    np.testing.assert_allclose(ours, recorded, rtol=1e-5, atol=1e-5)


def image(height, width):
    moves = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
    shape, properties = (3, height, width), (DimensionProperty.NONE, moves, moves)
    return ObservationSpec(shape, properties, ObservationType.DEFAULT, "image")


def entities(n, size):
    properties = (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE)
    return ObservationSpec((n, size), properties, ObservationType.DEFAULT, "entities")


def goal(size):
    return ObservationSpec((size,), (DimensionProperty.NONE,), ObservationType.GOAL_SIGNAL, "goal")


class Case(NamedTuple):
    file: str
    action_spec: ActionSpec
    streams: list
    normalize: bool = False
    shared: bool = False
    observations: tuple = (vector_observation(8, "obs"),)
    encoder: EncoderType = EncoderType.SIMPLE

    def settings(self, **settings):
        return NetworkSettings(hidden_units=32, normalize=self.normalize, vis_encode_type=self.encoder, **settings)


CASES = [
    Case("ppo_vector", ActionSpec(2, ()), ["extrinsic"], normalize=True),
    Case("ppo_shared_discrete", ActionSpec(0, (3, 2)), ["extrinsic"], shared=True),
    Case("ppo_curiosity_rnd", ActionSpec(2, (3,)), ["extrinsic", "curiosity", "rnd"]),
    *(
        Case(
            f"ppo_{encoder.value}",
            ActionSpec(0, (3,)),
            ["extrinsic"],
            observations=(image(size, size),),
            encoder=encoder,
        )
        for encoder, size in ((EncoderType.NATURE_CNN, 84), (EncoderType.RESNET, 84), (EncoderType.MATCH3, 20))
    ),
    Case(
        "ppo_entities", ActionSpec(2, ()), ["extrinsic"], observations=(entities(10, 5), vector_observation(4, "self"))
    ),
    Case("ppo_goal", ActionSpec(2, ()), ["extrinsic"], observations=(vector_observation(4, "obs"), goal(3))),
]


class Golden:
    """A case's arrays, and our networks with its weights."""

    def __init__(self, case):
        self.case = case
        self.arrays = dict(np.load(GOLDEN / f"{case.file}.npz", allow_pickle=False))
        self.actor = self.make_actor()
        if case.shared:
            self.critic = self.actor
        else:
            self.critic = ValueNetwork(case.streams, list(case.observations), case.settings())
        self.critic.load_state_dict(self.state("Optimizer:critic"))

    def make_actor(self, deterministic=False):
        settings = self.case.settings(deterministic=deterministic)
        arguments = (list(self.case.observations), settings, self.case.action_spec)
        actor = SharedActorCritic(*arguments, self.case.streams) if self.case.shared else SimpleActor(*arguments)
        actor.load_state_dict(self.state("Policy"))
        return actor

    def state(self, module):
        prefix = f"state/{module}/"
        return {k[len(prefix) :]: torch.from_numpy(v) for k, v in self.arrays.items() if k.startswith(prefix)}

    def given(self, name):
        return torch.from_numpy(self.arrays[f"in/{name}"]) if f"in/{name}" in self.arrays else None

    def recorded(self, name):
        return self.arrays[f"out/{name}"]

    @property
    def obs(self):
        return [self.given(f"obs_{index}") for index in range(len(self.case.observations))]

    @property
    def action(self):
        discrete = self.given("discrete_action")
        return AgentAction(self.given("continuous_action"), None if discrete is None else list(discrete.unbind(1)))

    def stats(self):
        return self.actor.get_stats(self.obs, self.action, masks=self.given("action_mask"))

    def by_stream(self, name):
        return {stream: self.given(f"{name}/{stream}") for stream in self.case.streams}


@pytest.fixture(params=CASES, ids=lambda case: case.file)
def golden(request):
    return Golden(request.param)


def test_state_has_the_recorded_keys_in_the_recorded_order(golden):
    """Adam's state in a checkpoint numbers parameters, so their order counts too."""
    assert list(golden.actor.state_dict()) == list(golden.state("Policy"))
    assert list(golden.critic.state_dict()) == list(golden.state("Optimizer:critic"))
    assert list(GlobalSteps().state_dict()) == list(golden.state("global_step"))


def test_a_fresh_actor_has_the_recorded_constants(golden):
    case = golden.case
    fresh = SimpleActor(list(case.observations), case.settings(), case.action_spec).state_dict()
    constants = [key for key in golden.state("Policy") if "." not in key]
    assert len(constants) == 6
    for key in constants:
        assert fresh[key].shape == golden.state("Policy")[key].shape
        assert torch.equal(fresh[key], golden.state("Policy")[key])


def test_encodings(golden):
    close(golden.actor.network_body.observation_encoder(golden.obs), golden.recorded("observation_encoding"))
    encoding, _ = golden.actor.network_body(golden.obs)
    close(encoding, golden.recorded("encoding"))


def test_log_probs_and_entropy(golden):
    stats = golden.stats()
    log_probs = stats["log_probs"]
    close(log_probs.flatten(), golden.recorded("log_prob_flat"))
    close(stats["entropy"], golden.recorded("entropy"))
    if golden.case.action_spec.continuous_size:
        close(log_probs.continuous_tensor, golden.recorded("log_prob_continuous"))
    if golden.case.action_spec.discrete_size:
        close(log_probs.discrete_tensor, golden.recorded("log_prob_discrete"))
        close(log_probs.all_discrete_tensor, golden.recorded("all_log_prob_discrete"))


@pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=lambda case: case.file)
def test_distribution_of_continuous_actions(case):
    golden = Golden(case)
    encoding, _ = golden.actor.network_body(golden.obs)
    gaussian = golden.actor.action_model._get_dists(encoding, golden.given("action_mask")).continuous
    close(gaussian.mean, golden.recorded("mean"))
    close(gaussian.std, golden.recorded("std"))
    close(gaussian.deterministic_sample(), golden.recorded("deterministic_continuous"))


def test_acting_deterministically(golden):
    actor = golden.make_actor(deterministic=True)
    _, run_out, _ = actor.get_action_and_stats(golden.obs, masks=golden.given("action_mask"))
    if golden.case.action_spec.continuous_size:
        close(run_out["env_action"].continuous, golden.recorded("deterministic_continuous_env"))
    if golden.case.action_spec.discrete_size:
        np.testing.assert_array_equal(run_out["env_action"].discrete, golden.recorded("deterministic_discrete"))


def test_values(golden):
    values, memories = golden.critic.critic_pass(golden.obs)
    assert list(values) == golden.case.streams
    assert memories is None
    for stream, value in values.items():
        close(value, golden.recorded(f"value/{stream}"))


def test_losses(golden):
    """Recorded with the values of the time of collection, as the loss is meant, not as 1.1.0's trainer fed it."""
    masks = golden.given("loss_mask")
    assert not masks.all()
    stats = golden.stats()
    values, _ = golden.critic.critic_pass(golden.obs)
    value = trust_region_value_loss(values, golden.by_stream("old_value"), golden.by_stream("return"), EPSILON, masks)
    policy = trust_region_policy_loss(
        golden.given("advantage"), stats["log_probs"], golden.given("old_log_prob_flat"), masks, EPSILON
    )
    entropy = masked_mean(stats["entropy"], masks)
    close(value, golden.recorded("loss/value"))
    close(policy, golden.recorded("loss/policy"))
    close(entropy, golden.recorded("loss/entropy_mean"))
    close(policy + 0.5 * value - BETA * entropy, golden.recorded("loss/total"))


@pytest.mark.parametrize("case", CASES[1:3], ids=lambda case: case.file)
def test_clipping_of_values_bites_in_the_recorded_losses(case):
    """Else the test above could not tell the clipped loss from the plain one."""
    golden = Golden(case)
    values, _ = golden.critic.critic_pass(golden.obs)
    returns = golden.by_stream("return")
    unclipped = trust_region_value_loss(values, returns, returns, EPSILON, golden.given("loss_mask"))
    assert unclipped.item() < 0.9 * float(golden.recorded("loss/value"))


def test_normaliser():
    golden = Golden(CASES[0])
    normalizer = Normalizer(8)
    for batch in golden.given("normalizer_batch"):
        normalizer.update(batch)
    for name, value in normalizer.state_dict().items():
        close(value, golden.recorded(f"normalizer/{name}"))


def test_a_checkpoint_file_loads():
    """`ppo_vector.pt` was written by 1.1.0; it holds the weights of `ppo_vector.npz` and Adam's state."""
    golden = Golden(CASES[0])
    checkpoint = torch.load(GOLDEN / "ppo_vector.pt", weights_only=True)
    actor = SimpleActor(
        [vector_observation(8, "obs")], NetworkSettings(hidden_units=32, normalize=True), ActionSpec(2, ())
    )
    actor.load_state_dict(checkpoint["Policy"])
    golden.critic.load_state_dict(checkpoint["Optimizer:critic"])
    close(actor.get_stats(golden.obs, golden.action)["log_probs"].flatten(), golden.recorded("log_prob_flat"))

    adam = torch.optim.Adam([*actor.parameters(), *golden.critic.parameters()])
    adam.load_state_dict(checkpoint["Optimizer:value_optimizer"])
    learned = [p for p in adam.param_groups[0]["params"] if p in adam.state]
    assert all(adam.state[p]["exp_avg"].shape == p.shape for p in learned)
    assert len(learned) == sum(p.requires_grad for p in adam.param_groups[0]["params"])
    steps = GlobalSteps()
    steps.load_state_dict(checkpoint["global_step"])
    assert int(steps.current_step) > 0
