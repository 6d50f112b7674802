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
# # 1. A first enhancement
#
# Somebody speaks while it rains. You have the recording and want the speech. Most enhancers answer with **one**
# waveform. This library answers with a *distribution* over waveforms: all the ways the speech may have been,
# given what was recorded, each with its probability. From that distribution you can take
#
# - the best guess, to listen to;
# - a band around it, to know where not to trust the guess;
# - the answer to any question about the speech ("how loud was the second word?"), with its error bar.
#
# In this lecture we do all three, once, on three seconds of real sound. No theory is needed yet; lecture 2
# opens the box.

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
from avse_ppl.data import get_example_path, highpass, mix
from avse_ppl.plotting import draw_level, draw_spectrograms, draw_waveform, play_audio
from avse_ppl.plotting.posterior import add_legend_above
from avse_ppl.posterior.functionals import Level

REDUCED = os.environ.get("AVSE_PPL_REDUCED") == "1"  # fewer steps, to test this notebook soon
RATE_HZ = 16000

# %% [markdown]
# ## The recording
#
# A sentence of the GRID corpus, "bin red by K seven now", and rain from ESC-10. Both come with the package. We
# mix them ourselves, for one reason: only then do we know the truth that we will be asking for. The networks
# have heard neither this speaker nor this rain.
#
# `snr_db=0.0` makes the rain as loud as the speech *while there is speech*, between 50 Hz and 8 kHz.

# %%
sentence = avse_ppl.load_audio(get_example_path("speech.flac"))
rain = avse_ppl.load_audio(get_example_path("rain.flac"))
speech = highpass(sentence.samples, RATE_HZ)  # GRID rumbles below 70 Hz
mixture = mix(speech, rain.samples, snr_db=0.0, seed=0)
noisy = avse_ppl.Audio(mixture.mixture, RATE_HZ)
play_audio({"speech: the truth": mixture.speech, "noisy": noisy.samples}, RATE_HZ)

# %% [markdown]
# ## One call
#
# `enhance` takes a recording (or a path) and returns the speech and its posterior. We say `predictor="none"`
# so that this lecture shows the same on all machines: where the extra `predictors` is installed, the default
# lets another enhancer, DeepFilterNet3, take part as a witness. That is the subject of lecture 8.

# %%
enhanced = avse_ppl.enhance(noisy, predictor="none", seed=0)
posterior = enhanced.posterior
assert posterior is not None  # as it would be for a recording that is silent
posterior

# %% [markdown]
# Read this table once, it is the label on the bottle. `tcvae` is the **speech prior**, a network that knows
# what speech looks like. `NMF` is the **noise model**; it knows nothing of rain, only that noise repeats a few
# spectra over and over. `svi` is the **inference method**, which found what the latents of both must have been
# for their sum to give this recording. And `kind` is honest about the shortcuts: *variational* means that the
# distribution was sought in a convenient family and not exactly. The rest of these lectures is about those
# words.
#
# Now listen. The enhanced speech is the mean of the posterior. The two **draws** are two possible truths: each
# is a whole waveform that would explain the recording as well as the other.

# %%
draws = posterior.draws()  # (draw, sample)
play_audio(
    {
        "noisy": noisy.samples,
        "enhanced": posterior.enhance(),
        "draw 1": draws[0],
        "draw 2": draws[1],
    },
    RATE_HZ,
)

# %% [markdown]
# The enhanced one is cleaner than the draws, and that surprises most people: is a draw not "more like" real
# speech? In the places where rain hides the speech, a draw has to commit to *something*, and commits to a
# random possibility; you hear that as a soft crackle. The mean commits to nothing there and falls silent.
# Look at the numbers (SI-SDR is the level of the speech over that of everything else, in dB, whatever the
# volume):

# %%
candidates = {"noisy": noisy.samples, "enhanced": posterior.enhance(), "draw 1": draws[0]}
for name, wave in candidates.items():
    scores = avse_ppl.evaluate(mixture.speech, wave, RATE_HZ)
    print(f"{name:9} SI-SDR {scores.si_sdr_db:5.1f} dB   ESTOI {scores.estoi:.2f}")

# %% [markdown]
# The draw is about 3 dB worse than the mean. That is no accident but arithmetic. Write $s$ for the truth,
# $\hat s = E[s \mid x]$ for the mean and $\tilde s$ for a draw. If the posterior is right, truth and draw are
# two independent samples of the *same* distribution, so that
#
# $$E\,|\tilde s - s|^2 = E\,|\tilde s - \hat s|^2 + E\,|\hat s - s|^2 = 2\, E\,|\hat s - s|^2 ,$$
#
# twice the error, which is 3 dB. (SI-SDR is capricious about volume; that is the other half of a dB.) Keep the
# rule of thumb: *listen to the mean, compute with the draws*. A posterior whose draws are far better than 3 dB
# below the mean is too sure of itself.
#
# ## Where is it unsure?

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), sharey=True, layout="constrained")
draw_spectrograms(posterior, axes)
plt.show()

