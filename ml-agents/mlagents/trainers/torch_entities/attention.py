"""Attention over entities: observations of variable number, such as what an agent sees around it.

A row of an entity observation that is zero throughout is padding, and nothing else is: an environment with an entity
that may be all zero adds a feature that says "present".

Axis letters: B rows, n entities (padding included), E size of an embedding.
"""

from __future__ import annotations

import math
from typing import List, Optional, Tuple

from mlagents.torch_utils import nn, torch
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.torch_entities.layers import Initialization, LayerNorm, LinearEncoder, linear_layer


def get_zero_entities_mask(entities: List[torch.Tensor]) -> List[torch.Tensor]:
    """Return for entity observations (B, n, size) which rows are padding: float (B, n), 1 = padding.

    The comparisons are such that exported models may hold them; squares would make zeros of small values.
    """
    return [((rows < 0).float() + (-rows < 0).float()).sum(dim=2).lt(0.5).float() for rows in entities]


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in several heads (Vaswani et al., 2017, "Attention is all you need", 3.2).

    Differences are divided by the root of the whole embedding's size rather than of a head's: trained models of
    ML-Agents 1.1.0 depend on it.

    :raises UnityTrainerException: the heads do not divide the embedding.
    """

    NEG_INF = -1e6

    def __init__(self, embedding_size: int, num_heads: int):
        super().__init__()
        if embedding_size % num_heads:
            raise UnityTrainerException(
                f"Attention with an embedding of {embedding_size} cannot have {num_heads} heads: choose a multiple of "
                f"{num_heads} for the embedding."
            )
        self.n_heads = num_heads
        self.head_size = embedding_size // num_heads
        self.embedding_size = embedding_size

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        n_q: int,
        n_k: int,
        key_mask: Optional[torch.Tensor] = None,
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return the attended values (B, n_q, E), and the weights (B, heads, n_q, n_k).

        :param query: (B, n_q, E).
        :param key: (B, n_k, E); `value` likewise.
        :param key_mask: (B, n_k), 1 = leave this key out; None leaves none out.
        """
        heads = self.n_heads, self.head_size
        query = query.reshape(-1, n_q, *heads).transpose(1, 2)
        key = key.reshape(-1, n_k, *heads).permute(0, 2, 3, 1)
        value = value.reshape(-1, n_k, *heads).transpose(1, 2)
        scores = torch.matmul(query, key) / math.sqrt(self.embedding_size)
        if key_mask is not None:
            left_out = key_mask.reshape(-1, 1, 1, n_k)
            scores = (1 - left_out) * scores + left_out * self.NEG_INF
        weights = torch.softmax(scores, dim=3)
        attended = torch.matmul(weights, value).transpose(1, 2)
        return attended.reshape(-1, n_q, self.embedding_size), weights


class EntityEmbedding(nn.Module):
    """Embeds each entity, on request together with what else the agent sees.

    :param entity_num_max_elements: how many rows the observation has; None where that is not fixed.
    """

    def __init__(self, entity_size: int, entity_num_max_elements: Optional[int], embedding_size: int):
        super().__init__()
        self.self_size = 0
        self.entity_size = entity_size
        self.entity_num_max_elements = -1 if entity_num_max_elements is None else entity_num_max_elements
        self.embedding_size = embedding_size
        self.self_ent_encoder = self._make_encoder()

    def add_self_embedding(self, size: int) -> None:
        """Let `forward` take an encoding of that size of what else the agent sees; the weights are drawn anew."""
        self.self_size = size
        self.self_ent_encoder = self._make_encoder()

    def _make_encoder(self) -> LinearEncoder:
        input_size = self.self_size + self.entity_size
        return LinearEncoder(input_size, 1, self.embedding_size, Initialization.Normal, _gain(self.embedding_size))

    def forward(self, x_self: Optional[torch.Tensor], entities: torch.Tensor) -> torch.Tensor:
        """Return (B, n, E).

        :param x_self: (B, size), only after `add_self_embedding`.
        :param entities: (B, n, entity_size).
        """
        if not self.self_size:
            return self.self_ent_encoder(entities)  # type: ignore[no-any-return]
        assert x_self is not None
        linear, activation = self.self_ent_encoder.seq_layers
        assert isinstance(linear, nn.Linear)
        # One product for what is the same for all entities of a row, instead of one with each of them.
        of_self = nn.functional.linear(x_self, linear.weight.narrow(1, 0, self.self_size), linear.bias)
        of_entities = nn.functional.linear(entities, linear.weight.narrow(1, self.self_size, self.entity_size))
        return activation(of_entities + of_self.unsqueeze(1))  # type: ignore[no-any-return]


class ResidualSelfAttention(nn.Module):
    """Lets embedded entities attend to each other, and averages what comes of it.

    As in Baker et al. (2019), "Emergent tool use from multi-agent autocurricula", appendix B.

    :param entity_num_max_elements: entities of all observations together, for plug-ins to read.
    :raises UnityTrainerException: the heads do not divide the embedding.
    """

    EPSILON = 1e-7

    def __init__(self, embedding_size: int, entity_num_max_elements: Optional[int] = None, num_heads: int = 4):
        super().__init__()
        self.max_num_ent = entity_num_max_elements
        self.attention = MultiHeadAttention(embedding_size, num_heads)
        layers = [
            linear_layer(embedding_size, embedding_size, Initialization.Normal, _gain(embedding_size)) for _ in range(4)
        ]
        self.fc_q, self.fc_k, self.fc_v, self.fc_out = layers
        self.embedding_norm = LayerNorm()
        self.residual_norm = LayerNorm()

    def forward(self, inp: torch.Tensor, key_masks: List[torch.Tensor]) -> torch.Tensor:
        """Return (B, E); zeros where all is padding.

        :param inp: (B, n, E).
        :param key_masks: (B, n_i) each, n in all, 1 = padding.
        """
        mask = key_masks[0] if len(key_masks) == 1 else torch.cat(key_masks, dim=1)
        embedded = self.embedding_norm(inp)
        n_entities = int(embedded.shape[1])  # of an exported model the same for good
        attended, _ = self.attention(
            self.fc_q(embedded), self.fc_k(embedded), self.fc_v(embedded), n_entities, n_entities, mask
        )
        output = self.residual_norm(self.fc_out(attended) + embedded)
        present = 1 - mask
        total: torch.Tensor = (output * present.unsqueeze(2)).sum(dim=1)
        return total / (present.sum(dim=1, keepdim=True) + self.EPSILON)


def _gain(embedding_size: int) -> float:
    return math.sqrt(0.125 / embedding_size)
