# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Is the uncertainty right?
#
# A posterior says "the level of this word is between -18 and -14 dB, with probability 0.9". Anybody
# can say so. When is it *true*? There are two questions in this one, and they need two experiments:
#
# 1. **Is the inference right, given the model?** Let the model make up the world, so that the truth
#    is a draw from the prior, and look where it falls among the draws of the posterior:
#    *simulation-based calibration* (SBC).
# 2. **Is the model right about the world?** Take real speech in real noise, and count how often 90
#    % regions hold the clean speech: *coverage*.
#
# A method can pass the first and fail the second. Most do. And then there is a third, practical
# question: what to do about it. That is *recalibration*.

# %%
import importlib.util

if importlib.util.find_spec("avse_ppl") is None:  # on a fresh machine, such as one of Colab's
    # %pip install -q avse-ppl
    pass

# %%
import os
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from avse_ppl import EM, NMF, SVI, Exact, Scene, Stft, load_audio, load_speech
from avse_ppl.data import get_example_path, highpass, mix
from avse_ppl.evaluation.calibration import coverage, simulation_based_calibration
from avse_ppl.evaluation.calibration.fit_recalibration import fit_recalibration
from avse_ppl.evaluation.calibration.ranks import rank_ecdf, simultaneous_band
from avse_ppl.models.simulate import reference_scene
from avse_ppl.plotting import draw_calibration, draw_coverage, use_style
from avse_ppl.posterior.functionals import Level

REDUCED = os.environ.get("AVSE_PPL_REDUCED") == "1"  # fewer steps, to test this notebook soon

# %% [markdown]
# ## 1. Ranks, by hand
#
# The idea of SBC in one number. Draw a truth $\theta \sim p(\theta)$ and data
# $x \sim p(x \mid \theta)$, then draws $\theta_1, \dots, \theta_D$ from the posterior of $x$. If it
# is the posterior, truth and draws come from the same distribution, so that the **rank** of the
# truth, $r = \#\{d : \theta_d < \theta\}$, is uniform on $0, \dots, D$. Nothing needs to be known
# about the posterior for that, and nothing is approximated.
#
# For $\theta \sim N(0, 1)$ and $x \mid \theta \sim N(\theta, 1)$ the posterior is
# $N(x / 2, 1 / 2)$. Four statisticians: one is right, one reports deviations that are too small,
# one too large, and one is biased.

# %%
rng = np.random.default_rng(0)
theta = rng.normal(size=4000)
x = rng.normal(theta)
statisticians = {
    "right": (0.0, 1.0),
    "too sure": (0.0, 0.6),
    "too timid": (0.0, 1.6),
    "biased": (0.4, 1.0),
}
with use_style():
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.4), sharey=True, layout="constrained")
    for axis, (name, (bias, factor)) in zip(axes, statisticians.items(), strict=True):
        posterior_sd = factor * np.sqrt(0.5)
        draws = x / 2 + bias + posterior_sd * rng.normal(size=(19, len(x)))
        ranks = (draws < theta).sum(0)
        axis.bar(np.arange(20), np.bincount(ranks, minlength=20), color="C0", width=0.9)
        axis.axhspan(200 - 42, 200 + 42, color="0.8", zorder=0)  # 3 deviations of a binomial count
        axis.set(title=name, xlabel="rank of the truth")
    axes[0].set_ylabel("simulations")
plt.show()

# %% [markdown]
# **How to read them.** Flat: right. A valley: too sure, the truth lies outside too often. A hill:
# too timid. A slope: biased; here the draws are too high, so that the truth ranks low. ([Talts et
# al., 2018](https://arxiv.org/abs/1804.06788).)
#
# ## 2. Inference methods against a world of their own
#
# Now speech. `reference_scene` is Gaussian speech with a gain $z_t$ of 6 dB in each frame, in white
# noise of unknown level; `Exact` solves it by quadrature. We simulate mixtures from it and let four
# methods infer them: `Exact`; `SVI` with a likelihood as it is; `SVI` as it is shipped, with the
# likelihood *tempered* (to the power of 1/4, since STFT frames of real sound overlap four times; in
# this made-up world they do not); and `EM`, which estimates a point.
#
# Instead of histograms: the cumulative share of ranks minus what uniform ranks have, with a grey
# band in which uniform ranks stay in 95 of 100 experiments, as a whole curve. A wave that begins
# *upwards* is a valley (too sure), one that begins downwards a hill.

