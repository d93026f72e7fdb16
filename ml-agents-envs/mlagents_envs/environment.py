"""An environment that runs in Unity, or in anything else that speaks its wire."""

from __future__ import annotations

import contextlib
import itertools
import os
import weakref
from typing import Dict, Iterator, List, Mapping, Optional, Tuple

import mlagents_envs
from mlagents_envs.base_env import (
    ActionTuple,
    AgentId,
    BaseEnv,
    BehaviorMapping,
    BehaviorName,
    DecisionSteps,
    TerminalSteps,
)
from mlagents_envs.communicator import Communicator
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
from mlagents_envs.communicator_objects.capabilities_pb2 import UnityRLCapabilitiesProto
from mlagents_envs.communicator_objects.command_pb2 import RESET, STEP
from mlagents_envs.communicator_objects.unity_rl_initialization_input_pb2 import UnityRLInitializationInputProto
from mlagents_envs.communicator_objects.unity_rl_initialization_output_pb2 import UnityRLInitializationOutputProto
from mlagents_envs.env_process import EnvProcess
from mlagents_envs.exception import (
    UnityActionException,
    UnityCommunicationException,
    UnityCommunicatorStoppedException,
    UnityEnvironmentException,
    UnityException,
    UnityTimeOutException,
)
from mlagents_envs.local_env import LocalEnv
from mlagents_envs.logging_util import get_logger
from mlagents_envs.rpc_communicator import RpcCommunicator
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.side_channel.side_channel_manager import SideChannelManager
from mlagents_envs.spelling import did_you_mean
from mlagents_envs.timers import hierarchical_timer, timed
from mlagents_envs.unity_behavior import UnityBehavior
from mlagents_envs.wire.messages import (
    EnvironmentMessage,
    MessageReader,
    write_initialization,
    write_input,
)
from mlagents_envs.wire.steps_decoder import read_behavior_spec
from mlagents_envs.wire.trainer_messages import COMMUNICATION_VERSION

logger = get_logger(__name__)

_CLOSE_GRACE_S = 10.0
"""How long an executable may take to end by itself, once it was told to."""

_DEATH_GRACE_S = 2.0
"""How long after its connection the process of an executable may end, if that is why the connection broke."""


