"""The command from end to end: what it writes, resumes, starts from, repeats."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def load(path):
    return torch.load(path, weights_only=True)


def tensors_of(checkpoint):
    """Flatten a checkpoint into {name: tensor}, Adam's moments included."""
    flat = {}

    def visit(prefix, value):
        if isinstance(value, torch.Tensor):
            flat[prefix] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                visit(f"{prefix}/{key}", item)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                visit(f"{prefix}/{index}", item)

    visit("", checkpoint)
    return flat


def assert_equal_checkpoints(one, other):
    one, other = tensors_of(one), tensors_of(other)
    assert one.keys() == other.keys()
    assert one
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_run_writes_what_it_promises(run_learn, basic_config, tmp_path):
    code, out, _ = run_learn(basic_config(), "--env", "Basic", "--run-id", "first", "--seed", 5)
    assert code == 0
    run = tmp_path / "results" / "first"
    assert (run / "Basic.onnx").is_file()
    assert (run / "Basic" / "checkpoint.pt").is_file()
    assert "Basic.onnx" in out
    assert "tensorboard --logdir" in out

    configuration = yaml.safe_load((run / "configuration.yaml").read_text())
    assert configuration["behaviors"]["Basic"]["hyperparameters"]["batch_size"] == 16
    assert configuration["env_settings"]["seed"] == 5

    status = json.loads((run / "run_logs" / "training_status.json").read_text())
    final = status["Basic"]["final_checkpoint"]
    assert final["steps"] >= 300
    assert (tmp_path / final["file_path"]).is_file()
    assert status["metadata"]["stats_format_version"] == "0.3.0"

    timers = json.loads((run / "run_logs" / "timers.json").read_text())
    assert timers["children"]

    events = EventAccumulator(str(run / "Basic"))
    events.Reload()
    scalars = events.Tags()["scalars"]
    for tag in [
        "Environment/Cumulative Reward",
        "Environment/Episode Length",
        "Policy/Extrinsic Reward",
        "Policy/Extrinsic Value Estimate",
        "Policy/Entropy",
        "Policy/Learning Rate",
        "Policy/Epsilon",
        "Policy/Beta",
        "Losses/Policy Loss",
        "Losses/Value Loss",
    ]:
        assert tag in scalars
    assert [event.step for event in events.Scalars("Environment/Episode Length")] == [100, 200, 300]


def test_the_written_configuration_is_input_again(run_learn, basic_config, tmp_path):
    run_learn(basic_config(), "--env", "Basic", "--run-id", "first", "--seed", 5)
    written = tmp_path / "results" / "first" / "configuration.yaml"
    code, _, err = run_learn(written, "--run-id", "again")
    assert code == 0, err
    again = tmp_path / "results" / "again"
    assert_equal_checkpoints(
        load(tmp_path / "results" / "first" / "Basic" / "checkpoint.pt"), load(again / "Basic" / "checkpoint.pt")
    )


