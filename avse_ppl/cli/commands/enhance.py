"""``avse-ppl enhance``: enhance noisy recordings."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avse_ppl.cli import console
from avse_ppl.cli.commands.enhance_stream import (
    StreamBandOption,
    StreamFormat,
    StreamFormatOption,
    StreamOption,
    StreamRateOption,
    check_stream_options,
    enhance_stream,
)
from avse_ppl.cli.console import Device, DeviceOption, JsonOption, SeedOption
from avse_ppl.cli.options import (
    AudioTrackOption,
    FaceModelOption,
    FaceOption,
    FrontaliseOption,
    OffsetOption,
    OptionalOption,
    PredictorOption,
    PredictorOptionalOption,
    ReliabilityOption,
    SpeechOption,
    TimeLimitOption,
    VideoOption,
    VideoTrackOption,
    check_time_limit,
    check_video_exists,
    parse_video_options,
)
from avse_ppl.utils.plurals import choose_form, name_count

if TYPE_CHECKING:
    from avse_ppl.pipeline.enhance_jobs import Outcome
    from avse_ppl.pipeline.jobs import JobPlan

HELP = """
Enhance a noisy recording: write the posterior mean of the clean speech.

Speech and noise are generative models, whose posterior given the recording is inferred. The output
has the length and the channels of the input, at the sampling rate of the
speech prior (16 kHz for the shipped ones). Input may be WAV, FLAC, OGG, MP3 and others, or the
audio of a video.

[bold]Examples[/]

\b
  avse-ppl enhance noisy.wav -o enhanced.wav
  avse-ppl enhance noisy.wav -o enhanced.wav --posterior posterior.nc
  avse-ppl enhance noisy.wav -o enhanced.wav --noise my_noise:heavy_tailed
  avse-ppl enhance clip.mkv -o enhanced.wav --show-lips lips.png
  avse-ppl enhance recordings/ -o enhanced/ --device cuda --json > report.json

[bold]Video[/] of the speaker's face conditions the speech prior where the recording is a video, or
--video gives one: the prior is then av-dkf unless --speech names another. The face is detected with
weights that do not come with the package: see --face-model. With --video-optional, a recording
whose video cannot be used is enhanced audio-only.

[bold]Several recordings[/], or a folder of them, go to a folder: a/b.flac becomes OUT/b.wav.
Recordings of like length are enhanced together. OUT/enhance.jsonl lists what is finished:
interrupt the command and start it again, and it goes on from there; a second command into the same
OUT at the same time is refused. What was made with other
settings, or from a recording that has changed, is made anew.

[bold]--manifest[/] takes a list of recordings: Kaldi's wav.scp, CSV (a column audio, path or
audio_filepath; perhaps id, video, offset, duration), or JSON lines of NeMo or lhotse. Relative
paths are relative to it. The recording with the id utt1 becomes OUT/utt1.wav, and OUT gets a
manifest of the same kind and name that lists the enhanced recordings.

\b
  avse-ppl enhance --manifest data/wav.scp -o enhanced/

[bold]--cluster[/] enhances the batches of a folder or manifest by many processes at once, on this
machine or on the machines of a Ray cluster (pip install 'avse-ppl[cluster]'), which share the
recordings and OUT. Results are the same; what a process that died was at is done again.

\b
  avse-ppl enhance --manifest data/wav.scp -o enhanced/ --cluster local --workers 8
  avse-ppl enhance --manifest data/wav.scp -o enhanced/ --cluster auto

[bold]A long run[/] says how long it takes and what would be faster. With --time-limit it ends early
with what there is: its posterior is called "ended early", and a warning says how far it came.

[bold]--predictor[/] takes another enhancer, whose answer is evidence about the speech: a name that
[bold]avse-ppl predictors[/] lists, a description of an ONNX model, or a function of your own. One
that fails is an error; with --predictor-optional it is left out, with a warning. Without the option
it is deepfilternet+predictor where that is installed, which takes two to three times as long,
elsewhere predictor, which takes a sixth longer; --predictor none does without.

[bold]--noise module:function[/] takes a noise model of your own from a Python file in the current
folder: a function of frames that returns ComplexNormal(mean, power).

[bold]--stream[/] enhances as the sound comes, by a causal network instead of inference: WAV or raw
samples on stdin, the same on stdout, each channel by itself, remarks on stderr. Exit code 1: stdout
was closed by its reader.

\b
  avse-ppl enhance --stream < noisy.wav > enhanced.wav
  arecord -f S16_LE -r 16000 -t raw | avse-ppl enhance --stream
    --stream-format s16 --sample-rate-hz 16000 | aplay -f S16_LE -r 16000

