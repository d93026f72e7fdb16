"""Finding and importing plug-ins: whatever installed distributions offer in a group of entry points."""

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, FrozenSet, List, Optional

OUR_PACKAGES = frozenset({"mlagents", "mlagents_envs"})
"""Top-level packages whose code is ours, whoever registers it."""


class PluginError(Exception):
    """A plug-in does not give what is expected of it; the message, about "it", says what."""


@dataclass(frozen=True)
class Plugin:
    """One entry point, and what came of importing it: an object, or the error that it ended with."""

    name: str
    value: str
    """Where its object is, ``package.module:object``."""
    distribution: Optional[str] = None
    """The distribution that offers it; None for an object that a configuration names itself, without an entry point."""
    version: str = ""
    loaded: Any = None
    error: Optional[BaseException] = None
    packages: FrozenSet[str] = frozenset()
    """The top-level packages of its code, none of them ours."""

    def __str__(self) -> str:
        if self.distribution is None:
            return self.value
        return f"{self.name} = {self.value} (of {self.distribution} {self.version})"

    def failed(self, error: BaseException) -> "Plugin":
        """Return this plug-in with the reason why it cannot be used."""
        return replace(self, loaded=None, error=error)

    def gave(self, loaded: Any, *objects: Any) -> "Plugin":
        """Return this plug-in with what it gave.

        :param objects: functions and classes that are its own too, wherever they come from.
        """
        packages = {getattr(thing, "__module__", "").partition(".")[0] for thing in objects}
        return replace(self, loaded=loaded, packages=(self.packages | packages) - OUR_PACKAGES)


def load_plugins(group: str) -> List[Plugin]:
    """Import every plug-in of a group, in the order of their distributions' names.

    It never raises: a plug-in that fails to import is returned with its error. Who uses the group warns of it, as of
    one that imports but then misbehaves.
    """
    plugins = [_load(entry_point) for entry_point in entry_points(group=group)]
    return sorted(plugins, key=lambda plugin: (plugin.distribution or "", plugin.name))


def describe_object_at(value: str, name: str = "") -> Plugin:
    """Return the plug-in whose object is at ``package.module:object``, not imported yet; that is its default name."""
    package = value.partition(":")[0].partition(".")[0]
    return Plugin(name or value, value, packages=frozenset({package}) - OUR_PACKAGES)


def _load(entry_point: EntryPoint) -> Plugin:
    distribution = entry_point.dist
    plugin = replace(
        describe_object_at(entry_point.value, entry_point.name),
        distribution=distribution.name if distribution else "unknown",
        version=distribution.version if distribution else "",
    )
    try:
        return replace(plugin, loaded=entry_point.load())
    # Code of others may fail in any way, or end the process, and must not stop a run that does not need it.
    except (Exception, SystemExit) as error:
        return plugin.failed(error)
