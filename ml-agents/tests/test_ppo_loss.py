"""The loss that PPO's gradient step follows, on what ML-Agents 1.1.0 computed from its own weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.ppo.optimizer_torch import PPOSettings, TorchPPOOptimizer
from mlagents.trainers.settings import NetworkSettings, RewardSignalSettings, RewardSignalType, TrainerSettings
from mlagents.trainers.torch_entities.components.reward_providers import ExtrinsicRewardProvider
from mlagents.trainers.torch_entities.components.reward_providers.reward_provider_factory import NAME_TO_CLASS
from mlagents.trainers.torch_entities.networks import SharedActorCritic, SimpleActor
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, vector_observation

GOLDEN = Path(__file__).parent / "data" / "golden"
GOLDEN_CASES = {
    "ppo_vector": (ActionSpec(2, ()), ["extrinsic"], True, False),
    "ppo_shared_discrete": (ActionSpec(0, (3, 2)), ["extrinsic"], False, True),
    "ppo_curiosity_rnd": (ActionSpec(2, (3,)), ["extrinsic", "curiosity", "rnd"], False, False),
}


def golden_batch(arrays, action_spec, streams):
    """Return the recorded inputs as a minibatch of the rows that count."""
    valid = arrays["in/loss_mask"].astype(bool)
    given = {
        name[3:]: values[valid]
        for name, values in arrays.items()
        if name.startswith("in/") and values.shape[:1] == (5,)
    }
    n_continuous, n_rows = action_spec.continuous_size, int(valid.sum())
    batch = AgentBuffer()
    batch[ObsUtil.get_name_at(0)] = given["obs_0"]
    batch[BufferKey.CONTINUOUS_ACTION] = given.get("continuous_action", np.zeros((n_rows, 0), dtype=np.float32))
    batch[BufferKey.DISCRETE_ACTION] = given.get("discrete_action", np.zeros((n_rows, 0), dtype=np.int32))
    batch[BufferKey.CONTINUOUS_LOG_PROBS] = given["old_log_prob_flat"][:, :n_continuous]
    batch[BufferKey.DISCRETE_LOG_PROBS] = given["old_log_prob_flat"][:, n_continuous:]
    batch[BufferKey.ACTION_MASK] = given.get("action_mask", np.zeros((n_rows, 0), dtype=np.float32))
    batch[BufferKey.ADVANTAGES] = given["advantage"]
    for stream in streams:
        batch[RewardSignalUtil.value_estimates_key(stream)] = given[f"old_value/{stream}"]
        batch[RewardSignalUtil.returns_key(stream)] = given[f"return/{stream}"]
    return batch, n_rows


def make_optimizer(arrays, action_spec, streams, normalize, shared):
    spec = BehaviorSpec([vector_observation(8, "obs")], action_spec)
    settings = TrainerSettings(
        hyperparameters=PPOSettings(epsilon=0.2, beta=0.005, shared_critic=shared),
        network_settings=NetworkSettings(hidden_units=32, normalize=normalize),
        reward_signals={RewardSignalType(stream): RewardSignalSettings() for stream in streams},
    )
    actor_cls, kwargs = (SharedActorCritic, {"stream_names": streams}) if shared else (SimpleActor, {})
    optimizer = TorchPPOOptimizer(TorchPolicy(0, spec, settings.network_settings, actor_cls, kwargs), settings)
    for module, network in [("Policy", optimizer.policy.actor), ("Optimizer:critic", optimizer.critic)]:
        prefix = f"state/{module}/"
        state = {k[len(prefix) :]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)}
        network.load_state_dict(state)
    return optimizer


@pytest.mark.parametrize("by_autograd", [True, False])
@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_the_loss_is_the_recorded_one(monkeypatch, name, by_autograd):
    """The record has rows that do not count; here those are left out."""
    for signal in (RewardSignalType.CURIOSITY, RewardSignalType.RND):  # only their streams of values matter here
        monkeypatch.setitem(NAME_TO_CLASS, signal, ExtrinsicRewardProvider)
    action_spec, streams, *_ = GOLDEN_CASES[name]
    arrays = dict(np.load(GOLDEN / f"{name}.npz", allow_pickle=False))
    optimizer = make_optimizer(arrays, *GOLDEN_CASES[name])
    if by_autograd:
        optimizer.loss = optimizer.loss  # an instance's own
    losses = []
    monkeypatch.setattr(optimizer, "_check", losses.append)
    stats = optimizer.update(*golden_batch(arrays, action_spec, streams))
    recorded = {part: float(arrays[f"out/loss/{part}"]) for part in ("total", "policy", "value", "entropy_mean")}
    assert stats["Losses/Policy Loss"] == pytest.approx(abs(recorded["policy"]), rel=1e-5, abs=1e-5)
    assert stats["Losses/Value Loss"] == pytest.approx(recorded["value"], rel=1e-5, abs=1e-5)
    assert stats["Policy/Entropy"] == pytest.approx(recorded["entropy_mean"], rel=1e-5, abs=1e-5)
    assert losses == [pytest.approx(recorded["total"], rel=1e-5, abs=1e-5)]
