"""Gradients written out in NumPy against autograd, which defines them, and when each of the two computes them."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.exception import NotFiniteError
from mlagents.trainers.optimizer.gradient_guard import guard_gradients
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.ppo.trainer import PPOSettings, TorchPPOOptimizer
from mlagents.trainers.settings import (
    NetworkSettings,
    RewardSignalSettings,
    RewardSignalType,
    TrainerSettings,
)
from mlagents.trainers.torch_entities.array_learning import ArrayLearner
from mlagents.trainers.torch_entities.components.reward_providers import ExtrinsicRewardProvider
from mlagents.trainers.torch_entities.components.reward_providers.reward_provider_factory import NAME_TO_CLASS
from mlagents.trainers.torch_entities.encoders import Normalizer
from mlagents.trainers.torch_entities.networks import SharedActorCritic, SimpleActor, ValueNetwork
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    vector_observation,
)

VECTORS = [vector_observation(4, "position"), vector_observation(3, "speed")]
IMAGE_KIND = (DimensionProperty.NONE, *[DimensionProperty.TRANSLATIONAL_EQUIVARIANCE] * 2)
IMAGE = ObservationSpec((3, 20, 20), IMAGE_KIND, ObservationType.DEFAULT, "camera")
HYBRID = ActionSpec(2, (3, 2))
TOLERANCE = 2e-6


class SecondRewardProvider(ExtrinsicRewardProvider):
    """A second reward signal."""


@pytest.fixture(autouse=True, scope="module")
def _two_reward_signals():
    NAME_TO_CLASS[RewardSignalType.CURIOSITY] = SecondRewardProvider
    yield
    del NAME_TO_CLASS[RewardSignalType.CURIOSITY]


def make_optimizer(
    action_spec=HYBRID, specs=VECTORS, seed=0, shared_critic=False, kind=TorchPPOOptimizer, signals=1, **network
):
    """Return an optimizer whose networks and statistics are off their initial values."""
    torch.manual_seed(seed)
    names = (RewardSignalType.EXTRINSIC, RewardSignalType.CURIOSITY)[:signals]
    settings = TrainerSettings(
        hyperparameters=PPOSettings(shared_critic=shared_critic, epsilon=0.2, beta=0.01, learning_rate=1e-3),
        network_settings=NetworkSettings(**{"hidden_units": 16, "normalize": True, **network}),
        reward_signals=dict.fromkeys(names, RewardSignalSettings()),
    )
    spec = BehaviorSpec(specs, action_spec)
    actor = SharedActorCritic if shared_critic else SimpleActor
    arguments = {"stream_names": [it.value for it in names]} if shared_critic else {}
    policy = TorchPolicy(seed, spec, settings.network_settings, actor, arguments)
    optimizer = kind(policy, settings)
    for module in (policy.actor, optimizer.critic):
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape)
        for part in module.modules():
            if isinstance(part, Normalizer):
                part.update(0.5 + 2.0 * torch.randn(7, len(part.running_mean)))
    return optimizer


def minibatch(optimizer, rows=12, seed=1, scale=1.0, forbid=True):
    """Return random experience, whose old log-probabilities and values are near to and far from the present ones."""
    rng = np.random.default_rng(seed)
    spec = optimizer.policy.behavior_spec
    actions = spec.action_spec

    def normal(*shape):
        return (scale * rng.standard_normal((rows, *shape))).astype(np.float32)

    batch = AgentBuffer()
    for index, observation in enumerate(spec.observation_specs):
        batch[ObsUtil.get_name_at(index)].set(normal(*observation.shape))
    batch[BufferKey.CONTINUOUS_ACTION].set(normal(actions.continuous_size))
    batch[BufferKey.CONTINUOUS_LOG_PROBS].set(normal(actions.continuous_size) - 2.0)
    if actions.discrete_branches:
        choices = [rng.integers(size, size=rows) for size in actions.discrete_branches]
        batch[BufferKey.DISCRETE_ACTION].set(np.stack(choices, axis=1).astype(np.int32))
        batch[BufferKey.DISCRETE_LOG_PROBS].set(0.3 * normal(actions.discrete_size) - 1.0)
    allowed = np.ones((rows, sum(actions.discrete_branches)), dtype=np.float32)
    if forbid:
        allowed[rng.random(allowed.shape) < 0.3] = 0.0
    batch[BufferKey.ACTION_MASK].set(allowed)
    batch[BufferKey.ADVANTAGES].set(normal())
    for name in optimizer.reward_signals:
        batch[RewardSignalUtil.value_estimates_key(name)].set(0.3 * normal())
        batch[RewardSignalUtil.returns_key(name)].set(normal())
    return batch


def learned(optimizer):
    networks = dict.fromkeys((optimizer.policy.actor, optimizer.critic))
    return [
        (f"{whose} {name}", parameter)
        for whose, network in zip(("actor's", "critic's"), networks)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    ]


def gradients(optimizer):
    return {name: parameter.grad.clone() for name, parameter in learned(optimizer)}


def by_autograd(optimizer, batch):
    metrics = optimizer._differentiate(batch)
    return gradients(optimizer), {name: float(torch.as_tensor(value).detach()) for name, value in metrics.items()}


def written_out(optimizer, batch):
    learner = ArrayLearner.of(optimizer.policy.actor, optimizer.critic)
    metrics = optimizer._differentiate_in_arrays(batch, learner)
    return gradients(optimizer), metrics


def assert_equal_gradients(optimizer, batch):
    expected, expected_metrics = by_autograd(optimizer, batch)
    found, metrics = written_out(optimizer, batch)
    assert found.keys() == expected.keys()
    scale = max(1.0, *(float(gradient.abs().max()) for gradient in expected.values()))
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-4, atol=TOLERANCE * scale, err_msg=name)
    assert metrics.keys() == expected_metrics.keys()
    for name, value in expected_metrics.items():
        assert metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@given(
    action_spec=st.sampled_from(
        [HYBRID, ActionSpec(1, ()), ActionSpec(3, ()), ActionSpec(0, (2,)), ActionSpec(0, (4, 1, 3))]
    ),
    specs=st.sampled_from([VECTORS, VECTORS[:1]]),
    shared_critic=st.booleans(),
    normalize=st.booleans(),
    num_layers=st.integers(1, 3),
    signals=st.integers(1, 2),
    rows=st.integers(1, 70),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.01, 1.0, 10.0]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_the_gradients_are_those_of_autograd(
    action_spec, specs, shared_critic, normalize, num_layers, signals, rows, seed, scale
):
    optimizer = make_optimizer(
        action_spec,
        specs,
        seed,
        shared_critic,
        signals=signals,
        normalize=normalize,
        num_layers=num_layers,
    )
    assert_equal_gradients(optimizer, minibatch(optimizer, rows, seed, scale))


def test_minibatches_of_different_sizes_one_after_the_other():
    optimizer = make_optimizer()
    for rows in (5, 64, 1, 64, 7):
        assert_equal_gradients(optimizer, minibatch(optimizer, rows, seed=rows))


@pytest.mark.parametrize("network", [{"hidden_units": 24}, {"num_layers": 3}])
def test_a_critic_of_another_size(network):
    class OtherCritic(TorchPPOOptimizer):
        def create_critic(self):
            policy = self.policy
            settings = NetworkSettings(**{"hidden_units": 16, "num_layers": 2, "normalize": True, **network})
            return ValueNetwork(self.stream_names, policy.behavior_spec.observation_specs, settings)

    optimizer = make_optimizer(kind=OtherCritic)
    assert_equal_gradients(optimizer, minibatch(optimizer))


@pytest.mark.parametrize("shared_critic", [False, True])
def test_training_goes_where_autograd_goes(shared_critic):
    fast, slow = (make_optimizer(shared_critic=shared_critic, signals=2) for _ in range(2))
    slow.loss = slow.loss  # an instance's own is autograd's
    for number in range(50):
        batch = minibatch(fast, rows=32, seed=number)
        for optimizer in (fast, slow):
            stats = optimizer.update(batch, 32)
    assert fast._array_learner._arrays is not None
    assert slow._array_learner._arrays is None
    for (name, ours), (_, theirs) in zip(learned(fast), learned(slow)):
        np.testing.assert_allclose(ours.detach(), theirs.detach(), atol=2e-4, err_msg=name)
    assert stats["Losses/Value Loss"] > 0


def test_a_forbidden_choice_has_no_gradient():
    optimizer = make_optimizer(ActionSpec(0, (3,)))
    batch = minibatch(optimizer, forbid=False)
    allowed = batch[BufferKey.ACTION_MASK].to_ndarray()
    allowed[:, 2] = 0.0
    batch[BufferKey.DISCRETE_ACTION].to_ndarray()[:] %= 2
    found, _ = written_out(optimizer, batch)
    of_branch = found["actor's action_model._discrete_distribution.branches.0.weight"]
    assert of_branch[:2].abs().sum() > 0
    assert of_branch[2].abs().sum() == 0


def test_a_choice_that_is_kept_as_a_float():
    optimizer = make_optimizer()
    batch = minibatch(optimizer)
    expected, _ = written_out(optimizer, batch)
    batch[BufferKey.DISCRETE_ACTION].set(batch[BufferKey.DISCRETE_ACTION].to_ndarray().astype(np.float32))
    found, _ = written_out(optimizer, batch)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# Which of the two computes them


class AnotherLoss(TorchPPOOptimizer):
    """A plug-in's loss: nobody wrote its gradients out."""

    def loss(self, batch):
        loss, metrics = super().loss(batch)
        return 2.0 * loss, metrics


