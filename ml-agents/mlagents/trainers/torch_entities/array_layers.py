"""Dense layers written out in NumPy, forward and backward, on the memory of the torch modules.

What is given out is valid until the next call. Axis letters: B rows, H features, K the first so many of the rows.
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
        self._allocate(0)

    def _allocate(self, n_rows: int) -> None:
        n_inputs = self._weight.shape[1]
        self._inputs: np.ndarray = np.empty((n_rows, n_inputs), dtype=np.float32)
        self._outputs = np.empty((n_rows, self.size), dtype=np.float32)
        self._ones = np.ones(n_rows, dtype=np.float32)
        self._input_gradient = np.empty((n_rows, n_inputs), dtype=np.float32)

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


class LinearSwish(Linear):
    """A linear layer, then x * sigmoid(x)."""

    def _allocate(self, n_rows: int) -> None:
        super()._allocate(n_rows)
        self._sigmoid, self._activations, self._slope = (np.empty_like(self._outputs) for _ in range(3))

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """See `Linear`."""
        outputs = super().forward(inputs)
        # (1 + tanh(x / 2)) / 2 is quicker than 1 / (1 + exp(-x)), and never overflows.
        sigmoid = np.multiply(outputs, HALF, out=self._sigmoid)
        np.tanh(sigmoid, out=sigmoid)
        sigmoid *= HALF
        sigmoid += HALF
        np.multiply(outputs, sigmoid, out=self._activations)
        return self._activations

    def backward(self, gradient: np.ndarray, to_inputs: bool = True, n_learning: Optional[int] = None) -> np.ndarray:
        """See `Linear`. The slope of x s(x) is s + x s (1 - s)."""
        rows = slice(len(gradient))
        sigmoid = self._sigmoid[rows]
        slope = np.subtract(ONE, sigmoid, out=self._slope[rows])
        slope *= self._activations[rows]
        slope += sigmoid
        slope *= gradient
        return super().backward(slope, to_inputs, n_learning)


class Layers:
    """The layers of a `NetworkBody`: from an encoding (B, n) to features (B, H)."""

    def __init__(self, body: Any, gradients: Gradients):
        layers = (layer for layer in body._body_endoder.seq_layers if isinstance(layer, nn.Linear))
        self._layers = [LinearSwish(layer, gradients) for layer in layers]

    def forward(self, encoding: np.ndarray) -> np.ndarray:
        """Return the features; what led to them is kept for `backward`."""
        features = encoding
        for layer in self._layers:
            features = layer.forward(features)
        return features

    def backward(self, gradient: np.ndarray, to_inputs: bool = False, n_learning: Optional[int] = None) -> np.ndarray:
        """Keep the parameters' gradients for that of the features (K, H); see `Linear`."""
        for index, layer in reversed([*enumerate(self._layers)]):
            gradient = layer.backward(gradient, to_inputs or index > 0, n_learning)
        return gradient


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
    return not any(
        learns is False or hooks or later_hooks for learns, hooks, later_hooks in map(_HOW_IT_LEARNS, parameters)
    )


_HOW_IT_LEARNS = operator.attrgetter("requires_grad", "_backward_hooks", "_post_accumulate_grad_hooks")
