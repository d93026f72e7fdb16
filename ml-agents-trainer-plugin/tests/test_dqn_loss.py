"""DQN's targets and loss: figures worked by hand, and what masks forbid."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlagents_trainer_plugin.dqn.dqn_optimizer import best_choices, next_values, q_loss, values_of

EVERYTHING = torch.ones(2, 3)
# Two states with three choices each.
LEARNING = torch.tensor([[1.0, 5.0, 2.0], [7.0, 6.0, 0.0]])
TARGET = torch.tensor([[4.0, 3.0, 9.0], [2.0, 8.0, 1.0]])


def next_of(chooser, target, allowed=EVERYTHING, branches=(3,)):
    return next_values({"extrinsic": chooser}, {"extrinsic": target}, allowed, list(branches))["extrinsic"].tolist()


def test_double_q_values_by_the_target_what_the_learning_network_chooses():
    assert next_of(LEARNING, TARGET) == [3.0, 2.0]  # choices 1 and 0


def test_without_it_the_target_network_takes_its_own_best():
    assert next_of(TARGET, TARGET) == [9.0, 8.0]


def test_what_is_forbidden_in_the_next_state_is_not_its_value():
    allowed = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    assert next_of(LEARNING, TARGET, allowed) == [9.0, 8.0]  # choices 2 (of 1 and 2) and 1 (of 6 and 0)
    assert next_of(TARGET, TARGET, torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])) == [4.0, 2.0]


def test_of_several_branches_the_value_is_the_mean():
    # Branches of 1 and 2: choices 0 and 0 of the first state (5 > 2), 0 and 0 of the second (6 > 0).
    assert next_of(LEARNING, TARGET, branches=(1, 2)) == [(4.0 + 3.0) / 2, (2.0 + 8.0) / 2]


def test_streams_choose_together_and_are_valued_apart():
    first, second = LEARNING, torch.tensor([[0.0, -9.0, 0.0], [0.0, 0.0, 9.0]])
    # Sums: 1, -4, 2 and 7, 6, 9: choice 2 in both states.
    values = next_values({"a": first, "b": second}, {"a": TARGET, "b": -TARGET}, EVERYTHING, [3])
    assert values["a"].tolist() == [9.0, 1.0]
    assert values["b"].tolist() == [-9.0, -1.0]


def test_values_of_choices():
    choices = torch.tensor([[0, 1], [0, 0]])
    assert values_of(LEARNING, choices, [1, 2]).tolist() == [[1.0, 2.0], [7.0, 6.0]]


def test_the_loss_by_hand():
    values = {"extrinsic": torch.tensor([[1.0, 2.0], [5.0, 3.0]])}
    targets = {"extrinsic": torch.tensor([1.5, 3.0])}
    # Errors -0.5, 0.5, 2, 0; squares halved up to 1, beyond it |x| - 1/2: 1/8, 1/8, 3/2, 0.
    assert q_loss(values, targets).item() == pytest.approx(1.75 / 4)


def test_the_loss_is_the_mean_over_streams():
    values = {"a": torch.tensor([[1.0]]), "b": torch.tensor([[3.0]])}
    targets = {"a": torch.tensor([0.0]), "b": torch.tensor([0.0])}
    assert q_loss(values, targets).item() == pytest.approx((0.5 + 2.5) / 2)


def test_large_errors_pull_no_harder_than_1():
    values = torch.tensor([[100.0], [-0.25]], requires_grad=True)
    q_loss({"extrinsic": values}, {"extrinsic": torch.zeros(2)}).backward()
    np.testing.assert_allclose(values.grad, [[0.5], [-0.125]])  # 1 and -0.25, over two rows


@st.composite
def masked_values(draw):
    branches = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    n_rows, n_choices = draw(st.integers(1, 4)), sum(branches)
    numbers = st.lists(st.floats(-1e4, 1e4, width=32), min_size=n_choices, max_size=n_choices)
    flags = st.lists(st.booleans(), min_size=n_choices, max_size=n_choices)
    values = draw(st.lists(numbers, min_size=n_rows, max_size=n_rows))
    allowed = np.array(draw(st.lists(flags, min_size=n_rows, max_size=n_rows)))
    starts = np.cumsum([0, *branches[:-1]])
    for start, size in zip(starts, branches):  # something is allowed in each branch
        nothing = ~allowed[:, start : start + size].any(axis=1)
        allowed[nothing, start + size - 1] = True
    return np.array(values, dtype=np.float32), allowed, branches


@given(masked_values())
def test_choices_are_the_best_of_what_is_allowed(case):
    values, allowed, branches = case
    chosen = best_choices(torch.tensor(values), torch.tensor(allowed, dtype=torch.float32), branches)
    start = 0
    for branch, size in enumerate(branches):
        for row in range(len(values)):
            options = [index for index in range(size) if allowed[row, start + index]]
            best = max(options, key=lambda index: values[row, start + index])
            assert chosen[row, branch].item() == best
        start += size


@given(masked_values())
def test_without_a_mask_everything_is_allowed(case):
    values, _, branches = case
    everything = torch.ones(values.shape)
    tensor = torch.tensor(values)
    assert torch.equal(best_choices(tensor, None, branches), best_choices(tensor, everything, branches))
