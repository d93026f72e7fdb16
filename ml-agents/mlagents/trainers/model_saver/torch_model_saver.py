"""Checkpoints of torch modules: ``torch.save`` of {name: state dict}, and the model as ONNX beside it."""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict, List, Optional, Tuple, Union

from mlagents.torch_utils import default_device, torch
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.files import atomic_path
from mlagents.trainers.model_saver.model_saver import BaseModelSaver
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import SerializationSettings, TrainerSettings
from mlagents.trainers.torch_entities.model_serialization import ModelSerializer
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

DEFAULT_CHECKPOINT_NAME = "checkpoint.pt"

_EXECUTION_OPTIONS = ("foreach", "fused", "capturable", "differentiable")
"""Options of a torch optimizer that say how a step is computed, not what it is: this run's own, never the file's."""


class TorchModelSaver(BaseModelSaver):
    """Saves what policies and optimizers register.

    :param trainer_settings: for `init_path`, a checkpoint to start from.
    :param model_path: the behaviour's folder.
    :param load: whether to go on from the folder's newest state.
    """

    def __init__(self, trainer_settings: TrainerSettings, model_path: str, load: bool = False):
        super().__init__()
        self.model_path = model_path
        self.initialize_path = trainer_settings.init_path
        self.load = load
        self.policy: Optional[TorchPolicy] = None
        self.exporter: Optional[ModelSerializer] = None
        self.modules: Dict[str, Any] = {}

    def register(self, module: Union[TorchPolicy, TorchOptimizer]) -> None:
        """Add what `module.get_modules()` names to the state."""
        self.modules.update(module.get_modules())
        if self.policy is None and isinstance(module, TorchPolicy):
            self.policy = module
            self.exporter = ModelSerializer(module)

    def save_checkpoint(self, behavior_name: str, step: int) -> Tuple[str, List[str]]:
        """Write ``<behaviour>-<step>.pt`` and ``.onnx``, and the state again as the newest one.

        :returns: the path of the model and the other paths; without an export, that of the state.
        :raises UnityTrainerException: a parameter is not finite: what is on the disk stays as it is.
        """
        state = {name: module.state_dict() for name, module in self.modules.items()}
        self._check_finite(behavior_name, state)
        checkpoint_path = os.path.join(self.model_path, f"{behavior_name}-{step}")
        state_path = f"{checkpoint_path}.pt"
        with atomic_path(state_path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)  # given a path, torch would put the temporary name into the file
        with atomic_path(os.path.join(self.model_path, DEFAULT_CHECKPOINT_NAME)) as temporary:
            shutil.copyfile(state_path, temporary)
        self.export(checkpoint_path, behavior_name)
        model_path = f"{checkpoint_path}.onnx"
        if os.path.exists(model_path):
            return model_path, [state_path]
        return state_path, []

    def _check_finite(self, behavior_name: str, state: Dict[str, Any]) -> None:
        for name, module in self.modules.items():
            if not isinstance(module, torch.nn.Module):
                continue
            for key, tensor in state[name].items():
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise UnityTrainerException(
                        f"The state of behavior {behavior_name} was not saved: {name}, {key} is not finite. "
                        f"What was saved before is in {self.model_path}."
                    )

    def export(self, output_filepath: str, behavior_name: str) -> None:
        """Write ``output_filepath.onnx``; a failure is a warning, since the state holds all that is needed for it."""
        if self.exporter is None or not SerializationSettings.convert_to_onnx:
            return
        try:
            self.exporter.export_policy_model(output_filepath)
        except Exception as error:  # whatever a plug-in's network or torch's exporter raises, training goes on
            logger.warning(
                f"The model of behavior {behavior_name} could not be exported to {output_filepath}.onnx: "
                f"{type(error).__name__}: {error}. Its training state was saved and can be exported later."
            )

    def initialize_or_load(self, policy: Optional[TorchPolicy] = None) -> None:
        """Read the newest state of this run when it resumes, else the one that the run starts from, if any.

        :raises UnityTrainerException: there is no such file, or what is in it does not fit.
        """
        if self.load:
            self._load(os.path.join(self.model_path, DEFAULT_CHECKPOINT_NAME), reset_steps=False)
        elif self.initialize_path is not None:
            self._load(self.initialize_path, reset_steps=True)

    def _load(self, path: str, reset_steps: bool) -> None:
        if os.path.isdir(path):
            path = os.path.join(path, DEFAULT_CHECKPOINT_NAME)
        state = _read_state(path)
        differences = _differences(self.modules, state)
        if differences:
            shown = "\n  ".join(differences[:20] + ["..."] * (len(differences) > 20))
            raise UnityTrainerException(
                f"{path} does not fit this run, and nothing of it was loaded:\n  {shown}\n"
                f"Use the settings that it was trained with, or start anew with another --run-id."
            )
        for name, module in self.modules.items():
            if name not in state:
                logger.warning(f"{path} does not hold {name}. {module.may_be_missing}")
                continue
            module.load_state_dict(state[name])
            if isinstance(module, torch.optim.Optimizer):
                for group in module.param_groups:
                    group.update({key: module.defaults[key] for key in _EXECUTION_OPTIONS if key in module.defaults})
        assert self.policy is not None
        if reset_steps:
            self.policy.set_step(0)
            logger.info(f"Starting training from step 0, initialized from {path}.")
        else:
            logger.info(f"Resuming from step {self.policy.get_current_step()} of {path}.")

    def copy_final_model(self, source_nn_path: str) -> None:
        """Copy the exported model beside the behaviour's folder, where users look for it."""
        if source_nn_path.endswith(".onnx"):
            with atomic_path(f"{self.model_path}.onnx") as temporary:
                shutil.copyfile(source_nn_path, temporary)


