"""Choice of one of several tracked faces."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from avse_ppl.signal.audio import load_audio
from avse_ppl.signal.media import Readable
from avse_ppl.video.av_offset import measure_synchrony
from avse_ppl.video.lips import Lips
from avse_ppl.video.tracks import FaceTrack

FaceChoice: TypeAlias = int | Literal["largest", "auto"]

_MOST = 6  # faces whose mouths are compared with the sound
_LASTING = 0.5  # of the video frames of the longest track


def check_face_choice(face: object) -> None:
    """Check of a face choice: a number, ``"largest"`` or ``"auto"``.

    Raises
    ------
    TypeError
        If it is neither a number nor a word.
    ValueError
        If it is negative, or another word.

    Examples
    --------
    >>> check_face_choice("largest")
    """
    if isinstance(face, bool) or not isinstance(face, (int, str)):
        raise TypeError(
            f"expected face to be a number from the left, 'largest' or 'auto', found {face!r}"
        )
    if face not in ("largest", "auto") and (isinstance(face, str) or face < 0):
        raise ValueError(
            f"expected face to be a number from the left (from 0), 'largest' or 'auto', "
            f"found {face!r}"
        )


def find_candidates(tracks: Sequence[FaceTrack], face: FaceChoice, name: str) -> list[int]:
    """Numbers of the candidate faces: one, or for ``"auto"`` those compared with the sound.

    Raises
    ------
    ValueError
        If there are fewer faces than the number given.
    """
    if isinstance(face, int):
        if face >= len(tracks):
            raise ValueError(
                f"expected face {face} (from 0, from the left) in {name or 'the video'}, found "
                f"{len(tracks)} face{'s' if len(tracks) > 1 else ''}; choose another number"
            )
        return [face]
    found = [int(track.found.sum()) for track in tracks]
    lasting = [number for number, n in enumerate(found) if n >= _LASTING * max(found)]
    by_size = sorted(lasting, key=lambda number: -tracks[number].size_px)
    return by_size[:1] if face == "largest" else by_size[:_MOST]


def choose_face(lips: Mapping[int, Lips], source: Readable, audio_track: int | None = None) -> Lips:
    """Mouth of the highest synchrony score; without sound, the first (of the largest face).

    Warns
    -----
    UserWarning
        Which one was chosen, and by what.
    """
    name = next(iter(lips.values())).name or "the video"
    try:
        audio = load_audio(source, track=audio_track)
    except ValueError:
        best, why = next(iter(lips)), "the largest: there is no sound to decide by"
    else:
        scores = {number: measure_synchrony(one, audio) for number, one in lips.items()}
        best = max(scores, key=lambda number: scores[number])
        listed = ", ".join(f"{number}: {scores[number]:.2f}" for number in sorted(scores))
        why = f"whose mouth moves most with the sound ({listed})"
    warnings.warn(
        f"{len(lips)} faces in {name}; took number {best} from the left (from 0), {why}; "
        "choose another one by face=",
        UserWarning,
        stacklevel=3,
    )
    return lips[best]
