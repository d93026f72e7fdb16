"""The standard small networks evaluated in NumPy, on the very parameters of the torch modules.

For a dozen agents the arithmetic of such a network takes microseconds, and every call of torch around it takes as
long. Where nothing is differentiated (acting, and the values of trajectories) the same formulas in NumPy therefore
take a fraction of the time. They apply to the networks of `array_networks`, where these act with a memory too, and with
normal distributions as PPO or as SAC has them. For everything else `of` returns None, and torch does it. The torch
modules are the definition; the tests compare the two.

Inside, features are columns, (H, B), one for each agent: a product with a weight as torch keeps it, (out, in), is then
the kind that BLAS does without rearranging it, in half the time for a dozen agents.

Axis letters: B agents, H features, C continuous actions, D branches.
"""

from __future__ import annotations

import math
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from mlagents.torch_utils import nn, torch
from mlagents.trainers.torch_entities.action_model import ActionModel
from mlagents.trainers.torch_entities.array_networks import EPSILON_0D, HALF, ONE, ArrayNetwork, array_of, total
from mlagents.trainers.torch_entities.distributions import (
    ATANH_LIMIT,
    EPSILON,
    FORBIDDEN_PENALTY,
    LOG_SIGMA_BOUNDS,
    LOG_SQRT_2_PI,
    GaussianDistribution,
)
from mlagents.trainers.torch_entities.layers import LSTM, LinearEncoder
from mlagents.trainers.torch_entities.networks import NetworkBody, SharedActorCritic, SimpleActor, ValueNetwork
from mlagents.trainers.torch_entities.observation_encoder import ObservationEncoder
from mlagents.trainers.trajectory import LogProbsTuple
from mlagents_envs.base_env import ActionTuple


class ArrayEncoding:
    """An `ObservationEncoder` of vectors: from observations (B, size) each to all of them, normalised, (B, sum)."""

    def __init__(self, encoder: ObservationEncoder):
        self._statistics = [_statistics(processor) for processor in encoder.processors]

    def __call__(self, obs: Sequence[np.ndarray]) -> np.ndarray:
        """Return the encoding."""
        encodings = [
            values if statistics is None else _clip((values - statistics[0]) / statistics[1], 5.0)
            for values, statistics in zip(obs, self._statistics)
        ]
        return encodings[0] if len(encodings) == 1 else np.concatenate(encodings, axis=1)


class _ArrayBody:
    """A `NetworkBody`: from observations (B, size) each to features (H, B)."""

    def __init__(self, body: NetworkBody):
        self._encode = ArrayEncoding(body.observation_encoder)
        assert isinstance(body._body_endoder, LinearEncoder)
        self._layers = [_linear(layer) for layer in body._body_endoder.seq_layers if isinstance(layer, nn.Linear)]

    def __call__(self, obs: Sequence[np.ndarray]) -> np.ndarray:
        features: np.ndarray = self._encode(obs).T
        for weight, bias in self._layers:
            features = np.dot(weight, features)
            features += bias
            features *= HALF
            gate = np.tanh(features)  # x sigmoid(x) = x / 2 (1 + tanh(x / 2)), which never overflows
            gate += ONE
            features *= gate
        return features


class _ArrayLSTM:
    """One step of an `LSTM`: from features (H, B) and memories (B, M) to outputs (M / 2, B) and the new memories."""

    def __init__(self, lstm: LSTM):
        from_input, from_hidden, *biases = (array_of(parameter) for parameter in lstm.lstm.parameters())
        self._weights = from_input, from_hidden
        self._biases = [bias[:, None] for bias in biases]

    def __call__(self, features: np.ndarray, memories: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        hidden, cell = np.split(memories.T, 2)
        gates = self._weights[0] @ features + self._weights[1] @ hidden
        gates += self._biases[0]
        gates += self._biases[1]
        into, keep, new, out = np.split(gates, 4)  # torch's order
        cell = _sigmoid(keep) * cell + _sigmoid(into) * np.tanh(new)
        hidden = _sigmoid(out) * np.tanh(cell)
        return hidden, np.ascontiguousarray(np.concatenate([hidden, cell]).T)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    sigmoid: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * values)  # never overflows
    return sigmoid


class ArrayDecision(NamedTuple):
    """What an actor decides for B agents."""

    action: ActionTuple
    env_action: ActionTuple
    log_probs: LogProbsTuple
    entropy: np.ndarray  # (B,)


class _Spread(NamedTuple):
    """What follows from the logarithms of standard deviations, which change only with an update.

    :param log_sigma: the bytes of them.
    :param log_peak: the log-densities at the means (1, C).
    :param width: what the squared distances from the means are divided by (1, C).
    """

    log_sigma: bytes
    std: np.ndarray
    log_peak: np.ndarray
    width: np.ndarray
    entropy: float

    @staticmethod
    def of(log_sigma: np.ndarray) -> _Spread:
        """Return what follows from `log_sigma` (1, C)."""
        std = np.exp(log_sigma)
        variance = std * std
        log_peak = -LOG_SQRT_2_PI - np.log(std + EPSILON)
        entropy = float(0.5 * np.log(2 * math.pi * math.e * variance + EPSILON).mean())
        return _Spread(log_sigma.tobytes(), std, log_peak, 2.0 * variance + EPSILON, entropy)