# %% [markdown]
# All three panels share one scale. On the left, rain covers everything and only the strongest parts of the
# voice stick out. In the middle they are alone. The panel on the right is what other enhancers do not
# have: the width of the interval that holds the magnitude of the speech with 90 % probability.
#
# Compare the middle and the right panel. Where the right one is *darker*, the posterior knows the magnitude.
# Where it is as bright or brighter, it knows the order of magnitude and no more. And note what is missing
# in the middle: above 5 kHz there is nothing at all, although "seven" has an s. There, rain is 12 dB
# louder than the consonant; the mean gives it up, and the only trace left of it is the faint glow on
# the right.
#
# Now the same in time. On top, forty milliseconds of a vowel; the dotted line is the truth, which the
# method has not seen. Below, the level of each frame.

# %%
figure, (top, bottom) = plt.subplots(2, 1, figsize=(10, 5), layout="constrained")
span_s = (0.62, 0.66)
draw_waveform(posterior, top, span_s=span_s)
begin, end = (round(edge * RATE_HZ) for edge in span_s)
top.plot(np.arange(begin, end) / RATE_HZ, mixture.speech[begin:end], "k:", label="truth")
add_legend_above(top, columns=4)

draw_level(posterior, bottom)
magnitude = posterior.stft.forward(torch.from_numpy(mixture.speech)).abs().numpy()
time_s = np.arange(magnitude.shape[1]) * posterior.stft.hop / RATE_HZ
bottom.plot(time_s, 10 * np.log10((magnitude**2).sum(0)), "k:", label="truth")
add_legend_above(bottom, columns=4)
plt.show()

# %% [markdown]
# On top the band is narrow compared with the wave, and the truth runs inside it most of the time. It leaves
# it in the fine structure at the beginning, which the enhanced wave smooths. Below, the band is thin
# over the vowels, where the median follows the truth to within a decibel, and opens in the gaps between
# words, where all that can be said is "quieter than the rain".
#
# And there you see a failure: in the long pauses, before 0.5 s and after 2.1 s, nobody speaks, and the posterior
# says with some certainty that somebody does, softly. Rain at 35 dB could hide a whisper at 20 dB; the prior
# finds a whisper likelier than silence. The other way round in "now" at 1.7 s: it is louder than the band allows.
#
# ## Does the band keep its promise?
#
# A band of 90 % should hold the truth nine times in ten. We know the truth, so we can count:

# %%
low, high = posterior.interval(0.9)
inside = (low[0] <= mixture.speech) & (mixture.speech <= high[0])
print(f"samples of the waveform inside:  {inside.mean():.0%}")

low, high = posterior.interval(0.9, of="magnitude")
inside = (low[0] <= magnitude) & (magnitude <= high[0])
loud = magnitude > magnitude.max() * 10 ** (-40 / 20)
print(f"magnitudes inside, all bins:     {inside.mean():.0%}")
print(f"magnitudes inside, loudest 40 dB: {inside[loud].mean():.0%}")

# %% [markdown]
# The waveform band keeps it, even with a little to spare. The magnitudes do not: in bins that matter the
# posterior is too sure, and in all bins together (most of which are the pauses and the
# high frequencies we just spoke of) much too
# sure. This is the state of the art in learned enhancement, said aloud: the uncertainty *ranks* the bins well
# and its size has to be corrected. Lecture 7 measures it properly, over many recordings, and corrects it
# (`enhance(..., recalibrate=True)`).
#
# ## Ask a question about the speech
#
# Any function of the waveform has a posterior: apply it to each draw. The library does so with `posterior.of`.
# How much louder was
# the beginning of the sentence (0.55 to 0.75 s) than its end (1.55 to 1.85 s)?

# %%
words = posterior.of(Level(spans_s=((0.55, 0.75), (1.55, 1.85))))
difference_db = words.draws[0, :, 0, 0] - words.draws[0, :, 0, 1]
low_db, high_db = np.quantile(difference_db, [0.05, 0.95])


def measure_level_db(begin_s: float, end_s: float) -> float:
    return float(
        10 * np.log10((speech[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)] ** 2).mean())
    )


truth_db = measure_level_db(0.55, 0.75) - measure_level_db(1.55, 1.85)
print(
    f"the beginning is louder by {difference_db.mean():.1f} dB, 90 % interval {low_db:.1f} to {high_db:.1f}"
)
print(f"in truth by {truth_db:.1f} dB")

