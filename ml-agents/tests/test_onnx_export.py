"""Exported models in ONNX Runtime: what Unity's inference engine gets."""

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mlagents.torch_utils import nn
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import EncoderType, NetworkSettings
from mlagents.trainers.torch_entities.model_serialization import ModelSerializer, TensorNames, exporting_to_onnx
from mlagents.trainers.torch_entities.networks import SharedActorCritic, SimpleActor
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    vector_observation,
)

GOLDEN = Path(__file__).parent / "data" / "golden"
SPECS = [
    ActionSpec(2, ()),
    ActionSpec(0, (3,)),
    ActionSpec(0, (3, 2)),
    ActionSpec(2, (3, 2)),
]
MOVES = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
IMAGE = ObservationSpec((3, 40, 52), (DimensionProperty.NONE, MOVES, MOVES), ObservationType.DEFAULT, "image")
CONSTANTS = {"version_number", "memory_size", "continuous_action_output_shape", "discrete_action_output_shape"}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    np.random.seed(0)


def make_policy(action_spec, normalize=True, sizes=(8,), actor_cls=SimpleActor, memory=None, **actor_kwargs):
    """A policy with hidden size 32 that observes vectors of `sizes`, away from its initial weights."""
    specs = [vector_observation(size, f"vector {size}") for size in sizes]
    settings = NetworkSettings(normalize=normalize, hidden_units=32, memory=memory)
    policy = TorchPolicy(0, BehaviorSpec(specs, action_spec), settings, actor_cls, actor_kwargs)
    with torch.no_grad():
        for parameter in policy.actor.action_model.parameters():
            parameter += torch.randn_like(parameter) * 0.3
        if normalize:
            for processor in policy.actor.network_body.processors:
                processor.update_normalization(torch.randn(100, processor.normalizer.running_mean.shape[0]) * 3 + 1)
    return policy


def export(policy, folder):
    path = folder / "model.onnx"
    ModelSerializer(policy).export_policy_model(str(path))
    return path


def graph_of(path):
    model = onnx.load(path)
    onnx.checker.check_model(model)
    return model


def signature(values):
    """Name to element type and shape, the batch axis as None."""
    result = {}
    for value in values:
        tensor = value.type.tensor_type
        result[value.name] = (
            tensor.elem_type,
            [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim],
        )
    return result


