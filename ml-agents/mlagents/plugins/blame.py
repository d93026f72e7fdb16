"""Whose code an error comes from: the plug-in to name, the place in it, and the traceback cut to it."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from dataclasses import dataclass
from types import FrameType
from typing import Any, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

from mlagents.plugins.discovery import Plugin, PluginError
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

_MISFIT_CALL = re.compile(r"([\w.]+)\(\) (?:got|takes|missing) ")
"""How Python words a call with arguments that the function does not take; by then the function has no frame."""


@dataclass(frozen=True)
class Culprit:
    """A plug-in, and how an error came from it."""

    plugin: Plugin
    error: BaseException
    place: str
    """What failed, and where it stands: ``Class.method (file:line)``."""
    raised_it: bool
    """Whether the plug-in's own code raised the error, rather than something that it called or is called by."""
    report: str
    """The traceback, of the plug-in's frames only; empty if it has none."""

    def __str__(self) -> str:
        message = f"plug-in {self.plugin} failed in {self.place}: {describe_error(self.error)}"
        return f"{message}\n{self.report}" if self.report else message


def find_culprit(error: BaseException, plugins: Iterable[Plugin]) -> Optional[Culprit]:
    """Return the plug-in that an error comes from; None if that is none of `plugins`.

    It is the one whose code ran last before the error, or in which our code misses what it wants to use. Else it is the
    one whose object was at work in code of ours that it inherits; its frames are then those from there on.
    """
    plugins = list(plugins)
    frames = list(traceback.walk_tb(error.__traceback__))
    for index, (frame, line) in reversed(list(enumerate(frames))):
        plugin = _owner(_module_of(frame), plugins)
        if plugin is not None:
            is_innermost = index == len(frames) - 1
            return Culprit(plugin, error, _frame_place(frame, line), is_innermost, cut_traceback(error, plugin))
    for thing in _missed(error):
        plugin = _owner(getattr(thing, "__module__", None), plugins)
        if plugin is not None:
            return Culprit(plugin, error, f"{thing.__qualname__} ({place_of(thing)})", raised_it=False, report="")
    for frame, line in reversed(frames):
        plugin = _owner(_module_of_self(frame), plugins)
        if plugin is not None:
            return Culprit(plugin, error, _frame_place(frame, line), False, _inherited_traceback(error, plugin))
    return None


def explain_broken(plugin: Plugin) -> str:
    """Say at length why a plug-in cannot be used, with the traceback of its own code."""
    error = plugin.error
    assert error is not None
    culprit = find_culprit(error, [plugin])
    if culprit is not None:
        return str(culprit)
    shows_place = f"\n{cut_traceback(error, plugin)}" if isinstance(error, SyntaxError) else ""
    return f"plug-in {plugin} cannot be used: {describe_error(error)}{shows_place}"


def warn_of_broken(plugin: Plugin) -> None:
    """Log a warning, a line, that a plug-in cannot be used, and why."""
    logger.warning(
        f"The plug-in {plugin} cannot be used: {summarize_broken(plugin)}. "
        f"Repair it, or remove it: pip uninstall {plugin.distribution}"
    )


def summarize_broken(plugin: Plugin) -> str:
    """Say in a line why a plug-in cannot be used, and where it fails."""
    error = plugin.error
    assert error is not None
    culprit = find_culprit(error, [plugin])
    return describe_error(error).partition("\n")[0] + (f" in {culprit.place}" if culprit else "")


def describe_error(error: BaseException) -> str:
    """Return ``Type: message``; of a `PluginError` the message, which says it all."""
    if isinstance(error, PluginError):
        return str(error)
    message = str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def cut_traceback(error: BaseException, plugin: Plugin) -> str:
    """Return the traceback of an error and of its causes, without the frames of code that is not the plug-in's."""
    return _format(error, lambda frames: [_owner(_module_of(frame), [plugin]) is not None for frame in frames])


def place_of(thing: Any) -> str:
    """Return where a function or class is written, ``file:line``; empty if that is not known."""
    try:
        thing = inspect.unwrap(thing)
        code = getattr(thing, "__code__", None)
        if code is not None:
            return f"{code.co_filename}:{code.co_firstlineno}"
        return f"{inspect.getfile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return ""


def _owner(module: Optional[str], plugins: Sequence[Plugin]) -> Optional[Plugin]:
    """Return the plug-in that a module belongs to; of several in one package, the one whose module is nearest."""
    names = (module or "").split(".")
    owners = [plugin for plugin in plugins if names[0] in plugin.packages]

    def names_in_common(plugin: Plugin) -> int:
        pairs = list(zip(names, plugin.value.partition(":")[0].split(".")))
        return next((i for i, (one, other) in enumerate(pairs) if one != other), len(pairs))

    return max(owners, key=names_in_common, default=None)


def _module_of(frame: FrameType) -> Optional[str]:
    name: Optional[str] = frame.f_globals.get("__name__")
    return name


def _module_of_self(frame: FrameType) -> Optional[str]:
    return type(frame.f_locals["self"]).__module__ if "self" in frame.f_locals else None


def _missed(error: BaseException) -> Iterator[Any]:
    """Yield what an error is about that has no frame in it: a function called with wrong arguments, a lacking class."""
    if isinstance(error, AttributeError) and error.obj is not None:
        yield error.obj if isinstance(error.obj, type) else type(error.obj)
    match = _MISFIT_CALL.match(str(error)) if isinstance(error, TypeError) else None
    for module in list(sys.modules.values()) if match else []:
        found: Any = module
        for name in match[1].split(".") if match else []:
            found = inspect.getattr_static(found, name, None)
        if callable(found) and getattr(found, "__module__", None) == getattr(module, "__name__", ""):
            yield found


def _frame_place(frame: FrameType, line: int) -> str:
    name = frame.f_code.co_name
    if name == "<module>":
        name = f"the import of {_module_of(frame)}"
    elif "self" in frame.f_locals:
        name = f"{type(frame.f_locals['self']).__name__}.{name}"
    return f"{name} ({frame.f_code.co_filename}:{line})"


def _inherited_traceback(error: BaseException, plugin: Plugin) -> str:
    """Return the traceback from where an object of the plug-in came to work in code that it inherits."""

    def keep(frames: List[FrameType]) -> List[bool]:
        is_its_own = [_owner(_module_of_self(frame), [plugin]) is not None for frame in frames]
        return [any(is_its_own[: index + 1]) for index in range(len(frames))]

    return _format(error, keep)


def _format(error: BaseException, keep: Callable[[List[FrameType]], List[bool]]) -> str:
    """Return a traceback of those frames of an error, and of its causes, that `keep` picks."""
    report = traceback.TracebackException.from_exception(error)
    pairs: List[Tuple[traceback.TracebackException, BaseException]] = [(report, error)]
    for part, raised in pairs:
        frames = [frame for frame, _ in traceback.walk_tb(raised.__traceback__)]
        kept = [summary for summary, is_kept in zip(part.stack, keep(frames)) if is_kept]
        part.stack = traceback.StackSummary.from_list(kept)
        if part.__cause__ is not None and raised.__cause__ is not None:
            pairs.append((part.__cause__, raised.__cause__))
        if part.__context__ is not None and raised.__context__ is not None:
            pairs.append((part.__context__, raised.__context__))
    return "".join(report.format()).rstrip()
