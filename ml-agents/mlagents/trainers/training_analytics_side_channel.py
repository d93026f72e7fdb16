"""What the Unity Editor is told of a training, for the usage statistics that its owner may have switched on."""

import hashlib
import hmac
import json
import os
import platform
import uuid
from enum import Enum
from functools import cache
from typing import Any, Mapping, Optional

import attr

import mlagents.trainers
import mlagents_envs
from mlagents.trainers.settings import (
    EnvironmentParameterSettings,
    ParameterRandomizationSettings,
    RewardSignalType,
    RunOptions,
    TrainerSettings,
)
from mlagents.trainers.settings.plain import to_plain
from mlagents_envs.communicator_objects.training_analytics_pb2 import (
    TrainingBehaviorInitialized,
    TrainingEnvironmentInitialized,
)
from mlagents_envs.object_reference import ObjectReference
from mlagents_envs.side_channel.default_training_analytics_side_channel import DefaultTrainingAnalyticsSideChannel

_PUBLIC_FIELDS = ("trainer_type", "device")
"""Settings whose text names something that everybody has; text elsewhere is the user's own."""


class TrainingAnalyticsSideChannel(DefaultTrainingAnalyticsSideChannel):
    """Tells the Editor how it is trained with: versions and settings, in which nothing can be read that a user named.

    Names of behaviours and parameters, paths, and all other text of the user's own are replaced by a keyed hash
    (HMAC-SHA256, RFC 2104). The key is that of a machine and user: equal names stay equal, and cannot be looked up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.run_options: Optional[RunOptions] = None

    def environment_initialized(self, run_options: RunOptions) -> None:  # type: ignore[override]  # of ML-Agents 1.1.0
        """Queue the versions in use and the settings of the run."""
        from mlagents.torch_utils import default_device, torch  # loads torch, which takes seconds

        self.run_options = run_options
        self._queue(
            TrainingEnvironmentInitialized(
                mlagents_version=mlagents.trainers.__version__,
                mlagents_envs_version=mlagents_envs.__version__,
                python_version=platform.python_version(),
                torch_version=torch.__version__,
                torch_device_type=default_device().type,
                num_envs=run_options.env_settings.num_envs,
                num_environment_parameters=len(run_options.environment_parameters or {}),
                run_options=_to_anonymous_json(run_options),
            )
        )

    def training_started(self, behavior_name: str, config: TrainerSettings) -> None:
        """Queue how a behaviour is trained.

        :param behavior_name: as in the configuration, without its team.
        """
        network = config.network_settings
        self._queue(
            TrainingBehaviorInitialized(
                behavior_name=_hashed(behavior_name),
                trainer_type=_public(config.trainer_type),
                extrinsic_reward_enabled=RewardSignalType.EXTRINSIC in config.reward_signals,
                gail_reward_enabled=RewardSignalType.GAIL in config.reward_signals,
                curiosity_reward_enabled=RewardSignalType.CURIOSITY in config.reward_signals,
                rnd_reward_enabled=RewardSignalType.RND in config.reward_signals,
                behavioral_cloning_enabled=config.behavioral_cloning is not None,
                recurrent_enabled=network.memory is not None,
                visual_encoder=network.vis_encode_type.value,
                num_network_layers=network.num_layers,
                num_network_hidden_units=network.hidden_units,
                trainer_threaded=config.threaded,
                self_play_enabled=config.self_play is not None,
                curriculum_enabled=self._has_curriculum(),
                config=_to_anonymous_json(config),
            )
        )

    def _has_curriculum(self) -> bool:
        parameters: Mapping[str, EnvironmentParameterSettings] = {}
        if self.run_options is not None:
            parameters = self.run_options.environment_parameters or {}
        return any(len(parameter.curriculum) > 1 for parameter in parameters.values())


def _to_anonymous_json(settings: Any) -> str:
    return json.dumps(_anonymous(settings))


def _anonymous(value: Any) -> Any:
    """Turn settings into plain data as `to_plain` does, with the user's own text hashed.

    What stays readable are numbers, and the names of fields and choices: those come from a program.
    """
    if isinstance(value, (Enum, ParameterRandomizationSettings)):  # a choice; numbers
        return to_plain(value)
    if isinstance(value, str):
        return _hashed(value)
    if attr.has(type(value)):
        return {
            field.alias: (_public if field.name in _PUBLIC_FIELDS else _anonymous)(getattr(value, field.name))
            for field in attr.fields(type(value))
            if field.init
        }
    if isinstance(value, Mapping):
        return {_anonymous(key): _anonymous(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_anonymous(item) for item in value]
    plain = to_plain(value)
    return value if plain is value else _anonymous(plain)  # a path becomes text, an array a list


def _public(name: Any) -> Any:
    """Return the name of a registered trainer or of a device as it is; a reference to code of the user's own hashed."""
    is_public = isinstance(name, str) and ObjectReference.parse(name) is None
    return name if is_public else _anonymous(name)


def _hashed(text: str) -> str:
    return hmac.new(_key(), text.encode(), hashlib.sha256).hexdigest()


@cache
def _key() -> bytes:
    """Return a key that is the same in every run of this user on this machine, and is never sent.

    A machine without a network card gets another one in every run.
    """
    return hashlib.sha256(f"{uuid.getnode()} {os.path.expanduser('~')}".encode()).digest()
