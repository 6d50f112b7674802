"""``avse-ppl report``: write an HTML report of a saved posterior."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import JsonOption
from avse_ppl.cli.options import (
    FaceModelOption,
    FaceOption,
    FrontaliseOption,
    OffsetOption,
    VideoOption,
    VideoTrackOption,
    check_video_exists,
    parse_video_options,
)

HELP = """
Write a report of a saved posterior: one HTML page that opens offline, in any browser.

It holds players of the noisy and the enhanced recording, of the noise and of a few draws; charts
that zoom and tell values (spectrograms with credible bands, waveform, level, visual gate, noise
factors, error of the predictor, trace); what the diagnostics found, in plain words; the kind of the
posterior, its settings and its cost. Nothing is loaded from elsewhere.

[bold]Examples[/]

\b
  avse-ppl enhance noisy.wav -o enhanced.wav --posterior posterior.nc
  avse-ppl report posterior.nc -o report.html
  avse-ppl report posterior.nc -o report.html --draws 6
  avse-ppl report posterior.nc -o report.html --video clip.mkv

With [bold]--video[/], the one that it was enhanced with, the lips are shown over time with their
reliability and what lowers it.

Exit code: 0 if it was written, 2 if the input was refused. For a verdict in the exit code see
[bold]avse-ppl diagnose[/].
"""

PosteriorArgument = Annotated[
    Path, typer.Argument(metavar="POSTERIOR.nc", help="From avse-ppl enhance --posterior.")
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="REPORT.html", help="Where the page goes.")
]
DrawsOption = Annotated[
    int, typer.Option(min=0, help="Draws of each recording that can be listened to.")
]
ProbabilityOption = Annotated[
    float, typer.Option(metavar="P", help="Mass of the credible bands, between 0 and 1.")
]
TitleOption = Annotated[
    str | None, typer.Option(help="Heading of the page.", show_default="the recording's name")
]


def report(
    posterior: PosteriorArgument,
    output: OutputOption,
    draws: DrawsOption = 3,
    probability: ProbabilityOption = 0.9,
    title: TitleOption = None,
    video: VideoOption = None,
    face_model: FaceModelOption = None,
    face: FaceOption = "auto",
    frontalise: FrontaliseOption = False,
    video_offset: OffsetOption = None,
    video_track: VideoTrackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a report; see ``HELP``."""
    with console.guard_errors() as remarks:
        from avse_ppl.posterior.posterior import Posterior
        from avse_ppl.report import write_report
        from avse_ppl.report.page import SUFFIXES
        from avse_ppl.utils.files import check_apart, check_writable

        check_writable(output, suffixes=SUFFIXES)
        check_apart([output], [posterior, *([] if video is None else [video])])
        check_video_exists(video)
        options = parse_video_options(
            face_model, face, frontalise, video_offset, False, video_track
        )
        with console.redirect_stdout():
            loaded = Posterior.load(posterior)
            lips = None
            if video is not None:
                from avse_ppl.evaluation.diagnostics.posterior_inputs import observed_audio
                from avse_ppl.pipeline.inputs import prepare_lips

                lips = prepare_lips(video, observed_audio(loaded), options)
            write_report(
                loaded, output, draws=draws, probability=probability, title=title, lips=lips
            )
        found = {
            "report": str(output), "recordings": loaded.recordings, "kind": str(loaded.kind),
            "draws": min(draws, loaded.speech.shape[0] * loaded.speech.shape[1]),
            "megabytes": round(output.stat().st_size / 1e6, 2),
        }  # fmt: skip
        if as_json:
            console.print_json({**found, "warnings": remarks})
        else:
            recordings = f"{loaded.recordings} recording{'s' if loaded.recordings > 1 else ''}"
            console.print_line(f"{output}: {recordings}, {found['megabytes']:.1f} MB")
        if draws and not found["draws"]:
            console.print_warning(
                "the posterior holds no waveform draws: the report has no credible bands, and no "
                "draws to listen to"
            )
