"""Generative models of speech, noise and visual reliability: Pyro programs and their parts."""

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
from avse_ppl.models.visual import reliability

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
    "reliability",
    "stationary",
    "wind",
]
