"""Visual conditioning: features of the lips on the STFT frames of a mixture, and their score."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from avse_ppl.models.handlers import recording_plate
from avse_ppl.models.protocols import is_audio_visual, name_of, supports_switch, visual_weight_of
from avse_ppl.models.scene import Scene
from avse_ppl.models.visual.gate import Switch, Switched, gate_features
from avse_ppl.models.visual.reliability import audio_only, ungated
from avse_ppl.signal.audio import Audio
from avse_ppl.signal.stft import Frames, Spectrogram


def condition_on_video(scene: Scene, mixture: Spectrogram, video: Any) -> Spectrogram:
    """Mixture with the visual features of its speakers; without, where no lips are visible.

    Parameters
    ----------
    scene
        Its prior has a method ``visual_features``, or takes the features as they are given.
    mixture
        One or several recordings.
    video
        ``Lips``, the path or bytes of a video, or features ``(recording, 1 + feature, time)``; a
        list of lips, one for each recording, with None for those without; None: the mixture as it
        is.

    Raises
    ------
    ValueError
        If the prior is audio-only, or there are not as many videos as recordings.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import GaussianSpeech, Scene, Stft, stationary
    >>> mixture = Stft().analyse(np.ones(2000, "float32"))
    >>> condition_on_video(Scene(GaussianSpeech(), stationary), mixture, "face.mkv")
    Traceback (most recent call last):
    ValueError: speech prior 'GaussianSpeech' is audio-only and would ignore the video; ...
    """
    features = encode_video(scene, mixture, video)
    if features is None or not bool(features[:, 0].any()):
        return mixture
    if scene.reliability is not None:
        check_reliability(scene, mixture.frames, features)
    return mixture.with_visual(features)


def encode_video(
    scene: Scene, mixture: Spectrogram, video: Any, scores: Tensor | None = None
) -> Tensor | None:
    """Visual features ``(recording, 1 + feature, time)``, scored; None where there is no video.

    Parameters
    ----------
    scene, mixture, video
        As in `condition_on_video`.
    scores
        From `score_frames`, where several scenes share them; by default computed if the scene has a
        reliability model that uses them.
    """
    if video is None or scene.reliability is audio_only:
        return None
    if isinstance(video, Tensor):
        return check_features(video, mixture)
    check_audio_visual(scene.speech, video)
    several = isinstance(video, Sequence) and not isinstance(video, (str, bytes))
    videos = list(video) if several else [video] * mixture.recordings
    if len(videos) != mixture.recordings:
        raise ValueError(
            f"{len(videos)} videos for {mixture.recordings} recordings; give one for each, with "
            "None for those without"
        )
    lips = []
    for one in videos:
        if isinstance(one, (str, os.PathLike, bytes, bytearray, memoryview)):
            from avse_ppl.video import read_lips

            one = read_lips(one)  # type: ignore[arg-type]
        lips.append(one)
    encode: Any = scene.speech.visual_features  # type: ignore[attr-defined]
    encoded = [None if one is None else encode(one, mixture.frames) for one in lips]
    known = [one for one in encoded if one is not None]
    if not known:
        return None
    features = torch.stack([torch.zeros_like(known[0]) if one is None else one for one in encoded])
    if scene.reliability not in (None, ungated):
        if scores is None:
            scores = score_frames(lips, mixture)
        features[:, 0] *= visual_weight_of(scene.speech) * scores.to(features.dtype)
    return features


def score_frames(lips: Sequence[Any], mixture: Spectrogram) -> Tensor:
    """Score of the lips in each STFT frame by the reliability network, ``(recording, time)``.

    The network gets the audio, too, since nothing in the video alone is wrong with lips of another
    speaker. The scene's likelihood of the same audio then comes on top of the score, so that a
    switch uses it twice.

    Parameters
    ----------
    lips
        One for each recording; None scores 0.
    mixture
        The recordings.
    """
    from avse_ppl.video.quality.score import is_audible, score_lips

    time_s = mixture.frames.time_s.cpu().numpy()
    rows = []
    for one, wave in zip(lips, mixture.stft.synthesise(mixture), strict=True):
        if one is None:
            rows.append(torch.zeros(len(time_s)))
            continue
        audio = Audio(wave, mixture.stft.sample_rate_hz)
        scored = score_lips(one, audio if is_audible(audio) else None)
        rows.append(torch.from_numpy(np.interp(time_s, scored.time_s, scored.score)))
    return torch.stack(rows)


def check_audio_visual(speech: Any, video: Any) -> None:
    """Raise if there is a video and the prior would ignore it."""
    if video is not None and not is_audio_visual(speech):
        raise ValueError(
            f"speech prior {name_of(speech)!r} is audio-only and would ignore the video; "
            "leave the video out, or take an audio-visual prior, such as 'av-dkf'"
        )


def check_reliability(scene: Scene, frames: Frames, features: Tensor) -> None:
    """Raise unless the model of reliability gives what a scene can use.

    Raises
    ------
    ValueError
        If its gate has another shape than ``(recording, time)`` or values outside [0, 1]; or if it
        is a switch and the prior has none that can be summed out.
    """
    shape = (len(features), frames.time)
    with recording_plate(shape[0], isolated=True):
        found = scene.reliability(frames, features)  # type: ignore[misc]
    if isinstance(found, Switch) and not supports_switch(scene.speech):
        raise ValueError(
            f"speech prior {name_of(scene.speech)!r} has no switch that can be summed out: its "
            "decoder, or its memory, sees the lips too; take the reliability 'soft' or 'beta'"
        )
    gate = found.score if isinstance(found, Switch) else found
    if not isinstance(gate, Tensor) or tuple(gate.shape) not in (shape, shape[1:]):
        what = f"shape {tuple(gate.shape)}" if hasattr(gate, "shape") else type(gate).__name__
        raise ValueError(
            f"reliability {name_of(scene.reliability)!r} returned {what}; expected a "
            f"tensor of shape (recording={shape[0]}, time={shape[1]}) in [0, 1]"
        )
    if not bool(((gate >= 0.0) & (gate <= 1.0)).all()):
        raise ValueError(
            f"reliability {name_of(scene.reliability)!r} returned values from {float(gate.min()):g}"
            f" to {float(gate.max()):g}; expected all within [0, 1]"
        )


def gate_once(scene: Scene, mixture: Spectrogram) -> tuple[Scene, Spectrogram]:
    """The scene without its model of reliability, and the mixture with what that lets through.

    For routines that show a network the lips again and again, and do not infer how far they count.

    Raises
    ------
    ValueError
        If how far they count is for the scene to find out: a switch, or a latent gate.
    """
    visual = mixture.frames.visual
    if visual is None or scene.reliability is None:
        return replace(scene, reliability=None), mixture
    with recording_plate(mixture.recordings, isolated=True), poutine.trace() as tracer:
        seen = gate_features(mixture.frames, visual, scene.reliability)
    if isinstance(seen, Switched) or tracer.trace.stochastic_nodes:
        raise ValueError(
            f"reliability {name_of(scene.reliability)!r} is a latent of the scene, which guided "
            "diffusion does not infer; take --reliability soft, ungated, audio-only or a function "
            "that samples nothing"
        )
    return replace(scene, reliability=None), mixture.with_visual(seen)


def check_features(features: Tensor, mixture: Spectrogram) -> Tensor:
    """Raise ValueError unless visual features fit a mixture and are finite; return them."""
    expected = (mixture.recordings, mixture.frames.time)
    if features.ndim != 3 or (features.shape[0], features.shape[2]) != expected:
        raise ValueError(
            f"visual features have shape {tuple(features.shape)}; expected (recording="
            f"{expected[0]}, 1 + feature, time={expected[1]})"
        )
    if not bool(features.isfinite().all()):
        raise ValueError("visual features hold NaN or infinity; give 0 where nothing is seen")
    return features
