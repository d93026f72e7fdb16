"""Off-policy trainers: how often they update, what they replay, and what is left of it after a resume."""

import logging
import tracemalloc
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlagents.trainers import observation_log
from mlagents.trainers.agent_processor import AgentManagerQueue, LostAgents
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import (
    NetworkSettings,
    OffPolicyHyperparamSettings,
    RewardSignalSettings,
    RewardSignalType,
    TrainerSettings,
)
from mlagents.trainers.torch_entities.components.reward_providers import BaseRewardProvider
from mlagents.trainers.torch_entities.components.reward_providers.reward_provider_factory import NAME_TO_CLASS
from mlagents.trainers.torch_entities.networks import SharedActorCritic
from mlagents.trainers.trainer.off_policy_trainer import BUFFER_TRUNCATE_PERCENT, OffPolicyTrainer
from mlagents.trainers.trajectory import ObsUtil, Trajectory, TrajectoryColumns
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    vector_observation,
)

BEHAVIOR_ID = "Walker?team=0"
SPEC = BehaviorSpec([vector_observation(1, "place")], ActionSpec.create_discrete((2,)))


class RecordingOptimizer(TorchOptimizer):
    """Learns nothing; notes the places in its minibatches."""

    def __init__(self, policy, trainer_settings):
        super().__init__(policy, trainer_settings)
        self.batches = []
        self.loss = 0.5

    @property
    def critic(self):
        return self.policy.actor

    def update(self, batch, num_sequences):
        self.batches.append((places_in(batch), batch[RewardSignalUtil.rewards_key("extrinsic")].to_ndarray().copy()))
        assert num_sequences * self.policy.sequence_length == batch.num_experiences
        return {"Losses/Some Loss": self.loss}


class ReplayTrainer(OffPolicyTrainer):
    """The least that an off-policy trainer is."""

    def create_policy(self, parsed_behavior_id, behavior_spec):
        streams = [signal.value for signal in self.trainer_settings.reward_signals]
        network_settings = self.trainer_settings.network_settings
        return TorchPolicy(self.seed, behavior_spec, network_settings, SharedActorCritic, {"stream_names": streams})

    def create_optimizer(self):
        return RecordingOptimizer(self.policy, self.trainer_settings)

    def _process_trajectory(self, trajectory):
        super()._process_trajectory(trajectory)
        buffer = trajectory.to_agentbuffer()
        self._evaluate_rewards(trajectory.agent_id, buffer)
        self._append_to_update_buffer(buffer)
        if trajectory.done_reached:
            self._update_end_episode_stats(trajectory.agent_id, self.optimizer)

    @staticmethod
    def get_trainer_name():
        return "replay"


class GrowingRewardProvider(BaseRewardProvider):
    """Pays 1 more after each of its updates."""

    n_updates = 0

    def evaluate(self, mini_batch):
        return np.full(mini_batch.num_experiences, self.n_updates, dtype=np.float32)

    def update(self, mini_batch):
        self.n_updates += 1
        return {"Losses/Growing Loss": float(mini_batch.num_experiences)}


def make_trainer(folder, spec=SPEC, load=False, training=True, memory=None, signals=None, max_steps=10**6, **hyper):
    torch.manual_seed(0)
    np.random.seed(0)
    trainer_settings = TrainerSettings(
        hyperparameters=OffPolicyHyperparamSettings(**hyper),
        network_settings=NetworkSettings(hidden_units=4, num_layers=1, memory=memory),
        reward_signals=signals or {RewardSignalType.EXTRINSIC: RewardSignalSettings()},
        max_steps=max_steps,
    )
    trainer = ReplayTrainer("Walker", 10, trainer_settings, training, load, 0, str(folder))
    identifiers = BehaviorIdentifiers.from_name_behavior_id(BEHAVIOR_ID)
    trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
    return trainer


