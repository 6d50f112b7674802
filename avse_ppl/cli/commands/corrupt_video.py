"""``avse-ppl corrupt-video``: corrupt a video in a known way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import JsonOption, SeedOption
from avse_ppl.cli.options import FaceModelOption, FaceOption, parse_face

HELP = """
Corrupt a video in a known way, to test enhancement and [bold]avse-ppl reliability[/] on it. The
mouth is tracked, and the corruption composited onto it; what concerns time changes whole frames.
The audio is copied. The same seed gives the same file.

[bold]Kinds[/]

\b
  hand, patch, bar, microphone, item, scarf        cover the mouth
  blur, noise, dark, compression, motion-blur,
  pixelation, dead-pixels                          degrade the frame
  yaw, pitch, roll                                 turn the head
  freeze, stutter                                  hold the frame
  drop, flicker                                    black frames
  shift, backwards                                 lose the sync, 0.2 to 1 s
  other-speaker                                    with --with FILE

[bold]Example[/]

\b
  avse-ppl corrupt-video clip.mkv covered.mkv --kind hand --severity 0.8 --start 1 --end 2
"""

InputArgument = Annotated[Path, typer.Argument(metavar="IN", help="Video of one speaker.")]
OutputArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Where to: .mkv, .mp4, .mov or .avi.")
]
KindOption = Annotated[str, typer.Option(metavar="NAME", help="Kind of corruption; see above.")]
SeverityOption = Annotated[
    float, typer.Option(metavar="S", help="From 0, hardly visible, to 1, mouth lost.")
]
StartOption = Annotated[float, typer.Option("--start", metavar="S", help="From when, seconds.")]
EndOption = Annotated[
    float | None,
    typer.Option("--end", metavar="S", help="Until when, seconds.", show_default="the end"),
]
WithOption = Annotated[
    Path | None, typer.Option("--with", metavar="F", help="Video of another speaker.")
]


def corrupt_video(
    source: InputArgument,
    output: OutputArgument,
    kind: KindOption,
    severity: SeverityOption = 0.8,
    start_s: StartOption = 0.0,
    end_s: EndOption = None,
    seed: SeedOption = 0,
    other: WithOption = None,
    face_model: FaceModelOption = None,
    face: FaceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Corrupt a video; see ``HELP``."""
    with console.guard_errors() as remarks:
        from avse_ppl.utils.files import check_apart, check_writable
        from avse_ppl.video import read_lips
        from avse_ppl.video.corruptions.video import SUFFIXES, check_kind
        from avse_ppl.video.corruptions.video import corrupt_video as corrupt

        check_writable(output, suffixes=SUFFIXES)
        check_apart([output], [source, *([other] if other else [])])
        check_kind(kind, severity, other is not None)
        if end_s is not None and end_s <= start_s:
            raise ValueError(f"expected --end after --start, found {start_s:g} s to {end_s:g} s")
        chosen = parse_face(face)
        lips = read_lips(source, face_model=face_model, face=chosen)
        pair = None
        if other is not None:
            pair = other, read_lips(other, face_model=face_model, face=chosen)
        made = corrupt(
            source, output, kind, lips, severity=severity, start_s=start_s, end_s=end_s,
            seed=seed, other=pair,
        )  # fmt: skip
        known, rows = made.known, slice(made.start, made.stop)
        mean = float(known.reliability[rows].mean())
        if as_json:
            report = {
                "output": str(made.path),
                "kind": kind,
                "severity": severity,
                "seed": seed,
                "first_frame": made.start,
                "end_frame": made.stop,
                "mean_reliability": mean,
                "reliability": known.reliability.tolist(),
                "cause": known.cause.tolist(),
            }
            console.print_json({**report, "warnings": remarks})
        else:
            console.print_line(
                f"{output}: {kind} in {made.stop - made.start} of {len(lips)} frames, mean "
                f"reliability there {mean:.2f}"
            )
