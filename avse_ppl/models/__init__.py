"""Generative models of speech and noise; everything here is a Pyro program or a part of one."""

if __name__ == "models":
    raise ImportError("import avse_ppl.models")

from avse_ppl.models.noise import NMF, stationary
from avse_ppl.models.pretrained_speech import load_speech, pretrained_names
from avse_ppl.models.speech_gaussian import GaussianSpeech
from avse_ppl.models.speech_latent import LatentSpeech

__all__ = [
    "NMF",
    "GaussianSpeech",
    "LatentSpeech",
    "load_speech",
    "pretrained_names",
    "stationary",
]
