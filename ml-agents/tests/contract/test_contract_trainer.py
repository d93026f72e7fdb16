"""Trainers, as plug-ins subclass them: how they are made, what they read and write, what they call."""

import numpy as np
import pytest

from mlagents.trainers.buffer import AgentBuffer, BufferKey
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.ppo.optimizer_torch import TorchPPOOptimizer
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer
from mlagents.trainers.settings import OffPolicyHyperparamSettings, TrainerSettings
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents.trainers.trainer.off_policy_trainer import OffPolicyTrainer
from mlagents.trainers.trainer.on_policy_trainer import OnPolicyTrainer


class OwnParts:
    """What a plug-in defines, as short as can be."""

    def create_policy(self, parsed_behavior_id, behavior_spec):
        return TorchPolicy(self.seed, behavior_spec, self.trainer_settings.network_settings, SimpleActor, {})

    def create_optimizer(self):
        settings = TrainerSettings(hyperparameters=PPOSettings())
        return TorchPPOOptimizer(self.policy, settings)

    def _process_trajectory(self, trajectory):
        super()._process_trajectory(trajectory)
        buffer = trajectory.to_agentbuffer()
        self.collected_rewards["environment"][trajectory.agent_id] += np.sum(buffer[BufferKey.ENVIRONMENT_REWARDS])
        self.collected_rewards["extrinsic"][trajectory.agent_id] += np.sum(buffer[BufferKey.ENVIRONMENT_REWARDS])
        self._append_to_update_buffer(buffer)
        if trajectory.done_reached:
            self._update_end_episode_stats(trajectory.agent_id, self.optimizer)

    @staticmethod
    def get_trainer_name():
        return "own"


class OnPolicy(OwnParts, OnPolicyTrainer):
    pass


class OffPolicy(OwnParts, OffPolicyTrainer):
    pass


BASES = [
    pytest.param(OnPolicy, PPOSettings, id="on-policy"),
    pytest.param(OffPolicy, OffPolicyHyperparamSettings, id="off-policy"),
]
ALL = [*BASES, pytest.param(PPOTrainer, PPOSettings, id="ppo")]


@pytest.mark.parametrize(("trainer_class", "settings_class"), ALL)
def test_made_by_position_or_by_keyword(trainer_class, settings_class, tmp_path):
    settings = TrainerSettings(hyperparameters=settings_class())
    arguments = {
        "behavior_name": "Some",
        "reward_buff_cap": 3,
        "trainer_settings": settings,
        "training": True,
        "load": False,
        "seed": 5,
        "artifact_path": str(tmp_path),
    }
    for trainer in (trainer_class(**arguments), trainer_class(*arguments.values())):
        assert trainer.brain_name == trainer.behavior_name == "Some"
        assert trainer.reward_buffer.maxlen == 3
        assert trainer.trainer_settings is trainer.parameters is settings
        assert trainer.hyperparameters is settings.hyperparameters
        assert (trainer.is_training, trainer.load, trainer.seed) == (True, False, 5)
        assert trainer.artifact_path == str(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "policy",
        "optimizer",
        "seed",
        "shared_critic",
        "update_buffer",
        "collected_rewards",
        "cumulative_returns_since_policy_update",
        "hyperparameters",
        "_stats_reporter",
        "is_training",
        "_step",
        "model_saver",
        "artifact_path",
        "brain_name",
        "behavior_name",
        "policies",
    ],
)
@pytest.mark.parametrize(("trainer_class", "settings_class"), BASES)
def test_attributes_that_plugins_write(trainer_class, settings_class, name, make_trainer):
    trainer = make_trainer(trainer_class, settings_class())
    value = object()
    setattr(trainer, name, value)
    assert getattr(trainer, name) is value


