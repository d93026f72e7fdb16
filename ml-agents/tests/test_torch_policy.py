"""`TorchPolicy`: with our own networks, and with those that plug-ins bring or put together."""

import warnings

import numpy as np
import pytest
import torch

from mlagents.torch_utils import nn
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.networks import SharedActorCritic, SimpleActor
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, vector_observation
from mlagents_envs.exception import UnityPolicyException

SPECS = [vector_observation(4, "position"), vector_observation(3, "speed")]
ACTION_SPECS = {
    "continuous": ActionSpec(2, ()),
    "discrete": ActionSpec(0, (3, 2)),
    "hybrid": ActionSpec(2, (3,)),
}
KWARGS = {"conditional_sigma": False, "tanh_squash": False}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(params=ACTION_SPECS)
def action_spec(request):
    return ACTION_SPECS[request.param]


def make_policy(action_spec, actor_cls=SimpleActor, actor_kwargs=KWARGS, **settings):
    network_settings = NetworkSettings(**{"hidden_units": 16, **settings})
    return TorchPolicy(1, BehaviorSpec(SPECS, action_spec), network_settings, actor_cls, dict(actor_kwargs))


def decisions(n_agents=5, action_mask=None, scale=1.0):
    rng = np.random.default_rng(2)
    return DecisionSteps(
        obs=[(scale * rng.standard_normal((n_agents, *spec.shape))).astype(np.float32) for spec in SPECS],
        reward=np.zeros(n_agents, dtype=np.float32),
        agent_id=np.arange(10, 10 + n_agents, dtype=np.int32),
        action_mask=action_mask,
        group_id=np.zeros(n_agents, dtype=np.int32),
        group_reward=np.zeros(n_agents, dtype=np.float32),
    )


def act_in_torch(policy, steps, masks=None):
    with torch.no_grad():
        action, run_out, _ = policy.actor.get_action_and_stats([torch.from_numpy(o) for o in steps.obs], masks=masks)
    return action.to_action_tuple(), run_out


def assert_equals_torch(policy, steps=None):
    """Compare with what the actor's own method gives; the policy has to be deterministic."""
    steps = steps or decisions()
    decision = policy.get_action(steps)
    action, run_out = act_in_torch(policy, steps)
    np.testing.assert_allclose(decision.action.continuous, action.continuous, atol=1e-5)
    np.testing.assert_array_equal(decision.action.discrete, action.discrete)
    np.testing.assert_allclose(decision.env_action.continuous, run_out["env_action"].continuous, atol=1e-5)


class PlainActor(nn.Module):
    """An actor as plug-ins write them: none of our classes, no log-probabilities, and it keeps what it computed."""

    def __init__(self, observation_specs, network_settings, action_spec, gain=1.0):
        super().__init__()
        self.action_spec = action_spec
        self.layer = nn.Linear(sum(spec.shape[0] for spec in observation_specs), action_spec.continuous_size)
        self.head = nn.Linear(self.layer.out_features, 1)
        self.gain = gain
        self.kept, self.masks, self.modes = [], [], []

    def update_normalization(self, buffer):
        pass

    def get_action_and_stats(self, inputs, masks=None, memories=None):
        self.masks.append(masks)
        self.modes.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        continuous = self.gain * self.layer(torch.cat(inputs, dim=1))
        self.kept.append(continuous)
        branches = [torch.zeros(len(continuous), 1, dtype=torch.long) for _ in self.action_spec.discrete_branches]
        action = AgentAction(continuous, branches or None)
        return action, {"env_action": action.to_action_tuple(clip=False)}, memories


def test_the_actor_is_made_from_the_specification_the_settings_and_the_keywords():
    policy = make_policy(ActionSpec(2, ()), PlainActor, {"gain": 3.0})
    assert isinstance(policy.actor, PlainActor)
    assert policy.actor.gain == 3.0
    assert policy.actor.action_spec == ActionSpec(2, ())
    assert policy.seed == 1
    assert policy.behavior_spec.observation_specs == SPECS
    assert policy.network_settings.hidden_units == 16
    assert (policy.use_recurrent, policy.m_size, policy.sequence_length) == (False, 0, 1)
    assert policy.get_modules().keys() == {"Policy", "global_step"}
    assert policy.get_modules()["Policy"] is policy.actor


@pytest.mark.parametrize("actor_cls", [SimpleActor, SharedActorCritic])
def test_a_decision(action_spec, actor_cls):
    extra = {"stream_names": ["extrinsic"]} if actor_cls is SharedActorCritic else {}
    policy = make_policy(action_spec, actor_cls, {**KWARGS, **extra})
    steps = decisions()
    decision = policy.get_action(steps)
    assert list(decision.agent_ids) == [10, 11, 12, 13, 14]
    assert decision.outputs.keys() == {"action", "env_action", "log_probs", "entropy"}
    assert decision.outputs["entropy"].shape == (5,)
    assert decision.outputs["log_probs"].continuous.shape == (5, action_spec.continuous_size)
    assert decision.outputs["log_probs"].discrete.shape == (5, action_spec.discrete_size)
    for actions in (decision.action, decision.env_action):
        action_spec.check(actions, 5, "Ball")
        assert actions.continuous.dtype == np.float32
        assert actions.discrete.dtype == np.int32
    assert np.all(decision.action.discrete < np.array(action_spec.discrete_branches))


