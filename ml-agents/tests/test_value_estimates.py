"""Values of many trajectories at once: what an actor-critic trainer learns from, against one trajectory at a time."""

import numpy as np
import pytest
import torch

from mlagents.trainers.agent_processor import AgentManagerQueue
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import BufferKey, RewardSignalUtil
from mlagents.trainers.exception import NotFiniteError
from mlagents.trainers.optimizer import torch_optimizer
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer
from mlagents.trainers.settings import NetworkSettings, TrainerSettings
from mlagents.trainers.trainer.trainer_utils import get_gae
from mlagents.trainers.trajectory import Trajectory, TrajectoryColumns
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, image_observation, vector_observation

BEHAVIOR_ID = "Seer?team=0"
SPECS = {
    "vector": BehaviorSpec([vector_observation(3, "scalars")], ActionSpec(1, ())),
    "image and vector": BehaviorSpec(
        [image_observation(3, 20, 20, "camera"), vector_observation(3, "scalars")], ActionSpec(1, ())
    ),
}
ENDINGS = ({}, {"done": True}, {"done": True, "interrupted": True})
VALUES = RewardSignalUtil.value_estimates_key("extrinsic")


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


@pytest.fixture
def trainer(spec, tmp_path):
    torch.manual_seed(0)
    network = NetworkSettings(hidden_units=8, num_layers=1)
    settings = TrainerSettings(hyperparameters=PPOSettings(buffer_size=10**6), network_settings=network)
    trainer = PPOTrainer("Seer", 10, settings, True, False, 0, str(tmp_path))
    identifiers = BehaviorIdentifiers.from_name_behavior_id(BEHAVIOR_ID)
    trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
    return trainer


def trajectory(rng, spec, n_steps, done=False, interrupted=False):
    is_last = np.arange(n_steps) == n_steps - 1
    # Pixels of 8 bits, which the update buffer keeps as such.
    seen = [rng.integers(0, 256, (n_steps + 1, *it.shape)).astype(np.float32) / 255 for it in spec.observation_specs]
    columns = TrajectoryColumns(
        obs=[rows[:-1] for rows in seen],
        reward=rng.normal(size=n_steps).astype(np.float32),
        done=is_last & done,
        interrupted=is_last & interrupted,
        continuous=rng.normal(size=(n_steps, 1)).astype(np.float32),
        discrete=np.zeros((n_steps, 0), dtype=np.int32),
        prev_discrete=np.zeros((n_steps, 0), dtype=np.int32),
        action_mask=np.zeros((n_steps, 0), dtype=bool),
        group_reward=np.zeros(n_steps, dtype=np.float32),
        continuous_log_probs=np.full((n_steps, 1), -1.0, dtype=np.float32),
        discrete_log_probs=np.zeros((n_steps, 0), dtype=np.float32),
    )
    next_obs = [rows[-1] for rows in seen]
    return Trajectory(columns=columns, next_obs=next_obs, agent_id="a", behavior_id=BEHAVIOR_ID)


def one_by_one(trainer, trajectories):
    """Return values and advantages of every step."""
    signal = trainer.optimizer.reward_signals["extrinsic"]
    values, advantages = [], []
    for lived in trajectories:
        is_final = lived.done_reached and not lived.interrupted
        estimates, next_values, _ = trainer.optimizer.get_trajectory_value_estimates(
            lived.to_agentbuffer(), lived.next_obs, is_final
        )
        values.append(estimates["extrinsic"])
        advantages.append(
            get_gae(
                lived.columns.reward,
                values[-1],
                next_values["extrinsic"],
                gamma=signal.gamma,
                lambd=trainer.hyperparameters.lambd,
            )
        )
    return np.concatenate(values), np.concatenate(advantages)


