"""``avse-ppl reliability``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from avse_ppl.cli.commands import console
from avse_ppl.cli.commands.console import JsonOption

if TYPE_CHECKING:
    from avse_ppl.signal.audio import Audio
    from avse_ppl.video.quality.score import Reliability

HELP = """
Say how far each picture of a video can be believed: a score from 0 to 1, and the likeliest reason
where it is low.

The reasons are non-frontal, occluded, extreme pose, blurred or dark, frozen, missing, and out of
sync, which stands for somebody else's lips, too. The last needs the sound: that of the video is
taken, or the one given with [bold]--audio[/]; it may be noisy. It only lowers scores; where it is
known to be in time, [bold]--no-audio[/] judges a little better.

[bold]Example[/]

\b
  avse-ppl reliability clip.mkv --csv scores.csv --plot scores.png
"""

VideoArgument = Annotated[Path, typer.Argument(metavar="VIDEO", help="Video of the speaker.")]
AudioOption = Annotated[
    Path | None,
    typer.Option(metavar="F", help="Sound, if not that of the video.", show_default=False),
]
NoAudioOption = Annotated[bool, typer.Option("--no-audio", help="Look only.")]
CsvOption = Annotated[
    Path | None, typer.Option("--csv", metavar="F", help="Write one line a picture (.csv).")
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="F", help="Draw it (.png, .pdf or .svg).")
]
NetworkOption = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Weights of your own.", show_default="those shipped"),
]
FaceModelOption = Annotated[
    Path | None,
    typer.Option(
        metavar="F", help="Face detector, an .onnx file.", show_default="insightface's own"
    ),
]
FaceOption = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="Which face, where there are several: auto, largest, or its number from the left.",
    ),
]


def reliability(
    video: VideoArgument,
    audio: AudioOption = None,
    no_audio: NoAudioOption = False,
    csv: CsvOption = None,
    plot: PlotOption = None,
    network: NetworkOption = None,
    face_model: FaceModelOption = None,
    face: FaceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Say how far a video can be believed; see ``HELP``."""
    with console.guarded() as shown:
        from avse_ppl.utils.files import check_apart
        from avse_ppl.video import read_lips
        from avse_ppl.video.quality.score import score_lips

        _check_outputs(csv, plot)
        check_apart([csv, plot], [video, *([audio] if audio else [])])
        if audio is not None and no_audio:
            raise ValueError("expected --audio or --no-audio, found both; give one of them")
        sound = None if no_audio else _sound(video, audio)
        lips = read_lips(video, face_model=face_model, face=which_face(face))
        judged = score_lips(lips, sound, network=network)
        if csv is not None:
            judged.save_csv(csv)
        if plot is not None:
            from avse_ppl.plotting.reliability import save_reliability_picture

            save_reliability_picture(judged, lips, plot)
        if as_json:
            console.print_json({**_report(judged, video, sound), "warnings": shown})
        else:
            _print(judged, video, sound)


def which_face(text: str) -> int | Literal["largest", "auto"]:
    """Take ``--face`` apart."""
    if text == "auto" or text == "largest":
        return text
    if not text.isdigit():
        raise ValueError(f"--face is '{text}'; expected auto, largest or a number from 0")
    return int(text)


def _check_outputs(csv: Path | None, plot: Path | None) -> None:
    from avse_ppl.plotting.lips import SAVE_SUFFIXES
    from avse_ppl.utils.files import check_writable

    if csv is not None:
        check_writable(csv, suffixes=[".csv"])
    if plot is not None:
        check_writable(plot, suffixes=SAVE_SUFFIXES)


def _sound(video: Path, audio: Path | None) -> Audio | None:
    """The sound that was given, or that of the video; None for a video without."""
    from avse_ppl.signal.audio import load_audio

    if audio is not None:
        return load_audio(audio)
    if not video.exists() or video.is_dir():
        return None  # reading the pictures says so
    try:
        return load_audio(video)
    except ValueError as error:
        if "no audio track" not in str(error):
            raise
        console.warn(f"{video} has no sound: lips that are out of sync cannot be told")
        return None


def _report(judged: Reliability, video: Path, sound: Audio | None) -> dict[str, Any]:
    rows = zip(judged.time_s, judged.score, judged.cause, judged.agreement, strict=True)
    return {
        "video": str(video),
        "heard": sound is not None,
        "mean_score": float(judged.score.mean()),
        "spans": [
            {"start_s": start, "end_s": end, "cause": cause, "mean_score": score}
            for start, end, cause, score in judged.spans()
        ],
        "frames": [
            {"time_s": float(t), "score": float(s), "cause": str(c), "agreement": float(a)}
            for t, s, c, a in rows
        ],
    }


def _print(judged: Reliability, video: Path, sound: Audio | None) -> None:
    from rich.table import Table

    believed = int((judged.score >= 0.5).sum())
    console.print_line(
        f"{video}: {believed} of {len(judged.score)} pictures can be believed, mean score "
        f"{judged.score.mean():.2f}{'' if sound is not None else ', judged without sound'}"
    )
    table = Table("from (s)", "to (s)", "cause", "mean score", box=None)
    for start_s, end_s, cause, score in judged.spans():
        table.add_row(f"{start_s:.2f}", f"{end_s:.2f}", cause, f"{score:.2f}")
    console.OUT.print(table)
