"""``avse-ppl diagnose``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avse_ppl.cli.commands import console
from avse_ppl.cli.commands.console import JsonOption
from avse_ppl.cli.commands.video_options import (
    FaceModelOption,
    FaceOption,
    OffsetOption,
    OptionalOption,
    ReliabilityOption,
    VideoOption,
    existing,
    parse_video_options,
)

if TYPE_CHECKING:
    from avse_ppl.evaluation.diagnostics import Diagnostics
    from avse_ppl.models.scene import Scene
    from avse_ppl.pipeline.inputs import VideoOptions
    from avse_ppl.posterior.posterior import Posterior
    from avse_ppl.signal.stft import Spectrogram

HELP = """
Say how far a saved posterior is to be trusted.

From the file alone: what the routine warned of, whether its bound still rose, Pareto k-hat, and
where the draws are from chains R-hat and effective sample sizes of the powers of speech and noise,
divergences and energy. With [bold]--noise[/] (and [bold]--speech[/]), the models it was made with,
also posterior predictive checks: whether the recording looks like what the model expects. Of a
recording with video, give the video again (or the clip, if it was one), and [bold]--reliability[/]
if it was given.

[bold]Examples[/]

\b
  avse-ppl diagnose posterior.nc
  avse-ppl diagnose posterior.nc --noise nmf --json
  avse-ppl diagnose posterior.nc --noise nmf --plot trust.png
  avse-ppl diagnose posterior.nc --noise nmf --video clip.mkv

Exit code: 0 if nothing was found, 1 if something was, 2 if the input was refused.
"""
FOUND = 1

PosteriorArgument = Annotated[
    Path, typer.Argument(metavar="POSTERIOR.nc", help="From avse-ppl enhance --posterior.")
]
SpeechOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|DIR",
        help="Speech prior it is from.",
        show_default="tcvae, or av-dkf with video",
    ),
]
NoiseOption = Annotated[
    str | None, typer.Option(metavar="NAME|module:function", help="Noise model it is from.")
]
PlotOption = Annotated[
    Path | None, typer.Option(metavar="TRUST.png", help="Also draw it; what fails is named there.")
]


def diagnose(
    posterior: PosteriorArgument,
    speech: SpeechOption = None,
    noise: NoiseOption = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    video: VideoOption = None,
    face_model: FaceModelOption = None,
    face: FaceOption = "auto",
    video_offset: OffsetOption = None,
    video_optional: OptionalOption = False,
    reliability: ReliabilityOption = None,
) -> None:
    """Diagnose a posterior; see ``HELP``."""
    with console.guarded() as remarks:
        from avse_ppl.evaluation.diagnostics import diagnose as run
        from avse_ppl.posterior.posterior import Posterior

        if plot is not None and not plot.absolute().parent.is_dir():
            raise ValueError(f"--plot {plot}: no folder {plot.parent}; make the folder first")
        with console.stdout_kept_clean():
            video_options = parse_video_options(face_model, face, video_offset, video_optional)
            scene = _scene(speech, noise, existing(video), reliability)
            loaded = Posterior.load(posterior)
            mixture = _looked_at(loaded, scene, video, video_options)
            found = run(loaded, scene, mixture)
            if plot is not None:
                from avse_ppl.plotting.diagnostics import plot_diagnostics

                plot_diagnostics(found, loaded, plot, scene=scene, mixture=mixture)
        if as_json:
            shown = None if plot is None else str(plot)
            console.print_json({**_report(found), "plot": shown, "warnings": remarks})
        else:
            _print(posterior, found)
            if plot is not None:
                console.print_line(f"{plot}: the same as a picture")
        if not found.passed.all():
            raise typer.Exit(FOUND)


def _scene(
    speech: str | None, noise: str | None, video: Path | None, reliability: str | None
) -> Scene | None:
    if noise is None and video is None:
        return None
    if noise is None:
        raise ValueError("--video is only looked at with the models; add --noise, and --speech")
    from avse_ppl.models.scene import Scene
    from avse_ppl.pipeline.catalog import resolve_noise, resolve_reliability
    from avse_ppl.pipeline.inputs import match_prior_to_videos

    prior, _ = match_prior_to_videos(speech, {None: video}, video)
    return Scene(prior, resolve_noise(noise), resolve_reliability(reliability))


def _looked_at(
    posterior: Posterior, scene: Scene | None, video: Path | None, video_options: VideoOptions
) -> Spectrogram | None:
    """What was inverted, with what was seen; None without video."""
    if scene is None or video is None:
        return None
    from avse_ppl.evaluation.diagnostics.observed import observed_audio, observed_spectrogram
    from avse_ppl.inference.core.video import condition_on_video
    from avse_ppl.pipeline.inputs import prepare_lips

    return condition_on_video(
        scene,
        observed_spectrogram(posterior),
        prepare_lips(video, observed_audio(posterior), video_options),
    )


def _report(found: Diagnostics) -> dict[str, Any]:
    rows = zip(found.passed.tolist(), found.figures, found.warnings, strict=True)
    return {
        "kind": found.kind,
        "recordings": [
            {"passed": passed, **figures, "found": list(texts)} for passed, figures, texts in rows
        ],
    }


def _print(path: Path, found: Diagnostics) -> None:
    several = len(found.figures) > 1
    console.print_line(f"{path}: posterior {found.kind}")
    for row, (figures, texts) in enumerate(zip(found.figures, found.warnings, strict=True)):
        before = f"recording {row}: " if several else ""
        for name, value in figures.items():
            if value is not None:
                console.print_line(f"  {before}{name:<12} {_shown(value)}")
        for text in texts:
            console.warn(before + text)
        if not texts:
            console.print_line(f"  {before}nothing was found against it")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
