"""SAC's gradients written out in NumPy against autograd, which defines them, and when each of the two computes them."""

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
from mlagents.trainers.sac import array_learning
from mlagents.trainers.sac.optimizer_torch import SACSettings, TorchSACOptimizer
from mlagents.trainers.settings import NetworkSettings, RewardSignalSettings, RewardSignalType, TrainerSettings
from mlagents.trainers.torch_entities.components.reward_providers import ExtrinsicRewardProvider
from mlagents.trainers.torch_entities.components.reward_providers.reward_provider_factory import NAME_TO_CLASS
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, image_observation, vector_observation

VECTORS = [vector_observation(4, "position"), vector_observation(3, "speed")]
CONTINUOUS = ActionSpec(2, ())


class SecondRewardProvider(ExtrinsicRewardProvider):
    """A second reward signal."""


@pytest.fixture(autouse=True, scope="module")
def _two_reward_signals():
    NAME_TO_CLASS[RewardSignalType.CURIOSITY] = SecondRewardProvider
    yield
    del NAME_TO_CLASS[RewardSignalType.CURIOSITY]


def make_optimizer(action_spec=CONTINUOUS, specs=VECTORS, seed=0, kind=TorchSACOptimizer, signals=1, **network):
    """Return an optimizer whose networks, statistics and entropy's weight are off their initial values."""
    torch.manual_seed(seed)
    names = (RewardSignalType.EXTRINSIC, RewardSignalType.CURIOSITY)[:signals]
    settings = TrainerSettings(
        hyperparameters=SACSettings(learning_rate=1e-3, tau=0.1, init_entcoef=0.3),
        network_settings=NetworkSettings(**{"hidden_units": 16, "normalize": True, **network}),
        reward_signals={name: RewardSignalSettings(gamma=gamma) for name, gamma in zip(names, (0.9, 0.7))},
    )
    actor_kwargs = {"conditional_sigma": True, "tanh_squash": True}
    policy = TorchPolicy(seed, BehaviorSpec(specs, action_spec), settings.network_settings, SimpleActor, actor_kwargs)
    optimizer = kind(policy, settings)
    optimizer.use_dones_in_backup = {name: float(index == 0) for index, name in enumerate(optimizer.stream_names)}
    for module in (policy.actor, optimizer.q_network, optimizer.critic, optimizer.target_network):
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape)
    seen = AgentBuffer()
    for index, observation in enumerate(specs):
        seen[ObsUtil.get_name_at(index)].set(
            0.5 + 2.0 * np.random.default_rng(seed).normal(size=(7, *observation.shape))
        )
    policy.actor.update_normalization(seen)
    return optimizer


def minibatch(optimizer, rows=12, seed=1, scale=1.0):
    """Return random experience."""
    rng = np.random.default_rng(seed)
    spec = optimizer.policy.behavior_spec

    def normal(*shape):
        return (scale * rng.standard_normal((rows, *shape))).astype(np.float32)

    batch = AgentBuffer()
    for index, observation in enumerate(spec.observation_specs):
        batch[ObsUtil.get_name_at(index)].set(normal(*observation.shape))
        batch[ObsUtil.get_name_at_next(index)].set(normal(*observation.shape))
    batch[BufferKey.CONTINUOUS_ACTION].set(np.tanh(normal(spec.action_spec.continuous_size)))
    choices = [rng.integers(size, size=rows) for size in spec.action_spec.discrete_branches]
    if choices:
        batch[BufferKey.DISCRETE_ACTION].set(np.stack(choices, axis=1).astype(np.int32))
    batch[BufferKey.ACTION_MASK].set(np.ones((rows, sum(spec.action_spec.discrete_branches)), dtype=np.float32))
    batch[BufferKey.DONE].set(rng.random(rows) < 0.3)
    for name in optimizer.stream_names:
        batch[RewardSignalUtil.rewards_key(name)].set(normal())
    return batch


def learned(optimizer):
    modules = {
        "actor": optimizer.policy.actor,
        "q": optimizer.q_network,
        "value": optimizer.critic,
        "weight": optimizer.log_ent_coef,
    }
    return {
        f"{name} {key}": parameter
        for name, module in modules.items()
        for key, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.numel()
    }


def gradients(optimizer):
    return {name: parameter.grad.clone() for name, parameter in learned(optimizer).items()}