def _read_state(path: str) -> Dict[str, Any]:
    """Read a checkpoint, nothing but tensors and plain containers."""
    try:
        state = torch.load(path, map_location=default_device(), weights_only=True)
    except FileNotFoundError:
        raise UnityTrainerException(f"There is no checkpoint at {path}.") from None
    except Exception as error:  # on a damaged file torch raises almost anything
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UnityTrainerException(f"{path} could not be read as a checkpoint: {reason}") from error
    if not isinstance(state, dict):
        raise UnityTrainerException(f"{path} is no checkpoint: it holds a {type(state).__name__}, not a dictionary.")
    return state


def _differences(modules: Dict[str, Any], state: Dict[str, Any]) -> List[str]:
    """Say what stands between `state` and `modules`, a line each."""
    missing = [name for name in modules if name not in state]
    lines = [f"{name}: not in the file" for name in missing if not hasattr(modules[name], "may_be_missing")]
    lines += [f"{name}: in the file, but not in this run" for name in state if name not in modules]
    for name, module in modules.items():
        if name not in state:
            continue
        if not isinstance(state[name], dict):
            lines.append(f"{name}: a {type(state[name]).__name__} in the file, not a dictionary")
        elif isinstance(module, torch.optim.Optimizer):
            lines += _optimizer_differences(name, module, state[name])
        else:
            lines += _tensor_differences(name, module.state_dict(), state[name])
    return lines


def _tensor_differences(name: str, here: Dict[str, Any], there: Dict[str, Any]) -> List[str]:
    lines = [f"{name}, {key}: not in the file" for key in here if key not in there]
    lines += [f"{name}, {key}: in the file, but not in this run" for key in there if key not in here]
    for key, tensor in here.items():
        if key in there and isinstance(tensor, torch.Tensor) and tensor.shape != there[key].shape:
            lines.append(f"{name}, {key}: {tuple(tensor.shape)} here, {tuple(there[key].shape)} in the file")
    return lines


def _optimizer_differences(name: str, optimizer: torch.optim.Optimizer, there: Dict[str, Any]) -> List[str]:
    """Compare what a torch optimizer keeps per parameter with the parameters it would be kept for."""
    if not {"state", "param_groups"} <= there.keys():
        return [f"{name}: in the file it is not the state of an optimizer"]
    groups_here = [len(group["params"]) for group in optimizer.param_groups]
    groups_there = [len(group["params"]) for group in there["param_groups"]]
    if groups_here != groups_there:
        return [f"{name}: {groups_here} parameters here, {groups_there} in the file"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    lines = []
    for index, kept in there["state"].items():
        for key, value in kept.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameters[index].shape:
                lines.append(
                    f"{name}, {key} of parameter {index}: {tuple(parameters[index].shape)} here, "
                    f"{tuple(value.shape)} in the file"
                )
    return lines
