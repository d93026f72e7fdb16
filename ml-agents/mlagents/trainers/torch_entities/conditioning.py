"""Bodies of networks that a goal conditions: their last layer's weights are what another network makes of the goal.

Ha, Dai and Le (2016), "HyperNetworks".

Axis letters: B rows.
"""

from __future__ import annotations

import math
from typing import Any, List, NamedTuple, Optional, Tuple

import numpy as np

from mlagents.torch_utils import nn, torch
from mlagents.trainers.torch_entities.layers import Initialization, LayerNorm, Swish, linear_layer
from mlagents.trainers.torch_entities.model_serialization import exporting_to_onnx


class HyperNetwork(nn.Module):
    """A linear layer of its own for each row, generated from another input.

    :param hyper_input_size: the width of what the layer is generated from.
    :param layer_size: hidden units of the network that generates it.
    :param num_layers: hidden layers of that network.
    """

    def __init__(self, input_size: int, output_size: int, hyper_input_size: int, layer_size: int, num_layers: int):
        super().__init__()
        self.input_size, self.output_size, self.layer_size = input_size, output_size, layer_size
        layers: List[nn.Module] = []
        for size in [hyper_input_size] + [layer_size] * (num_layers - 1):
            layers += [linear_layer(size, layer_size, Initialization.KaimingHeNormal), Swish()]
        generator = linear_layer(layer_size, input_size * output_size)
        # So that the generated weights start in the range of those of an ordinary layer.
        limit = math.sqrt(1 / (layer_size * input_size))
        nn.init.uniform_(generator.weight, -limit, limit)
        self.hypernet = nn.Sequential(*layers, LayerNorm(), generator)
        self.bias = nn.Parameter(torch.zeros(output_size))
        self._generate = _Generator()

    def forward(self, input_activation: torch.Tensor, hyper_input: torch.Tensor) -> torch.Tensor:
        """Return (B, output_size).

        :param input_activation: (B, input_size).
        :param hyper_input: (B, hyper_input_size).
        """
        if hyper_input.requires_grad or exporting_to_onnx.is_exporting():
            return self._row_by_row(input_activation, hyper_input)
        goals, goal_of_row = _distinct(hyper_input)
        if len(goals) > self.layer_size:
            return self._row_by_row(input_activation, hyper_input)
        # To generate a layer costs far more than to apply it. So each is generated once, and applied to all rows.
        *layers, generator = self.hypernet
        features = goals
        for layer in layers:
            features = layer(features)
        by_goal = torch.matmul(input_activation, self._as_layers(self._generate(generator, features)))
        return by_goal[goal_of_row, torch.arange(len(goal_of_row), device=goal_of_row.device)] + self.bias

    def _row_by_row(self, input_activation: torch.Tensor, hyper_input: torch.Tensor) -> torch.Tensor:
        layers = self._as_layers(self.hypernet(hyper_input))
        return torch.matmul(input_activation.unsqueeze(1), layers).squeeze(1) + self.bias

    def _as_layers(self, generated: torch.Tensor) -> torch.Tensor:
        """Return weights (B, input_size, output_size)."""
        return generated.reshape(-1, self.input_size, self.output_size)


class _Last(NamedTuple):
    """What a linear layer was given, what told its weights from others, and what it gave."""

    given: List[torch.Tensor]
    versions: Tuple[int, ...]
    outputs: torch.Tensor


class _Generator:
    """Calls a linear layer, or returns what it gave last, if nothing has changed since and no gradient is asked for.

    A policy asks for the layers of the same goals again and again, and to read the weights that generate them, as many
    as those of a hundred ordinary layers, is most of what such a decision costs.

    Torch counts writes to the weights, but not all: neither those of its fused Adam nor those through ``.data``. These
    show in what the layers before have made, in the biases, and in a sample of the weights.
    """

    _ROWS_PER_SAMPLE = 64

    def __init__(self) -> None:
        self._last: Optional[_Last] = None

    def __reduce__(self) -> Tuple[type, Tuple[()]]:
        return _Generator, ()  # a copy of a network starts without

    def __call__(self, layer: Any, features: torch.Tensor) -> torch.Tensor:
        """Return the outputs (B, n) for `features` (B, m)."""
        if torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            return _apply(layer, features)
        weight, bias = layer.weight, layer.bias
        given = [features, bias.detach(), weight.detach()[:: self._ROWS_PER_SAMPLE]]
        versions = (weight.data_ptr(), weight._version, bias._version)
        last = self._last
        if last is None or last.versions != versions or not all(map(torch.equal, last.given, given)):
            last = self._last = _Last([it.clone() for it in given], versions, _apply(layer, features))
        return last.outputs


def _apply(layer: Any, features: torch.Tensor) -> torch.Tensor:
    """Do what the layer does. With so many weights and so few rows, the product this way round takes a quarter."""
    outputs: torch.Tensor = torch.addmm(layer.bias[:, None], layer.weight, features.t()).t()
    return outputs


def _distinct(rows: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return each row of (B, n) once (G, n), and which of them each row is (B,)."""
    if not rows.is_cpu:
        distinct, which_of_them = torch.unique(rows, dim=0, return_inverse=True)
        return distinct, which_of_them
    # On the CPU, NumPy finds them in a tenth of the time, by their bytes.
    array = np.ascontiguousarray(rows.numpy())
    as_bytes = array.view(np.dtype((np.void, array.shape[1] * array.itemsize)))[:, 0]
    _, first, which = np.unique(as_bytes, return_index=True, return_inverse=True)
    return rows[torch.from_numpy(first)], torch.from_numpy(which)


class ConditionalEncoder(nn.Module):
    """`num_layers` times linear, then Swish; the last `num_conditional_layers` are generated from the goal."""

    def __init__(
        self,
        input_size: int,
        goal_size: int,
        hidden_size: int,
        num_layers: int,
        num_conditional_layers: int,
        kernel_init: Initialization = Initialization.KaimingHeNormal,
        kernel_gain: float = 1.0,
    ):
        super().__init__()
        layers: List[nn.Module] = []
        for index, size in enumerate([input_size] + [hidden_size] * (num_layers - 1)):
            if index < num_layers - num_conditional_layers:
                layers.append(linear_layer(size, hidden_size, kernel_init, kernel_gain))
            else:
                layers.append(HyperNetwork(size, hidden_size, goal_size, hidden_size, 2))
            layers.append(Swish())
        self.layers = nn.ModuleList(layers)

    def forward(self, input_tensor: torch.Tensor, goal_tensor: torch.Tensor) -> torch.Tensor:
        """Return (B, hidden_size).

        :param input_tensor: (B, input_size).
        :param goal_tensor: (B, goal_size).
        """
        activation = input_tensor
        for layer in self.layers:
            activation = layer(activation, goal_tensor) if isinstance(layer, HyperNetwork) else layer(activation)
        return activation