class AnotherNetwork(SimpleActor):
    """A plug-in's network."""


def freeze(optimizer):
    optimizer.critic.network_body._body_endoder.seq_layers[0].weight.requires_grad_(False)


def hook(optimizer):
    optimizer.critic.network_body._body_endoder.seq_layers[0].weight.register_hook(lambda gradient: gradient)


def hook_after(optimizer):
    optimizer.policy.actor.action_model._continuous_distribution.log_sigma.register_post_accumulate_grad_hook(print)


def squash(optimizer):
    optimizer.policy.actor.action_model._continuous_distribution.tanh_squash = True


def replace_stats(optimizer):
    optimizer.policy.actor.get_stats = optimizer.policy.actor.get_stats


def to_double(optimizer):
    optimizer.policy.actor.double()


def replace_loss(optimizer):
    optimizer.loss = optimizer.loss


CHANGES = [freeze, hook, hook_after, squash, replace_stats, to_double, replace_loss]


def computes_itself(optimizer):
    """Return whether an update would do without autograd."""
    return optimizer._find_learner() is not None


def test_the_standard_networks_need_no_autograd(monkeypatch):
    optimizer = make_optimizer()
    assert computes_itself(optimizer)
    monkeypatch.setattr(torch.Tensor, "backward", None)
    before = copy.deepcopy(optimizer.policy.actor.state_dict())
    optimizer.update(minibatch(optimizer), 12)
    changed = [
        name for name, value in optimizer.policy.actor.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert any("seq_layers" in name for name in changed)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_is_changed_is_left_to_autograd(change):
    optimizer = make_optimizer()
    change(optimizer)
    assert not computes_itself(optimizer)


@pytest.mark.parametrize("change", CHANGES[:3] + CHANGES[-1:], ids=lambda change: change.__name__)
def test_what_is_changed_later_is_left_to_autograd(change):
    optimizer = make_optimizer()
    optimizer.update(minibatch(optimizer), 12)
    change(optimizer)
    assert not computes_itself(optimizer)
    optimizer.update(minibatch(optimizer), 12)


def test_a_frozen_layer_stays_as_it_is():
    optimizer = make_optimizer()
    optimizer.update(minibatch(optimizer), 12)
    freeze(optimizer)
    weight = optimizer.critic.network_body._body_endoder.seq_layers[0].weight
    before = weight.detach().clone()
    for seed in range(3):
        optimizer.optimizer.zero_grad()
        optimizer.update(minibatch(optimizer, seed=seed), 12)
    assert torch.equal(weight, before)


def test_a_plug_ins_loss_is_differentiated_by_autograd():
    optimizer = make_optimizer(kind=AnotherLoss)
    assert not computes_itself(optimizer)
    ordinary = make_optimizer()
    batch = minibatch(optimizer)
    once, _ = by_autograd(ordinary, batch)
    optimizer.update(batch, 12)
    twice = gradients(optimizer)
    assert all(torch.allclose(twice[name], 2.0 * once[name]) for name in once)


@pytest.mark.parametrize(
    "arguments",
    [{"specs": [IMAGE]}, {"memory": NetworkSettings.MemorySettings(sequence_length=4, memory_size=8)}],
    ids=["image", "memory"],
)
def test_other_networks_are_left_to_autograd(arguments):
    assert not computes_itself(make_optimizer(**arguments))


def test_a_plug_ins_network_is_left_to_autograd():
    optimizer = make_optimizer()
    optimizer.policy.actor.__class__ = AnotherNetwork
    assert not computes_itself(optimizer)


def test_networks_that_are_exchanged_learn_in_the_place_of_the_former():
    optimizer = make_optimizer()
    optimizer.update(minibatch(optimizer), 12)
    former, present = optimizer.critic, copy.deepcopy(optimizer.critic)
    optimizer.critic = present
    found, _ = written_out(optimizer, minibatch(optimizer))
    head = "value_heads.value_heads.extrinsic.weight"
    assert torch.equal(found[f"critic's {head}"], dict(present.named_parameters())[head].grad)
    assert dict(former.named_parameters())[head].grad is None


# What must not happen


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (BufferKey.ADVANTAGES, "loss .* gave NaN"),
        (BufferKey.CONTINUOUS_ACTION, "loss .* gave NaN"),
        (RewardSignalUtil.returns_key("extrinsic"), "loss .* gave NaN"),
    ],
)
def test_nan_is_refused_and_changes_nothing(key, said):
    optimizer = make_optimizer()
    batch = minibatch(optimizer)
    batch[key].to_ndarray()[3] = np.nan
    before = [parameter.detach().clone() for _, parameter in learned(optimizer)]
    with pytest.raises(NotFiniteError, match=said):
        optimizer.update(batch, 12)
    assert all(torch.equal(was, parameter) for was, (_, parameter) in zip(before, learned(optimizer)))


