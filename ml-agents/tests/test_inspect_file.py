"""`mlagents-inspect`: what each kind of file is, read back from real ones."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from mlagents.trainers import __version__
from mlagents.trainers.inspect_file import main
from mlagents.trainers.model_saver.about import ABOUT, make_about
from mlagents.trainers.model_saver.checkpoint_file import read_checkpoint, write_checkpoint
from mlagents.trainers.model_saver.contents import first_not_finite, tensors_in
from mlagents.trainers.settings import TrainerSettings
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    entities_observation,
    goal_observation,
    image_observation,
)
from mlagents_envs.communicator_objects.agent_info_action_pair_pb2 import AgentInfoActionPairProto
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
from mlagents_envs.communicator_objects.demonstration_meta_pb2 import DemonstrationMetaProto

GOLDEN = Path(__file__).parent / "data" / "golden"
SPEC = BehaviorSpec(
    [image_observation(3, 40, 52, "camera"), entities_observation(4, 5, "others"), goal_observation(2, "goal")],
    ActionSpec(2, (3, 4)),
)


@pytest.fixture
def inspect(capsys):
    """Return a function that runs the command and gives what it prints, by label; what it continues is joined by |."""

    def inspect(path):
        main([str(path)])
        first, *lines = capsys.readouterr().out.splitlines()
        assert first == str(path)
        said = {}
        for line in lines:
            label, text = line[2:14].strip(), line[16:]
            if label:
                said[label] = text
            else:
                key = list(said)[-1]
                said[key] = f"{said[key]} | {text}"
        return said

    return inspect


@pytest.fixture
def fails(capsys):
    """Return a function that runs the command, which has to end with one line and exit code 1, and gives the line."""

    def fails(path):
        with pytest.raises(SystemExit) as caught:
            main([str(path)])
        assert capsys.readouterr().out == ""
        assert "\n" not in caught.value.code
        return caught.value.code

    return fails


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint that describes itself, with 6 + 2 numbers in its policy."""
    path = tmp_path / "checkpoint.pt"
    shared = torch.ones(2)
    state = {
        "Policy": {"weight": torch.ones(2, 3), "one": shared, "the same": shared},
        "global_step": {"step": torch.tensor([12345])},
        "Optimizer:adam": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "trainer": {"recent_returns": [1.0], "update_buffer": {"obs": np.array([[np.nan, 1.0]])}},
        ABOUT: make_about("Ball", SPEC, TrainerSettings(trainer_type="sac"), 12345, 1.25),
    }
    write_checkpoint(path, state)
    return path


def test_checkpoint(inspect, checkpoint):
    said = inspect(checkpoint)
    assert said.pop("kind") == f"checkpoint of mlagents {__version__}"
    assert said == {
        "behavior": "Ball",
        "steps": "12,345",
        "reward": "1.250, mean return of the last episodes",
        "trainer type": "sac",
        "observations": "camera (3, 40, 52) | others (4, 5), of variable size | goal (2,), a goal",
        "actions": "2 continuous, discrete with 3 x 4 choices",
        "holds": "Policy          8 numbers in 2 tensors | global_step     1 number in 1 tensor | "
        "Optimizer:adam  1 number in 1 tensor | trainer         2 numbers in 1 tensor",
        "finite": "every number",  # experience aside, in which NaN stands for what is not there
        "checksum": "holds",
    }


def test_checkpoint_with_numbers_that_are_not_finite(inspect, checkpoint):
    state = read_checkpoint(checkpoint)
    state["Policy"]["weight"][1, 2] = np.inf
    state[ABOUT]["mean_reward"] = None
    write_checkpoint(checkpoint, state)
    said = inspect(checkpoint)
    assert said["finite"] == "NOT every number: Policy, weight"
    assert said["reward"] == "unknown: no episode had ended since the last update"


def test_damaged_checkpoint(fails, checkpoint):
    data = bytearray(checkpoint.read_bytes())
    data[100] ^= 1
    checkpoint.write_bytes(data)
    assert "its checksum does not fit; it is damaged" in fails(checkpoint)
    checkpoint.write_bytes(b"")
    assert f"{checkpoint} could not be read as a checkpoint: " in fails(checkpoint)


def test_other_data_of_a_run(inspect, tmp_path):
    path = tmp_path / "run_state.pt"
    write_checkpoint(path, {"trainers": {}, "state": {"numpy": np.array([1.0, np.nan])}})
    assert inspect(path) == {
        "kind": "not the checkpoint of a behavior: it holds no policy",
        "holds": "trainers  0 numbers in 0 tensors | state     2 numbers in 1 tensor",
        "checksum": "holds",
    }


