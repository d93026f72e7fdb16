"""An environment that is no more than a script, for tests of what speaks to environments."""

from __future__ import annotations

from typing import Optional

import numpy as np

from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
    vector_observation,
)
from mlagents_envs.communicator import Communicator, PollCallback
from mlagents_envs.communicator_objects.command_pb2 import RESET
from mlagents_envs.wire.steps_encoder import StepsEncoder
from mlagents_envs.wire.trainer_messages import read_trainer_message, write_environment_message, write_handshake

EPISODE_LENGTH = 10
"""After so many steps the episode of the last agent ends, and its next one begins."""


class MockCommunicator(Communicator):
    """Stands in for the wire and for an environment with one behaviour at its other end.

    `steps` counts the exchanges since the last reset. After k of them each value that agent i observes is i + k; the
    reward is 1, and 0 after a reset.

    :param discrete_action: one branch of 2 choices instead of 2 continuous actions.
    :param visual_inputs: the number of images (3, 4, 5) that come before the vector.
    :param num_agents: N, with the ids 0 to N-1.
    :param brain_name: of the behaviour, as on the wire.
    :param vec_obs_size: length of the vector.
    """

    def __init__(
        self,
        discrete_action: bool = False,
        visual_inputs: int = 0,
        num_agents: int = 3,
        brain_name: str = "RealFakeBrain",
        vec_obs_size: int = 3,
    ):
        super().__init__()
        self.is_discrete = discrete_action
        self.visual_inputs = visual_inputs
        self.num_agents = num_agents
        self.brain_name = brain_name
        self.vec_obs_size = vec_obs_size
        self.steps = 0
        self.has_been_closed = False
        images = [_image(f"Image{index}") for index in range(visual_inputs)]
        action_spec = ActionSpec.create_discrete((2,)) if discrete_action else ActionSpec.create_continuous(2)
        self._spec = BehaviorSpec([*images, vector_observation(vec_obs_size, "Vector")], action_spec)
        self._encoder = StepsEncoder(brain_name, self._spec)
        self._has_introduced_behavior = False
        self._next = write_handshake("Mock")

    def send_message(self, message: bytes) -> None:
        """Let a reset or a step happen."""
        answer = read_trainer_message(message)
        if answer.initialization is not None:
            self._next = write_environment_message()
            return
        self.steps = 0 if answer.command == RESET else self.steps + 1
        new_behaviors = {} if self._has_introduced_behavior else {self.brain_name: self._spec}
        self._has_introduced_behavior = True
        self._next = write_environment_message(
            [self._encoder.encode(self._decision_steps(), self._terminal_steps())], new_behaviors
        )

    def await_message(self, patience_s: float, poll_callback: Optional[PollCallback] = None) -> bool:
        """Return at once: it answers at once."""
        return True

    def receive_message(self, poll_callback: Optional[PollCallback] = None) -> Optional[bytes]:
        """Return the environment's introduction, then what comes of what it was told."""
        return self._next

    def close(self) -> None:
        """End the communication."""
        self.has_been_closed = True

    def _decision_steps(self) -> DecisionSteps:
        agent_id = np.arange(self.num_agents, dtype=np.int32)
        values = (agent_id + self.steps).astype(np.float32)
        return DecisionSteps(
            obs=[_filled(values, spec) for spec in self._spec.observation_specs],
            reward=np.full(self.num_agents, self.steps > 0, dtype=np.float32),
            agent_id=agent_id,
            action_mask=None,
            group_id=np.zeros_like(agent_id),
            group_reward=np.zeros_like(values),
        )

    def _terminal_steps(self) -> TerminalSteps:
        """Return the last agent's end, at the end of its episode."""
        decisions = self._decision_steps()
        ended = slice(self.num_agents - 1, None) if self.steps and self.steps % EPISODE_LENGTH == 0 else slice(0)
        return TerminalSteps(
            obs=[column[ended] for column in decisions.obs],
            reward=decisions.reward[ended],
            interrupted=np.zeros_like(decisions.agent_id[ended], dtype=np.bool_),
            agent_id=decisions.agent_id[ended],
            group_id=decisions.group_id[ended],
            group_reward=decisions.group_reward[ended],
        )


def _image(name: str) -> ObservationSpec:
    translational = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
    properties = (DimensionProperty.NONE, translational, translational)
    return ObservationSpec((3, 4, 5), properties, ObservationType.DEFAULT, name)


def _filled(values: np.ndarray, spec: ObservationSpec) -> np.ndarray:
    """Return an observation (N, *shape) that consists of each agent's value."""
    return np.broadcast_to(values.reshape(-1, *(1 for _ in spec.shape)), (len(values), *spec.shape))