@pytest.mark.parametrize("shared_critic", [False, True])
def test_the_same_seed_gives_the_same_checkpoint_and_another_seed_another(
    run_learn, basic_config, tmp_path, shared_critic
):
    config = basic_config(hyperparameters={"shared_critic": shared_critic}, network_settings={"normalize": True})
    for run_id, seed in [("one", 3), ("two", 3), ("other", 4)]:
        assert run_learn(config, "--env", "Basic", "--run-id", run_id, "--seed", seed)[0] == 0
    one, two, other = (
        load(tmp_path / "results" / run_id / "Basic" / "checkpoint.pt") for run_id in ("one", "two", "other")
    )
    assert_equal_checkpoints(one, two)
    files = [tmp_path / "results" / run_id / "Basic" / "checkpoint.pt" for run_id in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    weight = "network_body._body_endoder.seq_layers.0.weight"
    assert not torch.equal(one["Policy"][weight], other["Policy"][weight])


def test_resume_goes_on_from_everything_that_was_saved(run_learn, basic_config, tmp_path):
    run_learn(basic_config(max_steps=300), "--env", "Basic", "--run-id", "run", "--seed", 3)
    folder = tmp_path / "results" / "run"
    before = load(folder / "Basic" / "checkpoint.pt")
    steps_before = int(before["global_step"]["_GlobalSteps__global_step"])

    # No step is left: resuming must hand back exactly what was saved.
    assert run_learn(basic_config(max_steps=300), "--env", "Basic", "--run-id", "run", "--resume")[0] == 0
    assert_equal_checkpoints(before, load(folder / "Basic" / "checkpoint.pt"))

    code, out, _ = run_learn(basic_config(max_steps=600), "--env", "Basic", "--run-id", "run", "--resume")
    assert code == 0
    assert f"Resuming from step {steps_before}" in out
    after = load(folder / "Basic" / "checkpoint.pt")
    assert int(after["global_step"]["_GlobalSteps__global_step"]) >= 600
    adam_before = before["Optimizer:value_optimizer"]["state"]
    adam_after = after["Optimizer:value_optimizer"]["state"]
    index = next(iter(adam_before))
    assert adam_after[index]["step"] > adam_before[index]["step"]

    status = json.loads((folder / "run_logs" / "training_status.json").read_text())
    assert status["Basic"]["checkpoints"][0]["steps"] == steps_before

    # The schedule went on along the line of the run's max_steps instead of starting over.
    events = EventAccumulator(str(folder / "Basic"))
    events.Reload()
    rates = {event.step: event.value for event in events.Scalars("Policy/Learning Rate")}
    assert rates[600] < rates[400] < 3e-3 * (1 - steps_before / 600) + 1e-6


def test_a_run_can_start_from_another(run_learn, basic_config, tmp_path):
    run_learn(basic_config(), "--env", "Basic", "--run-id", "teacher", "--seed", 3)
    teacher = load(tmp_path / "results" / "teacher" / "Basic" / "checkpoint.pt")
    # Fewer steps than fill a buffer: the pupil is saved as it was loaded, at its own step count.
    code, out, _ = run_learn(
        basic_config(max_steps=20), "--env", "Basic", "--run-id", "pupil", "--initialize-from", "teacher"
    )
    assert code == 0
    assert "initialized from" in out
    pupil = load(tmp_path / "results" / "pupil" / "Basic" / "checkpoint.pt")
    assert 20 <= int(pupil["global_step"]["_GlobalSteps__global_step"]) < 300
    assert_equal_checkpoints(
        {"Policy": teacher["Policy"], "critic": teacher["Optimizer:critic"]},
        {"Policy": pupil["Policy"], "critic": pupil["Optimizer:critic"]},
    )


def test_a_checkpoint_that_does_not_fit_is_refused_with_the_differences(run_learn, basic_config, tmp_path):
    run_learn(basic_config(), "--env", "Basic", "--run-id", "run", "--seed", 3)
    saved = tmp_path / "results" / "run" / "Basic" / "checkpoint.pt"
    before = saved.read_bytes()
    wider = basic_config(network_settings={"hidden_units": 32})
    code, _, err = run_learn(wider, "--env", "Basic", "--run-id", "run", "--resume")
    assert code == 1
    assert "Policy, network_body._body_endoder.seq_layers.0.weight: (32, 20) here, (16, 20) in the file" in err
    assert "Traceback" not in err
    assert saved.read_bytes() == before


def test_checkpoints_come_at_their_interval_and_only_so_many_are_kept(run_learn, basic_config, tmp_path):
    config = basic_config(max_steps=500, checkpoint_interval=100, keep_checkpoints=2)
    run_learn(config, "--env", "Basic", "--run-id", "run", "--seed", 3)
    folder = tmp_path / "results" / "run" / "Basic"
    steps = sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("Basic-*.pt"))
    assert len(steps) == 2
    assert 380 <= steps[0] <= 500 <= steps[1]
    assert len(list(folder.glob("Basic-*.onnx"))) == 2


def test_force_starts_anew_and_moves_the_old_run_aside(run_learn, basic_config, tmp_path):
    results = tmp_path / "results"
    for seed in range(5):
        arguments = ["--env", "Basic", "--run-id", "run", "--seed", seed, "--force"]
        assert run_learn(basic_config(max_steps=100 + seed), *arguments)[0] == 0
    assert len(list((results / "run" / "Basic").glob("events.out.tfevents.*"))) == 1
    kept = [yaml.safe_load((run / "configuration.yaml").read_text()) for run in (results / ".trash").iterdir()]
    assert sorted(configuration["env_settings"]["seed"] for configuration in kept) == [1, 2, 3]


