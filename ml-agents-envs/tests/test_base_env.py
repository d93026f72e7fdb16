"""The low-level API: batches of steps, actions, specifications."""

import numpy as np
import pytest

from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BaseEnv,
    BehaviorMapping,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
    entities_observation,
    goal_observation,
    image_observation,
    vector_observation,
)
from mlagents_envs.exception import UnityActionException

SPEC = BehaviorSpec(
    [vector_observation(3, "vector"), ObservationSpec((2, 4, 4), (), ObservationType.DEFAULT, "image")],
    ActionSpec.create_hybrid(2, (3, 2)),
)


@pytest.fixture
def decision_steps():
    return DecisionSteps(
        obs=[np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 2, 4, 4), dtype=np.float32)],
        reward=np.array([0.5, -1.0], dtype=np.float32),
        agent_id=np.array([7, 3], dtype=np.int32),
        action_mask=[np.array([[False, True, False], [True, False, False]]), np.array([[False, True], [True, False]])],
        group_id=np.array([0, 4], dtype=np.int32),
        group_reward=np.array([0.0, 2.0], dtype=np.float32),
    )


def test_decision_steps_are_a_mapping_from_agent_ids(decision_steps):
    assert len(decision_steps) == 2
    assert list(decision_steps) == [7, 3]
    assert decision_steps.agent_id_to_index == {7: 0, 3: 1}
    assert 7 in decision_steps
    assert 0 not in decision_steps  # an index is not an id
    step = decision_steps[3]
    np.testing.assert_array_equal(step.obs[0], [3, 4, 5])
    assert step.obs[1].shape == (2, 4, 4)
    assert (step.reward, step.agent_id, step.group_id, step.group_reward) == (-1.0, 3, 4, 2.0)
    np.testing.assert_array_equal(step.action_mask[0], [True, False, False])
    np.testing.assert_array_equal(step.action_mask[1], [True, False])


def test_a_step_without_masks_has_none(decision_steps):
    decision_steps.action_mask = None
    assert decision_steps[7].action_mask is None


def test_terminal_steps_are_a_mapping_from_agent_ids():
    steps = TerminalSteps(
        obs=[np.array([[1.0], [2.0]], dtype=np.float32)],
        reward=np.array([1.0, -1.0], dtype=np.float32),
        interrupted=np.array([False, True]),
        agent_id=np.array([2, 9], dtype=np.int32),
        group_id=np.array([0, 1], dtype=np.int32),
        group_reward=np.array([0.0, 0.25], dtype=np.float32),
    )
    assert {agent_id: bool(step.interrupted) for agent_id, step in steps.items()} == {2: False, 9: True}
    assert (steps[9].reward, steps[9].group_id, steps[9].group_reward) == (-1.0, 1, 0.25)
    assert steps.get(5) is None


@pytest.mark.parametrize("kind", [DecisionSteps, TerminalSteps])
def test_absent_agent_is_a_key_error_that_names_it(kind):
    with pytest.raises(KeyError, match=f"agent_id 5 is not present in the {kind.__name__}"):
        kind.empty(SPEC)[5]


@pytest.mark.parametrize("kind", [DecisionSteps, TerminalSteps])
def test_empty_fits_the_specification(kind):
    empty = kind.empty(SPEC)
    assert len(empty) == 0
    assert [obs.shape for obs in empty.obs] == [(0, 3), (0, 2, 4, 4)]
    assert {obs.dtype for obs in empty.obs} == {np.dtype(np.float32)}
    dtypes = {field: getattr(empty, field).dtype for field in ("reward", "agent_id", "group_id", "group_reward")}
    assert dtypes == {"reward": np.float32, "agent_id": np.int32, "group_id": np.int32, "group_reward": np.float32}
    if kind is TerminalSteps:
        assert empty.interrupted.dtype == bool
        assert empty.interrupted.shape == (0,)