Exit code: 0 if all went well, 2 if a recording failed or the input was refused.
"""


NoisyArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="NOISY", help="Recordings, or a folder of them; with --stream, none.",
        show_default=False,
    ),
]  # fmt: skip
ManifestOption = Annotated[
    Path | None,
    typer.Option(
        "--manifest", metavar="FILE",
        help="Enhance what a manifest lists: .scp, .csv, .tsv, .jsonl or .json, also with .gz.",
    ),
]  # fmt: skip
LogJsonOption = Annotated[
    bool,
    typer.Option(
        "--log-json",
        help="Print one line of JSON on stderr for each recording as soon as it is done, and no "
        "progress.",
    ),
]
OutputOption = Annotated[
    str | None,  # a slash at its end says that it is a folder, which a Path would drop
    typer.Option(
        "--output", "-o", metavar="OUT",
        help="File ending in .wav (float), .flac (24 bits) or .ogg; a folder for several.",
    ),
]  # fmt: skip
LipsFigureOption = Annotated[
    Path | None, typer.Option("--show-lips", metavar="OUT.png", help="Plot the tracked lips.")
]
NoiseOption = Annotated[
    str,
    typer.Option(
        metavar="NAME|module:function",
        help='Noise model, by name or your own, or a sum: "nmf(8)+hum(50)".',
    ),
]
InferenceOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Inference method: a name listed by [bold]avse-ppl models[/].",
        show_default="svi, or guided where the prior has no density",
    ),
]
PosteriorOption = Annotated[
    Path | None,
    typer.Option(
        metavar="OUT.nc",
        help="Also write the posterior (draws, mean, variance) as NetCDF: a file, or a folder for "
        "several recordings.",
    ),
]
DrawsOption = Annotated[int, typer.Option(min=1, help="Draws of speech in the posterior.")]
RecalibrateOption = Annotated[
    bool,
    typer.Option(
        "--recalibrate",
        help="Scale the uncertainty of the posterior so that its intervals cover as they state, as "
        "fitted on recordings of known speech. Goes with --posterior.",
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="local|auto|HOST:PORT",
        help="Enhance several batches at once through Ray: by processes of this machine, or on the "
        "cluster that it belongs to, or one at an address.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="With --cluster: batches at once, at most.",
        show_default="one for each core or GPU",
    ),
]  # fmt: skip
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Redo what is finished; overwrite files of other origin in OUT."),
]


def enhance(
    context: typer.Context,
    noisy: NoisyArgument = None,
    output: OutputOption = None,
    manifest: ManifestOption = None,
    video: VideoOption = None,
    speech: SpeechOption = None,
    noise: NoiseOption = "nmf",
    inference: InferenceOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = Device.auto,
    posterior: PosteriorOption = None,
    draws: DrawsOption = 50,
    recalibrate: RecalibrateOption = False,
    as_json: JsonOption = False,
    log_json: LogJsonOption = False,
    force: ForceOption = False,
    face_model: FaceModelOption = None,
    face: FaceOption = "auto",
    frontalise: FrontaliseOption = False,
    video_offset: OffsetOption = None,
    video_optional: OptionalOption = False,
    video_track: VideoTrackOption = None,
    audio_track: AudioTrackOption = None,
    show_lips: LipsFigureOption = None,
    reliability: ReliabilityOption = None,
    time_limit: TimeLimitOption = None,
    predictor: PredictorOption = None,
    predictor_optional: PredictorOptionalOption = False,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    stream: StreamOption = False,
    stream_format: StreamFormatOption = StreamFormat.wav,
    sample_rate_hz: StreamRateOption = None,
    stream_band: StreamBandOption = None,
) -> None:
    """Enhance recordings; see ``HELP``."""
    with console.guard_errors() as remarks:
        check_stream_options(context, stream)
        if stream or output is None:
            return enhance_stream(stream_format, sample_rate_hz, stream_band, predictor)

        from avse_ppl.pipeline.jobs import list_missing, plan_jobs, plan_manifest
        from avse_ppl.utils.files import check_writable

        # Check what was asked for.
        if recalibrate and posterior is None:
            raise ValueError(
                "--recalibrate changes the posterior only, which is not asked for; add --posterior "
                "OUT.nc"
            )
        check_time_limit(time_limit)
        if manifest is None:
            plan = plan_jobs(noisy or [], output, posterior)
        else:
            plan = plan_manifest(manifest, output, posterior)
        missing = [] if plan.manifest is None else list_missing(plan)
        settings = {"speech": speech, "noise": noise, "inference": inference, "seed": seed,
                    "draws": draws, "device": device.value, "recalibrate": recalibrate,
                    "reliability": reliability, "time_limit_s": time_limit, "predictor": predictor,
                    "predictor_optional": predictor_optional}  # fmt: skip
        options: dict[str, Any] = {
            "force": force,
            "cluster": cluster,
            "workers": workers,
            "video": check_video_exists(video),
            "video_options": parse_video_options(
                face_model, face, frontalise, video_offset, video_optional, video_track, audio_track
            ),
        }
        if show_lips is not None:
            from avse_ppl.plotting import plot_tracking

            check_writable(show_lips, suffixes=(".png",))
            options["on_lips"] = lambda lips: plot_tracking(lips, show_lips)

        # Enhance, and report.
        if missing:
            names = ", ".join(f"'{job.input}'" for job in missing)
            verb = choose_form(len(missing), "is", "are")
            whole = name_count(len(plan.jobs), "recording")
            text = f"{len(missing)} of the {whole} of '{manifest}' {verb} missing"
            console.print_message("error:", f"{text}, the rest is enhanced: {names}", "bold red")
        outcomes = run_jobs(plan, {**settings, **options}, log_json)
        failed = [o for o in outcomes if o.error is not None]
        failures = [
            (str(o.job.input), console.describe_error(o.error))
            for o in failed if o.error is not None and o.job not in missing
        ]  # fmt: skip
        warnings = [
            (str(o.job.input), text) for o in outcomes if o.status != "kept" for text in o.warnings
        ]
        single = plan.folder is None
        for line in [t for _, t in warnings] if single else console.group_remarks(warnings):
            console.print_warning(line)
        if as_json:
            report: dict[str, Any] = {
                "files": [describe_outcome(o) for o in outcomes],
                "failed": len(failed),
            }
            if plan.manifest is not None:
                report["manifest"] = str(plan.enhanced_manifest)
            console.print_json({**report, "settings": settings, "warnings": remarks})
        else:
            print_summary(plan, outcomes)
        for line in [t for _, t in failures] if single else console.group_remarks(failures):
            console.print_message("error:", line, "bold red")
        if failed:
            raise typer.Exit(console.BAD_INPUT)


def run_jobs(plan: JobPlan, options: dict[str, Any], log_json: bool = False) -> list[Outcome]:
    """Run `enhance_files` with a progress bar, or a line of JSON on stderr for each recording.

    An interruption reports what is finished.
    """
    from avse_ppl.pipeline.enhance_files import enhance_files

    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        stack.enter_context(console.redirect_stdout())
        progress = stack.enter_context(console.make_progress_bar(shown=not log_json))
        options = {**options, "progress": console.add_steps(progress)}
        task = progress.add_task("enhancing", total=len(plan.jobs) if plan.folder else None)
        try:
            for outcome in enhance_files(plan, **options):
                if outcome.error is not None and console.is_debugging():
                    raise outcome.error
                outcomes.append(outcome)
                if log_json:
                    console.print_json_line(describe_outcome(outcome))
                progress.advance(task)
        except KeyboardInterrupt:
            progress.stop()
            done = sum(outcome.status != "failed" for outcome in outcomes)
            after = "; the same command goes on from there" if plan.folder else ""
            text = f"finished {done} of {name_count(len(plan.jobs), 'recording')}{after}"
            console.print_message("interrupted:", text)
            raise typer.Exit(console.INTERRUPTED) from None
    return outcomes


def describe_outcome(outcome: Outcome) -> dict[str, Any]:
    """Outcome of one recording, as the JSON report has it."""
    entry: dict[str, Any] = {
        "input": str(outcome.job.input),
        "output": None if outcome.error else str(outcome.job.output),
        "status": outcome.status,
        **outcome.details,
        "warnings": list(outcome.warnings),
    }
    if outcome.error is not None:
        entry["error"] = console.describe_error(outcome.error)
    return entry


def print_summary(plan: JobPlan, outcomes: list[Outcome]) -> None:
    """Print a line on the single recording, or on how many of several were enhanced."""
    counts = Counter(outcome.status for outcome in outcomes)
    if plan.folder is not None:
        parts = [f"{counts['enhanced']} enhanced"]
        if counts["kept"]:
            parts.append(
                f"{counts['kept']} finished before and left as they are (--force redoes them)"
            )
        if counts["failed"]:
            parts.append(f"{counts['failed']} failed")
        if plan.manifest is not None and len(outcomes) > counts["failed"]:
            parts.append(f"listed in {plan.enhanced_manifest}")
        console.print_line(f"{plan.folder}: {', '.join(parts)}")
        return
    for outcome in outcomes:
        if outcome.status != "enhanced":
            continue
        details = outcome.details
        parts = [
            f"{details['duration_s']:.2f} s at {details['sample_rate_hz']} Hz",
            f"real-time factor {details['cost']['real_time_factor']:.2f}",
        ]
        if details["kind"]:
            parts.append(f"posterior {details['kind']}")
        if details["predictor"]:
            parts.append(f"predictor {details['predictor']}")
        if details["posterior"]:
            parts.append(f"written to {details['posterior']}")
        console.print_line(f"{outcome.job.output}: {', '.join(parts)}")
