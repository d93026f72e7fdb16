"""Configuration files: what they may say, and one clear message for each way to get them wrong."""

import textwrap
from pathlib import Path

import attr
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import mlagents.plugins
from mlagents.trainers.config_file import load_config_file
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings import (
    CheckpointSettings,
    ConstantSettings,
    EncoderType,
    GaussianSettings,
    HyperparamSettings,
    MultiRangeUniformSettings,
    NetworkSettings,
    RewardSignalType,
    RunOptions,
    ScheduleType,
    UniformSettings,
)
from mlagents.trainers.settings.reader import read_run_options

CONFIG_FOLDER = Path(__file__).parents[2] / "config"


@pytest.fixture
def read(tmp_path):
    """Read a configuration given as text."""

    def read_text(text):
        path = tmp_path / "config.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return read_run_options(*load_config_file(str(path)))

    return read_text


@pytest.fixture
def message_of(read):
    """Return the error message of a configuration, with its file called config.yaml."""

    def message(text):
        with pytest.raises(TrainerConfigError) as raised:
            read(text)
        lines = str(raised.value).splitlines()
        return "\n".join("config.yaml" + line.partition("config.yaml")[2] for line in lines)

    return message


# Each row: the file's text, how the message begins, and what else it holds.
BROKEN = {
    "unknown top-level key": (
        "behaviours: {}",
        "config.yaml:1: behaviours: unknown key",
        ["'behaviors'", "env_settings"],
    ),
    "unknown key": (
        """\
        behaviors:
          3DBall:
            hyperparameters:
              batch_sise: 64
        """,
        "config.yaml:4: behaviors.3DBall.hyperparameters.batch_sise: unknown key.",
        ["Did you mean 'batch_size'?", "Allowed: batch_size, buffer_size, learning_rate, "],
    ),
    "unknown key of a behaviour": (
        "behaviors:\n  A:\n    max_step: 5",
        "config.yaml:3: behaviors.A.max_step: unknown key.",
        ["'max_steps'"],
    ),
    "a key that is a number": ("behaviors: {}\n7: 8", "config.yaml:2: 7: unknown key.", ["behaviors"]),
    "text for a truth value": (
        'behaviors:\n  A:\n    network_settings:\n      normalize: "true"',
        "config.yaml:4: behaviors.A.network_settings.normalize: expected true or false, without quotes",
        [],
    ),
    "a number for a truth value": ("debug: 3", "config.yaml:1: debug: expected true or false, found 3.", []),
    "text for a number": (
        "behaviors:\n  A:\n    hyperparameters: {learning_rate: abc}",
        "config.yaml:3: behaviors.A.hyperparameters.learning_rate: expected a number, found the text 'abc'.",
        [],
    ),
    "not a number": ("engine_settings: {time_scale: .nan}", "config.yaml:1: engine_settings.time_scale: expected", []),
    "a list for a number": (
        "behaviors:\n  A:\n    max_steps: [1, 2]",
        "config.yaml:3: behaviors.A.max_steps: expected a whole number, found the list [1, 2].",
        [],
    ),
    "a fraction for a whole number": (
        "behaviors:\n  A:\n    hyperparameters:\n      num_epoch: 3.7",
        "config.yaml:4: behaviors.A.hyperparameters.num_epoch: expected a whole number, found 3.7.",
        [],
    ),
    "a truth value for a number": (
        "env_settings:\n  base_port: yes",
        "config.yaml:2: env_settings.base_port: expected a whole number, found true.",
        [],
    ),
    "a truth value for text": (
        "checkpoint_settings:\n  run_id: on",
        "config.yaml:2: checkpoint_settings.run_id: expected text, found true.",
        [],
    ),
    "null for a number": (
        "behaviors:\n  A:\n    max_steps:",
        "config.yaml:3: behaviors.A.max_steps: expected",
        ["null"],
    ),
    "text for a section": (
        "behaviors:\n  A:\n    network_settings: big",
        "config.yaml:3: behaviors.A.network_settings: expected a mapping of keys to values, found the text 'big'.",
        [],
    ),
    "a list for behaviors": ("behaviors:\n- A", "config.yaml:1: behaviors: expected a mapping", ["['A']"]),
    "text for a list": ("env_settings: {env_args: -x}", "config.yaml:1: env_settings.env_args: expected a list", []),
    "a bad entry of a list": (
        "env_settings:\n  env_args:\n  - a\n  - {}",
        "config.yaml:4: env_settings.env_args[1]: expected text, found a mapping.",
        [],
    ),
    "a value out of range": (
        "behaviors:\n  A:\n    hyperparameters:\n      buffer_size: 64\n      batch_size: -1",
        "config.yaml:5: behaviors.A.hyperparameters.batch_size: -1 is not allowed; it must be at least 1.",
        [],
    ),
    "an unknown schedule": (
        "behaviors:\n  A:\n    hyperparameters:\n      learning_rate_schedule: Linaer",
        "config.yaml:4: behaviors.A.hyperparameters.learning_rate_schedule: the text 'Linaer' is not allowed.",
        ["Did you mean 'linear'?", "Allowed: constant, linear."],
    ),
    "an unknown reward signal": (
        "behaviors:\n  A:\n    reward_signals:\n      extrinsics: {}",
        "config.yaml:4: behaviors.A.reward_signals.extrinsics: the text 'extrinsics' is not allowed.",
        ["Did you mean 'extrinsic'?"],
    ),
    "an unknown trainer type": (
        "behaviors:\n  A:\n    trainer_type: pp0",
        "config.yaml:3: behaviors.A.trainer_type: Invalid trainer type pp0 was found",
        ["Did you mean 'ppo'?", "Installed: ", "ppo"],
    ),
    "a trainer type to come": (
        "behaviors:\n  A:\n    trainer_type: poca",
        "config.yaml:3: behaviors.A.trainer_type: Invalid trainer type poca was found. poca is not there yet.",
        [],
    ),
    "an unknown sampler": (
        "environment_parameters:\n  mass:\n    sampler_type: unifrom",
        "config.yaml:3: environment_parameters.mass.sampler_type: the text 'unifrom' is not allowed.",
        ["'uniform'"],
    ),
    "an unknown parameter of a sampler": (
        "environment_parameters:\n  mass:\n    sampler_type: gaussian\n    sampler_parameters:\n      std: 1",
        "config.yaml:5: environment_parameters.mass.sampler_parameters.std: unknown key.",
        ["Allowed: seed, mean, st_dev."],
    ),
    "a sampler the wrong way round": (
        "environment_parameters:\n  mass:\n    sampler_type: uniform\n    sampler_parameters:\n"
        "      min_value: 2\n      max_value: 1",
        "config.yaml:5: environment_parameters.mass.sampler_parameters.min_value: 2.0 is not allowed",
        ["at most the maximum, 1.0"],
    ),
    "an interval of three": (
        "environment_parameters:\n  mass:\n    sampler_type: multirangeuniform\n    sampler_parameters:\n"
        "      intervals: [[1, 2], [3, 4, 5]]",
        "config.yaml:5: environment_parameters.mass.sampler_parameters.intervals[1]: expected a list of 2 entries",
        [],
    ),
    "text for a parameter": (
        "environment_parameters:\n  mass: heavy",
        "config.yaml:2: environment_parameters.mass: expected a number, found the text 'heavy'.",
        [],
    ),
    "a lesson without a name": (
        "environment_parameters:\n  mass:\n    curriculum:\n    - value: 1",
        "config.yaml:4: environment_parameters.mass.curriculum[0]: name is missing.",
        [],
    ),
    "a lesson that cannot end": (
        "environment_parameters:\n  mass:\n    curriculum:\n    - {name: a, value: 1}\n    - {name: b, value: 2}",
        "config.yaml:2: environment_parameters.mass: lesson 'a' is not the last one",
        [],
    ),
    "a demonstration that is not named": (
        "behaviors:\n  A:\n    behavioral_cloning: {}",
        "config.yaml:3: behaviors.A.behavioral_cloning: demo_path is missing.",
        [],
    ),
    "a run outside of the results": (
        "checkpoint_settings:\n  run_id: ../..",
        "config.yaml:2: checkpoint_settings.run_id: '../..' is not allowed",
        [],
    ),
    "an error in default_settings": (
        "default_settings:\n  max_steps: x\nbehaviors:\n  A:\n  B: {}",
        "config.yaml:2: default_settings.max_steps: expected a whole number",
        [],
    ),
    "the same key twice": (
        "behaviors:\n  A:\n    max_steps: 1\n    max_steps: 2",
        "config.yaml:4: max_steps is there twice in its section, first in line 3",
        [],
    ),
    "an empty file": ("", "config.yaml: the file is empty", ["behaviors"]),
    "nothing but comments": ("# later\n", "config.yaml: the file is empty", []),
    "a list at the top": ("# x\n- behaviors", "config.yaml:2: expected a mapping of keys at the top level", []),
    "text at the top": ("behaviors", "config.yaml:1: expected a mapping of keys at the top level", []),
    "an open bracket": ("behaviors: {A: [1, 2}", "config.yaml:1: column 21: this is not YAML", ["expected ',' or ']'"]),
    "a tab": ("behaviors:\n\tA: {}", "config.yaml:2: column 1: this is not YAML", ["Indent with spaces"]),
    "a colon too many": ("behaviors:\n  A: b: c", "config.yaml:2: column 7: this is not YAML", []),
    "an object of Python": ("debug: !!python/object:os.system x", "config.yaml:1: column 8: this is not YAML", []),
    "a wrong tag": ("debug: !!int x", "config.yaml: ", ["invalid literal"]),
    "a control character": ("debug: \x07", "config.yaml:1: this is not YAML", ["'\\x07' is not allowed"]),
    "a section that contains itself": ("behaviors: &a\n  A: *a", "config.yaml: its sections", ["contain themselves"]),
    "an unknown alias": ("behaviors: *all", "config.yaml:1: column 12: this is not YAML", ["undefined alias"]),
}


