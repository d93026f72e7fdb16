"""Returns and advantages: numbers worked by hand, and those that ML-Agents 1.1.0 gave."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlagents.trainers.trainer.trainer_utils import discount_rewards, get_gae, lambda_return

GOLDEN = Path(__file__).parent / "data" / "golden" / "ppo_vector.npz"


def test_discounted_rewards():
    # From the end: 3; 2 + 0.5 * 3 = 3.5; 1 + 0.5 * 3.5 = 2.75.
    np.testing.assert_array_equal(discount_rewards([1, 2, 3], gamma=0.5), [2.75, 3.5, 3.0])


def test_discounted_rewards_go_on_with_the_next_value():
    # From the end: 3 + 0.5 * 8 = 7; 2 + 0.5 * 7 = 5.5; 1 + 0.5 * 5.5 = 3.75.
    returns = discount_rewards(np.array([1.0, 2.0, 3.0]), gamma=0.5, value_next=8.0)
    np.testing.assert_array_equal(returns, [3.75, 5.5, 7.0])
    assert returns.dtype == np.float32


def test_discounted_rewards_by_default():
    # gamma 0.99 and nothing to come: 1; 0 + 0.99 * 1; 0 + 0.99 * 0.99.
    np.testing.assert_allclose(discount_rewards([0, 0, 1]), [0.9801, 0.99, 1.0], rtol=1e-6)


def test_discounted_rewards_of_a_long_trajectory_add_up():
    # A reward of 1 for ever is worth 1 / (1 - 0.99) = 100; after 3000 steps all but 100 * 0.99^3000 = 8e-12 of it.
    assert discount_rewards(np.ones(3000), gamma=0.99)[0] == pytest.approx(100.0, rel=1e-6)


def test_rewards_are_left_as_they_were():
    rewards = np.array([1.0, 2.0], dtype=np.float32)
    values = np.array([3.0, 4.0], dtype=np.float32)
    discount_rewards(rewards, 0.5)
    get_gae(rewards, values, 1.0, 0.5, 0.5)
    lambda_return(rewards, values, 0.5, 0.5, 1.0)
    np.testing.assert_array_equal(rewards, [1.0, 2.0])
    np.testing.assert_array_equal(values, [3.0, 4.0])


def test_advantages():
    # delta_2 = 3 + 0.5 * 2 - 4 = 0; delta_1 = 2 + 0.5 * 4 - 2 = 2; delta_0 = 1 + 0.5 * 2 - 1 = 1.
    # gamma * lambda = 0.25: A_2 = 0; A_1 = 2 + 0.25 * 0 = 2; A_0 = 1 + 0.25 * 2 = 1.5.
    advantages = get_gae([1, 2, 3], [1, 2, 4], value_next=2.0, gamma=0.5, lambd=0.5)
    np.testing.assert_array_equal(advantages, [1.5, 2.0, 0.0])
    assert advantages.dtype == np.float32


def test_advantages_where_nothing_comes_after():
    # delta_1 = 2 + 0 - 2 = 0; delta_0 = 1 + 0.5 * 2 - 1 = 1; A = delta, as the later one is 0.
    np.testing.assert_array_equal(get_gae([1, 2], [1, 2], gamma=0.5, lambd=0.5), [1.0, 0.0])


def test_advantage_of_one_step():
    # 1 + 0.5 * 4 - 2.5 = 0.5, whatever lambda is.
    np.testing.assert_array_equal(get_gae([1], [2.5], value_next=4.0, gamma=0.5, lambd=0.25), [0.5])


def test_advantages_with_lambda_0_are_the_one_step_errors():
    # 1 + 0.5 * 2 - 1 = 1; 2 + 0.5 * 4 - 2 = 2; 3 + 0.5 * 2 - 4 = 0.
    np.testing.assert_array_equal(get_gae([1, 2, 3], [1, 2, 4], 2.0, 0.5, 0.0), [1.0, 2.0, 0.0])


def test_lambda_returns():
    # From the end: G_2 = 3 + 0.5 * 2 = 4; G_1 = 2 + 0.5 * (0.75 * 4 + 0.25 * 8) = 4.5;
    # G_0 = 1 + 0.5 * (0.75 * 4.5 + 0.25 * 4) = 3.1875.
    returns = lambda_return([1, 2, 3], [100, 4, 8], gamma=0.5, lambd=0.75, value_next=2.0)
    np.testing.assert_array_equal(returns, [3.1875, 4.5, 4.0])
    assert returns.dtype == np.float32


def test_lambda_returns_where_nothing_comes_after():
    # G_1 = 2; G_0 = 1 + 0.5 * (0.5 * 2 + 0.5 * 4) = 2.5.
    np.testing.assert_array_equal(lambda_return([1, 2], [7, 4], gamma=0.5, lambd=0.5), [2.5, 2.0])


def test_lambda_return_of_one_step():
    # 1 + 0.5 * 4 = 3: the value of the step itself takes no part.
    np.testing.assert_array_equal(lambda_return([1], [9], gamma=0.5, lambd=0.25, value_next=4.0), [3.0])


def test_the_recorded_advantages_and_lambda_returns():
    golden = np.load(GOLDEN, allow_pickle=False)
    rewards, values, value_next = (golden[f"in/gae_{name}"] for name in ("reward", "value", "value_next"))
    advantages = get_gae(rewards, values, value_next=float(value_next), gamma=0.9, lambd=0.8)
    returns = lambda_return(rewards, values, gamma=0.9, lambd=0.8, value_next=float(value_next))
    assert advantages.shape == returns.shape == (7,)
    np.testing.assert_allclose(advantages, golden["out/gae"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(returns, golden["out/lambda_return"], rtol=1e-5, atol=1e-5)


floats = st.floats(-100, 100, width=32)


@st.composite
def trajectories(draw):
    length = draw(st.integers(1, 50))
    column = arrays.arrays(np.float32, length, elements=floats)
    return draw(column), draw(column), draw(floats), draw(st.floats(0, 1))


@given(trajectories())
def test_advantages_with_lambda_1_are_the_returns_minus_the_values(trajectory):
    rewards, values, value_next, gamma = trajectory
    advantages = get_gae(rewards, values, value_next, gamma, lambd=1.0)
    returns = discount_rewards(rewards, gamma, value_next)
    np.testing.assert_allclose(advantages, returns - values, rtol=1e-4, atol=1e-2)


@given(trajectories(), st.floats(0, 1))
def test_lambda_returns_are_the_values_plus_the_advantages(trajectory, lambd):
    rewards, values, value_next, gamma = trajectory
    advantages = get_gae(rewards, values, value_next, gamma, lambd)
    returns = lambda_return(rewards, values, gamma, lambd, value_next)
    np.testing.assert_allclose(returns, values + advantages, rtol=1e-4, atol=1e-2)
