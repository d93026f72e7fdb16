"""Finding and importing plug-ins: whatever installed distributions offer in a group of entry points."""

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, List, Optional

from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class Plugin:
    """One entry point, and what came of importing it: an object, or the error that it ended with."""

    name: str
    value: str
    """Where its object is, ``package.module:object``."""
    distribution: str
    version: str
    loaded: Any = None
    error: Optional[Exception] = None

    def __str__(self) -> str:
        return f"{self.name} = {self.value} (of {self.distribution} {self.version})"

    def broken(self, error: Exception) -> "Plugin":
        """Return this plug-in with the reason why it cannot be used, after a warning of it."""
        logger.warning(
            f"The plug-in {self} cannot be used: {type(error).__name__}: {error}. "
            f"Repair it, or remove it: pip uninstall {self.distribution}"
        )
        return replace(self, loaded=None, error=error)


def load_plugins(group: str) -> List[Plugin]:
    """Import every plug-in of a group, in the order of their distributions' names.

    It never raises: a plug-in that fails to import is returned with its error, and who uses the group warns of it by
    `Plugin.broken`, as of one that imports but then misbehaves.
    """
    plugins = [_load(entry_point) for entry_point in entry_points(group=group)]
    return sorted(plugins, key=lambda plugin: (plugin.distribution, plugin.name))


def _load(entry_point: EntryPoint) -> Plugin:
    distribution = entry_point.dist
    plugin = Plugin(
        name=entry_point.name,
        value=entry_point.value,
        distribution=distribution.name if distribution else "unknown",
        version=distribution.version if distribution else "",
    )
    try:
        return replace(plugin, loaded=entry_point.load())
    except Exception as error:  # code of others may fail in any way, and must not stop a run that does not need it
        return replace(plugin, error=error)
