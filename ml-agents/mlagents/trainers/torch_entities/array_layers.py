"""Dense layers written out in NumPy, forward and backward, on the memory of the torch modules.

What is given out is valid until the next call. Axis letters: S networks, B rows, H features, K the first so many of
the rows.
"""

from __future__ import annotations

import operator
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from mlagents.torch_utils import nn, torch
from mlagents.trainers.torch_entities.array_networks import HALF, ONE, array_of, total


class Gradients:
    """Room for the gradients of parameters: parts of one array, so that they can be looked at as one."""

    def __init__(self, parameters: Sequence[nn.Parameter]):
        flat = torch.zeros(sum(it.numel() for it in parameters))
        parts = torch.split(flat, [it.numel() for it in parameters])
        self._by_parameter = {it: part.view(it.shape) for it, part in zip(parameters, parts)}

    def of(self, parameter: Any) -> np.ndarray:
        """Return the room for a parameter's."""
        return array_of(self._by_parameter[parameter])

    def hand_over(self) -> None:
        """Make them the parameters' gradients."""
        for parameter, gradient in self._by_parameter.items():
            parameter.grad = gradient


class Linear:
    """``inputs @ weight.T + bias``."""

    def __init__(self, layer: nn.Linear, gradients: Gradients):
        self._weight, self._bias = array_of(layer.weight), array_of(layer.bias)
        self._weight_gradient, self._bias_gradient = gradients.of(layer.weight), gradients.of(layer.bias)
        self.size = len(self._bias)
        self._inputs: np.ndarray  # of the last `forward`
        self._allocate(0)

    def _allocate(self, n_rows: int) -> None:
        widths = self.size, self._weight.shape[1]
        self.work_in(*(np.empty((n_rows, width), dtype=np.float32) for width in widths))

    def work_in(self, outputs: np.ndarray, input_gradient: np.ndarray) -> None:
        """Leave results in these from now on, (B, size) and (B, n)."""
        self._outputs, self._input_gradient = outputs, input_gradient
        self._ones = np.ones(len(outputs), dtype=np.float32)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Return (B, size), for inputs (B, n), which are kept for `backward`."""
        if len(inputs) != len(self._outputs):
            self._allocate(len(inputs))
        self._inputs = inputs
        np.dot(inputs, self._weight.T, out=self._outputs)  # of small matrices it is quicker than `matmul`
        self._outputs += self._bias
        return self._outputs

    def backward(self, gradient: np.ndarray, to_inputs: bool = True, n_learning: Optional[int] = None) -> np.ndarray:
        """Keep the parameters' gradients for that of the outputs (K, size); return that of the inputs (K, n).

        :param to_inputs: whether that is wanted.
        :param n_learning: the parameters learn from the first so many of the rows; None: from all.
        """
        learning = gradient[:n_learning]
        np.dot(learning.T, self._inputs[: len(learning)], out=self._weight_gradient)
        np.dot(self._ones[: len(learning)], learning, out=self._bias_gradient)  # a sum takes three times as long
        of_inputs = self._input_gradient[: len(gradient)]
        if to_inputs:
            np.dot(gradient, self._weight, out=of_inputs)
        return of_inputs


class SwishLayers:
    """A linear layer of each of S networks, and then x * sigmoid(x), which is one operation for all of them.

    :param layers: of equal shapes.
    """

    def __init__(self, layers: Sequence[nn.Linear], gradients: Gradients):
        self._linears = [Linear(layer, gradients) for layer in layers]
        self._shape = len(layers), layers[0].out_features, layers[0].in_features
        self._allocate(0)

    def _allocate(self, n_rows: int) -> None:
        n_networks, size, n_inputs = self._shape
        self._input_gradients = np.empty((n_networks, n_rows, n_inputs), dtype=np.float32)
        self._outputs, self._sigmoid, self._activations = (
            np.empty((n_networks, n_rows, size), dtype=np.float32) for _ in range(3)
        )
        for linear, outputs, input_gradient in zip(self._linears, self._outputs, self._input_gradients):
            linear.work_in(outputs, input_gradient)

    def forward(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return (S, B, size), for inputs (B, n) of each network, which are kept for `backward`."""
        if len(inputs[0]) != self._outputs.shape[1]:
            self._allocate(len(inputs[0]))
        for linear, of_network in zip(self._linears, inputs):
            linear.forward(of_network)
        # (1 + tanh(x / 2)) / 2 is quicker than 1 / (1 + exp(-x)), and never overflows.
        sigmoid = np.multiply(self._outputs, HALF, out=self._sigmoid)
        np.tanh(sigmoid, out=sigmoid)
        sigmoid *= HALF
        sigmoid += HALF
        return np.multiply(self._outputs, sigmoid, out=self._activations)

    def backward(self, gradients: Sequence[np.ndarray], to_inputs: bool, n_learning: Optional[int]) -> np.ndarray:
        """Do for each network what `Linear` does, and return (S, K, n). The slope of x s(x) is s + x s (1 - s)."""
        n_rows = len(gradients[0])
        sigmoid = self._sigmoid[:, :n_rows]
        slope = np.subtract(ONE, sigmoid, out=self._outputs[:, :n_rows])
        slope *= self._activations[:, :n_rows]
        slope += sigmoid
        for linear, of_network, gradient in zip(self._linears, slope, gradients):
            of_network *= gradient
            linear.backward(of_network, to_inputs, n_learning)
        return self._input_gradients[:, :n_rows]


