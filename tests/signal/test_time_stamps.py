"""Gaps and overlaps in time stamps, against jitter, rounding and drift."""

from __future__ import annotations

import numpy as np
import pytest

from avse_ppl.signal.time_stamps import Jump, apply_jumps, check_silence, find_jumps

RATE_HZ = 16000


def stamp(counts, lost=(), jitter_s=0.0, step_s=None, seed=0):
    """Blocks of which some are lost: the time stamps and lengths of those that are left."""
    rng = np.random.default_rng(seed)
    times = np.concatenate([[0], np.cumsum(counts)[:-1]]) / RATE_HZ
    times = times + jitter_s * rng.uniform(-1, 1, len(times))
    if step_s:
        times = np.round(times / step_s) * step_s
    kept = [i for i in range(len(counts)) if i not in lost]
    return [float(times[i]) for i in kept], [counts[i] for i in kept]


@pytest.mark.parametrize("counts", [[320] * 200, [1024] * 80, [160] * 300, [40] * 900])
@pytest.mark.parametrize("step_s", [None, 0.001, 1 / 90000])
def test_lost_packets_are_found_to_the_sample(counts, step_s):
    lost = {20, 21, 22, 23, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59}
    times_s, kept = stamp(counts, lost, step_s=step_s)
    jumps = find_jumps(times_s, kept, RATE_HZ)
    if counts[0] * 4 / RATE_HZ > 0.012:  # 4 blocks of 2.5 ms are within the tolerance
        expected = [Jump(20 * counts[0], 4 * counts[0]), Jump(46 * counts[0], 10 * counts[0])]
        assert jumps == expected
    assert abs(sum(jump.length for jump in jumps) - 14 * counts[0]) <= 0.011 * RATE_HZ


def test_one_lost_packet_of_20_ms_is_found():
    times_s, kept = stamp([320] * 100, {40}, step_s=0.001)
    assert find_jumps(times_s, kept, RATE_HZ) == [Jump(40 * 320, 320)]


def test_each_second_packet_lost():
    times_s, kept = stamp([320] * 150, set(range(11, 90, 2)), step_s=0.001)
    jumps = find_jumps(times_s, kept, RATE_HZ)
    assert sum(jump.length for jump in jumps) == 40 * 320
    assert all(jump.length == 320 for jump in jumps)


@pytest.mark.parametrize("jitter_s", [0.001, 0.01, 0.03])
def test_jitter_is_no_gap(jitter_s):
    times_s, kept = stamp([320] * 500, jitter_s=jitter_s, step_s=0.001)
    assert find_jumps(times_s, kept, RATE_HZ) == []


def test_a_gap_in_jitter_is_found_about_right():
    times_s, kept = stamp([320] * 500, set(range(200, 250)), jitter_s=0.005, step_s=0.001)
    jumps = find_jumps(times_s, kept, RATE_HZ)
    assert abs(sum(jump.length for jump in jumps) - 50 * 320) <= 0.015 * RATE_HZ
    assert jumps[0].start == 200 * 320


def test_blocks_of_several_lengths_and_missing_stamps():
    counts = [100, 700, 320, 1500, 320] * 20
    times_s, kept = stamp(counts, {50, 51, 52})
    gappy = [time if i % 3 == 0 or i == 50 else None for i, time in enumerate(times_s)]
    expected = [Jump(sum(counts[:50]), sum(counts[50:53]))]
    assert find_jumps(gappy, kept, RATE_HZ) == expected
    assert find_jumps([None] * 5, [320] * 5, RATE_HZ) == []
    assert find_jumps([None, None, 7.04, 7.06], [320] * 4, RATE_HZ) == []
    assert find_jumps([], [], RATE_HZ) == []


def test_a_clock_that_drifts_stays_within_the_tolerance():
    rate = 1.0005  # half a millisecond a second
    times_s = [rate * 0.02 * i for i in range(5000)]
    jumps = find_jumps(times_s, [320] * 5000, RATE_HZ)
    added = np.zeros(5000)
    for jump in jumps:
        added[jump.start // 320 :] += jump.length / RATE_HZ
    assert np.abs(np.array(times_s) - 0.02 * np.arange(5000) - added).max() <= 0.0105


def test_gaps_are_silence_and_overlaps_are_cut():
    samples = np.arange(1, 10 * RATE_HZ + 1, dtype="f4")[None]
    jumps = [Jump(1000, 500), Jump(5000, -200), Jump(9000, -2 * RATE_HZ)]
    with pytest.warns(UserWarning) as caught:
        placed = apply_jumps(samples, jumps, RATE_HZ, "'a.mkv'")
    expected = np.concatenate([samples[0, :1000], np.zeros(500), samples[0, 1000:5000],
                               samples[0, 5200:]])  # fmt: skip
    np.testing.assert_array_equal(placed[0], expected)
    text = str(caught[0].message)
    assert len(caught) == 1
    assert "'a.mkv' has a gap in its time stamps, 0.03 s in all" in text
    assert "overlaps in its time stamps once, by 0.01 s in all" in text
    assert "go back once" in text


def test_silence_is_bounded_by_the_sound_there_is():
    check_silence(599.0, 1.0, "has gaps of", "'a.mkv'")
    check_silence(35_000.0, 3600.0, "has gaps of", "'a.mkv'")
    with pytest.raises(ValueError, match=r"'a\.mkv' has gaps of 601 s .* cannot be right; save"):
        check_silence(601.0, 1.0, "has gaps of", "'a.mkv'")
    with pytest.raises(ValueError, match="has gaps of 300000 s"):
        apply_jumps(np.ones((2, 100)), [Jump(50, 300_000 * 48000)], 48000, "'a.mkv'")
