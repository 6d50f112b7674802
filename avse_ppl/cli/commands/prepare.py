"""``avse-ppl prepare``: prepare the audio and the lips of a corpus for training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import JsonOption
from avse_ppl.cli.options import FaceModelOption, FaceOption, parse_face
from avse_ppl.data.readers import CORPORA
from avse_ppl.utils.plurals import name_count

if TYPE_CHECKING:
    from avse_ppl.data.prepare import Prepared

HELP = """
Compute the features of a corpus once: its audio at one rate and, where there is video, the mouth
of the speaker at 25 frames a second.

The features of each clip are kept in CACHE.pieces/ until all are there: a run that was cut off goes
on when the command is given again, and a clip is read again only if its file or the settings
changed.
Clips that are missing or cannot be read are listed at the end; the rest is prepared.

[bold]Corpora[/] are folders as they were published:

CORPORA
The result is CACHE.npy and CACHE.npz (audio), CACHE.lips.npy and CACHE.lips.npz (mouth crops),
CACHE.noisy.npy and CACHE.noisy.npz (where the corpus has paired noisy recordings). When they are
there, CACHE.pieces/ may be removed.

[bold]Example[/]

\b
  avse-ppl prepare grid s1/ -o cache/s1 --jobs 4
"""

HELP = HELP.replace(
    "CORPORA", "\b\n" + "".join(f"  {name:<18}{c.layout}\n" for name, c in CORPORA.items())
)
CorpusName = StrEnum("CorpusName", list(CORPORA))

CorpusArgument = Annotated[CorpusName, typer.Argument(help="Which corpus.")]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Its folder.")]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="CACHE", help="Path of the cache, without suffix.")
]
JobsOption = Annotated[
    int, typer.Option("--jobs", "-j", min=1, help="Processes that read clips in parallel.")
]
NoLipsOption = Annotated[bool, typer.Option("--no-lips", help="Audio only.")]
RateOption = Annotated[int, typer.Option("--rate-hz", min=1, help="Sampling rate of the audio.")]
HighpassOption = Annotated[
    float, typer.Option("--highpass-hz", min=0.0, help="High-pass of the speech, Hz; 0 for none.")
]


def prepare(
    corpus: CorpusArgument,
    folder: FolderArgument,
    output: OutputOption,
    jobs: JobsOption = 1,
    no_lips: NoLipsOption = False,
    face_model: FaceModelOption = None,
    face: FaceOption = "auto",
    rate_hz: RateOption = 16000,
    highpass_hz: HighpassOption = 70.0,
    as_json: JsonOption = False,
) -> None:
    """Compute the features of a corpus; see ``HELP``."""
    with console.guard_errors() as shown:
        from avse_ppl.data.clip_features import FeatureSettings
        from avse_ppl.data.prepare import prepare as compute
        from avse_ppl.utils.files import check_folder

        if face_model is not None and not face_model.is_file():
            raise FileNotFoundError(f"no face detector at '{face_model}'; expected an .onnx file")
        check_folder(output.parent)
        clips = CORPORA[corpus.value].reader(folder)
        model = str(face_model) if face_model else None
        features = FeatureSettings(
            rate_hz, highpass_hz or None, not no_lips, model, parse_face(face)
        )
        prepared = compute(clips, output, features, jobs, progress=console.ERR.is_terminal)
        warn_of_failures(prepared)
        if as_json:
            console.print_json({**make_report(prepared, output), "warnings": shown})
        else:
            console.print_line(format_report(prepared, output))


def warn_of_failures(prepared: Prepared) -> None:
    """Warn of what could not be read, and of what is noteworthy, clip by clip."""
    lists = (("left out", prepared.left_out), ("without mouth", prepared.without_lips))
    for what, pairs in lists:
        for clip, reason in pairs:
            console.print_message(
                f"{what}:", reason if str(clip.path) in reason else f"{clip.path}: {reason}"
            )
    for line in console.group_remarks([(str(clip.path), text) for clip, text in prepared.remarks]):
        console.print_warning(line)


def make_report(prepared: Prepared, output: Path) -> dict:
    """Make the report of a prepared corpus: amounts, and what could not be read."""
    lips = prepared.lips
    return {
        "output": str(output),
        "clips": len(prepared.speech),
        "duration_s": prepared.speech.duration_s,
        "splits": {
            split: prepared.speech.indices(split).size for split in ("train", "dev", "test")
        },
        "frames": 0 if lips is None else len(lips.frames),
        "frames_found": 0 if lips is None else int(lips.found.sum()),
        "left_out": [[str(clip.path), reason] for clip, reason in prepared.left_out],
        "without_lips": [[str(clip.path), reason] for clip, reason in prepared.without_lips],
    }


def format_report(prepared: Prepared, output: Path) -> str:
    """Format the report as a line."""
    report = make_report(prepared, output)
    splits = ", ".join(f"{count} {split}" for split, count in report["splits"].items() if count)
    clips = name_count(report["clips"], "clip")
    text = f"{output}: {clips} ({splits}), {report['duration_s'] / 60:.1f} min"
    if report["frames"]:
        share = report["frames_found"] / report["frames"]
        text += f", {report['frames']} frames, a face in {share:.1%} of them"
    failed = len(report["left_out"]), len(report["without_lips"])
    text += f"; left out {failed[0]}" if failed[0] else ""
    return text + (f"; without mouth {failed[1]}" if failed[1] else "")
