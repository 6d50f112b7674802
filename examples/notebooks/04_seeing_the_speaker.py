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
# # 4. Seeing the speaker, and switching it off
#
# In a noisy room you look at the lips of whoever speaks. Lips are immune to rain. But they can be covered, blurred,
# out of sync, or somebody else's, and then a method that trusts them does *worse* than one that does not look. This
# lecture is about both halves: what lips bring, and how a probabilistic model decides, video frame by video frame, how far to
# believe them.

# %%
import importlib.util

if importlib.util.find_spec("avse_ppl") is None:  # on a fresh machine, such as one of Colab's
    # %pip install -q avse-ppl
    pass

# %%
import os
import warnings
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

import avse_ppl
from avse_ppl import SVI
from avse_ppl.data import get_example_path, highpass, mix
from avse_ppl.plotting import draw_reliability, play_audio
from avse_ppl.plotting.posterior import compute_levels
from avse_ppl.video import Lips, read_lips
from avse_ppl.video.corruptions import corrupt
from avse_ppl.video.quality.score import score_lips

REDUCED = os.environ.get("AVSE_PPL_REDUCED") == "1"  # fewer steps, to test this notebook soon
STEPS = 20 if REDUCED else 150
RATE_HZ = 16000
# The offset of sound and lips is estimated, and warned of; in rain this loud the estimate is useless.
warnings.filterwarnings("ignore", message="the audio seems")

# %% [markdown]
# ## A mouth and a storm
#
# "Set red with i five again", another GRID sentence, in rain at -5 dB. The clip holds the *mouth* only, 88 x 88 grey pixels, cut out
# beforehand. (Of a whole face, `read_lips` needs a face detector, the extra `video`.) The networks know this speaker from other
# sentences: for an unknown face, lips bring less, about half as much in our measurements.

# %%
clip = get_example_path("mouth_in_red.mkv")
speech = highpass(avse_ppl.load_audio(clip).mono().samples, RATE_HZ)
rain = avse_ppl.load_audio(get_example_path("rain.flac")).samples
mixture = mix(speech, rain, snr_db=-5.0)
noisy = avse_ppl.Audio(mixture.mixture, RATE_HZ)
lips = read_lips(clip)
figure, axes = plt.subplots(1, 8, figsize=(10, 1.5), layout="constrained")
for axis, frame in zip(axes, range(12, 60, 6), strict=True):
    axis.imshow(lips.roi[frame], cmap="gray")
    axis.set_title(f"{lips.time_s[frame]:.2f} s", fontsize=8)
    axis.set_axis_off()
plt.show()

# %% [markdown]
# ## The model
#
# The prior is `av-dkf`, a deep Kalman filter: a latent state $z_t$ for each frame moves on from $z_{t-1}$ and is decoded to
# the expected power of speech,
#
# $$ z_t \sim N\big(\mu(z_{t-1}, a_t v_t),\; \Sigma(z_{t-1}, a_t v_t)\big), \qquad s_{ft} \sim N_c\big(0, S_f(z_t)\big). $$
#
# $v_t$ are features of the lips and $a_t \in [0, 1]$ is the **gate**: how far the lips of this frame count. All layers that $a_t v_t$ enters have
# no bias, so that $a_t = 0$ is not *nearly* but *exactly* the audio-only model. Remember that promise, we are going to test it.

# %%


def enhance(video: Lips | None, reliability: str | None = None) -> Any:
    return avse_ppl.enhance(
        noisy, video, speech="av-dkf", reliability=reliability, predictor="none",
        inference=SVI(steps=STEPS), seed=0,
    )  # fmt: skip


results: dict[str, Any] = {}


def add_result(name: str, enhanced: Any) -> None:
    """Keep a result, and print its scores."""
    results[name] = enhanced
    scores = avse_ppl.evaluate(mixture.speech, enhanced.speech.samples, RATE_HZ)
    print(f"{name:34} SI-SDR {scores.si_sdr_db:6.1f} dB   ESTOI {scores.estoi:.2f}")


scores = avse_ppl.evaluate(mixture.speech, noisy.samples, RATE_HZ)
print(f"{'noisy':34} SI-SDR {scores.si_sdr_db:6.1f} dB   ESTOI {scores.estoi:.2f}")
add_result("audio only", enhance(None))
add_result("with lips", enhance(lips))
sounds = {name: result.speech.samples for name, result in results.items()}
play_audio({"truth": mixture.speech, "noisy": noisy.samples} | sounds, RATE_HZ)

