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
    vector_observation,
)

N_STEPS, N_AGENTS, N_SAMPLES = 20, 3, 4000
LEVEL = 1e-6
"""How often a test of samples may fail where nothing is wrong."""
MOVES = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE


def image(rng, smallest=36):
    shape = (int(rng.integers(1, 4)), *map(int, rng.integers(smallest, smallest + 12, size=2)))
    return ObservationSpec(shape, (DimensionProperty.NONE, MOVES, MOVES), ObservationType.DEFAULT, "image")


def vector(rng):
    return vector_observation(int(rng.integers(1, 7)), "vector")


def entities(rng):
    shape = int(rng.integers(1, 8)), int(rng.integers(1, 6))
    properties = DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE
    return ObservationSpec(shape, properties, ObservationType.DEFAULT, "entities")


def goal(rng):
    size = int(rng.integers(1, 5))
    return ObservationSpec((size,), (DimensionProperty.NONE,), ObservationType.GOAL_SIGNAL, "goal")


OBSERVATIONS = {
    "vector": ((vector,), {"normalize": True}),
    **{f"image, {it.value}": ((image,), {"vis_encode_type": it}) for it in EncoderType},
    "entities": ((entities, vector), {}),
    "entities alone": ((entities,), {}),
    "goal, hyper": ((vector, goal), {"normalize": True}),
    "goal, none": ((vector, goal), {"goal_conditioning_type": ConditioningType.NONE}),
    "all": ((entities, image, goal, vector, entities), {"normalize": True}),
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
    network_settings = NetworkSettings(hidden_units=int(rng.integers(4, 20)), memory=memory, **settings)
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
            values *= rng.choice([0.0, 1.0, 1e-20], size=(n_agents, observation.shape[0], 1))
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


@pytest.mark.parametrize(("observations", "actions", "has_memory", "kind"), MATRIX)
def test_what_leaves_nothing_to_chance_is_what_the_policy_does(
    observations, actions, has_memory, kind, tmp_path, unity_operators
):
    policy, rng = make_policy(
        MATRIX.index((observations, actions, has_memory, kind)), observations, actions, has_memory, kind
    )
    model = Exported(policy, tmp_path)
    assert {node.op_type for node in onnx.load(model.path).graph.node} <= unity_operators
    assert model.names == ModelSerializer(policy).output_names
    memories = rng.normal(size=(N_AGENTS, 1, policy.m_size)).astype(np.float32)
    theirs = memories
    for _ in range(N_STEPS if has_memory else 2):
        inputs = random_inputs(policy, rng, N_AGENTS)
        outputs = model({**inputs, "recurrent_in": theirs})
        obs = [torch.from_numpy(value) for name, value in inputs.items() if name.startswith("obs_")]
        with torch.no_grad():
            encoding, after = policy.actor.network_body(obs, memories=torch.from_numpy(memories).transpose(0, 1))
            expected = policy.actor.action_model.get_action_out(encoding, torch.from_numpy(inputs["action_masks"]))
        for name in ("deterministic_continuous", "deterministic_discrete"):
            ours = getattr(expected, name)
            if ours is not None:
                np.testing.assert_allclose(outputs[f"{name}_actions"], ours.numpy(), atol=1e-5, rtol=0)
        if has_memory:
            memories, theirs = after.transpose(0, 1).contiguous().numpy(), outputs["recurrent_out"]
            np.testing.assert_allclose(theirs, memories, atol=1e-5, rtol=0)
    assert outputs.keys() >= {"version_number", "memory_size"}


@pytest.mark.parametrize("kind", POLICIES)
def test_samples_follow_the_distribution(kind, tmp_path):
    policy, rng = make_policy(7, "vector", "hybrid", False, kind)
    onnxruntime.set_seed(3)
    model = Exported(policy, tmp_path)
    one = random_inputs(policy, rng, 1)
    branches = policy.behavior_spec.action_spec.discrete_branches
    one["action_masks"][0, branches[0] - 1] = 0
    one["action_masks"][0, : branches[0] - 1] = 1
    outputs = model({name: np.repeat(value, N_SAMPLES, axis=0) for name, value in one.items()})
    with torch.no_grad():
        encoding, _ = policy.actor.network_body([torch.from_numpy(one["obs_0"])])
        dists = policy.actor.action_model._get_dists(encoding, torch.from_numpy(one["action_masks"]))
    mean, std = dists.continuous.mean[0].numpy(), dists.continuous.std[0].numpy()
    for column, samples in enumerate(outputs["continuous_actions"].T):
        if kind == "sac":
            unsquashed, limit = np.arctanh(np.clip(samples.astype(float), -1 + 1e-7, 1 - 1e-7)), math.inf
        else:
            unsquashed, limit = samples[np.abs(samples) < 1] * 3, 3.0
        assert follows_normal(unsquashed, mean[column], std[column], limit)
        assert not follows_normal(unsquashed, mean[column] + 0.2 * std[column], std[column], limit)
    for branch, dist in enumerate(dists.discrete):
        probabilities = dist.probs[0].numpy().astype(float)
        counts = np.bincount(outputs["discrete_actions"][:, branch], minlength=branches[branch])
        assert follows_probabilities(counts, probabilities)
        assert not follows_probabilities(counts, np.roll(probabilities, 1))


def follows_normal(samples, mean, std, limit):
    """Return whether the test of Kolmogorov and Smirnov takes samples for normal ones between plus and minus limit."""

    def cdf(value):
        return 0.5 * (1 + math.erf((value - mean) / (std * math.sqrt(2))))

    below, above = cdf(-limit), cdf(limit)
    expected = (np.array([cdf(value) for value in np.sort(samples)]) - below) / (above - below)
    steps = np.arange(len(samples) + 1) / len(samples)
    distance = max((steps[1:] - expected).max(), (expected - steps[:-1]).max())
    return 2 * math.exp(-2 * len(samples) * distance**2) > LEVEL


def follows_probabilities(counts, probabilities):
    """Return whether a chi-square test takes counts for those of draws, by Laurent and Massart's bound of its tail."""
    possible = probabilities > 1e-9
    if counts[~possible].any():
        return False
    expected = counts.sum() * probabilities[possible]
    freedom, x = max(possible.sum() - 1, 1), -math.log(LEVEL)
    statistic = ((counts[possible] - expected) ** 2 / expected).sum()
    return statistic < freedom + 2 * math.sqrt(freedom * x) + 2 * x
