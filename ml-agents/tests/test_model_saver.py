"""Checkpoints: what is saved is what is loaded, and what does not fit is refused as a whole."""

import copy
import os
import pickle
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.model_saver.fitting import Part
from mlagents.trainers.model_saver.torch_model_saver import TorchModelSaver
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer
from mlagents.trainers.settings import NetworkSettings, SerializationSettings, TrainerSettings
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents.trainers.trajectory import Trajectory, TrajectoryColumns
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, vector_observation

UPSTREAM = Path(__file__).parent / "data" / "golden" / "ppo_vector.pt"
BEHAVIOR_ID = "Ball?team=0"
ACTION_SPECS = {
    "continuous": ActionSpec(2, ()),
    "discrete": ActionSpec(0, (3, 2)),
    "hybrid": ActionSpec(2, (3,)),
}
ADAM = "Optimizer:value_optimizer"


@pytest.fixture
def make_trainer(tmp_path, monkeypatch):
    """Return a function that makes a trainer with its policy; by default one that fits the file of ML-Agents 1.1.0."""
    monkeypatch.setattr(SerializationSettings, "convert_to_onnx", False)  # its tests are elsewhere, and take a second

    def make(
        folder="Ball",
        load=False,
        action_spec=ACTION_SPECS["continuous"],
        seed=0,
        init_path=None,
        training=True,
        **changes,
    ):
        torch.manual_seed(seed)
        np.random.seed(seed)
        network = {"hidden_units": 32, "normalize": True, **changes.pop("network", {})}
        settings = TrainerSettings(
            hyperparameters=PPOSettings(**{"buffer_size": 20, "batch_size": 8, "learning_rate": 3e-4, **changes}),
            network_settings=NetworkSettings(**network),
            init_path=None if init_path is None else str(init_path),
            max_steps=100_000,
        )
        trainer = PPOTrainer("Ball", 10, settings, training, load, seed, str(tmp_path / folder))
        identifiers = BehaviorIdentifiers.from_name_behavior_id(BEHAVIOR_ID)
        spec = BehaviorSpec([vector_observation(8, "obs")], action_spec)
        trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
        return trainer

    return make


def train(trainer, n_steps=24):
    """Let a trainer take in a random trajectory, which fills its buffer, and update."""
    rng = np.random.default_rng(5)
    spec = trainer.policy.behavior_spec.action_spec
    obs = rng.standard_normal((n_steps, 8)).astype(np.float32)
    decision = trainer.policy.get_action(decisions(obs))
    columns = TrajectoryColumns(
        obs=[obs],
        reward=rng.standard_normal(n_steps).astype(np.float32),
        done=np.zeros(n_steps, dtype=bool),
        interrupted=np.zeros(n_steps, dtype=bool),
        continuous=decision.action.continuous,
        discrete=decision.action.discrete,
        prev_discrete=np.zeros((n_steps, spec.discrete_size), dtype=np.int32),
        action_mask=np.zeros((n_steps, sum(spec.discrete_branches)), dtype=bool),
        group_reward=np.zeros(n_steps, dtype=np.float32),
        continuous_log_probs=decision.outputs["log_probs"].continuous,
        discrete_log_probs=decision.outputs["log_probs"].discrete,
    )
    trainer._process_trajectory(
        Trajectory(columns=columns, next_obs=[obs[0]], agent_id="agent_0-0", behavior_id=BEHAVIOR_ID)
    )
    trainer.advance()


def decisions(obs):
    n_agents = len(obs)
    zeros = np.zeros(n_agents, dtype=np.float32)
    return DecisionSteps([obs], zeros, np.arange(n_agents), None, np.zeros(n_agents, dtype=np.int32), zeros)


def state_of(trainer):
    modules = trainer.model_saver.modules.items()
    return {name: module.state_dict() for name, module in modules if not isinstance(module, Part)}


def flat(state, prefix=""):
    """Return the tensors and numbers of nested containers by path."""
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, (list, tuple)) else None
    if items is None:
        return {prefix: state}
    return {path: leaf for key, value in items for path, leaf in flat(value, f"{prefix}/{key}").items()}


