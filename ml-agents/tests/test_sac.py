"""SAC: what goes into its losses, what each of them changes, and what is left of it after a resume."""

import math

import numpy as np
import pytest
import torch

from mlagents.testing.state import differences, state_of
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import BufferKey, RewardSignalUtil
from mlagents.trainers.exception import NotFiniteError
from mlagents.trainers.sac.optimizer_torch import SACSettings
from mlagents.trainers.sac.trainer import SACTrainer
from mlagents.trainers.settings import NetworkSettings, SerializationSettings, TrainerSettings
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil, Trajectory, TrajectoryColumns
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, image_observation, vector_observation

BEHAVIOR_ID = "Seeker?team=0"
CONTINUOUS, DISCRETE, HYBRID = ActionSpec(2, ()), ActionSpec(0, (3, 2)), ActionSpec(2, (3,))
KINDS = pytest.mark.parametrize("action_spec", [CONTINUOUS, DISCRETE, HYBRID], ids=["continuous", "discrete", "hybrid"])
T, M = 4, 6
VECTOR, IMAGE = vector_observation(2, "seen"), image_observation(3, 20, 20, "seen")
NO_GAIN = torch.zeros((), requires_grad=True)


@pytest.fixture
def make_trainer(tmp_path, monkeypatch):
    monkeypatch.setattr(SerializationSettings, "convert_to_onnx", False)  # its tests are elsewhere, and take a second

    def make(action_spec=HYBRID, memory=False, load=False, seed=0, seen=VECTOR, **hyperparameters):
        torch.manual_seed(seed)
        np.random.seed(seed)
        memory_settings = NetworkSettings.MemorySettings(sequence_length=T, memory_size=M) if memory else None
        settings = TrainerSettings(
            hyperparameters=SACSettings(**{"batch_size": 8, "learning_rate": 0.01, **hyperparameters}),
            network_settings=NetworkSettings(hidden_units=5, num_layers=1, normalize=True, memory=memory_settings),
        )
        trainer = SACTrainer("Seeker", 10, settings, True, load, seed, str(tmp_path))
        identifiers = BehaviorIdentifiers.from_name_behavior_id(BEHAVIOR_ID)
        spec = BehaviorSpec([seen], action_spec)
        trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
        return trainer

    return make


def trajectory(trainer, n_steps=8, done=False, interrupted=False, seed=0):
    rng = np.random.default_rng(seed)
    spec = trainer.policy.behavior_spec.action_spec
    (seen,) = trainer.policy.behavior_spec.observation_specs
    is_last, n_branches = np.arange(n_steps) == n_steps - 1, spec.discrete_size
    choices = [rng.integers(size, size=n_steps) for size in spec.discrete_branches]
    columns = TrajectoryColumns(
        obs=[rng.normal(size=(n_steps, *seen.shape)).astype(np.float32)],
        reward=rng.normal(size=n_steps).astype(np.float32),
        done=is_last & (done or interrupted),
        interrupted=is_last & interrupted,
        continuous=rng.uniform(-1, 1, size=(n_steps, spec.continuous_size)).astype(np.float32),
        discrete=np.array(choices, dtype=np.int32).T.reshape(n_steps, n_branches),
        prev_discrete=np.zeros((n_steps, n_branches), dtype=np.int32),
        action_mask=np.zeros((n_steps, sum(spec.discrete_branches)), dtype=bool),
        group_reward=np.zeros(n_steps, dtype=np.float32),
        memory=rng.normal(size=(n_steps, M)).astype(np.float32) if trainer.policy.use_recurrent else None,
        branches=spec.discrete_branches,
    )
    next_obs = [rng.normal(size=seen.shape).astype(np.float32)]
    return Trajectory(columns=columns, next_obs=next_obs, agent_id="a", behavior_id=BEHAVIOR_ID)


def filled(trainer, **options):
    """Let a trainer take in a trajectory; return its replay buffer."""
    trainer._process_trajectory(trajectory(trainer, **options))
    return trainer.update_buffer


def update(trainer, buffer):
    """Let the optimizer learn from a whole buffer."""
    torch.manual_seed(7)
    return trainer.optimizer.update(buffer, buffer.num_experiences // trainer.policy.sequence_length)


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters() if parameter.requires_grad]


def differ(some, others):
    return [not torch.equal(one, other) for one, other in zip(some, others)]


class TestSettings:
    def test_defaults(self):
        settings = SACSettings()
        assert (settings.batch_size, settings.buffer_size, settings.buffer_init_steps) == (128, 50000, 0)
        assert (settings.tau, settings.init_entcoef, settings.save_replay_buffer) == (0.005, 1.0, False)

    def test_reward_signals_are_updated_as_often_as_the_policy(self):
        assert SACSettings(steps_per_update=7).reward_signal_steps_per_update == 7
        assert SACSettings(steps_per_update=7, reward_signal_steps_per_update=2).reward_signal_steps_per_update == 2


