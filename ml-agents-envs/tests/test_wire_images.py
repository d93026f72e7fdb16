"""Images on the wire: real PNG files, made by Pillow."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.observation_pb2 import PNG, ObservationProto
from mlagents_envs.exception import UnityObservationException
from mlagents_envs.rpc_utils import steps_from_proto
from mlagents_envs.wire.images import PNG_HEADER, decode_image

NONE, MOVES = DimensionProperty.NONE, DimensionProperty.TRANSLATIONAL_EQUIVARIANCE


def png(pixels, mode="RGB"):
    """Return a file of pixels (H, W, 3), or (H, W) for other modes."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).convert(mode).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
def pixels():
    return np.random.default_rng(2).integers(256, size=(2, 5, 4, 3), dtype=np.uint8)


def test_one_file(pixels):
    image = decode_image(png(pixels[0]), 3)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, pixels[0].transpose(2, 0, 1).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("n_channels", [4, 5, 6])
def test_files_one_after_the_other_give_their_first_channels(pixels, n_channels):
    image = decode_image(png(pixels[0]) + png(pixels[1]), n_channels)
    channels = np.concatenate(pixels.transpose(0, 3, 1, 2))[:n_channels]
    np.testing.assert_array_equal(image, channels / np.float32(255))


def test_one_channel_is_the_mean_of_all():
    file = png(np.full((2, 2, 3), [30, 60, 120]))
    np.testing.assert_allclose(decode_image(file, 1), np.full((1, 2, 2), 70 / 255), rtol=1e-6)
    other = png(np.full((2, 2, 3), [0, 0, 30]))
    np.testing.assert_allclose(decode_image(file + other, 1), np.full((1, 2, 2), 40 / 255), rtol=1e-6)


def test_a_mapping_averages_sorts_and_drops():
    files = png(np.full((1, 2, 3), [10, 20, 40])) + png(np.full((1, 2, 3), [80, 100, 255]))
    image = decode_image(files, 3, [2, 0, 0, 1, -1, -1])
    np.testing.assert_allclose(image[:, 0, 0] * 255, [(20 + 40) / 2, 80, 10], rtol=1e-6)
    assert image.shape == (3, 1, 2)


def test_a_gray_or_transparent_file_has_three_channels(pixels):
    gray = decode_image(png(pixels[0], "L"), 3)
    assert (gray[0] == gray[1]).all()
    assert (gray[0] == gray[2]).all()
    np.testing.assert_array_equal(decode_image(png(pixels[0], "RGBA"), 3), decode_image(png(pixels[0]), 3))


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width, height):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


BOMB = PNG_HEADER + header(60000, 60000) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
SMALL = png(np.zeros((4, 4, 3)))


@pytest.mark.parametrize(
    ("data", "n_channels", "mapping", "message"),
    [
        (b"", 3, (), "holds no PNG file"),
        (b"nonsense", 3, (), "no PNG file from byte 0"),
        (SMALL + b"more", 6, (), f"no PNG file from byte {len(SMALL)}"),
        (SMALL[:-5], 3, (), "breaks off"),
        (SMALL[:20], 3, (), "breaks off"),
        (PNG_HEADER + chunk(b"IEND", b""), 3, (), "has no header"),
        (PNG_HEADER + header(4, 4) + BOMB[len(PNG_HEADER) :], 3, (), "or a second one, at byte 33"),
        (SMALL.replace(b"IDAT", b"IDAX"), 3, (), "cannot be read"),
        (BOMB, 3, (), "60000 pixels high and 60000 wide, and 4 and 4 were announced"),
        (SMALL, 4, (), "3 channels, and 4 were announced"),
        (SMALL, 1, (0, 0), "3 channels, and its mapping is of 2"),
        (SMALL, 2, (0, 0, 0), "does not fill the 2 channels"),
        (SMALL, 2, (0, 1, 2), "does not fill the 2 channels"),
        (SMALL, 2, (0, 2**30, 1), "does not fill the 2 channels"),
    ],
)
def test_what_is_no_such_image_is_refused(data, n_channels, mapping, message):
    with pytest.raises(UnityObservationException, match=message):
        decode_image(data, n_channels, mapping, (4, 4))


@pytest.mark.parametrize("n_channels", [1, 6])
def test_files_of_different_sizes_are_refused(n_channels):
    with pytest.raises(UnityObservationException, match="differ in size"):
        decode_image(SMALL + png(np.zeros((3, 4, 3))), n_channels)


@pytest.mark.parametrize(
    ("shape", "properties"), [([3, 5, 4], (NONE, MOVES, MOVES)), ([5, 4, 3], (MOVES, MOVES, NONE))]
)
def test_images_among_an_agents_observations(pixels, shape, properties):
    spec = BehaviorSpec(
        [ObservationSpec((3, 5, 4), (NONE, MOVES, MOVES), ObservationType.DEFAULT, "camera")],
        ActionSpec.create_continuous(1),
    )
    infos = [
        AgentInfoProto(
            id=agent_id,
            observations=[
                ObservationProto(
                    shape=shape, compression_type=PNG, compressed_data=png(image), dimension_properties=properties
                )
            ],
        )
        for agent_id, image in enumerate(pixels)
    ]
    decisions, _ = steps_from_proto(infos, spec)
    np.testing.assert_array_equal(decisions.obs[0], pixels.transpose(0, 3, 1, 2) / np.float32(255))
    infos[1].observations[0].compressed_data = SMALL
    with pytest.raises(
        UnityObservationException,
        match=r"behavior \(unnamed\), agent 1, sensor 'camera'\): .* 4 pixels high and 4 wide",
    ):
        steps_from_proto(infos, spec)