def test_a_forced_run_that_fails_at_once_leaves_the_old_one_where_it_is(run_learn, basic_config, tmp_path):
    run_learn(basic_config(), "--env", "Basic", "--run-id", "run", "--seed", 3)
    run = tmp_path / "results" / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    wider = basic_config(network_settings={"hidden_units": 32}, init_path=str(run / "Basic" / "checkpoint.pt"))
    assert run_learn(wider, "--env", "Basic", "--run-id", "run", "--force")[0] == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_configuration_of_a_resumed_run_starts_a_run_of_its_own(run_learn, basic_config, tmp_path):
    run_learn(basic_config(), "--env", "Basic", "--run-id", "run", "--seed", 3)
    assert run_learn(basic_config(max_steps=400), "--env", "Basic", "--run-id", "run", "--resume")[0] == 0
    written = tmp_path / "results" / "run" / "configuration.yaml"
    code, out, err = run_learn(written, "--run-id", "fresh")
    assert code == 0, err
    assert "Resuming" not in out


def test_environment_parameters_reach_the_environment(run_learn, tmp_path, monkeypatch):
    (tmp_path / "heavy.py").write_text(
        "from mlagents_envs.builtin.basic import BasicEnv\n"
        "seen = []\n"
        "class Env(BasicEnv):\n"
        "    def step(self):\n"
        "        super().step()\n"
        "        seen.append((self.parameters.get_with_default('mass', 0.0),\n"
        "                     self.parameters.get_with_default('scale', 0.0)))\n"
        "def make(seed, side_channels):\n"
        "    return Env(seed=seed, side_channels=side_channels)\n"
    )
    config = tmp_path / "config.yaml"
    config.write_text(
        "default_settings: {max_steps: 50, hyperparameters: {batch_size: 8, buffer_size: 16}}\n"
        "environment_parameters:\n"
        "  mass: 2.5\n"
        "  scale: {sampler_type: uniform, sampler_parameters: {min_value: 3.0, max_value: 4.0}}\n"
    )
    code, _, err = run_learn(config, "--env", "module:heavy:make", "--run-id", "run", "--seed", 1)
    assert code == 0, err
    import heavy

    assert {mass for mass, _ in heavy.seen} == {2.5}
    assert all(3.0 <= scale <= 4.0 for _, scale in heavy.seen)
    assert len({scale for _, scale in heavy.seen}) > 1


def test_an_entry_without_a_behavior_is_a_warning(run_learn, basic_config, tmp_path):
    path = basic_config()
    settings = yaml.safe_load(path.read_text())
    settings["behaviors"]["Later"] = settings["behaviors"]["Basic"]
    path.write_text(yaml.safe_dump(settings))
    code, out, _ = run_learn(path, "--env", "Basic", "--run-id", "run")
    assert code == 0
    assert "[WARNING] Configured, but not in the environment so far: Later." in out


def test_what_was_learned_is_saved_when_the_environment_fails(run_learn, basic_config, tmp_path):
    (tmp_path / "broken_env.py").write_text(
        "from mlagents_envs.builtin.basic import BasicEnv\n"
        "import numpy as np\n"
        "class Env(BasicEnv):\n"
        "    n = 0\n"
        "    def get_steps(self, name):\n"
        "        decision, terminal = super().get_steps(name)\n"
        "        Env.n += 1\n"
        "        if Env.n > 150:\n"
        "            decision.obs[0] = np.full_like(decision.obs[0], np.nan)\n"
        "        return decision, terminal\n"
    )
    code, _, err = run_learn(basic_config(), "--env", "module:broken_env:Env", "--run-id", "run", "--seed", 1)
    assert code == 1
    assert "not finite" in err
    assert "BasicSensor" in err
    assert "Traceback" not in err
    state = load(tmp_path / "results" / "run" / "Basic" / "checkpoint.pt")
    assert int(state["global_step"]["_GlobalSteps__global_step"]) > 100
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(state).values())


def test_a_bug_of_the_environment_shows_its_traceback_after_saving(run_learn, basic_config, tmp_path):
    (tmp_path / "buggy_env.py").write_text(
        "from mlagents_envs.builtin.basic import BasicEnv\n"
        "class Env(BasicEnv):\n"
        "    n = 0\n"
        "    def step(self):\n"
        "        Env.n += 1\n"
        "        if Env.n > 150:\n"
        "            raise ZeroDivisionError('a bug of mine')\n"
        "        super().step()\n"
    )
    with pytest.raises(ZeroDivisionError, match="a bug of mine"):
        run_learn(basic_config(), "--env", "module:buggy_env:Env", "--run-id", "run", "--seed", 1)
    assert (tmp_path / "results" / "run" / "Basic" / "checkpoint.pt").is_file()


