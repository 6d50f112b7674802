"""Kinds of corruption, their labels (reliability and cause), and those of a clean clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from avse_ppl.video.lips import Lips

CAUSES = (
    "frontal",
    "non-frontal",
    "occluded",
    "extreme pose",
    "blurred or dark",
    "frozen",
    "missing",
    "out of sync",
)
_NAME = f"<U{max(map(len, CAUSES))}"
_NOTICED = 0.9  # a corruption that leaves more of the reliability is not called a cause
_FRONTAL_DEG, _EXTREME_DEG = 20.0, 50.0
_HALF_DEG = 45.0

Family = Literal["trained", "held out"]


@dataclass(frozen=True, eq=False)
class Corrupted:
    """Mouth crops with their labels: reliability and cause.

    Parameters
    ----------
    lips
        The crops, corrupted, with the tracker's columns as they would be.
    reliability
        ``(frame,)`` in [0, 1], reliability of each frame.
    cause
        ``(frame,)`` one of `CAUSES`.
    """

    lips: Lips
    reliability: np.ndarray
    cause: np.ndarray


@dataclass(frozen=True)
class CorruptionContext:
    """Input of a corruption: crops of a span, severity and random generator.

    Parameters
    ----------
    lips
        The whole clip.
    start, stop
        First frame of the span, and the one after its last.
    severity
        In [0, 1].
    rng
        Of everything random.
    donor
        Another clip, for what is taken from others; None where there is none.
    """

    lips: Lips
    start: int
    stop: int
    severity: float
    rng: np.random.Generator
    donor: Lips | None = None

    @property
    def rows(self) -> slice:
        """The frames of the span."""
        return slice(self.start, self.stop)

    def __len__(self) -> int:
        """Count the frames of the span."""
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Change:
    """Output of a corruption on the frames of its span: lips and reliability.

    `degrees` is how far the head is turned, where that is what was done.
    """

    lips: Lips
    reliability: np.ndarray
    degrees: float = 0.0


@dataclass(frozen=True)
class CorruptionKind:
    """A corruption by name.

    Parameters
    ----------
    name
        As on the command line.
    family
        ``"trained"``, or ``"held out"``: never seen in training, kept to judge by.
    cause
        One of `CAUSES`; of turns it follows from the degrees.
    apply
        The function.
    frames
        For kinds that show other frames: which, for each of the span; -1 for none.
    needs_donor
        Whether these are frames of another clip.
    of_tracker
        Whether it is the tracker that is corrupted, and not the video.
    """

    name: str
    family: Family
    cause: str
    apply: Callable[[CorruptionContext], Change]
    frames: Callable[[CorruptionContext], np.ndarray] | None = None
    needs_donor: bool = False
    of_tracker: bool = False


def label_clean_clip(lips: Lips) -> Corrupted:
    r"""Label crops as they were tracked, before any corruption.

    .. math:: r_t = f_t / (1 + (\max(|\mathrm{yaw}_t|, |\mathrm{pitch}_t|) / 45°)^4)

    with f 1 where a face was found, else 0, and unknown angles 0.

    Examples
    --------
    >>> known = label_clean_clip(
    ...     Lips.from_crops(np.full((3, 88, 88), 90, dtype=np.uint8), rate_hz=25)
    ... )
    >>> known.reliability.tolist(), known.cause[0].item()
    ([1.0, 1.0, 1.0], 'frontal')
    """
    turned_deg = np.abs(np.nan_to_num(lips.pose_deg[:, :2].astype(np.float64))).max(axis=1)
    cause = name_turn_cause(turned_deg)
    reliability = np.where(lips.found, compute_turn_reliability(turned_deg), 0.0)
    cause = np.where(lips.found, cause, "missing").astype(_NAME)
    return Corrupted(lips, reliability, cause)


def compute_turn_reliability(
    degrees: np.ndarray | float, half_deg: float = _HALF_DEG
) -> np.ndarray:
    r"""Reliability of a head turned so far: :math:`1 / (1 + (d / d_{1/2})^4)`.

    Examples
    --------
    >>> compute_turn_reliability(np.array([0.0, 45.0, 90.0])).round(2).tolist()
    [1.0, 0.5, 0.06]
    """
    return 1.0 / (1.0 + (np.abs(degrees) / half_deg) ** 4)


def name_turn_cause(degrees: np.ndarray | float) -> np.ndarray:
    """Name the cause of a turned head: frontal to 20 degrees, extreme from 50."""
    away = np.abs(degrees)
    sides = np.where(away < _FRONTAL_DEG, "frontal", "non-frontal")
    return np.where(away >= _EXTREME_DEG, "extreme pose", sides)


def compute_falloff(amount: float, half: float, power: float) -> float:
    r"""Reliability that falls to a half at `half`: :math:`1 / (1 + (a / a_{1/2})^p)`.

    Examples
    --------
    >>> compute_falloff(4.0, half=4.0, power=3.0)
    0.5
    """
    return 1.0 / (1.0 + (amount / half) ** power)


def combine_labels(
    kind: CorruptionKind, before: Corrupted, context: CorruptionContext, change: Change
) -> Corrupted:
    """Combine the labels of a corruption with those of the clip before it."""
    reliability, cause = before.reliability.copy(), before.cause.copy()
    rows = context.rows
    noticed = change.reliability < _NOTICED
    named = name_turn_cause(change.degrees) if change.degrees else kind.cause
    worse = change.reliability <= before.reliability[rows]
    cause[rows] = np.where(noticed & worse, named, cause[rows])
    reliability[rows] = reliability[rows] * change.reliability
    cause[~change.lips.found] = "missing"
    reliability[~change.lips.found] = 0.0
    return Corrupted(change.lips, reliability, cause)