def assert_same(one, other, but=()):
    """Compare two states, but for some of the names in their paths."""
    one, other = (
        {path: leaf for path, leaf in flat(state).items() if not any(f"/{name}" in path for name in but)}
        for state in (one, other)
    )
    assert one.keys() == other.keys()
    assert len(one) > 20
    for path, leaf in one.items():
        equal = torch.equal(leaf, other[path]) if isinstance(leaf, torch.Tensor) else leaf == other[path]
        assert equal, path


def read(path):
    return torch.load(path, weights_only=True)


# The checkpoint that ML-Agents 1.1.0 wrote.


def assert_holds_the_upstream_state(trainer):
    upstream, ours = read(UPSTREAM), state_of(trainer)
    assert ours.keys() == upstream.keys()
    assert_same(ours, upstream, but=["global_step", f"{ADAM}/param_groups"])
    group, recorded = ours[ADAM]["param_groups"][0], upstream[ADAM]["param_groups"][0]
    for name in ("lr", "betas", "eps", "weight_decay", "amsgrad", "params"):
        assert group[name] == recorded[name]
    assert group["fused"] is True
    assert recorded["fused"] is not True


def resumed_from_upstream(make_trainer, tmp_path):
    (tmp_path / "Ball").mkdir(exist_ok=True)
    (tmp_path / "Ball" / "checkpoint.pt").write_bytes(UPSTREAM.read_bytes())
    return make_trainer(load=True, seed=9)


def test_resuming_from_the_upstream_checkpoint(make_trainer, tmp_path):
    trainer = resumed_from_upstream(make_trainer, tmp_path)
    assert_holds_the_upstream_state(trainer)
    steps = int(read(UPSTREAM)["global_step"]["_GlobalSteps__global_step"])
    assert steps > 0
    assert trainer.get_step == trainer.policy.get_current_step() == steps


def test_starting_from_the_upstream_checkpoint(make_trainer):
    trainer = make_trainer(init_path=UPSTREAM, seed=9)
    assert_holds_the_upstream_state(trainer)
    assert trainer.get_step == trainer.policy.get_current_step() == 0


@pytest.mark.parametrize("resume", [False, True])
def test_training_goes_on_from_the_upstream_checkpoint(make_trainer, tmp_path, resume):
    trainer = resumed_from_upstream(make_trainer, tmp_path) if resume else make_trainer(init_path=UPSTREAM)
    before = read(UPSTREAM)
    train(trainer)
    after = state_of(trainer)
    learned = [index for index, kept in before[ADAM]["state"].items() if kept]
    assert learned
    for index in learned:
        # 24 rows make 3 minibatches of 8, three times over.
        assert after[ADAM]["state"][index]["step"] == before[ADAM]["state"][index]["step"] + 9
    for module in ("Policy", "Optimizer:critic"):
        weight = "network_body._body_endoder.seq_layers.0.weight"
        assert not torch.equal(after[module][weight], before[module][weight])
        assert torch.isfinite(after[module][weight]).all()
    # Normalisation went on as well, in both networks alike: 24 rows more.
    steps = "network_body.processors.0.normalizer.normalization_steps"
    assert after["Policy"][steps] == before["Policy"][steps] + 24


def test_an_update_from_the_upstream_checkpoint_is_the_one_of_torchs_own_adam(make_trainer, tmp_path):
    """The fused kernel is ours to choose; what it computes is not."""
    fused, plain = resumed_from_upstream(make_trainer, tmp_path), resumed_from_upstream(make_trainer, tmp_path)
    adam = torch.optim.Adam(
        [torch.nn.Parameter(p.detach().clone()) for p in plain.optimizer.optimizer.param_groups[0]["params"]]
    )
    for own, parameter in zip(adam.param_groups[0]["params"], plain.optimizer.optimizer.param_groups[0]["params"]):
        own.requires_grad_(parameter.requires_grad)
    adam.load_state_dict(read(UPSTREAM)[ADAM])
    adam.param_groups[0]["lr"] = fused.optimizer.optimizer.param_groups[0]["lr"]
    generator = torch.Generator().manual_seed(3)
    for ours, theirs in zip(fused.optimizer.optimizer.param_groups[0]["params"], adam.param_groups[0]["params"]):
        if ours.requires_grad:
            ours.grad = torch.randn(ours.shape, generator=generator)
            theirs.grad = ours.grad.clone()
    fused.optimizer.optimizer.step()
    adam.step()
    for ours, theirs in zip(fused.optimizer.optimizer.param_groups[0]["params"], adam.param_groups[0]["params"]):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, check_device=False)


