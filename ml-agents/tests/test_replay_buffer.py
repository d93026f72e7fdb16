"""The replay buffer against the ordinary one: whatever is done to both, they hold the same."""

import copy
import io

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlagents.trainers import buffer_file, observation_log
from mlagents.trainers.buffer import AgentBuffer, BufferKey
from mlagents.trainers.replay_buffer import ReplayBuffer
from mlagents.trainers.trajectory import ObsUtil

REWARDS = BufferKey.ENVIRONMENT_REWARDS
VECTOR, IMAGE = ObsUtil.get_name_at(0), ObsUtil.get_name_at(1)
NEXT_VECTOR, NEXT_IMAGE = ObsUtil.get_name_at_next(0), ObsUtil.get_name_at_next(1)
OBSERVATIONS = [VECTOR, NEXT_VECTOR, IMAGE, NEXT_IMAGE]
SHAPES = {VECTOR: (2,), NEXT_VECTOR: (2,), IMAGE: (1, 2, 2), NEXT_IMAGE: (1, 2, 2)}


def file_of(buffer):
    file = io.BytesIO()
    buffer.save_to_file(file)
    file.seek(0)
    return file


SEEDS = st.integers(0, 2**32 - 1)
KEYS = st.sampled_from(OBSERVATIONS)
PARTS = st.one_of(st.none(), st.integers(-9, 9))


