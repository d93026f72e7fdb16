"""The JSON Schema of configurations: it says what the reader says, as far as a schema can."""

import runpy
from pathlib import Path

import attr
import jsonschema
import pytest
import yaml

from mlagents.plugins.trainer_type import get_settings_class
from mlagents.trainers import settings as s
from mlagents.trainers.config_file import load_config_file
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings.reader import read_run_options
from mlagents.trainers.settings.schema import configuration_schema

CONFIGS = Path(__file__).parents[2] / "config"
TRAINERS = ("a2c", "dqn", "ppo", "sac")


@pytest.fixture(scope="module")
def validator():
    schema = configuration_schema(TRAINERS)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def reader_takes(options):
    try:
        read_run_options(options)
    except TrainerConfigError as error:
        return all("not there yet" in line for line in str(error).splitlines())
    return True


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_configurations_that_are_shipped_pass_and_name_it(validator, path):
    validator.validate(load_config_file(str(path)).options)
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=../schema.json"
    assert (path.parent / "../schema.json").exists()


def test_the_file_is_what_the_settings_classes_say():
    script = runpy.run_path(str(CONFIGS.with_name("docs") / "generate_schema.py"))
    rendered = script["render"](script["TRAINER_TYPES"])
    assert rendered == (CONFIGS / "schema.json").read_text(encoding="utf-8"), "run docs/generate_schema.py"


def test_what_a_run_writes_passes(validator):
    options = s.RunOptions.from_dict({"behaviors": {name: {"trainer_type": name} for name in TRAINERS}})
    validator.validate(yaml.safe_load(yaml.safe_dump(options.as_dict())))


# Every key, with values that are right and wrong

GAIL = {"demo_path": "a.demo"}
LESSON = {"name": "first", "value": 1.0}
CRITERIA = {"behavior": "Ball"}


def behavior(**parts):
    return {"behaviors": {"Ball": {"trainer_type": "ppo", **parts}}}


def parameter(value):
    return {"environment_parameters": {"mass": value}}


def sampler(kind):
    def place(parameters):
        return parameter({"sampler_type": kind, "sampler_parameters": parameters})

    return place


