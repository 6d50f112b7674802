"""Garbage of a predictor is told, each kind in words of its own; speech in time is let through."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfilt

from avse_ppl import load_audio
from avse_ppl.models.predictors.checks import (
    GuardedEnhancer,
    PredictorError,
    check_prediction,
)
from tests.helpers import BUNDLED, RATE_HZ

SPEECH = load_audio(BUNDLED / "speech.flac").samples[:RATE_HZ]
MIXTURE = SPEECH + np.float32(0.3 * SPEECH.std()) * np.random.default_rng(0).standard_normal(
    len(SPEECH)
).astype("float32")


def delay(wave: np.ndarray, samples: int) -> np.ndarray:
    return np.roll(wave, samples)


GARBAGE: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "nothing": (lambda w: None, r"returned NoneType; expected an array of real samples"),
    "text": (lambda w: "speech", r"returned numbers of <U6|returned str"),
    "ragged": (lambda w: [[1.0], [1.0, 2.0]], r"returned list; expected an array"),
    "complex": (lambda w: w + 1j, r"returned numbers of complex64; expected"),
    "channels": (lambda w: w[None], r"shape \(1, 16000\) for 16000 samples.*one channel"),
    "twice": (lambda w: np.repeat(w, 2), r"twice as many: it seems .* another sampling rate"),
    "third": (lambda w: w[::3], r"a third as many: it seems .* another sampling rate"),
    "cut": (lambda w: w[:-100], r"shape \(15900,\).*cut to whole frames"),
    "padded": (lambda w: np.pad(w, (0, 7)), r"shape \(16007,\).*padded"),
    "nan": (lambda w: np.where(np.arange(len(w)) < 3, np.nan, w), r"3 of 16000 samples that are N"),
    "infinite": (lambda w: w.astype("float64") * 1e40, r"NaN or infinite"),
    "16 bits": (lambda w: (w * 32768).astype("int16"), r"dB louder than the mixture.*32768"),
    "faint": (lambda w: w / 32768, r"90 dB fainter than the mixture"),
    "negative": (lambda w: -w, r"opposite sign \(correlation -1.00"),
    "late": (lambda w: delay(w, 160), r"160 samples \(10.0 ms\) late.*delay_samples=160"),
    "a little late": (lambda w: delay(SPEECH, 6), r"6 samples \(0.4 ms\) late"),
    "early": (lambda w: delay(SPEECH, -40), r"40 samples \(2.5 ms\) early.*drop what"),
    "raises": (lambda w: w[99999], r"failed on 16000 samples at 16000 Hz: IndexError: index 99999"),
}  # fmt: skip


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_told(kind: str) -> None:
    function, text = GARBAGE[kind]
    with pytest.raises(PredictorError, match=r"^predictor 'mine' ") as caught:
        GuardedEnhancer(lambda wave, rate_hz: function(wave), "mine")(MIXTURE, RATE_HZ)
    assert re.search(text, str(caught.value)), caught.value


def test_speech_in_time_passes() -> None:
    low = np.asarray(sosfilt(butter(1, 7000, fs=RATE_HZ, output="sos"), SPEECH))  # short delay
    noise = np.random.default_rng(1).standard_normal(len(SPEECH)) * SPEECH.std()
    silence = 0 * SPEECH  # of what hears no speech
    residue = 2e-5 * delay(SPEECH, -377)  # of one that hears none, nearly: 94 dB down
    answers = (SPEECH, MIXTURE, 0.01 * SPEECH, low, noise, torch.from_numpy(SPEECH))
    for found in (*answers, silence, residue):
        checked = check_prediction(found, MIXTURE, "mine", RATE_HZ)
        assert checked.dtype == np.float32
        np.testing.assert_allclose(checked, np.asarray(found, "float32"))


def test_of_silence_anything_finite_is_taken() -> None:
    silence = np.zeros(100, "float32")
    assert not check_prediction(silence, silence, "mine").any()


def test_an_enhancer_may_change_what_it_is_given() -> None:
    def overwrite(wave: np.ndarray, rate_hz: int) -> np.ndarray:
        wave *= 0.5
        return wave

    before = MIXTURE.copy()
    GuardedEnhancer(overwrite, "mine")(MIXTURE, RATE_HZ)
    np.testing.assert_array_equal(MIXTURE, before)


def test_what_is_given_beside_the_waveform_is_handed_on() -> None:
    seen = GuardedEnhancer(lambda wave, rate_hz, visual: wave * visual, "mine")
    np.testing.assert_array_equal(seen(MIXTURE, RATE_HZ, visual=0.5), 0.5 * MIXTURE)


def test_what_is_left_of_a_tone_is_no_delay() -> None:
    time = 2 * np.pi * 2000.0 * np.arange(len(SPEECH)) / RATE_HZ
    tone, rest = (SPEECH.std() * np.sin(time - phase) for phase in (0.0, np.pi))
    answer = (SPEECH + 0.25 * rest).astype("float32")  # an eighth of the tone, turned round
    check_prediction(answer, (SPEECH + 2.0 * tone).astype("float32"), "it", RATE_HZ)
