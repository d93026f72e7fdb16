"""Every kind of observation, action, memory and policy in ONNX Runtime: what Unity gets acts as the policy does.

Deterministic outputs are those of torch, also where a memory is handed on; samples follow the distribution.
"""

import itertools
import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import ConditioningType, EncoderType, NetworkSettings
from mlagents.trainers.torch_entities.model_serialization import ModelSerializer
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)

N_STEPS, N_SAMPLES = 20, 20000
LEVEL = 1e-8
"""How often one comparison of samples with a distribution may fail where nothing is wrong; there are 16."""
MOVES = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE


def spec_of(shape, properties, name):
    return ObservationSpec(shape, properties, ObservationType.DEFAULT, name)


def image(rng, smallest=36):
    shape = (int(rng.integers(1, 4)), *map(int, rng.integers(smallest, smallest + 12, size=2)))
    return spec_of(shape, (DimensionProperty.NONE, MOVES, MOVES), "image")


def vector(rng):
    return spec_of((int(rng.integers(1, 7)),), (DimensionProperty.NONE,), "vector")


def entities(rng):
    shape = int(rng.integers(1, 8)), int(rng.integers(1, 6))
    return spec_of(shape, (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE), "entities")


def goal(kind):
    return lambda rng: kind(rng)._replace(observation_type=ObservationType.GOAL_SIGNAL)


OBSERVATIONS = {
    "vector": ((vector,), {"normalize": True}),
    **{f"image, {it.value}": ((image,), {"vis_encode_type": it}) for it in EncoderType},
    "entities": ((entities, vector), {}),
    "entities alone": ((entities,), {}),
    "goal, hyper": ((vector, goal(vector)), {"normalize": True}),
    "goal, none": ((vector, goal(vector)), {"goal_conditioning_type": ConditioningType.NONE}),
    "goals of all kinds": ((goal(entities), goal(image), vector, goal(vector)), {"normalize": True}),
    "all": ((entities, image, goal(vector), vector, entities), {"normalize": True}),
}
ACTIONS = {"continuous": (True, False), "discrete": (False, True), "hybrid": (True, True)}
POLICIES = {"ppo": {}, "sac": {"conditional_sigma": True, "tanh_squash": True}}
MATRIX = list(itertools.product(OBSERVATIONS, ACTIONS, [False, True], POLICIES))


def make_policy(seed, observations, actions, has_memory, kind):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    makers, settings = OBSERVATIONS[observations]
    has_continuous, has_discrete = ACTIONS[actions]
    branches = tuple(map(int, rng.integers(2, 5, size=rng.integers(1, 4)))) if has_discrete else ()
    action_spec = ActionSpec(int(rng.integers(1, 4)) if has_continuous else 0, branches)
    memory_size = 2 * int(rng.integers(2, 7))
    memory = NetworkSettings.MemorySettings(memory_size=memory_size) if has_memory else None
    sizes = {"hidden_units": int(rng.integers(4, 20)), "num_layers": int(rng.integers(1, 4))}
    network_settings = NetworkSettings(**sizes, memory=memory, **settings)
    spec = BehaviorSpec([make(rng) for make in makers], action_spec)
    policy = TorchPolicy(0, spec, network_settings, SimpleActor, POLICIES[kind])
    with torch.no_grad():
        for parameter in policy.actor.action_model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        for processor, observation in zip(policy.actor.network_body.processors, spec.observation_specs):
            if getattr(processor, "normalizer", None) is not None:
                processor.update_normalization(torch.randn(50, *observation.shape) * 3 + 1)
    return policy, rng


def random_inputs(policy, rng, n_agents):
    """Return observations, those of entities with padding between them, and masks that leave one choice at least."""
    spec = policy.behavior_spec
    inputs = {}
    for index, observation in enumerate(spec.observation_specs):
        values = rng.normal(size=(n_agents, *observation.shape))
        if observation.name == "image":
            values = rng.random((n_agents, *observation.shape))
        elif observation.name == "entities":
            values *= rng.choice([0.0, 1.0, 1e-30], size=(n_agents, observation.shape[0], 1))
        inputs[f"obs_{index}"] = values.astype(np.float32)
    masks = [rng.random((n_agents, size)) < 0.7 for size in spec.action_spec.discrete_branches]
    for allowed in masks:
        allowed[np.arange(n_agents), rng.integers(allowed.shape[1], size=n_agents)] = True
    inputs["action_masks"] = np.concatenate([np.zeros((n_agents, 0)), *masks], axis=1).astype(np.float32)
    return inputs


