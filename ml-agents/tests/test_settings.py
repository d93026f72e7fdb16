"""The settings classes: defaults, what they allow, and what plug-ins may do with them."""

import copy
import pickle

import attr
import pytest

from mlagents.trainers import settings
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.ppo.trainer import PPOSettings
from mlagents.trainers.settings import (
    CheckpointSettings,
    CompletionCriteriaSettings,
    ConstantSettings,
    EngineSettings,
    EnvironmentParameterSettings,
    EnvironmentSettings,
    GaussianSettings,
    HyperparamSettings,
    Lesson,
    MultiRangeUniformSettings,
    NetworkSettings,
    OffPolicyHyperparamSettings,
    OnPolicyHyperparamSettings,
    RewardSignalSettings,
    RewardSignalType,
    RunOptions,
    ScheduleType,
    SelfPlaySettings,
    TrainerSettings,
    UniformSettings,
    ensure_attrs_class,
)
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.incoming_message import IncomingMessage


def settings_classes():
    found = [value for value in vars(settings).values() if isinstance(value, type) and attr.has(value)]
    return [*found, NetworkSettings.MemorySettings]


@pytest.mark.parametrize("cls", settings_classes())
def test_every_field_is_documented(cls):
    assert [field.name for field in attr.fields(cls) if not field.metadata.get("help")] == []


@pytest.mark.parametrize("cls", settings_classes())
def test_plugins_may_set_attributes_of_their_own(cls):
    assert "__slots__" not in cls.__dict__


def test_defaults_of_ppo_are_those_of_ml_agents():
    assert attr.asdict(PPOSettings()) == {
        "batch_size": 1024,
        "buffer_size": 10240,
        "learning_rate": 3e-4,
        "learning_rate_schedule": ScheduleType.LINEAR,
        "num_epoch": 3,
        "beta": 5e-3,
        "epsilon": 0.2,
        "lambd": 0.95,
        "shared_critic": False,
        "beta_schedule": ScheduleType.LINEAR,
        "epsilon_schedule": ScheduleType.LINEAR,
    }


def test_defaults_of_a_behaviour_are_those_of_ml_agents():
    trainer = TrainerSettings()
    assert trainer.hyperparameters == PPOSettings()
    assert trainer.reward_signals == {RewardSignalType.EXTRINSIC: RewardSignalSettings(gamma=0.99, strength=1.0)}
    assert (trainer.max_steps, trainer.time_horizon, trainer.summary_freq) == (500000, 64, 50000)
    assert (trainer.checkpoint_interval, trainer.keep_checkpoints) == (500000, 5)
    assert OffPolicyHyperparamSettings().buffer_size == 50000


def test_behaviours_do_not_share_their_defaults():
    one, other = TrainerSettings(), TrainerSettings()
    one.network_settings.normalize = True
    one.reward_signals[RewardSignalType.EXTRINSIC].gamma = 0.5
    assert other == TrainerSettings()


def test_even_checkpoints_divide_the_training():
    assert TrainerSettings(even_checkpoints=True, max_steps=1000, keep_checkpoints=4).checkpoint_interval == 250
    assert TrainerSettings(even_checkpoints=True, max_steps=3, keep_checkpoints=4).checkpoint_interval == 1


def test_the_team_changes_every_five_snapshots():
    assert SelfPlaySettings(save_steps=300).team_change == 1500
    assert SelfPlaySettings(save_steps=300, team_change=7).team_change == 7


def test_folders_of_a_run():
    checkpoint = CheckpointSettings(run_id="second", initialize_from="first", results_dir="out")
    assert checkpoint.write_path == "out/second"
    assert checkpoint.maybe_init_path == "out/first"
    assert checkpoint.run_logs_dir == "out/second/run_logs"
    assert CheckpointSettings().maybe_init_path is None


