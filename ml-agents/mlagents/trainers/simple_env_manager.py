"""One environment in this process."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.env_manager import AllStepResult, EnvironmentStep, EnvManager
from mlagents_envs.base_env import BaseEnv, BehaviorName, BehaviorSpec
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.stats_side_channel import StatsSideChannel
from mlagents_envs.timers import hierarchical_timer


class SimpleEnvManager(EnvManager):
    """Steps one environment in this process, in lock-step with the policies.

    :param env: the environment.
    :param env_params: the channel that its parameters are sent on.
    :param stats: the channel that its own statistics come on, if it has one.
    """

    def __init__(
        self, env: BaseEnv, env_params: EnvironmentParametersChannel, stats: Optional[StatsSideChannel] = None
    ):
        super().__init__()
        self.env = env
        self.env_params = env_params
        self._stats = stats
        self.previous_step = EnvironmentStep.empty(0)

    def _step(self) -> List[EnvironmentStep]:
        (decisions,) = self._decide([self.previous_step])
        for name, decision in decisions.items():
            if len(decision.agent_ids):
                self.env.set_actions(name, decision.env_action)
        with hierarchical_timer("simulate"):
            self.env.step()
        self.previous_step = self._observe(decisions)
        return [self.previous_step]

    def _reset_env(self, config: Optional[Mapping[str, Any]] = None) -> List[EnvironmentStep]:
        self.set_env_parameters(config)
        self.env.reset()
        self.previous_step = self._observe({})
        return [self.previous_step]

    def _observe(self, decisions: Dict[BehaviorName, ActionInfo]) -> EnvironmentStep:
        """Gather what the environment says now, after `decisions`."""
        results: AllStepResult = {name: self.env.get_steps(name) for name in self.env.behavior_specs}
        stats = self._stats.get_and_reset_stats() if self._stats is not None else {}
        return EnvironmentStep(results, 0, decisions, stats)

    def set_env_parameters(self, config: Optional[Mapping[str, Any]] = None) -> None:
        """Send environment parameters, name to sampler, to the environment."""
        for name, sampler in (config or {}).items():
            sampler.apply(name, self.env_params)

    @property
    def training_behaviors(self) -> Dict[BehaviorName, BehaviorSpec]:
        """The behaviours seen so far, by id."""
        return dict(self.env.behavior_specs)

    def _environment_state(self) -> Optional[Dict[str, Any]]:
        return self.env.get_state()

    def _restore_environment(self, state: Mapping[str, Any]) -> None:
        self.env.set_state(state)
        self.previous_step = self._observe({})
        self.first_step_infos = []

    def close(self) -> None:
        """Close the environment."""
        self.env.close()
