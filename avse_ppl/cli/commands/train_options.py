"""Options of ``avse-ppl train``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avse_ppl.training.recipes import list_trainable


class Precision(StrEnum):
    """Floating-point precision of matrix products."""

    single = "32-true"
    mixed = "bf16-mixed"


if TYPE_CHECKING:
    Prior = str
else:  # typer lists the members of an enumeration, and refuses others
    Prior = StrEnum("Prior", {name.replace("-", "_"): name for name in list_trainable()})

PriorArgument = Annotated[Prior, typer.Argument(help="Which model to train.")]
SpeechOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CORPUS=DIR",
        help="A corpus of clean speech; give it again for each further one. noise-vae learns from "
        "it to infer noise under speech.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for weights and checkpoints.")
]
NoiseOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Noise for a second phase, in which the encoder learns from noisy speech; for "
        "noise-vae, the data of the first phase: CORPUS/CLASS/CLIP.ogg or CORPUS/CLASS.flac.",
    ),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Epochs of the first phase.", show_default="that of the recipe"),
]
EncoderEpochsOption = Annotated[
    int | None,
    typer.Option(min=0, help="Epochs of the second phase.", show_default="that of the recipe"),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(help="bf16-mixed is nearly twice as fast where the hardware has bfloat16."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where the decoded audio is kept, about 110 MB an hour.",
        show_default="cache/ in the output",
    ),
]
NoResumeOption = Annotated[
    bool, typer.Option("--no-resume", help="Start over, whatever checkpoints there are.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")
]

LipsOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="CACHE", help="Prepared lips of a corpus; again for each further one.",
        show_default=False,
    ),
]  # fmt: skip
TeacherOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Teacher of another training.")
]
VisualEncoderOption = Annotated[
    str | None, typer.Option(metavar="NAME|DIR", help="Visual encoder of another training.")
]
EncoderOption = Annotated[
    str | None, typer.Option(metavar="NAME|DIR", help="Prior whose encoder is taken as it is.")
]
InitialOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|DIR",
        help="Weights of the same name to go on from; of a prior, the encoder learns on.",
    ),
]
TrunkOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|DIR", help="Audio-only predictor that av-predictor hears by.",
        show_default="predictor",
    ),
]  # fmt: skip
FusionOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="av-predictor of another training to go on from, on any trunk."
    ),
]
DevicesOption = Annotated[
    int,
    typer.Option(min=1, help="GPUs of this machine that train together (or processes on its CPU)."),
]
WorkersOption = Annotated[
    int, typer.Option(min=0, help="Processes that cut and augment the crops.")
]
