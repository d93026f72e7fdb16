"""What SAC of ML-Agents 1.1.0 computed from its own weights, ours computes from them too, where it was right.

`data/golden/sac_hybrid.npz` holds weights, inputs (`in/`) and recorded outputs (`out/`) of B = 5 rows; `sac_hybrid.pt`
is a checkpoint that it wrote with the same weights. Its losses take the stored actions as if just sampled.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.model_saver.fitting import Part
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.sac.optimizer_torch import SACSettings, TorchSACOptimizer
from mlagents.trainers.sac.trainer import SACTrainer
from mlagents.trainers.settings import NetworkSettings, RewardSignalSettings, RewardSignalType, TrainerSettings
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, vector_observation

GOLDEN = Path(__file__).parent / "data" / "golden"
ARRAYS = dict(np.load(GOLDEN / "sac_hybrid.npz", allow_pickle=False))
HYBRID = ActionSpec(2, (3,))
MODULES = ("q_network", "value_network", "target_network")


def given(name):
    return torch.from_numpy(ARRAYS[f"in/{name}"])


def close(ours, recorded):
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
    assert ours.shape == ARRAYS[f"out/{recorded}"].shape
    np.testing.assert_allclose(ours, ARRAYS[f"out/{recorded}"], rtol=1e-5, atol=1e-5)


def settings(**changes):
    return TrainerSettings(
        hyperparameters=SACSettings(learning_rate=3e-3, tau=0.1, **changes),
        network_settings=NetworkSettings(hidden_units=32, normalize=True),
        reward_signals={RewardSignalType.EXTRINSIC: RewardSignalSettings(gamma=0.99)},
    )


def make_optimizer(action_spec):
    """Return an optimizer with the recorded weights, of the kinds of actions that `action_spec` has."""
    spec = BehaviorSpec([vector_observation(8, "obs")], HYBRID)
    actor_kwargs = {"conditional_sigma": True, "tanh_squash": True}
    policy = TorchPolicy(0, spec, settings().network_settings, SimpleActor, actor_kwargs)
    optimizer = TorchSACOptimizer(policy, settings())
    for module, prefix in [(policy.actor, "Policy")] + [
        (optimizer.get_modules()[f"Optimizer:{name}"], f"Optimizer:{name}") for name in MODULES
    ]:
        prefix = f"state/{prefix}/"
        recorded = {key[len(prefix) :]: torch.from_numpy(it) for key, it in ARRAYS.items() if key.startswith(prefix)}
        assert list(module.state_dict()) == list(recorded)
        module.load_state_dict(recorded)
    if action_spec != HYBRID:  # only the losses are then asked for, which take what networks gave
        policy.behavior_spec = BehaviorSpec(spec.observation_specs, action_spec)
        optimizer = TorchSACOptimizer(policy, settings())
    with torch.no_grad():
        if action_spec.discrete_size:
            optimizer.log_ent_coef.discrete.copy_(given("log_ent_coef_discrete"))
        optimizer.log_ent_coef.continuous.copy_(given("log_ent_coef_continuous"))
    return optimizer


@pytest.fixture
def hybrid():
    return make_optimizer(HYBRID)


def stored_actions():
    return AgentAction(given("continuous_action"), list(given("discrete_action").unbind(1)))


def log_probs(optimizer):
    """Return the recorded log-probabilities of the stored actions, by our actor."""
    return optimizer.policy.actor.get_stats([given("obs_0")], stored_actions(), masks=given("action_mask"))["log_probs"]


def q_values(optimizer):
    """Return what the two networks say of the stored continuous actions (B, 3)."""
    return optimizer.q_network([given("obs_0")], given("continuous_action"))


def test_the_actor(hybrid):
    actor = hybrid.policy.actor
    encoding, _ = actor.network_body([given("obs_0")])
    close(actor.network_body.observation_encoder([given("obs_0")]), "observation_encoding")
    close(encoding, "encoding")
    dist = actor.action_model._get_dists(encoding, given("action_mask"))
    close(dist.continuous.mean, "mean")
    close(dist.continuous.std, "std")
    stats = actor.get_stats([given("obs_0")], stored_actions(), masks=given("action_mask"))
    close(stats["log_probs"].continuous_tensor, "log_prob_continuous")
    close(stats["log_probs"].discrete_tensor, "log_prob_discrete")
    close(stats["log_probs"].all_discrete_tensor, "all_log_prob_discrete")
    close(stats["log_probs"].flatten(), "log_prob_flat")
    close(stats["entropy"], "entropy")


def test_acting_without_chance_squashes_the_mean(hybrid):
    actions = hybrid.policy.actor.action_model.get_action_out(
        hybrid.policy.actor.network_body([given("obs_0")])[0], given("action_mask")
    )
    close(actions.deterministic_discrete, "deterministic_discrete")
    np.testing.assert_allclose(
        actions.deterministic_continuous.detach().numpy(), np.tanh(ARRAYS["out/mean"]), rtol=1e-5, atol=1e-5
    )
    assert np.abs(ARRAYS["out/upstream_fault/deterministic_continuous"] - np.tanh(ARRAYS["out/mean"])).max() > 0.1


def test_values(hybrid):
    close(hybrid.critic.critic_pass([given("obs_0")])[0]["extrinsic"], "value/extrinsic")
    close(hybrid.target_network.critic_pass([given("next_obs_0")])[0]["extrinsic"], "target_value/extrinsic")
    for q, name in zip(q_values(hybrid), ("q1", "q2")):
        close(q["extrinsic"], f"{name}/extrinsic")
        close(hybrid._of_choices(q["extrinsic"], stored_actions()), f"{name}_taken/extrinsic")


def recorded(name):
    return {"extrinsic": torch.from_numpy(ARRAYS[f"out/{name}/extrinsic"])}


def test_losses_of_hybrid_actions(hybrid):
    q_losses = hybrid.sac_q_loss(
        recorded("q1_taken"),
        recorded("q2_taken"),
        recorded("target_value"),
        given("done"),
        {"extrinsic": given("reward/extrinsic")},
        None,
    )
    close(q_losses[0], "loss/q1")
    close(q_losses[1], "loss/q2")
    close(hybrid.sac_entropy_loss(log_probs(hybrid), None), "loss/entropy")


@pytest.mark.parametrize("kind", ["discrete_only", "continuous_only"])
def test_losses_of_one_kind_of_action(hybrid, kind):
    of_both = log_probs(hybrid)
    if kind == "discrete_only":
        optimizer, of_kind = make_optimizer(ActionSpec(0, (3,))), of_both._replace(continuous_tensor=None)
        q1, q2 = q_values(hybrid)
    else:
        optimizer = make_optimizer(ActionSpec(2, ()))
        of_kind = of_both._replace(discrete_list=None, all_discrete_list=None)
        q1, q2 = recorded("q1_taken"), recorded("q2_taken")
    close(optimizer.sac_value_loss(of_kind, recorded("value"), q1, q2, None), f"{kind}/loss/value")
    close(optimizer.sac_policy_loss(of_kind, q1, None), f"{kind}/loss/policy")
    close(optimizer.sac_entropy_loss(of_kind, None), f"{kind}/loss/entropy")


def test_losses_of_hybrid_actions_are_those_of_both_kinds(hybrid):
    """ML-Agents 1.1.0 adds the continuous entropy term to the value target, and subtracts Q twice from the policy's."""
    q1, q2 = q_values(hybrid)
    both = log_probs(hybrid)
    continuous = both.continuous_tensor.sum(dim=1).detach().numpy() * math.exp(given("log_ent_coef_continuous"))
    p = np.exp(both.all_discrete_tensor.detach().numpy())
    branch = math.exp(given("log_ent_coef_discrete")) * (p * np.log(p)).sum(axis=1)
    worth = [(p * q["extrinsic"].detach().numpy()).sum(axis=1) for q in (q1, q2)]
    value_loss = 0.5 * np.mean((ARRAYS["out/value/extrinsic"] - (np.minimum(*worth) - branch - continuous)) ** 2)
    assert hybrid.sac_value_loss(both, recorded("value"), q1, q2, None).item() == pytest.approx(value_loss, rel=1e-5)
    policy_loss = np.mean(continuous + branch - worth[0])
    assert hybrid.sac_policy_loss(both, q1, None).item() == pytest.approx(policy_loss, rel=1e-4, abs=1e-5)
    assert abs(value_loss - ARRAYS["out/upstream_fault/loss/value"]) > 1e-3
    assert abs(policy_loss - ARRAYS["out/upstream_fault/loss/policy"]) > 1e-3