class TestAttributesAreReadAtEachUse:
    @pytest.fixture
    def trainer(self, make_trainer):
        return make_trainer(OnPolicy)

    def test_policy(self, trainer, identifiers, spec):
        other = trainer.create_policy(identifiers, spec)
        trainer.policy = other
        assert trainer.get_policy("Some?team=0") is other

    def test_policies(self, trainer):
        assert list(trainer.policies) == ["Some?team=0"]
        trainer.policies.clear()
        trainer.save_model()  # a warning, no file
        assert trainer.checkpoints.final is None

    def test_step(self, trainer):
        trainer._step = 41
        assert trainer.get_step == 41
        trainer._step = trainer.get_max_steps
        assert not trainer.should_still_train

    def test_is_training(self, trainer):
        assert trainer.should_still_train
        trainer.is_training = False
        assert not trainer.should_still_train

    def test_stats_reporter(self, trainer):
        trainer._stats_reporter = other = StatsReporter("Other")
        assert trainer.stats_reporter is other
        trainer.stats_reporter.add_stat("x", 1.0)
        assert StatsReporter.stats_dict["Other"]["x"] == [1.0]

    def test_update_buffer(self, trainer, make_trajectory):
        trainer.update_buffer = own = AgentBuffer()
        trainer._process_trajectory(make_trajectory(5))
        assert own.num_experiences == 5

    def test_model_saver(self, trainer):
        saved = []

        class Saver:
            def save_checkpoint(self, behavior_name, step):
                saved.append((behavior_name, step))
                return "path", []

        trainer.model_saver = Saver()
        trainer.brain_name = "Renamed"
        trainer._step = 7
        trainer.save_model()
        assert saved == [("Renamed", 7)]

    def test_cumulative_returns(self, trainer):
        trainer.cumulative_returns_since_policy_update += [1.0, 3.0]
        assert trainer._policy_mean_reward() == 2.0

    def test_shared_critic(self, make_trainer):
        class Trainer(PPOTrainer):
            def __init__(self, *args):
                super().__init__(*args)
                self.shared_critic = True

        assert hasattr(make_trainer(Trainer).policy.actor, "value_heads")


@pytest.mark.parametrize(("trainer_class", "settings_class"), BASES)
class TestMethodsThatPluginsCall:
    @pytest.fixture
    def trainer(self, make_trainer, trainer_class, settings_class):
        return make_trainer(trainer_class, settings_class())

    def test_super_process_trajectory_counts_the_steps(self, trainer, make_trajectory):
        trainer._process_trajectory(make_trajectory(5))
        trainer._process_trajectory(make_trajectory(3))
        assert trainer.get_step == trainer.policy.get_current_step() == 8

    def test_append_to_update_buffer(self, trainer, make_trajectory):
        first, second = make_trajectory(5).to_agentbuffer(), make_trajectory(3).to_agentbuffer()
        trainer._append_to_update_buffer(first)
        trainer._append_to_update_buffer(second)
        rewards = trainer.update_buffer[BufferKey.ENVIRONMENT_REWARDS]
        expected = [*first[BufferKey.ENVIRONMENT_REWARDS], *second[BufferKey.ENVIRONMENT_REWARDS]]
        np.testing.assert_array_equal(rewards, expected)

    def test_collected_rewards_is_a_nested_defaultdict(self, trainer):
        assert trainer.collected_rewards["anything"]["anyone"] == 0
        trainer.collected_rewards["anything"]["someone"] += 1.5
        assert trainer.collected_rewards["anything"] == {"anyone": 0, "someone": 1.5}

    def test_update_end_episode_stats(self, trainer, make_trajectory):
        trajectories = [make_trajectory(5), make_trajectory(3, done=True), make_trajectory(2, agent_id="agent_0-9")]
        total = sum(step.reward for lived in trajectories[:2] for step in lived.steps)
        for lived in trajectories:
            trainer._process_trajectory(lived)
        assert list(trainer.reward_buffer) == pytest.approx([total])
        assert trainer.cumulative_returns_since_policy_update == pytest.approx([total])
        stats = StatsReporter.stats_dict["Some"]
        assert stats["Environment/Cumulative Reward"] == pytest.approx([total])
        assert stats["Policy/Extrinsic Reward"] == pytest.approx([total])
        # The agent's next episode begins at 0, and the other agent's goes on.
        assert trainer.collected_rewards["environment"]["agent_0-1"] == 0
        assert trainer.collected_rewards["environment"]["agent_0-9"] != 0

    def test_warn_if_group_reward_does_so_once(self, trainer, make_trajectory, capsys):
        buffer = make_trajectory(3).to_agentbuffer()
        trainer._warn_if_group_reward(buffer)
        assert capsys.readouterr().out == ""
        buffer[BufferKey.GROUP_REWARD][1] = 0.5
        trainer._warn_if_group_reward(buffer)
        trainer._warn_if_group_reward(buffer)
        assert capsys.readouterr().out.count("group reward") == 1

    def test_clear_update_buffer(self, trainer, make_trajectory):
        trainer._process_trajectory(make_trajectory(5))
        trainer._clear_update_buffer()
        assert trainer.update_buffer.num_experiences == 0


