"""Time of a run: shares, estimates and the limit."""

from __future__ import annotations

import warnings

import pytest

from avse_ppl.utils import run_time
from avse_ppl.utils.run_time import (
    BatchProgress,
    LongRunWarning,
    RunClock,
    TimeLimitReached,
    format_duration,
)


@pytest.fixture
def clock_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(run_time, "perf_counter", lambda: now[0])
    return now


def test_the_limit_ends_a_run_but_not_after_its_last_step(clock_time):
    clock = RunClock(limit_s=5.0)
    clock(1, 3)
    clock_time[0] += 5
    with pytest.raises(TimeLimitReached, match="the time limit of 5 s was reached"):
        clock(2, 3)
    clock(3, 3)


def test_a_share_is_of_the_time_left(clock_time):
    clock = RunClock(limit_s=12.0)
    clock_time[0] += 2
    with clock.share(5):
        assert clock.time_left_s() == pytest.approx(2)
    assert clock.time_left_s() == pytest.approx(10)
    unlimited = RunClock()
    with unlimited.share(2):
        assert unlimited.time_left_s() == float("inf")


def test_a_long_run_is_estimated_once_from_its_steps(clock_time):
    steps = []
    clock = RunClock(progress=lambda *at: steps.append(at), name="svi", faster="fewer steps")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clock_time[0] += 50  # of the first step, which loads and compiles
        clock(1, 101)
        clock_time[0] += 2
        clock(2, 101)
    clock_time[0] += 2
    with pytest.warns(LongRunWarning) as caught:
        clock(3, 101)  # two steps of 2 s, 98 more
    [warning] = caught
    assert str(warning.message) == (
        "svi takes about 3 min more; a time limit (time_limit_s, --time-limit) ends it early with "
        "what there is. Faster: fewer steps"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clock(4, 101)
    assert steps == [(1, 101), (2, 101), (3, 101), (4, 101)]


def test_a_limit_that_comes_first_is_said(clock_time):
    clock = RunClock(limit_s=60.0, name="nuts")
    with pytest.warns(LongRunWarning, match="nuts takes 2 h; the time limit ends it after 60 s"):
        clock.announce(7200, "nuts takes 2 h")


@pytest.mark.filterwarnings("error")
def test_a_short_run_is_not_announced(clock_time):
    RunClock(name="svi").announce(30, "svi takes 30 s")


def test_durations():
    assert [format_duration(s) for s in (3.21, 99, 100, 5999, 6000)] == [
        "3.2 s", "99 s", "2 min", "100 min", "1.7 h",
    ]  # fmt: skip
    assert [format_duration(s, at_most=True) for s in (3.21, 12.0, 98.1, 121, 5999, 6121)] == [
        "3.3 s", "12 s", "99 s", "3 min", "100 min", "1.8 h",
    ]  # fmt: skip


def test_the_first_of_several_batches_says_how_long_all_take(clock_time):
    for before, found in ((0, 1), (10, 0)):
        clock = RunClock(progress=BatchProgress(before, 10, 60), name="svi")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            clock.announce(20, "svi takes 20 s")
        assert len(caught) == found
        if found:
            said = "svi takes 20 s for the first batch, all of them about 2 min; a time limit"
            assert str(caught[0].message).startswith(said)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RunClock(progress=BatchProgress(0, 10, 10), name="svi").announce(20, "svi takes 20 s")


def test_progress_of_batches_goes_on_and_ends_at_all_of_it():
    told = []
    progress = None
    for before, own, steps in ((0, 30, 100), (30, 20, 150), (50, 10, 100)):
        progress = BatchProgress(before, own, 60, lambda *pair: told.append(pair), progress)
        for step in range(1, steps + 1):
            progress(step, steps)
    assert told[0] == (1, 200) and told[-1] == (200, 200)
    assert [step for step, _ in told] == sorted(step for step, _ in told)
    assert {steps for _, steps in told} == {200}


def test_progress_does_not_go_back_where_a_batch_takes_more_steps_than_it_said():
    told = []
    progress = BatchProgress(0, 10, 20, lambda step, _: told.append(step))
    for step, steps in ((100, 150), (101, 175), (174, 175), (175, 175)):
        progress(step, steps)
    assert told == [100, 100, 149, 150]