def trajectory(places, done=False, interrupted=False, agent="a", forbidden=None, next_place=-1.0):
    """Steps at `places`, which are also the rewards; all else of a step is the same."""
    n_steps = len(places)
    is_last = np.arange(n_steps) == n_steps - 1
    columns = TrajectoryColumns(
        obs=[np.array(places, dtype=np.float32)[:, None]],
        reward=np.array(places, dtype=np.float32),
        done=is_last & done,
        interrupted=is_last & interrupted,
        continuous=np.zeros((n_steps, 0), dtype=np.float32),
        discrete=np.ones((n_steps, 1), dtype=np.int32),
        prev_discrete=np.zeros((n_steps, 1), dtype=np.int32),
        action_mask=np.zeros((n_steps, 2), dtype=bool) if forbidden is None else np.array(forbidden, dtype=bool),
        group_reward=np.zeros(n_steps, dtype=np.float32),
        branches=(2,),
    )
    next_obs = [np.array([next_place], dtype=np.float32)]
    return Trajectory(columns=columns, next_obs=next_obs, agent_id=agent, behavior_id=BEHAVIOR_ID)


def places_in(buffer):
    return buffer[ObsUtil.get_name_at(0)].to_ndarray()[:, 0].tolist()


class Walk:
    """Feeds a trainer trajectories whose places are 1, 2, 3, ..."""

    def __init__(self, trainer):
        self.trainer = trainer
        self.n_steps = 0

    def go(self, n_steps):
        self.trainer._process_trajectory(trajectory(range(self.n_steps + 1, self.n_steps + n_steps + 1)))
        self.trainer.advance()
        self.n_steps += n_steps


# How often.


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    steps_per_update=st.sampled_from([0.5, 1, 3, 2.5, 20]),
    buffer_init_steps=st.sampled_from([0, 1, 50]),
    batch_size=st.integers(1, 30),
)
def test_updates_keep_their_ratio_to_steps(tmp_path, lengths, steps_per_update, buffer_init_steps, batch_size):
    trainer = make_trainer(
        tmp_path, batch_size=batch_size, steps_per_update=steps_per_update, buffer_init_steps=buffer_init_steps
    )
    walk, updates = Walk(trainer), 0
    for length in lengths:
        walk.go(length)
        if walk.n_steps >= max(buffer_init_steps, batch_size):
            while (updates + 1) * steps_per_update <= walk.n_steps - buffer_init_steps:
                updates += 1
        assert len(trainer.optimizer.batches) == trainer.update_steps == updates
    assert all(len(places) == batch_size for places, _ in trainer.optimizer.batches)


def two_signals():
    return {
        RewardSignalType.EXTRINSIC: RewardSignalSettings(strength=2.0),
        RewardSignalType.RND: RewardSignalSettings(strength=10.0),
    }


def test_reward_signals_learn_at_a_ratio_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setitem(NAME_TO_CLASS, RewardSignalType.RND, GrowingRewardProvider)
    trainer = make_trainer(
        tmp_path,
        signals=two_signals(),
        batch_size=4,
        buffer_init_steps=6,
        steps_per_update=2,
        reward_signal_steps_per_update=5,
    )
    walk = Walk(trainer)
    seen = []
    for _ in range(4):
        walk.go(7)
        seen.append((trainer.update_steps, trainer.reward_signal_update_steps))
    # 1, 8, 15 and 22 steps after the first six.
    assert seen == [(0, 0), (4, 1), (7, 3), (11, 4)]
    assert trainer.optimizer.reward_signals["rnd"].n_updates == 4
    assert trainer.stats_reporter.get_stats_summaries("Losses/Growing Loss").values.tolist() == [4.0, 4.0, 4.0]


def test_rewards_are_what_the_signals_pay_now(tmp_path, monkeypatch):
    monkeypatch.setitem(NAME_TO_CLASS, RewardSignalType.RND, GrowingRewardProvider)
    trainer = make_trainer(tmp_path, signals=two_signals(), batch_size=3)
    given_rewards = []
    monkeypatch.setattr(
        trainer.optimizer,
        "update",
        lambda batch, n: given_rewards.append(batch[RewardSignalUtil.rewards_key("rnd")].to_ndarray().tolist()) or {},
    )
    trainer.optimizer.reward_signals["rnd"].n_updates = 7
    Walk(trainer).go(3)
    assert given_rewards == [[70.0] * 3] * 3
    assert trainer.update_buffer[RewardSignalUtil.rewards_key("rnd")].to_ndarray().tolist() == [70.0] * 3
    trainer.optimizer.reward_signals["rnd"].n_updates = 8
    trainer._step += 1
    trainer.advance()
    assert given_rewards[-1] == [80.0] * 3