# Saved and loaded.


@pytest.mark.parametrize("shared_critic", [False, True])
@pytest.mark.parametrize("kind", ACTION_SPECS)
@pytest.mark.parametrize("resume", [False, True])
def test_loaded_equals_saved(make_trainer, tmp_path, kind, shared_critic, resume):
    options = {"action_spec": ACTION_SPECS[kind], "shared_critic": shared_critic}
    saved = make_trainer(**options)
    train(saved)
    saved.save_model()
    if resume:
        loaded = make_trainer(**options, load=True, seed=7)
    else:
        loaded = make_trainer(**options, folder="Other", init_path=tmp_path / "Ball" / "checkpoint.pt", seed=7)
    assert_same(state_of(saved), state_of(loaded), but=() if resume else ["global_step"])
    assert loaded.get_step == (24 if resume else 0)
    obs = np.random.default_rng(1).standard_normal((6, 8)).astype(np.float32)
    chosen = []
    for trainer in (saved, loaded):
        np.random.seed(4)
        chosen.append(trainer.policy.get_action(decisions(obs)))
    np.testing.assert_array_equal(chosen[0].action.continuous, chosen[1].action.continuous)
    np.testing.assert_array_equal(chosen[0].action.discrete, chosen[1].action.discrete)
    loaded.policy.set_step(24)
    for trainer in (saved, loaded):
        torch.manual_seed(6)
        np.random.seed(6)
        train(trainer)
    assert_same(state_of(saved), state_of(loaded))


def test_the_newest_state_is_saved_twice_and_a_folder_stands_for_it(make_trainer, tmp_path):
    saved = make_trainer()
    train(saved)
    saved.save_model()
    folder = tmp_path / "Ball"
    assert sorted(path.name for path in folder.iterdir()) == ["Ball-24.pt", "checkpoint.pt"]
    assert_same(read(folder / "Ball-24.pt"), read(folder / "checkpoint.pt"), but=["trainer", "about"])
    assert_same(state_of(make_trainer(folder="Other", init_path=folder)), state_of(saved), but=["global_step"])


def test_parameters_that_are_not_finite_are_not_saved_but_those_before_again(make_trainer, tmp_path):
    trainer = make_trainer()
    train(trainer)
    trainer.save_model()
    good_state = copy.deepcopy(state_of(trainer))
    for module in (trainer.policy.actor, trainer.optimizer.critic):
        weight = module.network_body._body_endoder.seq_layers[2].weight
        good = weight.detach().clone()
        for bad in (np.nan, np.inf):
            with torch.no_grad():
                weight[0, 0] = bad
            with pytest.raises(UnityTrainerException, match=r"seq_layers\.2\.weight is not finite"):
                trainer.save_model()
            assert torch.equal(weight, good)
            for path in (tmp_path / "Ball").iterdir():
                assert_same(read(path), good_state, but=["trainer", "about"])


@pytest.mark.parametrize("training", [True, False])
def test_what_was_collected_is_for_those_who_go_on_learning(make_trainer, training):
    saved = make_trainer()
    train(saved)
    train(saved, n_steps=6)
    saved.save_model()
    assert saved.update_buffer.num_experiences == 6
    assert list(saved.collected_rewards["environment"]) == ["agent_0-0"]
    resumed = make_trainer(load=True, seed=9, training=training)
    assert resumed.update_buffer.num_experiences == (6 if training else 0)
    assert dict(resumed.collected_rewards) == (dict(saved.collected_rewards) if training else {})
    assert_same(state_of(resumed), state_of(saved))


# What is damaged, and what is there beside it.


def states_of_three_steps(make_trainer):
    """Train and save three times; return the trainer."""
    trainer = make_trainer()
    for _ in range(3):
        train(trainer)
        trainer.save_model()
    return trainer


