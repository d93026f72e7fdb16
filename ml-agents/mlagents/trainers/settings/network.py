"""Settings of the neural networks."""

from enum import Enum
from typing import Any, Optional

import attr

from mlagents.trainers.settings.fields import POSITIVE, SettingValueError, setting


class SerializationSettings:
    """How models are exported."""

    convert_to_onnx = True
    onnx_opset = 9


class EncoderType(Enum):
    """The network that turns an image into features."""

    FULLY_CONNECTED = "fully_connected"
    MATCH3 = "match3"
    SIMPLE = "simple"
    NATURE_CNN = "nature_cnn"
    RESNET = "resnet"


class ScheduleType(Enum):
    """How a hyperparameter changes over `max_steps`."""

    CONSTANT = "constant"
    LINEAR = "linear"


class ConditioningType(Enum):
    """How a goal observation acts on the network: by generating its last layer, or as one more input."""

    HYPER = "hyper"
    NONE = "none"


class _Even:
    """An attrs validator: a positive even number."""

    keywords = {"minimum": 2, "multipleOf": 2}  # of JSON Schema

    def __call__(self, instance: Any, attribute: "attr.Attribute[int]", value: int) -> None:
        if value < 2 or value % 2:
            raise SettingValueError(attribute.name, f"{value} is not allowed; it must be a positive even number")


@attr.s(auto_attribs=True)
class NetworkSettings:
    """The policy's network; the critic's body is built alike."""

    @attr.s(auto_attribs=True)
    class MemorySettings:
        """A recurrent layer (LSTM) after the body."""

        sequence_length: int = setting(64, help="Steps of experience that one training sequence holds.", check=POSITIVE)
        memory_size: int = setting(
            128, help="Numbers that an agent remembers; half of them are the layer's output.", check=_Even()
        )

    normalize: bool = setting(False, help="Normalise vector observations by their running mean and variance.")
    hidden_units: int = setting(128, help="Units of each hidden layer.", check=POSITIVE)
    num_layers: int = setting(2, help="Hidden layers after the observations.", check=POSITIVE)
    vis_encode_type: EncoderType = setting(EncoderType.SIMPLE, help="Encoder of image observations.")
    memory: Optional[MemorySettings] = setting(None, help="Memory of the agents; null for none.")
    goal_conditioning_type: ConditioningType = setting(ConditioningType.HYPER, help="How goal observations are used.")
    deterministic: bool = setting(False, help="Take the most likely action instead of a sampled one.")