def test_statistics_are_means_over_the_updates(tmp_path):
    trainer = make_trainer(tmp_path, batch_size=2)
    trainer.optimizer.update = iter_losses(1.0, 2.0, 6.0)
    Walk(trainer).go(3)
    assert trainer.stats_reporter.get_stats_summaries("Losses/Some Loss").values.tolist() == [3.0]


def iter_losses(*losses):
    remaining = iter(losses)
    return lambda batch, n: {"Losses/Some Loss": next(remaining)}


def test_a_loss_that_is_nan_ends_the_run(tmp_path):
    trainer = make_trainer(tmp_path, batch_size=2)
    trainer.optimizer.loss = float("nan")
    walk = Walk(trainer)
    walk.go(8)
    assert trainer.setbacks.rollbacks == 2
    with pytest.raises(UnityTrainerException, match="Some Loss = NaN"):
        walk.go(2)
    assert trainer.setbacks.rollbacks == 2
    assert len(trainer.optimizer.batches) == 9  # three, gone back, three, gone back, and three


def test_nothing_is_learned_or_kept_where_agents_are_only_watched(tmp_path):
    trainer = make_trainer(tmp_path, training=False, batch_size=1)
    Walk(trainer).go(5)
    assert trainer.optimizer.batches == []
    assert trainer.update_buffer.num_experiences == 0


# What is replayed.


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 15), max_size=25), buffer_size=st.integers(5, 40))
def test_the_buffer_is_the_end_of_a_list(tmp_path, lengths, buffer_size):
    trainer = make_trainer(tmp_path, batch_size=10**6, buffer_size=buffer_size)
    walk, naive = Walk(trainer), []
    for length in lengths:
        naive += range(walk.n_steps + 1, walk.n_steps + length + 1)
        if len(naive) > buffer_size:
            naive = naive[len(naive) - int(buffer_size * BUFFER_TRUNCATE_PERCENT) :]
        walk.go(length)
        assert places_in(trainer.update_buffer) == naive
        rewards = trainer.update_buffer[BufferKey.ENVIRONMENT_REWARDS]
        np.testing.assert_array_equal(rewards, naive)


def test_cutting_the_buffer_costs_no_more_than_its_rows_per_cut(tmp_path):
    """Between two cuts nothing is copied: appending finds the room that the cut has left."""
    trainer = make_trainer(tmp_path, batch_size=10**6, buffer_size=100)
    walk = Walk(trainer)
    walk.go(101)
    arrays = set()
    for _ in range(20):
        walk.go(1)
        arrays.add(trainer.update_buffer[BufferKey.DONE].to_ndarray().__array_interface__["data"][0])
    assert len(arrays) == 1


def test_every_experience_is_replayed_alike(tmp_path):
    trainer = make_trainer(tmp_path, batch_size=50, buffer_size=100)
    walk = Walk(trainer)
    walk.go(50)
    trainer.optimizer.batches.clear()
    for _ in range(200):
        trainer._step += 1
        trainer.advance()
    batches = trainer.optimizer.batches
    assert all(rewards.tolist() == places for places, rewards in batches)  # rows stay whole
    counts = np.bincount(np.concatenate([places for places, _ in batches]).astype(int), minlength=51)[1:]
    # 10,000 draws of 50: 200 each, with a standard deviation of 14.
    assert counts.sum() == 10_000
    assert np.abs(counts - 200).max() < 70


