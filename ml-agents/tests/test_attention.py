"""Entities: the plain forms of what attention computes, and what counts as padding."""

import numpy as np
import pytest
import torch

from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.settings import EncoderType
from mlagents.trainers.torch_entities.attention import (
    EntityEmbedding,
    MultiHeadAttention,
    ResidualSelfAttention,
    get_zero_entities_mask,
)
from mlagents.trainers.torch_entities.observation_encoder import ObservationEncoder
from mlagents_envs.base_env import DimensionProperty, ObservationSpec, ObservationType, vector_observation


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def entities(n, size, kind=ObservationType.DEFAULT):
    return ObservationSpec((n, size), (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE), kind, "entities")


def encoder(*specs, h_size=16):
    return ObservationEncoder(list(specs), h_size, EncoderType.SIMPLE)


class TestPadding:
    @pytest.mark.parametrize("value", [0.05, -0.05, 1e-20, -1e-30, 1e-38, 1e-40, -1e-45, -1.5, 1e30])
    def test_a_row_with_any_value_is_no_padding(self, value):
        """However small: squares of 1e-30 are 0, and 1e-45 is the smallest number there is."""
        rows = torch.zeros(2, 3, 4)
        rows[0, 1, 2] = rows[1, 0, 0] = value
        (mask,) = get_zero_entities_mask([rows])
        assert mask.tolist() == [[1, 0, 1], [0, 1, 1]]
        assert mask.dtype == torch.float32

    def test_values_that_cancel_are_no_padding(self):
        (mask,) = get_zero_entities_mask([torch.tensor([[[1.0, -1.0], [0.0, -0.0]]])])
        assert mask.tolist() == [[0, 1]]

    def test_what_is_near_zero_counts_in_the_encoding(self):
        """In ML-Agents 1.1.0 an entity whose squares sum up to less than 0.01 was taken for padding."""
        network = encoder(entities(3, 2), vector_observation(2, "self"))
        beside = torch.randn(1, 2)
        nothing, small = torch.zeros(1, 3, 2), torch.zeros(1, 3, 2)
        small[0, 1] = 0.05
        assert network([nothing, beside])[0, 2:].abs().max() == 0
        assert network([small, beside])[0, 2:].abs().max() > 1e-3

    def test_neither_the_place_nor_the_number_of_padding_rows_matters(self):
        few, many = (
            encoder(entities(3, 4), vector_observation(2, "self")),
            encoder(entities(9, 4), vector_observation(2, "self")),
        )
        many.load_state_dict(few.state_dict())
        rows, beside = torch.randn(5, 3, 4), torch.randn(5, 2)
        spread = torch.zeros(5, 9, 4)
        spread[:, [7, 2, 5]] = rows
        torch.testing.assert_close(many([spread, beside]), few([rows, beside]), atol=1e-6, rtol=1e-5)

    def test_padding_gets_no_gradient(self):
        network = encoder(entities(3, 4))
        rows = torch.randn(2, 3, 4)
        rows[:, 1] = 0
        rows.requires_grad_()
        network([rows]).square().sum().backward()
        assert rows.grad[:, 1].abs().max() == 0
        assert (rows.grad[:, [0, 2]].abs().amax(dim=2) > 0).all()


def naive_attention(layer, inp, mask):
    """`ResidualSelfAttention` row by row, head by head, key by key, in double precision."""

    def linear(module, x):
        return module.weight.detach().double().numpy() @ x + module.bias.detach().double().numpy()

    def norm(x):
        return (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)

    results = []
    for row, padding in zip(inp.double().numpy(), mask.numpy()):
        x = [norm(entity) for entity in row]
        size, heads = len(row[0]), 4
        width = size // heads
        total = np.zeros(size)
        for i in np.flatnonzero(padding == 0):
            attended = np.zeros(size)
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                keys = np.flatnonzero(padding == 0)
                query = linear(layer.fc_q, x[i])[part]
                weights = np.exp([query @ linear(layer.fc_k, x[j])[part] / np.sqrt(size) for j in keys])
                values = [linear(layer.fc_v, x[j])[part] for j in keys]
                attended[part] = sum(weight * value for weight, value in zip(weights, values)) / weights.sum()
            total += norm(linear(layer.fc_out, attended) + x[i])
        results.append(total / max((padding == 0).sum(), 1))
    return np.array(results)


def test_residual_self_attention_equals_its_naive_twin():
    layer = ResidualSelfAttention(8)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
    inp, mask = torch.randn(6, 5, 8), (torch.rand(6, 5) < 0.4).float()
    mask[0], mask[1] = 1, 0
    ours = layer(inp, [mask[:, :2], mask[:, 2:]]).detach().numpy()
    np.testing.assert_allclose(ours, naive_attention(layer, inp, mask), atol=1e-5)