REFUSED = [
    (lambda: HyperparamSettings(batch_size=0), "batch_size: 0 is not allowed; it must be at least 1"),
    (lambda: HyperparamSettings(learning_rate=-1e-4), "learning_rate: -0.0001 is not allowed; it must be at least 0"),
    (lambda: HyperparamSettings(learning_rate=float("nan")), "learning_rate: nan"),
    (lambda: HyperparamSettings(learning_rate=float("inf")), "learning_rate: inf"),
    (lambda: OffPolicyHyperparamSettings(steps_per_update=0), "steps_per_update: 0 is not allowed; it must be above 0"),
    (lambda: RewardSignalSettings(gamma=1.01), "gamma: 1.01 is not allowed; it must be from 0 to 1"),
    (lambda: NetworkSettings(hidden_units=0), "hidden_units"),
    (
        lambda: NetworkSettings.MemorySettings(memory_size=7),
        "memory_size: 7 is not allowed; it must be a positive even",
    ),
    (lambda: TrainerSettings(keep_checkpoints=0), "keep_checkpoints"),
    (lambda: TrainerSettings(time_horizon=0), "time_horizon"),
    (lambda: TrainerSettings(summary_freq=0), "summary_freq"),
    (lambda: EnvironmentSettings(num_envs=0), "num_envs"),
    (lambda: EnvironmentSettings(num_areas=0), "num_areas"),
    (lambda: EnvironmentSettings(base_port=70000), "base_port: 70000 is not allowed; it must be from 1 to 65535"),
    (lambda: EnvironmentSettings(seed=-2), "seed"),
    (lambda: CheckpointSettings(run_id=""), "run_id"),
    (lambda: CheckpointSettings(run_id="../other"), "run_id: '../other' is not allowed"),
    (lambda: CheckpointSettings(run_id="/tmp/run"), "run_id"),
    (lambda: UniformSettings(min_value=2, max_value=1), "min_value: 2 is not allowed; it must be at most"),
    (lambda: GaussianSettings(st_dev=-1), "st_dev"),
    (lambda: MultiRangeUniformSettings(intervals=[(0, 1), (3, 2)]), "intervals: 3 is not allowed"),
    (lambda: MultiRangeUniformSettings(intervals=[]), "intervals: at least one"),
    (lambda: completion(measure="PROGRESS", threshold=1.5), "threshold: 1.5 is not allowed; for measure: progress"),
    (lambda: EnvironmentParameterSettings([]), "curriculum: at least one lesson"),
    (lambda: EnvironmentParameterSettings([lesson("a"), lesson("b")]), "lesson 'a' is not the last one"),
]


def completion(measure, threshold):
    measure_type = CompletionCriteriaSettings.MeasureType[measure]
    return CompletionCriteriaSettings(behavior="b", measure=measure_type, threshold=threshold)


def lesson(name):
    return Lesson(value=ConstantSettings(value=1.0), name=name)


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message.split(" ")[0] for _, message in REFUSED])
def test_a_bad_value_is_refused_with_what_is_allowed(make, message):
    with pytest.raises(TrainerConfigError) as raised:
        make()
    assert str(raised.value).startswith(message)


def test_values_at_the_edges_are_allowed():
    assert HyperparamSettings(batch_size=1, buffer_size=1, learning_rate=0).learning_rate == 0
    assert RewardSignalSettings(gamma=1.0, strength=-1.0).strength == -1.0
    assert UniformSettings(min_value=1.0, max_value=1.0).min_value == 1.0
    assert completion(measure="REWARD", threshold=-20.0).threshold == -20.0
    assert EnvironmentSettings(seed=-1, max_lifetime_restarts=-1).seed == -1
    assert CheckpointSettings(run_id="group/run").run_id == "group/run"


class TestBehaviorsWithoutAnEntry:
    def test_they_are_an_error_that_names_the_entries(self):
        behaviors = TrainerSettings.DefaultTrainerDict({"3DBall": TrainerSettings(), "Basic": TrainerSettings()})
        with pytest.raises(TrainerConfigError, match=r"3dbal has no entry.*Did you mean '3DBall'.*3DBall, Basic"):
            behaviors["3dbal"]
        assert set(behaviors) == {"3DBall", "Basic"}

    def test_default_settings_serve_each_with_a_copy(self):
        options = RunOptions(default_settings=TrainerSettings(max_steps=7))
        options.behaviors["one"].max_steps = 8
        assert options.behaviors["other"].max_steps == 7
        assert options.default_settings.max_steps == 7
        assert set(options.behaviors) == {"one", "other"}

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda options: pickle.loads(pickle.dumps(options))])
    def test_default_settings_survive_copies(self, duplicate):
        options = duplicate(RunOptions(default_settings=TrainerSettings(max_steps=7)))
        assert options.behaviors["any"].max_steps == 7

    def test_a_program_may_give_a_default_for_all_its_runs(self, monkeypatch):
        monkeypatch.setattr(TrainerSettings, "default_override", TrainerSettings(max_steps=3))
        assert RunOptions().behaviors["any"].max_steps == 3
        assert RunOptions(default_settings=TrainerSettings(max_steps=7)).behaviors["any"].max_steps == 7


