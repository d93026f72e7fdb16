"""The functions that read single messages: names, timers, and the file that begins later."""

import io

import numpy as np
import pytest
from PIL import Image

from mlagents_envs.base_env import ActionSpec
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
from mlagents_envs.exception import UnityObservationException
from mlagents_envs.rpc_utils import (
    PNG_HEADER,
    OffsetBytesIO,
    behavior_spec_from_proto,
    process_pixels,
    steps_from_proto,
)
from mlagents_envs.timers import get_timer_tree, reset_timers

BRAIN = BrainParametersProto(brain_name="B", action_spec={"num_continuous_actions": 2})


@pytest.fixture
def pixels():
    return np.random.default_rng(2).integers(256, size=(2, 5, 4, 3), dtype=np.uint8)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def agent(agent_id, values, **fields):
    return AgentInfoProto(id=agent_id, observations=[{"shape": [2], "float_data": {"data": values}}], **fields)


def test_steps_and_their_specification():
    infos = [agent(3, [1, 2], reward=0.5), agent(4, [3, 4], done=True, max_step_reached=True), agent(5, [5, 6])]
    spec = behavior_spec_from_proto(BRAIN, infos[0])
    assert spec.action_spec == ActionSpec.create_continuous(2)
    assert [observation.shape for observation in spec.observation_specs] == [(2,)]
    decisions, terminals = steps_from_proto(infos, spec)
    assert decisions.agent_id.tolist() == [3, 5]
    assert decisions.obs[0].tolist() == [[1, 2], [5, 6]]
    assert decisions.reward.tolist() == [0.5, 0]
    assert (terminals.agent_id.tolist(), terminals.interrupted.tolist()) == ([4], [True])
    assert terminals.obs[0].tolist() == [[3, 4]]


def test_steps_of_nobody():
    spec = behavior_spec_from_proto(BRAIN, agent(1, [1, 2]))
    assert [len(steps) for steps in steps_from_proto([], spec)] == [0, 0]


def test_an_error_names_agent_and_sensor():
    spec = behavior_spec_from_proto(BRAIN, agent(1, [1, 2]))
    with pytest.raises(UnityObservationException, match="agent 8, sensor 0: nan"):
        steps_from_proto([agent(8, [1, float("nan")])], spec)


def test_both_are_timed(pixels):
    reset_timers()
    process_pixels(png(pixels[0]), 3)
    steps_from_proto([], behavior_spec_from_proto(BRAIN, agent(1, [1, 2])))
    assert {"process_pixels", "steps_from_proto"} <= set(get_timer_tree()["children"])
    reset_timers()


def test_process_pixels(pixels):
    assert png(pixels[0]).startswith(PNG_HEADER)
    image = process_pixels(png(pixels[0]) + png(pixels[1]), 2, [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(image, pixels.mean(axis=3) / 255, rtol=1e-5)


def test_a_file_that_begins_later():
    file = OffsetBytesIO(b"abcdef")
    assert file.read(2) == b"ab"
    file.offset = file.original_tell()
    assert (file.tell(), file.read(1), file.tell()) == (0, b"c", 1)
    assert (file.seek(0), file.read()) == (0, b"cdef")
    assert file.seek(-1, io.SEEK_END) == 3
    assert file.original_tell() == 5