# %% [markdown]
# Four decibels, and intelligibility (ESTOI) from a quarter to four tenths: without the lips most words are lost in this rain.
# Neither is good sound. Lips say *when* somebody speaks and how open the mouth is; not the pitch, nor what the tongue does behind the teeth.
#
# ## How reliable are these lips?
#
# A small network scores each video frame: is there a mouth, is it sharp, is it *in step with the sound*? We put a hand over the mouth from 1.0 to 1.8 s
# and ask it.

# %%
covered = corrupt(lips, "hand", severity=1.0, span=(25, 45), seed=3).lips
figure, axes = plt.subplots(
    3, 1, figsize=(10, 4.5), sharex=True, height_ratios=[1.0, 1.6, 1.4], layout="constrained"
)
draw_reliability(score_lips(covered, noisy), covered, axes)
plt.show()

# %% [markdown]
# On top the crops, then the score, then the probability of each cause. Where the hand is, the score falls below 0.3 and the cause is *occluded*;
# elsewhere it stays high. Audio-visual synchrony (dashed) is found at the beginning and never again after: in this rain there is little to hear, and the
# network knows not to hold that against the lips.
#
# ## Switching it off
#
# Now three experiments. The hand for a while; the hand all the time with the gate held *open* (`ungated`), the mistake that the gate
# is there to prevent; and the same with the gate at work.

# %%
hidden = corrupt(lips, "hand", severity=1.0, span=(0, len(lips)), seed=3).lips
add_result("hand from 1.0 to 1.8 s", enhance(covered))
add_result("hand all the time, ungated", enhance(hidden, "ungated"))
add_result("hand all the time, gated", enhance(hidden))
add_result("lips there, switched off", enhance(lips, "audio-only"))
difference = (
    results["lips there, switched off"].speech.samples - results["audio only"].speech.samples
)
print(f"\nlargest difference of 'switched off' from 'audio only': {np.abs(difference).max()}")

# %% [markdown]
# Read the numbers from the bottom. *Switched off* is audio-only **to the bit**, as promised: nothing of the video leaks through. *Hand all the time, gated*
# is audio-only to a tenth of a dB: the score is not exactly 0, but near. *Ungated* is a catastrophe, over ten decibels below doing without video: the
# network has never seen a mouth look like that, and its features mean anything. This is what "audio-visual" can cost.
#
# What do the lips change, and when? Level of the speech, frame by frame, under the gate:

# %%
figure, (top, bottom) = plt.subplots(
    2, 1, figsize=(10, 4.5), sharex=True, height_ratios=[1, 2], layout="constrained"
)
lines = {"audio only": ":", "with lips": "-", "hand from 1.0 to 1.8 s": "--"}
stft = results["audio only"].posterior.stft
spectra = [stft.forward(torch.from_numpy(wave)).abs() for wave in (mixture.mixture, mixture.speech)]
noisy_db, truth_db = (10 * np.log10((s.numpy() ** 2).sum(0) + 1e-8) for s in spectra)
time_s = np.arange(len(noisy_db)) * stft.hop / RATE_HZ
for name, line in lines.items():
    posterior = results[name].posterior
    low_db, middle_db, high_db, _ = compute_levels(posterior, 0.9)
    [curve] = bottom.plot(time_s, middle_db, line, label=name)
    print(f"{name:24} width of the 90 % band of the level: {np.mean(high_db - low_db):.1f} dB")
    if posterior.reliability is not None:
        top.plot(time_s, posterior.reliability[0], line, color=curve.get_color(), label=name)
bottom.plot(time_s, truth_db, "k", lw=0.8, label="truth")
bottom.plot(time_s, noisy_db, color="0.7", lw=0.8, label="noisy")
for axis in (top, bottom):
    axis.axvspan(1.0, 1.8, color="0.93")
top.legend(fontsize=8, loc="lower left")
bottom.legend(fontsize=8, ncols=5, loc="lower center")
top.set(ylabel="gate", ylim=(0, 1))
bottom.set(xlabel="time, s", ylabel="level, dB", ylim=(noisy_db.max() - 60, None))
plt.show()

