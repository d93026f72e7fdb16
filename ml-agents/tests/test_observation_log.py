"""The log of observations: which pixels are kept as bytes, and that what was appended is read back bit for bit."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mlagents.trainers import observation_log
from mlagents.trainers.observation_log import ObservationLog, as_bytes, as_floats
from mlagents_envs.wire.images import decode_image

ALL_PIXELS = np.arange(256, dtype=np.uint8)


def same_bits(some, others):
    return some.dtype == others.dtype and some.shape == others.shape and some.tobytes() == others.tobytes()


# Bytes


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("n_channels", "mapping"), [(3, ()), (1, ()), (3, (0, 1, 2)), (1, (0, 0, 0))], ids=["3", "1", "mapped", "averaged"]
)
def test_what_the_decoder_gives_for_pixels_of_8_bits_is_kept_as_bytes(n_channels, mapping):
    pixels = np.repeat(ALL_PIXELS.reshape(16, 16, 1), 3, axis=2)
    decoded = decode_image(png(pixels), n_channels, mapping)[None]
    kept = as_bytes(decoded)
    np.testing.assert_array_equal(kept[0, 0], ALL_PIXELS.reshape(16, 16), strict=True)
    assert same_bits(as_floats(kept), decoded)


@pytest.mark.parametrize(
    "value",
    [-0.0, np.nan, np.inf, -np.inf, -1 / 255, 256 / 255, 257 / 255, 511 / 255, 1e30, 0.5, 1e-30, 127.5 / 255],
)
def test_no_other_number_is_taken_for_a_byte(value):
    rows = (ALL_PIXELS / np.float32(255))[None]
    assert as_bytes(rows) is not None
    rows[0, 77] = value
    assert as_bytes(rows) is None


def test_the_next_float_to_a_pixel_is_none():
    exact = ALL_PIXELS / np.float32(255)
    for towards in (-1, 2):
        near = np.nextafter(exact, np.float32(towards))
        assert [as_bytes(value.reshape(1, 1)) for value in near] == [None] * 256


@given(arrays.arrays(np.uint32, st.tuples(st.integers(0, 3), st.integers(0, 4))))
def test_bytes_are_bit_for_bit_or_not_at_all(bits):
    rows = bits.view(np.float32)
    kept = as_bytes(rows)
    if kept is None:
        pixels = {value.tobytes() for value in ALL_PIXELS / np.float32(255)}
        assert any(value.tobytes() not in pixels for value in rows.reshape(-1))
    else:
        assert same_bits(as_floats(kept), rows)


def test_averages_of_channels_are_no_bytes():
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    pixels[..., 0] = 100
    assert as_bytes(decode_image(png(pixels), 1)[None]) is None


# The log


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 48 bytes: 4 rows of 3 numbers, or 12 images of 2 x 2 pixels."""
    monkeypatch.setattr(observation_log, "BLOCK_BYTES", 48)


class Reader:
    """Reads a log as columns do, and keeps all of its blocks."""

    def __init__(self, shape):
        self.log = ObservationLog(shape)
        self.blocks, self.places = {}, []

    def append(self, obs, next_obs):
        added = self.log.append(np.asarray(obs, dtype=np.float32), np.asarray(next_obs, dtype=np.float32))
        self.blocks.update(added.blocks)
        self.places += added.places.tolist()
        return added.places.tolist()

    def row(self, place):
        number, row = divmod(place, self.log.rows_per_block)
        return as_floats(self.blocks[number][row : row + 1])[0]


def numbered(*numbers):
    return np.array(numbers, dtype=np.float32)[:, None] * np.ones(3, dtype=np.float32)


def test_an_observation_stands_once_by_hand(small_blocks):
    reader = Reader((3,))
    assert reader.append(numbered(1, 2, 3), numbered(2, 3, 4)) == [0, 1, 2]  # 1 2 3 4
    assert reader.append(numbered(7, 8), numbered(8, 9)) == [4, 5]  # an episode of its own: 7 8 9
    assert reader.append(numbered(9, 5, 9), numbered(5, 6, 9)) == [6, 7, 9]  # goes on with 9: 5 6, then 9 9
    assert [reader.row(place)[0] for place in range(11)] == [1, 2, 3, 4, 7, 8, 9, 5, 6, 9, 9]
    assert len(reader.blocks) == 3
    assert all(block.shape == (4, 3) for block in reader.blocks.values())


def test_nothing_is_appended(small_blocks):
    reader = Reader((3,))
    assert reader.append(numbered(), numbered()) == []
    reader.append(numbered(1), numbered(2))
    assert reader.append(numbered(), numbered()) == []
    assert reader.append(numbered(2), numbered(3)) == [1]


def test_only_the_same_bits_are_the_same_observation(small_blocks):
    reader = Reader((3,))
    assert reader.append(numbered(1, -0.0), numbered(0.0, np.nan)) == [0, 2]
    assert np.signbit(reader.row(2)).all()
    assert not np.signbit(reader.row(1)).any()
    assert reader.append(numbered(np.nan), numbered(1)) == [3]


def test_images_are_bytes_until_they_do_not_fit(small_blocks):
    reader = Reader((1, 2, 2))
    images = (np.arange(20 * 4).reshape(20, 1, 2, 2) / np.float32(255)).astype(np.float32)
    reader.append(images[:14], images[1:15])
    before = dict(reader.blocks)
    assert {number: block.dtype for number, block in before.items()} == {0: np.uint8, 1: np.uint8}
    images[17] += 0.3
    reader.append(images[14:19], images[15:20])
    assert {number: block.dtype for number, block in reader.blocks.items()} == {0: np.uint8, 1: np.float32}
    assert before[1].dtype == np.uint8  # who holds it reads on
    for place, image in enumerate(images):
        assert same_bits(reader.row(place), image)
    reader.append(images[:5], images[1:6])
    assert reader.blocks[2].dtype == np.float32


def test_vectors_are_not_taken_for_images(small_blocks):
    reader = Reader((3,))
    reader.append(numbered(0, 1), numbered(1, 0))
    assert reader.blocks[0].dtype == np.float32


@pytest.mark.parametrize("shape", [(), (0,), (5, 1), (7, 7, 7)], ids=str)
def test_rows_of_any_shape(small_blocks, shape):
    random = np.random.default_rng(0)
    obs, next_obs = random.random((2, 9, *shape), dtype=np.float32)
    reader = Reader(shape)
    places = reader.append(obs, next_obs)
    for place, row, next_row in zip(places, obs, next_obs):
        np.testing.assert_array_equal(reader.row(place), row)
        np.testing.assert_array_equal(reader.row(place + 1), next_row)
