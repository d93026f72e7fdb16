"""Returns and advantages of one trajectory."""

from typing import Any

import numpy as np


def discount_rewards(r: Any, gamma: float = 0.99, value_next: float = 0.0) -> np.ndarray:
    """Return the discounted sum of the rewards from each step on.

    :param r: rewards (T,).
    :param gamma: discount.
    :param value_next: the value of what came after the last step.
    :returns: (T,) with R_t = r_t + gamma * R_{t+1}, R_T = value_next.
    """
    rewards = np.asarray(r, dtype=np.float32)
    returns = np.empty_like(rewards)
    running = float(value_next)
    discount = float(gamma)
    # A recurrence has no vectorised form that stays exact for long trajectories; on plain floats it takes about
    # 50 nanoseconds a step.
    for t, reward in zip(range(len(rewards) - 1, -1, -1), reversed(rewards.tolist())):
        running = reward + discount * running
        returns[t] = running
    return returns


def get_gae(
    rewards: Any, value_estimates: Any, value_next: float = 0.0, gamma: float = 0.99, lambd: float = 0.95
) -> np.ndarray:
    """Return the generalized advantage estimates of a trajectory.

    Source: Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation (2016),
    equation 16, cut at the end of the trajectory: A_t = sum over l of (gamma * lambda)^l * delta_{t+l},
    delta_t = r_t + gamma * V_{t+1} - V_t.

    :param rewards: (T,).
    :param value_estimates: V (T,).
    :param value_next: V_T, of what came after the last step; 0 where the episode is over for good.
    """
    values = np.append(np.asarray(value_estimates, dtype=np.float32), np.float32(value_next))
    deltas = np.asarray(rewards, dtype=np.float32) + gamma * values[1:] - values[:-1]
    return discount_rewards(deltas, gamma * lambd)


def lambda_return(
    r: Any, value_estimates: Any, gamma: float = 0.99, lambd: float = 0.8, value_next: float = 0.0
) -> np.ndarray:
    """Return the lambda-returns of a trajectory.

    Source: Sutton and Barto, Reinforcement Learning (2018), section 12.1, in the recursive form
    G_t = r_t + gamma * (lambda * G_{t+1} + (1 - lambda) * V_{t+1}), G_{T-1} = r_{T-1} + gamma * value_next.
    """
    rewards = np.asarray(r, dtype=np.float32)
    following = np.append(np.asarray(value_estimates, dtype=np.float32)[1:], np.float32(0.0))
    shifted = rewards + gamma * (1.0 - lambd) * following
    shifted[-1] = rewards[-1] + gamma * value_next
    return discount_rewards(shifted, gamma * lambd)
