"""What a checkpoint says of itself, so that its policy can be made anew from the file alone."""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, NamedTuple, Optional

from mlagents.trainers import __version__
from mlagents.trainers.model_saver.checkpoint_file import CheckpointError
from mlagents.trainers.settings import TrainerSettings
from mlagents.trainers.settings.places import Places
from mlagents.trainers.settings.reader import read_run_options
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType

ABOUT = "about"
"""The entry of a checkpoint that holds it."""

EVALUATED_REWARD = "evaluated_reward"
"""Its key for the reward by which a checkpoint was the best."""

FORMAT = 1


class About(NamedTuple):
    """What a checkpoint says of itself.

    :param trainer_type: by which trainer it was trained.
    :param trainer_settings: as plain data; `read_trainer_settings` makes them what they were.
    :param step: experiences trained on.
    :param mean_reward: mean return of the episodes since the last update; None if none ended.
    :param mlagents_version: of the package that wrote it.
    :param evaluated_reward: mean return of the evaluation by which it was the best so far; None for all others.
    """

    behavior_name: str
    behavior_spec: BehaviorSpec
    trainer_type: str
    trainer_settings: Dict[str, Any]
    step: int
    mean_reward: Optional[float]
    mlagents_version: str
    evaluated_reward: Optional[float] = None

    def read_trainer_settings(self, path: str | os.PathLike[str]) -> TrainerSettings:
        """Return the settings that it was trained with.

        :param path: of the checkpoint, for error messages.
        :raises TrainerConfigError: they cannot be read here; for instance, the trainer type is not installed.
        """
        places = Places()
        places.set((), os.fspath(path))
        return read_run_options({"behaviors": {self.behavior_name: self.trainer_settings}}, places).behaviors[
            self.behavior_name
        ]


def make_about(
    behavior_name: str,
    behavior_spec: BehaviorSpec,
    trainer_settings: TrainerSettings,
    step: int,
    mean_reward: Optional[float],
) -> Dict[str, Any]:
    """Return what a checkpoint says of itself, as plain data.

    The time is not part of it, so that two runs of one seed write the same files.
    """
    return {
        "format": FORMAT,
        "mlagents_version": __version__,
        "behavior_name": behavior_name,
        "step": int(step),
        "mean_reward": None if mean_reward is None else float(mean_reward),
        "observations": [_observation_to_plain(spec) for spec in behavior_spec.observation_specs],
        "actions": {
            "continuous_size": int(behavior_spec.action_spec.continuous_size),
            "discrete_branches": [int(size) for size in behavior_spec.action_spec.discrete_branches],
        },
        "trainer_settings": trainer_settings.as_dict(),
    }


def read_about(state: Mapping[str, Any], path: str | os.PathLike[str]) -> Optional[About]:
    """Return what a checkpoint says of itself; None where it says nothing, as those of ML-Agents 1.1.0.

    :param state: what the checkpoint holds.
    :param path: where it lies, for error messages.
    :raises CheckpointError: what it says is of a later version, or damaged.
    """
    if ABOUT not in state:
        return None
    plain = state[ABOUT]
    if isinstance(plain, dict) and isinstance(plain.get("format"), int) and plain["format"] > FORMAT:
        raise CheckpointError(
            f"{path} was written by a later version (mlagents {plain.get('mlagents_version')}), which this one, "
            f"{__version__}, cannot read. Install that one."
        )
    try:
        return _about_from_plain(plain)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged: what it says of itself cannot be read ({type(error).__name__}: {error})."
        ) from error


def _about_from_plain(plain: Any) -> About:
    actions, settings, mean_reward = plain["actions"], plain["trainer_settings"], plain["mean_reward"]
    evaluated_reward = plain.get(EVALUATED_REWARD)
    action_spec = ActionSpec(int(actions["continuous_size"]), tuple(map(int, actions["discrete_branches"])))
    return About(
        behavior_name=str(plain["behavior_name"]),
        behavior_spec=BehaviorSpec([_observation_from_plain(entry) for entry in plain["observations"]], action_spec),
        trainer_type=str(settings["trainer_type"]),
        trainer_settings=dict(settings),
        step=int(plain["step"]),
        mean_reward=None if mean_reward is None else float(mean_reward),
        mlagents_version=str(plain["mlagents_version"]),
        evaluated_reward=None if evaluated_reward is None else float(evaluated_reward),
    )


def _observation_to_plain(spec: ObservationSpec) -> Dict[str, Any]:
    return {
        "name": spec.name,
        "shape": [int(size) for size in spec.shape],
        "dimension_properties": [int(value) for value in spec.dimension_property],
        "type": spec.observation_type.value,
    }


def _observation_from_plain(plain: Any) -> ObservationSpec:
    return ObservationSpec(
        tuple(map(int, plain["shape"])),
        tuple(DimensionProperty(value) for value in plain["dimension_properties"]),
        ObservationType(plain["type"]),
        str(plain["name"]),
    )
