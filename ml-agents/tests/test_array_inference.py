"""Acting and values in NumPy against the torch modules, which define them."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.array_inference import ArrayActor, ArrayCritic
from mlagents.trainers.torch_entities.encoders import Normalizer
from mlagents.trainers.torch_entities.networks import (
    SharedActorCritic,
    SimpleActor,
    ValueNetwork,
)
from mlagents_envs.base_env import ActionSpec, vector_observation

GOLDEN = Path(__file__).parent / "data" / "golden"
SPECS = [vector_observation(4, "position"), vector_observation(3, "speed")]
HYBRID = ActionSpec(2, (3, 2))
STREAMS = ["extrinsic", "curiosity"]


def close(ours, theirs):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def normalizers(network):
    return [module for module in network.modules() if isinstance(module, Normalizer)]


def stir(network, seed=1, scale=0.1):
    """Move all weights and statistics off their initial values, so that every one of them counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    for normalizer in normalizers(network):
        size = len(normalizer.running_mean)
        normalizer.update(0.5 + 2.0 * torch.randn(7, size, generator=generator))
    return network


def make_actor(**changes):
    torch.manual_seed(0)
    settings = NetworkSettings(**{"hidden_units": 16, "normalize": True, **changes})
    return stir(SimpleActor(SPECS, settings, HYBRID))


def make_shared(**changes):
    torch.manual_seed(0)
    settings = NetworkSettings(**{"hidden_units": 16, "normalize": True, **changes})
    return stir(SharedActorCritic(SPECS, settings, HYBRID, STREAMS))


def make_critic(**changes):
    torch.manual_seed(0)
    return stir(ValueNetwork(STREAMS, SPECS, NetworkSettings(**{"hidden_units": 16, "normalize": True, **changes})))


def observations(rows=6, specs=SPECS, seed=2, scale=1.0):
    rng = np.random.default_rng(seed)
    return [(scale * rng.standard_normal((rows, *spec.shape))).astype(np.float32) for spec in specs]


def tensors(obs):
    return [torch.from_numpy(values) for values in obs]


def random_masks(rows, action_spec, seed):
    """Return 1 = allowed, 0 = forbidden, with at least one choice allowed in every branch."""
    rng = np.random.default_rng(seed)
    masks = []
    for size in action_spec.discrete_branches:
        mask = (rng.random((rows, size)) < 0.6).astype(np.float32)
        mask[np.arange(rows), rng.integers(size, size=rows)] = 1.0
        masks.append(mask)
    return np.concatenate(masks, axis=1) if masks else None


def act_in_torch(actor, obs, allowed=None):
    with torch.no_grad():
        action, run_out, _ = actor.get_action_and_stats(
            tensors(obs), masks=None if allowed is None else torch.from_numpy(allowed)
        )
    return action.to_action_tuple(), run_out


def assert_acts_like_torch(actor, obs, allowed=None):
    """Compare probabilities of what the arrays chose, or, where nothing is left to chance, the choices themselves."""
    decision = ArrayActor.of(actor).act(obs, allowed)
    action = decision.action
    assert action.continuous.dtype == np.float32
    assert action.discrete.dtype == np.int32
    given_action = AgentAction(
        torch.from_numpy(action.continuous) if actor.action_spec.continuous_size else None,
        [torch.from_numpy(column).long() for column in action.discrete.T] or None,
    )
    masks = None if allowed is None else torch.from_numpy(allowed)
    stats = actor.get_stats(tensors(obs), given_action, masks=masks)
    log_probs = stats["log_probs"].to_log_probs_tuple()
    if actor.action_model.clip_action:
        close(decision.log_probs.continuous, log_probs.continuous)
        close(decision.env_action.continuous, np.clip(action.continuous, -3, 3) / 3)
    else:
        # What is given leads back through atanh, whose slope is without bounds.
        inner = np.abs(action.continuous) < 0.99
        given_back = np.where(inner, log_probs.continuous, 0.0)
        np.testing.assert_allclose(
            np.where(inner, decision.log_probs.continuous, 0.0), given_back, rtol=1e-3, atol=1e-3
        )
        close(decision.env_action.continuous, action.continuous)
    close(decision.log_probs.discrete, log_probs.discrete)
    close(decision.entropy, stats["entropy"])
    np.testing.assert_array_equal(decision.env_action.discrete, action.discrete)
    if actor.action_model._deterministic:
        best, run_out = act_in_torch(actor, obs, allowed)
        close(action.continuous, best.continuous)
        close(decision.env_action.continuous, run_out["env_action"].continuous)
        np.testing.assert_array_equal(action.discrete, best.discrete)


def assert_values_like_torch(critic, obs):
    values = ArrayCritic.of(critic).values(obs)
    with torch.no_grad():
        expected, _ = critic.critic_pass(tensors(obs))
    assert list(values) == list(expected)
    for name, value in values.items():
        close(value, expected[name])


