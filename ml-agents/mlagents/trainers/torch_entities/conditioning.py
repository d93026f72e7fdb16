"""Bodies of networks that a goal conditions: their last layer's weights are what another network makes of the goal.

Ha, Dai and Le (2016), "HyperNetworks".

Axis letters: B rows.
"""

from __future__ import annotations

import math
from typing import List

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

    def forward(self, input_activation: torch.Tensor, hyper_input: torch.Tensor) -> torch.Tensor:
        """Return (B, output_size).

        :param input_activation: (B, input_size).
        :param hyper_input: (B, hyper_input_size).
        """
        if hyper_input.requires_grad or exporting_to_onnx.is_exporting():
            return self._row_by_row(input_activation, hyper_input)
        goals, goal_of_row = torch.unique(hyper_input, dim=0, return_inverse=True)
        if len(goals) > self.layer_size:
            return self._row_by_row(input_activation, hyper_input)
        # To generate a layer costs far more than to apply it. So each is generated once, and applied to all rows.
        by_goal = torch.matmul(input_activation, self._generate(goals))
        return by_goal[goal_of_row, torch.arange(len(goal_of_row), device=goal_of_row.device)] + self.bias

    def _row_by_row(self, input_activation: torch.Tensor, hyper_input: torch.Tensor) -> torch.Tensor:
        return torch.matmul(input_activation.unsqueeze(1), self._generate(hyper_input)).squeeze(1) + self.bias

    def _generate(self, hyper_input: torch.Tensor) -> torch.Tensor:
        """Return weights (B, input_size, output_size)."""
        weights: torch.Tensor = self.hypernet(hyper_input)
        return weights.reshape(-1, self.input_size, self.output_size)


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