PLACES = {
    "the top": (s.RunOptions, lambda section: section, {}),
    "a behavior": (s.TrainerSettings, lambda section: {"behaviors": {"Ball": section}}, {}),
    "default_settings": (s.TrainerSettings, lambda section: {"default_settings": section}, {}),
    **{
        name: (
            get_settings_class(name),
            lambda section, name=name: {"behaviors": {"Ball": {"trainer_type": name, "hyperparameters": section}}},
            {},
        )
        for name in TRAINERS
    },
    "network": (s.NetworkSettings, lambda section: behavior(network_settings=section), {}),
    "memory": (s.NetworkSettings.MemorySettings, lambda section: behavior(network_settings={"memory": section}), {}),
    "extrinsic": (s.RewardSignalSettings, lambda section: behavior(reward_signals={"extrinsic": section}), {}),
    "gail": (s.GAILSettings, lambda section: behavior(reward_signals={"gail": section}), GAIL),
    "curiosity": (s.CuriositySettings, lambda section: behavior(reward_signals={"curiosity": section}), {}),
    "rnd": (s.RNDSettings, lambda section: behavior(reward_signals={"rnd": section}), {}),
    "self_play": (s.SelfPlaySettings, lambda section: behavior(self_play=section), {}),
    "cloning": (s.BehavioralCloningSettings, lambda section: behavior(behavioral_cloning=section), GAIL),
    "evaluation": (s.EvaluationSettings, lambda section: behavior(evaluation=section), {}),
    "environment": (s.EnvironmentSettings, lambda section: {"env_settings": section}, {}),
    "engine": (s.EngineSettings, lambda section: {"engine_settings": section}, {}),
    "checkpoints": (s.CheckpointSettings, lambda section: {"checkpoint_settings": section}, {}),
    "torch": (s.TorchSettings, lambda section: {"torch_settings": section}, {}),
    "lesson": (s.Lesson, lambda section: parameter({"curriculum": [section]}), LESSON),
    "criteria": (
        s.CompletionCriteriaSettings,
        lambda section: parameter({"curriculum": [{**LESSON, "completion_criteria": section}, LESSON]}),
        CRITERIA,
    ),
    **{kind.value: (kind.to_settings(), sampler(kind.value), {}) for kind in s.ParameterRandomizationType},
}
VALUES = [
    *(
        None,
        True,
        0,
        1,
        -1,
        2,
        3,
        0.5,
        1.5,
        -0.5,
        1e30,
        "",
        "text",
        "5e5",
        "0.5",
        "-3",
        "1.5_0",
        "inf",
        "true",
        "ppo",
        "linear",
    ),
    *(
        "simple",
        "reward",
        [],
        [1.0, 2.0],
        [[0.0, 1.0]],
        [["x", 1.0]],
        [["-1e1_0", "inf"]],
        ["text"],
        {},
        {"unknown": 1},
        {"mass": 1.0},
    ),
]
NOT_SAID = {
    # Conditions between keys, lengths of lists, names of folders, and hyperparameters without a trainer's type.
    ("checkpoints", "run_id"), ("checkpoints", "initialize_from"), ("uniform", "min_value"), ("uniform", "max_value"),
    ("multirangeuniform", "intervals"), ("criteria", "threshold"), ("criteria", "measure"),
    ("a behavior", "behavioral_cloning"), ("default_settings", "behavioral_cloning"),  # demo_path may be in the other
    ("a behavior", "hyperparameters"), ("default_settings", "hyperparameters"),
    # Numbers as text, which may be not whole, or out of range: all keys that take numbers, for these values alone.
    *(("any", text) for text in ("5e5", "0.5", "-3", "1.5_0", "inf")),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_every_key_is_judged_as_by_the_reader(validator, place):
    cls, options_with, required = PLACES[place]
    keys = [field.alias for field in attr.fields(cls) if field.init]
    n_taken = n_refused = 0
    for key in [*keys, "unknown"]:
        for value in VALUES:
            options = options_with({**required, key: value})
            taken, passes = reader_takes(options), validator.is_valid(options)
            assert passes or not taken, (key, value)
            is_not_said = (place, key) in NOT_SAID or (isinstance(value, str) and ("any", value) in NOT_SAID)
            if not taken and not is_not_said:
                assert not passes, (key, value)
            n_taken, n_refused = n_taken + taken, n_refused + (not passes)
    assert n_taken >= len(keys)
    assert n_refused >= len(VALUES)  # of the unknown key alone


@pytest.mark.parametrize(
    "value",
    [
        *(1.5, "1.5", {"sampler_type": "uniform"}, {"sampler_type": "gaussian", "sampler_parameters": None}),
        *({"curriculum": [LESSON]}, {"curriculum": [{**LESSON, "value": {"sampler_type": "constant"}}]}),
        *(None, True, "text", [], {}, {"sampler_type": "normal"}, {"sampler_parameters": {}}, {"curriculum": [{}]}),
        *({"curriculum": 3}, {"sampler_type": "uniform", "sampler_parameters": {"mean": 1}}, {"curriculum": [None]}),
    ],
)
def test_environment_parameters_take_three_forms(validator, value):
    assert validator.is_valid(parameter(value)) == reader_takes(parameter(value))


def test_trainers_of_ones_own_have_hyperparameters_of_their_own(validator):
    options = behavior(trainer_type="my_package.my_module:MyTrainer", hyperparameters={"anything": 1})
    assert validator.is_valid(options)
    assert not validator.is_valid(behavior(trainer_type="ppo", hyperparameters={"anything": 1}))
    assert not validator.is_valid(behavior(trainer_type="unknown"))


def test_the_command_prints_it(capsys):
    from mlagents.trainers import validate

    with pytest.raises(SystemExit) as end:
        validate.main(["--schema"])
    assert not end.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert {f"hyperparameters-of-{name}" for name in TRAINERS} <= printed["$defs"].keys()
