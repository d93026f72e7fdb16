"""Gradients of the standard small actor and critic, written out in NumPy on the memory of the torch modules.

For minibatches of a few dozen rows nearly all of the time of an update with autograd goes into calls: recording
operations, replaying them backwards, allocating what they give. Here forward and backward pass are written out on
arrays that are allocated once, and leave the gradients where autograd would: in ``parameter.grad``, for any torch
optimizer. Networks are those that `array_inference` knows, without memory; for all others `of` returns None, and
autograd does it. Autograd is the definition; the tests compare the two.

Axis letters: B rows, H features, C continuous actions, D branches, A = C + D.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from mlagents.torch_utils import nn, torch
from mlagents.trainers.torch_entities.array_inference import ArrayActor, ArrayCritic, ArrayEncoding
from mlagents.trainers.torch_entities.array_layers import (
    Gradients,
    Heads,
    Layers,
    Linear,
    are_plain,
    parameters_of,
)
from mlagents.trainers.torch_entities.array_networks import EPSILON_0D, array_of, total
from mlagents.trainers.torch_entities.distributions import EPSILON, FORBIDDEN_PENALTY, LOG_SQRT_2_PI

_TWO_PI_E = 2.0 * math.pi * math.e


class ArrayBatch(NamedTuple):
    """A minibatch as a loss in arrays needs it: what `ActorCriticBatch` holds, without a memory."""

    log_probs: np.ndarray
    old_log_probs: np.ndarray
    entropy: np.ndarray
    values: Dict[str, np.ndarray]
    old_values: Dict[str, np.ndarray]
    returns: Dict[str, np.ndarray]
    advantages: np.ndarray


class LossGradients(NamedTuple):
    """The gradients of a loss with respect to what the networks gave."""

    log_probs: np.ndarray
    """(B, A)"""
    entropy: float
    """The same for all rows."""
    values: Dict[str, np.ndarray]
    """(B,) by reward signal."""


class ArrayLearner:
    """An actor and a critic, which may be one network: `forward`, then `backward` for the same rows.

    :param actor: `SimpleActor` or `SharedActorCritic`, of which `of` has seen that it can be written out.
    :param critic: `ValueNetwork`, or the actor.
    """

    def __init__(self, actor: Any, critic: Any):
        of_critic = ArrayCritic(critic)
        self._watched = (of_critic if actor is critic else ArrayActor(actor), of_critic)
        self._parameters = parameters_of(actor, critic)
        self._gradients = gradients = Gradients(self._parameters)
        bodies = [network.network_body for network in dict.fromkeys((actor, critic))]
        self._encodings = [ArrayEncoding(body.observation_encoder) for body in bodies]
        parts = [slice(None)] if Layers.are_alike(bodies) else [slice(index, index + 1) for index in range(len(bodies))]
        self._layers = [(Layers(bodies[part], gradients), part) for part in parts]
        model = actor.action_model
        gaussian, categorical = model._continuous_distribution, model._discrete_distribution
        self._gaussian = None if gaussian is None else _Gaussian(gaussian, gradients)
        self._branches = [_Branch(it, gradients) for it in (() if categorical is None else categorical.branches)]
        self._value_heads = Heads(critic.value_heads, gradients)
        self._n_rows = 0

    @classmethod
    def of(cls, actor: Any, critic: Any) -> Optional[ArrayLearner]:
        """Return the two as arrays, or None where autograd has to do it."""
        of_actor = ArrayActor.of(actor)
        fits = (
            of_actor is not None
            and not of_actor.squashes
            and ArrayCritic.of(critic) is not None
            and actor.network_body.lstm is None
            and all(it.dtype is torch.float32 for it in parameters_of(actor, critic))
            and are_plain(parameters_of(actor, critic))
        )
        return cls(actor, critic) if fits else None

    def is_current(self, actor: Any, critic: Any) -> bool:
        """Return whether these still are the two, with nothing in them exchanged, moved, frozen or added since."""
        of_actor, of_critic = self._watched
        return of_actor.is_current(actor) and of_critic.is_current(critic) and are_plain(self._parameters)

    def forward(
        self,
        obs: Sequence[np.ndarray],
        continuous: Optional[np.ndarray],
        discrete: Optional[np.ndarray],
        allowed: Optional[np.ndarray],
    ) -> Tuple[np.ndarray, np.ndarray, Dict[str, np.ndarray]]:
        """Return the log-probabilities of actions (B, A), the entropies (B,), and values (B,) by reward signal.

        :param obs: per observation (B, size).
        :param continuous: (B, C), as they were drawn; None where there are none.
        :param discrete: (B, D) choices; None where there are none.
        :param allowed: (B, sum of branches), 1 = allowed and 0 = forbidden; None allows everything.
        """
        self._n_rows = n_rows = len(obs[0])
        if allowed is not None and np.count_nonzero(allowed) == allowed.size:
            allowed = None
        encodings = [encode(obs) for encode in self._encodings]
        found = [features for layers, part in self._layers for features in layers.forward(encodings[part])]
        features, seen = found[0], found[-1]
        log_probs: List[np.ndarray] = []
        entropy = np.zeros(n_rows, dtype=np.float32)
        if self._gaussian is not None:
            assert continuous is not None
            of_continuous, entropy_of_continuous = self._gaussian.forward(features, continuous)
            log_probs.append(of_continuous)
            entropy += entropy_of_continuous
        start = 0
        for index, branch in enumerate(self._branches):
            assert discrete is not None
            end = start + branch.size
            of_branch = None if allowed is None else allowed[:, start:end]
            of_choice, entropy_of_branch = branch.forward(features, discrete[:, index].astype(np.intp), of_branch)
            log_probs.append(of_choice[:, None])
            entropy += entropy_of_branch
            start = end
        values = self._value_heads.forward(seen)
        return log_probs[0] if len(log_probs) == 1 else np.concatenate(log_probs, axis=1), entropy, values

    def backward(self, gradients: LossGradients) -> None:
        """Set the gradients of all parameters, for those of a loss with respect to what `forward` returned."""
        with np.errstate(all="ignore"):  # whoever takes a step looks at them
            parts, start = [], 0
            if self._gaussian is not None:
                start = self._gaussian.size
                parts.append(self._gaussian.backward(gradients.log_probs[:, :start], gradients.entropy * self._n_rows))
            for index, branch in enumerate(self._branches):
                parts.append(branch.backward(gradients.log_probs[:, start + index], gradients.entropy))
            of_seen = self._value_heads.backward(gradients.values)
            of_features = [total([*parts, of_seen])] if len(self._encodings) == 1 else [total(parts), of_seen]
            for layers, part in self._layers:
                layers.backward(of_features[part])
        self._gradients.hand_over()


class _Gaussian:
    """A `GaussianDistribution` with a standard deviation of its own: log-densities and entropy of given actions."""

    def __init__(self, distribution: Any, gradients: Gradients):
        self._mean = Linear(distribution.mu, gradients)
        self._log_sigma, self._log_sigma_gradient = (
            array_of(distribution.log_sigma),
            gradients.of(distribution.log_sigma),
        )
        self.size = self._mean.size

    def forward(self, features: np.ndarray, actions: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return log-densities (B, C), and the entropy, averaged over the actions, (1,)."""
        self._sigma = sigma = np.exp(self._log_sigma)
        self._variance = sigma * sigma
        self._width = 2.0 * self._variance + EPSILON
        self._distance = actions - self._mean.forward(features)
        self._scaled = self._distance / self._width
        log_probs = -LOG_SQRT_2_PI - np.log(sigma + EPSILON) - self._distance * self._scaled
        entropy = 0.5 * np.log(_TWO_PI_E * self._variance + EPSILON).mean(axis=1)
        return log_probs, entropy

    def backward(self, log_probs: np.ndarray, entropy: float) -> np.ndarray:
        """Return the gradient of the features, for those of the log-densities (B, C) and of the entropy."""
        of_mean = 2.0 * self._scaled
        of_log_sigma = 2.0 * self._variance * of_mean * self._scaled - self._sigma / (self._sigma + EPSILON)
        of_entropy = _TWO_PI_E * self._variance / (_TWO_PI_E * self._variance + EPSILON) / self.size
        np.add(np.einsum("bc,bc->c", log_probs, of_log_sigma)[None], entropy * of_entropy, out=self._log_sigma_gradient)
        return self._mean.backward(log_probs * of_mean)