class TestTargets:
    def test_q_is_drawn_to_the_reward_and_the_discounted_value_of_what_comes_after(self, make_trainer):
        optimizer = make_trainer(CONTINUOUS).optimizer
        optimizer.gammas = [0.5]
        q1, q2, after = ({"extrinsic": torch.tensor(values)} for values in ([6.0, 1.0], [8.0, 3.0], [10.0, 10.0]))
        rewards = {"extrinsic": torch.tensor([1.0, 2.0])}
        # The targets are 1 + 0.5 * 10 = 6, and, at the end, 2.
        losses = optimizer.sac_q_loss(q1, q2, after, torch.tensor([0.0, 1.0]), rewards, None)
        assert [loss.item() for loss in losses] == [0.5 * (0 + 1) / 2, 0.5 * (4 + 1) / 2]
        only_first = torch.tensor([True, False])
        losses = optimizer.sac_q_loss(q1, q2, after, torch.tensor([0.0, 1.0]), rewards, only_first)
        assert [loss.item() for loss in losses] == [0.0, 0.5 * 4]

    def test_a_signal_that_ignores_the_end_counts_what_comes_after(self, make_trainer):
        optimizer = make_trainer(CONTINUOUS).optimizer
        optimizer.stream_names, optimizer.gammas = ["extrinsic", "endless"], [0.5, 0.5]
        optimizer.use_dones_in_backup = {"extrinsic": 1.0, "endless": 0.0}
        q, after, rewards = ({name: torch.tensor([it]) for name in optimizer.stream_names} for it in (2.0, 4.0, 2.0))
        losses = optimizer.sac_q_loss(q, q, after, torch.tensor([1.0]), rewards, None)
        assert [loss.item() for loss in losses] == [(0 + 0.5 * 2**2) / 2] * 2

    @pytest.mark.parametrize(("ending", "done"), [({}, False), ({"done": True}, True), ({"interrupted": True}, False)])
    def test_an_interruption_is_no_end(self, make_trainer, ending, done):
        buffer = filled(make_trainer(), n_steps=3, **ending)
        np.testing.assert_array_equal(buffer[BufferKey.DONE].to_ndarray(), [False, False, done])

    def test_the_step_at_the_time_horizon_has_what_came_after_it(self, make_trainer):
        trainer = make_trainer()
        lived = trajectory(trainer, n_steps=3)
        trainer._process_trajectory(lived)
        after = trainer.update_buffer[ObsUtil.get_name_at_next(0)].to_ndarray()
        np.testing.assert_array_equal(after, [*lived.columns.obs[0][1:], lived.next_obs[0]])

    def test_the_next_value_is_the_target_networks(self, make_trainer):
        trainer = make_trainer(CONTINUOUS)
        optimizer, buffer = trainer.optimizer, filled(trainer)
        with torch.no_grad():
            optimizer.target_network.value_heads.value_heads["extrinsic"].weight.zero_()
            optimizer.target_network.value_heads.value_heads["extrinsic"].bias.fill_(3.0)
        obs = ModelUtils.list_to_tensor_list(ObsUtil.from_buffer(buffer, 1))
        assert optimizer._next_values(buffer, obs, None)["extrinsic"].tolist() == [3.0] * 8


class TestEntropy:
    def test_a_weight_falls_where_there_is_more_entropy_than_wanted_and_rises_where_less(self, make_trainer):
        for mean_log_prob, rises in [(3.0, True), (-5.0, False)]:  # the target of two actions is -2
            optimizer = make_trainer(CONTINUOUS).optimizer

            log_probs = ActionLogProbs(torch.full((4, 2), mean_log_prob / 2), None, None)
            loss = optimizer.sac_entropy_loss(log_probs, None)
            loss.backward()
            assert (optimizer.log_ent_coef.continuous.grad < 0).item() is rises
            assert loss.item() == 0.0  # the weight is 1, its logarithm 0
            assert optimizer.log_ent_coef.continuous.grad.item() == pytest.approx(-(mean_log_prob - 2))

    def test_each_branch_has_a_weight_of_its_own(self, make_trainer):

        optimizer = make_trainer(DISCRETE).optimizer
        certain = torch.log(torch.tensor([[1.0, 1e-30, 1e-30]]))
        even = torch.log(torch.tensor([[0.5, 0.5]]))
        optimizer.sac_entropy_loss(ActionLogProbs(None, None, [certain, even]), None).backward()
        # Entropies 0 and ln 2; targets 0.2 ln 3 and 0.2 ln 2; the mean over two branches.
        expected = [-0.2 * math.log(3) / 2, 0.8 * math.log(2) / 2]
        assert optimizer.log_ent_coef.discrete.grad.tolist() == pytest.approx(expected, rel=1e-5)

    def test_the_weights_are_in_the_checkpoint(self, make_trainer):
        trainer = make_trainer(HYBRID, init_entcoef=0.5)
        for seed in range(3):
            update(trainer, filled(trainer, seed=seed))
        trainer.save_model()
        saved = weights(trainer.optimizer.log_ent_coef)
        assert all((weight - math.log(0.5)).abs().max() > 1e-3 for weight in saved)
        resumed = make_trainer(HYBRID, init_entcoef=0.5, load=True, seed=1)
        assert not differences(state_of(resumed), state_of(trainer))
        trainer.update_buffer.reset_agent()
        for going_on in (trainer, resumed):
            update(going_on, filled(going_on, seed=5))
        assert not differences(state_of(resumed), state_of(trainer))