def test_with_memory_whole_sequences_are_replayed(tmp_path):
    memory = NetworkSettings.MemorySettings(sequence_length=4, memory_size=4)
    trainer = make_trainer(tmp_path, memory=memory, batch_size=8, buffer_size=20)
    walk = Walk(trainer)
    for _ in range(4):
        walk.go(6)  # 4 and 2, padded
    assert places_in(trainer.update_buffer)[:8] == [13, 14, 15, 16, 17, 18, 0, 0]
    assert trainer.update_buffer.num_experiences == 16  # 80% of 20, in whole sequences
    allowed = {(13, 14, 15, 16), (17, 18, 0, 0), (19, 20, 21, 22), (23, 24, 0, 0)}
    trainer.optimizer.batches.clear()
    walk.go(6)
    assert len(trainer.optimizer.batches) == 6
    for places, _ in trainer.optimizer.batches:
        assert {tuple(places[:4]), tuple(places[4:])} <= allowed | {(25, 26, 27, 28), (29, 30, 0, 0)}


ALONG = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
IMAGES = BehaviorSpec(
    [
        vector_observation(1, "place"),
        ObservationSpec((1, 20, 20), (DimensionProperty.NONE, ALONG, ALONG), ObservationType.DEFAULT, "camera"),
    ],
    SPEC.action_spec,
)


def seen_by_camera(places):
    """Images of 8 bits that differ with the place."""
    pixels = (np.array(places, dtype=int)[:, None] + np.arange(400)) % 256
    return (pixels.reshape(-1, 1, 20, 20) / np.float32(255)).astype(np.float32)


def images_walk(trainer, n_steps, length):
    """Feed a trainer episodes of `length`, with a camera."""
    for start in range(0, n_steps, length):
        steps = trajectory(range(start, start + length), done=True, next_place=start + length)
        steps.columns.obs.append(seen_by_camera(range(start, start + length)))
        steps.next_obs.append(seen_by_camera([start + length])[0])
        trainer._process_trajectory(steps)
        trainer.advance()


@pytest.mark.parametrize("own_buffer", [None, AgentBuffer], ids=["the trainer's buffer", "a plug-in's buffer"])
def test_images_are_replayed_as_they_were_seen(tmp_path, own_buffer):
    trainer = make_trainer(tmp_path, spec=IMAGES, batch_size=8, buffer_size=50, save_replay_buffer=True)
    if own_buffer:
        trainer.update_buffer = own_buffer()
    batches = []
    trainer.optimizer.update = lambda batch, n: batches.append(batch) or {}
    images_walk(trainer, 100, length=5)
    assert len(batches) == 100
    for batch in batches:
        places = np.array(places_in(batch))
        (_, image), (next_place, next_image) = ObsUtil.from_buffer(batch, 2), ObsUtil.from_buffer_next(batch, 2)
        np.testing.assert_array_equal(next_place[:, 0], places + 1)
        np.testing.assert_array_equal(image, seen_by_camera(places), strict=True)
        np.testing.assert_array_equal(next_image, seen_by_camera(places + 1), strict=True)
    trainer.save_model()
    resumed = make_trainer(tmp_path, spec=IMAGES, load=True, batch_size=8, buffer_size=50, save_replay_buffer=True)
    assert places_in(resumed.update_buffer) == places_in(trainer.update_buffer)
    images = [it.update_buffer[ObsUtil.get_name_at_next(1)].to_ndarray() for it in (trainer, resumed)]
    np.testing.assert_array_equal(*images, strict=True)


def test_images_take_a_byte_per_pixel(tmp_path, monkeypatch):
    monkeypatch.setattr(observation_log, "BLOCK_BYTES", 40_000)
    trainer = make_trainer(tmp_path, spec=IMAGES, batch_size=10**6, buffer_size=10**6)
    tracemalloc.start()
    try:
        images_walk(trainer, 6000, length=100)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # Images 6060 * 400; all other columns are of at most 100 bytes a row, and grow by doubling.
    assert 2_424_000 < taken < 2_424_000 + 8192 * 100 + 3 * 40_000


# Transitions for those who ask what the next state is worth.


def whole_episode(n_steps):
    random = np.random.default_rng(n_steps)
    forbidden = random.random((n_steps, 2)) < 0.4
    forbidden[0, 0] = True  # there are masks
    return np.arange(1, n_steps + 1), forbidden


