"""The buffer of on-policy trainers: images like those of a replay buffer, all else like an ordinary one."""

import numpy as np

from mlagents.trainers.buffer import AgentBuffer, BufferKey
from mlagents.trainers.observation_field import ObservationField
from mlagents.trainers.replay_buffer import RolloutBuffer
from mlagents.trainers.trajectory import ObsUtil

VECTOR, NEXT_VECTOR = ObsUtil.get_name_at(0), ObsUtil.get_name_at_next(0)
IMAGE, NEXT_IMAGE = ObsUtil.get_name_at(1), ObsUtil.get_name_at_next(1)


def filled(kind, pixels_per_unit=255):
    """Return a buffer with three trajectories, and an advantage by row."""
    rng = np.random.default_rng(0)
    buffer = kind()
    for n_rows in (4, 1, 7):
        trajectory = AgentBuffer()
        image = rng.integers(0, 256, (n_rows + 1, 3, 2, 2)).astype(np.float32) / np.float32(pixels_per_unit)
        vector = rng.normal(size=(n_rows + 1, 5)).astype(np.float32)
        trajectory[VECTOR], trajectory[NEXT_VECTOR] = vector[:-1], vector[1:]
        trajectory[IMAGE], trajectory[NEXT_IMAGE] = image[:-1], image[1:]
        trajectory[BufferKey.ADVANTAGES] = rng.normal(size=n_rows).astype(np.float32)
        trajectory.resequence_and_append(buffer)
    return buffer


def test_it_reads_as_an_ordinary_buffer_in_the_passes_of_an_update():
    for pixels_per_unit in (255, 100):  # of 8 bits, and not
        ours, twin = filled(RolloutBuffer, pixels_per_unit), filled(AgentBuffer, pixels_per_unit)
        for _ in range(2):
            for buffer in (ours, twin):
                np.random.seed(3)
                buffer.shuffle(1)
            for start in range(0, 12, 4):
                mine, theirs = (buffer.make_mini_batch(start, start + 4) for buffer in (ours, twin))
                assert mine.keys() == theirs.keys()
                for key in theirs:
                    np.testing.assert_array_equal(mine[key].to_ndarray(), theirs[key].to_ndarray())
                    assert mine[key].to_ndarray().dtype == theirs[key].to_ndarray().dtype


def test_images_alone_are_kept_as_bytes():
    buffer = filled(RolloutBuffer)
    assert buffer[IMAGE].holds_bytes
    assert isinstance(buffer[NEXT_IMAGE], ObservationField)
    assert not isinstance(buffer[VECTOR], ObservationField)
    assert not filled(RolloutBuffer, 100)[IMAGE].holds_bytes


def test_what_a_minibatch_is_not_asked_for_is_not_made():
    minibatch = filled(RolloutBuffer).make_mini_batch(0, 4)
    images = minibatch[IMAGE].to_ndarray()
    assert isinstance(minibatch[NEXT_IMAGE], ObservationField)
    assert not isinstance(minibatch[IMAGE], ObservationField)
    images[0] = 0.5  # it is the minibatch's own, like any other column of it
    assert minibatch[IMAGE].to_ndarray()[0, 0, 0, 0] == 0.5


def test_an_emptied_buffer_is_filled_anew():
    buffer = filled(RolloutBuffer)
    buffer.reset_agent()
    assert buffer.num_experiences == 0
    trajectory = AgentBuffer()
    trajectory[IMAGE] = trajectory[NEXT_IMAGE] = np.full((2, 1, 3, 3), 0.3, dtype=np.float32)
    trajectory.resequence_and_append(buffer)
    assert not buffer[IMAGE].holds_bytes
    np.testing.assert_array_equal(buffer[IMAGE].to_ndarray(), np.full((2, 1, 3, 3), 0.3, dtype=np.float32))
