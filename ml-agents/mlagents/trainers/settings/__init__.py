"""Every setting of a run, as attrs classes: mutable and without slots, so that plug-ins may add to them."""

from mlagents.trainers.settings.environment_parameters import (
    CompletionCriteriaSettings,
    ConstantSettings,
    EnvironmentParameterSettings,
    GaussianSettings,
    Lesson,
    MultiRangeUniformSettings,
    ParameterRandomizationSettings,
    ParameterRandomizationType,
    UniformSettings,
)
from mlagents.trainers.settings.evaluation import EvaluationSettings
from mlagents.trainers.settings.fields import SettingValueError, ensure_attrs_class, setting
from mlagents.trainers.settings.hyperparameters import (
    ActorCriticSettings,
    BehavioralCloningSettings,
    HyperparamSettings,
    OffPolicyHyperparamSettings,
    OnPolicyHyperparamSettings,
)
from mlagents.trainers.settings.network import (
    ConditioningType,
    EncoderType,
    NetworkSettings,
    ScheduleType,
    SerializationSettings,
)
from mlagents.trainers.settings.plain import ExportableSettings
from mlagents.trainers.settings.reward_signals import (
    CuriositySettings,
    GAILSettings,
    RewardSignalSettings,
    RewardSignalType,
    RNDSettings,
)
from mlagents.trainers.settings.run import (
    CheckpointSettings,
    EngineSettings,
    EnvironmentSettings,
    RunOptions,
    TorchSettings,
)
from mlagents.trainers.settings.trainer import SelfPlaySettings, TrainerSettings

__all__ = [
    "ActorCriticSettings",
    "BehavioralCloningSettings",
    "CheckpointSettings",
    "CompletionCriteriaSettings",
    "ConditioningType",
    "ConstantSettings",
    "CuriositySettings",
    "EncoderType",
    "EngineSettings",
    "EnvironmentParameterSettings",
    "EnvironmentSettings",
    "EvaluationSettings",
    "ExportableSettings",
    "GAILSettings",
    "GaussianSettings",
    "HyperparamSettings",
    "Lesson",
    "MultiRangeUniformSettings",
    "NetworkSettings",
    "OffPolicyHyperparamSettings",
    "OnPolicyHyperparamSettings",
    "ParameterRandomizationSettings",
    "ParameterRandomizationType",
    "RNDSettings",
    "RewardSignalSettings",
    "RewardSignalType",
    "RunOptions",
    "ScheduleType",
    "SelfPlaySettings",
    "SerializationSettings",
    "SettingValueError",
    "TorchSettings",
    "TrainerSettings",
    "UniformSettings",
    "ensure_attrs_class",
    "setting",
]
