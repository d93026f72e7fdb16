"""How a field of a settings class is declared: its default, its documentation and the values it may take."""

import inspect
import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional

import attr

from mlagents.trainers.exception import TrainerConfigError

HELP = "help"
"""Key of `attr.Attribute.metadata` under which a field's documentation stands."""


class SettingValueError(TrainerConfigError):
    """A field was given a value outside of what it allows."""

    def __init__(self, field: str, problem: str):
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True)
class Range:
    """An attrs validator: a finite number from `low` to `high`, both included unless `above` is given; None passes."""

    low: Optional[float] = None
    high: Optional[float] = None
    above: Optional[float] = None

    def __call__(self, instance: Any, attribute: "attr.Attribute[Any]", value: Any) -> None:
        """Raise `SettingValueError` for a number outside of the range."""
        if value is not None and not self.contains(value):
            raise SettingValueError(attribute.name, f"{value} is not allowed; it must be {self}")

    def contains(self, value: float) -> bool:
        """Whether a number is finite and in the range."""
        return (
            math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
        )

    @property
    def keywords(self) -> Dict[str, float]:
        """The same in the keywords of JSON Schema."""
        limits = {"minimum": self.low, "maximum": self.high, "exclusiveMinimum": self.above}
        return {keyword: limit for keyword, limit in limits.items() if limit is not None}

    def __str__(self) -> str:
        if self.above is not None:
            return f"above {self.above}"
        if self.high is not None:
            return f"from {self.low} to {self.high}"
        return "a finite number" if self.low is None else f"at least {self.low}"


POSITIVE = Range(low=1)
NOT_NEGATIVE = Range(low=0)
FRACTION = Range(low=0, high=1)
FINITE = Range()


def setting(
    default: Any = attr.NOTHING,
    *,
    help: str,
    check: Optional[Callable[[Any, "attr.Attribute[Any]", Any], Any]] = None,
    kw_only: bool = False,
) -> Any:
    """Declare a documented field of a settings class.

    :param default: its value when nothing is given (or an `attr.Factory`); without one the field is required.
    :param help: what it does, shown by ``mlagents-learn --help`` and by the reference pages.
    :param check: an attrs validator, usually a `Range`.
    """
    return attr.ib(default=default, validator=check, kw_only=kw_only, metadata={HELP: help})


def help_of(cls: type, name: str) -> str:
    """Return the documentation of a field, empty if it has none."""
    return str(attr.fields_dict(cls)[name].metadata.get(HELP, ""))


def ensure_attrs_class(cls: type) -> type:
    """Make a settings class that was written without a decorator an attrs class, in place, and return it.

    A class that is one itself is left alone. attrs takes the defaults off the classes that it decorates; here they
    stay, so that a subclass which its author decorated earlier still inherits them.
    """
    if "__attrs_attrs__" in cls.__dict__ or not attr.has(cls):
        return cls
    for base in cls.__bases__:
        ensure_attrs_class(base)
    defaults = {name: cls.__dict__[name] for name in inspect.get_annotations(cls) if name in cls.__dict__}
    attr.s(auto_attribs=True)(cls)
    for name, default in defaults.items():
        setattr(cls, name, default)
    return cls
