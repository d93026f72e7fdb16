"""Timers: nesting, threads, merging, what is written out."""

import json
import pickle
import threading
import time

import numpy as np
import pytest

from mlagents_envs import timers
from mlagents_envs.timers import GaugeNode, TimerNode, TimerStack, hierarchical_timer


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when it is told to; calling it moves it."""

    class Clock:
        now = 100.0

        def __call__(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(timers.time, "perf_counter", lambda: clock.now)
    return clock


@pytest.fixture(autouse=True)
def _fresh_thread_stack():
    timers.reset_timers()
    yield
    timers.reset_timers()


def test_tree_of_nested_blocks(clock):
    stack = TimerStack()
    for _ in range(2):
        with hierarchical_timer("outer", stack):
            clock(1.0)
            with hierarchical_timer("inner", stack):
                clock(0.25)
    clock(4.0)
    tree = timers.get_timer_tree(stack)
    assert tree["name"] == "root"
    assert (tree["total"], tree["count"], tree["self"]) == (6.5, 1, 4.0)
    outer = tree["children"]["outer"]
    assert outer == {
        "total": 2.5,
        "count": 2,
        "self": 2.0,
        "children": {"inner": {"total": 0.5, "count": 2, "self": 0.5}},
    }


def test_the_same_block_is_another_node_under_another_parent(clock):
    stack = TimerStack()
    for parent, seconds in (("a", 1.0), ("b", 2.0)):
        with hierarchical_timer(parent, stack), hierarchical_timer("shared", stack):
            clock(seconds)
    children = stack.get_timing_tree()["children"]
    assert children["a"]["children"]["shared"]["total"] == 1.0
    assert children["b"]["children"]["shared"]["total"] == 2.0


def test_a_block_gives_its_node_and_closes_on_error(clock):
    stack = TimerStack()
    nodes = []

    def fail():
        with hierarchical_timer("fails", stack) as node:
            nodes.append(node)
            clock(3.0)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    (node,) = nodes
    assert (node.total, node.count) == (3.0, 1)
    assert stack.root.children["fails"] is node
    assert stack.stack == [stack.root]


def test_timed_counts_calls_also_those_that_raise(clock):
    @timers.timed
    def work(seconds, *, fail=False):
        """Docstring."""
        clock(seconds)
        if fail:
            raise ValueError
        return seconds * 2

    assert work(1.5) == 3.0
    with pytest.raises(ValueError):
        work(0.5, fail=True)
    assert (work.__name__, work.__doc__) == ("work", "Docstring.")
    node = timers.get_timer_root().children[work.__qualname__]
    assert (node.total, node.count) == (2.0, 2)


def test_recursion_nests():
    @timers.timed
    def countdown(n):
        if n:
            countdown(n - 1)

    countdown(2)
    name = countdown.__qualname__
    node = timers.get_timer_root()
    for _ in range(3):
        node = node.children[name]
        assert node.count == 1
    assert not node.children


def test_reset_inside_a_block_starts_a_clean_tree():
    stack = TimerStack()
    with hierarchical_timer("open", stack):
        stack.set_gauge("g", 1.0)
        timers.reset_timers(stack)
    with hierarchical_timer("after", stack):
        pass
    tree = stack.get_timing_tree()
    assert list(tree["children"]) == ["after"]
    assert tree["gauges"] == {}


def test_each_thread_has_its_own_stack():
    def work():
        with hierarchical_timer("worker"):
            pass

    thread = threading.Thread(target=work)
    assert timers.get_timer_stack_for_thread(thread) is None
    thread.start()
    thread.join()
    with hierarchical_timer("main"):
        pass
    assert list(timers.get_timer_stack_for_thread(thread).root.children) == ["worker"]
    assert list(timers.get_timer_root().children) == ["main"]
    assert timers.get_timer_stack_for_thread(threading.current_thread()).root is timers.get_timer_root()


def _node(total, count, **children):
    node = TimerNode()
    node.total, node.count, node.children = total, count, children
    return node


def test_merge_adds_totals_and_counts_recursively():
    own = _node(10.0, 1, step=_node(4.0, 2))
    own.merge(pickle.loads(pickle.dumps(_node(6.0, 1, step=_node(5.0, 3), reset=_node(1.0, 1)))), is_parallel=False)
    assert (own.total, own.count, own.is_parallel) == (16.0, 2, False)
    assert (own.children["step"].total, own.children["step"].count) == (9.0, 5)
    assert own.children["reset"].total == 1.0


def test_merge_of_parallel_workers_under_a_name():
    stack = TimerStack()
    with hierarchical_timer("steps", stack) as node:
        for _ in range(2):
            node.merge(_node(50.0, 7), root_name="worker_root")
    tree = stack.get_timing_tree()["children"]["steps"]
    assert tree["children"]["worker_root"] == {"total": 100.0, "count": 14, "is_parallel": True, "self": 100.0}
    assert tree["self"] == 0.0  # never negative, although the workers' time is more than the parent's
    assert "is_parallel" not in tree


def test_gauges():
    stack = TimerStack()
    for value in (2.0, 5.0, 3.0):
        timers.set_gauge("reward", value, stack)
    assert stack.gauges["reward"].as_dict() == {"value": 3.0, "min": 2.0, "max": 5.0, "count": 3}

    theirs = {"reward": GaugeNode(-1.0), "other": GaugeNode(7.0)}
    theirs["other"].update(8.0)
    timers.merge_gauges(theirs, stack)
    assert stack.gauges["reward"].as_dict() == {"value": -1.0, "min": -1.0, "max": 5.0, "count": 4}
    assert stack.gauges["other"].as_dict() == {"value": 8.0, "min": 7.0, "max": 8.0, "count": 2}
    timers.set_gauge("other", 100.0, stack)
    assert theirs["other"].as_dict() == {"value": 8.0, "min": 7.0, "max": 8.0, "count": 2}


def test_tree_is_json_with_metadata():
    before = int(time.time())
    stack = TimerStack()
    timers.add_metadata("numpy_version", "2.0.0", stack)
    timers.set_gauge("loss", np.float32(0.5), stack)
    with hierarchical_timer("a", stack):
        pass
    tree = json.loads(json.dumps(timers.get_timer_tree(stack)))
    metadata = tree["metadata"]
    assert metadata["timer_format_version"] == "0.1.0"
    assert metadata["numpy_version"] == "2.0.0"
    assert before <= int(metadata["start_time_seconds"]) <= int(metadata["end_time_seconds"]) <= time.time()
    assert {"python_version", "command_line_arguments"} <= metadata.keys()
    assert tree["gauges"]["loss"]["value"] == 0.5
    assert tree["children"]["a"]["count"] == 1