def assert_complete(trainer, trajectories):
    values, advantages = one_by_one(trainer, trajectories)
    np.testing.assert_allclose(trainer.update_buffer[VALUES].to_ndarray(), values, atol=1e-5)
    np.testing.assert_allclose(trainer.update_buffer[BufferKey.ADVANTAGES].to_ndarray(), advantages, atol=1e-5)


@pytest.mark.parametrize("ignores_done", [False, True])
def test_all_at_once_is_as_one_by_one(trainer, spec, monkeypatch, ignores_done):
    monkeypatch.setattr(torch_optimizer, "_ROWS_PER_PASS", 16)
    trainer.optimizer.reward_signals["extrinsic"]._ignore_done = ignores_done
    rng = np.random.default_rng(0)
    trajectories = [trajectory(rng, spec, int(rng.integers(1, 9)), **ENDINGS[index % 3]) for index in range(20)]
    for lived in trajectories:
        trainer._process_trajectory(lived)
    assert VALUES not in trainer.update_buffer
    trainer._prepare_update()
    assert_complete(trainer, trajectories)


def test_only_what_is_new_is_completed(trainer, spec):
    """A trainer may keep rows from one update to the next."""
    rng = np.random.default_rng(1)
    trajectories = [trajectory(rng, spec, 5, **ending) for ending in ENDINGS]
    for lived in trajectories:
        trainer._process_trajectory(lived)
        trainer._prepare_update()
        trainer._prepare_update()
    assert_complete(trainer, trajectories)


def test_rows_that_are_dropped_are_not_waited_for(trainer, spec):
    rng = np.random.default_rng(2)
    trainer._process_trajectory(trajectory(rng, spec, 5))
    trainer._clear_update_buffer()
    kept = trajectory(rng, spec, 3)
    trainer._process_trajectory(kept)
    trainer._prepare_update()
    assert_complete(trainer, [kept])


def test_an_optimizer_with_values_of_its_own_is_asked_for_each_trajectory(trainer, spec, monkeypatch):
    class Optimizer(type(trainer.optimizer)):
        def get_trajectory_value_estimates(self, batch, next_obs, done):
            assert batch.agent_id == "a"
            return {"extrinsic": np.arange(batch.num_experiences, dtype=np.float32)}, {"extrinsic": 7.0}, None

    monkeypatch.setattr(trainer.optimizer, "__class__", Optimizer)
    rng = np.random.default_rng(3)
    trajectories = [trajectory(rng, spec, n_steps) for n_steps in (3, 2)]
    for lived in trajectories:
        trainer._process_trajectory(lived)
    trainer._prepare_update()
    assert trainer.update_buffer[VALUES].to_ndarray().tolist() == [0, 1, 2, 0, 1]
    assert_complete(trainer, trajectories)


def test_a_trainer_may_choose_what_it_learns_from(trainer, spec, monkeypatch):
    class LastSteps(PPOTrainer):
        def _append_to_update_buffer(self, agentbuffer_trajectory):
            n_rows = agentbuffer_trajectory.num_experiences
            super()._append_to_update_buffer(agentbuffer_trajectory.make_mini_batch(n_rows - 1, n_rows))

    monkeypatch.setattr(trainer, "__class__", LastSteps)
    rng = np.random.default_rng(4)
    trajectories = [trajectory(rng, spec, n_steps, **ending) for n_steps, ending in zip((3, 1, 4), ENDINGS)]
    for lived in trajectories:
        trainer._process_trajectory(lived)
    trainer._prepare_update()
    values, advantages = one_by_one(trainer, trajectories)
    np.testing.assert_allclose(trainer.update_buffer[VALUES].to_ndarray(), values[[2, 3, 7]], atol=1e-5)
    np.testing.assert_allclose(
        trainer.update_buffer[BufferKey.ADVANTAGES].to_ndarray(), advantages[[2, 3, 7]], atol=1e-5
    )


# Trajectories that come at the same time


