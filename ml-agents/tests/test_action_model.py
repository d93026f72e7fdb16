import math

import numpy as np
import pytest
import torch

from mlagents.trainers.buffer import AgentBuffer, BufferKey
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.torch_entities.action_flattener import ActionFlattener
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.action_model import ActionModel
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents_envs.base_env import ActionSpec

SPECS = [ActionSpec(2, ()), ActionSpec(0, (3, 2)), ActionSpec(2, (3, 2))]
ROWS = 7


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def masks_of(spec):
    masks = torch.ones(ROWS, sum(spec.discrete_branches))
    if spec.discrete_size:
        masks[:, 1] = 0
    return masks


def ids(spec):
    return f"{spec.continuous_size}c{spec.discrete_size}d"


@pytest.fixture(params=SPECS, ids=ids)
def spec(request):
    return request.param


def test_shapes(spec):
    model = ActionModel(8, spec)
    action, log_probs, entropy = model(torch.randn(ROWS, 8), masks_of(spec))
    assert entropy.shape == (ROWS,)
    assert log_probs.flatten().shape == (ROWS, spec.continuous_size + spec.discrete_size)
    if spec.continuous_size:
        assert action.continuous_tensor.shape == (ROWS, 2)
        assert log_probs.continuous_tensor.shape == (ROWS, 2)
    else:
        assert action.continuous_tensor is None
        assert log_probs.continuous_tensor is None
    if spec.discrete_size:
        assert [branch.shape for branch in action.discrete_list] == [(ROWS, 1), (ROWS, 1)]
        assert action.discrete_tensor.shape == (ROWS, 1, 2)
        assert action.discrete_tensor.dtype == torch.int64
        assert log_probs.discrete_tensor.shape == (ROWS, 2)
        assert log_probs.all_discrete_tensor.shape == (ROWS, 5)
    else:
        assert action.discrete_list is None
        assert log_probs.discrete_list is None


def test_acting_and_evaluating_agree(spec):
    model, inputs, masks = ActionModel(8, spec), torch.randn(ROWS, 8), masks_of(spec)
    action, log_probs, entropy = model(inputs, masks)
    evaluated, evaluated_entropy = model.evaluate(inputs, masks, action)
    assert torch.equal(evaluated.flatten(), log_probs.flatten())
    assert torch.equal(evaluated_entropy, entropy)


def test_entropy_averages_continuous_actions_and_sums_branches():
    """Fresh heads with zero input: unit normals (1.4189385 each) and uniform branches (ln 3 and ln 2)."""
    _, _, entropy = ActionModel(8, SPECS[2])(torch.zeros(1, 8), None)
    assert entropy.item() == pytest.approx(1.4189385 + math.log(3) + math.log(2), rel=1e-6)


def test_a_deterministic_model_repeats_the_best_action():
    model, inputs = ActionModel(8, SPECS[2], deterministic=True), torch.randn(ROWS, 8)
    first, _, _ = model(inputs, masks_of(SPECS[2]))
    second, _, _ = model(inputs, masks_of(SPECS[2]))
    dists = model._get_dists(inputs, masks_of(SPECS[2]))
    assert torch.equal(first.continuous_tensor, second.continuous_tensor)
    assert torch.equal(first.continuous_tensor, dists.continuous.mean)
    for branch, dist in zip(first.discrete_list, dists.discrete):
        assert torch.equal(branch[:, 0], dist.probs.argmax(dim=1))


def test_exported_actions_are_clipped_unless_squashed():
    model, inputs = ActionModel(8, SPECS[0]), torch.randn(ROWS, 8)
    with torch.no_grad():
        model._continuous_distribution.mu.bias.copy_(torch.tensor([1.5, -40.0]))
        model._continuous_distribution.mu.weight.zero_()
        exported = model.get_action_out(inputs, None)
    np.testing.assert_allclose(exported.deterministic_continuous, [[0.5, -1.0]] * ROWS)
    assert torch.all(exported.continuous[:, 1] == -1.0)
    assert exported.discrete is None

    squashed = ActionModel(8, SPECS[0], tanh_squash=True)
    squashed.load_state_dict(model.state_dict())
    best = squashed.get_action_out(inputs, None).deterministic_continuous.detach()
    np.testing.assert_allclose(best, [[math.tanh(1.5), math.tanh(-40)]] * ROWS, rtol=1e-6)
    assert not squashed.clip_action