class UnityEnvironment(BaseEnv):
    """Starts an executable, or waits for the Unity Editor, and steps what runs there.

    After any `UnityException` of the wire the environment is closed and its process has ended.

    :param file_name: of the executable, whose platform's suffix may be left out; None for the Editor.
    :param worker_id: tells apart environments that run at the same time; 0 for the Editor.
    :param base_port: the port of worker 0; others count from there. Where its port is held, an executable gets any
        other. By default `BASE_ENVIRONMENT_PORT`, or for the Editor, which expects it, `DEFAULT_EDITOR_PORT`.
    :param seed: of everything random in the environment; 32 bits with a sign.
    :param no_graphics: run without a window or a graphics card.
    :param no_graphics_monitor: the same for all workers but the first.
    :param timeout_wait: how long the environment may take for an answer, in seconds. For Play to be pressed in the
        Editor there is no limit.
    :param additional_args: further words of the executable's command line.
    :param side_channels: the trainer's ends of the side channels.
    :param log_folder: where the executable writes ``Player-<worker_id>.log``; made if need be.
    :param num_areas: how many training areas the scene is asked for.
    :raises UnityEnvironmentException: the executable is missing, cannot be run, or ended, or speaks another version.
    :raises UnityWorkerInUseException: the Editor's port is held by somebody else.
    :raises UnityTimeOutException: it did not connect in time.
    """

    API_VERSION = COMMUNICATION_VERSION
    DEFAULT_EDITOR_PORT = 5004
    BASE_ENVIRONMENT_PORT = 5005

    def __init__(
        self,
        file_name: Optional[str] = None,
        worker_id: int = 0,
        base_port: Optional[int] = None,
        seed: int = 0,
        no_graphics: bool = False,
        no_graphics_monitor: bool = False,
        timeout_wait: int = 60,
        additional_args: Optional[List[str]] = None,
        side_channels: Optional[List[SideChannel]] = None,
        log_folder: Optional[str] = None,
        num_areas: int = 1,
    ):
        if file_name is None and worker_id != 0:
            raise UnityEnvironmentException(
                f"Worker {worker_id} has no executable: the Unity Editor can only be worker 0."
            )
        self._who = f"Worker {worker_id} ({file_name or 'the Unity Editor'})"
        self._behaviors: Dict[BehaviorName, UnityBehavior] = {}
        self._introduced: Dict[BehaviorName, BrainParametersProto] = {}
        self._side_channels = SideChannelManager(side_channels)
        self._reader = MessageReader()
        self._has_started = False
        self._under_way: Optional[int] = None  # the command whose outcome is awaited
        self._process: Optional[EnvProcess] = None
        if base_port is None:
            base_port = self.DEFAULT_EDITOR_PORT if file_name is None else self.BASE_ENVIRONMENT_PORT
        self._communicator = self._get_communicator(file_name, worker_id, base_port, timeout_wait)
        self._end: weakref.finalize[..., UnityEnvironment] = weakref.finalize(self, self._communicator.close)
        try:
            if file_name is None:
                logger.info(
                    f"Listening on port {self._communicator.port}. "
                    "Start training by pressing the Play button in the Unity Editor."
                )
            else:
                without_graphics = no_graphics or (no_graphics_monitor and worker_id != 0)
                self._launch(file_name, worker_id, without_graphics, additional_args or [], log_folder)
            self._handshake(seed, num_areas)
        except BaseException:
            self._abandon()
            raise

    @staticmethod
    def _get_communicator(file_name: Optional[str], worker_id: int, base_port: int, timeout_wait: int) -> Communicator:
        """Return the wire, which listens already, so that nobody takes the port that an executable is told."""
        is_editor = file_name is None
        return RpcCommunicator(worker_id, base_port, timeout_wait, any_port=not is_editor, waits_for_user=is_editor)

    def _launch(
        self, file_name: str, worker_id: int, without_graphics: bool, args: List[str], log_folder: Optional[str]
    ) -> None:
        words = ["--mlagents-port", str(self._communicator.port)]
        if without_graphics:
            words += ["-nographics", "-batchmode"]
        log_path = _log_path_in(args)
        if log_path is None and log_folder is not None:
            os.makedirs(log_folder, exist_ok=True)
            log_path = os.path.join(os.path.abspath(log_folder), f"Player-{worker_id}.log")
            with contextlib.suppress(OSError):
                os.remove(log_path)  # what an earlier process wrote there does not speak of this one
            words += ["-logFile", log_path]
        with self._named_faults():
            self._process = EnvProcess(file_name, words + args, log_path)
        self._end.detach()
        self._end = weakref.finalize(self, _end, self._communicator, self._process)

    def _handshake(self, seed: int, num_areas: int) -> None:
        """Tell each other versions and capabilities, and the environment its seed."""
        try:
            introduction = UnityRLInitializationInputProto(
                seed=seed,
                communication_version=self.API_VERSION,
                package_version=mlagents_envs.__version__,
                capabilities=UnityRLCapabilitiesProto(
                    **{field.name: True for field in UnityRLCapabilitiesProto.DESCRIPTOR.fields}
                ),
                num_areas=num_areas,
            )
        except ValueError:
            raise UnityEnvironmentException(
                f"{self._who}: the seed ({seed}) and the number of areas ({num_areas}) must be numbers of 32 bits."
            ) from None
        with self._named_faults():
            message = self._read(self._communicator.receive_message(self._check_process))
            theirs = message.initialization
            if theirs is None:
                raise UnityCommunicationException("the first message that came from it does not introduce it.")
            _check_version(theirs, self.API_VERSION)
            self.academy_capabilities = theirs.capabilities
            self._remember(theirs)
            self._read(self._communicator.exchange_message(write_initialization(introduction), self._check_process))
        logger.info(
            f"Connected to Unity environment with package version {theirs.package_version} "
            f"and communication version {theirs.communication_version}"
        )

    def reset(self) -> None:
        """Start every agent's episode anew; actions that were set are forgotten."""
        self._check_open()
        if self._under_way is not None:
            self.step_wait()
        self._send(RESET, {})
        self._receive()

    @timed
    def step(self) -> None:
        """Send the actions that were set, zeros where there are none, and wait for what comes of them.

        The first step of all is a reset.
        """
        self.step_async()
        self.step_wait()

    def step_async(self) -> None:
        """Send the actions as `step` does, and leave it to `step_wait` to wait: meanwhile the environment simulates.

        :raises UnityEnvironmentException: a step is under way already.
        """
        self._check_open()
        if self._under_way is not None:
            raise UnityEnvironmentException(f"{self._who}: a step is under way: call step_wait() before the next.")
        if not self._has_started:
            self._send(RESET, {})
        else:
            self._send(STEP, {name: b.actions() for name, b in self._behaviors.items() if len(b.steps[0])})

    def is_step_over(self, patience_s: float = 0.0) -> bool:
        """Wait for a time at most; return whether `step_wait` need not wait, be it because it will fail.

        :param patience_s: in seconds.
        """
        self._check_under_way()
        with self._named_faults():
            return self._communicator.await_message(patience_s, self._check_process)

    def step_wait(self) -> None:
        """Wait for what comes of the actions that `step_async` has sent.

        :raises UnityEnvironmentException: it has sent none.
        """
        self._check_under_way()
        self._receive()

    def _check_under_way(self) -> None:
        self._check_open()
        if self._under_way is None:
            raise UnityEnvironmentException(f"{self._who}: no step is under way: call step_async() first.")

    def _send(self, command: int, actions: Mapping[BehaviorName, ActionTuple]) -> None:
        with self._named_faults():
            side_channels = bytes(self._side_channels.generate_side_channel_messages())
            self._communicator.send_message(write_input(command, actions, side_channels))
        self._under_way = command

    def _receive(self) -> None:
        with self._named_faults():
            with hierarchical_timer("communicator.exchange"):
                data = self._communicator.receive_message(self._check_process)
            message = self._read(data)
            if message.initialization is not None:
                self._remember(message.initialization)
            self._meet_new_behaviors(message)
            for name, behavior in self._behaviors.items():
                behavior.receive(message.agent_infos.get(name), is_reset=self._under_way == RESET)
            self._side_channels.process_side_channel_message(message.side_channel)
        self._under_way, self._has_started = None, True

    def _read(self, data: Optional[bytes]) -> EnvironmentMessage:
        """Return a message that is no goodbye."""
        if data is None:
            if self._process is not None and self._process.has_ended(_DEATH_GRACE_S):
                self._check_process()
            raise UnityCommunicatorStoppedException(f"the connection broke {self._when()}.")
        message = self._reader.read(data)
        if message.is_goodbye:
            raise UnityCommunicatorStoppedException(f"the environment said goodbye {self._when()}.")
        return message

    def _when(self) -> str:
        return "during the run" if self._has_started else "before the run began"

    def _remember(self, initialization: UnityRLInitializationOutputProto) -> None:
        """Keep what is said of new behaviours until their first agents show the rest."""
        for brain in initialization.brain_parameters:
            self._introduced[brain.brain_name] = brain

    def _meet_new_behaviors(self, message: EnvironmentMessage) -> None:
        for name, infos in message.agent_infos.items():
            if name in self._behaviors or not len(infos):
                continue
            if name not in self._introduced:
                raise UnityCommunicationException(
                    f"it sent agents of the behavior {name}, whose specification never came."
                )
            spec = read_behavior_spec(self._introduced[name], infos)
            self._behaviors[name] = UnityBehavior(name, spec, self._who)
            logger.info(f"Connected new behavior: {name}")

    def _check_process(self) -> None:
        """Raise when the executable has ended."""
        if self._process is not None and self._process.has_ended():
            end, log = self._process.describe_end(), self._process.describe_log()
            raise UnityEnvironmentException(f"its process {end} {self._when()}.{log}")

    @contextlib.contextmanager
    def _named_faults(self) -> Iterator[None]:
        """Close on an error of the wire, and say in its message whose it is, and what its log says."""
        try:
            yield
        except UnityException as error:
            message = f"{self._who}: {error}"
            if isinstance(error, UnityTimeOutException):
                message += (
                    " It hangs, or waits for a user, or is paused; or it takes longer, and timeout_wait "
                    "(--timeout-wait) has to be raised."
                )
                if self._process is not None:
                    message += self._process.describe_log()
            self._abandon()
            raise type(error)(message) from error

    def _abandon(self) -> None:
        """Close without waiting for an executable from which nothing good is to be expected any more."""
        if self._process is not None:
            self._process.stop(0.0)
        self.close()

    @property
    def behavior_specs(self) -> BehaviorMapping:
        """The behaviours seen so far; the environment is reset for it if it never was."""
        if not self._has_started:
            self.reset()
        return BehaviorMapping({name: behavior.spec for name, behavior in self._behaviors.items()})

    def set_actions(self, behavior_name: BehaviorName, action: ActionTuple) -> None:
        """Set the actions of all agents of the last `DecisionSteps`, in their order; see `BaseEnv`."""
        self._behavior(behavior_name).set_actions(action)

    def set_action_for_agent(self, behavior_name: BehaviorName, agent_id: AgentId, action: ActionTuple) -> None:
        """Set the action, of one row, of one agent of the last `DecisionSteps`; see `BaseEnv`."""
        self._behavior(behavior_name).set_action_for_agent(agent_id, action)

    def get_steps(self, behavior_name: BehaviorName) -> Tuple[DecisionSteps, TerminalSteps]:
        """Return the agents that want a decision and those that ended since the last step; see `BaseEnv`.

        :raises UnityActionException: the behaviour is unknown.
        """
        return self._behavior(behavior_name).steps

    def _behavior(self, name: BehaviorName) -> UnityBehavior:
        self._check_open()
        if not self._has_started:
            raise UnityEnvironmentException(f"{self._who} has not started: call reset() first.")
        if self._under_way is not None:
            raise UnityEnvironmentException(f"{self._who}: a step is under way: call step_wait() first.")
        if name not in self._behaviors:
            raise UnityActionException(
                f"The environment has no behavior {name}: it has {', '.join(self._behaviors) or 'none so far'}."
                f"{did_you_mean(name, self._behaviors)}"
            )
        return self._behaviors[name]

    def _check_open(self) -> None:
        if not self._end.alive:
            raise UnityEnvironmentException(f"{self._who} is closed: make a new one.")

    def close(self) -> None:
        """Say goodbye, wait until the executable has ended, and end it if it does not; again, it does nothing.

        This also happens when the environment is no longer used, and when the interpreter ends.
        """
        self._end()


