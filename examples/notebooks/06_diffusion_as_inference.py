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
# # Diffusion as inference
#
# Diffusion models make pictures out of noise. Seen from here they are something else: a *prior*
# that you know only by its **denoiser**, and a way to draw from the posterior with nothing but
# that. This lecture builds the sampler in one dimension, where everything can be checked, then puts
# it on speech:
#
# 1. Tweedie's formula: a denoiser knows the score;
# 2. posterior draws by denoise, condition, renoise, in a dozen lines;
# 3. the learned denoiser of spectrograms, level by level;
# 4. the same in the latents of a VAE: latent diffusion;
# 5. what it gives as an enhancer, and how far to believe its error bars.

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
import torch

from avse_ppl import (
    NMF,
    SVI,
    GuidedDiffusion,
    Scene,
    Stft,
    evaluate,
    load_audio,
    load_speech,
    stationary,
)
from avse_ppl.data import get_example_path, highpass, mix
from avse_ppl.evaluation.calibration import coverage
from avse_ppl.models.prior_predictive import draw_prior_predictive
from avse_ppl.models.speech.diffusion import noise_levels
from avse_ppl.plotting import play_audio, use_style
from avse_ppl.plotting.posterior import draw_spectrogram

REDUCED = os.environ.get("AVSE_PPL_REDUCED") == "1"  # fewer steps, to test this notebook soon
STFT = Stft()
DB = 10 / np.log(10)  # decibels in a neper of power

# %% [markdown]
# ## 1. A denoiser knows the score
#
# Let $s$ be a number with a prior $p(s)$, and $y = s + \sigma \epsilon$ the same in noise of
# deviation $\sigma$, $\epsilon \sim N(0, 1)$. The density of $y$ is the prior blurred,
# $p_\sigma(y)$. Tweedie's formula says that the best guess of $s$ and the slope of the log density
# (the *score*) are one and the same thing, and that its derivative is the variance:
#
# $$ m(y) = \mathrm{E}[s \mid y] = y + \sigma^2\, \frac{d}{dy} \log p_\sigma(y), \qquad v(y) = \mathrm{Var}[s \mid y] = \sigma^2\, \frac{d}{dy} m(y). $$
#
# So whoever has learned to take noise away at all levels, which is plain regression, has learned
# the prior. Our prior has two bumps, at -2 and 2, the right one twice as heavy; all is in closed
# form.

# %%
CENTRES, WEIGHTS, WIDTH = np.array([-2.0, 2.0]), np.array([1 / 3, 2 / 3]), 0.4


