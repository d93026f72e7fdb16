"""DQN's trainer and optimizer: targets worked by hand, the target network, exploration, and what it refuses."""

import numpy as np
import pytest
import torch

from mlagents.plugins.trainer_type import get_settings_class, register_trainer_plugins
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import BufferKey, RewardSignalUtil
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings import (
    NetworkSettings,
    RewardSignalSettings,
    RewardSignalType,
    ScheduleType,
    TrainerSettings,
)
from mlagents.trainers.torch_entities.components.reward_providers import BaseRewardProvider
from mlagents.trainers.torch_entities.components.reward_providers.reward_provider_factory import NAME_TO_CLASS
from mlagents.trainers.trajectory import Trajectory, TrajectoryColumns
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, vector_observation
from mlagents_trainer_plugin.dqn.dqn_trainer import DQNSettings, DQNTrainer, get_type_and_setting

BEHAVIOR_ID = "Walker?team=0"
SPEC = BehaviorSpec([vector_observation(2, "place")], ActionSpec.create_discrete((3,)))

# Three places, each of three choices with a value by each network.
LEARNING = np.array([[1.0, 5.0, 2.0], [7.0, 6.0, 0.0], [0.0, 1.0, 2.0]])
TARGET = np.array([[4.0, 3.0, 9.0], [2.0, 8.0, 1.0], [5.0, 6.0, 7.0]])


class TenRewardProvider(BaseRewardProvider):
    """A second reward signal, of 10 per step."""

    def evaluate(self, mini_batch):
        return np.full(mini_batch.num_experiences, 10.0, dtype=np.float32)

    def update(self, mini_batch):
        return {}


def make_trainer(folder, spec=SPEC, network=None, signals=None, training=True, load=False, max_steps=1000, **hyper):
    trainer_settings = TrainerSettings(
        trainer_type="dqn",
        hyperparameters=DQNSettings(**{"batch_size": 2, **hyper}),
        network_settings=NetworkSettings(**{"hidden_units": 8, "num_layers": 1, **(network or {})}),
        reward_signals=signals or {RewardSignalType.EXTRINSIC: RewardSignalSettings(gamma=0.5)},
        max_steps=max_steps,
    )
    trainer = DQNTrainer("Walker", 10, trainer_settings, training, load, 0, str(folder))
    identifiers = BehaviorIdentifiers.from_name_behavior_id(BEHAVIOR_ID)
    trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
    return trainer


def trajectory(places, choices, rewards, next_place, done=False, interrupted=False, forbidden=None, agent="a"):
    """Steps at places on a line, observed as (1, place)."""
    n_steps = len(places)
    is_last = np.arange(n_steps) == n_steps - 1
    columns = TrajectoryColumns(
        obs=[np.array([[1.0, place] for place in places], dtype=np.float32)],
        reward=np.array(rewards, dtype=np.float32),
        done=is_last & done,
        interrupted=is_last & interrupted,
        continuous=np.zeros((n_steps, 0), dtype=np.float32),
        discrete=np.array(choices, dtype=np.int32)[:, None],
        prev_discrete=np.zeros((n_steps, 1), dtype=np.int32),
        action_mask=np.zeros((n_steps, 3), dtype=bool) if forbidden is None else np.array(forbidden, dtype=bool),
        group_reward=np.zeros(n_steps, dtype=np.float32),
        branches=(3,),
    )
    next_obs = [np.array([1.0, next_place], dtype=np.float32)]
    return Trajectory(columns=columns, next_obs=next_obs, agent_id=agent, behavior_id=BEHAVIOR_ID)


def fill_tables(trainer, monkeypatch):
    """Let both networks look the values of each place up in a table, the same for all streams."""

    def look_up(network, table):
        values = torch.tensor(table, dtype=torch.float32)
        streams = list(trainer.optimizer.reward_signals)
        monkeypatch.setattr(network, "q_values", lambda obs: {name: values[obs[0][:, 1].long()] for name in streams})

    look_up(trainer.policy.actor, LEARNING)
    look_up(trainer.optimizer.target_network, TARGET)


def targets(trainer, stream="extrinsic"):
    return trainer.optimizer.targets(trainer.update_buffer)[stream].tolist()


# Targets: r + 0.5 * the next place's value. The agent goes from place 0 to 1 for a reward of 1, then to 2 for 2.


