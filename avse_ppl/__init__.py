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

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from avse_ppl.utils.version import __version__ as __version__

if TYPE_CHECKING:
    from avse_ppl.distributions.complex_normal import ComplexNormal
    from avse_ppl.evaluation.comparison import Comparison
    from avse_ppl.evaluation.diagnostics import Diagnostics, diagnose
    from avse_ppl.evaluation.metrics import Scores, evaluate
    from avse_ppl.inference import (
        EM,
        HMC,
        NUTS,
        SVI,
        Amortized,
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
    from avse_ppl.pipeline.stream import StreamBlock, StreamEnhancer, enhance_stream
    from avse_ppl.posterior.posterior import Posterior
    from avse_ppl.signal.audio import Audio, load_audio, save_audio
    from avse_ppl.signal.stft import Frames, Spectrogram, Stft

__all__ = [
    "EM",
    "HMC",
    "NMF",
    "NUTS",
    "SVI",
    "Amortized",
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
    "StreamBlock",
    "StreamEnhancer",
    "UDiffSE",
    "compare",
    "diagnose",
    "enhance",
    "enhance_batch",
    "enhance_stream",
    "evaluate",
    "load_audio",
    "load_speech",
    "merge",
    "save_audio",
    "stationary",
]

# Where each name is from; imported when it is first asked for, as torch takes a second.
_SOURCES = MappingProxyType(
    {
        "EM": "avse_ppl.inference",
        "HMC": "avse_ppl.inference",
        "NMF": "avse_ppl.models",
        "NUTS": "avse_ppl.inference",
        "SVI": "avse_ppl.inference",
        "Amortized": "avse_ppl.inference",
        "Audio": "avse_ppl.signal.audio",
        "Comparison": "avse_ppl.evaluation.comparison",
        "ComplexNormal": "avse_ppl.distributions.complex_normal",
        "Diagnostics": "avse_ppl.evaluation.diagnostics",
        "Enhanced": "avse_ppl.pipeline.enhance",
        "Exact": "avse_ppl.inference",
        "Frames": "avse_ppl.signal.stft",
        "GaussianScore": "avse_ppl.models",
        "GaussianSpeech": "avse_ppl.models",
        "GuidedDiffusion": "avse_ppl.inference",
        "LatentSpeech": "avse_ppl.models",
        "Laws": "avse_ppl.models.scene",
        "NumPyroNUTS": "avse_ppl.inference",
        "Posterior": "avse_ppl.posterior.posterior",
        "Scene": "avse_ppl.models.scene",
        "ScoreSpeech": "avse_ppl.models",
        "Scores": "avse_ppl.evaluation.metrics",
        "Spectrogram": "avse_ppl.signal.stft",
        "Stft": "avse_ppl.signal.stft",
        "StreamBlock": "avse_ppl.pipeline.stream",
        "StreamEnhancer": "avse_ppl.pipeline.stream",
        "UDiffSE": "avse_ppl.inference",
        "compare": "avse_ppl.pipeline.compare",
        "diagnose": "avse_ppl.evaluation.diagnostics",
        "enhance": "avse_ppl.pipeline.enhance",
        "enhance_batch": "avse_ppl.pipeline.enhance",
        "enhance_stream": "avse_ppl.pipeline.stream",
        "evaluate": "avse_ppl.evaluation.metrics",
        "load_audio": "avse_ppl.signal.audio",
        "load_speech": "avse_ppl.models",
        "merge": "avse_ppl.inference",
        "save_audio": "avse_ppl.signal.audio",
        "stationary": "avse_ppl.models",
    }
)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_SOURCES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*globals(), *__all__})
