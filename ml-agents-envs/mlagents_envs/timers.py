"""Hierarchical timers: where the time goes, as a tree of named blocks.

A block is timed with ``with hierarchical_timer("name"):`` or, a whole function, with ``@timed``. A block entered inside
another one becomes its child, so the same function shows up once under each caller. Every thread has a stack of its
own. A use costs about a microsecond, little enough for a block that is entered at every step.

    >>> stack = TimerStack()
    >>> with hierarchical_timer("outer", stack), hierarchical_timer("inner", stack):
    ...     pass
    >>> list(stack.get_timing_tree()["children"]["outer"]["children"])
    ['inner']
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from types import TracebackType
from typing import Any, Callable, Dict, Optional, Type, TypeVar, cast
from weakref import WeakKeyDictionary

TIMER_FORMAT_VERSION = "0.1.0"

FuncT = TypeVar("FuncT", bound=Callable[..., Any])


class TimerNode:
    """The time spent in one block, in seconds, and in the blocks inside it."""

    __slots__ = ("children", "count", "is_parallel", "total")

    def __init__(self) -> None:
        self.children: Dict[str, TimerNode] = {}
        self.total = 0.0
        self.count = 0
        self.is_parallel = False

    def get_child(self, name: str) -> TimerNode:
        """Return the child of that name, made when it is not there yet."""
        child = self.children.get(name)
        if child is None:
            child = self.children[name] = TimerNode()
        return child

    def add_time(self, elapsed: float) -> None:
        """Count one more visit, of `elapsed` seconds."""
        self.total += elapsed
        self.count += 1

    def merge(self, other: TimerNode, root_name: Optional[str] = None, is_parallel: bool = True) -> None:
        """Add the times of another tree, such as a worker's, to this one.

        :param root_name: the child to add it under; without it, it is added to this node itself.
        :param is_parallel: the other's time passed beside this node's, so that children may add up to more than
            their parent.
        """
        node = self.get_child(root_name) if root_name else self
        node.total += other.total
        node.count += other.count
        node.is_parallel |= is_parallel
        for name, child in other.children.items():
            node.get_child(name).merge(child, is_parallel=is_parallel)


class GaugeNode:
    """A value watched over time: the newest, the extremes, and how often it was set."""

    __slots__ = ("count", "max_value", "min_value", "value")

    def __init__(self, value: float):
        self.value = self.min_value = self.max_value = float(value)
        self.count = 1

    def update(self, new_value: float) -> None:
        """Take a new value."""
        self.value = float(new_value)
        self.min_value = min(self.min_value, self.value)
        self.max_value = max(self.max_value, self.value)
        self.count += 1

    def merge(self, other: GaugeNode) -> None:
        """Take over another gauge's values as newer than this one's."""
        self.value = other.value
        self.min_value = min(self.min_value, other.min_value)
        self.max_value = max(self.max_value, other.max_value)
        self.count += other.count

    def as_dict(self) -> Dict[str, float]:
        """Return the gauge as it stands in the JSON file."""
        return {"value": self.value, "min": self.min_value, "max": self.max_value, "count": self.count}


class TimerStack:
    """The timer tree of one thread, and the blocks of it that are open now."""

    __slots__ = ("__weakref__", "gauges", "metadata", "root", "stack", "start_time")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all times, gauges and metadata. Blocks that are open now leave no trace in the new tree."""
        self.root = TimerNode()
        self.stack = [self.root]
        self.start_time = time.perf_counter()
        self.gauges: Dict[str, GaugeNode] = {}
        self.metadata: Dict[str, str] = {
            "timer_format_version": TIMER_FORMAT_VERSION,
            "start_time_seconds": str(int(time.time())),
            "python_version": sys.version,
            "command_line_arguments": " ".join(sys.argv),
        }

    def push(self, name: str) -> TimerNode:
        """Open the block `name` inside the innermost open one."""
        children = self.stack[-1].children  # this, and what closes a block, is written out: it runs at every step
        node = children.get(name)
        if node is None:
            node = children[name] = TimerNode()
        self.stack.append(node)
        return node

    def pop(self) -> None:
        """Close the innermost block."""
        if len(self.stack) > 1:  # a reset inside a block has left only the root
            self.stack.pop()

    def get_root(self) -> TimerNode:
        """Return the root, whose time is all the time since the start or the last reset."""
        self.root.total = time.perf_counter() - self.start_time
        self.root.count = 1
        return self.root

    def get_timing_tree(self, node: Optional[TimerNode] = None) -> Dict[str, Any]:
        """Return the tree below `node` as JSON-able dicts; without `node` the whole, with gauges and metadata."""
        if node is not None:
            return _as_dict(node)
        self.add_metadata("end_time_seconds", str(int(time.time())))
        return {
            "name": "root",
            "gauges": {name: gauge.as_dict() for name, gauge in self.gauges.items()},
            "metadata": dict(self.metadata),
            **_as_dict(self.get_root()),
        }

    def set_gauge(self, name: str, value: float) -> None:
        """Set a gauge, made when it is not there yet."""
        if name in self.gauges:
            self.gauges[name].update(value)
        else:
            self.gauges[name] = GaugeNode(value)

    def add_metadata(self, key: str, value: str) -> None:
        """Note a fact about the run."""
        self.metadata[key] = value


