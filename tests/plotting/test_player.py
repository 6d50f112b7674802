"""Audio players: sounds that compare in loudness, in little space."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import soundfile

from avse_ppl.plotting import play_audio

RATE_HZ = 16000
TIME_S = np.arange(RATE_HZ) / RATE_HZ
TONE = 0.2 * np.sin(2 * np.pi * 440 * TIME_S)


def decode_players(page: str) -> list[np.ndarray]:
    """The sounds of players, in turn."""
    found = re.findall(r"data:audio/mpeg;base64,([\w+/=]+)", page)
    return [soundfile.read(io.BytesIO(base64.b64decode(text)))[0] for text in found]


def test_sounds_keep_their_loudness_relative_to_each_other() -> None:
    page = play_audio({"loud": TONE, "soft": 0.25 * TONE}, RATE_HZ)._repr_html_()
    loud, soft = (np.sqrt(np.mean(wave**2)) for wave in decode_players(page))
    assert loud == pytest.approx(0.9 / np.sqrt(2), rel=0.03)
    assert soft / loud == pytest.approx(0.25, rel=0.03)
    assert len(page) < 40_000  # a quarter of what the samples take


def test_titles_are_text() -> None:
    page = play_audio({"<b>&": TONE}, RATE_HZ)._repr_html_()
    assert "<b>" not in page and "&lt;b&gt;&amp;" in page


@pytest.mark.parametrize(
    ("sounds", "message"),
    [
        ({}, "expected at least one sound"),
        ({"a": np.zeros((2, 100))}, r"shape \(2, 100\) of 'a'"),
        ({"a": np.zeros(0)}, r"shape \(0,\) of 'a'"),
        ({"a": [0.0, np.nan]}, "NaN or infinity in 'a'"),
    ],
)
def test_what_cannot_be_played_is_an_error(sounds: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        play_audio(sounds, RATE_HZ)