# %% [markdown]
# The gate is at 0.65 where the score is near 1: the weights bring a *visual weight*, a factor on all gates that was chosen on development data.
# In the shaded stretch it closes: with lips the level rises at 1.3 s, where a syllable is, and under the hand that syllable is lost, as it is audio-only.
#
# And look at what comes after 2 s. Nobody speaks there any more. Audio-only goes on for a whole second, at 20 to 30 dB, making speech out of rain. The lips are
# closed, and that alone is most of the four decibels: *to know when somebody is silent is the first thing that lips are good for*.
#
# Now the disappointment: the **widths** of the bands are no smaller with lips, though the errors differ by 4 dB. Audio-only is wrong in this rain with as much
# confidence as the audio-visual posterior is right. Lips moved the answer and not the stated doubt. (What is learned of $z_t$ from the sound dominates its
# variance under the amortised prior; lecture 7 measures, and corrects, how wide bands ought to be.)
#
# ## What the gate cannot see
#
# The hardest case is a perfectly good mouth that says something else, a dubbed film, say. Take the lips of the *other* sentence of the
# same speaker:

# %%
stranger = read_lips(get_example_path("mouth.mkv"))
add_result("lips of another sentence, gated", enhance(stranger))
add_result("lips of another sentence, ungated", enhance(stranger, "ungated"))
for name, video in {"own lips": lips, "other lips": stranger}.items():
    found = score_lips(video, noisy)
    clean = score_lips(video, avse_ppl.Audio(mixture.speech, RATE_HZ))
    print(
        f"score of {name:10} in rain {found.score.mean():.2f}, with clean sound {clean.score.mean():.2f}"
    )

# %% [markdown]
# The score hardly notices: it is as good as that of the right lips, in rain, where there is hardly any sound left to be out of step with, and even with clean sound:
# these two sentences begin and end together. And yet the result is *better* than audio-only here. Luck, and instructive luck: GRID
# sentences all have one rhythm, and so the wrong lips still say "somebody speaks from half a second on". Do not count on it. Over many recordings, lips of
# others cost, see [what bad video costs](../../docs/results/reliability.md#what-bad-video-costs).
#
# The honest summary of "bad video is never worse than audio only": covered, blurred and missing lips, yes, on average. Convincing lips
# of the wrong person in noise that drowns the evidence: no method can know.
#
# ## Exercises
#
# **1.** Delay the video by 0.4 s (`lips.shifted(0.4)`) and enhance, gated and ungated.
#
# <details><summary>Solution</summary>
#
# ```python
# late = lips.shifted(0.4)
# add_result("0.4 s late, gated", enhance(late))
# add_result("0.4 s late, ungated", enhance(late, "ungated"))
# ```
#
# Gated -1.3 dB, that is audio-only; ungated -5.1 dB. The score falls from 0.62 to 0.48 only, which is enough to do no harm.
# </details>
#
# **2.** Use `reliability="switching"`: instead of a factor, the gate is a Markov chain of on and off, summed out exactly. Compare `posterior.reliability`
# with the soft gate on the covered lips.
#
# <details><summary>Solution</summary>
#
# ```python
# switching = enhance(covered, "switching")
# add_result("hand from 1.0 to 1.8 s, switching", switching)
# plt.plot(results["hand from 1.0 to 1.8 s"].posterior.reliability[0], label="soft")
# plt.plot(switching.posterior.reliability[0], label="switching")
# plt.legend()
# ```
#
# 0.5 dB, as good as soft. But under the hand the switch is on with probability 0.65, where the soft gate is at 0.12: a chain of on and off is
# persistent, and the recording has its say, too. Where soft believes the score alone, switching asks whether the features explain the sound.
# </details>
#
# ## Where to read on
#
# - [The visual gate](../../docs/concepts/visual-gate.md), [audio-visual priors](../../docs/models/audio-visual.md), [the reliability
#   network](../../docs/models/reliability.md), results with [lips](../../docs/results/audio-visual.md) and [bad video](../../docs/results/reliability.md).
# - On the command line: `avse-ppl enhance clip.mkv -o enhanced.wav --show-lips lips.png`, `avse-ppl reliability clip.mkv`.
# - Sadeghi et al., "Audio-visual speech enhancement using conditional variational auto-encoders", IEEE/ACM TASLP 2020; Sadeghi and
#   Alameda-Pineda, "Switching variational auto-encoders for noise-agnostic audio-visual speech enhancement", ICASSP 2021; Chung and
#   Zisserman, "Out of time: automated lip sync in the wild", ACCV workshops 2016.
# - Next: `05_dynamical_priors`.
