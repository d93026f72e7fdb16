"""One behaviour of an environment behind a wire: its steps as they arrive, and the actions that go back."""

from __future__ import annotations

from typing import Optional, Set

import numpy as np

from mlagents_envs.base_env import AgentId, BehaviorName, BehaviorSpec, TerminalSteps
from mlagents_envs.behavior_turn import BehaviorTurn
from mlagents_envs.logging_util import get_logger
from mlagents_envs.wire.messages import RawAgentInfos
from mlagents_envs.wire.steps_decoder import StepsDecoder

logger = get_logger(__name__)

MESSAGES_UNTIL_MISSED = 1000
"""After so many messages in a row without an agent of a behaviour, a user may want to know of it."""


class UnityBehavior(BehaviorTurn):
    """The state of a behaviour between two messages.

    :param name: with its team, as on the wire.
    :param who: names the environment in warnings.
    """

    def __init__(self, name: BehaviorName, spec: BehaviorSpec, who: str):
        super().__init__(name, spec)
        self._who = who
        self._decoder = StepsDecoder(name, spec)
        self._acting: Set[AgentId] = set()
        """Agents whose episode has begun and not ended; they may skip steps."""
        self._last_ids = b""
        self._messages_without = 0
        self._has_warned_of_strangers = False
        self._has_warned_of_absence = False

    def receive(self, infos: Optional[RawAgentInfos], is_reset: bool) -> None:
        """Take the behaviour's part of a message, None where it has none, as its steps.

        :param is_reset: whether this answers a reset, at which all episodes begin anew.
        """
        if infos is None or not len(infos):
            self.begin()
            self._count_absence()
            return
        self._messages_without = 0
        decisions, terminals = self._decoder.decode(infos)
        if len(terminals):
            terminals = self._without_strangers(terminals)
            self._acting.difference_update(terminals.agent_id.tolist())
        if is_reset:
            self._acting.clear()
        ids = decisions.agent_id.tobytes()
        if is_reset or len(terminals) or ids != self._last_ids:  # else they act already
            self._acting.update(decisions.agent_id.tolist())
            self._last_ids = ids
        self.begin(decisions, terminals)

    def _without_strangers(self, terminals: TerminalSteps) -> TerminalSteps:
        """Leave out the agents that end an episode which they never began."""
        ids = terminals.agent_id.tolist()
        if self._acting.issuperset(ids):
            return terminals
        known = np.array([agent_id in self._acting for agent_id in ids])
        if not self._has_warned_of_strangers:
            self._has_warned_of_strangers = True
            logger.warning(
                f"{self._who}: agent {terminals.agent_id[~known][0]} of the behavior {self.name} ended an episode "
                "in which it never asked for a decision. Such episodes are left out, now and from here on."
            )
        return TerminalSteps(
            obs=[column[known] for column in terminals.obs],
            reward=terminals.reward[known],
            interrupted=terminals.interrupted[known],
            agent_id=terminals.agent_id[known],
            group_id=terminals.group_id[known],
            group_reward=terminals.group_reward[known],
        )

    def _count_absence(self) -> None:
        self._messages_without += 1
        if self._messages_without == MESSAGES_UNTIL_MISSED and not self._has_warned_of_absence:
            self._has_warned_of_absence = True
            logger.warning(
                f"{self._who}: the behavior {self.name} has had no agent in the last {MESSAGES_UNTIL_MISSED} steps "
                "of the environment, so it does not learn. Everything else goes on."
            )
