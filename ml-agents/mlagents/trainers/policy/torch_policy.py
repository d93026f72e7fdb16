"""A policy whose actor is a torch module."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import numpy as np

from mlagents.torch_utils import default_device, torch
from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.policy.policy import Policy
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.array_inference import ArrayActor, ArrayCache
from mlagents.trainers.torch_entities.networks import GlobalSteps
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents_envs.base_env import BehaviorSpec, DecisionSteps
from mlagents_envs.timers import timed

EPSILON = 1e-7


class TorchPolicy(Policy):
    """Acts with ``actor_cls(observation_specs, network_settings, action_spec, **actor_kwargs)``.

    :param seed: kept for plug-ins; a run seeds torch once.
    :param behavior_spec: what the agents observe and how they act.
    :param actor_cls: a `torch.nn.Module` with the methods of `Actor`.
    """

    def __init__(
        self,
        seed: int,
        behavior_spec: BehaviorSpec,
        network_settings: NetworkSettings,
        actor_cls: type,
        actor_kwargs: Dict[str, Any],
    ):
        super().__init__(seed, behavior_spec, network_settings)
        self.global_step = GlobalSteps()
        self.stats_name_to_update_name = {"Losses/Value Loss": "value_loss", "Losses/Policy Loss": "policy_loss"}
        self.actor: Any = actor_cls(
            observation_specs=behavior_spec.observation_specs,
            network_settings=network_settings,
            action_spec=behavior_spec.action_spec,
            **actor_kwargs,
        )
        self.actor.to(default_device())
        self._array_actor = ArrayCache(ArrayActor)

    @property
    def export_memory_size(self) -> int:
        """Floats of memory per agent that an exported model needs."""
        return self.m_size

    def _allowed_choices(self, decision_requests: DecisionSteps) -> Optional[np.ndarray]:
        """Return what is allowed, 1 or 0, flat over branches (N, sum of branches); None where nothing is forbidden."""
        forbidden = decision_requests.action_mask
        if forbidden is None or not self.behavior_spec.action_spec.discrete_size:
            return None
        allowed: np.ndarray = 1.0 - np.concatenate(forbidden, axis=1).astype(np.float32)
        return allowed

    @timed
    def evaluate(
        self, decision_requests: DecisionSteps, global_agent_ids: Optional[List[str]] = None
    ) -> Dict[str, Any]:
        """Run the actor on N agents.

        :returns: what the actor gave (``env_action``, and where it has them ``log_probs`` and ``entropy``), as
            NumPy, and ``action``, the actions to learn from.
        """
        allowed = self._allowed_choices(decision_requests)
        arrays = self._array_actor.get(self.actor)
        if arrays is not None:
            return arrays.act(decision_requests.obs, allowed)._asdict()
        return self._evaluate_in_torch(decision_requests, allowed)

    def _evaluate_in_torch(self, decision_requests: DecisionSteps, allowed: Optional[np.ndarray]) -> Dict[str, Any]:
        """Run the actor's own method, under `no_grad`: a plug-in's actor may keep tensors until the next update."""
        device = default_device()
        obs = [ModelUtils.list_to_tensor(values) for values in decision_requests.obs]
        masks = None
        branches = self.behavior_spec.action_spec.discrete_branches
        if branches:
            if allowed is None:
                allowed = np.ones((len(decision_requests), sum(branches)), dtype=np.float32)
            masks = torch.as_tensor(allowed, device=device)
        with torch.no_grad():
            action, outputs, _ = self.actor.get_action_and_stats(obs, masks=masks, memories=None)
        run_out: Dict[str, Any] = outputs
        run_out["action"] = action.to_action_tuple()
        if "log_probs" in run_out:
            run_out["log_probs"] = run_out["log_probs"].to_log_probs_tuple()
        if "entropy" in run_out:
            run_out["entropy"] = ModelUtils.to_numpy(run_out["entropy"])
        return run_out

    def get_action(self, decision_requests: DecisionSteps, worker_id: int = 0) -> ActionInfo:
        """Decide for every agent of `decision_requests`.

        :raises UnityPolicyException: the actor's output is NaN.
        """
        if not len(decision_requests):
            return ActionInfo.empty()
        run_out = self.evaluate(decision_requests)
        self.check_nan_action(run_out["action"])
        if "entropy" in run_out and not np.isfinite(run_out["entropy"]).all():
            self._raise_not_finite()  # choices cannot be NaN, but their probabilities can
        return ActionInfo(
            action=run_out["action"],
            env_action=run_out["env_action"],
            outputs=run_out,
            agent_ids=decision_requests.agent_id,  # type: ignore[arg-type]  # an array reads as a sequence
        )

    def get_current_step(self) -> int:
        """Return the steps of training so far."""
        return int(self.global_step.current_step)

    def set_step(self, step: int) -> int:
        """Set the steps of training so far."""
        self.global_step.current_step = step
        return step

    def increment_step(self, n_steps: int) -> int:
        """Count `n_steps` more steps of training and return all so far."""
        self.global_step.increment(n_steps)
        return self.get_current_step()

    def load_weights(self, values: List[np.ndarray]) -> None:
        """Set the actor's parameters and buffers from what `get_weights` gave."""
        names = self.actor.state_dict().keys()
        state = {name: torch.from_numpy(np.array(value)) for name, value in zip(names, values)}
        self.actor.load_state_dict(state)

    def init_load_weights(self) -> None:
        """Nothing to prepare."""

    def get_weights(self) -> List[np.ndarray]:
        """Return copies of the actor's parameters and buffers, in the order of its state dict."""
        return [tensor.detach().cpu().numpy().copy() for tensor in self.actor.state_dict().values()]

    def get_modules(self) -> Dict[str, Any]:
        """Return what of the policy belongs into a checkpoint."""
        return {"Policy": self.actor, "global_step": self.global_step}
