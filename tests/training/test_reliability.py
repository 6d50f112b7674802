"""Training of the reliability network: its clips and both phases, on five copies of one clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from avse_ppl import load_audio
from avse_ppl.data import Clip, SpeechCache
from avse_ppl.data.cache import PER_FRAME, make_lips_arrays, write_lips_cache
from avse_ppl.models.networks.reliability import ReliabilityNetwork
from avse_ppl.models.weights.io import load_reliability
from avse_ppl.training import ReliabilityRecipe, TrainingData, train_reliability
from avse_ppl.training.datasets.reliability_clips import AVClips, ClipBatches, Draw, collate
from avse_ppl.video import read_lips
from avse_ppl.video.corruptions import CAUSES
from avse_ppl.video.quality.score import score_lips
from tests.helpers import BUNDLED, ignore_training_warnings

SMALL = {"width": 4, "hidden": 8, "features": 8, "tower": 4}
MOUTH = BUNDLED / "mouth.mkv"


@pytest.fixture(scope="module")
def mouth():
    return read_lips(MOUTH)


@pytest.fixture(scope="module")
def sound():
    return load_audio(MOUTH)


@pytest.fixture
def data(tmp_path, mouth, sound):

    splits = ("train", "train", "train", "dev", "dev")
    clips = [
        Clip(path=tmp_path / f"{k}.mkv", corpus="toy", speaker=f"s{k % 2}", split=split)
        for k, split in enumerate(splits)
    ]
    short = replace(mouth, **{n: getattr(mouth, n)[:30] for n in (*PER_FRAME, "roi", "time_s")})
    lips = write_lips_cache(clips, [make_lips_arrays(short)] * 5, tmp_path / "lips", "")
    wave = sound.mono().resample(16000).samples[:19200]
    offsets = np.arange(6) * len(wave)
    speech = SpeechCache(np.tile(wave, 5), offsets, tuple(clips), 16000)
    return TrainingData(speech, speech, [lips])


@ignore_training_warnings
def test_it_trains_resumes_and_is_read(data, tmp_path, mouth):

    recipe = ReliabilityRecipe(
        sync_epochs=1,
        quality_epochs=1,
        clips=4,
        sync_batch=2,
        quality_batch=2,
        dev_clips=4,
    )
    settings = {"name": "toy", "card": {"licence": "none"}, "network_settings": SMALL}
    folder = train_reliability(recipe, data, tmp_path / "out", **settings)
    first = (folder / "weights.safetensors").read_bytes()
    begun = make_initial_weights(SMALL)
    now = load_reliability(folder).state_dict()
    still = [k for k, v in begun.items() if torch.equal(v, now[k]) and "norm" not in k]
    assert still == [], "each phase trains its part of the network"
    again = train_reliability(recipe, data, tmp_path / "again", **settings)
    assert (again / "weights.safetensors").read_bytes() == first
    resumed = train_reliability(recipe, data, tmp_path / "out", **settings)
    assert (resumed / "weights.safetensors").read_bytes() == first
    assert score_lips(mouth, network=folder).score.shape == (75,)
    assert "temperature" in (folder / "README.md").read_text()


def test_clips_come_with_their_truth(data):

    clips = AVClips(data.speech, data.lips, data.noise, "train")
    drawn = [clips[Draw(0, seed)] for seed in range(12)]
    batch = collate(drawn)
    assert batch.images.shape == (12, 30, 44, 44)
    assert batch.levels.shape == (12, 30, 160)
    assert torch.equal(clips[Draw(0, 3)].images, drawn[3].images)
    assert (batch.reliability < 0.5).any()
    assert (batch.reliability[batch.columns[..., 0] == 0] == 0).all()
    assert (batch.cause == CAUSES.index("out of sync")).any()
    silent = AVClips(data.speech, data.lips, data.noise, "train", with_audio=False)
    unheard = collate([silent[Draw(0, seed)] for seed in range(12)])
    assert not (unheard.cause == CAUSES.index("out of sync")).any()
    assert (unheard.levels == 0).all()
    batches = ClipBatches(clips, 2, 6, seed=0)
    first = list(batches)
    batches.set_epoch(1)
    assert list(batches) != first
    batches.set_epoch(0)
    assert list(batches) == first


def test_a_split_without_lips_is_refused(data):

    with pytest.raises(ValueError, match="no clip with lips in the split 'dev'"):
        AVClips(data.speech, [], data.noise, "dev")


def test_another_rate_is_refused(data, tmp_path):

    slow = replace(data, noise=replace(data.noise, sample_rate_hz=8000))
    with pytest.raises(ValueError, match="the cache of noise is at 8000 Hz"):
        train_reliability(ReliabilityRecipe(), slow, tmp_path, name="x", card={})


def make_initial_weights(settings):
    """The weights that a training with seed 0 starts from."""
    pl.seed_everything(0, verbose=False)
    return ReliabilityNetwork(**settings).state_dict()