@pytest.mark.parametrize(("text", "start", "parts"), BROKEN.values(), ids=list(BROKEN))
def test_a_mistake_has_one_clear_message(message_of, text, start, parts):
    message = message_of(text)
    assert message.startswith(start)
    assert [part for part in parts if part not in message] == []
    assert len(message.splitlines()) == 1


NOT_BUILT = {
    "gail": ("reward_signals: {gail: {demo_path: x}}", "reward_signals.gail", "gail"),
    "curiosity": ("reward_signals: {curiosity: }", "reward_signals.curiosity", "curiosity"),
    "rnd": ("reward_signals: {rnd: {strength: 0.1}}", "reward_signals.rnd", "rnd"),
    "cloning": ("behavioral_cloning: {demo_path: x}", "behavioral_cloning", "behavioral cloning"),
    "self-play": ("self_play: {window: 5}", "self_play", "self-play"),
}


@pytest.mark.parametrize(("setting", "key", "feature"), NOT_BUILT.values(), ids=list(NOT_BUILT))
def test_a_feature_to_come_is_named(message_of, setting, key, feature):
    message = message_of(f"behaviors:\n  A:\n    {setting}\n")
    assert message.startswith(f"config.yaml:3: behaviors.A.{key}: not there yet: ")
    assert feature in message
    in_defaults = message_of(f"default_settings:\n  {setting}\nbehaviors:\n  A:\n")
    assert in_defaults.startswith(f"config.yaml:2: default_settings.{key}: not there yet: ")
    assert len(in_defaults.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (
            "environment_parameters:\n  mass:\n    curriculum:\n"
            "    - {name: a, value: 1, completion_criteria: {behavior: A, threshold: 1}}\n    - {name: b, value: 2}",
            "config.yaml:3: environment_parameters.mass.curriculum: not there yet: a curriculum of several lessons",
        ),
    ],
)
def test_a_feature_to_come_of_the_run_is_named(message_of, text, start):
    assert message_of(text).startswith(start)