def test_target_entropies(hybrid):
    close(hybrid.target_entropy.continuous, "target_entropy_continuous")
    close(np.array(hybrid.target_entropy.discrete), "target_entropy_discrete")


def test_a_checkpoint_of_1_1_0_resumes(tmp_path, caplog):
    """All of it, Adam's state included; the weights of the entropy, which it does not hold, start over."""
    (tmp_path / "Ball").mkdir()
    (tmp_path / "Ball" / "checkpoint.pt").write_bytes((GOLDEN / "sac_hybrid.pt").read_bytes())
    trainer = SACTrainer("Ball", 10, settings(init_entcoef=0.5), True, True, 0, str(tmp_path / "Ball"))
    identifiers = BehaviorIdentifiers.from_name_behavior_id("Ball?team=0")
    policy = trainer.create_policy(identifiers, BehaviorSpec([vector_observation(8, "obs")], HYBRID))
    trainer.add_policy(identifiers, policy)
    there = torch.load(GOLDEN / "sac_hybrid.pt", weights_only=True)
    modules = {name: it for name, it in trainer.model_saver.modules.items() if not isinstance(it, Part)}
    assert modules.keys() - there.keys() == {"Optimizer:log_ent_coef"}
    for name, state in there.items():
        ours = modules[name].state_dict()
        if "state" not in state:
            assert all(torch.equal(ours[key], tensor) for key, tensor in state.items())
        else:
            assert ours["state"].keys() == state["state"].keys()
            for index, kept in state["state"].items():
                assert all(torch.equal(ours["state"][index][key], value) for key, value in kept.items())
    assert trainer.optimizer.log_ent_coef.continuous.item() == pytest.approx(math.log(0.5))
    assert trainer.optimizer.log_ent_coef.discrete.tolist() == pytest.approx([math.log(0.5)])
    assert any("start over from init_entcoef" in message for message in caplog.messages)
