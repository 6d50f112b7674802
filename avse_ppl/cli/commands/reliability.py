"""``avse-ppl reliability``: score the reliability of a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import JsonOption
from avse_ppl.cli.options import (
    FaceModelOption,
    FaceOption,
    FrontaliseOption,
    PlotOption,
    parse_face,
)

if TYPE_CHECKING:
    from avse_ppl.signal.audio import Audio
    from avse_ppl.video.quality.score import Reliability

HELP = """
Score the reliability of each frame of a video, from 0 to 1, with the likeliest cause where it is
low.

The causes are non-frontal, occluded, extreme pose, blurred or dark, frozen, missing, and out of
sync, which stands for the lips of another speaker, too. The last needs audio: that of the video, or
of [bold]--audio[/]; it may be noisy. It only lowers scores; where it is known to be in sync,
[bold]--no-audio[/] scores a little better.

[bold]Example[/]

\b
  avse-ppl reliability clip.mkv --csv scores.csv --plot scores.png
"""

VideoArgument = Annotated[Path, typer.Argument(metavar="VIDEO", help="Video of the speaker.")]
AudioOption = Annotated[
    Path | None,
    typer.Option(metavar="F", help="Audio, if not that of the video.", show_default=False),
]
NoAudioOption = Annotated[bool, typer.Option("--no-audio", help="Score the video alone.")]
CsvOption = Annotated[
    Path | None, typer.Option("--csv", metavar="F", help="Write one line a frame (.csv).")
]
NetworkOption = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Weights of your own.", show_default="those shipped"),
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
    frontalise: FrontaliseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score the reliability of a video; see ``HELP``."""
    with console.guard_errors() as remarks:
        from avse_ppl.plotting import SAVE_SUFFIXES
        from avse_ppl.utils.files import check_apart, check_writable
        from avse_ppl.video import read_lips
        from avse_ppl.video.quality.score import score_lips

        # Check what was asked for.
        if csv is not None:
            check_writable(csv, suffixes=[".csv"])
        if plot is not None:
            check_writable(plot, suffixes=SAVE_SUFFIXES)
        check_apart([csv, plot], [video, *([audio] if audio else [])])
        if audio is not None and no_audio:
            raise ValueError("expected --audio or --no-audio, found both; give one of them")

        # Score, and write.
        recording = None if no_audio else load_audio_of(video, audio)
        lips = read_lips(video, face_model=face_model, face=parse_face(face), frontalise=frontalise)
        scored = score_lips(lips, recording, network=network)
        if csv is not None:
            scored.save_csv(csv)
        if plot is not None:
            from avse_ppl.plotting import plot_reliability

            plot_reliability(scored, lips, plot)
        if as_json:
            report = describe_scores(scored, video, with_audio=recording is not None)
            console.print_json({**report, "warnings": remarks})
        else:
            print_scores(scored, video, with_audio=recording is not None)


def load_audio_of(video: Path, audio: Path | None) -> Audio | None:
    """Audio that was given, or that of the video; None for a video without."""
    from avse_ppl.pipeline.inputs import has_audio_stream, has_video_stream
    from avse_ppl.signal.audio import load_audio

    if audio is not None:
        return load_audio(audio)
    if has_video_stream(video) and not has_audio_stream(video):
        console.print_warning(f"{video} has no audio: lips out of sync cannot be recognised")
        return None
    # What cannot be read at all is left to the reader of the frames, which says why.
    return load_audio(video) if has_audio_stream(video) else None


def describe_scores(scored: Reliability, video: Path, with_audio: bool) -> dict[str, Any]:
    """Scores of each frame and span, as the JSON report has them."""
    rows = zip(scored.time_s, scored.score, scored.cause, scored.agreement, strict=True)
    return {
        "video": str(video),
        "with_audio": with_audio,
        "mean_score": float(scored.score.mean()),
        "spans": [
            {"start_s": start, "end_s": end, "cause": cause, "mean_score": score}
            for start, end, cause, score in scored.spans()
        ],
        "frames": [
            {"time_s": float(t), "score": float(s), "cause": str(c), "synchrony": float(a)}
            for t, s, c, a in rows
        ],
    }


def print_scores(scored: Reliability, video: Path, with_audio: bool) -> None:
    """Print the mean score, and a table of spans with their cause."""
    from rich.table import Table

    reliable = int((scored.score >= 0.5).sum())
    console.print_line(
        f"{video}: {reliable} of {len(scored.score)} frames are reliable, mean score "
        f"{scored.score.mean():.2f}{'' if with_audio else ', scored without audio'}"
    )
    table = Table("from (s)", "to (s)", "cause", "mean score", box=None)
    for start_s, end_s, cause, score in scored.spans():
        table.add_row(f"{start_s:.2f}", f"{end_s:.2f}", cause, f"{score:.2f}")
    console.OUT.print(table)
