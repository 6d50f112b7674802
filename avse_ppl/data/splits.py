"""Splits that a result can be believed on: no speaker and no noise on two sides."""

from __future__ import annotations

from collections.abc import Iterable

from avse_ppl.data.clips import UNKNOWN_SPEAKER, Clip


def check_disjoint(clips: Iterable[Clip]) -> None:
    """Make sure that no speaker and no class of noise is on two sides of a split.

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
