"""PPO's trainer and optimizer: figures worked by hand, and what an update is made of."""

import numpy as np
import pytest
import torch

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import BufferKey, RewardSignalUtil
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer
from mlagents.trainers.settings import (
    NetworkSettings,
    RewardSignalSettings,
    RewardSignalType,
    ScheduleType,
    TrainerSettings,
)
from mlagents.trainers.torch_entities.components.reward_providers import BaseRewardProvider
from mlagents.trainers.torch_entities.components.reward_providers.reward_provider_factory import NAME_TO_CLASS
from mlagents.trainers.torch_entities.encoders import Normalizer
from mlagents.trainers.trajectory import ObsUtil, Trajectory, TrajectoryColumns
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, vector_observation

BEHAVIOR_ID = "Walker?team=0"
SPEC = BehaviorSpec([vector_observation(1, "place")], ActionSpec(1, ()))


class FourRewardProvider(BaseRewardProvider):
    """A second reward signal."""

    def evaluate(self, mini_batch):
        return np.full(mini_batch.num_experiences, 4.0, dtype=np.float32)

    def update(self, mini_batch):
        return {"Losses/Four Loss": np.float32(mini_batch.num_experiences)}


@pytest.fixture
def four_per_step(monkeypatch):
    monkeypatch.setitem(NAME_TO_CLASS, RewardSignalType.RND, FourRewardProvider)


@pytest.fixture
def make_trainer(tmp_path):
    """Return a function that makes a trainer with its policy and optimizer, ready for trajectories."""

    def make(spec=SPEC, signals=None, network=None, training=True, max_steps=1000, **hyperparameters):
        torch.manual_seed(0)
        np.random.seed(0)
        settings = TrainerSettings(
            hyperparameters=PPOSettings(**hyperparameters),
            network_settings=NetworkSettings(**{"hidden_units": 4, "num_layers": 1, **(network or {})}),
            reward_signals=signals or {RewardSignalType.EXTRINSIC: RewardSignalSettings(gamma=0.5)},
            max_steps=max_steps,
        )
        trainer = PPOTrainer("Walker", 10, settings, training, False, 0, str(tmp_path))
        identifiers = BehaviorIdentifiers.from_name_behavior_id(BEHAVIOR_ID)
        trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
        return trainer

    return make


def trajectory(places=(1.0, 2.0), rewards=(1.0, 2.0), next_place=4.0, done=False, interrupted=False, agent="a"):
    n_steps = len(places)
    is_last = np.arange(n_steps) == n_steps - 1
    columns = TrajectoryColumns(
        obs=[np.array(places, dtype=np.float32)[:, None]],
        reward=np.array(rewards, dtype=np.float32),
        done=is_last & done,
        interrupted=is_last & interrupted,
        continuous=np.linspace(-1, 1, n_steps, dtype=np.float32)[:, None],
        discrete=np.zeros((n_steps, 0), dtype=np.int32),
        prev_discrete=np.zeros((n_steps, 0), dtype=np.int32),
        action_mask=np.zeros((n_steps, 0), dtype=bool),
        group_reward=np.zeros(n_steps, dtype=np.float32),
        continuous_log_probs=np.full((n_steps, 1), -1.0, dtype=np.float32),
        discrete_log_probs=np.zeros((n_steps, 0), dtype=np.float32),
    )
    next_obs = [np.array([next_place], dtype=np.float32)]
    return Trajectory(columns=columns, next_obs=next_obs, agent_id=agent, behavior_id=BEHAVIOR_ID)


def value_is_place(network, stream="extrinsic"):
    """Let the critic's value of a stream be the observation itself, where that is 1 or more.

    The first unit computes swish(50 x), which is 50 x for such x; the head takes a fiftieth of it.
    """
    with torch.no_grad():
        layer, head = network.network_body._body_endoder.seq_layers[0], network.value_heads.value_heads[stream]
        for parameter in (layer.weight, layer.bias, head.weight, head.bias):
            parameter.zero_()
        layer.weight[0, 0] = 50.0
        head.weight[0, 0] = 0.02


def column(buffer, key):
    return buffer[key].to_ndarray()


def assert_column(buffer, key, expected):
    np.testing.assert_allclose(column(buffer, key), expected, rtol=1e-5)


# From a trajectory to training data. V = 1, 2 and 4 after the last step; gamma = lambda = 0.5, rewards 1 and 2.


