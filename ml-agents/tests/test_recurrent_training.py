"""PPO with memory: values along trajectories, sequences in minibatches, padding."""

import numpy as np
import pytest
import torch

from mlagents.trainers.agent_processor import AgentManagerQueue, LostAgents
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import BufferKey, RewardSignalUtil
from mlagents.trainers.ppo.optimizer_torch import TorchPPOOptimizer
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer
from mlagents.trainers.settings import NetworkSettings, TrainerSettings
from mlagents.trainers.trajectory import ObsUtil, Trajectory, TrajectoryColumns
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, vector_observation

BEHAVIOR_ID = "Rememberer?team=0"
SPEC = BehaviorSpec([vector_observation(2, "seen")], ActionSpec(1, (3,)))
T, M = 4, 6


@pytest.fixture
def make_trainer(tmp_path):
    def make(shared_critic=False, **hyperparameters):
        torch.manual_seed(0)
        np.random.seed(0)
        memory = NetworkSettings.MemorySettings(sequence_length=T, memory_size=M)
        settings = TrainerSettings(
            hyperparameters=PPOSettings(shared_critic=shared_critic, **hyperparameters),
            network_settings=NetworkSettings(hidden_units=5, num_layers=1, memory=memory),
        )
        trainer = PPOTrainer("Rememberer", 10, settings, True, False, 0, str(tmp_path))
        identifiers = BehaviorIdentifiers.from_name_behavior_id(BEHAVIOR_ID)
        trainer.add_policy(identifiers, trainer.create_policy(identifiers, SPEC))
        return trainer

    return make


def trajectory(rng, n_steps, agent="a", done=False, interrupted=False):
    is_last = np.arange(n_steps) == n_steps - 1
    columns = TrajectoryColumns(
        obs=[rng.normal(size=(n_steps, 2)).astype(np.float32)],
        reward=rng.normal(size=n_steps).astype(np.float32),
        done=is_last & (done or interrupted),
        interrupted=is_last & interrupted,
        continuous=rng.normal(size=(n_steps, 1)).astype(np.float32),
        discrete=rng.integers(0, 3, size=(n_steps, 1), dtype=np.int32),
        prev_discrete=np.zeros((n_steps, 1), dtype=np.int32),
        action_mask=np.zeros((n_steps, 3), dtype=bool),
        group_reward=np.zeros(n_steps, dtype=np.float32),
        continuous_log_probs=rng.normal(-1, 0.1, size=(n_steps, 1)).astype(np.float32),
        discrete_log_probs=rng.normal(-1, 0.1, size=(n_steps, 1)).astype(np.float32),
        memory=rng.normal(size=(n_steps, M)).astype(np.float32),
        branches=(3,),
    )
    next_obs = [rng.normal(size=2).astype(np.float32)]
    return Trajectory(columns=columns, next_obs=next_obs, agent_id=agent, behavior_id=BEHAVIOR_ID)


class StepByStep:
    """The critic asked one row at a time, with a memory per agent in a dictionary."""

    def __init__(self, critic):
        self.critic = critic
        self.memories = {}

    def values(self, lived, ends):
        """Return the values of all steps and of what came after, and the memory before each step."""
        memory = self.memories.pop(lived.agent_id, torch.zeros(1, 1, M))
        values, before = [], []
        for row in lived.columns.obs[0]:
            before.append(memory[0, 0].numpy())
            value, memory = self.one(row, memory)
            values.append(value)
        if not ends:
            self.memories[lived.agent_id] = memory
        values.append(self.one(lived.next_obs[0], memory)[0])
        return values, np.array(before)

    @torch.no_grad()
    def one(self, row, memory):
        values, memory = self.critic.critic_pass([torch.from_numpy(row)[None]], memories=memory, sequence_length=1)
        return float(values["extrinsic"]), memory


@pytest.mark.parametrize("shared_critic", [False, True])
def test_the_critic_remembers_each_agent_by_itself_until_its_episode_ends(make_trainer, shared_critic):
    optimizer = make_trainer(shared_critic).optimizer
    twin = StepByStep(optimizer.critic)
    rng = np.random.default_rng(0)
    lengths = {"cut": {}, "done": {"done": True}, "interrupted": {"interrupted": True}}
    for _ in range(60):
        ending = rng.choice(["cut", "cut", "done", "interrupted"])
        lived = trajectory(rng, int(rng.integers(1, 11)), agent=rng.choice(["a", "b", "c"]), **lengths[ending])
        values, next_values, memories = optimizer.get_trajectory_value_estimates(
            lived.to_agentbuffer(), lived.next_obs, ending == "done"
        )
        (*expected, expected_next), before = twin.values(lived, ends=ending != "cut")
        np.testing.assert_allclose(values["extrinsic"], expected, atol=1e-6)
        assert next_values["extrinsic"] == pytest.approx(0.0 if ending == "done" else expected_next, abs=1e-6)
        assert len(memories) == len(lived)
        np.testing.assert_allclose(memories[::T].to_ndarray(), before[::T], atol=1e-6)
    assert set(optimizer.critic_memory_dict) == set(twin.memories)


