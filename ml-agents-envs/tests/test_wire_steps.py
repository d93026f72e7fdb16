"""Agents' messages to columns: against recorded bytes, against a reader that goes through protobuf agent by agent."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
from mlagents_envs.communicator_objects.observation_pb2 import ObservationProto
from mlagents_envs.communicator_objects.space_type_pb2 import continuous, discrete
from mlagents_envs.exception import UnityCommunicationException, UnityObservationException
from mlagents_envs.rpc_utils import behavior_spec_from_proto, steps_from_proto
from mlagents_envs.wire.fields import delimited, varint
from mlagents_envs.wire.messages import RawAgentInfos, read_environment_message
from mlagents_envs.wire.steps_decoder import StepsDecoder, read_behavior_spec

RECORDED = Path(__file__).parent / "data" / "wire"
NONE, MOVES = DimensionProperty.NONE, DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
BRANCHES = (3, 2)


def sensor(shape, name="eye", properties=None):
    return ObservationSpec(shape, properties or (NONE,) * len(shape), ObservationType.DEFAULT, name)


SPEC = BehaviorSpec([sensor((3,)), sensor((2, 2), "map")], ActionSpec.create_discrete(BRANCHES))


def observation(values, shape, name="eye"):
    return ObservationProto(shape=shape, float_data={"data": values}, dimension_properties=[1] * len(shape), name=name)


def agent(agent_id, values=(1.0, 2.0, 3.0), grid=(1.0, 2.0, 3.0, 4.0), **fields):
    observations = [observation(values, [3]), observation(grid, [2, 2], "map")]
    return AgentInfoProto(id=agent_id, observations=observations, **fields)


def as_raw(entries):
    """Return messages as they lie in a whole one, with something before and between them."""
    data, starts, ends = b"??", [], []
    for entry in entries:
        data += b"\x0a" + varint(len(entry))
        starts.append(len(data))
        data += entry
        ends.append(len(data))
    return RawAgentInfos(data, np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64))


def decode(entries, spec=SPEC):
    return StepsDecoder("B?team=0", spec).decode(as_raw(entries))


def expect(steps, infos, spec=SPEC):
    """Compare a batch with messages that protobuf has read, one agent at a time."""
    assert steps.agent_id.tolist() == [info.id for info in infos]
    assert steps.agent_id.dtype == np.int32
    assert steps.group_id.tolist() == [info.group_id for info in infos]
    assert steps.reward.tolist() == [info.reward for info in infos]
    assert steps.group_reward.tolist() == [info.group_reward for info in infos]
    for index, o in enumerate(spec.observation_specs):
        assert steps.obs[index].shape == (len(infos), *o.shape)
        assert steps.obs[index].dtype == np.float32
        sent = [list(info.observations[index].float_data.data) for info in infos]
        assert [values.ravel().tolist() for values in steps.obs[index]] == sent


def forbidden_by(info):
    flat = ([*info.action_mask] + [False] * sum(BRANCHES))[: sum(BRANCHES)]
    return [flat[: BRANCHES[0]], flat[BRANCHES[0] :]]


def expect_all(decoded, infos):
    decisions, terminals = decoded
    waiting, ended = [info for info in infos if not info.done], [info for info in infos if info.done]
    expect(decisions, waiting)
    expect(terminals, ended)
    assert terminals.interrupted.tolist() == [info.max_step_reached for info in ended]
    if any(len(info.action_mask) for info in infos):
        masks = [forbidden_by(info) for info in waiting]
        for branch, mask in enumerate(decisions.action_mask):
            assert mask.tolist() == [mask[branch] for mask in masks]
    else:
        assert decisions.action_mask is None


@pytest.mark.parametrize("scene", ["3DBall", "Basic"])
def test_recorded_steps_are_what_protobuf_finds(scene):
    decoder, n_read, n_ended = None, 0, 0
    for path in sorted(RECORDED.glob(f"{scene}-*-env.bin")):
        message = read_environment_message(path.read_bytes())
        for behavior_id, infos in message.agent_infos.items():
            if decoder is None:
                (brain,) = message.initialization.brain_parameters
                decoder = StepsDecoder(behavior_id, read_behavior_spec(brain, infos))
            decisions, terminals = decoder.decode(infos)
            read = [AgentInfoProto.FromString(infos.entry(index)) for index in range(len(infos))]
            expect(decisions, [info for info in read if not info.done], decoder.spec)
            expect(terminals, [info for info in read if info.done], decoder.spec)
            n_read += 1
            n_ended += len(terminals)
    assert n_read == 14
    assert (n_ended > 0) == (scene == "Basic")


def test_the_recorded_specifications():
    found = {}
    for scene in ("3DBall", "Basic"):
        message = read_environment_message((RECORDED / f"{scene}-02-env.bin").read_bytes())
        (brain,) = message.initialization.brain_parameters
        found[brain.brain_name] = read_behavior_spec(brain, message.agent_infos[brain.brain_name])
    assert found == {
        "3DBall?team=0": BehaviorSpec([sensor((8,), "VectorSensor_size8")], ActionSpec.create_continuous(2)),
        "Basic?team=0": BehaviorSpec([sensor((20,), "BasicSensor")], ActionSpec.create_discrete((3,))),
    }


FLOATS = st.floats(-1e6, 1e6, width=32)
AGENTS = st.builds(
    agent,
    st.sampled_from([0, 1, 5, 127, 128, 16383, 16384, 2**31 - 1, -1, -(2**31)]),
    st.lists(FLOATS, min_size=3, max_size=3),
    st.lists(FLOATS, min_size=4, max_size=4),
    reward=st.sampled_from([0.0, -0.0, 1.0, -0.5]),
    done=st.booleans(),
    max_step_reached=st.booleans(),
    action_mask=st.lists(st.booleans(), max_size=7),
    group_id=st.sampled_from([0, 1, 300, -7]),
    group_reward=st.sampled_from([0.0, 2.0]),
)


def test_a_message_as_long_as_one_with_a_mask_has_none():
    decoder = StepsDecoder("B?team=0", SPEC)
    with_mask, with_reward = agent(1, action_mask=[True, False, True]), agent(1, reward=1.0)  # five bytes each
    for info in (with_mask, with_reward):
        expect_all(decoder.decode(as_raw([info.SerializeToString()])), [info])


def without_repeated_decisions(infos):
    seen = set()
    for info in infos:
        if info.done or info.id not in seen:
            yield info
        if not info.done:
            seen.add(info.id)


@given(st.lists(st.lists(AGENTS, max_size=12), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_messages_one_after_the_other_are_what_protobuf_reads(messages):
    decoder = StepsDecoder("B?team=0", SPEC)
    for agents in messages:
        infos = list(without_repeated_decisions(agents))
        expect_all(decoder.decode(as_raw([info.SerializeToString() for info in infos])), infos)
        expect_all(steps_from_proto(infos, SPEC), infos)


STEADY = st.builds(
    agent,
    values=st.lists(FLOATS, min_size=3, max_size=3),
    grid=st.lists(FLOATS, min_size=4, max_size=4),
    agent_id=st.just(0),
    reward=st.sampled_from([1.0, -0.5, 1e30]),
)


@given(st.integers(1, 8), st.data())
@settings(max_examples=100, deadline=None)
def test_messages_that_repeat_each_other_are_what_protobuf_reads(n_agents, data):
    """The same agents again and again; now and then one ends, one has no reward, others come, or have other names."""
    decoder = StepsDecoder("B?team=0", SPEC)
    ids, group = [*range(n_agents)], 0
    decoded = []
    for step in range(data.draw(st.integers(4, 10))):
        infos = data.draw(st.lists(STEADY, min_size=n_agents, max_size=n_agents))
        event = data.draw(st.sampled_from(["none", "none", "none", "new id", "end", "no reward", "group"]))
        if event == "new id":
            ids[-1] = 50 + step
        elif event == "group":
            group += 1
        for info, agent_id in zip(infos, ids):
            info.id, info.group_id = agent_id, group
        if event == "no reward":
            infos[0].reward = 0.0
        elif event == "end":
            infos[0].done = True
        decoded.append((decoder.decode(as_raw([info.SerializeToString() for info in infos])), infos))
    for steps, infos in decoded:  # after all of them: none may have changed with a later one
        expect_all(steps, infos)


def test_a_message_that_repeats_others_is_checked_like_them():
    decoder = StepsDecoder("B?team=0", SPEC)
    for _ in range(3):
        decoder.decode(as_raw([agent(3, reward=1.0).SerializeToString()]))
    with pytest.raises(UnityObservationException, match="agent 3, sensor 'map': nan"):
        decoder.decode(as_raw([agent(3, grid=(1.0, float("nan"), 3.0, 4.0), reward=1.0).SerializeToString()]))
    decisions, _ = decoder.decode(as_raw([agent(3, values=(1e30, 2.0, 3.0), reward=1.0).SerializeToString()]))
    assert decisions.obs[0][0, 0] == np.float32(1e30)  # finite, though its square is not


def test_many_agents_of_few_and_of_many_layouts():
    rng = np.random.default_rng(3)
    infos = [
        agent(
            int(agent_id),
            rng.normal(size=3).tolist(),
            rng.normal(size=4).tolist(),
            reward=float(rng.integers(2)),
            done=bool(rng.integers(2)),
            group_id=int(10.0 ** rng.uniform(0, 9)),
            action_mask=[bool(flag) for flag in rng.integers(2, size=rng.integers(6))],
        )
        for agent_id in rng.permutation(3000)
    ]
    entries = [info.SerializeToString() for info in infos]
    entries = [entry + b"\xa2\x06" + varint(n := int(rng.integers(4))) + b"." * n for entry in entries]
    expect_all(decode(entries), infos)


def unpacked(number, values):
    return b"".join(bytes([number << 3]) + varint(value) for value in values)


@pytest.mark.parametrize(
    "unusual",
    [
        pytest.param(lambda entry: entry + b"\x3d\0\0\x80\x3f", id="a reward twice"),
        pytest.param(lambda entry: entry + b"\x50\x09", id="an id twice"),
        pytest.param(lambda entry: entry + unpacked(11, [1, 0, 1]), id="a mask that is not packed"),
        pytest.param(lambda entry: entry + b"\x5a\x01\x01" + b"\x5a\x01\x01", id="a mask in two parts"),
        pytest.param(lambda entry: entry + b"\x5a\x02\x05\x00", id="a bool that is 5"),
        pytest.param(lambda entry: entry + b"\x50\x89\x80\x00", id="a number that is longer than it needs to be"),
        pytest.param(lambda entry: entry + b"\x55\0\0\0\0", id="an id of a wrong wire type"),
        pytest.param(lambda entry: entry + b"\x5d\0\0\0\0", id="a mask of a wrong wire type"),
        pytest.param(lambda entry: b"\x40" + b"\x80" * 6 + b"\x01" + entry, id="a bool that is 2 ** 42"),
        pytest.param(lambda entry: entry + b"\x98\x06\x01" + b"\xa1\x06abcdefgh", id="unknown fields"),
    ],
)
def test_agents_written_in_an_unusual_way(unusual):
    entries = [unusual(agent(agent_id, done=agent_id == 2).SerializeToString()) for agent_id in (1, 2)]
    entries.append(agent(3).SerializeToString())
    infos = [AgentInfoProto.FromString(entry) for entry in entries]
    if infos[0].id == infos[1].id:
        infos, entries = infos[1:], entries[1:]
    expect_all(decode(entries), infos)


SHAPE, NAME = delimited(1, b"\x03"), delimited(8, b"eye")
ONE, TWO, THREE = (np.float32(value).tobytes() for value in (1, 2, 3))


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([NAME, delimited(4, delimited(1, ONE + TWO + THREE)), SHAPE], id="in another order"),
        pytest.param([SHAPE, delimited(4, b"\x0d" + ONE + b"\x0d" + TWO + b"\x0d" + THREE)], id="floats not packed"),
        pytest.param([SHAPE, delimited(4, delimited(1, ONE) + delimited(1, TWO + THREE))], id="floats in two parts"),
        pytest.param([SHAPE, delimited(4, delimited(1, ONE)), delimited(4, delimited(1, TWO + THREE))], id="two parts"),
        pytest.param([b"\x08\x03", delimited(4, delimited(1, ONE + TWO + THREE))], id="a shape that is not packed"),
        pytest.param([SHAPE, delimited(3, b"x"), delimited(4, delimited(1, ONE + TWO + THREE))], id="one of two kinds"),
        pytest.param([SHAPE, delimited(4, delimited(1, ONE + TWO + THREE)), b"\x98\x06\x01"], id="an unknown field"),
        pytest.param([SHAPE, b"\x0d" + ONE, delimited(4, delimited(1, ONE + TWO + THREE))], id="a float as a shape"),
        pytest.param([SHAPE, delimited(4, b"\x08\x01" + delimited(1, ONE + TWO + THREE))], id="an int as floats"),
    ],
)
def test_observations_written_in_an_unusual_way(parts):
    spec = BehaviorSpec([sensor((3,))], ActionSpec.create_continuous(1))
    entry = delimited(13, b"".join(parts)) + b"\x50\x07"
    info = AgentInfoProto.FromString(entry)
    assert list(info.observations[0].float_data.data) == [1, 2, 3]
    decisions, _ = decode([entry], spec)
    expect(decisions, [info], spec)


def test_nobody():
    decisions, terminals = decode([])
    assert (len(decisions), len(terminals)) == (0, 0)
    assert [obs.shape for obs in decisions.obs] == [(0, 3), (0, 2, 2)]


def test_images_of_old_packages_are_turned_to_channel_first():
    image = np.arange(24, dtype=np.float32).reshape(2, 4, 3)  # H, W, C
    old = ObservationProto(
        shape=[2, 4, 3], float_data={"data": image.ravel()}, dimension_properties=[MOVES, MOVES, NONE], name="camera"
    )
    info = AgentInfoProto(id=1, observations=[old])
    spec = behavior_spec_from_proto(BrainParametersProto(brain_name="B"), info)
    assert spec.observation_specs == [sensor((3, 2, 4), "camera", (NONE, MOVES, MOVES))]
    decisions, _ = decode([info.SerializeToString()], spec)
    assert decisions.obs[0][0].tolist() == image.transpose(2, 0, 1).tolist()


@pytest.mark.parametrize(
    ("brain", "expected"),
    [
        ({"action_spec": {"num_continuous_actions": 2}}, ActionSpec(2, ())),
        ({"action_spec": {"num_discrete_actions": 2, "discrete_branch_sizes": [3, 4]}}, ActionSpec(0, (3, 4))),
        ({"vector_action_size_deprecated": [5], "vector_action_space_type_deprecated": continuous}, ActionSpec(5, ())),
        (
            {"vector_action_size_deprecated": [2, 3], "vector_action_space_type_deprecated": discrete},
            ActionSpec(0, (2, 3)),
        ),
    ],
)
def test_action_specifications(brain, expected):
    assert behavior_spec_from_proto(BrainParametersProto(**brain), AgentInfoProto()).action_spec == expected


def test_a_behavior_that_comes_without_agents_has_no_specification():
    with pytest.raises(UnityCommunicationException, match="behavior Ghost without agents"):
        read_behavior_spec(BrainParametersProto(brain_name="Ghost"), as_raw([]))


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (agent(4, (1, float("nan"), 3)), r"not finite: behavior B\?team=0, agent 4, sensor 'eye': nan"),
        (agent(4, (1, float("inf"), 3)), r"agent 4, sensor 'eye': inf"),
        (agent(4, grid=(1, 2, 3, float("-inf"))), r"agent 4, sensor 'map': -inf"),
        (agent(4, reward=float("nan")), r"agent 4, reward: nan"),
        (agent(4, group_reward=float("inf"), done=True), r"agent 4, group reward: inf"),
        (agent(4, (1, 2)), r"2 values \(behavior B\?team=0, agent 4, sensor 'eye'\), whose shape \(3,\) needs 3"),
        (agent(4, (1, 2, 3, 4)), r"4 values \(.*agent 4, sensor 'eye'\), whose shape \(3,\) needs 3"),
        (agent(4, ()), r"0 values \(.*agent 4, sensor 'eye'\)"),
        (agent(-4, ()), r"agent -4, sensor 'eye'"),
        (AgentInfoProto(id=4), r"0 observations of behavior B\?team=0, agent 4, .* has 2"),
    ],
)
def test_values_that_cannot_be_used_are_refused(info, message):
    entries = [agent(1).SerializeToString(), info.SerializeToString(), agent(9).SerializeToString()]
    with pytest.raises(UnityObservationException, match=message):
        decode(entries)


def test_large_finite_values_are_fine():
    info = agent(1, (3e38, -3e38, 3e38))
    expect_all(decode([info.SerializeToString()]), [info])


def test_another_shape_than_specified_is_refused():
    info = AgentInfoProto(id=6, observations=[observation([1, 2], [2]), observation([0] * 4, [2, 2], "map")])
    with pytest.raises(UnityObservationException, match=r"of shape \(2,\) \(.*agent 6, sensor 'eye'\).* says \(3,\)"):
        decode([info.SerializeToString()])


def test_a_missing_observation_is_refused():
    info = AgentInfoProto(id=6, observations=[observation([1, 2, 3], [3])])
    with pytest.raises(UnityObservationException, match=r"1 observations of behavior B\?team=0, agent 6, .* has 2"):
        decode([info.SerializeToString()])


@pytest.mark.parametrize(
    ("announced", "message"),
    [
        ({"shape": [2**31 - 1] * 3}, r"of shape \(2147483647, .*\(behavior B, sensor 'eye'\)"),
        ({"shape": [2**31 - 1, 2**31 - 1, 0]}, "of shape"),
        ({"shape": [3, -1]}, r"of shape \(3, -1\)"),
        ({"shape": [1] * 100}, "of shape"),
        ({"shape": [3], "observation_type": 7}, r"unknown type 7 \(behavior B, sensor 'eye'\)"),
    ],
)
def test_observations_that_cannot_be_are_refused(announced, message):
    info = AgentInfoProto(observations=[ObservationProto(name="eye", **announced)])
    with pytest.raises(UnityObservationException, match=message):
        behavior_spec_from_proto(BrainParametersProto(brain_name="B"), info)


@pytest.mark.parametrize(
    ("announced", "message"),
    [
        ({"num_continuous_actions": -1}, r"-1 continuous actions .* behavior B"),
        ({"num_continuous_actions": 2**31 - 1}, "2147483647 continuous actions"),
        ({"discrete_branch_sizes": [3, 0]}, r"\(3, 0\) choices"),
        ({"discrete_branch_sizes": [2**31 - 1, 5]}, r"\(2147483647, 5\) choices"),
    ],
)
def test_actions_that_cannot_be_are_refused(announced, message):
    with pytest.raises(UnityCommunicationException, match=message):
        behavior_spec_from_proto(BrainParametersProto(brain_name="B", action_spec=announced), AgentInfoProto())


def test_an_agent_that_asks_for_two_decisions_is_refused():
    entries = [agent(8).SerializeToString(), agent(7).SerializeToString(), agent(8, reward=1).SerializeToString()]
    with pytest.raises(UnityCommunicationException, match=r"twice .* agent 8 of behavior B"):
        decode(entries)


def test_an_agent_may_end_and_start_again_in_one_message():
    infos = [agent(8, done=True), agent(8)]
    expect_all(decode([info.SerializeToString() for info in infos]), infos)
