"""Buffers, handled as the lists that they were."""

import numpy as np
import pytest
import torch

from mlagents.trainers.buffer import (
    AgentBuffer,
    AgentBufferField,
    BufferKey,
    ObservationKeyPrefix,
    RewardSignalKeyPrefix,
    RewardSignalUtil,
)
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.base_env import ActionSpec


@pytest.fixture
def buffer():
    made = AgentBuffer()
    made[BufferKey.ENVIRONMENT_REWARDS] = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    return made


@pytest.fixture
def rewards(buffer):
    return buffer[BufferKey.ENVIRONMENT_REWARDS]


def test_a_missing_key_reads_as_an_empty_field_and_is_then_there():
    buffer = AgentBuffer()
    assert BufferKey.ADVANTAGES not in buffer
    field = buffer[BufferKey.ADVANTAGES]
    assert isinstance(field, AgentBufferField)
    assert len(field) == 0
    assert list(field) == field.get_batch() == []
    assert BufferKey.ADVANTAGES in buffer
    field.extend(np.ones(2))
    assert buffer[BufferKey.ADVANTAGES] is field


class TestAField:
    def test_an_array_is_assigned(self, rewards):
        assert isinstance(rewards, AgentBufferField)
        assert rewards == [1.0, 2.0, 3.0]

    def test_the_last_entry_is_assigned(self, rewards):
        rewards[-1] = 9.0
        assert rewards == [1.0, 2.0, 9.0]

    def test_the_last_row_is_assigned(self, buffer):
        buffer[ObsUtil.get_name_at(0)] = np.zeros((3, 2), dtype=np.float32)
        buffer[ObsUtil.get_name_at(0)][-1] = np.array([5.0, 6.0])
        np.testing.assert_array_equal(buffer[ObsUtil.get_name_at(0)], [[0, 0], [0, 0], [5, 6]])

    def test_a_truth_value_is_assigned(self, buffer):
        buffer[BufferKey.DONE] = np.array([False, False, True])
        buffer[BufferKey.DONE][-1] = False
        assert not np.any(buffer[BufferKey.DONE])

    def test_any_entry_is_assigned(self, rewards):
        for index in range(len(rewards)):
            rewards[index] = index * 0.5
        assert rewards == [0.0, 0.5, 1.0]

    @pytest.mark.parametrize("values", [[7.0, 8.0, 9.0], np.array([7.0, 8.0, 9.0]), AgentBufferField([7.0, 8.0, 9.0])])
    def test_all_entries_are_assigned(self, buffer, rewards, values):
        rewards[:] = values
        assert rewards == [7.0, 8.0, 9.0]
        assert buffer[BufferKey.ENVIRONMENT_REWARDS] is rewards

    def test_some_entries_are_assigned(self, rewards):
        rewards[1:] = [8.0, 9.0]
        assert rewards == [1.0, 8.0, 9.0]

    def test_it_is_extended_by_an_array(self, rewards):
        rewards.extend(np.array([4.0, 5.0]))
        assert rewards == [1.0, 2.0, 3.0, 4.0, 5.0]

    def test_it_is_extended_by_a_list_of_rows(self):
        field = AgentBufferField()
        field.extend([np.zeros(2), np.ones(2)])
        np.testing.assert_array_equal(field.to_ndarray(), [[0, 0], [1, 1]])

    def test_len_and_iteration(self, rewards):
        assert len(rewards) == 3
        assert [value * 2 for value in rewards] == [2.0, 4.0, 6.0]
        assert [float(value) for value in reversed(rewards)] == [3.0, 2.0, 1.0]

    def test_numpy_takes_it_for_an_array(self, rewards):
        assert np.sum(rewards) == 6.0
        assert np.mean(rewards) == 2.0
        assert np.max(rewards) == 3.0
        assert np.any(rewards)
        assert not np.any(AgentBufferField([0.0, 0.0]))
        np.testing.assert_array_equal(np.array(rewards), [1.0, 2.0, 3.0])
        np.testing.assert_array_equal(np.array(rewards, dtype=np.float64) + 1, [2.0, 3.0, 4.0])
        np.testing.assert_array_equal(np.array(rewards) * rewards, [1.0, 4.0, 9.0])

    def test_an_array_made_of_it_is_a_copy(self, rewards):
        np.array(rewards)[0] = 7.0
        assert rewards[0] == 1.0

    def test_get_batch(self, rewards):
        assert isinstance(rewards.get_batch(), list)
        assert rewards.get_batch() == [1.0, 2.0, 3.0]
        np.testing.assert_array_equal(np.array(rewards.get_batch()) - np.ones(3), [0.0, 1.0, 2.0])

    @pytest.mark.parametrize("values", [[4.0, 5.0], np.array([4.0, 5.0]), AgentBufferField([4.0, 5.0])])
    def test_set(self, rewards, values):
        rewards.set(values)
        assert rewards == [4.0, 5.0]

    def test_set_to_a_list_of_rows(self, rewards):
        rewards.set([np.zeros(3), np.ones(3)])
        assert ModelUtils.list_to_tensor(rewards).shape == (2, 3)

    def test_what_is_set_is_not_shared(self, rewards):
        values = np.array([4.0, 5.0], dtype=np.float32)
        rewards.set(values)
        values[0] = 0.0
        assert rewards == [4.0, 5.0]

    def test_the_first_row_of_every_sequence(self):
        """As plug-ins gather the memories of a minibatch."""
        field = AgentBufferField(np.arange(12, dtype=np.float32).reshape(6, 2))
        rows = [ModelUtils.list_to_tensor(field[i]) for i in range(0, len(field), 3)]
        assert torch.stack(rows).unsqueeze(0).tolist() == [[[0.0, 1.0], [6.0, 7.0]]]

    def test_rows_of_nothing(self):
        """A critic may remember nothing and yet be asked."""
        field = AgentBufferField()
        field.set(np.zeros((4, 0), dtype=np.float32))
        rows = [ModelUtils.list_to_tensor(field[i]) for i in range(0, len(field), 2)]
        assert torch.stack(rows).unsqueeze(0).shape == (1, 2, 0)
        target = AgentBuffer()
        source = AgentBuffer()
        source[BufferKey.CRITIC_MEMORY] = field
        source.resequence_and_append(target, training_length=3)
        assert target[BufferKey.CRITIC_MEMORY].to_ndarray().shape == (6, 0)