class TestUpdate:
    @KINDS
    def test_every_network_and_weight_learns(self, make_trainer, action_spec):
        trainer = make_trainer(action_spec)
        optimizer = trainer.optimizer
        modules = [trainer.policy.actor, optimizer.q_network, optimizer.critic, optimizer.target_network]
        before = [weights(module) for module in [*modules, optimizer.log_ent_coef]]
        stats = update(trainer, filled(trainer))
        for module, old in zip(modules, before):
            assert all(differ(weights(module), old))
        assert differ(weights(optimizer.log_ent_coef), before[-1]) == [
            action_spec.discrete_size > 0,
            action_spec.continuous_size > 0,
        ]
        assert ("Policy/Discrete Entropy Coeff" in stats) == (action_spec.discrete_size > 0)
        assert ("Policy/Continuous Entropy Coeff" in stats) == (action_spec.continuous_size > 0)
        assert stats.keys() >= {f"Losses/{name} Loss" for name in ("Policy", "Value", "Q1", "Q2")}

    @KINDS
    def test_the_policys_loss_changes_the_actor_alone_and_the_others_change_all_else(
        self, make_trainer, monkeypatch, action_spec
    ):
        def after_an_update(without):
            trainer = make_trainer(action_spec)
            monkeypatch.setattr(trainer.optimizer, "_losses", trainer.optimizer._losses)  # autograd for all of them
            for name in without:
                shape = (NO_GAIN, NO_GAIN) if name == "sac_q_loss" else NO_GAIN
                monkeypatch.setattr(trainer.optimizer, name, lambda *args, shape=shape: shape)
            if "sac_policy_loss" in without:
                monkeypatch.setattr(trainer.optimizer, "_actor_parameters", [NO_GAIN])
            update(trainer, filled(trainer))
            optimizer = trainer.optimizer
            return weights(trainer.policy.actor), [
                *weights(optimizer.q_network),
                *weights(optimizer.critic),
                *weights(optimizer.log_ent_coef),
            ]

        actor, others = after_an_update(without=[])
        start_actor, start_others = after_an_update(
            without=["sac_policy_loss", "sac_q_loss", "sac_value_loss", "sac_entropy_loss"]
        )
        actor_alone, others_unmoved = after_an_update(without=["sac_q_loss", "sac_value_loss", "sac_entropy_loss"])
        actor_unmoved, others_alone = after_an_update(without=["sac_policy_loss"])
        assert any(differ(actor, start_actor))
        assert any(differ(others, start_others))
        assert not any(differ(actor, actor_alone))
        assert not any(differ(others_unmoved, start_others))
        assert not any(differ(others, others_alone))
        assert not any(differ(actor_unmoved, start_actor))

    def test_the_target_network_follows(self, make_trainer):
        for tau in (1.0, 0.25):
            trainer = make_trainer(tau=tau)
            optimizer = trainer.optimizer
            start = weights(optimizer.target_network)
            assert not any(differ(start, weights(optimizer.critic)))
            update(trainer, filled(trainer))
            for old, new, value in zip(start, weights(optimizer.target_network), weights(optimizer.critic)):
                torch.testing.assert_close(new - old, tau * (value - old), atol=1e-6, rtol=1e-4)

    def test_all_networks_see_observations_as_the_actor_does(self, make_trainer):
        trainer = make_trainer()
        update(trainer, filled(trainer))
        optimizer = trainer.optimizer
        bodies = [optimizer.critic, optimizer.target_network, optimizer.q_network.q1_network]
        actors = trainer.policy.actor.network_body.processors[0].normalizer.state_dict()
        assert actors["normalization_steps"] == 9
        for network in [*bodies, optimizer.q_network.q2_network]:
            theirs = network.network_body.processors[0].normalizer.state_dict()
            assert all(torch.equal(theirs[key], value) for key, value in actors.items())

    @pytest.mark.parametrize("seen", [VECTOR, IMAGE], ids=["vector", "image"])
    def test_observations_that_are_encoded_once_teach_what_they_taught_before(self, make_trainer, monkeypatch, seen):
        def gradients(encodes_each_time):
            trainer = make_trainer(seen=seen)
            optimizer = trainer.optimizer
            if encodes_each_time:
                monkeypatch.setattr(optimizer, "_encoders_learn", True)
                monkeypatch.setattr(optimizer.q_network, "encode", lambda obs: (obs, obs))
            update(trainer, filled(trainer))
            networks = trainer.policy.actor, optimizer.q_network, optimizer.critic
            return [it.grad for network in networks for it in network.parameters() if it.requires_grad]

        for once, each_time in zip(gradients(False), gradients(True), strict=True):
            torch.testing.assert_close(once, each_time)

    def test_a_branch_without_a_choice_does_no_harm(self, make_trainer):
        trainer = make_trainer(ActionSpec(0, (1,)))
        stats = update(trainer, filled(trainer))
        assert all(math.isfinite(value) for value in stats.values())

    def test_a_loss_that_is_nan_changes_nothing(self, make_trainer):
        trainer = make_trainer()
        buffer = filled(trainer)
        before = state_of(trainer)
        buffer[RewardSignalUtil.rewards_key("extrinsic")][3] = np.nan
        with pytest.raises(NotFiniteError, match="q1"):
            update(trainer, buffer)
        # But the observations' statistics, which are not learned from the loss, have come from the actor.
        changed = differences(before, state_of(trainer))
        assert all("normalizer" in line for line in changed)


