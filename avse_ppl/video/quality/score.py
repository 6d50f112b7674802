"""Quality score of the lips in each video frame, by the reliability network."""

from __future__ import annotations

import csv
import functools
import itertools
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from avse_ppl.models.networks.lip_encoder import downsample_crops
from avse_ppl.models.weights.io import DEFAULT_RELIABILITY, load_reliability
from avse_ppl.signal.audio import Audio
from avse_ppl.video.corruptions.base import CAUSES
from avse_ppl.video.lips import Lips
from avse_ppl.video.quality.features import (
    SOUND_HZ,
    VIDEO_RATE_HZ,
    compute_log_mel_energies,
    compute_tracker_columns,
)

if TYPE_CHECKING:
    from avse_ppl.models.networks.reliability import ReliabilityNetwork

_BLOCK, _AROUND = 750, 75  # frames evaluated at once, and their context on either side
_SHORTEST_S = 0.4  # of sound, to be compared with lips
_REGULAR_S = 2e-3


@dataclass(frozen=True, eq=False)
class Reliability:
    """Quality score of each video frame, with the likeliest cause of a low one.

    Parameters
    ----------
    time_s
        ``(frame,)`` those of the lips.
    score
        ``(frame,)`` in [0, 1]: 1 for a mouth in frontal view that is uncovered, sharp, lit and in
        synchrony with the sound; 0 where no face was found.
    cause
        ``(frame,)`` the likeliest of `avse_ppl.video.corruptions.CAUSES`.
    cause_probability
        ``(frame, 8)`` of each of them, in that order.
    agreement
        ``(frame,)`` in [0, 1], how likely lips and sound are together within 80 ms, among all
        offsets within a second, over 0.84 s; about 0.1 by chance. NaN without sound, where no face
        was found, and where too little lies around to compare: near the ends of a clip, near gaps,
        and in all of a clip of less than 1.04 s.
    name
        Of the file.

    Examples
    --------
    >>> gone = Lips.from_crops(np.zeros((50, 88, 88), dtype=np.uint8), rate_hz=25)
    >>> score_lips(gone).score.max().item(), score_lips(gone).cause[0].item()
    (0.0, 'missing')
    """

    time_s: np.ndarray
    score: np.ndarray
    cause: np.ndarray
    cause_probability: np.ndarray
    agreement: np.ndarray
    name: str = ""

    def spans(self) -> list[tuple[float, float, str, float]]:
        """Stretches of one cause: start and end in seconds, the cause, and the mean score."""
        edges = np.flatnonzero(self.cause[1:] != self.cause[:-1]) + 1
        bounds = [0, *edges.tolist(), len(self.cause)]
        step_s = float(np.median(np.diff(self.time_s))) if len(self.time_s) > 1 else 0.04
        return [
            (
                float(self.time_s[start]),
                float(self.time_s[stop - 1]) + step_s,
                str(self.cause[start]),
                float(self.score[start:stop].mean()),
            )
            for start, stop in itertools.pairwise(bounds)
        ]

    def save_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write one line for each frame, atomically.

        Raises
        ------
        OSError, ValueError
            If it cannot be written, or does not end in ``.csv``.
        """
        from avse_ppl.utils.files import atomic_path, check_writable

        path = check_writable(path, suffixes=[".csv"])
        names = [name.replace(" ", "_").replace("-", "_") for name in CAUSES]
        with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["time_s", "score", "cause", "agreement", *names])
            for k, probabilities in enumerate(self.cause_probability):
                agreement = self.agreement[k]
                rows.writerow(
                    [
                        f"{self.time_s[k]:.3f}", f"{self.score[k]:.4f}", self.cause[k],
                        "" if np.isnan(agreement) else f"{agreement:.4f}",
                        *(f"{p:.4f}" for p in probabilities),
                    ]
                )  # fmt: skip
        return path


def score_lips(
    lips: Lips,
    audio: Audio | None = None,
    *,
    network: ReliabilityNetwork | str | Path | None = None,
) -> Reliability:
    """Quality score of the lips in each video frame, with the likeliest cause of a low one.

    Parameters
    ----------
    lips
        Of one speaker, at any rate: their nearest frames at 25 a second are scored.
    audio
        The sound, noisy as it is, which starts at time 0 of the lips; several channels are
        averaged. It may only lower the score. Without it, lips that are out of synchrony or of
        another speaker are not detected.
    network
        The network, or the name or folder of its weights; None for those shipped.

    Returns
    -------
    Reliability
        Of each frame of the lips. Where no face was found the score is 0 and the cause
        ``"missing"``; so it is everywhere if no frame has a face.

    Raises
    ------
    TypeError
        If lips or audio are of another type.
    ValueError
        If the sound has NaN or infinite samples, or weights are of another network.

    Warns
    -----
    UserWarning
        If the sound is silent, or shorter than 0.4 s: it is then left out.

    References
    ----------
    Chung and Zisserman, "Out of time: automated lip sync in the wild", ACCV workshops 2016.

    Examples
    --------
    >>> from avse_ppl.video import read_lips
    >>> from avse_ppl.signal.audio import load_audio
    >>> clip = "examples/data/mouth.mkv"
    >>> quality = score_lips(read_lips(clip), load_audio(clip))
    >>> quality.score.shape, quality.cause_probability.shape
    ((75,), (75, 8))
    """
    if not isinstance(lips, Lips):
        raise TypeError(
            f"expected Lips, found {type(lips).__name__}; read a video with "
            "avse_ppl.video.read_lips, or take crops with Lips.from_crops"
        )
    samples = resample_audio(audio)
    if not lips.found.any():
        return score_missing_lips(lips)
    model = (
        network
        if isinstance(network, torch.nn.Module)
        else load_network(str(network or DEFAULT_RELIABILITY))
    )
    steady, index = resample_lips(lips)
    score, causes, together = score_blocks(model, steady, samples)
    found = lips.found & steady.found[index]
    probability = np.where(found[:, None], causes[index], label_missing())
    heard = found & (samples is not None)
    return Reliability(
        time_s=lips.time_s,
        score=np.where(found, score[index], 0.0),
        cause=np.array(CAUSES)[probability.argmax(axis=1)],
        cause_probability=probability,
        agreement=np.where(heard, together[index], np.nan),
        name=lips.name,
    )


def is_audible(audio: Audio) -> bool:
    """Whether a sound is long and loud enough to be compared with lips."""
    return audio.duration_s >= _SHORTEST_S and audio.peak > 0.0


def resample_audio(audio: Audio | None) -> np.ndarray | None:
    """Samples at the rate of the network; None without audio."""
    if audio is None:
        return None
    if not isinstance(audio, Audio):
        raise TypeError(
            f"expected audio as an Audio, found {type(audio).__name__}; read a file with "
            "avse_ppl.signal.audio.load_audio, or make Audio(samples, sample_rate_hz)"
        )
    from avse_ppl.signal.audio import check_finite

    check_finite(audio.samples)
    if not is_audible(audio):
        why = "silent" if audio.peak == 0.0 else f"{audio.duration_s:.2f} s long"
        warnings.warn(
            f"the sound is {why}, which tells nothing about the lips: they are scored without it",
            UserWarning,
            stacklevel=3,
        )
        return None
    return audio.audible_mono().resample(SOUND_HZ).samples


@functools.lru_cache(maxsize=4)
def load_network(name: str) -> ReliabilityNetwork:
    """Load a reliability network, once for each name."""
    return load_reliability(name)


def label_missing() -> np.ndarray:
    """Probabilities of the causes where no face was found."""
    return np.eye(len(CAUSES))[CAUSES.index("missing")]


def score_missing_lips(lips: Lips) -> Reliability:
    """Score lips of which no frame shows a face: 0 everywhere."""
    frames = len(lips)
    return Reliability(
        time_s=lips.time_s,
        score=np.zeros(frames),
        cause=np.full(frames, "missing"),
        cause_probability=np.tile(label_missing(), (frames, 1)),
        agreement=np.full(frames, np.nan),
        name=lips.name,
    )


def resample_lips(lips: Lips) -> tuple[Lips, np.ndarray]:
    """Lips at 25 frames a second from time 0, and which of these each frame is nearest to."""
    wanted = np.arange(len(lips)) / VIDEO_RATE_HZ
    if np.abs(lips.time_s - wanted).max() <= _REGULAR_S:
        return lips, np.arange(len(lips))
    steady = lips.resample(VIDEO_RATE_HZ, max(lips.duration_s, 1 / VIDEO_RATE_HZ))
    return steady, np.rint(lips.time_s * VIDEO_RATE_HZ).astype(int).clip(0, len(steady) - 1)


def score_blocks(
    network: ReliabilityNetwork, lips: Lips, samples: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score ``(frame,)``, causes ``(frame, 8)`` and agreement, block by block."""
    columns = torch.from_numpy(compute_tracker_columns(lips))
    levels = (
        None if samples is None else torch.from_numpy(compute_log_mel_energies(samples, len(lips)))
    )
    parts = []
    for start in range(0, len(lips), _BLOCK):
        begin, end = max(start - _AROUND, 0), start + _BLOCK + _AROUND
        inner = slice(start - begin, start - begin + min(_BLOCK, len(lips) - start))
        images = downsample_crops(torch.from_numpy(np.ascontiguousarray(lips.roi[begin:end])))
        with torch.no_grad():
            judged = network(
                images[None], columns[None, begin:end],
                None if levels is None else levels[None, begin:end],
            )  # fmt: skip
        parts.append(
            (
                judged.score[0, inner].sigmoid().double().numpy(),
                judged.cause[0, :, inner].softmax(0).T.double().numpy(),
                np.where(
                    judged.compared[0, inner].numpy(),
                    judged.in_sync[0, inner].sigmoid().double().numpy(), np.nan,
                ),
            )
        )  # fmt: skip
    score, causes, together = (np.concatenate(column) for column in zip(*parts, strict=True))
    return score, causes, together