def step_of(trainer):
    return trainer.policy.get_current_step()


@pytest.mark.parametrize("missing", [False, True])
def test_a_damaged_newest_state_is_passed_over_for_the_newest_whole_one(make_trainer, tmp_path, capsys, missing):
    states_of_three_steps(make_trainer)
    folder = tmp_path / "Ball"
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint.pt", "checkpoint.previous.pt", "Ball-24.pt", "Ball-48.pt", "Ball-72.pt"
    }  # fmt: skip
    order = [("checkpoint.pt", 72), ("Ball-72.pt", 72), ("checkpoint.previous.pt", 48), ("Ball-48.pt", 48)]
    for (name, _), (_, step) in pairwise([*order, ("Ball-24.pt", 24)]):
        path = folder / name
        if missing:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:2000])
        resumed = make_trainer(load=True, seed=9)
        assert step_of(resumed) == step
        out = capsys.readouterr().out
        assert f"the newest whole one is used: {folder}" in out
        assert f"of step {step}." in out
    (folder / "Ball-24.pt").write_bytes(b"")
    with pytest.raises(UnityTrainerException, match=r"checkpoint\.pt"):
        make_trainer(load=True)


def test_the_damaged_state_does_not_take_the_place_of_the_good_one(make_trainer, tmp_path):
    """Killed right after its first save, the resumed run would else have nothing left."""
    states_of_three_steps(make_trainer)
    folder = tmp_path / "Ball"
    for numbered in folder.glob("Ball-*.pt"):
        numbered.unlink()
    (folder / "checkpoint.pt").write_bytes(b"damaged")
    good = (folder / "checkpoint.previous.pt").read_bytes()
    resumed = make_trainer(load=True)
    resumed.save_state()
    assert (folder / "checkpoint.previous.pt").read_bytes() == good
    first = (folder / "checkpoint.pt").read_bytes()
    train(resumed)
    resumed.save_state()
    assert (folder / "checkpoint.previous.pt").read_bytes() == first


def test_states_that_were_given_up_are_not_taken_for_the_newest(make_trainer, tmp_path):
    """A run that went back to an older checkpoint, which the user put there, has numbered ones of later steps."""
    states_of_three_steps(make_trainer)
    folder = tmp_path / "Ball"
    (folder / "checkpoint.pt").write_bytes((folder / "Ball-24.pt").read_bytes())
    resumed = make_trainer(load=True)
    train(resumed)
    for _ in range(2):
        resumed.save_state()
    for number, name in enumerate(("Ball-24.pt", "Ball-48.pt", "Ball-72.pt", "checkpoint.previous.pt")):
        os.utime(folder / name, (number, number))
    (folder / "checkpoint.pt").write_bytes(b"damaged")
    assert step_of(make_trainer(load=True)) == 48 == step_of(resumed)


def test_going_back_keeps_the_count_of_steps(make_trainer):
    trainer = states_of_three_steps(make_trainer)
    saved = copy.deepcopy(state_of(trainer))
    train(trainer)
    assert step_of(trainer) == 96
    assert trainer.model_saver.reload()
    assert step_of(trainer) == 96
    assert_same(state_of(trainer), saved, but=["global_step"])


def test_there_may_be_nothing_to_go_back_to(make_trainer):
    assert not make_trainer().model_saver.reload()


# What fits of what does not.


def test_a_partial_load_takes_what_fits_and_names_the_rest(make_trainer, capsys):
    trainer = make_trainer(folder="Fresh", seed=8, network={"num_layers": 3})
    fresh = copy.deepcopy(state_of(trainer))
    trainer.model_saver.initialize_path = str(UPSTREAM)
    trainer.model_saver.allow_partial_load = True
    trainer.model_saver.initialize_or_load()
    there, here = read(UPSTREAM)["Policy"], trainer.policy.actor.state_dict()
    for key, tensor in here.items():
        assert torch.equal(tensor, there[key] if key in there else fresh["Policy"][key])
    out = capsys.readouterr().out
    added = "network_body._body_endoder.seq_layers.4.weight"
    assert added not in there
    assert f"Policy, {added}: not in the file" in out
    assert "what fits of it is taken" in out
    assert state_of(trainer)[ADAM]["state"] == {}  # it takes all or nothing
    train(trainer)


