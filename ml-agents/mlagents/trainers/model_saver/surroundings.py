"""What the files around a checkpoint or a model say of it, where it does not say so itself.

They lie as a run leaves them: ``results/RUN/BEHAVIOR/checkpoint.pt`` with ``results/RUN/configuration.yaml``.
Checkpoints of ML-Agents 1.1.0 say nothing of themselves.
"""

from __future__ import annotations

import glob
import json
from pathlib import Path, PureWindowsPath
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from mlagents.torch_utils import torch
from mlagents.trainers.config_file import load_config_file
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.onnx_file import read_onnx_file
from mlagents.trainers.settings import TrainerSettings
from mlagents.trainers.settings.reader import read_run_options
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    ObservationSpec,
    entities_observation,
    image_observation,
    vector_observation,
)

_ADVICE = "Resuming its run with this version helps too: the checkpoints that it writes then say all of themselves."
_BODY = "network_body"
_FIRST_LAYER = f"{_BODY}._body_endoder.seq_layers.0.weight"


class RecordedCheckpoint(NamedTuple):
    """What ``training_status.json`` says of a checkpoint and its model."""

    behavior_name: str
    step: int
    mean_reward: Optional[float]


def settings_beside(path: Path) -> TrainerSettings:
    """Return the settings of a checkpoint's behaviour, out of its run's ``configuration.yaml``.

    :raises UnityTrainerException: there is none.
    :raises TrainerConfigError: it cannot be read, or has no settings for the behaviour.
    """
    folder = path.resolve().parent
    configuration = folder.parent / "configuration.yaml"
    if not configuration.exists():
        raise UnityTrainerException(
            f"{path} does not say how it was trained, and there is no {configuration} to say so.\n"
            f"Put the one of its run there. {_ADVICE}"
        )
    options, places = load_config_file(str(configuration))
    behaviors = options.get("behaviors")
    own = {folder.name: behaviors[folder.name]} if isinstance(behaviors, dict) and folder.name in behaviors else {}
    wanted = {"default_settings": options.get("default_settings"), "behaviors": own}
    return read_run_options(wanted, places).behaviors[folder.name]


def behavior_spec_beside(path: Path, state: Mapping[str, Any]) -> BehaviorSpec:
    """Return what the agents of a checkpoint of ML-Agents 1.1.0 observe and how they act.

    Actions are read off its tensors; observations off the model beside it, else off its tensors where these leave no
    doubt.

    :param state: what the checkpoint holds.
    :raises UnityTrainerException: that does not tell.
    """
    policy = state.get("Policy")
    policy = policy if isinstance(policy, dict) else {}
    continuous, branches = _sizes(policy, "continuous"), _sizes(policy, "discrete")
    if continuous is None or branches is None:
        raise UnityTrainerException(
            f"{path} does not say what its agents observe and how they act, and it is none of ML-Agents 1.1.0, whose "
            f"tensors tell.\n{_ADVICE}"
        )
    actions = ActionSpec(sum(continuous), branches)
    if any(".hypernet." in key for key in policy):
        raise UnityTrainerException(
            f"{path} has a network that a goal conditions, and nothing tells which observation is the goal.\n{_ADVICE}"
        )
    observations = _observations_of_model(path) or _vectors_in(policy)
    if not observations:
        raise UnityTrainerException(
            f"{path} does not say what its agents observe, and its tensors leave it open.\n"
            f"Put the model of its run beside it, as {path.with_suffix('.onnx').name}. {_ADVICE}"
        )
    return BehaviorSpec(observations, actions)


def _sizes(policy: Mapping[str, Any], kind: str) -> Optional[Tuple[int, ...]]:
    """Return the sizes of actions of a kind, which actors keep among their tensors; None where this one does not."""
    sizes = policy.get(f"{kind}_act_size_vector")
    if not isinstance(sizes, torch.Tensor) or not torch.isfinite(sizes).all():
        return None
    return tuple(map(int, sizes.ravel()))


def _observations_of_model(path: Path) -> List[ObservationSpec]:
    """Return the observations that the model beside a checkpoint takes; none where there is no model."""
    folder = path.resolve().parent
    of_behavior = sorted(folder.glob(f"{glob.escape(folder.name)}-*.onnx"))
    models = [path.with_suffix(".onnx"), folder.with_name(f"{folder.name}.onnx"), *of_behavior]
    model = next((model for model in models if model.exists()), None)
    if model is None:
        return []
    shapes = read_onnx_file(model).observations
    if list(shapes) != [f"obs_{index}" for index in range(len(shapes))]:
        raise UnityTrainerException(
            f"{path} does not say what its agents observe, and its model {model} takes not all of it, but only "
            f"{', '.join(shapes)}.\n{_ADVICE}"
        )
    return [_observation(name, shape) for name, shape in shapes.items()]


def _observation(name: str, shape: Tuple[int, ...]) -> ObservationSpec:
    """Return the only observation of this shape for which ML-Agents 1.1.0 has an encoder, goals aside."""
    if len(shape) == 1:
        return vector_observation(*shape, name)
    if len(shape) == 2:
        return entities_observation(*shape, name)
    if len(shape) == 3:
        return image_observation(*shape, name)
    raise UnityTrainerException(f"The model beside the checkpoint takes {name} of shape {shape}, which no agent has.")


def _vectors_in(policy: Mapping[str, Any]) -> List[ObservationSpec]:
    """Return the vectors that a network sees if it sees nothing else: then all have statistics, of its input's size.

    Without normalisation nothing tells one vector of 8 from two of 4.
    """
    sizes: List[int] = []
    while (mean := policy.get(f"{_BODY}.processors.{len(sizes)}.normalizer.running_mean")) is not None:
        sizes.append(len(mean))
    first_layer = policy.get(_FIRST_LAYER)
    if first_layer is None or first_layer.shape[1] != sum(sizes):
        return []
    return [vector_observation(size, f"obs_{index}") for index, size in enumerate(sizes)]


def recorded_checkpoint(path: Path, step: Optional[int] = None) -> Optional[RecordedCheckpoint]:
    """Return what its run noted of a checkpoint or a model; None where it noted nothing.

    :param step: at which the file was written, where it says so itself.
    """
    folder = path.resolve().parent
    in_run = _status_of(folder, path.stem)  # a final model lies in the run's folder
    entries = [in_run.get("final_checkpoint")] if in_run else []
    behavior_name = path.stem if in_run else folder.name
    noted = _status_of(folder.parent, folder.name)
    for entry in [noted.get("best_checkpoint"), *(noted.get("checkpoints") or [])]:
        if isinstance(entry, dict):
            has_its_name = PureWindowsPath(str(entry.get("file_path"))).stem == path.stem  # it knows / and \
            if has_its_name or (step is not None and entry.get("steps") == step):
                entries.append(entry)
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("steps"), int):
            reward = entry.get("reward")
            return RecordedCheckpoint(behavior_name, entry["steps"], None if reward is None else float(reward))
    return None


def _status_of(run_folder: Path, behavior_name: str) -> Dict[str, Any]:
    """Return what ``training_status.json`` of a run says of a behaviour; nothing where it cannot be read."""
    try:
        status = json.loads((run_folder / "run_logs" / "training_status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    of_behavior = status.get(behavior_name) if isinstance(status, dict) else None
    return of_behavior if isinstance(of_behavior, dict) else {}