@pytest.mark.parametrize(
    ("double_q", "next_values"),
    # The learning network takes choice 0 at place 1 and 2 at place 2, the target network 1 and 2.
    [(True, [2.0, 7.0]), (False, [8.0, 7.0])],
)
@pytest.mark.parametrize(
    ("ending", "goes_on"),
    [({"done": True}, 0.0), ({"done": True, "interrupted": True}, 1.0)],
    ids=["done", "interrupted"],
)
def test_targets_by_hand(tmp_path, monkeypatch, double_q, next_values, ending, goes_on):
    trainer = make_trainer(tmp_path, double_q=double_q)
    trainer._process_trajectory(trajectory([0, 1], [0, 1], [1.0, 2.0], next_place=2, **ending))
    fill_tables(trainer, monkeypatch)
    assert targets(trainer) == [1.0 + 0.5 * next_values[0], 2.0 + 0.5 * next_values[1] * goes_on]


def test_targets_heed_the_masks_of_the_next_state(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    forbidden = [[False, True, True], [True, False, False]]
    trainer._process_trajectory(trajectory([0, 1], [0, 1], [1.0, 2.0], next_place=2, done=True, forbidden=forbidden))
    fill_tables(trainer, monkeypatch)
    # At place 1 choice 0 is forbidden, so the learning network takes 1. What place 0 forbids is of no matter.
    assert targets(trainer) == [1.0 + 0.5 * 8.0, 2.0]


def test_the_mask_beyond_the_time_horizon_comes_with_the_next_trajectory(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    trainer._process_trajectory(trajectory([0], [0], [1.0], next_place=1))
    assert trainer.update_buffer.num_experiences == 0
    assert trainer.get_step == 1
    last = trajectory([1], [1], [2.0], next_place=2, done=True, forbidden=[[True, False, False]])
    trainer._process_trajectory(last)
    fill_tables(trainer, monkeypatch)
    assert targets(trainer) == [1.0 + 0.5 * 8.0, 2.0]


def test_each_reward_signal_has_targets_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setitem(NAME_TO_CLASS, RewardSignalType.RND, TenRewardProvider)
    signals = {
        RewardSignalType.EXTRINSIC: RewardSignalSettings(gamma=0.5, strength=3.0),
        RewardSignalType.RND: RewardSignalSettings(gamma=1.0, strength=0.5),
    }
    trainer = make_trainer(tmp_path, signals=signals)
    trainer.optimizer.reward_signals["rnd"]._ignore_done = True
    trainer._process_trajectory(trajectory([0, 1], [0, 1], [1.0, 2.0], next_place=2, done=True))
    fill_tables(trainer, monkeypatch)
    assert targets(trainer) == [3.0 + 0.5 * 2.0, 6.0]
    assert targets(trainer, "rnd") == [5.0 + 2.0, 5.0 + 7.0]  # its returns go on after the end


def test_rewards_and_ends_of_episodes_are_counted_once(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer._process_trajectory(trajectory([0, 1], [0, 1], [1.0, 2.0], next_place=2))
    trainer._process_trajectory(trajectory([2], [0], [4.0], next_place=0, done=True))
    assert list(trainer.reward_buffer) == [7.0]
    rewards = trainer.update_buffer[RewardSignalUtil.rewards_key("extrinsic")].to_ndarray()
    assert rewards.tolist() == [1.0, 2.0, 4.0]
    assert trainer.update_buffer[BufferKey.DONE].to_ndarray().tolist() == [False, False, True]


# The update.


def feed(trainer, n_episodes=1):
    for _ in range(n_episodes):
        trainer._process_trajectory(trajectory([0, 1], [0, 1], [1.0, 2.0], next_place=2, done=True))
    trainer.advance()


def parameters_of(network):
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


@pytest.mark.parametrize(("tau", "interval"), [(1.0, 3), (0.25, 1), (0.25, 2)])
def test_the_target_network_moves_by_tau_at_its_interval(tmp_path, tau, interval):
    trainer = make_trainer(
        tmp_path, tau=tau, target_update_interval=interval, steps_per_update=2, learning_rate=0.01, max_steps=10**6
    )
    learning, target = trainer.policy.actor, trainer.optimizer.target_network
    assert torch.equal(parameters_of(learning), parameters_of(target))
    for update in range(1, 7):
        before = parameters_of(target)
        feed(trainer)
        assert trainer.update_steps == update
        moved = tau if update % interval == 0 else 0.0
        torch.testing.assert_close(parameters_of(target), before + moved * (parameters_of(learning) - before))
    assert not torch.equal(parameters_of(learning), before)


def test_values_approach_their_targets(tmp_path):
    trainer = make_trainer(tmp_path, learning_rate=0.01, batch_size=16, tau=0.1, max_steps=10**6)
    feed(trainer, 300)
    values = trainer.policy.actor.q_values([torch.tensor([[1.0, 0.0], [1.0, 1.0]])])["extrinsic"]
    # From place 1 the end follows, with 2; before it 1 + 0.5 * the best of place 1, which is not less than 2.
    assert values[1, 1].item() == pytest.approx(2.0, abs=0.05)
    assert values[0, 0].item() == pytest.approx(1.0 + 0.5 * values[1].max().item(), abs=0.05)


def test_statistics_of_an_update(tmp_path):
    trainer = make_trainer(
        tmp_path, steps_per_update=2, learning_rate=0.01, learning_rate_schedule=ScheduleType.LINEAR, max_steps=4
    )
    feed(trainer)
    stats = {
        name: trainer.stats_reporter.get_stats_summaries(name).mean
        for name in ("Losses/Q Loss", "Policy/Learning Rate", "Policy/Exploration Rate", "Policy/Extrinsic Value")
    }
    assert stats["Policy/Learning Rate"] == pytest.approx(0.005)
    assert stats["Policy/Exploration Rate"] == pytest.approx(1.0 - 0.95 * 2 / 10000)
    assert np.isfinite(list(stats.values())).all()
    assert stats["Losses/Q Loss"] > 0


def test_the_target_network_normalises_as_the_learning_one_does(tmp_path):
    trainer = make_trainer(tmp_path, network={"normalize": True}, steps_per_update=2, tau=0.0, learning_rate=0.0)
    feed(trainer)
    obs = [torch.tensor([[1.0, 5.0]])]
    learning, target = trainer.policy.actor.q_values(obs), trainer.optimizer.target_network.q_values(obs)
    torch.testing.assert_close(learning, target)
    normalizer = trainer.policy.actor.network_body.processors[0].normalizer
    assert int(normalizer.normalization_steps) == 3  # two steps, once


# Exploration.


def test_exploration_falls_linearly_with_the_steps(tmp_path):
    trainer = make_trainer(tmp_path, exploration_initial=0.9, exploration_final=0.1, exploration_steps=400)
    rates = []
    for step in (0, 100, 400, 5000):
        trainer.policy.set_step(step)
        rates.append(trainer.policy.actor.exploration_rate())
    assert rates == pytest.approx([0.9, 0.7, 0.1, 0.1])


@pytest.mark.parametrize("how", [{"training": False}, {"network": {"deterministic": True}}], ids=["watched", "asked"])
def test_agents_do_not_explore_when_they_are_watched_or_must_not(tmp_path, how):
    trainer = make_trainer(tmp_path, exploration_initial=1.0, **how)
    nothing = np.zeros(500, dtype=np.float32)
    obs = [np.full((500, 2), 0.5, dtype=np.float32)]
    steps = DecisionSteps(obs, nothing, np.arange(500), None, np.zeros(500, dtype=np.int32), nothing)
    chosen = trainer.policy.get_action(steps).action.discrete
    assert len(np.unique(chosen)) == 1


# Checkpoints.


def test_a_resumed_training_goes_on_from_the_same_state(tmp_path):
    hyper = {"tau": 1.0, "target_update_interval": 3, "steps_per_update": 2, "save_replay_buffer": True}
    trainer = make_trainer(tmp_path, **hyper)
    for _ in range(4):
        feed(trainer)
    trainer.save_model()
    resumed = make_trainer(tmp_path, load=True, **hyper)
    assert resumed.policy.actor.exploration_rate() == trainer.policy.actor.exploration_rate() < 1.0
    for each in (trainer, resumed):
        np.random.seed(5)
        for _ in range(3):
            feed(each)
    assert resumed.update_steps == trainer.update_steps == 7
    torch.testing.assert_close(parameters_of(resumed.policy.actor), parameters_of(trainer.policy.actor))
    target, expected = resumed.optimizer.target_network, trainer.optimizer.target_network
    torch.testing.assert_close(parameters_of(target), parameters_of(expected))
    assert (tmp_path / "Walker-8.onnx").exists()


# What it is not for.


@pytest.mark.parametrize("action_spec", [ActionSpec.create_continuous(2), ActionSpec.create_hybrid(2, (3,))])
def test_continuous_actions_are_refused(tmp_path, action_spec):
    with pytest.raises(TrainerConfigError, match=r"dqn is for discrete actions alone; behavior Walker .*2"):
        make_trainer(tmp_path, spec=BehaviorSpec(SPEC.observation_specs, action_spec))


def test_memory_is_refused(tmp_path):
    with pytest.raises(TrainerConfigError, match=r"network_settings.memory of Walker"):
        make_trainer(tmp_path, network={"memory": NetworkSettings.MemorySettings()})


def test_it_is_registered_as_a_plug_in():
    types, _ = register_trainer_plugins()
    assert types["dqn"] is DQNTrainer
    assert get_settings_class("dqn") is DQNSettings
    assert get_type_and_setting() == ({"dqn": DQNTrainer}, {"dqn": DQNSettings})
