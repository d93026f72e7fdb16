"""The standard small networks evaluated in NumPy, on the very parameters of the torch modules.

For a dozen agents the arithmetic of such a network takes microseconds, and every call of torch around it takes as
long. Where nothing is differentiated (acting, and the values of trajectories) the same formulas in NumPy therefore
take a fraction of the time. They apply to networks that consist of our own modules only, on the CPU: vectors as
observations, a body of linear layers (and where it acts, a memory), unsquashed normal or categorical distributions,
value heads. For everything else `of` returns None, and torch does it. The torch modules are the definition; the tests
compare the two.

Axis letters: B rows, C continuous actions, D branches.
"""

from __future__ import annotations

import math
import operator
import re
from typing import Any, Dict, Generic, List, NamedTuple, Optional, Sequence, Tuple, Type, TypeVar

import numpy as np

from mlagents.torch_utils import nn, torch
from mlagents.trainers.torch_entities.action_model import ActionModel
from mlagents.trainers.torch_entities.decoders import ValueHeads
from mlagents.trainers.torch_entities.distributions import (
    EPSILON,
    FORBIDDEN_PENALTY,
    LOG_SQRT_2_PI,
    GaussianDistribution,
    MultiCategoricalDistribution,
)
from mlagents.trainers.torch_entities.encoders import Normalizer, VectorInput
from mlagents.trainers.torch_entities.layers import LSTM, LinearEncoder, Swish
from mlagents.trainers.torch_entities.networks import NetworkBody, SharedActorCritic, SimpleActor, ValueNetwork
from mlagents.trainers.torch_entities.observation_encoder import ObservationEncoder
from mlagents.trainers.trajectory import LogProbsTuple
from mlagents_envs.base_env import ActionTuple

_LAYOUT: Dict[str, type] = {
    r"network_body": NetworkBody,
    r"network_body\.observation_encoder": ObservationEncoder,
    r"network_body\.observation_encoder\.processors": nn.ModuleList,
    r"network_body\.observation_encoder\.processors\.\d+": VectorInput,
    r"network_body\.observation_encoder\.processors\.\d+\.normalizer": Normalizer,
    r"network_body\._body_endoder": LinearEncoder,
    r"network_body\._body_endoder\.seq_layers": nn.Sequential,
    r"network_body\._body_endoder\.seq_layers\.\d*[02468]": nn.Linear,
    r"network_body\._body_endoder\.seq_layers\.\d*[13579]": Swish,
    r"network_body\.lstm": LSTM,
    r"network_body\.lstm\.lstm": nn.LSTM,
    r"action_model": ActionModel,
    r"action_model\._continuous_distribution": GaussianDistribution,
    r"action_model\._continuous_distribution\.mu": nn.Linear,
    r"action_model\._discrete_distribution": MultiCategoricalDistribution,
    r"action_model\._discrete_distribution\.branches": nn.ModuleList,
    r"action_model\._discrete_distribution\.branches\.\d+": nn.Linear,
    r"value_heads": ValueHeads,
    r"value_heads\.value_heads": nn.ModuleDict,
    r"value_heads\.value_heads\.[^.]+": nn.Linear,
}
"""Which module stands where in the networks that are evaluated here; the names are those of `named_modules`."""
_PLACES = re.compile("|".join(f"({place})" for place in _LAYOUT))
_TYPES = list(_LAYOUT.values())
_EVALUATING_METHODS = frozenset({"forward", "get_action_and_stats", "get_stats", "critic_pass"})
"""What is not to be replaced on a single module."""

_Self = TypeVar("_Self", bound="_ArrayNetwork")


class _ArrayNetwork:
    """A torch network and views on its parameters.

    :param network: of known modules only.
    """

    def __init__(self, network: nn.Module):
        self._network = network
        modules = list(network.modules())
        parts = [held for module in modules for held in (module._modules, module._parameters, module._buffers)]
        hooks = [held for module in modules for held in (module._forward_hooks, module._forward_pre_hooks)]
        links = [(container, key, part) for container in parts for key, part in container.items()]
        self._holders, self._keys, self._parts = ([*column] for column in zip(*links))
        self._part_ids = [*map(id, self._parts)]
        self._containers: List[Any] = [*parts, *hooks]  # without an entry beside the links
        self._tensors = [part for part in self._parts if isinstance(part, torch.Tensor)]
        self._pointers = [*map(torch.Tensor.data_ptr, self._tensors)]

    @classmethod
    def of(cls: Type[_Self], network: Any) -> Optional[_Self]:
        """Return the network as arrays, or None where torch has to evaluate it."""
        return cls(network) if isinstance(network, nn.Module) and cls._fits(network) else None

    @classmethod
    def _fits(cls, network: Any) -> bool:
        return (
            all(_is_as_made(name, module) for name, module in network.named_modules())
            and len(network.network_body._body_endoder.seq_layers) % 2 == 0
            and all(tensor.device.type == "cpu" for tensor in network.state_dict().values())
        )

    def is_current(self, network: Any) -> bool:
        """Return whether this still is `network`: nothing in it was exchanged, moved or added since.

        Asked at every step: no line of it runs once per part.
        """
        return (
            network is self._network
            and sum(map(len, self._containers)) == len(self._parts)
            and [*map(id, map(dict.get, self._holders, self._keys))] == self._part_ids
            and [*map(torch.Tensor.data_ptr, self._tensors)] == self._pointers
        )


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
    """A `NetworkBody`: from observations (B, size) each to features (B, h_size)."""

    def __init__(self, body: NetworkBody):
        self._encode = ArrayEncoding(body.observation_encoder)
        assert isinstance(body._body_endoder, LinearEncoder)
        self._layers = [_linear(layer) for layer in body._body_endoder.seq_layers if isinstance(layer, nn.Linear)]

    def __call__(self, obs: Sequence[np.ndarray]) -> np.ndarray:
        features = self._encode(obs)
        for weight, bias in self._layers:
            features = features @ weight
            features += bias
            sigmoid_denominator = np.exp(-features)
            sigmoid_denominator += 1.0
            features /= sigmoid_denominator
        return features


