"""`mlagents-new-trainer`: what it refuses, and that what it writes installs, passes its tests, trains and is clean."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlagents.new_trainer.generator import class_prefix, main

ROOT = Path(__file__).parent.parent.parent
MAX_LINES = 150


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """Return the folder of a new package."""
    directory = tmp_path_factory.mktemp("plugins")
    main(["soft-trainer", "--directory", str(directory)])
    return directory / "soft-trainer"


@pytest.fixture(scope="module")
def run(plugin, tmp_path_factory):
    """Return a function that runs a Python module where the package is installed: a folder of this test's own."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site]
    subprocess.run([*pip, plugin], check=True)
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))

    def run(folder, *args):
        command = [sys.executable, "-m", *map(str, args)]
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


def refusal(capsys, *args):
    """Return the message of a command that fails."""
    with pytest.raises(SystemExit) as exit_request:
        main([*map(str, args)])
    message = capsys.readouterr().err
    if isinstance(exit_request.value.code, str):
        return exit_request.value.code  # the interpreter prints it and exits with 1
    assert exit_request.value.code == 1
    return message


@pytest.mark.parametrize("name", ["3d", "my trainer", "my.trainer", "-x", "_x", "x-", "class", "für", ""])
def test_a_name_that_no_package_can_have_is_refused(tmp_path, capsys, name):
    arguments = ["--directory", tmp_path, "--", name]
    assert refusal(capsys, *arguments).startswith(f"mlagents-new-trainer: {name!r} cannot name a Python package.")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys):
    (tmp_path / "soft").mkdir()
    message = refusal(capsys, "soft", "--directory", tmp_path)
    assert message.startswith(f"mlagents-new-trainer: {tmp_path / 'soft'} is there already.")
    assert list((tmp_path / "soft").iterdir()) == []


def test_a_trainer_type_that_is_installed_is_refused(tmp_path, capsys):
    message = refusal(capsys, "ppo", "--directory", tmp_path)
    assert message.startswith("mlagents-new-trainer: The trainer type ppo is taken, by the plug-in default = ")
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_an_installed_module_is_refused(tmp_path, capsys):
    message = refusal(capsys, "numpy", "--directory", tmp_path)
    assert message.startswith("mlagents-new-trainer: A Python module numpy is installed")


def test_a_directory_that_cannot_be_written_is_one_message(tmp_path, capsys):
    (tmp_path / "file").touch()
    message = refusal(capsys, "soft", "--directory", tmp_path / "file")
    assert re.fullmatch(r"mlagents-new-trainer: .*soft cannot be written: Not a directory\.", message)


def test_a_missing_name_exits_with_1(capsys):
    assert "required: NAME" in refusal(capsys)


@pytest.mark.parametrize(
    ("module", "prefix"),
    [("soft_q", "SoftQ"), ("soft_trainer", "Soft"), ("myPPO", "MyPPO"), ("trainer", "Trainer"), ("a__b", "AB")],
)
def test_classes_are_named_after_the_package(module, prefix):
    assert class_prefix(module) == prefix


def test_a_name_that_holds_one_of_the_template_is_put_in_once(tmp_path):
    main(["template-trainer-2", "--directory", str(tmp_path)])
    trainer = (tmp_path / "template-trainer-2" / "template_trainer_2" / "trainer.py").read_text(encoding="utf-8")
    assert 'TRAINER_TYPE = "template_trainer_2"' in trainer
    assert "class TemplateTrainer2Trainer(ActorCriticTrainer)" in trainer


def test_the_next_commands_are_printed(tmp_path, capsys):
    main(["soft", "--directory", str(tmp_path)])
    printed = capsys.readouterr().out
    assert f"pip install -e {tmp_path}/soft\n" in printed
    assert f"mlagents-learn {tmp_path}/soft/3DBall.yaml --env 3DBall --run-id soft\n" in printed


def test_everything_has_the_new_name_and_is_short(plugin):
    files = [path for path in plugin.rglob("*") if path.is_file() and "build" not in path.parts]
    texts = {path.name: path.read_text(encoding="utf-8") for path in files if path.suffix in {".py", ".toml", ".yaml"}}
    assert {"pyproject.toml", "3DBall.yaml", "trainer.py", "optimizer.py", "test_soft_trainer.py"} <= texts.keys()
    assert not any(re.search("template", text, re.IGNORECASE) for text in texts.values())
    code = [line for name, text in texts.items() if name.endswith(".py") for line in text.splitlines()]
    assert 50 < len(code) <= MAX_LINES


def test_its_own_tests_pass(plugin, run, tmp_path):
    run(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", plugin / "tests")


def test_it_trains_as_it_is(plugin, run, tmp_path):
    config = tmp_path / "short.yaml"
    text = (plugin / "3DBall.yaml").read_text(encoding="utf-8")
    config.write_text(re.sub(r"max_steps: \d+", "max_steps: 7000", text), encoding="utf-8")
    printed = run(tmp_path, "mlagents.trainers.learn", config, "--env", "3DBall", "--run-id", "soft")
    assert "results/soft/3DBall.onnx" in printed
    assert "soft_trainer  soft_trainer.trainer.SoftTrainer  (soft-trainer 0.1.0)" in run(
        tmp_path, "mlagents.trainers.learn", "--list-trainers"
    )


@pytest.mark.learning
def test_it_solves_3dball_as_it_is(plugin, run, tmp_path):
    arguments = [plugin / "3DBall.yaml", "--env", "3DBall", "--run-id", "soft", "--seed", 1, "--torch-device", "cpu"]
    run(tmp_path, "mlagents.trainers.learn", *arguments)
    events = EventAccumulator(str(tmp_path / "results" / "soft" / "3DBall"), size_guidance={"histograms": 0})
    events.Reload()
    last = [event.histogram_value for event in events.Histograms("Environment/Cumulative Reward_hist")[-3:]]
    assert np.sum([episodes.sum for episodes in last]) / np.sum([episodes.num for episodes in last]) >= 95.0


def test_its_code_is_clean(plugin, run):
    lint = ["--isolated", "--line-length", 120, "--select", "E,F,W,I,B,UP,D1,PT"]
    run(plugin, "ruff", "check", "--no-cache", *lint, "soft_trainer")
    run(plugin, "ruff", "format", "--no-cache", "--isolated", "--line-length", 120, "--check", "soft_trainer")
    run(ROOT, "mypy", plugin / "soft_trainer")
