"""What links collection to trainers: queues, and the environment's own statistics."""

import pytest

from mlagents.trainers.agent_processor import AgentManager, AgentManagerQueue
from mlagents.trainers.stats import StatsReporter
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, vector_observation
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod

BEHAVIOR = "Ball?team=0"
SPEC = BehaviorSpec([vector_observation(3, "tilt")], ActionSpec.create_continuous(2))


@pytest.fixture(autouse=True)
def _no_statistics_left():
    StatsReporter.close_writers()
    yield
    StatsReporter.close_writers()


def take_all(queue) -> list:
    return [queue.get_nowait() for _ in range(queue.qsize())]


def test_a_queue_gives_back_in_order_and_says_when_it_is_empty():
    queue = AgentManagerQueue(BEHAVIOR)
    assert queue.behavior_id == BEHAVIOR
    assert queue.empty()
    assert queue.qsize() == 0
    with pytest.raises(AgentManagerQueue.Empty):
        queue.get_nowait()
    for item in "abc":
        queue.put(item)
    assert not queue.empty()
    assert queue.qsize() == 3
    assert take_all(queue) == ["a", "b", "c"]


def test_a_queue_with_a_bound_keeps_the_newest():
    queue = AgentManagerQueue(BEHAVIOR, maxlen=2)
    for item in "abc":
        queue.put(item)
    assert queue.maxlen == 2
    assert take_all(queue) == ["b", "c"]


def test_the_environments_own_statistics_are_reported():
    manager = AgentManager(SPEC, BEHAVIOR, StatsReporter("collection"))
    for worker_id, value in [(0, 1.0), (1, 2.0), (0, 3.0)]:
        stats = {
            "Score": [(value, StatsAggregationMethod.AVERAGE), (10 * value, StatsAggregationMethod.AVERAGE)],
            "Lesson": [(value, StatsAggregationMethod.MOST_RECENT)],
        }
        manager.record_environment_stats(stats, worker_id)
        if worker_id == 1:  # of several workers, the first speaks for all
            assert StatsReporter.stats_dict["collection"]["Lesson"] == [1.0]
    assert StatsReporter.stats_dict["collection"]["Score"] == [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]
    assert StatsReporter.stats_dict["collection"]["Lesson"] == [3.0]
