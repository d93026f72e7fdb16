"""`mlagents-export`: the model comes out of a checkpoint as it came out of training."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.export import main
from mlagents.trainers.model_saver.about import ABOUT
from mlagents.trainers.model_saver.checkpoint_file import read_checkpoint, write_checkpoint
from mlagents.trainers.settings.reader import read_run_options
from mlagents.trainers.trainer import TrainerFactory
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    entities_observation,
    goal_observation,
    image_observation,
    vector_observation,
)

GOLDEN = Path(__file__).parent / "data" / "golden"
VECTOR = vector_observation(8, "vector")
MEMORY = {"memory": {"memory_size": 8, "sequence_length": 4}}
CASES = {
    "ppo": ({"network_settings": {"normalize": True}}, [VECTOR], ActionSpec(2, ())),
    "ppo discrete": ({}, [VECTOR], ActionSpec(0, (3, 2))),
    "ppo shared": ({"hyperparameters": {"shared_critic": True}}, [VECTOR], ActionSpec(2, (3,))),
    "ppo memory": ({"network_settings": MEMORY}, [VECTOR], ActionSpec(2, (3,))),
    "ppo image": ({}, [image_observation(3, 40, 52, "camera"), VECTOR], ActionSpec(0, (3,))),
    "ppo entities": ({}, [entities_observation(4, 5, "others"), VECTOR], ActionSpec(2, ())),
    "ppo goal": ({}, [VECTOR, goal_observation(3, "goal")], ActionSpec(2, ())),
    "sac": ({"trainer_type": "sac"}, [VECTOR], ActionSpec(2, ())),
    "sac memory": ({"trainer_type": "sac", "network_settings": MEMORY}, [VECTOR], ActionSpec(2, (3,))),
}


def decide(path, **given):
    """Return what a model decides that is the same every time, by name; for random inputs where none are given."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {value.name: value.shape[1:] for value in session.get_inputs()}
    n_agents = 1 if "recurrent_in" in taken else 5
    rng = np.random.default_rng(3)
    inputs = given or {name: rng.random((n_agents, *shape), dtype=np.float32) for name, shape in taken.items()}
    if not given and "action_masks" in taken:
        inputs["action_masks"][:] = 1.0
    names = [value.name for value in session.get_outputs() if value.name.startswith(("deterministic", "recurrent_out"))]
    return dict(zip(names, session.run(names, inputs)))


def read_settings(behavior):
    network = {"hidden_units": 16, **behavior.get("network_settings", {})}
    return read_run_options({"behaviors": {"Ball": {**behavior, "network_settings": network}}}).behaviors["Ball"]


def elsewhere(tensor):
    """Return weights, or statistics, that no new network begins with; sizes and counts as they are."""
    is_learned = tensor.is_floating_point() and tensor.numel() > 3
    return tensor + torch.rand_like(tensor) * 0.3 if is_learned else tensor


@pytest.fixture
def train(tmp_path):
    """Return a function that lets a trainer write its model and state, and gives the path of its newest state."""

    def train(behavior, observation_specs, action_spec):
        torch.manual_seed(0)
        settings = {"Ball": read_settings(behavior)}
        trainer = TrainerFactory(settings, str(tmp_path / "run"), True, False, 0, {}).generate("Ball")
        ids = BehaviorIdentifiers.from_name_behavior_id("Ball?team=0")
        policy = trainer.create_policy(ids, BehaviorSpec(observation_specs, action_spec))
        trainer.add_policy(ids, policy)
        policy.actor.load_state_dict({key: elsewhere(it) for key, it in policy.actor.state_dict().items()})
        trainer._increment_step(64, ids.behavior_id)
        trainer.save_model()
        return tmp_path / "run" / "Ball" / "checkpoint.pt"

    return train


