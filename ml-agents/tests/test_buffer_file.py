"""The buffer as a file: what is saved is what is loaded, and other files are refused."""

import io

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlagents.trainers.buffer import (
    AgentBuffer,
    AgentBufferField,
    BufferException,
    BufferKey,
    ObservationKeyPrefix,
    RewardSignalKeyPrefix,
    RewardSignalUtil,
)
from mlagents.trainers.trajectory import ObsUtil

MATES = (ObservationKeyPrefix.GROUP_OBSERVATION, 0)

KEYS = st.one_of(
    st.sampled_from(BufferKey),
    st.tuples(st.sampled_from(ObservationKeyPrefix), st.integers(0, 99)),
    st.tuples(st.sampled_from(RewardSignalKeyPrefix), st.text(max_size=5)),
)
DTYPES = st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_])
ROW_SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
COLUMNS = st.tuples(st.integers(0, 4), ROW_SHAPES).flatmap(
    lambda size: DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, (size[0], *size[1])))
)
ENTRIES = ROW_SHAPES.flatmap(lambda shape: arrays.arrays(np.float32, shape))
RAGGED_ROWS = st.lists(st.lists(ENTRIES, max_size=3), min_size=1, max_size=4)


def reloaded(buffer):
    file = io.BytesIO()
    buffer.save_to_file(file)
    file.seek(0)
    loaded = AgentBuffer()
    loaded.load_from_file(file)
    return loaded


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEYS, COLUMNS, max_size=4), st.sampled_from([0.0, 1.0, 0.25]))
def test_columns_come_back_with_their_keys_types_and_shapes(columns, padding_value):
    buffer = AgentBuffer()
    for key, values in columns.items():
        buffer[key] = AgentBufferField.holding(values, padding_value)
    loaded = reloaded(buffer)
    assert set(loaded) == set(columns)
    for key, values in columns.items():
        array = loaded[key].to_ndarray()
        assert array.dtype == values.dtype
        np.testing.assert_array_equal(array, values)
        assert loaded[key].padding_value == padding_value


@settings(max_examples=40, deadline=None)
@given(RAGGED_ROWS)
def test_rows_of_lists_come_back(rows):
    buffer = AgentBuffer()
    buffer[MATES].extend(rows)
    loaded = reloaded(buffer)[MATES]
    assert loaded.is_ragged
    assert loaded.contains_lists
    assert len(loaded) == len(rows)
    for row, expected in zip(loaded, rows):
        assert len(row) == len(expected)
        for entry, expected_entry in zip(row, expected):
            assert entry.dtype == np.float32
            np.testing.assert_array_equal(entry, expected_entry, strict=True)


def test_arrays_of_different_shapes_come_back():
    rows = [np.arange(3, dtype=np.int64), np.zeros((2, 2), dtype=np.int64), np.array(5)]
    buffer = AgentBuffer()
    buffer[MATES] = AgentBufferField(rows)
    loaded = reloaded(buffer)[MATES]
    assert [row.shape for row in loaded] == [(3,), (2, 2), ()]
    assert all(row.dtype == np.int64 for row in loaded)
    np.testing.assert_array_equal(loaded[0], [0, 1, 2])
    np.testing.assert_array_equal(loaded[2], 5)


def test_a_loaded_buffer_goes_on_like_the_one_that_was_saved():
    buffer = AgentBuffer()
    buffer[BufferKey.DONE] = np.array([True, False, False])
    buffer[MATES].extend([[np.zeros(2)], [], [np.ones(2), np.ones(2)]])
    loaded = reloaded(buffer)
    for each in (buffer, loaded):
        each[BufferKey.DONE].append(True)
        each[MATES].append([np.full(2, 7.0)])
        each.truncate(3)
    np.testing.assert_array_equal(loaded[BufferKey.DONE], [False, False, True])
    assert loaded[BufferKey.DONE].to_ndarray().dtype == np.bool_
    assert [len(row) for row in loaded[MATES]] == [0, 2, 1]
    np.testing.assert_array_equal(loaded[MATES][2][0], [7, 7])


def test_the_names_in_the_file():
    buffer = AgentBuffer()
    for key in [
        BufferKey.GROUP_DISCRETE_ACTION,
        ObsUtil.get_name_at_next(12),
        RewardSignalUtil.rewards_key("extrinsic"),
        RewardSignalUtil.returns_key("a/b"),
    ]:
        buffer[key] = np.zeros(1)
    file = io.BytesIO()
    buffer.save_to_file(file)
    with h5py.File(file, "r") as opened:
        assert set(opened) == {"group_discrete_aaction", "next_obs:12", "rewards:extrinsic", "returns:a%2Fb"}


def test_loading_replaces_what_was_there():
    saved, buffer = AgentBuffer(), AgentBuffer()
    saved[BufferKey.DONE] = np.zeros(2)
    buffer[BufferKey.MASKS] = np.ones(5)
    file = io.BytesIO()
    saved.save_to_file(file)
    buffer.load_from_file(file)
    assert list(buffer) == [BufferKey.DONE]
    assert buffer.num_experiences == 2


def test_what_is_no_number_is_not_saved():
    buffer = AgentBuffer()
    buffer[BufferKey.DONE] = AgentBufferField.holding(np.array(["yes", "no"]))
    with pytest.raises(BufferException, match=r"done .* arrays of numbers"):
        buffer.save_to_file(io.BytesIO())


def other_file(write):
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        write(opened)
    return file.getvalue()


def group_with(**changed):
    parts = {"values": [1.0, 2.0], "shapes": [2], "ranks": [1], "counts": [1], "is_list": [True], **changed}

    def write(file):
        group = file.create_group("group_obs:0")
        for name, values in parts.items():
            if values is not None:
                group[name] = np.array(values)

    return other_file(write)


def test_the_file_that_the_broken_ones_differ_from_is_read():
    buffer = AgentBuffer()
    buffer.load_from_file(io.BytesIO(group_with()))
    np.testing.assert_array_equal(buffer[MATES][0], [[1.0, 2.0]])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not HDF5 at all",
        other_file(lambda file: file.create_dataset("done", data=np.zeros(9000)))[:-5000],
        other_file(lambda file: file.create_dataset("no_such_column", data=np.zeros(1))),
        other_file(lambda file: file.create_dataset("obs:first", data=np.zeros(1))),
        other_file(lambda file: file.create_dataset("guesses:extrinsic", data=np.zeros(1))),
        other_file(lambda file: file.create_dataset("done", data="some text")),
        other_file(lambda file: file.create_dataset("done", data=3.0)),
        group_with(values=None),
        group_with(shapes=[3]),
        group_with(ranks=[2]),
        group_with(counts=[2]),
        group_with(is_list=[True, False]),
    ],
    ids=[
        "empty",
        "no HDF5",
        "cut short",
        "unknown key",
        "no index",
        "unknown prefix",
        "text",
        "no rows",
        "part missing",
        "too few values",
        "too few sizes",
        "too few entries",
        "too few rows",
    ],
)
def test_damaged_and_other_files_are_refused(content):
    buffer = AgentBuffer()
    buffer[BufferKey.DONE] = np.ones(2)
    with pytest.raises(BufferException):
        buffer.load_from_file(io.BytesIO(content))
    np.testing.assert_array_equal(buffer[BufferKey.DONE], [1, 1])
