"""What the replay buffer takes of memory and of a file, and its columns in a plug-in's hands."""

import io
import tracemalloc

import h5py
import numpy as np
import pytest

from mlagents.trainers import buffer_file, observation_log
from mlagents.trainers.buffer import AgentBuffer, AgentBufferField, BufferException, BufferKey
from mlagents.trainers.observation_field import ObservationField
from mlagents.trainers.replay_buffer import ReplayBuffer
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil

# Memory

PICTURE, NEXT_PICTURE = ObsUtil.get_name_at(0), ObsUtil.get_name_at_next(0)
SIZE = (3, 16, 16)
PIXELS = 3 * 16 * 16
OTHER, NEXT_OTHER = ObsUtil.get_name_at(1), ObsUtil.get_name_at_next(1)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks, and pieces of files, of 16 images."""
    monkeypatch.setattr(observation_log, "BLOCK_BYTES", 16 * PIXELS)
    monkeypatch.setattr(buffer_file, "_VALUES_AT_ONCE", 16 * PIXELS)


def pictures(n_rows, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (n_rows, *SIZE), dtype=np.uint8)
    return pixels / np.float32(255)


def is_compact(buffer, key):
    return type(buffer[key]) is ObservationField


def file_of(buffer):
    file = io.BytesIO()
    buffer.save_to_file(file)
    file.seek(0)
    return file


def assert_same_rows(mine, theirs):
    assert set(mine) == set(theirs)
    for key in theirs:
        np.testing.assert_array_equal(mine[key].to_ndarray(), theirs[key].to_ndarray(), strict=True)


def trajectory_of(rows):
    buffer = AgentBuffer()
    buffer[PICTURE], buffer[NEXT_PICTURE] = rows[:-1], rows[1:]
    return buffer


def fill(buffer, n_rows, length, noise=0.0):
    trajectory = trajectory_of(pictures(length + 1) + np.float32(noise))
    for _ in range(n_rows // length):
        trajectory.resequence_and_append(buffer)


def measured(act, prepare=lambda: None):
    """Return what `act` gives, how many bytes it leaves behind, and how many it took at most.

    :param prepare: called before; its result is kept and given to `act`, if it is not None.
    """
    tracemalloc.start()
    try:
        prepared = prepare()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        result = act() if prepared is None else act(prepared)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return result, after - before, peak - before


# Beyond the pixels: two blocks that are not full, and two columns of places, which grow by doubling.
def slack(n_rows):
    return 2 * 16 * PIXELS + 2 * 2 * 2 * 8 * n_rows


def filled(n_rows, length, noise=0.0):
    buffer = ReplayBuffer()
    fill(buffer, n_rows, length, noise)
    return buffer


def test_a_pixel_takes_one_byte_and_next_observations_nothing(small_blocks):
    buffer, taken, peak = measured(lambda: filled(3200, 64))
    assert is_compact(buffer, PICTURE)
    assert is_compact(buffer, NEXT_PICTURE)
    n_stored = 3200 // 64 * 65  # the one after the last step of each trajectory is nobody else's
    assert n_stored * PIXELS < taken < n_stored * PIXELS + slack(3200)
    # While it grows, nothing but a trajectory is there twice, as float32, a few times over.
    assert peak < taken + 10 * 65 * PIXELS * 4


def test_other_pixels_take_four_bytes_and_next_observations_nothing(small_blocks):
    n_stored = 1280 // 64 * 65
    _, taken, _ = measured(lambda: filled(1280, 64, noise=0.1))
    assert n_stored * PIXELS * 4 < taken < n_stored * PIXELS * 4 + 4 * slack(1280)


def test_episodes_of_one_step_take_two_observations_a_step(small_blocks):
    _, taken, _ = measured(lambda: filled(1000, 1))
    assert taken < 2 * 1000 * PIXELS + slack(1000)


def test_an_agent_that_goes_on_is_kept_once_however_short_its_trajectories(small_blocks):
    rows = pictures(1001)

    def act():
        buffer = ReplayBuffer()
        for start in range(1000):
            trajectory_of(rows[start : start + 2]).resequence_and_append(buffer)
        return buffer

    buffer, taken, _ = measured(act)
    assert taken < 1001 * PIXELS + slack(1000)
    np.testing.assert_array_equal(buffer[NEXT_PICTURE].to_ndarray(), rows[1:], strict=True)


def test_truncation_copies_no_pixels_and_gives_memory_back(small_blocks):
    def cut(buffer):
        buffer.truncate(1600)
        return buffer

    buffer, taken, peak = measured(cut, prepare=lambda: filled(3200, 64))
    assert -taken > 1600 // 64 * 65 * PIXELS - 2 * 16 * PIXELS
    assert peak < slack(3200)
    np.testing.assert_array_equal(buffer[PICTURE].to_ndarray(), np.tile(pictures(65)[:64], (25, 1, 1, 1)), strict=True)


def test_a_buffer_that_is_filled_and_cut_in_turns_does_not_grow(small_blocks):
    def turns():
        buffer = ReplayBuffer()
        for _ in range(40):
            fill(buffer, 256, 64)
            if buffer.num_experiences > 1280:
                buffer.truncate(1024)
        return buffer

    _, _, peak = measured(turns)
    assert peak < 1536 // 64 * 65 * PIXELS + slack(2048) + 10 * 65 * PIXELS * 4


def test_files_are_written_and_read_in_pieces(small_blocks, tmp_path):
    buffer, taken, _ = measured(lambda: filled(3200, 64))
    path = tmp_path / "replay.hdf5"
    with open(path, "wb+") as file:
        _, _, peak = measured(lambda: buffer.save_to_file(file))
    column = 3200 * PIXELS
    assert peak < column // 2  # of which bytes
    assert 2 * column < path.stat().st_size < 2.1 * column

    def load():
        loaded = ReplayBuffer()
        with open(path, "rb") as file:
            loaded.load_from_file(file)
        return loaded

    loaded, loaded_takes, peak = measured(load)
    assert loaded_takes < taken + slack(3200)
    assert peak < loaded_takes + column // 2
    assert_same_rows(loaded, buffer)


# Files


def test_a_file_of_ml_agents_1_1_0_is_read_and_takes_as_little():
    rows = pictures(301)
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        for name, values in [("obs:0", rows[:-1]), ("next_obs:0", rows[1:]), ("done", np.zeros(300))]:
            opened.create_dataset(name, data=values, dtype="f", compression="gzip")
    loaded = ReplayBuffer()
    loaded.load_from_file(file)
    assert is_compact(loaded, PICTURE)
    assert loaded[PICTURE].holds_bytes
    np.testing.assert_array_equal(loaded[PICTURE].to_ndarray(), rows[:-1], strict=True)
    np.testing.assert_array_equal(loaded[NEXT_PICTURE].to_ndarray(), rows[1:], strict=True)
    assert loaded[BufferKey.DONE].to_ndarray().tolist() == [0.0] * 300


@pytest.mark.parametrize(("noise", "dtype"), [(0.0, np.uint8), (0.1, np.float32)])
def test_images_in_the_file(noise, dtype):
    buffer = filled(8, 4, noise)
    with h5py.File(file_of(buffer), "r") as opened:
        assert set(opened) == {"obs:0", "next_obs:0"}
        assert opened["next_obs:0"].dtype == dtype
        scale = 255 if dtype == np.uint8 else 1
        np.testing.assert_array_equal(opened["next_obs:0"][()] / np.float32(scale), buffer[NEXT_PICTURE].to_ndarray())
        assert bool(opened["obs:0"].attrs.get("pixels_of_8_bits", False)) == (dtype == np.uint8)


def test_images_of_which_some_are_of_8_bits_are_written_as_floats(small_blocks):
    buffer = filled(64, 64)
    fill(buffer, 64, 64, noise=0.1)
    loaded = ReplayBuffer()
    loaded.load_from_file(file_of(buffer))
    assert_same_rows(loaded, buffer)
    np.testing.assert_array_equal(loaded[PICTURE].to_ndarray()[:64], pictures(65)[:64], strict=True)


def test_bytes_that_are_no_pixels_stay_what_they_are():
    buffer = ReplayBuffer()
    buffer[BufferKey.DONE] = np.arange(5, dtype=np.uint8)
    loaded = ReplayBuffer()
    loaded.load_from_file(file_of(buffer))
    np.testing.assert_array_equal(loaded[BufferKey.DONE].to_ndarray(), np.arange(5, dtype=np.uint8), strict=True)


@pytest.mark.parametrize("size", [100, 3000, -500], ids=["its beginning", "half of it", "all but its end"])
def test_what_cannot_be_read_leaves_the_buffer_as_it_was(size):
    buffer = filled(8, 4)
    cut = io.BytesIO(file_of(buffer).getvalue()[:size])
    with pytest.raises(BufferException, match="does not hold the columns"):
        buffer.load_from_file(cut)
    assert buffer.num_experiences == 8
    assert is_compact(buffer, PICTURE)


def test_pairs_that_do_not_fit_each_other_are_read_as_they_are():
    buffer = AgentBuffer()
    buffer[PICTURE], buffer[NEXT_PICTURE] = np.zeros((3, 2)), np.zeros((3, 1))
    buffer[OTHER], buffer[NEXT_OTHER] = np.zeros((3, 2), dtype=np.int32), np.ones((3, 2), dtype=np.int32)
    buffer[ObsUtil.get_name_at(2)] = AgentBufferField([np.zeros(1), np.zeros(2), np.zeros(3)])
    buffer[ObsUtil.get_name_at_next(2)] = AgentBufferField([np.zeros(2), np.zeros(3), np.zeros(1)])
    buffer[ObsUtil.get_name_at(3)] = np.zeros((3, 2))
    loaded = ReplayBuffer()
    loaded.load_from_file(file_of(buffer))
    assert loaded[OTHER].to_ndarray().dtype == np.int32
    assert [row.shape for row in loaded[ObsUtil.get_name_at(2)]] == [(1,), (2,), (3,)]
    assert loaded[NEXT_PICTURE].to_ndarray().shape == (3, 1)
    assert loaded[ObsUtil.get_name_at(3)].to_ndarray().shape == (3, 2)
    assert set(loaded) == set(buffer)


# Columns in a plug-in's hands


@pytest.fixture
def replay():
    return filled(8, 4)


def test_a_write_goes_to_one_column_and_leaves_the_other_compact(replay):
    rows, next_rows = replay[PICTURE].to_ndarray(), replay[NEXT_PICTURE].to_ndarray()
    field = replay[PICTURE]
    field[2] = np.zeros(SIZE)
    assert replay[PICTURE] is field
    assert not is_compact(replay, PICTURE)
    assert is_compact(replay, NEXT_PICTURE)
    assert not field[2].any()
    np.testing.assert_array_equal(field.to_ndarray()[3:], rows[3:], strict=True)
    np.testing.assert_array_equal(replay[NEXT_PICTURE].to_ndarray(), next_rows, strict=True)
    field.to_ndarray()[0] = 0.5  # as of any field
    assert (field[0] == 0.5).all()


def test_a_write_to_what_was_read_fails_rather_than_be_lost(replay):
    field = replay[PICTURE]
    for read in (field.to_ndarray(), field[0], next(iter(field)), field.get_batch()[0]):
        with pytest.raises(ValueError, match="read-only"):
            read[:] = 0
    np.array(field)[:] = 0
    assert field.to_ndarray().any()
    tensor = ModelUtils.list_to_tensor(field)
    tensor.zero_()
    assert field.to_ndarray().any()


def test_a_method_kept_from_before_a_write_still_works(replay):
    field = replay[PICTURE]
    append = field.append
    append(np.zeros(SIZE, dtype=np.float32))
    append(np.ones(SIZE, dtype=np.float32))
    assert len(field) == 10
    assert field[-1].all()


def test_an_observation_without_its_next_one_is_an_ordinary_column(replay):
    alone = ReplayBuffer()
    replay.resequence_and_append(alone, key_list=[PICTURE])
    assert list(alone) == [PICTURE]
    np.testing.assert_array_equal(alone[PICTURE].to_ndarray(), replay[PICTURE].to_ndarray(), strict=True)


def test_reading_a_column_before_there_are_rows_changes_nothing():
    buffer = ReplayBuffer()
    field = buffer[PICTURE]
    assert len(field) == 0
    assert not np.any(field)
    fill(buffer, 8, 4)
    assert buffer[PICTURE] is field
    assert len(field) == 8
    assert is_compact(buffer, PICTURE)


def test_rows_of_another_kind_make_the_columns_ordinary(replay):
    vectors = AgentBuffer()
    vectors[PICTURE], vectors[NEXT_PICTURE] = np.ones((2, 3)), np.zeros((2, 3))
    vectors.resequence_and_append(replay)
    assert [row.shape for row in replay[PICTURE]] == [SIZE] * 8 + [(3,)] * 2
    assert replay[NEXT_PICTURE].is_ragged


def test_lists_of_rows_are_taken_too():
    groups = AgentBuffer()
    groups[PICTURE] = AgentBufferField([[np.zeros(1)], []])
    groups[NEXT_PICTURE] = AgentBufferField([[], [np.zeros(1)]])
    buffer = ReplayBuffer()
    groups.resequence_and_append(buffer)
    assert [len(row) for row in buffer[NEXT_PICTURE]] == [0, 1]