@pytest.fixture
def old_run(tmp_path):
    """Return a function that lays out a checkpoint as ML-Agents 1.1.0 does, and gives its path."""

    def lay_out(name, behavior=None, model=False):
        folder = tmp_path / "old" / "Ball"
        folder.mkdir(parents=True)
        path = folder / "checkpoint.pt"
        if (GOLDEN / f"{name}.pt").exists():
            shutil.copy(GOLDEN / f"{name}.pt", path)
        else:
            torch.save(old_state(name), path)
        if model:
            shutil.copy(GOLDEN / f"{name}.onnx", folder.parent / "Ball.onnx")
        if behavior is not None:
            network = {"hidden_units": 32, "num_layers": 2, **behavior.pop("network_settings", {})}
            behaviors = {"Ball": {**behavior, "network_settings": network}, "Other": {"trainer_type": "not there"}}
            text = yaml.safe_dump({"default_settings": None, "behaviors": behaviors, "debug": False})
            (folder.parent / "configuration.yaml").write_text(text)
        return path

    return lay_out


def old_state(name):
    arrays = np.load(GOLDEN / f"{name}.npz", allow_pickle=False)
    state = {"Policy": {}, "global_step": {}}
    for key in arrays:
        kind, _, rest = key.partition("/")
        module, _, tensor = rest.partition("/")
        if kind == "state" and module in state:
            state[module][tensor] = torch.from_numpy(arrays[key])
    return state


def golden(name):
    return dict(np.load(GOLDEN / f"{name}.npz", allow_pickle=False))


def export(checkpoint, *arguments):
    main([str(checkpoint), *map(str, arguments)])


def fails(capsys, *arguments):
    """Run the command, which has to end with one message and exit code 1; return the message."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert capsys.readouterr().out == ""
    message = caught.value.code  # a text: Python prints it on stderr and exits with 1
    assert message.startswith("mlagents-export: ")
    return message


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_model_is_that_of_training(train, tmp_path, case):
    checkpoint = train(*case)
    shutil.move(tmp_path / "run" / "Ball.onnx", tmp_path / "of_training.onnx")
    shutil.move(checkpoint, tmp_path / "alone.pt")  # the file says all that is needed
    shutil.rmtree(tmp_path / "run")
    export(tmp_path / "alone.pt")
    expected, exported = decide(tmp_path / "of_training.onnx"), decide(tmp_path / "alone.onnx")
    assert len(expected) == (case[2].continuous_size > 0) + (case[2].discrete_size > 0) + ("memory" in str(case[0]))
    assert list(exported) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(exported[name], values, err_msg=name)


def test_the_numbered_checkpoint_too_and_to_another_place(train, tmp_path, capsys):
    checkpoint = train(*CASES["ppo"])
    output = tmp_path / "models" / "mine.onnx"
    export(checkpoint, "-o", output)
    assert f"Exported {output}" in capsys.readouterr().out
    assert not checkpoint.with_suffix(".onnx").exists()
    (expected,) = decide(checkpoint.with_name("Ball-64.onnx")).values()
    np.testing.assert_array_equal(decide(output)["deterministic_continuous_actions"], expected)
    export(checkpoint.with_name("Ball-64.pt"))  # replaces the model of training
    np.testing.assert_array_equal(*decide(checkpoint.with_name("Ball-64.onnx")).values(), expected)


PLUGIN = """
from mlagents.torch_utils import nn
from mlagents.trainers.ppo.trainer import PPOTrainer
from mlagents.trainers.torch_entities.networks import SimpleActor

GAIN = 3.0

class WideActor(SimpleActor):
    def __init__(self, observation_specs, network_settings, action_spec, **kwargs):
        super().__init__(observation_specs, network_settings, action_spec, **kwargs)
        self.gain = nn.Parameter(nn.init.constant_(self.version_number.clone(), GAIN))

class WideTrainer(PPOTrainer):
    actor_class = WideActor

    @staticmethod
    def get_trainer_name():
        return "wide"

def get_type_and_setting():
    return {"wide": WideTrainer}, {"wide": WideTrainer.get_settings_type()}
