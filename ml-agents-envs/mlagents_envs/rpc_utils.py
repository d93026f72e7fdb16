"""Reading the messages of the wire, one by one: what users of ML-Agents 1.1.0 import.

`UnityEnvironment` reads whole messages with `mlagents_envs.wire`, which these functions are made of as well.
"""

from __future__ import annotations

import io
from typing import Collection, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from mlagents_envs.base_env import BehaviorSpec, DecisionSteps, TerminalSteps
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
from mlagents_envs.timers import timed
from mlagents_envs.wire.images import PNG_HEADER, decode_image
from mlagents_envs.wire.messages import RawAgentInfos
from mlagents_envs.wire.steps_decoder import StepsDecoder, behavior_spec

__all__ = ["PNG_HEADER", "OffsetBytesIO", "behavior_spec_from_proto", "process_pixels", "steps_from_proto"]


def behavior_spec_from_proto(brain_param_proto: BrainParametersProto, agent_info: AgentInfoProto) -> BehaviorSpec:
    """Return the specification that a behaviour's parameters and one of its agents make up."""
    return behavior_spec(brain_param_proto, agent_info)


class OffsetBytesIO:
    """A file in memory that begins in the middle of some bytes.

    :param data: the bytes; what is read first is the position 0.
    """

    def __init__(self, data: bytes):
        self.fp = io.BytesIO(data)
        self.offset = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position relative to the offset, and return it."""
        position = offset + self.offset if whence == io.SEEK_SET else offset
        return self.fp.seek(position, whence) - self.offset

    def tell(self) -> int:
        """Return the position relative to the offset."""
        return self.fp.tell() - self.offset

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; all for -1."""
        return self.fp.read(size)

    def original_tell(self) -> int:
        """Return the position in all of the bytes."""
        return self.fp.tell()


@timed
def process_pixels(
    image_bytes: bytes, expected_channels: int, mappings: Optional[List[int]] = None
) -> NDArray[np.float32]:
    """Return an image (`expected_channels`, H, W) of PNG files back to back, its pixels from 0 to 1.

    :param mappings: for each channel of the files the one it belongs to, -1 for none; see
        `mlagents_envs.wire.images.decode_image`.
    :raises UnityObservationException: the bytes are no such image.
    """
    return decode_image(image_bytes, expected_channels, mappings or ())


@timed
def steps_from_proto(
    agent_info_list: Collection[AgentInfoProto], behavior_spec: BehaviorSpec
) -> Tuple[DecisionSteps, TerminalSteps]:
    """Return the agents of a behaviour that wait for a decision, and those whose episode has ended.

    :raises UnityObservationException: an observation or a reward is not finite, or does not fit the specification.
    """
    entries = [info.SerializeToString() for info in agent_info_list]
    ends = np.cumsum([len(entry) for entry in entries], dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(entries)]
    return StepsDecoder("(unnamed)", behavior_spec).decode(RawAgentInfos(b"".join(entries), starts, ends))
