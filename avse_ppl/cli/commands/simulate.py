"""``avse-ppl simulate``: prior predictive mixtures of a scene, as sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import JsonOption, SeedOption
from avse_ppl.utils.plurals import choose_form, name_count

HELP = """
Draw mixtures from the prior of a scene, to be listened to before it has seen a recording.

Latents are drawn from their priors, speech and noise from their laws given them. Writes
OUT/0.mixture.wav, OUT/0.speech.wav, OUT/0.noise.wav, and so on. All draws are at one scale, at
which the loudest peaks at half of full scale.

[bold]Examples[/]

\b
  avse-ppl simulate --noise "nmf(8)+hum(50)" -o drawn
  avse-ppl simulate --speech dkf --noise my_noise:heavy_tailed -o drawn --draws 10 --duration 5

The speech prior needs a law: denoisers such as score have none.
"""

OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT", help="New or empty folder.")
]
SpeechOption = Annotated[
    str, typer.Option(metavar="NAME|DIR", help="Speech prior: a name, or a folder of weights.")
]
NoiseOption = Annotated[
    str, typer.Option(metavar="NOISE", help="Noise model, as in [bold]avse-ppl enhance[/].")
]
DrawsOption = Annotated[int, typer.Option(metavar="N", min=1, help="Number of mixtures.")]
DurationOption = Annotated[float, typer.Option("--duration", metavar="S", help="Seconds of each.")]


def simulate(
    output: OutputOption,
    speech: SpeechOption = "tcvae",
    noise: NoiseOption = "nmf",
    draws: DrawsOption = 4,
    duration: DurationOption = 3.0,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw prior predictive mixtures; see ``HELP``."""
    with console.guard_errors() as remarks:
        from avse_ppl.models.prior_predictive import draw_prior_predictive
        from avse_ppl.models.scene import Scene
        from avse_ppl.pipeline.catalog import resolve_noise, resolve_speech
        from avse_ppl.signal.audio import Audio, save_audio

        if output.exists() and not (output.is_dir() and not any(output.iterdir())):
            raise ValueError(
                f"expected a new or an empty folder at '{output}', found something; name another"
            )
        scene = Scene(resolve_speech(speech, with_video=False), resolve_noise(noise))
        drawn = draw_prior_predictive(scene, duration, draws, seed=seed)
        output.mkdir(parents=True, exist_ok=True)
        files = []
        for i in range(draws):
            for part in ("mixture", "speech", "noise"):
                audio = Audio(getattr(drawn, part)[i], drawn.sample_rate_hz)
                files.append(str(save_audio(output / f"{i}.{part}.wav", audio)))
        if as_json:
            report = {"files": files, "sample_rate_hz": drawn.sample_rate_hz, "seed": seed}
            console.print_json({**report, "warnings": remarks})
        else:
            console.print_line(
                f"{output}: {name_count(draws, 'mixture')} of {duration:g} s at "
                f"{drawn.sample_rate_hz} Hz, with the speech and the noise in "
                f"{choose_form(draws, 'it', 'them')}"
            )
