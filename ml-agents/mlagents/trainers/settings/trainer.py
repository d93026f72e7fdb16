"""Settings of one behaviour's training."""

import copy
from typing import ClassVar, Dict, Optional

import attr

from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings.evaluation import EvaluationSettings
from mlagents.trainers.settings.fields import FINITE, FRACTION, NOT_NEGATIVE, POSITIVE, setting
from mlagents.trainers.settings.hyperparameters import BehavioralCloningSettings, HyperparamSettings
from mlagents.trainers.settings.network import NetworkSettings
from mlagents.trainers.settings.plain import ExportableSettings
from mlagents.trainers.settings.reward_signals import RewardSignalSettings, RewardSignalType
from mlagents_envs.spelling import did_you_mean


@attr.s(auto_attribs=True)
class SelfPlaySettings:
    """Training against earlier versions of the policy."""

    save_steps: int = setting(20000, help="Trainer steps between snapshots of the policy.", check=POSITIVE)
    team_change: int = setting(
        attr.Factory(lambda self: self.save_steps * 5, takes_self=True),
        help="Trainer steps between changes of the learning team; default 5 x save_steps.",
        check=POSITIVE,
    )
    swap_steps: int = setting(2000, help="Opponents' steps between changes of their snapshot.", check=NOT_NEGATIVE)
    window: int = setting(10, help="Latest snapshots from which opponents are drawn.", check=POSITIVE)
    play_against_latest_model_ratio: float = setting(
        0.5, help="Share of the games against the latest policy.", check=FRACTION
    )
    initial_elo: float = setting(1200.0, help="Rating at the start.", check=FINITE)


def _default_hyperparameters(settings: "TrainerSettings") -> HyperparamSettings:
    from mlagents.plugins.trainer_type import get_settings_class  # it knows the trainers, and they import the settings

    hyperparameters: HyperparamSettings = get_settings_class(settings.trainer_type)()
    return hyperparameters


@attr.s(auto_attribs=True)
class TrainerSettings(ExportableSettings):
    """How one behaviour is trained: an entry of `behaviors`."""

    default_override: ClassVar[Optional["TrainerSettings"]] = None
    """Settings for behaviours without an entry in runs that have no `default_settings`; None makes them an error."""

    trainer_type: str = setting(
        "ppo", help="The algorithm: ppo, sac, one that an installed plug-in gives, or package.module:Class of your own."
    )
    hyperparameters: HyperparamSettings = setting(
        attr.Factory(_default_hyperparameters, takes_self=True), help="The algorithm's own settings."
    )
    checkpoint_interval: int = setting(500000, help="Steps between checkpoints.", check=POSITIVE)
    network_settings: NetworkSettings = setting(attr.Factory(NetworkSettings), help="The policy's network.")
    reward_signals: Dict[RewardSignalType, RewardSignalSettings] = setting(
        attr.Factory(lambda: {RewardSignalType.EXTRINSIC: RewardSignalSettings()}), help="What is rewarded."
    )
    init_path: Optional[str] = setting(None, help="A checkpoint, or a folder of a behaviour, to start from.")
    keep_checkpoints: int = setting(5, help="Latest checkpoints that are kept.", check=POSITIVE)
    even_checkpoints: bool = setting(
        False, help="Spread keep_checkpoints evenly over max_steps, instead of checkpoint_interval."
    )
    max_steps: int = setting(500000, help="Agent steps of the training.", check=NOT_NEGATIVE)
    time_horizon: int = setting(64, help="Steps of an agent after which its trajectory is cut.", check=POSITIVE)
    summary_freq: int = setting(50000, help="Agent steps between two lines of statistics.", check=POSITIVE)
    threaded: bool = setting(
        False, help="Update the model while the environment goes on; runs cannot be repeated then."
    )
    self_play: Optional[SelfPlaySettings] = setting(None, help="Play against earlier selves; null for no.")
    behavioral_cloning: Optional[BehavioralCloningSettings] = setting(None, help="Imitate demonstrations; null for no.")
    evaluation: Optional[EvaluationSettings] = setting(
        None, help="Evaluate the policy now and then, and keep the best; null for no."
    )

    def __attrs_post_init__(self) -> None:
        """Derive the interval of even checkpoints."""
        if self.even_checkpoints:
            self.checkpoint_interval = max(1, self.max_steps // self.keep_checkpoints)

    class DefaultTrainerDict(Dict[str, "TrainerSettings"]):
        """Settings by behaviour name; a behaviour without an entry gets a copy of the default, or is an error."""

        default_settings: Optional["TrainerSettings"] = None
        """The default of this run."""

        def __missing__(self, behavior_name: str) -> "TrainerSettings":
            default = self.default_settings or TrainerSettings.default_override
            if default is None:
                raise TrainerConfigError(
                    f"The behavior {behavior_name} has no entry under behaviors.{did_you_mean(behavior_name, self)} "
                    f"Entries: {', '.join(self) or 'none'}. Add one for it, or default_settings for all."
                )
            self[behavior_name] = copy.deepcopy(default)
            return self[behavior_name]
