"""Arguments and options of ``avse-ppl enhance``, but for those of `video_options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NoisyArgument = Annotated[
    list[Path], typer.Argument(metavar="NOISY", help="Recordings, or a folder of them.")
]
OutputOption = Annotated[
    str,  # a slash at its end says that it is a folder, which a Path would drop
    typer.Option(
        "--output", "-o", metavar="OUT",
        help="File ending in .wav (float), .flac (24 bits) or .ogg; a folder for several.",
    ),
]  # fmt: skip
LipsPictureOption = Annotated[
    Path | None, typer.Option("--show-lips", metavar="OUT.png", help="Picture of what was tracked.")
]
SpeechOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|DIR",
        help="Speech prior: a name listed by [bold]avse-ppl models[/], or a folder of weights.",
        show_default="tcvae, or av-dkf with video",
    ),
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
        help="Routine that inverts the two, by name.",
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
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Redo what is finished; overwrite files of other origin in OUT."),
]