# %%
SIMULATIONS = 20 if REDUCED else 100
scene = reference_scene(noise_known=False, stft=Stft(64, 16))
methods = {
    "exact": Exact(nodes=17, draws=99, waveforms=False),
    "SVI": SVI(steps=60 if REDUCED else 150, tempering=1.0, draws=99, waveforms=False),
    "SVI, tempered": SVI(steps=60 if REDUCED else 150, draws=99, waveforms=False),
    "EM": EM(draws=99, waveforms=False),
}
results = {
    name: simulation_based_calibration(method, scene, SIMULATIONS, seed=1, n_samples=320)
    for name, method in methods.items()
}
quantities = {"noise.level[0,0]": "level of the noise", "speech.gain[0,10]": "gain of a frame",
              "speech power": "power of speech", "log joint": "log density"}  # fmt: skip
with use_style():
    figure, axes = plt.subplots(
        4, 4, figsize=(11, 7.5), sharex=True, sharey=True, layout="constrained"
    )
    for axis, title in zip(axes[0], quantities.values(), strict=True):
        axis.set_title(title)
    for row, (name, result) in zip(axes, results.items(), strict=True):
        band = simultaneous_band(result.simulations, result.draws, 0.95)
        for axis, quantity in zip(row, quantities, strict=True):
            points, ecdf = rank_ecdf(result.ranks[quantity], result.draws)
            lower, upper = band.lower - points, band.upper - points
            axis.fill_between(points, lower, upper, color="0.85", step="mid")
            fine = result.are_uniform(0.95)[quantity]
            axis.plot(points, ecdf - points, color="C0" if fine else "tab:red", ls="-")
            axis.set_ylim(-0.4, 0.4)
        row[0].set_ylabel(name)
    figure.supxlabel("rank of the truth / draws", fontsize=9)
plt.show()
pd.DataFrame({
    name: {title: 100 * result.coverage(0.9)[quantity] for quantity, title in quantities.items()}
    for name, result in results.items()
}).T.round(0)  # fmt: skip

# %% [markdown]
# **Row by row.** `exact` and `SVI` stay in the band, but for the power of speech, where they leave
# it by a hair, both alike. Can the exact posterior be wrong? No: all rows share the same 100
# simulations, and a band of 95 % is left once in twenty. With 200 simulations of another seed it is
# not ([table](../../docs/results/calibration.md#on-simulated-scenes)). A test that is never failed
# by chance tests nothing.
#
# *Tempered* `SVI` is timid about the noise level, on purpose: it takes the recording for a quarter
# of what it is, so that its 90 % intervals hold the truth always. The log density of everything
# together, the last column, shows it far more clearly than any single latent: choose your test
# quantities.
#
# `EM` is a straight line from top to bottom: the truth is below all "draws" or above all, since
# they are one point. The intervals of its latents hold nothing. And yet its *speech* is nearly as
# well covered as that of the others, since speech given the latents is still integrated exactly.
# What is right for one question may be void for another.
#
# ## 3. Real speech
#
# Three sentences, two voices, in three noises at 0 dB: nine mixtures, enhanced by the library's
# audio-only default without a predictor (`tcvae`, `NMF`, `SVI`), and compared with the clean
# recordings. Two kinds of regions:
#
# - for each **bin** of the STFT the disc around the posterior mean that holds 90 % of the complex
#   Gaussian, of radius $\sqrt{-v_{ft} \log 0.1}$ for the posterior variance $v_{ft}$;
# - for each **sample** of the waveform the interval between the 5 % and the 95 % quantile of the
#   draws.
#
# Plain, each counts the same, and most are silence. "By energy" weights each with the energy of
# speech that is *expected* in it, $|m_{ft}|^2 + v_{ft}$. (Why not with the true energy? Because
# where the truth came out large, it is outside more often: under that weight even a perfect
# posterior would fail.)

# %%
SENTENCES = ("speech.flac", "mouth.mkv", "mouth_in_red.mkv")
NOISES = ("rain", "running_tap", "clock_tick")[: 1 if REDUCED else 3]
pairs = [
    mix(
        highpass(load_audio(get_example_path(sentence)).mono().samples, 16000),
        highpass(load_audio(get_example_path(f"{noise}.flac")).samples, 16000),
        0.0,
        seed=0,
    )
    for sentence in SENTENCES
    for noise in NOISES
]
titles = [f"{s.split('.')[0]} in {n}" for s in SENTENCES for n in NOISES]
speech_scene = Scene(load_speech("tcvae"), NMF())
method = SVI(steps=40 if REDUCED else 150)
batch = method(speech_scene, [pair.mixture for pair in pairs], seed=[0] * len(pairs))
posteriors = [batch.select(i) for i in range(len(pairs))]
print(batch.kind)

with use_style():
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    draw_calibration(posteriors[0], pairs[0].speech, axes)
    figure.suptitle(titles[0])
plt.show()

