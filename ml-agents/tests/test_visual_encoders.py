"""Encoders of images. What the recorded networks of `test_golden_*` do not show; learning from what is seen."""

import numpy as np
import pytest
import torch

from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.settings import EncoderType, NetworkSettings
from mlagents.trainers.torch_entities.encoders import (
    FullyConnectedVisualEncoder,
    conv_output_shape,
    pool_out_shape,
)
from mlagents.trainers.torch_entities.networks import ObservationEncoder
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents_envs.base_env import DimensionProperty, ObservationSpec, ObservationType, vector_observation

NONE, MOVES, UNSPECIFIED = (
    DimensionProperty.NONE,
    DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
    DimensionProperty.UNSPECIFIED,
)


def image(*shape, properties=(NONE, MOVES, MOVES)):
    return ObservationSpec(shape, properties, ObservationType.DEFAULT, "Camera")


def test_shapes_by_hand():
    assert conv_output_shape((84, 64), 8, 4) == (20, 15)
    assert conv_output_shape((7, 5), (3, 1), stride=2, padding=1) == (4, 4)
    assert conv_output_shape((9, 9), 3, dilation=2) == (5, 5)
    assert pool_out_shape((84, 15), 3) == (41, 7)


def test_without_convolutions_by_hand():
    encoder = FullyConnectedVisualEncoder(height=1, width=2, initial_channels=2, output_size=1)
    with torch.no_grad():
        encoder.dense[0].weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        encoder.dense[0].bias.fill_(-9.0)
    pixels = torch.tensor([[[[0.5, 1.0]], [[0.0, 1.0]]], [[[1.0, 1.0]], [[1.0, 1.0]]]])
    # 0.5 + 2 + 4 - 9 = -2.5, of which a hundredth is left; 10 - 9.
    torch.testing.assert_close(encoder(pixels), torch.tensor([[-0.025], [1.0]]))


@pytest.mark.parametrize("kind", EncoderType)
def test_the_smallest_image_that_an_encoder_takes(kind):
    least = ModelUtils.MIN_RESOLUTION_FOR_ENCODER[kind]
    for shape in ((3, least, least + 7), (1, least + 7, least)):
        encoder, size = ModelUtils.get_encoder_for_obs(image(*shape), False, 16, 128, kind)
        assert size == 16
        assert encoder(torch.rand(2, *shape)).shape == (2, 16)
        assert type(encoder) is ModelUtils.get_encoder_for_type(kind)
    if least > 1:
        with pytest.raises(UnityTrainerException, match=f"Camera.*{kind.value} takes none below {least}"):
            ModelUtils.get_encoder_for_obs(image(3, 40, least - 1), False, 16, 128, kind)


def test_several_images_and_vectors_stand_side_by_side_in_the_order_of_the_specification():
    specs = [image(3, 20, 20), vector_observation(4, "v"), image(1, 21, 30, properties=(UNSPECIFIED,) * 3)]
    encoder = ObservationEncoder(specs, 8, EncoderType.SIMPLE, normalize=True)
    assert encoder.embedding_sizes == [8, 4, 8]
    obs = [torch.rand(5, *spec.shape) for spec in specs]
    together = encoder(obs)
    apart = [processor(values) for processor, values in zip(encoder.processors, obs)]
    torch.testing.assert_close(together, torch.cat(apart, dim=1))


@pytest.mark.parametrize("kind", EncoderType)
def test_the_last_layer_starts_with_the_gain_of_a_rectifier(kind):
    torch.manual_seed(0)
    encoder, _ = ModelUtils.get_encoder_for_obs(image(3, 40, 40), False, 512, 128, kind)
    layer = encoder.dense if isinstance(encoder.dense, torch.nn.Linear) else encoder.dense[0]
    np.testing.assert_allclose(layer.weight.std().item() * layer.in_features**0.5, 1.41, rtol=0.02)
    assert not layer.bias.any()


def test_settings_choose_the_encoder():
    settings = NetworkSettings(vis_encode_type=EncoderType.MATCH3)
    encoder = ObservationEncoder([image(3, 5, 5)], 8, settings.vis_encode_type)
    assert type(encoder.processors[0]) is ModelUtils.get_encoder_for_type(EncoderType.MATCH3)