@pytest.mark.parametrize("shared_critic", [False, True])
@pytest.mark.parametrize(
    ("ending", "advantages", "returns"),
    [
        # delta_1 = 2 + 0.5 * 4 - 2 = 2; delta_0 = 1 + 0.5 * 2 - 1 = 1; A_0 = 1 + 0.25 * 2; R = A + V.
        ({}, [1.5, 2.0], [2.5, 4.0]),
        ({"done": True, "interrupted": True}, [1.5, 2.0], [2.5, 4.0]),
        # Nothing comes after: delta_1 = 2 + 0 - 2 = 0.
        ({"done": True}, [1.0, 0.0], [2.0, 2.0]),
    ],
    ids=["cut at the horizon", "interrupted", "done"],
)
def test_advantages_and_returns(make_trainer, shared_critic, ending, advantages, returns):
    trainer = make_trainer(lambd=0.5, shared_critic=shared_critic)
    value_is_place(trainer.optimizer.critic)
    trainer._process_trajectory(trajectory(**ending))
    trainer._prepare_update()
    buffer = trainer.update_buffer
    assert_column(buffer, RewardSignalUtil.value_estimates_key("extrinsic"), [1.0, 2.0])
    assert_column(buffer, RewardSignalUtil.rewards_key("extrinsic"), [1.0, 2.0])
    assert_column(buffer, RewardSignalUtil.advantage_key("extrinsic"), advantages)
    assert_column(buffer, RewardSignalUtil.returns_key("extrinsic"), returns)
    assert_column(buffer, BufferKey.ADVANTAGES, advantages)
    assert_column(buffer, BufferKey.DISCOUNTED_RETURNS, returns)


def two_signals():
    return {
        RewardSignalType.EXTRINSIC: RewardSignalSettings(gamma=0.5),
        RewardSignalType.RND: RewardSignalSettings(gamma=1.0, strength=0.5),
    }


@pytest.mark.usefixtures("four_per_step")
@pytest.mark.parametrize(
    ("ignore_done", "advantages", "returns"),
    [
        # The second signal has rewards 4 * 0.5 = 2, gamma 1, V = 1, 2, then 0 for the end of the episode.
        # delta_1 = 2 + 0 - 2 = 0, delta_0 = 2 + 2 - 1 = 3, A = 3, 0, R = 4, 2; the first has A = 1, 0 and R = 2, 2.
        (False, [2.0, 0.0], [3.0, 2.0]),
        # To a signal that ignores ends, 4 comes after: delta_1 = 4, A_1 = 4, A_0 = 3 + 0.5 * 4 = 5, R = 6, 6.
        (True, [3.0, 2.0], [4.0, 4.0]),
    ],
)
def test_signals_are_averaged(make_trainer, ignore_done, advantages, returns):
    trainer = make_trainer(signals=two_signals(), lambd=0.5)
    for stream in ("extrinsic", "rnd"):
        value_is_place(trainer.optimizer.critic, stream)
    trainer.optimizer.reward_signals["rnd"]._ignore_done = ignore_done
    trainer._process_trajectory(trajectory(done=True))
    trainer._prepare_update()
    assert_column(trainer.update_buffer, RewardSignalUtil.rewards_key("rnd"), [2.0, 2.0])
    assert_column(trainer.update_buffer, BufferKey.ADVANTAGES, advantages)
    assert_column(trainer.update_buffer, BufferKey.DISCOUNTED_RETURNS, returns)


@pytest.mark.usefixtures("four_per_step")
def test_returns_of_episodes_are_summed_over_their_trajectories(make_trainer):
    trainer = make_trainer(signals=two_signals())
    trainer._process_trajectory(trajectory(rewards=(1.0, 2.0)))
    trainer._process_trajectory(trajectory(rewards=(7.0, 7.0), agent="b"))
    assert list(trainer.reward_buffer) == []
    trainer._process_trajectory(trajectory(rewards=(3.0, 4.0), done=True))
    assert list(trainer.reward_buffer) == [10.0]
    stats = trainer.stats_reporter
    assert stats.get_stats_summaries("Environment/Cumulative Reward").values.tolist() == [10.0]
    assert stats.get_stats_summaries("Policy/Extrinsic Reward").values.tolist() == [10.0]
    assert stats.get_stats_summaries("Policy/Four Reward").values.tolist() == [8.0]
    assert trainer.collected_rewards["environment"] == {"b": 14.0}
    assert trainer.get_step == trainer.policy.get_current_step() == 6


# Normalisation.


def normalizer_of(network):
    return next(module for module in network.modules() if isinstance(module, Normalizer))


