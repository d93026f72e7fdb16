"""What stands between an observation and the body of a network, and which kind of observation gets which."""

from __future__ import annotations

from typing import Any, Callable, Dict, NamedTuple, Tuple

from mlagents.torch_utils import nn, torch
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.settings import EncoderType
from mlagents.trainers.torch_entities.attention import EntityEmbedding
from mlagents.trainers.torch_entities.visual_encoders import (
    VISUAL_ENCODERS,
    FullyConnectedVisualEncoder,
    NatureVisualEncoder,
    ResNetBlock,
    ResNetVisualEncoder,
    SimpleVisualEncoder,
    SmallVisualEncoder,
    conv_output_shape,
    pool_out_shape,
)
from mlagents_envs.base_env import DimensionProperty, ObservationSpec

__all__ = [
    "ENTITIES_KIND",
    "VECTOR_KINDS",
    "VISUAL_KINDS",
    "EncoderRequest",
    "FullyConnectedVisualEncoder",
    "NatureVisualEncoder",
    "Normalizer",
    "ResNetBlock",
    "ResNetVisualEncoder",
    "SimpleVisualEncoder",
    "SmallVisualEncoder",
    "VectorInput",
    "conv_output_shape",
    "create_encoder",
    "pool_out_shape",
    "register_encoder",
]