def _as_dict(node: TimerNode) -> Dict[str, Any]:
    """Return a node and what is below it; `self` is the time that no child accounts for."""
    tree: Dict[str, Any] = {"total": node.total, "count": node.count}
    if node.is_parallel:
        tree["is_parallel"] = True
    tree["self"] = max(0.0, node.total - sum(child.total for child in node.children.values()))
    if node.children:
        tree["children"] = {name: _as_dict(child) for name, child in node.children.items()}
    return tree


_stacks: WeakKeyDictionary[threading.Thread, TimerStack] = WeakKeyDictionary()


class _ThreadLocal(threading.local):
    """Holds the calling thread's stack; `threading.local` runs this constructor once per thread."""

    def __init__(self) -> None:
        self.stack = _stacks[threading.current_thread()] = TimerStack()


_local = _ThreadLocal()


def get_timer_stack_for_thread(t: threading.Thread) -> Optional[TimerStack]:
    """Return the stack of a thread, also after its end; None when it has never used a timer."""
    return _stacks.get(t)


class hierarchical_timer:
    """Context manager that times a block and gives its `TimerNode`.

    A class rather than a generator function, which would cost several times as much per use.

    :param timer_stack: the stack to use; the calling thread's own by default.
    """

    __slots__ = ("_name", "_node", "_stack", "_start")

    def __init__(self, name: str, timer_stack: Optional[TimerStack] = None):
        self._name = name
        self._stack = _local.stack if timer_stack is None else timer_stack

    def __enter__(self) -> TimerNode:
        self._node = self._stack.push(self._name)
        self._start = time.perf_counter()
        return self._node

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        node = self._node
        node.total += time.perf_counter() - self._start
        node.count += 1
        self._stack.pop()


def timed(func: FuncT) -> FuncT:
    """Time every call of the decorated function under its qualified name."""
    name = func.__qualname__

    @functools.wraps(func)
    def timed_func(*args: Any, **kwargs: Any) -> Any:
        stack = _local.stack
        node = stack.push(name)
        start = time.perf_counter()
        try:
            return func(*args, **kwargs)
        finally:
            node.total += time.perf_counter() - start
            node.count += 1
            stack.pop()

    return cast(FuncT, timed_func)


def _or_own(timer_stack: Optional[TimerStack]) -> TimerStack:
    return _local.stack if timer_stack is None else timer_stack


def set_gauge(name: str, value: float, timer_stack: Optional[TimerStack] = None) -> None:
    """Set a gauge of the calling thread's stack, or of `timer_stack`."""
    _or_own(timer_stack).set_gauge(name, value)


def merge_gauges(gauges: Dict[str, GaugeNode], timer_stack: Optional[TimerStack] = None) -> None:
    """Merge gauges, such as a worker's, into those of the same names; the given ones are left as they are."""
    own = _or_own(timer_stack).gauges
    for name, gauge in gauges.items():
        if name not in own:
            own[name] = GaugeNode(gauge.value)
            own[name].count = 0
        own[name].merge(gauge)


def add_metadata(key: str, value: str, timer_stack: Optional[TimerStack] = None) -> None:
    """Note a fact about the run in the calling thread's stack, or in `timer_stack`."""
    _or_own(timer_stack).add_metadata(key, value)


def get_timer_tree(timer_stack: Optional[TimerStack] = None) -> Dict[str, Any]:
    """Return the whole tree, with gauges and metadata, as JSON-able dicts."""
    return _or_own(timer_stack).get_timing_tree()


def get_timer_root(timer_stack: Optional[TimerStack] = None) -> TimerNode:
    """Return the root node, its total brought up to now."""
    return _or_own(timer_stack).get_root()


def merge_thread(thread: threading.Thread, name: str) -> None:
    """Add the times and gauges of a thread that has ended to the calling one's: as `name`, in the innermost open block.

    They are marked as having passed beside its own.
    """
    stack = get_timer_stack_for_thread(thread)
    if stack is not None:
        _local.stack.stack[-1].merge(stack.get_root(), name)
        merge_gauges(stack.gauges)


def reset_timers(timer_stack: Optional[TimerStack] = None) -> None:
    """Forget all times, gauges and metadata."""
    _or_own(timer_stack).reset()
