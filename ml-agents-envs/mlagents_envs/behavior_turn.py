"""One behaviour between two steps: what its agents see, and the actions they are given."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from mlagents_envs.base_env import (
    ActionTuple,
    AgentId,
    BehaviorName,
    BehaviorSpec,
    DecisionSteps,
    TerminalSteps,
)
from mlagents_envs.exception import UnityActionException


class BehaviorTurn:
    """Steps on their way to the trainer and actions on their way back.

    :param name: with its team.
    """

    def __init__(self, name: BehaviorName, spec: BehaviorSpec):
        self.name = name
        self.spec = spec
        self._nobody = DecisionSteps.empty(spec), TerminalSteps.empty(spec)
        self._steps = self._nobody
        self._actions: Optional[ActionTuple] = None

    @property
    def steps(self) -> Tuple[DecisionSteps, TerminalSteps]:
        """The agents that wait for an action, and those whose episode has just ended."""
        return self._steps

    def begin(self, decisions: Optional[DecisionSteps] = None, terminals: Optional[TerminalSteps] = None) -> None:
        """Make these the steps, nobody's where there are none, and wait for new actions."""
        self._steps = (
            self._nobody[0] if decisions is None else decisions,
            self._nobody[1] if terminals is None else terminals,
        )
        self._actions = None

    def get_state(self) -> Dict[str, Any]:
        """Return the steps, and the actions that are set for them, as plain data."""
        decisions, terminals = self._steps
        actions = self._actions
        return {
            "decisions": _columns(decisions, _DECISION_COLUMNS),
            "terminals": _columns(terminals, _TERMINAL_COLUMNS),
            "actions": None if actions is None else [actions.continuous.copy(), actions.discrete.copy()],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` told."""
        self._steps = DecisionSteps(**state["decisions"]), TerminalSteps(**state["terminals"])
        self._actions = None if state["actions"] is None else ActionTuple(*state["actions"])

    def set_actions(self, action: ActionTuple) -> None:
        """Set the actions of all agents that wait for one, in their order.

        :raises UnityActionException: the shapes are not those of so many agents.
        """
        self.spec.action_spec.check(action, len(self._steps[0]), self.name)
        self._actions = action.copy()

    def set_action_for_agent(self, agent_id: AgentId, action: ActionTuple) -> None:
        """Set the action, of one row, of one agent that waits for one.

        :raises UnityActionException: the agent does not wait for one, or the shapes are not those of one agent.
        """
        decisions, _ = self._steps
        index = decisions.agent_id_to_index.get(agent_id)
        if index is None:
            raise UnityActionException(
                f"The behavior {self.name} has no agent {agent_id} that waits for an action: "
                f"those that wait are {', '.join(map(str, decisions.agent_id.tolist())) or 'none'}."
            )
        self.spec.action_spec.check(action, 1, self.name)
        actions = self.actions()
        actions.continuous[index] = action.continuous[0]
        actions.discrete[index] = action.discrete[0]

    def actions(self) -> ActionTuple:
        """Return the actions of all agents that wait for one: zeros for those that were given none."""
        if self._actions is None:
            self._actions = self.spec.action_spec.empty_action(len(self._steps[0]))
        return self._actions


_TERMINAL_COLUMNS = ("obs", "reward", "interrupted", "agent_id", "group_id", "group_reward")
_DECISION_COLUMNS = ("obs", "reward", "agent_id", "action_mask", "group_id", "group_reward")


def _columns(steps: DecisionSteps | TerminalSteps, names: Sequence[str]) -> Dict[str, Any]:
    """Return copies of the columns: arrays, lists of arrays, or None."""
    return {name: _copy(getattr(steps, name)) for name in names}


def _copy(column: Any) -> Any:
    if isinstance(column, list):
        return [np.array(part) for part in column]
    return None if column is None else np.array(column)
