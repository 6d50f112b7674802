"""``avse-ppl prepare``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from avse_ppl.cli.commands import console
from avse_ppl.cli.commands.console import JsonOption

if TYPE_CHECKING:
    from avse_ppl.data.clips import Clip
    from avse_ppl.data.prepare import Prepared

HELP = """
Compute the features of a corpus once: its sound at one rate and, where there is video, the mouth
of the speaker at 25 frames a second.

Each clip is kept in CACHE.pieces/ when it is done: a run that was cut off goes on from there when
the command is given again, and a clip is read again only if its file or the settings changed.
Clips that are missing or cannot be read are listed at the end; the rest is prepared.

[bold]Corpora[/] are folders as they were published:


The result is CACHE.npy and CACHE.npz (sound), CACHE.lips.npy and CACHE.lips.npz (mouths),
CACHE.noisy.npy and CACHE.noisy.npz (where the corpus has noisy recordings of the same). When they
are there, CACHE.pieces/ may be removed.

[bold]Example[/]

\b
  avse-ppl prepare grid s1/ -o cache/s1 --jobs 4
"""

LAYOUTS = {
    "grid": ("read_grid", "*.mpg of one speaker, or s1/, s2/, ... at any depth"),
    "tcd-timit": ("read_tcd_timit", "volunteers/01M/Clips/straightcam/sa1.mp4"),
    "ntcd-timit": ("read_ntcd_timit", "Clean/volunteers/01M/straightcam/sa1.wav"),
    "avspeech": ("read_avspeech", "avspeech_train.csv and <video>_<start>-<end>.mp4"),
    "lrs3": ("read_lrs3", "{pretrain,trainval,test}/<speaker>/00001.mp4"),
    "lrw-ar": ("read_lrw_ar", "*.mp4 at any depth"),
    "speechocean762": ("read_speechocean762", "list.tsv and <speaker>/<clip>.opus"),
    "voicebank-demand": ("read_voicebank_demand", "{clean,noisy}_trainset_28spk_wav/*.wav"),
    "wsj0-qut": ("read_wsj0_qut", "WSJ0_SE/wsj0_si_tr_s/ and QUT_WSJ0/"),
    "noise": ("read_noise", "<corpus>/<class>/<clip>.ogg or <corpus>/<class>.flac"),
}
HELP = HELP.replace(
    "", "\b\n" + "".join(f"  {name:<18}{layout}\n" for name, (_, layout) in LAYOUTS.items())
)
CorpusName = StrEnum("CorpusName", list(LAYOUTS))

CorpusArgument = Annotated[CorpusName, typer.Argument(help="Which corpus.")]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Its folder.")]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="CACHE", help="Where to, without ending.")
]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Clips read side by side.")]
NoLipsOption = Annotated[bool, typer.Option("--no-lips", help="Sound only.")]
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
RateOption = Annotated[int, typer.Option("--rate-hz", min=1, help="Sampling rate of the sound.")]
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
    with console.guarded() as shown:
        from avse_ppl.data.pieces import FeatureSettings
        from avse_ppl.data.prepare import prepare as compute
        from avse_ppl.utils.files import check_folder

        if face_model is not None and not face_model.is_file():
            raise FileNotFoundError(f"no face detector at '{face_model}'; expected an .onnx file")
        check_folder(output.parent)
        clips = list_clips(corpus.value, folder)
        model = str(face_model) if face_model else None
        features = FeatureSettings(rate_hz, highpass_hz or None, not no_lips, model, _face(face))
        prepared = compute(clips, output, features, jobs, progress=console.ERR.is_terminal)
        _warn(prepared)
        if as_json:
            console.print_json({**_report(prepared, output), "warnings": shown})
        else:
            console.print_line(_line(prepared, output))


def list_clips(corpus: str, folder: Path) -> list[Clip]:
    """List the clips of a corpus by its name on the command line."""
    from avse_ppl.data import readers

    return getattr(readers, LAYOUTS[corpus][0])(folder)


def _face(text: str) -> int | Literal["largest", "auto"]:
    if text == "auto" or text == "largest":
        return text
    if not text.isdigit():
        raise ValueError(f"--face is '{text}'; expected auto, largest or a number from 0")
    return int(text)


def _warn(prepared: Prepared) -> None:
    """Tell what could not be read, and what is noteworthy, clip by clip."""
    lists = (("left out", prepared.left_out), ("without mouth", prepared.without_lips))
    for what, pairs in lists:
        for clip, reason in pairs:
            console.say(
                f"{what}:", reason if str(clip.path) in reason else f"{clip.path}: {reason}"
            )
    for line in console.grouped([(str(clip.path), text) for clip, text in prepared.remarks]):
        console.warn(line)


def _report(prepared: Prepared, output: Path) -> dict:
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


def _line(prepared: Prepared, output: Path) -> str:
    report = _report(prepared, output)
    splits = ", ".join(f"{count} {split}" for split, count in report["splits"].items() if count)
    text = f"{output}: {report['clips']} clips ({splits}), {report['duration_s'] / 60:.1f} min"
    if report["frames"]:
        share = report["frames_found"] / report["frames"]
        text += f", {report['frames']} frames, a face in {share:.1%} of them"
    failed = len(report["left_out"]), len(report["without_lips"])
    text += f"; left out {failed[0]}" if failed[0] else ""
    return text + (f"; without mouth {failed[1]}" if failed[1] else "")
