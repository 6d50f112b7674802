"""``avse-ppl diagnose``: check a saved posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import Device, DeviceOption, JsonOption
from avse_ppl.cli.options import (
    FaceModelOption,
    FaceOption,
    FrontaliseOption,
    OffsetOption,
    OptionalOption,
    ReliabilityOption,
    VideoOption,
    VideoTrackOption,
    check_plot_folder,
    check_video_exists,
    parse_video_options,
)

if TYPE_CHECKING:
    from avse_ppl.evaluation.diagnostics import Diagnostics
    from avse_ppl.models.predictors.predictor import Predictor
    from avse_ppl.models.scene import Scene
    from avse_ppl.posterior.posterior import Posterior

HELP = """
Check the convergence and calibration of a saved posterior.

From the file alone: warnings of the inference method, whether its ELBO still rose, Pareto k-hat,
and where the draws are from chains R-hat and effective sample sizes of the powers of speech and
noise, divergences and energy. With [bold]--noise[/] (and [bold]--speech[/]), the models it was made
with, also posterior predictive checks; a predictor that took part runs again, by the name that the
file has of it, or [bold]--predictor[/]. Of a recording with video, give the video again (or the
clip, if it was one), and [bold]--reliability[/] if it was given.

[bold]Examples[/]

\b
  avse-ppl diagnose posterior.nc
  avse-ppl diagnose posterior.nc --noise nmf --json
  avse-ppl diagnose posterior.nc --noise nmf --plot checks.png
  avse-ppl diagnose posterior.nc --noise nmf --video clip.mkv

Exit code: 0 if nothing was found, 1 if something was, 2 if the input was refused.
"""
FAILED_CHECKS = 1

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
    Path | None, typer.Option(metavar="OUT.png", help="Also plot it; what fails is named there.")
]
PredictorOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|module:function|FILE|DIR",
        help="Predictor that took part.",
        show_default="the name in the file",
    ),
]


def diagnose(
    posterior: PosteriorArgument,
    speech: SpeechOption = None,
    noise: NoiseOption = None,
    predictor: PredictorOption = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    video: VideoOption = None,
    face_model: FaceModelOption = None,
    face: FaceOption = "auto",
    frontalise: FrontaliseOption = False,
    video_offset: OffsetOption = None,
    video_optional: OptionalOption = False,
    video_track: VideoTrackOption = None,
    reliability: ReliabilityOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Diagnose a posterior; see ``HELP``."""
    with console.guard_errors() as remarks:
        from avse_ppl.evaluation.diagnostics import diagnose as run_checks
        from avse_ppl.evaluation.diagnostics.posterior_inputs import observed_audio
        from avse_ppl.inference.core.video import condition_on_video
        from avse_ppl.pipeline.inputs import prepare_lips
        from avse_ppl.posterior.posterior import Posterior

        # Check what was asked for.
        check_plot_folder(plot)
        video_options = parse_video_options(
            face_model, face, frontalise, video_offset, video_optional, video_track
        )
        check_video_exists(video)
        find_scene = plan_scene(speech, noise, reliability, predictor, video)

        # Condition the scene as it was, and run the checks.
        with console.redirect_stdout(), console.make_progress_bar() as progress:
            progress.add_task("checking", total=None)
            loaded = Posterior.load(posterior)
            scene = find_scene(loaded)
            mixture = None
            if scene is not None and video is not None:
                lips = prepare_lips(video, observed_audio(loaded), video_options)
                mixture = condition_on_video(scene, loaded.observed_spectrogram(), lips)
            checked = run_checks(loaded, scene, mixture, device=device.value)
            if plot is not None:
                from avse_ppl.plotting import plot_diagnostics

                plot_diagnostics(checked, loaded, plot)
        if as_json:
            rows = zip(checked.passed.tolist(), checked.figures, checked.warnings, strict=True)
            recordings = [
                {"passed": passed, **figures, "found": list(texts)}
                for passed, figures, texts in rows
            ]
            report = {"kind": checked.kind, "recordings": recordings}
            plotted = None if plot is None else str(plot)
            console.print_json({**report, "plot": plotted, "warnings": remarks})
        else:
            print_diagnostics(posterior, checked)
            if plot is not None:
                console.print_line(f"{plot}: the same as a plot")
        if not checked.passed.all():
            raise typer.Exit(FAILED_CHECKS)


def plan_scene(
    speech: str | None, noise: str | None, reliability: str | None, predictor: str | None,
    video: Path | None,
) -> Callable[[Posterior], Scene | None]:  # fmt: skip
    """Resolve the models that a posterior is said to be from, before it is loaded.

    Returns
    -------
    callable
        From the posterior to its scene, with the predictor that took part; None without models.

    Raises
    ------
    ValueError
        If a name is unknown, or there is something to condition the models on, and none.
    """
    from avse_ppl.models.scene import Scene
    from avse_ppl.pipeline.catalog import resolve_noise, resolve_reliability
    from avse_ppl.pipeline.inputs import match_prior_to_videos

    if noise is None:
        if video is not None or predictor is not None:
            raise ValueError(
                f"{'--predictor' if video is None else '--video'} conditions the models only; add "
                "--noise, and --speech"
            )
        return lambda posterior: None
    prior, _ = match_prior_to_videos(speech, {None: video}, video)
    scene = Scene(prior, resolve_noise(noise), resolve_reliability(reliability))

    def find_scene(posterior: Posterior) -> Scene:
        if not posterior.kind.pooled:
            return scene
        return replace(scene, predictor=load_predictor_of(posterior, predictor))

    return find_scene


def load_predictor_of(posterior: Posterior, name: str | None) -> Predictor | None:
    """Load the predictor that took part in a posterior, by its name there unless one is given.

    Raises
    ------
    ValueError
        If the name in the posterior is not one by which it can be loaded.
    """
    from avse_ppl.models.predictors.adapters import resolve_predictor

    if name is not None:
        return resolve_predictor(name)
    named = posterior.attrs.get("predictor")
    try:
        return resolve_predictor(named)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"the predictor {named!r} took part in this posterior, and cannot be loaded by that "
            f"name ({error}); give it by --predictor"
        ) from None


def print_diagnostics(path: Path, checked: Diagnostics) -> None:
    """Print the figures of each recording, and warn of what fails."""
    several = len(checked.figures) > 1
    console.print_line(f"{path}: posterior {checked.kind}")
    for row, (figures, texts) in enumerate(zip(checked.figures, checked.warnings, strict=True)):
        before = f"recording {row}: " if several else ""
        for name, value in figures.items():
            if value is not None:
                text = f"{value:.4g}" if isinstance(value, float) else str(value)
                console.print_line(f"  {before}{name:<12} {text}")
        for text in texts:
            console.print_warning(before + text)
        if not texts:
            console.print_line(f"  {before}all checks passed")
