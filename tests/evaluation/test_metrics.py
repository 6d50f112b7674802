"""Scores, and what would make them meaningless."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import pystoi
import pytest
import soundfile
import torch

from avse_ppl.evaluation.metrics import Scores, estimate_lag_s, evaluate, evaluate_pair, si_sdr
from avse_ppl.signal.audio import Audio
from tests.helpers import RATE_HZ


@pytest.fixture
def pesq():
    """The optional package, or skip the test."""
    return pytest.importorskip("pesq", exc_type=ImportError)


def words(n_samples=2 * RATE_HZ, rate_hz=RATE_HZ, seed=0):
    """Noise in bursts of a fifth of a second: enough speech for every score."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(n_samples) / rate_hz
    coloured = np.convolve(rng.standard_normal(n_samples), np.hanning(7) / 3.5, "same")
    return 0.1 * coloured * (0.02 + np.clip(np.sin(2 * np.pi * 2.5 * time_s), 0, 1))


def hiss(n_samples=2 * RATE_HZ, level=0.02, seed=1):
    return level * np.random.default_rng(seed).standard_normal(n_samples)


# --- SI-SDR --------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.001, 0.05, 1.0])
@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_si_sdr_is_its_formula(level, mean):
    clean = words() + mean
    estimate = 0.7 * clean + hiss(level=level) + mean
    target = (estimate @ clean) / (clean @ clean) * clean
    expected = 10 * np.log10((target @ target) / ((target - estimate) @ (target - estimate)))
    assert si_sdr(clean, estimate) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-6, -1.0, 1e4])
def test_si_sdr_does_not_depend_on_scale(scale):
    clean, estimate = words(), words() + hiss()
    expected = si_sdr(clean, estimate)
    assert si_sdr(clean, scale * estimate) == pytest.approx(expected, abs=1e-6)
    assert si_sdr(scale * clean, estimate) == pytest.approx(expected, abs=1e-6)


def test_si_sdr_of_the_recording_itself_is_finite():
    assert 100 < si_sdr(words(), words()) < np.inf


@pytest.mark.parametrize(("shape", "other"), [((100,), (99,)), ((2, 100), (2, 100)), ((), ())])
def test_si_sdr_wants_one_shape(shape, other):
    with pytest.raises(ValueError, match=r"expected clean and estimate of one shape \(sample,\)"):
        si_sdr(np.ones(shape), np.ones(other))


def test_si_sdr_of_silence_is_refused():
    with pytest.raises(ValueError, match="the clean recording is silent"):
        si_sdr(np.zeros(100), np.ones(100))
    with pytest.raises(ValueError, match="the estimate recording is silent"):
        si_sdr(np.ones(100), np.zeros(100))


# --- evaluate: the figures -----------------------------------------------------------------------


def test_scores_are_those_of_the_libraries(pesq):
    clean, estimate = words().astype(np.float32), (words() + hiss()).astype(np.float32)
    scores = evaluate(clean, estimate, RATE_HZ)
    assert scores.si_sdr_db == pytest.approx(si_sdr(clean, estimate))
    assert scores.pesq_wb == pytest.approx(pesq.pesq(RATE_HZ, clean, estimate, "wb"))
    assert scores.stoi == pytest.approx(pystoi.stoi(clean, estimate, RATE_HZ))
    assert scores.estoi == pytest.approx(pystoi.stoi(clean, estimate, RATE_HZ, extended=True))
    assert scores.stoi != scores.estoi


def test_same_input_same_scores_and_no_random_number_used():
    expected = evaluate(words(), words() + hiss(), RATE_HZ)
    np.random.seed(3)
    before = np.random.random()
    np.random.seed(3)
    assert evaluate(words(), words() + hiss(), RATE_HZ) == expected
    assert np.random.random() == before


def test_more_noise_scores_lower_everywhere(pesq):
    levels = [
        evaluate(words(), words() + hiss(level=level), RATE_HZ) for level in (0.001, 0.01, 0.1)
    ]
    for better, worse in itertools.pairwise(levels):
        for name, value in better.as_dict().items():
            assert value > worse.as_dict()[name], name