@pytest.fixture
def old_run(tmp_path):
    """The folder of a run of ML-Agents 1.1.0, with one behaviour; its state is of step 64."""
    folder = tmp_path / "run"
    (folder / "Ball").mkdir(parents=True)
    (folder / "run_logs").mkdir()
    for name in ("checkpoint.pt", "Ball-64.pt"):
        shutil.copy(GOLDEN / "ppo_vector.pt", folder / "Ball" / name)
    for name in ("Ball.onnx", "Ball/Ball-64.onnx"):
        shutil.copy(GOLDEN / "ppo_vector.onnx", folder / name)
    (folder / "configuration.yaml").write_text("behaviors: {Ball: {trainer_type: ppo}}")
    entries = [
        {"steps": 32, "file_path": "results\\run\\Ball\\Ball-32.onnx", "reward": 1.0},
        {"steps": 64, "file_path": "results\\run\\Ball\\Ball-64.onnx", "reward": 2.0},
    ]
    final = {"steps": 64, "file_path": "results\\run\\Ball.onnx", "reward": 3.0}
    status = {"Ball": {"checkpoints": entries, "final_checkpoint": final}, "metadata": {}}
    (folder / "run_logs" / "training_status.json").write_text(json.dumps(status))
    return folder


def test_checkpoint_of_ml_agents_1_1_0(inspect, old_run):
    said = inspect(old_run / "Ball" / "checkpoint.pt")
    assert said == {
        "kind": "checkpoint that does not describe itself, as those of ML-Agents 1.1.0",
        "behavior": "Ball",
        "steps": "64",
        "reward": "2.000, mean return of the last episodes",
        "trainer type": "ppo",
        "observations": "obs_0 (8,)",
        "actions": "2 continuous",
        "holds": said["holds"],
        "finite": "every number",
        "checksum": "none; the archive's own (CRC-32) hold",
    }
    # Five numbers about the actor; 1 + 8 + 8 of the normaliser, which has two names; 32 * 8 + 32 + 32 * 32 + 32 of the
    # body; 2 + 2 * 32 + 2 of the actions.
    assert said["holds"].split(" | ")[0].split()[:2] == ["Policy", f"{5 + 17 + 1344 + 68:,}"]


@pytest.mark.parametrize(
    ("name", "reward"), [("Ball/Ball-64.pt", "2.000"), ("Ball/Ball-64.onnx", "2.000"), ("Ball.onnx", "3.000")]
)
def test_what_a_run_noted_of_its_files(inspect, old_run, name, reward):
    said = inspect(old_run / name)
    assert (said["behavior"], said["steps"]) == ("Ball", "64")
    assert said["reward"] == f"{reward}, mean return of the last episodes"


@pytest.mark.parametrize("status", ["{", "[]", '{"Ball": []}', '{"Ball": {"checkpoints": [1, {"steps": "x"}]}}'])
def test_a_broken_status_says_nothing(inspect, old_run, status):
    (old_run / "run_logs" / "training_status.json").write_text(status)
    said = inspect(old_run / "Ball" / "checkpoint.pt")
    assert said["steps"] == "64"
    assert "reward" not in said


def test_what_cannot_be_found_out_is_said(inspect, tmp_path):
    path = tmp_path / "alone.pt"
    arrays = np.load(GOLDEN / "ppo_shared_discrete.npz")
    prefix = "state/Policy/"
    policy = {key[len(prefix) :]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith(prefix)}
    torch.save({"Policy": policy}, path)
    said = inspect(path)
    assert "steps" not in said
    assert said["trainer type"].startswith("unknown: ")
    assert said["trainer type"].endswith("configuration.yaml to say so.")
    assert said["observations"].endswith("does not say what its agents observe, and its tensors leave it open.")


def test_model(inspect):
    said = inspect(GOLDEN / "ppo_image_lstm_hybrid.onnx")
    assert said == {
        "kind": "model of an agent, ONNX opset 9, written by pytorch 2.4.1",
        "observations": "obs_0 (3, 84, 84) | obs_1 (4,)",
        "actions": "2 continuous, discrete with 3 choices",
        "memory": "16 numbers per agent",
        "holds": said["holds"],
        "finite": "every number",
        "checksum": "none: models have none",
    }
    assert inspect(GOLDEN / "ppo_shared_discrete.onnx")["actions"] == "discrete with 3 x 2 choices"
    # As in the checkpoint, but for 2 of the numbers about the actor, and with the normaliser's mean and deviation only;
    # and three constants among its operators.
    assert inspect(GOLDEN / "ppo_vector.onnx")["holds"] == f"{3 + 16 + 1344 + 68 + 3:,} numbers in 15 tensors"


def test_model_with_numbers_that_are_not_finite(inspect, tmp_path):
    model = onnx.load(GOLDEN / "ppo_vector.onnx")
    (bias,) = [it for it in model.graph.initializer if it.name == "action_model._continuous_distribution.mu.bias"]
    bias.CopyFrom(numpy_helper.from_array(np.array([0.0, np.nan], dtype=np.float32), bias.name))
    onnx.save(model, tmp_path / "bad.onnx")
    assert inspect(tmp_path / "bad.onnx")["finite"] == f"NOT every number: {bias.name}"


