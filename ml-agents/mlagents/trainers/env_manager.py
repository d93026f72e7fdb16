"""What stands between the training loop and environments, wherever they run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.agent_processor import AgentManager
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.policy import Policy
from mlagents.trainers.settings import TrainerSettings
from mlagents_envs.base_env import BehaviorName, BehaviorSpec, DecisionSteps, TerminalSteps
from mlagents_envs.exception import UnityObservationException
from mlagents_envs.side_channel.stats_side_channel import EnvironmentStats
from mlagents_envs.timers import hierarchical_timer, timed

AllStepResult = Dict[BehaviorName, Tuple[DecisionSteps, TerminalSteps]]


class EnvironmentStep(NamedTuple):
    """One step of one worker.

    :param current_all_step_result: by behaviour id, who waits for a decision and who has ended.
    :param worker_id: whose step it is.
    :param brain_name_to_action_info: by behaviour id, the decisions that led here.
    :param environment_stats: what the environment reported since the last step.
    """

    current_all_step_result: AllStepResult
    worker_id: int
    brain_name_to_action_info: Dict[BehaviorName, ActionInfo]
    environment_stats: EnvironmentStats

    @property
    def name_behavior_ids(self) -> Iterable[BehaviorName]:
        """The behaviour ids seen in this step."""
        return self.current_all_step_result.keys()

    @staticmethod
    def empty(worker_id: int) -> EnvironmentStep:
        """Return the step of a worker before its first."""
        return EnvironmentStep({}, worker_id, {}, {})


class EnvManager(ABC):
    """Steps a set of workers: asks policies for actions, and hands experience to the agent managers."""

    def __init__(self) -> None:
        self.policies: Dict[BehaviorName, Policy] = {}
        self.agent_managers: Dict[BehaviorName, AgentManager] = {}
        self.first_step_infos: List[EnvironmentStep] = []

    def set_policy(self, brain_name: BehaviorName, policy: Policy) -> None:
        """Let `policy` decide for a behaviour id."""
        self.policies[brain_name] = policy

    def set_agent_manager(self, brain_name: BehaviorName, manager: AgentManager) -> None:
        """Let `manager` gather the experience of a behaviour id."""
        self.agent_managers[brain_name] = manager

    @abstractmethod
    def _step(self) -> List[EnvironmentStep]:
        """Step the workers that are ready."""

    @abstractmethod
    def _reset_env(self, config: Optional[Mapping[str, Any]] = None) -> List[EnvironmentStep]:
        """Start all environments anew, with the environment parameters of `config`."""

    def reset(self, config: Optional[Mapping[str, Any]] = None) -> int:
        """Start all environments anew and drop the experience under way; return the number of workers."""
        for manager in self.agent_managers.values():
            manager.end_episode()
        for policy in self.policies.values():
            policy.end_all_episodes()
        self.first_step_infos = self._reset_env(config)
        return len(self.first_step_infos)

    @abstractmethod
    def set_env_parameters(self, config: Optional[Mapping[str, Any]] = None) -> None:
        """Send environment parameters, name to sampler, to all environments."""

    @property
    @abstractmethod
    def training_behaviors(self) -> Dict[BehaviorName, BehaviorSpec]:
        """The behaviours seen so far, by id."""

    def on_training_started(self, behavior_name: str, trainer_settings: TrainerSettings) -> None:  # noqa: B027
        """Take note that training of a behaviour begins; nothing to do, unless environments want to know."""

    def state_dict(self) -> Dict[str, Any]:
        """Return the episodes under way, by which a resumed run goes on with them; nothing where it cannot."""
        environment = self._environment_state()
        if environment is None:
            return {}
        return {
            "environment": environment,
            "agents": {name: manager.state_dict() for name, manager in self.agent_managers.items()},
            "policies": {name: policy.episodes_state() for name, policy in self.policies.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Go on with the episodes of which `state_dict` told; return False where that is not possible.

        :raises UnityEnvironmentException: the environment is not as it was.
        """
        if "agents" not in state or state["agents"].keys() != self.agent_managers.keys():
            return False
        self._restore_environment(state["environment"])
        for name, manager in self.agent_managers.items():
            manager.load_state_dict(state["agents"][name])
        for name, policy in self.policies.items():
            policy.restore_episodes(state["policies"][name])
        return True

    def _environment_state(self) -> Optional[Dict[str, Any]]:
        """Return the state of the environment; None where it has none to give."""
        return None

    def _restore_environment(self, state: Mapping[str, Any]) -> None:
        """Let the environment go on from there, and forget the steps after its reset."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Close all environments."""

    def get_steps(self) -> List[EnvironmentStep]:
        """Step the workers, the step after a reset included; hand its experience to the agent managers first."""
        if self.first_step_infos:
            self.process_steps(self.first_step_infos)
            self.first_step_infos = []
        return self._step()

    @timed
    def _decide(self, steps: Sequence[EnvironmentStep]) -> List[Dict[BehaviorName, ActionInfo]]:
        """Ask the policies for the actions of all agents that wait after `steps`, each policy for all workers at once.

        They first hear which episodes ended. Call it once for a step.

        :param steps: the last step of every worker that is ready.
        :returns: per step its behaviour ids' decisions, in order; none for a behaviour without a policy.
        """
        decisions: List[Dict[BehaviorName, ActionInfo]] = [{} for _ in steps]
        for name, policy in self.policies.items():
            asking = [index for index, step in enumerate(steps) if name in step.current_all_step_result]
            requests = []
            for index in asking:
                worker_id = steps[index].worker_id
                decision_steps, terminal_steps = steps[index].current_all_step_result[name]
                if len(terminal_steps):
                    policy.end_episodes(worker_id, terminal_steps.agent_id)
                requests.append((worker_id, decision_steps))
            for index, decision in zip(asking, policy.get_actions(requests)):
                decisions[index][name] = decision
        return decisions

    def process_steps(self, new_step_infos: List[EnvironmentStep]) -> int:
        """Hand the experience of steps to the agent managers; return the number of steps.

        A worker that gives an observation that cannot be used is lost, and `_step_refused` says how to go on.
        """
        n_steps = 0
        for step_info in new_step_infos:
            try:
                self._collect(step_info)
            except UnityObservationException as error:
                self._lose_worker(step_info.worker_id)
                self._step_refused(step_info, error)
                continue
            if step_info.environment_stats:
                self._record_environment_stats(step_info)
            n_steps += 1
        return n_steps

    def _collect(self, step_info: EnvironmentStep) -> None:
        worker_id, results = step_info.worker_id, step_info.current_all_step_result
        decisions = step_info.brain_name_to_action_info
        for name, (decision_steps, terminal_steps) in results.items():
            manager = self.agent_managers.get(name)
            if manager is None:
                continue
            decision = decisions.get(name) or ActionInfo.empty()
            with hierarchical_timer("add_experiences"):
                manager.add_experiences(decision_steps, terminal_steps, worker_id, decision)
        for name in decisions:
            manager = self.agent_managers.get(name)
            if name not in results and manager is not None:
                # The behaviour may come back, with the rewards for these actions.
                nobody = DecisionSteps.empty(manager.spec), TerminalSteps.empty(manager.spec)
                manager.add_experiences(*nobody, worker_id, decisions[name])

    def _step_refused(self, step: EnvironmentStep, error: UnityObservationException) -> None:
        """Go on without a worker's `step`: the worker, which is lost, has to start anew; here it ends the run.

        :raises UnityObservationException: the error.
        """
        raise error

    def _lose_worker(self, worker_id: int) -> None:
        """Drop what is under way of a worker that starts anew, so that none of it mixes with what comes then."""
        for name, manager in self.agent_managers.items():
            lost = manager.drop_worker(worker_id)
            if len(lost) and name in self.policies:
                self.policies[name].end_episodes(worker_id, lost)

    def _record_environment_stats(self, step_info: EnvironmentStep) -> None:
        """Report what the environment measured to each behaviour, and once where several teams share its statistics."""
        managers = {
            BehaviorIdentifiers.from_name_behavior_id(name).brain_name: self.agent_managers[name]
            for name in step_info.name_behavior_ids
            if name in self.agent_managers
        }
        for manager in managers.values():
            manager.record_environment_stats(step_info.environment_stats, step_info.worker_id)