def _clip(values: np.ndarray, limit: float) -> np.ndarray:
    """Return values between plus and minus `limit`, in a third of the time that `np.clip` takes for a few."""
    clipped: np.ndarray = np.minimum(np.maximum(values, -limit), limit)
    return clipped


class _Head:
    """A linear layer from features (H, B) to rows (B, out)."""

    def __init__(self, layer: nn.Linear):
        self._weight, self._bias = array_of(layer.weight), array_of(layer.bias)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        outputs: np.ndarray = np.add(np.dot(self._weight, features).T, self._bias, order="C")
        return outputs


class _Gaussian:
    """A `GaussianDistribution` with standard deviations of its own."""

    def __init__(self, distribution: GaussianDistribution):
        assert isinstance(distribution.log_sigma, torch.Tensor)
        self._mean = _Head(distribution.mu)
        self._log_sigma = array_of(distribution.log_sigma)
        self._spread: Optional[_Spread] = None

    def draw(self, features: np.ndarray, deterministic: bool) -> Tuple[np.ndarray, np.ndarray, float]:
        """Return actions (B, C), their log-densities (B, C) and the entropy, the same for all rows."""
        if self._spread is None or self._spread.log_sigma != self._log_sigma.tobytes():
            self._spread = _Spread.of(self._log_sigma)
        spread = self._spread
        mean = self._mean(features)
        actions = mean if deterministic else mean + spread.std * draw_noise(mean.shape)
        log_densities = spread.log_peak - (actions - mean) ** 2 / spread.width
        return actions, log_densities, spread.entropy


class _SquashedGaussian:
    """A `GaussianDistribution` whose standard deviations follow from what is seen, squashed by tanh."""

    def __init__(self, distribution: GaussianDistribution):
        assert isinstance(distribution.log_sigma, nn.Linear)
        self._mean, self._log_sigma = _Head(distribution.mu), _Head(distribution.log_sigma)

    def draw(self, features: np.ndarray, deterministic: bool) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return actions (B, C), their log-densities (B, C) and the entropies before they are squashed (B,)."""
        mean, log_sigma = self._mean(features), self._log_sigma(features)
        std = np.exp(np.minimum(np.maximum(log_sigma, LOG_SIGMA_BOUNDS[0]), LOG_SIGMA_BOUNDS[1]))
        unsquashed = mean if deterministic else mean + std * draw_noise(mean.shape)
        actions = np.tanh(unsquashed)
        if deterministic:
            unsquashed = np.arctanh(_clip(actions, ATANH_LIMIT))
        variance = std * std
        log_densities = squashed_log_densities(unsquashed, unsquashed - mean, std, 2.0 * variance + EPSILON)
        return actions, log_densities, 0.5 * np.log(2 * math.pi * math.e * variance + EPSILON).mean(axis=1)


def draw_noise(shape: Tuple[int, ...]) -> np.ndarray:
    """Return samples of the standard normal distribution, by NumPy's global generator."""
    return np.random.standard_normal(shape).astype(np.float32)


