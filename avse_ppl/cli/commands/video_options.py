"""Options that say what is seen of the speaker, for the commands that look at a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from avse_ppl.pipeline.inputs import VideoOptions

VideoOption = Annotated[
    Path | None,
    typer.Option(
        metavar="V", help="Video of the speaker's face, if the recording is not one itself."
    ),
]
FaceModelOption = Annotated[
    Path | None,
    typer.Option(
        metavar="ONNX",
        help="Weights of the face detector (SCRFD).",
        show_default="AVSE_PPL_FACE_MODEL, or insightface's own folder",
    ),
]
FaceOption = Annotated[
    str,
    typer.Option(
        metavar="N|largest|auto",
        help="Which of several faces: a number from the left, the largest, or the one whose mouth "
        "moves with the sound.",
    ),
]
OffsetOption = Annotated[
    str | None,
    typer.Option(
        metavar="S|auto",
        help="How many seconds the sound is later than the lips; auto estimates it. Without, it is "
        "estimated and reported.",
        show_default=False,
    ),
]
OptionalOption = Annotated[
    bool, typer.Option("--video-optional", help="Go on by ear where the video cannot be used.")
]
ReliabilityOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Reliability model of the video: soft, switching, beta, ungated, audio-only.",
        show_default="soft",
    ),
]


def parse_video_options(
    model: Path | None, face: str, offset: str | None, optional: bool
) -> VideoOptions:
    """How the video is looked at."""
    from avse_ppl.pipeline.inputs import VideoOptions

    try:
        offset_s = offset if offset in (None, "auto") else float(offset)
    except ValueError:
        raise ValueError(
            f"--video-offset takes a number of seconds or 'auto', not {offset!r}"
        ) from None
    which = int(face) if face.lstrip("-").isdigit() else face
    return VideoOptions(face_model=model, face=which, offset_s=offset_s, optional=optional)


def existing(video: Path | None) -> Path | None:
    """Take ``--video``; refuse a file that is not there."""
    if video is not None and not video.is_file():
        raise FileNotFoundError(f"expected a video at '{video}', found no file there")
    return video
