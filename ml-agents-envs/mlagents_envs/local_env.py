"""What environments that simulate in this process share: behaviours, side channels, and the order of calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mlagents_envs.base_env import (
    ActionTuple,
    AgentId,
    BaseEnv,
    BehaviorMapping,
    BehaviorName,
    BehaviorSpec,
    DecisionSteps,
    TerminalSteps,
)
from mlagents_envs.behavior_turn import BehaviorTurn
from mlagents_envs.exception import UnityActionException, UnityEnvironmentException
from mlagents_envs.side_channel.environment_side import EnvironmentSideChannels
from mlagents_envs.side_channel.side_channel import SideChannel


class LocalEnv(BaseEnv):
    """An environment of this process.

    For many agents of one behaviour that always act together, write a `mlagents_envs.vector_env.VectorEnv` instead. A
    subclass of this one writes `_begin_episodes` and `_simulate`, in which it publishes the steps of every behaviour.
    Agents that were given no action act with zeros.

    :param specs: of the behaviours that are known from the start; names with their team, ``NAME?team=0``.
    :param seed: of `rng`.
    :param side_channels: the trainer's ends of the side channels.

    A subclass whose state can be saved names its arrays in `state_arrays`, or writes `simulation_state` and
    `restore_simulation`: then a run that resumes goes on exactly where it was.

    :cvar state_arrays: the attributes that, with `rng`, are all of the simulation's state; None: it cannot be saved.

    For subclasses: `rng`, the one source of randomness; `parameters`, the environment parameters that the trainer sets;
    `side_channels`, on which statistics go to the trainer.
    """

    state_arrays: ClassVar[Sequence[str] | None] = None

    def __init__(
        self,
        specs: Mapping[BehaviorName, BehaviorSpec],
        *,
        seed: int = 0,
        side_channels: Sequence[SideChannel] | None = None,
    ):
        self.rng = np.random.default_rng(seed)
        self.side_channels = EnvironmentSideChannels(side_channels)
        self.parameters = self.side_channels.parameters
        self._specs: dict[BehaviorName, BehaviorSpec] = {}
        self._behavior_specs = BehaviorMapping(self._specs)
        self._turns: dict[BehaviorName, BehaviorTurn] = {}
        for name, spec in specs.items():
            self._add_behavior(name, spec)
        self._started = False
        self._closed = False

    @abstractmethod
    def _begin_episodes(self) -> None:
        """Begin all episodes anew, and publish their first steps."""

    @abstractmethod
    def _simulate(self) -> None:
        """Simulate a decision, with `_actions_of` every behaviour, and publish the steps of every one."""

    def _add_behavior(self, name: BehaviorName, spec: BehaviorSpec) -> None:
        """Make a behaviour known that was not there before."""
        self._specs[name] = spec
        self._turns[name] = BehaviorTurn(name, spec)

    def _actions_of(self, name: BehaviorName) -> ActionTuple:
        """Return the actions of all agents of a behaviour's decision steps, in their order."""
        return self._turns[name].actions()

    def _publish(
        self, name: BehaviorName, decisions: DecisionSteps | None = None, terminals: TerminalSteps | None = None
    ) -> None:
        """Make these what `get_steps` returns, None for nobody, and wait for new actions."""
        self._turns[name].begin(decisions, terminals)

    def simulation_state(self) -> dict[str, Any] | None:
        """Return the state of the simulation but for `rng`, as plain data; None where it cannot be saved."""
        if self.state_arrays is None:
            return None
        return {name: np.array(getattr(self, name)) for name in self.state_arrays}

    def restore_simulation(self, state: Mapping[str, Any]) -> None:
        """Go on from what `simulation_state` told."""
        for name in self.state_arrays or ():
            own = getattr(self, name)
            if isinstance(own, np.ndarray):
                own[...] = state[name]
            else:
                setattr(self, name, type(own)(state[name]))

    def get_state(self) -> dict[str, Any] | None:
        """Return all that decides what comes next; None where `simulation_state` cannot be told."""
        simulation = self.simulation_state()
        if simulation is None or not self._started:
            return None
        return {
            "simulation": simulation,
            "shapes": _shapes(simulation),
            "rng": self.rng.bit_generator.state,
            "parameters": self.parameters.get_state(),
            "turns": {name: turn.get_state() for name, turn in self._turns.items()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` told.

        :raises UnityEnvironmentException: it is of another environment, or of one with another number of agents.
        """
        own = self.simulation_state()
        shapes = None if own is None else _shapes(own)
        if own is None or state.get("shapes") != shapes or state["turns"].keys() != self._turns.keys():
            raise UnityEnvironmentException(
                f"The state that was saved is not of this environment: it has {state.get('shapes')} of behaviors "
                f"{', '.join(state.get('turns', ()))}, while {type(self).__name__} has {shapes} of "
                f"{', '.join(self._turns)}."
            )
        self.rng.bit_generator.state = state["rng"]
        self.parameters.set_state(state["parameters"])
        self.restore_simulation(state["simulation"])
        for name, turn in self._turns.items():
            turn.set_state(state["turns"][name])
        self._started = True

    def seed(self, seed: int) -> None:
        """Seed `rng` anew; with the next `reset`, all that follows repeats for the same seed and actions."""
        self.rng = np.random.default_rng(seed)

    @property
    def behavior_specs(self) -> BehaviorMapping:
        """The behaviours by name."""
        return self._behavior_specs

    def reset(self) -> None:
        """Start every agent's episode anew; actions that were set are forgotten.

        :raises UnityEnvironmentException: the environment is closed.
        """
        self._check_open()
        self.side_channels.exchange()
        self._begin_episodes()
        self._started = True

    def step(self) -> None:
        """Simulate one decision.

        :raises UnityEnvironmentException: the environment is closed or was never reset.
        """
        self._check_started()
        self.side_channels.exchange()
        self._simulate()

    def close(self) -> None:
        """End the environment; doing so again does nothing. A subclass that holds resources frees them here too."""
        self._closed = True

    def set_actions(self, behavior_name: BehaviorName, action: ActionTuple) -> None:
        """Set the actions of all agents of the behaviour's `DecisionSteps`, in their order, for the next step.

        :raises UnityActionException: the behaviour is unknown or the shapes are not those of so many agents.
        :raises UnityEnvironmentException: the environment is closed or was never reset.
        """
        self._turn(behavior_name).set_actions(action)

    def set_action_for_agent(self, behavior_name: BehaviorName, agent_id: AgentId, action: ActionTuple) -> None:
        """Set the action, of one row, of one agent for the next step.

        :raises UnityActionException: the behaviour or the agent is unknown, or the shapes are not those of one agent.
        :raises UnityEnvironmentException: the environment is closed or was never reset.
        """
        self._turn(behavior_name).set_action_for_agent(agent_id, action)

    def get_steps(self, behavior_name: BehaviorName) -> tuple[DecisionSteps, TerminalSteps]:
        """Return the agents that want a decision, and those whose episode has just ended.

        :raises UnityActionException: the behaviour is unknown.
        :raises UnityEnvironmentException: the environment is closed or was never reset.
        """
        return self._turn(behavior_name).steps

    def _turn(self, name: BehaviorName) -> BehaviorTurn:
        """Return a behaviour of an environment that runs."""
        turn = self._turns.get(name)
        if turn is None:
            only = " its only one is" if len(self._turns) == 1 else " it has"
            raise UnityActionException(
                f"The environment has no behavior {name}:{only} {', '.join(self._turns) or 'none yet'}."
            )
        self._check_started()
        return turn

    def _check_open(self) -> None:
        if self._closed:
            raise UnityEnvironmentException(f"{type(self).__name__} is closed: make a new one.")

    def _check_started(self) -> None:
        self._check_open()
        if not self._started:
            raise UnityEnvironmentException(f"{type(self).__name__} has not started: call reset() first.")


def _shapes(simulation: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: list(np.shape(value)) for name, value in simulation.items()}