def test_a_partial_load_leaves_other_shapes_alone(make_trainer):
    trainer = make_trainer(folder="Fresh", seed=8, network={"hidden_units": 16})
    fresh = copy.deepcopy(state_of(trainer))
    trainer.model_saver.initialize_path = str(UPSTREAM)
    trainer.model_saver.allow_partial_load = True
    trainer.model_saver.initialize_or_load()
    there, here = read(UPSTREAM)["Policy"], trainer.policy.actor.state_dict()
    taken = [key for key in here if torch.equal(here[key], there[key]) and here[key].shape == there[key].shape]
    assert "network_body.processors.0.normalizer.running_mean" in taken
    assert "action_model._continuous_distribution.log_sigma" in taken
    assert torch.equal(
        here["action_model._continuous_distribution.mu.weight"],
        fresh["Policy"]["action_model._continuous_distribution.mu.weight"],
    )
    train(trainer)


# What does not fit.


def refused(make_trainer, path, **options):
    """Try to load a state into a fresh trainer; return the message after checking that nothing was loaded."""
    trainer = make_trainer(folder="Fresh", seed=8, **options)
    before = copy.deepcopy(state_of(trainer))
    trainer.model_saver.initialize_path = str(path)
    with pytest.raises(UnityTrainerException) as error:
        trainer.model_saver.initialize_or_load()
    assert_same(before, state_of(trainer))
    return str(error.value)


def test_other_shapes_are_refused_by_name(make_trainer):
    message = refused(make_trainer, UPSTREAM, network={"hidden_units": 16})
    assert "nothing of it was loaded" in message
    assert "Policy, network_body._body_endoder.seq_layers.0.weight: (16, 8) here, (32, 8) in the file" in message
    assert str(UPSTREAM) in message


def test_the_last_part_that_does_not_fit_keeps_the_first_from_being_loaded(make_trainer, tmp_path):
    state = read(UPSTREAM)
    index = max(state[ADAM]["state"])
    state[ADAM]["state"][index]["exp_avg"] = torch.zeros(5)
    torch.save(state, tmp_path / "changed.pt")
    message = refused(make_trainer, tmp_path / "changed.pt")
    assert f"{ADAM}, exp_avg of parameter {index}: (1,) here, (5,) in the file" in message


def test_missing_and_additional_parts_are_named(make_trainer, tmp_path):
    state = read(UPSTREAM)
    state["Module:Curiosity"] = state.pop("Optimizer:critic")
    state["Policy"]["memory"] = state["Policy"].pop("action_model._continuous_distribution.log_sigma")
    torch.save(state, tmp_path / "changed.pt")
    message = refused(make_trainer, tmp_path / "changed.pt")
    for line in [
        "Optimizer:critic: not in the file",
        "Module:Curiosity: in the file, but not in this run",
        "Policy, action_model._continuous_distribution.log_sigma: not in the file",
        "Policy, memory: in the file, but not in this run",
    ]:
        assert line in message


def test_another_number_of_parameters_is_refused(make_trainer):
    message = refused(make_trainer, UPSTREAM, network={"num_layers": 3})
    assert f"{ADAM}: [" in message
    assert "seq_layers.4.weight: not in the file" in message


def test_a_separate_critic_is_not_taken_for_a_shared_one(make_trainer):
    assert "value_heads" in refused(make_trainer, UPSTREAM, shared_critic=True)


@pytest.mark.parametrize("content", [{"Policy": 3}, {ADAM: {}}, {ADAM: None}, {"Policy": {"x": [1]}}, {}])
def test_a_dictionary_of_something_else_is_refused(make_trainer, tmp_path, content):
    torch.save({**(read(UPSTREAM) if content else {}), **content}, tmp_path / "other.pt")
    assert "does not fit" in refused(make_trainer, tmp_path / "other.pt")