def test_asking_for_nothing_that_is_to_come_passes(read):
    options = read(
        """\
        behaviors:
          A:
            network_settings: {memory: null, vis_encode_type: simple, goal_conditioning_type: hyper}
            reward_signals:
              extrinsic: {network_settings: {hidden_units: 64, memory: {memory_size: 8}}}
            behavioral_cloning:
            self_play: null
            threaded: true
            init_path: null
        env_settings: {num_envs: 2, env_args: null, timeout_wait: 10}
        engine_settings: {width: 100, time_scale: 1, no_graphics: true}
        environment_parameters:
          mass: {curriculum: [{name: only, value: 2}]}
        """
    )
    assert options.behaviors["A"].network_settings == NetworkSettings()
    assert options.engine_settings.width == 100


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(message_of):
    message = message_of("behaviors:\n  A:\n    max_step: 1\n    keep_checkpoints: x\ndebug: 2")
    assert [line.split(": ")[0] for line in message.splitlines()] == [f"config.yaml:{line}" for line in (3, 4, 5)]


@pytest.mark.parametrize("number", ["500000", "500000.0", "5.0e5", "5e5", "5.0e+5", "'500000'", "500_000"])
def test_whole_numbers_may_be_written_in_any_way(read, number):
    max_steps = read(f"behaviors:\n  A:\n    max_steps: {number}").behaviors["A"].max_steps
    assert (max_steps, type(max_steps)) == (500000, int)


