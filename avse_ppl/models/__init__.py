"""Generative models of speech and noise; everything here is a Pyro program or a part of one."""

from avse_ppl.models.noise.basic import NMF, Stationary, stationary
from avse_ppl.models.noise.clicks import Clicks, clicks
from avse_ppl.models.noise.hum import Hum, hum
from avse_ppl.models.noise.learned import NoiseVae, load_noise
from avse_ppl.models.noise.modulated import AlphaStable, AR1Gain, StudentT
from avse_ppl.models.noise.parse import parse_noise
from avse_ppl.models.noise.sum import Sum
from avse_ppl.models.noise.wind import Wind, wind
from avse_ppl.models.speech.diffusion import Ouve, Vp
from avse_ppl.models.speech.gaussian import GaussianSpeech
from avse_ppl.models.speech.latent import LatentSpeech
from avse_ppl.models.speech.load import load_speech, pretrained_names
from avse_ppl.models.speech.score import GaussianScore, ScoreSpeech

__all__ = [
    "NMF",
    "AR1Gain",
    "AlphaStable",
    "Clicks",
    "GaussianScore",
    "GaussianSpeech",
    "Hum",
    "LatentSpeech",
    "NoiseVae",
    "Ouve",
    "ScoreSpeech",
    "Stationary",
    "StudentT",
    "Sum",
    "Vp",
    "Wind",
    "clicks",
    "hum",
    "load_noise",
    "load_speech",
    "parse_noise",
    "pretrained_names",
    "stationary",
    "wind",
]
