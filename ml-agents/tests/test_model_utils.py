import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from mlagents.torch_utils import nn
from mlagents.trainers.buffer import AgentBufferField
from mlagents.trainers.settings import ScheduleType
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.utils import ModelUtils


def scalar(tensor):
    assert tensor.shape == ()
    return tensor.item()


@pytest.mark.parametrize(
    ("step", "learning_rate", "epsilon"),
    [(0, 3e-4, 0.2), (50_000, 2.25e-4, 0.175), (100_000, 1.5e-4, 0.15), (200_000, 1e-10, 0.1), (300_000, 1e-10, 0.1)],
)
def test_linear_schedules_by_hand(step, learning_rate, epsilon):
    """Over 200,000 steps, from 3e-4 to 1e-10 and from 0.2 to 0.1."""
    rate = ModelUtils.DecayedValue(ScheduleType.LINEAR, 3e-4, 1e-10, 200_000)
    assert rate.get_value(step) == pytest.approx(learning_rate, rel=1e-6)
    clip = ModelUtils.DecayedValue(ScheduleType.LINEAR, 0.2, 0.1, 200_000)
    assert clip.get_value(step) == pytest.approx(epsilon)


def test_a_constant_schedule_stays():
    value = ModelUtils.DecayedValue(ScheduleType.CONSTANT, 0.2, 0.1, 100)
    assert [value.get_value(step) for step in (0, 50, 1000)] == [0.2, 0.2, 0.2]


def test_polynomial_decay_by_hand():
    """Half of the way, squared: a quarter of 8 above 2."""
    assert ModelUtils.polynomial_decay(10.0, 2.0, 100, 50, power=2.0) == pytest.approx(4.0)


def test_the_learning_rate_reaches_all_parameters():
    groups = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.5}]
    optimizer = torch.optim.Adam(groups, lr=0.1)
    ModelUtils.update_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


# -- columns to tensors


def test_a_float32_array_is_shared_not_copied():
    array = np.zeros((4, 3), dtype=np.float32)
    tensor = ModelUtils.list_to_tensor(array[1:3])
    array[2, 0] = 7
    assert tensor[1, 0] == 7


def test_a_field_is_shared_not_copied():
    field = AgentBufferField([np.zeros(3, dtype=np.float32)] * 5)
    tensor = ModelUtils.list_to_tensor(field)
    field.to_ndarray()[4, 2] = 7
    assert tensor.shape == (5, 3)
    assert tensor[4, 2] == 7


@pytest.mark.parametrize(
    "data",
    [[np.array([1.0, 2.0]), np.array([3.0, 4.0])], [[1, 2], [3, 4]], np.array([[1.0, 2.0], [3.0, 4.0]])],
    ids=["list of float64 arrays", "lists of integers", "float64"],
)
def test_other_data_become_float32(data):
    tensor = ModelUtils.list_to_tensor(data)
    assert tensor.dtype == torch.float32
    assert tensor.tolist() == [[1, 2], [3, 4]]


def test_the_type_asked_for():
    assert ModelUtils.list_to_tensor([1.0, 0.0], dtype=torch.bool).tolist() == [True, False]
    assert ModelUtils.list_to_tensor(np.array([3], dtype=np.int32), dtype=torch.long).dtype == torch.int64
    assert ModelUtils.list_to_tensor(np.array([3], dtype=np.int16), dtype=None).dtype == torch.int16


@pytest.mark.filterwarnings("error")
def test_arrays_that_torch_cannot_share_are_copied():
    read_only = np.arange(3, dtype=np.float32)
    read_only.flags.writeable = False
    assert ModelUtils.list_to_tensor(read_only).tolist() == [0, 1, 2]
    assert ModelUtils.list_to_tensor(np.arange(3.0)[::-1]).tolist() == [2, 1, 0]


def test_entries_of_different_lengths():
    tensors = ModelUtils.list_to_tensor_list([np.zeros((2, 3)), np.ones((1, 3))])
    assert [tensor.shape for tensor in tensors] == [(2, 3), (1, 3)]
    assert tensors[1].dtype == torch.float32


def test_to_numpy_leaves_the_graph():
    array = ModelUtils.to_numpy(nn.Parameter(torch.ones(2)) * 3)
    assert isinstance(array, np.ndarray)
    assert array.tolist() == [3, 3]


# -- branches


def test_breaking_into_branches():
    branches = ModelUtils.break_into_branches(torch.arange(12).reshape(2, 6), [3, 1, 2])
    assert [branch.tolist() for branch in branches] == [[[0, 1, 2], [6, 7, 8]], [[3], [9]], [[4, 5], [10, 11]]]


def test_one_hot_actions():
    first, second = ModelUtils.actions_to_onehot(torch.tensor([[2, 0], [0, 1]], dtype=torch.int32), [3, 2])
    assert first.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert second.tolist() == [[1, 0], [0, 1]]
    assert first.dtype == torch.float32


def test_dynamic_partition():
    parts = ModelUtils.dynamic_partition(torch.arange(4) * 10, torch.tensor([1, 0, 1, 3]), 4)
    assert [part.tolist() for part in parts] == [[10], [0, 20], [], [30]]


def test_soft_update():
    source, target = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        source.weight.fill_(10.0)
        target.weight.fill_(2.0)
    ModelUtils.soft_update(source, target, 0.25)
    assert target.weight.item() == pytest.approx(4.0)
    assert source.weight.item() == 10.0
    assert target.weight.grad_fn is None
    ModelUtils.soft_update(source, target, 1.0)
    assert torch.equal(target.bias, source.bias)


