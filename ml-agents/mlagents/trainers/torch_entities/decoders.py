"""What turns the encoding of a body into values."""

from __future__ import annotations

from typing import Dict, List

from mlagents.torch_utils import nn, torch
from mlagents.trainers.torch_entities.layers import linear_layer


class ValueHeads(nn.Module):
    """One linear layer per reward stream.

    :param output_size: outputs per stream.
    """

    def __init__(self, stream_names: List[str], input_size: int, output_size: int = 1):
        super().__init__()
        self.stream_names = stream_names
        self.value_heads = nn.ModuleDict({name: linear_layer(input_size, output_size) for name in stream_names})

    def forward(self, hidden: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Return per stream (B,), or (B, output_size) where that is more than one, for (B, input_size)."""
        return {name: head(hidden).squeeze(-1) for name, head in self.value_heads.items()}