class _Branch:
    """A branch of a `MultiCategoricalDistribution`: log-probabilities and entropies of given choices.

    Inside, choices are rows, (n, B): sums over them are quicker by columns.
    """

    def __init__(self, layer: nn.Linear, gradients: Gradients):
        self._logits = Linear(layer, gradients)
        self.size = self._logits.size
        self._rows = np.arange(0)

    def forward(
        self, features: np.ndarray, choices: np.ndarray, allowed: Optional[np.ndarray]
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Return log-probabilities (B,) and entropies (B,)."""
        logits = self._logits.forward(features).T
        self._allowed = None if allowed is None else allowed.T
        if self._allowed is not None:
            logits = logits * self._allowed - FORBIDDEN_PENALTY * (1.0 - self._allowed)
        probs = np.subtract(logits, np.maximum.reduce(logits), order="C")
        np.exp(probs, out=probs)
        probs /= np.add.reduce(probs)
        if len(choices) != len(self._rows):
            self._rows = np.arange(len(choices))
        self._chosen = (choices, self._rows)
        self._probs, self._with_epsilon = probs, probs + EPSILON_0D
        self._log_probs = np.log(self._with_epsilon)
        return self._log_probs[self._chosen], -np.add.reduce(probs * self._log_probs)

    def backward(self, log_probs: np.ndarray, entropy: float) -> np.ndarray:
        """Return the gradient of the features, for those of the log-probabilities (B,) and of each entropy."""
        probs = self._probs
        of_probs = probs / self._with_epsilon
        of_probs += self._log_probs
        of_probs *= -entropy
        of_probs[self._chosen] += log_probs / self._with_epsilon[self._chosen]
        of_logits = np.multiply(of_probs, probs, out=of_probs)
        of_logits -= probs * np.add.reduce(of_logits)
        if self._allowed is not None:
            of_logits *= self._allowed
        return self._logits.backward(of_logits.T)
