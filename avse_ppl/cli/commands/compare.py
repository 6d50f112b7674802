"""``avse-ppl compare``: compare noise or reliability models on a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import Device, DeviceOption, JsonOption, SeedOption
from avse_ppl.cli.options import (
    AudioTrackOption,
    FaceModelOption,
    FaceOption,
    FrontaliseOption,
    OffsetOption,
    OptionalOption,
    SpeechOption,
    TimeLimitOption,
    VideoOption,
    VideoTrackOption,
    check_plot_folder,
    check_time_limit,
    check_video_exists,
    parse_video_options,
)

if TYPE_CHECKING:
    from avse_ppl.evaluation.comparison import Comparison

HELP = """
Compare noise models on one recording, or models of the reliability of its video.

Each model is inferred together with the speech prior, and scored by how well it predicts each
time-frequency bin from all others that share no samples with it: the expected log predictive
density (elpd), by Pareto-smoothed importance sampling. The table has the best model first, the
differences to it with their standard errors, and the weights of the best mixture (stacking).

[bold]Examples[/]

\b
  avse-ppl compare noisy.wav --noise stationary nmf nmf+clicks
  avse-ppl compare noisy.wav --noise nmf my_noise:hiss --plot where.png

The plot shows where in time and frequency the best model gains on each of the others. Methods that
make a point estimate of the noise (em, guided) cannot be used. --time-limit holds for each model:
one that ends early is scored by what there is, and a warning says so.

[bold]Video[/] of the speaker's face conditions the prior as in avse-ppl enhance. Several names
after --reliability are compared, too; then one noise model is enough, and of several each is paired
with each.

\b
  avse-ppl compare clip.mkv --noise stationary nmf
  avse-ppl compare a.wav --video a.mp4 --noise nmf --reliability ungated audio-only soft switching
"""

NoisyArgument = Annotated[Path, typer.Argument(metavar="NOISY", help="The recording.")]
NoiseOption = Annotated[
    list[str],
    typer.Option("--noise", metavar="NAME|module:function", help="Noise models, two or more."),
]
ReliabilitiesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--reliability",
        metavar="NAME",
        help="Reliability models of the video, one or several to compare: soft, switching, beta, "
        "ungated, audio-only.",
        show_default="soft",
    ),
]
InferenceOption = Annotated[
    str, typer.Option(metavar="NAME", help="Inference method; not a point estimate.")
]
# Lets several names stand after one --noise or --reliability: what is left over on the line.
MoreArgument = Annotated[list[str] | None, typer.Argument(metavar="", hidden=True)]
DrawsOption = Annotated[int, typer.Option(help="Draws of the latents, 100 or more.")]
PlotOption = Annotated[
    Path | None, typer.Option(metavar="WHERE.png", help="Also plot where the best model gains.")
]


def compare(
    noisy: NoisyArgument,
    noise: NoiseOption,
    more: MoreArgument = None,
    speech: SpeechOption = None,
    inference: InferenceOption = "svi",
    seed: SeedOption = 0,
    device: DeviceOption = Device.auto,
    draws: DrawsOption = 200,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    video: VideoOption = None,
    face_model: FaceModelOption = None,
    face: FaceOption = "auto",
    frontalise: FrontaliseOption = False,
    video_offset: OffsetOption = None,
    video_optional: OptionalOption = False,
    video_track: VideoTrackOption = None,
    audio_track: AudioTrackOption = None,
    reliability: ReliabilitiesOption = None,
    time_limit: TimeLimitOption = None,
) -> None:
    """Compare noise models; see ``HELP``."""
    with console.guard_errors() as remarks:
        from avse_ppl.models.visual.reliability import RELIABILITIES
        from avse_ppl.pipeline.compare import compare as compare_models
        from avse_ppl.pipeline.inputs import find_video, match_prior_to_videos

        check_plot_folder(plot)
        check_time_limit(time_limit)
        video_options = parse_video_options(
            face_model, face, frontalise, video_offset, video_optional, video_track, audio_track
        )
        # Names left over on the line belong to --noise, or if they are of one to --reliability.
        more = more or []
        gates = [name for name in more if reliability and name in RELIABILITIES]
        noises = [*noise, *(name for name in more if name not in gates)]
        videos = {noisy: find_video(noisy, check_video_exists(video))}
        prior, videos = match_prior_to_videos(speech, videos, video)
        with console.redirect_stdout(), console.make_progress_bar() as progress:
            comparison = compare_models(
                noisy, noises, speech=prior, inference=inference, seed=seed, device=device.value,
                draws=draws, video=videos[noisy], video_options=video_options,
                reliability=[*reliability, *gates] if reliability else None,
                time_limit_s=time_limit, progress=console.add_steps(progress),
            )  # fmt: skip
            if plot is not None:
                from avse_ppl.plotting import plot_comparison

                plot_comparison(comparison, plot)
        for text in comparison.warnings:
            console.print_warning(text)
        if as_json:
            report = {
                "best": comparison.best,
                "undecided": list(comparison.undecided),
                "models": comparison.table(),
                "kind": comparison.kind,
                "plot": None if plot is None else str(plot),
                "settings": comparison.attrs,
                "warnings": [*remarks, *comparison.warnings],
            }
            console.print_json(report)
            return
        for line in format_table(comparison):
            console.print_line(line)
        if comparison.undecided:
            console.print_line(
                f"no verdict between {comparison.best} and {' and '.join(comparison.undecided)}: "
                "within one standard error"
            )
        bins = comparison.power.size
        console.print_line(f"nats, of {bins} time-frequency bins; draws: {comparison.kind}")
        if plot is not None:
            console.print_line(f"{plot}: where {comparison.best} gains on the others")


def format_table(comparison: Comparison) -> list[str]:
    """Lines of a table of the models, the best first."""
    rows = comparison.table()
    width = max(5, *(len(row["model"]) for row in rows))
    has_elbo = any(row["elbo"] is not None for row in rows)
    heading = f"{'model':<{width}}  {'elpd':>10}  {'difference':>10}  {'s.e.':>7}  {'weight':>6}"
    lines = [heading + f"  {'p_loo':>7}  {'bad k':>6}" + (f"  {'ELBO':>10}" if has_elbo else "")]
    for row in rows:
        line = (
            f"{row['model']:<{width}}  {row['elpd']:>10.0f}  {row['difference']:>10.0f}  "
            f"{row['difference_se']:>7.0f}  {row['weight']:>6.2f}  {row['p_loo']:>7.0f}  "
            f"{row['bad_k']:>6.1%}"
        )
        lines.append(line + (f"  {row['elbo']:>10.0f}" if row["elbo"] is not None else ""))
    return lines