class TestMaybeLoadReplayBuffer:
    def settings(self):
        return OffPolicyHyperparamSettings(save_replay_buffer=True)

    def saved(self, make_trainer, make_trajectory):
        trainer = make_trainer(OffPolicy, self.settings())
        trainer._process_trajectory(make_trajectory(5))
        trainer.save_model()
        return trainer.update_buffer

    def test_called_by_hand(self, make_trainer, make_trajectory):
        saved = self.saved(make_trainer, make_trajectory)
        trainer = make_trainer(OffPolicy, self.settings(), load=True)
        trainer.update_buffer.reset_agent()
        trainer.maybe_load_replay_buffer()
        np.testing.assert_array_equal(
            trainer.update_buffer[BufferKey.ENVIRONMENT_REWARDS], saved[BufferKey.ENVIRONMENT_REWARDS]
        )

    def test_called_where_the_policy_is_created(self, make_trainer, make_trajectory):
        class Trainer(OffPolicy):
            def create_policy(self, *args):
                policy = super().create_policy(*args)
                self.maybe_load_replay_buffer()
                return policy

        saved = self.saved(make_trainer, make_trajectory)
        trainer = make_trainer(Trainer, self.settings(), load=True)
        assert trainer.update_buffer.num_experiences == saved.num_experiences == 5

    def test_without_a_run_to_resume_it_does_nothing(self, make_trainer, make_trajectory):
        self.saved(make_trainer, make_trajectory)
        assert make_trainer(OffPolicy, self.settings()).update_buffer.num_experiences == 0


def test_what_is_asked_of_the_class_needs_no_instance():
    class Own(PPOTrainer):
        @staticmethod
        def get_settings_type():
            return TrainerSettings

        @staticmethod
        def get_trainer_name():
            return "own"

    assert (PPOTrainer.get_settings_type(), PPOTrainer.get_trainer_name()) == (PPOSettings, "ppo")
    assert (Own.get_settings_type(), Own.get_trainer_name()) == (TrainerSettings, "own")


def test_a_trainer_need_not_name_itself(make_trainer):
    """Who registers it names it; in ML-Agents 1.1.0 the method was not abstract."""

    class Nameless(OwnParts, OnPolicyTrainer):
        get_trainer_name = OnPolicyTrainer.get_trainer_name

    assert make_trainer(Nameless).get_step == 0


def test_the_policy_may_be_kept_where_it_is_created(make_trainer):
    class Trainer(OnPolicy):
        def create_policy(self, *args):
            self.policy = super().create_policy(*args)
            return self.policy

    assert make_trainer(Trainer).optimizer is not None


def test_add_policy_may_be_overridden_with_all_it_does(make_trainer, make_trajectory):
    class Trainer(OnPolicy):
        def add_policy(self, parsed_behavior_id, policy):
            self.policy = policy
            self.policies[parsed_behavior_id.behavior_id] = policy
            self.optimizer = self.create_optimizer()
            self.model_saver.register(self.policy)
            self.model_saver.register(self.optimizer)
            self.model_saver.initialize_or_load()
            self._step = policy.get_current_step()

    trainer = make_trainer(Trainer)
    trainer._process_trajectory(make_trajectory(5))
    trainer.save_model()
    assert make_trainer(Trainer, load=True).get_step == 5


def test_without_advantages_the_update_goes_on(make_trainer, make_trajectory):
    """An on-policy trainer that needs none puts none into the buffer."""
    seen = []

    class Trainer(OnPolicy):
        def create_optimizer(self):
            optimizer = super().create_optimizer()
            optimizer.update = lambda batch, n_sequences: seen.append((batch.num_experiences, n_sequences)) or {}
            return optimizer

    trainer = make_trainer(Trainer, PPOSettings(batch_size=4, buffer_size=8, num_epoch=1))
    trainer._process_trajectory(make_trajectory(9))
    trainer._update_policy()
    assert seen == [(4, 4), (4, 4)]
