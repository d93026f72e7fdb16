"""Reading exported models: what an ``.onnx`` file says of the agent that it decides for."""

from __future__ import annotations

import os
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.torch_entities.model_serialization import TensorNames


class OnnxFileError(UnityTrainerException):
    """A model is missing, damaged, or not one of an agent."""


class OnnxModel(NamedTuple):
    """The model of an agent.

    :param producer: what wrote it, with its version.
    :param observations: name to shape, in the order of the agent's observations; what the model does not use is not
        among them.
    :param tensors: weights and other constants, by name.
    """

    producer: str
    opset: int
    observations: Dict[str, Tuple[int, ...]]
    continuous_size: int
    discrete_branches: Tuple[int, ...]
    memory_size: int
    tensors: Dict[str, np.ndarray]


def read_onnx_file(path: str | os.PathLike[str]) -> OnnxModel:
    """Read a model, of this version or of ML-Agents 1.1.0.

    :raises OnnxFileError: there is none, it is damaged, or it is not one of an agent.
    """
    graph, model = _Graph.load(path)
    if graph.sizes(TensorNames.version_number) is None:
        raise OnnxFileError(f"{path} is a model in ONNX, but not one of an agent: it gives no version_number.")
    return OnnxModel(
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        opset=next((it.version for it in model.opset_import if it.domain in ("", "ai.onnx")), 0),
        observations=graph.observations(),
        continuous_size=sum(graph.sizes(TensorNames.continuous_action_output_shape) or ()),
        discrete_branches=graph.sizes(TensorNames.discrete_action_output_shape) or (),
        memory_size=sum(graph.sizes(TensorNames.memory_size) or ()),
        tensors=graph.tensors,
    )


class _Graph:
    """The graph of a model, with its constants by name."""

    def __init__(self, graph: onnx.GraphProto):
        self.tensors: Dict[str, np.ndarray] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self._inputs = [value for value in graph.input if value.name not in self.tensors]
        self._node_of = {name: node for node in graph.node for name in node.output}
        for name, node in self._node_of.items():
            values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
            if node.op_type == "Constant" and values:
                self.tensors[name] = numpy_helper.to_array(values[0])

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Tuple[_Graph, onnx.ModelProto]:
        """Read a file, and none of those that it may refer to."""
        try:
            model = onnx.load(os.fspath(path), load_external_data=False)
            onnx.checker.check_model(model)
            return _Graph(model.graph), model
        except FileNotFoundError:
            raise OnnxFileError(f"There is no model at {path}.") from None
        except OSError as error:
            raise OnnxFileError(f"{path} could not be read as a model: {error.strerror}.") from error
        except (DecodeError, onnx.checker.ValidationError, ValueError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise OnnxFileError(f"{path} is damaged, or no model in ONNX: {reason}") from error

    def sizes(self, name: str) -> Optional[Tuple[int, ...]]:
        """Return the numbers of an output that is the same for all inputs; None where there is none of that name."""
        while name not in self.tensors:
            node = self._node_of.get(name)
            if node is None or node.op_type != "Identity":
                return None
            (name,) = node.input
        values = self.tensors[name].ravel()
        return tuple(map(int, values)) if np.isfinite(values).all() else None

    def observations(self) -> Dict[str, Tuple[int, ...]]:
        """Return the shapes of the observations, without the batch axis."""
        prefix = TensorNames.observation_placeholder_prefix
        indices: List[Tuple[int, onnx.ValueInfoProto]] = [
            (int(value.name[len(prefix) :]), value)
            for value in self._inputs
            if value.name.startswith(prefix) and value.name[len(prefix) :].isdecimal()
        ]
        return {
            value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim[1:])
            for _, value in sorted(indices, key=lambda pair: pair[0])
        }