@pytest.mark.parametrize("shared_critic", [False, True])
def test_statistics_take_each_trajectory_once_and_before_values_are_estimated(make_trainer, shared_critic):
    trainer = make_trainer(network={"normalize": True}, shared_critic=shared_critic)
    actor, critic = trainer.policy.actor, trainer.optimizer.critic
    assert (actor is critic) is shared_critic
    steps = trajectory(places=(6.0, 10.0), next_place=-3.0)
    before, _ = critic.critic_pass([torch.tensor([[6.0], [10.0]])])
    trainer._process_trajectory(steps)
    for network in (actor, critic):
        normalizer = normalizer_of(network)
        # One row was there, 0 with a square of 1. Mean (0 + 6 + 10) / 3 = 16/3;
        # squares 1 + 6 * (6 - 16/3) + 10 * (10 - 16/3) = 1 + 4 + 140/3.
        assert int(normalizer.normalization_steps) == 3
        np.testing.assert_allclose(normalizer.running_mean, [16 / 3], rtol=1e-6)
        np.testing.assert_allclose(normalizer.running_variance, [5 + 140 / 3], rtol=1e-6)
    after, _ = critic.critic_pass([torch.tensor([[6.0], [10.0]])])
    assert not torch.allclose(before["extrinsic"], after["extrinsic"], atol=1e-3)
    estimates = column(trainer.update_buffer, RewardSignalUtil.value_estimates_key("extrinsic"))
    np.testing.assert_allclose(estimates, after["extrinsic"].detach(), rtol=1e-5, atol=1e-6)


def test_statistics_rest_where_nothing_is_learned(make_trainer):
    trainer = make_trainer(network={"normalize": True}, training=False, buffer_size=1)
    before = trainer.policy.get_weights()
    trainer._process_trajectory(trajectory())
    trainer.advance()
    for weight, expected in zip(trainer.policy.get_weights(), before):
        np.testing.assert_array_equal(weight, expected)
    assert trainer.update_buffer.num_experiences == 0


# The update.


@pytest.fixture
def record_updates(monkeypatch):
    """Return a function that lets a trainer's optimizer note its minibatches, by step of the trajectory, instead."""

    def record(trainer):
        batches = []

        def update(batch, n_sequences):
            assert n_sequences == batch.num_experiences
            batches.append((column(batch, ObsUtil.get_name_at(0))[:, 0].copy(), column(batch, BufferKey.ADVANTAGES)))
            return {}

        monkeypatch.setattr(trainer.optimizer, "update", update)
        return batches

    return record


def feed(trainer, n_steps):
    places = np.arange(1, n_steps + 1)
    trainer._process_trajectory(trajectory(places, rewards=places**2, next_place=0.0))


def test_an_update_takes_more_than_buffer_size_experiences(make_trainer, record_updates):
    trainer = make_trainer(buffer_size=4, batch_size=2)
    batches = record_updates(trainer)
    feed(trainer, 4)
    trainer.advance()
    assert batches == []
    assert trainer.update_buffer.num_experiences == 4
    feed(trainer, 1)
    trainer.advance()
    assert len(batches) == 3 * 2
    assert trainer.update_buffer.num_experiences == 0


def test_every_pass_is_shuffled_and_leaves_out_what_fills_no_minibatch(make_trainer, record_updates):
    trainer = make_trainer(buffer_size=30, batch_size=8, num_epoch=4)
    batches = record_updates(trainer)
    feed(trainer, 31)
    trainer.advance()
    assert [len(places) for places, _ in batches] == [8] * 3 * 4
    passes = [np.concatenate([places for places, _ in batches[3 * i : 3 * i + 3]]) for i in range(4)]
    for one in passes:
        assert len(set(one)) == 24
        assert set(one) < set(range(1, 32))
    assert len({tuple(one) for one in passes}) == 4
    assert len({frozenset(one) for one in passes}) > 1  # not always the same ones are left out


def test_a_batch_larger_than_the_buffer_is_all_there_is(make_trainer, record_updates):
    trainer = make_trainer(buffer_size=4, batch_size=1000, num_epoch=2)
    batches = record_updates(trainer)
    feed(trainer, 6)
    trainer.advance()
    assert [sorted(places) for places, _ in batches] == [[1, 2, 3, 4, 5, 6]] * 2


