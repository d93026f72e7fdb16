"""Distributions over actions, parametrised by networks.

A distribution is a module; for a batch it gives a *distribution instance*, which samples and knows probabilities.
Axis letters: B rows, C continuous actions.
"""

from __future__ import annotations

import abc
import math
from functools import cached_property
from typing import List

from mlagents.torch_utils import nn, torch
from mlagents.trainers.torch_entities.layers import Initialization, linear_layer
from mlagents.trainers.torch_entities.utils import ModelUtils

EPSILON = 1e-7  # keeps logarithms and quotients finite; part of the arithmetic that checkpoints were trained with
FORBIDDEN_PENALTY = 1e8
LOG_SIGMA_BOUNDS = -20.0, 2.0  # of standard deviations that depend on what is seen
LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)
# As tensors, since torch takes twice as long over an operation with a Python number. Any device accepts them.
_EPSILON_0D = torch.tensor(EPSILON)
_LOG_PEAK_0D = torch.tensor(-LOG_SQRT_2_PI)
_HALF_0D = torch.tensor(0.5)
ATANH_LIMIT = 1 - torch.finfo(torch.float32).eps


class DistInstance(abc.ABC):
    """A distribution over the actions of a batch."""

    @abc.abstractmethod
    def sample(self) -> torch.Tensor:
        """Return one sample per row."""

    @abc.abstractmethod
    def deterministic_sample(self) -> torch.Tensor:
        """Return the action to take where nothing is left to chance."""

    @abc.abstractmethod
    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of the probability (density) of `value`."""

    @abc.abstractmethod
    def entropy(self) -> torch.Tensor:
        """Return the entropy per row (B,)."""

    @abc.abstractmethod
    def exported_model_output(self) -> torch.Tensor:
        """Return what an exported model gives out: a sample."""


class DiscreteDistInstance(DistInstance):
    """A distribution over finitely many choices."""

    @abc.abstractmethod
    def all_log_prob(self) -> torch.Tensor:
        """Return the logarithm of the probability of every choice (B, choices)."""


class GaussianDistInstance(DistInstance):
    """Independent normal distributions.

    :param mean: (B, C).
    :param std: (B, C), or (1, C) where all rows share it; then all that depends on it alone is computed once.
    """

    def __init__(self, mean: torch.Tensor, std: torch.Tensor):
        self.mean = mean
        self._std = std

    @property
    def std(self) -> torch.Tensor:
        """Standard deviations (B, C)."""
        return self._std.expand_as(self.mean)

    def sample(self) -> torch.Tensor:
        """Return actions (B, C)."""
        return torch.addcmul(self.mean, torch.randn_like(self.mean), self._std)

    def deterministic_sample(self) -> torch.Tensor:
        """Return the mean (B, C)."""
        return self.mean

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return log-densities (B, C) of actions (B, C)."""
        log_peak = _LOG_PEAK_0D - torch.log(self._std + _EPSILON_0D)
        twice_variance = torch.addcmul(_EPSILON_0D, self._std, self._std, value=2)
        return torch.addcdiv(log_peak, (value - self.mean).square(), twice_variance, value=-1)

    def pdf(self, value: torch.Tensor) -> torch.Tensor:
        """Return densities (B, C) of actions (B, C)."""
        return torch.exp(self.log_prob(value))

    def entropy(self) -> torch.Tensor:
        """Return entropies (B,), *averaged* over the C actions."""
        doubled = torch.log(torch.addcmul(_EPSILON_0D, self._std, self._std, value=2 * math.pi * math.e))
        return (doubled.mean(dim=1) * _HALF_0D).expand(self.mean.shape[0])

    def exported_model_output(self) -> torch.Tensor:
        """Return actions (B, C)."""
        return self.sample()


