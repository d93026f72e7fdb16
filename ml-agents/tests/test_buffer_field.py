"""Columns of the buffer: their types and memory, and their rows against naive lists."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlagents.trainers.buffer import AgentBufferField, BufferException
from mlagents.trainers.torch_entities.utils import ModelUtils


@pytest.fixture
def rewards() -> AgentBufferField:
    return AgentBufferField(np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32))


# Types and memory


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1.5, 2.5], np.float32),
        (np.array([1.5]), np.float32),
        (np.array([1.5], dtype=np.float32), np.float32),
        ([True, False], np.bool_),
        (np.array([[1, 2]], dtype=np.int32), np.int32),
        (np.array([[1, 2]], dtype=np.int64), np.int64),
        (np.array([255], dtype=np.uint8), np.uint8),
        ([torch.tensor(1.5)], np.float32),
    ],
)
def test_columns_keep_their_type_but_float64_becomes_float32(values, dtype):
    for field in (AgentBufferField(values), AgentBufferField([0.0])):
        field.set(values)
        assert field.to_ndarray().dtype == dtype
        np.testing.assert_array_equal(field, values)


def test_a_column_widens_to_hold_what_comes_later():
    field = AgentBufferField([True, False])
    field.append(2)
    field.append(0.5)
    np.testing.assert_array_equal(field, np.array([1, 0, 2, 0.5], dtype=np.float32), strict=True)
    field[0] = np.float64(0.25)
    assert field.to_ndarray().dtype == np.float32


def test_a_number_of_python_does_not_widen_a_column_that_can_hold_it():
    field = AgentBufferField(np.array([1, 2], dtype=np.int32))
    field[0] = 5
    assert field.to_ndarray().dtype == np.int32
    field[0] = 0.5
    np.testing.assert_array_equal(field, np.array([0.5, 2], dtype=np.float32), strict=True)


def test_a_column_is_a_tensor_without_a_copy(rewards):
    tensor = ModelUtils.list_to_tensor(rewards)
    tensor[0] = 50
    assert rewards[0] == 50
    assert rewards.to_ndarray().flags.c_contiguous


def test_an_integer_column_becomes_a_float_tensor():
    tensor = ModelUtils.list_to_tensor(AgentBufferField(np.array([1, 2], dtype=np.int32)))
    assert tensor.dtype == torch.float32
    assert tensor.tolist() == [1, 2]


@given(st.lists(st.integers(0, 40), max_size=12))
def test_growing_keeps_the_rows(sizes):
    field, rows = AgentBufferField(), np.zeros((0, 2), dtype=np.float32)
    for number, size in enumerate(sizes):
        more = np.full((size, 2), number, dtype=np.float32)
        field.extend(more)
        rows = np.concatenate([rows, more])
    assert len(field) == len(rows)
    assert not sizes or np.array_equal(field.to_ndarray(), rows)


def test_many_single_rows_are_copied_a_bounded_number_of_times():
    field, arrays = AgentBufferField(), []
    for number in range(5000):
        field.append(np.float32(number))
        base = field.to_ndarray().base
        if not arrays or base is not arrays[-1]:
            arrays.append(base)
    np.testing.assert_array_equal(field, np.arange(5000))
    assert len(arrays) < 12  # doubling from 16 gets to 8192 in 9 steps


def test_a_slice_shares_its_rows_until_it_grows(rewards):
    part = rewards[1:3]
    part[0] = 20
    np.testing.assert_array_equal(rewards, [1, 20, 3, 4])
    part.append(np.float32(5))
    part[0] = 0
    np.testing.assert_array_equal(rewards, [1, 20, 3, 4])
    np.testing.assert_array_equal(part, [0, 3, 5])


def test_an_emptied_field_takes_rows_of_another_shape(rewards):
    rewards.reset_field()
    assert len(rewards) == 0
    rewards.append(np.array([1, 2, 3], dtype=np.int32))
    assert rewards.to_ndarray().shape == (1, 3)
    assert rewards.to_ndarray().dtype == np.int32


def test_rows_of_width_0_are_rows():
    field = AgentBufferField(np.zeros((3, 0), dtype=np.float32))
    field.extend(np.zeros((2, 0), dtype=np.float32))
    assert field.to_ndarray().shape == (5, 0)
    assert np.array(field.get_batch(training_length=4)).shape == (8, 0)


# A field against a list of rows

rows_of_two = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), max_size=5)
index = st.integers(-12, 11)
bounds = st.one_of(st.none(), index)
steps = st.sampled_from([None, 1, 2, -1])


def as_array(rows) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, 2)


class FieldAsList(RuleBasedStateMachine):
    """Does to a field what it does to a list of tuples."""

    def __init__(self):
        super().__init__()
        self.field = AgentBufferField()
        self.twin = []

    @rule(row=st.tuples(st.integers(-9, 9), st.integers(-9, 9)), at=st.one_of(st.none(), index))
    def add_one(self, row, at):
        if at is None:
            self.field.append(np.array(row, dtype=np.float32))
            self.twin.append(row)
        else:
            self.field.insert(at, np.array(row, dtype=np.float32))
            self.twin.insert(at, row)

    @rule(rows=rows_of_two, kind=st.sampled_from(["array", "list", "generator", "field", "+="]))
    def add_many(self, rows, kind):
        values = as_array(rows)
        if kind == "+=":
            self.field += values
        elif kind == "generator":
            self.field.extend(row for row in values)
        else:
            self.field.extend({"array": np.asarray, "list": list, "field": AgentBufferField}[kind](values))
        self.twin += rows

    @rule()
    @precondition(lambda self: len(self.twin) < 50)
    def add_itself(self):
        self.field.extend(self.field)
        self.twin.extend(self.twin)

    @rule(rows=rows_of_two, kind=st.sampled_from(["array", "list", "field", "[:]", "iterator"]))
    def replace(self, rows, kind):
        values = as_array(rows)
        if kind == "[:]":
            self.field[:] = values
        else:
            make = {"array": np.asarray, "list": list, "field": AgentBufferField, "iterator": iter}[kind]
            self.field.set(make(values))
        self.twin = list(rows)

    @rule(at=index, row=st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
    def assign(self, at, row):
        self.same(lambda rows, value: rows.__setitem__(at, value), np.array(row), row)

    @rule(start=bounds, stop=bounds, step=steps)
    @precondition(lambda self: self.twin)
    def assign_slice(self, start, stop, step):
        part = slice(start, stop, step)
        self.field[part] = -as_array(self.twin[part])
        self.twin[part] = [(-a, -b) for a, b in self.twin[part]]

    @rule(at=index)
    def delete(self, at):
        self.same(lambda rows, _: rows.__delitem__(at))

    @rule(start=bounds, stop=bounds, step=steps)
    def delete_slice(self, start, stop, step):
        self.same(lambda rows, _: rows.__delitem__(slice(start, stop, step)))

    @rule()
    @precondition(lambda self: self.twin)
    def pop(self):
        assert tuple(self.field.pop()) == self.twin.pop()

    @rule()
    def reverse(self):
        self.field.reverse()
        self.twin.reverse()

    @rule()
    def reset(self):
        self.field.reset_field()
        self.twin.clear()

    @rule(at=index)
    def read(self, at):
        self.same(lambda rows, _: tuple(rows[at]))

    @rule(start=bounds, stop=bounds, step=steps)
    def read_slice(self, start, stop, step):
        picked = self.field[start:stop:step]
        assert isinstance(picked, AgentBufferField)
        assert [tuple(row) for row in picked] == self.twin[start:stop:step]

    def same(self, act, mine=None, theirs=None):
        """Do the same to both; if the list refuses, so must the field."""
        try:
            expected = act(self.twin, theirs)
        except IndexError:
            with pytest.raises(IndexError):
                act(self.field, mine)
        else:
            assert act(self.field, mine) == expected

    @invariant()
    def rows_are_equal(self):
        assert len(self.field) == len(self.twin)
        assert [tuple(row) for row in self.field] == self.twin
        assert self.field == self.twin
        assert self.field == AgentBufferField(as_array(self.twin))
        if self.twin:
            np.testing.assert_array_equal(self.field.to_ndarray(), as_array(self.twin), strict=True)


TestFieldAsList = FieldAsList.TestCase
TestFieldAsList.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_fields_that_differ_are_not_equal(rewards):
    assert rewards != [1, 2, 3]
    assert rewards != [1, 2, 3, 5]
    assert rewards != 1
    assert rewards == [1, 2, 3, 4]


# Sequences


def naive_batch(rows, batch_size, length, sequential):
    """Return the rows of the last sequences; None stands for padding."""
    if sequential:
        padded = rows + [None] * (-len(rows) % length)
        sequences = [padded[start : start + length] for start in range(0, len(padded), length)]
        if batch_size is not None and batch_size * length <= len(rows):
            # Only whole sequences are asked for: those that end with the last row.
            return rows[len(rows) - batch_size * length :]
    else:
        sequences = [rows[end - length : end] for end in range(length, len(rows) + 1)]
    if batch_size is not None:
        sequences = sequences[len(sequences) - batch_size :]
    return [row for sequence in sequences for row in sequence]


@given(
    n_rows=st.integers(0, 12),
    length=st.integers(1, 5),
    sequential=st.booleans(),
    padding_value=st.sampled_from([0.0, 1.0]),
    kind=st.sampled_from(["vector", "bool", "lists"]),
    data=st.data(),
)
def test_batches_are_the_naive_twins(n_rows, length, sequential, padding_value, kind, data):
    if kind == "lists":
        rows = [[np.full(2, i, dtype=np.float32)] * (1 + i % 3) for i in range(n_rows)]
    else:
        rows = [np.array([i, -i], dtype=np.float32) if kind == "vector" else np.bool_(True) for i in range(n_rows)]
    field = AgentBufferField(rows, padding_value)
    available = -(-n_rows // length) if sequential else max(n_rows - length + 1, 0)
    batch_size = data.draw(st.one_of(st.none(), st.integers(0, available)))
    batch = field.get_batch(batch_size, length, sequential)
    expected = naive_batch(rows, batch_size, length, sequential)
    assert len(batch) == len(expected)
    for mine, row in zip(batch, expected):
        if row is None:
            row = [] if kind == "lists" else rows[-1] if padding_value else np.zeros_like(rows[-1])
        np.testing.assert_array_equal(mine, row)
    with pytest.raises(BufferException, match=f"{available + 1} sequences of length {length} .* {n_rows} rows"):
        field.get_batch(available + 1, length, sequential)


def test_a_batch_worked_by_hand():
    field = AgentBufferField([1.0, 2.0, 3.0, 4.0, 5.0])
    assert field.get_batch(training_length=2) == [1, 2, 3, 4, 5, 0]
    assert field.get_batch(batch_size=2, training_length=2) == [2, 3, 4, 5]
    assert field.get_batch(batch_size=2) == [4, 5]
    assert field.get_batch(batch_size=2, training_length=3, sequential=False) == [2, 3, 4, 3, 4, 5]
    assert field.get_batch(training_length=None) == [1, 2, 3, 4, 5]


def test_padding_is_the_last_row_times_the_fields_padding_value():
    field = AgentBufferField()
    field.append(np.array([1, 0], dtype=np.float32), padding_value=1)
    field.append(np.array([0, 1], dtype=np.float32), padding_value=1)
    np.testing.assert_array_equal(field.get_batch(training_length=4), [[1, 0], [0, 1], [0, 1], [0, 1]])
    bools = AgentBufferField([True, True, True])
    assert [row.dtype for row in bools.get_batch(training_length=2)] == [np.bool_] * 4


# Groups, whose entries are lists


def group_field() -> AgentBufferField:
    """Three steps with two mates, none, and one."""
    field = AgentBufferField()
    field.append([np.array([1.0, 2.0]), np.array([3.0, 4.0])])
    field.append([])
    field.append([np.array([5.0, 6.0])])
    return field


def test_entries_of_a_group_are_padded_to_one_array_per_mate():
    first, second = group_field().padded_to_batch(pad_value=-1)
    np.testing.assert_array_equal(first, np.array([[1, 2], [-1, -1], [5, 6]], dtype=np.float32), strict=True)
    np.testing.assert_array_equal(second, np.array([[3, 4], [-1, -1], [-1, -1]], dtype=np.float32), strict=True)
    assert np.isnan(group_field().padded_to_batch(pad_value=np.nan)[0][1]).all()


def test_padding_takes_the_type_asked_for():
    field = AgentBufferField()
    field.append([np.array([1])])
    field.append([np.array([2]), np.array([3])])
    first, second = field.padded_to_batch(dtype=np.int64)
    np.testing.assert_array_equal(first, np.array([[1], [2]], dtype=np.int64), strict=True)
    np.testing.assert_array_equal(second, np.array([[0], [3]], dtype=np.int64), strict=True)


def test_groups_of_nobody_are_padded_to_nothing():
    field = AgentBufferField()
    field.append([])
    field.append([])
    assert field.contains_lists
    assert field.padded_to_batch() == []


def test_a_column_is_padded_to_itself(rewards):
    assert not rewards.contains_lists
    np.testing.assert_array_equal(rewards.padded_to_batch(), [1, 2, 3, 4])
    assert rewards.padded_to_batch(dtype=np.int32).dtype == np.int32


def test_a_field_of_lists_reads_like_a_list():
    field = group_field()
    assert [len(entry) for entry in field] == [2, 0, 1]
    assert [len(entry) for entry in field[1:]] == [0, 1]
    assert field[:2].contains_lists
    field.extend(field)
    assert [len(entry) for entry in field] == [2, 0, 1, 2, 0, 1]
    field.reverse()
    assert [len(entry) for entry in field] == [1, 0, 2, 1, 0, 2]
    del field[0]
    field[0] = [np.zeros(2)] * 4
    field.insert(1, [])
    assert [len(entry) for entry in field] == [4, 0, 2, 1, 0, 2]
    field[:] = [[], []]
    assert [len(entry) for entry in field] == [0, 0]
    field.set(np.zeros((2, 3)))
    assert not field.contains_lists
    assert field.to_ndarray().shape == (2, 3)


def test_rows_of_different_shapes_become_a_list():
    field = AgentBufferField([np.zeros(2)])
    field.append(np.zeros(3))
    assert [row.shape for row in field] == [(2,), (3,)]
    assert not field.contains_lists
    field = AgentBufferField([np.zeros((1, 2)), np.zeros((3, 2))])
    assert [row.shape for row in field] == [(1, 2), (3, 2)]


def test_an_empty_field_takes_its_shape_from_the_first_rows_also_after_a_shuffle():
    field = AgentBufferField()
    field.permute(np.arange(0))
    field.extend(np.zeros((0, 2), dtype=np.float32))
    assert field.row_shape == (2,)
