"""`ModelUtils`: the helpers that networks, optimizers and plug-ins share."""

from __future__ import annotations

import itertools
import math
from typing import Any, Callable, List, Optional, Tuple

import numpy as np

from mlagents.torch_utils import default_device, nn, torch
from mlagents.trainers.buffer import AgentBufferField
from mlagents.trainers.settings import EncoderType, ScheduleType
from mlagents.trainers.torch_entities import losses
from mlagents.trainers.torch_entities.attention import EntityEmbedding, ResidualSelfAttention
from mlagents.trainers.torch_entities.encoders import VECTOR_KINDS, VISUAL_KINDS, EncoderRequest, create_encoder
from mlagents.trainers.torch_entities.layers import Initialization, LinearEncoder
from mlagents.trainers.torch_entities.visual_encoders import VISUAL_ENCODERS
from mlagents_envs.base_env import ObservationSpec

_RATE_FACTOR = "lr_factor"
"""In a group of an optimizer's parameters: what their learning rate is multiplied by."""


class ModelUtils:
    """A namespace of functions."""

    VALID_VECTOR_PROP = frozenset(VECTOR_KINDS)
    VALID_VISUAL_PROP = frozenset(VISUAL_KINDS)
    MIN_RESOLUTION_FOR_ENCODER = {kind: encoder.min_resolution for kind, encoder in VISUAL_ENCODERS.items()}

    masked_mean = staticmethod(losses.masked_mean)
    trust_region_value_loss = staticmethod(losses.trust_region_value_loss)
    trust_region_policy_loss = staticmethod(losses.trust_region_policy_loss)

    class DecayedValue:
        """A number that follows a schedule over the steps of training.

        :param min_value: where a linear schedule ends.
        :param max_step: the step at which it gets there.
        """

        def __init__(self, schedule: ScheduleType, initial_value: float, min_value: float, max_step: int):
            self.schedule = schedule
            self.initial_value = initial_value
            self.min_value = min_value
            self.max_step = max_step

        def get_value(self, global_step: int) -> float:
            """Return the value at `global_step`."""
            if self.schedule is ScheduleType.CONSTANT:
                return self.initial_value
            return ModelUtils.polynomial_decay(self.initial_value, self.min_value, self.max_step, global_step)

    @staticmethod
    def polynomial_decay(
        initial_value: float, min_value: float, max_step: int, global_step: int, power: float = 1.0
    ) -> float:
        """Return min + (initial - min) * (1 - t / max_step)^power, with t = `global_step`, at most `max_step`."""
        remaining: float = (1 - min(global_step, max_step) / max_step) ** power
        return min_value + (initial_value - min_value) * remaining

    @staticmethod
    def update_learning_rate(optim: torch.optim.Optimizer, lr: float) -> None:
        """Set the learning rate of all parameters of `optim`, which `scale_learning_rate` may have lowered."""
        for group in optim.param_groups:
            group["lr"] = lr * group.get(_RATE_FACTOR, 1.0)

    @staticmethod
    def scale_learning_rate(optim: torch.optim.Optimizer, factor: float) -> None:
        """Multiply the learning rate of all parameters of `optim` from now on; its state keeps the factor."""
        for group in optim.param_groups:
            before = group.get(_RATE_FACTOR, 1.0)
            group["lr"] *= factor / before
            group[_RATE_FACTOR] = factor

    @staticmethod
    def get_encoder_for_type(encoder_type: EncoderType) -> Callable[[int, int, int, int], nn.Module]:
        """Return what makes an image encoder of a type, from height, width, channels and the size of its output."""
        return VISUAL_ENCODERS[encoder_type].make

    @staticmethod
    def get_encoder_for_obs(
        obs_spec: ObservationSpec,
        normalize: bool,
        h_size: int,
        attention_embedding_size: int,
        vis_encode_type: EncoderType,
    ) -> Tuple[nn.Module, int]:
        """Return the encoder for an observation and the size of its encoding; see `encoders.register_encoder`.

        :raises UnityTrainerException: there is none for this kind of observation.
        """
        return create_encoder(EncoderRequest(obs_spec, normalize, h_size, attention_embedding_size, vis_encode_type))

    @staticmethod
    def create_input_processors(
        observation_specs: List[ObservationSpec],
        h_size: int,
        vis_encode_type: EncoderType,
        attention_embedding_size: int,
        normalize: bool = False,
    ) -> Tuple[nn.ModuleList, List[int]]:
        """Return the encoder of each observation, and the sizes of their encodings.

        :raises UnityTrainerException: there is no encoder for one of them.
        """
        encoders = [
            ModelUtils.get_encoder_for_obs(spec, normalize, h_size, attention_embedding_size, vis_encode_type)
            for spec in observation_specs
        ]
        return nn.ModuleList(encoder for encoder, _ in encoders), [size for _, size in encoders]

    @staticmethod
    def create_residual_self_attention(
        input_processors: nn.ModuleList, embedding_sizes: List[int], hidden_size: int
    ) -> Tuple[Optional[ResidualSelfAttention], Optional[LinearEncoder]]:
        """Return the attention over the entities of all observations, and what encodes the other observations for it.

        :param input_processors: of all observations; those of entities are told to take that encoding.
        :param embedding_sizes: of each observation, 0 for entities.
        :param hidden_size: of embeddings.
        :returns: None for what there is no use for.
        :raises UnityTrainerException: attention has more heads than divide `hidden_size`.
        """
        of_entities = [processor for processor in input_processors if isinstance(processor, EntityEmbedding)]
        if not of_entities:
            return None, None
        attention = ResidualSelfAttention(hidden_size, sum(it.entity_num_max_elements for it in of_entities))
        if not sum(embedding_sizes):
            return attention, None
        gain = math.sqrt(0.125 / hidden_size)
        for processor in of_entities:
            processor.add_self_embedding(hidden_size)
        return attention, LinearEncoder(sum(embedding_sizes), 1, hidden_size, Initialization.Normal, gain)

    @staticmethod
    def list_to_tensor(ndarray_list: Any, dtype: Optional[torch.dtype] = torch.float32) -> torch.Tensor:
        """Return a column as one tensor on the run's device.

        A contiguous array of that type on the CPU is shared, not copied.

        :param ndarray_list: an `AgentBufferField`, an array, or a list of arrays or numbers.
        :param dtype: None keeps the type of the data.
        """
        if isinstance(ndarray_list, AgentBufferField):
            ndarray_list = ndarray_list.to_ndarray()
        array = np.asarray(ndarray_list, order="C")
        if not array.flags.writeable:  # torch knows no read-only tensors
            array = array.copy()
        tensor = torch.from_numpy(array)
        device = default_device()
        if device.type == "cpu" and dtype in (tensor.dtype, None):
            return tensor
        return tensor.to(device=device, dtype=dtype)

    @staticmethod
    def columns_to_tensors(rows: AgentBufferField, dtype: torch.dtype = torch.float32) -> List[torch.Tensor]:
        """Return each column (B,) of rows (B, D) as a tensor; see `list_to_tensor`."""
        array = rows.to_ndarray()
        return list(ModelUtils.list_to_tensor(array, dtype).unbind(dim=-1)) if array.size else []

    @staticmethod
    def list_to_tensor_list(ndarray_list: Any, dtype: Optional[torch.dtype] = torch.float32) -> List[torch.Tensor]:
        """Return each entry of a list of arrays as a tensor; see `list_to_tensor`."""
        return [ModelUtils.list_to_tensor(array, dtype) for array in ndarray_list]

    @staticmethod
    def to_numpy(tensor: torch.Tensor) -> np.ndarray:
        """Return the values of `tensor` as an array; on the CPU they are shared."""
        return tensor.detach().cpu().numpy()

    @staticmethod
    def break_into_branches(concatenated_logits: torch.Tensor, action_size: List[int]) -> List[torch.Tensor]:
        """Return the columns (B, size) of each branch of a (B, sum of sizes) tensor, as views."""
        # Not torch.split: Unity's importer of exported models knows no Split, and narrow becomes Slice.
        starts = itertools.accumulate(action_size, initial=0)
        return [concatenated_logits.narrow(1, start, size) for start, size in zip(starts, action_size)]

    @staticmethod
    def actions_to_onehot(discrete_actions: torch.Tensor, action_size: List[int]) -> List[torch.Tensor]:
        """Return per branch float (B, size), 1 at the chosen index, for indices (B, D)."""
        branches = zip(discrete_actions.long().unbind(dim=1), action_size)
        return [nn.functional.one_hot(chosen, size).float() for chosen, size in branches]

    @staticmethod
    def dynamic_partition(data: torch.Tensor, partitions: torch.Tensor, num_partitions: int) -> List[torch.Tensor]:
        """Return the rows of `data` whose entry in `partitions` (B,) is 0, those where it is 1, and so on."""
        return [data[partitions == index] for index in range(num_partitions)]

    @staticmethod
    @torch.no_grad()
    def soft_update(source: nn.Module, target: nn.Module, tau: float) -> None:
        """Move each parameter of `target` towards that of `source`: tau * source + (1 - tau) * target."""
        for target_parameter, source_parameter in zip(target.parameters(), source.parameters()):
            target_parameter.lerp_(source_parameter, tau)