# %% [markdown]
# **Left**: over the stated mass, the share of truths inside. On the diagonal a posterior is right,
# below it too sure, above it not sure enough. **Right**: leave out the bins of which the posterior
# is least certain, and see how the error of the rest falls. It falls nearly as steeply as if one
# knew the error itself: the posterior *ranks* bins by their error very well, whatever its scale is.
# (Both axes of honesty matter. A weather forecast that says "30 % rain" every day is calibrated,
# and of no use.)
#
# One recording proves little. All nine, 90 % regions:


# %%
def tabulate(posteriors: list[Any]) -> pd.DataFrame:
    """Shares of the truths inside 90 % regions, in per cent, of each mixture and on average."""
    rows = [coverage(one, pair.speech, (0.9,)) for one, pair in zip(posteriors, pairs, strict=True)]
    table = pd.DataFrame(
        {
            "bins": [100 * row.bins[0] for row in rows],
            "bins, by energy": [100 * row.bins_by_energy[0] for row in rows],
            "samples": [100 * row.waveform[0] for row in rows],
            "samples, by energy": [100 * row.waveform_by_energy[0] for row in rows],
        },
        index=titles,
    )
    return pd.concat([table, table.mean().rename("mean").to_frame().T]).round(0)


before = tabulate(posteriors)
before

# %% [markdown]
# Plain, 93 % of the bins: one would think that all is well. Weighted by energy, 84, and in the
# ticking clock 69 to 72 for one of the voices. Where it matters the posterior is too sure of
# itself, and mixtures differ more from each other than a mean shows. The model is wrong somewhere:
# ticks are taken for speech, or speech for ticks, and no posterior *within* that model can know.
#
# ## 4. Sums of many bins
#
# Regions of single bins are one thing. What one usually wants to know is a *functional* of the
# speech, its level say, which adds up thousands of bins.


# %%
def tabulate_levels(posteriors: list[Any]) -> pd.DataFrame:
    """Interval of the level of each recording, with the truth."""
    rows = []
    for one, pair in zip(posteriors, pairs, strict=True):
        low, high = (float(bound.squeeze()) for bound in one.of(Level()).interval(0.9))
        truth = 10 * np.log10(np.mean(np.square(pair.speech)))
        rows.append({"low": low, "high": high, "truth": truth, "inside": low <= truth <= high})
    return pd.DataFrame(rows, index=titles).round(2)


levels = tabulate_levels(posteriors)
print(f"{levels['inside'].sum()} of {len(levels)} inside, median width "
      f"{(levels['high'] - levels['low']).median():.2f} dB")  # fmt: skip
levels

# %% [markdown]
# One of nine. Intervals a third of a decibel wide, and the truth is outside, mostly *above*. The
# regions of single bins were fairly right, so how can their sum be so wrong? Their errors go
# together. If a vowel comes out too soft, it does so in a hundred bins at once; the posterior takes
# these errors for nearly independent, and independent errors average out in a sum. Coverage of the
# parts says nothing about the coverage of the whole. **Check the intervals of the quantity that you
# report.**
#
# ## 5. Recalibration
#
# If intervals are too narrow by a factor that is known from other recordings, widen them by it.
# `posterior.recalibrated()` does so with a table that comes with the library: scales of variance
# and draws, by posterior signal-to-noise ratio of the bin, fitted on 120 mixtures of several
# corpora. The enhanced speech stays what it is; only the uncertainty changes, and `kind` says so.

# %%
recalibrated = [one.recalibrated() for one in posteriors]
print(recalibrated[0].kind)
after = tabulate(recalibrated)
levels_after = tabulate_levels(recalibrated)
print(f"levels: {levels_after['inside'].sum()} of {len(levels)} inside, median width "
      f"{(levels_after['high'] - levels_after['low']).median():.2f} dB")  # fmt: skip

with use_style():
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    masses = np.round(np.arange(0.1, 1.0, 0.1), 2).tolist()
    for axis, given in zip(axes, (posteriors, recalibrated), strict=True):
        draw_coverage(
            [coverage(one, pair.speech, masses) for one, pair in zip(given, pairs, strict=True)],
            axis,
        )
        name = "recalibrated" if given is recalibrated else "as it is"
        axis.set_title(f"{name}, {len(given)} recordings")
plt.show()
pd.concat({"as it is": before.loc["mean"], "recalibrated": after.loc["mean"]}, axis=1).T

# %% [markdown]
# With that, by energy 93 and 95 instead of 84 and 85, and all nine levels are inside, in intervals
# five times as wide. Somewhat more than 90 %: these nine are easier than what the table was fitted
# on. They are not independent of it either, sentences of the same corpus were among them. The curve
# for all bins stays far above the diagonal at small masses: a scale is right at 90 % only, and most
# bins are silence, whose errors are much smaller than their deviation says.
#
# And with recordings of your own whose clean speech you have, you fit a table yourself. The honest
# way is to test it on what it has not seen: here each sentence is tested with a table that is
# fitted to the other two.