def test_starting_all_episodes_anew_clears_what_the_critic_remembers(make_trainer):
    trainer = make_trainer()
    trainer._process_trajectory(trajectory(np.random.default_rng(0), 3))
    assert trainer.optimizer.critic_memory_dict
    trainer.end_episode()
    assert not trainer.optimizer.critic_memory_dict


def test_the_critic_forgets_agents_that_are_lost(make_trainer):
    trainer = make_trainer()
    queue = AgentManagerQueue(BEHAVIOR_ID)
    trainer.subscribe_trajectory_queue(queue)
    rng = np.random.default_rng(0)
    for item in (trajectory(rng, 3, agent="a"), trajectory(rng, 3, agent="b"), LostAgents(["a"])):
        queue.put(item)
    trainer.advance()
    assert set(trainer.optimizer.critic_memory_dict) == set(trainer.collected_rewards["environment"]) == {"b"}


def test_trajectories_become_padded_sequences(make_trainer):
    trainer = make_trainer()
    lived = trajectory(np.random.default_rng(0), 6)
    trainer._process_trajectory(lived)
    buffer = trainer.update_buffer
    assert buffer.num_experiences == 8
    np.testing.assert_array_equal(buffer[BufferKey.MASKS], [1, 1, 1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(buffer[BufferKey.MEMORY].to_ndarray()[:6], lived.columns.memory)
    assert buffer[BufferKey.CRITIC_MEMORY].to_ndarray().shape == (8, M)
    first, second = trainer.optimizer.initial_memories(buffer)[0]
    np.testing.assert_array_equal(first, lived.columns.memory[0])
    np.testing.assert_array_equal(second, lived.columns.memory[4])


def test_what_stands_in_the_padding_changes_nothing(make_trainer):
    def parameters_after_an_update(fill):
        trainer = make_trainer(batch_size=8)
        rng = np.random.default_rng(3)
        trainer._process_trajectory(trajectory(rng, 6))
        buffer = trainer.update_buffer
        padding = buffer[BufferKey.MASKS].to_ndarray() == 0
        filled = [
            ObsUtil.get_name_at(0),
            BufferKey.CONTINUOUS_ACTION,
            BufferKey.CONTINUOUS_LOG_PROBS,
            BufferKey.DISCRETE_LOG_PROBS,
            BufferKey.ADVANTAGES,
            RewardSignalUtil.returns_key("extrinsic"),
            RewardSignalUtil.value_estimates_key("extrinsic"),
        ]
        for key in filled:
            buffer[key].to_ndarray()[padding] = fill
        trainer._update_policy()
        return [*trainer.policy.actor.parameters(), *trainer.optimizer.critic.parameters()]

    for zero, seven in zip(parameters_after_an_update(0.0), parameters_after_an_update(7.0)):
        assert torch.equal(zero, seven)


def test_advantages_are_normalised_over_what_is_no_padding(make_trainer):
    trainer = make_trainer()
    trainer._process_trajectory(trajectory(np.random.default_rng(0), 6))
    trainer._normalize_advantages()
    advantages = trainer.update_buffer[BufferKey.ADVANTAGES].to_ndarray()
    assert advantages[:6].mean() == pytest.approx(0, abs=1e-6)
    assert advantages[:6].std() == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(advantages[6:], 0)


@pytest.mark.parametrize("shared_critic", [False, True])
def test_minibatches_start_from_the_memories_that_were_there_when_acting(
    basic_config, run_learn, monkeypatch, shared_critic
):
    """Until the first gradient step, actor and critic give in training what they gave while collecting."""
    compared = []
    update = TorchPPOOptimizer.update

    def compare_then_update(self, batch, n_sequences):
        if not compared:
            now = self._evaluate(batch)
            valid = now.masks
            assert not valid.all()
            compared.append(now)
            torch.testing.assert_close(now.log_probs[valid], now.old_log_probs[valid], atol=1e-5, rtol=1e-5)
            values, old_values = now.values["extrinsic"][valid], now.old_values["extrinsic"][valid]
            torch.testing.assert_close(values, old_values, atol=1e-5, rtol=1e-5)
        return update(self, batch, n_sequences)

    monkeypatch.setattr(TorchPPOOptimizer, "update", compare_then_update)
    config = basic_config(
        hyperparameters={"batch_size": 64, "shared_critic": shared_critic},
        network_settings={"memory": {"sequence_length": 5, "memory_size": 8}},
    )
    code, _, error = run_learn(config, "--env", "Basic", "--num-areas", 3, "--seed", 1)
    assert code == 0, error
    assert compared
