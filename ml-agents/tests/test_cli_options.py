"""The command line: its flags, and which of flag, file and default wins."""

import subprocess
import sys

import pytest

from mlagents.trainers.cli_options import create_parser
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings import (
    CheckpointSettings,
    EngineSettings,
    EnvironmentSettings,
    RunOptions,
    TorchSettings,
    TrainerSettings,
)


@pytest.fixture
def config(tmp_path):
    """Write a configuration file and return its path."""

    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return str(path)

    return write


def parse(*argv):
    return RunOptions.from_argparse(create_parser(lambda: "mlagents 1.2.3").parse_args(argv))


def test_without_a_flag_all_is_default():
    options = parse()
    assert options.checkpoint_settings == CheckpointSettings()
    assert options.env_settings == EnvironmentSettings()
    assert options.engine_settings == EngineSettings()
    assert options.torch_settings == TorchSettings()
    assert not options.debug


def test_without_a_file_every_behaviour_has_the_default_settings():
    assert parse("--run-id", "x").behaviors["whatever it is called"] == TrainerSettings()


def test_with_a_file_a_behaviour_needs_an_entry(config):
    with pytest.raises(TrainerConfigError, match="Other has no entry"):
        parse(config("behaviors: {A: {}}")).behaviors["Other"]


FLAGS = [
    ("--env 3DBall", "env_settings", "env_path", "3DBall"),
    ("--num-areas 3", "env_settings", "num_areas", 3),
    ("--base-port 6000", "env_settings", "base_port", 6000),
    ("--seed 7", "env_settings", "seed", 7),
    ("--seed -1", "env_settings", "seed", -1),
    ("--timeout-wait 5", "env_settings", "timeout_wait", 5),
    ("--max-lifetime-restarts -1", "env_settings", "max_lifetime_restarts", -1),
    ("--restarts-rate-limit-n 2", "env_settings", "restarts_rate_limit_n", 2),
    ("--restarts-rate-limit-period-s 30", "env_settings", "restarts_rate_limit_period_s", 30),
    ("--env-args --level 3 --fast", "env_settings", "env_args", ["--level", "3", "--fast"]),
    ("--run-id second", "checkpoint_settings", "run_id", "second"),
    ("--run-id 007", "checkpoint_settings", "run_id", "007"),
    ("--resume", "checkpoint_settings", "resume", True),
    ("--force", "checkpoint_settings", "force", True),
    ("--inference", "checkpoint_settings", "inference", True),
    ("--initialize-from first", "checkpoint_settings", "initialize_from", "first"),
    ("--results-dir out", "checkpoint_settings", "results_dir", "out"),
    ("--width 100", "engine_settings", "width", 100),
    ("--height 50", "engine_settings", "height", 50),
    ("--quality-level 1", "engine_settings", "quality_level", 1),
    ("--time-scale 1.5", "engine_settings", "time_scale", 1.5),
    ("--target-frame-rate 30", "engine_settings", "target_frame_rate", 30),
    ("--capture-frame-rate 30", "engine_settings", "capture_frame_rate", 30),
    ("--no-graphics", "engine_settings", "no_graphics", True),
    ("--no-graphics-monitor", "engine_settings", "no_graphics_monitor", True),
    ("--torch-device cpu", "torch_settings", "device", "cpu"),
]


@pytest.mark.parametrize(("words", "section", "field", "value"), FLAGS, ids=[row[0] for row in FLAGS])
def test_a_flag_sets_one_field_and_no_other(words, section, field, value):
    options = parse(*words.split())
    assert getattr(getattr(options, section), field) == value
    setattr(getattr(options, section), field, getattr(getattr(parse(), section), field))
    assert options == parse()


def test_debug():
    assert parse("--debug").debug


class TestPrecedence:
    def test_the_file_beats_the_default_and_a_flag_beats_the_file(self, config):
        path = config("env_settings: {seed: 5, base_port: 6000}\nengine_settings:\n")
        assert parse(path).env_settings.seed == 5
        options = parse(path, "--seed", "6", "--width", "10")
        assert (options.env_settings.seed, options.env_settings.base_port, options.engine_settings.width) == (
            6,
            6000,
            10,
        )

    def test_a_flag_with_the_value_of_the_default_beats_the_file_too(self, config):
        path = config("env_settings: {seed: 5}\ncheckpoint_settings: {run_id: mine}")
        options = parse(path, "--seed=-1", "--run-id=ppo")
        assert (options.env_settings.seed, options.checkpoint_settings.run_id) == (-1, "ppo")

    @pytest.mark.parametrize(
        ("flags", "resume", "initialize_from"),
        [
            ([], True, "file"),
            (["--resume"], True, None),
            (["--initialize-from", "flag"], False, "flag"),
            (["--resume", "--initialize-from", "flag"], True, "flag"),
        ],
    )
    def test_what_the_flags_say_of_the_start_is_all_that_counts(self, config, flags, resume, initialize_from):
        path = config("checkpoint_settings: {resume: true, initialize_from: file}")
        checkpoint = parse(path, *flags).checkpoint_settings
        assert (checkpoint.resume, checkpoint.initialize_from) == (resume, initialize_from)


