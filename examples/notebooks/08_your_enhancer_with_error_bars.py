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
# # Your enhancer, with error bars
#
# You have an enhancer: a network that somebody trained, a plug-in, ten lines of your own. It turns
# a noisy recording into a clean one, and it never says where it is wrong. This lecture makes it a
# *witness*: its answer goes into the posterior as one more piece of evidence, and the posterior
# says how far to believe it, where, and where not.
#
# The model. Let $x_{ft}$ be the STFT of the recording at frequency $f$ and frame $t$, $s_{ft}$ that
# of the clean speech, and $\hat s_{ft}$ what the enhancer made of $x$. We take its answer for a
# noisy observation of speech,
#
# $$ \hat s_{ft} \mid s \sim N_c\big(s_{ft},\; E_{ft}\, r_f\big), \qquad r_f = 10^{\sigma (W a)_f / 10}, \qquad a_k \sim \mathrm{Exp}(1), $$
#
# where $N_c$ is the complex Gaussian distribution, $E_{ft}$ the power of the error that we expect
# of this enhancer in this bin (its **error law**), and $r_f \ge 1$ by how much more it is off on
# *this* recording: $a_k$ are latents, one for each of six bands of frequency, $W$ spreads bands
# over frequencies, and $\sigma$ is 5 dB. So there is a prior expectation of the error, and a way to
# find out that it was too good.

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
from scipy.signal import butter, sosfilt

from avse_ppl import NMF, SVI, Posterior, Scene, Stft, evaluate, load_audio, load_speech
from avse_ppl.data import get_example_path, highpass, mix
from avse_ppl.evaluation.calibration import coverage
from avse_ppl.models.predictors.adapters import PREDICTORS, wrap_function
from avse_ppl.models.predictors.predictor import Predictor, condition_on_predictor
from avse_ppl.plotting import draw_error_excess, draw_error_law, play_audio, use_style

REDUCED = os.environ.get("AVSE_PPL_REDUCED") == "1"  # fewer steps, to test this notebook soon
STFT = Stft()

speech = highpass(load_audio(get_example_path("speech.flac")).samples, 16000)
rain = load_audio(get_example_path("rain.flac")).samples
mixture = mix(speech, rain, snr_db=0.0, seed=0)
noisy, clean = mixture.mixture, mixture.speech

# %% [markdown]
# ## 1. An enhancer is a function
#
# For the library an enhancer is any function `(wave, sample_rate_hz) -> wave`. We take two. The
# first is spectral subtraction ([Boll, 1979](https://doi.org/10.1109/TASSP.1979.1163209)), ten
# lines of numpy-like torch: what the quietest fifth of the frames holds is noise. The second is a
# small network that comes with the library, `predictor`; put your own in its place.


