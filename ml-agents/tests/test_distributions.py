import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from mlagents.trainers.torch_entities.distributions import (
    CategoricalDistInstance,
    GaussianDistInstance,
    GaussianDistribution,
    MultiCategoricalDistribution,
    TanhGaussianDistInstance,
)

ROWS = 20000


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def gaussian(rows=6, instance=GaussianDistInstance, shared=True):
    mean = torch.randn(rows, 3)
    std = torch.exp(torch.randn(1 if shared else rows, 3) * 0.5)
    return instance(mean, std)


def test_gaussian_by_hand():
    """At the mean of a standard normal ln p = -ln sqrt(2 pi); two deviations off it is 2 less."""
    dist = GaussianDistInstance(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 2.0]]))
    log_prob = dist.log_prob(torch.tensor([[0.0, 5.0]]))
    np.testing.assert_allclose(log_prob, [[-0.9189385, -0.9189385 - math.log(2) - 2]], rtol=1e-6)
    # 1/2 ln(2 pi e) = 1.4189385 for the first, ln 2 more for the second, averaged
    np.testing.assert_allclose(dist.entropy(), [1.4189385 + math.log(2) / 2], rtol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_gaussian_against_torch(shared):
    dist = gaussian(shared=shared)
    twin = Normal(dist.mean, dist.std)
    value = torch.randn(6, 3) * 2
    torch.testing.assert_close(dist.log_prob(value), twin.log_prob(value), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dist.pdf(value), torch.exp(twin.log_prob(value)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(dist.entropy(), twin.entropy().mean(dim=1), rtol=1e-5, atol=1e-5)
    assert dist.std.shape == dist.mean.shape


def test_a_shared_deviation_gives_what_its_rows_give():
    shared = gaussian()
    per_row = GaussianDistInstance(shared.mean, shared.std.clone())
    value = torch.randn(6, 3)
    torch.testing.assert_close(shared.log_prob(value), per_row.log_prob(value))
    torch.testing.assert_close(shared.entropy(), per_row.entropy())


def test_gradients_of_a_gaussian_against_torch():
    layer = GaussianDistribution(4, 2)
    inputs, value = torch.randn(5, 4), torch.randn(5, 2)
    with torch.no_grad():
        layer.log_sigma += 0.3
    dist = layer(inputs)
    (dist.log_prob(value).sum() + dist.entropy().sum()).backward()
    ours = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    twin = Normal(layer.mu(inputs), torch.exp(layer.log_sigma).expand(5, 2))
    (twin.log_prob(value).sum() + twin.entropy().mean(dim=1).sum()).backward()
    for grad, parameter in zip(ours, layer.parameters()):
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-4, atol=1e-4)


def test_gaussian_samples_have_the_mean_and_deviation():
    mean, std = torch.tensor([[2.0, -1.0]]).expand(ROWS, 2), torch.tensor([[0.5, 3.0]])
    sample = GaussianDistInstance(mean, std).sample()
    np.testing.assert_allclose(sample.mean(dim=0), [2, -1], atol=0.1)
    np.testing.assert_allclose(sample.std(dim=0), [0.5, 3], rtol=0.03)
    assert torch.equal(GaussianDistInstance(mean, std).deterministic_sample(), mean)


def test_squashed_gaussian_against_torch():
    dist = gaussian(instance=TanhGaussianDistInstance)
    twin = TransformedDistribution(Normal(dist.mean, dist.std), TanhTransform())
    stored = torch.rand(6, 3) * 1.8 - 0.9
    torch.testing.assert_close(dist.log_prob(stored), twin.log_prob(stored), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dist.entropy(), Normal(dist.mean, dist.std).entropy().mean(dim=1))
    assert torch.equal(dist.deterministic_sample(), torch.tanh(dist.mean))


def test_a_squashed_sample_keeps_its_own_log_prob_where_tanh_saturates():
    dist = TanhGaussianDistInstance(torch.full((4, 1), 12.0), torch.full((1, 1), 0.1))
    sample = dist.sample()
    assert torch.all(sample == 1.0)
    unsquashed = torch.tensor(12.0, dtype=torch.float64)
    log_slope = torch.log1p(-(torch.tanh(unsquashed) ** 2)).item()  # ln(1 - tanh^2), about -22.6
    within_four_deviations = dist.log_prob(sample) + log_slope
    assert torch.all(within_four_deviations < 2.0)
    assert torch.all(within_four_deviations > -8.0)
    assert torch.isfinite(dist.log_prob(sample.clone())).all()


def test_conditional_deviation_is_clamped():
    layer = GaussianDistribution(1, 2, conditional_sigma=True)
    with torch.no_grad():
        layer.log_sigma.weight.copy_(torch.tensor([[100.0], [-100.0]]))
        layer.log_sigma.bias.zero_()
    dist = layer(torch.ones(3, 1))
    np.testing.assert_allclose(dist.std.detach(), [[math.exp(2), math.exp(-20)]] * 3, rtol=1e-5)
    assert torch.isfinite(dist.log_prob(dist.mean)).all()


def test_squashing_is_chosen_by_the_layer():
    assert isinstance(GaussianDistribution(4, 2, tanh_squash=True)(torch.randn(1, 4)), TanhGaussianDistInstance)


def test_categorical_by_hand():
    """Probabilities 1/2, 1/4, 1/4: entropy 1.5 ln 2."""
    dist = CategoricalDistInstance(torch.log(torch.tensor([[2.0, 1.0, 1.0]])))
    np.testing.assert_allclose(dist.all_log_prob(), np.log([[0.5, 0.25, 0.25]]), rtol=1e-6)
    np.testing.assert_allclose(dist.log_prob(torch.tensor([[2]])), [math.log(0.25)], rtol=1e-6)
    np.testing.assert_allclose(dist.pdf(torch.tensor([0])), [0.5], rtol=1e-6)
    np.testing.assert_allclose(dist.entropy(), [1.5 * math.log(2)], rtol=1e-6)


def test_categorical_against_torch():
    logits = torch.randn(7, 4) * 2
    dist, twin = CategoricalDistInstance(logits), Categorical(logits=logits)
    chosen = torch.randint(4, (7,))
    torch.testing.assert_close(dist.log_prob(chosen), twin.log_prob(chosen), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dist.log_prob(chosen[:, None]), dist.log_prob(chosen))
    torch.testing.assert_close(dist.entropy(), twin.entropy(), rtol=1e-4, atol=1e-4)


def test_the_most_probable_choice_is_the_first_of_equals():
    dist = CategoricalDistInstance(torch.tensor([[0.0, 3.0, 3.0], [1.0, 1.0, 0.0]]))
    assert dist.deterministic_sample().tolist() == [[1], [0]]


@pytest.mark.parametrize("draw", ["sample", "exported_model_output"])
def test_choices_are_drawn_as_often_as_they_are_probable(draw):
    probabilities = torch.tensor([0.6, 0.3, 0.1, 0.0])
    dist = CategoricalDistInstance(torch.log(probabilities).expand(ROWS, 4))
    drawn = getattr(dist, draw)()
    assert drawn.shape == (ROWS, 1)
    assert drawn.dtype == torch.int64
    counts = torch.bincount(drawn.flatten(), minlength=4)
    np.testing.assert_allclose(counts / ROWS, probabilities, atol=0.015)
    assert counts[3] == 0


def masked_layer():
    layer = MultiCategoricalDistribution(4, [3, 2])
    with torch.no_grad():
        for branch in layer.branches:
            branch.weight.copy_(torch.randn_like(branch.weight))
    return layer


def test_forbidden_choices_are_never_drawn():
    masks = torch.tensor([[1.0, 0.0, 1.0, 0.0, 1.0]]).expand(ROWS, 5)
    first, second = masked_layer()(torch.randn(ROWS, 4) * 10, masks)
    assert set(first.sample().flatten().tolist()) == {0, 2}
    assert set(first.deterministic_sample().flatten().tolist()) == {0, 2}
    assert set(second.sample().flatten().tolist()) == {1}
    assert torch.equal(first.probs[:, 1], torch.zeros(ROWS))


def test_masks_leave_the_odds_of_allowed_choices():
    layer, inputs = masked_layer(), torch.randn(6, 4)
    free, _ = layer(inputs, None)
    masked, _ = layer(inputs, torch.tensor([[1.0, 0.0, 1.0, 1.0, 1.0]]).expand(6, 5))
    torch.testing.assert_close(masked.probs[:, 0] / masked.probs[:, 2], free.probs[:, 0] / free.probs[:, 2])
    torch.testing.assert_close(masked.probs.sum(dim=1), torch.ones(6))


def test_a_mask_that_allows_everything_changes_nothing():
    layer, inputs = masked_layer(), torch.randn(6, 4)
    for masked, free in zip(layer(inputs, torch.ones(6, 5)), layer(inputs, None)):
        assert torch.equal(masked.logits, free.logits)


def test_masked_branches_train_without_nan():
    layer = masked_layer()
    masks = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]])  # two branches with nothing allowed
    dists = layer(torch.randn(2, 4), masks)
    chosen = torch.tensor([0, 1])
    total = sum((dist.log_prob(chosen) + dist.entropy()).sum() for dist in dists)
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())
    assert all(torch.isfinite(dist.all_log_prob()).all() for dist in dists)
    assert all(dist.sample().max() < 3 for dist in dists)


def test_initial_weights_of_the_heads():
    """Kaiming normal, scaled by 0.2 for means and by 0.1 for branches: 0.2/sqrt(400) and 0.1/sqrt(400)."""
    assert GaussianDistribution(400, 300).mu.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert GaussianDistribution(400, 300, True).log_sigma.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert MultiCategoricalDistribution(400, [300]).branches[0].weight.std().item() == pytest.approx(0.005, rel=0.02)
    assert torch.count_nonzero(GaussianDistribution(4, 3).log_sigma) == 0
