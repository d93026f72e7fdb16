"""The command that checks a configuration: all mistakes at once, or what will be trained; nothing is left behind."""

import subprocess
import sys

import pytest
import yaml

from mlagents.trainers import validate


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Return a function that runs the command in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def check(*args):
        code = 0
        try:
            validate.main([str(arg) for arg in args])
        except SystemExit as request:
            code = request.code or 0
        return code, *capsys.readouterr()

    return check


def write(path, options):
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return path


def test_what_will_be_trained_is_said(check, basic_config, tmp_path):
    config = basic_config(network_settings={"memory": {"memory_size": 8, "sequence_length": 4}}, max_steps=12_000)
    before = sorted(tmp_path.rglob("*"))
    code, out, error = check(config, "--env", "Basic", "--run-id", "mine")
    assert (code, error) == (0, "")
    assert out.splitlines() == [
        "Basic",
        "  trainer       ppo, of mlagents 2.0.0",
        "  steps         12,000, a summary every 100",
        "  updates       batch_size 16, buffer_size 64, learning_rate 0.003, learning_rate_schedule linear",
        "  network       1 x 16, memory of 8",
        "  rewards       extrinsic",
        "  checkpoints   every 500,000 steps, the last 5 are kept",
        "  observations  BasicSensor (20,)",
        "  actions       discrete with 3 choices",
        "results go to results/mine",
    ]
    assert sorted(tmp_path.rglob("*")) == before


def test_all_mistakes_are_found_at_once_each_with_its_line(check, tmp_path):
    config = tmp_path / "bad.yaml"
    config.write_text(
        "behaviors:\n"
        "  Basic:\n"
        "    trainer_typ: ppo\n"
        "    max_steps: -1\n"
        "    hyperparameters: {batch_size: 0, buffer_size: many}\n"
        "  Other:\n"
        "    trainer_type: pppo\n"
        "env_settings: {num_envs: 0}\n"
    )
    code, out, error = check(config, "--env", "Basik")
    assert (code, out) == (1, "")
    lines = error.splitlines()
    for start in (
        f"{config}:3: behaviors.Basic.trainer_typ: unknown key. Did you mean 'trainer_type'?",
        f"{config}:4: behaviors.Basic.max_steps: -1 is not allowed; it must be at least 0.",
        f"{config}:5: behaviors.Basic.hyperparameters.batch_size: 0 is not allowed; it must be at least 1.",
        f"{config}:5: behaviors.Basic.hyperparameters.buffer_size: ",
        f"{config}:7: behaviors.Other.trainer_type: ",
        f"{config}:8: env_settings.num_envs: 0 is not allowed; it must be at least 1.",
        "--env Basik: there is no environment of that name",
    ):
        assert sum(line.startswith(start) for line in lines) == 1, (start, error)
    assert "Traceback" not in error


def test_behaviors_are_compared_with_the_environment(check, tmp_path):
    config = write(tmp_path / "config.yaml", {"behaviors": {"Basics": {}, "Basic": {}}})
    code, out, _ = check(config, "--env", "Basic")
    assert code == 0
    assert "note: Basics is configured, but not in the environment so far. In it: Basic." in out
    config = write(tmp_path / "config.yaml", {"behaviors": {"Basics": {}}})
    code, _, error = check(config, "--env", "Basic")
    assert code == 1
    assert "The behavior Basic has no entry under behaviors. Did you mean 'Basics'?" in error


def test_what_a_network_cannot_do_with_the_observations_is_an_error(check, tmp_path):
    network = {"vis_encode_type": "nature_cnn"}
    config = write(tmp_path / "config.yaml", {"behaviors": {"GridWorld": {"network_settings": network}}})
    small = tmp_path / "small.py"
    small.write_text(
        "from mlagents_envs.base_env import ActionSpec, BehaviorSpec, image_observation\n"
        "from mlagents_envs.vector_env import VectorEnv\n"
        "import numpy as np\n\n\n"
        "class Small(VectorEnv):\n"
        "    def __init__(self, seed=0, num_areas=1, side_channels=None):\n"
        "        spec = BehaviorSpec([image_observation(3, 16, 16, 'Camera')], ActionSpec.create_discrete((2,)))\n"
        "        super().__init__('GridWorld', spec, 1, seed=seed, side_channels=side_channels)\n\n"
        "    def reset_agents(self, indices):\n"
        "        return [np.zeros((len(indices), 3, 16, 16))]\n\n"
        "    def step_agents(self, actions):\n"
        "        return [np.zeros((1, 3, 16, 16))], [0], [False], [False]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mlagents.trainers.validate", config, "--env", "module:small:Small"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )
    assert done.returncode == 1
    assert "nature_cnn" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_exists_wants_a_flag(check, basic_config, tmp_path):
    (tmp_path / "results" / "mine" / "Basic").mkdir(parents=True)
    config = basic_config()
    code, out, error = check(config, "--run-id", "mine")
    assert (code, error) == (0, "")
    assert "note: There is a run in results/mine already: --resume, --force, or another --run-id is needed." in out
    assert check(config, "--run-id", "mine", "--force")[0] == 0
    code, _, error = check(config, "--run-id", "yours", "--resume")
    assert code == 1
    assert "There is no run 'yours' to resume" in error


