"""Whole plug-ins, written as they were for ML-Agents 1.1.0, train, export and resume by ``mlagents-learn``."""

import json

import numpy as np
import onnxruntime
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlagents.trainers.buffer import BufferKey
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.base_env import ActionSpec


def steps_in(state):
    return int(state["global_step"]["_GlobalSteps__global_step"])


def curves(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def choices(model, **inputs):
    """Return the exported model's best choice at each position of Basic."""
    session = onnxruntime.InferenceSession(str(model))
    taken = {given.name for given in session.get_inputs()}
    inputs = {"obs_0": np.eye(20, dtype=np.float32), "action_masks": np.ones((20, 3), dtype=np.float32), **inputs}
    fed = {name: value for name, value in inputs.items() if name in taken}
    return session.run(["deterministic_discrete_actions"], fed)[0]


def assert_resumes(train, name, first, **behavior):
    again = train(name, "--resume", installed=True, max_steps=400, **behavior)
    assert f"Resuming from step {steps_in(first.state)}" in again.out
    assert steps_in(again.state) >= 400
    assert again.state.keys() == first.state.keys()


@pytest.mark.parametrize("shared_critic", [False, True])
@pytest.mark.parametrize("memory", [None, {"sequence_length": 4, "memory_size": 8}], ids=["", "memory"])
def test_on_policy(train, shared_critic, memory):
    behavior = {
        "hyperparameters": {"shared_critic": shared_critic, "epsilon": 0.3},
        "network_settings": {"memory": memory, "normalize": True},
    }
    run = train("old_on_policy", **behavior)
    assert steps_in(run.state) >= 300
    assert len(run.state["Optimizer:value_optimizer"]["state"]) > 0
    written = curves(run.folder / "Basic")
    assert np.isfinite(written["Losses/Policy Loss"]).all()
    assert "Policy/Extrinsic Value Estimate" in written
    assert written["Policy/Epsilon"][0] < 0.3
    memories = {"recurrent_in": np.zeros((20, 1, 8), dtype=np.float32)}
    assert choices(run.folder / "Basic.onnx", **memories).shape == (20, 1)
    assert_resumes(train, "old_on_policy", run, **behavior)


def test_an_on_policy_plugin_learns(train):
    behavior = {"hyperparameters": {"learning_rate": 1e-2, "num_epoch": 4}, "max_steps": 3000, "summary_freq": 500}
    run = train("old_on_policy", "--num-areas", 4, **behavior)
    assert curves(run.folder / "Basic")["Environment/Cumulative Reward"][-1] > 0.8


def test_a_validators_own_words_reach_the_user(install_old_plugin, run_learn, basic_config):
    install_old_plugin("old_on_policy")
    config = basic_config(trainer_type="old_on_policy", hyperparameters={"epsilon": 0})
    code, _, err = run_learn(config, "--env", "Basic", "--run-id", "old")
    assert code == 1
    assert "A trust region of 0.0 is no region at all." in err
    assert "Traceback" not in err


def test_a_network_that_is_a_plain_module(train):
    run = train("old_plain_actor", "--num-areas", 3)
    assert steps_in(run.state) >= 300
    assert np.isfinite(curves(run.folder / "Basic")["Losses/Drift"]).all()
    session = onnxruntime.InferenceSession(str(run.folder / "Basic.onnx"))
    assert "recurrent_out" in {output.name for output in session.get_outputs()}
    assert_resumes(train, "old_plain_actor", run)


def test_a_network_that_cannot_be_exported_is_a_warning(install_old_plugin, run_learn, basic_config, tmp_path):
    module = install_old_plugin("old_plain_actor")
    source = module.read_text()
    module.write_text(source.replace("def forward(self, obs", "def forward(self, no_such_input, obs"))
    config = basic_config(trainer_type="old_plain_actor", max_steps=100)
    code, out, err = run_learn(config, "--env", "Basic", "--run-id", "old", "--seed", 1)
    assert code == 0, err
    assert "[WARNING] The model of behavior Basic could not be exported" in out
    assert (tmp_path / "results" / "old" / "Basic" / "checkpoint.pt").is_file()


@pytest.mark.parametrize("save_replay_buffer", [False, True])
def test_off_policy(train, save_replay_buffer):
    behavior = {
        "hyperparameters": {"buffer_size": 200, "save_replay_buffer": save_replay_buffer, "steps_per_update": 4}
    }
    run = train("old_off_policy", **behavior)
    assert (run.folder / "Basic" / "last_replay_buffer.hdf5").is_file() == save_replay_buffer
    assert choices(run.folder / "Basic.onnx").shape == (20, 1)
    resumed = train("old_off_policy", "--resume", installed=True, max_steps=400, **behavior)
    assert f"Resuming from step {steps_in(run.state)}" in resumed.out
    assert resumed.out.count("Loaded") == (1 if save_replay_buffer else 0)
    assert "was not loaded" not in resumed.out
    assert steps_in(resumed.state) >= 400


def test_an_off_policy_plugin_learns(train):
    behavior = {
        "hyperparameters": {"batch_size": 64, "buffer_size": 5000, "learning_rate": 5e-3, "steps_per_update": 4},
        "max_steps": 3000,
        "summary_freq": 500,
    }
    run = train("old_off_policy", "--num-areas", 4, **behavior)
    best = choices(run.folder / "Basic.onnx")
    assert (best[10:17] == 2).all()


def test_an_interrupted_episode_is_not_done(install_old_plugin, make_trainer, make_trajectory):
    """What `trajectory.steps[-1]` says, and what is written at ``[-1]``, is what is learned from."""
    install_old_plugin("old_off_policy")
    import old_off_policy

    trainer = make_trainer(old_off_policy.QTrainer, old_off_policy.QSettings())
    discrete = ActionSpec.create_discrete((3, 2))
    finished, interrupted = (make_trajectory(2, **{how: True}, action_spec=discrete) for how in ("done", "interrupted"))
    trainer._process_trajectory(finished)
    trainer._process_trajectory(interrupted)
    np.testing.assert_array_equal(trainer.update_buffer[BufferKey.DONE], [False, True, False, False])
    seen_next = trainer.update_buffer[ObsUtil.get_name_at_next(1)]
    np.testing.assert_array_equal(seen_next[1], finished.next_obs[1])
    np.testing.assert_array_equal(seen_next[3], interrupted.steps[-1].obs[1])
    # The trajectory itself stays as it was.
    assert interrupted.done_reached
    assert interrupted.steps[-1].done


def test_a_statistics_writer_that_writes_through_another(install_old_plugin, run_learn, basic_config, tmp_path):
    install_old_plugin("old_stats_writer", group="mlagents.stats_writer", entry="get_writers")
    code, out, err = run_learn(basic_config(max_steps=400), "--env", "Basic", "--run-id", "old", "--seed", 1)
    assert code == 0, err
    assert "[WARNING]" not in out
    lines = [json.loads(line) for line in (tmp_path / "results" / "smoothed.jsonl").read_text().splitlines()]
    assert [(line["category"], line["step"]) for line in lines] == [("Basic", step) for step in (100, 200, 300, 400)]
    raw = curves(tmp_path / "results" / "old" / "Basic")["Environment/Episode Length"]
    smoothed = curves(tmp_path / "results" / "old" / "Basic-smoothed")["Environment/Episode Length"]
    assert smoothed == pytest.approx([line["Environment/Episode Length"] for line in lines], rel=1e-5)
    assert smoothed[:2] == pytest.approx([raw[0], (raw[0] + raw[1]) / 2], rel=1e-5)
