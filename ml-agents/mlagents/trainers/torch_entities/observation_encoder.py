"""From the observations of an agent, of whatever kinds, to one encoding.

Axis letters: B rows. Observations come as a list of (B, *shape).
"""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

from mlagents.torch_utils import nn, torch
from mlagents.trainers.buffer import AgentBuffer
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.settings import EncoderType
from mlagents.trainers.torch_entities.attention import EntityEmbedding, get_zero_entities_mask
from mlagents.trainers.torch_entities.encoders import VectorInput
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.base_env import ObservationSpec, ObservationType


class ObservationEncoder(nn.Module):
    """Encodes each observation by its kind and joins the encodings.

    Entities of all observations together are attended to, each beside what the other observations say; the result comes
    behind the others' encodings.

    :param h_size: hidden units of the network.
    :param normalize: whether vectors are normalised.
    :raises UnityTrainerException: there are no observations, or one is of a kind that networks cannot take.
    """

    ATTENTION_EMBEDDING_SIZE = 128

    def __init__(
        self,
        observation_specs: List[ObservationSpec],
        h_size: int,
        vis_encode_type: EncoderType,
        normalize: bool = False,
    ):
        super().__init__()
        if not observation_specs:
            raise UnityTrainerException("The behavior has no observations: a network needs at least one.")
        self.processors, self.embedding_sizes = ModelUtils.create_input_processors(
            observation_specs, h_size, vis_encode_type, self.ATTENTION_EMBEDDING_SIZE, normalize
        )
        self.rsa, self.x_self_encoder = ModelUtils.create_residual_self_attention(
            self.processors, self.embedding_sizes, self.ATTENTION_EMBEDDING_SIZE
        )
        self.normalize = normalize
        vectors = [processor for processor in self.processors if isinstance(processor, VectorInput)]
        self._normalizers = tuple(vector.normalizer for vector in vectors if vector.normalizer is not None)
        self._is_entities = [isinstance(processor, EntityEmbedding) for processor in self.processors]
        self._goals = [
            index
            for index, spec in enumerate(observation_specs)
            if spec.observation_type is ObservationType.GOAL_SIGNAL
        ]

    @property
    def total_enc_size(self) -> int:
        """The width of the joint encoding."""
        return sum(self.embedding_sizes) + (0 if self.rsa is None else self.ATTENTION_EMBEDDING_SIZE)

    @property
    def total_goal_enc_size(self) -> int:
        """The width of the goals' encoding, 0 where there are none."""
        has_entities = any(self._is_entities[index] for index in self._goals)
        return sum(self.embedding_sizes[index] for index in self._goals) + (
            self.ATTENTION_EMBEDDING_SIZE if has_entities else 0
        )

    @property
    def is_learned(self) -> bool:
        """Whether it has parameters; without, encoders of the same observations and statistics do the same."""
        return any(True for _ in self.parameters())

    @property
    def n_rows_normalized(self) -> int:
        """How many rows the statistics of normalised vectors are of; 0 where nothing is normalised."""
        return int(self._normalizers[0].normalization_steps) if self._normalizers else 0

    def update_normalization(self, buffer: AgentBuffer) -> None:
        """Take the observations of a trajectory into the statistics of normalised vectors."""
        if not self.normalize:
            return
        observations = ObsUtil.from_buffer(buffer, len(self.processors))
        for processor, observation in zip(self.processors, observations):
            if isinstance(processor, VectorInput):
                processor.update_normalization(ModelUtils.list_to_tensor(observation))

    def copy_normalization(self, other_encoder: ObservationEncoder) -> None:
        """Take over the statistics of an encoder of the same observations."""
        for processor, other_processor in zip(self.processors, other_encoder.processors):
            if isinstance(processor, VectorInput) and isinstance(other_processor, VectorInput):
                processor.copy_normalization(other_processor)

    def forward(self, inputs: List[torch.Tensor]) -> torch.Tensor:
        """Return (B, total_enc_size)."""
        return self._join(inputs, self._encode_each(inputs), range(len(inputs)))

    def get_goal_encoding(self, inputs: List[torch.Tensor]) -> torch.Tensor:
        """Return what the observations that are goals say (B, total_goal_enc_size)."""
        return self._join(inputs, self._encode_each(inputs), self._goals)

    def with_goals(self, inputs: List[torch.Tensor]) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return what `forward` and `get_goal_encoding` do, in one pass."""
        encodings = self._encode_each(inputs)
        return self._join(inputs, encodings, range(len(inputs))), self._join(inputs, encodings, self._goals)

    def _encode_each(self, inputs: List[torch.Tensor]) -> List[Optional[torch.Tensor]]:
        """Return the encodings of the observations, None in the places of entities."""
        return [
            None if is_entities else processor(observation)
            for is_entities, processor, observation in zip(self._is_entities, self.processors, inputs)
        ]

    def _join(
        self, inputs: List[torch.Tensor], encodings: List[Optional[torch.Tensor]], indices: Sequence[int]
    ) -> torch.Tensor:
        """Join the encodings of some of the observations; those of all are what their entities are seen beside."""
        parts = [encoding for encoding in (encodings[index] for index in indices) if encoding is not None]
        entities = [index for index in indices if self._is_entities[index]]
        if entities:
            parts.append(self._attend(inputs, encodings, entities))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _attend(
        self, inputs: List[torch.Tensor], encodings: List[Optional[torch.Tensor]], entities: List[int]
    ) -> torch.Tensor:
        """Return what attention makes of the entities of some of the observations (B, ATTENTION_EMBEDDING_SIZE)."""
        assert self.rsa is not None
        x_self = None
        if self.x_self_encoder is not None:
            x_self = self.x_self_encoder(torch.cat([it for it in encodings if it is not None], dim=1))
        rows = [inputs[index] for index in entities]
        embedded = [self.processors[index](x_self, inputs[index]) for index in entities]
        joined = embedded[0] if len(embedded) == 1 else torch.cat(embedded, dim=1)
        attended: torch.Tensor = self.rsa(joined, get_zero_entities_mask(rows))
        return attended