@pytest.mark.parametrize("number", ["0.0003", "3e-4", "3.0e-4", "3E-4", ".0003"])
def test_numbers_may_be_written_in_any_way(read, number):
    options = read(f"behaviors:\n  A:\n    hyperparameters:\n      learning_rate: {number}")
    assert options.behaviors["A"].hyperparameters.learning_rate == 3e-4


@pytest.mark.parametrize("text", ["run_id: 123", "run_id: 2024-01-01", "run_id: 1e5", "run_id: '007'"])
def test_text_may_look_like_something_else(read, text):
    expected = text.partition(": ")[2].strip("'")
    assert read(f"checkpoint_settings:\n  {text}").checkpoint_settings.run_id == expected


@pytest.mark.parametrize("text", ["behaviors:", "behaviors: {}", "behaviors: null\nenv_settings:\nengine_settings: ~"])
def test_empty_sections_take_their_defaults(read, text):
    assert read(text) == RunOptions()


def test_an_empty_behaviour_takes_the_defaults(read):
    options = read("behaviors:\n  A:\n  B:\n    hyperparameters:\n    reward_signals:\n")
    assert options.behaviors["A"] == options.behaviors["B"]
    assert options.behaviors["A"].hyperparameters.batch_size == 1024
    assert list(options.behaviors["B"].reward_signals) == [RewardSignalType.EXTRINSIC]


ANCHORS = "behaviors:\n  A: &a\n    max_steps: 1\n    time_horizon: 2\n  B:\n    <<: *a\n    time_horizon: {}\n"


def test_yaml_anchors_and_merges_work(read):
    behaviors = read(ANCHORS.format(3)).behaviors
    assert (behaviors["B"].max_steps, behaviors["B"].time_horizon) == (1, 3)


def test_a_merged_key_has_its_own_line(message_of):
    assert message_of(ANCHORS.format("x")).startswith("config.yaml:7: behaviors.B.time_horizon: expected")
    in_both = message_of(ANCHORS.format(3).replace("max_steps: 1", "max_step: 1")).splitlines()
    assert [line.split(": ")[0] for line in in_both] == ["config.yaml:3", "config.yaml:3"]


def test_a_byte_order_mark_is_ignored(tmp_path):
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfdebug: true")
    assert load_config_file(str(tmp_path / "bom.yaml")).options == {"debug": True}


