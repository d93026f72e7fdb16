"""The exported model against the network that it was exported from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import numpy as np

from mlagents.testing.report import CheckFailure, CheckSkipped
from mlagents.torch_utils import default_device, torch
from mlagents.trainers.torch_entities.model_serialization import ModelSerializer, TensorNames
from mlagents_envs.base_env import DecisionSteps

TOLERANCE = 1e-5
COMPARED = (
    TensorNames.deterministic_continuous_action_output,
    TensorNames.deterministic_discrete_action_output,
    TensorNames.recurrent_output,
)


def check_exported_model(path: Path, policy: Any, decisions: DecisionSteps) -> None:
    """Let both models decide for some agents, and compare what is the same every time: deterministic actions, memories.

    :param path: the model.
    :param policy: a `TorchPolicy`, as it was when the model was saved.
    :raises CheckFailure: there is no model, or it acts otherwise.
    :raises CheckSkipped: onnxruntime is not installed.
    :raises Exception: what torch's exporter says against the network.
    """
    serializer = ModelSerializer(policy)
    if not path.exists():
        serializer.export_policy_model(str(path))  # a run only warns of what this raises
        raise CheckFailure(f"save_model() left no model at {path.name}, although the policy can be exported.")
    inputs = _inputs(policy, decisions)
    in_onnx = _run_in_onnx(path, inputs)
    in_torch = _run_in_torch(policy, serializer, inputs)
    names = [name for name in COMPARED if name in in_torch]
    if not names:
        raise CheckFailure(f"The model has no deterministic actions; its outputs are {', '.join(in_onnx)}.")
    for name in names:
        distance = np.abs(in_onnx[name].astype(np.float64) - in_torch[name]).max()
        if not distance <= TOLERANCE:
            raise CheckFailure(f"The model's {name} are up to {distance:.2g} from those of actor.forward in torch.")


def _inputs(policy: Any, decisions: DecisionSteps) -> Dict[str, np.ndarray]:
    """Return the inputs of a model for N agents, or with memory for one: (1, 1, M) is how memories are passed."""
    branches = policy.behavior_spec.action_spec.discrete_branches
    allowed = np.ones((len(decisions), sum(branches)), dtype=np.float32)
    if decisions.action_mask is not None:
        allowed -= np.concatenate(decisions.action_mask, axis=1)
    inputs = {TensorNames.get_observation_name(i): values for i, values in enumerate(decisions.obs)}
    inputs[TensorNames.action_mask_placeholder] = allowed
    memory_size = policy.export_memory_size
    if memory_size:
        inputs = {name: values[:1] for name, values in inputs.items()}
    memories = np.linspace(-1.0, 1.0, memory_size, dtype=np.float32)
    inputs[TensorNames.recurrent_in_placeholder] = memories[None, None]
    return inputs


def _run_in_onnx(path: Path, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    try:
        import onnxruntime
    except ImportError:
        raise CheckSkipped("onnxruntime is not installed: pip install onnxruntime.") from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}
    outputs = session.run(None, {name: value for name, value in inputs.items() if name in taken})
    return dict(zip((value.name for value in session.get_outputs()), outputs))


def _run_in_torch(policy: Any, serializer: ModelSerializer, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    *obs, masks, memories = (torch.as_tensor(values, device=default_device()) for values in inputs.values())
    with torch.no_grad():
        outputs = policy.actor(obs, masks, memories)
    return {name: output.cpu().numpy() for name, output in zip(serializer.output_names, outputs)}
