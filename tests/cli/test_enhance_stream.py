"""``avse-ppl enhance --stream``: stdin to stdout, remarks on stderr, exit codes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from avse_ppl import StreamEnhancer
from avse_ppl.cli.main import app
from tests.helpers import ROOT

RAW = ("--stream-format", "s16", "--sample-rate-hz", "8000")


def white(seconds=0.25, rate_hz=16000):
    return 0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate_hz))


def write_wav(samples, rate_hz=16000):
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


def stream(data, *arguments):
    return CliRunner().invoke(app, ["enhance", "--stream", *arguments], input=data)


def refused(result):
    assert (result.exit_code, result.stdout_bytes) == (2, b""), (result.stderr, result.exception)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("stream:")]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0].removeprefix("error: ")


def test_wav_in_wav_out_and_remarks_on_stderr():
    samples = white()
    result = stream(write_wav(samples))
    assert result.exit_code == 0
    found, rate_hz = soundfile.read(io.BytesIO(result.stdout_bytes))
    enhancer = StreamEnhancer(16000)
    wave = (np.rint(samples * 32768) / 32768).astype("float32")
    expected = np.concatenate((enhancer.process(wave).speech, enhancer.flush().speech))
    assert rate_hz == 16000
    np.testing.assert_allclose(found, expected, atol=1e-4)
    first, last = result.stderr.splitlines()
    assert first == "stream: 16000 Hz, 1 channel, s16; latency 32.0 ms; predictor predictor"
    assert last.startswith("stream: 0.25 s enhanced, real-time factor ")


def test_bands_are_channels():
    result = stream(write_wav(white()), "--stream-band", "0.9")
    speech, lower, upper = soundfile.read(io.BytesIO(result.stdout_bytes))[0].T
    assert (lower <= speech).all() and (speech <= upper).all() and (upper > lower).mean() > 0.9


def test_raw_samples_and_half_a_sample():
    result = stream(bytes(2001), *RAW)
    assert (result.exit_code, len(result.stdout_bytes)) == (0, 2000)
    assert "warning: the last 1 bytes of stdin are no whole sample" in result.stderr


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (b"", (), "stdin is empty"),
        (b"", RAW, "stdin held no samples"),
        (b"RIFF", (), "ends before the samples"),
        (write_wav(white())[:40], (), "ends before the samples"),
        (b"", ("--stream-format", "f32"), "add it, for instance --sample-rate-hz 16000"),
        (b"", ("--sample-rate-hz", "8000"), "a WAV file says its own"),
        (write_wav(white()), ("--stream-band", "90"), "between 0 and 1"),
        (b"", ("--predictor", "tcvae"), "expected 'tcn'"),
        (b"", ("--predictor", "deepfilternet"), "deepfilternet holds no config.json"),
        (b"", ("noisy.wav",), "takes no files"),
        (b"", ("-o", "out.wav"), "takes no files"),
        (b"", ("--video", "v.mp4", "--draws", "50"), "--video, --draws cannot go with --stream"),
        (b"", ("--inference", "svi"), "--inference cannot go with --stream"),
        (b"", ("--json",), "--json cannot go with --stream"),
        (b"", ("--device", "cuda"), "--device cannot go with --stream"),
    ],
)
def test_what_is_refused(data, arguments, message):
    assert message in refused(stream(data, *arguments))


def test_options_of_a_stream_without_one():
    result = CliRunner().invoke(app, ["enhance", "n.wav", "-o", "e.wav", "--stream-band", "0.9"])
    assert refused(result).startswith("--stream-band can only go with --stream")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["n.wav"], "Missing option '--output'"), (["-o", "e.wav"], "Missing argument 'NOISY'")],
)
def test_files_are_still_asked_for_without_a_stream(arguments, message):
    result = CliRunner().invoke(app, ["enhance", *arguments])
    assert result.exit_code == 2 and message in result.stderr


@pytest.mark.parametrize("name", ["stdin", "stdout"])
@pytest.mark.parametrize("how", ["terminal", "closed"])
def test_a_terminal_or_nothing_is_no_pipe(name, how, monkeypatch, capsys):
    from avse_ppl.cli.commands.enhance_stream import open_pipes

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(sys, name, Terminal() if how == "terminal" else None)
    with pytest.raises(ValueError, match=f"{name} is (a )?{how}; expected a pipe or a file"):
        open_pipes()


# --- processes -----------------------------------------------------------------------------------


def start():
    return subprocess.Popen(
        [sys.executable, "-m", "avse_ppl", "enhance", "--stream", *RAW],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_samples_come_back_before_stdin_ends_and_an_interrupt_ends_it():
    with start() as process:
        for size in (1, 2, 3, 1000, 994):  # 1000 samples in odd pieces
            process.stdin.write(b"\x01" * size)
            process.stdin.flush()
        # All but the latency of 40.2 ms, 322 samples, and what is no whole frame.
        assert len(process.stdout.read(2 * 600)) == 1200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 130
        remarks = process.stderr.read().decode().splitlines()
    assert remarks[-1].startswith("interrupted: 0.12 s enhanced")
    assert len(remarks) == 2


def test_a_reader_that_goes_away_ends_it_without_a_traceback():
    with start() as process:
        process.stdout.close()
        process.stdin.write(bytes(4000))
        process.stdin.flush()
        assert process.wait(timeout=300) == 1
        remarks = process.stderr.read().decode().splitlines()
    assert remarks[-1].startswith("stdout was closed by its reader: 0.")
    assert len(remarks) == 2