# Libraries that take environments of ML-Agents (TorchRL) ask for this type; those of Python have the same interface.
UnityEnvironment.register(LocalEnv)  # type: ignore[type-abstract]


def _end(communicator: Communicator, process: EnvProcess) -> None:
    try:
        communicator.close()
    finally:
        process.stop(_CLOSE_GRACE_S)


def _log_path_in(args: List[str]) -> Optional[str]:
    """Return the log file that a user's own arguments ask for."""
    for word, following in itertools.pairwise(args):
        if word.lower() == "-logfile":
            return following
    return None


def _check_version(theirs: UnityRLInitializationOutputProto, ours: str) -> None:
    """Raise unless both ends speak the same major version."""
    version = theirs.communication_version
    their_major, our_major = version.partition(".")[0], ours.partition(".")[0]
    if their_major == our_major:
        return
    is_newer = their_major.isdecimal() and int(their_major) > int(our_major)
    what_to_update = "this package, mlagents_envs" if is_newer else "the environment's package, com.unity.ml-agents"
    raise UnityEnvironmentException(
        f"it speaks version {version!r} of the communication (com.unity.ml-agents {theirs.package_version}), and this "
        f"trainer version {ours!r} (mlagents_envs {mlagents_envs.__version__}): the first number must be the same. "
        f"Update {what_to_update}."
    )