class Exported:
    """A policy's model in ONNX Runtime."""

    def __init__(self, policy, folder):
        self.path = str(folder / "model.onnx")
        ModelSerializer(policy).export_policy_model(self.path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self.session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        self.taken = {value.name for value in self.session.get_inputs()}
        self.names = [value.name for value in self.session.get_outputs()]

    def __call__(self, inputs):
        fed = {name: value for name, value in inputs.items() if name in self.taken}
        return dict(zip(self.names, self.session.run(None, fed)))


def distributions(policy, inputs, memories=None):
    """Return what torch makes of inputs, and the memories after it, batch first as in an exported model."""
    observations = [torch.from_numpy(value) for name, value in inputs.items() if name.startswith("obs_")]
    with torch.no_grad():
        before = None if memories is None else torch.from_numpy(memories).transpose(0, 1)
        encoding, after = policy.actor.network_body(observations, memories=before)
        dists = policy.actor.action_model._get_dists(encoding, torch.from_numpy(inputs["action_masks"]))
    return dists, None if after is None else after.transpose(0, 1).contiguous().numpy()


def assert_best_actions(outputs, dists, kind):
    """Of normal distributions the mean, as `kind` gives it to the environment; of branches the most probable choice."""
    if dists.continuous is not None:
        mean = dists.continuous.mean.numpy()
        best = np.tanh(mean) if kind == "sac" else np.clip(mean, -3, 3) / 3
        np.testing.assert_allclose(outputs["deterministic_continuous_actions"], best, atol=1e-5, rtol=0)
    if dists.discrete is not None:
        best = np.stack([dist.probs.numpy().argmax(axis=1) for dist in dists.discrete], axis=1)
        np.testing.assert_array_equal(outputs["deterministic_discrete_actions"], best)


def assert_allowed(outputs, policy, masks):
    """No choice, sampled or best, is one that the masks forbid."""
    first = 0
    for branch, size in enumerate(policy.behavior_spec.action_spec.discrete_branches):
        for name in ("discrete_actions", "deterministic_discrete_actions"):
            assert masks[np.arange(len(masks)), first + outputs[name][:, branch]].all()
        first += size


@pytest.mark.parametrize(("observations", "actions", "has_memory", "kind"), MATRIX)
def test_what_leaves_nothing_to_chance_is_what_the_policy_does(
    observations, actions, has_memory, kind, tmp_path, unity_operators
):
    seed = MATRIX.index((observations, actions, has_memory, kind))
    policy, rng = make_policy(seed, observations, actions, has_memory, kind)
    model = Exported(policy, tmp_path)
    assert {node.op_type for node in onnx.load(model.path).graph.node} <= unity_operators
    assert model.names == ModelSerializer(policy).output_names
    if has_memory:
        ours = theirs = rng.normal(size=(3, 1, policy.m_size)).astype(np.float32)
        for _ in range(N_STEPS):
            inputs = random_inputs(policy, rng, n_agents=3)
            outputs = model({**inputs, "recurrent_in": theirs})
            dists, ours = distributions(policy, inputs, ours)
            assert_best_actions(outputs, dists, kind)
            assert_allowed(outputs, policy, inputs["action_masks"])
            theirs = outputs["recurrent_out"]
            np.testing.assert_allclose(theirs, ours, atol=1e-5, rtol=0)
    else:
        for n_agents in (1, 7):
            inputs = random_inputs(policy, rng, n_agents)
            outputs = model(inputs)
            assert_best_actions(outputs, distributions(policy, inputs)[0], kind)
            assert_allowed(outputs, policy, inputs["action_masks"])


@pytest.mark.parametrize("kind", POLICIES)
def test_samples_follow_the_distribution(kind, tmp_path):
    """Of two agents that see and may do different things, row after row in turn."""
    policy, rng = make_policy(6, "vector", "hybrid", False, kind)
    onnxruntime.set_seed(3)
    model = Exported(policy, tmp_path)
    agents = random_inputs(policy, rng, 2)
    assert (agents["action_masks"] == 0).any()
    outputs = model({name: np.tile(value, (N_SAMPLES, 1)) for name, value in agents.items()})
    dists, _ = distributions(policy, agents)
    for agent in range(2):
        continuous = outputs["continuous_actions"][agent::2].astype(np.float64)
        unsquashed, limit = (np.arctanh(continuous), 5.0) if kind == "sac" else (continuous * 3, 3.0)
        assert unsquashed.shape == (N_SAMPLES, 2)
        means, stds = dists.continuous.mean[agent].tolist(), dists.continuous.std[agent].tolist()
        for samples, mean, std in zip(unsquashed.T, means, stds):
            assert follows_normal(samples, mean, std, limit)
            assert not follows_normal(samples, mean + 0.2 * std, std, limit)
            assert not follows_normal(samples, mean, 1.3 * std, limit)
        assert are_uncorrelated(*continuous.T)

        first, second = (dist.probs[agent].numpy().astype(np.float64) for dist in dists.discrete)
        counts = np.zeros((len(first), len(second)))
        np.add.at(counts, tuple(outputs["discrete_actions"][agent::2].T), 1)
        assert counts.sum() == N_SAMPLES
        assert follow_probabilities(counts, np.outer(first, second))
        assert not follow_probabilities(counts, np.outer(np.roll(first, 1), second))
        assert not follow_probabilities(counts, np.outer(first, np.roll(second, 1)))


def follows_normal(samples, mean, std, limit):
    """Return whether samples, clipped beyond plus and minus limit, pass the test of Kolmogorov and Smirnov.

    By the bound of Dvoretzky, Kiefer and Wolfowitz with the constant of Massart (1990).
    """
    ordered = np.sort(samples)
    inside = np.abs(ordered) < limit
    expected = torch.special.ndtr(torch.from_numpy((ordered[inside] - mean) / std)).numpy()
    steps = np.arange(len(samples) + 1) / len(samples)
    distance = max((steps[1:][inside] - expected).max(), (expected - steps[:-1][inside]).max())
    return 2 * math.exp(-2 * len(samples) * distance**2) > LEVEL


def are_uncorrelated(first, second):
    """Return whether the correlation of bounded values is within what chance makes, by the normal approximation."""
    standard_score = np.corrcoef(first, second)[0, 1] * math.sqrt(len(first))
    return math.erfc(abs(standard_score) / math.sqrt(2)) > LEVEL


def follow_probabilities(counts, probabilities):
    """Return whether counts pass a chi-square test, by the bound of its tail of Laurent and Massart (2000)."""
    possible = probabilities > 1e-9
    if counts[~possible].any():
        return False
    expected = counts.sum() * probabilities[possible]
    freedom, x = possible.sum() - 1, -math.log(LEVEL)
    statistic = ((counts[possible] - expected) ** 2 / expected).sum()
    return statistic < freedom + 2 * math.sqrt(freedom * x) + 2 * x
