"""An environment with the trainer's ends of its side channels, in whatever process it is spoken to from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

from mlagents.trainers.settings import EngineSettings
from mlagents_envs import logging_util
from mlagents_envs.base_env import ActionTuple, BaseEnv, BehaviorName, BehaviorSpec
from mlagents_envs.env_resolver import EnvSource
from mlagents_envs.local_env import LocalEnv
from mlagents_envs.shared_steps import BehaviorSteps
from mlagents_envs.side_channel.default_training_analytics_side_channel import DefaultTrainingAnalyticsSideChannel
from mlagents_envs.side_channel.engine_configuration_channel import EngineConfig, EngineConfigurationChannel
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.raw_bytes_channel import RawBytesChannel
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.side_channel.stats_side_channel import EnvironmentStats, StatsSideChannel

logger = logging_util.get_logger(__name__)

EnvFactory = Callable[[int, List[SideChannel]], BaseEnv]
"""Makes the environment of a worker, whose id it is given, with the trainer's ends of its side channels."""


@dataclass(frozen=True)
class SourceEnvFactory:
    """Makes environments of a source; each worker has a seed of its own.

    :param seed: of worker 0.
    """

    source: EnvSource
    seed: int
    num_areas: int

    def __call__(self, worker_id: int, side_channels: List[SideChannel]) -> BaseEnv:
        """Make a worker's environment."""
        return self.source.make(
            worker_id=worker_id, seed=self.seed + worker_id, num_areas=self.num_areas, side_channels=side_channels
        )


class Observed(NamedTuple):
    """What an environment says.

    :param new_specs: of the behaviours that appeared since the last time.
    :param stats: what it reported since the last time.
    """

    results: Dict[BehaviorName, BehaviorSteps]
    new_specs: Dict[BehaviorName, BehaviorSpec]
    stats: EnvironmentStats


class EnvironmentHost:
    """Holds a worker's environment, which is made at the first reset.

    :param worker_id: whose it is.
    """

    def __init__(self, env_factory: EnvFactory, worker_id: int, engine_settings: EngineSettings):
        self._env_factory = env_factory
        self.worker_id = worker_id
        self._engine_settings = engine_settings
        self.env: Optional[BaseEnv] = None
        self.specs: Dict[BehaviorName, BehaviorSpec] = {}
        self._parameters = EnvironmentParametersChannel()
        self._stats = StatsSideChannel()
        self._analytics = RawBytesChannel(DefaultTrainingAnalyticsSideChannel.CHANNEL_ID)

    def _start(self) -> BaseEnv:
        """Make the environment; its side channels start anew as well."""
        self._parameters, self._stats = EnvironmentParametersChannel(), StatsSideChannel()
        engine = EngineConfigurationChannel()
        engine.set_configuration(engine_config(self._engine_settings))
        self.env = self._env_factory(self.worker_id, [self._parameters, engine, self._stats, self._analytics])
        self.specs = {}
        return self.env

    def reset(self, samplers: Mapping[str, Any]) -> None:
        """Begin all episodes anew, with environment parameters of samplers by name."""
        env = self.env or self._start()
        self.set_parameters(samplers)
        env.reset()

    def restart(self, samplers: Mapping[str, Any]) -> None:
        """Close the environment and begin with another one."""
        self.abandon()
        self.reset(samplers)

    def seed(self, seed: int) -> None:
        """Seed the environment anew, for what begins with the next reset, if it lives in Python."""
        env = self.env or self._start()
        if isinstance(env, LocalEnv):
            env.seed(seed)

    def step(self) -> None:
        """Simulate until the next decision."""
        assert self.env is not None  # a reset comes first
        self.env.step()

    def set_actions(self, actions: Mapping[BehaviorName, ActionTuple]) -> None:
        """Set the actions of the next step."""
        assert self.env is not None  # a reset comes first
        for behavior_id, action in actions.items():
            self.env.set_actions(behavior_id, action)

    def observe(self) -> Observed:
        """Return what the environment says now."""
        assert self.env is not None
        specs = self.env.behavior_specs
        new_specs = {name: specs[name] for name in specs if name not in self.specs}
        self.specs.update(new_specs)
        results = {name: self.env.get_steps(name) for name in specs}
        return Observed(results, new_specs, self._stats.get_and_reset_stats())

    def set_parameters(self, samplers: Mapping[str, Any]) -> None:
        """Send environment parameters of samplers by name."""
        for name, sampler in samplers.items():
            sampler.apply(name, self._parameters)

    def send_analytics(self, message: bytes) -> None:
        """Send a message on the channel of training analytics."""
        self._analytics.send_raw_data(message)

    def close(self) -> None:
        """Close the environment."""
        env, self.env = self.env, None
        if env is not None:
            env.close()

    def abandon(self) -> None:
        """Close an environment that has failed, or that nobody waits for, as well as it can be."""
        try:
            self.close()
        except Exception as error:
            logger.debug(f"The environment of worker {self.worker_id} did not close in order: {error}")


def engine_config(settings: EngineSettings) -> EngineConfig:
    """Return the settings as the engine's side channel takes them."""
    return EngineConfig(
        width=settings.width,
        height=settings.height,
        quality_level=settings.quality_level,
        time_scale=settings.time_scale,
        target_frame_rate=settings.target_frame_rate,
        capture_frame_rate=settings.capture_frame_rate,
    )