def squashed_log_densities(
    unsquashed: np.ndarray, distance: np.ndarray, std: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Return what `TanhGaussianDistInstance.log_prob` is, (B, C), as are all of these.

    :param distance: from the means.
    :param width: what the squared distances are divided by.
    """
    log_slope = 2.0 * (math.log(2.0) - unsquashed - np.logaddexp(np.float32(0.0), -2.0 * unsquashed))
    densities: np.ndarray = -LOG_SQRT_2_PI - np.log(std + EPSILON) - distance * distance / width - log_slope
    return densities


class ArrayActor(ArrayNetwork):
    """A `SimpleActor` or `SharedActorCritic` as arrays; draws from NumPy's global generator."""

    def __init__(self, network: Any):
        super().__init__(network)
        model: ActionModel = network.action_model
        self._body = _ArrayBody(network.network_body)
        self._lstm = None if network.network_body.lstm is None else _ArrayLSTM(network.network_body.lstm)
        self.memory_size: int = network.network_body.memory_size
        self._model = model  # for its plain attributes, which may be set at any time
        gaussian = model._continuous_distribution
        self.squashes = gaussian is not None and gaussian.tanh_squash
        self._gaussian: Any = None
        if gaussian is not None:
            self._gaussian = (_SquashedGaussian if self.squashes else _Gaussian)(gaussian)
        branches: Any = () if model._discrete_distribution is None else model._discrete_distribution.branches
        self._branches = [_linear(branch) for branch in branches]
        self._agents = np.arange(0)

    @classmethod
    def _fits(cls, network: Any) -> bool:
        if type(network) not in (SimpleActor, SharedActorCritic) or not super()._fits(network):
            return False
        gaussian = network.action_model._continuous_distribution
        return gaussian is None or gaussian.conditional_sigma == gaussian.tanh_squash

    def act(self, obs: Sequence[np.ndarray], allowed: Optional[np.ndarray]) -> ArrayDecision:
        """Choose actions, without a memory.

        :param obs: per observation (B, size).
        :param allowed: (B, sum of branches), 1 = allowed and 0 = forbidden; None allows everything.
        """
        return self._decide(self._body(obs), allowed)

    def act_with_memory(
        self, obs: Sequence[np.ndarray], allowed: Optional[np.ndarray], memories: np.ndarray
    ) -> Tuple[ArrayDecision, np.ndarray]:
        """Choose actions, and return the new memories too; see `act`.

        :param memories: (B, memory_size).
        """
        assert self._lstm is not None
        features, memories = self._lstm(self._body(obs), memories)
        return self._decide(features, allowed), memories

    def _decide(self, features: np.ndarray, allowed: Optional[np.ndarray]) -> ArrayDecision:
        action, env_action, log_probs = ActionTuple(), ActionTuple(), LogProbsTuple()
        entropies = []
        if self._gaussian is not None:
            continuous, log_densities, of_continuous = self._gaussian.draw(features, self._model._deterministic)
            entropies.append(np.full(len(continuous), of_continuous, dtype=np.float32))
            action.add_continuous(continuous)
            env_action.add_continuous(_clip(continuous, 3.0) / 3.0 if self._model.clip_action else continuous)
            log_probs.add_continuous(log_densities)
        if self._branches:
            chosen, log_chosen, of_branches = self._draw_discrete(features, allowed)
            entropies.append(of_branches)
            action.add_discrete(chosen)
            env_action.add_discrete(chosen)
            log_probs.add_discrete(log_chosen)
        return ArrayDecision(action, env_action, log_probs, total(entropies))

    def _draw_discrete(
        self, features: np.ndarray, allowed: Optional[np.ndarray]
    ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return choices int32 (B, D), their log-probabilities (B, D) and the entropies (B,), summed over branches."""
        if features.shape[1] != len(self._agents):
            self._agents = np.arange(features.shape[1])
        chosen, log_chosen, entropies = [], [], []
        start = 0
        for weight, bias in self._branches:
            logits = np.dot(weight, features)
            logits += bias
            end = start + len(bias)
            if allowed is not None:
                of_branch = allowed[:, start:end].T
                logits = logits * of_branch - FORBIDDEN_PENALTY * (1.0 - of_branch)
            start = end
            probs = np.exp(logits - np.maximum.reduce(logits))
            probs /= np.add.reduce(probs)
            log_probs = np.log(probs + EPSILON_0D)
            choice = probs.argmax(axis=0) if self._model._deterministic else _first_to_tick(probs)
            chosen.append(choice)
            log_chosen.append(log_probs[choice, self._agents])
            entropies.append(np.add.reduce(probs * log_probs))
        return _as_columns(chosen).astype(np.int32), _as_columns(log_chosen), -total(entropies)


def _first_to_tick(rates: np.ndarray) -> np.ndarray:
    """Draw a row (B,) for each column of probabilities (n, B), as `CategoricalDistInstance` does it.

    It is the first of exponential clocks that tick at these rates.
    """
    rates = rates.T
    first: np.ndarray = (rates / np.random.standard_exponential(rates.shape)).argmax(axis=1)
    return first


def _as_columns(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays (B,) side by side."""
    return parts[0][:, None] if len(parts) == 1 else np.stack(parts, axis=1)


class ArrayCritic(ArrayNetwork):
    """A `ValueNetwork` or `SharedActorCritic` as arrays."""

    def __init__(self, network: Any):
        super().__init__(network)
        self._body = _ArrayBody(network.network_body)
        self._heads = {name: _linear(head) for name, head in network.value_heads.value_heads.items()}

    @classmethod
    def _fits(cls, network: Any) -> bool:
        return (
            type(network) in (ValueNetwork, SharedActorCritic)
            and super()._fits(network)
            and network.network_body.lstm is None
            and all(head.out_features == 1 for head in network.value_heads.value_heads.values())
        )

    def values(self, obs: Sequence[np.ndarray]) -> Dict[str, np.ndarray]:
        """Return the values (B,) of each reward stream.

        :param obs: per observation (B, size).
        """
        features = self._body(obs)
        return {name: (weight @ features + bias)[0] for name, (weight, bias) in self._heads.items()}


def _statistics(processor: Any) -> Optional[Tuple[np.ndarray, np.ndarray]]:
    """Return the mean and the deviation that a `VectorInput` normalises by, None if it does not."""
    normalizer = processor.normalizer
    return None if normalizer is None else (array_of(normalizer.running_mean), array_of(normalizer._deviation))


def _linear(layer: nn.Linear) -> Tuple[np.ndarray, np.ndarray]:
    """Return views (out, in) and (out, 1) such that ``weight @ x + bias`` is what the layer gives for columns x."""
    return array_of(layer.weight), array_of(layer.bias)[:, None]