def test_attention_by_hand():
    """One head of two numbers; the keys are at right angles, so that the weights are e^(1/sqrt 2) : 1."""
    query, key = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    value = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    attended, weights = MultiHeadAttention(2, 1)(query, key, value, 1, 2)
    first = np.exp(1 / np.sqrt(2)) / (np.exp(1 / np.sqrt(2)) + 1)
    np.testing.assert_allclose(weights.numpy(), [[[[first, 1 - first]]]], rtol=1e-6)
    np.testing.assert_allclose(attended.numpy(), [[[3 - 2 * first, 4 - 2 * first]]], rtol=1e-6)
    masked, _ = MultiHeadAttention(2, 1)(query, key, value, 1, 2, torch.tensor([[1.0, 0.0]]))
    assert masked.tolist() == [[[3.0, 4.0]]]


def test_an_embedding_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(UnityTrainerException, match="embedding of 10 cannot have 4 heads"):
        ResidualSelfAttention(10)


def test_an_embedding_is_that_of_the_self_encoding_and_the_entity_in_one_row():
    embedding = EntityEmbedding(3, 5, 8)
    embedding.add_self_embedding(2)
    torch.nn.init.normal_(embedding.self_ent_encoder.layers[0].bias)
    x_self, rows = torch.randn(4, 2), torch.randn(4, 5, 3)
    joined = torch.cat([x_self.unsqueeze(1).expand(-1, 5, -1), rows], dim=2)
    torch.testing.assert_close(embedding(x_self, rows), embedding.self_ent_encoder(joined), atol=1e-6, rtol=1e-5)


def test_attention_starts_with_small_weights():
    network = encoder(entities(3, 200), vector_observation(200, "self"), entities(2, 100))
    attention, size = network.rsa, network.ATTENTION_EMBEDDING_SIZE
    embeddings = [network.processors[index].self_ent_encoder.layers[0] for index in (0, 2)]
    layers = [*embeddings, network.x_self_encoder.layers[0]]
    layers += [attention.fc_q, attention.fc_k, attention.fc_v, attention.fc_out]
    for layer in layers:
        assert layer.weight.std().item() == pytest.approx(np.sqrt(0.125 / size), rel=0.03)
        assert layer.bias.abs().max() == 0


class TestObservations:
    def test_entities_alone(self):
        network = encoder(entities(3, 2))
        assert network.total_enc_size == 128
        assert network.x_self_encoder is None
        assert network([torch.randn(4, 3, 2)]).shape == (4, 128)

    @pytest.mark.parametrize("present", [0, 2])
    def test_entities_of_each_observation_are_seen_beside_what_else_there_is(self, present):
        network = encoder(entities(3, 2), vector_observation(4, "self"), entities(2, 5))
        observations = [torch.zeros(1, 3, 2), torch.randn(1, 4), torch.zeros(1, 2, 5)]
        observations[present].normal_()
        attended = network(observations)[:, 4:]
        observations[1] += 1
        assert (network(observations)[:, 4:] - attended).abs().max() > 1e-3

    def test_entities_of_several_observations_are_attended_to_together(self):
        network = encoder(entities(3, 2), vector_observation(4, "self"), entities(2, 5))
        assert network.total_enc_size == 4 + 128
        first, beside, second = torch.randn(1, 3, 2), torch.randn(1, 4), torch.randn(1, 2, 5)
        first[:, 1] = 0
        before = network([first, beside, second])
        assert before.shape == (1, 132)
        torch.testing.assert_close(before[:, :4], beside)
        order = [2, 0, 1]
        torch.testing.assert_close(network([first[:, order], beside, second]), before, atol=1e-6, rtol=1e-5)
        for changed in ([first + 0.5, beside, second], [first, beside, second + 0.5]):
            assert (network(changed) - before).abs().max() > 1e-3

    def test_goals_of_entities_are_attended_to_by_themselves(self):
        goal = entities(2, 3, ObservationType.GOAL_SIGNAL)
        network = encoder(entities(4, 3), vector_observation(2, "self"), goal)
        assert network.total_goal_enc_size == 128
        others, beside, goals = torch.randn(3, 4, 3), torch.randn(3, 2), torch.randn(3, 2, 3)
        _, encoded = network.with_goals([others, beside, goals])
        assert encoded.shape == (3, 128)
        torch.testing.assert_close(encoded, network.get_goal_encoding([others + 1, beside, goals]))
        assert (network.get_goal_encoding([others, beside, goals + 1]) - encoded).abs().max() > 1e-3