class TestSettingsClassesOfPlugins:
    def test_a_class_without_a_decorator_becomes_an_attrs_class(self):
        class YourSettings(OnPolicyHyperparamSettings):
            beta: float = 5.0e-3
            learning_rate_schedule: ScheduleType = ScheduleType.LINEAR

        assert ensure_attrs_class(YourSettings) is YourSettings
        made = YourSettings(beta=0.5, batch_size=8)
        assert (made.beta, made.batch_size, made.num_epoch) == (0.5, 8, 3)
        assert made.learning_rate_schedule is ScheduleType.LINEAR

    def test_an_attrs_class_is_left_alone(self):
        @attr.s(auto_attribs=True)
        class Decorated(HyperparamSettings):
            tau: float = 0.1

        init = Decorated.__init__
        ensure_attrs_class(Decorated)
        assert Decorated.__init__ is init

    def test_a_decorated_subclass_keeps_what_it_inherits_from_an_undecorated_class(self):
        class Base(HyperparamSettings):
            beta: float = 0.3

        @attr.s(auto_attribs=True)
        class Child(Base):
            tau: float = 0.1

        ensure_attrs_class(Base)
        assert Child().beta == 0.3
        assert Base(beta=0.4).beta == 0.4

    def test_an_undecorated_subclass_of_an_undecorated_class_has_the_fields_of_both(self):
        class Base(HyperparamSettings):
            beta: float = 0.3

        class Child(Base):
            tau: float = 0.1

        made = ensure_attrs_class(Child)(beta=1.0, tau=2.0)
        assert (made.beta, made.tau, made.batch_size) == (1.0, 2.0, 1024)

    def test_default_and_validator_methods_work(self):
        class WithMethods(HyperparamSettings):
            tau: float = attr.ib()

            @tau.default
            def _tau(self):
                return self.learning_rate * 10

            @tau.validator
            def _check(self, attribute, value):
                if value > 1:
                    raise TrainerConfigError("tau is too much")

        ensure_attrs_class(WithMethods)
        assert WithMethods(learning_rate=0.05).tau == pytest.approx(0.5)
        with pytest.raises(TrainerConfigError, match="tau is too much"):
            WithMethods(tau=2.0)

    def test_they_may_hang_attributes_on_settings(self):
        network_settings = NetworkSettings()
        network_settings.path_to_model = "model.pt"
        assert copy.deepcopy(network_settings).path_to_model == "model.pt"


class TestSamplers:
    def message(self, sampler):
        """What the environment is told about the parameter."""
        channel = EnvironmentParametersChannel()
        sampler.apply("mass", channel)
        message = IncomingMessage(channel.message_queue[0])
        assert message.read_string() == "mass"
        return message

    def test_constant(self):
        message = self.message(ConstantSettings(value=2.5))
        assert (message.read_int32(), message.read_float32()) == (0, 2.5)

    def test_uniform(self):
        message = self.message(UniformSettings(seed=3, min_value=0.5, max_value=1.5))
        assert [message.read_int32() for _ in range(3)] == [1, 3, 0]
        assert [message.read_float32() for _ in range(2)] == [0.5, 1.5]

    def test_gaussian(self):
        message = self.message(GaussianSettings(seed=3, mean=0.5, st_dev=1.5))
        assert [message.read_int32() for _ in range(3)] == [1, 3, 1]
        assert [message.read_float32() for _ in range(2)] == [0.5, 1.5]

    def test_multirangeuniform(self):
        message = self.message(MultiRangeUniformSettings(seed=3, intervals=[(0.5, 1.5), (3.0, 4.0)]))
        assert [message.read_int32() for _ in range(3)] == [1, 3, 2]
        assert message.read_float32_list() == [0.5, 1.5, 3.0, 4.0]


def test_engine_defaults_are_those_of_ml_agents():
    engine = EngineSettings()
    assert (engine.width, engine.height, engine.quality_level, engine.time_scale) == (84, 84, 5, 20)
    assert (engine.target_frame_rate, engine.capture_frame_rate, engine.no_graphics) == (-1, 60, False)