def test_action_tuple_converts_types():
    action = ActionTuple(np.ones((2, 3), dtype=np.float64), np.ones((2, 1), dtype=np.int64))
    assert (action.continuous.dtype, action.discrete.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize(
    ("given", "continuous_shape", "discrete_shape"),
    [
        ({}, (0, 0), (0, 0)),
        ({"continuous": np.zeros((4, 2))}, (4, 2), (4, 0)),
        ({"discrete": np.zeros((5, 3))}, (5, 0), (5, 3)),
    ],
)
def test_action_tuple_gives_the_absent_half_width_zero(given, continuous_shape, discrete_shape):
    action = ActionTuple(**given)
    assert action.discrete.shape == discrete_shape
    assert action.continuous.shape == continuous_shape
    assert (action.continuous.dtype, action.discrete.dtype) == (np.float32, np.int32)


def test_action_tuple_may_be_filled_later():
    action = ActionTuple()
    action.add_discrete(np.array([[1, 0]]))
    action.add_continuous(np.array([[0.5]]))
    np.testing.assert_array_equal(action.discrete, [[1, 0]])
    np.testing.assert_array_equal(action.continuous, np.float32([[0.5]]))


def test_kinds_of_action_spec():
    continuous, discrete = ActionSpec.create_continuous(2), ActionSpec.create_discrete([3, 4])
    hybrid = ActionSpec.create_hybrid(2, [3])
    kinds = [(spec.is_continuous(), spec.is_discrete()) for spec in (continuous, discrete, hybrid)]
    assert kinds == [(True, False), (False, True), (False, False)]
    assert discrete == ActionSpec(0, (3, 4))
    assert discrete.discrete_size == 2
    assert hash(hybrid) == hash(ActionSpec(2, (3,)))


def test_empty_action():
    action = SPEC.action_spec.empty_action(3)
    np.testing.assert_array_equal(action.continuous, np.zeros((3, 2), dtype=np.float32))
    np.testing.assert_array_equal(action.discrete, np.zeros((3, 2), dtype=np.int32))


def test_random_actions_cover_their_range_and_stay_in_it():
    np.random.seed(0)
    action = SPEC.action_spec.random_action(2_000)
    assert (action.continuous.shape, action.continuous.dtype) == ((2_000, 2), np.float32)
    assert -1.0 <= action.continuous.min() < -0.99
    assert 0.99 < action.continuous.max() <= 1.0
    assert action.discrete.dtype == np.int32
    assert [set(column) for column in action.discrete.T.tolist()] == [{0, 1, 2}, {0, 1}]


def test_check_accepts_what_fits():
    SPEC.action_spec.check(SPEC.action_spec.random_action(4), 4, "Walker")
    ActionSpec.create_discrete((3,)).check(ActionTuple(discrete=np.zeros((4, 1))), 4, "Walker")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (ActionTuple(np.zeros((3, 1)), np.zeros((3, 2))), r"Walker .*continuous.*\(3, 2\).*received \(3, 1\)"),
        (ActionTuple(np.zeros((3, 2)), np.zeros((3, 1))), r"Walker .*discrete.*\(3, 2\).*received \(3, 1\)"),
        (ActionTuple(np.zeros((2, 2)), np.zeros((2, 2))), r"Walker .*continuous.*\(3, 2\).*received \(2, 2\)"),
        (ActionTuple(np.zeros((3, 2))), r"Walker .*discrete.*\(3, 2\).*received \(3, 0\)"),
    ],
)
def test_check_names_behavior_and_shapes(action, message):
    with pytest.raises(UnityActionException, match=message):
        SPEC.action_spec.check(action, 3, "Walker")


def test_behavior_mapping_is_read_only():
    mapping = BehaviorMapping({"Walker": SPEC})
    assert dict(mapping) == {"Walker": SPEC}
    assert len(mapping) == 1
    with pytest.raises(TypeError):
        mapping["Other"] = SPEC
    with pytest.raises(KeyError):
        mapping["Other"]


NONE, MOVES, VARIES = (
    DimensionProperty.NONE,
    DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
    DimensionProperty.VARIABLE_SIZE,
)


@pytest.mark.parametrize(
    ("made", "shape", "properties", "kind"),
    [
        (vector_observation(3, "sense"), (3,), (NONE,), ObservationType.DEFAULT),
        (image_observation(3, 64, 84, "sense"), (3, 64, 84), (NONE, MOVES, MOVES), ObservationType.DEFAULT),
        (entities_observation(8, 4, "sense"), (8, 4), (VARIES, NONE), ObservationType.DEFAULT),
        (goal_observation(2, "sense"), (2,), (NONE,), ObservationType.GOAL_SIGNAL),
    ],
)
def test_kinds_of_observations(made, shape, properties, kind):
    assert made == ObservationSpec(shape, properties, kind, "sense")


def test_values_on_the_wire():
    assert [int(p) for p in DimensionProperty if p] == [1, 2, 4]
    assert DimensionProperty.UNSPECIFIED == 0
    assert (ObservationType.DEFAULT.value, ObservationType.GOAL_SIGNAL.value) == (0, 1)


def test_an_environment_has_to_define_every_method():
    with pytest.raises(TypeError, match="abstract"):
        BaseEnv()


def test_an_absent_half_follows_the_half_that_is_added_later():
    actions = ActionTuple()
    assert actions.discrete.shape == (0, 0)
    actions.add_continuous(np.zeros((3, 2)))
    assert actions.discrete.shape == (3, 0)