class _ArrayLSTM:
    """One step of an `LSTM`: from features (B, H) and memories (B, M) to an output (B, M / 2) and the new memories."""

    def __init__(self, lstm: LSTM):
        from_input, from_hidden, *biases = (array_of(parameter) for parameter in lstm.lstm.parameters())
        self._weights = from_input.T, from_hidden.T
        self._biases = biases

    def __call__(self, features: np.ndarray, memories: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        hidden, cell = np.split(memories, 2, axis=1)
        gates = features @ self._weights[0] + hidden @ self._weights[1]
        gates += self._biases[0]
        gates += self._biases[1]
        into, keep, new, out = np.split(gates, 4, axis=1)  # torch's order
        cell = _sigmoid(keep) * cell + _sigmoid(into) * np.tanh(new)
        hidden = _sigmoid(out) * np.tanh(cell)
        return hidden, np.concatenate([hidden, cell], axis=1)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    sigmoid: np.ndarray = 1.0 / (1.0 + np.exp(-values))
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


class ArrayActor(_ArrayNetwork):
    """A `SimpleActor` or `SharedActorCritic` as arrays; draws from NumPy's global generator."""

    def __init__(self, network: Any):
        super().__init__(network)
        model: ActionModel = network.action_model
        self._body = _ArrayBody(network.network_body)
        self._lstm = None if network.network_body.lstm is None else _ArrayLSTM(network.network_body.lstm)
        self.memory_size: int = network.network_body.memory_size
        self._model = model  # for its plain attributes, which may be set at any time
        self._gaussian: Optional[Tuple[np.ndarray, np.ndarray, np.ndarray]] = None
        if model._continuous_distribution is not None:
            log_sigma = model._continuous_distribution.log_sigma
            assert isinstance(log_sigma, torch.Tensor)
            self._gaussian = (*_linear(model._continuous_distribution.mu), array_of(log_sigma))
        self._spread: Optional[_Spread] = None
        branches: Any = () if model._discrete_distribution is None else model._discrete_distribution.branches
        self._branches = [_linear(branch) for branch in branches]

    @classmethod
    def _fits(cls, network: Any) -> bool:
        if type(network) not in (SimpleActor, SharedActorCritic) or not super()._fits(network):
            return False
        gaussian = network.action_model._continuous_distribution
        return gaussian is None or not (gaussian.conditional_sigma or gaussian.tanh_squash)

    def act(self, obs: Sequence[np.ndarray], allowed: Optional[np.ndarray]) -> ArrayDecision:
        """Choose actions, without a memory.

        :param obs: per observation (B, size).
        :param allowed: (B, sum of branches), 1 = allowed and 0 = forbidden; None allows everything.
        """
        with np.errstate(over="ignore"):  # exp(-x) of a very negative x; its quotient is 0, as it should be
            return self._decide(self._body(obs), allowed)

    def act_with_memory(
        self, obs: Sequence[np.ndarray], allowed: Optional[np.ndarray], memories: np.ndarray
    ) -> Tuple[ArrayDecision, np.ndarray]:
        """Choose actions, and return the new memories too; see `act`.

        :param memories: (B, memory_size).
        """
        assert self._lstm is not None
        with np.errstate(over="ignore"):
            features, memories = self._lstm(self._body(obs), memories)
        return self._decide(features, allowed), memories

    def _decide(self, features: np.ndarray, allowed: Optional[np.ndarray]) -> ArrayDecision:
        action, env_action, log_probs = ActionTuple(), ActionTuple(), LogProbsTuple()
        entropy = np.zeros(len(features), dtype=np.float32)
        if self._gaussian is not None:
            continuous, log_densities, of_continuous = self._draw_continuous(features)
            entropy += of_continuous
            action.add_continuous(continuous)
            env_action.add_continuous(_clip(continuous, 3.0) / 3.0 if self._model.clip_action else continuous)
            log_probs.add_continuous(log_densities)
        if self._branches:
            chosen, log_chosen, of_branches = self._draw_discrete(features, allowed)
            entropy += of_branches
            action.add_discrete(chosen)
            env_action.add_discrete(chosen)
            log_probs.add_discrete(log_chosen)
        return ArrayDecision(action, env_action, log_probs, entropy)

    def _draw_continuous(self, features: np.ndarray) -> Tuple[np.ndarray, np.ndarray, float]:
        """Return actions (B, C), their log-densities (B, C) and the entropy, the same for all rows."""
        assert self._gaussian is not None
        weight, bias, log_sigma = self._gaussian
        if self._spread is None or self._spread.log_sigma != log_sigma.tobytes():
            self._spread = _Spread.of(log_sigma)
        spread = self._spread
        mean = features @ weight
        mean += bias
        actions = mean
        if not self._model._deterministic:
            actions = mean + spread.std * np.random.standard_normal(mean.shape).astype(np.float32)
        log_densities = spread.log_peak - (actions - mean) ** 2 / spread.width
        return actions, log_densities, spread.entropy

    def _draw_discrete(
        self, features: np.ndarray, allowed: Optional[np.ndarray]
    ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return choices (B, D), their log-probabilities (B, D) and the entropies (B,), summed over branches."""
        n_rows = len(features)
        chosen = np.empty((n_rows, len(self._branches)), dtype=np.int32)
        log_chosen = np.empty((n_rows, len(self._branches)), dtype=np.float32)
        entropy = np.zeros(n_rows, dtype=np.float32)
        start = 0
        for index, (weight, bias) in enumerate(self._branches):
            logits = features @ weight
            logits += bias
            if allowed is not None:
                of_branch = allowed[:, start : start + len(bias)]
                logits = logits * of_branch - FORBIDDEN_PENALTY * (1.0 - of_branch)
            start += len(bias)
            probs = np.exp(logits - logits.max(axis=1, keepdims=True))
            probs /= probs.sum(axis=1, keepdims=True)
            log_probs = np.log(probs + EPSILON)
            # As `CategoricalDistInstance` does it: the first of exponential clocks that tick at rates `probs`.
            rates = probs if self._model._deterministic else probs / np.random.standard_exponential(probs.shape)
            chosen[:, index] = choice = rates.argmax(axis=1)
            log_chosen[:, index] = log_probs[np.arange(n_rows), choice]
            entropy -= (probs * log_probs).sum(axis=1)
        return chosen, log_chosen, entropy


class ArrayCritic(_ArrayNetwork):
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
        with np.errstate(over="ignore"):
            features = self._body(obs)
        return {name: (features @ weight + bias)[:, 0] for name, (weight, bias) in self._heads.items()}


_Arrays = TypeVar("_Arrays")


class ArrayCache(Generic[_Arrays]):
    """The arrays of networks that may be exchanged at any time.

    :param kind: a class with `of` and `is_current`, each of as many networks as `get` is given.
    """

    def __init__(self, kind: Type[_Arrays]):
        self._kind: Any = kind
        self._arrays: Any = None
        self._refused: Tuple[Any, ...] = ()

    def __deepcopy__(self, memo: Dict[int, Any]) -> ArrayCache[_Arrays]:
        """Return an empty one: arrays share the memory of a network's parameters, and a copy of it has its own."""
        return ArrayCache(self._kind)

    def get(self, *networks: Any) -> Optional[_Arrays]:
        """Return the networks as arrays, or None where torch has to do it; what was refused once stays so."""
        if self._arrays is None or not self._arrays.is_current(*networks):
            if self._refused and all(map(operator.is_, networks, self._refused)):
                return None
            self._arrays = self._kind.of(*networks)
            self._refused = networks if self._arrays is None else ()
        arrays: Optional[_Arrays] = self._arrays
        return arrays


def _is_as_made(name: str, module: nn.Module) -> bool:
    """Return whether the module called `name` is what stands there in our networks, and does what its class says."""
    place = _PLACES.fullmatch(name)
    return (
        (not name or (place is not None and type(module) is _TYPES[(place.lastindex or 0) - 1]))
        and not (module._forward_hooks or module._forward_pre_hooks)
        and _EVALUATING_METHODS.isdisjoint(vars(module))
        and not (isinstance(module, nn.Linear) and module.bias is None)
        and not (isinstance(module, nn.LSTM) and _has_variants(module))
    )


def _has_variants(lstm: nn.LSTM) -> bool:
    return (lstm.num_layers, lstm.bidirectional, lstm.proj_size, lstm.bias) != (1, False, 0, True)


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """Return the tensor's own memory as an array."""
    array: np.ndarray = tensor.detach().numpy()
    return array


def _statistics(processor: Any) -> Optional[Tuple[np.ndarray, np.ndarray]]:
    """Return the mean and the deviation that a `VectorInput` normalises by, None if it does not."""
    normalizer = processor.normalizer
    return None if normalizer is None else (array_of(normalizer.running_mean), array_of(normalizer._deviation))


def _linear(layer: nn.Linear) -> Tuple[np.ndarray, np.ndarray]:
    """Return views (in, out) and (out,) such that ``x @ weight + bias`` is what the layer gives."""
    return array_of(layer.weight).T, array_of(layer.bias)