def run(path, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    fed = {name: np.asarray(value, dtype=np.float32) for name, value in inputs.items() if name in taken}
    return dict(zip(names, session.run(None, fed)))


def random_inputs(policy, rows):
    spec = policy.behavior_spec
    inputs = {f"obs_{i}": np.random.randn(rows, *o.shape) * 4 for i, o in enumerate(spec.observation_specs)}
    masks = (np.random.rand(rows, sum(spec.action_spec.discrete_branches)) > 0.4).astype(np.float32)
    start = 0
    for size in spec.action_spec.discrete_branches:
        masks[:, start] = np.where(masks[:, start : start + size].any(axis=1), masks[:, start], 1)
        start += size
    inputs["action_masks"] = masks
    return inputs


def torch_outputs(policy, inputs):
    obs = [torch.tensor(inputs[name], dtype=torch.float32) for name in sorted(inputs) if name.startswith("obs_")]
    with torch.no_grad():
        return policy.actor(obs, torch.from_numpy(inputs["action_masks"]))


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_exported_model_acts_as_the_policy(spec, rows, tmp_path):
    policy = make_policy(spec, sizes=(8, 3))
    path = export(policy, tmp_path)
    inputs = random_inputs(policy, rows)
    outputs = run(path, inputs)
    assert list(outputs) == ModelSerializer(policy).output_names
    for (name, value), expected in zip(outputs.items(), torch_outputs(policy, inputs)):
        assert value.shape == expected.shape
        if name in CONSTANTS or name.startswith("deterministic"):
            np.testing.assert_allclose(value, expected, atol=1e-5)
    assert outputs["version_number"].tolist() == [3]
    assert outputs["memory_size"].tolist() == [0]
    if spec.discrete_size:
        assert outputs["discrete_actions"].dtype == np.int64
        assert outputs["deterministic_discrete_actions"].dtype == np.int64
        assert outputs["discrete_action_output_shape"].tolist() == [list(spec.discrete_branches)]
    if spec.continuous_size:
        assert outputs["continuous_actions"].dtype == np.float32
        assert outputs["continuous_action_output_shape"].tolist() == [spec.continuous_size]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_an_exported_memory_goes_in_and_out_with_the_batch_first(spec, tmp_path, unity_operators):
    memory = NetworkSettings.MemorySettings(sequence_length=4, memory_size=10)
    policy = make_policy(spec, sizes=(8, 3), memory=memory)
    path = export(policy, tmp_path)
    model = graph_of(path)
    assert {node.op_type for node in model.graph.node} <= unity_operators
    assert signature(model.graph.input)["recurrent_in"][1] == [None, 1, 10]
    assert signature(model.graph.output)["recurrent_out"][1] == [None, 1, 10]

    inputs = random_inputs(policy, rows=5)
    memories = np.random.randn(1, 5, 10).astype(np.float32)
    outputs = run(path, {**inputs, "recurrent_in": memories.transpose(1, 0, 2)})
    obs = [torch.tensor(inputs[f"obs_{index}"], dtype=torch.float32) for index in range(2)]
    with torch.no_grad():
        expected = policy.actor(obs, torch.from_numpy(inputs["action_masks"]), torch.from_numpy(memories))
    assert list(outputs) == ModelSerializer(policy).output_names
    assert outputs["memory_size"].tolist() == [10]
    np.testing.assert_allclose(outputs["recurrent_out"], expected[-1].transpose(0, 1), atol=1e-5)
    for (name, value), of_torch in zip(outputs.items(), expected):
        if name.startswith("deterministic"):
            np.testing.assert_allclose(value, of_torch, atol=1e-5)


@pytest.mark.parametrize("memory", [None, NetworkSettings.MemorySettings(sequence_length=4, memory_size=10)])
@pytest.mark.parametrize("encoder", EncoderType)
def test_an_exported_model_sees_as_the_policy(encoder, memory, tmp_path, unity_operators):
    action_spec = ActionSpec(2, (3,))
    settings = NetworkSettings(normalize=True, hidden_units=32, vis_encode_type=encoder, memory=memory)
    observations = [IMAGE, vector_observation(4, "vector")]
    policy = TorchPolicy(0, BehaviorSpec(observations, action_spec), settings, SimpleActor, {})
    path = export(policy, tmp_path)
    model = graph_of(path)
    assert {node.op_type for node in model.graph.node} <= unity_operators
    assert signature(model.graph.input)["obs_0"][1] == [None, *IMAGE.shape]

    inputs = random_inputs(policy, rows=5)
    inputs["obs_0"] = np.random.rand(5, *IMAGE.shape)
    memories = np.random.randn(1, 5, 10).astype(np.float32)
    outputs = run(path, {**inputs, "recurrent_in": memories.transpose(1, 0, 2)})
    obs = [torch.tensor(inputs[f"obs_{index}"], dtype=torch.float32) for index in range(2)]
    with torch.no_grad():
        masks = torch.from_numpy(inputs["action_masks"])
        expected = policy.actor(obs, masks, None if memory is None else torch.from_numpy(memories))
    assert list(outputs) == ModelSerializer(policy).output_names
    for (name, value), of_torch in zip(outputs.items(), expected):
        if name.startswith("deterministic"):
            np.testing.assert_allclose(value, of_torch, atol=1e-5)
    if memory is not None:
        np.testing.assert_allclose(outputs["recurrent_out"], expected[-1].transpose(0, 1), atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_graph_is_one_that_unity_imports(spec, normalize, tmp_path, unity_operators):
    model = graph_of(export(make_policy(spec, normalize), tmp_path))
    assert {node.op_type for node in model.graph.node} <= unity_operators
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 9)]
    used = {name for node in model.graph.node for name in node.input}
    assert {value.name for value in model.graph.input} <= used
    expected_inputs = ["obs_0", "action_masks"] if spec.discrete_size else ["obs_0"]
    assert [value.name for value in model.graph.input] == expected_inputs
    for value in [*model.graph.input, *model.graph.output]:
        first = value.type.tensor_type.shape.dim[0]
        assert (first.dim_param == "batch") == (value.name not in CONSTANTS)


