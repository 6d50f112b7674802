"""``avse-ppl enhance``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from avse_ppl.cli.commands import console
from avse_ppl.cli.commands.console import Device, DeviceOption, JsonOption, SeedOption
from avse_ppl.cli.commands.enhance_options import (
    DrawsOption,
    ForceOption,
    InferenceOption,
    LipsPictureOption,
    NoiseOption,
    NoisyArgument,
    OutputOption,
    PosteriorOption,
    RecalibrateOption,
    SpeechOption,
)
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
    from rich.progress import Progress

    from avse_ppl.pipeline.enhance import Outcome
    from avse_ppl.pipeline.jobs import JobPlan
    from avse_ppl.video import Lips

HELP = """
Enhance a noisy recording: write the posterior mean of the clean speech.

Speech and noise are generative models, and what you hear is what they make of the recording
together. The output has the length and the channels of the input, at the sampling rate of the
speech prior (16 kHz for the shipped ones). Input may be WAV, FLAC, OGG, MP3 and others, or the
sound of a video.

[bold]Examples[/]

\b
  avse-ppl enhance noisy.wav -o enhanced.wav
  avse-ppl enhance noisy.wav -o enhanced.wav --posterior posterior.nc
  avse-ppl enhance noisy.wav -o enhanced.wav --noise my_noise:heavy_tailed
  avse-ppl enhance clip.mkv -o enhanced.wav --show-lips lips.png
  avse-ppl enhance recordings/ -o enhanced/ --device cuda --json > report.json

[bold]Video[/] of the speaker's face is looked at where the recording is one, or --video gives it:
the prior is then av-dkf unless --speech says otherwise. The face is found with weights that do not
come with the package: see --face-model. With --video-optional, a recording whose video cannot be
used is enhanced by ear.

[bold]Several recordings[/], or a folder of them, go to a folder: a/b.flac becomes OUT/b.wav.
Recordings of like length are enhanced together. OUT/enhance.jsonl lists what is finished:
interrupt the command and start it again, and it goes on from there. What was made with other
settings, or from a recording that has changed, is made anew.

[bold]--noise module:function[/] takes a noise model of your own from a Python file in the current
folder: a function of frames that returns ComplexNormal(mean, power).

Exit code: 0 if all went well, 2 if a recording failed or the input was refused.
"""


def enhance(
    noisy: NoisyArgument,
    output: OutputOption,
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
    force: ForceOption = False,
    face_model: FaceModelOption = None,
    face: FaceOption = "auto",
    video_offset: OffsetOption = None,
    video_optional: OptionalOption = False,
    show_lips: LipsPictureOption = None,
    reliability: ReliabilityOption = None,
) -> None:
    """Enhance recordings; see ``HELP``."""
    with console.guarded() as remarks:
        from avse_ppl.pipeline.jobs import plan_jobs

        if recalibrate and posterior is None:
            raise ValueError(
                "--recalibrate changes the posterior only, which is not asked for; add --posterior "
                "OUT.nc"
            )
        todo = plan_jobs(noisy, output, posterior)
        looking = {
            "video": existing(video), "on_lips": _plot_lips(show_lips),
            "video_options": parse_video_options(face_model, face, video_offset, video_optional),
        }  # fmt: skip
        settings = {"speech": speech, "noise": noise, "inference": inference, "seed": seed,
                    "draws": draws, "device": device.value, "recalibrate": recalibrate,
                    "reliability": reliability}  # fmt: skip
        outcomes = _run(todo, {**settings, **looking}, force)
        _report(todo, outcomes, settings, remarks, as_json)


def _plot_lips(path: Path | None) -> Callable[[Lips], object] | None:
    """Function that plots lips to a file, which is checked at once."""
    if path is None:
        return None
    from avse_ppl.plotting.lips import save_lips_picture
    from avse_ppl.utils.files import check_writable

    check_writable(path, suffixes=(".png",))
    return lambda lips: save_lips_picture(lips, path)


def _run(todo: JobPlan, settings: dict[str, Any], force: bool) -> list[Outcome]:
    from avse_ppl.pipeline.enhance import enhance_files

    outcomes: list[Outcome] = []
    with console.stdout_kept_clean(), _progress() as progress:
        task = progress.add_task("enhancing", total=len(todo.jobs) if todo.folder else None)
        try:
            for outcome in enhance_files(todo, force=force, **settings):
                if outcome.error is not None and console.debugging():
                    raise outcome.error
                outcomes.append(outcome)
                progress.advance(task)
        except KeyboardInterrupt:
            progress.stop()
            _interrupted(outcomes, todo)
    return outcomes


def _progress() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console.ERR, transient=True, disable=not console.ERR.is_terminal,
    )  # fmt: skip


def _interrupted(outcomes: list[Outcome], todo: JobPlan) -> None:
    done = sum(outcome.status != "failed" for outcome in outcomes)
    after = "; the same command goes on from there" if todo.folder else ""
    console.say("interrupted:", f"{done} of {len(todo.jobs)} recordings are finished{after}")
    raise typer.Exit(console.INTERRUPTED)


def _report(
    todo: JobPlan,
    outcomes: list[Outcome],
    settings: dict[str, Any],
    remarks: list[str],
    as_json: bool,
) -> None:
    alone = todo.folder is None
    fresh = [outcome for outcome in outcomes if outcome.status != "kept"]
    said = [(str(o.job.input), text) for o in fresh for text in o.warnings]
    failures = [
        (str(o.job.input), console.reason(o.error)) for o in outcomes if o.error is not None
    ]
    for line in _lines(said, alone):
        console.warn(line)
    if as_json:
        files = [_as_dict(outcome) for outcome in outcomes]
        report = {"files": files, "failed": len(failures), "settings": settings}
        console.print_json({**report, "warnings": remarks})
    else:
        _summary(todo, outcomes)
    for line in _lines(failures, alone):
        console.say("error:", line, "bold red")
    if failures:
        raise typer.Exit(console.BAD_INPUT)


def _lines(pairs: list[tuple[str, str]], alone: bool) -> list[str]:
    """Texts about the one recording there is, or grouped by text and naming recordings."""
    return [text for _, text in pairs] if alone else console.grouped(pairs)


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "input": str(outcome.job.input),
        "output": None if outcome.error else str(outcome.job.output),
        "status": outcome.status,
        **outcome.details,
        "warnings": list(outcome.warnings),
    }
    if outcome.error is not None:
        entry["error"] = console.reason(outcome.error)
    return entry


def _summary(todo: JobPlan, outcomes: list[Outcome]) -> None:
    counts = Counter(outcome.status for outcome in outcomes)
    if todo.folder is None:
        for outcome in outcomes:
            if outcome.status == "enhanced":
                console.print_line(_sentence(outcome))
        return
    parts = [f"{counts['enhanced']} enhanced"]
    if counts["kept"]:
        parts.append(f"{counts['kept']} finished before and left as they are (--force redoes them)")
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    console.print_line(f"{todo.folder}: {', '.join(parts)}")


def _sentence(outcome: Outcome) -> str:
    details = outcome.details
    parts = [
        f"{details['duration_s']:.2f} s at {details['sample_rate_hz']} Hz",
        f"real-time factor {details['cost']['real_time_factor']:.2f}",
    ]
    if details["kind"]:
        parts.append(f"posterior {details['kind']}")
    if details["posterior"]:
        parts.append(f"written to {details['posterior']}")
    return f"{outcome.job.output}: {', '.join(parts)}"
