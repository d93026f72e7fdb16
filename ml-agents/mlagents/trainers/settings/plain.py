"""Settings as plain data: dicts, lists, strings and numbers, ready for YAML or JSON."""

from enum import Enum
from typing import Any, Dict, Mapping

import attr

from mlagents.trainers.settings.environment_parameters import ParameterRandomizationSettings


def to_plain(value: Any) -> Any:
    """Turn settings, and whatever they hold, into plain data that reads back equal."""
    if isinstance(value, ParameterRandomizationSettings):
        return {"sampler_type": value.sampler_type.value, "sampler_parameters": _fields_to_plain(value)}
    if attr.has(type(value)):
        return _fields_to_plain(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    if hasattr(value, "tolist"):  # numbers and arrays of NumPy
        return value.tolist()
    return str(value)


def _fields_to_plain(settings: Any) -> Dict[str, Any]:
    return {field.alias: to_plain(getattr(settings, field.name)) for field in attr.fields(type(settings)) if field.init}


class ExportableSettings:
    """Settings that are written to a file."""

    def as_dict(self) -> Dict[str, Any]:
        """Return the settings as plain data that `yaml.safe_dump` and `json.dump` write."""
        plain: Dict[str, Any] = to_plain(self)
        return plain
