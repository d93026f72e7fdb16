"""The buffer: what plug-ins assume of it, line by line, and its rows, which stay together whatever is done to them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlagents.trainers.buffer import (
    AgentBuffer,
    AgentBufferField,
    BufferException,
    BufferKey,
    ObservationKeyPrefix,
    RewardSignalKeyPrefix,
    RewardSignalUtil,
)
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil

REWARDS = BufferKey.ENVIRONMENT_REWARDS
MATES = (ObservationKeyPrefix.GROUP_OBSERVATION, 0)


@pytest.fixture
def rewards() -> AgentBufferField:
    return AgentBufferField(np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32))


# What plug-ins assume


def test_a_missing_key_reads_as_an_empty_field_and_is_then_there():
    buffer = AgentBuffer()
    assert REWARDS not in buffer
    field = buffer[REWARDS]
    assert isinstance(field, AgentBufferField)
    assert len(field) == 0
    assert REWARDS in buffer
    field.append(np.float32(2))
    np.testing.assert_array_equal(buffer[REWARDS], [2])


def test_an_array_is_assigned_to_a_key_as_a_copy():
    buffer = AgentBuffer()
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    buffer[REWARDS] = values
    values[:] = -1
    assert isinstance(buffer[REWARDS], AgentBufferField)
    np.testing.assert_array_equal(buffer[REWARDS], [[0, 1], [2, 3], [4, 5]])


def test_a_field_is_assigned_to_a_key_as_it_is(rewards):
    buffer = AgentBuffer()
    buffer[REWARDS] = rewards
    assert buffer[REWARDS] is rewards


def test_the_last_row_is_assigned(rewards):
    rewards[-1] = 9
    np.testing.assert_array_equal(rewards, [1, 2, 3, 9])


def test_a_row_is_assigned():
    field = AgentBufferField([np.zeros(2), np.zeros(2), np.zeros(2)])
    field[1] = np.array([5, 6])
    np.testing.assert_array_equal(field, [[0, 0], [5, 6], [0, 0]])


def test_all_rows_are_assigned_at_once(rewards):
    rewards[:] = [7, 8]  # as with a list, the length may change
    np.testing.assert_array_equal(rewards, [7, 8])
    rewards[:] = np.ones((3, 2))
    np.testing.assert_array_equal(rewards, np.ones((3, 2)))


def test_all_rows_are_assigned_in_reverse(rewards):
    rewards[::-1] = [1, 2, 3, 4]
    np.testing.assert_array_equal(rewards, [4, 3, 2, 1])


def test_a_field_is_extended_by_an_array():
    field = AgentBuffer()[REWARDS]
    field.extend(np.array([[1, 2]]))
    field.extend(np.array([[3, 4], [5, 6]]))
    np.testing.assert_array_equal(field, [[1, 2], [3, 4], [5, 6]])


def test_a_field_is_extended_by_a_tensor(rewards):
    rewards.extend(torch.tensor([5.0, 6.0]))
    np.testing.assert_array_equal(rewards, [1, 2, 3, 4, 5, 6])


def test_length_and_iteration():
    field = AgentBufferField([np.array([1, 2]), np.array([3, 4])])
    assert len(field) == 2
    assert [row.tolist() for row in field] == [[1, 2], [3, 4]]


def test_sum_any_and_array_of_a_field(rewards):
    assert np.sum(rewards) == 10
    assert np.mean(rewards) == 2.5
    assert np.any(rewards)
    assert not np.any(AgentBufferField([0.0, 0.0]))
    assert not np.any(AgentBuffer()[REWARDS])
    copy = np.array(rewards)
    copy[0] = 100
    assert type(copy) is np.ndarray
    np.testing.assert_array_equal(rewards, [1, 2, 3, 4])


def test_all_of_a_field_as_a_batch():
    field = AgentBufferField([np.array([1, 2]), np.array([3, 4])])
    batch = field.get_batch()
    assert isinstance(batch, list)
    np.testing.assert_array_equal(batch, [[1, 2], [3, 4]])


def test_a_field_is_set_from_a_list(rewards):
    rewards.set([np.array([1.0, 2.0]), np.array([3.0, 4.0])])
    np.testing.assert_array_equal(rewards, [[1, 2], [3, 4]])
    rewards.set([])
    assert len(rewards) == 0


def test_keys_of_all_kinds():
    buffer = AgentBuffer()
    keys = [
        BufferKey.DONE,
        ObsUtil.get_name_at(1),
        ObsUtil.get_name_at_next(1),
        RewardSignalUtil.rewards_key("extrinsic"),
        RewardSignalUtil.value_estimates_key("extrinsic"),
        RewardSignalUtil.returns_key("extrinsic"),
        RewardSignalUtil.advantage_key("extrinsic"),
        RewardSignalUtil.baseline_estimates_key("extrinsic"),
        RewardSignalUtil.rewards_key("curiosity"),
    ]
    for number, key in enumerate(keys):
        buffer[key] = np.full(2, number)
    assert list(buffer) == keys
    assert len(buffer) == len(keys)
    assert [buffer[key][0] for key in keys] == list(range(len(keys)))
    assert (ObservationKeyPrefix.OBSERVATION, 1) in buffer
    assert (RewardSignalKeyPrefix.RETURNS, "extrinsic") in buffer
    del buffer[BufferKey.DONE]
    assert BufferKey.DONE not in buffer


def test_values_and_returns_have_keys_of_their_own():
    names = ["rewards", "value_estimates", "returns", "advantage", "baseline_estimates"]
    keys = {getattr(RewardSignalUtil, f"{name}_key")("extrinsic") for name in names}
    assert len(keys) == len(names)


def test_keys_are_checked_on_request(monkeypatch):
    monkeypatch.setattr(AgentBuffer, "CHECK_KEY_TYPES_AT_RUNTIME", True)
    buffer = AgentBuffer()
    for key in [BufferKey.DONE, ObsUtil.get_name_at(0), RewardSignalUtil.rewards_key("extrinsic")]:
        buffer[key].append(np.float32(1))
    for key in ["done", ("obs", 0), (ObservationKeyPrefix.OBSERVATION, "0"), (RewardSignalKeyPrefix.REWARDS, 0)]:
        with pytest.raises(KeyError):
            buffer[key]
        with pytest.raises(KeyError):
            buffer[key] = np.zeros(1)
        assert key not in buffer


# Buffers: every row carries its number in every column, so that rows that fall apart show


def numbered_buffer(n_rows: int) -> AgentBuffer:
    buffer = AgentBuffer()
    numbers = np.arange(1, n_rows + 1)
    buffer[ObsUtil.get_name_at(0)] = np.stack([numbers, -numbers], axis=1).astype(np.float32)
    buffer[BufferKey.DISCRETE_ACTION] = numbers[:, None].astype(np.int32)
    buffer[REWARDS] = numbers.astype(np.float32)
    buffer[BufferKey.CONTINUOUS_ACTION] = np.zeros((n_rows, 0), dtype=np.float32)
    for number in numbers:
        buffer[MATES].append([np.array([number])] * (number % 3))
    return buffer


def row_numbers(buffer: AgentBuffer) -> list[int]:
    """Return the number of each row, after a look at whether all columns agree."""
    numbers = np.array(buffer[REWARDS])
    np.testing.assert_array_equal(buffer[ObsUtil.get_name_at(0)], np.stack([numbers, -numbers], axis=1))
    np.testing.assert_array_equal(buffer[BufferKey.DISCRETE_ACTION], numbers[:, None])
    assert np.array(buffer[BufferKey.CONTINUOUS_ACTION]).shape == (len(numbers), 0)
    assert len(buffer[MATES]) == len(numbers)
    for number, mates in zip(numbers, buffer[MATES]):
        assert [mate.tolist() for mate in mates] == [[number]] * int(number % 3)
    return numbers.astype(int).tolist()


def whole_sequences(n_rows: int, length: int) -> set[tuple[int, ...]]:
    return {tuple(range(start, start + length)) for start in range(1, n_rows - length + 2, length)}


def cut(numbers: list[int], length: int) -> list[tuple[int, ...]]:
    return [tuple(numbers[start : start + length]) for start in range(0, len(numbers), length)]


@given(st.integers(0, 30), st.integers(1, 7))
def test_a_shuffle_keeps_rows_and_sequences_together(n_rows, length):
    buffer = numbered_buffer(n_rows)
    buffer.shuffle(length)
    sequences = cut(row_numbers(buffer), length)
    assert len(sequences) == n_rows // length
    assert set(sequences) == whole_sequences(n_rows, length)


def test_a_shuffle_follows_numpys_seed_and_does_shuffle():
    orders = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        buffer = numbered_buffer(50)
        buffer.shuffle(1)
        orders.append(row_numbers(buffer))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_a_shuffle_of_some_columns_leaves_the_others():
    buffer = numbered_buffer(20)
    buffer.shuffle(1, key_list=[REWARDS, BufferKey.DISCRETE_ACTION])
    shuffled = np.array(buffer[REWARDS])
    np.testing.assert_array_equal(buffer[BufferKey.DISCRETE_ACTION], shuffled[:, None])
    assert not np.array_equal(shuffled, np.arange(1, 21))
    np.testing.assert_array_equal(np.array(buffer[ObsUtil.get_name_at(0)])[:, 0], np.arange(1, 21))


def test_tensors_made_before_a_shuffle_stay_as_they_are():
    buffer = numbered_buffer(50)
    tensor = ModelUtils.list_to_tensor(buffer[REWARDS])
    minibatch = buffer.make_mini_batch(0, 10)
    buffer.shuffle(1)
    assert tensor.tolist() == list(range(1, 51))
    assert row_numbers(minibatch) == list(range(1, 11))
    assert row_numbers(buffer) != list(range(1, 51))


def test_a_shuffled_buffer_grows_on():
    buffer = numbered_buffer(7)
    buffer.shuffle(3)
    numbers = row_numbers(buffer)
    numbered_buffer(2).resequence_and_append(buffer)
    assert row_numbers(buffer) == [*numbers, 1, 2]


def test_a_minibatch_shares_memory():
    buffer = numbered_buffer(10)
    minibatch = buffer.make_mini_batch(4, 7)
    assert row_numbers(minibatch) == [5, 6, 7]
    for key in buffer.keys() - {MATES, BufferKey.CONTINUOUS_ACTION}:
        assert np.shares_memory(minibatch[key].to_ndarray(), buffer[key].to_ndarray())
    assert row_numbers(buffer.make_mini_batch(8, 99)) == [9, 10]


@given(st.lists(st.integers(0, 6), max_size=6), st.sampled_from(["rows", "keys", "columns at once"]))
def test_parts_are_minibatches_one_behind_the_other(sizes, how_to_read):
    buffer = numbered_buffer(sum(sizes) + 2)
    parts = list(buffer.parts(sizes))
    assert len(parts) == len(sizes)
    for part, size, end in zip(parts, sizes, np.cumsum(sizes)):
        twin = buffer.make_mini_batch(end - size, end)
        assert MATES in part
        if how_to_read == "rows":
            assert row_numbers(part) == row_numbers(twin)
        elif how_to_read == "keys":
            assert part[MATES] == twin[MATES]
        assert list(part) == list(twin)
        assert part.num_experiences == size
        assert all(part[key] == twin[key] for key in twin)
        assert part[REWARDS] is part[REWARDS]


def test_a_part_is_written_to_like_any_buffer():
    first, second = numbered_buffer(5).parts([2, 3])
    first[BufferKey.ADVANTAGES].set(np.array([7.0, 8.0], dtype=np.float32))
    first[REWARDS] = np.array([9.0, 9.0], dtype=np.float32)
    del first[MATES]
    assert MATES not in first
    assert BufferKey.ADVANTAGES not in second
    assert list(first)[-1] is BufferKey.ADVANTAGES
    assert first[REWARDS] == [9.0, 9.0]
    assert len(first[BufferKey.MASKS]) == 0
    first.shuffle(1, [BufferKey.ADVANTAGES])
    assert sorted(first[BufferKey.ADVANTAGES]) == [7.0, 8.0]
    second.reset_agent()
    assert len(second) == second.num_experiences == 0


def test_columns_of_a_part_that_nobody_asks_for_are_not_cut_out(monkeypatch):
    cut = []
    monkeypatch.setattr(
        AgentBufferField, "part", lambda field, start, end: cut.append((start, end)) or AgentBufferField([1.0])
    )
    (part,) = numbered_buffer(5).parts([3])
    assert BufferKey.CONTINUOUS_ACTION in part
    part[BufferKey.ADVANTAGES].append(2.0)
    assert not cut
    assert part[REWARDS] == [1.0]
    assert cut == [(0, 3)]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 7))
def test_a_sampled_minibatch_holds_whole_sequences(n_rows, batch_size, length):
    length = min(length, n_rows)
    buffer = numbered_buffer(n_rows)
    sample = buffer.sample_mini_batch(batch_size, length)
    numbers = row_numbers(sample)
    assert len(numbers) == max(batch_size // length, 1) * length
    assert set(cut(numbers, length)) <= whole_sequences(n_rows, length)
    sample[REWARDS][0] = -1
    assert row_numbers(buffer) == list(range(1, n_rows + 1))


def test_every_sequence_is_sampled_and_none_is_preferred():
    np.random.seed(3)
    numbers = row_numbers(numbered_buffer(11).sample_mini_batch(6000, sequence_length=2))
    starts, counts = np.unique(numbers[::2], return_counts=True)
    assert starts.tolist() == [1, 3, 5, 7, 9]
    # 3000 sequences over 5: 600 each, with a standard deviation of sqrt(3000 * 0.2 * 0.8) = 22.
    assert np.abs(counts - 600).max() < 110


@given(st.integers(0, 20), st.integers(0, 25), st.integers(1, 5))
def test_truncation_keeps_the_newest_whole_sequences(n_rows, max_length, length):
    buffer = numbered_buffer(n_rows)
    buffer.truncate(max_length, length)
    keep = max_length // length * length
    assert row_numbers(buffer) == list(range(1, n_rows + 1))[max(n_rows - keep, 0) :]


def test_truncation_leaves_alone_what_shares_the_rows():
    buffer = numbered_buffer(6)
    part = buffer.make_mini_batch(0, 6)
    rows = ModelUtils.list_to_tensor(buffer[REWARDS]).clone()
    tensor = ModelUtils.list_to_tensor(buffer[REWARDS])
    part.truncate(2)
    assert row_numbers(part) == [5, 6]
    assert row_numbers(buffer) == [1, 2, 3, 4, 5, 6]
    buffer.truncate(3)
    buffer[REWARDS].append(np.float32(99))
    assert torch.equal(tensor, rows)


def test_a_buffer_without_a_whole_sequence_cannot_be_sampled():
    with pytest.raises(BufferException, match="2 rows holds no sequence of 3"):
        numbered_buffer(2).sample_mini_batch(6, sequence_length=3)
    with pytest.raises(BufferException, match="holds no sequence"):
        AgentBuffer().sample_mini_batch(1)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 4))
def test_trajectories_are_appended_in_padded_sequences(lengths, training_length):
    target, expected, expected_masks, last_rows = AgentBuffer(), [], [], []
    for n_rows in lengths:
        buffer = numbered_buffer(n_rows)
        buffer[BufferKey.MASKS] = np.ones(n_rows, dtype=np.float32)
        buffer[BufferKey.ACTION_MASK] = AgentBufferField(np.arange(n_rows, dtype=np.float32)[:, None], 1.0)
        buffer.resequence_and_append(target, training_length=training_length)
        padding = -n_rows % training_length
        expected += [*range(1, n_rows + 1)] + [0] * padding
        expected_masks += [1] * n_rows + [0] * padding
        last_rows += [*range(n_rows)] + [n_rows - 1] * padding
    assert row_numbers(target) == expected
    np.testing.assert_array_equal(target[BufferKey.MASKS], expected_masks)
    np.testing.assert_array_equal(np.array(target[BufferKey.ACTION_MASK])[:, 0], last_rows)
    assert target[BufferKey.DISCRETE_ACTION].to_ndarray().dtype == np.int32
    assert target[BufferKey.ACTION_MASK].padding_value == 1.0


def test_some_columns_and_some_sequences_are_appended():
    target = AgentBuffer()
    keys = [REWARDS, BufferKey.DISCRETE_ACTION]
    numbered_buffer(9).resequence_and_append(target, keys, batch_size=2, training_length=3)
    assert list(target) == keys
    np.testing.assert_array_equal(target[REWARDS], [4, 5, 6, 7, 8, 9])


def test_what_was_appended_is_a_copy():
    source, target = numbered_buffer(3), AgentBuffer()
    source.resequence_and_append(target)
    source[REWARDS][0] = -1
    assert row_numbers(target) == [1, 2, 3]


def test_columns_of_different_lengths_are_refused():
    buffer = numbered_buffer(4)
    buffer[REWARDS].append(np.float32(5))
    message = "not of one length.*ENVIRONMENT_REWARDS.*5"
    with pytest.raises(BufferException, match=message):
        buffer.shuffle(1)
    with pytest.raises(BufferException, match=message):
        buffer.resequence_and_append(AgentBuffer())
    with pytest.raises(BufferException, match="missing"):
        buffer.shuffle(1, key_list=[REWARDS, BufferKey.DONE])
    assert BufferKey.DONE not in buffer
    assert not buffer.check_length([REWARDS, BufferKey.DISCRETE_ACTION])
    assert not buffer.check_length([REWARDS, BufferKey.DONE])
    assert buffer.check_length([ObsUtil.get_name_at(0), BufferKey.DISCRETE_ACTION])
    assert buffer.check_length([REWARDS])


def test_an_emptied_buffer_holds_nothing():
    buffer = numbered_buffer(4)
    assert buffer.num_experiences == 4
    buffer.reset_agent()
    assert buffer.num_experiences == 0
    assert list(buffer) == []
    buffer.shuffle(1)
    buffer.truncate(0)
    assert len(buffer) == 0
