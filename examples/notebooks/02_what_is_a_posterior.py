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
# # 2. What is a posterior over speech?
#
# In lecture 1 a call returned "a distribution over waveforms". Here we build one with our own hands: first the
# smallest that there is, one Gaussian filter in five lines; then one with unknowns in it, for which three methods of inference,
# one of them exact, have to agree. At the end nothing in the word *posterior* should be mysterious.

# %%
import importlib.util

if importlib.util.find_spec("avse_ppl") is None:  # on a fresh machine, such as one of Colab's
    # %pip install -q avse-ppl
    pass

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import torch

import avse_ppl
from avse_ppl import NUTS, SVI, ComplexNormal, Exact, Stft
from avse_ppl.data import get_example_path, highpass, mix
from avse_ppl.models.simulate import reference_scene, simulate
from avse_ppl.plotting import play_audio

REDUCED = os.environ.get("AVSE_PPL_REDUCED") == "1"  # fewer steps, to test this notebook soon
RATE_HZ = 16000

# %% [markdown]
# ## The model of one bin
#
# The short-time Fourier transform (STFT) cuts a recording into frames $t$ and frequencies $f$. In each bin
# the mixture is a sum of two complex numbers, $x_{ft} = s_{ft} + b_{ft}$: speech and noise. The **local Gaussian
# model** says of each only how much power to expect:
#
# $$ s_{ft} \sim N_c(0, S_{ft}), \qquad b_{ft} \sim N_c(0, B_{ft}), $$
#
# where $N_c(0, v)$ is the complex Gaussian whose phase is anything and whose mean power is $v$. One equation, two
# unknowns. But powers add, $x_{ft} \sim N_c(0, S_{ft} + B_{ft})$, and Bayes' rule gives the speech in closed form:
#
# $$ s_{ft} \mid x_{ft} \;\sim\; N_c\!\left(G_{ft}\, x_{ft},\; G_{ft} B_{ft}\right), \qquad G_{ft} = \frac{S_{ft}}{S_{ft} + B_{ft}} . $$
#
# The mean is the Wiener filter of 1949: keep the share $G$ of each bin that is expected to be speech. The
# variance $G B$ is what most people forget. It is small in two cases: where there is no noise ($B \to 0$), and
# where there is no speech ($G \to 0$). In between nothing helps.

# %%
S, B, x = torch.tensor(3.0), torch.tensor(1.0), torch.tensor(2.0 + 0.0j)
G = S / (S + B)
by_hand = (G * x, G * B)
law = ComplexNormal(0.0, S).condition(ComplexNormal(0.0, B), x)
print("by hand: ", *by_hand)
print("library: ", law.mean, law.power)

# %% [markdown]
# ## On a real recording, with powers from an oracle
#
# Suppose that somebody tells us $S$ and $B$ (never the phases!). We can only cheat so: mix a sentence with a
# running tap ourselves and smooth the true powers a little. It is an *oracle*, an upper bound, and it is what
# every later method strives for: learning $S$ and $B$ is the whole art, the rest is this filter.

# %%
speech = highpass(avse_ppl.load_audio(get_example_path("speech.flac")).samples, RATE_HZ)
tap = avse_ppl.load_audio(get_example_path("running_tap.flac")).samples
mixture = mix(speech, tap, snr_db=0.0, seed=0)
stft = Stft()  # 1024 samples a frame, every 256


def smooth_power(wave: np.ndarray) -> torch.Tensor:
    power = stft.forward(torch.from_numpy(wave)).abs() ** 2
    return torch.nn.functional.avg_pool2d(power[None], 5, stride=1, padding=2)[0]


S, B = smooth_power(mixture.speech), smooth_power(mixture.noise) + 1e-8
x = stft.forward(torch.from_numpy(mixture.mixture))
law = ComplexNormal(0.0, S).condition(ComplexNormal(0.0, B), x)
oracle = stft.inverse(law.mean, len(speech)).numpy()
for name, wave in {"mixture": mixture.mixture, "Wiener, oracle powers": oracle}.items():
    print(f"{name:22} {avse_ppl.evaluate(mixture.speech, wave, RATE_HZ).si_sdr_db:5.1f} dB SI-SDR")
play_audio({"mixture": mixture.mixture, "oracle Wiener": oracle}, RATE_HZ)

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), sharey=True, layout="constrained")
deviation = law.power.sqrt()
panels = {"gain G": S / (S + B), "mean |G x|, dB": law.mean.abs(), "deviation, dB": deviation}
for axis, (title, values) in zip(axes, panels.items(), strict=True):
    shown = values.numpy() if title == "gain G" else 20 * np.log10(values.numpy() + 1e-6)
    limits = (0, 1) if title == "gain G" else (-50, 25)
    extent = (0, len(speech) / RATE_HZ, 0, 8)
    image = axis.imshow(
        shown,
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap="magma",
        vmin=limits[0],
        vmax=limits[1],
    )
    axis.set(title=title, xlabel="time, s")
    figure.colorbar(image, ax=axis)
