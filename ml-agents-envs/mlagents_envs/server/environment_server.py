"""An environment that answers a trainer over the wire."""

from __future__ import annotations

import time
from typing import Dict, List, Optional, Protocol, Union

from mlagents_envs.base_env import ActionTuple, BaseEnv, BehaviorName, BehaviorSpec
from mlagents_envs.communicator_objects import command_pb2
from mlagents_envs.communicator_objects.unity_rl_initialization_input_pb2 import UnityRLInitializationInputProto
from mlagents_envs.exception import UnityCommunicationException, UnityCommunicatorStoppedException
from mlagents_envs.logging_util import get_logger
from mlagents_envs.server.link import EDITOR_PORT, Link, TrainerLink
from mlagents_envs.side_channel.environment_side import SideChannelRelay
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.wire.steps_encoder import StepsEncoder
from mlagents_envs.wire.trainer_messages import (
    COMMUNICATION_VERSION,
    TrainerMessage,
    read_trainer_message,
    write_environment_message,
    write_handshake,
)

logger = get_logger(__name__)


class EnvMaker(Protocol):
    """Makes an environment once the trainer has said how; a class such as a `VectorEnv` of yours is one."""

    def __call__(self, *, seed: int, num_areas: int, side_channels: List[SideChannel]) -> BaseEnv:
        """Make the environment."""


def serve(env: Union[BaseEnv, EnvMaker], port: int = EDITOR_PORT, connect_timeout_s: float = 60.0) -> None:
    """Let a trainer use an environment until it has had enough.

    :param env: the environment, or what makes it; only the latter learns the trainer's seed and number of areas, and
        gets its side channels.
    :param port: where the trainer listens, or will; by default where it waits for the Editor.
    :param connect_timeout_s: how long to wait for it.
    :raises UnityTimeOutException: no trainer came.
    :raises UnityCommunicationException: the trainer speaks another version, or nonsense.
    """
    make_env = (lambda **_: env) if isinstance(env, BaseEnv) else env
    EnvironmentServer(make_env, TrainerLink(port, connect_timeout_s)).run()


class EnvironmentServer:
    """Speaks for an environment as a Unity build does.

    :param make_env: makes the environment.
    :param link: to the trainer.
    :param name: of the environment, for the trainer's information.
    :param num_areas: the number of areas; by default what the trainer asks for.
    :param png: send images as PNG files.
    :param sleep_s: how long to sleep in each step, as the time that an engine would take.
    """

    def __init__(
        self,
        make_env: EnvMaker,
        link: Link,
        *,
        name: str = "environment",
        num_areas: Optional[int] = None,
        png: bool = False,
        sleep_s: float = 0.0,
    ):
        self._make_env = make_env
        self._link = link
        self._name = name
        self._num_areas = num_areas
        self._png = png
        self._sleep_s = sleep_s
        self._relay = SideChannelRelay()
        self._encoders: Dict[BehaviorName, StepsEncoder] = {}
        self._is_started = False

    def run(self) -> None:
        """Connect, and do what the trainer says until it says goodbye or has gone.

        :raises UnityException: no trainer came, it speaks another version, or nonsense.
        """
        try:
            self._link.connect()
            self._converse()
        except UnityCommunicatorStoppedException as stop:
            logger.info(str(stop))
        finally:
            self._link.close()

    def _converse(self) -> None:
        """Exchange messages with the trainer, the handshake first."""
        greeting = self._exchange(write_handshake(self._name))
        if greeting.is_goodbye:
            return
        env = self._env_for(greeting.initialization)
        try:
            order = self._exchange(write_environment_message())
            while not order.is_goodbye:
                order = self._exchange(self._obey(env, order))
        finally:
            env.close()

    def _exchange(self, message: bytes) -> TrainerMessage:
        return read_trainer_message(self._link.exchange(message))

    def _env_for(self, initialization: Optional[UnityRLInitializationInputProto]) -> BaseEnv:
        """Make the environment that the trainer wants."""
        if initialization is None:
            raise UnityCommunicationException("The trainer's first answer does not say how to begin.")
        theirs = initialization.communication_version
        if theirs.partition(".")[0] != COMMUNICATION_VERSION.partition(".")[0]:
            raise UnityCommunicationException(
                f"The trainer speaks version {theirs or 'unknown'} of the protocol, and this environment version "
                f"{COMMUNICATION_VERSION}: install the same release of mlagents and mlagents_envs for both."
            )
        num_areas = self._num_areas or max(initialization.num_areas, 1)
        logger.info(
            f"Connected to the trainer (mlagents_envs {initialization.package_version}): "
            f"seed {initialization.seed}, {num_areas} area(s)."
        )
        return self._make_env(seed=initialization.seed, num_areas=num_areas, side_channels=[self._relay])

    def _obey(self, env: BaseEnv, order: TrainerMessage) -> bytes:
        """Reset or step the environment, and return the message about it."""
        self._relay.receive_from_trainer(order.side_channel)
        if order.command == command_pb2.RESET or not self._is_started:
            self._is_started = True
            env.reset()
        else:
            self._set_actions(env, order.actions)
            if self._sleep_s:
                time.sleep(self._sleep_s)
            env.step()
        return self._write_steps(env)

    def _set_actions(self, env: BaseEnv, actions: Dict[BehaviorName, ActionTuple]) -> None:
        for name in env.behavior_specs:
            action = actions.get(_id_on_wire(name))
            if action is not None:
                env.set_actions(name, action)

    def _write_steps(self, env: BaseEnv) -> bytes:
        agent_infos: List[bytes] = []
        new_behaviors: Dict[BehaviorName, BehaviorSpec] = {}
        for name, spec in env.behavior_specs.items():
            decision_steps, terminal_steps = env.get_steps(name)
            if not decision_steps and not terminal_steps:
                continue  # the trainer reads the observations' shapes off the first agent, so it is told then
            behavior_id = _id_on_wire(name)
            if behavior_id not in self._encoders:
                self._encoders[behavior_id] = StepsEncoder(behavior_id, spec, self._png)
                new_behaviors[behavior_id] = spec
            agent_infos.append(self._encoders[behavior_id].encode(decision_steps, terminal_steps))
        return write_environment_message(agent_infos, new_behaviors, self._relay.take_for_trainer())


def _id_on_wire(name: BehaviorName) -> BehaviorName:
    """Return a behaviour's name with its team, as every name on the wire has."""
    return name if "?" in name else f"{name}?team=0"