class TanhGaussianDistInstance(GaussianDistInstance):
    """Normal distributions squashed into (-1, 1) by tanh (Haarnoja et al., 2018, "Soft actor-critic", appendix C).

    `entropy` is that of the distribution before it is squashed.
    """

    def __init__(self, mean: torch.Tensor, std: torch.Tensor):
        super().__init__(mean, std)
        self._unsquashed: torch.Tensor | None = None
        self._squashed: torch.Tensor | None = None

    def sample(self) -> torch.Tensor:
        """Return actions (B, C) within (-1, 1)."""
        self._unsquashed = super().sample()
        self._squashed = torch.tanh(self._unsquashed)
        return self._squashed

    def deterministic_sample(self) -> torch.Tensor:
        """Return tanh of the mean (B, C)."""
        return torch.tanh(self.mean)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return log-densities (B, C) of squashed actions (B, C).

        For the instance's own last sample they are exact; another action goes back through atanh.
        """
        if value is self._squashed and self._unsquashed is not None:
            unsquashed = self._unsquashed
        else:
            unsquashed = torch.atanh(value.clamp(-ATANH_LIMIT, ATANH_LIMIT))
        log_slope = 2 * (math.log(2) - unsquashed - nn.functional.softplus(-2 * unsquashed))
        return super().log_prob(unsquashed) - log_slope


class CategoricalDistInstance(DiscreteDistInstance):
    """One choice of several.

    :param logits: (B, choices).
    """

    def __init__(self, logits: torch.Tensor):
        self.logits = logits
        self.probs = torch.softmax(logits, dim=-1)

    @cached_property
    def _log_probs(self) -> torch.Tensor:
        return torch.log(self.probs + EPSILON)

    def sample(self) -> torch.Tensor:
        """Return chosen indices, int64 (B, 1).

        The first of exponential clocks that tick at rates `probs`: what `torch.multinomial` does, without its checks.
        """
        clocks = torch.empty_like(self.probs).exponential_()
        return torch.argmax(self.probs / clocks, dim=1, keepdim=True)

    def deterministic_sample(self) -> torch.Tensor:
        """Return the index of the most probable choice, the first of equals, int64 (B, 1)."""
        return torch.argmax(self.probs, dim=1, keepdim=True)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B,) of indices (B,) or (B, 1)."""
        return self._log_probs.gather(1, value.reshape(-1, 1)).squeeze(1)

    def all_log_prob(self) -> torch.Tensor:
        """Return the log-probabilities of all choices (B, choices)."""
        return self._log_probs

    def pdf(self, value: torch.Tensor) -> torch.Tensor:
        """Return probabilities (B,) of indices (B,) or (B, 1)."""
        return self.probs.gather(1, value.reshape(-1, 1)).squeeze(1)

    def entropy(self) -> torch.Tensor:
        """Return entropies (B,)."""
        return -(self.probs * self._log_probs).sum(dim=1)

    def exported_model_output(self) -> torch.Tensor:
        """Return chosen indices, int64 (B, 1), by an operator that exported models may hold."""
        return torch.multinomial(self.probs, 1)


class GaussianDistribution(nn.Module):
    """Normal distributions whose mean, and on request standard deviation, a linear layer gives.

    :param conditional_sigma: whether the standard deviation depends on the input, or is a parameter.
    :param tanh_squash: whether actions are squashed into (-1, 1).
    """

    def __init__(self, hidden_size: int, num_outputs: int, conditional_sigma: bool = False, tanh_squash: bool = False):
        super().__init__()
        self.conditional_sigma = conditional_sigma
        self.tanh_squash = tanh_squash
        self.mu = linear_layer(hidden_size, num_outputs, Initialization.KaimingHeNormal, kernel_gain=0.2)
        self.log_sigma: nn.Linear | nn.Parameter
        if conditional_sigma:
            self.log_sigma = linear_layer(hidden_size, num_outputs, Initialization.KaimingHeNormal, kernel_gain=0.2)
        else:
            self.log_sigma = nn.Parameter(torch.zeros(1, num_outputs))

    def forward(self, inputs: torch.Tensor) -> GaussianDistInstance:
        """Return the distribution for (B, hidden_size)."""
        mean = self.mu(inputs)
        if isinstance(self.log_sigma, nn.Linear):
            log_sigma = torch.clamp(self.log_sigma(inputs), *LOG_SIGMA_BOUNDS)
        else:
            log_sigma = self.log_sigma
        instance = TanhGaussianDistInstance if self.tanh_squash else GaussianDistInstance
        return instance(mean, torch.exp(log_sigma))


class MultiCategoricalDistribution(nn.Module):
    """One categorical distribution per branch, each with its linear layer.

    :param act_sizes: the number of choices of each branch.
    """

    def __init__(self, hidden_size: int, act_sizes: List[int]):
        super().__init__()
        self.act_sizes = act_sizes
        self.branches = nn.ModuleList(
            linear_layer(hidden_size, size, Initialization.KaimingHeNormal, kernel_gain=0.1) for size in act_sizes
        )

    def forward(self, inputs: torch.Tensor, masks: torch.Tensor | None) -> List[DiscreteDistInstance]:
        """Return the distribution of each branch for (B, hidden_size).

        :param masks: (B, sum of branches), 1 = allowed and 0 = forbidden; None allows everything. Where a branch has
            nothing allowed its choices are equally probable.
        """
        logits: List[torch.Tensor] = [branch(inputs) for branch in self.branches]
        if masks is not None:
            flat = torch.cat(logits, dim=1) * masks - FORBIDDEN_PENALTY * (1 - masks)
            logits = ModelUtils.break_into_branches(flat, self.act_sizes)
        return [CategoricalDistInstance(of_branch) for of_branch in logits]