axes[0].set_ylabel("frequency, kHz")
plt.show()

# %% [markdown]
# The gain is a soft mask: bright where speech wins. The deviation on the right has the *shape of the speech*, not of the
# noise: where no speech is expected, there is nothing to be unsure of.
#
# Even the oracle is far from perfect: what noise did to the phases, no knowledge of powers brings back. And how far is
# inference from it? On this very mixture `avse_ppl.enhance`, which is told nothing, reaches 13.3 dB. (It may come near since its powers
# are finer than our 5 x 5 smoothing; the oracle is one for *these* powers.)
#
# ## Is the band right? A check that costs nothing
#
# If the model is right, the squared error in units of the stated variance, $|s - Gx|^2 / (GB)$, averages 1 and is above
# $\ln 10 \approx 2.3$ in one bin of ten (an exponential variable). We know $s$:

# %%
s = stft.forward(torch.from_numpy(mixture.speech))
ratio = ((s - law.mean).abs() ** 2 / law.power).numpy()
loud = S.gt(S.max() * 1e-5).numpy()
print(
    f"mean {ratio[loud].mean():.2f} (expected 1), above ln 10: {(ratio[loud] > np.log(10)).mean():.1%} (10 %)"
)

# %% [markdown]
# Near, and on the safe side: the stated variance is a fifth larger than the error. Smoothing lends a weak bin
# some power of its strong neighbour, such as the gap between two harmonics. Keep the trick: **a stated variance can be checked**, and lecture 7 does so in earnest.
#
# ## Unknowns: from a filter to inference
#
# Nobody tells us $S$ and $B$. In a probabilistic program the unknowns get priors and a name, a *latent* each. The
# smallest such scene (the library calls it the reference scene) has a gain per frame and one noise power:
#
# $$ s_{ft} \sim N_c\!\left(0,\; S_f\, 10^{\sigma z_t/10}\right),\quad z_t \sim N(0,1), \qquad b_{ft} \sim N_c(0, v), \quad
# 10\log_{10} v \sim N(\mu, \sigma_b^2). $$
#
# $S_f$ is the average spectrum of speech, $z_t$ says how loud frame $t$ is and $\sigma = 10$ dB how much that varies.
# Now the posterior is a *mixture of Wiener filters*: one for each value of the latents, weighted by how well these explain $x$,
#
# $$ p(s \mid x) = \int p(s \mid x, z, v)\; p(z, v \mid x)\; dz\, dv . $$
#
# Speech itself is still integrated out exactly; only $z, v$ have to be inferred. That is the one rule of the library, and
# what makes it work for any noise model.
#
# ## Three methods, one answer
#
# We draw a mixture from the scene itself, so that everything is known, and infer it thrice:
#
# - `Exact`: quadrature on a grid. Possible here, since frames separate once $v$ is given; hopeless in general.
# - `SVI`: variational inference. Fits a Gaussian over the latents, by gradient. Fast; the family is a choice.
# - `NUTS`: Hamiltonian Monte Carlo. A chain that walks through the true posterior. Slow; no family, but finite chains.

# %%
scene = reference_scene(False, gain_sd_db=10.0, stft=Stft(n_fft=64, hop=32))
drawn = simulate(scene, n_samples=800 if REDUCED else 1600, seed=1)
methods = {
    "exact": Exact(draws=200),
    # Bins of a simulated mixture are independent; on real sound the default tempers by 0.25.
    "SVI": SVI(steps=100 if REDUCED else 300, draws=200, tempering=1.0),
    "NUTS": NUTS(draws=20 if REDUCED else 100, warmup=20 if REDUCED else 100, chains=2),
}
found = {name: method(scene, drawn.mixture, seed=0) for name, method in methods.items()}

exact = found["exact"]
print("        noise level, dB    speech: distance from exact   its deviation over exact")
for name, posterior in found.items():
    level_db = 10 * np.log10(posterior.latents["noise.level"]).ravel()
    distance = np.abs(posterior.mean - exact.mean).mean() / exact.sd.mean()
    width = posterior.sd.mean() / exact.sd.mean()
    print(
        f"{name:6} {level_db.mean():7.2f} +- {level_db.std():.2f} {distance:20.3f} sd {width:22.2f}"
    )
print(f"truth  {10 * np.log10(drawn.latents['noise.level'].item()):7.2f}")

# %%
figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 3), width_ratios=[1, 2], layout="constrained"
)
styles = {"exact": ("black", "-"), "SVI": ("C0", "--"), "NUTS": ("C1", ":")}
for name, posterior in found.items():
    colour, line = styles[name]
    level_db = 10 * np.log10(posterior.latents["noise.level"]).ravel()
    left.hist(level_db, 15, density=True, histtype="step", color=colour, ls=line, label=name)
    gain_db = 10 * posterior.latents["speech.gain"].reshape(-1, posterior.mean.shape[-1])
    low, high = np.quantile(gain_db, [0.05, 0.95], axis=0)
    right.plot(low, color=colour, ls=line, label=name)
    right.plot(high, color=colour, ls=line)