def transitions(trainer, steps):
    buffer = trainer._transitions(steps, steps.to_agentbuffer())
    return [
        (place, next_place, tuple(allowed), bool(done))
        for place, next_place, allowed, done in zip(
            places_in(buffer),
            buffer[ObsUtil.get_name_at_next(0)].to_ndarray()[:, 0].tolist(),
            buffer[BufferKey.NEXT_ACTION_MASK].to_ndarray().tolist(),
            buffer[BufferKey.DONE].to_ndarray(),
        )
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6), interrupted=st.booleans())
def test_an_episode_in_pieces_gives_the_transitions_of_the_whole(tmp_path, lengths, interrupted):
    trainer = make_trainer(tmp_path)
    places, forbidden = whole_episode(sum(lengths))
    ends = list(accumulate(lengths))
    seen = []
    for start, end in zip([0, *ends], ends):
        is_last = end == ends[-1]
        piece = trajectory(
            places[start:end],
            done=is_last,
            interrupted=is_last and interrupted,
            forbidden=forbidden[start:end],
            next_place=end + 1,
        )
        seen += transitions(trainer, piece)
        # Another agent's steps are not mixed in.
        assert transitions(trainer, trajectory([100.0], agent="b", done=True)) == [(100, -1, (1, 1), True)]
    expected = [(t + 1, t + 2, tuple(1.0 - forbidden[t + 1]), False) for t in range(len(places) - 1)]
    # The last piece, with the step of the one before that waited for it.
    last_piece_forbids = forbidden[max(ends[-1] - lengths[-1] - 1, 0) :].any()
    if not interrupted:
        expected.append((len(places), len(places) + 1, (1, 1), True))
    elif not last_piece_forbids:
        expected.append((len(places), len(places) + 1, (1, 1), False))
    assert seen == expected


def test_steps_that_wait_are_forgotten_when_the_environments_start_anew(tmp_path):
    trainer = make_trainer(tmp_path)
    assert transitions(trainer, trajectory([1.0])) == []
    trainer.end_episode()
    assert transitions(trainer, trajectory([5.0], done=True)) == [(5, -1, (1, 1), True)]


def test_lost_agents_lose_the_step_that_waits_and_the_return_so_far(tmp_path):
    trainer = make_trainer(tmp_path)
    queue = AgentManagerQueue(BEHAVIOR_ID)
    trainer.subscribe_trajectory_queue(queue)
    for agent, place in (("a", 1.0), ("b", 2.0)):
        assert transitions(trainer, trajectory([place], agent=agent)) == []
        queue.put(trajectory([place], agent=agent))
    queue.put(LostAgents(["a", "never seen"]))
    queue.put(trajectory([5.0], agent="a", done=True))
    queue.put(trajectory([6.0], agent="b", done=True))
    trainer.advance()
    assert list(trainer.reward_buffer) == [8.0, 5.0]  # newest first
    assert transitions(trainer, trajectory([5.0], agent="a", done=True)) == [(5, -1, (1, 1), True)]
    assert len(transitions(trainer, trajectory([6.0], agent="b", done=True))) == 2


# After a resume.

SAVING = {"save_replay_buffer": True, "batch_size": 4, "buffer_init_steps": 10, "buffer_size": 100}


@pytest.fixture
def saved(tmp_path):
    """A folder in which a trainer has saved 40 steps."""
    trainer = make_trainer(tmp_path, **SAVING)
    Walk(trainer).go(40)
    trainer.save_model()
    return tmp_path


def test_the_buffer_is_saved_and_read_on_resume(saved):
    trainer = make_trainer(saved, load=True, **SAVING)
    assert trainer.get_step == 40
    assert places_in(trainer.update_buffer) == list(range(1, 41))
    trainer.advance()
    assert trainer.optimizer.batches == []  # no updates for the steps before
    Walk(trainer).go(3)
    assert len(trainer.optimizer.batches) == 3


def test_the_buffer_is_saved_with_every_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, **SAVING)
    trainer.trainer_settings.checkpoint_interval = 10
    walk = Walk(trainer)
    for _ in range(4):
        walk.go(4)
    resumed = make_trainer(tmp_path, load=True, **SAVING)
    # The checkpoint was due with the third trajectory, and was written when that was taken in.
    assert places_in(resumed.update_buffer) == list(range(1, resumed.get_step + 1)) == list(range(1, 13))


