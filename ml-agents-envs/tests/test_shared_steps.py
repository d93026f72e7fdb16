"""Steps through shared memory: what is read is what was written, for as long as promised, and nothing is left over."""

import itertools
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, TerminalSteps, vector_observation
from mlagents_envs.exception import UnityObservationException
from mlagents_envs.shared_steps import StepsReader, StepsWriter, make_shared_folder

SPECS = {
    "Vector": BehaviorSpec([vector_observation(3, "near"), vector_observation(1, "far")], ActionSpec(2, ())),
    "Branches": BehaviorSpec([vector_observation(5, "all")], ActionSpec(0, (3, 2))),
    "Blind": BehaviorSpec([], ActionSpec(0, (4,))),
}
FIELDS = ("reward", "agent_id", "group_id", "group_reward")


@pytest.fixture
def folder():
    with make_shared_folder() as path:
        yield path


def make_steps(spec, rng, n_decisions, n_terminals, has_masks=True):
    def common(n):
        obs = [rng.normal(size=(n, *observation.shape)).astype(np.float32) for observation in spec.observation_specs]
        rewards = rng.normal(size=(2, n)).astype(np.float32)
        ids = rng.integers(0, 2**31 - 1, size=(2, n), dtype=np.int32)
        return obs, rewards, ids

    masks = None
    if has_masks and spec.action_spec.discrete_branches:
        masks = [rng.random((n_decisions, size)) < 0.5 for size in spec.action_spec.discrete_branches]
    obs, rewards, ids = common(n_decisions)
    decisions = DecisionSteps(obs, rewards[0], ids[0], masks, ids[1], rewards[1])
    obs, rewards, ids = common(n_terminals)
    terminals = TerminalSteps(obs, rewards[0], rng.random(n_terminals) < 0.5, ids[0], ids[1], rewards[1])
    return decisions, terminals


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        for part, other_part in zip(one[name], other[name]):
            assert len(part.obs) == len(other_part.obs)
            for values, other_values in zip(part.obs, other_part.obs):
                assert values.dtype == other_values.dtype
                np.testing.assert_array_equal(values, other_values)
            for field in FIELDS:
                values, other_values = getattr(part, field), getattr(other_part, field)
                assert values.dtype == other_values.dtype
                np.testing.assert_array_equal(values, other_values)
        np.testing.assert_array_equal(one[name][1].interrupted, other[name][1].interrupted)
        masks, other_masks = one[name][0].action_mask, other[name][0].action_mask
        assert (masks is None) == (other_masks is None)
        for mask, other_mask in zip(masks or (), other_masks or ()):
            np.testing.assert_array_equal(mask, other_mask)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(
        st.dictionaries(
            st.sampled_from(sorted(SPECS)),
            st.tuples(st.integers(0, 300), st.integers(0, 40), st.booleans()),
        ),
        min_size=1,
        max_size=6,
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_read_is_what_was_written_whoever_comes_and_goes(sizes, seed):
    rng = np.random.default_rng(seed)
    with make_shared_folder() as folder:
        writer, reader = StepsWriter(folder), StepsReader()
        for step in sizes:
            written = {name: make_steps(SPECS[name], rng, *numbers) for name, numbers in step.items()}
            message = pickle.loads(pickle.dumps(writer.write(written, SPECS)))
            assert_same(reader.read(message, SPECS), written)


def test_a_step_stays_while_the_next_is_written(folder):
    rng = np.random.default_rng(0)
    steps = [{"Vector": make_steps(SPECS["Vector"], rng, 4, 2)} for _ in range(4)]
    writer, reader = StepsWriter(folder), StepsReader()
    before = reader.read(writer.write(steps[0], SPECS), SPECS)
    for previous, current in itertools.pairwise(steps):
        now = reader.read(writer.write(current, SPECS), SPECS)
        assert_same(before, previous)
        assert_same(now, current)
        before = now


def test_a_step_stays_when_the_memory_grows(folder):
    rng = np.random.default_rng(0)
    small, large = ({"Vector": make_steps(SPECS["Vector"], rng, n, 0)} for n in (2, 50_000))
    writer, reader = StepsWriter(folder), StepsReader()
    before = reader.read(writer.write(small, SPECS), SPECS)
    assert_same(reader.read(writer.write(large, SPECS), SPECS), large)
    assert_same(before, small)


def test_observations_are_read_in_place_and_all_else_is_copied(folder):
    rng = np.random.default_rng(0)
    writer, reader = StepsWriter(folder), StepsReader()
    steps = {"Branches": make_steps(SPECS["Branches"], rng, 3, 1)}
    decisions, terminals = reader.read(writer.write(steps, SPECS), SPECS)["Branches"]
    assert not decisions.obs[0].flags.owndata
    for part in (decisions, terminals):
        assert all(getattr(part, field).flags.owndata for field in FIELDS)
    assert all(mask.flags.owndata for mask in decisions.action_mask)
    assert terminals.interrupted.flags.owndata


def test_numbers_of_other_types_become_those_of_the_specification(folder):
    decisions, terminals = make_steps(SPECS["Vector"], np.random.default_rng(0), 2, 0)
    decisions.obs[0] = np.array([[1, 2, 3], [4, 5, 6]])
    read = StepsReader().read(StepsWriter(folder).write({"Vector": (decisions, terminals)}, SPECS), SPECS)
    seen = read["Vector"][0].obs[0]
    assert seen.dtype == np.float32
    assert seen.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def test_another_specification_of_the_same_behavior_is_another_layout(folder):
    rng = np.random.default_rng(0)
    wider = {"Vector": BehaviorSpec([vector_observation(7, "near")], ActionSpec(2, ()))}
    writer, reader = StepsWriter(folder), StepsReader()
    for specs in (SPECS, wider):
        steps = {"Vector": make_steps(specs["Vector"], rng, 4, 1)}
        assert_same(reader.read(writer.write(steps, specs), specs), steps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda decisions, terminals: decisions.obs.pop(),
            r"Behavior Branches: .* gave 0 observations, where 1 are specified",
        ),
        (
            lambda decisions, terminals: decisions.action_mask.pop(),
            r"Behavior Branches: .* gave 1 action masks, where 2 are specified",
        ),
        (
            lambda decisions, terminals: terminals.obs.__setitem__(0, terminals.obs[0][:, :4]),
            r"gave observation 'all' in the shape \(1, 4\), agents first, where \(1, 5\) is specified",
        ),
        (
            lambda decisions, terminals: setattr(decisions, "reward", np.float32(1)),
            r"gave the rewards in the shape \(\), agents first, where \(3,\) is specified",
        ),
    ],
)
def test_what_is_not_as_specified_is_refused(folder, change, message):
    steps = make_steps(SPECS["Branches"], np.random.default_rng(0), 3, 1)
    change(*steps)
    with pytest.raises(UnityObservationException, match=message):
        StepsWriter(folder).write({"Branches": steps}, SPECS)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a file that is open cannot be removed before the folder is")
def test_no_file_is_left_once_it_is_read_however_often_the_memory_grows(folder):
    writer, reader = StepsWriter(folder), StepsReader()
    for n_agents in (1, 1000, 100_000):
        steps = {"Vector": make_steps(SPECS["Vector"], np.random.default_rng(0), n_agents, 0)}
        message = writer.write(steps, SPECS)
        assert os.listdir(folder) == [os.path.basename(message.path)]
        reader.read(message, SPECS)
        assert os.listdir(folder) == []