# %%
own = []
for i in range(len(SENTENCES)):
    held_out = range(i * len(NOISES), (i + 1) * len(NOISES))
    rest = [(posteriors[j], pairs[j].speech) for j in range(len(pairs)) if j not in held_out]
    table = fit_recalibration(rest, fitted_on="two of three sentences")
    own += [posteriors[j].recalibrated(table) for j in held_out]
pd.concat({"shipped": after.loc["mean"], "fitted here": tabulate(own).loc["mean"]}, axis=1).T

# %% [markdown]
# Fitted to six recordings and tested on three others, 88 to 92 %, nearer to 90 than the shipped
# table. That is what a few recordings *of your own* are worth, of your voices in your noises. It is
# also what can be said at most: held-out sentences, but the same three noises.
#
# ## What is promised, and what is not
#
# - SBC says that the *inference* is right on average over worlds that the model would make up. It
#   says nothing about this recording, and nothing about whether the model is true.
# - Coverage on real recordings, before or after recalibration, holds on average over recordings
#   *like those*. On 69 recordings of Polish, to which nothing was fitted, the recalibrated 90 %
#   regions hold 85 to 88 %, and in one recording of five some region holds less than 70 %
#   ([figures](../../docs/results/coverage.md)). Where noise was taken for speech, no summary of the
#   posterior that was tried tells.
# - Scales cannot put right what is at the wrong place.
#
# ## Exercises
#
# **1.** In section 1, make a statistician whose posterior is right in mean and deviation, and yet
# not the posterior: draws from a uniform distribution of the same mean and variance. Does SBC see
# it?
#
# <details><summary>Solution</summary>
#
# ```python
# draws = x / 2 + np.sqrt(0.5) * np.sqrt(12) * (rng.random((19, len(x))) - 0.5)
# counts = np.bincount((draws < theta).sum(0), minlength=20)
# print(counts, np.square(counts - 200).sum() / 200)  # chi squared of 19 degrees of freedom
# ```
#
# It does: 299, where 19 are expected. Mean and variance are right, and the ranks are a wave: too
# few truths near the ends of the box, too many just outside of it and in its middle.
#
# </details>
#
# **2.** A posterior that ignores the data altogether and returns the prior: what does SBC say of
# it? And what do you conclude?
#
# <details><summary>Solution</summary>
#
# ```python
# draws = rng.normal(size=(19, len(x)))
# counts = np.bincount((draws < theta).sum(0), minlength=20)
# print(np.square(counts - 200).sum() / 200)
# density = [-0.5 * (t**2 + (x - t) ** 2) for t in (theta, *draws)]  # of truth and data together
# counts = np.bincount((np.array(density[1:]) < density[0]).sum(0), minlength=20)
# print(counts)
# ```
#
# 18.9: perfectly flat. Averaged over the prior, the prior *is* calibrated; SBC of a latent cannot
# tell it from the posterior. The density of truth and data together can: its ranks rise from 21 to
# 376. Calibration is not all, one wants to be sharp as well, and test quantities should involve the
# data (Modrák et al.).
#
# </details>
#
# **3.** Which likelihood power makes the waveform's intervals right on `speech in rain`, without
# any recalibration?
#
# <details><summary>Solution</summary>
#
# ```python
# for tempering in (1.0, 0.25, 0.1, 0.03):
#     one = SVI(tempering=tempering)(speech_scene, pairs[0].mixture, seed=0)
#     found = coverage(one, pairs[0].speech, (0.9,))
#     print(tempering, found.bins_by_energy.round(2), found.waveform_by_energy.round(2))
# ```
#
# Hardly any: by energy 0.87, 0.88, 0.90, 0.89 for bins and 0.91, 0.92, 0.90, 0.82 for samples. The
# likelihood's power changes how sure the latents are, and most of the width is what Wiener
# filtering leaves when the latents are known. At 0.03 the recording hardly counts, and the
# posterior is at the wrong place.
#
# </details>
#
# ## Where to read on
#
# - [Calibration](../../docs/results/calibration.md) and [coverage that carries
#   over](../../docs/results/coverage.md), with the tables of all methods; [analysis of
#   uncertainty](../../docs/guides/uncertainty.md).
# - Talts, Betancourt, Simpson, Vehtari and Gelman, [Validating Bayesian inference algorithms with
#   simulation-based calibration](https://arxiv.org/abs/1804.06788), 2018. Modrák et al.,
#   [Simulation-based calibration checking: the choice of test quantities shapes
#   sensitivity](https://arxiv.org/abs/2211.02383), 2023. Gneiting and Raftery, [Strictly proper
#   scoring rules, prediction, and estimation](https://doi.org/10.1198/016214506000001437), 2007.