class Layers:
    """The layers of S `NetworkBody`: from an encoding (B, n) for each to features (S, B, H).

    :param bodies: with layers of equal shapes, as `are_alike` says.
    """

    def __init__(self, bodies: Sequence[Any], gradients: Gradients):
        self._layers = [SwishLayers(layers, gradients) for layers in zip(*map(_linear_layers, bodies))]

    @staticmethod
    def are_alike(bodies: Sequence[Any]) -> bool:
        """Return whether the layers of bodies have equal shapes."""
        return len({tuple(layer.weight.shape for layer in _linear_layers(body)) for body in bodies}) == 1

    def forward(self, encodings: Sequence[np.ndarray]) -> np.ndarray:
        """Return the features; what led to them is kept for `backward`."""
        features: Any = encodings
        for layers in self._layers:
            features = layers.forward(features)
        of_all: np.ndarray = features
        return of_all

    def backward(
        self, gradients: Sequence[np.ndarray], to_inputs: bool = False, n_learning: Optional[int] = None
    ) -> np.ndarray:
        """Keep the parameters' gradients for those of the features, (K, H) each; return (S, K, n), see `Linear`."""
        of_inputs: Any = gradients
        for index, layers in reversed([*enumerate(self._layers)]):
            of_inputs = layers.backward(of_inputs, to_inputs or index > 0, n_learning)
        of_all: np.ndarray = of_inputs
        return of_all


def _linear_layers(body: Any) -> List[nn.Linear]:
    return [layer for layer in body._body_endoder.seq_layers if isinstance(layer, nn.Linear)]


class Heads:
    """`ValueHeads`: from features (B, H) to values (B,) by reward stream."""

    def __init__(self, heads: Any, gradients: Gradients):
        self._heads = {name: Linear(head, gradients) for name, head in heads.value_heads.items()}

    def forward(self, features: np.ndarray) -> Dict[str, np.ndarray]:
        """Return the values; the features are kept for `backward`."""
        return {name: head.forward(features)[:, 0] for name, head in self._heads.items()}

    def backward(self, gradients: Dict[str, np.ndarray], n_learning: Optional[int] = None) -> np.ndarray:
        """Keep the parameters' gradients for those of the values (K,); return that of the features (K, H)."""
        return total([self._heads[name].backward(of[:, None], True, n_learning) for name, of in gradients.items()])


def parameters_of(*networks: nn.Module) -> List[nn.Parameter]:
    """Return each parameter once, without the constants, which an actor holds beside its modules."""
    named = (it for network in dict.fromkeys(networks) for it in network.named_parameters())
    return [parameter for name, parameter in named if "." in name]


def are_plain(parameters: Sequence[nn.Parameter]) -> bool:
    """Return whether all learn, and nobody is told of their gradients, which would not be so here."""
    how = [*map(_HOW_IT_LEARNS, parameters)]
    return how.count(_PLAIN) == len(how) or not any(
        learns is False or hooks or later_hooks for learns, hooks, later_hooks in how
    )


_HOW_IT_LEARNS = operator.attrgetter("requires_grad", "_backward_hooks", "_post_accumulate_grad_hooks")
_PLAIN = (True, None, None)
