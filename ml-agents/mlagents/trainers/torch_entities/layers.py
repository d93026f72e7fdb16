"""Building blocks of networks: linear and recurrent layers with chosen initial weights, Swish, LayerNorm."""

from __future__ import annotations

import abc
from enum import Enum
from typing import Callable, Dict, Tuple

from mlagents.torch_utils import nn, torch
from mlagents.trainers.torch_entities.model_serialization import exporting_to_onnx


class Swish(nn.Module):
    """x * sigmoid(x) (Ramachandran, Zoph and Le, 2017, "Searching for activation functions")."""

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Return the activation, of the shape of `data`."""
        return nn.functional.silu(data)


class Initialization(Enum):
    """Distributions of initial weights, each multiplied by a gain."""

    Zero = 0
    XavierGlorotNormal = 1
    XavierGlorotUniform = 2
    KaimingHeNormal = 3  # std 1/sqrt(fan_in): the gain of a linear activation
    KaimingHeUniform = 4  # the same standard deviation
    Normal = 5  # std 1


def _kaiming_normal(weight: torch.Tensor) -> torch.Tensor:
    return nn.init.kaiming_normal_(weight, nonlinearity="linear")


def _kaiming_uniform(weight: torch.Tensor) -> torch.Tensor:
    return nn.init.kaiming_uniform_(weight, nonlinearity="linear")


_INITIALIZERS: Dict[Initialization, Callable[[torch.Tensor], torch.Tensor]] = {
    Initialization.Zero: nn.init.zeros_,
    Initialization.XavierGlorotNormal: nn.init.xavier_normal_,
    Initialization.XavierGlorotUniform: nn.init.xavier_uniform_,
    Initialization.KaimingHeNormal: _kaiming_normal,
    Initialization.KaimingHeUniform: _kaiming_uniform,
    Initialization.Normal: nn.init.normal_,
}


def linear_layer(
    input_size: int,
    output_size: int,
    kernel_init: Initialization = Initialization.XavierGlorotUniform,
    kernel_gain: float = 1.0,
    bias_init: Initialization = Initialization.Zero,
) -> nn.Linear:
    """Return a linear layer with initial weights drawn as told.

    :param kernel_gain: what the drawn weights are multiplied by.
    :param bias_init: `Zero` or `Normal`; the others need a matrix.
    """
    layer = nn.Linear(input_size, output_size)
    with torch.no_grad():
        _INITIALIZERS[kernel_init](layer.weight).mul_(kernel_gain)
        _INITIALIZERS[bias_init](layer.bias)
    return layer


def lstm_layer(
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    batch_first: bool = True,
    forget_bias: float = 1.0,
    kernel_init: Initialization = Initialization.XavierGlorotUniform,
    bias_init: Initialization = Initialization.Zero,
) -> nn.LSTM:
    """Return an LSTM whose four gates have initial weights drawn each on its own.

    :param forget_bias: added to the forget gate in both of torch's biases, so that it counts twice. A cell that
        starts by keeping what it holds learns over longer times (Jozefowicz, Zaremba and Sutskever, 2015, "An
        empirical exploration of recurrent network architectures").
    """
    lstm = nn.LSTM(input_size, hidden_size, num_layers, batch_first=batch_first)
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            initialize = _INITIALIZERS[kernel_init if name.startswith("weight") else bias_init]
            _, forget, _, _ = gates = parameter.chunk(4)  # torch's order: input, forget, cell, output
            for gate in gates:
                initialize(gate)
            if name.startswith("bias"):
                forget.add_(forget_bias)
    return lstm


class MemoryModule(nn.Module):
    """A layer that carries a memory from step to step."""

    @property
    @abc.abstractmethod
    def memory_size(self) -> int:
        """The size of one agent's memory (M)."""

    @abc.abstractmethod
    def forward(self, input_tensor: torch.Tensor, memories: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return the output and the new memories.

        :param input_tensor: (S, T, features): S sequences of T steps.
        :param memories: (1, S, M), as they are before the first step.
        """


class LayerNorm(nn.Module):
    """Each row to mean 0 and variance 1, without parameters (Ba, Kiros and Hinton, 2016, equation 4)."""

    def forward(self, layer_activations: torch.Tensor) -> torch.Tensor:
        """Return the rows normalised over the last axis."""
        centred = layer_activations - layer_activations.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True)
        return centred / torch.sqrt(variance + 1e-5)


class LinearEncoder(nn.Module):
    """`num_layers` times linear, then Swish."""

    def __init__(
        self,
        input_size: int,
        num_layers: int,
        hidden_size: int,
        kernel_init: Initialization = Initialization.KaimingHeNormal,
        kernel_gain: float = 1.0,
    ):
        super().__init__()
        self.layers: list[nn.Module] = []
        for size in [input_size] + [hidden_size] * (num_layers - 1):
            self.layers += [linear_layer(size, hidden_size, kernel_init, kernel_gain), Swish()]
        self.seq_layers = nn.Sequential(*self.layers)

    def forward(self, input_tensor: torch.Tensor) -> torch.Tensor:
        """Return (B, hidden_size) for (B, input_size)."""
        encoding = input_tensor
        for layer in self.seq_layers._modules.values():
            # For small networks the bookkeeping of a module's __call__ costs as much as Swish itself.
            encoding = layer.forward(encoding)
        return encoding


class LSTM(MemoryModule):
    """An LSTM (Hochreiter and Schmidhuber, 1997) whose memory is one vector: hidden state, then cell state.

    :param memory_size: M, even: its output has half of it.
    """

    def __init__(
        self,
        input_size: int,
        memory_size: int,
        num_layers: int = 1,
        forget_bias: float = 1.0,
        kernel_init: Initialization = Initialization.XavierGlorotUniform,
        bias_init: Initialization = Initialization.Zero,
    ):
        super().__init__()
        self.hidden_size = memory_size // 2
        self.lstm = lstm_layer(
            input_size, self.hidden_size, num_layers, True, forget_bias, kernel_init=kernel_init, bias_init=bias_init
        )

    @property
    def memory_size(self) -> int:
        """The size of one agent's memory (M)."""
        return 2 * self.hidden_size

    def forward(self, input_tensor: torch.Tensor, memories: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return the output (S, T, M / 2) and the new memories (1, S, M); see `MemoryModule`.

        In an exported model memories are (S, 1, M), since there every tensor has its batch first.
        """
        if exporting_to_onnx.is_exporting():
            memories = memories.transpose(0, 1)
        hidden, cell = memories.narrow(-1, 0, self.hidden_size), memories.narrow(-1, self.hidden_size, self.hidden_size)
        output, (hidden, cell) = self.lstm(input_tensor, (hidden.contiguous(), cell.contiguous()))
        new_memories = torch.cat([hidden, cell], dim=-1)
        if exporting_to_onnx.is_exporting():
            new_memories = new_memories.transpose(0, 1)
        return output, new_memories