def test_what_is_no_dictionary_is_refused(make_trainer, tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    assert "it holds a Tensor" in refused(make_trainer, tmp_path / "tensor.pt")


def test_a_missing_file_is_named(make_trainer, tmp_path):
    assert f"There is no checkpoint at {tmp_path / 'none.pt'}" in refused(make_trainer, tmp_path / "none.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_are_refused(make_trainer, tmp_path):
    content, path, rng = UPSTREAM.read_bytes(), tmp_path / "damaged.pt", random.Random(1)
    for length in [0, 1, 3, 4, 100, *(rng.randrange(len(content)) for _ in range(10)), len(content) - 1]:
        path.write_bytes(content[:length])
        assert f"{path} could not be read as a checkpoint: " in refused(make_trainer, path)
    for garbage in [b".", b"PK\x03\x04", b"\x80\x02]q\x00.", b"no checkpoint", *(rng.randbytes(60) for _ in range(20))]:
        path.write_bytes(garbage)
        assert str(path) in refused(make_trainer, path)


class Intruder:
    """What runs code as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_a_file_cannot_run_code(make_trainer, tmp_path, write):
    write({**read(UPSTREAM), "Policy": Intruder(tmp_path / "intruded")}, tmp_path / "evil.pt")
    assert "could not be read as a checkpoint" in refused(make_trainer, tmp_path / "evil.pt")
    assert not (tmp_path / "intruded").exists()


# Export.


class Unexportable(SimpleActor):
    def forward(self, inputs, masks=None, memories=None):
        raise RuntimeError("this network has no graph")


def test_a_failing_export_is_a_warning_and_leaves_the_state(tmp_path, capsys):
    spec = BehaviorSpec([vector_observation(8, "obs")], ActionSpec(2, ()))
    policy = TorchPolicy(0, spec, NetworkSettings(hidden_units=8), Unexportable, {})
    saver = TorchModelSaver(TrainerSettings(), str(tmp_path / "Ball"))
    saver.register(policy)
    path, others = saver.save_checkpoint("Ball", 7)
    assert (path, others) == (str(tmp_path / "Ball" / "Ball-7.pt"), [])
    assert sorted(file.name for file in (tmp_path / "Ball").iterdir()) == ["Ball-7.pt", "checkpoint.pt"]
    out = capsys.readouterr().out
    assert "[WARNING]" in out
    assert "RuntimeError: this network has no graph" in out
    saver.copy_final_model(path)
    assert not (tmp_path / "Ball.onnx").exists()
    assert read(path)["Policy"].keys() == policy.actor.state_dict().keys()


# From end to end, on the built-in environment that the file fits.


@pytest.mark.parametrize("resume", [True, False])
def test_the_command_goes_on_from_the_upstream_checkpoint(run_learn, tmp_path, resume):
    pytest.importorskip("mujoco")
    steps = int(read(UPSTREAM)["global_step"]["_GlobalSteps__global_step"])
    config = tmp_path / "config.yaml"
    max_steps = steps * resume + 300
    config.write_text(
        "behaviors: {3DBall: {trainer_type: ppo, network_settings: {normalize: true, hidden_units: 32},\n"
        "  hyperparameters: {batch_size: 32, buffer_size: 128}, time_horizon: 16,\n"
        f"  max_steps: {max_steps}, init_path: {'null' if resume else UPSTREAM}}}}}\n"
    )
    folder = tmp_path / "results" / "run" / "3DBall"
    if resume:
        folder.mkdir(parents=True)
        (folder / "checkpoint.pt").write_bytes(UPSTREAM.read_bytes())
    code, out, err = run_learn(config, "--env", "3DBall", "--run-id", "run", "--seed", 1, *["--resume"] * resume)
    assert code == 0, err
    assert (f"from step {steps} of" if resume else f"initialized from {UPSTREAM}") in out
    before, after = read(UPSTREAM), read(folder / "checkpoint.pt")
    assert int(after["global_step"]["_GlobalSteps__global_step"]) >= max_steps
    index = next(iter(before[ADAM]["state"]))
    assert after[ADAM]["state"][index]["step"] > before[ADAM]["state"][index]["step"]
    statistics = "network_body.processors.0.normalizer.normalization_steps"
    assert after["Policy"][statistics] > before["Policy"][statistics]
    assert (tmp_path / "results" / "run" / "3DBall.onnx").is_file()