def test_published_figures_of_the_published_sample(pesq, shared):
    folder = shared / "peers" / "sample"
    scores = evaluate(folder / "s.wav", folder / "x.wav")
    assert scores.si_sdr_db == pytest.approx(-0.54, abs=0.005)
    assert scores.pesq_wb == pytest.approx(1.107, abs=0.0005)
    assert scores.estoi == pytest.approx(0.360, abs=0.0005)


def test_every_kind_of_source_scores_the_same(tmp_path):
    clean, estimate = words().astype(np.float32), (words() + hiss()).astype(np.float32)
    soundfile.write(tmp_path / "c.wav", clean, RATE_HZ, subtype="FLOAT")
    soundfile.write(tmp_path / "e.wav", estimate, RATE_HZ, subtype="FLOAT")
    expected = evaluate(clean, estimate, RATE_HZ)
    assert evaluate(tmp_path / "c.wav", str(tmp_path / "e.wav")) == expected
    assert evaluate((tmp_path / "c.wav").read_bytes(), Audio(estimate, RATE_HZ)) == expected
    assert evaluate(torch.from_numpy(clean), Audio(estimate, RATE_HZ), RATE_HZ) == expected


def test_pair_scores_input_and_enhanced():
    clean, noise = words(), hiss()
    pair = evaluate_pair(clean, clean + noise, clean + 0.1 * noise, RATE_HZ)
    assert list(pair) == ["input", "enhanced"]
    assert pair["input"] == evaluate(clean, clean + noise, RATE_HZ)
    assert pair["enhanced"] == evaluate(clean, clean + 0.1 * noise, RATE_HZ)
    assert pair["enhanced"].si_sdr_db > pair["input"].si_sdr_db + 15


def test_channels_are_averaged():
    clean = np.stack([words(seed=0), words(seed=2)])
    estimate = clean + np.stack([hiss(level=0.005), hiss(level=0.05, seed=3)])
    both = evaluate(clean, estimate, RATE_HZ)
    each = [evaluate(one, other, RATE_HZ) for one, other in zip(clean, estimate, strict=True)]
    for name, value in both.as_dict().items():
        assert value == pytest.approx(np.mean([scores.as_dict()[name] for scores in each]))
    assert each[0] != each[1]


def test_a_score_that_one_channel_lacks_is_none_for_all():
    clean = np.stack([words(), words()])
    estimate = np.stack([words() + hiss(), np.zeros(2 * RATE_HZ)])
    with pytest.warns(UserWarning, match="the estimate is silent"):
        assert evaluate(clean, estimate, RATE_HZ) == Scores(None, None, None, None)


def test_other_rates_are_resampled_and_said_so():
    clean = Audio(words(2 * 44100, 44100), 44100)
    estimate = Audio(clean.samples + hiss(2 * 44100), 44100)
    expected = evaluate(clean.resample(RATE_HZ), estimate.resample(RATE_HZ))
    message = "clean and estimate resampled from 44100 Hz to 16000 Hz"
    with pytest.warns(UserWarning, match=message):
        assert evaluate(clean, estimate) == expected


def test_scores_are_ready_for_json():
    scores = evaluate(words(), words() + hiss(), RATE_HZ)
    values = json.loads(json.dumps(scores.as_dict(), allow_nan=False))
    assert list(values) == ["si_sdr_db", "pesq_wb", "stoi", "estoi"]
    assert Scores(**values) == scores


# --- evaluate: what is refused and what is said --------------------------------------------------


def test_different_rates_are_resampled_and_said_so():
    clean = Audio(words(2 * 44100, 44100), 44100)
    estimate = Audio((clean.samples + hiss(2 * 44100)).astype("float32"), 44100).resample(RATE_HZ)
    expected = evaluate(clean.resample(RATE_HZ), estimate)
    with pytest.warns(UserWarning, match="clean resampled from 44100 Hz to 16000 Hz"):
        assert evaluate(clean, estimate) == expected


def test_different_channels():
    with pytest.raises(ValueError, match=r"found 1 and 2; average them, or take one"):
        evaluate(words(), np.stack([words(), words()]), RATE_HZ)