def with_noise(monkeypatch, seed):
    """Let both draw the same."""

    def noise(like):
        shape = like if isinstance(like, tuple) else tuple(like.shape)
        return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)

    monkeypatch.setattr(array_learning, "draw_noise", noise)
    monkeypatch.setattr(torch, "randn_like", lambda tensor: torch.from_numpy(noise(tensor)))


def written_out(optimizer, batch):
    learner = optimizer._find_learner()
    assert learner is not None
    return optimizer._differentiate_in_arrays(batch, learner), gradients(optimizer)


def assert_equal_gradients(optimizer, batch):
    with pytest.MonkeyPatch.context() as monkeypatch:
        with_noise(monkeypatch, seed=3)
        expected_losses, expected = optimizer._differentiate(batch), gradients(optimizer)
        losses, found = written_out(optimizer, batch)
    assert losses.keys() == expected_losses.keys()
    for name, loss in expected_losses.items():
        assert losses[name] == pytest.approx(loss, rel=1e-4, abs=1e-5), name
    assert found.keys() == expected.keys()
    scale = max(1.0, *(float(gradient.abs().max()) for gradient in expected.values()))
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-3, atol=5e-6 * scale, err_msg=name)


@given(
    actions=st.integers(1, 4),
    specs=st.sampled_from([VECTORS, VECTORS[:1]]),
    normalize=st.booleans(),
    num_layers=st.integers(1, 3),
    signals=st.integers(1, 2),
    rows=st.integers(1, 70),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.01, 1.0, 5.0]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_losses_and_gradients_are_those_of_autograd(actions, specs, normalize, num_layers, signals, rows, seed, scale):
    spec = ActionSpec(actions, ())
    optimizer = make_optimizer(spec, specs, seed, signals=signals, normalize=normalize, num_layers=num_layers)
    assert_equal_gradients(optimizer, minibatch(optimizer, rows, seed, scale))


def test_minibatches_of_different_sizes_one_after_the_other():
    optimizer = make_optimizer()
    for rows in (5, 64, 1, 64, 7):
        assert_equal_gradients(optimizer, minibatch(optimizer, rows, seed=rows))


@pytest.mark.parametrize("log_sigma", [-30.0, 30.0])
def test_a_deviation_beyond_its_bounds_has_no_gradient(log_sigma):
    optimizer = make_optimizer()
    with torch.no_grad():
        optimizer.policy.actor.action_model._continuous_distribution.log_sigma.bias.fill_(log_sigma)
    batch = minibatch(optimizer)
    _, found = written_out(optimizer, batch)
    assert not found["actor action_model._continuous_distribution.log_sigma.bias"].any()
    assert found["actor action_model._continuous_distribution.mu.bias"].any()


def test_training_goes_where_autograd_goes(monkeypatch):
    fast, slow = (make_optimizer(signals=2) for _ in range(2))
    slow._losses = slow._losses  # an instance's own is autograd's
    for number in range(50):
        batch = minibatch(fast, rows=32, seed=number)
        with_noise(monkeypatch, seed=number)
        for optimizer in (fast, slow):
            stats = optimizer.update(batch, 32)
    assert fast._array_learner._arrays is not None
    assert slow._array_learner._arrays is None
    theirs = learned(slow)
    for name, ours in learned(fast).items():
        np.testing.assert_allclose(ours.detach(), theirs[name].detach(), atol=2e-4, err_msg=name)
    for ours, target in zip(fast.target_network.parameters(), slow.target_network.parameters()):
        np.testing.assert_allclose(ours.detach(), target.detach(), atol=2e-4)
    assert stats["Losses/Q1 Loss"] > 0


def test_new_statistics_of_observations_are_those_of_all_networks():
    optimizer = make_optimizer()
    optimizer.update(minibatch(optimizer), 12)
    seen = AgentBuffer()
    for index, observation in enumerate(VECTORS):
        seen[ObsUtil.get_name_at(index)].set(3.0 + np.random.default_rng(5).normal(size=(9, *observation.shape)))
    optimizer.policy.actor.update_normalization(seen)
    assert_equal_gradients(optimizer, minibatch(optimizer))


class AnotherLoss(TorchSACOptimizer):
    """A plug-in's."""

    def sac_value_loss(self, *args):
        return 2.0 * super().sac_value_loss(*args)


