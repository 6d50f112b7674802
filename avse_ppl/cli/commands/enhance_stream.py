"""``avse-ppl enhance --stream``: enhance standard input to standard output."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from avse_ppl.cli import console
from avse_ppl.utils.plurals import name_count

if TYPE_CHECKING:
    from avse_ppl.pipeline.stream import StreamEnhancer
    from avse_ppl.signal.wav_stream import SampleStream

_EXAMPLE = "avse-ppl enhance --stream < noisy.wav > enhanced.wav"
_OWN = ("stream_format", "sample_rate_hz", "stream_band")  # make no sense without --stream
_COMMON = ("stream", "predictor")
_CLOSED_BY_READER = 1


class StreamFormat(StrEnum):
    """What comes in on stdin, and goes out on stdout."""

    wav = "wav"
    s16 = "s16"
    f32 = "f32"


StreamOption = Annotated[
    bool,
    typer.Option(
        "--stream",
        help="Enhance stdin to stdout as it comes, at most 64 ms late, without inference.",
    ),
]
StreamFormatOption = Annotated[
    StreamFormat,
    typer.Option(
        help="With --stream: WAV, or one channel of raw samples, 16-bit or float, little-endian."
    ),
]
StreamRateOption = Annotated[
    int | None,
    typer.Option(metavar="HZ", help="With --stream: rate of raw samples.", show_default=False),
]
StreamBandOption = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        help="With --stream: two more channels after each, the ends of the band that holds a "
        "sample of speech with this probability, for instance 0.9.",
        show_default=False,
    ),
]


def check_stream_options(context: typer.Context, stream: bool) -> None:
    """Refuse options that make no sense together; require those of files where there are files.

    Raises
    ------
    ValueError
        If options were given that go with ``--stream`` only, or never.
    """
    sources = [(p, context.get_parameter_source(str(p.name))) for p in context.command.params]
    given = [p for p, source in sources if source is not None and source.name != "DEFAULT"]
    if not stream:
        own = [parameter.opts[0] for parameter in given if parameter.name in _OWN]
        if own:
            raise ValueError(f"{', '.join(own)} can only go with --stream: {_EXAMPLE}")
        if context.params["noisy"] and context.params["manifest"]:
            raise ValueError(
                "--manifest lists the recordings, and NOISY does, too; give one of them"
            )
        if not context.params["noisy"] and not context.params["manifest"]:
            context.fail("Missing argument 'NOISY', or option '--manifest'.")
        if not context.params["output"]:
            context.fail("Missing option '--output' / '-o'.")
        return
    if context.params["noisy"] or context.params["output"]:
        raise ValueError(f"--stream reads stdin and writes stdout, and takes no files: {_EXAMPLE}")
    others = [p.opts[0] for p in given if p.name not in (*_OWN, *_COMMON)]
    if others:
        raise ValueError(
            f"{', '.join(others)} cannot go with --stream, which runs no inference; leave it out, "
            "or enhance a file"
        )


def enhance_stream(
    stream_format: StreamFormat,
    sample_rate_hz: int | None,
    band: float | None,
    predictor: str | None,
) -> None:
    """Enhance stdin to stdout, with remarks on stderr."""
    import torch

    from avse_ppl.pipeline.stream_pipe import StreamProgress, enhance_pipe
    from avse_ppl.signal.wav_stream import SampleStream

    raw = None
    if stream_format is StreamFormat.wav and sample_rate_hz is not None:
        raise ValueError(
            "--sample-rate-hz is for raw samples, a WAV file says its own; leave it out, or add "
            "--stream-format s16 or f32"
        )
    if stream_format is not StreamFormat.wav:
        if sample_rate_hz is None:
            raise ValueError(
                "raw samples do not say their rate; add it, for instance --sample-rate-hz 16000"
            )
        raw = SampleStream(sample_rate_hz, code=stream_format.value)
    source, sink = open_pipes()
    progress = StreamProgress()
    torch.set_num_threads(1)  # a few frames keep no more than one busy
    try:
        with console.redirect_stdout():
            enhance_pipe(
                source, sink, raw=raw, predictor=predictor, band=band,
                on_start=print_start, progress=progress,
            )  # fmt: skip
    except BrokenPipeError:
        abandon_stdout()
        print_end("stdout was closed by its reader:", progress)
        raise typer.Exit(_CLOSED_BY_READER) from None
    except KeyboardInterrupt:
        print_end("interrupted:", progress)
        raise typer.Exit(console.INTERRUPTED) from None
    print_end("stream:", progress)


def open_pipes() -> tuple[Any, BinaryIO]:
    """Binary stdin and stdout.

    Raises
    ------
    ValueError
        If one of them is a terminal, or closed.
    """
    for name, file in (("stdin", sys.stdin), ("stdout", sys.stdout)):
        if file is None or file.closed or file.isatty():
            what = "is closed" if file is None or file.closed else "is a terminal"
            raise ValueError(f"{name} {what}; expected a pipe or a file: {_EXAMPLE}")
    return sys.stdin.buffer, sys.stdout.buffer


def print_start(given: SampleStream, stream: StreamEnhancer) -> None:
    """Print what comes in, and how late it goes out."""
    channels = name_count(given.channels, "channel")
    console.print_message(
        "stream:",
        f"{given.sample_rate_hz} Hz, {channels}, {given.code}; latency "
        f"{1000 * stream.latency_s:.1f} ms; predictor {stream.predictor.name}",
    )


def print_end(prefix: str, progress: Any) -> None:
    """Print how much was enhanced, and how long that took."""
    factor = progress.real_time_factor
    text = f"{progress.sound_s:.2f} s enhanced, real-time factor {factor:.2f}"
    console.print_message(prefix, text + ("; slower than the sound" if factor > 1.0 else ""))


def abandon_stdout() -> None:
    """Let what is still to be written go nowhere, so that Python does not stumble at its exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