@pytest.mark.parametrize("difference", [-257, 257])
def test_different_lengths(difference):
    with pytest.raises(ValueError, match="of one length, found 32000 and"):
        evaluate(words(), np.resize(words(), 2 * RATE_HZ + difference), RATE_HZ)


@pytest.mark.parametrize("difference", [-256, -1, 1, 256])
def test_slightly_different_lengths_are_trimmed(difference):
    estimate = words() + hiss()
    kept = 2 * RATE_HZ - max(0, -difference)
    expected = evaluate(words()[:kept], estimate[:kept], RATE_HZ)
    with pytest.warns(UserWarning, match=r"hold 32000 and \d+ samples; trimmed to the shorter"):
        assert evaluate(words(), np.resize(estimate, 2 * RATE_HZ + difference), RATE_HZ) == expected


def test_no_samples():
    with pytest.raises(ValueError, match="of one length, found 0 and 0 samples"):
        evaluate(np.zeros(0), np.zeros(0), RATE_HZ)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_not_finite(bad, which):
    pair = [words(), words()]
    pair[which][7] = bad
    with pytest.raises(ValueError, match="found 1 of 32000 NaN or infinite"):
        evaluate(*pair, RATE_HZ)


def test_silent_reference():
    with pytest.raises(ValueError, match="the clean recording is silent"):
        evaluate(np.zeros(RATE_HZ), words(RATE_HZ), RATE_HZ)
    with pytest.raises(ValueError, match="the clean recording is silent"):
        evaluate(np.stack([words(), np.zeros(2 * RATE_HZ)]), np.stack([words(), words()]), RATE_HZ)


def test_silent_estimate_names_which(pesq):
    with pytest.warns(UserWarning, match="the enhanced is silent: SI-SDR, PESQ, STOI and ESTOI"):
        pair = evaluate_pair(words(), words() + hiss(), np.zeros(2 * RATE_HZ), RATE_HZ)
    assert pair["enhanced"] == Scores(None, None, None, None)
    assert pair["input"].pesq_wb is not None


def test_too_short_for_stoi(pesq):
    with pytest.warns(UserWarning) as remarks:
        scores = evaluate(hiss(5000), hiss(5000) + hiss(5000, 0.002, 2), RATE_HZ)
    assert [str(remark.message) for remark in remarks] == [
        f"{name} of the estimate cannot be computed: it needs 0.4 s of clean speech"
        for name in ("STOI", "ESTOI")
    ]
    assert (scores.stoi, scores.estoi) == (None, None)
    assert scores.pesq_wb > 1
    assert scores.si_sdr_db > 15


@pytest.mark.parametrize("n_samples", [1, 100, 3000])
def test_too_short_for_all_but_si_sdr(pesq, n_samples):
    with pytest.warns(UserWarning) as remarks:
        scores = evaluate(hiss(n_samples), hiss(n_samples) * 2, RATE_HZ)
    assert "PESQ of the estimate cannot be computed: it needs 0.25 s" in str(remarks[0].message)
    assert (scores.pesq_wb, scores.stoi, scores.estoi) == (None, None, None)
    assert scores.si_sdr_db > 100


def test_pesq_that_is_no_number_is_none(pesq, monkeypatch):
    monkeypatch.setattr(pesq, "pesq", lambda *args: float("nan"))
    with pytest.warns(UserWarning, match="PESQ of the estimate cannot be computed"):
        assert evaluate(words(), words() + hiss(), RATE_HZ).pesq_wb is None


def test_without_pesq_the_rest_is_scored_and_the_remedy_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)  # what makes an import fail
    with pytest.warns(UserWarning, match=r"PESQ is not computed: pip install 'avse-ppl\[pesq\]'"):
        scores = evaluate(words(), words() + hiss(), RATE_HZ)
    assert scores.pesq_wb is None
    assert scores.si_sdr_db > 0 and scores.stoi > 0.5


