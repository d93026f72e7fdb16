"""Losses of policies and values as plain functions: tensors in, a scalar loss out.

Axis letters: B rows, A = C + D action dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Optional, Union

from mlagents.torch_utils import torch

if TYPE_CHECKING:
    from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs


def masked_mean(tensor: torch.Tensor, masks: Optional[torch.Tensor]) -> torch.Tensor:
    """Return the mean over valid rows, and over all further axes; 0 where no row is valid.

    :param tensor: (B, ...).
    :param masks: (B,), true or 1 where a row is valid; None where all are, which costs least.
    """
    if masks is None:
        return tensor.mean()
    assert masks.shape == tensor.shape[:1], f"masks {tuple(masks.shape)} for rows {tuple(tensor.shape)}"
    per_row = tensor.reshape(len(tensor), -1).mean(dim=1)
    return (per_row * masks).sum() / masks.sum().clamp(min=1)


def trust_region_value_loss(
    values: Dict[str, torch.Tensor],
    old_values: Dict[str, torch.Tensor],
    returns: Dict[str, torch.Tensor],
    epsilon: float,
    loss_masks: Optional[torch.Tensor],
) -> torch.Tensor:
    """Return the clipped squared error of values, averaged over streams.

    The value counterpart of PPO's clipping, from the code that goes with Schulman et al., 2017 ("Proximal policy
    optimization algorithms"): max((R - V)^2, (R - V_old - clip(V - V_old, -epsilon, epsilon))^2).

    :param values: per stream V (B,), of the critic that learns.
    :param old_values: per stream V_old (B,), of the critic at the time of collection.
    :param returns: per stream R (B,), what V should be.
    :param loss_masks: (B,), see `masked_mean`.
    """
    per_stream = []
    for name, value in values.items():
        old_value, target = old_values[name], returns[name]
        assert value.shape == old_value.shape == target.shape, (value.shape, old_value.shape, target.shape)
        clipped_value = old_value + torch.clamp(value - old_value, -epsilon, epsilon)
        error = torch.maximum((target - value).square(), (target - clipped_value).square())
        per_stream.append(masked_mean(error, loss_masks))
    return sum(per_stream[1:], start=per_stream[0]) / len(per_stream)


def trust_region_policy_loss(
    advantages: torch.Tensor,
    log_probs: Union[torch.Tensor, ActionLogProbs],
    old_log_probs: Union[torch.Tensor, ActionLogProbs],
    loss_masks: Optional[torch.Tensor],
    epsilon: float,
) -> torch.Tensor:
    """Return the negative clipped surrogate objective of PPO (Schulman et al., 2017, equation 7).

    The ratio of probabilities is taken, clipped and averaged per action dimension rather than per action.

    :param advantages: (B,).
    :param log_probs: (B, A), or as an `ActionLogProbs`, of the policy that learns.
    :param old_log_probs: the same of the policy that acted.
    :param loss_masks: (B,), see `masked_mean`.
    """
    new, old = _flat(log_probs), _flat(old_log_probs)
    assert new.shape == old.shape, (new.shape, old.shape)
    assert advantages.shape == new.shape[:1], (advantages.shape, new.shape)
    advantage = advantages.unsqueeze(-1)
    ratio = torch.exp(new - old)
    clipped_ratio = torch.clamp(ratio, 1.0 - epsilon, 1.0 + epsilon)
    return -masked_mean(torch.minimum(ratio * advantage, clipped_ratio * advantage), loss_masks)


def _flat(log_probs: Union[torch.Tensor, ActionLogProbs]) -> torch.Tensor:
    return log_probs if isinstance(log_probs, torch.Tensor) else log_probs.flatten()
