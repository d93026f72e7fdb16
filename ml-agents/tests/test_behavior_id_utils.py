"""Names of behaviours, agents and groups."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagents.trainers.behavior_id_utils import (
    BehaviorIdentifiers,
    GlobalAgentIds,
    create_name_behavior_id,
    get_global_agent_id,
    get_global_group_id,
)
from mlagents_envs.exception import UnityCommunicationException


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


def test_a_team_that_is_no_number_is_refused_by_name():
    with pytest.raises(UnityCommunicationException, match=r"'Ball\?team=red', whose team 'red' is not a number"):
        BehaviorIdentifiers.from_name_behavior_id("Ball?team=red")


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


BY_WORKER = [(2, [5, 0]), (13, [5]), (2, [7])]
NAMES = ["agent_2-5", "agent_2-0", "agent_13-5", "agent_2-7"]


def test_ids_of_several_workers_read_as_strings():
    ids = GlobalAgentIds(*((worker_id, np.array(agents, dtype=np.int32)) for worker_id, agents in BY_WORKER))
    assert len(ids) == 4
    assert list(ids) == NAMES
    assert ids[2] == "agent_13-5"
    assert ids[-1:] == ["agent_2-7"]
    assert GlobalAgentIds.of(ids) is ids


def test_ids_given_as_strings_name_the_worker_of_each_row():
    found = GlobalAgentIds.of(NAMES)
    assert [(worker_id, agents.tolist()) for worker_id, agents in found.by_worker] == BY_WORKER
    assert list(found) == NAMES
    with pytest.raises(ValueError, match="'group_2-5' is not the id of an agent"):
        GlobalAgentIds.of([*NAMES, "group_2-5"])
