"""Updates that are not finite are left out; the run goes back to its last checkpoint, or ends where that is no help."""

import numpy as np
import pytest
import torch

from mlagents.plugins.trainer_type import all_trainer_settings, all_trainer_types
from mlagents.trainers.exception import NotFiniteError
from mlagents.trainers.optimizer.gradient_guard import guard_gradients
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer, TorchPPOOptimizer
from mlagents.trainers.torch_entities.fused_adam import FusedAdam
from mlagents.trainers.torch_entities.utils import ModelUtils

OPTIMIZERS = [
    torch.optim.Adam,
    torch.optim.RMSprop,
    lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
    FusedAdam,
]


# Gradients.


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_step_along_a_gradient_that_is_not_finite_changes_nothing(make_optimizer, bad):
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    optimizer = make_optimizer(network.parameters(), lr=0.1)
    guard_gradients({"Net": network, "Adam": optimizer})
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.ones(2, 3)).sum().backward()
        optimizer.step()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    kept = [value.clone() for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    network[1].weight.grad[0, 2] = bad
    with pytest.raises(NotFiniteError, match=r"the gradient of Net, 1\.weight is not finite"):
        optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))
    after = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    assert all(torch.equal(*pair) for pair in zip(kept, after, strict=True))
    optimizer.zero_grad()
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(before[0], network[0].weight)


def test_great_gradients_are_taken():
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1e-15)
    guard_gradients({"SGD": optimizer})
    weight.grad = torch.full((4,), 1e17)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((4,), -100.0))


@pytest.mark.parametrize("gradient", [1e25, 3e38])
def test_gradients_whose_squares_are_infinite_are_refused(gradient):
    """With them the weights would never move again: Adam divides by their mean square."""
    weight, other = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([weight, other], lr=0.1)
    guard_gradients({"Adam": optimizer})
    weight.grad, other.grad = torch.full((4,), gradient), torch.ones(1)
    with pytest.raises(NotFiniteError, match=r"is too large: its norm is [26]e"):
        optimizer.step()
    weight.grad = torch.ones(4)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((4,), 0.9))


@pytest.mark.parametrize("in_large", [True, False])
@pytest.mark.parametrize(("bad", "said"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e25, "too large")])
def test_gradients_of_large_layers_are_guarded_beside_those_of_small_ones(bad, said, in_large):
    large, small = torch.nn.Linear(400, 300), torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD([*large.parameters(), *small.parameters()], lr=1.0)
    guard_gradients({"Large": large, "Small": small, "SGD": optimizer})
    for parameter in (*large.parameters(), *small.parameters()):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    before = large.weight.detach().clone()
    (large if in_large else small).weight.grad[1, 1] = bad
    with pytest.raises(NotFiniteError, match=f"the gradient of {'Large' if in_large else 'Small'}, weight is {said}"):
        optimizer.step()
    assert torch.equal(large.weight, before)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("bad", "said"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e25, "too large")])
def test_gradients_that_are_parts_of_one_tensor_are_guarded_as_one(bad, said):
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    guard_gradients({"Layer": layer, "SGD": optimizer})
    flat = torch.ones(6)
    layer.weight.grad, layer.bias.grad = flat[:4].view(2, 2), flat[4:]
    before = layer.bias.detach().clone()
    optimizer.step()
    assert torch.equal(layer.bias, before - 1.0)
    flat[5] = bad
    with pytest.raises(NotFiniteError, match=f"the gradient of Layer, bias is {said}"):
        optimizer.step()
    assert torch.equal(layer.bias, before - 1.0)


