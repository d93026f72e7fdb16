"""The gradients of the losses of `losses`, written out in NumPy, for rows that all count.

Axis letters: B rows, A = C + D action dimensions.
"""

from __future__ import annotations

from typing import Dict, Tuple

import numpy as np


def trust_region_policy_gradient(
    advantages: np.ndarray, log_probs: np.ndarray, old_log_probs: np.ndarray, epsilon: float
) -> Tuple[float, np.ndarray]:
    """Return `trust_region_policy_loss` and its gradient with respect to `log_probs` (B, A).

    An entry whose ratio has been clipped has none.

    :param advantages: (B,).
    :param log_probs: (B, A), of the policy that learns.
    :param old_log_probs: (B, A), of the policy that acted.
    """
    assert log_probs.shape == old_log_probs.shape, (log_probs.shape, old_log_probs.shape)
    assert advantages.shape == log_probs.shape[:1], (advantages.shape, log_probs.shape)
    advantage = advantages[:, None]
    ratio = np.exp(log_probs - old_log_probs)
    clipped = np.minimum(np.maximum(ratio, 1.0 - epsilon), 1.0 + epsilon)
    ratio *= advantage
    clipped *= advantage
    surrogate = np.minimum(ratio, clipped)
    ratio *= ratio <= clipped
    ratio *= -1.0 / ratio.size
    return -float(np.add.reduce(surrogate, axis=None)) / surrogate.size, ratio


def trust_region_value_gradient(
    values: Dict[str, np.ndarray], old_values: Dict[str, np.ndarray], returns: Dict[str, np.ndarray], epsilon: float
) -> Tuple[float, Dict[str, np.ndarray]]:
    """Return `trust_region_value_loss` and its gradients with respect to `values`, (B,) by reward signal.

    A value that has been clipped, and is the further from the return for it, has none.

    :param values: (B,) by reward signal, of the critic that learns.
    :param old_values: (B,) by reward signal, of the critic at the time of collection.
    :param returns: (B,) by reward signal.
    """
    loss, gradients = 0.0, {}
    for name, value in values.items():
        old_value, target = old_values[name], returns[name]
        assert value.shape == old_value.shape == target.shape, (value.shape, old_value.shape, target.shape)
        change = value - old_value
        clipped_change = np.minimum(np.maximum(change, -epsilon), epsilon)
        error, clipped_error = value - target, old_value + clipped_change - target
        squared, clipped_squared = error * error, clipped_error * clipped_error
        loss += float(np.add.reduce(np.maximum(squared, clipped_squared)))
        # Within the bounds the two errors are the same but for rounding.
        error *= (squared >= clipped_squared) | (change == clipped_change)
        error *= 2.0 / (len(value) * len(values))
        gradients[name] = error
    return loss / sum(map(len, values.values())), gradients
