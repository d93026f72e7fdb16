import math

import numpy as np
import pytest
import torch

from mlagents.trainers.torch_entities.decoders import ValueHeads
from mlagents.trainers.torch_entities.layers import (
    LSTM,
    Initialization,
    LayerNorm,
    LinearEncoder,
    Swish,
    linear_layer,
    lstm_layer,
)

FAN_IN, FAN_OUT = 400, 600


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("gain", [1.0, 0.2])
@pytest.mark.parametrize(
    ("initialization", "std"),
    [
        (Initialization.Zero, 0.0),
        (Initialization.Normal, 1.0),
        (Initialization.KaimingHeNormal, 0.05),  # 1/sqrt(400)
        (Initialization.KaimingHeUniform, 0.05),
        (Initialization.XavierGlorotNormal, math.sqrt(0.002)),  # sqrt(2/(400 + 600))
        (Initialization.XavierGlorotUniform, math.sqrt(0.002)),
    ],
)
def test_initial_weights_have_the_standard_deviation_asked_for(initialization, std, gain):
    layer = linear_layer(FAN_IN, FAN_OUT, initialization, gain)
    assert layer.weight.mean().item() == pytest.approx(0, abs=0.005 * gain)
    assert layer.weight.std().item() == pytest.approx(std * gain, rel=0.01)
    assert torch.count_nonzero(layer.bias) == 0
    assert layer.weight.requires_grad


@pytest.mark.parametrize(
    ("initialization", "bound"),
    [
        (Initialization.KaimingHeUniform, math.sqrt(3 / 400)),
        (Initialization.XavierGlorotUniform, math.sqrt(6 / 1000)),
    ],
)
def test_uniform_weights_fill_their_range(initialization, bound):
    weight = linear_layer(FAN_IN, FAN_OUT, initialization).weight
    assert 0.99 * bound < weight.abs().max().item() <= bound


def test_normal_weights_have_tails_that_uniform_ones_lack():
    weight = linear_layer(FAN_IN, FAN_OUT, Initialization.KaimingHeNormal).weight
    beyond_two_sigma = (weight.abs() > 2 * 0.05).float().mean().item()
    assert beyond_two_sigma == pytest.approx(0.0455, abs=0.003)


def test_biases_can_be_drawn():
    bias = linear_layer(3, 10000, bias_init=Initialization.Normal).bias
    assert bias.std().item() == pytest.approx(1.0, rel=0.05)


def test_swish():
    data = torch.tensor([0.0, 1.0, -2.0, math.log(3)])
    expected = torch.tensor([0.0, 0.7310586, -0.2384058, 0.75 * math.log(3)])
    torch.testing.assert_close(Swish()(data), expected)


def test_layer_norm_by_hand():
    rows = torch.tensor([[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 5.0, 5.0]])
    root = math.sqrt(3.5 + 1e-5)  # the variance of the first row about its mean, 3
    expected = torch.tensor([[-2 / root, -1 / root, 0.0, 3 / root], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(LayerNorm()(rows), expected)
    assert not list(LayerNorm().parameters())


def test_layer_norm_is_over_the_last_axis():
    data = torch.randn(2, 3, 5)
    torch.testing.assert_close(LayerNorm()(data)[1, 2], LayerNorm()(data[1, 2]))


def test_linear_encoder_against_numpy():
    encoder = LinearEncoder(3, 2, 4)
    (w0, b0, w1, b1) = [parameter.detach().numpy().astype(np.float64) for parameter in encoder.parameters()]
    b0 += 0.5
    with torch.no_grad():
        encoder.seq_layers[0].bias += 0.5
    x = np.array([[0.3, -1.0, 2.0]])
    hidden = x @ w0.T + b0
    hidden = hidden / (1 + np.exp(-hidden))
    output = hidden @ w1.T + b1
    output = output / (1 + np.exp(-output))
    np.testing.assert_allclose(encoder(torch.tensor(x, dtype=torch.float32)).detach().numpy(), output, rtol=1e-5)


def test_linear_encoder_has_the_layers_asked_for():
    encoder = LinearEncoder(3, 3, 5, kernel_gain=2.0)
    assert [tuple(p.shape) for p in encoder.parameters()] == [(5, 3), (5,), (5, 5), (5,), (5, 5), (5,)]
    assert list(encoder.layers) == list(encoder.seq_layers)


def test_value_heads():
    heads = ValueHeads(["extrinsic", "curiosity"], 4)
    hidden = torch.randn(3, 4)
    values = heads(hidden)
    assert list(values) == ["extrinsic", "curiosity"]
    weight, bias = heads.value_heads["curiosity"].weight, heads.value_heads["curiosity"].bias
    torch.testing.assert_close(values["curiosity"], (hidden * weight).sum(dim=1) + bias)
    assert ValueHeads(["q"], 4, output_size=5)(hidden)["q"].shape == (3, 5)


def test_the_gates_of_an_lstm_are_drawn_each_on_its_own():
    lstm = lstm_layer(300, 200)
    for weight, fan_in in ((lstm.weight_ih_l0, 300), (lstm.weight_hh_l0, 200)):
        bound = math.sqrt(6 / (fan_in + 200))  # Xavier's, of one gate and not of all four
        for gate in weight.split(200):
            assert 0.99 * bound < gate.abs().max().item() <= bound


def test_an_lstm_starts_by_keeping_what_it_holds():
    lstm = lstm_layer(3, 2)
    for bias in (lstm.bias_ih_l0, lstm.bias_hh_l0):
        assert bias.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_the_memory_of_an_lstm_is_hidden_state_then_cell_state():
    lstm = LSTM(3, 8)
    inputs, memories = torch.randn(5, 2, 3), torch.randn(1, 5, 8)
    output, after = lstm(inputs, memories)
    expected, (hidden, cell) = lstm.lstm(inputs, (memories[..., :4].contiguous(), memories[..., 4:].contiguous()))
    assert lstm.memory_size == 8
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(after, torch.cat([hidden, cell], dim=-1))
    torch.testing.assert_close(after[0, :, :4], output[:, -1])