class TestMemory:
    @KINDS
    def test_what_stands_in_the_padding_changes_nothing(self, make_trainer, action_spec):
        def after_an_update(fill):
            trainer = make_trainer(action_spec, memory=True)
            buffer = filled(trainer, n_steps=6)
            padding = buffer[BufferKey.MASKS].to_ndarray() == 0
            assert padding.sum() == 2
            keys = [ObsUtil.get_name_at(0), ObsUtil.get_name_at_next(0), RewardSignalUtil.rewards_key("extrinsic")]
            for key in [*keys, BufferKey.CONTINUOUS_ACTION]:
                values = buffer[key].to_ndarray().copy()
                values[padding] = fill
                buffer[key].set(values)
            stats = update(trainer, buffer)
            return stats, [weights(module) for module in (trainer.policy.actor, trainer.optimizer.q_network)]

        stats, modules = after_an_update(0.0)
        others_stats, others = after_an_update(0.7)
        assert stats == pytest.approx(others_stats, rel=1e-5)
        for ours, theirs in zip(modules, others):
            for one, other in zip(ours, theirs):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)

    def test_next_values_start_from_what_the_value_network_remembers_after_the_first_step(self, make_trainer):
        trainer = make_trainer(CONTINUOUS, memory=True)
        optimizer, buffer = trainer.optimizer, filled(trainer, n_steps=8)
        with torch.no_grad():
            for parameter in optimizer.target_network.parameters():
                if parameter.requires_grad:
                    parameter.mul_(1.5)
        ((obs,), (after,)) = (
            ModelUtils.list_to_tensor_list(read(buffer, 1)) for read in (ObsUtil.from_buffer, ObsUtil.from_buffer_next)
        )
        memories = optimizer.initial_memories(buffer, BufferKey.CRITIC_MEMORY)
        ours = optimizer._next_values(buffer, [obs], memories)["extrinsic"]
        expected = []
        with torch.no_grad():
            for sequence in range(2):
                rows = slice(sequence * T, (sequence + 1) * T)
                _, memory = optimizer.critic.critic_pass([obs[rows][:1]], memories=memories[:, sequence : sequence + 1])
                for row in after[rows]:
                    value, memory = optimizer.target_network.critic_pass([row[None]], memories=memory)
                    expected.append(value["extrinsic"].item())
        np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)

    def test_every_network_learns(self, make_trainer):
        trainer = make_trainer(HYBRID, memory=True)
        networks = [trainer.policy.actor, trainer.optimizer.q_network, trainer.optimizer.critic]
        before = [weights(network) for network in networks]
        update(trainer, filled(trainer, n_steps=10))
        for network, old in zip(networks, before):
            assert all(differ(weights(network), old))