# %% [markdown]
# ## How hard may it rain?
#
# The same sentence at three mixing ratios. Look at how the width of the band follows the quality: the
# posterior *knows* that it does worse in heavy rain. (The probability that the recording is ordinary speech
# in noise, `enhanced.suitability`, goes down, too.)

# %%
print("  SNR   SI-SDR in   out   width of band over level   truth inside")
for snr_db in (0.0,) if REDUCED else (10.0, 0.0, -10.0):
    harder = mix(speech, rain.samples, snr_db=snr_db, seed=0)
    found = avse_ppl.enhance(avse_ppl.Audio(harder.mixture, RATE_HZ), predictor="none").posterior
    assert found is not None
    low, high = found.interval(0.9)
    truth = harder.speech
    talking = np.abs(truth) > 0.01 * np.abs(truth).max()
    inside = ((low[0] <= truth) & (truth <= high[0]))[talking].mean()
    width = (high - low)[0].mean() / np.abs(found.enhance()).mean()
    before, after = (
        avse_ppl.evaluate(truth, wave, RATE_HZ).si_sdr_db
        for wave in (harder.mixture, found.enhance())
    )
    print(f"{snr_db:5.0f} {before:9.1f} {after:8.1f} {width:16.1f} {inside:20.0%}")

# %% [markdown]
# At -10 dB it fails, and worse, it fails with less doubt than it should have: the truth is outside more than
# twice as often as promised. A posterior is a statement *given the model*. When rain is ten
# times stronger than speech, the model finds a consistent story in which some of the speech was rain.
#
# ## Exercises
#
# **1.** Rain is nearly stationary. A ticking clock (`clock_tick.flac`) is the opposite. Before you run it:
# will it be easier or harder? How does the width of the band look at a tick?
#
# <details><summary>Solution</summary>
#
# ```python
# clock = avse_ppl.load_audio(get_example_path("clock_tick.flac"))
# ticking = mix(speech, clock.samples, snr_db=0.0, seed=0)
# found = avse_ppl.enhance(avse_ppl.Audio(ticking.mixture, RATE_HZ), predictor="none").posterior
# print(avse_ppl.evaluate(ticking.speech, found.enhance(), RATE_HZ).si_sdr_db)
# draw_spectrograms(found)[0].figure
# ```
#
# Far easier: 23 dB. Between the ticks the speech is alone. At the same energy, noise that is concentrated, in time or in
# frequency, hides less. The band is narrow but for vertical lines, the ticks.
# </details>
#
# **2.** Show by simulation that a draw has 3 dB more error than the mean *within the posterior*: treat one draw
# as the truth and measure the others and the mean against it.
#
# <details><summary>Solution</summary>
#
# ```python
# pretended, others = draws[0], draws[1:]
# error_of_mean = ((others.mean(0) - pretended) ** 2).mean()
# error_of_draw = ((others[0] - pretended) ** 2).mean()
# print(10 * np.log10(error_of_draw / error_of_mean))
# ```
#
# It prints 2.9: here the "truth" is a draw by construction, and the identity above holds.
# </details>
#
# **3.** What is the probability that the sound of the speaker in the first 0.3 s, before the first word,
# is more than 40 dB below that of the beginning? And what is the truth?
#
# <details><summary>Solution</summary>
#
# ```python
# spans = posterior.of(Level(spans_s=((0.0, 0.3), (0.55, 0.75)))).draws[0, :, 0]
# print((spans[:, 1] - spans[:, 0] > 40).mean())
# print(measure_level_db(0.55, 0.75) - measure_level_db(0.0, 0.3))
# ```
#
# In none of the draws; on average it is 32 dB below. In truth it is 41 dB. Surely wrong, as in the picture of the
# levels: a pause in noise is where this posterior should be believed least.
# </details>
#
# ## Where to read on
#
# - The next lecture, `02_what_is_a_posterior`: the Wiener filter by hand, and three methods that agree.
# - [The scene](../../docs/concepts/scene.md), [the law of the STFT](../../docs/concepts/stft-law.md) and
#   [questions](../../docs/faq.md) in the documentation; [analysis of uncertainty](../../docs/guides/uncertainty.md)
#   for functionals of speech.
# - On the command line: `avse-ppl enhance noisy.wav -o enhanced.wav --posterior posterior.nc`, then `avse-ppl
#   report posterior.nc -o report.html` for all of the above on one page.
# - The family of methods: Leglaive, Girin and Horaud, "A variance modeling framework based on variational
#   autoencoders for speech enhancement", MLSP 2018; the prior: Leglaive et al., "A recurrent variational
#   autoencoder for speech enhancement", ICASSP 2020.
