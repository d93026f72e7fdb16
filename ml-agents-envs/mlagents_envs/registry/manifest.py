"""Manifests: YAML files that name environments and say where they are."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.registry.base_registry_entry import BaseRegistryEntry
from mlagents_envs.registry.binary_utils import load_local_manifest, load_remote_manifest
from mlagents_envs.registry.local_registry_entry import LocalRegistryEntry
from mlagents_envs.registry.remote_registry_entry import RemoteRegistryEntry
from mlagents_envs.spelling import did_you_mean

_PLATFORMS = ("linux", "darwin", "win")
_KEYS: Dict[str, Tuple[type, ...]] = {
    "expected_reward": (int, float),
    "description": (str,),
    "additional_args": (list,),
    "path": (str,),
    **{f"{platform}_url": (str,) for platform in _PLATFORMS},
    **{f"{platform}_sha256": (str,) for platform in _PLATFORMS},
}
"""What an entry may have, and of what type."""

_MOST_MANIFESTS = 50


def read_manifest(path: str) -> List[BaseRegistryEntry]:
    """Return the entries of a manifest and of those that it names by their URLs.

    :raises UnityEnvironmentException: one cannot be read, or holds what it may not; the message names file, entry and
        key.
    """
    return list(_entries(load_local_manifest(path), path, os.path.dirname(os.path.abspath(path)), set()))


def _entries(manifest: Any, where: str, folder: Optional[str], seen: Set[str]) -> Iterator[BaseRegistryEntry]:
    for item in manifest["environments"]:
        if isinstance(item, str):
            if item in seen:
                continue
            seen.add(item)
            if len(seen) > _MOST_MANIFESTS:
                raise UnityEnvironmentException(f"The manifest {where} leads to more than {_MOST_MANIFESTS} others.")
            yield from _entries(load_remote_manifest(item), item, None, seen)
        elif isinstance(item, dict) and len(item) == 1:
            ((name, fields),) = item.items()
            yield _entry(str(name), fields if fields is not None else {}, where, folder)
        else:
            raise UnityEnvironmentException(
                f"The manifest {where}: {item!r} is no entry. Write `- NAME:` with its keys below, or the URL of a "
                "further manifest."
            )


def _entry(name: str, fields: Any, where: str, folder: Optional[str]) -> BaseRegistryEntry:
    """Make one entry.

    :param folder: that of a local manifest; None for one from the net, which must not name files of this machine.
    """
    what = f"The manifest {where}, entry {name}"
    if not isinstance(fields, dict):
        raise UnityEnvironmentException(f"{what}: it must have keys such as `linux_url` but is {fields!r}.")
    for key, value in fields.items():
        _check_field(what, key, value)
    fields = {key: value for key, value in fields.items() if value is not None}
    arguments = [str(word) for word in fields.get("additional_args", [])]
    reward, description = fields.get("expected_reward"), fields.get("description")
    urls = {platform: fields.get(f"{platform}_url") for platform in _PLATFORMS}
    if "path" in fields:
        if folder is None:
            raise UnityEnvironmentException(f"{what}: a manifest from the net must not name a `path` of this machine.")
        if any(urls.values()):
            raise UnityEnvironmentException(f"{what}: it has both a `path` and URLs; give one of them.")
        path = os.path.normpath(os.path.join(folder, fields["path"]))
        return LocalRegistryEntry(name, reward, description, path, arguments)
    if not any(urls.values()):
        raise UnityEnvironmentException(f"{what}: it says neither by a `path` nor by a URL where the environment is.")
    for platform in _PLATFORMS:
        if f"{platform}_sha256" in fields and not urls[platform]:
            raise UnityEnvironmentException(f"{what}: it has a `{platform}_sha256` but no `{platform}_url`.")
    sums = {platform: fields[key] for platform in _PLATFORMS if (key := f"{platform}_sha256") in fields}
    return RemoteRegistryEntry(
        name, reward, description, urls["linux"], urls["darwin"], urls["win"], arguments, sha256=sums
    )


def _check_field(what: str, key: Any, value: Any) -> None:
    if key not in _KEYS:
        raise UnityEnvironmentException(
            f"{what}: there is no key `{key}`.{did_you_mean(str(key), _KEYS)} There are {', '.join(_KEYS)}."
        )
    if value is None:
        return
    if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
        raise UnityEnvironmentException(f"{what}: `{key}` is {value!r}, of type {type(value).__name__}.")
    if isinstance(value, list) and not all(isinstance(word, (str, int, float)) for word in value):
        raise UnityEnvironmentException(f"{what}: `{key}` must be a list of words but is {value!r}.")
    if key.endswith("_sha256") and not re.fullmatch("[0-9a-fA-F]{64}", str(value)):
        raise UnityEnvironmentException(f"{what}: `{key}` must have 64 hexadecimal digits but is {value!r}.")