class Normalizer(nn.Module):
    """Centres and scales vectors by running statistics of all that was ever fed to `update`.

    The statistics are exact: however rows are split into batches, mean and sum of squared deviations come out the
    same (Chan, Golub and LeVeque, 1983, "Algorithms for computing the sample variance"). They start as if one
    row of mean 0 and variance 1 had been seen.

    :ivar normalization_steps: int64 (), rows seen, plus one.
    :ivar running_mean: (size,).
    :ivar running_variance: (size,), a running *sum* of squared deviations: divide by the steps for a variance.
    """

    normalization_steps: torch.Tensor
    running_mean: torch.Tensor
    running_variance: torch.Tensor
    _deviation: torch.Tensor

    def __init__(self, vec_obs_size: int):
        super().__init__()
        self.register_buffer("normalization_steps", torch.tensor(1))
        self.register_buffer("running_mean", torch.zeros(vec_obs_size))
        self.register_buffer("running_variance", torch.ones(vec_obs_size))
        # sqrt(running_variance / normalization_steps), kept since forwards are many and updates few.
        self.register_buffer("_deviation", torch.ones(vec_obs_size), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (B, size) normalised, and clipped to [-5, 5]."""
        return torch.clamp((inputs - self.running_mean) / self._deviation, -5.0, 5.0)

    @torch.no_grad()
    def update(self, vector_input: torch.Tensor) -> None:
        """Take (B, size) into the statistics."""
        self.normalization_steps.add_(len(vector_input))
        n_steps = int(self.normalization_steps)
        mean, variance, rows = self.running_mean, self.running_variance, vector_input
        if mean.is_cpu and rows.is_cpu:  # the same on the same memory, where calls take a fraction of the time
            mean, variance, rows = (it.numpy() for it in (mean, variance, rows))  # type: ignore[assignment]
        from_old_mean = rows - mean
        mean += (from_old_mean / n_steps).sum(0)
        variance += (from_old_mean * (rows - mean)).sum(0)
        self._refresh()

    @torch.no_grad()
    def copy_from(self, other_normalizer: Normalizer) -> None:
        """Take over the statistics of another one of the same size."""
        self.normalization_steps.copy_(other_normalizer.normalization_steps)
        self.running_mean.copy_(other_normalizer.running_mean)
        self.running_variance.copy_(other_normalizer.running_variance)
        self._refresh()

    def _refresh(self) -> None:
        torch.sqrt(self.running_variance / self.normalization_steps, out=self._deviation)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._refresh()


class VectorInput(nn.Module):
    """A vector observation as it is, or normalised."""

    def __init__(self, input_size: int, normalize: bool = False):
        super().__init__()
        self.normalizer = Normalizer(input_size) if normalize else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (B, input_size)."""
        if self.normalizer is None:
            return inputs
        return self.normalizer.forward(inputs)

    def copy_normalization(self, other_input: VectorInput) -> None:
        """Take over the statistics of `other_input`, where both normalise."""
        if self.normalizer is not None and other_input.normalizer is not None:
            self.normalizer.copy_from(other_input.normalizer)

    def update_normalization(self, inputs: torch.Tensor) -> None:
        """Take (B, input_size) into the statistics, if there are any."""
        if self.normalizer is not None:
            self.normalizer.update(inputs)


class EncoderRequest(NamedTuple):
    """What an encoder is made from.

    :param h_size: hidden units of the network, the width of an encoded image.
    :param attention_embedding_size: the width of an encoded entity.
    """

    observation_spec: ObservationSpec
    normalize: bool
    h_size: int
    attention_embedding_size: int
    vis_encode_type: EncoderType


EncoderFactory = Callable[[EncoderRequest], Tuple[nn.Module, int]]
DimensionProperties = Tuple[DimensionProperty, ...]

_factories: Dict[DimensionProperties, EncoderFactory] = {}


def register_encoder(*kinds: DimensionProperties) -> Callable[[EncoderFactory], EncoderFactory]:
    """Decorate the function that makes encoders for observations whose dimensions have one of these properties.

    It returns the encoder, a module from (B, *shape) to (B, size), and that size. A later registration replaces an
    earlier one.
    """

    def register(factory: EncoderFactory) -> EncoderFactory:
        _factories.update(dict.fromkeys(kinds, factory))
        return factory

    return register


def create_encoder(request: EncoderRequest) -> Tuple[nn.Module, int]:
    """Return the encoder for an observation and the size of its encoding.

    :raises UnityTrainerException: no encoder is registered for this kind of observation.
    """
    spec = request.observation_spec
    factory = _factories.get(tuple(spec.dimension_property))
    if factory is None:
        raise UnityTrainerException(
            f"Observation '{spec.name}' of shape {spec.shape} has dimensions with the properties "
            f"{_describe(spec.dimension_property)}; networks have no encoder for this kind of observation. They take "
            f"{', '.join(map(_describe, _factories))}: vectors, images and entities of variable number."
        )
    return factory(request)


def _describe(kind: DimensionProperties) -> str:
    return f"({', '.join(dimension.name or str(int(dimension)) for dimension in kind)})"


VECTOR_KINDS: Tuple[DimensionProperties, ...] = ((DimensionProperty.NONE,), (DimensionProperty.UNSPECIFIED,))


@register_encoder(*VECTOR_KINDS)
def _create_vector_input(request: EncoderRequest) -> Tuple[nn.Module, int]:
    (size,) = request.observation_spec.shape
    return VectorInput(size, request.normalize), size


VISUAL_KINDS: Tuple[DimensionProperties, ...] = (
    (
        DimensionProperty.NONE,
        DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
        DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
    ),
    (DimensionProperty.UNSPECIFIED,) * 3,
)


@register_encoder(*VISUAL_KINDS)
def _create_visual_encoder(request: EncoderRequest) -> Tuple[nn.Module, int]:
    spec, encoder_type = request.observation_spec, request.vis_encode_type
    n_channels, height, width = spec.shape
    kind = VISUAL_ENCODERS[encoder_type]
    if min(height, width) < kind.min_resolution:
        fitting = [other.value for other, it in VISUAL_ENCODERS.items() if min(height, width) >= it.min_resolution]
        raise UnityTrainerException(
            f"Observation '{spec.name}' is an image of height {height} and width {width}, and the encoder "
            f"{encoder_type.value} takes none below {kind.min_resolution}. Choose another vis_encode_type: "
            f"{', '.join(fitting)}."
        )
    return kind.make(height, width, n_channels, request.h_size), request.h_size


ENTITIES_KIND: DimensionProperties = (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE)


@register_encoder(ENTITIES_KIND)
def _create_entity_embedding(request: EncoderRequest) -> Tuple[nn.Module, int]:
    """Return what embeds each entity; it has no width of its own, since the entities are joined by attention."""
    n_entities, size = request.observation_spec.shape
    return EntityEmbedding(size, n_entities, request.attention_embedding_size), 0