@pytest.mark.parametrize("case", ["ppo_vector", "ppo_shared_discrete"])
def test_our_export_of_recorded_weights_is_the_recorded_model(case, tmp_path):
    """`data/golden` holds the same weights as exported by ML-Agents 1.1.0."""
    arrays = np.load(GOLDEN / f"{case}.npz", allow_pickle=False)
    if case == "ppo_vector":
        policy = make_policy(ActionSpec(2, ()), normalize=True)
    else:
        policy = make_policy(
            ActionSpec(0, (3, 2)), normalize=False, actor_cls=SharedActorCritic, stream_names=["extrinsic"]
        )
    prefix = "state/Policy/"
    state = {key[len(prefix) :]: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith(prefix)}
    policy.actor.load_state_dict(state)
    ours, recorded = graph_of(export(policy, tmp_path)), onnx.load(GOLDEN / f"{case}.onnx")
    assert signature(ours.graph.input) == signature(recorded.graph.input)
    assert signature(ours.graph.output) == signature(recorded.graph.output)

    inputs = random_inputs(policy, 50)
    theirs = run(GOLDEN / f"{case}.onnx", inputs)
    for name, value in run(tmp_path / "model.onnx", inputs).items():
        assert value.dtype == theirs[name].dtype
        if name in CONSTANTS or name.startswith("deterministic"):
            np.testing.assert_allclose(value, theirs[name], atol=1e-5)

    inputs = {"obs_0": arrays["in/obs_0"]}
    if case == "ppo_shared_discrete":
        inputs["action_masks"] = arrays["in/action_mask"]
        recorded_output = arrays["out/deterministic_discrete"]
    else:
        recorded_output = arrays["out/deterministic_continuous_env"]
    name = "deterministic_discrete_actions" if "action_masks" in inputs else "deterministic_continuous_actions"
    np.testing.assert_allclose(run(tmp_path / "model.onnx", inputs)[name], recorded_output, rtol=1e-5, atol=1e-5)


def test_our_export_with_image_and_memory_is_the_recorded_model(tmp_path):
    arrays = np.load(GOLDEN / "ppo_image_lstm_hybrid.npz", allow_pickle=False)
    memory = NetworkSettings.MemorySettings(sequence_length=8, memory_size=16)
    observations = [IMAGE._replace(shape=(3, 84, 84)), vector_observation(4, "vector")]
    settings = NetworkSettings(normalize=True, hidden_units=32, memory=memory)
    policy = TorchPolicy(0, BehaviorSpec(observations, ActionSpec(2, (3,))), settings, SimpleActor, {})
    prefix = "state/Policy/"
    state = {key[len(prefix) :]: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith(prefix)}
    policy.actor.load_state_dict(state)
    recorded = GOLDEN / "ppo_image_lstm_hybrid.onnx"
    ours, theirs = graph_of(export(policy, tmp_path)), onnx.load(recorded)
    assert signature(ours.graph.input) == signature(theirs.graph.input)
    assert signature(ours.graph.output) == signature(theirs.graph.output)

    inputs = {name: arrays[f"in/{name}"] for name in ("obs_0", "obs_1")}
    inputs |= {"action_masks": arrays["in/action_mask"], "recurrent_in": arrays["in/memory"].transpose(1, 0, 2)}
    outputs, expected = run(tmp_path / "model.onnx", inputs), run(recorded, inputs)
    for name in outputs:
        if name in CONSTANTS or name.startswith("deterministic") or name == "recurrent_out":
            np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        outputs["deterministic_continuous_actions"], arrays["out/deterministic_continuous_env"], rtol=1e-5, atol=1e-5
    )


def test_sampled_choices_follow_the_policy_and_its_masks(tmp_path):
    policy = make_policy(ActionSpec(0, (3, 2)), normalize=False)
    rows = 20000
    obs = np.repeat(np.random.randn(1, 8), rows, axis=0)
    masks = np.repeat([[1, 0, 1, 1, 1]], rows, axis=0)
    sampled = run(export(policy, tmp_path), {"obs_0": obs, "action_masks": masks})["discrete_actions"]
    assert set(sampled[:, 0]) == {0, 2}
    row = torch.tensor(obs[:1], dtype=torch.float32), torch.tensor(masks[:1], dtype=torch.float32)
    with torch.no_grad():
        encoding, _ = policy.actor.network_body([row[0]])
        dists = policy.actor.action_model._get_dists(encoding, row[1]).discrete
    for branch, dist in enumerate(dists):
        frequencies = np.bincount(sampled[:, branch], minlength=dist.probs.shape[1]) / rows
        np.testing.assert_allclose(frequencies, dist.probs[0], atol=0.02)


