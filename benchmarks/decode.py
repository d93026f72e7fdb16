"""Reading an environment's message: as `mlagents_envs.wire` does, and agent by agent through protobuf."""

from __future__ import annotations

from typing import Callable, Dict, List, Tuple

import numpy as np

from benchmarks.tables import print_table, seconds_per_call
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
)
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.wire.messages import read_environment_message
from mlagents_envs.wire.steps_decoder import StepsDecoder
from mlagents_envs.wire.steps_encoder import StepsEncoder
from mlagents_envs.wire.trainer_messages import write_environment_message

BEHAVIOR_ID = "B?team=0"
VECTOR, IMAGE = (8,), (3, 84, 84)
SIZES: List[Tuple[int, Tuple[int, ...]]] = [(1, VECTOR), (12, VECTOR), (100, VECTOR), (1000, VECTOR), (12, IMAGE)]

Decode = Callable[[bytes], DecisionSteps]


def behavior(shape: Tuple[int, ...]) -> BehaviorSpec:
    """Return the specification of agents with one observation and two continuous actions."""
    properties = (DimensionProperty.NONE,) * len(shape)
    return BehaviorSpec(
        [ObservationSpec(shape, properties, ObservationType.DEFAULT, "sensor")], ActionSpec.create_continuous(2)
    )


def message(n_agents: int, spec: BehaviorSpec, seed: int = 0) -> bytes:
    """Return what an environment sends where all agents wait for a decision; every tenth has no reward."""
    rng = np.random.default_rng(seed)
    steps = DecisionSteps(
        [rng.normal(size=(n_agents, *o.shape)).astype(np.float32) for o in spec.observation_specs],
        (np.arange(n_agents) % 10 != 0).astype(np.float32),
        np.arange(n_agents, dtype=np.int32),
        None,
        np.zeros(n_agents, dtype=np.int32),
        np.zeros(n_agents, dtype=np.float32),
    )
    return write_environment_message([StepsEncoder(BEHAVIOR_ID, spec).encode(steps, TerminalSteps.empty(spec))])


def by_wire(spec: BehaviorSpec) -> Decode:
    """Return how a message is decoded in training."""
    decoder = StepsDecoder(BEHAVIOR_ID, spec)
    return lambda data: decoder.decode(read_environment_message(data).agent_infos[BEHAVIOR_ID])[0]


def by_protobuf(spec: BehaviorSpec, array_per_agent: bool) -> Decode:
    """Return how a message is decoded with a loop over agents, of which nothing is checked: all wait for a decision.

    :param array_per_agent: make an array of each agent's observation and stack them, instead of one of lists.
    """

    def decode(data: bytes) -> DecisionSteps:
        agents = UnityMessageProto.FromString(data).unity_output.rl_output.agentInfos[BEHAVIOR_ID].value
        obs = []
        for index, sensor in enumerate(spec.observation_specs):
            sent = [agent.observations[index].float_data.data for agent in agents]
            if array_per_agent:
                obs.append(np.stack([np.array(values, dtype=np.float32).reshape(sensor.shape) for values in sent]))
            else:
                values = np.array([list(values) for values in sent], dtype=np.float32)
                obs.append(values.reshape(len(agents), *sensor.shape))
        return DecisionSteps(
            obs,
            np.array([agent.reward for agent in agents], dtype=np.float32),
            np.array([agent.id for agent in agents], dtype=np.int32),
            None,
            np.array([agent.group_id for agent in agents], dtype=np.int32),
            np.array([agent.group_reward for agent in agents], dtype=np.float32),
        )

    return decode


def measure(n_agents: int, shape: Tuple[int, ...]) -> Dict[str, float]:
    """Return the seconds that each way takes for a message of `n_agents`."""
    spec = behavior(shape)
    data = message(n_agents, spec)
    ways = {"wire": by_wire(spec), "lists": by_protobuf(spec, False), "arrays": by_protobuf(spec, True)}
    (expected,) = ways["arrays"](data).obs
    for way, decode in ways.items():
        if not np.array_equal(decode(data).obs[0], expected):
            raise SystemExit(f"{way} reads something else.")
    return {way: seconds_per_call(lambda decode=decode: decode(data)) for way, decode in ways.items()}  # type: ignore[misc]


def run() -> None:
    """Print the table."""
    rows = []
    for n_agents, shape in SIZES:
        seconds = measure(n_agents, shape)
        others_s = min(seconds["lists"], seconds["arrays"])
        times = [f"{1e6 * seconds[way]:.0f}" for way in ("wire", "lists", "arrays")]
        rows.append([f"{n_agents} x {'x'.join(map(str, shape))}", *times, f"{others_s / seconds['wire']:.1f}"])
    print_table(
        "Reading a message: us, and how many times as fast as the better of the other ways",
        ["agents x values", "mlagents_envs.wire", "protobuf, lists", "protobuf, arrays", "times as fast"],
        rows,
    )
