"""Trajectories: a hand-worked example as training data, and steps as objects against steps in columns."""

import numpy as np
import pytest

from mlagents.trainers.buffer import BufferKey, ObservationKeyPrefix
from mlagents.trainers.trajectory import (
    AgentExperience,
    AgentStatus,
    LogProbsTuple,
    ObsUtil,
    Trajectory,
    TrajectoryColumns,
    can_be_joined,
    joined,
)
from mlagents_envs.base_env import ActionTuple

# Three steps of an agent with a vector of 2 and an image of (1, 1, 2), one continuous action and branches of 2 and 3.
OBS_0 = [[1, 2], [3, 4], [5, 6]]
OBS_1 = [[[[10, 11]]], [[[12, 13]]], [[[14, 15]]]]
NEXT_OBS = [np.array([7, 8], dtype=np.float32), np.array([[[16, 17]]], dtype=np.float32)]
FORBIDDEN = [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 1, 0, 1]]
WHOSE = {"agent_id": "agent_2-5", "behavior_id": "Ball?team=1"}


def floats(values):
    return np.array(values, dtype=np.float32)


def ints(values):
    return np.array(values, dtype=np.int32)


def hybrid_columns(**changes) -> TrajectoryColumns:
    columns = {
        "obs": [floats(OBS_0), floats(OBS_1)],
        "reward": floats([0.5, -1, 2]),
        "done": np.array([False, False, True]),
        "interrupted": np.array([False, False, True]),
        "continuous": floats([[0.1], [0.2], [0.3]]),
        "discrete": ints([[0, 2], [1, 1], [0, 0]]),
        "prev_discrete": ints([[0, 0], [0, 2], [1, 1]]),
        "action_mask": np.array(FORBIDDEN, dtype=bool),
        "group_reward": floats([0, 3, 0]),
        "continuous_log_probs": floats([[-0.1], [-0.2], [-0.3]]),
        "discrete_log_probs": floats([[-1, -2], [-3, -4], [-5, -6]]),
        "memory": floats([[0, 0], [1.5, -2], [3, -4]]),
        "branches": (2, 3),
    }
    return TrajectoryColumns(**{**columns, **changes})


def hybrid_trajectory(**changes) -> Trajectory:
    return Trajectory(columns=hybrid_columns(**changes), next_obs=NEXT_OBS, **WHOSE)


def continuous_columns(n_steps: int, **changes) -> TrajectoryColumns:
    columns = {
        "obs": [np.arange(n_steps, dtype=np.float32)[:, None]],
        "reward": np.ones(n_steps, dtype=np.float32),
        "done": np.zeros(n_steps, dtype=bool),
        "interrupted": np.zeros(n_steps, dtype=bool),
        "continuous": np.ones((n_steps, 2), dtype=np.float32),
        "discrete": np.zeros((n_steps, 0), dtype=np.int32),
        "prev_discrete": np.zeros((n_steps, 0), dtype=np.int32),
        "action_mask": np.zeros((n_steps, 0), dtype=bool),
        "group_reward": np.zeros(n_steps, dtype=np.float32),
    }
    return TrajectoryColumns(**{**columns, **changes})


def assert_same_buffer(mine, theirs):
    assert mine.keys() == theirs.keys()
    assert mine.agent_id == theirs.agent_id
    for key in mine:
        np.testing.assert_array_equal(mine[key].to_ndarray(), theirs[key].to_ndarray(), err_msg=str(key), strict=True)
        assert mine[key].padding_value == theirs[key].padding_value