left.axvline(10 * np.log10(drawn.latents["noise.level"].item()), color="C3", label="truth")
left.set(xlabel="noise level, dB", ylabel="density", title="one latent of all frames")
left.legend(fontsize=8)
right.plot(10 * drawn.latents["speech.gain"].ravel().numpy(), "r.", label="truth")
right.set(xlabel="frame", ylabel="gain of speech, dB", title="90 % bands of a latent of each frame")
right.legend(fontsize=8, ncols=4)
plt.show()

# %% [markdown]
# The three agree to a small fraction of a posterior deviation: lines lie on each other. What is left is telling:
#
# - NUTS is the nearest, and would come nearer with more draws: what is left is Monte Carlo error.
# - SVI is a Gaussian on each latent. In *loud* frames that is all there is to say. In *quiet* frames, where the true posterior
#   of the gain has a long lower tail ("anything below the noise"), look at the lower band: that is where the
#   approximation shows first.
# - The red dots are inside the bands about nine times in ten, as stated.
#
# So why does lecture 1 come out too sure, if the methods are right? Because *here the model is the truth*. On a real recording
# the methods still agree with each other, on the answer to a question that is slightly wrong. Keep the two errors apart:
# **approximation** (SVI against exact; checked here) and **misspecification** (model against world; checked with recordings whose
# truth is known).
#
# ## Draws and bands
#
# With draws, any question is counting. In which frames is speech louder than noise, and how sure is that?

# %%
posterior = found["SVI"]
power = posterior.magnitudes() ** 2  # of the waveform draws (draw, freq, time)
level_db = 10 * np.log10(power.mean(1) + 1e-9)
low, middle, high = np.quantile(level_db, [0.05, 0.5, 0.95], axis=0)
figure, axis = plt.subplots(figsize=(10, 2.4), layout="constrained")
axis.fill_between(np.arange(len(low)), low, high, alpha=0.35, label="90 % band")
axis.plot(level_db[:3].T, color="0.4", lw=0.7, label=["three draws", None, None])
axis.plot(middle, color="black", label="median")
axis.set(xlabel="frame", ylabel="level of speech, dB", title="a functional of speech, by its draws")
axis.legend(fontsize=8, ncols=3)
plt.show()

# %% [markdown]
# The median runs through the middle, and *no draw looks like it*: each draw is rougher. A band is made of draws, frame by
# frame; a draw need not stay inside a 90 % band in all frames (it leaves it in one of ten). Questions that
# couple frames ("was there a pause of 100 ms?") must be put to the draws, never to the band.
#
# ## Exercises
#
# **1.** For which $S$ is the posterior variance $GB$ half of $B$? What is its limit for $S \to \infty$, and what does that say of
# very loud speech?
#
# <details><summary>Solution</summary>
#
# $GB = SB/(S+B)$ is $B/2$ at $S = B$. For $S \to \infty$ it goes to $B$: one knows loud speech no better than by the noise that
# was added to it. In dB, though, the *relative* error $GB / S = B/(S+B)$ vanishes.
# </details>
#
# **2.** `SVI` has a default `tempering=0.25` for real sound. What does it do here, where bins are independent?
#
# <details><summary>Solution</summary>
#
# ```python
# tempered = SVI(steps=100, draws=200)(scene, drawn.mixture, seed=0)
# for name in ("SVI", "exact"):
#     print(name, found[name].latents["noise.level"].std())
# print("tempered", tempered.latents["noise.level"].std())
# ```
#
# The deviation of the noise power about doubles: a likelihood to the power 1/4 counts a quarter of the bins, and
# deviations go with one over the square root. On real sound, where each sample stands in four overlapping
# frames, that is the right count.
# </details>
#
# ## Where to read on
#
# - [The law of the STFT](../../docs/concepts/stft-law.md), [the scene](../../docs/concepts/scene.md), [the reference
#   scene](../../docs/models/gaussian.md); methods: [exact](../../docs/inference/exact.md), [SVI](../../docs/inference/svi.md),
#   [MCMC](../../docs/inference/mcmc.md), and [which when](../../docs/inference/index.md).
# - Févotte, Bertin and Durrieu, "Nonnegative matrix factorization with the Itakura-Saito divergence", Neural Computation 2009
#   (the local Gaussian model); Hoffman and Gelman, "The No-U-Turn sampler", JMLR 2014; Varin, Reid and Firth, "An overview of composite
#   likelihood methods", Statistica Sinica 2011 (tempering).
# - Next: `03_write_a_noise_model`.
