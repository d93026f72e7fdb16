"""Export of actors as ONNX models that Unity's inference engine reads."""

from __future__ import annotations

import inspect
import warnings
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Tuple

from mlagents.torch_utils import default_device, nn, torch
from mlagents.trainers.files import atomic_path
from mlagents.trainers.settings import SerializationSettings
from mlagents_envs.logging_util import get_logger

if TYPE_CHECKING:
    from mlagents.trainers.policy.torch_policy import TorchPolicy

logger = get_logger(__name__)

_exporting: ContextVar[bool] = ContextVar("exporting_to_onnx", default=False)


class exporting_to_onnx:
    """A context in which `is_exporting()` is true: for networks that must compute otherwise when exported."""

    def __enter__(self) -> None:
        self._token: Token[bool] = _exporting.set(True)

    def __exit__(self, *_: object) -> None:
        _exporting.reset(self._token)

    @staticmethod
    def is_exporting() -> bool:
        """Return whether a model is being exported in this thread."""
        return _exporting.get()


class TensorNames:
    """Names of the inputs and outputs of exported models, those of old formats included."""

    batch_size_placeholder = "batch_size"
    sequence_length_placeholder = "sequence_length"
    vector_observation_placeholder = "vector_observation"
    recurrent_in_placeholder = "recurrent_in"
    visual_observation_placeholder_prefix = "visual_observation_"
    observation_placeholder_prefix = "obs_"
    previous_action_placeholder = "prev_action"
    action_mask_placeholder = "action_masks"
    random_normal_epsilon_placeholder = "epsilon"

    value_estimate_output = "value_estimate"
    recurrent_output = "recurrent_out"
    memory_size = "memory_size"
    version_number = "version_number"
    continuous_action_output_shape = "continuous_action_output_shape"
    discrete_action_output_shape = "discrete_action_output_shape"
    continuous_action_output = "continuous_actions"
    discrete_action_output = "discrete_actions"
    deterministic_continuous_action_output = "deterministic_continuous_actions"
    deterministic_discrete_action_output = "deterministic_discrete_actions"

    is_continuous_control_deprecated = "is_continuous_control"
    action_output_deprecated = "action"
    action_output_shape_deprecated = "action_output_shape"

    @staticmethod
    def get_visual_observation_name(index: int) -> str:
        """Return the name that image `index` had before observations were numbered together."""
        return f"{TensorNames.visual_observation_placeholder_prefix}{index}"

    @staticmethod
    def get_observation_name(index: int) -> str:
        """Return the name of observation `index`."""
        return f"{TensorNames.observation_placeholder_prefix}{index}"


# Outputs without a batch axis.
_CONSTANT_OUTPUTS = frozenset(
    {
        TensorNames.version_number,
        TensorNames.memory_size,
        TensorNames.continuous_action_output_shape,
        TensorNames.discrete_action_output_shape,
    }
)


class ModelSerializer:
    """Exports the actor of a policy.

    The policy gives `actor`, `behavior_spec` and `export_memory_size`; they are read at each export.
    """

    def __init__(self, policy: TorchPolicy):
        self.policy = policy

    @property
    def input_names(self) -> List[str]:
        """Names of all that the actor's `forward` takes; what it does not use is not in the exported model."""
        n_observations = len(self.policy.behavior_spec.observation_specs)
        return [
            *map(TensorNames.get_observation_name, range(n_observations)),
            TensorNames.action_mask_placeholder,
            TensorNames.recurrent_in_placeholder,
        ]

    @property
    def output_names(self) -> List[str]:
        """Names of what the actor's `forward` returns, in order."""
        action_spec = self.policy.behavior_spec.action_spec
        names = [TensorNames.version_number, TensorNames.memory_size]
        if action_spec.continuous_size > 0:
            names += [
                TensorNames.continuous_action_output,
                TensorNames.continuous_action_output_shape,
                TensorNames.deterministic_continuous_action_output,
            ]
        if action_spec.discrete_size > 0:
            names += [
                TensorNames.discrete_action_output,
                TensorNames.discrete_action_output_shape,
                TensorNames.deterministic_discrete_action_output,
            ]
        if self.policy.export_memory_size > 0:
            names.append(TensorNames.recurrent_output)
        return names

    @property
    def dynamic_axes(self) -> Dict[str, Dict[int, str]]:
        """The axes that may have any size: the first of all but constants."""
        names = [*self.input_names, *self.output_names]
        return {name: {0: "batch"} for name in names if name not in _CONSTANT_OUTPUTS}

    @property
    def dummy_input(self) -> Tuple[List[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Observations, masks and memories of one agent, on the device of the actor."""
        spec = self.policy.behavior_spec
        device = next((tensor.device for tensor in self.policy.actor.parameters()), default_device())
        observations = [torch.zeros(1, *observation.shape, device=device) for observation in spec.observation_specs]
        masks = torch.ones(1, sum(spec.action_spec.discrete_branches), device=device)
        memories = torch.zeros(1, 1, self.policy.export_memory_size, device=device)
        return observations, masks, memories

    def export_policy_model(self, output_filepath: str) -> None:
        """Write the model; the file is there whole or not at all, and the policy is left as it was.

        :param output_filepath: where to; ".onnx" is added where it is missing.
        :raises Exception: whatever keeps torch from exporting the actor, or the file from being written.
        """
        path = output_filepath if output_filepath.endswith(".onnx") else f"{output_filepath}.onnx"
        # torch 2.4 has only the exporter that later ones call `dynamo=False`; the other one needs more packages.
        exporter: Dict[str, Any] = {}
        if "dynamo" in inspect.signature(torch.onnx.export).parameters:
            exporter["dynamo"] = False
        with (
            atomic_path(path) as temporary,
            _evaluating(self.policy.actor),
            _random_state_kept(),
            _quiet(),
            exporting_to_onnx(),
            torch.no_grad(),
        ):
            torch.onnx.export(
                self.policy.actor,
                self.dummy_input,
                temporary,
                opset_version=SerializationSettings.onnx_opset,
                input_names=self.input_names,
                output_names=self.output_names,
                dynamic_axes=self.dynamic_axes,
                **exporter,
            )
        logger.info(f"Exported {path}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's warnings, which are about its own exporters, from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put `module` in evaluation mode, and each of its parts back into its own mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Undo what tracing a model that samples does to the random numbers of the run."""
    device = default_device()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