def test_a_trajectory_as_training_data():
    buffer = hybrid_trajectory().to_agentbuffer()
    expected = {
        (ObservationKeyPrefix.OBSERVATION, 0): floats(OBS_0),
        (ObservationKeyPrefix.OBSERVATION, 1): floats(OBS_1),
        (ObservationKeyPrefix.NEXT_OBSERVATION, 0): floats([[3, 4], [5, 6], [7, 8]]),
        (ObservationKeyPrefix.NEXT_OBSERVATION, 1): floats([[[[12, 13]]], [[[14, 15]]], [[[16, 17]]]]),
        BufferKey.MASKS: floats([1, 1, 1]),
        BufferKey.DONE: np.array([False, False, True]),
        BufferKey.GROUP_DONES: np.array([False, False, True]),
        BufferKey.CONTINUOUS_ACTION: floats([[0.1], [0.2], [0.3]]),
        BufferKey.DISCRETE_ACTION: ints([[0, 2], [1, 1], [0, 0]]),
        BufferKey.NEXT_CONT_ACTION: floats([[0.2], [0.3], [0]]),
        BufferKey.NEXT_DISC_ACTION: ints([[1, 1], [0, 0], [0, 0]]),
        BufferKey.CONTINUOUS_LOG_PROBS: floats([[-0.1], [-0.2], [-0.3]]),
        BufferKey.DISCRETE_LOG_PROBS: floats([[-1, -2], [-3, -4], [-5, -6]]),
        BufferKey.ACTION_MASK: floats([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 0, 1, 0]]),
        BufferKey.PREV_ACTION: ints([[0, 0], [0, 2], [1, 1]]),
        BufferKey.MEMORY: floats([[0, 0], [1.5, -2], [3, -4]]),
        BufferKey.ENVIRONMENT_REWARDS: floats([0.5, -1, 2]),
        BufferKey.GROUP_REWARD: floats([0, 3, 0]),
    }
    assert buffer.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(buffer[key].to_ndarray(), values, err_msg=str(key), strict=True)
    assert buffer.agent_id == "agent_2-5"
    assert buffer.num_experiences == 3
    np.testing.assert_array_equal(ObsUtil.from_buffer(buffer, 2)[1], floats(OBS_1))
    np.testing.assert_array_equal(ObsUtil.from_buffer_next(buffer, 2)[0], floats([[3, 4], [5, 6], [7, 8]]))


def test_joined_trajectories_are_the_rows_of_one_behind_those_of_the_other():
    others = {"reward": floats([7, 8, 9]), "continuous": floats([[4], [5], [6]]), "done": np.zeros(3, dtype=bool)}
    later = Trajectory(columns=hybrid_columns(**others), next_obs=[2 * obs for obs in NEXT_OBS], **WHOSE)
    one_step = Trajectory(
        columns=TrajectoryColumns(
            **{
                name: value if name == "branches" else cut_to_one(value)
                for name, value in vars(hybrid_columns()).items()
            }
        ),
        next_obs=NEXT_OBS,
        **WHOSE,
    )
    trajectories = [hybrid_trajectory(), one_step, later]
    assert can_be_joined(trajectories)
    buffer = joined(trajectories)
    apart = [it.to_agentbuffer() for it in trajectories]
    assert buffer.keys() == apart[0].keys()
    assert buffer.agent_id is None
    for key in buffer:
        expected = np.concatenate([it[key].to_ndarray() for it in apart])
        np.testing.assert_array_equal(buffer[key].to_ndarray(), expected, err_msg=str(key), strict=True)
        assert buffer[key].padding_value == apart[0][key].padding_value


def cut_to_one(column):
    return [obs[:1] for obs in column] if isinstance(column, list) else column[:1]


@pytest.mark.parametrize("missing", ["continuous_log_probs", "discrete_log_probs", "memory"])
def test_trajectories_with_and_without_a_column_cannot_be_joined(missing):
    with_it, without = hybrid_trajectory(), hybrid_trajectory(**{missing: None})
    assert can_be_joined([without, without])
    assert not can_be_joined([with_it, without])


def test_padding_repeats_the_action_mask_and_is_zero_elsewhere():
    padded = hybrid_trajectory().to_agentbuffer()
    target = type(padded)()
    padded.resequence_and_append(target, training_length=2)
    assert target.num_experiences == 4
    np.testing.assert_array_equal(target[BufferKey.ACTION_MASK][-2:], floats([[0, 1, 0, 1, 0]] * 2))
    np.testing.assert_array_equal(target[BufferKey.MASKS], floats([1, 1, 1, 0]))
    for key in target.keys() - {BufferKey.ACTION_MASK, BufferKey.MASKS}:
        np.testing.assert_array_equal(target[key][:3], padded[key], err_msg=str(key))
        assert not np.any(target[key][3]), key
        assert target[key].to_ndarray().dtype == padded[key].to_ndarray().dtype