def assert_same(mine, theirs):
    for key in theirs.update_buffer:
        ours, expected = (it.update_buffer[key].to_ndarray() for it in (mine, theirs))
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6, err_msg=str(key))
    assert mine.update_buffer.keys() == theirs.update_buffer.keys()
    assert mine.get_step == theirs.get_step == mine.policy.get_current_step()
    np.testing.assert_allclose(mine.reward_buffer, theirs.reward_buffer, rtol=1e-6)
    assert mine.collected_rewards.keys() == theirs.collected_rewards.keys()
    for name, of_agents in theirs.collected_rewards.items():
        assert mine.collected_rewards[name] == pytest.approx(of_agents, rel=1e-6)


@pytest.fixture
def make_trainer(spec, tmp_path):
    def make(cls=PPOTrainer, **network):
        torch.manual_seed(0)
        settings = TrainerSettings(
            hyperparameters=PPOSettings(buffer_size=10**6),
            network_settings=NetworkSettings(hidden_units=8, num_layers=1, **network),
            summary_freq=20,
        )
        made = cls("Seer", 10, settings, True, False, 0, str(tmp_path))
        identifiers = BehaviorIdentifiers.from_name_behavior_id(BEHAVIOR_ID)
        made.add_policy(identifiers, made.create_policy(identifiers, spec))
        made.trajectory_queues.append(AgentManagerQueue(BEHAVIOR_ID))
        return made

    return make


def give(trainer, trajectories):
    for lived in trajectories:
        trainer.trajectory_queues[0].put(lived)
    trainer.advance()


def of_agents(rng, spec):
    """Return trajectories of several agents, of one of which an episode ends and the next one begins."""
    trajectories = [trajectory(rng, spec, int(rng.integers(1, 9)), **ENDINGS[index % 3]) for index in range(9)]
    for index, lived in enumerate(trajectories):
        lived.agent_id = "ab"[index % 2]
    return trajectories


@pytest.mark.parametrize("normalize", [False, True])
def test_trajectories_that_come_together_are_learned_from_like_single_ones(make_trainer, spec, monkeypatch, normalize):
    summaries = {}

    def note(trainer, step):
        summaries.setdefault(trainer, []).append((step, list(trainer.reward_buffer)))

    monkeypatch.setattr(PPOTrainer, "_write_summary", note)
    together, apart = make_trainer(normalize=normalize), make_trainer(normalize=normalize)
    rng = np.random.default_rng(5)
    for _ in range(2):
        trajectories = of_agents(rng, spec)
        give(together, trajectories)
        for lived in trajectories:
            give(apart, [lived])
    for trainer in (together, apart):
        trainer._prepare_update()
    assert_same(together, apart)
    assert len(summaries[apart]) > 2
    for (step, returns), (other_step, other_returns) in zip(summaries[together], summaries[apart], strict=True):
        assert step == other_step
        np.testing.assert_allclose(returns, other_returns, rtol=1e-6)


@pytest.mark.parametrize("method", ["_process_trajectory", "_evaluate_rewards", "_append_to_update_buffer"])
def test_a_subclass_that_does_something_with_single_trajectories_gets_them(make_trainer, spec, method):
    seen = []

    def note(trainer, *args):
        seen.append(args)
        return getattr(PPOTrainer, method)(trainer, *args)

    trainer, plain = make_trainer(type("Own", (PPOTrainer,), {method: note})), make_trainer()
    trajectories = of_agents(np.random.default_rng(6), spec)
    for each in (trainer, plain):
        give(each, trajectories)
        each._prepare_update()
    assert len(seen) == len(trajectories)
    assert_same(trainer, plain)


def test_a_reward_that_is_not_finite_is_its_agents(make_trainer, spec):
    trainer = make_trainer()
    trajectories = of_agents(np.random.default_rng(7), spec)
    trajectories[3].columns.reward[0] = np.inf
    with pytest.raises(NotFiniteError, match="agent b: the reward signal extrinsic"):
        give(trainer, trajectories)