def test_the_buffer_of_a_finished_training_is_saved(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=20, **SAVING)
    walk = Walk(trainer)
    for _ in range(6):
        walk.go(5)
    assert len(trainer.optimizer.batches) == 5  # up to step 15
    trainer.save_model()
    resumed = make_trainer(tmp_path, load=True, **SAVING)
    assert resumed.update_buffer.num_experiences == 30


def test_nothing_is_saved_or_read_unless_asked_for(saved, caplog):
    asked_not = {**SAVING, "save_replay_buffer": False}
    before = (saved / "last_replay_buffer.hdf5").read_bytes()
    trainer = make_trainer(saved, load=True, **asked_not)
    assert trainer.update_buffer.num_experiences == 0
    Walk(trainer).go(5)
    trainer.save_model()
    assert (saved / "last_replay_buffer.hdf5").read_bytes() == before
    assert make_trainer(saved, load=True, training=False, **SAVING).update_buffer.num_experiences == 0
    assert make_trainer(saved, load=False, **SAVING).update_buffer.num_experiences == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def break_nothing(path):
    path.unlink()


def break_off(path):
    path.write_bytes(path.read_bytes()[:-3000])


def replace_by_text(path):
    path.write_text("nonsense")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(break_nothing, "No such file"), (break_off, "does not hold"), (replace_by_text, "does not hold")],
    ids=["missing", "cut short", "another file"],
)
def test_a_buffer_that_cannot_be_read_is_named_and_training_begins_with_an_empty_one(saved, caplog, damage, reason):
    damage(saved / "last_replay_buffer.hdf5")
    trainer = make_trainer(saved, load=True, **SAVING)
    assert trainer.update_buffer.num_experiences == 0
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert str(saved / "last_replay_buffer.hdf5") in message
    assert "behavior Walker" in message
    assert reason in message
    walk = Walk(trainer)
    walk.go(9)
    assert trainer.optimizer.batches == []  # ten steps are gathered again
    walk.go(4)
    assert len(trainer.optimizer.batches) == 3


@pytest.mark.parametrize(
    ("spec", "column"),
    [
        (BehaviorSpec([vector_observation(2, "place")], ActionSpec.create_discrete((2,))), "obs:0"),
        (BehaviorSpec([vector_observation(1, "a"), vector_observation(1, "b")], SPEC.action_spec), "obs:1"),
        (BehaviorSpec([vector_observation(1, "place")], ActionSpec.create_discrete((2, 2))), "discrete_action"),
        (BehaviorSpec([vector_observation(1, "place")], ActionSpec.create_continuous(1)), "continuous_action"),
    ],
    ids=["wider observation", "one more observation", "one more branch", "continuous action"],
)
def test_a_buffer_of_other_agents_is_not_loaded(saved, tmp_path_factory, caplog, spec, column):
    other = tmp_path_factory.mktemp("other")
    trainer = make_trainer(other, spec=spec, **SAVING)
    trainer.save_model()
    (other / "last_replay_buffer.hdf5").write_bytes((saved / "last_replay_buffer.hdf5").read_bytes())
    trainer = make_trainer(other, spec=spec, load=True, **SAVING)
    assert trainer.update_buffer.num_experiences == 0
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"column {column} " in message


def test_a_save_that_fails_leaves_the_earlier_file(saved, monkeypatch):
    path = saved / "last_replay_buffer.hdf5"
    before = path.read_bytes()
    trainer = make_trainer(saved, load=True, **SAVING)

    def fail(file_object):
        file_object.write(b"half of it")
        raise OSError("the disk is full")

    monkeypatch.setattr(trainer.update_buffer, "save_to_file", fail)
    with pytest.raises(OSError, match="the disk is full"):
        trainer.save_replay_buffer()
    assert path.read_bytes() == before
    assert not [left for left in saved.iterdir() if left.suffix == ".tmp"]