def test_columns_that_a_behaviour_does_not_use_have_width_0():
    buffer = Trajectory(columns=continuous_columns(3), next_obs=[floats([9])]).to_agentbuffer()
    for key in (BufferKey.DISCRETE_ACTION, BufferKey.NEXT_DISC_ACTION, BufferKey.PREV_ACTION, BufferKey.ACTION_MASK):
        assert np.array(buffer[key]).shape == (3, 0), key
    no_continuous = np.zeros((3, 0), dtype=np.float32)
    discrete = hybrid_trajectory(continuous=no_continuous, continuous_log_probs=no_continuous).to_agentbuffer()
    for key in (BufferKey.CONTINUOUS_ACTION, BufferKey.NEXT_CONT_ACTION, BufferKey.CONTINUOUS_LOG_PROBS):
        assert np.array(discrete[key]).shape == (3, 0), key


def test_no_log_probabilities_no_columns_of_them():
    trajectory = hybrid_trajectory(continuous_log_probs=None, discrete_log_probs=None)
    buffer = trajectory.to_agentbuffer()
    assert BufferKey.CONTINUOUS_LOG_PROBS not in buffer
    assert BufferKey.DISCRETE_LOG_PROBS not in buffer
    assert trajectory.steps[0].action_probs is None


def test_no_memory_no_column_of_it():
    assert BufferKey.MEMORY not in hybrid_trajectory(memory=None).to_agentbuffer()


@pytest.mark.parametrize("kind", ["columns", "steps"])
def test_a_trainer_may_write_to_the_buffer_and_the_trajectory_stays_as_it_was(kind):
    trajectory = hybrid_trajectory()
    if kind == "steps":
        trajectory = Trajectory(trajectory.steps, NEXT_OBS, **WHOSE)
    buffer = trajectory.to_agentbuffer()
    for key in buffer:
        buffer[key][-1] = np.ones_like(buffer[key][-1])
    buffer[BufferKey.DONE][-1] = False  # as off-policy trainers do where the episode was interrupted
    assert trajectory.done_reached
    assert np.any(buffer[BufferKey.GROUP_DONES])
    assert_same_buffer(trajectory.to_agentbuffer(), hybrid_trajectory().to_agentbuffer())


def test_steps_are_a_view_of_the_columns():
    first, second, last = hybrid_trajectory().steps
    np.testing.assert_array_equal(second.obs[0], [3, 4])
    np.testing.assert_array_equal(second.obs[1], [[[12, 13]]])
    assert (first.reward, second.reward, last.reward) == (0.5, -1.0, 2.0)
    assert (first.done, last.done) == (False, True)
    assert (first.interrupted, last.interrupted) == (False, True)
    np.testing.assert_array_equal(second.action.continuous, floats([0.2]))
    np.testing.assert_array_equal(second.action.discrete, [1, 1])
    np.testing.assert_array_equal(second.action_probs.continuous, floats([-0.2]))
    np.testing.assert_array_equal(second.action_probs.discrete, [-3, -4])
    assert [mask.tolist() for mask in last.action_mask] == [[True, False], [True, False, True]]
    np.testing.assert_array_equal(second.prev_action, [0, 2])
    assert second.group_reward == 3.0
    assert second.group_status == []
    np.testing.assert_array_equal(second.memory, floats([1.5, -2]))
    (plain,) = Trajectory(columns=continuous_columns(1), next_obs=[floats([9])]).steps
    assert plain.action_mask is None
    assert plain.memory is None


def test_steps_are_made_once():
    trajectory = hybrid_trajectory()
    assert len(trajectory) == 3
    assert trajectory.steps is trajectory.steps


