"""Encoders of images (B, C, H, W) to vectors (B, output_size).

The names of modules are those of ML-Agents 1.1.0, so that its checkpoints load.
"""

from __future__ import annotations

import itertools
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple, Union

from mlagents.torch_utils import nn, torch
from mlagents.trainers.settings import EncoderType
from mlagents.trainers.torch_entities.layers import Initialization, Swish, linear_layer

_OUTPUT_GAIN = 1.41
"""Of the initial weights of the last layer: nearly the square root of 2, for what half of a rectifier cuts off."""


def conv_output_shape(
    h_w: Tuple[int, int],
    kernel_size: Union[int, Tuple[int, int]] = 1,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Tuple[int, int]:
    """Return the height and width of what a convolution makes of an image."""
    kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    height, width = ((size + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for size, k in zip(h_w, kernel))
    return height, width


def pool_out_shape(h_w: Tuple[int, int], kernel_size: int) -> Tuple[int, int]:
    """Return the height and width of what max-pooling with stride 2 makes of an image."""
    return conv_output_shape(h_w, kernel_size, stride=2)


class _Convolution(NamedTuple):
    """A convolution without padding."""

    kernel_size: int
    stride: int
    channels: int


class _ConvolutionalEncoder(nn.Module):
    """Convolutions and a linear layer, each with a leaky rectifier."""

    convolutions: Sequence[_Convolution]

    def __init__(self, height: int, width: int, initial_channels: int, output_size: int):
        super().__init__()
        self.h_size = output_size
        h_w, n_channels = (height, width), initial_channels
        layers: List[nn.Module] = []
        for kernel_size, stride, channels in self.convolutions:
            layers += [nn.Conv2d(n_channels, channels, kernel_size, stride), nn.LeakyReLU()]
            h_w, n_channels = conv_output_shape(h_w, kernel_size, stride), channels
        self.final_flat = h_w[0] * h_w[1] * n_channels
        self.conv_layers = nn.Sequential(*layers)
        self.dense = _dense(self.final_flat, output_size)

    def forward(self, visual_obs: torch.Tensor) -> torch.Tensor:
        """Return (B, output_size)."""
        encoding: torch.Tensor = self.dense(self.conv_layers(visual_obs).flatten(1))
        return encoding


def _output_layer(input_size: int, output_size: int) -> nn.Linear:
    return linear_layer(input_size, output_size, Initialization.KaimingHeNormal, _OUTPUT_GAIN)


def _dense(input_size: int, output_size: int) -> nn.Sequential:
    return nn.Sequential(_output_layer(input_size, output_size), nn.LeakyReLU())


class SimpleVisualEncoder(_ConvolutionalEncoder):
    """Two convolutions."""

    convolutions = (_Convolution(8, 4, 16), _Convolution(4, 2, 32))


class NatureVisualEncoder(_ConvolutionalEncoder):
    """Three convolutions (Mnih et al., 2015, "Human-level control through deep reinforcement learning")."""

    convolutions = (_Convolution(8, 4, 32), _Convolution(4, 2, 64), _Convolution(3, 1, 64))


class SmallVisualEncoder(_ConvolutionalEncoder):
    """Two small convolutions, for boards of a few cells (Kim, 2018, "Deep learning for match-3 games")."""

    convolutions = (_Convolution(3, 1, 35), _Convolution(3, 1, 144))


class FullyConnectedVisualEncoder(nn.Module):
    """No convolution."""

    def __init__(self, height: int, width: int, initial_channels: int, output_size: int):
        super().__init__()
        self.output_size = output_size
        self.input_size = height * width * initial_channels
        self.dense = _dense(self.input_size, output_size)

    def forward(self, visual_obs: torch.Tensor) -> torch.Tensor:
        """Return (B, output_size)."""
        encoding: torch.Tensor = self.dense(visual_obs.flatten(1))
        return encoding


class ResNetBlock(nn.Module):
    """x + conv(swish(conv(swish(x))))."""

    def __init__(self, channel: int):
        super().__init__()
        self.layers = nn.Sequential(
            Swish(),
            nn.Conv2d(channel, channel, kernel_size=3, padding=1),
            Swish(),
            nn.Conv2d(channel, channel, kernel_size=3, padding=1),
        )

    def forward(self, input_tensor: torch.Tensor) -> torch.Tensor:
        """Return (B, channel, H, W)."""
        output: torch.Tensor = input_tensor + self.layers(input_tensor)
        return output


class ResNetVisualEncoder(nn.Module):
    """Residual blocks (Espeholt et al., 2018, "IMPALA", figure 3)."""

    n_channels, n_blocks = (16, 32, 32), 2

    def __init__(self, height: int, width: int, initial_channels: int, output_size: int):
        super().__init__()
        h_w = (height, width)
        layers: List[nn.Module] = []
        for before, channel in itertools.pairwise((initial_channels, *self.n_channels)):
            layers += [nn.Conv2d(before, channel, kernel_size=3, padding=1), nn.MaxPool2d(3, stride=2)]
            layers += [ResNetBlock(channel) for _ in range(self.n_blocks)]
            h_w = pool_out_shape(h_w, 3)
        layers.append(Swish())
        self.final_flat_size = h_w[0] * h_w[1] * self.n_channels[-1]
        self.dense = _output_layer(self.final_flat_size, output_size)  # first: the order of checkpoints' keys
        self.sequential = nn.Sequential(*layers)

    def forward(self, visual_obs: torch.Tensor) -> torch.Tensor:
        """Return (B, output_size)."""
        return torch.relu(self.dense(self.sequential(visual_obs).flatten(1)))


class VisualEncoderKind(NamedTuple):
    """What a value of `vis_encode_type` stands for.

    :param make: called with height, width, channels and the size of the output.
    :param min_resolution: the least height and width of an image that it can take.
    """

    make: Callable[[int, int, int, int], nn.Module]
    min_resolution: int


VISUAL_ENCODERS: Dict[EncoderType, VisualEncoderKind] = {
    EncoderType.SIMPLE: VisualEncoderKind(SimpleVisualEncoder, 20),
    EncoderType.NATURE_CNN: VisualEncoderKind(NatureVisualEncoder, 36),
    EncoderType.RESNET: VisualEncoderKind(ResNetVisualEncoder, 15),
    EncoderType.MATCH3: VisualEncoderKind(SmallVisualEncoder, 5),
    EncoderType.FULLY_CONNECTED: VisualEncoderKind(FullyConnectedVisualEncoder, 1),
}
