"""Single values of a configuration: truth values, numbers and text, read strictly but as a YAML file may write them."""

import math
from typing import Any, Callable, Dict


def describe(value: Any) -> str:
    """Name a value, as YAML would write it, and its kind."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return f"the list {list(value)!r}"
    return repr(value)


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    unquoted = ", without quotes" if isinstance(value, str) and value.lower() in ("true", "false") else ""
    raise ValueError(f"expected true or false{unquoted}, found {describe(value)}.")


def _read_float(value: Any) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            pass
        else:
            if not math.isnan(number):
                return number
    raise ValueError(f"expected a number, found {describe(value)}.")


def _read_int(value: Any) -> int:
    """Read a whole number, which may be written ``5.0e5``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
            return int(value)
        number = _read_float(value)
    except ValueError:
        pass
    else:
        if number.is_integer():
            return int(number)
    raise ValueError(f"expected a whole number, found {describe(value)}.")


def _read_str(value: Any) -> str:
    """Read text, which YAML takes for a number when it looks like one."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"expected text, found {describe(value)}.")


SCALARS: Dict[Any, Callable[[Any], Any]] = {bool: _read_bool, int: _read_int, float: _read_float, str: _read_str}
"""How a value of each type is read; raises ValueError with what was expected and found."""