def test_both_paths_decide_alike(action_spec):
    """Ours in NumPy, and the one for other actors, which a forward hook is enough to bring about."""
    policy = make_policy(action_spec, deterministic=True, normalize=True)
    masks = [np.zeros((5, size), dtype=bool) for size in action_spec.discrete_branches]
    for mask in masks:
        mask[:, 0] = True
    steps = decisions(action_mask=masks or None)
    fast = policy.get_action(steps)
    policy.actor.action_model.register_forward_hook(lambda module, args, output: None)
    plain = policy.get_action(steps)
    for one, other in [(fast.action, plain.action), (fast.env_action, plain.env_action)]:
        np.testing.assert_allclose(one.continuous, other.continuous, atol=1e-5)
        np.testing.assert_array_equal(one.discrete, other.discrete)
    assert fast.outputs.keys() == plain.outputs.keys()
    np.testing.assert_allclose(fast.outputs["entropy"], plain.outputs["entropy"], atol=1e-5)
    for half in ("continuous", "discrete"):
        one, other = (getattr(decision.outputs["log_probs"], half) for decision in (fast, plain))
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-5)
    if masks:
        assert (fast.action.discrete != 0).all()


def test_the_environment_gets_actions_clipped_and_scaled_and_learning_gets_them_as_drawn():
    policy = make_policy(ActionSpec(2, ()))
    with torch.no_grad():
        policy.actor.action_model._continuous_distribution.mu.bias.copy_(torch.tensor([1.5, -30.0]))
        policy.actor.action_model._continuous_distribution.log_sigma.fill_(-20.0)
        policy.actor.action_model._continuous_distribution.mu.weight.zero_()
    decision = policy.get_action(decisions())
    np.testing.assert_allclose(decision.action.continuous, [[1.5, -30.0]] * 5, rtol=1e-6)
    np.testing.assert_allclose(decision.env_action.continuous, [[0.5, -1.0]] * 5, rtol=1e-6)


def test_squashed_actions_go_to_the_environment_as_they_are():
    policy = make_policy(ActionSpec(2, ()), actor_kwargs={"conditional_sigma": True, "tanh_squash": True})
    decision = policy.get_action(decisions(scale=100.0))
    np.testing.assert_array_equal(decision.action.continuous, decision.env_action.continuous)
    assert np.abs(decision.action.continuous).max() <= 1.0


def test_forbidden_choices_are_never_made():
    policy = make_policy(ActionSpec(0, (3, 2)))
    masks = [np.tile([True, False, True], (400, 1)), np.tile([False, False], (400, 1))]
    chosen = policy.get_action(decisions(400, masks)).action.discrete
    assert (chosen[:, 0] == 1).all()
    assert set(chosen[:, 1]) == {0, 1}


def test_nobody_waits():
    policy = make_policy(ActionSpec(2, (3,)), PlainActor, {})
    decision = policy.get_action(DecisionSteps.empty(policy.behavior_spec))
    assert len(decision.agent_ids) == 0
    assert decision.outputs == {}
    assert policy.actor.kept == []


# Plug-ins.


def test_a_plain_module_acts_and_may_lack_log_probs_and_entropy():
    policy = make_policy(ActionSpec(2, ()), PlainActor, {})
    decision = policy.get_action(decisions())
    assert decision.outputs.keys() == {"action", "env_action"}
    np.testing.assert_array_equal(decision.action.continuous, policy.actor.kept[0].numpy())
    np.testing.assert_array_equal(decision.env_action.continuous, policy.actor.kept[0].numpy())


def test_what_a_plug_in_keeps_while_acting_may_be_learned_from():
    """Tensors made under `inference_mode` may not."""
    policy = make_policy(ActionSpec(2, ()), PlainActor, {})
    policy.get_action(decisions())
    assert policy.actor.modes == [(False, False)]
    policy.actor.head(policy.actor.kept[0]).sum().backward()
    np.testing.assert_allclose(policy.actor.head.weight.grad[0], policy.actor.kept[0].sum(dim=0), rtol=1e-6)


def test_a_plug_in_gets_masks_of_ones_where_nothing_is_forbidden():
    policy = make_policy(ActionSpec(1, (3, 2)), PlainActor, {})
    policy.get_action(decisions())
    assert torch.equal(policy.actor.masks[0], torch.ones(5, 5))
    forbidden = [np.zeros((5, 3), dtype=bool), np.zeros((5, 2), dtype=bool)]
    forbidden[0][1, 2] = forbidden[1][4, 0] = True
    policy.get_action(decisions(action_mask=forbidden))
    allowed = torch.ones(5, 5)
    allowed[1, 2] = allowed[4, 3] = 0.0
    assert torch.equal(policy.actor.masks[1], allowed)


def test_a_plug_in_without_branches_gets_no_masks():
    policy = make_policy(ActionSpec(2, ()), PlainActor, {})
    policy.get_action(decisions())
    assert policy.actor.masks == [None]