network_shapes = st.fixed_dictionaries(
    {
        "normalize": st.booleans(),
        "hidden_units": st.sampled_from([1, 5, 16, 33]),
        "num_layers": st.integers(1, 3),
        "deterministic": st.booleans(),
    }
)
SQUASHED = {"conditional_sigma": True, "tanh_squash": True}
observation_specs = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(
    lambda sizes: [vector_observation(size, f"obs{index}") for index, size in enumerate(sizes)]
)
action_specs = st.builds(ActionSpec, st.integers(0, 3), st.lists(st.integers(1, 4), max_size=3).map(tuple)).filter(
    lambda spec: spec.continuous_size + spec.discrete_size > 0
)


@given(
    network_shapes,
    observation_specs,
    action_specs,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 5),
    st.integers(0, 999),
)
@hypothesis_settings(max_examples=200, deadline=None, derandomize=True)
def test_any_network_acts_and_estimates_as_in_torch(shape, specs, action_spec, masked, shared, squashed, rows, seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    settings = NetworkSettings(**shape)
    streams = STREAMS[: 1 + seed % 2]
    if shared:
        actor = critic = stir(SharedActorCritic(specs, settings, action_spec, streams), seed)
    else:
        actor = stir(SimpleActor(specs, settings, action_spec, **(SQUASHED if squashed else {})), seed)
        critic = stir(ValueNetwork(streams, specs, settings), seed + 1)
    obs = observations(rows, specs, seed)
    assert_acts_like_torch(actor, obs, random_masks(rows, action_spec, seed) if masked else None)
    assert_values_like_torch(critic, obs)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("value", [1e4, -1e4, 0.0])
def test_extreme_observations_give_no_warnings(value, normalize):
    actor = make_shared(normalize=normalize, deterministic=True)
    obs = [np.full((3, *spec.shape), value, dtype=np.float32) for spec in SPECS]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decision = ArrayActor.of(actor).act(obs, np.ones((3, 5), dtype=np.float32))
        values = ArrayCritic.of(actor).values(obs)
    best, run_out = act_in_torch(actor, obs, np.ones((3, 5), dtype=np.float32))
    np.testing.assert_allclose(decision.action.continuous, best.continuous, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(decision.action.discrete, best.discrete)
    np.testing.assert_allclose(decision.entropy, run_out["entropy"], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        expected, _ = actor.critic_pass(tensors(obs))
    for name in STREAMS:
        np.testing.assert_allclose(values[name], expected[name], rtol=1e-4, atol=1e-5)


def test_a_branch_with_nothing_allowed_is_uniform_as_in_torch():
    allowed = np.tile(np.array([0, 0, 0, 1, 0], dtype=np.float32), (6, 1))
    actor = make_actor()
    assert_acts_like_torch(actor, observations(), allowed)
    decision = ArrayActor.of(actor).act(observations(), allowed)
    np.testing.assert_allclose(decision.log_probs.discrete[:, 0], np.log(1 / 3), rtol=1e-5)


def test_continuous_samples_have_the_mean_and_spread_of_the_distribution():
    np.random.seed(1)
    actor, n = make_actor(), 40_000
    obs = [np.repeat(values[:1], n, axis=0) for values in observations()]
    drawn = ArrayActor.of(actor).act(obs, None).action.continuous
    encoding, _ = actor.network_body([values[:1] for values in tensors(obs)])
    dist = actor.action_model._get_dists(encoding, None).continuous
    std = dist.std[0].detach().numpy()
    np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - dist.mean[0].detach().numpy()), 5 * std / np.sqrt(n))
    np.testing.assert_allclose(drawn.std(axis=0), std, rtol=0.02)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 5 / np.sqrt(n)


def test_squashed_samples_have_the_mean_and_spread_of_the_distribution_before_they_are_squashed():
    np.random.seed(0)
    torch.manual_seed(0)
    actor = stir(SimpleActor(SPECS, NetworkSettings(hidden_units=16), HYBRID, **SQUASHED))
    with torch.no_grad():
        actor.action_model._continuous_distribution.log_sigma.bias.sub_(1.5)  # tanh is 1 where these are large
    one = observations(1)
    obs = [np.repeat(values, 40_000, axis=0) for values in one]
    unsquashed = np.arctanh(ArrayActor.of(actor).act(obs, None).action.continuous.astype(np.float64))
    encoding, _ = actor.network_body(tensors(one))
    gaussian = actor.action_model._get_dists(encoding, None).continuous
    np.testing.assert_allclose(unsquashed.mean(axis=0), gaussian.mean[0].detach(), atol=0.03)
    np.testing.assert_allclose(unsquashed.std(axis=0), gaussian.std[0].detach(), rtol=0.02)


def test_choices_come_as_often_as_they_are_probable_and_forbidden_ones_never():
    np.random.seed(1)
    actor, n = make_actor(), 40_000
    obs = [np.repeat(values[:1], n, axis=0) for values in observations()]
    allowed = np.tile(np.array([1, 0, 1, 1, 1], dtype=np.float32), (n, 1))
    drawn = ArrayActor.of(actor).act(obs, allowed).action.discrete
    encoding, _ = actor.network_body([values[:1] for values in tensors(obs)])
    dists = actor.action_model._get_dists(encoding, torch.from_numpy(allowed[:1])).discrete
    probs = [dist.probs[0].detach().numpy() for dist in dists]
    for branch, expected in enumerate(probs):
        frequencies = np.bincount(drawn[:, branch], minlength=len(expected)) / n
        assert np.all(np.abs(frequencies - expected) <= 5 * np.sqrt(expected * (1 - expected) / n))
    assert 0.1 < probs[0][0] < 0.9
    assert not (drawn[:, 0] == 1).any()
    together = np.mean((drawn[:, 0] == 0) & (drawn[:, 1] == 0))
    assert together == pytest.approx(probs[0][0] * probs[1][0], abs=5 * 0.5 / np.sqrt(n))  # branches are independent


@hypothesis_settings(max_examples=25, deadline=None, derandomize=True)
@given(
    network_shapes,
    st.sampled_from([SPECS, SPECS[:1]]),
    st.sampled_from([HYBRID, ActionSpec(1, ()), ActionSpec(0, (3, 2))]),
    st.booleans(),
    st.sampled_from([2, 6, 30]),
)
def test_a_memory_is_handed_on_as_in_torch(shape, specs, action_spec, shared, memory_size):
    torch.manual_seed(1)
    memory = NetworkSettings.MemorySettings(memory_size=memory_size)
    network_settings = NetworkSettings(**{**shape, "memory": memory, "deterministic": True})
    kind = SharedActorCritic if shared else SimpleActor
    arguments = (specs, network_settings, action_spec, STREAMS) if shared else (specs, network_settings, action_spec)
    actor = stir(kind(*arguments))
    arrays = ArrayActor.of(actor)
    assert arrays.memory_size == memory_size
    ours = np.zeros((4, memory_size), dtype=np.float32)
    theirs = torch.zeros(1, 4, memory_size)
    for step in range(10):
        obs = observations(4, specs, seed=step)
        decision, ours = arrays.act_with_memory(obs, None, ours)
        with torch.no_grad():
            action, run_out, theirs = actor.get_action_and_stats(tensors(obs), memories=theirs)
        assert ours.dtype == np.float32
        close(ours, theirs[0])
        close(decision.action.continuous, action.to_action_tuple().continuous)
        np.testing.assert_array_equal(decision.action.discrete, action.to_action_tuple().discrete)
        close(decision.log_probs.continuous, run_out["log_probs"].to_log_probs_tuple().continuous)
        close(decision.entropy, run_out["entropy"])


def test_the_seed_decides_what_is_drawn():
    actor, obs = ArrayActor.of(make_actor()), observations()
    drawn = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        drawn.append(actor.act(obs, None).action)
    np.testing.assert_array_equal(drawn[0].continuous, drawn[1].continuous)
    np.testing.assert_array_equal(drawn[0].discrete, drawn[1].discrete)
    assert not np.array_equal(drawn[0].continuous, drawn[2].continuous)


def test_observations_are_left_as_they_were():
    network, obs = make_shared(normalize=False), observations()
    before = copy.deepcopy(obs)
    ArrayActor.of(network).act(obs, np.ones((6, 5), dtype=np.float32))
    ArrayCritic.of(network).values(obs)
    for values, expected in zip(obs, before):
        np.testing.assert_array_equal(values, expected)


GOLDEN_CASES = {
    "ppo_vector": (ActionSpec(2, ()), ["extrinsic"], True, False),
    "ppo_shared_discrete": (ActionSpec(0, (3, 2)), ["extrinsic"], False, True),
    "ppo_curiosity_rnd": (ActionSpec(2, (3,)), ["extrinsic", "curiosity", "rnd"], False, False),
}


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_golden_figures(name):
    """What ML-Agents 1.1.0 computed from these weights."""
    action_spec, streams, normalize, shared = GOLDEN_CASES[name]
    arrays = dict(np.load(GOLDEN / f"{name}.npz", allow_pickle=False))
    settings = NetworkSettings(hidden_units=32, normalize=normalize, deterministic=True)
    specs = [vector_observation(8, "obs")]

    def load(network, module):
        prefix = f"state/{module}/"
        state = {k[len(prefix) :]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)}
        network.load_state_dict(state)
        return network

    actor = SharedActorCritic(specs, settings, action_spec, streams) if shared else None
    actor = load(actor or SimpleActor(specs, settings, action_spec), "Policy")
    critic = actor if shared else load(ValueNetwork(streams, specs, settings), "Optimizer:critic")
    obs = [arrays["in/obs_0"]]
    decision = ArrayActor.of(actor).act(obs, arrays.get("in/action_mask"))
    close(decision.entropy, arrays["out/entropy"])
    if action_spec.continuous_size:
        close(decision.action.continuous, arrays["out/deterministic_continuous"])
        close(decision.env_action.continuous, arrays["out/deterministic_continuous_env"])
    if action_spec.discrete_size:
        np.testing.assert_array_equal(decision.action.discrete, arrays["out/deterministic_discrete"])
    values = ArrayCritic.of(critic).values(obs)
    assert list(values) == streams
    for stream in streams:
        close(values[stream], arrays[f"out/value/{stream}"])
