"""What a routine makes of the video: features on the frames of the mixture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avse_ppl.checks import name_of
from avse_ppl.scene import Scene
from avse_ppl.stft import Spectrogram


def look(scene: Scene, mixture: Spectrogram, video: Any) -> Spectrogram:
    """Mixture with what is seen of its speakers.

    Parameters
    ----------
    scene
        Its prior has a method ``see``, or takes the features as they are given.
    mixture
        One or several recordings.
    video
        ``Lips``, the path or bytes of a video, or features ``(recording, 1 + feature, time)``; a
        list of lips, one for each recording, with None for those without.

    Raises
    ------
    ValueError
        If the prior is audio-only, or there are not as many videos as recordings.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import GaussianSpeech, Scene, Stft, stationary
    >>> mixture = Stft().analyse(np.ones(2000, "float32"))
    >>> look(Scene(GaussianSpeech(), stationary), mixture, "face.mkv")
    Traceback (most recent call last):
    ValueError: speech prior 'GaussianSpeech' is audio-only and would ignore the video; ...
    """
    if isinstance(video, Tensor):
        return mixture.seeing(_checked(video, mixture))
    check_sees(scene.speech, video)
    see: Any = scene.speech.see  # type: ignore[attr-defined]
    several = isinstance(video, Sequence) and not isinstance(video, (str, bytes))
    videos = list(video) if several else [video] * mixture.recordings
    if len(videos) != mixture.recordings:
        raise ValueError(
            f"{len(videos)} videos for {mixture.recordings} recordings; give one for each, with "
            "None for those without"
        )
    seen = {id(one): see(_lips(one), mixture.frames) for one in videos if one is not None}
    if not seen:
        return mixture
    nothing = torch.zeros_like(next(iter(seen.values())))
    features = torch.stack([nothing if one is None else seen[id(one)] for one in videos])
    gated = features if scene.reliability is None else _gated(scene, mixture, features)
    return mixture.seeing(gated)


def check_sees(speech: Any, video: Any) -> None:
    """Raise if there is a video and the prior would ignore it."""
    if video is not None and (not hasattr(speech, "see") or getattr(speech, "lips", True) is None):
        raise ValueError(
            f"speech prior {name_of(speech)!r} is audio-only and would ignore the video; "
            "leave the video out, or take an audio-visual prior, such as 'av-dkf'"
        )


def _gated(scene: Scene, mixture: Spectrogram, features: Tensor) -> Tensor:
    score = scene.reliability(mixture.frames, features)  # type: ignore[misc]
    return score[..., None, :] * features


def _lips(video: Any) -> Any:
    if isinstance(video, (str, os.PathLike, bytes, bytearray, memoryview)):
        from avse_ppl.video import read_lips

        return read_lips(video)  # type: ignore[arg-type]
    return video


def _checked(features: Tensor, mixture: Spectrogram) -> Tensor:
    expected = (mixture.recordings, mixture.frames.time)
    if features.ndim != 3 or (features.shape[0], features.shape[2]) != expected:
        raise ValueError(
            f"visual features have shape {tuple(features.shape)}; expected (recording="
            f"{expected[0]}, 1 + feature, time={expected[1]})"
        )
    if not bool(features.isfinite().all()):
        raise ValueError("visual features hold NaN or infinity; give 0 where nothing is seen")
    return features
