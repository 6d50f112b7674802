"""Clips of a corpus: their files, speaker and split, and disjoint splits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "dev", "test")
DEV_NOISES = ("rain", "clock_tick", "stove-fan", "cutlery", "water-flowing", "running_tap")
HELD_OUT_NOISES = (*DEV_NOISES, "factory2", "m109")  # never trained on
UNKNOWN_SPEAKER = "unknown"


@dataclass(frozen=True)
class Clip:
    """One recording of a corpus.

    Parameters
    ----------
    path : Path
        The sound: an audio file, or a video with an audio track. Where a corpus has a clean and
        a noisy recording of the same, the clean one.
    corpus : str
        The corpus it belongs to, for instance ``"grid"``.
    speaker : str
        Who speaks; ``"unknown"`` where the corpus does not say, ``""`` for noise.
    split : str
        ``"train"``, ``"dev"`` (to choose by) or ``"test"`` (to report, once).
    label : str
        The class of a noise clip, ``""`` for speech.
    video : Path or None
        A video of the speaker's face, which starts with the sound; often `path` itself.
    roi : Path or None
        Mouth crops that the corpus brings itself.
    noisy : Path or None
        The same recording with noise.
    transcript : str
        What is said, ``""`` where the corpus does not tell.

    Raises
    ------
    ValueError
        If `split` is none of the three.

    Examples
    --------
    >>> Clip(Path("rain/1.ogg"), "esc10", "", "dev", label="rain").is_noise
    True
    """

    path: Path
    corpus: str
    speaker: str
    split: str
    label: str = ""
    video: Path | None = None
    roi: Path | None = None
    noisy: Path | None = None
    transcript: str = ""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(
                f"the split of {self.path} is {self.split!r}; expected 'train', 'dev' or 'test'"
            )

    @property
    def has_mouth(self) -> bool:
        """Whether there is a video of the speaker, or mouth crops."""
        return self.video is not None or self.roi is not None

    @property
    def is_noise(self) -> bool:
        """Whether nobody speaks in this clip."""
        return self.speaker == ""


def check_disjoint(clips: Iterable[Clip]) -> None:
    """Check that no speaker and no class of noise is in two splits.

    Parameters
    ----------
    clips : iterable of Clip
        Speech and noise, of any corpora. Unknown speakers cannot be checked, and pass as long as
        they all are on one side.

    Raises
    ------
    ValueError
        If somebody, or some noise, is on two sides.

    Examples
    --------
    >>> from pathlib import Path
    >>> check_disjoint([Clip(Path(f"{s}.wav"), "c", s, s) for s in ("train", "dev")])
    """
    sides: dict[str, set[str]] = {}
    for clip in clips:
        who = f"the noise {clip.label!r}" if clip.is_noise else f"the speaker {clip.speaker!r}"
        sides.setdefault(who, set()).add(clip.split)
    torn = sorted(who for who, splits in sides.items() if len(splits) > 1)
    if torn:
        more = f" and {len(torn) - 1} more" if len(torn) > 1 else ""
        hint = (
            "; nobody knows whether they are the same people"
            if torn[0] == f"the speaker {UNKNOWN_SPEAKER!r}"
            else ""
        )
        raise ValueError(
            f"{torn[0]}{more} is in {' and '.join(sorted(sides[torn[0]]))}{hint}; expected each "
            "speaker and each class of noise in one split only"
        )
