"""What a policy decided for a batch of agents."""

from typing import Any, Dict, NamedTuple, Sequence

from mlagents_envs.base_env import AgentId

ActionInfoOutputs = Dict[str, Any]


class ActionInfo(NamedTuple):
    """The decision of a policy for N agents.

    :param action: the actions as they are stored and learned from (`ActionTuple`).
    :param env_action: the actions as the environment takes them: clipped and scaled (`ActionTuple`).
    :param outputs: all that the actor gave, by name: ``env_action``, and where the actor has them ``log_probs``
        (`LogProbsTuple`) and ``entropy`` (N,); with memory ``memory_in`` (N, M), what was remembered before, and
        ``memory_out`` (N, M), what is remembered from now on.
    :param agent_ids: whom they are for, in the order of the rows.
    """

    action: Any
    env_action: Any
    outputs: ActionInfoOutputs
    agent_ids: Sequence[AgentId]

    @staticmethod
    def empty() -> "ActionInfo":
        """Return the decision for nobody."""
        return ActionInfo([], [], {}, [])
