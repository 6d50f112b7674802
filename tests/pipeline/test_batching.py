"""Chunks of long recordings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from avse_ppl.pipeline.batching import CHUNK_S, LONG_S, OVERLAP_S, split_recording


@pytest.mark.parametrize(("rate", "hop"), [(16000, 256), (16000, 100), (8000, 128)])
@pytest.mark.parametrize("seconds", [0.1, 14.9, 15.0, 15.0001, 15.5, 21.0, 21.01, 40.0, 599.7])
def test_chunks_cover_the_recording(rate, hop, seconds):
    n = int(seconds * rate)
    spans = split_recording(n, rate, hop)
    assert spans[0][0] == 0
    assert spans[-1][1] == n
    assert all(begin % hop == 0 for begin, _ in spans)
    if n <= LONG_S * rate:
        assert spans == [(0, n)]
        return
    lengths = np.diff(spans, axis=1)[:, 0]
    assert lengths.max() <= (CHUNK_S + OVERLAP_S) * rate + 2 * hop
    assert lengths.max() - lengths.min() <= 2 * hop + 1  # no chunk is a stub
    for (_, end), (begin, _) in pairwise(spans):
        assert OVERLAP_S * rate <= end - begin <= OVERLAP_S * rate + 2 * hop
    for (_, end), (begin, _) in zip(spans[:-2], spans[2:], strict=True):
        assert end < begin  # at most two chunks at any place


def test_chunks_are_as_many_as_the_length_asks_for():
    counts = [len(split_recording(minutes * 60 * 16000, 16000, 256)) for minutes in (1, 10, 100)]
    assert counts == [6, 60, 600]
