import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagents.torch_utils import nn
from mlagents.trainers.buffer import AgentBuffer
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.settings import EncoderType
from mlagents.trainers.torch_entities import encoders
from mlagents.trainers.torch_entities.encoders import EncoderRequest, Normalizer, VectorInput, register_encoder
from mlagents.trainers.torch_entities.networks import ObservationEncoder
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.base_env import DimensionProperty, ObservationSpec, ObservationType, vector_observation

PLANE = (DimensionProperty.NONE, DimensionProperty.TRANSLATIONAL_EQUIVARIANCE)


def statistics(normalizer):
    return [tensor.numpy().copy() for tensor in normalizer.state_dict().values()]


def naive_normalised(batches, rows):
    """All rows at once in float64, the imaginary first row (mean 0, variance 1) included."""
    seen = np.concatenate(batches).astype(np.float64)
    count = len(seen) + 1
    mean = seen.sum(axis=0) / count
    squares = 1 + (seen**2).sum(axis=0) - count * mean**2
    return np.clip((rows - mean) / np.sqrt(squares / count), -5, 5)


def test_normaliser_by_hand():
    """One value: 1 and 3 join the first row's 0, so mean 4/3; squares 1 + 0^2 + 1^2 + 3^2 - 3 * (4/3)^2 = 17/3."""
    normalizer = Normalizer(1)
    normalizer.update(torch.tensor([[1.0], [3.0]]))
    steps, mean, squares = statistics(normalizer)
    assert steps == 3
    np.testing.assert_allclose(mean, [4 / 3], rtol=1e-6)
    np.testing.assert_allclose(squares, [17 / 3], rtol=1e-6)
    scale = np.sqrt(17 / 9)
    normalised = normalizer(torch.tensor([[4 / 3], [4 / 3 + scale], [1e6], [-1e6]]))
    np.testing.assert_allclose(normalised.numpy(), [[0], [1], [5], [-5]], atol=1e-6)


def test_a_fresh_normaliser_only_clips():
    rows = torch.tensor([[0.5, -7.0], [80.0, 4.9]])
    torch.testing.assert_close(Normalizer(2)(rows), torch.tensor([[0.5, -5.0], [5.0, 4.9]]))


def test_normaliser_against_its_naive_twin():
    rng = np.random.default_rng(0)
    batches = [rng.normal(3, [0.1, 1, 50], (size, 3)).astype(np.float32) for size in (1, 7, 1000, 2, 64)]
    normalizer = Normalizer(3)
    for batch in batches:
        normalizer.update(torch.from_numpy(batch))
    rows = rng.normal(3, [0.1, 1, 50], (20, 3)).astype(np.float32)
    ours = normalizer(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(ours, naive_normalised(batches, rows), rtol=1e-4, atol=1e-4)


@given(st.lists(st.integers(0, 40), max_size=4), st.floats(-20, 20), st.floats(0.1, 10))
@settings(max_examples=50, deadline=None)
def test_statistics_do_not_depend_on_how_rows_are_split(cuts, mean, std):
    rows = torch.from_numpy(np.random.default_rng(1).normal(mean, std, (40, 2)).astype(np.float32))
    whole, split = Normalizer(2), Normalizer(2)
    whole.update(rows)
    for part in torch.tensor_split(rows, sorted(cuts)):
        split.update(part)
    for ours, expected in zip(statistics(split), statistics(whole)):
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-3)


@pytest.mark.parametrize("how", ["copy_from", "load_state_dict", "deepcopy"])
def test_statistics_taken_over_normalise_alike_and_apart(how):
    source = Normalizer(2)
    source.update(torch.randn(50, 2) * 3 + 1)
    target = Normalizer(2)
    target(torch.zeros(1, 2))
    if how == "copy_from":
        target.copy_from(source)
    elif how == "load_state_dict":
        target.load_state_dict(source.state_dict())
    else:
        target = copy.deepcopy(source)
    rows = torch.randn(5, 2)
    expected = source(rows)
    assert torch.equal(target(rows), expected)
    target.update(torch.full((50, 2), 9.0))
    assert torch.equal(source(rows), expected)
    assert not torch.equal(target(rows), expected)


