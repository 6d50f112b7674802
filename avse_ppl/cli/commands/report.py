"""``avse-ppl report``: write an HTML report of a saved posterior."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avse_ppl.cli import console
from avse_ppl.cli.commands.diagnose import (
    NoiseOption,
    PosteriorArgument,
    PredictorOption,
    SpeechOption,
    plan_scene,
)
from avse_ppl.cli.console import JsonOption
from avse_ppl.cli.options import (
    FaceModelOption,
    FaceOption,
    FrontaliseOption,
    OffsetOption,
    ReliabilityOption,
    VideoOption,
    VideoTrackOption,
    check_video_exists,
    parse_video_options,
)

if TYPE_CHECKING:
    from avse_ppl.models.scene import Scene
    from avse_ppl.posterior.posterior import Posterior
    from avse_ppl.video.lips import Lips

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
  avse-ppl report posterior.nc -o report.html --noise nmf
  avse-ppl report posterior.nc -o report.html --video clip.mkv

With [bold]--video[/], the one that it was enhanced with, the lips are shown over time with their
reliability and what lowers it.

With [bold]--noise[/] (and [bold]--speech[/]), the models it was made with, also the posterior
predictive checks: whether the recording looks like what these would produce. The file has their
names only. A predictor that took part runs again, by its name in the file or [bold]--predictor[/].

Exit code: 0 if it was written, 2 if the input was refused. For a verdict in the exit code see
[bold]avse-ppl diagnose[/].
"""

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
    speech: SpeechOption = None,
    noise: NoiseOption = None,
    predictor: PredictorOption = None,
    reliability: ReliabilityOption = None,
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
        # Lips are shown without the models, too.
        conditioning = None if noise is None else video
        find_scene = plan_scene(speech, noise, reliability, predictor, conditioning)
        with console.redirect_stdout(), console.make_progress_bar() as progress:
            loaded = Posterior.load(posterior)
            lips = None
            if video is not None:
                from avse_ppl.evaluation.diagnostics.posterior_inputs import observed_audio
                from avse_ppl.pipeline.inputs import prepare_lips

                lips = prepare_lips(video, observed_audio(loaded), options)
            scene = find_scene(loaded)
            checks: dict[str, Any] = {}
            if scene is not None:
                steps = console.add_steps(progress, "checking")
                checks = check_models(loaded, scene, lips, steps)
            write_report(
                loaded, output, draws=draws, probability=probability, title=title, lips=lips,
                progress=console.add_steps(progress, "writing"), **checks,
            )  # fmt: skip
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


def check_models(
    posterior: Posterior, scene: Scene, lips: Lips | None, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Check a posterior against the models that it is from: arguments of `write_report`."""
    from avse_ppl.evaluation.diagnostics import diagnose
    from avse_ppl.evaluation.diagnostics.discrepancy import check_discrepancies
    from avse_ppl.inference.core.video import condition_on_video

    mixture = None
    if lips is not None:
        mixture = condition_on_video(scene, posterior.observed_spectrogram(), lips)
    checks = []
    if mixture is None or posterior.recordings == 1:
        rows = range(posterior.recordings)
        checks = [
            check_discrepancies(posterior.select(row), scene, mixture, progress=progress)
            for row in rows
        ]
    return {"diagnostics": diagnose(posterior, scene, mixture), "discrepancies": checks}
