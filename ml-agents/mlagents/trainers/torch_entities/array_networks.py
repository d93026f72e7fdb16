"""Which networks can be written out in NumPy, on the very parameters of the torch modules.

They are those that consist of our own modules only, on the CPU: vectors as observations, a body of linear layers (and a
memory), normal or categorical distributions, value heads. `array_inference` evaluates them, `array_learning`
differentiates them; all others are left to torch, which is the definition.
"""

from __future__ import annotations

import functools
import operator
import re
from itertools import chain
from typing import Any, Dict, Generic, List, Optional, Sequence, Tuple, Type, TypeVar

import numpy as np

from mlagents.torch_utils import nn, torch
from mlagents.trainers.torch_entities.action_model import ActionModel
from mlagents.trainers.torch_entities.decoders import ValueHeads
from mlagents.trainers.torch_entities.distributions import (
    EPSILON,
    GaussianDistribution,
    MultiCategoricalDistribution,
)
from mlagents.trainers.torch_entities.encoders import Normalizer, VectorInput
from mlagents.trainers.torch_entities.layers import LSTM, LinearEncoder, Swish
from mlagents.trainers.torch_entities.networks import NetworkBody
from mlagents.trainers.torch_entities.observation_encoder import ObservationEncoder

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
    r"action_model\._continuous_distribution\.(?:mu|log_sigma)": nn.Linear,
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
_EVALUATING_METHODS = frozenset({"forward", "get_action_and_stats", "get_stats", "critic_pass", "sample_actions"})
"""What is not to be replaced on a single module."""

HALF, ONE, EPSILON_0D = (np.array(number, dtype=np.float32) for number in (0.5, 1.0, EPSILON))
"""Python's numbers become arrays at every call, which for small ones takes as long as the arithmetic."""

_END: Dict[str, object] = {"": object()}
"""Stands behind the parts of a network, so that one more of them shows."""

_Self = TypeVar("_Self", bound="ArrayNetwork")


class ArrayNetwork:
    """A torch network and views on its parameters.

    :param network: of known modules only.
    """

    def __init__(self, network: nn.Module):
        self._network = network
        modules = list(network.modules())
        held = [it for module in modules for it in (module._modules, module._parameters, module._buffers)]
        hooks = [it for module in modules for it in (module._forward_hooks, module._forward_pre_hooks)]
        self._empty: List[Any] = [it for it in (*held, *hooks) if not it]
        self._held = [*(it.values() for it in held if it), _END.values()]
        self._parts = [*chain.from_iterable(self._held)]
        tensors = (it for it in self._parts if isinstance(it, torch.Tensor))
        constants = {*map(id, network._parameters.values())}  # an actor's, beside its modules
        self._tensors = [it for it in tensors if id(it) not in constants]
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
            and not any(self._empty)
            and all(map(operator.is_, chain.from_iterable(self._held), self._parts))
            and [*map(torch.Tensor.data_ptr, self._tensors)] == self._pointers
        )


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


def total(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of equal shapes."""
    return functools.reduce(operator.add, parts)