class AnotherStep(TorchSACOptimizer):
    """A plug-in that adds something around the update."""

    def update(self, batch, num_sequences):
        return {**super().update(batch, num_sequences), "mine": 1.0}


def freeze(optimizer):
    next(optimizer.critic.parameters()).requires_grad_(False)


def hook(optimizer):
    next(optimizer.q_network.parameters()).register_hook(lambda gradient: gradient)


def replace_loss(optimizer):
    optimizer.sac_policy_loss = optimizer.sac_policy_loss


def hook_forward(optimizer):
    optimizer.target_network.network_body.register_forward_hook(lambda *_: None)


def act_deterministically(optimizer):
    optimizer.policy.actor.action_model.act_deterministically()


@pytest.mark.parametrize("change", [freeze, hook, replace_loss, hook_forward, act_deterministically])
def test_what_is_changed_later_is_left_to_autograd(change):
    optimizer = make_optimizer()
    assert optimizer._find_learner() is not None
    change(optimizer)
    assert optimizer._find_learner() is None
    assert optimizer.update(minibatch(optimizer), 12)["Losses/Value Loss"] > 0


@pytest.mark.parametrize(
    ("action_spec", "specs", "network"),
    [
        (ActionSpec(2, (3,)), VECTORS, {}),
        (ActionSpec(0, (3,)), VECTORS, {}),
        (CONTINUOUS, [image_observation(1, 20, 20, "camera")], {}),
        (CONTINUOUS, VECTORS, {"memory": NetworkSettings.MemorySettings(sequence_length=2, memory_size=4)}),
    ],
    ids=["hybrid", "discrete", "image", "memory"],
)
def test_other_networks_are_left_to_autograd(action_spec, specs, network):
    assert make_optimizer(action_spec, specs, **network)._find_learner() is None


def test_a_plug_ins_loss_is_differentiated_by_autograd():
    optimizer = make_optimizer(kind=AnotherLoss)
    assert optimizer._find_learner() is None
    assert optimizer.update(minibatch(optimizer), 12)["Losses/Value Loss"] > 0


def test_a_plug_in_that_leaves_the_losses_alone_needs_no_autograd(monkeypatch):
    optimizer = make_optimizer(kind=AnotherStep)

    def fail(*_, **__):
        raise AssertionError("autograd")

    monkeypatch.setattr(torch.Tensor, "backward", fail)
    assert optimizer.update(minibatch(optimizer), 12)["mine"] == 1.0


def test_networks_that_are_exchanged_learn_in_the_place_of_the_former():
    optimizer = make_optimizer()
    optimizer.update(minibatch(optimizer), 12)
    former, optimizer.critic = optimizer.critic, copy.deepcopy(optimizer.critic)
    written_out(optimizer, minibatch(optimizer, seed=9))
    assert all(parameter.grad is not None for parameter in optimizer.critic.parameters())
    assert all(parameter.grad is None for parameter in former.parameters())


def test_nan_is_refused_by_name_and_changes_nothing():
    optimizer = make_optimizer()
    batch = minibatch(optimizer)
    batch[RewardSignalUtil.rewards_key("extrinsic")].to_ndarray()[0] = np.nan
    before = {name: parameter.detach().clone() for name, parameter in learned(optimizer).items()}
    with pytest.raises(NotFiniteError, match="TorchSACOptimizer: the loss q1 is not finite"):
        optimizer.update(batch, 12)
    for name, parameter in learned(optimizer).items():
        assert torch.equal(parameter, before[name]), name


def test_gradients_that_are_too_large_are_refused_by_name():
    optimizer = make_optimizer(normalize=False)
    guard_gradients(optimizer.get_modules())
    batch = minibatch(optimizer)
    batch[RewardSignalUtil.rewards_key("extrinsic")].to_ndarray()[:] = 3e18
    with pytest.raises(NotFiniteError, match="the gradient of Optimizer:"):
        optimizer.update(batch, 12)


def test_the_seed_decides_what_is_drawn():
    def after(seed):
        optimizer = make_optimizer()
        np.random.seed(seed)
        optimizer.update(minibatch(optimizer), 12)
        return torch.cat([it.detach().flatten() for it in optimizer.policy.actor.parameters()])

    assert torch.equal(after(1), after(1))
    assert not torch.equal(after(1), after(2))