class TestDeterministic:
    def test_it_is_set_for_each_behaviour_of_the_file(self, config):
        path = config("behaviors:\n  A:\n  B: {network_settings: {hidden_units: 5, deterministic: false}}")
        behaviors = parse(path, "--deterministic").behaviors
        assert behaviors["A"].network_settings.deterministic
        assert behaviors["B"].network_settings.deterministic
        assert behaviors["B"].network_settings.hidden_units == 5
        assert set(behaviors) == {"A", "B"}

    def test_it_does_not_let_behaviours_without_an_entry_pass(self, config):
        with pytest.raises(TrainerConfigError, match="C has no entry"):
            parse(config("behaviors:\n  A:"), "--deterministic").behaviors["C"]

    def test_it_is_set_for_default_settings(self, config):
        options = parse(config("default_settings: {max_steps: 5}\nbehaviors:\n  A:"), "--deterministic")
        assert options.behaviors["A"].network_settings.deterministic
        assert options.behaviors["any"].network_settings.deterministic

    def test_it_is_set_without_a_file(self):
        assert parse("--deterministic").behaviors["any"].network_settings.deterministic

    def test_without_it_actions_are_sampled(self):
        assert not parse().behaviors["any"].network_settings.deterministic


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--num-evns 2", "unknown argument --num-evns. Did you mean '--num-envs'?"),
            ("config.yaml --runid=3", "unknown argument --runid=3. Did you mean '--run-id'?"),
            ("config.yaml other.yaml", "unknown argument other.yaml."),
            ("--num-envs two", "argument --num-envs: invalid int value: 'two'"),
            ("--seed", "argument --seed: expected one argument"),
        ],
    )
    def test_a_wrong_command_line_prints_the_usage_and_one_line(self, capsys, words, message):
        with pytest.raises(SystemExit) as stopped:
            parse(*words.split())
        assert stopped.value.code == 1
        usage, error = capsys.readouterr().err.splitlines()
        assert usage.startswith("usage: mlagents-learn [trainer_config_path]")
        assert error.startswith(f"mlagents-learn: error: {message}")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--num-areas 0", "--num-areas: env_settings.num_areas: 0 is not allowed; it must be at least 1."),
            ("--run-id ../x", "--run-id: checkpoint_settings.run_id: '../x' is not allowed"),
        ],
    )
    def test_a_bad_value_is_named_by_its_flag(self, words, message):
        with pytest.raises(TrainerConfigError) as raised:
            parse(*words.split())
        assert str(raised.value).startswith(message)

    def test_a_mistake_in_the_file_is_named_by_its_line(self, config):
        path = config("behaviors:\n  A: 3\nenv_settings: [1]")
        with pytest.raises(TrainerConfigError) as raised:
            parse(path, "--deterministic", "--seed", "4")
        first, second = str(raised.value).splitlines()
        assert first.startswith(f"{path}:2: behaviors.A: expected a mapping")
        assert second.startswith(f"{path}:3: env_settings: expected a mapping")


def test_version_and_help(capsys):
    for flag in ("--version", "--help"):
        with pytest.raises(SystemExit) as stopped:
            parse(flag)
        assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("mlagents 1.2.3\n")
    assert "Training areas in each copy. (default: 1)" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--help"], "--torch-device"), (["--version"], "PyTorch 2."), (["--nope"], "")]
)
def test_what_needs_no_training_needs_no_torch(arguments, said):
    script = (
        "import sys\n"
        f"sys.argv = ['mlagents-learn', *{arguments}]\n"
        "from mlagents.trainers.command import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert 'torch' not in sys.modules\n"
        "    sys.exit(end.code)\n"
        "sys.exit('it did not end')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == (1 if arguments == ["--nope"] else 0), ended.stderr
    assert said in ended.stdout