class TestDefaultSettings:
    def test_they_go_under_each_behaviour(self, read):
        options = read(
            """\
            default_settings:
              max_steps: 7
              hyperparameters: {batch_size: 8, learning_rate: 0.5}
              network_settings: {hidden_units: 9}
            behaviors:
              A:
                hyperparameters: {batch_size: 16}
                network_settings:
              B:
            """
        )
        a = options.behaviors["A"]
        assert (a.max_steps, a.hyperparameters.batch_size, a.hyperparameters.learning_rate) == (7, 16, 0.5)
        assert a.network_settings.hidden_units == 9
        assert options.behaviors["B"] == options.behaviors["not mentioned"] == options.default_settings

    def test_without_them_a_behaviour_needs_an_entry(self, read):
        with pytest.raises(TrainerConfigError, match="Bal has no entry"):
            read("behaviors:\n  Ball:").behaviors["Bal"]

    def test_a_behaviour_may_have_none_of_what_they_give(self, read):
        options = read_run_options(
            {
                "default_settings": {"reward_signals": {"extrinsic": {"network_settings": {"memory": {}}}}},
                "behaviors": {"A": {"reward_signals": {"extrinsic": {"network_settings": {"memory": None}}}}},
            }
        )
        network = options.behaviors["A"].reward_signals[RewardSignalType.EXTRINSIC].network_settings
        assert network.memory is None


@pytest.mark.parametrize("schedule", list(ScheduleType))
def test_beta_and_epsilon_follow_the_learning_rate_schedule(read, schedule):
    options = read(f"behaviors:\n  A:\n    hyperparameters:\n      learning_rate_schedule: {schedule.value}")
    hyperparameters = options.behaviors["A"].hyperparameters
    assert hyperparameters.beta_schedule is hyperparameters.epsilon_schedule is schedule


def test_a_schedule_of_its_own_is_kept(read):
    options = read(
        """\
        behaviors:
          A:
            hyperparameters: {learning_rate_schedule: constant, beta_schedule: linear}
        """
    )
    hyperparameters = options.behaviors["A"].hyperparameters
    assert hyperparameters.beta_schedule is ScheduleType.LINEAR
    assert hyperparameters.epsilon_schedule is ScheduleType.CONSTANT


def test_environment_parameters_are_numbers_or_samplers(read):
    parameters = read(
        """\
        environment_parameters:
          mass: 2
          scale: {sampler_type: uniform, sampler_parameters: {min_value: 1e-1, max_value: 3}}
          wind: {sampler_type: gaussian, sampler_parameters: {mean: 0, st_dev: 2, seed: 4}}
          gap: {sampler_type: multirangeuniform, sampler_parameters: {intervals: [[0, 1], [2, 3]]}}
          fixed: {sampler_type: constant, sampler_parameters: {value: 5}}
          plain: {sampler_type: uniform}
        """
    ).environment_parameters
    assert {name: parameter.curriculum[0].value for name, parameter in parameters.items()} == {
        "mass": ConstantSettings(value=2.0),
        "scale": UniformSettings(min_value=0.1, max_value=3.0),
        "wind": GaussianSettings(seed=4, mean=0.0, st_dev=2.0),
        "gap": MultiRangeUniformSettings(intervals=[(0.0, 1.0), (2.0, 3.0)]),
        "fixed": ConstantSettings(value=5.0),
        "plain": UniformSettings(),
    }
    assert parameters["mass"].curriculum[0].name == "mass"


class TestFilesThatCannotBeRead:
    def message(self, path):
        with pytest.raises(TrainerConfigError) as raised:
            load_config_file(str(path))
        return str(raised.value)

    def test_missing(self, tmp_path):
        assert self.message(tmp_path / "no.yaml") == f"{tmp_path}/no.yaml: there is no such configuration file."

    def test_a_folder(self, tmp_path):
        assert self.message(tmp_path).startswith(f"{tmp_path}: this is a folder")

    def test_not_utf8(self, tmp_path):
        (tmp_path / "latin.yaml").write_bytes("behaviors: {Bäll: }".encode("latin-1"))
        assert "latin.yaml: the file is not UTF-8 text (byte 13" in self.message(tmp_path / "latin.yaml")

    def test_a_name_that_cannot_be(self, tmp_path):
        assert "the file cannot be read: File name too long." in self.message(tmp_path / ("x" * 300))


