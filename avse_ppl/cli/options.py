"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from avse_ppl.pipeline.inputs import VideoOptions

# --- models and inference ------------------------------------------------------------------------

SpeechOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|DIR",
        help="Speech prior: a name listed by [bold]avse-ppl models[/], or a folder of weights.",
        show_default="tcvae, or av-dkf with video",
    ),
]
ReliabilityOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Model of visual reliability, which gates the lips frame by frame: a name listed by "
        "[bold]avse-ppl models[/].",
        show_default="soft",
    ),
]
PredictorOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|module:function|FILE|DIR|none",
        help="Another enhancer as evidence about the speech: a name listed by [bold]avse-ppl "
        "predictors[/], your own function, the description of an ONNX model (.toml, .json), or a "
        "folder of [bold]avse-ppl predictors fit[/].",
        show_default="deepfilternet+predictor where that is installed, predictor elsewhere",
    ),
]
PredictorOptionalOption = Annotated[
    bool,
    typer.Option(
        "--predictor-optional",
        help="Enhance without the predictor asked for, with a warning, where it is missing or "
        "fails.",
    ),
]
TimeLimitOption = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        help="End the inference of a recording after so many seconds, with what there is.",
    ),
]
PlotOption = Annotated[
    Path | None, typer.Option(metavar="F", help="Also plot it (.png, .pdf or .svg).")
]

# --- video ---------------------------------------------------------------------------------------

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
        "moves with the audio.",
    ),
]
FrontaliseOption = Annotated[
    bool,
    typer.Option(
        "--frontalise", help="Render the mouth of a turned head as seen from the front (2-D warp)."
    ),
]
OffsetOption = Annotated[
    str | None,
    typer.Option(
        metavar="S|auto",
        help="How many seconds the audio is later than the lips; auto estimates it. Without, it is "
        "estimated and reported.",
        show_default=False,
    ),
]
OptionalOption = Annotated[
    bool,
    typer.Option(
        "--video-optional", help="Enhance audio-only, with a warning, where a video cannot be used."
    ),
]

VideoTrackOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Which video track of several, from 0.",
        show_default="the one flagged as the default",
    ),
]
AudioTrackOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Which audio track of a recording that has several, from 0.",
        show_default="the one flagged as the default",
    ),
]


def parse_video_options(
    face_model: Path | None,
    face: str,
    frontalise: bool,
    offset: str | None,
    optional: bool,
    track: int | None = None,
    audio_track: int | None = None,
) -> VideoOptions:
    """Options of how a video is read.

    Raises
    ------
    ValueError
        If the face or the offset is neither a number nor one of the words.
    """
    from avse_ppl.pipeline.inputs import VideoOptions

    try:
        offset_s = offset if offset in (None, "auto") else float(offset)
    except ValueError:
        raise ValueError(
            f"--video-offset takes a number of seconds or 'auto', not {offset!r}"
        ) from None
    return VideoOptions(
        face_model=face_model,
        face=parse_face(face),
        frontalise=frontalise,
        offset_s=offset_s,
        optional=optional,
        track=track,
        audio_track=audio_track,
    )


def parse_face(text: str) -> Any:
    """Value of ``--face``: a number from the left, ``"largest"`` or ``"auto"``.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if text in ("auto", "largest"):
        return text
    if not text.isdigit():
        raise ValueError(f"--face is '{text}'; expected auto, largest or a number from 0")
    return int(text)


def check_video_exists(video: Path | None) -> Path | None:
    """Value of ``--video``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if video is not None and not video.is_file():
        raise FileNotFoundError(f"expected a video at '{video}', found no file there")
    return video


def check_time_limit(time_limit: float | None) -> None:
    """Raise ``ValueError`` unless the time limit is a positive number of seconds."""
    if time_limit is not None and not 0 < time_limit < float("inf"):
        raise ValueError(f"--time-limit takes a positive number of seconds, not {time_limit:g}")


def check_plot_folder(plot: Path | None) -> None:
    """Raise ``ValueError`` unless the folder of ``--plot`` exists."""
    if plot is not None and not plot.absolute().parent.is_dir():
        raise ValueError(f"--plot {plot}: no folder {plot.parent}; make the folder first")