def denoise(y: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of s given y = s + sigma eps, for the prior with two bumps."""
    total = WIDTH**2 + sigma**2
    log_share = np.log(WEIGHTS) - 0.5 * (y[..., None] - CENTRES) ** 2 / total
    share = np.exp(log_share - log_share.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    means = CENTRES + WIDTH**2 / total * (y[..., None] - CENTRES)
    mean = (share * means).sum(-1)
    within = WIDTH**2 * sigma**2 / total
    return mean, within + (share * (means - mean[..., None]) ** 2).sum(-1)


grid = np.linspace(-6, 6, 1201)
with use_style():
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.8), sharex=True, layout="constrained")
    for axis, sigma in zip(axes, (3.0, 1.0, 0.3), strict=True):
        total = WIDTH**2 + sigma**2
        blurred = np.exp(-0.5 * (grid[:, None] - CENTRES) ** 2 / total) @ WEIGHTS / np.sqrt(total)
        mean, variance = denoise(grid, sigma)
        by_tweedie = grid + sigma**2 * np.gradient(np.log(blurred), grid)
        axis.fill_between(
            grid, -6, -6 + 4 * blurred / blurred.max(), color="0.85", lw=0, label="density of y"
        )
        axis.fill_between(
            grid, mean - np.sqrt(variance), mean + np.sqrt(variance), alpha=0.35, lw=0
        )
        axis.plot(grid, mean, label="denoiser")
        axis.plot(grid, by_tweedie, label="by the slope of the density")
        axis.set(title=f"noise level {sigma:g}", xlabel="y", ylim=(-6, 6))
    axes[0].set_ylabel("s given y")
    axes[0].legend(loc="upper left")
plt.show()

# %% [markdown]
# The two curves are one. At a high level all that can be said is "somewhere about the mean"; at a
# low one the denoiser is a staircase with two steps, and the band is wide only at the jump.
#
# ## 2. Draws from the posterior
#
# Now a recording, $x = s + b$ with noise $b \sim N(0, B)$. We want draws of $s$ given $x$. Go down
# the noise levels, and at each
#
# 1. **denoise**: $s \mid y \approx N(m, v)$, a normal distribution with the denoiser's mean and
#    variance;
# 2. **condition** on the recording, which is a Wiener filter:
#    $s \mid y, x \sim N\big(m + \tfrac{v}{v + B}(x - m),\; \tfrac{v B}{v + B}\big)$, and draw from
#    that;
# 3. **renoise**: $y = s + \sigma' \epsilon$ at the next lower level $\sigma'$.
#
# At one level, repeated, this is a Gibbs sampler of $(y, s)$: the only approximation is in step 1,
# that what is given $y$ is normal. Leave the variance $v$ out of step 2, as popular recipes do that
# only push the mean towards the data, and it is wrong.


# %%
def sample_posterior(
    x: float, noise: float, rng: Any, draws: int = 4000, honest: bool = True
) -> np.ndarray:
    """Draws of s given x = s + b by a guided diffusion; without ``honest``, of variance sigma^2."""
    y = 5.0 * rng.normal(size=draws)
    levels = [*noise_levels(5.0, 0.3, 20), *[0.3] * 20]
    s = y
    for sigma, lower in zip(levels, [*levels[1:], levels[-1]], strict=True):
        m, v = denoise(y, sigma)
        v = v if honest else np.full_like(v, 0.01)  # as good as certain of the mean
        s = (
            m
            + v / (v + noise) * (x - m)
            + np.sqrt(v * noise / (v + noise)) * rng.normal(size=draws)
        )
        y = s + lower * rng.normal(size=draws)
    return s


X, NOISE = 0.3, 2.0
exact = np.exp(-0.5 * (grid[:, None] - CENTRES) ** 2 / WIDTH**2) @ WEIGHTS
exact = exact * np.exp(-0.5 * (X - grid) ** 2 / NOISE)
exact /= exact.sum() * (grid[1] - grid[0])
right = exact[grid > 0].sum() * (grid[1] - grid[0])
with use_style():
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharey=True, layout="constrained")
    for axis, honest in zip(axes, (True, False), strict=True):
        found = sample_posterior(X, NOISE, np.random.default_rng(0), honest=honest)
        axis.hist(found, bins=80, range=(-5, 5), density=True, color="C0", alpha=0.5)
        axis.plot(grid, exact, color="black", ls="-", lw=1, label="exact posterior")
        title = "with the denoiser's variance" if honest else "mean only"
        axis.set(title=title, xlabel="s", xlim=(-5, 5))
        print(f"{title}: P(s > 0 | x) is {(found > 0).mean():.2f}, exactly {right:.2f}")
    axes[0].legend(loc="upper left")
plt.show()

# %% [markdown]
# The left histogram has both bumps at the right place and of the right width. Their *shares* are
# off, 0.73 instead of 0.78: at the levels at which $y$ is being torn between the bumps, what is
# given $y$ is not normal but has two bumps itself. That is the approximation of the method, and
# here it can be seen with the naked eye.
#
# On the right, without the variance: the shares are no worse, by luck, but the bumps are too narrow
# and too far out. Whoever reads an interval off such draws is too sure. It gets worse where the
# noise has to be estimated as well: what the denoiser does not know is then taken for noise.
#
# ## 3. A learned denoiser of spectrograms
#
# For speech, $s$ is a complex spectrogram of 96 000 bins, and the denoiser a convolutional network
# of 2.5 million parameters. Loud and faint bins differ by 60 dB, so what is diffused are
# *compressed* bins $c_{ft} = |s_{ft}|^{1/2} e^{i \angle s_{ft}}$. It answers with a mean and a
# variance for each bin; the variance is a second output, learned by likelihood, since Tweedie's
# derivative would cost a pass a bin.
#
# Clean speech, in noise of three levels: what it is shown, what it makes of it, and how unsure it
# is.

# %%
speech = highpass(load_audio(get_example_path("speech.flac")).samples, 16000).astype(np.float32)
clean = STFT.analyse(speech)
score_prior: Any = load_speech("score")
compressed = score_prior.compression.compress(clean.values)
generator = torch.Generator().manual_seed(0)


def draw_level(axis: Any, values: torch.Tensor, title: str) -> None:
    """Draw magnitudes of compressed bins, dB as they are after expansion."""
    magnitude = values.abs()[0].numpy()
    draw_spectrogram(axis, 4 * DB * np.log(magnitude + 1e-4), STFT, vmin=-40.0, vmax=30.0)
    axis.set_title(title)
    axis.label_outer()


with use_style():
    figure, axes = plt.subplots(
        3, 3, figsize=(11, 6.5), sharex=True, sharey=True, layout="constrained"
    )
    for row, sigma in zip(axes, (1.5, 0.5, 0.15), strict=True):
        unit = torch.randn(compressed.shape, dtype=compressed.dtype, generator=generator)
        given = compressed + sigma * unit
        mean, variance = score_prior.denoise(given, torch.tensor([sigma]))
        draw_level(row[0], given, f"given, noise level {sigma:g}")
        draw_level(row[1], mean, "mean")
        draw_level(row[2], variance.sqrt(), "standard deviation")
plt.show()

# %% [markdown]
# At level 1.5 the eye finds a few harmonics in what is given; the network finds the rhythm of the
# words, and is unsure of most else. At 0.15 the fricatives around 1.4 s are back. The deviation is
# large *where there is speech*, of which the details are unknown, and small in silence, of which
# the network is sure: one number for a level, as simpler recipes have it, would not do.
#
# ## 4. Latent diffusion
#
# Diffusing 96 000 bins is slow, and a denoiser of all of them hard to learn. [Rombach et al.
# (2022)](https://arxiv.org/abs/2112.10752) diffuse the latents of an autoencoder instead: here the
# 16 latents a frame of `tcvae`. The VAE believes that they are white noise; `latent-diffusion` has
# learned what they are like when somebody speaks. Draws from both priors, through the *same
# decoder*:

# %%
white = draw_prior_predictive(Scene(load_speech("tcvae"), stationary), 3.0, draws=1, seed=0)
diffused = draw_prior_predictive(
    Scene(load_speech("latent-diffusion"), stationary), 3.0, draws=1, seed=0
)
with use_style():
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
    for axis, name, one in zip(axes, ("tcvae", "latent-diffusion"), (white, diffused), strict=True):
        power = STFT.analyse(one.speech[0]).power[0].numpy()
        draw_spectrogram(axis, DB * np.log(power / np.quantile(power, 0.999) + 1e-9), STFT)
        axis.set_title(f"a draw of {name}")
        axis.label_outer()
plt.show()
waves = {"tcvae": white.speech[0], "latent-diffusion": diffused.speech[0]}
play_audio({name: 0.1 * wave / wave.std() for name, wave in waves.items()}, 16000)

# %% [markdown]
# Same decoder, same number of latents. White latents decode to a texture; diffused ones to
# something with syllables and pauses, that starts and stops. In notebook 05 a Markov chain over the
# latents did the same by other means.
#
# ## 5. As enhancers
#
# `GuidedDiffusion` is section 2 with two things more: the power of the noise is not known but
# fitted on the way, by any noise model; and latents, whose relation to the recording is not linear,
# take Langevin moves in step 2. Spectrograms can start from pure noise, or *warm*, near the
# posterior under another prior.

# %%
mixture = mix(speech, load_audio(get_example_path("rain.flac")).samples, 0.0, seed=0)
runs: dict[str, tuple[str, Any]] = {
    "tcvae, variational": ("tcvae", SVI(steps=40 if REDUCED else 150)),
    "latent-diffusion, guided": ("latent-diffusion", GuidedDiffusion()),
    "score, warm start": ("score", GuidedDiffusion(base_prior="latent-diffusion")),
}
if not REDUCED:
    runs["score, from pure noise"] = ("score", GuidedDiffusion(noise_retention=0.0))
rows, sounds = {}, {"noisy": mixture.mixture}
for name, (prior, method) in runs.items():
    posterior = method(Scene(load_speech(prior), NMF(2)), mixture.mixture, seed=0)
    scores = evaluate(mixture.speech, posterior.enhance(), 16000)
    found = coverage(posterior, mixture.speech, (0.9,))
    rows[name] = {"SI-SDR, dB": scores.si_sdr_db, "ESTOI": scores.estoi,
                  "in 90 % discs, %": 100 * found.bins[0],
                  "the same by energy": 100 * found.bins_by_energy[0],
                  "seconds": posterior.attrs.get("inference_s")}  # fmt: skip
    sounds[name] = posterior.enhance()
    print(f"{name}: {posterior.kind}", *posterior.warnings, sep="\n    ")
pd.DataFrame(rows).T.astype(float).round(2)

# %%
play_audio(sounds, 16000)

# %% [markdown]
# **What the table says.** The latent diffusion, so much better a prior to look at, is half a
# decibel *behind* the variational `tcvae` on this sentence; over the 108 mixtures of the
# development set it is ahead, by 0.3 dB of SI-SDR and .03 of ESTOI
# ([figures](../../docs/results/diffusion.md)). The score prior adds nothing to its warm start, and
# from pure noise it is 5 dB behind: its network has seen each training sentence about once. (That
# row keeps no noise from one level to the next, `noise_retention=0`. With the default, all of it,
# the run from pure noise ends at -19 dB here: the noise model and the denoiser agree on a world
# without speech.)
#
# **How far to believe the error bars.** Of `latent-diffusion`, as stated. Of `score` 49 % instead
# of 90 where there is speech: it fills in bins with details that are plausible and not there, and
# is sure of them. The library ships recalibration tables for both, see notebook 07.
#
# And read the warnings. R-hat of 3 says that the two chains have not met: short chains of a sampler
# that has no accept step are a way to *find* good speech, and not yet a way to say how surely it is
# known.
#
# ## What was approximated
#
# - Clean bins, or latents, are independent and normal given the noisy ones. For Gaussian speech
#   that is exact, and there the library's sampler comes within 0.04 posterior deviations of the
#   exact mean, with deviations in a ratio of 1.00
#   ([measured](../../docs/results/diffusion.md#on-gaussian-speech-of-known-power)).
# - The run starts and ends at a finite noise level.
# - NMF noise is a point estimate; the chains are short, and no move is accepted or refused.
#   `posterior.kind` says all of it, and the warnings name R-hat.
#
# ## Exercises
#
# **1.** In section 2, take away the way down: start at the last level, 0.3, right away. What is
# lost?
#
# <details><summary>Solution</summary>
#
# ```python
# def sample_cold(x, noise, rng, draws=4000):
#     y = 5.0 * rng.normal(size=draws)
#     for _ in range(40):
#         m, v = denoise(y, 0.3)
#         s = m + v / (v + noise) * (x - m) + np.sqrt(v * noise / (v + noise)) * rng.normal(size=draws)
#         y = s + 0.3 * rng.normal(size=draws)
#     return s
#
#
# print((sample_cold(X, NOISE, np.random.default_rng(0)) > 0).mean(), right)
# ```
#
# Half of the draws are in each bump, 0.495 instead of 0.78: each chain stays in the bump that it
# has started in, since at level 0.3 nothing leads from one to the other. The high levels are where
# bumps are chosen.
#
# </details>
#
# **2.** Give `latent-diffusion` four times as many sweeps, `GuidedDiffusion(sweeps=40)`. A longer
# chain is nearer to the posterior. Is it nearer to the speech?
#
# <details><summary>Solution</summary>
#
# On this recording SI-SDR falls from 8.6 to 6.8 dB. The chain wanders on with a noise that is a
# point estimate fitted to each of its states, and settles where the *model's* posterior is, which
# is not where the speech is; the short chain stays near the encoder's guess, from which it starts.
# The same was found on other mixtures ([1 to 2
# dB](../../docs/inference/guided-diffusion.md#what-it-approximates)). When fewer steps give better
# results, it is the model and not the sampler that is to be mended.
#
# </details>
#
# ## Where to read on
#
# - [Guided diffusion](../../docs/inference/guided-diffusion.md), [score
#   prior](../../docs/models/score.md), [latent diffusion](../../docs/models/latent-diffusion.md),
#   [all figures](../../docs/results/diffusion.md).
# - Song et al., [Score-based generative modeling through SDEs](https://arxiv.org/abs/2011.13456),
#   2021. Karras et al., [Elucidating the design space of diffusion-based generative
#         models](https://arxiv.org/abs/2206.00364), 2022. Nortier, Sadeghi and Serizel,
#         [Unsupervised speech enhancement with diffusion-based generative
#         models](https://arxiv.org/abs/2309.10450), 2024.