def test_options_without_a_file_have_their_errors_named_by_key():
    with pytest.raises(TrainerConfigError) as raised:
        RunOptions.from_dict({"behaviors": {"A": {"max_steps": "x"}}})
    assert str(raised.value) == "behaviors.A.max_steps: expected a whole number, found the text 'x'."
    with pytest.raises(TrainerConfigError, match="expected a mapping"):
        RunOptions.from_dict([])


class TestTrainerTypesOfPlugins:
    @pytest.fixture(autouse=True)
    def registry(self, monkeypatch):
        """Trainer types of the test's own, beside those that are there."""
        registry = {}
        monkeypatch.setattr("mlagents.plugins.trainer_type.all_trainer_settings", registry)
        return registry

    def test_their_settings_are_read(self, registry, read):
        class YourSettings(HyperparamSettings):
            tau: float = 0.1
            sizes: "list[int]" = attr.Factory(lambda: [1])
            mode: "int | str" = 0
            encoder: EncoderType = EncoderType.SIMPLE
            anything: object = None

        registry["yours"] = YourSettings
        hyperparameters = (
            read(
                """\
                behaviors:
                  A:
                    trainer_type: yours
                    hyperparameters:
                      batch_size: 5
                      tau: 1e-3
                      sizes: [2, 3.0]
                      mode: fast
                      encoder: resnet
                      anything: {a: [1]}
                """
            )
            .behaviors["A"]
            .hyperparameters
        )
        assert attr.asdict(hyperparameters) == {
            "batch_size": 5,
            "buffer_size": 10240,
            "learning_rate": 3e-4,
            "learning_rate_schedule": ScheduleType.CONSTANT,
            "tau": 1e-3,
            "sizes": [2, 3],
            "mode": "fast",
            "encoder": EncoderType.RESNET,
            "anything": {"a": [1]},
        }

    @pytest.mark.parametrize(
        ("validator_error", "shown"),
        [(TrainerConfigError("tau and sigma do not go together"),) * 2, (ValueError("'tau' must be < 1"),) * 2],
    )
    def test_the_error_of_a_validator_reaches_the_user_as_it_is(self, registry, message_of, validator_error, shown):
        @attr.s(auto_attribs=True)
        class Checked(HyperparamSettings):
            tau: float = attr.ib(default=0.1)

            @tau.validator
            def _check(self, attribute, value):
                if value > 1:
                    raise validator_error

        registry["checked"] = Checked
        message = message_of("behaviors:\n  A:\n    trainer_type: checked\n    hyperparameters: {tau: 2}")
        assert message == f"config.yaml:4: behaviors.A.hyperparameters: {shown}"

    def test_a_field_without_a_type_takes_anything(self, registry, read):
        @attr.s
        class Untyped(HyperparamSettings):
            extra = attr.ib(default=None)

        registry["untyped"] = Untyped
        options = read("behaviors:\n  A:\n    trainer_type: untyped\n    hyperparameters: {extra: [1, a]}")
        assert options.behaviors["A"].hyperparameters.extra == [1, "a"]

    def test_a_behaviour_of_another_trainer_type_inherits_the_hyperparameters_that_it_has(self, registry, read):
        class Rich(HyperparamSettings):
            beta: float = 0.5

        registry.update(plain=HyperparamSettings, rich=Rich)
        options = read(
            """\
            default_settings:
              trainer_type: rich
              hyperparameters: {beta: 1, batch_size: 3}
            behaviors:
              A: {trainer_type: plain}
            """
        )
        assert options.behaviors["A"].hyperparameters == HyperparamSettings(batch_size=3)
        assert options.default_settings.hyperparameters == Rich(beta=1.0, batch_size=3)
        assert RunOptions.from_dict(options.as_dict()) == options


