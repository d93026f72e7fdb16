"""Settings of what a run varies in its environment: constants, samplers, and curricula of them."""

import abc
from enum import Enum
from typing import TYPE_CHECKING, List, Optional, Tuple

import attr

from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings.fields import FINITE, FRACTION, NOT_NEGATIVE, SettingValueError, setting

if TYPE_CHECKING:
    from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel


class ParameterRandomizationType(Enum):
    """How the value of an environment parameter comes about."""

    UNIFORM = "uniform"
    GAUSSIAN = "gaussian"
    MULTIRANGEUNIFORM = "multirangeuniform"
    CONSTANT = "constant"

    def to_settings(self) -> type:
        """Return the settings class of this kind of sampler."""
        return _SAMPLER_CLASSES[self]


@attr.s(auto_attribs=True)
class ParameterRandomizationSettings(abc.ABC):
    """A sampler: it draws a parameter's value in the environment at every episode."""

    seed: int = setting(-1, help="Seed of the draws; -1 for the run's.")

    @abc.abstractmethod
    def apply(self, key: str, env_channel: "EnvironmentParametersChannel") -> None:
        """Tell the environment to draw the parameter `key` in this way from now on."""

    @property
    def sampler_type(self) -> ParameterRandomizationType:
        """The name of this kind of sampler."""
        return next(kind for kind, cls in _SAMPLER_CLASSES.items() if isinstance(self, cls))


@attr.s(auto_attribs=True)
class ConstantSettings(ParameterRandomizationSettings):
    """Always the same value."""

    value: float = setting(0.0, help="The value.", check=FINITE)

    def apply(self, key: str, env_channel: "EnvironmentParametersChannel") -> None:
        """Set the parameter `key`."""
        env_channel.set_float_parameter(key, self.value)


@attr.s(auto_attribs=True)
class UniformSettings(ParameterRandomizationSettings):
    """Every value of an interval equally likely."""

    min_value: float = setting(0.0, help="Lower end of the interval.", check=FINITE)
    max_value: float = setting(1.0, help="Upper end of the interval.", check=FINITE)

    def __attrs_post_init__(self) -> None:
        """Check the order of the ends."""
        _check_interval("min_value", self.min_value, self.max_value)

    def apply(self, key: str, env_channel: "EnvironmentParametersChannel") -> None:
        """Have the parameter `key` drawn from the interval."""
        env_channel.set_uniform_sampler_parameters(key, self.min_value, self.max_value, self.seed)


@attr.s(auto_attribs=True)
class GaussianSettings(ParameterRandomizationSettings):
    """Values around a mean."""

    mean: float = setting(1.0, help="Mean of the values.", check=FINITE)
    st_dev: float = setting(1.0, help="Standard deviation of the values.", check=NOT_NEGATIVE)

    def apply(self, key: str, env_channel: "EnvironmentParametersChannel") -> None:
        """Have the parameter `key` drawn from the normal distribution."""
        env_channel.set_gaussian_sampler_parameters(key, self.mean, self.st_dev, self.seed)


@attr.s(auto_attribs=True)
class MultiRangeUniformSettings(ParameterRandomizationSettings):
    """Values of several intervals: one is drawn in proportion to its width, then a value from it."""

    intervals: List[Tuple[float, float]] = setting(
        attr.Factory(lambda: [(0.0, 1.0)]), help="The intervals, each [min, max]."
    )

    def __attrs_post_init__(self) -> None:
        """Check that there are intervals, and the order of their ends."""
        if not self.intervals:
            raise SettingValueError("intervals", "at least one interval [min, max] is needed")
        for low, high in self.intervals:
            _check_interval("intervals", low, high)

    def apply(self, key: str, env_channel: "EnvironmentParametersChannel") -> None:
        """Have the parameter `key` drawn from the intervals."""
        env_channel.set_multirangeuniform_sampler_parameters(key, self.intervals, self.seed)


_SAMPLER_CLASSES = {
    ParameterRandomizationType.UNIFORM: UniformSettings,
    ParameterRandomizationType.GAUSSIAN: GaussianSettings,
    ParameterRandomizationType.MULTIRANGEUNIFORM: MultiRangeUniformSettings,
    ParameterRandomizationType.CONSTANT: ConstantSettings,
}


def _check_interval(field: str, low: float, high: float) -> None:
    if low > high:
        raise SettingValueError(field, f"{low} is not allowed; it must be at most the maximum, {high}")


@attr.s(auto_attribs=True)
class CompletionCriteriaSettings:
    """When a lesson is over."""

    class MeasureType(Enum):
        """What is compared with the threshold."""

        PROGRESS = "progress"
        REWARD = "reward"

    behavior: str = setting(help="The behaviour whose progress or reward is measured.")
    measure: MeasureType = setting(MeasureType.REWARD, help="progress (steps / max_steps) or mean reward.")
    min_lesson_length: int = setting(0, help="Episodes that a lesson lasts at least.", check=NOT_NEGATIVE)
    signal_smoothing: bool = setting(True, help="Smooth the measure with its previous values.")
    threshold: float = setting(0.0, help="The lesson is over when the measure is above this.", check=FINITE)
    require_reset: bool = setting(False, help="Reset the environment when the lesson changes.")

    def __attrs_post_init__(self) -> None:
        """Check that a progress can reach the threshold."""
        if self.measure is self.MeasureType.PROGRESS and not FRACTION.contains(self.threshold):
            raise SettingValueError(
                "threshold", f"{self.threshold} is not allowed; for measure: progress it must be {FRACTION}"
            )


@attr.s(auto_attribs=True)
class Lesson:
    """One stage of a curriculum."""

    value: ParameterRandomizationSettings = setting(help="The parameter in this lesson: a number or a sampler.")
    name: str = setting(help="What the lesson is called in the logs.")
    completion_criteria: Optional[CompletionCriteriaSettings] = setting(
        None, help="When the next lesson begins; null for the last one."
    )


@attr.s(auto_attribs=True)
class EnvironmentParameterSettings:
    """The lessons of one environment parameter; a constant or a sampler is a single lesson."""

    curriculum: List[Lesson] = setting(help="The lessons in their order.")

    def __attrs_post_init__(self) -> None:
        """Check that there are lessons and that each but the last one can end."""
        if not self.curriculum:
            raise SettingValueError("curriculum", "at least one lesson is needed")
        for lesson in self.curriculum[:-1]:
            if lesson.completion_criteria is None:
                raise TrainerConfigError(
                    f"lesson {lesson.name!r} is not the last one and needs completion_criteria, or it would never end"
                )