def test_a_specification_without_actions_is_an_error():
    with pytest.raises(UnityTrainerException, match="no actions"):
        ActionModel(8, ActionSpec(0, ()))


def test_actions_for_the_environment():
    action = AgentAction(torch.tensor([[1.5, -9.0]]), [torch.tensor([[2]]), torch.tensor([[0]])])
    clipped = action.to_action_tuple(clip=True)
    assert clipped.continuous.tolist() == [[0.5, -1.0]]
    assert clipped.discrete.tolist() == [[2, 0]]
    assert clipped.discrete.dtype == np.int32
    assert action.to_action_tuple().continuous.tolist() == [[1.5, -9.0]]
    from_buffer = AgentAction(None, [torch.tensor([2, 1]), torch.tensor([0, 1])]).to_action_tuple()
    assert from_buffer.discrete.tolist() == [[2, 0], [1, 1]]
    assert from_buffer.continuous.shape == (2, 0)


def test_slices_of_actions():
    action = AgentAction(torch.arange(8.0).reshape(4, 2), [torch.arange(4)])
    part = action.slice(1, 3)
    assert part.continuous_tensor.tolist() == [[2, 3], [4, 5]]
    assert part.discrete_list[0].tolist() == [1, 2]
    assert AgentAction(action.continuous_tensor, None).slice(0, 1).discrete_list is None


@pytest.mark.parametrize("shape", [(2,), (2, 1)], ids=["from a buffer", "sampled"])
def test_flattened_actions(shape):
    spec = ActionSpec(1, (3, 2))
    discrete = [torch.tensor([2, 0]).reshape(shape), torch.tensor([0, 1]).reshape(shape)]
    flattener = ActionFlattener(spec)
    flat = flattener.forward(AgentAction(torch.tensor([[0.5], [-4.0]]), discrete))
    assert flat.tolist() == [[0.5, 0, 0, 1, 1, 0], [-4.0, 1, 0, 0, 0, 1]]
    assert flattener.flattened_size == 6


def test_what_a_buffer_holds():
    buffer = AgentBuffer()
    buffer[BufferKey.CONTINUOUS_ACTION] = np.array([[1.0], [2.0]], dtype=np.float32)
    buffer[BufferKey.DISCRETE_ACTION] = np.array([[2, 0], [1, 1]], dtype=np.int32)
    buffer[BufferKey.CONTINUOUS_LOG_PROBS] = np.array([[-1.0], [-2.0]], dtype=np.float32)
    buffer[BufferKey.DISCRETE_LOG_PROBS] = np.array([[-3.0, -4.0], [-5.0, -6.0]], dtype=np.float32)
    action, log_probs = AgentAction.from_buffer(buffer), ActionLogProbs.from_buffer(buffer)
    assert action.continuous_tensor.tolist() == [[1], [2]]
    assert [branch.tolist() for branch in action.discrete_list] == [[2, 1], [0, 1]]
    assert action.discrete_tensor.dtype == torch.int64
    assert log_probs.flatten().tolist() == [[-1, -3, -4], [-2, -5, -6]]
    assert log_probs.all_discrete_list is None
    as_arrays = log_probs.to_log_probs_tuple()
    assert as_arrays.continuous.tolist() == [[-1], [-2]]
    assert as_arrays.discrete.tolist() == [[-3, -4], [-5, -6]]
    assert as_arrays.discrete.dtype == np.float32


def test_kinds_of_action_that_a_buffer_holds_with_width_zero():
    buffer = AgentBuffer()
    for key in (BufferKey.CONTINUOUS_ACTION, BufferKey.CONTINUOUS_LOG_PROBS):
        buffer[key] = np.ones((3, 2), dtype=np.float32)
    for key in (BufferKey.DISCRETE_ACTION, BufferKey.DISCRETE_LOG_PROBS):
        buffer[key] = np.ones((3, 0), dtype=np.float32)
    assert AgentAction.from_buffer(buffer).to_action_tuple().discrete.shape == (3, 0)
    assert ActionLogProbs.from_buffer(buffer).flatten().shape == (3, 2)
    assert AgentAction.from_buffer(AgentBuffer()) == (None, None)
    assert len(ActionLogProbs.from_buffer(AgentBuffer()).flatten()) == 0
