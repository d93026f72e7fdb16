"""`FusedAdam` against torch's own Adam."""

import copy

import pytest
import torch

from mlagents.trainers.torch_entities.fused_adam import FusedAdam


def parameters(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(7, 5), (7,), (1, 3), (2, 7)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def set_gradients(*copies, generator, absent=()):
    for index, group in enumerate(zip(*copies)):
        gradient = None if index in absent else torch.randn(group[0].shape, generator=generator)
        for parameter in group:
            parameter.grad = None if gradient is None else gradient.clone()


def assert_equal(ours, theirs):
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs))


def test_steps_equal_those_of_torch():
    ours, theirs = parameters(1), parameters(1)
    start = copy.deepcopy(ours)
    fast, plain = FusedAdam(ours, lr=0.01), torch.optim.Adam(theirs, lr=0.01, fused=True)
    generator = torch.Generator().manual_seed(2)
    for step in range(60):
        # A parameter without a gradient, as the constants of an actor are, now and then another one.
        set_gradients(ours, theirs, generator=generator, absent=(2,) if step % 7 else (2, 1))
        for optimizer in (fast, plain):
            optimizer.param_groups[0]["lr"] = 0.01 / (step + 1)
            optimizer.step()
    assert_equal(ours, theirs)
    assert not torch.equal(ours[0], start[0])
    assert torch.equal(ours[2], start[2])
    assert fast.state_dict()["state"].keys() == plain.state_dict()["state"].keys()
    assert fast.state[ours[0]]["step"].item() == 60
    assert fast.state[ours[1]]["step"].item() == plain.state[theirs[1]]["step"].item() < 60


@pytest.mark.parametrize("fast_first", [True, False])
def test_either_goes_on_from_the_state_of_the_other(fast_first):
    ours, theirs = parameters(3), parameters(3)
    fast, plain = FusedAdam(ours, lr=0.01), torch.optim.Adam(theirs, lr=0.01, fused=True)
    generator = torch.Generator().manual_seed(4)
    for _ in range(5):
        set_gradients(ours, theirs, generator=generator)
        (fast if fast_first else plain).step()
    source, target = (fast, plain) if fast_first else (plain, fast)
    target.load_state_dict(copy.deepcopy(source.state_dict()))
    with torch.no_grad():
        for one, other in zip(ours, theirs):
            (other if fast_first else one).copy_(one if fast_first else other)
    for _ in range(5):
        set_gradients(ours, theirs, generator=generator)
        fast.step()
        plain.step()
    assert_equal(ours, theirs)


def test_variants_are_left_to_torch():
    ours, theirs = parameters(5), parameters(5)
    fast, plain = FusedAdam(ours, lr=0.01), torch.optim.Adam(theirs, lr=0.01, fused=True)
    for optimizer in (fast, plain):
        optimizer.param_groups[0]["maximize"] = True
    generator = torch.Generator().manual_seed(6)
    for _ in range(3):
        set_gradients(ours, theirs, generator=generator)
        fast.step()
        plain.step()
    assert_equal(ours, theirs)


def test_a_step_without_gradients_changes_nothing():
    ours = parameters(9)
    start = copy.deepcopy(ours)
    FusedAdam(ours, lr=0.01).step()
    assert_equal(ours, start)


def test_gradients_are_dropped_or_zeroed():
    ours = parameters(7)
    optimizer = FusedAdam(ours, lr=0.01)
    set_gradients(ours, generator=torch.Generator().manual_seed(8))
    optimizer.zero_grad(set_to_none=False)
    assert all(not parameter.grad.any() for parameter in ours)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in ours)


@pytest.mark.parametrize("torch_has_wrapped_its_own", [False, True])
def test_hooks_before_a_step_run_once_at_every_step(torch_has_wrapped_its_own, monkeypatch):
    own = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", getattr(own, "__wrapped__", own))
    if torch_has_wrapped_its_own:
        torch.optim.Adam(parameters(1))
    optimizer = FusedAdam(parameters(1), lr=0.01)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(1))
    for step in range(3):
        set_gradients(optimizer.param_groups[0]["params"], generator=torch.Generator().manual_seed(step))
        optimizer.step()
        assert len(calls) == step + 1


def test_a_copy_takes_the_same_steps():
    optimizer = FusedAdam(parameters(1), lr=0.01)
    set_gradients(optimizer.param_groups[0]["params"], generator=torch.Generator().manual_seed(2))
    optimizer.step()
    twin = copy.deepcopy(optimizer)
    for each in (optimizer, twin):
        set_gradients(each.param_groups[0]["params"], generator=torch.Generator().manual_seed(3))
        each.step()
    assert_equal(optimizer.param_groups[0]["params"], twin.param_groups[0]["params"])
    assert optimizer.param_groups[0]["params"][0] is not twin.param_groups[0]["params"][0]
