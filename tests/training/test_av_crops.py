"""Audio-visual crops: video frames that begin with the audio, their gates, and mixtures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from avse_ppl.data import Clip, SpeechCache
from avse_ppl.data.cache import LipsCache
from avse_ppl.training.datasets.av_crops import AVMixtureCrops, AVSpeechCrops, MouthCrops
from avse_ppl.training.datasets.speech_crops import Crop
from tests.helpers import STFT

CROP = 3200  # five video frames


def list_clips(kind="speech"):
    names = [f"/{kind}{i}.wav" for i in range(4)]
    splits = ["train", "train", "dev", "dev"]
    speaker = "" if kind == "noise" else "one"
    return tuple(Clip(Path(n), "grid", speaker, s) for n, s in zip(names, splits, strict=True))


def make_speech(kind="speech"):
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(4 * 8000)).astype(np.float16)
    return SpeechCache(samples, np.arange(5) * 8000, list_clips(kind), 16000)


def make_mouths():
    """Twelve video frames of the first and the third clip, each of its own grey."""
    frames = np.repeat(np.arange(24, dtype=np.uint8), 88 * 88).reshape(24, 88, 88)
    found = np.ones(24, bool)
    found[3] = False
    rest = {name: np.zeros(24, np.float32) for name in ("score", "pose_confidence", "blur")}
    return LipsCache(
        frames, np.array([0, 12, 12, 24, 24]), found, ~found, keypoints=np.zeros((24, 5, 2)),
        pose_deg=np.zeros((24, 3)), clips=list_clips(), **rest,
    )  # fmt: skip


def test_the_video_begins_where_the_audio_does():
    crops = AVSpeechCrops(make_speech(), "train", CROP, STFT, MouthCrops([make_mouths()]))
    crop = crops[Crop(clip=0, offset=1.0)]
    assert crop.waves.shape == (CROP,)
    begin = (8000 - CROP) // 640
    assert crop.lips[:, 0, 0].tolist() == [begin + k for k in range(5)]
    expected = make_speech()[0][begin * 640 : begin * 640 + CROP] * crops.scales[0]
    assert np.allclose(crop.waves, expected, rtol=1e-4)


def test_gates_are_0_without_a_face_or_a_video():
    crops = AVSpeechCrops(make_speech(), "train", CROP, STFT, MouthCrops([make_mouths()]))
    assert crops[Crop(0, 0.0)].present.tolist() == [1, 1, 1, 0, 1]
    without = crops[Crop(1, 0.0)]
    assert not without.present.any()
    assert not without.lips.any()


def test_clips_without_lips_can_be_left_out():
    mouths = MouthCrops([make_mouths()])
    assert len(AVSpeechCrops(make_speech(), "train", CROP, STFT, mouths, with_video_only=True)) == 1
    with pytest.raises(ValueError, match="no clip of the split 'train' has lips"):
        AVSpeechCrops(make_speech(), "train", CROP, STFT, MouthCrops([]), with_video_only=True)


def test_mixtures_keep_the_lips_of_their_speech():
    lips, noise = MouthCrops([make_mouths()]), make_speech("noise")
    crops = AVMixtureCrops(make_speech(), "train", CROP, STFT, lips, noise, (0.0, 0.0))
    which = Crop(0, 0.0, seed=3)
    crop, alone = crops[which], AVSpeechCrops(make_speech(), "train", CROP, STFT, lips)[which]
    assert torch.equal(crop.waves[0], alone.waves)
    assert torch.equal(crop.lips, alone.lips)
    ratio = crop.waves[0].square().sum() / crop.waves[1].square().sum()
    assert float(10 * ratio.log10()) == pytest.approx(0.0, abs=0.1)
    assert torch.equal(crops[which].waves, crop.waves)