# %%
def subtract_spectrum(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Spectral subtraction: noise is what the quietest fifth of the frames hold, doubled."""
    stft = Stft(sample_rate_hz=sample_rate_hz)
    values = stft.forward(torch.from_numpy(wave))
    power = values.abs().square()
    noise = 2.0 * power.quantile(0.2, dim=-1, keepdim=True)
    gain = (1.0 - noise / power).clamp_min(0.05).sqrt()
    return stft.inverse(gain * values, len(wave)).numpy()


network = PREDICTORS["predictor"].load()  # a Predictor: the function, and its error law
predicted = network.enhance(noisy, 16000)
subtracted = subtract_spectrum(noisy, 16000)
play_audio({"noisy": noisy, "spectral subtraction": subtracted, "network": predicted}, 16000)

# %% [markdown]
# ## 2. One line makes it a witness
#
# `Scene(..., predictor=...)`. All else is as in the other notebooks: a speech prior, a noise model,
# an inference method.

# %%
METHOD = SVI(steps=40 if REDUCED else 150)
PRIOR = load_speech("tcvae")


def infer(predictor: Predictor | None) -> Posterior:
    """Posterior of the speech with a predictor, or without."""
    return METHOD(Scene(PRIOR, NMF(), predictor=predictor), noisy, seed=0)


alone = infer(None)
with_network = infer(network)
print(with_network.kind)

estimates: dict[str, tuple[Any, Posterior | None]] = {
    "noisy": (noisy, None),
    "posterior, no predictor": (alone.enhance(), alone),
    "network": (predicted, None),
    "posterior with it": (with_network.enhance(), with_network),
}
if PREDICTORS["deepfilternet"].is_installed():  # the extra `predictors`
    deepfilternet = PREDICTORS["deepfilternet"].load()
    with_deepfilternet = infer(deepfilternet)
    estimates["DeepFilterNet3"] = (deepfilternet.enhance(noisy, 16000), None)
    estimates["posterior with DeepFilterNet3"] = (with_deepfilternet.enhance(), with_deepfilternet)
else:
    print("DeepFilterNet3 is not installed: pip install 'avse-ppl[predictors]'")


def score(wave: Any, posterior: Posterior | None) -> dict[str, Any]:
    """SI-SDR, ESTOI, and how many truths lie in the 90 % regions, in per cent."""
    scores = evaluate(clean, wave, 16000)
    row: dict[str, Any] = {"SI-SDR, dB": scores.si_sdr_db, "ESTOI": scores.estoi}
    if posterior is not None:
        found = coverage(posterior, clean, (0.9,))
        row["bins in 90 %"], row["by energy"] = 100 * found.bins[0], 100 * found.bins_by_energy[0]
    return row


pd.DataFrame({name: score(*pair) for name, pair in estimates.items()}).T.round(2)

# %% [markdown]
# **What to look at.** On this recording the small network is worse than the posterior without it,
# and drags it down a little; DeepFilterNet3 is better than the posterior without it, and the two
# together are a little better than either in SI-SDR. That is the rule in the
# [benchmarks](../../docs/results/bridge.md) as well: the evidence of a good witness helps, that of
# a middling one may not.
#
# The last columns are what an enhancer alone cannot offer at all: regions, and how often they hold
# the truth. "By energy" weights each bin with the energy of speech expected in it. About as stated
# for the bins where there is speech, somewhat wide there in fact (98 of 100).
#
# ## 3. What the error law expects
#
# $E_{ft}$ is computed from the mixture and the prediction; no truth is needed. Left, over time and
# frequency. Right, against the two things that tell it: how much the enhancer *kept* around a bin,
# and how much it *removed*. Where much was removed and much kept (top right), the error is large;
# where little was removed there was little noise, and little to go wrong.

# %%
with use_style():
    figure, axes = plt.subplots(
        1, 2, figsize=(11, 3.6), width_ratios=[1.5, 1], layout="constrained"
    )
    draw_error_law(network, with_network, axes)
plt.show()

# %% [markdown]
# ## 4. Error bars, and where not to believe
#
# Given all evidence, the posterior of speech has mean $m_{ft}$ and variance $v_{ft}$. So the error
# that the posterior expects of the *enhancer* is known in closed form,
#
# $$ \mathrm{E}\big[\,|s_{ft} - \hat s_{ft}|^2 \;\big|\; x, \hat s\,\big] = |m_{ft} - \hat s_{ft}|^2 + v_{ft}, $$
#
# and where it is nearly as large as the speech, the answer should not be believed. Here we know the
# truth and can look whether that is right.


# %%
def compute_level_db(power: np.ndarray, width: int = 5) -> np.ndarray:
    """Level of each frame in dB, averaged over a few."""
    return 10 * np.log10(np.convolve(power.sum(0), np.ones(width) / width, "same") + 1e-9)


def transform(wave: Any) -> np.ndarray:
    """STFT of a waveform, ``(freq, time)``."""
    return STFT.forward(torch.from_numpy(np.asarray(wave, np.float32))).numpy()


def draw_belief(posterior: Posterior, wave: Any, axes: Any) -> dict[str, float]:
    """Draw levels, and the error that is expected of a prediction beside the one it has."""
    mean, truth, answer = posterior.mean[0], transform(clean), transform(wave)
    expected = compute_level_db(np.abs(mean - answer) ** 2 + posterior.variance[0])
    actual = compute_level_db(np.abs(truth - answer) ** 2)
    loud = compute_level_db(np.abs(mean) ** 2)
    doubtful = expected > loud - 3.0
    time_s = np.arange(len(loud)) * STFT.hop / 16000
    axes[0].plot(time_s, compute_level_db(np.abs(answer) ** 2), label="prediction")
    axes[0].plot(time_s, loud, label="posterior mean")
    axes[0].plot(time_s, compute_level_db(np.abs(truth) ** 2), color="black", ls=":", label="truth")
    axes[1].plot(time_s, expected, label="error expected of the prediction")
    axes[1].plot(time_s, actual, color="black", ls=":", label="error that it has")
    bottom, top = axes[1].get_ylim()
    axes[1].fill_between(
        time_s, bottom, top, where=doubtful, color="tab:red", alpha=0.15, lw=0,
        label="not to be believed",
    )  # fmt: skip
    for axis in axes:
        axis.set(ylabel="level, dB", xlim=(0, time_s[-1]))
        axis.legend(loc="upper right", fontsize="small")
    axes[1].set_xlabel("time, s")
    return {
        "correlation of both errors": float(np.corrcoef(expected, actual)[0, 1]),
        "expected - actual, dB": float(np.mean(expected - actual)),
        "frames not to be believed, %": 100 * float(doubtful.mean()),
    }


with use_style():
    figure, axes = plt.subplots(2, 1, figsize=(10, 4.6), sharex=True, layout="constrained")
    facts = draw_belief(with_network, predicted, axes)
plt.show()
pd.Series(facts).round(2).to_frame("network")

# %% [markdown]
# The expected error follows the actual one over 30 dB, and is some dB above it: cautious, most of
# all in the pauses. Red are mostly the pauses, where speech is fainter than what could be left of
# the rain: to take a measurement there (a noise floor, a breath) would be a mistake. In the words
# the answer is good to several dB below its own level.
#
# ## 5. Break it
#
# A witness should be tested with lies. Three enhancers, each the network above with a defect:
#
# - `hisses`: adds a hiss between 1 and 2 kHz;
# - `drops a word`: is silent from 0.95 to 1.25 s, where somebody says "by";
# - `says something else`: returns another sentence altogether.
#
# They and the intact one are pooled as an enhancer of yours is, so that they inform the latents:
# only so can the posterior find out that one is wrong. With the network above it was otherwise
# (a *cut*, see below), which is why `intact` is not what `posterior with it` was.


# %%
def hiss(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Enhance, and add noise between 1 and 2 kHz."""
    answer = network.enhance(wave, sample_rate_hz)
    band = butter(4, (1000, 2000), btype="band", fs=sample_rate_hz, output="sos")
    added = np.asarray(sosfilt(band, np.random.default_rng(0).normal(size=len(wave))))
    return (answer + 0.4 * added / added.std() * answer.std()).astype(np.float32)


def drop_word(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Enhance, and lose a word."""
    answer = network.enhance(wave, sample_rate_hz).copy()
    answer[int(0.95 * sample_rate_hz) : int(1.25 * sample_rate_hz)] *= 0.003
    return answer


def say_something_else(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return another sentence, whatever was said."""
    other = load_audio(get_example_path("mouth.mkv")).mono().samples
    return np.resize(highpass(other, 16000), len(wave)).astype(np.float32)


broken = {
    "intact": network.enhance,
    "hisses": hiss,
    "drops a word": drop_word,
    "says something else": say_something_else,
}
posteriors = {name: infer(Predictor(f, network.law, name=name)) for name, f in broken.items()}
rows = {"none": score(alone.enhance(), alone)}
rows |= {name: score(posterior.enhance(), posterior) for name, posterior in posteriors.items()}
for name, posterior in posteriors.items():
    print(f"{name}: {posterior.kind}; warnings: {'; '.join(posterior.warnings) or 'none'}")
pd.DataFrame(rows).T.round(2)

# %%
with use_style():
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    for axis, name in zip(axes, ("hisses", "drops a word"), strict=True):
        draw_error_excess(posteriors[name], axis)
        axis.set_title(name)
plt.show()

with use_style():
    figure, axes = plt.subplots(2, 1, figsize=(10, 4.6), sharex=True, layout="constrained")
    facts = draw_belief(posteriors["drops a word"], drop_word(noisy, 16000), axes)
    axes[0].set_title("drops a word")
plt.show()

# %% [markdown]
# **Hisses**: found. $r_f$ around 1.5 kHz has risen by 12 dB and beside it by some 3, elsewhere it
# has stayed; the posterior is nearly as good as with the intact network. Nobody has told it that
# there is a hiss. It is power that neither the speech prior nor the recording accounts for.
#
# **Says something else**: refused before inference starts. Speech plus independent noise has to
# correlate with the recording; this does not. The posterior is the one without a predictor, number
# by number, and a warning says why.
#
# **Drops a word**: *not* found. No band is off ($r_f$ stays at 1): the law is one for a band of the
# whole recording, and in nine tenths of it the network is as good as ever. The posterior follows
# the witness into silence and takes the word for rain, at a cost of 3.8 dB. In the lower picture
# the span is red, so that you are told not to believe the silence; but the error expected there is
# 20 dB, and the real one nearly 40. **An enhancer that leaves something out is the dangerous one**:
# what it says has no trace of it.
#
# Look once more at the upper pictures of section 4 and 5, from 1.6 to 2.1 s: the last word, "now",
# is lost by the *intact* network as well. There it is the same: red, and the real level outside of
# everything.
#
# ## 6. A poor enhancer
#
# And spectral subtraction? Nothing has been fitted to it, so it gets the generic error law.

# %%
refused = infer(wrap_function(subtract_spectrum))
print(refused.warnings[0])

# %% [markdown]
# It is left out. Of an enhancer whose law was not fitted by the library, inference measures what it
# keeps where a short run without it finds noise; one that keeps nearly all of it is not believed,
# and the posterior is the one without. What that spares us is seen if the prediction is handed in
# with the mixture, as one that was checked before.


# %%
def infer_unmeasured(predictor: Predictor) -> Posterior:
    """Posterior with a predictor, whatever noise it leaves in."""
    scene = Scene(PRIOR, NMF(), predictor=predictor)
    return METHOD(scene, condition_on_predictor(scene, STFT.analyse(noisy)), seed=0)


with_subtraction = infer_unmeasured(wrap_function(subtract_spectrum))
pd.DataFrame({
    "spectral subtraction": score(subtracted, None),
    "posterior with it": score(with_subtraction.enhance(), with_subtraction),
    "it is left out": score(refused.enhance(), refused),
    "posterior, no predictor": score(alone.enhance(), alone),
}).T.round(2)  # fmt: skip

# %%
with use_style():
    figure, axes = plt.subplots(2, 1, figsize=(10, 4.6), sharex=True, layout="constrained")
    facts = draw_belief(with_subtraction, subtracted, axes)
plt.show()
pd.Series(facts).round(2).to_frame("spectral subtraction")

# %% [markdown]
# A disaster: 10 dB worse than without it, and the 90 % regions hold half of the truths. The lower
# picture shows why. The error that is expected lies *below* the real one nearly everywhere, and
# hardly anything is red: the generic law is one of an enhancer that works, whose errors are a fifth
# of what it keeps. Spectral subtraction keeps mostly rain. The posterior could have found out, and
# has in the lowest band only; elsewhere the latents of noise and of error explain the same power,
# and the search has settled on a world in which the rain is speech.
#
# So: *fit an error law to your enhancer before you use it as a witness*
# (`avse-ppl predictors fit`), and if it is worse than the posterior without it, leave it out.
# Exercise 2 shows that a law alone does not help a bad witness. The second is done for you, as above.
#
# ## What was approximated
#
# The prediction is a function of the mixture, so that the two are *not* independent witnesses. To
# multiply both likelihoods would count the recording twice. The library takes a **log-linear pool**
# instead,
#
# $$ p(s_{ft} \mid \cdot) \;\propto\; N_c(s; 0, S)^{\alpha}\; N_c(x; s, B)^{\beta}\; N_c(\hat s; s, E\, r), $$
#
# with $S$ and $B$ the powers of speech and noise under the models of the scene, and weights
# $\alpha$ = 0.0001 and $\beta$ = 0.05 that rise to 1 as the prediction is given up ($r \to \infty$).
# They were chosen on mixtures with good enhancers. The small network is pooled in another way: the
# latents are inferred without it (a cut, `latent_share=None`), so that the speech prior has not
# heard the prediction, and may count for more, $\alpha$ = 0.1 and $\beta$ = 0.2. `posterior.kind` says "pooled with a predictor",
# so that nobody takes the result for a plain posterior.
#
# ## Exercises
#
# **1.** Count the recording twice: give the `Predictor` weights of 1, and look at the coverage.
#
# <details><summary>Solution</summary>
#
# ```python
# twice = infer(
#     Predictor(
#         network.enhance, network.law, prior_weight=1.0, mixture_weight=1.0, latent_share=1.0
#     )
# )
# print(score(twice.enhance(), twice))
# ```
#
# The 90 % regions hold 63 % of the bins instead of 92, with nothing gained but 0.3 dB. Two
# witnesses who have read the same newspaper are one witness.
#
# </details>
#
# **2.** The generic law is too good for spectral subtraction. Measure on other recordings by how
# much, and shift the law. Does it save the posterior?
#
# <details><summary>Solution</summary>
#
# ```python
# from avse_ppl.models.predictors.error_law import ErrorLaw
#
#
# class ShiftedLaw(ErrorLaw):
#     shift = 0.0
#
#     def forward(self, mixture, predicted):
#         return super().forward(mixture, predicted) + self.shift
#
#
# ratios = []
# for clip in ("mouth.mkv", "mouth_in_red.mkv"):
#     for noise in ("running_tap.flac", "clock_tick.flac"):
#         voice = highpass(load_audio(get_example_path(clip)).mono().samples, 16000)
#         other = highpass(load_audio(get_example_path(noise)).samples, 16000)
#         for snr_db in (-3, 3):
#             pair = mix(voice, other, snr_db, seed=1)
#             x = STFT.analyse(pair.mixture)
#             answer, truth = (
#                 torch.from_numpy(transform(wave))[None] / x.scale
#                 for wave in (subtract_spectrum(pair.mixture, 16000), pair.speech)
#             )
#             ratios.append((truth - answer).abs().square() / ErrorLaw()(x, answer).exp())
# law = ShiftedLaw()
# law.shift = float(torch.cat(ratios, -1).mean().log())
# shifted = infer_unmeasured(Predictor(subtract_spectrum, law))
# print(10 * np.log10(np.exp(law.shift)), score(shifted.enhance(), shifted))
# ```
#
# By 2.5 dB. The regions become somewhat more honest, 65 % instead of 51, and the speech is as bad
# as before, -0.7 dB: the pool's weights still let the mixture and the prior count for little beside
# a prediction. They are for good witnesses.
#
# </details>
#
# **3.** What happens with an enhancer that does nothing, `lambda wave, sample_rate_hz: wave`?
#
# <details><summary>Solution</summary>
#
# ```python
# idle = infer(wrap_function(lambda wave, sample_rate_hz: wave))
# print(idle.warnings, np.abs(idle.enhance() - alone.enhance()).max())
# ```
#
# It is left out, with a warning: what returns the mixture says that there is no noise, which tells
# nothing from anything. The posterior is exactly the one without.
#
# </details>
#
# ## Where to read on
#
# - [Bringing your own enhancer](../../docs/guides/predictor.md): ONNX models, other rates, delays,
#   and `avse-ppl predictors fit`, which fits an error law to your enhancer. [All
#   figures](../../docs/results/bridge.md).
# - With lips beside the ear: `--predictor av-predictor`, and [notebook
#   04](04_seeing_the_speaker.ipynb).
# - Genest and Zidek, [Combining probability distributions](https://doi.org/10.1214/ss/1177013825),
#   Statistical Science 1986 (log-linear pools). Kennedy and O'Hagan, [Bayesian calibration of
#   computer models](https://doi.org/10.1111/1467-9868.00294), JRSS B 2001: a simulator is a witness
#   with an error law, too.