def test_parameters_that_are_not_finite_never_replace_good_ones(run_learn, basic_config, tmp_path):
    run_learn(basic_config(max_steps=100), "--env", "Basic", "--run-id", "run", "--seed", 3)
    saved = tmp_path / "results" / "run" / "Basic" / "checkpoint.pt"
    good = load(saved)["Policy"]
    hot = basic_config(max_steps=600, hyperparameters={"learning_rate": 1e30, "learning_rate_schedule": "constant"})
    code, _, err = run_learn(hot, "--env", "Basic", "--run-id", "run", "--resume")
    assert code == 1
    assert "not finite" in err or "NaN" in err
    assert all(torch.equal(tensor, good[key]) for key, tensor in load(saved)["Policy"].items())


@pytest.mark.parametrize("name", ["3DBall", "Basic"])
def test_the_exported_model_is_the_policy(run_learn, tmp_path, name):
    config = tmp_path / "config.yaml"
    config.write_text(
        "default_settings: {max_steps: 200, network_settings: {normalize: true}, time_horizon: 16,\n"
        "  hyperparameters: {batch_size: 16, buffer_size: 64}}\n"
    )
    code, _, err = run_learn(config, "--env", name, "--run-id", "run", "--seed", 2)
    assert code == 0, err
    model = onnxruntime.InferenceSession(str(tmp_path / "results" / "run" / f"{name}.onnx"))
    inputs = [entry.name for entry in model.get_inputs()]
    outputs = [entry.name for entry in model.get_outputs()]
    if name == "3DBall":
        assert inputs == ["obs_0"]
        assert outputs == [
            "version_number",
            "memory_size",
            "continuous_actions",
            "continuous_action_output_shape",
            "deterministic_continuous_actions",
        ]
    else:
        assert inputs == ["obs_0", "action_masks"]
        assert outputs == [
            "version_number",
            "memory_size",
            "discrete_actions",
            "discrete_action_output_shape",
            "deterministic_discrete_actions",
        ]
    zeros = {entry.name: np.zeros([1, *entry.shape[1:]], dtype=np.float32) for entry in model.get_inputs()}
    assert model.run(["version_number"], zeros)[0].item() == 3


def write_env_that_is_interrupted(path, at_step):
    """Write a module with Basic, in which the user presses Ctrl-C at a step."""
    path.write_text(
        "import os, signal\n"
        "from mlagents_envs.builtin.basic import BasicEnv\n"
        "class Env(BasicEnv):\n"
        "    n = 0\n"
        "    def step(self):\n"
        "        Env.n += 1\n"
        f"        if Env.n == {at_step}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        super().step()\n"
    )


def test_inference_plays_the_model_until_stopped_and_changes_nothing(run_learn, basic_config, tmp_path):
    write_env_that_is_interrupted(tmp_path / "stopping_env.py", at_step=250)
    assert run_learn(basic_config(), "--env", "Basic", "--run-id", "run", "--seed", 3)[0] == 0
    run = tmp_path / "results" / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, out, err = run_learn(
        basic_config(), "--env", "module:stopping_env:Env", "--run-id", "run", "--inference", "--deterministic"
    )
    assert code == 0, err
    assert "Resuming from step" in out
    assert "Not Training." in out
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "inference" not in path.parts}
    assert after == before


def test_ctrl_c_saves_and_the_run_can_be_resumed(run_learn, basic_config, tmp_path):
    write_env_that_is_interrupted(tmp_path / "interrupted_env.py", at_step=120)
    code, out, err = run_learn(basic_config(), "--env", "module:interrupted_env:Env", "--run-id", "run", "--seed", 3)
    assert code == 0, err
    assert "interrupted" in out
    assert "--resume" in out
    saved = load(tmp_path / "results" / "run" / "Basic" / "checkpoint.pt")
    assert 100 < int(saved["global_step"]["_GlobalSteps__global_step"]) <= 120
    assert run_learn(basic_config(), "--env", "Basic", "--run-id", "run", "--resume")[0] == 0
    resumed = load(tmp_path / "results" / "run" / "Basic" / "checkpoint.pt")
    assert int(resumed["global_step"]["_GlobalSteps__global_step"]) >= 300


def test_a_run_that_is_done_says_that_nothing_is_left(run_learn, basic_config):
    run_learn(basic_config(), "--env", "Basic", "--run-id", "run")
    code, out, _ = run_learn(basic_config(), "--env", "Basic", "--run-id", "run", "--resume")
    assert code == 0
    assert "nothing left to train" in out
