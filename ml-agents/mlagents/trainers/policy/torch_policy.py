"""A policy whose actor is a torch module."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from mlagents.torch_utils import default_device, torch
from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.behavior_id_utils import GlobalAgentIds
from mlagents.trainers.policy.agent_memories import AgentMemories
from mlagents.trainers.policy.batching import join_steps, split_decision
from mlagents.trainers.policy.policy import Policy
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.array_inference import ArrayActor
from mlagents.trainers.torch_entities.array_networks import ArrayCache
from mlagents.trainers.torch_entities.networks import GlobalSteps
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents_envs.base_env import BehaviorSpec, DecisionSteps
from mlagents_envs.exception import UnityPolicyException
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
        self._memories = AgentMemories()

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
    def evaluate(self, decision_requests: DecisionSteps, global_agent_ids: Sequence[str] = ()) -> Dict[str, Any]:
        """Run the actor on N agents; with memory, go on from what they remember and keep what they then do.

        :param global_agent_ids: whose memories they are, by `get_global_agent_id`; without, worker 0's agents'.
        :returns: what the actor gave (``env_action``, and where it has them ``log_probs`` and ``entropy``), as
            NumPy, and ``action``, the actions to learn from; with memory also ``memory_in`` (N, M), what the agents
            remembered before, and ``memory_out`` (N, M), if the actor gave any.
        :raises UnityPolicyException: the actor gave memories that are NaN or of a wrong shape.
        """
        allowed = self._allowed_choices(decision_requests)
        if self.use_recurrent:
            agents = GlobalAgentIds.of(global_agent_ids or GlobalAgentIds((0, decision_requests.agent_id)))
            return self._evaluate_with_memory(decision_requests, allowed, agents)
        arrays = self._array_actor.get(self.actor)
        if arrays is not None and not arrays.memory_size:
            return arrays.act(decision_requests.obs, allowed)._asdict()
        return self._evaluate_in_torch(decision_requests, allowed, None)[0]

    def _evaluate_with_memory(
        self, decision_requests: DecisionSteps, allowed: Optional[np.ndarray], agents: GlobalAgentIds
    ) -> Dict[str, Any]:
        memories = self._memories.get(agents, self.m_size)
        run_out: Dict[str, Any]
        after: Optional[np.ndarray] = None
        arrays = self._array_actor.get(self.actor)
        if arrays is not None and arrays.memory_size == self.m_size:
            decision, after = arrays.act_with_memory(decision_requests.obs, allowed, memories)
            run_out = decision._asdict()
        else:
            before = torch.tensor(memories[None], device=default_device())
            run_out, new_memories = self._evaluate_in_torch(decision_requests, allowed, before)
            if new_memories is not None:
                after = _memory_rows(new_memories, memories.shape)
        run_out["memory_in"] = memories
        if after is not None:
            run_out["memory_out"] = after
            if np.isnan(after).any():
                self._raise_not_finite("a memory")
            self._memories.set(agents, after)
        return run_out

    def _evaluate_in_torch(
        self, decision_requests: DecisionSteps, allowed: Optional[np.ndarray], memories: Optional[torch.Tensor]
    ) -> Tuple[Dict[str, Any], Optional[torch.Tensor]]:
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
            action, outputs, new_memories = self.actor.get_action_and_stats(obs, masks=masks, memories=memories)
        run_out: Dict[str, Any] = outputs
        run_out["action"] = action.to_action_tuple()
        if "log_probs" in run_out:
            run_out["log_probs"] = run_out["log_probs"].to_log_probs_tuple()
        if "entropy" in run_out:
            run_out["entropy"] = ModelUtils.to_numpy(run_out["entropy"])
        return run_out, new_memories

    def get_action(self, decision_requests: DecisionSteps, worker_id: int = 0) -> ActionInfo:
        """Decide for every agent of `decision_requests`; with memory, keep what they remember for the next time.

        :raises UnityPolicyException: the actor's output is NaN, or its memories have a wrong shape.
        """
        if not len(decision_requests):
            return ActionInfo.empty()
        return self._decide(decision_requests, GlobalAgentIds((worker_id, decision_requests.agent_id)))

    def get_actions(self, requests: Sequence[Tuple[int, DecisionSteps]]) -> List[ActionInfo]:
        """Decide for the agents of several workers in one `evaluate`, unless a subclass has its own `get_action`.

        :raises UnityPolicyException: as `get_action` does.
        """
        waiting = [(worker_id, steps) for worker_id, steps in requests if len(steps)]
        if len(waiting) < 2 or getattr(self.get_action, "__func__", None) is not TorchPolicy.get_action:
            return super().get_actions(requests)
        parts = [steps for _, steps in waiting]
        agents = GlobalAgentIds(*((worker_id, steps.agent_id) for worker_id, steps in waiting))
        decided = iter(split_decision(self._decide(join_steps(parts), agents), parts))
        return [next(decided) if len(steps) else ActionInfo.empty() for _, steps in requests]

    def _decide(self, decision_requests: DecisionSteps, agents: GlobalAgentIds) -> ActionInfo:
        run_out = self.evaluate(decision_requests, agents)
        self.check_nan_action(run_out["action"])
        if "entropy" in run_out and not math.isfinite(np.add.reduce(run_out["entropy"], axis=None)):
            self._raise_not_finite()  # choices cannot be NaN, but their probabilities can
        return ActionInfo(
            action=run_out["action"],
            env_action=run_out["env_action"],
            outputs=run_out,
            agent_ids=decision_requests.agent_id,  # type: ignore[arg-type]  # an array reads as a sequence
        )

    def end_episodes(self, worker_id: int, agent_ids: np.ndarray) -> None:
        """Let agents whose episodes ended start the next ones without memory."""
        self._memories.forget(worker_id, agent_ids)

    def end_all_episodes(self) -> None:
        """Let all agents start without memory."""
        self._memories.clear()

    def act_deterministically(self) -> None:
        """Take the best actions from now on, if the actor has a method of this name; else it acts as it does."""
        if hasattr(self.actor, "act_deterministically"):
            self.actor.act_deterministically()

    def episodes_state(self) -> Dict[str, Any]:
        """Return what the agents remember."""
        return self._memories.state_dict()

    def restore_episodes(self, state: Mapping[str, Any]) -> None:
        """Let the agents remember what `episodes_state` told."""
        self._memories.load_state_dict(state)

    def get_current_step(self) -> int:
        """Return the steps of training so far."""
        return int(self.global_step.current_step.item())

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


def _memory_rows(memories: torch.Tensor, shape: Tuple[int, ...]) -> np.ndarray:
    """Return an actor's memories as rows of `shape`, (N, M).

    :raises UnityPolicyException: they are not (1, N, M).
    """
    if tuple(memories.shape) != (1, *shape):
        raise UnityPolicyException(
            f"The actor gave memories of shape {tuple(memories.shape)} for {shape[0]} agents. With policy.m_size "
            f"{shape[1]} they have to be {(1, *shape)}: give that shape, or set m_size to what the actor remembers."
        )
    return ModelUtils.to_numpy(memories[0])