def test_advantages_are_normalised_over_the_buffer(make_trainer, record_updates):
    trainer = make_trainer(buffer_size=11, batch_size=4, num_epoch=1)
    batches = record_updates(trainer)
    for _ in range(4):
        feed(trainer, 3)
    trainer._prepare_update()
    raw = column(trainer.update_buffer, BufferKey.ADVANTAGES).copy()
    places = column(trainer.update_buffer, ObsUtil.get_name_at(0))[:, 0].copy()
    trainer.advance()
    advantages = np.concatenate([given for _, given in batches])
    assert advantages.mean() == pytest.approx(0.0, abs=1e-6)
    assert advantages.std() == pytest.approx(1.0, abs=1e-5)
    place_of = np.concatenate([given for given, _ in batches])
    by_place = {place: (value - raw.mean()) / raw.std() for place, value in zip(places, raw)}
    np.testing.assert_allclose(advantages, [by_place[place] for place in place_of], atol=1e-5)


def test_advantages_that_are_all_alike_stay_finite(make_trainer):
    trainer = make_trainer(buffer_size=1, batch_size=2, num_epoch=1)
    trainer._process_trajectory(trajectory(places=(1.0,), rewards=(1.0,), next_place=0.0, done=True))
    trainer._process_trajectory(trajectory(places=(1.0,), rewards=(1.0,), next_place=0.0, done=True))
    trainer.advance()
    assert all(np.isfinite(weight).all() for weight in trainer.policy.get_weights())


@pytest.mark.usefixtures("four_per_step")
def test_reward_signals_learn_from_the_same_minibatches(make_trainer):
    trainer = make_trainer(signals=two_signals(), buffer_size=6, batch_size=3)
    feed(trainer, 7)
    trainer.advance()
    assert trainer.stats_reporter.get_stats_summaries("Losses/Four Loss").values.tolist() == [3.0]


def test_schedules_reach_the_gradient_step(make_trainer):
    trainer = make_trainer(buffer_size=2, learning_rate=0.01, beta=0.02, epsilon=0.3, max_steps=1000)
    trainer.policy.set_step(496)
    trainer._step = 496
    feed(trainer, 4)
    trainer.advance()
    # Half-way: the mean of the initial values and of 1e-10, 1e-5 and 0.1.
    assert [group["lr"] for group in trainer.optimizer.optimizer.param_groups] == [pytest.approx(0.005, rel=1e-6)]
    stats = trainer.stats_reporter
    for name, expected in [("Learning Rate", 0.005), ("Beta", 0.010005), ("Epsilon", 0.2)]:
        assert stats.get_stats_summaries(f"Policy/{name}").mean == pytest.approx(expected, rel=1e-6)


def test_constant_schedules_stay(make_trainer):
    trainer = make_trainer(buffer_size=2, learning_rate=0.01, learning_rate_schedule=ScheduleType.CONSTANT)
    trainer.policy.set_step(999)
    feed(trainer, 3)
    trainer.advance()
    assert trainer.optimizer.optimizer.param_groups[0]["lr"] == 0.01
    assert trainer.stats_reporter.get_stats_summaries("Policy/Epsilon").mean == pytest.approx(0.2)


@pytest.mark.parametrize("shared_critic", [False, True])
def test_an_update_moves_actor_and_critic(make_trainer, shared_critic):
    trainer = make_trainer(buffer_size=2, learning_rate=0.01, shared_critic=shared_critic)
    networks = [trainer.policy.actor, trainer.optimizer.critic]
    before = [[parameter.detach().clone() for parameter in network.parameters()] for network in networks]
    feed(trainer, 8)
    trainer.advance()
    for network, old in zip(networks, before):
        for parameter, was in zip(network.parameters(), old):
            assert torch.equal(parameter, was) is not parameter.requires_grad


# The loss.


def test_values_are_kept_apart_from_returns_so_that_clipping_bites(make_trainer):
    """Under one key V_old would be R: then (R - clipped)^2 is at most (R - V)^2, and nothing is ever clipped."""
    trainer = make_trainer(epsilon=0.2, learning_rate_schedule=ScheduleType.CONSTANT, lambd=0.5)
    value_is_place(trainer.optimizer.critic)
    # Values 1 and 2 are kept, returns are 2.5 and 4; then the critic moves to 1 + 1 and 2 + 1.
    trainer._process_trajectory(trajectory())
    trainer._prepare_update()
    with torch.no_grad():
        trainer.optimizer.critic.value_heads.value_heads["extrinsic"].bias.add_(1.0)
    stats = trainer.optimizer.update(trainer.update_buffer, 2)
    # Clipped to 1.2 and 2.2: ((2.5 - 1.2)^2 + (4 - 2.2)^2) / 2 = (1.69 + 3.24) / 2, not (0.5^2 + 1^2) / 2.
    assert stats["Losses/Value Loss"] == pytest.approx(2.465, rel=1e-4)