def test_keys():
    assert ObsUtil.get_name_at(2) == (ObservationKeyPrefix.OBSERVATION, 2)
    assert ObsUtil.get_name_at_next(2) == (ObservationKeyPrefix.NEXT_OBSERVATION, 2)
    for make, prefix in [
        (RewardSignalUtil.rewards_key, RewardSignalKeyPrefix.REWARDS),
        (RewardSignalUtil.value_estimates_key, RewardSignalKeyPrefix.VALUE_ESTIMATES),
        (RewardSignalUtil.returns_key, RewardSignalKeyPrefix.RETURNS),
        (RewardSignalUtil.advantage_key, RewardSignalKeyPrefix.ADVANTAGE),
        (RewardSignalUtil.baseline_estimates_key, RewardSignalKeyPrefix.BASELINES),
    ]:
        assert make("own signal") == (prefix, "own signal")
    keys = [
        BufferKey.DONE,
        ObsUtil.get_name_at(0),
        ObsUtil.get_name_at_next(0),
        *map(RewardSignalUtil.returns_key, "ab"),
    ]
    buffer = AgentBuffer()
    for number, key in enumerate(keys):
        buffer[key].append(np.float32(number))
    assert set(buffer) == set(keys)
    assert [float(buffer[key][0]) for key in keys] == [0, 1, 2, 3, 4]


class TestATrajectorysBuffer:
    @pytest.mark.parametrize(
        ("action_spec", "widths"),
        [
            (ActionSpec.create_continuous(2), (2, 0, 0)),
            (ActionSpec.create_discrete((3, 2)), (0, 2, 5)),
            (ActionSpec(1, (4,)), (1, 1, 4)),
        ],
        ids=["continuous", "discrete", "both"],
    )
    def test_actions_and_masks_are_always_there(self, make_trajectory, action_spec, widths):
        buffer = make_trajectory(3, action_spec=action_spec).to_agentbuffer()
        keys = (BufferKey.CONTINUOUS_ACTION, BufferKey.DISCRETE_ACTION, BufferKey.ACTION_MASK)
        assert all(key in buffer for key in keys)
        assert [buffer[key].to_ndarray().shape for key in keys] == [(3, width) for width in widths]

    def test_it_knows_whose_it_is(self, make_trajectory):
        assert make_trajectory(3, agent_id="agent_1-4").to_agentbuffer().agent_id == "agent_1-4"

    def test_writing_to_it_leaves_the_trajectory_alone(self, make_trajectory):
        lived = make_trajectory(3, interrupted=True)
        buffer = lived.to_agentbuffer()
        buffer[BufferKey.DONE][-1] = False
        buffer[ObsUtil.get_name_at_next(0)][-1] = lived.steps[-1].obs[0]
        assert lived.done_reached
        assert (lived.to_agentbuffer()[ObsUtil.get_name_at_next(0)][-1] == lived.next_obs[0]).all()

    @pytest.mark.parametrize(
        ("how", "done", "interrupted"),
        [({}, False, False), ({"done": True}, True, False), ({"interrupted": True}, True, True)],
    )
    def test_its_last_step(self, make_trajectory, how, done, interrupted):
        lived = make_trajectory(3, **how)
        last = lived.steps[-1]
        assert (last.done, last.interrupted) == (lived.done_reached, lived.interrupted) == (done, interrupted)
        seen = [column[-1] for column in ObsUtil.from_buffer(lived.to_agentbuffer(), 2)]
        for of_step, of_buffer in zip(last.obs, seen, strict=True):
            np.testing.assert_array_equal(of_step, of_buffer)
        assert len(lived.steps) == 3


def test_the_last_step_of_what_was_really_collected(run_learn, basic_config, install_plugin):
    """The steps of a trajectory that a run collected, held in columns, read as objects."""
    install_plugin(
        "reads-steps",
        """
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer

class Trainer(PPOTrainer):
    seen = []

    def _process_trajectory(self, trajectory):
        last = trajectory.steps[-1]
        self.seen.append((len(trajectory.steps), last.done, last.interrupted, last.obs[0].argmax()))
        super()._process_trajectory(trajectory)

def get_type_and_setting():
    return {"reads": Trainer}, {"reads": PPOSettings}
""",
    )
    code, _, err = run_learn(basic_config(trainer_type="reads", max_steps=200), "--env", "Basic", "--seed", 1)
    assert code == 0, err
    import reads_steps

    ended = [seen for seen in reads_steps.Trainer.seen if seen[1]]
    assert ended
    # Nobody is interrupted; the last observation before an end is beside one of Basic's two goals, 7 and 17.
    assert {(interrupted, int(position)) for _, _, interrupted, position in ended} <= {(False, 8), (False, 16)}
    assert {length for length, done, _, _ in reads_steps.Trainer.seen if not done} == {8}