def test_observations_may_be_read_only():
    policy, steps = make_policy(ActionSpec(2, ()), PlainActor, {}), decisions()
    for column in steps.obs:
        column.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy.get_action(steps)


class Blind(nn.Module):
    """A body with nothing but its method."""

    def forward(self, inputs, actions=None, memories=None, sequence_length=1):
        return torch.zeros(len(inputs[0]), 16), memories


class Still(nn.Module):
    """An action model that is none of ours."""

    clip_action = False

    def forward(self, inputs, masks):
        log_probs = ActionLogProbs(torch.zeros(len(inputs), 2), None, None)
        return AgentAction(torch.full((len(inputs), 2), 7.0), None), log_probs, torch.zeros(len(inputs))


REASSIGNMENTS = {
    "actor": lambda policy: setattr(policy, "actor", make_policy(ActionSpec(2, ()), deterministic=True).actor),
    "body of ours": lambda policy: setattr(
        policy.actor, "network_body", make_policy(ActionSpec(2, ())).actor.network_body
    ),
    "body of the plug-in": lambda policy: setattr(policy.actor, "network_body", Blind()),
    "action model of ours": lambda policy: setattr(
        policy.actor, "action_model", make_policy(ActionSpec(2, ()), deterministic=True).actor.action_model
    ),
    "action model of the plug-in": lambda policy: setattr(policy.actor, "action_model", Still()),
    "clip_action": lambda policy: setattr(policy.actor.action_model, "clip_action", False),
}


@pytest.mark.parametrize("what", REASSIGNMENTS)
def test_what_is_reassigned_is_read_at_each_use(what):
    policy = make_policy(ActionSpec(2, ()), deterministic=True)
    before = policy.get_action(decisions())
    assert_equals_torch(policy)
    REASSIGNMENTS[what](policy)
    after = policy.get_action(decisions())
    assert not np.allclose(before.env_action.continuous, after.env_action.continuous, atol=1e-3)
    assert_equals_torch(policy)


def test_constants_and_sizes_may_be_reassigned():
    policy = make_policy(ActionSpec(2, ()), deterministic=True)
    policy.get_action(decisions())
    policy.use_recurrent, policy.m_size = True, 1
    policy.actor.encoding_size = 99
    policy.actor.version_number = nn.Parameter(torch.tensor([2.0]), requires_grad=False)
    policy.actor.memory_size_vector = nn.Parameter(torch.tensor([1.0]), requires_grad=False)
    assert policy.export_memory_size == 1
    assert_equals_torch(policy)
    np.testing.assert_array_equal(policy.get_action(decisions()).outputs["memory_in"], np.zeros((5, 1)))
    version_number, memory_size, *_ = policy.actor([torch.from_numpy(values) for values in decisions().obs])
    assert (version_number.item(), memory_size.item()) == (2.0, 1.0)


# Parameters and steps.


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("in_numpy", [True, False])
def test_parameters_that_are_not_finite_raise(action_spec, bad, in_numpy):
    policy = make_policy(action_spec)
    if not in_numpy:
        policy.actor.action_model.register_forward_hook(lambda module, args, output: None)
    policy.get_action(decisions())
    with torch.no_grad():
        for parameter in policy.actor.network_body.parameters():
            parameter.fill_(bad)
    with pytest.raises(UnityPolicyException, match="NaN"), np.errstate(invalid="ignore"):
        policy.get_action(decisions())


def test_weights_go_round(action_spec):
    source = make_policy(action_spec, deterministic=True, normalize=True)
    target = make_policy(action_spec, deterministic=True, normalize=True)
    source.actor.network_body.processors[0].update_normalization(3.0 + torch.randn(9, 4))
    target.get_action(decisions())
    expected = source.get_action(decisions())
    weights = source.get_weights()
    target.init_load_weights()
    target.load_weights(weights)
    for one, other in zip(target.get_weights(), weights):
        np.testing.assert_array_equal(one, other)
    loaded = target.get_action(decisions())
    np.testing.assert_array_equal(loaded.action.continuous, expected.action.continuous)
    np.testing.assert_array_equal(loaded.action.discrete, expected.action.discrete)
    np.testing.assert_array_equal(loaded.outputs["entropy"], expected.outputs["entropy"])


def test_weights_are_copies():
    policy = make_policy(ActionSpec(2, ()))
    weights = policy.get_weights()
    kept = [weight.copy() for weight in weights]
    with torch.no_grad():
        for parameter in policy.actor.parameters():
            parameter.add_(1.0)
    for weight, expected in zip(weights, kept):
        np.testing.assert_array_equal(weight, expected)


def test_steps_are_counted():
    policy = make_policy(ActionSpec(2, ()))
    assert policy.get_current_step() == 0
    assert policy.increment_step(12) == 12
    assert policy.increment_step(3) == 15
    assert policy.get_current_step() == 15
    assert policy.set_step(2**31) == 2**31
    assert policy.increment_step(1) == 2**31 + 1
    assert int(policy.get_modules()["global_step"].current_step) == 2**31 + 1
