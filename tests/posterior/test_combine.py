"""Posteriors of recordings, chunks and runs combined into one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from avse_ppl import SVI, ComplexNormal, Exact, GaussianSpeech, Scene, stationary
from avse_ppl.models.simulate import reference_scene
from avse_ppl.pipeline.batching import split_recording
from avse_ppl.posterior.combine import (
    compute_fade_weights,
    crossfade_chunks,
    crossfade_waves,
    stack_recordings,
)
from avse_ppl.posterior.fit_info import FitInfo
from tests.helpers import STFT

SPANS = [(0, 400), (304, 704), (608, 1000)]  # begins on frames; overlaps of 96 samples
N = 1000


def waves(count=1, n_samples=N, seed=0):
    return np.random.default_rng(seed).normal(size=(count, n_samples)).astype("float32")


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spans", "n"),
    [(SPANS, N), ([(0, 10)], 10), (split_recording(16000 * 40, 16000, 256), 16000 * 40)],
    ids=["three", "one", "40 s"],
)
def test_weights_add_up_to_one(spans, n):
    total = np.zeros(n)
    for (begin, end), weight in zip(spans, compute_fade_weights(spans), strict=True):
        assert weight.shape == (end - begin,)
        assert (weight >= 0).all()
        assert (weight <= 1).all()
        total[begin:end] += weight
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


def test_weights_rise_and_fall_in_overlaps_only():
    first, middle, last = compute_fade_weights(SPANS)
    assert (first[:304] == 1).all()
    assert (np.diff(first[313:391]) < 0).all()
    assert (np.diff(middle[9:87]) > 0).all()
    # Frames that reach past the end of a chunk do not count: a tenth of an overlap.
    assert not first[391:].any()
    assert not middle[:9].any()
    assert (middle[96:304] == 1).all()
    assert (last[96:] == 1).all()
    np.testing.assert_allclose(first[304:] + middle[:96], 1.0, atol=1e-6)


def test_weights_beside_a_gap_stay_at_one():
    first, last = compute_fade_weights([SPANS[0], SPANS[2]])
    assert (first == 1).all()
    assert (last == 1).all()


def test_pieces_of_one_wave_are_that_wave():
    whole = waves(3)[None]
    parts = [whole[..., begin:end] for begin, end in SPANS]
    np.testing.assert_allclose(crossfade_waves(parts, SPANS, N), whole, atol=1e-6)


def test_a_gap_is_silent():
    whole = waves()[0]
    spans = [SPANS[0], SPANS[2]]
    found = crossfade_waves([whole[b:e] for b, e in spans], spans, N)
    np.testing.assert_array_equal(found[:400], whole[:400])
    assert not found[400:608].any()
    np.testing.assert_array_equal(found[608:], whole[608:])


# --- posteriors ----------------------------------------------------------------------------------


def pieces(whole, spans=SPANS):
    """Cut a posterior as if each chunk had been inferred on its own, to the same result."""
    hop = whole.stft.hop
    parts = []
    for begin, end in spans:
        frames = slice(begin // hop, begin // hop + whole.stft.count_frames(end - begin))
        parts.append(
            replace(
                whole,
                mean=whole.mean[..., frames],
                variance=whole.variance[..., frames],
                mixture=whole.mixture[..., frames],
                speech=whole.speech[..., begin:end],
                n_samples=(end - begin,),
            )
        )
    return parts


@pytest.fixture(scope="module")
def whole():
    return Exact(draws=20)(reference_scene(True, stft=STFT), waves(), seed=0)


def test_equal_posteriors_make_the_same_posterior(whole):
    found = crossfade_chunks(pieces(whole), SPANS, N)
    for name in ("mean", "variance", "mixture"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.enhance(), whole.enhance(), atol=1e-4)
    np.testing.assert_allclose(found.noisy(), waves()[0], atol=1e-4)
    outside = np.r_[0:304, 400:608, 704:1000]
    np.testing.assert_allclose(found.speech[..., outside], whole.speech[..., outside], atol=1e-5)
    assert found.speech.shape == whole.speech.shape
    assert found.n_samples == (N,)
    assert (found.kind, found.stft) == (whole.kind, whole.stft)
    assert found.attrs == {**whole.attrs, "chunks": 3}
    assert found.latents == {}
    assert found.trace == {}


@pytest.mark.parametrize("name", ["k_hat", "elbo_rise"])
def test_the_worst_figure_of_a_fit_is_that_of_the_whole(whole, name):
    values = [0.2, 0.9, 0.4]
    rows = [FitInfo(**{name: value}) for value in values]
    parts = [replace(p, fit=(row,)) for p, row in zip(pieces(whole), rows, strict=True)]
    assert getattr(crossfade_chunks(parts, SPANS, N).fit[0], name) == 0.9
    assert stack_recordings(parts[:1] * 2).fit == (rows[0], rows[0])


def test_one_chunk_is_returned_with_its_latents(whole):
    assert crossfade_chunks([whole], [(0, N)], N) is whole


def test_a_single_chunk_among_silent_ones_is_put_in_its_place(whole):
    begin, end = SPANS[1]
    found = crossfade_chunks(pieces(whole)[1:2], SPANS[1:2], N)
    assert found.n_samples == (N,)
    assert found.mean.shape == whole.mean.shape
    inside = slice(begin, end)
    np.testing.assert_allclose(found.speech[..., inside], whole.speech[..., inside], atol=1e-6)
    assert not found.speech[..., :begin].any()
    assert not found.speech[..., end:].any()
    first, last = begin // 16, begin // 16 + STFT.count_frames(end - begin)
    np.testing.assert_array_equal(found.mean[..., first:last], whole.mean[..., first:last])
    assert not found.mean[..., :first].any()
    assert not found.variance[..., last:].any()


def test_draws_keep_their_spread_where_chunks_meet():
    # White speech in white noise: the spread is the same everywhere. Chunks are drawn
    # independently; a plain cross-fade would take 3 dB off in the middle of an overlap.
    speech = GaussianSpeech(spectrum=torch.ones(33), gain_sd_db=0.0, stft=STFT)
    scene, wave = Scene(speech, lambda _: ComplexNormal(0.0, 1.0)), waves()[0]
    parts = [
        Exact(draws=400)(scene, wave[begin:end], seed=10 * i)
        for i, (begin, end) in enumerate(SPANS)
    ]
    found = crossfade_chunks(parts, SPANS, N)
    spread = found.draws().var(0)
    level = spread[np.r_[50:304, 400:608, 704:950]].mean()
    for begin, end in ((304, 400), (608, 704)):
        middle = slice(begin + 30, end - 30)
        # 36 samples of 400 draws each, neighbours related: 5 % is more than four sd.
        assert spread[middle].mean() == pytest.approx(level, rel=0.05)
        naive = np.zeros((400, N))
        for part, (b, e), fade in zip(parts, SPANS, compute_fade_weights(SPANS), strict=True):
            naive[:, b:e] += fade * part.draws()
        assert naive.var(0)[middle].mean() < 0.7 * level  # what this test would catch
    centre = found.draws().mean(0) - found.enhance()
    assert np.sqrt(np.mean((centre / np.sqrt(level)) ** 2)) < 2 / np.sqrt(400)
    low, high = found.interval(0.9)
    inside = ((found.draws() >= low) & (found.draws() <= high)).mean()
    assert inside == pytest.approx(0.9, abs=0.01)


# --- channels ------------------------------------------------------------------------------------


def channel(steps=4, seed=0):
    scene = Scene(GaussianSpeech(stft=STFT), stationary)
    return SVI(steps=steps, tolerance=0, draws=3)(scene, waves(1, 320, seed), seed=seed)


def test_channels_become_recordings():
    left, right = channel(seed=0), channel(seed=1)
    both = stack_recordings([left, right])
    assert both.recordings == 2
    assert both.n_samples == (320, 320)
    for r, one in enumerate((left, right)):
        again = both.select(r)
        for name in ("mean", "variance", "mixture", "speech"):
            np.testing.assert_array_equal(getattr(again, name), getattr(one, name))
        for name, values in one.latents.items():
            np.testing.assert_array_equal(again.latents[name], values)
        np.testing.assert_array_equal(again.trace["elbo"], one.trace["elbo"])


def test_one_channel_is_itself():
    one = channel()
    assert stack_recordings([one]) is one


def test_channels_that_stopped_at_different_steps():
    short, long = channel(steps=3), channel(steps=5, seed=1)
    elbo = stack_recordings([short, long]).trace["elbo"]
    assert elbo.shape == (5, 2)
    np.testing.assert_array_equal(elbo[:3, :1], short.trace["elbo"])
    assert np.isnan(elbo[3:, 0]).all()
    np.testing.assert_array_equal(elbo[:, 1:], long.trace["elbo"])
