"""Presentation time stamps of decoded audio: gaps and overlaps, told from jitter.

A container states when each block of samples is heard. Where packets were lost the stamps go on and
the samples do not: joined without a look at the stamps, everything after is early. Stamps are also
rounded (to 1 ms in Matroska) and late by some milliseconds where they are of a capture clock; so a
jump counts only if it lasts.
"""

from __future__ import annotations

import bisect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE_S = 0.01  # half the shortest usual packet (20 ms): one that is lost is seen
LASTING_S = 0.5  # over which a jump must last, unlike jitter
LAST_TOLERANCE_S = 0.05  # where less than that is left
MAX_OVERLAP_S = 1.0  # stamps that go back further are of a clock that was set back
_ROUNDING_S = 0.0015  # of the stamps of two blocks, to 1 ms each

MAX_SILENCE_S = 600.0  # or as many times the sound that there is:
MAX_SILENCE_RATIO = 10.0


@dataclass(frozen=True)
class Jump:
    """Jump of the time stamps against the count of samples.

    Parameters
    ----------
    start
        Index of the first sample after it, in the joined sound.
    length
        Samples that are missing before `start`; negative: by how many the stamps go back.
    """

    start: int
    length: int


def find_jumps(times_s: Sequence[float | None], counts: Sequence[int], rate_hz: int) -> list[Jump]:
    r"""Find where time stamps of blocks depart from the count of samples, for good.

    With stamps :math:`t_i` and block lengths :math:`n_i`, block `i` is late by

    .. math:: d_i = t_i - t_0 - \tfrac{1}{f} \sum_{j<i} n_j - (\text{jumps so far}).

    It begins a gap if all blocks of the next half second are late by more than 10 ms (50 ms in the
    last half second, and more where the stamps jitter more), an overlap if all are early by more;
    the jump is the least of these lags. A gap that is a whole number of blocks, up to the rounding
    of the stamps, is taken as that number of lost packets.

    Parameters
    ----------
    times_s
        Time stamp of each block, seconds; None where there is none.
    counts
        Samples in each block.
    rate_hz
        Sampling rate.

    Examples
    --------
    >>> find_jumps([0.0, 0.1, 0.5, 0.6], [800] * 4, 8000)
    [Jump(start=1600, length=2400)]
    >>> find_jumps([0.0, 0.103, 0.199, 0.301], [800] * 4, 8000)
    []
    """
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    lasting = LASTING_S * rate_hz
    stated = [i for i, time_s in enumerate(times_s) if time_s is not None]
    if not stated:
        return []
    late_s = [times_s[i] - int(starts[i]) / rate_hz for i in stated]  # type: ignore[operator]

    # Start: by the first stamp, unless that is late itself.
    so_far_s = late_s[0]
    soon = [late for late, i in zip(late_s, stated, strict=True) if starts[i] <= lasting]
    if so_far_s - min(soon) > TOLERANCE_S / 2:
        so_far_s = min(soon)

    # Stamps that jitter go back as often as forth; where packets are lost they do not.
    back_s = np.maximum(-np.diff(late_s), 0.0) if len(late_s) > 1 else np.zeros(1)
    jitter_s = float(np.quantile(back_s, 0.75, method="lower"))
    tolerance_s = max(TOLERANCE_S, 2 * jitter_s)
    last_tolerance_s = max(LAST_TOLERANCE_S, 4 * jitter_s)

    jumps: list[Jump] = []
    places = [int(starts[i]) for i in stated]
    for row, (index, late) in enumerate(zip(stated, late_s, strict=True)):
        if abs(late - so_far_s) <= tolerance_s:
            continue
        start = places[row]
        end = bisect.bisect_left(places, start + lasting, row + 1)
        ahead = late_s[row:end]
        lag_s = (min(ahead) if late > so_far_s else max(ahead)) - so_far_s
        least_s = tolerance_s if starts[-1] - start >= lasting else last_tolerance_s
        if abs(lag_s) <= least_s or (lag_s > 0) != (late > so_far_s):
            continue
        length = round(lag_s * rate_hz)
        block = counts[index]
        packets = round(length / block) if block and block == counts[index - 1] else 0
        if packets > 0 and abs(length - packets * block) <= _ROUNDING_S * rate_hz:
            length = packets * block
        jumps.append(Jump(start, length))
        so_far_s += length / rate_hz
    return jumps


def apply_jumps(samples: np.ndarray, jumps: Sequence[Jump], rate_hz: int, name: str) -> np.ndarray:
    """Put ``(channel, sample)`` in time: silence in gaps, overlaps cut.

    Where the stamps go back by more than a second, as where recordings were joined, what follows is
    put right after.

    Raises
    ------
    ValueError
        If the gaps are implausibly long.

    Warns
    -----
    UserWarning
        How many gaps and overlaps there are, and how long in all.
    """
    gaps = [jump.length for jump in jumps if jump.length > 0]
    back = [-jump.length for jump in jumps if jump.length < 0]
    overlaps = [length for length in back if length <= MAX_OVERLAP_S * rate_hz]
    restarts = len(back) - len(overlaps)
    check_silence(sum(gaps) / rate_hz, samples.shape[1] / rate_hz, "has gaps of", name)
    pieces, at = [], 0
    for jump in jumps:
        pieces.append(samples[:, at : max(at, jump.start)])
        at = max(at, jump.start)
        if jump.length > 0:
            pieces.append(np.zeros((len(samples), jump.length), samples.dtype))
        elif -jump.length <= MAX_OVERLAP_S * rate_hz:
            at = max(at, jump.start - jump.length)
    pieces.append(samples[:, at:])
    remarks = []
    if gaps:
        of = "a gap" if len(gaps) == 1 else f"{len(gaps)} gaps"
        total_s = sum(gaps) / rate_hz
        remarks.append(
            f"has {of} in its time stamps, {total_s:.2f} s in all (lost packets?): filled with "
            "silence, so that what follows stays in time"
        )
    if overlaps:
        total_s = sum(overlaps) / rate_hz
        remarks.append(
            f"overlaps in its time stamps {count_times(len(overlaps))}, by {total_s:.2f} s in all: "
            "what comes twice was cut"
        )
    if restarts:
        remarks.append(
            f"has time stamps that go back {count_times(restarts)} (joined recordings?): what "
            "follows was put right after"
        )
    if remarks:
        message = f"the sound of {name} {'; it '.join(remarks)}"
        warnings.warn(message, UserWarning, stacklevel=2)
    return np.concatenate(pieces, axis=1) if jumps else samples


def count_times(number: int) -> str:
    """Say how often: ``"once"``, ``"3 times"``."""
    return "once" if number == 1 else f"{number} times"


def check_silence(silence_s: float, sound_s: float, what: str, name: str) -> None:
    """Refuse an implausible silence: over ten minutes, and ten times the sound there is.

    Raises
    ------
    ValueError
        If it is; nothing of that length has been allocated then.
    """
    if silence_s <= max(MAX_SILENCE_S, MAX_SILENCE_RATIO * sound_s):
        return
    raise ValueError(
        f"the sound of {name} {what} {silence_s:.0f} s and lasts {sound_s:.1f} s without: its time "
        "stamps cannot be right; save the sound as a WAV file, and give the video beside it with "
        "an offset"
    )
