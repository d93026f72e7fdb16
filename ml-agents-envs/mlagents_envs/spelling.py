"""Hints for names that are almost right."""

import difflib
from typing import Iterable


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `` Did you mean 'X'?`` for the choice nearest to `word`, letter case aside; empty when none is near.

    >>> did_you_mean("3dbal", ["3DBall", "Basic"])
    " Did you mean '3DBall'?"
    >>> did_you_mean("Pong", ["3DBall", "Basic"])
    ''
    """
    by_lower_case = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(word.lower(), by_lower_case, n=1)
    return f" Did you mean {by_lower_case[matches[0]]!r}?" if matches else ""