# -- losses


def test_masked_mean_by_hand():
    values = torch.tensor([1.0, 2.0, 6.0])
    masks = torch.tensor([True, False, True])
    assert scalar(ModelUtils.masked_mean(values, masks)) == 3.5
    assert scalar(ModelUtils.masked_mean(values, None)) == 3.0
    per_action = torch.tensor([[1.0, 3.0], [9.0, 9.0], [6.0, 8.0]])
    assert scalar(ModelUtils.masked_mean(per_action, masks)) == 4.5
    assert scalar(ModelUtils.masked_mean(per_action, masks.float())) == 4.5
    assert scalar(ModelUtils.masked_mean(values, torch.zeros(3))) == 0.0


def value_loss(values, old_values, returns, epsilon=0.2, masks=None):
    arguments = [{"extrinsic": torch.as_tensor(data)} for data in (values, old_values, returns)]
    return ModelUtils.trust_region_value_loss(*arguments, epsilon, masks)


@pytest.mark.parametrize(
    ("value", "old_value", "target", "loss"),
    [
        (1.1, 1.0, 2.0, 0.81),  # within the region: (2 - 1.1)^2
        (1.5, 1.0, 2.0, 0.64),  # moved too far up: (2 - 1.2)^2 although (2 - 1.5)^2 is less
        (0.5, 1.0, 0.0, 0.64),  # moved too far down: (0 - 0.8)^2
        (1.5, 1.0, 0.0, 2.25),  # moved away from the target: the plain error is the greater one
        (1.5, 1.0, 1.0, 0.25),  # the target is the old value
    ],
)
def test_clipped_value_loss_by_hand(value, old_value, target, loss):
    assert scalar(value_loss([value], [old_value], [target])) == pytest.approx(loss, rel=1e-5)


def test_value_loss_averages_rows_and_streams():
    values = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0, 0.0])}
    returns = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([0.0, 1.0])}
    loss = ModelUtils.trust_region_value_loss(values, values, returns, 0.2, None)
    assert scalar(loss) == pytest.approx((2.0 + 0.5) / 2)


def test_no_gradient_where_the_value_has_moved_as_far_as_it_may():
    values = torch.tensor([1.5, 1.1], requires_grad=True)
    value_loss(values, [1.0, 1.0], [2.0, 2.0]).backward()
    assert values.grad.tolist() == pytest.approx([0.0, -0.9])


def policy_loss(ratios, advantages, epsilon=0.2, masks=None):
    new = torch.log(torch.as_tensor(ratios, dtype=torch.float32))
    old = torch.zeros_like(new)
    return ModelUtils.trust_region_policy_loss(torch.as_tensor(advantages), new, old, masks, epsilon)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.1, 2.0, -2.2),  # within the region
        (1.5, 2.0, -2.4),  # clipped above: 1.2 * 2
        (0.5, 2.0, -1.0),  # a good action became less probable: the plain objective is the lesser
        (1.5, -2.0, 3.0),  # a bad action became more probable: likewise
        (0.5, -2.0, 1.6),  # clipped below: 0.8 * -2
    ],
)
def test_clipped_policy_loss_by_hand(ratio, advantage, loss):
    assert scalar(policy_loss([[ratio]], [advantage])) == pytest.approx(loss, rel=1e-5)


def test_policy_loss_clips_each_action_dimension_on_its_own():
    assert scalar(policy_loss([[1.5, 1.1], [0.9, 0.5]], [1.0, 2.0])) == pytest.approx(
        -(1.2 + 1.1 + 1.8 + 1.0) / 4, rel=1e-5
    )


def test_policy_loss_takes_log_probs_as_the_actor_gives_them():
    continuous, discrete = torch.tensor([[-1.0], [-2.0]]), torch.tensor([-0.5, -0.7])
    new = ActionLogProbs(continuous, [discrete], None)
    old = ActionLogProbs(continuous + 0.1, [discrete - 0.3], None)
    advantages = torch.tensor([1.0, -1.0])
    from_tensors = ModelUtils.trust_region_policy_loss(advantages, new.flatten(), old.flatten(), None, 0.2)
    assert torch.equal(ModelUtils.trust_region_policy_loss(advantages, new, old, None, 0.2), from_tensors)


FLOATS = st.floats(-3, 3, width=32)


@given(st_numpy.arrays(np.float32, (5, 5), elements=FLOATS), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_padding_does_not_change_a_loss(data, n_valid):
    """Rows beyond the valid ones may hold anything finite."""
    value, old_value, target, advantage, new = torch.from_numpy(data)
    masks = torch.arange(5) < n_valid
    valid = slice(0, n_valid)
    padded = value_loss(value, old_value, target, masks=masks)
    torch.testing.assert_close(padded, value_loss(value[valid], old_value[valid], target[valid]))
    ratios = torch.stack([torch.exp(new), torch.exp(-new)], dim=1)
    padded = policy_loss(ratios, advantage, masks=masks)
    torch.testing.assert_close(padded, policy_loss(ratios[valid], advantage[valid]), rtol=1e-4, atol=1e-5)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(AssertionError):
        value_loss([[1.0], [2.0]], [1.0, 2.0], [1.0, 2.0])
    with pytest.raises(AssertionError):
        policy_loss([[1.0], [2.0]], [1.0])
    with pytest.raises(AssertionError):
        ModelUtils.masked_mean(torch.zeros(3, 2), torch.ones(2))