@pytest.mark.slow
def test_long_recordings_do_not_end_the_process(pesq):
    # A minute of bursts holds more utterances than PESQ's own code has room for: in one piece it
    # ends the process, so ask another one.
    code = (
        "import numpy as np; from avse_ppl.evaluation.metrics import evaluate;"
        "rng = np.random.default_rng(0); time_s = np.arange(60 * 16000) / 16000;"
        "clean = rng.standard_normal(len(time_s)) / 10 * (time_s % 0.5 < 0.25);"
        "print(evaluate(clean, clean + rng.standard_normal(len(time_s)) / 100, 16000).pesq_wb)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < 4.7


def test_pesq_of_a_long_recording_is_the_mean_over_pieces(pesq):
    clean = np.concatenate([words(10 * RATE_HZ, seed=seed) for seed in range(3)]).astype(np.float32)
    estimate = (clean + np.concatenate([hiss(15 * RATE_HZ), hiss(15 * RATE_HZ, 0.005)])).astype(
        "f4"
    )
    halves = [slice(None, 15 * RATE_HZ), slice(15 * RATE_HZ, None)]
    each = [pesq.pesq(RATE_HZ, clean[half], estimate[half], "wb") for half in halves]
    assert abs(each[0] - each[1]) > 0.05
    assert evaluate(clean, estimate, RATE_HZ).pesq_wb == pytest.approx(np.mean(each))
    clean[halves[0]] = 0  # a piece without speech says nothing
    assert evaluate(clean, estimate, RATE_HZ).pesq_wb == pytest.approx(each[1])


# --- alignment -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [8000, 16000])
@pytest.mark.parametrize("lag", [-800, -80, -1, 0, 1, 80, 800])
def test_lag_is_measured(lag, rate_hz):
    clean = words()
    estimate = np.roll(clean, lag) + hiss()
    assert estimate_lag_s(clean, estimate, rate_hz) == lag / rate_hz
    assert estimate_lag_s(clean, -estimate, rate_hz) == lag / rate_hz


def test_lags_beyond_the_largest_are_not_searched():
    clean = words()
    estimate = np.roll(clean, 900) + 0.3 * np.roll(clean, 40)
    assert estimate_lag_s(clean, estimate, RATE_HZ) == 900 / RATE_HZ
    assert estimate_lag_s(clean, estimate, RATE_HZ, max_lag_s=0.05) == 40 / RATE_HZ


def test_lag_of_recordings_of_different_length():
    clean = words()
    assert (
        estimate_lag_s(clean, np.concatenate([np.zeros(320), clean, np.zeros(77)]), RATE_HZ) == 0.02
    )


@pytest.mark.parametrize(
    ("clean", "estimate", "found"),
    [
        (np.zeros(100), np.ones(100), "clean recording .* 1 with peak 0"),
        (np.ones(100), np.zeros(100), "estimate recording .* 1 with peak 0"),
        (np.ones((2, 100)), np.ones(100), "clean recording .* 2 with peak 1"),
    ],
)
def test_lag_wants_one_channel_with_sound(clean, estimate, found):
    with pytest.raises(ValueError, match=found):
        estimate_lag_s(clean, estimate, RATE_HZ)


def test_lag_wants_one_rate():
    with pytest.raises(ValueError, match="at one rate"):
        estimate_lag_s(Audio(words(), 8000), Audio(words(), RATE_HZ))


@pytest.mark.parametrize(
    ("lag", "told"), [(81, "5.1 ms late"), (1600, "100.0 ms late"), (-160, "10.0 ms early")]
)
def test_misalignment_is_remarked(lag, told):
    with pytest.warns(UserWarning, match=f"the estimate is {told}: shift it first") as remarks:
        evaluate(words(), np.roll(words(), lag) + hiss(level=0.01), RATE_HZ)
    assert len(remarks) == 1


@pytest.mark.parametrize("lag", [-80, -20, 20, 80])
def test_small_lags_are_no_remark(lag):
    evaluate(words(), np.roll(words(), lag), RATE_HZ)


@pytest.mark.parametrize("seed", range(5))
def test_loud_noise_is_no_misalignment(seed):
    evaluate(words(), words() + hiss(level=0.2, seed=seed), RATE_HZ)
    evaluate(words(), hiss(level=0.2, seed=seed), RATE_HZ)


def test_a_periodic_sound_is_no_misalignment():
    tone = np.sin(2 * np.pi * 100 * np.arange(2 * RATE_HZ) / RATE_HZ)
    evaluate(tone, tone + hiss(level=0.1), RATE_HZ)