def test_the_environment_of_a_file_with_mistakes_is_looked_at_too(check, tmp_path):
    config = write(
        tmp_path / "config.yaml", {"behaviors": {"A": {"max_steps": -1}}, "env_settings": {"env_path": "Basik"}}
    )
    code, _, error = check(config)
    assert code == 1
    assert "max_steps: -1 is not allowed" in error
    assert "Did you mean 'Basic'?" in error
    assert "Did you mean '3DBall'?" in check(config, "--env", "3DBal")[2]  # the flag beats the file


def test_what_is_not_there_yet_is_listed_beside_mistakes(check, tmp_path):
    behavior = {"max_steps": -1, "self_play": {}, "reward_signals": {"curiosity": {"strength": 1.0}}}
    config = write(tmp_path / "config.yaml", {"behaviors": {"A": behavior}})
    code, _, error = check(config)
    assert code == 1
    lines = error.splitlines()
    assert len(lines) == 3
    assert "max_steps: -1 is not allowed" in lines[0]
    assert any("not there yet: self-play" in line for line in lines)
    assert any("not there yet: the reward signal curiosity" in line for line in lines)


@pytest.mark.parametrize(
    ("behavior", "flags", "message"),
    [
        ({}, ["--num-envs", 2], "--num-envs 2 needs --env: there is one Unity Editor"),
        ({"evaluation": {}}, [], "evaluation needs --env: there is one Unity Editor"),
    ],
)
def test_there_is_one_editor(check, basic_config, behavior, flags, message):
    code, _, error = check(basic_config(**behavior), *flags)
    assert (code, message in error) == (1, True)
    code, out, _ = check(basic_config(**behavior), *flags, "--env", "Basic")
    assert code == 0
    assert ("evaluation    every 50,000 steps, of 10 episodes" in out) == bool(behavior)


def test_states_that_do_not_fit_are_found(check, basic_config, run_learn, tmp_path):
    run_learn(basic_config(max_steps=50), "--env", "Basic", "--run-id", "a")
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()}
    other = basic_config(name="other.yaml", network_settings={"hidden_units": 8})
    for flags in (["--run-id", "a", "--resume"], ["--run-id", "b", "--initialize-from", "a"]):
        code, _, error = check(other, "--env", "Basic", *flags)
        assert code == 1
        assert "does not fit this run" in error
        assert "(8, 20) here, (16, 20) in the file" in error
        assert check(basic_config(), "--env", "Basic", *flags)[0] == 0
    config = basic_config(init_path=str(tmp_path / "nothing.pt"))
    assert "There is no checkpoint at" in check(config, "--env", "Basic")[2]
    assert {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()} == before


def test_what_a_run_would_be_refused_for_is_found(check, basic_config, tmp_path):
    (tmp_path / "afile").touch()
    config = basic_config()
    for flags, problem in (
        (["--torch-device", "nowhere"], "nowhere"),
        (["--results-dir", "afile"], "The results folder afile/ppo cannot be written: Not a directory."),
    ):
        code, _, error = check(config, "--env", "Basic", *flags)
        assert (code, "Traceback" in error) == (1, False)
        assert problem in error


def test_networks_beyond_the_memory_are_an_error(check, basic_config):
    code, _, error = check(basic_config(network_settings={"hidden_units": 10**9}), "--env", "Basic")
    assert code == 1
    assert error == "There is not enough memory for the networks of behavior Basic.\n"


def test_the_editor_is_not_waited_for(check, basic_config):
    code, out, _ = check(basic_config())
    assert code == 0
    assert "note: The environment is the Unity Editor" in out


def test_the_trainer_of_a_plugin_says_where_it_is_from(check, tmp_path):
    config = write(tmp_path / "config.yaml", {"behaviors": {"Basic": {"trainer_type": "dqn"}}})
    code, out, _ = check(config, "--env", "Basic")
    assert code == 0
    assert "dqn, of mlagents_trainer_plugin" in out.replace("-", "_")
    config = write(tmp_path / "config.yaml", {"behaviors": {"3DBall": {"trainer_type": "dqn"}}})
    pytest.importorskip("mujoco")
    code, _, error = check(config, "--env", "3DBall")
    assert code == 1
    assert "dqn is for discrete actions alone; behavior 3DBall has others" in error


def test_a_file_that_runs_code_is_refused(check, tmp_path):
    config = tmp_path / "evil.yaml"
    config.write_text(f"behaviors: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n")
    code, _, error = check(config)
    assert code == 1
    assert "this is not YAML" in error
    assert "python/object" in error
    assert not (tmp_path / "ran").exists()
