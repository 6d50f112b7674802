"""Generative models of speech and noise; everything here is a Pyro program or a part of one."""

if __name__ == "models":
    raise ImportError("import avse_ppl.models")

from avse_ppl.models.diffusion import Ouve, Vp
from avse_ppl.models.noise import NMF, Stationary, stationary
from avse_ppl.models.noise_clicks import Clicks, clicks
from avse_ppl.models.noise_gain import AR1Gain, Wind, wind
from avse_ppl.models.noise_heavy import AlphaStable, StudentT
from avse_ppl.models.noise_hum import Hum, hum
from avse_ppl.models.noise_learned import NoiseVae, load_noise
from avse_ppl.models.noise_names import parse_noise
from avse_ppl.models.noise_sum import Sum
from avse_ppl.models.pretrained_speech import load_speech, pretrained_names
from avse_ppl.models.speech_gaussian import GaussianSpeech
from avse_ppl.models.speech_latent import LatentSpeech
from avse_ppl.models.speech_score import GaussianScore, ScoreSpeech

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
