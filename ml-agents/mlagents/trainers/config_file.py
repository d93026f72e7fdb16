"""Reading a YAML configuration file, with the line of every key."""

from typing import Any, Dict, Iterator, NamedTuple, Tuple

import yaml

from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings.places import KeyPath, Places


class ConfigFile(NamedTuple):
    """What a configuration file holds, as plain data, and where each key stands."""

    options: Dict[str, Any]
    places: Places


def load_config_file(path: str) -> ConfigFile:
    """Read a configuration file.

    Raises `TrainerConfigError` for a file that cannot be read, that is not YAML, or that is not a mapping of keys.
    """
    text = _read_text(path)
    try:
        return _parse(text, path)
    except yaml.YAMLError as error:
        raise TrainerConfigError(f"{path}:{_syntax_error(text, error)}") from None
    except ValueError as error:  # a value that does not fit the !!tag before it
        raise TrainerConfigError(f"{path}: {error}.") from None
    except RecursionError:
        raise TrainerConfigError(f"{path}: its sections are nested too deeply, or contain themselves.") from None


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except FileNotFoundError:
        raise TrainerConfigError(f"{path}: there is no such configuration file.") from None
    except IsADirectoryError:
        raise TrainerConfigError(f"{path}: this is a folder; a configuration file (.yaml) is needed.") from None
    except UnicodeDecodeError as error:
        raise TrainerConfigError(
            f"{path}: the file is not UTF-8 text (byte {error.start}: {error.reason}); save it as UTF-8."
        ) from None
    except OSError as error:
        raise TrainerConfigError(f"{path}: the file cannot be read: {error.strerror}.") from None


class _Loader(yaml.SafeLoader):
    """The safe loader, except that what looks like a date stays text, such as a run id."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _parse(text: str, path: str) -> ConfigFile:
    loader = _Loader(text)
    root = loader.get_single_node()
    if root is None:
        raise TrainerConfigError(f"{path}: the file is empty; it should hold behaviors: and their settings.")
    if not isinstance(root, yaml.MappingNode):
        line = root.start_mark.line + 1
        raise TrainerConfigError(f"{path}:{line}: expected a mapping of keys at the top level, such as behaviors:.")
    places = Places()
    places.set((), path)
    for key_path, line in _lines(root, (), path).items():
        places.set(key_path, f"{path}:{line}")
    return ConfigFile(loader.construct_document(root), places)


def _lines(node: yaml.Node, above: KeyPath, path: str) -> Dict[KeyPath, int]:
    """Return the line of every key below a node. Raises `TrainerConfigError` for a key that is there twice."""
    lines: Dict[KeyPath, int] = {}
    merged: Dict[KeyPath, int] = {}
    for key, line, value in _items(node):
        if key == "<<":
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                merged = {**_lines(source, above, path), **merged}
            continue
        key_path = (*above, key)
        if key_path in lines:
            raise TrainerConfigError(
                f"{path}:{line}: {key} is there twice in its section, first in line {lines[key_path]}; remove one."
            )
        lines[key_path] = line
        lines.update(_lines(value, key_path, path))
    return {**merged, **lines}


def _items(node: yaml.Node) -> Iterator[Tuple[str, int, yaml.Node]]:
    """Yield the entries of a mapping or a list: key, line, value."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield f"[{i}]", value.start_mark.line + 1, value


def _syntax_error(text: str, error: yaml.YAMLError) -> str:
    """Say where, by line and column, a text is not YAML, and why."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"{line}: this is not YAML: the character {chr(error.character)!r} is not allowed."
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f" this is not YAML: {error}"
    mark = error.problem_mark
    hint = " Indent with spaces, not tabs." if "'\\t'" in str(error.problem) else ""
    context = f" {error.context}:" if error.context else ""
    return f"{mark.line + 1}: column {mark.column + 1}: this is not YAML:{context} {error.problem}.{hint}"
