"""The registry of environments, and the one that holds the built-in ones."""

from typing import Any, Dict, Iterator, Mapping

from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.registry.base_registry_entry import BaseRegistryEntry
from mlagents_envs.registry.builtin_entry import BuiltinRegistryEntry
from mlagents_envs.spelling import did_you_mean


class UnknownEnvironmentException(UnityEnvironmentException, KeyError):
    """No environment of that name is registered. A KeyError as well, so that a registry is a proper mapping."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # a KeyError would show its message in quotation marks


class UnityEnvRegistry(Mapping):  # type: ignore[type-arg]
    """Environments by name, in the order of registration."""

    def __init__(self) -> None:
        self._entries: Dict[str, BaseRegistryEntry] = {}

    def register(self, new_entry: BaseRegistryEntry) -> None:
        """Add an entry under its identifier, in the place of one that has it already."""
        self._entries[new_entry.identifier] = new_entry

    def register_from_yaml(self, path_to_yaml: str) -> None:
        """Add the entries of a manifest, all of them or none; see `mlagents_envs.registry.manifest`.

        :raises UnityEnvironmentException: the manifest cannot be read; the message names file, entry and key.
        """
        from mlagents_envs.registry.manifest import read_manifest  # loads what fetches from the net

        for entry in read_manifest(path_to_yaml):
            self.register(entry)

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()

    def __getitem__(self, identifier: str) -> BaseRegistryEntry:
        """Return the entry of that name.

        :raises UnknownEnvironmentException: there is none; the message lists what there is.
        """
        try:
            return self._entries[identifier]
        except KeyError:
            raise UnknownEnvironmentException(
                f"There is no environment {identifier!r} in the registry.{did_you_mean(identifier, self._entries)} "
                f"It holds: {', '.join(self._entries) or 'nothing'}."
            ) from None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        yield from self._entries


default_registry = UnityEnvRegistry()
default_registry.register(
    BuiltinRegistryEntry(
        "3DBall",
        100.0,
        "Twelve agents, each of which tilts a cube to keep a ball on it.",
        "mlagents_envs.builtin.ball3d:Ball3DEnv",
    )
)
default_registry.register(
    BuiltinRegistryEntry(
        "Basic",
        0.93,
        "One agent on a line, which has to pass by a small reward to reach a large one.",
        "mlagents_envs.builtin.basic:BasicEnv",
    )
)
default_registry.register(
    BuiltinRegistryEntry(
        "GridWorld",
        0.8,
        "Sixteen agents, each of which sees its grid from above and is told which of two goals to go to.",
        "mlagents_envs.builtin.gridworld:GridWorldEnv",
    )
)
default_registry.register(
    BuiltinRegistryEntry(
        "Hallway",
        0.8,
        "Sixteen agents, each of which sees a symbol once and acts on it at the end of a hallway.",
        "mlagents_envs.builtin.hallway:HallwayEnv",
    )
)
default_registry.register(
    BuiltinRegistryEntry(
        "Sorter",
        0.8,
        "Sixteen agents, each of which points at numbered tiles in ascending order.",
        "mlagents_envs.builtin.sorter:SorterEnv",
    )
)
