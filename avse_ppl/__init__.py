"""Audio-visual speech enhancement as probabilistic programming.

A noisy recording goes in, a posterior over the clean speech comes out.

Examples
--------
>>> import numpy as np
>>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
>>> wave = np.random.default_rng(0).normal(size=8000).astype("float32")
>>> posterior = SVI(steps=20)(Scene(GaussianSpeech(), stationary), wave, seed=0)
>>> posterior.enhance().shape
(8000,)
"""

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.evaluation.comparison import Comparison
from avse_ppl.evaluation.diagnostics import Diagnostics, diagnose
from avse_ppl.evaluation.metrics import Scores, evaluate
from avse_ppl.inference import (
    EM,
    HMC,
    NUTS,
    SVI,
    Exact,
    GuidedDiffusion,
    NumPyroNUTS,
    UDiffSE,
    merge,
)
from avse_ppl.models import (
    NMF,
    GaussianScore,
    GaussianSpeech,
    LatentSpeech,
    ScoreSpeech,
    load_speech,
    stationary,
)
from avse_ppl.models.scene import Laws, Scene
from avse_ppl.pipeline.compare import compare
from avse_ppl.pipeline.enhance import Enhanced, enhance, enhance_batch
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.audio import Audio, load_audio, save_audio
from avse_ppl.signal.stft import Frames, Spectrogram, Stft
from avse_ppl.utils.version import __version__ as __version__

__all__ = [
    "EM",
    "HMC",
    "NMF",
    "NUTS",
    "SVI",
    "Audio",
    "Comparison",
    "ComplexNormal",
    "Diagnostics",
    "Enhanced",
    "Exact",
    "Frames",
    "GaussianScore",
    "GaussianSpeech",
    "GuidedDiffusion",
    "LatentSpeech",
    "Laws",
    "NumPyroNUTS",
    "Posterior",
    "Scene",
    "ScoreSpeech",
    "Scores",
    "Spectrogram",
    "Stft",
    "UDiffSE",
    "compare",
    "diagnose",
    "enhance",
    "enhance_batch",
    "evaluate",
    "load_audio",
    "load_speech",
    "merge",
    "save_audio",
    "stationary",
]