@pytest.mark.parametrize("path", sorted(CONFIG_FOLDER.rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_ready_configurations_can_be_read(path):
    options = read_run_options(*load_config_file(str(path)))
    named = options.env_settings.env_path or ""  # what PettingZoo has is named by its module, and has several kinds
    assert path.stem in options.behaviors or (named.startswith("pettingzoo:") and named.endswith(path.stem))


names = st.text(min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
fractions = st.floats(0, 1)
samplers = st.one_of(
    numbers,
    st.builds(
        lambda ends: {"sampler_type": "uniform", "sampler_parameters": {"min_value": ends[0], "max_value": ends[1]}},
        st.tuples(numbers, numbers).map(sorted),
    ),
    st.builds(
        lambda mean, st_dev: {"sampler_type": "gaussian", "sampler_parameters": {"mean": mean, "st_dev": st_dev}},
        numbers,
        st.floats(0, 1e6),
    ),
    st.builds(
        lambda ends: {"sampler_type": "multirangeuniform", "sampler_parameters": {"intervals": ends}},
        st.lists(st.tuples(numbers, numbers).map(sorted), min_size=1, max_size=3),
    ),
)
trainers = st.fixed_dictionaries(
    {},
    optional={
        "hyperparameters": st.fixed_dictionaries(
            {},
            optional={
                "batch_size": st.integers(1, 10**9),
                "learning_rate": st.floats(0, 1e3),
                "learning_rate_schedule": st.sampled_from(["linear", "constant"]),
                "beta_schedule": st.sampled_from(["linear", "constant"]),
                "shared_critic": st.booleans(),
            },
        ),
        "network_settings": st.fixed_dictionaries({}, optional={"normalize": st.booleans(), "memory": st.none()}),
        "reward_signals": st.fixed_dictionaries(
            {}, optional={"extrinsic": st.fixed_dictionaries({"gamma": fractions})}
        ),
        "even_checkpoints": st.booleans(),
        "max_steps": st.integers(0, 10**9),
        "init_path": st.none() | names,
    },
)
options_dicts = st.fixed_dictionaries(
    {},
    optional={
        "default_settings": st.none() | trainers,
        "behaviors": st.none() | st.dictionaries(names, st.none() | trainers, max_size=3),
        "environment_parameters": st.none() | st.dictionaries(names, samplers, max_size=3),
        "env_settings": st.fixed_dictionaries(
            {}, optional={"env_args": st.lists(names), "seed": st.integers(-1, 2**32 - 1)}
        ),
        "checkpoint_settings": st.builds(lambda n: {"run_id": f"run{n}"}, names)
        | st.from_regex(r"\A[0-9a-f]+[0-9eE.+-]*[0-9]\Z").map(lambda n: {"run_id": n}),
        "debug": st.booleans(),
    },
)


@settings(deadline=None)  # the first example imports torch
@given(options_dicts)
def test_what_is_written_reads_back_equal(options_dict):
    options = RunOptions.from_dict(options_dict)
    written = yaml.safe_dump(options.as_dict())
    assert RunOptions.from_dict(yaml.safe_load(written)) == options


def test_what_is_written_to_a_file_reads_back_equal(read):
    options = RunOptions.from_dict(
        {
            "default_settings": {"max_steps": 5},
            "behaviors": {"3DBall": {"hyperparameters": {"learning_rate": 1e-5}}, "on": {}, "7": {}, "1e5": {}},
            "checkpoint_settings": attr.asdict(CheckpointSettings(run_id="2024-01-01")),
            "environment_parameters": {"mass": 1e-7},
        }
    )
    assert read(yaml.safe_dump(options.as_dict())) == options


def test_trainer_settings_may_be_passed_on_as_plain_data():
    options = RunOptions.from_dict({"behaviors": {"A": {"max_steps": 9}}})
    assert RunOptions.from_dict({"behaviors": {"A": options.behaviors["A"].as_dict()}}) == options
    assert mlagents.plugins.all_trainer_settings["ppo"] is type(options.behaviors["A"].hyperparameters)