def test_a_normaliser_updated_in_inference_mode_can_train_afterwards():
    normalizer = Normalizer(2)
    with torch.inference_mode():
        normalizer.update(torch.randn(3, 2))
    inputs = torch.randn(4, 2, requires_grad=True)
    normalizer(inputs).sum().backward()
    assert inputs.grad is not None


def test_vector_input_without_normalisation_is_the_identity():
    plain = VectorInput(3)
    rows = torch.randn(2, 3)
    plain.update_normalization(rows)
    assert plain(rows) is rows
    assert not plain.state_dict()


def test_vector_inputs_copy_normalisation_where_both_have_it():
    source, target = VectorInput(2, normalize=True), VectorInput(2, normalize=True)
    source.update_normalization(torch.randn(9, 2))
    target.copy_normalization(VectorInput(2))
    assert target.normalizer.normalization_steps == 1
    target.copy_normalization(source)
    assert target.normalizer.normalization_steps == 10


def observation(shape, properties, kind=ObservationType.DEFAULT):
    return ObservationSpec(shape, properties, kind, "lidar")


def encode(spec):
    return ModelUtils.get_encoder_for_obs(spec, True, 16, 128, EncoderType.SIMPLE)


@pytest.mark.parametrize("properties", [DimensionProperty.NONE, DimensionProperty.UNSPECIFIED])
def test_vectors_have_an_encoder(properties):
    encoder, size = encode(observation((4,), (properties,)))
    assert size == 4
    assert isinstance(encoder, VectorInput)
    assert encoder.normalizer is not None


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (observation((3, 84, 84), (DimensionProperty.NONE,) * 3), "(3, 84, 84)"),
        (observation((20, 4), (DimensionProperty.VARIABLE_SIZE,) * 2), "(20, 4)"),
        (observation((4, 4), (DimensionProperty.UNSPECIFIED,) * 2, ObservationType.GOAL_SIGNAL), "UNSPECIFIED"),
        (observation((4, 4), (DimensionProperty.UNSPECIFIED,) * 2), "UNSPECIFIED"),
    ],
)
def test_an_observation_without_an_encoder_is_named(spec, named):
    with pytest.raises(UnityTrainerException) as error:
        encode(spec)
    assert "'lidar'" in str(error.value)
    assert str(spec.shape) in str(error.value)
    assert named in str(error.value)
    assert "They take (NONE), (UNSPECIFIED), " in str(error.value)


def test_a_plug_in_can_register_an_encoder_for_its_kind(monkeypatch):
    monkeypatch.setattr(encoders, "_factories", dict(encoders._factories))

    @register_encoder(PLANE)
    def flatten(request: EncoderRequest):
        height, width = request.observation_spec.shape
        return nn.Flatten(), height * width

    body = ObservationEncoder([observation((2, 3), PLANE), vector_observation(4, "vector")], 16, EncoderType.SIMPLE)
    assert body.total_enc_size == 10
    grid, vector = torch.arange(6.0).reshape(1, 2, 3), torch.full((1, 4), -1.0)
    assert body([grid, vector]).tolist() == [[0, 1, 2, 3, 4, 5, -1, -1, -1, -1]]


def test_a_trajectory_updates_the_normalisers_of_its_own_observations():
    specs = [vector_observation(1, "a"), vector_observation(2, "b")]
    encoder = ObservationEncoder(specs, 16, EncoderType.SIMPLE, normalize=True)
    buffer = AgentBuffer()
    buffer[ObsUtil.get_name_at(0)] = np.array([[3.0], [3.0]], dtype=np.float32)
    buffer[ObsUtil.get_name_at(1)] = np.array([[6.0, 0.0], [6.0, 0.0]], dtype=np.float32)
    encoder.update_normalization(buffer)
    means = [processor.normalizer.running_mean.tolist() for processor in encoder.processors]
    assert means == [[2.0], [4.0, 0.0]]
    twin = ObservationEncoder(specs, 16, EncoderType.SIMPLE, normalize=True)
    twin.copy_normalization(encoder)
    assert [processor.normalizer.running_mean.tolist() for processor in twin.processors] == means


def test_a_behavior_without_observations_is_an_error():
    with pytest.raises(UnityTrainerException, match="no observations"):
        ObservationEncoder([], 16, EncoderType.SIMPLE)
