"""Where each key of a configuration was set, for error messages."""

from typing import Dict, Tuple

KeyPath = Tuple[str, ...]
"""The keys from the top level down; an entry of a list counts as ``[index]``."""


class Places:
    """The place of each key path: ``FILE:LINE``, or the flag that set it."""

    def __init__(self) -> None:
        self._places: Dict[KeyPath, Tuple[str, KeyPath]] = {}

    def set(self, path: KeyPath, place: str) -> None:
        """Note where a key was set."""
        self._places[path] = (place, path)

    def inherit(self, source: KeyPath, target: KeyPath) -> None:
        """Let keys below `target` that were not set there be called by those below `source`, which they come from."""
        for path, written in list(self._places.items()):
            if path[: len(source)] == source and path != source:
                self._places.setdefault(target + path[len(source) :], written)

    def name(self, path: KeyPath) -> str:
        """Write a key path as an error message begins, ``FILE:LINE: behaviors.3DBall.max_steps``.

        A key without a place has that of the nearest section around it.
        """
        known = path
        while known and known not in self._places:
            known = known[:-1]
        place, written = self._places.get(known, ("", known))
        dotted = ".".join(written + path[len(known) :]).replace(".[", "[")
        return ": ".join(part for part in (place, dotted) if part)