def test_gradients_that_are_too_large_are_refused_by_name():
    optimizer = make_optimizer()
    guard_gradients(optimizer.get_modules())
    batch = minibatch(optimizer)
    batch[RewardSignalUtil.returns_key("extrinsic")].to_ndarray()[:] = 5e18
    with pytest.raises(NotFiniteError, match=r"gradient of Optimizer:critic, .* is too large"):
        optimizer.update(batch, 12)


@pytest.mark.filterwarnings("error")
def test_very_large_observations_warn_of_nothing():
    optimizer = make_optimizer(normalize=False)
    batch = minibatch(optimizer)
    for index in range(len(VECTORS)):
        batch[ObsUtil.get_name_at(index)].to_ndarray()[:] *= 1000.0
    batch[BufferKey.CONTINUOUS_LOG_PROBS].to_ndarray()[:] += 1e4
    assert_equal_gradients(optimizer, batch)


def test_checkpoints_hold_the_parameters_and_nothing_else():
    optimizer = make_optimizer()
    before = [(name, parameter.untyped_storage().nbytes()) for name, parameter in learned(optimizer)]
    optimizer.update(minibatch(optimizer), 12)
    assert [(name, parameter.untyped_storage().nbytes()) for name, parameter in learned(optimizer)] == before


def test_a_copy_of_an_optimizer_learns_for_itself():
    optimizer = make_optimizer()
    optimizer.update(minibatch(optimizer), 12)
    twin = copy.deepcopy(optimizer)
    before = [parameter.detach().clone() for _, parameter in learned(optimizer)]
    twin.update(minibatch(twin), 12)
    assert all(torch.equal(was, parameter) for was, (_, parameter) in zip(before, learned(optimizer)))
    assert not torch.equal(before[0], learned(twin)[0][1])
