"""How many restarts are allowed: in a run, and in a while."""

import pytest

from mlagents.trainers.restart_limits import RestartLimits
from mlagents.trainers.settings import EnvironmentSettings


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_limits(clock):
    def make(lifetime=-1, rate=-1, period_s=60):
        settings = EnvironmentSettings(
            max_lifetime_restarts=lifetime, restarts_rate_limit_n=rate, restarts_rate_limit_period_s=period_s
        )
        return RestartLimits(settings, clock)

    return make


def test_a_worker_may_be_restarted_so_often_in_a_run(make_limits, clock):
    limits = make_limits(lifetime=2)
    for _ in range(2):
        assert limits.count(0) is None
        clock.now_s += 1000.0
    assert "restarted 2 times in this run" in limits.count(0)
    assert limits.counts == {0: 3}


def test_a_worker_may_be_restarted_so_often_in_a_while(make_limits, clock):
    limits = make_limits(rate=2, period_s=60)
    assert limits.count(0) is None
    clock.now_s = 30.0
    assert limits.count(0) is None
    clock.now_s = 61.0  # the first is forgotten
    assert limits.count(0) is None
    clock.now_s = 90.0  # those at 30 s and 61 s are not
    reason = limits.count(0)
    assert "3 times within 60 seconds" in reason
    assert "restarts_rate_limit_n" in reason


@pytest.mark.parametrize(("lifetime", "rate", "setting"), [(0, -1, "max_lifetime"), (-1, 0, "restarts_rate_limit_n")])
def test_zero_allows_none(make_limits, lifetime, rate, setting):
    assert setting in make_limits(lifetime=lifetime, rate=rate).count(0)


def test_minus_one_is_no_limit(make_limits):
    limits = make_limits()
    assert [limits.count(0) for _ in range(1000)] == [None] * 1000


def test_workers_are_counted_apart(make_limits):
    limits = make_limits(lifetime=1, rate=1)
    assert [limits.count(worker_id) for worker_id in range(4)] == [None] * 4
    assert limits.count(2) is not None