def test_sparse_gradients_are_guarded_too():
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = torch.optim.SparseAdam(embedding.parameters(), lr=0.1)
    guard_gradients({"Net": embedding, "Adam": optimizer})
    before = embedding.weight.detach().clone()
    (embedding(torch.tensor([1, 1])).sum() * float("nan")).backward()
    with pytest.raises(NotFiniteError, match="is not finite"):
        optimizer.step()
    assert torch.equal(embedding.weight, before)
    optimizer.zero_grad()
    embedding(torch.tensor([1])).sum().backward()
    optimizer.step()
    assert torch.equal(embedding.weight != before, torch.tensor([[False] * 2, [True] * 2, [False] * 2, [False] * 2]))


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS)
def test_a_learning_rate_that_was_lowered_stays_so(make_optimizer):
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(2))], lr=0.4)
    ModelUtils.scale_learning_rate(optimizer, 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.2
    ModelUtils.scale_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.1
    ModelUtils.update_learning_rate(optimizer, 0.8)
    assert optimizer.param_groups[0]["lr"] == 0.2
    other = make_optimizer([torch.nn.Parameter(torch.zeros(2))], lr=0.4)
    other.load_state_dict(optimizer.state_dict())
    ModelUtils.update_learning_rate(other, 0.4)
    assert other.param_groups[0]["lr"] == 0.1


# Runs.


class FaultyOptimizer(TorchPPOOptimizer):
    """PPO whose updates numbered by `FAULTY` are not finite in one way or another."""

    FAULTY = frozenset()
    KIND = "loss"
    n_updates = 0

    def loss(self, batch):
        loss, metrics = super().loss(batch)
        number, FaultyOptimizer.n_updates = FaultyOptimizer.n_updates, FaultyOptimizer.n_updates + 1
        if number in self.FAULTY:
            if self.KIND == "loss":
                loss = loss * np.nan
            elif self.KIND == "gradient":  # of the square root at 0, where the loss itself is finite
                loss = loss + sum((parameter * 0).sqrt().sum() for parameter in self.critic.parameters())
            elif self.KIND == "parameter":
                with torch.no_grad():
                    self.policy.actor.network_body._body_endoder.seq_layers[0].bias[1] = np.inf
        return loss, metrics


class FaultyTrainer(PPOTrainer):
    optimizer_class = FaultyOptimizer

    @staticmethod
    def get_trainer_name():
        return "faulty"


@pytest.fixture
def train(run_learn, basic_config, monkeypatch, tmp_path):
    """Return a function that trains with faulty updates; it returns the exit code, what was printed, and the errors."""
    monkeypatch.setitem(all_trainer_types, "faulty", FaultyTrainer)
    monkeypatch.setitem(all_trainer_settings, "faulty", PPOSettings)

    def train(kind, faulty, *args, **settings):
        monkeypatch.setattr(FaultyOptimizer, "FAULTY", frozenset(faulty))
        monkeypatch.setattr(FaultyOptimizer, "KIND", kind)
        monkeypatch.setattr(FaultyOptimizer, "n_updates", 0)
        hyperparameters = {"num_epoch": 1, "learning_rate_schedule": "constant"}
        config = basic_config(trainer_type="faulty", hyperparameters=hyperparameters, **settings)
        code, out, error = run_learn(config, "--env", "Basic", "--run-id", "a", "--seed", 1, *args)
        assert "Traceback" not in error
        return code, out, error

    return train


def newest(tmp_path):
    return torch.load(tmp_path / "results/a/Basic/checkpoint.pt", weights_only=True)


def assert_finite(state):
    tensors = [tensor for module in state.values() if isinstance(module, dict) for tensor in module.values()]
    tensors = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()]
    assert len(tensors) > 5
    assert all(torch.isfinite(tensor).all() for tensor in tensors)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_single_updates_are_left_out(train, tmp_path, kind):
    code, out, _ = train(kind, {5, 6, 9}, max_steps=400)
    assert code == 0
    assert out.count("The update was left out") == 3
    assert "(2 in a row)" in out
    assert "(3 in a row)" not in out
    named = {"loss": "FaultyOptimizer.loss", "gradient": "the gradient of Optimizer:critic, "}[kind]
    assert named in out
    assert_finite(newest(tmp_path))
    steps = newest(tmp_path)["Optimizer:value_optimizer"]["state"]
    assert max(int(kept["step"]) for kept in steps.values() if kept) == FaultyOptimizer.n_updates - 3


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_after_three_in_a_row_the_run_goes_back_and_on(train, tmp_path, kind):
    code, out, _ = train(kind, {9, 10, 11}, max_steps=600, checkpoint_interval=100)
    assert code == 0
    assert "Training goes on from the last checkpoint in results/a/Basic, with 0.5 times the learning rate" in out
    state = newest(tmp_path)
    assert_finite(state)
    group = state["Optimizer:value_optimizer"]["param_groups"][0]
    assert group["lr"] == pytest.approx(1.5e-3)
    assert state["trainer"]["rollbacks"] == 1
    assert int(state["global_step"]["_GlobalSteps__global_step"]) >= 600  # steps were counted on
    code, out, _ = train(kind, set(), "--resume", max_steps=700)
    assert code == 0
    assert newest(tmp_path)["Optimizer:value_optimizer"]["param_groups"][0]["lr"] == pytest.approx(1.5e-3)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_where_that_is_no_help_the_run_ends_with_the_good_model(train, tmp_path, kind):
    code, out, error = train(kind, range(12, 10_000), max_steps=3000, checkpoint_interval=100)
    assert code == 1
    assert out.count("Training goes on from the last checkpoint") == 2
    assert "did not get better after going back to the last checkpoint 2 times" in error
    assert_finite(newest(tmp_path))
    assert (tmp_path / "results/a/Basic.onnx").is_file()


def test_without_a_checkpoint_it_goes_on_from_the_first_state(train, tmp_path):
    code, out, _ = train("loss", {0, 1, 2}, max_steps=300)
    assert code == 0
    assert "Training goes on from the last checkpoint" in out  # which was written as the run began


def test_parameters_that_are_not_finite_are_never_saved(train, tmp_path):
    code, out, error = train("parameter", {14}, max_steps=900, checkpoint_interval=100)
    assert code in (0, 1)
    assert "Policy, network_body._body_endoder.seq_layers.0.bias is not finite" in out + error or "NaN" in error
    assert_finite(newest(tmp_path))
    for path in (tmp_path / "results/a/Basic").glob("*.pt"):
        assert_finite(torch.load(path, weights_only=True))


def test_parameters_that_are_not_finite_are_not_saved_by_the_clock_either(train, tmp_path):
    code, out, _ = train("parameter", {14}, "--checkpoint-interval-s", 1e-9, max_steps=400)
    assert code == 0
    assert "The state of behavior Basic was not saved: Policy, " in out
    assert "Training goes on from the last checkpoint in results/a/Basic, with 0.5 times" in out
    assert_finite(newest(tmp_path))


def test_a_reward_signal_that_is_not_finite_is_named(run_learn, basic_config, monkeypatch, tmp_path):
    from mlagents.trainers.torch_entities.components.reward_providers.extrinsic_reward_provider import (
        ExtrinsicRewardProvider,
    )

    evaluate = ExtrinsicRewardProvider.evaluate
    calls = []

    def fail_later(self, batch):
        calls.append(len(calls))
        return evaluate(self, batch) * (np.nan if len(calls) > 20 else 1.0)

    monkeypatch.setattr(ExtrinsicRewardProvider, "evaluate", fail_later)
    code, _, error = run_learn(basic_config(), "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert code == 1
    assert "agent agent_0-0: the reward signal extrinsic (ExtrinsicRewardProvider) gave a reward that is not" in error
    assert_finite(newest(tmp_path))
    assert int(newest(tmp_path)["global_step"]["_GlobalSteps__global_step"]) > 100  # what was learned until then
