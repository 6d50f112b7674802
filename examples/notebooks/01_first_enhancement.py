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
# # A first enhancement

# %%
import importlib.util

if importlib.util.find_spec("avse_ppl") is None:  # on a fresh machine, such as one of Colab's
    # %pip install -q avse-ppl
    pass

# %%
import os

import matplotlib.pyplot as plt

import avse_ppl
from avse_ppl.data import get_example_path, highpass, mix
from avse_ppl.plotting import draw_spectrograms, play_audio

REDUCED = os.environ.get("AVSE_PPL_REDUCED") == "1"  # fewer steps, to test this notebook soon

# %%
sentence = avse_ppl.load_audio(get_example_path("speech.flac"))
rain = avse_ppl.load_audio(get_example_path("rain.flac"))
speech = highpass(sentence.samples, sentence.sample_rate_hz)
mixture = mix(speech, rain.samples, snr_db=0.0, seed=0)
noisy = avse_ppl.Audio(mixture.mixture, mixture.sample_rate_hz)
play_audio({"speech": mixture.speech, "noise": mixture.noise, "noisy": noisy.samples}, 16000)

# %%
enhanced = avse_ppl.enhance(noisy, predictor="none", seed=0)
posterior = enhanced.posterior
assert posterior is not None  # as it is for a recording that is silent
posterior

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3), sharey=True, layout="constrained")
draw_spectrograms(posterior, axes)
plt.show()