def test_model_whose_figures_are_not_finite(fails, tmp_path):
    model = onnx.load(GOLDEN / "ppo_vector.onnx")
    (version,) = [it for it in model.graph.initializer if it.name == "version_number.1"]
    version.CopyFrom(numpy_helper.from_array(np.array([np.nan], dtype=np.float32), version.name))
    onnx.save(model, tmp_path / "bad.onnx")
    assert "it gives no version_number" in fails(tmp_path / "bad.onnx")


def test_other_models_and_none(fails, tmp_path):
    path = tmp_path / "other.onnx"
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "other", [value], [other])
    onnx.save(onnx.helper.make_model(graph), path)
    assert "is a model in ONNX, but not one of an agent: it gives no version_number" in fails(path)
    for content in (b"", b"no model", (GOLDEN / "ppo_vector.onnx").read_bytes()[:-500]):
        path.write_bytes(content)
        assert f"{path} is damaged, or no model in ONNX: " in fails(path)
    assert "There is no model at" in fails(tmp_path / "nowhere.onnx")


def test_demonstration(inspect, fails, tmp_path):
    meta = DemonstrationMetaProto(
        api_version=1, demonstration_name="mine", number_steps=1, number_episodes=1, mean_reward=2.5
    )
    brain = BrainParametersProto(brain_name="Ball")
    brain.action_spec.num_continuous_actions = 2
    pair = AgentInfoActionPairProto()
    pair.agent_info.reward = float("inf")
    pair.agent_info.observations.add(shape=[2], dimension_properties=[1]).float_data.data.extend([1.0, 2.0])
    messages = [message.SerializeToString() for message in (meta, brain, pair)]
    head, *rest = [bytes([len(message)]) + message for message in messages]  # a length below 128 is a byte
    path = tmp_path / "mine.demo"
    path.write_bytes(head.ljust(33, b"\0") + b"".join(rest))
    assert inspect(path) == {
        "kind": "demonstration 'mine', version 1",
        "behavior": "Ball",
        "steps": "1 in 1 episode",
        "reward": "2.500, mean return of the episodes",
        "observations": "(2,)",
        "actions": "2 continuous",
        "finite": "NOT every number: step 0, the reward",
        "checksum": "none: demonstrations have none",
    }
    path.write_bytes(path.read_bytes()[:-1])
    assert "is damaged, or no demonstration" in fails(path)


def test_other_files(fails, tmp_path):
    assert "config.yaml ends in none of: .pt, .onnx, .demo." in fails(tmp_path / "config.yaml")
    assert "There is no checkpoint at" in fails(tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    "content",
    [
        {1: torch.zeros(2), "Policy": {}},
        {"Policy": {"weight": torch.eye(2).to_sparse()}},
        {"Policy": {}, "global_step": {"step": torch.tensor([float("nan")])}},
        {"Policy": {"network_body.processors.0.normalizer.running_mean": 3, "continuous_act_size_vector": 1}},
    ],
)
def test_checkpoints_that_somebody_else_wrote(tmp_path, content):
    """Whatever is in them, there is no traceback."""
    torch.save(content, tmp_path / "a.pt")
    for command in ("inspect_file", "export"):
        run = subprocess.run(
            [sys.executable, "-m", f"mlagents.trainers.{command}", str(tmp_path / "a.pt")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in run.stderr
        assert run.returncode == 0 or run.stderr.startswith("mlagents-")


def test_a_reader_that_has_gone_is_no_matter(checkpoint):
    command = f"{sys.executable} -m mlagents.trainers.inspect_file {checkpoint} | true"
    run = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) in ((0, ""), (1, ""))


def test_as_a_command(checkpoint):
    command = [sys.executable, "-m", "mlagents.trainers.inspect_file"]
    done = subprocess.run([*command, checkpoint.name], cwd=checkpoint.parent, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("checkpoint.pt\n  kind          checkpoint of mlagents ")
    failed = subprocess.run([*command, "nowhere.pt"], cwd=checkpoint.parent, capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "mlagents-inspect: There is no checkpoint at nowhere.pt.\n"


def test_tensors_are_found_wherever_they_are_and_once():
    shared = torch.ones(3)
    state = {"a": {"x": shared, "y": shared}, "b": [torch.zeros(2), {"z": np.ones(4)}], "c": (1.0, "text", None)}
    assert [(name, tuple(it.shape)) for name, it in tensors_in(state)] == [
        ("a, x", (3,)),
        ("b, 0", (2,)),
        ("b, 1, z", (4,)),
    ]
    assert first_not_finite(state) is None
    state["b"][1]["z"][2] = np.nan
    assert first_not_finite(state) == "b, 1, z"