"""


def test_the_trainer_of_a_plug_in(train, install_plugin):
    install_plugin("wide-trainer", PLUGIN)
    checkpoint = train({"trainer_type": "wide"}, [VECTOR], ActionSpec(2, ()))
    assert "gain" in read_checkpoint(checkpoint)["Policy"]
    export(checkpoint)
    expected = decide(checkpoint.with_name("Ball-64.onnx"))
    np.testing.assert_array_equal(*decide(checkpoint.with_suffix(".onnx")).values(), *expected.values())


def test_a_plug_in_that_fails_is_named(train, install_plugin, capsys):
    module = install_plugin("wide-trainer", PLUGIN)
    checkpoint = train({"trainer_type": "wide"}, [VECTOR], ActionSpec(2, ()))
    sys.modules["wide_trainer"].GAIN = "three"
    message = fails(capsys, checkpoint)
    name = "the_wide_trainer = wide_trainer:get_type_and_setting (of wide-trainer 1.5)"
    assert f"plug-in {name} failed in WideActor.__init__ ({module}:" in message


def test_a_trainer_type_that_is_not_installed_is_named(train, capsys):
    checkpoint = train(*CASES["ppo"])
    state = read_checkpoint(checkpoint)
    state[ABOUT]["trainer_settings"]["trainer_type"] = "gone"
    write_checkpoint(checkpoint, state)
    message = fails(capsys, checkpoint)
    assert f"{checkpoint}: behaviors.Ball.trainer_type: Invalid trainer type gone was found." in message


# Files of ML-Agents 1.1.0


def test_old_checkpoint_of_a_vector(old_run):
    checkpoint = old_run("ppo_vector", {"trainer_type": "ppo", "network_settings": {"normalize": True}})
    export(checkpoint)
    recorded = golden("ppo_vector")
    actions = decide(checkpoint.with_suffix(".onnx"), obs_0=recorded["in/obs_0"])["deterministic_continuous_actions"]
    np.testing.assert_allclose(actions, recorded["out/deterministic_continuous_env"], rtol=1e-5, atol=1e-5)


def test_old_checkpoint_of_sac(old_run):
    checkpoint = old_run("sac_hybrid", {"trainer_type": "sac", "network_settings": {"normalize": True}})
    export(checkpoint)
    recorded = golden("sac_hybrid")
    given = {"obs_0": recorded["in/obs_0"], "action_masks": recorded["in/action_mask"]}
    actions = decide(checkpoint.with_suffix(".onnx"), **given)
    np.testing.assert_array_equal(actions["deterministic_discrete_actions"], recorded["out/deterministic_discrete"])


@pytest.mark.parametrize(
    ("name", "behavior"),
    [
        ("ppo_shared_discrete", {"hyperparameters": {"shared_critic": True}}),
        (
            "ppo_image_lstm_hybrid",
            {"network_settings": {"normalize": True, "memory": {"memory_size": 16, "sequence_length": 8}}},
        ),
    ],
)
def test_old_checkpoint_whose_observations_its_model_tells(old_run, name, behavior):
    checkpoint = old_run(name, behavior, model=True)
    export(checkpoint)
    recorded = golden(name)
    given = {f"obs_{i}": recorded[f"in/obs_{i}"][:1] for i in range(2) if f"in/obs_{i}" in recorded}
    given["action_masks"] = recorded["in/action_mask"][:1]
    if "in/memory" in recorded:
        given["recurrent_in"] = recorded["in/memory"].transpose(1, 0, 2)[:1]
    expected, exported = decide(GOLDEN / f"{name}.onnx", **given), decide(checkpoint.with_suffix(".onnx"), **given)
    assert list(exported) == list(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(exported[key], values, rtol=1e-5, atol=1e-5, err_msg=key)


def test_old_checkpoint_without_its_configuration(old_run, capsys):
    checkpoint = old_run("ppo_vector")
    message = fails(capsys, checkpoint)
    assert f"there is no {checkpoint.parent.parent / 'configuration.yaml'}" in message
    assert "Put the one of its run there." in message


def test_old_checkpoint_whose_behavior_is_not_configured(old_run, capsys):
    checkpoint = old_run("ppo_vector", {"trainer_type": "ppo"})
    elsewhere = checkpoint.parent.rename(checkpoint.parent.with_name("Boll")) / checkpoint.name
    assert "The behavior Boll has no entry under behaviors." in fails(capsys, elsewhere)


def test_old_checkpoint_whose_observations_nothing_tells(old_run, capsys):
    """Without normalisation an input of 8 may be one vector or two of 4."""
    checkpoint = old_run("ppo_shared_discrete", {"hyperparameters": {"shared_critic": True}})
    message = fails(capsys, checkpoint)
    assert "does not say what its agents observe" in message
    assert "Put the model of its run beside it, as checkpoint.onnx." in message


def test_old_checkpoint_with_a_goal(old_run, capsys):
    assert "nothing tells which observation is the goal" in fails(capsys, old_run("ppo_goal", {}))


def test_checkpoint_of_something_else(old_run, capsys):
    checkpoint = old_run("ppo_vector", {"trainer_type": "ppo"})
    not_finite = {f"{kind}_act_size_vector": torch.tensor([np.nan]) for kind in ("continuous", "discrete")}
    for state in ({"Policy": []}, {"Policy": not_finite}):
        torch.save(state, checkpoint)
        assert "it is none of ML-Agents 1.1.0" in fails(capsys, checkpoint)
    for state in ({"weights": torch.zeros(3)}, {"trainers": {}, "state": {}}):
        torch.save(state, checkpoint)
        assert "is not the checkpoint of a behavior: it holds no policy" in fails(capsys, checkpoint)


# Mistakes


def test_settings_that_do_not_fit_name_the_tensors(old_run, capsys):
    checkpoint = old_run("ppo_vector", {"network_settings": {"normalize": True, "hidden_units": 16}})
    message = fails(capsys, checkpoint)
    assert "does not fit the policy that its settings make" in message
    assert "Policy, action_model._continuous_distribution.mu.weight: (2, 16) here, (2, 32) in the file" in message


def test_numbers_that_are_not_finite_are_not_exported(train, capsys):
    checkpoint = train(*CASES["ppo"])
    state = read_checkpoint(checkpoint)
    state["Policy"]["action_model._continuous_distribution.mu.bias"][1] = np.nan
    write_checkpoint(checkpoint, state)
    assert "(Policy, action_model._continuous_distribution.mu.bias)" in fails(capsys, checkpoint)
    assert not checkpoint.with_suffix(".onnx").exists()


def test_damage_is_one_message(train, capsys):
    checkpoint = train(*CASES["ppo"])
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    checkpoint.write_bytes(data)
    assert "its checksum does not fit" in fails(capsys, checkpoint)


def test_files_that_are_not_there_or_cannot_be_written(train, tmp_path, capsys):
    assert "There is no checkpoint at" in fails(capsys, tmp_path / "nowhere.pt")
    checkpoint = train(*CASES["ppo"])
    assert "should have a name that ends in .onnx" in fails(capsys, checkpoint, "-o", tmp_path / "model.txt")
    message = fails(capsys, checkpoint, "-o", checkpoint / "model.onnx")
    assert "model.onnx cannot be written: " in message


def test_as_a_command(train, tmp_path):
    checkpoint = train(*CASES["ppo"])
    command = [sys.executable, "-m", "mlagents.trainers.export"]
    done = subprocess.run([*command, "run/Ball/checkpoint.pt"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert checkpoint.with_suffix(".onnx").exists()
    failed = subprocess.run([*command, "nowhere.pt"], cwd=tmp_path, capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "mlagents-export: There is no checkpoint at nowhere.pt.\n"