def test_sampled_continuous_actions_follow_the_policy(tmp_path):
    policy = make_policy(ActionSpec(2, ()), normalize=False)
    with torch.no_grad():
        policy.actor.action_model._continuous_distribution.mu.bias.copy_(torch.tensor([0.6, -0.3]))
        policy.actor.action_model._continuous_distribution.log_sigma.copy_(torch.tensor([[-1.0, -2.0]]))
    outputs = run(export(policy, tmp_path), {"obs_0": np.zeros((20000, 8))})
    sampled, best = outputs["continuous_actions"], outputs["deterministic_continuous_actions"]
    np.testing.assert_allclose(sampled.mean(axis=0), best[0], atol=0.01)
    np.testing.assert_allclose(sampled.std(axis=0), np.exp([-1.0, -2.0]) / 3, rtol=0.03)


class _Custom(nn.Module):
    """An actor as a plug-in may write one: uses one of two observations, has a memory."""

    def __init__(self, observation_specs, network_settings, action_spec):
        super().__init__()
        self.head = nn.Linear(8 + 4, 2)
        self.version = nn.Parameter(torch.tensor([3.0]), requires_grad=False)
        self.size = nn.Parameter(torch.tensor([4.0]), requires_grad=False)
        self.was_exporting = None

    def forward(self, obs_list, masks=None, memories=None):
        self.was_exporting = exporting_to_onnx.is_exporting()
        action = self.head(torch.cat([obs_list[0], memories[:, 0]], dim=1))
        return self.version, self.size, action, self.size, action, memories + 1


def test_an_actor_with_memory_that_ignores_an_observation(tmp_path):
    specs = [vector_observation(8, "used"), vector_observation(3, "unused")]
    policy = TorchPolicy(0, BehaviorSpec(specs, ActionSpec(2, ())), NetworkSettings(), _Custom, {})
    policy.m_size = 4
    model = graph_of(export(policy, tmp_path))
    assert signature(model.graph.input) == {"obs_0": (1, [None, 8]), "recurrent_in": (1, [None, 1, 4])}
    memory = np.random.randn(5, 1, 4).astype(np.float32)
    outputs = run(tmp_path / "model.onnx", {"obs_0": np.zeros((5, 8)), "recurrent_in": memory})
    np.testing.assert_allclose(outputs[TensorNames.recurrent_output], memory + 1)
    assert policy.actor.was_exporting
    assert not exporting_to_onnx.is_exporting()


def test_an_export_leaves_the_policy_and_the_random_numbers_as_they_were(tmp_path):
    policy = make_policy(SPECS[3])
    policy.actor.action_model.eval()
    modes = [module.training for module in policy.actor.modules()]
    state = {key: value.clone() for key, value in policy.actor.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    export(policy, tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in policy.actor.modules()] == modes
    assert len(set(modes)) == 2
    assert all(torch.equal(value, state[key]) for key, value in policy.actor.state_dict().items())


@pytest.mark.filterwarnings("error")
def test_an_export_is_quiet(tmp_path, capfd, caplog):
    policy = make_policy(SPECS[3])
    with caplog.at_level(logging.WARNING):
        export(policy, tmp_path)
    captured = capfd.readouterr()
    assert not caplog.records
    assert "arning" not in captured.out + captured.err


def test_the_suffix_is_added_where_it_is_missing(tmp_path):
    ModelSerializer(make_policy(SPECS[0])).export_policy_model(str(tmp_path / "3DBall-v1.2"))
    assert [path.name for path in tmp_path.iterdir()] == ["3DBall-v1.2.onnx"]


def test_a_failing_export_leaves_the_file_that_was_there_and_no_other(tmp_path, monkeypatch):
    policy = make_policy(SPECS[0])
    path = export(policy, tmp_path)
    before = path.read_bytes()

    def fail(*_):
        raise RuntimeError("cannot be traced")

    monkeypatch.setattr(policy.actor, "forward", fail)
    for name in ("model.onnx", "other.onnx"):
        with pytest.raises(RuntimeError, match="cannot be traced"):
            ModelSerializer(policy).export_policy_model(str(tmp_path / name))
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == before
    assert policy.actor.training
    assert not exporting_to_onnx.is_exporting()
