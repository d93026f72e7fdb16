"""Names of behaviours, agents and groups."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagents.trainers.behavior_id_utils import (
    BehaviorIdentifiers,
    create_name_behavior_id,
    get_global_agent_id,
    get_global_group_id,
)


@pytest.mark.parametrize(
    ("behavior_id", "name", "team"),
    [
        ("3DBall?team=0", "3DBall", 0),
        ("Striker?team=12", "Striker", 12),
        ("3DBall", "3DBall", 0),
        ("3DBall?", "3DBall", 0),
        ("3DBall?team=", "3DBall", 0),
        ("Soccer?level=3&team=2&mode=x", "Soccer", 2),
        ("Soccer?level=3", "Soccer", 0),
        # What means something in other URLs is part of a name like any other.
        ("Ball #2?team=1", "Ball #2", 1),
        ("http://ball/run?team=1", "http://ball/run", 1),
        ("//[ball?team=1", "//[ball", 1),
        (" Ball?team=1", " Ball", 1),
    ],
)
def test_a_behavior_id_says_name_and_team(behavior_id, name, team):
    parsed = BehaviorIdentifiers.from_name_behavior_id(behavior_id)
    assert parsed == BehaviorIdentifiers(behavior_id, name, team)


def test_a_behavior_id_is_name_and_team():
    assert create_name_behavior_id("3DBall", 3) == "3DBall?team=3"


@given(st.text().filter(lambda name: "?" not in name), st.integers(0, 10_000))
def test_name_and_team_come_back(name, team):
    parsed = BehaviorIdentifiers.from_name_behavior_id(create_name_behavior_id(name, team))
    assert (parsed.brain_name, parsed.team_id) == (name, team)


def test_ids_within_a_run_name_the_worker():
    assert get_global_agent_id(2, 5) == "agent_2-5"
    assert get_global_group_id(2, 5) == "group_2-5"
    assert len({get_global_agent_id(1, 23), get_global_agent_id(12, 3), get_global_group_id(1, 23)}) == 3