class ReplayAsOrdinary(RuleBasedStateMachine):
    """Does the same to a replay buffer with blocks of a few rows and to an ordinary buffer."""

    @initialize(block_bytes=st.sampled_from([8, 24, 64, 10**6]), rows=st.sampled_from([1, 3, 10**6]))
    def begin(self, block_bytes, rows):
        self.sizes = pytest.MonkeyPatch()
        self.sizes.setattr(observation_log, "BLOCK_BYTES", block_bytes)
        self.sizes.setattr(buffer_file, "_VALUES_AT_ONCE", 4 * rows)
        self.replay, self.twin = ReplayBuffer(), AgentBuffer()
        self.held = []
        self.last = {}

    def teardown(self):
        self.sizes.undo()

    @rule(
        seed=SEEDS,
        n_rows=st.integers(0, 7),
        length=st.integers(1, 4),
        goes_on=st.booleans(),
        breaks=st.booleans(),
        is_8_bit=st.sampled_from([True] * 7 + [False]),
        has_padding_value=st.booleans(),
    )
    def append(self, seed, n_rows, length, goes_on, breaks, is_8_bit, has_padding_value):
        random = np.random.default_rng(seed)
        trajectory = AgentBuffer()
        trajectory[REWARDS] = random.random(n_rows, dtype=np.float32)
        for key, next_key in ((VECTOR, NEXT_VECTOR), (IMAGE, NEXT_IMAGE)):
            if key == IMAGE and is_8_bit:
                rows = random.integers(0, 256, (n_rows + 1, *SHAPES[key])) / np.float32(255)
            else:
                rows = random.integers(-2, 3, (n_rows + 1, *SHAPES[key]))
            rows = rows.astype(np.float32)
            if goes_on and key in self.last:
                rows[0] = self.last[key]
            self.last[key] = rows[-1]
            trajectory[key], trajectory[next_key] = rows[:-1], rows[1:]
            if breaks and n_rows:
                trajectory[next_key][random.integers(n_rows)] = rows[0]
            trajectory[key].padding_value = float(has_padding_value)
        for buffer in (self.replay, self.twin):
            trajectory.resequence_and_append(buffer, training_length=length)

    @rule(seed=SEEDS, key=KEYS)
    def append_by_column(self, seed, key):
        """Each column by itself, as a plug-in may."""
        random = np.random.default_rng(seed)
        self.both(lambda buffer: buffer[key].extend(np.full((2, *SHAPES[key]), 0.5, dtype=np.float32)))
        for other in (set(OBSERVATIONS) | {REWARDS}) - {key}:
            rows = random.random((2, *SHAPES.get(other, ())), dtype=np.float32)
            self.both(lambda buffer, other=other, rows=rows: buffer[other].extend(rows))

    @rule(max_length=st.integers(0, 20), length=st.integers(1, 3))
    def truncate(self, max_length, length):
        self.both(lambda buffer: buffer.truncate(max_length, length))

    @rule(seed=SEEDS, length=st.integers(1, 3))
    def shuffle(self, seed, length):
        def act(buffer):
            np.random.seed(seed)
            buffer.shuffle(length)

        self.both(act)

    @rule(seed=SEEDS, key=KEYS)
    @precondition(lambda self: len(self.twin))
    def shuffle_one(self, seed, key):
        def act(buffer):
            np.random.seed(seed)
            buffer.shuffle(1, key_list=[key])

        self.both(act)

    @rule(seed=SEEDS, size=st.integers(1, 20), length=st.integers(1, 3))
    @precondition(lambda self: self.twin.num_experiences >= 3)
    def sample(self, seed, size, length):
        samples = []
        for buffer in (self.replay, self.twin):
            np.random.seed(seed)
            samples.append(buffer.sample_mini_batch(size, length))
        assert_same_buffers(*samples)
        samples[0][IMAGE][:] = np.full(SHAPES[IMAGE], 9.0)  # a copy

    @rule(start=st.integers(0, 9), size=st.integers(0, 9))
    def part(self, start, size):
        assert_same_buffers(*(buffer.make_mini_batch(start, start + size) for buffer in (self.replay, self.twin)))

    @rule(length=st.integers(1, 3))
    def append_to_others(self, length):
        ordinary, again, expected = AgentBuffer(), ReplayBuffer(), AgentBuffer()
        self.replay.resequence_and_append(ordinary, training_length=length)
        self.replay.resequence_and_append(again, training_length=length)
        self.twin.resequence_and_append(expected, training_length=length)
        assert_same_buffers(ordinary, expected)
        assert_same_buffers(again, expected)

    @rule()
    def save_and_load(self):
        files = [file_of(self.replay), file_of(self.twin)]
        # Each reads what the other wrote.
        self.twin.load_from_file(files[0])
        self.replay.load_from_file(files[1])

    @rule()
    def load_its_own(self):
        self.replay.load_from_file(file_of(self.replay))
        self.twin.load_from_file(file_of(self.twin))

    @rule()
    def copy(self):
        self.replay = copy.deepcopy(self.replay)
        self.twin = copy.deepcopy(self.twin)
        self.held.clear()

    @rule()
    def empty(self):
        self.both(lambda buffer: buffer.reset_agent())

    @rule(key=KEYS)
    def hold(self, key):
        """Fields that were read go on with the buffer, or without it."""
        self.held.append((self.replay[key], self.twin[key]))
        del self.held[:-4]

    @rule(key=KEYS)
    @precondition(lambda self: len(self.twin) == 5)
    def move_away(self, key):
        self.held.append((self.replay.pop(key), self.twin.pop(key)))
        for buffer in (self.replay, self.twin):
            buffer[key] = np.zeros((buffer.num_experiences, *SHAPES[key]), dtype=np.float32)

    @rule(
        key=KEYS, act=st.sampled_from(["row", "last", "all", "set", "list", "reverse", "pop", "insert", "keep", "own"])
    )
    @precondition(lambda self: self.twin.num_experiences >= 2)
    def write(self, key, act):
        row = np.full(SHAPES[key], 0.25, dtype=np.float32)
        n_rows = self.twin.num_experiences

        def write(buffer):
            field = buffer[key]
            if act == "row":
                field[0] = row
            elif act == "last":
                field[-1] = row
            elif act == "all":
                field[:] = np.stack([row] * n_rows)
            elif act == "set":
                field.set(np.stack([row] * n_rows))
            elif act == "list":
                field.set(list(field))
            elif act == "reverse":
                field.reverse()
            elif act == "pop":
                field.append(field.pop(0))
            elif act == "insert":
                field.insert(1, row)
                del field[-1]
            elif act == "keep":
                field.keep_last(1)
                field.extend(np.stack([row] * (n_rows - 1)))
            else:
                field.extend(field)
                del field[n_rows:]

        self.both(write)

    @rule(key=KEYS, start=PARTS, stop=PARTS, step=st.sampled_from([None, 1, 2, -1]), index=st.integers(-9, 9))
    def read(self, key, start, stop, step, index):
        fields = self.replay[key], self.twin[key]
        assert_same_fields(*(field[start:stop:step] for field in fields))
        if -len(fields[1]) <= index < len(fields[1]):
            np.testing.assert_array_equal(*(field[index] for field in fields), strict=True)
            np.testing.assert_array_equal(*(field[[index, 0]] for field in fields), strict=True)
            np.testing.assert_array_equal(*(field[index, 0] for field in fields), strict=True)
            np.testing.assert_array_equal(*(field[:, 0] for field in fields), strict=True)
        else:
            with pytest.raises(IndexError):
                fields[0][index]
        np.testing.assert_array_equal(*(np.array(field.get_batch(training_length=3)) for field in fields), strict=True)

    def both(self, act):
        act(self.replay)
        act(self.twin)

    @invariant()
    def they_are_the_same(self):
        if not hasattr(self, "twin"):
            return
        assert_same_buffers(self.replay, self.twin)
        for mine, theirs in self.held:
            assert_same_fields(mine, theirs)


def assert_same_buffers(mine, theirs):
    assert set(mine) == set(theirs)
    assert mine.num_experiences == theirs.num_experiences
    for key in theirs:
        assert_same_fields(mine[key], theirs[key])


def assert_same_fields(mine, theirs):
    assert len(mine) == len(theirs)
    assert mine.padding_value == theirs.padding_value
    assert mine.row_shape == theirs.row_shape
    array = theirs.to_ndarray()
    np.testing.assert_array_equal(mine.to_ndarray(), array, strict=True)
    np.testing.assert_array_equal(np.array(mine), array, strict=True)
    for row, expected in zip(mine, theirs):
        np.testing.assert_array_equal(row, expected, strict=True)


TestReplayAsOrdinary = ReplayAsOrdinary.TestCase
TestReplayAsOrdinary.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