@pytest.mark.parametrize(
    "trajectory",
    [
        hybrid_trajectory(),
        hybrid_trajectory(continuous_log_probs=None, discrete_log_probs=None),
        hybrid_trajectory(memory=None),
        Trajectory(columns=continuous_columns(4), next_obs=[floats([9])], **WHOSE),
        Trajectory(columns=continuous_columns(1), next_obs=[floats([9])], **WHOSE),
    ],
    ids=["hybrid", "without log probabilities", "without memory", "continuous", "one step"],
)
def test_steps_gathered_again_give_the_same_training_data(trajectory):
    steps = list(trajectory.steps)
    again = Trajectory(steps=steps, next_obs=trajectory.next_obs, next_group_obs=[], **WHOSE)
    assert_same_buffer(again.to_agentbuffer(), trajectory.to_agentbuffer())
    assert len(again) == len(trajectory)
    assert (again.done_reached, again.interrupted) == (trajectory.done_reached, trajectory.interrupted)
    assert again.columns.branches == trajectory.columns.branches
    assert all(mine is given for mine, given in zip(again.steps, steps))


def experience(**changes) -> AgentExperience:
    fields = {
        "obs": [np.array([1.0, 2.0])],
        "reward": 1.0,
        "done": False,
        "action": ActionTuple(discrete=np.array([1])),
        "action_probs": LogProbsTuple(discrete=np.array([-0.5])),
        "action_mask": None,
        "prev_action": np.array([0.0]),
        "interrupted": False,
        "memory": None,
        "group_status": [],
        "group_reward": 0.0,
    }
    return AgentExperience(**{**fields, **changes})


def test_a_step_without_a_mask_among_steps_with_masks_allows_everything():
    steps = [experience(), experience(action_mask=[np.array([True, False, True])])]
    buffer = Trajectory(steps, next_obs=[np.zeros(2)]).to_agentbuffer()
    np.testing.assert_array_equal(buffer[BufferKey.ACTION_MASK], [[1, 1, 1], [0, 1, 0]])


def test_steps_made_of_pythons_numbers_become_columns_of_the_usual_types():
    buffer = Trajectory([experience()] * 2, next_obs=[np.zeros(2)]).to_agentbuffer()
    assert buffer[ObsUtil.get_name_at(0)].to_ndarray().dtype == np.float32
    assert buffer[ObsUtil.get_name_at_next(0)].to_ndarray().dtype == np.float32
    assert buffer[BufferKey.ENVIRONMENT_REWARDS].to_ndarray().dtype == np.float32
    assert buffer[BufferKey.PREV_ACTION].to_ndarray().dtype == np.int32


def test_how_an_episode_ended():
    last_done = np.array([False, True])
    for done, interrupted in [(False, False), (True, False), (True, True)]:
        columns = continuous_columns(2, done=last_done & done, interrupted=last_done & interrupted)
        trajectory = Trajectory(columns=columns, next_obs=[floats([9])])
        assert (trajectory.done_reached, trajectory.interrupted) == (done, interrupted)
        assert trajectory.all_group_dones_reached is done


@pytest.mark.parametrize("mate_done", [False, True])
def test_a_group_has_ended_when_all_its_members_have(mate_done):
    mate = AgentStatus([np.zeros(2)], 0.0, ActionTuple(discrete=np.array([0])), mate_done)
    trajectory = Trajectory([experience(done=True, group_status=[mate])], next_obs=[np.zeros(2)])
    assert trajectory.all_group_dones_reached is mate_done


def test_a_trajectory_without_steps_is_refused():
    with pytest.raises(ValueError, match="at least one step"):
        Trajectory(steps=[], next_obs=[])


def test_log_probabilities_are_floats_in_both_halves():
    log_probs = LogProbsTuple(np.zeros((2, 3)), np.zeros((2, 1)))
    assert log_probs.continuous.dtype == log_probs.discrete.dtype == np.float32
    assert LogProbsTuple.empty_log_probs().continuous.shape == (0, 0)
