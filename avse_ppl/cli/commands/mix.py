"""``avse-ppl mix``: mix speech and noise at a stated ratio."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import JsonOption, SeedOption

if TYPE_CHECKING:
    from avse_ppl.signal.audio import Audio

HELP = """
Mix clean speech with noise at a stated signal-to-noise ratio.

The ratio is that of the powers where somebody speaks (32 ms frames within 40 dB of the loudest).
Noise that is longer than the speech is cut at a place drawn from the seed; shorter noise is
repeated with a cross-fade. Both are averaged to mono; noise at another sampling rate is brought to
that of the speech. A mixture that would pass full scale is turned down, speech and noise with it.

[bold]Example[/]

\b
  avse-ppl mix clean.wav rain.ogg --snr-db 0 -o noisy.wav --save-speech reference.wav

Score against the file of [bold]--save-speech[/]: it is filtered and scaled as in the mixture.
"""

SpeechArgument = Annotated[Path, typer.Argument(metavar="SPEECH", help="Clean speech.")]
NoiseArgument = Annotated[Path, typer.Argument(metavar="NOISE", help="Noise.")]
SnrOption = Annotated[float, typer.Option("--snr-db", metavar="X", help="Speech over noise, dB.")]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT", help="Mixture: .wav, .flac or .ogg.")
]
SaveSpeechOption = Annotated[
    Path | None, typer.Option(metavar="F", help="Also write the speech in the mixture.")
]
SaveNoiseOption = Annotated[
    Path | None, typer.Option(metavar="F", help="Also write the noise in the mixture.")
]
HighpassOption = Annotated[
    float,
    typer.Option("--highpass-hz", min=0.0, help="High-pass the speech first, Hz; 0 for not."),
]


def mix(
    speech: SpeechArgument,
    noise: NoiseArgument,
    snr_db: SnrOption,
    output: OutputOption,
    seed: SeedOption = 0,
    save_speech: SaveSpeechOption = None,
    save_noise: SaveNoiseOption = None,
    highpass_hz: HighpassOption = 70.0,
    as_json: JsonOption = False,
) -> None:
    """Mix speech with noise; see ``HELP``."""
    with console.guard_errors() as remarks:
        from avse_ppl.data.mixing import mix as mix_arrays
        from avse_ppl.signal.audio import SAVE_SUBTYPES, Audio, convert_rate, save_audio
        from avse_ppl.utils.files import check_apart, check_writable

        outputs = [path for path in (output, save_speech, save_noise) if path is not None]
        for path in outputs:
            check_writable(path, suffixes=SAVE_SUBTYPES)
        check_apart(outputs, [speech, noise])
        clean = read_speech(speech, highpass_hz)
        rate_hz = clean.sample_rate_hz
        mixed = mix_arrays(clean, convert_rate(read_mono(noise), rate_hz), snr_db, rate_hz, seed)
        parts = ((save_speech, mixed.speech), (save_noise, mixed.noise), (output, mixed.mixture))
        for path, samples in parts:
            if path is not None:
                save_audio(path, Audio(samples, rate_hz))
        report = {
            "output": str(output), "sample_rate_hz": rate_hz, "snr_db": mixed.snr_db,
            "input_si_sdr_db": mixed.input_si_sdr_db, "gain": mixed.gain, "seed": seed,
        }  # fmt: skip
        if as_json:
            console.print_json({**report, "warnings": remarks})
        else:
            console.print_line(
                f"{output}: {clean.duration_s:.2f} s at {rate_hz} Hz, SNR {mixed.snr_db:.1f} "
                f"dB, SI-SDR {mixed.input_si_sdr_db:.1f} dB, scaled by {mixed.gain:.2f}"
            )


def read_speech(path: Path, highpass_hz: float) -> Audio:
    """Read clean speech, averaged to mono and high-passed."""
    from avse_ppl.data.decoding import highpass
    from avse_ppl.signal.audio import Audio

    audio = read_mono(path)
    if highpass_hz == 0 or audio.n_samples == 0:
        return audio
    if highpass_hz >= audio.sample_rate_hz / 2:
        raise ValueError(
            f"--highpass-hz is {highpass_hz:g}; expected less than half the sampling rate of the "
            f"speech, {audio.sample_rate_hz / 2:g} Hz, or 0 for no filter"
        )
    return Audio(highpass(audio.samples, audio.sample_rate_hz, highpass_hz), audio.sample_rate_hz)


def read_mono(path: Path) -> Audio:
    """Read a recording, averaged to mono with a warning."""
    from avse_ppl.signal.audio import check_finite, load_audio

    audio = load_audio(path)
    check_finite(audio.samples)
    if audio.n_channels > 1:
        warnings.warn(f"'{path}': averaged {audio.n_channels} channels", UserWarning, stacklevel=2)
    return audio.mono()
