"""Tables of segments against the functionals that they are of."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from avse_ppl import Posterior, Stft
from avse_ppl.posterior.functionals import F0, SNR, Exceeds, Level, VoiceActivity
from avse_ppl.posterior.segment_table import (
    COLUMNS,
    make_functional,
    summarise_segments,
    write_table,
)
from avse_ppl.signal.segments import Segment

RATE_HZ = 16000


@pytest.fixture(scope="module")
def posterior():
    """Two recordings of 0.5 and 0.4 s: a tone of unknown gain in its first half, in noise."""
    stft, random = Stft(), np.random.default_rng(0)
    lengths, longest = (8000, 6400), 8000
    time_s = np.arange(longest) / RATE_HZ
    tone = np.sin(2 * np.pi * 500 * time_s) * (time_s < 0.25)
    gains = 10 ** (random.normal(-20, 2, size=(1, 40, 2, 1)) / 20)
    speech = gains * tone + 1e-3 * random.normal(size=(1, 40, 2, longest))
    speech[:, :, 1, lengths[1] :] = 0.0
    grid = (2, stft.freq, stft.count_frames(longest))
    noise = random.normal(size=(2, *grid))
    mean = np.zeros(grid, np.complex64)
    return Posterior(
        mean, np.ones(grid, np.float32), (noise[0] + 1j * noise[1]).astype("complex64"),
        speech.astype("float32"), {}, lengths, stft, "exact",
    )  # type: ignore[arg-type]  # fmt: skip


def test_rows_are_the_functionals_of_the_spans(posterior):
    words = [
        Segment("late", 0.3, 0.4),
        Segment("early", 0.05, 0.2, "x"),
        Segment("b", 0, 0.1, "y", 1),
    ]
    names = ["level", "snr(400-600)", "voice-activity"]
    rows = summarise_segments(posterior, words, names, probability=0.8)
    assert [(r.recording, r.name, r.tier, r.functional) for r in rows[::3]] == [
        (0, "early", "x", "level"),
        (0, "late", "", "level"),
        (1, "b", "y", "level"),
        (1, "early", "x", "level"),
        (1, "late", "", "level"),
    ]
    one = posterior.select(1)
    found = one.of(Level(spans_s=((0.05, 0.2),)))
    low, high = found.interval(0.8)
    assert (rows[9].mean, rows[9].sd, rows[9].mcse) == pytest.approx(
        (found.mean[0, 0], found.sd[0, 0], found.mcse[0, 0])
    )
    assert (rows[9].low, rows[9].high, rows[9].unit) == pytest.approx((low[0, 0], high[0, 0], "dB"))
    # A tone of -20 dB has a level of -23 dB.
    assert abs(rows[0].mean + 23) < 4 * rows[0].mcse + 0.1 and 1.4 < rows[0].sd < 2.6
    assert rows[0].mean - rows[3].mean > 30
    assert rows[2].mean == 1.0 > rows[5].mean > 0.5  # the hang-over ends in it
    narrow = summarise_segments(posterior, words, ["level"], interval="hdi", probability=0.5)[0]
    assert narrow.high - narrow.low < rows[0].high - rows[0].low


def test_what_is_not_defined_is_empty(posterior, tmp_path):
    quiet = [Segment("noise, only", 0.3, 0.35)]
    [row] = summarise_segments(posterior.select(0), quiet, ["f0"])
    assert row.defined < 1 and row.unit == "Hz"
    row = replace(row, mean=float("nan"), low=float("nan"), defined=0.0)
    path = write_table([row], tmp_path / "t.csv")
    with path.open(newline="") as file:
        [read] = csv.DictReader(file)
    assert tuple(read) == COLUMNS
    assert (read["name"], read["mean"], read["low"], read["defined"]) == (
        "noise, only",
        "",
        "",
        "0",
    )
    assert read["start_s"] == "0.3"


def test_functionals_have_names():
    spans = ((0.0, 0.5),)
    assert make_functional("level", spans) == Level(None, spans)
    assert make_functional(" snr(300-3e3) ".replace("3e3", "3000"), spans) == SNR(
        ((300.0, 3000.0),), spans
    )
    assert make_functional("exceeds(-40.5)", spans) == Exceeds(None, spans, -40.5)
    assert make_functional("exceeds(-40, 300-3000)", spans) == Exceeds(
        ((300.0, 3000.0),), spans, -40.0
    )
    assert make_functional("f0", spans) == F0(spans)
    assert make_functional("voice-activity", spans) == VoiceActivity(spans)


@pytest.mark.parametrize(
    "name",
    ["loudness", "", "level(300)", "level(300-3000", "exceeds", "exceeds(loud)", "f0(60-400)",
     "exceeds(-40, 1-2, 3)", "level(1-2, 3-4)", "level(1.2.3-4)", "Level"],
)  # fmt: skip
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=r"no functional .*; expected level, snr or energy, perh"):
        make_functional(name, ())


def test_bad_input_is_refused_before_the_work(posterior, monkeypatch):
    module = "avse_ppl.posterior.segment_table.evaluate_functionals"
    monkeypatch.setattr(module, lambda *_: pytest.fail("it has begun to work"))
    word = Segment("a", 0.1, 0.2)
    cases = [
        ((posterior, []), {}, "there are no segments"),
        ((posterior, [word], []), {}, "there are no functionals"),
        ((posterior, [word]), {"probability": 90}, "between 0 and 1, not 90"),
        ((posterior, [Segment("a", 0.1, 0.5)]), {}, "not within recording 1, which is 0.4 s long"),
        ((posterior, [word], ["level(9000-9500)"]), {}, "holds no bin"),
    ]
    for count in (0, 1):
        few = replace(posterior, speech=posterior.speech[:, :count])
        cases.append(((few, [word]), {}, f"holds {count} waveform draws?; .* make it again by"))
    for arguments, options, said in cases:
        with pytest.raises(ValueError, match=said):
            summarise_segments(*arguments, **options)
